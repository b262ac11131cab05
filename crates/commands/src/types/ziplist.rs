//! Ziplists: how Redis before 7.0 kept small collections. Read, never written.
//!
//! ```text
//! ziplist  = bytes:u32 tail:u32 count:u16 entry* 0xff      numbers little-endian
//! entry    = previous encoding
//! previous = the length of the entry before: u8 below 254 | 0xfe u32
//! encoding = 00 and 6 bits of length, text | 01 and 14 bits, text | 0x80 u32 (big-endian), text
//!          | 0xc0 i16 | 0xd0 i32 | 0xe0 i64 | 0xf0 i24 | 0xfe i8
//!          | 1111 and 4 bits: one more than a number from 0 to 12
//! ```

use bytes::Bytes;

use crate::args::int_text;
use crate::types::dump::take;

const HEADER_BYTES: usize = 10;
const END: u8 = 0xff;
/// The count of a ziplist with so many entries or more.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// The entries of a ziplist, integers as their digits; `None` if it is damaged.
pub(crate) fn read(ziplist: &Bytes) -> Option<Vec<Bytes>> {
    let mut input = &ziplist[..];
    let bytes = u32::from_le_bytes(take(&mut input)?);
    let tail = u32::from_le_bytes(take(&mut input)?);
    let count = u16::from_le_bytes(take(&mut input)?);
    if bytes as usize != ziplist.len() {
        return None;
    }
    let mut entries = Vec::new();
    let (mut previous, mut last) = (0, HEADER_BYTES);
    while input != [END] {
        let start = input.len();
        if read_previous(&mut input)? != previous {
            return None;
        }
        entries.push(read_entry(ziplist, &mut input)?);
        previous = start - input.len();
        last = ziplist.len() - start;
    }
    let told = count == COUNT_UNKNOWN || usize::from(count) == entries.len();
    (told && tail as usize == last).then_some(entries)
}

fn read_previous(input: &mut &[u8]) -> Option<usize> {
    match *input.first()? {
        0xfe => take::<5>(input).map(|[_, b @ ..]| u32::from_le_bytes(b) as usize),
        END => None,
        length => take::<1>(input).map(|_| usize::from(length)),
    }
}

fn read_entry(ziplist: &Bytes, input: &mut &[u8]) -> Option<Bytes> {
    let first = *input.first()?;
    let length = match first {
        0..0x40 => take::<1>(input).map(|_| usize::from(first))?,
        0x40..0x80 => usize::from(u16::from_be_bytes(take(input)?) & 0x3fff),
        0x80 => take::<5>(input).map(|[_, b @ ..]| u32::from_be_bytes(b) as usize)?,
        _ => return read_int(first, input).map(int_text),
    };
    input.split_off(..length).map(|text| ziplist.slice_ref(text))
}

fn read_int(encoding: u8, input: &mut &[u8]) -> Option<i64> {
    Some(match encoding {
        0xc0 => take::<3>(input).map(|[_, b @ ..]| i64::from(i16::from_le_bytes(b)))?,
        0xd0 => take::<5>(input).map(|[_, b @ ..]| i64::from(i32::from_le_bytes(b)))?,
        0xe0 => take::<9>(input).map(|[_, b @ ..]| i64::from_le_bytes(b))?,
        0xf0 => {
            let [_, a, b, c] = take(input)?;
            i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
        }
        0xfe => take::<2>(input).map(|[_, b]| i64::from(b as i8))?,
        0xf1..=0xfd => take::<1>(input).map(|_| i64::from(encoding & 0x0f) - 1)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// `2`, `5` and a text, as the comment in Redis's source lays them out.
    const EXAMPLE: &[u8] = b"\x1c\0\0\0\x0e\0\0\0\x03\0\x00\xf3\x02\xf6\x02\x0bHello World\xff";

    #[test]
    fn the_example_of_redis_is_read() {
        let read = read(&Bytes::from_static(EXAMPLE)).expect("sound");
        assert_eq!(read, [&b"2"[..], b"5", b"Hello World"]);
    }

    #[test]
    fn integers_of_all_widths_are_read() {
        let entries = [
            (&b"\xc0\x00\x80"[..], "-32768"),
            (b"\xd0\xff\xff\xff\x7f", "2147483647"),
            (b"\xe0\0\0\0\0\0\0\0\x80", "-9223372036854775808"),
            (b"\xf0\0\0\x80", "-8388608"),
            (b"\xfe\x80", "-128"),
            (b"\xf1", "0"),
            (b"\xfd", "12"),
            (b"\x41\x00", "x"),
        ];
        for (entry, expected) in entries {
            let text = if entry[0] == 0x41 { "x".repeat(256) } else { String::new() };
            let bytes = (12 + entry.len() + text.len()) as u32;
            let mut ziplist = bytes.to_le_bytes().to_vec();
            ziplist.extend_from_slice(b"\x0a\0\0\0\x01\0\0");
            ziplist.extend_from_slice(entry);
            ziplist.extend_from_slice(text.as_bytes());
            ziplist.push(END);
            let expected = if text.is_empty() { expected.to_owned() } else { text };
            assert_eq!(read(&Bytes::from(ziplist)), Some(vec![Bytes::from(expected)]));
        }
    }

    #[test]
    fn damage_never_panics() {
        let mut random = Random::new(8);
        for _ in 0..200_000 {
            let mut ziplist = EXAMPLE.to_vec();
            for _ in 0..1 + random.below(3) {
                let at = random.below(ziplist.len());
                ziplist[at] = random.next() as u8;
            }
            read(&Bytes::from(ziplist));
        }
    }
}

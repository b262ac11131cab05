//! Listpacks: how Redis keeps small collections, and so how DUMP writes them.
//!
//! ```text
//! listpack = bytes:u32 count:u16 element* 0xff        numbers little-endian; count 65535: walk
//! element  = encoding backlen
//! encoding = 0 and 7 bits                             0 to 127
//!          | 110 and 13 bits | 0xf1 i16 | 0xf2 i24 | 0xf3 i32 | 0xf4 i64
//!          | 10 and 6 bits of length, text
//!          | 1110 and 12 bits of length, text | 0xf0 u32 of length, text
//! backlen  = the encoding's length, 7 bits a byte, highest first, all but the first byte with the
//!            high bit set
//! ```
//!
//! The bits that follow a prefix go on, highest first, in the next byte; what stands behind a whole
//! byte (`0xf1` …) is little-endian.

use bytes::{BufMut, Bytes, BytesMut};

use crate::args::{int_text, parse_int};
use crate::types::dump::take;

const HEADER_BYTES: usize = 6;
const END: u8 = 0xff;
/// The count of a listpack with so many elements or more.
const COUNT_UNKNOWN: u16 = u16::MAX;
/// Longest text that is tried as an integer, in bytes: `-9223372036854775808`.
const INT_TEXT_BYTES_MAX: usize = 20;

/// A listpack of these elements; what reads as an integer becomes one.
pub(crate) fn write<'a>(elements: impl Iterator<Item = &'a [u8]>) -> BytesMut {
    let mut out = BytesMut::zeroed(HEADER_BYTES);
    let mut count = 0usize;
    for element in elements {
        let start = out.len();
        let int = if element.len() <= INT_TEXT_BYTES_MAX { parse_int(element) } else { None };
        match int {
            Some(int) => put_int(&mut out, int),
            None => put_text(&mut out, element),
        }
        let length = out.len() - start;
        put_backlen(&mut out, length as u64);
        count += 1;
    }
    out.put_u8(END);
    let bytes = out.len() as u32;
    out[..4].copy_from_slice(&bytes.to_le_bytes());
    let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
    out[4..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    out
}

/// Bytes an element takes in a listpack.
pub(crate) fn element_bytes(element: &[u8]) -> usize {
    let int = if element.len() <= INT_TEXT_BYTES_MAX { parse_int(element) } else { None };
    let encoding = match (int, element.len()) {
        (Some(0..=0x7f), _) => 1,
        (Some(-0x1000..=0xfff), _) => 2,
        (Some(-0x8000..=0x7fff), _) => 3,
        (Some(-0x80_0000..=0x7f_ffff), _) => 4,
        (Some(-0x8000_0000..=0x7fff_ffff), _) => 5,
        (Some(_), _) => 9,
        (None, length @ 0..0x40) => 1 + length,
        (None, length @ 0x40..0x1000) => 2 + length,
        (None, length) => 5 + length,
    };
    encoding + backlen_bytes(encoding as u64)
}

/// The elements of a listpack, integers as their digits; `None` if it is damaged.
pub(crate) fn read(listpack: &Bytes) -> Option<Vec<Bytes>> {
    let mut input = &listpack[..];
    let bytes = u32::from_le_bytes(take(&mut input)?);
    let count = u16::from_le_bytes(take(&mut input)?);
    if bytes as usize != listpack.len() {
        return None;
    }
    let mut elements = Vec::new();
    loop {
        if input == [END] {
            break;
        }
        let start = input.len();
        elements.push(read_element(listpack, &mut input)?);
        let length = (start - input.len()) as u64;
        let mut backlen = BytesMut::with_capacity(5);
        put_backlen(&mut backlen, length);
        input = input.strip_prefix(&backlen[..])?;
    }
    let told = count == COUNT_UNKNOWN || usize::from(count) == elements.len();
    told.then_some(elements)
}

fn put_int(out: &mut BytesMut, int: i64) {
    match int {
        0..=0x7f => out.put_u8(int as u8),
        -0x1000..=0xfff => out.put_u16(0xc000 | (int as u16 & 0x1fff)),
        -0x8000..=0x7fff => {
            out.put_u8(0xf1);
            out.put_i16_le(int as i16);
        }
        -0x80_0000..=0x7f_ffff => {
            out.put_u8(0xf2);
            out.put_slice(&(int as i32).to_le_bytes()[..3]);
        }
        -0x8000_0000..=0x7fff_ffff => {
            out.put_u8(0xf3);
            out.put_i32_le(int as i32);
        }
        _ => {
            out.put_u8(0xf4);
            out.put_i64_le(int);
        }
    }
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    match text.len() {
        length @ 0..0x40 => out.put_u8(0x80 | length as u8),
        length @ 0x40..0x1000 => out.put_u16(0xe000 | length as u16),
        length => {
            out.put_u8(0xf0);
            out.put_u32_le(length as u32);
        }
    }
    out.put_slice(text);
}

/// Redis gives a length one byte more than it needs from one below the powers of 128 on.
fn backlen_bytes(length: u64) -> usize {
    match length {
        0..=0x7f => 1,
        0x80..0x3fff => 2,
        0x3fff..0x1f_ffff => 3,
        0x1f_ffff..0xfff_ffff => 4,
        _ => 5,
    }
}

fn put_backlen(out: &mut BytesMut, length: u64) {
    let bytes = backlen_bytes(length);
    for byte in (0..bytes).rev() {
        let high = if byte == bytes - 1 { 0 } else { 0x80 };
        out.put_u8((length >> (7 * byte)) as u8 & 0x7f | high);
    }
}

fn read_element(listpack: &Bytes, input: &mut &[u8]) -> Option<Bytes> {
    let first = *input.first()?;
    let length = match first {
        0..0x80 => return take::<1>(input).map(|_| int_text(i64::from(first))),
        0x80..0xc0 => take::<1>(input).map(|_| usize::from(first & 0x3f))?,
        0xc0..0xe0 => {
            let bits = u16::from_be_bytes(take(input)?) << 3;
            return Some(int_text(i64::from(bits as i16 >> 3)));
        }
        0xe0..0xf0 => usize::from(u16::from_be_bytes(take(input)?) & 0xfff),
        0xf0 => take::<5>(input).map(|[_, b @ ..]| u32::from_le_bytes(b) as usize)?,
        0xf1..=0xf4 => return read_int(first, input).map(int_text),
        _ => return None,
    };
    input.split_off(..length).map(|text| listpack.slice_ref(text))
}

fn read_int(encoding: u8, input: &mut &[u8]) -> Option<i64> {
    Some(match encoding {
        0xf1 => take::<3>(input).map(|[_, b @ ..]| i64::from(i16::from_le_bytes(b)))?,
        0xf2 => {
            let [_, a, b, c] = take(input)?;
            i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
        }
        0xf3 => take::<5>(input).map(|[_, b @ ..]| i64::from(i32::from_le_bytes(b)))?,
        _ => take::<9>(input).map(|[_, b @ ..]| i64::from_le_bytes(b))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn elements_read_back() {
        let mut elements: Vec<Vec<u8>> = Vec::new();
        for edge in [0, 127, 128, 4095, 4096, -4096, -4097, 32767, 32768, -32768, -32769] {
            elements.push(i64::to_string(&edge).into_bytes());
        }
        for edge in [8_388_607, 8_388_608, -8_388_608, -8_388_609, i64::from(i32::MAX)] {
            elements.push(edge.to_string().into_bytes());
            elements.push((edge + 1).to_string().into_bytes());
        }
        elements.extend([i64::MAX, i64::MIN].map(|edge| edge.to_string().into_bytes()));
        elements.extend(["", "-0", "01", "+1", "9223372036854775808"].map(|t| t.into()));
        for length in [62, 63, 64, 4095, 4096, 16_380, 16_381, 16_382, 2_097_150] {
            elements.push(vec![b'x'; length]);
        }
        let packed = write(elements.iter().map(|element| &element[..])).freeze();
        let widths: usize = elements.iter().map(|element| element_bytes(element)).sum();
        assert_eq!(packed.len(), HEADER_BYTES + widths + 1);
        assert_eq!(read(&packed), Some(elements.into_iter().map(Bytes::from).collect()));
        for length in 0..200 {
            assert_eq!(read(&packed.slice(..length)), None);
        }
        let many = write(std::iter::repeat_n(&b"1"[..], 70_000)).freeze();
        assert_eq!(read(&many).map(|elements| elements.len()), Some(70_000));
    }

    #[test]
    fn damage_never_panics() {
        let mut random = Random::new(6);
        for _ in 0..200_000 {
            let mut packed = write([&b"field"[..], b"12345", b"-70000", b"x"].into_iter());
            for _ in 0..1 + random.below(3) {
                let at = random.below(packed.len());
                packed[at] = random.next() as u8;
            }
            read(&packed.freeze());
        }
    }
}

//! DUMP and RESTORE: a value as Redis's RDB files write it.
//!
//! ```text
//! payload = type:u8 value version:u16 crc64:u64      the last two little-endian; the checksum
//!                                                    covers all before it
//! type    = 0 string | those of hash_dump.rs, set_dump.rs, stream_dump.rs
//! type    = 0 string | those of types/hash_dump.rs
//!         | those of types/list_dump.rs, types/sorted_set_dump.rs
//! string  = length bytes | 0xc0 i8 | 0xc1 i16 | 0xc2 i32 (little-endian)
//!         | 0xc3 packed_length length lzf
//! length  = 00 and 6 bits | 01 and 14 bits | 0x80 u32 | 0x81 u64 (big-endian)
//! lzf     = 000 and 5 bits: that many bytes + 1, which follow
//!         | 3 bits (2 + that many bytes; if 7, a byte more to add) and 13 bits (1 + that far back)
//! ```
//!
//! A checksum is no authentication: what RESTORE gets is hostile until read to its end. Lengths are
//! compared with what is there before memory is taken for them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::args::{VALUE_BYTES_MAX, parse_int};
use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::hash::Hash;
use crate::types::hash_dump::{self, HashDump};
use crate::types::hash_edit;
use crate::types::header::{Kind, Value};
use crate::types::list::{self, List};
use crate::types::list_dump;
use crate::types::set::Set;
use crate::types::set_dump::{self, SetDump};
use crate::types::set_edit;
use crate::types::sorted_set::{Member, SortedSet};
use crate::types::sorted_set_dump;
use crate::types::sorted_set_edit;
use crate::types::stream::Stream;
use crate::types::stream_dump::{self, StreamDump};
use crate::view::View;

/// The version written: that of Redis 7.0, so that its payloads go both ways.
const VERSION_WRITTEN: u16 = VERSION_OF_7_0;
/// Redis 7.0's version of the format.
pub(super) const VERSION_OF_7_0: u16 = 10;
/// Redis 7.2's, written where 7.0 does not have the type.
pub(super) const VERSION_OF_7_2: u16 = 11;
/// The newest version read, and written where only it has the type: that of Redis 7.4.
const VERSION_MAX: u16 = 12;
const FOOTER_BYTES: usize = 10;
const TYPE_STRING: u8 = 0;

/// Longest text that is tried as an integer, in bytes: `-2147483648`.
const INT_TEXT_BYTES_MAX: usize = 11;
/// An LZF item of 3 bytes makes 264 at most.
const LZF_GROWTH_MAX: usize = 88;

/// What a payload holds.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Restored {
    /// A string.
    String(Bytes),
    /// A hash.
    Hash(HashDump),
    /// A set.
    Set(SetDump),
    /// A stream.
    Stream(StreamDump),
    /// A list.
    List(Vec<Bytes>),
    /// A sorted set, its members in any order.
    SortedSet(Vec<Member>),
}

impl Restored {
    /// The value, for the key at which it is about to be stored.
    pub(crate) fn into_value(self, txn: &mut Txn<'_>, key: &[u8]) -> Result<Value, CommandError> {
        Ok(match self {
            Restored::String(text) => Value::string(text),
            Restored::Hash(dump) => {
                hash_edit::build(txn, key, &dump.entries, (dump.is_table, dump.is_timed))?
            }
            Restored::Set(dump) => set_edit::build(txn, key, dump.members, dump.encoding)?,
            Restored::Stream(dump) => dump.into_value(txn, key)?,
            Restored::List(elements) => list::build(txn, key, &elements)?,
            Restored::SortedSet(members) => sorted_set_edit::build(txn, key, members)?,
        })
    }
}

/// The payload of a key's value.
///
/// *Errors*: a type whose payload is not known; rows that cannot be read.
pub(crate) fn serialize(view: &dyn View, key: &[u8], value: &Value) -> Result<Bytes, CommandError> {
    let mut out = BytesMut::new();
    let version = match value {
        Value::String { text, .. } => {
            out.reserve(text.len() + FOOTER_BYTES + 10);
            out.put_u8(TYPE_STRING);
            put_string(&mut out, text);
            VERSION_WRITTEN
        }
        _ if value.kind() == Kind::Hash => {
            let dump = HashDump::of(&Hash::of(view, key, value)?)?;
            if dump.write(&mut out) { VERSION_MAX } else { VERSION_WRITTEN }
        }
        _ if value.kind() == Kind::Set => SetDump::of(&Set::of(view, key, value)?)?.write(&mut out),
        _ if value.kind() == Kind::Stream => {
            StreamDump::of(&Stream::of(view, key, value)?)?.write(&mut out);
            VERSION_OF_7_2
        }
        _ if value.kind() == Kind::List => {
            list_dump::write(view, &List::of(view, key, value)?, &mut out)?;
            VERSION_WRITTEN
        }
        _ if value.kind() == Kind::SortedSet => {
            sorted_set_dump::write(view, &SortedSet::of(view, key, value)?, &mut out)?;
            VERSION_WRITTEN
        }
        _ => return Err(CommandError::NOT_DUMPABLE),
    };
    out.put_u16_le(version);
    let checksum = crc64(&out);
    out.put_u64_le(checksum);
    Ok(out.freeze())
}

/// The value of a payload.
///
/// *Errors*: `RESTORE_CHECKSUM` if the footer is not right, `BadDataFormat` if the rest is not.
pub(crate) fn deserialize(payload: &[u8], checks_sum: bool) -> Result<Restored, CommandError> {
    let content = verified_content(payload, checks_sum).ok_or(CommandError::RESTORE_CHECKSUM)?;
    let (kind, mut input) = content.split_first().ok_or(CommandError::BadDataFormat)?;
    let restored = match *kind {
        TYPE_STRING => read_string(&mut input).map(Restored::String),
        kind if set_dump::is_type(kind) => set_dump::read(kind, &mut input).map(Restored::Set),
        kind if stream_dump::is_type(kind) => {
            stream_dump::read(kind, &mut input).map(Restored::Stream)
        }
        kind if list_dump::is_type(kind) => list_dump::read(kind, &mut input).map(Restored::List),
        kind if sorted_set_dump::is_type(kind) => {
            sorted_set_dump::read(kind, &mut input).map(Restored::SortedSet)
        }
        kind => hash_dump::read(kind, &mut input).map(Restored::Hash),
    };
    restored.filter(|_| input.is_empty()).ok_or(CommandError::BadDataFormat)
}

/// Redis's mark of a library in a payload, and the one of a release candidate.
const FUNCTION: u8 = 245;
const FUNCTION_OF_CANDIDATE: u8 = 246;

/// The payload of libraries, as FUNCTION DUMP answers it: a mark and the code of each.
pub fn payload_of_functions<'a>(codes: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut out = BytesMut::new();
    for code in codes {
        out.put_u8(FUNCTION);
        put_string(&mut out, code);
    }
    out.put_u16_le(VERSION_WRITTEN);
    let checksum = crc64(&out);
    out.put_u64_le(checksum);
    out.freeze()
}

/// The codes of the libraries in a payload, in order.
///
/// *Errors*: `RESTORE_CHECKSUM` if the footer is not right, or that something is no library.
pub fn functions_of_payload(payload: &[u8]) -> Result<Vec<Bytes>, CommandError> {
    let mut input = verified_content(payload, true).ok_or(CommandError::RESTORE_CHECKSUM)?;
    let mut codes = Vec::new();
    while let Some((kind, rest)) = input.split_first() {
        input = rest;
        match *kind {
            FUNCTION => {}
            FUNCTION_OF_CANDIDATE => return Err(CommandError::FUNCTION_PAYLOAD_OLD),
            _ => return Err(CommandError::FUNCTION_PAYLOAD_TYPE),
        }
        codes.push(read_string(&mut input).ok_or(CommandError::FUNCTION_PAYLOAD)?);
    }
    Ok(codes)
}

fn verified_content(payload: &[u8], checks_sum: bool) -> Option<&[u8]> {
    let (covered, checksum) = payload.split_last_chunk::<8>()?;
    let (content, version) = covered.split_last_chunk::<2>()?;
    let right = u16::from_le_bytes(*version) <= VERSION_MAX
        && (!checks_sum || crc64(covered) == u64::from_le_bytes(*checksum));
    right.then_some(content)
}

/// Writes a string.
pub(super) fn put_string(out: &mut BytesMut, text: &[u8]) {
    let int = if text.len() <= INT_TEXT_BYTES_MAX { parse_int(text) } else { None };
    if let Some(int) = int.and_then(|int| i32::try_from(int).ok()) {
        match (i8::try_from(int), i16::try_from(int)) {
            (Ok(int), _) => out.put_slice(&[0xc0, int as u8]),
            (_, Ok(int)) => {
                out.put_u8(0xc1);
                out.put_i16_le(int);
            }
            _ => {
                out.put_u8(0xc2);
                out.put_i32_le(int);
            }
        }
        return;
    }
    put_length(out, text.len() as u64);
    out.put_slice(text);
}

/// Writes a length, or what else Redis writes like one.
pub(super) fn put_length(out: &mut BytesMut, length: u64) {
    match length {
        length @ 0..0x40 => out.put_u8(length as u8),
        length @ 0x40..0x4000 => out.put_u16(0x4000 | length as u16),
        length => match u32::try_from(length) {
            Ok(length) => {
                out.put_u8(0x80);
                out.put_u32(length);
            }
            Err(_) => {
                out.put_u8(0x81);
                out.put_u64(length);
            }
        },
    }
}

/// Reads a string.
pub(super) fn read_string(input: &mut &[u8]) -> Option<Bytes> {
    let int = |value: i32| Bytes::from(value.to_string());
    match *input.first()? {
        0xc0 => take::<2>(input).map(|[_, b]| int(i32::from(b as i8))),
        0xc1 => take::<3>(input).map(|[_, b @ ..]| int(i32::from(i16::from_le_bytes(b)))),
        0xc2 => take::<5>(input).map(|[_, b @ ..]| int(i32::from_le_bytes(b))),
        0xc3 => {
            take::<1>(input)?;
            let (packed, length) = (read_length(input)?, read_length(input)?);
            let packed = input.split_off(..packed)?;
            unpack_lzf(packed, length).map(Bytes::from)
        }
        _ => {
            let length = read_length(input)?;
            input.split_off(..length).map(Bytes::copy_from_slice)
        }
    }
}

/// Reads a length that a value may have.
pub(super) fn read_length(input: &mut &[u8]) -> Option<usize> {
    let length = usize::try_from(read_number(input)?).ok()?;
    (length <= VALUE_BYTES_MAX).then_some(length)
}

/// Reads what Redis writes like a length.
pub(super) fn read_number(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    match first >> 6 {
        0 => take::<1>(input).map(|_| u64::from(first)),
        1 => take::<2>(input).map(|b| u64::from(u16::from_be_bytes(b) & 0x3fff)),
        2 if first == 0x80 => take::<5>(input).map(|[_, b @ ..]| u64::from(u32::from_be_bytes(b))),
        2 if first == 0x81 => take::<9>(input).map(|[_, b @ ..]| u64::from_be_bytes(b)),
        _ => None,
    }
}

/// Takes so many bytes.
pub(super) fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*taken)
}

/// Unpacks LZF, as RDB files and payloads of DUMP have it, to exactly `length` bytes; `None` if that is
/// not what it is.
pub fn unpack_lzf(mut packed: &[u8], length: usize) -> Option<Vec<u8>> {
    if length > packed.len().checked_mul(LZF_GROWTH_MAX)? {
        return None;
    }
    let mut out = Vec::with_capacity(length);
    while let Some((control, rest)) = packed.split_first() {
        packed = rest;
        let control = usize::from(*control);
        if control < 1 << 5 {
            out.extend_from_slice(packed.split_off(..control + 1)?);
        } else {
            let mut run = control >> 5;
            if run == 7 {
                run += usize::from(take::<1>(&mut packed)?[0]);
            }
            let back = ((control & 0x1f) << 8 | usize::from(take::<1>(&mut packed)?[0])) + 1;
            let start = out.len().checked_sub(back)?;
            if out.len() + run + 2 > length {
                return None;
            }
            // The run may overlap what it makes, so it grows byte by byte.
            for at in start..start + run + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

/// CRC-64 by Jones, reflected, as Redis's RDB files carry it: the checksum of what had this one (0 of
/// nothing) and these bytes behind.
pub fn rdb_checksum(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |crc, byte| CRC64_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

fn crc64(bytes: &[u8]) -> u64 {
    rdb_checksum(0, bytes)
}

static CRC64_TABLE: [u64; 256] = crc64_table();

const fn crc64_table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x95ac_9329_ac4b_c9b5 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::view::MemoryView;

    fn sealed(content: &[u8], version: u16) -> Vec<u8> {
        let mut payload = content.to_vec();
        payload.extend_from_slice(&version.to_le_bytes());
        payload.extend_from_slice(&crc64(&payload).to_le_bytes());
        payload
    }

    #[test]
    fn checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn strings_round_trip() {
        let long = [0, 1, 63, 64, 0x3fff, 0x4000, 70_000].map(|length| "x".repeat(length));
        let numbers =
            ["0", "-1", "127", "128", "-32768", "32768", "2147483647", "2147483648", "01", "-0"];
        for text in long.iter().map(String::as_str).chain(numbers) {
            let text = Bytes::copy_from_slice(text.as_bytes());
            let value = Value::string(text.clone());
            let payload = serialize(&MemoryView::new(0), b"", &value).expect("a string");
            assert_eq!(deserialize(&payload, true), Ok(Restored::String(text)));
        }
    }

    #[test]
    fn lzf_of_a_real_server_is_read() {
        // DUMP of 100 times `a` by Redis 7.0.15.
        let payload = b"\x00\xc3\t@d\x01aa\xe0W\x00\x01aa\n\x00\xe8\xa3\xb5\x07\xb0m\xf2q";
        assert_eq!(deserialize(payload, true), Ok(Restored::String(Bytes::from("a".repeat(100)))));
    }

    #[test]
    fn hostile_payloads_with_a_right_checksum_are_refused() {
        for content in [
            &b""[..],
            b"\x00",
            b"\x01\x01a",
            b"\x00\x05abc",
            b"\x00\x01ab",
            b"\x00\xc0",
            b"\x00\xc4\x00",
            b"\x00\x82\x00",
            b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x00\x80\xff\xff\xff\xffx",
            b"\x00\xc3\x02\x05\x20\x00",
            b"\x00\xc3\x02\x80\x03\xff\xff\xff\x00a",
            b"\x00\xc3\x05\x05\x00a\xff\xff\x00",
        ] {
            let refused = Err(CommandError::BadDataFormat);
            assert_eq!(
                deserialize(&sealed(content, 10), true),
                refused,
                "{}",
                content.escape_ascii()
            );
        }
        assert_eq!(
            deserialize(&sealed(b"\x00\x01a", 13), true),
            Err(CommandError::RESTORE_CHECKSUM)
        );
        assert_eq!(
            deserialize(b"\x00\x01a\x0a\x00\0\0\0\0\0\0\0\0", true),
            Err(CommandError::RESTORE_CHECKSUM)
        );
        assert_eq!(deserialize(b"", true), Err(CommandError::RESTORE_CHECKSUM));
    }

    #[test]
    fn random_payloads_never_panic() {
        let mut random = Random::new(5);
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut content = vec![0, *random.pick(&[0xc3, 0xc3, 0x05, 0x41, 0x80, 0xc1])];
            content.extend(random.bytes(24).iter().map(|b| if b & 1 == 0 { b % 40 } else { *b }));
            accepted += usize::from(deserialize(&sealed(&content, 11), true).is_ok());
        }
        assert!(accepted > 0, "nothing got past the first length");
    }
}

//! The value of a header row: everything about a key that is not a data row.
//!
//! ```text
//! header   = shape:u8 version [expire_at_ms:varint] rest
//! shape    = type (bits 0-3) | EXPIRES (bit 4) | encoding (bits 5-6) | 0 (bit 7)
//! type     = 1 string, 2 list, 3 set, 4 zset, 5 hash, 6 stream
//! version  = index:varint ordinal:varint          of the last write of this row
//!
//! rest of a string      = text                     encoding: 0 auto, 1 text, 2 raw
//! rest of a collection  = count:varint body        encoding: 0 inline
//!                       | generation count:varint bytes:varint body      encoding: 1 rows
//! generation = index:varint ordinal:varint        names its data rows
//! varint     = little-endian base 128, high bit means more follows, shortest form only
//! ```
//!
//! A header is decoded without a copy: texts and bodies are slices of the row. Reading is strict;
//! what the grammar does not allow is damage, never a panic and never a guess.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wire::ids::Version;

use crate::view::ViewError;

const EXPIRES: u8 = 1 << 4;
const ENCODING_SHIFT: u32 = 5;
const RESERVED: u8 = 1 << 7;

/// Most bytes a header has before its text or body: a shape byte and seven varints.
const PREFIX_BYTES_MAX: usize = 1 + 7 * VARINT_BYTES_MAX;
const VARINT_BYTES_MAX: usize = 10;

/// Redis's types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
}

impl Kind {
    /// As TYPE says it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::Hash => "hash",
            Kind::Stream => "stream",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Kind::String => 1,
            Kind::List => 2,
            Kind::Set => 3,
            Kind::SortedSet => 4,
            Kind::Hash => 5,
            Kind::Stream => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::String,
            2 => Kind::List,
            3 => Kind::Set,
            4 => Kind::SortedSet,
            5 => Kind::Hash,
            6 => Kind::Stream,
            _ => return None,
        })
    }
}

/// What OBJECT ENCODING may say of a string. The bytes are stored alike; Redis's answer depends on
/// the command that wrote them, so that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TextForm {
    /// `int` if it reads as an integer, else by its length.
    #[default]
    Auto,
    /// By its length, `int` never (INCRBYFLOAT).
    Text,
    /// `raw` (APPEND, SETRANGE).
    Raw,
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A string.
    String {
        /// Its bytes.
        text: Bytes,
        /// What OBJECT ENCODING says of it.
        form: TextForm,
    },
    /// A collection that lives in its header.
    Inline {
        /// Its type; never `String`.
        kind: Kind,
        /// How many elements it has.
        count: u64,
        /// The elements, as the type lays them out.
        body: Bytes,
    },
    /// A collection that lives in data rows.
    Rows {
        /// Its type; never `String`.
        kind: Kind,
        /// The name of its data rows.
        generation: Version,
        /// How many elements it has.
        count: u64,
        /// Bytes of its elements.
        bytes: u64,
        /// What else the type keeps in the header.
        body: Bytes,
    },
}

impl Value {
    /// A string as SET leaves it.
    pub fn string(text: Bytes) -> Value {
        Value::String { text, form: TextForm::Auto }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Value::String { .. } => Kind::String,
            Value::Inline { kind, .. } | Value::Rows { kind, .. } => *kind,
        }
    }

    /// Bytes it is counted with: what the client stored, not how.
    pub fn bytes(&self) -> u64 {
        match self {
            Value::String { text, .. } => text.len() as u64,
            Value::Inline { body, .. } => body.len() as u64,
            Value::Rows { bytes, .. } => *bytes,
        }
    }

    /// The generation of its data rows, if it has any.
    pub fn generation(&self) -> Option<Version> {
        match self {
            Value::Rows { generation, .. } => Some(*generation),
            _ => None,
        }
    }
}

/// A header row's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Which write made this row.
    pub version: Version,
    /// When the key ceases to exist, in ms since the epoch.
    pub expire_at_ms: Option<u64>,
    /// What the key holds.
    pub value: Value,
}

impl Header {
    /// Writes the row's value.
    pub fn encode(&self) -> Bytes {
        let (encoding, body) = match &self.value {
            Value::String { text, form } => (*form as u8, text),
            Value::Inline { body, .. } => (0, body),
            Value::Rows { body, .. } => (1, body),
        };
        let mut row = Prefix::default();
        let expires = if self.expire_at_ms.is_some() { EXPIRES } else { 0 };
        row.put_u8(self.value.kind().code() | expires | (encoding << ENCODING_SHIFT));
        row.put_version(self.version);
        if let Some(at) = self.expire_at_ms {
            row.put_varint(at);
        }
        match &self.value {
            Value::String { .. } => {}
            Value::Inline { count, .. } => row.put_varint(*count),
            Value::Rows { generation, count, bytes, .. } => {
                row.put_version(*generation);
                row.put_varint(*count);
                row.put_varint(*bytes);
            }
        }
        let mut whole = BytesMut::with_capacity(row.length + body.len());
        whole.put_slice(&row.bytes[..row.length]);
        whole.put_slice(body);
        whole.freeze()
    }

    /// Reads a row's value; text and body are slices of it.
    ///
    /// *Errors*: `Damaged` if the grammar does not allow it.
    pub fn decode(mut row: Bytes) -> Result<Header, ViewError> {
        let mut input = &row[..];
        let (shape, version) = read_start(&mut input).ok_or(ViewError::Damaged)?;
        let (expire_at_ms, fields) = read_rest(shape, &mut input).ok_or(ViewError::Damaged)?;
        let consumed = row.len() - input.len();
        row.advance(consumed);
        let value = match fields {
            Fields::String(form) => Value::String { text: row, form },
            Fields::Inline(kind, count) => Value::Inline { kind, count, body: row },
            Fields::Rows(kind, generation, count, bytes) => {
                Value::Rows { kind, generation, count, bytes, body: row }
            }
        };
        Ok(Header { version, expire_at_ms, value })
    }
}

/// The version of the last write of a header row, from its value; `None` if it is damaged. For the
/// compaction filter, which needs nothing else.
pub fn version_of(value: &[u8]) -> Option<Version> {
    read_start(&mut &*value).map(|(_, version)| version)
}

/// Whether a header row's value is that of a collection that lives in data rows.
pub fn is_of_rows(value: &[u8]) -> bool {
    let is_string = |shape: u8| shape & 0x0f == Kind::String.code();
    value.first().is_some_and(|shape| shape >> ENCODING_SHIFT == 1 && !is_string(*shape))
}

/// The generation and the count of elements that a header row's value tells, if it is that of a collection
/// that lives in data rows.
pub fn rows_of(value: &[u8]) -> Option<(Version, u64)> {
    let mut input = value;
    let (shape, _) = read_start(&mut input)?;
    match read_rest(shape, &mut input)?.1 {
        Fields::Rows(_, generation, count, _) => Some((generation, count)),
        Fields::String(_) | Fields::Inline(..) => None,
    }
}

/// Appends a number in the grammar's varint form.
pub fn put_varint(out: &mut BytesMut, mut value: u64) {
    let (mut bytes, mut last) = ([0; VARINT_BYTES_MAX], 0);
    while value >= 0x80 {
        bytes[last] = value as u8 | 0x80;
        value >>= 7;
        last += 1;
    }
    bytes[last] = value as u8;
    out.put_slice(&bytes[..=last]);
}

/// Reads a number in the grammar's varint form and moves `input` behind it; `None` if there is none.
#[inline]
pub fn read_varint(input: &mut &[u8]) -> Option<u64> {
    // Most are lengths and counts: a byte.
    match input.split_first() {
        Some((byte, rest)) if byte & 0x80 == 0 => {
            *input = rest;
            Some(u64::from(*byte))
        }
        _ => read_long_varint(input),
    }
}

fn read_long_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for position in 0..VARINT_BYTES_MAX {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds bit 63 alone.
        if position == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * position);
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || position == 0;
            return shortest.then_some(value);
        }
    }
    None
}

enum Fields {
    String(TextForm),
    Inline(Kind, u64),
    Rows(Kind, Version, u64, u64),
}

fn read_start(input: &mut &[u8]) -> Option<(u8, Version)> {
    let (shape, rest) = input.split_first()?;
    *input = rest;
    if shape & RESERVED != 0 {
        return None;
    }
    Kind::from_code(shape & 0x0f)?;
    Some((*shape, read_version(input)?))
}

fn read_rest(shape: u8, input: &mut &[u8]) -> Option<(Option<u64>, Fields)> {
    let expire_at_ms = if shape & EXPIRES != 0 { Some(read_varint(input)?) } else { None };
    let kind = Kind::from_code(shape & 0x0f)?;
    let fields = match (kind, shape >> ENCODING_SHIFT) {
        (Kind::String, 0) => Fields::String(TextForm::Auto),
        (Kind::String, 1) => Fields::String(TextForm::Text),
        (Kind::String, 2) => Fields::String(TextForm::Raw),
        (Kind::String, _) => return None,
        (kind, 0) => Fields::Inline(kind, read_varint(input)?),
        (kind, 1) => {
            let generation = read_version(input)?;
            Fields::Rows(kind, generation, read_varint(input)?, read_varint(input)?)
        }
        _ => return None,
    };
    Some((expire_at_ms, fields))
}

fn read_version(input: &mut &[u8]) -> Option<Version> {
    let index = read_varint(input)?;
    let ordinal = u32::try_from(read_varint(input)?).ok()?;
    Some(Version { index, ordinal })
}

/// What stands before the body, gathered on the stack so that the row is allocated once, exactly.
struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    length: usize,
}

impl Default for Prefix {
    fn default() -> Prefix {
        Prefix { bytes: [0; PREFIX_BYTES_MAX], length: 0 }
    }
}

impl Prefix {
    fn put_u8(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    fn put_version(&mut self, version: Version) {
        self.put_varint(version.index);
        self.put_varint(u64::from(version.ordinal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_headers() -> Vec<Header> {
        let mut headers = Vec::new();
        let versions = [(0, 0), (1, 127), (128, 128), (u64::MAX, u32::MAX)];
        for (index, ordinal) in versions {
            for expire_at_ms in [None, Some(0), Some(1_700_000_000_000), Some(u64::MAX)] {
                for value in [
                    Value::string(Bytes::new()),
                    Value::String { text: Bytes::from_static(b"abc"), form: TextForm::Text },
                    Value::String { text: Bytes::from_static(b"\x80\0"), form: TextForm::Raw },
                    Value::Inline { kind: Kind::Hash, count: 3, body: Bytes::from_static(b"x") },
                    Value::Rows {
                        kind: Kind::Stream,
                        generation: Version { index, ordinal },
                        count: u64::MAX,
                        bytes: 1 << 40,
                        body: Bytes::from_static(b"dir"),
                    },
                ] {
                    let version = Version { index, ordinal };
                    headers.push(Header { version, expire_at_ms, value });
                }
            }
        }
        headers
    }

    #[test]
    fn headers_round_trip() {
        for header in some_headers() {
            let row = header.encode();
            assert_eq!(version_of(&row), Some(header.version));
            assert_eq!(is_of_rows(&row), header.value.generation().is_some());
            let generation = rows_of(&row).map(|(generation, _)| generation);
            assert_eq!(generation, header.value.generation());
            assert_eq!(Header::decode(row).expect("own encoding"), header);
        }
    }

    #[test]
    fn every_truncation_of_the_fields_is_refused() {
        for header in some_headers() {
            let body = match &header.value {
                Value::String { text: body, .. }
                | Value::Inline { body, .. }
                | Value::Rows { body, .. } => body.len(),
            };
            let row = header.encode();
            for length in 0..row.len() - body {
                assert!(Header::decode(row.slice(..length)).is_err(), "{header:?} at {length}");
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_read_back_the_same() {
        let mut random = Random::new(7);
        for _ in 0..100_000 {
            let row = Bytes::from(random.bytes(24));
            if let Ok(header) = Header::decode(row.clone()) {
                assert_eq!(header.encode(), row, "one value, one encoding");
            }
            version_of(&row);
        }
    }

    #[test]
    fn long_forms_of_numbers_are_refused() {
        assert_eq!(read_varint(&mut &[0x80, 0x00][..]), None);
        assert_eq!(read_varint(&mut &[0xff; 10][..]), None);
        assert_eq!(read_varint(&mut &[0x00][..]), Some(0));
    }
}

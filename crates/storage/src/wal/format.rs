//! The bytes of a segment. All numbers are little-endian.
//!
//! ```text
//! segment = header ... header ... record*      header copies at 0 and 4096, records from 8192 on
//! header  = "evenkwal" version:u32 state:u32 seq:u64 salt:u64 previous_end:u32 crc:u32
//!   state 0: blank, made ahead of need; 1: in use
//!   previous_end: where the records of segment seq-1 end, 0 if there was none
//!
//! record  = tag:u16 kind:u8 0:u8 length:u32 group:u64 index:u64 ballot:u64
//!           batch_start:u32 payload_crc:u32 header_crc:u32 payload pad(to 4)
//!   tag: the high bits of the salt, never 0
//!   header_crc: over the 40 bytes before it, seeded with the salt and the record's offset, so that
//!   neither the stale bytes of a recycled segment nor a misplaced record is taken for one
//!
//! kind       group  index      ballot   payload
//! 1 no-op    group  index      ballot
//! 2 data     group  index      ballot   the value
//! 3 promise  group             ballot
//! 4 chosen   group  index
//! 5 truncate group  index
//! 6 forget   group
//! 7 state    group  truncated  promise  chosen:u64       at the head of a segment
//! 8 footer                              identity*        names the records of its batch
//! 9 pad                                 zeros            keeps the copies of a promise apart
//! 11 config   group  index               a configuration's bytes, twice like a promise
//! 10 mark                               (written behind a synced batch, overwritten by the next)
//!
//! identity = kind:u8 offset group index ballot           unsigned LEB128, each as the difference
//!                                                        (zigzag) to the identity before it
//! ```

/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 44;
/// Offset of the first record.
pub(super) const RECORDS_START: u32 = 8192;
/// Where the copies of the segment header are: in different disk blocks.
pub(super) const SEGMENT_HEADER_AT: [u64; 2] = [0, 4096];
/// Bytes of a segment header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 44;
/// Records start at multiples of this.
pub(super) const ALIGN: u32 = 4;
/// An identity takes at most this many bytes in a footer: the kind and four numbers.
pub(super) const IDENTITY_BYTES_MAX: usize = 1 + 4 * 10;

const MAGIC: &[u8; 8] = b"evenkwal";
const VERSION: u32 = 1;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Noop = 1,
    Data = 2,
    Promise = 3,
    Chosen = 4,
    Truncate = 5,
    Forget = 6,
    State = 7,
    Footer = 8,
    Pad = 9,
    Mark = 10,
    Config = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Noop, Data, Promise, Chosen, Truncate, Forget, State, Footer, Pad, Mark, Config]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Whether the record is an accepted entry.
    pub(super) fn is_accept(self) -> bool {
        matches!(self, Kind::Noop | Kind::Data)
    }

    /// Whether the record says something of a group, so that its loss must be named.
    pub(super) fn is_named(self) -> bool {
        !matches!(self, Kind::Footer | Kind::Pad | Kind::Mark)
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) length: u32,
    pub(super) group: u64,
    pub(super) index: u64,
    pub(super) ballot: u64,
    pub(super) batch_start: u32,
    pub(super) payload_crc: u32,
}

impl Header {
    /// The header's bytes for a segment with this salt, at this offset.
    pub(super) fn encode(&self, salt: u64, offset: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..2].copy_from_slice(&tag(salt).to_le_bytes());
        bytes[2] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ballot.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.batch_start.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed(salt, offset), &bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `offset` of a segment, `bytes` being what stands there; `None` if it is none.
    #[inline]
    pub(super) fn decode(bytes: &[u8], salt: u64, offset: u32) -> Option<Header> {
        let bytes = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
        if bytes[0..2] != tag(salt).to_le_bytes() || bytes[3] != 0 {
            return None;
        }
        let kind = Kind::from_byte(bytes[2])?;
        let crc = crc32c::crc32c_append(seed(salt, offset), &bytes[..40]);
        (crc == u32_at(bytes, 40)).then(|| Header {
            kind,
            length: u32_at(bytes, 4),
            group: u64_at(bytes, 8),
            index: u64_at(bytes, 16),
            ballot: u64_at(bytes, 24),
            batch_start: u32_at(bytes, 32),
            payload_crc: u32_at(bytes, 36),
        })
    }
}

/// Bytes of a whole record whose payload has this length.
pub(super) const fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(ALIGN as usize)
}

fn tag(salt: u64) -> u16 {
    ((salt >> 48) as u16) | 1
}

fn seed(salt: u64, offset: u32) -> u32 {
    (salt as u32) ^ offset.rotate_left(7)
}

/// Appends a whole record to `buffer`, which begins at `buffer_start` of its segment.
pub(super) fn put_record(
    buffer: &mut Vec<u8>,
    buffer_start: u32,
    salt: u64,
    mut header: Header,
    payload: &[u8],
) {
    let offset = buffer_start + buffer.len() as u32;
    header.length = payload.len() as u32;
    header.payload_crc = crc32c::crc32c(payload);
    buffer.extend_from_slice(&header.encode(salt, offset));
    buffer.extend_from_slice(payload);
    buffer.resize(buffer.len().next_multiple_of(ALIGN as usize), 0);
}

/// What a segment header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) used: bool,
    pub(super) seq: u64,
    pub(super) salt: u64,
    pub(super) previous_end: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.used).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.previous_end.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let bytes = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?;
        let valid = &bytes[0..8] == MAGIC
            && u32_at(bytes, 8) == VERSION
            && u32_at(bytes, 12) <= 1
            && u32_at(bytes, 40) == crc32c::crc32c(&bytes[..40]);
        valid.then(|| SegmentHeader {
            used: u32_at(bytes, 12) == 1,
            seq: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            previous_end: u32_at(bytes, 32),
        })
    }
}

/// What a record is about, and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) kind: Kind,
    pub(super) offset: u32,
    pub(super) group: u64,
    pub(super) index: u64,
    pub(super) ballot: u64,
}

/// The payload of a footer that names these records.
pub(super) fn encode_footer(identities: &[Identity]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(identities.len() * 8);
    let mut last = [0u64; 4];
    for identity in identities {
        bytes.push(identity.kind as u8);
        let fields = [identity.offset.into(), identity.group, identity.index, identity.ballot];
        for (field, last) in fields.into_iter().zip(&mut last) {
            let difference = field.wrapping_sub(*last) as i64;
            put_varint(&mut bytes, ((difference << 1) ^ (difference >> 63)) as u64);
            *last = field;
        }
    }
    bytes
}

/// The records that a footer's payload names. Its checksum was verified, so it is well-formed
/// unless another version wrote it: then what could be read is returned.
pub(super) fn decode_footer(mut bytes: &[u8]) -> Vec<Identity> {
    let mut identities = Vec::new();
    let mut last = [0u64; 4];
    while let Some((&kind, rest)) = bytes.split_first() {
        bytes = rest;
        for last in &mut last {
            let Some(raw) = take_varint(&mut bytes) else { return identities };
            let difference = (raw >> 1) as i64 ^ -((raw & 1) as i64);
            *last = last.wrapping_add(difference as u64);
        }
        let (Some(kind), Ok(offset)) = (Kind::from_byte(kind), u32::try_from(last[0])) else {
            return identities;
        };
        let [_, group, index, ballot] = last;
        identities.push(Identity { kind, offset, group, index, ballot });
    }
    identities
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The four bytes at `at`; the caller's slice holds them.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

/// The eight bytes at `at`; the caller's slice holds them.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

/// The (offset, payload length, kind) of the records of an undamaged segment, for tests.
#[cfg(test)]
pub(super) fn read_kinds(bytes: &[u8]) -> Vec<(u32, u32, Kind)> {
    let salt = SegmentHeader::decode(bytes).expect("a valid header").salt;
    let mut kinds = Vec::new();
    let mut at = RECORDS_START;
    while let Some(header) = Header::decode(&bytes[at as usize..], salt, at) {
        kinds.push((at, header.length, header.kind));
        at += record_bytes(header.length as usize) as u32;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_bound_to_salt_and_place() {
        let header = Header {
            kind: Kind::Data,
            length: 7,
            group: 1,
            index: u64::MAX,
            ballot: 3,
            batch_start: 8192,
            payload_crc: 5,
        };
        let bytes = header.encode(0xabcd_0000_0000_0001, 8192);
        assert_eq!(Header::decode(&bytes, 0xabcd_0000_0000_0001, 8192), Some(header));
        assert_eq!(Header::decode(&bytes, 0xabcd_0000_0000_0002, 8192), None);
        assert_eq!(Header::decode(&bytes, 0xabcd_0000_0000_0001, 8196), None);
        assert_eq!(Header::decode(&[0; RECORD_HEADER_BYTES], 0, 0), None);
    }

    #[test]
    fn footers_round_trip() {
        let identities: Vec<Identity> = (0..100u64)
            .map(|i| Identity {
                kind: if i % 3 == 0 { Kind::Noop } else { Kind::Data },
                offset: 8192 + 60 * i as u32,
                group: if i % 2 == 0 { u64::MAX } else { i },
                index: i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                ballot: u64::MAX - i,
            })
            .collect();
        let bytes = encode_footer(&identities);
        assert!(bytes.len() <= identities.len() * IDENTITY_BYTES_MAX);
        assert_eq!(decode_footer(&bytes), identities);
        for cut in 0..bytes.len() {
            let read = decode_footer(&bytes[..cut]);
            assert_eq!(read[..], identities[..read.len()]);
        }
    }
}

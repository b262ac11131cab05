//! The keys of stored rows. All numbers are big-endian, so that rows sort by them.
//!
//! ```text
//! data row key  = table:u32 placement:[u8;5] class:u8 rest
//!   class 0, header: rest = key_hash:u16 (13 bits used) key
//!   class 1, data:   rest = generation.index:u64 generation.ordinal:u32 sub
//! TTL index key = TTL_SPACE|table:u32 expire_at_ms:u64 placement:[u8;5] rest
//!   rest = key (of a key's own time to live; the row's value is empty)
//! meta row key  = META_SPACE:u32 kind:u8 partition:u64 rest      written by `storage` only
//! ```
//!
//! The header's `key_hash` makes the position of a key, `placement << 13 | key_hash`, a number below
//! 2^53: SCAN's cursor, stateless even inside one tag that holds millions of keys.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use wire::ids::{TableId, Version};
use wire::placement::Placement;

/// Highest table a client can have; above it are the spaces below. One less than 31 bits allow: the
/// TTL index of that last table would lie where a replica's own rows do.
pub const MAX_TABLE: TableId = TableId(0x7fff_fffe);
/// Added to a table's number in the keys of its TTL index.
pub const TTL_SPACE: u32 = 0x8000_0000;
/// Instead of a table's number in rows about a replica itself.
pub const META_SPACE: u32 = 0xffff_ffff;
/// Bits of a key's hash inside its placement.
pub const KEY_HASH_BITS: u32 = 13;

/// Bytes of a header row's key before the client's key.
pub(crate) const HEADER_PREFIX_BYTES: usize = 12;
/// Bytes of a data row's key before its generation.
const GENERATION_AT: usize = 10;
/// Bytes of a data row's key before what its collection calls it.
const DATA_PREFIX_BYTES: usize = GENERATION_AT + 12;
const CLASS_HEADER: u8 = 0;
const CLASS_DATA: u8 = 1;

/// A key's position in its table, below 2^53: what SCAN's cursor counts.
pub fn position(placement: Placement, key: &[u8]) -> u64 {
    (placement.get() << KEY_HASH_BITS) | u64::from(key_hash(key))
}

/// 13 bits of a hash of the whole key.
pub fn key_hash(key: &[u8]) -> u16 {
    (xxhash_rust::xxh3::xxh3_64_with_seed(key, 1) & ((1 << KEY_HASH_BITS) - 1)) as u16
}

/// The key of a header row.
pub fn header_key(table: TableId, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(HEADER_PREFIX_BYTES + key.len());
    row.put_slice(&header_prefix(table, key));
    row.put_slice(key);
    row.freeze()
}

/// The key of a header row for a look that keeps nothing: on the stack if the key is short.
pub fn header_key_on_stack(table: TableId, key: &[u8]) -> SmallVec<[u8; 64]> {
    let mut row = SmallVec::with_capacity(HEADER_PREFIX_BYTES + key.len());
    row.extend_from_slice(&header_prefix(table, key));
    row.extend_from_slice(key);
    row
}

fn header_prefix(table: TableId, key: &[u8]) -> [u8; HEADER_PREFIX_BYTES] {
    let mut prefix = [0; HEADER_PREFIX_BYTES];
    prefix[..4].copy_from_slice(&table.0.to_be_bytes());
    prefix[4..9].copy_from_slice(&Placement::of_key(key).to_bytes());
    prefix[9] = CLASS_HEADER;
    prefix[10..].copy_from_slice(&key_hash(key).to_be_bytes());
    prefix
}

/// The position of the key whose header row this is; `None` if the row is no header.
pub fn header_position(row: &[u8]) -> Option<u64> {
    let prefix = row.first_chunk::<HEADER_PREFIX_BYTES>()?;
    let space = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
    if space & TTL_SPACE != 0 || prefix[9] != CLASS_HEADER {
        return None;
    }
    let [_, _, _, _, placement @ .., _, hash_high, hash_low] = *prefix;
    let hash = u64::from(u16::from_be_bytes([hash_high, hash_low]));
    Some((Placement::from_bytes(placement).get() << KEY_HASH_BITS) | hash)
}

/// The smallest header row key at a position.
pub fn header_key_at(table: TableId, position: u64) -> Bytes {
    let mut row = BytesMut::with_capacity(12);
    row.put_u32(table.0);
    let placement = Placement::new(position >> KEY_HASH_BITS).unwrap_or(Placement::MAX);
    row.put_slice(&placement.to_bytes());
    row.put_u8(CLASS_HEADER);
    row.put_u16((position & ((1 << KEY_HASH_BITS) - 1)) as u16);
    row.freeze()
}

/// Just above every header row key at or below a placement.
pub fn headers_end(table: TableId, last: Placement) -> Bytes {
    let mut row = BytesMut::with_capacity(10);
    row.put_u32(table.0);
    row.put_slice(&last.to_bytes());
    row.put_u8(CLASS_DATA);
    row.freeze()
}

/// The key of a data row of the collection that `generation` names.
pub fn data_key(table: TableId, placement: Placement, generation: Version, sub: &[u8]) -> Bytes {
    data_key_of(table, placement, generation, [sub])
}

/// The same, of which what follows the generation comes in parts.
pub(crate) fn data_key_of<const PARTS: usize>(
    table: TableId,
    placement: Placement,
    generation: Version,
    parts: [&[u8]; PARTS],
) -> Bytes {
    let mut prefix = [0; DATA_PREFIX_BYTES];
    let (head, version) = prefix.split_at_mut(GENERATION_AT);
    head[..4].copy_from_slice(&table.0.to_be_bytes());
    head[4..9].copy_from_slice(&placement.to_bytes());
    head[9] = CLASS_DATA;
    version[..8].copy_from_slice(&generation.index.to_be_bytes());
    version[8..].copy_from_slice(&generation.ordinal.to_be_bytes());
    let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut row = Vec::with_capacity(DATA_PREFIX_BYTES + bytes);
    row.extend_from_slice(&prefix);
    parts.iter().for_each(|part| row.extend_from_slice(part));
    row.into()
}

/// The first data row key of a generation, and the first above all of them.
pub fn generation_range(
    table: TableId,
    placement: Placement,
    generation: Version,
) -> (Bytes, Bytes) {
    let next = match generation.ordinal.checked_add(1) {
        Some(ordinal) => Version { ordinal, ..generation },
        None => Version { index: generation.index.saturating_add(1), ordinal: 0 },
    };
    (data_key(table, placement, generation, b""), data_key(table, placement, next, b""))
}

/// The generation that a data row belongs to; `None` if it is no data row.
pub fn generation(row: &[u8]) -> Option<Version> {
    let (head, rest) = row.split_first_chunk::<GENERATION_AT>()?;
    let space = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if space & TTL_SPACE != 0 || head[GENERATION_AT - 1] != CLASS_DATA {
        return None;
    }
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let ordinal = rest.first_chunk::<4>()?;
    Some(Version { index: u64::from_be_bytes(*index), ordinal: u32::from_be_bytes(*ordinal) })
}

/// Whether two row keys, the first of them a data row's, begin with the same generation.
pub fn share_generation(one: &[u8], other: &[u8]) -> bool {
    let generation = |row: &[u8]| row.first_chunk::<{ GENERATION_AT + 12 }>().copied();
    generation(one).is_some() && generation(one) == generation(other)
}

/// The key of the TTL index row of a key.
pub fn ttl_key(table: TableId, expire_at_ms: u64, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(17 + key.len());
    row.put_u32(TTL_SPACE | table.0);
    row.put_u64(expire_at_ms);
    row.put_slice(&Placement::of_key(key).to_bytes());
    row.put_slice(key);
    row.freeze()
}

/// The smallest TTL index row key of a time.
pub fn ttl_key_at(table: TableId, expire_at_ms: u64) -> Bytes {
    let mut row = BytesMut::with_capacity(12);
    row.put_u32(TTL_SPACE | table.0);
    row.put_u64(expire_at_ms);
    row.freeze()
}

/// Just above every TTL index row key of a table.
pub fn ttl_space_end(table: TableId) -> Bytes {
    Bytes::copy_from_slice(&((TTL_SPACE | table.0).saturating_add(1)).to_be_bytes())
}

/// When the key of a TTL index row is due, in ms since the epoch; `None` for any other row.
pub fn ttl_due_ms(row: &[u8]) -> Option<u64> {
    let (space, rest) = row.split_first_chunk::<4>()?;
    let space = u32::from_be_bytes(*space);
    let is_ttl = space & TTL_SPACE != 0 && space != META_SPACE;
    is_ttl.then(|| rest.first_chunk::<8>().map(|due| u64::from_be_bytes(*due)))?
}

/// What a stored row is, read from its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowKind<'a> {
    /// A header row.
    Header {
        /// The table.
        table: TableId,
        /// The placement.
        placement: Placement,
        /// The client's key.
        key: &'a [u8],
    },
    /// A data row of a collection.
    Data {
        /// The table.
        table: TableId,
        /// The placement.
        placement: Placement,
        /// The collection's generation.
        generation: Version,
        /// What follows the generation.
        sub: &'a [u8],
    },
    /// A row of a table's TTL index.
    Ttl {
        /// The table.
        table: TableId,
        /// When it is due, in ms since the epoch.
        expire_at_ms: u64,
        /// The placement.
        placement: Placement,
        /// The client's key.
        key: &'a [u8],
    },
    /// A row about a replica itself.
    Meta,
}

/// Reads a row key; `None` if it is none of ours.
pub fn parse(row: &[u8]) -> Option<RowKind<'_>> {
    let (space, rest) = row.split_first_chunk::<4>()?;
    let space = u32::from_be_bytes(*space);
    if space == META_SPACE {
        return Some(RowKind::Meta);
    }
    let table = TableId(space & !TTL_SPACE);
    if space & TTL_SPACE != 0 {
        let (expire, rest) = rest.split_first_chunk::<8>()?;
        let (placement, key) = rest.split_first_chunk::<5>()?;
        let expire_at_ms = u64::from_be_bytes(*expire);
        return Some(RowKind::Ttl {
            table,
            expire_at_ms,
            placement: Placement::from_bytes(*placement),
            key,
        });
    }
    let (placement, rest) = rest.split_first_chunk::<5>()?;
    let placement = Placement::from_bytes(*placement);
    let (class, rest) = rest.split_first()?;
    match *class {
        CLASS_HEADER => Some(RowKind::Header { table, placement, key: rest.get(2..)? }),
        CLASS_DATA => {
            let (index, rest) = rest.split_first_chunk::<8>()?;
            let (ordinal, sub) = rest.split_first_chunk::<4>()?;
            let index = u64::from_be_bytes(*index);
            let generation = Version { index, ordinal: u32::from_be_bytes(*ordinal) };
            Some(RowKind::Data { table, placement, generation, sub })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(3);

    #[test]
    fn keys_are_read_back() {
        let (key, placement) = (&b"{t}key"[..], Placement::of_key(b"t"));
        let generation = Version { index: 7, ordinal: 8 };
        let header = header_key(TABLE, key);
        assert_eq!(&header_key_on_stack(TABLE, key)[..], &header[..]);
        assert_eq!(parse(&header), Some(RowKind::Header { table: TABLE, placement, key }));
        assert_eq!(
            parse(&data_key(TABLE, placement, generation, b"sub")),
            Some(RowKind::Data { table: TABLE, placement, generation, sub: b"sub" })
        );
        assert_eq!(
            parse(&ttl_key(TABLE, 9, key)),
            Some(RowKind::Ttl { table: TABLE, expire_at_ms: 9, placement, key })
        );
        assert_eq!(parse(&META_SPACE.to_be_bytes()), Some(RowKind::Meta));
        for length in 0..HEADER_PREFIX_BYTES {
            assert_eq!(parse(&header[..length]), None);
        }
    }

    #[test]
    fn positions_are_those_of_the_header_rows() {
        for key in [&b""[..], b"a", b"{t}1", b"{t}2", &[0xff; 100]] {
            let row = header_key(TABLE, key);
            let at = position(Placement::of_key(key), key);
            assert!(at < 1 << 53);
            assert_eq!(header_position(&row), Some(at));
            assert!(header_key_at(TABLE, at) <= row);
            assert!(at == (1 << 53) - 1 || row < header_key_at(TABLE, at + 1));
            assert!(row < headers_end(TABLE, Placement::of_key(key)));
            assert!(row < headers_end(TABLE, Placement::MAX));
            assert_eq!(header_position(&ttl_key(TABLE, 0, key)), None);
        }
        let data = data_key(TABLE, Placement::MIN, Version::default(), b"");
        assert_eq!(header_position(&data), None);
        assert!(headers_end(TABLE, Placement::MIN) <= data);
    }

    #[test]
    fn ranges_hold_their_rows_and_no_other() {
        let at = |index, ordinal| Version { index, ordinal };
        for (one, next) in [(at(1, 1), at(1, 2)), (at(1, u32::MAX), at(2, 0))] {
            let (start, end) = generation_range(TABLE, Placement::MIN, one);
            let last = data_key(TABLE, Placement::MIN, one, &[0xff; 50]);
            assert!(start <= last && last < end);
            assert!(end <= data_key(TABLE, Placement::MIN, next, b""));
            assert_eq!(generation(&last), Some(one));
            assert!(share_generation(&start, &last) && !share_generation(&last, &end));
        }
        let others = [header_key(TABLE, &[1; 30]), ttl_key(TABLE, 1, &[1; 30]), Bytes::new()];
        assert!(others.iter().all(|row| generation(row).is_none()));
        assert!(ttl_space_end(MAX_TABLE)[..] <= META_SPACE.to_be_bytes()[..]);
        let row = ttl_key(TABLE, 5, b"k");
        assert!(ttl_key_at(TABLE, 5) <= row && row < ttl_key_at(TABLE, 6));
        assert!(ttl_key(TABLE, u64::MAX, b"k") < ttl_space_end(TABLE));
        assert!(ttl_space_end(TABLE) <= ttl_key_at(TableId(4), 0));
    }
}

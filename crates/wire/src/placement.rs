//! Placement: where a key lives. 40 bits, `hash slot (14) | tag hash (26)` of the key's hash tag.
//!
//! Co-tagged keys (`{user1}:a`, `{user1}:b`) share a placement, so no split separates them.

use std::fmt;

use crate::ids::TableId;

/// Bits of a placement.
pub const PLACEMENT_BITS: u32 = 40;
/// Bits of a placement below the hash slot.
pub const TAG_HASH_BITS: u32 = 26;
/// Number of Redis hash slots.
pub const SLOTS: u16 = 1 << 14;

/// A position in a table's placement space; below 2^40.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Placement(u64);

impl Placement {
    /// The lowest placement.
    pub const MIN: Placement = Placement(0);
    /// The highest placement.
    pub const MAX: Placement = Placement((1 << PLACEMENT_BITS) - 1);

    /// The placement with this number, or `None` if it has more than 40 bits.
    pub const fn new(value: u64) -> Option<Placement> {
        if value >> PLACEMENT_BITS == 0 { Some(Placement(value)) } else { None }
    }

    /// The placement of a key.
    pub fn of_key(key: &[u8]) -> Placement {
        let tag = hash_tag(key);
        let hash = xxhash_rust::xxh3::xxh3_64(tag) & ((1 << TAG_HASH_BITS) - 1);
        Placement((u64::from(crc16(tag) & (SLOTS - 1)) << TAG_HASH_BITS) | hash)
    }

    /// Redis's hash slot of this placement.
    pub const fn slot(self) -> u16 {
        (self.0 >> TAG_HASH_BITS) as u16
    }

    /// The first placement of a hash slot.
    pub const fn first_of_slot(slot: u16) -> Placement {
        Placement((slot as u64) << TAG_HASH_BITS)
    }

    /// The placement as a number below 2^40.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The placement before this one, if it is not the first.
    pub const fn before(self) -> Option<Placement> {
        match self.0.checked_sub(1) {
            Some(value) => Some(Placement(value)),
            None => None,
        }
    }

    /// The placement after this one, if it is not the last.
    pub const fn after(self) -> Option<Placement> {
        Placement::new(self.0 + 1)
    }

    /// The placement's five bytes in row keys, big-endian.
    pub const fn to_bytes(self) -> [u8; 5] {
        let b = self.0.to_be_bytes();
        [b[3], b[4], b[5], b[6], b[7]]
    }

    /// The inverse of [`Placement::to_bytes`].
    pub const fn from_bytes(b: [u8; 5]) -> Placement {
        Placement(u64::from_be_bytes([0, 0, 0, b[0], b[1], b[2], b[3], b[4]]))
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placement({:010x})", self.0)
    }
}

/// An inclusive range of one table's placement space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlacementRange {
    /// The table.
    pub table: TableId,
    /// The first placement that belongs to the range.
    pub first: Placement,
    /// The last placement that belongs to the range.
    pub last: Placement,
}

impl PlacementRange {
    /// The whole placement space of a table.
    pub const fn whole(table: TableId) -> PlacementRange {
        PlacementRange { table, first: Placement::MIN, last: Placement::MAX }
    }

    /// Whether a placement of this table lies in the range.
    pub fn contains(&self, placement: Placement) -> bool {
        self.first <= placement && placement <= self.last
    }
}

/// The hash slot of a key, as `CLUSTER KEYSLOT` answers it.
pub fn key_slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS - 1)
}

/// The part of a key that decides its placement: what stands between the first `{` and the next
/// `}`, if that is not empty; else the whole key. Source: Redis cluster specification, "Hash tags".
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    match memchr::memchr(b'}', &key[open + 1..]) {
        Some(0) | None => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// CRC-16/XMODEM, the checksum Redis Cluster places keys by.
///
/// Eight bytes at a time: byte by byte, each step would wait for the one before, and every command
/// of every client takes this step.
pub fn crc16(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks::<8>();
    let crc = blocks.iter().fold(0u16, |crc, block| {
        let [high, low] = crc.to_be_bytes();
        CRC16_TABLES[7][usize::from(block[0] ^ high)]
            ^ CRC16_TABLES[6][usize::from(block[1] ^ low)]
            ^ CRC16_TABLES[5][usize::from(block[2])]
            ^ CRC16_TABLES[4][usize::from(block[3])]
            ^ CRC16_TABLES[3][usize::from(block[4])]
            ^ CRC16_TABLES[2][usize::from(block[5])]
            ^ CRC16_TABLES[1][usize::from(block[6])]
            ^ CRC16_TABLES[0][usize::from(block[7])]
    });
    crc16_bytewise(crc, rest)
}

fn crc16_bytewise(crc: u16, bytes: &[u8]) -> u16 {
    let step =
        |crc: u16, &byte: &u8| (crc << 8) ^ CRC16_TABLES[0][usize::from((crc >> 8) as u8 ^ byte)];
    bytes.iter().fold(crc, step)
}

/// Table `n` tells what a byte does to the checksum when `n` more bytes follow it.
static CRC16_TABLES: [[u16; 256]; 8] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    tables[0] = crc16_table();
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[n - 1][i];
            tables[n][i] = (before << 8) ^ tables[0][(before >> 8) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_equal_redis() {
        // Values from `redis-cli cluster keyslot` of a real server.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
    }

    #[test]
    fn checksums_of_any_length_equal_the_bytewise_ones() {
        let bytes: Vec<u8> = (0..100u32).map(|n| (n * n * 31 + 7) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..length]), crc16_bytewise(0, &bytes[..length]), "{length}");
        }
    }

    #[test]
    fn bytes_round_trip_and_keep_order() {
        for value in [0, 1, 255, 256, 1 << 26, (1 << 40) - 1] {
            let placement = Placement::new(value).expect("below 2^40");
            assert_eq!(Placement::from_bytes(placement.to_bytes()), placement);
        }
        assert!(Placement::new(1 << 40).is_none());
        assert_eq!(Placement::of_key(b"{a}1"), Placement::of_key(b"{a}2"));
        assert_eq!(Placement::of_key(b"foo").slot(), key_slot(b"foo"));
    }
}

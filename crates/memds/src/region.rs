//! Keys of the map and regions of its key space.
//!
//! A key is `table:u32 | first placement:u40`, 72 bits, ordered as a number. A region is all keys
//! that begin with the same bits: what a subtree of the map can hold, and what two MemDS nodes
//! compare when they look for where their maps differ.

use wire::ids::TableId;
use wire::placement::{PLACEMENT_BITS, Placement};

/// Bits of a key.
pub(crate) const KEY_BITS: u8 = 72;
/// Bits a region can fix at most: one key.
pub(crate) const REGION_BITS_MAX: u8 = KEY_BITS;

/// A key of the map; below 2^72.
pub(crate) type Key = u128;

pub(crate) fn key(table: TableId, placement: Placement) -> Key {
    (Key::from(table.0) << PLACEMENT_BITS) | Key::from(placement.get())
}

pub(crate) fn key_parts(key: Key) -> (TableId, Placement) {
    let placement = (key & Key::from(Placement::MAX.get())) as u64;
    let placement = Placement::new(placement).expect("masked to its bits");
    (TableId((key >> PLACEMENT_BITS) as u32), placement)
}

/// All keys that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    first: Key,
    bits: u8,
}

/// What a region holds, as two nodes compare it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Summary {
    /// Depends on the entries alone, not on how they came.
    pub(crate) hash: u64,
    /// How many there are.
    pub(crate) entries: u32,
}

impl Region {
    /// All keys.
    pub(crate) const ALL: Region = Region { first: 0, bits: 0 };

    /// The region of the keys that share this key's first bits.
    pub(crate) fn of_key(key: Key, bits: u8) -> Region {
        Region { first: key & !rest_mask(bits), bits }
    }

    /// The region that fixes the first bits of this position.
    pub(crate) fn new(table: TableId, placement: Placement, bits: u8) -> Region {
        Region::of_key(key(table, placement), bits)
    }

    /// How many bits it fixes.
    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    /// Its first key.
    pub(crate) fn first(self) -> Key {
        self.first
    }

    /// Its last key.
    pub(crate) fn last(self) -> Key {
        self.first | rest_mask(self.bits)
    }

    /// Its first key, in its parts.
    pub(crate) fn start(self) -> (TableId, Placement) {
        key_parts(self.first)
    }

    /// Whether the key begins with the region's bits.
    pub(crate) fn contains(self, key: Key) -> bool {
        key & !rest_mask(self.bits) == self.first
    }
}

/// The bits of a key after its first `bits`.
fn rest_mask(bits: u8) -> Key {
    (1 << (KEY_BITS - bits)) - 1
}

//! A leaf of the tree: up to [`LEAF_ENTRIES_MAX`] routes with neighbouring keys, packed.
//!
//! ```text
//! data = keys rows lasts padding
//! keys = count * ( key - base )                     ; in 4, 8 or 16 bytes, ascending
//! rows = count * ( partition - base, epoch - base,  ; each in the fewest bytes that hold the
//!                  ballot - base, set - base,       ; leaf's largest difference, maybe 0
//!                  leader: u8 )
//! lasts = ( last placement: 5 bytes ) for each bit of explicit_last, in order
//! padding = 15 bytes                                ; so that every load may read 16 bytes
//! ```
//!
//! Keys stand together and have a width the processor has too: a search looks at all of them at
//! once, which costs one wait for memory where halving would cost three.
//!
//! A route usually ends where the next one begins; only those that do not (the leaf's last one,
//! routes before a gap) have an explicit end. All integers are little-endian. A leaf is rewritten as
//! a whole: it is at most a few kilobytes.

use xxhash_rust::xxh3::xxh3_64;

use super::replica_sets::ReplicaSets;
use crate::route::{PackedKey, RouteKey, RouteRef};
use wire::ids::PartitionId;
use wire::placement::{Placement, PlacementRange};
use wire::service::RouteVersion;

/// Most routes in a leaf. More make it split: fewer would spend more on leaves, more would make a
/// change rewrite more.
pub(super) const LEAF_ENTRIES_MAX: usize = 64;

const PADDING_BYTES: usize = 15;
const LAST_BYTES: usize = 5;

/// A route unpacked, its replica set by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: RouteKey,
    pub(super) last: Placement,
    pub(super) partition: u64,
    pub(super) epoch: u64,
    pub(super) ballot: u64,
    pub(super) set: u32,
    pub(super) leader: u8,
}

impl Entry {
    fn column(&self, column: usize) -> u64 {
        match column {
            PARTITION => self.partition,
            EPOCH => self.epoch,
            BALLOT => self.ballot,
            _ => u64::from(self.set),
        }
    }

    /// The route with its members.
    pub(super) fn resolve<'a>(&self, sets: &'a ReplicaSets) -> RouteRef<'a> {
        let (members, leader) = sets.resolve(self.set, self.leader);
        RouteRef {
            partition: PartitionId(self.partition),
            range: PlacementRange {
                table: self.key.table(),
                first: self.key.placement(),
                last: self.last,
            },
            version: RouteVersion { epoch: self.epoch, ballot: self.ballot },
            leader,
            members,
        }
    }
}

fn bytes_for(value: u128) -> u32 {
    (u128::BITS - value.leading_zeros()).div_ceil(8)
}

/// Reads `width` ≤ 8 bytes.
fn load(data: &[u8], at: usize, width: u8) -> u64 {
    const MASKS: [u64; 9] = {
        let mut masks = [0u64; 9];
        let mut width = 1;
        while width < 9 {
            masks[width] = u64::MAX >> (64 - 8 * width);
            width += 1;
        }
        masks
    };
    let bytes = data[at..at + 8].try_into().expect("eight bytes");
    u64::from_le_bytes(bytes) & MASKS[usize::from(width)]
}

/// Columns of a row, in their order.
const PARTITION: usize = 0;
const EPOCH: usize = 1;
const BALLOT: usize = 2;
const SET: usize = 3;
const COLUMNS: usize = 4;

/// Packed routes. Never empty while it is part of a tree.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// The lowest key.
    base: PackedKey,
    /// Hash of the content; independent of how the leaf came about.
    pub(super) hash: u64,
    /// Which routes have their end among the `lasts`.
    explicit_last: u64,
    /// What the numbers of each column are differences from.
    bases: [u64; COLUMNS],
    widths: [u8; COLUMNS],
    key_width: u8,
    count: u8,
    data: Box<[u8]>,
}

const _: () = assert!(LEAF_ENTRIES_MAX <= u64::BITS as usize, "explicit_last has a bit for each");

impl Leaf {
    /// Packs entries, which are 1 to [`LEAF_ENTRIES_MAX`] in ascending order of their keys.
    pub(super) fn pack(entries: &[Entry], sets: &ReplicaSets) -> Leaf {
        assert!((1..=LEAF_ENTRIES_MAX).contains(&entries.len()), "{} entries", entries.len());
        let base = entries[0].key;
        let span = entries[entries.len() - 1].key.get() - base.get();
        let mut leaf = Leaf {
            base: base.into(),
            hash: content_hash(entries, sets),
            key_width: match bytes_for(span) {
                0..=4 => 4,
                5..=8 => 8,
                _ => 16,
            },
            count: entries.len() as u8,
            ..Leaf::default()
        };
        for column in 0..COLUMNS {
            let values = entries.iter().map(|entry| entry.column(column));
            let base = values.clone().min().unwrap_or(0);
            let largest = values.map(|value| value - base).max().unwrap_or(0);
            leaf.bases[column] = base;
            leaf.widths[column] = bytes_for(u128::from(largest)) as u8;
        }
        let mut lasts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let next = entries.get(index + 1).map(|next| next.key);
            if implied_last(entry.key, next) != Some(entry.last) {
                leaf.explicit_last |= 1 << index;
                lasts.extend_from_slice(&entry.last.get().to_le_bytes()[..LAST_BYTES]);
            }
        }
        let width = leaf.row_width() + usize::from(leaf.key_width);
        let mut data = Vec::with_capacity(entries.len() * width + lasts.len() + PADDING_BYTES);
        for entry in entries {
            let offset = entry.key.get() - base.get();
            data.extend_from_slice(&offset.to_le_bytes()[..usize::from(leaf.key_width)]);
        }
        for entry in entries {
            for (column, base) in leaf.bases.iter().enumerate() {
                let difference = (entry.column(column) - base).to_le_bytes();
                data.extend_from_slice(&difference[..usize::from(leaf.widths[column])]);
            }
            data.push(entry.leader);
        }
        data.extend_from_slice(&lasts);
        data.extend_from_slice(&[0; PADDING_BYTES]);
        leaf.data = data.into_boxed_slice();
        leaf
    }

    /// What stands at a position that is not in use.
    pub(super) fn vacant() -> Leaf {
        Leaf::default()
    }

    /// Number of routes; at least 1.
    pub(super) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// The lowest key.
    pub(super) fn first_key(&self) -> RouteKey {
        self.base.into()
    }

    /// How many keys are at most `key`: the one before that many is the floor.
    pub(super) fn count_up_to(&self, key: RouteKey) -> usize {
        let Some(offset) = key.get().checked_sub(self.first_key().get()) else { return 0 };
        let keys = &self.data[..self.len() * usize::from(self.key_width)];
        // No early end: without a branch the comparisons are vectorized and nothing is mispredicted.
        match self.key_width {
            4 => {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                let at_most = |key: &[u8; 4]| u32::from(u32::from_le_bytes(*key) <= offset);
                keys.as_chunks().0.iter().map(at_most).sum::<u32>() as usize
            }
            8 => {
                let offset = u64::try_from(offset).unwrap_or(u64::MAX);
                let at_most = |key: &[u8; 8]| u64::from(u64::from_le_bytes(*key) <= offset);
                keys.as_chunks().0.iter().map(at_most).sum::<u64>() as usize
            }
            _ => {
                keys.as_chunks().0.iter().filter(|key| u128::from_le_bytes(**key) <= offset).count()
            }
        }
    }

    /// Reads a byte of each cache line that holds keys, so that they are near when they are searched.
    pub(super) fn touch_keys(&self) -> u8 {
        const LINE_BYTES: usize = 64;
        let keys = &self.data[..self.len() * usize::from(self.key_width)];
        keys.iter().step_by(LINE_BYTES).fold(0, |all, byte| all ^ byte)
    }

    /// Reads a byte of the row at `index`, so that it is near when it is unpacked.
    pub(super) fn touch_row(&self, index: usize) -> u8 {
        self.data[self.len() * usize::from(self.key_width) + index * self.row_width()]
    }

    /// The key at `index`.
    pub(super) fn key(&self, index: usize) -> RouteKey {
        let at = index * usize::from(self.key_width);
        let bytes = self.data[at..at + 16].try_into().expect("sixteen bytes");
        let offset = u128::from_le_bytes(bytes) & (u128::MAX >> (128 - 8 * self.key_width));
        RouteKey::from_number(self.first_key().get() + offset)
    }

    /// The route at `index`.
    pub(super) fn entry(&self, index: usize) -> Entry {
        let key = self.key(index);
        let mut at = self.len() * usize::from(self.key_width) + index * self.row_width();
        let mut column = |column: usize| {
            let value = self.bases[column] + load(&self.data, at, self.widths[column]);
            at += usize::from(self.widths[column]);
            value
        };
        let (partition, epoch) = (column(PARTITION), column(EPOCH));
        let (ballot, set) = (column(BALLOT), column(SET));
        Entry {
            key,
            last: self.last(index, key),
            partition,
            epoch,
            ballot,
            set: set as u32,
            leader: self.data[at],
        }
    }

    /// All routes.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// Bytes allocated beside the leaf itself, the allocator's own included.
    pub(super) fn memory_bytes(&self) -> usize {
        // glibc: a word of its own for each block, blocks in steps of 16.
        (self.data.len() + 8).next_multiple_of(16)
    }

    fn row_width(&self) -> usize {
        self.widths.iter().map(|width| usize::from(*width)).sum::<usize>() + 1
    }

    fn last(&self, index: usize, key: RouteKey) -> Placement {
        if self.explicit_last >> index & 1 == 0 {
            let next = self.key(index + 1);
            return implied_last(key, Some(next)).expect("packed without an explicit last");
        }
        let before = (self.explicit_last & ((1 << index) - 1)).count_ones() as usize;
        let rows = self.len() * (usize::from(self.key_width) + self.row_width());
        let last = load(&self.data, rows + before * LAST_BYTES, LAST_BYTES as u8);
        Placement::new(last).expect("five bytes")
    }
}

/// The end of a route that is followed by `next` without a gap.
fn implied_last(key: RouteKey, next: Option<RouteKey>) -> Option<Placement> {
    let next = next.filter(|next| next.table() == key.table())?;
    next.placement().get().checked_sub(1).and_then(Placement::new)
}

/// Hash of routes: what two maps compare. Covers everything a client could be told.
pub(super) fn content_hash(entries: &[Entry], sets: &ReplicaSets) -> u64 {
    let mut bytes = Vec::with_capacity(entries.len() * 64);
    for entry in entries {
        let (members, leader) = sets.resolve(entry.set, entry.leader);
        bytes.extend_from_slice(&entry.key.get().to_le_bytes());
        for number in [entry.last.get(), entry.partition, entry.epoch, entry.ballot] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(leader.is_some()));
        bytes.extend_from_slice(&leader.unwrap_or_default().0.to_le_bytes());
        bytes.extend_from_slice(&(members.len() as u32).to_le_bytes());
        for member in members {
            bytes.extend_from_slice(&member.0.to_le_bytes());
        }
    }
    xxh3_64(&bytes)
}

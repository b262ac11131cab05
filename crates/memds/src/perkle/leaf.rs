//! A leaf of the tree: up to [`LEAF_ENTRIES_MAX`] routes with neighbouring keys, packed.
//!
//! ```text
//! data = keys rows lasts padding
//! keys = count * ( key - base )                     ; in key_width bytes, ascending
//! rows = count * ( partition - base, epoch - base,  ; each in the fewest bytes that hold the
//!                  ballot - base, set - base,       ; leaf's largest difference, maybe 0
//!                  leader: u8 )
//! lasts = ( last placement: 5 bytes ) for each bit of explicit_last, in order
//! padding = 15 bytes                                ; so that every load may read 16 bytes
//! ```
//!
//! A route usually ends where the next one begins; only those that do not (the leaf's last one,
//! routes before a gap) have an explicit end. All integers are little-endian. A leaf is rewritten as
//! a whole: it is at most a few kilobytes.

use xxhash_rust::xxh3::xxh3_64;

use super::replica_sets::ReplicaSets;
use crate::route::{RouteKey, RouteRef};
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

/// A column of numbers as differences from the smallest.
#[derive(Clone, Copy, Default, Debug)]
struct Column {
    base: u64,
    width: u8,
}

impl Column {
    fn of(values: impl Iterator<Item = u64> + Clone) -> Column {
        let base = values.clone().min().unwrap_or(0);
        let largest = values.map(|value| value - base).max().unwrap_or(0);
        Column { base, width: bytes_for(u128::from(largest)) }
    }

    fn put(&self, value: u64, data: &mut Vec<u8>) {
        data.extend_from_slice(&(value - self.base).to_le_bytes()[..usize::from(self.width)]);
    }

    /// Reads the column at `at` and moves on.
    fn get(&self, data: &[u8], at: &mut usize) -> u64 {
        let value = self.base + load(data, *at, self.width);
        *at += usize::from(self.width);
        value
    }
}

fn bytes_for(value: u128) -> u8 {
    (u128::BITS - value.leading_zeros()).div_ceil(8) as u8
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

/// Packed routes. Never empty while it is part of a tree.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// The lowest key.
    base: RouteKey,
    /// Hash of the content; independent of how the leaf came about.
    pub(super) hash: u64,
    /// Which routes have their end among the `lasts`.
    explicit_last: u64,
    partition: Column,
    epoch: Column,
    ballot: Column,
    set: Column,
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
            base,
            hash: content_hash(entries, sets),
            explicit_last: 0,
            partition: Column::of(entries.iter().map(|entry| entry.partition)),
            epoch: Column::of(entries.iter().map(|entry| entry.epoch)),
            ballot: Column::of(entries.iter().map(|entry| entry.ballot)),
            set: Column::of(entries.iter().map(|entry| u64::from(entry.set))),
            key_width: bytes_for(span),
            count: entries.len() as u8,
            data: Box::default(),
        };
        let mut lasts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if implied_last(entry.key, entries.get(index + 1).map(|next| next.key))
                != Some(entry.last)
            {
                leaf.explicit_last |= 1 << index;
                lasts.extend_from_slice(&entry.last.get().to_le_bytes()[..LAST_BYTES]);
            }
        }
        let rows = leaf.row_width() + usize::from(leaf.key_width);
        let mut data = Vec::with_capacity(entries.len() * rows + lasts.len() + PADDING_BYTES);
        for entry in entries {
            let offset = entry.key.get() - base.get();
            data.extend_from_slice(&offset.to_le_bytes()[..usize::from(leaf.key_width)]);
        }
        for entry in entries {
            leaf.partition.put(entry.partition, &mut data);
            leaf.epoch.put(entry.epoch, &mut data);
            leaf.ballot.put(entry.ballot, &mut data);
            leaf.set.put(u64::from(entry.set), &mut data);
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
        self.base
    }

    /// How many keys are at most `key`: the one before that many is the floor.
    pub(super) fn count_up_to(&self, key: RouteKey) -> usize {
        let Some(offset) = key.get().checked_sub(self.base.get()) else { return 0 };
        if self.key_width > 8 {
            return (0..self.len()).take_while(|&index| self.key(index) <= key).count();
        }
        // Beyond u64 is beyond every key here.
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        let width = usize::from(self.key_width);
        // The first key is at most `key`; search the last such one. Halving by conditional moves.
        let (mut start, mut size) = (0, self.len());
        while size > 1 {
            let half = size / 2;
            let middle = start + half;
            if load(&self.data, middle * width, self.key_width) <= offset {
                start = middle;
            }
            size -= half;
        }
        start + 1
    }

    /// The key at `index`.
    pub(super) fn key(&self, index: usize) -> RouteKey {
        let at = index * usize::from(self.key_width);
        let bytes = self.data[at..at + 16].try_into().expect("sixteen bytes");
        let mask = (1u128 << (8 * u32::from(self.key_width))) - 1;
        RouteKey::from_number(self.base.get() + (u128::from_le_bytes(bytes) & mask))
    }

    /// The route at `index`.
    pub(super) fn entry(&self, index: usize) -> Entry {
        let key = self.key(index);
        let mut at = self.len() * usize::from(self.key_width) + index * self.row_width();
        let data = &self.data;
        Entry {
            key,
            last: self.last(index, key),
            partition: self.partition.get(data, &mut at),
            epoch: self.epoch.get(data, &mut at),
            ballot: self.ballot.get(data, &mut at),
            set: self.set.get(data, &mut at) as u32,
            leader: data[at],
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
        let widths = [self.partition, self.epoch, self.ballot, self.set];
        widths.iter().map(|column| usize::from(column.width)).sum::<usize>() + 1
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

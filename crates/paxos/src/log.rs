//! A replica's entries in memory: everything not chosen, and a tail of what is.

use std::collections::BTreeMap;

use crate::types::{Ballot, Entry, Index, Instant, Value};

/// An accepted value and, at its leader, who else accepted it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) ballot: Ballot,
    pub(crate) value: Value,
    /// Bit per member, by its position in the member list; only of `ballot`.
    pub(crate) votes: u64,
    /// When the leader last sent it.
    pub(crate) sent: Instant,
    /// The record that holds it; 0 if it was recovered.
    pub(crate) token: u64,
}

impl Slot {
    /// Bytes that count against memory limits: a small value is not free.
    fn held_bytes(&self) -> usize {
        SLOT_BYTES + self.value.len()
    }
}

/// What a slot costs besides its value, about.
const SLOT_BYTES: usize = 96;

/// See the module's text.
#[derive(Default, Debug)]
pub(crate) struct Log {
    slots: BTreeMap<u64, Slot>,
    /// Bytes of all values held.
    bytes: usize,
}

impl Log {
    pub(crate) fn get(&self, index: Index) -> Option<&Slot> {
        self.slots.get(&index.0)
    }

    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Slot> {
        self.slots.get_mut(&index.0)
    }

    /// Puts an accepted value in place of an older ballot's. `token` is its record's.
    pub(crate) fn put(&mut self, entry: Entry, token: u64) {
        let (ballot, value) = (entry.ballot, entry.value);
        let slot = Slot { ballot, value, votes: 0, sent: Instant::default(), token };
        self.bytes += slot.held_bytes();
        if let Some(old) = self.slots.insert(entry.index.0, slot) {
            self.bytes -= old.held_bytes();
        }
    }

    /// Slots from an index on, ascending.
    pub(crate) fn from(&self, first: Index) -> impl Iterator<Item = (Index, &Slot)> {
        self.slots.range(first.0..).map(|(index, slot)| (Index(*index), slot))
    }

    /// Drops entries up to an index, from the front, while more than `keep_bytes` are held. They are
    /// chosen and durable: of others, the host could still read an older ballot's from disk.
    pub(crate) fn evict(&mut self, through: Index, keep_bytes: usize) {
        while self.bytes > keep_bytes {
            let Some(first) = self.slots.first_entry() else { return };
            if *first.key() > through.0 {
                return;
            }
            self.bytes -= first.remove().held_bytes();
        }
    }

    /// Drops all entries up to an index.
    pub(crate) fn truncate(&mut self, through: Index) {
        while let Some(first) = self.slots.first_entry()
            && *first.key() <= through.0
        {
            self.bytes -= first.remove().held_bytes();
        }
    }
}

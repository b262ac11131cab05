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
}

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

    /// Puts an accepted value in place of an older ballot's.
    pub(crate) fn put(&mut self, entry: Entry) {
        let slot =
            Slot { ballot: entry.ballot, value: entry.value, votes: 0, sent: Instant::default() };
        self.bytes += slot.value.len();
        if let Some(old) = self.slots.insert(entry.index.0, slot) {
            self.bytes -= old.value.len();
        }
    }

    /// Slots from an index on, ascending.
    pub(crate) fn from(&self, first: Index) -> impl Iterator<Item = (Index, &Slot)> {
        self.slots.range(first.0..).map(|(index, slot)| (Index(*index), slot))
    }

    /// Drops chosen entries from the front while more than `keep_bytes` are held.
    pub(crate) fn evict(&mut self, chosen: Index, keep_bytes: usize) {
        while self.bytes > keep_bytes {
            let Some(first) = self.slots.first_entry() else { return };
            if *first.key() > chosen.0 {
                return;
            }
            self.bytes -= first.remove().value.len();
        }
    }

    /// Drops all entries up to an index.
    pub(crate) fn truncate(&mut self, through: Index) {
        while let Some(first) = self.slots.first_entry()
            && *first.key() <= through.0
        {
            self.bytes -= first.remove().value.len();
        }
    }
}

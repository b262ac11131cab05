//! A replica's entries in memory: everything not chosen, and a tail of what is.
//!
//! ```text
//!        first                chosen                          next
//! near:   │ chosen, durable … │ accepted, open … │ gap │ open  │
//! far:    what lies more than GAP_MAX away from all of that
//! ```
//!
//! Indexes come almost without gaps, so a ring of slots serves nearly all of them. A member that
//! was away for long accepts far ahead of what it fetches meanwhile; a map holds what does not fit
//! one ring then.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{Ballot, Entry, Index, Instant, Value};

/// Empty slots put into the ring at once, at most.
const GAP_MAX: u64 = 1024;

/// An accepted value and, at its leader, who else accepted it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Slot>() + self.value.len()
    }
}

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Log {
    /// The index of the first slot of the ring.
    first: u64,
    near: VecDeque<Option<Slot>>,
    far: BTreeMap<u64, Slot>,
    /// Bytes of all slots held.
    bytes: usize,
}

impl Log {
    pub(crate) fn get(&self, index: Index) -> Option<&Slot> {
        let at = index.0.wrapping_sub(self.first) as usize;
        match self.near.get(at) {
            Some(Some(slot)) => Some(slot),
            _ => self.far.get(&index.0),
        }
    }

    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Slot> {
        let at = index.0.wrapping_sub(self.first) as usize;
        match self.near.get_mut(at) {
            Some(Some(slot)) => Some(slot),
            _ => self.far.get_mut(&index.0),
        }
    }

    /// Puts an accepted value in place of an older ballot's. `token` is its record's.
    pub(crate) fn put(&mut self, entry: Entry, token: u64) {
        let index = entry.index.0;
        let (ballot, value) = (entry.ballot, entry.value);
        let slot = Slot { ballot, value, votes: 0, sent: Instant::default(), token };
        self.bytes += slot.held_bytes();
        let old = if self.far.contains_key(&index) || !self.reach(index) {
            self.far.insert(index, slot)
        } else {
            self.near[(index - self.first) as usize].replace(slot)
        };
        if let Some(old) = old {
            self.bytes -= old.held_bytes();
        }
    }

    /// Makes the ring cover an index. False if that is too far away.
    fn reach(&mut self, index: u64) -> bool {
        if self.near.is_empty() {
            self.first = index;
        }
        let end = self.first + self.near.len() as u64;
        if index + GAP_MAX < self.first || index > end + GAP_MAX {
            return false;
        }
        for _ in index..self.first {
            self.near.push_front(None);
            self.first -= 1;
        }
        for _ in end..=index {
            self.near.push_back(None);
        }
        true
    }

    /// Slots from an index on, ascending.
    #[cfg(test)]
    pub(crate) fn from(&self, first: Index) -> Vec<(Index, &Slot)> {
        let skipped = first.0.saturating_sub(self.first) as usize;
        let near = self.near.iter().enumerate().skip(skipped);
        let near = near.filter_map(|(at, slot)| Some((self.first + at as u64, slot.as_ref()?)));
        let far = self.far.range(first.0..).map(|(index, slot)| (*index, slot));
        let mut slots: Vec<_> = near.chain(far).map(|(index, slot)| (Index(index), slot)).collect();
        slots.sort_unstable_by_key(|(index, _)| *index);
        slots
    }

    /// Bytes of all entries held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first index held from this one on.
    pub(crate) fn first_from(&self, first: Index) -> Option<Index> {
        let skipped = first.0.saturating_sub(self.first) as usize;
        let near = self.near.iter().enumerate().skip(skipped).find(|(_, slot)| slot.is_some());
        let near = near.map(|(at, _)| self.first + at as u64);
        let far = self.far.range(first.0..).next().map(|(index, _)| *index);
        near.into_iter().chain(far).min().map(Index)
    }

    /// Drops entries up to an index, from the front, while more than `keep_bytes` are held. They are
    /// chosen and durable: of others, the host could still read an older ballot's from disk.
    pub(crate) fn evict(&mut self, through: Index, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.drop_first(through) {}
    }

    /// Drops all entries up to an index.
    pub(crate) fn truncate(&mut self, through: Index) {
        while self.drop_first(through) {}
    }

    /// Takes all entries for recovered ones.
    pub(crate) fn forget_tokens(&mut self) {
        let near = self.near.iter_mut().flatten();
        near.chain(self.far.values_mut()).for_each(|slot| slot.token = 0);
    }

    /// Drops the first slot if it is not above an index.
    fn drop_first(&mut self, through: Index) -> bool {
        if let Some(far) = self.far.first_entry()
            && (*far.key() < self.first || self.near.is_empty())
        {
            if *far.key() > through.0 {
                return false;
            }
            self.bytes -= far.remove().held_bytes();
            return true;
        }
        if self.first > through.0 {
            return false;
        }
        match self.near.pop_front() {
            Some(slot) => {
                self.first += 1;
                self.bytes -= slot.map_or(0, |slot| slot.held_bytes());
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(index: u64) -> Entry {
        let value = Value::Data(Bytes::from(vec![1; index as usize % 50]));
        Entry { index: Index(index), ballot: Ballot::from_number(index % 7), value }
    }

    #[test]
    fn near_and_far_entries_are_one_log() {
        let mut log = Log::default();
        // Ahead, behind, in the gap, far ahead, and near to what was far.
        let indexes = [5_000, 5_001, 10, 4_990, 3_999, 9_000, 6_010, 7_000, 8_000, 8_999, 11, 9];
        for (held, index) in indexes.iter().enumerate() {
            log.put(entry(*index), 0);
            log.put(entry(*index), held as u64);
            let from: Vec<_> = log.from(Index(0)).iter().map(|(index, _)| index.0).collect();
            let mut expected = indexes[..=held].to_vec();
            expected.sort_unstable();
            assert_eq!(from, expected);
        }
        for index in indexes {
            assert_eq!(log.get(Index(index)).expect("was put").value, entry(index).value);
            assert_eq!(log.first_from(Index(index)), Some(Index(index)));
        }
        assert!(log.get(Index(12)).is_none() && log.get_mut(Index(4_991)).is_none());
        assert_eq!(log.first_from(Index(12)), Some(Index(3_999)));
        log.evict(Index(5_000), usize::MAX);
        assert!(log.get(Index(9)).is_some());
        log.evict(Index(5_000), 0);
        assert_eq!(log.first_from(Index(0)), Some(Index(5_001)));
        log.truncate(Index(8_999));
        assert_eq!(log.first_from(Index(0)), Some(Index(9_000)));
        log.truncate(Index(9_000));
        assert_eq!((log.bytes, log.from(Index(0)).len()), (0, 0));
    }
}

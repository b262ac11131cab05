//! What a partition holds in memory: every effect that fjall does not hold yet.
//!
//! ```text
//! proposed   rows of batches not yet applied; only the leader has any, dropped with leadership
//! active     applied rows
//! frozen     applied rows that a flush is writing to fjall
//! ----------------------------------------------------------
//! fjall      everything older
//! ```
//!
//! The newest layer that names a row decides: `None` says it is deleted. Proposed rows carry the
//! log index that makes them durable; a reader of such a row waits for it.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use commands::Direction;

use crate::row_order::{Probe, RowKey, RowOrder};

/// Applied rows, by key: sealed values, `None` for a deleted row.
pub(crate) type Memtable = BTreeMap<RowKey, Option<Bytes>>;

/// A row of a batch that is not applied yet.
#[derive(Debug)]
struct Proposed {
    index: u64,
    value: Option<Bytes>,
}

/// The layers above fjall.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    proposed: BTreeMap<RowKey, Proposed>,
    active: Memtable,
    frozen: Option<Arc<Memtable>>,
}

/// What memory says of a row.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// The newest value (not sealed) is proposed and becomes durable at this index.
    Proposed(u64, Option<Bytes>),
    /// The newest value (sealed) is applied.
    Applied(Option<Bytes>),
    /// Memory does not know the row: fjall decides.
    Below,
}

impl Memory {
    pub(crate) fn get(&self, row: &[u8]) -> Found {
        let probe: &dyn RowOrder = &Probe::new(row);
        if !self.proposed.is_empty()
            && let Some(proposed) = self.proposed.get(probe)
        {
            return Found::Proposed(proposed.index, proposed.value.clone());
        }
        if let Some(sealed) = self.active.get(probe) {
            return Found::Applied(sealed.clone());
        }
        match self.frozen.as_ref().and_then(|frozen| frozen.get(probe)) {
            Some(sealed) => Found::Applied(sealed.clone()),
            None => Found::Below,
        }
    }

    /// Adds a row of the batch that will have this index.
    pub(crate) fn propose(&mut self, row: Bytes, index: u64, value: Option<Bytes>) {
        self.proposed.insert(RowKey::new(row), Proposed { index, value });
    }

    /// Adds a row of the applied batch of this index; its proposal, if there was one, is over.
    pub(crate) fn apply(&mut self, row: Bytes, index: u64, sealed: Option<Bytes>) {
        let row = RowKey::new(row);
        if !self.proposed.is_empty()
            && self.proposed.get(&row).is_some_and(|proposed| proposed.index <= index)
        {
            self.proposed.remove(&row);
        }
        self.active.insert(row, sealed);
    }

    /// Forgets all proposals: leadership is lost.
    pub(crate) fn drop_proposed(&mut self) {
        self.proposed.clear();
    }

    /// Freezes the active rows. Only one frozen table exists at a time.
    pub(crate) fn freeze(&mut self) -> Arc<Memtable> {
        assert!(self.frozen.is_none(), "a flush ends before the next begins");
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// Drops the frozen rows: fjall holds them now.
    pub(crate) fn drop_frozen(&mut self) -> Option<Arc<Memtable>> {
        self.frozen.take()
    }

    pub(crate) fn has_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The newest word of memory on each row in `[from, to)`, in the given direction.
    pub(crate) fn scan<'a>(
        &'a self,
        from: &'a [u8],
        to: &'a [u8],
        direction: Direction,
    ) -> Layered<'a> {
        let (from, to) = (Probe::new(from), Probe::new(to));
        let bounds: (Bound<&dyn RowOrder>, Bound<&dyn RowOrder>) =
            (Bound::Included(&from), Bound::Excluded(&to));
        Layered {
            direction,
            proposed: Side { range: self.proposed.range::<dyn RowOrder, _>(bounds), direction }
                .peekable(),
            active: Side { range: self.active.range::<dyn RowOrder, _>(bounds), direction }
                .peekable(),
            frozen: self.frozen.as_ref().map(|rows| {
                Side { range: rows.range::<dyn RowOrder, _>(bounds), direction }.peekable()
            }),
        }
    }
}

/// A range of one layer, walked either way.
struct Side<'a, V> {
    range: btree_map::Range<'a, RowKey, V>,
    direction: Direction,
}

impl<'a, V> Iterator for Side<'a, V> {
    type Item = (&'a Bytes, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let (row, value) = match self.direction {
            Direction::Forward => self.range.next(),
            Direction::Backward => self.range.next_back(),
        }?;
        Some((row.bytes(), value))
    }
}

/// The layers of memory merged: each row once, the newest word on it.
pub(crate) struct Layered<'a> {
    direction: Direction,
    proposed: Peekable<Side<'a, Proposed>>,
    active: Peekable<Side<'a, Option<Bytes>>>,
    frozen: Option<Peekable<Side<'a, Option<Bytes>>>>,
}

impl<'a> Layered<'a> {
    /// The next row's key without taking it.
    pub(crate) fn peek_row(&mut self) -> Option<&'a Bytes> {
        let mut next = self.proposed.peek().map(|(row, _)| *row);
        let others = [
            self.active.peek().map(|(row, _)| *row),
            self.frozen.as_mut().and_then(|frozen| frozen.peek()).map(|(row, _)| *row),
        ];
        for row in others.into_iter().flatten() {
            let earlier = |than: &Bytes| match self.direction {
                Direction::Forward => row < than,
                Direction::Backward => row > than,
            };
            if next.is_none_or(earlier) {
                next = Some(row);
            }
        }
        next
    }
}

impl<'a> Iterator for Layered<'a> {
    type Item = (&'a Bytes, Found);

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.peek_row()?;
        let proposed = self.proposed.next_if(|(other, _)| *other == row);
        let active = self.active.next_if(|(other, _)| *other == row);
        let frozen = self.frozen.as_mut().and_then(|side| side.next_if(|(other, _)| *other == row));
        let found = match (proposed, active.or(frozen)) {
            (Some((_, proposed)), _) => Found::Proposed(proposed.index, proposed.value.clone()),
            (None, Some((_, sealed))) => Found::Applied(sealed.clone()),
            (None, None) => unreachable!("the peeked row stands in one of the layers"),
        };
        Some((row, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(memory: &Memory, direction: Direction) -> Vec<(Bytes, Found)> {
        memory.scan(b"a", b"z", direction).map(|(row, found)| (row.clone(), found)).collect()
    }

    #[test]
    fn the_newest_layer_decides() {
        let mut memory = Memory::default();
        memory.apply(Bytes::from("a"), 1, Some(Bytes::from("a1")));
        memory.apply(Bytes::from("b"), 1, Some(Bytes::from("b1")));
        memory.freeze();
        memory.apply(Bytes::from("b"), 2, None);
        memory.propose(Bytes::from("a"), 3, None);
        memory.propose(Bytes::from("c"), 4, Some(Bytes::from("c4")));

        let expected = vec![
            (Bytes::from("a"), Found::Proposed(3, None)),
            (Bytes::from("b"), Found::Applied(None)),
            (Bytes::from("c"), Found::Proposed(4, Some(Bytes::from("c4")))),
        ];
        let mut backward = rows(&memory, Direction::Backward);
        backward.reverse();
        assert_eq!(rows(&memory, Direction::Forward), expected);
        assert_eq!(backward, expected);
        assert_eq!(memory.get(b"a"), Found::Proposed(3, None));
        assert_eq!(memory.get(b"d"), Found::Below);

        memory.drop_proposed();
        assert_eq!(memory.get(b"a"), Found::Applied(Some(Bytes::from("a1"))));
        memory.drop_frozen();
        assert_eq!(memory.get(b"a"), Found::Below);
        assert_eq!(memory.get(b"b"), Found::Applied(None));
    }

    #[test]
    fn applying_ends_only_proposals_it_covers() {
        let mut memory = Memory::default();
        memory.propose(Bytes::from("k"), 5, Some(Bytes::from("five")));
        memory.propose(Bytes::from("k"), 6, Some(Bytes::from("six")));
        memory.apply(Bytes::from("k"), 5, Some(Bytes::from("five")));
        assert_eq!(memory.get(b"k"), Found::Proposed(6, Some(Bytes::from("six"))));
        memory.apply(Bytes::from("k"), 6, Some(Bytes::from("six")));
        assert_eq!(memory.get(b"k"), Found::Applied(Some(Bytes::from("six"))));
        assert!(memory.proposed.is_empty());
    }
}

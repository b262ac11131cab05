//! A partition as its leader's commands see it: memory over fjall, as of the newest proposed batch.
//!
//! A view is made under the partition's lock and does not go to the disk there unless it is told
//! to: a row that only the disk knows makes it *cold*. The caller then fetches the row without the
//! lock and evaluates again, so that a cold key never holds up the warm ones. Of most rows that are not
//! there at all the tables' filters say so without the disk: a new key is not cold.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

use bytes::Bytes;
use commands::notes::Notes;
use commands::overdue::{MET_MAX, Overdue};
use commands::{Counters, Direction, Skim, View, ViewError};
use wire::ids::{TableId, Version};
use wire::placement::PlacementRange;
use wire::service::ValueShapes;

use crate::lsm::{Lsm, LsmError, ROW_KEY_BYTES_MAX};
use crate::resident::{Resident, Row};

/// See the module's text.
pub(crate) struct PartitionView<'a> {
    pub(crate) resident: &'a Resident,
    pub(crate) lsm: &'a Lsm,
    /// Whether reads may go to the disk at once.
    pub(crate) may_block: bool,
    pub(crate) range: PlacementRange,
    pub(crate) now_ms: u64,
    pub(crate) counters: Counters,
    pub(crate) flushed_through: Option<Version>,
    /// The proposed index that made `counters` what they are; 0 if applied.
    pub(crate) counters_index: u64,
    /// The proposed index that made `flushed_through` what it is; 0 if applied.
    pub(crate) flushed_index: u64,
    /// Rows of higher indexes are proposed.
    pub(crate) applied: u64,
    /// The newest index among the proposed rows that were read: the reply waits for it.
    pub(crate) gate: Cell<u64>,
    /// The latest time whose coming hid something from what was read.
    pub(crate) hidden_ms: Cell<u64>,
    /// What was met that is to be seen to.
    pub(crate) overdue: RefCell<Vec<(Bytes, Overdue)>>,
    /// What is evaluated is run by a script.
    pub(crate) in_script: Cell<bool>,
    /// The row that was asked for and is only on disk.
    pub(crate) cold: RefCell<Option<Cold>>,
    /// A row that was asked for failed its checksum.
    pub(crate) damaged: Cell<bool>,
    pub(crate) random: &'a Cell<u64>,
    pub(crate) shapes: ValueShapes,
    pub(crate) notes: Notes,
}

/// What a view would have needed the disk for.
#[derive(Debug)]
pub(crate) enum Cold {
    Row(Bytes),
    Scan,
    /// Nothing: what is evaluated takes longer than it may hold up the partition.
    Slow,
}

/// What a reply rests on that may be known to this leader alone.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    /// The newest proposed index that was read; 0 if all was applied.
    pub(crate) index: u64,
    /// The latest time whose coming hid something.
    pub(crate) hidden_ms: u64,
    /// There was no lease: a quorum has to confirm that nobody else leads.
    pub(crate) unleased: bool,
}

/// What a leader evaluates on.
pub(crate) trait Leading: View {
    /// Whether what was computed means nothing, because something was missing or took too long.
    fn is_cold(&self) -> bool;

    /// Gives up: what is evaluated takes too long here.
    fn defer(&self);

    /// Says whether what is evaluated from now on is run by a script.
    fn enter_script(&self, runs: bool);
}

impl PartitionView<'_> {
    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        Seen { index: self.gate.get(), hidden_ms: self.hidden_ms.get(), unleased: false }
    }

    fn wait_for(&self, index: u64) {
        self.gate.set(self.gate.get().max(index));
    }

    /// Takes note of damage.
    fn noted<T>(&self, read: Result<T, LsmError>) -> Result<T, LsmError> {
        if matches!(read, Err(LsmError::Damaged(_))) {
            self.damaged.set(true);
        }
        read
    }

    /// The value of a row in memory; whoever reads a proposed one waits for it.
    fn value_of(&self, row: &Row) -> Option<Bytes> {
        if row.index > self.applied {
            self.wait_for(row.index);
        }
        row.value()
    }
}

impl Leading for PartitionView<'_> {
    fn is_cold(&self) -> bool {
        self.cold.borrow().is_some()
    }

    fn defer(&self) {
        *self.cold.borrow_mut() = Some(Cold::Slow);
    }

    fn enter_script(&self, runs: bool) {
        self.in_script.set(runs);
    }
}

impl View for PartitionView<'_> {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn is_past(&self, at_ms: u64) -> bool {
        let is_past = at_ms <= self.now_ms;
        if is_past {
            self.hidden_ms.set(self.hidden_ms.get().max(at_ms));
        }
        is_past
    }

    fn meet_overdue(&self, key: &[u8], what: Overdue) {
        let mut overdue = self.overdue.borrow_mut();
        if overdue.len() < MET_MAX {
            overdue.push((Bytes::copy_from_slice(key), what));
        }
    }

    fn in_script(&self) -> bool {
        self.in_script.get()
    }

    fn shapes(&self) -> ValueShapes {
        self.shapes
    }

    fn table(&self) -> TableId {
        self.range.table
    }

    fn range(&self) -> PlacementRange {
        self.range
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
        // A FLUSHDB that is not chosen yet has emptied memory: what is absent may come back.
        self.wait_for(self.flushed_index);
        if row.len() > ROW_KEY_BYTES_MAX {
            // Nobody could have stored it; who tries to is refused.
            return Ok(None);
        }
        if let Some(known) = self.resident.get(row) {
            return Ok(self.value_of(known));
        }
        if self.resident.holds_all_of(row) {
            return Ok(None);
        }
        if !self.may_block {
            if self.lsm.lacks(row) {
                return Ok(None);
            }
            *self.cold.borrow_mut() = Some(Cold::Row(Bytes::copy_from_slice(row)));
            return Err(ViewError::Cold);
        }
        Ok(self.noted(self.lsm.get(row))?)
    }

    fn touch(&self, rows: &[Bytes]) {
        self.resident.touch_rows(rows);
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        self.wait_for(self.flushed_index);
        if from >= to {
            return Ok(());
        }
        if self.resident.holds_all_between(from, to) {
            for row in self.resident.scan(from, to, direction) {
                if let Some(value) = self.value_of(row)
                    && visit(&Bytes::copy_from_slice(row.key()), &value).is_break()
                {
                    break;
                }
            }
            return Ok(());
        }
        if !self.may_block {
            *self.cold.borrow_mut() = Some(Cold::Scan);
            return Err(ViewError::Cold);
        }
        let mut above = self.resident.scan(from, to, direction).peekable();
        let mut stopped = false;
        let scanned = self.lsm.scan(from, to, direction, &mut |row, value| {
            while let Some(next) = above.peek() {
                let after = match direction {
                    Direction::Forward => *next.key() > *row,
                    Direction::Backward => *next.key() < *row,
                };
                if after {
                    break;
                }
                // A deleted row is passed over, yet waited for.
                let shadows = *next.key() == *row;
                let next = above.next().expect("just peeked");
                if let Some(value) = self.value_of(next)
                    && visit(&Bytes::copy_from_slice(next.key()), &value).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if shadows {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(&row, &value);
            stopped = flow.is_break();
            flow
        });
        self.noted(scanned)?;
        if stopped {
            return Ok(());
        }
        for row in above {
            if let Some(value) = self.value_of(row)
                && visit(&Bytes::copy_from_slice(row.key()), &value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn skim(&self, from: &[u8], to: &[u8], visit: &mut Skim<'_>) -> Result<(), ViewError> {
        if from >= to || !self.resident.holds_all_between(from, to) {
            let visit = &mut |row: &Bytes, value: &Bytes| visit(row, &|| value.clone());
            return self.scan(from, to, Direction::Forward, visit);
        }
        self.wait_for(self.flushed_index);
        for row in self.resident.scan(from, to, Direction::Forward) {
            if row.index > self.applied {
                self.wait_for(row.index);
            }
            // A deleted row is passed over, yet waited for.
            if row.exists() && visit(row.key(), &|| row.value().unwrap_or_default()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.wait_for(self.counters_index);
        self.counters
    }

    fn flushed_through(&self) -> Option<Version> {
        self.wait_for(self.flushed_index);
        self.flushed_through
    }

    fn random(&self) -> u64 {
        next_random(self.random)
    }

    fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// SplitMix64: a counter and a mix. Only the leader draws; what it draws is in the effects.
pub(crate) fn next_random(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use commands::rows::header_key;
    use wire::resp::Reply;

    use super::*;
    use crate::alone::Alone;
    use crate::node::NodeOptions;

    #[test]
    fn a_new_key_is_not_cold() {
        const KEYS: usize = 500;
        let alone = Alone::open(NodeOptions::default());
        let keys: Vec<String> = (0..KEYS).map(|i| format!("key{i}")).collect();
        let mut words = vec!["MSET"];
        keys.iter().for_each(|key| words.extend([key, "value"]));
        assert!(alone.run(&words).is_some());
        alone.node.flush().expect("flushed");
        // A filter is in memory once it was asked for.
        assert_eq!(alone.run(&["GET", "new"]), Some(Reply::Null));
        let partition = alone.partition();
        let core = partition.lock();
        let view = core.view(&alone.shared().lsm, false).expect("it leads");
        let is_cold = |i: &usize| {
            let read = view.get(&header_key(TableId(0), format!("new{i}").as_bytes()));
            assert!(matches!(read, Ok(None) | Err(ViewError::Cold)), "{read:?}");
            read.is_err()
        };
        // A filter is wrong about one in some hundred.
        let cold = (0..KEYS).filter(is_cold).count();
        assert!(cold <= KEYS / 20, "{cold}");
    }
}

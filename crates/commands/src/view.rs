//! What a command sees of its partition.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use wire::ids::{TableId, Version};
use wire::placement::PlacementRange;
use wire::service::ValueShapes;

use crate::notes::Notes;
use crate::overdue::Overdue;
use crate::txn::{Counters, Effects};

/// The rows of a collection of fewer elements are mostly in the processor's caches: to have a view touch
/// them ([`View::touch`]) costs more than it saves.
pub const TOUCHED_ELEMENTS_MIN: u64 = 20_000;
/// Rows that are touched together at most: of more of them, with what hangs on them, the first would have
/// left the processor's caches before they are read.
pub(crate) const TOUCHED_ROWS_MAX: usize = 256;

/// A stored row: its key and its value.
pub type Row = (Bytes, Bytes);

/// Looks at a row that is passed: its key, and what makes its value.
pub type Skim<'a> = dyn FnMut(&[u8], &dyn Fn() -> Bytes) -> ControlFlow<()> + 'a;

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Ascending row keys.
    Forward,
    /// Descending row keys.
    Backward,
}

/// Why a row could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewError {
    /// The row is not in memory and this view does not touch the disk: the host fetches it and
    /// evaluates the command again. Handlers only pass it on.
    #[error("row not in memory")]
    Cold,
    /// The row is damaged on this replica; it is never served.
    #[error("a stored row failed its checksum")]
    Damaged,
    /// The disk answered with an error.
    #[error("storage read failed: {0}")]
    Io(String),
}

/// A partition's state at one moment: a sorted map of rows, with the time and the randomness that a
/// command may use. Implemented by `storage` over resident rows and LSM, by [`crate::Txn`]
/// over another view, and by [`MemoryView`] for tests.
pub trait View {
    /// The leader's time for this command, in ms since the epoch; never goes back.
    fn now_ms(&self) -> u64;
    /// Whether a time has come. What that hides from the command must stay hidden, whoever leads next
    /// and whatever its clock says: so a leader's view takes note of it.
    fn is_past(&self, at_ms: u64) -> bool {
        at_ms <= self.now_ms()
    }
    /// Takes note of what ought to be done about a key. Forgotten unless a leader evaluates.
    fn meet_overdue(&self, _key: &[u8], _what: Overdue) {}
    /// Whether a script runs the command: what has no order is given one then.
    fn in_script(&self) -> bool {
        false
    }
    /// How values are kept.
    fn shapes(&self) -> ValueShapes {
        ValueShapes::default()
    }
    /// The table the command works on.
    fn table(&self) -> TableId;
    /// The range of placements the partition holds.
    fn range(&self) -> PlacementRange;
    /// The value of a row.
    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError>;
    /// Says that these rows will be looked up soon, so that looks wait for memory together. Nothing
    /// depends on it.
    fn touch(&self, _rows: &[Bytes]) {}
    /// Visits the rows in `[from, to)` in the given direction until `visit` breaks.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError>;
    /// Visits the rows in `[from, to)` in ascending order until `visit` breaks: their keys, and what
    /// makes their values. For who steps over most of them, and would not have them copied.
    fn skim(&self, from: &[u8], to: &[u8], visit: &mut Skim<'_>) -> Result<(), ViewError> {
        let visit = &mut |row: &Bytes, value: &Bytes| visit(row, &|| value.clone());
        self.scan(from, to, Direction::Forward, visit)
    }
    /// The partition's counters, this view's own changes included.
    fn counters(&self) -> Counters;
    /// Headers whose version is at or below this were flushed away (FLUSHDB) and do not exist.
    fn flushed_through(&self) -> Option<Version>;
    /// A random number, fresh at each call.
    fn random(&self) -> u64;
    /// Where events of keys are noted.
    fn notes(&self) -> &Notes;
}

/// A view over a map in memory: for tests and golden scripts.
#[derive(Debug)]
pub struct MemoryView {
    /// The rows.
    pub rows: BTreeMap<Bytes, Bytes>,
    /// The time.
    pub now_ms: u64,
    /// The table.
    pub table: TableId,
    /// The counters.
    pub counters: Counters,
    /// The fence of the last FLUSHDB.
    pub flushed_through: Option<Version>,
    /// The range of placements.
    pub range: PlacementRange,
    /// Log index of the next batch.
    pub next_index: u64,
    /// What reads noted.
    pub notes: Notes,
    /// How values are kept.
    pub shapes: ValueShapes,
    random: std::cell::Cell<u64>,
}

impl MemoryView {
    /// An empty table at a time.
    pub fn new(now_ms: u64) -> MemoryView {
        MemoryView {
            rows: BTreeMap::new(),
            now_ms,
            table: TableId(0),
            counters: Counters::default(),
            flushed_through: None,
            range: PlacementRange::whole(TableId(0)),
            next_index: 1,
            notes: Notes::default(),
            shapes: ValueShapes::default(),
            random: std::cell::Cell::new(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Applies what a transaction left, as a batch of its own.
    pub fn apply(&mut self, effects: Effects) {
        for write in effects.writes {
            match write.value {
                Some(value) => self.rows.insert(write.row, value),
                None => self.rows.remove(&write.row),
            };
        }
        if let Some(fence) = effects.flushed_through {
            self.flushed_through = Some(fence);
        }
        self.counters = effects.counters;
        self.next_index += 1;
    }
}

impl View for MemoryView {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn shapes(&self) -> ValueShapes {
        self.shapes
    }

    fn table(&self) -> TableId {
        self.table
    }

    fn range(&self) -> PlacementRange {
        PlacementRange { table: self.table, ..self.range }
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.rows.get(row).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let mut next = || match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        };
        while let Some((row, value)) = next() {
            if visit(row, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn flushed_through(&self) -> Option<Version> {
        self.flushed_through
    }

    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }

    fn notes(&self) -> &Notes {
        &self.notes
    }
}

//! A transaction: a view that also takes writes, and keeps them to itself until it is done.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use wire::ids::{TableId, Version};
use wire::placement::PlacementRange;
use wire::service::ValueShapes;

use crate::notes::{Notes, Notice, Wanted};
use crate::overdue::Overdue;
use crate::view::{Direction, Skim, View, ViewError};

/// What a partition counts about its keys; changed in the batch that changes the keys.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Keys that exist, expired ones not yet deleted included.
    pub keys: u64,
    /// Keys with a time to live.
    pub volatile: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// A row put (`Some`) or deleted (`None`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowWrite {
    /// The row's key.
    pub row: Bytes,
    /// The new value, or `None` to delete the row.
    pub value: Option<Bytes>,
}

/// What a transaction leaves: absolute, idempotent changes. Followers apply them unseen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Effects {
    /// Rows put and deleted, in ascending order of row keys, each row once.
    pub writes: Vec<RowWrite>,
    /// Collections that ceased to exist: their data rows are dropped by compaction.
    pub dropped: Vec<Version>,
    /// All headers at or below this version ceased to exist (FLUSHDB).
    pub flushed_through: Option<Version>,
    /// The partition's counters after this transaction.
    pub counters: Counters,
    /// Keys among the changed ones that had expired and were still there. Not replicated: who
    /// evaluates counts them.
    pub expired: u64,
    /// Fields of hashes that had expired and were deleted or replaced. Not replicated, likewise.
    pub expired_fields: u64,
    /// Keys and large collections that were deleted, and whose rows go later. Not replicated, likewise.
    pub freed_later: u64,
    /// What it changed is not worth counting: how often and when something was delivered.
    pub is_minor: bool,
    /// The version the next transaction of the same batch starts with.
    pub next_version: Version,
    /// Events of keys. Not replicated: who evaluates tells of them, once the rest is durable.
    pub notices: Vec<Notice>,
}

impl Effects {
    /// Whether the transaction changed nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.dropped.is_empty() && self.flushed_through.is_none()
    }
}

/// A view over a base view that keeps writes in memory, reads them back, and hands them over as
/// [`Effects`]. Dropped, it leaves nothing behind.
pub struct Txn<'a> {
    base: &'a dyn View,
    writes: Writes,
    dropped: Vec<Version>,
    flushed_through: Option<Version>,
    counters: Counters,
    expired: u64,
    expired_fields: u64,
    freed_later: u64,
    is_minor: bool,
    /// It is a command of a transaction or a script.
    is_part: bool,
    next_version: Version,
    /// How often it wrote something.
    changes: u64,
    notes: Notes,
}

/// Most transactions write one or two rows: those stay in one sorted allocation that leaves as the
/// effects' own. MSET and scripts outgrow it, and inserting into a long vector is quadratic.
enum Writes {
    Few(Vec<RowWrite>),
    Many(BTreeMap<Bytes, Option<Bytes>>),
}

/// Elements of a collection whose end is not counted as one that is given back later: Redis frees it at
/// once.
const FREED_AT_ONCE_MAX: u64 = 64;

/// Writes that stay in a vector.
const FEW_WRITES: usize = 64;

impl Writes {
    fn insert(&mut self, row: Bytes, value: Option<Bytes>) {
        match self {
            Writes::Few(writes) => match writes.binary_search_by(|write| write.row.cmp(&row)) {
                Ok(at) => writes[at].value = value,
                Err(at) if writes.len() < FEW_WRITES => writes.insert(at, RowWrite { row, value }),
                Err(_) => {
                    let moved = writes.drain(..).map(|write| (write.row, write.value));
                    let mut many = moved.collect::<BTreeMap<_, _>>();
                    many.insert(row, value);
                    *self = Writes::Many(many);
                }
            },
            Writes::Many(writes) => {
                writes.insert(row, value);
            }
        }
    }

    fn get(&self, row: &[u8]) -> Option<&Option<Bytes>> {
        match self {
            Writes::Few(writes) => {
                let at = writes.binary_search_by(|write| (*write.row).cmp(row)).ok()?;
                Some(&writes[at].value)
            }
            Writes::Many(writes) => writes.get(row),
        }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> Vec<(&Bytes, &Option<Bytes>)> {
        match self {
            Writes::Few(writes) => {
                let inside = writes.iter().filter(|write| from <= &*write.row && &*write.row < to);
                inside.map(|write| (&write.row, &write.value)).collect()
            }
            Writes::Many(writes) => {
                writes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).collect()
            }
        }
    }

    fn into_vec(self) -> Vec<RowWrite> {
        match self {
            Writes::Few(writes) => writes,
            Writes::Many(writes) => {
                writes.into_iter().map(|(row, value)| RowWrite { row, value }).collect()
            }
        }
    }
}

impl<'a> Txn<'a> {
    /// A transaction over `base` whose first version is `next_version` (the index of the batch it
    /// joins, and the first ordinal not yet used in that batch).
    pub fn new(base: &'a dyn View, next_version: Version) -> Txn<'a> {
        Txn {
            base,
            writes: Writes::Few(Vec::new()),
            dropped: Vec::new(),
            flushed_through: None,
            counters: base.counters(),
            expired: 0,
            expired_fields: 0,
            freed_later: 0,
            is_minor: false,
            is_part: false,
            next_version,
            changes: 0,
            notes: Notes::new(base.notes().wanted()),
        }
    }

    /// A transaction of one command on top of what those before it did, in MULTI or in a script.
    pub fn part_of(whole: &'a Txn<'_>) -> Txn<'a> {
        Txn { is_part: true, ..Txn::new(whole, whole.next_version()) }
    }

    /// Whether its command is one of a transaction or a script.
    pub fn is_part(&self) -> bool {
        self.is_part
    }

    /// Notes an event of a key, if it is wanted.
    pub fn note(&self, class: Wanted, event: &'static str, key: &[u8]) {
        self.notes.note(class, event, key);
    }

    /// Has a message published with what the transaction leaves.
    pub fn publish(&self, sharded: bool, channel: &[u8], text: &[u8]) {
        self.notes.publish(sharded, channel, text);
    }

    /// A version of its own for a header write or a new collection.
    pub fn new_version(&mut self) -> Version {
        let version = self.next_version;
        self.next_version.ordinal += 1;
        version
    }

    /// Puts a row.
    pub fn put(&mut self, row: Bytes, value: Bytes) {
        self.changes += 1;
        self.writes.insert(row, Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, row: Bytes) {
        self.changes += 1;
        self.writes.insert(row, None);
    }

    /// Drops a collection of so many elements: O(1), its data rows vanish with it.
    pub fn drop_generation(&mut self, generation: Version, elements: u64) {
        self.changes += 1;
        self.freed_later += u64::from(elements > FREED_AT_ONCE_MAX);
        self.dropped.push(generation);
    }

    /// Drops every key of the partition: O(1). Whether they count as given back later.
    pub fn flush(&mut self, is_later: bool) {
        let fence = self.new_version();
        self.changes += 1;
        self.writes = Writes::Few(Vec::new());
        self.flushed_through = Some(fence);
        self.freed_later += if is_later { self.counters.keys } else { 0 };
        self.counters = Counters::default();
    }

    /// How often it wrote something so far: who finds the same number again has written nothing.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over what another transaction left that was made over this one.
    pub fn merge(&mut self, effects: Effects) {
        self.changes += u64::from(!effects.is_empty());
        if effects.flushed_through.is_some() {
            self.writes = Writes::Few(Vec::new());
            self.flushed_through = effects.flushed_through;
        }
        for write in effects.writes {
            self.writes.insert(write.row, write.value);
        }
        self.dropped.extend(effects.dropped);
        self.counters = effects.counters;
        self.expired += effects.expired;
        self.expired_fields += effects.expired_fields;
        self.freed_later += effects.freed_later;
        self.next_version = effects.next_version;
        self.notes.extend(effects.notices);
    }

    /// The version that its next write gets.
    pub fn next_version(&self) -> Version {
        self.next_version
    }

    /// The counters, to be changed together with the rows they count.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Counts a key that had expired and is now deleted or replaced.
    pub fn count_expired(&mut self) {
        self.expired += 1;
    }

    /// Counts fields that had expired and are now deleted or replaced.
    pub fn count_expired_fields(&mut self, fields: u64) {
        self.expired_fields += fields;
    }

    /// Says that what it changes is not worth counting.
    pub fn is_minor(&mut self) {
        self.is_minor = true;
    }

    /// Ends the transaction.
    pub fn into_effects(self) -> Effects {
        Effects {
            writes: self.writes.into_vec(),
            dropped: self.dropped,
            flushed_through: self.flushed_through,
            counters: self.counters,
            expired: self.expired,
            expired_fields: self.expired_fields,
            freed_later: self.freed_later,
            is_minor: self.is_minor,
            next_version: self.next_version,
            notices: self.notes.take(),
        }
    }
}

impl View for Txn<'_> {
    fn now_ms(&self) -> u64 {
        self.base.now_ms()
    }

    fn is_past(&self, at_ms: u64) -> bool {
        self.base.is_past(at_ms)
    }

    fn meet_overdue(&self, key: &[u8], what: Overdue) {
        self.base.meet_overdue(key, what);
    }

    fn in_script(&self) -> bool {
        self.base.in_script()
    }

    fn shapes(&self) -> ValueShapes {
        self.base.shapes()
    }

    fn table(&self) -> TableId {
        self.base.table()
    }

    fn range(&self) -> PlacementRange {
        self.base.range()
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
        match self.writes.get(row) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(row),
        }
    }

    fn touch(&self, rows: &[Bytes]) {
        self.base.touch(rows);
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
        let mut own = self.writes.range(from, to);
        if direction == Direction::Backward {
            own.reverse();
        }
        merge_scan(self.base, (from, to), direction, &own, visit)
    }

    fn skim(&self, from: &[u8], to: &[u8], visit: &mut Skim<'_>) -> Result<(), ViewError> {
        if from >= to {
            return Ok(());
        }
        let mut own = self.writes.range(from, to).into_iter().peekable();
        let mut stopped = false;
        self.base.skim(from, to, &mut |row, value| {
            while let Some((own_row, own_value)) = own.next_if(|(own_row, _)| &own_row[..] <= row) {
                if let Some(own_value) = own_value
                    && visit(own_row, &|| own_value.clone()).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if &own_row[..] == row {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(row, value);
            stopped = flow.is_break();
            flow
        })?;
        let rest = own.filter_map(|(row, value)| Some((row, value.as_ref()?)));
        for (row, value) in rest.take_while(|_| !stopped) {
            if visit(row, &|| value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn flushed_through(&self) -> Option<Version> {
        self.flushed_through.or_else(|| self.base.flushed_through())
    }

    fn random(&self) -> u64 {
        self.base.random()
    }

    fn notes(&self) -> &Notes {
        &self.notes
    }
}

/// Scans `base` with `own` writes (already in the scan's direction) laid over it.
fn merge_scan(
    base: &dyn View,
    (from, to): (&[u8], &[u8]),
    direction: Direction,
    own: &[(&Bytes, &Option<Bytes>)],
    visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
) -> Result<(), ViewError> {
    let mut own = own.iter().peekable();
    let mut stopped = false;
    base.scan(from, to, direction, &mut |row, value| {
        while let Some((own_row, own_value)) = own.peek() {
            let before = match direction {
                Direction::Forward => *own_row <= row,
                Direction::Backward => *own_row >= row,
            };
            if !before {
                break;
            }
            let same = *own_row == row;
            if let Some(own_value) = own_value
                && visit(own_row, own_value).is_break()
            {
                stopped = true;
                return ControlFlow::Break(());
            }
            own.next();
            if same {
                return ControlFlow::Continue(());
            }
        }
        let flow = visit(row, value);
        stopped = flow.is_break();
        flow
    })?;
    if !stopped {
        for (row, value) in own {
            if let Some(value) = value
                && visit(row, value).is_break()
            {
                break;
            }
        }
    }
    Ok(())
}

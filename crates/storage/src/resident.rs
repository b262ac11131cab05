//! The rows that a leader holds in memory: all that fjall does not hold yet, and as many others as
//! the budget allows. Memtable and row cache in one: a command finds a row by one look, and a row
//! that was flushed stays where it is.
//!
//! ```text
//! row of index  > applied                proposed: a reader waits for the index
//!               > flushed, <= applied    only the log and memory hold it
//!               <= flushed               clean: fjall holds it, too; may be evicted
//!               0                        clean: read from fjall (or found not to be there)
//! ```
//!
//! Row keys begin with a placement, which is a hash, so they are spread evenly over the partition's
//! range. That makes an *ordered* map of short buckets as cheap as a hash table:
//!
//! ```text
//! placement, scaled to 40 bits = segment (10) | bucket (as many as the segment needs) | rest
//! bucket = a few rows in order; a tree where one tag or one collection holds many
//! ```
//!
//! A partition of few rows has one segment, and no trees: most of thousands of partitions are such.
//! A segment doubles its buckets by itself, so that growth never stops the partition for long. A
//! tree of all rows in its place took some 20 comparisons and 6 cache misses a look.
//!
//! What a look costs is the memory it has to wait for. So the prefixes that tell a bucket's rows
//! apart lie side by side (few.rs), in a tree's leaves too (tree.rs), and key and value are one
//! allocation; a small value is copied out, since counting references to it would touch one place
//! more.
//!
//! Of a collection that was made since this replica leads memory holds every row, until one of its
//! rows or of a younger collection is evicted. What memory does not know of it is not there: no look
//! goes to the LSM ([`Resident::holds_all_of`]).
//!
//! Eviction goes round the buckets like a clock's hand: a clean row that was not read since the
//! hand last passed goes. Deleted rows of collections go when they hide nothing (graves.rs). Only
//! leaders have residents; followers keep batches ([`crate::backlog`]).

mod few;
mod graves;
mod parts;
mod row;
mod tree;

use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use commands::Direction;
use commands::rows::{self, KEY_HASH_BITS};
use smallvec::SmallVec;
use wire::placement::PlacementRange;

use self::few::{Few, prefix_of};
use self::graves::Graves;
pub(crate) use self::graves::Horizon;
use self::parts::Separator;
pub(crate) use self::row::Row;
use self::row::SMALL_VALUE_BYTES;
use self::tree::{Tree, TreeScan};

/// Bytes of a row key that name its table.
const TABLE_BYTES: usize = 4;

/// Bits of a scaled placement.
const SCALE_BITS: u32 = 40;
/// Bits of it that name a segment.
const SEGMENT_BITS: u32 = 10;
const BUCKET_BITS: u32 = SCALE_BITS - SEGMENT_BITS;
/// Rows of a partition with one segment, at most: so many are moved at once when it gets more.
const SINGLE_ROWS_MAX: usize = 256;
/// A segment doubles its buckets when they hold so many rows on average.
const BUCKET_ROWS: usize = 8;
/// A bucket with more rows becomes a tree.
const FEW_ROWS_MAX: usize = 64;
/// Buckets that the hand passes at most when a row comes in; the clock thread does the rest.
const EVICT_BUCKETS: usize = 16;
/// Rows that are touched together without memory of their own for the list of them.
const TOUCHED: usize = 64;
/// Rows of the TTL index that are looked at in one step.
const INDEX_ROWS: usize = 16;

/// Memory for resident rows, shared by the partitions that name it.
#[derive(Debug)]
pub struct RowBudget {
    used_bytes: AtomicU64,
    max_bytes: u64,
}

impl RowBudget {
    /// A budget of so many bytes.
    pub fn new(max_bytes: u64) -> Arc<RowBudget> {
        Arc::new(RowBudget { used_bytes: AtomicU64::new(0), max_bytes })
    }

    /// Bytes in use, about.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether more is in use than may be.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.max_bytes
    }
}

#[derive(Debug)]
enum Bucket {
    Few(Few),
    Many(Tree),
}

#[derive(Debug, Default)]
struct Segment {
    /// None, or a power of two.
    buckets: Vec<Bucket>,
    /// Rows in buckets that are no trees.
    few: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Resident {
    /// The first bytes of every row key of the table, and what is taken off placements, by which
    /// shift, to scale them.
    table: [u8; 4],
    first: u64,
    shift: u32,
    /// None as long as there is no row; one while there are few; all of them.
    segments: Vec<Segment>,
    /// Bits of a scaled placement behind those that name the segment.
    bucket_bits: u32,
    /// The rows of the TTL index: they are ordered by time, not by placement.
    index_rows: BTreeSet<Row>,
    sweep: Sweep,
    graves: Graves,
    /// The LSM holds all batches up to this index.
    flushed: u64,
    /// Rows of generations up to this index may only be in the LSM.
    forgotten: u64,
    bytes: u64,
    budget: Arc<RowBudget>,
    hand: Hand,
}

/// Takes clean rows out of the TTL index, a few at a time: what fjall holds need not stay.
#[derive(Debug, Default)]
enum Sweep {
    #[default]
    Done,
    /// Goes on at the first row not before this key.
    At(Box<[u8]>),
}

/// Where eviction goes on.
#[derive(Debug, Default)]
struct Hand {
    segment: usize,
    bucket: usize,
    /// Inside a tree: at this leaf.
    inside: Option<Separator>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Resident {
    /// No rows. The LSM holds all batches up to `flushed`; what others wrote is put here next.
    pub(crate) fn new(range: PlacementRange, budget: Arc<RowBudget>, flushed: u64) -> Resident {
        let (first, last) = (range.first.get(), range.last.get());
        let span_bits = u64::BITS - (last - first).leading_zeros();
        Resident {
            table: range.table.0.to_be_bytes(),
            first,
            shift: SCALE_BITS - span_bits.min(SCALE_BITS),
            segments: Vec::new(),
            bucket_bits: SCALE_BITS,
            index_rows: BTreeSet::new(),
            sweep: Sweep::Done,
            graves: Graves::default(),
            flushed,
            forgotten: flushed,
            bytes: 0,
            budget,
            hand: Hand::default(),
        }
    }

    /// The row, if memory knows it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Row> {
        let row = self.find(key)?;
        row.warm.set(true);
        Some(row)
    }

    fn find(&self, key: &[u8]) -> Option<&Row> {
        if !self.is_placed(key) {
            return self.index_rows.get(key);
        }
        self.few(key)?.get(key)
    }

    /// The bucket, or the leaf of one that is a tree, where a row with a placement belongs.
    fn few(&self, key: &[u8]) -> Option<&Few> {
        let scaled = self.scaled(key);
        let segment = self.segments.get(self.segment_of(scaled))?;
        match segment.buckets.get(segment.bucket_of(scaled, self.bucket_bits))? {
            Bucket::Few(few) => Some(few),
            Bucket::Many(tree) => tree.leaf(key),
        }
    }

    /// Whether memory holds all there is of the collection that has, or would have, this row. What is
    /// not known of it does not exist.
    pub(crate) fn holds_all_of(&self, key: &[u8]) -> bool {
        self.is_placed(key)
            && rows::generation(key).is_some_and(|generation| generation.index > self.forgotten)
    }

    /// Whether that holds of all rows in `[from, to)`.
    pub(crate) fn holds_all_between(&self, from: &[u8], to: &[u8]) -> bool {
        rows::share_generation(from, to) && self.holds_all_of(from)
    }

    /// Touches the memory that looks at the header rows at these positions ([`commands::rows::position`])
    /// will read. A look waits for memory four times, each time for where to look next; here each step
    /// is taken for all rows before the next one, so that they wait together.
    pub(crate) fn touch(&self, positions: &[u64]) {
        touch_each(&self.near(positions));
    }

    /// The same for data rows, by their keys.
    pub(crate) fn touch_rows(&self, keys: &[Bytes]) {
        touch_each(&self.near_rows(keys));
    }

    /// The rows with these keys; in place of one that is not there one beside it.
    fn near_rows(&self, keys: &[Bytes]) -> SmallVec<[&Row; TOUCHED]> {
        let placed = keys.iter().filter(|key| self.is_placed(key));
        let looks: SmallVec<[(&Bytes, &Few); TOUCHED]> =
            placed.filter_map(|key| Some((key, self.few(key)?))).collect();
        std::hint::black_box(looks.iter().fold(0, |sum, (_, few)| sum ^ few.touch()));
        looks.iter().filter_map(|(key, few)| few.near_key(key)).collect()
    }

    /// The header rows at these positions, but for those in trees; in place of one that is not there
    /// the next of its bucket.
    fn near(&self, positions: &[u64]) -> SmallVec<[&Row; TOUCHED]> {
        let mut looks: SmallVec<[(u64, &Few); TOUCHED]> = SmallVec::new();
        for position in positions {
            let placement = position >> KEY_HASH_BITS;
            let scaled = scale_placement(self.first, self.shift, placement);
            let Some(segment) = self.segments.get(self.segment_of(scaled)) else { continue };
            let at = segment.bucket_of(scaled, self.bucket_bits);
            if let Some(Bucket::Few(few)) = segment.buckets.get(at) {
                looks.push((placement << 24 | position & ((1 << KEY_HASH_BITS) - 1), few));
            }
        }
        let first = |(_, few): &(u64, &Few)| few.first_prefix();
        std::hint::black_box(looks.iter().map(first).fold(0, |sum, prefix| sum ^ prefix));
        let mut rows = SmallVec::new();
        for (prefix, few) in looks {
            rows.extend(few.near(prefix));
        }
        rows
    }

    /// Puts what the batch of this index makes of a row.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&Bytes>, index: u64) {
        let is_new = index > 0 && self.holds_all_of(key);
        let row = Row::new(key, value, index, is_new.then_some(index));
        let mut added = row.bytes();
        let old = self.insert(row);
        if value.is_none() && index > self.flushed && rows::generation(key).is_some() {
            added += self.graves.add(index, key);
        }
        self.account(added, old.map_or(0, |old| old.bytes()));
    }

    /// Takes over what fjall said of a row, unless memory knows better.
    pub(crate) fn fill(&mut self, key: &[u8], value: Option<&Bytes>) {
        if self.get(key).is_none() {
            // What fjall answers is a slice of a block, which a row must not keep in memory.
            let copy = value.filter(|value| value.len() > SMALL_VALUE_BYTES);
            let copy = copy.map(|value| Bytes::copy_from_slice(value));
            self.put(key, copy.as_ref().or(value), 0);
        }
    }

    fn insert(&mut self, row: Row) -> Option<Row> {
        if !self.is_placed(row.key()) {
            return self.index_rows.replace(row);
        }
        if self.segments.is_empty() {
            self.segments.push(Segment::default());
        }
        let scaled = self.scaled(row.key());
        let (table, first, shift) = (self.table, self.first, self.shift);
        let (at, bits) = (self.segment_of(scaled), self.bucket_bits);
        let segment = &mut self.segments[at];
        if segment.few >= segment.buckets.len() * BUCKET_ROWS {
            segment.double(&|key| scale(table, first, shift, key), bits);
        }
        let at = segment.bucket_of(scaled, bits);
        let is_single = bits == SCALE_BITS;
        let is_full = |few: &Few| few.len() >= FEW_ROWS_MAX;
        if is_single
            && (segment.few >= SINGLE_ROWS_MAX
                || matches!(&segment.buckets[at], Bucket::Few(few) if is_full(few)))
        {
            self.spread();
            return self.insert(row);
        }
        let bucket = &mut segment.buckets[at];
        match bucket {
            Bucket::Few(few) => {
                let old = few.insert(row, self.flushed);
                segment.few += usize::from(old.is_none());
                if few.len() > FEW_ROWS_MAX {
                    segment.few -= few.len();
                    let few = std::mem::replace(few, Few::new(TABLE_BYTES));
                    *bucket = Bucket::Many(few.into_rows().into_iter().collect());
                }
                old
            }
            Bucket::Many(tree) => tree.insert(row, self.flushed),
        }
    }

    /// From one segment to all of them.
    fn spread(&mut self) {
        let single = std::mem::take(&mut self.segments);
        self.bucket_bits = BUCKET_BITS;
        self.segments.resize_with(1 << SEGMENT_BITS, Segment::default);
        self.hand = Hand::default();
        for bucket in single.into_iter().flat_map(|segment| segment.buckets) {
            match bucket {
                Bucket::Few(few) => few.into_rows().into_iter().for_each(|row| {
                    self.insert(row);
                }),
                Bucket::Many(_) => unreachable!("a single segment has no trees"),
            }
        }
    }

    fn segment_of(&self, scaled: u64) -> usize {
        (scaled >> self.bucket_bits) as usize
    }

    /// Forgets a row.
    fn remove(&mut self, key: &[u8]) {
        let scaled = self.scaled(key);
        let (at, bits) = (self.segment_of(scaled), self.bucket_bits);
        let Some(segment) = self.segments.get_mut(at) else { return };
        let at = segment.bucket_of(scaled, bits);
        let removed = match segment.buckets.get_mut(at) {
            None => None,
            Some(Bucket::Few(few)) => {
                let removed = few.remove(key);
                segment.few -= usize::from(removed.is_some());
                removed
            }
            Some(Bucket::Many(tree)) => tree.remove(key),
        };
        self.account(0, removed.map_or(0, |row| row.bytes()));
    }

    fn account(&mut self, added: u64, removed: u64) {
        self.bytes = self.bytes + added - removed;
        self.budget.used_bytes.fetch_add(added, Ordering::Relaxed);
        self.budget.used_bytes.fetch_sub(removed, Ordering::Relaxed);
    }

    /// Fjall holds more than before: rows of the TTL index may go, and deletions.
    pub(crate) fn flushed(&mut self, through: u64) {
        self.flushed = self.flushed.max(through);
        self.sweep = Sweep::At(Box::default());
    }

    /// Takes out rows that memory can do without, for a bounded time: deletions that hide nothing,
    /// those of the TTL index after a flush, others while the budget is exceeded. Returns whether it
    /// may have more to do.
    pub(crate) fn make_room(&mut self, horizon: Horizon) -> bool {
        let more = self.settle_graves(horizon);
        let flushed = horizon.flushed;
        let swept = self.sweep_index(flushed);
        for _ in 0..EVICT_BUCKETS {
            if self.bytes == 0 || !self.budget.is_exceeded() {
                return more || !swept;
            }
            self.evict_bucket(flushed);
        }
        true
    }

    /// Whether there is more to take out, however much memory there is.
    pub(crate) fn is_sweeping(&self, horizon: Horizon) -> bool {
        matches!(self.sweep, Sweep::At(_)) || self.graves.are_due(horizon)
    }

    fn settle_graves(&mut self, horizon: Horizon) -> bool {
        let mut graves = std::mem::take(&mut self.graves);
        let find = |rows: &Resident, key: &[u8]| rows.find(key).and_then(graves::deletion);
        let (freed, more) = graves.settle(self, horizon, find, Resident::remove);
        self.graves = graves;
        self.account(0, freed);
        more
    }

    /// One step of the sweep. Returns whether it is done.
    fn sweep_index(&mut self, flushed: u64) -> bool {
        let Sweep::At(from) = std::mem::take(&mut self.sweep) else { return true };
        let (mut next, mut gone) = (None, Vec::new());
        let rows = self.index_rows.range::<[u8], _>((Bound::Included(&*from), Bound::Unbounded));
        for (nth, row) in rows.enumerate() {
            if nth == INDEX_ROWS {
                next = Some(Box::from(row.key()));
                break;
            }
            if row.index <= flushed {
                gone.push(Box::<[u8]>::from(row.key()));
            }
        }
        let mut freed = 0;
        for key in &gone {
            freed += self.index_rows.take(&**key).map_or(0, |row| row.bytes());
        }
        self.account(0, freed);
        let Some(next) = next else { return true };
        self.sweep = Sweep::At(next);
        false
    }

    /// Evicts from the bucket (or the part of a tree) under the hand and moves on.
    fn evict_bucket(&mut self, flushed: u64) {
        let (mut freed, mut forgotten) = (0, self.forgotten);
        let mut leaves = |row: &Row| {
            let leaves = row.index <= flushed && !row.warm.replace(false);
            if leaves {
                freed += row.bytes();
                let generation = rows::generation(row.key()).filter(|_| row.exists());
                forgotten = forgotten.max(generation.map_or(0, |generation| generation.index));
            }
            leaves
        };
        let Hand { segment: at, bucket, inside } = &mut self.hand;
        let Some(segment) = self.segments.get_mut(*at) else { return };
        match segment.buckets.get_mut(*bucket) {
            // Where the hand was inside a tree, the segment may have doubled since.
            None => *inside = None,
            Some(Bucket::Few(few)) => {
                *inside = None;
                let before = few.len();
                few.retain(|row| !leaves(row));
                segment.few -= before - few.len();
            }
            Some(Bucket::Many(tree)) => *inside = tree.evict(inside.as_deref(), &mut leaves),
        }
        self.forgotten = forgotten;
        if inside.is_none() {
            *bucket += 1;
            if *bucket >= segment.buckets.len() {
                (*at, *bucket) = ((*at + 1) % self.segments.len(), 0);
            }
        }
        self.account(0, freed);
    }

    /// The rows in `[from, to)` that memory knows, in the given direction. The bounds lie in the
    /// table's rows or in its TTL index, not in both.
    pub(crate) fn scan<'a>(
        &'a self,
        from: &'a [u8],
        to: &'a [u8],
        direction: Direction,
    ) -> Scan<'a> {
        let mut scan =
            Scan { resident: self, from, to, direction, at: (0, 0), end: (0, 0), rows: None };
        if from >= to {
            return scan;
        }
        if !self.is_placed(from) {
            let range = (Bound::Included(from), Bound::Excluded(to));
            scan.rows = Some(Rows::Index(self.index_rows.range::<[u8], _>(range)));
            return scan;
        }
        if self.segments.is_empty() {
            return scan;
        }
        let last = match to.starts_with(&self.table) {
            true => self.scaled(to),
            false => (1 << SCALE_BITS) - 1,
        };
        (scan.at, scan.end) = (self.position(self.scaled(from)), self.position(last));
        if direction == Direction::Backward {
            std::mem::swap(&mut scan.at, &mut scan.end);
        }
        scan.enter();
        scan
    }

    fn position(&self, scaled: u64) -> (usize, usize) {
        let segment = self.segment_of(scaled);
        (segment, self.segments[segment].bucket_of(scaled, self.bucket_bits))
    }

    fn is_placed(&self, key: &[u8]) -> bool {
        key.starts_with(&self.table)
    }

    fn scaled(&self, key: &[u8]) -> u64 {
        scale(self.table, self.first, self.shift, key)
    }
}

fn touch_each(rows: &[&Row]) {
    let mut touched = rows.iter().fold(0, |sum, row| sum ^ row.index);
    for row in rows {
        touched ^= u64::from(row.last_byte());
    }
    std::hint::black_box(touched);
}

/// A placement as a number of [`SCALE_BITS`] that spreads evenly over the partition's range.
fn scale(table: [u8; 4], first: u64, shift: u32, key: &[u8]) -> u64 {
    debug_assert!(key.starts_with(&table));
    scale_placement(first, shift, prefix_of(key, TABLE_BYTES) >> 24)
}

fn scale_placement(first: u64, shift: u32, placement: u64) -> u64 {
    (placement.saturating_sub(first) << shift).min((1 << SCALE_BITS) - 1)
}

impl Segment {
    fn bucket_of(&self, scaled: u64, bits: u32) -> usize {
        bucket_of(scaled, self.buckets.len(), bits)
    }

    /// Splits every bucket in two.
    fn double(&mut self, scaled: &dyn Fn(&[u8]) -> u64, bits: u32) {
        let old = std::mem::take(&mut self.buckets);
        if old.is_empty() {
            self.buckets.push(Bucket::Few(Few::new(TABLE_BYTES)));
            return;
        }
        let count = old.len() * 2;
        self.buckets.reserve_exact(count);
        for bucket in old {
            // The left half's number is the next one that is pushed.
            let right = self.buckets.len() + 1;
            let is_left = |key: &[u8]| bucket_of(scaled(key), count, bits) < right;
            let (low, high) = match bucket {
                Bucket::Few(mut few) => {
                    let middle = few.rows().partition_point(|row| is_left(row.key()));
                    let high = few.split_off(middle);
                    (Bucket::Few(few), Bucket::Few(high))
                }
                Bucket::Many(mut tree) => {
                    let high = tree.split_off(&is_left);
                    (self.shrunk(tree), self.shrunk(high))
                }
            };
            self.buckets.extend([low, high]);
        }
    }

    /// A tree that became small as a plain bucket.
    fn shrunk(&mut self, tree: Tree) -> Bucket {
        match tree.into_few(FEW_ROWS_MAX / 2) {
            Err(tree) => Bucket::Many(tree),
            Ok(rows) => {
                self.few += rows.len();
                Bucket::Few(Few::of(TABLE_BYTES, rows))
            }
        }
    }
}

fn bucket_of(scaled: u64, count: usize, bits: u32) -> usize {
    let rest = scaled & ((1 << bits) - 1);
    // `count` is a power of two, or 0 with any answer as good as another.
    (rest >> (bits - count.max(1).ilog2())) as usize
}

/// Resident rows of a range; see [`Resident::scan`].
pub(crate) struct Scan<'a> {
    resident: &'a Resident,
    from: &'a [u8],
    to: &'a [u8],
    direction: Direction,
    at: (usize, usize),
    end: (usize, usize),
    rows: Option<Rows<'a>>,
}

enum Rows<'a> {
    Few(slice::Iter<'a, Row>),
    Many(TreeScan<'a>),
    Index(btree_set::Range<'a, Row>),
}

impl<'a> Scan<'a> {
    /// Begins with the rows of the bucket it stands at.
    fn enter(&mut self) {
        let segment = &self.resident.segments[self.at.0];
        self.rows = segment.buckets.get(self.at.1).map(|bucket| match bucket {
            Bucket::Few(few) => Rows::Few(few.between(self.from, self.to)),
            Bucket::Many(tree) => Rows::Many(tree.scan(self.from, self.to)),
        });
    }

    /// Moves to the next bucket that there is; false at the end.
    fn advance(&mut self) -> bool {
        if self.at == self.end {
            return false;
        }
        let (segment, bucket) = self.at;
        let buckets = |segment: usize| self.resident.segments[segment].buckets.len();
        self.at = match self.direction {
            Direction::Forward if bucket + 1 < buckets(segment) => (segment, bucket + 1),
            Direction::Forward => (segment + 1, 0),
            Direction::Backward if bucket > 0 => (segment, bucket - 1),
            Direction::Backward => (segment - 1, buckets(segment - 1).saturating_sub(1)),
        };
        true
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = &'a Row;

    fn next(&mut self) -> Option<&'a Row> {
        loop {
            let backward = self.direction == Direction::Backward;
            let next = match &mut self.rows {
                None => None,
                Some(Rows::Few(rows)) if backward => rows.next_back(),
                Some(Rows::Few(rows)) => rows.next(),
                Some(Rows::Many(rows)) => rows.next(backward),
                Some(Rows::Index(rows)) if backward => rows.next_back(),
                Some(Rows::Index(rows)) => rows.next(),
            };
            if next.is_some() {
                return next;
            }
            if !self.advance() {
                return None;
            }
            self.enter();
        }
    }
}

#[cfg(test)]
mod tests;

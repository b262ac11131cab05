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
//! A segment doubles its buckets by itself, so that growth never stops the partition for long. A
//! tree of all rows in its place took some 20 comparisons and 6 cache misses a look.
//!
//! What a look costs is the memory it has to wait for. So the prefixes that tell a bucket's rows
//! apart lie side by side, and key and value are one allocation; a small value is copied out, since
//! counting references to it would touch one place more.
//!
//! Eviction goes round the buckets like a clock's hand: a clean row that was not read since the
//! hand last passed goes. Only leaders have residents; followers keep batches ([`crate::backlog`]).

use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering as Order;
use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use commands::Direction;
use commands::rows::KEY_HASH_BITS;
use smallvec::SmallVec;
use wire::placement::PlacementRange;

/// Bits of a scaled placement.
const SCALE_BITS: u32 = 40;
/// Bits of it that name a segment.
const SEGMENT_BITS: u32 = 10;
const BUCKET_BITS: u32 = SCALE_BITS - SEGMENT_BITS;
/// A segment doubles its buckets when they hold so many rows on average.
const BUCKET_ROWS: usize = 8;
/// A bucket with more rows becomes a tree.
const FEW_ROWS_MAX: usize = 64;
/// What a row costs beside its bytes, about: its entry, its share of a bucket's free space, and
/// what the allocator adds.
const ROW_BYTES: u64 = 96;
/// A value of more bytes is shared with whoever reads it; a smaller one is copied.
const SMALL_VALUE_BYTES: usize = 1024;
/// Buckets that the hand passes at most when a row comes in; the clock thread does the rest.
const EVICT_BUCKETS: usize = 16;
/// Rows of a tree that the hand looks at in one step.
const EVICT_ROWS: usize = 64;
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

    fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.max_bytes
    }
}

/// A row in memory.
#[derive(Debug)]
pub(crate) struct Row {
    /// The key, and behind it the value if it is small.
    data: Box<[u8]>,
    large: Option<Box<Bytes>>,
    /// The log index of the batch that made it so; 0 if fjall said it.
    pub(crate) index: u64,
    key_bytes: u16,
    /// False: the row does not exist.
    exists: bool,
    /// Read since the hand last passed.
    warm: Cell<bool>,
}

impl Row {
    fn new(key: &[u8], value: Option<&Bytes>, index: u64) -> Row {
        let small = value.filter(|value| value.len() <= SMALL_VALUE_BYTES);
        let mut data = Vec::with_capacity(key.len() + small.map_or(0, Bytes::len));
        data.extend_from_slice(key);
        data.extend_from_slice(small.map_or(&[][..], |value| value));
        let large = value.filter(|_| small.is_none());
        Row {
            data: data.into_boxed_slice(),
            large: large.map(|value| Box::new(value.clone())),
            index,
            key_bytes: u16::try_from(key.len()).expect("row keys are bounded"),
            exists: value.is_some(),
            warm: Cell::new(true),
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.data[..usize::from(self.key_bytes)]
    }

    /// The opened value; `None`: the row does not exist.
    pub(crate) fn value(&self) -> Option<Bytes> {
        match &self.large {
            Some(value) => Some(Bytes::clone(value)),
            None if self.exists => {
                Some(Bytes::copy_from_slice(&self.data[usize::from(self.key_bytes)..]))
            }
            None => None,
        }
    }

    fn bytes(&self) -> u64 {
        ROW_BYTES + (self.data.len() + self.large.as_ref().map_or(0, |value| value.len())) as u64
    }
}

/// Rows in a tree are found by their keys.
impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Row) -> Order {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Row) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

#[derive(Debug)]
enum Bucket {
    Few(Few),
    Many(BTreeSet<Row>),
}

/// Rows in the order of keys.
#[derive(Debug, Default)]
struct Few {
    /// Of each row, bytes 4 to 12 of the key as a number: it tells most rows of a table apart.
    prefixes: Vec<u64>,
    rows: Vec<Row>,
}

impl Few {
    fn find(&self, prefix: u64, key: &[u8]) -> Result<usize, usize> {
        let mut at = self.prefixes.partition_point(|known| *known < prefix);
        while self.prefixes.get(at) == Some(&prefix) {
            match self.rows[at].key().cmp(key) {
                Order::Less => at += 1,
                Order::Equal => return Ok(at),
                Order::Greater => break,
            }
        }
        Err(at)
    }

    fn insert(&mut self, at: usize, prefix: u64, row: Row) {
        // Buckets are many and short: they grow by little.
        if self.rows.len() == self.rows.capacity() {
            let more = self.rows.len() / 2 + 2;
            self.prefixes.reserve_exact(more);
            self.rows.reserve_exact(more);
        }
        self.prefixes.insert(at, prefix);
        self.rows.insert(at, row);
    }

    fn retain(&mut self, mut stays: impl FnMut(&Row) -> bool) {
        let mut at = 0;
        while at < self.rows.len() {
            if stays(&self.rows[at]) {
                at += 1;
            } else {
                self.prefixes.remove(at);
                self.rows.remove(at);
            }
        }
        if self.rows.len() * 4 < self.rows.capacity() {
            self.prefixes.shrink_to_fit();
            self.rows.shrink_to_fit();
        }
    }

    fn split_off(&mut self, at: usize) -> Few {
        let high = Few { prefixes: self.prefixes.split_off(at), rows: self.rows.split_off(at) };
        self.prefixes.shrink_to_fit();
        self.rows.shrink_to_fit();
        high
    }
}

impl FromIterator<Row> for Few {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Few {
        let rows: Vec<Row> = rows.into_iter().collect();
        Few { prefixes: rows.iter().map(|row| prefix_of(row.key())).collect(), rows }
    }
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
    segments: Vec<Segment>,
    /// The rows of the TTL index: they are ordered by time, not by placement.
    index_rows: BTreeSet<Row>,
    sweep: Sweep,
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
    /// Inside a tree: behind this row.
    behind: Option<Box<[u8]>>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Resident {
    pub(crate) fn new(range: PlacementRange, budget: Arc<RowBudget>) -> Resident {
        let (first, last) = (range.first.get(), range.last.get());
        let span_bits = u64::BITS - (last - first).leading_zeros();
        Resident {
            table: range.table.0.to_be_bytes(),
            first,
            shift: SCALE_BITS - span_bits.min(SCALE_BITS),
            segments: (0..1 << SEGMENT_BITS).map(|_| Segment::default()).collect(),
            index_rows: BTreeSet::new(),
            sweep: Sweep::Done,
            bytes: 0,
            budget,
            hand: Hand::default(),
        }
    }

    /// The row, if memory knows it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Row> {
        let row = if self.is_placed(key) {
            let scaled = self.scaled(key);
            let segment = &self.segments[segment_of(scaled)];
            match segment.buckets.get(segment.bucket_of(scaled))? {
                Bucket::Few(few) => &few.rows[few.find(prefix_of(key), key).ok()?],
                Bucket::Many(rows) => rows.get(key)?,
            }
        } else {
            self.index_rows.get(key)?
        };
        row.warm.set(true);
        Some(row)
    }

    /// Touches the memory that looks at the header rows at these positions ([`commands::rows::position`])
    /// will read. A look waits for memory four times, each time for where to look next; here each step
    /// is taken for all rows before the next one, so that they wait together.
    pub(crate) fn touch(&self, positions: &[u64]) {
        let rows = self.near(positions);
        let mut touched = rows.iter().fold(0, |sum, row| sum ^ row.index);
        for row in rows {
            touched ^= u64::from(row.data.last().copied().unwrap_or_default());
        }
        std::hint::black_box(touched);
    }

    /// The header rows at these positions, but for those in trees; in place of one that is not there
    /// the next of its bucket.
    fn near(&self, positions: &[u64]) -> SmallVec<[&Row; TOUCHED]> {
        let mut looks: SmallVec<[(u64, &Few); TOUCHED]> = SmallVec::new();
        for position in positions {
            let placement = position >> KEY_HASH_BITS;
            let scaled = scale_placement(self.first, self.shift, placement);
            let segment = &self.segments[segment_of(scaled)];
            if let Some(Bucket::Few(few)) = segment.buckets.get(segment.bucket_of(scaled)) {
                looks.push((placement << 24 | position & ((1 << KEY_HASH_BITS) - 1), few));
            }
        }
        let first = |(_, few): &(u64, &Few)| few.prefixes.first().copied().unwrap_or_default();
        std::hint::black_box(looks.iter().map(first).fold(0, |sum, prefix| sum ^ prefix));
        let mut rows = SmallVec::new();
        for (prefix, few) in looks {
            rows.extend(few.rows.get(few.prefixes.partition_point(|known| *known < prefix)));
        }
        rows
    }

    /// Puts what the batch of this index makes of a row.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&Bytes>, index: u64) {
        let row = Row::new(key, value, index);
        let added = row.bytes();
        let old = self.insert(row);
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
        let scaled = self.scaled(row.key());
        let (table, first, shift) = (self.table, self.first, self.shift);
        let segment = &mut self.segments[segment_of(scaled)];
        if segment.few >= segment.buckets.len() * BUCKET_ROWS {
            segment.double(&|key| scale(table, first, shift, key));
        }
        let at = segment.bucket_of(scaled);
        let bucket = &mut segment.buckets[at];
        match bucket {
            Bucket::Few(few) => {
                let prefix = prefix_of(row.key());
                match few.find(prefix, row.key()) {
                    Ok(at) => return Some(std::mem::replace(&mut few.rows[at], row)),
                    Err(at) => few.insert(at, prefix, row),
                }
                segment.few += 1;
                if few.rows.len() > FEW_ROWS_MAX {
                    segment.few -= few.rows.len();
                    *bucket = Bucket::Many(std::mem::take(few).rows.into_iter().collect());
                }
                None
            }
            Bucket::Many(rows) => rows.replace(row),
        }
    }

    fn account(&mut self, added: u64, removed: u64) {
        self.bytes = self.bytes + added - removed;
        self.budget.used_bytes.fetch_add(added, Ordering::Relaxed);
        self.budget.used_bytes.fetch_sub(removed, Ordering::Relaxed);
    }

    /// Fjall holds more than before: rows of the TTL index may go.
    pub(crate) fn flushed(&mut self) {
        self.sweep = Sweep::At(Box::default());
    }

    /// Takes out rows that fjall holds, for a bounded time: those of the TTL index after a flush,
    /// others while the budget is exceeded. Returns whether it may have more to do.
    pub(crate) fn make_room(&mut self, flushed: u64) -> bool {
        let swept = self.sweep_index(flushed);
        for _ in 0..EVICT_BUCKETS {
            if self.bytes == 0 || !self.budget.is_exceeded() {
                return !swept;
            }
            self.evict_bucket(flushed);
        }
        true
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
        let mut freed = 0;
        let mut leaves = |row: &Row| {
            let leaves = row.index <= flushed && !row.warm.replace(false);
            freed += if leaves { row.bytes() } else { 0 };
            leaves
        };
        let Hand { segment: at, bucket, behind } = &mut self.hand;
        let segment = &mut self.segments[*at];
        match segment.buckets.get_mut(*bucket) {
            // Where the hand was inside a tree, the segment may have doubled since.
            None => *behind = None,
            Some(Bucket::Few(few)) => {
                *behind = None;
                let before = few.rows.len();
                few.retain(|row| !leaves(row));
                segment.few -= before - few.rows.len();
            }
            Some(Bucket::Many(rows)) => {
                let from = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let step = rows.range::<[u8], _>((from, Bound::Unbounded)).take(EVICT_ROWS);
                let (mut last, mut gone) = (None, Vec::new());
                for (nth, row) in step.enumerate() {
                    last = Some(row.key()).filter(|_| nth == EVICT_ROWS - 1);
                    if leaves(row) {
                        gone.push(Box::<[u8]>::from(row.key()));
                    }
                }
                *behind = last.map(Box::from);
                for key in &gone {
                    rows.remove(&key[..]);
                }
            }
        }
        if behind.is_none() {
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
            scan.rows = Some(Rows::Many(self.index_rows.range::<[u8], _>(range)));
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
        let segment = segment_of(scaled);
        (segment, self.segments[segment].bucket_of(scaled))
    }

    fn is_placed(&self, key: &[u8]) -> bool {
        key.starts_with(&self.table)
    }

    fn scaled(&self, key: &[u8]) -> u64 {
        scale(self.table, self.first, self.shift, key)
    }
}

/// A placement as a number of [`SCALE_BITS`] that spreads evenly over the partition's range.
fn scale(table: [u8; 4], first: u64, shift: u32, key: &[u8]) -> u64 {
    debug_assert!(key.starts_with(&table));
    scale_placement(first, shift, prefix_of(key) >> 24)
}

fn scale_placement(first: u64, shift: u32, placement: u64) -> u64 {
    (placement.saturating_sub(first) << shift).min((1 << SCALE_BITS) - 1)
}

fn prefix_of(key: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    let known = key.get(4..).unwrap_or_default();
    let length = known.len().min(8);
    prefix[..length].copy_from_slice(&known[..length]);
    u64::from_be_bytes(prefix)
}

fn segment_of(scaled: u64) -> usize {
    (scaled >> BUCKET_BITS) as usize
}

impl Segment {
    fn bucket_of(&self, scaled: u64) -> usize {
        bucket_of(scaled, self.buckets.len())
    }

    /// Splits every bucket in two.
    #[allow(clippy::mutable_key_type, reason = "what changes in a row is no part of its order")]
    fn double(&mut self, scaled: &dyn Fn(&[u8]) -> u64) {
        let old = std::mem::take(&mut self.buckets);
        if old.is_empty() {
            self.buckets.push(Bucket::Few(Few::default()));
            return;
        }
        let count = old.len() * 2;
        self.buckets.reserve_exact(count);
        for bucket in old {
            // The left half's number is the next one that is pushed.
            let right = self.buckets.len() + 1;
            let is_left = |key: &[u8]| bucket_of(scaled(key), count) < right;
            let (low, high) = match bucket {
                Bucket::Few(mut few) => {
                    let middle = few.rows.partition_point(|row| is_left(row.key()));
                    let high = few.split_off(middle);
                    (Bucket::Few(few), Bucket::Few(high))
                }
                Bucket::Many(mut rows) => {
                    let high = match (rows.first(), rows.last()) {
                        // Mostly one placement, or one collection, makes a tree.
                        (_, Some(last)) if is_left(last.key()) => BTreeSet::new(),
                        (Some(first), _) if !is_left(first.key()) => std::mem::take(&mut rows),
                        _ => {
                            let middle = rows.iter().map(Row::key).find(|key| !is_left(key));
                            let middle = middle.map(Box::<[u8]>::from).unwrap_or_default();
                            rows.split_off(&middle[..])
                        }
                    };
                    (self.shrunk(rows), self.shrunk(high))
                }
            };
            self.buckets.extend([low, high]);
        }
    }

    /// A tree that became small as a plain bucket.
    #[allow(clippy::mutable_key_type, reason = "what changes in a row is no part of its order")]
    fn shrunk(&mut self, rows: BTreeSet<Row>) -> Bucket {
        if rows.len() > FEW_ROWS_MAX / 2 {
            return Bucket::Many(rows);
        }
        self.few += rows.len();
        Bucket::Few(rows.into_iter().collect())
    }
}

fn bucket_of(scaled: u64, count: usize) -> usize {
    let rest = scaled & ((1 << BUCKET_BITS) - 1);
    // `count` is a power of two, or 0 with any answer as good as another.
    (rest >> (BUCKET_BITS - count.max(1).ilog2())) as usize
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
    Many(btree_set::Range<'a, Row>),
}

impl<'a> Scan<'a> {
    /// Begins with the rows of the bucket it stands at.
    fn enter(&mut self) {
        let segment = &self.resident.segments[self.at.0];
        self.rows = segment.buckets.get(self.at.1).map(|bucket| match bucket {
            Bucket::Few(few) => {
                let first = few.rows.partition_point(|row| row.key() < self.from);
                let last = few.rows.partition_point(|row| row.key() < self.to);
                Rows::Few(few.rows[first..last].iter())
            }
            Bucket::Many(rows) => {
                let range = (Bound::Included(self.from), Bound::Excluded(self.to));
                Rows::Many(rows.range::<[u8], _>(range))
            }
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
                Some(Rows::Many(rows)) if backward => rows.next_back(),
                Some(Rows::Many(rows)) => rows.next(),
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

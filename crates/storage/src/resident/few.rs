//! A few rows in the order of their keys.
//!
//! What a look costs is the memory it has to wait for. So eight bytes of each key, those behind what
//! all keys begin with, lie side by side as numbers: they tell nearly all of them apart, and of the
//! rows only the one that is sought is touched.

use std::cmp::Ordering as Order;
use std::slice;

use super::row::Row;

/// Prefixes in a line of memory.
const LINE_PREFIXES: usize = 8;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Few {
    /// All keys have at least so many first bytes in common.
    skip: usize,
    /// Of each row, the eight bytes of its key behind them.
    prefixes: Vec<u64>,
    rows: Vec<Row>,
}

impl Few {
    /// No rows; all that will come have `skip` first bytes in common, or more.
    pub(super) fn new(skip: usize) -> Few {
        Few { skip, prefixes: Vec::new(), rows: Vec::new() }
    }

    /// These rows, which are in order; their keys have `skip` first bytes in common, or more.
    pub(super) fn of(skip: usize, rows: Vec<Row>) -> Few {
        let prefixes = rows.iter().map(|row| prefix_of(row.key(), skip)).collect();
        Few { skip, prefixes, rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// The lowest of the prefixes that the rows have, if there are any.
    pub(super) fn first_prefix(&self) -> u64 {
        self.prefixes.first().copied().unwrap_or_default()
    }

    /// Something of each line of memory that the prefixes take.
    pub(super) fn touch(&self) -> u64 {
        self.prefixes.iter().step_by(LINE_PREFIXES).fold(0, |sum, prefix| sum ^ prefix)
    }

    /// The row with this key, or one beside where it would be.
    pub(super) fn near_key(&self, key: &[u8]) -> Option<&Row> {
        self.near(prefix_of(key, self.skip))
    }

    /// The first row with this prefix or a higher one.
    pub(super) fn near(&self, prefix: u64) -> Option<&Row> {
        self.rows.get(self.prefixes.partition_point(|known| *known < prefix))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Row> {
        self.find(key).ok().map(|at| &self.rows[at])
    }

    /// Where a row is, or where it belongs if its key begins as the others do.
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = prefix_of(key, self.skip);
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

    /// Puts a row in the place of one with its key, which is returned, or where it belongs. Its key
    /// begins as the others do. The LSM holds all batches up to `flushed`.
    pub(super) fn insert(&mut self, row: Row, flushed: u64) -> Option<Row> {
        match self.find(row.key()) {
            Ok(at) => Some(self.replace_at(at, row, flushed)),
            Err(at) => {
                self.insert_at(at, row);
                None
            }
        }
    }

    /// The same for a row whose key may begin otherwise.
    pub(super) fn insert_any(&mut self, row: Row, flushed: u64) -> Option<Row> {
        let at = match self.find(row.key()) {
            Ok(at) => return Some(self.replace_at(at, row, flushed)),
            Err(at) => at,
        };
        let alike = self.rows.first().map(|first| alike(first.key(), row.key()));
        match alike {
            Some(alike) if alike < self.skip => {
                self.set_skip(alike);
                let at = self.find(row.key()).unwrap_or_else(|at| at);
                self.insert_at(at, row);
            }
            _ => self.insert_at(at, row),
        }
        None
    }

    fn replace_at(&mut self, at: usize, mut row: Row, flushed: u64) -> Row {
        row.follow(&self.rows[at], flushed);
        std::mem::replace(&mut self.rows[at], row)
    }

    fn insert_at(&mut self, at: usize, row: Row) {
        // Buckets are many and short: they grow by little.
        if self.rows.len() == self.rows.capacity() {
            let more = self.rows.len() / 2 + 2;
            self.prefixes.reserve_exact(more);
            self.rows.reserve_exact(more);
        }
        self.prefixes.insert(at, prefix_of(row.key(), self.skip));
        self.rows.insert(at, row);
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Row> {
        let at = self.find(key).ok()?;
        self.prefixes.remove(at);
        let row = self.rows.remove(at);
        self.shrink();
        Some(row)
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Row) -> bool) {
        let mut at = 0;
        while at < self.rows.len() {
            if stays(&self.rows[at]) {
                at += 1;
            } else {
                self.prefixes.remove(at);
                self.rows.remove(at);
            }
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.rows.len() * 4 < self.rows.capacity() {
            self.prefixes.shrink_to_fit();
            self.rows.shrink_to_fit();
        }
    }

    /// Takes out the rows from a position on.
    pub(super) fn split_off(&mut self, at: usize) -> Few {
        let prefixes = self.prefixes.split_off(at);
        let high = Few { skip: self.skip, prefixes, rows: self.rows.split_off(at) };
        self.prefixes.shrink_to_fit();
        self.rows.shrink_to_fit();
        high
    }

    /// Looks anew for what all keys begin with.
    pub(super) fn tighten(&mut self) {
        if let [first, .., last] = &self.rows[..] {
            self.set_skip(alike(first.key(), last.key()));
        }
    }

    fn set_skip(&mut self, skip: usize) {
        self.skip = skip;
        self.prefixes.clear();
        self.prefixes.extend(self.rows.iter().map(|row| prefix_of(row.key(), skip)));
    }

    /// How many rows have keys below this one, whatever it begins with.
    pub(super) fn lower(&self, key: &[u8]) -> usize {
        let Some(first) = self.rows.first() else { return 0 };
        let common = &first.key()[..self.skip];
        match key[..key.len().min(self.skip)].cmp(common) {
            Order::Less => 0,
            Order::Greater => self.rows.len(),
            Order::Equal => self.find(key).unwrap_or_else(|at| at),
        }
    }

    /// The rows with keys in `[from, to)`.
    pub(super) fn between(&self, from: &[u8], to: &[u8]) -> slice::Iter<'_, Row> {
        let first = self.lower(from);
        self.rows[first..self.lower(to).max(first)].iter()
    }
}

/// How many first bytes two keys have in common.
pub(super) fn alike(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The eight bytes of a key behind the first `skip`, zeros where it has fewer. Orders as the bytes
/// do, but for ties.
pub(super) fn prefix_of(key: &[u8], skip: usize) -> u64 {
    let known = key.get(skip..).unwrap_or_default();
    if let Some(prefix) = known.first_chunk() {
        return u64::from_be_bytes(*prefix);
    }
    let mut prefix = [0; 8];
    prefix[..known.len()].copy_from_slice(known);
    u64::from_be_bytes(prefix)
}

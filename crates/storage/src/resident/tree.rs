//! Many rows in the order of their keys: leaves of a few rows ([`Few`]) below an ordered map of
//! where each begins.
//!
//! The map's keys, separators, are no longer than it takes to tell two leaves apart and mostly lie in
//! the map itself, so a look touches little memory but the leaf's numbers and the row. A plain
//! ordered set of rows in its place follows a pointer for each comparison: with a million rows some
//! twenty waits for memory a look.
//!
//! ```text
//! separators   ""        "k4"         "k73"
//! leaves       k1 … k39  k401 … k72   k730 …          each key at or above its separator
//! ```

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::slice;

use smallvec::SmallVec;

use super::TABLE_BYTES;
use super::few::{Few, alike};
use super::row::Row;

/// A leaf with more rows is divided.
pub(super) const LEAF_ROWS_MAX: usize = 64;
/// A leaf that eviction leaves with so few rows is joined to the one before it …
const LEAF_ROWS_FEW: usize = LEAF_ROWS_MAX / 4;
/// … if both together have no more than this.
const JOINED_ROWS_MAX: usize = LEAF_ROWS_MAX / 2;

/// The start of a key, without the table that all keys begin with.
pub(super) type Separator = SmallVec<[u8; 32]>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Tree {
    leaves: BTreeMap<Separator, Few>,
}

impl Tree {
    /// The leaf where a key belongs, if there is one that begins at or before it.
    pub(super) fn leaf(&self, key: &[u8]) -> Option<(&Separator, &Few)> {
        self.leaves.range::<[u8], _>(up_to(key)).next_back()
    }

    /// Puts a row in the place of one with its key, which is returned, or where it belongs. The LSM
    /// holds all batches up to `flushed`.
    pub(super) fn insert(&mut self, row: Row, flushed: u64) -> Option<Row> {
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(up_to(row.key())).next_back() else {
            let skip = row.key().len();
            self.leaves.insert(Separator::new(), Few::of(skip, vec![row]));
            return None;
        };
        let old = leaf.insert_any(row, flushed);
        if leaf.len() > LEAF_ROWS_MAX {
            let mut high = leaf.split_off(leaf.len() / 2);
            leaf.tighten();
            high.tighten();
            let separator = separator(leaf, &high);
            self.leaves.insert(separator, high);
        }
        old
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Row> {
        let (at, leaf) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back()?;
        let row = leaf.remove(key)?;
        if leaf.is_empty() {
            let at = at.clone();
            self.leaves.remove(&at);
        }
        Some(row)
    }

    /// Takes out those rows of the leaf behind a separator (of the first, without one) that leave;
    /// the separator of that leaf, if others are behind it.
    pub(super) fn evict(
        &mut self,
        behind: Option<&[u8]>,
        mut leaves: impl FnMut(&Row) -> bool,
    ) -> Option<Separator> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.leaves.range_mut::<[u8], _>((from, Bound::Unbounded));
        let (at, leaf) = rest.next()?;
        let is_last = rest.next().is_none();
        leaf.retain(|row| !leaves(row));
        let (at, left) = (at.clone(), leaf.len());
        if left == 0 {
            self.leaves.remove(&at);
        } else if left <= LEAF_ROWS_FEW {
            self.join(&at, left);
        }
        (!is_last).then_some(at)
    }

    /// Joins a leaf to the one before it, if both fit well into one.
    fn join(&mut self, at: &Separator, rows: usize) {
        let before = (Bound::Unbounded, Bound::Excluded(&at[..]));
        let before = self.leaves.range::<[u8], _>(before).next_back();
        if before.is_some_and(|(_, before)| before.len() + rows <= JOINED_ROWS_MAX)
            && let Some(leaf) = self.leaves.remove(at)
        {
            for row in leaf.into_rows() {
                self.insert(row, 0);
            }
        }
    }

    /// Takes out the rows whose keys are not left ones; all left ones are below all others.
    pub(super) fn split_off(&mut self, is_left: &dyn Fn(&[u8]) -> bool) -> Tree {
        let row_is_left = |row: &Row| is_left(row.key());
        let ends = |leaf: &Few| {
            (leaf.rows().first().map(row_is_left), leaf.rows().last().map(row_is_left))
        };
        // Mostly one placement, or one collection, makes a tree.
        if self.leaves.last_key_value().is_none_or(|(_, leaf)| ends(leaf).1 == Some(true)) {
            return Tree::default();
        }
        if self.leaves.first_key_value().is_some_and(|(_, leaf)| ends(leaf).0 == Some(false)) {
            return std::mem::take(self);
        }
        let middle = self.leaves.iter().find(|(_, leaf)| ends(leaf).1 == Some(false));
        let middle = middle.map(|(at, _)| at.clone()).unwrap_or_default();
        let mut high = self.leaves.split_off(&middle);
        if let Some(mut divided) = high.remove(&middle) {
            let right = divided.split_off(divided.rows().partition_point(row_is_left));
            if !divided.is_empty() {
                self.leaves.insert(middle, divided);
            }
            high.insert(Separator::new(), right);
        }
        Tree { leaves: high }
    }

    /// The rows, in order, if there are no more than so many.
    pub(super) fn into_few(self, rows_max: usize) -> Result<Vec<Row>, Tree> {
        let rows = self.leaves.values().take(rows_max + 1).map(Few::len).sum::<usize>();
        if rows > rows_max {
            return Err(self);
        }
        Ok(self.leaves.into_values().flat_map(Few::into_rows).collect())
    }

    /// The rows in `[from, to)`, of which `from` has the table.
    pub(super) fn scan<'a>(&'a self, from: &'a [u8], to: &'a [u8]) -> TreeScan<'a> {
        let first = self.leaf(from).map(|(at, _)| &at[..]);
        let lower = first.map_or(Bound::Unbounded, Bound::Included);
        let upper = match to.get(..TABLE_BYTES) == from.get(..TABLE_BYTES) {
            true => Bound::Excluded(&to[TABLE_BYTES..]),
            false => Bound::Unbounded,
        };
        let leaves = self.leaves.range::<[u8], _>((lower, upper));
        TreeScan { leaves, from, to, rows: [].iter() }
    }
}

impl FromIterator<Row> for Tree {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Tree {
        let mut tree = Tree::default();
        for row in rows {
            tree.insert(row, 0);
        }
        tree
    }
}

/// Rows of a range; see [`Tree::scan`].
pub(super) struct TreeScan<'a> {
    leaves: btree_map::Range<'a, Separator, Few>,
    from: &'a [u8],
    to: &'a [u8],
    rows: slice::Iter<'a, Row>,
}

impl<'a> TreeScan<'a> {
    /// The next row; a scan goes in one direction all the time.
    pub(super) fn next(&mut self, backward: bool) -> Option<&'a Row> {
        loop {
            let next = if backward { self.rows.next_back() } else { self.rows.next() };
            if next.is_some() {
                return next;
            }
            let leaf = if backward { self.leaves.next_back() } else { self.leaves.next() };
            self.rows = leaf?.1.between(self.from, self.to);
        }
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(&key[TABLE_BYTES..]))
}

/// As short as it can be, so that it is above all of one leaf, and no higher than all of the other.
fn separator(low: &Few, high: &Few) -> Separator {
    let first = high.rows().first().map_or(&[][..], Row::key);
    let alike = low.rows().last().map_or(0, |last| alike(last.key(), first));
    let end = (alike + 1).max(TABLE_BYTES).min(first.len());
    Separator::from_slice(&first[TABLE_BYTES.min(end)..end])
}

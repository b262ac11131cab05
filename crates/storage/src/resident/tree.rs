//! Many rows in the order of their keys: leaves of a few rows ([`Few`]), found by where each begins;
//! some leaves make a branch, and branches are found likewise ([`Parts`]).
//!
//! Separators are no longer than it takes to tell two leaves apart, and of those mostly eight bytes
//! are looked at. So a look touches little memory but numbers that lie side by side, and the row. A plain
//! ordered set of rows in its place follows a pointer for each comparison: with a million rows some
//! twenty waits for memory a look. An ordered map of separators took a fifth of HGET's time there.
//!
//! ```text
//! branches     (any)                          "k9"
//! separators   (any)     "k4"      "k73"      …
//! leaves       k1 … k39  k401 …    k730 …     each key at or above its separator
//! ```

use std::slice;

use super::TABLE_BYTES;
use super::few::{Few, alike};
use super::parts::{Parts, Separator};
use super::row::Row;

/// A leaf with more rows is divided.
pub(super) const LEAF_ROWS_MAX: usize = 64;
/// A leaf that eviction leaves with so few rows is joined to the one before it in its branch …
const LEAF_ROWS_FEW: usize = LEAF_ROWS_MAX / 4;
/// … if both together have no more than this.
const JOINED_ROWS_MAX: usize = LEAF_ROWS_MAX / 2;
/// A branch with more leaves is divided.
const BRANCH_LEAVES_MAX: usize = 64;

/// Where a leaf is: the branch, and the place in it.
type Position = (usize, usize);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// None of them is empty.
    branches: Parts<Parts<Few>>,
}

impl Tree {
    /// The leaf where a key belongs, if there is any.
    pub(super) fn leaf(&self, key: &[u8]) -> Option<&Few> {
        let key = &key[TABLE_BYTES..];
        self.branches.part_of(key)?.part_of(key)
    }

    /// Puts a row in the place of one with its key, which is returned, or where it belongs. The LSM
    /// holds all batches up to `flushed`.
    pub(super) fn insert(&mut self, row: Row, flushed: u64) -> Option<Row> {
        let at = self.position(row.key());
        let Some(leaf) = self.leaf_mut(at) else {
            self.append(Few::of(row.key().len(), vec![row]));
            return None;
        };
        let old = leaf.insert_any(row, flushed);
        if leaf.len() > LEAF_ROWS_MAX {
            let mut high = leaf.split_off(leaf.len() / 2);
            leaf.tighten();
            high.tighten();
            let separator = separator(leaf, &high);
            self.insert_behind(at, separator, high);
        }
        old
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Row> {
        let at = self.position(key);
        let leaf = self.leaf_mut(at)?;
        let row = leaf.remove(key)?;
        if leaf.is_empty() {
            self.remove_leaf(at);
        }
        Some(row)
    }

    /// Takes out those rows of a leaf (of the one at a separator, or of the first) that leave; where the next
    /// leaf begins, if there is one.
    pub(super) fn evict(
        &mut self,
        from: Option<&[u8]>,
        mut leaves: impl FnMut(&Row) -> bool,
    ) -> Option<Separator> {
        let at = from.map_or((0, 0), |from| self.position_of(from));
        let next = self.behind(at).and_then(|next| self.begins(next)).cloned();
        let leaf = self.leaf_mut(at)?;
        leaf.retain(|row| !leaves(row));
        let left = leaf.len();
        if left == 0 {
            self.remove_leaf(at);
        } else if left <= LEAF_ROWS_FEW {
            self.join(at, left);
        }
        next
    }

    /// Joins a leaf to the one before it in its branch, if both fit well into one.
    fn join(&mut self, (branch, at): Position, rows: usize) {
        let before = at.checked_sub(1).and_then(|before| self.at((branch, before)));
        if before.is_some_and(|before| before.len() + rows <= JOINED_ROWS_MAX)
            && let Some(leaf) = self.remove_leaf((branch, at))
        {
            for row in leaf.into_rows() {
                self.insert(row, 0);
            }
        }
    }

    /// Takes out the rows whose keys are not left ones; all left ones are below all others.
    pub(super) fn split_off(&mut self, is_left: &dyn Fn(&[u8]) -> bool) -> Tree {
        let row_is_left = |row: &Row| is_left(row.key());
        // Mostly one placement, or one collection, makes a tree.
        let last = self.leaves().next_back().and_then(|leaf| leaf.rows().last());
        if last.is_none_or(row_is_left) {
            return Tree::default();
        }
        let first = self.leaves().next().and_then(|leaf| leaf.rows().first());
        if !first.is_some_and(row_is_left) {
            return std::mem::take(self);
        }
        let (mut low, mut high) = (Tree::default(), Tree::default());
        for mut leaf in std::mem::take(self).into_leaves() {
            let right = leaf.split_off(leaf.rows().partition_point(row_is_left));
            low.append(leaf);
            high.append(right);
        }
        *self = low;
        high
    }

    /// The rows, in order, if there are no more than so many.
    pub(super) fn into_few(self, rows_max: usize) -> Result<Vec<Row>, Tree> {
        let rows = self.leaves().take(rows_max + 1).map(Few::len).sum::<usize>();
        if rows > rows_max {
            return Err(self);
        }
        Ok(self.into_leaves().flat_map(Few::into_rows).collect())
    }

    /// The rows in `[from, to)`, of which `from` has the table.
    pub(super) fn scan<'a>(&'a self, from: &'a [u8], to: &'a [u8]) -> TreeScan<'a> {
        let last = match to.get(..TABLE_BYTES) == from.get(..TABLE_BYTES) {
            true => Some(self.position(to)),
            false => self.last(),
        };
        let leaves = last.map(|last| (self.position(from), last));
        TreeScan { tree: self, leaves, from, to, rows: [].iter() }
    }

    fn position(&self, key: &[u8]) -> Position {
        self.position_of(&key[TABLE_BYTES..])
    }

    /// The same of a key without its table.
    fn position_of(&self, key: &[u8]) -> Position {
        let branch = self.branches.position(key);
        (branch, self.branches.get(branch).map_or(0, |branch| branch.position(key)))
    }

    fn at(&self, (branch, at): Position) -> Option<&Few> {
        self.branches.get(branch)?.get(at)
    }

    fn leaf_mut(&mut self, (branch, at): Position) -> Option<&mut Few> {
        self.branches.get_mut(branch)?.get_mut(at)
    }

    fn leaves(&self) -> impl DoubleEndedIterator<Item = &Few> {
        self.branches.iter().flat_map(Parts::iter)
    }

    fn into_leaves(self) -> impl Iterator<Item = Few> {
        self.branches.into_parts().into_iter().flat_map(Parts::into_parts)
    }

    /// The leaf behind one, if there is one.
    fn behind(&self, (branch, at): Position) -> Option<Position> {
        let next = if at + 1 < self.branches.get(branch)?.len() {
            (branch, at + 1)
        } else {
            (branch + 1, 0)
        };
        self.at(next).map(|_| next)
    }

    /// The leaf before one, if there is one.
    fn before(&self, (branch, at): Position) -> Option<Position> {
        if at > 0 {
            return Some((branch, at - 1));
        }
        let branch = branch.checked_sub(1)?;
        Some((branch, self.branches.get(branch)?.len() - 1))
    }

    fn last(&self) -> Option<Position> {
        self.before((self.branches.len(), 0))
    }

    /// Where a leaf begins: the first of a branch where the branch does.
    fn begins(&self, (branch, at): Position) -> Option<&Separator> {
        if at == 0 {
            self.branches.separator(branch)
        } else {
            self.branches.get(branch)?.separator(at)
        }
    }

    /// Puts a leaf behind all others; there need not be rows in it.
    fn append(&mut self, leaf: Few) {
        if leaf.is_empty() {
            return;
        }
        match self.last() {
            None => self.branches = Parts::of(Parts::of(leaf)),
            Some(last) => {
                let separator = self.at(last).map(|last| separator(last, &leaf));
                self.insert_behind(last, separator.unwrap_or_default(), leaf);
            }
        }
    }

    fn insert_behind(&mut self, (branch, at): Position, separator: Separator, leaf: Few) {
        let Some(leaves) = self.branches.get_mut(branch) else { return };
        leaves.insert_behind(at, separator, leaf);
        if leaves.len() > BRANCH_LEAVES_MAX {
            let high = leaves.split_off(leaves.len() / 2);
            let begins = high.separator(0).cloned().unwrap_or_default();
            self.branches.insert_behind(branch, begins, high);
        }
    }

    fn remove_leaf(&mut self, (branch, at): Position) -> Option<Few> {
        let leaves = self.branches.get_mut(branch)?;
        let leaf = leaves.remove(at);
        if leaves.is_empty() {
            self.branches.remove(branch);
        }
        Some(leaf)
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
    tree: &'a Tree,
    /// The first and the last of the leaves that are still to come.
    leaves: Option<(Position, Position)>,
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
            let (first, last) = self.leaves?;
            let at = if backward { last } else { first };
            self.leaves = match backward {
                _ if first >= last => None,
                true => self.tree.before(last).map(|last| (first, last)),
                false => self.tree.behind(first).map(|first| (first, last)),
            };
            self.rows = self.tree.at(at)?.between(self.from, self.to);
        }
    }
}

/// As short as it can be, so that it is above all of one leaf, and no higher than all of the other.
fn separator(low: &Few, high: &Few) -> Separator {
    let first = high.rows().first().map_or(&[][..], Row::key);
    let alike = low.rows().last().map_or(0, |last| alike(last.key(), first));
    let end = (alike + 1).max(TABLE_BYTES).min(first.len());
    Separator::from_slice(&first[TABLE_BYTES.min(end)..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    type Model = BTreeSet<Vec<u8>>;

    /// Keys that begin alike, and differ early, late, or in how long they are.
    fn some_key(random: &mut StdRng) -> Vec<u8> {
        let mut key = b"\0\0\0\x01a collection ".to_vec();
        key.push(random.random_range(0..3));
        key.extend(random.random_range(0..20_000u32).to_be_bytes());
        key.extend(std::iter::repeat_n(0, random.random_range(0..3) * 8));
        key
    }

    fn known(tree: &Tree, (from, to): (&[u8], &[u8]), backward: bool) -> Vec<Vec<u8>> {
        let mut scan = tree.scan(from, to);
        std::iter::from_fn(|| Some(scan.next(backward)?.key().to_vec())).collect()
    }

    fn assert_holds(tree: &Tree, model: &Model, random: &mut StdRng) {
        let (mut from, mut to) = (some_key(random), some_key(random));
        if from > to {
            std::mem::swap(&mut from, &mut to);
        }
        for to in [&to[..], b"\0\0\0\x02"] {
            let mut expected: Vec<_> =
                model.range(from.clone()..).take_while(|key| key[..] < *to).cloned().collect();
            assert_eq!(known(tree, (&from, to), false), expected);
            expected.reverse();
            assert_eq!(known(tree, (&from, to), true), expected);
        }
        let leaf = tree.leaf(&from).and_then(|leaf| leaf.get(&from));
        assert_eq!(leaf.is_some(), model.contains(&from));
    }

    #[test]
    fn many_branches_are_an_ordered_set() {
        for seed in 0..3 {
            let random = &mut StdRng::seed_from_u64(seed);
            let (mut tree, mut model) = (Tree::default(), Model::new());
            for step in 0..30_000 {
                let key = some_key(random);
                let is_new = tree.insert(Row::new(&key, None, 1, None), 0).is_none();
                assert_eq!(is_new, model.insert(key), "seed {seed}");
                let key = some_key(random);
                if step % 4 == 0 {
                    assert_eq!(tree.remove(&key).is_some(), model.remove(&key));
                }
                if step % 1_000 == 0 {
                    assert_holds(&tree, &model, random);
                }
            }
            assert!(tree.branches.len() > 4, "{} branches", tree.branches.len());
            // What is divided at a key that begins a leaf, ends one, or neither.
            let middle = some_key(random);
            let high = tree.split_off(&|key| key < &middle[..]);
            let high_model = model.split_off(&middle);
            assert_holds(&high, &high_model, random);
            assert_holds(&tree, &model, random);
            // The hand passes each row once, and leaves what stays.
            for (mut tree, mut model) in [(tree, model), (high, high_model)] {
                let stays = |key: &[u8]| key[20].is_multiple_of(8);
                let (mut hand, mut steps) = (tree.evict(None, |row| !stays(row.key())), 0);
                while let Some(at) = hand {
                    hand = tree.evict(Some(&at), |row| !stays(row.key()));
                    steps += 1;
                    assert!(steps < 10_000, "the hand goes round in circles");
                }
                model.retain(|key| stays(key));
                assert_holds(&tree, &model, random);
                for key in &model {
                    assert!(tree.remove(key).is_some());
                }
                assert!(tree.branches.is_empty());
            }
        }
    }
}

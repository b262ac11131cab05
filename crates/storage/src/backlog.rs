//! The batches that a replica applied and fjall does not hold yet, in the order of the log. They are
//! kept as they came, sharing the log's bytes: a follower applies a batch by putting it here. Their
//! rows are looked at when they are flushed ([`Run`]) or when the replica comes to lead.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use commands::rows;
use wire::ids::Version;

use crate::batch::{Batch, BatchError, Effect};

/// Applied batches with their log indexes, ascending.
pub(crate) type Batches = Vec<(u64, Batch)>;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    active: Batches,
    active_bytes: u64,
    /// What a flush is writing to fjall, or could not write.
    frozen: Option<Arc<Batches>>,
    frozen_bytes: u64,
}

impl Backlog {
    pub(crate) fn push(&mut self, index: u64, batch: Batch) {
        self.active_bytes += batch.bytes();
        self.active.push((index, batch));
    }

    /// All batches, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u64, Batch)> {
        self.frozen.iter().flat_map(|frozen| frozen.iter()).chain(&self.active)
    }

    /// Freezes all batches, and tells their bytes: the active ones, and those that a flush before froze
    /// and could not write. No flush may be under way.
    pub(crate) fn freeze(&mut self) -> (Arc<Batches>, u64) {
        let active = std::mem::take(&mut self.active);
        let frozen = match self.frozen.take() {
            None => active,
            Some(left) => left.iter().cloned().chain(active).collect(),
        };
        let frozen = Arc::new(frozen);
        self.frozen = Some(Arc::clone(&frozen));
        self.frozen_bytes += std::mem::take(&mut self.active_bytes);
        (frozen, self.frozen_bytes)
    }

    /// Drops the frozen batches: fjall holds them now.
    pub(crate) fn drop_frozen(&mut self) {
        self.frozen = None;
        self.frozen_bytes = 0;
    }

    /// Drops all batches, and tells their bytes. No flush may be under way.
    pub(crate) fn clear(&mut self) -> u64 {
        std::mem::take(self).bytes()
    }

    fn bytes(&self) -> u64 {
        self.active_bytes + self.frozen_bytes
    }

    /// All batches as they are, sharing their bytes.
    pub(crate) fn share(&self) -> Vec<Arc<Batches>> {
        let active = Arc::new(self.active.clone());
        self.frozen.iter().cloned().chain([active]).collect()
    }

    pub(crate) fn has_frozen(&self) -> bool {
        self.frozen.is_some()
    }
}

/// Rows of several partitions' batches as one sorted run for fjall.
#[derive(Debug, Default)]
pub(crate) struct Run<'a> {
    lines: Vec<Line<'a>>,
}

/// A write of a row.
#[derive(Debug)]
struct Line<'a> {
    /// The first 32 bytes of the key as numbers: the sort hardly ever has to look at the key. The rows
    /// of one collection have 22 bytes in common.
    prefix: [u128; 2],
    /// Later writes have higher numbers.
    order: u32,
    row: &'a [u8],
    sealed: Option<&'a [u8]>,
}

/// A row about a replica itself: key and sealed value.
pub(crate) type MetaRow = (Bytes, Bytes);

impl<'a> Run<'a> {
    /// Adds all rows that batches of one partition write, but for those of collections that they drop.
    ///
    /// *Errors*: a batch that was malformed all along; nothing may be flushed then.
    pub(crate) fn add(
        &mut self,
        batches: &'a Batches,
        dropped: &HashSet<Version>,
    ) -> Result<(), BatchError> {
        for (_, batch) in batches {
            batch.for_each(|effect| {
                if let Effect::Write { row, sealed } = effect
                    && !is_of(row, dropped)
                {
                    self.add_row(row, sealed);
                }
            })?;
        }
        Ok(())
    }

    pub(crate) fn add_row(&mut self, row: &'a [u8], sealed: Option<&'a [u8]>) {
        let order = u32::try_from(self.lines.len()).expect("memtables are bounded far below 2^32");
        self.lines.push(Line { prefix: prefix_of(row), order, row, sealed });
    }

    /// The rows in ascending order of their keys, each with its newest value; `None`: deleted. What
    /// came to be and ceased to be within the run is left out if fjall holds nothing of it, for which
    /// `is_absent` is asked: a deletion there would hide nothing and be stepped over by every scan.
    pub(crate) fn sorted(
        mut self,
        is_absent: impl Fn(&[u8]) -> bool,
    ) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        self.lines.sort_unstable_by(|a, b| {
            let keys = a.prefix.cmp(&b.prefix).then_with(|| a.row.cmp(b.row));
            keys.then_with(|| Reverse(a.order).cmp(&Reverse(b.order)))
        });
        let mut rows = Vec::with_capacity(self.lines.len());
        for writes in self.lines.chunk_by(|one, other| one.row == other.row) {
            let (newest, oldest) = (&writes[0], &writes[writes.len() - 1]);
            let is_passing = newest.sealed.is_none() && oldest.sealed.is_some();
            if !(is_passing && is_absent(newest.row)) {
                rows.push((newest.row, newest.sealed));
            }
        }
        rows
    }
}

/// Whether a row is one of these generations'.
pub(crate) fn is_of(row: &[u8], generations: &HashSet<Version>) -> bool {
    !generations.is_empty()
        && rows::generation(row).is_some_and(|generation| generations.contains(&generation))
}

/// The generations which batches dropped.
pub(crate) fn dropped(batches: &Batches) -> Result<HashSet<Version>, BatchError> {
    let mut dropped = HashSet::new();
    for (_, batch) in batches {
        batch.for_each(|effect| {
            if let Effect::Drop(generation) = effect {
                dropped.insert(generation);
            }
        })?;
    }
    Ok(dropped)
}

/// The first 32 bytes of a row key, zeros where it has fewer. Orders as the bytes do, but for ties.
fn prefix_of(row: &[u8]) -> [u128; 2] {
    [0, 16].map(|at| {
        let part = row.get(at..).unwrap_or_default();
        let mut head = [0; 16];
        let length = part.len().min(16);
        head[..length].copy_from_slice(&part[..length]);
        u128::from_be_bytes(head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_sorted_and_the_newest_write_wins() {
        let mut run = Run::default();
        let long = b"0123456789abcdef0123456789abcdefg";
        for (row, sealed) in [
            (&b"b"[..], Some(&b"old"[..])),
            (long, Some(b"long")),
            (b"", Some(b"empty")),
            (b"b", None),
            (&long[..32], Some(b"shorter")),
            (b"a", None),
            (b"a", Some(b"new")),
            (b"b\0", Some(b"zero")),
        ] {
            run.add_row(row, sealed);
        }
        let expected: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"", Some(b"empty")),
            (&long[..32], Some(b"shorter")),
            (long, Some(b"long")),
            (b"a", Some(b"new")),
            (b"b", None),
            (b"b\0", Some(b"zero")),
        ];
        assert_eq!(run.sorted(|_| false), expected);
    }

    #[test]
    fn what_passed_within_the_run_is_left_out_if_nothing_is_below_it() {
        let below = |row: &[u8]| row == b"below";
        let run = || {
            let mut run = Run::default();
            for row in [&b"below"[..], b"new"] {
                run.add_row(row, Some(b"value"));
                run.add_row(row, None);
            }
            run.add_row(b"old", None);
            run.add_row(b"stays", None);
            run.add_row(b"stays", Some(b"value"));
            run
        };
        let expected: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"below", None), (b"old", None), (b"stays", Some(b"value"))];
        assert_eq!(run().sorted(|row| !below(row)), expected);
        assert_eq!(run().sorted(|_| false).len(), 4);
    }
}

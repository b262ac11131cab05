//! The batches that a replica applied and fjall does not hold yet, in the order of the log. They are
//! kept as they came, sharing the log's bytes: a follower applies a batch by putting it here. Their
//! rows are looked at when they are flushed ([`Run`]) or when the replica comes to lead.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
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
    /// Where those stand that are to be written. Made while the batches are read: later each row would
    /// have to be waited for again.
    places: Vec<Place>,
    /// The lines by a hash of their rows: a row that is written again has its line already. Should another
    /// row have that hash, each of its writes gets a line.
    known: HashMap<u64, u32, foldhash::fast::RandomState>,
}

/// A row and what was last written to it.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    row: &'a [u8],
    /// `None`: deleted.
    sealed: Option<&'a [u8]>,
    /// Whether it was first written a value.
    began: bool,
}

/// Where a line stands among others: small, so that sorting moves and compares little. Rows lie all over
/// memory, and are looked at only where they are alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    /// The 16 bytes of the row's key that are being compared, zeros where it has fewer.
    word: (u64, u64),
    /// How many of them it has: zeros that it has come after those that it lacks.
    length: u8,
    /// Of the line. Of lines of one row those of later writes have higher numbers.
    line: u32,
}

const WORD_BYTES: usize = 16;
/// Keys that have so many words in common are compared as they are.
const WORDS_MAX: usize = 8;

impl Place {
    fn of(row: &[u8], word: usize, line: u32) -> Place {
        let part = row.get(word * WORD_BYTES..).unwrap_or_default();
        let mut bytes = [0; WORD_BYTES];
        let length = part.len().min(WORD_BYTES);
        bytes[..length].copy_from_slice(&part[..length]);
        let number = u128::from_be_bytes(bytes);
        Place { word: ((number >> 64) as u64, number as u64), length: length as u8, line }
    }
}

/// A row about a replica itself: key and sealed value.
pub(crate) type MetaRow = (Bytes, Bytes);

impl<'a> Run<'a> {
    /// Adds all rows that batches of one partition write, but for those of collections that they drop,
    /// whose generations are returned.
    ///
    /// *Errors*: a batch that was malformed all along; nothing may be flushed then.
    pub(crate) fn add(&mut self, batches: &'a Batches) -> Result<HashSet<Version>, BatchError> {
        let (from, mut dropped) = (self.places.len(), HashSet::new());
        for (_, batch) in batches {
            batch.touch();
            batch.for_each(|effect| match effect {
                Effect::Write { row, sealed } => self.add_row(row, sealed),
                Effect::Drop(generation) => _ = dropped.insert(generation),
                _ => {}
            })?;
        }
        if !dropped.is_empty() {
            let lines = &self.lines;
            let of_these = self.places.split_off(from).into_iter();
            let stays = |place: &Place| !is_of(lines[place.line as usize].row, &dropped);
            self.places.extend(of_these.filter(stays));
            // What is left out has a line still.
            self.known.clear();
        }
        Ok(dropped)
    }

    pub(crate) fn add_row(&mut self, row: &'a [u8], sealed: Option<&'a [u8]>) {
        let next = u32::try_from(self.lines.len()).expect("backlogs are bounded far below 2^32");
        let known = *self.known.entry(self.known.hasher().hash_one(row)).or_insert(next);
        match self.lines.get_mut(known as usize) {
            // The copy that was just read, not one that was read long ago.
            Some(line) if line.row == row => (line.row, line.sealed) = (row, sealed),
            _ => {
                self.lines.push(Line { row, sealed, began: sealed.is_some() });
                self.places.push(Place::of(row, 0, next));
            }
        }
    }

    /// The rows in ascending order of their keys, each with its newest value; `None`: deleted. What
    /// came to be and ceased to be within the run is left out if fjall holds nothing of it, for which
    /// `is_absent` is asked: a deletion there would hide nothing and be stepped over by every scan.
    pub(crate) fn sorted(
        mut self,
        is_absent: impl Fn(&[u8]) -> bool,
    ) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let mut places = std::mem::take(&mut self.places);
        let mut rows = Vec::with_capacity(places.len());
        self.sort(&mut places, 0, &mut |lines| {
            let [oldest, newest] = [lines[0], lines[lines.len() - 1]];
            let Line { row, sealed, .. } = self.lines[newest.line as usize];
            let is_passing = sealed.is_none() && self.lines[oldest.line as usize].began;
            if !(is_passing && is_absent(row)) {
                rows.push((row, sealed));
            }
        });
        rows
    }

    /// Hands each row's lines to `visit`, oldest first, in the order of the rows. All have the words
    /// before this one in common.
    fn sort(&self, places: &mut [Place], word: usize, visit: &mut impl FnMut(&[Place])) {
        let row = |place: &Place| self.lines[place.line as usize].row;
        if word == WORDS_MAX {
            places.sort_by(|one, other| row(one).cmp(row(other)));
            places.chunk_by(|one, other| row(one) == row(other)).for_each(visit);
            return;
        }
        places.sort_unstable();
        let is_alike =
            |one: &Place, other: &Place| (one.word, one.length) == (other.word, other.length);
        for alike in places.chunk_by_mut(is_alike) {
            // Whoever fills the word may go on.
            if alike.len() == 1 || usize::from(alike[0].length) < WORD_BYTES {
                visit(alike);
                continue;
            }
            alike.iter_mut().for_each(|it| *it = Place::of(row(it), word + 1, it.line));
            self.sort(alike, word + 1, visit);
        }
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

    /// Keys of few different bytes and of lengths around those of words: many are alike for long, equal, or
    /// one the beginning of another.
    #[test]
    fn runs_are_sorted_like_a_map() {
        let mut random = 1_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % bound
        };
        for longest in [3, 17, 40, (WORDS_MAX as u64 + 2) * WORD_BYTES as u64] {
            let writes: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..3_000_u32)
                .map(|number| {
                    let alike = below(longest) as usize;
                    let mut key = vec![b'k'; alike];
                    key.extend((0..below(3)).map(|_| [0, b'k', 0xff][below(3) as usize]));
                    (key, (below(4) > 0).then(|| number.to_be_bytes().to_vec()))
                })
                .collect();
            let mut run = Run::default();
            let mut expected = std::collections::BTreeMap::new();
            for (row, sealed) in &writes {
                run.add_row(row, sealed.as_deref());
                expected.insert(&row[..], sealed.as_deref());
            }
            assert_eq!(run.sorted(|_| false), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_row_whose_hash_another_one_has_keeps_its_newest_write() {
        let mut run = Run::default();
        run.add_row(b"one", Some(b"1"));
        let hash = run.known.hasher().hash_one(&b"other"[..]);
        run.known.insert(hash, 0);
        for sealed in [Some(&b"old"[..]), None, Some(b"new")] {
            run.add_row(b"other", sealed);
        }
        run.add_row(b"one", None);
        run.add_row(b"one", Some(b"2"));
        assert_eq!(run.places.len(), 4);
        let expected: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"one", Some(b"2")), (b"other", Some(b"new"))];
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

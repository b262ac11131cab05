//! Deleted rows of collections, until memory can do without them.
//!
//! A deletion stays in memory to hide what the LSM holds of the row. Whoever scans steps over it, so
//! a set that is emptied and filled all day would get slower all day. It is forgotten
//!
//! - at once (applied, that is) if no batch that reaches the LSM holds a value of the row: the row
//!   came to be after the last freeze, and whatever freeze takes its beginning will take its end too;
//! - else when the flush has brought the deletion itself into the LSM.

use std::collections::VecDeque;

use super::row::Row;

/// Deletions that are looked at in one step.
const STEP: usize = 32;
/// What a grave takes beside its key, in bytes, about.
const GRAVE_BYTES: u64 = 40;

/// How far the batches of a partition have come. Log indexes, ascending.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Horizon {
    /// The LSM holds all batches up to here.
    pub(crate) flushed: u64,
    /// It does, or is being given them.
    pub(crate) frozen: u64,
    pub(crate) applied: u64,
}

#[derive(Debug)]
struct Grave {
    /// Of the batch that deletes.
    index: u64,
    key: Box<[u8]>,
}

impl Grave {
    fn bytes(&self) -> u64 {
        GRAVE_BYTES + self.key.len() as u64
    }
}

/// Deletions, each oldest first.
#[derive(Debug, Default)]
pub(super) struct Graves {
    /// Not applied, or not looked at since.
    fresh: VecDeque<Grave>,
    /// Those that hide something until they are flushed.
    waiting: VecDeque<Grave>,
}

impl Graves {
    /// Takes note of a deletion; the bytes that takes.
    pub(super) fn add(&mut self, index: u64, key: &[u8]) -> u64 {
        let grave = Grave { index, key: key.into() };
        let bytes = grave.bytes();
        self.fresh.push_back(grave);
        bytes
    }

    /// Whether some can be settled.
    pub(super) fn are_due(&self, horizon: Horizon) -> bool {
        self.fresh.front().is_some_and(|grave| grave.index <= horizon.applied)
            || self.waiting.front().is_some_and(|grave| grave.index <= horizon.flushed)
    }

    /// Tells `forget` of some deletions that are not needed any more. `find` finds rows. Returns the
    /// bytes freed here, and whether there may be more to do.
    pub(super) fn settle<R>(
        &mut self,
        rows: &mut R,
        horizon: Horizon,
        find: impl Fn(&R, &[u8]) -> Option<(u64, Option<u64>)>,
        forget: impl Fn(&mut R, &[u8]),
    ) -> (u64, bool) {
        let (mut freed, mut left) = (0, STEP);
        while left > 0
            && let Some(grave) = self.fresh.pop_front_if(|grave| grave.index <= horizon.applied)
        {
            left -= 1;
            match find(rows, &grave.key) {
                Some((index, born)) if index == grave.index => {
                    if born.is_none_or(|born| born <= horizon.frozen) && index > horizon.flushed {
                        self.waiting.push_back(grave);
                        continue;
                    }
                    forget(rows, &grave.key);
                }
                // It came back, or was deleted again, of which another grave tells.
                _ => {}
            }
            freed += grave.bytes();
        }
        while left > 0
            && let Some(grave) = self.waiting.pop_front_if(|grave| grave.index <= horizon.flushed)
        {
            left -= 1;
            freed += grave.bytes();
            if find(rows, &grave.key).is_some_and(|(index, _)| index == grave.index) {
                forget(rows, &grave.key);
            }
        }
        (freed, left == 0)
    }
}

/// What a grave asks of a row: the index of its deletion, and when it came to be.
pub(super) fn deletion(row: &Row) -> Option<(u64, Option<u64>)> {
    (!row.exists()).then(|| (row.index, row.born()))
}

//! The rows of a directory that were looked at last.
//!
//! Who changes something at a position has first asked where it is, and passed the same rows on the way
//! down; who has changed a row may have to join it. A look into memory takes longer than what is done with
//! what it finds, so those rows are looked up once. They are those of one command, or of several that
//! are run at once: nobody else changes them meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

/// Rows of a way down, and what a change touches beside it.
const WAY: usize = 16;
/// Rows that are remembered: those near the root are passed by each of several commands. Once there are so
/// many all are forgotten, since who passes more than once comes by the same few.
const ROWS_MAX: usize = 256;

/// Rows by their ids.
#[derive(Clone, Default, Debug)]
pub(super) struct Known(RefCell<HashMap<u64, Bytes, RandomState>>);

impl Known {
    pub(super) fn get(&self, id: u64) -> Option<Bytes> {
        self.0.borrow().get(&id).cloned()
    }

    pub(super) fn put(&self, id: u64, row: Bytes) {
        let mut rows = self.0.borrow_mut();
        if rows.is_empty() {
            rows.reserve(WAY);
        } else if rows.len() >= ROWS_MAX {
            rows.clear();
        }
        rows.insert(id, row);
    }

    pub(super) fn forget(&self, id: u64) {
        self.0.borrow_mut().remove(&id);
    }
}

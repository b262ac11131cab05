//! The rows of a directory that were looked at last.
//!
//! Who changes something has first asked where it is, and passed the same rows on the way down. A look
//! into memory takes longer than what is done with what it finds, so those rows are looked up once.
//! They are those of one command: nobody else changes them meanwhile.

use std::cell::RefCell;

use bytes::Bytes;

/// Rows that are remembered: a way down, and what a change touches beside it.
const ROWS_MAX: usize = 16;

/// Rows by their ids, the oldest first.
#[derive(Clone, Default, Debug)]
pub(super) struct Known(RefCell<Vec<(u64, Bytes)>>);

impl Known {
    pub(super) fn get(&self, id: u64) -> Option<Bytes> {
        self.0.borrow().iter().find(|(known, _)| *known == id).map(|(_, row)| row.clone())
    }

    pub(super) fn put(&self, id: u64, row: Bytes) {
        let mut rows = self.0.borrow_mut();
        match rows.iter_mut().find(|(known, _)| *known == id) {
            Some((_, old)) => *old = row,
            None => {
                if rows.len() == ROWS_MAX {
                    rows.remove(0);
                }
                rows.push((id, row));
            }
        }
    }

    pub(super) fn forget(&self, id: u64) {
        self.0.borrow_mut().retain(|(known, _)| *known != id);
    }
}

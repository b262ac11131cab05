//! Tables of runs that came to nothing.
//!
//! fjall forgets the files of a run that is given up, until it opens again: a snapshot that is broken off
//! would leave gigabytes. They have the numbers that were given out while the run was written, and so have
//! tables of other runs and of compactions. Which they are is certain once all that wrote then have
//! ended, and fjall keeps no version but the newest: it knows its tables, the others are strays.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use fjall::AbstractTree;
use parking_lot::Mutex;

use super::reader::free;
use super::writeback::{TABLES_FOLDER, Writeback};

pub(super) struct Strays {
    rows: fjall::Keyspace,
    /// Numbers among which there are strays.
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// Others that have such numbers may still be being written.
    fresh: Vec<Range<u64>>,
    /// All have been written, or have come to nothing.
    settled: Vec<Range<u64>>,
}

impl Strays {
    pub(super) fn new(rows: fjall::Keyspace) -> Strays {
        Strays { rows, noted: Mutex::default() }
    }

    /// A run was given up whose tables have some of these numbers.
    pub(super) fn note(&self, numbers: Range<u64>) {
        self.noted.lock().fresh.push(numbers);
    }

    /// Deletes those that are certain, until `stopping`. Called once fjall and the reader have let go of
    /// what was replaced. A reader that found a table just before has a whole round to be done with it.
    pub(super) fn remove(&self, writeback: &Writeback, stopping: &AtomicBool) {
        let settled = {
            let mut noted = self.noted.lock();
            if noted.fresh.is_empty() && noted.settled.is_empty() {
                return;
            }
            // Whoever writes later gets other numbers.
            let fresh = match writeback.is_idle() {
                true => std::mem::take(&mut noted.fresh),
                false => Vec::new(),
            };
            if self.rows.tree.version_free_list_len() > 0 {
                noted.settled.extend(fresh);
                return;
            }
            std::mem::replace(&mut noted.settled, fresh)
        };
        let version = self.rows.tree.current_version();
        let known: HashSet<u64> = version.iter_tables().map(|table| table.id()).collect();
        for number in settled.into_iter().flatten().filter(|number| !known.contains(number)) {
            let path = self.rows.path().join(TABLES_FOLDER).join(number.to_string());
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            if std::fs::remove_file(&path).is_ok() {
                free(&file, stopping);
            }
        }
    }
}

//! The thread that has tables written to the disk while they grow.
//!
//! fjall fills a table in the system's page cache and syncs it when it is whole: 64 MiB at once, for
//! which the disk takes tens of milliseconds, in which no log can sync. So while tables are being
//! made, what they have so far is sent on its way every few milliseconds, and the sync at the end
//! finds little left to do. It is a hint: durability rests on that sync.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::AbstractTree;
use parking_lot::{Condvar, Mutex};

use super::LsmError;
use crate::machine::{Writeback as How, write_back};

/// How often: at 200 MB/s it sends 1 MB on its way.
const INTERVAL: Duration = Duration::from_millis(5);
/// Tables that may be growing: one of the run that comes in, one of the compaction, and those that
/// either has just finished.
const NEWEST_TABLES: u64 = 4;
/// Where fjall keeps tables, within the folder of a keyspace, by their numbers.
pub(super) const TABLES_FOLDER: &str = "tables";

pub(super) struct Writeback {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    rows: fjall::Keyspace,
    tables: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Runs and compactions that are being written.
    writers: usize,
    stopping: bool,
}

/// Tables are being made as long as it lives.
pub(super) struct Writing<'a>(&'a Shared);

impl Writeback {
    pub(super) fn start(rows: fjall::Keyspace) -> Result<Writeback, LsmError> {
        let tables = rows.path().join(TABLES_FOLDER);
        let state = Mutex::default();
        let shared = Arc::new(Shared { rows, tables, state, changed: Condvar::new() });
        let thread = std::thread::Builder::new()
            .name("lsm-writeback".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|error| LsmError::Io {
                action: "start the writeback",
                what: error.to_string(),
            })?;
        Ok(Writeback { shared, thread: Some(thread) })
    }

    /// Says that tables are being made from now on.
    pub(super) fn writing(&self) -> Writing<'_> {
        self.shared.state.lock().writers += 1;
        self.shared.changed.notify_all();
        Writing(&self.shared)
    }

    /// Whether no table is being made.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.state.lock().writers == 0
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().writers -= 1;
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopping {
            if state.writers == 0 {
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            self.send();
            state = self.state.lock();
            self.changed.wait_for(&mut state, INTERVAL);
        }
    }

    fn send(&self) {
        let next = self.rows.tree.next_table_id();
        for id in next.saturating_sub(NEWEST_TABLES)..next {
            // A table that is not there was deleted already, or is not begun.
            if let Ok(table) = File::open(self.tables.join(id.to_string())) {
                write_back(&table, How::Begun);
            }
        }
    }
}

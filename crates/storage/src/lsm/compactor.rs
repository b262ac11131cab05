//! The thread that compacts: after each run it works until nothing is left to do.
//!
//! fjall would compact once per run, and its worker ends for good at the first damaged block. This
//! one goes on until the levels are in shape, and after an error tries again with the next run. It
//! also has what was replaced deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::AbstractTree;
use parking_lot::{Condvar, Mutex};

use super::reader::Reader;
use super::strays::Strays;
use super::writeback::Writeback;
use super::{LsmError, Options, from_fjall};

/// Target size of tables of a compaction of everything, in bytes.
const MAJOR_TABLE_BYTES: u64 = 64 << 20;

/// fjall looks for a higher watermark when so many snapshots were closed.
const SNAPSHOTS_PER_WATERMARK: usize = 10_000;
/// How often it is looked for replaced tables when no run comes in.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Compactor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the compactor works on.
pub(super) struct Files {
    pub(super) database: fjall::Database,
    pub(super) rows: fjall::Keyspace,
    pub(super) reader: Arc<Reader>,
    pub(super) writeback: Arc<Writeback>,
    pub(super) strays: Arc<Strays>,
    /// Held while a run becomes visible.
    pub(super) ingesting: Arc<Mutex<()>>,
    pub(super) damaged: Arc<AtomicBool>,
}

struct Shared {
    files: Files,
    strategy: Arc<fjall::compaction::Leveled>,
    /// Whether a run came in since the thread last looked.
    work: Mutex<bool>,
    wake: Condvar,
    /// Also makes the filter of a running compaction fail, which ends it.
    stopping: Arc<AtomicBool>,
    running: AtomicU64,
    done: AtomicU64,
    /// Sweeps asked for, and the newest of them that has ended.
    sweeps_asked: AtomicU64,
    sweeps_done: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Compactor {
    pub(super) fn start(
        files: Files,
        options: Options,
        stopping: Arc<AtomicBool>,
    ) -> Result<Compactor, LsmError> {
        let strategy = fjall::compaction::Leveled::default()
            .with_l0_threshold(options.level0_runs)
            .with_table_target_size(options.table_bytes);
        let shared = Arc::new(Shared {
            files,
            strategy: Arc::new(strategy),
            work: Mutex::new(true), // what a crash interrupted
            wake: Condvar::new(),
            stopping,
            running: AtomicU64::new(0),
            done: AtomicU64::new(0),
            sweeps_asked: AtomicU64::new(0),
            sweeps_done: AtomicU64::new(0),
            error: Mutex::new(None),
        });
        let thread = std::thread::Builder::new()
            .name("lsm-compactor".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    crate::background::yield_to_foreground();
                    shared.run();
                }
            })
            .map_err(|error| LsmError::Io {
                action: "start the compactor",
                what: error.to_string(),
            })?;
        Ok(Compactor { shared, thread: Some(thread) })
    }

    /// A run came in.
    pub(super) fn wake(&self) {
        *self.shared.work.lock() = true;
        self.shared.wake.notify_all();
    }

    pub(super) fn compact_all(&self) -> Result<(), LsmError> {
        self.shared.compact_all()
    }

    /// Has all tables rewritten by the thread. Returns the sweep's number.
    pub(super) fn begin_sweep(&self) -> u64 {
        let sweep = self.shared.sweeps_asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake();
        sweep
    }

    /// Whether a sweep has ended.
    pub(super) fn is_swept(&self, sweep: u64) -> bool {
        self.shared.sweeps_done.load(Ordering::SeqCst) >= sweep
    }

    /// Compactions running, compactions done, and why the last failed.
    pub(super) fn state(&self) -> (u64, u64, Option<String>) {
        let shared = &self.shared;
        let running = shared.running.load(Ordering::Relaxed);
        (running, shared.done.load(Ordering::Relaxed), shared.error.lock().clone())
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let woken = {
                let mut work = self.work.lock();
                if !*work {
                    self.wake.wait_for(&mut work, RELEASE_INTERVAL);
                }
                std::mem::take(&mut *work)
            };
            if woken {
                while !self.stopping.load(Ordering::SeqCst) && self.step() {}
                self.sweep();
            }
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            self.files.reader.free_orphans(&self.stopping);
            if self.forget_versions() {
                self.files.reader.let_go(&self.stopping);
                self.files.strays.remove(&self.files.writeback, &self.stopping);
            }
        }
    }

    /// Rewrites all tables, if that was asked for.
    fn sweep(&self) {
        let asked = self.sweeps_asked.load(Ordering::SeqCst);
        if asked == self.sweeps_done.load(Ordering::SeqCst) || self.stopping.load(Ordering::SeqCst)
        {
            return;
        }
        self.running.store(1, Ordering::Relaxed);
        let result = crate::containment::contained("sweep", || self.compact_all());
        self.running.store(0, Ordering::Relaxed);
        match result {
            Some(Ok(())) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.sweeps_done.store(asked, Ordering::SeqCst);
            }
            _ if self.stopping.load(Ordering::SeqCst) => {}
            Some(Err(error)) => {
                if matches!(error, LsmError::Damaged(_)) {
                    self.files.damaged.store(true, Ordering::SeqCst);
                }
                tracing::error!(%error, "rewriting all tables failed");
                *self.error.lock() = Some(error.to_string());
            }
            None => *self.error.lock() = Some("compact rows: it panicked".into()),
        }
    }

    fn compact_all(&self) -> Result<(), LsmError> {
        let _writing = self.files.writeback.writing();
        let done = self.files.rows.tree.major_compact(MAJOR_TABLE_BYTES, self.watermark());
        self.files.reader.renew();
        done.map_err(|error| from_fjall("compact all tables")(error.into()))
    }

    /// Compacts once. Whether there may be more to do.
    fn step(&self) -> bool {
        let before = self.files.rows.tree.current_version().id();
        let writing = self.files.writeback.writing();
        self.running.store(1, Ordering::Relaxed);
        let compact = || self.files.rows.tree.compact(self.strategy.clone(), self.watermark());
        let result = crate::containment::contained("compaction", compact);
        self.running.store(0, Ordering::Relaxed);
        drop(writing);
        self.files.reader.renew();
        let Some(result) = result else {
            *self.error.lock() = Some("compact rows: it panicked".into());
            return false;
        };
        match result {
            Ok(()) => {
                *self.error.lock() = None;
                let changed = self.files.rows.tree.current_version().id() != before;
                self.done.fetch_add(u64::from(changed), Ordering::Relaxed);
                changed
            }
            Err(_) if self.stopping.load(Ordering::SeqCst) => false,
            Err(error) => {
                let error = from_fjall("compact rows")(error.into());
                if matches!(error, LsmError::Damaged(_)) {
                    self.files.damaged.store(true, Ordering::SeqCst);
                }
                tracing::error!(%error, "compaction of rows failed");
                *self.error.lock() = Some(error.to_string());
                false
            }
        }
    }

    /// Has fjall let go of the tables that compactions replaced. It keeps them until its
    /// watermark has passed the compaction, and moves the watermark with the next run only: a node
    /// without writes would keep twice and more of what it stores.
    ///
    /// So the watermark is moved here: past the last compaction with a sequence number of no write,
    /// then by as many closed snapshots as make fjall look (a snapshot costs a fraction of a
    /// microsecond). If a run is becoming visible or a snapshot is open there is a next time: false.
    fn forget_versions(&self) -> bool {
        let Some(_no_run) = self.files.ingesting.try_lock() else { return false };
        let supervisor = &self.files.database.supervisor;
        let in_use = supervisor.snapshot_tracker.open_snapshots() > 0;
        if in_use {
            return false;
        }
        if self.files.rows.tree.version_free_list_len() == 0 {
            return true;
        }
        supervisor.snapshot_tracker.publish(supervisor.seqno.next());
        let before = self.watermark();
        for _ in 0..SNAPSHOTS_PER_WATERMARK {
            drop(self.files.database.snapshot());
            if self.watermark() > before {
                break;
            }
        }
        let mut history = self.files.rows.tree.get_version_history_lock();
        if let Err(error) = history.maintenance(self.files.rows.path(), self.watermark()) {
            tracing::warn!(%error, "replaced tables could not be deleted");
        }
        true
    }

    /// Superseded rows older than this are in no snapshot.
    fn watermark(&self) -> u64 {
        self.files.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc()
    }
}

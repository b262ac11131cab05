//! The sorted rows on disk. The only place that names fjall.
//!
//! One fjall keyspace holds all rows of all partitions of the node. Rows enter by bulk ingestion
//! alone ([`Lsm::ingest`]): a sorted run becomes new tables, registered atomically and durably, so
//! fjall's memtable and journal stay empty (its journal is one sparse file that is never written).
//!
//! ```text
//!  frozen backlogs --ingest--> level 0 runs --compactor thread--> levels 1..6
//!                                                  |
//!                        dead generations and headers behind a fence go here ([`DeadSet`])
//! ```
//!
//! Values come in sealed ([`crate::row`]) and are verified whenever they are read; [`Lsm::get`]
//! and [`Lsm::scan`] answer the opened body, [`Lsm::scan_sealed`] the verified value as stored,
//! for streams to a peer. fjall's own block checksums are checked where a block is read from disk;
//! ours also covers what the block cache holds.
//!
//! What is left out: a fjall directory whose manifest or table footers are damaged does not open
//! ([`LsmError::Damaged`]); such a replica is rebuilt from its peers.

mod compactor;
mod dead;
mod plain;
mod reader;
mod replace;
mod strays;
#[cfg(test)]
mod tests;
mod writeback;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use commands::rows::{self, RowKind};
use commands::{Direction, ViewError};
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{AbstractTree, CompressionType, Readable};
use parking_lot::Mutex;

pub use dead::{DeadSet, HeaderVersion};

use crate::faults::Faults;
use crate::machine::Machine;
use crate::row::{Damaged, open_row, verify_row};
use compactor::Compactor;
use plain::Plain;
use reader::{Held, Reader};
use replace::Each;
use strays::Strays;
use writeback::{TABLES_FOLDER, Writeback};

/// The longest key of a row, in bytes.
pub const ROW_KEY_BYTES_MAX: usize = u16::MAX as usize;

const KEYSPACE: &str = "rows";
/// One thread of fjall's own: it would flush and compact; its strategy has it do nothing.
const FJALL_WORKERS: usize = 1;
/// Makes the strategy that fjall's own worker follows idle: no level ever reaches its size.
const IDLE_TABLE_BYTES: u64 = 1 << 40;
const IDLE_LEVEL0_RUNS: u8 = u8::MAX;

/// How the rows are kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for blocks of tables, in bytes.
    pub cache_bytes: u64,
    /// Level 0 is merged into level 1 when it has so many runs.
    pub level0_runs: u8,
    /// Size of a table below level 0, in bytes.
    pub table_bytes: u64,
    /// Tables that are kept open for reading, each a file descriptor; at least 10.
    pub open_tables: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_bytes: 256 << 20, level0_runs: 4, table_bytes: 64 << 20, open_tables: 256 }
    }
}

/// Why rows could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LsmError {
    /// What is stored failed a checksum; it is never served.
    #[error("stored rows are damaged: {0}")]
    Damaged(String),
    /// The disk answered with an error.
    #[error("{action}: {what}")]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// What the system said.
        what: String,
    },
    /// There was no file descriptor for it: nothing has changed, and it may work later.
    #[error("{0}: the process is out of file descriptors")]
    Exhausted(&'static str),
    /// Another process has the rows open.
    #[error("the rows in {0} are in use by another process")]
    InUse(PathBuf),
    /// A run to ingest is not in ascending order of its keys.
    #[error("rows to ingest are out of order")]
    OutOfOrder,
    /// A key that no row can have: empty, or longer than [`ROW_KEY_BYTES_MAX`].
    #[error("a row key of {0} bytes")]
    BadKey(usize),
}

impl From<Damaged> for LsmError {
    fn from(damaged: Damaged) -> LsmError {
        LsmError::Damaged(damaged.to_string())
    }
}

impl From<LsmError> for ViewError {
    fn from(error: LsmError) -> ViewError {
        match error {
            LsmError::Damaged(_) => ViewError::Damaged,
            other => ViewError::Io(other.to_string()),
        }
    }
}

/// Says of an error of fjall whether the disk lies or refuses.
fn from_fjall(action: &'static str) -> impl FnOnce(fjall::Error) -> LsmError {
    move |error| {
        let what = format!("{action}: {error:?}");
        let io = match &error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
            fjall::Error::Poisoned => return LsmError::Io { action, what },
            _ => return LsmError::Damaged(what),
        };
        if crate::is_exhausted(io) {
            return LsmError::Exhausted(action);
        }
        // A file that ends too early, or holds what cannot be parsed, was changed under us.
        match io.kind() {
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::InvalidData
            | std::io::ErrorKind::InvalidInput => LsmError::Damaged(what),
            _ => LsmError::Io { action, what: io.to_string() },
        }
    }
}

/// What a scan hands to its caller: key and value of a row.
pub type Visit<'a> = dyn FnMut(Bytes, Bytes) -> ControlFlow<()> + 'a;

/// The rows on disk.
pub struct Lsm {
    engine: Engine,
    /// Held where a run becomes visible: the newer one last.
    ingesting: Arc<Mutex<()>>,
    /// Something that was read failed a checksum.
    damaged: Arc<AtomicBool>,
    faults: Arc<Faults>,
    dead: Arc<DeadSet>,
    header_version: HeaderVersion,
}

/// What keeps the rows.
enum Engine {
    Tables(Box<Tables>),
    /// In a simulation.
    Plain(Plain),
}

/// fjall and what works for it.
struct Tables {
    /// Dropped first: it ends its thread.
    compactor: Compactor,
    rows: fjall::Keyspace,
    reader: Arc<Reader>,
    writeback: Arc<Writeback>,
    strays: Arc<Strays>,
    database: fjall::Database,
}

impl std::fmt::Debug for Lsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lsm").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Lsm {
    /// Opens the rows in a directory, creating it if there is none.
    ///
    /// `dead` is what compaction drops; `header_version` reads the version out of the (opened)
    /// value of a header row, `None` if it cannot.
    pub fn open(
        dir: &Path,
        options: Options,
        dead: Arc<DeadSet>,
        header_version: HeaderVersion,
    ) -> Result<Lsm, LsmError> {
        Lsm::open_on(&Machine::default(), dir, options, dead, header_version)
    }

    /// As [`Lsm::open`], on another machine.
    pub fn open_on(
        machine: &Machine,
        dir: &Path,
        options: Options,
        dead: Arc<DeadSet>,
        header_version: HeaderVersion,
    ) -> Result<Lsm, LsmError> {
        let (ingesting, damaged) = (Arc::default(), Arc::default());
        let engine = match machine.is_simulated() {
            true => Engine::Plain(Plain::open(&machine.disk, dir)?),
            false => {
                let both = (&ingesting, &damaged);
                let tables = Tables::open(dir, options, both, (Arc::clone(&dead), header_version));
                Engine::Tables(Box::new(tables?))
            }
        };
        let faults = Arc::default();
        Ok(Lsm { engine, ingesting, damaged, faults, dead, header_version })
    }

    /// Has runs fail, or take longer, as these faults say.
    pub(crate) fn set_faults(&mut self, faults: Arc<Faults>) {
        self.faults = faults;
    }

    /// Whether something that was read, by whomever, failed a checksum: what is stored is not all
    /// there any more.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    fn note_damage(&self, what: &str) {
        if !self.damaged.swap(true, Ordering::SeqCst) {
            tracing::error!(what, "stored rows are damaged");
        }
    }

    /// Takes note of damage that an error tells of.
    fn noted<T>(&self, result: Result<T, LsmError>) -> Result<T, LsmError> {
        if let Err(LsmError::Damaged(what)) = &result {
            self.note_damage(what);
        }
        result
    }

    /// The opened body of a row, as of the last [`Lsm::ingest`] that returned. Does not wait for one
    /// that is under way.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, LsmError> {
        let value = match &self.engine {
            Engine::Tables(tables) => {
                let value = tables.reader.get(key);
                value.map_err(|error| from_fjall("read a row")(error.into())).map(from_slice)
            }
            Engine::Plain(plain) => Ok(plain.now().get(key).cloned()),
        };
        self.noted(value.and_then(|value| open_value(key, value)))
    }

    /// Whether it is known without the disk that there is no such row; false says nothing.
    pub(crate) fn lacks(&self, key: &[u8]) -> bool {
        match &self.engine {
            Engine::Tables(tables) => tables.reader.lacks(key),
            // As with tables, not all that is not there is known not to be.
            Engine::Plain(plain) => key.len().is_multiple_of(2) && !plain.now().contains_key(key),
        }
    }

    /// Visits the rows in `[from, to)`, values opened, until `visit` breaks. All of one scan is the
    /// state of one moment.
    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), LsmError> {
        if from >= to {
            return Ok(());
        }
        self.noted(self.walk((from, to), direction, true, visit))
    }

    /// As [`Lsm::scan`], with the values still sealed, yet verified.
    pub fn scan_sealed(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), LsmError> {
        if from >= to {
            return Ok(());
        }
        self.noted(self.walk((from, to), direction, false, visit))
    }

    fn walk(
        &self,
        (from, to): (&[u8], &[u8]),
        direction: Direction,
        open: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), LsmError> {
        match &self.engine {
            Engine::Tables(tables) => walk(tables.rows.range(from..to), direction, open, visit),
            Engine::Plain(plain) => plain::walk(&plain.now(), (from, to), direction, open, visit),
        }
    }

    /// The state of this moment, to be read at leisure. It keeps superseded rows on disk as long
    /// as it lives.
    pub fn snapshot(&self) -> Snapshot {
        let rows = match &self.engine {
            Engine::Tables(tables) => {
                Moment::Tables(tables.database.snapshot(), tables.rows.clone())
            }
            Engine::Plain(plain) => Moment::Plain(plain.now()),
        };
        Snapshot { rows, damaged: Arc::clone(&self.damaged) }
    }

    /// Writes a run of rows in ascending order of their keys: sealed values, `None` to delete.
    /// Visible all at once, and durable, when it returns. Returns the number of rows. Of runs that are
    /// written at the same time the one that ends last is the newer; none waits for another's rows.
    ///
    /// *Errors*: after one nothing of the run is visible.
    pub fn ingest<B: Into<fjall::Slice>>(
        &self,
        rows: impl Iterator<Item = (B, Option<B>)>,
    ) -> Result<u64, LsmError> {
        let done = self.ingest_each(rows.map(Ok::<_, std::convert::Infallible>));
        let done = done.map_err(|error| match error {
            Each::Lsm(error) => error,
            Each::Row(never) => match never {},
        });
        self.noted(done)
    }

    /// The same of rows that may turn out not to be had: then nothing of the run is visible either.
    fn ingest_each<B: Into<fjall::Slice>, E>(
        &self,
        rows: impl Iterator<Item = Result<(B, Option<B>), E>>,
    ) -> Result<u64, Each<E>> {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(0); // an empty run would leave an empty file behind
        }
        self.faults
            .disk()
            .map_err(|error| LsmError::Io { action: "begin a run", what: error.to_string() })?;
        let mut last = fjall::Slice::empty();
        let mut count = 0;
        let rows = rows.map(|row| -> Result<(fjall::Slice, Option<B>), Each<E>> {
            let (key, value) = row.map_err(Each::Row)?;
            let key: fjall::Slice = key.into();
            // fjall answers both with a panic.
            if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
                return Err(LsmError::BadKey(key.len()).into());
            }
            if key <= last {
                return Err(LsmError::OutOfOrder.into());
            }
            last = key.clone();
            count += 1;
            Ok((key, value))
        });
        let tables = match &self.engine {
            Engine::Tables(tables) => tables,
            Engine::Plain(plain) => {
                let row = |(key, value): (fjall::Slice, Option<B>)| {
                    (
                        Bytes::from(key),
                        value.map(|value| Bytes::from(Into::<fjall::Slice>::into(value))),
                    )
                };
                let run = rows.collect::<Result<Vec<_>, Each<E>>>()?;
                let _in_order = self.ingesting.lock();
                plain.ingest(run.into_iter().map(row))?;
                return Ok(count);
            }
        };
        tables.write(&self.ingesting, rows)?;
        Ok(count)
    }

    /// Removes tables that hold nothing but rows in `[from, to)`, at the cost of a manifest write.
    /// All rows in the range must be dead: tombstones may go before what they hide. What shares a
    /// table with other rows stays, for the compaction filter.
    pub fn drop_tables_within(&self, from: &[u8], to: &[u8]) -> Result<(), LsmError> {
        if from >= to {
            return Ok(());
        }
        // A plain file has its rows deleted one by one.
        let Engine::Tables(tables) = &self.engine else { return Ok(()) };
        let dropped = tables.rows.tree.drop_range(from..to);
        tables.reader.renew();
        dropped.map_err(|error| from_fjall("drop tables")(error.into()))
    }

    /// Rewrites all tables, dropping what is dead or superseded. Returns when it is done.
    pub fn compact_all(&self) -> Result<(), LsmError> {
        match &self.engine {
            Engine::Tables(tables) => tables.compactor.compact_all(),
            Engine::Plain(plain) => {
                let _in_order = self.ingesting.lock();
                plain.write(self.dead.living(self.header_version, &plain.now()))
            }
        }
    }

    /// Has all tables rewritten, without what is dead now, in the background. Tells what to ask
    /// [`Lsm::is_swept`] with.
    pub fn begin_sweep(&self) -> u64 {
        match &self.engine {
            Engine::Tables(tables) => tables.compactor.begin_sweep(),
            Engine::Plain(_) => 0,
        }
    }

    /// Whether a sweep has ended. One that failed is tried again with the next run.
    pub fn is_swept(&self, sweep: u64) -> bool {
        match &self.engine {
            Engine::Tables(tables) => tables.compactor.is_swept(sweep),
            // Only whoever runs the simulation has rows rewritten.
            Engine::Plain(_) => false,
        }
    }

    /// Runs in level 0: reads look into each, so many of them must slow writers.
    pub fn level0_runs(&self) -> usize {
        match &self.engine {
            Engine::Tables(tables) => tables.reader.shape().level0_runs,
            Engine::Plain(_) => 1,
        }
    }

    /// Those of some rows that a reader could come to: neither dead nor about replicas themselves.
    pub(crate) fn living(&self, rows: &plain::Rows) -> plain::Rows {
        let mut living = self.dead.living(self.header_version, rows);
        living.retain(|key, _| !matches!(rows::parse(key), Some(RowKind::Meta)));
        living
    }

    /// Changes a bit of a stored row, in a simulation; false if there is none.
    pub(crate) fn damage_row(&self, at: u64) -> bool {
        matches!(&self.engine, Engine::Plain(plain) if plain.damage(at))
    }

    /// What the rows take and do now.
    pub fn stats(&self) -> Stats {
        let Engine::Tables(tables) = &self.engine else { return Stats::default() };
        let (compactions_running, compactions_done, compaction_error) = tables.compactor.state();
        let shape = tables.reader.shape();
        Stats {
            level0_runs: shape.level0_runs as u64,
            tables: shape.tables as u64,
            disk_bytes: shape.disk_bytes,
            compactions_running,
            compactions_done,
            compaction_error,
            cache_bytes: tables.database.cache_size(),
            cache_bytes_max: tables.database.cache_capacity(),
        }
    }
}

impl Tables {
    fn open(
        dir: &Path,
        options: Options,
        (ingesting, damaged): (&Arc<Mutex<()>>, &Arc<AtomicBool>),
        (dead, header_version): (Arc<DeadSet>, HeaderVersion),
    ) -> Result<Tables, LsmError> {
        // fjall trusts the names it finds: those that no sync had reached when the process died, too.
        sync_dirs(dir)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let factory = dead::factory(dead, header_version, Arc::clone(&stopping));
        let held = Held::open(dir, options.open_tables);
        let database = fjall::Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(options.open_tables))
            .worker_threads(FJALL_WORKERS)
            .manual_journal_persist(true)
            .with_compaction_filter_factories(Arc::new(move |_| Some(factory.clone())))
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => LsmError::InUse(dir.to_path_buf()),
                error => from_fjall("open rows")(error),
            })?;
        let rows = database
            .keyspace(KEYSPACE, keyspace_options)
            .map_err(from_fjall("open the keyspace of rows"))?;
        // fjall syncs what it creates, but not every directory it creates it in.
        for dir in [Some(dir.join("keyspaces").as_path()), Some(dir), dir.parent()] {
            sync_dir(dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        let reader = Arc::new(Reader::new(rows.clone(), held));
        let writeback = Arc::new(Writeback::start(rows.clone())?);
        let strays = Arc::new(Strays::new(rows.clone()));
        let files = compactor::Files {
            database: database.clone(),
            rows: rows.clone(),
            reader: Arc::clone(&reader),
            writeback: Arc::clone(&writeback),
            strays: Arc::clone(&strays),
            ingesting: Arc::clone(ingesting),
            damaged: Arc::clone(damaged),
        };
        let compactor = Compactor::start(files, options, stopping)?;
        Ok(Tables { compactor, rows, reader, writeback, strays, database })
    }

    /// Writes a run, visible and durable when it returns.
    fn write<B: Into<fjall::Slice>, E>(
        &self,
        ingesting: &Mutex<()>,
        rows: impl Iterator<Item = Result<(fjall::Slice, Option<B>), Each<E>>>,
    ) -> Result<(), Each<E>> {
        let _writing = self.writeback.writing();
        let first = self.rows.tree.next_table_id();
        let mut run = self.rows.start_ingestion().map_err(from_fjall("begin a run"))?;
        for row in rows {
            let written = row.and_then(|(key, value)| {
                let written = match value {
                    Some(value) => run.write(key, value),
                    None => run.write_tombstone(key),
                };
                Ok(written.map_err(from_fjall("write a run"))?)
            });
            if written.is_err() {
                drop(run);
                self.strays.note(first..self.rows.tree.next_table_id());
                return written;
            }
        }
        // What compaction replaces is deleted under it.
        let in_order = ingesting.lock();
        // Syncs the tables, their directory, the manifest and its directory. If that fails the manifest on
        // disk may name the tables all the same: they are no strays before fjall has opened again.
        run.finish().map_err(from_fjall("finish a run"))?;
        self.reader.renew();
        drop(in_order);
        self.compactor.wake();
        Ok(())
    }
}

/// What the rows take and do.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Runs in level 0.
    pub level0_runs: u64,
    /// Table files.
    pub tables: u64,
    /// Bytes of the table files.
    pub disk_bytes: u64,
    /// Compactions running now.
    pub compactions_running: u64,
    /// Compactions that changed something.
    pub compactions_done: u64,
    /// Why the last compaction failed. It is tried again after the next run; reads and ingestion go
    /// on, but level 0 grows.
    pub compaction_error: Option<String>,
    /// Bytes in the block cache.
    pub cache_bytes: u64,
    /// Bytes that the block cache may take.
    pub cache_bytes_max: u64,
}

/// The rows at one moment.
pub struct Snapshot {
    rows: Moment,
    /// That of the LSM.
    damaged: Arc<AtomicBool>,
}

enum Moment {
    Tables(fjall::Snapshot, fjall::Keyspace),
    Plain(Arc<plain::Rows>),
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The opened body of a row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, LsmError> {
        let value = match &self.rows {
            Moment::Tables(moment, rows) => {
                from_slice(moment.get(rows, key).map_err(from_fjall("read a row"))?)
            }
            Moment::Plain(rows) => rows.get(key).cloned(),
        };
        open_value(key, value)
    }

    /// Visits the rows in `[from, to)`, values sealed, yet verified, until `visit` breaks.
    pub fn scan_sealed(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), LsmError> {
        if from >= to {
            return Ok(());
        }
        let walked = match &self.rows {
            Moment::Tables(moment, rows) => {
                walk(moment.range(rows, from..to), direction, false, visit)
            }
            Moment::Plain(rows) => plain::walk(rows, (from, to), direction, false, visit),
        };
        if matches!(walked, Err(LsmError::Damaged(_))) {
            self.damaged.store(true, Ordering::SeqCst);
        }
        walked
    }
}

fn from_slice(value: Option<fjall::Slice>) -> Option<Bytes> {
    value.map(Bytes::from)
}

fn open_value(key: &[u8], value: Option<Bytes>) -> Result<Option<Bytes>, LsmError> {
    let Some(value) = value else { return Ok(None) };
    Ok(Some(open_row(key, &value)?))
}

fn walk(
    mut rows: fjall::Iter,
    direction: Direction,
    open: bool,
    visit: &mut Visit<'_>,
) -> Result<(), LsmError> {
    let mut next = || match direction {
        Direction::Forward => rows.next(),
        Direction::Backward => rows.next_back(),
    };
    while let Some(row) = next() {
        let (key, value) = row.into_inner().map_err(from_fjall("scan rows"))?;
        let mut value = Bytes::from(value);
        let body = verify_row(&key, &value)?.len();
        if open {
            value.truncate(body);
        }
        if visit(key.into(), value).is_break() {
            break;
        }
    }
    Ok(())
}

fn keyspace_options() -> fjall::KeyspaceCreateOptions {
    use CompressionType::{Lz4, None};
    // fjall stores these when the keyspace is made and never looks at them again. Its own worker
    // is told to do nothing because it compacts once per run, which is too seldom for deep levels,
    // and for good no more after an error; ours does both (`compactor`).
    let idle = fjall::compaction::Leveled::default()
        .with_l0_threshold(IDLE_LEVEL0_RUNS)
        .with_table_target_size(IDLE_TABLE_BYTES);
    fjall::KeyspaceCreateOptions::default()
        .data_block_size_policy(BlockSizePolicy::all(4 << 10))
        // A run is written fast and read back soon; what settles below is compressed.
        .data_block_compression_policy(CompressionPolicy::new([None, None, Lz4]))
        .compaction_strategy(Arc::new(idle))
        .manual_journal_persist(true)
}

/// The folder of the table files in a folder of rows; `None` if there is none yet.
pub(crate) fn tables_folder(dir: &Path) -> Option<PathBuf> {
    let keyspaces = std::fs::read_dir(dir.join("keyspaces")).ok()?;
    let tables = keyspaces.flatten().map(|keyspace| keyspace.path().join(TABLES_FOLDER));
    // The keyspace of rows is made after fjall's own.
    tables.filter(|tables| std::fs::read_dir(tables).is_ok_and(|mut t| t.next().is_some())).max()
}

/// Makes the names in a directory and those in it durable; nothing if there is none.
fn sync_dirs(dir: &Path) -> Result<(), LsmError> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_dirs(&entry.path())?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> Result<(), LsmError> {
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| LsmError::Io {
        action: "sync the directory of rows",
        what: format!("{}: {error}", dir.display()),
    })
}

//! Point reads that never wait for fjall to write.
//!
//! fjall answers a read from its newest version, and whoever makes a new one (a run that comes in, a
//! compaction that ends) holds the lock of the versions over some five syncs of files and folders:
//! tens of milliseconds on a busy disk, in which every read of a row that is not in memory would
//! stop. So a version is held here, and renewed once the next one is there. The one held lacks at
//! most what a run that is being written brings, and that is still in memory.
//!
//! The versions before it are kept until [`Reader::let_go`]: the tables that only they know are
//! deleted then, by whoever has time, and not under a lock of fjall's. At a start fjall itself deletes
//! what a process that was killed left behind; [`Held`] keeps that from taking seconds.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fjall::AbstractTree;
use lsm_tree::table::filter::block::FilterBlock;
use lsm_tree::table::filter::standard_bloom::Builder as Bloom;
use lsm_tree::{SeqNo, Table, TreeId};
use parking_lot::{Mutex, RwLock};

use super::writeback::TABLES_FOLDER;

/// A table that nobody needs any more is cut off its end, so much at a time: a disk that is told of
/// free blocks takes 15 to 70 ms for 64 MiB at once, in which no log syncs.
const CUT_BYTES: u64 = 4 << 20;
/// Between two cuts.
const CUT_INTERVAL: Duration = Duration::from_millis(10);

/// Reads the stored value of a row.
type Read = dyn Fn(&[u8]) -> lsm_tree::Result<Option<fjall::Slice>> + Send + Sync;
/// Whether memory tells that there is no such row.
type Lacks = dyn Fn(&[u8]) -> bool + Send + Sync;

/// One version of the tables. Its type in `lsm_tree` has no public name, hence the closures.
struct Version {
    read: Box<Read>,
    lacks: Box<Lacks>,
    tables: Vec<Table>,
    shape: Shape,
}

/// What a version consists of.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) level0_runs: usize,
    pub(super) tables: usize,
    pub(super) disk_bytes: u64,
}

/// Reads rows of the version that it holds.
pub(super) struct Reader {
    rows: fjall::Keyspace,
    version: RwLock<Arc<Version>>,
    replaced: Mutex<Vec<Arc<Version>>>,
    /// Deleted tables that still take up space.
    orphans: Mutex<Vec<File>>,
}

impl Reader {
    /// A reader of the newest version. `held`: the tables that there were before fjall opened them.
    pub(super) fn new(rows: fjall::Keyspace, held: Held) -> Reader {
        let version = RwLock::new(newest(&rows));
        let orphans = held.tables.into_iter().filter(|(path, _)| !path.exists());
        let orphans = Mutex::new(orphans.map(|(_, file)| file).collect());
        Reader { rows, version, replaced: Mutex::default(), orphans }
    }

    /// Gives back the space of the tables that fjall deleted when it opened, until `stopping`.
    pub(super) fn free_orphans(&self, stopping: &AtomicBool) {
        let orphans = std::mem::take(&mut *self.orphans.lock());
        orphans.iter().for_each(|orphan| free(orphan, stopping));
    }

    /// Goes over to the newest version. Whoever made one calls this.
    pub(super) fn renew(&self) {
        let mut replaced = self.replaced.lock(); // one at a time, so that the newest stays
        let newest = newest(&self.rows);
        replaced.push(std::mem::replace(&mut *self.version.write(), newest));
    }

    /// Lets go of the versions before the one held, table by table, until `stopping`. fjall must have
    /// let go of them already if their tables are to be deleted here.
    pub(super) fn let_go(&self, stopping: &AtomicBool) {
        let (replaced, current) = {
            let mut replaced = self.replaced.lock();
            (std::mem::take(&mut *replaced), Arc::clone(&self.version.read()))
        };
        let current: HashSet<_> = current.tables.iter().map(Table::id).collect();
        let mut gone = HashMap::new();
        for version in replaced {
            let tables = version.tables.iter().filter(|table| !current.contains(&table.id()));
            gone.extend(tables.map(|table| (table.id(), table.clone())));
        }
        for (id, table) in gone {
            let path = self.rows.path().join(TABLES_FOLDER).join(id.to_string());
            let file = File::options().write(true).open(&path).ok();
            drop(table); // the last to know it, unless a read is under way
            if let Some(file) = file.filter(|_| !path.exists()) {
                free(&file, stopping);
            }
        }
    }

    /// The stored value of a row.
    pub(super) fn get(&self, key: &[u8]) -> lsm_tree::Result<Option<fjall::Slice>> {
        let version = Arc::clone(&self.version.read());
        (version.read)(key)
    }

    /// Whether the filters of all tables that could have a row, as far as they are in memory, say that
    /// none has it. Never waits for the disk; false means that only a read can tell.
    pub(super) fn lacks(&self, key: &[u8]) -> bool {
        let version = Arc::clone(&self.version.read());
        (version.lacks)(key)
    }

    pub(super) fn shape(&self) -> Shape {
        self.version.read().shape
    }
}

/// Open files of tables, held while fjall opens them: what it deletes then loses its name only, in no
/// time, and is cut off piece by piece later. A process that is killed while it compacts leaves some
/// ten tables of 64 MiB, and three nodes that delete theirs at once took 3 s.
#[derive(Default)]
pub(super) struct Held {
    tables: Vec<(PathBuf, File)>,
}

impl Held {
    /// Holds the tables in fjall's folder, at most so many.
    pub(super) fn open(dir: &Path, max: usize) -> Held {
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let keyspaces = entries(&dir.join("keyspaces"));
        let tables = keyspaces.flat_map(|keyspace| entries(&keyspace.path().join(TABLES_FOLDER)));
        // One that cannot be opened is told of by fjall, if it is needed.
        let open = |path: PathBuf| {
            let file = File::options().write(true).open(&path).ok()?;
            Some((path, file))
        };
        Held { tables: tables.filter_map(|table| open(table.path())).take(max).collect() }
    }
}

/// Gives the blocks of a deleted file back a few at a time. What is left of it goes when it is
/// closed, or with the process.
pub(super) fn free(file: &File, stopping: &AtomicBool) {
    let mut bytes = file.metadata().map_or(0, |metadata| metadata.len());
    while bytes > CUT_BYTES && !stopping.load(Ordering::SeqCst) {
        bytes -= CUT_BYTES;
        if file.set_len(bytes).is_err() {
            return;
        }
        std::thread::sleep(CUT_INTERVAL);
    }
}

fn newest(rows: &fjall::Keyspace) -> Arc<Version> {
    let version = rows.tree.current_version();
    let tables = version.iter_tables().cloned().collect();
    let shape = Shape {
        level0_runs: version.l0().run_count(),
        tables: version.table_count(),
        disk_bytes: version.iter_levels().map(|level| level.size()).sum(),
    };
    let (tree, other) = (rows.tree.id(), version.clone());
    let lacks = Box::new(move |key: &[u8]| {
        let hash = Bloom::get_hash(key);
        let runs = other.iter_levels().flat_map(|level| level.iter());
        runs.filter_map(|run| run.get_for_key(key)).all(|table| filter_denies(tree, table, hash))
    });
    let read = Box::new(move |key: &[u8]| {
        let hash = Bloom::get_hash(key);
        let runs = version.iter_levels().flat_map(|level| level.iter());
        for table in runs.filter_map(|run| run.get_for_key(key)) {
            if let Some(found) = table.get(key, SeqNo::MAX, hash)? {
                return Ok((!found.is_tombstone()).then_some(found.value));
            }
        }
        Ok(None)
    });
    Arc::new(Version { read, lacks, tables, shape })
}

/// Whether a table's filter is in memory and says that the table has no row of this hash. The filters of
/// large levels come in parts, which are not looked at.
fn filter_denies(tree: TreeId, table: &Table, hash: u64) -> bool {
    let denies = |filter: &FilterBlock| filter.maybe_contains_hash(hash).is_ok_and(|may| !may);
    if let Some(pinned) = &table.pinned_filter_block {
        return denies(pinned);
    }
    let (None, Some(filter)) = (&table.regions.filter_tli, &table.regions.filter) else {
        return false;
    };
    let block = table.cache.get_block((tree, table.id()).into(), filter.offset());
    block.is_some_and(|block| denies(&FilterBlock::new(block)))
}

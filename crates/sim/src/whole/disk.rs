//! A disk that loses what was not synced, tears what was being written, refuses, fills up, changes bits
//! and answers reads with what stands elsewhere.
//!
//! ```text
//! write ─▶ cached ── sync ─▶ durable          of a file's bytes
//! create, rename, remove ─▶ cached ── sync of the folder ─▶ durable       of names
//! the power fails: durable, and of the cached writes some, some torn by sectors; of the cached changes
//!                  of names the first so many
//! the process dies: everything cached stays
//! ```
//!
//! A disk can be told to go off after so many operations: the process on it dies at that step, and the
//! step is half done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use storage::machine::{FileSystem, Open, OpenFile};

use crate::random::Random;

/// A disk. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no sync of their folder has followed, in order.
    pending: Vec<Change>,
    next_file: u64,
    locked: BTreeSet<u64>,
    /// Handles opened before the last crash are dead.
    life: u64,
    is_off: bool,
    /// Goes off after so many operations.
    fuse: Option<u64>,
    is_full: bool,
    sync_fails: bool,
    misreads_per_mille: u64,
    sector: usize,
    misreads: u64,
    /// The segment of a log that was written last, and where.
    log_end: Option<(u64, usize)>,
}

/// Some names get others, or none, at once.
#[derive(Clone, Debug)]
struct Change {
    /// Of the process that made it.
    life: u64,
    folders: Vec<PathBuf>,
    gone: Vec<PathBuf>,
    there: Vec<(PathBuf, u64)>,
}

#[derive(Default, Debug)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    writes: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::Bytes(at, bytes) => put(to, *at, bytes),
            Write::Length(length) => to.resize(*length, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn off() -> io::Error {
    io::Error::other("the disk is off")
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Disk {
    pub(crate) fn new(seed: u64, node: usize) -> Disk {
        let mut random = Random::new(seed, &format!("disk {node}"));
        let sector = random.pick(&[512, 4096]);
        Disk(Arc::new(Mutex::new(State {
            random,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            next_file: 0,
            locked: BTreeSet::new(),
            life: 0,
            is_off: false,
            fuse: None,
            is_full: false,
            sync_fails: false,
            misreads_per_mille: 0,
            sector,
            misreads: 0,
            log_end: None,
        })))
    }

    /// Goes off after so many operations; at once after none.
    pub(crate) fn set_fuse(&self, operations: Option<u64>) {
        let mut state = self.0.lock();
        state.is_off |= operations == Some(0);
        state.fuse = operations;
    }

    /// Whether it has gone off.
    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().is_off
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// The next sync fails, and what it was to make durable is lost.
    pub(crate) fn set_sync_fails(&self, fails: bool) {
        self.0.lock().sync_fails = fails;
    }

    /// So many of a thousand reads of the log come back with what stands elsewhere.
    pub(crate) fn set_misreads(&self, per_mille: u64) {
        self.0.lock().misreads_per_mille = per_mille;
    }

    /// How many have.
    pub(crate) fn misreads(&self) -> u64 {
        self.0.lock().misreads
    }

    /// The process is dead, or the power failed: handles are dead, and the disk is on again.
    pub(crate) fn crash(&self, power_fails: bool) {
        let mut state = self.0.lock();
        state.life += 1;
        state.locked.clear();
        state.is_off = false;
        state.fuse = None;
        if power_fails {
            state.lose();
        }
    }

    /// A name as a process before this one left it, which a loss of power would take back still.
    pub(crate) fn name_to_lose(&self) -> Option<PathBuf> {
        let state = self.0.lock();
        let old = state.pending.iter().find(|change| change.life != state.life)?;
        let there = old.there.iter().map(|(path, _)| path);
        there.chain(&old.gone).next().cloned()
    }

    /// Everything is gone.
    pub(crate) fn wipe(&self) {
        let mut state = self.0.lock();
        state.files.clear();
        state.names.clear();
        state.durable_names.clear();
        state.pending.clear();
    }

    /// Changes a bit of a file whose name `is_one` of; where, if there is one. Of a log: behind the
    /// headers of the segment.
    pub(crate) fn flip(&self, is_one: impl Fn(&str) -> bool, from: usize) -> Option<String> {
        let mut state = self.0.lock();
        let State { random, files, names, .. } = &mut *state;
        let name = |path: &PathBuf| path.file_name().is_some_and(|n| is_one(&n.to_string_lossy()));
        let fits: Vec<_> = names.iter().filter(|(path, _)| name(path)).collect();
        let (path, file) = *fits.get(random.below(fits.len().max(1) as u64) as usize)?;
        let content = files.get_mut(file)?;
        let at = content.flip(from..content.cached.len(), random)?;
        Some(format!("{} at {at}", path.display()))
    }

    /// The same of the segment of a log that was written last, in front of where that was: all there was
    /// synced before.
    pub(crate) fn flip_before_end(&self, from: usize) -> Option<String> {
        let mut state = self.0.lock();
        let State { random, files, log_end, .. } = &mut *state;
        let (file, end) = (*log_end)?;
        let at = files.get_mut(&file)?.flip(from..end, random)?;
        Some(format!("the newest segment at {at} of {end}"))
    }
}

impl Content {
    /// Changes a bit of a byte in a range that is not zero; where.
    fn flip(&mut self, range: Range<usize>, random: &mut Random) -> Option<usize> {
        let used: Vec<_> =
            range.filter(|at| self.cached.get(*at).is_some_and(|b| *b != 0)).collect();
        let at = *used.get(random.below(used.len().max(1) as u64) as usize)?;
        let bit = 1 << random.below(8);
        self.cached[at] ^= bit;
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= bit;
        }
        Some(at)
    }
}

impl State {
    /// Counts an operation. True if the disk goes off in the midst of it.
    fn step(&mut self) -> io::Result<bool> {
        if self.is_off {
            return Err(off());
        }
        let Some(left) = &mut self.fuse else { return Ok(false) };
        *left = left.saturating_sub(1);
        self.is_off = *left == 0;
        Ok(self.is_off)
    }

    /// An operation that is done or not done when the disk goes off.
    fn whole_step(&mut self) -> io::Result<()> {
        let was_off = self.is_off;
        if self.step()? && !was_off && self.random.chance(500) {
            return Err(off());
        }
        Ok(())
    }

    /// What the caller is told of an operation that was done.
    fn told(&self) -> io::Result<()> {
        if self.is_off { Err(off()) } else { Ok(()) }
    }

    fn change(&mut self, folders: Vec<PathBuf>, gone: Vec<PathBuf>, there: Vec<(PathBuf, u64)>) {
        let change = Change { life: self.life, folders, gone, there };
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn lose(&mut self) {
        let survive = self.random.below(self.pending.len() as u64 + 1) as usize;
        for change in self.pending.drain(..).take(survive) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        let living: BTreeSet<_> = self.names.values().copied().collect();
        self.files.retain(|file, _| living.contains(file));
        for content in self.files.values_mut() {
            for write in content.writes.drain(..) {
                match (self.random.below(3), write) {
                    (0, _) => {}
                    (1, Write::Bytes(at, bytes)) => {
                        // Each sector for itself.
                        for (number, part) in bytes.chunks(self.sector).enumerate() {
                            if self.random.chance(500) {
                                put(&mut content.durable, at + number * self.sector, part);
                            }
                        }
                    }
                    (_, write) => write.apply(&mut content.durable),
                }
            }
            content.cached = content.durable.clone();
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        for path in &self.gone {
            names.remove(path);
        }
        names.extend(self.there.iter().cloned());
    }
}

impl FileSystem for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn OpenFile>> {
        let mut state = self.0.lock();
        let state = &mut *state;
        if state.is_off {
            return Err(off());
        }
        let known = state.names.get(path).copied();
        let file = match (known, how) {
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            (Some(file), Open::Truncate) => {
                state.whole_step()?;
                if let Some(content) = state.files.get_mut(&file) {
                    content.cached.clear();
                    content.writes.push(Write::Length(0));
                }
                file
            }
            (Some(file), _) => file,
            (None, Open::Create | Open::Truncate) => {
                if state.is_full {
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
                state.whole_step()?;
                let file = state.next_file;
                state.next_file += 1;
                state.files.insert(file, Content::default());
                state.change(vec![parent(path)], Vec::new(), vec![(path.to_owned(), file)]);
                file
            }
        };
        state.told()?;
        let (disk, life) = (self.clone(), state.life);
        Ok(Arc::new(Handle { disk, file, life, path: path.to_owned() }))
    }

    fn create_folders(&self, _: &Path) -> io::Result<()> {
        self.0.lock().told()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock();
        state.told()?;
        Ok(state.names.keys().filter(|path| parent(path) == folder).cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().names.keys().any(|name| name.starts_with(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.whole_step()?;
        let moved: Vec<_> = state.names.iter().filter(|(path, _)| path.starts_with(from)).collect();
        let there: Vec<_> = moved
            .iter()
            .filter_map(|(path, file)| {
                let rest = path.strip_prefix(from).ok()?;
                let to = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                Some((to, **file))
            })
            .collect();
        let gone = moved.into_iter().map(|(path, _)| path.clone()).collect();
        if there.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Of a folder that is renamed its own name changes, not those in it.
        state.change(vec![parent(from), parent(to)], gone, there);
        state.told()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if !state.names.contains_key(path) {
            state.told()?;
            return Err(io::ErrorKind::NotFound.into());
        }
        state.whole_step()?;
        state.change(vec![parent(path)], vec![path.to_owned()], Vec::new());
        state.told()
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.whole_step()?;
        let gone = state.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        state.change(vec![parent(path)], gone, Vec::new());
        state.told()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.whole_step()?;
        let state = &mut *state;
        let (done, left) = state
            .pending
            .drain(..)
            .partition(|change| change.folders.iter().any(|folder| folder == path));
        let done: Vec<Change> = done;
        state.pending = left;
        done.iter().for_each(|change| change.apply(&mut state.durable_names));
        state.told()
    }
}

/// "No space left on device".
const ENOSPC: i32 = 28;
/// "Input/output error".
const EIO: i32 = 5;

#[derive(Debug)]
struct Handle {
    disk: Disk,
    file: u64,
    life: u64,
    path: PathBuf,
}

impl Handle {
    /// Whether it is a segment of a log.
    fn is_log(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "seg")
    }

    fn with<R>(
        &self,
        act: impl FnOnce(&mut State, &mut Content) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = self.disk.0.lock();
        if state.life != self.life || state.is_off {
            return Err(off());
        }
        // An unlinked file lives on as long as it is open.
        let mut content = state.files.remove(&self.file).unwrap_or_default();
        let result = act(&mut state, &mut content);
        state.files.insert(self.file, content);
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.life == self.life {
            state.locked.remove(&self.file);
        }
    }
}

impl OpenFile for Handle {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|state, content| {
            let mut from = at as usize;
            let is_log = self.is_log();
            let mut other = None;
            if is_log && state.random.chance(state.misreads_per_mille) {
                state.misreads += 1;
                match state.random.below(3) {
                    0 => from += state.sector,
                    1 => from = from.saturating_sub(state.sector),
                    // What stood there before, or was to be written elsewhere.
                    _ => other = state.files.values().max_by_key(|other| other.cached.len()),
                }
            }
            let source = other.map_or(&content.cached, |other| &other.cached);
            let source = source.get(from..).unwrap_or_default();
            let length = source.len().min(bytes.len());
            bytes[..length].copy_from_slice(&source[..length]);
            Ok(length)
        })
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.with(|state, content| {
            let at = at as usize;
            if state.is_full && at + bytes.len() > content.cached.len() {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            let cut = state.step()?;
            let length = match cut {
                true => state.random.below(bytes.len() as u64 + 1) as usize,
                false => bytes.len(),
            };
            put(&mut content.cached, at, &bytes[..length]);
            if self.is_log() {
                state.log_end = Some((self.file, at));
            }
            content.writes.push(Write::Bytes(at, bytes[..length].to_vec()));
            state.told()
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|_, content| Ok(content.cached.len() as u64))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|state, content| {
            if state.is_full && length as usize > content.cached.len() {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            state.whole_step()?;
            content.cached.resize(length as usize, 0);
            content.writes.push(Write::Length(length as usize));
            state.told()
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, content| {
            state.whole_step()?;
            if std::mem::take(&mut state.sync_fails) {
                // The pages count as clean now, and are not written again.
                content.writes.clear();
                return Err(io::Error::from_raw_os_error(EIO));
            }
            for write in content.writes.drain(..) {
                write.apply(&mut content.durable);
            }
            state.told()
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.with(|state, _| Ok(state.locked.insert(self.file)))
    }
}

#[cfg(test)]
mod tests {
    use storage::machine::{self, Machine};
    use storage::{Assignment, NodeOptions, Stepped, Surroundings, wal};
    use wire::ids::{NodeId, PartitionId, TableId, Zone};
    use wire::peer::LocalTransport;
    use wire::placement::PlacementRange;

    use super::*;

    fn open(disk: &Disk, path: &str, how: Open) -> Arc<dyn OpenFile> {
        disk.open(Path::new(path), how).expect("opened")
    }

    fn read(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path), Open::Read).ok()?;
        let mut bytes = vec![0; file.length().expect("a length") as usize];
        file.read_at(&mut bytes, 0).expect("read");
        Some(bytes)
    }

    #[test]
    fn what_is_synced_stays_and_nothing_else_must() {
        let (mut lost, mut torn) = (0, 0);
        for seed in 0..200 {
            let disk = Disk::new(seed, 0);
            let file = open(&disk, "a/file", Open::Create);
            file.write_all_at(&[1; 10_000], 0).expect("written");
            file.sync().expect("synced");
            disk.sync_folder(Path::new("a")).expect("synced");
            file.write_all_at(&[2; 10_000], 0).expect("written");
            open(&disk, "a/other", Open::Create);
            disk.crash(true);
            assert!(file.write_all_at(b"x", 0).is_err(), "the handle is dead");
            let bytes = read(&disk, "a/file").expect("its name is durable");
            assert_eq!(bytes.len(), 10_000);
            lost += u32::from(bytes.iter().all(|byte| *byte == 1));
            torn += u32::from(bytes.contains(&1) && bytes.contains(&2));
        }
        assert!(lost > 20 && torn > 20, "{lost} lost, {torn} torn");
    }

    #[test]
    fn a_dead_process_loses_nothing_and_its_lock_is_free() {
        let disk = Disk::new(1, 0);
        let file = open(&disk, "lock", Open::Create);
        assert!(file.try_lock().expect("locks work"));
        assert!(!open(&disk, "lock", Open::Write).try_lock().expect("locks work"));
        file.write_all_at(b"cached", 0).expect("written");
        disk.crash(false);
        assert_eq!(read(&disk, "lock").as_deref(), Some(&b"cached"[..]));
        assert!(open(&disk, "lock", Open::Write).try_lock().expect("locks work"));
    }

    #[test]
    fn a_renamed_file_that_was_not_synced_may_be_empty() {
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            let disk = Disk::new(seed, 0);
            let old = open(&disk, "name", Open::Create);
            old.write_all_at(b"old", 0).expect("written");
            old.sync().expect("synced");
            disk.sync_folder(Path::new("")).expect("synced");
            open(&disk, "new", Open::Create).write_all_at(b"new", 0).expect("written");
            disk.rename(Path::new("new"), Path::new("name")).expect("renamed");
            disk.crash(true);
            kinds.insert(read(&disk, "name"));
        }
        let kinds: Vec<_> = kinds.into_iter().flatten().collect();
        assert_eq!(kinds, [&b""[..], b"new", b"old"]);
    }

    #[test]
    fn a_name_that_the_process_before_left_unsynced_is_known() {
        let disk = Disk::new(2, 0);
        open(&disk, "a/b/file", Open::Create);
        disk.sync_folder(Path::new("a/b")).expect("synced");
        disk.rename(Path::new("a/b"), Path::new("a/c")).expect("renamed");
        assert_eq!(disk.name_to_lose(), None, "it is this process's own");
        disk.crash(false);
        assert_eq!(disk.name_to_lose().as_deref(), Some(Path::new("a/c/file")));
        disk.sync_folder(Path::new("a/c")).expect("synced");
        assert!(disk.name_to_lose().is_some(), "the name of the folder is not in it");
        disk.sync_folder(Path::new("a")).expect("synced");
        assert_eq!(disk.name_to_lose(), None);
        disk.crash(true);
        assert!(read(&disk, "a/c/file").is_some());
    }

    #[test]
    fn what_a_failed_sync_lost_is_there_until_the_power_fails() {
        let disk = Disk::new(4, 0);
        let file = open(&disk, "file", Open::Create);
        disk.sync_folder(Path::new("")).expect("synced");
        file.write_all_at(b"lost", 0).expect("written");
        disk.set_sync_fails(true);
        assert!(file.sync().is_err());
        disk.crash(false);
        assert_eq!(read(&disk, "file").as_deref(), Some(&b"lost"[..]));
        let file = open(&disk, "file", Open::Write);
        file.sync().expect("there is nothing to write");
        disk.crash(true);
        assert_eq!(read(&disk, "file").as_deref(), Some(&b""[..]));
        // Unless it was written once more.
        open(&disk, "file", Open::Write).write_all_at(b"kept", 0).expect("written");
        open(&disk, "file", Open::Write).sync().expect("synced");
        disk.crash(true);
        assert_eq!(read(&disk, "file").as_deref(), Some(&b"kept"[..]));
    }

    fn machine(disk: &Disk) -> Machine {
        Machine { disk: machine::Disk::Other(Arc::new(disk.clone())), ..Machine::default() }
    }

    #[test]
    fn a_log_whose_sync_failed_is_written_again_before_it_is_trusted() {
        let disk = Disk::new(5, 0);
        let open = || {
            let options = wal::Options { segment_bytes: 32 << 10, recycle_segments: 1 };
            wal::open_on(&machine(&disk), Path::new("log"), options, &|_| 0).expect("opened")
        };
        let accept = |index| wal::Record::Accept { group: 1, index, ballot: 1, value: Some(b"v") };
        let (mut writer, _, _) = open();
        writer.append(accept(1)).expect("there is room");
        writer.sync().expect("synced");
        writer.append(accept(2)).expect("there is room");
        disk.set_sync_fails(true);
        assert!(writer.sync().is_err());
        disk.crash(false);
        drop(writer);
        let indexes = |recovered: &wal::Recovered| -> Vec<u64> {
            recovered.groups[&1].entries.iter().map(|entry| entry.index).collect()
        };
        let (writer, _, recovered) = open();
        assert_eq!(indexes(&recovered), [1, 2], "the system remembers it");
        disk.crash(true);
        drop(writer);
        let (_writer, _, recovered) = open();
        assert_eq!(indexes(&recovered), [1, 2], "whoever was told of it may rely on it");
    }

    #[test]
    fn what_a_start_finds_by_its_name_is_durable() {
        let mut found = 0;
        for operations in 1..60 {
            let disk = Disk::new(operations, 0);
            let open = || {
                let log = wal::Options { segment_bytes: 32 << 10, recycle_segments: 1 };
                let machine = machine(&disk);
                let options = NodeOptions { machine, log, ..NodeOptions::default() };
                let surroundings = Surroundings {
                    transport: Arc::<LocalTransport>::default(),
                    publish: Arc::new(|_| {}),
                    faults: Arc::default(),
                };
                let (id, zone, range) =
                    (NodeId(1), Zone("a".into()), PlacementRange::whole(TableId(0)));
                let assignment = Assignment { partition: PartitionId(1), range, members: vec![id] };
                Stepped::open(id, zone, Path::new("node"), options, &[assignment], surroundings)
            };
            disk.set_fuse(Some(operations));
            drop(open());
            disk.crash(false);
            found += u32::from(disk.name_to_lose().is_some());
            drop(open().expect("opened"));
            assert_eq!(disk.name_to_lose(), None, "after {operations} operations");
        }
        assert!(found > 5, "{found}");
    }

    #[test]
    fn it_goes_off_at_the_step_that_was_told() {
        let disk = Disk::new(3, 0);
        let file = open(&disk, "file", Open::Create);
        disk.set_fuse(Some(3));
        assert!(file.write_all_at(b"one", 0).is_ok() && file.sync().is_ok());
        assert!(!disk.is_off());
        assert!(file.write_all_at(b"two", 3).is_err() && disk.is_off());
        assert!(file.sync().is_err() && disk.open(Path::new("file"), Open::Read).is_err());
        disk.crash(false);
        assert!(read(&disk, "file").is_some_and(|bytes| bytes.starts_with(b"one")));
    }
}

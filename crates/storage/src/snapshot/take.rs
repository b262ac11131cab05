//! The side that lacks the rows: fetches chunk after chunk, then has fjall take them in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::ids::{NodeId, PartitionId, Version};

use super::spool::{Spool, SpoolError};
use super::{Head, is_within, row_ranges};
use crate::background;
use crate::core::Install;
use crate::driver::Shared;
use crate::identity::node_of;
use crate::lsm::LsmError;
use crate::message::{Ask, Chunk, Message};
use crate::meta::{self, Applied};
use crate::partition::Partition;
use crate::requests::Requests;

/// A chunk that has not come by now is asked for again.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the other members are told that a snapshot is being fetched.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How soon rows are taken in again for which there was no file descriptor.
const EXHAUSTED_RETRY: Duration = Duration::from_millis(50);
/// So often in a row; then consensus is told, and finds another source or the same again.
const TRIES_MAX: u32 = 5;

/// Why rows were not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// What was fetched cannot be read back.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The rows here cannot be read, or new ones not be written.
    #[error(transparent)]
    Lsm(#[from] LsmError),
}

impl TakeError {
    /// Whether there was no file descriptor for it: nothing has changed, and it may work later.
    fn is_exhausted(&self) -> bool {
        match self {
            TakeError::Spool(SpoolError::Io(error)) => crate::is_exhausted(error),
            TakeError::Lsm(LsmError::Exhausted(_)) => true,
            TakeError::Spool(SpoolError::Damaged) | TakeError::Lsm(_) => false,
        }
    }
}

/// Snapshots on their way to this node, each to another partition.
#[derive(Default)]
pub(crate) struct Takes {
    fetches: BTreeMap<PartitionId, Fetch>,
}

struct Fetch {
    partition: Arc<Partition>,
    install: Install,
    spool: Option<Spool>,
    /// When the next chunk is to be asked for, again or for the first time; of a snapshot that is whole:
    /// when it is to be taken in.
    ask_at: Instant,
    tries: u32,
    /// Members that were told which snapshot this is, and when they are told again.
    told: BTreeMap<paxos::NodeId, Instant>,
    /// The log says that it waits for a file descriptor.
    is_told: bool,
}

/// Where a snapshot for a replica is spooled.
pub(crate) fn spool_path(shared: &Shared, partition: &Partition) -> PathBuf {
    let name = format!("{}-{}", partition.id, partition.identity.0);
    shared.dir.join("incoming").join(name)
}

impl Takes {
    /// Begins to fetch a snapshot, or goes on with what a life before fetched.
    pub(crate) fn begin(&mut self, shared: &Shared, partition: Arc<Partition>, install: Install) {
        let disk = &shared.options.machine.disk;
        let spool = Spool::open(disk, &spool_path(shared, &partition)).filter(|spool| {
            let reaches = |head: &Head| head.applied.index >= install.at_least;
            spool.source == install.from && spool.head.as_ref().is_some_and(reaches)
        });
        partition.set_installing(true);
        let (node, from, at_least) = (shared.id.0, install.from.0, install.at_least);
        tracing::info!(node, partition = partition.id.0, from, at_least, "fetches a snapshot");
        let id = partition.id;
        let now = shared.clock.instant();
        let fetch = Fetch {
            partition,
            install,
            spool,
            ask_at: now,
            tries: 0,
            told: BTreeMap::new(),
            is_told: false,
        };
        self.fetches.insert(id, fetch);
    }

    /// Stops fetching for a replica that goes.
    pub(crate) fn forget(&mut self, shared: &Shared, partition: &Partition) {
        // Replicas of several partitions on one node may have the same identity.
        let goes = |id: &PartitionId, fetch: &Fetch| {
            *id == partition.id && fetch.partition.identity == partition.identity
        };
        self.fetches.retain(|id, fetch| !goes(id, fetch));
        let _ = shared.options.machine.disk.remove_file(&spool_path(shared, partition));
    }

    /// Asks for what is due, gives up what was asked for too often, and takes in what had to wait.
    pub(crate) fn tick(&mut self, shared: &Shared) -> Result<(), TakeError> {
        let now = shared.clock.instant();
        let (mut failed, mut whole) = (Vec::new(), Vec::new());
        for (id, fetch) in &mut self.fetches {
            fetch.tell_members(shared, now);
            if fetch.ask_at > now {
                continue;
            }
            if fetch.spool.as_ref().is_some_and(|spool| spool.is_whole) {
                whole.push(*id);
                continue;
            }
            if fetch.tries >= TRIES_MAX {
                failed.push(*id);
                continue;
            }
            fetch.tries += 1;
            fetch.ask_at = now + ASK_TIMEOUT;
            fetch.ask(shared);
        }
        for id in failed {
            self.fail(shared, id, "no answer");
        }
        whole.into_iter().try_for_each(|id| self.take_in(shared, id))
    }

    /// When [`Takes::tick`] next has something to do, at most so far off.
    pub(crate) fn next_due(&self, now: Instant, at_most: Duration) -> Duration {
        let due = |fetch: &Fetch| fetch.ask_at.saturating_duration_since(now);
        self.fetches.values().map(due).fold(at_most, Duration::min)
    }

    fn fail(&mut self, shared: &Shared, id: PartitionId, why: &str) {
        let Some(fetch) = self.fetches.remove(&id) else { return };
        let (node, from) = (shared.id.0, fetch.install.from.0);
        tracing::info!(node, partition = id.0, from, why, "a snapshot was not fetched");
        fetch.partition.set_installing(false);
        shared.with(&fetch.partition, |core, _| core.replica.install_failed());
    }

    /// The source has no such snapshot any more.
    pub(crate) fn refused(
        &mut self,
        shared: &Shared,
        (from, id): (NodeId, PartitionId),
        session: u64,
    ) {
        let fetch = self.fetches.get_mut(&id);
        let Some(fetch) = fetch.filter(|fetch| node_of(fetch.install.from) == from) else { return };
        match fetch.spool.take_if(|spool| spool.session == session) {
            // From the beginning.
            Some(spool) => {
                spool.remove();
                fetch.ask_at = shared.clock.instant();
            }
            None if session == 0 => self.fail(shared, id, "refused"),
            None => {}
        }
    }

    /// A chunk came. Takes the rows in when it was the last.
    pub(crate) fn chunk(
        &mut self,
        shared: &Shared,
        (from, id): (NodeId, PartitionId),
        chunk: &Chunk,
    ) -> Result<(), TakeError> {
        let fetch = self.fetches.get_mut(&id);
        let Some(fetch) = fetch.filter(|fetch| node_of(fetch.install.from) == from) else {
            return Ok(());
        };
        if fetch.partition.identity != chunk.identity {
            return Ok(());
        }
        match fetch.expects(shared, chunk) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // As if it had been lost.
            Err(error) if error.is_exhausted() => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some(spool) = &mut fetch.spool else { return Ok(()) };
        match spool.push(chunk) {
            Ok(()) => {}
            // As if it had been lost.
            Err(SpoolError::Damaged) => {
                let (node, partition) = (shared.id.0, id.0);
                tracing::warn!(node, partition, "a damaged part of a snapshot is asked for again");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let bytes = chunk.bytes.len() as u64;
        shared.counts.snapshot_bytes.fetch_add(bytes, Ordering::Relaxed);
        fetch.tries = 0;
        if !spool.is_whole {
            let pause = bytes as f64 / shared.options.snapshot_rate.max(1) as f64;
            fetch.ask_at = shared.clock.instant() + Duration::from_secs_f64(pause);
            return Ok(());
        }
        self.take_in(shared, id)
    }

    /// Takes in what was fetched, all of it; tries again later if there is no file descriptor for it.
    fn take_in(&mut self, shared: &Shared, id: PartitionId) -> Result<(), TakeError> {
        let Some(mut fetch) = self.fetches.remove(&id) else { return Ok(()) };
        let Some(spool) = fetch.spool.take() else { return Ok(()) };
        let (node, partition) = (shared.id.0, id.0);
        let took = install(shared, &fetch.partition, &spool);
        if let Err(error) = &took
            && error.is_exhausted()
        {
            if !std::mem::replace(&mut fetch.is_told, true) {
                tracing::warn!(node, partition, %error, "a snapshot waits to be taken in");
            }
            fetch.spool = Some(spool);
            fetch.ask_at = shared.clock.instant() + EXHAUSTED_RETRY;
            self.fetches.insert(id, fetch);
            return Ok(());
        }
        fetch.partition.set_installing(false);
        spool.remove();
        if took.is_err() {
            shared.with(&fetch.partition, |core, _| core.replica.install_failed());
        }
        match took {
            Err(TakeError::Spool(SpoolError::Damaged)) => {
                tracing::warn!(
                    node,
                    partition,
                    "a spooled snapshot is damaged: it is fetched again"
                );
                Ok(())
            }
            took => took,
        }
    }
}

impl Fetch {
    fn ask(&self, shared: &Shared) {
        let spool = self.spool.as_ref();
        let ask = Ask {
            identity: self.partition.identity,
            at_least: self.install.at_least,
            session: spool.map_or(0, |spool| spool.session),
            number: spool.map_or(0, |spool| spool.next),
            after: spool.map_or(Bytes::new(), |spool| spool.last_row.clone()),
        };
        shared.tell(node_of(self.install.from), self.partition.id, &Message::Ask(ask));
    }

    /// Has the log behind the snapshot kept by whoever leads. All who could are told: a leader that
    /// learned of it from a follower that has to find out first who leads would have let the log go by
    /// then.
    fn tell_members(&mut self, shared: &Shared, now: Instant) {
        let head = self.spool.as_ref().and_then(|spool| spool.head.as_ref());
        let head = head.filter(|_| !mutant!(FetchUntold));
        let Some(index) = head.map(|head| head.applied.index) else {
            // Of the next one all are told.
            self.told.clear();
            return;
        };
        let identity = self.partition.identity;
        let members = self.partition.look().replica.config().all();
        for member in members.into_iter().filter(|member| *member != identity) {
            if self.told.get(&member).is_some_and(|again| now < *again) {
                continue;
            }
            self.told.insert(member, now + TELL_EVERY);
            let fetches = Message::Fetches { identity, index };
            shared.tell(node_of(member), self.partition.id, &fetches);
        }
    }

    /// Whether the chunk is the next one; begins a spool for the first.
    fn expects(&mut self, shared: &Shared, chunk: &Chunk) -> Result<bool, TakeError> {
        match &self.spool {
            Some(spool) => Ok(spool.session == chunk.session && spool.next == chunk.number),
            None if chunk.number == 0 => {
                let path = spool_path(shared, &self.partition);
                let disk = &shared.options.machine.disk;
                let spool = Spool::create(disk, &path, self.install.from, chunk.session);
                self.spool = Some(spool.map_err(SpoolError::from)?);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// Has fjall take a whole spool in, in place of the partition's rows, and the replica go on from there.
/// Flushes of the node's other partitions go on meanwhile, however much there is to take in.
fn install(shared: &Shared, partition: &Arc<Partition>, spool: &Spool) -> Result<(), TakeError> {
    let Some(Head { applied, requests, config }) = spool.head.clone() else { return Ok(()) };
    let started = shared.clock.instant();
    {
        // What is being flushed is older than the snapshot, and must not come after it.
        let _no_flush = shared.flushing.lock();
        if partition.look().flushed_index() >= applied.index {
            // What came through the log meanwhile is newer, and on disk already.
            let now = shared.now();
            shared.with(partition, |core, _| core.installed((applied, requests), config, now));
            return Ok(());
        }
        partition.set_replacing(true);
    }
    let replaced = replace(shared, partition, spool, (&applied, &requests, &config));
    let _no_flush = shared.flushing.lock();
    partition.set_replacing(false);
    let (rows, generations) = replaced?;
    shared.dead.clear(partition.range);
    if let Some(fence) = applied.flushed_through {
        shared.dead.set_fence(partition.range, fence);
    }
    shared.dead.add_generations(partition.range, generations);
    let (now, index) = (shared.now(), applied.index);
    let dropped =
        shared.with(partition, |core, _| core.installed((applied, requests), config, now));
    shared.memory_bytes.fetch_sub(dropped, Ordering::Relaxed);
    shared.counts.snapshots_installed.fetch_add(1, Ordering::Relaxed);
    let took = shared.clock.instant() - started;
    let (node, bytes) = (shared.id.0, spool.bytes());
    let partition = partition.id.0;
    tracing::info!(node, partition, index, rows, bytes, ?took, "snapshot installed");
    Ok(())
}

/// Puts the rows of a spool in the place of a partition's. Returns how many there are, and which
/// generations they say are dead.
fn replace(
    shared: &Shared,
    partition: &Partition,
    spool: &Spool,
    (applied, requests, config): (&Applied, &Requests, &paxos::Config),
) -> Result<(u64, Vec<Version>), TakeError> {
    let mut generations = Vec::new();
    let rows = spool.rows().map_err(SpoolError::from)?;
    let rows = rows.map(|row| {
        if let Ok((row, _)) = &row
            && let Some(generation) = meta::generation_of(partition.id, row)
        {
            generations.push(generation);
        }
        row.map_err(TakeError::from)
    });
    let rows = background::run(|| {
        let says = [
            meta::applied_row(partition.id, applied),
            meta::members_row(partition.id, config),
            meta::requests_row(partition.id, requests),
        ];
        let ranges = row_ranges(partition.id, partition.range);
        let keeps = |row: &[u8]| !is_within(partition.range, row);
        shared.lsm.replace(&ranges, &keeps, rows, &says.map(|(row, sealed)| (row, Some(sealed))))
    })?;
    Ok((rows, generations))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use bytes::BytesMut;
    use commands::rows;
    use wire::ids::TableId;

    use super::super::put_head;
    use super::*;
    use crate::alone::Alone;
    use crate::machine::{Disk, FileSystem, Open, OpenFile};
    use crate::node::NodeOptions;

    /// One file, which may be opened unless there are no descriptors.
    #[derive(Debug)]
    struct Descriptors {
        file: std::fs::File,
        are_out: AtomicBool,
    }

    /// The file, opened.
    #[derive(Debug)]
    struct Opened(std::fs::File);

    impl FileSystem for Descriptors {
        fn open(&self, _: &Path, _: Open) -> io::Result<Arc<dyn OpenFile>> {
            match self.are_out.load(Ordering::Relaxed) {
                true => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                false => Ok(Arc::new(Opened(self.file.try_clone()?))),
            }
        }

        fn create_folders(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
            Ok(Vec::new())
        }

        fn exists(&self, _: &Path) -> bool {
            true
        }

        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn remove_file(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn remove_folder(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }

        fn sync_folder(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    impl OpenFile for Opened {
        fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
            self.0.read_at(bytes, at)
        }

        fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            self.0.write_all_at(bytes, at)
        }

        fn length(&self) -> io::Result<u64> {
            Ok(self.0.metadata()?.len())
        }

        fn set_length(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync_all()
        }

        fn try_lock(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    /// A snapshot without rows, whole.
    fn spool_at(disk: &Disk, alone: &Alone, index: u64) -> Spool {
        let (shared, partition) = (alone.shared(), alone.partition());
        let applied = Applied { index, ..Applied::default() };
        let config = partition.look().replica.config().clone();
        let mut bytes = BytesMut::new();
        let requests = Default::default();
        put_head(&mut bytes, &Head { applied, requests, config });
        let (bytes, identity) = (bytes.freeze(), partition.identity);
        let crc = crc32c::crc32c(&bytes);
        let chunk = Chunk { identity, session: 1, number: 0, last: true, crc, bytes };
        let path = spool_path(shared, &partition);
        let mut spool = Spool::create(disk, &path, identity, 1).expect("a spool");
        spool.push(&chunk).expect("a chunk");
        spool
    }

    #[test]
    fn a_snapshot_waits_for_descriptors() {
        let alone = Alone::open(NodeOptions::default());
        alone.run(&["SET", "k", "v"]).expect("it leads");
        let (shared, partition) = (alone.shared(), alone.partition());
        let index = partition.look().applied().index;
        assert!(partition.look().flushed_index() < index);
        let file = tempfile::tempfile().expect("a file");
        let descriptors = Arc::new(Descriptors { file, are_out: AtomicBool::new(false) });
        let spool = spool_at(&Disk::Other(descriptors.clone()), &alone, index);
        let (mut takes, now) = (Takes::default(), shared.clock.instant());
        let install = Install { from: partition.identity, at_least: index };
        let (id, told) = (partition.id, BTreeMap::new());
        let spool = Some(spool);
        let fetch =
            Fetch { partition, install, spool, ask_at: now, tries: 0, told, is_told: false };
        takes.fetches.insert(id, fetch);
        let installed = || shared.counts.snapshots_installed.load(Ordering::Relaxed);
        descriptors.are_out.store(true, Ordering::Relaxed);
        takes.tick(shared).expect("it is no reason to stop");
        assert!(takes.fetches.contains_key(&id) && installed() == 0);
        descriptors.are_out.store(false, Ordering::Relaxed);
        alone.until("it is taken in", || {
            takes.tick(shared).expect("nothing is wrong with it");
            takes.fetches.is_empty()
        });
        assert_eq!(installed(), 1);
    }

    #[test]
    fn a_snapshot_older_than_the_rows_changes_nothing() {
        let alone = Alone::open(NodeOptions::default());
        alone.run(&["SET", "k", "v"]).expect("it leads");
        alone.node.flush().expect("a flush");
        let (shared, partition) = (alone.shared(), alone.partition());
        let flushed = partition.look().flushed_index();
        let row = rows::header_key(TableId(0), b"k");
        let before = shared.lsm.get(&row).expect("it can be read");
        assert!(before.is_some() && flushed > 1);
        let applied_row = || {
            let row = shared.lsm.get(&meta::applied_key(partition.id)).expect("it can be read");
            meta::decode_applied(row.expect("it is there")).expect("an applied row").index
        };
        // As it was before the key was written, and as it is now.
        for index in [flushed - 1, flushed] {
            let spool = spool_at(&Disk::System, &alone, index);
            install(shared, &partition, &spool).expect("nothing is wrong with it");
            assert_eq!(shared.lsm.get(&row).expect("it can be read"), before);
            assert_eq!(applied_row(), flushed);
        }
    }
}

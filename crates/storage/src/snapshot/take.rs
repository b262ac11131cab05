//! The side that lacks the rows: fetches chunk after chunk, and has fjall given what there is
//! ([`super::taking`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::ids::{NodeId, PartitionId};

use super::Head;
use super::spool::{Spool, SpoolError};
use super::taking::{TakeError, Taking};
use crate::core::Install;
use crate::driver::Shared;
use crate::identity::node_of;
use crate::message::{Ask, Chunk, Message};
use crate::partition::Partition;
use crate::stepped::Fetched;

/// A chunk that has not come by now is asked for again.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the other members are told that a snapshot is being fetched.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How soon rows are taken in again for which there was no file descriptor.
const EXHAUSTED_RETRY: Duration = Duration::from_millis(50);
/// So often in a row; then consensus is told, and finds another source or the same again.
const TRIES_MAX: u32 = 5;

/// Snapshots on their way to this node, each to another partition.
#[derive(Default)]
pub(crate) struct Takes {
    fetches: BTreeMap<PartitionId, Fetch>,
}

struct Fetch {
    partition: Arc<Partition>,
    install: Install,
    spool: Option<Spool>,
    /// What is there of it is taken in.
    taking: Option<Arc<Taking>>,
    /// When that is to begin, at the earliest.
    take_at: Instant,
    /// When the next chunk is to be asked for, again or for the first time.
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
        if let Some(old) = self.fetches.insert(id, Fetch::new(shared, partition, install, spool)) {
            old.end(shared);
        }
    }

    /// Stops fetching for a replica that goes.
    pub(crate) fn forget(&mut self, shared: &Shared, partition: &Partition) {
        // Replicas of several partitions on one node may have the same identity.
        let goes = |id: &PartitionId, fetch: &Fetch| {
            *id == partition.id && fetch.partition.identity == partition.identity
        };
        for (_, fetch) in self.fetches.extract_if(.., |id, fetch| goes(id, fetch)) {
            fetch.end(shared);
        }
        let _ = shared.options.machine.disk.remove_file(&spool_path(shared, partition));
    }

    /// Asks for what is due, gives up what was asked for too often, and has taken in what there is.
    pub(crate) fn tick(&mut self, shared: &Shared) -> Result<(), TakeError> {
        let now = shared.clock.instant();
        let (mut failed, mut needless, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for (id, fetch) in &mut self.fetches {
            fetch.tell_members(shared, now);
            if let Some(outcome) = fetch.outcome() {
                ended.push((*id, outcome));
                continue;
            }
            if fetch.is_needless() && !fetch.is_ending() {
                // Asked again: that it is needless may be its own doing, by now at its end.
                match fetch.outcome() {
                    Some(outcome) => ended.push((*id, outcome)),
                    None => needless.push(*id),
                }
                continue;
            }
            fetch.take_in(shared, now);
            if fetch.is_whole() || fetch.ask_at > now {
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
        for id in needless {
            let spool = self.fetches.get_mut(&id).and_then(|fetch| fetch.give_up(shared));
            spool.into_iter().for_each(Spool::remove);
            self.fail(shared, id, "what it lacked came through the log");
        }
        // Each is told of once, whatever came of the others.
        let took = ended.into_iter().map(|(id, outcome)| self.took(shared, id, outcome));
        took.fold(Ok(()), Result::and)
    }

    /// When [`Takes::tick`] next has something to do, at most so far off.
    pub(crate) fn next_due(&self, now: Instant, at_most: Duration) -> Duration {
        let due = |fetch: &Fetch| fetch.next_due().map(|due| due.saturating_duration_since(now));
        self.fetches.values().filter_map(due).fold(at_most, Duration::min)
    }

    /// What is being fetched, as far as its first part has come.
    pub(crate) fn known(&self) -> impl Iterator<Item = Fetched> {
        self.fetches.iter().filter_map(|(id, fetch)| {
            let head = fetch.spool.as_ref()?.head.as_ref()?;
            let (taker, giver) = (fetch.partition.identity.0, fetch.install.from.0);
            Some(Fetched { partition: *id, taker, giver, index: head.applied.index })
        })
    }

    fn fail(&mut self, shared: &Shared, id: PartitionId, why: &str) {
        let Some(fetch) = self.fetches.remove(&id) else { return };
        let (node, from) = (shared.id.0, fetch.install.from.0);
        tracing::info!(node, partition = id.0, from, why, "a snapshot was not fetched");
        let partition = Arc::clone(&fetch.partition);
        fetch.end(shared);
        partition.set_installing(false);
        shared.with(&partition, |core, _| core.replica.install_failed());
    }

    /// The source has no such snapshot any more.
    pub(crate) fn refused(
        &mut self,
        shared: &Shared,
        (from, id): (NodeId, PartitionId),
        session: u64,
    ) {
        let fetch = self.fetches.get_mut(&id);
        let is_asked =
            |fetch: &&mut Fetch| node_of(fetch.install.from) == from && !fetch.is_whole();
        let Some(fetch) = fetch.filter(is_asked) else { return };
        if fetch.spool.as_ref().is_some_and(|spool| spool.session == session) {
            // From the beginning.
            fetch.give_up(shared).into_iter().for_each(Spool::remove);
            fetch.ask_at = shared.clock.instant();
        } else if session == 0 {
            self.fail(shared, id, "refused");
        }
    }

    /// A chunk came.
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
        let now = shared.clock.instant();
        let pause = bytes as f64 / shared.options.snapshot_rate.max(1) as f64;
        fetch.ask_at = now + Duration::from_secs_f64(pause);
        fetch.take_in(shared, now);
        Ok(())
    }

    /// Rows were taken in, all of them, or not; tries again later if there is no file descriptor for it.
    fn took(
        &mut self,
        shared: &Shared,
        id: PartitionId,
        outcome: Result<(), TakeError>,
    ) -> Result<(), TakeError> {
        let Some(fetch) = self.fetches.get_mut(&id) else { return Ok(()) };
        let (node, partition) = (shared.id.0, id.0);
        if let Err(error) = &outcome
            && error.is_exhausted()
        {
            if !std::mem::replace(&mut fetch.is_told, true) {
                tracing::warn!(node, partition, %error, "a snapshot waits to be taken in");
            }
            fetch.taking = None;
            fetch.take_at = shared.clock.instant() + EXHAUSTED_RETRY;
            return Ok(());
        }
        fetch.partition.set_installing(false);
        fetch.spool.take().into_iter().for_each(Spool::remove);
        if outcome.is_err() {
            shared.with(&fetch.partition, |core, _| core.replica.install_failed());
        }
        self.fetches.remove(&id);
        match outcome {
            Err(TakeError::Spool(SpoolError::BrokenOff)) => Ok(()),
            Err(TakeError::Spool(SpoolError::Damaged)) => {
                tracing::warn!(
                    node,
                    partition,
                    "a spooled snapshot is damaged: it is fetched again"
                );
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl Fetch {
    fn new(
        shared: &Shared,
        partition: Arc<Partition>,
        install: Install,
        spool: Option<Spool>,
    ) -> Fetch {
        let now = shared.clock.instant();
        let (told, tries, is_told) = (BTreeMap::new(), 0, false);
        let (taking, take_at, ask_at) = (None, now, now);
        Fetch { partition, install, spool, taking, take_at, ask_at, tries, told, is_told }
    }

    fn is_whole(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.is_whole)
    }

    /// Has what there is taken in, unless that is being done.
    fn take_in(&mut self, shared: &Shared, now: Instant) {
        if let Some(spool) = &self.spool
            && self.taking.is_none()
            && self.take_at <= now
        {
            self.taking = Taking::order(shared, &self.partition, spool);
        }
    }

    /// What came of that, once it has ended.
    fn outcome(&self) -> Option<Result<(), TakeError>> {
        self.taking.as_ref()?.outcome()
    }

    /// Whether the log brought everything that the snapshot has.
    fn is_needless(&self) -> bool {
        let head = self.spool.as_ref().and_then(|spool| spool.head.as_ref());
        head.is_some_and(|head| self.partition.look().applied().index >= head.applied.index)
    }

    /// Whether rows are being written: then the outcome is near, or breaking it off brings it.
    fn is_ending(&self) -> bool {
        let taking = self.taking.as_ref().filter(|taking| taking.is_worked_on());
        taking.inspect(|taking| taking.break_off()).is_some()
    }

    /// When there is something to do.
    fn next_due(&self) -> Option<Instant> {
        let ask_at = (!self.is_whole()).then_some(self.ask_at);
        let take_at = (self.spool.is_some() && self.taking.is_none()).then_some(self.take_at);
        [ask_at, take_at].into_iter().flatten().min()
    }

    /// Takes nothing of it in any more; what there is of it is the caller's.
    fn give_up(&mut self, shared: &Shared) -> Option<Spool> {
        self.taking.take().inspect(|taking| taking.end(shared));
        self.spool.take()
    }

    /// Ends it, and leaves what there is of it for later.
    fn end(mut self, shared: &Shared) {
        drop(self.give_up(shared));
    }

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

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::super::taking::tests::{INDEX, chunk, spool};
    use super::*;
    use crate::alone::Alone;
    use crate::machine::{Disk, FileSystem, Open, OpenFile};
    use crate::meta::Applied;
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

    #[test]
    fn a_snapshot_waits_for_descriptors() {
        let alone = Alone::unheard(NodeOptions::default());
        let (shared, partition) = (alone.shared(), alone.partition());
        let file = tempfile::tempfile().expect("a file");
        let descriptors = Arc::new(Descriptors { file, are_out: AtomicBool::new(false) });
        let mut spool = spool(&Disk::Other(descriptors.clone()), &alone);
        spool.push(&chunk(&alone, 0, &["a"], true)).expect("a chunk");
        let (mut takes, id) = (Takes::default(), partition.id);
        let install = Install { from: partition.identity, at_least: INDEX };
        takes.fetches.insert(id, Fetch::new(shared, partition, install, Some(spool)));
        let installed = || shared.counts.snapshots_installed.load(Ordering::Relaxed);
        descriptors.are_out.store(true, Ordering::Relaxed);
        alone.until("it cannot be taken in", || {
            takes.tick(shared).expect("it is no reason to stop");
            takes.fetches[&id].is_told
        });
        assert_eq!(installed(), 0);
        descriptors.are_out.store(false, Ordering::Relaxed);
        alone.until("it is taken in", || {
            takes.tick(shared).expect("nothing is wrong with it");
            takes.fetches.is_empty()
        });
        assert_eq!(installed(), 1);
    }

    #[test]
    fn a_snapshot_that_the_log_overtakes_is_of_no_use() {
        let alone = Alone::unheard(NodeOptions::default());
        let (shared, partition) = (alone.shared(), alone.partition());
        let mut spool = spool(&Disk::System, &alone);
        spool.push(&chunk(&alone, 0, &["a"], false)).expect("a chunk");
        let (mut takes, path) = (Takes::default(), spool_path(shared, &partition));
        let install = Install { from: partition.identity, at_least: INDEX };
        let fetch = Fetch::new(shared, Arc::clone(&partition), install, Some(spool));
        takes.fetches.insert(partition.id, fetch);
        alone.until("rows are written", || {
            takes.tick(shared).expect("nothing is wrong with it");
            partition.is_replacing()
        });
        let now = shared.now();
        let config = partition.look().replica.config().clone();
        let applied = Applied { index: INDEX, ..Applied::default() };
        shared
            .with(&partition, |core, _| core.installed((applied, Default::default()), config, now));
        alone.until("it is broken off", || {
            takes.tick(shared).expect("it is no reason to stop");
            takes.fetches.is_empty()
        });
        assert!(!partition.is_replacing() && !path.exists());
        assert_eq!(shared.counts.snapshots_installed.load(Ordering::Relaxed), 0);
    }
}

//! A storage node: its replicas, its log, its LSM and its threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use commands::table;
use parking_lot::{Condvar, Mutex, RwLock};
use wire::ids::{NodeId, PartitionId, Zone};
use wire::peer::{Frame, FrameHandler, Transport};
use wire::placement::PlacementRange;
use wire::service::{Answer, BoxFuture, Call, Gate, GateOutcome, NodeStatus, ReplicaStatus};

use crate::core::{Core, Evaluated, Start};
use crate::disk::Disk;
use crate::driver::{self, Publish, Shared, Work};
use crate::lsm::{self, DeadSet, Lsm, RowCache};
use crate::meta::{self, Applied};
use crate::partition::{Clock, Partition};
use crate::view::{Cold, Fetched};
use crate::wal;

/// Evaluations of one command that may each find one cold row before the next one reads the disk
/// under the partition's lock.
const COLD_ROUNDS_MAX: usize = 4;
/// How long a writer waits when the memtables are far over their budget.
const MEMORY_DELAY: Duration = Duration::from_millis(2);
/// Memtables may hold this many times their budget before writers wait.
const MEMORY_OVERRUN: u64 = 4;

/// How a storage node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Bytes of effects in memory before they are flushed to fjall. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Bytes of rows read from fjall and kept in memory. Default 64 MiB.
    pub row_cache_bytes: u64,
    /// The log's settings.
    pub log: wal::Options,
    /// The LSM's settings.
    pub lsm: lsm::Options,
    /// The consensus settings.
    pub paxos: paxos::Options,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions {
            memtable_bytes: 64 << 20,
            row_cache_bytes: 64 << 20,
            log: wal::Options::default(),
            lsm: lsm::Options::default(),
            paxos: paxos::Options::default(),
        }
    }
}

/// A partition that a node holds a replica of.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The partition.
    pub partition: PartitionId,
    /// Its range.
    pub range: PlacementRange,
    /// All its storage replicas, ascending.
    pub members: Vec<NodeId>,
}

/// Why a node could not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be used.
    #[error("data folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log could not be opened.
    #[error("open log")]
    Log(#[from] wal::WalError),
    /// The LSM could not be opened or read.
    #[error("open LSM")]
    Lsm(#[from] lsm::LsmError),
    /// The log lost entries that this node had promised to keep.
    #[error("the log is damaged: {entries} known entries are lost")]
    Damaged {
        /// Entries known to be lost.
        entries: usize,
    },
    /// A row about a replica has another shape than this build knows.
    #[error("replica {0}: applied row malformed")]
    Meta(PartitionId),
}

/// A running storage node. Dropping it stops it as a crash would: nothing is flushed, everything
/// acknowledged is in its log.
pub struct Node {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a node needs from the process it runs in.
pub struct Surroundings {
    /// Carries frames to peers.
    pub transport: Arc<dyn Transport>,
    /// Is told the routes of partitions this node leads.
    pub publish: Publish,
}

impl Node {
    /// Opens a node's folder, recovers its replicas and starts its threads. The caller connects
    /// [`Node::frame_handler`] to the transport before or after; frames lost in between are sent
    /// again by the protocol.
    ///
    /// *Errors*: a folder, log or LSM that cannot be opened. Nothing is changed then.
    pub fn open(
        id: NodeId,
        zone: Zone,
        dir: &Path,
        options: NodeOptions,
        assignments: &[Assignment],
        surroundings: Surroundings,
    ) -> Result<Node, OpenError> {
        std::fs::create_dir_all(dir)
            .map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
        let dead = Arc::new(DeadSet::default());
        let lsm = Lsm::open(
            &dir.join("lsm"),
            options.lsm,
            Arc::clone(&dead),
            commands::types::header::version_of,
        )?;
        let cache = RowCache::new(options.row_cache_bytes);
        let mut applied = BTreeMap::new();
        for assignment in assignments {
            applied.insert(assignment.partition.0, recover_applied(&lsm, &dead, assignment)?);
        }
        let through = |group: u64| applied.get(&group).map_or(0, |applied: &Applied| applied.index);
        let (writer, log, recovered) = wal::open(&dir.join("log"), options.log, &through)?;
        refuse_damage(&recovered)?;
        let clock = Clock::new();
        let mut groups = recovered.groups;
        let incarnation = crate::incarnation();
        let mut partitions = BTreeMap::new();
        for assignment in assignments {
            let applied = applied[&assignment.partition.0];
            let group = groups.remove(&assignment.partition.0).unwrap_or_default();
            let replica = recover_replica(id, assignment, &options, applied, group, clock);
            let start = Start {
                partition: assignment.partition,
                range: assignment.range,
                node: id,
                members: assignment.members.clone(),
                replica,
                applied,
                incarnation,
                dead: Arc::clone(&dead),
            };
            let core = Core::new(start);
            let partition = Partition::new(assignment.partition, assignment.range, core);
            partitions.insert(assignment.partition, Arc::new(partition));
        }
        let shared = Arc::new(Shared {
            id,
            zone,
            options,
            clock,
            partitions: RwLock::new(partitions),
            disk: Disk { lsm, cache },
            log,
            transport: surroundings.transport,
            publish: surroundings.publish,
            memory_bytes: AtomicU64::new(0),
            pressure_us: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            work: Mutex::new(Work::default()),
            work_ready: Condvar::new(),
            flush_due: Mutex::new(false),
            flush_ready: Condvar::new(),
        });
        let threads = start_threads(&shared, writer, dir)?;
        Ok(Node { shared, threads })
    }

    /// What handles the frames of this node's peers. Holds the node weakly: once the node is
    /// dropped, frames for it are dropped too.
    pub fn frame_handler(&self) -> Arc<dyn FrameHandler> {
        Arc::new(Receiver(Arc::downgrade(&self.shared)))
    }

    /// Has this node stand for the leadership of its partitions where no leader is known: at the
    /// first boot, when waiting for a suspicion to grow would only cost time.
    pub fn campaign(&self, partition: PartitionId) {
        let found = self.shared.partitions.read().get(&partition).cloned();
        if let Some(partition) = found {
            let now = self.shared.clock.monotonic();
            self.shared.with(&partition, |core, _| core.replica.campaign(now));
        }
    }

    /// Whether nothing was ever promised in this partition: a first boot.
    pub fn is_blank(&self, partition: PartitionId) -> bool {
        let found = self.shared.partitions.read().get(&partition).cloned();
        found.is_some_and(|partition| {
            partition.core.lock().replica.status().promised == paxos::Ballot::ZERO
        })
    }

    /// False once the node stopped by itself (a failed disk) or was asked to stop.
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping()
    }

    /// Evaluates a command; see [`wire::service::StorageService::call`].
    pub fn call(&self, call: Call<'_>) -> Answer {
        let shared = &*self.shared;
        if shared.is_stopping() {
            return Answer::NotHere(None);
        }
        let entry = table::entry(call.command);
        let found = shared.partitions.read().get(&call.partition).cloned();
        let Some(partition) = found else { return Answer::NotHere(None) };
        let overrun = shared.options.memtable_bytes.saturating_mul(MEMORY_OVERRUN);
        if matches!(entry.command.run, commands::Run::Write(_))
            && shared.memory_bytes.load(Ordering::Relaxed) > overrun
        {
            return Answer::Busy(MEMORY_DELAY);
        }
        let mut fetched = Fetched::default();
        for round in 0.. {
            let mut core = partition.core.lock();
            if core.flush_epoch() != fetched.epoch {
                fetched = Fetched { epoch: core.flush_epoch(), rows: Vec::new() };
            }
            let now = shared.clock.now();
            let may_block = round >= COLD_ROUNDS_MAX;
            let evaluated = core.evaluate(entry, &call, now, &shared.disk, (&fetched, may_block));
            match evaluated {
                Evaluated::Answer(Answer::Done { gate: None, .. })
                    if !core.serves(shared.clock.monotonic()) =>
                {
                    return Answer::NotYet;
                }
                Evaluated::Answer(answer) => return answer,
                Evaluated::Cold(Cold::Scan) => {
                    let now = shared.clock.now();
                    match core.evaluate(entry, &call, now, &shared.disk, (&fetched, true)) {
                        Evaluated::Answer(answer) => return answer,
                        Evaluated::Cold(_) => unreachable!("a view that may block is never cold"),
                    }
                }
                Evaluated::Cold(Cold::Row(row)) => {
                    drop(core);
                    // An error shows again, as the command's own, once the view may block.
                    if let Ok(value) = shared.disk.get(&row) {
                        fetched.rows.push((row, value));
                    }
                }
            }
        }
        unreachable!("a view that may block is never cold")
    }

    /// Waits for a gate; see [`wire::service::StorageService::wait`].
    pub fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        let found = self.shared.partitions.read().get(&gate.partition).cloned();
        let Some(partition) = found else {
            return Box::pin(std::future::ready(GateOutcome::Unknown));
        };
        let (waiting, open) = {
            let mut core = partition.core.lock();
            (core.wait(gate), core.has_open_batch())
        };
        if open {
            // The connection has evaluated all it had: time to propose.
            self.shared.kick(&partition);
        }
        match waiting {
            Ok(outcome) => Box::pin(std::future::ready(outcome)),
            Err(receiver) => {
                let held_back =
                    Duration::from_micros(self.shared.pressure_us.load(Ordering::Relaxed));
                Box::pin(async move {
                    let outcome = tokio::time::timeout(timeout, receiver).await;
                    if !held_back.is_zero() {
                        tokio::time::sleep(held_back).await;
                    }
                    match outcome {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) | Err(_) => GateOutcome::Unknown,
                    }
                })
            }
        }
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let shared = &*self.shared;
        let partitions: Vec<_> = shared.partitions.read().values().cloned().collect();
        let (lsm, log) = (shared.disk.lsm.stats(), shared.log.stats());
        NodeStatus {
            node: shared.id,
            zone: shared.zone.clone(),
            running: self.is_running(),
            memtable_bytes: shared.memory_bytes.load(Ordering::Relaxed),
            wal_bytes: log.segment_bytes,
            wal_syncs: log.syncs,
            wal_entries: log.entries,
            lsm_bytes: lsm.disk_bytes,
            frozen_memtables: shared.frozen_memtables(),
            level0_runs: lsm.level0_runs,
            replicas: partitions.iter().map(|partition| replica_status(partition)).collect(),
        }
    }

    /// Asks the node's threads to end. They have when the node is dropped.
    pub fn request_stop(&self) {
        self.shared.stop();
    }

    /// Writes the memtables to fjall now.
    pub fn flush(&self) -> Result<(), lsm::LsmError> {
        driver::flush(&self.shared)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has said so on stderr already.
            let _ = thread.join();
        }
        // A peer's thread may be handing over a frame; once it is done nothing holds the folder.
        while Arc::strong_count(&self.shared) > 1 {
            std::thread::yield_now();
        }
    }
}

struct Receiver(std::sync::Weak<Shared>);

impl FrameHandler for Receiver {
    fn handle(&self, _from: NodeId, frame: Frame) {
        if let Some(shared) = self.0.upgrade() {
            shared.receive(&frame);
        }
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    log: wal::Writer,
    dir: &Path,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let spawn = |name: &str, run: Box<dyn FnOnce(&Shared) + Send>| {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name(format!("{name}-{}", shared.id))
            .spawn(move || run(&shared))
            .map_err(|source| OpenError::Folder { path: dir.to_owned(), source })
    };
    Ok(vec![
        spawn("log", Box::new(move |shared| driver::run_log(shared, log)))?,
        spawn("clock", Box::new(driver::run_clock))?,
        spawn("flush", Box::new(driver::run_flush))?,
    ])
}

fn recover_applied(
    lsm: &Lsm,
    dead: &DeadSet,
    assignment: &Assignment,
) -> Result<Applied, OpenError> {
    let partition = assignment.partition;
    let Some(body) = lsm.get(&meta::applied_key(partition))? else {
        return Ok(Applied::default());
    };
    let applied = meta::decode_applied(body).ok_or(OpenError::Meta(partition))?;
    if let Some(fence) = applied.flushed_through {
        dead.set_fence(assignment.range, fence);
    }
    let (from, to) = meta::dead_range(partition);
    lsm.scan(&from, &to, commands::Direction::Forward, &mut |row, _| {
        if let Some(generation) = meta::decode_dead(&row) {
            dead.add_generation(assignment.range, generation);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(applied)
}

/// An acceptor that has forgotten what it accepted must not vote: a log that lost entries is not
/// opened. The other replicas go on without this node.
fn refuse_damage(recovered: &wal::Recovered) -> Result<(), OpenError> {
    for damage in &recovered.damage {
        tracing::error!(?damage, "log damaged");
    }
    let faulty = recovered.groups.values().any(|group| !group.faulty.is_empty());
    if faulty || recovered.is_unnamed() {
        let entries = recovered.damage.iter().map(|damage| damage.lost.len()).sum();
        return Err(OpenError::Damaged { entries });
    }
    Ok(())
}

fn recover_replica(
    id: NodeId,
    assignment: &Assignment,
    options: &NodeOptions,
    applied: Applied,
    group: wal::GroupLog,
    clock: Clock,
) -> paxos::Replica {
    let members: Vec<_> = assignment.members.iter().map(|node| paxos::NodeId(node.0)).collect();
    let recovered = paxos::Recovered {
        promised: paxos::Ballot::from_number(group.promise),
        chosen: paxos::Index(group.chosen.max(applied.index)),
        applied: paxos::Index(applied.index),
        truncated: paxos::Index(group.truncated),
        entries: group.entries.into_iter().map(to_entry).collect(),
    };
    // Each replica of a group, and each group of a node, waits another time before it campaigns.
    let seed = assignment.partition.0 << 32 | u64::from(id.0);
    paxos::Replica::new(
        paxos::NodeId(id.0),
        &members,
        options.paxos.clone(),
        recovered,
        clock.monotonic(),
        seed,
    )
}

/// A log entry as consensus knows it.
pub(crate) fn to_entry(entry: wal::Entry) -> paxos::Entry {
    paxos::Entry {
        index: paxos::Index(entry.index),
        ballot: paxos::Ballot::from_number(entry.ballot),
        value: match entry.value {
            wal::Value::Noop => paxos::Value::Noop,
            wal::Value::Data(bytes) => paxos::Value::Data(bytes),
        },
    }
}

fn replica_status(partition: &Partition) -> ReplicaStatus {
    let core = partition.core.lock();
    let status = core.replica.status();
    let counters = core.tip_counters();
    ReplicaStatus {
        partition: partition.id,
        range: partition.range,
        role: status.role.name(),
        leader: status.leader.map(|node| NodeId(node.0)),
        ballot: status.promised.number,
        last_index: status.last_index.0,
        applied_index: core.applied().index,
        flushed_index: core.flushed_index(),
        keys: counters.keys,
        volatile_keys: counters.volatile,
        bytes: counters.bytes,
        expired_keys: core.expired_keys(),
    }
}

//! A storage node: its replicas, its log, its LSM and its threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use commands::{key_positions, rows};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use wire::ids::{NodeId, PartitionId, Zone};
use wire::peer::{Frame, FrameHandler, Transport};
use wire::placement::PlacementRange;
use wire::service::{
    self, Answer, BoxFuture, Call, Gate, GateOutcome, NodeStatus, ReplicaStatus, Waiting,
};

use crate::core::{Core, Evaluated, Kept, Now, Start, Ticket};
use crate::driver::{self, Publish, Shared};
use crate::lsm::{self, DeadSet, Lsm};
use crate::meta::{self, Applied};
use crate::partition::{Clock, Partition};
use crate::resident::RowBudget;
use crate::timers::Timers;
use crate::view::Cold;
use crate::wal;

/// Evaluations of one command that may each find one cold row before the next one reads the disk
/// under the partition's lock.
const COLD_ROUNDS_MAX: usize = 4;
/// Header rows fetched at once when the first of them turns out to be cold. What has more cold keys
/// reads the others one by one.
pub(crate) const FETCH_ROWS_MAX: usize = 4096;
/// The longest time that a batch waits for more to join it although nothing holds it back.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// When replies of calls made together add up to more bytes, they leave before others are made.
const REPLY_BYTES_MAX: usize = 256 << 10;
/// How long a writer waits when the memtables are far over their budget.
const MEMORY_DELAY: Duration = Duration::from_millis(2);

/// How a storage node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Bytes of effects in memory before they are flushed to fjall. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Memory for the rows that leaders keep. Nodes of one process may share one budget, since a
    /// partition leads on one of them. Default 128 MiB.
    pub rows: Arc<RowBudget>,
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
            rows: RowBudget::new(128 << 20),
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
        let (lsm, dead) = open_lsm(dir, &options)?;
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
        let liveness = start_liveness(id, assignments, &options, clock);
        let mut partitions = BTreeMap::new();
        for assignment in assignments {
            let applied = applied[&assignment.partition.0];
            let group = groups.remove(&assignment.partition.0).unwrap_or_default();
            let supports = liveness.supports();
            let replica =
                recover_replica(id, assignment, &options, applied, group, supports, clock);
            let start = Start {
                partition: assignment.partition,
                range: assignment.range,
                node: id,
                members: assignment.members.clone(),
                replica,
                applied,
                incarnation,
                dead: Arc::clone(&dead),
                budget: Arc::clone(&options.rows),
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
            lsm,
            log,
            liveness: Mutex::new(liveness),
            support_changed: AtomicBool::new(false),
            timers: Timers::default(),
            transport: surroundings.transport,
            publish: surroundings.publish,
            memory_bytes: AtomicU64::new(0),
            pressure_us: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            work: Mutex::new(Vec::new()),
            work_ready: Condvar::new(),
            flush_due: Mutex::new(false),
            flushing: Mutex::new(()),
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
        let mut done = Vec::with_capacity(1);
        match (self.call_all(&[call], &mut done), done.pop()) {
            (Some(answer), _) => answer,
            (None, Some(done)) => Answer::Done { reply: done.reply, gate: done.gate },
            (None, None) => unreachable!("a call is done, or it is not"),
        }
    }

    /// Evaluates commands; see [`wire::service::StorageService::call_all`]. The partition's lock and
    /// the clock are taken once for as many as go without the disk.
    pub fn call_all(
        &self,
        calls: &[Call<'_>],
        done: &mut Vec<service::Evaluated>,
    ) -> Option<Answer> {
        let partition = match self.partition(calls.first()?.partition) {
            Ok(partition) => partition,
            Err(answer) => return Some(answer),
        };
        let shared = &*self.shared;
        let mut cold = ColdRows::default();
        let mut reply_bytes = 0;
        let mut left = calls;
        let mut core = partition.core.lock();
        let (mut now, mut began) = (shared.clock.now(), Instant::now());
        while let Some((call, others)) = left.split_first() {
            let entry = table::entry(call.command);
            if matches!(entry.command.run, commands::Run::Write(_)) && shared.is_overrun() {
                return Some(Answer::Busy(MEMORY_DELAY));
            }
            let evaluated = core.evaluate(entry, call, now, (&shared.lsm, cold.may_block));
            core.serve_kept(&shared.lsm);
            match evaluated {
                Evaluated::Answer(Answer::Done { reply, gate }) => {
                    let ended = Instant::now();
                    now.monotonic = shared.clock.at(ended);
                    if gate.is_none() && !core.serves(now.monotonic) {
                        return Some(Answer::NotYet);
                    }
                    if gate.is_some() {
                        shared.retime(&partition, &mut core);
                    }
                    reply_bytes += reply.text_bytes();
                    done.push(service::Evaluated { reply, gate, took: ended - began });
                    if reply_bytes > REPLY_BYTES_MAX {
                        return None;
                    }
                    (began, left, cold) = (ended, others, ColdRows::default());
                }
                Evaluated::Answer(answer) => return Some(answer),
                Evaluated::Kept(kept) => {
                    shared.retime(&partition, &mut core);
                    return Some(hand_out(&partition, kept));
                }
                Evaluated::Cold(row) => {
                    core = cold.fetch(&shared.lsm, &partition, (core, row), || headers(left));
                    now = shared.clock.now();
                }
            }
        }
        None
    }

    /// Evaluates on a partition until no cold row is in the way: `work` may be called several times
    /// and must do the same each time. With the first cold row, those of `rows` that are cold are
    /// fetched too.
    pub(crate) fn evaluate(
        &self,
        partition: PartitionId,
        is_write: bool,
        mut work: impl FnMut(&mut Core, Now, (&Lsm, bool)) -> Evaluated,
        rows: impl Fn() -> Vec<Bytes>,
    ) -> Answer {
        let partition = match self.partition(partition) {
            Ok(partition) => partition,
            Err(answer) => return answer,
        };
        let shared = &*self.shared;
        if is_write && shared.is_overrun() {
            return Answer::Busy(MEMORY_DELAY);
        }
        let mut cold = ColdRows::default();
        let mut core = partition.core.lock();
        loop {
            let evaluated = work(&mut core, shared.clock.now(), (&shared.lsm, cold.may_block));
            core.serve_kept(&shared.lsm);
            match evaluated {
                Evaluated::Answer(Answer::Done { gate: None, .. })
                    if !core.serves(shared.clock.monotonic()) =>
                {
                    return Answer::NotYet;
                }
                Evaluated::Answer(answer) => {
                    shared.retime(&partition, &mut core);
                    return answer;
                }
                Evaluated::Kept(kept) => {
                    shared.retime(&partition, &mut core);
                    return hand_out(&partition, kept);
                }
                Evaluated::Cold(row) => {
                    core = cold.fetch(&shared.lsm, &partition, (core, row), &rows);
                }
            }
        }
    }

    fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, Answer> {
        if self.shared.is_stopping() {
            return Err(Answer::NotHere(None));
        }
        let found = self.shared.partitions.read().get(&id).cloned();
        found.ok_or(Answer::NotHere(None))
    }

    /// Waits for a gate; see [`wire::service::StorageService::wait`].
    pub fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        let found = self.shared.partitions.read().get(&gate.partition).cloned();
        let Some(partition) = found else {
            return Box::pin(std::future::ready(GateOutcome::Unknown));
        };
        let (waiting, sealing) = {
            let mut core = partition.core.lock();
            if self.shared.is_stopping() {
                // The threads that would end the wait may be gone.
                return Box::pin(std::future::ready(GateOutcome::Unknown));
            }
            let waiting = core.wait(gate, Instant::now() + timeout);
            // A gate that is open now has nothing to seal.
            let may_seal = waiting.is_err() && core.may_seal();
            let sealer = if may_seal { None } else { core.take_seat(gate) };
            self.shared.retime(&partition, &mut core);
            (waiting, (may_seal, sealer))
        };
        let mut receiver = match waiting {
            Ok(outcome) => return Box::pin(std::future::ready(outcome)),
            Err(receiver) => receiver,
        };
        let (may_seal, called) = sealing;
        let held_back = Duration::from_micros(self.shared.pressure_us.load(Ordering::Relaxed));
        let shared = Arc::downgrade(&self.shared);
        Box::pin(async move {
            let is_called = match called {
                // The wait may end without a call: at its deadline, or when the node stops.
                Some(called) => tokio::select! {
                    biased;
                    outcome = &mut receiver => return outcome.unwrap_or(GateOutcome::Unknown),
                    called = called => called.is_ok(),
                },
                None => may_seal,
            };
            if is_called {
                gather(&partition).await;
                if let Some(shared) = shared.upgrade() {
                    shared.seal(&partition);
                }
            }
            let outcome = receiver.await.unwrap_or(GateOutcome::Unknown);
            if !held_back.is_zero() {
                tokio::time::sleep(held_back).await;
            }
            outcome
        })
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let shared = &*self.shared;
        let partitions: Vec<_> = shared.partitions.read().values().cloned().collect();
        let (lsm, log) = (shared.lsm.stats(), shared.log.stats());
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

/// Lets other connections' commands join the open batch, as long as each turn of the thread brings
/// more. The replies that opened the way for this batch bring their clients' next commands: taken
/// together they cost one round of the log instead of several. An idle server waits one turn.
async fn gather(partition: &Partition) {
    let started = Instant::now();
    let mut known = partition.core.lock().gathered();
    while known.is_some() && started.elapsed() < GATHER_MAX {
        tokio::task::yield_now().await;
        let gathered = partition.core.lock().gathered();
        if gathered == known {
            break;
        }
        known = gathered;
    }
}

/// What evaluating one thing needed from the disk so far.
#[derive(Default)]
struct ColdRows {
    rounds: usize,
    /// The next evaluation may read the disk under the lock.
    may_block: bool,
}

impl ColdRows {
    /// Fetches what was cold, without the lock, and those of `rows` that are cold as well, so that a
    /// pipeline or a command of many cold keys is not evaluated once for each.
    fn fetch<'p>(
        &mut self,
        lsm: &Lsm,
        partition: &'p Partition,
        (core, cold): (MutexGuard<'p, Core>, Cold),
        rows: impl Fn() -> Vec<Bytes>,
    ) -> MutexGuard<'p, Core> {
        assert!(!self.may_block, "a view that may block is never cold");
        let Cold::Row(row) = cold else {
            self.may_block = true;
            return core;
        };
        let mut cold = if self.rounds == 0 { rows() } else { Vec::new() };
        cold.retain(|other| {
            *other != row && other.len() <= lsm::ROW_KEY_BYTES_MAX && !core.is_resident(other)
        });
        cold.push(row);
        let epoch = core.flush_epoch();
        drop(core);
        // An error shows again, as the command's own, once the view may block.
        let read = |row: Bytes| lsm.get(&row).ok().map(|value| (row, value));
        let fetched: Vec<_> = cold.into_iter().filter_map(read).collect();
        self.rounds += 1;
        self.may_block = self.rounds >= COLD_ROUNDS_MAX;
        let mut core = partition.core.lock();
        core.fill(epoch, &fetched);
        core
    }
}

/// A call's place in line at a partition: out of it once this is dropped.
struct InLine {
    /// Weakly: who waits must not keep a stopped node's memory.
    partition: Weak<Partition>,
    ticket: Ticket,
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(partition) = self.partition.upgrade() {
            partition.core.lock().forget_kept(self.ticket);
        }
    }
}

/// What the caller of a call that is kept gets.
fn hand_out(partition: &Arc<Partition>, kept: Kept) -> Answer {
    let Kept { ticket, args, gate, timeout, claim, served } = kept;
    let in_line = InLine { partition: Arc::downgrade(partition), ticket };
    let served = Box::pin(async move {
        let _in_line = in_line;
        served.await.ok()
    });
    Answer::Waits(Box::new(Waiting { args, gate, timeout, claim, served }))
}

/// The header rows of the keys that calls name, up to a limit.
fn headers(calls: &[Call<'_>]) -> Vec<Bytes> {
    let of_call = |call: &Call<'_>| {
        let command = table::entry(call.command).command;
        let positions = key_positions(command, call.args).unwrap_or_default();
        let header = |at: &usize| rows::header_key(call.table, &call.args[*at]);
        positions.iter().map(header).collect::<Vec<_>>()
    };
    calls.iter().flat_map(of_call).take(FETCH_ROWS_MAX).collect()
}

struct Receiver(Weak<Shared>);

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
        spawn("beat", Box::new(driver::run_beats))?,
        spawn("clock", Box::new(driver::run_clock))?,
        spawn("flush", Box::new(driver::run_flush))?,
    ])
}

fn open_lsm(dir: &Path, options: &NodeOptions) -> Result<(Lsm, Arc<DeadSet>), OpenError> {
    let dead = Arc::new(DeadSet::default());
    let version_of = commands::types::header::version_of;
    let lsm = Lsm::open(&dir.join("lsm"), options.lsm, Arc::clone(&dead), version_of)?;
    Ok((lsm, dead))
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

/// The node's liveness among all nodes that it shares a partition with.
fn start_liveness(
    id: NodeId,
    assignments: &[Assignment],
    options: &NodeOptions,
    clock: Clock,
) -> paxos::Liveness {
    let now = clock.monotonic();
    let (me, life) = (paxos::NodeId(id.0), crate::life());
    let mut liveness = paxos::Liveness::new(me, life, options.paxos.clone(), now);
    for peer in assignments.iter().flat_map(|assignment| &assignment.members) {
        liveness.add_peer(paxos::NodeId(peer.0), now);
    }
    liveness
}

fn recover_replica(
    id: NodeId,
    assignment: &Assignment,
    options: &NodeOptions,
    applied: Applied,
    group: wal::GroupLog,
    supports: paxos::Supports,
    clock: Clock,
) -> paxos::Replica {
    let members: Vec<_> = assignment.members.iter().map(|node| paxos::NodeId(node.0)).collect();
    let recovered = paxos::Recovered {
        promised: paxos::Ballot::from_number(group.promise),
        chosen: paxos::Index(group.chosen.max(applied.index)),
        applied: paxos::Index(applied.index),
        truncated: paxos::Index(group.truncated),
        entries: group.entries.into_iter().map(to_entry).collect(),
        faulty: group.faulty.into_iter().map(to_faulty).collect(),
        config: None,
    };
    // Each replica of a group, and each group of a node, waits another time before it campaigns.
    let seed = assignment.partition.0 << 32 | u64::from(id.0);
    paxos::Replica::new(
        paxos::NodeId(id.0),
        &members,
        options.paxos.clone(),
        recovered,
        supports,
        clock.monotonic(),
        seed,
    )
}

/// An entry whose bytes are damaged: its index and ballot.
fn to_faulty((index, ballot): (u64, u64)) -> (paxos::Index, paxos::Ballot) {
    (paxos::Index(index), paxos::Ballot::from_number(ballot))
}

/// A log entry as consensus knows it.
pub(crate) fn to_entry(entry: wal::Entry) -> paxos::Entry {
    paxos::Entry {
        index: paxos::Index(entry.index),
        ballot: paxos::Ballot::from_number(entry.ballot),
        value: match entry.value {
            wal::Value::Noop => paxos::Value::Noop,
            wal::Value::Data(bytes) => paxos::Value::from_log(bytes),
        },
    }
}

fn replica_status(partition: &Partition) -> ReplicaStatus {
    let core = partition.core.lock();
    let status = core.replica.status();
    let counters = core.tip_counters();
    let (elections, leaderships) = core.elections();
    let (awaited_keys, awaited_keys_or_gone) = core.awaited_keys();
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
        elections,
        leaderships,
        awaited_keys,
        awaited_keys_or_gone,
    }
}

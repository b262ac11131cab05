//! A storage node: its replicas, its log, its LSM and its threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use commands::table;
use commands::{key_positions, rows};
use parking_lot::{Condvar, Mutex, RwLock};
use wire::ids::{NodeId, PartitionId, Zone};
use wire::notice::Told;
use wire::peer::{Frame, FrameHandler, Transport};
use wire::service::{
    self, Answer, BoxFuture, Call, Gate, GateOutcome, NodeStatus, ReplicaStatus, Waiting,
};

use crate::ahead;
use crate::care;
use crate::cold::{ColdRows, Pace};
use crate::core::{Core, Evaluated, Kept, Now, Ticket};
use crate::driver::{Counts, Item, Publish, Shared};
use crate::faults::Faults;
use crate::flush;
use crate::identity::node_of;
use crate::keeper;
use crate::logs::{self, Logs};
use crate::lsm::{self, Lsm};
use crate::machine::Machine;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::queue::Queue;
use crate::recover::{self, Assignment, OpenError};
use crate::requests::DedupLimits;
use crate::resident::RowBudget;
use crate::scripting::Scripting;
use crate::sealing::Sealing;
use crate::shapes::Shapes;
use crate::slow::Job;
use crate::view::Cold;
use crate::wal;

/// Header rows fetched at once when the first of them turns out to be cold. What has more cold keys
/// reads the others one by one.
pub(crate) const FETCH_ROWS_MAX: usize = 4096;
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
    /// Who writes the logs: one for all nodes of a process, as those have that are opened with clones of one
    /// set of options.
    pub logs: Arc<Logs>,
    /// The LSM's settings.
    pub lsm: lsm::Options,
    /// The consensus settings.
    pub paxos: paxos::Options,
    /// All storage nodes there are, this one included, with their zones. Default: none, so that no
    /// replica ever moves.
    pub nodes: Vec<(NodeId, Zone)>,
    /// How long nothing is heard of a member's node before another one gets a log replica in its place.
    /// Default 1 s.
    pub heal_after: Duration,
    /// How long a log replica stands in before a storage replica is built in its place. Default 5 s.
    pub rebuild_after: Duration,
    /// Bytes of a group's log that are kept for a member that does not flush; behind that it gets a
    /// snapshot. Default 512 MiB.
    pub log_bytes: u64,
    /// Bytes of records that wait for this node's disk, from which on it takes no proposals and no chosen
    /// entries from others. Default 128 MiB.
    pub unsynced_bytes: u64,
    /// Dead collections of which rows are on disk, from which on all tables are rewritten without them;
    /// more where much is stored. Default 200,000.
    pub dead_generations: u64,
    /// Bytes of a part of a snapshot. Default 256 KiB.
    pub snapshot_chunk_bytes: usize,
    /// Bytes a second at which a node fetches snapshots. Default 64 MiB.
    pub snapshot_rate: u64,
    /// Bytes a second of its log that a node sends members that lack older entries, unless they come no
    /// nearer so. Default 16 MiB.
    pub catch_up_rate: u64,
    /// How much each partition remembers of what it answered.
    pub dedup: DedupLimits,
    /// What the nodes of a process share about scripts.
    pub scripting: Arc<Scripting>,
    /// How values are kept; shared by the nodes of a process.
    pub shapes: Arc<Shapes>,
    /// Who is told what happens to keys, as far as it wants to know. Default: nobody.
    pub listener: Told,
    /// What the node stands on. Default: the system's files, time and chance.
    pub machine: Machine,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions {
            memtable_bytes: 64 << 20,
            rows: RowBudget::new(128 << 20),
            log: wal::Options::default(),
            logs: Arc::default(),
            lsm: lsm::Options::default(),
            paxos: paxos::Options::default(),
            nodes: Vec::new(),
            heal_after: Duration::from_secs(1),
            rebuild_after: Duration::from_secs(5),
            log_bytes: 512 << 20,
            unsynced_bytes: 128 << 20,
            dead_generations: 200_000,
            snapshot_chunk_bytes: 256 << 10,
            snapshot_rate: 64 << 20,
            catch_up_rate: 16 << 20,
            dedup: DedupLimits::default(),
            scripting: Arc::default(),
            shapes: Arc::default(),
            listener: Told::default(),
            machine: Machine::default(),
        }
    }
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
    /// Faults to inject, by whoever else holds them.
    pub faults: Arc<Faults>,
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
        let (mut node, writer) = Node::build(id, zone, dir, options, assignments, surroundings)?;
        node.threads = start_threads(&node.shared, writer, dir)?;
        Ok(node)
    }

    /// A node that is open and has no threads yet.
    pub(crate) fn build(
        id: NodeId,
        zone: Zone,
        dir: &Path,
        options: NodeOptions,
        assignments: &[Assignment],
        surroundings: Surroundings,
    ) -> Result<(Node, wal::Writer), OpenError> {
        let Surroundings { transport, publish, faults } = surroundings;
        let opened = recover::open(id, dir, &options, assignments)?;
        let recover::Opened { clock, incarnation, damaged, pulse, .. } = opened;
        let recover::Opened { mut lsm, dead, mut writer, log, .. } = opened;
        let recover::Opened { catalogue, replicas, forgotten, agenda, .. } = opened;
        writer.set_faults(Arc::clone(&faults));
        lsm.set_faults(Arc::clone(&faults));
        let (storage, logs) = replicas.into_iter().partition(|replica| !replica.is_log());
        let by_partition = |replicas: Vec<Partition>| {
            let replicas = replicas.into_iter().map(|replica| (replica.id, Arc::new(replica)));
            RwLock::new(replicas.collect::<BTreeMap<_, _>>())
        };
        let peers = options.nodes.iter().map(|(node, _)| *node);
        let peers = Peers::new(peers, id, clock.monotonic());
        peers.note_life(id, incarnation, false);
        let shared = Arc::new(Shared {
            id,
            zone,
            dir: dir.to_owned(),
            clock,
            incarnation,
            partitions: by_partition(storage),
            logs: by_partition(logs),
            catalogue: Mutex::new(catalogue),
            lsm,
            pace: Pace::default(),
            dead,
            log,
            transport,
            publish,
            faults,
            listener: options.listener.0.clone(),
            peers,
            pulse,
            agenda,
            counts: Counts { damaged_entries: damaged.into(), ..Counts::default() },
            options,
            memory_bytes: AtomicU64::new(0),
            pressure_us: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            wants_reopening: AtomicBool::new(false),
            unsynced_bytes: AtomicU64::new(0),
            work: Mutex::default(),
            keeper: Queue::default(),
            catch_ups: Queue::default(),
            giver: Queue::default(),
            taker: Queue::default(),
            flush_due: Mutex::new(false),
            flushing: Mutex::new(()),
            sweep: Mutex::new(None),
            flush_ready: Condvar::new(),
        });
        forgotten.into_iter().for_each(|group| shared.work.lock().push(Item::Forget(group)));
        keeper::tidy_up(&shared);
        shared.all_replicas().iter().for_each(Partition::wake);
        Ok((Node { shared, threads: Vec::new() }, writer))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
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
            partition.look_anyway().replica.status().promised == paxos::Ballot::ZERO
        })
    }

    /// False once the node stopped by itself (a failed disk) or was asked to stop.
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping()
    }

    /// Whether it stopped because something panicked: it may be opened again.
    pub fn panicked(&self) -> bool {
        self.shared.panicked.load(Ordering::Acquire)
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
        let done = self.shared.contain("call", || self.take_calls(calls, done));
        done.unwrap_or(Some(Answer::NotHere(None)))
    }

    fn take_calls(&self, calls: &[Call<'_>], done: &mut Vec<service::Evaluated>) -> Option<Answer> {
        let partition = match self.partition(calls.first()?.partition) {
            Ok(partition) => partition,
            Err(answer) => return Some(answer),
        };
        let shared = &*self.shared;
        let mut cold = ColdRows::default();
        let mut reply_bytes = 0;
        let mut left = calls;
        let positions = ahead::positions(calls);
        let mut core = partition.lock();
        let (mut now, mut began) = (shared.now(), shared.clock.instant());
        if shared.faults.is_paused() {
            // The process stands still here, between what it knows of its lease and what it does.
            drop(core);
            shared.faults.checkpoint();
            core = partition.lock();
        }
        core.touch(&positions, calls);
        let mut alone = 0;
        while let Some((call, others)) = left.split_first()
            && reply_bytes <= REPLY_BYTES_MAX
        {
            let entry = table::entry(call.command);
            if entry.command.may_write() && shared.is_overrun() {
                return Some(Answer::Busy(MEMORY_DELAY));
            }
            if alone == 0 {
                match core.evaluate_together(left, now, &shared.lsm, (&shared.clock, began)) {
                    Ok(mut together) => {
                        left = &left[together.done.len()..];
                        reply_bytes += together.reply_bytes;
                        done.append(&mut together.done);
                        began = together.ended;
                        now.monotonic = shared.clock.at(began);
                        continue;
                    }
                    Err(calls) => alone = calls,
                }
            }
            let evaluated = core.evaluate(entry, call, now, (&shared.lsm, cold.may_block));
            core.serve_kept(&shared.lsm);
            match evaluated {
                Evaluated::Answer(Answer::Done { reply, gate }) => {
                    let ended = shared.clock.instant();
                    now.monotonic = shared.clock.at(ended);
                    if gate.is_none() && !core.serves(now.monotonic) {
                        return Some(Answer::NotYet);
                    }
                    reply_bytes += reply.text_bytes();
                    done.push(service::Evaluated { reply, gate, took: ended - began });
                    (began, left, cold) = (ended, others, ColdRows::default());
                    alone -= 1;
                }
                Evaluated::Answer(answer) => return Some(answer),
                Evaluated::Kept(kept) => return Some(hand_out(&partition, kept)),
                Evaluated::Cold(Cold::Slow) => {
                    return Some(self.run_slowly(&partition, core, Job::from(call)));
                }
                Evaluated::Cold(row) => {
                    core = cold.fetch(shared, &partition, (core, row), || headers(left));
                    now = shared.now();
                }
            }
        }
        if mutant!(RepliesSwapped) {
            done.reverse();
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
        work: impl FnMut(&mut Core, Now, (&Lsm, bool)) -> Evaluated,
        otherwise: (impl Fn() -> Vec<Bytes>, impl FnOnce() -> Job),
    ) -> Answer {
        let done = self.shared.contain("evaluation", || {
            self.evaluate_until_warm(partition, is_write, work, otherwise)
        });
        done.unwrap_or(Answer::NotHere(None))
    }

    fn evaluate_until_warm(
        &self,
        partition: PartitionId,
        is_write: bool,
        mut work: impl FnMut(&mut Core, Now, (&Lsm, bool)) -> Evaluated,
        (rows, job): (impl Fn() -> Vec<Bytes>, impl FnOnce() -> Job),
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
        let mut core = partition.lock();
        loop {
            let evaluated = work(&mut core, shared.now(), (&shared.lsm, cold.may_block));
            core.serve_kept(&shared.lsm);
            match evaluated {
                Evaluated::Answer(Answer::Done { gate: None, .. })
                    if !core.serves(shared.clock.monotonic()) =>
                {
                    return Answer::NotYet;
                }
                Evaluated::Answer(answer) => return answer,
                Evaluated::Kept(kept) => return hand_out(&partition, kept),
                Evaluated::Cold(Cold::Slow) => return self.run_slowly(&partition, core, job()),
                Evaluated::Cold(row) => {
                    core = cold.fetch(shared, &partition, (core, row), &rows);
                }
            }
        }
    }

    fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, Answer> {
        if self.shared.is_stopping() {
            return Err(Answer::NotHere(None));
        }
        if self.shared.faults.refuses_calls() {
            return Err(Answer::NotYet);
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
        let begin = || {
            let mut core = partition.lock();
            if self.shared.is_stopping() {
                // The threads that would end the wait may be gone.
                return (Ok(GateOutcome::Unknown), None);
            }
            let waiting = core.wait(gate, self.shared.clock.instant() + timeout);
            // A gate that is open now has nothing to seal.
            let seat = if waiting.is_err() { core.take_seat(gate) } else { None };
            (waiting, seat)
        };
        let begun = self.shared.contain("wait", begin);
        let (waiting, seat) = begun.unwrap_or((Ok(GateOutcome::Unknown), None));
        let mut receiver = match waiting {
            Ok(outcome) => return Box::pin(std::future::ready(outcome)),
            Err(receiver) => receiver,
        };
        let sealing = seat.map(|seat| (Sealing::new(&self.shared, &partition, gate.batch), seat));
        let held_back = Duration::from_micros(self.shared.pressure_us.load(Ordering::Relaxed));
        Box::pin(async move {
            if let Some((sealing, seat)) = sealing {
                tokio::select! {
                    biased;
                    // The wait may end without a call: at its deadline, or when the node stops.
                    outcome = &mut receiver => return outcome.unwrap_or(GateOutcome::Unknown),
                    () = sealing.run(seat) => {}
                }
            }
            let outcome = receiver.await.unwrap_or(GateOutcome::Unknown);
            if !held_back.is_zero() {
                tokio::time::sleep(held_back).await;
            }
            outcome
        })
    }

    /// What became of another leader's proposal; see [`wire::service::StorageService::outcome`].
    pub fn outcome(&self, gate: Gate) -> Option<GateOutcome> {
        let found = self.shared.partitions.read().get(&gate.partition).cloned();
        let now = self.shared.clock.monotonic();
        found.and_then(|partition| partition.look().outcome_of(gate, now))
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let shared = &*self.shared;
        let partitions = shared.all_replicas();
        let (lsm, log) = (shared.lsm.stats(), shared.log.stats());
        NodeStatus {
            node: shared.id,
            zone: shared.zone.clone(),
            running: self.is_running(),
            memtable_bytes: shared.memory_bytes.load(Ordering::Relaxed),
            unsynced_bytes: shared.unsynced_bytes.load(Ordering::Relaxed),
            frames_refused: shared.counts.frames_refused.load(Ordering::Relaxed),
            wal_bytes: log.segment_bytes,
            wal_syncs: log.syncs,
            wal_entries: log.entries,
            lsm_bytes: lsm.disk_bytes,
            frozen_memtables: shared.frozen_memtables(),
            level0_runs: lsm.level0_runs,
            paused: shared.faults.is_paused(),
            rows_damaged: shared.lsm.is_damaged(),
            damaged_entries: shared.counts.damaged_entries.load(Ordering::Relaxed),
            snapshots_given: shared.counts.snapshots_given.load(Ordering::Relaxed),
            snapshots_installed: shared.counts.snapshots_installed.load(Ordering::Relaxed),
            snapshot_bytes: shared.counts.snapshot_bytes.load(Ordering::Relaxed),
            frames_sent: shared.counts.frames_sent.load(Ordering::Relaxed),
            replicas: partitions.iter().map(|partition| replica_status(partition)).collect(),
        }
    }

    /// The log index up to which a replica here has applied; `None` if there is none, or the node does not
    /// run.
    pub fn applied(&self, partition: PartitionId) -> Option<u64> {
        let shared = &*self.shared;
        let replica = shared.partitions.read().get(&partition).cloned();
        let replica = replica.or_else(|| shared.logs.read().get(&partition).cloned())?;
        let applied = replica.look().applied().index;
        self.is_running().then_some(applied)
    }

    /// Whether the node stopped because its rows are to be fetched anew: open it again then, after
    /// [`crate::abandon`].
    pub fn wants_reopening(&self) -> bool {
        self.shared.wants_reopening.load(Ordering::Acquire)
    }

    /// Changes the members of a partition's group, which this node leads: resolves when that has
    /// happened, or with a text for the operator when it will not.
    pub fn change_members(
        &self,
        partition: PartitionId,
        change: care::Change,
    ) -> BoxFuture<Result<(), String>> {
        care::order(&self.shared, partition, change)
    }

    /// Whether this node has a replica of a partition that could lead it.
    pub fn holds(&self, partition: PartitionId) -> bool {
        self.shared.partitions.read().contains_key(&partition)
    }

    /// Whether this node leads a partition, with a lease.
    pub fn leads(&self, partition: PartitionId) -> bool {
        let found = self.shared.partitions.read().get(&partition).cloned();
        let now = self.shared.clock.monotonic();
        !self.shared.is_stopping()
            && found.is_some_and(|partition| partition.look_anyway().serves(now))
    }

    /// The nodes with a storage replica of a partition that this node leads, itself left out: the one
    /// that has applied most first.
    pub fn heirs(&self, partition: PartitionId) -> Vec<NodeId> {
        care::heirs(&self.shared, partition)
    }

    /// Whether this node hands the leadership of a partition over.
    pub fn is_handing_over(&self, partition: PartitionId) -> bool {
        let found = self.shared.partitions.read().get(&partition).cloned();
        found.is_some_and(|partition| partition.look_anyway().is_handing_over())
    }

    /// Whether another node has a storage replica of a partition, as far as this node knows.
    pub fn has_storage_replica(&self, partition: PartitionId, node: NodeId) -> bool {
        let found = self.shared.partitions.read().get(&partition).cloned();
        found.is_some_and(|p| p.look_anyway().route().members.contains(&node))
    }

    /// Ends the waits whose deadline has passed: for a node whose own clock stands still.
    pub fn end_waits(&self) {
        let now = self.shared.clock.instant();
        for partition in self.shared.all_partitions() {
            partition.look_anyway().end_waits(now);
        }
    }

    /// Begins to hand the leadership of a partition over to another node.
    ///
    /// *Errors*: a text for the operator.
    pub fn hand_over(&self, partition: PartitionId, to: NodeId) -> Result<(), String> {
        care::hand_over(&self.shared, partition, to)
    }

    /// Whether this node leads a partition whose group can do without another node, which is down and
    /// damaged: the group has no replica there, or no need of it. To be asked again until it can: the
    /// others are asked how far they are.
    ///
    /// It never can while there are two replicas on that node, as a log replica that another is about to
    /// take the place of.
    pub fn does_without(&self, partition: PartitionId, node: NodeId) -> bool {
        !self.shared.is_stopping() && care::does_without(&self.shared, partition, node)
    }

    /// Asks the node's threads to end. They have when the node is dropped.
    pub fn request_stop(&self) {
        self.shared.stop();
    }

    /// Writes the memtables to fjall now.
    pub fn flush(&self) -> Result<(), lsm::LsmError> {
        flush::flush(&self.shared)
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

/// A call's place in line at a partition: out of it once this is dropped.
struct InLine {
    /// Weakly: who waits must not keep a stopped node's memory.
    partition: Weak<Partition>,
    ticket: Ticket,
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(partition) = self.partition.upgrade() {
            partition.look_anyway().forget_kept(self.ticket);
        }
    }
}

/// What the caller of a call that is kept gets.
fn hand_out(partition: &Arc<Partition>, kept: Kept) -> Answer {
    let Kept { ticket, args, gate, since, timeout, claim, served } = kept;
    let in_line = InLine { partition: Arc::downgrade(partition), ticket };
    let served = Box::pin(async move {
        let _in_line = in_line;
        served.await.ok()
    });
    Answer::Waits(Box::new(Waiting { args, gate, since, timeout, claim, served }))
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
            // On a thread of the sender, or of whoever gave that a frame.
            shared.contain("frame", || shared.take_frame(frame));
        }
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    log: wal::Writer,
    dir: &Path,
) -> Result<Vec<JoinHandle<()>>, OpenError> {
    type Run = Box<dyn FnOnce(&Arc<Shared>) + Send>;
    let spawn = |name: &str, run: Run| {
        let (shared, name) = (Arc::clone(shared), format!("{name}-{}", shared.id));
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                shared.contain(&name, || run(&shared));
            })
            .map_err(|source| OpenError::Folder { path: dir.to_owned(), source })
    };
    Ok(vec![
        spawn("log", Box::new(move |shared| logs::run(shared, log)))?,
        spawn("pulse", Box::new(|shared| crate::pulse::run(shared)))?,
        spawn("clock", Box::new(|shared| crate::clock::run(shared)))?,
        spawn("flush", Box::new(|shared| flush::run(shared)))?,
        spawn("keeper", Box::new(|shared| keeper::run(shared)))?,
        spawn("catch-up", Box::new(|shared| crate::catch_up::run(shared)))?,
        spawn("giver", Box::new(|shared| crate::snapshot::give::run(shared)))?,
        spawn("taker", Box::new(|shared| crate::snapshot::taking::run(shared)))?,
    ])
}

fn replica_status(partition: &Partition) -> ReplicaStatus {
    let core = partition.look_anyway();
    let status = core.replica.status();
    let counters = core.tip_counters();
    let (elections, leaderships) = core.elections();
    let (awaited_keys, awaited_keys_or_gone) = core.awaited_keys();
    ReplicaStatus {
        partition: partition.id,
        range: partition.range,
        identity: partition.identity.0,
        kind: if partition.is_log() { "log" } else { "storage" },
        installing: partition.is_installing(),
        role: status.role.name(),
        leader: status.leader.map(node_of),
        ballot: status.promised.number,
        last_index: status.last_index.0,
        truncated_index: status.truncated.0,
        applied_index: core.applied().index,
        flushed_index: core.flushed_index(),
        keys: counters.keys,
        volatile_keys: counters.volatile,
        bytes: counters.bytes,
        expired_keys: core.expired_keys(),
        expired_fields: core.expired_fields(),
        freed_later: core.freed_later(),
        changes: core.changes(),
        elections,
        leaderships,
        awaited_keys,
        awaited_keys_or_gone,
    }
}

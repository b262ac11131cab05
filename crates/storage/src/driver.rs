//! The threads of a storage node and what passes between them.
//!
//! ```text
//! connections ──evaluate──▶ open batches ──seal──▶ accepts to peers
//!                                          └────▶ log thread: append, sync ▶ persisted
//! peers ──frames──▶ cores ──records──▶ log thread      ▶ accepted, chosen, applied ▶ the next seal
//! clock thread (`clock`): ticks, expiry, eviction        flush thread: backlogs into fjall
//! ```
//!
//! One log for all partitions of a node is the group commit: while it is synced, everything that arrives for
//! any of them waits in line, and the next sync takes it all ([`crate::logs`]). A batch is sealed by the connection that
//! waits for it if nothing is on its way. Else the first connection that waits for it is called when
//! what was on its way is applied ([`Core::call_sealer`]): by then its thread has woken the others,
//! and what they send joins the batch. Accepts leave before the sync begins, so that the
//! peers' disks and ours work at the same time. Whoever receives a frame handles it on its own
//! thread; no lock is held while anything is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::{Condvar, Mutex, RwLock};
use wire::ids::{NodeId, PartitionId, Zone};
use wire::notice::Listener;
use wire::peer::{BODY_BYTES_MAX, Frame, Kind, Transport};
use wire::service::Route;

use crate::agenda::Agenda;
use crate::catalogue::Catalogue;
use crate::catch_up;
use crate::cold::Pace;
use crate::containment::CoreGuard;
use crate::core::{Actions, Core, Now};
use crate::faults::Faults;
use crate::flush::Sweep;
use crate::identity::node_of;
use crate::keeper::{self, Job};
use crate::logs::Hold;
use crate::lsm::{DeadSet, Lsm};
use crate::message::Message;
use crate::node::NodeOptions;
use crate::partition::{Clock, Partition};
use crate::peers::Peers;
use crate::pulse::{self, Pulse};
use crate::queue::Queue;
use crate::snapshot::give;
use crate::snapshot::taking::Taking;
use crate::wal;

/// Level-0 runs up to which reads do not suffer; from there on writers are slowed.
const LEVEL0_RUNS_CALM: u64 = 8;
/// Level-0 runs at which the delay is at its longest.
const LEVEL0_RUNS_FULL: u64 = 32;
/// The longest delay of a write's reply, in microseconds.
const PRESSURE_US_MAX: u64 = 10_000;
/// Memtables may hold this many times their budget before writers wait.
const MEMORY_OVERRUN: u64 = 4;
/// Bytes of an identity behind a message of consensus: that of the sender, then those of all who are to get
/// it, then their number.
const IDENTITY_BYTES: usize = 4;

/// Tells MemDS (or whoever asks) a route.
pub type Publish = Arc<dyn Fn(Route) + Send + Sync>;

/// What all threads of a node share.
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) zone: Zone,
    pub(crate) dir: PathBuf,
    pub(crate) options: NodeOptions,
    pub(crate) clock: Clock,
    pub(crate) incarnation: u32,
    /// The storage replicas.
    pub(crate) partitions: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
    /// The log replicas.
    pub(crate) logs: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) lsm: Lsm,
    pub(crate) pace: Pace,
    pub(crate) dead: Arc<DeadSet>,
    pub(crate) log: wal::Log,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) publish: Publish,
    pub(crate) listener: Arc<dyn Listener>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) peers: Peers,
    pub(crate) pulse: Pulse,
    /// What the clock thread is to look at.
    pub(crate) agenda: Arc<Agenda>,
    pub(crate) counts: Counts,
    /// Bytes of batches whose effects are in memtables and not in fjall.
    pub(crate) memory_bytes: AtomicU64,
    /// Microseconds by which replies to writes are held back; see [`pressure_us`].
    pub(crate) pressure_us: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// Something panicked, and the node stopped therefore.
    pub(crate) panicked: AtomicBool,
    /// The node stops to begin anew.
    pub(crate) wants_reopening: AtomicBool,
    pub(crate) work: Mutex<Work>,
    /// Bytes of records that wait for the log thread, or are being written by it.
    pub(crate) unsynced_bytes: AtomicU64,
    /// What the keeper is to do.
    pub(crate) keeper: Queue<Job>,
    /// Parts of the log that others lack.
    pub(crate) catch_ups: Queue<catch_up::Asked>,
    /// Snapshots asked for.
    pub(crate) giver: Queue<give::Asked>,
    /// Snapshots that fjall is to take in.
    pub(crate) taker: Queue<Arc<Taking>>,
    pub(crate) flush_due: Mutex<bool>,
    /// Held by who flushes.
    pub(crate) flushing: Mutex<()>,
    /// Tables are being rewritten without what is dead. Used by who flushes.
    pub(crate) sweep: Mutex<Option<Sweep>>,
    pub(crate) flush_ready: Condvar,
}

/// What waits for the log thread, in order.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) items: Vec<Item>,
    /// Somebody waits for some of it. What nobody waits for goes with what comes later: the writer would
    /// keep it in memory until then, and to be woken for it costs as much as for a batch.
    is_urgent: bool,
}

impl Work {
    pub(crate) fn push(&mut self, item: Item) {
        self.is_urgent |= match &item {
            Item::Record(_, _, record) => record.must_sync(),
            Item::Forget(_) => true,
        };
        self.items.push(item);
    }

    /// Whether the log thread is to take it now.
    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent
    }
}

/// One thing for the log.
pub(crate) enum Item {
    /// A record of a replica, and its token.
    Record(Arc<Partition>, u64, paxos::Record),
    /// This group's replica is gone.
    Forget(u64),
}

/// What the node counts, for INFO.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    pub(crate) damaged_entries: AtomicU64,
    pub(crate) snapshots_given: AtomicU64,
    pub(crate) snapshots_installed: AtomicU64,
    pub(crate) snapshot_bytes: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    /// Proposals and chosen entries of peers that were not taken, since this node's disk was behind.
    pub(crate) frames_refused: AtomicU64,
}

impl Shared {
    /// The times that the node's clocks show.
    pub(crate) fn now(&self) -> Now {
        let now = self.clock.now();
        Now { wall_ms: now.wall_ms.saturating_add_signed(self.faults.clock_ahead_ms()), ..now }
    }

    /// Runs `step` on a partition's core and carries out what it leaves.
    pub(crate) fn with<R>(
        &self,
        partition: &Arc<Partition>,
        step: impl FnOnce(&mut Core, &mut Actions) -> R,
    ) -> R {
        self.faults.checkpoint();
        self.step(partition, step)
    }

    /// The same on a peer's thread, which does not stand still with this node.
    pub(crate) fn step<R>(
        &self,
        partition: &Arc<Partition>,
        step: impl FnOnce(&mut Core, &mut Actions) -> R,
    ) -> R {
        self.step_in(partition, partition.lock(), step)
    }

    /// The same with the core locked already.
    pub(crate) fn step_in<R>(
        &self,
        partition: &Arc<Partition>,
        mut core: CoreGuard<'_>,
        step: impl FnOnce(&mut Core, &mut Actions) -> R,
    ) -> R {
        let mut actions = Actions::default();
        let hold = Hold::new();
        let result = {
            let result = step(&mut core, &mut actions);
            self.faults.panic_if_ordered();
            core.drain(&mut actions);
            if core.is_handing_over() {
                core.go_on_handing_over(self.now());
                core.drain(&mut actions);
            }
            if core.may_seal() && !core.call_sealer() && !self.is_stopping() {
                core.seal(self.now(), &mut actions);
                core.drain(&mut actions);
            }
            // Still under the lock: records reach the log in the order the replica made them, and
            // bytes are counted before a flush can take them off again.
            self.enqueue(partition, &mut actions);
            self.memory_bytes.fetch_add(actions.applied_bytes, Ordering::Relaxed);
            // News come in the order of what happened, and before whoever wrote is woken.
            for news in actions.news.drain(..) {
                self.listener.hear(partition.range.table, &news);
            }
            drop(core);
            result
        };
        self.carry_out(partition, actions, hold);
        result
    }

    /// Proposes a batch if it is open and nothing holds it back.
    pub(crate) fn seal(&self, partition: &Arc<Partition>, batch: u64) {
        self.with(partition, |core, actions| {
            if core.is_open(batch) && core.may_seal() && !self.is_stopping() {
                core.seal(self.now(), actions);
            }
        });
    }

    fn enqueue(&self, partition: &Arc<Partition>, actions: &mut Actions) {
        if actions.persists.is_empty() {
            return;
        }
        let bytes = actions.persists.iter().map(|(_, record)| record_bytes(record)).sum();
        self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut work = self.work.lock();
        for (token, record) in actions.persists.drain(..) {
            work.push(Item::Record(Arc::clone(partition), token, record));
        }
        let is_urgent = work.is_urgent();
        drop(work);
        if is_urgent {
            self.options.logs.ring();
        }
    }

    fn carry_out(&self, partition: &Arc<Partition>, actions: Actions, hold: Hold) {
        if let Some(error) = actions.fatal {
            tracing::error!(node = self.id.0, partition = partition.id.0, %error, "replica stopped");
            self.stop();
        }
        for copies in actions.sends.chunk_by(|(_, one), (_, other)| one.is_copy_of(other)) {
            self.send(partition, copies);
        }
        drop(hold);
        for (wake, outcome) in actions.wakes {
            // A receiver that is gone has stopped waiting.
            let _ = wake.send(outcome);
        }
        if let Some(route) = actions.publish {
            (self.publish)(route);
        }
        for part in actions.parts {
            catch_up::ask(self, partition, part);
        }
        if let Some(install) = actions.install {
            keeper::ask(self, Job::Install(Arc::clone(partition), install));
        }
        if actions.removed {
            keeper::ask(self, Job::Drop(Arc::clone(partition)));
        }
        let in_memory = self.memory_bytes.load(Ordering::Relaxed);
        if actions.applied_bytes > 0 && in_memory >= self.flush_at_bytes() {
            *self.flush_due.lock() = true;
            self.flush_ready.notify_one();
        }
    }

    /// Sends copies of a message of consensus: all receivers share its bytes.
    pub(crate) fn send(&self, partition: &Partition, copies: &[(paxos::NodeId, paxos::Message)]) {
        let Some((first, message)) = copies.first() else { return };
        if let Some(twice) = second_of_a_node(copies) {
            // A node that began anew and is let in again: the bytes tell each node of one replica.
            let (these, rest) = copies.split_at(twice);
            self.send(partition, these);
            return self.send(partition, rest);
        }
        let mut body = paxos::codec::encode(message);
        body.put_u32(partition.identity.0);
        copies.iter().for_each(|(to, _)| body.put_u32(to.0));
        body.put_u32(copies.len() as u32);
        if body.len() > BODY_BYTES_MAX {
            let (node, partition, bytes) = (self.id.0, partition.id.0, body.len());
            tracing::error!(node, partition, bytes, "a message is too long to be sent");
            return;
        }
        let frame = Frame::new(Kind::Paxos, self.id, node_of(*first), body.freeze());
        let frame = frame.for_group(partition.id);
        copies.iter().for_each(|(to, _)| self.send_frame(frame.to_node(node_of(*to))));
    }

    /// Tells a node something about a partition's replicas.
    pub(crate) fn tell(&self, to: NodeId, partition: PartitionId, message: &Message) {
        let frame = Frame::new(Kind::Replica, self.id, to, message.encode());
        self.send_frame(frame.for_group(partition));
    }

    /// Sends a frame to the node it names.
    pub(crate) fn send_frame(&self, frame: Frame) {
        self.counts.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.transport.send(frame.to, frame);
    }

    /// A frame from a peer. While the node stands still frames get lost, as they do once a socket's
    /// buffers are full.
    pub(crate) fn take_frame(&self, frame: Frame) {
        if self.is_stopping() || self.faults.is_paused() {
            return;
        }
        self.peers.hear(frame.from, self.clock.monotonic());
        match frame.kind {
            Kind::Paxos => self.receive(&frame),
            Kind::Heartbeat => pulse::receive(self, &frame),
            Kind::Replica => match Message::decode(frame.body().clone()) {
                Some(message) => keeper::receive(self, (frame.from, frame.group), message),
                None => tracing::warn!(node = self.id.0, from = frame.from.0, "bad peer message"),
            },
            _ => {}
        }
    }

    fn receive(&self, frame: &Frame) {
        let Some((body, from, to)) = self.take_identities(frame.body()) else { return };
        if node_of(from) != frame.from {
            // Nobody speaks for another node's replica.
            tracing::warn!(node = self.id.0, from = frame.from.0, identity = from.0, "not its own");
            return;
        }
        let Some(partition) = self.replica(frame.group, to) else {
            self.tell(frame.from, frame.group, &Message::Gone(to));
            return;
        };
        match paxos::codec::decode(body) {
            // As if it had been lost: what is not taken is sent again, or fetched when there is room.
            Ok(paxos::Message::Accept { .. } | paxos::Message::Chosen { .. })
                if self.is_behind() =>
            {
                self.counts.frames_refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(message) => {
                let now = self.clock.monotonic();
                self.step(&partition, |core, _| core.replica.handle_message(from, message, now));
            }
            Err(error) => {
                tracing::warn!(node = self.id.0, from = frame.from.0, %error, "bad peer message");
            }
        }
    }

    /// A message of consensus, who sends it and which replica of this node is to get it.
    fn take_identities(&self, body: &Bytes) -> Option<(Bytes, paxos::NodeId, paxos::NodeId)> {
        let (rest, count) = body.split_last_chunk::<IDENTITY_BYTES>()?;
        let receivers = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        let bytes = receivers.checked_add(1)?.checked_mul(IDENTITY_BYTES)?;
        let (message, mut identities) = rest.split_at_checked(rest.len().checked_sub(bytes)?)?;
        let from = paxos::NodeId(identities.get_u32());
        let (to, _) = identities.as_chunks::<IDENTITY_BYTES>();
        let mut to = to.iter().map(|to| paxos::NodeId(u32::from_be_bytes(*to)));
        let to = to.find(|to| node_of(*to) == self.id)?;
        Some((body.slice_ref(message), from, to))
    }

    /// The replica of a partition with this identity, if it is here.
    pub(crate) fn replica(
        &self,
        partition: PartitionId,
        identity: paxos::NodeId,
    ) -> Option<Arc<Partition>> {
        let find = |replicas: &RwLock<BTreeMap<PartitionId, Arc<Partition>>>| {
            let replicas = replicas.read();
            replicas.get(&partition).filter(|found| found.identity == identity).cloned()
        };
        find(&self.partitions).or_else(|| find(&self.logs))
    }

    /// When this node flushes: nodes apply the same batches, and were they to flush at the same
    /// moment, all disks of a partition would be busy at once.
    fn flush_at_bytes(&self) -> u64 {
        let budget = self.options.memtable_bytes;
        budget - budget / 5 * u64::from(self.id.0 % 3)
    }

    /// Whether memtables are so far over their budget that writers must wait.
    pub(crate) fn is_overrun(&self) -> bool {
        let limit = self.options.memtable_bytes.saturating_mul(MEMORY_OVERRUN);
        self.memory_bytes.load(Ordering::Relaxed) > limit
    }

    /// Whether this node's disk is so far behind that it takes no more from others.
    fn is_behind(&self) -> bool {
        let unsynced = self.unsynced_bytes.load(Ordering::Relaxed);
        unsynced > self.options.unsynced_bytes || self.is_overrun()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks all threads to end, without waiting for them, and ends all waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.faults.resume();
        for partition in self.all_partitions() {
            partition.look_anyway().abandon_waits();
        }
        self.keeper.wake();
        self.giver.wake();
        self.taker.wake();
        self.catch_ups.wake();
        self.options.logs.wake_all();
        drop(self.flush_due.lock());
        self.flush_ready.notify_all();
        self.agenda.ring();
    }

    /// Memtables that wait for the end of their flush.
    pub(crate) fn frozen_memtables(&self) -> u64 {
        let partitions = self.partitions.read();
        partitions.values().filter(|partition| partition.look_anyway().has_frozen()).count() as u64
    }

    /// All storage replicas.
    pub(crate) fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// All replicas, log replicas too.
    pub(crate) fn all_replicas(&self) -> Vec<Arc<Partition>> {
        let mut replicas = self.all_partitions();
        replicas.extend(self.logs.read().values().cloned());
        replicas
    }
}

/// Says in the log that its last batch was durable. The node stops if its log fails.
pub(crate) fn mark(shared: &Shared, log: &mut wal::Writer) {
    if let Err(error) = log.mark() {
        fail(shared, &error);
    }
}

/// What a failed write or sync left behind is unknown, so the node's word is worth nothing.
pub(crate) fn fail(shared: &Shared, error: &wal::WalError) {
    tracing::error!(node = shared.id.0, %error, "log failed, node stops");
    shared.stop();
}

/// Makes records durable and tells of it. The node stops if its log fails.
pub(crate) fn persist(shared: &Shared, log: &mut wal::Writer, persists: Vec<Item>) {
    let written = append(log, &persists).and_then(|must_sync| match must_sync {
        true if !mutant!(ToldBeforeSynced) => log.sync(),
        _ => Ok(()),
    });
    match written {
        Ok(()) => tell_persisted(shared, persists),
        Err(error) => fail(shared, &error),
    }
}

/// What a record counts for among those that wait. Those that nobody waits for do not: they may lie there
/// for long, at most one or two of a group.
fn record_bytes(record: &paxos::Record) -> u64 {
    const LEAST: u64 = 64;
    match record {
        paxos::Record::Accept(entry) => LEAST + entry.value.len() as u64,
        record if record.must_sync() => LEAST,
        _ => 0,
    }
}

/// Appends records to the log; whether somebody waits for any of them.
pub(crate) fn append(log: &mut wal::Writer, persists: &[Item]) -> Result<bool, wal::WalError> {
    let mut must_sync = false;
    for item in persists {
        match item {
            Item::Record(partition, _, record) => {
                must_sync |= record.must_sync();
                match record {
                    paxos::Record::Config(config) => log.append(wal::Record::Config {
                        group: partition.log_group,
                        index: config.index.0,
                        value: &config.encode(),
                    })?,
                    other => log.append(to_record(partition.log_group, other))?,
                }
            }
            Item::Forget(group) => log.append(wal::Record::Forget { group: *group })?,
        }
    }
    Ok(must_sync)
}

/// A consensus record as the log keeps it.
fn to_record(group: u64, record: &paxos::Record) -> wal::Record<'_> {
    match record {
        paxos::Record::Promise(ballot) => wal::Record::Promise { group, ballot: ballot.number },
        paxos::Record::Accept(entry) => wal::Record::Accept {
            group,
            index: entry.index.0,
            ballot: entry.ballot.number,
            value: match &entry.value {
                paxos::Value::Noop => None,
                paxos::Value::Data(bytes) | paxos::Value::Config(bytes) => Some(bytes),
            },
        },
        paxos::Record::Chosen(index) => wal::Record::Chosen { group, index: index.0 },
        paxos::Record::Truncate(index) | paxos::Record::Skip(index) => {
            wal::Record::Truncate { group, index: index.0 }
        }
        paxos::Record::Config(_) => unreachable!("its bytes are made where it is appended"),
    }
}

/// Tells each partition once how far its records are durable.
pub(crate) fn tell_persisted(shared: &Shared, persists: Vec<Item>) {
    let bytes = persists.iter().map(|item| match item {
        Item::Record(_, _, record) => record_bytes(record),
        Item::Forget(_) => 0,
    });
    shared.unsynced_bytes.fetch_sub(bytes.sum(), Ordering::Relaxed);
    let mut newest: BTreeMap<u64, (Arc<Partition>, u64)> = BTreeMap::new();
    for item in persists {
        if let Item::Record(partition, token, _) = item {
            newest.insert(partition.log_group, (partition, token));
        }
    }
    let now = shared.clock.monotonic();
    for (partition, token) in newest.into_values() {
        shared.step(&partition, |core, _| core.replica.handle_persisted(token, now));
    }
}

/// Where the first copy stands that goes to the same node as one before it, if one does.
fn second_of_a_node(copies: &[(paxos::NodeId, paxos::Message)]) -> Option<usize> {
    let node = |at: usize| node_of(copies[at].0);
    (1..copies.len()).find(|at| (0..*at).any(|before| node(before) == node(*at)))
}

/// By how much replies to writes are to be held back: nothing while the memtables are within twice
/// their budget and level 0 is short, then longer and longer. Writers that wait for replies slow
/// down early and smoothly; nobody is stopped.
pub(crate) fn pressure_us(memory_bytes: u64, budget_bytes: u64, level0_runs: u64) -> u64 {
    let share = |value: u64, calm: u64, full: u64| {
        let over = value.saturating_sub(calm).min(full - calm);
        PRESSURE_US_MAX.saturating_mul(over) / (full - calm)
    };
    let budget = budget_bytes.max(1);
    let memory = share(memory_bytes, 2 * budget, 4 * budget);
    memory.max(share(level0_runs, LEVEL0_RUNS_CALM, LEVEL0_RUNS_FULL))
}

#[cfg(test)]
mod tests {
    use wire::resp::Reply;

    use super::*;
    use crate::alone::Alone;

    #[test]
    fn what_nobody_waits_for_goes_to_the_log_with_what_comes_later() {
        let alone = Alone::open(NodeOptions::default());
        let unsynced = || alone.shared().unsynced_bytes.load(Ordering::Relaxed);
        for value in ["1", "2", "3"] {
            assert_eq!(alone.run(&["SET", "k", value]), Some(Reply::OK));
            let applied = alone.partition().look().applied().index;
            alone.until("the log thread has told", || unsynced() == 0);
            let work = alone.shared().work.lock();
            assert!(!work.is_urgent());
            let [Item::Record(_, _, paxos::Record::Chosen(index))] = &work.items[..] else {
                panic!("not the newest mark alone: {} items", work.items.len())
            };
            assert_eq!(index.0, applied);
        }
    }

    #[test]
    fn the_last_batch_gets_its_mark_once_nothing_comes() {
        let alone = Alone::open(NodeOptions::default());
        assert_eq!(alone.run(&["SET", "k", "v"]), Some(Reply::OK));
        let marks = || alone.shared().log.stats().marks;
        alone.until("the log is marked", || marks() > 0);
        let marked = marks();
        assert_eq!(alone.run(&["SET", "k", "w"]), Some(Reply::OK));
        alone.until("it is marked again", || marks() > marked);
    }

    #[test]
    fn of_all_receivers_of_a_message_a_node_finds_its_own() {
        let alone = Alone::open(NodeOptions::default());
        let own = alone.partition().identity;
        let take = |numbers: &[u32]| {
            let mut body = b"message".to_vec();
            numbers.iter().for_each(|number| body.put_u32(*number));
            alone.shared().take_identities(&Bytes::from(body))
        };
        let other = own.0 + 1;
        let taken = Some((Bytes::from_static(b"message"), paxos::NodeId(7), own));
        assert_eq!(take(&[7, other, own.0, 2]), taken);
        assert_eq!(take(&[7, own.0, 1]), taken);
        assert_eq!(take(&[7, other, 1]), None);
        assert_eq!(take(&[7, 0]), None);
        for damaged in [9, u32::MAX - 1, u32::MAX] {
            assert_eq!(take(&[7, own.0, damaged]), None);
        }
    }

    #[test]
    fn each_replica_of_a_node_that_began_anew_has_a_message_of_its_own() {
        let copy = |identity| {
            let message = paxos::Message::Reject { promised: paxos::Ballot::default() };
            (paxos::NodeId(identity), message)
        };
        // Two lives of one node.
        let (old, new) = (3, 3 + (1 << 10));
        assert_eq!(node_of(paxos::NodeId(old)), node_of(paxos::NodeId(new)));
        assert_eq!(second_of_a_node(&[copy(2), copy(old), copy(new)]), Some(2));
        assert_eq!(second_of_a_node(&[copy(old), copy(new), copy(2)]), Some(1));
        assert_eq!(second_of_a_node(&[copy(1), copy(2), copy(old)]), None);
    }

    #[test]
    fn pressure_grows_smoothly_and_has_an_end() {
        let mib = |n: u64| n << 20;
        assert_eq!(pressure_us(mib(128), mib(64), LEVEL0_RUNS_CALM), 0);
        let steps: Vec<_> = (128..=256).map(|n| pressure_us(mib(n), mib(64), 0)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 100));
        assert_eq!(pressure_us(u64::MAX, mib(64), 0), PRESSURE_US_MAX);
        assert_eq!(pressure_us(0, mib(64), u64::MAX), PRESSURE_US_MAX);
    }
}

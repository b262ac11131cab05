//! A node without threads. Whoever holds it does their work, when it likes and one thing at a time: a
//! simulation, in virtual time. What is done is what the threads do, by the same functions.
//!
//! What a thread would wait for is asked of [`Stepped::wants`] instead. Two things a thread waits for
//! with a lock held are left alone until they can be had at once: what is being flushed must be in the
//! log first, and replicas come and go, and snapshots are begun, while nothing is being flushed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wire::ids::{NodeId, PartitionId, Zone};

use crate::catch_up;
use crate::clock::Rounds;
use crate::driver::{self, Item};
use crate::flush::{self, FrozenParts};
use crate::keeper;
use crate::lsm::LsmError;
use crate::node::{Node, NodeOptions, Surroundings};
use crate::partition::Partition;
use crate::pulse;
use crate::recover::{Assignment, OpenError};
use crate::requests::RequestSums;
use crate::snapshot::give::{self, Giver};
use crate::snapshot::take::Takes;
use crate::snapshot::taking::Taking;
use crate::wal;

/// See the module's text. Dropping it stops it as a crash would.
pub struct Stepped {
    /// First, so that it is dropped before the log's writer.
    node: Node,
    log: wal::Writer,
    /// What the log thread has taken and not made durable yet.
    taken: Option<Vec<Item>>,
    syncs: u64,
    flushing: Option<FrozenParts>,
    rounds: Rounds,
    takes: Takes,
    /// What is being taken in, the first in line.
    taking: Option<Arc<Taking>>,
    giver: Giver,
}

/// Of so many batches of the log one gets its mark, as if nothing came for a while: under load none does.
const MARKED_ONE_OF: u64 = 3;

/// What a node's threads would have to do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wants {
    /// Records that somebody waits for are to be logged, and none are on their way to the disk.
    pub log: bool,
    /// A replica is to be taken in or let go, or part of a snapshot came.
    pub keeper: bool,
    /// Part of a snapshot is asked for.
    pub giver: bool,
    /// Somebody lacks entries of the log.
    pub catch_up: bool,
    /// The memtables are full.
    pub flush: bool,
}

/// A snapshot on its way to a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fetched {
    /// Its partition.
    pub partition: PartitionId,
    /// Who fetches it.
    pub taker: u32,
    /// Who gives it.
    pub giver: u32,
    /// The log index it is of.
    pub index: u64,
}

/// A replica, as a moment shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its partition.
    pub partition: PartitionId,
    /// Who it is.
    pub identity: u32,
    /// Whether it has rows.
    pub is_storage: bool,
    /// Whether it leads, as it thinks.
    pub leads: bool,
    /// Whether it may answer reads.
    pub serves: bool,
    /// The log index it has applied.
    pub applied: u64,
    /// The log index up to which its rows are durable.
    pub flushed: u64,
    /// How far they may be: what it has applied and its own log holds durably.
    pub flushable: u64,
    /// Its log is cut behind this index.
    pub truncated: u64,
    /// Keys there are, by its counters.
    pub keys: u64,
    /// The time by which it hides what has expired, in ms since the epoch.
    pub now_ms: u64,
    /// The time that the group knows to have come, as far as it has applied.
    pub told_ms: u64,
}

impl Stepped {
    /// Opens a node's folder and recovers its replicas; see [`Node::open`].
    pub fn open(
        id: NodeId,
        zone: Zone,
        dir: &Path,
        options: NodeOptions,
        assignments: &[Assignment],
        surroundings: Surroundings,
    ) -> Result<Stepped, OpenError> {
        let (node, log) = Node::build(id, zone, dir, options, assignments, surroundings)?;
        let rounds = Rounds::new(node.shared().clock.instant());
        let (takes, taking, giver) = (Takes::default(), None, Giver::default());
        Ok(Stepped {
            node,
            log,
            taken: None,
            syncs: 0,
            flushing: None,
            rounds,
            takes,
            taking,
            giver,
        })
    }

    /// The node, to be called and sent frames.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What there is to do.
    pub fn wants(&self) -> Wants {
        let shared = self.node.shared();
        Wants {
            log: self.taken.is_none() && shared.work.lock().is_urgent(),
            keeper: !shared.keeper.is_empty(),
            giver: !shared.giver.is_empty(),
            catch_up: !shared.catch_ups.is_empty(),
            flush: *shared.flush_due.lock(),
        }
    }

    /// The log thread takes what waits for it; [`Stepped::end_sync`] makes it durable.
    pub fn begin_sync(&mut self) {
        if self.taken.is_none() {
            let work = std::mem::take(&mut *self.node.shared().work.lock()).items;
            self.taken = (!work.is_empty()).then_some(work);
        }
    }

    /// The log thread writes what it has taken, syncs, and tells.
    pub fn end_sync(&mut self) {
        if let Some(work) = self.taken.take() {
            driver::persist(self.node.shared(), &mut self.log, work);
            self.syncs += 1;
            if self.syncs.is_multiple_of(MARKED_ONE_OF) {
                driver::mark(self.node.shared(), &mut self.log);
            }
        }
    }

    /// The heartbeat's thread does what is due, and tells how long it rests.
    pub fn beat(&mut self) -> Duration {
        pulse::beat(self.node.shared())
    }

    /// The clock thread's round.
    pub fn tick(&mut self) {
        self.rounds.go(self.node.shared());
    }

    /// The flush thread: freezes, or brings in what was frozen once the log holds it.
    pub fn flush(&mut self) {
        let shared = self.node.shared();
        *shared.flush_due.lock() = false;
        let _one_at_a_time = shared.flushing.lock();
        let frozen = self.flushing.take().unwrap_or_else(|| flush::freeze(shared));
        if frozen.is_empty() {
            return;
        }
        if !flush::is_flushable(&frozen) {
            self.flushing = Some(frozen);
            return;
        }
        if let Err(error) = flush::bring_in(shared, &frozen) {
            tracing::error!(node = shared.id.0, %error, "flush failed, node stops");
            shared.stop();
        }
    }

    /// Whether something frozen waits for the log.
    pub fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// The keeper's thread does one thing, and the taker's what it can; false if they have to wait for a
    /// flush.
    pub fn keep(&mut self) -> bool {
        if self.flushing.is_some() {
            return false;
        }
        let shared = self.node.shared();
        let job = shared.keeper.try_pop();
        keeper::round(shared, &mut self.takes, job);
        if shared.is_stopping() {
            return true;
        }
        if self.taking.is_none() {
            self.taking = shared.taker.try_pop();
            self.taking.iter().for_each(|taking| taking.begin(shared));
        }
        if let Some(taking) = self.taking.take_if(|taking| taking.is_ready()) {
            taking.finish(shared);
        }
        true
    }

    /// The catch-up thread sends one part of the log.
    pub fn catch_up(&mut self) {
        let shared = self.node.shared();
        if let Some((partition, part)) = shared.catch_ups.try_pop() {
            catch_up::answer(shared, (&partition, part));
        }
    }

    /// The giver's thread answers one ask; false if it has to wait for the log.
    pub fn give(&mut self) -> bool {
        let shared = self.node.shared();
        let is_behind = |partition: &Arc<Partition>| {
            let core = partition.look();
            core.replica.flushable().0 < core.applied().index
        };
        if self.flushing.is_some() || shared.all_partitions().iter().any(is_behind) {
            return false;
        }
        let asked = shared.giver.try_pop();
        self.giver.answer(shared, asked);
        true
    }

    /// Drops stored rows that are dead, as compaction would.
    ///
    /// *Errors*: what the LSM says.
    pub fn compact(&self) -> Result<(), LsmError> {
        self.node.shared().lsm.compact_all()
    }

    /// Changes a bit of a stored row; false if there is none.
    pub fn damage_row(&self, at: u64) -> bool {
        self.node.shared().lsm.damage_row(at)
    }

    /// Reads all stored rows, as a scrub would: whether any is damaged, which the node knows then.
    pub fn is_damaged(&self) -> bool {
        let lsm = &self.node.shared().lsm;
        // An error that is none of damage tells nothing of it.
        let go_on = &mut |_, _| std::ops::ControlFlow::Continue(());
        let _ = lsm.scan_sealed(&[0], &[0xff; 64], commands::Direction::Forward, go_on);
        lsm.is_damaged()
    }

    /// Its replicas, storage replicas first.
    pub fn replicas(&self) -> Vec<Seen> {
        let shared = self.node.shared();
        let now = shared.clock.monotonic();
        let seen = |partition: Arc<Partition>| {
            let core = partition.look();
            // A log replica begins where the group's log does: nothing before is handed out to it.
            let begins = if partition.is_log() { core.replica.status().truncated.0 } else { 0 };
            Seen {
                partition: partition.id,
                identity: partition.identity.0,
                is_storage: !partition.is_log(),
                leads: core.replica.is_leader(),
                serves: core.serves(now),
                applied: core.applied().index.max(begins),
                flushed: core.flushed_index(),
                flushable: core.replica.flushable().0,
                truncated: core.replica.status().truncated.0,
                keys: core.applied().counters.keys,
                now_ms: core.now_ms(),
                told_ms: core.applied().now_ms,
            }
        };
        shared.all_replicas().into_iter().map(seen).collect()
    }

    /// The snapshots that it fetches and whose index it knows.
    pub fn fetches(&self) -> Vec<Fetched> {
        self.takes.known().collect()
    }

    /// The members of a partition's group, if this node leads it, may answer reads, and they are not
    /// changing: their identities.
    pub fn members(&self, partition: PartitionId) -> Option<Vec<u32>> {
        let shared = self.node.shared();
        let partition = shared.partitions.read().get(&partition).cloned()?;
        let core = partition.look();
        let config = core.replica.config();
        let members = config.members.iter().map(|member| member.id.0).collect();
        (core.serves(shared.clock.monotonic()) && !config.is_joint()).then_some(members)
    }

    /// The batches that a storage replica has applied behind an index and not flushed: log index, id,
    /// checksum of the effects.
    pub fn applied_after(&self, partition: PartitionId, index: u64) -> Vec<(u64, u64, u32)> {
        let found = self.node.shared().partitions.read().get(&partition).cloned();
        let Some(partition) = found else { return Vec::new() };
        let core = partition.look();
        let behind = core.unflushed().filter(|(at, _)| *at > index);
        behind.map(|(at, batch)| (*at, batch.id, batch.sum())).collect()
    }

    /// What a partition's storage replica knows of requests that may be made again: the index up to which
    /// it has forgotten them, and behind that, of each batch, its log index and a checksum.
    pub fn requests(&self, partition: PartitionId) -> Option<RequestSums> {
        let partition = self.node.shared().partitions.read().get(&partition).cloned()?;
        let core = partition.look();
        Some(core.requests().sums())
    }

    /// The rows of a partition's storage replica that somebody could read, as they are now; `None` if
    /// there is none here, or it is fetching them.
    ///
    /// *Errors*: rows that cannot be read.
    pub fn rows(&self, partition: PartitionId) -> Option<Result<StoredRows, LsmError>> {
        let shared = self.node.shared();
        let partition = shared.partitions.read().get(&partition).cloned()?;
        if partition.is_installing() {
            return None;
        }
        let captured = partition.look().capture(&shared.lsm);
        let rows = give::all_rows(partition.id, partition.range, &captured);
        Some(rows.map(|rows| shared.lsm.living(&rows)))
    }
}

/// Rows with their sealed values.
pub type StoredRows = BTreeMap<Bytes, Bytes>;

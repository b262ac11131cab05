//! A partition replica on its node: the core behind its lock, and what is done about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use wire::ids::PartitionId;
use wire::placement::PlacementRange;

use crate::agenda::{Agenda, Attention};
use crate::care::Care;
use crate::containment::{CoreGuard, CoreLock};
use crate::core::{Core, Now};
use crate::identity::log_group;
use crate::machine::Time;

/// See the module's text.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) range: PlacementRange,
    pub(crate) identity: paxos::NodeId,
    pub(crate) kind: paxos::MemberKind,
    /// The members that the group began with.
    pub(crate) founders: Vec<paxos::NodeId>,
    /// Its group in the node's log.
    pub(crate) log_group: u64,
    core: CoreLock,
    pub(crate) attention: Attention,
    agenda: Arc<Agenda>,
    pub(crate) care: Mutex<Care>,
    installing: AtomicBool,
    replacing: AtomicBool,
}

impl Partition {
    pub(crate) fn new(
        (id, range): (PartitionId, PlacementRange),
        (identity, kind): (paxos::NodeId, paxos::MemberKind),
        founders: Vec<paxos::NodeId>,
        (core, agenda): (Core, Arc<Agenda>),
    ) -> Partition {
        let log_group = log_group(id, identity);
        let (core, care) = (CoreLock::new(core), Mutex::default());
        let (installing, replacing) = (AtomicBool::new(false), AtomicBool::new(false));
        let attention = Attention::asleep();
        Partition {
            id,
            range,
            identity,
            kind,
            founders,
            log_group,
            core,
            attention,
            agenda,
            care,
            installing,
            replacing,
        }
    }

    /// Locks the core to change something: the clock thread looks at the replica afterwards.
    ///
    /// *Panics* if a panic left the core half changed; so does [`Partition::look`].
    pub(crate) fn lock(self: &Arc<Self>) -> CoreGuard<'_> {
        let core = self.core.lock();
        self.touch();
        core
    }

    /// Locks the core to look at it, or to change what makes nothing due.
    pub(crate) fn look(&self) -> CoreGuard<'_> {
        self.core.lock()
    }

    /// The same as [`Partition::lock`], whatever a panic left: for what only ends something.
    pub(crate) fn lock_anyway(self: &Arc<Self>) -> MutexGuard<'_, Core> {
        let core = self.core.lock_anyway();
        self.touch();
        core
    }

    /// The same as [`Partition::look`], whatever a panic left: for what only ends something, or tells
    /// an operator.
    pub(crate) fn look_anyway(&self) -> MutexGuard<'_, Core> {
        self.core.lock_anyway()
    }

    /// Called under the core's lock.
    fn touch(self: &Arc<Self>) {
        if self.attention.touch() {
            self.agenda.add(Arc::downgrade(self));
        }
    }

    /// Has the clock thread look at the replica, because of what was just noted in its care.
    pub(crate) fn wake(self: &Arc<Self>) {
        drop(self.lock());
    }

    /// Whether it has a log and no rows.
    pub(crate) fn is_log(&self) -> bool {
        self.kind == paxos::MemberKind::Log
    }

    /// Whether its rows are being fetched from another replica.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_installing(&self, installing: bool) {
        self.installing.store(installing, Ordering::Relaxed);
    }

    /// Whether fjall is being given other rows in place of this partition's: no flush brings it any of
    /// it then. Asked and changed by who holds the lock of flushes.
    pub(crate) fn is_replacing(&self) -> bool {
        self.replacing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_replacing(&self, replacing: bool) {
        self.replacing.store(replacing, Ordering::Relaxed);
    }
}

/// The node's clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    time: Time,
}

impl Clock {
    pub(crate) fn new(time: Time) -> Clock {
        Clock { origin: time.instant(), time }
    }

    /// This moment.
    pub(crate) fn instant(&self) -> Instant {
        self.time.instant()
    }

    /// The monotonic time.
    pub(crate) fn monotonic(&self) -> paxos::Instant {
        self.at(self.instant())
    }

    /// A moment as consensus counts time.
    pub(crate) fn at(&self, instant: Instant) -> paxos::Instant {
        paxos::Instant((instant - self.origin).as_micros() as u64)
    }

    /// Both times.
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.monotonic(), wall_ms: self.time.wall_ms() }
    }
}

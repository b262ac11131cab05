//! Support of one node by another: what leases rest on.
//!
//! ```text
//! supporter   gives support to a life of a node, in an epoch, until its own clock shows some time
//! requester   holds it, until its own clock shows a time that is certainly earlier
//! ```
//!
//! Both ends of a support are one number that only grows, or is withdrawn for good. The node's
//! [`crate::Liveness`] moves it once for all groups; each replica that rests on it keeps a handle,
//! so that asking for a lease is reading a few numbers.
//!
//! Withdrawal and extension meet in one atomic operation: a thread that is late with a heartbeat
//! cannot extend what another has found to be over and has acted upon.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::Instant;

/// One life of a node, from its start to its end. No two lives of any nodes have the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Life(pub u64);

/// Names a time for which a node supports another without a break.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch {
    /// The life of the node that gives the support: who has forgotten what it gave says another name.
    pub supporter: Life,
    /// Ascending within that life.
    pub count: u64,
}

/// A support in one epoch, seen from one of its ends.
#[derive(Clone, Debug)]
pub(crate) struct Support {
    /// Microseconds until which it lasts; [`WITHDRAWN`] if it is over for good.
    until: Arc<AtomicU64>,
}

/// No support lasts until the origin of time.
const WITHDRAWN: u64 = 0;

impl Support {
    pub(crate) fn new(until: Instant) -> Support {
        Support { until: Arc::new(AtomicU64::new(until.0)) }
    }

    /// Until when it lasts, as far as is known now.
    pub(crate) fn until(&self) -> Instant {
        Instant(self.until.load(Ordering::Acquire))
    }

    /// Whether it lasts at a time.
    pub(crate) fn is_live(&self, now: Instant) -> bool {
        now < self.until()
    }

    /// Makes it last longer. False if it has been withdrawn.
    pub(crate) fn extend(&self, until: Instant) -> bool {
        let longer =
            |now: u64| (now != WITHDRAWN || mutant!(WithdrawnReturns)).then_some(now.max(until.0));
        self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, longer).is_ok()
    }

    /// Ends it for good, if its time is over. True if it has ended.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let is_over = |until: u64| {
            (until != WITHDRAWN && (until <= now.0 || mutant!(WithdrawnEarly))).then_some(WITHDRAWN)
        };
        match self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_over) {
            Ok(_) => true,
            Err(until) => until == WITHDRAWN,
        }
    }
}

// By value: two replicas that rest on equal supports are equal.
impl PartialEq for Support {
    fn eq(&self, other: &Support) -> bool {
        self.until() == other.until()
    }
}

impl Eq for Support {}

impl Hash for Support {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.until().hash(state);
    }
}

/// All supports that a node gives and holds, shared by its [`crate::Liveness`], which writes them,
/// and its replicas, which look them up when a leader and a follower come to terms.
#[derive(Clone, Default, Debug)]
pub struct Supports {
    shared: Arc<Shared>,
}

#[derive(Default, Debug)]
struct Shared {
    life: Life,
    tables: Mutex<Tables>,
}

#[derive(Default, Debug)]
struct Tables {
    /// What this node gives, by the life it is given to.
    given: BTreeMap<Life, (Epoch, Support)>,
    /// What this node holds.
    held: BTreeMap<Epoch, Support>,
}

impl Supports {
    pub(crate) fn new(life: Life) -> Supports {
        Supports { shared: Arc::new(Shared { life, tables: Mutex::default() }) }
    }

    /// This node's life; nobody's for a node without liveness, which supports nobody.
    pub fn life(&self) -> Life {
        self.shared.life
    }

    /// The support that this node gives to a life of another.
    pub(crate) fn given(&self, to: Life) -> Option<(Epoch, Support)> {
        self.tables().given.get(&to).cloned()
    }

    /// The support that this node holds in an epoch.
    pub(crate) fn held(&self, epoch: Epoch) -> Option<Support> {
        self.tables().held.get(&epoch).cloned()
    }

    pub(crate) fn give(&self, to: Life, epoch: Epoch, support: Support) {
        self.tables().given.insert(to, (epoch, support));
    }

    pub(crate) fn forget_given(&self, to: Life) {
        self.tables().given.remove(&to);
    }

    pub(crate) fn hold(&self, epoch: Epoch, support: Support) {
        self.tables().held.insert(epoch, support);
    }

    pub(crate) fn forget_held(&self, epoch: Epoch) {
        self.tables().held.remove(&epoch);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No code under this lock can panic half way.
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// A replica's state is what it has heard; what its node supports is the same for all.
impl PartialEq for Supports {
    fn eq(&self, other: &Supports) -> bool {
        self.shared.life == other.shared.life
    }
}

impl Eq for Supports {}

impl Hash for Supports {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.life.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withdrawn_stays_withdrawn() {
        let support = Support::new(Instant(100));
        let shared = support.clone();
        assert!(!support.withdraw(Instant(99)) && support.is_live(Instant(99)));
        assert!(support.extend(Instant(200)) && support.extend(Instant(150)));
        assert_eq!(shared.until(), Instant(200));
        assert!(support.withdraw(Instant(200)) && support.withdraw(Instant(0)));
        assert!(!support.extend(Instant(300)) && !shared.is_live(Instant(0)));
    }

    #[test]
    fn extension_and_withdrawal_never_both_succeed() {
        for _ in 0..200 {
            let support = Support::new(Instant(100));
            let (extended, withdrawn) = std::thread::scope(|scope| {
                let extend = scope.spawn(|| support.extend(Instant(200)));
                let withdraw = scope.spawn(|| support.withdraw(Instant(100)));
                (extend.join().expect("no panic"), withdraw.join().expect("no panic"))
            });
            assert!(extended != withdrawn);
            assert_eq!(support.is_live(Instant(150)), extended);
        }
    }
}

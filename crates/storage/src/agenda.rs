//! Which replicas the clock thread has to look at, and when.
//!
//! ```text
//! asleep ──somebody locks the core to change something──▶ awake: looked at, at the next tick
//!    ▲                                                       │
//!    └── looked at since it was last touched, and nothing ───┘──▶ at some time: a timer
//!        is due at once                                            wakes it again
//! ```
//!
//! So a replica to which nothing happens costs nothing: no tick looks at it. Nobody has to say what a
//! change makes due; to have touched a replica is enough, and whoever takes its lock by
//! [`Partition::lock`] has.
//!
//! *Why no wake-up is lost.* A replica is touched under its core's lock, and put to sleep under it, by
//! the clock thread alone and only if nobody has touched it since the look began. What was done before
//! that was seen by the look. What is noted elsewhere (the care of a group) is noted before the touch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::partition::Partition;

const ASLEEP: u8 = 0;
const AWAKE: u8 = 1;
const TOUCHED: u8 = 2;

/// Whether the clock thread has to look at a replica.
#[derive(Debug)]
pub(crate) struct Attention(AtomicU8);

impl Attention {
    /// Of a replica that nobody has looked at yet, and that is on no list.
    pub(crate) fn asleep() -> Attention {
        Attention(AtomicU8::new(ASLEEP))
    }

    /// To be called under the core's lock. True if the replica slept until now.
    pub(crate) fn touch(&self) -> bool {
        // The lock orders what is done; this is read by each command.
        self.0.load(Ordering::Relaxed) != TOUCHED
            && self.0.swap(TOUCHED, Ordering::Relaxed) == ASLEEP
    }

    /// A timer is due. True if the replica slept until now.
    fn wake(&self) -> bool {
        self.0.compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The clock thread begins to look: what is touched from here on is looked at once more.
    pub(crate) fn begin(&self) {
        self.0.store(AWAKE, Ordering::Release);
    }

    /// The clock thread saw nothing to do; under the core's lock. False if the replica was touched
    /// since the look began: then it stays awake.
    pub(crate) fn sleep(&self) -> bool {
        self.0.compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The replicas that woke up since the clock thread last took them.
#[derive(Default, Debug)]
pub(crate) struct Agenda {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default, Debug)]
struct State {
    awake: Vec<Weak<Partition>>,
    rung: bool,
}

impl Agenda {
    pub(crate) fn add(&self, partition: Weak<Partition>) {
        let mut state = self.state.lock();
        state.awake.push(partition);
        if state.awake.len() == 1 {
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Has the clock thread look around at its next tick, though no replica is awake.
    pub(crate) fn ring(&self) {
        self.state.lock().rung = true;
        self.ready.notify_one();
    }

    /// Waits until a replica wakes up or somebody rings, but for no longer than this. Whoever woke up
    /// stays on the list.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if state.awake.is_empty() && !state.rung {
            self.ready.wait_for(&mut state, timeout);
        }
    }

    /// The replicas that woke up.
    pub(crate) fn take(&self) -> Vec<Weak<Partition>> {
        let mut state = self.state.lock();
        state.rung = false;
        std::mem::take(&mut state.awake)
    }
}

/// The clock thread's own: one timer at most for each replica that sleeps.
#[derive(Default, Debug)]
pub(crate) struct Timers {
    /// By the time and the replica's group in the log, which no other replica of the node has.
    due: BTreeMap<(paxos::Instant, u64), Weak<Partition>>,
    /// By group, the time it stands at.
    at: BTreeMap<u64, paxos::Instant>,
}

impl Timers {
    /// Sets a replica's timer, or removes it.
    pub(crate) fn set(&mut self, partition: &Arc<Partition>, at: Option<paxos::Instant>) {
        let group = partition.log_group;
        let old = match at {
            Some(at) => self.at.insert(group, at),
            None => self.at.remove(&group),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, group));
        }
        if let Some(at) = at {
            self.due.insert((at, group), Arc::downgrade(partition));
        }
    }

    /// How long until the first timer is due, at most so long.
    pub(crate) fn rest(&self, now: paxos::Instant, at_most: Duration) -> Duration {
        let first = self.due.first_key_value().map(|((at, _), _)| now.until(*at));
        first.map_or(at_most, |first| first.min(at_most))
    }

    /// Takes a replica whose timer is due and that slept until now.
    pub(crate) fn pop(&mut self, now: paxos::Instant) -> Option<Arc<Partition>> {
        while let Some(entry) = self.due.first_entry() {
            let (at, group) = *entry.key();
            if at > now {
                return None;
            }
            let partition = entry.remove().upgrade();
            self.at.remove(&group);
            if let Some(partition) = partition.filter(|partition| partition.attention.wake()) {
                return Some(partition);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_during_a_look_is_looked_at_again() {
        let attention = Attention::asleep();
        assert!(attention.touch(), "it slept");
        assert!(!attention.touch(), "it is on the list already");
        attention.begin();
        assert!(!attention.touch(), "it is being looked at");
        assert!(!attention.sleep(), "the look may have missed that");
        attention.begin();
        assert!(attention.sleep());
        assert!(!attention.sleep(), "it sleeps already");
        assert!(attention.wake() && !attention.wake());
        assert!(!attention.touch(), "the timer has put it on the list");
    }
}

//! Has an open batch sealed on behalf of those who wait for it.
//!
//! Each batch costs its round of the log, and a sync on each disk, however little is in it. So one connection
//! of those that wait for it seals it, and lets others join it before.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::core::Seat;
use crate::driver::Shared;
use crate::partition::{Clock, Partition};

/// The longest time that a batch waits for more to join it although nothing holds it back.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// So many turns of the thread in a row may bring nothing while writers are missing that came of late: some
/// 50 µs if it has nothing else to do.
const QUIET_TURNS_MAX: u32 = 50;

/// What its batch's sealer has to do. When it goes, the batch is sealed if nothing holds it back.
pub(crate) struct Sealing {
    shared: Weak<Shared>,
    clock: Clock,
    partition: Arc<Partition>,
    batch: u64,
}

impl Sealing {
    pub(crate) fn new(shared: &Arc<Shared>, partition: &Arc<Partition>, batch: u64) -> Sealing {
        let (clock, partition) = (shared.clock.clone(), Arc::clone(partition));
        Sealing { shared: Arc::downgrade(shared), clock, partition, batch }
    }

    /// Seals the batch at its time.
    ///
    /// *Cancel safety*: it is sealed then if it may be.
    pub(crate) async fn run(self, seat: Seat) {
        let is_called = match seat {
            Seat::Now => true,
            Seat::Later(called) => called.await.is_ok(),
        };
        if is_called {
            self.gather().await;
        }
    }

    /// Lets other connections' commands join the batch, as long as each turn of the thread brings more, and
    /// for some turns longer if there are fewer than most of those that write at once. The replies that
    /// opened the way for this batch bring their clients' next commands: taken together they cost one round
    /// of the log instead of several. An idle server waits one turn.
    async fn gather(&self) {
        let until = self.clock.instant() + GATHER_MAX;
        let mut quiet = 0;
        let mut known = self.partition.look_anyway().gathered(self.batch);
        while let Some(before) = known
            && self.clock.instant() < until
        {
            tokio::task::yield_now().await;
            known = self.partition.look_anyway().gathered(self.batch);
            quiet = if known == Some(before) { quiet + 1 } else { 0 };
            if quiet > if before.is_enough { 0 } else { QUIET_TURNS_MAX } {
                break;
            }
        }
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.contain("seal", || shared.seal(&self.partition, self.batch));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Instant;

    use tempfile::TempDir;
    use wire::service::{Answer, BoxFuture, Gate, GateOutcome};

    use super::*;
    use crate::alone::{PARTITION, PATIENCE, evaluate, leading, sync};
    use crate::core::Evaluated;
    use crate::machine::{Time, Timekeeper};
    use crate::node::NodeOptions;
    use crate::stepped::Stepped;

    /// Time that stands still.
    #[derive(Debug)]
    struct Still(Instant);

    impl Timekeeper for Still {
        fn origin(&self) -> Instant {
            self.0
        }

        fn monotonic_us(&self) -> u64 {
            1
        }

        fn wall_ms(&self) -> u64 {
            1
        }
    }

    struct Waiting {
        wait: BoxFuture<GateOutcome>,
        gate: Gate,
    }

    impl Waiting {
        /// Lets it have so many turns.
        fn turns(&mut self, count: u32) -> Option<GateOutcome> {
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..count {
                if let std::task::Poll::Ready(outcome) = self.wait.as_mut().poll(&mut context) {
                    return Some(outcome);
                }
            }
            None
        }
    }

    struct World {
        node: Stepped,
        _dir: TempDir,
    }

    impl World {
        /// A node without threads to which eight connections write at once.
        fn new() -> World {
            let dir = tempfile::tempdir().expect("a folder");
            let mut options = NodeOptions::default();
            options.machine.time = Time::Virtual(Arc::new(Still(Instant::now())));
            let mut world = World { node: leading(dir.path(), options), _dir: dir };
            let mut first = world.writes();
            assert_eq!(first.turns(3), None);
            assert!(!world.is_open(&first), "who is alone waits for nobody");
            let mut others: Vec<_> = (0..7).map(|_| world.writes()).collect();
            others.iter_mut().for_each(|other| assert_eq!(other.turns(1), None));
            assert!(world.is_open(&others[0]), "there is one before it");
            world.syncs(first);
            assert_eq!(others[0].turns(3), None);
            assert!(!world.is_open(&others[0]), "seven of eight are enough");
            others.into_iter().for_each(|other| world.syncs(other));
            world
        }

        fn writes(&self) -> Waiting {
            let Evaluated::Answer(Answer::Done { gate, .. }) = evaluate(&self.node, "INCR k")
            else {
                panic!("it leads")
            };
            let gate = gate.expect("it waits for the disk");
            Waiting { wait: self.node.node().wait(gate, PATIENCE), gate }
        }

        fn is_open(&self, waiting: &Waiting) -> bool {
            let partitions = self.node.node().shared().partitions.read();
            partitions[&PARTITION].look_anyway().is_open(waiting.gate.batch)
        }

        fn syncs(&mut self, mut waiting: Waiting) {
            sync(&mut self.node);
            assert_eq!(waiting.turns(1), Some(GateOutcome::Durable));
        }
    }

    #[test]
    fn a_batch_waits_for_most_of_those_that_wrote_of_late() {
        let mut world = World::new();
        let mut sealer = world.writes();
        assert_eq!(sealer.turns(QUIET_TURNS_MAX), None);
        assert!(world.is_open(&sealer));
        let mut others: Vec<_> = (0..6).map(|_| world.writes()).collect();
        others.iter_mut().for_each(|other| assert_eq!(other.turns(3), None));
        assert!(world.is_open(&sealer), "only one seals it");
        assert_eq!(sealer.turns(3), None);
        assert!(!world.is_open(&sealer));
        others.into_iter().chain([sealer]).for_each(|waiting| world.syncs(waiting));
    }

    #[test]
    fn who_does_not_come_is_not_waited_for_long() {
        let mut world = World::new();
        for _ in 0..20 {
            let mut sealer = world.writes();
            assert_eq!(sealer.turns(QUIET_TURNS_MAX + 3), None);
            assert!(!world.is_open(&sealer));
            world.syncs(sealer);
        }
        let mut alone = world.writes();
        assert_eq!(alone.turns(3), None);
        assert!(!world.is_open(&alone), "the others are forgotten");
        world.syncs(alone);
    }

    #[test]
    fn a_batch_whose_sealer_leaves_is_sealed_then() {
        let mut world = World::new();
        let mut sealer = world.writes();
        assert_eq!(sealer.turns(1), None);
        let other = world.writes();
        assert!(world.is_open(&other));
        drop(sealer);
        assert!(!world.is_open(&other));
        world.syncs(other);
        // Nor does it take a turn of its own.
        let (sealer, other) = (world.writes(), world.writes());
        drop(sealer);
        assert!(!world.is_open(&other));
        world.syncs(other);
    }
}

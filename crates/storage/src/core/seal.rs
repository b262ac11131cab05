//! From the open batch to a proposal, and who makes the step.

use paxos::ProposeError;
use tokio::sync::oneshot;
use wire::service::{Gate, GateOutcome};

use super::{Actions, Core, GROUP_BYTES, InFlight, Now, OpenBatch, Sealer};

/// An open batch waits for all who write at once but one of so many: all others would wait for the slowest.
const LEFT_OUT_OF: u64 = 8;
/// Of so many that wrote at once one is forgotten with each batch that has fewer.
const FORGOTTEN_OF: u64 = 8;

/// When the sealer of a batch is to begin.
pub(crate) enum Seat {
    /// Nothing holds it back.
    Now,
    /// Once this resolves.
    Later(oneshot::Receiver<()>),
}

/// What an open batch holds that may be sealed and is not too large to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gathered {
    writes: u64,
    /// There are most of those that write at once.
    pub(crate) is_enough: bool,
}

impl Core {
    /// Whether a batch is the open one.
    pub(crate) fn is_open(&self, batch: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.builder.id() == batch)
    }

    /// Whether there is an open batch that nothing holds back.
    pub(crate) fn may_seal(&self) -> bool {
        let is_large = |open: &OpenBatch| open.builder.len() >= GROUP_BYTES;
        self.open.as_ref().is_some_and(|open| self.in_flight.is_empty() || is_large(open))
    }

    /// The first connection that waits for the open batch takes the seat of its sealer; of one that is too
    /// large to wait for more, each does.
    pub(crate) fn take_seat(&mut self, gate: Gate) -> Option<Seat> {
        let may_seal = self.may_seal();
        let open = self.open.as_mut().filter(|open| open.builder.id() == gate.batch)?;
        let is_large = open.builder.len() >= GROUP_BYTES;
        match open.sealer {
            _ if is_large => Some(Seat::Now),
            Sealer::None if may_seal => {
                open.sealer = Sealer::Gathers;
                Some(Seat::Now)
            }
            Sealer::None => {
                let (call, called) = oneshot::channel();
                open.sealer = Sealer::Waits(call);
                Some(Seat::Later(called))
            }
            Sealer::Waits(_) | Sealer::Gathers => None,
        }
    }

    /// Has the open batch's sealer seal it soon; false if there is none, or the batch is too large
    /// to wait for more.
    pub(crate) fn call_sealer(&mut self) -> bool {
        let is_small = |open: &&mut OpenBatch| open.builder.len() < GROUP_BYTES;
        let Some(open) = self.open.as_mut().filter(is_small) else { return false };
        match std::mem::replace(&mut open.sealer, Sealer::Gathers) {
            Sealer::None => {
                open.sealer = Sealer::None;
                false
            }
            Sealer::Waits(call) => call.send(()).is_ok(),
            Sealer::Gathers => true,
        }
    }

    /// What a batch holds, if it is open and may be sealed and is not too large to wait.
    pub(crate) fn gathered(&self, batch: u64) -> Option<Gathered> {
        let is_small = |open: &&OpenBatch| open.builder.len() < GROUP_BYTES;
        let open = self.open.as_ref().filter(is_small).filter(|_| self.is_open(batch))?;
        let wanted = self.writers - self.writers / LEFT_OUT_OF;
        let gathered = Gathered { writes: open.writes, is_enough: open.writes >= wanted };
        self.may_seal().then_some(gathered)
    }

    /// A batch of so many writes was applied: those, and who came meanwhile, write at once.
    pub(super) fn note_writers(&mut self, applied: u64) {
        let waited = applied + self.open.as_ref().map_or(0, |open| open.writes);
        self.writers = waited.max(self.writers - self.writers.div_ceil(FORGOTTEN_OF));
    }

    /// Closes the open batch and proposes it.
    pub(crate) fn seal(&mut self, now: Now, actions: &mut Actions) {
        let Some(open) = self.open.take() else { return };
        match self.replica.may_propose(open.builder.closed_len()) {
            Ok(()) => {}
            Err(ProposeError::WindowFull) => {
                // The batch grows on and goes when the window moves.
                self.open = Some(OpenBatch { sealer: Sealer::None, ..open });
                return;
            }
            Err(ProposeError::NotLeader) => {
                self.lose(open, actions);
                return;
            }
        }
        let OpenBatch { builder, index, writes, news, .. } = open;
        let now_ms = self.now_ms;
        let batch = builder.id();
        let bytes = builder.finish(now_ms, self.tip.counters);
        let own = InFlight { index, batch, writes, now_ms, bytes: bytes.clone(), news };
        self.in_flight.push_back(own);
        let proposed = self.replica.propose(bytes, now.monotonic).expect("checked just above");
        assert_eq!(proposed.0, index, "only this core proposes in this group");
        self.replica.release_next();
    }

    pub(super) fn lose(&mut self, open: OpenBatch, actions: &mut Actions) {
        self.replica.release_next();
        if let Some(waiters) = self.waiters.get_mut(&open.index) {
            for waiter in waiters.extract_if(.., |waiter| waiter.batch == open.builder.id()) {
                actions.wakes.push((waiter.wake, GateOutcome::Lost));
            }
        }
    }
}

//! From the open batch to a proposal, and who makes the step.

use paxos::ProposeError;
use tokio::sync::oneshot;
use wire::service::{Gate, GateOutcome};

use super::{Actions, Core, GROUP_BYTES, InFlight, Now, OpenBatch, Sealer};

impl Core {
    /// Whether there is an open batch that nothing holds back.
    pub(crate) fn may_seal(&self) -> bool {
        let is_large = |open: &OpenBatch| open.builder.len() >= GROUP_BYTES;
        self.open.as_ref().is_some_and(|open| self.in_flight.is_empty() || is_large(open))
    }

    /// The first connection that waits for the open batch takes the seat of its sealer: resolves
    /// when it is to seal.
    pub(crate) fn take_seat(&mut self, gate: Gate) -> Option<oneshot::Receiver<()>> {
        let open = self.open.as_mut().filter(|open| open.builder.id() == gate.batch)?;
        if !matches!(open.sealer, Sealer::None) {
            return None;
        }
        let (call, called) = oneshot::channel();
        open.sealer = Sealer::Waits(call);
        Some(called)
    }

    /// Has the open batch's sealer seal it soon; false if there is none, or the batch is too large
    /// to wait for more.
    pub(crate) fn call_sealer(&mut self) -> bool {
        let is_small = |open: &&mut OpenBatch| open.builder.len() < GROUP_BYTES;
        let Some(open) = self.open.as_mut().filter(is_small) else { return false };
        match std::mem::replace(&mut open.sealer, Sealer::Called) {
            Sealer::None => {
                open.sealer = Sealer::None;
                false
            }
            Sealer::Waits(call) => call.send(()).is_ok(),
            Sealer::Called => true,
        }
    }

    /// How many writes the open batch holds, if it may be sealed and is not too large to wait.
    pub(crate) fn gathered(&self) -> Option<u64> {
        let open = self.open.as_ref().filter(|open| open.builder.len() < GROUP_BYTES)?;
        self.may_seal().then_some(open.writes)
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
        let OpenBatch { builder, index, news, .. } = open;
        let now_ms = self.now_ms;
        let batch = builder.id();
        let bytes = builder.finish(now_ms, self.tip.counters);
        self.in_flight.push_back(InFlight { index, batch, now_ms, bytes: bytes.clone(), news });
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

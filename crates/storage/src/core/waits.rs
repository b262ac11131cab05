//! Waits for gates: who wrote, or read what is not durable yet, waits for its index.

use tokio::sync::oneshot;
use wire::service::{Gate, GateOutcome};

use super::{Core, Waiter, outcome};

impl Core {
    /// Waits for a gate: its outcome if it is known, else a receiver that gets it.
    ///
    /// The receiver fails at the deadline, at the clock's next tick.
    pub(crate) fn wait(
        &mut self,
        gate: Gate,
        deadline: std::time::Instant,
    ) -> Result<GateOutcome, oneshot::Receiver<GateOutcome>> {
        if gate.index <= self.applied.index {
            let first = self.applied.index + 1 - self.recent.len() as u64;
            let chosen = gate.index.checked_sub(first).and_then(|at| self.recent.get(at as usize));
            return Ok(chosen.map_or(GateOutcome::Unknown, |(_, id)| outcome(gate.batch, *id)));
        }
        let (wake, receiver) = oneshot::channel();
        let waiter = Waiter { batch: gate.batch, deadline, wake };
        self.waiters.entry(gate.index).or_default().push(waiter);
        Err(receiver)
    }

    /// Ends the waits whose deadline has passed.
    pub(crate) fn end_waits(&mut self, now: std::time::Instant) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| waiter.deadline > now);
            !waiters.is_empty()
        });
    }

    /// Ends all waits: the node stops.
    pub(crate) fn abandon_waits(&mut self) {
        self.blocked.close();
        self.waiters.clear();
    }
}

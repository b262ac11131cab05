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
            let chosen = self.chosen_at(gate.index);
            return Ok(chosen.map_or(GateOutcome::Unknown, |id| outcome(gate.batch, id)));
        }
        if self.blocked.is_closed() {
            // Whoever would end the wait may have come by already.
            return Ok(GateOutcome::Unknown);
        }
        let (wake, receiver) = oneshot::channel();
        let waiter = Waiter { batch: gate.batch, deadline, wake };
        self.waiters.entry(gate.index).or_default().push(waiter);
        Err(receiver)
    }

    /// What became of another leader's proposal, as the leader now knows: it has applied all that its
    /// predecessors could propose. `None` if it does not lead, or has forgotten.
    pub(crate) fn outcome_of(&self, gate: Gate, now: paxos::Instant) -> Option<GateOutcome> {
        if !self.serves(now) {
            return None;
        }
        if gate.index <= self.applied.index {
            return self.chosen_at(gate.index).map(|id| outcome(gate.batch, id));
        }
        let is_own = self.in_flight.iter().any(|batch| batch.batch == gate.batch)
            || self.open.as_ref().is_some_and(|open| open.builder.id() == gate.batch);
        (!is_own).then_some(GateOutcome::Lost)
    }

    /// The id of the batch that was applied at an index, if that is remembered.
    fn chosen_at(&self, index: u64) -> Option<u64> {
        let first = self.applied.index + 1 - self.recent.len() as u64;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.recent.get(at).map(|(_, id)| *id)
    }

    /// Ends the waits whose deadline has passed.
    pub(crate) fn end_waits(&mut self, now: std::time::Instant) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| waiter.deadline > now);
            !waiters.is_empty()
        });
    }

    /// Ends all waits, those that are yet to come too: the node stops, or the replica goes.
    pub(crate) fn abandon_waits(&mut self) {
        self.blocked.close();
        self.waiters.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, PATIENCE};
    use crate::node::NodeOptions;

    #[test]
    fn nobody_waits_at_a_replica_that_is_gone() {
        let alone = Alone::open(NodeOptions::default());
        let partition = alone.partition();
        let mut core = partition.lock();
        let index = core.applied().index + 5;
        let gate = Gate { node: alone.shared().id, partition: partition.id, index, batch: 1 };
        let deadline = std::time::Instant::now() + PATIENCE;
        assert!(core.wait(gate, deadline).is_err(), "it is to come");
        core.clear();
        assert_eq!(core.wait(gate, deadline).ok(), Some(GateOutcome::Unknown));
    }
}

//! What an acceptor owes the leader it backs: see the crate's text, "The lease".

use std::time::Duration;

use crate::message::Message;
use crate::replica::{Replica, State};
use crate::support::{Epoch, Life, Support};
use crate::types::{Ballot, Instant, NodeId};

/// Until when a leader may count on an acceptor that has forgotten what it told: see the crate's text.
pub(crate) fn unknown_until(promised: Ballot, lease: Duration, now: Instant) -> Instant {
    if promised == Ballot::ZERO || mutant!(RestartForgetsLease) { now } else { now.after(lease) }
}

impl Replica {
    /// How long a leader that this acceptor has forgotten may still count on it.
    pub(crate) fn lease_left(&self, now: Instant) -> Duration {
        now.until(self.unknown_until)
    }

    /// Whether a leader on another node than the candidate's counts on this acceptor. The leader of
    /// `handed` has given up its lease, and with it those of its older ballots.
    pub(crate) fn refuses(&mut self, candidate: NodeId, handed: Ballot, now: Instant) -> bool {
        if mutant!(BackedDeposed) {
            return false;
        }
        self.backed.retain(|(_, support)| !support.withdraw(now));
        self.backed.iter().any(|(holder, _)| {
            let is_handed = holder.node() == handed.node() && *holder <= handed;
            holder.node() != candidate && !is_handed
        })
    }

    /// The leader of `handed` has given up its lease, for good in that ballot and older ones: the next
    /// hand-over need not wait for it either.
    pub(crate) fn end_leases(&mut self, handed: Ballot) {
        let is_over = |holder: &Ballot| holder.node() == handed.node() && *holder <= handed;
        self.backed.retain(|(holder, _)| !is_over(holder));
    }

    /// Backs the leader of a ballot for as long as this node supports its node's life. Returns the
    /// epoch in which it does.
    pub(crate) fn back(&mut self, ballot: Ballot, life: Life, now: Instant) -> Option<Epoch> {
        let (epoch, support) = self.supports.given(life)?;
        if !support.is_live(now) {
            return None;
        }
        // Others stay: who leads by now may have been elected by those who forgot them. What has ended
        // is withdrawn as it is forgotten: a heartbeat that was read before could extend it still, and
        // its leader count on who does not back it any more.
        self.backed
            .retain(|(holder, support)| holder.node() != ballot.node() && !support.withdraw(now));
        self.backed.push((ballot, support));
        self.was_supported = true;
        Some(epoch)
    }

    /// Whether the node of the leader that this follower hears is supported, by a time.
    pub(crate) fn is_supported(&self, now: Instant) -> bool {
        let Some((_, heard)) = self.heard else { return false };
        let is_heard =
            |(holder, support): &(Ballot, Support)| *holder == heard && support.is_live(now);
        matches!(self.state, State::Follower { .. })
            && !self.is_removed()
            && self.backed.iter().any(is_heard)
    }

    /// A leader has given up its lease.
    pub(crate) fn handle_release(&mut self, from: NodeId, ballot: Ballot, now: Instant) {
        if ballot.node() != from {
            return;
        }
        self.backed.retain(|(holder, _)| holder.node() != from || *holder > ballot);
        if let Some((_, heard)) = self.heard
            && heard.node() == from
            && heard <= ballot
        {
            self.heard = None;
            self.was_supported = false;
            self.patience = self.next_patience(now);
        }
    }

    /// Who is no member any more leads no more: its lease had ended when its removal was chosen.
    pub(crate) fn forget_removed(&mut self) {
        let config = &self.config;
        self.backed.retain(|(holder, _)| config.kind(holder.node()).is_some());
    }

    /// Tells somebody, or all, again that this node does not lead any more.
    pub(crate) fn release_again(&mut self, to: Option<NodeId>) {
        let ballot = self.led;
        if ballot == Ballot::ZERO || matches!(self.state, State::Leader(_)) {
            return;
        }
        match to {
            Some(to) => self.send(to, Message::Release { ballot }),
            None => self.send_all(Message::Release { ballot }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::Supports;
    use crate::types::{Options, Recovered};

    #[test]
    fn support_that_is_forgotten_is_never_extended() {
        let supports = Supports::new(Life(1));
        let epoch = |count| Epoch { supporter: Life(1), count };
        let old = Support::new(Instant(1_000));
        supports.give(Life(2), epoch(1), old.clone());
        let members = [1, 2, 3].map(NodeId);
        let (options, recovered) = (Options::default(), Recovered::default());
        let mut replica =
            Replica::new(NodeId(1), &members, options, recovered, supports.clone(), Instant(1), 7);
        let (first, second) = (Ballot::new(1, NodeId(2)), Ballot::new(2, NodeId(3)));
        assert_eq!(replica.back(first, Life(2), Instant(500)), Some(epoch(1)));
        supports.give(Life(3), epoch(2), Support::new(Instant(9_000)));
        assert_eq!(replica.back(second, Life(3), Instant(2_000)), Some(epoch(2)));
        assert!(!old.extend(Instant(9_000)), "a late heartbeat comes for nothing");
        assert!(!replica.backed.iter().any(|(holder, _)| *holder == first));
    }
}

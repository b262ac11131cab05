//! Changes of who is in the group, and members that need more than the log still holds.
//!
//! ```text
//! leader   joint configuration at i, chosen by the old members' majority; rules from i + 1 on
//!          waits until a majority of the new members holds everything up to i, chosen and durable
//!          new configuration at k > i, chosen by both majorities; rules from k + 1 on
//! ```
//!
//! Whoever campaigns under the new configuration alone so meets, in any majority of it, a member that
//! has everything the old members chose by themselves.

use crate::config::{Config, Member, MemberKind, Quorums};
use crate::leader::Leadership;
use crate::message::{Message, Output};
use crate::replica::{Replica, State};
use crate::types::{Index, Instant, NodeId, Record, Value};

/// Why the members are not changed; nothing happened then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// This replica does not lead with a lease, or has chosen nothing of its own yet.
    #[error("not the leader")]
    NotLeader,
    /// Another change, or a hand-over of leadership, has not ended.
    #[error("another change is under way")]
    InProgress,
    /// These members cannot follow those there are.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Replica {
    /// Who is in the group, as far as this replica knows.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether other members are on their way, as far as this replica knows: they are proposed and not
    /// chosen, or the old ones still count.
    pub fn is_changing(&self) -> bool {
        let is_open = matches!(&self.state, State::Leader(leadership) if leadership.config_open);
        self.config.is_joint() || is_open
    }

    /// Whether this replica may campaign: log replicas and strangers do not.
    pub(crate) fn may_lead(&self) -> bool {
        self.config.kind(self.me) == Some(MemberKind::Storage) || mutant!(LogReplicaLeads)
    }

    pub(crate) fn is_log_replica(&self) -> bool {
        self.config.kind(self.me) == Some(MemberKind::Log)
    }

    /// Replaces the members: one is added, removed, or replaced by another. The change has ended
    /// when [`Output::ConfigChanged`] tells a configuration without old members; if leadership is
    /// lost meanwhile, the next leader ends it or it never happened.
    pub fn change_members(
        &mut self,
        members: &[Member],
        now: Instant,
    ) -> Result<Index, ChangeError> {
        self.now = now;
        if !self.may_serve(now) {
            return Err(ChangeError::NotLeader);
        }
        let State::Leader(leadership) = &self.state else { return Err(ChangeError::NotLeader) };
        if self.config.is_joint() || leadership.is_closed() || self.reserved {
            return Err(ChangeError::InProgress);
        }
        let mut joint = self.config.joint(members).map_err(ChangeError::Invalid)?;
        if mutant!(SingleStepChange) {
            joint = joint.settled();
        }
        Ok(self.propose_config(&joint))
    }

    /// Tells that the host has begun something that [`Replica::propose`] is to put at
    /// [`Replica::next_index`]: this replica proposes nothing of its own there until
    /// [`Replica::release_next`].
    pub fn reserve_next(&mut self) {
        self.reserved = true;
    }

    /// Ends [`Replica::reserve_next`]: the host proposed it, or gave it up. What waited for that is
    /// proposed now.
    pub fn release_next(&mut self) {
        self.reserved = false;
        self.end_change();
    }

    fn propose_config(&mut self, config: &Config) -> Index {
        let index = self.put_proposal(Value::Config(config.encode()));
        if let State::Leader(leadership) = &mut self.state {
            leadership.config_open = !mutant!(ConfigWithoutBarrier);
        }
        index
    }

    /// Ends a change, once that is safe.
    pub(crate) fn end_change(&mut self) {
        let State::Leader(leadership) = &self.state else { return };
        let own_chosen = self.chosen >= leadership.serve_from;
        if !self.config.is_joint() || leadership.is_closed() || !own_chosen || self.reserved {
            return;
        }
        let settled = self.config.settled();
        let since = self.config.index;
        let has_joined = |id: &NodeId| {
            let at = self.members.iter().position(|member| member == id);
            // What this node has committed may be on other disks only, which may leave the group.
            let own = if mutant!(JoinedBeforeDurable) { self.chosen } else { self.flushable };
            (*id == self.me && own >= since) || at.is_some_and(|at| leadership.known[at] >= since)
        };
        let joined = settled.members.iter().filter(|member| has_joined(&member.id)).count();
        if joined * 2 > settled.members.len() || mutant!(ChangeBeforeCatchUp) {
            self.propose_config(&settled);
        }
    }

    /// Takes over a configuration that is known to be chosen, if it is newer.
    pub(crate) fn adopt(&mut self, config: Config) {
        if config.index <= self.config.index {
            return;
        }
        let all = config.all();
        let before = std::mem::replace(&mut self.members, all);
        self.quorums = Quorums::of(&config);
        self.confirmed = 0;
        let token = self.persist(Record::Config(config.clone()));
        self.config_tokens.push_back((config.index, token));
        self.outputs.push_back(Output::ConfigChanged { config: config.clone() });
        let index = config.index;
        self.config = config;
        self.forget_removed();
        let (me, now) = (self.me, self.now);
        match &mut self.state {
            // Positions have moved: what was counted by them is void.
            State::Follower { asking } => *asking = None,
            State::Candidate(_) => {
                self.step_down(now);
                self.patience = now;
            }
            State::Leader(leadership) => {
                leadership.config_open = false;
                // There are others to tell.
                leadership.rouse(now);
                leadership.move_positions(&before, &self.members);
                if leadership.inherits() {
                    // What may have been accepted above this index, other members know.
                    self.step_down(now);
                    self.patience = now;
                } else {
                    assert_eq!(leadership.next(), index.next(), "the log was closed");
                    self.dismiss(&before);
                    if self.config.kind(me).is_none() {
                        self.leave(now);
                    }
                }
            }
        }
    }

    /// Tells those who are no members any more, once: whoever misses it learns it when it campaigns.
    fn dismiss(&mut self, before: &[NodeId]) {
        let gone = |id: &&NodeId| **id != self.me && !self.members.contains(id);
        let gone: Vec<_> = before.iter().filter(gone).copied().collect();
        for id in &gone {
            self.send(*id, Message::Config { config: self.config.clone() });
        }
    }

    /// A leader that is no member any more hands over to whoever has most.
    fn leave(&mut self, now: Instant) {
        let State::Leader(leadership) = &self.state else { return };
        let ballot = leadership.ballot;
        let storage =
            |(_, id): &(usize, &NodeId)| self.config.kind(**id) == Some(MemberKind::Storage);
        let heirs = self.members.iter().enumerate().filter(storage);
        let heir = heirs.max_by_key(|(at, _)| leadership.known[*at]).map(|(_, id)| *id);
        self.step_down(now);
        if let Some(to) = heir {
            self.send(to, Message::TakeOver { ballot, chosen: self.chosen });
        }
    }

    /// Answers somebody who is no member by the newest configuration. True if it was so.
    pub(crate) fn is_outdated(&mut self, from: NodeId, config: Index) -> bool {
        let is_outdated = self.config.kind(from).is_none() && config <= self.config.index;
        if is_outdated {
            self.send(from, Message::Config { config: self.config.clone() });
        }
        is_outdated
    }

    pub(crate) fn is_removed(&self) -> bool {
        !self.config.is_joint()
            && self.config.kind(self.me).is_none()
            && self.me <= self.config.newest
    }

    /// A removed replica asks the members whether they know: until then they may need its promise.
    pub(crate) fn ask_to_leave(&mut self) {
        if self.is_removed() && !self.is_quorum(self.confirmed) {
            self.send_all(Message::Ask { question: 0, config: self.config.index });
        }
    }

    pub(crate) fn handle_config(&mut self, from: NodeId, config: Config, now: Instant) {
        let index = config.index;
        if index > self.config.index {
            self.step_down(now);
            self.adopt(config);
        }
        if index == self.config.index
            && self.is_removed()
            && !self.is_quorum(self.confirmed)
            && let Some(at) = self.position(from)
        {
            self.confirmed |= 1 << at;
            if self.is_quorum(self.confirmed) {
                self.outputs.push_back(Output::Removed);
            }
        }
    }

    // Snapshots.

    /// Tells that entries up to `index` take more room than they may: a leader then lets them go though
    /// a member's state machine lacks them, which gets a snapshot instead. What this replica's own
    /// state machine lacks is kept.
    pub fn let_go(&mut self, index: Index) {
        self.droppable = self.droppable.max(index);
    }

    /// Tells a member that only a snapshot helps.
    pub(crate) fn send_truncated(&mut self, to: NodeId, first: Index) {
        let through = self.truncated.max(self.flushed).min(self.chosen);
        self.send(to, Message::Truncated { first, through, config: self.config.clone() });
    }

    /// The host cannot read an entry for [`Output::ReadLog`]: the member gets a snapshot instead, if
    /// this replica's state machine has what the log has not.
    pub fn log_unreadable(&mut self, to: NodeId, first: Index) {
        if first <= self.flushed && !self.is_log_replica() {
            self.send_truncated(to, first);
        }
    }

    pub(crate) fn handle_truncated(
        &mut self,
        from: NodeId,
        (first, through): (Index, Index),
        config: Config,
    ) {
        let from_kind = config.kind(from);
        if config.index > self.config.index {
            // A leader that learns it from another has been replaced.
            self.step_down(self.now);
        }
        self.adopt(config);
        // An answer to what was asked long ago says nothing of what is lacking now.
        if through <= self.chosen || first <= self.chosen {
            return;
        }
        match self.config.kind(self.me) {
            // It needs no state: its log begins there.
            Some(MemberKind::Log) => self.skip_to(through),
            Some(MemberKind::Storage)
                if from_kind == Some(MemberKind::Storage) && !self.installing =>
            {
                let now = self.now;
                self.step_down(now);
                self.installing = true;
                self.outputs.push_back(Output::InstallSnapshot { from, at_least: through });
            }
            // Who is removed goes; and whether it had a state at all, it cannot tell any more.
            _ => {}
        }
    }

    /// The state machine now is a snapshot, durably: it holds everything up to `applied`, and
    /// `config` is what the replica it came from knew when it was taken.
    pub fn installed(&mut self, applied: Index, config: Config, now: Instant) {
        self.now = now;
        self.installing = false;
        self.adopt(config);
        if applied > self.chosen {
            self.skip_to(applied);
        }
    }

    /// No snapshot could be fetched; the replica will find out again what it needs.
    pub fn install_failed(&mut self) {
        self.installing = false;
    }

    /// Goes on behind entries that this log will never hold.
    fn skip_to(&mut self, index: Index) {
        assert!(!matches!(self.state, State::Leader(_)), "a leader has what it leads");
        self.log.truncate(index);
        self.faulty = self.faulty.split_off(&index.next());
        self.chosen = index;
        self.last = self.last.max(index);
        self.flushed = self.flushed.max(index);
        self.flushable = self.flushable.max(index);
        self.ahead_bytes = 0;
        self.truncated = index;
        self.need_sent = None;
        self.persist(Record::Skip(index));
    }
}

impl Leadership {
    /// What was known by position, by the positions that members have now.
    fn move_positions(&mut self, before: &[NodeId], after: &[NodeId]) {
        let was = |id: &NodeId| before.iter().position(|other| other == id);
        let from: Vec<_> = after.iter().map(was).collect();
        let (supports, flushed) = (&self.supports, &self.flushed);
        let (known, heard) = (&self.known, &self.heard);
        let moved = (
            from.iter().map(|at| at.and_then(|at| supports[at].clone())).collect(),
            from.iter().map(|at| at.and_then(|at| flushed[at])).collect(),
            from.iter().map(|at| at.map_or(Index(0), |at| known[at])).collect(),
            from.iter().map(|at| at.map_or(Instant::default(), |at| heard[at])).collect(),
        );
        (self.supports, self.flushed, self.known, self.heard) = moved;
    }
}

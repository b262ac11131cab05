//! Leading: proposing in a bounded window, counting votes, the lease, and what members lack.

use crate::config::MemberKind;
use crate::election::Candidacy;
use crate::message::{Message, Output, Role};
use crate::replica::{Held, ProposeError, Replica, State};
use crate::support::{Epoch, Support};
use crate::types::{Ballot, Entry, Index, Instant, NEVER, NodeId, Value};

use bytes::Bytes;

/// What only a leader knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leadership {
    pub(crate) ballot: Ballot,
    since: Instant,
    /// The index of the next proposal.
    next: Index,
    /// The first proposal not sent yet.
    unsent: Index,
    /// The first index proposed in this ballot; lower ones were chosen before.
    first_open: Index,
    /// This leader's own no-op: it may serve once that is chosen.
    pub(crate) serve_from: Index,
    /// Nothing is committed before: somebody else's lease may still run.
    commit_from: Instant,
    /// By member position: the support of its node, for as long as which it obeys nobody else.
    pub(crate) supports: Vec<Option<Support>>,
    /// By member position: how far its state machine is durable, as it said in this ballot.
    pub(crate) flushed: Vec<Option<Index>>,
    /// By member position: how far it has handed out, as it said in this ballot.
    pub(crate) known: Vec<Index>,
    /// By member position: when it last obeyed this ballot.
    pub(crate) heard: Vec<Instant>,
    /// A configuration is proposed and not chosen: nothing is proposed behind it.
    pub(crate) config_open: bool,
    transfer: Option<Transfer>,
    /// Bytes proposed and not chosen.
    window_bytes: usize,
    /// When members are told what they do not know; never while there is no such thing.
    next_heartbeat: Instant,
    /// How often members that are away were told in vain.
    in_vain: u32,
    /// Whom to ask for chosen entries this leader lacks; another one after each try.
    helper: NodeId,
    /// The last time such entries came.
    helped: Instant,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead, or not yet with a lease.
    #[error("not the leader")]
    NotLeader,
    /// The other one cannot lead: it is no member, or this replica itself.
    #[error("no candidate")]
    NoCandidate,
}

/// Leadership on its way to another member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Transfer {
    to: NodeId,
    /// When this leader gives up and leads on.
    until: Instant,
    /// What the target was told at once to be chosen.
    told: Option<Index>,
}

/// The index that a leader serves from that must not serve.
const NOWHERE: Index = Index(u64::MAX);
/// The time between two heartbeats to members that are away doubles so often.
const IN_VAIN_MAX: u32 = 6;

impl Leadership {
    /// Whether nothing may be proposed.
    pub(crate) fn is_closed(&self) -> bool {
        self.config_open || self.transfer.is_some()
    }

    /// Whether this leader only finishes what it inherited, a configuration at its end.
    pub(crate) fn inherits(&self) -> bool {
        self.serve_from == NOWHERE
    }

    /// The index of the next proposal.
    pub(crate) fn next(&self) -> Index {
        self.next
    }

    /// Has members told at once.
    pub(crate) fn rouse(&mut self, now: Instant) {
        self.tell_by(now);
    }

    /// Has members told by a time.
    pub(crate) fn tell_by(&mut self, time: Instant) {
        self.next_heartbeat = self.next_heartbeat.min(time);
        self.in_vain = 0;
    }

    pub(crate) fn next_deadline(&self, now: Instant) -> Instant {
        // What a quorum accepted meanwhile is committed as soon as that is allowed.
        if now < self.commit_from {
            self.next_heartbeat.min(self.commit_from)
        } else {
            self.next_heartbeat
        }
    }
}

impl Replica {
    /// Whether this replica leads. Its lease may have run out: see [`Replica::may_serve`].
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The index the next proposal gets, if this replica leads.
    pub fn next_index(&self) -> Index {
        match &self.state {
            State::Leader(leadership) => leadership.next,
            _ => self.last.next(),
        }
    }

    /// Whether this replica leads, holds a lease, and has handed out everything that was chosen
    /// before it led: only then what its host has applied is the newest state there is. Check it
    /// with a time read *after* the state was read.
    pub fn may_serve(&self, now: Instant) -> bool {
        match &self.state {
            State::Leader(leadership) => {
                self.chosen >= leadership.serve_from
                    && (now < self.lease_until(leadership) || mutant!(ServeWithoutLease))
            }
            _ => false,
        }
    }

    /// How far a member is, as it told this replica since it leads: its state machine is durable up to
    /// the first index (`None`: it told nothing), and it has handed out everything up to the second.
    /// `None` if this replica does not lead or the other is no member.
    pub fn progress(&self, member: NodeId) -> Option<(Option<Index>, Index)> {
        let State::Leader(leadership) = &self.state else { return None };
        let at = self.position(member)?;
        Some((leadership.flushed[at], leadership.known[at]))
    }

    /// Whether a member backs this replica, which leads: it answered in this ballot, and its node has
    /// supported this one without a break since.
    pub fn is_backed_by(&self, member: NodeId, now: Instant) -> bool {
        let State::Leader(leadership) = &self.state else { return false };
        let support = self.position(member).and_then(|at| leadership.supports[at].as_ref());
        support.is_some_and(|support| support.is_live(now))
    }

    /// Has all members tell anew how far they are: what they told before counts for nothing from here
    /// on, since their nodes may have started again without it. Returns how far they must be to have
    /// everything that is chosen; [`Replica::progress`] says when they are. `None` if this replica does
    /// not lead.
    pub fn call_roll(&mut self, now: Instant) -> Option<Index> {
        self.now = now;
        let State::Leader(leadership) = &mut self.state else { return None };
        leadership.known.fill(Index(0));
        leadership.rouse(now);
        Some(self.chosen)
    }

    /// Whether this replica hands its leadership over, and neither has nor gave up yet.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.state, State::Leader(leadership) if leadership.transfer.is_some())
    }

    /// Whether [`Replica::propose`] would take `bytes` of data now.
    pub fn may_propose(&self, bytes: usize) -> Result<(), ProposeError> {
        let State::Leader(leadership) = &self.state else { return Err(ProposeError::NotLeader) };
        let open = leadership.next.0 - 1 - self.chosen.0.max(leadership.first_open.0 - 1);
        let full = leadership.is_closed()
            || open >= self.options.window_entries
            || (open > 0 && leadership.window_bytes + bytes > self.options.window_bytes);
        if full { Err(ProposeError::WindowFull) } else { Ok(()) }
    }

    /// Proposes a value; it is accepted here and sent to the others with the next outputs.
    ///
    /// *Errors*: see [`ProposeError`]; nothing happened then.
    pub fn propose(&mut self, data: Bytes, now: Instant) -> Result<Index, ProposeError> {
        self.may_propose(data.len())?;
        self.now = now;
        Ok(self.put_proposal(Value::Data(data)))
    }

    /// Starts to lead with what phase 1 found.
    pub(crate) fn lead(&mut self, candidacy: Candidacy, now: Instant) {
        let Candidacy { ballot, chosen: (chosen, helper), accepted, commit_from, .. } = candidacy;
        let commit_from = if mutant!(CommitUnderOldLease) { now } else { commit_from };
        assert_eq!(self.promised, ballot, "a candidate that promised higher is none");
        // Catch-up may have gone on during phase 1.
        let known = if mutant!(CatchUpIgnored) { chosen } else { chosen.max(self.chosen) };
        let first_open = known.next();
        let members = self.members.len();
        self.state = State::Leader(Leadership {
            ballot,
            since: now,
            next: first_open,
            unsent: first_open,
            first_open,
            serve_from: first_open,
            commit_from,
            supports: vec![None; members],
            flushed: vec![None; members],
            known: vec![Index(0); members],
            heard: vec![now; members],
            config_open: false,
            transfer: None,
            window_bytes: 0,
            next_heartbeat: now,
            in_vain: 0,
            helper,
            helped: now,
        });
        self.outputs.push_back(Output::RoleChanged { role: Role::Leader });
        let last = accepted.last_key_value().map_or(0, |(index, _)| *index);
        let mut accepted = accepted;
        for index in first_open.0..=last {
            let inherited = accepted.remove(&index).filter(|_| !mutant!(InheritNothing));
            if mutant!(InheritMoved) && inherited.is_none() {
                continue;
            }
            let value = inherited.map_or(Value::Noop, |(_, value)| value);
            // One that was known when this leader asked for promises ruled over them.
            let is_config = matches!(value, Value::Config(_))
                && index > self.config.index.0
                && !mutant!(InheritPastConfig);
            self.put_proposal(value);
            if is_config {
                // Behind it others rule: once it is chosen, they are asked.
                let leadership = self.leadership();
                leadership.config_open = true;
                leadership.serve_from = NOWHERE;
                break;
            }
        }
        if !self.leadership().inherits() {
            self.open_leadership();
        }
        self.ask_helper();
        self.tick_leader(now);
    }

    /// Proposes the no-op whose choice shows that all of this leader's past is known.
    fn open_leadership(&mut self) {
        let serve_from = if mutant!(NoOwnNoop) {
            Index(self.leadership().next.0 - 1)
        } else {
            self.put_proposal(Value::Noop)
        };
        if !mutant!(ServeFromFirstInherited) {
            self.leadership().serve_from = serve_from;
        }
    }

    fn leadership(&mut self) -> &mut Leadership {
        match &mut self.state {
            State::Leader(leadership) => leadership,
            _ => unreachable!("only called while leading"),
        }
    }

    pub(crate) fn put_proposal(&mut self, value: Value) -> Index {
        let by = self.now.after(self.options.heartbeat);
        let leadership = self.leadership();
        let (ballot, index) = (leadership.ballot, leadership.next);
        leadership.next = index.next();
        leadership.window_bytes += value.len();
        leadership.tell_by(by);
        assert!(index > self.chosen, "only what is open is proposed");
        self.accept(Entry { index, ballot, value });
        index
    }

    /// Sends what was proposed since the last outputs, one message for all of it.
    pub(crate) fn flush_leader(&mut self) {
        let (chosen, now) = (self.chosen, self.now);
        let State::Leader(leadership) = &mut self.state else { return };
        if leadership.unsent == leadership.next {
            return;
        }
        let (ballot, first, next) = (leadership.ballot, leadership.unsent, leadership.next);
        leadership.unsent = next;
        let mut values = Vec::with_capacity((next.0 - first.0) as usize);
        let mut bytes = 0;
        for index in first.0..next.0 {
            let slot = self.log.get_mut(Index(index)).expect("held until it is chosen");
            slot.sent = now;
            bytes += slot.value.len();
            values.push((Index(index), slot.value.clone()));
            if bytes >= self.options.catch_up_bytes && index + 1 < next.0 {
                let values = std::mem::take(&mut values);
                bytes = 0;
                self.send_all(Message::Accept { ballot, values, chosen });
            }
        }
        self.send_all(Message::Accept { ballot, values, chosen });
        self.hold(Held::OwnAccepts { ballot, first, next }, now);
    }

    pub(crate) fn own_accepts_durable(
        &mut self,
        ballot: Ballot,
        first: Index,
        next: Index,
        now: Instant,
    ) {
        let Some(position) = self.position(self.me) else { return };
        for index in first.0..next.0 {
            self.vote(position, ballot, Index(index));
        }
        self.advance(now);
    }

    fn vote(&mut self, position: usize, ballot: Ballot, index: Index) {
        let mine = matches!(&self.state, State::Leader(leadership) if leadership.ballot == ballot);
        if !mine && !mutant!(CompletionByIndex) {
            return;
        }
        if let Some(slot) = self.log.get_mut(index)
            && (slot.ballot == ballot || mutant!(CompletionByIndex))
        {
            slot.votes |= 1 << position;
        }
    }

    pub(crate) fn handle_accepted(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        indexes: &[Index],
        now: Instant,
    ) {
        let Some(position) = self.position(from) else { return };
        for index in indexes {
            self.vote(position, ballot, *index);
        }
        self.obeyed(position, ballot, now);
        self.advance(now);
    }

    pub(crate) fn handle_heartbeat_ack(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        (flushed, chosen): (Index, Index),
        support: Option<Epoch>,
        now: Instant,
    ) {
        let Some(position) = self.position(from) else { return };
        let held = support.and_then(|epoch| self.supports.held(epoch));
        self.obeyed(position, ballot, now);
        if let State::Leader(leadership) = &mut self.state
            && leadership.ballot == ballot
        {
            let known = &mut leadership.flushed[position];
            *known = (*known).max(Some(flushed));
            leadership.known[position] = leadership.known[position].max(chosen);
            if held.is_some() {
                leadership.supports[position] = held;
            }
        }
        let flushed = self.flushed_by_all();
        let soon = now.after(self.options.heartbeat);
        if let State::Leader(leadership) = &mut self.state
            && (flushed > self.truncated || chosen < self.chosen)
        {
            leadership.tell_by(soon);
        }
        self.advance(now);
    }

    /// Whether an index is proposed in the ballot this replica leads in.
    pub(crate) fn proposes_at(&self, index: Index) -> bool {
        matches!(&self.state, State::Leader(leadership) if index >= leadership.first_open)
    }

    /// Hands out what a quorum has accepted, in order.
    fn advance(&mut self, now: Instant) {
        while let State::Leader(leadership) = &mut self.state {
            let index = self.chosen.next();
            if now < leadership.commit_from
                || index < leadership.first_open
                || index >= leadership.next
            {
                break;
            }
            let slot = self.log.get(index).expect("proposals are held until they are chosen");
            let bytes = slot.value.len();
            if !self.has_quorum(slot.votes) {
                let next = self.log.get(index.next());
                if mutant!(CommitOutOfOrder) && next.is_some_and(|slot| self.has_quorum(slot.votes))
                {
                    self.chosen = index;
                    continue;
                }
                break;
            }
            self.leadership().window_bytes -= bytes;
            self.hand_out_next();
        }
        self.settle();
        self.end_change();
        self.hand_over(now);
    }

    fn has_quorum(&self, votes: u64) -> bool {
        self.is_quorum(votes) || (mutant!(CommitWithoutQuorum) && votes != 0)
    }

    /// A member answered in a ballot, and so obeyed nobody else until then.
    fn obeyed(&mut self, position: usize, ballot: Ballot, now: Instant) {
        if let State::Leader(leadership) = &mut self.state
            && leadership.ballot == ballot
        {
            leadership.heard[position] = now;
        }
    }

    /// When a quorum, this node included, last was heard to obey this leader.
    fn obeyed_until(&self, leadership: &Leadership) -> Instant {
        let heard = |at: usize| Some(leadership.heard[at]);
        self.quorums.newest_common(heard, self.position(self.me)).unwrap_or_default()
    }

    /// Whether this replica leads without a lease, and yet a quorum obeyed it of late: what it reads is
    /// certain once something that it proposes *afterwards* is chosen. (A quorum then obeyed this ballot
    /// after the read, so nobody had committed anything in a higher one before.) The fallback for a group
    /// whose nodes cannot support each other.
    pub fn may_confirm(&self, now: Instant) -> bool {
        match &self.state {
            State::Leader(leadership) => {
                // Those that do not support this node are told twice in that time that it leads.
                let lately = self.options.heartbeat * 2;
                self.chosen >= leadership.serve_from
                    && self.obeyed_until(leadership).until(now) <= lately
            }
            _ => false,
        }
    }

    /// Until when a quorum, this node included, lets nobody else commit.
    fn lease_until(&self, leadership: &Leadership) -> Instant {
        if self.members.len() == 1 || self.options.lease.is_zero() {
            return NEVER;
        }
        let until = |at: usize| leadership.supports[at].as_ref().map(Support::until);
        let common = if mutant!(LeaseFromOne) {
            (0..self.members.len()).filter_map(until).max()
        } else {
            self.quorums.newest_common(until, self.position(self.me))
        };
        common.unwrap_or_default()
    }

    /// Hands leadership over to another member, without the pause that the end of a lease costs.
    /// Proposals are refused as if the window were full until the other leads, or until a lease time
    /// has passed without success.
    ///
    /// *Errors*: see [`TransferError`]; nothing happened then.
    pub fn transfer(&mut self, to: NodeId, now: Instant) -> Result<(), TransferError> {
        self.now = now;
        if !self.may_serve(now) {
            return Err(TransferError::NotLeader);
        }
        if to == self.me || self.config.kind(to) != Some(MemberKind::Storage) {
            return Err(TransferError::NoCandidate);
        }
        let until = now.after(self.options.lease);
        let Some(at) = self.position(to) else { return Err(TransferError::NoCandidate) };
        let leadership = self.leadership();
        if leadership.config_open {
            return Err(TransferError::NotLeader);
        }
        // What it said before is no sign that it is there now.
        leadership.known[at] = Index(0);
        leadership.transfer = Some(Transfer { to, until, told: None });
        leadership.rouse(now);
        self.hand_over(now);
        Ok(())
    }

    /// Goes on with a transfer: first the target hears what is chosen, then that it is to lead.
    fn hand_over(&mut self, now: Instant) {
        let chosen = self.chosen;
        let State::Leader(leadership) = &mut self.state else { return };
        let Some(transfer) = &mut leadership.transfer else { return };
        let (ballot, to) = (leadership.ballot, transfer.to);
        if now >= transfer.until {
            leadership.transfer = None;
            return;
        }
        if chosen.next() != leadership.next {
            return;
        }
        let at = self.members.iter().position(|member| *member == to);
        if at.is_some_and(|at| leadership.known[at] == chosen) {
            // From here on this node neither proposes nor serves in this ballot.
            if !mutant!(TransferKeepsLease) {
                self.step_down(now);
            }
            self.send(to, Message::TakeOver { ballot, chosen });
        } else if transfer.told != Some(chosen) {
            transfer.told = Some(chosen);
            let (truncate, life) = (self.truncated, self.supports.life());
            self.send(to, Message::Heartbeat { ballot, chosen, truncate, life });
        }
    }

    pub(crate) fn tick_leader(&mut self, now: Instant) {
        self.advance(now);
        let lease = self.options.lease;
        let State::Leader(leadership) = &self.state else { return };
        if now < leadership.next_heartbeat {
            return;
        }
        // Without a lease it still leads whoever obeys it; see `Replica::may_confirm`.
        let obeyed = self.obeyed_until(leadership);
        let lost = self.lease_until(leadership).max(leadership.since).max(obeyed).after(lease);
        if now > lost && !mutant!(LeaderStays) {
            // Nobody answers: whoever reaches a quorum shall lead.
            self.step_down(now);
            return;
        }
        let waits = now <= leadership.helped.after(lease) || mutant!(HelpAwaitedForever);
        if self.chosen.next() < leadership.first_open && !waits {
            // Nobody sends what is said to be chosen: who said so may be gone. Another phase 1 asks
            // those who are there, and re-proposes what they accepted of it.
            self.campaign(now);
            return;
        }
        self.tell(now);
        self.resend(now);
        self.ask_helper();
    }

    /// Tells members what they do not know.
    fn tell(&mut self, now: Instant) {
        let truncate = self.flushed_by_all();
        let mut is_news = truncate > self.truncated;
        self.truncate(truncate);
        let (chosen, life, heartbeat) = (self.chosen, self.supports.life(), self.options.heartbeat);
        let is_joint = self.config.is_joint();
        let State::Leader(leadership) = &self.state else { return };
        let has_lease = now < self.lease_until(leadership);
        let is_open = chosen.next() != leadership.next;
        is_news |= is_open || is_joint || leadership.is_closed() || now < leadership.commit_from;
        let mut are_all_away = has_lease && !is_news;
        let mut told = Vec::new();
        for (at, member) in self.members.iter().enumerate().filter(|(_, id)| **id != self.me) {
            let is_away = leadership.supports[at].as_ref().is_none_or(|it| !it.is_live(now));
            if is_news || is_away || leadership.known[at] < chosen {
                told.push(*member);
                are_all_away &= is_away;
            }
        }
        let leadership = self.leadership();
        let ballot = leadership.ballot;
        if told.is_empty() {
            leadership.next_heartbeat = NEVER;
        } else if are_all_away {
            leadership.next_heartbeat = now.after(heartbeat * (1 << leadership.in_vain));
            leadership.in_vain = IN_VAIN_MAX.min(leadership.in_vain + 1);
        } else {
            leadership.next_heartbeat = now.after(heartbeat);
        }
        for to in told {
            self.send(to, Message::Heartbeat { ballot, chosen, truncate, life });
        }
    }

    /// The index up to which every member's state machine is durable, or the host lets entries go.
    fn flushed_by_all(&self) -> Index {
        let State::Leader(leadership) = &self.state else { return Index(0) };
        if mutant!(TruncatePastSlowest) {
            return self.flushed;
        }
        // Log replicas have no state machine to lag.
        let others = self.members.iter().zip(&leadership.flushed).filter(|(id, _)| {
            **id != self.me && self.config.kind(**id) == Some(MemberKind::Storage)
        });
        let by_all =
            others.map(|(_, flushed)| flushed.unwrap_or_default()).fold(self.flushed, Index::min);
        by_all.max(self.droppable.min(self.flushed))
    }

    /// Sends again what a member has not accepted for too long.
    fn resend(&mut self, now: Instant) {
        let State::Leader(leadership) = &self.state else { return };
        let (ballot, chosen, unsent) = (leadership.ballot, self.chosen, leadership.unsent);
        let first = chosen.next().max(leadership.first_open);
        let resend = self.options.resend;
        let is_old =
            |index: &Index| self.log.get(*index).is_some_and(|slot| slot.sent.until(now) >= resend);
        let old: Vec<Index> = (first.0..unsent.0).map(Index).filter(is_old).collect();
        if mutant!(AcceptsNotRepeated) {
            return;
        }
        for position in 0..self.members.len() {
            let missing = |index: &Index| {
                let slot = self.log.get(*index)?;
                (slot.votes & 1 << position == 0).then(|| (*index, slot.value.clone()))
            };
            let values: Vec<_> = old.iter().filter_map(missing).collect();
            let to = self.members[position];
            if to == self.me {
                continue;
            }
            for values in in_parts(values, self.options.catch_up_bytes) {
                self.send(to, Message::Accept { ballot, values, chosen });
            }
        }
        for index in old {
            if let Some(slot) = self.log.get_mut(index) {
                slot.sent = now;
            }
        }
    }

    /// Asks a member for chosen entries that this leader lacks.
    fn ask_helper(&mut self) {
        let first = self.chosen.next();
        let State::Leader(leadership) = &self.state else { return };
        if first >= leadership.first_open {
            return;
        }
        // Only who is asked changes: any member has what is chosen, sooner or later.
        let helper = leadership.helper;
        let mut at = self.position(helper).unwrap_or(0);
        for _ in 0..self.members.len() {
            at = (at + 1) % self.members.len();
            if self.members[at] != self.me {
                break;
            }
        }
        self.leadership().helper = self.members[at];
        if helper != self.me {
            self.send(helper, Message::Need { first });
        }
    }

    /// Chosen entries came: ask for more where they came from, or go on.
    pub(crate) fn after_catch_up(&mut self, from: NodeId, now: Instant) {
        let first = self.chosen.next();
        let leadership = self.leadership();
        leadership.helped = now;
        if first < leadership.first_open {
            self.send(from, Message::Need { first });
        }
        self.advance(now);
    }
}

/// Values for several messages: each has as many bytes as one may, and what made it so many.
fn in_parts(values: Vec<(Index, Value)>, bytes_max: usize) -> Vec<Vec<(Index, Value)>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for (index, value) in values {
        bytes += value.len();
        part.push((index, value));
        if bytes >= bytes_max {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

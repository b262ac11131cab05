//! A member of a group: the acceptor, the learner, and the frame around election and leadership.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::backing;
use crate::config::{Config, MEMBERS_MAX, Quorums};
use crate::election::{Asking, Candidacy, Reported};
use crate::leader::Leadership;
use crate::log::{Log, Slot};
use crate::message::{Message, Output, Role};
use crate::support::{Life, Support, Supports};
use crate::types::{Ballot, Entry, Index, Instant, NodeId, Options, Record, Recovered, Value};

/// Why a value was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead.
    #[error("not the leader")]
    NotLeader,
    /// As many entries or bytes as the window holds are proposed and not chosen.
    #[error("the window is full")]
    WindowFull,
}

/// What a replica says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The role.
    pub role: Role,
    /// Who leads, as far as this replica knows.
    pub leader: Option<NodeId>,
    /// The ballot of that leader, or the highest promised.
    pub ballot: Ballot,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The highest index accepted.
    pub last_index: Index,
    /// Everything up to here is chosen and handed to the host.
    pub chosen: Index,
    /// Entries up to here are gone.
    pub truncated: Index,
    /// The host's state machine holds everything up to here durably.
    pub flushed: Index,
}

/// What a replica does by its role.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
    Follower { asking: Option<Asking> },
    Candidate(Candidacy),
    Leader(Leadership),
}

/// What waits until a record is durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Held {
    Send {
        to: NodeId,
        message: Message,
    },
    /// This node's own promise of its own ballot.
    OwnPromise {
        ballot: Ballot,
    },
    /// This node's own acceptance of what it proposed, from `first` to before `next`.
    OwnAccepts {
        ballot: Ballot,
        first: Index,
        next: Index,
    },
}

/// See the crate's text. The host calls `handle_*`, `propose`, `campaign` and `set_flushed` in any
/// order and takes all [`Output`]s by [`Replica::poll_output`] after each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    pub(crate) me: NodeId,
    /// All members, old and new ones, ascending: positions in here are bits of votes.
    pub(crate) members: Vec<NodeId>,
    pub(crate) config: Config,
    pub(crate) quorums: Quorums,
    /// The records of configurations that are not durable yet, in their order.
    pub(crate) config_tokens: VecDeque<(Index, u64)>,
    /// The host has promised somebody the next index.
    pub(crate) reserved: bool,
    /// The host fetches a snapshot.
    pub(crate) installing: bool,
    /// The host would rather have another member lead.
    pub(crate) reluctant: bool,
    /// Members that know of this replica's removal, by position.
    pub(crate) confirmed: u64,
    pub(crate) options: Options,
    pub(crate) state: State,
    pub(crate) promised: Ballot,
    /// The highest ballot seen anywhere: the next campaign goes above it.
    pub(crate) seen: Ballot,
    pub(crate) log: Log,
    /// What was accepted and cannot be read any more, above `chosen`: the index and the ballot.
    pub(crate) faulty: BTreeMap<Index, Ballot>,
    /// The highest index ever accepted.
    pub(crate) last: Index,
    /// Everything up to here is chosen and handed out.
    pub(crate) chosen: Index,
    /// The newest chosen mark given to the host's log.
    marked: Index,
    /// What the leader of `promised` says is chosen.
    pub(crate) announced: Index,
    pub(crate) truncated: Index,
    /// The host lets entries up to here go, whoever lacks them.
    pub(crate) droppable: Index,
    pub(crate) flushed: Index,
    /// Everything up to here is handed out and durable in this node's log.
    pub(crate) flushable: Index,
    /// Bytes of the entries from `flushable` to `chosen`.
    pub(crate) ahead_bytes: usize,
    /// The last time a leader was heard; the ballot it leads in.
    pub(crate) heard: Option<(Instant, Ballot)>,
    /// What this replica's node supports and by whom it is supported.
    pub(crate) supports: Supports,
    /// Leaders of ballots that were told that this acceptor promises nothing to another node while
    /// its own node supports theirs.
    pub(crate) backed: Vec<(Ballot, Support)>,
    /// Until when a leader may count on this acceptor that was told so before it started.
    pub(crate) unknown_until: Instant,
    /// The leader's node was supported when this replica last looked.
    pub(crate) was_supported: bool,
    /// The newest ballot this node led in and does not any more.
    pub(crate) led: Ballot,
    /// How often it asked others since it heard of a leader, or of any change.
    pub(crate) unheeded: u32,
    /// When a follower loses patience, a candidate tries again.
    pub(crate) patience: Instant,
    /// The newest time the host told.
    pub(crate) now: Instant,
    /// What was asked for last, when, and how often in vain before.
    pub(crate) need_sent: Option<(Instant, Index, usize)>,
    next_token: u64,
    /// The token of the newest record that must be synced.
    must_sync: u64,
    persisted: u64,
    held: VecDeque<(u64, Held)>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) random: u64,
}

impl Replica {
    /// A replica over what its host recovered; a new one over `Recovered::default()`. Entries known
    /// to be chosen are handed out at once.
    ///
    /// `members` are those the group began with. `me` need not be one of them: a replica that is to be
    /// added starts like that, and waits to hear of it.
    ///
    /// `supports` are those of this life of the node ([`crate::Liveness::supports`]). A replica is not
    /// made anew over the same log within one life: what it has told leaders would be forgotten, and
    /// its node's word would go on.
    ///
    /// *Panics* if there are no members or more than 64.
    pub fn new(
        me: NodeId,
        members: &[NodeId],
        options: Options,
        recovered: Recovered,
        supports: Supports,
        now: Instant,
        seed: u64,
    ) -> Replica {
        assert!(!members.is_empty() && members.len() <= MEMBERS_MAX);
        let config = recovered.config.filter(|_| !mutant!(ConfigForgotten));
        let config = config.unwrap_or_else(|| Config::initial(members));
        assert!((20..100).contains(&options.drift_margin_percent));
        let promised =
            recovered.entries.iter().map(|e| e.ballot).fold(recovered.promised, Ballot::max);
        let promised = recovered.faulty.iter().fold(promised, |ballot, (_, b)| ballot.max(*b));
        let promised = if mutant!(RestartForgetsPromise) { Ballot::ZERO } else { promised };
        let unknown_until = backing::unknown_until(promised, options.lease, now);
        let led = if promised.node() == me { promised } else { Ballot::ZERO };
        let mut replica = Replica {
            me,
            members: config.all(),
            quorums: Quorums::of(&config),
            config,
            config_tokens: VecDeque::new(),
            reserved: false,
            installing: false,
            reluctant: false,
            confirmed: 0,
            state: State::Follower { asking: None },
            promised,
            seen: promised,
            log: Log::default(),
            faulty: BTreeMap::new(),
            last: recovered.applied,
            chosen: recovered.applied,
            marked: recovered.chosen,
            announced: recovered.chosen,
            truncated: recovered.truncated,
            droppable: Index(0),
            flushed: recovered.applied,
            flushable: recovered.applied,
            ahead_bytes: 0,
            heard: None,
            supports,
            backed: Vec::new(),
            unknown_until,
            was_supported: false,
            led,
            unheeded: 0,
            patience: now,
            now,
            need_sent: None,
            next_token: 1,
            must_sync: 0,
            persisted: 0,
            held: VecDeque::new(),
            outputs: VecDeque::new(),
            random: (seed ^ 0x9e37_79b9_7f4a_7c15).max(1), // xorshift never leaves zero
            options,
        };
        replica.recover_log(recovered.entries, recovered.faulty, recovered.chosen);
        replica.patience = if promised.node() == me && promised != Ballot::ZERO {
            // The last leader's next incarnation: nobody is nearer to a lease.
            now.after(replica.options.heartbeat / 4)
        } else {
            replica.next_patience(now)
        };
        replica
    }

    /// Takes over what the host's log holds, and hands out what is known to be chosen.
    fn recover_log(&mut self, entries: Vec<Entry>, faulty: Vec<(Index, Ballot)>, mark: Index) {
        let applied = self.chosen;
        for entry in entries.into_iter().filter(|entry| entry.index > applied) {
            self.last = self.last.max(entry.index);
            self.log.put(entry, 0);
        }
        for (index, ballot) in faulty {
            let newer = self.log.get(index).is_some_and(|slot| slot.ballot >= ballot);
            if index > applied && !newer {
                self.last = self.last.max(index);
                let newest = self.faulty.entry(index).or_insert(ballot);
                *newest = ballot.max(*newest);
            }
        }
        while self.chosen < mark
            && self.log.get(self.chosen.next()).is_some()
            && !self.faulty.contains_key(&self.chosen.next())
        {
            self.hand_out_next();
        }
        // Nobody may have anything to say to this replica before its state machine is to be flushed.
        self.settle();
    }

    /// The replica as it is.
    pub fn status(&self) -> Status {
        let (role, leader) = match &self.state {
            State::Leader(_) => (Role::Leader, Some(self.me)),
            State::Candidate(_) => (Role::Candidate, None),
            State::Follower { .. } => (Role::Follower, self.heard.map(|(_, ballot)| ballot.node())),
        };
        let ballot = match (&self.state, self.heard) {
            (State::Leader(leadership), _) => leadership.ballot,
            (State::Follower { .. }, Some((_, ballot))) => ballot,
            _ => self.promised,
        };
        Status {
            role,
            leader,
            ballot,
            promised: self.promised,
            last_index: self.last,
            chosen: self.chosen,
            truncated: self.truncated,
            flushed: self.flushed,
        }
    }

    /// The limits this replica keeps.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Takes the next thing the host has to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush_leader();
            let known = if mutant!(MarkAnnounced) { self.announced } else { self.chosen };
            if known > self.marked {
                self.marked = known;
                self.persist(Record::Chosen(known));
            }
        }
        self.outputs.pop_front()
    }

    /// Everything persisted up to this token is durable.
    pub fn handle_persisted(&mut self, token: u64, now: Instant) {
        self.now = now;
        self.persisted = self.persisted.max(token);
        while let Some((needs, _)) = self.held.front()
            && *needs <= self.persisted
        {
            let (_, held) = self.held.pop_front().expect("just looked at");
            self.release(held, now);
        }
        self.settle();
        self.go_on_catching_up(now);
    }

    /// Counts records from 1 again: replicas that have written equally much, in another order or in an
    /// earlier life, are equal then. For whoever compares states; nothing else changes.
    ///
    /// *Panics* unless all that must be synced is durable, as the host has told.
    pub fn count_anew(&mut self) {
        let is_durable = self.must_sync <= self.persisted && self.config_tokens.is_empty();
        assert!(is_durable && self.held.is_empty(), "nothing rests on a token");
        self.log.forget_tokens();
        (self.next_token, self.must_sync, self.persisted) = (1, 0, 0);
    }

    /// How far the host's state machine may be made durable: what is above has been handed out but
    /// is not yet durable in this node's log. A state machine that outlives its log's tail would
    /// leave a leader without entries that its followers still need.
    pub fn flushable(&self) -> Index {
        self.flushable
    }

    /// Tells that the host's state machine holds everything up to `index` durably; see
    /// [`Replica::flushable`].
    pub fn set_flushed(&mut self, index: Index) {
        assert!(index <= self.chosen, "only chosen entries are applied");
        if index <= self.flushed {
            return;
        }
        self.flushed = index;
        let soon = self.now.after(self.options.heartbeat);
        match (&mut self.state, self.heard) {
            (State::Leader(leadership), _) => leadership.tell_by(soon),
            (State::Follower { .. }, Some((_, ballot))) => {
                // A leader with nothing to tell does not ask.
                let (to, chosen) = (ballot.node(), self.chosen);
                let message =
                    Message::HeartbeatAck { ballot, flushed: index, chosen, support: None };
                self.hold(Held::Send { to, message }, self.now);
            }
            _ => {}
        }
    }

    /// Takes a message from another member.
    pub fn handle_message(&mut self, from: NodeId, message: Message, now: Instant) {
        if from == self.me {
            return;
        }
        self.now = now;
        match message {
            Message::Ask { config, .. } | Message::Prepare { config, .. }
                if self.is_outdated(from, config) => {}
            Message::Ask { question, .. } => self.handle_ask(from, question, now),
            Message::Answer { question, leader_alive } => {
                self.handle_answer(from, question, leader_alive, now);
            }
            Message::Prepare { ballot, handed, first, .. } => {
                self.handle_prepare(from, ballot, (handed, first), now);
            }
            Message::Promise {
                ballot,
                chosen,
                first,
                accepted,
                faulty,
                next,
                lease_left_us,
                config,
            } => {
                if config.index > self.config.index && !mutant!(PromiseHidesConfig) {
                    // Promises of these members are not what it takes.
                    self.adopt(config);
                    return;
                }
                let lease_left = Duration::from_micros(lease_left_us);
                let reported = Reported { chosen, first, accepted, faulty, next };
                self.handle_promise(from, ballot, reported, lease_left, now);
            }
            Message::Accept { ballot, values, chosen } => {
                self.handle_accept(from, ballot, values, chosen, now);
            }
            Message::Accepted { ballot, indexes } => {
                self.handle_accepted(from, ballot, &indexes, now);
            }
            Message::Heartbeat { ballot, chosen, truncate, life } => {
                self.handle_heartbeat(from, ballot, (chosen, truncate), life, now);
            }
            Message::HeartbeatAck { ballot, flushed, chosen, support } => {
                self.handle_heartbeat_ack(from, ballot, (flushed, chosen), support, now);
            }
            Message::Release { ballot } => self.handle_release(from, ballot, now),
            Message::Reject { promised } => self.handle_reject(promised, now),
            Message::Need { first } => self.handle_need(from, first),
            Message::Chosen { entries } => self.handle_chosen(from, entries, now),
            Message::Truncated { first, through, config } => {
                self.handle_truncated(from, (first, through), config);
            }
            Message::Config { config } => {
                self.handle_config(from, config, now);
            }
            Message::TakeOver { ballot, chosen } => {
                self.handle_take_over(from, ballot, chosen, now)
            }
        }
    }

    /// Lets time pass: call it at [`Replica::next_deadline`] or more often.
    pub fn handle_tick(&mut self, now: Instant) {
        self.now = now;
        self.hand_out_more(now);
        match self.state {
            State::Leader(_) => self.tick_leader(now),
            State::Follower { .. } | State::Candidate(_) => self.tick_election(now),
        }
    }

    /// Support between this node and another began or ended: call it for each
    /// [`crate::LivenessOutput::Changed`].
    pub fn handle_liveness(&mut self, now: Instant) {
        if let State::Leader(leadership) = &mut self.state {
            leadership.rouse(now);
        }
        if std::mem::take(&mut self.unheeded) > 0 {
            self.patience = self.patience.min(self.next_patience(now));
        }
        self.handle_tick(now);
    }

    /// When the replica next has something to do of itself. Far in the future for a follower whose
    /// leader's node is supported and for a leader whose followers know all there is: such a group
    /// costs nothing.
    pub fn next_deadline(&self) -> Instant {
        match &self.state {
            State::Leader(leadership) => leadership.next_deadline(self.now),
            State::Follower { .. } if self.has_more() => self.now,
            State::Follower { .. } | State::Candidate(_) => self.election_deadline(),
        }
    }

    // The acceptor.

    /// Promises a higher ballot, to another node or to itself.
    pub(crate) fn promise(&mut self, ballot: Ballot, now: Instant) {
        let broken = mutant!(PromiseLowered) || mutant!(SameBallotAgain);
        assert!(ballot > self.promised || broken, "promises only rise");
        self.hand_out_all();
        self.step_down(now);
        // Whoever it was about to challenge is not the leader any more.
        self.state = State::Follower { asking: None };
        self.promised = ballot;
        self.seen = self.seen.max(ballot);
        self.heard = None;
        self.was_supported = false;
        self.persist(Record::Promise(ballot));
        // Time for the candidate to become leader before this one tries.
        self.patience = self.next_patience(now);
    }

    /// A sign of life of the leader of `ballot`. False if a higher ballot is promised.
    fn hear(&mut self, from: NodeId, ballot: Ballot, now: Instant) -> bool {
        if ballot.node() != from {
            // Only its own node leads in a ballot: no member of ours sends this.
            return false;
        }
        self.seen = self.seen.max(ballot);
        if ballot < self.promised {
            self.send(from, Message::Reject { promised: self.promised });
            return false;
        }
        if ballot > self.promised && !mutant!(AcceptKeepsPromise) {
            self.promise(ballot, now);
        }
        match &self.state {
            State::Follower { .. } => self.state = State::Follower { asking: None },
            State::Candidate(_) => self.become_follower(),
            State::Leader(_) => unreachable!("nobody else leads in this node's ballot"),
        }
        let first = self.heard.is_none_or(|(_, heard)| heard != ballot);
        self.heard = Some((now, ballot));
        if first {
            self.outputs.push_back(Output::RoleChanged { role: Role::Follower });
        }
        self.unheeded = 0;
        self.patience = self.next_patience(now);
        true
    }

    fn handle_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        values: Vec<(Index, Value)>,
        chosen: Index,
        now: Instant,
    ) {
        if !self.hear(from, ballot, now) {
            return;
        }
        let mut indexes = Vec::with_capacity(values.len());
        let bytes_max = self.options.keep_bytes.saturating_add(self.options.held_bytes);
        for (index, value) in values {
            // Sent again if it is not chosen without this one, fetched if it is.
            if index > self.last && self.log.bytes() > bytes_max {
                continue;
            }
            indexes.push(index);
            self.accept(Entry { index, ballot, value });
        }
        if !indexes.is_empty() {
            self.hold(Held::Send { to: from, message: Message::Accepted { ballot, indexes } }, now);
        }
        self.learn(chosen, now);
    }

    /// Accepts a value of the promised ballot, once.
    pub(crate) fn accept(&mut self, entry: Entry) {
        let broken = mutant!(AcceptKeepsPromise);
        assert!(entry.ballot == self.promised || broken, "accepting raises the promise first");
        if entry.index <= self.chosen {
            // Chosen already, and held: the value is the same by Paxos.
            return;
        }
        match self.log.get(entry.index) {
            Some(slot) if slot.ballot == entry.ballot => {
                assert!(slot.value == entry.value, "one value per ballot and index");
            }
            _ => {
                self.put(entry);
            }
        }
    }

    /// Takes an entry into the log, in memory and on disk.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.last = self.last.max(entry.index);
        self.faulty.remove(&entry.index);
        let token = self.persist(Record::Accept(entry.clone()));
        self.log.put(entry, token);
    }

    fn handle_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        (chosen, truncate): (Index, Index),
        life: Life,
        now: Instant,
    ) {
        if !self.hear(from, ballot, now) {
            return;
        }
        self.learn(chosen, now);
        // Held like an acceptance: the promise this ballot may just have raised comes first.
        let support = self.back(ballot, life, now);
        let (flushed, chosen) = (self.flushed, self.chosen);
        let message = Message::HeartbeatAck { ballot, flushed, chosen, support };
        self.hold(Held::Send { to: from, message }, now);
        self.truncate(truncate);
    }

    pub(crate) fn truncate(&mut self, through: Index) {
        let through = through.min(if self.is_log_replica() { self.chosen } else { self.flushed });
        if through > self.truncated {
            self.truncated = through;
            self.log.truncate(through);
            self.persist(Record::Truncate(through));
        }
    }

    // The learner; see `catch_up` too.

    /// Hands out the entry after `chosen`, which is known to be chosen and held.
    pub(crate) fn hand_out_next(&mut self) {
        let index = self.chosen.next();
        let slot = self.log.get(index).expect("a chosen entry is held when it is handed out");
        let value = slot.value.clone();
        self.ahead_bytes += slot.held_bytes();
        let config = match &value {
            Value::Config(bytes) => Config::decode(bytes, index),
            Value::Noop | Value::Data(_) => None,
        };
        self.outputs.push_back(Output::Commit { index, value });
        self.chosen = index;
        if let Some(config) = config {
            self.adopt(config);
        }
    }

    /// Looks which entries are both chosen and durable: those need not stay in memory. Called after
    /// anything was handed out or became durable.
    pub(crate) fn settle(&mut self) {
        let (chosen, persisted) = (self.chosen, self.persisted);
        while self.config_tokens.pop_front_if(|(_, token)| *token <= persisted).is_some() {}
        // Behind one there may be another already: what is behind the first waits for that.
        let config = self.config_tokens.front().map(|(index, _)| *index);
        while self.flushable < chosen
            && self.log.get(self.flushable.next()).is_none_or(|slot| slot.token <= persisted)
            && config.is_none_or(|config| self.flushable.next() < config)
        {
            self.flushable = self.flushable.next();
            let held = self.log.get(self.flushable).map_or(0, Slot::held_bytes);
            self.ahead_bytes = self.ahead_bytes.saturating_sub(held);
        }
        if self.flushable == chosen {
            self.ahead_bytes = 0;
        }
        if mutant!(FlushPastLog) {
            self.flushable = chosen;
        }
        let through = if mutant!(EvictNotDurable) { chosen } else { self.flushable };
        self.log.evict(through, self.options.keep_bytes);
    }

    // The frame.

    /// Whether members, bits by position, are a quorum.
    pub(crate) fn is_quorum(&self, set: u64) -> bool {
        self.quorums.is_met_by(set)
    }

    /// A member's position; `None` of somebody who is none.
    pub(crate) fn position(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| *member == node)
    }

    /// Sends a message to all other members.
    pub(crate) fn send_all(&mut self, message: Message) {
        let mut peers = self.members.iter().filter(|member| **member != self.me).peekable();
        while let Some(&to) = peers.next() {
            if peers.peek().is_none() {
                // The last one gets the message itself: cloning values is what costs here.
                self.outputs.push_back(Output::Send { to, message });
                return;
            }
            self.outputs.push_back(Output::Send { to, message: message.clone() });
        }
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Has a record written; returns its token.
    pub(crate) fn persist(&mut self, record: Record) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if record.must_sync() {
            self.must_sync = token;
        }
        self.outputs.push_back(Output::Persist { token, record });
        token
    }

    /// Holds something back until all promises and accepted entries so far are durable.
    pub(crate) fn hold(&mut self, held: Held, now: Instant) {
        let early = match &held {
            Held::Send { message: Message::Promise { .. }, .. } => mutant!(PromiseBeforeDurable),
            Held::Send { message: Message::Accepted { .. }, .. } => mutant!(AcceptedBeforeDurable),
            Held::OwnAccepts { .. } => mutant!(OwnVoteBeforeDurable),
            Held::OwnPromise { .. } | Held::Send { .. } => false,
        };
        if self.must_sync <= self.persisted || early {
            self.release(held, now);
        } else {
            self.held.push_back((self.must_sync, held));
        }
    }

    fn release(&mut self, held: Held, now: Instant) {
        match held {
            Held::Send { to, message } => self.send(to, message),
            Held::OwnPromise { ballot } => self.own_promise_durable(ballot, now),
            Held::OwnAccepts { ballot, first, next } => {
                self.own_accepts_durable(ballot, first, next, now);
            }
        }
    }

    /// Gives up leadership or candidacy.
    pub(crate) fn step_down(&mut self, now: Instant) {
        if let State::Leader(leadership) = &self.state {
            self.led = leadership.ballot;
            self.send_all(Message::Release { ballot: self.led });
        }
        if !matches!(self.state, State::Follower { .. }) {
            self.become_follower();
            self.patience = self.next_patience(now);
        }
    }

    fn become_follower(&mut self) {
        self.state = State::Follower { asking: None };
        self.outputs.push_back(Output::RoleChanged { role: Role::Follower });
    }
}

//! How a leader is found: asking around, then phase 1 for all open indexes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{Message, Output, Role};
use crate::replica::{Held, Replica, State};
use crate::types::{Ballot, Entry, Index, Instant, NEVER, NodeId, Value};

/// A follower asks half as often each time that it asked in vain, at most so many times.
const UNHEEDED_MAX: u32 = 4;

/// Bytes of an entry in a message besides its value, no fewer than it takes.
const ENTRY_BYTES: usize = 24;

/// A follower that misses the leader asks the others before it campaigns: a broken link to the
/// leader is no reason to depose it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Asking {
    question: u64,
    /// Members that miss the leader too, by position; this one included.
    missing: u64,
    /// When to ask again those that did not answer.
    repeat: Instant,
}

/// Nothing is accepted from here on: who is asked for this is only to know that the candidate gets on.
const ALL_TOLD: Index = Index(u64::MAX);

/// A candidate's phase 1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Candidacy {
    pub(crate) ballot: Ballot,
    promised_by: u64,
    /// By position: members that have told a part of what they accepted, and where the next begins.
    told: BTreeMap<usize, Index>,
    /// When to ask again those that did not promise; never before the own promise is durable.
    repeat: Option<Instant>,
    /// The furthest that a promise said is chosen, and who has it.
    pub(crate) chosen: (Index, NodeId),
    /// The newest accepted value of each open index.
    pub(crate) accepted: BTreeMap<u64, (Ballot, Value)>,
    /// Where members accepted what they cannot read any more: the member and its ballot.
    faulty: BTreeMap<u64, Vec<(usize, Ballot)>>,
    /// The ballot whose leader gave up its lease to this candidate; zero if none did.
    handed: Ballot,
    /// When the last lease granted to somebody else has surely ended.
    pub(crate) commit_from: Instant,
}

/// What an acceptor holds, or a part of it, as it tells a candidate.
#[derive(Debug)]
pub(crate) struct Reported {
    /// Everything up to here is chosen.
    pub(crate) chosen: Index,
    /// Where the part begins.
    pub(crate) first: Index,
    pub(crate) accepted: Vec<Entry>,
    pub(crate) faulty: Vec<(Index, Ballot)>,
    /// Where the next part begins.
    pub(crate) next: Option<Index>,
}

impl Replica {
    /// Starts a campaign now: for a first boot, where waiting would find out nothing. It does not
    /// while this node supports another that leads.
    pub fn campaign(&mut self, now: Instant) {
        self.campaign_after(Ballot::ZERO, now);
    }

    /// Tells that this replica is to lead only if no other member does: it waits longer before it asks
    /// around, so that those who could lead have begun by then.
    pub fn set_reluctant(&mut self, reluctant: bool) {
        self.reluctant = reluctant;
    }

    /// How much longer than others it waits.
    fn reluctance(&self) -> Duration {
        if self.reluctant { self.options.suspicion } else { Duration::ZERO }
    }

    fn campaign_after(&mut self, handed: Ballot, now: Instant) {
        self.now = now;
        // A change of members may be among it.
        self.hand_out_all();
        if !self.may_lead() || self.installing || self.refuses(self.me, handed, now) {
            return;
        }
        let mut ballot = Ballot::new(self.seen.max(self.promised).round() + 1, self.me);
        if mutant!(SameBallotAgain) && self.promised.node() == self.me {
            ballot = self.promised;
        }
        self.unheeded = 0;
        self.promise(ballot, now);
        self.state = State::Candidate(Candidacy {
            ballot,
            promised_by: 0,
            told: BTreeMap::new(),
            repeat: None,
            chosen: (self.chosen, self.me),
            accepted: BTreeMap::new(),
            faulty: BTreeMap::new(),
            handed,
            commit_from: now,
        });
        self.outputs.push_back(Output::RoleChanged { role: Role::Candidate });
        self.hold(Held::OwnPromise { ballot }, now);
    }

    pub(crate) fn tick_election(&mut self, now: Instant) {
        if self.is_supported(now) {
            return;
        }
        if std::mem::take(&mut self.was_supported) {
            // The others lose their support within a heartbeat of this: who asks at once is told that
            // the leader is alive.
            let spread = self.random_below(self.options.suspicion / 2);
            self.patience = now.after(self.options.heartbeat + spread + self.reluctance());
        }
        if now < self.patience {
            self.repeat(now);
            return;
        }
        self.step_down(now);
        // Who missed that this node leads no more is well content with it, and asks nobody.
        self.release_again(None);
        if !self.may_lead() || self.installing {
            self.patience = self.next_patience(now);
            self.ask_to_leave();
            return;
        }
        if self.members.len() == 1 || mutant!(CampaignUnasked) {
            self.campaign(now);
            return;
        }
        // A link that is broken for long is no reason to ask often, in each of many groups.
        let slower = 1 << self.unheeded.min(UNHEEDED_MAX);
        self.unheeded += 1;
        self.patience = now.after(now.until(self.next_patience(now)) * slower);
        let question = self.patience.0 ^ now.0.rotate_left(32);
        let missing = self.position(self.me).map_or(0, |at| 1 << at);
        let repeat = now.after(self.options.resend * slower);
        self.state = State::Follower { asking: Some(Asking { question, missing, repeat }) };
        let config = self.config.index;
        self.send_all(Message::Ask { question, config });
    }

    /// Asks again whoever did not answer a question or a Prepare.
    fn repeat(&mut self, now: Instant) {
        let slower = 1 << self.unheeded.min(UNHEEDED_MAX).saturating_sub(1);
        let (again, config) = (now.after(self.options.resend * slower), self.config.index);
        let (message, answered) = match &mut self.state {
            State::Follower { asking: Some(asking) } if asking.repeat <= now => {
                asking.repeat = again;
                (Message::Ask { question: asking.question, config }, asking.missing)
            }
            State::Candidate(candidacy) if candidacy.repeat.is_some_and(|at| at <= now) => {
                candidacy.repeat = Some(again);
                let Candidacy { ballot, handed, .. } = *candidacy;
                let first = Index(0);
                (Message::Prepare { ballot, handed, config, first }, candidacy.promised_by)
            }
            _ => return,
        };
        // Who has told all that it accepted does not hear how the others get on: it would campaign itself.
        let gets_on = match &self.state {
            State::Candidate(candidacy) => !candidacy.told.is_empty(),
            _ => false,
        };
        for position in 0..self.members.len() {
            let mut message = message.clone();
            if answered & 1 << position == 0 {
                if let (Message::Prepare { first, .. }, State::Candidate(candidacy)) =
                    (&mut message, &self.state)
                {
                    *first = candidacy.told.get(&position).copied().unwrap_or_default();
                }
                self.send(self.members[position], message);
            } else if gets_on
                && self.members[position] != self.me
                && let Message::Prepare { first, .. } = &mut message
            {
                *first = ALL_TOLD;
                self.send(self.members[position], message);
            }
        }
    }

    /// When a follower or candidate next has something to do.
    pub(crate) fn election_deadline(&self) -> Instant {
        if self.is_supported(self.now) {
            // The end of support is told.
            return NEVER;
        }
        let repeat = match &self.state {
            State::Follower { asking } => asking.as_ref().map(|asking| asking.repeat),
            State::Candidate(candidacy) => candidacy.repeat,
            State::Leader(_) => None,
        };
        repeat.map_or(self.patience, |repeat| repeat.min(self.patience))
    }

    pub(crate) fn handle_ask(&mut self, from: NodeId, question: u64, now: Instant) {
        let leader_alive = match &self.state {
            State::Leader(_) => true,
            State::Candidate(_) => false,
            State::Follower { .. } => self.heard.is_some_and(|(heard, ballot)| {
                let is_heard = heard.until(now) < self.options.suspicion;
                (is_heard || self.is_supported(now)) && ballot.node() != from
            }),
        };
        self.release_again(Some(from));
        if !leader_alive && std::mem::take(&mut self.unheeded) > 0 {
            // It is not alone any more.
            let spread = self.random_below(self.options.suspicion / 2);
            let soon = now.after(self.options.heartbeat + spread + self.reluctance());
            self.patience = self.patience.min(soon);
        }
        self.send(from, Message::Answer { question, leader_alive });
    }

    pub(crate) fn handle_answer(
        &mut self,
        from: NodeId,
        question: u64,
        leader_alive: bool,
        now: Instant,
    ) {
        let Some(position) = self.position(from) else { return };
        let State::Follower { asking: Some(asking) } = &mut self.state else { return };
        if asking.question != question {
            return;
        }
        if leader_alive {
            self.state = State::Follower { asking: None };
            return;
        }
        asking.missing |= 1 << position;
        let missing = asking.missing;
        if self.is_quorum(missing) {
            self.campaign(now);
        }
    }

    pub(crate) fn own_promise_durable(&mut self, ballot: Ballot, now: Instant) {
        let repeat = now.after(self.options.resend);
        let handed = match &mut self.state {
            State::Candidate(candidacy) if candidacy.ballot == ballot => {
                candidacy.repeat = Some(repeat);
                candidacy.handed
            }
            _ => return,
        };
        let config = self.config.index;
        self.send_all(Message::Prepare { ballot, handed, config, first: Index(0) });
        // A group of one grants leases to nobody else.
        let lease_left = match self.members.len() {
            1 => Duration::ZERO,
            _ => self.lease_left(now),
        };
        self.end_leases(handed);
        let held = self.held_above_chosen(Index(0), usize::MAX);
        self.handle_promise(self.me, ballot, held, lease_left, now);
    }

    /// A candidate asks for a promise, or for the next part of one.
    pub(crate) fn handle_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        (handed, first): (Ballot, Index),
        now: Instant,
    ) {
        if ballot.node() != from {
            return;
        }
        self.seen = self.seen.max(ballot);
        if ballot < self.promised && !mutant!(PromiseLowered) {
            self.send(from, Message::Reject { promised: self.promised });
            return;
        }
        if ballot != self.promised {
            // A leader that gave its lease up and was not heard is not to be waited for.
            self.release_again(None);
            if self.refuses(from, handed, now) {
                return;
            }
            self.promise(ballot, now);
        }
        let lease_left_us = self.lease_left(now).as_micros() as u64;
        self.end_leases(handed);
        let lease_left_us = if mutant!(LeaseHidden) { 0 } else { lease_left_us };
        if first > Index(0) {
            // It gets on with it.
            self.patience = self.next_patience(now);
        }
        let bytes_max = self.options.catch_up_bytes;
        let Reported { chosen, first, accepted, faulty, next } =
            self.held_above_chosen(first, bytes_max);
        let config = self.config.clone();
        let message = Message::Promise {
            ballot,
            chosen,
            first,
            accepted,
            faulty,
            next,
            lease_left_us,
            config,
        };
        self.hold(Held::Send { to: from, message }, now);
    }

    pub(crate) fn handle_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        reported: Reported,
        lease_left: Duration,
        now: Instant,
    ) {
        let Some(position) = self.position(from) else { return };
        let Reported { chosen, first, accepted, faulty, next } = reported;
        let State::Candidate(candidacy) = &mut self.state else { return };
        if candidacy.ballot != ballot {
            return;
        }
        candidacy.commit_from = candidacy.commit_from.max(now.after(lease_left));
        if chosen > candidacy.chosen.0 {
            candidacy.chosen = (chosen, from);
        }
        for entry in accepted {
            let newest = candidacy.accepted.entry(entry.index.0);
            let newest = newest.or_insert_with(|| (entry.ballot, entry.value.clone()));
            if (entry.ballot > newest.0) != mutant!(InheritOldest) {
                *newest = (entry.ballot, entry.value);
            }
        }
        for (index, ballot) in faulty {
            candidacy.faulty.entry(index.0).or_default().push((position, ballot));
        }
        let told = candidacy.told.entry(position).or_default();
        if first > *told {
            // A part between is missing, and asked for again.
            return;
        }
        if let Some(next) = next
            && !mutant!(PromiseInPart)
        {
            // A part that came twice is not asked on from twice.
            if next > *told {
                *told = next;
                let (handed, config) = (candidacy.handed, self.config.index);
                self.patience = self.next_patience(now);
                self.send(from, Message::Prepare { ballot, handed, config, first: next });
            }
            return;
        }
        candidacy.promised_by |= 1 << position;
        if self.knows_enough() {
            let State::Candidate(candidacy) =
                std::mem::replace(&mut self.state, State::Follower { asking: None })
            else {
                unreachable!("matched above")
            };
            self.lead(candidacy, now);
        }
    }

    /// Whether a quorum has promised and it is certain what may have been chosen.
    fn knows_enough(&self) -> bool {
        let State::Candidate(candidacy) = &self.state else { return false };
        let promised = candidacy.promised_by;
        if !self.is_quorum(promised) {
            return false;
        }
        candidacy.faulty.iter().all(|(index, reports)| {
            if *index <= candidacy.chosen.0.0 || mutant!(FaultyIsAbsent) {
                // It will be fetched.
                return true;
            }
            // A value that nobody can read is no reason to wait if a newer one is known. Else whoever
            // lost it has not answered, as far as this index goes.
            let known = candidacy.accepted.get(index).map_or(Ballot::ZERO, |(ballot, _)| *ballot);
            let newer = reports.iter().filter(|(_, ballot)| *ballot > known);
            let silent = newer.fold(0, |silent, (position, _)| silent | 1u64 << position);
            self.is_quorum(promised & !silent)
        })
    }

    /// A leader hands over to this node.
    pub(crate) fn handle_take_over(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        chosen: Index,
        now: Instant,
    ) {
        // Who has promised another ballot since has missed its turn.
        let obeys = ballot == self.promised && matches!(self.state, State::Follower { .. });
        if ballot.node() == from && obeys {
            self.learn(chosen, now);
            self.campaign_after(ballot, now);
        }
    }

    pub(crate) fn handle_reject(&mut self, promised: Ballot, now: Instant) {
        self.seen = self.seen.max(promised);
        let mine = match &self.state {
            State::Leader(leadership) => leadership.ballot,
            State::Candidate(candidacy) => candidacy.ballot,
            State::Follower { .. } => return,
        };
        if promised > mine {
            self.step_down(now);
        }
    }

    /// What this acceptor tells a candidate: all it holds from an index on, or as much of it as fits.
    ///
    /// Parts that are told one after the other, with the same promise, make a whole: what is accepted
    /// meanwhile was chosen, and is behind the `chosen` of a later part.
    pub(crate) fn held_above_chosen(&self, first: Index, bytes_max: usize) -> Reported {
        let chosen = self.chosen;
        let from = first.max(chosen.next());
        let (mut accepted, mut bytes) = (Vec::new(), 0);
        let mut next = self.log.first_from(from);
        while let Some(index) = next
            && (bytes < bytes_max || accepted.is_empty())
            && let Some(slot) = self.log.get(index)
        {
            let (ballot, value) = (slot.ballot, slot.value.clone());
            bytes += ENTRY_BYTES + value.len();
            accepted.push(Entry { index, ballot, value });
            next = self.log.first_from(index.next());
        }
        let faulty = self.faulty.range(from..next.unwrap_or(Index(u64::MAX)));
        let faulty = faulty.map(|(index, ballot)| (*index, *ballot)).collect();
        Reported { chosen, first, accepted, faulty, next }
    }

    /// A random moment one to two suspicion times from now.
    pub(crate) fn next_patience(&mut self, now: Instant) -> Instant {
        let suspicion = self.options.suspicion;
        now.after(suspicion + self.random_below(suspicion) + self.reluctance())
    }

    /// A random length of time, shorter than this one.
    pub(crate) fn random_below(&mut self, length: Duration) -> Duration {
        if length.is_zero() {
            return length;
        }
        // Xorshift: members must only differ, not surprise.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_micros(self.random % length.as_micros() as u64)
    }
}

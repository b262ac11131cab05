//! How a leader is found: asking around, then phase 1 for all open indexes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::log::Slot;
use crate::message::{Message, Output, Role};
use crate::replica::{Held, Replica, State};
use crate::types::{Ballot, Entry, Index, Instant, NEVER, NodeId, Value};

/// A follower asks half as often each time that it asked in vain, at most so many times.
const UNHEEDED_MAX: u32 = 4;

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

/// A candidate's phase 1.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Candidacy {
    pub(crate) ballot: Ballot,
    promised_by: u64,
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

/// What an acceptor holds, as it tells a candidate.
#[derive(Debug)]
pub(crate) struct Reported {
    /// Everything up to here is chosen.
    pub(crate) chosen: Index,
    pub(crate) accepted: Vec<Entry>,
    pub(crate) faulty: Vec<(Index, Ballot)>,
}

impl Replica {
    /// Starts a campaign now: for a first boot, where waiting would find out nothing. It does not
    /// while this node supports another that leads.
    pub fn campaign(&mut self, now: Instant) {
        self.campaign_after(Ballot::ZERO, now);
    }

    fn campaign_after(&mut self, handed: Ballot, now: Instant) {
        self.now = now;
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
            self.patience = now.after(self.options.heartbeat + spread);
        }
        if now < self.patience {
            self.repeat(now);
            return;
        }
        self.step_down(now);
        if !self.may_lead() || self.installing {
            self.patience = self.next_patience(now);
            self.ask_to_leave();
            self.release_again(None);
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
                (Message::Prepare { ballot, handed, config }, candidacy.promised_by)
            }
            _ => return,
        };
        for position in 0..self.members.len() {
            if answered & 1 << position == 0 {
                self.send(self.members[position], message.clone());
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
            self.patience = self.patience.min(now.after(self.options.heartbeat + spread));
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
        self.send_all(Message::Prepare { ballot, handed, config });
        // A group of one grants leases to nobody else.
        let lease_left = match self.members.len() {
            1 => Duration::ZERO,
            _ => self.lease_left(now),
        };
        self.end_leases(handed);
        self.handle_promise(self.me, ballot, self.held_above_chosen(), lease_left, now);
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
        let Reported { chosen, accepted, faulty } = reported;
        let State::Candidate(candidacy) = &mut self.state else { return };
        if candidacy.ballot != ballot {
            return;
        }
        candidacy.promised_by |= 1 << position;
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

    /// What this acceptor tells a candidate.
    pub(crate) fn held_above_chosen(&self) -> Reported {
        let chosen = self.chosen;
        let entry = |(index, slot): (Index, &Slot)| Entry {
            index,
            ballot: slot.ballot,
            value: slot.value.clone(),
        };
        let accepted = self.log.from(chosen.next()).into_iter().map(entry).collect();
        let faulty = self.faulty.iter().map(|(index, ballot)| (*index, *ballot)).collect();
        Reported { chosen, accepted, faulty }
    }

    /// A random moment one to two suspicion times from now.
    pub(crate) fn next_patience(&mut self, now: Instant) -> Instant {
        let suspicion = self.options.suspicion;
        now.after(suspicion + self.random_below(suspicion))
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

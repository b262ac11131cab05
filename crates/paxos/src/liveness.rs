//! One heartbeat per pair of nodes, for all groups that they share.
//!
//! ```text
//! requester A                                       supporter B
//!   beat(life a, sent t1, heard -)  ──────────────▶   knows that A is there; does A hear B?
//!               ◀─────────────  beat(life b, sent u1, heard (a, t1))
//!   beat(life a, sent t2, heard (b, u1))  ────────▶   A hears B: B supports a in epoch (b, 1) until
//!                                                     its clock shows the receipt of t2 + lease
//!               ◀─────────────  beat(sent u2, heard (a, t2), supports ((b, 1), t2))
//!   holds (b, 1) until t2 + lease less the margin
//! ```
//!
//! Each pair does this in both directions with the same messages, one every `heartbeat`.
//!
//! A group's lease is the support of its leader's node by a quorum of its members' nodes; see the
//! crate's text. So an idle group sends nothing, and ten thousand groups cost what one costs.
//!
//! # What must stay true
//!
//! 1. While A counts on B's support in an epoch, B has not withdrawn it: A counts from *sending*,
//!    B from *receipt*, and A for the drift margin less.
//! 2. Withdrawn support never returns: when B hears A again, that is another epoch.
//! 3. A node that starts again has another life, and its epochs other names. What it gave before it
//!    died has ended by its own clock a lease after it started; its replicas wait for that.
//! 4. Who does not hear B gets no support from B, though B hears it well: a leader that is deaf
//!    would be followed for ever.

use std::collections::{BTreeMap, VecDeque};

use crate::support::{Epoch, Life, Support, Supports};
use crate::types::{Instant, NodeId, Options};

/// The heartbeat of one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Beat {
    /// The sender's life.
    pub life: Life,
    /// The sender's time; only echoed.
    pub sent: Instant,
    /// The newest beat that the sender has heard from the receiver: its life and its time.
    pub heard: Option<(Life, Instant)>,
    /// The epoch (its count) in which the sender supports the life in `heard`, and the newest beat
    /// that it did so upon.
    pub supports: Option<(u64, Instant)>,
}

/// What the host has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LivenessOutput {
    /// Send a beat.
    Send {
        /// To which node.
        to: NodeId,
        /// What.
        beat: Beat,
    },
    /// Support began or ended between this node and another: call
    /// [`crate::Replica::handle_liveness`] of every replica.
    Changed,
}

/// What is known of one other node.
#[derive(Debug)]
struct Peer {
    /// Its newest life that was heard, and the newest beat of that.
    heard: Option<(Life, Instant)>,
    given: Option<Given>,
    held: Option<Held>,
}

/// Support that this node gives.
#[derive(Debug)]
struct Given {
    epoch: Epoch,
    support: Support,
    /// The newest beat it was extended upon.
    covered: Instant,
}

/// Support that this node holds.
#[derive(Debug)]
struct Held {
    epoch: Epoch,
    support: Support,
    was_live: bool,
}

/// A node's liveness among its peers: a function of beats and time. The host calls `handle_*` in any
/// order and takes all [`LivenessOutput`]s by [`Liveness::poll_output`] after each.
#[derive(Debug)]
pub struct Liveness {
    me: NodeId,
    life: Life,
    options: Options,
    peers: BTreeMap<NodeId, Peer>,
    supports: Supports,
    /// Given to lives that are over, as far as is known: nobody extends it, but its end is news.
    retired: Vec<(Life, Support)>,
    epochs: u64,
    next_beat: Instant,
    changed: bool,
    outputs: VecDeque<LivenessOutput>,
}

impl Liveness {
    /// The liveness of a node that starts. `life` must differ from that of any start of any node: a
    /// random number does.
    pub fn new(me: NodeId, life: Life, options: Options, now: Instant) -> Liveness {
        let life = if mutant!(LifeReturns) { Life(u64::from(me.0)) } else { life };
        Liveness {
            me,
            life,
            options,
            peers: BTreeMap::new(),
            supports: Supports::new(life),
            retired: Vec::new(),
            epochs: 0,
            next_beat: now,
            changed: false,
            outputs: VecDeque::new(),
        }
    }

    /// What this node's replicas rest on.
    pub fn supports(&self) -> Supports {
        self.supports.clone()
    }

    /// Exchanges beats with a node from now on. One that is heard is added by itself.
    pub fn add_peer(&mut self, node: NodeId, now: Instant) {
        if node != self.me && !self.peers.contains_key(&node) {
            self.peers.insert(node, Peer { heard: None, given: None, held: None });
            self.next_beat = self.next_beat.min(now);
        }
    }

    /// Takes the next thing the host has to do.
    pub fn poll_output(&mut self) -> Option<LivenessOutput> {
        let output = self.outputs.pop_front();
        if output.is_none() && std::mem::take(&mut self.changed) {
            return Some(LivenessOutput::Changed);
        }
        output
    }

    /// When there is something to do without a beat: one is due, or support ends.
    pub fn next_deadline(&self) -> Instant {
        let given = self.peers.values().filter_map(|peer| peer.given.as_ref());
        let given = given.map(|given| given.support.until());
        let held = self.peers.values().filter_map(|peer| peer.held.as_ref());
        let held = held.filter(|held| held.was_live).map(|held| held.support.until());
        let retired = self.retired.iter().map(|(_, support)| support.until());
        given.chain(held).chain(retired).fold(self.next_beat, Instant::min)
    }

    /// Lets time pass: call it at [`Liveness::next_deadline`] or more often.
    pub fn handle_tick(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            if let Some((life, _)) = peer.heard
                && peer.given.as_ref().is_some_and(|given| given.support.withdraw(now))
                && !mutant!(WithdrawnReturns)
            {
                peer.given = None;
                self.supports.forget_given(life);
                self.changed = true;
            }
            if let Some(held) = &mut peer.held
                && held.was_live
                && !held.support.is_live(now)
            {
                held.was_live = false;
                self.changed = true;
            }
        }
        let retired = self.retired.len();
        self.retired.retain(|(_, support)| !support.withdraw(now));
        self.changed |= self.retired.len() < retired;
        if now >= self.next_beat {
            self.next_beat = now.after(self.options.heartbeat);
            let peers: Vec<_> = self.peers.keys().copied().collect();
            peers.into_iter().for_each(|to| self.beat(to, now));
        }
    }

    fn beat(&mut self, to: NodeId, now: Instant) {
        let Some(peer) = self.peers.get(&to) else { return };
        let supports = peer.given.as_ref().map(|given| (given.epoch.count, given.covered));
        let beat = Beat { life: self.life, sent: now, heard: peer.heard, supports };
        self.outputs.push_back(LivenessOutput::Send { to, beat });
    }

    /// Takes a beat of another node.
    pub fn handle_beat(&mut self, from: NodeId, beat: Beat, now: Instant) {
        if from == self.me {
            return;
        }
        self.add_peer(from, now);
        // The echo of a recent time: the sender hears this node, and is not a life that is over.
        let hears_me = beat.heard.filter(|(life, _)| *life == self.life);
        let is_fresh = hears_me.is_some_and(|(_, sent)| sent.until(now) <= self.options.suspicion);
        if !self.hear(from, &beat, is_fresh, now) {
            return;
        }
        let mut news = hears_me.is_none();
        if hears_me.is_some() {
            if let Some((count, covered)) = beat.supports {
                self.take_support(from, Epoch { supporter: beat.life, count }, covered, now);
            }
            if is_fresh {
                news |= self.give_support(from, &beat, now);
            }
        }
        if news {
            // The other waits for this answer, once.
            self.beat(from, now);
        }
    }

    /// Notes that a peer is heard. False if this beat is of no use: older than what is known.
    fn hear(&mut self, from: NodeId, beat: &Beat, is_fresh: bool, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        match peer.heard {
            Some((life, sent)) if life == beat.life && beat.sent < sent => return false,
            Some((life, _)) if life == beat.life => {}
            // Which of two lives is over, an old message does not tell. Who lives answers.
            Some(_) if !is_fresh => {
                self.answer_stranger(from, beat, now);
                return false;
            }
            Some((life, _)) => {
                self.supports.forget_given(life);
                if let Some(given) = peer.given.take() {
                    self.retired.push((life, given.support));
                }
                if let Some(held) = peer.held.take() {
                    self.supports.forget_held(held.epoch);
                }
                self.changed = true;
            }
            None => {}
        }
        peer.heard = Some((beat.life, beat.sent));
        true
    }

    /// Tells a life that is not known that it is heard.
    fn answer_stranger(&mut self, to: NodeId, beat: &Beat, now: Instant) {
        let heard = Some((beat.life, beat.sent));
        let beat = Beat { life: self.life, sent: now, heard, supports: None };
        self.outputs.push_back(LivenessOutput::Send { to, beat });
    }

    /// A peer supports this node.
    fn take_support(&mut self, from: NodeId, epoch: Epoch, covered: Instant, now: Instant) {
        let covered = if mutant!(LeaseFromReceipt) { now } else { covered };
        let lease = if mutant!(LeaseWithoutMargin) {
            self.options.lease
        } else {
            self.options.leader_lease()
        };
        let until = covered.after(lease);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let held = match &mut peer.held {
            Some(held) if held.epoch == epoch => held,
            other => {
                if let Some(old) = other.take() {
                    self.supports.forget_held(old.epoch);
                }
                let support = Support::new(until);
                self.supports.hold(epoch, support.clone());
                self.changed = true;
                other.insert(Held { epoch, support, was_live: false })
            }
        };
        held.support.extend(until);
        let is_live = held.support.is_live(now);
        self.changed |= is_live != held.was_live;
        held.was_live = is_live;
    }

    /// Supports a peer that is well. True if this begins an epoch.
    fn give_support(&mut self, from: NodeId, beat: &Beat, now: Instant) -> bool {
        let until = now.after(self.options.lease);
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        if let Some(given) = &mut peer.given
            && (!given.support.withdraw(now) || mutant!(WithdrawnReturns))
            && given.support.extend(until)
        {
            given.covered = beat.sent;
            return false;
        }
        self.epochs += 1;
        let epoch = Epoch { supporter: self.life, count: self.epochs };
        let support = Support::new(until);
        self.supports.give(beat.life, epoch, support.clone());
        peer.given = Some(Given { epoch, support, covered: beat.sent });
        self.changed = true;
        true
    }
}

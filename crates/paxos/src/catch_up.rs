//! Learning what is chosen: from what the leader says, and by catch-up from those who have it.

use crate::log::Slot;
use crate::message::{Message, Output};
use crate::replica::{Replica, State};
use crate::types::{Entry, Index, Instant, NodeId};

impl Replica {
    /// The leader of the promised ballot says that everything up to `chosen` is.
    pub(crate) fn learn(&mut self, chosen: Index, now: Instant) {
        self.announced = self.announced.max(chosen);
        self.hand_out(self.options.hand_out_bytes);
        if self.chosen < self.announced {
            self.ask_for_missing(now);
        }
    }

    /// Whether this follower holds the next entry, and knows that it is chosen: that is handed out with
    /// the next message, or a tick.
    pub fn has_more(&self) -> bool {
        let is_certain = |slot: &Slot| slot.ballot == self.promised || mutant!(LearnAnyBallot);
        self.chosen < self.announced
            && matches!(self.state, State::Follower { .. })
            && self.log.get(self.chosen.next()).is_some_and(is_certain)
    }

    /// Hands out what [`Replica::has_more`] tells of until it is so many bytes.
    fn hand_out(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        while self.has_more() {
            let next = self.log.get(self.chosen.next());
            bytes += next.map_or(0, Slot::held_bytes);
            self.hand_out_next();
            if bytes >= bytes_max {
                break;
            }
        }
        self.settle();
    }

    /// Hands out all of it: the ballot by which this replica knows it is about to change.
    pub(crate) fn hand_out_all(&mut self) {
        if self.has_more() {
            self.hand_out(usize::MAX);
        }
    }

    /// Goes on with what was not handed out at once.
    pub(crate) fn hand_out_more(&mut self, now: Instant) {
        if self.has_more() {
            self.learn(self.announced, now);
        }
    }

    /// Asks the leader for the first entry missing, unless it was just asked for.
    fn ask_for_missing(&mut self, now: Instant) {
        let first = self.chosen.next();
        let Some((_, ballot)) = self.heard else { return };
        if self.installing || self.is_ahead_of_disk() || self.has_more() {
            return;
        }
        let mut tries = 0;
        if let Some((at, index, before)) = self.need_sent
            && index == first
        {
            if at.until(now) < self.options.resend || mutant!(CatchUpOnce) {
                return;
            }
            tries = before + 1;
        }
        self.need_sent = Some((now, first, tries));
        // The leader's own log may be damaged there: every other time another one is asked.
        let leader = self.members.iter().position(|member| *member == ballot.node());
        let mut to = self.members[(leader.unwrap_or(0) + tries.div_ceil(2)) % self.members.len()];
        if to == self.me || tries % 2 == 0 {
            to = ballot.node();
        }
        if to != self.me {
            self.send(to, Message::Need { first });
        }
    }

    /// So much was learned that is not durable yet that no more is asked for: others send as fast as
    /// they read.
    fn is_ahead_of_disk(&self) -> bool {
        self.ahead_bytes > self.options.catch_up_ahead_bytes
    }

    /// Asks on for what is missing, once what came before is durable.
    pub(crate) fn go_on_catching_up(&mut self, now: Instant) {
        let is_follower = matches!(self.state, State::Follower { .. });
        if is_follower && self.chosen < self.announced {
            self.ask_for_missing(now);
        }
    }

    pub(crate) fn handle_need(&mut self, from: NodeId, first: Index) {
        if first > self.chosen {
            return;
        }
        if first <= self.truncated {
            self.send_truncated(from, first);
            return;
        }
        if self.log.get(first).is_none() {
            let held = self.log.first_from(first);
            let end = held.map_or(self.chosen, |index| Index(index.0 - 1));
            let last = self.chosen.min(end);
            self.outputs.push_back(Output::ReadLog { to: from, first, last });
            return;
        }
        let mut entries = Vec::new();
        let (mut index, mut bytes) = (first, 0);
        while index <= self.chosen
            && bytes <= self.options.catch_up_bytes
            && let Some(slot) = self.log.get(index)
        {
            bytes += slot.value.len();
            entries.push(Entry { index, ballot: slot.ballot, value: slot.value.clone() });
            index = index.next();
        }
        self.send(from, Message::Chosen { entries });
    }

    pub(crate) fn handle_chosen(&mut self, from: NodeId, entries: Vec<Entry>, now: Instant) {
        let before = self.chosen;
        for mut entry in entries {
            let known = self.log.get(entry.index);
            if entry.index <= self.chosen {
                let same = known.is_none_or(|slot| slot.value == entry.value);
                assert!(same, "a chosen value never changes");
                continue;
            }
            if entry.index != self.chosen.next() || self.proposes_at(entry.index) {
                break;
            }
            let faulty = self.faulty.get(&entry.index).copied();
            match known {
                Some(slot) if slot.ballot >= entry.ballot && faulty.is_none() => {
                    assert!(slot.value == entry.value, "a chosen value never changes");
                }
                // Another value of an older ballot, which was not chosen; or this one, but then
                // with its newer ballot: a chosen entry is always passed on with a ballot as high
                // as one it was chosen in, so that it replaces what other members hold instead.
                // What was accepted here in a newer ballot and lost had this same value.
                _ => {
                    entry.ballot = faulty.unwrap_or_default().max(entry.ballot);
                    self.put(entry);
                }
            }
            self.hand_out_next();
        }
        self.settle();
        if self.chosen == before {
            // An answer that came twice: asking again at once would double the conversation.
            return;
        }
        if matches!(self.state, State::Leader(_)) {
            self.after_catch_up(from, now);
        } else {
            self.learn(self.announced, now);
        }
    }
}

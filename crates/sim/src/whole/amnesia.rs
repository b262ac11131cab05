//! A bit flips in what a member has just made durable, and who else holds that is out of reach.
//!
//! ```text
//! leader  ── entry ─┐     ┌─ chosen, applied ── cut off from the others ─────────▶
//! patient           └ sync ┘ dies, a bit flips ── starts again ─ elects with them
//! others     (miss it) ─────────────────────────────────────────────────────────▶
//! ```
//!
//! The patient knows at least that it has lost something there, and waits for the leader. If it takes what
//! cannot be read for the end of its log, it elects another leader with the others, and what was chosen
//! is chosen anew.
//!
//! By chance that hardly ever comes together. A node is damaged only while all others have applied all
//! that anybody has; what it loses can be missed only if it was accepted and is not applied
//! anywhere, which it is for the time of one message.

use std::sync::Arc;

use wire::ids::PartitionId;
use wire::peer::{Frame, Kind};

use super::agree::place_of;
use super::faults::Fault;
use super::world::{Event, PARTITIONS, World};
use crate::random::Random;

/// How many of a thousand runs have this in it, if they are not gentle.
const PER_MILLE: u64 = 400;
/// When the first is tried, and how long after one the next.
const GAP_US: (u64, u64) = (200_000, 1_500_000);
/// How long it is waited for a moment at which all have everything, and for an entry after it.
const PATIENCE_US: u64 = 600_000;
/// How long the patient is dead: the leader has heard its last words by then.
const DOWN_US: (u64, u64) = (100_000, 300_000);
/// How long the leader is cut off: the others elect another.
const APART_US: u64 = 4_000_000;

/// Has its own chance, so that the other runs stay what they are.
#[derive(Debug)]
pub(crate) struct Amnesia {
    random: Random,
    stage: Stage,
    /// When it goes on to the next stage, or begins anew.
    due_us: u64,
    /// Whose log was synced by this event.
    pub(super) synced: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Never in this run.
    Never,
    Rests,
    /// For a moment at which all have everything.
    Waits(PartitionId),
    /// Who is to miss the next entry hears nobody who has it.
    Listens(Plot),
    /// The patient is dead, and the leader may choose what that has accepted.
    Struck(Plot),
    /// Whoever has the entry is out of reach.
    Apart,
}

#[derive(Clone, Copy, Debug)]
struct Plot {
    partition: PartitionId,
    /// The highest index applied anywhere before.
    newest: u64,
    leader: usize,
    patient: usize,
    life: u64,
    /// Who may have the entry, but for the patient: a bit for each place.
    holders: u64,
}

impl Amnesia {
    pub(crate) fn new(seed: u64, gentle: bool) -> Amnesia {
        let mut random = Random::new(seed, "amnesia");
        let stage = if random.chance(PER_MILLE) && !gentle { Stage::Rests } else { Stage::Never };
        let due_us = random.between(GAP_US.0, GAP_US.1);
        Amnesia { random, stage, due_us, synced: None }
    }

    /// Until when no other fault strikes, and faults do not stop.
    pub(super) fn needs_peace_until(&self) -> Option<u64> {
        let is_on = matches!(self.stage, Stage::Listens(_) | Stage::Struck(_) | Stage::Apart);
        is_on.then_some(self.due_us)
    }
}

impl World<'_> {
    /// Goes on, after an event, with what was begun.
    pub(super) fn forget_more(&mut self) {
        let now = self.now.get();
        let is_due = now >= self.amnesia.due_us;
        match self.amnesia.stage {
            Stage::Never => {}
            Stage::Rests if is_due && !self.calm => {
                let partition = self.amnesia.random.pick(&PARTITIONS);
                self.enter(Stage::Waits(partition), PATIENCE_US);
            }
            Stage::Waits(partition) if !is_due && !self.calm => {
                if let Some(plot) = self.plot(partition) {
                    self.keep_from_rest(plot);
                    self.enter(Stage::Listens(plot), PATIENCE_US);
                }
            }
            Stage::Struck(plot) if self.watch.newest(plot.partition) > plot.newest => {
                self.note(|| format!("FORGOTTEN {plot:?}"));
                self.ether.network(|network| network.split(plot.holders));
                self.enter(Stage::Apart, APART_US);
            }
            Stage::Listens(plot) if self.watch.newest(plot.partition) > plot.newest => self.rest(),
            Stage::Waits(_) | Stage::Listens(_) | Stage::Struck(_) | Stage::Apart if is_due => {
                self.rest();
            }
            Stage::Rests | Stage::Waits(_) | Stage::Listens(_) => {}
            Stage::Struck(_) | Stage::Apart => {}
        }
    }

    /// Faults stop, once this has come to its end.
    pub(super) fn calm_in_time(&mut self) {
        match self.amnesia.needs_peace_until() {
            Some(until) if until > self.now.get() => {
                self.calm_at = until;
                self.at(until, Event::Calm);
            }
            _ => self.calm(),
        }
    }

    /// What was said by the last event. If the patient's log was synced by it, and it says so to the leader,
    /// the patient is struck.
    pub(super) fn forget_synced(&mut self, said: &[(u64, Frame)]) {
        let Some(node) = self.amnesia.synced.take() else { return };
        let Stage::Listens(plot) = self.amnesia.stage else { return };
        let seat = &self.seats.seats[node];
        let leader = self.seats.seats[plot.leader].id;
        let says = |frame: &Frame| frame.kind == Kind::Paxos && frame.to == leader;
        if (node, seat.life()) != (plot.patient, plot.life)
            || !said.iter().any(|(_, frame)| frame.from == seat.id && says(frame))
        {
            return;
        }
        let down_us = self.amnesia.random.between(DOWN_US.0, DOWN_US.1);
        if self.lose(Fault::FlipLog { node, bits: 1, at_end: true, down_us }) {
            self.enter(Stage::Struck(plot), PATIENCE_US);
        }
    }

    fn enter(&mut self, stage: Stage, for_us: u64) {
        self.amnesia.stage = stage;
        self.amnesia.due_us = self.now.get() + for_us;
    }

    fn rest(&mut self) {
        if self.amnesia.needs_peace_until().is_some() {
            self.ether.network(|network| network.join());
        }
        let gap = self.amnesia.random.between(GAP_US.0, GAP_US.1);
        self.enter(Stage::Rests, gap);
    }

    /// Who is who, if all members of all groups have everything at this moment.
    fn plot(&mut self, partition: PartitionId) -> Option<Plot> {
        if self.wound.is_some() || !self.is_whole(&self.watch.newest_of_all(), None) {
            return None;
        }
        let members = self.members(partition)?;
        let leader = self.leader(partition)?;
        let mut others: Vec<_> = members.iter().map(|identity| place_of(*identity)).collect();
        others.retain(|place| *place != leader);
        // The patient and who misses the entry are a majority, as are the patient and who has it.
        if others.len() < 2 || others.len() % 2 == 1 {
            return None;
        }
        let at = self.amnesia.random.below(others.len() as u64) as usize;
        let patient = others.swap_remove(at);
        let holders = others.iter().take(members.len() / 2 - 1).chain([&leader]);
        let holders = holders.fold(0, |set, place| set | 1 << place);
        let (life, newest) = (self.seats.seats[patient].life(), self.watch.newest(partition));
        Some(Plot { partition, newest, leader, patient, life, holders })
    }

    /// Whoever is neither a holder nor the patient hears no holder.
    fn keep_from_rest(&mut self, plot: Plot) {
        let seats = Arc::clone(&self.seats);
        let is_holder = |place: &usize| plot.holders >> place & 1 == 1;
        let places = 0..seats.seats.len();
        let rest = places.clone().filter(|place| !is_holder(place) && *place != plot.patient);
        self.ether.network(|network| {
            for deaf in rest {
                places.clone().filter(is_holder).for_each(|holder| network.cut(holder, deaf));
            }
        });
        self.note(|| format!("TO BE FORGOTTEN {plot:?}"));
    }
}

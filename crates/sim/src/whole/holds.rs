//! Whoever leads keeps the log that a snapshot on its way is going to need.
//!
//! Who fetches a snapshot tells all members. Whoever gives it knows without being told, and mostly leads; so
//! in gentle runs leadership goes to another member meanwhile, whose log is cut often.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::{Fetched, Seen};
use wire::ids::NodeId;

use super::agree::place_of;
use super::world::World;
use crate::checks::{Violation, violation};

/// By then everybody was told of a snapshot that is being fetched: it is told every second, clocks drift, and
/// messages take a while.
const TOLD_WITHIN_US: u64 = 1_700_000;

/// What is known of a snapshot on its way.
#[derive(Debug)]
struct Way {
    /// Since when everybody could have heard of it.
    since_us: u64,
    /// The leader when this was last looked at, and behind which index its log was cut.
    led: Option<(u32, u64)>,
    /// Leadership was handed over because of it.
    is_moved: bool,
}

/// The snapshots on their way.
#[derive(Default, Debug)]
pub(crate) struct Holds(BTreeMap<Fetched, Way>);

impl World<'_> {
    /// Looks at all snapshots that are being fetched. Only when the faults are over: before, whom to tell
    /// may be out of reach.
    pub(super) fn check_holds(&mut self) -> Result<(), Violation> {
        let seats = Arc::clone(&self.seats);
        let fetches = seats.seats.iter().filter_map(|seat| seat.with(|stepped| stepped.fetches()));
        let fetches: Vec<_> = fetches.flatten().collect();
        let now = self.now.get();
        // Who stands still neither tells nor hears.
        let is_held_up = seats.seats.iter().any(|seat| seat.paused_until() > now);
        self.holds.0.retain(|fetched, _| fetches.contains(fetched));
        for fetched in fetches {
            let leader = self.leading(&fetched);
            let new = Way { since_us: now, led: None, is_moved: false };
            let way = self.holds.0.entry(fetched).or_insert(new);
            let led = std::mem::replace(&mut way.led, leader.map(|it| (it.identity, it.truncated)));
            if is_held_up {
                way.since_us = now;
            }
            if now < way.since_us + TOLD_WITHIN_US {
                continue;
            }
            let Some(leader) = leader else { continue };
            let was_held = led.is_some_and(|(identity, truncated)| {
                identity == leader.identity && truncated <= fetched.index
            });
            if was_held && leader.truncated > fetched.index {
                let text = format!("{} cuts its log behind {}", leader.identity, leader.truncated);
                return violation(
                    "the log is kept for who fetches",
                    format!("{text}: {fetched:?}"),
                );
            }
            if self.gentle && leader.identity == fetched.giver && !way.is_moved {
                way.is_moved = true;
                self.lead_elsewhere(&fetched);
            }
        }
        Ok(())
    }

    /// The replica that leads the group of a snapshot, and may answer reads.
    fn leading(&self, fetched: &Fetched) -> Option<Seen> {
        let members = self.members(fetched.partition)?;
        let mut replicas = members
            .into_iter()
            .filter_map(|identity| self.seen(place_of(identity), fetched.partition, identity));
        replicas.find(|replica| replica.serves)
    }

    /// Has who gives a snapshot hand leadership over to somebody who does not fetch it.
    fn lead_elsewhere(&mut self, fetched: &Fetched) {
        let members = self.members(fetched.partition).unwrap_or_default();
        let heir = members.into_iter().find(|id| ![fetched.giver, fetched.taker].contains(id));
        let Some(heir) = heir.map(|identity| NodeId(place_of(identity) as u32 + 1)) else { return };
        self.note(|| format!("{heir} is to lead while another fetches: {fetched:?}"));
        let giver = &self.seats.seats[place_of(fetched.giver)];
        // Refused where it cannot be.
        giver.with(|stepped| drop(stepped.node().hand_over(fetched.partition, heir)));
    }
}

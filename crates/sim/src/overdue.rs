//! A leader with the slowest of clocks is cut off, and followers with the fastest elect another as soon as
//! they support it no more.
//!
//! What the leader still counts on then is the whole margin of drift. By chance all of that hardly ever comes
//! together: the clocks, who leads, and an election within the tenth of a second between the two ends.

use crate::checks::Violation;
use crate::cluster::{Cluster, Event};
use crate::host::{FASTEST, SLOWEST};
use crate::random::Random;

/// How many of a thousand runs have such a leader.
const PER_MILLE: u64 = 60;
/// Between two looks at who leads.
const GAP_US: (u64, u64) = (300_000, 900_000);
/// From when to when after the cut an heir campaigns unless it does already, and how often.
const CAMPAIGNS_US: (u64, u64) = (850_000, 1_150_000);
const CAMPAIGNS_EVERY_US: usize = 8_000;
/// When the leader is back.
const BACK_US: u64 = 1_500_000;

/// Has its own chance, so that the other runs stay what they are.
#[derive(Debug)]
pub(crate) struct Overdue {
    random: Random,
    /// Whose clock is slow.
    node: usize,
}

impl Overdue {
    pub(crate) fn new(seed: u64) -> Overdue {
        Overdue { random: Random::new(seed, "overdue"), node: 0 }
    }
}

impl Cluster<'_> {
    /// Decides whether this run has such a leader, and sets the clocks.
    pub(crate) fn plan_overdue(&mut self) {
        if !self.overdue.random.chance(PER_MILLE) || self.loose {
            return;
        }
        let node = self.overdue.random.below(self.hosts.len() as u64) as usize;
        self.overdue.node = node;
        self.hosts.iter_mut().for_each(|host| host.clock.set_rate(FASTEST));
        self.hosts[node].clock.set_rate(SLOWEST);
        self.trace.line(0, || format!("the clock of {} is slow, all others are fast", node + 1));
        self.next_overdue(0);
    }

    fn next_overdue(&mut self, after_us: u64) {
        let gap = self.overdue.random.between(GAP_US.0, GAP_US.1);
        self.after(after_us + gap, Event::Overdue { heir: None });
    }

    /// Cuts that leader off, or has it lead first; or has its heir campaign.
    pub(crate) fn overdue(&mut self, heir: Option<usize>) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        if let Some(heir) = heir {
            let replica = self.hosts[heir].replica.as_ref();
            if replica.is_some_and(|replica| replica.status().role == paxos::Role::Follower) {
                self.step(heir, |replica, now| replica.campaign(now))?;
            }
            return Ok(());
        }
        let node = self.overdue.node;
        let leader =
            (0..self.hosts.len()).find(|at| self.hosts[*at].serves_from(self.now).is_some());
        match leader {
            Some(leader) if leader == node => {
                self.network.join();
                self.network.split(1 << node);
                let heir = (node + 1) % self.initial.len();
                for at in (CAMPAIGNS_US.0..CAMPAIGNS_US.1).step_by(CAMPAIGNS_EVERY_US) {
                    self.after(at, Event::Overdue { heir: Some(heir) });
                }
                self.after(BACK_US, Event::Join { node });
                self.next_overdue(BACK_US);
                Ok(())
            }
            Some(leader) => {
                let id = self.members[node];
                self.next_overdue(0);
                self.step(leader, |replica, now| {
                    // Refused if it does not serve at this moment.
                    let _ = replica.transfer(id, now);
                })
            }
            None => {
                self.next_overdue(0);
                Ok(())
            }
        }
    }
}

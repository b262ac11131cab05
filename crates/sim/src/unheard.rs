//! A leader commits what nobody hears of, and dies as soon as its state machine has taken all it may.
//!
//! ```text
//! leader    disk slow ── proposes c1 c2 c3 ── commits c1, mute now ── c2, c3 ── flushes all ── dies, leads again
//! others                 accept them          hear no more of it                               ask for c1
//! ```
//!
//! If anything went from its memory or into its rows before its own log held it, it has the effect of
//! c1 now and cannot tell what c1 was: whoever asks needs a snapshot. By chance that hardly ever
//! comes together: memory has to be short, the disk slow for the very entries that others do not know to be
//! chosen, and a flush and a death have to come before the next sync.

use crate::checks::Violation;
use crate::cluster::{Cluster, Event, SYNC_US};
use crate::random::Random;

/// How many of a thousand runs have such leaders, of those whose members stay.
const PER_MILLE: u64 = 250;
/// Between two of them.
const GAP_US: (u64, u64) = (200_000, 1_500_000);
/// Syncs of the leader's disk meanwhile: longer than all this takes.
const SLOW_US: u64 = 900_000;
/// How many it proposes, and in which time: the answers come one by one.
const PROPOSALS: u64 = 12;
const PROPOSES_EVERY_US: u64 = 300;
/// How long a leader that has not committed any of it is waited for.
const PATIENCE_US: u64 = 400_000;
/// How long after its first commit a leader dies: others have followed by then.
const LINGERS_US: (u64, u64) = (1_000, 100_000);

/// Has its own chance, so that the other runs stay what they are.
#[derive(Debug)]
pub(crate) struct Unheard {
    random: Random,
    leader: Option<Doomed>,
}

#[derive(Clone, Copy, Debug)]
struct Doomed {
    node: usize,
    life: u64,
    /// It has committed something, and nobody hears it.
    is_mute: bool,
}

impl Unheard {
    pub(crate) fn new(seed: u64) -> Unheard {
        Unheard { random: Random::new(seed, "unheard"), leader: None }
    }
}

impl Cluster<'_> {
    /// Decides whether this run has such leaders. Nothing stays in memory then that need not be there, and
    /// no read fails: for that a snapshot is needed, too.
    pub(crate) fn plan_unheard(&mut self) {
        if !self.unheard.random.chance(PER_MILLE) || self.reforms {
            return;
        }
        self.misreads_per_mille = 0;
        self.options.keep_bytes = 0;
        self.options.window_entries = self.options.window_entries.max(2 * PROPOSALS);
        let options = &self.options;
        self.trace.line(0, || format!("leaders go unheard, {options:?}"));
        self.next_unheard();
    }

    fn next_unheard(&mut self) {
        let gap = self.unheard.random.between(GAP_US.0, GAP_US.1);
        self.after(gap, Event::Unheard { dying: None });
    }

    /// Begins with a leader, or ends with the one that is dying, in one of its lives.
    pub(crate) fn unheard(&mut self, dying: Option<(usize, u64)>) -> Result<(), Violation> {
        match dying {
            Some((node, life)) => self.end_unheard(node, life),
            None => {
                self.begin_unheard();
                Ok(())
            }
        }
    }

    /// A leader's disk turns slow, and it proposes something.
    fn begin_unheard(&mut self) {
        if self.calm || self.summary.damaged > 0 {
            return;
        }
        let leader = (0..self.hosts.len()).find(|node| self.may_be_asked(*node));
        let Some(node) = leader else {
            self.next_unheard();
            return;
        };
        self.network.join();
        self.sync_us[node] = SLOW_US;
        let life = self.hosts[node].life;
        self.unheard.leader = Some(Doomed { node, life, is_mute: false });
        self.after(PATIENCE_US, Event::Unheard { dying: Some((node, life)) });
        for at in 0..PROPOSALS {
            self.after(at * PROPOSES_EVERY_US, Event::Burst { node });
        }
    }

    /// A node has committed what it proposed: from now on nobody hears it, if it is that leader.
    pub(crate) fn mute_unheard(&mut self, node: usize) {
        let life = self.hosts[node].life;
        let Some(doomed) = &mut self.unheard.leader else { return };
        if self.calm || doomed.is_mute || (doomed.node, doomed.life) != (node, life) {
            return;
        }
        doomed.is_mute = true;
        (0..self.hosts.len()).for_each(|other| self.network.cut(node, other));
        let lingers = self.unheard.random.skewed(LINGERS_US.0, LINGERS_US.1);
        self.after(lingers, Event::Unheard { dying: Some((node, life)) });
    }

    /// That leader makes durable what it may of its state, dies, and is heard again.
    fn end_unheard(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        let Some(doomed) = self.unheard.leader.take_if(|it| (it.node, it.life) == (node, life))
        else {
            return Ok(());
        };
        if self.calm {
            return Ok(());
        }
        self.next_unheard();
        self.sync_us[node] = SYNC_US;
        if doomed.is_mute {
            if self.hosts[node].life == life {
                self.flush_node(node, true)?;
                self.crash(node, 100);
            }
            self.network.join_node(node);
        }
        Ok(())
    }
}

//! What goes wrong, and when.

use crate::random::Random;

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A process dies, after so many more outputs (at once after none), and starts again after so long.
    Crash { node: usize, outputs: u64, down_us: u64 },
    /// The same, but outputs count from the next promise it writes, that one included: what it says
    /// while that is not durable is what a crash can make a lie.
    CrashAtPromise { node: usize, outputs: u64, down_us: u64 },
    /// A node campaigns though there may be a leader, which does not always hear of it; nodes of a
    /// set (a bit each) die over the promise.
    Campaign { node: usize, lethal: u64, hidden_from: Option<usize> },
    /// The leader is cut off, all others start again, and one of those campaigns at once: while the
    /// old lease runs and nobody remembers it.
    Usurp { leader: usize, node: usize },
    /// A node loses sight of the leader alone; once it supports it no more, the leader is cut off, the
    /// others start again, and it campaigns: only those who forgot could tell it of the lease.
    Estrange { leader: usize, node: usize },
    /// A node misses some entries, is joined again and campaigns while it catches up.
    LateLearner { node: usize, away_us: u64, learns_us: u64 },
    /// Only one node hears what the leader proposes; the leader dies while the answer is on its way,
    /// leads again by the others' promises, is heard by nobody then, and now gets the answer.
    Relapse { leader: usize, heard_by: usize, after_us: u64, late_us: u64 },
    /// A leader is told to hand over.
    Transfer { leader: usize, to: usize },
    /// A process dies, and some entries of its log are damaged when it starts again.
    Damage { node: usize, entries: u64, down_us: u64 },
    /// A node loses its disk.
    Wipe { node: usize },
    /// All processes die at once.
    Blackout { down_us: u64 },
    /// A process stands still: longer than a lease at times.
    Pause { node: usize, for_us: u64 },
    /// No link between these nodes (a bit each) and the others.
    Split { set: u64 },
    /// One direction of one link.
    CutOneWay { from: usize, to: usize },
    /// A node hears nobody, or nobody hears it.
    Isolate { node: usize, inbound: bool },
    /// All links work again.
    Join,
    /// A disk's syncs take this long until changed again.
    Disk { node: usize, sync_us: u64 },
    /// The next sync of a disk fails: what it was to make durable may be there or not.
    SyncFails { node: usize, down_us: u64 },
    /// A disk is full for so long.
    DiskFull { node: usize, for_us: u64 },
    /// Nodes are cut off one after the other, and joined again one after the other.
    Swizzle { set: u64, step_us: u64 },
}

/// The kinds, as bits: each run has its own mixture.
const CRASH: u64 = 1;
const BLACKOUT: u64 = 1 << 1;
const PAUSE: u64 = 1 << 2;
const SPLIT: u64 = 1 << 3;
const ONE_WAY: u64 = 1 << 4;
const ISOLATE: u64 = 1 << 5;
const DISK: u64 = 1 << 6;
const CAMPAIGN: u64 = 1 << 7;
const LATE_LEARNER: u64 = 1 << 8;
const RELAPSE: u64 = 1 << 9;
const TRANSFER: u64 = 1 << 10;
const DAMAGE: u64 = 1 << 11;
const WIPE: u64 = 1 << 12;
const SWIZZLE: u64 = 1 << 13;
const BAD_DISK: u64 = 1 << 14;
const KINDS: u64 = 15;

/// The longest a process is down or stands still; leases are a second.
const STANDSTILL_MAX_US: u64 = 3_000_000;

/// The faults of one run.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    enabled: u64,
    gap_max_us: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64, all: bool) -> Faults {
        let mut random = Random::new(seed, "faults");
        let few = if random.chance(500) { random.next() } else { u64::MAX };
        let some = random.below(1 << KINDS) & few;
        let enabled = if all { (1 << KINDS) - 1 } else { some };
        let gap_max_us = random.pick(&[300_000, 1_000_000, 3_000_000]);
        Faults { random, enabled, gap_max_us }
    }

    /// How long until the next fault.
    pub(crate) fn gap_us(&mut self) -> u64 {
        self.random.between(1_000, self.gap_max_us)
    }

    /// The next fault; the leader is hit as often as all others together.
    pub(crate) fn next(&mut self, nodes: usize, leader: Option<usize>) -> Option<Fault> {
        if self.enabled == 0 {
            return None;
        }
        let mut kind = 1 << self.random.below(KINDS);
        if self.random.chance(150) {
            // It takes many to meet the few moments that matter.
            kind = self.random.pick(&[CAMPAIGN, RELAPSE]);
        }
        while self.enabled & kind == 0 {
            kind = 1 << self.random.below(KINDS);
        }
        let random = &mut self.random;
        // A third of the time what is cut is joined again.
        if kind & (SPLIT | ONE_WAY | ISOLATE) != 0 && random.chance(330) {
            return Some(Fault::Join);
        }
        let any = random.below(nodes as u64) as usize;
        let node = if random.chance(500) { leader.unwrap_or(any) } else { any };
        let standstill = random.skewed(1_000, STANDSTILL_MAX_US);
        Some(match kind {
            CRASH if random.chance(500) => {
                Fault::CrashAtPromise { node, outputs: random.skewed(1, 30), down_us: standstill }
            }
            CRASH => Fault::Crash { node, outputs: random.below(6), down_us: standstill },
            BLACKOUT => Fault::Blackout { down_us: standstill },
            PAUSE => Fault::Pause { node, for_us: standstill },
            SPLIT => Fault::Split { set: random.between(1, (1 << nodes) - 2) },
            ONE_WAY => {
                let to = (node + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
                if random.chance(500) {
                    Fault::CutOneWay { from: node, to }
                } else {
                    Fault::CutOneWay { from: to, to: node }
                }
            }
            ISOLATE => Fault::Isolate { node, inbound: random.chance(500) },
            DISK => {
                let sync_us = random.pick(&[50, 2_000, 20_000, 200_000, 900_000]);
                Fault::Disk { node, sync_us }
            }
            LATE_LEARNER => Fault::LateLearner {
                node: any,
                away_us: random.between(50_000, 600_000),
                learns_us: random.skewed(100, 100_000),
            },
            WIPE => Fault::Wipe { node },
            SWIZZLE => swizzle(nodes, random),
            BAD_DISK if random.chance(500) => Fault::SyncFails { node, down_us: standstill },
            BAD_DISK => Fault::DiskFull { node, for_us: standstill },
            TRANSFER => Fault::Transfer { leader: leader?, to: any },
            DAMAGE => Fault::Damage { node, entries: random.skewed(1, 20), down_us: standstill },
            RELAPSE => Fault::Relapse {
                leader: leader?,
                heard_by: any,
                after_us: random.skewed(2_000, 60_000),
                late_us: random.skewed(5_000, 500_000),
            },
            CAMPAIGN => campaign(nodes, (leader, any), random),
            _ => unreachable!("there are no more kinds"),
        })
    }
}

fn swizzle(nodes: usize, random: &mut Random) -> Fault {
    let set = random.between(1, (1 << nodes) - 1);
    Fault::Swizzle { set, step_us: random.skewed(1_000, 800_000) }
}

fn campaign(nodes: usize, (leader, any): (Option<usize>, usize), random: &mut Random) -> Fault {
    match leader {
        Some(leader) if random.chance(300) => Fault::Usurp { leader, node: any },
        Some(leader) if leader != any && random.chance(300) => {
            Fault::Estrange { leader, node: any }
        }
        _ => {
            let lethal = if random.chance(500) { random.below(1 << nodes) } else { 0 };
            let hidden_from = leader.filter(|leader| *leader != any && random.chance(500));
            Fault::Campaign { node: any, lethal, hidden_from }
        }
    }
}

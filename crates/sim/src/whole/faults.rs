//! What goes wrong in a run of the whole, and when.

use crate::random::Random;

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A process dies; with the power of its machine, or alone.
    Crash { node: usize, power: bool, down_us: u64 },
    /// A process dies after so many operations of its disk, in the midst of the last.
    CrashAtDisk { node: usize, operations: u64, down_us: u64 },
    /// A process dies after so many frames.
    CrashAtFrame { node: usize, frames: u64, down_us: u64 },
    /// All machines lose their power at once.
    Blackout { down_us: u64 },
    /// A process stands still: longer than a lease at times.
    Pause { node: usize, for_us: u64 },
    /// No link between these places (a bit each) and the others.
    Split { set: u64 },
    /// One direction of one link.
    CutOneWay { from: usize, to: usize },
    /// Nobody hears a node, or it hears nobody.
    Isolate { node: usize, inbound: bool },
    /// All links work again.
    Join,
    /// A disk's syncs take so long until changed again.
    SlowDisk { node: usize, sync_us: u64 },
    /// The next sync fails, and what it was to make durable is lost.
    SyncFails { node: usize, down_us: u64 },
    /// A disk is full for so long.
    Full { node: usize, for_us: u64 },
    /// Bits of a log change while its process is dead; of what was synced last of all, or anywhere.
    FlipLog { node: usize, bits: u64, at_end: bool, down_us: u64 },
    /// A bit of the stored rows changes: of the file while the process is dead, or as they are read.
    FlipRows { node: usize, in_file: bool, at: u64, down_us: u64 },
    /// Reads of the log bring what stands elsewhere, for so long.
    Misread { node: usize, for_us: u64 },
    /// A node loses its disk.
    Wipe { node: usize, down_us: u64 },
    /// A leader hands over.
    Transfer { to: usize },
    /// A clock on a wall is set.
    SetWall { node: usize, off_ms: i64 },
    /// A node campaigns.
    Campaign { node: usize },
    /// A member comes or goes, by order of an operator.
    Order { node: usize, add: bool, log: bool },
}

/// The longest a process is down or stands still; leases are a second.
const STANDSTILL_MAX_US: u64 = 3_000_000;
/// How far a clock on a wall is off.
pub(crate) const WALL_OFF_MS_MAX: i64 = 2_000;
const KINDS: u64 = 19;
/// The kinds of a gentle run: deaths, standstills, nodes cut off, leaderships handed over.
const GENTLE: u64 = 1 << 0 | 1 << 4 | 1 << 7 | 1 << 15;
const GENTLE_GAP_MAX_US: u64 = 1_200_000;
/// The shortest time that somebody is away in a gentle run: longer than the log is kept.
const GENTLE_AWAY_MIN_US: u64 = 1_000_000;

/// The faults of one run.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    /// A bit for each kind: each run has its own mixture.
    enabled: u64,
    gap_max_us: u64,
    gentle: bool,
    /// Clocks on walls are off.
    pub(crate) walls: bool,
}

impl Faults {
    /// Those of a gentle run keep replicas away for a while, now and then, and damage nothing.
    pub(crate) fn new(seed: u64, gentle: bool) -> Faults {
        let mut random = Random::new(seed, "whole faults");
        let few = if random.chance(500) { random.next() } else { u64::MAX };
        let mut enabled = random.below(1 << KINDS) & few;
        let mut gap_max_us = random.pick(&[200_000, 800_000, 2_000_000]);
        if gentle {
            (enabled, gap_max_us) = (GENTLE, GENTLE_GAP_MAX_US);
        }
        let walls = random.chance(500);
        Faults { random, enabled, gap_max_us, gentle, walls }
    }

    /// How long until the next fault.
    pub(crate) fn gap_us(&mut self) -> u64 {
        self.random.between(1_000, self.gap_max_us)
    }

    /// The next fault among `nodes` storage nodes and so many places in all.
    pub(crate) fn next(
        &mut self,
        (nodes, places): (usize, usize),
        leader: Option<usize>,
    ) -> Option<Fault> {
        if self.enabled == 0 {
            return None;
        }
        let random = &mut self.random;
        let mut kind = random.below(KINDS);
        while self.enabled >> kind & 1 == 0 {
            kind = random.below(KINDS);
        }
        let any = random.below(nodes as u64) as usize;
        let mut node = if random.chance(500) { leader.unwrap_or(any) } else { any };
        let mut for_us = random.skewed(1_000, STANDSTILL_MAX_US);
        if self.gentle {
            // Mostly a follower: the others are to go on without it.
            (node, for_us) = (any, random.between(GENTLE_AWAY_MIN_US, STANDSTILL_MAX_US));
        }
        if matches!(kind, 5..=7) && random.chance(330) {
            return Some(Fault::Join);
        }
        Some(match kind {
            0 => Fault::Crash { node, power: random.chance(600), down_us: for_us },
            1 => {
                let operations = random.skewed(1, 60);
                Fault::CrashAtDisk { node, operations, down_us: for_us }
            }
            2 => Fault::CrashAtFrame { node, frames: random.skewed(1, 40), down_us: for_us },
            3 => Fault::Blackout { down_us: for_us },
            4 => Fault::Pause { node, for_us },
            5 => Fault::Split { set: random.between(1, (1 << places) - 2) },
            6 => {
                let to = random.below(places as u64) as usize;
                Fault::CutOneWay { from: node, to }
            }
            7 => Fault::Isolate { node, inbound: random.chance(500) },
            8 => {
                let sync_us = random.pick(&[50, 2_000, 20_000, 200_000, 900_000]);
                Fault::SlowDisk { node, sync_us }
            }
            9 => Fault::SyncFails { node, down_us: for_us },
            10 => Fault::Full { node, for_us },
            11 => {
                let bits = random.skewed(1, 8);
                Fault::FlipLog { node, bits, at_end: false, down_us: for_us }
            }
            12 => {
                let (in_file, at) = (random.chance(400), random.next());
                Fault::FlipRows { node, in_file, at, down_us: for_us }
            }
            13 => Fault::Misread { node, for_us },
            14 => Fault::Wipe { node, down_us: for_us },
            15 => Fault::Transfer { to: any },
            16 => {
                let off = random.below(2 * WALL_OFF_MS_MAX as u64 + 1) as i64 - WALL_OFF_MS_MAX;
                Fault::SetWall { node, off_ms: if self.walls { off } else { 0 } }
            }
            17 => Fault::Campaign { node: any },
            _ => Fault::Order { node: any, add: random.chance(500), log: random.chance(300) },
        })
    }
}

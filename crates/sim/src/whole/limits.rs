//! What the nodes of a run may hold.

use std::time::Duration;

use storage::{NodeOptions, RowBudget, wal};
use wire::ids::NodeId;

use super::world::zone_of;
use crate::random::Random;

/// Those of a run, which is gentle or not.
pub(super) fn of_run(
    (seed, gentle): (u64, bool),
    random: &mut Random,
    nodes: usize,
) -> NodeOptions {
    let options = options(random, nodes);
    if gentle { with_short_log(options, seed) } else { options }
}

/// Limits that are small at times, so that they are met.
fn options(random: &mut Random, nodes: usize) -> NodeOptions {
    let paxos = crate::cluster::options(random);
    let ids = (1..=nodes as u32).map(NodeId);
    NodeOptions {
        memtable_bytes: random.pick(&[4 << 10, 32 << 10, 1 << 20]),
        rows: RowBudget::new(random.pick(&[8 << 10, 64 << 10, 64 << 20])),
        log: wal::Options {
            segment_bytes: random.pick(&[32 << 10, 64 << 10]),
            recycle_segments: random.below(3) as usize,
        },
        paxos,
        nodes: ids.map(|id| (id, zone_of(id))).collect(),
        heal_after: Duration::from_millis(random.pick(&[1_000, 1_000, 2_500])),
        rebuild_after: Duration::from_millis(random.pick(&[300, 2_000])),
        snapshot_chunk_bytes: random.pick(&[300, 4 << 10, 256 << 10]),
        ..NodeOptions::default()
    }
}

/// A log that is let go of soon, and snapshots that take seconds; a member that is away keeps its place.
fn with_short_log(options: NodeOptions, seed: u64) -> NodeOptions {
    let mut random = Random::new(seed, "short log");
    // What is not in memory is read from the log, unless that was let go of.
    let paxos = paxos::Options { keep_bytes: 0, ..options.paxos.clone() };
    NodeOptions {
        memtable_bytes: random.pick(&[2 << 10, 8 << 10]),
        log_bytes: random.pick(&[2 << 10, 8 << 10]),
        snapshot_chunk_bytes: random.pick(&[300, 2 << 10]),
        snapshot_rate: random.pick(&[8 << 10, 32 << 10]),
        heal_after: Duration::from_secs(20),
        paxos,
        ..options
    }
}

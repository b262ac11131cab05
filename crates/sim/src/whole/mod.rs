//! The whole store on one thread: storage nodes with their logs, rows and care, MemDS nodes, routers
//! and clients, in virtual time, with seeded faults of links, processes, disks and clocks.
//!
//! ```text
//! seed ─▶ options, drift, faults ─▶ queue of events in virtual time
//!   clients ─ RESP in memory ─▶ router::Router ─▶ storage::Stepped  (a node without threads)
//!      │                            │ memds::MemdsClient   │ core, keeper, care, snapshots
//!      ▼                            ▼                      ├ wal, catalogue, spool ─▶ Disk
//!   Ledger: what they were told   memds::MemdsNode ◀─ Ether ─┴ frames
//!                                                          ▼
//!                                             Watch: what replicas have applied
//! ```
//!
//! It is the code that is shipped, but for four things. A node's threads are events here
//! (`storage::Stepped`). fjall is left out: rows are in one file, which is written anew by each flush
//! (`storage::lsm`), for no file of fjall's could be torn or lost here. Frames and calls between
//! routers and nodes travel as this module likes (`Ether`, `Reach`). Scripts are left out: they run in
//! real time.
//!
//! What must hold is said in `watch` (replicas, at every moment) and `work` (clients, in the end); when
//! the faults are over, everything is read once more, and all replicas of a partition must hold the
//! same rows within a bounded time.
//!
//! The routers' tasks run on a runtime of one thread whose clock the queue moves on. Nothing reads a
//! real clock but for durations that are only shown.

mod agree;
mod amnesia;
mod clock;
mod disk;
mod ether;
mod faults;
mod holds;
mod limits;
mod seats;
mod strikes;
mod talk;
mod voices;
mod watch;
mod work;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use wire::ids::NodeId;

use crate::checks::violation;
use crate::{Trace, Violation};

/// Ids of the MemDS nodes.
const MEMDS: [NodeId; 2] = [NodeId(101), NodeId(102)];
/// The id of the first router.
const ROUTER: u32 = 201;

/// What runs went through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Nodes that stopped by themselves.
    pub stopped: u64,
    /// Nodes that were abandoned: what they held was damaged.
    pub abandoned: u64,
    /// Nodes that lost their disks.
    pub wiped: u64,
    /// Bits that changed on disks, and reads that brought what stood elsewhere.
    pub damaged: u64,
    /// Leaderships.
    pub leaders: u64,
    /// Frames between nodes.
    pub frames: u64,
    /// Batches applied.
    pub batches: u64,
    /// Commands that clients sent.
    pub asked: u64,
    /// Replies that they heard.
    pub answered: u64,
    /// Of these, those that left the outcome open.
    pub uncertain: u64,
    /// Of these, other errors.
    pub refused: u64,
}

impl Summary {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Summary) {
        let Summary { runs, events, virtual_us, faults, crashes, stopped, abandoned, .. } = other;
        self.runs += runs;
        self.events += events;
        self.virtual_us += virtual_us;
        self.faults += faults;
        self.crashes += crashes;
        self.stopped += stopped;
        self.abandoned += abandoned;
        self.wiped += other.wiped;
        self.damaged += other.damaged;
        self.leaders += other.leaders;
        self.frames += other.frames;
        self.batches += other.batches;
        self.asked += other.asked;
        self.answered += other.answered;
        self.uncertain += other.uncertain;
        self.refused += other.refused;
    }
}

/// Runs one seed.
///
/// *Errors*: the first check that failed; a panic is one too.
pub fn run(seed: u64, trace: &mut Trace) -> Result<Summary, Violation> {
    voices::listen_for_panics();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread needs nothing");
        runtime.block_on(async { world::World::new(seed, trace).run().await })
    }));
    let outcome = outcome.unwrap_or_else(|_| {
        violation("panic", voices::panicked().unwrap_or_else(|| "of an unknown kind".to_owned()))
    });
    // What died with the runtime may have more to say.
    voices::panicked();
    outcome
}

/// Runs a range of seeds on some threads; returns the sum, and what failed in ascending order.
pub fn sweep(seeds: Range<u64>, threads: u64) -> (Summary, Vec<(u64, Violation)>) {
    let parts: Vec<_> = thread::scope(|scope| {
        let start = |thread| {
            let own = seeds.clone().skip(thread as usize).step_by(threads as usize);
            scope.spawn(move || {
                let mut sum = Summary::default();
                let mut failed = Vec::new();
                for seed in own {
                    match run(seed, &mut Trace::silent()) {
                        Ok(summary) => sum.add(&summary),
                        Err(violation) => failed.push((seed, violation)),
                    }
                }
                (sum, failed)
            })
        };
        let workers: Vec<_> = (0..threads).map(start).collect();
        workers.into_iter().map(|worker| worker.join().expect("runs catch panics")).collect()
    });
    let mut sum = Summary::default();
    let mut failed = Vec::new();
    for (part, mut violations) in parts {
        sum.add(&part);
        failed.append(&mut violations);
    }
    failed.sort_by_key(|(seed, _)| *seed);
    (sum, failed)
}

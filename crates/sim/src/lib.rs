//! A cluster on one thread, with virtual time and seeded faults.
//!
//! A run is a function of its seed. Its clocks drift, its messages are lost, repeated, late and
//! reordered, links are cut in either direction, processes die between any two outputs and stand
//! still for longer than a lease, and disks lose what was not synced:
//!
//! ```text
//! seed ─▶ options, drift, faults ─▶ queue of events in virtual time
//!           │ Deliver, Synced, Tick …             ▲
//!           ▼                                     │ delays, losses, syncs
//!         paxos::Replica ── poll_output ─▶ Persist, Send, Commit, ReadLog
//!                                              │
//!                                              ▼
//!                                           checks
//! ```
//!
//! After every event: what is committed agrees with all other nodes and all earlier lives, comes in
//! order without gaps, and was proposed, once; at most one replica may serve reads, and that one
//! has handed out all that was committed anywhere. After the last fault: a leader serves, a new
//! value is committed everywhere within a bounded time, and nothing acknowledged is missing.
//!
//! A violation prints its seed; the seed is the bug report.
//!
//! Members come and go, nodes lose everything, log entries are damaged, leadership is handed over.
//! Bugs put in on purpose show that the checks see them (`hunt`), and `model` goes through every run
//! there is within small bounds.
//!
//! What lies above consensus is in `whole`: the same of the whole store.

mod checks;
mod clients;
mod cluster;
mod faults;
mod history;
mod host;
#[cfg(feature = "mutants")]
mod hunt;
mod members;
pub mod model;
mod network;
mod overdue;
mod random;
mod strikes;
mod trace;
mod unheard;
pub mod whole;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

pub use checks::Violation;
#[cfg(feature = "mutants")]
pub use hunt::{Bug, Hunted, hunt};
pub use trace::Trace;

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
    /// Leaderships.
    pub leaders: u64,
    /// Values proposed.
    pub proposed: u64,
    /// Values whose proposer saw them committed.
    pub acknowledged: u64,
    /// Entries committed, no-ops included.
    pub committed: u64,
    /// Proposals refused by a full window.
    pub windows_full: u64,
    /// Changes of members begun.
    pub changes: u64,
    /// Nodes that lost everything.
    pub wiped: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// Log entries damaged.
    pub damaged: u64,
    /// Catch-up messages read from a disk.
    pub log_reads: u64,
    /// Reads that clients were answered.
    pub reads: u64,
}

impl Summary {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Summary) {
        self.runs += other.runs;
        self.events += other.events;
        self.virtual_us += other.virtual_us;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.leaders += other.leaders;
        self.proposed += other.proposed;
        self.acknowledged += other.acknowledged;
        self.committed += other.committed;
        self.windows_full += other.windows_full;
        self.changes += other.changes;
        self.wiped += other.wiped;
        self.installed += other.installed;
        self.damaged += other.damaged;
        self.log_reads += other.log_reads;
        self.reads += other.reads;
    }
}

/// What is not left to the seed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Setup {
    /// How many nodes a group begins with; 3 or 5 if not said.
    pub nodes: Option<usize>,
    /// Every kind of fault strikes in every run, and members come and go in each.
    pub all_faults: bool,
}

/// Runs one seed.
///
/// *Errors*: the first check that failed; a panic of the core is one too.
pub fn run(seed: u64, setup: Setup, trace: &mut Trace) -> Result<Summary, Violation> {
    let outcome =
        catch_unwind(AssertUnwindSafe(|| cluster::Cluster::new(seed, setup, trace).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        checks::violation("panic", text.unwrap_or_default())
    })
}

/// Runs a range of seeds on some threads; returns the sum, and what failed in ascending order.
pub fn sweep(seeds: Range<u64>, setup: Setup, threads: u64) -> (Summary, Vec<(u64, Violation)>) {
    let parts: Vec<_> = thread::scope(|scope| {
        let start = |thread| {
            let own = seeds.clone().skip(thread as usize).step_by(threads as usize);
            scope.spawn(move || {
                let mut sum = Summary::default();
                let mut failed = Vec::new();
                for seed in own {
                    match run(seed, setup, &mut Trace::silent()) {
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

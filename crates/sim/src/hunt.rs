//! The hunt: each bug put in on purpose must be seen by some check, soon. Bugs of consensus are hunted
//! in clusters of replicas, those of the store in whole ones. A seed that fails without the bug, too, has
//! not seen it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::{Setup, Trace, Violation, run, whole};

/// A bug by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Of consensus.
    Consensus(paxos::mutants::Mutant),
    /// Of the store.
    Store(storage::mutants::Mutant),
}

impl Bug {
    /// All there are.
    pub fn all() -> Vec<Bug> {
        let consensus = paxos::mutants::Mutant::ALL.iter().copied().map(Bug::Consensus);
        consensus.chain(storage::mutants::Mutant::ALL.iter().copied().map(Bug::Store)).collect()
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Bug::Consensus(mutant) => format!("{mutant:?}"),
            Bug::Store(mutant) => format!("{mutant:?}"),
        }
    }

    /// What is wrong with it, in one line.
    pub fn text(self) -> &'static str {
        match self {
            Bug::Consensus(mutant) => mutant.text(),
            Bug::Store(mutant) => mutant.text(),
        }
    }

    /// Runs a seed with it.
    ///
    /// *Errors*: what saw it.
    pub fn run(self, seed: u64, trace: &mut Trace) -> Result<(), Violation> {
        match self {
            Bug::Consensus(mutant) => paxos::mutants::activate(Some(mutant)),
            Bug::Store(mutant) => storage::mutants::activate(Some(mutant)),
        }
        let outcome = self.run_without(seed, trace);
        paxos::mutants::activate(None);
        storage::mutants::activate(None);
        outcome
    }

    /// Runs a seed of the kind in which it is hunted.
    fn run_without(self, seed: u64, trace: &mut Trace) -> Result<(), Violation> {
        match self {
            Bug::Consensus(_) => run(seed, Setup::default(), trace).map(drop),
            Bug::Store(_) => whole::run(seed, trace).map(drop),
        }
    }
}

/// What became of one bug.
#[derive(Debug)]
pub struct Hunted {
    /// The bug.
    pub bug: Bug,
    /// Seeds run, the one that saw it included.
    pub seeds: u64,
    /// What saw it; `None` if nothing did.
    pub seen: Option<Violation>,
}

/// Hunts these bugs on some threads, each with the seeds from 0 up to `seeds_max` until one of them
/// fails.
pub fn hunt(bugs: &[Bug], seeds_max: u64, threads: usize) -> Vec<Hunted> {
    let next = AtomicUsize::new(0);
    let mut hunted: Vec<(usize, Hunted)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(bug) = bugs.get(at) else { return done };
                done.push((at, hunt_one(*bug, seeds_max)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("runs catch panics")).collect()
    });
    hunted.sort_by_key(|(at, _)| *at);
    hunted.into_iter().map(|(_, hunted)| hunted).collect()
}

fn hunt_one(bug: Bug, seeds_max: u64) -> Hunted {
    let seen = (0..seeds_max).find_map(|seed| {
        let violation = bug.run(seed, &mut Trace::silent()).err()?;
        bug.run_without(seed, &mut Trace::silent()).is_ok().then_some((seed, violation))
    });
    match seen {
        Some((seed, violation)) => Hunted { bug, seeds: seed + 1, seen: Some(violation) },
        None => Hunted { bug, seeds: seeds_max, seen: None },
    }
}

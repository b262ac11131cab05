//! The hunt: each bug put in on purpose must be seen by some check, soon.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use paxos::mutants::{Mutant, activate};

use crate::{Setup, Trace, Violation, run};

/// What became of one bug.
#[derive(Debug)]
pub struct Hunted {
    /// The bug.
    pub mutant: Mutant,
    /// Seeds run, the one that saw it included.
    pub seeds: u64,
    /// What saw it; `None` if nothing did.
    pub seen: Option<Violation>,
}

/// Hunts these bugs on some threads, each with the seeds from 0 up to `seeds_max` until one of them
/// fails.
pub fn hunt(mutants: &[Mutant], seeds_max: u64, threads: usize) -> Vec<Hunted> {
    let next = AtomicUsize::new(0);
    let mut hunted: Vec<(usize, Hunted)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(mutant) = mutants.get(at) else { return done };
                done.push((at, hunt_one(*mutant, seeds_max)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("runs catch panics")).collect()
    });
    hunted.sort_by_key(|(at, _)| *at);
    hunted.into_iter().map(|(_, hunted)| hunted).collect()
}

fn hunt_one(mutant: Mutant, seeds_max: u64) -> Hunted {
    activate(Some(mutant));
    let seen = (0..seeds_max)
        .find_map(|seed| Some((seed, run(seed, Setup::default(), &mut Trace::silent()).err()?)));
    activate(None);
    match seen {
        Some((seed, violation)) => Hunted { mutant, seeds: seed + 1, seen: Some(violation) },
        None => Hunted { mutant, seeds: seeds_max, seen: None },
    }
}

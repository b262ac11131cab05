//! A seed replays exactly. By itself in a process: a trace hears what the crates log, and whether
//! they log at all is decided once for all threads.

use sim::{Trace, whole};

#[test]
fn a_seed_is_one_run_of_the_whole() {
    for seed in 0..2 {
        let (mut first, mut second) = (Trace::tail(), Trace::tail());
        assert_eq!(whole::run(seed, &mut first), whole::run(seed, &mut second));
        let lines: Vec<_> = first.lines().zip(second.lines()).collect();
        assert!(lines.iter().all(|(one, other)| one == other) && lines.len() > 20);
    }
}

//! A few runs of the whole store in every `cargo test`; `cargo run -p sim --release -- --whole A..B`
//! does more.

use sim::{Trace, whole};

const SEEDS: std::ops::Range<u64> = 0..12;

#[test]
fn every_promise_of_the_whole_holds_in_a_few_runs() {
    let (sum, failed) = whole::sweep(SEEDS, 2);
    assert_eq!(failed, [], "replay with `cargo run -p sim --release -- --whole-seed N`");
    assert_eq!(sum.runs, SEEDS.end);
    // The runs went through what they are for.
    assert!(sum.answered > 100 * sum.runs && sum.batches > 30 * sum.runs, "{sum:?}");
    assert!(sum.crashes > sum.runs && sum.leaders > 2 * sum.runs, "{sum:?}");
}

#[test]
fn a_seed_is_one_run_of_the_whole() {
    for seed in 0..2 {
        let (mut first, mut second) = (Trace::tail(), Trace::tail());
        assert_eq!(whole::run(seed, &mut first), whole::run(seed, &mut second));
        let lines: Vec<_> = first.lines().zip(second.lines()).collect();
        assert!(lines.iter().all(|(one, other)| one == other) && lines.len() > 20);
    }
}

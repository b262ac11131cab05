//! A few hundred runs in every `cargo test`; `cargo run -p sim --release -- --seeds A..B` does more.

use sim::{Setup, Trace, run, sweep};

const SEEDS: std::ops::Range<u64> = 0..300;

#[test]
fn every_promise_holds_in_a_few_hundred_runs() {
    let (sum, failed) = sweep(SEEDS, Setup::default(), 2);
    assert_eq!(failed, [], "replay with `cargo run -p sim --release -- --seed N`");
    assert_eq!(sum.runs, SEEDS.end);
    // The runs went through what they are for.
    assert!(sum.acknowledged > 100 * sum.runs, "{sum:?}");
    assert!(sum.crashes > 2 * sum.runs && sum.leaders > 2 * sum.runs, "{sum:?}");
    assert!(sum.windows_full > sum.runs && sum.log_reads > sum.runs, "{sum:?}");
    assert!(sum.reads > 10 * sum.runs, "{sum:?}");
}

#[test]
fn a_seed_is_one_run() {
    for seed in 0..5 {
        let (mut first, mut second) = (Trace::tail(), Trace::tail());
        let setup = Setup::default();
        assert_eq!(run(seed, setup, &mut first), run(seed, setup, &mut second));
        assert!(first.lines().eq(second.lines()) && first.lines().count() > 100);
    }
}

/// Larger bounds: `cargo run -p sim --release -- --model`.
#[test]
fn no_order_of_events_makes_replicas_disagree() {
    let checked = sim::model::check(sim::model::Bounds::SMALL, 2);
    println!("{checked}");
    assert_eq!(checked.failed, Vec::<String>::new());
    assert!(checked.states > 10_000, "{checked}");
}

#[test]
fn no_order_of_events_breaks_a_change_of_members() {
    let checked = sim::model::check(sim::model::Bounds::CHANGE, 2);
    println!("{checked}");
    assert_eq!(checked.failed, Vec::<String>::new());
}

#[test]
fn no_order_of_events_and_no_crash_breaks_a_change_of_three_members() {
    let bounds = sim::model::Bounds { crashes: 1, ..sim::model::Bounds::CHANGE_OF_THREE };
    let checked = sim::model::check(bounds, 2);
    println!("{checked}");
    assert_eq!(checked.failed, Vec::<String>::new());
    assert!(checked.states > 10_000, "{checked}");
}

//! A few runs of the whole store in every `cargo test`; `cargo run -p sim --release -- --whole A..B`
//! does more.

use sim::whole;

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

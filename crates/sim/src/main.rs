//! `sim --seed N [--trace]` replays one run, `sim --seeds A..B` sweeps many, `sim --mutants` shows
//! that the checks see bugs put in on purpose.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use sim::model::Bounds;
use sim::{Setup, Summary, Trace};

mod mutants;

const USAGE: &str = "usage: sim --seed N [--trace] [--mutant NAME]
       sim --seeds A..B [--threads N]
       sim --five A..B       five nodes, every kind of fault in every run
       sim --whole A..B [--threads N]
       sim --whole-seed N [--trace]
       sim --mutants [NAME]
       sim --model change    a fourth member is added to three, and a crash
       sim --model [CAMPAIGNS VALUES CRASHES DELIVERIES MEMBERS CHANGES LED]";
const FIVE: Setup = Setup { nodes: Some(5), all_faults: true };
/// Failing seeds listed after a sweep.
const LISTED_MAX: usize = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // A panic of the core is reported like any other violation.
    std::panic::set_hook(Box::new(|_| {}));
    match arguments[..] {
        ["--seed", seed] => {
            seed.parse().map_or_else(|_| usage(), |seed| one(seed, Setup::default(), Trace::tail()))
        }
        ["--seed", seed, "--trace"] => seed
            .parse()
            .map_or_else(|_| usage(), |seed| one(seed, Setup::default(), Trace::print())),
        ["--model"] => model(Bounds::LARGE),
        ["--model", "change"] => model(Bounds::CHANGE_OF_THREE),
        ["--model", ref bounds @ ..] => {
            let bounds: Vec<u8> = bounds.iter().filter_map(|bound| bound.parse().ok()).collect();
            let [campaigns, values, crashes, deliveries, members, changes, led] = bounds[..] else {
                return usage();
            };
            let bounds = Bounds { campaigns, values, crashes, deliveries, members, changes, led };
            model(bounds)
        }
        ["--mutants", ref names @ ..] => mutants::hunt(names),
        ["--seed", seed, "--mutant", name] => {
            seed.parse().map_or_else(|_| usage(), |seed| mutants::replay(name, seed))
        }
        ["--seeds", seeds] => {
            range(seeds).map_or_else(usage, |seeds| many(seeds, Setup::default(), 2))
        }
        ["--whole", seeds] => range(seeds).map_or_else(usage, |seeds| many_whole(seeds, 2)),
        ["--whole", seeds, "--threads", threads] => match (range(seeds), threads.parse()) {
            (Some(seeds), Ok(threads @ 1..)) => many_whole(seeds, threads),
            _ => usage(),
        },
        ["--whole-seed", seed] => {
            seed.parse().map_or_else(|_| usage(), |seed| one_whole(seed, Trace::tail()))
        }
        ["--whole-seed", seed, "--trace"] => {
            seed.parse().map_or_else(|_| usage(), |seed| one_whole(seed, Trace::print()))
        }
        ["--five", seeds] => range(seeds).map_or_else(usage, |seeds| many(seeds, FIVE, 2)),
        ["--five", "--seed", seed] => {
            seed.parse().map_or_else(|_| usage(), |seed| one(seed, FIVE, Trace::tail()))
        }
        ["--seeds", seeds, "--threads", threads] => match (range(seeds), threads.parse()) {
            (Some(seeds), Ok(threads @ 1..)) => many(seeds, Setup::default(), threads),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn one(seed: u64, setup: Setup, mut trace: Trace) -> ExitCode {
    match sim::run(seed, setup, &mut trace) {
        Ok(summary) => {
            println!("seed {seed} holds");
            print(&summary);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            trace.lines().for_each(|line| println!("{line}"));
            println!("seed {seed} FAILED: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many(seeds: Range<u64>, setup: Setup, threads: u64) -> ExitCode {
    let start = Instant::now();
    let (summary, failed) = sim::sweep(seeds, setup, threads);
    print(&summary);
    println!("{:.1} s of real time", start.elapsed().as_secs_f64());
    for (seed, violation) in failed.iter().take(LISTED_MAX) {
        println!("seed {seed} FAILED: {violation}");
    }
    println!("{} runs hold, {} failed", summary.runs, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_whole(seed: u64, mut trace: Trace) -> ExitCode {
    match sim::whole::run(seed, &mut trace) {
        Ok(summary) => {
            println!("seed {seed} holds");
            print_whole(&summary);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            trace.lines().for_each(|line| println!("{line}"));
            println!("seed {seed} FAILED: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn many_whole(seeds: Range<u64>, threads: u64) -> ExitCode {
    let start = Instant::now();
    let (summary, failed) = sim::whole::sweep(seeds, threads);
    print_whole(&summary);
    println!("{:.1} s of real time", start.elapsed().as_secs_f64());
    for (seed, violation) in failed.iter().take(LISTED_MAX) {
        println!("seed {seed} FAILED: {violation}");
    }
    println!("{} runs of the whole hold, {} failed", summary.runs, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_whole(summary: &sim::whole::Summary) {
    println!(
        "{:.1} h of virtual time, {} events, {} faults, {} crashes, {} leaderships, {} frames",
        summary.virtual_us as f64 / 3.6e9,
        summary.events,
        summary.faults,
        summary.crashes,
        summary.leaders,
        summary.frames,
    );
    println!(
        "{} commands sent, {} answered ({} uncertain, {} refused), {} batches applied; \
         {} nodes stopped by themselves, {} abandoned, {} wiped, {} bits and reads damaged",
        summary.asked,
        summary.answered,
        summary.uncertain,
        summary.refused,
        summary.batches,
        summary.stopped,
        summary.abandoned,
        summary.wiped,
        summary.damaged,
    );
}

fn model(bounds: Bounds) -> ExitCode {
    let start = Instant::now();
    let checked = sim::model::check(bounds, 2);
    println!("{bounds:?}: {checked}");
    println!("{:.1} s of real time", start.elapsed().as_secs_f64());
    if checked.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(summary: &Summary) {
    println!(
        "{:.1} h of virtual time, {} events, {} faults, {} crashes, {} leaderships",
        summary.virtual_us as f64 / 3.6e9,
        summary.events,
        summary.faults,
        summary.crashes,
        summary.leaders,
    );
    println!(
        "{} values proposed, {} acknowledged, {} entries committed; {} refused by a full window, \
         {} catch-ups from disk, {} entries damaged, {} reads answered; \
         {} changes of members, {} nodes wiped, {} snapshots installed",
        summary.proposed,
        summary.acknowledged,
        summary.committed,
        summary.windows_full,
        summary.log_reads,
        summary.damaged,
        summary.reads,
        summary.changes,
        summary.wiped,
        summary.installed,
    );
}

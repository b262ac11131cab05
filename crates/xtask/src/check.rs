//! `cargo xtask check`: the one command that says whether the tree is good. Steps run in order of
//! how soon they fail; the first failure ends it. The last line sums up all tests, in the words
//! of a test runner.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Seeds of the simulation that every check runs; a longer search is run by hand.
const SIM_SEEDS: &str = "0..200";
/// The same of the whole store.
const WHOLE_SEEDS: &str = "0..100";

/// What takes longer hangs: a step is ended then, with all that it started. The longest takes a
/// quarter of this on two cores with nothing built before.
const STEP_SECONDS_MAX: &str = "2700";

/// Measurements of the whole server: each runs in its tiny form.
const BENCHES: &[&str] =
    &["side-by-side", "cold-cache", "load", "scaling", "ycsb", "failover", "idle-groups", "soak"];

/// Tests counted in the output of test runners.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; others count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else { return };
        let words: Vec<&str> = counts.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<usize>() else { continue };
            match pair[1] {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// Runs every step.
///
/// The unit tests run unoptimised, with debug assertions; what starts the whole server runs
/// optimised, because promises about time are part of it, and one test at a time, because two
/// servers under load on two cores would break those promises for each other.
pub(crate) fn run(root: &Path) -> Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut cargo = |line: &str| step(root, line, &mut tally);
    cargo("fmt --all --check")?;
    cargo("clippy --workspace --all-targets --quiet -- -D warnings")?;
    println!("== tidy");
    crate::tidy::run(root, false)?;
    cargo("test --workspace --exclude compat-tests --exclude benches --quiet")?;
    // Apart from the server, which is not to be built with what only a simulation needs.
    cargo(&format!("run --release --quiet --package sim -- --seeds {SIM_SEEDS}"))?;
    cargo(&format!("run --release --quiet --package sim -- --whole {WHOLE_SEEDS}"))?;
    cargo("build --release --quiet --package server --package benches")?;
    cargo("test --release --package compat-tests -- --test-threads=1 --nocapture")?;
    cargo("test --release --quiet --package benches --benches --bins --lib")?;
    for bench in BENCHES {
        cargo(&format!("run --release --quiet --package benches -- {bench} --tiny"))?;
    }
    println!(
        "test result: ok. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        tally.passed,
        tally.failed,
        tally.ignored,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Runs cargo with these words, passing its output on and counting tests.
fn step(root: &Path, line: &str, tally: &mut Tally) -> Result<()> {
    println!("== cargo {line}");
    let start = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new("timeout")
        .args(["--kill-after=10", STEP_SECONDS_MAX])
        .arg(cargo)
        .args(line.split(' '))
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo")?;
    let stdout = child.stdout.take().context("cargo's output")?;
    for text in BufReader::new(stdout).lines() {
        let text = text?;
        tally.add(&text);
        println!("{text}");
    }
    let status = child.wait()?;
    ensure!(status.success(), "failed: cargo {line} ({status})");
    println!("== {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        tally.add("running 3 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.add("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured");
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1 });
    }
}

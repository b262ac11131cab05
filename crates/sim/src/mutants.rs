//! `--mutants` and `--seed N --mutant NAME`. Both need the core built with its injected bugs, which
//! no other build may hold: without the feature, this program has cargo build another of itself.

#[cfg(not(feature = "mutants"))]
use std::process::ExitCode;

#[cfg(feature = "mutants")]
pub(crate) use here::{hunt, replay};

#[cfg(feature = "mutants")]
mod here {
    use std::process::ExitCode;
    use std::time::Instant;

    use sim::{Bug, Trace};

    /// Seeds within which a bug must be seen.
    const SEEDS_MAX: u64 = 2_000;
    const THREADS: usize = 2;

    fn named(name: &str) -> Option<Bug> {
        let found = Bug::all().into_iter().find(|bug| bug.name() == name);
        if found.is_none() {
            eprintln!("no mutant is called {name}");
        }
        found
    }

    /// Hunts the named bugs, or all.
    pub(crate) fn hunt(names: &[&str]) -> ExitCode {
        let Some(mut bugs) = names.iter().map(|name| named(name)).collect::<Option<Vec<_>>>()
        else {
            return ExitCode::from(2);
        };
        if bugs.is_empty() {
            bugs = Bug::all();
        }
        let start = Instant::now();
        let hunted = sim::hunt(&bugs, SEEDS_MAX, THREADS);
        for found in &hunted {
            let by = found.seen.as_ref().map_or("NOT SEEN".to_owned(), |violation| {
                let line = violation.detail.replace(char::is_whitespace, " ");
                let detail: String = line.chars().take(70).collect();
                format!("{} ({detail})", violation.check)
            });
            println!("{:<24} {:>5} seeds  {by}", found.bug.name(), found.seeds);
        }
        let missed = hunted.iter().filter(|found| found.seen.is_none()).count();
        let seconds = start.elapsed().as_secs_f64();
        println!("{} mutants, {missed} not seen, {seconds:.1} s", hunted.len());
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Replays a seed with a bug.
    pub(crate) fn replay(name: &str, seed: u64) -> ExitCode {
        let Some(bug) = named(name) else { return ExitCode::from(2) };
        println!("{name}: {}", bug.text());
        let mut trace = Trace::tail();
        match bug.run(seed, &mut trace) {
            Ok(()) => {
                println!("seed {seed} holds");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                trace.lines().for_each(|line| println!("{line}"));
                println!("seed {seed} FAILED: {violation}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn hunt(_: &[&str]) -> ExitCode {
    again()
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn replay(_: &str, _: u64) -> ExitCode {
    again()
}

/// Runs the same command line on a build with the feature, in its own folder of build results.
#[cfg(not(feature = "mutants"))]
fn again() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let status = std::process::Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "sim", "--features", "mutants"])
        .arg("--target-dir")
        .arg(std::path::Path::new(&target).join("mutants"))
        .arg("--")
        .args(std::env::args_os().skip(1))
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo, which has to build the mutants, did not start: {error}");
            ExitCode::FAILURE
        }
    }
}

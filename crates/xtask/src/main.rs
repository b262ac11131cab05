//! The project's own tasks: `cargo xtask check` runs everything CI runs, `cargo xtask tidy` the rules
//! about the shape of the code alone.

mod check;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "\
cargo xtask check              format, clippy, tidy, all tests, simulation seeds, black-box tests, tiny benchmarks
cargo xtask tidy               crate graph, forbidden reads, names, lengths, command coverage, links
cargo xtask tidy --tighten     the same, and lowers the ratchet to where the code stands";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = workspace().and_then(|root| match words.as_slice() {
        ["check"] => check::run(&root),
        ["tidy"] => tidy::run(&root, false),
        ["tidy", "--tighten"] => tidy::run(&root, true),
        _ => anyhow::bail!("{USAGE}"),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root folder.
fn workspace() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(root.context("xtask lies two folders below the root")?.to_owned())
}

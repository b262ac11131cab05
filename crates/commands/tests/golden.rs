//! The scripts of `testscripts/<family>/<command>`, run over a partition in memory.
//!
//! ```text
//! > COMMAND …      a client's command; prints the reply as redis-cli does
//! advance <ms>     lets time pass
//! expire <limit>   the leader's expiry task; prints what it removed and when it is due again
//! rows             prints the stored rows
//! counters         prints the partition's counters
//! range <f> <l>    makes the partition hold the placements from <f> to <l>, in hexadecimal
//! ```
//!
//! `UPDATE_GOLDENFILES=1` writes the replies; `tests/real_redis.rs` compares the same commands with
//! a real server (a line tagged `[own]` is not compared, `[time]` up to what passes meanwhile).

mod support;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use commands::rows::{self, RowKind};
use commands::types::header::Header;
use commands::{Run, table};
use goldenscript::{Argument, Command, Context, Runner};
use support::{START_MS, Session, print, split};
use wire::placement::Placement;

struct Script(Session);

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut numbers = Vec::new();
        for arg in &command.args {
            let Argument::Positional(value) = arg else { return Err("unexpected key".into()) };
            numbers.push(value.as_str());
        }
        let session = &mut self.0;
        Ok(match (command.name.as_str(), numbers.as_slice()) {
            ("advance", [ms]) => {
                session.view.now_ms += ms.parse::<u64>()?;
                String::new()
            }
            ("expire", [limit]) => format!("{:?}\n", session.expire_due(limit.parse()?)),
            ("rows", []) => dump_rows(session),
            ("counters", []) => format!("{:?}\n", session.view.counters),
            ("range", [first, last]) => {
                let placement = |text: &str| {
                    let number = u64::from_str_radix(text, 16)?;
                    Placement::new(number).ok_or(Box::<dyn Error>::from("above 2^40"))
                };
                session.view.range.first = placement(first)?;
                session.view.range.last = placement(last)?;
                String::new()
            }
            (line, []) => format!("{}\n", print(&session.run(&split(line)))),
            _ => return Err(format!("unknown verb {}", command.name).into()),
        })
    }
}

fn dump_rows(session: &Session) -> String {
    let mut out = String::new();
    for (row, value) in &session.view.rows {
        match rows::parse(row).expect("a row key") {
            RowKind::Header { key, .. } => {
                let header = Header::decode(value.clone()).expect("a header");
                writeln!(out, "header {} {:?}", key.escape_ascii(), header)
            }
            RowKind::Ttl { key, expire_at_ms, .. } => {
                writeln!(out, "ttl {} {expire_at_ms}", key.escape_ascii())
            }
            other => writeln!(out, "{other:?} {}", value.escape_ascii()),
        }
        .expect("a String");
    }
    out
}

/// Every script, with its path.
fn scripts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let entries = |path: &Path| {
        let entries = std::fs::read_dir(path).expect("a directory");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    entries(&root).iter().flat_map(|family| entries(family)).collect()
}

#[test]
fn scripts_give_the_replies_they_hold() {
    for script in scripts() {
        println!("{}", script.display());
        let mut runner = Script(Session::new(START_MS));
        goldenscript::run(&mut runner, &script).expect("a readable script");
    }
}

#[test]
fn every_row_that_runs_on_a_partition_owns_a_script() {
    let scripts: BTreeSet<String> =
        scripts().iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    for entry in table::entries() {
        if !matches!(entry.command.run, Run::Read(_) | Run::Write(_)) {
            continue;
        }
        let name = match entry.group {
            Some(group) => format!("{}-{}", group.name, entry.command.name),
            None => entry.command.name.to_owned(),
        };
        let name = name.to_ascii_lowercase();
        assert!(scripts.contains(&name), "no testscripts/<family>/{name}");
    }
}

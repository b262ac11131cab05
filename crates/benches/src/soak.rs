//! *Question: does anything grow that should not, or get slower, under full load for a long time?*
//!
//! A closed loop of reads, writes, counters, deletions and expiring keys over a fixed set of keys,
//! in windows of ten seconds with connections of their own. After each: rate, latencies, resident
//! memory, open descriptors, data folder, and campaigns for leadership: nobody is lost, so any is one too
//! many, however busy the machine is. At the end each file of the folder must belong to a part
//! that is known, and the logs' and LSMs' sizes must be those that INFO tells.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::BytesMut;

use crate::client::encode;
use crate::driver::{self, Generator, Outcome, Step, Until};
use crate::keys::{Random, Values, key};
use crate::process::{descriptors, files, resident_bytes};
use crate::servers::{Seat, Server};

/// Time to live of those keys that get one.
const TTL_MS: &str = "5000";
/// Once the load has ended, flushes and compactions may go on so long.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const SETTLE_POLL: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);
/// A node's log has its next segment ready before it needs it; INFO counts it from then on.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Files and INFO may differ by the metadata of tables and of the engine's own keyspace.
const TABLES_TOLERANCE: f64 = 0.05;
const TABLES_TOLERANCE_BYTES: u64 = 1 << 20;
/// The last third of the windows may use this much more than the first.
const GROWTH_MAX: f64 = 1.25;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Copies that Evenkeel keeps.
    pub replicas: u8,
    /// How long in all.
    pub minutes: f64,
    /// How long a window is.
    pub window: Duration,
    /// Keys of each kind.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Connections.
    pub connections: usize,
    /// Commands under way on each.
    pub pipeline: usize,
}

impl Plan {
    /// The measurement: ten minutes.
    pub fn full() -> Plan {
        Plan {
            replicas: 3,
            minutes: 10.0,
            window: Duration::from_secs(10),
            keys: 200_000,
            value_bytes: 300,
            connections: 32,
            pipeline: 8,
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        let window = Duration::from_millis(250);
        Plan { minutes: 1.0 / 60.0, window, keys: 2_000, ..Plan::full() }
    }
}

/// What one window showed.
struct Window {
    rate: f64,
    p99_ms: f64,
    resident: u64,
    descriptors: usize,
    disk: u64,
    /// Campaigns since the load began.
    campaigns: f64,
}

/// Runs the plan and prints a line per window, then what came of it.
///
/// *Errors*: a command failed, somebody campaigned, or the data folder holds what nobody knows of.
pub fn run(plan: &Plan) -> Result<()> {
    let server = Server::start(Seat::Evenkeel(plan.replicas))?;
    server.load(plan.keys, plan.value_bytes)?;
    let count = ((plan.minutes * 60.0 / plan.window.as_secs_f64()).round() as usize).max(3);
    println!(
        "Soak: {} keys of {} bytes, {} copies, {} connections × {}, closed loop\n",
        plan.keys, plan.value_bytes, plan.replicas, plan.connections, plan.pipeline
    );
    println!(
        "| s | commands/s | p50 ms | p99 ms | longest ms | RSS MiB | descriptors | disk MiB | files | campaigns |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let before = campaigns(&server)?;
    let mut windows = Vec::new();
    for number in 0..count {
        windows.push(window(&server, plan, number, before)?);
    }
    verdict(&windows);
    let spurious = windows.last().map_or(0.0, |window| window.campaigns);
    ensure!(spurious == 0.0, "{spurious} campaigns for leadership while nobody was lost");
    println!("\nNobody campaigned for leadership.");
    account(&server, plan.replicas)
}

fn campaigns(server: &Server) -> Result<f64> {
    Ok(server.client()?.info("consensus")?["elections_started"])
}

fn window(server: &Server, plan: &Plan, number: usize, before: f64) -> Result<Window> {
    let until = Until { steps: u64::MAX, elapsed: plan.window };
    let outcome = driver::closed(server.port, generators(plan, number), plan.pipeline, until, 1)
        .and_then(Outcome::without_errors)?;
    until_alone(server)?;
    let parts = files(server.dir(), kind_of)?;
    let (count, disk) = parts.values().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let window = Window {
        rate: outcome.rate(),
        p99_ms: outcome.quantile_ms(0.99),
        resident: resident_bytes(server.pid())?,
        descriptors: descriptors(server.pid())?,
        disk,
        campaigns: campaigns(server)? - before,
    };
    println!(
        "| {:.0} | {:.0} | {:.2} | {:.2} | {:.1} | {} | {} | {} | {count} | {:.0} |",
        plan.window.as_secs_f64() * (number + 1) as f64,
        window.rate,
        outcome.quantile_ms(0.5),
        window.p99_ms,
        outcome.quantile_ms(1.0),
        window.resident >> 20,
        window.descriptors,
        disk >> 20,
        window.campaigns,
    );
    Ok(window)
}

/// Waits until the server has closed the window's connections, whose descriptors are not meant.
fn until_alone(server: &Server) -> Result<()> {
    let mut client = server.client()?;
    let deadline = Instant::now() + SETTLE_WITHIN;
    while client.info("clients")?["connected_clients"] > 1.0 {
        ensure!(Instant::now() < deadline, "connections stay open");
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn generators(plan: &Plan, window: usize) -> Vec<Generator> {
    let (keys, value_bytes) = (plan.keys, plan.value_bytes);
    let generator = |connection: usize| -> Generator {
        let mut random = Random::new((window as u64) << 32 | connection as u64);
        let values = Values::new(&mut random, value_bytes);
        Box::new(move |out: &mut BytesMut| {
            let number = random.below(keys);
            let name = key(number);
            match random.below(20) {
                0..8 => encode(&["GET", &name], out),
                8..14 => encode(&[b"SET", name.as_bytes(), values.next(&mut random)], out),
                14..16 => encode(&["INCR", &format!("counter:{number}")], out),
                16..18 => {
                    let volatile = format!("volatile:{number}");
                    let value = values.next(&mut random);
                    encode(&[b"SET", volatile.as_bytes(), value, b"PX", TTL_MS.as_bytes()], out);
                }
                18 => encode(&["DEL", &name], out),
                _ => encode(&["MGET", &name, &key(random.below(keys))], out),
            }
            Step::ONE
        })
    };
    (0..plan.connections).map(generator).collect()
}

/// Prints how the last third of the windows compares with the first.
fn verdict(windows: &[Window]) {
    let third = (windows.len() / 3).max(1);
    let (first, last) = (&windows[..third], &windows[windows.len() - third..]);
    let middle = |windows: &[Window], of: &dyn Fn(&Window) -> f64| {
        let mut values: Vec<f64> = windows.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("\n| last third ÷ first third | ratio | |\n|---|---|---|");
    let row = |name: &str, grows: bool, of: &dyn Fn(&Window) -> f64| {
        let ratio = middle(last, of) / middle(first, of);
        let bad = if grows { ratio > GROWTH_MAX } else { ratio < 1.0 / GROWTH_MAX };
        println!("| {name} | {ratio:.2} | {} |", if bad { "LOOK" } else { "steady" });
    };
    row("commands/s", false, &|window| window.rate);
    row("p99", true, &|window| window.p99_ms);
    row("resident memory", true, &|window| window.resident as f64);
    row("open descriptors", true, &|window| window.descriptors as f64);
    row("data folder", true, &|window| window.disk as f64);
}

const SEGMENTS: &str = "log segments";
const TABLES: &str = "LSM tables";
const UNKNOWN: &str = "unknown: ";

/// What a file of the data folder is for, by its path.
fn kind_of(path: &[String]) -> String {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let kind = match parts[..] {
        ["CLUSTER" | "LOCK"] | [_, "REPLICAS"] => "the cluster's own",
        [_, "log", name] if name.starts_with("wal-") && name.ends_with(".seg") => SEGMENTS,
        [_, "log", name] if name.starts_with("spare-") => "log segments to be used again",
        [_, "log", name] if name.starts_with("making-") => "log segments being made",
        [_, "log", name] if name.ends_with(".idx") => "indexes of log segments",
        [_, "log" | "lsm", "lock"] => "locks",
        [_, "lsm", "keyspaces", _, "tables", _] => TABLES,
        [_, "lsm", "keyspaces", _, name] if name == "current" || name.starts_with('v') => {
            "LSM versions"
        }
        [_, "lsm", "version"] => "LSM versions",
        [_, "lsm", name] if name.ends_with(".jnl") => "the engine's journal, unused",
        _ => return format!("{UNKNOWN}{}", path.join("/")),
    };
    kind.to_owned()
}

/// Compares the data folder with what INFO says of it, once the background work has ended.
///
/// *Errors*: a file that nobody knows of, or sizes that do not agree.
fn account(server: &Server, copies: u8) -> Result<()> {
    let mut client = server.client()?;
    let deadline = Instant::now() + SETTLE_WITHIN;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    loop {
        let found = files(server.dir(), kind_of)?;
        let info = client.info("consensus")?;
        let agrees = |kind: &str, name: &str, ahead: u64| {
            let there = found.get(kind).map_or(0, |(_, bytes)| *bytes);
            let told = info.get(name).map_or(0, |bytes| *bytes as u64);
            told <= there && there - told <= ahead
        };
        let ahead = SEGMENT_BYTES * u64::from(copies);
        let rows = info.get("lsm_bytes").copied().unwrap_or(0.0);
        let metadata = TABLES_TOLERANCE_BYTES + (rows * TABLES_TOLERANCE) as u64;
        let agree = agrees(SEGMENTS, "wal_bytes", ahead) && agrees(TABLES, "lsm_bytes", metadata);
        if !agree && Instant::now() < deadline {
            std::thread::sleep(SETTLE_POLL);
            continue;
        }
        println!("\n| files of the data folder | number | MiB |\n|---|---|---|");
        for (kind, (files, bytes)) in &found {
            println!("| {kind} | {files} | {:.1} |", mib(*bytes));
        }
        let told = |name: &str| mib(info.get(name).map_or(0, |bytes| *bytes as u64));
        let (wal, lsm) = (told("wal_bytes"), told("lsm_bytes"));
        println!("\nINFO tells of {wal:.1} MiB of log segments and {lsm:.1} MiB of LSM tables.");
        ensure!(agree, "the files and INFO do not agree");
        let unknown = found.keys().find(|kind| kind.starts_with(UNKNOWN));
        ensure!(unknown.is_none(), "{}", unknown.map_or("", |kind| kind));
        println!("Each file is of a known kind.");
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_file_is_noticed() {
        let kind = |path: &str| kind_of(&path.split('/').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(kind("node-1/log/wal-0000000000000003.seg"), SEGMENTS);
        assert_eq!(kind("node-2/lsm/keyspaces/1/tables/17"), TABLES);
        for stray in ["core", "node-1/log/wal-3.tmp", "node-1/lsm/keyspaces/1/x", "node-1/LOCK"] {
            assert_eq!(kind(stray), format!("{UNKNOWN}{stray}"));
        }
    }
}

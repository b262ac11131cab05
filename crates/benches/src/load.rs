//! *Question: can a large amount be written at a steady rate without a stall, what does it cost in
//! memory, and how long is the way back after a crash?*
//!
//! SETs of keys `0..n` at an offered rate (open loop: latencies run from the time a write was meant
//! to be sent), resident memory of the server sampled meanwhile; then SIGKILL, and the time from the
//! start of the new process to its first answered read; then every so-many-th key is read back.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use wire::resp::Reply;

use crate::driver;
use crate::keys::{fill, key};
use crate::process::{MemoryCurve, folder_bytes, resident_bytes};
use crate::servers::{Seat, Server};

/// Points of the memory curve that are printed.
const CURVE_POINTS: usize = 10;
/// Keys read back after the restart.
const SAMPLE_KEYS: u64 = 1_000;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Copies that Evenkeel keeps.
    pub replicas: u8,
    /// Its `--memory`, in MiB.
    pub memory_mb: u32,
    /// Keys written.
    pub keys: u64,
    /// Writes a second.
    pub rate: f64,
    /// Connections they come from.
    pub connections: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
}

impl Plan {
    /// The measurement: about four minutes.
    pub fn full() -> Plan {
        Plan {
            replicas: 3,
            memory_mb: 1024,
            keys: 10_000_000,
            rate: 50_000.0,
            connections: 32,
            value_bytes: 100,
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan { keys: 4_000, rate: 4_000.0, ..Plan::full() }
    }
}

/// Runs the plan and prints what came of it.
///
/// *Errors*: a write failed, or a key is missing after the restart.
pub fn run(plan: &Plan) -> Result<()> {
    let mut server = Server::start(Seat::EvenkeelWithin(plan.replicas, plan.memory_mb))?;
    let empty = resident_bytes(server.pid())?;
    let duration = Duration::from_secs_f64(plan.keys as f64 / plan.rate);
    let curve = MemoryCurve::start(server.pid(), duration / (CURVE_POINTS as u32 * 4));
    let generators = fill(plan.keys, plan.value_bytes, plan.connections);
    let outcome =
        driver::open(server.port, generators, plan.rate, duration, 1)?.without_errors()?;
    let curve = curve.stop()?;
    println!(
        "Writing {} keys, {}-byte values, {} copies, {:.0}/s offered, open loop:\n",
        plan.keys, plan.value_bytes, plan.replicas, plan.rate
    );
    println!(
        "- reached {:.0}/s; {:.2} of what was offered",
        outcome.rate(),
        outcome.rate() / plan.rate
    );
    let quantile = |q| outcome.quantile_ms(q);
    println!(
        "- latency ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, longest {:.1}; p99 ÷ p50 {:.0}",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0),
        quantile(0.99) / quantile(0.5)
    );
    print_stalls(&outcome);
    print_memory(plan, &server, empty, &curve)?;
    let restart = server.kill_and_restart()?;
    let mib = folder_bytes(server.dir())? as f64 / f64::from(1 << 20);
    println!(
        "- kill -9, then {:.2} s from the start to the first answered read ({mib:.0} MiB on disk)",
        restart.as_secs_f64()
    );
    read_back(plan, &server, outcome.done)
}

fn print_stalls(outcome: &driver::Outcome) {
    let stalls = &outcome.stalls;
    print!("- stalls over {} ms: {}", driver::STALL.as_millis(), stalls.len());
    if let Some(longest) = stalls.iter().map(|(_, length)| *length).max() {
        let sum: Duration = stalls.iter().map(|(_, length)| *length).sum();
        let share = 100.0 * sum.as_secs_f64() / outcome.elapsed.as_secs_f64();
        print!(", the longest {} ms, {share:.2}% of the time; at", longest.as_millis());
        for (at, length) in stalls.iter().take(CURVE_POINTS) {
            print!(" {:.1} s ({} ms)", at.as_secs_f64(), length.as_millis());
        }
    }
    println!();
}

fn print_memory(plan: &Plan, server: &Server, empty: u64, curve: &[(Duration, u64)]) -> Result<()> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    print!("- resident memory, MiB: {:.0} empty;", mib(empty));
    for (at, bytes) in curve.iter().step_by(curve.len().div_ceil(CURVE_POINTS)) {
        print!(" {:.0} s: {:.0},", at.as_secs_f64(), mib(*bytes));
    }
    let end = resident_bytes(server.pid())?;
    let most = curve.iter().map(|(_, bytes)| *bytes).max().unwrap_or(end).max(end);
    println!(" {:.0} at the end, {:.0} at most", mib(end), mib(most));
    let written = plan.keys * (key(0).len() + plan.value_bytes) as u64;
    println!(
        "- memory per key: {:.0} bytes, all copies; {:.2} of one copy's keys and values",
        end.saturating_sub(empty) as f64 / plan.keys as f64,
        end.saturating_sub(empty) as f64 / written as f64
    );
    let disk = folder_bytes(server.dir())?;
    println!(
        "- disk: {:.0} MiB, {:.2} of {} copies' keys and values",
        mib(disk),
        disk as f64 / (written * u64::from(plan.replicas)) as f64,
        plan.replicas
    );
    Ok(())
}

fn read_back(plan: &Plan, server: &Server, written: u64) -> Result<()> {
    let mut client = server.client()?;
    // The schedule ends within a tick of the last key; those not sent are not looked for.
    let step = (written / SAMPLE_KEYS).max(1);
    let mut seen = 0;
    for number in (0..written).step_by(step as usize) {
        let reply = client.ask(&[b"GET", key(number).as_bytes()])?;
        let sound = matches!(&reply, Reply::Bulk(value) if value.len() == plan.value_bytes);
        ensure!(sound, "{} is lost: {reply:?}", key(number));
        seen += 1;
    }
    let Reply::Integer(size) = client.call("DBSIZE")? else { bail!("DBSIZE is no number") };
    ensure!(u64::try_from(size).ok() == Some(written), "{size} keys of {written} are there");
    println!(
        "- after the restart DBSIZE is {size} and {seen} keys read at random places are there"
    );
    Ok(())
}

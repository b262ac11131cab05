//! *Question: does emptying every route cache at load change what clients see, or what MemDS sees?*
//!
//! Promise P3: MemDS gets one lookup per routed command, hit or miss, so a cold cache costs it
//! nothing new (within 2%), clients' p99 stays (within 10%) and no request fails. The load is an
//! open loop at a fixed rate, half reads, half writes. Rounds alternate between a `PING` and an `ADMIN
//! CACHE FLUSH` each 100 ms, which of them first alternating too, so that what the machine does
//! meanwhile, and what one more client that wakes up costs, falls on both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::BytesMut;

use crate::client::{Client, encode};
use crate::driver::{self, Generator, Outcome, Step};
use crate::keys::{Random, Values, key};
use crate::servers::{Seat, Server};

const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// By how much MemDS's lookups per command may be off.
const LOOKUPS_TOLERANCE: f64 = 0.02;
/// By how much p99 may grow.
const P99_TOLERANCE: f64 = 0.10;
/// MemDS's answers come behind the replies; so long they may take to be counted.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(5);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Commands a second.
    pub rate: f64,
    /// Connections they come from.
    pub connections: usize,
    /// Keys they name.
    pub keys: u64,
    /// Bytes of their values.
    pub value_bytes: usize,
    /// Rounds of calm and flushes.
    pub rounds: usize,
    /// How long each half of a round is.
    pub half: Duration,
}

impl Plan {
    /// The measurement: about a minute and a half.
    pub fn full() -> Plan {
        Plan {
            rate: 20_000.0,
            connections: 32,
            keys: 200_000,
            value_bytes: 100,
            rounds: 8,
            half: Duration::from_secs(5),
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        let half = Duration::from_millis(500);
        Plan { rate: 1_000.0, keys: 2_000, rounds: 1, half, ..Plan::full() }
    }
}

/// One half of a round.
#[derive(Clone, Copy, Debug)]
struct Half {
    p50_ms: f64,
    p99_ms: f64,
    /// MemDS lookups per routed command.
    lookups: f64,
    /// Routes found in the cache per routed command.
    hits: f64,
}

/// Runs the plan and prints what came of it.
///
/// *Errors*: a request failed, or MemDS got another number of lookups than it should.
pub fn run(plan: &Plan) -> Result<()> {
    let server = Server::start(Seat::Evenkeel(3))?;
    server.load(plan.keys, plan.value_bytes)?;
    let (mut calm, mut flushed) = (Vec::new(), Vec::new());
    let mut flushes = 0;
    for round in 0..plan.rounds {
        for flush in [round % 2 == 1, round % 2 == 0] {
            // What flushes left cold is warmed first, and is not counted.
            driver::open(server.port, generators(plan), plan.rate, plan.half / 4, 1)?;
            let (half, count) = half(&server, plan, flush)?;
            if flush {
                flushed.push(half);
                flushes += count;
            } else {
                calm.push(half);
            }
        }
    }
    let Plan { rate, connections, rounds, .. } = plan;
    println!(
        "Emptying the route cache under load: {rate:.0} commands/s, open loop, {connections} \
         connections, {rounds} rounds, {flushes} flushes; medians of rounds\n"
    );
    println!(
        "| | p50 ms | p99 ms | cache hits | MemDS lookups per command |\n|---|---|---|---|---|"
    );
    for (name, halves) in [("beside a PING each 100 ms", &calm), ("flushed each 100 ms", &flushed)]
    {
        println!(
            "| {name} | {:.3} | {:.3} | {:.2}% | {:.4} |",
            median(halves, |half| half.p50_ms),
            median(halves, |half| half.p99_ms),
            100.0 * median(halves, |half| half.hits),
            median(halves, |half| half.lookups),
        );
    }
    verdict(&calm, &flushed)
}

/// Prints the answer. What time has no part in is an error if it does not hold.
fn verdict(calm: &[Half], flushed: &[Half]) -> Result<()> {
    let ratio = |of: fn(&Half) -> f64| median(flushed, of) / median(calm, of);
    let (p99, lookups) = (ratio(|half| half.p99_ms), ratio(|half| half.lookups));
    let verdict = if p99 <= 1.0 + P99_TOLERANCE { "holds" } else { "DOES NOT HOLD" };
    println!("\np99 flushed ÷ not flushed: {p99:.3}; promised is at most 1.10: {verdict}.");
    println!(
        "Lookups flushed ÷ not flushed: {lookups:.4}; promised is 1.00 ± 0.02. No request failed."
    );
    let exact = |half: &Half| (half.lookups - 1.0).abs() <= LOOKUPS_TOLERANCE;
    ensure!(calm.iter().chain(flushed).all(exact), "not one lookup per command");
    let colder = median(flushed, |half| half.hits) < median(calm, |half| half.hits);
    ensure!(colder, "the flushes flushed nothing");
    Ok(())
}

/// One half and how often its command was called.
fn half(server: &Server, plan: &Plan, flush: bool) -> Result<(Half, u64)> {
    let mut control = server.client()?;
    let before = settled(&mut control)?;
    let over = AtomicBool::new(false);
    let (outcome, calls) = std::thread::scope(|scope| -> Result<(Outcome, u64)> {
        let line = if flush { "ADMIN CACHE FLUSH" } else { "PING" };
        let caller = scope.spawn(|| call_until(server, line, &over));
        let generators = generators(plan);
        let ran = driver::open(server.port, generators, plan.rate, plan.half, 1);
        over.store(true, Ordering::Relaxed);
        let Ok(calls) = caller.join() else { bail!("the calling thread panicked") };
        Ok((ran?.without_errors()?, calls?))
    })?;
    let after = settled(&mut control)?;
    let since = |name: &str| after[name] - before[name];
    let routed = since("routed_commands");
    ensure!(routed as u64 == outcome.done, "{routed} routed of {} sent", outcome.done);
    let half = Half {
        p50_ms: outcome.quantile_ms(0.5),
        p99_ms: outcome.quantile_ms(0.99),
        lookups: since("memds_lookups") / routed,
        hits: since("route_cache_hits") / routed,
    };
    Ok((half, calls))
}

/// Calls a command each [`FLUSH_EVERY`] until it is over; how often.
fn call_until(server: &Server, line: &str, over: &AtomicBool) -> Result<u64> {
    let mut client = server.client()?;
    let start = Instant::now();
    for calls in 1.. {
        client.call(line)?;
        std::thread::sleep((start + FLUSH_EVERY * calls).saturating_duration_since(Instant::now()));
        if over.load(Ordering::Relaxed) {
            return Ok(u64::from(calls));
        }
    }
    unreachable!("the counter does not end first")
}

/// The counters of routing, once MemDS's answers stop coming in.
fn settled(control: &mut Client) -> Result<std::collections::BTreeMap<String, f64>> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    let mut last = control.info("routing")?;
    loop {
        std::thread::sleep(SETTLE_POLL);
        let next = control.info("routing")?;
        let same =
            ["memds_lookups", "routed_commands"].iter().all(|name| last[*name] == next[*name]);
        if same && next["memds_lookups"] >= next["routed_commands"] {
            return Ok(next);
        }
        last = next;
        if Instant::now() > deadline {
            // What is missing then shows in the ratio.
            return Ok(last);
        }
    }
}

fn generators(plan: &Plan) -> Vec<Generator> {
    let (keys, value_bytes) = (plan.keys, plan.value_bytes);
    let generator = |connection: usize| -> Generator {
        let mut random = Random::new(connection as u64);
        let values = Values::new(&mut random, value_bytes);
        Box::new(move |out: &mut BytesMut| {
            let key = key(random.below(keys));
            match random.below(2) {
                0 => encode(&["GET", &key], out),
                _ => encode(&[b"SET", key.as_bytes(), values.next(&mut random)], out),
            }
            Step::ONE
        })
    };
    (0..plan.connections).map(generator).collect()
}

fn median(halves: &[Half], of: impl Fn(&Half) -> f64) -> f64 {
    let mut values: Vec<f64> = halves.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! *Question: what does a client see of throughput and latency, on this machine, next to Redis
//! without persistence and next to Redis that syncs each write?*
//!
//! redis-benchmark drives the servers in turns, so that what the machine does meanwhile falls on all
//! of them; of the rounds the median counts. A cell lasts about as long as [`Plan::cell`] says: a
//! short probe tells how many commands that takes. MULTI blocks, which redis-benchmark cannot send,
//! come from the driver of this crate in a closed loop of the same shape. All share the machine with
//! the load: ratios within a row mean more than the numbers, and numbers of another day nothing.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use wire::resp::Reply;

use crate::client::encode;
use crate::driver::{self, Generator, Outcome, Step, Until};
use crate::keys::{Random, key};
use crate::servers::{Seat, Server};

const VALUE_BYTES: usize = 100;
/// Elements of the list that LRANGE reads the head of.
const FILLED_ITEMS: usize = 300;
/// The list that redis-benchmark takes from.
const POPPED: &str = "mylist";
/// Elements a command brings while that is filled.
const PUSHED_ITEMS: u64 = 100;
/// The first probe that tells how fast a cell is, in commands for each connection's pipeline.
const PROBE_PIPELINES: usize = 10;
/// A probe that lasted less than this part of a cell says too little: redis-benchmark counts
/// milliseconds.
const PROBE_SHARE: f64 = 0.05;
/// By how much each probe may be longer than the one before, so that a wrong one costs little.
const PROBE_GROWTH: usize = 8;
/// How often a cell that failed is tried again; each failure is told under the table.
const RETRIES: usize = 2;

/// What a cell sends. `__rand_int__` is redis-benchmark's.
struct Test {
    /// In the table.
    name: &'static str,
    /// Left out if the server does not know it.
    needs: &'static str,
    what: What,
}

enum What {
    /// A test of redis-benchmark's own.
    Named(&'static str),
    /// The same, of a test that takes from [`POPPED`]: so much is there before. To say that a list is empty
    /// is another command, and no write.
    Pops(&'static str),
    /// Words; `__value__` stands for the value.
    Words(&'static [&'static str]),
    /// `MULTI`, a SET and an INCR of two random keys, `EXEC`: counted as one.
    Multi,
}

const TESTS: &[Test] = &[
    Test { name: "SET", needs: "SET", what: What::Named("set") },
    Test { name: "GET", needs: "GET", what: What::Named("get") },
    Test { name: "INCR", needs: "INCR", what: What::Named("incr") },
    Test { name: "MSET (10)", needs: "MSET", what: What::Named("mset") },
    Test {
        name: "SETBIT",
        needs: "SETBIT",
        what: What::Words(&["SETBIT", "bits:__rand_int__", "7", "1"]),
    },
    // Before HGET, which reads what this writes.
    Test {
        name: "HSET",
        needs: "HSET",
        what: What::Words(&["HSET", "hash:__rand_int__", "field", "__value__"]),
    },
    Test {
        name: "HGET",
        needs: "HGET",
        what: What::Words(&["HGET", "hash:__rand_int__", "field"]),
    },
    Test { name: "LPUSH", needs: "LPUSH", what: What::Named("lpush") },
    Test { name: "LPOP", needs: "LPOP", what: What::Pops("lpop") },
    Test {
        name: "LRANGE (100)",
        needs: "LRANGE",
        what: What::Words(&["LRANGE", "filled", "0", "99"]),
    },
    Test { name: "SADD", needs: "SADD", what: What::Named("sadd") },
    Test { name: "ZADD", needs: "ZADD", what: What::Named("zadd") },
    Test {
        name: "XADD",
        needs: "XADD",
        what: What::Words(&["XADD", "stream", "*", "f", "__value__"]),
    },
    Test {
        name: "EVAL of GET",
        needs: "EVAL",
        what: What::Words(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "key:__rand_int__"]),
    },
    Test {
        name: "EVAL of SET",
        needs: "EVAL",
        what: What::Words(&[
            "EVAL",
            "return redis.call('SET', KEYS[1], ARGV[1])",
            "1",
            "key:__rand_int__",
            "__value__",
        ]),
    },
    Test { name: "MULTI (2)", needs: "MULTI", what: What::Multi },
];

/// A kind of load: connections, and commands under way on each.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    pipeline: usize,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "-c {} -P {}", self.connections, self.pipeline)
    }
}

const LOADS: &[Load] = &[
    Load { connections: 50, pipeline: 1 },
    Load { connections: 50, pipeline: 16 },
    Load { connections: 1, pipeline: 1 },
];

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Copies that Evenkeel keeps.
    pub replicas: u8,
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// Random keys, all of which exist.
    pub keys: u64,
    /// How long a cell lasts, roughly.
    pub cell: Duration,
    /// Names of the tests to run, by commas; empty: all.
    pub only: String,
}

impl Plan {
    /// The measurement: about ten minutes.
    pub fn full() -> Plan {
        let (cell, only) = (Duration::from_secs(1), String::new());
        Plan { replicas: 3, rounds: 3, keys: 1_000_000, cell, only }
    }

    fn wants(&self, test: &Test) -> bool {
        self.only.is_empty()
            || self.only.split(',').any(|name| name == test.name || name == test.needs)
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan { rounds: 1, keys: 10_000, cell: Duration::from_millis(20), ..Plan::full() }
    }
}

/// One result: commands per second, and latencies in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Sample {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Test, load and seat → a sample per round.
type Samples = BTreeMap<(usize, usize, usize), Vec<Sample>>;

/// Runs the plan and prints a table.
pub fn run(plan: &Plan) -> Result<()> {
    let start = Instant::now();
    let seats = [Seat::Evenkeel(plan.replicas), Seat::RedisMemory, Seat::RedisSynced];
    let servers = seats.iter().map(|seat| Server::start(*seat)).collect::<Result<Vec<_>>>()?;
    let mut known = Vec::new();
    for test in TESTS {
        let mut all = plan.wants(test);
        for server in &servers {
            all &= server.client()?.knows(test.needs)?;
        }
        known.push(all);
    }
    for server in &servers {
        server.load(plan.keys, VALUE_BYTES)?;
        if known[at_of("HGET")] {
            load_hashes(server, plan.keys)?;
        }
        if known[at_of("LRANGE (100)")] {
            let value = "x".repeat(VALUE_BYTES);
            let items = format!("RPUSH filled {}", vec![value; FILLED_ITEMS].join(" "));
            server.client()?.call(&items)?;
        }
    }
    eprintln!("{} keys loaded, {:.0} s", plan.keys, start.elapsed().as_secs_f64());
    let (mut samples, mut failures) = (Samples::new(), Vec::new());
    for round in 1..=plan.rounds {
        for (load_at, load) in LOADS.iter().enumerate() {
            for (test_at, test) in TESTS.iter().enumerate().filter(|(at, _)| known[*at]) {
                for (seat_at, server) in servers.iter().enumerate() {
                    let cell = samples.entry((test_at, load_at, seat_at)).or_default();
                    let before = cell.last().copied();
                    let sample = measure_cell(server, *load, test, plan, before, &mut failures)?;
                    cell.push(sample);
                }
                let seconds = start.elapsed().as_secs_f64();
                eprintln!("{seconds:4.0} s  round {round}  {load}  {}", test.name);
            }
        }
    }
    println!("{}", table(plan, &samples));
    for failure in failures {
        println!("Tried again after an error: {failure}");
    }
    Ok(())
}

/// A cell's sample; tried again if it fails, for one refused write among a hundred million must not
/// cost the run, nor be hidden.
fn measure_cell(
    server: &Server,
    load: Load,
    test: &Test,
    plan: &Plan,
    before: Option<Sample>,
    failures: &mut Vec<String>,
) -> Result<Sample> {
    let cell = || format!("{} {load}, {}", test.name, server.seat.name());
    for _ in 0..RETRIES {
        match measure(server, load, test, plan, before) {
            Ok(sample) => return Ok(sample),
            Err(error) => failures.push(format!("{}: {}", cell(), error.to_string().trim_end())),
        }
    }
    measure(server, load, test, plan, before).with_context(cell)
}

fn at_of(name: &str) -> usize {
    TESTS.iter().position(|test| test.name == name).expect("it is in the list")
}

/// Writes the hashes that HGET reads.
fn load_hashes(server: &Server, hashes: u64) -> Result<()> {
    let value = vec![b'x'; VALUE_BYTES];
    let mut number = 0;
    let fill = move |out: &mut BytesMut| {
        let hash = format!("hash:{number:012}");
        encode(&[b"HSET", hash.as_bytes(), b"field", &value], out);
        number += 1;
        Step::ONE
    };
    let until = Until { steps: hashes, elapsed: Duration::from_secs(300) };
    let outcome = driver::closed(server.port, vec![Box::new(fill)], 1_000, until, 1)?;
    ensure!(outcome.without_errors()?.done == hashes, "{} is slow", server.seat.name());
    Ok(())
}

/// Sees to it that there are so many elements to pop.
fn stock(server: &Server, elements: u64) -> Result<()> {
    let length = server.client()?.call(&format!("LLEN {POPPED}"))?;
    let Reply::Integer(length) = length else { bail!("LLEN answers {length:?}") };
    let missing = elements.saturating_sub(length as u64);
    let value = "x".repeat(VALUE_BYTES);
    let fill = move |out: &mut BytesMut| {
        let mut words = vec!["RPUSH", POPPED];
        words.extend((0..PUSHED_ITEMS).map(|_| value.as_str()));
        encode(&words, out);
        Step::ONE
    };
    let steps = missing.div_ceil(PUSHED_ITEMS);
    let until = Until { steps, elapsed: Duration::from_secs(60) };
    let outcome = driver::closed(server.port, vec![Box::new(fill)], 10, until, 1)?;
    ensure!(outcome.without_errors()?.done == steps, "{} is slow", server.seat.name());
    Ok(())
}

/// A cell's sample. How fast it was in the round before tells how many commands it takes; in the
/// first round a probe does.
fn measure(
    server: &Server,
    load: Load,
    test: &Test,
    plan: &Plan,
    before: Option<Sample>,
) -> Result<Sample> {
    if let What::Multi = test.what {
        return measure_multi(server, load, plan);
    }
    let pipelines = load.connections * load.pipeline;
    let cell = plan.cell.as_secs_f64();
    let mut commands = pipelines * PROBE_PIPELINES;
    let mut rate = before.map(|sample| sample.rate);
    while rate.is_none() {
        let probe = redis_benchmark(server, load, test, plan, commands)?;
        if commands as f64 / probe.rate >= cell * PROBE_SHARE {
            rate = Some(probe.rate);
        } else {
            commands *= PROBE_GROWTH;
        }
    }
    let commands = (rate.unwrap_or_default() * cell) as usize;
    redis_benchmark(server, load, test, plan, commands.max(pipelines))
}

/// One run of redis-benchmark. Anything it says beside its result is an error.
fn redis_benchmark(
    server: &Server,
    load: Load,
    test: &Test,
    plan: &Plan,
    commands: usize,
) -> Result<Sample> {
    if let What::Pops(_) = test.what {
        stock(server, commands as u64)?;
    }
    let mut command = Command::new("redis-benchmark");
    command
        .args(["-h", "127.0.0.1", "--csv", "-p", &server.port.to_string()])
        .args(["-r", &plan.keys.to_string(), "-d", &VALUE_BYTES.to_string()])
        .args(["-c", &load.connections.to_string(), "-P", &load.pipeline.to_string()])
        .args(["-n", &commands.to_string()]);
    match test.what {
        What::Named(name) | What::Pops(name) => command.args(["-t", name]),
        What::Words(words) => {
            let value = "x".repeat(VALUE_BYTES);
            command.args(words.iter().map(|word| word.replace("__value__", &value)))
        }
        What::Multi => unreachable!("sent by the driver"),
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("run redis-benchmark (package redis-tools)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "redis-benchmark: {stderr}");
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The one result in redis-benchmark's CSV: name, rate, then average, minimum, p50, p95, p99 and
/// maximum of the latency in milliseconds.
fn parse(csv: &str) -> Result<Sample> {
    let lines: Vec<&str> = csv.lines().filter(|line| !line.is_empty()).collect();
    ensure!(lines.len() == 2 && lines[0].starts_with("\"test\","), "one result in {csv}");
    // The name may hold commas, the figures do not.
    let fields: Vec<&str> = lines[1].rsplitn(8, ',').collect();
    let fields: Option<Vec<f64>> =
        fields.iter().take(7).map(|field| field.trim_matches('"').parse().ok()).collect();
    let fields = fields.filter(|fields| fields.len() == 7);
    let fields = fields.with_context(|| format!("fields of {}", lines[1]))?;
    Ok(Sample { rate: fields[6], p50_ms: fields[3], p99_ms: fields[1] })
}

fn measure_multi(server: &Server, load: Load, plan: &Plan) -> Result<Sample> {
    let keys = plan.keys;
    let generator = |connection: usize| -> Generator {
        let mut random = Random::new(connection as u64);
        let value = vec![b'x'; VALUE_BYTES];
        Box::new(move |out: &mut BytesMut| {
            let counter = format!("counter:{:012}", random.below(keys));
            encode(&["MULTI"], out);
            encode(&[b"SET", key(random.below(keys)).as_bytes(), &value], out);
            encode(&["INCR", &counter], out);
            encode(&["EXEC"], out);
            Step { replies: 4, class: 0 }
        })
    };
    let generators = (0..load.connections).map(generator).collect();
    let until = Until { steps: u64::MAX, elapsed: plan.cell };
    let outcome = driver::closed(server.port, generators, load.pipeline, until, 1)
        .and_then(Outcome::without_errors)?;
    let (p50_ms, p99_ms) = (outcome.quantile_ms(0.5), outcome.quantile_ms(0.99));
    Ok(Sample { rate: outcome.rate(), p50_ms, p99_ms })
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |value: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Sample {
        rate: middle(|sample| sample.rate),
        p50_ms: middle(|sample| sample.p50_ms),
        p99_ms: middle(|sample| sample.p99_ms),
    }
}

/// The table of README: a row per test and load.
fn table(plan: &Plan, samples: &Samples) -> String {
    let mut text = format!(
        "{VALUE_BYTES}-byte values, {} random keys, all loaded before; {} copies; medians of {} rounds.\n\n\
         | command | clients, pipeline | Evenkeel/s | p50, p99 ms | Redis/s | p50, p99 ms | Redis always/s | p50, p99 ms | to Redis | to always |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        plan.keys, plan.replicas, plan.rounds,
    );
    let mut missing = Vec::new();
    for (test_at, test) in TESTS.iter().enumerate() {
        for (load_at, load) in LOADS.iter().enumerate() {
            let medians: Option<Vec<Sample>> = (0..3)
                .map(|seat| samples.get(&(test_at, load_at, seat)).map(|found| median(found)))
                .collect();
            let Some(medians) = medians else { continue };
            text.push_str(&format!("| {} | {load} |", test.name));
            for Sample { rate, p50_ms, p99_ms } in &medians {
                text.push_str(&format!(" {:.1}k | {p50_ms:.2}, {p99_ms:.2} |", rate / 1e3));
            }
            for sample in &medians[1..] {
                text.push_str(&format!(" {:.2} |", medians[0].rate / sample.rate));
            }
            text.push('\n');
        }
        if !samples.contains_key(&(test_at, 0, 0)) {
            missing.push(test.name);
        }
    }
    if !missing.is_empty() {
        let names = missing.join(", ");
        text.push_str(&format!("\nNot asked for, or not known to one of the servers: {names}.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read() {
        let head = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n";
        let csv = format!(
            "{head}\"HSET a,b x\",\"64935.07\",\"0.394\",\"0.184\",\"0.391\",\"0.447\",\"0.519\",\"0.743\"\n"
        );
        let sample = parse(&csv).unwrap();
        assert_eq!(sample, Sample { rate: 64935.07, p50_ms: 0.391, p99_ms: 0.519 });
        assert!(parse(head).is_err());
        assert!(parse(&format!("{head}\"GET\",\"1\"\n")).is_err());
    }

    #[test]
    fn the_table_has_a_row_per_command_and_load_and_names_what_it_lacks() {
        let mut samples = BTreeMap::new();
        for test in 0..TESTS.len() - 1 {
            for key in (0..3).flat_map(|load| (0..3).map(move |seat| (test, load, seat))) {
                let sample = |rate| Sample { rate, p50_ms: 1.0, p99_ms: 2.0 };
                let rate = if key.2 == 0 { 100.0 } else { 200.0 };
                samples.insert(key, vec![sample(rate), sample(9_999.0), sample(1.0)]);
            }
        }
        let text = table(&Plan::tiny(), &samples);
        assert_eq!(text.matches("| 0.50 | 0.50 |\n").count(), 3 * (TESTS.len() - 1), "{text}");
        assert!(text.ends_with("the servers: MULTI (2).\n"), "{text}");
    }
}

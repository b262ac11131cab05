//! *Question: what does a client see of throughput and latency, on this machine, next to Redis
//! without persistence and next to Redis that syncs each write?*
//!
//! redis-benchmark drives the servers in turns, so that what the machine does meanwhile falls on all
//! of them; of the rounds the median counts. All share the machine with redis-benchmark itself:
//! ratios within a row mean more than the numbers, and numbers of another day mean nothing.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::servers::{Seat, Server};

const VALUE_BYTES: usize = 100;
/// The commands, as redis-benchmark's `-t` names them and as its results do.
const TESTS: &[(&str, &str)] =
    &[("set", "SET"), ("get", "GET"), ("incr", "INCR"), ("mset", "MSET (10 keys)")];

/// A kind of load: connections, commands under way on each, commands in all.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    pipeline: usize,
    commands: usize,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Evenkeel is measured with each of these.
    pub replicas: Vec<u8>,
    /// Rounds, of which the median counts.
    pub rounds: usize,
    keys: usize,
    loads: Vec<Load>,
}

impl Plan {
    /// The measurement.
    pub fn full() -> Plan {
        Plan {
            replicas: vec![3],
            rounds: 3,
            keys: 1_000_000,
            loads: vec![
                Load { connections: 50, pipeline: 1, commands: 200_000 },
                Load { connections: 50, pipeline: 16, commands: 800_000 },
                Load { connections: 1, pipeline: 1, commands: 20_000 },
            ],
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        let mut plan = Plan { keys: 10_000, rounds: 1, ..Plan::full() };
        plan.loads.iter_mut().for_each(|load| load.commands /= 100);
        plan
    }
}

/// One result: commands per second, and latencies in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Sample {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs the plan and prints a table.
pub fn run(plan: &Plan) -> Result<()> {
    let mut seats: Vec<Seat> = plan.replicas.iter().map(|count| Seat::Evenkeel(*count)).collect();
    seats.extend([Seat::RedisMemory, Seat::RedisSynced]);
    let servers = seats.iter().map(|seat| Server::start(*seat)).collect::<Result<Vec<_>>>()?;
    for server in &servers {
        server.load(plan.keys, VALUE_BYTES).context("load the keys")?;
    }
    // (load, test, seat) → a sample per round
    let mut samples: BTreeMap<(usize, usize, usize), Vec<Sample>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for (load_at, load) in plan.loads.iter().enumerate() {
            for (test_at, test) in TESTS.iter().enumerate() {
                for (seat_at, server) in servers.iter().enumerate() {
                    let sample = measure(server, *load, test, plan.keys)
                        .with_context(|| format!("{} {load:?} {}", server.seat.name(), test.1))?;
                    samples.entry((load_at, test_at, seat_at)).or_default().push(sample);
                }
            }
        }
        eprintln!("round {} of {} done", round + 1, plan.rounds);
    }
    println!("{}", table(plan, &seats, &samples));
    Ok(())
}

/// One run of redis-benchmark. Anything it says beside its result is an error.
fn measure(server: &Server, load: Load, test: &(&str, &str), keys: usize) -> Result<Sample> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "--csv", "-t", test.0])
        .args(["-p", &server.port.to_string(), "-r", &keys.to_string()])
        .args(["-d", &VALUE_BYTES.to_string(), "-n", &load.commands.to_string()])
        .args(["-c", &load.connections.to_string(), "-P", &load.pipeline.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("run redis-benchmark (package redis-tools)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "redis-benchmark: {stderr}");
    parse(&String::from_utf8_lossy(&output.stdout), test.1)
}

/// The line of a test in redis-benchmark's CSV: name, rate, then average, minimum, p50, p95, p99
/// and maximum of the latency in milliseconds.
fn parse(csv: &str, test: &str) -> Result<Sample> {
    let line = csv.lines().find(|line| line.starts_with(&format!("\"{test}\",")));
    let line = line.with_context(|| format!("no {test} in {csv}"))?;
    let fields: Vec<f64> =
        line.split(',').skip(1).filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    ensure!(fields.len() == 7, "fields of {line}");
    Ok(Sample { rate: fields[0], p50_ms: fields[3], p99_ms: fields[5] })
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

/// Per load and test: each server's rate and latencies, and the first one's rate over each other's.
fn table(
    plan: &Plan,
    seats: &[Seat],
    samples: &BTreeMap<(usize, usize, usize), Vec<Sample>>,
) -> String {
    let first = seats[0].name();
    let mut head = "| load | command |".to_owned();
    for seat in seats {
        head.push_str(&format!(" {}: /s, p50, p99 ms |", seat.name()));
    }
    for seat in &seats[1..] {
        head.push_str(&format!(" {first} ÷ {} |", seat.name()));
    }
    let columns = head.matches('|').count() - 1;
    let mut text = format!(
        "{VALUE_BYTES}-byte values, {} random keys, median of {} rounds\n\n{head}\n|{}\n",
        plan.keys,
        plan.rounds,
        "---|".repeat(columns)
    );
    for (load_at, load) in plan.loads.iter().enumerate() {
        for (test_at, test) in TESTS.iter().enumerate() {
            let medians: Vec<Sample> =
                (0..seats.len()).map(|seat| median(&samples[&(load_at, test_at, seat)])).collect();
            text.push_str(&format!("| -c{} -P{} | {} |", load.connections, load.pipeline, test.1));
            for sample in &medians {
                let Sample { rate, p50_ms, p99_ms } = sample;
                text.push_str(&format!(" {rate:.0}, {p50_ms:.2}, {p99_ms:.2} |"));
            }
            for sample in &medians[1..] {
                text.push_str(&format!(" {:.2} |", medians[0].rate / sample.rate));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_read() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"MSET (10 keys)\",\"64935.07\",\"0.394\",\"0.184\",\"0.391\",\"0.447\",\"0.519\",\"0.743\"\n";
        let sample = parse(csv, "MSET (10 keys)").unwrap();
        assert_eq!(sample, Sample { rate: 64935.07, p50_ms: 0.391, p99_ms: 0.519 });
        assert!(parse(csv, "GET").is_err());
    }

    #[test]
    fn the_table_has_a_row_per_load_and_command() {
        let plan = Plan::tiny();
        let seats = [Seat::Evenkeel(3), Seat::RedisMemory];
        let mut samples = BTreeMap::new();
        for key in (0..3).flat_map(|l| (0..4).flat_map(move |t| (0..2).map(move |s| (l, t, s)))) {
            let sample = |rate| Sample { rate, p50_ms: 1.0, p99_ms: 2.0 };
            let rate = if key.2 == 0 { 100.0 } else { 200.0 };
            samples.insert(key, vec![sample(rate), sample(9_999.0), sample(1.0)]);
        }
        let text = table(&plan, &seats, &samples);
        assert_eq!(text.matches("| 0.50 |").count(), 12, "{text}");
    }
}

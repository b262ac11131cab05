//! *Question: does the cost of a command grow with what is asked for, or with what is stored?*
//!
//! Promise P8: ranks and positions cost O(log n), fields, draws and deletions O(1), and a queue that
//! was long in use costs what a new one does. The same commands are sent to collections of a hundred
//! to a million elements, sizes in turns, and the median of the rounds counts. Commands come in
//! pipelines, so that a round of the log is shared by many and what is left is mostly their own cost;
//! DEL comes alone, and its latency counts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::BytesMut;

use crate::client::encode;
use crate::driver::{self, Generator, Outcome, Step, Until};
use crate::keys::Random;
use crate::servers::{Seat, Server};

/// A new queue's rate may be so many times that of one long in use.
const QUEUE_SLOWER_MAX: f64 = 1.25;
/// What is filled; the names of the keys begin with these.
const KINDS: [&str; 4] = ["zset", "list", "hash", "set"];
const CONNECTIONS: usize = 4;
const PIPELINE: usize = 32;
/// Elements that stand in the queue all the time.
const QUEUE_LENGTH: u64 = 1_000;
/// The queue's rate is told for so many equal parts.
const QUEUE_PARTS: u64 = 10;
/// Elements a command brings while collections are filled.
const FILL_ELEMENTS: u64 = 100;
/// Filling may take so long.
const FILL_WITHIN: Duration = Duration::from_secs(600);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Copies.
    pub replicas: u8,
    /// Elements of the collections, ascending.
    pub sizes: Vec<u64>,
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// How long a cell lasts.
    pub cell: Duration,
    /// Collections of each size that are deleted.
    pub deleted: usize,
    /// Elements that pass through the queue.
    pub queued: u64,
    /// First words of the operations to run, by commas, without deletions and the queue; empty: all.
    pub only: String,
}

impl Plan {
    /// The operations to run.
    ///
    /// *Errors*: a name is of none.
    fn operations(&self) -> Result<Vec<&'static Operation>> {
        if self.only.is_empty() {
            return Ok(OPERATIONS.iter().collect());
        }
        let is_of = |operation: &Operation, name: &str| {
            operation
                .name
                .split([' ', ','])
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case(name))
        };
        for name in self.only.split(',') {
            ensure!(
                OPERATIONS.iter().any(|operation| is_of(operation, name)),
                "--only {name}: no such operation"
            );
        }
        let is_asked =
            |operation: &&Operation| self.only.split(',').any(|name| is_of(operation, name));
        Ok(OPERATIONS.iter().filter(is_asked).collect())
    }

    /// The measurement: about six minutes.
    pub fn full() -> Plan {
        Plan {
            replicas: 3,
            sizes: vec![100, 1_000, 10_000, 100_000, 1_000_000],
            rounds: 5,
            cell: Duration::from_millis(500),
            deleted: 5,
            queued: 10_000_000,
            only: String::new(),
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan {
            sizes: vec![100, 1_000],
            rounds: 1,
            cell: Duration::from_millis(30),
            deleted: 1,
            queued: 10_000,
            ..Plan::full()
        }
    }
}

/// A command and by how much its time may grow from the smallest collection to the largest.
struct Operation {
    name: &'static str,
    /// What it is done to.
    kind: &'static str,
    times_max: f64,
    step: fn(size: u64, random: &mut Random, out: &mut BytesMut) -> Step,
}

/// Times that are O(log n) may grow fourfold, those that are O(1) by half.
const OPERATIONS: &[Operation] = &[
    Operation { name: "ZRANK", kind: "zset", times_max: 4.0, step: zrank },
    Operation { name: "ZADD of a member", kind: "zset", times_max: 4.0, step: zadd },
    Operation { name: "ZRANGE of 10 by rank", kind: "zset", times_max: 4.0, step: zrange },
    Operation { name: "ZCOUNT", kind: "zset", times_max: 4.0, step: zcount },
    Operation { name: "LINDEX", kind: "list", times_max: 4.0, step: lindex },
    Operation { name: "LINSERT near the head, RPOP", kind: "list", times_max: 4.0, step: linsert },
    Operation { name: "HGET", kind: "hash", times_max: 1.5, step: hget },
    Operation { name: "SPOP, SADD", kind: "set", times_max: 1.5, step: spop },
];

fn member(number: u64) -> String {
    format!("member:{number:08}")
}

fn zrank(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    encode(&["ZRANK", &format!("zset:{size}"), &member(random.below(size))], out);
    Step::ONE
}

fn zadd(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    let (score, member) = (random.below(size).to_string(), member(random.below(size)));
    encode(&["ZADD", &format!("zset:{size}"), &score, &member], out);
    Step::ONE
}

fn zrange(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    let first = random.below(size - 10);
    let (first, last) = (first.to_string(), (first + 9).to_string());
    encode(&["ZRANGE", &format!("zset:{size}"), &first, &last], out);
    Step::ONE
}

fn zcount(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    let (least, most) = (random.below(size).to_string(), random.below(size).to_string());
    encode(&["ZCOUNT", &format!("zset:{size}"), &least, &most], out);
    Step::ONE
}

fn lindex(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    encode(&["LINDEX", &format!("list:{size}"), &random.below(size).to_string()], out);
    Step::ONE
}

fn linsert(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    let list = format!("list:{size}");
    encode(&["LINSERT", &list, "AFTER", &member(0), &member(random.below(size))], out);
    encode(&["RPOP", &list], out);
    Step { replies: 2, class: 0 }
}

fn hget(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    encode(&["HGET", &format!("hash:{size}"), &member(random.below(size))], out);
    Step::ONE
}

fn spop(size: u64, random: &mut Random, out: &mut BytesMut) -> Step {
    let set = format!("set:{size}");
    encode(&["SPOP", &set], out);
    encode(&["SADD", &set, &format!("{:016x}", random.bits())], out);
    Step { replies: 2, class: 0 }
}

/// Runs the plan and prints what came of it.
///
/// *Errors*: a command was refused.
pub fn run(plan: &Plan) -> Result<()> {
    let operations = plan.operations()?;
    let server = Server::start(Seat::Evenkeel(plan.replicas))?;
    let start = Instant::now();
    for size in &plan.sizes {
        let is_used = |kind: &&str| operations.iter().any(|operation| operation.kind == *kind);
        for kind in KINDS.into_iter().filter(is_used) {
            fill(&server, kind, &format!("{kind}:{size}"), *size)?;
        }
    }
    eprintln!("{:4.0} s  filled", start.elapsed().as_secs_f64());
    println!(
        "Microseconds a command, {} copies, {CONNECTIONS} connections, pipelines of {PIPELINE}, medians of {} rounds; \
         DEL: milliseconds, alone.\n",
        plan.replicas, plan.rounds
    );
    let heads: Vec<String> = plan.sizes.iter().map(|size| format!(" {size} |")).collect();
    println!("| elements |{} last ÷ first | at most |", heads.concat());
    println!("|---|{}---|---|", "---|".repeat(plan.sizes.len()));
    for operation in operations {
        row(operation.name, operation.times_max, &times_us(&server, plan, operation)?);
    }
    if !plan.only.is_empty() {
        return Ok(());
    }
    for kind in KINDS {
        row(&format!("DEL of a {kind}"), 1.5, &deletions_ms(&server, plan, kind)?);
    }
    eprintln!("{:4.0} s  collections measured", start.elapsed().as_secs_f64());
    queue(&server, plan)
}

fn row(name: &str, times_max: f64, times: &[f64]) {
    let cells: Vec<String> = times.iter().map(|time| format!(" {time:.2} |")).collect();
    let (first, last) = (times[0], times[times.len() - 1]);
    let verdict = if last / first <= times_max { "" } else { ": NOT HELD" };
    println!("| {name} |{} {:.2} | {times_max}{verdict} |", cells.concat(), last / first);
}

/// Writes a collection of elements with numbers from 0 on.
fn fill(server: &Server, kind: &'static str, key: &str, size: u64) -> Result<()> {
    let (key, mut next) = (key.to_owned(), 0);
    let generator: Generator = Box::new(move |out| {
        let count = FILL_ELEMENTS.min(size - next);
        let mut words = vec![
            match kind {
                "zset" => "ZADD",
                "list" => "RPUSH",
                "hash" => "HSET",
                _ => "SADD",
            }
            .to_owned(),
            key.clone(),
        ];
        for number in next..next + count {
            if kind == "zset" {
                words.push(number.to_string());
            }
            words.push(member(number));
            if kind == "hash" {
                words.push("value".to_owned());
            }
        }
        next += count;
        encode(&words, out);
        Step::ONE
    });
    let until = Until { steps: size.div_ceil(FILL_ELEMENTS), elapsed: FILL_WITHIN };
    let done = driver::closed(server.port, vec![generator], 8, until, 1)
        .and_then(Outcome::without_errors)?
        .done;
    ensure!(done == until.steps, "filling {kind} took too long");
    Ok(())
}

/// What a command takes on collections of each size.
fn times_us(server: &Server, plan: &Plan, operation: &Operation) -> Result<Vec<f64>> {
    let mut samples = vec![Vec::new(); plan.sizes.len()];
    for round in 0..plan.rounds {
        for (size, samples) in plan.sizes.iter().zip(&mut samples) {
            let (size, step) = (*size, operation.step);
            let generator = |connection: usize| -> Generator {
                let mut random = Random::new((round * CONNECTIONS + connection) as u64);
                Box::new(move |out| step(size, &mut random, out))
            };
            let generators = (0..CONNECTIONS).map(generator).collect();
            let until = Until { steps: u64::MAX, elapsed: plan.cell };
            let outcome = driver::closed(server.port, generators, PIPELINE, until, 1)
                .and_then(Outcome::without_errors)?;
            samples.push(1e6 / outcome.rate());
        }
    }
    Ok(samples.into_iter().map(median).collect())
}

/// How long DEL takes for collections of a kind, of each size.
fn deletions_ms(server: &Server, plan: &Plan, kind: &'static str) -> Result<Vec<f64>> {
    let mut client = server.client()?;
    let mut samples = vec![Vec::new(); plan.sizes.len()];
    for _ in 0..plan.deleted {
        for (size, samples) in plan.sizes.iter().zip(&mut samples) {
            fill(server, kind, "doomed", *size)?;
            let start = Instant::now();
            client.call("DEL doomed")?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(samples.into_iter().map(median).collect())
}

/// Elements pass through a list; its first and last parts are compared.
fn queue(server: &Server, plan: &Plan) -> Result<()> {
    fill(server, "list", "queue", QUEUE_LENGTH)?;
    let mut rates = Vec::new();
    for _ in 0..QUEUE_PARTS {
        let generator = |_| -> Generator {
            Box::new(|out| {
                encode(&["RPUSH", "queue", &member(0)], out);
                encode(&["LPOP", "queue"], out);
                Step { replies: 2, class: 0 }
            })
        };
        let generators = (0..CONNECTIONS).map(generator).collect();
        let until = Until { steps: plan.queued / QUEUE_PARTS, elapsed: FILL_WITHIN };
        let outcome = driver::closed(server.port, generators, PIPELINE, until, 1)
            .and_then(Outcome::without_errors)?;
        rates.push(outcome.rate());
    }
    let texts: Vec<String> = rates.iter().map(|rate| format!("{:.1}k", rate / 1e3)).collect();
    let slower = rates[0] / rates[rates.len() - 1];
    let verdict = if slower <= QUEUE_SLOWER_MAX { "holds" } else { "DOES NOT HOLD" };
    println!(
        "\nA queue, {} elements through it, RPUSH and LPOP a second in each tenth: {}.\n\
         First ÷ last: {slower:.2}; no slow-down: {verdict}.",
        plan.queued,
        texts.join(", ")
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

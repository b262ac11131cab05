//! *Question: what do thousands of groups cost that have nothing to do, and how soon does each have a
//! leader again when a node is lost or comes back?*
//!
//! Each table is a partition, and so a Paxos group with a replica on each of three nodes, all in one
//! process. One key is written to each; then nobody does anything. Promises for 10,000 groups: all nodes
//! together use less than 2% of a core and 400 MB; after a restart of a node the elections end within
//! 5 s.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use wire::resp::Reply;

use crate::client::Client;
use crate::process::{processor_time, resident_bytes};
use crate::servers::{Seat, Server};

/// Nothing here takes longer.
const WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// No election for so long, and there is no storm any more.
const CALM: Duration = Duration::from_secs(3);
/// What is said of the last event of a start, and of a write, has been said by then.
const SETTLE: Duration = Duration::from_secs(3);
/// Connections that ask groups for an answer.
const CONNECTIONS: usize = 32;
/// The promises, for [`PROMISED_GROUPS`] groups.
const PROMISED_GROUPS: u32 = 10_000;
const PROCESSOR_PERCENT_MAX: f64 = 2.0;
const RESIDENT_MB_MAX: f64 = 400.0;
const STORM_MAX: Duration = Duration::from_secs(5);

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Groups.
    pub groups: u32,
    /// For how long they are watched doing nothing.
    pub watched: Duration,
}

impl Plan {
    /// The measurement.
    pub fn full() -> Plan {
        Plan { groups: PROMISED_GROUPS, watched: Duration::from_secs(30) }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan { groups: 200, watched: Duration::from_secs(1) }
    }
}

/// Runs the plan and prints what groups cost.
///
/// *Errors*: a group has no leader in time, or a promise is broken.
pub fn run(plan: &Plan) -> Result<()> {
    let began = Instant::now();
    let server = Server::start(Seat::EvenkeelGroups(plan.groups))?;
    let mut client = server.client()?;
    // All tables, and the system's own.
    let groups = f64::from(plan.groups + 1);
    until(&mut client, "every group has a leader", |info| info("leaders") == groups)?;
    println!(
        "{} groups, three nodes: each has a leader {:.1?} after the start",
        plan.groups,
        began.elapsed()
    );
    std::thread::sleep(SETTLE);
    let empty = resident_bytes(server.pid())?;
    answer(&server, plan.groups, "SET key value")?;
    std::thread::sleep(SETTLE);
    let idle = watch(&server, &mut client, plan)?;
    println!("\n| what | |\n|---|---|");
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!("| memory, no keys | {:.0} MB |", mb(empty));
    println!("| memory, one key in each group | {:.0} MB |", mb(idle.resident));
    println!("| a core's time, idle for {:.0?} | {:.2}% |", plan.watched, idle.processor_percent);
    println!("| frames between nodes a second | {:.0} |", idle.frames_per_second);
    let lost = storm(&server, &mut client, plan.groups, "ADMIN FAULT STOP 1")?;
    println!("| a node is lost: every group answers after | {lost:.1?} |");
    let back = storm(&server, &mut client, plan.groups, "ADMIN FAULT START 1")?;
    until(&mut client, "every group has three replicas", |info| info("replicas") == 3.0 * groups)?;
    println!("| it comes back: every group answers after | {back:.1?} |");
    let last = until_calm(&mut client)?;
    println!("| the last campaign after it came back, after | {last:.1?} |");
    if plan.groups >= PROMISED_GROUPS {
        ensure!(idle.processor_percent < PROCESSOR_PERCENT_MAX, "idle groups cost too much time");
        ensure!(mb(idle.resident) < RESIDENT_MB_MAX, "idle groups cost too much memory");
        ensure!(
            lost < STORM_MAX && back < STORM_MAX && last < STORM_MAX,
            "elections take too long"
        );
    }
    Ok(())
}

struct Idle {
    resident: u64,
    processor_percent: f64,
    frames_per_second: f64,
}

fn watch(server: &Server, client: &mut Client, plan: &Plan) -> Result<Idle> {
    let frames = client.info("consensus")?["node_frames_sent"];
    let (began, used) = (Instant::now(), processor_time(server.pid())?);
    // Doing nothing for that long is what is measured.
    std::thread::sleep(plan.watched);
    let used = processor_time(server.pid())? - used;
    let took = began.elapsed().as_secs_f64();
    let frames = client.info("consensus")?["node_frames_sent"] - frames;
    Ok(Idle {
        resident: resident_bytes(server.pid())?,
        processor_percent: 100.0 * used.as_secs_f64() / took,
        frames_per_second: frames / took,
    })
}

/// Waits until INFO's section on consensus says so.
fn until(
    client: &mut Client,
    what: &str,
    holds: impl Fn(&dyn Fn(&str) -> f64) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let info = client.info("consensus")?;
        if holds(&|name| info.get(name).copied().unwrap_or(f64::NAN)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not in time: {what}, {info:?}");
        std::thread::sleep(POLL);
    }
}

/// Has every group answer a command, over connections that each ask a share of them; those that answer an
/// error are asked again.
fn answer(server: &Server, groups: u32, line: &str) -> Result<()> {
    std::thread::scope(|scope| {
        let ask = |first: usize| {
            move || {
                let tables = (0..groups).skip(first).step_by(CONNECTIONS).collect();
                answer_all(server, tables, line)
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|first| scope.spawn(ask(first))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(answered) => answered,
            Err(_) => bail!("a thread panicked"),
        })
    })
}

fn answer_all(server: &Server, mut silent: Vec<u32>, line: &str) -> Result<()> {
    let mut client = server.client()?;
    let deadline = Instant::now() + WITHIN;
    while !silent.is_empty() {
        ensure!(Instant::now() < deadline, "{} groups do not answer", silent.len());
        let lines = silent.iter().flat_map(|table| [format!("SELECT {table}"), line.to_owned()]);
        let replies = client.ask_all(&lines.collect::<Vec<_>>())?;
        let of_tables = silent.iter().zip(replies.chunks(2));
        let is_error = |replies: &[Reply]| replies.iter().any(|r| matches!(r, Reply::Error(_)));
        silent =
            of_tables.filter(|(_, replies)| is_error(replies)).map(|(table, _)| *table).collect();
    }
    Ok(())
}

fn elections(client: &mut Client) -> Result<f64> {
    Ok(client.info("consensus")?["elections_started"])
}

/// How long after a fault every group has answered a read.
fn storm(server: &Server, client: &mut Client, groups: u32, fault: &str) -> Result<Duration> {
    let began = Instant::now();
    client.call(fault)?;
    println!("| {fault} took | {:.1?} |", began.elapsed());
    answer(server, groups, "EXISTS key")?;
    Ok(began.elapsed())
}

/// Waits until nobody campaigns any more; how long from now the last campaign was seen.
fn until_calm(client: &mut Client) -> Result<Duration> {
    let began = Instant::now();
    let (mut known, mut last) = (elections(client)?, Duration::ZERO);
    while began.elapsed() - last < CALM {
        ensure!(began.elapsed() < WITHIN, "elections go on and on");
        std::thread::sleep(POLL);
        let now = elections(client)?;
        if now != known {
            (known, last) = (now, began.elapsed());
        }
    }
    Ok(last)
}

//! *Question: for how long can nobody write when a node is lost, stands still or hands over, and how soon
//! does a group have its full quorum again?*
//!
//! Probes write all the time, each on a connection of its own, one every few milliseconds; a gap is the
//! longest time between two acknowledgements, whoever got them, from shortly before an event until
//! writes are steady again. Promises: a leader lost ≤ 3 s (p99), a leader that stands still ≤ 4 s, a
//! follower lost ≤ 100 ms, a hand-over ≤ 250 ms; a spare node stands in for a lost one ≤ 2 s.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wire::resp::Reply;

use crate::client::Client;
use crate::driver::{self, Outcome};
use crate::keys::fill;
use crate::process::until_calm;
use crate::servers::{Seat, Server};

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Connections that take turns: those whose request hangs miss theirs.
const PROBES: usize = 100;
/// Writes are steady when nothing stood still for so long.
const STEADY: Duration = Duration::from_millis(1_500);
/// An event that has not passed by now never will.
const EVENT_WITHIN: Duration = Duration::from_secs(60);
/// How long a paused node stands still: longer than a lease and an election.
const PAUSE: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(5);
/// Writes a second while a group heals, and where they come from and go.
const HEAL_RATE: f64 = 5_000.0;
const HEAL_CONNECTIONS: usize = 16;
const HEAL_KEYS: u64 = 8_000;
const HEAL_VALUE_BYTES: usize = 1_000;
/// What loading left to write is written by now.
const HEAL_CALM_WITHIN: Duration = Duration::from_secs(120);
/// Latencies are gathered in runs of this length.
const HEAL_WINDOW: Duration = Duration::from_secs(2);
/// How often it is looked whether the group is whole.
const HEAL_POLL: Duration = Duration::from_millis(20);
/// A replica this close behind the leader, in batches, has caught up: writes go on.
const HEAL_LAG_MAX: u64 = 2_000;
/// Width of a bar of the histogram.
const BAR_MS: u128 = 250;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Events of each kind.
    pub events: usize,
    /// Bytes stored when a node is lost for good, one run each.
    pub stored_mb: Vec<u64>,
    /// Windows of writes that are measured before that, after as many that are not. As long as
    /// healing takes, so that either has its share of flushes and compactions; the first flushes after
    /// loading merge with what was loaded, which is no usual one.
    pub windows_before: usize,
}

impl Plan {
    /// The measurement: about a quarter of an hour.
    pub fn full() -> Plan {
        Plan { events: 30, stored_mb: vec![8, 128, 1024], windows_before: 15 }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan { events: 1, stored_mb: vec![1], windows_before: 1 }
    }
}

/// What happens to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    LeaderLost,
    LeaderPaused,
    FollowerLost,
    HandOver,
}

impl Event {
    const ALL: [Event; 4] =
        [Event::LeaderLost, Event::LeaderPaused, Event::FollowerLost, Event::HandOver];

    fn name(self) -> &'static str {
        match self {
            Event::LeaderLost => "leader lost",
            Event::LeaderPaused => "leader stands still",
            Event::FollowerLost => "follower lost",
            Event::HandOver => "leadership handed over",
        }
    }

    fn promised(self) -> Duration {
        Duration::from_millis(match self {
            Event::LeaderLost => 3_000,
            Event::LeaderPaused => 4_000,
            Event::FollowerLost => 100,
            Event::HandOver => 250,
        })
    }
}

/// Runs the plan and prints what came of it.
///
/// *Errors*: a request failed during a hand-over, or writes never went on.
pub fn run(plan: &Plan) -> Result<()> {
    println!("Gaps in writes, {} events each, a probe every {PROBE_EVERY:?}\n", plan.events);
    println!("| event | p50 ms | p99 ms | longest ms | promised ms | |\n|---|---|---|---|---|---|");
    let mut histograms = Vec::new();
    let server = Server::start(Seat::EvenkeelNodes(3))?;
    for event in Event::ALL {
        let mut gaps = Vec::new();
        for _ in 0..plan.events {
            gaps.push(gap(&server, event)?);
        }
        gaps.sort_unstable();
        let at = |share: f64| gaps[((gaps.len() as f64 * share) as usize).min(gaps.len() - 1)];
        let holds = if at(0.99) <= event.promised() { "holds" } else { "DOES NOT HOLD" };
        println!(
            "| {} | {} | {} | {} | {} | {holds} |",
            event.name(),
            at(0.5).as_millis(),
            at(0.99).as_millis(),
            at(1.0).as_millis(),
            event.promised().as_millis(),
        );
        histograms.push((event, gaps));
    }
    for (event, gaps) in histograms {
        println!("\n{}:", event.name());
        bars(&gaps);
    }
    println!("\nA node lost for good, of 5 with 3 copies, {HEAL_RATE:.0} writes/s meanwhile:\n");
    println!(
        "| stored MB | full quorum after ms | all copies after ms | MB copied | p99 ms before, while \
         rows are copied | ratio |\n|---|---|---|---|---|---|"
    );
    for stored in &plan.stored_mb {
        heal(*stored, plan.windows_before)?;
    }
    Ok(())
}

fn bars(gaps: &[Duration]) {
    let last = gaps.last().map_or(0, |gap| gap.as_millis() / BAR_MS);
    for bar in 0..=last {
        let count = gaps.iter().filter(|gap| gap.as_millis() / BAR_MS == bar).count();
        println!("{:>5}–{:<5} ms {}", bar * BAR_MS, (bar + 1) * BAR_MS, "#".repeat(count));
    }
}

/// The gap that an event makes.
fn gap(server: &Server, event: Event) -> Result<Duration> {
    let mut control = server.client()?;
    whole(&mut control, 3)?;
    let leader = leader(&mut control)?;
    let other = if leader == 1 { 2 } else { 1 };
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let refused = Mutex::new(0u64);
    let (began, ended) = std::thread::scope(|scope| -> Result<(Instant, Instant)> {
        for probe in 0..PROBES {
            let (acknowledged, refused, stop) = (&acknowledged, &refused, &stop);
            scope.spawn(move || probe_until(server, probe, (acknowledged, refused), stop));
        }
        let outcome = (|| {
            steady(&acknowledged)?;
            let began = Instant::now();
            let (begin, end) = match event {
                Event::LeaderLost => (format!("STOP {leader}"), format!("START {leader}")),
                Event::LeaderPaused => (format!("PAUSE {leader}"), format!("RESUME {leader}")),
                Event::FollowerLost => (format!("STOP {other}"), format!("START {other}")),
                Event::HandOver => (String::new(), String::new()),
            };
            if event == Event::HandOver {
                control.call(&format!("ADMIN TRANSFER 1 {other}"))?;
            } else {
                control.call(&format!("ADMIN FAULT {begin}"))?;
            }
            if event == Event::LeaderPaused {
                std::thread::sleep(PAUSE);
            }
            steady(&acknowledged)?;
            let ended = Instant::now();
            if event != Event::HandOver {
                control.call(&format!("ADMIN FAULT {end}"))?;
            }
            Ok((began, ended))
        })();
        stop.store(true, Ordering::SeqCst);
        outcome
    })?;
    let refused = refused.into_inner().unwrap_or_default();
    ensure!(event != Event::HandOver || refused == 0, "{refused} requests failed in a hand-over");
    let mut times = acknowledged.into_inner().unwrap_or_default();
    times.sort_unstable();
    let around = times.windows(2).filter(|pair| pair[1] >= began && pair[0] <= ended);
    let gaps = around.map(|pair| pair[1] - pair[0]);
    gaps.max().context("nothing was acknowledged after the event")
}

/// Writes in its turns until told to stop.
fn probe_until(
    server: &Server,
    probe: usize,
    (acknowledged, refused): (&Mutex<Vec<Instant>>, &Mutex<u64>),
    stop: &AtomicBool,
) {
    let Ok(mut client) = server.client() else { return };
    let key = format!("probe:{probe}");
    let start = Instant::now() + PROBE_EVERY * probe as u32;
    let turn = PROBE_EVERY * PROBES as u32;
    for round in 0.. {
        std::thread::sleep((start + turn * round).saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match client.ask(&[b"SET", key.as_bytes(), b"value"]) {
            Ok(Reply::Error(_)) => *refused.lock().unwrap_or_else(|e| e.into_inner()) += 1,
            Ok(_) => acknowledged.lock().unwrap_or_else(|e| e.into_inner()).push(Instant::now()),
            Err(_) => return,
        }
    }
}

/// Waits until writes have been acknowledged without a pause for a while.
fn steady(acknowledged: &Mutex<Vec<Instant>>) -> Result<()> {
    let (began, mut since) = (Instant::now(), Instant::now());
    let mut last = 0;
    let mut changed = Instant::now();
    while since.elapsed() < STEADY {
        ensure!(began.elapsed() < EVENT_WITHIN, "writes never went on");
        std::thread::sleep(POLL);
        let count = acknowledged.lock().unwrap_or_else(|e| e.into_inner()).len();
        if count != last {
            (last, changed) = (count, Instant::now());
        } else if changed.elapsed() > 20 * PROBE_EVERY {
            since = Instant::now();
        }
    }
    Ok(())
}

/// The partition of database 0; the system's own is led, lost and healed by itself.
const PARTITION: u64 = 1;

/// The replicas of the measured partition: field by name.
fn replicas(control: &mut Client) -> Result<Vec<BTreeMap<String, Reply>>> {
    let Reply::Array(replicas) = control.call("ADMIN PARTITIONS")? else { bail!("no list") };
    let fields = |replica: Reply| -> BTreeMap<String, Reply> {
        let Reply::Array(fields) = replica else { return BTreeMap::new() };
        let pairs = fields.chunks_exact(2).map(|pair| (text(&pair[0]), pair[1].clone()));
        pairs.collect()
    };
    let replicas = replicas.into_iter().map(fields);
    Ok(replicas.filter(|replica| number(replica, "partition").ok() == Some(PARTITION)).collect())
}

/// How many replicas have this in a field.
fn count(replicas: &[BTreeMap<String, Reply>], name: &str, value: &str) -> usize {
    replicas.iter().filter(|replica| replica.get(name).map(text) == Some(value.into())).count()
}

fn number(replica: &BTreeMap<String, Reply>, name: &str) -> Result<u64> {
    match replica.get(name) {
        Some(Reply::Integer(number)) => Ok(*number as u64),
        other => bail!("{name} is {other:?}"),
    }
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// The node that leads.
fn leader(control: &mut Client) -> Result<u64> {
    let replicas = replicas(control)?;
    let leads =
        |replica: &&BTreeMap<String, Reply>| replica.get("role").map(text) == Some("leader".into());
    number(replicas.iter().find(leads).context("nobody leads")?, "node")
}

/// Waits until all copies are there.
fn whole(control: &mut Client, copies: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let replicas = replicas(control)?;
        let of = |name: &str, value: &str| count(&replicas, name, value);
        if of("kind", "storage") == copies
            && of("role", "leader") == 1
            && of("installing", "yes") == 0
        {
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * EVENT_WITHIN, "not all copies came back: {replicas:?}");
        std::thread::sleep(POLL);
    }
}

/// Loses a node for good with so much stored, and prints how long its group takes to be whole, and
/// what clients see of it.
fn heal(stored_mb: u64, windows_before: usize) -> Result<()> {
    let server = Server::start(Seat::EvenkeelNodes(5))?;
    let mut control = server.client()?;
    server.load(stored_mb * 1_000, 1_000)?;
    // Else what clients see before the loss is what the load left to write.
    until_calm(server.pid(), HEAL_CALM_WITHIN)?;
    for _ in 0..windows_before {
        write_for(&server, HEAL_WINDOW)?;
    }
    let mut before = write_for(&server, HEAL_WINDOW)?;
    for _ in 1..windows_before {
        before.add(&write_for(&server, HEAL_WINDOW)?);
    }
    let leader = leader(&mut control)?;
    let lost = if leader == 3 { 2 } else { 3 };
    let began = Instant::now();
    control.call(&format!("ADMIN FAULT STOP {lost}"))?;
    let is_whole = AtomicBool::new(false);
    let (healed, meanwhile) = std::thread::scope(|scope| -> Result<(Healed, Outcome)> {
        let writer = scope.spawn(|| -> Result<Outcome> {
            let mut outcome = write_for(&server, HEAL_WINDOW)?;
            while !is_whole.load(Ordering::SeqCst) {
                outcome.add(&write_for(&server, HEAL_WINDOW)?);
            }
            Ok(outcome)
        });
        let healed = watch_healing(&mut control, began);
        is_whole.store(true, Ordering::SeqCst);
        let meanwhile = writer.join().expect("the writer does not panic")?;
        Ok((healed?, meanwhile))
    })?;
    let (calm, busy) = (before.quantile_ms(0.99), meanwhile.quantile_ms(0.99));
    println!(
        "| {stored_mb} | {} | {} | {:.1} | {calm:.2}, {busy:.2} | {:.2} |",
        healed.stood_in.as_millis(),
        healed.whole.as_millis(),
        healed.copied / 1e6,
        busy / calm
    );
    Ok(())
}

/// How a group got whole again.
struct Healed {
    /// When a log replica stood in.
    stood_in: Duration,
    /// When all copies were there.
    whole: Duration,
    /// Bytes of rows that were copied.
    copied: f64,
}

fn watch_healing(control: &mut Client, began: Instant) -> Result<Healed> {
    let mut stood_in = None;
    loop {
        let info = control.info("consensus")?;
        let replicas = replicas(control)?;
        if count(&replicas, "kind", "log") > 0 {
            stood_in.get_or_insert(began.elapsed());
        }
        let is_copied =
            count(&replicas, "kind", "storage") == 3 && count(&replicas, "installing", "yes") == 0;
        if let Some(stood_in) = stood_in
            && is_copied
            && have_all(control)?
        {
            let copied = info.get("snapshot_bytes").copied().unwrap_or_default();
            return Ok(Healed { stood_in, whole: began.elapsed(), copied });
        }
        ensure!(began.elapsed() < 5 * EVENT_WITHIN, "the group never healed: {info:?}");
        std::thread::sleep(HEAL_POLL);
    }
}

/// Writes at a rate for a while, to the keys that are stored.
fn write_for(server: &Server, duration: Duration) -> Result<Outcome> {
    let generators = fill(HEAL_KEYS, HEAL_VALUE_BYTES, HEAL_CONNECTIONS);
    driver::open(server.port, generators, HEAL_RATE, duration, 1)?.without_errors()
}

/// Whether three replicas have applied nearly the same: one that lacks rows has applied nothing.
fn have_all(control: &mut Client) -> Result<bool> {
    let replicas = replicas(control)?;
    let applied: Result<Vec<u64>> = replicas.iter().map(|r| number(r, "applied_index")).collect();
    let applied = applied?;
    let newest = applied.iter().max().copied().unwrap_or_default();
    Ok(applied.len() == 3 && applied.iter().all(|index| index + HEAL_LAG_MAX >= newest))
}

//! *Question: how do latencies grow with the load, up to and beyond what the server can do?*
//!
//! YCSB's workloads A (half reads, half updates) and B (95% reads), keys chosen uniformly and by a
//! zipfian distribution of skew 0.99, values of 900 bytes. For each the peak is measured in a closed
//! loop; then an open loop offers 10% … 120% of it, and latencies run from the time at which a
//! command was meant to be sent. Past the peak the queue grows as long as the step lasts, so the
//! last latencies say how long that was more than anything else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;

use crate::chart::{Chart, Line, svg};
use crate::client::encode;
use crate::driver::{self, Generator, Step, Until};
use crate::keys::{Choice, Random, Values, Zipfian, key};
use crate::servers::{Seat, Server};

const VALUE_BYTES: usize = 900;
/// Commands under way on each connection while the peak is measured.
const PEAK_PIPELINE: usize = 4;
/// Name and share of reads.
const WORKLOADS: [(&str, f64); 2] = [("A", 0.5), ("B", 0.95)];
/// A latency is called good while p99 is below this.
const GOOD_P99_MS: f64 = 10.0;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Copies that Evenkeel keeps.
    pub replicas: u8,
    /// Keys, all loaded before.
    pub keys: u64,
    /// Connections.
    pub connections: usize,
    /// Offered loads, in percent of the peak.
    pub percents: Vec<u32>,
    /// How long each load is offered.
    pub step: Duration,
    /// How long the peak is measured.
    pub peak: Duration,
    /// Where the chart goes; nowhere if empty.
    pub svg: PathBuf,
}

impl Plan {
    /// The measurement: about six minutes.
    pub fn full() -> Plan {
        Plan {
            replicas: 3,
            keys: 500_000,
            connections: 32,
            percents: (1..=12).map(|tenth| tenth * 10).collect(),
            step: Duration::from_secs(5),
            peak: Duration::from_secs(8),
            svg: concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ycsb.svg").into(),
        }
    }

    /// The same path with little work.
    pub fn tiny() -> Plan {
        Plan {
            keys: 2_000,
            percents: vec![10, 50],
            step: Duration::from_millis(200),
            peak: Duration::from_millis(200),
            svg: PathBuf::new(),
            ..Plan::full()
        }
    }
}

struct Point {
    percent: u32,
    offered: f64,
    reached: f64,
    p50_ms: f64,
    p99_ms: f64,
}

struct Curve {
    workload: &'static str,
    choice: &'static str,
    peak: f64,
    points: Vec<Point>,
}

/// Runs the plan, prints a table and draws the chart.
pub fn run(plan: &Plan) -> Result<()> {
    let server = Server::start(Seat::Evenkeel(plan.replicas))?;
    server.load(plan.keys, VALUE_BYTES)?;
    let choices = [
        ("uniform", Choice::Uniform(plan.keys)),
        ("zipfian", Choice::Zipfian(Zipfian::new(plan.keys))),
    ];
    let mut curves = Vec::new();
    for (workload, reads) in WORKLOADS {
        for (name, choice) in &choices {
            curves.push(curve(&server, plan, (workload, reads), (name, choice))?);
        }
    }
    print(plan, &curves);
    if !plan.svg.as_os_str().is_empty() {
        std::fs::write(&plan.svg, svg(&charts(&curves)))
            .with_context(|| format!("write {}", plan.svg.display()))?;
        println!("\nChart: {}", plan.svg.display());
    }
    Ok(())
}

fn curve(
    server: &Server,
    plan: &Plan,
    (workload, reads): (&'static str, f64),
    (name, choice): (&'static str, &Choice),
) -> Result<Curve> {
    let generators = || generators(plan.connections, reads, choice);
    let until = Until { steps: u64::MAX, elapsed: plan.peak };
    let peak = driver::closed(server.port, generators(), PEAK_PIPELINE, until, 1)?;
    let peak = peak.without_errors()?.rate();
    ensure!(peak > 0.0, "nothing was answered");
    eprintln!("workload {workload}, {name}: {peak:.0}/s at most");
    let mut points = Vec::new();
    for percent in &plan.percents {
        let offered = peak * f64::from(*percent) / 100.0;
        let outcome = driver::open(server.port, generators(), offered, plan.step, 1)?;
        let outcome = outcome.without_errors()?;
        points.push(Point {
            percent: *percent,
            offered,
            reached: outcome.rate(),
            p50_ms: outcome.quantile_ms(0.5),
            p99_ms: outcome.quantile_ms(0.99),
        });
    }
    Ok(Curve { workload, choice: name, peak, points })
}

fn generators(connections: usize, reads: f64, choice: &Choice) -> Vec<Generator> {
    let generator = |connection: usize| -> Generator {
        let mut random = Random::new(connection as u64);
        let values = Values::new(&mut random, VALUE_BYTES);
        let choice = choice.clone();
        Box::new(move |out: &mut BytesMut| {
            let key = key(choice.next(&mut random));
            if random.fraction() < reads {
                encode(&["GET", &key], out);
            } else {
                encode(&[b"SET", key.as_bytes(), values.next(&mut random)], out);
            }
            Step::ONE
        })
    };
    (0..connections).map(generator).collect()
}

fn print(plan: &Plan, curves: &[Curve]) {
    println!(
        "YCSB: {} keys of {VALUE_BYTES} bytes, {} copies, {} connections, open loop, {:.0} s a step\n",
        plan.keys,
        plan.replicas,
        plan.connections,
        plan.step.as_secs_f64()
    );
    println!("| workload | keys | % of peak | offered/s | reached/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|");
    for Curve { workload, choice, points, .. } in curves {
        for Point { percent, offered, reached, p50_ms, p99_ms } in points {
            println!(
                "| {workload} | {choice} | {percent} | {offered:.0} | {reached:.0} | {p50_ms:.2} | {p99_ms:.2} |"
            );
        }
    }
    println!();
    for Curve { workload, choice, peak, points } in curves {
        let good = points.iter().take_while(|point| point.p99_ms < GOOD_P99_MS).last();
        let good = good.map_or("at no load".to_owned(), |point| {
            format!("up to {:.0}/s, {}% of the peak", point.offered, point.percent)
        });
        println!(
            "Workload {workload}, {choice}: peak {peak:.0}/s; p99 stays below {GOOD_P99_MS} ms {good}."
        );
    }
    for pair in curves.chunks(2) {
        let ratio = pair[1].peak / pair[0].peak;
        println!("Workload {}: zipfian ÷ uniform peak {ratio:.2}.", pair[0].workload);
    }
}

fn charts(curves: &[Curve]) -> Vec<Chart> {
    let line = |curve: &Curve, name: &str, of: fn(&Point) -> f64| Line {
        name: format!("{}, {name}", curve.choice),
        points: curve.points.iter().map(|point| (point.offered, of(point))).collect(),
    };
    let chart = |curves: &[Curve]| Chart {
        title: format!("YCSB {}, {VALUE_BYTES}-byte values", curves[0].workload),
        x_label: "offered commands per second".to_owned(),
        y_label: "ms".to_owned(),
        lines: curves
            .iter()
            .flat_map(|curve| {
                [line(curve, "p50", |point| point.p50_ms), line(curve, "p99", |point| point.p99_ms)]
            })
            .collect(),
    };
    curves.chunks(2).map(chart).collect()
}

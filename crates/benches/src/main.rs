//! `cargo run -p benches --release -- <bench> [--tiny] [--option value …]`

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use benches::{cold_cache, failover, idle_groups, load, scaling, side_by_side, soak, ycsb};

const USAGE: &str = "\
side-by-side                  Evenkeel beside Redis, by redis-benchmark: about ten minutes
    --replicas N              copies that Evenkeel keeps (3)
    --rounds N                rounds, of which the median counts (3)
    --only NAME,NAME          these commands alone
cold-cache                    latency and MemDS lookups while route caches are emptied: 1.5 minutes
    --rate N --rounds N       commands a second (20000), rounds (8)
load                          a large load at a steady rate, memory, restart: 4 minutes
    --memory-mb N             Evenkeel's --memory (1024)
    --keys N --rate N         keys written (10000000), writes a second (50000)
    --value-bytes N           bytes of a value (100)
    --replicas N              copies (3)
ycsb                          latency against rate, workloads A and B: 6 minutes, docs/ycsb.svg
    --keys N --seconds N      keys (500000), seconds for each rate (5)
    --replicas N --svg PATH   copies (3), where the chart goes
scaling                       time of a command against the size of a collection, a long queue: 6 minutes
    --replicas N --queued N   copies (3), elements through the queue (10000000)
    --only NAME,NAME          these commands alone, no deletions and no queue
failover                      gaps in writes when nodes are lost, and healing: fourteen minutes
    --events N                events of each kind (30)
idle-groups                   what groups cost that have nothing to do, and losing a node: 2 minutes
    --groups N --seconds N    how many (10000), how long they are watched (30)
soak                          full load for a long time: memory, descriptors, latency, files
    --minutes N --replicas N  how long (10), copies (3)

All take --tiny: the same path in seconds, which shows that it runs and measures nothing.";

/// What follows the bench's name. Each option is taken once; what is left over is unknown.
struct Options {
    tiny: bool,
    values: BTreeMap<String, String>,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options { tiny: false, values: BTreeMap::new() };
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").with_context(|| format!("{arg}?\n{USAGE}"))?;
            if name == "tiny" {
                options.tiny = true;
                continue;
            }
            let value = args.next().with_context(|| format!("{arg} takes a value"))?;
            options.values.insert(name.to_owned(), value);
        }
        Ok(options)
    }

    /// Overwrites what the plan says if the option is given.
    fn set<T: FromStr>(&mut self, name: &str, to: &mut T) -> Result<()> {
        if let Some(text) = self.values.remove(name) {
            let Ok(value) = text.parse() else { bail!("--{name} {text} is not understood") };
            *to = value;
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let unknown = self.values.keys().next();
        ensure!(unknown.is_none(), "unknown option --{}\n{USAGE}", unknown.map_or("", |name| name));
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    if matches!(name.as_str(), "--help" | "help") {
        println!("{USAGE}");
        return Ok(());
    }
    let mut options = Options::parse(args)?;
    match name.as_str() {
        "side-by-side" => run_side_by_side(&mut options),
        "cold-cache" => run_cold_cache(&mut options),
        "load" => run_load(&mut options),
        "ycsb" => run_ycsb(&mut options),
        "scaling" => run_scaling(&mut options),
        "failover" => run_failover(&mut options),
        "idle-groups" => run_idle_groups(&mut options),
        "soak" => run_soak(&mut options),
        _ => bail!("unknown bench {name:?}\n{USAGE}"),
    }
}

fn run_side_by_side(options: &mut Options) -> Result<()> {
    use side_by_side::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("replicas", &mut plan.replicas)?;
    options.set("rounds", &mut plan.rounds)?;
    options.set("only", &mut plan.only)?;
    ensure!(plan.rounds > 0, "--rounds 0 measures nothing");
    options.end()?;
    run(&plan)
}

fn run_cold_cache(options: &mut Options) -> Result<()> {
    use cold_cache::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("rate", &mut plan.rate)?;
    options.set("rounds", &mut plan.rounds)?;
    ensure!(plan.rounds > 0 && plan.rate >= 1.0, "that measures nothing");
    options.end()?;
    run(&plan)
}

fn run_load(options: &mut Options) -> Result<()> {
    use load::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("keys", &mut plan.keys)?;
    options.set("rate", &mut plan.rate)?;
    options.set("value-bytes", &mut plan.value_bytes)?;
    options.set("memory-mb", &mut plan.memory_mb)?;
    options.set("replicas", &mut plan.replicas)?;
    ensure!(plan.keys > 0 && plan.rate >= 1.0, "that measures nothing");
    options.end()?;
    run(&plan)
}

fn run_ycsb(options: &mut Options) -> Result<()> {
    use ycsb::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    let mut seconds = plan.step.as_secs_f64();
    options.set("keys", &mut plan.keys)?;
    options.set("seconds", &mut seconds)?;
    options.set("replicas", &mut plan.replicas)?;
    options.set("svg", &mut plan.svg)?;
    ensure!(plan.keys > 1 && seconds > 0.0, "that measures nothing");
    plan.step = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    options.end()?;
    run(&plan)
}

fn run_scaling(options: &mut Options) -> Result<()> {
    use scaling::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("replicas", &mut plan.replicas)?;
    options.set("queued", &mut plan.queued)?;
    options.set("only", &mut plan.only)?;
    options.end()?;
    run(&plan)
}

fn run_failover(options: &mut Options) -> Result<()> {
    use failover::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("events", &mut plan.events)?;
    ensure!(plan.events > 0, "--events 0 measures nothing");
    options.end()?;
    run(&plan)
}

fn run_idle_groups(options: &mut Options) -> Result<()> {
    use idle_groups::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    let mut seconds = plan.watched.as_secs_f64();
    options.set("groups", &mut plan.groups)?;
    options.set("seconds", &mut seconds)?;
    ensure!(plan.groups > 0 && seconds >= 0.1, "that measures nothing");
    plan.watched = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    options.end()?;
    run(&plan)
}

fn run_soak(options: &mut Options) -> Result<()> {
    use soak::{Plan, run};
    let mut plan = if options.tiny { Plan::tiny() } else { Plan::full() };
    options.set("minutes", &mut plan.minutes)?;
    options.set("replicas", &mut plan.replicas)?;
    ensure!(plan.minutes > 0.0 && plan.minutes < 1e6, "--minutes is not sensible");
    options.end()?;
    run(&plan)
}

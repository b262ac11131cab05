//! `cargo run -p benches --release -- side-by-side [--replicas 1|3] [--rounds N] [--tiny]`

use anyhow::{Context, Result, bail};
use benches::side_by_side::{self, Plan};

const USAGE: &str = "\
side-by-side                  Evenkeel with three replicas beside Redis, by redis-benchmark
    --replicas 1|3            how many replicas; given twice, both are measured
    --rounds N                rounds, of which the median counts (3)
    --tiny                    a few thousand commands: shows that it runs, measures nothing";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("side-by-side") => side_by_side::run(&plan(args)?),
        Some("--help" | "help") => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown bench {other:?}\n{USAGE}"),
    }
}

fn plan(mut args: impl Iterator<Item = String>) -> Result<Plan> {
    let mut plan = Plan::full();
    let mut replicas = Vec::new();
    while let Some(arg) = args.next() {
        let mut number = || -> Result<usize> {
            let text = args.next().with_context(|| format!("{arg} takes a number"))?;
            text.parse().with_context(|| format!("{arg} {text}"))
        };
        match arg.as_str() {
            "--replicas" => replicas.push(u8::try_from(number()?)?),
            "--rounds" => plan.rounds = number()?.max(1),
            "--tiny" => plan = Plan::tiny(),
            other => bail!("unknown option {other}\n{USAGE}"),
        }
    }
    if !replicas.is_empty() {
        plan.replicas = replicas;
    }
    Ok(plan)
}

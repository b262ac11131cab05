//! A node stops under load and comes back: writes resume in time, nothing acknowledged is lost, and
//! the node catches up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::admin::{Record, records};
use compat_tests::load::{Load, Writer};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::Client;

const WRITERS: usize = 3;
const ROUNDS: usize = 3;
/// The promise on the loss of a node.
const RESUME_WITHIN: Duration = Duration::from_secs(3);
/// A returned node has this long to catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);

fn partitions(client: &mut Client) -> Result<Vec<Record>> {
    let rows = records(&client.line("ADMIN PARTITIONS")?)?;
    Ok(rows.into_iter().filter(|row| row.contains_key("leader")).collect())
}

/// The node that leads the most partitions.
fn leading_node(client: &mut Client) -> Result<String> {
    let leaders: Vec<String> =
        partitions(client)?.iter().filter_map(|row| row.get("leader").cloned()).collect();
    let count = |node: &String| leaders.iter().filter(|leader| *leader == node).count();
    leaders.iter().max_by_key(|node| count(node)).cloned().context("no partition has a leader")
}

/// For each partition the set of its replicas' applied indexes.
fn applied(client: &mut Client) -> Result<Vec<BTreeSet<u64>>> {
    let rows = partitions(client)?;
    ensure!(!rows.is_empty(), "no partitions");
    rows.iter()
        .map(|row| {
            let fields = row.iter().filter(|(name, _)| name.contains("applied"));
            let indexes: Result<BTreeSet<u64>> = fields
                .flat_map(|(_, value)| value.split(['/', ';', '|']))
                .map(|value| {
                    let index = value.rsplit([':', '@', '=']).next().unwrap_or_default();
                    index.parse().with_context(|| format!("applied index {value}"))
                })
                .collect();
            let indexes = indexes?;
            ensure!(!indexes.is_empty(), "no applied index in {row:?}");
            Ok(indexes)
        })
        .collect()
}

fn admin(client: &mut Client, line: &str) {
    let reply = client.line(line).expect("an answer");
    assert!(!reply.is_error(), "{line}: {reply:?}");
}

#[test]
fn a_leader_stops_under_load_and_nothing_is_lost() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let options = Options { faults: true, ..Options::evenkeel() };
    let mut server = Server::start(options).expect("start");
    let mut control = server.client().expect("connect");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        writers.iter_mut().for_each(|writer| writer.longest_gap = Duration::ZERO);
        let load = Load::start(server.port(), writers);
        let progress = |load: &Load, count: u64, limit| {
            let from = load.acknowledged();
            wait_until("writes go on", limit, || Ok(load.acknowledged() >= from + count))
        };
        progress(&load, 3_000, Duration::from_secs(30)).expect("a load");
        let node = leading_node(&mut control).expect("a leader");
        admin(&mut control, &format!("ADMIN FAULT STOP {node}"));
        progress(&load, 3_000, Duration::from_secs(30)).expect("writes resume");
        admin(&mut control, &format!("ADMIN FAULT START {node}"));
        progress(&load, 3_000, Duration::from_secs(30)).expect("writes go on");
        writers = load.stop().expect("load");
        let gap = writers.iter().map(|writer| writer.longest_gap).max().expect("writers");
        let refusals: Vec<_> = writers.iter().map(|writer| &writer.refusals).collect();
        println!("round {round}: node {node} stopped, longest gap {gap:?}, refusals {refusals:?}");
        gaps.push(gap);
        for writer in &mut writers {
            writer.verify(&mut control).unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        }
        let caught_up = wait_until("the node catches up", CATCH_UP_WITHIN, || {
            Ok(applied(&mut control)?.iter().all(|indexes| indexes.len() == 1))
        });
        println!("round {round}: caught up after {:?}", caught_up.expect("catch up"));
    }
    assert!(gaps.iter().all(|gap| *gap <= RESUME_WITHIN), "writes stood still: {gaps:?}");
    server.stop().expect("stop");
}

#[test]
fn faults_are_refused_unless_enabled() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().expect("connect");
    let node = leading_node(&mut client).expect("a leader");
    assert!(client.line(&format!("ADMIN FAULT STOP {node}")).expect("an answer").is_error());
    assert!(!client.line("SET still here").expect("an answer").is_error());
}

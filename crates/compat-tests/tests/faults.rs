//! A node stops under load and comes back: writes resume in time, nothing acknowledged is lost, and
//! the node catches up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use compat_tests::admin::{info_number, leading_node, partitions};
use compat_tests::calm;
use compat_tests::load::{Load, Writer};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::Client;

const WRITERS: usize = 3;
const ROUNDS: usize = 4;
/// Copies of each partition, the server's default.
const REPLICAS: usize = 3;
/// The promise on the loss of a node, and on one that stands still.
const RESUME_WITHIN: Duration = Duration::from_secs(3);
const RESUME_WITHIN_OF_PAUSE: Duration = Duration::from_secs(4);
/// A returned node has this long to catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(30);

/// For each partition the applied indexes of its replicas.
fn applied(client: &mut Client) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut applied: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in partitions(client)? {
        let field = |name: &str| row.get(name).with_context(|| format!("no {name} in {row:?}"));
        let index = field("applied_index")?.parse().context("an applied index")?;
        applied.entry(field("partition")?.clone()).or_default().push(index);
    }
    Ok(applied)
}

/// Whether each partition has all its replicas and they have all applied the same.
fn caught_up(client: &mut Client) -> Result<bool> {
    let applied = applied(client)?;
    ensure!(!applied.is_empty(), "no partitions");
    Ok(applied.values().all(|indexes| {
        indexes.len() == REPLICAS && indexes.iter().all(|index| *index == indexes[0])
    }))
}

/// The node that leads the partition that is written to.
fn loaded_node(client: &mut Client) -> Result<String> {
    let rows = partitions(client)?;
    let leads =
        |row: &&BTreeMap<String, String>| row["partition"] == "1" && row["role"] == "leader";
    Ok(rows.iter().find(leads).context("nobody leads")?["node"].clone())
}

fn admin(client: &mut Client, line: &str) {
    let reply = client.line(line).expect("an answer");
    assert!(!reply.is_error(), "{line}: {reply:?}");
}

/// Longer than a lease and an election.
const PAUSE: Duration = Duration::from_millis(2_500);
/// Ends of a leader, how it comes back, and within which time writes resume.
const LOSSES: [(&str, &str, Duration); 2] =
    [("STOP", "START", RESUME_WITHIN), ("PAUSE", "RESUME", RESUME_WITHIN_OF_PAUSE)];

/// Has the leader end under load, and come back; the longest time in which nothing was acknowledged.
fn lose_leader(
    server: &Server,
    control: &mut Client,
    writers: &mut Vec<Writer>,
    (end, begin): (&str, &str),
) -> Result<Duration> {
    writers.iter_mut().for_each(|writer| writer.longest_gap = Duration::ZERO);
    let load = Load::start(server.port(), std::mem::take(writers));
    let progress = |load: &Load, what: &str| {
        let from = load.acknowledged();
        wait_until(what, Duration::from_secs(30), || Ok(load.acknowledged() >= from + 3_000))
    };
    progress(&load, "a load")?;
    let node = loaded_node(control)?;
    admin(control, &format!("ADMIN FAULT {end} {node}"));
    match end {
        // What was being done there as it began to stand still is held until it goes on.
        "PAUSE" => std::thread::sleep(PAUSE),
        _ => drop(progress(&load, "writes resume")?),
    }
    admin(control, &format!("ADMIN FAULT {begin} {node}"));
    progress(&load, "writes go on")?;
    *writers = load.stop().context("load")?;
    let gap = writers.iter().map(|writer| writer.longest_gap).max().context("writers")?;
    println!("{end} {node}, longest gap {gap:?}");
    for writer in writers {
        assert_eq!(writer.refusals, BTreeMap::new(), "what was lost is made again");
        writer.verify(control)?;
    }
    let took = wait_until("the node catches up", CATCH_UP_WITHIN, || caught_up(control))?;
    println!("caught up after {took:?}");
    Ok(gap)
}

#[test]
fn leaders_are_lost_under_load_and_each_write_is_done_once_and_none_is_refused() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let options = Options { faults: true, ..Options::evenkeel() };
    let mut server = Server::start(options).expect("start");
    let mut control = server.client().expect("connect");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..ROUNDS {
        let (end, begin, limit) = LOSSES[round % LOSSES.len()];
        let lose = || lose_leader(&server, &mut control, &mut writers, (end, begin));
        calm::within("the loss of a leader", limit, server.dir(), lose)
            .unwrap_or_else(|error| panic!("round {round}: {error:#}"));
    }
    let again = info_number(&mut control, "routing", "calls_made_again").expect("a number");
    println!("{again} calls were made again");
    assert!(again > 0, "a leader was lost with nothing on its way");
    server.stop().expect("stop");
}

/// The promise on a hand-over. An unoptimised build shows that nothing fails, not the time.
const HAND_OVER_WITHIN: Duration =
    Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 250 });
const HAND_OVERS: usize = 9;

/// Has each node lead in turn, under load; the longest time in which nothing was acknowledged.
fn hand_over(server: &Server, control: &mut Client, writers: &mut Vec<Writer>) -> Result<Duration> {
    writers.iter_mut().for_each(|writer| writer.longest_gap = Duration::ZERO);
    let load = Load::start(server.port(), std::mem::take(writers));
    let progress = |count: u64| {
        let from = load.acknowledged();
        let limit = Duration::from_secs(30);
        wait_until("writes go on", limit, || Ok(load.acknowledged() >= from + count))
    };
    progress(2_000)?;
    for round in 0..HAND_OVERS {
        admin(control, &format!("ADMIN TRANSFER table:0 {}", round % REPLICAS + 1));
        progress(500)?;
    }
    *writers = load.stop().context("load")?;
    let gaps: Vec<_> = writers.iter().map(|writer| writer.longest_gap).collect();
    println!("{HAND_OVERS} hand-overs, longest gaps {gaps:?}");
    for writer in writers {
        assert_eq!(writer.refusals, BTreeMap::new(), "requests failed");
        writer.verify(control)?;
    }
    gaps.into_iter().max().context("writers")
}

#[test]
fn leadership_moves_under_load_and_no_request_fails() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let mut control = server.client().expect("connect");
    assert!(!control.line("SET first write").expect("an answer").is_error());
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let hand_over = || hand_over(&server, &mut control, &mut writers);
    calm::within("a hand-over", HAND_OVER_WITHIN, server.dir(), hand_over).expect("in time");
    server.stop().expect("stop");
}

#[test]
fn a_spare_node_stands_in_for_a_lost_one() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let extra = ["--nodes", "5", "--databases", "1", "--rebuild-after-ms", "500"];
    let extra = extra.map(str::to_owned).to_vec();
    let mut server =
        Server::start(Options { faults: true, extra, ..Options::evenkeel() }).expect("start");
    let mut control = server.client().expect("connect");
    let load = Load::start(server.port(), vec![Writer::new(0)]);
    let limit = Duration::from_secs(30);
    wait_until("a load", limit, || Ok(load.acknowledged() > 2_000)).expect("load");
    let lost = leading_node(&mut control).expect("a leader");
    admin(&mut control, &format!("ADMIN FAULT STOP {lost}"));
    let nodes = |client: &mut Client, kind: &str| -> Result<Vec<String>> {
        // The partition of database 0; the system's own heals by itself, too.
        let is_ours =
            |row: &BTreeMap<String, String>| row["partition"] == "1" && row["kind"] == kind;
        let of_kind = partitions(client)?.into_iter().filter(is_ours);
        Ok(of_kind.map(|row| row["node"].clone()).collect())
    };
    wait_until("three copies again", limit, || {
        let storage = nodes(&mut control, "storage")?;
        Ok(storage.len() == 3 && !storage.contains(&lost) && nodes(&mut control, "log")?.is_empty())
    })
    .expect("healed");
    wait_until("they agree", limit, || {
        let applied = applied(&mut control)?;
        Ok(applied.values().all(|indexes| indexes.len() == 3))
    })
    .expect("applied");
    let mut writers = load.stop().expect("load");
    // The process dies: what was healed is on disk as such.
    server.kill().expect("kill");
    server.launch().expect("launch");
    let mut control = server.client().expect("connect");
    writers[0].verify(&mut control).expect("nothing lost");
    assert!(!nodes(&mut control, "storage").expect("a list").is_empty());
    server.stop().expect("stop");
}

#[test]
fn faults_are_refused_unless_enabled() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().expect("connect");
    // A write waits for the first election.
    assert!(!client.line("SET first write").expect("an answer").is_error());
    let node = leading_node(&mut client).expect("a leader");
    assert!(client.line(&format!("ADMIN FAULT STOP {node}")).expect("an answer").is_error());
    assert!(!client.line("SET still here").expect("an answer").is_error());
}

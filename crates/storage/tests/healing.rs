//! Nodes that are damaged and begin anew: when they may, and when they can.

mod cluster;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, PARTITION, small, text};
use storage::NodeOptions;
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{NodeFault, StorageService};

/// Nobody is given up while a test goes on.
fn patient() -> NodeOptions {
    NodeOptions { heal_after: Duration::from_secs(3_600), ..small() }
}

fn fill(cluster: &Cluster) {
    for i in 0..50 {
        assert_eq!(cluster.run(&["SET", &format!("key:{i}"), "value"]), Reply::OK);
    }
}

fn check(cluster: &Cluster) {
    for i in 0..50 {
        assert_eq!(cluster.get(&format!("key:{i}")), text("value"), "key:{i}");
    }
}

fn fault(cluster: &Cluster, fault: NodeFault) {
    cluster.nodes.fault(fault).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
}

/// Times that somebody campaigned.
fn elections(cluster: &Cluster) -> u64 {
    let status = cluster.nodes.status();
    status.iter().flat_map(|node| &node.replicas).map(|replica| replica.elections).sum()
}

/// Of a stopped node's log both copies of each header: what was lost cannot be named.
fn lose_log(dir: &Path, node: NodeId) -> PathBuf {
    let log = dir.join(format!("node-{node}")).join("log");
    for file in std::fs::read_dir(&log).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("wal-") && name.ends_with(".seg") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[0] ^= 0x41;
            bytes[4096] ^= 0x41;
            std::fs::write(&path, bytes).unwrap();
        } else if name.ends_with(".idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    log
}

#[test]
fn who_leads_for_long_lets_a_damaged_node_go_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &patient());
    fill(&cluster);
    let leader = cluster.nodes.status().into_iter().find(|status| {
        status
            .replicas
            .iter()
            .any(|replica| replica.partition == PARTITION && replica.role == "leader")
    });
    let leader = leader.expect("it takes writes").node;
    let damaged = if leader == NodeId(3) { NodeId(2) } else { NodeId(3) };
    // What a start takes that has nothing to ask for.
    fault(&cluster, NodeFault::Stop(damaged));
    let began = Instant::now();
    fault(&cluster, NodeFault::Start(damaged));
    let start_takes = began.elapsed();
    // What an earlier leader may have permitted is over by then.
    let long = Duration::from_secs(6);
    let (mut began, mut seen, deadline) =
        (Instant::now(), elections(&cluster), Instant::now() + 10 * long);
    while began.elapsed() < long {
        fill(&cluster);
        if elections(&cluster) != seen {
            (began, seen) = (Instant::now(), elections(&cluster));
        }
        assert!(Instant::now() < deadline, "nobody leads for long");
    }
    fault(&cluster, NodeFault::Stop(damaged));
    lose_log(dir.path(), damaged);
    let began = Instant::now();
    cluster.nodes.start(damaged).expect("its group can do without it");
    let took = began.elapsed();
    assert!(took < start_takes + Duration::from_secs(4), "{took:?}, else {start_takes:?}");
    cluster.until("it has its rows again", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    check(&cluster);
}

#[test]
fn what_cannot_be_put_aside_is_put_aside_later() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &patient());
    fill(&cluster);
    let damaged = NodeId(3);
    fault(&cluster, NodeFault::Stop(damaged));
    let log = lose_log(dir.path(), damaged);
    // Something that cannot be replaced by a folder.
    let obstacle = log.with_extension("damaged");
    std::fs::write(&obstacle, "in the way").unwrap();
    assert!(cluster.nodes.start(damaged).is_err());
    cluster.nodes.tend();
    assert!(cluster.nodes.node(damaged).is_none());
    std::fs::remove_file(&obstacle).unwrap();
    cluster.until("it has its rows again", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    assert!(obstacle.is_dir(), "the log of before");
    check(&cluster);
}

#[test]
fn a_damaged_node_goes_only_when_its_group_can_do_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 2, &patient());
    fill(&cluster);
    cluster.until("one of them leads", || {
        cluster.nodes.node(NodeId(1)).is_some_and(|node| node.leads(PARTITION))
    });
    let (away, damaged) = (NodeId(2), NodeId(3));
    fault(&cluster, NodeFault::Stop(damaged));
    fault(&cluster, NodeFault::Stop(away));
    let log = lose_log(dir.path(), damaged);
    // Most of the nodes run, but of the group itself only one would be left.
    let refused = cluster.nodes.start(damaged);
    assert!(refused.is_err_and(|error| error.contains("damaged")));
    assert!(!log.with_extension("damaged").exists(), "it is kept");
    // Nobody leads without it or the other.
    fault(&cluster, NodeFault::Start(away));
    cluster.until("it has its rows again", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    assert!(log.with_extension("damaged").exists());
    check(&cluster);
}

//! Requests that are made again after a leader was lost are done once; what a leader hid stays hidden;
//! what was computed from a lost batch is lost too.

mod cluster;

use cluster::{Cluster, PARTITION, few_seconds_lease, long_lease, small, text};
use storage::NodeOptions;
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{GateOutcome, NodeFault, Request, RequestId, StorageService};

fn request(sequence: u64, again: Option<u64>) -> Request {
    Request { id: RequestId { router: 7, connection: 1, sequence }, again }
}

fn leader(cluster: &Cluster) -> NodeId {
    *cluster.leader.lock().unwrap()
}

#[test]
fn a_request_made_again_is_answered_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    let mut gates = Vec::new();
    for sequence in 1..=5 {
        let (reply, gate) = cluster.ask(&["INCR", "n"], request(sequence, None));
        assert_eq!(reply, Some(Reply::Integer(sequence as i64)));
        gates.push(gate.expect("a write has a gate").index);
    }
    let long = "v".repeat(1_000);
    cluster.ask(&["SET", "long", &long], request(6, None));
    let (reply, popped) = cluster.ask(&["GETDEL", "long"], request(7, None));
    assert_eq!(reply, Some(text(&long)));
    let again = || {
        for sequence in 1..=5 {
            let from = gates[sequence as usize - 1];
            let (reply, _) = cluster.ask(&["INCR", "n"], request(sequence, Some(from)));
            assert_eq!(reply, Some(Reply::Integer(sequence as i64)), "as it was answered");
        }
        let from = popped.expect("a write has a gate").index;
        let (reply, _) = cluster.ask(&["GETDEL", "long"], request(7, Some(from)));
        assert_eq!(reply, None, "done, but the reply was too long to keep");
        assert_eq!(cluster.get("n"), text("5"));
    };
    again();
    // At another leader.
    let first = leader(&cluster);
    cluster.nodes.fault(NodeFault::Stop(first)).expect("it runs");
    again();
    assert_ne!(leader(&cluster), first);
    cluster.nodes.fault(NodeFault::Start(first)).expect("it starts");
    // After all have started again: some of it was flushed, some is in the log.
    for id in &cluster.ids {
        let node = cluster.nodes.node(*id).expect("it runs");
        node.flush().expect("flushed");
    }
    let (reply, _) = cluster.ask(&["INCR", "m"], request(100, None));
    assert_eq!(reply, Some(Reply::Integer(1)));
    for id in &cluster.ids {
        cluster.nodes.fault(NodeFault::Stop(*id)).expect("it runs");
    }
    for id in &cluster.ids {
        cluster.nodes.fault(NodeFault::Start(*id)).expect("it starts");
    }
    again();
    let (reply, _) = cluster.ask(&["INCR", "m"], request(100, Some(1)));
    assert_eq!(reply, Some(Reply::Integer(1)));
    // What was never done is done now.
    let (reply, _) = cluster.ask(&["INCR", "m"], request(101, Some(gates[0])));
    assert_eq!(reply, Some(Reply::Integer(2)));
}

#[test]
fn a_replica_that_fetched_its_rows_knows_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    let (_, gate) = cluster.ask(&["INCR", "n"], request(1, None));
    let from = gate.expect("a write has a gate").index;
    cluster.until("the log is cut off", || {
        for id in &cluster.ids {
            cluster.nodes.node(*id).expect("it runs").flush().expect("flushed");
        }
        let status = cluster.nodes.status();
        let mut replicas = status.iter().flat_map(|node| &node.replicas);
        replicas.all(|replica| replica.truncated_index >= from)
    });
    let lost = cluster.ids.iter().copied().find(|id| *id != leader(&cluster)).expect("a follower");
    cluster.nodes.fault(NodeFault::Wipe(lost)).expect("it runs");
    cluster.nodes.fault(NodeFault::Start(lost)).expect("it starts");
    cluster.until("it has its rows", || {
        let status = cluster.nodes.status();
        let node = status.iter().find(|node| node.node == lost).expect("known");
        node.snapshots_installed > 0
            && cluster.settled().is_some_and(|(storage, _)| storage.len() == 3)
    });
    cluster
        .order(wire::service::Order::Transfer { partition: PARTITION, node: lost })
        .expect("handed over");
    let (reply, _) = cluster.ask(&["INCR", "n"], request(1, Some(from)));
    assert_eq!((reply, leader(&cluster)), (Some(Reply::Integer(1)), lost));
}

#[test]
fn what_was_forgotten_is_uncertain() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = storage::DedupLimits { bytes: 1_000, ..Default::default() };
    let cluster = Cluster::open(dir.path(), 3, &NodeOptions { dedup, ..small() });
    let (_, gate) = cluster.ask(&["INCR", "n"], request(1, None));
    let from = gate.expect("a write has a gate").index;
    for sequence in 2..=100 {
        cluster.ask(&["INCR", "n"], request(sequence, None));
    }
    let (reply, _) = cluster.ask(&["INCR", "n"], request(1, Some(from)));
    let is_uncertain =
        matches!(&reply, Some(Reply::Error(error)) if error.starts_with(b"UNCERTAIN"));
    assert!(is_uncertain, "{reply:?}");
    assert_eq!(cluster.get("n"), text("100"));
}

#[test]
fn a_request_on_its_way_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &long_lease());
    cluster.run(&["SET", "k", "v"]);
    let others: Vec<_> = cluster.ids.iter().copied().filter(|id| *id != leader(&cluster)).collect();
    for other in &others {
        cluster.nodes.fault(NodeFault::Pause(*other)).expect("it runs");
    }
    // Nothing is chosen now. The second attempt meets the first in the open batch, or on its way.
    let evaluate = |again| cluster.evaluate_request(&["INCR", "n"], request(1, again));
    let (reply, gate) = evaluate(None).expect("the lease lives on");
    let gate = gate.expect("a write has a gate");
    for _ in 0..2 {
        let again = evaluate(Some(gate.index)).expect("the lease lives on");
        assert_eq!(again, (reply.clone(), Some(gate)));
        let waiting = cluster.wait(gate);
        assert!(waiting.recv_timeout(std::time::Duration::from_millis(50)).is_err());
    }
    for other in &others {
        cluster.nodes.fault(NodeFault::Resume(*other)).expect("it runs");
    }
    assert_eq!(cluster.ask(&["INCR", "n"], request(1, Some(gate.index))).0, Some(reply));
    assert_eq!(cluster.get("n"), text("1"));
}

/// In the large value of the batch that gets lost.
const LOST: &[u8] = b"this batch gets lost";

#[test]
fn a_batch_that_stands_on_a_lost_one_is_void() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &few_seconds_lease());
    cluster.run(&["SET", "k", "v"]);
    let first = leader(&cluster);
    *cluster.lossy.loses.lock().unwrap() = Some(LOST);
    // Large, so that the next one does not wait for it.
    let lost = format!("{}{}", String::from_utf8_lossy(LOST), "v".repeat(100_000));
    let large = "w".repeat(100_000);
    let evaluate = |words: &[&str]| cluster.evaluate_at(first, words).expect("it leads");
    // What is still on its way would have the next write sealed by itself when it arrives.
    cluster.until("nothing is on its way", || cluster.settled().is_some());
    // As one, so that both are in one batch.
    let both = cluster.evaluate_together(first, &[&["INCR", "n"], &["SET", "lost", &lost]]);
    let (reply, one) = both.expect("it leads");
    assert_eq!(reply, Reply::Array(vec![Reply::Integer(1), Reply::OK]));
    let one = one.expect("a write has a gate");
    let waits_for_one = cluster.wait(one);
    cluster.until("the first is on its way", || {
        evaluate(&["SET", "x", "y"]).1.expect("a write has a gate").index > one.index
    });
    assert_eq!(evaluate(&["INCR", "n"]).0, Reply::Integer(2));
    let two = evaluate(&["SET", "large", &large]).1.expect("a write has a gate");
    assert_eq!(two.index, one.index + 1);
    let waits_for_two = cluster.wait(two);
    cluster.until("the others have the second alone", || {
        let status = cluster.nodes.status();
        let others = status.iter().filter(|node| node.node != first);
        others.flat_map(|node| &node.replicas).all(|replica| replica.last_index >= two.index)
    });
    cluster.nodes.fault(NodeFault::Stop(first)).expect("it runs");
    drop((waits_for_one, waits_for_two));
    // A client was told 1, then 2, and neither was acknowledged. Without the first there is no second.
    assert_eq!(cluster.get("n"), Reply::Null);
    assert_eq!(cluster.run(&["EXISTS", "lost", "large"]), Reply::Integer(0));
    for gate in [one, two] {
        assert_eq!(cluster.nodes.outcome(gate), Some(GateOutcome::Lost), "{gate:?}");
    }
    // Those that find all of it in their logs see it the same way.
    *cluster.lossy.loses.lock().unwrap() = None;
    cluster.nodes.fault(NodeFault::Start(first)).expect("it starts");
    cluster.until("they agree", || cluster.settled().is_some());
    cluster
        .order(wire::service::Order::Transfer { partition: PARTITION, node: first })
        .expect("handed over");
    assert_eq!(cluster.get("n"), Reply::Null);
    assert_eq!(cluster.run(&["EXISTS", "lost", "large"]), Reply::Integer(0));
}

#[test]
fn what_time_has_hidden_stays_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &few_seconds_lease());
    cluster.run(&["SET", "k", "v", "PX", "60000"]);
    cluster.run(&["HSET", "h", "f", "v"]);
    cluster.run(&["HPEXPIRE", "h", "60000", "FIELDS", "1", "f"]);
    let first = leader(&cluster);
    let others: Vec<_> = cluster.ids.iter().copied().filter(|id| *id != first).collect();
    for other in &others {
        cluster.nodes.fault(NodeFault::Pause(*other)).expect("it runs");
    }
    // Its clock runs away. Nobody else can know of it yet: whoever learns that a key is gone waits until
    // the group does.
    cluster.nodes.fault(NodeFault::Clock(first, 70_000)).expect("it runs");
    for (line, reply) in [
        (&["GET", "k"][..], Reply::Null),
        (&["EXISTS", "k"], Reply::Integer(0)),
        (&["HGET", "h", "f"], Reply::Null),
        (&["SCAN", "0"], Reply::Array(vec![text("0"), Reply::Array(Vec::new())])),
    ] {
        let (found, gate) = cluster.evaluate(line).expect("the lease lives on for a while");
        assert!(gate.is_some(), "{line:?} answers {found:?} at once");
        if line[0] != "SCAN" {
            assert_eq!(found, reply, "{line:?}");
        }
    }
    let (_, gate) = cluster.evaluate(&["GET", "k"]).expect("the lease lives on for a while");
    let waiting = cluster.wait(gate.expect("just seen"));
    for other in &others {
        cluster.nodes.fault(NodeFault::Resume(*other)).expect("it runs");
    }
    assert_eq!(waiting.recv().expect("the wait ends"), GateOutcome::Durable);
    // The next leader's clock is right, and a minute behind.
    cluster.nodes.fault(NodeFault::Stop(first)).expect("it runs");
    assert_eq!(cluster.get("k"), Reply::Null);
    assert_eq!(cluster.run(&["HGET", "h", "f"]), Reply::Null);
    assert_ne!(leader(&cluster), first);
}

#[test]
fn without_leases_a_quorum_confirms_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &NodeOptions::default());
    cluster.run(&["SET", "k", "v"]);
    let first = leader(&cluster);
    let elections = || {
        let status = cluster.nodes.status();
        status.iter().flat_map(|node| &node.replicas).map(|replica| replica.elections).sum::<u64>()
    };
    let before = elections();
    let read = || cluster.evaluate_at(first, &["GET", "k"]);
    assert_eq!(read(), Some((text("v"), None)), "with a lease nobody has to confirm it");
    // No node hears of another that it is there: all support ends.
    cluster.lossy.loses_beats.store(true, std::sync::atomic::Ordering::Relaxed);
    cluster.until("the lease has ended", || read().is_some_and(|(_, gate)| gate.is_some()));
    let began = std::time::Instant::now();
    let mut writes = 0;
    while began.elapsed() < std::time::Duration::from_secs(4) {
        writes += 1;
        let number = writes.to_string();
        assert_eq!(cluster.run(&["SET", "k", &number]), Reply::OK);
        let (reply, gate) = read().expect("it goes on leading");
        assert_eq!(reply, text(&number));
        let outcome = cluster.wait(gate.expect("a quorum confirms it")).recv();
        assert_eq!(outcome, Ok(GateOutcome::Durable));
    }
    assert_eq!((elections(), leader(&cluster)), (before, first), "nobody has a reason to campaign");
    // A leader that reaches no quorum confirms nothing: whoever has one leads.
    let others: Vec<_> = cluster.ids.iter().copied().filter(|id| *id != first).collect();
    for other in &others {
        cluster.nodes.fault(NodeFault::Pause(*other)).expect("it runs");
    }
    cluster.until("it knows that it reaches nobody", || read().is_none());
    for other in &others {
        cluster.nodes.fault(NodeFault::Resume(*other)).expect("it runs");
    }
    cluster.lossy.loses_beats.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(cluster.get("k"), text(&writes.to_string()));
}

//! Three nodes in one process over real files: commands through the service, restarts, failover.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, long_lease, small, text};
use storage::NodeOptions;
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{DiskFault, GateOutcome, NodeFault, StorageService};

#[test]
fn what_was_acknowledged_is_there_after_a_restart_without_goodbye() {
    for replicas in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        {
            let cluster = Cluster::open(dir.path(), replicas, &small());
            for i in 0..2_000 {
                // Enough for several flushes at this memtable size.
                let value = format!("{i}").repeat(40);
                assert_eq!(cluster.run(&["SET", &format!("key:{i}"), &value]), Reply::OK);
            }
            cluster.run(&["DEL", "key:7"]);
            cluster.run(&["SET", "volatile", "v", "PX", "100000000"]);
        }
        let cluster = Cluster::open(dir.path(), replicas, &small());
        assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(2_000));
        for i in (0..2_000).filter(|i| *i != 7) {
            let expected = text(&format!("{i}").repeat(40));
            assert_eq!(cluster.get(&format!("key:{i}")), expected, "key:{i}, {replicas} replicas");
        }
        assert_eq!(cluster.get("key:7"), Reply::Null);
        assert!(
            matches!(cluster.run(&["PTTL", "volatile"]), Reply::Integer(ms) if ms > 90_000_000)
        );
    }
}

#[test]
fn writes_go_on_without_the_leader_and_it_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    for i in 0..200 {
        cluster.run(&["SET", &format!("a:{i}"), "before"]);
    }
    let leader = *cluster.leader.lock().unwrap();
    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
    for i in 0..200 {
        cluster.run(&["SET", &format!("b:{i}"), "meanwhile"]);
        assert_eq!(cluster.get(&format!("a:{i}")), text("before"));
    }
    cluster.nodes.fault(NodeFault::Start(leader)).expect("it stopped");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let applied: Vec<_> = cluster
            .nodes
            .status()
            .iter()
            .map(|node| node.replicas.first().map_or(0, |replica| replica.applied_index))
            .collect();
        if applied.iter().all(|index| *index == applied[0]) {
            break;
        }
        assert!(Instant::now() < deadline, "the node never caught up: {applied:?}");
        std::thread::yield_now();
    }
    // The one that was away leads alone with one other.
    let other = cluster.ids.iter().find(|id| **id != leader).copied().unwrap();
    cluster.nodes.fault(NodeFault::Stop(other)).expect("it runs");
    for i in 0..200 {
        assert_eq!(cluster.get(&format!("b:{i}")), text("meanwhile"));
    }
}

#[test]
fn a_flush_of_the_table_leaves_nothing_even_after_compaction_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let cluster = Cluster::open(dir.path(), 1, &small());
        for i in 0..500 {
            cluster.run(&["SET", &format!("k:{i}"), &"x".repeat(300)]);
        }
        cluster.run(&["FLUSHALL"]);
        assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(0));
        cluster.run(&["SET", "k:1", "again"]);
        cluster.nodes.node(NodeId(1)).unwrap().flush().expect("a flush");
    }
    let cluster = Cluster::open(dir.path(), 1, &small());
    assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(1));
    assert_eq!(cluster.get("k:1"), text("again"));
    assert_eq!(cluster.get("k:2"), Reply::Null);
}

#[test]
fn flushes_that_meet_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 1, &small());
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let cluster = &cluster;
            scope.spawn(move || {
                for i in 0..20 {
                    cluster.run(&["SET", &format!("k:{writer}:{i}"), &"x".repeat(300)]);
                    cluster.nodes.node(NodeId(1)).unwrap().flush().expect("a flush");
                }
            });
        }
    });
    assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(80));
    assert_eq!(cluster.get("k:3:19"), text(&"x".repeat(300)));
}

#[test]
fn a_flush_that_failed_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing but this test flushes.
    let options = NodeOptions { memtable_bytes: 64 << 20, ..small() };
    let value = "x".repeat(300);
    {
        let cluster = Cluster::open(dir.path(), 1, &options);
        let node = cluster.nodes.node(NodeId(1)).expect("it runs");
        let disk = |fault| cluster.nodes.fault(NodeFault::Disk(NodeId(1), fault)).expect("a seat");
        for i in 0..30 {
            cluster.run(&["SET", &format!("k:{i}"), &value]);
            if i % 10 == 9 {
                disk(DiskFault::Error);
                node.flush().expect_err("the disk refuses");
                node.flush().expect_err("it still does");
                disk(DiskFault::None);
            }
        }
        let held = cluster.nodes.status()[0].memtable_bytes;
        assert!(held > 30 * 300, "all of it is in memory: {held}");
        node.flush().expect("a flush");
        assert_eq!(cluster.nodes.status()[0].memtable_bytes, 0);
        assert_eq!(cluster.nodes.status()[0].frozen_memtables, 0);
        assert!(node.is_running());
        cluster.run(&["SET", "last", &value]);
    }
    let cluster = Cluster::open(dir.path(), 1, &options);
    assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(31));
    assert_eq!(cluster.get("k:3"), text(&value));
}

#[test]
fn a_node_whose_disk_stands_still_takes_no_more_than_it_may_hold() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let options = NodeOptions { memtable_bytes: 1 << 20, unsynced_bytes: limit, ..small() };
    let cluster = Cluster::open(dir.path(), 3, &options);
    cluster.run(&["SET", "k", "v"]);
    let leader = *cluster.leader.lock().unwrap();
    let slow = cluster.ids.iter().copied().find(|id| *id != leader).unwrap();
    let disk = |fault| cluster.nodes.fault(NodeFault::Disk(slow, fault)).expect("a seat");
    let status = || cluster.nodes.status()[slow.0 as usize - 1].clone();
    disk(DiskFault::Slow(Duration::from_secs(3)));
    let value = "x".repeat(100 << 10);
    for i in 0..150 {
        cluster.run(&["SET", &format!("k:{i}"), &value]);
        // What is being written when the limit is passed, and what comes in one message, is more.
        let held = status().unsynced_bytes;
        assert!(held < 3 * limit, "{held} bytes wait for the disk");
    }
    assert!(status().frames_refused > 0, "15 MB went by in less than a sync");
    disk(DiskFault::None);
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
    for i in 0..150 {
        assert_eq!(cluster.get(&format!("k:{i}")), text(&value));
    }
}

#[test]
fn keys_expire_in_the_log_too() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 1, &small());
    for i in 0..50 {
        cluster.run(&["SET", &format!("k:{i}"), "v", "PX", "30"]);
    }
    let deadline = Instant::now() + PATIENCE;
    while cluster.run(&["DBSIZE"]) != Reply::Integer(0) {
        assert!(Instant::now() < deadline, "expired keys are never deleted");
        std::thread::yield_now();
    }
    cluster.run(&["SET", "lives", "v", "PX", "100000"]);
    cluster.run(&["DEL", "lives"]);
    let replica = cluster.nodes.status()[0].replicas[0].clone();
    assert_eq!(replica.expired_keys, 50, "each once, and not what a client deleted");
}

#[test]
fn what_is_given_back_later_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 1, &small());
    let counted = || cluster.nodes.status()[0].replicas[0].freed_later;
    for key in ["a", "b", "c"] {
        cluster.run(&["SET", key, "v"]);
    }
    cluster.run(&["DEL", "a"]);
    assert_eq!(counted(), 0, "its one row is gone");
    cluster.run(&["FLUSHDB"]);
    assert_eq!(counted(), 2);
    let members: Vec<String> = (0..1_000).map(|member| member.to_string()).collect();
    let add = ["SADD", "large"].into_iter().chain(members.iter().map(|member| &member[..]));
    cluster.run(&add.collect::<Vec<_>>());
    cluster.run(&["UNLINK", "large"]);
    assert_eq!(counted(), 3);
    cluster.run(&["SET", "a", "v"]);
    cluster.run(&["FLUSHDB", "SYNC"]);
    assert_eq!(counted(), 3, "it was told not to put it off");
    cluster.exec(&[], &[&["SET", "a", "v"], &["FLUSHDB"]]);
    assert_eq!(counted(), 3, "a transaction puts nothing off");
    cluster.exec(&[], &[&["SET", "a", "v"], &["FLUSHDB", "ASYNC"]]);
    assert_eq!(counted(), 4, "unless it is told to");
}

#[test]
fn what_has_expired_is_kept_if_that_is_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 1, &small());
    let node = cluster.nodes.status()[0].node;
    let keep = |keeps| cluster.nodes.fault(NodeFault::KeepExpired(node, keeps)).expect("a seat");
    keep(true);
    cluster.run(&["SET", "k", "v", "PX", "30"]);
    let deadline = Instant::now() + PATIENCE;
    // KEYS hides it, and leaves it.
    while cluster.run(&["KEYS", "*"]) != Reply::Array(Vec::new()) {
        assert!(Instant::now() < deadline, "the key never expires");
        std::thread::yield_now();
    }
    // Many rounds of the clock thread.
    let looked = Instant::now();
    while looked.elapsed() < Duration::from_millis(300) {
        assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(1));
    }
    keep(false);
    while cluster.run(&["DBSIZE"]) != Reply::Integer(0) {
        assert!(Instant::now() < deadline, "it is never deleted");
        std::thread::yield_now();
    }
}

#[test]
fn reads_have_deleted_what_they_meet_that_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    for node in cluster.nodes.status() {
        cluster.nodes.fault(NodeFault::KeepExpired(node.node, true)).expect("a seat");
    }
    let counted = || {
        let replicas = cluster.nodes.status().into_iter().flat_map(|node| node.replicas);
        let counts = replicas.map(|replica| (replica.expired_keys, replica.expired_fields));
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    };
    for key in ["a", "b", "c"] {
        cluster.run(&["SET", key, "v", "PX", "1"]);
    }
    cluster.run(&["HSET", "h", "f", "1", "g", "2", "i", "3", "j", "4"]);
    cluster.run(&["HPEXPIRE", "h", "1", "FIELDS", "3", "f", "g", "i"]);
    let deadline = Instant::now() + PATIENCE;
    while cluster.run(&["HKEYS", "h"]) != Reply::Array(vec![text("j")])
        || cluster.run(&["KEYS", "[abc]"]) != Reply::Array(Vec::new())
    {
        assert!(Instant::now() < deadline, "they never expire");
        std::thread::yield_now();
    }
    assert_eq!(
        (cluster.run(&["DBSIZE"]), counted()),
        (Reply::Integer(4), (0, 0)),
        "nobody met them"
    );
    assert_eq!(cluster.run(&["GET", "a"]), Reply::Null);
    assert_eq!((cluster.run(&["DBSIZE"]), counted()), (Reply::Integer(3), (1, 0)));
    cluster.run(&["SCAN", "0"]);
    assert_eq!((cluster.run(&["DBSIZE"]), counted()), (Reply::Integer(1), (3, 0)));
    assert_eq!(cluster.run(&["HGET", "h", "f"]), Reply::Null);
    assert_eq!((cluster.run(&["HLEN", "h"]), counted()), (Reply::Integer(3), (3, 1)));
    assert_eq!(cluster.run(&["HINCRBY", "h", "g", "5"]), Reply::Integer(5));
    assert_eq!((cluster.run(&["HLEN", "h"]), counted()), (Reply::Integer(3), (3, 2)));
    cluster.run(&["HRANDFIELD", "h"]);
    assert_eq!((cluster.run(&["HLEN", "h"]), counted()), (Reply::Integer(2), (3, 3)));
    cluster.run(&["HPEXPIRE", "h", "1", "FIELDS", "2", "g", "j"]);
    while cluster.run(&["HMGET", "h", "g", "j"]) != Reply::Array(vec![Reply::Null; 2]) {
        assert!(Instant::now() < deadline, "they never expire");
    }
    assert_eq!((cluster.run(&["EXISTS", "h"]), counted()), (Reply::Integer(0), (3, 5)));
}

#[test]
fn fields_of_hashes_expire_in_the_log_too() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    let fields: Vec<String> = (0..3_000).map(|field| format!("field:{field}")).collect();
    for fields in fields.chunks(500) {
        let pairs = fields.iter().flat_map(|field| [&field[..], "value"]);
        cluster.run(&["HSET", "h"].into_iter().chain(pairs).collect::<Vec<_>>());
    }
    cluster.run(&["HSET", "h", "stays", "value"]);
    cluster.run(&["HSET", "small", "a", "1", "b", "2"]);
    cluster.run(&["HPEXPIRE", "small", "30", "FIELDS", "2", "a", "b"]);
    let hidden = [&["HPEXPIRE", "h", "30", "FIELDS", "3000"][..]].concat();
    let line = hidden.into_iter().chain(fields.iter().map(|field| &field[..]));
    cluster.run(&line.collect::<Vec<_>>());
    let deadline = Instant::now() + PATIENCE;
    // More fields than one step deletes; and a hash that lost its last one is no key.
    while cluster.run(&["HLEN", "h"]) != Reply::Integer(1)
        || cluster.run(&["DBSIZE"]) != Reply::Integer(1)
    {
        assert!(Instant::now() < deadline, "expired fields are never deleted");
        std::thread::yield_now();
    }
    assert_eq!(cluster.run(&["HGET", "h", "stays"]), text("value"));
}

#[test]
fn a_flush_that_is_not_chosen_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &long_lease());
    assert_eq!(cluster.run(&["SET", "k", "v"]), Reply::OK);
    let leader = *cluster.leader.lock().unwrap();
    for other in cluster.ids.iter().filter(|id| **id != leader) {
        cluster.nodes.fault(NodeFault::Stop(*other)).expect("it runs");
    }
    let (_, flush) = cluster.evaluate(&["FLUSHDB"]).expect("the lease lives on");
    let flush = flush.expect("nothing is chosen without a quorum");
    for read in [&["GET", "k"][..], &["EXISTS", "k"], &["SCAN", "0"], &["DBSIZE"], &["MGET", "x"]] {
        let (reply, gate) = cluster.evaluate(read).expect("it is evaluated");
        assert_eq!(gate, Some(flush), "{read:?} answers {reply:?} at once");
    }
}

#[test]
fn every_wait_ends_when_the_node_stops() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &long_lease());
    assert_eq!(cluster.run(&["SET", "k", "v"]), Reply::OK);
    let leader = *cluster.leader.lock().unwrap();
    for other in cluster.ids.iter().filter(|id| **id != leader) {
        cluster.nodes.fault(NodeFault::Stop(*other)).expect("it runs");
    }
    let write = || cluster.evaluate(&["SET", "k", "w"]).expect("it is evaluated").1;
    let first = write().expect("a write has a gate");
    let mut waits = vec![cluster.wait(first)];
    // Once the first is sealed, whoever waits next is to seal the batch behind it.
    let deadline = Instant::now() + PATIENCE;
    let mut next = write();
    while next.is_some_and(|gate| gate.index == first.index) && Instant::now() < deadline {
        std::thread::yield_now();
        next = write();
    }
    let next = next.expect("a write has a gate");
    assert!(next.index > first.index, "the first batch is sealed");
    waits.extend([cluster.wait(next), cluster.wait(next)]);
    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
    for wait in waits {
        let outcome = wait.recv_timeout(PATIENCE).expect("the wait ends");
        assert_ne!(outcome, GateOutcome::Durable);
    }
}

#[test]
fn keys_that_no_row_can_have_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    for length in [65_000, 65_500, 65_523, 65_524, 65_536, 1 << 20] {
        let key = "k".repeat(length);
        assert_eq!(cluster.run(&["GET", &key]), Reply::Null, "{length}");
        assert_eq!(
            cluster.run(&["MGET", "a", &key]),
            Reply::Array(vec![Reply::Null, Reply::Null]),
            "{length}"
        );
        let stored = cluster.run(&["SET", &key, "v"]);
        let fits = length + 12 <= storage::lsm::ROW_KEY_BYTES_MAX;
        assert_eq!(stored == Reply::OK, fits, "{length}: {stored:?}");
        assert_eq!(cluster.get(&key), if fits { text("v") } else { Reply::Null }, "{length}");
    }
}

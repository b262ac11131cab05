//! Transactions at real nodes: all or nothing, watched keys, cold rows, restarts.

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, long_lease, small, text};
use storage::NodeOptions;
use wire::ids::{NodeId, Version};
use wire::resp::Reply;
use wire::service::{NodeFault, StorageService, Watched};

const OK: Reply = Reply::OK;

fn watched(key: &str, seen: Option<Version>) -> Watched {
    Watched { key: Bytes::copy_from_slice(key.as_bytes()), seen }
}

fn replies(reply: Reply) -> Vec<Reply> {
    let Reply::Array(replies) = reply else { panic!("no array: {reply:?}") };
    replies
}

#[test]
fn commands_build_on_each_other_and_a_refused_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    {
        let cluster = Cluster::open(dir.path(), 3, &small());
        cluster.run(&["SET", "swept", "1"]);
        let done = replies(cluster.exec(
            &[],
            &[
                &["SET", "a", "1"],
                &["INCR", "a"],
                &["INCRBY", "a", "abc"],
                &["MSETNX", "b", "1", "a", "9"],
                &["FLUSHDB"],
                &["GET", "a"],
                &["MSET", "a", "5", "b", "6"],
                &["DBSIZE"],
                &["RENAME", "nosuch", "a"],
                &["PEXPIREAT", "b", "1"],
                &["SET", "c", "7", "PX", "100000000"],
                &["KEYS", "*"],
            ],
        ));
        assert_eq!(done[0..2], [OK, Reply::Integer(2)]);
        assert!(matches!(done[2], Reply::Error(_)) && matches!(done[8], Reply::Error(_)));
        assert_eq!(done[3..8], [Reply::Integer(0), OK, Reply::Null, OK, Reply::Integer(2)]);
        assert_eq!(done[9..11], [Reply::Integer(1), OK]);
        assert_eq!(replies(done[11].clone()).len(), 2);
        assert_eq!(replies(cluster.exec(&[], &[])), []);
    }
    let cluster = Cluster::open(dir.path(), 3, &small());
    let read: [&[&str]; 5] =
        [&["GET", "a"], &["GET", "b"], &["GET", "c"], &["GET", "swept"], &["DBSIZE"]];
    let expected = vec![text("5"), Reply::Null, text("7"), Reply::Null, Reply::Integer(2)];
    assert_eq!(replies(cluster.exec(&[], &read)), expected);
}

#[test]
fn a_watched_key_is_compared_across_leaders_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    cluster.run(&["SET", "k", "1"]);
    let seen = cluster.look("k");
    assert!(seen.is_some() && cluster.look("absent").is_none());
    let keys = [watched("k", seen), watched("absent", None)];
    let incr: &[&[&str]] = &[&["INCR", "k"]];
    // Elsewhere than it was looked at.
    let leader = *cluster.leader.lock().unwrap();
    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
    cluster.run(&["SET", "other", "1"]);
    assert_eq!(replies(cluster.exec(&keys, incr)), [Reply::Integer(2)]);
    cluster.nodes.fault(NodeFault::Start(leader)).expect("it stopped");
    assert_eq!(cluster.exec(&keys, incr), Reply::NullArray, "its own write changed it");
    for change in [&["SET", "k", "2"][..], &["FLUSHDB"], &["SET", "absent", "1"]] {
        cluster.run(&["SET", "k", "2"]);
        cluster.run(&["DEL", "absent"]);
        let keys = [watched("k", cluster.look("k")), watched("absent", None)];
        cluster.run(change);
        assert_eq!(cluster.exec(&keys, incr), Reply::NullArray, "{change:?}");
    }
    // Expired is as good as gone, whether deleted or only hidden.
    // On a busy machine it may be gone before it is looked at.
    let seen = (0..100).find_map(|_| {
        cluster.run(&["SET", "k", "1", "PX", "50"]);
        cluster.look("k")
    });
    let keys = [watched("k", Some(seen.expect("it is seen while it lives")))];
    while cluster.get("k") != Reply::Null {
        std::thread::yield_now();
    }
    assert_eq!(cluster.exec(&keys, incr), Reply::NullArray);
    assert_eq!(replies(cluster.exec(&[watched("k", None)], incr)), [Reply::Integer(1)]);
}

#[test]
fn cold_keys_are_fetched_and_the_whole_is_evaluated_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { rows: storage::RowBudget::new(0), ..small() };
    let cluster = Cluster::open(dir.path(), 1, &options);
    let keys: Vec<String> = (0..40).map(|i| format!("k:{i}")).collect();
    for key in &keys {
        cluster.run(&["SET", key, "1"]);
    }
    let seen: Vec<_> = keys.iter().map(|key| watched(key, cluster.look(key))).collect();
    cluster.nodes.node(NodeId(1)).unwrap().flush().expect("a flush");
    let lines: Vec<[&str; 2]> = keys.iter().map(|key| ["INCR", key]).collect();
    let lines: Vec<&[&str]> = lines.iter().map(|line| &line[..]).collect();
    assert_eq!(replies(cluster.exec(&seen, &lines)), vec![Reply::Integer(2); 40]);
    assert_eq!(cluster.exec(&seen, &lines), Reply::NullArray);
    assert_eq!(replies(cluster.exec(&[], &lines)), vec![Reply::Integer(3); 40], "once each");
}

#[test]
fn readers_wait_only_for_what_they_read_and_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &long_lease());
    cluster.run(&["SET", "k", "1"]);
    let leader = *cluster.leader.lock().unwrap();
    let gate_of = |words: &[&str]| {
        let (reply, gate) = cluster.evaluate_together(leader, &[words]).expect("it leads");
        (gate.is_some(), reply)
    };
    // Nobody waits for the gates: the batch stays open until the clock thread comes by, which may
    // be too soon for one try.
    let seen_open = (0..1000).any(|_| {
        assert_eq!(gate_of(&["SET", "new", "2"]), (true, Reply::Array(vec![OK])));
        assert_eq!(gate_of(&["GET", "k"]), (false, Reply::Array(vec![text("1")])));
        let (gated, reply) = gate_of(&["GET", "new"]);
        assert_eq!(reply, Reply::Array(vec![text("2")]));
        gated
    });
    assert!(seen_open, "a proposed row is read behind its gate");
    let huge = "x".repeat(60 << 20);
    assert_eq!(replies(cluster.exec(&[], &[&["SET", "huge", &huge]])), [OK]);
    let done = replies(cluster.exec(&[], &[&["MSET", "a", &huge, "b", &huge], &["GET", "a"]]));
    assert!(matches!(&done[0], Reply::Error(_)) && done[1] == Reply::Null);
    let whole = cluster.exec(&[], &[&["SET", "a", &huge], &["SET", "b", &huge]]);
    assert!(matches!(&whole, Reply::Error(line) if line.starts_with(b"EXECABORT ")), "{whole:?}");
    assert_eq!(cluster.get("a"), Reply::Null);
}

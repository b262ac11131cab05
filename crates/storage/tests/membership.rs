//! Replicas that come and go: ordered, healed, wiped, damaged; and their rows, which travel as
//! snapshots.

mod cluster;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, PARTITION, PATIENCE, StopsOnDrop, long_lease, small, text};
use storage::{Change, NodeOptions};
use wire::ids::{NodeId, PartitionId};
use wire::peer::{Frame, Kind, Transport};
use wire::resp::Reply;
use wire::service::{DiskFault, NodeFault, Order, StorageService, Stored};

/// Options that flush, cut the log and heal soon.
fn quick() -> NodeOptions {
    NodeOptions {
        heal_after: Duration::from_millis(600),
        rebuild_after: Duration::from_millis(300),
        snapshot_chunk_bytes: 4 << 10,
        ..small()
    }
}

/// Enough for several flushes, all kinds of rows, and keys that are deleted again.
fn fill(cluster: &Cluster, keys: std::ops::Range<u32>) {
    for i in keys {
        let value = format!("{i}").repeat(60);
        assert_eq!(cluster.run(&["SET", &format!("key:{i}"), &value]), Reply::OK);
        if i % 10 == 0 {
            cluster.run(&["HSET", &format!("hash:{i}"), "field", &value]);
            cluster.run(&["SET", &format!("volatile:{i}"), "v", "PX", "100000000"]);
            cluster.run(&["DEL", &format!("key:{i}")]);
        }
    }
}

fn check(cluster: &Cluster, keys: std::ops::Range<u32>) {
    for i in keys {
        let value = text(&format!("{i}").repeat(60));
        let expected = if i % 10 == 0 { Reply::Null } else { value.clone() };
        assert_eq!(cluster.get(&format!("key:{i}")), expected, "key:{i}");
        if i % 10 == 0 {
            assert_eq!(cluster.run(&["HGET", &format!("hash:{i}"), "field"]), value);
            let left = cluster.run(&["PTTL", &format!("volatile:{i}")]);
            assert!(matches!(left, Reply::Integer(ms) if ms > 90_000_000), "{left:?}");
        }
    }
}

fn flush(cluster: &Cluster) {
    for id in &cluster.ids {
        if let Some(node) = cluster.nodes.node(*id) {
            node.flush().expect("a flush");
        }
    }
}

fn fault(cluster: &Cluster, fault: NodeFault) {
    cluster.nodes.fault(fault).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
}

fn leader(cluster: &Cluster) -> NodeId {
    let leads = |id: &NodeId| cluster.nodes.node(*id).is_some_and(|node| node.leads(PARTITION));
    let mut found = None;
    cluster.until("somebody leads", || {
        found = cluster.ids.iter().copied().find(leads);
        found.is_some()
    });
    found.unwrap()
}

fn transfer(cluster: &Cluster, node: NodeId) {
    cluster.order(Order::Transfer { partition: PARTITION, node }).expect("it leads");
    *cluster.leader.lock().unwrap() = node;
}

/// Waits until the log of the leader begins behind the first entries.
fn until_truncated(cluster: &Cluster) {
    cluster.until("the log is cut", || {
        flush(cluster);
        cluster.nodes.status().iter().any(|node| {
            let first = node.replicas.first();
            first.is_some_and(|replica| replica.role == "leader" && replica.truncated_index > 100)
        })
    });
}

#[test]
fn a_replica_is_added_by_snapshot_leads_and_the_old_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &quick());
    fill(&cluster, 0..600);
    until_truncated(&cluster);
    let before = cluster.epochs.lock().unwrap().last().copied();
    let (partition, node) = (PARTITION, NodeId(4));
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    let again = cluster.order(Order::AddReplica { partition, node, log: false });
    assert!(again.is_err_and(|error| error.contains("has a replica")));
    fill(&cluster, 600..700);
    cluster.until("the new one has all rows", || {
        cluster.settled() == Some((vec![1, 2, 3, 4], vec![]))
    });
    assert!(cluster.nodes.status()[3].snapshots_installed == 1, "not by the log");
    assert!(cluster.epochs.lock().unwrap().last().copied() > before, "the route's epoch rose");
    transfer(&cluster, NodeId(4));
    check(&cluster, 0..700);
    let removed = if leader(&cluster) == NodeId(1) { NodeId(2) } else { NodeId(1) };
    cluster.order(Order::RemoveReplica { partition, node: removed }).expect("it is removed");
    cluster.until("the old one is gone", || {
        let left: Vec<_> = [1, 2, 3, 4].into_iter().filter(|id| *id != removed.0).collect();
        cluster.settled() == Some((left, vec![]))
    });
    check(&cluster, 0..700);
    // The leader itself: it hands over first.
    let node = leader(&cluster);
    cluster.order(Order::RemoveReplica { partition, node }).expect("it is removed");
    cluster.until("two are left", || cluster.replicas().len() == 2);
    check(&cluster, 0..700);
    // And it comes back, under another name.
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    cluster.until("it has all rows", || cluster.settled().is_some_and(|(s, _)| s.len() == 3));
    transfer(&cluster, node);
    check(&cluster, 0..700);
    drop(cluster);
    // All of that is so after a restart.
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &quick());
    check(&cluster, 0..700);
    assert_eq!(cluster.replicas().len(), 3, "{:?}", cluster.replicas());
}

#[test]
fn nothing_fails_while_leadership_goes_round() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever had to wait for the end of a lease would be seen, however busy the machine is.
    let cluster = Cluster::open(dir.path(), 3, &long_lease());
    cluster.run(&["SET", "counter", "0"]);
    let stop = AtomicBool::new(false);
    let (longest_us, written) = (AtomicU64::new(0), AtomicI64::new(0));
    let done: i64 = std::thread::scope(|scope| {
        let _ends = StopsOnDrop(&stop);
        let writer = scope.spawn(|| {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                // `run` takes no lost or unknown outcome.
                done += 1;
                written.store(done, Ordering::Relaxed);
                assert_eq!(cluster.run(&["INCR", "counter"]), Reply::Integer(done));
                longest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            done
        });
        for round in 0..12 {
            let node = NodeId(round % 3 + 1);
            cluster.order(Order::Transfer { partition: PARTITION, node }).expect("it leads");
            assert_eq!(leader(&cluster), node);
            let before = written.load(Ordering::Relaxed);
            cluster.until("writes go on", || written.load(Ordering::Relaxed) > before + 3);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let longest = Duration::from_micros(longest_us.load(Ordering::Relaxed));
    println!("{done} increments during 12 hand-overs, the longest took {longest:?}");
    assert!(longest < PATIENCE, "{done} in at most {longest:?}");
    let no_such = cluster.order(Order::Transfer { partition: PARTITION, node: NodeId(9) });
    assert!(no_such.is_err());
}

#[test]
fn nothing_fails_while_members_change() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &small());
    let stop = AtomicBool::new(false);
    let written = AtomicI64::new(0);
    std::thread::scope(|scope| {
        let _ends = StopsOnDrop(&stop);
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (cluster, stop, written) = (&cluster, &stop, &written);
                scope.spawn(move || {
                    let key = format!("counter:{writer}");
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        done += 1;
                        assert_eq!(cluster.run(&["INCR", &key]), Reply::Integer(done));
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    (key, done)
                })
            })
            .collect();
        let partition = PARTITION;
        for round in 0..6 {
            let (node, log) = (NodeId(4), round % 2 == 1);
            let before = written.load(Ordering::Relaxed);
            cluster.until("a load", || written.load(Ordering::Relaxed) > before + 20);
            cluster.order(Order::AddReplica { partition, node, log }).expect("it is added");
            let before = written.load(Ordering::Relaxed);
            cluster.until("writes go on", || written.load(Ordering::Relaxed) > before + 20);
            cluster.order(Order::RemoveReplica { partition, node }).expect("it is removed");
            cluster.until("it is gone", || cluster.replicas().len() == 3);
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (key, done) = writer.join().unwrap();
            assert_eq!(cluster.get(&key), text(&done.to_string()));
        }
    });
}

#[test]
fn an_order_waits_for_a_lease_that_is_missing_for_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &small());
    cluster.run(&["SET", "k", "v"]);
    let leads = leader(&cluster);
    let node = || cluster.nodes.node(leads).expect("it runs");
    let spare = NodeId(4);
    let without_lease = |order: &(dyn Fn() -> Result<(), String> + Sync)| {
        // No node hears of another that it is there: all support ends.
        cluster.lossy.loses_beats.store(true, Ordering::Relaxed);
        cluster.until("the lease has ended", || !node().leads(PARTITION));
        std::thread::scope(|scope| {
            let ordered = scope.spawn(order);
            for i in 0..10 {
                assert_eq!(cluster.run(&["SET", "k", &i.to_string()]), Reply::OK);
            }
            cluster.lossy.loses_beats.store(false, Ordering::Relaxed);
            ordered.join().unwrap().expect("it happens once there is a lease");
        });
        assert_eq!(leader(&cluster), leads, "nobody had a reason to campaign");
    };
    let add = Change::Add { node: spare, log: false };
    without_lease(&|| cluster.change(leads, add));
    without_lease(&|| cluster.order(Order::RemoveReplica { partition: PARTITION, node: spare }));
    // Nothing is waited for that cannot come.
    let (began, partition) = (Instant::now(), PartitionId(99));
    let refused = cluster.order(Order::RemoveReplica { partition, node: spare });
    assert_eq!(refused, Err("partition 99 has no leader".into()));
    // An order waits for thirty seconds for what may come.
    assert!(began.elapsed() < Duration::from_secs(10));
    cluster.until("it is gone", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
}

#[test]
fn a_spare_node_stands_in_and_gets_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 2, &quick());
    fill(&cluster, 0..400);
    until_truncated(&cluster);
    let lost = if leader(&cluster) == NodeId(3) { NodeId(2) } else { NodeId(3) };
    fault(&cluster, NodeFault::Stop(lost));
    let began = Instant::now();
    cluster.until("a log replica", || cluster.replicas().iter().any(|(_, k, _)| *k == "log"));
    let stands_in = began.elapsed();
    fill(&cluster, 400..450);
    cluster.until("a storage replica in its place", || {
        cluster.settled().is_some_and(|(storage, log)| storage.len() == 3 && log.is_empty())
    });
    println!("log replica after {stands_in:?}, storage replica after {:?}", began.elapsed());
    // Of the group of before one more may be lost.
    let other = cluster.settled().unwrap().0.into_iter().find(|id| *id <= 3).unwrap();
    transfer(&cluster, NodeId(other));
    fault(&cluster, NodeFault::Stop(NodeId(other)));
    check(&cluster, 0..450);
    // Who comes back is no member any more, and lets its rows go.
    fault(&cluster, NodeFault::Start(lost));
    cluster.until("a whole group", || {
        cluster.settled().is_some_and(|(storage, log)| storage.len() == 3 && log.is_empty())
    });
    check(&cluster, 0..450);
}

#[test]
fn the_last_but_one_copy_of_the_rows_is_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    // The log replica that stands in for the first that is lost stays one for a while.
    let options = NodeOptions { rebuild_after: Duration::from_secs(4), ..quick() };
    let cluster = Cluster::with_spares(dir.path(), 3, 2, &options);
    fill(&cluster, 0..400);
    until_truncated(&cluster);
    let epochs = |least: u64| {
        let epochs = cluster.epochs.lock().unwrap();
        epochs.iter().filter(|epoch| **epoch > least).max().copied()
    };
    let before = epochs(0).expect("somebody led");
    let lost: Vec<_> =
        cluster.ids[..3].iter().copied().filter(|id| *id != leader(&cluster)).collect();
    fault(&cluster, NodeFault::Stop(lost[0]));
    // In two steps: then the log replica votes, and the lost one does not.
    cluster.until("the members change", || epochs(before).is_some());
    let joint = epochs(before).expect("just seen");
    cluster.until("the change ends", || epochs(joint).is_some());
    fill(&cluster, 400..410);
    fault(&cluster, NodeFault::Stop(lost[1]));
    let until = Instant::now() + 3 * options.heal_after;
    let mut i = 410;
    while Instant::now() < until {
        fill(&cluster, i..i + 1);
        i += 1;
        let leads = cluster.nodes.node(leader(&cluster)).expect("it leads");
        let is_kept = leads.has_storage_replica(PARTITION, lost[1]);
        // On a slow machine that while may be over: from then on it may go.
        if cluster.replicas().iter().any(|(id, kind, _)| *kind == "storage" && id.0 > 3) {
            break;
        }
        assert!(is_kept, "it holds the only other copy");
    }
    // Once there is another copy, it is replaced; and the group is whole again.
    cluster.until("three copies", || {
        cluster.settled().is_some_and(|(storage, log)| storage.len() == 3 && log.is_empty())
    });
    check(&cluster, 0..i);
}

#[test]
fn without_a_spare_nothing_is_done_about_a_silent_node() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &quick());
    fill(&cluster, 0..20);
    let lost = if leader(&cluster) == NodeId(3) { NodeId(2) } else { NodeId(3) };
    fault(&cluster, NodeFault::Stop(lost));
    let epochs = cluster.epochs.lock().unwrap().clone();
    let until = Instant::now() + 3 * quick().heal_after;
    let mut i = 20;
    while Instant::now() < until {
        fill(&cluster, i..i + 1);
        i += 1;
    }
    assert_eq!(cluster.epochs.lock().unwrap().last(), epochs.last(), "no change of members");
    fault(&cluster, NodeFault::Start(lost));
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    check(&cluster, 0..i);
}

#[test]
fn a_wiped_node_is_given_a_new_replica() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &quick());
    fill(&cluster, 0..400);
    until_truncated(&cluster);
    let wiped = leader(&cluster);
    let identity = |id: NodeId| {
        let status = cluster.nodes.status();
        let node = status.iter().find(|status| status.node == id).unwrap();
        node.replicas.first().map(|replica| replica.identity)
    };
    let before = identity(wiped).unwrap();
    fault(&cluster, NodeFault::Wipe(wiped));
    fill(&cluster, 400..420);
    fault(&cluster, NodeFault::Start(wiped));
    cluster.until("it has its rows again", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    assert!(identity(wiped).unwrap() > before, "never under the name of before");
    transfer(&cluster, wiped);
    check(&cluster, 0..420);
}

/// Numbers of what nodes tell each other of replicas.
const PING: u8 = 1;
const HOST: u8 = 2;
const HOSTED: u8 = 3;
const MAY_DROP: u8 = 5;
const DROP: u8 = 6;

#[test]
fn a_late_order_brings_no_identity_back() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &quick());
    fill(&cluster, 0..20);
    let (partition, node) = (PARTITION, NodeId(4));
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    cluster.until("it has all rows", || cluster.settled() == Some((vec![1, 2, 3, 4], vec![])));
    let late = cluster.last_told(HOST, node).expect("it was asked");
    let identity = || cluster.nodes.status()[3].replicas.first().map(|replica| replica.identity);
    let voted = identity().expect("it is here");
    cluster.order(Order::RemoveReplica { partition, node }).expect("it is removed");
    cluster.until("it is gone", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    // What it knew of its identities goes with its folder.
    fault(&cluster, NodeFault::Wipe(node));
    fault(&cluster, NodeFault::Start(node));
    cluster.told.lock().unwrap().clear();
    cluster.transport.send(node, late);
    // Taken in turn: once it hosts another, it has seen the late order.
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    let new = identity().expect("it is here");
    assert!(new > voted);
    let told = cluster.told.lock().unwrap();
    let hosted = told.iter().filter(|frame| frame.from == node && frame.body()[1] == HOSTED);
    let hosted: Vec<_> = hosted.map(|frame| frame.body()[2..6].to_vec()).collect();
    assert!(hosted.contains(&new.to_be_bytes().to_vec()), "{hosted:?}");
    assert!(!hosted.contains(&voted.to_be_bytes().to_vec()), "{voted} has voted before");
}

#[test]
fn nobody_speaks_for_another_nodes_replica() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &quick());
    fill(&cluster, 0..20);
    let (partition, node) = (PARTITION, NodeId(4));
    let leads = leader(&cluster);
    cluster.until("the leader knows the node", || {
        cluster.last_told(PING, leads).is_some_and(|ping| ping.from == node)
    });
    fault(&cluster, NodeFault::Stop(node));
    std::thread::scope(|scope| {
        let order = || cluster.order(Order::AddReplica { partition, node, log: false });
        let ordered = scope.spawn(order);
        cluster.until("it is asked to host", || cluster.last_told(HOST, node).is_some());
        let asked = cluster.last_told(HOST, node).unwrap();
        let mut body = vec![1, HOSTED];
        body.extend(&asked.body()[6..10]);
        let other = cluster.ids.iter().copied().find(|id| *id != leads && *id != node).unwrap();
        let hosted = Frame::new(Kind::Replica, other, leads, body.into()).for_group(PARTITION);
        cluster.transport.send(leads, hosted);
        cluster.told.lock().unwrap().clear();
        cluster.until("it is asked again", || {
            let at = cluster.nodes.node(leads).expect("it runs");
            assert!(!at.has_storage_replica(partition, node), "nobody hosts that member");
            cluster.last_told(HOST, node).is_some()
        });
        fault(&cluster, NodeFault::Start(node));
        ordered.join().unwrap().expect("it is added");
    });
}

#[test]
fn a_member_that_is_away_for_long_gets_a_snapshot_and_the_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { log_bytes: 1 << 20, ..quick() };
    let cluster = Cluster::open(dir.path(), 3, &options);
    fill(&cluster, 0..10);
    let away = if leader(&cluster) == NodeId(3) { NodeId(2) } else { NodeId(3) };
    fault(&cluster, NodeFault::Stop(away));
    let value = "x".repeat(20_000);
    for i in 0..400 {
        cluster.run(&["SET", &format!("large:{i}"), &value]);
    }
    until_truncated(&cluster);
    fault(&cluster, NodeFault::Start(away));
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    let installed = cluster.nodes.status()[away.0 as usize - 1].snapshots_installed;
    assert_eq!(installed, 1, "the log was gone");
    transfer(&cluster, away);
    check(&cluster, 0..10);
    assert_eq!(cluster.get("large:7"), text(&value));
}

#[test]
fn a_snapshot_goes_on_after_its_taker_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    // Slow enough to be met in the middle, also by a test that is held up.
    let options = NodeOptions { snapshot_rate: 20_000, ..quick() };
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &options);
    fill(&cluster, 0..400);
    until_truncated(&cluster);
    let (partition, node) = (PARTITION, NodeId(4));
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    let fetched = || cluster.nodes.status()[3].snapshot_bytes;
    cluster.until("some of it came", || fetched() > 30_000);
    fault(&cluster, NodeFault::Stop(node));
    let spool = dir.path().join("node-4").join("incoming");
    let kept = std::fs::read_dir(&spool).unwrap().next().expect("a spool").unwrap();
    let kept = kept.metadata().unwrap().len();
    assert!(kept > 30_000);
    fault(&cluster, NodeFault::Start(node));
    let all = vec![1, 2, 3, 4];
    cluster.until("the rest came", || cluster.settled() == Some((all.clone(), vec![])));
    let rest = fetched();
    let given: u64 = cluster.nodes.status().iter().map(|node| node.snapshots_given).sum();
    assert!(given == 1 && rest > 0, "one snapshot, {kept} bytes and then {rest}");
    let spools = || std::fs::read_dir(&spool).map_or(0, Iterator::count);
    cluster.until("the spool goes when the rows are there", || spools() == 0);
    transfer(&cluster, node);
    check(&cluster, 0..400);
}

#[test]
fn the_log_is_kept_for_a_snapshot_whoever_leads() {
    let dir = tempfile::tempdir().unwrap();
    // So slow that much is written meanwhile; and of the log hardly anything is kept.
    let mut options = NodeOptions { log_bytes: 1 << 20, snapshot_rate: 15_000, ..quick() };
    // What was held up until the rows were there is applied entry by entry, when nobody writes any more.
    options.paxos.hand_out_bytes = 0;
    let cluster = Cluster::with_spares(dir.path(), 3, 1, &options);
    fill(&cluster, 0..600);
    until_truncated(&cluster);
    let (partition, node) = (PARTITION, NodeId(4));
    cluster.order(Order::AddReplica { partition, node, log: false }).expect("it is added");
    let status = || cluster.nodes.status()[3].clone();
    cluster.until("some of it came", || status().snapshot_bytes > 0);
    let value = "x".repeat(20_000);
    let mut written = 0;
    for round in 0..2 {
        let heir =
            cluster.ids[..3].iter().copied().filter(|id| *id != leader(&cluster)).nth(round % 2);
        let heir = heir.expect("there are two");
        transfer(&cluster, heir);
        // The new leader hears of it before it has to let go.
        cluster.until("who fetches knows who leads", || {
            let replicas = status().replicas;
            let here = replicas.iter().find(|replica| replica.partition == PARTITION);
            here.is_some_and(|replica| replica.leader == Some(heir))
        });
        let before = status().snapshot_bytes;
        cluster.until("more of it came", || {
            status().snapshot_bytes > before + 8_000 || status().snapshots_installed > 0
        });
        for _ in 0..120 {
            cluster.run(&["SET", &format!("large:{written}"), &value]);
            written += 1;
        }
        flush(&cluster);
    }
    println!("snapshots installed before the last write: {}", status().snapshots_installed);
    cluster.until("it has all rows", || cluster.settled() == Some((vec![1, 2, 3, 4], vec![])));
    assert_eq!(status().snapshots_installed, 1, "it was not begun anew");
    transfer(&cluster, node);
    check(&cluster, 0..600);
    assert_eq!(cluster.get("large:7"), text(&value));
}

#[test]
fn a_catch_up_is_nobody_elses_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = NodeOptions { memtable_bytes: 64 << 20, ..quick() };
    // Nothing is sent from memory, and it takes many parts.
    (options.paxos.keep_bytes, options.paxos.catch_up_bytes) = (0, 4 << 10);
    let cluster = Cluster::open(dir.path(), 3, &options);
    fill(&cluster, 0..10);
    let away = if leader(&cluster) == NodeId(3) { NodeId(2) } else { NodeId(3) };
    fault(&cluster, NodeFault::Stop(away));
    fill(&cluster, 10..600);
    cluster.chosen_sent_by.lock().unwrap().clear();
    fault(&cluster, NodeFault::Start(away));
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    let threads = cluster.chosen_sent_by.lock().unwrap().clone();
    let parts: usize = threads.values().sum();
    assert!(parts > 20, "{threads:?}");
    assert!(threads.keys().all(|name| name.starts_with("catch-up-")), "{threads:?}");
}

#[test]
fn rows_that_were_there_before_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { log_bytes: 1 << 20, ..quick() };
    let cluster = Cluster::open(dir.path(), 3, &options);
    fill(&cluster, 0..200);
    flush(&cluster);
    let away = if leader(&cluster) == NodeId(3) { NodeId(2) } else { NodeId(3) };
    fault(&cluster, NodeFault::Stop(away));
    for i in 0..200 {
        cluster.run(&["DEL", &format!("key:{i}"), &format!("hash:{i}"), &format!("volatile:{i}")]);
    }
    for i in 0..200 {
        cluster.run(&["SET", "large", &"x".repeat(20_000 + i)]);
    }
    until_truncated(&cluster);
    fault(&cluster, NodeFault::Start(away));
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    assert_eq!(cluster.nodes.status()[away.0 as usize - 1].snapshots_installed, 1);
    transfer(&cluster, away);
    assert_eq!(cluster.run(&["DBSIZE"]), Reply::Integer(1));
    for i in 0..200 {
        assert_eq!(cluster.get(&format!("key:{i}")), Reply::Null, "key:{i}");
    }
    let keys = cluster.run(&["SCAN", "0", "COUNT", "1000"]);
    assert_eq!(keys, Reply::Array(vec![text("0"), Reply::Array(vec![text("large")])]));
}

/// Flips bytes of a file, every so many.
fn flip(path: &Path, from: usize, every: usize) -> usize {
    let mut bytes = std::fs::read(path).unwrap();
    let mut flipped = 0;
    for at in (from..bytes.len()).step_by(every).filter(|at| *at < from + 100 * every) {
        if bytes[at] != 0 {
            bytes[at] ^= 0x41;
            flipped += 1;
        }
    }
    std::fs::write(path, bytes).unwrap();
    flipped
}

#[test]
fn damaged_entries_are_repaired_by_peers() {
    let dir = tempfile::tempdir().unwrap();
    let never = NodeOptions { memtable_bytes: 64 << 20, ..quick() };
    let cluster = Cluster::open(dir.path(), 3, &never);
    fill(&cluster, 0..100);
    let damaged = leader(&cluster);
    fault(&cluster, NodeFault::Stop(damaged));
    fill(&cluster, 100..110);
    for at in [1_000, 20_000, 30_000] {
        fault(&cluster, NodeFault::Corrupt(damaged, Stored::Log, at));
    }
    fault(&cluster, NodeFault::Start(damaged));
    let status = || cluster.nodes.status()[damaged.0 as usize - 1].clone();
    assert!(status().damaged_entries > 0, "nothing that counts was damaged");
    cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    transfer(&cluster, damaged);
    check(&cluster, 0..110);
    // It is on disk again: another start finds nothing wrong.
    flush(&cluster);
    fault(&cluster, NodeFault::Stop(damaged));
    fault(&cluster, NodeFault::Start(damaged));
    assert_eq!(status().damaged_entries, 0);
}

#[test]
fn a_log_that_lost_what_it_cannot_name_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &quick());
    fill(&cluster, 0..200);
    let damaged = leader(&cluster);
    fault(&cluster, NodeFault::Stop(damaged));
    let log = dir.path().join(format!("node-{damaged}")).join("log");
    for file in std::fs::read_dir(&log).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("wal-") && name.ends_with(".seg") {
            // Both copies of the header.
            flip(&path, 0, 1 << 30);
            flip(&path, 4096, 1 << 30);
        }
        if name.ends_with(".idx") {
            std::fs::remove_file(path).unwrap();
        }
    }
    fault(&cluster, NodeFault::Start(damaged));
    cluster.until("it has its rows again", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
    transfer(&cluster, damaged);
    check(&cluster, 0..200);
    assert!(log.with_extension("damaged").exists(), "put aside for a person to look at");
}

#[test]
fn damaged_rows_are_never_served_and_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions { rows: storage::RowBudget::new(1 << 10), ..quick() };
    let mut options = NodeOptions { lsm: Default::default(), ..options };
    options.lsm.cache_bytes = 1 << 10;
    let cluster = Cluster::open(dir.path(), 3, &options);
    fill(&cluster, 0..400);
    flush(&cluster);
    let damaged = leader(&cluster);
    let tables = dir.path().join(format!("node-{damaged}/lsm/keyspaces"));
    let mut flipped = 0;
    for keyspace in std::fs::read_dir(&tables).unwrap() {
        let Ok(files) = std::fs::read_dir(keyspace.unwrap().path().join("tables")) else {
            continue;
        };
        for file in files {
            flipped += flip(&file.unwrap().path(), 50, 400);
        }
    }
    assert!(flipped > 0);
    // The damaged leader is asked: what it answers is right, or somebody else does.
    check(&cluster, 0..400);
    let status = || cluster.nodes.status()[damaged.0 as usize - 1].clone();
    cluster.until("it has its rows again", || {
        let fresh = status().snapshots_installed > 0 && !status().rows_damaged;
        fresh && cluster.settled() == Some((vec![1, 2, 3], vec![]))
    });
    transfer(&cluster, damaged);
    check(&cluster, 0..400);
}

#[test]
fn a_new_leader_lets_nobody_go_while_another_may() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &quick());
    fill(&cluster, 0..20);
    // Asked on behalf of nodes whose rows are sound, so that nobody goes.
    let ask = |node: NodeId| {
        let mut body = vec![1, MAY_DROP];
        body.extend(node.0.to_be_bytes());
        body.extend(0u64.to_be_bytes());
        let to = leader(&cluster);
        let frame = Frame::new(Kind::Replica, node, to, body.into()).for_group(PARTITION);
        cluster.transport.send(to, frame);
        cluster.last_told(DROP, node).is_some()
    };
    let first = leader(&cluster);
    let mut others = cluster.ids.iter().copied().filter(|id| *id != first);
    let (goes, next) = (others.next().unwrap(), others.next().unwrap());
    cluster.until("one may go", || ask(goes));
    let may_go_since = Instant::now();
    assert!(!ask(next), "nor may another at the same leader");
    transfer(&cluster, next);
    cluster.until("another may go", || ask(first));
    let between = may_go_since.elapsed();
    assert!(between > Duration::from_secs(3), "both could have gone, {between:?} apart");
}

#[test]
fn a_disk_that_refuses_stops_the_node_and_the_others_go_on() {
    for disk in [DiskFault::Error, DiskFault::Full] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::open(dir.path(), 3, &quick());
        fill(&cluster, 0..50);
        let broken = leader(&cluster);
        fault(&cluster, NodeFault::Disk(broken, disk));
        // The write that meets it has no known outcome.
        cluster.evaluate(&["SET", "meets", "it"]);
        cluster.until("the node stops", || {
            !cluster.nodes.node(broken).expect("still in its seat").is_running()
        });
        fill(&cluster, 50..100);
        fault(&cluster, NodeFault::Disk(broken, DiskFault::None));
        fault(&cluster, NodeFault::Start(broken));
        cluster.until("it catches up", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
        check(&cluster, 0..100);
    }
}

#[test]
fn a_panic_stops_one_node_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    fill(&cluster, 0..50);
    for round in 1..3 {
        let broken = leader(&cluster);
        fault(&cluster, NodeFault::Panic(broken));
        cluster.until("it stops", || {
            // Whatever is done at this node comes by; what it answers has no known outcome.
            cluster.evaluate_at(broken, &["SET", "meets", "it"]);
            cluster.nodes.node(broken).is_some_and(|node| node.panicked() && !node.is_running())
        });
        let others = cluster.ids.iter().filter(|id| **id != broken);
        for other in others {
            assert!(cluster.nodes.node(*other).expect("a node").is_running(), "node {other}");
        }
        fill(&cluster, 50 * round..50 * (round + 1));
        cluster.until("it is back", || {
            let runs = cluster.nodes.node(broken).is_some_and(|node| node.is_running());
            runs && cluster.settled() == Some((vec![1, 2, 3], vec![]))
        });
        transfer(&cluster, broken);
        check(&cluster, 0..50 * (round + 1));
    }
}

#[test]
fn a_paused_leader_answers_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    cluster.run(&["SET", "k", "old"]);
    let paused = leader(&cluster);
    fault(&cluster, NodeFault::Pause(paused));
    let held = std::thread::scope(|scope| {
        // It believes in its lease when it is asked, and stands still before it answers.
        let held = scope.spawn(|| cluster.evaluate_at(paused, &["GET", "k"]));
        cluster.until("another one leads", || leader_but(&cluster, paused).is_some());
        *cluster.leader.lock().unwrap() = leader_but(&cluster, paused).unwrap();
        cluster.run(&["SET", "k", "new"]);
        fault(&cluster, NodeFault::Resume(paused));
        held.join().unwrap()
    });
    assert_eq!(held.map(|(reply, _)| reply), None);
    *cluster.leader.lock().unwrap() = paused;
    for _ in 0..100 {
        if let Some((reply, _)) = cluster.evaluate(&["GET", "k"]) {
            assert_eq!(reply, text("new"));
        }
    }
    cluster.until("it goes on", || cluster.settled() == Some((vec![1, 2, 3], vec![])));
}

fn leader_but(cluster: &Cluster, paused: NodeId) -> Option<NodeId> {
    let leads = |id: &&NodeId| {
        **id != paused && cluster.nodes.node(**id).is_some_and(|node| node.leads(PARTITION))
    };
    cluster.ids.iter().find(leads).copied()
}

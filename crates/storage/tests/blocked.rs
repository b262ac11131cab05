//! Calls that wait for data at real nodes: whose turn it is, what is handed over and to whom.

mod cluster;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{Cluster, PATIENCE, StopsOnDrop, call, command_of, long_lease, small, text};
use storage::NodeOptions;
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{Answer, NodeFault, Served, StorageService, Waiting};

fn line(words: &str) -> Vec<Bytes> {
    words.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn try_call(cluster: &Cluster, node: NodeId, words: &str, since: Instant) -> Answer {
    let args = line(words);
    cluster.nodes.call(node, call(command_of(&args), &args, Some(since)))
}

/// Calls until the leader, whoever it is by then, keeps the call.
fn in_line_since(cluster: &Cluster, words: &str, since: Instant) -> Box<Waiting> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for node in &cluster.ids {
            match try_call(cluster, *node, words, since) {
                Answer::Waits(waiting) => {
                    *cluster.leader.lock().unwrap() = *node;
                    return waiting;
                }
                Answer::Done { reply, .. } => panic!("{words} was answered {reply:?}"),
                _ => std::thread::yield_now(),
            }
        }
    }
    panic!("{words} is kept by nobody")
}

fn in_line(cluster: &Cluster, words: &str) -> Box<Waiting> {
    in_line_since(cluster, words, Instant::now())
}

/// What a call that waits has been answered by now.
fn look(waiting: &mut Waiting) -> Poll<Option<Served>> {
    waiting.served.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Its answer.
fn served(waiting: &mut Waiting) -> Reply {
    match look(waiting) {
        Poll::Ready(Some(served)) => served.reply,
        other => panic!("not served: {other:?}"),
    }
}

fn still_waits(waiting: &mut Waiting) -> bool {
    look(waiting).is_pending()
}

fn popped(key: &str, element: &str) -> Reply {
    Reply::Array(vec![text(key), text(element)])
}

fn awaited_keys(cluster: &Cluster) -> (u64, u64) {
    let nodes = cluster.nodes.status();
    let replicas = nodes.iter().flat_map(|node| &node.replicas);
    replicas.fold((0, 0), |sum, replica| {
        (sum.0 + replica.awaited_keys, sum.1 + replica.awaited_keys_or_gone)
    })
}

/// One whose leader stays, however slow the machine is: another would send callers away.
fn new_cluster() -> (tempfile::TempDir, Cluster) {
    new_cluster_with(&long_lease())
}

fn new_cluster_with(options: &NodeOptions) -> (tempfile::TempDir, Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, options);
    cluster.run(&["SET", "first", "write"]);
    (dir, cluster)
}

#[test]
fn who_waits_longest_is_served_first_and_each_element_once() {
    let (_dir, cluster) = new_cluster();
    let mut waiting: Vec<_> = (0..5).map(|_| in_line(&cluster, "BLPOP k other 0")).collect();
    assert_eq!(awaited_keys(&cluster), (2, 0));
    cluster.run(&["RPUSH", "k", "a", "b"]);
    assert_eq!(served(&mut waiting[0]), popped("k", "a"));
    assert_eq!(served(&mut waiting[1]), popped("k", "b"));
    assert!(waiting[2..].iter_mut().all(|waiting| still_waits(waiting)));
    // A transaction serves when all of it is done: the key that stands first in the line is taken.
    cluster.exec(&[], &[&["RPUSH", "other", "x"], &["RPUSH", "k", "c"], &["RPUSH", "k", "d"]]);
    assert_eq!(served(&mut waiting[2]), popped("k", "c"));
    assert_eq!(served(&mut waiting[3]), popped("k", "d"));
    assert_eq!(served(&mut waiting[4]), popped("other", "x"));
    assert_eq!(awaited_keys(&cluster), (0, 0));
    assert_eq!(cluster.run(&["EXISTS", "k", "other"]), Reply::Integer(0));
    // What is gone by the end of the transaction was never there.
    let mut late = in_line(&cluster, "BLPOP k 0");
    cluster.exec(&[], &[&["RPUSH", "k", "e"], &["DEL", "k"]]);
    cluster.exec(&[], &[&["RPUSH", "k", "e"], &["DEL", "k"], &["SET", "k", "text"]]);
    assert!(still_waits(&mut late));
    cluster.run(&["DEL", "k"]);
    cluster.run(&["LPUSH", "k", "f"]);
    assert_eq!(served(&mut late), popped("k", "f"));
}

#[test]
fn elements_moved_on_serve_those_who_wait_for_them() {
    let (_dir, cluster) = new_cluster();
    let mut first = in_line(&cluster, "BLMOVE a b LEFT RIGHT 0");
    let mut second = in_line(&cluster, "BRPOPLPUSH b c 0");
    let mut third = in_line(&cluster, "BLMPOP 0 2 nosuch c LEFT");
    // In a circle, an element comes to rest where nobody waits.
    let mut fourth = in_line(&cluster, "BLMOVE a a LEFT RIGHT 0");
    cluster.run(&["RPUSH", "a", "1", "2"]);
    assert_eq!(served(&mut first), text("1"));
    assert_eq!(served(&mut second), text("1"));
    assert_eq!(served(&mut third), Reply::Array(vec![text("c"), Reply::Array(vec![text("1")])]));
    assert_eq!(served(&mut fourth), text("2"));
    assert_eq!(cluster.run(&["LRANGE", "a", "0", "-1"]), Reply::Array(vec![text("2")]));
    assert_eq!(cluster.run(&["EXISTS", "b", "c"]), Reply::Integer(0));
    // The target's type is looked at when there is something to move; the element stays.
    cluster.run(&["SET", "s", "text"]);
    let mut refused = in_line(&cluster, "BLMOVE from s LEFT RIGHT 0");
    cluster.run(&["RPUSH", "from", "1"]);
    assert!(matches!(served(&mut refused), Reply::Error(line) if line.starts_with(b"WRONGTYPE")));
    assert_eq!(cluster.run(&["LLEN", "from"]), Reply::Integer(1));
}

#[test]
fn who_wants_many_elements_waits_until_there_are_enough() {
    let (_dir, cluster) = new_cluster();
    let mut exact = in_line(&cluster, "BLMOVEM k to LEFT RIGHT 0 EXACTLY 3 BULK");
    let mut several = in_line(&cluster, "BLMOVEM k to RIGHT LEFT 0 COUNT 3 OBO");
    // Too few for the first: the second, who takes what there is, is served before it.
    cluster.run(&["RPUSH", "k", "1", "2"]);
    assert!(still_waits(&mut exact));
    assert_eq!(served(&mut several), Reply::Array(vec![text("1"), text("2")]));
    cluster.run(&["RPUSH", "k", "3", "4"]);
    assert!(still_waits(&mut exact));
    cluster.run(&["RPUSH", "k", "5", "6"]);
    assert_eq!(served(&mut exact), Reply::Array(vec![text("3"), text("4"), text("5")]));
    let all = ["1", "2", "3", "4", "5"].map(text).to_vec();
    assert_eq!(cluster.run(&["LRANGE", "to", "0", "-1"]), Reply::Array(all));
    assert_eq!(cluster.run(&["LRANGE", "k", "0", "-1"]), Reply::Array(vec![text("6")]));
}

#[test]
fn any_way_of_coming_into_being_serves_and_other_kinds_do_not() {
    let (_dir, cluster) = new_cluster();
    let makers: [(&str, &[&[&str]]); 6] = [
        ("BLPOP k 0", &[&["RPUSH", "src", "v"], &["RENAME", "src", "k"]]),
        ("BLPOP k 0", &[&["RPUSH", "src", "v"], &["COPY", "src", "k"], &["DEL", "src"]]),
        ("BLPOP k 0", &[&["SADD", "set", "v"], &["SORT", "set", "ALPHA", "STORE", "k"]]),
        ("BRPOP k 0", &[&["RPUSH", "src", "v"], &["LMOVE", "src", "k", "LEFT", "LEFT"]]),
        ("BZPOPMIN k 0", &[&["ZADD", "src", "1", "v"], &["ZUNIONSTORE", "k", "1", "src"]]),
        ("BZPOPMAX k 0", &[&["GEOADD", "k", "0", "0", "v"]]),
    ];
    for (waits, makers) in makers {
        let mut waiting = in_line(&cluster, waits);
        for other in [&["SET", "k", "1"][..], &["APPEND", "k", "1"], &["DEL", "k"]] {
            cluster.run(other);
        }
        cluster.run(&["HSET", "k", "f", "v"]);
        cluster.run(&["DEL", "k"]);
        assert!(still_waits(&mut waiting), "{waits}");
        makers.iter().for_each(|words| drop(cluster.run(words)));
        let Reply::Array(reply) = served(&mut waiting) else { panic!("{waits}") };
        assert_eq!(reply[..2], [text("k"), text("v")], "{makers:?}");
        assert_eq!(cluster.run(&["EXISTS", "k"]), Reply::Integer(0));
    }
    // One kind does not stand in the other's way.
    let mut list = in_line(&cluster, "BLPOP k 0");
    let mut sorted = in_line(&cluster, "BZPOPMIN k 0");
    cluster.run(&["ZADD", "k", "1", "v"]);
    assert!(still_waits(&mut list));
    assert!(matches!(served(&mut sorted), Reply::Array(_)));
    cluster.run(&["RPUSH", "k", "v"]);
    assert_eq!(served(&mut list), popped("k", "v"));
}

#[test]
fn streams_serve_all_who_read_and_one_of_a_group() {
    let (_dir, cluster) = new_cluster();
    cluster.run(&["XADD", "s", "5-0", "f", "old"]);
    cluster.run(&["XGROUP", "CREATE", "s", "g", "$"]);
    let mut readers: Vec<_> =
        (0..3).map(|_| in_line(&cluster, "XREAD BLOCK 0 STREAMS s t s $ 0 7-0")).collect();
    assert_eq!(readers[0].args[..], line("XREAD BLOCK 0 STREAMS s t s 5-0 0 7-0"));
    let of_group = |consumer: &str| format!("XREADGROUP GROUP g {consumer} BLOCK 0 STREAMS s >");
    let mut group: Vec<_> =
        ["a", "b", "c"].iter().map(|name| in_line(&cluster, &of_group(name))).collect();
    assert_eq!(awaited_keys(&cluster), (2, 1));
    // A consumer is made although it waits.
    let Reply::Array(consumers) = cluster.run(&["XINFO", "CONSUMERS", "s", "g"]) else { panic!() };
    assert_eq!(consumers.len(), 3);
    cluster.run(&["XADD", "s", "6-0", "f", "new"]);
    for reader in &mut readers {
        let Reply::Keyed(streams) = served(reader) else { panic!("entries") };
        assert_eq!(streams.len(), 1, "{streams:?}");
    }
    assert!(matches!(served(&mut group[0]), Reply::Keyed(_)));
    assert!(still_waits(&mut group[1]) && still_waits(&mut group[2]));
    // Other writes of the stream change nothing for those in line; its end does.
    cluster.run(&["XACK", "s", "g", "6-0"]);
    cluster.run(&["XTRIM", "s", "MAXLEN", "0"]);
    assert!(still_waits(&mut group[1]));
    cluster.run(&["XGROUP", "DESTROY", "s", "g"]);
    for waiting in &mut group[1..] {
        assert!(matches!(served(waiting), Reply::Error(line) if line.starts_with(b"NOGROUP")));
    }
    for (end, prefix) in [
        (&["DEL", "s"][..], &b"NOGROUP"[..]),
        (&["FLUSHDB"], b"NOGROUP"),
        (&["SET", "s", "text"], b"WRONGTYPE"),
        (&["RENAME", "other", "s"], b"WRONGTYPE"),
        (&["RENAME", "s", "away"], b"NOGROUP"),
        (&["PEXPIREAT", "s", "1"], b"NOGROUP"),
    ] {
        cluster.run(&["DEL", "s"]);
        cluster.run(&["RPUSH", "other", "x"]);
        cluster.run(&["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"]);
        let mut waiting = in_line(&cluster, &of_group("a"));
        let mut reader = in_line(&cluster, "XREAD BLOCK 0 STREAMS s $");
        cluster.run(end);
        let reply = served(&mut waiting);
        assert!(matches!(&reply, Reply::Error(line) if line.starts_with(prefix)), "{end:?}");
        assert!(still_waits(&mut reader), "{end:?}");
    }
}

#[test]
fn who_gives_up_first_gets_nothing_and_the_next_is_served() {
    let (_dir, cluster) = new_cluster();
    let mut gone = in_line(&cluster, "BLPOP k 0");
    let dropped = in_line(&cluster, "BLPOP k 0");
    let mut next = in_line(&cluster, "BLPOP k 0");
    assert!(gone.claim.take());
    drop(dropped);
    cluster.run(&["RPUSH", "k", "v"]);
    assert!(matches!(look(&mut gone), Poll::Ready(None)), "nobody serves what was given up");
    assert_eq!(served(&mut next), popped("k", "v"));
    assert!(!next.claim.take(), "the leader took it");
    // A line without anybody is no line.
    let waiting: Vec<_> = (0..3).map(|_| in_line(&cluster, "BLPOP k j 0")).collect();
    assert_eq!(awaited_keys(&cluster), (2, 0));
    drop(waiting);
    assert_eq!(awaited_keys(&cluster), (0, 0));
    cluster.run(&["RPUSH", "k", "v"]);
    assert_eq!(cluster.run(&["LLEN", "k"]), Reply::Integer(1));
}

#[test]
fn a_call_that_cannot_wait_is_answered_as_if_its_time_were_up() {
    let (_dir, cluster) = new_cluster();
    assert_eq!(cluster.run(&["BLPOP", "k", "0"]), Reply::NullArray);
    assert_eq!(cluster.run(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]), Reply::NullArray);
    let replies =
        cluster.exec(&[], &[&["BLPOP", "k", "0"], &["BLMOVE", "a", "b", "LEFT", "LEFT", "0"]]);
    assert_eq!(replies, Reply::Array(vec![Reply::NullArray, Reply::Null]));
    // One that does not wait at all is answered, too.
    let leader = *cluster.leader.lock().unwrap();
    let answer = try_call(&cluster, leader, "XREAD STREAMS s 0", Instant::now());
    assert!(matches!(answer, Answer::Done { reply: Reply::NullArray, .. }));
    assert_eq!(awaited_keys(&cluster), (0, 0));
}

#[test]
fn a_change_of_leaders_sends_callers_away_and_they_come_back_in_their_order() {
    let (_dir, cluster) = new_cluster_with(&small());
    let mut waiting: Vec<_> = (0..3).map(|_| in_line(&cluster, "BLPOP k 0")).collect();
    let leader = *cluster.leader.lock().unwrap();
    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
    for waiting in &mut waiting {
        assert!(matches!(look(waiting), Poll::Ready(None)));
        assert!(waiting.claim.take(), "nobody was served");
    }
    // They come in another order, and one is new.
    let early = Instant::now() - Duration::from_secs(60);
    let mut new = in_line(&cluster, "BLPOP k 0");
    let mut second = in_line_since(&cluster, "BLPOP k 0", early + Duration::from_millis(100));
    let mut first = in_line_since(&cluster, "BLPOP k 0", early);
    cluster.run(&["RPUSH", "k", "a", "b", "c"]);
    assert_eq!(served(&mut first), popped("k", "a"));
    assert_eq!(served(&mut second), popped("k", "b"));
    assert_eq!(served(&mut new), popped("k", "c"));
    // A node that stops keeps nobody, from the moment that it is told.
    let mut last = in_line(&cluster, "BLPOP k 0");
    let leader = *cluster.leader.lock().unwrap();
    cluster.nodes.node(leader).expect("it runs").request_stop();
    assert!(matches!(look(&mut last), Poll::Ready(None)));
    assert!(!matches!(try_call(&cluster, leader, "BLPOP k 0", Instant::now()), Answer::Waits(_)));
}

/// Consumers that give up again and again race with producers for the claims: what is pushed arrives
/// once, at a consumer that had not given up, or is still there.
#[test]
fn every_element_arrives_once_whoever_gives_up() {
    const ELEMENTS: usize = 1_000;
    const CONSUMERS: usize = 4;
    let (_dir, cluster) = new_cluster();
    let done = AtomicBool::new(false);
    let (cluster, done) = (&cluster, &done);
    let consume = |consumer: usize| {
        let mut got = Vec::new();
        let mut turn = consumer;
        let leader = *cluster.leader.lock().unwrap();
        while !done.load(Relaxed) {
            let reply = match try_call(cluster, leader, "BLPOP k 0", Instant::now()) {
                Answer::Done { reply, .. } => reply,
                Answer::Waits(mut waiting) => {
                    turn += 1;
                    // Sometimes at once, sometimes after a moment.
                    for _ in 0..turn % 7 * 30 {
                        std::hint::spin_loop();
                    }
                    if waiting.claim.take() {
                        continue;
                    }
                    // The leader has taken it and answers.
                    let deadline = Instant::now() + PATIENCE;
                    loop {
                        match look(&mut waiting) {
                            Poll::Ready(Some(served)) => break served.reply,
                            Poll::Ready(None) => panic!("claimed and not served"),
                            Poll::Pending => assert!(Instant::now() < deadline, "not answered"),
                        }
                    }
                }
                // A batch is full, or a heartbeat came late on a busy machine.
                Answer::Busy(_) | Answer::NotYet => {
                    std::thread::yield_now();
                    continue;
                }
                _ => panic!("nobody else leads"),
            };
            let Reply::Array(reply) = reply else { panic!("{reply:?}") };
            let Reply::Bulk(element) = &reply[1] else { panic!("{reply:?}") };
            got.push(element.clone());
        }
        got
    };
    let mut all: Vec<Bytes> = std::thread::scope(|scope| {
        let _ends = StopsOnDrop(done);
        let consumers: Vec<_> =
            (0..CONSUMERS).map(|consumer| scope.spawn(move || consume(consumer))).collect();
        for element in 0..ELEMENTS {
            cluster.run(&["RPUSH", "k", &element.to_string()]);
        }
        done.store(true, Relaxed);
        consumers.into_iter().flat_map(|consumer| consumer.join().expect("no panic")).collect()
    });
    let Reply::Array(left) = cluster.run(&["LRANGE", "k", "0", "-1"]) else { panic!("a list") };
    all.extend(left.into_iter().filter_map(|left| match left {
        Reply::Bulk(element) => Some(element),
        _ => None,
    }));
    assert_eq!(all.len(), ELEMENTS);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), ELEMENTS);
    assert_eq!(awaited_keys(cluster), (0, 0));
}

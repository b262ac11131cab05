//! Pipelines of calls that write to one key: what comes of them is what comes of one call after the other.

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, PATIENCE, call, command_of, small};
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{Evaluated, Gate, GateOutcome, NodeFault, Request, RequestId, StorageService};

fn leader(cluster: &Cluster) -> NodeId {
    *cluster.leader.lock().unwrap()
}

fn request(sequence: u64, again: Option<u64>) -> Request {
    Request { id: RequestId { router: 7, connection: 1, sequence }, again }
}

/// Has the leader make these calls in one go, by names that begin with a number: all must be done.
fn pipeline(cluster: &Cluster, lines: &[String], first: u64) -> Vec<(Reply, Option<Gate>)> {
    let split = |line: &String| line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
    let lines: Vec<Vec<Bytes>> = lines.iter().map(split).collect();
    let calls = lines.iter().zip(first..).map(|(args, sequence)| {
        let request = Some(request(sequence, None));
        wire::service::Call { request, ..call(command_of(args), args, None) }
    });
    let calls: Vec<_> = calls.collect();
    let mut done = Vec::new();
    while done.len() < calls.len() {
        let stopped = cluster.nodes.call_all(leader(cluster), &calls[done.len()..], &mut done);
        assert!(stopped.is_none(), "nothing is in the way");
    }
    done.into_iter().map(|Evaluated { reply, gate, .. }| (reply, gate)).collect()
}

/// Writes to one key, refused ones among them.
fn lines(key: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for round in 0..40 {
        lines.push(format!("RPUSH {key} a{round} b{round}"));
        lines.push(format!("LPUSH {key} c{round}"));
        lines.push(format!("LPOP {key}"));
        match round % 8 {
            3 => lines.push(format!("INCR {key}")),
            5 => lines.push(format!("LSET {key} 100000 x")),
            6 => lines.push(format!("LREM {key} 0 nothing")),
            7 => lines.extend([format!("DEL {key}"), format!("LPOP {key}")]),
            _ => lines.push(format!("RPOP {key} 2")),
        }
    }
    lines.push(format!("RPUSH {key} last"));
    for member in 0..200 {
        lines.push(format!("ZADD {key}:sorted {} m{}", member * 7 % 31, member % 90));
        lines.push(format!("ZADD {key}:sorted NX 5 m{}", member % 120));
        lines.push(format!("SADD {key}:set m{}", member % 120));
        lines.push(format!("SPOP {key}:empty"));
        let trim = if member % 30 == 29 { "MAXLEN 90 " } else { "" };
        lines.push(format!(
            "XADD {key}:stream {trim}{}-{} f m{member}",
            member / 9,
            member % 9 + 1
        ));
    }
    // Runs of one command, longer than a pipeline, and more pops than there are elements.
    for (push, pop, few) in [("LPUSH", "RPOP", 90), ("RPUSH", "LPOP", 5), ("LPUSH", "LPOP", 200)] {
        let element = |n: usize| "long".repeat(n % 40);
        lines.extend((0..few).map(|n| format!("{push} {key}:queue {n} {}", element(n))));
        lines.extend((0..few).map(|_| format!("{pop} {key}:queue")));
        lines.push(format!("{pop} {key}:queue 3"));
        lines.push(format!("{push} {key}:queue left over"));
        lines.extend((0..few + 10).map(|_| format!("{pop} {key}:queue")));
    }
    lines.push(format!("LPUSH {key}:queue last"));
    lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
    lines
}

const LOOKS: [&[&str]; 6] = [
    &["LRANGE", "own", "0", "-1"],
    &["ZRANGE", "own:sorted", "0", "-1", "WITHSCORES"],
    &["SCARD", "own:set"],
    &["XRANGE", "own:stream", "-", "+"],
    &["LRANGE", "own:queue", "0", "-1"],
    &["DBSIZE"],
];

fn looks(cluster: &Cluster) -> Vec<Reply> {
    LOOKS.iter().map(|look| cluster.run(look)).collect()
}

#[test]
fn they_are_answered_as_one_after_the_other() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let together = Cluster::open(one.path(), 3, &small());
    let apart = Cluster::open(other.path(), 3, &small());
    together.run(&["SET", "first", "there is a leader"]);
    apart.run(&["SET", "first", "there is a leader"]);
    let (mut sequence, lines) = (1, lines("own"));
    let mut gate = None;
    for lines in lines.chunks(60) {
        let done = pipeline(&together, lines, sequence);
        sequence += lines.len() as u64;
        for (line, (reply, behind)) in lines.iter().zip(done) {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(reply.unfold(), apart.run(&words), "{line}");
            gate = behind.or(gate);
        }
    }
    let outcome = together.wait(gate.expect("most write")).recv_timeout(PATIENCE);
    assert_eq!(outcome, Ok(GateOutcome::Durable));
    let changes = |cluster: &Cluster| {
        let status = cluster.nodes.status();
        status.iter().flat_map(|node| &node.replicas).map(|replica| replica.changes).sum::<u64>()
    };
    assert_eq!(changes(&together), changes(&apart), "each that wrote is counted");
    let expected = looks(&apart);
    assert_eq!(looks(&together), expected);
    // At another leader it is what the log says.
    let first = leader(&together);
    together.nodes.fault(NodeFault::Stop(first)).expect("it runs");
    assert_eq!(looks(&together), expected);
    assert_ne!(leader(&together), first);
}

#[test]
fn each_of_them_is_known_when_it_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 3, &small());
    cluster.run(&["SET", "first", "there is a leader"]);
    // Every fourth finds nothing to change, and the one behind it is no member of a row of numbers.
    let lines: Vec<String> = (0..48).map(|n| format!("SADD set m{}", n - n % 4 / 3)).collect();
    let done = pipeline(&cluster, &lines, 1);
    let gate = done[0].1.expect("a write has a gate");
    assert_eq!(cluster.wait(gate).recv_timeout(PATIENCE), Ok(GateOutcome::Durable));
    let again = || {
        for (line, ((reply, gate), sequence)) in lines.iter().zip(done.iter().zip(1..)) {
            let words: Vec<&str> = line.split(' ').collect();
            let from = gate.expect("all wait for the same").index;
            let (found, _) = cluster.ask(&words, request(sequence, Some(from)));
            assert_eq!(found.as_ref(), Some(reply), "{line}");
        }
        assert_eq!(cluster.run(&["SCARD", "set"]), Reply::Integer(36));
    };
    again();
    cluster.nodes.fault(NodeFault::Stop(leader(&cluster))).expect("it runs");
    again();
}

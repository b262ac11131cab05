//! kill -9 in the middle of writes: every acknowledged write is there after the restart, whole.
//!
//! (A killed process leaves the page cache behind, so this shows the recovery, not the fsync.)

use std::time::{Duration, Instant};

use anyhow::Result;
use compat_tests::admin::records;
use compat_tests::calm;
use compat_tests::load::{Load, Writer};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};
use compat_tests::rng::Rng;

const CYCLES: usize = 20;
const WRITERS: usize = 3;
/// A cycle's load lasts so long at least, and up to this long more.
const LOAD_MS_MIN: u64 = 200;
const LOAD_MS_SPREAD: usize = 600;
/// The promise on a restart.
const FIRST_REPLY_WITHIN: Duration = Duration::from_secs(3);
/// Keys of the large restart. An unoptimised build gets a tenth: it shows the path, not the time.
const PRELOAD_KEYS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const PRELOAD_BATCH: usize = 1_000;

/// Launches a killed server, within the time that is promised; how long it took to the first reply and
/// what is done then.
fn restart(server: &mut Server, mut then: impl FnMut(&Server) -> Result<()>) -> Result<Duration> {
    let dir = server.dir().to_owned();
    calm::within("a restart", FIRST_REPLY_WITHIN, &dir, || {
        if server.pid() != 0 {
            server.kill()?;
        }
        let first_reply = server.launch()?;
        let began = Instant::now();
        then(server)?;
        Ok(first_reply + began.elapsed())
    })
}

#[test]
fn nothing_acknowledged_is_lost_in_twenty_kills() {
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut rng = Rng::new(7);
    let mut restarts = Vec::new();
    for cycle in 0..CYCLES {
        let load = Load::start(server.port(), writers);
        wait_until("the load runs", Duration::from_secs(30), || Ok(load.acknowledged() > 0))
            .unwrap();
        // When the kill comes is the point of the cycle, and is left to chance.
        let load_ms = LOAD_MS_MIN + rng.below(LOAD_MS_SPREAD) as u64;
        std::thread::sleep(Duration::from_millis(load_ms));
        server.kill().expect("kill");
        writers = load.stop().expect("load");
        let restart = restart(&mut server, |_| Ok(())).expect("restart");
        let mut client = server.client().expect("connect");
        for writer in &mut writers {
            writer.verify(&mut client).unwrap_or_else(|error| panic!("cycle {cycle}: {error:#}"));
        }
        restarts.push(restart);
    }
    let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    restarts.sort();
    let (median, longest) = (restarts[CYCLES / 2], restarts[CYCLES - 1]);
    println!("{acknowledged} writes acknowledged over {CYCLES} kills, 0 lost");
    println!("restart to first reply: median {median:?}, longest {longest:?}");
    assert!(acknowledged > 1_000, "too little load to mean anything");
    server.stop().expect("stop");
}

#[test]
fn a_million_keys_come_back_in_three_seconds() {
    let keys = std::env::var("EVENKEEL_PRELOAD_KEYS")
        .map_or(PRELOAD_KEYS, |count| count.parse().expect("EVENKEEL_PRELOAD_KEYS is a number"));
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().expect("connect");
    let filler = "v".repeat(100);
    for first in (0..keys).step_by(PRELOAD_BATCH) {
        let count = PRELOAD_BATCH.min(keys - first);
        let mut bytes = Vec::new();
        for at in first..first + count {
            encode(&["SET", &format!("key:{at:012}"), &format!("{at}:{filler}")], &mut bytes);
        }
        client.send_raw(&bytes).expect("send");
        for _ in 0..count {
            let reply = client.read().expect("read").expect("a reply");
            assert_eq!(reply.value, Value::Simple(b"OK".to_vec()));
        }
    }
    server.kill().expect("kill");
    let mut rng = Rng::new(1);
    let mut read_one = |client: &mut Client| -> Result<()> {
        let at = rng.below(keys);
        let reply = client.line(&format!("GET key:{at:012}"))?;
        assert_eq!(reply, Value::Bulk(format!("{at}:{filler}").into_bytes()));
        Ok(())
    };
    let first_read = restart(&mut server, |server| read_one(&mut server.client()?));
    let first_read = first_read.expect("restart");
    let mut client = server.client().expect("connect");
    (1..1_000.min(keys)).for_each(|_| read_one(&mut client).expect("GET"));
    assert_eq!(client.line("SET after yes").expect("SET"), Value::Simple(b"OK".to_vec()));
    assert_eq!(client.line("DBSIZE").expect("DBSIZE"), Value::Int(keys as i64 + 1));
    println!("{keys} keys: first key {first_read:?} after the restart");
    server.stop().expect("stop");
}

#[test]
fn a_clean_stop_keeps_everything_too() {
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let load = Load::start(server.port(), vec![Writer::new(0)]);
    wait_until("a load", Duration::from_secs(30), || Ok(load.acknowledged() > 5_000)).unwrap();
    server.stop().expect("stop by SIGTERM");
    let mut writers = load.stop().expect("load");
    server.launch().expect("restart");
    let mut client = server.client().expect("connect");
    writers[0].verify(&mut client).expect("nothing lost");
    server.stop().expect("stop");
}

/// Entries that each node's log got since the node was opened.
fn logged(client: &mut Client) -> Vec<u64> {
    let nodes = records(&client.line("ADMIN STATUS").expect("ADMIN STATUS")).expect("records");
    nodes.iter().map(|node| node["wal_entries"].parse().expect("a number")).collect()
}

#[test]
fn what_debug_reload_opens_anew_holds_everything() {
    const WRITES: u64 = 200;
    let options = Options {
        extra: ["--enable-debug-command", "yes"].map(String::from).to_vec(),
        ..Options::evenkeel()
    };
    let mut server = Server::start(options).expect("start");
    let mut client = server.client().expect("connect");
    for at in 0..WRITES {
        client.line(&format!("RPUSH list{} {at}", at % 5)).expect("write");
    }
    client.line("SET fleeting v PX 50000").expect("write");
    let before = logged(&mut client);
    assert!(before.iter().filter(|entries| **entries >= WRITES).count() >= 2, "{before:?}");
    assert_eq!(client.line("DEBUG RELOAD").expect("reload"), Value::Simple(b"OK".to_vec()));
    let after = logged(&mut client);
    assert!(after.iter().all(|entries| *entries < WRITES), "{after:?}");
    for list in 0..5 {
        let elements = client.line(&format!("LRANGE list{list} 0 -1")).expect("read");
        let expected: Vec<_> = (list..WRITES).step_by(5).map(|at| at.to_string()).collect();
        let elements: Vec<_> =
            elements.items().expect("a list").iter().map(Value::to_text).collect();
        assert_eq!(elements, expected);
    }
    assert!(matches!(client.line("PTTL fleeting").expect("read"), Value::Int(1..=50_000)));
    server.stop().expect("stop");
}

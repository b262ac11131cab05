//! Client-side caching, over raw RESP in both versions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use compat_tests::admin::{leading_node, partitions};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};

const WITHIN: Duration = Duration::from_secs(20);

/// A server whose tables have leaders: who reads before that is told of the new leader.
fn start() -> Server {
    let server = Server::start(Options::evenkeel()).expect("start");
    assert_eq!(call(&mut server.client().expect("connect"), "FLUSHALL"), "OK");
    server
}

/// A reply as one line; `>[…]` for a push.
fn show(value: &Value) -> String {
    match value {
        Value::Push(items) => format!(">{}", list(items)),
        Value::Array(items) | Value::Set(items) => list(items),
        Value::Map(pairs) => {
            let pair = |(key, value): &(Value, Value)| format!("{}={}", show(key), show(value));
            pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        Value::Int(number) => number.to_string(),
        Value::Nil => "nil".to_owned(),
        Value::Error(text) => format!("-{}", String::from_utf8_lossy(text)),
        other => other.to_text(),
    }
}

fn list(items: &[Value]) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
}

fn call(client: &mut Client, line: &str) -> String {
    show(&client.line(line).expect(line))
}

fn next(client: &mut Client) -> String {
    let reply = client.read().expect("a reply").expect("an open connection");
    show(&reply.value)
}

fn resp3(server: &Server) -> Client {
    let mut client = server.client().expect("connect");
    client.line("HELLO 3").expect("HELLO");
    client
}

#[test]
fn keys_are_remembered_whatever_the_options_of_the_command_that_reads_them() {
    let server = start();
    let mut client = resp3(&server);
    assert_eq!(call(&mut client, "CLIENT TRACKING on"), "OK");
    for reads in [
        "LCS a user:1 LEN MINMATCHLEN -1 WITHMATCHLEN",
        "LCS user:1 a IDX MINMATCHLEN -1 WITHMATCHLEN",
        "LCS a user:1 LEN IDX",
    ] {
        call(&mut client, "DEL a");
        call(&mut client, reads);
        assert_eq!(call(&mut client, "HSETNX a a 1"), "1", "{reads}");
        assert_eq!(next(&mut client), ">[invalidate [a]]", "{reads}");
    }
    // In one pipeline it is told behind the reply of what changed it, too.
    let mut pipeline = |lines: &[&str]| -> Vec<String> {
        let mut bytes = Vec::new();
        for line in lines {
            encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
        }
        client.send_raw(&bytes).unwrap();
        (0..=lines.len()).map(|_| next(&mut client)).collect()
    };
    let replies = pipeline(&["DEL a", "LCS a user:1 LEN MINMATCHLEN -1", "HSETNX a a 1", "PING"]);
    assert_eq!(replies, ["1", "0", "1", ">[invalidate [a]]", "PONG"]);
    let replies = pipeline(&["SET moved 1", "GET moved", "MOVE moved 1", "PING"]);
    // Told before the next command runs. Here, where it takes several steps, also before its own reply.
    assert_eq!((&*replies[..2].concat(), &*replies[4]), ("OK1", "PONG"), "{replies:?}");
    assert!(replies.contains(&">[invalidate [moved]]".to_owned()), "{replies:?}");
}

#[test]
fn a_change_of_what_was_read_is_told_once() {
    let server = start();
    let (mut client, mut writer) = (resp3(&server), server.client().expect("connect"));
    assert_eq!(call(&mut client, "CLIENT TRACKING on"), "OK");
    assert_eq!(call(&mut writer, "MSET a 1 b 2 c 3"), "OK");
    assert_eq!(call(&mut client, "MGET a b"), "[1 2]");
    assert_eq!(call(&mut client, "HGETALL none"), "");
    for line in ["SET a 9", "SET a 10", "SET c 9", "DEL b", "HSET none f v"] {
        call(&mut writer, line);
    }
    assert_eq!(next(&mut client), ">[invalidate [a]]");
    assert_eq!(next(&mut client), ">[invalidate [b]]");
    assert_eq!(next(&mut client), ">[invalidate [none]]");
    assert_eq!(call(&mut client, "PING"), "PONG");
    // Its own change comes behind the reply; nothing of a change that was refused.
    assert_eq!(call(&mut client, "GET a"), "10");
    assert_eq!(call(&mut client, "SET a 11"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [a]]");
    assert_eq!(call(&mut client, "GET a"), "11");
    assert!(call(&mut writer, "HSET a f v").starts_with("-WRONGTYPE"));
    // In a transaction, read and changed.
    for line in ["MULTI", "GET b", "GET a"] {
        call(&mut client, line);
    }
    assert_eq!(call(&mut client, "EXEC"), "[nil 11]");
    for line in ["MULTI", "SET b 1", "SET a 12"] {
        call(&mut writer, line);
    }
    assert_eq!(call(&mut writer, "EXEC"), "[OK OK]");
    assert_eq!(next(&mut client), ">[invalidate [b]]");
    assert_eq!(next(&mut client), ">[invalidate [a]]");
    // Expiry changes it, too: both the key's and that of fields of a hash.
    // Long enough to be read before on a busy machine.
    assert_eq!(call(&mut writer, "SET a x PX 1500"), "OK");
    assert_eq!(call(&mut client, "GET a"), "x");
    assert_eq!(next(&mut client), ">[invalidate [a]]");
    assert_eq!(call(&mut writer, "HPEXPIRE none 1500 FIELDS 1 f"), "[1]");
    assert_eq!(call(&mut client, "HGET none f"), "v");
    assert_eq!(next(&mut client), ">[invalidate [none]]");
    // Everything at once.
    assert_eq!(call(&mut client, "GET c"), "9");
    assert_eq!(call(&mut writer, "FLUSHALL"), "OK");
    assert_eq!(next(&mut client), ">[invalidate nil]");
    assert_eq!(call(&mut client, "PING"), "PONG", "once, however many tables were flushed");
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    assert_eq!(call(&mut client, "GET a"), "nil");
    assert_eq!(call(&mut writer, "SET a 1"), "OK");
    assert_eq!(call(&mut client, "PING"), "PONG");
}

#[test]
fn the_modes() {
    let server = start();
    let (mut client, mut writer) = (resp3(&server), server.client().expect("connect"));
    // NOLOOP.
    assert_eq!(call(&mut client, "CLIENT TRACKING on NOLOOP"), "OK");
    assert_eq!(call(&mut client, "MGET a b"), "[nil nil]");
    assert_eq!(call(&mut client, "SET a 1"), "OK");
    assert_eq!(call(&mut writer, "SET b 1"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [b]]");
    // OPTIN and OPTOUT.
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    assert_eq!(call(&mut client, "CLIENT TRACKING on OPTIN"), "OK");
    assert_eq!(call(&mut client, "GET a"), "1");
    assert_eq!(call(&mut client, "CLIENT CACHING yes"), "OK");
    let info = call(&mut client, "CLIENT TRACKINGINFO");
    assert_eq!(info, "flags=[on optin caching-yes] redirect=0 prefixes=[]");
    assert_eq!(call(&mut client, "GET b"), "1");
    assert_eq!(call(&mut client, "GET c"), "nil");
    assert_eq!(call(&mut writer, "MSET a 2 b 2 c 2"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [b]]");
    assert_eq!(call(&mut client, "PING"), "PONG");
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    assert_eq!(call(&mut client, "CLIENT TRACKING on OPTOUT"), "OK");
    assert_eq!(call(&mut client, "CLIENT CACHING no"), "OK");
    assert_eq!(call(&mut client, "GET a"), "2");
    assert_eq!(call(&mut client, "GET b"), "2");
    assert_eq!(call(&mut writer, "MSET a 3 b 3"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [b]]");
    // BCAST: prefixes, read or not.
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    let broadcast = "CLIENT TRACKING on BCAST PREFIX user: PREFIX item: NOLOOP";
    assert_eq!(call(&mut client, broadcast), "OK");
    let info = call(&mut client, "CLIENT TRACKINGINFO");
    assert_eq!(info, "flags=[on bcast noloop] redirect=0 prefixes=[item: user:]");
    assert!(call(&mut client, "CLIENT INFO").contains(" flags=tB "));
    assert_eq!(call(&mut client, "SET user:own 1"), "OK");
    assert_eq!(call(&mut writer, "MSET user:1 x other 1 user:2 x"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [user:1 user:2]]");
    assert_eq!(call(&mut writer, "DEL item:1 user:1"), "1");
    assert_eq!(next(&mut client), ">[invalidate [user:1]]");
    let info = call(&mut writer, "INFO");
    for line in ["tracking_clients:1", "tracking_total_keys:0", "tracking_total_prefixes:2"] {
        assert!(info.lines().any(|found| found == line), "{line}\n{info}");
    }
}

#[test]
fn another_connection_is_told() {
    let server = start();
    let mut listener = server.client().expect("connect");
    let id = call(&mut listener, "CLIENT ID");
    let channel = "__redis__:invalidate";
    assert_eq!(
        call(&mut listener, &format!("SUBSCRIBE {channel}")),
        format!("[subscribe {channel} 1]")
    );
    let (mut client, mut writer) = (server.client().expect("connect"), resp3(&server));
    assert_eq!(call(&mut client, &format!("CLIENT TRACKING on REDIRECT {id}")), "OK");
    assert_eq!(call(&mut client, "CLIENT GETREDIR"), id);
    assert_eq!(call(&mut client, "GET a"), "nil");
    assert_eq!(call(&mut writer, "SET a 1"), "OK");
    assert_eq!(next(&mut listener), format!("[message {channel} [a]]"));
    assert_eq!(call(&mut client, "GET a"), "1");
    assert_eq!(call(&mut writer, "FLUSHDB"), "OK");
    assert_eq!(next(&mut listener), format!("[message {channel} nil]"));
    // The other connection goes: who is of RESP3 is told so.
    client.line("HELLO 3").expect("HELLO");
    assert_eq!(call(&mut client, "GET a"), "nil");
    assert_eq!(call(&mut writer, &format!("CLIENT KILL ID {id}")), "1");
    let list = |writer: &mut Client| -> Result<bool> {
        Ok(!call(writer, "CLIENT LIST").contains(&format!("id={id} ")))
    };
    wait_until("the listener is gone", WITHIN, || list(&mut writer)).expect("in time");
    assert_eq!(call(&mut writer, "SET a 2"), "OK");
    assert_eq!(next(&mut client), format!(">[tracking-redir-broken {id}]"));
    let info = call(&mut client, "CLIENT TRACKINGINFO");
    assert_eq!(info, format!("flags=[on broken_redirect] redirect={id} prefixes=[]"));
    assert!(call(&mut client, "CLIENT INFO").contains(" flags=tR "));
}

#[test]
fn the_table_has_an_end() {
    let server = start();
    let mut client = resp3(&server);
    assert_eq!(call(&mut client, "CONFIG SET tracking-table-max-keys 100"), "OK");
    assert_eq!(call(&mut client, "CLIENT TRACKING on"), "OK");
    let mut told = 0;
    for key in 0..300 {
        let mut reply = call(&mut client, &format!("GET key:{key}"));
        while reply.starts_with('>') {
            told += 1;
            reply = next(&mut client);
        }
        assert_eq!(reply, "nil");
    }
    while told < 200 {
        assert!(next(&mut client).starts_with(">[invalidate [key:"));
        told += 1;
    }
    let info = call(&mut client, "INFO stats");
    assert!(info.lines().any(|line| line == "tracking_total_keys:100"), "{info}");
    // Without anybody to tell it is empty.
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    let info = call(&mut client, "INFO stats");
    assert!(info.lines().any(|line| line == "tracking_total_keys:0"), "{info}");
    assert!(info.lines().any(|line| line == "tracking_total_items:0"), "{info}");
}

#[test]
fn who_broadcasts_is_told_of_each_flush() {
    let server = start();
    let (mut client, mut writer) = (resp3(&server), server.client().expect("connect"));
    assert_eq!(call(&mut client, "CLIENT TRACKING on BCAST"), "OK");
    assert_eq!(call(&mut writer, "FLUSHALL"), "OK");
    assert_eq!(next(&mut client), ">[invalidate nil]");
    for round in 0..2 {
        assert_eq!(call(&mut writer, &format!("SET a {round}")), "OK");
        assert_eq!(next(&mut client), ">[invalidate [a]]");
        assert_eq!(call(&mut writer, "FLUSHALL"), "OK");
        assert_eq!(next(&mut client), ">[invalidate nil]");
    }
    assert_eq!(call(&mut client, "PING"), "PONG", "once, however many tables were flushed");
}

/// What a script reads may be cached like what a command reads, whether it declares the keys or not; what
/// it declares and does not read is not told.
#[test]
fn what_scripts_read_is_tracked() {
    let server = start();
    let (mut client, mut writer) = (resp3(&server), server.client().expect("connect"));
    let library = "#!lua name=lib\nredis.register_function{function_name='f', flags={'no-writes'}, \
                   callback=function(keys) return redis.call('get', keys[1]) end}";
    writer.call(&["FUNCTION", "LOAD", library]).expect("loaded");
    assert_eq!(call(&mut client, "CLIENT TRACKING on"), "OK");
    let get = "return redis.call('get', KEYS[1])";
    let slow =
        "for i = 1, 30000 do redis.call('get', KEYS[1]) end return redis.call('get', KEYS[2])";
    let undeclared = "redis.call('set', 'k', 1) return redis.call('mget', 'k2', 'k3')";
    let slow_undeclared = "for i = 1, 30000 do redis.call('get', 'k') end";
    let lines: [(&[&str], &str); 7] = [
        (&["EVAL", undeclared, "0"], "k3"),
        (&["EVAL", slow_undeclared, "0"], "k"),
        (&["EVAL", get, "1", "k"], "k"),
        (&["EVAL_RO", get, "1", "k"], "k"),
        (&["FCALL", "f", "1", "k"], "k"),
        (&["FCALL_RO", "f", "1", "k"], "k"),
        // Longer than it may hold up others: it runs elsewhere.
        (&["EVAL", slow, "2", "k", "k2"], "k2"),
    ];
    for (line, key) in lines {
        assert!(!client.call(line).expect("a reply").is_error(), "{line:?}");
        assert_eq!(call(&mut writer, &format!("SET {key} 1")), "OK");
        assert_eq!(next(&mut client), format!(">[invalidate [{key}]]"), "{line:?}");
    }
    for script in ["return redis.call('set', KEYS[1], 1)", "return redis.call('ping')"] {
        assert!(!client.call(&["EVAL", script, "2", "d", "d2"]).expect("a reply").is_error());
    }
    assert_eq!(call(&mut writer, "MSET d 1 d2 1"), "OK");
    assert_eq!(call(&mut client, "PING"), "PONG");
    // In a transaction.
    assert_eq!(call(&mut client, "MULTI"), "OK");
    assert_eq!(show(&client.call(&["EVAL", get, "1", "k"]).expect("queued")), "QUEUED");
    assert_eq!(call(&mut client, "EXEC"), "[1]");
    assert_eq!(call(&mut writer, "SET k 2"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [k]]");
    assert_eq!(call(&mut client, "CLIENT TRACKING off"), "OK");
    assert_eq!(call(&mut client, "CLIENT TRACKING on OPTIN"), "OK");
    client.call(&["EVAL", get, "1", "k"]).expect("a reply");
    assert_eq!(call(&mut writer, "SET k 3"), "OK");
    assert_eq!(call(&mut client, "PING"), "PONG");
}

/// A key of a stream that is waited for is one that may be cached, too.
#[test]
fn what_changes_while_a_command_waits_is_told_at_once() {
    let server = start();
    let (mut client, mut writer) = (resp3(&server), server.client().expect("connect"));
    assert_eq!(call(&mut client, "CLIENT TRACKING on"), "OK");
    assert_eq!(call(&mut client, "GET k"), "nil");
    let mut bytes = Vec::new();
    encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"], &mut bytes);
    client.send_raw(&bytes).expect("send");
    let is_blocked = || Ok(call(&mut writer, "INFO clients").contains("blocked_clients:1"));
    wait_until("it waits", WITHIN, is_blocked).expect("in time");
    assert_eq!(call(&mut writer, "SET k 2"), "OK");
    assert_eq!(next(&mut client), ">[invalidate [k]]");
    assert_eq!(call(&mut writer, "XADD s 1-1 f v"), "1-1");
    assert_eq!(next(&mut client), "s=[[1-1 [f v]]]");
    // The change that it was served with is one; and as pushes have left since the key was remembered, it
    // is not relied on that others will be told.
    let mut told = vec![call(&mut client, "PING")];
    while told.last().is_some_and(|last| last != "PONG") {
        told.push(next(&mut client));
    }
    assert!(told.len() > 1 && told[..told.len() - 1].iter().all(|t| t == ">[invalidate [s]]"));
}

/// A client that caches, as a library would do it.
struct Cache {
    client: Client,
    held: HashMap<String, String>,
}

impl Cache {
    /// Takes a reply; what is pushed before it is done first.
    fn reply(&mut self) -> Value {
        loop {
            let value = self.client.read().expect("a reply").expect("open").value;
            let Value::Push(items) = &value else { return value };
            assert_eq!(items[0].to_text(), "invalidate");
            match items[1].items() {
                None => self.held.clear(),
                Some(keys) => keys.iter().for_each(|key| {
                    self.held.remove(&key.to_text());
                }),
            }
        }
    }

    fn run(&mut self, line: &str) -> Value {
        let mut bytes = Vec::new();
        encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
        self.client.send_raw(&bytes).expect("send");
        self.reply()
    }

    /// Reads keys in one pipeline, and holds what comes.
    fn read(&mut self, keys: &[&str]) {
        let mut bytes = Vec::new();
        keys.iter().for_each(|key| encode(&["GET", key], &mut bytes));
        self.client.send_raw(&bytes).expect("send");
        for key in keys {
            let value = self.reply();
            self.held.insert((*key).to_owned(), show(&value));
        }
    }
}

/// Reads and writes that race: what a cache still holds when a write is acknowledged and all that
/// was pushed until then is taken must be what is stored.
#[test]
fn no_change_is_missed() {
    const ROUNDS: u64 = 3_000;
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let server = start();
    let (go, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let mut client = server.client().expect("connect");
        let (go, done) = (go.clone(), done.clone());
        thread::spawn(move || {
            for round in 1..=ROUNDS {
                while go.load(SeqCst) < round {
                    std::hint::spin_loop();
                    thread::yield_now();
                }
                let key = KEYS[round as usize % KEYS.len()];
                if round % 5 == 0 {
                    call(&mut client, "MULTI");
                    call(&mut client, &format!("SET {key} {round}"));
                    assert_eq!(call(&mut client, "EXEC"), "[OK]");
                } else {
                    assert_eq!(call(&mut client, &format!("SET {key} {round}")), "OK");
                }
                done.store(round, SeqCst);
            }
        })
    };
    let mut cache = Cache { client: resp3(&server), held: HashMap::new() };
    assert_eq!(cache.run("CLIENT TRACKING on"), Value::Simple(b"OK".to_vec()));
    let mut judge = server.client().expect("connect");
    for round in 1..=ROUNDS {
        go.store(round, SeqCst);
        cache.read(&KEYS);
        if round % 3 == 0 {
            cache.read(&KEYS[..2]);
        }
        while done.load(SeqCst) < round {
            thread::yield_now();
        }
        // Whatever was pushed until now is ahead of this reply.
        cache.run("PING");
        for (key, held) in &cache.held {
            assert_eq!(call(&mut judge, &format!("GET {key}")), *held, "round {round}, {key}");
        }
    }
    writer.join().expect("the writer");
}

/// What a node that is lost had to tell is made up for: a new leader tells that all has changed. Asked of
/// who has read, of who has started anew since (and so has read nothing since), and of who broadcasts and
/// never reads by the connection that is told.
#[test]
fn a_lost_leader_takes_no_change_along() {
    let options = Options { faults: true, ..Options::evenkeel() };
    let server = Server::start(options).expect("start");
    if server.client().expect("connect").line("ADMIN STATUS").expect("ADMIN").is_error() {
        return;
    }
    let mut judge = server.client().expect("connect");
    assert_eq!(call(&mut judge, "FLUSHALL"), "OK", "all tables have leaders");
    let cache = || Cache { client: resp3(&server), held: HashMap::new() };
    let (mut reader, mut restarted, mut broadcaster) = (cache(), cache(), cache());
    let ok = Value::Simple(b"OK".to_vec());
    for cache in [&mut reader, &mut restarted] {
        assert_eq!(cache.run("CLIENT TRACKING on"), ok);
    }
    assert_eq!(broadcaster.run("CLIENT TRACKING on BCAST PREFIX other:"), ok);
    for round in 0..2 {
        let is_led = || Ok(leading_node(&mut judge).is_ok());
        wait_until("a leader", WITHIN, is_led).expect("in time");
        assert_eq!(call(&mut judge, &format!("SET k {round}")), "OK");
        for cache in [&mut reader, &mut restarted, &mut broadcaster] {
            cache.run("PING");
        }
        reader.read(&["k"]);
        restarted.read(&["k"]);
        assert_eq!(restarted.run("CLIENT TRACKING on NOLOOP"), ok);
        // As if another connection of the same process had read it.
        broadcaster.held.insert("k".to_owned(), "anything".to_owned());
        let leader = leader_of(&mut judge, "k");
        // Nobody reads from here on: what is held goes by a push or not at all.
        assert_eq!(call(&mut judge, &format!("ADMIN FAULT STOP {leader}")), "OK");
        let goes_on = || Ok(call(&mut judge, "GET k") == round.to_string());
        wait_until("reads go on", WITHIN, goes_on).expect("in time");
        for (name, cache) in
            [("reader", &mut reader), ("restarted", &mut restarted), ("BCAST", &mut broadcaster)]
        {
            cache.run("PING");
            assert!(cache.held.is_empty(), "{name} was not told in round {round}");
        }
        assert_eq!(call(&mut judge, &format!("ADMIN FAULT START {leader}")), "OK");
    }
}

/// The node that leads the partition of the first table.
fn leader_of(client: &mut Client, key: &str) -> String {
    assert!(!call(client, &format!("EXISTS {key}")).starts_with('-'));
    let rows = partitions(client).expect("partitions");
    let first = rows.iter().find(|row| row.get("partition").is_some_and(|id| id == "1"));
    first.expect("the first partition")["leader"].clone()
}

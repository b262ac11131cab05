//! Publishing, subscribing and MONITOR, over raw RESP in both versions. The same tests pass against
//! Redis (`EVENKEEL_BIN=/usr/bin/redis-server`) but for what 7.2 changed: where a connection's own
//! message stands.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value};

const WITHIN: Duration = Duration::from_secs(20);

fn start() -> Server {
    Server::start(Options::evenkeel()).expect("start")
}

/// A reply as one line: `[subscribe a 1]`, `>[…]` for a push.
fn show(value: &Value) -> String {
    match value {
        Value::Push(items) => format!(">{}", list(items)),
        Value::Array(items) | Value::Set(items) => list(items),
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

/// Who has unsubscribed or left before a message is published does not count, though nobody has answered:
/// the two connections are served side by side.
#[test]
fn who_has_said_that_it_leaves_is_not_published_to() {
    const ROUNDS: usize = 100;
    let server = start();
    let mut publisher = server.client().expect("connect");
    for round in 0..ROUNDS {
        for (subscribe, unsubscribe, publish) in [
            ("SUBSCRIBE ch", "UNSUBSCRIBE\r\n", "PUBLISH ch x"),
            ("PSUBSCRIBE c*", "PUNSUBSCRIBE\r\n", "PUBLISH ch x"),
            ("SSUBSCRIBE sh", "SUNSUBSCRIBE sh\r\n", "SPUBLISH sh x"),
        ] {
            let mut leaves = server.client().expect("connect");
            call(&mut leaves, subscribe);
            leaves.send_raw(unsubscribe.as_bytes()).expect("send");
            assert_eq!(call(&mut publisher, publish), "0", "{subscribe}, round {round}");
            call(&mut leaves, "PING");
            let mut closes = server.client().expect("connect");
            call(&mut closes, subscribe);
            drop(closes);
            assert_eq!(call(&mut publisher, publish), "0", "{subscribe} and closed, round {round}");
        }
    }
}

#[test]
fn a_subscriber_of_resp2_is_in_a_mode() {
    let server = start();
    let mut client = server.client().expect("connect");
    assert_eq!(call(&mut client, "SUBSCRIBE a b a"), "[subscribe a 1]");
    assert_eq!(next(&mut client), "[subscribe b 2]");
    assert_eq!(next(&mut client), "[subscribe a 2]");
    assert_eq!(call(&mut client, "PSUBSCRIBE c*"), "[psubscribe c* 3]");
    assert_eq!(call(&mut client, "SSUBSCRIBE s"), "[ssubscribe s 1]");
    let refused = |name: &str| {
        format!(
            "-ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        )
    };
    assert_eq!(call(&mut client, "GET k"), refused("get"));
    assert_eq!(call(&mut client, "CLIENT INFO"), refused("client|info"));
    assert_eq!(call(&mut client, "PUBLISH a x"), refused("publish"));
    assert_eq!(call(&mut client, "MULTI"), refused("multi"));
    assert_eq!(call(&mut client, "GET"), "-ERR wrong number of arguments for 'get' command");
    assert_eq!(call(&mut client, "PING"), "[pong ]");
    assert_eq!(call(&mut client, "PING hi"), "[pong hi]");
    assert_eq!(call(&mut client, "UNSUBSCRIBE"), "[unsubscribe a 2]");
    assert_eq!(next(&mut client), "[unsubscribe b 1]");
    assert_eq!(call(&mut client, "PUNSUBSCRIBE x c*"), "[punsubscribe x 1]");
    assert_eq!(next(&mut client), "[punsubscribe c* 0]");
    assert_eq!(call(&mut client, "GET k"), refused("get"), "a shard channel is left");
    assert_eq!(call(&mut client, "SUNSUBSCRIBE"), "[sunsubscribe s 0]");
    assert_eq!(call(&mut client, "SUNSUBSCRIBE"), "[sunsubscribe nil 0]");
    assert_eq!(call(&mut client, "UNSUBSCRIBE"), "[unsubscribe nil 0]");
    assert_eq!(call(&mut client, "PUNSUBSCRIBE"), "[punsubscribe nil 0]");
    assert_eq!(call(&mut client, "PING"), "PONG");
    assert_eq!(call(&mut client, "GET k"), "nil");
    assert_eq!(call(&mut client, "SUBSCRIBE a"), "[subscribe a 1]");
    assert_eq!(call(&mut client, "RESET"), "RESET");
    assert_eq!(call(&mut client, "PUBLISH a x"), "0");
}

#[test]
fn without_replies_subscriptions_are_told() {
    let server = start();
    let mut publisher = server.client().expect("connect");
    let mut client = resp3(&server);
    client.send_raw(b"CLIENT REPLY OFF\r\nPING\r\n").expect("send");
    assert_eq!(call(&mut client, "SUBSCRIBE a"), ">[subscribe a 1]");
    assert_eq!(call(&mut publisher, "PUBLISH a x"), "1");
    assert_eq!(next(&mut client), ">[message a x]");
    assert_eq!(call(&mut client, "UNSUBSCRIBE a"), ">[unsubscribe a 0]");
    assert_eq!(call(&mut client, "CLIENT REPLY ON"), "OK");
}

#[test]
fn messages_reach_who_subscribes() {
    let server = start();
    let mut publisher = server.client().expect("connect");
    let mut two = server.client().expect("connect");
    let mut three = resp3(&server);
    assert_eq!(call(&mut two, "SUBSCRIBE news"), "[subscribe news 1]");
    assert_eq!(call(&mut two, "PSUBSCRIBE n*s"), "[psubscribe n*s 2]");
    assert_eq!(call(&mut three, "SUBSCRIBE news other"), ">[subscribe news 1]");
    assert_eq!(next(&mut three), ">[subscribe other 2]");
    assert_eq!(call(&mut three, "SSUBSCRIBE news"), ">[ssubscribe news 1]");
    assert_eq!(call(&mut publisher, "PUBLISH news one"), "3");
    assert_eq!(call(&mut publisher, "SPUBLISH news two"), "1");
    assert_eq!(call(&mut publisher, "PUBLISH nobody three"), "0");
    assert_eq!(next(&mut two), "[message news one]");
    assert_eq!(next(&mut two), "[pmessage n*s news one]");
    assert_eq!(next(&mut three), ">[message news one]");
    assert_eq!(next(&mut three), ">[smessage news two]");
    // In RESP3 everything else goes on.
    assert_eq!(call(&mut three, "SET k v"), "OK");
    assert_eq!(call(&mut three, "PING"), "PONG");
    // Who subscribes to what.
    let mut channels = publisher.line("PUBSUB CHANNELS").expect("PUBSUB");
    if let Value::Array(names) = &mut channels {
        names.sort();
    }
    assert_eq!(show(&channels), "[news other]");
    assert_eq!(call(&mut publisher, "PUBSUB CHANNELS o*"), "[other]");
    assert_eq!(call(&mut publisher, "PUBSUB NUMSUB news nobody"), "[news 2 nobody 0]");
    assert_eq!(call(&mut publisher, "PUBSUB NUMPAT"), "1");
    assert_eq!(call(&mut publisher, "PUBSUB SHARDCHANNELS"), "[news]");
    assert_eq!(call(&mut publisher, "PUBSUB SHARDNUMSUB news other"), "[news 1 other 0]");
    let info = call(&mut publisher, "INFO stats");
    for line in ["pubsub_channels:2", "pubsub_patterns:1", "pubsubshard_channels:1"] {
        assert!(info.lines().any(|found| found == line), "{line}");
    }
    let list = call(&mut publisher, "CLIENT LIST TYPE pubsub");
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.lines().all(|line| line.contains(" flags=P ")), "{list}");
    assert!(list.contains(" sub=1 psub=1 ssub=0 ") && list.contains(" sub=2 psub=0 ssub=1 "));
    assert_eq!(call(&mut publisher, "CLIENT KILL TYPE pubsub"), "2");
    let gone = || -> Result<bool> {
        let left = ["PUBSUB CHANNELS", "PUBSUB NUMPAT", "PUBSUB SHARDCHANNELS"];
        Ok(left.map(|line| call(&mut publisher, line)) == ["[]", "0", "[]"])
    };
    wait_until("subscriptions end with their connections", WITHIN, gone).expect("in time");
}

#[test]
fn pushes_stand_between_replies() {
    let server = start();
    let mut publisher = server.client().expect("connect");
    let mut client = resp3(&server);
    assert_eq!(call(&mut client, "SUBSCRIBE a b c"), ">[subscribe a 1]");
    assert_eq!((next(&mut client), next(&mut client)).1, ">[subscribe c 3]");
    // A message that was sent before a command came is ahead of its reply.
    for round in 0..50 {
        assert_eq!(call(&mut publisher, &format!("PUBLISH a {round}")), "1");
        assert_eq!(call(&mut client, "PING"), format!(">[message a {round}]"));
        assert_eq!(next(&mut client), "PONG");
    }
    // What a connection publishes to itself comes behind the reply.
    assert_eq!(call(&mut client, "PUBLISH b own"), "1");
    assert_eq!(next(&mut client), ">[message b own]");
    // And behind that of the whole transaction.
    assert_eq!(call(&mut client, "MULTI"), "OK");
    for line in ["PING x", "PUBLISH b in", "UNSUBSCRIBE c", "SET k v", "PING y"] {
        assert_eq!(call(&mut client, line), "QUEUED");
    }
    assert_eq!(call(&mut client, "EXEC"), "[x 1 >[unsubscribe c 2] OK y]");
    assert_eq!(next(&mut client), ">[message b in]");
    // No message comes after the end of its subscription was told.
    for _ in 0..200 {
        let sent = thread::spawn({
            let mut other = server.client().expect("connect");
            move || call(&mut other, "PUBLISH a late")
        });
        let mut told = call(&mut client, "UNSUBSCRIBE a");
        if told.starts_with(">[message") {
            told = next(&mut client);
        }
        assert_eq!(told, ">[unsubscribe a 1]");
        let received = sent.join().expect("a publisher");
        assert_eq!(call(&mut client, "PING"), "PONG", "published to {received}");
        assert_eq!(call(&mut client, "SUBSCRIBE a"), ">[subscribe a 2]");
    }
}

#[test]
fn all_see_one_order() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 500;
    let server = start();
    let mut subscribers: Vec<Client> = (0..3).map(|_| server.client().expect("connect")).collect();
    assert_eq!(call(&mut subscribers[0], "SUBSCRIBE c"), "[subscribe c 1]");
    assert_eq!(call(&mut subscribers[1], "PSUBSCRIBE c*"), "[psubscribe c* 1]");
    assert_eq!(call(&mut subscribers[2], "SUBSCRIBE c"), "[subscribe c 1]");
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let mut client = server.client().expect("connect");
            thread::spawn(move || {
                for message in 0..MESSAGES {
                    assert_eq!(call(&mut client, &format!("PUBLISH c {publisher}:{message}")), "3");
                }
            })
        })
        .collect();
    let received: Vec<Vec<String>> = subscribers
        .iter_mut()
        .map(|client| {
            let text = |message: String| {
                message.trim_end_matches(']').rsplit(' ').next().expect("a word").to_owned()
            };
            (0..PUBLISHERS * MESSAGES).map(|_| text(next(client))).collect()
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
    assert_eq!(received[0], received[1]);
    assert_eq!(received[0], received[2]);
    for publisher in 0..PUBLISHERS {
        let own = received[0].iter().filter(|text| text.starts_with(&format!("{publisher}:")));
        let wanted = (0..MESSAGES).map(|message| format!("{publisher}:{message}"));
        assert!(own.cloned().eq(wanted), "the order of publisher {publisher}");
    }
}

#[test]
fn who_does_not_read_is_closed() {
    let options =
        Options { expected_log: vec!["is not read", "are not read"], ..Options::evenkeel() };
    let server = Server::start(options).expect("start");
    let mut publisher = server.client().expect("connect");
    let limits = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"];
    assert_eq!(show(&publisher.call(&limits).expect("CONFIG")), "OK");
    let mut slow = server.client().expect("connect");
    assert_eq!(call(&mut slow, "SUBSCRIBE c"), "[subscribe c 1]");
    let mut reader = server.client().expect("connect");
    assert_eq!(call(&mut reader, "SUBSCRIBE c"), "[subscribe c 1]");
    let message = "x".repeat(100_000);
    let mut sent = 0;
    // What the kernel's buffers hold comes on top.
    while sent < 1_000 {
        let receivers = show(&publisher.call(&["PUBLISH", "c", &message]).expect("PUBLISH"));
        sent += 1;
        assert!(next(&mut reader).starts_with("[message c x"));
        if receivers == "1" {
            break;
        }
    }
    assert!(sent < 1_000, "the slow subscriber is still there");
    assert!(call(&mut publisher, "CLIENT LIST TYPE pubsub").lines().count() == 1);
}

#[test]
fn monitors_see_what_is_run() {
    let server = start();
    let mut monitor = server.client().expect("connect");
    assert_eq!(call(&mut monitor, "MONITOR"), "OK");
    let mut client = server.client().expect("connect");
    for line in
        ["SELECT 3", "SET k v", "AUTH default secret", "CONFIG GET hz", "GET", "MULTI", "GET k"]
    {
        client.line(line).expect(line);
    }
    assert_eq!(call(&mut client, "EXEC"), "[v]");
    client.call(&["ECHO", "a\"\\\x01\n"]).expect("ECHO");
    let mut line = || {
        let line = next(&mut monitor);
        let (at, rest) = line.split_once(" [3 127.0.0.1:").expect("a line of MONITOR");
        assert_eq!(at.split_once('.').map(|(_, micros)| micros.len()), Some(6), "{line}");
        rest.split_once("] ").expect("a port").1.to_owned()
    };
    for wanted in [
        r#""SELECT" "3""#,
        r#""SET" "k" "v""#,
        r#""AUTH" "(redacted)" "(redacted)""#,
        r#""MULTI""#,
        r#""GET" "k""#,
        r#""EXEC""#,
        r#""ECHO" "a\"\\\x01\n""#,
    ] {
        assert_eq!(line(), wanted);
    }
    // Who waits is shown once, before what others do meanwhile.
    let mut waiter = server.client().expect("connect");
    waiter.line("SELECT 3").expect("SELECT");
    waiter.send_raw(b"BLPOP list 0\r\n").expect("send");
    let waits = || Ok(call(&mut client, "CLIENT LIST").contains(" flags=b "));
    wait_until("somebody waits", WITHIN, waits).expect("in time");
    assert_eq!(call(&mut client, "RPUSH list a"), "1");
    assert_eq!(next(&mut waiter), "[list a]");
    assert_eq!(call(&mut client, "RPUSH list b"), "1");
    for wanted in [
        r#""SELECT" "3""#,
        r#""BLPOP" "list" "0""#,
        r#""RPUSH" "list" "a""#,
        r#""RPUSH" "list" "b""#,
    ] {
        assert_eq!(line(), wanted);
    }
    // A monitor is as a replica is, and sees itself.
    assert_eq!(call(&mut monitor, "GET k"), "-ERR Replica can't interact with the keyspace");
    assert_eq!(call(&mut monitor, "PING"), "PONG");
    assert!(next(&mut monitor).ends_with("\"PING\""));
    assert!(call(&mut client, "CLIENT LIST").contains(" flags=O "));
    assert_eq!(call(&mut monitor, "RESET"), "RESET");
    assert_eq!(call(&mut client, "PING"), "PONG");
    assert_eq!(call(&mut monitor, "GET k"), "nil");
}

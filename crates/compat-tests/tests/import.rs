//! `evenkeel import`: what a real Redis holds, of every type and encoding, arrives as it was, from its RDB
//! file and from the server itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use compat_tests::process::{Options, Server, evenkeel_binary};
use compat_tests::resp::{Client, Value};

fn import(args: &[&str]) -> Output {
    let mut command = Command::new(evenkeel_binary().expect("a binary"));
    command.arg("import").args(args).output().expect("run evenkeel import")
}

fn said(output: &Output) -> String {
    let parts =
        [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned());
    format!("{:?}\n{}\n{}", output.status.code(), parts[0], parts[1])
}

fn at(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port())
}

/// Runs a line whose words may be long; it must not be refused.
fn run<A: AsRef<[u8]>>(client: &mut Client, line: &[A]) {
    let reply = client.call(line).expect("a reply");
    assert!(!reply.is_error(), "{reply:?}");
}

/// Fills a Redis: each type in each of its encodings, times to live, three databases.
fn fill(client: &mut Client) {
    let long = "compressible ".repeat(2_000);
    let noise: Vec<u8> =
        (0..20_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (key, value) in
        [("int", "12345"), ("negative", "-7"), ("embstr", "short"), ("empty", ""), ("long", &long)]
    {
        run(client, &["SET", key, value]);
    }
    run(client, &[&b"SET"[..], b"noise", &noise]);
    run(client, &[&b"SET"[..], b"\xff\x00 key\r\n", b"binary"]);
    run(client, &["SET", "123456", "a key that is packed as a number"]);
    run(client, &["SET", &long[..100], "a key that is packed"]);
    collections(client, "small", 5, &long);
    collections(client, "large", 700, &long);
    run(client, &["RPUSH", "plain", &long, "x", &long]);
    streams(client);
    for (key, ttl) in [("int", "1000000"), ("small:hash", "2000000"), ("stream", "3000000")] {
        run(client, &["PEXPIRE", key, ttl]);
    }
    run(client, &["SET", "gone", "x", "PX", "1"]);
    run(client, &["SELECT", "3"]);
    run(client, &["SET", "int", "of database 3"]);
    run(client, &["SELECT", "15"]);
    for at in 0..2_000 {
        run(client, &["SET", &format!("many:{at}"), &format!("value {at}")]);
    }
    run(client, &["SELECT", "0"]);
}

fn collections(client: &mut Client, name: &str, count: u32, long: &str) {
    for at in 0..count {
        let (text, number) = (format!("element {at}"), (at * at * 7919).to_string());
        run(client, &["RPUSH", &format!("{name}:list"), &text, &number]);
        run(client, &["SADD", &format!("{name}:set"), &text]);
        run(client, &["SADD", &format!("{name}:intset"), &number]);
        run(client, &["HSET", &format!("{name}:hash"), &text, &number]);
        let score = format!("{}.5", i64::from(at) - 3);
        run(client, &["ZADD", &format!("{name}:zset"), &score, &text]);
    }
    run(client, &["ZADD", &format!("{name}:zset"), "inf", "max", "-inf", "min"]);
    run(client, &["HSET", &format!("{name}:table"), "field", long]);
    run(client, &["SADD", &format!("{name}:wide"), long, "x"]);
    run(client, &["ZADD", &format!("{name}:wide-zset"), "1234567.25", long]);
    run(client, &["PFADD", &format!("{name}:hll"), "a", "b", long]);
    run(client, &["SETBIT", &format!("{name}:bits"), "1000", "1"]);
    run(
        client,
        &["SADD", &format!("{name}:big-ints"), "9223372036854775807", "-9223372036854775808"],
    );
}

fn streams(client: &mut Client) {
    for at in 1..=300 {
        run(
            client,
            &["XADD", "stream", &format!("{at}-{at}"), "field", &at.to_string(), "other", "x"],
        );
    }
    for line in [
        "XADD stream 400-1 different fields here now",
        "XDEL stream 5-5 300-300",
        "XGROUP CREATE stream group 0",
        "XGROUP CREATE stream idle $",
        "XREADGROUP GROUP group one COUNT 3 STREAMS stream >",
        "XREADGROUP GROUP group two COUNT 2 STREAMS stream >",
        "XACK stream group 2-2",
        "XGROUP CREATECONSUMER stream group three",
        "XGROUP CREATE bare group $ MKSTREAM",
        "XSETID bare 7-7",
    ] {
        run(client, &line.split(' ').collect::<Vec<_>>());
    }
}

/// What a server holds, read by commands: by database and key the value, in an order that both have.
fn contents(client: &mut Client) -> BTreeMap<(u32, Vec<u8>), String> {
    let mut all = BTreeMap::new();
    for db in 0..16 {
        run(client, &["SELECT", &db.to_string()]);
        let keys = client.line("KEYS *").expect("keys");
        for key in keys.items().expect("keys") {
            let key = key.text().expect("a key").to_vec();
            let value = value(client, &key);
            all.insert((db, key), value);
        }
    }
    run(client, &["SELECT", "0"]);
    all
}

fn value(client: &mut Client, key: &[u8]) -> String {
    let mut ask = |line: &[&[u8]]| client.call(line).expect("a reply");
    let sorted = |value: Value, width: usize| {
        let items = value.items().expect("elements").to_vec();
        let mut groups: Vec<Vec<Value>> = items.chunks(width).map(<[_]>::to_vec).collect();
        groups.sort();
        format!("{groups:?}")
    };
    let kind = ask(&[b"TYPE", key]).to_text();
    let value = match kind.as_str() {
        "string" => format!("{:?}", ask(&[b"GET", key])),
        "list" => format!("{:?}", ask(&[b"LRANGE", key, b"0", b"-1"])),
        "set" => sorted(ask(&[b"SMEMBERS", key]), 1),
        "hash" => sorted(ask(&[b"HGETALL", key]), 2),
        "zset" => format!("{:?}", ask(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])),
        "stream" => {
            let entries = ask(&[b"XRANGE", key, b"-", b"+"]);
            let groups = ask(&[b"XINFO", b"GROUPS", key]);
            let pending = ask(&[b"XPENDING", key, b"group"]);
            let last = ask(&[b"XINFO", b"STREAM", key]);
            let last = last
                .pairs()
                .expect("facts")
                .into_iter()
                .find(|(name, _)| name.to_text() == "last-generated-id");
            format!("{entries:?} {groups:?} {pending:?} {last:?}")
        }
        other => panic!("type {other}"),
    };
    let Value::Int(ttl) = ask(&[b"PTTL", key]) else { panic!("a time to live") };
    // What passes meanwhile is no difference; a time to live of another size is.
    let ttl = if ttl < 0 { ttl } else { (ttl + 100_000) / 500_000 };
    format!("{kind} {ttl} {value}")
}

fn assert_same(source: &mut Client, target: &mut Client) {
    let (theirs, ours) = (contents(source), contents(target));
    assert!(theirs.len() > 2_000);
    for (key, value) in &theirs {
        assert_eq!(ours.get(key), Some(value), "{key:?}");
    }
    assert_eq!(theirs.len(), ours.len());
}

/// A filled Redis and its RDB file.
fn source() -> (Server, PathBuf) {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let mut client = redis.client().unwrap();
    fill(&mut client);
    run(&mut client, &["SAVE"]);
    let file = redis.dir().join("dump.rdb");
    (redis, file)
}

#[test]
fn a_file_and_a_server_arrive_as_they_were() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let (redis, file) = source();
    let mut theirs = redis.client().unwrap();
    let target = Server::start(Options::evenkeel()).expect("start");
    let output = import(&[file.to_str().unwrap(), "--to", &at(&target)]);
    assert!(output.status.success(), "{}", said(&output));
    let mut ours = target.client().unwrap();
    assert_same(&mut theirs, &mut ours);

    // Keys that exist are kept and counted, unless they are to be replaced.
    run(&mut ours, &["SET", "int", "mine"]);
    let output = import(&["--from", &at(&redis), "--to", &at(&target), "--db", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("BUSYKEY"), "{}", said(&output));
    assert_eq!(ours.line("GET int").unwrap().to_text(), "mine");
    let output = import(&["--from", &at(&redis), "--to", &at(&target), "--replace"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_same(&mut theirs, &mut ours);
}

#[test]
fn a_running_server_is_copied_with_passwords_on_both_sides() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let password = Some("s3cret".to_owned());
    let redis = Server::start(Options { password: password.clone(), ..Options::redis() }).unwrap();
    let mut theirs = redis.client().unwrap();
    fill(&mut theirs);
    let target = Server::start(Options { password, ..Options::evenkeel() }).unwrap();
    let (from, to) = (at(&redis), at(&target));
    let output = import(&["--from", &from, "--to", &to, "--password", "wrong"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let secrets = ["--password", "s3cret", "--to-password", "s3cret"];
    let output = import(&[&["--from", &from, "--to", &to][..], &secrets].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert_same(&mut theirs, &mut target.client().unwrap());
}

#[test]
fn a_damaged_file_is_refused_before_anything_is_written() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let (redis, file) = source();
    drop(redis.client());
    let target = Server::start(Options::evenkeel()).expect("start");
    let good = std::fs::read(&file).expect("the file");
    let damaged = target.dir().join("damaged.rdb");
    for (what, bytes) in [
        ("a flipped bit", {
            let mut bytes = good.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            bytes
        }),
        ("cut off", good[..good.len() - 100].to_vec()),
        ("no RDB file", b"hello, world".to_vec()),
        ("empty", Vec::new()),
    ] {
        std::fs::write(&damaged, &bytes).expect("write");
        let output = import(&[damaged.to_str().unwrap(), "--to", &at(&target)]);
        assert_eq!(output.status.code(), Some(2), "{what}: {}", said(&output));
        assert_eq!(target.client().unwrap().line("DBSIZE").unwrap(), Value::Int(0), "{what}");
    }
    let output = import(&["/nonexistent.rdb", "--to", &at(&target)]);
    assert_eq!(output.status.code(), Some(2));
    let nobody = compat_tests::process::free_port().unwrap();
    let output = import(&[file.to_str().unwrap(), "--to", &format!("127.0.0.1:{nobody}")]);
    assert!(said(&output).contains("connect to"), "{}", said(&output));
}

/// What the target cannot take is refused and counted, and the rest arrives.
#[test]
fn what_is_too_long_is_refused_and_the_rest_arrives() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let redis = Server::start(Options::redis()).expect("start Redis");
    let mut theirs = redis.client().unwrap();
    run(&mut theirs, &["CONFIG", "SET", "rdbcompression", "no"]);
    for at in 0..50 {
        run(&mut theirs, &["SET", &format!("key:{at}"), "value"]);
    }
    // The value fits, the payload of RESTORE does not.
    run(&mut theirs, &["SETRANGE", "long", &((64 << 20) - 2).to_string(), "x"]);
    run(
        &mut theirs,
        &["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() end)"],
    );
    run(&mut theirs, &["SAVE"]);
    let file = redis.dir().join("dump.rdb");
    let target = Server::start(Options::evenkeel()).expect("start");
    let mut ours = target.client().unwrap();
    // The name of the function is taken by another library.
    run(
        &mut ours,
        &["FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() end)"],
    );
    for source in [&[file.to_str().unwrap()][..], &["--from", &at(&redis)]] {
        run(&mut ours, &["FLUSHALL"]);
        let output = import(&[source, &["--to", &at(&target)]].concat());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("50 keys written, 2 refused"), "{said}");
        assert!(said.contains("functions are not loaded"), "{said}");
        assert_eq!(ours.line("DBSIZE").unwrap(), Value::Int(50));
    }
}

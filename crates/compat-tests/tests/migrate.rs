//! MIGRATE: to another server and to Redis, and every refusal in Redis's words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use compat_tests::process::{Options, Server};
use compat_tests::resp::{Client, Value};

/// Moves of a list under which elements are pushed, and pushes at most.
const MOVES: usize = 3;
const PUSHES_MAX: i64 = 3_000;

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

/// The same line on Redis and on the server under test, each to a server of its own.
fn migrate(client: &mut Client, target: &Server, rest: &[&str]) -> Value {
    let port = target.port().to_string();
    let mut line = vec!["MIGRATE", "127.0.0.1", &port];
    line.extend(rest);
    client.call(&line).expect("an answer")
}

const STEPS: &[&[&str]] = &[
    &["nosuch", "0", "5000"],
    &["s", "0", "5000", "COPY"],
    &["s", "0", "5000"],
    &["s", "0", "5000", "REPLACE"],
    &["s", "0", "5000"],
    &["h", "9", "5000"],
    &["", "0", "5000", "COPY", "KEYS", "l", "nosuch", "t", "z"],
    &["", "0", "5000", "KEYS", "l", "t"],
    &["", "0", "5000", "REPLACE", "KEYS", "l", "t"],
    &["", "0", "5000", "KEYS", "l", "t"],
    &["", "0", "5000", "KEYS"],
    &["z", "0", "5000", "KEYS", "z"],
    &["z", "0", "x"],
    &["z", "x", "1"],
    &["z", "0", "1", "nosuch"],
    &["z", "0", "1", "AUTH"],
    &["z", "0", "1", "AUTH2", "u"],
    &["z", "0", "5000", "AUTH", "wrong"],
    &["z", "0", "5000", "AUTH2", "nobody", "wrong"],
    &["z", "0"],
    &["z", "99", "5000"],
];

#[test]
fn migrates_as_redis_does() {
    let mut told = Vec::new();
    for (source, target) in
        [(Options::redis(), Options::redis()), (Options::evenkeel(), Options::redis())]
    {
        let source = Server::start(source).expect("start");
        let target = Server::start(target).expect("start");
        let mut client = source.client().unwrap();
        for line in
            ["SET s v", "HSET h f v", "RPUSH l a b c", "ZADD z 1 a 2 b", "SET t v PX 100000"]
        {
            client.line(line).unwrap();
        }
        let mut answers = Vec::new();
        for step in STEPS {
            let answer = migrate(&mut client, &target, step);
            let left = ["s", "h", "l", "z", "t"].map(|key| client.call(&["EXISTS", key]).unwrap());
            answers.push(format!("{step:?} {answer:?} {left:?}"));
        }
        let mut other = target.client().unwrap();
        for line in ["GET s", "LRANGE l 0 -1", "ZRANGE z 0 -1 WITHSCORES", "KEYS *"] {
            let mut items = other.line(line).unwrap();
            if let Value::Array(keys) = &mut items
                && line == "KEYS *"
            {
                keys.sort();
            }
            answers.push(format!("{line} {items:?}"));
        }
        let Value::Int(ttl) = other.line("PTTL t").unwrap() else { panic!("a number") };
        assert!((1..=100_000).contains(&ttl), "{ttl}");
        other.line("SELECT 9").unwrap();
        answers.push(format!("{:?}", other.line("HGETALL h").unwrap()));
        told.push(answers);
    }
    for (theirs, ours) in told[0].iter().zip(&told[1]) {
        assert_eq!(theirs, ours);
    }
}

#[test]
fn goes_to_a_server_of_its_own_kind_and_logs_in() {
    let source = Server::start(Options::evenkeel()).expect("start");
    let extra = vec!["--requirepass".to_owned(), "secret".to_owned()];
    let target = Server::start(Options { extra, ..Options::evenkeel() }).expect("start");
    let mut client = source.client().unwrap();
    let mut other = target.client().unwrap();
    other.line("AUTH secret").unwrap();
    other.line("ACL SETUSER u on >p +restore +select ~*").unwrap();
    let keys: Vec<String> = (0..1000).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        client.call(&["SET", key, &key.repeat(20)]).unwrap();
    }
    let refused = migrate(&mut client, &target, &["key:0", "0", "5000"]);
    let text = refused.error_text().into_owned();
    assert!(text.starts_with("ERR Target instance replied with error: NOAUTH"), "{text}");
    let mut line = vec!["", "0", "5000", "AUTH", "secret", "KEYS"];
    line.extend(keys[..500].iter().map(String::as_str));
    assert_eq!(migrate(&mut client, &target, &line), ok());
    let mut line = vec!["", "0", "5000", "AUTH2", "u", "p", "KEYS"];
    line.extend(keys[500..].iter().map(String::as_str));
    assert_eq!(migrate(&mut client, &target, &line), ok());
    assert_eq!(client.line("DBSIZE").unwrap(), Value::Int(0));
    assert_eq!(other.line("DBSIZE").unwrap(), Value::Int(1000));
    assert_eq!(other.line("GET key:999").unwrap().to_text(), "key:999".repeat(20));
}

#[test]
fn a_server_that_is_not_there_or_does_not_answer() {
    let source = Server::start(Options::evenkeel()).expect("start");
    let mut client = source.client().unwrap();
    client.line("SET k v").unwrap();
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    // Long enough to connect and to write on a busy machine.
    let answered = client.call(&["MIGRATE", "127.0.0.1", &port, "k", "0", "1000"]).unwrap();
    assert_eq!(answered.error_text(), "IOERR error or timeout reading to target instance");
    drop(silent);
    let answered = client.call(&["MIGRATE", "127.0.0.1", &port, "k", "0", "100"]).unwrap();
    assert_eq!(answered.error_text(), "IOERR error or timeout writing to target instance");
    assert_eq!(client.line("GET k").unwrap().to_text(), "v");
    assert_eq!(client.line("MULTI").unwrap(), ok());
    client.call(&["MIGRATE", "127.0.0.1", &port, "k", "0", "100"]).unwrap();
    assert!(client.line("EXEC").unwrap().items().expect("replies")[0].is_error());
}

#[test]
fn what_is_written_meanwhile_is_not_lost() {
    let source = Server::start(Options::evenkeel()).expect("start");
    let target = Server::start(Options::evenkeel()).expect("start");
    let mut client = source.client().unwrap();
    // Pushed as long as keys move: all elements are in the end on one of both servers.
    let mut writer = source.client().unwrap();
    let moved = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&moved);
    let pushes = std::thread::spawn(move || {
        let mut pushed = 0;
        while seen.load(Relaxed) < MOVES && pushed < PUSHES_MAX {
            writer.call(&["RPUSH", "list", &pushed.to_string()]).expect("an answer");
            pushed += 1;
        }
        pushed
    });
    let merge = "for _, v in ipairs(redis.call('lrange', 'taken', 0, -1)) do \
                 redis.call('rpush', 'all', v) end return redis.call('del', 'taken')";
    let mut other = target.client().unwrap();
    let mut ended = false;
    loop {
        let answered = migrate(&mut client, &target, &["list", "0", "5000", "REPLACE"]);
        if answered == ok() {
            moved.fetch_add(1, Relaxed);
            assert_eq!(other.line("RENAME list taken").unwrap(), ok());
            assert_eq!(other.call(&["EVAL", merge, "0"]).unwrap(), Value::Int(1));
        } else if answered.is_error() {
            assert!(answered.error_text().starts_with("TRYAGAIN"), "{answered:?}");
        }
        if ended {
            break;
        }
        // Once more when nobody pushes.
        ended = pushes.is_finished();
    }
    let pushed: i64 = pushes.join().expect("it ends");
    let count = |client: &mut Client, key: &str| match client.call(&["LLEN", key]).unwrap() {
        Value::Int(count) => count,
        refusal => panic!("{refusal:?}"),
    };
    assert_eq!(count(&mut client, "list"), 0);
    assert_eq!(count(&mut other, "all"), pushed, "moved {moved:?} times");
    assert!(moved.load(Relaxed) > 0);
}

//! SWAPDB: two databases change places at one moment, for everybody and for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value};

fn ok() -> Value {
    Value::Simple(b"OK".to_vec())
}

/// In order, on both servers.
const LINES: &[&str] = &[
    "SET k zero",
    "SELECT 9",
    "SET k nine",
    "SET only9 x",
    "SWAPDB 0 9",
    "GET k",
    "DBSIZE",
    "SELECT 0",
    "GET k",
    "COPY k k2 DB 0",
    "COPY k k3 DB 9",
    "MOVE only9 9",
    "MOVE k2 0",
    "DBSIZE",
    "SELECT 9",
    "MGET k k3 only9",
    "SWAPDB 9 3",
    "GET k",
    "SELECT 3",
    "GET k",
    "SWAPDB 0 0",
    "SWAPDB 0 99",
    "SWAPDB -1 0",
    "SWAPDB x 0",
    "SWAPDB 0 x",
    "SWAPDB 0",
    "INFO keyspace",
    "EVAL return(redis.call('get','k')) 0",
    "EVAL redis.call('select','3')return(redis.call('get','k')) 0",
    "FLUSHDB",
    "SELECT 0",
    "DBSIZE",
    // A key that was watched is another one now, or none; one that was not there still is not.
    "SET w 1",
    "WATCH w",
    "SWAPDB 0 5",
    "MULTI",
    "PING",
    "EXEC",
    "WATCH w nosuch",
    "SWAPDB 0 6",
    "MULTI",
    "PING",
    "EXEC",
    "WATCH nosuch",
    "SWAPDB 0 5",
    "MULTI",
    "GET w",
    "EXEC",
    "FLUSHALL",
    "INFO keyspace",
];

#[test]
fn answers_what_redis_answers() {
    let servers = [Options::redis(), Options::evenkeel()].map(|o| Server::start(o).expect("start"));
    let mut clients = servers.each_ref().map(|server| server.client().expect("connect"));
    for line in LINES {
        let [theirs, ours] = clients.each_mut().map(|client| {
            let answer = client.line(line).expect("an answer");
            let text = answer.to_text();
            match line.starts_with("INFO") {
                // Times to live are averaged over what is met.
                true => Value::Bulk(text.replace(",subexpiry=0", "").into_bytes()),
                false => answer,
            }
        });
        assert_eq!(theirs, ours, "{line}");
    }
}

#[test]
fn who_waits_gets_what_comes_to_his_database() {
    for options in [Options::redis(), Options::evenkeel()] {
        let server = Server::start(options).expect("start");
        let (mut client, mut waiter) = (server.client().unwrap(), server.client().unwrap());
        client.line("SELECT 9").unwrap();
        client.line("RPUSH l nine").unwrap();
        client.line("SELECT 0").unwrap();
        let mut bytes = Vec::new();
        compat_tests::resp::encode(&["BLPOP", "l", "0"], &mut bytes);
        waiter.send_raw(&bytes).unwrap();
        wait_until("the client is blocked", Duration::from_secs(10), || {
            Ok(client.line("INFO clients")?.to_text().contains("blocked_clients:1"))
        })
        .unwrap();
        assert_eq!(client.line("SWAPDB 0 9").unwrap(), ok());
        let served = waiter.read().unwrap().expect("a reply").value;
        assert_eq!(served.items().expect("a pair")[1].to_text(), "nine");
        // Again with nothing there: what is pushed to the database that it was is not his.
        waiter.send_raw(&bytes).unwrap();
        wait_until("the client is blocked", Duration::from_secs(10), || {
            Ok(client.line("INFO clients")?.to_text().contains("blocked_clients:1"))
        })
        .unwrap();
        assert_eq!(client.line("SWAPDB 0 9").unwrap(), ok());
        client.line("SELECT 9").unwrap();
        client.line("RPUSH l other").unwrap();
        client.line("SELECT 0").unwrap();
        client.line("RPUSH l his").unwrap();
        let served = waiter.read().unwrap().expect("a reply").value;
        assert_eq!(served.items().expect("a pair")[1].to_text(), "his");
    }
}

#[test]
fn events_name_the_database() {
    for options in [Options::redis(), Options::evenkeel()] {
        let server = Server::start(options).expect("start");
        let (mut client, mut subscriber) = (server.client().unwrap(), server.client().unwrap());
        client.line("CONFIG SET notify-keyspace-events KA").unwrap();
        subscriber.line("PSUBSCRIBE __keyspace@*").unwrap();
        client.line("SWAPDB 0 9").unwrap();
        client.line("SET k v").unwrap();
        let told = subscriber.read().unwrap().expect("an event").value;
        assert_eq!(told.items().expect("an event")[2].to_text(), "__keyspace@0__:k");
    }
}

#[test]
fn databases_stay_swapped() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.line("SET k zero").unwrap();
    for line in ["SWAPDB 0 1", "SWAPDB 1 2", "SWAPDB 0 3"] {
        assert_eq!(client.line(line).unwrap(), ok());
    }
    for _ in 0..2 {
        server.kill().expect("kill");
        server.launch().expect("launch");
        let mut client = server.client().unwrap();
        for database in 0..4 {
            client.line(&format!("SELECT {database}")).unwrap();
            let found = client.line("GET k").unwrap();
            assert_eq!(found != Value::Nil, database == 2, "{database}: {found:?}");
        }
    }
}

/// Swaps while others write: each write is in one of both databases, and whoever was told of a swap finds
/// what it says.
#[test]
fn nobody_falls_between() {
    if Options::evenkeel().is_redis() {
        return;
    }
    const SWAPS: usize = 60;
    let server = Server::start(Options::evenkeel()).expect("start");
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (mut client, ended) = (server.client().unwrap(), Arc::clone(&ended));
            std::thread::spawn(move || {
                let mut written: i64 = 0;
                while !ended.load(Relaxed) {
                    // Alone, in a pipeline and in a transaction.
                    let lines = ["INCR n", "MULTI", "INCR n", "INCR n", "EXEC", "INCR n"];
                    client.send_raw((lines.join("\r\n") + "\r\n").as_bytes()).unwrap();
                    for _ in lines {
                        let reply = client.read().unwrap().expect("a reply").value;
                        assert!(!reply.is_error(), "{writer}: {reply:?}");
                    }
                    written += 4;
                }
                written
            })
        })
        .collect();
    let mut clients = [0, 1].map(|database| {
        let mut client = server.client().unwrap();
        client.line(&format!("SELECT {database}")).unwrap();
        client.call(&["SET", "name", &database.to_string()]).unwrap();
        client
    });
    for swap in 1..=SWAPS {
        assert_eq!(clients[swap % 2].line("SWAPDB 0 1").unwrap(), ok());
        for (database, client) in clients.iter_mut().enumerate() {
            let wanted = ((database + swap) % 2).to_string();
            assert_eq!(client.line("GET name").unwrap().to_text(), wanted, "after {swap}");
        }
    }
    ended.store(true, Relaxed);
    let written: i64 = writers.into_iter().map(|writer| writer.join().expect("it ends")).sum();
    let count = |client: &mut Client| match client.line("GET n").unwrap() {
        Value::Nil => 0,
        found => found.to_text().parse::<i64>().expect("a number"),
    };
    let found: i64 = clients.iter_mut().map(count).sum();
    assert_eq!(found, written);
    assert!(written > 0);
    server.check_log().unwrap();
}

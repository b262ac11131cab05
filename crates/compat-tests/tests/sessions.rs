//! What a session keeps, loses and is spared: idle connections, pushes around RESET and HELLO, rules that
//! change under a pause. What Redis does is asked of Redis.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};

const WITHIN: Duration = Duration::from_secs(20);

/// The two servers: Redis, and the one under test.
fn both() -> [Server; 2] {
    [Options::redis(), Options::evenkeel()].map(|options| Server::start(options).expect("start"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn send(client: &mut Client, lines: &[&str]) {
    let mut bytes = Vec::new();
    for line in lines {
        encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
    }
    client.send_raw(&bytes).expect("send");
}

fn next(client: &mut Client) -> String {
    client.read().expect("a reply").map_or("closed".to_owned(), |reply| text(&reply.raw))
}

fn call(client: &mut Client, line: &str) -> String {
    send(client, &[line]);
    next(client)
}

fn is_listed(server: &mut Client, name: &str) -> bool {
    server.line("CLIENT LIST").expect("a list").to_text().contains(&format!(" name={name} "))
}

#[test]
fn only_who_is_idle_of_its_own_will_is_closed() {
    for server in both() {
        let mut judge = server.client().expect("connect");
        let mut idle = server.client().expect("connect");
        let waits = [
            ("subscriber", "SUBSCRIBE c"),
            ("shard", "SSUBSCRIBE c"),
            ("monitor", "MONITOR"),
            ("blocked", "BLPOP nothing 0"),
        ];
        let mut waiting = Vec::new();
        for (name, line) in waits {
            let mut client = server.client().expect("connect");
            assert_eq!(call(&mut client, &format!("CLIENT SETNAME {name}")), "+OK\r\n");
            send(&mut client, &[line]);
            waiting.push(client);
        }
        assert_eq!(call(&mut idle, "CLIENT SETNAME idle"), "+OK\r\n");
        assert_eq!(call(&mut judge, "CONFIG SET timeout 1"), "+OK\r\n");
        let is_closed = || {
            assert_eq!(call(&mut judge, "PING"), "+PONG\r\n");
            Ok(!is_listed(&mut judge, "idle"))
        };
        wait_until("the idle one is closed", WITHIN, is_closed).expect("in time");
        for (name, _) in waits {
            assert!(is_listed(&mut judge, name), "{name} was closed");
        }
    }
}

#[test]
fn who_is_killed_is_counted_no_more() {
    for server in both() {
        let mut client = server.client().expect("connect");
        let mut others: Vec<_> = (0..5).map(|_| server.client().expect("connect")).collect();
        others.iter_mut().for_each(|other| assert_eq!(call(other, "PING"), "+PONG\r\n"));
        assert_eq!(call(&mut client, "CLIENT KILL SKIPME yes"), ":5\r\n");
        assert!(call(&mut client, "INFO clients").contains("connected_clients:1\r\n"));
        // What a connection runs counts as its input until it is done.
        assert!(call(&mut client, "CLIENT INFO").contains(" qbuf=26 "));
        assert!(call(&mut client, "CLIENT LIST").contains(" qbuf=26 "));
    }
}

#[test]
fn a_script_may_take_longer_than_the_timeout() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().expect("connect");
    assert_eq!(call(&mut client, "CONFIG SET timeout 1"), "+OK\r\n");
    // Ended by hand when others have been closed.
    let script = "while true do redis.call('get', 'k') end";
    let mut idle = server.client().expect("connect");
    assert_eq!(call(&mut idle, "CLIENT SETNAME idle"), "+OK\r\n");
    let mut bytes = Vec::new();
    encode(&["EVAL", script, "0"], &mut bytes);
    client.send_raw(&bytes).expect("send");
    let mut judge = server.client().expect("connect");
    let is_closed = || {
        assert_eq!(call(&mut judge, "PING"), "+PONG\r\n");
        Ok(!is_listed(&mut judge, "idle"))
    };
    wait_until("the idle one is closed", WITHIN, is_closed).expect("in time");
    assert_eq!(call(&mut judge, "SCRIPT KILL"), "+OK\r\n");
    let ended = next(&mut client);
    assert!(ended.starts_with("-ERR Error running script") || ended.contains("killed"), "{ended}");
    assert_eq!(call(&mut client, "PING"), "+PONG\r\n");
}

/// What is answered to a pipeline, up to the reply to its last command, ECHO x.
fn told(client: &mut Client, pipeline: &[&str]) -> Vec<String> {
    send(client, pipeline);
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "$1\r\nx\r\n") {
        told.push(next(client));
    }
    told
}

/// What stands where when pushes end behind one, all in one pipeline.
#[test]
fn pushes_stand_before_what_ends_them() {
    let pipelines: [&[&str]; 4] = [
        &["SUBSCRIBE ch", "PUBLISH ch m", "RESET", "ECHO x"],
        &["CLIENT TRACKING ON", "GET k", "SET k v", "RESET", "ECHO x"],
        &["CLIENT TRACKING ON", "GET k", "SET k v", "CLIENT TRACKING OFF", "ECHO x"],
        &["PSUBSCRIBE c*", "PUBLISH ch m", "SUBSCRIBE ch", "PUBLISH ch n", "RESET", "ECHO x"],
    ];
    let servers = both();
    for pipeline in pipelines {
        let told = servers.each_ref().map(|server| {
            let mut client = server.client().expect("connect");
            client.line("HELLO 3").expect("HELLO");
            let mut told = told(&mut client, pipeline);
            // A change is told when it is durable: one that is not yet need not be told any more.
            told.retain(|line| !line.contains("invalidate"));
            assert_eq!(
                call(&mut client, "DEL k"),
                if told[1] == "_\r\n" { ":1\r\n" } else { ":0\r\n" }
            );
            // Redis 7.0 puts a connection's own message before the reply that it came with, and 7.2
            // behind it.
            let is_message = |line: &String| line.contains("message");
            let end = told.iter().position(|line| line == "+RESET\r\n");
            assert!(end.is_none_or(|end| !told[end..].iter().any(is_message)), "{told:?}");
            let (pushes, replies): (Vec<_>, Vec<_>) = told.into_iter().partition(is_message);
            (pushes, replies)
        });
        assert_eq!(told[0], told[1], "{pipeline:?}");
    }
}

#[test]
fn nothing_is_pushed_among_the_replies_of_resp2() {
    for server in both() {
        let mut client = server.client().expect("connect");
        client.line("HELLO 3").expect("HELLO");
        let lines = ["CLIENT TRACKING ON", "GET k", "SET k v", "HELLO 2", "PING", "ECHO x"];
        let told = told(&mut client, &lines);
        // HELLO's reply tells versions.
        let hello = told.iter().position(|line| line.contains("proto")).expect("HELLO's reply");
        assert_eq!(told[hello + 1..], ["+PONG\r\n", "$1\r\nx\r\n"], "{told:?}");
        // Nor later.
        assert_eq!(call(&mut client, "SET k w"), "+OK\r\n");
        assert_eq!(call(&mut client, "PING"), "+PONG\r\n");
    }
}

#[test]
fn rules_that_change_during_a_pause_hold_after_it() {
    for server in both() {
        let (mut admin, mut user) =
            (server.client().expect("connect"), server.client().expect("connect"));
        assert_eq!(call(&mut admin, "ACL SETUSER alice on nopass +@all ~*"), "+OK\r\n");
        assert_eq!(call(&mut user, "AUTH alice x"), "+OK\r\n");
        assert_eq!(call(&mut user, "CLIENT SETNAME alice"), "+OK\r\n");
        assert_eq!(call(&mut admin, "CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
        send(&mut user, &["SET k v"]);
        let is_held = || {
            let list = admin.line("CLIENT LIST").expect("a list").to_text();
            let line = list.lines().find(|line| line.contains(" name=alice ")).map(str::to_owned);
            Ok(line.is_some_and(|line| line.contains(" flags=b ")))
        };
        wait_until("the write is held back", WITHIN, is_held).expect("in time");
        assert_eq!(call(&mut admin, "ACL SETUSER alice -set"), "+OK\r\n");
        assert_eq!(call(&mut admin, "CLIENT UNPAUSE"), "+OK\r\n");
        let refused = next(&mut user);
        assert!(refused.starts_with("-NOPERM"), "{refused}");
        assert_eq!(call(&mut admin, "EXISTS k"), ":0\r\n");
    }
}

#[test]
fn an_exec_that_is_denied_ends_its_transaction() {
    let told = both().map(|server| {
        let (mut admin, mut user) =
            (server.client().expect("connect"), server.client().expect("connect"));
        assert_eq!(call(&mut admin, "ACL SETUSER u on nopass +@all ~* -exec"), "+OK\r\n");
        assert_eq!(call(&mut user, "AUTH u x"), "+OK\r\n");
        ["MULTI", "SET a 1", "EXEC", "GET a", "EXEC", "EXEC x", "GET a"]
            .map(|line| call(&mut user, line))
    });
    // Since 7.2 a refusal names the user.
    let later =
        told[0].each_ref().map(|reply| reply.replace("NOPERM this user has", "NOPERM User u has"));
    assert_eq!(later, told[1]);
    assert!(told[1][2].starts_with("-EXECABORT"), "{:?}", told[1]);
}

/// A user with rules sends the start of every command, and is answered.
#[test]
fn short_lines_of_a_restricted_user_are_answered() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut admin = server.client().expect("connect");
    assert_eq!(call(&mut admin, "ACL SETUSER u on nopass +@all -shutdown -debug ~x*"), "+OK\r\n");
    let names = admin.line("COMMAND LIST").expect("names");
    let names: Vec<String> = names.items().expect("names").iter().map(Value::to_text).collect();
    assert!(names.len() > 200);
    let log_in = || {
        let mut user = server.client().expect("connect");
        assert_eq!(call(&mut user, "AUTH u x"), "+OK\r\n");
        user
    };
    let mut user = log_in();
    for name in &names {
        let words: Vec<&str> = name.split('|').collect();
        for length in words.len()..words.len() + 4 {
            let mut line = words.clone();
            line.resize(length, "x1");
            let mut bytes = Vec::new();
            encode(&line, &mut bytes);
            user.send_raw(&bytes).expect("send");
            let may_wait = ["wait", "waitaof", "monitor", "quit", "reset", "client|pause"];
            if may_wait.contains(&name.as_str())
                || name.contains("subscribe")
                || name == "client|reply"
            {
                user = log_in();
                continue;
            }
            let answer = user.read().expect("an answer").map(|reply| text(&reply.raw));
            assert!(answer.is_some(), "{line:?} closed the connection");
        }
        assert!(!call(&mut user, "DISCARD").is_empty());
    }
    server.check_log().expect("no panic");
}

/// Commands that the router runs and others notice, next to those that notice them.
#[test]
fn a_transaction_keeps_its_order() {
    const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let call_sha = format!("EVALSHA {SHA} 0");
    let transactions: [&[&str]; 5] = [
        &["SCRIPT|LOAD|return 1", &call_sha],
        &[&call_sha, "SCRIPT FLUSH"],
        &["SCRIPT FLUSH", &call_sha],
        &["SET k v", "SCRIPT|LOAD|return 1", "GET k", &call_sha, "PING"],
        &["SELECT 3", "SET k 3", "PUBLISH ch x", "SCRIPT FLUSH", "CLIENT GETNAME"],
    ];
    let servers = both();
    for transaction in transactions {
        let told = servers.each_ref().map(|server| {
            let mut client = server.client().expect("connect");
            call(&mut client, "MULTI");
            for line in transaction {
                let words: Vec<&str> = match line.contains('|') {
                    true => line.split('|').collect(),
                    false => line.split(' ').collect(),
                };
                assert_eq!(client.call(&words).expect("queued").to_text(), "QUEUED");
            }
            call(&mut client, "EXEC")
        });
        assert_eq!(told[0], told[1], "{transaction:?}");
    }
    // In the middle is no place for them.
    let mut client = servers[1].client().expect("connect");
    for line in ["MULTI", &call_sha, "SCRIPT FLUSH", &call_sha] {
        call(&mut client, line);
    }
    let refused = call(&mut client, "EXEC");
    assert!(refused.starts_with("-EXECABORT"), "{refused}");
    assert_eq!(call(&mut client, "GET k"), "$1\r\nv\r\n");
}

/// Long replies are replies, however slowly they are taken.
#[test]
fn long_replies_are_allowed() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().expect("connect");
    let value = "v".repeat(24 << 20);
    assert_eq!(client.call(&["SET", "k", &value]).expect("set").to_text(), "OK");
    let replies = client.call(&["MGET", "k", "k", "k"]).expect("three values");
    let lengths: Vec<usize> =
        replies.items().expect("values").iter().map(|value| value.to_text().len()).collect();
    assert_eq!(lengths, [value.len(); 3]);
}

/// An address of this machine that is not the loopback's, if it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[test]
fn without_a_password_others_are_kept_out() {
    let Some(address) = own_address() else { return };
    let extra = vec!["--bind".to_owned(), address.to_string()];
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options { extra, ..Options::evenkeel() }).expect("start");
    let mut admin = server.client().expect("connect");
    // As far as a line; who is kept out is told without having said anything.
    let told = |says: &[u8]| {
        let mut stream = TcpStream::connect((address, server.port())).expect("connect");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        // The other side may have closed already.
        let _ = stream.write_all(says);
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            line.push(byte[0]);
        }
        text(&line)
    };
    let refused = told(b"");
    assert!(refused.starts_with("-DENIED Redis is running in protected mode"), "{refused}");
    assert_eq!(call(&mut admin, "CONFIG SET protected-mode no"), "+OK\r\n");
    assert_eq!(told(b"PING\r\n"), "+PONG\r\n");
    assert_eq!(call(&mut admin, "CONFIG SET protected-mode yes requirepass x"), "+OK\r\n");
    assert!(told(b"PING\r\n").starts_with("-NOAUTH"));
}

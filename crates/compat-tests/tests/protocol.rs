//! What a client may send below the level of commands: inline lines, blank lines, empty arrays,
//! broken lengths, half commands. The bytes that come back until the server closes are Redis's.

use std::time::Duration;

use compat_tests::differential::differences::{PROTOCOL_DIFFERENCES, in_later_words};
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode, show};

/// Sent as they stand. Behind each the client ends its side, so that both servers close.
const CASES: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"ping hello\r\n",
    b"  PING  \r\n",
    b"SET inline \"a \\x41 \\n b\"\r\nGET inline\r\n",
    b"SET inline 'single \\' quote'\r\nGET inline\r\n",
    b"SET inline \"unbalanced\r\n",
    b"SET inline \"a\"b\r\n",
    b"\r\n\r\nPING\r\n",
    b"\n\nPING\r\n",
    b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$5\r\na\r\nb\r\n\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$4x\r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*abc\r\n",
    b"*\r\n",
    b"*1048577\r\n",
    b"*2147483648\r\n",
    b"*99999999999999999999\r\n",
    b"*2\r\n$4\r\nECHO\r\n",
    b"*2\r\n$4\r\nECHO\r\n$10\r\nabc",
    b"$4\r\nPING\r\n",
    b"+PING\r\n",
    b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"\x00\x01\x02\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"PING\r\nHost: x\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n",
];

fn answer(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(server.port()).expect("connect");
    // The server may refuse, and close, before it has taken all.
    let _ = client.send_raw(bytes).and_then(|()| client.finish_sending());
    client.read_to_close().expect("bytes until the server closes")
}

#[test]
fn odd_bytes_are_answered_as_redis_answers_them() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let expected_log = vec!["closed: it speaks HTTP"];
    let target = Server::start(Options { expected_log, ..Options::evenkeel() })
        .expect("start the server under test");
    let mut wrong = Vec::new();
    for case in CASES {
        let (theirs, ours) = (answer(&redis, case), answer(&target, case));
        let listed = PROTOCOL_DIFFERENCES
            .iter()
            .any(|(sent, reply, _)| sent == case && theirs.is_empty() && *reply == ours);
        if theirs != ours && !listed {
            let text = [*case, &theirs, &ours].map(show);
            wrong.push(format!("sent   {}\nRedis  {}\ntarget {}", text[0], text[1], text[2]));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn a_long_inline_line_is_refused() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let line = vec![b'x'; 70 * 1024];
    assert_eq!(show(&answer(&redis, &line)), show(&answer(&target, &line)));
}

#[test]
fn a_command_cut_anywhere_is_one_command() {
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let mut bytes = Vec::new();
    encode(&[&b"SET"[..], b"cut", b"a\r\nb"], &mut bytes);
    encode(&[&b"GET"[..], b"cut"], &mut bytes);
    for cut in 1..bytes.len() {
        let mut client = target.client().expect("connect");
        client.send_raw(&bytes[..cut]).unwrap();
        // An exchange on another connection in between: time for the first part to be read by itself.
        assert_eq!(target.client().unwrap().line("PING").unwrap(), Value::Simple(b"PONG".into()));
        client.send_raw(&bytes[cut..]).unwrap();
        assert_eq!(client.read().unwrap().unwrap().value, Value::Simple(b"OK".into()), "cut {cut}");
        assert_eq!(
            client.read().unwrap().unwrap().value,
            Value::Bulk(b"a\r\nb".into()),
            "cut {cut}"
        );
    }
}

#[test]
fn a_megabyte_value_and_a_thousand_arguments_arrive() {
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let mut client = target.client().expect("connect");
    let big: Vec<u8> = (0..1024 * 1024).map(|at: u32| (at * 31) as u8).collect();
    assert!(!client.call(&[b"SET", &b"big"[..], &big]).unwrap().is_error());
    assert_eq!(client.line("GET big").unwrap(), Value::Bulk(big));
    let mut command = vec!["MSET".to_owned()];
    (0..1_000).for_each(|at| command.extend([format!("many:{at}"), at.to_string()]));
    assert_eq!(client.call(&command).unwrap(), Value::Simple(b"OK".into()));
    assert_eq!(client.line("GET many:999").unwrap(), Value::Bulk(b"999".into()));
}

/// Sends the lines on a connection of its own to both servers; the replies must be the same bytes.
fn same_dialogue(servers: [&Server; 2], lines: &[&str]) {
    let mut clients = servers.map(|server| Client::connect(server.port()).expect("connect"));
    for line in lines {
        let [theirs, ours] = clients.each_mut().map(|client| {
            let mut bytes = Vec::new();
            encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
            client.send_raw(&bytes).unwrap();
            client.read().unwrap().map(|reply| show(&reply.raw))
        });
        assert_eq!(theirs.as_deref().map(in_later_words), ours, "{line} (of {lines:?})");
    }
}

#[test]
fn a_password_is_asked_for_as_redis_does() {
    let password = Some("s3cret".to_owned());
    let redis = Server::start(Options { password: password.clone(), ..Options::redis() }).unwrap();
    let target = Server::start(Options { password, ..Options::evenkeel() }).unwrap();
    let servers = [&redis, &target];
    same_dialogue(
        servers,
        &["GET a", "PING", "nosuch", "CLIENT ID", "AUTH wrong", "GET a", "AUTH s3cret", "GET a"],
    );
    same_dialogue(servers, &["AUTH default wrong", "AUTH default s3cret", "PING"]);
    same_dialogue(servers, &["AUTH nobody s3cret", "AUTH a b c", "AUTH", "QUIT"]);
    same_dialogue(
        servers,
        &["HELLO", "HELLO 3", "HELLO 3 AUTH default wrong", "HELLO 9", "SET a b"],
    );
    same_dialogue(servers, &["AUTH s3cret", "PING", "RESET", "PING"]);
}

#[test]
fn one_connection_more_than_allowed_is_refused() {
    let clients_max = Some(10);
    let redis = Server::start(Options { clients_max, ..Options::redis() }).unwrap();
    let target = Server::start(Options { clients_max, ..Options::evenkeel() }).unwrap();
    let refusals = [&redis, &target].map(|server| {
        let mut open = Vec::new();
        // Earlier connections (the wait for readiness) may still be on their way out, so the count
        // at which it begins is only bounded.
        for _ in 0..12 {
            let mut client = Client::connect(server.port()).unwrap();
            match client.line("PING") {
                Ok(Value::Simple(_)) => open.push(client),
                Ok(refusal) => return (open.len(), format!("{refusal:?}")),
                // Closed before the PING was read: the refusal is lost with the reset.
                Err(_) => return (open.len(), String::new()),
            }
        }
        (open.len(), "never refused".to_owned())
    });
    for (open, text) in &refusals {
        assert!((8..=10).contains(open), "{refusals:?}");
        assert!(text.is_empty() || text.contains("max number of clients reached"), "{refusals:?}");
    }
}

#[test]
fn client_kill_and_list_see_the_other_connection() {
    let redis = Server::start(Options::redis()).unwrap();
    let target = Server::start(Options::evenkeel()).unwrap();
    for server in [&redis, &target] {
        let mut killer = server.client().unwrap();
        let mut victim = server.client().unwrap();
        victim.line("CLIENT SETNAME victim").unwrap();
        let Value::Int(id) = victim.line("CLIENT ID").unwrap() else { panic!("an id") };
        let list = killer.line("CLIENT LIST").unwrap().to_text();
        let line =
            list.lines().find(|line| line.contains("name=victim")).expect("listed").to_owned();
        assert!(line.contains(&format!("id={id} ")), "{line}");
        let own = killer.line(&format!("CLIENT LIST ID {id}")).unwrap().to_text();
        assert_eq!(own.lines().count(), 1, "{own}");
        assert_eq!(killer.line(&format!("CLIENT KILL ID {id}")).unwrap(), Value::Int(1));
        assert!(matches!(victim.read(), Ok(None)), "the victim's connection is closed");
        assert_eq!(killer.line(&format!("CLIENT KILL ID {id}")).unwrap(), Value::Int(0));
        wait_until("the list forgets the victim", Duration::from_secs(5), || {
            Ok(!killer.line("CLIENT LIST")?.to_text().contains("name=victim"))
        })
        .unwrap();
        // A connection that kills itself gets its answer first.
        let address = line_field(&killer.line("CLIENT INFO").unwrap().to_text(), "addr");
        assert_eq!(
            killer.line(&format!("CLIENT KILL {address}")).unwrap(),
            Value::Simple(b"OK".into())
        );
        assert!(matches!(killer.read(), Ok(None)));
    }
}

fn line_field(line: &str, name: &str) -> String {
    let field = line.split(' ').find_map(|field| field.strip_prefix(&format!("{name}=")));
    field.expect("the field").to_owned()
}

#[test]
fn client_pause_holds_others_back() {
    let target = Server::start(Options::evenkeel()).unwrap();
    let (mut one, mut other) = (target.client().unwrap(), target.client().unwrap());
    // Longer than any reply is waited for here.
    assert_eq!(one.line("CLIENT PAUSE 3600000 WRITE").unwrap(), Value::Simple(b"OK".into()));
    assert_eq!(other.line("GET a").unwrap(), Value::Nil, "reads go on");
    assert_eq!(one.line("CLIENT UNPAUSE").unwrap(), Value::Simple(b"OK".into()));
    let start = std::time::Instant::now();
    assert_eq!(one.line("CLIENT PAUSE 300 WRITE").unwrap(), Value::Simple(b"OK".into()));
    assert_eq!(other.line("SET a b").unwrap(), Value::Simple(b"OK".into()));
    assert!(start.elapsed() >= Duration::from_millis(300), "writes wait: {:?}", start.elapsed());
}

#[test]
fn who_is_held_back_counts_as_blocked() {
    let target = Server::start(Options::evenkeel()).unwrap();
    let (mut one, mut other) = (target.client().unwrap(), target.client().unwrap());
    let Value::Int(id) = other.line("CLIENT ID").unwrap() else { panic!("no id") };
    one.line("CLIENT PAUSE 60000 WRITE").unwrap();
    other.send_raw(b"SET a b\r\n").unwrap();
    let blocked = |client: &mut Client| {
        Ok(client.line("INFO clients")?.to_text().contains("blocked_clients:1\r\n"))
    };
    wait_until("the writer is held back", Duration::from_secs(5), || blocked(&mut one)).unwrap();
    assert_eq!(one.line(&format!("CLIENT UNBLOCK {id}")).unwrap(), Value::Int(0));
    one.line("CLIENT UNPAUSE").unwrap();
    assert_eq!(other.read().unwrap().unwrap().value, Value::Simple(b"OK".into()));
    assert!(!blocked(&mut one).unwrap());
}

#[test]
fn dumps_cross_over() {
    let redis = Server::start(Options::redis()).unwrap();
    let target = Server::start(Options::evenkeel()).unwrap();
    let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
    let long = "compressible ".repeat(1_000);
    for value in ["", "x", "12", "-129", "40000", "3000000000", "9223372036854775807", "1e5", &long]
    {
        for (from, to) in [(0, 1), (1, 0), (1, 1)] {
            let ends = [&mut theirs, &mut ours];
            ends[from].call(&["SET", "dumped", value]).unwrap();
            let payload = ends[from].line("DUMP dumped").unwrap();
            let payload = payload.text().expect("a payload").to_vec();
            ends[to].line("DEL dumped").unwrap();
            let reply = ends[to].call(&[b"RESTORE", &b"dumped"[..], b"0", &payload]).unwrap();
            assert_eq!(reply, Value::Simple(b"OK".into()), "{value:?} from {from} to {to}");
            assert_eq!(ends[to].line("GET dumped").unwrap(), Value::Bulk(value.into()));
        }
    }
}

//! What a server on a network meets that means it no good: bytes of other protocols, promises that are not
//! kept, state that is abused, work that is out of proportion. It refuses or closes, keeps its memory, and
//! serves others meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a bystander's PING may take. Far above the goal (100 ms), since tests share their machine.
const STALL_MAX: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

fn start(options: Options) -> Server {
    let expected_log = vec![
        "closed: it speaks HTTP",
        "closed: its replies are not read",
        "closed: it queues too much",
        "closed: clients hold more than maxmemory-clients",
    ];
    Server::start(Options { expected_log, ..options }).expect("start")
}

fn socket(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Sends bytes and the end of the stream; what came until the server closed. It must close.
fn say(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = socket(server);
    let mut said = Vec::new();
    // It may refuse, and close, before it has taken all; a reset counts as closed.
    if stream.write_all(bytes).is_ok() {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("it neither answers nor closes: {}", bytes[..bytes.len().min(60)].escape_ascii())
        }
        _ => said,
    }
}

fn assert_serves(server: &Server, after: &str) {
    let mut client = server.client().expect(after);
    assert_eq!(client.line("PING").expect(after), Value::Simple(b"PONG".into()), "{after}");
}

/// Resident memory of a server, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Asks for PONG again and again; the longest wait.
struct Bystander {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Bystander {
    fn watch(server: &Server) -> Bystander {
        let over = Arc::new(AtomicBool::new(false));
        let (seen, mut client) = (over.clone(), server.client().expect("connect"));
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !seen.load(Relaxed) {
                let started = Instant::now();
                assert_eq!(client.line("PING").expect("PONG"), Value::Simple(b"PONG".into()));
                longest = longest.max(started.elapsed());
            }
            longest
        });
        Bystander { over, thread }
    }

    fn assert_not_stalled(self, by: &str) {
        self.over.store(true, Relaxed);
        let longest = self.thread.join().expect("a bystander");
        assert!(longest < STALL_MAX, "{by} stalls others for {longest:?}");
    }
}

#[test]
fn frames_of_every_kind_are_refused_or_answered() {
    let server = start(Options::evenkeel());
    let mut cases: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte, b'\r', b'\n']).collect();
    cases.extend((0..=255).map(|byte| vec![b'*', b'1', b'\r', b'\n', byte, b'\r', b'\n']));
    let values: [&[u8]; 16] = [
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(12345678901234567890\r\n",
        b"!5\r\nERR x\r\n",
        b"=8\r\ntxt:abcd\r\n",
        b"~1\r\n$1\r\na\r\n",
        b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"|1\r\n$1\r\na\r\n$1\r\nb\r\n",
        b">1\r\n$1\r\na\r\n",
        b":1\r\n",
        b"+a\r\n",
        b"-a\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"$?\r\n;1\r\na\r\n;0\r\n",
    ];
    for value in values {
        cases.push(value.to_vec());
        cases.push([b"*2\r\n$4\r\nECHO\r\n", value].concat());
    }
    cases.push(b"*1\r\n".repeat(10_000));
    cases.push(b"*1\r\n$4\r\nPING".to_vec());
    cases.push(b"*2\r\n$4\r\nECHO\r\n$3\r\nabcdef\r\n".to_vec());
    cases.push(b"*2\r\n$4\r\nECHO\r\n$6\r\nabc\r\n".to_vec());
    cases.push(b"*1\n$4\nPING\n".to_vec());
    cases.push(b"*1\r$4\rPING\r".to_vec());
    cases.push(b"*2\r\n$4\r\nECHO\r\n$1\r\naXY".to_vec());
    cases.push([b"*", &b"1"[..], &b"0".repeat(70_000)].concat());
    cases.push([b"$", &b"1"[..], &b"0".repeat(70_000), b"\r\n"].concat());
    cases.push([&b"GET "[..], &b"x".repeat(1 << 20), b"\r\n"].concat());
    for lengths in [
        "+1",
        " 1",
        "1 ",
        "0x1",
        "1.0",
        "\0",
        "01",
        "-2",
        "18446744073709551617",
        "9223372036854775807",
    ] {
        cases.push(format!("*{lengths}\r\n$4\r\nPING\r\n").into_bytes());
        cases.push(format!("*1\r\n${lengths}\r\nPING\r\n").into_bytes());
    }
    for case in &cases {
        let said = say(&server, case);
        // Each answer is RESP, whatever was asked.
        let begins = said.first().is_none_or(|first| b"+-:$*_#,(=~%".contains(first));
        assert!(begins, "{}: {}", case.escape_ascii(), said.escape_ascii());
    }
    assert_serves(&server, "odd frames");
}

#[test]
fn other_protocols_are_turned_away() {
    let server = start(Options::evenkeel());
    let before = resident(&server);
    let foreign: [(&str, &[u8]); 14] = [
        ("HTTP/1 GET", b"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"),
        ("HTTP/1 POST", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nSET k 1\r\nFLUSHALL\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x0a\x0d\x00\x00\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\x00\x00\x01\x14\x0a\x14"),
        ("SMB", b"\x00\x00\x00\x54\xffSMBr\x00\x00\x00\x00\x18\x01\x28\r\n"),
        ("RDP", b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00\r\n"),
        ("PROXY v1", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nPING\r\n"),
        ("PROXY v2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02\r\n"),
        ("memcached", b"set k 0 0 5\r\nhello\r\nget k\r\nstats\r\n"),
        ("MySQL", b"\x4a\x00\x00\x01\x8d\xa6\x03\x00\x00\x00\x00\x01root\x00\r\n"),
        ("Postgres", b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n"),
        ("Kafka", b"\x00\x00\x00\x1a\x00\x12\x00\x03\x00\x00\x00\x01\x00\x06client\r\n"),
        ("cluster bus", b"RCmb\x00\x00\x08\xb8\x00\x01\x1a\xeb\x00\x00\x00\x00\r\n"),
    ];
    for (name, bytes) in foreign {
        let said = say(&server, bytes);
        assert!(said.len() < 4096, "{name}: {} bytes", said.len());
        assert_serves(&server, name);
    }
    // What a browser was tricked into sending has not been run.
    let mut client = server.client().unwrap();
    assert_eq!(client.line("DBSIZE").unwrap(), Value::Int(0));
    // And a megabyte of anything, many times.
    let noise: Vec<u8> =
        (0..1u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    for start in 0..64 {
        say(&server, &noise[start * 16_000..]);
    }
    assert!(resident(&server) < before + 64 * MIB, "{} before, {} now", before, resident(&server));
    assert_serves(&server, "noise");
}

#[test]
fn promises_take_no_memory() {
    let server = start(Options::evenkeel());
    let before = resident(&server);
    let mut open = Vec::new();
    for promise in [
        &b"*2\r\n$3\r\nGET\r\n$67108864\r\nabc"[..],
        b"*1048576\r\n$1\r\na\r\n",
        b"*3\r\n$3\r\nSET\r\n$67108864\r\n",
    ] {
        for _ in 0..150 {
            let mut stream = socket(&server);
            stream.write_all(promise).expect("it reads");
            open.push(stream);
        }
    }
    assert_serves(&server, "promises");
    let mut client = server.client().unwrap();
    wait_until("all have been read", PATIENCE, || {
        let list = client.line("CLIENT LIST")?.to_text();
        Ok(list.lines().filter(|line| !line.contains(" qbuf=0 ")).count() > 400)
    })
    .unwrap();
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes for {} promises", open.len());
    drop(open);
    wait_until("all are gone", PATIENCE, || {
        Ok(client.line("CLIENT LIST")?.to_text().lines().count() == 1)
    })
    .unwrap();
}

/// Each of them keeps within its own limit.
#[test]
fn connections_together_hold_only_so_much() {
    let server = start(Options::evenkeel());
    let mut client = server.client().unwrap();
    client.line("CONFIG SET maxmemory-clients 32mb").unwrap();
    let mut innocent = server.client().unwrap();
    innocent.line("CLIENT SETNAME innocent").unwrap();
    let part = vec![b'x'; 10 * MIB as usize];
    let mut open = Vec::new();
    for number in 0..20 {
        let mut stream = socket(&server);
        if number == 0 {
            stream.write_all(b"CLIENT NO-EVICT ON\r\n").expect("it reads");
            stream.read_exact(&mut [0; 5]).expect("+OK");
        }
        stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n").expect("it reads");
        // It may be closed meanwhile.
        let _ = stream.write_all(&part);
        open.push(stream);
    }
    let held = |client: &mut Client| {
        let list = client.line("CLIENT LIST").expect("a list").to_text();
        let fields = list.split([' ', '\n']).filter_map(|field| field.strip_prefix("qbuf="));
        fields.map(|bytes| bytes.parse::<u64>().expect("a number")).sum::<u64>()
    };
    wait_until("the largest are closed", PATIENCE, || {
        let info = client.line("INFO stats")?.to_text();
        let evicted = info.lines().find_map(|line| line.strip_prefix("evicted_clients:"));
        let evicted: u64 = evicted.expect("a field").parse()?;
        Ok(evicted >= 16 && held(&mut client) <= 32 * MIB)
    })
    .unwrap();
    assert_eq!(innocent.line("CLIENT GETNAME").unwrap().to_text(), "innocent");
    // Whoever is not to be evicted goes on.
    let rest = [&vec![b'x'; 54 * MIB as usize][..], b"\r\n"].concat();
    open[0].write_all(&rest).expect("it reads");
    let mut reply = [0; 5];
    open[0].read_exact(&mut reply).expect("an answer");
    assert_eq!(&reply, b"+OK\r\n");
    assert_eq!(client.line("STRLEN k").unwrap(), Value::Int(64 << 20));
}

#[test]
fn state_is_not_to_be_abused() {
    let server = start(Options::evenkeel());
    let before = resident(&server);
    let mut client = server.client().unwrap();
    assert_eq!(client.line("MULTI").unwrap(), Value::Simple(b"OK".into()));
    assert!(client.line("MULTI").unwrap().is_error());
    let mut bytes = Vec::new();
    for at in 0..50_000 {
        encode(&["SET".to_owned(), format!("k{}", at % 10), at.to_string()], &mut bytes);
    }
    encode(&["EXEC"], &mut bytes);
    client.send_raw(&bytes).unwrap();
    for at in 0..50_000 {
        assert_eq!(client.read().unwrap().unwrap().value.to_text(), "QUEUED", "{at}");
    }
    let outcome = client.read().unwrap().unwrap().value;
    assert!(outcome.items().is_some_and(|all| all.len() == 50_000) || outcome.is_error());
    // Protocols in turn, in one pipeline.
    let mut bytes = Vec::new();
    for at in 0..2_000 {
        encode(&["HELLO", if at % 2 == 0 { "3" } else { "2" }], &mut bytes);
        encode(&["GET", "nosuch"], &mut bytes);
    }
    client.send_raw(&bytes).unwrap();
    for _ in 0..4_000 {
        client.read().unwrap().expect("a reply");
    }
    // A flood that wants no answers: none comes, and it is all done.
    let mut bytes = Vec::new();
    encode(&["CLIENT", "REPLY", "OFF"], &mut bytes);
    (0..20_000).for_each(|_| encode(&["INCR", "flood"], &mut bytes));
    encode(&["CLIENT", "REPLY", "ON"], &mut bytes);
    encode(&["GET", "flood"], &mut bytes);
    client.send_raw(&bytes).unwrap();
    assert_eq!(client.read().unwrap().unwrap().value, Value::Simple(b"OK".into()));
    assert_eq!(client.read().unwrap().unwrap().value.to_text(), "20000");
    assert!(resident(&server) < before + 256 * MIB);
    assert_serves(&server, "abuse");
}

#[test]
fn small_requests_do_not_make_huge_work() {
    let server = start(Options::evenkeel());
    let mut client = server.client().unwrap();
    let keys: Vec<String> = (0..50_000).map(|at| format!("key:{at}")).collect();
    for some in keys.chunks(1_000) {
        let mut line = vec!["MSET".to_owned()];
        some.iter().for_each(|key| line.extend([key.clone(), "v".to_owned()]));
        assert!(!client.call(&line).unwrap().is_error());
    }
    client.line("SADD set a b c").unwrap();
    client.line("HSET hash a 1").unwrap();
    client.line("ZADD zset 1 a").unwrap();
    client.line("RPUSH list a").unwrap();
    let before = resident(&server);
    let bystander = Bystander::watch(&server);
    for line in [
        "SETBIT bits 4294967295 1",
        "SETBIT bits 999999999999999 1",
        "SETRANGE s 536870911 x",
        "SETRANGE s 9223372036854775807 x",
        "BITFIELD b SET u8 #9223372036854775807 1",
        "BITFIELD b SET u8 4294967000 1",
        "APPEND s x",
        "GETRANGE s -9223372036854775808 9223372036854775807",
        "SRANDMEMBER set -9223372036854775808",
        "SRANDMEMBER set -1000000000",
        "HRANDFIELD hash -1000000000 WITHVALUES",
        "ZRANDMEMBER zset -1000000000",
        "SRANDMEMBER set 9223372036854775807",
        "LRANGE list -9223372036854775808 9223372036854775807",
        "SPOP nosuch 9223372036854775807",
        "SCAN 0 COUNT 9223372036854775807",
        "KEYS nosuch*",
        "LCS key:1 key:2",
        "OBJECT HELP",
        "SORT list LIMIT -1 9223372036854775807",
        "LPOS list a MAXLEN 9223372036854775807 RANK -9223372036854775808",
        "XADD x MAXLEN = 9223372036854775807 * f v",
        "XRANGE x - + COUNT 9223372036854775807",
        "PSETEX k 9223372036854775807 v",
        "EXPIRE set 9223372036854775807",
    ] {
        client.line(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for glob in [
        "a*".repeat(1_000) + "b",
        "*".repeat(2_000),
        "[".repeat(1_000),
        "\\".repeat(1_000),
        "?*".repeat(999),
    ] {
        client.call(&["KEYS", &glob]).expect("an answer");
        client.call(&["SCAN", "0", "MATCH", &glob, "COUNT", "1000"]).expect("an answer");
    }
    let mut watch = vec!["WATCH".to_owned()];
    watch.extend(keys.iter().take(20_000).cloned());
    assert!(!client.call(&watch).unwrap().is_error());
    client.line("UNWATCH").unwrap();
    let mut del = vec!["DEL".to_owned()];
    del.extend(keys);
    assert_eq!(client.call(&del).unwrap(), Value::Int(50_000));
    bystander.assert_not_stalled("huge work");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 256 * MIB, "{grown} bytes");
}

#[test]
fn nothing_is_given_to_strangers() {
    let password = Some("s3cret".to_owned());
    let server = start(Options { password, ..Options::evenkeel() });
    let before = resident(&server);
    let all = server.client().unwrap().line("COMMAND LIST").unwrap();
    for name in all.items().expect("names") {
        let name = name.to_text();
        let words: Vec<&str> = name.split('|').collect();
        if matches!(words[0], "auth" | "hello" | "quit" | "reset") {
            continue;
        }
        let mut client = Client::connect(server.port()).unwrap();
        for more in 0..4 {
            let line = [&words[..], &["1"; 3][..more]].concat();
            let reply = client.call(&line).unwrap();
            // A wrong number of arguments is told first, as in Redis.
            let text = reply.error_text().into_owned();
            let refused = ["NOAUTH", "ERR wrong number", "ERR unknown subcommand", "EXECABORT"]
                .iter()
                .any(|start| text.starts_with(start));
            assert!(refused, "{line:?}: {reply:?}");
        }
    }
    // More arguments, or longer ones, than a log-in needs.
    for (bytes, why) in [
        (format!("*11\r\n{}", "$4\r\nPING\r\n".repeat(11)), "unauthenticated multibulk length"),
        (
            format!("*2\r\n$4\r\nAUTH\r\n$16385\r\n{}", "x".repeat(100)),
            "unauthenticated bulk length",
        ),
    ] {
        let said = String::from_utf8_lossy(&say(&server, bytes.as_bytes())).into_owned();
        assert!(said.contains(why), "{said}");
    }
    // Refusals that nobody reads.
    let flood = b"PING\r\n".repeat(200_000);
    for _ in 0..10 {
        let mut stream = socket(&server);
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // It stops taking them, or closes.
        let _ = stream.write_all(&flood);
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes");
    assert_serves(&server, "strangers");
}

#[test]
fn no_reply_can_be_forged() {
    let server = start(Options::evenkeel());
    let mut client = server.client().unwrap();
    let evil = "x\r\n+FORGED\r\n$6\r\nFORGED\r\n";
    for line in [
        vec![evil],
        vec!["GET", evil, evil],
        vec!["CONFIG", evil],
        vec!["CONFIG", "SET", evil, "1"],
        vec!["CONFIG", "SET", "loglevel", evil],
        vec!["CLIENT", "KILL", "USER", evil],
        vec!["CLIENT", "LIST", "TYPE", evil],
        vec!["CLIENT", "SETNAME", evil],
        vec!["CLIENT", "SETINFO", evil, "1"],
        vec!["HELLO", "3", evil],
        vec!["ACL", "SETUSER", "u", evil],
        vec!["ACL", "SETUSER", evil],
        vec!["ACL", "CAT", evil],
        vec!["ACL", "DRYRUN", evil, "GET"],
        vec!["ACL", "DRYRUN", "default", evil],
        vec!["ACL", "SETUSER", "u", "(+get", evil],
        vec!["AUTH", evil, evil],
        vec!["EXPIRE", "k", "1", evil],
        vec!["PFDEBUG", evil, "k"],
        vec!["LATENCY", "GRAPH", evil],
        vec!["XGROUP", "CREATE", "k", evil, evil],
        vec!["XREADGROUP", "GROUP", evil, evil, "STREAMS", "k", ">"],
        vec!["CLUSTER", "REPLICAS", evil],
        vec!["DEBUG", evil],
        vec!["OBJECT", evil],
        vec!["ADMIN", evil],
        vec!["ADMIN", "FAULT", evil, "1"],
    ] {
        let reply = client.call(&line).unwrap();
        if let Value::Error(text) = &reply {
            assert!(!text.contains(&b'\r') && !text.contains(&b'\n'), "{line:?}: {reply:?}");
        }
        // One reply, and not a byte more.
        assert_eq!(client.line("PING").unwrap(), Value::Simple(b"PONG".into()), "{line:?}");
    }
    let log = client.line("ACL LOG").unwrap();
    assert!(log.items().is_some_and(|entries| !entries.is_empty()));
    assert_eq!(client.line("PING").unwrap(), Value::Simple(b"PONG".into()));
}

#[test]
fn connections_that_come_go_and_linger() {
    let server = start(Options::evenkeel());
    let mut client = server.client().unwrap();
    let before = resident(&server);
    let bystander = Bystander::watch(&server);
    // Thousands that say nothing.
    let idle: Vec<TcpStream> = (0..2_000).map(|_| socket(&server)).collect();
    // Byte by byte.
    let mut slow: Vec<TcpStream> = (0..50).map(|_| socket(&server)).collect();
    for byte in b"*1\r\n$4\r\nPING\r\n" {
        slow.iter_mut().for_each(|stream| stream.write_all(&[*byte]).expect("it reads"));
    }
    for stream in &mut slow {
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).expect("PONG");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    // Here and gone, in the middle of a command, with replies unread, with a reset.
    for round in 0..500usize {
        let mut stream = socket(&server);
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\nGET k\r\nGET k\r\n";
        stream.write_all(&bytes[..round % bytes.len()]).expect("it reads");
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes for {} idle connections", idle.len());
    bystander.assert_not_stalled("churn");
    drop((idle, slow));
    wait_until("all are gone", PATIENCE, || {
        Ok(client.line("CLIENT LIST")?.to_text().lines().count() == 1)
    })
    .unwrap();
    assert_serves(&server, "churn");
}

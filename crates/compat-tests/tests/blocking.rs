//! Clients that wait for data: whose turn it is, what ends a wait, what becomes of the clients when
//! nodes stop, and that each element arrives once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use compat_tests::admin::leading_node;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};

const WITHIN: Duration = Duration::from_secs(30);

fn start() -> Server {
    Server::start(Options::evenkeel()).expect("start the server under test")
}

fn send(client: &mut Client, line: &str) {
    let mut bytes = Vec::new();
    encode(&line.split_whitespace().collect::<Vec<_>>(), &mut bytes);
    client.send_raw(&bytes).expect("send");
}

fn read(client: &mut Client) -> Value {
    client.read().expect("a reply").expect("the connection is open").value
}

/// A connection that waits with a command.
fn blocked(server: &Server, control: &mut Client, line: &str) -> Client {
    let before = blocked_clients(control);
    let mut client = server.client().expect("connect");
    send(&mut client, line);
    until_blocked(control, before + 1);
    client
}

fn info(control: &mut Client, field: &str) -> usize {
    let text = control.line("INFO clients").expect("INFO").to_text();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{field}: {text}"))
}

fn blocked_clients(control: &mut Client) -> usize {
    info(control, "blocked_clients")
}

fn until_blocked(control: &mut Client, count: usize) {
    let reached = wait_until("clients block", WITHIN, || Ok(blocked_clients(control) == count));
    reached.unwrap_or_else(|error| panic!("{count} clients: {error:#}"));
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

fn popped(key: &str, element: &str) -> Value {
    Value::Array(vec![bulk(key), bulk(element)])
}

fn client_id(client: &mut Client) -> i64 {
    match client.line("CLIENT ID").expect("CLIENT ID") {
        Value::Int(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_longest_waiting_client_is_served_first() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut waiting: Vec<Client> =
        (0..4).map(|_| blocked(&server, &mut control, "BLPOP list other 0")).collect();
    let list = control.line("CLIENT LIST").unwrap().to_text();
    assert_eq!(list.matches(" flags=b ").count(), 4, "{list}");
    assert_eq!(info(&mut control, "total_blocking_keys"), 2);
    assert_eq!(control.line("RPUSH list a b").unwrap(), Value::Int(2));
    assert_eq!(read(&mut waiting[0]), popped("list", "a"));
    assert_eq!(read(&mut waiting[1]), popped("list", "b"));
    // A pipeline that pushes and pops does not take what others wait for.
    let mut greedy = server.client().unwrap();
    let mut bytes = Vec::new();
    for line in [&["RPUSH", "list", "c"][..], &["LPOP", "list"], &["BLPOP", "list", "0"]] {
        encode(line, &mut bytes);
    }
    greedy.send_raw(&bytes).unwrap();
    assert_eq!((read(&mut greedy), read(&mut greedy)), (Value::Int(1), Value::Nil));
    assert_eq!(read(&mut waiting[2]), popped("list", "c"));
    until_blocked(&mut control, 2);
    for line in ["MULTI", "RPUSH list d", "RPUSH list e", "LPOP list", "EXEC"] {
        control.line(line).unwrap();
    }
    assert_eq!(read(&mut waiting[3]), popped("list", "e"));
    control.line("RPUSH list f").unwrap();
    assert_eq!(read(&mut greedy), popped("list", "f"));
    assert_eq!(blocked_clients(&mut control), 0);
    assert_eq!(info(&mut control, "total_blocking_keys"), 0);
}

#[test]
fn what_is_sent_behind_a_command_that_waits_runs_after_it() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut client = blocked(&server, &mut control, "BLMOVE from to LEFT RIGHT 0");
    // More than a connection reads at once.
    let value = "x".repeat(300_000);
    let mut bytes = Vec::new();
    encode(&["SET", "big", &value], &mut bytes);
    encode(&["STRLEN", "big"], &mut bytes);
    encode(&["LRANGE", "to", "0", "-1"], &mut bytes);
    client.send_raw(&bytes).unwrap();
    assert_eq!(control.line("EXISTS big").unwrap(), Value::Int(0));
    assert_eq!(control.line("RPUSH from v").unwrap(), Value::Int(1));
    assert_eq!(read(&mut client), bulk("v"));
    assert_eq!(read(&mut client), Value::Simple("OK".into()));
    assert_eq!(read(&mut client), Value::Int(300_000));
    assert_eq!(read(&mut client), Value::Array(vec![bulk("v")]));
}

#[test]
fn timeouts_end_waits_and_only_then() {
    let server = start();
    let mut client = server.client().unwrap();
    for (line, least_ms) in [
        ("BLPOP k 0.15", 150),
        ("BLMPOP 0.05 1 k LEFT", 50),
        ("BRPOPLPUSH k l 0.05", 50),
        ("BZPOPMAX k 0.05", 50),
        ("XREAD BLOCK 50 STREAMS k $", 50),
        ("BLPOP k 0.0001", 1),
    ] {
        let started = Instant::now();
        assert_eq!(client.line(line).unwrap(), Value::Nil, "{line}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(least_ms), "{line}: {took:?}");
    }
    // The bytes, too: a null array, also where MULTI answers a null bulk.
    send(&mut client, "BLMOVE k l LEFT LEFT 0.01");
    assert_eq!(client.read().unwrap().unwrap().raw, b"*-1\r\n");
    for line in ["MULTI", "BLMOVE k l LEFT LEFT 0", "BLPOP k 0", "XREAD BLOCK 0 STREAMS k $"] {
        client.line(line).unwrap();
    }
    send(&mut client, "EXEC");
    assert_eq!(client.read().unwrap().unwrap().raw, b"*3\r\n$-1\r\n*-1\r\n*-1\r\n");
}

#[test]
fn client_unblock_ends_a_wait_once() {
    let server = start();
    let mut control = server.client().unwrap();
    for (how, expected) in [
        ("", Value::Nil),
        ("TIMEOUT", Value::Nil),
        ("ERROR", Value::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into())),
    ] {
        let mut client = server.client().unwrap();
        let id = client_id(&mut client);
        let unblock = format!("CLIENT UNBLOCK {id} {how}");
        assert_eq!(control.line(&unblock).unwrap(), Value::Int(0), "not blocked");
        send(&mut client, "BLPOP k 0");
        until_blocked(&mut control, 1);
        assert_eq!(control.line(&unblock).unwrap(), Value::Int(1));
        assert_eq!(read(&mut client), expected);
        // Nothing stands in line any more.
        assert_eq!(control.line("RPUSH k v").unwrap(), Value::Int(1));
        assert_eq!(control.line("LPOP k").unwrap(), bulk("v"));
        // Who was served is not unblocked.
        send(&mut client, "BLPOP k 0");
        until_blocked(&mut control, 1);
        control.line("RPUSH k v").unwrap();
        assert_eq!(control.line(&unblock).unwrap(), Value::Int(0), "served before");
        assert_eq!(read(&mut client), popped("k", "v"));
    }
}

#[test]
fn nothing_is_handed_to_a_client_that_has_gone() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut killed = server.client().unwrap();
    let id = client_id(&mut killed);
    send(&mut killed, "BLPOP k 0");
    until_blocked(&mut control, 1);
    let closed = blocked(&server, &mut control, "BLPOP k 0");
    let mut finished = blocked(&server, &mut control, "BLPOP k 0");
    let mut stays = blocked(&server, &mut control, "BLPOP k 0");
    assert_eq!(control.line(&format!("CLIENT KILL ID {id}")).unwrap(), Value::Int(1));
    drop(closed);
    // Half closed is as good as gone, even behind a pipeline that waits.
    send(&mut finished, "PING");
    finished.finish_sending().unwrap();
    until_blocked(&mut control, 1);
    assert_eq!(control.line("RPUSH k v").unwrap(), Value::Int(1));
    assert_eq!(read(&mut stays), popped("k", "v"));
    assert_eq!(control.line("RPUSH k w").unwrap(), Value::Int(1));
    assert_eq!(control.line("LRANGE k 0 -1").unwrap(), Value::Array(vec![bulk("w")]));
    assert_eq!(killed.read_to_close().unwrap(), b"");
}

#[test]
fn a_pause_holds_back_who_would_wait_and_who_would_serve() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut early = blocked(&server, &mut control, "BLPOP k 0");
    let mut reader = blocked(&server, &mut control, "XREAD BLOCK 0 STREAMS s $");
    control.line("CLIENT PAUSE 100000 WRITE").unwrap();
    let mut late = blocked(&server, &mut control, "BLPOP k 0");
    let mut pusher = blocked(&server, &mut control, "RPUSH k a b");
    let mut adder = blocked(&server, &mut control, "XADD s 1-0 f v");
    control.line("CLIENT UNPAUSE").unwrap();
    assert!(matches!(read(&mut pusher), Value::Int(1 | 2)));
    assert_eq!(read(&mut early), popped("k", "a"));
    assert_eq!(read(&mut late), popped("k", "b"));
    assert_eq!(read(&mut adder), bulk("1-0"));
    assert!(read(&mut reader).items().is_some());
}

#[test]
fn a_key_that_moves_in_serves_who_waits_for_it() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut dump = server.client().unwrap();
    control.line("RPUSH source v").unwrap();
    send(&mut dump, "DUMP source");
    let payload = read(&mut dump);
    for round in 0..3 {
        control.line("DEL source").unwrap();
        let mut waiting = blocked(&server, &mut control, "BLPOP here 0");
        match round {
            0 => {
                for line in ["SELECT 3", "RPUSH here v"] {
                    control.line(line).unwrap();
                }
                assert_eq!(control.line("MOVE here 0").unwrap(), Value::Int(1));
                assert_eq!(control.line("EXISTS here").unwrap(), Value::Int(0));
                control.line("SELECT 0").unwrap();
            }
            1 => {
                let restore = [&b"RESTORE"[..], b"here", b"0", payload.text().expect("a payload")];
                assert!(!control.call(&restore).unwrap().is_error());
            }
            _ => {
                for line in ["SELECT 3", "RPUSH there v", "COPY there here DB 0", "SELECT 0"] {
                    control.line(line).unwrap();
                }
            }
        }
        assert_eq!(read(&mut waiting), popped("here", "v"), "round {round}");
    }
}

#[test]
fn rules_that_forbid_a_command_end_its_wait() {
    let server = start();
    let mut control = server.client().unwrap();
    control.line("ACL SETUSER waiter on nopass +@all ~*").unwrap();
    let mut client = server.client().unwrap();
    client.line("AUTH waiter any").unwrap();
    send(&mut client, "BLPOP list 0");
    until_blocked(&mut control, 1);
    // Rules that still let it wait change nothing.
    control.line("ACL SETUSER waiter -get").unwrap();
    assert_eq!(blocked_clients(&mut control), 1);
    control.line("ACL SETUSER waiter resetkeys").unwrap();
    // Its own connection ends the wait, soon after the answer to whoever changed the rules.
    until_blocked(&mut control, 0);
    control.line("RPUSH list v").unwrap();
    let reply = read(&mut client);
    assert!(reply.error_text().starts_with("NOPERM"), "{reply:?}");
    assert_eq!(control.line("LLEN list").unwrap(), Value::Int(1));
}

#[test]
fn wait_ends_with_its_client() {
    let server = start();
    let mut control = server.client().unwrap();
    let mut client = server.client().unwrap();
    client.line("SET k v").unwrap();
    send(&mut client, "WAIT 9 0");
    until_blocked(&mut control, 1);
    drop(client);
    until_blocked(&mut control, 0);
}

/// Blocks clients, has the leader stop, and serves them at the next one; again and again.
#[test]
fn a_change_of_leaders_is_not_seen_by_who_waits() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options { faults: true, ..Options::evenkeel() }).expect("start");
    let mut control = server.client().unwrap();
    control.line("XADD s 1-0 f old").unwrap();
    control.line("XGROUP CREATE s g $").unwrap();
    for round in 0..3 {
        let node = leading_node(&mut control).expect("a leader");
        // By its second key each of them is told to be back in line.
        let mut first = blocked(&server, &mut control, "BLPOP k first 0");
        let mut second = blocked(&server, &mut control, "BLPOP k second 600");
        let mut reader = blocked(&server, &mut control, "XREAD BLOCK 0 STREAMS s $");
        let mut group = blocked(&server, &mut control, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        // Longer than a busy machine takes to tell that it waits.
        let mut short = blocked(&server, &mut control, "BZPOPMIN z 3");
        control.line(&format!("ADMIN FAULT STOP {node}")).unwrap();
        // The entry that comes before the reader is back is not missed: `$` is filled in.
        let id = format!("{}-0", round + 2);
        let added = wait_until("a write", WITHIN, || {
            let reply = control.line(&format!("XADD s {id} f v"))?;
            // The one before it had no certain outcome, and did happen.
            Ok(!reply.is_error() || reply.error_text().contains("equal or smaller"))
        });
        added.expect("writes resume");
        for waiting in [&mut reader, &mut group] {
            let text = format!("{:?}", read(waiting));
            assert!(text.contains(&id), "round {round}: {text}");
        }
        assert_eq!(read(&mut short), Value::Nil, "its time is up, leader or not");
        let keys = wait_until("who waits is back", WITHIN, || {
            Ok(info(&mut control, "total_blocking_keys") == 3)
        });
        keys.expect("in line again");
        assert_eq!(blocked_clients(&mut control), 2);
        control.line("RPUSH k a b").unwrap();
        let both = [read(&mut first), read(&mut second)];
        assert_eq!(both, [popped("k", "a"), popped("k", "b")], "round {round}");
        control.line(&format!("ADMIN FAULT START {node}")).unwrap();
    }
    // Without a quorum nobody is served, nobody is told; and a time-out is one.
    let mut client = blocked(&server, &mut control, "BLPOP k 0");
    let mut short = blocked(&server, &mut control, "BLPOP k 3");
    for node in 1..=2 {
        control.line(&format!("ADMIN FAULT STOP {node}")).unwrap();
    }
    assert_eq!(read(&mut short), Value::Nil);
    for node in 1..=2 {
        control.line(&format!("ADMIN FAULT START {node}")).unwrap();
    }
    let pushed = wait_until("a write", WITHIN, || {
        let reply = control.line("RPUSH k v")?;
        ensure!(reply == Value::Int(1) || is_expected(&reply), "{reply:?}");
        Ok(!reply.is_error())
    });
    pushed.expect("writes resume");
    assert_eq!(read(&mut client), popped("k", "v"));
}

const ELEMENTS: usize = 10_000;
const CONSUMERS: usize = 20;

/// What consumers and the producer of a run saw.
#[derive(Default)]
struct Tally {
    arrived: BTreeMap<String, usize>,
    /// Pops that may have happened, and pushes that may not have.
    uncertain: usize,
}

/// What a client may be told while nodes stop.
fn is_expected(reply: &Value) -> bool {
    let known = ["TRYAGAIN", "CLUSTERDOWN", "UNCERTAIN"];
    known.iter().any(|code| reply.error_text().starts_with(code))
}

/// Takes elements until one says that there are no more: what it got, and how many pops are uncertain.
fn consume(server: &Server, consumer: usize) -> Result<(Vec<String>, usize)> {
    let mut client = server.client()?;
    let (mut got, mut uncertain) = (Vec::new(), 0);
    // Different ways to the same list; some give up at times.
    let line = ["BLPOP jobs 0", "BRPOP jobs 0.02", "BLMPOP 0 1 jobs LEFT", "BLPOP none jobs 1"];
    loop {
        let reply = client.line(line[consumer % line.len()])?;
        match reply.items() {
            Some([_, Value::Bulk(element)]) => got.push(String::from_utf8(element.clone())?),
            Some([_, Value::Array(all)]) => got.extend(all.iter().map(Value::to_text)),
            _ if reply == Value::Nil => continue,
            _ => {
                ensure!(is_expected(&reply), "{reply:?}");
                uncertain += usize::from(reply.error_text().starts_with("UNCERTAIN"));
                continue;
            }
        }
        if got.last().is_some_and(|last| last.starts_with("end")) {
            got.pop();
            return Ok((got, uncertain));
        }
    }
}

/// Pushes all elements, while consumers wait for them and `meddle` does what it does.
fn run_queue(server: &Server, meddle: impl FnOnce(&AtomicUsize) + Send) -> Result<Tally> {
    let pushed = AtomicUsize::new(0);
    let produce = || -> Result<usize> {
        let mut client = server.client()?;
        let mut uncertain = 0;
        let mut push = |element: String| -> Result<()> {
            loop {
                let reply = client.line(&format!("RPUSH jobs {element}"))?;
                if !reply.is_error() {
                    return Ok(());
                }
                ensure!(is_expected(&reply), "{reply:?}");
                if reply.error_text().starts_with("UNCERTAIN") {
                    uncertain += 1;
                    // Another one of that name would look like a second delivery.
                    if !element.starts_with("end") {
                        return Ok(());
                    }
                }
            }
        };
        for element in 0..ELEMENTS {
            push(element.to_string())?;
            pushed.fetch_add(1, Relaxed);
        }
        // One end for each consumer, and some to spare for pops that were not answered.
        for end in 0..CONSUMERS * 2 {
            push(format!("end{end}"))?;
        }
        Ok(uncertain)
    };
    std::thread::scope(|scope| {
        let consumers: Vec<_> =
            (0..CONSUMERS).map(|nth| scope.spawn(move || consume(server, nth))).collect();
        let producer = scope.spawn(produce);
        meddle(&pushed);
        let mut tally = Tally::default();
        tally.uncertain += producer.join().expect("no panic").context("producer")?;
        for consumer in consumers {
            let (got, uncertain) = consumer.join().expect("no panic").context("consumer")?;
            got.into_iter().for_each(|element| *tally.arrived.entry(element).or_default() += 1);
            tally.uncertain += uncertain;
        }
        Ok(tally)
    })
}

#[test]
fn ten_thousand_elements_arrive_once_each() {
    let server = start();
    let tally = run_queue(&server, |_| {}).expect("a run");
    assert_eq!(tally.uncertain, 0);
    assert_eq!(tally.arrived.len(), ELEMENTS);
    let twice: Vec<_> = tally.arrived.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn elements_arrive_once_though_leaders_stop() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options { faults: true, ..Options::evenkeel() }).expect("start");
    let mut control = server.client().unwrap();
    let meddle = |pushed: &AtomicUsize| {
        for stop in 1..=3 {
            let part = stop * ELEMENTS / 4;
            let reached = || Ok(pushed.load(Relaxed) >= part);
            wait_until("elements are pushed", Duration::from_secs(120), reached).expect("progress");
            let node = leading_node(&mut control).expect("a leader");
            control.line(&format!("ADMIN FAULT STOP {node}")).expect("an answer");
            let more = || Ok(pushed.load(Relaxed) >= part + 100);
            wait_until("pushes go on", Duration::from_secs(60), more).expect("progress");
            control.line(&format!("ADMIN FAULT START {node}")).expect("an answer");
        }
    };
    let tally = run_queue(&server, meddle).expect("a run");
    let twice: Vec<_> = tally.arrived.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let missing = ELEMENTS - tally.arrived.len();
    println!("{missing} missing, {} uncertain", tally.uncertain);
    assert!(missing <= tally.uncertain, "{missing} missing, {} uncertain", tally.uncertain);
}

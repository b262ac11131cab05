//! Keyspace notifications: what generated commands publish on Redis and on the server under test
//! must be the same, in the same order; and that events come on time and only of what is durable.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use compat_tests::calm;
use compat_tests::differential::generate::Generator;
use compat_tests::differential::{Action, Command, script_line};
use compat_tests::process::{Options, Server};
use compat_tests::resp::{Client, Value, show};

/// Commands sent to each server unless the environment says otherwise.
const COMMANDS: usize = 40_000;
/// The seed unless the environment says otherwise.
const SEED: u64 = 20_261_129;
/// So many sequences with another event end the test.
const FINDINGS_MAX: usize = 5;

/// Categories of commands that have events.
const CATEGORIES: &[&str] = &[
    "string",
    "bitmap",
    "hash",
    "list",
    "set",
    "sortedset",
    "stream",
    "geo",
    "hyperloglog",
    "keyspace",
];
/// Those of them that are left out: they draw lots, touch other tables or all of them, or read keys
/// that do not stand in the command, in an order of their own.
const LEFT_OUT: &[&str] = &[
    "spop",
    "flushall",
    "flushdb",
    "swapdb",
    "move",
    "migrate",
    "randomkey",
    "sort",
    "sort_ro",
    "select",
    "debug",
    "wait",
    "xautoclaim",
    "xclaim",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name}: {n}")))
}

/// A server and two connections to it: one that acts, one that listens.
struct Seat {
    actor: Client,
    listener: Client,
    markers: u64,
}

impl Seat {
    fn new(server: &Server) -> Result<Seat> {
        let (mut actor, mut listener) = (server.client()?, server.client()?);
        actor.line("CONFIG SET notify-keyspace-events KEAmn")?;
        listener.line("PSUBSCRIBE __key*")?;
        Ok(Seat { actor, listener, markers: 0 })
    }

    /// Sends a command; its reply, and what was published for it.
    fn run(&mut self, command: &Command) -> Result<(Value, Vec<String>)> {
        let reply = self.actor.call(command)?;
        self.markers += 1;
        let marker = self.markers.to_string();
        self.actor.call(&["PUBLISH", "__keymarker__", &marker])?;
        let mut events = Vec::new();
        loop {
            let message = self.listener.read()?.context("closed")?.value;
            let items = message.items().context("no message")?;
            let channel = items.get(2).and_then(Value::text).context("no channel")?;
            let text = items.get(3).and_then(Value::text).context("no text")?;
            if channel == b"__keymarker__" {
                ensure!(text == marker.as_bytes(), "another marker");
                return Ok((reply, events));
            }
            events.push(format!("{} {}", show(channel), show(text)));
        }
    }
}

/// Names of the commands of some categories, in lower case.
fn names_in(redis: &mut Client, categories: &[&str]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for category in categories {
        let list = redis.line(&format!("COMMAND LIST FILTERBY ACLCAT {category}"))?;
        names.extend(list.items().context("COMMAND LIST")?.iter().map(Value::to_text));
    }
    Ok(names)
}

/// Whether the misses of a command are compared: those of commands that only read. Where a command reads
/// keys and writes others, or is refused halfway, Redis tells what it happens to have looked at by then;
/// XREAD of 7.0 looks at its keys more than once.
fn tells_misses(command: &Command, readers: &BTreeSet<String>) -> bool {
    let name = String::from_utf8_lossy(&command[0]).to_lowercase();
    readers.contains(&name) && name != "xread"
}

/// Whether a command is sent: of those names, and not about another table or a time that passes.
fn is_fit(command: &Command, names: &BTreeSet<String>) -> bool {
    let name = String::from_utf8_lossy(&command[0]).to_lowercase();
    let has = |word: &str| command[1..].iter().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let blocks = name.starts_with('b') && !name.starts_with("bit");
    let elsewhere = name == "copy" && has("DB");
    let timed = name == "xadd" && command.iter().any(|arg| arg.contains(&b'*'));
    names.contains(&name) && ![blocks, elsewhere, timed, has("BLOCK")].contains(&true)
}

#[test]
fn events_are_redis_events() {
    let (seed, commands) = (
        number("EVENKEEL_DIFF_SEED", SEED),
        number("EVENKEEL_DIFF_COMMANDS", COMMANDS as u64) as usize,
    );
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let mut seats = [&redis, &target].map(|server| Seat::new(server).expect("connect"));
    let mut asker = redis.client().expect("connect");
    let readers = names_in(&mut asker, &["read"]).expect("ask Redis");
    let mut names = names_in(&mut asker, CATEGORIES).expect("ask Redis");
    names.retain(|name| !LEFT_OUT.contains(&name.as_str()));
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    seats[0].actor.line("SET payload hello").expect("SET");
    let payload = seats[0].actor.line("DUMP payload").expect("DUMP");
    let payloads = vec![payload.text().expect("a payload").to_vec()];
    let mut generator = Generator::new(seed, now_s, payloads);
    let (mut sent, mut compared, mut findings) = (0, 0, 0);
    while sent < commands && findings < FINDINGS_MAX {
        for seat in &mut seats {
            seat.run(&vec![b"FLUSHALL".to_vec()]).expect("FLUSHALL");
        }
        let mut script = Vec::new();
        for atom in generator.sequence() {
            let Action::Send(command) = atom.action else { continue };
            if !is_fit(&command, &names) {
                continue;
            }
            sent += 1;
            script.push(script_line(&command));
            let [redis, target] = &mut seats;
            let (wanted_reply, mut wanted) = redis.run(&command).expect("Redis");
            let (reply, mut events) = target.run(&command).expect("the server under test");
            let refused = wanted_reply.is_error() || reply.is_error();
            if refused || !tells_misses(&command, &readers) {
                let is_no_miss = |event: &String| !event.contains("keymiss");
                wanted.retain(is_no_miss);
                events.retain(is_no_miss);
            }
            // Who comes to what has expired first is chance.
            let is_no_expiry = |event: &String| !event.contains("expired");
            wanted.retain(is_no_expiry);
            events.retain(is_no_expiry);
            if wanted != events {
                findings += 1;
                println!("--- seed {seed}\n{}", script.join("\n"));
                println!("Redis:  {wanted:#?}\ntarget: {events:#?}");
                break;
            }
            compared += wanted.len();
            let is_write = !wanted.is_empty();
            if is_write && wanted_reply != reply {
                // They have parted, by a listed difference: another test looks at replies.
                break;
            }
        }
    }
    println!("{sent} commands, {compared} events");
    assert_eq!(findings, 0, "see above");
    assert!(compared > sent / 2, "hardly any events: {compared} of {sent} commands");
}

#[test]
fn what_expires_is_told_on_time() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut seat = Seat::new(&server).expect("connect");
    seat.actor.line("CONFIG SET notify-keyspace-events Exh").expect("CONFIG");
    let took = calm::within("expiry", Duration::from_secs(3), server.dir(), || {
        let started = Instant::now();
        for line in ["SET s v PX 300", "HSET h f v", "HPEXPIRE h 300 FIELDS 1 f"] {
            seat.actor.line(line)?;
        }
        let mut told = BTreeSet::new();
        while told.len() < 4 {
            let message = seat.listener.read()?.context("a message")?.value;
            let items = message.items().context("a message")?;
            told.insert(format!("{} {}", items[2].to_text(), items[3].to_text()));
        }
        let took = started.elapsed();
        let wanted = ["hexpire h", "hexpired h", "hset h", "expired s"];
        let wanted = wanted.map(|event| format!("__keyevent@0__:{event}"));
        assert_eq!(told, BTreeSet::from(wanted));
        Ok(took)
    });
    // Nobody has read the keys: the leader's expiry alone came to them.
    let took = took.expect("on time");
    assert!(took >= Duration::from_millis(300), "{took:?}");
}

#[test]
fn classes_choose_what_is_told() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut seat = Seat::new(&server).expect("connect");
    let mut events = |classes: &str, line: &str| {
        let set = ["CONFIG", "SET", "notify-keyspace-events", classes];
        seat.actor.call(&set).expect("CONFIG");
        let command: Command = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        seat.run(&command).expect(line).1
    };
    assert_eq!(events("", "SET a 1"), Vec::<String>::new());
    assert_eq!(events("A", "SET a 1"), Vec::<String>::new(), "nothing says where to");
    assert_eq!(events("KA", "SET a 1"), ["__keyspace@0__:a set"]);
    assert_eq!(events("EA", "SET a 1"), ["__keyevent@0__:set a"]);
    assert_eq!(events("Eg", "SET a 1 EX 100"), ["__keyevent@0__:expire a"]);
    assert_eq!(events("EAn", "SET b 1"), ["__keyevent@0__:new b", "__keyevent@0__:set b"]);
    assert_eq!(events("EA", "GET none"), Vec::<String>::new());
    assert_eq!(events("Em", "GET none"), ["__keyevent@0__:keymiss none"]);
}

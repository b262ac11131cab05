//! Generated commands to Redis and to the server under test: equal replies, byte for byte, but for
//! the listed differences.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use compat_tests::differential::generate::Generator;
use compat_tests::differential::run::{Runner, Tamper};
use compat_tests::differential::shrink::{Finding, shrink};
use compat_tests::differential::{Action, Atom, Command};
use compat_tests::process::{Options, Server};
use compat_tests::resp::Value;

/// Commands sent to each server unless the environment says otherwise.
const COMMANDS: usize = 100_000;
/// The seed unless the environment says otherwise; `random` is allowed there.
const SEED: u64 = 20_261_122;
/// The test stops after so many findings, unless the environment says otherwise: later ones are
/// mostly the same again.
const FINDINGS_MAX: usize = 5;

#[test]
fn replies_are_redis_replies() {
    let seed = match std::env::var("EVENKEEL_DIFF_SEED").as_deref() {
        Ok("random") => now_s(),
        Ok(seed) => seed.parse().expect("EVENKEEL_DIFF_SEED is a number"),
        Err(_) => SEED,
    };
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name}: {n}")))
    };
    let commands = number("EVENKEEL_DIFF_COMMANDS", COMMANDS);
    let findings_max = number("EVENKEEL_DIFF_FINDINGS", FINDINGS_MAX);
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let payloads = payloads(&redis).expect("ask Redis for payloads");
    let mut runner = Runner::new(redis.port(), target.port()).expect("connect");
    let mut generator = Generator::new(seed, now_s(), payloads);
    println!("seed {seed}, {commands} commands");
    let start = Instant::now();
    let mut findings: Vec<Finding> = Vec::new();
    let mut sequences = 0;
    let mut sent = 0;
    while sent < commands && findings.len() < findings_max {
        let atoms = generator.sequence();
        sequences += 1;
        sent += atoms.len();
        let outcome = runner.run(&atoms).unwrap_or_else(|error| lost_server(&atoms, &error));
        if let Some(divergence) = outcome {
            let finding = shrink(&mut runner, &atoms, divergence).expect("shrink");
            println!("--- finding {}\n{}", findings.len() + 1, finding.script(target.port()));
            findings.push(finding);
        }
    }
    println!("{sequences} sequences, {sent} commands in {:?}", start.elapsed());
    println!("listed differences and how often they were needed:\n{}", runner.ledger.report());
    assert!(findings.is_empty(), "seed {seed}: {} sequences diverge (see above)", findings.len());
}

fn lost_server(atoms: &[Atom], error: &anyhow::Error) -> ! {
    for atom in atoms {
        println!("{atom:?}");
    }
    panic!("a server was lost in the sequence above: {error:#}");
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// DUMPs of strings in each of Redis's forms (short, long and compressed, and the integers' sizes)
/// and of hashes (a listpack, long and compressed ones, a table), sets, lists and sorted sets.
fn payloads(redis: &Server) -> Result<Vec<Vec<u8>>> {
    let mut client = redis.client()?;
    let long = "compressible ".repeat(50);
    let mut payloads = Vec::new();
    for value in ["", "hello", "7", "-300", "70000", "5000000000", "1.5", &long] {
        client.call(&["SET", "payload", value])?;
        let reply = client.call(&["DUMP", "payload"])?;
        payloads.push(reply.text().context("DUMP")?.to_vec());
    }
    let many: String = (0..100).map(|field| format!(" f{field} 1")).collect();
    let elements: String = (0..2_000).map(|element| format!(" element{element}")).collect();
    let members: String = (0..200).map(|member| format!(" {member}.5 m{member}")).collect();
    for line in [
        "HSET payload a 1 b two",
        &format!("HSET payload{many}"),
        &format!("HSET payload a {}", "x".repeat(65)),
        "SADD payload 1 2 -300",
        "SADD payload 1 70000",
        "SADD payload 1 5000000000",
        "SADD payload a b 1",
        &format!("SADD payload{many}"),
        "RPUSH payload a 1 -300 b",
        &format!("RPUSH payload{elements}"),
        "ZADD payload 1 a 2.5 b -inf c",
        &format!("ZADD payload{members}"),
    ] {
        client.call(&["DEL", "payload"])?;
        client.line(line)?;
        let reply = client.call(&["DUMP", "payload"])?;
        payloads.push(reply.text().context("DUMP")?.to_vec());
    }
    Ok(payloads)
}

/// Differences as a wrong server would show them: each must be found, and reduced to a few commands.
const PLANTED: &[(&str, Tamper)] = &[
    ("GETSET forgets to answer the old value", |command| {
        if name(command) == b"GETSET" && command.len() == 3 {
            command[0] = b"SET".to_vec();
        }
    }),
    ("SET ignores NX", |command| {
        if name(command) == b"SET" {
            command.retain(|arg| !arg.eq_ignore_ascii_case(b"NX"));
        }
    }),
    ("RENAME copies", |command| {
        if name(command) == b"RENAME" && command.len() == 3 {
            command[0] = b"COPY".to_vec();
            command.push(b"REPLACE".to_vec());
        }
    }),
    ("an expiry is 100 s off", |command| {
        if name(command) == b"EXPIRE" && command.len() >= 3 {
            let ttl: i64 = String::from_utf8_lossy(&command[2]).parse().unwrap_or(0);
            if (1_000..10_000_000).contains(&ttl) {
                command[2] = (ttl + 100).to_string().into_bytes();
            }
        }
    }),
    ("HDEL deletes one field only", |command| {
        if name(command) == b"HDEL" {
            command.truncate(3);
        }
    }),
    ("ZADD forgets GT", |command| {
        if name(command) == b"ZADD" {
            command.retain(|arg| !arg.eq_ignore_ascii_case(b"GT"));
        }
    }),
    ("LTRIM keeps all to the end", |command| {
        if name(command) == b"LTRIM" && command.len() == 4 {
            command[3] = b"-1".to_vec();
        }
    }),
    ("RPUSHX is LPUSHX", |command| {
        if name(command) == b"RPUSHX" {
            command[0] = b"LPUSHX".to_vec();
        }
    }),
    ("MSET loses its last pair, silently", |command| {
        if name(command) == b"MSET" && command.len() > 3 && command.len() % 2 == 1 {
            command.truncate(command.len() - 2);
        }
    }),
];

fn name(command: &Command) -> Vec<u8> {
    command[0].to_ascii_uppercase()
}

#[test]
fn planted_differences_are_found_and_reduced() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let other = Server::start(Options::redis()).expect("start a second Redis");
    let payloads = payloads(&redis).expect("ask Redis for payloads");
    for (what, tamper) in PLANTED {
        let mut runner = Runner::new(redis.port(), other.port()).expect("connect");
        runner.plant(*tamper);
        let mut generator = Generator::new(1, now_s(), payloads.clone());
        let finding = (0..1_000)
            .find_map(|_| {
                let atoms = generator.sequence();
                let divergence = runner.run(&atoms).expect("run")?;
                let finding = shrink(&mut runner, &atoms, divergence).expect("shrink");
                // What hangs on timing is a second that has passed on one of the servers only
                // (OBJECT IDLETIME), not what was planted.
                finding.repeatable.then_some(finding)
            })
            .unwrap_or_else(|| panic!("not found: {what}"));
        println!("{what}:\n{}", finding.script(0));
        assert!(finding.atoms.len() <= 4, "{what}: not reduced:\n{}", finding.script(0));
        assert!(finding.atoms.iter().any(|atom| matches!(atom.action, Action::Send(_))));
    }
    let mut client = other.client().expect("connect");
    assert_eq!(client.line("PING").expect("ping"), Value::Simple(b"PONG".to_vec()));
}

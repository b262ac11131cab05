//! Sets: the promises of SSCAN, SPOP and SRANDMEMBER, what shrinking leaves behind, and versions.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commands::notes::{Notes, Wanted};
use commands::rows::{self, RowKind};
use commands::types::header::{Header, Value};
use support::{Random, START_MS, Session, print};
use wire::resp::Reply;

fn texts(reply: &Reply) -> Vec<String> {
    let (Reply::Array(items) | Reply::Set(items)) = reply else { panic!("no array: {reply:?}") };
    let text = |item: &Reply| match item {
        Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("no text: {other:?}"),
    };
    items.iter().map(text).collect()
}

fn filled(session: &mut Session, key: &str, members: usize) {
    let members: String = (0..members).map(|number| format!(" m{number}")).collect();
    session.run_line(&format!("SADD {key}{members}"));
}

fn data_rows(session: &Session, generation: wire::ids::Version) -> usize {
    let of = |row: &bytes::Bytes| match rows::parse(row) {
        Some(RowKind::Data { generation, .. }) => Some(generation),
        _ => None,
    };
    session.view.rows.keys().filter(|row| of(row) == Some(generation)).count()
}

fn header(session: &Session, key: &str) -> Header {
    let row = rows::header_key(session.view.table, key.as_bytes());
    Header::decode(session.view.rows[&row].clone()).expect("sound")
}

#[test]
fn sscan_meets_every_member_that_stays_once() {
    for count in [1, 3, 100, 1_000_000] {
        for members in [10, 64, 65, 1_000] {
            let mut session = Session::new(START_MS);
            filled(&mut session, "s", members);
            let (mut cursor, mut seen, mut turn) = ("0".to_owned(), Vec::new(), 0);
            loop {
                let reply = session.run_line(&format!("SSCAN s {cursor} COUNT {count}"));
                let Reply::Array(parts) = reply else { panic!("an array") };
                let [Reply::Bulk(next), items] = &parts[..] else { panic!("two parts") };
                seen.extend(texts(items).into_iter().filter(|member| member.starts_with('m')));
                cursor = String::from_utf8_lossy(next).into_owned();
                if cursor == "0" {
                    break;
                }
                // Others come and go meanwhile.
                turn += 1;
                session.run_line(&format!("SADD s new{turn}"));
                session.run_line(&format!("SREM s new{}", turn - 3));
            }
            let distinct: BTreeSet<_> = seen.iter().collect();
            assert_eq!((seen.len(), distinct.len()), (members, members), "COUNT {count}");
        }
    }
}

#[test]
fn members_are_drawn_evenly() {
    for (members, draws) in [(64, 20_000), (3_000, 60_000)] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "s", members);
        let mut drawn: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..draws / 100 {
            for member in texts(&session.run_line("SRANDMEMBER s -100")) {
                *drawn.entry(member).or_default() += 1;
            }
        }
        let expected = draws as f64 / members as f64;
        let missed = (members - drawn.len()) as f64 * expected;
        let squares = drawn.values().map(|times| (*times as f64 - expected).powi(2) / expected);
        let unevenness = (squares.sum::<f64>() + missed) / (members - 1) as f64;
        assert!((0.5..1.5).contains(&unevenness), "{members}: {unevenness}");
    }
}

#[test]
fn popping_all_of_a_large_set_gives_each_member_once_and_leaves_no_rows_behind() {
    for count in [1, 7, 900] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "s", 6_000);
        let mut seen = BTreeSet::new();
        while print(&session.run_line("EXISTS s")) == "(integer) 1" {
            let before = header(&session, "s").version;
            for member in texts(&session.run_line(&format!("SPOP s {count}"))) {
                assert!(seen.insert(member.clone()), "{member} twice");
            }
            let left = 6_000 - seen.len();
            if left == 0 {
                break;
            }
            let header = header(&session, "s");
            assert!(header.version > before);
            // Once it is small, no more rows were deleted in its generation than it paid for.
            if let Value::Rows { generation, count, body, .. } = &header.value {
                assert_eq!(data_rows(&session, *generation), left);
                let deleted = commands::types::header::read_varint(&mut &body[1..]);
                let deleted = deleted.expect("a number");
                assert!(
                    deleted <= 6_000 - 4_096 + 4 * count.max(&64) + 1_000,
                    "{deleted} of {count}"
                );
            }
        }
        assert_eq!(seen.len(), 6_000);
        assert_eq!((session.view.counters.keys, session.view.counters.bytes), (0, 0));
    }
}

#[test]
fn draws_without_repetition_are_different() {
    let mut random = Random::new(4);
    for members in [10, 100, 3_000] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "s", members);
        for _ in 0..30 {
            let count = random.below(members + 20);
            let drawn = texts(&session.run_line(&format!("SRANDMEMBER s {count}")));
            let distinct: BTreeSet<_> = drawn.iter().collect();
            assert_eq!((drawn.len(), distinct.len()), (count.min(members), count.min(members)));
        }
    }
}

#[test]
fn every_write_to_a_set_gives_its_header_a_new_version() {
    for members in [3, 100] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "s", members);
        for line in ["SADD s new", "SREM s new", "SMOVE s t m1", "SPOP s", "SUNIONSTORE s s t"] {
            let before = header(&session, "s").version;
            session.run_line(line);
            assert!(header(&session, "s").version > before, "{line}");
        }
        session.run_line("SADD s m2");
        for line in ["SADD s m2", "SREM s none", "SMOVE s t none", "SMOVE s s m2", "SPOP s 0"] {
            assert!(session.effects_of(line).is_empty(), "{line} changes nothing");
        }
    }
}

#[test]
fn several_lines_at_once_are_one_after_the_other() {
    let mut random = Random::new(78);
    let mut encodings = BTreeSet::new();
    for round in 0..60 {
        let (mut at_once, mut in_turn) = (Session::new(START_MS), Session::new(START_MS));
        for session in [&mut at_once, &mut in_turn] {
            session.view.notes = Notes::new(Wanted(u32::MAX));
        }
        for step in 0..8 {
            let member = |random: &mut Random| match (round % 3, random.below(1_500)) {
                (0, number) => number.to_string(),
                (1, number) if number % 40 > 0 => number.to_string(),
                (_, number) => format!("m{}", "x".repeat(number % 80)),
            };
            let line = |random: &mut Random| {
                let members = (0..1 + random.below(3)).map(|_| Bytes::from(member(random)));
                [Bytes::from("SADD"), Bytes::from("s")].into_iter().chain(members).collect()
            };
            let lines: Vec<Vec<Bytes>> =
                (0..1 + random.below(64)).map(|_| line(&mut random)).collect();
            let replies = at_once.run_many(&lines);
            let expected: Vec<Reply> = lines.iter().map(|line| in_turn.run(line)).collect();
            assert_eq!(replies, expected, "round {round}, step {step}");
            assert_eq!(at_once.take_notices(), in_turn.take_notices(), "round {round}");
            let encoding = in_turn.run_line("OBJECT ENCODING s");
            assert_eq!(at_once.run_line("OBJECT ENCODING s"), encoding, "round {round}");
            encodings.insert(print(&encoding));
            assert_eq!(at_once.run_line("SCARD s"), in_turn.run_line("SCARD s"), "round {round}");
            assert_eq!(at_once.view.counters, in_turn.view.counters, "round {round}");
        }
    }
    assert_eq!(encodings.len(), 3, "{encodings:?}");
}

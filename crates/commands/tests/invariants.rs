//! What must hold whatever clients send: counters equal a recount, the TTL index equals the
//! headers, walks miss nothing, and nothing panics.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commands::rows::{self, RowKind};
use commands::types::header::{self, Header, Kind, Value};
use commands::types::keyspace::{self, ExpiryAgenda};
use commands::{Args, Counters, Direction, Run, Txn, View, docs, table};
use support::{Random, START_MS, Session, print, split};
use wire::ids::{TableId, Version};
use wire::placement::Placement;
use wire::resp::Reply;

/// Headers that a FLUSHDB did not sweep away, by key.
fn headers(session: &Session) -> BTreeMap<Bytes, Header> {
    let mut headers = BTreeMap::new();
    for (row, value) in &session.view.rows {
        if let Some(RowKind::Header { key, .. }) = rows::parse(row) {
            let header = Header::decode(value.clone()).expect("a header");
            if session.view.flushed_through.is_none_or(|fence| header.version > fence) {
                headers.insert(Bytes::copy_from_slice(key), header);
            }
        }
    }
    headers
}

fn recount(session: &Session) -> Counters {
    let mut counters = Counters::default();
    for (key, header) in headers(session) {
        counters.keys += 1;
        counters.volatile += u64::from(header.expire_at_ms.is_some());
        counters.bytes += key.len() as u64 + header.value.bytes();
    }
    counters
}

fn ttl_rows(session: &Session) -> BTreeSet<(u64, Bytes)> {
    let kinds = session.view.rows.keys().filter_map(|row| rows::parse(row));
    let ttl = kinds.filter_map(|kind| match kind {
        RowKind::Ttl { expire_at_ms, key, .. } => Some((expire_at_ms, Bytes::copy_from_slice(key))),
        _ => None,
    });
    ttl.collect()
}

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn random_write(random: &mut Random) -> Vec<Bytes> {
    let key = |random: &mut Random| format!("{{{}}}{}", random.below(3), random.below(12));
    let (one, two) = (key(random), key(random));
    let ms = 1 + random.below(400);
    let line = match random.below(50) {
        0..3 => format!("SET {one} {}", random.next()),
        3 => format!("SET {one} x PX {ms}"),
        4 => format!("SET {one} y KEEPTTL"),
        5 => format!("PEXPIRE {one} {ms}"),
        6 => format!("PEXPIRE {one} -1"),
        7 => format!("PERSIST {one}"),
        8 => format!("APPEND {one} abc"),
        9 => format!("SETRANGE {one} {} z", random.below(20)),
        10 => format!("INCR {one}"),
        11 => format!("RENAME {one} {two}"),
        12 => format!("COPY {one} {two} REPLACE"),
        13 => format!("DEL {one} {two}"),
        14 => format!("MSET {one} 1 {two} 2 {one} 3"),
        15 => format!("GETEX {one} PX {ms}"),
        16 => format!("GETDEL {one}"),
        17 => format!("PEXPIREAT {one} {}", START_MS + random.next() % 30_000),
        18 => format!("GETSET {one} v"),
        19 => format!("RENAMENX {one} {two}"),
        20 => format!("SETNX {one} v"),
        21..34 => return random_hash_write(random, &one),
        34..38 => return random_set_write(random, &one),
        38..41 => return random_stream_write(random, &one),
        41..45 => return random_list_write(random, &one),
        45..48 => return random_sorted_set_write(random, &one),
        _ => format!("PSETEX {one} {ms} v"),
    };
    split(&line)
}

/// A write to a hash that is inline at first and has rows after a while.
fn random_hash_write(random: &mut Random, other: &str) -> Vec<Bytes> {
    // Mostly one that lives long enough to grow.
    let own = format!("{{0}}hash{}", random.below(2));
    let key = if random.below(4) == 0 { other } else { &own };
    let field = |random: &mut Random| format!("f{}", random.below(90));
    let (one, two) = (field(random), field(random));
    let ms = 1 + random.below(400);
    let line = match random.below(13) {
        0..3 => {
            let pairs = (0..1 + random.below(40)).map(|_| format!(" {} v", field(random)));
            format!("HSET {key}{}", pairs.collect::<String>())
        }
        3 => format!("HSET {key} {one} {}", "x".repeat(random.below(2_000))),
        4 => format!("HPEXPIRE {key} {ms} FIELDS 2 {one} {two}"),
        5 => format!("HPEXPIRE {key} {ms} LT FIELDS 2 {one} {two}"),
        6 => format!("HPERSIST {key} FIELDS 2 {one} {two}"),
        7 => format!("HSETEX {key} PX {ms} FIELDS 2 {one} 1 {two} 2"),
        8 => format!("HDEL {key} {one} {two}"),
        9 => format!("HGETDEL {key} FIELDS 1 {one}"),
        10 => format!("HGETEX {key} PX {ms} FIELDS 2 {one} {two}"),
        11 => format!("HINCRBY {key} {one} 1"),
        _ => format!("HPEXPIRE {key} 0 FIELDS 2 {one} {two}"),
    };
    split(&line)
}

/// A write to a list that is inline at first and has rows after a while.
fn random_list_write(random: &mut Random, other: &str) -> Vec<Bytes> {
    let own = format!("{{0}}list{}", random.below(2));
    let key = if random.below(4) == 0 { other } else { &own };
    let many = (0..1 + random.below(40)).map(|_| format!(" e{}", random.below(9)));
    let many: String = many.collect();
    let at = random.below(60);
    let line = match random.below(9) {
        0 => format!("RPUSH {key}{many}"),
        1 => format!("LPUSH {key}{many}"),
        2 => format!("RPUSH {key} {}", "x".repeat(random.below(2_000))),
        3 => format!("LPOP {key} {at}"),
        4 => format!("LMOVE {key} {{0}}list0 RIGHT LEFT"),
        5 => format!("LREM {key} 5 e{}", random.below(9)),
        6 => format!("LSET {key} {at} y"),
        7 => format!("LINSERT {key} BEFORE e1 z"),
        _ => format!("LTRIM {key} 1 -2"),
    };
    split(&line)
}

/// A write to a sorted set that is inline at first and has rows after a while.
fn random_sorted_set_write(random: &mut Random, other: &str) -> Vec<Bytes> {
    let own = format!("{{0}}sorted{}", random.below(2));
    let key = if random.below(4) == 0 { other } else { &own };
    let many =
        (0..1 + random.below(40)).map(|_| format!(" {} m{}", random.below(20), random.below(150)));
    let many: String = many.collect();
    let at = random.below(60);
    let line = match random.below(8) {
        0..2 => format!("ZADD {key}{many}"),
        2 => format!("ZINCRBY {key} 1.5 m{}", random.below(150)),
        3 => format!("ZREM {key} m{} m{}", random.below(150), random.below(150)),
        4 => format!("ZPOPMAX {key} {}", random.below(9)),
        5 => format!("ZREMRANGEBYRANK {key} {at} {}", at + 9),
        6 => format!("ZUNIONSTORE {key} 2 {{0}}sorted0 {{0}}sorted1"),
        _ => format!("GEOADD {key} 13.4 38.1 m{}", random.below(150)),
    };
    split(&line)
}

/// A write to a set that is inline at first, has rows after a while, and is emptied now and then.
fn random_set_write(random: &mut Random, other: &str) -> Vec<Bytes> {
    let own = format!("{{0}}set{}", random.below(2));
    let key = if random.below(4) == 0 { other } else { &own };
    let members = |random: &mut Random, bound: usize| {
        let count = 1 + random.below(bound);
        (0..count).map(|_| format!(" {}", random.below(300))).collect::<String>()
    };
    let line = match random.below(11) {
        0..3 => format!("SADD {key}{}", members(random, 60)),
        3 => format!("SADD {key} {}", "x".repeat(random.below(2_000))),
        4 => format!("SREM {key}{}", members(random, 60)),
        5 => format!("SPOP {key}"),
        6 => format!("SPOP {key} {}", random.below(200)),
        7 => format!("SMOVE {{0}}set0 {{0}}set1 {}", random.below(300)),
        8 => format!("SUNIONSTORE {key} {{0}}set0 {{0}}set1"),
        9 => format!("SDIFFSTORE {key} {{0}}set0 {{0}}set1"),
        _ => format!("SINTERSTORE {other} {{0}}set0 {{0}}set1"),
    };
    split(&line)
}

/// A write to a stream or to its groups.
fn random_stream_write(random: &mut Random, other: &str) -> Vec<Bytes> {
    let own = format!("{{0}}stream{}", random.below(2));
    let key = if random.below(4) == 0 { other } else { &own };
    let id = |random: &mut Random| format!("{}-1", 1 + random.below(400));
    let (one, two) = (id(random), id(random));
    let consumer = *random.pick(&["a", "b"]);
    let line = match random.below(14) {
        0..5 => format!("XADD {key} * name {}", "x".repeat(random.below(400))),
        5 => format!("XADD {key} * name {}", "x".repeat(random.below(3_000))),
        6 => format!("XADD {key} {one} name value"),
        7 => format!("XTRIM {key} MAXLEN {}", random.below(30)),
        8 => format!("XDEL {key} {one} {two}"),
        9 => format!("XGROUP CREATE {key} g 0 MKSTREAM"),
        10..12 => format!("XREADGROUP GROUP g {consumer} COUNT 9 STREAMS {key} >"),
        12 => format!("XGROUP DELCONSUMER {key} g {consumer}"),
        _ => format!("XAUTOCLAIM {key} g {consumer} 0 0"),
    };
    split(&line)
}

/// What a stream's header and groups say of its data rows, compared with the rows.
fn assert_stream_rows(session: &Session, key: &Bytes, header: &Header) {
    let Value::Rows { generation, body, .. } = &header.value else { panic!("rows") };
    let (start, end) = rows::generation_range(TableId(0), Placement::of_key(key), *generation);
    let (mut chunks, mut groups, mut pending, mut owned) = (0, 0, 0, 0);
    for (row, _) in session.view.rows.range(start.clone()..end) {
        match row[start.len()] {
            0 => chunks += 1,
            1 => groups += 1,
            2 => {}
            3 => pending += 1,
            4 => owned += 1,
            other => panic!("row of kind {other}"),
        }
    }
    let mut rest = &body[..];
    let mut said = [0; 8];
    said.fill_with(|| header::read_varint(&mut rest).expect("a number"));
    // last_id and max_deleted_id, two numbers each, entries_added, groups, next_group, chunks.
    assert_eq!((chunks, groups, owned), (said[7], said[5], pending), "{key:?}");
}

/// What a set's header says of its data rows, compared with the rows.
fn assert_set_rows(session: &Session, key: &Bytes, header: &Header) {
    let Value::Rows { generation, count, bytes, .. } = &header.value else { return };
    let (start, end) = rows::generation_range(TableId(0), Placement::of_key(key), *generation);
    let (mut members, mut stored) = (0, 0);
    for (row, value) in session.view.rows.range(start.clone()..end) {
        assert!(row[start.len()] == 0 && value.is_empty(), "{row:?}");
        (members, stored) = (members + 1, stored + (row.len() - start.len() - 5) as u64);
    }
    assert_eq!((members, stored), (*count, *bytes), "{key:?}");
}

/// What a hash's header says of its data rows, compared with the rows; how many have times.
fn assert_hash_rows(session: &Session, key: &Bytes, header: &Header) -> usize {
    match header.value.kind() {
        Kind::Set => assert_set_rows(session, key, header),
        Kind::Stream => assert_stream_rows(session, key, header),
        _ => {}
    }
    let Value::Rows { generation, count, bytes, kind: Kind::Hash, .. } = &header.value else {
        return 0;
    };
    let (mut fields, mut times) = (BTreeMap::new(), BTreeSet::new());
    let mut stored = 0;
    let (start, end) = rows::generation_range(TableId(0), Placement::of_key(key), *generation);
    for (row, value) in session.view.rows.range(start.clone()..end) {
        let sub = &row[start.len()..];
        match sub[0] {
            0 => {
                let mut value = &value[..];
                let at = header::read_varint(&mut value).expect("a time");
                stored += (sub.len() - 5 + value.len()) as u64;
                fields.insert(sub[5..].to_vec(), at);
            }
            1 => {
                let at = u64::from_be_bytes(sub[1..9].try_into().expect("eight bytes"));
                times.insert((sub[9..].to_vec(), at));
            }
            other => panic!("row of kind {other}"),
        }
    }
    assert_eq!((fields.len() as u64, stored), (*count, *bytes), "{key:?}");
    let timed: BTreeSet<_> = fields.into_iter().filter(|(_, at)| *at != 0).collect();
    assert_eq!(times, timed, "{key:?}");
    let soonest = timed.iter().map(|(_, at)| *at).min();
    assert!(soonest.is_none_or(|at| keyspace::due_ms(header).is_some_and(|due| due <= at)));
    times.len()
}

#[test]
fn counters_and_ttl_index_follow_the_headers() {
    let mut times_in_rows = 0;
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut session = Session::new(START_MS);
        let mut stale_allowed = BTreeSet::new();
        for step in 0..1_500 {
            match random.below(60) {
                0 => {
                    stale_allowed.extend(ttl_rows(&session));
                    session.run_line("FLUSHDB");
                }
                1..4 => drop(session.expire_due(1 + random.below(4))),
                4..10 => session.view.now_ms += random.next() % 100,
                _ => {
                    let mut commands: Vec<_> =
                        (0..1 + random.below(4)).map(|_| random_write(&mut random)).collect();
                    if random.below(50) == 0 {
                        stale_allowed.extend(ttl_rows(&session));
                        commands.insert(random.below(commands.len()), split("FLUSHDB"));
                    }
                    session.run_together(&commands);
                }
            }
            assert_eq!(session.view.counters, recount(&session), "seed {seed} step {step}");
            let headers = headers(&session);
            let timed = headers.iter().map(|(key, header)| assert_hash_rows(&session, key, header));
            times_in_rows += timed.sum::<usize>();
            let expected: BTreeSet<(u64, Bytes)> = headers
                .into_iter()
                .filter_map(|(key, header)| Some((keyspace::due_ms(&header)?, key)))
                .collect();
            let present = ttl_rows(&session);
            assert!(present.is_superset(&expected), "seed {seed} step {step}");
            let stale: BTreeSet<_> = present.difference(&expected).cloned().collect();
            assert!(stale.is_subset(&stale_allowed), "seed {seed} step {step}: {stale:?}");
        }
        session.view.now_ms += 1_000_000;
        // A hash may be due too early; then it is due again.
        while session.expire_due(usize::MAX).next_due_ms.is_some_and(|at| at <= session.view.now_ms)
        {
        }
        assert_eq!(session.view.counters.volatile, 0);
        assert!(ttl_rows(&session).is_empty(), "stale rows are swept up when they come due");
    }
    assert!(times_in_rows > 10_000, "only {times_in_rows} times of fields in rows met");
}

#[test]
fn an_expired_key_is_counted_once_by_whoever_ends_it() {
    let mut session = Session::new(START_MS);
    for key in ["a", "b", "c", "d"] {
        session.run_line(&format!("SET {key} v PX 5"));
    }
    assert_eq!(session.effects_of("DEL a").expired, 0, "it lives");
    assert_eq!(session.effects_of("PEXPIRE a -1").expired, 0, "a client's deletion");
    session.view.now_ms += 5;
    for (line, expired) in [("DEL a", 1), ("MSET b 1 c 2 b 3", 2), ("SET b 4", 0), ("DEL a", 0)] {
        let effects = session.effects_of(line);
        assert_eq!(effects.expired, expired, "{line}");
        session.apply(effects);
    }
    let mut txn = session.begin();
    keyspace::expire_due(&mut txn, &ExpiryAgenda::UNKNOWN, usize::MAX).expect("readable");
    assert_eq!(txn.into_effects().expired, 1, "d");
}

/// Puts a collection with data rows at a key, as its type will.
fn put_collection(session: &mut Session, key: &str, subs: &[&str]) -> Version {
    let mut txn = session.begin();
    let found = keyspace::lookup(&txn, key.as_bytes()).expect("readable");
    let generation = txn.new_version();
    for sub in subs {
        let placement = Placement::of_key(key.as_bytes());
        let row = rows::data_key(TableId(0), placement, generation, sub.as_bytes());
        txn.put(row, b("value"));
    }
    let (count, body) = (subs.len() as u64, Bytes::new());
    let value = Value::Rows { kind: Kind::Hash, generation, count, bytes: 5 * count, body };
    keyspace::store(&mut txn, key.as_bytes(), found, value, None);
    let effects = txn.into_effects();
    session.apply(effects);
    generation
}

fn data_subs(session: &Session, key: &str) -> Vec<String> {
    let header = keyspace::read(&session.view, key.as_bytes()).expect("readable").expect("a key");
    let generation = header.value.generation().expect("data rows");
    let placement = Placement::of_key(key.as_bytes());
    let (start, end) = rows::generation_range(TableId(0), placement, generation);
    let mut subs = Vec::new();
    let collect = &mut |row: &Bytes, _: &Bytes| {
        subs.push(String::from_utf8_lossy(&row[start.len()..]).into_owned());
        std::ops::ControlFlow::Continue(())
    };
    session.view.scan(&start, &end, Direction::Forward, collect).expect("readable");
    subs
}

#[test]
fn collections_are_renamed_copied_and_dropped_with_their_rows() {
    let mut session = Session::new(START_MS);
    let generation = put_collection(&mut session, "{t}a", &["x", "y"]);
    assert_eq!(print(&session.run_line("TYPE {t}a")), "hash");
    assert_eq!(print(&session.run_line("GET {t}a")), print(&wrong_type()));

    // The same placement: the rows stay where they are.
    let effects = session.effects_of("RENAME {t}a {t}b");
    assert_eq!((effects.dropped.len(), effects.writes.len()), (0, 2));
    session.apply(effects);
    assert_eq!(data_subs(&session, "{t}b"), ["x", "y"]);

    // Another placement: new rows, and the old generation is dropped.
    let effects = session.effects_of("RENAME {t}b elsewhere");
    assert_eq!(effects.dropped, [generation]);
    session.apply(effects);
    assert_eq!(data_subs(&session, "elsewhere"), ["x", "y"]);

    let effects = session.effects_of("COPY elsewhere twin");
    assert_eq!(effects.dropped, []);
    session.apply(effects);
    assert_eq!(data_subs(&session, "twin"), ["x", "y"]);
    assert_eq!(session.view.counters, recount(&session));

    // Overwriting, deleting and expiring drop the generation without touching its rows.
    for line in ["SET twin v", "RENAME elsewhere twin", "DEL twin elsewhere", "PEXPIRE twin -1"] {
        let effects = session.effects_of(line);
        let expected = if line.starts_with("RENAME") { 2 } else { 1 };
        let both = if line.starts_with("DEL") { 2 } else { expected };
        assert_eq!(effects.dropped.len(), both, "{line}");
        assert!(effects.writes.iter().all(|write| write.value.is_some() || is_header(&write.row)));
    }
    assert_eq!(session.effects_of("PEXPIRE twin 100").dropped, [], "the value stays");
}

fn wrong_type() -> Reply {
    commands::CommandError::WrongType.into()
}

fn is_header(row: &[u8]) -> bool {
    matches!(rows::parse(row), Some(RowKind::Header { .. }))
}

#[test]
fn scan_returns_every_key_that_stays_and_leaps_over_data_rows() {
    for count in [1, 3, 100] {
        let mut session = Session::new(START_MS);
        let mut expected = BTreeSet::new();
        for number in 0..200 {
            // Some share a tag, so that their placements are the same and only their hashes differ.
            let key = if number % 2 == 0 { format!("k{number}") } else { format!("{{t}}{number}") };
            session.run_line(&format!("SET {key} v"));
            expected.insert(key);
        }
        put_collection(&mut session, "{t}rows", &["a", "b", "c"]);
        expected.insert("{t}rows".to_owned());
        let mut seen = BTreeSet::new();
        let mut cursor = b("0");
        loop {
            let args = [b("SCAN"), cursor, b("COUNT"), b(&count.to_string())];
            let Reply::Array(reply) = session.run(&args) else { panic!("an array") };
            let [Reply::Bulk(next), Reply::Array(keys)] = &reply[..] else { panic!("two parts") };
            for key in keys {
                let Reply::Bulk(key) = key else { panic!("a key") };
                assert!(seen.insert(String::from_utf8_lossy(key).into_owned()), "twice: {key:?}");
            }
            if &next[..] == b"0" {
                break;
            }
            cursor = next.clone();
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn keys_that_share_a_position_come_together() {
    let mut session = Session::new(START_MS);
    // Two keys of one tag whose 13 bits of hash are equal.
    let mut by_hash = BTreeMap::new();
    let (one, two) = (0..)
        .find_map(|number| {
            let key = format!("{{t}}{number}");
            by_hash.insert(rows::key_hash(key.as_bytes()), key.clone()).map(|other| (other, key))
        })
        .expect("the pigeonhole principle");
    session.run_line(&format!("MSET {one} 1 {two} 2"));
    let Reply::Array(reply) = session.run_line("SCAN 0 COUNT 1") else { panic!("an array") };
    let [Reply::Bulk(next), Reply::Array(keys)] = &reply[..] else { panic!("two parts") };
    assert_eq!((&next[..], keys.len()), (&b"0"[..], 2));
}

#[test]
fn random_keys_are_drawn_about_evenly() {
    let mut session = Session::new(START_MS);
    let keys = 64;
    for number in 0..keys {
        session.run_line(&format!("SET k{number} v"));
    }
    session.run_line("SET expired v PX 1");
    session.view.now_ms += 1;
    let mut drawn = BTreeMap::new();
    let draws = 200 * keys;
    for _ in 0..draws {
        *drawn.entry(print(&session.run_line("RANDOMKEY"))).or_insert(0) += 1;
    }
    assert_eq!(drawn.len(), keys, "each key at least once, and no other");
    let most = drawn.values().max().expect("some");
    assert!(*most < 2 * draws / keys, "one key was drawn {most} times, {} expected", draws / keys);
}

#[test]
fn a_transaction_reads_its_own_writes() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut session = Session::new(START_MS);
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let row = |random: &mut Random| Bytes::from(vec![random.below(60) as u8]);
        for _ in 0..30 {
            let row = row(&mut random);
            session.view.rows.insert(row.clone(), b("base"));
            model.insert(row, b("base"));
        }
        let mut txn = session.begin();
        for step in 0..40 {
            let row = row(&mut random);
            if random.below(3) == 0 {
                txn.delete(row.clone());
                model.remove(&row);
            } else {
                let value = b(&step.to_string());
                txn.put(row.clone(), value.clone());
                model.insert(row, value);
            }
            assert_same_rows(&txn, &model, &mut random);
        }
        let effects = txn.into_effects();
        assert!(effects.writes.is_sorted_by(|a, b| a.row < b.row), "ascending, each row once");
        session.apply(effects);
        assert_eq!(session.view.rows, model);
    }
}

fn assert_same_rows(txn: &Txn<'_>, model: &BTreeMap<Bytes, Bytes>, random: &mut Random) {
    let (from, to) = ([random.below(60) as u8], [random.below(60) as u8]);
    let limit = 1 + random.below(70);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut seen = Vec::new();
        txn.scan(&from, &to, direction, &mut |row, value| {
            seen.push((row.clone(), value.clone()));
            if seen.len() == limit {
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        })
        .expect("readable");
        let inside = |row: &Bytes| from[..] <= row[..] && row[..] < to[..];
        let mut expected: Vec<_> = model.iter().filter(|(row, _)| inside(row)).collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        expected.truncate(limit);
        let expected: Vec<_> =
            expected.into_iter().map(|(row, value)| (row.clone(), value.clone())).collect();
        assert_eq!(seen, expected);
    }
}

/// Numbers at the edges of every width, things that look like numbers, and bytes that break texts.
const HOSTILE: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "+1",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "536870911",
    "536870912",
    "9007199254740992",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e4932",
    "-1e-4951",
    "inf",
    "-inf",
    "nan",
    "0x7fffffff",
    "",
    " 1",
    "1.5",
    "NX",
    "\0",
    "\r\n",
    "99999999999999999999999999999999999999",
];

#[test]
fn hostile_arguments_at_every_position_never_panic() {
    let mut runs = 0;
    for entry in table::entries() {
        if !matches!(entry.command.run, Run::Read(_) | Run::Write(_)) {
            continue;
        }
        for filler in ["k", "3", "EX"] {
            for length in 1..9 {
                if !entry.command.arity.accepts(length) {
                    continue;
                }
                for at in 1..length {
                    for hostile in HOSTILE {
                        let mut args = vec![b(filler); length];
                        args[0] = b(entry.command.name);
                        args[at] = b(hostile);
                        run_on_a_few_keys(entry, &args);
                        runs += 1;
                    }
                }
            }
        }
    }
    assert!(runs > 50_000, "only {runs} commands tried");
}

fn run_on_a_few_keys(entry: &table::Entry, args: &[Bytes]) {
    let mut session = Session::new(START_MS);
    session.run_line("MSET k 9223372036854775807 3 hello EX 3.0e3");
    if docs::of(entry).is_some_and(|(group, _)| group.name == "hash") {
        session.run_line("DEL k 3 EX");
        session.run_line("HSET k k 9223372036854775807 3 hello EX 3.0e3");
        session.run_line("HPEXPIRE k 1 FIELDS 1 3");
    }
    if docs::of(entry).is_some_and(|(group, _)| group.name == "set") {
        session.run_line("DEL k 3 EX");
        session.run_line("SADD k k 9223372036854775807 3 hello");
        session.run_line("SADD 3 3 9223372036854775807");
    }
    if docs::of(entry).is_some_and(|(group, _)| group.name == "stream") {
        session.run_line("DEL k 3 EX");
        session.run_line("XADD k 1-1 k v");
        session.run_line("XADD k 3-0 3 v");
        session.run_line("XGROUP CREATE k k 0");
        session.run_line("XREADGROUP GROUP k k COUNT 1 STREAMS k >");
        session.run_line("XADD 3 18446744073709551615-18446744073709551614 3 v");
        session.run_line("XGROUP CREATE 3 3 $");
    }
    let fill = match entry.command.name.as_bytes()[0] {
        b'L' | b'R' => Some("RPUSH k k 9223372036854775807 3 hello EX 3"),
        b'Z' | b'G' => Some("ZADD k 3 k 9223372036854775807 3 -inf hello 3479099956230698 EX"),
        _ => None,
    };
    if let Some(fill) = fill.filter(|_| entry.command.name != "GETEX") {
        session.run_line("DEL k 3 EX");
        session.run_line(fill);
        session.run_line("COPY k 3");
    }
    session.run_line("PEXPIRE 3 9000000000000000000");
    if let Ok(positions) = commands::key_positions(entry.command, args) {
        assert!(positions.iter().all(|at| (1..args.len()).contains(at)));
    }
    if let Some(waits) = entry.command.waits {
        drop(waits(&session.view, Args(args)));
    }
    match entry.command.run {
        Run::Read(handler) => drop(handler(&session.view, Args(args))),
        Run::Write(handler) => {
            let mut txn = session.begin();
            if handler(&mut txn, Args(args)).is_ok() {
                let effects = txn.into_effects();
                session.apply(effects);
            }
        }
        _ => {}
    }
    assert_eq!(session.view.counters, recount(&session), "{args:?}");
}

#[test]
fn elements_lie_in_the_rows_that_the_table_says_will_be_looked_up() {
    let mut session = Session::new(START_MS);
    let line = |command: &str, key: &str, number: usize| match command {
        "HSET" => split(&format!("HSET {key} e{number} x")),
        "SADD" => split(&format!("SADD {key} e{number}")),
        _ => split(&format!("ZADD {key} {number} e{number}")),
    };
    for (command, at) in [("HSET", 2), ("SADD", 2), ("ZADD", 3)] {
        for number in 0..600 {
            session.run(&line(command, command, number));
        }
        let value = &session.view.rows[&rows::header_key(TableId(0), command.as_bytes())];
        let (generation, count) = header::rows_of(value).expect("large enough for rows");
        assert_eq!(count, 600);
        let placement = Placement::of_key(command.as_bytes());
        for number in 0..600 {
            let name = &line(command, command, number)[at];
            let row = commands::element_row(TableId(0), placement, generation, name);
            assert!(session.view.rows.contains_key(&row), "{command} {number}");
        }
    }
    for entry in table::entries().iter().filter(|entry| entry.command.element.is_some()) {
        let name = entry.command.name;
        let at = entry.command.element.map(usize::from).expect("filtered");
        let args = vec![b("1"); at + 1];
        let keys = commands::key_positions(entry.command, &args).expect("one key in front");
        assert!(keys.to_vec() == [1] && at > 1, "{name}");
    }
}

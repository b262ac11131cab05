//! Hashes against a model, in every form they are stored in; the promises of HSCAN and HRANDFIELD;
//! and what deleting costs.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commands::overdue::{self, Overdue};
use commands::rows::{self, RowKind};
use commands::types::header::{Header, Value};
use support::{Random, START_MS, Session, print, split};
use wire::resp::Reply;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn integer(reply: &Reply) -> i64 {
    match reply {
        Reply::Integer(number) => *number,
        other => panic!("no integer: {other:?}"),
    }
}

fn texts(reply: &Reply) -> Vec<String> {
    let Reply::Array(items) = reply else { panic!("no array: {reply:?}") };
    let text = |item: &Reply| match item {
        Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("no text: {other:?}"),
    };
    items.iter().map(text).collect()
}

fn filled(session: &mut Session, key: &str, fields: usize) {
    let mut args = vec![b("HSET"), b(key)];
    for number in 0..fields {
        args.extend([b(&format!("f{number}")), b(&format!("v{number}"))]);
    }
    assert_eq!(integer(&session.run(&args)), fields as i64);
}

/// Fields, with values and when they end; and those whose time has come, and that may lie there still.
#[derive(Default)]
struct Model(BTreeMap<String, (String, Option<u64>)>, BTreeSet<String>);

impl Model {
    fn live(&self, now_ms: u64) -> BTreeMap<String, String> {
        let live = self.0.iter().filter(|(_, (_, at))| at.is_none_or(|at| at > now_ms));
        live.map(|(field, (value, _))| (field.clone(), value.clone())).collect()
    }

    /// Does what the command should do, and says what it should answer; nothing if that hangs on what is
    /// deleted already.
    fn step(&mut self, random: &mut Random, fields: usize, now_ms: u64) -> (String, String) {
        let field = format!("f{}", random.below(fields));
        let Model(live, hidden) = self;
        hidden.extend(
            live.extract_if(.., |_, (_, at)| at.is_some_and(|at| at <= now_ms))
                .map(|(field, _)| field),
        );
        let old = self.0.get(&field).cloned();
        let ms = 1 + random.next() % 300;
        let answer = |number: i64| format!("(integer) {number}");
        let one = |number: i64| format!("1) (integer) {number}");
        match random.below(9) {
            0..3 => {
                let value = "v".repeat(random.below(90));
                self.0.insert(field.clone(), (value.clone(), None));
                self.1.remove(&field);
                let created = answer(i64::from(old.is_none()));
                (format!("HSET h {field} \"{value}\""), created)
            }
            3 => {
                self.0.remove(&field);
                // HDEL counts what lies there.
                let line = format!("HDEL h {field}");
                match self.1.remove(&field) {
                    true => (line, String::new()),
                    false => (line, answer(i64::from(old.is_some()))),
                }
            }
            4 => {
                if let Some((_, at)) = self.0.get_mut(&field) {
                    *at = Some(now_ms + ms);
                }
                let done = one(if old.is_some() { 1 } else { -2 });
                (format!("HPEXPIRE h {ms} FIELDS 1 {field}"), done)
            }
            5 => {
                if let Some((_, at)) = self.0.get_mut(&field) {
                    *at = None;
                }
                let done = one(old.map_or(-2, |(_, at)| if at.is_some() { 1 } else { -1 }));
                (format!("HPERSIST h FIELDS 1 {field}"), done)
            }
            6 => {
                self.1.remove(&field);
                self.0.insert(field.clone(), ("set".to_owned(), Some(now_ms + ms)));
                (format!("HSETEX h PX {ms} FIELDS 1 {field} set"), answer(1))
            }
            7 => {
                let at = old.and_then(|(_, at)| at);
                let left = one(match self.0.get(&field) {
                    None => -2,
                    Some(_) => at.map_or(-1, |at| (at - now_ms) as i64),
                });
                (format!("HPTTL h FIELDS 1 {field}"), left)
            }
            _ => {
                let value = old.map_or("(nil)".to_owned(), |(value, _)| format!("\"{value}\""));
                (format!("HGET h {field}"), value)
            }
        }
    }
}

fn stored_as_rows(session: &Session) -> bool {
    session.view.rows.iter().any(|(row, value)| {
        matches!(rows::parse(row), Some(RowKind::Header { .. }))
            && matches!(Header::decode(value.clone()).expect("a header").value, Value::Rows { .. })
    })
}

#[test]
fn hashes_are_what_the_model_says() {
    let mut forms = BTreeSet::new();
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut session = Session::new(START_MS);
        let mut model = Model::default();
        let fields = *random.pick(&[3, 20, 60, 300]);
        for step in 0..600 {
            let context = format!("seed {seed} step {step}");
            match random.below(12) {
                0 => session.view.now_ms += random.next() % 60,
                1 => drop(session.expire_due(1 + random.below(6))),
                _ => {
                    let now_ms = session.view.now_ms;
                    let (line, expected) = model.step(&mut random, fields, now_ms);
                    let answered = print(&session.run_line(&line));
                    if !expected.is_empty() {
                        assert_eq!(answered, expected, "{context}: {line}");
                    }
                }
            }
            forms.insert(stored_as_rows(&session));
            if step % 20 == 0 {
                let Reply::Map(pairs) = session.run_line("HGETALL h") else { panic!("a map") };
                let pairs: BTreeMap<_, _> = pairs
                    .into_iter()
                    .map(|(field, value)| (print(&field), print(&value)))
                    .collect();
                let live = model.live(session.view.now_ms).into_iter();
                let expected: BTreeMap<_, _> =
                    live.map(|(f, v)| (format!("\"{f}\""), format!("\"{v}\""))).collect();
                assert_eq!(pairs, expected, "{context}");
            }
        }
        // Copies in both forms, and what DUMP says, are the same hash.
        let before = sorted(&mut session, "h");
        session.run_line("COPY h copy");
        if let Reply::Bulk(payload) = session.run_line("DUMP h") {
            let restored = session.run(&[b("RESTORE"), b("restored"), b("0"), payload]);
            assert_eq!(restored, Reply::OK);
            assert_eq!(sorted(&mut session, "restored"), before);
            assert_eq!(times(&mut session, "restored"), times(&mut session, "h"));
        }
        assert_eq!(sorted(&mut session, "copy"), before);
        assert_eq!(times(&mut session, "copy"), times(&mut session, "h"));
        session.run_line("RENAME copy elsewhere");
        session.view.now_ms += 1_000;
        while session.expire_due(7).next_due_ms.is_some_and(|at| at <= session.view.now_ms) {}
        for key in ["h", "elsewhere", "restored"] {
            let left = texts(&session.run_line(&format!("HKEYS {key}")));
            let count = integer(&session.run_line(&format!("HLEN {key}")));
            assert_eq!(
                (left.len() as i64, left.len()),
                (count, model.live(u64::MAX).len()),
                "{key}"
            );
            let exists = integer(&session.run_line(&format!("EXISTS {key}")));
            assert_eq!(exists == 0, count == 0, "a hash without fields is no key");
        }
    }
    assert_eq!(forms.len(), 2, "both forms were met");
}

fn sorted(session: &mut Session, key: &str) -> Vec<String> {
    let Reply::Map(pairs) = session.run_line(&format!("HGETALL {key}")) else { panic!("a map") };
    let mut pairs: Vec<_> =
        pairs.iter().map(|(field, value)| format!("{} {}", print(field), print(value))).collect();
    pairs.sort();
    pairs
}

fn times(session: &mut Session, key: &str) -> Vec<String> {
    let mut fields = texts(&session.run_line(&format!("HKEYS {key}")));
    fields.sort();
    let time = |field| print(&session.run_line(&format!("HPEXPIRETIME {key} FIELDS 1 {field}")));
    fields.into_iter().map(time).collect()
}

#[test]
fn the_encoding_told_is_that_of_redis() {
    let mut session = Session::new(START_MS);
    let encoding = |session: &mut Session| print(&session.run_line("OBJECT ENCODING h"));
    filled(&mut session, "h", 512);
    assert_eq!(encoding(&mut session), "\"listpack\"");
    assert!(stored_as_rows(&session), "whatever it is called");
    session.run_line("HEXPIRE h 100 FIELDS 1 f1");
    assert_eq!(encoding(&mut session), "\"listpackex\"");
    session.run_line("HSET h more v");
    assert_eq!(encoding(&mut session), "\"hashtable\"");
    session.run_line("HDEL h more f1 f2 f3");
    assert_eq!(encoding(&mut session), "\"hashtable\"", "there is no way back");
    for (pairs, expected) in [(512, "\"listpack\""), (513, "\"hashtable\"")] {
        session.run_line("DEL h");
        session.run(&split(&format!("HSET h{}", " same v".repeat(pairs))));
        assert_eq!(encoding(&mut session), expected, "so many pairs of one field");
    }
}

#[test]
fn a_hash_moves_into_rows_at_its_limits() {
    for (fields, as_rows) in [(64, false), (65, true)] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "h", fields);
        assert_eq!(stored_as_rows(&session), as_rows, "{fields} fields");
    }
    for (bytes, as_rows) in [(1_024 - 4, false), (1_024 - 3, true)] {
        let mut session = Session::new(START_MS);
        session.run_line(&format!("HSET h f {}", "x".repeat(bytes)));
        assert_eq!(stored_as_rows(&session), as_rows, "{bytes} bytes");
    }
}

#[test]
fn deleting_a_large_hash_touches_no_field() {
    let mut session = Session::new(START_MS);
    filled(&mut session, "h", 10_000);
    for line in ["DEL h", "SET h v", "PEXPIRE h -1"] {
        let effects = session.effects_of(line);
        assert_eq!((effects.dropped.len(), effects.writes.len()), (1, 1), "{line}");
    }
    let effects = session.effects_of("HSET h f7 new");
    assert_eq!((effects.dropped.len(), effects.writes.len()), (0, 2), "the field and the header");
}

/// All that a whole HSCAN gives; `between` runs between the calls.
fn scan_all(
    session: &mut Session,
    options: &str,
    between: &mut dyn FnMut(&mut Session),
) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = session.run_line(&format!("HSCAN h {cursor} NOVALUES {options}"));
        let Reply::Array(parts) = reply else { panic!("an array") };
        let [Reply::Bulk(next), fields] = &parts[..] else { panic!("two parts") };
        seen.extend(texts(fields));
        cursor = String::from_utf8_lossy(next).into_owned();
        if cursor == "0" {
            return seen;
        }
        between(session);
    }
}

#[test]
fn hscan_meets_every_field_that_stays_once() {
    for count in [1, 3, 100, 1_000_000] {
        for fields in [10, 64, 65, 1_000] {
            let mut session = Session::new(START_MS);
            filled(&mut session, "h", fields);
            let mut turn = 0;
            let seen = scan_all(&mut session, &format!("COUNT {count}"), &mut |session| {
                // Others come and go meanwhile.
                turn += 1;
                session.run_line(&format!("HSET h new{turn} v"));
                session.run_line(&format!("HDEL h new{}", turn - 3));
            });
            let stayed: Vec<_> = seen.iter().filter(|field| field.starts_with('f')).collect();
            let distinct: BTreeSet<_> = stayed.iter().collect();
            assert_eq!((stayed.len(), distinct.len()), (fields, fields), "COUNT {count}");
        }
    }
}

#[test]
fn hscan_goes_on_when_a_small_hash_grows() {
    let mut session = Session::new(START_MS);
    filled(&mut session, "h", 60);
    let first = scan_all(&mut session, "COUNT 10", &mut |_| panic!("a small hash comes at once"));
    assert_eq!(first.len(), 60);
    filled(&mut session, "other", 100);
    let mut session = Session::new(START_MS);
    filled(&mut session, "h", 200);
    session.run_line("HPEXPIRE h 5 FIELDS 2 f1 f2");
    session.view.now_ms += 5;
    assert_eq!(scan_all(&mut session, "COUNT 7 MATCH f?", &mut |_| {}).len(), 8);
}

/// How unevenly so many draws fell on these fields: chi squared over its degrees of freedom.
fn unevenness(drawn: &BTreeMap<String, usize>, fields: usize) -> f64 {
    let draws: usize = drawn.values().sum();
    let expected = draws as f64 / fields as f64;
    let missed = (fields - drawn.len()) as f64 * expected;
    let squares = drawn.values().map(|times| (*times as f64 - expected).powi(2) / expected);
    (squares.sum::<f64>() + missed) / (fields - 1) as f64
}

#[test]
fn random_fields_are_drawn_evenly() {
    // 64 are read as a whole, of 3,000 windows are drawn.
    for (fields, draws) in [(5, 5_000), (64, 20_000), (3_000, 60_000)] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "h", fields);
        let mut drawn = BTreeMap::new();
        while drawn.values().sum::<usize>() < draws {
            for field in texts(&session.run_line("HRANDFIELD h -100")) {
                *drawn.entry(field).or_insert(0) += 1;
            }
        }
        let unevenness = unevenness(&drawn, fields);
        assert!((0.5..1.5).contains(&unevenness) || fields == 5, "{fields}: {unevenness}");
        assert!(unevenness < 4.0, "{fields}: {unevenness}");
    }
}

#[test]
fn random_fields_are_different_if_so_wanted() {
    for fields in [10, 100, 3_000] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "h", fields);
        for count in [0, 1, 5, 50, 150, 2_999, 5_000] {
            let drawn = texts(&session.run_line(&format!("HRANDFIELD h {count}")));
            let distinct: BTreeSet<_> = drawn.iter().collect();
            assert_eq!((drawn.len(), distinct.len()), (count.min(fields), count.min(fields)));
        }
        let mut drawn = BTreeMap::new();
        for _ in 0..20_000 / fields.min(200) {
            for field in texts(&session.run_line(&format!("HRANDFIELD h {}", fields / 20 + 1))) {
                *drawn.entry(field).or_insert(0) += 1;
            }
        }
        assert!(unevenness(&drawn, fields) < 1.6, "{fields}");
    }
}

#[test]
fn draws_from_a_hash_of_hidden_fields_end() {
    let mut session = Session::new(START_MS);
    filled(&mut session, "h", 3_000);
    let all = (0..3_000).map(|number| format!(" f{number}")).collect::<String>();
    session.run_line(&format!("HPEXPIRE h 5 FIELDS 3000{all}"));
    session.run_line("HSET h visible v");
    session.view.now_ms += 5;
    for line in ["HRANDFIELD h 5", "HRANDFIELD h -1"] {
        assert_eq!(texts(&session.run_line(line)), ["visible"], "{line}");
    }
    session.run_line("HDEL h visible");
    assert_eq!(session.run_line("HRANDFIELD h"), Reply::Null);
    assert_eq!(texts(&session.run_line("HRANDFIELD h -3")), [""; 0]);
}

#[test]
fn due_fields_of_a_large_hash_are_deleted_in_bounded_steps() {
    let mut session = Session::new(START_MS);
    filled(&mut session, "h", 5_000);
    let names = |from: usize, to: usize| -> String {
        (from..to).map(|number| format!(" f{number}")).collect()
    };
    session.run_line(&format!("HPEXPIRE h 10 FIELDS 2000{}", names(0, 2_000)));
    session.run_line(&format!("HPEXPIRE h 20 FIELDS 3000{}", names(2_000, 5_000)));
    session.run_line("SET k v PX 10");
    session.view.now_ms += 10;
    let mut steps = 0;
    loop {
        let due = session.expire_due(256);
        assert!(due.fields + due.removed <= 256);
        steps += 1;
        if due.next_due_ms.is_none_or(|at| at > session.view.now_ms) {
            break;
        }
    }
    assert_eq!(steps, 8, "2,000 fields and a key, 256 a step");
    assert_eq!(integer(&session.run_line("HLEN h")), 3_000);
    assert_eq!(integer(&session.run_line("EXISTS k")), 0);
    session.view.now_ms += 10;
    while session.expire_due(256).next_due_ms.is_some() {}
    assert_eq!(integer(&session.run_line("EXISTS h")), 0);
    assert_eq!((session.view.counters.keys, session.view.counters.bytes), (0, 0));
}

#[test]
fn every_write_to_a_hash_gives_its_header_a_new_version() {
    let version = |session: &Session| {
        let row = rows::header_key(session.view.table, b"h");
        session
            .view
            .rows
            .get(&row)
            .map(|value| Header::decode(value.clone()).expect("sound").version)
    };
    for fields in [3, 100] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "h", fields);
        for line in [
            "HSET h f1 v1",
            "HDEL h f2",
            "HINCRBY h n 1",
            "HINCRBYFLOAT h n 1",
            "HPEXPIRE h 100 FIELDS 1 f1",
            "HPERSIST h FIELDS 1 f1",
            "HGETEX h EX 10 FIELDS 1 f1",
            "HSETEX h KEEPTTL FIELDS 1 f1 v",
            "HGETDEL h FIELDS 1 f1",
            "HSETNX h x 1",
        ] {
            let before = version(&session);
            session.run_line(line);
            assert!(version(&session) > before, "{line}");
        }
        for line in
            ["HGETEX h FIELDS 1 x", "HDEL h none", "HSETNX h x 1", "HPERSIST h FIELDS 1 none"]
        {
            assert!(session.effects_of(line).is_empty(), "{line} changes nothing");
        }
    }
}

#[test]
fn expired_fields_are_counted_by_what_looks_them_up() {
    for fields in [3, 100] {
        let mut session = Session::new(START_MS);
        filled(&mut session, "h", fields);
        session.run_line("HPEXPIRE h 10 FIELDS 2 f0 f1");
        session.view.now_ms += 10;
        // As in Redis, HDEL deletes what is there without a look at its time.
        let effects = session.effects_of("HDEL h f0");
        assert_eq!((effects.expired_fields, effects.writes.is_empty()), (0, false));
        let effects = session.effects_of("HGETDEL h FIELDS 3 f0 f1 f2");
        assert_eq!(effects.expired_fields, 2);
    }
}

#[test]
fn what_one_command_meets_is_settled_in_bounds() {
    const FIELDS: usize = overdue::MET_MAX + 500;
    let mut session = Session::new(START_MS);
    filled(&mut session, "hash", FIELDS);
    let mut expire = split(&format!("HPEXPIRE hash 10 FIELDS {FIELDS}"));
    expire.extend((0..FIELDS).map(|number| b(&format!("f{number}"))));
    session.run(&expire);
    session.view.now_ms += 10;
    let met = vec![(b("hash"), Overdue::Fields); 3];
    let mut txn = session.begin();
    overdue::settle(&mut txn, &met).expect("rows in memory");
    let effects = txn.into_effects();
    assert_eq!(effects.expired_fields, overdue::MET_MAX as u64);
    session.apply(effects);
    assert_eq!(integer(&session.run_line("HLEN hash")), 500);
}

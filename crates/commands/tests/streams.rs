//! Streams: what trimming, deleting and acknowledging leave behind, and versions.

mod support;

use bytes::Bytes;
use commands::notes::{Notes, Wanted};
use commands::rows::{self, RowKind};
use commands::types::header::{Header, Value};
use commands::{Direction, View};
use support::{Random, START_MS, Session, print};
use wire::resp::Reply;

fn header(session: &Session, key: &str) -> Header {
    let row = rows::header_key(session.view.table, key.as_bytes());
    Header::decode(session.view.rows[&row].clone()).expect("sound")
}

/// How many data rows of each kind there are, by the first byte behind the generation.
fn data_rows(session: &Session) -> [usize; 5] {
    let mut counts = [0; 5];
    for row in session.view.rows.keys() {
        if let Some(RowKind::Data { sub, .. }) = rows::parse(row) {
            counts[usize::from(sub[0])] += 1;
        }
    }
    counts
}

fn filled(session: &mut Session, entries: usize) {
    for number in 1..=entries {
        session.run_line(&format!("XADD s {number}-1 name value-{number}"));
    }
}

#[test]
fn entries_become_chunks_and_are_read_in_order_from_anywhere() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 1_000);
    let [chunks, ..] = data_rows(&session);
    assert!((10..60).contains(&chunks), "{chunks} chunks");
    let mut random = Random::new(1);
    for _ in 0..300 {
        let (from, count) = (1 + random.below(1_000), 1 + random.below(60));
        let forward = session.run_line(&format!("XRANGE s {from} + COUNT {count}"));
        let expected = (from..=1_000).take(count);
        let expected: Vec<String> = expected.map(|n| print(&entry(n))).collect();
        assert_eq!(items(&forward), expected);
        let backward = session.run_line(&format!("XREVRANGE s {from} - COUNT {count}"));
        let expected: Vec<String> =
            (1..=from).rev().take(count).map(|n| print(&entry(n))).collect();
        assert_eq!(items(&backward), expected);
    }
}

fn entry(number: usize) -> wire::resp::Reply {
    let bulk = |text: String| wire::resp::Reply::Bulk(text.into());
    let fields = vec![bulk("name".to_owned()), bulk(format!("value-{number}"))];
    wire::resp::Reply::Array(vec![bulk(format!("{number}-1")), wire::resp::Reply::Array(fields)])
}

fn items(reply: &wire::resp::Reply) -> Vec<String> {
    match reply {
        wire::resp::Reply::Array(items) => items.iter().map(print).collect(),
        other => panic!("no array: {other:?}"),
    }
}

#[test]
fn an_xadd_writes_no_more_than_the_header_and_a_chunk() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 500);
    let mut bytes = 0;
    for number in 501..=600 {
        let effects = session.effects_of(&format!("XADD s {number}-1 name value-{number}"));
        assert!(effects.writes.len() <= 2);
        bytes +=
            effects.writes.iter().filter_map(|w| w.value.as_ref()).map(|v| v.len()).sum::<usize>();
        session.apply(effects);
    }
    assert!(bytes < 100 * 1_000, "{bytes} bytes for 100 entries");
}

/// What is left of a stream, after each line.
fn lengths(session: &mut Session, lines: &[&str]) -> Vec<String> {
    let length = |line: &&str| {
        session.run_line(line);
        print(&session.run_line("XLEN s")).replace("(integer) ", "")
    };
    lines.iter().map(length).collect()
}

/// The numbers are Redis's.
#[test]
fn whole_nodes_are_trimmed_where_that_is_enough() {
    let mut session = Session::new(START_MS);
    for number in 1..=1_000 {
        session.run_line(&format!("XADD s MAXLEN ~ 555 {number}-1 name value"));
    }
    assert_eq!(lengths(&mut session, &["PING"]), ["600"]);
    let mut session = Session::new(START_MS);
    filled(&mut session, 1_000);
    let trims = [
        "XTRIM s MAXLEN 666",
        "XTRIM s MAXLEN = 555",
        "XTRIM s MAXLEN ~ 444",
        "XTRIM s MAXLEN ~ 400",
    ];
    assert_eq!(lengths(&mut session, &trims), ["666", "555", "500", "400"]);
    let mut session = Session::new(START_MS);
    filled(&mut session, 3);
    let adds =
        ["XADD s MAXLEN ~ 0 LIMIT 1 4-1 a b", "XTRIM s MINID ~ 4", "XTRIM s MINID ~ 4 LIMIT 0"];
    assert_eq!(lengths(&mut session, &adds), ["4", "4", "4"]);
    // Of nodes of another size.
    session.view.shapes.stream_node_entries = 10;
    session.run_line("DEL s");
    filled(&mut session, 100);
    let adds = [
        "XADD s MAXLEN ~ 55 LIMIT 30 101-1 a b",
        "XADD s MAXLEN ~ 55 LIMIT 30 102-1 a b",
        "XADD s MINID ~ 55 LIMIT 30 103-1 a b",
        "XTRIM s MINID ~ 69",
        "XTRIM s MINID ~ 71",
    ];
    assert_eq!(lengths(&mut session, &adds), ["71", "62", "53", "43", "33"]);
    session.view.shapes.stream_node_entries = 1;
    assert_eq!(lengths(&mut session, &["XTRIM s MAXLEN ~ 3", "XTRIM s MAXLEN ~ 0"]), ["3", "0"]);
    session.view.shapes.stream_node_entries = 0;
    session.run_line("XADD s 200-1 a b");
    session.run_line("XADD s 201-1 a b");
    assert_eq!(lengths(&mut session, &["XTRIM s MAXLEN ~ 1 LIMIT 1"]), ["1"]);
}

/// What a scan would meet before the first entry: nothing, whatever was trimmed.
#[test]
fn reads_begin_where_trimming_ended() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 1_000);
    let first =
        session.view.rows.keys().find(|row| matches!(rows::parse(row), Some(RowKind::Data { .. })));
    let first = first.expect("a chunk").clone();
    session.run_line("XTRIM s MAXLEN 10");
    let view = Counting { inner: &session.view, from: std::cell::RefCell::new(Vec::new()) };
    let entry = commands::table::lookup(b"XRANGE").expect("a command");
    let commands::Run::Read(handler) = entry.command.run else { panic!("it reads") };
    let args = support::split("XRANGE s - + COUNT 1");
    handler(&view, commands::Args(&args)).expect("readable");
    assert!(view.from.borrow().iter().all(|from| *from > first), "no scan begins at what is gone");
    session.run_line("XTRIM s MAXLEN 0");
    assert_eq!(data_rows(&session)[0], 0);
    assert_eq!(print(&session.run_line("XADD s 2000-1 name value-2000")), "\"2000-1\"");
    assert_eq!(items(&session.run_line("XRANGE s - +")), [print(&entry_of(2_000))]);
}

fn entry_of(number: usize) -> wire::resp::Reply {
    entry(number)
}

/// Remembers where scans begin.
struct Counting<'a> {
    inner: &'a commands::MemoryView,
    from: std::cell::RefCell<Vec<bytes::Bytes>>,
}

impl View for Counting<'_> {
    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }
    fn table(&self) -> wire::ids::TableId {
        self.inner.table()
    }
    fn range(&self) -> wire::placement::PlacementRange {
        self.inner.range()
    }
    fn get(&self, row: &[u8]) -> Result<Option<bytes::Bytes>, commands::ViewError> {
        self.inner.get(row)
    }
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&bytes::Bytes, &bytes::Bytes) -> std::ops::ControlFlow<()>,
    ) -> Result<(), commands::ViewError> {
        self.from.borrow_mut().push(bytes::Bytes::copy_from_slice(from));
        self.inner.scan(from, to, direction, visit)
    }
    fn counters(&self) -> commands::Counters {
        self.inner.counters()
    }
    fn flushed_through(&self) -> Option<wire::ids::Version> {
        self.inner.flushed_through()
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn notes(&self) -> &commands::notes::Notes {
        self.inner.notes()
    }
}

#[test]
fn deleting_all_entries_in_any_order_leaves_no_chunk() {
    for seed in 0..5 {
        let (mut session, mut random) = (Session::new(START_MS), Random::new(seed));
        filled(&mut session, 300);
        let mut left: Vec<usize> = (1..=300).collect();
        while !left.is_empty() {
            let number = left.swap_remove(random.below(left.len()));
            assert_eq!(print(&session.run_line(&format!("XDEL s {number}-1"))), "(integer) 1");
            let (first, last) = (left.iter().min(), left.iter().max());
            for (line, edge) in [("XRANGE s - + COUNT 1", first), ("XREVRANGE s + - COUNT 1", last)]
            {
                let expected: Vec<String> = edge.iter().map(|n| print(&entry(**n))).collect();
                assert_eq!(items(&session.run_line(line)), expected);
            }
        }
        let Value::Rows { count, bytes, .. } = header(&session, "s").value else { panic!("rows") };
        assert_eq!((count, bytes, data_rows(&session)), (0, 0, [0; 5]));
    }
}

/// With one entry pending for ever, acknowledging others leaves rows behind under old epochs only.
#[test]
fn what_is_pending_moves_away_from_what_was_acknowledged() {
    let mut session = Session::new(START_MS);
    session.run_line("XGROUP CREATE s g 0 MKSTREAM");
    let mut prefixes = std::collections::BTreeSet::new();
    for number in 1..=3_000 {
        session.run_line(&format!("XADD s MAXLEN 10 {number}-1 name v"));
        session.run_line("XREADGROUP GROUP g c STREAMS s >");
        if number > 1 {
            assert_eq!(print(&session.run_line(&format!("XACK s g {number}-1"))), "(integer) 1");
        }
        for row in session.view.rows.keys() {
            if let Some(RowKind::Data { sub: [3, numbers @ ..], .. }) = rows::parse(row) {
                prefixes.insert(numbers[..8].to_vec());
            }
        }
    }
    let summary = print(&session.run_line("XPENDING s g"));
    assert!(summary.starts_with("1) (integer) 1\n2) \"1-1\"\n3) \"1-1\""), "{summary}");
    let [_, groups, consumers, pending, owned] = data_rows(&session);
    assert_eq!((groups, consumers, pending, owned), (1, 1, 1, 1));
    assert!((5..30).contains(&prefixes.len()), "{} epochs", prefixes.len());
}

#[test]
fn every_write_to_a_stream_gives_its_header_a_new_version() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 100);
    for line in [
        "XADD s * a 1",
        "XGROUP CREATE s g 0",
        "XGROUP CREATECONSUMER s g c",
        "XREADGROUP GROUP g c COUNT 5 STREAMS s >",
        "XREADGROUP GROUP g c STREAMS s 0",
        "XACK s g 1-1",
        "XCLAIM s g d 0 2-1",
        "XAUTOCLAIM s g e 0 0",
        "XGROUP SETID s g 0",
        "XGROUP DELCONSUMER s g c",
        "XGROUP DESTROY s g",
        "XDEL s 3-1",
        "XDELEX s IDS 1 4-1",
        "XTRIM s MAXLEN 50",
        "XSETID s 1900000000000-1",
    ] {
        let before = header(&session, "s").version;
        session.run_line(line);
        assert!(header(&session, "s").version > before, "{line}");
    }
    for line in ["XDEL s 3-1", "XTRIM s MAXLEN 50", "XACK s g 1-1"] {
        assert!(session.effects_of(line).is_empty(), "{line} changes nothing");
    }
}

#[test]
fn a_stream_is_copied_and_deleted_with_its_groups() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 200);
    session.run_line("XGROUP CREATE s g 0");
    session.run_line("XREADGROUP GROUP g c COUNT 5 STREAMS s >");
    let look = |session: &mut Session, key: &str| {
        let lines = ["XINFO STREAM KEY FULL", "XPENDING KEY g", "XRANGE KEY - +"];
        lines.map(|line| print(&session.run_line(&line.replace("KEY", key))))
    };
    let whole = look(&mut session, "s");
    session.run_line("COPY s other");
    session.run_line("RENAME s {t}elsewhere");
    assert_eq!(
        (look(&mut session, "other"), look(&mut session, "{t}elsewhere")),
        (whole.clone(), whole)
    );
    assert_eq!(session.effects_of("DEL other {t}elsewhere").dropped.len(), 2);
}

/// An XADD that is not refused, whatever the stream holds; eight of so many have options.
fn addition(random: &mut Random, now_ms: u64, longest: usize, one_of: usize) -> Vec<Bytes> {
    let option = match random.below(one_of) {
        0 => "NOMKSTREAM",
        1 => "MAXLEN 40",
        2 => "MAXLEN ~ 60",
        3 => "NOMKSTREAM MAXLEN 0",
        4 => "MAXLEN ~ 30 LIMIT 10",
        5 => "DELREF MAXLEN 50",
        6 => "ACKED MAXLEN 50",
        _ => "",
    };
    let minimum = format!("MINID {}-3", now_ms - 40);
    let option = if random.below(one_of) == 0 { &minimum } else { option };
    let id = if random.below(3) == 0 { format!("{now_ms}-*") } else { "*".to_owned() };
    let mut line = format!("XADD s {option} {id}");
    for field in 0..1 + random.below(3) {
        line += &format!(" f{field} {}", "v".repeat(1 + random.below(longest)));
    }
    line.split_whitespace().map(|word| Bytes::from(word.to_owned())).collect()
}

#[test]
fn several_lines_at_once_are_one_after_the_other() {
    let mut random = Random::new(83);
    let (mut in_vain, mut trimmed, mut longest) = (0, 0, 0);
    for round in 0..30 {
        let (mut at_once, mut in_turn) = (Session::new(START_MS), Session::new(START_MS));
        for session in [&mut at_once, &mut in_turn] {
            session.view.notes = Notes::new(Wanted(u32::MAX));
        }
        let (value_bytes, one_of) = ([3, 100, 2_000][round % 3], [24, 1_000][round / 3 % 2]);
        for step in 0..60 {
            let now_ms = at_once.view.now_ms;
            let lines: Vec<Vec<Bytes>> = (0..1 + random.below(64))
                .map(|_| addition(&mut random, now_ms, value_bytes, one_of))
                .collect();
            let context = format!("round {round}, step {step}");
            let replies = at_once.run_many(&lines);
            let expected: Vec<Reply> = lines.iter().map(|line| in_turn.run(line)).collect();
            assert_eq!(replies, expected, "{context}");
            in_vain += replies.iter().filter(|reply| **reply == Reply::Null).count();
            let notices = at_once.take_notices();
            trimmed += notices
                .iter()
                .filter(|it| it.event().is_some_and(|(event, _)| event == "xtrim"))
                .count();
            assert_eq!(notices, in_turn.take_notices(), "{context}");
            for look in ["XRANGE s - +", "XLEN s", "XINFO STREAM s FULL COUNT 3"] {
                let found = in_turn.run_line(look);
                assert_eq!(at_once.run_line(look), found, "{context}: {look}");
                if let Reply::Integer(length) = found {
                    longest = longest.max(length);
                }
            }
            let rows = in_turn.rows_of_collections();
            assert!(at_once.rows_of_collections() == rows, "{context}: other rows");
            assert_eq!(at_once.view.counters, in_turn.view.counters, "{context}");
            let between = match random.below(12) {
                0 => "XGROUP CREATE s g 0 MKSTREAM".to_owned(),
                1..4 => format!("XREADGROUP GROUP g c COUNT {} STREAMS s >", 1 + random.below(30)),
                4 => format!("XACK s g {}-0 {}-1", now_ms, now_ms),
                5 => format!("XDEL s {now_ms}-0 {now_ms}-2"),
                6 => "DEL s".to_owned(),
                _ => "XTRIM s MAXLEN ~ 500".to_owned(),
            };
            let found = in_turn.run_line(&between);
            assert_eq!(at_once.run_line(&between), found, "{context}: {between}");
            at_once.take_notices();
            in_turn.take_notices();
            at_once.view.now_ms += 3;
            in_turn.view.now_ms += 3;
        }
    }
    assert!(in_vain > 10 && trimmed > 500 && longest > 200, "{in_vain}, {trimmed}, {longest}");
}

#[test]
fn a_line_that_is_refused_is_refused_among_others() {
    for refused in ["XADD s 0-0 f v", "XADD s 1-1 f v", "XADD s * f", "XADD s MAXLEN -1 * f v"] {
        let session = Session::new(START_MS);
        let lines = ["XADD s 1-1 f v", "XADD s 2-1 f v", refused, "XADD s * f v"];
        assert_eq!(session.try_many(&lines[..2]).ok(), Some(2));
        assert!(session.try_many(&lines).is_err(), "{refused}");
    }
}

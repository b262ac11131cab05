//! Sorted sets against a model, in every form they are stored in; the promise of ZSCAN; draws.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commands::notes::{Notes, Wanted};
use commands::rows::{self, RowKind};
use commands::types::header::{Header, Kind, Value};
use support::{Random, START_MS, Session, print};
use wire::ids::TableId;
use wire::placement::Placement;
use wire::resp::Reply;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn run(session: &mut Session, line: &str) -> Reply {
    session.run(&line.split(' ').map(b).collect::<Vec<_>>())
}

/// Members with scores as redis-cli prints them.
fn pairs(of: &[(String, i64)]) -> String {
    let pair = |(name, score): &(String, i64)| (Reply::Bulk(b(name)), Reply::Double(*score as f64));
    print(&Reply::Pairs(of.iter().map(pair).collect()))
}

/// Members and scores, whole numbers.
#[derive(Clone, Default)]
struct Model(BTreeMap<String, i64>);

impl Model {
    fn sorted(&self) -> Vec<(String, i64)> {
        let mut sorted: Vec<_> =
            self.0.iter().map(|(name, score)| (name.clone(), *score)).collect();
        sorted.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        sorted
    }

    fn remove(&mut self, of: impl Fn(usize, &(String, i64)) -> bool) -> usize {
        let sorted = self.sorted();
        let gone: Vec<_> = sorted.iter().enumerate().filter(|(rank, one)| of(*rank, one)).collect();
        for (_, (name, _)) in &gone {
            self.0.remove(name);
        }
        gone.len()
    }

    /// A command that removes several members.
    fn removal(&mut self, random: &mut Random, low: i64) -> (String, String) {
        let integer = |number: usize| format!("(integer) {number}");
        match random.below(5) {
            0 => {
                let start = random.below(self.0.len() + 1);
                let gone = self.remove(|rank, _| rank >= start && rank <= start + 10);
                (format!("ZREMRANGEBYRANK z {start} {}", start + 10), integer(gone))
            }
            1 => {
                let gone = self.remove(|_, (_, score)| *score >= low && *score <= low + 1);
                (format!("ZREMRANGEBYSCORE z {low} {}", low + 1), integer(gone))
            }
            _ => {
                let wanted = random.below(5);
                let mut sorted = self.sorted();
                sorted.truncate(wanted);
                sorted.iter().for_each(|(name, _)| {
                    self.0.remove(name);
                });
                (format!("ZPOPMIN z {wanted}"), pairs(&sorted))
            }
        }
    }

    /// Does what a command should do, and says what it should answer, as redis-cli prints it.
    fn step(&mut self, random: &mut Random, members: usize) -> (String, String) {
        let name = |random: &mut Random| format!("m{}", random.below(members));
        let score = |random: &mut Random| random.below(60) as i64 - 10;
        let (one, low) = (name(random), score(random));
        let high = low + random.below(8) as i64;
        let integer = |number: usize| format!("(integer) {number}");
        match random.below(14) {
            0..4 => {
                let (mut line, mut added) = ("ZADD z".to_owned(), 0);
                for _ in 0..1 + random.below(20) {
                    let (name, score) = (name(random), score(random));
                    line.push_str(&format!(" {score} {name}"));
                    added += usize::from(self.0.insert(name, score).is_none());
                }
                (line, integer(added))
            }
            4 => {
                let score = self.0.entry(one.clone()).or_default();
                *score += low;
                (format!("ZINCRBY z {low} {one}"), format!("(double) {score}"))
            }
            5 => {
                let gone = usize::from(self.0.remove(&one).is_some());
                (format!("ZREM z {one}"), integer(gone))
            }
            6 => {
                let rank = self.sorted().iter().position(|(name, _)| *name == one);
                (format!("ZRANK z {one}"), rank.map_or("(nil)".to_owned(), integer))
            }
            7 => {
                let inside = self.0.values().filter(|score| (low..high).contains(score)).count();
                (format!("ZCOUNT z {low} ({high}"), integer(inside))
            }
            8 => {
                let sorted = self.sorted();
                let inside: Vec<_> = sorted
                    .into_iter()
                    .filter(|(_, score)| *score > low && *score <= high)
                    .collect();
                (format!("ZRANGEBYSCORE z ({low} {high} WITHSCORES"), pairs(&inside))
            }
            9 => {
                let mut sorted = self.sorted();
                sorted.reverse();
                let start = random.below(sorted.len() + 2);
                let range: Vec<_> = sorted.into_iter().skip(start).take(6).collect();
                (format!("ZREVRANGE z {start} {} WITHSCORES", start + 5), pairs(&range))
            }
            10..13 => self.removal(random, low),
            _ => {
                let score = self.0.get(&one);
                let score = score.map_or("(nil)".to_owned(), |score| format!("(double) {score}"));
                (format!("ZSCORE z {one}"), score)
            }
        }
    }
}

/// Members with rows of their own and the bits of their scores, if the set has any; compared with what its
/// header says.
fn member_rows(session: &Session, key: &str) -> Option<BTreeMap<String, u64>> {
    let header = session.view.rows.iter().find_map(|(row, value)| match rows::parse(row)? {
        RowKind::Header { key: met, .. } if met == key.as_bytes() => Some(value.clone()),
        _ => None,
    })?;
    let header = Header::decode(header).expect("a header");
    let Value::Rows { kind: Kind::SortedSet, generation, count, bytes, .. } = header.value else {
        return None;
    };
    let placement = Placement::of_key(key.as_bytes());
    let (start, end) = rows::generation_range(TableId(0), placement, generation);
    let own = session.view.rows.range(start.clone()..end).filter(|(row, _)| row[start.len()] == 0);
    let members: BTreeMap<String, u64> = own
        .map(|(row, value)| {
            let score = u64::from_be_bytes(value[..].try_into().expect("eight bytes"));
            (String::from_utf8_lossy(&row[start.len() + 5..]).into_owned(), score)
        })
        .collect();
    let stored: usize = members.keys().map(|name| name.len() + 8).sum();
    assert_eq!((members.len() as u64, stored as u64), (count, bytes));
    Some(members)
}

#[test]
fn sorted_sets_are_what_the_model_says() {
    let mut forms = BTreeSet::new();
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut session = Session::new(START_MS);
        let mut model = Model::default();
        let members = *random.pick(&[3, 40, 100, 1_500]);
        for step in 0..500 {
            let (line, expected) = model.step(&mut random, members);
            let context = format!("seed {seed} step {step}: {line}");
            assert_eq!(print(&run(&mut session, &line)), expected, "{context}");
            if step % 10 != 0 {
                continue;
            }
            let rows = member_rows(&session, "z");
            forms.insert(rows.is_some());
            if let Some(rows) = rows {
                let bits = |score: &i64| (*score as f64).to_bits();
                let expected: BTreeMap<_, _> =
                    model.0.iter().map(|(name, score)| (name.clone(), bits(score))).collect();
                assert_eq!(rows, expected, "{context}");
            }
        }
        let all = |session: &mut Session, key: &str| {
            print(&run(session, &format!("ZRANGE {key} 0 -1 WITHSCORES")))
        };
        let before = all(&mut session, "z");
        run(&mut session, "COPY z copy");
        run(&mut session, "ZRANGESTORE stored z 0 -1");
        run(&mut session, "ZUNIONSTORE united 2 z copy AGGREGATE MAX");
        if let Reply::Bulk(payload) = run(&mut session, "DUMP z") {
            let restored = session.run(&[b("RESTORE"), b("restored"), b("0"), payload]);
            assert_eq!(restored, Reply::OK);
        }
        run(&mut session, "RENAME copy elsewhere");
        for key in ["z", "elsewhere", "stored", "united", "restored"] {
            assert_eq!(all(&mut session, key), before, "{key}");
            member_rows(&session, key);
        }
    }
    assert_eq!(forms.len(), 2, "both forms were met");
}

fn filled(session: &mut Session, members: usize) {
    for number in 0..members {
        run(session, &format!("ZADD z {} m{number}", number % 17));
    }
}

#[test]
fn members_of_different_scores_lie_between_names_as_in_redis() {
    for members in [20, 2_000] {
        let mut session = Session::new(START_MS);
        for number in 0..members {
            run(&mut session, &format!("ZADD z {number}.5 m{number}"));
        }
        let mut lines = ["ZLEXCOUNT z - [b", "ZLEXCOUNT z [n +"].map(|line| (line, 0)).to_vec();
        lines.extend(["ZLEXCOUNT z (a +", "ZLEXCOUNT z - (n"].map(|line| (line, members)));
        lines.push(("ZREMRANGEBYLEX z [m [n", members));
        for (line, expected) in lines {
            let reply = run(&mut session, line);
            assert_eq!(reply, Reply::Integer(expected), "{members}: {line}");
        }
    }
}

#[test]
fn a_walk_meets_every_member_that_stays() {
    for count in [1, 7, 1_000] {
        let mut session = Session::new(START_MS);
        let mut random = Random::new(count);
        filled(&mut session, 600);
        let (mut seen, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            // Others come and go meanwhile.
            run(&mut session, &format!("ZADD z 1 other{}", random.below(50)));
            run(&mut session, &format!("ZREM z other{}", random.below(50)));
            let reply = run(&mut session, &format!("ZSCAN z {cursor} COUNT {count}"));
            let Reply::Array(parts) = reply else { panic!("an array") };
            let [Reply::Bulk(next), Reply::Array(items)] = &parts[..] else { panic!("two parts") };
            for pair in items.chunks(2) {
                let name = print(&pair[0]);
                assert!(seen.insert(name.clone()) || name.contains("other"), "{name} twice");
            }
            cursor = String::from_utf8_lossy(next).into_owned();
            if cursor == "0" {
                break;
            }
        }
        let stayed = seen.iter().filter(|name| !name.contains("other")).count();
        assert_eq!(stayed, 600);
    }
}

#[test]
fn members_are_drawn_evenly_and_distinct() {
    let mut session = Session::new(START_MS);
    filled(&mut session, 200);
    let mut drawn: BTreeMap<String, usize> = BTreeMap::new();
    for count in ["-100", "3", "50", "150"] {
        for _ in 0..200 {
            let reply = run(&mut session, &format!("ZRANDMEMBER z {count}"));
            let Reply::Array(names) = reply else { panic!("an array") };
            let names: Vec<String> = names.iter().map(print).collect();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len().to_string(), count.trim_start_matches('-'));
            assert!(count.starts_with('-') || distinct.len() == names.len());
            names.into_iter().for_each(|name| *drawn.entry(name).or_default() += 1);
        }
    }
    let expected = 303 * 200 / 200;
    assert_eq!(drawn.len(), 200);
    for (name, times) in drawn {
        assert!((expected / 2..2 * expected).contains(&times), "{name} {times} times");
    }
}

#[test]
fn the_encoding_told_is_that_of_redis() {
    let mut session = Session::new(START_MS);
    let encoding = |session: &mut Session| print(&run(session, "OBJECT ENCODING z"));
    filled(&mut session, 128);
    assert_eq!(encoding(&mut session), "\"listpack\"");
    assert!(member_rows(&session, "z").is_some(), "whatever it is called");
    run(&mut session, "ZADD z 1 more");
    assert_eq!(encoding(&mut session), "\"skiplist\"");
    run(&mut session, "ZREMRANGEBYRANK z 3 -1");
    assert_eq!(encoding(&mut session), "\"skiplist\"", "there is no way back");
    run(&mut session, "ZRANGESTORE z z 0 -1");
    assert_eq!(encoding(&mut session), "\"listpack\"", "but for a new set");
    run(&mut session, &format!("ZADD z 1 {}", "x".repeat(65)));
    assert_eq!(encoding(&mut session), "\"skiplist\"");
}

#[test]
fn a_set_that_goes_takes_its_rows_along() {
    for line in ["DEL z", "ZREMRANGEBYRANK z 0 -1", "ZPOPMIN z 1000", "SET z v", "PEXPIRE z -1"] {
        let mut session = Session::new(START_MS);
        filled(&mut session, 300);
        let effects = session.effects_of(line);
        assert_eq!(effects.dropped.len(), 1, "{line}");
        assert_eq!(effects.writes.len(), 1, "{line}: only the header's row");
    }
}

/// The words of a line that changes the sorted set `z`, and is not refused.
fn line_of_many(random: &mut Random, name: &str, (members, longest): (usize, usize)) -> String {
    let member = |random: &mut Random| {
        let number = random.below(members);
        format!("m{number}{}", "x".repeat(number * 7 % longest))
    };
    let score = |random: &mut Random| match random.below(20) {
        0 => "-0".to_owned(),
        1 => "inf".to_owned(),
        2 => format!("{}.25", random.below(9)),
        _ => (random.below(300) as i64 - 50).to_string(),
    };
    if name == "ZINCRBY" {
        return format!("ZINCRBY z {} {}", score(random), member(random));
    }
    let options = *random.pick(&[
        "",
        "",
        "",
        "",
        " CH",
        " NX",
        " XX",
        " GT",
        " LT",
        " XX GT CH",
        " XX LT",
        " INCR",
        " NX INCR",
        " GT INCR",
        " XX CH INCR",
    ]);
    let pairs = match random.below(60) {
        _ if options.ends_with("INCR") => 1,
        0 => 140,
        1..20 => 1 + random.below(4),
        _ => 1,
    };
    let mut line = format!("ZADD z{options}");
    // A first member that is not there, and long, leaves no mark.
    if options.starts_with(" XX") && pairs > 1 {
        line += &format!(" 1 {}", "none".repeat(20));
    }
    (0..pairs).for_each(|_| line += &format!(" {} {}", score(random), member(random)));
    line
}

/// What is done to the set between.
fn line_between(random: &mut Random, members: usize) -> String {
    match random.below(7) {
        0 => "DEL z".to_owned(),
        1 => "PEXPIRE z 5".to_owned(),
        2 => format!("ZREMRANGEBYRANK z {} {}", random.below(members), random.below(members)),
        3 => "ZPOPMIN z 10".to_owned(),
        _ => format!("ZREM z m{} m{}", random.below(members), random.below(members)),
    }
}

#[test]
fn several_lines_at_once_are_one_after_the_other() {
    let mut random = Random::new(79);
    let (mut encodings, mut forms, mut largest) = (BTreeSet::new(), BTreeSet::new(), 0);
    for round in 0..48 {
        let (mut at_once, mut in_turn) = (Session::new(START_MS), Session::new(START_MS));
        for session in [&mut at_once, &mut in_turn] {
            session.view.notes = Notes::new(Wanted(u32::MAX));
        }
        let (members, steps) = [(20, 30), (90, 30), (200, 30), (5_000, 120)][round % 4];
        let longest = [1, 60, 3_000][round % 3];
        for step in 0..steps {
            let name = if random.below(4) == 0 { "ZINCRBY" } else { "ZADD" };
            let count = 1 + random.below(64);
            let lines: Vec<String> =
                (0..count).map(|_| line_of_many(&mut random, name, (members, longest))).collect();
            let lines: Vec<Vec<Bytes>> =
                lines.iter().map(|line| line.split(' ').map(b).collect()).collect();
            let context = format!("round {round}, step {step}");
            let replies = at_once.run_many(&lines);
            let expected: Vec<Reply> = lines.iter().map(|line| in_turn.run(line)).collect();
            assert_eq!(replies, expected, "{context}");
            assert_eq!(at_once.take_notices(), in_turn.take_notices(), "{context}");
            let some = String::from_utf8_lossy(&lines[0][lines[0].len() - 1]).into_owned();
            for look in [
                "ZRANGE z 0 -1 WITHSCORES".to_owned(),
                "ZCARD z".to_owned(),
                format!("ZRANK z {some}"),
                format!("ZREVRANK z {some} WITHSCORE"),
                "OBJECT ENCODING z".to_owned(),
            ] {
                let found = run(&mut in_turn, &look);
                // Printed: as numbers 0 and -0 are the same.
                let printed = print(&run(&mut at_once, &look));
                assert_eq!(printed, print(&found), "{context}: {look}");
                match (&look[..], found) {
                    ("ZCARD z", Reply::Integer(count)) => largest = largest.max(count),
                    ("OBJECT ENCODING z", found) => _ = encodings.insert(print(&found)),
                    _ => {}
                }
            }
            // The directory's rows may be cut elsewhere.
            let rows = member_rows(&at_once, "z");
            forms.insert(rows.is_some());
            assert!(rows == member_rows(&in_turn, "z"), "{context}: other rows of members");
            assert_eq!(at_once.view.counters, in_turn.view.counters, "{context}");
            if random.below(if members > 1_000 { 30 } else { 3 }) == 0 {
                let line = line_between(&mut random, members);
                assert_eq!(run(&mut at_once, &line), run(&mut in_turn, &line), "{context}: {line}");
            }
            at_once.view.now_ms += 3;
            in_turn.view.now_ms += 3;
        }
    }
    assert_eq!((encodings.len(), forms.len()), (3, 2), "{encodings:?}, and no key at all");
    assert!(largest > 2_000, "{largest}");
}

#[test]
fn a_line_that_is_refused_is_refused_among_others() {
    for refused in ["ZADD z x m", "ZADD z NX XX 1 m", "ZADD z INCR -inf inf", "ZADD z 1 m 2"] {
        let session = Session::new(START_MS);
        let lines = ["ZADD z 1 one", "ZADD z inf inf", refused, "ZADD z 2 two"];
        assert_eq!(session.try_many(&lines[..2]).ok(), Some(2));
        assert!(session.try_many(&lines).is_err(), "{refused}");
    }
}

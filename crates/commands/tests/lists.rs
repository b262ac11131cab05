//! Lists against a vector, in every form they are stored in; encodings; queues.

mod support;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use commands::notes::{Notes, Wanted};
use commands::rows::{self, RowKind};
use commands::types::header::{Header, Value};
use support::{Random, START_MS, Session, print};
use wire::resp::Reply;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn run(session: &mut Session, words: &[&str]) -> Reply {
    let args: Vec<Bytes> = words.iter().map(|word| b(word)).collect();
    session.run(&args)
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

fn is_in_rows(session: &Session, key: &str) -> bool {
    session.view.rows.iter().any(|(row, value)| {
        matches!(rows::parse(row), Some(RowKind::Header { key: met, .. }) if met == key.as_bytes())
            && matches!(Header::decode(value.clone()).expect("a header").value, Value::Rows { .. })
    })
}

fn element(random: &mut Random) -> String {
    match random.below(300) {
        0 => "long".repeat(random.below(3_000)),
        1..100 => random.below(30).to_string(),
        _ => "e".repeat(random.below(20)),
    }
}

/// A pop of some elements from an end.
fn pop(random: &mut Random, model: &mut Vec<String>) -> (Vec<String>, Reply) {
    let count = model.len();
    let bulk = |text: &String| Reply::Bulk(b(text));
    let word = |text: &str| text.to_owned();
    let wanted = random.below(12);
    let left = random.below(2) == 0;
    let name = word(if left { "LPOP" } else { "RPOP" });
    let line = vec![name, word("l"), wanted.to_string()];
    if count == 0 {
        return (line, Reply::NullArray);
    }
    let taken = wanted.min(count);
    let popped: Vec<String> = match left {
        true => model.drain(..taken).collect(),
        false => model.drain(count - taken..).rev().collect(),
    };
    (line, Reply::Array(popped.iter().map(bulk).collect()))
}

/// An LREM of the element at a position.
fn remove(random: &mut Random, model: &mut Vec<String>, at: usize) -> (Vec<String>, Reply) {
    let word = |text: &str| text.to_owned();
    let gone = model[at].clone();
    let most = random.below(4);
    let backward = random.below(2) == 0 && most > 0;
    let mut left = if most == 0 { usize::MAX } else { most };
    let mut keep = |met: &String| {
        let removed = *met == gone && left > 0;
        left -= usize::from(removed);
        !removed
    };
    let kept: Vec<String> = match backward {
        true => {
            let mut kept: Vec<String> = model.iter().rev().filter(|e| keep(e)).cloned().collect();
            kept.reverse();
            kept
        }
        false => model.iter().filter(|e| keep(e)).cloned().collect(),
    };
    let removed = model.len() - kept.len();
    *model = kept;
    let most = if backward { -(most as i64) } else { most as i64 };
    (vec![word("LREM"), word("l"), most.to_string(), gone], Reply::Integer(removed as i64))
}

/// One command, done to the model, and what it should answer.
fn step(random: &mut Random, model: &mut Vec<String>) -> (Vec<String>, Reply) {
    let count = model.len();
    let at = random.below(count + 2);
    let word = |text: &str| text.to_owned();
    let bulk = |text: &String| Reply::Bulk(b(text));
    let integer = |number: usize| Reply::Integer(number as i64);
    match random.below(12) {
        0..3 => {
            let (left, many) = (random.below(2) == 0, *random.pick(&[1, 4, 40]));
            let new: Vec<String> = (0..1 + random.below(many)).map(|_| element(random)).collect();
            for element in &new {
                let at = if left { 0 } else { model.len() };
                model.insert(at, element.clone());
            }
            let name = word(if left { "LPUSH" } else { "RPUSH" });
            ([vec![name, word("l")], new].concat(), integer(model.len()))
        }
        3 => pop(random, model),
        4 if at < count => {
            model[at] = element(random);
            (vec![word("LSET"), word("l"), at.to_string(), model[at].clone()], Reply::OK)
        }
        5 if at < count => {
            let (pivot, new) = (model[at].clone(), element(random));
            let first = model.iter().position(|met| *met == pivot).expect("it is there");
            let behind = random.below(2);
            model.insert(first + behind, new.clone());
            let place = word(if behind == 1 { "AFTER" } else { "BEFORE" });
            (vec![word("LINSERT"), word("l"), place, pivot, new], integer(model.len()))
        }
        6 if at < count => remove(random, model, at),
        7 if random.below(20) == 0 => {
            let (start, stop) = (random.below(count + 1), random.below(count + 1));
            *model = match start <= stop && start < count {
                true => model[start..(stop + 1).min(count)].to_vec(),
                false => Vec::new(),
            };
            (vec![word("LTRIM"), word("l"), start.to_string(), stop.to_string()], Reply::OK)
        }
        8 => {
            let stop = at + random.below(50);
            let range = model.iter().skip(at).take(stop - at + 1).map(bulk);
            let line = vec![word("LRANGE"), word("l"), at.to_string(), stop.to_string()];
            (line, Reply::Array(range.collect()))
        }
        9 if count > 0 => {
            let moved = model.pop().expect("not empty");
            model.insert(0, moved.clone());
            (vec![word("RPOPLPUSH"), word("l"), word("l")], bulk(&moved))
        }
        10 => {
            let wanted = element(random);
            let found = model.iter().rposition(|met| *met == wanted);
            let line = ["LPOS", "l", &wanted, "RANK", "-1"].map(word).to_vec();
            (line, found.map_or(Reply::Null, integer))
        }
        _ => {
            let line = vec![word("LINDEX"), word("l"), at.to_string()];
            (line, model.get(at).map_or(Reply::Null, bulk))
        }
    }
}

#[test]
fn lists_are_what_the_model_says() {
    let mut forms = BTreeSet::new();
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut session = Session::new(START_MS);
        let mut model = Vec::new();
        for at in 0..800 {
            let (line, expected) = step(&mut random, &mut model);
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            let versions =
                |session: &Session| session.view.rows.values().cloned().collect::<Vec<_>>();
            let before = versions(&session);
            let reply = run(&mut session, &words);
            assert_eq!(reply, expected, "seed {seed} step {at}: {line:?}");
            let reads = matches!(words[0], "LRANGE" | "LPOS" | "LINDEX");
            assert!(!reads || before == versions(&session));
            forms.insert(is_in_rows(&session, "l"));
            if at % 50 == 0 {
                assert_eq!(texts(&run(&mut session, &["LRANGE", "l", "0", "-1"])), model);
                assert_eq!(integer(&run(&mut session, &["LLEN", "l"])), model.len() as i64);
                let exists = integer(&run(&mut session, &["EXISTS", "l"])) == 1;
                assert_eq!(exists, !model.is_empty());
            }
        }
        run(&mut session, &["COPY", "l", "copy"]);
        run(&mut session, &["RPUSH", "copy", "end"]);
        run(&mut session, &["RENAME", "copy", "elsewhere"]);
        let all = |session: &mut Session, key| texts(&run(session, &["LRANGE", key, "0", "-1"]));
        let mut copied = all(&mut session, "elsewhere");
        assert_eq!(copied.pop().as_deref(), Some("end"));
        assert!(copied == model);
        if let Reply::Bulk(payload) = run(&mut session, &["DUMP", "l"]) {
            let restored = session.run(&[b("RESTORE"), b("restored"), b("0"), payload]);
            assert_eq!(restored, Reply::OK);
        }
        assert!(all(&mut session, "restored") == model && all(&mut session, "l") == model);
    }
    assert_eq!(forms.len(), 2, "both forms were met");
}

#[test]
fn a_move_between_lists_is_a_pop_and_a_push() {
    let mut session = Session::new(START_MS);
    let mut from: VecDeque<String> = (0..300).map(|n| n.to_string()).collect();
    let mut to: VecDeque<String> = VecDeque::new();
    for element in &from {
        run(&mut session, &["RPUSH", "{t}from", element]);
    }
    let mut random = Random::new(9);
    while !from.is_empty() {
        let (take_left, put_left) = (random.below(2) == 0, random.below(2) == 0);
        let side = |left| if left { "LEFT" } else { "RIGHT" };
        let line = ["LMOVE", "{t}from", "{t}to", side(take_left), side(put_left)];
        let moved = if take_left { from.pop_front() } else { from.pop_back() };
        let moved = moved.expect("not empty");
        assert_eq!(run(&mut session, &line), Reply::Bulk(b(&moved)));
        if put_left { to.push_front(moved) } else { to.push_back(moved) }
    }
    assert_eq!(integer(&run(&mut session, &["EXISTS", "{t}from"])), 0);
    assert_eq!(VecDeque::from(texts(&run(&mut session, &["LRANGE", "{t}to", "0", "-1"]))), to);
}

#[test]
fn a_move_of_many_is_that_many_moves_or_one_block() {
    let mut session = Session::new(START_MS);
    let mut random = Random::new(11);
    let mut lists: [VecDeque<String>; 2] = Default::default();
    let keys = ["{t}a", "{t}b"];
    for number in 0..400 {
        run(&mut session, &["RPUSH", keys[0], &number.to_string()]);
        lists[0].push_back(number.to_string());
    }
    for _ in 0..400 {
        let (from, to) = (random.below(2), random.below(2));
        let (take_left, put_left) = (random.below(2) == 0, random.below(2) == 0);
        let (exactly, by_one) = (random.below(2) == 0, random.below(2) == 0);
        let count = 1 + random.below(90);
        let side = |left| if left { "LEFT" } else { "RIGHT" };
        let selector = if exactly { "EXACTLY" } else { "COUNT" };
        let order = if by_one { "OBO" } else { "BULK" };
        let wanted = count.to_string();
        let line = [
            "LMOVEM",
            keys[from],
            keys[to],
            side(take_left),
            side(put_left),
            selector,
            &wanted,
            order,
        ];
        let reply = run(&mut session, &line);
        let there = lists[from].len();
        if exactly && there < count {
            assert_eq!(reply, Reply::Null, "{line:?}");
            continue;
        }
        // As the documentation has it: one pop and one push each, or a block that keeps its order.
        let mut block = VecDeque::new();
        for _ in 0..count.min(there) {
            let taken = if take_left { lists[from].pop_front() } else { lists[from].pop_back() };
            let to_front = if by_one { put_left } else { !take_left };
            let taken = taken.expect("there is one");
            if to_front { block.push_front(taken) } else { block.push_back(taken) }
        }
        assert_eq!(VecDeque::from(texts(&reply)), block, "{line:?}");
        if put_left {
            block.extend(std::mem::take(&mut lists[to]));
            lists[to] = block;
        } else {
            lists[to].extend(block);
        }
        for (key, list) in keys.iter().zip(&lists) {
            let range = run(&mut session, &["LRANGE", key, "0", "-1"]);
            assert_eq!(&VecDeque::from(texts(&range)), list, "{line:?}");
            assert_eq!(integer(&run(&mut session, &["EXISTS", key])), i64::from(!list.is_empty()));
        }
    }
}

#[test]
fn the_encoding_told_is_that_of_redis() {
    let mut session = Session::new(START_MS);
    let encoding = |session: &mut Session, key| print(&run(session, &["OBJECT", "ENCODING", key]));
    // 1,169 elements of seven bytes and a frame of seven are 8,190 bytes.
    for _ in 0..1_169 {
        run(&mut session, &["RPUSH", "l", "12345"]);
    }
    assert!(is_in_rows(&session, "l"), "whatever it is called");
    assert_eq!(encoding(&mut session, "l"), "\"listpack\"");
    run(&mut session, &["RPUSH", "text", &"x".repeat(8_185)]);
    assert_eq!(encoding(&mut session, "text"), "\"listpack\"");
    run(&mut session, &["RPUSH", "text", "xx"]);
    assert_eq!(encoding(&mut session, "text"), "\"quicklist\"");
    run(&mut session, &["LPOP", "text"]);
    assert_eq!(encoding(&mut session, "text"), "\"listpack\"", "small enough again");
    run(&mut session, &["RPUSH", "l", &"x".repeat(4_000)]);
    for _ in 0..300 {
        run(&mut session, &["RPUSH", "l", "123456789"]);
    }
    assert_eq!(encoding(&mut session, "l"), "\"quicklist\"");
    run(&mut session, &["COPY", "l", "m"]);
    assert_eq!(encoding(&mut session, "m"), "\"quicklist\"");
    run(&mut session, &["LTRIM", "m", "0", "9"]);
    assert_eq!(encoding(&mut session, "m"), "\"listpack\"");
}

#[test]
fn a_list_that_goes_takes_its_rows_along() {
    for line in ["DEL l", "LTRIM l 1 0", "LPOP l 1000", "SET l v", "LREM l 0 same", "PEXPIRE l -1"]
    {
        let mut session = Session::new(START_MS);
        for _ in 0..300 {
            run(&mut session, &["RPUSH", "l", "same"]);
        }
        let effects = session.effects_of(line);
        assert_eq!(effects.dropped.len(), 1, "{line}");
        assert_eq!(effects.writes.len(), 1, "{line}: only the header's row");
    }
}

#[test]
fn several_lines_at_once_are_one_after_the_other() {
    let mut random = Random::new(77);
    let (mut at_once, mut in_turn) = (Session::new(START_MS), Session::new(START_MS));
    for sessions in [&mut at_once, &mut in_turn] {
        sessions.view.notes = Notes::new(Wanted(u32::MAX));
    }
    let mut encodings = BTreeSet::new();
    let mut in_vain = 0;
    for round in 0..2_000 {
        let growing = round / 50 % 3 == 0;
        let pushes = random.below(10) < if growing { 6 } else { 1 };
        let name = match (pushes, random.below(2)) {
            (true, 0) => "LPUSH",
            (true, _) => "RPUSH",
            (false, 0) => "LPOP",
            (false, _) => "RPOP",
        };
        let lines: Vec<Vec<Bytes>> = (0..1 + random.below(40))
            .map(|_| {
                let mut line = vec![b(name), b("l")];
                if pushes {
                    line.extend((0..1 + random.below(3)).map(|_| b(&element(&mut random))));
                } else if random.below(30) == 0 {
                    line.push(b(&random.below(4).to_string()));
                }
                line
            })
            .collect();
        let replies = at_once.run_many(&lines);
        let expected: Vec<Reply> = lines.iter().map(|line| in_turn.run(line)).collect();
        assert_eq!(replies, expected, "round {round}: {name}");
        in_vain += replies.iter().filter(|reply| **reply == Reply::Null).count();
        assert_eq!(at_once.take_notices(), in_turn.take_notices(), "round {round}: {name}");
        for look in [&["LRANGE", "l", "0", "-1"][..], &["OBJECT", "ENCODING", "l"]] {
            let found = run(&mut at_once, look);
            assert_eq!(found, run(&mut in_turn, look), "round {round}: {look:?}");
            if look.len() == 3 {
                encodings.insert(print(&found));
            }
        }
        assert_eq!(at_once.view.counters, in_turn.view.counters, "round {round}: {name}");
    }
    assert!(encodings.len() == 3 && in_vain > 100, "{encodings:?}, {in_vain} pops of nothing");
}

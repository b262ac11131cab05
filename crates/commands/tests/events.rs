//! Events of keys, as Redis names them and in its order: each line is a command and what it is to be
//! noted for. What Redis 7.0 knows is also compared with a real one (compat-tests, `events`); the
//! commands of later versions stand here.

mod support;

use commands::notes::{Notes, Notice, Wanted};
use support::{START_MS, Session};

/// Runs commands, and compares what each notes: `event key` joined by commas.
fn check(lines: &[(&str, &str)]) {
    let mut session = Session::new(START_MS);
    session.view.notes = Notes::new(Wanted(u32::MAX));
    for (line, events) in lines {
        match line.strip_prefix("advance ") {
            Some(ms) => session.view.now_ms += ms.parse::<u64>().expect("a number"),
            None if *line == "expire" => {
                session.expire_due(100);
            }
            None => {
                session.run_line(line);
            }
        }
        let noted = session.take_notices();
        let noted: Vec<String> = noted
            .iter()
            .filter_map(Notice::event)
            .map(|(event, key)| format!("{event} {}", key.escape_ascii()))
            .collect();
        assert_eq!(noted.join(", "), *events, "{line}");
    }
}

#[test]
fn strings_and_keys() {
    check(&[
        ("GET s", "keymiss s"),
        ("SET s 1", "new s, set s"),
        ("SET s 1 EX 10", "set s, expire s"),
        ("SET s 2 NX", ""),
        ("SET t 2 XX GET", "keymiss t"),
        ("SETEX t 10 v", "new t, set t, expire t"),
        ("GETEX t PERSIST", "persist t"),
        ("GETEX t PERSIST", ""),
        ("GETEX t EX 5", "expire t"),
        ("GETEX t PXAT 1", "del t"),
        ("MSET s 1 t 2", "set s, new t, set t"),
        ("MSETNX s 1 u 2", ""),
        ("MSETEX 2 s 1 u 2 EX 100", "set s, expire s, new u, set u, expire u"),
        ("INCR s", "incrby s"),
        ("DECRBY s 3", "incrby s"),
        ("INCRBYFLOAT s 0.5", "incrbyfloat s"),
        ("APPEND s x", "append s"),
        ("SETRANGE s 0 \"\"", ""),
        ("SETRANGE s 1 y", "setrange s"),
        ("GETDEL s", "del s"),
        ("DELEX u IFEQ 9", ""),
        ("DELEX u IFEQ 2", "del u"),
        ("SETBIT b 3 0", "new b, setbit b"),
        ("SETBIT b 3 0", ""),
        ("BITFIELD o OVERFLOW FAIL SET u8 8 -1", "new o"),
        ("BITFIELD o SET u8 8 7", "setbit o"),
        ("BITOP NOT c b", "new c, set c"),
        ("BITOP NOT c nothing", "keymiss nothing, del c"),
        ("PFADD p a", "new p, pfadd p"),
        ("PFADD p a", ""),
        ("PFMERGE p p", "pfadd p"),
        ("EXPIRE t 100", "expire t"),
        ("PERSIST t", "persist t"),
        ("EXPIRE t -1", "del t"),
        ("RENAME b p", "new p, rename_from b, rename_to p"),
        ("COPY p q", "new q, copy_to q"),
        ("COPY p q REPLACE", "new q, copy_to q"),
        ("OBJECT ENCODING none", ""),
        ("EXISTS none p", "keymiss none"),
        ("DEL p none q", "del p, del q"),
    ]);
}

#[test]
fn expiry_is_noted_by_whoever_deletes() {
    check(&[
        ("SET a 1 PX 9", "new a, set a, expire a"),
        ("SET b 1 PX 10", "new b, set b, expire b"),
        ("HSET h f 1 g 2", "new h, hset h"),
        ("HPEXPIRE h 10 FIELDS 1 f", "hexpire h"),
        ("HSET i f 1", "new i, hset i"),
        ("HPEXPIRE i 11 FIELDS 1 f", "hexpire i"),
        ("advance 11", ""),
        ("GET a", "keymiss a"),
        ("SET b 2", "expired b, new b, set b"),
        ("expire", "expired a, hexpired h, hexpired i, del i"),
        ("expire", ""),
        ("HSET j f 1 g 2 i 3", "new j, hset j"),
        ("HPEXPIRE j 10 FIELDS 2 f i", "hexpire j"),
        ("advance 10", ""),
        ("HGETDEL j FIELDS 2 f g", "hexpired j, hdel j"),
        ("HGETDEL j FIELDS 1 i", "hexpired j, del j"),
    ]);
}

#[test]
fn hashes_of_later_versions() {
    check(&[
        ("HSET h a 1 b 2 c 3 d 4", "new h, hset h"),
        ("HEXPIRE h 100 FIELDS 2 a none", "hexpire h"),
        ("HEXPIRE h 100 NX FIELDS 1 a", ""),
        ("HPERSIST h FIELDS 1 a", "hpersist h"),
        ("HPERSIST h FIELDS 1 a", ""),
        ("HEXPIRE h 0 FIELDS 1 a", "hdel h"),
        ("HGETEX h EX 100 FIELDS 1 b", "hexpire h"),
        ("HGETEX h PERSIST FIELDS 1 b", "hpersist h"),
        ("HGETEX h FIELDS 1 b", ""),
        ("HSETEX h EX 100 FIELDS 1 b 5", "hset h, hexpire h"),
        ("HSETEX h FNX FIELDS 1 b 5", ""),
        ("HSETEX k FIELDS 1 b 5", "new k, hset k"),
        ("HGETDEL h FIELDS 1 c", "hdel h"),
        ("HINCRBY h n 1", "hincrby h"),
        ("HINCRBYFLOAT h n 1", "hincrbyfloat h"),
        ("HDEL h b d", "hdel h"),
        ("HDEL h n", "hdel h, del h"),
        ("HPEXPIREAT k 1 FIELDS 1 b", "hdel k, del k"),
    ]);
}

#[test]
fn collections() {
    check(&[
        ("RPUSH l a b c a", "new l, rpush l"),
        ("LPUSHX none a", ""),
        ("LREM l 0 a", "lrem l"),
        ("LREM l 0 a", ""),
        ("LMOVE l m LEFT RIGHT", "new m, rpush m, lpop l"),
        ("RPOPLPUSH l m", "lpush m, rpop l, del l"),
        ("LMPOP 2 l m LEFT COUNT 1", "lpop m"),
        ("LTRIM m 5 6", "ltrim m, del m"),
        ("SADD s a b", "new s, sadd s"),
        ("SADD s a", ""),
        ("SMOVE s t a", "srem s, new t, sadd t"),
        ("SMOVE s t b", "srem s, del s, sadd t"),
        ("SPOP t 0", ""),
        ("SPOP t 5", "spop t, del t"),
        ("SUNIONSTORE s none", "keymiss none"),
        ("ZADD z 1 a 2 b", "new z, zadd z"),
        ("ZADD z 1 a", ""),
        ("ZINCRBY z 1 a", "zincr z"),
        ("ZRANGESTORE y z 0 0", "new y, zrangestore y"),
        ("ZREMRANGEBYRANK y 0 -1", "zremrangebyrank y, del y"),
        ("ZPOPMIN z", "zpopmin z"),
        ("ZMPOP 1 z MAX", "zpopmax z, del z"),
        ("XADD x 1-1 f v", "new x, xadd x"),
        ("XADD x MAXLEN 1 2-1 f v", "xadd x, xtrim x"),
        ("XGROUP CREATE x g 0", "xgroup-create x"),
        ("XREADGROUP GROUP g me STREAMS x >", "xgroup-createconsumer x"),
        ("XACKDEL x g IDS 1 2-1", "xdel x"),
        ("XGROUP DELCONSUMER x g me", "xgroup-delconsumer x"),
        ("XGROUP DESTROY x g", "xgroup-destroy x"),
    ]);
}

#[test]
fn nothing_is_noted_that_nobody_wants() {
    let mut session = Session::new(START_MS);
    for line in ["SET a 1 EX 10", "GET none", "DEL a"] {
        session.run_line(line);
    }
    assert!(session.take_notices().is_empty());
    session.view.notes = Notes::new(Wanted::GENERIC);
    for line in ["SET a 1 EX 10", "GET none", "DEL a"] {
        session.run_line(line);
    }
    let noted: Vec<_> =
        session.take_notices().iter().filter_map(Notice::event).map(|(event, _)| event).collect();
    assert_eq!(noted, ["expire", "del"]);
}

//! The one list of replies that may differ, each with its reason. A row names commands (or a
//! command and its subcommand) and says when two *different* replies still count as the same; it
//! never says more than it must. Equal bytes need no row.

use std::collections::{BTreeMap, BTreeSet};

use crate::resp::{Reply, Value};

/// A command and the two replies to it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The command.
    pub command: &'a [Vec<u8>],
    /// Redis's reply.
    pub reference: &'a Reply,
    /// The reply of the server under test.
    pub target: &'a Reply,
    /// Whether the sequence has a COPY to another database.
    pub copies_across: bool,
}

/// A row of the list.
#[derive(Debug)]
pub struct Difference {
    /// Which commands.
    pub on: &'static [&'static str],
    /// Why they differ.
    pub why: &'static str,
    same: fn(&Exchange<'_>) -> bool,
}

/// The list.
#[rustfmt::skip]
pub const DIFFERENCES: &[Difference] = &[
    // Inherent: no two servers, nor two runs of one, agree here.
    Difference { on: &["KEYS"], same: unordered, why: "the order of keys is the hash table's" },
    Difference { on: &["HGETALL"], same: |e| unordered_by(e, 2), why: "the order of fields is the hash table's" },
    Difference { on: &["HKEYS", "HVALS"], same: unordered, why: "the same" },
    Difference { on: &["HSCAN"], same: |e| item_scans(e, 2),
        why: "cursors and order are each server's own; what comes in one call is compared as a set" },
    Difference { on: &["HRANDFIELD"], same: as_many, why: "random; the number of fields is compared" },
    Difference { on: &["SMEMBERS", "SINTER", "SUNION", "SDIFF", "SPOP"], same: unordered, why: "the order of members is the hash table's" },
    Difference { on: &["SSCAN"], same: |e| item_scans(e, 1), why: "as HSCAN" },
    Difference { on: &["SRANDMEMBER"], same: as_many, why: "random; the number of members is compared" },
    Difference { on: &["ZSCAN"], same: scored_scans, why: "as HSCAN" },
    Difference { on: &["ZRANDMEMBER"], same: as_many, why: "as HRANDFIELD" },
    Difference { on: &["SCAN"], same: both_scans,
        why: "cursors and order are each server's own; whole scans are compared as sets" },
    Difference { on: &["TTL", "EXPIRETIME"], same: |e| near(e, 2), why: "the clock runs on between the servers (s)" },
    Difference { on: &["PTTL", "PEXPIRETIME"], same: |e| near(e, 2_000), why: "the same (ms)" },
    Difference { on: &["TIME"], same: both_now, why: "the clock" },
    Difference { on: &["CLIENT ID"], same: both_positive, why: "ids are each server's own" },
    Difference { on: &["HELLO"], same: hello, why: "version and connection id" },
    Difference { on: &["CLIENT INFO", "CLIENT LIST"], same: client_lines,
        why: "addresses, ages and buffers; names of fields and what the client set are compared" },
    Difference { on: &["INFO"], same: info, why: "measurements; sections, names of fields and the keyspace are compared" },
    Difference { on: &["SLOWLOG GET", "SLOWLOG LEN"], same: same_shape, why: "what was slow" },
    Difference { on: &["LATENCY LATEST", "LATENCY HISTORY", "LATENCY HISTOGRAM", "LATENCY DOCTOR", "LATENCY GRAPH"],
        same: same_shape, why: "what was slow" },
    Difference { on: &["LATENCY RESET"], same: |e| both(e, |v| matches!(v, Value::Int(0..))), why: "how many events were slow" },
    Difference { on: &["MEMORY USAGE"], same: |e| matches!(e.reference.value, Value::Int(1..)) && matches!(e.target.value, Value::Int(1..) | Value::Nil),
        why: "bytes of rows, bytes of objects; Redis also weighs a key that has expired, until a command meets it" },
    Difference { on: &["MEMORY DOCTOR", "MEMORY STATS"], same: same_shape, why: "what memory is used for" },
    // Redis 7.0.15 is the measure, 7.2 and later the aim.
    Difference { on: &["CLIENT SETINFO", "CLIENT NO-TOUCH"], same: |e| e.reference.value.is_error(),
        why: "came with 7.2: 7.0 does not know them" },
    Difference { on: &["CLIENT HELP", "COMMAND HELP", "CONFIG HELP", "LATENCY HELP", "MEMORY HELP", "OBJECT HELP", "SLOWLOG HELP", "XGROUP HELP", "XINFO HELP"],
        same: both_helps, why: "texts change with each version" },
    Difference { on: &["COMMAND GETKEYS", "COMMAND GETKEYSANDFLAGS"], same: |e| e.command.len() == 3
            && e.reference.value.error_text().starts_with("ERR wrong number of arguments for 'command|getkeys"),
        why: "since 7.2 a name alone may be asked about" },
    Difference { on: &["BITCOUNT", "BITPOS"], same: |e| e.target.value.error_text().starts_with("ERR ")
            && (matches!(e.reference.value, Value::Int(0 | -1)) || e.reference.value.error_text().starts_with("WRONGTYPE ")),
        why: "since 7.2 a wrong range is refused before the key is looked at" },
    Difference { on: &["OBJECT ENCODING"], same: |e| (e.reference.value.text(), e.target.value.text()) == (Some(b"hashtable"), Some(b"listpack")),
        why: "since 7.2 a small set of texts is a listpack" },
    Difference { on: &["XREAD", "XREADGROUP"], same: |e| [&e.reference.value, &e.target.value]
            .iter().all(|value| value.error_text().starts_with("ERR Unbalanced ")),
        why: "worded otherwise since 7.2" },
    Difference { on: &["XINFO GROUPS"], same: more_consumers, why: "since 7.2 XCLAIM and XAUTOCLAIM make the consumer although they claim nothing, and since 7.4 the lag of a group that has read nothing is the stream's length" },
    Difference { on: &["XGROUP CREATECONSUMER"], same: |e| (&e.reference.value, &e.target.value) == (&Value::Int(1), &Value::Int(0)), why: "the same" },
    Difference { on: &["XSETID"], same: set_below_deleted,
        why: "since 7.2 the highest ID that was deleted bounds XSETID of an empty stream, too" },
    Difference { on: &["XREAD"], same: |e| e.command.iter().any(|arg| arg == b"+") && e.reference.value.error_text().starts_with("ERR Invalid stream ID"),
        why: "since 7.4 + is an ID here" },
    Difference { on: &["XREADGROUP"], same: |e| e.command.iter().any(|arg| arg == b"+") && e.reference.value.error_text().starts_with("ERR Invalid stream ID")
            && e.target.value.error_text().starts_with("ERR The + ID is meaningless in the context of XREADGROUP"),
        why: "the same, and its meaning is refused" },
    Difference { on: &["OBJECT ENCODING"], same: |e| (e.reference.value.text(), e.target.value.text()) == (Some(b"skiplist"), Some(b"listpack")),
        why: "SORT of a small sorted set makes it a skiplist in Redis; here a command that reads changes nothing" },
    Difference { on: SCORED, same: same_numbers, why: "since 7.2 a double is printed with the fewest digits that read back" },
    Difference { on: &["EVAL", "EVAL_RO"], same: |e| e.command.iter().any(|arg| is_in(b"setresp(3)", arg)) && same_numbers(e),
        why: "the same of a double that a script passes on" },
    Difference { on: &["OBJECT ENCODING"], same: |e| (e.reference.value.text(), e.target.value.text()) == (Some(b"quicklist"), Some(b"listpack")),
        why: "since 7.2 a small list is a listpack" },
    Difference { on: &["ZRANK", "ZREVRANK"], same: |e| e.command.len() == 4 && e.reference.value.error_text().starts_with("ERR wrong number of arguments"),
        why: "WITHSCORE came with 7.2" },
    Difference { on: &["HELLO"], same: |e| e.reference.value.error_text().starts_with("WRONGPASS ") && e.target.value.error_text().starts_with("ERR Syntax error in HELLO option"),
        why: "since 7.2 a HELLO is read to its end before anybody is logged in" },
    Difference { on: &["LPOS", "LREM", "ZRANDMEMBER"], same: refused_lowest, why: "since 7.2 the number that has no negative is refused" },
    Difference { on: &["SORT", "SORT_RO"], same: stale_range_error, why: "strtod leaves errno as it was, and Redis looks at it: a number out of range in an earlier command makes a sound SORT fail" },
    // Evenkeel's own ways.
    Difference { on: &["OBJECT IDLETIME"], same: |e| e.target.value == Value::Int(0) && matches!(e.reference.value, Value::Int(0..)),
        why: "Evenkeel does not keep when a key was last used, as nothing is evicted by it" },
    Difference { on: &["RESTORE"], same: refused_overflow,
        why: "a time to live beyond 2^63 ms is refused; in Redis it wraps around, and the key is lost although the answer is OK" },
    Difference { on: &["OBJECT REFCOUNT"],
        same: |e| e.reference.value == Value::Int(1) && e.target.value == Value::Int(i64::from(i32::MAX)),
        why: "in Redis a COPY of a small integer has an object of its own" },
    Difference { on: &["OBJECT ENCODING"], same: |e| e.copies_across
            && matches!((e.reference.value.text(), e.target.value.text()),
                (Some(b"raw"), Some(b"embstr" | b"int")) | (Some(b"embstr"), Some(b"int"))),
        why: "a copy in another database is made of a DUMP, which does not say how a short string came to be" },
    Difference { on: &["OBJECT ENCODING"], same: |e| e.copies_across
            && (e.reference.value.text(), e.target.value.text()) == (Some(b"hashtable"), Some(b"listpack")),
        why: "the same of a hash that had been larger: RESTORE makes it small, in Redis too" },
    Difference { on: &["OBJECT ENCODING"], same: |e| e.copies_across
            && (e.reference.value.text(), e.target.value.text()) == (Some(b"skiplist"), Some(b"listpack")),
        why: "the same of a sorted set" },
    Difference { on: &["CONFIG SET"], same: fewer_choices, why: "nothing is ever evicted: noeviction is the only choice" },
    Difference { on: &["COMMAND"], same: |e| e.command.len() == 1 && same_shape(e), why: "as the next row" },
    Difference { on: &["COMMAND COUNT", "COMMAND LIST", "COMMAND INFO", "COMMAND DOCS"], same: same_shape,
        why: "Evenkeel has fewer commands and some of its own; command_table.rs compares the rows" },
    Difference { on: &["SORT", "SORT_RO"], same: sorted_to_a_nul,
        why: "ALPHA compares with strcoll, to which a text ends at its first NUL: what differs behind it comes in any order" },
    Difference { on: &["BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"],
        same: |e| e.reference.value.error_text() == "ERR timeout is negative" && e.target.value.error_text() == "ERR timeout is out of range",
        why: "since 7.2 a timeout that is too long is told as such" },
    Difference { on: &["CONFIG GET"], same: config_get,
        why: "settings of an engine that Evenkeel does not have; those both have keep their names" },
    Difference { on: &["DUMP"], same: |e| both(e, |v| v.text().is_some()),
        why: "version and compression of the payload are free; RESTORE of it is tested" },
    Difference { on: &["WAIT"], same: |e| both(e, |v| matches!(v, Value::Int(n) if *n >= 0)),
        why: "an Evenkeel write is on a quorum when it is acknowledged; Redis has no replica here" },
];

/// An exchange after which the servers no longer hold the same, whatever they answered: nothing
/// behind it is compared.
#[derive(Debug)]
pub struct Parting {
    /// Which commands.
    pub on: &'static str,
    /// Why they part.
    pub why: &'static str,
    parts: fn(&Exchange<'_>) -> bool,
}

/// The partings.
#[rustfmt::skip]
pub const PARTINGS: &[Parting] = &[
    Parting { on: "RESTORE", parts: refused_overflow, why: "see its row above" },
    Parting { on: "XSETID", parts: set_below_deleted, why: "see its row above" },
    Parting { on: "LREM", parts: refused_lowest, why: "see its row above" },
    Parting { on: "SORT", parts: stale_range_error, why: "with STORE; see its row above" },
    Parting { on: "CLIENT TRACKING", parts: |e| e.target.value == Value::Simple(b"OK".into())
            && e.command.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"on")),
        why: "when a key that expires is told, and of which flush, is each server's own; the rest is compared by tracking.rs" },
    Parting { on: "HELLO", parts: |e| e.reference.value.is_error()
            && e.command.iter().any(|arg| arg.eq_ignore_ascii_case(b"SETNAME") || arg.eq_ignore_ascii_case(b"AUTH")),
        why: "since 7.2 a HELLO that is refused neither names the connection nor logs it in" },
];

fn set_below_deleted(e: &Exchange<'_>) -> bool {
    const REFUSAL: &str =
        "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id";
    e.reference.value == Value::Simple(b"OK".into()) && e.target.value.error_text() == REFUSAL
}

/// Counts how often each row was needed.
#[derive(Default, Debug)]
pub struct Ledger {
    uses: BTreeMap<usize, usize>,
}

impl Ledger {
    /// Whether the replies count as the same: equal bytes, or a row says so.
    pub fn same(&mut self, exchange: &Exchange<'_>) -> bool {
        if exchange.reference.raw == exchange.target.raw {
            return true;
        }
        let row = DIFFERENCES.iter().position(|row| {
            row.on.iter().any(|name| named(exchange.command, name)) && (row.same)(exchange)
        });
        if let Some(row) = row {
            *self.uses.entry(row).or_default() += 1;
        }
        row.is_some()
    }

    /// Whether the servers part at this exchange.
    pub fn parts(exchange: &Exchange<'_>) -> bool {
        PARTINGS.iter().any(|row| named(exchange.command, row.on) && (row.parts)(exchange))
    }

    /// The rows and how often each was needed.
    pub fn report(&self) -> String {
        let line = |(index, row): (usize, &Difference)| {
            let uses = self.uses.get(&index).unwrap_or(&0);
            format!("{uses:>7}  {}: {}\n", row.on.join(", "), row.why)
        };
        DIFFERENCES.iter().enumerate().map(line).collect()
    }
}

/// Whether the command's first words are these, in any case.
pub fn named(command: &[Vec<u8>], name: &str) -> bool {
    let mut words = name.split(' ');
    words.by_ref().enumerate().all(|(index, word)| {
        command.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    })
}

fn both(exchange: &Exchange<'_>, holds: fn(&Value) -> bool) -> bool {
    holds(&exchange.reference.value) && holds(&exchange.target.value)
}

fn unordered(exchange: &Exchange<'_>) -> bool {
    unordered_by(exchange, 1)
}

/// The same items in another order, so many at a time; a map's are pairs in any case.
fn unordered_by(exchange: &Exchange<'_>, size: usize) -> bool {
    let (reference, target) = (&exchange.reference.value, &exchange.target.value);
    let same_type = std::mem::discriminant(reference) == std::mem::discriminant(target);
    let sorted = [reference, target].map(|value| sorted(value, size));
    same_type && sorted[0].is_some() && sorted[0] == sorted[1]
}

fn sorted(value: &Value, size: usize) -> Option<Vec<Vec<Value>>> {
    let mut groups: Vec<Vec<Value>> = match value {
        Value::Map(pairs) => {
            pairs.iter().map(|(key, value)| vec![key.clone(), value.clone()]).collect()
        }
        _ => value.items()?.chunks(size).map(<[Value]>::to_vec).collect(),
    };
    groups.sort();
    Some(groups)
}

/// Of two HSCANs that began at 0 and came to the end at once, the fields and values are the same,
/// and likewise of others with items of so many parts; else only their shape is.
fn item_scans(exchange: &Exchange<'_>, size: usize) -> bool {
    let parts = [exchange.reference, exchange.target].map(|reply| match reply.value.items() {
        Some([cursor, fields]) => Some((cursor.text()?.to_vec(), sorted(fields, size)?)),
        _ => None,
    });
    let [Some((their_cursor, theirs)), Some((our_cursor, ours))] = parts else { return false };
    let from_start = exchange.command.get(2).is_some_and(|cursor| cursor == b"0");
    let at_once = from_start && their_cursor == b"0" && our_cursor == b"0";
    !at_once || theirs == ours
}

/// Groups of a stream that differ by their lag, and by consumers, of which Redis has fewer.
fn more_consumers(exchange: &Exchange<'_>) -> bool {
    let groups = [exchange.reference, exchange.target].map(|reply| {
        let groups = reply.value.items()?.iter().map(|group| {
            let mut fields = group.pairs()?;
            fields.retain(|(name, _)| name.to_text() != "lag");
            let is_count = |(name, _): &(&Value, &Value)| name.to_text() == "consumers";
            let (counts, others): (Vec<_>, Vec<_>) = fields.into_iter().partition(is_count);
            Some((counts, others))
        });
        groups.collect::<Option<Vec<_>>>()
    });
    let [Some(theirs), Some(ours)] = groups else { return false };
    theirs.len() == ours.len()
        && theirs.iter().zip(&ours).all(|((their_counts, theirs), (our_counts, ours))| {
            theirs == ours && their_counts <= our_counts
        })
}

/// Commands that answer scores.
const SCORED: &[&str] = &[
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "ZADD",
    "ZDIFF",
    "ZINCRBY",
    "ZINTER",
    "ZMPOP",
    "ZMSCORE",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGE",
    "ZREVRANGEBYSCORE",
    "ZSCORE",
    "ZUNION",
];

fn is_in(part: &[u8], text: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Equal but for the digits of doubles, which stand for the same.
fn same_numbers(exchange: &Exchange<'_>) -> bool {
    exchange.reference.value == exchange.target.value
        || are_numbers(&exchange.reference.value, &exchange.target.value)
}

fn are_numbers(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bulk(text) | Value::Double(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None::<f64>,
    };
    match (one, other) {
        (Value::Bulk(_), Value::Bulk(_)) | (Value::Double(_), Value::Double(_)) => {
            one == other || number(one).is_some_and(|one| Some(one) == number(other))
        }
        _ => match (one.items(), other.items()) {
            (Some(one), Some(other)) => {
                let mut pairs = one.iter().zip(other);
                one.len() == other.len() && pairs.all(|(one, other)| are_numbers(one, other))
            }
            _ => one == other,
        },
    }
}

/// As `field_scans`, of scores.
fn scored_scans(exchange: &Exchange<'_>) -> bool {
    let parts = [exchange.reference, exchange.target].map(|reply| match reply.value.items() {
        Some([cursor, members]) => Some((cursor.text()?.to_vec(), sorted(members, 2)?)),
        _ => None,
    });
    let [Some((their_cursor, theirs)), Some((our_cursor, ours))] = parts else { return false };
    let from_start = exchange.command.get(2).is_some_and(|cursor| cursor == b"0");
    let at_once = from_start && their_cursor == b"0" && our_cursor == b"0";
    let mut pairs = theirs.iter().flatten().zip(ours.iter().flatten());
    !at_once || (theirs.len() == ours.len() && pairs.all(|(one, other)| are_numbers(one, other)))
}

/// A count or a rank of -2^63 was given and refused.
fn refused_lowest(exchange: &Exchange<'_>) -> bool {
    exchange.command.iter().any(|arg| arg == b"-9223372036854775808")
        && exchange
            .target
            .value
            .error_text()
            .starts_with("ERR value is out of range, value must between")
        && !exchange.reference.value.error_text().starts_with("ERR value is out of range")
}

/// One item each, or as many of them.
fn as_many(exchange: &Exchange<'_>) -> bool {
    let shape = |value: &Value| match value {
        Value::Bulk(_) => Some(None),
        value => {
            let items = value.items()?;
            Some(Some((items.len(), items.first().map(std::mem::discriminant))))
        }
    };
    let reference = shape(&exchange.reference.value);
    reference.is_some() && reference == shape(&exchange.target.value)
}

fn both_scans(exchange: &Exchange<'_>) -> bool {
    both(exchange, |value| match value.items() {
        Some([cursor, keys]) => {
            cursor.to_text().parse::<u64>().is_ok()
                && keys.items().is_some_and(|keys| keys.iter().all(|key| key.text().is_some()))
        }
        _ => false,
    })
}

/// Two counts that are at most so far apart; a negative one has a meaning and must be equal.
fn near(exchange: &Exchange<'_>, apart_max: i64) -> bool {
    match (&exchange.reference.value, &exchange.target.value) {
        (Value::Int(a), Value::Int(b)) => *a >= 0 && *b >= 0 && (a - b).abs() <= apart_max,
        _ => false,
    }
}

fn both_now(exchange: &Exchange<'_>) -> bool {
    let seconds = |value: &Value| match value.items() {
        Some([seconds, micros]) => {
            let micros: i64 = micros.to_text().parse().ok()?;
            (0..1_000_000).contains(&micros).then_some(())?;
            seconds.to_text().parse::<i64>().ok()
        }
        _ => None,
    };
    match (seconds(&exchange.reference.value), seconds(&exchange.target.value)) {
        (Some(a), Some(b)) => (a - b).abs() <= 2,
        _ => false,
    }
}

fn both_positive(exchange: &Exchange<'_>) -> bool {
    both(exchange, |value| matches!(value, Value::Int(id) if *id > 0))
}

/// The same but for the values of `version` and `id`.
fn hello(exchange: &Exchange<'_>) -> bool {
    let masked = |value: &Value| -> Option<Vec<(String, Value)>> {
        let pairs = value.pairs()?;
        let mask = |(key, value): (&Value, &Value)| {
            let key = key.to_text();
            let free = match key.as_str() {
                "version" => !value.to_text().is_empty(),
                "id" => matches!(value, Value::Int(id) if *id > 0),
                _ => false,
            };
            (key, if free { Value::Nil } else { value.clone() })
        };
        Some(pairs.into_iter().map(mask).collect())
    };
    let same_type = std::mem::discriminant(&exchange.reference.value)
        == std::mem::discriminant(&exchange.target.value);
    let reference = masked(&exchange.reference.value);
    same_type && reference.is_some() && reference == masked(&exchange.target.value)
}

/// Fields of CLIENT LIST whose values the client determines.
const CLIENT_FIELDS_EQUAL: &[&str] =
    &["name", "flags", "db", "sub", "psub", "ssub", "multi", "cmd", "user", "redir", "resp"];

/// Each field of Redis's is there; those the client determines have the same value. Of a list the
/// last line is taken, as other connections may be on their way out.
fn client_lines(exchange: &Exchange<'_>) -> bool {
    let fields = |value: &Value| -> Option<BTreeMap<String, String>> {
        let text = String::from_utf8_lossy(value.text()?).into_owned();
        let line = text.lines().last().unwrap_or_default();
        line.split(' ')
            .filter(|field| !field.is_empty())
            .map(|field| field.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .collect()
    };
    let (Some(mut reference), Some(mut target)) =
        (fields(&exchange.reference.value), fields(&exchange.target.value))
    else {
        return false;
    };
    let listed = named(exchange.command, "CLIENT LIST");
    // T, the flag of NO-TOUCH, came with 7.2; and since then RESET takes away e, that of NO-EVICT.
    let protected = target.get("flags").is_some_and(|flags| flags.contains('e'));
    without_flags(&mut target, "T");
    without_flags(&mut reference, if protected { "" } else { "e" });
    reference.keys().all(|field| target.contains_key(field))
        && (listed
            || CLIENT_FIELDS_EQUAL.iter().all(|field| reference.get(*field) == target.get(*field)))
}

fn without_flags(fields: &mut BTreeMap<String, String>, without: &str) {
    if let Some(flags) = fields.get_mut("flags") {
        flags.retain(|flag| !without.contains(flag));
        if flags.is_empty() {
            flags.push('N');
        }
    }
}

/// Sections whose fields are what happened to be called, to fail or to be slow.
const INFO_SECTIONS_OF_HISTORY: &[&str] = &["Commandstats", "Errorstats", "Latencystats"];

/// Fields that Evenkeel leaves out.
const INFO_FIELDS_ABSENT: &[&str] = &[
    // How the C program was compiled.
    "atomicvar_api",
    "gcc_version",
    // jemalloc's own figures, and what Redis took at its start.
    "allocator_active",
    "allocator_allocated",
    "allocator_frag_bytes",
    "allocator_frag_ratio",
    "allocator_resident",
    "allocator_rss_bytes",
    "allocator_rss_ratio",
    "rss_overhead_bytes",
    "rss_overhead_ratio",
    "used_memory_startup",
    // Snapshots by a forked process, and the file read at the start.
    "aof_last_cow_size",
    "current_cow_peak",
    "current_cow_size",
    "current_cow_size_age",
    "current_fork_perc",
    "current_save_keys_processed",
    "current_save_keys_total",
    "module_fork_in_progress",
    "module_fork_last_cow_size",
    "rdb_last_cow_size",
    "rdb_last_load_keys_expired",
    "rdb_last_load_keys_loaded",
    // The defragmenter, and Redis's cycle that looks for expired keys.
    "active_defrag_hits",
    "active_defrag_key_hits",
    "active_defrag_key_misses",
    "active_defrag_misses",
    "current_active_defrag_time",
    "expire_cycle_cpu_milliseconds",
    "total_active_defrag_time",
    // One thread that is the main one.
    "used_cpu_sys_main_thread",
    "used_cpu_user_main_thread",
];

fn info(exchange: &Exchange<'_>) -> bool {
    let (Some(reference), Some(target)) =
        (sections(&exchange.reference.value), sections(&exchange.target.value))
    else {
        return false;
    };
    reference.iter().all(|(section, fields)| {
        let Some(ours) = target.get(section) else {
            return false;
        };
        if section == "Keyspace" {
            return counts(fields) == counts(ours);
        }
        if INFO_SECTIONS_OF_HISTORY.contains(&section.as_str()) {
            return true;
        }
        fields
            .keys()
            .all(|field| ours.contains_key(field) || INFO_FIELDS_ABSENT.contains(&field.as_str()))
    })
}

/// INFO as section → field → value.
pub fn sections(value: &Value) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in String::from_utf8_lossy(value.text()?).lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name.to_owned();
            sections.entry(section.clone()).or_default();
        } else if let Some((field, value)) = line.split_once(':') {
            sections.entry(section.clone()).or_default().insert(field.to_owned(), value.to_owned());
        }
    }
    Some(sections)
}

/// `db0:keys=1,expires=0,avg_ttl=0` without the average.
fn counts(keyspace: &BTreeMap<String, String>) -> BTreeSet<String> {
    let count = |(database, counts): (&String, &String)| {
        let counts: Vec<&str> = counts
            .split(',')
            .filter(|part| part.starts_with("keys=") || part.starts_with("expires="))
            .collect();
        format!("{database}:{}", counts.join(","))
    };
    keyspace.iter().map(count).collect()
}

/// The same type; that Redis refuses is no licence to accept, nor the other way round.
fn same_shape(exchange: &Exchange<'_>) -> bool {
    let (reference, target) = (&exchange.reference.value, &exchange.target.value);
    std::mem::discriminant(reference) == std::mem::discriminant(target) && !reference.is_error()
}

fn both_helps(exchange: &Exchange<'_>) -> bool {
    both(exchange, |value| {
        value.items().is_some_and(|lines| {
            !lines.is_empty() && lines.iter().all(|line| matches!(line, Value::Simple(_)))
        })
    })
}

/// As many elements, of which some hold a NUL, sorted as texts.
fn sorted_to_a_nul(exchange: &Exchange<'_>) -> bool {
    let is_alpha = |word: &Vec<u8>| word.eq_ignore_ascii_case(b"ALPHA");
    let holds_nul = |value: &Value| matches!(value, Value::Bulk(text) if text.contains(&0));
    let items = [exchange.reference, exchange.target].map(|reply| reply.value.items());
    let [Some(reference), Some(target)] = items else { return false };
    exchange.command.iter().any(is_alpha)
        && reference.len() == target.len()
        && reference.iter().chain(target).any(holds_nul)
}

/// Settings that came with Redis 7.2.
const CONFIG_OF_LATER_VERSIONS: &[&str] = &["set-max-listpack-entries", "set-max-listpack-value"];

/// Evenkeel's own settings.
const CONFIG_OF_EVENKEEL: &[&str] = &["cluster-redirects", "lua-memory-limit", "memory"];

/// Each setting the server under test has, of those asked for, is one that Redis has too, or its
/// own; and the names come in pairs with values.
fn config_get(exchange: &Exchange<'_>) -> bool {
    let names = |value: &Value| -> Option<BTreeSet<String>> {
        Some(value.pairs()?.into_iter().map(|(name, _)| name.to_text()).collect())
    };
    let same_type = std::mem::discriminant(&exchange.reference.value)
        == std::mem::discriminant(&exchange.target.value);
    match (names(&exchange.reference.value), names(&exchange.target.value)) {
        (Some(reference), Some(mut target)) => {
            let later = |name: &str| {
                CONFIG_OF_LATER_VERSIONS.contains(&name) || CONFIG_OF_EVENKEEL.contains(&name)
            };
            target.retain(|name| !later(name));
            same_type && target.is_subset(&reference)
        }
        _ => false,
    }
}

/// Redis calls an element no number, and Evenkeel sorts by it.
fn stale_range_error(e: &Exchange<'_>) -> bool {
    let scores = "ERR One or more scores can't be converted into double";
    e.reference.value.error_text() == scores && !e.target.value.is_error()
}

/// Redis took a time to live that overflows, we did not.
fn refused_overflow(exchange: &Exchange<'_>) -> bool {
    let ttl_ms =
        exchange.command.get(2).and_then(|ttl| std::str::from_utf8(ttl).ok()?.parse::<i64>().ok());
    ttl_ms.is_some_and(|ms| ms > i64::MAX - (1 << 45))
        && exchange.reference.value == Value::Simple(b"OK".into())
        && exchange.target.value.error_text() == "ERR Invalid TTL value, must be >= 0"
}

/// Both refuse a word and name the choices; all of ours are Redis's.
fn fewer_choices(exchange: &Exchange<'_>) -> bool {
    let text = [exchange.reference, exchange.target].map(|reply| reply.value.error_text());
    let parts = text.each_ref().map(|text| text.split_once("one of the following: "));
    let [Some((theirs, their_choices)), Some((ours, our_choices))] = parts else { return false };
    let their_choices: BTreeSet<&str> = their_choices.split(", ").collect();
    theirs == ours && our_choices.split(", ").all(|choice| their_choices.contains(choice))
}

/// Differences between the rows of COMMAND INFO: command, field, reason. The fields are those of
/// Redis's documentation (arity, flags, first, last, step, acl, tips, keys, subcommands).
pub const COMMAND_ROW_DIFFERENCES: &[(&str, &str, &str)] = &[
    ("client", "subcommands", "SETINFO and NO-TOUCH came with 7.2; each is looked for by itself"),
    ("cluster", "subcommands", "MYSHARDID came with 7.2; it is looked for by itself"),
    ("command|getkeys", "arity", "-3 since 7.2"),
    ("eval", "flags", "MAY_REPLICATE since 7.2"),
    ("evalsha", "flags", "MAY_REPLICATE since 7.2"),
    ("fcall", "flags", "MAY_REPLICATE since 7.2"),
    ("pfcount", "flags", "MAY_REPLICATE since 7.2"),
    ("publish", "flags", "MAY_REPLICATE since 7.2"),
    ("spublish", "flags", "MAY_REPLICATE since 7.2"),
    ("sinterstore", "keys", "OW instead of RW since 7.2"),
    ("command|getkeysandflags", "arity", "-3 since 7.2"),
    ("blmove", "flags", "allowed in scripts since 7.2"),
    ("blpop", "flags", "allowed in scripts since 7.2"),
    ("brpop", "flags", "allowed in scripts since 7.2"),
    ("brpoplpush", "flags", "allowed in scripts since 7.2"),
    ("bzpopmax", "flags", "allowed in scripts since 7.2"),
    ("bzpopmin", "flags", "allowed in scripts since 7.2"),
    ("wait", "flags", "allowed in scripts since 7.2"),
    ("zrank", "arity", "-3 since 7.2, with WITHSCORE"),
    ("zrevrank", "arity", "-3 since 7.2, with WITHSCORE"),
];

/// Bytes below the level of commands that Evenkeel answers in its own way: what is sent, what comes
/// back until the server closes, reason. Redis answers each of them with nothing.
pub const PROTOCOL_DIFFERENCES: &[(&[u8], &[u8], &str)] = &[
    (
        b"*1048577\r\n",
        b"-ERR Protocol error: invalid multibulk length\r\n",
        "a command has at most 1,048,576 arguments, as before 7.0; now Redis allows 2,147,483,647",
    ),
    (
        b"\x00\x01\x02\r\n",
        b"-ERR Protocol error: NUL in inline request\r\n",
        "Redis sees no end of a line behind a NUL and waits until 64 KiB have come",
    ),
];

/// Texts that a later version of Redis words otherwise: 7.0's and what it became.
const TEXTS_OF_LATER_VERSIONS: &[(&str, &str)] = &[
    (
        "otherwise the HELLO AUTH <user> <pass> option",
        "otherwise the HELLO <proto> AUTH <user> <pass> option",
    ),
    (
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "NOPERM No permissions to access a key",
    ),
    (
        "NOPERM this user has no permissions to access one of the channels used as arguments",
        "NOPERM No permissions to access a channel",
    ),
    (
        "The user executing the script can't access at least one of the keys mentioned in the command arguments",
        "ACL failure in script: No permissions to access a key",
    ),
    (
        "The user executing the script can't publish to the channel mentioned in the command",
        "ACL failure in script: No permissions to access a channel",
    ),
];

/// A reply of Redis 7.0 in the words of the version Evenkeel follows.
pub fn in_later_words(reply: &str) -> String {
    TEXTS_OF_LATER_VERSIONS
        .iter()
        .fold(reply.to_owned(), |reply, (old, new)| reply.replace(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(line: &str, reference: &[u8], target: &[u8]) -> bool {
        let reply = |raw: &[u8]| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut client = crate::resp::Client::connect(port).unwrap();
            std::io::Write::write_all(&mut listener.accept().unwrap().0, raw).unwrap();
            client.read().unwrap().unwrap()
        };
        let command: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        Ledger::default().same(&Exchange {
            command: &command,
            reference: &reply(reference),
            target: &reply(target),
            copies_across: false,
        })
    }

    #[test]
    fn a_row_excuses_only_what_it_names() {
        assert!(same("KEYS *", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$1\r\nb\r\n$1\r\na\r\n"));
        assert!(!same("KEYS *", b"*1\r\n$1\r\na\r\n", b"*1\r\n$1\r\nb\r\n"));
        assert!(!same(
            "MGET a b",
            b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*2\r\n$1\r\nb\r\n$1\r\na\r\n"
        ));
        assert!(same("PTTL a", b":1000\r\n", b":999\r\n"));
        assert!(!same("PTTL a", b":-1\r\n", b":-2\r\n"));
        assert!(!same("PTTL a", b":9000\r\n", b":1000\r\n"));
        assert!(!same("TTL a", b":10\r\n", b"-ERR no\r\n"));
        assert!(!same("GET a", b"$-1\r\n", b"_\r\n"));
        assert!(!same("COMMAND COUNT", b":240\r\n", b"-ERR no\r\n"));
        let (flat, other) = (b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n", b"*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n");
        assert!(same("HGETALL h", flat, other));
        assert!(!same("HGETALL h", flat, b"*4\r\n:1\r\n:4\r\n:3\r\n:2\r\n"));
        assert!(!same("HMGET h 1 3", flat, other));
        assert!(same("HRANDFIELD h", b"$1\r\na\r\n", b"$1\r\nb\r\n"));
        assert!(!same("HRANDFIELD h 2", b"*1\r\n$1\r\na\r\n", b"*0\r\n"));
        let scan = |(cursor, field): (u8, char)| {
            format!("*2\r\n$1\r\n{cursor}\r\n*2\r\n$1\r\n{field}\r\n:1\r\n")
        };
        let same_scan = |one, two| same("HSCAN h 0", scan(one).as_bytes(), scan(two).as_bytes());
        assert!(same_scan((7, 'a'), (0, 'b')) && !same_scan((0, 'a'), (0, 'b')));
        assert!(same("client id", b":7\r\n", b":9\r\n"));
    }
}

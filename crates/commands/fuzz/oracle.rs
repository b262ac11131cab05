//! What must hold of hostile input to this crate, for the fuzzers and for `tests/hostile.rs`.

use bytes::Bytes;
use commands::acl::{Defaults, User, parse_file, write_file};
use commands::{Args, MemoryView, Run, Txn, glob as patterns, rdb_checksum, table};
use wire::ids::Version;
use wire::resp::Reply;

/// Redis 7.2's version of the format.
const RDB_VERSION: u16 = 11;
/// The time at which everything happens, in ms since the epoch.
const NOW_MS: u64 = 1_700_000_000_000;

/// A payload as DUMP makes it: the content with a version and a right checksum.
pub(crate) fn sealed(content: &[u8]) -> Bytes {
    let mut payload = content.to_vec();
    payload.extend_from_slice(&RDB_VERSION.to_le_bytes());
    let checksum = rdb_checksum(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    Bytes::from(payload)
}

/// Runs a command line on a partition in memory, as its leader does.
pub(crate) fn run(view: &mut MemoryView, args: &[Bytes]) -> Reply {
    let mut entry = table::lookup(&args[0]).expect("a command");
    if let (Run::Group(_), Some(name)) = (&entry.command.run, args.get(1)) {
        entry = table::lookup_subcommand(entry, name).expect("a subcommand");
    }
    assert!(entry.command.arity.accepts(args.len()), "{args:?}");
    match entry.command.run {
        Run::Read(handler) => handler(view, Args(args)).unwrap_or_else(Into::into),
        Run::Write(handler) => {
            let mut txn = Txn::new(view, Version { index: view.next_index, ordinal: 0 });
            let done = handler(&mut txn, Args(args));
            let effects = txn.into_effects();
            match done {
                Ok(reply) => {
                    view.apply(effects);
                    reply
                }
                Err(error) => error.into(),
            }
        }
        _ => panic!("{args:?} is no partition's command"),
    }
}

fn run_line(view: &mut MemoryView, line: &str) -> Reply {
    let args: Vec<Bytes> =
        line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
    run(view, &args)
}

/// What is asked of a value: its type, its size, its elements and how many of the reply make one; then what
/// else is done with it.
type Uses = (&'static str, &'static str, &'static str, usize, &'static str);

const USES: &[Uses] = &[
    (
        "string",
        "STRLEN k",
        "GET k",
        1,
        "BITCOUNT k|PFCOUNT k|PFADD k a|PFMERGE d k|GETRANGE k -3 -1|INCR k|SETRANGE k 3 x|APPEND k x",
    ),
    (
        "list",
        "LLEN k",
        "LRANGE k 0 -1",
        1,
        "LINDEX k -1|LPOS k x|SORT k ALPHA|LREM k 0 x|LPUSH k x|RPOP k|LTRIM k 1 -2|LMOVE k k LEFT RIGHT",
    ),
    (
        "set",
        "SCARD k",
        "SMEMBERS k",
        1,
        "SRANDMEMBER k -5|SISMEMBER k 1|SADD k 1 x|SUNION k k|SPOP k 2|SSCAN k 0",
    ),
    (
        "hash",
        "HLEN k",
        "HGETALL k",
        2,
        "HRANDFIELD k -5|HSCAN k 0|HSET k f v|HINCRBY k f2 1|HDEL k f|HPEXPIRE k 5 FIELDS 1 f2",
    ),
    (
        "zset",
        "ZCARD k",
        "ZRANGE k 0 -1",
        1,
        "ZRANGEBYSCORE k -inf +inf|ZRANK k a|ZADD k 1 a|ZINCRBY k nan a|ZUNIONSTORE d 1 k|ZPOPMIN k|GEOPOS k a",
    ),
    (
        "stream",
        "XLEN k",
        "XRANGE k - +",
        1,
        "XINFO STREAM k FULL|XINFO GROUPS k|XADD k * f v|XREAD STREAMS k 0|XDEL k 1-1|XTRIM k MAXLEN 1|\
         XGROUP CREATE k g 0|XREADGROUP GROUP g c STREAMS k >|XPENDING k g - + 9|XAUTOCLAIM k g c 0 0",
    ),
];

/// Restores a content behind a right checksum; whether it is taken. What is taken can be used as any other
/// value, has as many elements as it says, and its own payload restores to the same.
pub(crate) fn restore(content: &[u8]) -> bool {
    let view = &mut MemoryView::new(NOW_MS);
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let line = |key, payload| [word("RESTORE"), word(key), word("0"), payload];
    if run(view, &line("k", sealed(content))) != Reply::OK {
        return false;
    }
    let kind = match run_line(view, "TYPE k") {
        Reply::Simple(kind) => Bytes::from_static(kind.as_bytes()),
        Reply::Status(kind) => kind,
        other => panic!("{other:?}"),
    };
    let uses = USES.iter().find(|uses| kind == uses.0);
    let (_, size, elements, width, more) = uses.unwrap_or_else(|| panic!("type {kind:?}"));
    let Reply::Integer(size) = run_line(view, size) else { panic!("no size") };
    let count = match run_line(view, elements).unfold() {
        Reply::Bulk(text) => text.len(),
        Reply::Array(items) | Reply::Set(items) => items.len() / width,
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Keyed(pairs) => pairs.len(),
        other => panic!("{other:?}"),
    };
    // Fields of a hash may have expired before they came.
    assert!(count as i64 == size || (kind == "hash" && (count as i64) < size), "{count}, {size}");
    let dumped = run_line(view, "DUMP k");
    if let Reply::Bulk(payload) = &dumped {
        assert_eq!(run(view, &line("again", payload.clone())), Reply::OK);
        assert_eq!(run_line(view, "DUMP again"), dumped);
    }
    for line in ["OBJECT ENCODING k", "MEMORY USAGE k", "COPY k c", "PEXPIRE k 100000"] {
        run_line(view, line);
    }
    more.split('|').for_each(|line| drop(run_line(view, line)));
    run_line(view, "DEL k c again d");
    true
}

/// A pattern against a text: the same answer twice, and that of the text itself if nothing in the pattern is
/// special.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let matched = patterns::matches(pattern, text);
    assert_eq!(matched, patterns::matches(pattern, text));
    if !pattern.iter().any(|byte| b"*?[\\".contains(byte)) {
        assert_eq!(matched, pattern == text);
    }
    matched
}

/// Rules of ACL SETUSER: how many were taken. The user is the same when it is read back.
pub(crate) fn acl_rules<R: AsRef<[u8]>>(rules: &[R]) -> usize {
    let defaults = Defaults::default();
    let mut user = User::new(b"u", defaults);
    let mut taken = 0;
    for rule in rules {
        if let Ok(changed) = user.with_rules(std::slice::from_ref(rule), defaults) {
            user = changed;
            taken += 1;
        }
    }
    let read = parse_file(&write_file([&user]), "f", defaults).expect("what was written");
    assert_eq!(read[0].describe(), user.describe());
    for line in ["GET a", "SET b 1", "CLIENT KILL x", "SELECT 0", "ZUNION 9 a"] {
        let args: Vec<Bytes> =
            line.split(' ').map(|a| Bytes::copy_from_slice(a.as_bytes())).collect();
        let entry = table::lookup(&args[0]).expect("a command");
        assert_eq!(user.check(entry, &args), read[0].check(entry, &args));
    }
    taken
}

//! What COMMAND DOCS tells about each command: a row of facts per command, beside the table so that
//! rows there stay short. `arguments` are parsed at run time from a syntax line:
//!
//! ```text
//! line     = { term }
//! term     = ( group | argument ) [ "..." ]
//! group    = "[" choice "]"                      optional
//!          | "<" choice ">"                      one of several, required
//! choice   = line { "|" line }
//! argument = TOKEN                               upper case: a word to be typed as it is
//!          | TOKEN name                          a word, then a value
//!          | name [ ":" type ]                   a value; its type follows from its name if not given
//! ```

use crate::command::{Command, Run};
use crate::table::Entry;

/// The facts of one command.
#[derive(Debug)]
pub struct Doc {
    /// The command's name; a subcommand's is `GROUP|NAME`.
    pub name: &'static str,
    /// The Redis version that brought it.
    pub since: &'static str,
    /// What it costs here.
    pub complexity: &'static str,
    /// Its arguments, in the grammar above.
    pub syntax: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// A family of commands as COMMAND DOCS names it.
#[derive(Debug)]
pub struct DocGroup {
    /// Redis's name of the group.
    pub name: &'static str,
    /// Its ACL category, if all its commands share one.
    pub category: Option<&'static str>,
    docs: &'static [Doc],
}

const fn doc(
    name: &'static str,
    since: &'static str,
    complexity: &'static str,
    syntax: &'static str,
    summary: &'static str,
) -> Doc {
    Doc { name, since, complexity, syntax, summary }
}

/// The facts of a row, and its family.
pub fn of(entry: &Entry) -> Option<(&'static DocGroup, &'static Doc)> {
    GROUPS.iter().find_map(|group| {
        let doc = group.docs.iter().find(|doc| is_name_of(doc.name, entry))?;
        Some((group, doc))
    })
}

fn is_name_of(name: &str, entry: &Entry) -> bool {
    match entry.group {
        None => name == entry.command.name,
        Some(group) => name
            .strip_prefix(group.name)
            .and_then(|rest| rest.strip_prefix('|'))
            .is_some_and(|rest| rest == entry.command.name),
    }
}

/// Redis's command tips of a row: what cluster-aware clients need to know.
pub fn tips(entry: &Entry) -> &'static [&'static str] {
    TIPS.iter().find(|(name, _)| is_name_of(name, entry)).map_or(&[], |(_, tips)| *tips)
}

/// The ACL categories of a row, without `@`, in Redis's order. They follow from the family and the
/// flags, so no list of names has to be kept.
pub fn categories(entry: &Entry) -> Vec<&'static str> {
    use crate::command::Flags;
    let flags = entry.command.flags;
    let family = family_category(entry.command, entry);
    let of_flags = [
        ("write", flags.has(Flags::WRITE)),
        // A script that only reads may read anything.
        ("read", flags.has(Flags::READONLY) && family != Some("scripting")),
        ("pubsub", flags.has(Flags::PUBSUB)),
        ("admin", flags.has(Flags::ADMIN) || flags.has(Flags::ADMIN_CATEGORY)),
        ("fast", flags.has(Flags::FAST)),
        ("slow", !flags.has(Flags::FAST)),
        ("blocking", flags.has(Flags::BLOCKING)),
        (
            "dangerous",
            [Flags::ADMIN, Flags::DANGEROUS, Flags::ADMIN_CATEGORY]
                .into_iter()
                .any(|f| flags.has(f)),
        ),
    ];
    // What is sorted may be any of these.
    let of_sort = |name: &str| {
        entry.command.name.starts_with("SORT") && ["set", "sortedset", "list"].contains(&name)
    };
    let has = |name: &str| {
        family == Some(name)
            || of_sort(name)
            || of_flags.iter().any(|(flag, is)| *is && *flag == name)
    };
    CATEGORIES.iter().copied().filter(|name| has(name)).collect()
}

fn family_category(command: &Command, entry: &Entry) -> Option<&'static str> {
    // A group that only holds subcommands is in no family; COMMAND is a command of its own too.
    if matches!(command.run, Run::Group(_)) && command.name != "COMMAND" {
        return None;
    }
    match (entry.group.map_or(command.name, |group| group.name), command.name) {
        ("WAIT" | "WAITAOF" | "COMMAND" | "ASKING" | "READONLY" | "READWRITE", _) => {
            Some("connection")
        }
        ("SORT" | "SORT_RO", _) => None,
        ("DBSIZE" | "FLUSHDB" | "FLUSHALL" | "SWAPDB", _) => Some("keyspace"),
        _ => of(entry)?.0.category,
    }
}

/// Redis's ACL categories, in the order it lists them.
pub const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

const HELP: &str = "Lists the subcommands.";
const NO_TOPOLOGY: &str =
    "Refused: partitions and their nodes are no clients' business; see ADMIN.";
const BY_SUBCOMMAND: &str = "Depends on subcommand.";

static GROUPS: &[DocGroup] = &[
    DocGroup { name: "hash", category: Some("hash"), docs: HASH },
    DocGroup { name: "set", category: Some("set"), docs: SET },
    DocGroup { name: "hyperloglog", category: Some("hyperloglog"), docs: HYPERLOGLOG },
    DocGroup { name: "stream", category: Some("stream"), docs: STREAM },
    DocGroup { name: "list", category: Some("list"), docs: LIST },
    DocGroup { name: "sorted-set", category: Some("sortedset"), docs: SORTED_SET },
    DocGroup { name: "geo", category: Some("geo"), docs: GEO },
    DocGroup { name: "string", category: Some("string"), docs: STRING },
    DocGroup { name: "bitmap", category: Some("bitmap"), docs: BITMAP },
    DocGroup { name: "generic", category: Some("keyspace"), docs: GENERIC },
    DocGroup { name: "transactions", category: Some("transaction"), docs: TRANSACTIONS },
    DocGroup { name: "scripting", category: Some("scripting"), docs: SCRIPTING },
    DocGroup { name: "pubsub", category: None, docs: PUBSUB },
    DocGroup { name: "connection", category: Some("connection"), docs: CONNECTION },
    DocGroup { name: "server", category: None, docs: SERVER },
    DocGroup { name: "server", category: None, docs: ACL },
    DocGroup { name: "server", category: None, docs: ABSENT },
    DocGroup { name: "cluster", category: None, docs: CLUSTER },
];

#[rustfmt::skip]
const HASH: &[Doc] = &[
    doc("HDEL", "2.0.0", "O(N) where N is the number of fields", "key field:string...", "Deletes fields of a hash, and the hash if none remains."),
    doc("HEXISTS", "2.0.0", "O(1)", "key field:string", "Tells whether a hash has a field."),
    doc("HEXPIRE", "7.4.0", "O(N) where N is the number of fields", "key seconds [NX | XX | GT | LT] <FIELDS numfields:integer field:string...>", "Sets the time to live of fields in seconds."),
    doc("HEXPIREAT", "7.4.0", "O(N) where N is the number of fields", "key unix-time-seconds [NX | XX | GT | LT] <FIELDS numfields:integer field:string...>", "Sets when fields cease to exist, as a Unix time in seconds."),
    doc("HEXPIRETIME", "7.4.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Returns when fields cease to exist, as a Unix time in seconds."),
    doc("HGET", "2.0.0", "O(1)", "key field:string", "Returns the value of a field."),
    doc("HGETALL", "2.0.0", "O(N) where N is the size of the hash", "key", "Returns all fields and values of a hash."),
    doc("HGETDEL", "8.0.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Returns the values of fields and deletes them."),
    doc("HGETEX", "8.0.0", "O(N) where N is the number of fields", "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] <FIELDS numfields:integer field:string...>", "Returns the values of fields and sets or removes their time to live."),
    doc("HINCRBY", "2.0.0", "O(1)", "key field:string increment:integer", "Adds to the integer in a field, 0 if there is none."),
    doc("HINCRBYFLOAT", "2.6.0", "O(1)", "key field:string increment", "Adds to the number in a field, 0 if there is none."),
    doc("HKEYS", "2.0.0", "O(N) where N is the size of the hash", "key", "Returns all fields of a hash."),
    doc("HLEN", "2.0.0", "O(1)", "key", "Returns the number of fields of a hash."),
    doc("HMGET", "2.0.0", "O(N) where N is the number of fields", "key field:string...", "Returns the values of several fields."),
    doc("HMSET", "2.0.0", "O(N) where N is the number of fields", "key <field:string value>...", "Sets several fields."),
    doc("HPERSIST", "7.4.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Removes the time to live of fields."),
    doc("HPEXPIRE", "7.4.0", "O(N) where N is the number of fields", "key milliseconds [NX | XX | GT | LT] <FIELDS numfields:integer field:string...>", "Sets the time to live of fields in milliseconds."),
    doc("HPEXPIREAT", "7.4.0", "O(N) where N is the number of fields", "key unix-time-milliseconds [NX | XX | GT | LT] <FIELDS numfields:integer field:string...>", "Sets when fields cease to exist, as a Unix time in milliseconds."),
    doc("HPEXPIRETIME", "7.4.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Returns when fields cease to exist, as a Unix time in milliseconds."),
    doc("HPTTL", "7.4.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Returns the time to live of fields in milliseconds."),
    doc("HRANDFIELD", "6.2.0", "O(N) where N is the number of fields returned", "key [count [WITHVALUES]]", "Returns random fields of a hash."),
    doc("HSCAN", "2.8.0", "O(1) a call, O(N) for all fields of the hash", "key cursor:integer [MATCH pattern] [COUNT count] [NOVALUES]", "Iterates over the fields and values of a hash."),
    doc("HSET", "2.0.0", "O(N) where N is the number of fields", "key <field:string value>...", "Sets fields of a hash, making it if it does not exist."),
    doc("HSETEX", "8.0.0", "O(N) where N is the number of fields", "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] <FIELDS numfields:integer <field:string value>...>", "Sets fields of a hash and their time to live."),
    doc("HSETNX", "2.0.0", "O(1)", "key field:string value", "Sets a field if it does not exist."),
    doc("HSTRLEN", "3.2.0", "O(1)", "key field:string", "Returns the length of the value of a field."),
    doc("HTTL", "7.4.0", "O(N) where N is the number of fields", "key <FIELDS numfields:integer field:string...>", "Returns the time to live of fields in seconds."),
    doc("HVALS", "2.0.0", "O(N) where N is the size of the hash", "key", "Returns all values of a hash."),
];

#[rustfmt::skip]
const SET: &[Doc] = &[
    doc("SADD", "1.0.0", "O(N) where N is the number of members given", "key member:string...", "Adds members to a set, making it if it does not exist."),
    doc("SCARD", "1.0.0", "O(1)", "key", "Returns the number of members of a set."),
    doc("SDIFF", "1.0.0", "O(N) where N is the number of members of all sets", "key...", "Returns the members of a set that others do not have."),
    doc("SDIFFSTORE", "1.0.0", "O(N) where N is the number of members of all sets", "destination:key key...", "Stores the members of a set that others do not have."),
    doc("SINTER", "1.0.0", "O(N*M) where N is the size of the smallest set and M the number of sets", "key...", "Returns the members that all sets have."),
    doc("SINTERCARD", "7.0.0", "O(N*M) where N is the size of the smallest set and M the number of sets", "numkeys:integer key... [LIMIT limit:integer]", "Counts the members that all sets have."),
    doc("SINTERSTORE", "1.0.0", "O(N*M) where N is the size of the smallest set and M the number of sets", "destination:key key...", "Stores the members that all sets have."),
    doc("SISMEMBER", "1.0.0", "O(1)", "key member:string", "Tells whether a set has a member."),
    doc("SMEMBERS", "1.0.0", "O(N) where N is the size of the set", "key", "Returns all members of a set."),
    doc("SMISMEMBER", "6.2.0", "O(N) where N is the number of members given", "key member:string...", "Tells for several members whether a set has them."),
    doc("SMOVE", "1.0.0", "O(1)", "source:key destination:key member:string", "Moves a member from one set to another."),
    doc("SPOP", "1.0.0", "O(N) where N is the number of members returned", "key [count]", "Returns random members of a set and deletes them."),
    doc("SRANDMEMBER", "1.0.0", "O(N) where N is the number of members returned", "key [count]", "Returns random members of a set."),
    doc("SREM", "1.0.0", "O(N) where N is the number of members given", "key member:string...", "Deletes members of a set, and the set if none remains."),
    doc("SSCAN", "2.8.0", "O(1) a call, O(N) for all members of the set", "key cursor:integer [MATCH pattern] [COUNT count]", "Iterates over the members of a set."),
    doc("SUNION", "1.0.0", "O(N) where N is the number of members of all sets", "key...", "Returns the members that any of the sets has."),
    doc("SUNIONSTORE", "1.0.0", "O(N) where N is the number of members of all sets", "destination:key key...", "Stores the members that any of the sets has."),
];

#[rustfmt::skip]
const HYPERLOGLOG: &[Doc] = &[
    doc("PFADD", "2.8.9", "O(N) where N is the number of elements given", "key [element:string...]", "Adds elements to a HyperLogLog, making it if it does not exist."),
    doc("PFCOUNT", "2.8.9", "O(N) where N is the number of keys", "key...", "Estimates how many different elements were added."),
    doc("PFDEBUG", "2.8.9", "O(1)", "subcommand key", "Looks into a HyperLogLog, for tests."),
    doc("PFMERGE", "2.8.9", "O(N) where N is the number of keys", "destkey:key [sourcekey:key...]", "Merges HyperLogLogs into one."),
    doc("PFSELFTEST", "2.8.9", "O(1)", "", "Tests HyperLogLogs themselves."),
];

#[rustfmt::skip]
const STREAM: &[Doc] = &[
    doc("XACK", "5.0.0", "O(log N) for every ID", "key group:string id:string...", "Acknowledges entries that a consumer of a group got."),
    doc("XACKDEL", "8.2.0", "O(log N) for every ID and group", "key group:string [KEEPREF | DELREF | ACKED] <IDS numids:integer id:string...>", "Acknowledges entries of a group and deletes them."),
    doc("XADD", "5.0.0", "O(log N), and O(M) to trim M entries", "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold:string [LIMIT count:integer]] <* | id:string> <field:string value:string>...", "Adds an entry to a stream, making it if it does not exist."),
    doc("XAUTOCLAIM", "6.2.0", "O(log N + M) where M is the number of entries looked at", "key group:string consumer:string min-idle-time:string start:string [COUNT count:integer] [JUSTID]", "Claims entries that have been pending for long."),
    doc("XCLAIM", "5.0.0", "O(log N) for every ID", "key group:string consumer:string min-idle-time:string id:string... [IDLE ms:integer] [TIME unix-time-milliseconds] [RETRYCOUNT count:integer] [FORCE] [JUSTID] [LASTID lastid:string]", "Gives pending entries to another consumer."),
    doc("XDEL", "5.0.0", "O(log N) for every ID", "key id:string...", "Deletes entries of a stream."),
    doc("XDELEX", "8.2.0", "O(log N) for every ID and group", "key [KEEPREF | DELREF | ACKED] <IDS numids:integer id:string...>", "Deletes entries of a stream, with regard to its groups."),
    doc("XGROUP", "5.0.0", BY_SUBCOMMAND, "", "Makes, changes and deletes consumer groups."),
    doc("XGROUP|CREATE", "5.0.0", "O(log N)", "key group:string <id:string | $> [MKSTREAM] [ENTRIESREAD entries-read:integer]", "Makes a consumer group."),
    doc("XGROUP|CREATECONSUMER", "6.2.0", "O(log N)", "key group:string consumer:string", "Makes a consumer of a group."),
    doc("XGROUP|DELCONSUMER", "5.0.0", "O(N) where N is the number of entries it has pending", "key group:string consumer:string", "Deletes a consumer of a group."),
    doc("XGROUP|DESTROY", "5.0.0", "O(N) where N is the number of pending entries", "key group:string", "Deletes a consumer group."),
    doc("XGROUP|HELP", "5.0.0", "O(1)", "", HELP),
    doc("XGROUP|SETID", "5.0.0", "O(log N)", "key group:string <id:string | $> [ENTRIESREAD entriesread:integer]", "Sets the last entry that a group was delivered."),
    doc("XINFO", "5.0.0", BY_SUBCOMMAND, "", "Looks at streams and their groups."),
    doc("XINFO|CONSUMERS", "5.0.0", "O(N) where N is the number of consumers", "key group:string", "Describes the consumers of a group."),
    doc("XINFO|GROUPS", "5.0.0", "O(N) where N is the number of groups", "key", "Describes the groups of a stream."),
    doc("XINFO|HELP", "5.0.0", "O(1)", "", HELP),
    doc("XINFO|STREAM", "5.0.0", "O(log N), and O(M) to list M entries", "key [FULL [COUNT count:integer]]", "Describes a stream."),
    doc("XLEN", "5.0.0", "O(1)", "key", "Returns the number of entries of a stream."),
    doc("XPENDING", "5.0.0", "O(log N + M) where M is the number of entries looked at", "key group:string [[IDLE min-idle-time:integer] start:string end:string count:integer [consumer:string]]", "Describes what is pending in a group."),
    doc("XRANGE", "5.0.0", "O(log N + M) where M is the number of entries returned", "key start:string end:string [COUNT count:integer]", "Returns the entries of a range of IDs."),
    doc("XREAD", "5.0.0", "O(log N + M) where M is the number of entries returned", "[COUNT count:integer] [BLOCK milliseconds:integer] <STREAMS key... id:string...>", "Returns the entries of streams behind given IDs."),
    doc("XREADGROUP", "5.0.0", "O(M log N) where M is the number of entries returned", "<GROUP group:string consumer:string> [COUNT count:integer] [BLOCK milliseconds:integer] [NOACK] <STREAMS key... id:string...>", "Delivers entries of streams to a consumer of a group."),
    doc("XREVRANGE", "5.0.0", "O(log N + M) where M is the number of entries returned", "key end:string start:string [COUNT count:integer]", "Returns the entries of a range of IDs, last first."),
    doc("XSETID", "5.0.0", "O(log N)", "key last-id:string [ENTRIESADDED entries-added:integer] [MAXDELETEDID max-deleted-id:string]", "Sets the last ID of a stream."),
    doc("XTRIM", "5.0.0", "O(log N + M) where M is the number of entries deleted", "key <MAXLEN | MINID> [= | ~] threshold:string [LIMIT count:integer]", "Deletes the oldest entries of a stream."),
];

#[rustfmt::skip]
const LIST: &[Doc] = &[
    doc("LINDEX", "1.0.0", "O(log(N)) where N is the length of the list", "key index:integer", "Returns an element of a list by its index."),
    doc("LINSERT", "2.2.0", "O(N) where N is the number of elements before the pivot", "key <BEFORE | AFTER> pivot:string element:string", "Inserts an element before or after another."),
    doc("LLEN", "1.0.0", "O(1)", "key", "Returns the length of a list."),
    doc("LMOVE", "6.2.0", "O(log(N)) where N is the length of the lists", "source:key destination:key <LEFT | RIGHT> <LEFT | RIGHT>", "Takes an element from an end of a list and puts it at an end of another."),
    doc("BLMOVE", "6.2.0", "O(log N), as LMOVE", "source:key destination:key <LEFT | RIGHT> <LEFT | RIGHT> timeout:double", "Moves an element from one list to another, and waits for one if there is none."),
    doc("BLMOVEM", "8.10.0", "O(M*log(N)) with M elements moved", "source:key destination:key <LEFT | RIGHT> <LEFT | RIGHT> timeout:double [<COUNT count | EXACTLY count> <OBO | BULK>]", "Moves elements from one list to another, and waits until there are some, or enough."),
    doc("BLMPOP", "7.0.0", "O(K+M*log(N)) with K keys and M elements returned", "timeout:double numkeys:integer key... <LEFT | RIGHT> [COUNT count]", "Takes elements from the first of several lists that exists, and waits if none does."),
    doc("BLPOP", "2.0.0", "O(K+log(N)) with K keys", "key... timeout:double", "Takes the first element of the first of several lists that exists, and waits if none does."),
    doc("BRPOP", "2.0.0", "O(K+log(N)) with K keys", "key... timeout:double", "Takes the last element of the first of several lists that exists, and waits if none does."),
    doc("BRPOPLPUSH", "2.2.0", "O(log N), as LMOVE", "source:key destination:key timeout:double", "Moves the last element of a list to the front of another, and waits for one if there is none."),
    doc("LMOVEM", "8.10.0", "O(M*log(N)) with M elements moved", "source:key destination:key <LEFT | RIGHT> <LEFT | RIGHT> [<COUNT count | EXACTLY count> <OBO | BULK>]", "Moves up to a number of elements, or exactly as many, from an end of a list to an end of another."),
    doc("LMPOP", "7.0.0", "O(K+M*log(N)) with K keys and M elements returned", "numkeys:integer key... <LEFT | RIGHT> [COUNT count]", "Takes elements from the first of several lists that exists."),
    doc("LPOP", "1.0.0", "O(M+log(N)) where M is the number of elements returned", "key [count]", "Returns and removes the first elements of a list."),
    doc("LPOS", "6.0.6", "O(N) where N is the length of the list", "key element:string [RANK rank:integer] [COUNT num-matches:integer] [MAXLEN len:integer]", "Returns the positions of elements of a list."),
    doc("LPUSH", "1.0.0", "O(M+log(N)) where M is the number of elements added", "key element:string...", "Puts elements at the head of a list, making it if it does not exist."),
    doc("LPUSHX", "2.2.0", "O(M+log(N)) where M is the number of elements added", "key element:string...", "Puts elements at the head of a list that exists."),
    doc("LRANGE", "1.0.0", "O(M+log(N)) where M is the number of elements returned", "key start:integer stop:integer", "Returns a range of elements of a list."),
    doc("LREM", "1.0.0", "O(N+M*log(N)) where M is the number of elements removed", "key count element:string", "Removes elements of a list that are equal to one."),
    doc("LSET", "1.0.0", "O(log(N)) where N is the length of the list", "key index:integer element:string", "Sets an element of a list by its index."),
    doc("LTRIM", "1.0.0", "O(M+log(N)) where M is the number of elements removed", "key start:integer stop:integer", "Removes all elements of a list but a range."),
    doc("RPOP", "1.0.0", "O(M+log(N)) where M is the number of elements returned", "key [count]", "Returns and removes the last elements of a list."),
    doc("RPOPLPUSH", "1.2.0", "O(log(N)) where N is the length of the lists", "source:key destination:key", "Takes the last element of a list and puts it at the head of another."),
    doc("RPUSH", "1.0.0", "O(M+log(N)) where M is the number of elements added", "key element:string...", "Puts elements at the tail of a list, making it if it does not exist."),
    doc("RPUSHX", "2.2.0", "O(M+log(N)) where M is the number of elements added", "key element:string...", "Puts elements at the tail of a list that exists."),
];

#[rustfmt::skip]
const SORTED_SET: &[Doc] = &[
    doc("ZADD", "1.2.0", "O(log(N)) for each member", "key [NX | XX] [GT | LT] [CH] [INCR] <score:double member:string>...", "Gives members of a sorted set scores, making it if it does not exist."),
    doc("ZCARD", "1.2.0", "O(1)", "key", "Returns the number of members of a sorted set."),
    doc("ZCOUNT", "2.0.0", "O(log(N))", "key min:double max:double", "Returns the number of members within a range of scores."),
    doc("ZDIFF", "6.2.0", "O(N*K) with N members in the first of K sorted sets", "numkeys:integer key... [WITHSCORES]", "Returns the members of a sorted set that others do not have."),
    doc("ZDIFFSTORE", "6.2.0", "O(N*K+M*log(M)) with N members in the first of K sorted sets and M in the result", "destination:key numkeys:integer key...", "Stores the members of a sorted set that others do not have."),
    doc("ZINCRBY", "1.2.0", "O(log(N))", "key increment:integer member:string", "Adds to the score of a member, 0 if there is none."),
    doc("ZINTER", "6.2.0", "O(N*K+M*log(M)) with N members in the smallest of K sorted sets and M in the result", "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]", "Returns the members that several sorted sets have."),
    doc("ZINTERCARD", "7.0.0", "O(N*K) with N members in the smallest of K sorted sets", "numkeys:integer key... [LIMIT limit:integer]", "Returns the number of members that several sorted sets have."),
    doc("ZINTERSTORE", "2.0.0", "O(N*K+M*log(M)) with N members in the smallest of K sorted sets and M in the result", "destination:key numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE <SUM | MIN | MAX>]", "Stores the members that several sorted sets have."),
    doc("ZLEXCOUNT", "2.8.9", "O(log(N))", "key min:string max:string", "Returns the number of members within a range of members."),
    doc("BZMPOP", "7.0.0", "O(K+M*log(N)) with K keys and M members returned", "timeout:double numkeys:integer key... <MIN | MAX> [COUNT count]", "Takes members from the first of several sorted sets that exists, and waits if none does."),
    doc("BZPOPMAX", "5.0.0", "O(K+log(N)) with K keys", "key... timeout:double", "Takes the member of the highest score from the first of several sorted sets that exists, and waits if none does."),
    doc("BZPOPMIN", "5.0.0", "O(K+log(N)) with K keys", "key... timeout:double", "Takes the member of the lowest score from the first of several sorted sets that exists, and waits if none does."),
    doc("ZMPOP", "7.0.0", "O(K+M*log(N)) with K keys and M members returned", "numkeys:integer key... <MIN | MAX> [COUNT count]", "Takes members from the first of several sorted sets that exists."),
    doc("ZMSCORE", "6.2.0", "O(N) where N is the number of members", "key member:string...", "Returns the scores of several members."),
    doc("ZPOPMAX", "5.0.0", "O(M*log(N)) where M is the number of members returned", "key [count]", "Returns and removes the members with the highest scores."),
    doc("ZPOPMIN", "5.0.0", "O(M*log(N)) where M is the number of members returned", "key [count]", "Returns and removes the members with the lowest scores."),
    doc("ZRANDMEMBER", "6.2.0", "O(M*log(N)) where M is the number of members returned", "key [count [WITHSCORES]]", "Returns random members of a sorted set."),
    doc("ZRANGE", "1.2.0", "O(M+log(N)) where M is the number of members returned", "key start:string stop:string [BYSCORE | BYLEX] [REV] [LIMIT offset:integer count] [WITHSCORES]", "Returns a range of members, by rank, score or member."),
    doc("ZRANGEBYLEX", "2.8.9", "O(M+log(N)) where M is the number of members returned", "key min:string max:string [LIMIT offset:integer count]", "Returns the members within a range of members."),
    doc("ZRANGEBYSCORE", "1.0.5", "O(M+log(N)) where M is the number of members returned", "key min:double max:double [WITHSCORES] [LIMIT offset:integer count]", "Returns the members within a range of scores."),
    doc("ZRANGESTORE", "6.2.0", "O(M*log(N)) where M is the number of members stored", "dst:key src:key min:string max:string [BYSCORE | BYLEX] [REV] [LIMIT offset:integer count]", "Stores a range of members, by rank, score or member."),
    doc("ZRANK", "2.0.0", "O(log(N))", "key member:string [WITHSCORE]", "Returns the rank of a member, the lowest score first."),
    doc("ZREM", "1.2.0", "O(M*log(N)) where M is the number of members", "key member:string...", "Removes members, and the sorted set if none remains."),
    doc("ZREMRANGEBYLEX", "2.8.9", "O(M*log(N)) where M is the number of members removed", "key min:string max:string", "Removes the members within a range of members."),
    doc("ZREMRANGEBYRANK", "2.0.0", "O(M+log(N)) where M is the number of members removed", "key start:integer stop:integer", "Removes the members within a range of ranks."),
    doc("ZREMRANGEBYSCORE", "1.2.0", "O(M+log(N)) where M is the number of members removed", "key min:double max:double", "Removes the members within a range of scores."),
    doc("ZREVRANGE", "1.2.0", "O(M+log(N)) where M is the number of members returned", "key start:integer stop:integer [WITHSCORES]", "Returns a range of members by rank, the highest score first."),
    doc("ZREVRANGEBYLEX", "2.8.9", "O(M+log(N)) where M is the number of members returned", "key max:string min:string [LIMIT offset:integer count]", "Returns the members within a range of members, the last first."),
    doc("ZREVRANGEBYSCORE", "2.2.0", "O(M+log(N)) where M is the number of members returned", "key max:double min:double [WITHSCORES] [LIMIT offset:integer count]", "Returns the members within a range of scores, the highest first."),
    doc("ZREVRANK", "2.0.0", "O(log(N))", "key member:string [WITHSCORE]", "Returns the rank of a member, the highest score first."),
    doc("ZSCAN", "2.8.0", "O(1) a call, O(N) for all members of the sorted set", "key cursor:integer [MATCH pattern] [COUNT count]", "Iterates over the members and scores of a sorted set."),
    doc("ZSCORE", "1.2.0", "O(1)", "key member:string", "Returns the score of a member."),
    doc("ZUNION", "6.2.0", "O(N+M*log(M)) with N members in all sorted sets and M in the result", "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]", "Returns the members of all of several sorted sets."),
    doc("ZUNIONSTORE", "2.0.0", "O(N+M*log(M)) with N members in all sorted sets and M in the result", "destination:key numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE <SUM | MIN | MAX>]", "Stores the members of all of several sorted sets."),
];

#[rustfmt::skip]
const GEO: &[Doc] = &[
    doc("GEOADD", "3.2.0", "O(log(N)) for each member", "key [NX | XX] [CH] <longitude:double latitude:double member:string>...", "Gives members places, making the sorted set that holds them if it does not exist."),
    doc("GEODIST", "3.2.0", "O(1)", "key member1:string member2:string [M | KM | FT | MI]", "Returns the distance between two members."),
    doc("GEOHASH", "3.2.0", "O(1) for each member", "key [member:string...]", "Returns the places of members as geohashes."),
    doc("GEOPOS", "3.2.0", "O(1) for each member", "key [member:string...]", "Returns the longitudes and latitudes of members."),
    doc("GEORADIUS", "3.2.0", "O(M+log(N)) with M members in the squares around the circle", "key longitude:double latitude:double radius:double <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE storekey:key | STOREDIST storedistkey:key]", "Returns or stores the members within a distance from a place."),
    doc("GEORADIUSBYMEMBER", "3.2.0", "O(M+log(N)) with M members in the squares around the circle", "key member:string radius:double <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE storekey:key | STOREDIST storedistkey:key]", "Returns or stores the members within a distance from another."),
    doc("GEORADIUSBYMEMBER_RO", "3.2.10", "O(M+log(N)) with M members in the squares around the circle", "key member:string radius:double <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]", "Returns the members within a distance from another."),
    doc("GEORADIUS_RO", "3.2.10", "O(M+log(N)) with M members in the squares around the circle", "key longitude:double latitude:double radius:double <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]", "Returns the members within a distance from a place."),
    doc("GEOSEARCH", "6.2.0", "O(M+log(N)) with M members in the squares around the shape", "key <FROMMEMBER member:string | FROMLONLAT longitude:double latitude:double> <BYRADIUS radius:double <M | KM | FT | MI> | BYBOX width:double height:double <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]", "Returns the members within a circle or a box."),
    doc("GEOSEARCHSTORE", "6.2.0", "O(M+log(N)) with M members in the squares around the shape", "destination:key source:key <FROMMEMBER member:string | FROMLONLAT longitude:double latitude:double> <BYRADIUS radius:double <M | KM | FT | MI> | BYBOX width:double height:double <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]", "Stores the members within a circle or a box."),
];

#[rustfmt::skip]
const STRING: &[Doc] = &[
    doc("APPEND", "2.0.0", "O(N) where N is the length of the resulting string", "key value", "Appends to a string, making it if it does not exist."),
    doc("DECR", "1.0.0", "O(1)", "key", "Subtracts one from an integer."),
    doc("DECRBY", "1.0.0", "O(1)", "key decrement:integer", "Subtracts a number from an integer."),
    doc("GET", "1.0.0", "O(1)", "key", "Returns a string."),
    doc("GETDEL", "6.2.0", "O(1)", "key", "Returns a string and deletes its key."),
    doc("GETEX", "6.2.0", "O(1)", "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]", "Returns a string and sets or removes its time to live."),
    doc("DELEX", "8.4.0", "O(N) where N is the length of the string", "key [IFEQ ifeq-value:string | IFNE ifne-value:string | IFDEQ ifdeq-digest:string | IFDNE ifdne-digest:string]", "Deletes a key, if its string or the digest of it is as expected."),
    doc("DIGEST", "8.4.0", "O(N) where N is the length of the string", "key", "Returns a digest of a string: XXH3 as 16 hexadecimal digits."),
    doc("GETRANGE", "2.4.0", "O(N) where N is the length of the returned string", "key start:integer end:integer", "Returns a part of a string."),
    doc("GETSET", "1.0.0", "O(1)", "key value", "Sets a string and returns the one before."),
    doc("INCR", "1.0.0", "O(1)", "key", "Adds one to an integer."),
    doc("INCRBY", "1.0.0", "O(1)", "key increment:integer", "Adds a number to an integer."),
    doc("INCRBYFLOAT", "2.6.0", "O(1)", "key increment:double", "Adds a number to a floating-point number."),
    doc("LCS", "7.0.0", "O(N*M) where N and M are the lengths of the strings", "key1:key key2:key [LEN] [IDX] [MINMATCHLEN min-match-len:integer] [WITHMATCHLEN]", "Finds the longest common subsequence of two strings."),
    doc("MGET", "1.0.0", "O(N) where N is the number of keys", "key...", "Returns several strings."),
    doc("MSET", "1.0.1", "O(N) where N is the number of keys", "<key value>...", "Sets several strings at once."),
    doc("MSETEX", "8.4.0", "O(N) where N is the number of keys", "numkeys:integer <key value>... [NX | XX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", "Sets several strings and their time to live."),
    doc("MSETNX", "1.0.1", "O(N) where N is the number of keys", "<key value>...", "Sets several strings if none of the keys exists."),
    doc("PSETEX", "2.6.0", "O(1)", "key milliseconds value", "Sets a string with a time to live in milliseconds."),
    doc("SET", "1.0.0", "O(1)", "key value [NX | XX | IFEQ ifeq-value:string | IFNE ifne-value:string | IFDEQ ifdeq-digest:string | IFDNE ifdne-digest:string] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]", "Sets a string, whatever the key held before."),
    doc("SETEX", "2.0.0", "O(1)", "key seconds value", "Sets a string with a time to live in seconds."),
    doc("SETNX", "1.0.0", "O(1)", "key value", "Sets a string if the key does not exist."),
    doc("SETRANGE", "2.2.0", "O(N) where N is the length of the resulting string", "key offset:integer value", "Overwrites a part of a string."),
    doc("STRLEN", "2.2.0", "O(1)", "key", "Returns the length of a string."),
    doc("SUBSTR", "1.0.0", "O(N) where N is the length of the returned string", "key start:integer end:integer", "Returns a part of a string."),
];

#[rustfmt::skip]
const BITMAP: &[Doc] = &[
    doc("BITCOUNT", "2.6.0", "O(N) where N is the length of the range", "key [start:integer end:integer [BYTE | BIT]]", "Counts the set bits of a string."),
    doc("BITFIELD", "3.2.0", "O(N) where N is the number of operations; a write costs the string's length, too", "key [GET encoding offset:integer | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset:integer value:integer | INCRBY encoding offset:integer increment:integer>]...", "Reads and writes integers of any width in a string."),
    doc("BITFIELD_RO", "6.0.0", "O(N) where N is the number of operations", "key [GET encoding offset:integer]...", "Reads integers of any width in a string."),
    doc("BITOP", "2.6.0", "O(N) where N is the length of all strings", "<AND | OR | XOR | NOT> destkey:key key...", "Joins the bits of strings and stores the result."),
    doc("BITPOS", "2.8.7", "O(N) where N is the length of the range", "key bit:integer [start:integer [end:integer [BYTE | BIT]]]", "Finds the first set or clear bit of a string."),
    doc("GETBIT", "2.2.0", "O(1)", "key offset:integer", "Returns a bit of a string."),
    doc("SETBIT", "2.2.0", "O(N) where N is the length of the string", "key offset:integer value:integer", "Sets or clears a bit of a string."),
];

#[rustfmt::skip]
const GENERIC: &[Doc] = &[
    doc("COPY", "6.2.0", "O(N) where N is the number of stored rows", "source:key destination:key [DB destination-db:integer] [REPLACE]", "Copies a key."),
    doc("DEL", "1.0.0", "O(N) where N is the number of keys", "key...", "Deletes keys."),
    doc("DUMP", "2.6.0", "O(N) where N is the size of the value", "key", "Returns a value in serialized form."),
    doc("EXISTS", "1.0.0", "O(N) where N is the number of keys", "key...", "Counts how many of the keys exist."),
    doc("EXPIRE", "1.0.0", "O(1)", "key seconds [NX | XX | GT | LT]", "Sets a time to live in seconds."),
    doc("EXPIREAT", "1.2.0", "O(1)", "key unix-time-seconds [NX | XX | GT | LT]", "Sets the second at which a key expires."),
    doc("EXPIRETIME", "7.0.0", "O(1)", "key", "Returns the second at which a key expires."),
    doc("KEYS", "1.0.0", "O(N) where N is the number of keys in the table", "pattern", "Returns the keys that match a pattern."),
    doc("MIGRATE", "2.6.0", "O(N) where N is the number of stored rows", "host:string port:integer key destination-db:integer timeout:integer [COPY] [REPLACE] [AUTH password:string | AUTH2 username:string password:string] [KEYS keys:key...]", "Moves keys to another server."),
    doc("MOVE", "1.0.0", "O(N) where N is the number of stored rows", "key db:integer", "Moves a key to another table."),
    doc("OBJECT", "2.2.3", BY_SUBCOMMAND, "", "Looks at how values are stored."),
    doc("OBJECT|ENCODING", "2.2.3", "O(1)", "key", "Returns the encoding of a value."),
    doc("OBJECT|FREQ", "4.0.0", "O(1)", "key", "Returns how often a key is used."),
    doc("OBJECT|HELP", "6.2.0", "O(1)", "", HELP),
    doc("OBJECT|IDLETIME", "2.2.3", "O(1)", "key", "Returns the seconds since a key was used."),
    doc("OBJECT|REFCOUNT", "2.2.3", "O(1)", "key", "Returns the number of references to a value."),
    doc("PERSIST", "2.2.0", "O(1)", "key", "Removes the time to live of a key."),
    doc("PEXPIRE", "2.6.0", "O(1)", "key milliseconds [NX | XX | GT | LT]", "Sets a time to live in milliseconds."),
    doc("PEXPIREAT", "2.6.0", "O(1)", "key unix-time-milliseconds [NX | XX | GT | LT]", "Sets the millisecond at which a key expires."),
    doc("PEXPIRETIME", "7.0.0", "O(1)", "key", "Returns the millisecond at which a key expires."),
    doc("PTTL", "2.6.0", "O(1)", "key", "Returns the time to live of a key in milliseconds."),
    doc("RANDOMKEY", "1.0.0", "O(log N) where N is the number of keys in the table", "", "Returns some key."),
    doc("RENAME", "1.0.0", "O(1)", "key newkey:key", "Renames a key, replacing what the new name held."),
    doc("RENAMENX", "1.0.0", "O(1)", "key newkey:key", "Renames a key if the new name does not exist."),
    doc("RESTORE-ASKING", "3.0.0", "O(N) where N is the size of the value", "key ttl:integer serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency:integer]", "Makes a key from what DUMP returned, as RESTORE does."),
    doc("RESTORE", "2.6.0", "O(N) where N is the size of the value", "key ttl:integer serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency:integer]", "Makes a key from what DUMP returned."),
    doc("SCAN", "2.8.0", "O(1) a call, O(N) for all keys of the table", "cursor:integer [MATCH pattern] [COUNT count] [TYPE type:string]", "Iterates over the keys of a table."),
    doc("SORT", "1.0.0", "O(N+M*log(M)) where N is the number of elements and M that of those returned", "key [BY by-pattern:pattern] [LIMIT offset:integer count:integer] [GET get-pattern:pattern]... [ASC | DESC] [ALPHA] [STORE destination:key]", "Sorts the elements of a list, a set or a sorted set."),
    doc("SORT_RO", "7.0.0", "O(N+M*log(M)) where N is the number of elements and M that of those returned", "key [BY by-pattern:pattern] [LIMIT offset:integer count:integer] [GET get-pattern:pattern]... [ASC | DESC] [ALPHA]", "Sorts the elements of a list, a set or a sorted set, and stores nothing."),
    doc("TOUCH", "3.2.1", "O(N) where N is the number of keys", "key...", "Counts how many of the keys exist and marks them as used."),
    doc("TTL", "1.0.0", "O(1)", "key", "Returns the time to live of a key in seconds."),
    doc("TYPE", "1.0.0", "O(1)", "key", "Returns the type of a value."),
    doc("UNLINK", "4.0.0", "O(N) where N is the number of keys", "key...", "Deletes keys."),
    doc("WAITAOF", "7.2.0", "O(1)", "numlocal:integer numreplicas:integer timeout:integer", "Waits until this connection's writes are on the disks of so many replicas."),
    doc("WAIT", "3.0.0", "O(1)", "numreplicas:integer timeout:integer", "Waits until this connection's writes are on so many replicas."),
];

#[rustfmt::skip]
const TRANSACTIONS: &[Doc] = &[
    doc("DISCARD", "2.0.0", "O(N) where N is the number of queued commands", "", "Forgets the queued commands of a transaction."),
    doc("EXEC", "1.2.0", "Depends on the queued commands", "", "Runs the queued commands of a transaction."),
    doc("MULTI", "1.2.0", "O(1)", "", "Starts a transaction: commands are queued until EXEC."),
    doc("UNWATCH", "2.2.0", "O(1)", "", "Forgets which keys are watched."),
    doc("WATCH", "2.2.0", "O(1) for every key", "key...", "Has EXEC do nothing if one of the keys changes until then."),
];

#[rustfmt::skip]
const SCRIPTING: &[Doc] = &[
    doc("EVAL", "2.6.0", "Depends on the script", "script:string numkeys:integer [key...] [arg:string...]", "Runs a Lua script."),
    doc("EVALSHA", "2.6.0", "Depends on the script", "sha1:string numkeys:integer [key...] [arg:string...]", "Runs a Lua script by its SHA-1."),
    doc("EVALSHA_RO", "7.0.0", "Depends on the script", "sha1:string numkeys:integer [key...] [arg:string...]", "Runs a Lua script that only reads, by its SHA-1."),
    doc("EVAL_RO", "7.0.0", "Depends on the script", "script:string numkeys:integer [key...] [arg:string...]", "Runs a Lua script that only reads."),
    doc("FCALL", "7.0.0", "Depends on the function", "function:string numkeys:integer [key...] [arg:string...]", "Runs a function."),
    doc("FCALL_RO", "7.0.0", "Depends on the function", "function:string numkeys:integer [key...] [arg:string...]", "Runs a function that only reads."),
    doc("FUNCTION", "7.0.0", BY_SUBCOMMAND, "", "Commands about functions."),
    doc("FUNCTION|DELETE", "7.0.0", "O(1)", "library-name:string", "Deletes a library and its functions."),
    doc("FUNCTION|DUMP", "7.0.0", "O(N) where N is the number of libraries", "", "Answers all libraries as one string."),
    doc("FUNCTION|FLUSH", "7.0.0", "O(N) where N is the number of libraries", "[ASYNC|SYNC]", "Deletes all libraries."),
    doc("FUNCTION|HELP", "7.0.0", "O(1)", "", HELP),
    doc("FUNCTION|KILL", "7.0.0", "O(1)", "", "Ends the functions that run."),
    doc("FUNCTION|LIST", "7.0.0", "O(N) where N is the number of functions", "[LIBRARYNAME library-name-pattern:string] [WITHCODE]", "Lists the libraries and their functions."),
    doc("FUNCTION|LOAD", "7.0.0", "O(N) where N is the number of functions of the library", "[REPLACE] function-code:string", "Makes a library known."),
    doc("FUNCTION|RESTORE", "7.0.0", "O(N) where N is the number of functions in the payload", "serialized-value:string [FLUSH|APPEND|REPLACE]", "Makes the libraries of a dump known."),
    doc("FUNCTION|STATS", "7.0.0", "O(1)", "", "Tells which function runs, and how many there are."),
    doc("SCRIPT", "2.6.0", BY_SUBCOMMAND, "", "Commands about Lua scripts."),
    doc("SCRIPT|DEBUG", "3.2.0", "O(1)", "<YES|SYNC|NO>", "Sets how scripts are debugged, which they cannot be."),
    doc("SCRIPT|EXISTS", "2.6.0", "O(N) where N is the number of scripts", "sha1:string...", "Tells which scripts are known."),
    doc("SCRIPT|FLUSH", "2.6.0", "O(N) where N is the number of scripts", "[ASYNC|SYNC]", "Forgets all scripts."),
    doc("SCRIPT|HELP", "5.0.0", "O(1)", "", HELP),
    doc("SCRIPT|KILL", "2.6.0", "O(1)", "", "Ends the scripts that run."),
    doc("SCRIPT|LOAD", "2.6.0", "O(N) where N is the length of the script", "script:string", "Makes a script known, to be run by its SHA-1."),
];

#[rustfmt::skip]
const PUBSUB: &[Doc] = &[
    doc("PSUBSCRIBE", "2.0.0", "O(N) where N is the number of patterns", "pattern...", "Has messages to channels that match patterns sent to the connection."),
    doc("PUBLISH", "2.0.0", "O(N+M) where N is the number of subscribers and M the number of all patterns", "channel:string message:string", "Sends a message to those who subscribe to a channel."),
    doc("PUBSUB", "2.8.0", BY_SUBCOMMAND, "", "Looks at subscriptions."),
    doc("PUBSUB|CHANNELS", "2.8.0", "O(N) where N is the number of channels", "[pattern]", "Returns the channels that have subscribers."),
    doc("PUBSUB|HELP", "6.2.0", "O(1)", "", HELP),
    doc("PUBSUB|NUMPAT", "2.8.0", "O(1)", "", "Returns the number of patterns that have subscribers."),
    doc("PUBSUB|NUMSUB", "2.8.0", "O(N) where N is the number of channels asked for", "[channel:string...]", "Returns the number of subscribers of channels."),
    doc("PUBSUB|SHARDCHANNELS", "7.0.0", "O(N) where N is the number of shard channels", "[pattern]", "Returns the shard channels that have subscribers."),
    doc("PUBSUB|SHARDNUMSUB", "7.0.0", "O(N) where N is the number of shard channels asked for", "[shardchannel:string...]", "Returns the number of subscribers of shard channels."),
    doc("PUNSUBSCRIBE", "2.0.0", "O(N) where N is the number of patterns", "[pattern...]", "Ends subscriptions to patterns, or all of them."),
    doc("SPUBLISH", "7.0.0", "O(N) where N is the number of subscribers", "shardchannel:string message:string", "Sends a message to those who subscribe to a shard channel."),
    doc("SSUBSCRIBE", "7.0.0", "O(N) where N is the number of channels", "shardchannel:string...", "Has messages to shard channels sent to the connection."),
    doc("SUBSCRIBE", "2.0.0", "O(N) where N is the number of channels", "channel:string...", "Has messages to channels sent to the connection."),
    doc("SUNSUBSCRIBE", "7.0.0", "O(N) where N is the number of channels", "[shardchannel:string...]", "Ends subscriptions to shard channels, or all of them."),
    doc("UNSUBSCRIBE", "2.0.0", "O(N) where N is the number of channels", "[channel:string...]", "Ends subscriptions to channels, or all of them."),
];

#[rustfmt::skip]
const CONNECTION: &[Doc] = &[
    doc("AUTH", "1.0.0", "O(1)", "[username] password", "Authenticates the connection."),
    doc("CLIENT", "2.4.0", BY_SUBCOMMAND, "", "Looks at connections and changes them."),
    doc("CLIENT|CACHING", "6.0.0", "O(1)", "<YES | NO>", "Has the keys of the next command tracked, or not."),
    doc("CLIENT|CAPA", "7.4.0", "O(1)", "capability:string...", "Takes note of what the client can do; nothing here depends on it."),
    doc("CLIENT|GETNAME", "2.6.9", "O(1)", "", "Returns the name of the connection."),
    doc("CLIENT|GETREDIR", "6.0.0", "O(1)", "", "Returns the connection that is told of keys that change."),
    doc("CLIENT|HELP", "5.0.0", "O(1)", "", HELP),
    doc("CLIENT|ID", "5.0.0", "O(1)", "", "Returns the number of the connection."),
    doc("CLIENT|INFO", "6.2.0", "O(1)", "", "Describes the connection."),
    doc("CLIENT|KILL", "2.4.0", "O(N) where N is the number of connections", "<old-format:string | new-format:string...>", "Closes connections."),
    doc("CLIENT|LIST", "2.4.0", "O(N) where N is the number of connections", "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id...]", "Describes connections."),
    doc("CLIENT|MAINT_NOTIFICATIONS", "8.2.0", "O(1)", "<ON | OFF> [option:string...]", "Is accepted: there is no maintenance that a client has to be told of."),
    doc("CLIENT|NO-EVICT", "7.0.0", "O(1)", "<ON | OFF>", "Protects the connection from being closed for its memory."),
    doc("CLIENT|NO-TOUCH", "7.2.0", "O(1)", "<ON | OFF>", "Keeps the connection's reads from marking keys as used."),
    doc("CLIENT|PAUSE", "2.9.50", "O(1)", "timeout:integer [WRITE | ALL]", "Holds back the commands of all connections."),
    doc("CLIENT|REPLY", "3.2.0", "O(1)", "<ON | OFF | SKIP>", "Says whether replies are sent."),
    doc("CLIENT|SETINFO", "7.2.0", "O(1)", "<LIB-NAME libname | LIB-VER libver>", "Says which client library this is."),
    doc("CLIENT|SETNAME", "2.6.9", "O(1)", "connection-name", "Names the connection."),
    doc("CLIENT|TRACKING", "6.0.0", "O(1)", "<ON | OFF> [REDIRECT client-id] [PREFIX prefix:string]... [BCAST] [OPTIN] [OPTOUT] [NOLOOP]", "Tells the connection of keys that it has read and that change."),
    doc("CLIENT|TRACKINGINFO", "6.2.0", "O(1)", "", "Returns how the connection is told of keys that change."),
    doc("CLIENT|UNBLOCK", "5.0.0", "O(1)", "client-id:integer [TIMEOUT | ERROR]", "Ends the waiting of a connection that a command blocks."),
    doc("CLIENT|UNPAUSE", "6.2.0", "O(1)", "", "Ends CLIENT PAUSE."),
    doc("ECHO", "1.0.0", "O(1)", "message", "Returns its argument."),
    doc("HELLO", "6.0.0", "O(1)", "[protover:integer [AUTH username password] [SETNAME clientname]]", "Chooses the protocol version, and authenticates and names the connection."),
    doc("PING", "1.0.0", "O(1)", "[message]", "Answers PONG or its argument."),
    doc("QUIT", "1.0.0", "O(1)", "", "Closes the connection."),
    doc("RESET", "6.2.0", "O(1)", "", "Puts the connection back to its first state."),
    doc("SELECT", "1.0.0", "O(1)", "index:integer", "Chooses the table."),
];

#[rustfmt::skip]
const SERVER: &[Doc] = &[
    doc("ADMIN", "7.4.0", BY_SUBCOMMAND, "", "Evenkeel's operator commands."),
    doc("ADMIN|CACHE", "7.4.0", "O(N) where N is the number of cached routes", "FLUSH", "Empties the route cache of this router."),
    doc("ADMIN|FAULT", "7.4.0", "O(1)", "<STOP node:integer | START node:integer | PAUSE node:integer | RESUME node:integer | DISK mode:string node:integer | CORRUPT what:string node:integer | WIPE node:integer | PARTITION node:integer node:integer | HEAL | DELAY ms:integer>", "Injects a fault, or ends it."),
    doc("ADMIN|HELP", "7.4.0", "O(1)", "", HELP),
    doc("ADMIN|PARTITIONS", "7.4.0", "O(N) where N is the number of replicas", "", "Describes each replica of each partition."),
    doc("ADMIN|REPLICA", "7.4.0", "O(1), and a copy of what the partition holds on a new node", "<ADD partition:string node:integer [LOG] | REMOVE partition:string node:integer>", "Adds a replica of a partition on a node, or removes it."),
    doc("ADMIN|STATUS", "7.4.0", "O(N) where N is the number of nodes", "", "Describes each storage node."),
    doc("ADMIN|TRANSFER", "7.4.0", "O(1)", "partition:string node:integer", "Has another node lead a partition, without a failed request."),
    doc("COMMAND", "2.8.13", "O(N) where N is the number of commands", "", "Describes all commands."),
    doc("COMMAND|COUNT", "2.8.13", "O(1)", "", "Returns the number of commands."),
    doc("COMMAND|DOCS", "7.0.0", "O(N) where N is the number of commands to look up", "[command-name...]", "Documents commands."),
    doc("COMMAND|GETKEYS", "2.8.13", "O(N) where N is the number of arguments", "command:string [arg...]", "Returns the keys of a command line."),
    doc("COMMAND|GETKEYSANDFLAGS", "7.0.0", "O(N) where N is the number of arguments", "command:string [arg...]", "Returns the keys of a command line and what is done with them."),
    doc("COMMAND|HELP", "5.0.0", "O(1)", "", HELP),
    doc("COMMAND|INFO", "2.8.13", "O(N) where N is the number of commands to look up", "[command-name...]", "Describes commands."),
    doc("COMMAND|LIST", "7.0.0", "O(N) where N is the number of commands", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern:string>]", "Lists the names of commands."),
    doc("CONFIG", "2.0.0", BY_SUBCOMMAND, "", "Looks at parameters and changes them."),
    doc("CONFIG|GET", "2.0.0", "O(N) where N is the number of parameters given", "parameter...", "Returns parameters that match patterns."),
    doc("CONFIG|HELP", "5.0.0", "O(1)", "", HELP),
    doc("CONFIG|RESETSTAT", "2.0.0", "O(N) where N is the number of commands", "", "Sets the statistics of INFO to zero."),
    doc("CONFIG|REWRITE", "2.8.0", "O(1)", "", "Writes changed parameters to the configuration file."),
    doc("CONFIG|SET", "2.0.0", "O(N) where N is the number of parameters given", "<parameter value>...", "Changes parameters."),
    doc("DEBUG", "1.0.0", "Depends on the subcommand", "subcommand:string [argument:string...]", "For tests: off unless the server was started with enable-debug-command."),
    doc("DBSIZE", "1.0.0", "O(N) where N is the number of partitions", "", "Returns the number of keys in the table."),
    doc("FLUSHALL", "1.0.0", "O(N) where N is the number of partitions", "[ASYNC | SYNC]", "Deletes all keys of all tables."),
    doc("FLUSHDB", "1.0.0", "O(N) where N is the number of partitions", "[ASYNC | SYNC]", "Deletes all keys of the table."),
    doc("INFO", "1.0.0", "O(N) where N is the number of partitions", "[section...]", "Returns facts and statistics."),
    doc("LATENCY", "2.8.13", BY_SUBCOMMAND, "", "Looks at latencies."),
    doc("LATENCY|DOCTOR", "2.8.13", "O(1)", "", "Explains latency events in plain words."),
    doc("LATENCY|GRAPH", "2.8.13", "O(1)", "event", "Draws the history of a latency event."),
    doc("LATENCY|HELP", "2.8.13", "O(1)", "", HELP),
    doc("LATENCY|HISTOGRAM", "7.0.0", "O(N) where N is the number of commands asked for", "[command:string...]", "Returns the distribution of the latencies of commands."),
    doc("LATENCY|HISTORY", "2.8.13", "O(1)", "event", "Returns the samples of a latency event."),
    doc("LATENCY|LATEST", "2.8.13", "O(1)", "", "Returns the newest sample of each latency event."),
    doc("LATENCY|RESET", "2.8.13", "O(1)", "[event...]", "Forgets latency events."),
    doc("LOLWUT", "5.0.0", "O(1)", "[VERSION version:integer]", "Draws something and tells the version."),
    doc("MEMORY", "4.0.0", BY_SUBCOMMAND, "", "Looks at what memory is used for."),
    doc("MEMORY|DOCTOR", "4.0.0", "O(N) where N is the number of nodes", "", "Says in plain words what is wrong with the memory in use."),
    doc("MEMORY|HELP", "4.0.0", "O(1)", "", HELP),
    doc("MEMORY|MALLOC-STATS", "4.0.0", "O(1)", "", "Returns what the allocator tells of itself."),
    doc("MEMORY|PURGE", "4.0.0", "O(1)", "", "Gives unused memory back to the system."),
    doc("MEMORY|STATS", "4.0.0", "O(N) where N is the number of nodes", "", "Returns what memory is used for."),
    doc("MEMORY|USAGE", "4.0.0", "O(1)", "key [SAMPLES count]", "Returns the bytes of a key's rows."),
    doc("MONITOR", "1.0.0", "O(1)", "", "Has every command that the router runs shown to the connection."),
    doc("SHUTDOWN", "1.0.0", "O(1)", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", "Stops the server."),
    doc("SLOWLOG", "2.2.12", BY_SUBCOMMAND, "", "Looks at slow commands."),
    doc("SLOWLOG|GET", "2.2.12", "O(N) where N is the number of entries returned", "[count]", "Returns slow commands."),
    doc("SLOWLOG|HELP", "6.2.0", "O(1)", "", HELP),
    doc("SLOWLOG|LEN", "2.2.12", "O(1)", "", "Returns the number of slow commands kept."),
    doc("SLOWLOG|RESET", "2.2.12", "O(N) where N is the number of entries", "", "Forgets slow commands."),
    doc("SWAPDB", "4.0.0", "O(1)", "index1:integer index2:integer", "Swaps two databases."),
    doc("TIME", "2.6.0", "O(1)", "", "Returns the time of the server."),
];

#[rustfmt::skip]
const ACL: &[Doc] = &[
    doc("ACL", "6.0.0", BY_SUBCOMMAND, "", "Looks at users and changes what they may do."),
    doc("ACL|CAT", "6.0.0", "O(N) where N is the number of commands", "[category:string]", "Returns the categories of commands, or the commands of one."),
    doc("ACL|DELUSER", "6.0.0", "O(N) where N is the number of connections", "username:string...", "Removes users and closes their connections."),
    doc("ACL|DRYRUN", "7.0.0", "O(N) where N is the number of the user's rules", "username:string command:string [arg...]", "Tells whether a user may run a command."),
    doc("ACL|GENPASS", "6.0.0", "O(1)", "[bits:integer]", "Makes up a password."),
    doc("ACL|GETUSER", "6.0.0", "O(N) where N is the number of the user's rules", "username:string", "Returns the rules of a user."),
    doc("ACL|HELP", "6.0.0", "O(1)", "", HELP),
    doc("ACL|LIST", "6.0.0", "O(N) where N is the number of users", "", "Returns all users as lines of the ACL file."),
    doc("ACL|LOAD", "6.0.0", "O(N) where N is the number of users", "", "Reads the ACL file again."),
    doc("ACL|LOG", "6.0.0", "O(N) where N is the number of entries", "[count:integer | RESET]", "Returns what was denied of late."),
    doc("ACL|SAVE", "6.0.0", "O(N) where N is the number of users", "", "Writes the ACL file."),
    doc("ACL|SETUSER", "6.0.0", "O(N) where N is the number of rules", "username:string [rule:string...]", "Makes a user or changes one."),
    doc("ACL|USERS", "6.0.0", "O(N) where N is the number of users", "", "Returns the names of all users."),
    doc("ACL|WHOAMI", "6.0.0", "O(1)", "", "Returns the user of the connection."),
];

#[rustfmt::skip]
const ABSENT: &[Doc] = &[
    doc("BGREWRITEAOF", "1.0.0", "O(1)", "", "Has all storage nodes write what only their logs hold to tables, in the background."),
    doc("BGSAVE", "1.0.0", "O(1)", "[SCHEDULE]", "Refused: there are no snapshot files; every write is on a quorum of disks."),
    doc("FAILOVER", "6.2.0", "O(1)", "[argument:string...]", "Refused: leaders are elected."),
    doc("LASTSAVE", "1.0.0", "O(1)", "", "Returns when the server was started, as there are no snapshots."),
    doc("MODULE", "4.0.0", BY_SUBCOMMAND, "", "There are no modules."),
    doc("MODULE|HELP", "5.0.0", "O(1)", "", HELP),
    doc("MODULE|LIST", "4.0.0", "O(1)", "", "Returns no module."),
    doc("MODULE|LOAD", "4.0.0", "O(1)", "path:string [arg...]", "Refused: there are no modules."),
    doc("MODULE|LOADEX", "7.0.0", "O(1)", "path:string [argument:string...]", "Refused: there are no modules."),
    doc("MODULE|UNLOAD", "4.0.0", "O(1)", "name:string", "Refused: there are no modules."),
    doc("PSYNC", "2.8.0", "O(1)", "replicationid:string offset:integer", "Refused: there is no replication stream."),
    doc("REPLCONF", "3.0.0", "O(1)", "[argument:string...]", "Refused: there is no replication stream."),
    doc("REPLICAOF", "5.0.0", "O(1)", "<args:string NO | ONE>", "Changes nothing with NO ONE; else it is refused."),
    doc("ROLE", "2.8.12", "O(1)", "", "Returns that this is a master without replicas of Redis's kind."),
    doc("SAVE", "1.0.0", "O(1)", "", "Refused: there are no snapshot files; every write is on a quorum of disks."),
    doc("SLAVEOF", "1.0.0", "O(1)", "<args:string NO | ONE>", "Changes nothing with NO ONE; else it is refused."),
    doc("SYNC", "1.0.0", "O(1)", "", "Refused: there is no replication stream."),
];

#[rustfmt::skip]
const CLUSTER: &[Doc] = &[
    doc("ASKING", "3.0.0", "O(1)", "", "Changes nothing: every router serves every key."),
    doc("CLUSTER", "3.0.0", BY_SUBCOMMAND, "", "Tells clients of Redis Cluster where slots are."),
    doc("CLUSTER|ADDSLOTS", "3.0.0", "O(1)", "slot:integer...", NO_TOPOLOGY),
    doc("CLUSTER|ADDSLOTSRANGE", "7.0.0", "O(1)", "<start-slot:integer end-slot:integer>...", NO_TOPOLOGY),
    doc("CLUSTER|BUMPEPOCH", "3.0.0", "O(1)", "", NO_TOPOLOGY),
    doc("CLUSTER|COUNT-FAILURE-REPORTS", "3.0.0", "O(1)", "node-id:string", "Returns 0: nodes do not report each other."),
    doc("CLUSTER|COUNTKEYSINSLOT", "3.0.0", "O(N) where N is the number of keys in the slot", "slot:integer", "Counts the keys of a slot."),
    doc("CLUSTER|DELSLOTS", "3.0.0", "O(1)", "slot:integer...", NO_TOPOLOGY),
    doc("CLUSTER|DELSLOTSRANGE", "7.0.0", "O(1)", "<start-slot:integer end-slot:integer>...", NO_TOPOLOGY),
    doc("CLUSTER|FAILOVER", "3.0.0", "O(1)", "[FORCE | TAKEOVER]", NO_TOPOLOGY),
    doc("CLUSTER|FLUSHSLOTS", "3.0.0", "O(1)", "", NO_TOPOLOGY),
    doc("CLUSTER|FORGET", "3.0.0", "O(1)", "node-id:string", NO_TOPOLOGY),
    doc("CLUSTER|GETKEYSINSLOT", "3.0.0", "O(N) where N is the number of keys returned", "slot:integer count:integer", "Returns keys of a slot."),
    doc("CLUSTER|HELP", "5.0.0", "O(1)", "", HELP),
    doc("CLUSTER|INFO", "3.0.0", "O(1)", "", "Describes the cluster as Redis Cluster would."),
    doc("CLUSTER|KEYSLOT", "3.0.0", "O(N) where N is the length of the key", "key:string", "Returns the slot of a key."),
    doc("CLUSTER|LINKS", "7.0.0", "O(1)", "", "Returns no link: there is no cluster bus."),
    doc("CLUSTER|MEET", "3.0.0", "O(1)", "ip:string port:integer [cluster-bus-port:integer]", NO_TOPOLOGY),
    doc("CLUSTER|MYID", "3.0.0", "O(1)", "", "Returns the name of this router."),
    doc("CLUSTER|MYSHARDID", "7.2.0", "O(1)", "", "Returns the name of this router."),
    doc("CLUSTER|NODES", "3.0.0", "O(1)", "", "Describes the routers as nodes of Redis Cluster."),
    doc("CLUSTER|REPLICAS", "5.0.0", "O(1)", "node-id:string", "Returns no replica: routers have none."),
    doc("CLUSTER|REPLICATE", "3.0.0", "O(1)", "node-id:string", NO_TOPOLOGY),
    doc("CLUSTER|RESET", "3.0.0", "O(1)", "[HARD | SOFT]", NO_TOPOLOGY),
    doc("CLUSTER|SAVECONFIG", "3.0.0", "O(1)", "", NO_TOPOLOGY),
    doc("CLUSTER|SET-CONFIG-EPOCH", "3.0.0", "O(1)", "config-epoch:integer", NO_TOPOLOGY),
    doc("CLUSTER|SETSLOT", "3.0.0", "O(1)", "slot:integer subcommand:string [node-id:string]", NO_TOPOLOGY),
    doc("CLUSTER|SHARDS", "7.0.0", "O(1)", "", "Describes the routers and their slots."),
    doc("CLUSTER|SLAVES", "3.0.0", "O(1)", "node-id:string", "Returns no replica: routers have none."),
    doc("CLUSTER|SLOTS", "3.0.0", "O(1)", "", "Returns which router clients should ask for which slots."),
    doc("READONLY", "3.0.0", "O(1)", "", "Changes nothing: reads are always of the newest write."),
    doc("READWRITE", "3.0.0", "O(1)", "", "Changes nothing."),
];

const CHANGES: &[&str] = &["nondeterministic_output"];
const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const ALL_NODES_OK: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];
const ALL_SHARDS_ONE: &[&str] = &["request_policy:all_shards", "response_policy:one_succeeded"];
const ALL_SHARDS_OK: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const ALL_SHARDS_SUM: &[&str] = &["request_policy:all_shards", "response_policy:agg_sum"];
const MULTI_SHARD_SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const EACH_NODE: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

const EACH_SHARD: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

#[rustfmt::skip]
static TIPS: &[(&str, &[&str])] = &[
    ("CLIENT|INFO", CHANGES),
    ("CLIENT|LIST", CHANGES),
    ("CLUSTER|BUMPEPOCH", CHANGES),
    ("CLUSTER|COUNT-FAILURE-REPORTS", CHANGES),
    ("CLUSTER|GETKEYSINSLOT", CHANGES),
    ("CLUSTER|INFO", CHANGES),
    ("CLUSTER|LINKS", CHANGES),
    ("CLUSTER|MYSHARDID", CHANGES),
    ("CLUSTER|NODES", CHANGES),
    ("CLUSTER|REPLICAS", CHANGES),
    ("CLUSTER|SHARDS", CHANGES),
    ("CLUSTER|SLAVES", CHANGES),
    ("CLUSTER|SLOTS", CHANGES),
    ("COMMAND", UNORDERED),
    ("COMMAND|DOCS", UNORDERED),
    ("COMMAND|INFO", UNORDERED),
    ("COMMAND|LIST", UNORDERED),
    ("CONFIG|SET", ALL_NODES_OK),
    ("DBSIZE", ALL_SHARDS_SUM),
    ("DEL", MULTI_SHARD_SUM),
    ("DUMP", CHANGES),
    ("EXISTS", MULTI_SHARD_SUM),
    ("FLUSHALL", ALL_SHARDS_OK),
    ("FLUSHDB", ALL_SHARDS_OK),
    ("HGETALL", UNORDERED),
    ("HKEYS", UNORDERED),
    ("HPTTL", CHANGES),
    ("HRANDFIELD", CHANGES),
    ("HSCAN", CHANGES),
    ("HTTL", CHANGES),
    ("HVALS", UNORDERED),
    ("INFO", EACH_SHARD),
    ("KEYS", &["request_policy:all_shards", "nondeterministic_output_order"]),
    ("LASTSAVE", CHANGES),
    ("LATENCY|DOCTOR", EACH_NODE),
    ("LATENCY|GRAPH", EACH_NODE),
    ("LATENCY|HISTOGRAM", EACH_NODE),
    ("LATENCY|HISTORY", EACH_NODE),
    ("LATENCY|LATEST", EACH_NODE),
    ("LATENCY|RESET", ALL_NODES_OK),
    ("MEMORY|DOCTOR", EACH_SHARD),
    ("MEMORY|MALLOC-STATS", EACH_SHARD),
    ("MEMORY|PURGE", ALL_SHARDS_OK),
    ("MEMORY|STATS", EACH_SHARD),
    ("MODULE|LIST", UNORDERED),
    ("MIGRATE", CHANGES),
    ("MGET", &["request_policy:multi_shard"]),
    ("MSET", &["request_policy:multi_shard", "response_policy:all_succeeded"]),
    ("MSETNX", &["request_policy:multi_shard", "response_policy:agg_min"]),
    ("OBJECT|ENCODING", CHANGES),
    ("OBJECT|FREQ", CHANGES),
    ("OBJECT|IDLETIME", CHANGES),
    ("OBJECT|REFCOUNT", CHANGES),
    ("PING", ALL_SHARDS_OK),
    ("PTTL", CHANGES),
    ("RANDOMKEY", &["request_policy:all_shards", "nondeterministic_output"]),
    ("SCAN", &["nondeterministic_output", "request_policy:special"]),
    ("SDIFF", UNORDERED),
    ("SINTER", UNORDERED),
    ("SLOWLOG|GET", &["request_policy:all_nodes", "nondeterministic_output"]),
    ("SLOWLOG|LEN", &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"]),
    ("SLOWLOG|RESET", ALL_NODES_OK),
    ("SMEMBERS", UNORDERED),
    ("SPOP", CHANGES),
    ("SRANDMEMBER", CHANGES),
    ("SSCAN", CHANGES),
    ("SUNION", UNORDERED),
    ("TIME", CHANGES),
    ("TOUCH", MULTI_SHARD_SUM),
    ("TTL", CHANGES),
    ("UNLINK", MULTI_SHARD_SUM),
    ("XADD", CHANGES),
    ("XAUTOCLAIM", CHANGES),
    ("XCLAIM", CHANGES),
    ("XINFO|CONSUMERS", CHANGES),
    ("XPENDING", CHANGES),
    ("XTRIM", CHANGES),
    ("FUNCTION|DELETE", ALL_SHARDS_OK),
    ("FUNCTION|FLUSH", ALL_SHARDS_OK),
    ("FUNCTION|KILL", ALL_SHARDS_ONE),
    ("FUNCTION|LIST", UNORDERED),
    ("FUNCTION|LOAD", ALL_SHARDS_OK),
    ("FUNCTION|RESTORE", ALL_SHARDS_OK),
    (
        "FUNCTION|STATS",
        &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    ),
    ("SCRIPT|EXISTS", &["request_policy:all_shards", "response_policy:agg_logical_and"]),
    ("SCRIPT|FLUSH", ALL_NODES_OK),
    ("SCRIPT|KILL", ALL_SHARDS_ONE),
    ("SCRIPT|LOAD", ALL_NODES_OK),
    ("WAITAOF", &["request_policy:all_shards", "response_policy:agg_min"]),
    ("WAIT", &["request_policy:all_shards", "response_policy:agg_min"]),
    ("ZRANDMEMBER", CHANGES),
    ("ZSCAN", CHANGES),
];

//! The generator: a template per form of a command, filled in by a seed.
//!
//! ```text
//! template = word (" " word)*
//! word     = literal | "<" kind ">" | "(" alternatives ")" | "[" alternatives "]"
//!            a round group takes one alternative, a square one takes none half of the time;
//!            "+" after a word or group repeats it one to four times
//! alternatives = words ("|" words)*
//! ```
//!
//! A template that starts with `!` is never mutated: with a wrong number it would stop the test (an
//! endless pause). The others are, now and then: an argument lost, doubled, added, swapped for a
//! hostile one.

mod ordered;
mod scripted;
#[cfg(test)]
mod tests;
mod transactions;
mod words;

use words::{MEMBERS, STREAM_IDS};

use super::{Action, Atom, Command, DATABASES, KEYS};
use crate::rng::Rng;

/// How many atoms a sequence has at most.
const SEQUENCE_ATOMS_MAX: usize = 120;
/// How many commands are sent together at most.
const PIPELINE_MAX: usize = 32;
/// How many of 100 commands are mutated.
const MUTATED_PERCENT: usize = 8;
/// How many of 100 keys are of those that a family favours: with keys for all types alike, most
/// commands would meet a wrong one.
const FAVOURED_PERCENT: usize = 60;
/// No generated key outlives less than this, unless it is meant to expire in the test.
const TTL_MIN_S: u64 = 1_000;
/// Times to live are this far apart, so that GT and LT decide alike on both servers.
const TTL_STEP_S: u64 = 20;
/// So many different times to live.
const TTL_COUNT: u64 = 50_000;

/// Weight and form. Listed by family in the order of Redis's documentation.
#[rustfmt::skip]
const TEMPLATES: &[(usize, &str)] = &[
    // Strings.
    (8, "APPEND <key> <val>"),
    (6, "DECR <key>"),
    (6, "DECRBY <key> <int>"),
    (14, "GET <key>"),
    (5, "GETDEL <key>"),
    (8, "GETEX <key> [EX <ttl>|PX <ttlms>|EXAT <at>|PXAT <atms>|PERSIST]"),
    (6, "GETRANGE <key> <idx> <idx>"),
    (5, "GETSET <key> <val>"),
    (6, "INCR <key>"),
    (6, "INCRBY <key> <int>"),
    (8, "INCRBYFLOAT <key> <float>"),
    (5, "LCS <key> <key> [LEN] [IDX] [MINMATCHLEN <idx>] [WITHMATCHLEN]"),
    (6, "MGET <key>+"),
    (6, "MSET (<key> <val>)+"),
    (5, "MSETNX (<key> <val>)+"),
    (4, "PSETEX <key> <ttlms> <val>"),
    (24, "SET <key> <val> [NX|XX] [GET] [EX <ttl>|PX <ttlms>|EXAT <at>|PXAT <atms>|KEEPTTL]"),
    (4, "SET <key> <val> (NX XX|EX <ttl> PX <ttlms>|KEEPTTL EX <ttl>|GET GET|PERSIST|EX|EX <ttl> KEEPTTL)"),
    (4, "SETEX <key> <ttl> <val>"),
    (4, "SETNX <key> <val>"),
    (5, "SETRANGE <key> <offset> <val>"),
    (5, "STRLEN <key>"),
    (4, "SUBSTR <key> <idx> <idx>"),
    // Bitmaps. A mutation could ask Redis for a string of 256 MB.
    (5, "!SETBIT <key> <bit> (0|1|0|1|2|abc)"),
    (4, "GETBIT <key> <bit>"),
    (5, "BITCOUNT <key> [<idx> <idx> [BIT|BYTE|x]|<idx>]"),
    (6, "BITPOS <key> (0|1|0|1|2|abc) [<idx> [<idx> [BIT|BYTE|x]]]"),
    (5, "BITOP (AND|OR|XOR|x) <key> <key>+"),
    (4, "BITOP NOT <key> <key> [<key>]"),
    (4, "!BITFIELD <key> (GET <integer> <bit>|SET <integer> <bit> <number>|INCRBY <integer> <bit> <number>|OVERFLOW (WRAP|SAT|FAIL))+"),
    (4, "!BITFIELD <key> OVERFLOW (SAT|FAIL|x) (SET <integer> <bit> <number>|INCRBY <integer> <bit> <number>)+"),
    (3, "!BITFIELD_RO <key> (GET <integer> <bit>)+ [SET u8 0 1]"),
    // Hashes.
    (6, "HDEL <key> <field>+"),
    (5, "HEXISTS <key> <field>"),
    (8, "HGET <key> <field>"),
    (6, "HGETALL <key>"),
    (7, "HINCRBY <key> <field> <int>"),
    (7, "HINCRBYFLOAT <key> <field> <float>"),
    (4, "HKEYS <key>"),
    (5, "HLEN <key>"),
    (6, "HMGET <key> <field>+"),
    (4, "HMSET <key> (<field> <val>)+"),
    (3, "!HRANDFIELD <key> [<drawn>|<drawn> WITHVALUES|<drawn> x]"),
    (4, "HSCAN <key> (0|0|0|5|abc) [MATCH <pattern>] [COUNT <count>]"),
    (20, "HSET <key> (<field> <val>)+"),
    (2, "HSET <key> <field>+"),
    (5, "HSETNX <key> <field> <val>"),
    (4, "HSTRLEN <key> <field>"),
    (4, "HVALS <key>"),
    // Sets.
    (18, "SADD <skey> <member>+"),
    (4, "SADD <skey> <member>+ <member>+ <member>+"),
    (6, "SREM <skey> <member>+"),
    (5, "SISMEMBER <skey> <member>"),
    (5, "SMISMEMBER <skey> <member>+"),
    (6, "SMEMBERS <skey>"),
    (4, "SCARD <skey>"),
    (2, "!SPOP <skey> (0|1000|-1|abc|1000 x|9223372036854775808)"),
    (3, "!SRANDMEMBER <skey> [<drawn>|1 x]"),
    (6, "SMOVE <skey> <skey> <member>"),
    (5, "SINTER <skey>+"),
    (5, "SINTERCARD (1 <skey>|2 <skey> <skey>|3 <skey> <skey>|0 <skey>|abc <skey>|2 <skey> <skey> LIMIT <count>)"),
    (5, "SINTERSTORE <skey> <skey>+"),
    (5, "SUNION <skey>+"),
    (5, "SUNIONSTORE <skey> <skey>+"),
    (5, "SDIFF <skey>+"),
    (5, "SDIFFSTORE <skey> <skey>+"),
    (4, "SSCAN <skey> (0|0|0|5|abc) [MATCH <pattern>] [COUNT <count>]"),
    // Streams. What hangs on the clock is left out, and what Redis does by nodes of a hundred entries.
    (16, "XADD <xkey> <sid> (<field> <val>)+"),
    (5, "XADD <xkey> [NOMKSTREAM] [MAXLEN [=] (0|1|2|5|-1|abc)|MINID [=] <sid>] <sid> <field> <val>"),
    (2, "!XADD <xkey> (* a|MAXLEN 1 MINID 1 5-1 a 1|LIMIT 5 5-1 a 1|MAXLEN 5 LIMIT 5 5-1 a 1|MAXLEN ~ 100 5-* a 1)"),
    (4, "XLEN <xkey>"),
    (6, "XRANGE <xkey> (-|<sid>) (+|<sid>) [COUNT <count>]"),
    (4, "XREVRANGE <xkey> (+|<sid>) (-|<sid>) [COUNT <count>]"),
    (5, "XDEL <xkey> <sid>+"),
    (4, "XTRIM <xkey> (MAXLEN [=] (0|1|3|abc)|MINID [=] <sid>|MAXLEN|LIMIT 3|MAXLEN 1 LIMIT 1)"),
    (5, "!XREAD [COUNT <count>] [BLOCK 1] STREAMS <xkey> <xkey> <sid> ($|<sid>)"),
    (2, "!XREAD (STREAMS <xkey>|BLOCK (x|-1) STREAMS <xkey> 0|COUNT 1 <xkey> 0|STREAMS <xkey> >|GROUP g c STREAMS <xkey> 0|NOACK STREAMS <xkey> 0)"),
    (8, "XGROUP CREATE <xkey> <group> ($|0|<sid>) [MKSTREAM] [ENTRIESREAD <idx>]"),
    (4, "XGROUP SETID <xkey> <group> ($|0|<sid>)"),
    (2, "XGROUP DESTROY <xkey> <group>"),
    (3, "XGROUP CREATECONSUMER <xkey> <group> <consumer>"),
    (3, "XGROUP DELCONSUMER <xkey> <group> <consumer>"),
    (1, "XGROUP (HELP|nosuch|CREATE|SETID <xkey>|DESTROY <xkey>)"),
    (10, "!XREADGROUP GROUP <group> <consumer> [COUNT <count>] [BLOCK 1] [NOACK] STREAMS <xkey> (>|>|0|<sid>)"),
    (5, "XACK <xkey> <group> <sid>+"),
    (5, "XPENDING <xkey> <group>"),
    (2, "XPENDING <xkey> <group> (-|<sid>) (+|<sid>) 0"),
    (5, "XCLAIM <xkey> <group> <consumer> 0 <sid>+ [JUSTID] [FORCE]"),
    (4, "XAUTOCLAIM <xkey> <group> <consumer> 0 (0|-|<sid>) [COUNT (1|5|0|abc)] [JUSTID]"),
    (4, "XSETID <xkey> <sid> [ENTRIESADDED <idx>] [MAXDELETEDID <sid>]"),
    (5, "XINFO GROUPS <xkey>"),
    (1, "XINFO (HELP|nosuch|STREAM|CONSUMERS <xkey>)"),
    // HyperLogLogs.
    (8, "PFADD <key> <val>+"),
    (2, "PFADD <key>"),
    // Of one key, Redis writes the answer into the string.
    (6, "!PFCOUNT <key> <key>+"),
    (5, "PFMERGE <key> <key>+"),
    (2, "PFMERGE <key>"),
    (2, "PFDEBUG (ENCODING|DECODE|TODENSE|GETREG|nosuch) <key>"),
    // Keys of any type.
    (8, "DEL <key>+"),
    (5, "UNLINK <key>+"),
    (6, "EXISTS <key>+"),
    (5, "TYPE <key>"),
    (6, "TTL <key>"),
    (5, "PTTL <key>"),
    (5, "EXPIRETIME <key>"),
    (5, "PEXPIRETIME <key>"),
    (6, "EXPIRE <key> <ttl> [NX|XX|GT|LT|XX GT|XX LT|NX GT|GT LT]"),
    (5, "PEXPIRE <key> <ttlms> [NX|XX|GT|LT]"),
    (5, "EXPIREAT <key> <at> [NX|XX|GT|LT]"),
    (5, "PEXPIREAT <key> <atms> [NX|XX|GT|LT|NX XX]"),
    (5, "PERSIST <key>"),
    (6, "RENAME <key> <key>"),
    (5, "RENAMENX <key> <key>"),
    (7, "COPY <key> <key> [DB <db>] [REPLACE]"),
    (4, "MOVE <key> (<db>|<db>|x)"),
    (4, "KEYS <pattern>"),
    (2, "SCAN (0|abc|-1|99999999999999999999) [MATCH <pattern>] [COUNT <count>] [TYPE string|TYPE list|TYPE hash|TYPE set|TYPE zset|TYPE stream]"),
    (4, "TOUCH <key>+"),
    (6, "OBJECT ENCODING <key>"),
    (3, "OBJECT REFCOUNT <key>"),
    (2, "OBJECT FREQ <key>"),
    (2, "OBJECT IDLETIME <key>"),
    (1, "OBJECT HELP"),
    (3, "DUMP <key>"),
    (6, "RESTORE <key> (0|<ttlms>) <payload> [REPLACE] [ABSTTL] [IDLETIME 100|FREQ 10]"),
    (2, "RESTORE <key> <int> <val>"),
    (2, "RESTORE <key> <atms> <payload> REPLACE ABSTTL"),
    // Connections.
    (2, "HELLO [2|3|4|abc|3 SETNAME <name>|3 AUTH default x|2 AUTH nobody x|3 AUTH default]"),
    (2, "AUTH (x|default x|nobody x|a b c)"),
    (8, "SELECT <db>"),
    (3, "PING [<val>]"),
    (2, "ECHO <val>"),
    (1, "!QUIT"),
    (2, "!RESET"),
    (2, "CLIENT ID"),
    (2, "CLIENT INFO"),
    (1, "CLIENT LIST [TYPE normal|TYPE pubsub|TYPE replica|TYPE x|ID 1 2|ID abc|ID 0]"),
    (3, "CLIENT SETNAME <name>"),
    (3, "CLIENT GETNAME"),
    (2, "CLIENT SETINFO (LIB-NAME|LIB-VER|lib-x) <name>"),
    (2, "!CLIENT KILL (ID 999999999|ID abc|ADDR 1.2.3.4:5|LADDR 1.2.3.4:5|1.2.3.4:5|TYPE pubsub|USER nobody|TYPE x|ID 0|ID|SKIPME maybe|ADDR 1.2.3.4:5 SKIPME no)"),
    (2, "!CLIENT REPLY (ON|SKIP|OFF|maybe)"),
    (1, "!CLIENT PAUSE (1|2|5|0|abc|-1) [WRITE|ALL|x]"),
    (1, "CLIENT UNPAUSE"),
    (1, "CLIENT UNBLOCK (999999999|0|-1|abc) [TIMEOUT|ERROR|x]"),
    (1, "CLIENT GETREDIR"),
    (2, "CLIENT TRACKING (off|x|on REDIRECT 999999999|on PREFIX a|on BCAST OPTIN|on OPTIN OPTOUT|on BCAST PREFIX a PREFIX ab|on REDIRECT|on PREFIX|on REDIRECT abc)"),
    (1, "CLIENT CACHING (yes|no|x)"),
    (1, "CLIENT TRACKINGINFO"),
    // Publishing. (Nobody subscribes: where a connection's own message stands is not as in 7.0.)
    (1, "PUBLISH <name> <val>"),
    (1, "SPUBLISH <name> <val>"),
    (1, "PUBSUB (CHANNELS|CHANNELS <pattern>|NUMSUB|NUMSUB <name>+|NUMPAT|SHARDCHANNELS|SHARDNUMSUB <name>|CHANNELS a b|NUMPAT x|nosuch)"),
    // UNSUBSCRIBE and its kin are left to tests of their own: they have a reply for each channel, in
    // RESP3 also where CLIENT REPLY is off, which the counting of replies here does not know.
    (1, "CLIENT NO-EVICT (on|off|x)"),
    (1, "CLIENT NO-TOUCH (on|off|x)"),
    (1, "CLIENT HELP"),
    (1, "CLIENT (nosuch|LIST x|GETNAME x|ID x|INFO x|SETNAME)"),
    // The server.
    (1, "INFO [server|clients|memory|persistence|stats|replication|cpu|keyspace|nosuch|default|all|everything|server clients]"),
    (1, "COMMAND"),
    (1, "COMMAND COUNT"),
    (1, "COMMAND LIST [FILTERBY PATTERN g*|FILTERBY ACLCAT string|FILTERBY MODULE x|FILTERBY x y|FILTERBY]"),
    (2, "COMMAND INFO [get|set nosuch|config|config|get|mget del|object]"),
    (1, "COMMAND DOCS [get|nosuch|set mget]"),
    (3, "COMMAND GETKEYS (GET <key>|MSET <key> <val> <key> <val>|COPY <key> <key>|LCS <key> <key>|OBJECT ENCODING <key>|PING|nosuch|GET|SET <key> <val> GET|DEL <key>+|SCAN 0)"),
    (2, "COMMAND GETKEYSANDFLAGS (GET <key>|SET <key> <val>|BITFIELD <key> GET u8 0|BITFIELD <key> SET u8 0 1|MSET <key> <val>|COPY <key> <key>|SET <key> <val> GET|GETEX <key>|PING|nosuch)"),
    (1, "COMMAND HELP"),
    (2, "CONFIG GET (save|appendonly|maxmemory|maxmemory-policy|databases|slowlog-*|nosuch|slowlog-log-slower-than|SLOWLOG-MAX-LEN|latency-monitor-threshold|timeout|requirepass|save appendonly)"),
    (1, "CONFIG GET *"),
    (2, "!CONFIG SET (slowlog-log-slower-than (10000|-1|abc)|slowlog-max-len (128|10|abc|-1)|latency-monitor-threshold (0|100|x)|nosuch 1|maxmemory-policy (noeviction|x)|save|slowlog-max-len 10 slowlog-max-len 11|slowlog-max-len 10 nosuch 11)"),
    (1, "CONFIG RESETSTAT"),
    (1, "CONFIG REWRITE"),
    (1, "CONFIG (HELP|nosuch|GET|SET x)"),
    (2, "MEMORY USAGE <key> [SAMPLES (0|5|-1|abc)|x]"),
    (1, "MEMORY (HELP|nosuch|USAGE|DOCTOR|STATS)"),
    (4, "DBSIZE"),
    (1, "FLUSHDB [ASYNC|SYNC|x]"),
    (1, "FLUSHALL [ASYNC|SYNC|x|ASYNC SYNC]"),
    (2, "TIME"),
    (1, "SLOWLOG (GET|GET 1|GET -1|GET -2|GET abc|GET 1 2|LEN|RESET|HELP|nosuch)"),
    (1, "LATENCY (LATEST|HISTORY <name>|HISTORY command|RESET|RESET <name>|GRAPH command|DOCTOR|HELP|nosuch|HISTOGRAM|HISTOGRAM get nosuch)"),
    (1, "!WAIT (0|1|-1|abc) (1|3|abc|-1)"),
    // What is no command.
    (2, "nosuch <val> <val>"),
    (1, "<val>+"),
];

const INTS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "10",
    "100",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "4611686018427387904",
    "2147483648",
    "-2147483649",
    "18446744073709551615",
    "18446744073709551616",
    "3.0",
    "1e3",
    "",
    " 1",
    "1 ",
    "+1",
    "01",
    "-0",
    "0x10",
    "abc",
    "١",
];

const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.1",
    "0.5",
    "1.5",
    "-2.25",
    "3.0e3",
    "1e10",
    "1e-5",
    "0.1e1",
    "5.0",
    "10.50",
    "1e17",
    "1e300",
    "-1e300",
    "1e400",
    "inf",
    "-inf",
    "nan",
    "1e-400",
    "1e-20",
    "",
    " 1.5",
    "1.5 ",
    "abc",
    "0x1p3",
    "1,5",
    ".5",
    "5.",
    "--1",
    "9223372036854775807",
    "3.14159265358979323846",
    "0.30000000000000004",
];

const INDEXES: &[&str] = &[
    "0",
    "0",
    "1",
    "2",
    "3",
    "5",
    "10",
    "-1",
    "-1",
    "-2",
    "-5",
    "-100",
    "100",
    "4",
    "7",
    "9223372036854775807",
    "-9223372036854775808",
    "abc",
    "",
    "1.0",
];

/// An offset near the limit on a string would cost half a gigabyte, so the large ones are beyond it.
const OFFSETS: &[&str] = &[
    "0",
    "1",
    "2",
    "5",
    "10",
    "100",
    "1000",
    "-1",
    "536870912",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "abc",
    "",
    "1.5",
];

/// Offsets of bits: small, or beyond all limits.
const BITS: &[&str] = &[
    "0",
    "1",
    "5",
    "7",
    "8",
    "9",
    "15",
    "16",
    "63",
    "64",
    "100",
    "1000",
    "20000",
    "#0",
    "#1",
    "#2",
    "-1",
    "#-1",
    "4294967296",
    "9223372036854775807",
    "#9223372036854775807",
    "abc",
    "",
    "#",
    "1.5",
];

/// Types of BITFIELD's numbers.
const INTEGERS: &[&str] = &[
    "u1", "u2", "u4", "u8", "u8", "u16", "u32", "u63", "i1", "i2", "i5", "i8", "i8", "i16", "i33",
    "i63", "i64", "u64", "i65", "u0", "x8", "", "U8",
];

/// For a time to live: what is refused, and what ends the key's life at once.
const TTLS_ODD: &[&str] = &[
    "0",
    "-1",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "9223372036854775",
    "9223372036854776",
    "abc",
    "",
    "1.5",
    "92233720368547758",
];

/// Commands that take a time.
const TIMED: &[&str] =
    &["SET", "SETEX", "PSETEX", "GETEX", "RESTORE", "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"];

/// Options that are also commands of Redis which Evenkeel does not have; a mutation can put one first.
const NAMES_OF_REDIS: &[&str] = &["SYNC"];

const PATTERNS: &[&str] = &[
    "*", "*", "?", "[a-c]", "[^a]", "user:*", "{t}*", "*n", "a", "", "nosuch*", "[", "[a-", "\\*",
    "**", "k*k", "?*?", "[]", "[c-a]", "\\", "*\\",
];

/// Of hashes. One is too long for Redis's small encoding.
const FIELDS: &[&str] = &[
    "a",
    "b",
    "c",
    "n",
    "field",
    "1",
    "-300",
    "",
    "\0\r\n",
    "ünï",
    "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// How many fields HRANDFIELD draws. No large negative number: Redis would send so many.
const DRAWN: &[&str] = &[
    "0",
    "1",
    "3",
    "100",
    "-1",
    "-3",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "abc",
    "",
    "1.0",
];

const NAMES: &[&str] = &["me", "conn-1", "", "with space", "with\nline", "x.y:z", "ünï"];

impl Generator {
    fn fill(&mut self, kind: &str) -> Vec<u8> {
        match kind {
            "key" if self.rng.chance(FAVOURED_PERCENT) => self.rng.pick(self.favoured).to_vec(),
            "key" => self.rng.pick(KEYS).to_vec(),
            // Mostly the same few, lest others of another type are in their place.
            "skey" if self.rng.chance(70) => self.rng.pick(&KEYS[..2]).to_vec(),
            "xkey" if self.rng.chance(70) => self.rng.pick(&KEYS[2..4]).to_vec(),
            "skey" | "xkey" => self.rng.pick(KEYS).to_vec(),
            "val" => self.value(),
            "member" => self.rng.pick(MEMBERS).as_bytes().to_vec(),
            "sid" => self.rng.pick(STREAM_IDS).as_bytes().to_vec(),
            "group" => self.rng.pick(&["g", "h", ""]).as_bytes().to_vec(),
            "consumer" => self.rng.pick(&["alice", "bob"]).as_bytes().to_vec(),
            "field" => self.rng.pick(FIELDS).as_bytes().to_vec(),
            "drawn" => self.rng.pick(DRAWN).as_bytes().to_vec(),
            "int" => self.rng.pick(INTS).as_bytes().to_vec(),
            "float" => self.rng.pick(FLOATS).as_bytes().to_vec(),
            "idx" => self.rng.pick(INDEXES).as_bytes().to_vec(),
            "offset" => self.rng.pick(OFFSETS).as_bytes().to_vec(),
            "bit" => self.rng.pick(BITS).as_bytes().to_vec(),
            // Redis's saturation takes the lowest number for one that is too high.
            "number" => match self.fill("int") {
                lowest if lowest == b"-9223372036854775808" => b"-129".to_vec(),
                number => number,
            },
            "integer" => self.rng.pick(INTEGERS).as_bytes().to_vec(),
            "pattern" => self.rng.pick(PATTERNS).as_bytes().to_vec(),
            "name" => self.rng.pick(NAMES).as_bytes().to_vec(),
            "count" => {
                self.rng.pick(&["1", "3", "10", "1000", "0", "-1", "abc"]).as_bytes().to_vec()
            }
            "db" if self.rng.chance(85) => self.rng.pick(DATABASES).as_bytes().to_vec(),
            "db" => {
                self.rng.pick(&["16", "-1", "abc", "", "99999999999", "1.0"]).as_bytes().to_vec()
            }
            "payload" => self.payload(),
            "script" => self.rng.pick(scripted::SCRIPTS).as_bytes().to_vec(),
            "seven" => b"return 7".to_vec(),
            "empty" => Vec::new(),
            "ttl" | "ttlms" | "at" | "atms" => self.time(kind),
            "element" if self.rng.chance(10) => self.value(),
            kind if ordered::words(kind).is_some() => {
                let words = ordered::words(kind).unwrap_or_default();
                self.rng.pick(words).as_bytes().to_vec()
            }
            other => unreachable!("a template uses the unknown kind <{other}>"),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.below(20) {
            0..=5 => self.rng.below(200).to_string().into_bytes(),
            6 | 7 => self.rng.pick(INTS).as_bytes().to_vec(),
            8 | 9 => self.rng.pick(FLOATS).as_bytes().to_vec(),
            10 => Vec::new(),
            // Around the length at which Redis's encoding turns from embstr to raw.
            11 => vec![b'x'; self.rng.below(3) + 43],
            12 => b"\x00\x01\xff\r\n$-1\r\n".to_vec(),
            13 => "ab".repeat(self.rng.below(2_000)).into_bytes(),
            14 => (0..self.rng.below(64)).map(|_| self.rng.bits() as u8).collect(),
            15 => b"ohmytext".to_vec(),
            16 => b"mynewtext".to_vec(),
            _ => (0..self.rng.below(12)).map(|_| b'a' + self.rng.below(4) as u8).collect(),
        }
    }

    /// A time that no other command of the sequence has; so an order between two never hangs on
    /// which millisecond a server was in.
    fn time(&mut self, kind: &str) -> Vec<u8> {
        if self.rng.chance(12) {
            return self.rng.pick(TTLS_ODD).as_bytes().to_vec();
        }
        self.times += 1;
        let seconds = TTL_MIN_S + TTL_STEP_S * (self.times * 7_919 % TTL_COUNT);
        let past = kind.starts_with("at") && self.rng.chance(5);
        let at = if past { self.rng.below(1_000_000_000) as u64 } else { self.start_s + seconds };
        match kind {
            "ttl" => seconds,
            "ttlms" => seconds * 1_000,
            "at" => at,
            _ => at * 1_000,
        }
        .to_string()
        .into_bytes()
    }

    /// What Redis's DUMP gave for some value; sometimes damaged.
    fn payload(&mut self) -> Vec<u8> {
        let mut payload = self.payloads[self.rng.below(self.payloads.len())].clone();
        if self.rng.chance(10) {
            let at = self.rng.below(payload.len());
            payload[at] ^= 1 << self.rng.below(8);
        }
        if self.rng.chance(5) {
            payload.truncate(self.rng.below(payload.len()));
        }
        payload
    }
}

/// Makes sequences.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    /// The seconds since 1970 that absolute times are made from.
    start_s: u64,
    /// Times handed out so far.
    times: u64,
    payloads: Vec<Vec<u8>>,
    weights: usize,
    /// The keys that the present command mostly takes.
    favoured: &'static [&'static [u8]],
}

impl Generator {
    /// A generator. `payloads` are answers of Redis's DUMP, at least one; `now_s` is the time.
    pub fn new(seed: u64, now_s: u64, payloads: Vec<Vec<u8>>) -> Generator {
        let weights = templates().map(|(weight, _)| weight).sum();
        Generator {
            rng: Rng::new(seed),
            start_s: now_s,
            times: 0,
            payloads,
            weights,
            favoured: KEYS,
        }
    }

    /// The next sequence.
    pub fn sequence(&mut self) -> Vec<Atom> {
        let length = 20 + self.rng.below(SEQUENCE_ATOMS_MAX - 20);
        let mut atoms = Vec::new();
        while atoms.len() < length {
            self.pipeline(&mut atoms);
            match self.rng.below(40) {
                0 => self.expiry(&mut atoms),
                1 => {
                    let options =
                        self.expand("[MATCH <pattern>] [COUNT (1|3|10|1000)] [TYPE string]");
                    self.single(&mut atoms, Action::ScanAll(options));
                }
                2 => self.single(&mut atoms, Action::RandomKey),
                3..=12 => self.transaction(&mut atoms),
                13..=15 => self.scripted(&mut atoms),
                _ => {}
            }
        }
        atoms
    }

    /// Some commands that are sent together.
    fn pipeline(&mut self, atoms: &mut Vec<Atom>) {
        let connection = self.rng.below(2);
        let count = 1 + self.rng.below(PIPELINE_MAX).min(self.rng.below(PIPELINE_MAX));
        for index in 0..count {
            let command = self.command();
            // Redis counts keys that have expired until it meets them; the runner makes it meet
            // them before a pipeline that counts, so the count has to come first in one.
            let counts = ["DBSIZE", "INFO"].iter().any(|name| is(&command, name));
            atoms.push(Atom {
                connection,
                joined: index > 0 && !counts,
                action: Action::Send(command),
            });
        }
    }

    /// A key that gets a life of a few milliseconds, and a pause that is longer.
    fn expiry(&mut self, atoms: &mut Vec<Atom>) {
        self.favoured = KEYS;
        let command = self.expand(
            "(PEXPIRE <key> (1|2|5)|SET <key> <val> PX (1|3)|PSETEX <key> 2 <val>|GETEX <key> PX 2)",
        );
        self.single(atoms, Action::Expire(command));
    }

    fn single(&mut self, atoms: &mut Vec<Atom>, action: Action) {
        atoms.push(Atom { connection: self.rng.below(2), joined: false, action });
    }

    fn command(&mut self) -> Command {
        let mut at = self.rng.below(self.weights);
        let mut template = TEMPLATES[0].1;
        for (weight, candidate) in templates() {
            template = candidate;
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => break,
            }
        }
        let (template, fixed) = match template.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (template, false),
        };
        self.favoured = favoured(template);
        let mut command = self.expand(template);
        if !fixed && self.rng.chance(MUTATED_PERCENT) {
            self.mutate(&mut command);
            if NAMES_OF_REDIS.iter().any(|name| is(&command, name)) {
                command[0] = b"nosuch".to_vec();
            }
        }
        if self.rng.chance(10) {
            self.change_case(&mut command);
        }
        command
    }

    fn mutate(&mut self, command: &mut Command) {
        let at = self.rng.below(command.len());
        // A small number where a time stands would make a key that dies at an unknown command.
        let timed = TIMED.iter().any(|name| is(command, name));
        match self.rng.below(5) {
            0 if command.len() > 1 => drop(command.remove(at)),
            1 => command.insert(at + 1, command[at].clone()),
            2 => {
                let extra = self.value();
                command.push(extra);
            }
            _ if at > 0 && timed => command[at] = self.rng.pick(TTLS_ODD).as_bytes().to_vec(),
            3 if at > 0 => command[at] = self.value(),
            _ if at > 0 => command[at] = self.rng.pick(INTS).as_bytes().to_vec(),
            _ => command.truncate(1),
        }
    }

    /// Names and options are known in any case.
    fn change_case(&mut self, command: &mut Command) {
        for byte in command[0].iter_mut() {
            if self.rng.chance(50) {
                *byte = byte.to_ascii_lowercase();
            }
        }
        for arg in command.iter_mut().skip(1) {
            if matches!(
                arg.as_slice(),
                b"NX" | b"XX" | b"GET" | b"EX" | b"PX" | b"REPLACE" | b"KEEPTTL"
            ) {
                arg.make_ascii_lowercase();
            }
        }
    }

    fn expand(&mut self, template: &str) -> Command {
        let mut out = Vec::new();
        self.expand_words(template, &mut out);
        out
    }

    fn expand_words(&mut self, words: &str, out: &mut Command) {
        for word in split(words, ' ') {
            let (word, times) = match word.strip_suffix('+') {
                Some(word) => (word, 1 + self.rng.below(4)),
                None => (word, 1),
            };
            for _ in 0..times {
                self.expand_word(word, out);
            }
        }
    }

    fn expand_word(&mut self, word: &str, out: &mut Command) {
        let inner = word.get(1..word.len().saturating_sub(1)).unwrap_or_default();
        match word.as_bytes().first() {
            Some(b'<') => {
                let filled = self.fill(inner);
                out.push(filled);
            }
            Some(b'[') if self.rng.chance(50) => {}
            Some(b'(' | b'[') => {
                let choices = split(inner, '|');
                let choice = *self.rng.pick(&choices);
                self.expand_words(choice, out);
            }
            Some(_) => out.push(word.as_bytes().to_vec()),
            None => {}
        }
    }
}

/// All templates.
fn templates() -> impl Iterator<Item = &'static (usize, &'static str)> {
    TEMPLATES.iter().chain(ordered::TEMPLATES).chain(scripted::TEMPLATES)
}

/// The keys that a family mostly takes.
fn favoured(template: &str) -> &'static [&'static [u8]] {
    let starts = |names: &[&str]| names.iter().any(|name| template.starts_with(name));
    match template.as_bytes()[0] {
        b'H' if !starts(&["HELLO"]) => &KEYS[..4],
        b'L' if !starts(&["LCS", "LATENCY"]) => &KEYS[4..8],
        _ if starts(&["RPUSH", "RPOP"]) => &KEYS[4..8],
        _ if starts(&["Z", "!Z", "GEO"]) => &KEYS[8..12],
        _ => KEYS,
    }
}

/// Whether the command has this name, in any case.
pub(crate) fn is(command: &[Vec<u8>], name: &str) -> bool {
    command.first().is_some_and(|first| first.eq_ignore_ascii_case(name.as_bytes()))
}

/// Parts between separators that stand outside all brackets. No separator, one part.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth = depth.saturating_sub(1),
            _ if character == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

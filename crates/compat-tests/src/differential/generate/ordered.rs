//! Templates and words of what keeps an order: lists, sorted sets, places.

/// Weight and form, as of the other families.
#[rustfmt::skip]
pub(super) const TEMPLATES: &[(usize, &str)] = &[
    // Lists. What waits does not wait for long, so that the sequence goes on.
    (3, "!BLMOVE <key> <key> (LEFT|RIGHT) (LEFT|RIGHT|x) (0.001|0.001|x|-1)"),
    (3, "!BLMPOP (0.001|0.001|x|-1) (1 <key>|2 <key> <key>|0 <key>|3 <key> <key>) (LEFT|RIGHT|x) [COUNT <idx>]"),
    (4, "!BLPOP <key> [<key>] (0.001|0.001|x|-1)"),
    (4, "!BRPOP <key> [<key>] (0.001|0.001|x|-1)"),
    (3, "!BRPOPLPUSH <key> <key> (0.001|0.001|x|-1)"),
    (5, "LINDEX <key> <idx>"),
    (6, "LINSERT <key> (BEFORE|AFTER|x) <element> <element>"),
    (5, "LLEN <key>"),
    (6, "LMOVE <key> <key> (LEFT|RIGHT) (LEFT|RIGHT|x)"),
    (5, "LMPOP (1 <key>|2 <key> <key>|0 <key>|3 <key> <key>) (LEFT|RIGHT|x) [COUNT <idx>]"),
    (6, "LPOP <key> [<idx>]"),
    (6, "LPOS <key> <element> [RANK <idx>] [COUNT <idx>] [MAXLEN <idx>]"),
    (16, "LPUSH <key> <element>+"),
    (4, "LPUSHX <key> <element>+"),
    (8, "LRANGE <key> <idx> <idx>"),
    (6, "LREM <key> <few> <element>"),
    (6, "LSET <key> <idx> <element>"),
    (5, "LTRIM <key> <idx> <idx>"),
    (6, "RPOP <key> [<idx>]"),
    (5, "RPOPLPUSH <key> <key>"),
    (16, "RPUSH <key> <element>+"),
    (4, "RPUSHX <key> <element>+"),
    // What is sorted.
    (4, "SORT <skey> [LIMIT <idx> <idx>] [GET #|GET nosuch|GET * GET #|GET *->a] [ASC|DESC] [ALPHA|ALPHA|LIMIT 1]"),
    // Of equal weights, only numbers are put in an order.
    (2, "!SORT_RO <skey> ([ALPHA] [DESC]|BY * [DESC]|STORE <key>|x)"),
    (3, "SORT <key> ALPHA [DESC] [LIMIT <idx> <idx>] [STORE <key>]"),
    // Sorted sets.
    (3, "!BZMPOP (0.001|0.001|x|-1) (1 <key>|2 <key> <key>|0 <key>|3 <key> <key>) (MIN|MAX|x) [COUNT <idx>]"),
    (3, "!BZPOPMAX <key> [<key>] (0.001|0.001|x|-1)"),
    (3, "!BZPOPMIN <key> [<key>] (0.001|0.001|x|-1)"),
    (20, "ZADD <key> (<score> <field>)+"),
    (8, "ZADD <key> [NX|XX] [GT|LT] [CH] [INCR] (<score> <field>)+"),
    (4, "ZADD <key> (NX|XX|GT|LT|CH|INCR) <score> <field>"),
    (4, "ZCARD <key>"),
    (5, "ZCOUNT <key> <bound> <bound>"),
    (5, "ZDIFF (2 <key> <key>|1 <key>|0 <key>|3 <key> <key>) [WITHSCORES|x]"),
    (4, "ZDIFFSTORE <key> (2 <key> <key>|1 <key>|<idx> <key>)"),
    (6, "ZINCRBY <key> <score> <field>"),
    (5, "ZINTER (2 <key> <key>|1 <key>|x <key>) [WEIGHTS <score> <score>] [AGGREGATE (SUM|MIN|MAX|x)] [WITHSCORES]"),
    (4, "ZINTERCARD (2 <key> <key>|1 <key>|-1 <key>) [LIMIT <idx>]"),
    (4, "ZINTERSTORE <key> 2 <key> <key> [WEIGHTS <score> <score>] [AGGREGATE (SUM|MIN|MAX)]"),
    (5, "ZLEXCOUNT <key> <lex> <lex>"),
    (5, "ZMPOP (1 <key>|2 <key> <key>|0 <key>|3 <key> <key>) (MIN|MAX|x) [COUNT <idx>]"),
    (4, "ZMSCORE <key> <field>+"),
    (5, "ZPOPMAX <key> [<idx>]"),
    (5, "ZPOPMIN <key> [<idx>]"),
    (3, "!ZRANDMEMBER <key> [<drawn>|<drawn> WITHSCORES|<drawn> x]"),
    (8, "ZRANGE <key> <idx> <idx> [REV] [WITHSCORES] [LIMIT <idx> <idx>]"),
    (6, "ZRANGE <key> <bound> <bound> BYSCORE [REV] [LIMIT <idx> <idx>] [WITHSCORES]"),
    (5, "ZRANGE <key> <lex> <lex> BYLEX [REV] [LIMIT <idx> <idx>] [x]"),
    (4, "ZRANGEBYLEX <key> <lex> <lex> [LIMIT <idx> <idx>]"),
    (5, "ZRANGEBYSCORE <key> <bound> <bound> [WITHSCORES] [LIMIT <idx> <idx>]"),
    (5, "ZRANGESTORE <key> <key> (<idx> <idx>|<bound> <bound> BYSCORE|<lex> <lex> BYLEX) [REV] [LIMIT <idx> <idx>]"),
    (5, "ZRANK <key> <field>"),
    (6, "ZREM <key> <field>+"),
    (3, "ZREMRANGEBYLEX <key> <lex> <lex>"),
    (3, "ZREMRANGEBYRANK <key> <idx> <idx>"),
    (3, "ZREMRANGEBYSCORE <key> <bound> <bound>"),
    (4, "ZREVRANGE <key> <idx> <idx> [WITHSCORES|x]"),
    (4, "ZREVRANGEBYLEX <key> <lex> <lex> [LIMIT <idx> <idx>]"),
    (4, "ZREVRANGEBYSCORE <key> <bound> <bound> [WITHSCORES] [LIMIT <idx> <idx>]"),
    (4, "ZREVRANK <key> <field>"),
    (4, "ZSCAN <key> (0|0|0|5|abc) [MATCH <pattern>] [COUNT <count>]"),
    (5, "ZSCORE <key> <field>"),
    (5, "ZUNION (2 <key> <key>|1 <key>|x <key>) [WEIGHTS <score> <score>] [AGGREGATE (SUM|MIN|MAX|x)] [WITHSCORES]"),
    (4, "ZUNIONSTORE <key> 2 <key> <key> [WEIGHTS <score> <score>] [AGGREGATE (SUM|MIN|MAX)]"),
    // Places.
    (12, "GEOADD <key> [NX|XX|CH|NX XX] (<degrees> <degrees> <field>)+"),
    (5, "GEODIST <key> <field> <field> [<unit>]"),
    (4, "GEOHASH <key> <field>+"),
    (5, "GEOPOS <key> <field>+"),
    (4, "GEORADIUS <key> <degrees> <degrees> <radius> <unit> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT <few>] (ASC|DESC)"),
    (3, "GEORADIUS <key> <degrees> <degrees> <radius> <unit> (STORE|STOREDIST) <key> [WITHDIST]"),
    (4, "GEORADIUSBYMEMBER <key> <field> <radius> <unit> [WITHDIST] (ASC|DESC) [STORE <key>|STOREDIST <key>]"),
    (3, "GEORADIUSBYMEMBER_RO <key> <field> <radius> <unit> [WITHDIST|ANY] (ASC|DESC) [COUNT <few>]"),
    (3, "GEORADIUS_RO <key> <degrees> <degrees> <radius> <unit> [WITHDIST] (ASC|DESC|STORE <key>)"),
    (6, "GEOSEARCH <key> (FROMMEMBER <field>|FROMLONLAT <degrees> <degrees>) (BYRADIUS <radius> <unit>|BYBOX <radius> <radius> <unit>) (ASC|DESC) [COUNT <few>] [WITHCOORD] [WITHDIST] [WITHHASH]"),
    (4, "GEOSEARCHSTORE <key> <key> (FROMMEMBER <field>|FROMLONLAT <degrees> <degrees>) (BYRADIUS <radius> <unit>|BYBOX <radius> <radius> <unit>) [STOREDIST]"),
];

/// The words of a kind that only these templates use.
pub(super) fn words(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "element" => ELEMENTS,
        "few" => FEW,
        "score" => SCORES,
        "bound" => BOUNDS,
        "lex" => LEX,
        "degrees" => DEGREES,
        "radius" => RADII,
        "unit" => UNITS,
        _ => return None,
    })
}

/// Of lists: few, so that some are equal.
const ELEMENTS: &[&str] = &["a", "b", "c", "1", "2", "-300", "", "\0\r\n", "ünï"];

/// Of LREM and COUNT.
const FEW: &[&str] = &["1", "2", "-1", "0", "3", "-2", "100", "abc", "9223372036854775807", ""];

const SCORES: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "2.5",
    "-0",
    "0.1",
    "1e3",
    "1000000",
    "1e17",
    "inf",
    "-inf",
    "+inf",
    "nan",
    "0x10",
    "",
    " 1",
    "1e400",
    "abc",
    "3479099956230698",
];

const BOUNDS: &[&str] = &[
    "0", "1", "2", "(1", "(2", "-inf", "+inf", "inf", "(inf", "1.5", "-1", "1000", "", "(", "abc",
    "nan", "(nan", " 1", "1 ",
];

const LEX: &[&str] =
    &["-", "+", "-", "+", "[a", "(a", "[b", "[c", "(field", "[", "(", "[n", "a", "", "+x", "["];

const DEGREES: &[&str] = &[
    "0",
    "1",
    "13.361389",
    "38.115556",
    "15.087269",
    "37.502669",
    "-74",
    "40.7",
    "-0.1",
    "85",
    "-85.05112878",
    "180",
    "86",
    "181",
    "abc",
    "",
    "179.9",
    "1e-9",
];

const RADII: &[&str] =
    &["0", "1", "100", "200", "1000", "5000", "20000", "0.5", "-1", "abc", "1e9", ""];

const UNITS: &[&str] = &["m", "km", "km", "ft", "mi", "KM", "x"];

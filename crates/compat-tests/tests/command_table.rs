//! COMMAND INFO, row by row and field by field, against Redis's: clients route, and libraries
//! decide what is safe to retry, by these rows.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use compat_tests::differential::differences::COMMAND_ROW_DIFFERENCES;
use compat_tests::process::{Options, Server};
use compat_tests::resp::{Client, Value};

/// The commands that must be there. Those that Redis 7.0.15 does not know are checked for presence.
const COMMANDS: &str = "append decr decrby get getdel getex getrange getset incr incrby incrbyfloat \
    lcs mget mset msetnx psetex set setex setnx setrange strlen substr \
    setbit getbit bitcount bitpos bitop bitfield bitfield_ro \
    del unlink exists type ttl pttl expiretime pexpiretime expire pexpire expireat pexpireat persist \
    rename renamenx copy move swapdb keys scan randomkey touch object object|encoding object|refcount object|freq \
    object|idletime object|help dump restore restore-asking migrate sort sort_ro delex digest msetex \
    multi exec discard watch unwatch \
    eval eval_ro evalsha evalsha_ro fcall fcall_ro script script|debug script|exists script|flush script|help \
    script|kill script|load function function|delete function|dump function|flush function|help function|kill \
    function|list function|load function|restore function|stats \
    hdel hexists hexpire hexpireat hexpiretime hget hgetall hgetdel hgetex hincrby hincrbyfloat hkeys hlen \
    hmget hmset hpersist hpexpire hpexpireat hpexpiretime hpttl hrandfield hscan hset hsetex hsetnx hstrlen \
    httl hvals \
    sadd scard sdiff sdiffstore sinter sintercard sinterstore sismember smembers smismember smove spop \
    srandmember srem sscan sunion sunionstore \
    pfadd pfcount pfdebug pfmerge pfselftest \
    xack xackdel xadd xautoclaim xclaim xdel xdelex xgroup xgroup|create xgroup|createconsumer \
    xgroup|delconsumer xgroup|destroy xgroup|help xgroup|setid xinfo xinfo|consumers xinfo|groups xinfo|help \
    xinfo|stream xlen xpending xrange xread xreadgroup xrevrange xsetid xtrim \
    blmove blmovem blmpop blpop brpop brpoplpush \
    lindex linsert llen lmove lmovem lmpop lpop lpos lpush lpushx lrange lrem lset ltrim rpop rpoplpush rpush rpushx \
    bzmpop bzpopmax bzpopmin \
    zadd zcard zcount zdiff zdiffstore zincrby zinter zintercard zinterstore zlexcount zmpop zmscore zpopmax \
    zpopmin zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebylex zremrangebyrank \
    zremrangebyscore zrevrange zrevrangebylex zrevrangebyscore zrevrank zscan zscore zunion zunionstore \
    geoadd geodist geohash geopos georadius georadiusbymember georadiusbymember_ro georadius_ro geosearch \
    geosearchstore \
    hello auth select ping echo quit reset client client|id client|info client|list client|setname \
    client|getname client|setinfo client|kill client|reply client|pause client|unpause client|unblock client|getredir client|no-evict \
    client|no-touch client|capa client|maint_notifications client|help client|tracking client|caching client|trackinginfo monitor \
    subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe publish spublish pubsub \
    pubsub|channels pubsub|numsub pubsub|numpat pubsub|shardchannels pubsub|shardnumsub pubsub|help \
    info command command|count command|docs command|info command|list command|getkeys \
    command|getkeysandflags command|help config config|get config|set config|resetstat config|rewrite \
    config|help dbsize flushdb flushall time slowlog slowlog|get slowlog|len slowlog|reset slowlog|help \
    memory memory|doctor memory|help memory|stats memory|usage \
    latency latency|latest latency|history latency|reset latency|histogram latency|graph latency|doctor \
    latency|help wait waitaof shutdown debug lolwut memory|malloc-stats memory|purge \
    acl acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|load acl|log acl|save \
    acl|setuser acl|users acl|whoami \
    asking readonly readwrite cluster cluster|addslots cluster|addslotsrange cluster|bumpepoch \
    cluster|count-failure-reports cluster|countkeysinslot cluster|delslots cluster|delslotsrange \
    cluster|failover cluster|flushslots cluster|forget cluster|getkeysinslot cluster|help cluster|info \
    cluster|keyslot cluster|links cluster|meet cluster|myid cluster|myshardid cluster|nodes cluster|replicas \
    cluster|replicate cluster|reset cluster|saveconfig cluster|set-config-epoch cluster|setslot \
    cluster|shards cluster|slaves cluster|slots \
    bgrewriteaof bgsave failover lastsave module module|help module|list module|load module|loadex \
    module|unload psync replconf replicaof role save slaveof sync";

const FIELDS: &[&str] =
    &["name", "arity", "flags", "first", "last", "step", "acl", "tips", "keys", "subcommands"];

/// A row with what has no order put in order, and subcommands reduced to the names asked for (their
/// own rows are compared by themselves).
fn rows(client: &mut Client) -> Result<Vec<Option<Vec<Value>>>> {
    let names: Vec<&str> = COMMANDS.split_whitespace().collect();
    let mut line = vec!["COMMAND", "INFO"];
    line.extend(&names);
    let reply = client.call(&line)?;
    let rows = reply.items().context("COMMAND INFO is an array")?;
    Ok(rows
        .iter()
        .map(|row| {
            let fields = row.items()?;
            Some(fields.iter().enumerate().map(|(at, field)| ordered(at, field, &names)).collect())
        })
        .collect())
}

fn ordered(at: usize, field: &Value, names: &[&str]) -> Value {
    let Some(items) = field.items() else { return field.clone() };
    let mut items: Vec<Value> = match FIELDS.get(at) {
        Some(&"subcommands") => items
            .iter()
            .filter_map(|row| row.items()?.first())
            .filter(|name| names.contains(&name.to_text().as_str()))
            .cloned()
            .collect(),
        Some(&"keys") => items.iter().map(key_spec).collect(),
        _ => items.to_vec(),
    };
    items.sort();
    Value::Array(items)
}

/// A key specification without its note, a sentence for people; flags in order.
fn key_spec(spec: &Value) -> Value {
    let Some(pairs) = spec.pairs() else { return spec.clone() };
    let part = |(name, value): (&Value, &Value)| {
        let mut value = value.clone();
        if let Value::Set(flags) | Value::Array(flags) = &mut value
            && name.to_text() == "flags"
        {
            flags.sort();
        }
        (name.to_text() != "notes").then(|| (name.clone(), value))
    };
    Value::Map(pairs.into_iter().filter_map(part).collect())
}

#[test]
fn rows_are_redis_rows() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let known_to_redis = !Options::evenkeel().is_redis();
    for protocol in ["HELLO 2", "HELLO 3"] {
        let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
        theirs.line(protocol).unwrap();
        ours.line(protocol).unwrap();
        let (theirs, ours) = (rows(&mut theirs).unwrap(), rows(&mut ours).unwrap());
        let names: Vec<&str> = COMMANDS.split_whitespace().collect();
        assert_eq!((names.len(), names.len()), (theirs.len(), ours.len()));
        let mut found = BTreeSet::new();
        for ((name, theirs), ours) in names.iter().zip(&theirs).zip(&ours) {
            let Some(ours) = ours else {
                if known_to_redis {
                    found.insert(format!("{name}: missing"));
                }
                continue;
            };
            let Some(theirs) = theirs else { continue };
            for (at, field) in FIELDS.iter().enumerate() {
                let listed = COMMAND_ROW_DIFFERENCES
                    .iter()
                    .any(|(command, of, _)| command == name && of == field);
                if theirs.get(at) != ours.get(at) && !listed {
                    let (theirs, ours) = (theirs.get(at), ours.get(at));
                    found
                        .insert(format!("{name} {field}:\n  Redis  {theirs:?}\n  target {ours:?}"));
                }
            }
        }
        let text = found.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(found.is_empty(), "after {protocol}, {} differences:\n{text}", found.len());
    }
}

#[test]
fn docs_have_redis_fields() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let docs = |server: &Server, name: &str| -> Vec<String> {
        let reply = server.client().unwrap().call(&["COMMAND", "DOCS", name]).unwrap();
        let pairs = reply.pairs().expect("pairs of command and its documentation");
        assert_eq!(pairs.len(), 1, "{name}: {reply:?}");
        assert_eq!(pairs[0].0.to_text(), name);
        let fields = pairs[0].1.pairs().expect("pairs of field and text");
        fields.iter().map(|(field, _)| field.to_text()).collect()
    };
    for name in ["get", "set", "del", "ping", "config", "scan"] {
        let ours = docs(&target, name);
        for field in docs(&redis, name) {
            // redis-cli needs these for its hints; histories and arguments are for reading.
            if ["summary", "since", "group", "complexity"].contains(&field.as_str()) {
                assert!(ours.contains(&field), "COMMAND DOCS {name} lacks {field}: {ours:?}");
            }
        }
    }
}

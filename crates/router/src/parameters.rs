//! The parameters of CONFIG: one row each, by their redis.conf names.
//!
//! `real` rows change what the router does. `accepted` rows exist because clients and tools read or
//! write them; they are validated and kept, and have no effect: what they tune in Redis does not
//! exist here (forks, AOF rewriting, ziplists, eviction). `fixed` rows tell what is so and cannot be
//! changed.

/// What a parameter's value looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// `yes` or `no`.
    Bool,
    /// An integer in a range.
    Integer(i64, i64),
    /// Bytes, with a unit if wanted (`64mb`), in a range.
    Memory(i64, i64),
    /// The same, or a percentage (`5%`).
    MemoryOrPercent(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
    /// Classes with hard limit, soft limit and soft seconds.
    OutputLimits,
    /// `seconds changes` pairs.
    Save,
    /// Letters of keyspace events.
    Events,
    /// Numbers from 0 to 100.
    Percentiles,
}

/// How a parameter may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// It changes what the router does.
    Real,
    /// It is real, but read only when the process starts.
    AtStart,
    /// It is kept and has no effect.
    Accepted,
    /// The same, and it is told only to who names it in full.
    Hidden,
    /// It states a fact and cannot be set.
    Fixed,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) usage: Use,
}

const fn real(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter { name, kind, default, usage: Use::Real }
}

const fn at_start(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter { name, kind, default, usage: Use::AtStart }
}

const fn accepted(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter { name, kind, default, usage: Use::Accepted }
}

const fn fixed(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter { name, kind, default, usage: Use::Fixed }
}

use Kind::{
    Bool, Events, Integer, Memory, MemoryOrPercent, OneOf, OutputLimits, Percentiles, Save, Text,
};

const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning"];
const MAX: i64 = i64::MAX;
const MAX_U32: i64 = u32::MAX as i64;
const MAX_I32: i64 = i32::MAX as i64;

/// Largest string a client may send or make, in bytes; CONFIG may only lower it, since it bounds
/// what one client can do to the others.
pub(crate) const BULK_BYTES_MAX: i64 = 64 << 20;

#[rustfmt::skip]
pub(crate) static PARAMETERS: &[Parameter] = &[
    // Connections.
    at_start("bind", Text, "127.0.0.1 -::1"),
    at_start("port", Integer(0, 65535), "6379"),
    at_start("tcp-backlog", Integer(0, MAX_I32), "511"),
    at_start("memory", Memory(1 << 20, i64::MAX), "1073741824"),
    at_start("databases", Integer(1, 1 << 20), "16"),
    at_start("io-threads", Integer(1, 128), "1"),
    real("maxclients", Integer(1, MAX_U32), "20000"),
    real("timeout", Integer(0, MAX_I32), "0"),
    real("tcp-keepalive", Integer(0, MAX_I32), "300"),
    real("requirepass", Text, ""),
    real("protected-mode", Bool, "yes"),
    real("acllog-max-len", Integer(0, MAX), "128"),
    real("acl-pubsub-default", OneOf(&["allchannels", "resetchannels"]), "resetchannels"),
    at_start("aclfile", Text, ""),
    at_start("enable-debug-command", OneOf(&["no", "yes", "local"]), "no"),
    // As Redis Cluster; every router serves every key, so clients are told that it has all slots.
    at_start("cluster-enabled", Bool, "no"),
    real("cluster-announce-ip", Text, ""),
    real("cluster-announce-port", Integer(0, 65535), "0"),
    real("proto-max-bulk-len", Memory(1 << 20, BULK_BYTES_MAX), "67108864"),
    real("client-query-buffer-limit", Memory(1 << 20, MAX), "134217728"),
    real("client-output-buffer-limit", OutputLimits,
         "normal 1073741824 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
    // Of all connections together; a share is one of `memory`, 0 is no limit.
    real("maxmemory-clients", MemoryOrPercent(0, MAX), "25%"),
    // What connections are told unasked.
    real("notify-keyspace-events", Events, ""),
    real("tracking-table-max-keys", Integer(0, MAX), "1000000"),
    // What is watched.
    real("slowlog-log-slower-than", Integer(-1, MAX), "10000"),
    real("slowlog-max-len", Integer(0, MAX), "128"),
    real("latency-monitor-threshold", Integer(0, MAX), "0"),
    real("latency-tracking", Bool, "yes"),
    real("latency-tracking-info-percentiles", Percentiles, "50 99 99.9"),
    real("loglevel", OneOf(LOG_LEVELS), "notice"),
    // Scripts. The first two are one parameter by two names; the memory is that of one Lua state.
    real("busy-reply-threshold", Integer(0, MAX), "5000"),
    real("lua-time-limit", Integer(0, MAX), "5000"),
    real("lua-memory-limit", Memory(1 << 20, MAX), "268435456"),
    // How values are kept.
    real("hll-sparse-max-bytes", Memory(0, MAX), "3000"),
    real("stream-node-max-entries", Integer(0, MAX), "100"),
    // Where things are.
    at_start("dir", Text, "."),
    at_start("logfile", Text, ""),
    at_start("pidfile", Text, ""),
    at_start("daemonize", Bool, "no"),
    at_start("unixsocket", Text, ""),
    at_start("tls-port", Integer(0, 65535), "0"),
    // Facts: every write is on a quorum of disks before it is answered, and nothing is evicted.
    fixed("appendonly", Bool, "yes"),
    fixed("appendfsync", OneOf(&["always"]), "always"),
    fixed("maxmemory-policy", OneOf(&["noeviction"]), "noeviction"),
    fixed("replica-read-only", Bool, "yes"),
    fixed("slave-read-only", Bool, "yes"),
    fixed("replicaof", Text, ""),
    fixed("slaveof", Text, ""),
    fixed("enable-module-command", OneOf(&["no"]), "no"),
    fixed("enable-protected-configs", OneOf(&["no"]), "no"),
    // Kept, without effect.
    // The one router there is has all slots: whatever this says, it answers itself.
    accepted("cluster-redirects", Bool, "no"),
    accepted("masterauth", Text, ""),
    accepted("masteruser", Text, ""),
    accepted("save", Save, ""),
    accepted("maxmemory", Memory(0, MAX), "0"),
    accepted("maxmemory-samples", Integer(1, MAX_I32), "5"),
    accepted("hz", Integer(1, 500), "10"),
    accepted("dynamic-hz", Bool, "yes"),
    accepted("activerehashing", Bool, "yes"),
    accepted("activedefrag", Bool, "no"),
    accepted("active-expire-effort", Integer(1, 10), "1"),
    accepted("auto-aof-rewrite-percentage", Integer(0, MAX_I32), "100"),
    accepted("auto-aof-rewrite-min-size", Memory(0, MAX), "67108864"),
    accepted("no-appendfsync-on-rewrite", Bool, "no"),
    accepted("aof-use-rdb-preamble", Bool, "yes"),
    accepted("aof-load-truncated", Bool, "yes"),
    accepted("appendfilename", Text, "appendonly.aof"),
    accepted("appenddirname", Text, "appendonlydir"),
    accepted("dbfilename", Text, "dump.rdb"),
    accepted("rdbcompression", Bool, "yes"),
    accepted("rdbchecksum", Bool, "yes"),
    accepted("stop-writes-on-bgsave-error", Bool, "yes"),
    accepted("sanitize-dump-payload", OneOf(&["no", "yes", "clients"]), "no"),
    accepted("lazyfree-lazy-eviction", Bool, "no"),
    accepted("lazyfree-lazy-expire", Bool, "no"),
    accepted("lazyfree-lazy-server-del", Bool, "no"),
    accepted("lazyfree-lazy-user-del", Bool, "no"),
    accepted("lazyfree-lazy-user-flush", Bool, "no"),
    accepted("lfu-log-factor", Integer(0, MAX_I32), "10"),
    accepted("lfu-decay-time", Integer(0, MAX_I32), "1"),
    accepted("hash-max-listpack-entries", Integer(0, MAX), "512"),
    accepted("hash-max-ziplist-entries", Integer(0, MAX), "512"),
    accepted("hash-max-listpack-value", Integer(0, MAX), "64"),
    accepted("hash-max-ziplist-value", Integer(0, MAX), "64"),
    accepted("list-max-listpack-size", Integer(-MAX_I32, MAX_I32), "-2"),
    accepted("list-max-ziplist-size", Integer(-MAX_I32, MAX_I32), "-2"),
    accepted("list-compress-depth", Integer(0, MAX_I32), "0"),
    accepted("set-max-intset-entries", Integer(0, MAX), "512"),
    accepted("set-max-listpack-entries", Integer(0, MAX), "128"),
    accepted("set-max-listpack-value", Integer(0, MAX), "64"),
    accepted("zset-max-listpack-entries", Integer(0, MAX), "128"),
    accepted("zset-max-ziplist-entries", Integer(0, MAX), "128"),
    accepted("zset-max-listpack-value", Integer(0, MAX), "64"),
    accepted("zset-max-ziplist-value", Integer(0, MAX), "64"),
    accepted("stream-node-max-bytes", Memory(0, MAX), "4096"),
    accepted("min-replicas-to-write", Integer(0, MAX_I32), "0"),
    accepted("min-replicas-max-lag", Integer(0, MAX_I32), "10"),
    accepted("repl-backlog-size", Memory(1, MAX), "1048576"),
    accepted("repl-timeout", Integer(1, MAX_I32), "60"),
    accepted("crash-log-enabled", Bool, "yes"),
    accepted("shutdown-timeout", Integer(0, MAX_I32), "10"),
    Parameter { usage: Use::Hidden, ..accepted("key-load-delay", Integer(-MAX_I32, MAX_I32), "0") },
    accepted("slave-lazy-flush", Bool, "no"),
    accepted("replica-lazy-flush", Bool, "no"),
];

/// Parameters that are one by two names.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("busy-reply-threshold", "lua-time-limit"),
    ("hash-max-listpack-entries", "hash-max-ziplist-entries"),
    ("hash-max-listpack-value", "hash-max-ziplist-value"),
    ("list-max-listpack-size", "list-max-ziplist-size"),
    ("zset-max-listpack-entries", "zset-max-ziplist-entries"),
    ("zset-max-listpack-value", "zset-max-ziplist-value"),
    ("replica-lazy-flush", "slave-lazy-flush"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_valid() {
        for (at, row) in PARAMETERS.iter().enumerate() {
            assert!(PARAMETERS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
            let canonical = crate::config::canonical(row.kind, row.default);
            assert_eq!(canonical.as_deref(), Ok(row.default), "{}", row.name);
        }
    }
}

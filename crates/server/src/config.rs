//! The command line: redis.conf's names for what Redis users know.

use std::path::PathBuf;
use std::time::Duration;

use storage::DedupLimits;

use crate::memory::{self, MEMORY_BYTES_MIN};

/// Storage nodes of one process at most: MemDS nodes and the router have numbers above.
const NODES_MAX: u32 = 99;

/// Tables that SELECT may know: each is a partition of its own on every node.
const DATABASES_MAX: u32 = 16_384;

/// Deleted collections of which a node keeps a note in memory, at most: it takes some 40 bytes each.
const DEAD_MAX: u64 = 4_000_000;

/// Threads that serve connections, at most: Redis's limit.
const IO_THREADS_MAX: u64 = 128;

/// Every option: name, what its value is, and what it means. `--help` prints this table.
const OPTIONS: &[(&str, &str, &str)] = &[
    ("port", "NUMBER", "port for clients (default 6379)"),
    ("bind", "ADDRESS", "address for clients; may be given several times (default 127.0.0.1)"),
    ("dir", "PATH", "data folder (default ./data)"),
    ("replicas", "1|3", "copies of every partition, one per zone (default 3)"),
    ("nodes", "COUNT", "storage nodes, in zones a, b and c in turn (default: one for each copy)"),
    (
        "heal-after-ms",
        "NUMBER",
        "silence of a node after which a spare one stands in (default 1000)",
    ),
    (
        "rebuild-after-ms",
        "NUMBER",
        "how long it stands in before it gets a copy of the rows (default 5000)",
    ),
    ("log-bytes", "SIZE", "log of a partition kept for a copy that is away (default 512mb)"),
    (
        "dedup-bytes",
        "SIZE",
        "what a partition remembers of answers for requests made again (default 1mb)",
    ),
    ("dedup-age-ms", "NUMBER", "how long it remembers an answer (default 60000)"),
    ("snapshot-rate", "SIZE", "bytes a second at which a node fetches rows (default 64mb)"),
    (
        "catch-up-rate",
        "SIZE",
        "bytes a second of its log sent to a copy that lacks older entries (default 16mb)",
    ),
    (
        "unsynced-bytes",
        "SIZE",
        "what may wait for a node's disk before it takes no more from others (default 128mb)",
    ),
    (
        "held-bytes",
        "SIZE",
        "what a copy that lacks older entries keeps of newer ones in memory (default 256mb)",
    ),
    (
        "catch-up-ahead-bytes",
        "SIZE",
        "what a copy fetches of the log ahead of its disk (default 16mb)",
    ),
    (
        "dead-generations",
        "NUMBER",
        "deleted collections on a node's disk before its tables are rewritten (default 200000)",
    ),
    ("databases", "NUMBER", "tables that SELECT knows (default 16)"),
    ("maxclients", "NUMBER", "connections served at once (default 20000)"),
    ("io-threads", "NUMBER", "threads that serve connections (default: half the cores)"),
    (
        "protected-mode",
        "yes|no",
        "without a password take in connections from this host alone (default yes)",
    ),
    ("requirepass", "PASSWORD", "password of the default user (default: none)"),
    ("memory", "SIZE", "memory to use, like 512mb or 4gb (default: a quarter of the machine)"),
    ("loglevel", "LEVEL", "error, warn, info, debug, trace, or Redis's names (default info)"),
    ("aclfile", "PATH", "file of users and their rules, for ACL LOAD and SAVE (default: none)"),
    (
        "cluster-enabled",
        "yes|no",
        "be a cluster of one node to clients of Redis Cluster (default no)",
    ),
    ("cluster-announce-ip", "ADDRESS", "address that CLUSTER tells (default: where a client came)"),
    ("cluster-announce-port", "NUMBER", "port that CLUSTER tells (default: where a client came)"),
    ("enable-debug-command", "yes|no|local", "allow DEBUG (default no)"),
    ("enable-faults", "", "allow ADMIN FAULT"),
];

/// How the server runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) port: u16,
    pub(crate) bind: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) replicas: u32,
    /// Storage nodes; at least as many as replicas.
    pub(crate) nodes: u32,
    pub(crate) heal_after: Duration,
    pub(crate) rebuild_after: Duration,
    pub(crate) log_bytes: u64,
    /// Bytes a second.
    pub(crate) snapshot_rate: u64,
    pub(crate) catch_up_rate: u64,
    pub(crate) unsynced_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) catch_up_ahead_bytes: u64,
    pub(crate) dead_generations: u64,
    pub(crate) dedup: DedupLimits,
    pub(crate) databases: u32,
    pub(crate) maxclients: usize,
    /// Threads that serve connections: see [`io_threads`].
    pub(crate) io_threads: usize,
    pub(crate) requirepass: Option<String>,
    /// In bytes; see [`crate::memory`].
    pub(crate) memory: u64,
    pub(crate) loglevel: String,
    pub(crate) enable_faults: bool,
    /// Options that are the router's parameters of the same name and nothing else.
    pub(crate) others: Vec<(&'static str, String)>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            port: 6379,
            bind: Vec::new(),
            dir: PathBuf::from("data"),
            replicas: 3,
            nodes: 0,
            heal_after: Duration::from_secs(1),
            rebuild_after: Duration::from_secs(5),
            log_bytes: 512 << 20,
            snapshot_rate: 64 << 20,
            catch_up_rate: 16 << 20,
            unsynced_bytes: 128 << 20,
            held_bytes: 256 << 20,
            catch_up_ahead_bytes: 16 << 20,
            dead_generations: 200_000,
            dedup: DedupLimits::default(),
            databases: 16,
            maxclients: 20_000,
            io_threads: io_threads(),
            requirepass: None,
            memory: memory::default_bytes(),
            loglevel: "info".to_owned(),
            enable_faults: false,
            others: Vec::new(),
        }
    }
}

impl Config {
    /// The router's parameters by their redis.conf names.
    pub(crate) fn parameters(&self) -> Vec<(String, String)> {
        let known = [
            ("port", self.port.to_string()),
            ("bind", self.bind.join(" ")),
            ("dir", absolute(&self.dir)),
            ("databases", self.databases.to_string()),
            ("memory", self.memory.to_string()),
            ("maxclients", self.maxclients.to_string()),
            ("io-threads", self.io_threads.to_string()),
            ("requirepass", self.requirepass.clone().unwrap_or_default()),
            ("loglevel", redis_log_level(&self.loglevel).to_owned()),
        ];
        let all = known.into_iter().chain(self.others.iter().cloned());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The level as CONFIG GET tells it, in the nearest of Redis's words.
fn redis_log_level(level: &str) -> &str {
    match level {
        "error" | "warn" | "warning" => "warning",
        "debug" | "trace" => "debug",
        "verbose" => "verbose",
        _ => "notice",
    }
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Invocation {
    Run(Box<Config>),
    Help,
    Version,
}

/// Reads the command line, the program's name left out.
///
/// *Errors*: a text for the user: unknown option, missing or bad value.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Invocation, String> {
    let mut config = Config::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let name = match arg.as_str() {
            "--help" | "-h" => return Ok(Invocation::Help),
            "--version" | "-v" => return Ok(Invocation::Version),
            other => other.strip_prefix("--").ok_or(format!("unexpected argument '{other}'"))?,
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let option = OPTIONS.iter().find(|(known, ..)| *known == name);
        let (name, value_name, _) = option.ok_or(format!("unknown option '--{name}'"))?;
        if value_name.is_empty() {
            config.enable_faults = true;
            continue;
        }
        let value = inline.or_else(|| args.next());
        let value = value.ok_or(format!("--{name} wants a value: {value_name}"))?;
        set(&mut config, name, value)?;
    }
    if config.bind.is_empty() {
        config.bind.push("127.0.0.1".to_owned());
    }
    if config.nodes == 0 {
        config.nodes = config.replicas;
    }
    if config.nodes < config.replicas {
        let (nodes, replicas) = (config.nodes, config.replicas);
        return Err(format!("--nodes {nodes} cannot hold --replicas {replicas}"));
    }
    Ok(Invocation::Run(Box::new(config)))
}

fn set(config: &mut Config, name: &'static str, value: String) -> Result<(), String> {
    match name {
        "port" => config.port = number(name, &value, 0, 65_535)? as u16,
        "bind" => config.bind.extend(value.split_whitespace().map(str::to_owned)),
        "dir" => config.dir = PathBuf::from(value),
        "replicas" => match number(name, &value, 1, 3)? {
            2 => return Err("--replicas takes 1 or 3: two copies have no better quorum".into()),
            replicas => config.replicas = replicas as u32,
        },
        "nodes" => config.nodes = number(name, &value, 1, u64::from(NODES_MAX))? as u32,
        "heal-after-ms" => config.heal_after = millis(name, &value)?,
        "rebuild-after-ms" => config.rebuild_after = millis(name, &value)?,
        "log-bytes" => config.log_bytes = bytes(name, &value)?,
        "snapshot-rate" => config.snapshot_rate = bytes(name, &value)?,
        "catch-up-rate" => config.catch_up_rate = bytes(name, &value)?,
        "unsynced-bytes" => config.unsynced_bytes = bytes(name, &value)?,
        "held-bytes" => config.held_bytes = bytes(name, &value)?,
        "catch-up-ahead-bytes" => config.catch_up_ahead_bytes = bytes(name, &value)?,
        "dead-generations" => config.dead_generations = number(name, &value, 1, DEAD_MAX)?,
        "dedup-bytes" => config.dedup.bytes = dedup_bytes(name, &value)?,
        "dedup-age-ms" => config.dedup.age = millis(name, &value)?,
        "databases" => config.databases = number(name, &value, 1, u64::from(DATABASES_MAX))? as u32,
        "maxclients" => config.maxclients = number(name, &value, 1, 1_000_000)? as usize,
        "io-threads" => config.io_threads = number(name, &value, 1, IO_THREADS_MAX)? as usize,
        "requirepass" => config.requirepass = (!value.is_empty()).then_some(value),
        "memory" => {
            let bytes = memory::parse_bytes(&value).filter(|bytes| *bytes >= MEMORY_BYTES_MIN);
            config.memory = bytes.ok_or(format!(
                "--memory takes a size of at least {}mb, like 512mb or 4gb, not '{value}'",
                MEMORY_BYTES_MIN >> 20
            ))?;
        }
        "loglevel" => match value.as_str() {
            "error" | "warn" | "info" | "debug" | "trace" => config.loglevel = value,
            "verbose" | "notice" | "warning" => config.loglevel = value,
            _ => return Err(format!("--loglevel does not know '{value}'")),
        },
        // Of the command line, so seen from where it was given.
        "aclfile" => config.others.push((name, absolute(std::path::Path::new(&value)))),
        "cluster-enabled" | "protected-mode" => {
            config.others.push((name, one_of(name, &value, &["yes", "no"])?))
        }
        "enable-debug-command" => {
            config.others.push((name, one_of(name, &value, &["yes", "no", "local"])?));
        }
        "cluster-announce-ip" => config.others.push((name, value)),
        "cluster-announce-port" => {
            config.others.push((name, number(name, &value, 0, 65_535)?.to_string()));
        }
        _ => unreachable!("every option of the table has its arm"),
    }
    Ok(())
}

/// Half the cores, for the other half are wanted by logs, flushes, compaction and the system's work for the
/// network; more threads for connections get into each other's way, and cost more for each command.
fn io_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, IO_THREADS_MAX as usize)
}

/// A time of at least a millisecond and at most a day.
fn millis(name: &str, value: &str) -> Result<Duration, String> {
    number(name, value, 1, 86_400_000).map(Duration::from_millis)
}

/// A size of at least a megabyte.
fn bytes(name: &str, value: &str) -> Result<u64, String> {
    let bytes = memory::parse_bytes(value).filter(|bytes| *bytes >= 1 << 20);
    bytes.ok_or(format!("--{name} takes a size of at least 1mb, like 64mb, not '{value}'"))
}

/// A size of at least a kilobyte and at most 16 megabytes: it is written with each flush.
fn dedup_bytes(name: &str, value: &str) -> Result<usize, String> {
    let bytes = memory::parse_bytes(value).filter(|bytes| (1 << 10..=16 << 20).contains(bytes));
    let bytes = bytes.ok_or(format!("--{name} takes a size from 1kb to 16mb, not '{value}'"))?;
    Ok(bytes as usize)
}

fn one_of(name: &str, value: &str, words: &[&str]) -> Result<String, String> {
    let known = words.iter().find(|word| word.eq_ignore_ascii_case(value));
    let wrong = || format!("--{name} takes {}, not '{value}'", words.join(" or "));
    known.map(|word| (*word).to_owned()).ok_or_else(wrong)
}

fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or(format!("--{name} takes a number from {min} to {max}, not '{value}'"))
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "evenkeel: a Redis-protocol store, durable on a quorum of three zones\n\n\
         usage: evenkeel [options]\n       evenkeel import --help\n\n",
    );
    for (name, value, meaning) in OPTIONS {
        text.push_str(&format!("  {:<26} {meaning}\n", format!("--{name} {value}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Invocation, String> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn every_option_is_read() {
        for (name, value, _) in OPTIONS {
            let args: &[&str] = match *value {
                "" => &[],
                "LEVEL" => &["debug"],
                "SIZE" if *name == "dedup-bytes" => &["1mb"],
                "SIZE" => &["1gb"],
                "COUNT" => &["5"],
                "yes|no" | "yes|no|local" => &["yes"],
                _ => &["1"],
            };
            let name = format!("--{name}");
            let args: Vec<_> = std::iter::once(name.as_str()).chain(args.iter().copied()).collect();
            assert!(run(&args).is_ok(), "{args:?}: {:?}", run(&args));
        }
    }

    #[test]
    fn bad_input_is_told() {
        for (args, text) in [
            (&["--port", "70000"][..], "from 0 to 65535"),
            (&["--port"], "wants a value"),
            (&["--prot", "1"], "unknown option '--prot'"),
            (&["serve"], "unexpected argument 'serve'"),
            (&["--replicas", "2"], "takes 1 or 3"),
            (&["--loglevel", "loud"], "does not know 'loud'"),
            (&["--memory", "1mb"], "at least 64mb"),
            (&["--cluster-enabled", "maybe"], "takes yes or no, not 'maybe'"),
            (&["--memory", "much"], "not 'much'"),
            (&["--nodes", "2"], "cannot hold --replicas 3"),
            (&["--log-bytes", "1kb"], "at least 1mb"),
            (&["--heal-after-ms", "0"], "from 1 to"),
            (&["--io-threads", "0"], "from 1 to 128"),
            (&["--io-threads", "129"], "from 1 to 128"),
            (&["--held-bytes", "100"], "at least 1mb"),
            (&["--dead-generations", "0"], "from 1 to 4000000"),
            (&["--dedup-bytes", "1gb"], "from 1kb to 16mb"),
        ] {
            let error = run(args).expect_err("refused");
            assert!(error.contains(text), "{args:?}: {error}");
        }
    }

    #[test]
    fn log_levels_have_our_names_and_those_of_redis() {
        for (word, told) in [("warn", "warning"), ("warning", "warning"), ("info", "notice")] {
            let Ok(Invocation::Run(config)) = run(&["--loglevel", word]) else { panic!("{word}") };
            assert!(config.parameters().contains(&("loglevel".to_owned(), told.to_owned())));
        }
    }

    #[test]
    fn values_may_follow_an_equals_sign() {
        let Ok(Invocation::Run(config)) = run(&["--port=7000", "--enable-faults"]) else {
            panic!("a good command line")
        };
        assert_eq!((config.port, config.enable_faults), (7000, true));
        assert_eq!(config.bind, ["127.0.0.1"]);
    }
}

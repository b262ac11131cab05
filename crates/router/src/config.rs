//! CONFIG: the values of the parameters, and those of them the router reads as it runs.
//!
//! Values are kept as the text CONFIG GET answers. What the hot path needs is also kept as an atomic
//! number in [`Live`], changed under the same lock as the text.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use commands::{CommandError, Echo, glob};
use parking_lot::RwLock;
use wire::service::{ScriptLimits, ValueShapes};

use crate::parameters::{ALIASES, Kind, PARAMETERS, Parameter, Use};

/// The parameters' values.
#[derive(Debug)]
pub(crate) struct Config {
    /// In the order of [`PARAMETERS`].
    values: RwLock<Vec<String>>,
    pub(crate) live: Arc<Live>,
}

/// What is read on every command or connection, without a lock.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Set by DEBUG alone, and by no parameter.
    pub(crate) trusts_payloads: AtomicBool,
    pub(crate) databases: AtomicU64,
    pub(crate) maxclients: AtomicU64,
    pub(crate) timeout_s: AtomicU64,
    pub(crate) tcp_keepalive_s: AtomicU64,
    pub(crate) proto_max_bulk_len: AtomicU64,
    pub(crate) query_buffer_bytes: AtomicU64,
    /// By [`OutputClass`].
    output: [LiveOutputLimits; 2],
    /// Microseconds; negative: no slow log.
    pub(crate) slowlog_slower_than_us: AtomicI64,
    pub(crate) slowlog_max_len: AtomicU64,
    /// Milliseconds; 0: off.
    pub(crate) latency_threshold_ms: AtomicU64,
    pub(crate) latency_tracking: AtomicBool,
    /// Entries that ACL LOG keeps.
    pub(crate) acllog_max_len: AtomicU64,
    /// Whether new users may use all channels.
    pub(crate) acl_all_channels: AtomicBool,
    pub(crate) cluster_enabled: AtomicBool,
    /// Whether only this host is let in while the default user needs no password.
    pub(crate) protected_mode: AtomicBool,
}

/// Connections that output limits are told apart for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OutputClass {
    /// Those that subscribe to nothing.
    Normal,
    /// Those that subscribe.
    PubSub,
}

/// What a connection may leave unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutputLimits {
    /// Bytes at which it is closed; 0: never.
    pub(crate) hard_bytes: usize,
    /// Bytes that may stay for `soft_s` only; 0: for ever.
    pub(crate) soft_bytes: usize,
    pub(crate) soft_s: u64,
}

#[derive(Debug, Default)]
struct LiveOutputLimits {
    hard_bytes: AtomicU64,
    soft_bytes: AtomicU64,
    soft_s: AtomicU64,
}

/// Why a value was refused, as CONFIG SET words it.
pub(crate) type Refusal = String;

impl Config {
    /// The defaults, changed by `settings` (redis.conf names and values).
    ///
    /// *Errors*: a text that names the parameter that does not exist or has an invalid value.
    pub(crate) fn new(settings: &[(String, String)]) -> Result<Config, String> {
        let mut values: Vec<String> = PARAMETERS.iter().map(|p| p.default.to_owned()).collect();
        for (name, value) in settings {
            let at = find(name.as_bytes()).ok_or_else(|| format!("unknown parameter '{name}'"))?;
            let row = &PARAMETERS[at];
            let value = merged(row, &values[at], value)
                .map_err(|why| format!("parameter '{name}': {why}"))?;
            if row.usage == Use::Fixed && value != row.default {
                return Err(format!("parameter '{name}' cannot be changed"));
            }
            set_value(&mut values, at, value);
        }
        let config = Config { values: RwLock::new(values), live: Arc::default() };
        config.live.load(&config.values.read());
        Ok(config)
    }

    /// The value of a parameter of the table.
    pub(crate) fn get(&self, name: &str) -> String {
        let at = find(name.as_bytes()).expect("named in the table");
        self.values.read()[at].clone()
    }

    /// What all connections together may hold, in bytes; `None` is without end.
    pub(crate) fn clients_bytes_max(&self) -> Option<u64> {
        let most = self.get("maxmemory-clients");
        let bytes = match most.strip_suffix('%') {
            None => most.parse().unwrap_or(0),
            Some(share) => {
                let memory: u64 = self.get("memory").parse().unwrap_or(0);
                memory / 100 * share.parse::<u64>().unwrap_or(0)
            }
        };
        (bytes > 0).then_some(bytes)
    }

    /// What scripts may use.
    pub(crate) fn script_limits(&self) -> ScriptLimits {
        let number = |name| self.get(name).parse().expect("validated when it was set");
        ScriptLimits {
            busy_reply_ms: number("busy-reply-threshold"),
            memory_bytes_max: number("lua-memory-limit"),
            tables: u32::try_from(number("databases")).unwrap_or(u32::MAX),
        }
    }

    /// How values are kept.
    pub(crate) fn value_shapes(&self) -> ValueShapes {
        let number = |name| self.get(name).parse().expect("validated when it was set");
        ValueShapes {
            stream_node_entries: number("stream-node-max-entries"),
            sparse_bytes_max: number("hll-sparse-max-bytes"),
            checks_payloads: !self.live.trusts_payloads.load(Relaxed),
        }
    }

    /// Names and values that match any of the patterns, each once, as CONFIG GET answers.
    pub(crate) fn matching(&self, patterns: &[Bytes]) -> Vec<(&'static str, String)> {
        let patterns: Vec<_> = patterns.iter().map(|p| p.to_ascii_lowercase()).collect();
        let values = self.values.read();
        let rows = PARAMETERS.iter().zip(values.iter());
        rows.filter(|(row, _)| {
            let name = row.name.as_bytes();
            patterns.iter().any(|pattern| match row.usage {
                Use::Hidden => pattern == name,
                _ => glob::matches(pattern, name),
            })
        })
        .map(|(row, value)| (row.name, value.clone()))
        .collect()
    }

    /// Names and values that differ from the defaults, for CONFIG REWRITE.
    pub(crate) fn changed(&self) -> Vec<(&'static str, String)> {
        let values = self.values.read();
        let rows = PARAMETERS.iter().zip(values.iter());
        rows.filter(|(row, value)| row.default != value.as_str())
            .map(|(row, value)| (row.name, value.clone()))
            .collect()
    }

    /// Sets several parameters, or none if one is refused.
    pub(crate) fn set(&self, pairs: &[Bytes]) -> Result<(), CommandError> {
        let mut values = self.values.write();
        let mut changed = values.clone();
        let mut seen = BTreeSet::new();
        for pair in pairs.chunks_exact(2) {
            let Some(at) = find(&pair[0]) else {
                return Err(CommandError::ConfigUnknown(Echo::new(&pair[0])));
            };
            let row = &PARAMETERS[at];
            let refuse = |why| CommandError::ConfigRefused(row.name, why);
            if !seen.insert(at) {
                return Err(refuse("duplicate parameter".to_owned()));
            }
            let text = std::str::from_utf8(&pair[1])
                .map_err(|_| refuse("argument must be text".to_owned()))?;
            let value = merged(row, &changed[at], text).map_err(refuse)?;
            if matches!(row.usage, Use::AtStart | Use::Fixed) && value != changed[at] {
                return Err(refuse("can't set immutable config".to_owned()));
            }
            set_value(&mut changed, at, value);
        }
        self.live.load(&changed);
        *values = changed;
        Ok(())
    }
}

impl Live {
    /// What a connection of a class may leave unread.
    pub(crate) fn output(&self, class: OutputClass) -> OutputLimits {
        let of = &self.output[class as usize];
        OutputLimits {
            hard_bytes: of.hard_bytes.load(Relaxed) as usize,
            soft_bytes: of.soft_bytes.load(Relaxed) as usize,
            soft_s: of.soft_s.load(Relaxed),
        }
    }

    fn load(&self, values: &[String]) {
        let text = |name: &str| values[find(name.as_bytes()).expect("named in the table")].as_str();
        let number = |name: &str| text(name).parse::<i64>().expect("validated when it was set");
        let natural = |name: &str| number(name).unsigned_abs();
        self.databases.store(natural("databases"), Relaxed);
        self.maxclients.store(natural("maxclients"), Relaxed);
        self.timeout_s.store(natural("timeout"), Relaxed);
        self.tcp_keepalive_s.store(natural("tcp-keepalive"), Relaxed);
        self.proto_max_bulk_len.store(natural("proto-max-bulk-len"), Relaxed);
        self.query_buffer_bytes.store(natural("client-query-buffer-limit"), Relaxed);
        self.slowlog_slower_than_us.store(number("slowlog-log-slower-than"), Relaxed);
        self.slowlog_max_len.store(natural("slowlog-max-len"), Relaxed);
        self.latency_threshold_ms.store(natural("latency-monitor-threshold"), Relaxed);
        self.latency_tracking.store(text("latency-tracking") == "yes", Relaxed);
        self.acllog_max_len.store(natural("acllog-max-len"), Relaxed);
        self.acl_all_channels.store(text("acl-pubsub-default") == "allchannels", Relaxed);
        self.cluster_enabled.store(text("cluster-enabled") == "yes", Relaxed);
        self.protected_mode.store(text("protected-mode") == "yes", Relaxed);
        let limits = text("client-output-buffer-limit");
        let mut numbers = limits.split(' ').map(|n| n.parse().unwrap_or(0));
        // Four words per class, its name first; replicas do not connect to routers.
        for (class, skip) in [(OutputClass::Normal, 1), (OutputClass::PubSub, 5)] {
            let to = &self.output[class as usize];
            to.hard_bytes.store(numbers.nth(skip).unwrap_or(0), Relaxed);
            to.soft_bytes.store(numbers.next().unwrap_or(0), Relaxed);
            to.soft_s.store(numbers.next().unwrap_or(0), Relaxed);
        }
    }
}

/// Sets a value, by all names that it has.
fn set_value(values: &mut [String], at: usize, value: String) {
    for (one, other) in ALIASES {
        let other = match PARAMETERS[at].name {
            name if name == *one => *other,
            name if name == *other => *one,
            _ => continue,
        };
        values[find(other.as_bytes()).expect("named in the table")].clone_from(&value);
    }
    values[at] = value;
}

fn find(name: &[u8]) -> Option<usize> {
    PARAMETERS.iter().position(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// A new value over the present one: only the classes given of output limits change.
fn merged(row: &Parameter, present: &str, value: &str) -> Result<String, Refusal> {
    match row.kind {
        Kind::OutputLimits => output_limits(present, value),
        kind => canonical(kind, value),
    }
}

/// A value in the form CONFIG GET answers it, or why it is none.
pub(crate) fn canonical(kind: Kind, value: &str) -> Result<String, Refusal> {
    match kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Bool => match value.to_ascii_lowercase().as_str() {
            word @ ("yes" | "no") => Ok(word.to_owned()),
            _ => Err("argument must be 'yes' or 'no'".to_owned()),
        },
        Kind::Integer(min, max) => {
            let number: i64 = value
                .parse()
                .map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
            in_range(number, min, max)
        }
        Kind::Memory(min, max) => {
            let bytes =
                memory(value).ok_or_else(|| "argument must be a memory value".to_owned())?;
            in_range(bytes, min, max)
        }
        Kind::MemoryOrPercent(min, max) => match value.strip_suffix('%') {
            None => canonical(Kind::Memory(min, max), value),
            Some(share) => match share.parse::<u8>() {
                Ok(share @ 0..=100) => Ok(format!("{share}%")),
                Ok(_) => Err("percentage argument must be less or equal to 100".to_owned()),
                Err(_) => Err("argument must be a memory or percent value".to_owned()),
            },
        },
        Kind::OneOf(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(value));
            word.map(|word| (*word).to_owned()).ok_or_else(|| {
                format!("argument(s) must be one of the following: {}", words.join(", "))
            })
        }
        Kind::OutputLimits => output_limits(value, value),
        Kind::Save => save(value),
        Kind::Events => events(value),
        Kind::Percentiles => percentiles(value),
    }
}

fn in_range(number: i64, min: i64, max: i64) -> Result<String, Refusal> {
    if (min..=max).contains(&number) {
        Ok(number.to_string())
    } else {
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}

/// `1k` is 1,000 bytes and `1kb` 1,024, as redis.conf has it.
fn memory(value: &str) -> Option<i64> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

/// Classes of connections with output limits, in the order CONFIG GET answers them.
const OUTPUT_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

fn output_limits(present: &str, value: &str) -> Result<String, Refusal> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limits: Vec<String> = present.split(' ').map(str::to_owned).collect();
    for class in words.chunks_exact(4) {
        let name = if class[0].eq_ignore_ascii_case("replica") { "slave" } else { class[0] };
        let at = OUTPUT_CLASSES.iter().position(|known| known.eq_ignore_ascii_case(name));
        let Some(at) = at else {
            return Err("Invalid client class specified in buffer limit configuration.".to_owned());
        };
        let (hard, soft) = (memory(class[1]), memory(class[2]));
        let seconds = class[3].parse::<u32>().ok();
        let (Some(hard), Some(soft), Some(seconds)) = (hard, soft, seconds) else {
            let why = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
            return Err(why.to_owned());
        };
        limits[at * 4 + 1] = hard.to_string();
        limits[at * 4 + 2] = soft.to_string();
        limits[at * 4 + 3] = seconds.to_string();
    }
    Ok(limits.join(" "))
}

fn save(value: &str) -> Result<String, Refusal> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let valid = words.len().is_multiple_of(2)
        && words.chunks_exact(2).all(|pair| {
            pair[0].parse::<u32>().is_ok_and(|s| s >= 1) && pair[1].parse::<u32>().is_ok()
        });
    if valid { Ok(words.join(" ")) } else { Err("Invalid save parameters".to_owned()) }
}

/// Each with six decimals at most, and none that says nothing.
fn percentiles(value: &str) -> Result<String, Refusal> {
    const NAME: &str = "latency-tracking-info-percentiles";
    if value.is_empty() {
        return Ok(String::new());
    }
    let canonical = |word: &str| {
        let percent = word.parse::<f64>().ok().filter(|percent| !percent.is_nan());
        let percent = percent.ok_or_else(|| format!("Invalid {NAME} parameters"))?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("{NAME} parameters should sit between [0.0,100.0]"));
        }
        let text = format!("{percent:.6}");
        Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    };
    let percentiles: Result<Vec<String>, Refusal> = value.split(' ').map(canonical).collect();
    Ok(percentiles?.join(" "))
}

/// Letters of event classes, in the order Redis answers them; `A` stands for the common ones. (Redis
/// forgets to answer `n` next to `A`, and so loses it when it rewrites its file.)
fn events(value: &str) -> Result<String, Refusal> {
    const COMMON: &str = "g$lshzxetd";
    const OTHERS: &str = "nKEm";
    if !value.chars().all(|c| c == 'A' || COMMON.contains(c) || OTHERS.contains(c)) {
        return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned());
    }
    let has = |c: &char| value.contains(*c) || (value.contains('A') && COMMON.contains(*c));
    let mut letters = String::new();
    if COMMON.chars().all(|c| has(&c)) {
        letters.push('A');
    } else {
        letters.extend(COMMON.chars().filter(has));
    }
    letters.extend(OTHERS.chars().filter(has));
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config: &Config, pairs: &[&str]) -> Result<(), String> {
        let pairs: Vec<Bytes> =
            pairs.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect();
        config.set(&pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn set_is_all_or_nothing() {
        let config = Config::new(&[]).expect("defaults");
        let refused = set(&config, &["timeout", "5", "maxclients", "0"]);
        assert_eq!(
            refused,
            Err("ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument \
                 must be between 1 and 4294967295 inclusive"
                .to_owned())
        );
        assert_eq!(config.get("timeout"), "0");
        assert_eq!(set(&config, &["timeout", "5", "maxclients", "7"]), Ok(()));
        assert_eq!(config.live.timeout_s.load(Relaxed), 5);
        assert_eq!(config.live.maxclients.load(Relaxed), 7);
    }

    #[test]
    fn refusals_are_worded_as_redis_words_them() {
        let config = Config::new(&[]).expect("defaults");
        let why = |pairs: &[&str]| set(&config, pairs).expect_err("refused");
        assert_eq!(
            why(&["foo", "1"]),
            "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"
        );
        assert!(why(&["databases", "3"]).ends_with("can't set immutable config"));
        assert!(why(&["timeout", "x"]).ends_with("couldn't be parsed into an integer"));
        assert!(why(&["timeout", "1", "TIMEOUT", "2"]).ends_with("duplicate parameter"));
        assert!(why(&["loglevel", "x"]).ends_with("debug, verbose, notice, warning"));
        assert!(why(&["maxmemory-policy", "allkeys-lru"]).ends_with("following: noeviction"));
        let share = why(&["maxmemory", "1", "maxmemory-clients", "200%"]);
        assert!(share.ends_with("percentage argument must be less or equal to 100"));
        assert!(why(&["maxmemory-clients", "x%"]).ends_with("a memory or percent value"));
        let percentiles = |text| why(&["latency-tracking-info-percentiles", text]);
        for text in ["10.0 50.0 a", "50  99", "nan", " "] {
            assert!(
                percentiles(text)
                    .ends_with("- Invalid latency-tracking-info-percentiles parameters")
            );
        }
        for text in ["10.0 50.0 101.0", "-1", "inf"] {
            assert!(percentiles(text).ends_with("parameters should sit between [0.0,100.0]"));
        }
        assert!(why(&["save", "foo"]).ends_with("Invalid save parameters"));
    }

    #[test]
    fn values_are_canonical() {
        let config = Config::new(&[]).expect("defaults");
        assert_eq!(set(&config, &["maxmemory", "1gb", "notify-keyspace-events", "KEA"]), Ok(()));
        assert_eq!(config.get("maxmemory"), "1073741824");
        assert_eq!(
            set(&config, &["maxmemory-clients", "5%", "hash-max-ziplist-value", "7"]),
            Ok(())
        );
        assert_eq!(config.get("maxmemory-clients"), "5%");
        assert_eq!(config.get("hash-max-listpack-value"), "7");
        assert_eq!(config.get("notify-keyspace-events"), "AKE");
        for (value, canonical) in [("mEKng$", "g$nKEm"), ("g$lshzxetdnm", "Anm"), ("", "")] {
            assert_eq!(set(&config, &["notify-keyspace-events", value]), Ok(()));
            assert_eq!(config.get("notify-keyspace-events"), canonical);
        }
        for (value, canonical) in [
            ("0.0 50.0 100.0", "0 50 100"),
            ("99.990 1e1 0.1234567", "99.99 10 0.123457"),
            ("", ""),
        ] {
            assert_eq!(set(&config, &["latency-tracking-info-percentiles", value]), Ok(()));
            assert_eq!(config.get("latency-tracking-info-percentiles"), canonical);
        }
        assert_eq!(set(&config, &["client-output-buffer-limit", "normal 1mb 2k 3"]), Ok(()));
        assert!(
            config.get("client-output-buffer-limit").starts_with("normal 1048576 2000 3 slave")
        );
        let limits = config.live.output(OutputClass::Normal);
        assert_eq!(limits, OutputLimits { hard_bytes: 1 << 20, soft_bytes: 2000, soft_s: 3 });
        let limits = config.live.output(OutputClass::PubSub);
        assert_eq!(limits, OutputLimits { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_s: 60 });
    }

    #[test]
    fn start_settings_are_checked() {
        let settings = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert!(Config::new(&settings("port", "7000")).is_ok());
        assert!(Config::new(&settings("prot", "7000")).is_err());
        assert!(Config::new(&settings("appendonly", "no")).is_err());
    }
}

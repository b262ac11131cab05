//! One knob for memory, and how it is divided.
//!
//! ```text
//! --memory   1/2  rows that leaders keep, shared by all nodes of the process
//!            1/4  backlogs: what the nodes have not flushed yet, a frozen part and an active one each
//!            1/8  blocks of the nodes' LSMs
//!            1/8  connections: what they send, wait for and have not read yet
//! ```
//!
//! The first three are budgets that are kept; connections have limits of their own (`maxclients`,
//! `client-query-buffer-limit`, `client-output-buffer-limit`) and an idle one holds no buffer.

use std::fs;

/// Memory is at least this, in bytes: less holds no useful part of anything.
pub(crate) const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// What a machine has that does not say, in bytes.
const MACHINE_BYTES_UNKNOWN: u64 = 4 << 30;
/// A node's backlog is flushed at this size, in bytes, even where memory allows more: after a crash
/// it is read again from the log, and a restart must not take long.
const MEMTABLE_BYTES_MAX: u64 = 128 << 20;
/// A flush writes a run; smaller ones would be too many, in bytes.
const MEMTABLE_BYTES_MIN: u64 = 2 << 20;

/// The parts of the memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Division {
    /// Rows that leaders keep, of all nodes together.
    pub(crate) rows: u64,
    /// A node's backlog when it is flushed.
    pub(crate) memtable: u64,
    /// A node's cache of blocks.
    pub(crate) blocks: u64,
}

impl Division {
    /// Divides so many bytes among the parts of a process with so many storage nodes.
    pub(crate) fn of(memory_bytes: u64, nodes: u32) -> Division {
        let nodes = u64::from(nodes);
        Division {
            rows: memory_bytes / 2,
            // While one part is flushed the next one fills.
            memtable: (memory_bytes / 4 / nodes / 2).clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX),
            blocks: memory_bytes / 8 / nodes,
        }
    }
}

/// The default: a quarter of the machine, or of what a control group allows.
pub(crate) fn default_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = group.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let allowed = limits.chain(machine).min().unwrap_or(MACHINE_BYTES_UNKNOWN);
    (allowed / 4).max(MEMORY_BYTES_MIN)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Reads a size as redis.conf writes it: `1gb`, `512mb`, `64k`, plain bytes. A unit ending in `b`
/// counts in powers of 1024, one without in powers of 1000.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_keep_within_the_whole() {
        for memory in [MEMORY_BYTES_MIN, 1 << 30, 24 << 30] {
            for nodes in [1, 3] {
                let Division { rows, memtable, blocks } = Division::of(memory, nodes);
                let nodes = u64::from(nodes);
                let whole = rows + nodes * (2 * memtable + blocks);
                assert!(whole <= memory / 8 * 7, "{memory} {nodes}: {whole}");
                assert!(memtable >= MEMTABLE_BYTES_MIN && blocks > 0);
            }
        }
    }

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        for (text, bytes) in [
            ("1gb", Some(1 << 30)),
            ("1G", Some(1_000_000_000)),
            ("64mb", Some(64 << 20)),
            ("10k", Some(10_000)),
            ("7", Some(7)),
            ("7b", Some(7)),
            ("", None),
            ("gb", None),
            ("1tb", None),
            ("-1", None),
            ("18446744073709551615gb", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
        assert_eq!(
            total_of("MemTotal:       24574220 kB\nMemFree: 1 kB\n"),
            Some(24_574_220 << 10)
        );
        assert!(default_bytes() >= MEMORY_BYTES_MIN);
    }
}

//! INFO: Redis's sections with Redis's field names, and ours. Fields that other software reads are
//! there even where they can have only one value here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use commands::table;
use wire::resp::Reply;
use wire::service::{NodeStatus, ReplicaStatus};

use super::handshake::{self, REDIS_VERSION};
use super::verbatim;
use crate::Shared;
use crate::pubsub::Topic;
use crate::stats::Stored;

/// Partitions that the Partitions section lists; ADMIN PARTITIONS lists all.
const PARTITIONS_LISTED_MAX: usize = 100;

/// When a section is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Unless other sections are asked for.
    Always,
    /// For `all` and `everything`, or by name.
    WithAll,
}

/// What the sections are written from: gathered once.
struct Facts<'a> {
    shared: &'a Shared,
    nodes: Vec<NodeStatus>,
}

type Section = (&'static str, Shown, fn(&Facts<'_>, &mut String));

/// In the order they are written.
const SECTIONS: &[Section] = &[
    ("Server", Shown::Always, server),
    ("Clients", Shown::Always, clients),
    ("Memory", Shown::Always, memory),
    ("Persistence", Shown::Always, persistence),
    ("Stats", Shown::Always, stats),
    ("Replication", Shown::Always, replication),
    ("CPU", Shown::Always, cpu),
    ("Modules", Shown::Always, |_, _| {}),
    ("Commandstats", Shown::WithAll, commandstats),
    ("Errorstats", Shown::Always, errorstats),
    ("Latencystats", Shown::WithAll, latencystats),
    ("Cluster", Shown::Always, cluster),
    ("Consensus", Shown::Always, consensus),
    ("Partitions", Shown::WithAll, partitions),
    ("Routing", Shown::Always, routing),
    ("Keyspace", Shown::Always, keyspace),
];

pub(super) fn info(shared: &Shared, args: &[Bytes]) -> Reply {
    let facts = Facts { shared, nodes: shared.storage.status() };
    let mut out = String::new();
    for (name, shown, write) in SECTIONS {
        if is_wanted(name, *shown, &args[1..]) {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            let _ = write!(out, "# {name}\r\n");
            write(&facts, &mut out);
        }
    }
    verbatim(out)
}

fn is_wanted(name: &str, shown: Shown, asked: &[Bytes]) -> bool {
    let by = |word: &[u8]| match word.to_ascii_lowercase().as_slice() {
        b"default" => shown != Shown::WithAll,
        b"all" | b"everything" => true,
        word => word == name.to_ascii_lowercase().as_bytes(),
    };
    if asked.is_empty() { by(b"default") } else { asked.iter().any(|word| by(word)) }
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(out, "{name}:{value}\r\n");
}

fn lines<const N: usize>(out: &mut String, fields: [(&str, &dyn std::fmt::Display); N]) {
    for (name, value) in fields {
        line(out, name, value);
    }
}

/// Bytes as people read them, in Redis's manner.
fn human(bytes: u64) -> String {
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", bytes as f64 / *size as f64),
        None => format!("{bytes}B"),
    }
}

fn server(facts: &Facts<'_>, out: &mut String) {
    let shared = facts.shared;
    let uptime = shared.started.elapsed().as_secs();
    lines(
        out,
        [
            ("redis_version", &REDIS_VERSION),
            ("evenkeel_version", &shared.options.evenkeel_version),
            ("redis_git_sha1", &"00000000"),
            ("redis_git_dirty", &0),
            ("redis_build_id", &"0000000000000000"),
            ("redis_mode", &handshake::mode(facts.shared)),
            ("os", &os()),
            ("arch_bits", &usize::BITS),
            ("monotonic_clock", &"POSIX clock_gettime"),
            ("multiplexing_api", &"epoll"),
            ("process_id", &std::process::id()),
            ("process_supervised", &"no"),
            ("run_id", &shared.run_id),
            ("tcp_port", &shared.config.get("port")),
            ("server_time_usec", &shared.now_us()),
            ("uptime_in_seconds", &uptime),
            ("uptime_in_days", &(uptime / 86_400)),
            ("hz", &shared.config.get("hz")),
            ("configured_hz", &shared.config.get("hz")),
            ("lru_clock", &(shared.now_s() & 0xff_ffff)),
            ("executable", &shared.options.executable),
            ("config_file", &shared.host.config_file().unwrap_or_default()),
            ("io_threads_active", &0),
        ],
    );
}

fn os() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/proc/sys/kernel/osrelease");
    let name = read("/proc/sys/kernel/ostype");
    format!("{name} {release} {}", read("/proc/sys/kernel/arch"))
}

fn clients(facts: &Facts<'_>, out: &mut String) {
    let mut all = facts.shared.clients.all();
    // Who was told to close is on the way out, and gone for whoever asks.
    all.retain(|client| !client.is_killed());
    let largest = |of: fn(&crate::clients::Client) -> usize| all.iter().map(|c| of(c)).max();
    let watched = || all.iter().map(|c| c.watching.load(Relaxed));
    let awaited = |of: fn(&ReplicaStatus) -> u64| leaders(&facts.nodes).map(of).sum::<u64>();
    lines(
        out,
        [
            ("connected_clients", &all.len()),
            ("cluster_connections", &0),
            ("maxclients", &facts.shared.config.get("maxclients")),
            (
                "client_recent_max_input_buffer",
                &largest(|c| c.input_bytes.load(Relaxed)).unwrap_or(0),
            ),
            (
                "client_recent_max_output_buffer",
                &largest(|c| c.output_bytes.load(Relaxed)).unwrap_or(0),
            ),
            ("blocked_clients", &all.iter().filter(|c| c.is_blocked()).count()),
            ("tracking_clients", &facts.shared.hub().tracking.counts()[0]),
            ("pubsub_clients", &all.iter().filter(|c| c.subscribes()).count()),
            ("watching_clients", &watched().filter(|keys| *keys > 0).count()),
            ("clients_in_timeout_table", &0),
            ("total_watched_keys", &watched().sum::<usize>()),
            ("total_blocking_keys", &awaited(|replica| replica.awaited_keys)),
            ("total_blocking_keys_on_nokey", &awaited(|replica| replica.awaited_keys_or_gone)),
        ],
    );
}

/// The bytes that a file of /proc names so (`VmRSS:  1024 kB`).
pub(super) fn bytes_of(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kb = value.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kb.unwrap_or(0) << 10
}

/// What scripts, functions, replicas and a cluster bus would take.
const MEMORY_ZEROS: &[&str] = &[
    "used_memory_vm_eval",
    "used_memory_lua",
    "used_memory_scripts_eval",
    "used_memory_vm_functions",
    "used_memory_vm_total",
    "used_memory_functions",
    "used_memory_scripts",
    "mem_not_counted_for_evict",
    "mem_replication_backlog",
    "mem_total_replication_buffers",
    "mem_clients_slaves",
    "mem_cluster_links",
    "mem_aof_buffer",
    "active_defrag_running",
    "lazyfree_pending_objects",
];

fn memory(facts: &Facts<'_>, out: &mut String) {
    let [resident, peak] = ["VmRSS", "VmHWM"].map(|name| bytes_of("/proc/self/status", name));
    let total = bytes_of("/proc/meminfo", "MemTotal");
    let used = facts.shared.host.allocated_bytes().unwrap_or(resident);
    let percent = |part: u64, of: u64| format!("{:.2}%", part as f64 * 100.0 / of.max(1) as f64);
    let clients = facts.shared.clients.all();
    let buffers: usize = clients.iter().map(|client| client.held_bytes()).sum();
    let dataset: u64 = leaders(&facts.nodes).map(|replica| replica.bytes).sum();
    let memtables: u64 = facts.nodes.iter().map(|node| node.memtable_bytes).sum();
    let scripts = facts.shared.storage.script_counts();
    let maxmemory: u64 = facts.shared.config.get("maxmemory").parse().unwrap_or(0);
    lines(
        out,
        [
            ("used_memory", &used),
            ("used_memory_human", &human(used)),
            ("used_memory_rss", &resident),
            ("used_memory_rss_human", &human(resident)),
            ("used_memory_peak", &peak),
            ("used_memory_peak_human", &human(peak)),
            ("used_memory_peak_perc", &percent(used, peak)),
            ("used_memory_overhead", &used.saturating_sub(dataset)),
            ("used_memory_dataset", &dataset),
            ("used_memory_dataset_perc", &percent(dataset, used)),
            ("used_memory_memtables", &memtables),
            ("number_of_cached_scripts", &scripts.scripts),
            ("number_of_functions", &scripts.functions),
            ("number_of_libraries", &scripts.libraries),
            ("used_memory_lua_human", &human(0)),
            ("used_memory_vm_total_human", &human(0)),
            ("used_memory_scripts_human", &human(0)),
            ("total_system_memory", &total),
            ("total_system_memory_human", &human(total)),
            ("maxmemory", &maxmemory),
            ("maxmemory_human", &human(maxmemory)),
            ("maxmemory_policy", &facts.shared.config.get("maxmemory-policy")),
            (
                "mem_fragmentation_ratio",
                &format_args!("{:.2}", resident as f64 / used.max(1) as f64),
            ),
            ("mem_fragmentation_bytes", &(resident as i64 - used as i64)),
            ("mem_clients_normal", &buffers),
            ("mem_allocator", &facts.shared.host.allocator()),
        ],
    );
    MEMORY_ZEROS.iter().for_each(|name| line(out, name, 0));
    let stored = facts.shared.stats.stored(stored(&facts.nodes));
    line(out, "lazyfreed_objects", stored.freed_later);
}

/// There are no snapshots and no AOF: every acknowledged write is on a quorum of disks.
fn persistence(facts: &Facts<'_>, out: &mut String) {
    let started_s = facts.shared.now_s() - facts.shared.started.elapsed().as_secs() as i64;
    let replicas = facts.nodes.iter().flat_map(|node| &node.replicas);
    let changes: u64 = replicas.map(|replica| replica.changes).sum();
    lines(
        out,
        [
            ("loading", &0),
            ("async_loading", &0),
            ("rdb_changes_since_last_save", &changes),
            ("rdb_bgsave_in_progress", &0),
            ("rdb_last_save_time", &started_s),
            ("rdb_last_bgsave_status", &"ok"),
            ("rdb_last_bgsave_time_sec", &-1),
            ("rdb_current_bgsave_time_sec", &-1),
            ("rdb_saves", &0),
            ("aof_enabled", &1),
            ("aof_rewrite_in_progress", &0),
            ("aof_rewrite_scheduled", &0),
            ("aof_last_rewrite_time_sec", &-1),
            ("aof_current_rewrite_time_sec", &-1),
            ("aof_rewrites", &0),
            ("aof_rewrites_consecutive_failures", &0),
            ("aof_last_bgrewrite_status", &"ok"),
            ("aof_last_write_status", &"ok"),
        ],
    );
}

/// What replication, eviction and threads for I/O would have counted.
const STATS_ZEROS: &[&str] = &[
    "total_net_repl_input_bytes",
    "total_net_repl_output_bytes",
    "instantaneous_input_repl_kbps",
    "instantaneous_output_repl_kbps",
    "sync_full",
    "sync_partial_ok",
    "sync_partial_err",
    "expired_stale_perc",
    "expired_time_cap_reached_count",
    "evicted_keys",
    "total_eviction_exceeded_time",
    "current_eviction_exceeded_time",
    "latest_fork_usec",
    "total_forks",
    "migrate_cached_sockets",
    "slave_expires_tracked_keys",
    "unexpected_error_replies",
    "dump_payload_sanitizations",
    "io_threaded_reads_processed",
    "io_threaded_writes_processed",
    "reply_buffer_shrinks",
    "reply_buffer_expands",
];

fn stats(facts: &Facts<'_>, out: &mut String) {
    let counters = facts.shared.stats.counters();
    let (commands, input, output) = facts.shared.stats.rates();
    let [_, tracked_keys, tracked_items, prefixes] = facts.shared.hub().tracking.counts();
    let count = |topic| facts.shared.hub().pubsub.count(topic);
    let stored = facts.shared.stats.stored(stored(&facts.nodes));
    lines(
        out,
        [
            ("total_connections_received", &counters.connections),
            ("total_commands_processed", &counters.commands),
            ("instantaneous_ops_per_sec", &commands),
            ("total_net_input_bytes", &counters.input_bytes),
            ("total_net_output_bytes", &counters.output_bytes),
            ("instantaneous_input_kbps", &format_args!("{:.2}", input / 1024.0)),
            ("instantaneous_output_kbps", &format_args!("{:.2}", output / 1024.0)),
            ("rejected_connections", &counters.refused_connections),
            ("evicted_clients", &counters.evicted_clients),
            ("expired_keys", &stored.expired_keys),
            ("expired_subkeys", &stored.expired_fields),
            ("keyspace_hits", &counters.keyspace_hits),
            ("keyspace_misses", &counters.keyspace_misses),
            ("total_error_replies", &counters.errors),
            ("evicted_scripts", &facts.shared.storage.script_counts().evicted_scripts),
            ("pubsub_channels", &count(Topic::Channel)),
            ("pubsub_patterns", &count(Topic::Pattern)),
            ("tracking_total_keys", &tracked_keys),
            ("tracking_total_items", &tracked_items),
            ("tracking_total_prefixes", &prefixes),
            ("pubsubshard_channels", &count(Topic::Shard)),
            ("total_reads_processed", &counters.reads),
            ("total_writes_processed", &counters.writes),
            ("client_query_buffer_limit_disconnections", &counters.query_limit_disconnections),
            ("client_output_buffer_limit_disconnections", &counters.output_limit_disconnections),
        ],
    );
    STATS_ZEROS.iter().for_each(|name| line(out, name, 0));
    let denials = &facts.shared.users.denials;
    lines(
        out,
        [
            ("acl_access_denied_auth", &denials.auth.load(Relaxed)),
            ("acl_access_denied_cmd", &denials.command.load(Relaxed)),
            ("acl_access_denied_key", &denials.key.load(Relaxed)),
            ("acl_access_denied_channel", &denials.channel.load(Relaxed)),
        ],
    );
}

/// What the nodes have counted since each started. Replicas that led before count too.
pub(super) fn stored(nodes: &[NodeStatus]) -> Stored {
    let replicas = || nodes.iter().flat_map(|node| &node.replicas);
    Stored {
        expired_keys: replicas().map(|replica| replica.expired_keys).sum(),
        expired_fields: replicas().map(|replica| replica.expired_fields).sum(),
        freed_later: replicas().map(|replica| replica.freed_later).sum(),
    }
}

/// To clients a router is a master: it takes writes, and nobody need look for another.
fn replication(facts: &Facts<'_>, out: &mut String) {
    lines(
        out,
        [
            ("role", &"master"),
            ("connected_slaves", &0),
            ("master_failover_state", &"no-failover"),
            ("master_replid", &facts.shared.run_id),
            ("master_replid2", &"0000000000000000000000000000000000000000"),
            ("master_repl_offset", &0),
            ("second_repl_offset", &-1),
            ("repl_backlog_active", &0),
            ("repl_backlog_size", &1_048_576),
            ("repl_backlog_first_byte_offset", &0),
            ("repl_backlog_histlen", &0),
        ],
    );
}

fn cluster(facts: &Facts<'_>, out: &mut String) {
    let enabled = facts.shared.config.live.cluster_enabled.load(Relaxed);
    line(out, "cluster_enabled", i32::from(enabled));
}

fn cpu(_: &Facts<'_>, out: &mut String) {
    /// Clock ticks a second in /proc, fixed by the kernel's interface.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold blanks; what follows it does not.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let seconds = |at: usize| {
        fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS_PER_S
    };
    lines(
        out,
        [
            ("used_cpu_sys", &format_args!("{:.6}", seconds(12))),
            ("used_cpu_user", &format_args!("{:.6}", seconds(11))),
            ("used_cpu_sys_children", &format_args!("{:.6}", seconds(14))),
            ("used_cpu_user_children", &format_args!("{:.6}", seconds(13))),
        ],
    );
}

fn commandstats(facts: &Facts<'_>, out: &mut String) {
    for entry in table::entries() {
        let Some(stats) = facts.shared.stats.command(entry.id) else { continue };
        let usec = stats.nanoseconds / 1000;
        let _ = write!(
            out,
            "cmdstat_{}:calls={},usec={usec},usec_per_call={:.2},rejected_calls={},\
             failed_calls={}\r\n",
            entry.full_name(),
            stats.calls,
            stats.nanoseconds as f64 / 1000.0 / stats.calls.max(1) as f64,
            stats.rejected,
            stats.failed,
        );
    }
}

fn errorstats(facts: &Facts<'_>, out: &mut String) {
    for (prefix, count) in facts.shared.stats.errors() {
        let _ = write!(out, "errorstat_{prefix}:count={count}\r\n");
    }
}

fn latencystats(facts: &Facts<'_>, out: &mut String) {
    let percentiles = facts.shared.config.get("latency-tracking-info-percentiles");
    for entry in table::entries() {
        let stats = facts.shared.stats.command(entry.id);
        let Some(stats) = stats.filter(|stats| stats.histogram.calls() > 0) else { continue };
        let points: Vec<String> = percentiles
            .split_ascii_whitespace()
            .filter_map(|text| Some((text, text.parse().ok()?)))
            .map(|(text, percent)| format!("p{text}={:.3}", stats.histogram.percentile_us(percent)))
            .collect();
        line(out, &format!("latency_percentiles_usec_{}", entry.full_name()), points.join(","));
    }
}

fn consensus(facts: &Facts<'_>, out: &mut String) {
    let nodes = &facts.nodes;
    let running = nodes.iter().filter(|node| node.running).count();
    let sum = |of: fn(&NodeStatus) -> u64| nodes.iter().map(of).sum::<u64>();
    let replicas = || nodes.iter().flat_map(|node| &node.replicas);
    let of_kind = |kind: &str| replicas().filter(|replica| replica.kind == kind).count();
    let installing = replicas().filter(|replica| replica.installing).count();
    lines(
        out,
        [
            ("storage_nodes", &nodes.len()),
            ("storage_nodes_running", &running),
            ("replicas", &nodes.iter().map(|node| node.replicas.len()).sum::<usize>()),
            ("leaders", &leaders(nodes).count()),
            ("elections_started", &replicas().map(|replica| replica.elections).sum::<u64>()),
            ("leader_changes", &replicas().map(|replica| replica.leaderships).sum::<u64>()),
            ("wal_syncs", &sum(|node| node.wal_syncs)),
            ("wal_entries", &sum(|node| node.wal_entries)),
            ("wal_bytes", &sum(|node| node.wal_bytes)),
            ("lsm_bytes", &sum(|node| node.lsm_bytes)),
            ("memtable_bytes", &sum(|node| node.memtable_bytes)),
            ("frozen_memtables", &sum(|node| node.frozen_memtables)),
            ("level0_runs", &sum(|node| node.level0_runs)),
            ("log_replicas", &of_kind("log")),
            ("replicas_installing", &installing),
            ("nodes_rows_damaged", &nodes.iter().filter(|node| node.rows_damaged).count()),
            ("log_entries_damaged", &sum(|node| node.damaged_entries)),
            ("snapshots_given", &sum(|node| node.snapshots_given)),
            ("snapshots_installed", &sum(|node| node.snapshots_installed)),
            ("snapshot_bytes", &sum(|node| node.snapshot_bytes)),
            ("node_frames_sent", &sum(|node| node.frames_sent)),
        ],
    );
}

fn partitions(facts: &Facts<'_>, out: &mut String) {
    let mut listed: Vec<_> = leaders(&facts.nodes).collect();
    listed.sort_by_key(|replica| replica.partition);
    line(out, "partitions", listed.len());
    for replica in listed.into_iter().take(PARTITIONS_LISTED_MAX) {
        let _ = write!(
            out,
            "partition{}:table={},leader={},ballot={},applied={},keys={},bytes={}\r\n",
            replica.partition,
            replica.range.table,
            replica.leader.map_or("none".to_owned(), |node| node.to_string()),
            replica.ballot,
            replica.applied_index,
            replica.keys,
            replica.bytes,
        );
    }
}

fn routing(facts: &Facts<'_>, out: &mut String) {
    // Since the start, as what MemDS answered is counted: the two belong together.
    let counters = facts.shared.stats.totals();
    let memds = facts.shared.memds.stats();
    let lookups = memds.foreground + memds.answered;
    let partitions = facts.shared.cache.len();
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    lines(
        out,
        [
            ("routed_commands", &counters.routed),
            ("route_cache_hits", &counters.cache_hits),
            ("route_cache_misses", &counters.cache_misses),
            (
                "route_cache_hit_ratio",
                &format_args!("{:.4}", share(counters.cache_hits, counters.routed)),
            ),
            ("route_cache_partitions", &partitions),
            ("memds_lookups", &lookups),
            ("memds_lookups_per_command", &format_args!("{:.4}", share(lookups, counters.routed))),
            ("route_corrections", &counters.corrections),
            ("call_retries", &counters.retries),
            ("calls_made_again", &counters.repeated),
            ("replies_lost", &counters.gates_lost),
            ("replies_uncertain", &counters.gates_unknown),
        ],
    );
}

fn keyspace(facts: &Facts<'_>, out: &mut String) {
    let mut tables: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let of_table = |table| facts.shared.hub().databases.database(table);
    for replica in leaders(&facts.nodes) {
        let (keys, volatile) = tables.entry(of_table(replica.range.table).0).or_default();
        *keys += replica.keys;
        *volatile += replica.volatile_keys;
    }
    let databases = facts.shared.databases();
    let is_shown = |(table, (keys, _)): &(u32, (u64, u64))| *keys > 0 && *table < databases;
    for (table, (keys, volatile)) in tables.into_iter().filter(is_shown) {
        // avg_ttl is 0, Redis's word for not known. Redis averages over random keys that its expiry
        // cycle meets; our index is in order of time, so a part of it would be no fair sample, and
        // all of it is work that grows with what is stored.
        let _ = write!(out, "db{table}:keys={keys},expires={volatile},avg_ttl=0\r\n");
    }
}

/// The replicas that lead, whose counters are exact.
fn leaders(nodes: &[NodeStatus]) -> impl Iterator<Item = &ReplicaStatus> {
    let running = nodes.iter().filter(|node| node.running);
    running.flat_map(|node| &node.replicas).filter(|replica| replica.role == "leader")
}

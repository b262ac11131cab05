//! MEMORY: what the memory of this process, and the rows of its nodes, are used for. (MEMORY USAGE is
//! a command on a key: `commands::families::server`.)

use std::sync::atomic::Ordering::Relaxed;

use commands::Session;
use wire::resp::Reply;
use wire::service::{NodeStatus, ReplicaStatus};

use super::info::bytes_of;
use super::{verbatim, word};
use crate::Shared;

/// Frozen memtables of a node from which on its flushes lag behind.
const FROZEN_MANY: u64 = 2;
/// Level-0 runs of a node from which on its compactor lags behind.
const LEVEL0_MANY: u64 = 12;
/// The process holds so many times what it allocated: the rest is lost to fragmentation.
const FRAGMENTATION_HIGH: f64 = 1.5;
/// Below so many bytes nobody need worry.
const SMALL_BYTES: u64 = 256 << 20;

pub(super) const HELP: &[&str] = &[
    "DOCTOR",
    "    Say in plain words what is wrong with the memory in use.",
    "MALLOC-STATS",
    "    Return what the allocator holds.",
    "PURGE",
    "    Changes nothing: unused memory is given back all the time.",
    "STATS",
    "    Return what memory is used for.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return the bytes of <key>'s rows on one replica. Nothing is sampled.",
];

/// MEMORY STATS or DOCTOR.
pub(super) fn run(what: Session, shared: &Shared) -> Reply {
    let facts = facts(shared);
    if what == Session::MemoryStats { stats(shared, &facts) } else { doctor(&facts) }
}

/// MEMORY PURGE. The allocator's own threads give unused pages back all the time.
pub(super) fn purge() -> Reply {
    Reply::OK
}

/// MEMORY MALLOC-STATS: what is known in a few lines; MEMORY STATS tells more.
pub(super) fn malloc_stats(shared: &Shared) -> Reply {
    let Facts { allocated, resident, peak, .. } = facts(shared);
    verbatim(format!(
        "jemalloc\nallocated: {allocated}\nresident: {resident}\npeak resident: {peak}\n"
    ))
}

struct Facts {
    allocated: u64,
    resident: u64,
    peak: u64,
    nodes: Vec<NodeStatus>,
}

fn facts(shared: &Shared) -> Facts {
    let [resident, peak] = ["VmRSS", "VmHWM"].map(|name| bytes_of("/proc/self/status", name));
    let allocated = shared.host.allocated_bytes().unwrap_or(resident);
    Facts { allocated, resident, peak, nodes: shared.storage.status() }
}

impl Facts {
    fn leaders(&self) -> impl Iterator<Item = &ReplicaStatus> {
        let replicas = self.nodes.iter().flat_map(|node| &node.replicas);
        replicas.filter(|replica| replica.role == "leader")
    }

    fn fragmentation(&self) -> f64 {
        self.resident as f64 / self.allocated.max(1) as f64
    }
}

/// Redis's names where they mean the same here, and what is ours under names of its own.
fn stats(shared: &Shared, facts: &Facts) -> Reply {
    let sum = |of: fn(&NodeStatus) -> u64| facts.nodes.iter().map(of).sum::<u64>();
    let keys: u64 = facts.leaders().map(|replica| replica.keys).sum();
    let dataset: u64 = facts.leaders().map(|replica| replica.bytes).sum();
    let clients = shared.clients.all();
    let buffers = clients.iter().map(|client| {
        client.input_bytes.load(Relaxed)
            + client.output_bytes.load(Relaxed)
            + client.queued_bytes.load(Relaxed)
    });
    let buffers = buffers.sum::<usize>() as u64;
    let memtables = sum(|node| node.memtable_bytes);
    let integers = [
        ("peak.allocated", facts.peak),
        ("total.allocated", facts.allocated),
        ("clients.normal", buffers),
        ("overhead.total", facts.allocated.saturating_sub(memtables)),
        ("keys.count", keys),
        ("keys.bytes-per-key", dataset / keys.max(1)),
        ("dataset.bytes", dataset),
        ("memtables.bytes", memtables),
        ("wal.bytes", sum(|node| node.wal_bytes)),
        ("lsm.bytes", sum(|node| node.lsm_bytes)),
        ("allocator.resident", facts.resident),
        ("fragmentation.bytes", facts.resident.saturating_sub(facts.allocated)),
    ];
    let integer = |(name, value): (&'static str, u64)| {
        (word(name), Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    };
    let mut fields: Vec<_> = integers.into_iter().map(integer).collect();
    fields.push((word("fragmentation"), Reply::Double(facts.fragmentation())));
    Reply::Map(fields)
}

fn doctor(facts: &Facts) -> Reply {
    let mut findings = Vec::new();
    for node in facts.nodes.iter().filter(|node| node.running) {
        if node.frozen_memtables >= FROZEN_MANY {
            findings.push(format!(
                "Node {}: {} memtables wait to be written to its LSM: its disk is slower than \
                 the writes.\n",
                node.node, node.frozen_memtables
            ));
        }
        if node.level0_runs >= LEVEL0_MANY {
            findings.push(format!(
                "Node {}: {} level-0 runs wait to be compacted: reads look at each of them.\n",
                node.node, node.level0_runs
            ));
        }
    }
    if facts.resident >= SMALL_BYTES && facts.fragmentation() >= FRAGMENTATION_HIGH {
        findings.push(format!(
            "The process holds {:.1} times the memory it has allocated: the rest is \
             fragmentation.\n",
            facts.fragmentation()
        ));
    }
    if findings.is_empty() {
        findings.push("Nothing is wrong with the memory in use.\n".to_owned());
    }
    verbatim(findings.concat())
}

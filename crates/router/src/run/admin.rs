//! ADMIN: what operators ask of Evenkeel itself.

use std::time::Duration;

use bytes::Bytes;
use commands::{CommandError, parse_int};
use wire::ids::{NodeId, PartitionId};
use wire::resp::Reply;
use wire::service::{DiskFault, NodeFault, NodeStatus, Order, ReplicaStatus, Stored};

use super::{text, word};
use crate::connection::Connection;

pub(super) const HELP: &[&str] = &[
    "CACHE FLUSH",
    "    Empty this router's route cache.",
    "FAULT STOP|START <node>",
    "    Stop a node as a crash would, or start it from its disk. Faults are off unless the server was",
    "    started with them enabled.",
    "FAULT PAUSE|RESUME <node>",
    "    Have a node stand still, or go on.",
    "FAULT CLOCK <node> <ms>",
    "    Set a node's wall clock ahead by so much, or behind if negative; 0 is right again.",
    "FAULT DISK OK|ERROR|FULL <node>",
    "    Have a node's disk refuse what it is to write, or behave again.",
    "FAULT DISK SLOW <node> <ms>",
    "    Have each sync of a node's disk take so much longer.",
    "FAULT CORRUPT LOG|TABLE <node> <number>",
    "    Change a byte of what a node stores; the number chooses which.",
    "FAULT WIPE <node>",
    "    Stop a node and delete its folder.",
    "FAULT PANIC <node>",
    "    Have a thread of a node panic: the node stops, and is started again soon.",
    "FAULT PARTITION <node> <node>",
    "    Drop all messages between two nodes.",
    "FAULT DELAY <ms>",
    "    Have each message between nodes take so much longer.",
    "FAULT HEAL",
    "    End what PARTITION and DELAY began.",
    "PARTITIONS",
    "    Describe each replica of each partition.",
    "REPLICA ADD <partition>|table:<table> <node> [LOG]",
    "    Add a replica on a node; with LOG one that votes and keeps no rows.",
    "REPLICA REMOVE <partition>|table:<table> <node>",
    "    Remove the replica on a node.",
    "STATUS",
    "    Describe each storage node.",
    "TRANSFER <partition>|table:<table> <node>",
    "    Have another node lead; no request fails.",
];

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn node(id: Option<NodeId>) -> Reply {
    id.map_or(Reply::Null, |id| number(u64::from(id.0)))
}

pub(super) fn status(connection: &Connection) -> Reply {
    Reply::Array(connection.shared.storage.status().iter().map(node_status).collect())
}

fn node_status(status: &NodeStatus) -> Reply {
    let leads = status.replicas.iter().filter(|replica| replica.role == "leader").count();
    Reply::Map(vec![
        (word("node"), node(Some(status.node))),
        (word("zone"), text(status.zone.to_string())),
        (word("running"), word(if status.running { "yes" } else { "no" })),
        (word("replicas"), number(status.replicas.len() as u64)),
        (word("leads"), number(leads as u64)),
        (word("memtable_bytes"), number(status.memtable_bytes)),
        (word("unsynced_bytes"), number(status.unsynced_bytes)),
        (word("frames_refused"), number(status.frames_refused)),
        (word("frozen_memtables"), number(status.frozen_memtables)),
        (word("wal_bytes"), number(status.wal_bytes)),
        (word("wal_entries"), number(status.wal_entries)),
        (word("wal_syncs"), number(status.wal_syncs)),
        (word("lsm_bytes"), number(status.lsm_bytes)),
        (word("level0_runs"), number(status.level0_runs)),
        (word("paused"), word(if status.paused { "yes" } else { "no" })),
        (word("rows_damaged"), word(if status.rows_damaged { "yes" } else { "no" })),
        (word("damaged_entries"), number(status.damaged_entries)),
        (word("snapshots_given"), number(status.snapshots_given)),
        (word("snapshots_installed"), number(status.snapshots_installed)),
        (word("snapshot_bytes"), number(status.snapshot_bytes)),
    ])
}

pub(super) fn partitions(connection: &Connection) -> Reply {
    let nodes = connection.shared.storage.status();
    let mut replicas: Vec<(NodeId, &ReplicaStatus)> = nodes
        .iter()
        .flat_map(|status| status.replicas.iter().map(|replica| (status.node, replica)))
        .collect();
    replicas.sort_by_key(|(node, replica)| (replica.partition, *node));
    Reply::Array(replicas.into_iter().map(|(id, replica)| replica_status(id, replica)).collect())
}

fn replica_status(id: NodeId, replica: &ReplicaStatus) -> Reply {
    let range = &replica.range;
    Reply::Map(vec![
        (word("partition"), number(replica.partition.0)),
        (word("table"), number(u64::from(range.table.0))),
        (word("first"), text(format!("{:010x}", range.first.get()))),
        (word("last"), text(format!("{:010x}", range.last.get()))),
        (word("node"), node(Some(id))),
        (word("identity"), number(u64::from(replica.identity))),
        (word("kind"), word(replica.kind)),
        (word("installing"), word(if replica.installing { "yes" } else { "no" })),
        (word("role"), word(replica.role)),
        (word("leader"), node(replica.leader)),
        (word("ballot"), number(replica.ballot)),
        (word("last_index"), number(replica.last_index)),
        (word("truncated_index"), number(replica.truncated_index)),
        (word("applied_index"), number(replica.applied_index)),
        (word("flushed_index"), number(replica.flushed_index)),
        (word("keys"), number(replica.keys)),
        (word("volatile_keys"), number(replica.volatile_keys)),
        (word("bytes"), number(replica.bytes)),
    ])
}

pub(super) fn cache_flush(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    if args.len() != 3 || !args[2].eq_ignore_ascii_case(b"FLUSH") {
        return Err(CommandError::Syntax);
    }
    connection.shared.cache.flush();
    Ok(Reply::OK)
}

/// A partition by its number, as ADMIN PARTITIONS tells it, or all of a table: `table:N`.
fn partitions_of(connection: &Connection, arg: &Bytes) -> Result<Vec<PartitionId>, CommandError> {
    let number = |bytes: &[u8]| parse_int(bytes).and_then(|number| u64::try_from(number).ok());
    let Some(table) = arg.strip_prefix(b"table:") else {
        return Ok(vec![PartitionId(number(arg).ok_or(CommandError::NotInteger)?)]);
    };
    let table = number(table).ok_or(CommandError::NotInteger)?;
    let nodes = connection.shared.storage.status();
    let replicas = nodes.iter().flat_map(|node| &node.replicas);
    let of_table = replicas.filter(|replica| u64::from(replica.range.table.0) == table);
    let mut found: Vec<_> = of_table.map(|replica| replica.partition).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(CommandError::Operator(format!("there is no partition of table {table}")));
    }
    Ok(found)
}

fn node_arg(arg: &Bytes) -> Result<NodeId, CommandError> {
    let id = parse_int(arg).and_then(|id| u32::try_from(id).ok());
    Ok(NodeId(id.ok_or(CommandError::NotInteger)?))
}

/// Runs ADMIN REPLICA or ADMIN TRANSFER: resolves when it is done.
pub(crate) async fn order(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let is_transfer = args[1].eq_ignore_ascii_case(b"TRANSFER");
    let (partition, node) = if is_transfer { (2, 3) } else { (3, 4) };
    let node = node_arg(&args[node])?;
    let is = |at: usize, name: &[u8]| args[at].eq_ignore_ascii_case(name);
    let log = args.len() == 6 && is(5, b"LOG");
    let order = |partition| match is_transfer {
        true => Some(Order::Transfer { partition, node }),
        false if is(2, b"ADD") && (args.len() == 5 || log) => {
            Some(Order::AddReplica { partition, node, log })
        }
        false if is(2, b"REMOVE") && args.len() == 5 => {
            Some(Order::RemoveReplica { partition, node })
        }
        false => None,
    };
    for partition in partitions_of(connection, &args[partition])? {
        let order = order(partition).ok_or(CommandError::Syntax)?;
        tracing::info!(?order, conn = connection.session.client.id, "ADMIN");
        connection.shared.storage.order(order).await.map_err(CommandError::Operator)?;
    }
    Ok(Reply::OK)
}

pub(super) fn fault(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    if !connection.shared.options.enable_faults {
        return Err(CommandError::FAULTS_DISABLED);
    }
    let fault = parse_fault(&args[2..])?;
    tracing::info!(?fault, conn = connection.session.client.id, "ADMIN FAULT");
    connection.shared.storage.fault(fault).map_err(CommandError::Operator)?;
    Ok(Reply::OK)
}

/// What follows ADMIN FAULT.
fn parse_fault(args: &[Bytes]) -> Result<NodeFault, CommandError> {
    let words: Vec<_> = args.iter().map(|arg| arg.to_ascii_lowercase()).collect();
    let words: Vec<_> = words.iter().map(|word| &word[..]).collect();
    let id = |at: usize| node_arg(&args[at]);
    let number = |at: usize| {
        let number = parse_int(&args[at]).and_then(|number| u64::try_from(number).ok());
        number.ok_or(CommandError::NotInteger)
    };
    let ms = |at: usize| number(at).map(Duration::from_millis);
    Ok(match words[..] {
        [b"stop", _] => NodeFault::Stop(id(1)?),
        [b"start", _] => NodeFault::Start(id(1)?),
        [b"pause", _] => NodeFault::Pause(id(1)?),
        [b"resume", _] => NodeFault::Resume(id(1)?),
        [b"wipe", _] => NodeFault::Wipe(id(1)?),
        [b"clock", _, _] => {
            NodeFault::Clock(id(1)?, parse_int(&args[2]).ok_or(CommandError::NotInteger)?)
        }
        [b"panic", _] => NodeFault::Panic(id(1)?),
        [b"disk", b"ok", _] => NodeFault::Disk(id(2)?, DiskFault::None),
        [b"disk", b"error", _] => NodeFault::Disk(id(2)?, DiskFault::Error),
        [b"disk", b"full", _] => NodeFault::Disk(id(2)?, DiskFault::Full),
        [b"disk", b"slow", _, _] => NodeFault::Disk(id(2)?, DiskFault::Slow(ms(3)?)),
        [b"corrupt", b"log", _, _] => NodeFault::Corrupt(id(2)?, Stored::Log, number(3)?),
        [b"corrupt", b"table", _, _] => NodeFault::Corrupt(id(2)?, Stored::Table, number(3)?),
        [b"partition", _, _] => NodeFault::Cut(id(1)?, id(2)?),
        [b"heal"] => NodeFault::Join,
        [b"delay", _] => NodeFault::Delay(ms(1)?),
        _ => return Err(CommandError::Syntax),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let parse = |line: &'static str| {
            let words: Vec<_> =
                line.split(' ').map(|word| Bytes::from_static(word.as_bytes())).collect();
            parse_fault(&words)
        };
        let (one, two) = (NodeId(1), NodeId(2));
        let slow = DiskFault::Slow(Duration::from_millis(7));
        for (line, fault) in [
            ("STOP 1", NodeFault::Stop(one)),
            ("resume 2", NodeFault::Resume(two)),
            ("DISK FULL 1", NodeFault::Disk(one, DiskFault::Full)),
            ("DISK SLOW 1 7", NodeFault::Disk(one, slow)),
            ("CORRUPT table 2 9", NodeFault::Corrupt(two, Stored::Table, 9)),
            ("CLOCK 2 -5000", NodeFault::Clock(two, -5_000)),
            ("PARTITION 1 2", NodeFault::Cut(one, two)),
            ("panic 2", NodeFault::Panic(two)),
            ("HEAL", NodeFault::Join),
            ("DELAY 5", NodeFault::Delay(Duration::from_millis(5))),
        ] {
            assert_eq!(parse(line), Ok(fault), "{line}");
        }
        for line in
            ["STOP", "STOP x", "STOP -1", "DISK SLOW 1", "HEAL 1", "DELAY -5", "NAP 1", "CLOCK 1 x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

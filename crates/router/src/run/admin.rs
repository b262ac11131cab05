//! ADMIN: what operators ask of Evenkeel itself.

use bytes::Bytes;
use commands::{CommandError, parse_int};
use wire::ids::NodeId;
use wire::resp::Reply;
use wire::service::{NodeFault, NodeStatus, ReplicaStatus};

use super::{text, word};
use crate::connection::Connection;

pub(super) const HELP: &[&str] = &[
    "CACHE FLUSH",
    "    Empty this router's route cache.",
    "FAULT STOP <node>",
    "    Stop a node as a crash would. Off unless the server was started with faults enabled.",
    "FAULT START <node>",
    "    Start a stopped node from its disk.",
    "PARTITIONS",
    "    Describe each replica of each partition.",
    "STATUS",
    "    Describe each storage node.",
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
        (word("frozen_memtables"), number(status.frozen_memtables)),
        (word("wal_bytes"), number(status.wal_bytes)),
        (word("wal_entries"), number(status.wal_entries)),
        (word("wal_syncs"), number(status.wal_syncs)),
        (word("lsm_bytes"), number(status.lsm_bytes)),
        (word("level0_runs"), number(status.level0_runs)),
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
        (word("role"), word(replica.role)),
        (word("leader"), node(replica.leader)),
        (word("ballot"), number(replica.ballot)),
        (word("last_index"), number(replica.last_index)),
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

pub(super) fn fault(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    if args.len() != 4 {
        return Err(CommandError::Syntax);
    }
    if !connection.shared.options.enable_faults {
        return Err(CommandError::FAULTS_DISABLED);
    }
    let id = parse_int(&args[3]).and_then(|id| u32::try_from(id).ok());
    let id = NodeId(id.ok_or(CommandError::NotInteger)?);
    let fault = match args[2].to_ascii_lowercase().as_slice() {
        b"stop" => NodeFault::Stop(id),
        b"start" => NodeFault::Start(id),
        _ => return Err(CommandError::Syntax),
    };
    tracing::info!(?fault, conn = connection.session.client.id, "ADMIN FAULT");
    connection.shared.storage.fault(fault).map_err(CommandError::Operator)?;
    Ok(Reply::OK)
}

//! CLUSTER: what clients of Redis Cluster ask before they send their first command.
//!
//! A router serves every key, so it shows itself as a node that has all slots. Partitions, their
//! leaders and their moves are behind it: they are no clients' business, and nothing is ever answered
//! with MOVED. Without `cluster-enabled` the answer is Redis's of a server that is no cluster's.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use commands::rows::KEY_HASH_BITS;
use commands::table::Entry;
use commands::{CommandError, Echo, Session, parse_int};
use wire::ids::TableId;
use wire::placement::{Placement, SLOTS, key_slot};
use wire::resp::Reply;

use super::{Asker, help, text, verbatim, word};
use crate::Shared;
use crate::connection::Done;
use crate::gather;
use crate::route::Caller;

const HELP: &[&str] = &[
    "COUNTKEYSINSLOT <slot>",
    "    Return the number of keys in <slot>.",
    "GETKEYSINSLOT <slot> <count>",
    "    Return at most <count> keys of <slot>.",
    "INFO",
    "    Return facts about the cluster.",
    "KEYSLOT <key>",
    "    Return the slot of <key>.",
    "LINKS",
    "    Return no link: routers have no bus.",
    "MYID",
    "    Return the name of this router.",
    "NODES",
    "    Describe the routers.",
    "REPLICAS <node-id>",
    "    Return no replica: any router can do what another does.",
    "SHARDS",
    "    Describe the routers and their slots.",
    "SLOTS",
    "    Return the slots and which router to ask for them.",
    "(others)",
    "    Refused: which node has what is decided behind the routers. See ADMIN PARTITIONS.",
];

/// Runs a command of the group; `None` if it is none of it.
pub(super) fn run(
    what: Session,
    asker: Asker<'_>,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    let run: fn(Asker<'_>, &[Bytes]) -> Result<Reply, CommandError> = match what {
        Session::ClusterHelp => return Some(Ok(help("CLUSTER", HELP))),
        Session::ClusterChange => |_, _| Err(CommandError::CLUSTER_CHANGE),
        Session::ClusterMode => |_, _| Ok(Reply::OK),
        Session::ClusterInfo => |_, _| Ok(info()),
        Session::ClusterKeyslot => |_, args| Ok(Reply::Integer(i64::from(key_slot(&args[2])))),
        Session::ClusterLinks => |_, _| Ok(Reply::Array(Vec::new())),
        Session::ClusterMyid => |asker, _| Ok(text(asker.shared.run_id.clone())),
        Session::ClusterNodes => |asker, _| Ok(verbatim(nodes(asker))),
        Session::ClusterReplicas => {
            |asker, args| known(asker, &args[2]).map(|()| Reply::Array(Vec::new()))
        }
        Session::ClusterFailureReports => {
            |asker, args| known(asker, &args[2]).map(|()| Reply::Integer(0))
        }
        Session::ClusterShards => |asker, _| Ok(shards(asker)),
        Session::ClusterSlots => |asker, _| Ok(slots(asker)),
        Session::ClusterCountkeysinslot | Session::ClusterGetkeysinslot => {
            |_, _| Err(CommandError::NOT_IN_MULTI)
        }
        _ => return None,
    };
    Some(check_enabled(asker.shared).and_then(|()| run(asker, args)))
}

/// *Errors*: this is no cluster.
pub(super) fn check_enabled(shared: &Shared) -> Result<(), CommandError> {
    let enabled = shared.config.live.cluster_enabled.load(Relaxed);
    if enabled { Ok(()) } else { Err(CommandError::CLUSTER_DISABLED) }
}

/// *Errors*: there is no such router.
fn known(asker: Asker<'_>, id: &[u8]) -> Result<(), CommandError> {
    if id == asker.shared.run_id.as_bytes() {
        Ok(())
    } else {
        Err(CommandError::ClusterUnknownNode(Echo::cut(id, 128)))
    }
}

/// Where clients reach this router: what the operator says, else where this one reached it.
fn address(asker: Asker<'_>) -> (String, u16) {
    let config = &asker.shared.config;
    let local = asker.client.local;
    let ip = config.get("cluster-announce-ip");
    let port = config.get("cluster-announce-port").parse().unwrap_or(0);
    let ip = if ip.is_empty() { local.ip().to_canonical().to_string() } else { ip };
    (ip, if port == 0 { local.port() } else { port })
}

fn info() -> Reply {
    let slots = SLOTS;
    verbatim(format!(
        "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:{slots}\r\n\
         cluster_slots_ok:{slots}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
         cluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\n\
         cluster_my_epoch:1\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n"
    ))
}

/// A node has no bus; its port there is told as 0.
fn nodes(asker: Asker<'_>) -> String {
    let (ip, port) = address(asker);
    let id = &asker.shared.run_id;
    format!("{id} {ip}:{port}@0 myself,master - 0 0 1 connected 0-{}\n", SLOTS - 1)
}

fn slots(asker: Asker<'_>) -> Reply {
    let (ip, port) = address(asker);
    let id = text(asker.shared.run_id.clone());
    let node = vec![text(ip), Reply::Integer(i64::from(port)), id, Reply::Array(Vec::new())];
    Reply::Array(vec![Reply::Array(vec![
        Reply::Integer(0),
        Reply::Integer(i64::from(SLOTS - 1)),
        Reply::Array(node),
    ])])
}

fn shards(asker: Asker<'_>) -> Reply {
    let (ip, port) = address(asker);
    let all = vec![Reply::Integer(0), Reply::Integer(i64::from(SLOTS - 1))];
    let node = Reply::Map(vec![
        (word("id"), text(asker.shared.run_id.clone())),
        (word("port"), Reply::Integer(i64::from(port))),
        (word("ip"), text(ip.clone())),
        (word("endpoint"), text(ip)),
        (word("role"), word("master")),
        (word("replication-offset"), Reply::Integer(0)),
        (word("health"), word("online")),
    ]);
    Reply::Array(vec![Reply::Map(vec![
        (word("slots"), Reply::Array(all)),
        (word("nodes"), Reply::Array(vec![node])),
    ])])
}

/// COUNTKEYSINSLOT and GETKEYSINSLOT. Keys are in the order of slots, so SCAN finds those of one from
/// its first placement on, in steps that hold no partition long.
pub(crate) async fn keys_in_slot(
    caller: &mut Caller,
    entry: &'static Entry,
    table: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    check_enabled(&caller.shared)?;
    let slot = parse_int(&args[2]).ok_or(CommandError::NotInteger)?;
    let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOTS);
    let counts = entry.command.name == "COUNTKEYSINSLOT";
    let wanted = match args.get(3) {
        Some(count) => parse_int(count).ok_or(CommandError::NotInteger)?,
        None => i64::MAX,
    };
    let (Some(slot), Ok(wanted)) = (slot, usize::try_from(wanted)) else {
        let invalid = if counts { CommandError::CLUSTER_SLOT } else { CommandError::CLUSTER_KEYS };
        return Err(invalid);
    };
    let first = Placement::first_of_slot(slot).get() << KEY_HASH_BITS;
    let end = (slot + 1 < SLOTS).then(|| Placement::first_of_slot(slot + 1).get() << KEY_HASH_BITS);
    let mut found = Vec::new();
    let mut count = 0usize;
    let gates = gather::scan_from(caller, table, first, None, |keys, next| {
        let of_slot = keys.into_iter().filter(|key| match key {
            Reply::Bulk(key) => key_slot(key) == slot,
            _ => false,
        });
        if counts {
            count += of_slot.count();
        } else {
            found.extend(of_slot);
            count = found.len();
        }
        count < wanted && end.is_none_or(|end| next < end)
    })
    .await?;
    found.truncate(wanted);
    let reply = if counts { Reply::Integer(count as i64) } else { Reply::Array(found) };
    Ok(Done::gated(reply, gates, false))
}

//! What Redis has and Evenkeel does otherwise: snapshots, a replication stream, modules. Each answer
//! says what is the case; none says that something was done which was not.

use bytes::Bytes;
use commands::{CommandError, Session};
use wire::resp::Reply;
use wire::service::Order;

use super::{help, word};
use crate::Shared;

const MODULE_HELP: &[&str] = &["LIST", "    Return no module: there are none."];

/// Runs a command of this file; `None` if it is none of it.
pub(super) fn run(
    what: Session,
    shared: &Shared,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    Some(match what {
        Session::Lastsave => Ok(lastsave(shared)),
        Session::ModuleList => Ok(Reply::Array(Vec::new())),
        Session::ModuleHelp => Ok(help("MODULE", MODULE_HELP)),
        Session::Bgrewriteaof => Ok(flush(shared)),
        Session::NoModules => Err(CommandError::NO_MODULES),
        Session::NoReplication => Err(CommandError::NO_REPLICATION),
        Session::NoSnapshots => Err(CommandError::NO_SNAPSHOTS),
        Session::Replicaof => replicaof(args),
        Session::Role => Ok(role()),
        Session::Lolwut => Ok(lolwut(shared)),
        _ => return None,
    })
}

/// BGREWRITEAOF: what an append-only file is rewritten for, a shorter log, is had by writing to tables what
/// only the log holds.
fn flush(shared: &Shared) -> Reply {
    let flushed = shared.storage.order(Order::Flush);
    tokio::spawn(async move {
        if let Err(error) = flushed.await {
            tracing::warn!(error, "BGREWRITEAOF");
        }
    });
    Reply::Simple("Background append only file rewriting started")
}

/// As INFO's `rdb_last_save_time`: the start of the server, from which on nothing was saved in
/// Redis's way.
fn lastsave(shared: &Shared) -> Reply {
    let up_s = i64::try_from(shared.started.elapsed().as_secs()).unwrap_or(0);
    Reply::Integer(shared.now_s() - up_s)
}

/// NO ONE is what is the case already.
fn replicaof(args: &[Bytes]) -> Result<Reply, CommandError> {
    if args[1].eq_ignore_ascii_case(b"NO") && args[2].eq_ignore_ascii_case(b"ONE") {
        Ok(Reply::OK)
    } else {
        Err(CommandError::NO_REPLICAOF)
    }
}

/// To clients a router is a master without replicas, as INFO tells them.
fn role() -> Reply {
    Reply::Array(vec![word("master"), Reply::Integer(0), Reply::Array(Vec::new())])
}

/// A ship on an even keel, on waves that are never the same, and the version, which is what tools ask
/// for.
fn lolwut(shared: &Shared) -> Reply {
    const SHIP: [&str; 4] = ["       |\\", "       | \\", "       |__\\", "   \\___|____/"];
    const WIDTH: u32 = 24;
    let mut random = shared.random();
    let wave: String = (0..WIDTH)
        .map(|_| {
            random = random.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if random >> 62 == 0 { '^' } else { '~' }
        })
        .collect();
    let version = super::handshake::REDIS_VERSION;
    super::verbatim(format!("{}\n{wave}\n\nRedis ver. {version}\n", SHIP.join("\n")))
}

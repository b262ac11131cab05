//! TIME, SHUTDOWN, SWAPDB and SLOWLOG.

use std::sync::Arc;

use bytes::Bytes;
use commands::{CommandError, Echo, parse_int};
use wire::resp::Reply;

use super::text;
use crate::Shared;
use crate::connection::Connection;
use crate::databases;
use crate::host::Shutdown;
use crate::slowlog::SlowCommand;

/// Entries that SLOWLOG GET answers if it is not told how many.
const SLOWLOG_GET_DEFAULT: usize = 10;

pub(super) const SLOWLOG_HELP: &[&str] = &[
    "GET [<count>]",
    "    Return the newest <count> slow commands (default: 10, -1: all): number, time, microseconds,",
    "    command line, address and name of the connection.",
    "LEN",
    "    Return how many slow commands are kept.",
    "RESET",
    "    Forget them.",
];

pub(super) fn time(connection: &Connection) -> Reply {
    let now_us = connection.shared.now_us();
    Reply::Array(vec![
        text((now_us / 1_000_000).to_string()),
        text((now_us % 1_000_000).to_string()),
    ])
}

/// SWAPDB.
pub(crate) async fn swapdb(shared: &Arc<Shared>, args: &[Bytes]) -> Result<Reply, CommandError> {
    let number = |at: usize, refusal| {
        let number = parse_int(&args[at]).and_then(|number| i32::try_from(number).ok());
        number.ok_or(refusal)
    };
    let first = number(1, CommandError::SWAPDB_FIRST)?;
    let second = number(2, CommandError::SWAPDB_SECOND)?;
    let databases = shared.databases();
    let known = |number: i32| u32::try_from(number).ok().filter(|number| *number < databases);
    let (Some(first), Some(second)) = (known(first), known(second)) else {
        return Err(CommandError::DB_OUT_OF_RANGE);
    };
    if first != second {
        databases::swap(shared, first, second).await?;
    }
    Ok(Reply::OK)
}

/// SAVE and NOSAVE mean the same: whatever was acknowledged is on disks already.
pub(super) fn shutdown(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let (mut how, mut abort, mut saves) = (Shutdown::default(), false, 0);
    for option in &args[1..] {
        match option.to_ascii_lowercase().as_slice() {
            b"save" | b"nosave" => saves += 1,
            b"now" => how.now = true,
            b"force" => how.force = true,
            b"abort" => abort = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    if saves > 1 || (abort && args.len() > 2) {
        return Err(CommandError::Syntax);
    }
    let host = &connection.shared.host;
    if abort {
        return if host.abort_shutdown() { Ok(Reply::OK) } else { Err(CommandError::NO_SHUTDOWN) };
    }
    tracing::info!(conn = connection.session.client.id, "SHUTDOWN");
    host.shutdown(how).map_err(|why| {
        tracing::error!(why, "SHUTDOWN failed");
        CommandError::SHUTDOWN_FAILED
    })?;
    connection.session.closing = true;
    Ok(Reply::Sequence(Vec::new()))
}

pub(super) fn slowlog_get(shared: &Shared, args: &[Bytes]) -> Result<Reply, CommandError> {
    let count = match &args[2..] {
        [] => SLOWLOG_GET_DEFAULT,
        [count] => match parse_int(count) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return Err(CommandError::COUNT_NOT_INTEGER),
        },
        _ => return Err(CommandError::SubcommandSyntax(Echo::new(&args[1]), "SLOWLOG")),
    };
    let newest = shared.slowlog.lock().newest(count);
    Ok(Reply::Array(newest.into_iter().map(slow_command).collect()))
}

fn slow_command(slow: SlowCommand) -> Reply {
    Reply::Array(vec![
        Reply::Integer(slow.id),
        Reply::Integer(slow.at_s),
        Reply::Integer(slow.took_us),
        Reply::Array(slow.args.into_iter().map(Reply::Bulk).collect()),
        text(slow.peer),
        Reply::Bulk(slow.client_name),
    ])
}

pub(super) fn slowlog_len(shared: &Shared) -> Reply {
    Reply::Integer(shared.slowlog.lock().len() as i64)
}

pub(super) fn slowlog_reset(shared: &Shared) -> Reply {
    shared.slowlog.lock().clear();
    Reply::OK
}

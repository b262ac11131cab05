//! TIME, SHUTDOWN, SWAPDB and SLOWLOG.

use bytes::Bytes;
use commands::{CommandError, Echo, Session, parse_int};
use wire::resp::Reply;

use super::text;
use crate::connection::Connection;
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

/// SHUTDOWN and SWAPDB.
pub(super) fn run(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    match what {
        Session::Swapdb => swapdb(connection, args),
        _ => shutdown(connection, args),
    }
}

/// SWAPDB: a database and itself can change places, two cannot. Each is a table of its own, and what
/// would make others see them swapped at one moment is the catalogue that is still to come.
fn swapdb(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let number = |at: usize, refusal| {
        let number = parse_int(&args[at]).and_then(|number| i32::try_from(number).ok());
        number.ok_or(refusal)
    };
    let first = number(1, CommandError::SWAPDB_FIRST)?;
    let second = number(2, CommandError::SWAPDB_SECOND)?;
    let tables = connection.shared.databases();
    if [first, second].iter().any(|number| !u32::try_from(*number).is_ok_and(|n| n < tables)) {
        return Err(CommandError::DB_OUT_OF_RANGE);
    }
    if first == second { Ok(Reply::OK) } else { Err(CommandError::SWAPDB) }
}

/// SAVE and NOSAVE mean the same: whatever was acknowledged is on disks already.
fn shutdown(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
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

pub(super) fn slowlog_get(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let count = match &args[2..] {
        [] => SLOWLOG_GET_DEFAULT,
        [count] => match parse_int(count) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return Err(CommandError::COUNT_NOT_INTEGER),
        },
        _ => return Err(CommandError::SubcommandSyntax(Echo::new(&args[1]), "SLOWLOG")),
    };
    let newest = connection.shared.slowlog.lock().newest(count);
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

pub(super) fn slowlog_len(connection: &Connection) -> Reply {
    Reply::Integer(connection.shared.slowlog.lock().len() as i64)
}

pub(super) fn slowlog_reset(connection: &Connection) -> Reply {
    connection.shared.slowlog.lock().clear();
    Reply::OK
}

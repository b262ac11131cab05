//! What a client says first and last: HELLO, AUTH, SELECT, PING, RESET, QUIT.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use commands::{CommandError, Echo, parse_int, parse_int32};
use wire::ids::TableId;
use wire::resp::Reply;

use super::{client, word};
use crate::connection::Connection;

/// What HELLO and INFO say the server is, so that clients use what they know of it.
pub(super) const REDIS_VERSION: &str = "7.4.0";

/// What HELLO and INFO call the way the server runs.
pub(super) fn mode(shared: &crate::Shared) -> &'static str {
    if shared.config.live.cluster_enabled.load(Relaxed) { "cluster" } else { "standalone" }
}

pub(super) fn ping(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    match args {
        // Among messages every reply is an array.
        [_] if connection.session.is_subscriber() => {
            Ok(Reply::Array(vec![word("pong"), Reply::EMPTY]))
        }
        [_, message] if connection.session.is_subscriber() => {
            Ok(Reply::Array(vec![word("pong"), Reply::Bulk(message.clone())]))
        }
        [_] => Ok(Reply::Simple("PONG")),
        [_, message] => Ok(Reply::Bulk(message.clone())),
        _ => Err(CommandError::Arity("ping".into())),
    }
}

pub(super) fn quit(connection: &mut Connection) -> Result<Reply, CommandError> {
    connection.session.closing = true;
    Ok(Reply::OK)
}

pub(super) fn reset(connection: &mut Connection) -> Result<Reply, CommandError> {
    let (login, authenticated) = connection.shared.users.welcome();
    connection.session.reset(login, authenticated);
    connection.update_limits();
    Ok(Reply::Simple("RESET"))
}

pub(super) fn select(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let table = table_of(&args[1], connection.shared.databases())?;
    connection.session.select(table);
    Ok(Reply::OK)
}

/// The table that SELECT's argument names.
pub(super) fn table_of(index: &[u8], tables: u32) -> Result<TableId, CommandError> {
    let index = parse_int32(index)?;
    let table = u32::try_from(index).ok().filter(|table| *table < tables);
    table.map(TableId).ok_or(CommandError::DB_OUT_OF_RANGE)
}

pub(super) fn auth(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    match args {
        [word, password] => {
            if connection.shared.users.default_needs_no_password() {
                return Err(CommandError::AUTH_WITHOUT_PASSWORD);
            }
            log_in(connection, word, b"default", password)?;
        }
        [word, user, password] => log_in(connection, word, user, password)?,
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::OK)
}

/// Makes the connection a user's; `word` is the command's name as it came.
fn log_in(
    connection: &mut Connection,
    word: &[u8],
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    let Some(login) = connection.shared.users.log_in(user, password) else {
        connection.log_failed_login(word, user);
        return Err(CommandError::WRONGPASS);
    };
    connection.session.log_in(login, true);
    connection.update_limits();
    Ok(())
}

pub(super) fn hello(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let mut version = connection.session.protocol;
    if let Some(wanted) = args.get(1) {
        let wanted = parse_int(wanted).ok_or(CommandError::PROTOVER_NOT_INTEGER)?;
        version = match wanted {
            2 => 2,
            3 => 3,
            _ => return Err(CommandError::NOPROTO),
        };
    }
    let (mut name, mut credentials) = (None, None);
    let mut options = args.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((user, password));
                rest
            }
            [value, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                client::check_name(value)?;
                name = Some(value);
                rest
            }
            _ => {
                return Err(CommandError::HelloOption(Echo::new(option)));
            }
        };
    }
    // Of several, the last; and nothing else of the line if it is wrong.
    if let Some((user, password)) = credentials {
        log_in(connection, &args[0], user, password)?;
    }
    if !connection.session.authenticated && !connection.is_welcome() {
        return Err(CommandError::NOAUTH_HELLO);
    }
    if let Some(name) = name {
        connection.session.client.names.lock().name = Bytes::copy_from_slice(name);
    }
    connection.session.set_protocol(version);
    Ok(Reply::Map(vec![
        (word("server"), word("redis")),
        (word("version"), word(REDIS_VERSION)),
        (word("proto"), Reply::Integer(i64::from(version))),
        (word("id"), Reply::Integer(connection.session.client.id as i64)),
        (word("mode"), word(mode(&connection.shared))),
        (word("role"), word("master")),
        (word("modules"), Reply::Array(Vec::new())),
    ]))
}

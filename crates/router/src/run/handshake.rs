//! What a client says first and last: HELLO, AUTH, SELECT, PING, RESET, QUIT.

use bytes::Bytes;
use commands::{CommandError, Echo, parse_int, parse_int32};
use wire::ids::TableId;
use wire::resp::Reply;

use super::{client, word};
use crate::connection::Connection;

/// What HELLO and INFO say the server is, so that clients use what they know of it.
pub(super) const REDIS_VERSION: &str = "7.4.0";

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
    let authenticated = connection.shared.config.get("requirepass").is_empty();
    connection.session.reset(authenticated);
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
        [_, password] => {
            if connection.shared.config.get("requirepass").is_empty() {
                return Err(CommandError::AUTH_WITHOUT_PASSWORD);
            }
            log_in(connection, b"default", password)?;
        }
        [_, user, password] => log_in(connection, user, password)?,
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::OK)
}

/// There is one user, `default`; without `requirepass` any password is right, as in Redis.
fn log_in(connection: &mut Connection, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let right = connection.shared.config.get("requirepass");
    let matches = right.is_empty() || equal_in_constant_time(right.as_bytes(), password);
    if user != b"default" || !matches {
        return Err(CommandError::WRONGPASS);
    }
    connection.session.set_authenticated(true);
    connection.update_limits();
    Ok(())
}

/// Compares without telling by the time it takes how much of a guess was right.
fn equal_in_constant_time(right: &[u8], guess: &[u8]) -> bool {
    let differences = (0..right.len().max(guess.len())).fold(0u8, |differences, at| {
        let byte = |of: &[u8]| of.get(at).copied().unwrap_or(0);
        differences | (byte(right) ^ byte(guess))
    });
    differences == 0 && right.len() == guess.len()
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
    let mut name = None;
    let mut options = args.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                log_in(connection, user, password)?;
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
    if !connection.session.authenticated {
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
        (word("mode"), word("standalone")),
        (word("role"), word("master")),
        (word("modules"), Reply::Array(Vec::new())),
    ]))
}

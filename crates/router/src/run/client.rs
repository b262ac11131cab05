//! CLIENT: this connection and the others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::{CommandError, Echo, parse_int};
use wire::resp::Reply;

use super::verbatim;
use crate::clients::{Client, PauseMode, Unblock};
use crate::connection::Connection;
use crate::session::ReplyMode;
use crate::users::{Account, Users};

/// Nothing is sent: not even an empty reply.
const NO_REPLY: Reply = Reply::Sequence(Vec::new());
/// Longest pause: a century, which no sum of times overflows.
const PAUSE_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) const HELP: &[&str] = &[
    "CACHING (YES|NO)",
    "    Have the keys of the next command tracked, or not.",
    "CAPA <capability> [<capability> ...]",
    "    Is accepted: nothing here depends on what the client can do.",
    "GETNAME",
    "    Return the name of this connection.",
    "GETREDIR",
    "    Return the number of the connection that is told of keys that change: 0 if it is this one, -1 if none.",
    "ID",
    "    Return the number of this connection.",
    "INFO",
    "    Describe this connection.",
    "KILL <ip:port>",
    "    Close the connection from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Close connections. Options are:",
    "    * ADDR <ip:port>: from this address",
    "    * LADDR <ip:port>: to this address",
    "    * ID <client-id> [<client-id> ...]: of one of these numbers",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB): of this type",
    "    * USER <username>: logged in as this user",
    "    * MAXAGE <seconds>: at least this old",
    "    * SKIPME (YES|NO): spare this connection (default: yes)",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <client-id> [...]]",
    "    Describe connections.",
    "MAINT_NOTIFICATIONS (ON|OFF) [<option> ...]",
    "    Is accepted: there is no maintenance that a client has to be told of.",
    "NO-EVICT (ON|OFF)",
    "    Protect this connection from being closed for its memory.",
    "NO-TOUCH (ON|OFF)",
    "    Reads of this connection do not mark keys as used.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Hold back all commands, or those that write, for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Say whether replies are sent to this connection.",
    "SETINFO (LIB-NAME <name>|LIB-VER <version>)",
    "    Say which client library this is.",
    "SETNAME <name>",
    "    Name this connection.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
    "    Tell this connection of keys that it has read and that change, for a cache of its own.",
    "TRACKINGINFO",
    "    Return how this connection is told of keys that change.",
    "UNBLOCK <client-id> [TIMEOUT|ERROR]",
    "    End the waiting of a connection that a command blocks, by its timeout or an error.",
    "UNPAUSE",
    "    End a pause.",
];

pub(super) fn info(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    Ok(verbatim(connection.session.client.describe(request_bytes(args)) + "\n"))
}

/// Bytes of a command as clients send it: of the one that is being run they still count as its
/// connection's input, as in Redis.
fn request_bytes(args: &[Bytes]) -> usize {
    let header = |number: usize| format!("*{number}\r\n").len();
    let words = args.iter().map(|arg| header(arg.len()) + arg.len() + b"\r\n".len());
    header(args.len()) + words.sum::<usize>()
}

pub(super) fn list(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let clients = &connection.shared.clients;
    let chosen = match &args[2..] {
        [] => clients.all(),
        [option, name] if option.eq_ignore_ascii_case(b"TYPE") => {
            let kind = ClientKind::parse(name)?;
            clients.all().into_iter().filter(|client| kind.has(client)).collect()
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let mut chosen = Vec::new();
            for id in ids {
                let id = parse_int(id).and_then(|id| u64::try_from(id).ok());
                chosen.extend(clients.get(id.ok_or(CommandError::CLIENT_ID)?));
            }
            chosen
        }
        _ => return Err(CommandError::Syntax),
    };
    // Who was told to close is on the way out, and gone for whoever asks.
    let chosen = chosen.iter().filter(|client| !client.is_killed());
    let me = connection.session.client.id;
    let running = |client: &Client| if client.id == me { request_bytes(args) } else { 0 };
    let lines: Vec<String> = chosen.map(|client| client.describe(running(client)) + "\n").collect();
    Ok(verbatim(lines.concat()))
}

/// A type of connections, as CLIENT LIST and KILL tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientKind {
    Normal,
    PubSub,
    /// No connection here is of these.
    Replication,
}

impl ClientKind {
    fn parse(name: &[u8]) -> Result<ClientKind, CommandError> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(ClientKind::Normal),
            b"pubsub" => Ok(ClientKind::PubSub),
            b"master" | b"replica" | b"slave" => Ok(ClientKind::Replication),
            _ => Err(CommandError::ClientType(Echo::new(name))),
        }
    }

    fn has(self, client: &Client) -> bool {
        match self {
            ClientKind::Normal => !client.subscribes(),
            ClientKind::PubSub => client.subscribes(),
            ClientKind::Replication => false,
        }
    }
}

/// Whether a text may stand in CLIENT LIST: nothing that would end a field or a line.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// *Errors*: the name has blanks or unprintable characters.
pub(super) fn check_name(name: &[u8]) -> Result<(), CommandError> {
    if is_plain(name) { Ok(()) } else { Err(CommandError::CLIENT_NAME) }
}

pub(super) fn setname(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    check_name(&args[2])?;
    // Copied: a slice would keep the whole buffer it was read into.
    connection.session.client.names.lock().name = Bytes::copy_from_slice(&args[2]);
    Ok(Reply::OK)
}

pub(super) fn getname(connection: &Connection) -> Result<Reply, CommandError> {
    let name = connection.session.client.names.lock().name.clone();
    Ok(if name.is_empty() { Reply::Null } else { Reply::Bulk(name) })
}

pub(super) fn setinfo(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let mut names = connection.session.client.names.lock();
    let field = match args[2].to_ascii_lowercase().as_slice() {
        b"lib-name" => &mut names.library,
        b"lib-ver" => &mut names.library_version,
        _ => {
            return Err(CommandError::SetinfoOption(Echo::new(&args[2])));
        }
    };
    if !is_plain(&args[3]) {
        return Err(CommandError::SetinfoValue(Echo::new(&args[2])));
    }
    *field = Bytes::copy_from_slice(&args[3]);
    Ok(Reply::OK)
}

/// What CLIENT KILL is to close.
#[derive(Default)]
struct Victims {
    /// One of these numbers.
    ids: Option<Vec<u64>>,
    addr: Option<Bytes>,
    local_addr: Option<Bytes>,
    kind: Option<ClientKind>,
    /// Logged in as this user.
    user: Option<Arc<Account>>,
    age_min: Duration,
    skip_me: bool,
}

impl Victims {
    fn parse(options: &[Bytes], users: &Users) -> Result<Victims, CommandError> {
        let mut victims = Victims { skip_me: true, ..Victims::default() };
        let mut rest = options;
        while let [option, behind @ ..] = rest {
            let Some((value, behind)) = behind.split_first() else {
                return Err(CommandError::Syntax);
            };
            rest = behind;
            match option.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let number = |id: &Bytes| parse_int(id).filter(|id| *id > 0);
                    let first = number(value).ok_or(CommandError::CLIENT_ID_RANGE)?;
                    // More may follow; what is no number is the next option.
                    let more = rest.iter().map_while(number).collect::<Vec<_>>();
                    rest = &rest[more.len()..];
                    let ids = std::iter::once(first).chain(more).map(|id| id as u64);
                    victims.ids = Some(ids.collect());
                }
                b"type" => victims.kind = Some(ClientKind::parse(value)?),
                b"addr" => victims.addr = Some(value.clone()),
                b"laddr" => victims.local_addr = Some(value.clone()),
                b"user" => {
                    let account = users.get(value);
                    let none = || CommandError::NoSuchUser(Echo::new(value));
                    victims.user = Some(account.ok_or_else(none)?);
                }
                b"maxage" => {
                    let age = parse_int(value).ok_or(CommandError::MAXAGE)?;
                    let age = u64::try_from(age).ok().filter(|age| *age > 0);
                    victims.age_min = Duration::from_secs(age.ok_or(CommandError::MAXAGE_ZERO)?);
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => victims.skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => victims.skip_me = false,
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(victims)
    }

    fn has(&self, client: &Client, me: u64) -> bool {
        let is_at = |wanted: &Option<Bytes>, addr: std::net::SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| wanted == addr.to_string().as_bytes())
        };
        let spared = self.skip_me && client.id == me;
        !spared
            && self.kind.is_none_or(|kind| kind.has(client))
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.user.as_ref().is_none_or(|user| Arc::ptr_eq(user, &client.account()))
            && is_at(&self.addr, client.peer)
            && is_at(&self.local_addr, client.local)
            && client.since.elapsed() >= self.age_min
    }
}

pub(super) fn kill(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let old_form = args.len() == 3;
    let victims = if old_form {
        Victims { addr: Some(args[2].clone()), ..Victims::default() }
    } else {
        Victims::parse(&args[2..], &connection.shared.users)?
    };
    let me = connection.session.client.id;
    let all = connection.shared.clients.all();
    let killed: Vec<&Arc<Client>> = all.iter().filter(|client| victims.has(client, me)).collect();
    for client in &killed {
        if client.id == me {
            // It still gets its reply.
            connection.session.closing = true;
            client.closing.store(true, Relaxed);
        } else {
            client.kill();
        }
    }
    match (old_form, killed.len()) {
        (true, 0) => Err(CommandError::NO_SUCH_CLIENT),
        (true, _) => Ok(Reply::OK),
        (false, count) => Ok(Reply::Integer(count as i64)),
    }
}

pub(super) fn reply(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let session = &mut connection.session;
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => {
            session.reply_mode = ReplyMode::On;
            Ok(Reply::OK)
        }
        b"off" => {
            session.reply_mode = ReplyMode::Off;
            Ok(NO_REPLY)
        }
        b"skip" => {
            // This command ends first, and it is its end that would use the skip up: also when it
            // is itself the one that was to be skipped.
            if session.reply_mode != ReplyMode::Off {
                session.reply_mode = ReplyMode::SkipAfterThis;
            }
            Ok(NO_REPLY)
        }
        _ => Err(CommandError::Syntax),
    }
}

pub(super) fn pause(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let mode = match args.get(3) {
        None => PauseMode::All,
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => PauseMode::All,
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => PauseMode::Writes,
        Some(_) => return Err(CommandError::PAUSE_MODE),
    };
    if args.len() > 4 {
        return Err(CommandError::Syntax);
    }
    let timeout_ms = parse_int(&args[2]).ok_or(CommandError::PAUSE_NOT_INTEGER)?;
    let timeout_ms = u64::try_from(timeout_ms).map_err(|_| CommandError::PAUSE_NEGATIVE)?;
    let until = Instant::now() + Duration::from_millis(timeout_ms).min(PAUSE_MAX);
    let shared = &connection.shared;
    shared.clients.pause(mode, until, |until| {
        // Nothing is to change meanwhile: what expires is hidden, and stays.
        let left_ms = until.saturating_duration_since(Instant::now()).as_millis() as u64;
        shared.storage.keep_expired_until(shared.now_us() / 1_000 + left_ms);
    });
    Ok(Reply::OK)
}

pub(super) fn unblock(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let how = match args {
        [_, _, _] => Unblock::Timeout,
        [_, _, _, how] if how.eq_ignore_ascii_case(b"TIMEOUT") => Unblock::Timeout,
        [_, _, _, how] if how.eq_ignore_ascii_case(b"ERROR") => Unblock::Error,
        [_, _, _, _] => return Err(CommandError::UNBLOCK_REASON),
        _ => return Err(CommandError::SubcommandSyntax(Echo::new(&args[1]), "CLIENT")),
    };
    let id = parse_int(&args[2]).ok_or(CommandError::NotInteger)?;
    let client = u64::try_from(id).ok().and_then(|id| connection.shared.clients.get(id));
    let ended = client.is_some_and(|client| client.end_block(how));
    Ok(Reply::Integer(i64::from(ended)))
}

pub(super) fn unpause(connection: &Connection) -> Result<Reply, CommandError> {
    let shared = &connection.shared;
    shared.clients.unpause(|| shared.storage.keep_expired_until(0));
    Ok(Reply::OK)
}

fn on_or_off(arg: &[u8]) -> Result<bool, CommandError> {
    match arg.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// CLIENT MAINT_NOTIFICATIONS: routers are not moved, and what happens behind them is no client's
/// business, so that there is nothing to be told of.
pub(super) fn maint_notifications(args: &[Bytes]) -> Result<Reply, CommandError> {
    on_or_off(&args[2]).map(|_| Reply::OK)
}

pub(super) fn no_evict(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    connection.session.client.no_evict.store(on_or_off(&args[2])?, Relaxed);
    Ok(Reply::OK)
}

pub(super) fn no_touch(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    connection.session.client.no_touch.store(on_or_off(&args[2])?, Relaxed);
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_victims() {
        let ids = |options: &[&'static str]| {
            let options: Vec<Bytes> = options.iter().map(|word| Bytes::from(*word)).collect();
            Victims::parse(&options, &Users::new("")).map(|victims| (victims.ids, victims.skip_me))
        };
        assert_eq!(ids(&["id", "7"]), Ok((Some(vec![7]), true)));
        assert_eq!(ids(&["ID", "7", "9", "skipme", "no"]), Ok((Some(vec![7, 9]), false)));
        assert_eq!(ids(&["skipme", "no", "id", "7", "9"]), Ok((Some(vec![7, 9]), false)));
        for wrong in [&["id", "7", "x"][..], &["id", "7", "0"], &["id", "7", "addr"], &["id"]] {
            assert_eq!(ids(wrong), Err(CommandError::Syntax), "{wrong:?}");
        }
        for wrong in [&["id", "0"][..], &["id", "-1", "7"], &["id", "x"]] {
            assert_eq!(ids(wrong), Err(CommandError::CLIENT_ID_RANGE), "{wrong:?}");
        }
    }

    #[test]
    fn ages_of_victims() {
        let age_min = |age: &'static str| {
            let options = ["maxage", age].map(Bytes::from);
            Victims::parse(&options, &Users::new("")).map(|victims| victims.age_min)
        };
        assert_eq!(age_min("7"), Ok(Duration::from_secs(7)));
        for (age, error) in [
            ("0", CommandError::MAXAGE_ZERO),
            ("-1", CommandError::MAXAGE_ZERO),
            ("str", CommandError::MAXAGE),
            ("9999999999999999999", CommandError::MAXAGE),
        ] {
            assert_eq!(age_min(age), Err(error), "{age}");
        }
    }
}

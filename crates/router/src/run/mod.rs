//! The commands a router runs itself: on the session, the connections, the statistics.
//!
//! Each takes the connection and the command line (arity is checked) and answers a reply at once.
//! WAIT, WATCH, EXEC and COPY between tables have to wait for others, BLPOP and its like for data;
//! `dispatch.rs` runs those.

mod absent;
pub(crate) mod acl;
pub(crate) mod admin;
pub(crate) mod batch;
mod block;
mod client;
pub(crate) mod cluster;
pub(crate) mod command;
mod config;
pub(crate) mod copy;
pub(crate) mod debug;
mod handshake;
mod info;
mod latency;
mod memory;
pub(crate) mod migrate;
pub(crate) mod pubsub;
mod scripting;
mod server;
mod syntax;
mod tracking;
pub(crate) mod transaction;
pub(crate) mod wait;

use bytes::Bytes;
use commands::{CommandError, Session};
use wire::resp::Reply;

pub(crate) use self::server::swapdb;

use crate::Shared;
use crate::clients::Client;
use crate::connection::Connection;

/// Runs a command on the session or the router.
pub(crate) fn run(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    match what {
        Session::Ping => handshake::ping(connection, args),
        Session::Echo => Ok(Reply::Bulk(args[1].clone())),
        Session::Hello => handshake::hello(connection, args),
        Session::Auth => handshake::auth(connection, args),
        Session::Select => handshake::select(connection, args),
        Session::Quit => handshake::quit(connection),
        Session::Reset => handshake::reset(connection),
        Session::Multi => transaction::multi(connection),
        Session::Discard => transaction::discard(connection),
        Session::Unwatch => Ok(transaction::unwatch(connection)),
        Session::ClientId => Ok(Reply::Integer(connection.session.client.id as i64)),
        Session::ClientInfo => client::info(connection, args),
        Session::ClientList => client::list(connection, args),
        Session::ClientSetname => client::setname(connection, args),
        Session::ClientGetname => client::getname(connection),
        Session::ClientSetinfo => client::setinfo(connection, args),
        Session::ClientKill => client::kill(connection, args),
        Session::ClientReply => client::reply(connection, args),
        Session::ClientPause => client::pause(connection, args),
        Session::ClientUnpause => client::unpause(connection),
        Session::ClientUnblock => client::unblock(connection, args),
        Session::ClientNoEvict => client::no_evict(connection, args),
        Session::ClientNoTouch => client::no_touch(connection, args),
        Session::ClientCapa => Ok(Reply::OK),
        Session::ClientMaintNotifications => client::maint_notifications(args),
        Session::ConfigGet => Ok(config::get(connection, args)),
        Session::ConfigSet => config::set(connection, args),
        Session::ConfigResetstat => Ok(config::resetstat(connection)),
        Session::ConfigRewrite => config::rewrite(connection),
        Session::Info => {
            // What this connection counted in its present pipeline belongs in the picture.
            connection.caller.count();
            Ok(info::info(&connection.shared, args))
        }
        Session::Time => Ok(server::time(connection)),
        Session::Shutdown => server::shutdown(connection, args),
        Session::LatencyLatest => Ok(latency::latest(connection)),
        Session::LatencyHistory => Ok(latency::history(connection, args)),
        Session::LatencyReset => Ok(latency::reset(connection, args)),
        Session::LatencyHistogram => Ok(latency::histogram(connection, args)),
        Session::LatencyGraph => latency::graph(connection, args),
        Session::LatencyDoctor => Ok(latency::doctor(connection)),
        Session::AdminStatus => Ok(admin::status(connection)),
        Session::AdminPartitions => Ok(admin::partitions(connection)),
        Session::AdminCacheFlush => admin::cache_flush(connection, args),
        Session::AdminFault => admin::fault(connection, args),
        other => of_scripts(other, connection, args),
    }
}

/// The commands of which a file has many.
fn of_other_files(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    if let Some(reply) = acl::run(what, connection, args) {
        return reply;
    }
    if let Some(reply) = pubsub::run(what, connection, args) {
        return reply;
    }
    if let Some(reply) = tracking::run(what, connection, args) {
        return reply;
    }
    let asker = connection.asker();
    // WAIT, WATCH, EXEC, COPY and orders are run where they may wait; a row added later is not forgotten
    // in silence.
    answer(what, asker, args)
        .unwrap_or_else(|| Err(CommandError::Operator(format!("{what:?} cannot be run here"))))
}

/// Commands about scripts and functions.
fn of_scripts(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    match what {
        Session::ScriptLoad
        | Session::ScriptExists
        | Session::ScriptFlush
        | Session::ScriptKill
        | Session::ScriptDebug
        | Session::FunctionStats
        | Session::FunctionKill => scripting::run(what, connection, args),
        other => of_other_files(other, connection, args),
    }
}

/// Who asks something that does not depend on the state of a session.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) client: &'a Client,
}

impl Connection {
    /// The connection as who asks.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { shared: &self.shared, client: &self.session.client }
    }
}

/// Answers a command that neither depends on the state of a session nor changes it: what a script may
/// ask, too. `None` if it is none of these.
pub(crate) fn answer(
    what: Session,
    asker: Asker<'_>,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    let shared = asker.shared;
    if let Some(reply) = pubsub::answer(what, shared, args) {
        return Some(reply);
    }
    if let Some(reply) = cluster::run(what, asker, args) {
        return Some(reply);
    }
    if let Some(reply) = absent::run(what, shared, args) {
        return Some(reply);
    }
    Some(match what {
        Session::CommandAll => Ok(command::all()),
        Session::CommandCount => Ok(command::count()),
        Session::CommandDocs => Ok(command::docs(args)),
        Session::CommandInfo => Ok(command::info(args)),
        Session::CommandList => command::list(args),
        Session::CommandGetkeys => command::getkeys(args),
        Session::CommandGetkeysandflags => command::getkeysandflags(args),
        Session::Info => Ok(info::info(shared, args)),
        Session::MemoryDoctor | Session::MemoryStats => Ok(memory::run(what, shared)),
        Session::MemoryPurge => Ok(memory::purge()),
        Session::MemoryMallocStats => Ok(memory::malloc_stats(shared)),
        Session::SlowlogGet => server::slowlog_get(shared, args),
        Session::SlowlogLen => Ok(server::slowlog_len(shared)),
        Session::SlowlogReset => Ok(server::slowlog_reset(shared)),
        Session::ObjectHelp => Ok(commands::object_help()),
        Session::PfSelftest => Ok(commands::hyperloglog_self_test(0)),
        _ => return help_of(what).map(Ok),
    })
}

/// HELP of a group.
fn help_of(what: Session) -> Option<Reply> {
    let (group, lines) = match what {
        Session::ClientHelp => ("CLIENT", client::HELP),
        Session::CommandHelp => ("COMMAND", command::HELP),
        Session::ConfigHelp => ("CONFIG", config::HELP),
        Session::MemoryHelp => ("MEMORY", memory::HELP),
        Session::SlowlogHelp => ("SLOWLOG", server::SLOWLOG_HELP),
        Session::LatencyHelp => ("LATENCY", latency::HELP),
        Session::AdminHelp => ("ADMIN", admin::HELP),
        Session::ScriptHelp => ("SCRIPT", scripting::SCRIPT_HELP),
        Session::FunctionHelp => ("FUNCTION", scripting::FUNCTION_HELP),
        Session::AclHelp => ("ACL", acl::HELP),
        Session::XgroupHelp => ("XGROUP", commands::XGROUP_HELP),
        Session::XinfoHelp => ("XINFO", commands::XINFO_HELP),
        _ => return None,
    };
    Some(help(group, lines))
}

/// Whether a command's answer is made of what the storage nodes say of themselves.
pub(crate) fn asks_nodes(what: Session) -> bool {
    matches!(
        what,
        Session::Info | Session::MemoryDoctor | Session::MemoryStats | Session::MemoryMallocStats
    )
}

/// The reply of a HELP subcommand: a line per line, as Redis frames it.
fn help(group: &str, lines: &'static [&'static str]) -> Reply {
    let head = format!("{group} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut reply = vec![Reply::Status(Bytes::from(head))];
    reply.extend(lines.iter().map(|line| Reply::Simple(line)));
    reply.extend([Reply::Simple("HELP"), Reply::Simple("    Print this help.")]);
    Reply::Array(reply)
}

/// A bulk of a text made at run time.
fn text(text: impl Into<String>) -> Reply {
    Reply::Bulk(Bytes::from(text.into()))
}

/// A bulk of a fixed text.
fn word(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

/// A text for people: verbatim in RESP3.
fn verbatim(text: String) -> Reply {
    Reply::Verbatim { format: *b"txt", text: Bytes::from(text) }
}

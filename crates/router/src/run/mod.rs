//! The commands a router runs itself: on the session, the connections, the statistics.
//!
//! Each takes the connection and the command line (arity is checked) and answers a reply at once.
//! WAIT, WATCH, EXEC and COPY between tables have to wait for others, BLPOP and its like for data;
//! `dispatch.rs` runs those.

mod absent;
pub(crate) mod acl;
pub(crate) mod admin;
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
mod pubsub;
mod server;
mod syntax;
mod tracking;
pub(crate) mod transaction;
pub(crate) mod wait;

use bytes::Bytes;
use commands::{CommandError, Session};
use wire::resp::Reply;

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
        Session::ClientInfo => client::info(connection),
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
        Session::ClientHelp => Ok(help("CLIENT", client::HELP)),
        Session::CommandAll => Ok(command::all()),
        Session::CommandCount => Ok(command::count()),
        Session::CommandDocs => Ok(command::docs(args)),
        Session::CommandInfo => Ok(command::info(args)),
        Session::CommandList => command::list(args),
        Session::CommandGetkeys => command::getkeys(args),
        Session::CommandGetkeysandflags => command::getkeysandflags(args),
        Session::CommandHelp => Ok(help("COMMAND", command::HELP)),
        Session::ConfigGet => Ok(config::get(connection, args)),
        Session::ConfigSet => config::set(connection, args),
        Session::ConfigResetstat => Ok(config::resetstat(connection)),
        Session::ConfigRewrite => config::rewrite(connection),
        Session::ConfigHelp => Ok(help("CONFIG", config::HELP)),
        Session::Info => Ok(info::info(connection, args)),
        Session::MemoryDoctor | Session::MemoryStats => Ok(memory::run(what, connection)),
        Session::MemoryPurge => memory::purge(connection),
        Session::MemoryMallocStats => Ok(memory::malloc_stats(connection)),
        Session::MemoryHelp => Ok(help("MEMORY", memory::HELP)),
        Session::Time => Ok(server::time(connection)),
        Session::Shutdown | Session::Swapdb => server::run(what, connection, args),
        Session::SlowlogGet => server::slowlog_get(connection, args),
        Session::SlowlogLen => Ok(server::slowlog_len(connection)),
        Session::SlowlogReset => Ok(server::slowlog_reset(connection)),
        Session::SlowlogHelp => Ok(help("SLOWLOG", server::SLOWLOG_HELP)),
        Session::LatencyLatest => Ok(latency::latest(connection)),
        Session::LatencyHistory => Ok(latency::history(connection, args)),
        Session::LatencyReset => Ok(latency::reset(connection, args)),
        Session::LatencyHistogram => Ok(latency::histogram(connection, args)),
        Session::LatencyGraph => latency::graph(connection, args),
        Session::LatencyDoctor => Ok(latency::doctor(connection)),
        Session::LatencyHelp => Ok(help("LATENCY", latency::HELP)),
        Session::AdminStatus => Ok(admin::status(connection)),
        Session::AdminPartitions => Ok(admin::partitions(connection)),
        Session::AdminCacheFlush => admin::cache_flush(connection, args),
        Session::AdminFault => admin::fault(connection, args),
        Session::AdminHelp => Ok(help("ADMIN", admin::HELP)),
        other => of_other_files(other, connection, args),
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
    if let Some(reply) = cluster::run(what, connection, args) {
        return reply;
    }
    if let Some(reply) = absent::run(what, connection, args) {
        return reply;
    }
    of_commands(what)
}

/// Answers that the crate of the commands has ready, and which no partition needs to be asked for.
fn of_commands(what: Session) -> Result<Reply, CommandError> {
    Ok(match what {
        Session::ObjectHelp => commands::object_help(),
        Session::XgroupHelp => help("XGROUP", commands::XGROUP_HELP),
        Session::XinfoHelp => help("XINFO", commands::XINFO_HELP),
        Session::PfSelftest => commands::hyperloglog_self_test(0),
        // WAIT, WATCH, EXEC, COPY and orders are run where they may wait; a row added later is not forgotten in silence.
        other => return Err(CommandError::Operator(format!("{other:?} cannot be run here"))),
    })
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

//! Server commands; the router runs them (`router::run`), but for MEMORY USAGE, which looks at a key.

use wire::resp::Reply;

use crate::args::Args;
use crate::command::{
    Command, Flags, KeyFlags, Keys, Session, at_least, exactly, group, key, read, session,
};
use crate::error::CommandError;
use crate::rows;
use crate::types::keyspace;
use crate::view::View;

const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const ADMIN: Flags = Flags(ANYTIME.0 | Flags::ADMIN.0);
const ADMIN_NOSCRIPT: Flags = Flags(ADMIN.0 | Flags::NOSCRIPT.0);
const INFO: Flags = Flags(ANYTIME.0 | Flags::DANGEROUS.0);

const LOLWUT: Flags = Flags(Flags::READONLY.0 | Flags::FAST.0);
const SWAPDB: Flags = Flags(Flags::WRITE.0 | Flags::FAST.0 | Flags::DANGEROUS.0);
const TIME: Flags = Flags(ANYTIME.0 | Flags::FAST.0);
const SHUTDOWN: Flags = Flags(ADMIN_NOSCRIPT.0 | Flags::NO_MULTI.0 | Flags::ALLOW_BUSY.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name       arity        flags        keys        what
    session("INFO",     at_least(1), INFO,        Keys::None, Session::Info),
    session("SWAPDB",   exactly(3),  SWAPDB,      Keys::None, Session::Swapdb),
    session("TIME",     exactly(1),  TIME,        Keys::None, Session::Time),
    session("MONITOR",  exactly(1),  ADMIN_NOSCRIPT, Keys::None, Session::Monitor),
    session("SHUTDOWN", at_least(1), SHUTDOWN,    Keys::None, Session::Shutdown),
    session("DEBUG",    at_least(2), ADMIN_NOSCRIPT, Keys::None, Session::Debug),
    session("LOLWUT",   at_least(1), LOLWUT,      Keys::None, Session::Lolwut),
    group(  "CONFIG",   at_least(2), Flags::NONE, CONFIG_ROWS),
    group(  "MEMORY",   at_least(2), Flags::NONE, MEMORY_ROWS),
    group(  "SLOWLOG",  at_least(2), Flags::NONE, SLOWLOG_ROWS),
    group(  "LATENCY",  at_least(2), Flags::NONE, LATENCY_ROWS),
];

#[rustfmt::skip]
const CONFIG_ROWS: &[Command] = &[
    session("GET",       at_least(3), ADMIN_NOSCRIPT, Keys::None, Session::ConfigGet),
    session("SET",       at_least(4), ADMIN_NOSCRIPT, Keys::None, Session::ConfigSet),
    session("RESETSTAT", exactly(2),  ADMIN_NOSCRIPT, Keys::None, Session::ConfigResetstat),
    session("REWRITE",   exactly(2),  ADMIN_NOSCRIPT, Keys::None, Session::ConfigRewrite),
    session("HELP",      exactly(2),  ANYTIME,        Keys::None, Session::ConfigHelp),
];

#[rustfmt::skip]
const MEMORY_ROWS: &[Command] = &[
    session("DOCTOR", exactly(2),  Flags::NONE, Keys::None,           Session::MemoryDoctor),
    session("STATS",  exactly(2),  Flags::NONE, Keys::None,           Session::MemoryStats),
    session("MALLOC-STATS", exactly(2), Flags::NONE, Keys::None,      Session::MemoryMallocStats),
    session("PURGE",  exactly(2),  Flags::NONE, Keys::None,           Session::MemoryPurge),
    read   ("USAGE",  at_least(3), Flags::NONE, key(2, KeyFlags::RO), memory_usage),
    session("HELP",   exactly(2),  ANYTIME,     Keys::None,           Session::MemoryHelp),
];

#[rustfmt::skip]
const SLOWLOG_ROWS: &[Command] = &[
    session("GET",   at_least(2), ADMIN,   Keys::None, Session::SlowlogGet),
    session("LEN",   exactly(2),  ADMIN,   Keys::None, Session::SlowlogLen),
    session("RESET", exactly(2),  ADMIN,   Keys::None, Session::SlowlogReset),
    session("HELP",  exactly(2),  ANYTIME, Keys::None, Session::SlowlogHelp),
];

#[rustfmt::skip]
const LATENCY_ROWS: &[Command] = &[
    session("LATEST",    exactly(2),  ADMIN_NOSCRIPT, Keys::None, Session::LatencyLatest),
    session("HISTORY",   exactly(3),  ADMIN_NOSCRIPT, Keys::None, Session::LatencyHistory),
    session("RESET",     at_least(2), ADMIN_NOSCRIPT, Keys::None, Session::LatencyReset),
    session("HISTOGRAM", at_least(2), ADMIN_NOSCRIPT, Keys::None, Session::LatencyHistogram),
    session("GRAPH",     exactly(3),  ADMIN_NOSCRIPT, Keys::None, Session::LatencyGraph),
    session("DOCTOR",    exactly(2),  ADMIN_NOSCRIPT, Keys::None, Session::LatencyDoctor),
    session("HELP",      exactly(2),  ANYTIME,        Keys::None, Session::LatencyHelp),
];

/// Bytes of a row's checksum.
const SEAL_BYTES: usize = 4;

/// Bytes of a key's rows on one replica: its header, its row in the TTL index, and the elements of a
/// collection that has rows of its own, as its header counts them. Nothing is sampled, so SAMPLES
/// changes nothing.
fn memory_usage(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        if word.as_bytes() != b"SAMPLES" || options.int()? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let key = args.bytes(2)?;
    let row = rows::header_key_on_stack(view.table(), key);
    let Some(value) = view.get(&row)? else { return Ok(Reply::Null) };
    let Some(header) = keyspace::read_row(view, &value)? else { return Ok(Reply::Null) };
    let ttl_row = header.expire_at_ms.map(|at| rows::ttl_key(view.table(), at, key));
    let elements = if header.value.generation().is_some() { header.value.bytes() } else { 0 };
    let bytes = row.len() + value.len() + SEAL_BYTES;
    let bytes = bytes + ttl_row.map_or(0, |row| row.len() + SEAL_BYTES);
    Ok(Reply::Integer(i64::try_from(bytes as u64 + elements).unwrap_or(i64::MAX)))
}

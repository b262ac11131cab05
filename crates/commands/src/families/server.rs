//! Server commands; the router runs them (`router::run`).

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const ADMIN: Flags = Flags(ANYTIME.0 | Flags::ADMIN.0);
const ADMIN_NOSCRIPT: Flags = Flags(ADMIN.0 | Flags::NOSCRIPT.0);
const INFO: Flags = Flags(ANYTIME.0 | Flags::DANGEROUS.0);
const TIME: Flags = Flags(ANYTIME.0 | Flags::FAST.0);
const SHUTDOWN: Flags = Flags(ADMIN_NOSCRIPT.0 | Flags::NO_MULTI.0 | Flags::ALLOW_BUSY.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name       arity        flags        keys        what
    session("INFO",     at_least(1), INFO,        Keys::None, Session::Info),
    session("TIME",     exactly(1),  TIME,        Keys::None, Session::Time),
    session("SHUTDOWN", at_least(1), SHUTDOWN,    Keys::None, Session::Shutdown),
    group(  "CONFIG",   at_least(2), Flags::NONE, CONFIG_ROWS),
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

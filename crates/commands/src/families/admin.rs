//! Evenkeel's own operator commands; the router runs them (`router::run::admin`).

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

const ADMIN: Flags = Flags(
    Flags::ADMIN.0 | Flags::NOSCRIPT.0 | Flags::LOADING.0 | Flags::STALE.0 | Flags::ALLOW_BUSY.0,
);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    group("ADMIN", at_least(2), Flags::NONE, ADMIN_ROWS),
];

#[rustfmt::skip]
const ADMIN_ROWS: &[Command] = &[
    //       name          arity        flags  keys        what
    session("STATUS",      exactly(2),  ADMIN, Keys::None, Session::AdminStatus),
    session("PARTITIONS",  exactly(2),  ADMIN, Keys::None, Session::AdminPartitions),
    session("CACHE",       at_least(3), ADMIN, Keys::None, Session::AdminCacheFlush),
    session("FAULT",       at_least(3), ADMIN, Keys::None, Session::AdminFault),
    session("REPLICA",     at_least(5), ADMIN, Keys::None, Session::AdminReplica),
    session("TRANSFER",    exactly(4),  ADMIN, Keys::None, Session::AdminTransfer),
    session("HELP",        exactly(2),  ADMIN, Keys::None, Session::AdminHelp),
];

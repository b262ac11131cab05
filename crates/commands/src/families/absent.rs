//! Redis's commands about what Evenkeel does otherwise: snapshots, a replication stream, modules. Tools
//! ask for them, so each has an answer that says what is the case (`router::run::absent`).

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const QUICK: Flags = Flags(ANYTIME.0 | Flags::FAST.0 | Flags::ADMIN_CATEGORY.0);
const ROLE: Flags = Flags(QUICK.0 | Flags::NOSCRIPT.0);
const ADMIN: Flags = Flags(Flags::ADMIN.0 | Flags::NOSCRIPT.0);
const LOADED: Flags = Flags(ADMIN.0 | Flags::NO_ASYNC_LOADING.0);
const ALONE: Flags = Flags(LOADED.0 | Flags::NO_MULTI.0);
const FOLLOW: Flags = Flags(LOADED.0 | Flags::STALE.0);
const FAILOVER: Flags = Flags(ADMIN.0 | Flags::STALE.0);
const REPLCONF: Flags = Flags(ADMIN.0 | ANYTIME.0 | Flags::ALLOW_BUSY.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name            arity        flags        keys        what
    session("BGREWRITEAOF",  exactly(1),  LOADED,      Keys::None, Session::Bgrewriteaof),
    session("BGSAVE",        at_least(1), LOADED,      Keys::None, Session::NoSnapshots),
    session("FAILOVER",      at_least(1), FAILOVER,    Keys::None, Session::NoReplication),
    session("LASTSAVE",      exactly(1),  QUICK,       Keys::None, Session::Lastsave),
    group(  "MODULE",        at_least(2), Flags::NONE, MODULE_ROWS),
    session("PSYNC",         at_least(3), ALONE,       Keys::None, Session::NoReplication),
    session("REPLCONF",      at_least(1), REPLCONF,    Keys::None, Session::NoReplication),
    session("REPLICAOF",     exactly(3),  FOLLOW,      Keys::None, Session::Replicaof),
    session("ROLE",          exactly(1),  ROLE,        Keys::None, Session::Role),
    session("SAVE",          exactly(1),  ALONE,       Keys::None, Session::NoSnapshots),
    session("SLAVEOF",       exactly(3),  FOLLOW,      Keys::None, Session::Replicaof),
    session("SYNC",          exactly(1),  ALONE,       Keys::None, Session::NoReplication),
];

#[rustfmt::skip]
const MODULE_ROWS: &[Command] = &[
    session("LIST",   exactly(2),  ADMIN,   Keys::None, Session::ModuleList),
    session("LOAD",   at_least(3), LOADED,  Keys::None, Session::NoModules),
    session("LOADEX", at_least(3), LOADED,  Keys::None, Session::NoModules),
    session("UNLOAD", exactly(3),  LOADED,  Keys::None, Session::NoModules),
    session("HELP",   exactly(2),  ANYTIME, Keys::None, Session::ModuleHelp),
];

//! Transactions; the router keeps the queue (`router::run::transaction`), the partition's leader runs
//! it as one (`storage::transaction`).

use crate::command::{
    Command, Flags, KeyFlags, Keys, Session, at_least, exactly, keys_from, session,
};

const ANYTIME: Flags = Flags(Flags::NOSCRIPT.0 | Flags::LOADING.0 | Flags::STALE.0);
const QUICK: Flags = Flags(ANYTIME.0 | Flags::FAST.0 | Flags::ALLOW_BUSY.0);
const EXEC: Flags = Flags(ANYTIME.0 | Flags::SKIP_SLOWLOG.0);
const WATCHED: Keys = keys_from(1, 1, KeyFlags::RO);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name       arity        flags  keys        what
    session("DISCARD",  exactly(1),  QUICK, Keys::None, Session::Discard),
    session("EXEC",     exactly(1),  EXEC,  Keys::None, Session::Exec),
    session("MULTI",    exactly(1),  QUICK, Keys::None, Session::Multi),
    session("UNWATCH",  exactly(1),  QUICK, Keys::None, Session::Unwatch),
    session("WATCH",    at_least(2), QUICK, WATCHED,    Session::Watch),
];

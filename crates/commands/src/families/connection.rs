//! Connection commands; the router runs them on the session (`router::run`).

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

/// What may be said before AUTH.
const HANDSHAKE: Flags = Flags(
    Flags::NOSCRIPT.0
        | Flags::LOADING.0
        | Flags::STALE.0
        | Flags::FAST.0
        | Flags::NO_AUTH.0
        | Flags::ALLOW_BUSY.0,
);
const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const CLIENT: Flags = Flags(ANYTIME.0 | Flags::NOSCRIPT.0);
const CLIENT_ADMIN: Flags = Flags(CLIENT.0 | Flags::ADMIN.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name       arity        flags                          keys        what
    session("PING",     at_least(1), Flags::FAST,                   Keys::None, Session::Ping),
    session("ECHO",     exactly(2),  Flags(ANYTIME.0 | Flags::FAST.0), Keys::None, Session::Echo),
    session("HELLO",    at_least(1), HANDSHAKE,                     Keys::None, Session::Hello),
    session("AUTH",     at_least(2), HANDSHAKE,                     Keys::None, Session::Auth),
    session("SELECT",   exactly(2),  Flags(ANYTIME.0 | Flags::FAST.0), Keys::None, Session::Select),
    session("QUIT",     at_least(1), HANDSHAKE,                     Keys::None, Session::Quit),
    session("RESET",    exactly(1),  HANDSHAKE,                     Keys::None, Session::Reset),
    group(  "CLIENT",   at_least(2), Flags::NONE,                   CLIENT_ROWS),
    group(  "COMMAND",  at_least(1), ANYTIME,                       COMMAND_ROWS),
    session("WAIT",     exactly(3),  Flags::NONE,                   Keys::None, Session::Wait),
    session("WAITAOF",  exactly(4),  Flags::NONE,                   Keys::None, Session::Waitaof),
];

#[rustfmt::skip]
const CLIENT_ROWS: &[Command] = &[
    session("ID",       exactly(2),  CLIENT,       Keys::None, Session::ClientId),
    session("INFO",     exactly(2),  CLIENT,       Keys::None, Session::ClientInfo),
    session("LIST",     at_least(2), CLIENT_ADMIN, Keys::None, Session::ClientList),
    session("SETNAME",  exactly(3),  CLIENT,       Keys::None, Session::ClientSetname),
    session("GETNAME",  exactly(2),  CLIENT,       Keys::None, Session::ClientGetname),
    session("SETINFO",  exactly(4),  CLIENT,       Keys::None, Session::ClientSetinfo),
    session("KILL",     at_least(3), CLIENT_ADMIN, Keys::None, Session::ClientKill),
    session("REPLY",    exactly(3),  CLIENT,       Keys::None, Session::ClientReply),
    session("PAUSE",    at_least(3), CLIENT_ADMIN, Keys::None, Session::ClientPause),
    session("UNPAUSE",  exactly(2),  CLIENT_ADMIN, Keys::None, Session::ClientUnpause),
    session("UNBLOCK",  at_least(3), CLIENT_ADMIN, Keys::None, Session::ClientUnblock),
    session("GETREDIR", exactly(2),  CLIENT,       Keys::None, Session::ClientGetredir),
    session("TRACKING", at_least(3), CLIENT,       Keys::None, Session::ClientTracking),
    session("CACHING",  exactly(3),  CLIENT,       Keys::None, Session::ClientCaching),
    session("TRACKINGINFO", exactly(2), CLIENT,    Keys::None, Session::ClientTrackinginfo),
    session("NO-EVICT", exactly(3),  CLIENT_ADMIN, Keys::None, Session::ClientNoEvict),
    session("NO-TOUCH", exactly(3),  CLIENT,       Keys::None, Session::ClientNoTouch),
    session("CAPA",     at_least(3), CLIENT,       Keys::None, Session::ClientCapa),
    session("MAINT_NOTIFICATIONS", at_least(3), CLIENT, Keys::None, Session::ClientMaintNotifications),
    session("HELP",     exactly(2),  ANYTIME,      Keys::None, Session::ClientHelp),
];

#[rustfmt::skip]
const COMMAND_ROWS: &[Command] = &[
    session("COUNT",   exactly(2),  ANYTIME, Keys::None, Session::CommandCount),
    session("DOCS",    at_least(2), ANYTIME, Keys::None, Session::CommandDocs),
    session("INFO",    at_least(2), ANYTIME, Keys::None, Session::CommandInfo),
    session("LIST",    at_least(2), ANYTIME, Keys::None, Session::CommandList),
    session("GETKEYS", at_least(3), ANYTIME, Keys::None, Session::CommandGetkeys),
    session("GETKEYSANDFLAGS", at_least(3), ANYTIME, Keys::None, Session::CommandGetkeysandflags),
    session("HELP",    exactly(2),  ANYTIME, Keys::None, Session::CommandHelp),
];

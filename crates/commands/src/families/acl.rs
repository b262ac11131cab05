//! ACL; the router runs it (`router::run::acl`), by the rules of [`crate::acl`].

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const ANYONE: Flags = Flags(ANYTIME.0 | Flags::NOSCRIPT.0);
const ADMIN: Flags = Flags(ANYONE.0 | Flags::ADMIN.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    group("ACL", at_least(2), Flags::NONE, ACL_ROWS),
];

#[rustfmt::skip]
const ACL_ROWS: &[Command] = &[
    //       name       arity        flags    keys        what
    session("CAT",      at_least(2), ANYONE,  Keys::None, Session::AclCat),
    session("DELUSER",  at_least(3), ADMIN,   Keys::None, Session::AclDeluser),
    session("DRYRUN",   at_least(4), ADMIN,   Keys::None, Session::AclDryrun),
    session("GENPASS",  at_least(2), ANYONE,  Keys::None, Session::AclGenpass),
    session("GETUSER",  exactly(3),  ADMIN,   Keys::None, Session::AclGetuser),
    session("LIST",     exactly(2),  ADMIN,   Keys::None, Session::AclList),
    session("LOAD",     exactly(2),  ADMIN,   Keys::None, Session::AclLoad),
    session("LOG",      at_least(2), ADMIN,   Keys::None, Session::AclLog),
    session("SAVE",     exactly(2),  ADMIN,   Keys::None, Session::AclSave),
    session("SETUSER",  at_least(3), ADMIN,   Keys::None, Session::AclSetuser),
    session("USERS",    exactly(2),  ADMIN,   Keys::None, Session::AclUsers),
    session("WHOAMI",   exactly(2),  ANYONE,  Keys::None, Session::AclWhoami),
    session("HELP",     exactly(2),  ANYTIME, Keys::None, Session::AclHelp),
];

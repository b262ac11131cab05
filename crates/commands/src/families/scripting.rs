//! Scripts and functions. The leader of a partition runs them (`storage::script`), the router what is
//! about the scripts of all nodes.

use crate::command::{
    Command, Flags, KeyFlags, Keys, Script, Session, at_least, exactly, group, script, session,
};

const NOSCRIPT: Flags = Flags::NOSCRIPT;
const SCRIPT: Flags = Flags(
    NOSCRIPT.0
        | Flags::STALE.0
        | Flags::SKIP_MONITOR.0
        | Flags::NO_MANDATORY_KEYS.0
        | Flags::MAY_REPLICATE.0,
);
const SCRIPT_RO: Flags = Flags(
    NOSCRIPT.0
        | Flags::STALE.0
        | Flags::SKIP_MONITOR.0
        | Flags::NO_MANDATORY_KEYS.0
        | Flags::READONLY.0,
);
const LOAD: Flags = Flags(NOSCRIPT.0 | Flags::STALE.0);
const BUSY: Flags = Flags(NOSCRIPT.0 | Flags::ALLOW_BUSY.0);
const HELP: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const WRITE: Flags = Flags(NOSCRIPT.0 | Flags::WRITE.0);
const WRITE_MORE: Flags = Flags(WRITE.0 | Flags::DENYOOM.0);

/// Nobody can tell how a script uses its keys: the worst is assumed.
const KEYS: Keys = Keys::Counted {
    at: 2,
    flags: KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0),
};
const KEYS_RO: Keys = Keys::Counted { at: 2, flags: KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0) };

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //      name          arity        flags      keys     what
    script("EVAL",        at_least(3), SCRIPT,    KEYS,    Script::Eval),
    script("EVALSHA",     at_least(3), SCRIPT,    KEYS,    Script::EvalSha),
    script("EVALSHA_RO",  at_least(3), SCRIPT_RO, KEYS_RO, Script::EvalShaRo),
    script("EVAL_RO",     at_least(3), SCRIPT_RO, KEYS_RO, Script::EvalRo),
    script("FCALL",       at_least(3), SCRIPT,    KEYS,    Script::Fcall),
    script("FCALL_RO",    at_least(3), SCRIPT_RO, KEYS_RO, Script::FcallRo),
    group( "FUNCTION",    at_least(2), Flags::NONE, FUNCTION_ROWS),
    group( "SCRIPT",      at_least(2), Flags::NONE, SCRIPT_ROWS),
];

#[rustfmt::skip]
const SCRIPT_ROWS: &[Command] = &[
    session("DEBUG",  exactly(3),  NOSCRIPT, Keys::None, Session::ScriptDebug),
    session("EXISTS", at_least(3), NOSCRIPT, Keys::None, Session::ScriptExists),
    session("FLUSH",  at_least(2), NOSCRIPT, Keys::None, Session::ScriptFlush),
    session("HELP",   exactly(2),  HELP,     Keys::None, Session::ScriptHelp),
    session("KILL",   exactly(2),  BUSY,     Keys::None, Session::ScriptKill),
    session("LOAD",   exactly(3),  LOAD,     Keys::None, Session::ScriptLoad),
];

#[rustfmt::skip]
const FUNCTION_ROWS: &[Command] = &[
    script( "DELETE",  exactly(3),  WRITE,      Keys::None, Script::FunctionDelete),
    script( "DUMP",    exactly(2),  NOSCRIPT,   Keys::None, Script::FunctionDump),
    script( "FLUSH",   at_least(2), WRITE,      Keys::None, Script::FunctionFlush),
    session("HELP",    exactly(2),  HELP,       Keys::None, Session::FunctionHelp),
    session("KILL",    exactly(2),  BUSY,       Keys::None, Session::FunctionKill),
    script( "LIST",    at_least(2), NOSCRIPT,   Keys::None, Script::FunctionList),
    script( "LOAD",    at_least(3), WRITE_MORE, Keys::None, Script::FunctionLoad),
    script( "RESTORE", at_least(3), WRITE_MORE, Keys::None, Script::FunctionRestore),
    session("STATS",   exactly(2),  BUSY,       Keys::None, Session::FunctionStats),
];

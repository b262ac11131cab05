//! SCRIPT and FUNCTION: what is about the scripts of all nodes, and how functions are reached.

use bytes::Bytes;
use commands::table::Entry;
use commands::{CommandError, Echo, Session};
use wire::ids::TableId;
use wire::placement::Placement;
use wire::resp::Reply;
use wire::service::{Gate, GateOutcome, ScriptControl};

use crate::connection::{Connection, Done};
use crate::route::Routed;

pub(super) const SCRIPT_HELP: &[&str] = &[
    "DEBUG (YES|SYNC|NO)",
    "    Set the debug mode for subsequent scripts executed: NO is the only one there is.",
    "EXISTS <sha1> [<sha1> ...]",
    "    Return information about the existence of the scripts in the script cache.",
    "FLUSH [ASYNC|SYNC]",
    "    Flush the Lua scripts cache.",
    "KILL",
    "    Kill the currently executing Lua scripts.",
    "LOAD <script>",
    "    Load a script into the scripts cache without executing it.",
];

pub(super) const FUNCTION_HELP: &[&str] = &[
    "LOAD [REPLACE] <FUNCTION CODE>",
    "    Create a new library with the given library name and code.",
    "DELETE <LIBRARY NAME>",
    "    Delete the given library.",
    "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
    "    Return general information on all the libraries, or on those whose name matches.",
    "STATS",
    "    Return information about the function that runs, and how many functions there are.",
    "KILL",
    "    Kill the currently executing functions.",
    "FLUSH [ASYNC|SYNC]",
    "    Delete all the libraries.",
    "DUMP",
    "    Return a serialized payload representing the current libraries.",
    "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
    "    Restore the libraries of a payload: instead of those there are, besides them (the default),",
    "    or besides them and instead of those with the same names.",
];

/// Runs a subcommand of SCRIPT, or one of FUNCTION that no partition has a say in.
pub(super) fn run(
    what: Session,
    connection: &Connection,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    let control = match what {
        Session::ScriptLoad => ScriptControl::Load(&args[2]),
        Session::ScriptExists => ScriptControl::Exists(&args[2..]),
        Session::ScriptFlush => {
            let is_mode = |mode: &Bytes| {
                mode.eq_ignore_ascii_case(b"SYNC") || mode.eq_ignore_ascii_case(b"ASYNC")
            };
            match &args[2..] {
                [] => {}
                [mode] if is_mode(mode) => {}
                _ => return Err(CommandError::SCRIPT_FLUSH_OPTION),
            }
            ScriptControl::Flush
        }
        Session::ScriptKill => ScriptControl::Kill { functions: false },
        Session::FunctionKill => ScriptControl::Kill { functions: true },
        Session::FunctionStats => ScriptControl::FunctionStats,
        Session::ScriptDebug => {
            return match args[2].to_ascii_lowercase().as_slice() {
                b"no" => Ok(Reply::OK),
                b"yes" | b"sync" => Err(CommandError::SCRIPT_DEBUG),
                _ => Err(CommandError::SCRIPT_DEBUG_OPTION),
            };
        }
        other => {
            let name = format!("{other:?}");
            return Err(CommandError::UnknownSubcommand(Echo::new(name.as_bytes()), "SCRIPT"));
        }
    };
    Ok(connection.shared.storage.scripts(control))
}

impl Connection {
    /// Runs a command about functions at the leader of the system's partition. What it changes is known
    /// everywhere before it is answered, and before the pipeline goes on.
    pub(crate) async fn run_functions(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
    ) -> Result<Done, CommandError> {
        let routed = Routed::by_placement(entry, TableId::SYSTEM, args, Placement::MIN);
        let answered = self.caller.call(&routed).await?;
        self.settle_functions(answered.gate, entry.command.may_write()).await?;
        Ok(Done::from(answered.reply))
    }

    /// Waits until what was done about functions is durable: it is known everywhere then.
    pub(crate) async fn settle_functions(
        &self,
        gate: Option<Gate>,
        writes: bool,
    ) -> Result<(), CommandError> {
        let Some(gate) = gate else { return Ok(()) };
        match self.caller.outcome(gate).await {
            GateOutcome::Durable => Ok(()),
            GateOutcome::Unknown if writes => Err(CommandError::UNCERTAIN),
            GateOutcome::Lost | GateOutcome::Unknown => Err(CommandError::NOT_EXECUTED),
        }
    }
}

//! Refusals of scripts and functions.

use super::CommandError;

#[allow(missing_docs, reason = "the text says it")]
impl CommandError {
    pub const SHEBANG_INVALID: CommandError = CommandError::text("ERR Invalid script shebang");
    pub const SHEBANG_NO_ENGINE: CommandError =
        CommandError::text("ERR Invalid engine in script shebang");
    pub const NOSCRIPT: CommandError =
        CommandError::text("NOSCRIPT No matching script. Please use EVAL.");
    pub const SCRIPT_KEYS_NEGATIVE: CommandError =
        CommandError::text("ERR Number of keys can't be negative");
    pub const FUNCTION_KEYS: CommandError = CommandError::text("ERR Bad number of keys provided");
    pub const SCRIPT_UNKNOWN_COMMAND: CommandError =
        CommandError::text("ERR Unknown Redis command called from script");
    pub const SCRIPT_ARITY: CommandError =
        CommandError::text("ERR Wrong number of args calling Redis command from script");
    pub const NOT_FROM_SCRIPT: CommandError =
        CommandError::text("ERR This Redis command is not allowed from script");
    pub const SCRIPT_READ_ONLY: CommandError =
        CommandError::text("ERR Write commands are not allowed from read-only scripts.");
    pub const SCRIPT_WRITES: CommandError =
        CommandError::text("ERR Can not execute a script with write flag using *_ro command.");
    pub const SCRIPT_OTHER_TABLE: CommandError =
        CommandError::text("ERR a script works on one database: this command reaches another one");
    pub const SCRIPT_OTHER_PARTITION: CommandError =
        CommandError::text("ERR Script attempted to access a non local key in a cluster node");
    pub const BUSY_SCRIPT: CommandError = CommandError::text(
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    );
    pub const BUSY_FUNCTION: CommandError = CommandError::text(
        "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
    );
    pub const NOTBUSY: CommandError =
        CommandError::text("NOTBUSY No scripts in execution right now.");
    pub const SCRIPT_FLUSH_OPTION: CommandError =
        CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
    pub const SCRIPT_DEBUG: CommandError =
        CommandError::text("ERR there is no debugger of scripts: only SCRIPT DEBUG NO is accepted");
    pub const SCRIPT_DEBUG_OPTION: CommandError =
        CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO");
    pub const LIBRARY_NO_METADATA: CommandError =
        CommandError::text("ERR Missing library metadata");
    pub const LIBRARY_BAD_METADATA: CommandError =
        CommandError::text("ERR Invalid library metadata");
    pub const LIBRARY_TWO_NAMES: CommandError =
        CommandError::text("ERR Invalid metadata value, name argument was given multiple times");
    pub const LIBRARY_NO_NAME: CommandError = CommandError::text("ERR Library name was not given");
    pub const LIBRARY_EMPTY: CommandError = CommandError::text("ERR No functions registered");
    pub const LIBRARY_NOT_FOUND: CommandError = CommandError::text("ERR Library not found");
    pub const FUNCTION_NAME: CommandError = CommandError::text(
        "ERR Library names can only contain letters, numbers, or underscores(_) and must be at \
         least one character long",
    );
    pub const FUNCTION_NOT_FOUND: CommandError = CommandError::text("ERR Function not found");
    pub const FUNCTION_NO_CODE: CommandError = CommandError::text("ERR Function code is missing");
    pub const FUNCTION_LIST_NAME: CommandError =
        CommandError::text("ERR library name argument was not given");
    pub const FUNCTION_FLUSH_OPTION: CommandError =
        CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
    pub const FUNCTION_RESTORE_POLICY: CommandError = CommandError::text(
        "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
    );
    pub const FUNCTION_PAYLOAD_OLD: CommandError =
        CommandError::text("ERR Pre-GA function format not supported");
    pub const FUNCTION_PAYLOAD_TYPE: CommandError =
        CommandError::text("ERR given type is not a function");
    pub const FUNCTION_PAYLOAD: CommandError =
        CommandError::text("ERR failed loading the given functions payload");
}

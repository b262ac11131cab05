//! Refusals of connections, and of what a session may not do in a transaction.

use super::CommandError;

#[allow(missing_docs, reason = "the text says it")]
impl CommandError {
    pub const PROTECTED_MODE: CommandError = CommandError::text(
        "DENIED Redis is running in protected mode because protected mode is enabled and no password is \
         set for the default user. In this mode connections are only accepted from the loopback \
         interface. If you want to connect from external computers to Redis you may adopt one of the \
         following solutions: 1) Set up a password for the default user, with 'CONFIG SET requirepass' \
         from the loopback interface or '--requirepass' at the start. 2) If everybody who can reach the \
         server may use it, disable protected mode with 'CONFIG SET protected-mode no' from the \
         loopback interface or '--protected-mode no' at the start.",
    );
    pub const DONE_IN_PART: CommandError = CommandError::text(
        "UNCERTAIN the command was executed in some partitions and not in others: one had no leader in \
         time",
    );
    pub const EXEC_ORDER: CommandError = CommandError::text(
        "EXECABORT Transaction discarded because of the order of its commands: SCRIPT LOAD, SCRIPT FLUSH, \
         CLIENT TRACKING and CLIENT CACHING cannot stand among the commands that depend on them",
    );
}

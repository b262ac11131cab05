//! What a script's state asks of whoever runs it.

use bytes::Bytes;
use wire::resp::Reply;

/// Why a script is ended before it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// SCRIPT KILL or FUNCTION KILL asked for it: nothing it did is kept.
    Killed,
    /// Loading a library took too long.
    LoadTimeout,
    /// It cannot go on here and now; whoever runs it knows why, and runs it again or gives up.
    Suspended,
}

impl Interrupt {
    /// As the script's caller is told.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Interrupt::Killed => "Script killed by user with SCRIPT KILL...",
            Interrupt::LoadTimeout => "FUNCTION LOAD timeout",
            Interrupt::Suspended => "Script suspended",
        }
    }
}

/// Whoever runs a script.
pub trait Host {
    /// Runs a command; a refusal is an error reply.
    ///
    /// *Errors*: the script has to end.
    fn call(&mut self, args: &[Bytes]) -> Result<Reply, Interrupt>;

    /// Whether the caller may run a command (`redis.acl_check_cmd`); `None` if there is no such command.
    fn may_call(&mut self, args: &[Bytes]) -> Option<bool>;

    /// A line for the log, with Redis's level (0, debug, to 3, warning).
    fn log(&mut self, level: u8, line: &[u8]);

    /// Whether the script has to end. Asked from time to time.
    fn interrupted(&mut self) -> Option<Interrupt>;

    /// A number to start the script's random numbers from.
    fn seed(&mut self) -> u64;
}

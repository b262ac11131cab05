//! A command's handler, run on a view, and what it may leave.

use bytes::Bytes;
use commands::table::Entry;
use commands::{Args, CommandError, Effects, Run, Txn, View};
use wire::ids::Version;
use wire::resp::Reply;

use crate::core::EFFECTS_BYTES_MAX;
use crate::lsm::ROW_KEY_BYTES_MAX;

/// Runs a command's handler on a view: its result, and what it changed if that was not refused.
pub(crate) fn run(
    entry: &Entry,
    args: &[Bytes],
    view: &dyn View,
    next_version: Version,
) -> (Result<Reply, CommandError>, Option<Effects>) {
    match entry.command.run {
        Run::Read(handler) => (handler(view, Args(args)), None),
        Run::Write(handler) => {
            let mut txn = Txn::new(view, next_version);
            let result = handler(&mut txn, Args(args));
            let effects = result.is_ok().then(|| txn.into_effects());
            (result, effects)
        }
        Run::Script(_) | Run::Session(_) | Run::Group(_) => {
            let text = "ERR this command is not one that a partition evaluates";
            (Err(CommandError::Text(text.into())), None)
        }
    }
}

/// Refuses what could not be logged or stored.
pub(crate) fn check_effects(effects: &Effects) -> Result<(), CommandError> {
    if effects.writes.iter().any(|write| write.row.len() > ROW_KEY_BYTES_MAX) {
        return Err(CommandError::KeyTooLong);
    }
    if effects_bytes(effects) > EFFECTS_BYTES_MAX {
        return Err(CommandError::TooMuchToWrite(EFFECTS_BYTES_MAX));
    }
    Ok(())
}

/// Bytes of rows that effects change, no fewer than they take in a batch.
pub(crate) fn effects_bytes(effects: &Effects) -> usize {
    /// A row's tag, two lengths and checksum, rounded up.
    const FRAMING_BYTES: usize = 16;
    let value = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    effects.writes.iter().map(|w| FRAMING_BYTES + w.row.len() + value(&w.value)).sum()
}

//! A command's handler, run on a view.

use bytes::Bytes;
use commands::table::Entry;
use commands::{Args, CommandError, Effects, Run, Txn, View};
use wire::ids::Version;
use wire::resp::Reply;

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
        Run::Session(_) | Run::Group(_) => {
            let text = "ERR this command is not one that a partition evaluates";
            (Err(CommandError::Text(text.into())), None)
        }
    }
}

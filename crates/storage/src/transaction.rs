//! Transactions at a partition's leader: several commands evaluated as one, under one hold of the
//! partition's lock, whose effects are one part of one log entry behind one gate.
//!
//! ```text
//! watched keys ──changed──→ null, no effects
//!      │ as they were seen
//!      ▼
//! outer Txn over the partition's view
//!   command → inner Txn over the outer ──done──→ merged into the outer, its reply in its place
//!                                └────refused──→ dropped, its error in its place
//! ```
//!
//! *Watching without registers.* Every header row holds the version of its last write, so a client
//! that watches a key remembers the version it saw, and EXEC compares: leaders keep nothing for
//! clients that watch, and a change of leaders loses nothing. A key that has expired, or that a
//! FLUSHDB swept away, counts as absent, like for any reader. What this does not see, unlike Redis:
//! a key that was absent, came and went again.

use std::sync::Arc;

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::types::keyspace;
use commands::{Args, CommandError, Effects, Run, Txn, View, ViewError, key_positions, rows};
use wire::ids::{CommandId, Version};
use wire::resp::Reply;
use wire::service::{Answer, Transaction, Watched, Work, encode_seen};

use crate::core::{About, Core, EFFECTS_BYTES_MAX, Now, check_effects, effects_bytes};
use crate::lsm::Lsm;
use crate::node::{FETCH_ROWS_MAX, Node};
use crate::script::{self, Stage};
use crate::slow::Job;
use crate::view::Leading;

impl Node {
    /// Evaluates a transaction; see [`wire::service::StorageService::transact`].
    pub fn transact(&self, transaction: Transaction<'_>) -> Answer {
        let writes = |(id, _): &(CommandId, _)| row(*id).command.may_write();
        let is_write = transaction.work.commands().iter().any(writes);
        let scripting = Arc::clone(&self.shared().options.scripting);
        let work = |core: &mut Core, now: Now, from: (&Lsm, bool)| {
            let Transaction { epoch, origin, request, .. } = transaction;
            let about = About { is_write, epoch, origin, request };
            core.evaluate_work(about, now, from, |view, next_version| {
                let next_version = is_write.then_some(next_version);
                let stage = Stage::quick(&scripting, transaction.client);
                match evaluate(&stage, view, next_version, transaction.work) {
                    Ok((reply, effects)) => (Ok(reply), effects),
                    Err(error) => (Err(error), None),
                }
            })
        };
        let fetch = || header_rows(&transaction);
        self.evaluate(transaction.partition, is_write, work, (fetch, || Job::from(&transaction)))
    }
}

fn row(id: CommandId) -> &'static Entry {
    table::entry(id)
}

/// Does the work on a view. `next_version` is that of its first write, if it may write at all.
pub(crate) fn evaluate(
    stage: &Stage<'_>,
    view: &dyn Leading,
    next_version: Option<Version>,
    work: Work<'_>,
) -> Result<(Reply, Option<Effects>), CommandError> {
    if let Work::Look(keys) = work {
        return Ok((Reply::Array(look(view, keys)?), None));
    }
    for Watched { key, seen: before } in work.watched() {
        if seen(view, key)? != *before {
            return Ok((Reply::NullArray, None));
        }
    }
    let keys = if let Work::RunThenLook { keys, .. } = work { keys } else { &[] };
    let done = match next_version {
        Some(next_version) => write(stage, view, next_version, (work.commands(), keys))?,
        None => {
            let mut replies = read(stage, view, work.commands())?;
            replies.extend(look(view, keys)?);
            (Reply::Array(replies), None)
        }
    };
    stage.settle(view);
    Ok(done)
}

/// What is told of keys that are looked at.
fn look(view: &dyn View, keys: &[Bytes]) -> Result<Vec<Reply>, CommandError> {
    keys.iter().map(|key| Ok(encode_seen(seen(view, key)?))).collect()
}

/// Runs commands that only read: without a `Txn`, which would wait for every proposed write, as it
/// takes over the counters that they change.
fn read(
    stage: &Stage<'_>,
    view: &dyn Leading,
    commands: &[(CommandId, &[Bytes])],
) -> Result<Vec<Reply>, CommandError> {
    let mut replies = Vec::with_capacity(commands.len());
    for (id, args) in commands {
        replies.push(match row(*id).command.run {
            // It only reads: its version is never used.
            Run::Script(what) => {
                script::run(stage, (view, view), Version::default(), (what, args)).0
            }
            _ => run_read(view, row(*id), args),
        });
        if view.is_cold() {
            return Err(ViewError::Cold.into());
        }
    }
    Ok(replies)
}

/// Runs a command that only reads.
pub(crate) fn run_read(view: &dyn View, entry: &Entry, args: &[Bytes]) -> Reply {
    match entry.command.run {
        Run::Read(handler) => handler(view, Args(args)).unwrap_or_else(Reply::from),
        _ => {
            let text = "ERR this command is not one that a partition evaluates";
            CommandError::Text(text.into()).into()
        }
    }
}

/// Runs commands of which some may write.
fn write(
    stage: &Stage<'_>,
    view: &dyn Leading,
    next_version: Version,
    (commands, looked_at): (&[(CommandId, &[Bytes])], &[Bytes]),
) -> Result<(Reply, Option<Effects>), CommandError> {
    let mut txn = Txn::new(view, next_version);
    let mut replies = Vec::with_capacity(commands.len());
    let mut bytes = 0;
    for (id, args) in commands {
        let (reply, effects) = match row(*id).command.run {
            Run::Script(what) => script::run(stage, (view, &txn), txn.next_version(), (what, args)),
            _ => run_write(&txn, row(*id), args),
        };
        if view.is_cold() {
            // All of this is thrown away and done again with the row at hand.
            return Err(ViewError::Cold.into());
        }
        if let Some(effects) = effects {
            bytes += effects_bytes(&effects);
            if bytes > EFFECTS_BYTES_MAX {
                return Err(CommandError::ExecRefused(format!(
                    "it would change more than {EFFECTS_BYTES_MAX} bytes of rows at once"
                )));
            }
            txn.merge(effects);
        }
        replies.push(reply);
    }
    replies.extend(look(&txn, looked_at)?);
    Ok((Reply::Array(replies), Some(txn.into_effects())))
}

/// Runs a command on top of what those before it did.
pub(crate) fn run_write(txn: &Txn<'_>, entry: &Entry, args: &[Bytes]) -> (Reply, Option<Effects>) {
    let Run::Write(handler) = entry.command.run else { return (run_read(txn, entry, args), None) };
    let mut inner = Txn::part_of(txn);
    let done = handler(&mut inner, Args(args)).and_then(|reply| {
        let effects = inner.into_effects();
        check_effects(&effects)?;
        Ok((reply, effects))
    });
    match done {
        Ok((reply, effects)) => (reply, Some(effects)),
        Err(error) => (error.into(), None),
    }
}

/// The version of a key's last write, if the key exists for clients.
fn seen(view: &dyn View, key: &[u8]) -> Result<Option<Version>, CommandError> {
    Ok(keyspace::peek(view, key)?.map(|header| header.version))
}

/// The header rows of all keys that a transaction names, up to a limit.
fn header_rows(transaction: &Transaction<'_>) -> Vec<Bytes> {
    let mut keys: Vec<&Bytes> = Vec::new();
    if let Work::Look(looked_at) | Work::RunThenLook { keys: looked_at, .. } = transaction.work {
        keys.extend(looked_at);
    }
    keys.extend(transaction.work.watched().iter().map(|watched| &watched.key));
    for (id, args) in transaction.work.commands() {
        let positions = key_positions(row(*id).command, args).unwrap_or_default();
        keys.extend(positions.iter().map(|at| &args[*at]));
    }
    keys.truncate(FETCH_ROWS_MAX);
    keys.into_iter().map(|key| rows::header_key(transaction.table, key)).collect()
}

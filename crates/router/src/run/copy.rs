//! COPY and MOVE to another table: DUMP and PEXPIRETIME where the key is, RESTORE where it shall be.
//!
//! A table is its own set of partitions, so no partition can do this alone. The two sides are not one
//! transaction: the copy is of the value as it was when it was read. A time to live travels as the
//! moment it ends.
//!
//! ```text
//! MOVE:  look at the key's version → read it at that version → put it there, if there is none yet
//!          ↑                                                      │ durable
//!          └── changed: take the copy away, at its version ←── delete it here, at that version → 1
//! ```
//!
//! So a moved key is never lost, no write to it is, and none that others made to the copy. For a moment
//! it is in both tables, and it stays so if the router ends in between, if what became of a write is
//! not known (UNCERTAIN), or if both were written to in that moment.

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{Args, CommandError, CopyOptions, copy_options, move_target};
use tokio::time::Instant;
use wire::ids::{CommandId, TableId, Version};
use wire::resp::Reply;
use wire::service::{Gate, GateOutcome, Watched, Work, decode_seen};

use crate::connection::{Done, Gates};
use crate::route::{Answered, Caller, Routed};
use crate::run::batch::work_at;

/// Whether this is a COPY or MOVE to another table than the selected one.
///
/// *Errors*: its options are not those of the command.
pub(crate) fn is_across(
    entry: &Entry,
    args: &[Bytes],
    selected: TableId,
    tables: u32,
) -> Result<bool, CommandError> {
    match entry.command.name {
        // Without options it stays where it is.
        "COPY" if args.len() > 3 => {
            Ok(copy_options(Args(args), selected, tables)?.table != selected)
        }
        "MOVE" => Ok(move_target(Args(args), tables)? != selected),
        _ => Ok(false),
    }
}

/// Runs a COPY or MOVE to another table.
pub(crate) async fn run(
    caller: &mut Caller,
    entry: &'static Entry,
    selected: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    if entry.command.name == "MOVE" {
        let to = move_target(Args(args), caller.shared.databases())?;
        let moving = Moving { entry, from: selected, to, key: &args[1] };
        let reply = moving.run(caller).await?;
        return Ok(Done::gated(reply, Gates::new(), true));
    }
    copy(caller, selected, args).await
}

async fn copy(
    caller: &mut Caller,
    selected: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    let tables = caller.shared.databases();
    let CopyOptions { table: destination, replace } = copy_options(Args(args), selected, tables)?;
    let (from, to) = (&args[1], &args[2]);
    let mut gates = Gates::new();
    let expire_at = call(caller, selected, &[word("PEXPIRETIME"), from.clone()]).await?;
    let dumped = call(caller, selected, &[word("DUMP"), from.clone()]).await?;
    gates.extend(expire_at.gate.into_iter().chain(dumped.gate));
    let payload = match dumped.reply {
        Reply::Bulk(payload) => payload,
        Reply::Null => return Ok(Done::gated(Reply::Integer(0), gates, false)),
        refusal => return Ok(Done::gated(refusal, gates, false)),
    };
    // Negative: no time to live (or no key any more, which DUMP would have told).
    let expire_at_ms = match expire_at.reply {
        Reply::Integer(at) => at.max(0),
        refusal => return Ok(Done::gated(refusal, gates, false)),
    };
    let expire_at_ms = Bytes::from(expire_at_ms.to_string());
    let mut restore = vec![word("RESTORE"), to.clone(), expire_at_ms, payload, word("ABSTTL")];
    if replace {
        restore.push(word("REPLACE"));
    }
    let restored = call(caller, destination, &restore).await?;
    gates.extend(restored.gate);
    let reply = match restored.reply {
        Reply::Simple("OK") => Reply::Integer(1),
        Reply::Error(line) if line.starts_with(b"BUSYKEY") => Reply::Integer(0),
        other => other,
    };
    Ok(Done::gated(reply, gates, true))
}

/// A MOVE of a key.
struct Moving<'a> {
    entry: &'static Entry,
    from: TableId,
    to: TableId,
    key: &'a Bytes,
}

/// A line of a command and its row.
pub(super) struct Line(CommandId, Vec<Bytes>);

impl Line {
    pub(super) fn new(words: impl IntoIterator<Item = Bytes>) -> Line {
        let words: Vec<Bytes> = words.into_iter().collect();
        Line(table::lookup(&words[0]).expect("a command of the table").id, words)
    }

    pub(super) fn as_command(&self) -> (CommandId, &[Bytes]) {
        (self.0, &self.1)
    }
}

impl Moving<'_> {
    async fn run(&self, caller: &mut Caller) -> Result<Reply, CommandError> {
        let deadline = Instant::now() + caller.shared.options.request_timeout;
        loop {
            if let Some(reply) = self.attempt(caller).await? {
                return Ok(reply);
            }
            if Instant::now() >= deadline {
                return Err(CommandError::MOVE_CHANGING);
            }
        }
    }

    /// One round; `None` if the key has changed meanwhile, or a leader.
    async fn attempt(&self, caller: &mut Caller) -> Result<Option<Reply>, CommandError> {
        let looked = self.at(caller, self.from, Work::Look(std::slice::from_ref(self.key))).await?;
        let is_seen = is_durable(caller, looked.gate).await;
        if !is_seen.map_err(|_| CommandError::NOT_EXECUTED)? {
            return Ok(None);
        }
        let seen = match looked.reply {
            Reply::Array(mut seen) => seen.pop().and_then(|seen| decode_seen(&seen)).flatten(),
            refusal => return Ok(Some(refusal)),
        };
        let Some(seen) = seen else { return Ok(Some(Reply::Integer(0))) };
        let watched = [Watched { key: self.key.clone(), seen: Some(seen) }];
        let restore = match self.read(caller, &watched).await? {
            Ok(Some(restore)) => restore,
            Ok(None) => return Ok(None),
            Err(refusal) => return Ok(Some(refusal)),
        };
        let put = match self.put(caller, &restore).await? {
            Put::Done(put) => put,
            Put::Lost => return Ok(None),
            Put::Refused(reply) => return Ok(Some(reply)),
        };
        if self.delete(caller, self.from, &watched).await? {
            return Ok(Some(Reply::Integer(1)));
        }
        // The key is another than was put there. Who has changed that since keeps it.
        if put.is_some() {
            self.delete(caller, self.to, &[Watched { key: self.key.clone(), seen: put }]).await?;
        }
        Ok(None)
    }

    /// The line that makes the key anew; `None` if it has changed. The inner error is a refusal.
    async fn read(
        &self,
        caller: &mut Caller,
        watched: &[Watched],
    ) -> Result<Result<Option<Line>, Reply>, CommandError> {
        let lines = ["PEXPIRETIME", "DUMP"].map(|name| Line::new([word(name), self.key.clone()]));
        let commands = [lines[0].as_command(), lines[1].as_command()];
        let work = Work::Run { watched, commands: &commands };
        let replies = match self.at(caller, self.from, work).await?.reply {
            Reply::Array(replies) => replies,
            Reply::NullArray => return Ok(Ok(None)),
            refusal => return Ok(Err(refusal)),
        };
        match <[Reply; 2]>::try_from(replies) {
            // Negative: no time to live.
            Ok([Reply::Integer(expire_at_ms), Reply::Bulk(payload)]) => {
                let expire_at_ms = Bytes::from(expire_at_ms.max(0).to_string());
                let words = [word("RESTORE"), self.key.clone(), expire_at_ms, payload];
                Ok(Ok(Some(Line::new(words.into_iter().chain([word("ABSTTL")])))))
            }
            Ok([refusal @ Reply::Error(_), _] | [_, refusal]) => Ok(Err(refusal)),
            Err(_) => Err(CommandError::Operator("MOVE: a reply is missing".to_owned())),
        }
    }

    /// Makes the key in the other table, if it has none of that name.
    async fn put(&self, caller: &mut Caller, restore: &Line) -> Result<Put, CommandError> {
        let absent = [Watched { key: self.key.clone(), seen: None }];
        let (commands, keys) = ([restore.as_command()], std::slice::from_ref(self.key));
        let work = Work::RunThenLook { watched: &absent, commands: &commands, keys };
        let answered = self.at(caller, self.to, work).await?;
        let replies = match answered.reply {
            Reply::Array(replies) => replies,
            Reply::NullArray => return Ok(Put::Refused(Reply::Integer(0))),
            refusal => return Ok(Put::Refused(refusal)),
        };
        if !is_durable(caller, answered.gate).await? {
            return Ok(Put::Lost);
        }
        match <[Reply; 2]>::try_from(replies) {
            Ok([Reply::Simple("OK"), seen]) => Ok(Put::Done(decode_seen(&seen).flatten())),
            Ok([refusal, _]) => Ok(Put::Refused(refusal)),
            Err(_) => Err(CommandError::Operator("MOVE: a reply is missing".to_owned())),
        }
    }

    async fn delete(
        &self,
        caller: &mut Caller,
        table: TableId,
        watched: &[Watched],
    ) -> Result<bool, CommandError> {
        delete_as_seen(caller, (self.entry, table, self.key), watched).await
    }

    async fn at(
        &self,
        caller: &mut Caller,
        table: TableId,
        work: Work<'_>,
    ) -> Result<Answered, CommandError> {
        work_at(caller, (self.entry, table, self.key), work).await
    }
}

/// What came of making the key in the other table.
enum Put {
    /// It stands at this version, if it has not expired already.
    Done(Option<Version>),
    /// It has not happened: a leader changed.
    Lost,
    Refused(Reply),
}

/// Deletes a key in a table, durably, if it is as it was seen; false if it is not.
pub(super) async fn delete_as_seen(
    caller: &mut Caller,
    (entry, table, key): (&'static Entry, TableId, &Bytes),
    watched: &[Watched],
) -> Result<bool, CommandError> {
    let line = Line::new([word("DEL"), key.clone()]);
    loop {
        let work = Work::Run { watched, commands: &[line.as_command()] };
        let answered = work_at(caller, (entry, table, key), work).await?;
        match answered.reply {
            Reply::NullArray => return Ok(false),
            Reply::Array(_) if is_durable(caller, answered.gate).await? => return Ok(true),
            Reply::Array(_) => {}
            // The key is in both places now.
            _ => return Err(CommandError::UNCERTAIN),
        }
    }
}

/// Whether what a gate stands for has happened.
///
/// *Errors*: that is not known.
pub(super) async fn is_durable(caller: &Caller, gate: Option<Gate>) -> Result<bool, CommandError> {
    let Some(gate) = gate else { return Ok(true) };
    match caller.outcome(gate).await {
        GateOutcome::Durable => Ok(true),
        GateOutcome::Lost => Ok(false),
        GateOutcome::Unknown => Err(CommandError::UNCERTAIN),
    }
}

pub(super) fn word(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn call(
    caller: &mut Caller,
    table: TableId,
    line: &[Bytes],
) -> Result<Answered, CommandError> {
    let entry = table::lookup(&line[0]).expect("a command of the table");
    caller.call(&Routed::by_keys(entry, table, line)?).await
}

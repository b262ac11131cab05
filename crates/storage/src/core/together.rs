//! Calls of pipelines that write to one key, evaluated together: each on what those before it left, all
//! in one transaction. A row that each of them writes, the header of a list, say, is put into memory
//! and into the log once, and those behind the first find it without a look into memory. Several of one
//! command may even be run at once ([`commands::ManyHandler`]).
//!
//! Nothing else tells this from one evaluation after the other: they would have joined one batch
//! anyway, and nobody's command would have come between. Whatever needs more than a transaction is done one
//! by one: a call that is refused, whose changes would have to be told apart from those before it; a cold
//! row; a call that was made before; and all of them while somebody waits for a key, or wants to be told
//! what happens to keys.

use std::time::Instant;

use bytes::Bytes;
use commands::table;
use commands::{Args, CommandError, Keys, Ran, Run, Txn};
use wire::notice::Wanted;
use wire::resp::Reply;
use wire::service::{self, Answer, Call};

use super::{About, Asker, Core, Evaluated, Now};
use crate::lsm::Lsm;
use crate::partition::Clock;
use crate::view::Leading;

/// Calls whose arguments are longer together (bytes) gain nothing.
const ARGS_BYTES_MAX: usize = 64 << 10;
/// Replies of more bytes leave before others are made.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// What became of calls that were evaluated together.
pub(crate) struct Together {
    /// The first of the calls.
    pub(crate) done: Vec<service::Evaluated>,
    /// Bytes of their replies.
    pub(crate) reply_bytes: usize,
    /// When the last of them was done.
    pub(crate) ended: Instant,
}

struct Done {
    reply: Reply,
    at: Instant,
    /// Whether it wrote something.
    wrote: bool,
}

impl Core {
    /// Evaluates the first of these calls as one, if there are several that write to the same key.
    ///
    /// *Errors*: how many are to be evaluated one by one.
    pub(crate) fn evaluate_together(
        &mut self,
        calls: &[Call<'_>],
        now: Now,
        lsm: &Lsm,
        (clock, mut began): (&Clock, Instant),
    ) -> Result<Together, usize> {
        let calls = if calls.len() > 1 { &calls[..of_one_key(calls)] } else { &[] };
        let [first, _, ..] = calls else { return Err(1) };
        if !self.blocked.is_empty() || self.listener.wanted() != Wanted::NONE {
            return Err(calls.len());
        }
        // Who asked for what is noted below.
        let about =
            About { is_write: true, epoch: first.epoch, origin: first.origin, request: None };
        let mut done = Vec::with_capacity(calls.len());
        let evaluated = self.evaluate_work(about, now, (lsm, false), |view, next_version| {
            let mut txn = Txn::new(view, next_version);
            let run = run_all(&mut txn, calls, &|| view.is_cold(), (&mut done, clock, began));
            let effects = run.is_ok().then(|| txn.into_effects());
            (run, effects)
        });
        // Should more be changed than may be at once, the reply is an error.
        let Evaluated::Answer(Answer::Done { reply: Reply::Null, gate }) = evaluated else {
            return Err(calls.len());
        };
        let ended = clock.instant();
        if gate.is_none() && !self.serves(clock.at(ended)) {
            return Err(calls.len());
        }
        self.note_together(calls, &done);
        let mut reply_bytes = 0;
        let done = done.into_iter().map(|Done { reply, at, .. }| {
            reply_bytes += reply.text_bytes();
            let took = at.saturating_duration_since(std::mem::replace(&mut began, at));
            service::Evaluated { reply, gate, took }
        });
        Ok(Together { done: done.collect(), reply_bytes, ended })
    }

    /// Notes and counts those that wrote, as if each had joined the batch by itself.
    fn note_together(&mut self, calls: &[Call<'_>], done: &[Done]) {
        let wrote = || calls.iter().zip(done).filter(|(_, done)| done.wrote);
        let more = (wrote().count() as u64).saturating_sub(1);
        self.changes += more;
        if let Some(open) = &mut self.open {
            open.writes += more;
        }
        for (call, done) in wrote() {
            let request = call.request.map(|request| request.id);
            self.asker = Asker { origin: call.origin, request };
            self.note_request(&done.reply);
        }
    }
}

/// Runs calls until replies are large. The null says that all is well.
///
/// *Errors*: that of the call that was refused; nothing of this is to stay then.
fn run_all(
    txn: &mut Txn<'_>,
    calls: &[Call<'_>],
    is_cold: &dyn Fn() -> bool,
    (done, clock, mut began): (&mut Vec<Done>, &Clock, Instant),
) -> Result<Reply, CommandError> {
    let (mut left, mut reply_bytes) = (calls, 0);
    while let Some((first, _)) = left.split_first()
        && reply_bytes <= REPLY_BYTES_MAX
    {
        let mut ran = run_alike(txn, left)?;
        if ran.is_empty() {
            let Run::Write(handler) = table::entry(first.command).command.run else { break };
            let before = txn.changes();
            let reply = handler(txn, Args(first.args))?;
            ran.push(Ran { reply, wrote: txn.changes() != before });
        }
        if is_cold() {
            break;
        }
        let ended = clock.instant();
        // Calls that were run at once have an equal part in the time it took.
        let each = ended.saturating_duration_since(began) / ran.len() as u32;
        left = &left[ran.len()..];
        for Ran { reply, wrote } in ran {
            began += each;
            reply_bytes += reply.text_bytes();
            done.push(Done { reply, at: began, wrote });
        }
        began = ended;
    }
    Ok(Reply::Null)
}

/// Runs the first calls at once, if there are several of one command that can be.
fn run_alike(txn: &mut Txn<'_>, calls: &[Call<'_>]) -> Result<Vec<Ran>, CommandError> {
    let first = &calls[0];
    let Some(many) = table::entry(first.command).command.many else { return Ok(Vec::new()) };
    let alike = calls.iter().take_while(|call| call.command == first.command);
    let lines: Vec<Args<'_>> = alike.map(|call| Args(call.args)).collect();
    if lines.len() > 1 { many(txn, &lines) } else { Ok(Vec::new()) }
}

/// How many of the first calls do nothing but write to the same key, each for the first time.
fn of_one_key(calls: &[Call<'_>]) -> usize {
    let Some(first) = calls.first().and_then(only_key) else { return 0 };
    let mut bytes = 0;
    let is_alike = |call: &&Call<'_>| {
        bytes += call.args.iter().map(Bytes::len).sum::<usize>();
        bytes <= ARGS_BYTES_MAX && only_key(call) == Some(first)
    };
    calls.iter().take_while(is_alike).count()
}

/// The key that a call writes to, if it is made for the first time, waits for nothing and has no other.
fn only_key<'a>(call: &Call<'a>) -> Option<&'a Bytes> {
    let command = table::entry(call.command).command;
    let is_first = call.request.is_none_or(|request| request.again.is_none());
    match (&command.run, command.keys) {
        (Run::Write(_), Keys::Range { first, last, .. })
            if i32::from(first) == i32::from(last) && command.waits.is_none() && is_first =>
        {
            call.args.get(usize::from(first))
        }
        _ => None,
    }
}

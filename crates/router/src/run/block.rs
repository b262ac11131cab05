//! Commands that wait for data: BLPOP and its like, XREAD and XREADGROUP with BLOCK.
//!
//! ```text
//! call ──nothing yet──→ in line at the leader ──served──→ its gate opens ──→ the reply
//!                         │   ↑                              └──lost──→ call again
//!                         │   └──call again── the leader is another now
//!                         └──time is up, CLIENT UNBLOCK, the client has gone──→ claim: give up
//! ```
//!
//! Whoever takes the claim decides ([`Waiting`]): an element is not handed to a client that has given
//! up, and a client that was handed one is not told that its time is up. A served write that got lost
//! with its leader has not happened, so the command goes on waiting, with its old place in line.
//!
//! What the client sends meanwhile is taken in and runs when the command is done, as in Redis.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use commands::table::Entry;
use commands::{CommandError, Flags};
use tokio::time::Instant;
use wire::ids::TableId;
use wire::resp::{Arguments, Reply};
use wire::service::{BoxFuture, Claim, Gate, GateOutcome, Served, Waiting};

use crate::cache::Target;
use crate::clients::{Blocked, Unblock};
use crate::connection::{Closed, Connection, Done, sleep_until};
use crate::route::{Answered, Routed, positions_or_none};
use crate::users::Context;

/// Copies of its line that a command which waits keeps: the connection's, the leader's, and its keys'.
const WAITING_COPIES: usize = 3;

/// How a stand in line ended.
enum Ended {
    Served(Served),
    /// The leader keeps the command no longer.
    Lost,
    TimedOut,
    Unblocked(Unblock),
    /// New rules forbid the command.
    Denied(CommandError),
}

/// A command that waits.
struct Wait<'a> {
    entry: &'static Entry,
    /// The line to call with.
    line: Arc<[Bytes]>,
    started: Instant,
    deadline: Option<Instant>,
    blocked: Blocked<'a>,
}

impl Connection {
    /// Goes on with a command for which there was nothing yet, and answers it.
    pub(crate) async fn wait_for_data(
        &mut self,
        entry: &'static Entry,
        args: &Arguments,
        waiting: (Box<Waiting>, Target),
    ) -> Result<(), Closed> {
        // It is executed, whatever comes of it: before what others do while it waits.
        self.show(entry, args);
        let client = self.session.client.clone();
        let bytes: usize = args.iter().map(Bytes::len).sum();
        client.waiting_bytes.store(WAITING_COPIES * bytes, Relaxed);
        let ended = self.wait_until_served(entry, args, waiting).await;
        client.waiting_bytes.store(0, Relaxed);
        if let Some(done) = ended? {
            // The wait is not what the command took.
            self.clock = std::time::Instant::now();
            let done = done.unwrap_or_else(|error| Done::from(Reply::from(error)));
            self.finish_shown(entry, args, done, Duration::ZERO);
            // Other than behind a command that does not wait, pushes have left since its keys were
            // remembered: how that is made good stands there.
            if let Some(tracked) = &self.session.tracked
                && entry.command.flags.has(Flags::READONLY)
            {
                let keys = positions_or_none(entry, args).unwrap_or_default();
                tracked.make_good(keys.iter().map(|at| &args[*at]));
            }
        }
        Ok(())
    }

    /// `None`: the command was refused, and is answered.
    async fn wait_until_served(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
        (mut waiting, mut target): (Box<Waiting>, Target),
    ) -> Result<Option<Result<Done, CommandError>>, Closed> {
        // Its place in line from the first call on, and what it is to have where it comes again.
        let started = Instant::from_std(waiting.since);
        // The replies before this one need not wait with it.
        self.flush().await?;
        self.release();
        let client = self.session.client.clone();
        let mut wait = Wait {
            entry,
            line: args.into(),
            started,
            deadline: waiting.timeout.and_then(|timeout| started.checked_add(timeout)),
            blocked: client.block(Arc::clone(&waiting.claim)),
        };
        loop {
            let ended = self.stand_in_line(&mut wait, &mut waiting, target.range.table).await?;
            drop(waiting);
            let served = match ended {
                Ended::Served(served) => Some(served),
                Ended::Lost => None,
                Ended::TimedOut | Ended::Unblocked(Unblock::Timeout) => {
                    return Ok(Some(Ok(Done::from(Reply::NullArray))));
                }
                Ended::Unblocked(Unblock::Error) => {
                    return Ok(Some(Err(CommandError::UNBLOCKED)));
                }
                Ended::Denied(refusal) => {
                    self.reject(Some(entry), refusal);
                    return Ok(None);
                }
            };
            let confirmed = match served {
                Some(Served { reply, gate }) => self.confirm(entry, reply, (gate, target)).await,
                None => Ok(None),
            };
            match confirmed {
                Ok(Some(answered)) => {
                    let mut done = self.answered(entry, answered);
                    done.gates.clear();
                    return Ok(Some(Ok(done)));
                }
                Ok(None) => {}
                Err(error) => return Ok(Some(Err(error))),
            }
            match self.come_again(&mut wait).await {
                Ok(Again::InLine(next, at)) => (waiting, target) = (next, at),
                Ok(Again::Done(done)) => return Ok(Some(Ok(done))),
                Err(error) => return Ok(Some(Err(error))),
            }
        }
    }

    /// Stands in line until the wait ends in some way.
    async fn stand_in_line(
        &mut self,
        wait: &mut Wait<'_>,
        waiting: &mut Waiting,
        table: TableId,
    ) -> Result<Ended, Closed> {
        let timeout = self.shared.options.request_timeout;
        // What `$` stood for is true once the entry that it named is durable.
        let mut filled_in = waiting.gate.map(|gate| self.shared.storage.wait(gate, timeout));
        if filled_in.is_none() {
            wait.line = Arc::clone(&waiting.args);
        }
        let account = Arc::clone(&self.session.login.account);
        let mut rules = pin!(account.changed());
        let mut swaps = self.shared.hub().databases.swaps();
        // A swap that came before it was listened to.
        let is_swapped = self.shared.hub().databases.table(self.session.table) != table;
        if is_swapped {
            swaps.mark_changed();
        }
        let ended = loop {
            // Rules that came before they were listened to are looked at all the same.
            rules.as_mut().enable();
            if let Err(refusal) = self.check_rules(wait.entry, &wait.line, Context::Toplevel) {
                break Ok(Ended::Denied(refusal));
            }
            tokio::select! {
                biased;
                served = &mut waiting.served => return Ok(served.map_or(Ended::Lost, Ended::Served)),
                how = wait.blocked.unblocked() => return Ok(Ended::Unblocked(how)),
                () = sleep_until(wait.deadline.map(Instant::into_std)) => break Ok(Ended::TimedOut),
                // The client waits for what is in the database now.
                _ = swaps.changed() => break Ok(Ended::Lost),
                () = &mut rules => rules.set(account.changed()),
                outcome = or_never(&mut filled_in) => {
                    filled_in = None;
                    if outcome == GateOutcome::Durable {
                        wait.line = Arc::clone(&waiting.args);
                    }
                }
                closed = self.gone() => break Err(closed),
            }
        };
        if waiting.claim.take() {
            return ended;
        }
        // The leader was faster, or CLIENT UNBLOCK.
        match wait.blocked.ended() {
            Some(how) => Ok(Ended::Unblocked(how)),
            None => Ok((&mut waiting.served).await.map_or(Ended::Lost, Ended::Served)),
        }
    }

    /// Waits until what was served is durable; `None` if it was lost, and so not served.
    async fn confirm(
        &mut self,
        entry: &'static Entry,
        reply: Reply,
        (gate, target): (Option<Gate>, Target),
    ) -> Result<Option<Answered>, CommandError> {
        let answered = Answered::done(reply, gate, target);
        let Some(gate) = gate else { return Ok(Some(answered)) };
        match self.caller.outcome(gate).await {
            GateOutcome::Durable => Ok(Some(answered)),
            GateOutcome::Lost => {
                self.caller.tally.gates_lost += 1;
                Ok(None)
            }
            GateOutcome::Unknown => {
                self.caller.tally.gates_unknown += 1;
                // A read that was never answered has not happened.
                let wrote = entry.command.flags.has(Flags::WRITE);
                if wrote { Err(CommandError::UNCERTAIN) } else { Ok(None) }
            }
        }
    }

    /// Makes the call again, wherever the leader is now, as long as the client waits.
    async fn come_again(&mut self, wait: &mut Wait<'_>) -> Result<Again, CommandError> {
        let mut claim = Arc::new(Claim::default());
        if let Err(how) = wait.blocked.renew(Arc::clone(&claim)) {
            return unblocked(how);
        }
        let line = Arc::clone(&wait.line);
        loop {
            let patience = Instant::now() + self.shared.options.request_timeout;
            let until = wait.deadline.map_or(patience, |deadline| deadline.min(patience));
            let mut routed = Routed::by_keys(wait.entry, self.session.table, &line)?;
            routed.waiting_since = Some(wait.started);
            let answered = match self.caller.call_by(&routed, until).await {
                // Nothing was executed: the client waits on.
                Err(CommandError::NoLeader(_)) if wait.is_over() => {
                    return Ok(Again::Done(Done::from(Reply::NullArray)));
                }
                Err(CommandError::NoLeader(_)) => {
                    if let Some(how) = wait.blocked.ended() {
                        return unblocked(how);
                    }
                    continue;
                }
                answered => answered?,
            };
            let Answered { reply, gate, target, waits, .. } = answered;
            if let Some(waiting) = waits {
                claim = Arc::clone(&waiting.claim);
                return match wait.blocked.renew(Arc::clone(&claim)) {
                    Ok(()) => Ok(Again::InLine(waiting, target)),
                    // Whoever was served meanwhile is served all the same.
                    Err(_) if !claim.take() => Ok(Again::InLine(waiting, target)),
                    Err(how) => unblocked(how),
                };
            }
            if let Some(answered) = self.confirm(wait.entry, reply, (gate, target)).await? {
                let mut done = self.answered(wait.entry, answered);
                done.gates.clear();
                return Ok(Again::Done(done));
            }
        }
    }
}

/// What came of a call that was made again.
enum Again {
    InLine(Box<Waiting>, Target),
    Done(Done),
}

fn unblocked(how: Unblock) -> Result<Again, CommandError> {
    match how {
        Unblock::Timeout => Ok(Again::Done(Done::from(Reply::NullArray))),
        Unblock::Error => Err(CommandError::UNBLOCKED),
    }
}

impl Wait<'_> {
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The outcome of a gate, if there is one to wait for.
async fn or_never(gate: &mut Option<BoxFuture<GateOutcome>>) -> GateOutcome {
    match gate {
        Some(gate) => gate.await,
        None => std::future::pending().await,
    }
}

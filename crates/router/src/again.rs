//! Replies that wait for their gates, and what is made good when a leader is lost with what it had
//! proposed: the command is made again, at the next leader, until the request's deadline.
//!
//! ```text
//! gate open ──▶ the reply leaves
//! lost      ──▶ it was not done and never will be: the command is made again
//! unknown   ──▶ the same, under the name of the first attempt (`RequestId`): whoever leads now knows
//!               whether that was done, and then answers what was answered, or does it now
//! ```
//!
//! A command is made again only if nothing of its connection that came behind it was done at the
//! same partition: else the two would change places. Before a command is made at another leader than the
//! one that a reply of the same partition waits for, that reply is settled ([`Connection::waits_elsewhere`]);
//! so this hardly ever happens.
//!
//! What several partitions took part in, what waits for data and what EXEC ran is not made again. Its
//! outcome is asked for, and told as it is.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use commands::CommandError;
use commands::table::Entry;
use tokio::time::Instant;
use wire::ids::TableId;
use wire::resp::{Arguments, Reply};
use wire::service::{Gate, GateOutcome, Request, RequestId, ScriptClient};

use crate::cache::Target;
use crate::connection::{Closed, Connection, Done};
use crate::latency::Sample;
use crate::route::{Caller, Routed};
use crate::session::ReplyMode;
use std::sync::atomic::Ordering::Relaxed;

/// A command line of at most so many bytes is copied: as long as one is kept, it would keep the thread's
/// read buffer.
const LINE_COPIED_BYTES_MAX: usize = 16 << 10;
/// How long a gate is waited for before it is asked whether somebody else leads: its node may stand
/// still.
pub(crate) const WAIT_STEP: Duration = Duration::from_secs(1);
/// First and longest wait before a command is made again.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(50);
/// How often whoever leads is asked for the outcome of what another leader proposed.
const OUTCOME_POLL: Duration = Duration::from_millis(20);

/// A reply that may leave only when a gate is open.
#[derive(Debug)]
pub(crate) struct Gated {
    pub(crate) at: Range<usize>,
    pub(crate) gate: Gate,
    /// Whether the command may have written: decides what an unknown outcome means.
    pub(crate) writes: bool,
    /// What to make again, if that can be done.
    pub(crate) again: Option<Again>,
}

/// A command that can be made again.
#[derive(Debug)]
pub(crate) struct Again {
    entry: &'static Entry,
    table: TableId,
    /// The name it was made under, if it writes.
    request: Option<RequestId>,
    /// Whom it was run for, if it is a script: the connection may have another user since.
    client: Option<Arc<dyn ScriptClient>>,
    line: Line,
}

#[derive(Debug)]
enum Line {
    /// Where it begins in [`Lines`], and its arguments.
    Copied(usize, usize),
    Shared(Box<Arguments>),
}

/// Copies of command lines.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Bytes it takes.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn keep(&mut self, args: &Arguments) -> Line {
        let bytes: usize = args.iter().map(Bytes::len).sum();
        if bytes > LINE_COPIED_BYTES_MAX {
            return Line::Shared(Box::new(args.clone()));
        }
        let start = self.0.len();
        self.0.reserve(bytes + 4 * args.len());
        for arg in args {
            self.0.put_u32(arg.len() as u32);
            self.0.put_slice(arg);
        }
        Line::Copied(start, args.len())
    }

    fn line(&self, line: &Line) -> Arguments {
        match line {
            Line::Shared(args) => Arguments::clone(args),
            Line::Copied(start, count) => {
                let mut rest = &self.0[*start..];
                let mut next = || {
                    let length = rest.get_u32() as usize;
                    let (arg, behind) = rest.split_at(length);
                    rest = behind;
                    Bytes::copy_from_slice(arg)
                };
                (0..*count).map(|_| next()).collect()
            }
        }
    }
}

impl Caller {
    /// Waits for a gate; if its node is lost meanwhile, asks whoever leads then.
    pub(crate) async fn outcome(&self, gate: Gate) -> GateOutcome {
        let timeout = self.shared.options.request_timeout;
        let deadline = Instant::now() + timeout;
        match self.shared.storage.wait(gate, timeout).await {
            GateOutcome::Unknown => self.fate(gate, deadline).await,
            outcome => outcome,
        }
    }

    /// Asks what became of what a lost leader proposed.
    async fn fate(&self, gate: Gate, deadline: Instant) -> GateOutcome {
        loop {
            if let Some(outcome) = self.shared.storage.outcome(gate) {
                return outcome;
            }
            if Instant::now() + OUTCOME_POLL >= deadline {
                return GateOutcome::Unknown;
            }
            tokio::time::sleep(OUTCOME_POLL).await;
        }
    }
}

impl Connection {
    /// Keeps what is needed to make a command again, if its reply waits for something.
    pub(crate) fn keep(
        &mut self,
        entry: &'static Entry,
        args: &Arguments,
        done: &Done,
    ) -> Option<Again> {
        let is_answered = self.session.reply_mode == ReplyMode::On;
        // A write without a name could be done twice.
        let is_named = !done.writes || done.request.is_some();
        if !done.repeatable || done.gates.len() != 1 || !is_answered || !is_named {
            return None;
        }
        let client = self.script_client(entry);
        let line = self.lines.keep(args);
        Some(Again { entry, table: self.session.table, request: done.request, client, line })
    }

    /// Whether a reply waits for the same partition at another node than this one leads to.
    pub(crate) fn waits_elsewhere(&self, target: &Target) -> bool {
        let of_partition = |gated: &&Gated| gated.gate.partition == target.partition;
        let newest = self.gated.iter().rev().find(of_partition);
        newest.is_some_and(|gated| Some(gated.gate.node) != target.leader)
    }

    /// Waits for the gates. What was not made durable is made again, or its reply replaced.
    pub(crate) async fn settle(&mut self) -> Result<(), Closed> {
        let gated = std::mem::take(&mut self.gated);
        let started = Instant::now();
        let deadline = started + self.shared.options.request_timeout;
        // Commands of one batch share a gate, so there are few to wait for; and since they open in
        // order, waiting for the first of them hardly ever costs a second wait.
        let mut outcomes: Vec<(Gate, GateOutcome)> = self.settled.take().into_iter().collect();
        for Gated { gate, .. } in &gated {
            if outcomes.last().is_some_and(|(last, _)| last == gate)
                || outcomes.iter().any(|(known, _)| known == gate)
            {
                continue;
            }
            let outcome = self.wait(*gate, deadline).await?;
            outcomes.push((*gate, outcome));
        }
        self.note_wait(started);
        if outcomes.iter().any(|(_, outcome)| *outcome != GateOutcome::Durable) {
            Box::pin(self.make_good(&gated, &outcomes, deadline)).await?;
        }
        self.gated = gated;
        self.gated.clear();
        self.lines.clear();
        Ok(())
    }

    /// Keeps how long a quorum was waited for, if that was long.
    pub(crate) fn note_wait(&self, since: Instant) {
        let took_ms = since.elapsed().as_millis() as u64;
        let threshold_ms = self.shared.config.live.latency_threshold_ms.load(Relaxed);
        if threshold_ms > 0 && took_ms >= threshold_ms {
            let at_s = self.shared.now_s();
            self.shared.latency.add("quorum-wait", Sample { at_s, took_ms });
        }
    }

    async fn wait(&mut self, gate: Gate, deadline: Instant) -> Result<GateOutcome, Closed> {
        let left = deadline.saturating_duration_since(Instant::now()).min(WAIT_STEP);
        tokio::select! {
            outcome = self.shared.storage.wait(gate, left) => Ok(outcome),
            () = self.session.client.killed() => Err(Closed),
        }
    }

    /// Makes again what was lost, and replaces replies that are not true.
    async fn make_good(
        &mut self,
        gated: &[Gated],
        outcomes: &[(Gate, GateOutcome)],
        deadline: Instant,
    ) -> Result<(), Closed> {
        let of = |gate: &Gate| outcomes.iter().find(|(known, _)| known == gate).map(|(_, o)| *o);
        let is_open = |gate: &Gate| of(gate) == Some(GateOutcome::Durable);
        let mut old = std::mem::take(&mut self.output);
        let mut at = 0;
        for (nth, Gated { at: range, gate, writes, again }) in gated.iter().enumerate() {
            // A reply with several gates is replaced once.
            if is_open(gate) || range.start < at {
                continue;
            }
            let overtaken =
                |later: &Gated| later.gate.partition == gate.partition && is_open(&later.gate);
            let again = again.as_ref().filter(|_| !gated[nth + 1..].iter().any(overtaken));
            let reply = match (of(gate), again) {
                (first, Some(again)) => {
                    let first = (*gate, first.unwrap_or(GateOutcome::Unknown));
                    self.make_again(again, first, deadline).await?
                }
                (Some(GateOutcome::Lost), None) => Some(CommandError::NOT_EXECUTED.into()),
                (_, None) => match self.caller.fate(*gate, deadline).await {
                    GateOutcome::Durable => None,
                    GateOutcome::Unknown if *writes => Some(CommandError::UNCERTAIN.into()),
                    // A read that was never answered has not happened either.
                    GateOutcome::Lost | GateOutcome::Unknown => {
                        Some(CommandError::NOT_EXECUTED.into())
                    }
                },
            };
            let Some(reply) = reply else { continue };
            self.output.put_shared(&old.copy_to_bytes(range.start - at));
            old.advance(range.len());
            at = range.end;
            if self.count_error(&reply) {
                let is_lost = of(gate) == Some(GateOutcome::Lost);
                self.caller.tally.gates_lost += u64::from(is_lost);
                self.caller.tally.gates_unknown += u64::from(!is_lost);
            }
            self.encode(&reply);
        }
        let rest = old.remaining();
        self.output.put_shared(&old.copy_to_bytes(rest));
        Ok(())
    }

    /// Makes a command again until its outcome is certain. Its reply; `None` if that of the first attempt
    /// is true.
    async fn make_again(
        &mut self,
        again: &Again,
        (first, mut last): (Gate, GateOutcome),
        deadline: Instant,
    ) -> Result<Option<Reply>, Closed> {
        let args = self.lines.line(&again.line);
        let Ok(mut routed) = Routed::by_keys(again.entry, again.table, &args) else {
            return Ok(Some(CommandError::NOT_EXECUTED.into()));
        };
        routed.client = again.client.clone();
        let (mut backoff, mut from, mut newest) = (BACKOFF_MIN, first.index, None);
        loop {
            self.caller.tally.repeated += 1;
            let name = again.request.map(|id| Request { id, again: Some(from) });
            routed.request = name.map(|name| (name, first.partition));
            let client = self.session.client.clone();
            let answered = tokio::select! {
                answered = self.caller.call_by(&routed, deadline) => answered,
                () = client.killed() => return Err(Closed),
            };
            let answered = match answered {
                Ok(answered) => answered,
                Err(CommandError::NoLeader(_)) => return Ok(Some(in_vain(again, last).into())),
                Err(error) if error == CommandError::NOT_EXECUTED => {
                    return Ok(Some(in_vain(again, last).into()));
                }
                Err(error) => return Ok(Some(error.into())),
            };
            if !answered.done_before {
                // Done now, or told as it was told. What was done before this, was not.
                newest = Some(answered.reply);
            }
            // The next leader's log may be shorter than that in which the first attempt stood.
            from = answered.gate.map_or(from, |gate| from.min(gate.index));
            // Of earlier attempts it is known now that they were not done, or are this one.
            last = match answered.gate {
                None => GateOutcome::Durable,
                Some(gate) => {
                    if again.request.is_some() {
                        self.session.wrote(gate, answered.target.sure_replicas);
                    }
                    self.wait(gate, deadline).await?
                }
            };
            if last == GateOutcome::Durable {
                return Ok(newest);
            }
            if Instant::now() + backoff >= deadline {
                return Ok(Some(in_vain(again, last).into()));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// What is said of a command that was made again in vain, when this became of the last attempt.
fn in_vain(again: &Again, last: GateOutcome) -> CommandError {
    match (last, again.request) {
        (GateOutcome::Unknown, Some(_)) => CommandError::UNCERTAIN,
        // A read that was never answered has not happened either.
        _ => CommandError::NOT_EXECUTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_as_they_were() {
        let mut lines = Lines::default();
        let args = |lengths: &[usize]| -> Arguments {
            lengths.iter().map(|length| Bytes::from(vec![*length as u8; *length])).collect()
        };
        let all =
            [args(&[3, 0, 5]), args(&[LINE_COPIED_BYTES_MAX, 1]), args(&[1]), args(&[200; 9])];
        let kept: Vec<_> = all.iter().map(|args| lines.keep(args)).collect();
        assert!(matches!(kept[1], Line::Shared(_)));
        for (line, args) in kept.iter().zip(&all) {
            assert_eq!(lines.line(line), *args);
        }
    }
}

//! Calls that wait for data at their partition's leader (BLPOP, XREAD BLOCK).
//!
//! ```text
//! evaluate ──nothing yet──→ kept, in line at each of its keys
//! effects that join the open batch ──→ touched keys are ready, in the order of their writes
//! serve: for each ready key, for each call in line, the longest-waiting first
//!          evaluate again ──nothing──→ stays in line, and what it would have changed is dropped
//!                └──an answer──→ claim it ──taken before──→ dropped: its client gave up
//!                                   └──→ effects join the batch (more keys get ready); reply and gate
//!                                        go to the caller
//! ```
//!
//! All of it happens under the partition's lock, before anyone else's command is evaluated: nobody
//! can take an element from under a call that stands in line for it. A call is only tried if the key
//! holds a value of the kind it waits for: a BLPOP does not learn that its key became a string.
//!
//! *Leases.* Nobody asks for the lease when a call in line is served, and what it reads may be applied by
//! then. So what it is answered always waits for something proposed from then on: nearly always the
//! batch that served it, else an empty one.
//!
//! *A change of leaders.* The lines are this replica's alone and end with its lead. The callers
//! come again, at the new leader, saying since when they wait, and so get their old order.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::rows::{self, RowKind};
use commands::table::{self, Entry};
use commands::types::header::{self, Kind};
use commands::types::keyspace;
use commands::{Args, CommandError, Effects, View, Wait, is_nothing};
use tokio::sync::oneshot;
use wire::ids::{CommandId, Version};
use wire::resp::Reply;
use wire::service::{Answer, Call, Claim, Gate, Served};

use super::{Asker, BATCH_BYTES_MAX, Core, Evaluated, check_effects, run};
use crate::containment::contained;
use crate::lsm::Lsm;
use crate::view::Seen;

/// A call's place in all its lines: those that have waited longer come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket {
    /// When it began to wait, here or elsewhere.
    since: Instant,
    number: u64,
}

/// A call that is kept, for the host to hand out.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) ticket: Ticket,
    pub(crate) args: Arc<[Bytes]>,
    /// What must be durable for `args`.
    pub(crate) gate: Option<Gate>,
    pub(crate) since: Instant,
    pub(crate) timeout: Option<Duration>,
    pub(crate) claim: Arc<Claim>,
    pub(crate) served: oneshot::Receiver<Served>,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Blocked {
    calls: BTreeMap<Ticket, BlockedCall>,
    lines: HashMap<Bytes, Line>,
    /// Keys that may have something for those in line.
    ready: VecDeque<Bytes>,
    next_number: u64,
    /// The node stops: nothing is kept any more.
    closed: bool,
}

struct BlockedCall {
    command: CommandId,
    /// Who it is kept for.
    asker: Asker,
    args: Arc<[Bytes]>,
    keys: Vec<Bytes>,
    wait: Awaited,
    claim: Arc<Claim>,
    wake: oneshot::Sender<Served>,
}

#[derive(Clone, Copy)]
struct Awaited {
    kind: Kind,
    or_gone: bool,
}

/// Who waits for a key.
#[derive(Default)]
struct Line {
    lists: BTreeSet<Ticket>,
    sorted_sets: BTreeSet<Ticket>,
    streams: BTreeSet<Ticket>,
    /// Those of any kind that wait for the end of it, too.
    or_gone: BTreeSet<Ticket>,
    is_ready: bool,
}

impl Line {
    /// Those that wait for a value of a kind; nothing can be waited for in the other kinds.
    fn of(&self, kind: Kind) -> Option<&BTreeSet<Ticket>> {
        match kind {
            Kind::List => Some(&self.lists),
            Kind::SortedSet => Some(&self.sorted_sets),
            Kind::Stream => Some(&self.streams),
            Kind::String | Kind::Set | Kind::Hash => None,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut BTreeSet<Ticket> {
        match kind {
            Kind::List => &mut self.lists,
            Kind::SortedSet => &mut self.sorted_sets,
            Kind::Stream => &mut self.streams,
            Kind::String | Kind::Set | Kind::Hash => panic!("no command waits for a {kind:?}"),
        }
    }

    /// The first in line behind a ticket that is to be tried, the key holding a value of this kind.
    fn next(&self, kind: Option<Kind>, behind: Option<Ticket>) -> Option<Ticket> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let first = |line: &BTreeSet<Ticket>| line.range((from, Bound::Unbounded)).next().copied();
        let of_kind = kind.and_then(|kind| self.of(kind)).and_then(first);
        of_kind.into_iter().chain(first(&self.or_gone)).min()
    }

    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.sorted_sets.is_empty() && self.streams.is_empty()
    }
}

impl Blocked {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether nothing is kept any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether somebody in line may be served.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Keys that are waited for, and of these those whose end is waited for, too.
    pub(super) fn keys(&self) -> (u64, u64) {
        let or_gone = self.lines.values().filter(|line| !line.or_gone.is_empty()).count();
        (self.lines.len() as u64, or_gone as u64)
    }

    /// Sends all callers away: they come again where the leader is.
    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.lines.clear();
        self.ready.clear();
    }

    /// The same, for good.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.clear();
    }

    fn add(&mut self, since: Instant, call: BlockedCall) -> Ticket {
        let ticket = Ticket { since, number: self.next_number };
        self.next_number += 1;
        for key in &call.keys {
            let line = self.lines.entry(key.clone()).or_default();
            line.of_mut(call.wait.kind).insert(ticket);
            if call.wait.or_gone {
                line.or_gone.insert(ticket);
            }
        }
        self.calls.insert(ticket, call);
        ticket
    }

    /// Takes a call out of its lines.
    fn remove(&mut self, ticket: Ticket) -> Option<BlockedCall> {
        let call = self.calls.remove(&ticket)?;
        for key in &call.keys {
            let Some(line) = self.lines.get_mut(key) else { continue };
            line.of_mut(call.wait.kind).remove(&ticket);
            line.or_gone.remove(&ticket);
            if line.is_empty() {
                self.lines.remove(key);
            }
        }
        Some(call)
    }

    /// Notes which awaited keys effects have changed.
    pub(super) fn touch(&mut self, effects: &Effects) {
        if effects.flushed_through.is_some() {
            let gone = self.lines.iter().filter(|(_, line)| !line.or_gone.is_empty());
            let gone: Vec<Bytes> = gone.map(|(key, _)| key.clone()).collect();
            gone.into_iter().for_each(|key| self.make_ready(key));
        }
        let mut touched: Vec<(Option<Version>, Bytes)> = Vec::new();
        for write in &effects.writes {
            let Some(RowKind::Header { key, .. }) = rows::parse(&write.row) else { continue };
            let Some((key, line)) = self.lines.get_key_value(key) else { continue };
            match &write.value {
                None if line.or_gone.is_empty() => {}
                None => touched.push((None, key.clone())),
                Some(value) => touched.push((header::version_of(value), key.clone())),
            }
        }
        // Rows are in the order of placements; versions are in that of the commands.
        touched.sort_by_key(|(version, _)| *version);
        touched.into_iter().for_each(|(_, key)| self.make_ready(key));
    }

    fn make_ready(&mut self, key: Bytes) {
        if let Some(line) = self.lines.get_mut(&key)
            && !std::mem::replace(&mut line.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn pop_ready(&mut self) -> Option<Bytes> {
        while let Some(key) = self.ready.pop_front() {
            // A line that ended meanwhile is gone, and one that began anew is not ready.
            if let Some(line) = self.lines.get_mut(&key)
                && std::mem::replace(&mut line.is_ready, false)
            {
                return Some(key);
            }
        }
        None
    }
}

/// What a call waits for for which there is nothing yet.
pub(super) struct Waits {
    /// When it began to.
    since: Instant,
    wait: Wait,
    /// What it did all the same.
    effects: Option<Effects>,
}

/// What a call asked to be evaluated left, unless there was nothing and it can wait: then that goes
/// to `waits`, and nothing is left.
pub(super) fn or_wait(
    entry: &Entry,
    call: &Call<'_>,
    view: &dyn View,
    (result, effects): (Result<Reply, CommandError>, Option<Effects>),
    waits: &mut Option<Waits>,
) -> (Result<Reply, CommandError>, Option<Effects>) {
    let (Some(look), Some(since)) = (entry.command.waits, call.waiting_since) else {
        return (result, effects);
    };
    if !result.as_ref().is_ok_and(is_nothing) {
        return (result, effects);
    }
    match look(view, Args(call.args)) {
        Ok(None) => (result, effects),
        Ok(Some(wait)) => {
            *waits = Some(Waits { since, wait, effects });
            (result, None)
        }
        Err(error) => (Err(error), None),
    }
}

impl Core {
    /// Keeps a call for which there was nothing.
    pub(super) fn keep(
        &mut self,
        call: &Call<'_>,
        Waits { since, wait, effects }: Waits,
        gate: Option<Gate>,
    ) -> Evaluated {
        if self.blocked.closed {
            return Evaluated::Answer(Answer::NotHere(None));
        }
        if let Some(effects) = effects.filter(|effects| !effects.is_empty()) {
            if let Err(error) = check_effects(&effects) {
                let reply = error.into();
                return Evaluated::Answer(Answer::Done { reply, gate: None });
            }
            // A consumer that was made, or seen: nothing that anybody waits for.
            self.join_unseen(effects);
        }
        let is_as_sent = wait.args.is_none();
        let args = copied(wait.args.as_deref().unwrap_or(call.args));
        let mut keys: Vec<Bytes> = Vec::with_capacity(wait.keys.len());
        for key in copied(&wait.keys).iter() {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        let claim = Arc::new(Claim::default());
        let (wake, served) = oneshot::channel();
        let ticket = self.blocked.add(
            since,
            BlockedCall {
                command: call.command,
                asker: Asker { origin: call.origin, request: call.request.map(|it| it.id) },
                args: Arc::clone(&args),
                keys,
                wait: Awaited { kind: wait.kind, or_gone: wait.or_gone },
                claim: Arc::clone(&claim),
                wake,
            },
        );
        let gate = gate.filter(|_| !is_as_sent);
        let timeout = wait.timeout_ms.map(Duration::from_millis);
        Evaluated::Kept(Kept { ticket, args, gate, since, timeout, claim, served })
    }

    /// Its caller does not wait any more.
    pub(crate) fn forget_kept(&mut self, ticket: Ticket) {
        self.blocked.remove(ticket);
    }

    /// Serves the calls that wait for what was written since this was last called. To be called
    /// before anybody else's command is evaluated.
    pub(crate) fn serve_kept(&mut self, lsm: &Lsm) {
        if self.held.is_some() {
            // Nothing was written; whoever holds the partition has them served when it is done.
            return;
        }
        while self.blocked.is_ready() {
            // A batch may grow only so far; the rest is served when the next one is open.
            if self.is_batch_full() {
                return;
            }
            let Some(key) = self.blocked.pop_ready() else { return };
            if !self.serve_key(&key, lsm) {
                self.blocked.make_ready(key);
                return;
            }
        }
    }

    /// Serves who waits for a key; false if not all could be tried.
    fn serve_key(&mut self, key: &Bytes, lsm: &Lsm) -> bool {
        let mut behind = None;
        loop {
            let Some(view) = self.view(lsm, true) else { return true };
            let kind = match keyspace::peek(&view, key) {
                Ok(found) => found.map(|header| header.value.kind()),
                Err(error) => {
                    // A command on this key meets the same; those in line go on waiting.
                    tracing::warn!(partition = self.partition.0, %error, "awaited key not read");
                    return true;
                }
            };
            let next = self.blocked.lines.get(key).and_then(|line| line.next(kind, behind));
            let Some(ticket) = next else { return true };
            if self.is_batch_full() {
                return false;
            }
            behind = Some(ticket);
            self.try_to_serve(ticket, lsm);
        }
    }

    pub(super) fn is_batch_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.builder.len() > BATCH_BYTES_MAX)
    }

    /// Evaluates a call in line again. What it needs from the disk is read at once: the keys were
    /// all looked at when it came, so hardly anything is.
    fn try_to_serve(&mut self, ticket: Ticket, lsm: &Lsm) {
        let Some(call) = self.blocked.calls.get(&ticket) else { return };
        let (entry, next_version) = (table::entry(call.command), self.next_version());
        let Some(view) = self.view(lsm, true) else { return };
        let done = contained("evaluation", || run(entry, &call.args, &view, next_version));
        let (result, effects) = done.unwrap_or((Err(CommandError::Panicked), None));
        let seen = Seen { unleased: true, ..view.seen() };
        if result.as_ref().is_ok_and(is_nothing) {
            return;
        }
        let is_ours = call.claim.take() || mutant!(ServedUnclaimed);
        let Some(call) = self.blocked.remove(ticket) else { return };
        if is_ours {
            let before = std::mem::replace(&mut self.asker, call.asker);
            let (reply, gate) = self.conclude(result, effects, seen);
            self.asker = before;
            // Whoever took no claim waits for this.
            let _ = call.wake.send(Served { reply, gate });
        }
    }
}

/// The arguments in memory of their own: a call may be kept for long, and a slice would keep the
/// whole buffer it was read into.
fn copied(args: &[Bytes]) -> Arc<[Bytes]> {
    let mut buffer = bytes::BytesMut::with_capacity(args.iter().map(Bytes::len).sum());
    args.iter()
        .map(|arg| {
            buffer.extend_from_slice(arg);
            buffer.split().freeze()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{PARTITION, evaluate, leading, sync};
    use crate::node::NodeOptions;

    #[test]
    fn who_is_served_late_waits_for_what_only_a_leader_can_propose() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut node = leading(dir.path(), NodeOptions::default());
        let Evaluated::Kept(mut kept) = evaluate(&node, "XREAD BLOCK 0 STREAMS s $") else {
            panic!("there is nothing yet")
        };
        let added = evaluate(&node, "XADD s 1-1 f v");
        let Evaluated::Answer(Answer::Done { gate: Some(gate), .. }) = added else {
            panic!("it waits for the disk")
        };
        // As if the batch had been full: it is served only when the entry is applied.
        let shared = Arc::clone(node.node().shared());
        let partition = shared.replica(PARTITION, paxos::NodeId(1)).expect("it is here");
        shared.seal(&partition, gate.batch);
        sync(&mut node);
        assert!(kept.served.try_recv().is_err(), "nobody has been served yet");
        let applied = partition.look().applied().index;
        partition.lock().serve_kept(&shared.lsm);
        let served = kept.served.try_recv().expect("there is something");
        assert!(matches!(served.reply, Reply::Keyed(_)), "{:?}", served.reply);
        let gate = served.gate.expect("the lease may be over by now");
        assert!(gate.index > applied);
        shared.seal(&partition, gate.batch);
        sync(&mut node);
        let outcome = partition.lock().wait(gate, shared.clock.instant());
        assert_eq!(outcome.ok(), Some(wire::service::GateOutcome::Durable));
    }
}

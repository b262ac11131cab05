//! Calls of several connections to one partition, made together.
//!
//! ```text
//! first connection with a write ── leads: lets all that are ready have their turn ── makes all calls
//! those after it                ── leave their calls, and wait for what came of them, durable
//! ```
//!
//! A write waits for the disk anyway, and clients with one command each are mostly ready at once: what
//! answered them opened the way for all of them. Made together their calls find, lock and evaluate a
//! partition as those of one pipeline do, pushes to one list, say, being one change of it; and one waits for
//! the gate in place of all. The calls that one connection leaves stay together, in their order.
//!
//! Only the end of a pipeline is left to others, since who waits for it would wait now in any case. Whoever
//! is alone does not wait for others: after some turns in vain only each so many is tried.

use std::collections::HashMap;
use std::sync::Arc;

use commands::table::Entry;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::resp::Arguments;
use wire::service::{Answer, Call, Evaluated, Gate, GateOutcome, Request, RequestId, ScriptClient};

use crate::Shared;
use crate::again::WAIT_STEP;
use crate::cache::Target;

/// Calls made under one hold of a partition's lock, at most: others wait for it meanwhile.
pub(crate) const CALLS_MAX: usize = 64;
/// After so many turns in a row in which nobody else came …
const LONELY_TURNS: u32 = 4;
/// … one of so many is tried.
const TRIED_ONE_OF: u32 = 16;

/// A command that is to be called for.
pub(crate) struct Pended {
    pub(crate) entry: &'static Entry,
    pub(crate) args: Arguments,
    /// What names it, if it writes.
    pub(crate) name: Option<RequestId>,
}

/// Why a call was not done.
pub(crate) enum Stop {
    /// The partition's answer.
    Met(Answer),
    /// CLIENT PAUSE began while it waited for others.
    Paused,
}

/// What a connection has to be done.
pub(crate) struct Calls {
    /// All for the target.
    pub(crate) commands: Vec<Pended>,
    /// The database.
    pub(crate) table: TableId,
    pub(crate) target: Target,
    /// The connection.
    pub(crate) origin: u64,
    pub(crate) client: Option<Arc<dyn ScriptClient>>,
    /// What came of the first of them.
    pub(crate) done: Vec<Evaluated>,
    /// What the one behind those met.
    pub(crate) stopped: Option<Stop>,
    /// What became of the gate of the last that has one, if it was waited for.
    pub(crate) settled: Option<(Gate, GateOutcome)>,
}

impl Calls {
    fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        let Calls { target, origin, client, .. } = self;
        self.commands.iter().map(move |Pended { entry, args, name }| Call {
            command: entry.id,
            table: target.range.table,
            partition: target.partition,
            epoch: target.version.epoch,
            args,
            origin: *origin,
            request: name.map(|id| Request { id, again: None }),
            waiting_since: None,
            client: client.as_ref(),
        })
    }

    /// Whether some may have to wait for the disk.
    pub(crate) fn may_write(&self) -> bool {
        self.commands.iter().any(|one| one.entry.command.may_write())
    }

    /// Whether both may be made together.
    fn is_alike(&self, other: &Calls) -> bool {
        self.table == other.table && self.target.is_same(&other.target)
    }

    fn gate(&self) -> Option<Gate> {
        self.done.iter().rev().find_map(|done| done.gate)
    }

    /// Whether all of them were done.
    fn is_done(&self) -> bool {
        self.done.len() == self.commands.len()
    }

    /// Whether some were.
    fn is_begun(&self) -> bool {
        !self.done.is_empty()
    }

    /// Makes them, up to the first that is not done, or until replies are large.
    pub(crate) fn make(&mut self, shared: &Shared) {
        make(shared, std::slice::from_mut(self));
    }
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Joint {
    groups: Mutex<HashMap<PartitionId, Group, RandomState>>,
}

/// The calls that are about to be made at one partition.
#[derive(Default)]
struct Group {
    is_led: bool,
    left: Vec<Left>,
    /// Turns in which nobody else came, in a row.
    lonely: u32,
}

/// Calls, and who is to get them back.
struct Left {
    calls: Calls,
    back: oneshot::Sender<Calls>,
}

/// The part of a connection in what is made together.
enum Part {
    Alone(Calls),
    Leads(oneshot::Receiver<Calls>),
    /// Another one makes them.
    Leaves(oneshot::Receiver<Calls>),
}

impl Joint {
    /// Makes calls together with those of others, if there may be any, and then waits for their gates.
    /// `None`: the router ends.
    ///
    /// *Cancel safety*: calls that were left are made.
    pub(crate) async fn make(&self, shared: &Arc<Shared>, calls: Calls) -> Option<Calls> {
        let partition = calls.target.partition;
        match self.part(partition, calls) {
            Part::Alone(mut calls) => {
                calls.make(shared);
                Some(calls)
            }
            Part::Leads(back) => {
                let turn = Turn { shared, partition };
                tokio::task::yield_now().await;
                drop(turn);
                back.await.ok()
            }
            Part::Leaves(back) => back.await.ok(),
        }
    }

    fn part(&self, partition: PartitionId, calls: Calls) -> Part {
        let mut groups = self.groups.lock();
        let group = groups.entry(partition).or_default();
        if !group.is_led && group.lonely >= LONELY_TURNS {
            group.lonely += 1;
            if group.lonely < LONELY_TURNS + TRIED_ONE_OF {
                return Part::Alone(calls);
            }
        }
        let (back, came) = oneshot::channel();
        group.left.push(Left { calls, back });
        match std::mem::replace(&mut group.is_led, true) {
            false => Part::Leads(came),
            true => Part::Leaves(came),
        }
    }

    /// Ends a turn: what was left until then.
    fn take(&self, partition: PartitionId) -> Vec<Left> {
        let mut groups = self.groups.lock();
        let group = groups.entry(partition).or_default();
        group.is_led = false;
        group.lonely = match group.left.len() {
            0 | 1 => group.lonely.min(LONELY_TURNS - 1) + 1,
            _ => 0,
        };
        std::mem::take(&mut group.left)
    }
}

/// The lead of a group. At its end all that was left is made, should its connection have ended before,
/// too.
struct Turn<'a> {
    shared: &'a Arc<Shared>,
    partition: PartitionId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let left = self.shared.joint.take(self.partition);
        let (mut all, backs): (Vec<_>, Vec<_>) =
            left.into_iter().map(|Left { calls, back }| (calls, back)).unzip();
        if self.shared.clients.holds_back(true) {
            all.iter_mut().for_each(|calls| calls.stopped = Some(Stop::Paused));
        } else {
            make_all(self.shared, &mut all);
        }
        let mut waiting = Vec::with_capacity(all.len());
        for (calls, back) in all.into_iter().zip(backs) {
            match calls.gate() {
                Some(gate) => waiting.push((gate, Left { calls, back })),
                None => hand_back(Left { calls, back }),
            }
        }
        // Not on the leader's own task: its connection may end, and the others are to get their answers.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(settle(Arc::clone(self.shared), waiting));
        }
    }
}

/// Makes calls to one partition, in parts of no more than [`CALLS_MAX`].
fn make_all(shared: &Shared, mut all: &mut [Calls]) {
    while let Some(first) = all.first() {
        let mut count = 0;
        let fits = |next: &&Calls| {
            count += next.commands.len();
            count <= CALLS_MAX && first.is_alike(next)
        };
        let alike = all.iter().take_while(fits).count();
        let (these, others) = all.split_at_mut(alike.max(1));
        make(shared, these);
        all = others;
    }
}

/// Waits for gates, and hands back what waits for them.
async fn settle(shared: Arc<Shared>, waiting: Vec<(Gate, Left)>) {
    let mut known = None;
    for (gate, mut left) in waiting {
        let settled = match known.filter(|(known, _)| *known == gate) {
            Some(settled) => settled,
            None => (gate, shared.storage.wait(gate, WAIT_STEP).await),
        };
        known = Some(settled);
        left.calls.settled = known;
        hand_back(left);
    }
}

fn hand_back(Left { calls, back }: Left) {
    // Whose connection has ended meanwhile needs no answer.
    let _ = back.send(calls);
}

/// Makes calls of connections to the same partition at the same node. Those of one stop with its first
/// that is not done; the others' go on.
fn make(shared: &Shared, all: &mut [Calls]) {
    let Some(first) = all.first() else { return };
    let (table, target) = (first.table, first.target);
    let leader = target.leader.expect("only calls to leaders are made");
    let databases = shared.hub().databases.read();
    if databases.known_table(table) != Some(target.range.table) {
        // The database is another table since.
        all.iter_mut().for_each(|calls| calls.stopped = Some(Stop::Met(Answer::NotYet)));
        return;
    }
    let mut rest = all;
    while !rest.is_empty() {
        let (done, stopped) = call_all(shared, leader, rest);
        let made = hand_out(rest, done);
        let mut behind = &mut rest[made..];
        if let Some(next) = behind.first_mut().filter(|next| stopped.is_some() || next.is_begun()) {
            // It goes on by itself: it was stopped, or has got large replies.
            next.stopped = stopped.map(Stop::Met);
            behind = &mut behind[1..];
        }
        rest = behind;
    }
}

fn call_all(
    shared: &Shared,
    leader: NodeId,
    all: &mut [Calls],
) -> (Vec<Evaluated>, Option<Answer>) {
    let mut done = std::mem::take(&mut all[0].done);
    let calls: SmallVec<[Call<'_>; 1]> = all.iter().flat_map(Calls::calls).collect();
    let stopped = shared.storage.call_all(leader, &calls, &mut done);
    drop(calls);
    (done, stopped)
}

/// Gives each its part of what was done. How many have got all of theirs.
fn hand_out(all: &mut [Calls], mut done: Vec<Evaluated>) -> usize {
    if let [only] = all {
        only.done = done;
        return usize::from(only.is_done());
    }
    let mut done = done.drain(..);
    let mut made = 0;
    for calls in all {
        calls.done.extend(done.by_ref().take(calls.commands.len()));
        if !calls.is_done() {
            break;
        }
        made += 1;
    }
    made
}

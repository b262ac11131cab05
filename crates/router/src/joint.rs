//! Calls of several connections that write to one key, made together.
//!
//! ```text
//! first connection that writes to it ── leads: lets all that are ready have their turn ── makes all calls
//! those after it                     ── leave their calls, and wait for what came of them, durable
//! ```
//!
//! A write waits for the disk anyway, and clients that write to one key are mostly ready at once: what
//! answered them opened the way for all of them. Made together their calls find and lock a partition once
//! and are evaluated as those of one pipeline are, pushes to one list, say, being one change of it; and one
//! waits for the gate in place of all. The calls that one connection leaves stay together, in their order.
//!
//! Only the end of a pipeline is left to others, since who waits for it would wait now in any case. Whoever
//! is alone does not wait for others: keys are counted on to be written to by one connection at a time, and
//! each so many writes it is tried whether that is so.

use std::sync::Arc;

use commands::table::Entry;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use wire::ids::{NodeId, TableId};
use wire::placement::Placement;
use wire::resp::Arguments;
use wire::service::{Answer, Call, Evaluated, Gate, GateOutcome, Request, RequestId, ScriptClient};

use crate::Shared;
use crate::again::WAIT_STEP;
use crate::cache::Target;
use crate::clients::Client;
use crate::turns::Trial;

/// Calls made under one hold of a partition's lock, at most: others wait for it meanwhile.
pub(crate) const CALLS_MAX: usize = 64;
/// Once so many calls are made in a turn, others of the thread have theirs before the rest is.
const TURN_CALLS: usize = 512;
/// Places where keys meet others of which something is known.
const PLACES: usize = 1024;

/// A command that is to be called for.
pub(crate) struct Pended {
    pub(crate) entry: &'static Entry,
    pub(crate) args: Arguments,
    /// Of its first key.
    pub(crate) placement: Placement,
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

/// What a connection has to be done. It goes from hand to hand, so it lies on the heap.
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
        self.commands.iter().map(move |Pended { entry, args, name, .. }| Call {
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

    /// Where the one key lies that all of them are for, if some write to it.
    pub(crate) fn key(&self) -> Option<Placement> {
        let first = self.commands.first()?.placement;
        let is_one = self.commands.iter().all(|one| one.placement == first);
        let writes = self.commands.iter().any(|one| one.entry.command.may_write());
        (is_one && writes).then_some(first)
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
    pub(crate) fn make(self: &mut Box<Calls>, shared: &Shared) {
        make(shared, std::slice::from_mut(self));
    }
}

/// See the module's text.
pub(crate) struct Joint {
    places: Vec<Mutex<Place>>,
}

/// The calls that are about to be made for some keys.
struct Place {
    is_led: bool,
    left: Vec<Left>,
    /// Of a turn: whether others come in it.
    others: Trial,
}

/// Calls, and who is to get them back.
struct Left {
    key: (TableId, Placement),
    of: Arc<Client>,
    calls: Box<Calls>,
    back: oneshot::Sender<Box<Calls>>,
}

impl Default for Joint {
    fn default() -> Joint {
        let place =
            || Mutex::new(Place { is_led: false, left: Vec::new(), others: Trial::DOUBTFUL });
        Joint { places: std::iter::repeat_with(place).take(PLACES).collect() }
    }
}

impl Joint {
    /// Makes a connection's calls for one key, together with those of others if there may be any; then their
    /// gates are waited for. `None`: the connection or the router ends.
    ///
    /// *Cancel safety*: calls that were left are made, unless the connection was killed before.
    pub(crate) async fn make(
        &self,
        shared: &Arc<Shared>,
        (of, key): (&Arc<Client>, Placement),
        mut calls: Box<Calls>,
    ) -> Option<Box<Calls>> {
        let key = (calls.table, key);
        let at = (key.1.get() as usize).wrapping_add(key.0.0 as usize) % PLACES;
        if !self.is_worth_a_turn(at) {
            calls.make(shared);
            return Some(calls);
        }
        let (back, came) = oneshot::channel();
        if self.leave(at, Left { key, of: Arc::clone(of), calls, back }) {
            Turn { shared: Arc::clone(shared), at }.take().await;
        }
        came.await.ok()
    }

    /// Whether others may come to a place now.
    fn is_worth_a_turn(&self, at: usize) -> bool {
        let mut place = self.places[at].lock();
        place.is_led || place.others.is_due()
    }

    /// Leaves calls at a place. Whether nobody leads there yet.
    fn leave(&self, at: usize, left: Left) -> bool {
        let mut place = self.places[at].lock();
        place.left.push(left);
        !std::mem::replace(&mut place.is_led, true)
    }

    /// Ends a turn: what was left until then, that of one key side by side, and whether there is more for
    /// another turn.
    fn take(&self, at: usize) -> (Vec<Left>, bool) {
        let mut place = self.places[at].lock();
        let mut calls = 0;
        let fits = |left: &&Left| {
            calls += left.calls.commands.len();
            calls <= TURN_CALLS
        };
        let taken = place.left.iter().take_while(fits).count();
        let mut left: Vec<_> = place.left.drain(..taken).collect();
        place.is_led = !place.left.is_empty();
        place.others.note(left.len() > 1);
        let goes_on = place.is_led;
        drop(place);
        left.sort_by_key(|left| left.key);
        (left, goes_on)
    }
}

/// The lead of those that come to a place. At its end what was left is made, should its connection have
/// ended before, too.
struct Turn {
    shared: Arc<Shared>,
    at: usize,
}

impl Turn {
    /// Lets all that are ready leave their calls.
    async fn take(self) {
        tokio::task::yield_now().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (mut left, goes_on) = self.shared.joint.take(self.at);
        // Whoever kills a connection is told so when it makes no calls any more.
        left.retain(|left| !left.of.is_killed());
        let (mut all, backs): (Vec<_>, Vec<_>) =
            left.into_iter().map(|Left { calls, back, .. }| (calls, back)).unzip();
        if self.shared.clients.holds_back(true) {
            all.iter_mut().for_each(|calls| calls.stopped = Some(Stop::Paused));
        } else {
            make_all(&self.shared, &mut all);
        }
        let mut waiting = Vec::with_capacity(all.len());
        for (calls, back) in all.into_iter().zip(backs) {
            match calls.gate() {
                Some(gate) => waiting.push((gate, calls, back)),
                None => hand_back(calls, back),
            }
        }
        // Not on the leader's own task: its connection may end, and the others are to get their answers.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if goes_on {
            let Turn { ref shared, at } = *self;
            runtime.spawn(Turn { shared: Arc::clone(shared), at }.take());
        }
        while let Some((Gate { partition, .. }, ..)) = waiting.first() {
            let partition = *partition;
            let of_one = |(gate, ..): &mut (Gate, _, _)| gate.partition == partition;
            // No partition waits for another one's disks.
            let of_one = waiting.extract_if(.., of_one).collect();
            runtime.spawn(settle(Arc::clone(&self.shared), of_one));
        }
    }
}

/// Makes calls, in parts of no more than [`CALLS_MAX`] to one partition.
fn make_all(shared: &Shared, mut all: &mut [Box<Calls>]) {
    while let Some(first) = all.first() {
        let mut count = 0;
        let alike = all.iter().take_while(|next| {
            count += next.commands.len();
            count <= CALLS_MAX && first.is_alike(next)
        });
        let alike = alike.count();
        let (these, others) = all.split_at_mut(alike.max(1));
        make(shared, these);
        all = others;
    }
}

/// Calls whose gate is waited for, and who is to get them back.
type Waiting = (Gate, Box<Calls>, oneshot::Sender<Box<Calls>>);

/// Waits for gates of a partition, and hands back what waits for them.
async fn settle(shared: Arc<Shared>, waiting: Vec<Waiting>) {
    let mut known = None;
    for (gate, mut calls, back) in waiting {
        let settled = match known.filter(|(known, _)| *known == gate) {
            Some(settled) => settled,
            None => (gate, shared.storage.wait(gate, WAIT_STEP).await),
        };
        known = Some(settled);
        calls.settled = known;
        hand_back(calls, back);
    }
}

fn hand_back(calls: Box<Calls>, back: oneshot::Sender<Box<Calls>>) {
    // Whose connection has ended meanwhile needs no answer.
    let _ = back.send(calls);
}

/// Makes calls of connections to the same partition at the same node. Those of one stop with its first
/// that is not done; the others' go on.
fn make(shared: &Shared, all: &mut [Box<Calls>]) {
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
    all: &mut [Box<Calls>],
) -> (Vec<Evaluated>, Option<Answer>) {
    let mut done = std::mem::take(&mut all[0].done);
    let calls: SmallVec<[Call<'_>; 1]> = all.iter().flat_map(|calls| calls.calls()).collect();
    let stopped = shared.storage.call_all(leader, &calls, &mut done);
    drop(calls);
    (done, stopped)
}

/// Gives each its part of what was done. How many have got all of theirs.
fn hand_out(all: &mut [Box<Calls>], mut done: Vec<Evaluated>) -> usize {
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

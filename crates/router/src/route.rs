//! From a command's keys to the leader of their partition, and through everything that may be in
//! the way.
//!
//! ```text
//! key → placement → cache ──hit──→ leader → Answer::Done          never waits
//!                     │              └────→ NotHere, NotYet, Busy  [`Caller::call_until`]: learns the
//!                     └──miss─→ MemDS lookup → leader               newer route or waits, calls again
//! ```
//!
//! *Constant work.* Each routed call puts one lookup on MemDS: a hit's goes to the mirror queue and is
//! sent with those of the whole pipeline, nobody waiting; a miss's is the one the call waits for. Full,
//! empty or just flushed, the cache makes the same traffic. Lookups made because a route turned out
//! wrong come on top, are counted apart (`corrections`) and are rare.
//!
//! Until the request's deadline nothing that was *not executed* reaches the client. What may have been
//! executed is made again under the same name alone ([`crate::again`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commands::table::Entry;
use commands::{CommandError, Run, key_positions};
use memds::{Asked, Lookup};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until, timeout_at};
use wire::ids::{PartitionId, TableId};
use wire::placement::Placement;
use wire::resp::Reply;
use wire::service::{
    Answer, BoxFuture, Call, Gate, Request, RequestId, Route, RouteVersion, ScriptClient, Waiting,
};

use crate::Shared;
use crate::cache::{Memo, Target};
use crate::run::batch::Batch;
use crate::stats::Counters;

/// First wait before a call is made again.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Longest wait before a call is made again.
const BACKOFF_MAX: Duration = Duration::from_millis(50);
/// While a partition has no leader, MemDS is asked this often for a new one.
const CORRECTION_EVERY: Duration = Duration::from_millis(100);
/// Lookups put on the mirror queue at once, at most; a longer pipeline sends several batches.
const MIRROR_BATCH: usize = 256;

/// A command and the placement that decides which partition gets it.
pub(crate) struct Routed<'a> {
    pub(crate) entry: &'static Entry,
    /// The database, or the system's table; see `databases.rs`.
    pub(crate) table: TableId,
    pub(crate) args: &'a [Bytes],
    pub(crate) placement: Placement,
    /// Positions of the keys after the first.
    others: SmallVec<[usize; 4]>,
    /// Since when the client waits for data, if the caller can wait for them.
    pub(crate) waiting_since: Option<Instant>,
    /// What is called for instead of the one command: a transaction or a look at watched keys.
    pub(crate) batch: Option<&'a Batch<'a>>,
    /// The name of an attempt of before, if it is made again, and the partition that knows of that.
    pub(crate) request: Option<(Request, PartitionId)>,
    /// Whom a script is run for.
    pub(crate) client: Option<Arc<dyn ScriptClient>>,
}

/// A partition's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) gate: Option<Gate>,
    /// Who answered.
    pub(crate) target: Target,
    /// There is nothing yet, and the leader keeps the call; the reply is that of when its time is
    /// up. Only [`Routed::waiting_since`] leads here.
    pub(crate) waits: Option<Box<Waiting>>,
    /// The name that a write was made under.
    pub(crate) request: Option<RequestId>,
    /// An attempt of before did it, and the reply is not known here.
    pub(crate) done_before: bool,
}

impl Answered {
    /// An answer to something that was done.
    pub(crate) fn done(reply: Reply, gate: Option<Gate>, target: Target) -> Answered {
        Answered { reply, gate, target, waits: None, request: None, done_before: false }
    }
}

/// How a call went that was made without waiting.
pub(crate) enum Attempt {
    Done(Answered),
    Refused(CommandError),
    Blocked(Obstacle),
}

/// What keeps a call from being done at once. Nothing was executed yet, except behind `Later`,
/// where it is being done elsewhere.
pub(crate) enum Obstacle {
    /// The cache knows no route; MemDS was asked, and did not answer at once.
    Unknown(Asked),
    /// The route names no leader.
    NoLeader,
    /// The newest route the node knows, and the version of the route that led to it.
    NotHere(Option<Route>, RouteVersion),
    NotYet,
    Busy(Duration),
    Later(BoxFuture<Answer>, Option<RequestId>, Target),
    /// Replies wait for the same partition at another leader: they are settled first.
    Moved,
}

impl Obstacle {
    /// Whether it is hardly ever in the way for long.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self, Obstacle::Unknown(_) | Obstacle::Later(..))
    }
}

/// The positions of a line's keys; none if a number that should count them is wrong: the handler then
/// refuses the line in the command's own words, whatever partition it runs on.
pub(crate) fn positions_or_none(
    entry: &Entry,
    args: &[Bytes],
) -> Result<SmallVec<[usize; 4]>, CommandError> {
    match key_positions(entry.command, args) {
        Err(_) => Ok(SmallVec::new()),
        positions => positions,
    }
}

/// Routes the calls of one connection.
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    /// The connection's number.
    origin: u64,
    /// Of the next request.
    sequence: u64,
    /// What this connection counted since the last [`Caller::flush`].
    pub(crate) tally: Counters,
    memo: Option<Memo>,
    /// Lookups that are to be put on the mirror queue.
    pub(crate) mirror: Vec<Lookup>,
}

impl<'a> Routed<'a> {
    /// Routes by the first key. A command line without keys goes to the table's first partition.
    ///
    /// *Errors*: the line does not say where its keys are.
    pub(crate) fn by_keys(
        entry: &'static Entry,
        table: TableId,
        args: &'a [Bytes],
    ) -> Result<Routed<'a>, CommandError> {
        let mut others = positions_or_none(entry, args)?;
        let placement = match others.first() {
            Some(first) => Placement::of_key(&args[*first]),
            None => Placement::MIN,
        };
        if others.len() <= 1 {
            others.clear();
        } else {
            others.remove(0);
        }
        Ok(Routed {
            entry,
            table,
            args,
            placement,
            others,
            waiting_since: None,
            batch: None,
            request: None,
            client: None,
        })
    }

    /// Routes by a placement.
    pub(crate) fn by_placement(
        entry: &'static Entry,
        table: TableId,
        args: &'a [Bytes],
        placement: Placement,
    ) -> Routed<'a> {
        let others = SmallVec::new();
        Routed {
            entry,
            table,
            args,
            placement,
            others,
            waiting_since: None,
            batch: None,
            request: None,
            client: None,
        }
    }

    /// Whether the partition holds all keys.
    pub(crate) fn is_within(&self, target: &Target) -> bool {
        let Target { range, .. } = target;
        if let Some(batch) = self.batch {
            return batch.is_within(range);
        }
        if self.others.is_empty() || (range.first, range.last) == (Placement::MIN, Placement::MAX) {
            return true;
        }
        self.others.iter().all(|at| range.contains(Placement::of_key(&self.args[*at])))
    }

    /// Whether a script is to be run: that takes as long as it takes.
    fn is_script(&self) -> bool {
        matches!(self.entry.command.run, Run::Script(_))
            || self.batch.is_some_and(|batch| batch.has_script)
    }

    fn writes(&self) -> bool {
        self.entry.command.may_write() || self.batch.is_some_and(|batch| batch.writes)
    }
}

impl Caller {
    pub(crate) fn new(shared: Arc<Shared>, origin: u64) -> Caller {
        let tally = Counters::default();
        Caller { shared, origin, sequence: 0, tally, memo: None, mirror: Vec::new() }
    }

    /// The name of the next request that writes.
    pub(crate) fn next_request(&mut self) -> RequestId {
        next_name((self.shared.options.life, self.origin), &mut self.sequence)
    }

    /// Makes a call now if its route is known; counts it and puts its lookup on the way.
    pub(crate) fn call_now(&mut self, routed: &Routed<'_>) -> Attempt {
        match self.try_call(routed) {
            Some((table, attempt)) => {
                self.count_hit(table, routed);
                attempt
            }
            None => self.call_after_miss(routed),
        }
    }

    /// Makes a call if its route is known, on the table that its database is now.
    fn try_call(&mut self, routed: &Routed<'_>) -> Option<(TableId, Attempt)> {
        let Caller { shared, memo, origin, sequence, .. } = self;
        let databases = shared.hub().databases.read();
        let table = databases.known_table(routed.table)?;
        let target = shared.cache.get(table, routed.placement, memo)?;
        let request = match routed.request {
            // The database is another table since: there it would be done once more.
            Some((_, at)) if at != target.partition => {
                return Some((table, Attempt::Refused(CommandError::NOT_EXECUTED)));
            }
            Some((request, _)) => Some(request),
            None => routed.writes().then(|| {
                let id = next_name((shared.options.life, *origin), sequence);
                Request { id, again: None }
            }),
        };
        Some((table, call_target(shared, (*origin, request), routed, target)))
    }

    /// Makes a call whose route is not known now, if MemDS answers at once: then a miss takes the
    /// way of a hit.
    fn call_after_miss(&mut self, routed: &Routed<'_>) -> Attempt {
        self.tally.routed += 1;
        self.tally.lookups += 1;
        self.tally.cache_misses += 1;
        let asked = self.shared.memds.ask(self.lookup(routed));
        let route = match asked.take_route() {
            Ok(route) => route,
            Err(asked) => return Attempt::Blocked(Obstacle::Unknown(asked)),
        };
        self.shared.cache.install(routed.placement, &route);
        match self.try_call(routed) {
            Some((_, attempt)) => attempt,
            None => Attempt::Blocked(Obstacle::NoLeader),
        }
    }

    /// Where a call is to be made, if that is known. Its table may be another by the time of the call.
    pub(crate) fn target(&mut self, routed: &Routed<'_>) -> Option<Target> {
        let table = self.shared.hub().databases.read().known_table(routed.table)?;
        self.shared.cache.get(table, routed.placement, &mut self.memo)
    }

    /// Counts a call whose target was known and puts its lookup on the way.
    pub(crate) fn count_hit(&mut self, table: TableId, routed: &Routed<'_>) {
        self.tally.routed += 1;
        self.tally.lookups += 1;
        self.tally.cache_hits += 1;
        self.mirror.push(Lookup { table, placement: routed.placement });
        if self.mirror.len() >= MIRROR_BATCH {
            self.try_send_mirror();
        }
    }

    fn table(&self, routed: &Routed<'_>) -> TableId {
        self.shared.hub().databases.table(routed.table)
    }

    /// What MemDS is asked about a call.
    fn lookup(&self, routed: &Routed<'_>) -> Lookup {
        Lookup { table: self.table(routed), placement: routed.placement }
    }

    /// Makes a call, waiting for whatever is in the way, until the request's deadline.
    pub(crate) async fn call(&mut self, routed: &Routed<'_>) -> Result<Answered, CommandError> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        self.call_by(routed, deadline).await
    }

    /// Makes a call, waiting for whatever is in the way, until a deadline of its own.
    pub(crate) async fn call_by(
        &mut self,
        routed: &Routed<'_>,
        deadline: Instant,
    ) -> Result<Answered, CommandError> {
        match self.call_now(routed) {
            Attempt::Done(answered) => Ok(answered),
            Attempt::Refused(error) => Err(error),
            Attempt::Blocked(obstacle) => self.pass(routed, obstacle, deadline).await,
        }
    }

    /// Goes on with a call that met an obstacle, until the request's deadline.
    pub(crate) async fn call_until(
        &mut self,
        routed: &Routed<'_>,
        obstacle: Obstacle,
    ) -> Result<Answered, CommandError> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        self.pass(routed, obstacle, deadline).await
    }

    async fn pass(
        &mut self,
        routed: &Routed<'_>,
        mut obstacle: Obstacle,
        deadline: Instant,
    ) -> Result<Answered, CommandError> {
        let timeout = self.shared.options.request_timeout;
        let mut backoff = BACKOFF_MIN;
        let mut next_correction = Instant::now();
        // A call after a miss is its first one; all others here are made again.
        let mut is_first = matches!(obstacle, Obstacle::Unknown(_));
        loop {
            let mut wait = Some(backoff);
            let mut correct = true;
            match obstacle {
                // This is the call's one lookup. If it brings a route, the call is made at once.
                Obstacle::Unknown(asked) => {
                    self.learn(routed, self.shared.memds.answer(asked), deadline).await;
                    (wait, correct) = (None, false);
                }
                Obstacle::Moved => (wait, correct) = (None, false),
                // Each such step follows a newer route, so it cannot go round in circles.
                Obstacle::NotHere(Some(route), followed)
                    if route.version > followed && route.range.table == self.table(routed) =>
                {
                    self.shared.cache.install(routed.placement, &route);
                    (wait, correct) = (None, false);
                }
                Obstacle::NotHere(..) | Obstacle::NoLeader | Obstacle::NotYet => {}
                Obstacle::Busy(duration) => (wait, correct) = (Some(duration), false),
                Obstacle::Later(answer, id, target) => {
                    match self.later(routed, (answer, id), target, deadline).await? {
                        Attempt::Done(answered) => return Ok(answered),
                        Attempt::Refused(error) => return Err(error),
                        Attempt::Blocked(next) => {
                            obstacle = next;
                            continue;
                        }
                    }
                }
            }
            if let Some(wait) = wait {
                backoff = (backoff * 2).min(BACKOFF_MAX);
                sleep_until((Instant::now() + wait).min(deadline)).await;
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NoLeader(timeout.as_millis() as u64));
            }
            if correct && Instant::now() >= next_correction {
                next_correction = Instant::now() + CORRECTION_EVERY;
                self.tally.corrections += 1;
                self.look_up(routed, deadline).await;
            }
            self.tally.retries += u64::from(wait.is_some() || !is_first);
            is_first = false;
            obstacle = match self.try_call(routed) {
                None => Obstacle::NoLeader,
                Some((_, Attempt::Done(answered))) => return Ok(answered),
                Some((_, Attempt::Refused(error))) => return Err(error),
                Some((_, Attempt::Blocked(next))) => next,
            };
        }
    }

    /// Waits for a call that travels. Out of time, a write may have happened.
    async fn later(
        &mut self,
        routed: &Routed<'_>,
        (answer, id): (BoxFuture<Answer>, Option<RequestId>),
        target: Target,
        deadline: Instant,
    ) -> Result<Attempt, CommandError> {
        if routed.is_script() {
            // It can be killed, and cannot be lost: storage answers whatever becomes of it.
            return Ok(attempt((answer.await, id), target));
        }
        match timeout_at(deadline, answer).await {
            Ok(answer) => Ok(attempt((answer, id), target)),
            Err(_) if routed.writes() => Err(CommandError::UNCERTAIN),
            Err(_) => {
                let timeout = self.shared.options.request_timeout;
                Err(CommandError::NoLeader(timeout.as_millis() as u64))
            }
        }
    }

    /// Asks MemDS for the route and remembers it.
    async fn look_up(&self, routed: &Routed<'_>, deadline: Instant) {
        self.learn(routed, self.shared.memds.lookup(self.lookup(routed)), deadline).await;
    }

    /// Remembers what MemDS answers.
    async fn learn(
        &self,
        routed: &Routed<'_>,
        answer: impl Future<Output = Option<Route>>,
        deadline: Instant,
    ) {
        if let Ok(Some(route)) = timeout_at(deadline, answer).await {
            self.shared.cache.install(routed.placement, &route);
        }
    }

    /// Hands over what was counted.
    pub(crate) fn count(&mut self) {
        self.shared.stats.add(&mut self.tally);
    }

    /// Puts the mirrored lookups on their way and hands over what was counted. Waits only if MemDS
    /// takes lookups more slowly than clients cause them.
    pub(crate) async fn flush(&mut self) {
        self.count();
        self.try_send_mirror();
        if !self.mirror.is_empty() {
            self.shared.memds.mirror(&self.mirror).await;
            self.mirror.clear();
        }
    }

    fn try_send_mirror(&mut self) {
        if !self.mirror.is_empty() && self.shared.memds.try_mirror(&self.mirror) {
            self.mirror.clear();
        }
    }
}

fn next_name((router, connection): (u64, u64), next: &mut u64) -> RequestId {
    let sequence = *next;
    *next += 1;
    RequestId { router, connection, sequence }
}

/// Makes a call at a target; whoever calls holds the map of databases by which it is the target.
fn call_target(
    shared: &Shared,
    (origin, request): (u64, Option<Request>),
    routed: &Routed<'_>,
    target: Target,
) -> Attempt {
    if !routed.is_within(&target) {
        return Attempt::Refused(CommandError::CROSS_PARTITION);
    }
    let Some(leader) = target.leader else { return Attempt::Blocked(Obstacle::NoLeader) };
    let id = request.map(|request| request.id);
    let table = target.range.table;
    if let Some(batch) = routed.batch {
        if batch.watched_elsewhere(table) {
            return Attempt::Done(Answered::done(Reply::NullArray, None, target));
        }
        let transaction = batch.transaction(routed, &target, (origin, request));
        return attempt((shared.storage.transact(leader, transaction), id), target);
    }
    let call = Call {
        command: routed.entry.id,
        table,
        partition: target.partition,
        epoch: target.version.epoch,
        args: routed.args,
        origin,
        request,
        waiting_since: routed.waiting_since.map(Instant::into_std),
        client: routed.client.as_ref(),
    };
    attempt((shared.storage.call(leader, call), id), target)
}

/// What an answer means for the call; `request` names it.
pub(crate) fn attempt((answer, request): (Answer, Option<RequestId>), target: Target) -> Attempt {
    match answer {
        Answer::Done { reply, gate } => {
            Attempt::Done(Answered { request, ..Answered::done(reply, gate, target) })
        }
        Answer::DoneBefore(gate) => {
            let answered = Answered::done(Reply::Null, gate, target);
            Attempt::Done(Answered { request, done_before: true, ..answered })
        }
        Answer::Waits(waiting) => {
            let answered = Answered::done(Reply::NullArray, None, target);
            Attempt::Done(Answered { waits: Some(waiting), request, ..answered })
        }
        Answer::NotHere(route) => Attempt::Blocked(Obstacle::NotHere(route, target.version)),
        Answer::NotYet => Attempt::Blocked(Obstacle::NotYet),
        Answer::Busy(wait) => Attempt::Blocked(Obstacle::Busy(wait)),
        Answer::Later(answer) => Attempt::Blocked(Obstacle::Later(answer, request, target)),
    }
}

//! A partition replica's state and its rules: the meeting of the consensus replica, the rows in
//! memory and the commands. It has no thread, no lock, no clock and does no I/O of its own (reads
//! of the LSM apart): its host calls it under a lock and carries out the [`Actions`] it leaves.
//!
//! The life of a write in here: [`Core::evaluate`] runs the handler on the state as of the newest
//! proposed batch and adds the effects to the open batch; [`Core::seal`] closes that batch and
//! proposes it; the host persists and sends; once chosen, [`Core::drain`] applies it and opens the
//! gates of the replies that wait for its index.

mod blocked;
mod due;
mod expiry;
mod flushing;
mod gates;
mod handler;
mod limits;
mod member;
mod report;
mod requests;
mod seal;
mod telling;
mod together;
mod waits;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commands::notes::Notes;
use commands::table::Entry;
use commands::types::keyspace::ExpiryAgenda;
use commands::{CommandError, Counters, Effects, Run, rows};
use paxos::{Output, Replica, Value};
use tokio::sync::oneshot;
use wire::ids::{NodeId, PartitionId, TableId, Version};
use wire::notice::{Listener, News, Wanted};
use wire::placement::PlacementRange;
use wire::resp::Reply;
use wire::service::{Answer, Call, Gate, GateOutcome, Request, RequestId};

use self::blocked::Blocked;
pub(crate) use self::blocked::{Kept, Ticket};
pub(crate) use self::flushing::Frozen;
pub(crate) use self::handler::run;
pub(crate) use self::limits::{check_effects, effects_bytes};
pub(crate) use self::seal::Seat;
use crate::backlog::Backlog;
use crate::batch::{Batch, BatchBuilder, BatchError, Effect};
use crate::catch_up::{self, Entries, Part};
use crate::containment::contained;
use crate::lsm::{DeadSet, Lsm};
use crate::meta::Applied;
use crate::news::{changes_of, note_changes};
use crate::requests::{DedupLimits, Requests};
use crate::resident::{Resident, RowBudget};
use crate::row;
use crate::scripting::{Running, Scripting, library_changes};
use crate::shapes::Shapes;
use crate::slow;
use crate::view::{Cold, PartitionView, Seen};
pub(crate) use member::{Captured, Install};
use member::{HandOver, LogSizes};

/// An open batch larger than this (bytes) takes no further write until it is proposed.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// What one evaluation may change, in bytes of rows: with what the open batch may hold already and
/// the framing of a row, it must pass to the peers as one frame.
pub(crate) const EFFECTS_BYTES_MAX: usize = 96 << 20;
const _: () = assert!(BATCH_BYTES_MAX + EFFECTS_BYTES_MAX < wire::peer::BODY_BYTES_MAX);
/// How long a writer waits when the open batch is full.
const FULL_BATCH_DELAY: Duration = Duration::from_millis(1);
/// How long a call waits that could be kept but for a time which the group is being told of.
const TIME_DELAY: Duration = Duration::from_millis(1);
/// Outcomes of applied indexes that are kept for late waiters.
const RECENT_MAX: usize = 8_192;
/// While a batch is on its way, what arrives waits for it and goes as one batch, unless it grows
/// beyond this (bytes): Nagle's rule. Nothing waits when nothing is on its way.
const GROUP_BYTES: usize = 64 << 10;

/// The time, as the host read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Monotonic.
    pub(crate) monotonic: paxos::Instant,
    /// Wall clock, ms since the epoch.
    pub(crate) wall_ms: u64,
}

/// What the host has to do after it called into the core; persists in this order, before anything
/// the core may say later.
#[derive(Default)]
pub(crate) struct Actions {
    pub(crate) persists: Vec<(u64, paxos::Record)>,
    pub(crate) sends: Vec<(paxos::NodeId, paxos::Message)>,
    pub(crate) parts: Vec<Part>,
    pub(crate) wakes: Vec<(oneshot::Sender<GateOutcome>, GateOutcome)>,
    /// Leadership or membership changed: a route to make known, if this replica leads.
    pub(crate) publish: Option<wire::service::Route>,
    /// The rows are to be fetched from another replica.
    pub(crate) install: Option<Install>,
    /// This replica is no member any more, and may go.
    pub(crate) removed: bool,
    /// Bytes added to the memtables.
    pub(crate) applied_bytes: u64,
    /// To be told, in this order, before anybody is woken.
    pub(crate) news: Vec<News>,
    /// The replica cannot go on: what it was given to apply is damaged.
    pub(crate) fatal: Option<BatchError>,
}

/// What is said of an evaluation besides what it does.
pub(crate) struct About {
    pub(crate) is_write: bool,
    /// Of the route that led here.
    pub(crate) epoch: u64,
    /// The connection it is done for.
    pub(crate) origin: u64,
    pub(crate) request: Option<Request>,
}

/// For whom something is evaluated.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asker {
    /// The connection; 0 for none.
    pub(crate) origin: u64,
    /// What names it, if it may be asked for again.
    pub(crate) request: Option<RequestId>,
}

/// What became of an evaluation.
pub(crate) enum Evaluated {
    Answer(Answer),
    /// There is nothing yet, and the caller can wait.
    Kept(Kept),
    Cold(Cold),
}

struct OpenBatch {
    builder: BatchBuilder,
    index: u64,
    next_version: Version,
    /// Writes that joined it.
    writes: u64,
    sealer: Sealer,
    /// To be told once it is applied.
    news: News,
}

/// A batch that is proposed and not applied.
struct InFlight {
    index: u64,
    batch: u64,
    /// Writes that joined it.
    writes: u64,
    /// Its stamp.
    now_ms: u64,
    /// As it is in the log.
    bytes: Bytes,
    news: News,
}

/// Who seals an open batch once nothing is on its way.
enum Sealer {
    /// Nobody waits for the batch.
    None,
    /// A waiting connection is to be called.
    Waits(oneshot::Sender<()>),
    /// One lets others join the batch, and then seals it.
    Gathers,
}

/// The partition's totals as of the newest proposed batch, and the indexes that made them so.
#[derive(Clone, Copy, Default)]
struct Tip {
    counters: Counters,
    counters_index: u64,
    flushed_through: Option<Version>,
    flushed_index: u64,
}

struct Waiter {
    batch: u64,
    deadline: std::time::Instant,
    wake: oneshot::Sender<GateOutcome>,
}

/// See the module's text.
pub(crate) struct Core {
    partition: PartitionId,
    pub(crate) range: PlacementRange,
    node: NodeId,
    /// Has a log and no rows.
    is_log: bool,
    /// Raised with each configuration.
    epoch: u64,
    handing_over: Option<HandOver>,
    sizes: LogSizes,
    pub(crate) replica: Replica,
    /// The rows in memory; while this replica leads.
    resident: Option<Resident>,
    /// Tables that are not used any more, to be dropped where nobody waits for it.
    discarded: Vec<Resident>,
    budget: Arc<RowBudget>,
    backlog: Backlog,
    open: Option<OpenBatch>,
    next_batch_id: u64,
    tip: Tip,
    /// Proposed and not applied, ascending.
    in_flight: VecDeque<InFlight>,
    /// Writes that were waiting for the disks at once, of late.
    writers: u64,
    applied: Applied,
    /// What was answered of late, up to `applied`.
    requests: Requests,
    dedup: DedupLimits,
    /// Applied indexes and the ids of the batches chosen there (0: a no-op), newest last.
    recent: VecDeque<(u64, u64)>,
    waiters: BTreeMap<u64, Vec<Waiter>>,
    /// Calls that wait for data; while this replica leads.
    blocked: Blocked,
    now_ms: u64,
    flush_epoch: u64,
    flushed_index: u64,
    /// The newest index of which fjall may hold rows: that of a snapshot may be newer than what was
    /// flushed.
    rows_through: u64,
    /// Fjall holds what is up to here, or is being given it.
    frozen_index: u64,
    expiry: ExpiryAgenda,
    /// Expired keys whose deletion this replica proposed since its node started.
    expired_keys: u64,
    /// Fields of hashes likewise.
    expired_fields: u64,
    /// Keys and collections that it proposed to delete, and whose rows go later.
    freed_later: u64,
    /// Evaluations that changed something since its node started.
    changes: u64,
    /// Campaigns of this replica, and leaderships, since its node started.
    elections: u64,
    leaderships: u64,
    random: Cell<u64>,
    dead: Arc<DeadSet>,
    /// The script that the partition is held for.
    pub(crate) held: Option<Arc<Running>>,
    pub(crate) scripting: Arc<Scripting>,
    pub(crate) shapes: Arc<Shapes>,
    listener: Arc<dyn Listener>,
    /// Who is being evaluated for.
    pub(crate) asker: Asker,
}

/// What a core starts from.
pub(crate) struct Start {
    pub(crate) partition: PartitionId,
    pub(crate) range: PlacementRange,
    pub(crate) node: NodeId,
    pub(crate) kind: paxos::MemberKind,
    pub(crate) replica: Replica,
    pub(crate) applied: Applied,
    pub(crate) requests: Requests,
    pub(crate) dedup: DedupLimits,
    /// Differs between any two starts of any two replicas of a partition: batch ids begin with it.
    pub(crate) incarnation: u32,
    pub(crate) dead: Arc<DeadSet>,
    pub(crate) budget: Arc<RowBudget>,
    pub(crate) scripting: Arc<Scripting>,
    pub(crate) shapes: Arc<Shapes>,
    pub(crate) listener: Arc<dyn Listener>,
}

impl Core {
    pub(crate) fn new(start: Start) -> Core {
        let seed = u64::from(start.incarnation) << 32 | start.partition.0 << 1 | 1;
        let mut core = Core {
            partition: start.partition,
            range: start.range,
            node: start.node,
            is_log: start.kind == paxos::MemberKind::Log,
            epoch: member::epoch_of(&start.replica),
            handing_over: None,
            sizes: LogSizes::default(),
            replica: start.replica,
            resident: None,
            discarded: Vec::new(),
            budget: start.budget,
            backlog: Backlog::default(),
            open: None,
            next_batch_id: u64::from(start.incarnation) << 32 | 1,
            tip: Tip::default(),
            in_flight: VecDeque::new(),
            writers: 0,
            applied: start.applied,
            requests: start.requests,
            dedup: start.dedup,
            recent: VecDeque::new(),
            waiters: BTreeMap::new(),
            blocked: Blocked::default(),
            now_ms: start.applied.now_ms,
            flush_epoch: 0,
            flushed_index: start.applied.index,
            rows_through: start.applied.index,
            frozen_index: start.applied.index,
            expiry: ExpiryAgenda::UNKNOWN,
            expired_keys: 0,
            expired_fields: 0,
            freed_later: 0,
            changes: 0,
            elections: 0,
            leaderships: 0,
            random: Cell::new(seed),
            dead: start.dead,
            held: None,
            scripting: start.scripting,
            shapes: start.shapes,
            listener: start.listener,
            asker: Asker::default(),
        };
        core.reset_tip();
        core
    }

    /// Keys that calls wait for, and of these those whose end is waited for, too.
    pub(crate) fn awaited_keys(&self) -> (u64, u64) {
        self.blocked.keys()
    }

    pub(crate) fn has_frozen(&self) -> bool {
        self.backlog.has_frozen()
    }

    /// Evaluates a command on the state as of the newest proposed batch.
    ///
    /// The answer of a command without effects is only true if the lease still holds *after* the
    /// evaluation: the host checks that with a fresh time ([`Core::serves`]).
    pub(crate) fn evaluate(
        &mut self,
        entry: &Entry,
        call: &Call<'_>,
        now: Now,
        (lsm, may_block): (&Lsm, bool),
    ) -> Evaluated {
        let is_write = entry.command.may_write();
        let from = (lsm, may_block);
        if let Run::Script(what) = entry.command.run {
            return self.evaluate_script((what, call), now, from);
        }
        let (mut wait, mut hidden_ms) = (None, 0);
        let Call { epoch, origin, request, .. } = *call;
        let about = About { is_write, epoch, origin, request };
        let evaluated = self.evaluate_work(about, now, from, |view, next_version| {
            let evaluated = run(entry, call.args, view, next_version);
            let evaluated = blocked::or_wait(entry, call, view, evaluated, &mut wait);
            hidden_ms = view.hidden_ms.get();
            evaluated
        });
        match (wait, evaluated) {
            // Nothing is there because of a time that the group does not know to have come yet.
            (Some(_), Evaluated::Answer(_)) if hidden_ms > self.applied.now_ms => {
                Evaluated::Answer(Answer::Busy(TIME_DELAY))
            }
            (Some(wait), Evaluated::Answer(Answer::Done { gate, .. })) => {
                self.keep(call, wait, gate)
            }
            (_, evaluated) => evaluated,
        }
    }

    /// Evaluates whatever `work` does on a view, given the version its first write gets.
    pub(crate) fn evaluate_work(
        &mut self,
        About { is_write, epoch, origin, request }: About,
        now: Now,
        (lsm, may_block): (&Lsm, bool),
        work: impl FnOnce(&PartitionView<'_>, Version) -> (Result<Reply, CommandError>, Option<Effects>),
    ) -> Evaluated {
        let unleased = !self.serves(now.monotonic);
        let may_confirm = || self.replica.may_confirm(now.monotonic);
        if unleased && !may_confirm() || epoch > self.epoch {
            return Evaluated::Answer(self.elsewhere());
        }
        if let Some(held) = &self.held {
            return Evaluated::Answer(self.busy(held));
        }
        if let Some(answer) = request.and_then(|request| self.done_before(request)) {
            return Evaluated::Answer(answer);
        }
        if is_write && self.handing_over.is_some() {
            return Evaluated::Answer(Answer::NotYet);
        }
        if is_write && self.open.as_ref().is_some_and(|open| open.builder.len() > BATCH_BYTES_MAX) {
            return Evaluated::Answer(Answer::Busy(FULL_BATCH_DELAY));
        }
        let before_ms = if mutant!(ExpiryByOwnClock) { 0 } else { self.now_ms };
        self.now_ms = before_ms.max(now.wall_ms);
        let next_version = self.next_version();
        let Some(view) = self.view(lsm, may_block) else {
            return Evaluated::Answer(self.elsewhere());
        };
        // A view changes nothing.
        let Some((result, effects)) = contained("evaluation", || work(&view, next_version)) else {
            let reply = CommandError::Panicked.into();
            return Evaluated::Answer(Answer::Done { reply, gate: None });
        };
        let (seen, is_damaged) = (Seen { unleased, ..view.seen() }, view.damaged.get());
        if let Some(cold) = view.cold.take() {
            return Evaluated::Cold(cold);
        }
        let missed = view.notes.take();
        let overdue = view.overdue.take();
        if is_damaged && !self.is_alone() {
            // Another replica has the rows, and is about to lead.
            return Evaluated::Answer(Answer::NotYet);
        }
        if (unleased || seen.hidden_ms > self.applied.now_ms) && self.handing_over.is_some() {
            // What would have to be proposed for it, the next leader proposes.
            return Evaluated::Answer(Answer::NotYet);
        }
        self.tell(missed);
        self.asker = Asker { origin, request: request.map(|request| request.id) };
        let (reply, gate) = self.conclude(result, effects, seen);
        self.settle_met(&overdue, lsm);
        Evaluated::Answer(Answer::Done { reply, gate })
    }

    /// The answer of an evaluation that saw this; its effects join the batch.
    pub(crate) fn conclude(
        &mut self,
        result: Result<Reply, CommandError>,
        effects: Option<Effects>,
        seen: Seen,
    ) -> (Reply, Option<Gate>) {
        match effects {
            Some(effects) if effects.is_empty() => {
                // What changed nothing has missed something, or is a script that publishes.
                let gate = self.gate_of(seen);
                self.tell_after(gate, effects.notices);
                (result.unwrap_or_else(Reply::from), gate)
            }
            None => (result.unwrap_or_else(Reply::from), self.gate_of(seen)),
            Some(effects) => match check_effects(&effects) {
                Ok(()) => {
                    let reply = result.unwrap_or_else(Reply::from);
                    let gate = self.join(effects);
                    self.note_request(&reply);
                    (reply, (!mutant!(AnsweredBeforeApplied)).then_some(gate))
                }
                Err(error) => (Reply::from(error), None),
            },
        }
    }

    /// Whether this replica leads with a live lease and has applied all it inherited.
    pub(crate) fn serves(&self, now: paxos::Instant) -> bool {
        self.replica.may_serve(now) || (mutant!(AnswersWithoutLease) && self.replica.is_leader())
    }

    /// Whether commands may be evaluated here: with a lease, or such that a quorum confirms what they
    /// answer.
    pub(crate) fn may_evaluate(&self, now: paxos::Instant) -> bool {
        self.serves(now) || self.replica.may_confirm(now)
    }

    /// The answer of a replica that does not lead.
    fn elsewhere(&self) -> Answer {
        let route = self.route();
        match route.leader {
            Some(leader) if leader != self.node => Answer::NotHere(Some(route)),
            _ => Answer::NotYet,
        }
    }

    /// The state that commands are evaluated on; `None` if this replica does not lead.
    pub(crate) fn view<'a>(&'a self, lsm: &'a Lsm, may_block: bool) -> Option<PartitionView<'a>> {
        Some(PartitionView {
            resident: self.resident.as_ref()?,
            lsm,
            may_block,
            range: self.range,
            now_ms: self.now_ms,
            counters: self.tip.counters,
            counters_index: self.tip.counters_index,
            flushed_through: self.tip.flushed_through,
            flushed_index: self.tip.flushed_index,
            applied: self.applied.index,
            gate: Cell::new(0),
            hidden_ms: Cell::new(0),
            overdue: RefCell::default(),
            in_script: Cell::new(false),
            cold: RefCell::new(None),
            damaged: Cell::new(false),
            random: &self.random,
            shapes: self.shapes.get(),
            notes: Notes::new(self.listener.wanted()),
        })
    }

    /// Takes over rows that were read from the LSM without the lock, if no flush ended since
    /// `epoch`: only then nothing that memory has forgotten meanwhile can be newer.
    pub(crate) fn fill(&mut self, epoch: u64, rows: &[(Bytes, Option<Bytes>)]) {
        let horizon = self.horizon();
        let Some(resident) = self.resident.as_mut().filter(|_| self.flush_epoch == epoch) else {
            return;
        };
        for (row, value) in rows {
            resident.fill(row, value.as_ref());
        }
        resident.make_room(horizon);
    }

    /// Evicts rows while their budget is exceeded, for a bounded time. Returns whether there may be
    /// more to do.
    pub(crate) fn make_room(&mut self) -> bool {
        let horizon = self.horizon();
        self.resident.as_mut().is_some_and(|resident| resident.make_room(horizon))
    }

    /// The version that the next write gets.
    pub(crate) fn next_version(&self) -> Version {
        match &self.open {
            Some(open) => open.next_version,
            None => Version { index: self.replica.next_index().0, ordinal: 0 },
        }
    }

    /// What FLUSHDB and the end of leadership left behind in memory, to be dropped without the lock.
    pub(crate) fn take_discarded(&mut self) -> Vec<Resident> {
        std::mem::take(&mut self.discarded)
    }

    /// Adds effects to the open batch and to the proposed state.
    fn join(&mut self, effects: Effects) -> Gate {
        if !self.blocked.is_empty() {
            self.blocked.touch(&effects);
        }
        self.join_unseen(effects)
    }

    /// The same, of effects that nobody waits for.
    fn join_unseen(&mut self, mut effects: Effects) -> Gate {
        let wants_changes = self.listener.wanted().has(Wanted::CHANGES);
        let (origin, keys) = (self.asker.origin, self.tip.counters.keys);
        let open = self.open_batch();
        open.news.notices.append(&mut effects.notices);
        if wants_changes {
            note_changes(&mut open.news, &effects, keys, origin);
        }
        open.builder.push(&effects);
        open.next_version = effects.next_version;
        open.writes += 1;
        let (index, batch) = (open.index, open.builder.id());
        if effects.flushed_through.is_some() {
            // Whatever memory knows is behind the fence. Should this batch get lost, so does
            // leadership, and memory with it.
            let empty = self.empty_resident();
            self.discarded.extend(self.resident.replace(empty));
        }
        let horizon = self.horizon();
        let resident = self.resident.as_mut().expect("only a leader evaluates");
        for write in effects.writes {
            if let (Some(due), Some(_)) = (rows::ttl_due_ms(&write.row), &write.value) {
                self.expiry.add(due);
            }
            resident.put(&write.row, write.value.as_ref(), index);
        }
        resident.make_room(horizon);
        self.expired_keys += effects.expired;
        self.expired_fields += effects.expired_fields;
        self.freed_later += effects.freed_later;
        self.changes += u64::from(!effects.is_minor);
        self.tip.counters = effects.counters;
        self.tip.counters_index = index;
        if let Some(fence) = effects.flushed_through {
            self.tip.flushed_through = Some(fence);
            self.tip.flushed_index = index;
        }
        Gate { node: self.node, partition: self.partition, index, batch }
    }

    /// Takes everything the replica has to say; applies what is chosen.
    pub(crate) fn drain(&mut self, actions: &mut Actions) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Persist { token, record } => actions.persists.push((token, record)),
                Output::Send { to, message: paxos::Message::Chosen { entries } }
                    if catch_up::is_part(&entries) =>
                {
                    actions.parts.push(self.part(to, Entries::Held(entries)));
                }
                Output::Send { to, message } => actions.sends.push((to, message)),
                Output::ReadLog { to, first, last } => {
                    let logged = Entries::Logged { first: first.0, last: last.0 };
                    actions.parts.push(self.part(to, logged));
                }
                Output::Commit { index, value, .. } => {
                    if let Err(error) = self.apply(index.0, value, actions) {
                        actions.fatal = Some(error);
                        return;
                    }
                }
                Output::RoleChanged { role } => self.role_changed(role, actions),
                Output::ConfigChanged { .. } => self.config_changed(actions),
                Output::Removed => actions.removed = true,
                Output::InstallSnapshot { from, at_least } => {
                    actions.install = Some(Install { from, at_least: at_least.0 });
                }
            }
        }
    }

    fn part(&self, to: paxos::NodeId, entries: Entries) -> Part {
        Part { to, entries, has_time: self.replica.is_leader() }
    }

    fn role_changed(&mut self, role: paxos::Role, actions: &mut Actions) {
        // Whatever a script has read means nothing any more.
        if let Some(held) = self.held.take() {
            slow::lose(&held);
        }
        if role == paxos::Role::Leader {
            let (node, partition) = (self.node.0, self.partition.0);
            tracing::info!(node, partition, ballot = self.replica.status().ballot.number, "leads");
            actions.publish = Some(self.route());
            self.leaderships += 1;
            self.expiry = ExpiryAgenda::UNKNOWN;
            self.resident = Some(self.recall());
            if self.listener.wanted().has(Wanted::CHANGES) {
                // The leader before may have been lost with what it had to tell.
                actions.news.push(News { new_leader: true, ..News::default() });
            }
            return;
        }
        self.elections += u64::from(role == paxos::Role::Candidate);
        self.discarded.extend(self.resident.take());
        self.blocked.clear();
        self.in_flight.clear();
        self.reset_tip();
        if let Some(open) = self.open.take() {
            self.lose(open, actions);
        }
    }

    /// The rows that fjall does not hold.
    fn recall(&self) -> Resident {
        let mut resident = self.empty_resident();
        for (index, batch) in self.backlog.iter() {
            put_writes(&mut resident, *index, batch).expect("it was well-formed when applied");
        }
        resident
    }

    fn reset_tip(&mut self) {
        self.tip = Tip {
            counters: self.applied.counters,
            flushed_through: self.applied.flushed_through,
            ..Tip::default()
        };
    }

    fn apply(&mut self, index: u64, value: Value, actions: &mut Actions) -> Result<(), BatchError> {
        let mut id = 0;
        if let Value::Data(bytes) = value
            && !self.is_log
        {
            let batch = Batch::decode(&bytes)?;
            // What it stands on was lost: so is it.
            let is_void = batch.after().is_some_and(|after| after != self.applied.batch);
            if !is_void {
                id = batch.id;
                actions.applied_bytes += batch.bytes();
                self.apply_batch(index, batch, actions)?;
                self.applied.batch = id;
            }
        }
        self.applied.index = index;
        while let Some(own) = self.in_flight.pop_front_if(|own| own.index <= index) {
            self.note_writers(own.writes);
            if own.batch == id && !own.news.is_empty() {
                actions.news.push(own.news);
            }
        }
        if self.tip.counters_index <= index {
            self.tip.counters_index = 0;
        }
        if self.tip.flushed_index <= index {
            self.tip.flushed_index = 0;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((index, id));
        for waiter in self.waiters.remove(&index).unwrap_or_default() {
            actions.wakes.push((waiter.wake, outcome(waiter.batch, id)));
        }
        Ok(())
    }

    fn apply_batch(
        &mut self,
        index: u64,
        batch: Batch,
        actions: &mut Actions,
    ) -> Result<(), BatchError> {
        let now_ms = self.applied.now_ms.max(batch.now_ms);
        let Core { applied, dead, range, requests, dedup, .. } = self;
        // Each effect is looked at, so that a malformed batch is found here and not by a flush.
        batch.for_each(|effect| match effect {
            // A generation is dead once that is in fjall: see [`DeadSet`].
            Effect::Write { .. } | Effect::Drop(_) => {}
            Effect::Flush(fence) => {
                dead.set_fence(*range, fence);
                applied.flushed_through = Some(fence);
            }
            Effect::After(_) => {}
            Effect::Requests(section) => requests.push((index, now_ms), section, *dedup),
        })?;
        if self.range.table == TableId::SYSTEM {
            self.scripting.applied(index, library_changes(&batch)?);
        }
        // What this leader proposed itself is in memory, and noted, since it was evaluated.
        let is_own =
            self.in_flight.front().is_some_and(|own| (own.index, own.batch) == (index, batch.id));
        if let Some(resident) = &mut self.resident
            && !is_own
        {
            put_writes(resident, index, &batch)?;
            if self.listener.wanted().has(Wanted::CHANGES) {
                actions.news.push(changes_of(&batch)?);
            }
        }
        self.applied.counters = batch.counters;
        self.applied.now_ms = now_ms;
        self.sizes.add(index, batch.bytes());
        self.now_ms = self.now_ms.max(batch.now_ms);
        self.backlog.push(index, batch);
        if self.tip.counters_index == 0 {
            // A follower, or a leader without proposals: the tip is what is applied.
            self.reset_tip();
        }
        Ok(())
    }
}

/// Puts the rows a batch writes into memory, opened and as copies: a small row must not keep the
/// whole batch.
fn put_writes(resident: &mut Resident, index: u64, batch: &Batch) -> Result<(), BatchError> {
    batch.for_each(|effect| {
        if let Effect::Write { row, sealed } = effect {
            let value = sealed.map(|sealed| Bytes::copy_from_slice(row::body_of(sealed)));
            resident.put(row, value.as_ref(), index);
        }
    })
}

fn outcome(waited_for: u64, chosen: u64) -> GateOutcome {
    let is_it = waited_for == chosen || mutant!(AnyBatchWillDo);
    if is_it { GateOutcome::Durable } else { GateOutcome::Lost }
}

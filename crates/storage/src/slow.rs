//! Scripts that take too long to hold their partition's lock.
//!
//! The partition is *held* for one: commands that want it wait, or are told BUSY after a while, but the
//! lock is free, so that consensus goes on and the node's threads do. The script runs on a thread of
//! its own and takes the lock for each row that it reads. When it is done its effects join the open
//! batch like those of any command; nobody else has changed a row meanwhile. Should leadership be lost,
//! so is the script: nothing of it was proposed, and the router calls for it again.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use commands::notes::Notes;
use commands::table;
use commands::{CommandError, Counters, Direction, Effects, Run, View, ViewError};
use tokio::sync::oneshot;
use wire::ids::{CommandId, TableId, Version};
use wire::placement::PlacementRange;
use wire::resp::Reply;
use wire::service::{Answer, Call, ScriptClient, Transaction, ValueShapes, Watched, Work};

use crate::containment::{CoreGuard, contained};
use crate::core::{About, Asker, Core, Evaluated, Now};
use crate::driver::Shared;
use crate::lsm::Lsm;
use crate::node::Node;
use crate::partition::Partition;
use crate::script::{self, Pace, Stage};
use crate::scripting::Running;
use crate::transaction;
use crate::view::{Cold, Leading, PartitionView, Seen};

/// Times that a row is fetched without the lock before the disk is read under it.
const COLD_ROUNDS_MAX: usize = 4;

/// Commands that want a partition which is held for a script try again after a share of the time that
/// it has taken.
const HELD_WAIT_SHARE: u32 = 8;
const HELD_WAIT_MIN: Duration = Duration::from_millis(1);
const HELD_WAIT_MAX: Duration = Duration::from_millis(20);

/// What is to be run, and the connection that wants it.
pub(crate) struct Job {
    work: Task,
    asker: Asker,
    client: Option<Arc<dyn ScriptClient>>,
}

/// A call or a transaction, on its own memory.
enum Task {
    Call(CommandId, Vec<Bytes>),
    Transaction {
        watched: Vec<Watched>,
        commands: Vec<(CommandId, Vec<Bytes>)>,
        /// The keys that are looked at behind the commands.
        looked_at: Vec<Bytes>,
    },
}

impl From<&Call<'_>> for Job {
    fn from(call: &Call<'_>) -> Job {
        let asker = Asker { origin: call.origin, request: call.request.map(|it| it.id) };
        let work = Task::Call(call.command, call.args.to_vec());
        Job { work, asker, client: call.client.cloned() }
    }
}

impl From<&Transaction<'_>> for Job {
    fn from(transaction: &Transaction<'_>) -> Job {
        let commands = transaction.work.commands().iter();
        let commands = commands.map(|(id, args)| (*id, args.to_vec())).collect();
        let looked_at = match transaction.work {
            Work::RunThenLook { keys, .. } => keys.to_vec(),
            Work::Look(_) | Work::Run { .. } => Vec::new(),
        };
        let watched = transaction.work.watched().to_vec();
        let work = Task::Transaction { watched, commands, looked_at };
        let request = transaction.request.map(|it| it.id);
        let asker = Asker { origin: transaction.origin, request };
        Job { work, asker, client: transaction.client.cloned() }
    }
}

impl Job {
    /// The script in it: for who asks what runs.
    fn running(&self, table: TableId) -> Running {
        let script = |id: CommandId, args: &Vec<Bytes>| match table::entry(id).command.run {
            Run::Script(what) => {
                use commands::Script::{Fcall, FcallRo};
                let is_function = matches!(what, Fcall | FcallRo);
                let name = args.get(1).cloned().unwrap_or_default();
                let is_text = matches!(what, commands::Script::Eval | commands::Script::EvalRo);
                let name = if is_text { scripts::sha1_hex(&name) } else { name };
                Some(Running::new((is_function, name), table, args.clone()))
            }
            _ => None,
        };
        let found = match &self.work {
            Task::Call(id, args) => script(*id, args),
            Task::Transaction { commands, .. } => {
                commands.iter().find_map(|(id, args)| script(*id, args))
            }
        };
        found.unwrap_or_else(|| Running::new((false, Bytes::new()), table, Vec::new()))
    }

    fn run(
        &self,
        stage: &Stage<'_>,
        view: &SlowView<'_>,
        next_version: Version,
    ) -> (Reply, Option<Effects>) {
        match &self.work {
            Task::Call(id, args) => match table::entry(*id).command.run {
                Run::Script(what) => {
                    let done = script::run(stage, (view, view), next_version, (what, args));
                    stage.settle(view);
                    done
                }
                _ => unreachable!("only scripts are slow"),
            },
            Task::Transaction { watched, commands, looked_at } => {
                let commands: Vec<_> = commands.iter().map(|(id, args)| (*id, &args[..])).collect();
                // Without such keys it is `Work::Run`.
                let commands = &commands[..];
                let work = Work::RunThenLook { watched, commands, keys: looked_at };
                match transaction::evaluate(stage, view, Some(next_version), work) {
                    Ok(done) => done,
                    Err(error) => (error.into(), None),
                }
            }
        }
    }
}

impl Node {
    /// Holds a partition for a script and runs it on another thread.
    pub(crate) fn run_slowly(
        &self,
        partition: &Arc<Partition>,
        mut core: CoreGuard<'_>,
        job: Job,
    ) -> Answer {
        let running = Arc::new(job.running(core.range.table));
        core.hold(Arc::clone(&running));
        drop(core);
        let (send, receive) = oneshot::channel();
        let (shared, partition) = (Arc::clone(self.shared()), Arc::clone(partition));
        let work = move || {
            let held = Held { shared, partition, running };
            held.shared.options.scripting.began(&held.running);
            let answer = held.shared.contain("script", || held.run(&job));
            let answer = answer.unwrap_or(Answer::NotYet);
            // First the partition is free, then its caller hears of it.
            drop(held);
            // Whoever waits for it may have gone.
            let _ = send.send(answer);
        };
        match tokio::runtime::Handle::try_current() {
            // A thread that has a Lua state already, most likely.
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => drop(std::thread::spawn(work)),
        }
        Answer::Later(Box::pin(async move { receive.await.unwrap_or(Answer::NotYet) }))
    }
}

impl Core {
    /// Runs a script, for a while.
    pub(crate) fn evaluate_script(
        &mut self,
        (what, call): (commands::Script, &Call<'_>),
        now: Now,
        from: (&Lsm, bool),
    ) -> Evaluated {
        let scripting = Arc::clone(&self.scripting);
        let is_write = !what.is_read_only();
        let Call { epoch, origin, request, .. } = *call;
        let about = About { is_write, epoch, origin, request };
        self.evaluate_work(about, now, from, |view, next_version| {
            let stage = Stage::quick(&scripting, call.client);
            let what = (what, call.args);
            let (reply, effects) = script::run(&stage, (view, view), next_version, what);
            stage.settle(view);
            (Ok(reply), effects)
        })
    }

    /// Holds the partition for a script: nothing else is evaluated until it is released.
    pub(crate) fn hold(&mut self, running: Arc<Running>) {
        self.held = Some(running);
    }

    /// Whether the partition is held for this script, without a break.
    pub(crate) fn is_held_by(&self, running: &Arc<Running>) -> bool {
        self.held.as_ref().is_some_and(|held| Arc::ptr_eq(held, running))
    }

    /// Ends what [`Core::hold`] began.
    pub(crate) fn release(&mut self, running: &Arc<Running>) {
        if self.is_held_by(running) {
            self.held = None;
        }
    }

    /// What becomes of a command while the partition is held.
    pub(crate) fn busy(&self, held: &Running) -> Answer {
        let elapsed = held.elapsed();
        let until_told = self.scripting.busy_after().map(|after| after.saturating_sub(elapsed));
        if until_told.is_some_and(|left| left.is_zero()) {
            return Answer::Done { reply: held.busy().into(), gate: None };
        }
        // The longer it has taken the longer it may take; yet nobody is told later than he should be.
        let wait = (elapsed / HELD_WAIT_SHARE).clamp(HELD_WAIT_MIN, HELD_WAIT_MAX);
        Answer::Busy(until_told.map_or(wait, |left| wait.min(left)))
    }
}

/// A partition that is held, until this is dropped.
struct Held {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    running: Arc<Running>,
}

impl Held {
    fn run(&self, job: &Job) -> Answer {
        let Some((view, next_version)) = self.view() else { return Answer::NotYet };
        let stops = || self.shared.is_stopping();
        let scripting = &self.shared.options.scripting;
        let pace = Pace::Slow(&self.running, &stops);
        let stage = Stage::new(scripting, pace, job.client.as_ref());
        let Some((reply, effects)) = contained("script", || job.run(&stage, &view, next_version))
        else {
            return Answer::Done { reply: CommandError::Panicked.into(), gate: None };
        };
        let mut core = self.partition.lock();
        let is_held = core.is_held_by(&self.running) && !core.is_handing_over();
        let is_lost = view.is_cold() || !is_held;
        let now = self.shared.clock.monotonic();
        if is_lost || !core.may_evaluate(now) {
            return Answer::NotYet;
        }
        core.tell(view.notes.take());
        let (index, hidden_ms) = (view.gate.get(), view.hidden_ms.get());
        let seen = Seen { index, hidden_ms, unleased: !core.serves(now) };
        core.asker = job.asker;
        let (reply, gate) = core.conclude(Ok(reply), effects, seen);
        core.release(&self.running);
        core.serve_kept(&self.shared.lsm);
        Answer::Done { reply, gate }
    }

    fn view(&self) -> Option<(SlowView<'_>, Version)> {
        let core = self.partition.look();
        let next_version = core.next_version();
        let view = core.view(&self.shared.lsm, false)?;
        let slow = SlowView {
            held: self,
            range: view.range,
            now_ms: view.now_ms,
            random: Cell::new(view.random()),
            gate: Cell::new(0),
            hidden_ms: Cell::new(0),
            in_script: Cell::new(false),
            lost: Cell::new(false),
            notes: Notes::new(view.notes.wanted()),
        };
        Some((slow, next_version))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.partition.lock_anyway().release(&self.running);
        self.shared.options.scripting.ended(&self.running);
    }
}

/// A partition's state while it is held: each look takes the lock.
struct SlowView<'a> {
    held: &'a Held,
    range: PlacementRange,
    now_ms: u64,
    random: Cell<u64>,
    gate: Cell<u64>,
    /// The latest time whose coming hid something.
    hidden_ms: Cell<u64>,
    in_script: Cell<bool>,
    /// The partition is not held any more.
    lost: Cell<bool>,
    notes: Notes,
}

impl SlowView<'_> {
    /// Looks at the partition as its commands do.
    fn look<T>(
        &self,
        may_block: bool,
        look: impl FnOnce(&PartitionView<'_>) -> Result<T, ViewError>,
    ) -> Result<T, Missing> {
        let core = self.held.partition.look();
        let held = core.is_held_by(&self.held.running);
        let Some(view) = core.view(&self.held.shared.lsm, may_block).filter(|_| held) else {
            self.lost.set(true);
            return Err(Missing::Error(ViewError::Cold));
        };
        let looked = catch_unwind(AssertUnwindSafe(|| look(&view)));
        let looked = match looked {
            Ok(looked) => looked,
            Err(panic) => {
                // A look changes nothing: the script ends, and the partition is as it was.
                drop(view);
                drop(core);
                resume_unwind(panic);
            }
        };
        self.gate.set(self.gate.get().max(view.gate.get()));
        match (looked, view.cold.take()) {
            (_, Some(Cold::Row(row))) => Err(Missing::Row(row, core.flush_epoch())),
            (_, Some(Cold::Scan | Cold::Slow)) => Err(Missing::Scan),
            (looked, None) => looked.map_err(Missing::Error),
        }
    }

    /// Fetches a row without the lock.
    fn fetch(&self, row: Bytes, epoch: u64) {
        // An error shows again once the view may block.
        if let Ok(value) = self.held.shared.lsm.get(&row) {
            self.held.partition.look().fill(epoch, &[(row, value)]);
        }
    }
}

/// Why a look found nothing.
enum Missing {
    /// The row is only on disk; and the flush epoch of the look.
    Row(Bytes, u64),
    Scan,
    Error(ViewError),
}

impl From<Missing> for ViewError {
    fn from(missing: Missing) -> ViewError {
        match missing {
            Missing::Error(error) => error,
            Missing::Row(..) | Missing::Scan => ViewError::Cold,
        }
    }
}

impl Leading for SlowView<'_> {
    fn is_cold(&self) -> bool {
        self.lost.get()
    }

    fn defer(&self) {
        self.lost.set(true);
    }

    fn enter_script(&self, runs: bool) {
        self.in_script.set(runs);
    }
}

impl View for SlowView<'_> {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn is_past(&self, at_ms: u64) -> bool {
        let is_past = at_ms <= self.now_ms;
        if is_past {
            self.hidden_ms.set(self.hidden_ms.get().max(at_ms));
        }
        is_past
    }

    fn in_script(&self) -> bool {
        self.in_script.get()
    }

    fn shapes(&self) -> ValueShapes {
        self.held.shared.options.shapes.get()
    }

    fn table(&self) -> TableId {
        self.range.table
    }

    fn range(&self) -> PlacementRange {
        self.range
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
        for _ in 0..COLD_ROUNDS_MAX {
            match self.look(false, |view| view.get(row)) {
                Err(Missing::Row(row, epoch)) => self.fetch(row, epoch),
                looked => return Ok(looked?),
            }
        }
        Ok(self.look(true, |view| view.get(row))?)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        Ok(self.look(true, |view| view.scan(from, to, direction, visit))?)
    }

    fn counters(&self) -> Counters {
        self.look(false, |view| Ok(view.counters())).unwrap_or_default()
    }

    fn flushed_through(&self) -> Option<Version> {
        self.look(false, |view| Ok(view.flushed_through())).unwrap_or_default()
    }

    fn notes(&self) -> &Notes {
        &self.notes
    }

    fn random(&self) -> u64 {
        crate::view::next_random(&self.random)
    }
}

/// Marks a script as lost: whoever runs it ends it at its next look.
pub(crate) fn lose(running: &Running) {
    running.lost.store(true, Relaxed);
}

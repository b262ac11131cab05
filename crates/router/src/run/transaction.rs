//! MULTI, EXEC, DISCARD, WATCH and UNWATCH: the session's part of a transaction.
//!
//! ```text
//! WATCH ──Look──→ leader: the version of each key's last write
//! MULTI … commands are checked and queued, each answers QUEUED …
//! EXEC ─plan─→ router's own commands (PING, SELECT, CLIENT …)          run here, in their places
//!         └──→ data commands and watched keys ──Run──→ one partition's leader, all or nothing
//! ```
//!
//! *One partition.* What the data commands touch and what is watched must lie in one partition. Else
//! EXEC is refused before anything runs, but for two cases that are right without more: a single
//! command without watched keys is as atomic as it is outside MULTI (FLUSHALL, COPY to another
//! table); and a transaction that writes nothing may check what it watches elsewhere *after* it has
//! read: what has not changed by then had not changed when it read.
//!
//! *The router's own commands* see the session as their place in the queue left it. Data commands run
//! before them, and are durable before any that others notice: neither kind looks at what the other
//! changes, but for SELECT, whose effect is worked out beforehand, and for a few that run first
//! (`transaction/order.rs`), so no reply tells the difference.

mod order;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use commands::table::Entry;
use commands::{CommandError, Gather, Keys, Run, Session as Command};
use smallvec::SmallVec;
use wire::ids::{CommandId, TableId, Version};
use wire::placement::Placement;
use wire::resp::{Arguments, Reply};
use wire::service::{Gate, GateOutcome, ScriptClient, Watched, Work, decode_seen};

use super::batch::{Batch, is_apart, look, routed};
use super::{command, copy, debug, handshake, wait};
use crate::connection::{Connection, Done, Gates};
use crate::dispatch::Tables;
use crate::gather;
use crate::route::{Answered, Attempt, Obstacle, Routed, positions_or_none};
use crate::slowlog;
use crate::users::Context;

/// Bytes that a queued argument is counted with besides its own.
const ARGUMENT_OVERHEAD_BYTES: usize = size_of::<Bytes>();

/// What was queued since MULTI.
#[derive(Debug, Default)]
pub(crate) struct Multi {
    queue: Vec<Queued>,
    /// Bytes of the queued arguments.
    bytes: usize,
    /// A command was refused: EXEC will be, too.
    failed: bool,
}

#[derive(Debug)]
struct Queued {
    entry: &'static Entry,
    args: Vec<Bytes>,
}

impl Queued {
    fn is_script(&self) -> bool {
        matches!(self.entry.command.run, Run::Script(_))
    }
}

/// The watched keys of one table.
#[derive(Debug)]
pub(crate) struct WatchedTable {
    table: TableId,
    /// The table that the database was.
    mapped: TableId,
    keys: Vec<Watched>,
}

/// What no key is seen at: it counts as changed.
const CHANGED: Version = Version { index: u64::MAX, ordinal: u32::MAX };

impl Multi {
    /// Has EXEC refused.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.queue = Vec::new();
    }

    /// Whether something is true of a queued command.
    pub(crate) fn any(&self, is: impl Fn(&Entry, &[Bytes]) -> bool) -> bool {
        self.queue.iter().any(|queued| is(queued.entry, &queued.args))
    }
}

// --- Commands that change the session alone

pub(super) fn multi(connection: &mut Connection) -> Result<Reply, CommandError> {
    let session = &mut connection.session;
    if session.multi.is_some() {
        return Err(CommandError::MULTI_NESTED);
    }
    session.multi = Some(Box::default());
    session.client.queued.store(0, Relaxed);
    Ok(Reply::OK)
}

pub(super) fn discard(connection: &mut Connection) -> Result<Reply, CommandError> {
    if connection.session.multi.is_none() {
        return Err(CommandError::DISCARD_WITHOUT_MULTI);
    }
    connection.session.discard();
    Ok(Reply::OK)
}

pub(super) fn unwatch(connection: &mut Connection) -> Reply {
    connection.session.unwatch();
    Reply::OK
}

impl crate::session::Session {
    /// Forgets a transaction: what is queued and what is watched.
    pub(crate) fn discard(&mut self) {
        self.multi = None;
        self.client.queued.store(-1, Relaxed);
        self.client.queued_bytes.store(0, Relaxed);
        self.unwatch();
    }

    fn unwatch(&mut self) {
        self.watched = Vec::new();
        self.client.watching.store(0, Relaxed);
    }

    /// Whether a command waits for EXEC instead of being run.
    pub(crate) fn queues(&self, entry: &Entry) -> bool {
        use Command::{Discard, Exec, Multi, Quit, Reset, Watch};
        self.multi.is_some()
            && !matches!(
                entry.command.run,
                Run::Session(Discard | Exec | Multi | Quit | Reset | Watch)
            )
    }
}

impl Connection {
    /// Queues a command for EXEC.
    pub(crate) fn queue(&mut self, entry: &'static Entry, args: &Arguments) {
        let Some(multi) = &mut self.session.multi else { return };
        if !multi.failed {
            let queued = Queued { entry, args: copied(args) };
            let bytes = args.iter().map(|arg| arg.len() + ARGUMENT_OVERHEAD_BYTES).sum::<usize>();
            multi.bytes += bytes + size_of::<Queued>();
            multi.queue.push(queued);
            let client = &self.session.client;
            client.queued.store(multi.queue.len() as i64, Relaxed);
            client.queued_bytes.store(multi.bytes, Relaxed);
            let limit = self.shared.config.live.query_buffer_bytes.load(Relaxed) as usize;
            if multi.bytes > limit {
                // As Redis does: what is queued counts as what the client has sent and not been
                // served.
                tracing::warn!(conn = client.id, bytes = multi.bytes, "closed: it queues too much");
                return self.hang_up();
            }
        }
        self.reply(Done::from(Reply::Simple("QUEUED")));
        self.caller.tally.commands += 1;
    }

    /// EXEC itself was refused (a wrong number of arguments, or the rules): the transaction is over.
    pub(crate) fn refuse_exec(&mut self, error: &CommandError) -> CommandError {
        self.session.discard();
        let text = error.to_string();
        let text = text.strip_prefix("ERR ").unwrap_or(&text);
        CommandError::ExecRefused(text.to_owned())
    }
}

/// What EXEC answers in place of replies. A script that is busy ends the transaction, which is said.
fn discarded(reply: Reply) -> Reply {
    match reply {
        Reply::Error(line) if line.starts_with(b"BUSY ") => {
            CommandError::ExecRefused(String::from_utf8_lossy(&line).into_owned()).into()
        }
        other => other,
    }
}

/// The arguments in memory of their own: a queued slice would keep the whole buffer it was read into.
pub(crate) fn copied(args: &[Bytes]) -> Vec<Bytes> {
    let mut buffer = BytesMut::with_capacity(args.iter().map(Bytes::len).sum());
    args.iter()
        .map(|arg| {
            buffer.extend_from_slice(arg);
            buffer.split().freeze()
        })
        .collect()
}

// --- WATCH

/// What WATCH has to wait for.
pub(crate) enum Looking {
    /// A write that one of the keys was seen at, which is not durable yet. It may be lost still, and
    /// another write could then come to stand at the same version.
    Gate(Answered),
    Obstacle(Obstacle),
    /// The keys lie in several partitions.
    Apart,
}

impl Looking {
    /// Whether it is hardly ever in the way for long.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self, Looking::Obstacle(obstacle) if obstacle.is_short())
    }
}

impl Connection {
    /// Runs WATCH if that takes no waiting.
    pub(crate) fn watch_now(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
    ) -> Result<Done, Box<Looking>> {
        if self.session.multi.is_some() {
            return Ok(Done::from(Reply::from(CommandError::WATCH_IN_MULTI)));
        }
        let keys = self.not_yet_watched(&args[1..]);
        if keys.is_empty() {
            return Ok(Done::from(Reply::OK));
        }
        match self.caller.call_now(&routed(entry, self.session.table, &look(&keys))) {
            Attempt::Done(answered) if answered.gate.is_some() => {
                Err(Box::new(Looking::Gate(answered)))
            }
            Attempt::Done(answered) => Ok(Done::from(self.watch(keys, &answered))),
            Attempt::Refused(error) if is_apart(&error) => Err(Box::new(Looking::Apart)),
            Attempt::Refused(error) => Ok(Done::from(Reply::from(error))),
            Attempt::Blocked(obstacle) => Err(Box::new(Looking::Obstacle(obstacle))),
        }
    }

    /// Goes on with a WATCH that has to wait.
    pub(crate) async fn watch_slowly(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
        looking: Box<Looking>,
    ) -> Result<Done, CommandError> {
        let keys = self.not_yet_watched(&args[1..]);
        let table = self.session.table;
        let answered = match *looking {
            Looking::Gate(answered) => Ok(answered),
            Looking::Obstacle(obstacle) => {
                self.caller.call_until(&routed(entry, table, &look(&keys)), obstacle).await
            }
            Looking::Apart => Err(CommandError::CROSS_PARTITION),
        };
        match answered {
            Ok(answered) => {
                self.pass(answered.gate).await?;
                Ok(Done::from(self.watch(keys, &answered)))
            }
            Err(error) if is_apart(&error) => {
                // Nothing needs them to be seen at one moment: each must not change from now on.
                for key in keys {
                    let one = [key];
                    let answered = self.caller.call(&routed(entry, table, &look(&one))).await?;
                    self.pass(answered.gate).await?;
                    let reply = self.watch(one.to_vec(), &answered);
                    if matches!(reply, Reply::Error(_)) {
                        return Ok(Done::from(reply));
                    }
                }
                Ok(Done::from(Reply::OK))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for a gate before a read is believed.
    async fn pass(&self, gate: Option<Gate>) -> Result<(), CommandError> {
        let Some(gate) = gate else { return Ok(()) };
        match self.caller.outcome(gate).await {
            GateOutcome::Durable => Ok(()),
            GateOutcome::Lost | GateOutcome::Unknown => Err(CommandError::NOT_EXECUTED),
        }
    }

    fn not_yet_watched(&self, keys: &[Bytes]) -> Vec<Bytes> {
        let table = self.session.table;
        let watched = self.session.watched.iter().find(|watched| watched.table == table);
        let mut fresh: Vec<Bytes> = Vec::new();
        for key in keys {
            let known = watched.is_some_and(|of| of.keys.iter().any(|known| known.key == key));
            if !known && !fresh.contains(key) {
                fresh.push(key.clone());
            }
        }
        fresh
    }

    /// Remembers what was seen.
    fn watch(&mut self, keys: Vec<Bytes>, answered: &Answered) -> Reply {
        let Reply::Array(seen) = &answered.reply else { return answered.reply.clone() };
        let mapped = answered.target.range.table;
        let table = self.session.table;
        let watched = &mut self.session.watched;
        let at = watched.iter().position(|watched| watched.table == table).unwrap_or_else(|| {
            watched.push(WatchedTable { table, mapped, keys: Vec::new() });
            watched.len() - 1
        });
        for (key, seen) in keys.iter().zip(seen) {
            let Some(seen) = decode_seen(seen) else {
                return CommandError::Operator("WATCH: no version".to_owned()).into();
            };
            // Another table than that of the keys before it: the databases were swapped meanwhile.
            let seen = if watched[at].mapped == mapped { seen } else { Some(CHANGED) };
            watched[at].keys.push(Watched { key: Bytes::copy_from_slice(key), seen });
        }
        let count = watched.iter().map(|watched| watched.keys.len()).sum();
        self.session.client.watching.store(count, Relaxed);
        Reply::OK
    }
}

// --- EXEC

/// A transaction that is being executed.
pub(crate) struct Exec {
    queue: Vec<Queued>,
    steps: Vec<Step>,
    watched: Vec<WatchedTable>,
    /// The table of all data commands and watched keys, if it is one.
    table: Option<TableId>,
    placements: SmallVec<[Placement; 8]>,
    whole_table: bool,
    writes: bool,
    /// Whom its scripts are run for.
    client: Option<Arc<dyn ScriptClient>>,
    /// What the partition's part came to, and how long it took, once it is done.
    done: Option<(Outcome, Duration)>,
}

/// What runs a queued command.
enum Step {
    Router,
    /// The router, before the partition's part.
    Early,
    /// It has run.
    Ran(Reply),
    /// The partition's leader, on this table.
    Data(TableId),
    /// Nobody: it is refused.
    Refused(CommandError),
    /// Several tables, which are no transaction.
    Across(TableId),
}

impl Exec {
    /// Decides who runs what; `refusals` are those of the queue's commands, or empty if none has one.
    fn plan(
        queue: Vec<Queued>,
        mut refusals: Vec<Option<CommandError>>,
        watched: Vec<WatchedTable>,
        now: TableId,
        tables: u32,
    ) -> Exec {
        let mut exec = Exec {
            steps: Vec::with_capacity(queue.len()),
            queue,
            watched,
            table: None,
            placements: SmallVec::new(),
            whole_table: false,
            writes: false,
            client: None,
            done: None,
        };
        let mut selected = now;
        for (at, Queued { entry, args }) in exec.queue.iter().enumerate() {
            if let Some(refusal) = refusals.get_mut(at).and_then(Option::take) {
                exec.steps.push(Step::Refused(refusal));
                continue;
            }
            let step = match (&entry.command.run, entry.command.keys) {
                (Run::Session(Command::Swapdb), _) => Step::Refused(CommandError::SWAPDB_IN_MULTI),
                (Run::Session(what), _) => {
                    if *what == Command::Select {
                        selected = handshake::table_of(&args[1], tables).unwrap_or(selected);
                    }
                    Step::Router
                }
                (Run::Group(_), _) => Step::Router,
                (Run::Script(what), _) if what.is_about_functions() => Step::Data(TableId::SYSTEM),
                (_, Keys::AllTables(_)) => Step::Across(selected),
                (_, Keys::Table(_)) => {
                    exec.whole_table = true;
                    Step::Data(selected)
                }
                _ => match copy::is_across(entry, args, selected, tables) {
                    Ok(true) => Step::Across(selected),
                    Ok(false) => match positions_or_none(entry, args) {
                        Ok(at) => {
                            exec.placements
                                .extend(at.iter().map(|at| Placement::of_key(&args[*at])));
                            Step::Data(selected)
                        }
                        Err(error) => Step::Refused(error),
                    },
                    Err(error) => Step::Refused(error),
                },
            };
            let runs = matches!(step, Step::Data(_) | Step::Across(_));
            exec.writes |= runs && entry.command.may_write();
            exec.steps.push(step);
        }
        exec.find_table();
        exec
    }

    fn find_table(&mut self) {
        let of_data = self.steps.iter().filter_map(|step| match step {
            Step::Data(table) => Some(Some(*table)),
            Step::Across(_) => Some(None),
            Step::Router | Step::Early | Step::Ran(_) | Step::Refused(_) => None,
        });
        let of_watched = self.watched.iter().map(|watched| Some(watched.table));
        let mut tables = of_data.chain(of_watched);
        if let Some(first) = tables.next().flatten() {
            self.table = tables.all(|table| table == Some(first)).then_some(first);
        }
    }

    fn is_data(step: &Step) -> bool {
        matches!(step, Step::Data(_) | Step::Across(_))
    }

    /// Whether no partition has anything to do with it.
    fn is_routers_alone(&self) -> bool {
        self.watched.is_empty() && !self.steps.iter().any(Exec::is_data)
    }

    fn commands(&self) -> Vec<(CommandId, &[Bytes])> {
        let data = self.queue.iter().zip(&self.steps).filter(|(_, step)| Exec::is_data(step));
        data.map(|(queued, _)| (queued.entry.id, &queued.args[..])).collect()
    }

    /// The only data command, if there is one and nothing is watched.
    fn single(&self) -> Option<(&Queued, TableId)> {
        let mut data = self.queue.iter().zip(&self.steps).filter(|(_, step)| Exec::is_data(step));
        match (data.next(), data.next()) {
            (Some((queued, Step::Data(table) | Step::Across(table))), None)
                if self.watched.is_empty() =>
            {
                Some((queued, *table))
            }
            _ => None,
        }
    }
}

/// The call of a transaction, for whom its scripts are run.
fn routed_exec<'a>(
    entry: &'static Entry,
    exec: &Exec,
    table: TableId,
    batch: &'a Batch<'a>,
) -> Routed<'a> {
    let mut routed = routed(entry, table, batch);
    routed.client = exec.client.clone();
    routed
}

/// A batch of a transaction's commands, with these watched keys.
fn batch<'a>(
    exec: &Exec,
    commands: &'a [(CommandId, &'a [Bytes])],
    watched: &'a [Watched],
) -> Batch<'a> {
    let mut placements = exec.placements.clone();
    placements.extend(watched.iter().map(|watched| Placement::of_key(&watched.key)));
    Batch {
        work: Work::Run { watched, commands },
        placements,
        whole_table: exec.whole_table,
        mapped: exec.watched.first().filter(|_| !watched.is_empty()).map(|watched| watched.mapped),
        writes: exec.writes,
        has_script: exec.queue.iter().any(Queued::is_script),
    }
}

/// What the partitions answered to a transaction.
struct Outcome {
    /// The data commands' replies, an array; or what EXEC answers instead.
    reply: Reply,
    gates: Gates,
    /// Whom to ask for WAIT, if it wrote.
    wrote: Option<(Gate, usize)>,
}

impl From<Answered> for Outcome {
    fn from(answered: Answered) -> Outcome {
        let wrote = answered.gate.map(|gate| (gate, answered.target.sure_replicas));
        let gates = answered.gate.into_iter().collect();
        Outcome { reply: answered.reply, gates, wrote }
    }
}

impl Connection {
    /// Runs EXEC if that takes no waiting; else what it has come to.
    pub(crate) fn exec_now(
        &mut self,
        entry: &'static Entry,
    ) -> Result<Done, (Box<Exec>, Option<Obstacle>)> {
        let Some(multi) = self.session.multi.take() else {
            return Ok(Done::from(Reply::from(CommandError::EXEC_WITHOUT_MULTI)));
        };
        let watched = std::mem::take(&mut self.session.watched);
        self.session.discard();
        if multi.failed {
            return Ok(Done::from(Reply::from(CommandError::EXEC_ABORTED)));
        }
        let tables = self.shared.databases();
        let refusals = self.denied_at_exec(&multi.queue);
        let mut exec = Exec::plan(multi.queue, refusals, watched, self.session.table, tables);
        let script = exec.queue.iter().find(|queued| queued.is_script());
        exec.client = script.and_then(|queued| self.script_client(queued.entry));
        if let Err(error) = exec.find_early() {
            return Ok(Done::from(Reply::from(error)));
        }
        self.run_early(&mut exec);
        if exec.table == Some(TableId::SYSTEM) {
            return Err((Box::new(exec), None));
        }
        if exec.is_routers_alone() {
            let none =
                Outcome { reply: Reply::Array(Vec::new()), gates: Gates::new(), wrote: None };
            return Ok(self.complete(exec, none, Duration::ZERO));
        }
        match self.attempt_together(entry, &exec) {
            Some(Attempt::Done(answered)) => {
                let (outcome, took) = (Outcome::from(answered), self.clock.elapsed());
                if exec.waits_for(&outcome) {
                    exec.done = Some((outcome, took));
                    return Err((Box::new(exec), None));
                }
                Ok(self.complete(exec, outcome, took))
            }
            None => Err((Box::new(exec), None)),
            Some(Attempt::Refused(error)) if is_apart(&error) => Err((Box::new(exec), None)),
            Some(Attempt::Refused(error)) => Ok(Done::from(Reply::from(error))),
            Some(Attempt::Blocked(obstacle)) => Err((Box::new(exec), Some(obstacle))),
        }
    }

    /// What the rules refuse of a queue, should they have changed since it was queued.
    fn denied_at_exec(&mut self, queue: &[Queued]) -> Vec<Option<CommandError>> {
        if !self.session.login.account.is_restricted() {
            return Vec::new();
        }
        let mut refusals = Vec::with_capacity(queue.len());
        for Queued { entry, args } in queue {
            let user = self.session.login.user();
            refusals.push(match user.check(entry, args) {
                Ok(()) => user.check_sort(entry, args).err(),
                Err(denied) => {
                    self.log_denied(entry, args, denied, Context::Multi);
                    Some(denied.to_error_of_exec())
                }
            });
        }
        refusals
    }

    /// Calls the partition that holds everything; `None` if several tables are involved.
    fn attempt_together(&mut self, entry: &'static Entry, exec: &Exec) -> Option<Attempt> {
        self.track_all(exec);
        let commands = exec.commands();
        let watched = exec.watched.first().map_or(&[][..], |watched| &watched.keys);
        let batch = batch(exec, &commands, watched);
        let routed = routed_exec(entry, exec, exec.table?, &batch);
        if !self.gated.is_empty()
            && self.caller.target(&routed).is_some_and(|target| self.waits_elsewhere(&target))
        {
            return Some(Attempt::Blocked(Obstacle::Moved));
        }
        Some(self.caller.call_now(&routed))
    }

    fn track_all(&mut self, exec: &Exec) {
        if self.session.tracked.is_some() {
            exec.queue.iter().for_each(|Queued { entry, args }| self.track(entry, args));
        }
    }

    /// Goes on with an EXEC that met an obstacle, or that one partition cannot do alone.
    pub(crate) async fn exec_slowly(
        &mut self,
        entry: &'static Entry,
        exec: Box<Exec>,
        obstacle: Option<Obstacle>,
    ) -> Result<Done, CommandError> {
        let mut exec = exec;
        if let Some(done) = exec.done.take() {
            let (outcome, took) = self.settle_exec(&exec, done).await?;
            return Ok(self.complete(*exec, outcome, took));
        }
        let started = Instant::now();
        // Anew: what was pushed meanwhile may have left since.
        self.track_all(&exec);
        let together = match (exec.table, obstacle) {
            (Some(TableId::SYSTEM), _) => self.exec_functions(entry, &exec).await,
            (Some(table), Some(obstacle)) => {
                let commands = exec.commands();
                let watched = exec.watched.first().map_or(&[][..], |watched| &watched.keys);
                let batch = batch(&exec, &commands, watched);
                let routed = routed_exec(entry, &exec, table, &batch);
                self.caller.call_until(&routed, obstacle).await
            }
            _ => Err(CommandError::CROSS_PARTITION),
        };
        let outcome = match together {
            Ok(answered) => answered.into(),
            Err(error) if is_apart(&error) => self.exec_apart(entry, &exec).await?,
            Err(error) => return Err(error),
        };
        let (outcome, took) = self.settle_exec(&exec, (outcome, started.elapsed())).await?;
        Ok(self.complete(*exec, outcome, took))
    }

    /// A transaction of commands about functions alone. What it changes is known everywhere before it
    /// is answered, and before the pipeline goes on.
    async fn exec_functions(
        &mut self,
        entry: &'static Entry,
        exec: &Exec,
    ) -> Result<Answered, CommandError> {
        let commands = exec.commands();
        let batch = batch(exec, &commands, &[]);
        let routed = routed_exec(entry, exec, TableId::SYSTEM, &batch);
        let mut answered = self.caller.call(&routed).await?;
        self.settle_functions(answered.gate.take(), exec.writes).await?;
        Ok(answered)
    }

    /// The two cases in which several partitions can take part; see the module's text.
    async fn exec_apart(
        &mut self,
        entry: &'static Entry,
        exec: &Exec,
    ) -> Result<Outcome, CommandError> {
        if let Some((queued, table)) = exec.single() {
            return Ok(self.run_single(queued, table).await);
        }
        let tables = exec.steps.iter().filter_map(|step| match step {
            Step::Data(table) => Some(*table),
            _ => None,
        });
        let table = tables.clone().next();
        let across = exec.steps.iter().any(|step| matches!(step, Step::Across(_)));
        if exec.writes || across || tables.clone().any(|other| Some(other) != table) {
            return Err(CommandError::EXEC_ACROSS);
        }
        let mut outcome =
            Outcome { reply: Reply::Array(Vec::new()), gates: Gates::new(), wrote: None };
        if let Some(table) = table {
            let commands = exec.commands();
            let batch = batch(exec, &commands, &[]);
            outcome = match self.caller.call(&routed_exec(entry, exec, table, &batch)).await {
                Err(error) if is_apart(&error) => return Err(CommandError::EXEC_ACROSS),
                answered => answered?.into(),
            };
        }
        for WatchedTable { table, mapped, keys } in &exec.watched {
            for key in keys {
                let batch = Batch {
                    mapped: Some(*mapped),
                    work: Work::Run { watched: std::slice::from_ref(key), commands: &[] },
                    placements: SmallVec::from_slice(&[Placement::of_key(&key.key)]),
                    whole_table: false,
                    writes: false,
                    has_script: false,
                };
                let answered = self.caller.call(&routed(entry, *table, &batch)).await?;
                outcome.gates.extend(answered.gate);
                if !matches!(answered.reply, Reply::Array(_)) {
                    return Ok(Outcome { reply: answered.reply, ..outcome });
                }
            }
        }
        Ok(outcome)
    }

    /// Runs a transaction's only data command as if it stood alone.
    async fn run_single(&mut self, queued: &Queued, table: TableId) -> Outcome {
        let Queued { entry, args } = queued;
        let caller = &mut self.caller;
        // Redis does not put off what a flush frees in a transaction, unless it is told to.
        let flushes = matches!(
            entry.command.keys,
            Keys::AllTables(Gather::AllOk) | Keys::Table(Gather::AllOk)
        );
        let now = [args[0].clone(), Bytes::from_static(b"SYNC")];
        let args = if flushes && args.len() == 1 { &now[..] } else { args };
        let done = match entry.command.keys {
            Keys::Table(gather) => {
                gather::run(caller, entry, gather, (Tables::Selected, table), args).await
            }
            Keys::AllTables(gather) => {
                debug_assert!(matches!(gather, Gather::AllOk | Gather::Sum));
                gather::run(caller, entry, gather, (Tables::All, table), args).await
            }
            // Between tables it is COPY; in one table it takes keys of several partitions, which is
            // refused like outside MULTI.
            _ => match copy::is_across(entry, args, table, caller.shared.databases()) {
                Ok(true) => copy::run(caller, entry, table, args).await,
                _ => Err(CommandError::CROSS_PARTITION),
            },
        };
        let done = done.unwrap_or_else(|error| Done::from(Reply::from(error)));
        Outcome { reply: Reply::Array(vec![done.reply]), gates: done.gates, wrote: None }
    }

    /// Runs the router's own commands in their places and puts all replies together.
    fn complete(&mut self, exec: Exec, outcome: Outcome, took: Duration) -> Done {
        let Outcome { reply, gates, wrote } = outcome;
        if let (Some((gate, sure_replicas)), true) = (wrote, exec.writes) {
            self.session.wrote(gate, sure_replicas);
        }
        let mut replies = match reply {
            Reply::Array(replies) => replies.into_iter(),
            // A watched key has changed, or the whole was refused.
            instead => return Done::gated(discarded(instead), gates, exec.writes),
        };
        // The leader ran them as one: each is told to have taken as long as the others.
        let share = took / u32::try_from(replies.len().max(1)).unwrap_or(u32::MAX);
        let mut all = Vec::with_capacity(exec.queue.len());
        for (Queued { entry, args }, step) in exec.queue.iter().zip(exec.steps) {
            let started = Instant::now();
            let (reply, took) = match step {
                Step::Router | Step::Early => (self.run_routers(entry, args), started.elapsed()),
                Step::Ran(reply) => (reply, Duration::ZERO),
                Step::Refused(error) => (error.into(), Duration::ZERO),
                Step::Data(_) | Step::Across(_) => {
                    let lost = || CommandError::Operator("a reply is missing".to_owned()).into();
                    let reply = replies.next().unwrap_or_else(lost);
                    if !entry.command.may_write() {
                        self.caller.tally.count_lookup(&reply);
                    }
                    (reply, share)
                }
            };
            let failed = self.count_error(&reply);
            self.caller.tally.commands += 1;
            self.shared.stats.call(entry.id, took, self.shared.tracks_latency(), failed);
            slowlog::observe(self, entry, args, took);
            self.show(entry, args);
            all.push(reply);
        }
        Done::gated(Reply::Array(all), gates, exec.writes)
    }

    fn run_routers(&mut self, entry: &Entry, args: &[Bytes]) -> Reply {
        match entry.command.run {
            // Inside a transaction nothing waits.
            Run::Session(Command::Monitor) => CommandError::MONITOR_IN_MULTI.into(),
            Run::Session(Command::Migrate) => CommandError::MIGRATE_IN_MULTI.into(),
            Run::Session(Command::Ssubscribe) => CommandError::SSUBSCRIBE_IN_MULTI.into(),
            Run::Session(Command::Debug) => debug::now(self, args).unwrap_or_else(Into::into),
            Run::Session(Command::Wait) => wait::now(self, args).unwrap_or_else(Into::into),
            Run::Session(Command::Waitaof) => wait::aof_now(self, args).unwrap_or_else(Into::into),
            Run::Session(what) => super::run(what, self, args).unwrap_or_else(Into::into),
            _ => command::all(),
        }
    }
}

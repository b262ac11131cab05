//! Scripts at a partition's leader: Lua on a transaction.
//!
//! ```text
//! view of the partition ← Txn of the script, from its first write on
//!                            ← Txn of one command ──done──→ merged, its reply to the script
//!                                       └─────────refused─→ dropped, its error to the script
//! ```
//!
//! *As Redis does it*, an error that ends a script leaves what its commands have done; a script that is
//! killed leaves nothing, since nothing is proposed before it ends.
//!
//! *Quick or slow.* A script is begun under the partition's lock, like a command. If it is not done
//! within [`QUICK_TIME_MAX`], or needs a row that only the disk has, all of it is forgotten and it is
//! run again: in the first case by [`crate::slow`], where it holds up nobody but those that want the
//! same partition.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{
    Args, CommandError, Effects, Flags, Keys, Run, Script, Session, Txn, VALUE_BYTES_MAX, View,
    copy_options, key_positions, move_target, parse_int,
};
use scripts::{Flags as Said, Host, Interrupt, SHA_DIGITS, Vm};
use wire::ids::{TableId, Version};
use wire::placement::Placement;
use wire::resp::Reply;
use wire::service::{ScriptAccount, ScriptClient, ScriptCount};

use crate::core::{EFFECTS_BYTES_MAX, effects_bytes};
use crate::functions;
use crate::scripting::{Running, Scripting};
use crate::transaction;
use crate::view::Leading;

/// How long a script may hold its partition's lock.
pub(crate) const QUICK_TIME_MAX: Duration = Duration::from_millis(2);
/// Commands of a script between two looks at the clock.
const CALLS_PER_LOOK: u32 = 16;
/// Memory that a thread's state keeps between scripts, in bytes.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Lines that one script may log.
const LOG_LINES_MAX: usize = 1_000;
/// What remains of one of them, in bytes, as in Redis.
const LOG_LINE_BYTES_MAX: usize = 1_024;
/// Of what a script's router keeps account of (errors, denials, lines for MONITOR), what one script
/// tells at most.
const ACCOUNT_ITEMS_MAX: usize = 10_000;
/// Bytes of arguments in these.
const ACCOUNT_BYTES_MAX: usize = 4 << 20;

/// Where a script runs, and what ends it before its time.
#[derive(Clone, Copy)]
pub(crate) enum Pace<'a> {
    /// Under the partition's lock, for [`QUICK_TIME_MAX`] from the first look at the clock on.
    Quick,
    /// Without it. The function tells whether the node stops.
    Slow(&'a Running, &'a dyn Fn() -> bool),
}

/// What a script is run with.
pub(crate) struct Stage<'a> {
    pub(crate) scripting: &'a Scripting,
    pub(crate) pace: Pace<'a>,
    /// When a quick one has to end.
    deadline: Cell<Option<Instant>>,
    /// Whom it is run for.
    client: Option<&'a Arc<dyn ScriptClient>>,
    /// Of the scripts that have ended.
    accounts: RefCell<Vec<ScriptAccount>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        scripting: &'a Scripting,
        pace: Pace<'a>,
        client: Option<&'a Arc<dyn ScriptClient>>,
    ) -> Stage<'a> {
        Stage { scripting, pace, deadline: Cell::default(), client, accounts: RefCell::default() }
    }

    /// The stage of a script that begins now under its partition's lock.
    pub(crate) fn quick(
        scripting: &'a Scripting,
        client: Option<&'a Arc<dyn ScriptClient>>,
    ) -> Stage<'a> {
        Stage::new(scripting, Pace::Quick, client)
    }

    /// Hands the accounts over, unless all of it is to be done again.
    pub(crate) fn settle(&self, view: &dyn Leading) {
        let accounts = self.accounts.take();
        if let Some(client) = self.client
            && !view.is_cold()
        {
            accounts.iter().for_each(|account| client.done(account));
        }
    }
}

thread_local! {
    static VM: RefCell<Option<Vm>> = const { RefCell::new(None) };
}

/// Does something with the thread's Lua state.
///
/// *Errors*: what `work` says; or there is no memory for a state.
pub(crate) fn with_vm<T>(
    scripting: &Scripting,
    work: impl FnOnce(&mut Vm) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let memory_max = usize::try_from(scripting.limits().memory_bytes_max).unwrap_or(usize::MAX);
    VM.with(|slot| {
        let Ok(mut borrowed) = slot.try_borrow_mut() else {
            // A script of this thread asks (INFO counts functions).
            return work(&mut Vm::new(memory_max)?);
        };
        let slot = &mut *borrowed;
        let vm = match slot {
            Some(vm) => vm,
            None => slot.insert(Vm::new(memory_max)?),
        };
        vm.set_memory_max(memory_max);
        let done = work(vm);
        if vm.used_memory() > KEPT_BYTES_MAX && vm.collect() > KEPT_BYTES_MAX {
            *slot = None;
        }
        done
    })
}

/// Runs a script's command on `base`, which is `view` or a transaction over it. If the view is cold
/// afterwards, what is returned means nothing.
pub(crate) fn run(
    stage: &Stage<'_>,
    (view, base): (&dyn Leading, &dyn View),
    next_version: Version,
    (what, args): (Script, &[Bytes]),
) -> (Reply, Option<Effects>) {
    let done = with_vm(stage.scripting, |vm| {
        if what.is_about_functions() {
            return functions::run(stage.scripting, vm, base, next_version, what, args);
        }
        let mut runner = Runner::new(stage, view, base, next_version);
        runner.account_for_itself(args);
        view.enter_script(true);
        let reply = evaluate(vm, &mut runner, what, args).unwrap_or_else(Reply::from);
        view.enter_script(false);
        let effects = runner.finish(&reply);
        Ok((reply, effects))
    });
    done.unwrap_or_else(|error| (error.into(), None))
}

/// Where the keys of a script's line end: what follows are its arguments.
fn keys_end(args: &[Bytes], refusal: CommandError) -> Result<usize, CommandError> {
    let count = parse_int(&args[2]).ok_or(refusal)?;
    if count > args.len() as i64 - 3 {
        return Err(CommandError::NUMKEYS_TOO_MANY);
    }
    let count = usize::try_from(count).map_err(|_| CommandError::SCRIPT_KEYS_NEGATIVE)?;
    Ok(3 + count)
}

fn evaluate(
    vm: &mut Vm,
    runner: &mut Runner<'_>,
    what: Script,
    args: &[Bytes],
) -> Result<Reply, CommandError> {
    let scripting = runner.stage.scripting;
    let ended = match what {
        Script::Fcall | Script::FcallRo => {
            let set = scripting.functions(vm)?;
            let library = set.library_with(&args[1]).ok_or(CommandError::FUNCTION_NOT_FOUND)?;
            let end = keys_end(args, CommandError::FUNCTION_KEYS)?;
            let mut functions = library.functions.iter();
            let function = functions
                .find(|function| function.name.eq_ignore_ascii_case(&args[1]))
                .ok_or(CommandError::FUNCTION_NOT_FOUND)?;
            runner.prepare(function.flags, what.is_read_only())?;
            vm.fcall(runner, (library, &function.name), &args[3..end], &args[end..])
        }
        _ => {
            let by_sha = matches!(what, Script::EvalSha | Script::EvalShaRo);
            if by_sha && args[1].len() != SHA_DIGITS {
                return Err(CommandError::NOSCRIPT);
            }
            let end = keys_end(args, CommandError::NotInteger)?;
            let script = if by_sha {
                scripting.cache.find(&args[1]).ok_or(CommandError::NOSCRIPT)?
            } else {
                scripting.cache.eval(&args[1])?
            };
            let compiled = vm.compile(&script).inspect_err(|_| scripting.cache.forget(&script))?;
            runner.prepare(script.flags, what.is_read_only())?;
            vm.eval(runner, (&script, &compiled), &args[3..end], &args[end..])
        }
    };
    // Suspended: the view is cold, and nobody looks at the reply.
    Ok(ended.unwrap_or(Reply::Null))
}

/// Runs a script's commands.
struct Runner<'a> {
    stage: &'a Stage<'a>,
    view: &'a dyn Leading,
    base: &'a dyn View,
    next_version: Version,
    /// From the first write, or message, on.
    txn: Option<Txn<'a>>,
    /// Bytes of rows and of messages.
    written_bytes: usize,
    read_only: bool,
    table: TableId,
    calls: u32,
    killed: bool,
    log: Vec<(u8, String)>,
    account: ScriptAccount,
    account_bytes: usize,
    /// Whether each line is to be told.
    is_watched: bool,
}

impl<'a> Runner<'a> {
    fn new(
        stage: &'a Stage<'a>,
        view: &'a dyn Leading,
        base: &'a dyn View,
        next_version: Version,
    ) -> Runner<'a> {
        Runner {
            stage,
            view,
            base,
            next_version,
            txn: None,
            written_bytes: 0,
            read_only: false,
            table: base.table(),
            calls: 0,
            killed: false,
            log: Vec::new(),
            account: ScriptAccount::default(),
            account_bytes: 0,
            is_watched: stage.client.is_some_and(|client| client.is_watched()),
        }
    }

    /// Takes over what the script says of itself.
    fn prepare(&mut self, said: Said, by_read_only: bool) -> Result<(), CommandError> {
        let says = !said.has(Said::UNSAID);
        let no_writes = says && said.has(Said::NO_WRITES);
        if says && !no_writes && by_read_only {
            return Err(CommandError::SCRIPT_WRITES);
        }
        self.read_only = by_read_only || no_writes;
        Ok(())
    }

    /// What it leaves.
    fn finish(mut self, reply: &Reply) -> Option<Effects> {
        if self.view.is_cold() {
            return None;
        }
        for (level, line) in &self.log {
            match level {
                0 => tracing::trace!(target: "script", "{line}"),
                1 => tracing::debug!(target: "script", "{line}"),
                2 => tracing::info!(target: "script", "{line}"),
                _ => tracing::warn!(target: "script", "{line}"),
            }
        }
        if let (Reply::Error(line), Some(last)) = (reply, self.account.errors.last())
            && line.starts_with(last)
        {
            // It ended the script, whose own error is counted.
            self.account.errors.pop();
        }
        self.stage.accounts.borrow_mut().push(self.account);
        self.txn.filter(|_| !self.killed).map(Txn::into_effects)
    }

    /// Whether a command may be run at all, in Redis's order of checks.
    ///
    /// *Errors*: the refusal.
    fn admit(&mut self, entry: &Entry, args: &[Bytes]) -> Result<(), Reply> {
        let flags = entry.command.flags;
        if flags.has(Flags::NOSCRIPT) && !self.stage.scripting.allows_all() {
            return Err(CommandError::NOT_FROM_SCRIPT.into());
        }
        if let Some(client) = self.stage.client
            && let Err(refusal) = client.check(entry.id, args)
        {
            if let Some(args) = self.accountable(args) {
                self.account.denied.push((entry.id, args));
            }
            return Err(refusal);
        }
        let writes =
            entry.command.may_write() || flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE);
        if self.read_only && writes {
            return Err(CommandError::SCRIPT_READ_ONLY.into());
        }
        Ok(())
    }

    fn run(&mut self, entry: &Entry, args: &[Bytes]) -> Result<Reply, CommandError> {
        match entry.command.run {
            Run::Read(_) => {
                self.check_reach(entry, args)?;
                let view: &dyn View = match &self.txn {
                    Some(txn) => txn,
                    None => self.base,
                };
                Ok(transaction::run_read(view, entry, args))
            }
            Run::Write(_) => {
                self.check_reach(entry, args)?;
                self.write(entry, args)
            }
            Run::Session(what) => self.session(entry, what, args),
            // COMMAND alone.
            Run::Group(_) => self.ask(entry, args),
            Run::Script(_) => Err(CommandError::NOT_FROM_SCRIPT),
        }
    }

    /// Refuses what lies outside the partition.
    fn check_reach(&self, entry: &Entry, args: &[Bytes]) -> Result<(), CommandError> {
        if self.table != self.base.table() || matches!(entry.command.keys, Keys::AllTables(_)) {
            return Err(CommandError::SCRIPT_OTHER_TABLE);
        }
        let tables = self.stage.scripting.limits().tables;
        let named = match entry.command.name {
            // Without the option it stays where it is, which no database is called.
            "COPY" => Some(copy_options(Args(args), TableId::SYSTEM, tables)?.table),
            "MOVE" => Some(move_target(Args(args), tables)?),
            _ => None,
        };
        if named.is_some_and(|named| named != TableId::SYSTEM && self.table_of(named) != self.table)
        {
            return Err(CommandError::SCRIPT_OTHER_TABLE);
        }
        let range = self.base.range();
        if (range.first, range.last) == (Placement::MIN, Placement::MAX) {
            return Ok(());
        }
        let positions = key_positions(entry.command, args).unwrap_or_default();
        if positions.iter().all(|at| range.contains(Placement::of_key(&args[*at]))) {
            Ok(())
        } else {
            Err(CommandError::SCRIPT_OTHER_PARTITION)
        }
    }

    /// The table of a database.
    fn table_of(&self, database: TableId) -> TableId {
        self.stage.client.map_or(database, |client| client.table(database))
    }

    /// Counts bytes that the script leaves behind.
    fn count_written(&mut self, bytes: usize) -> Result<(), CommandError> {
        self.written_bytes += bytes;
        if self.written_bytes > EFFECTS_BYTES_MAX {
            return Err(CommandError::TooMuchToWrite(EFFECTS_BYTES_MAX));
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry, args: &[Bytes]) -> Result<Reply, CommandError> {
        let (base, next_version) = (self.base, self.next_version);
        let txn = self.txn.get_or_insert_with(|| Txn::new(base, next_version));
        let (reply, effects) = transaction::run_write(txn, entry, args);
        if let Some(effects) = effects {
            self.count_written(effects_bytes(&effects))?;
            if let Some(txn) = &mut self.txn {
                txn.merge(effects);
            }
        }
        Ok(reply)
    }

    /// Notes a message, to be published when what the script changed is durable; who would get it now
    /// is counted now.
    fn publish(&mut self, sharded: bool, args: &[Bytes]) -> Result<Reply, CommandError> {
        let [_, channel, text] = args else { return Err(CommandError::SCRIPT_ARITY) };
        self.count_written(channel.len() + text.len())?;
        let (base, next_version) = (self.base, self.next_version);
        let txn = self.txn.get_or_insert_with(|| Txn::new(base, next_version));
        txn.publish(sharded, channel, text);
        let receivers = self.stage.client.map_or(0, |client| client.receivers(sharded, channel));
        Ok(Reply::Integer(i64::try_from(receivers).unwrap_or(i64::MAX)))
    }

    /// Commands that no partition has a part in, and that a script may use.
    fn session(
        &mut self,
        entry: &Entry,
        what: Session,
        args: &[Bytes],
    ) -> Result<Reply, CommandError> {
        Ok(match (what, args) {
            (Session::Ping, [_]) => Reply::Simple("PONG"),
            (Session::Ping | Session::Echo, [_, text]) => Reply::Bulk(text.clone()),
            (Session::Ping, _) => return Err(CommandError::Arity("ping".into())),
            (Session::Time, _) => {
                let now_ms = self.base.now_ms();
                let number = |number: u64| Reply::Bulk(number.to_string().into());
                Reply::Array(vec![number(now_ms / 1_000), number(now_ms % 1_000 * 1_000)])
            }
            (Session::Select, [_, number]) => {
                let tables = self.stage.scripting.limits().tables;
                let table = parse_int(number).ok_or(CommandError::NotInteger)?;
                let table = u32::try_from(table).ok().filter(|table| *table < tables);
                self.table = self.table_of(TableId(table.ok_or(CommandError::DB_OUT_OF_RANGE)?));
                Reply::OK
            }
            (Session::Publish, _) => return self.publish(false, args),
            (Session::Spublish, _) => return self.publish(true, args),
            _ => return self.ask(entry, args),
        })
    }

    /// Has the router answer.
    fn ask(&self, entry: &Entry, args: &[Bytes]) -> Result<Reply, CommandError> {
        let client = self.stage.client.ok_or(CommandError::NOT_FROM_SCRIPT)?;
        if matches!(self.stage.pace, Pace::Quick) && client.asks_nodes(entry.id) {
            // It would take the lock that is held.
            self.view.defer();
            return Ok(Reply::Null);
        }
        Ok(client.answer(entry.id, args))
    }

    // --- What the router keeps account of

    /// The script's own line, for those who are shown lines.
    fn account_for_itself(&mut self, args: &[Bytes]) {
        if self.is_watched
            && let Some(entry) = table::lookup(&args[0])
        {
            self.account_for_line(entry, args);
        }
    }

    fn account_for_line(&mut self, entry: &Entry, args: &[Bytes]) {
        if self.is_watched
            && self.account.lines.len() < ACCOUNT_ITEMS_MAX
            && let Some(args) = self.accountable(args)
        {
            self.account.lines.push((self.table, entry.id, args));
        }
    }

    /// Arguments to be told, if there is room for them.
    fn accountable(&mut self, args: &[Bytes]) -> Option<Vec<Bytes>> {
        self.account_bytes += args.iter().map(|arg| arg.len() + size_of::<Bytes>()).sum::<usize>();
        let is_room = self.account_bytes <= ACCOUNT_BYTES_MAX
            && self.account.denied.len() < ACCOUNT_ITEMS_MAX;
        (is_room && self.stage.client.is_some()).then(|| args.to_vec())
    }

    /// Counts a command that was run, or was refused (`took`: `None`).
    fn count(&mut self, entry: Option<&Entry>, took: Option<Duration>, reply: &Reply) {
        if self.stage.client.is_none() {
            return;
        }
        let is_error = match reply {
            Reply::Error(line) => {
                if self.account.errors.len() < ACCOUNT_ITEMS_MAX {
                    self.account.errors.push(line.clone());
                }
                true
            }
            _ => false,
        };
        let Some(entry) = entry else { return };
        let counts = &mut self.account.counts;
        let at = counts.iter().position(|count| count.command == entry.id).unwrap_or_else(|| {
            let took = Duration::ZERO;
            counts.push(ScriptCount { command: entry.id, calls: 0, failed: 0, rejected: 0, took });
            counts.len() - 1
        });
        match took {
            Some(took) => {
                counts[at].calls += 1;
                counts[at].failed += u64::from(is_error);
                counts[at].took += took;
            }
            None => counts[at].rejected += 1,
        }
    }
}

impl Host for Runner<'_> {
    fn call(&mut self, args: &[Bytes]) -> Result<Reply, Interrupt> {
        self.calls += 1;
        if self.calls.is_multiple_of(CALLS_PER_LOOK)
            && let Some(interrupt) = self.interrupted()
        {
            return Err(interrupt);
        }
        let entry = match find(args) {
            Ok(entry) => entry,
            Err((entry, error)) => {
                let reply = error.into();
                self.count(entry, None, &reply);
                return Ok(reply);
            }
        };
        if let Err(refusal) = self.admit(entry, args) {
            self.count(Some(entry), None, &refusal);
            return Ok(refusal);
        }
        if let Some(client) = self.stage.client {
            client.reads(entry.id, args);
        }
        let began = self.stage.client.map(|_| Instant::now());
        let reply = self.run(entry, args).unwrap_or_else(Reply::from);
        if self.view.is_cold() {
            return Err(Interrupt::Suspended);
        }
        self.count(Some(entry), began.map(|began| began.elapsed()), &reply);
        self.account_for_line(entry, args);
        Ok(reply)
    }

    fn may_call(&mut self, args: &[Bytes]) -> Option<bool> {
        let entry = lookup(args)?;
        Some(self.stage.client.is_none_or(|client| client.may_run(entry.id, args)))
    }

    fn log(&mut self, level: u8, line: &[u8]) {
        if self.log.len() < LOG_LINES_MAX {
            let line = &line[..line.len().min(LOG_LINE_BYTES_MAX)];
            self.log.push((level, String::from_utf8_lossy(line).into_owned()));
        }
    }

    fn interrupted(&mut self) -> Option<Interrupt> {
        let is_lost = match self.stage.pace {
            Pace::Quick => {
                let (deadline, now) = (&self.stage.deadline, Instant::now());
                let until = deadline.get().unwrap_or(now + QUICK_TIME_MAX);
                deadline.set(Some(until));
                now > until
            }
            Pace::Slow(running, stops) => {
                if running.killed.load(Relaxed) {
                    self.killed = true;
                    return Some(Interrupt::Killed);
                }
                running.lost.load(Relaxed) || stops()
            }
        };
        if is_lost {
            self.view.defer();
            return Some(Interrupt::Suspended);
        }
        None
    }

    fn seed(&mut self) -> u64 {
        self.base.random()
    }
}

/// The row of a command line in a script.
///
/// *Errors*: the refusal, and the row if it is the arguments that are wrong.
fn find(args: &[Bytes]) -> Result<&'static Entry, (Option<&'static Entry>, CommandError)> {
    let entry = lookup(args).ok_or((None, CommandError::SCRIPT_UNKNOWN_COMMAND))?;
    if !entry.command.arity.accepts(args.len()) {
        return Err((Some(entry), CommandError::SCRIPT_ARITY));
    }
    // A client cannot send more either.
    if args.iter().any(|arg| arg.len() > VALUE_BYTES_MAX) {
        return Err((Some(entry), CommandError::StringTooLong));
    }
    Ok(entry)
}

fn lookup(args: &[Bytes]) -> Option<&'static Entry> {
    let entry = table::lookup(args.first()?)?;
    match (&entry.command.run, args.get(1)) {
        (Run::Group(_), Some(name)) => table::lookup_subcommand(entry, name),
        _ => Some(entry),
    }
}

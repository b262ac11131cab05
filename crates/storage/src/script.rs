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

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{
    Args, CommandError, Effects, Flags, Keys, Run, Script, Session, Txn, View, copy_options,
    key_positions, parse_int,
};
use scripts::{Flags as Said, Host, Interrupt, Vm};
use wire::ids::{TableId, Version};
use wire::placement::Placement;
use wire::resp::Reply;

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

/// Where a script runs, and what ends it before its time.
#[derive(Clone, Copy)]
pub(crate) enum Pace<'a> {
    /// Under the partition's lock, until then.
    Quick(Instant),
    /// Without it. The function tells whether the node stops.
    Slow(&'a Running, &'a dyn Fn() -> bool),
}

/// What a script is run with.
#[derive(Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) scripting: &'a Scripting,
    pub(crate) pace: Pace<'a>,
}

impl Stage<'_> {
    /// The stage of a script that begins now under its partition's lock.
    pub(crate) fn quick(scripting: &Scripting) -> Stage<'_> {
        Stage { scripting, pace: Pace::Quick(Instant::now() + QUICK_TIME_MAX) }
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
    VM.with_borrow_mut(|slot| {
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
        let reply = evaluate(vm, &mut runner, what, args)?;
        Ok((reply, runner.finish()))
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
    /// From the first write on.
    txn: Option<Txn<'a>>,
    written_bytes: usize,
    read_only: bool,
    table: TableId,
    calls: u32,
    killed: bool,
    log: Vec<(u8, String)>,
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
    fn finish(self) -> Option<Effects> {
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
        self.txn.filter(|_| !self.killed).map(Txn::into_effects)
    }

    fn call_command(&mut self, args: &[Bytes]) -> Result<Reply, CommandError> {
        let entry = find(args)?;
        let command = entry.command;
        if command.flags.has(Flags::NOSCRIPT) {
            return Err(CommandError::NOT_FROM_SCRIPT);
        }
        self.permit(entry, args)?;
        let writes = command.may_write() || command.flags.has(Flags::MAY_REPLICATE);
        if self.read_only && writes {
            return Err(CommandError::SCRIPT_READ_ONLY);
        }
        match command.run {
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
            Run::Session(what) => self.session(what, args),
            Run::Script(_) | Run::Group(_) => Err(CommandError::NOT_FROM_SCRIPT),
        }
    }

    /// Whether the script's user may run a command: the one place where a check of permissions belongs.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the place for a check")]
    fn permit(&self, _entry: &Entry, _args: &[Bytes]) -> Result<(), CommandError> {
        Ok(())
    }

    /// Refuses what lies outside the partition.
    fn check_reach(&self, entry: &Entry, args: &[Bytes]) -> Result<(), CommandError> {
        if self.table != self.base.table() || matches!(entry.command.keys, Keys::AllTables(_)) {
            return Err(CommandError::SCRIPT_OTHER_TABLE);
        }
        if entry.command.name == "COPY" {
            let tables = self.stage.scripting.limits().tables;
            if copy_options(Args(args), self.table, tables)?.table != self.table {
                return Err(CommandError::SCRIPT_OTHER_TABLE);
            }
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

    fn write(&mut self, entry: &Entry, args: &[Bytes]) -> Result<Reply, CommandError> {
        let (base, next_version) = (self.base, self.next_version);
        let txn = self.txn.get_or_insert_with(|| Txn::new(base, next_version));
        let (reply, effects) = transaction::run_write(txn, entry, args);
        if let Some(effects) = effects {
            self.written_bytes += effects_bytes(&effects);
            if self.written_bytes > EFFECTS_BYTES_MAX {
                return Err(CommandError::TooMuchToWrite(EFFECTS_BYTES_MAX));
            }
            txn.merge(effects);
        }
        Ok(reply)
    }

    /// Commands of a session that a script may use.
    fn session(&mut self, what: Session, args: &[Bytes]) -> Result<Reply, CommandError> {
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
                self.table = TableId(table.ok_or(CommandError::DB_OUT_OF_RANGE)?);
                Reply::OK
            }
            (Session::ObjectHelp, _) => commands::object_help(),
            _ => return Err(CommandError::NOT_FROM_SCRIPT),
        })
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
        let reply = self.call_command(args).unwrap_or_else(Reply::from);
        if self.view.is_cold() {
            return Err(Interrupt::Suspended);
        }
        Ok(reply)
    }

    fn may_call(&mut self, args: &[Bytes]) -> Option<bool> {
        let entry = lookup(args)?;
        Some(self.permit(entry, args).is_ok())
    }

    fn log(&mut self, level: u8, line: &[u8]) {
        if self.log.len() < LOG_LINES_MAX {
            self.log.push((level, String::from_utf8_lossy(line).into_owned()));
        }
    }

    fn interrupted(&mut self) -> Option<Interrupt> {
        let is_lost = match self.stage.pace {
            Pace::Quick(until) => Instant::now() > until,
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
fn find(args: &[Bytes]) -> Result<&'static Entry, CommandError> {
    let entry = lookup(args).ok_or(CommandError::SCRIPT_UNKNOWN_COMMAND)?;
    if entry.command.arity.accepts(args.len()) {
        Ok(entry)
    } else {
        Err(CommandError::SCRIPT_ARITY)
    }
}

fn lookup(args: &[Bytes]) -> Option<&'static Entry> {
    let entry = table::lookup(args.first()?)?;
    match (&entry.command.run, args.get(1)) {
        (Run::Group(_), Some(name)) => table::lookup_subcommand(entry, name),
        _ => Some(entry),
    }
}

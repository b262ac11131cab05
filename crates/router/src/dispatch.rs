//! From a command line to whoever runs it: the table, its checks in Redis's order, and the two ways a
//! command is run: at once, which nearly all are, or slowly, when it has to wait for something.

use std::sync::Arc;

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{CommandError, Echo, Flags, Gather, Keys, Run, Script, Session as Command};
use smallvec::SmallVec;
use wire::ids::TableId;
use wire::resp::{Arguments, Reply};
use wire::service::{BusyScript, ScriptClient, ScriptControl, ScriptName, Waiting};

use crate::cache::Target;
use crate::clients::Client;
use crate::connection::{Closed, Connection, Done};
use crate::gather;
use crate::route::{Answered, Attempt, Obstacle, Routed, positions_or_none};
use crate::run;
use crate::run::transaction::{Exec, Looking};
use crate::users::Context;

/// Most bytes of an unknown command's name, and of its arguments, that its error repeats.
const ECHO_BYTES_MAX: usize = 128;

/// Whether a command is done.
pub(crate) enum Progress {
    /// Its reply is queued.
    Finished,
    /// It has to wait; [`Connection::run_slowly`] goes on with it.
    Waits(Slow),
}

impl Slow {
    /// A command whose partition did not answer at once.
    pub(crate) fn blocked(entry: &'static Entry, obstacle: Obstacle) -> Slow {
        Slow { entry, why: Why::Blocked(obstacle) }
    }

    /// Whether the wait may be long: the command line is then to be kept in memory of its own.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self.why, Why::Paused | Why::Data(..) | Why::Migrate)
    }
}

/// A command that has to wait, and for what.
pub(crate) struct Slow {
    entry: &'static Entry,
    why: Why,
}

enum Why {
    /// CLIENT PAUSE holds it back.
    Paused,
    /// Its partition did not answer at once.
    Blocked(Obstacle),
    /// There is nothing for it yet.
    Data(Box<Waiting>, Target),
    /// It asks more than one partition.
    Gather(Gather, Tables),
    /// COPY or MOVE to another table.
    CopyAcross,
    /// MIGRATE.
    Migrate,
    /// SWAPDB.
    Swapdb,
    /// WAIT or WAITAOF.
    Wait,
    /// FUNCTION LOAD and its kin.
    Functions,
    /// ADMIN REPLICA and ADMIN TRANSFER.
    Order,
    /// CLUSTER COUNTKEYSINSLOT or GETKEYSINSLOT.
    KeysInSlot,
    /// DEBUG.
    Debug,
    /// PUBLISH or SPUBLISH, and who is to be heard first.
    Unheard(Vec<(Arc<Client>, u64)>),
    /// WATCH, and what is in its way.
    Watch(Box<Looking>),
    /// EXEC, and what is in its way.
    Exec(Box<Exec>, Option<Obstacle>),
}

impl Why {
    /// Whether it is hardly ever in the way for long.
    fn is_soon(&self) -> bool {
        match self {
            Why::Blocked(obstacle) | Why::Exec(_, Some(obstacle)) => obstacle.is_short(),
            Why::Watch(looking) => looking.is_short(),
            Why::Unheard(_) => true,
            // Between its reads and its reply nothing that was pushed may leave.
            Why::Exec(exec, None) => exec.is_done(),
            _ => false,
        }
    }
}

/// Which tables a whole-table command is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tables {
    /// The selected one.
    Selected,
    /// All.
    All,
}

/// What became of finding the row.
enum Found {
    Row(&'static Entry),
    Refused(Option<&'static Entry>, CommandError),
    /// Another protocol: HTTP, most likely sent by a browser that was tricked into it.
    Foreign,
}

impl Connection {
    /// Runs a command, if it can be done without waiting.
    pub(crate) fn run_command(&mut self, args: &Arguments) -> Progress {
        let entry = match find(args) {
            Found::Row(entry) => entry,
            Found::Refused(entry, error) => {
                self.session.client.runs(entry.map(|entry| entry.id));
                self.reject(entry, error);
                return Progress::Finished;
            }
            Found::Foreign => {
                tracing::warn!(conn = self.session.client.id, "closed: it speaks HTTP");
                self.hang_up();
                return Progress::Finished;
            }
        };
        self.session.client.runs(Some(entry.id));
        if !self.session.authenticated
            && !entry.command.flags.has(Flags::NO_AUTH)
            && !self.is_welcome()
        {
            self.reject(Some(entry), CommandError::NOAUTH);
            return Progress::Finished;
        }
        if self.session.multi.is_some() && entry.command.flags.has(Flags::NO_MULTI) {
            self.reject(Some(entry), CommandError::NOT_IN_MULTI);
            return Progress::Finished;
        }
        let context = if self.session.multi.is_some() { Context::Multi } else { Context::Toplevel };
        if let Err(refusal) = self.check_rules(entry, args, context) {
            self.reject(Some(entry), refusal);
            return Progress::Finished;
        }
        if let Some(refusal) = self.refuse_unfit(entry) {
            self.reject(Some(entry), refusal);
            return Progress::Finished;
        }
        if let Some(refusal) = self.refuse_busy(entry) {
            self.reject(Some(entry), refusal);
            return Progress::Finished;
        }
        if self.is_held_back(entry, args) {
            return Progress::Waits(Slow { entry, why: Why::Paused });
        }
        self.run_entry(entry, args)
    }

    /// Why a connection that subscribes or monitors may not run a command, if it may not.
    fn refuse_unfit(&self, entry: &Entry) -> Option<CommandError> {
        use Command::{
            Ping, Psubscribe, Punsubscribe, Quit, Reset, Ssubscribe, Subscribe, Sunsubscribe,
            Unsubscribe,
        };
        let fits = matches!(
            entry.command.run,
            Run::Session(
                Ping | Quit
                    | Reset
                    | Subscribe
                    | Unsubscribe
                    | Psubscribe
                    | Punsubscribe
                    | Ssubscribe
                    | Sunsubscribe
            )
        );
        if self.session.is_subscriber() && !fits {
            return Some(CommandError::Subscribed(entry.full_name()));
        }
        let touches_keys = [Flags::WRITE, Flags::READONLY, Flags::MAY_REPLICATE]
            .iter()
            .any(|flag| entry.command.flags.has(*flag));
        (self.session.monitoring.is_some() && touches_keys).then_some(CommandError::MONITORS)
    }

    /// Why a command has to wait for the script that keeps the selected database busy, if it has to. A
    /// data command by itself is told so by its partition.
    fn refuse_busy(&self, entry: &Entry) -> Option<CommandError> {
        let is_told_later = match entry.command.run {
            // It leaves the database, as who connects does for another one.
            Run::Session(Command::Select) => true,
            Run::Session(_) | Run::Group(_) => false,
            Run::Script(what) if what.is_about_functions() => false,
            _ => self.session.multi.is_none(),
        };
        if is_told_later || entry.command.flags.has(Flags::ALLOW_BUSY) {
            return None;
        }
        let busy = self.shared.storage.busy_scripts();
        if busy.is_empty() {
            return None;
        }
        let selected = self.shared.hub().databases.table(self.session.table);
        let (_, what) = busy.into_iter().find(|(table, _)| *table == selected)?;
        Some(match what {
            BusyScript::Script => CommandError::BUSY_SCRIPT,
            BusyScript::Function => CommandError::BUSY_FUNCTION,
        })
    }

    /// Runs a command whose row is found and allowed.
    fn run_entry(&mut self, entry: &'static Entry, args: &Arguments) -> Progress {
        let waits = |why| Progress::Waits(Slow { entry, why });
        if self.session.queues(entry) {
            self.queue(entry, args);
            return Progress::Finished;
        }
        match (&entry.command.run, entry.command.keys) {
            (Run::Session(Command::Wait | Command::Waitaof), _) => waits(Why::Wait),
            (Run::Session(Command::AdminReplica | Command::AdminTransfer), _) => waits(Why::Order),
            (Run::Session(Command::Debug), _) => waits(Why::Debug),
            (Run::Session(Command::Migrate), _) => waits(Why::Migrate),
            (Run::Session(Command::Swapdb), _) => waits(Why::Swapdb),
            (Run::Session(Command::ClusterCountkeysinslot | Command::ClusterGetkeysinslot), _) => {
                waits(Why::KeysInSlot)
            }
            (Run::Session(Command::Watch), _) => match self.watch_now(entry, args) {
                Ok(done) => {
                    self.finish(entry, args, done);
                    Progress::Finished
                }
                Err(looking) => waits(Why::Watch(looking)),
            },
            (Run::Session(Command::Exec), _) => match self.exec_now(entry) {
                Ok(done) => {
                    self.finish(entry, args, done);
                    Progress::Finished
                }
                Err((exec, obstacle)) => waits(Why::Exec(exec, obstacle)),
            },
            (Run::Session(what @ (Command::Publish | Command::Spublish)), _) => {
                let unheard = run::pubsub::unheard(self, *what, args);
                if !unheard.is_empty() {
                    return waits(Why::Unheard(unheard));
                }
                self.run_here(entry, *what, args)
            }
            (Run::Session(what), _) => self.run_here(entry, *what, args),
            // COMMAND alone; a group without its subcommand is not let through otherwise.
            (Run::Group(_), _) => {
                let reply = run::command::all();
                self.finish(entry, args, Done::from(reply));
                Progress::Finished
            }
            (Run::Script(what), _) if what.is_about_functions() => waits(Why::Functions),
            (_, Keys::Table(gather)) => waits(Why::Gather(gather, Tables::Selected)),
            (_, Keys::AllTables(gather)) => waits(Why::Gather(gather, Tables::All)),
            _ => {
                match run::copy::is_across(entry, args, self.session.table, self.shared.databases())
                {
                    Ok(false) => self.run_routed(entry, args),
                    Ok(true) => waits(Why::CopyAcross),
                    Err(error) => {
                        self.finish(entry, args, Done::from(Reply::from(error)));
                        Progress::Finished
                    }
                }
            }
        }
    }

    /// Runs a command of the router.
    fn run_here(&mut self, entry: &'static Entry, what: Command, args: &Arguments) -> Progress {
        self.settle_pushes(what);
        let reply = run::run(what, self, args).unwrap_or_else(Into::into);
        use Command::{Punsubscribe, Sunsubscribe, Unsubscribe};
        if matches!(what, Unsubscribe | Punsubscribe | Sunsubscribe) {
            // What was published until now is told before the end of the subscription. (In a
            // transaction, what it has published itself comes behind it.)
            self.put_messages();
        }
        self.finish(entry, args, Done::from(reply));
        Progress::Finished
    }

    /// What was pushed before a command that changes what can be pushed stands before its reply, in the
    /// protocol of then; in a transaction the whole of it is behind, as its reads are.
    fn settle_pushes(&mut self, what: Command) {
        match what {
            Command::Reset => self.session.end_pushes(),
            Command::Hello => {}
            _ => return,
        }
        self.put_pushes();
    }

    fn run_routed(&mut self, entry: &'static Entry, args: &Arguments) -> Progress {
        let client = self.script_client(entry);
        let routed = match routed_or_waiting(entry, self.session.table, args, client) {
            Ok(routed) => routed,
            Err(error) => {
                self.reject(Some(entry), error);
                return Progress::Finished;
            }
        };
        if !self.gated.is_empty()
            && self.caller.target(&routed).is_some_and(|target| self.waits_elsewhere(&target))
        {
            return Progress::Waits(Slow { entry, why: Why::Blocked(Obstacle::Moved) });
        }
        self.track(entry, args);
        match self.caller.call_now(&routed) {
            Attempt::Done(Answered { waits: Some(waiting), target, .. }) => {
                return Progress::Waits(Slow { entry, why: Why::Data(waiting, target) });
            }
            Attempt::Done(answered) => {
                let done = self.answered(entry, answered);
                self.finish(entry, args, done);
            }
            Attempt::Refused(error) => self.reject(Some(entry), error),
            Attempt::Blocked(why) => {
                return Progress::Waits(Slow { entry, why: Why::Blocked(why) });
            }
        }
        Progress::Finished
    }

    /// A command is about to change keys that `track` was not told of.
    fn changes_somewhere(&mut self, entry: &Entry) {
        if let Some(tracked) = &mut self.session.tracked
            && entry.command.may_write()
        {
            tracked.changes(std::iter::empty());
        }
    }

    /// Remembers the keys of a command that is about to read them, for whoever keeps them in a cache.
    /// Nothing that was pushed may leave between this and the command's reply: a command that goes on
    /// slowly is remembered anew.
    pub(crate) fn track(&mut self, entry: &Entry, args: &[Bytes]) {
        if let Some(tracked) = &mut self.session.tracked {
            // What a script reads is noted when it does (`script_client`), declared or not.
            let is_script = matches!(entry.command.run, Run::Script(_));
            let at = if is_script {
                SmallVec::new()
            } else {
                positions_or_none(entry, args).unwrap_or_default()
            };
            let keys = at.iter().map(|at| &args[*at]);
            if entry.command.may_write() {
                tracked.changes(keys.clone());
            }
            let table = self.shared.hub().databases.table(self.session.table);
            let is_read = entry.command.flags.has(Flags::READONLY);
            tracked.remember(table, keys.filter(|_| is_read));
        }
    }

    /// Takes a partition's answer: remembers writes for WAIT, counts hits and misses.
    pub(crate) fn answered(&mut self, entry: &'static Entry, answered: Answered) -> Done {
        let writes = entry.command.may_write();
        if let Some(gate) = answered.gate
            && writes
        {
            self.session.wrote(gate, answered.target.sure_replicas);
        }
        if !writes {
            self.caller.tally.count_lookup(&answered.reply);
        }
        // What would wait for data stands in line; made again it would not.
        let repeatable = entry.command.waits.is_none();
        Done { repeatable, ..Done::new(answered, writes) }
    }

    /// Whether CLIENT PAUSE holds a command back.
    pub(crate) fn is_held_back(&self, entry: &Entry, args: &[Bytes]) -> bool {
        let clients = &self.shared.clients;
        clients.holds_back(true) && clients.holds_back(self.may_write(entry, args))
    }

    /// Whether CLIENT PAUSE WRITE holds a command back.
    fn may_write(&self, entry: &Entry, args: &[Bytes]) -> bool {
        match (&entry.command.run, &self.session.multi) {
            (Run::Session(Command::Exec), Some(multi)) => {
                multi.any(|entry, args| self.command_may_write(entry, args))
            }
            _ => self.command_may_write(entry, args),
        }
    }

    /// The same of a command by itself: not if it is a script that says it does not write.
    fn command_may_write(&self, entry: &Entry, args: &[Bytes]) -> bool {
        let flags = entry.command.flags;
        let name = match entry.command.run {
            Run::Script(Script::Eval) => ScriptName::Text(&args[1]),
            Run::Script(Script::EvalSha) => ScriptName::Sha(&args[1]),
            Run::Script(Script::Fcall) => ScriptName::Function(&args[1]),
            _ => return flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE),
        };
        self.shared.storage.scripts(ScriptControl::IsReadOnly(name)) != Reply::Integer(1)
    }

    /// Runs a command that has to wait. On the heap, so that connections that never wait are small.
    pub(crate) async fn run_slowly(&mut self, args: &Arguments, slow: Slow) -> Result<(), Closed> {
        let client = self.session.client.clone();
        let work = Box::pin(self.run_slowly_inner(args, slow));
        tokio::select! {
            biased;
            done = work => done,
            () = client.killed() => Err(Closed),
        }
    }

    async fn run_slowly_inner(&mut self, args: &Arguments, slow: Slow) -> Result<(), Closed> {
        let Slow { entry, mut why } = slow;
        // Replies before this one need not wait with it. (A missing route is had too soon to tell.)
        if !why.is_soon() || matches!(entry.command.run, Run::Script(_)) {
            self.flush().await?;
        }
        self.clock = std::time::Instant::now();
        if matches!(why, Why::Paused) {
            match self.run_when_unpaused(entry, args).await {
                Progress::Finished => return Ok(()),
                Progress::Waits(next) => why = next.why,
            }
        }
        let table = self.session.table;
        let done = match why {
            Why::Paused => unreachable!("a command is held back before it is run, not after"),
            Why::Wait => {
                self.flush().await?;
                let done = match entry.command.run {
                    Run::Session(Command::Waitaof) => run::wait::aof(self, args).await,
                    _ => run::wait::run(self, args).await,
                };
                done?.map(Done::from)
            }
            Why::Migrate => {
                self.changes_somewhere(entry);
                run::migrate::run(&mut self.caller, entry, table, args).await
            }
            Why::Swapdb => run::swapdb(&self.shared, args).await.map(Done::from),
            Why::Order => run::admin::order(self, args).await.map(Done::from),
            Why::KeysInSlot => {
                run::cluster::keys_in_slot(&mut self.caller, entry, table, args).await
            }
            Why::Debug => run::debug::run(self, args).await,
            Why::Unheard(unheard) => {
                run::pubsub::hear(&self.session.client, &unheard).await;
                let Run::Session(what) = entry.command.run else {
                    unreachable!("a command of the router publishes")
                };
                run::run(what, self, args).map(Done::from)
            }
            Why::Gather(gather, tables) => {
                self.changes_somewhere(entry);
                gather::run(&mut self.caller, entry, gather, (tables, table), args).await
            }
            Why::Watch(looking) => self.watch_slowly(entry, args, looking).await,
            Why::Exec(exec, obstacle) => self.exec_slowly(entry, exec, obstacle).await,
            Why::Functions => self.run_functions(entry, args).await,
            Why::CopyAcross => {
                self.changes_somewhere(entry);
                run::copy::run(&mut self.caller, entry, table, args).await
            }
            Why::Data(waiting, target) => {
                return self.wait_for_data(entry, args, (waiting, target)).await;
            }
            Why::Blocked(obstacle) => match self.go_on(entry, args, obstacle).await? {
                Some(done) => done,
                None => return Ok(()),
            },
        };
        let done = done.unwrap_or_else(|error| Done::from(Reply::from(error)));
        self.finish(entry, args, done);
        Ok(())
    }

    /// Runs a command that a pause holds back. All that was checked of it is checked again: the rules may
    /// be others since.
    async fn run_when_unpaused(&mut self, entry: &'static Entry, args: &Arguments) -> Progress {
        loop {
            let may_write = self.may_write(entry, args);
            let client = self.session.client.clone();
            let held = client.hold();
            self.shared.clone().clients.unpaused(may_write).await;
            drop(held);
            self.clock = std::time::Instant::now();
            match self.run_command(args) {
                // Another pause was faster.
                Progress::Waits(Slow { why: Why::Paused, .. }) => {}
                progress => return progress,
            }
        }
    }

    /// Goes on with a call that met an obstacle; `None` if it has been answered.
    async fn go_on(
        &mut self,
        entry: &'static Entry,
        args: &Arguments,
        obstacle: Obstacle,
    ) -> Result<Option<Result<Done, CommandError>>, Closed> {
        self.track(entry, args);
        let client = self.script_client(entry);
        let answered = match routed_or_waiting(entry, self.session.table, args, client) {
            Ok(routed) => self.caller.call_until(&routed, obstacle).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(Answered { waits: Some(waiting), target, .. }) => {
                self.wait_for_data(entry, args, (waiting, target)).await?;
                Ok(None)
            }
            answered => Ok(Some(answered.map(|answered| self.answered(entry, answered)))),
        }
    }
}

/// A call of a command that the connection waits with, if that is how it is.
fn routed_or_waiting<'a>(
    entry: &'static Entry,
    table: TableId,
    args: &'a [Bytes],
    client: Option<Arc<dyn ScriptClient>>,
) -> Result<Routed<'a>, CommandError> {
    let mut routed = Routed::by_keys(entry, table, args)?;
    routed.waiting_since = entry.command.waits.map(|_| tokio::time::Instant::now());
    routed.client = client;
    Ok(routed)
}

/// The row of a command line that has as many arguments as it should.
fn find(args: &[Bytes]) -> Found {
    let Some(entry) = table::lookup(&args[0]) else {
        let name = &args[0];
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            return Found::Foreign;
        }
        return Found::Refused(None, unknown_command(args));
    };
    let entry = match (&entry.command.run, args.get(1)) {
        (Run::Group(_), Some(name)) => match table::lookup_subcommand(entry, name) {
            Some(subcommand) => subcommand,
            None => return Found::Refused(None, unknown_subcommand(entry, name)),
        },
        _ => entry,
    };
    if entry.command.arity.accepts(args.len()) {
        Found::Row(entry)
    } else {
        Found::Refused(Some(entry), CommandError::Arity(entry.full_name().into()))
    }
}

/// The row of a command line inside another (COMMAND GETKEYS).
pub(crate) fn find_row(args: &[Bytes]) -> Result<&'static Entry, CommandError> {
    match find(args) {
        Found::Row(entry) => Ok(entry),
        Found::Refused(Some(_), _) => Err(CommandError::COMMAND_ARITY),
        Found::Refused(None, _) | Found::Foreign => Err(CommandError::COMMAND_UNKNOWN),
    }
}

fn unknown_command(args: &[Bytes]) -> CommandError {
    let mut echoed = Vec::new();
    for arg in &args[1..] {
        let Some(left) = ECHO_BYTES_MAX.checked_sub(echoed.len()).filter(|left| *left > 0) else {
            break;
        };
        // Up to a NUL, as Redis prints it.
        let bytes = arg.iter().take(left).take_while(|byte| **byte != 0);
        echoed.push(b'\'');
        echoed.extend(bytes);
        echoed.extend(b"' ");
    }
    CommandError::UnknownCommand(Echo::cut(&args[0], ECHO_BYTES_MAX), Echo::new(&echoed))
}

fn unknown_subcommand(group: &Entry, name: &[u8]) -> CommandError {
    CommandError::UnknownSubcommand(Echo::cut(name, ECHO_BYTES_MAX), group.command.name)
}

//! Calls of a pipeline to one partition, made together: the partition is found and locked once for
//! all of them. A command joins what is pending if nothing but its partition has a say in it; any
//! other waits until the pending calls are made, so replies and effects keep the pipeline's order.

use std::sync::Arc;
use std::time::Instant;

use commands::table::{self, Entry};
use commands::{Flags, Keys, Run};
use smallvec::SmallVec;
use wire::ids::TableId;
use wire::resp::Arguments;
use wire::service::{Call, Evaluated, Request, RequestId, ScriptClient};

use crate::cache::Target;
use crate::connection::{Closed, Connection};
use crate::dispatch::Slow;
use crate::route::{Answered, Attempt, Obstacle, Routed, attempt};
use crate::run;

/// Calls made together at most: other connections wait for the partition meanwhile.
const CALLS_MAX: usize = 64;

/// The names of calls made together, if they write.
type Names = SmallVec<[Option<RequestId>; 16]>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Pending {
    /// All for the target.
    commands: Vec<(&'static Entry, Arguments)>,
    target: Option<(TableId, Target)>,
    /// What came of calls; kept for its memory.
    done: Vec<Evaluated>,
}

impl Connection {
    /// Adds a command to the pending ones. Gives it back if it must be run by itself, or after
    /// those are done.
    pub(crate) fn join_pending(&mut self, args: Arguments) -> Option<Arguments> {
        let Some(entry) = table::lookup(&args[0]).filter(|entry| self.may_join(entry, &args))
        else {
            return Some(args);
        };
        let table = self.session.table;
        let Ok(routed) = Routed::by_keys(entry, table, &args) else { return Some(args) };
        let target = self.caller.target(&routed);
        let is_callable = |target: &Target| target.leader.is_some() && routed.is_within(target);
        let Some(target) = target.filter(is_callable) else { return Some(args) };
        if !self.gated.is_empty() && self.waits_elsewhere(&target) {
            return Some(args);
        }
        match &self.pending.target {
            Some(known) if !is_same((table, &target), (known.0, &known.1)) => return Some(args),
            Some(_) if self.pending.commands.len() >= CALLS_MAX => return Some(args),
            Some(_) => {}
            None => self.pending.target = Some((table, target)),
        }
        self.caller.count_hit(target.range.table, &routed);
        self.session.client.runs(Some(entry.id));
        self.pending.commands.push((entry, args));
        None
    }

    /// Whether nothing but its partition has a say in a command.
    fn may_join(&mut self, entry: &'static Entry, args: &Arguments) -> bool {
        let is_data = match entry.command.run {
            Run::Read(_) | Run::Write(_) => true,
            Run::Script(what) => !what.is_about_functions(),
            Run::Session(_) | Run::Group(_) => false,
        };
        let is_routed = is_data
            && !matches!(entry.command.keys, Keys::Table(_) | Keys::AllTables(_))
            && entry.command.waits.is_none()
            && entry.command.arity.accepts(args.len());
        if is_routed
            && self.session.login.account.is_restricted()
            && !self.session.login.allows(entry, args)
        {
            // Refused, and logged, where it is run by itself.
            return false;
        }
        let session = &self.session;
        is_routed
            && (session.authenticated || entry.command.flags.has(Flags::NO_AUTH))
            && session.multi.is_none()
            && session.subscriptions.is_none()
            && session.monitoring.is_none()
            && session.tracked.is_none()
            && !self.is_held_back(entry, args)
            && run::copy::is_across(entry, args, session.table, self.shared.databases())
                == Ok(false)
    }

    /// Makes all pending calls.
    pub(crate) async fn finish_pending(&mut self) -> Result<(), Closed> {
        while !self.pending.commands.is_empty() {
            if let Err(obstacle) = self.call_pending() {
                // Those behind the one that is blocked wait with it.
                let (entry, args) = self.pending.commands.remove(0);
                self.run_slowly(&args, Slow::blocked(entry, obstacle)).await?;
            } else if !self.pending.commands.is_empty() {
                // Large replies leave before the next are made.
                self.flush().await?;
                self.clock = Instant::now();
            }
        }
        self.pending.target = None;
        Ok(())
    }

    /// Makes the pending calls, up to the first that is not done at once, or until replies are large.
    fn call_pending(&mut self) -> Result<(), Obstacle> {
        let (table, target) = self.pending.target.expect("whatever is pending has a target");
        let mut commands = std::mem::take(&mut self.pending.commands);
        let mut done = std::mem::take(&mut self.pending.done);
        let leader = target.leader.expect("only calls to leaders are pending");
        let origin = self.session.client.id;
        let client = commands.iter().find_map(|(entry, _)| self.script_client(entry));
        let client = client.as_ref();
        let databases = self.shared.hub().databases.read();
        if databases.known_table(table) != Some(target.range.table) {
            // The database is another table since.
            drop(databases);
            (self.pending.commands, self.pending.done) = (commands, done);
            return Err(Obstacle::NotYet);
        }
        let mut names: Names = SmallVec::new();
        for (entry, _) in &commands {
            names.push(entry.command.may_write().then(|| self.caller.next_request()));
        }
        let stopped = match &commands[..] {
            [] => None,
            [one] => self.shared.storage.call_all(
                leader,
                &[call(one, &target, (origin, names[0], client))],
                &mut done,
            ),
            all => {
                let calls = all.iter().zip(&names);
                let calls = calls.map(|(one, id)| call(one, &target, (origin, *id, client)));
                let calls: Vec<_> = calls.collect();
                self.shared.storage.call_all(leader, &calls, &mut done)
            }
        };
        drop(databases);
        // The answer that stopped them belongs to the next.
        let next = names.get(done.len()).copied().flatten();
        for (((entry, args), Evaluated { reply, gate, took }), request) in
            commands.drain(..done.len()).zip(done.drain(..)).zip(names)
        {
            let answered = Answered { request, ..Answered::done(reply, gate, target) };
            let answered = self.answered(entry, answered);
            self.finish_timed(entry, &args, answered, took);
        }
        self.clock = Instant::now();
        (self.pending.commands, self.pending.done) = (commands, done);
        let Some(answer) = stopped else { return Ok(()) };
        match attempt((answer, next), target) {
            Attempt::Blocked(obstacle) => Err(obstacle),
            Attempt::Done(_) | Attempt::Refused(_) => unreachable!("calls that are done go on"),
        }
    }
}

fn call<'a>(
    (entry, args): &'a (&'static Entry, Arguments),
    target: &Target,
    (origin, id, client): (u64, Option<RequestId>, Option<&'a Arc<dyn ScriptClient>>),
) -> Call<'a> {
    Call {
        command: entry.id,
        table: target.range.table,
        partition: target.partition,
        epoch: target.version.epoch,
        args,
        origin,
        request: id.map(|id| Request { id, again: None }),
        waiting_since: None,
        client,
    }
}

/// Whether calls to both may be made together.
fn is_same((table, target): (TableId, &Target), (known_table, known): (TableId, &Target)) -> bool {
    table == known_table
        && target.partition == known.partition
        && target.leader == known.leader
        && target.version == known.version
}

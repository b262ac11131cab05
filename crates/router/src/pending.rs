//! Calls of a pipeline to one partition, made together: the partition is found and locked once for
//! all of them. A command joins what is pending if nothing but its partition has a say in it; any
//! other waits until the pending calls are made, so replies and effects keep the pipeline's order.

use std::time::Instant;

use commands::table::{self, Entry};
use commands::{Flags, Keys, Run};
use wire::ids::TableId;
use wire::resp::Arguments;
use wire::service::Evaluated;

use crate::cache::Target;
use crate::connection::{Closed, Connection};
use crate::dispatch::{Progress, Slow};
use crate::joint::{CALLS_MAX, Calls, Pended, Stop};
use crate::route::{Answered, Attempt, Routed, attempt};
use crate::run;
use crate::run::transaction::copied;
use crate::session::ReplyMode;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Pending {
    /// All for the target.
    commands: Vec<Pended>,
    target: Option<(TableId, Target)>,
    /// What came of calls; kept for its memory.
    done: Vec<Evaluated>,
}

impl Pending {
    /// Bytes it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        let commands = self.commands.capacity() * size_of::<Pended>();
        commands + self.done.capacity() * size_of::<Evaluated>()
    }

    pub(crate) fn clear(&mut self) {
        self.commands.clear();
        self.done.clear();
        self.target = None;
    }
}

/// Whether a pipeline ends with what is pending.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// It goes on.
    More,
    /// Its replies are waited for next.
    Nothing,
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
            Some((known, to)) if *known != table || !to.is_same(&target) => return Some(args),
            Some(_) if self.pending.commands.len() >= CALLS_MAX => return Some(args),
            Some(_) => {}
            None => self.pending.target = Some((table, target)),
        }
        self.caller.count_hit(target.range.table, &routed);
        self.session.client.runs(Some(entry.id));
        let name = entry.command.may_write().then(|| self.caller.next_request());
        let placement = routed.placement;
        self.pending.commands.push(Pended { entry, args, placement, name });
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
    pub(crate) async fn finish_pending(&mut self, behind: Behind) -> Result<(), Closed> {
        while let Some((table, target)) = self.pending.target
            && !self.pending.commands.is_empty()
        {
            let stop = self.call_pending((table, target), behind).await?;
            if let Some(Stop::Paused) = stop {
                self.run_pending().await?;
            } else if let Some(Stop::Met(answer)) = stop {
                // Those behind the one that is stopped wait with it.
                let Pended { entry, args, name, .. } = self.pending.commands.remove(0);
                let Attempt::Blocked(obstacle) = attempt((answer, name), target) else {
                    unreachable!("calls that are done go on")
                };
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

    /// Runs what is pending one by one: it waited for others, and nothing that was checked need be so still.
    async fn run_pending(&mut self) -> Result<(), Closed> {
        for Pended { args, .. } in std::mem::take(&mut self.pending.commands) {
            if let Progress::Waits(slow) = self.run_command(&args) {
                let args = if slow.is_long() { copied(&args).into() } else { args };
                self.run_slowly(&args, slow).await?;
            }
        }
        Ok(())
    }

    /// Makes the pending calls, up to the first that is not done at once, or until replies are large.
    async fn call_pending(
        &mut self,
        (table, target): (TableId, Target),
        behind: Behind,
    ) -> Result<Option<Stop>, Closed> {
        let commands = std::mem::take(&mut self.pending.commands);
        let client = commands.iter().find_map(|one| self.script_client(one.entry));
        let mut calls = Box::new(Calls {
            commands,
            table,
            target,
            origin: self.session.client.id,
            client,
            done: std::mem::take(&mut self.pending.done),
            stopped: None,
            settled: None,
        });
        // Whoever monitors sees commands in the order in which they were made, and who gets no replies waits
        // for nothing.
        let may_wait = behind == Behind::Nothing
            && self.session.reply_mode == ReplyMode::On
            && !self.shared.hub().monitors.any();
        if may_wait && let Some(key) = calls.key() {
            let (client, since) = (&self.session.client, tokio::time::Instant::now());
            calls = tokio::select! {
                biased;
                calls = self.shared.joint.make(&self.shared, (client, key), calls) => {
                    calls.ok_or(Closed)?
                }
                () = client.killed() => return Err(Closed),
            };
            if calls.settled.is_some() {
                self.note_wait(since);
            }
        } else {
            calls.make(&self.shared);
        }
        Ok(self.finish_calls(calls))
    }

    /// Ends the calls that were done. Those behind them are pending again, the first of them for a reason.
    fn finish_calls(&mut self, calls: Box<Calls>) -> Option<Stop> {
        let Calls { mut commands, target, mut done, stopped, settled, .. } = *calls;
        self.settled = settled;
        let made = commands.drain(..done.len());
        for (Pended { entry, args, name, .. }, Evaluated { reply, gate, took }) in
            made.zip(done.drain(..))
        {
            let answered = Answered { request: name, ..Answered::done(reply, gate, target) };
            let answered = self.answered(entry, answered);
            self.finish_timed(entry, &args, answered, took);
        }
        self.clock = Instant::now();
        (self.pending.commands, self.pending.done) = (commands, done);
        stopped
    }
}

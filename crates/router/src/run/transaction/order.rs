//! The order of a transaction's commands where the router's own and those of the partition see each other:
//! scripts that are made known and called, reads and whether they are tracked; and what may be done only
//! once the partition's part is sure to have happened.

use std::time::Duration;

use commands::table::Entry;
use commands::{CommandError, Flags, Run, Session as Command};
use wire::resp::Reply;
use wire::service::GateOutcome;

use super::{Exec, Outcome, Step};
use crate::connection::Connection;

/// What commands of the partition notice of a command of the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Noticed {
    /// Scripts do.
    ByScripts,
    /// Reads do.
    ByReads,
}

impl Noticed {
    fn of(what: Command) -> Option<Noticed> {
        match what {
            Command::ScriptLoad | Command::ScriptFlush => Some(Noticed::ByScripts),
            Command::ClientTracking | Command::ClientCaching => Some(Noticed::ByReads),
            _ => None,
        }
    }

    fn is_by(self, entry: &Entry) -> bool {
        let is_script = matches!(entry.command.run, Run::Script(_));
        is_script || (self == Noticed::ByReads && entry.command.flags.has(Flags::READONLY))
    }
}

/// Whether somebody else, or a later command, sees that a command of the router has run.
fn acts(entry: &Entry) -> bool {
    use Command::{
        ClientGetname, ClientId, ClientInfo, ClientList, ConfigGet, Echo, Info, Ping, Time, Wait,
        Waitaof,
    };
    !matches!(
        entry.command.run,
        Run::Session(
            Ping | Echo
                | Time
                | Info
                | ConfigGet
                | ClientId
                | ClientGetname
                | ClientInfo
                | ClientList
                | Wait
                | Waitaof
        )
    )
}

impl Exec {
    /// Marks the commands of the router that have to run before the partition's part.
    ///
    /// *Errors*: one would have to run in the middle of it, or before it is known whether watched keys
    /// have changed.
    pub(super) fn find_early(&mut self) -> Result<(), CommandError> {
        for at in 0..self.queue.len() {
            let Run::Session(what) = self.queue[at].entry.command.run else { continue };
            let Some(noticed) =
                Noticed::of(what).filter(|_| matches!(self.steps[at], Step::Router))
            else {
                continue;
            };
            let is_noticed_in = |range: std::ops::Range<usize>| {
                let mut steps = self.queue[range.clone()].iter().zip(&self.steps[range]);
                steps.any(|(queued, step)| Exec::is_data(step) && noticed.is_by(queued.entry))
            };
            let (before, behind) = (is_noticed_in(0..at), is_noticed_in(at + 1..self.queue.len()));
            // That a script is known does no harm if nothing calls it.
            let may_be_early = !before && (self.watched.is_empty() || what == Command::ScriptLoad);
            match (behind, may_be_early) {
                (false, _) => {}
                (true, true) => self.steps[at] = Step::Early,
                (true, false) => return Err(CommandError::EXEC_ORDER),
            }
        }
        Ok(())
    }

    /// Whether a command of the router may run only when these replies are sure to leave.
    pub(super) fn waits_for(&self, outcome: &Outcome) -> bool {
        let mut steps = self.queue.iter().zip(&self.steps);
        !outcome.gates.is_empty()
            && matches!(outcome.reply, Reply::Array(_))
            && steps.any(|(queued, step)| matches!(step, Step::Router) && acts(queued.entry))
    }

    /// Whether the partition's part is done.
    pub(crate) fn is_done(&self) -> bool {
        self.done.is_some()
    }
}

impl Connection {
    /// Runs what has to run before the partition's part.
    pub(super) fn run_early(&mut self, exec: &mut Exec) {
        for (queued, step) in exec.queue.iter().zip(&mut exec.steps) {
            if matches!(step, Step::Early) {
                *step = Step::Ran(self.run_routers(queued.entry, &queued.args));
            }
        }
    }

    /// Waits until what a transaction did is durable, if a command of the router depends on it.
    pub(super) async fn settle_exec(
        &mut self,
        exec: &Exec,
        (mut outcome, took): (Outcome, Duration),
    ) -> Result<(Outcome, Duration), CommandError> {
        if exec.waits_for(&outcome) {
            for gate in std::mem::take(&mut outcome.gates) {
                match self.caller.outcome(gate).await {
                    GateOutcome::Durable => {}
                    GateOutcome::Unknown => {
                        self.caller.tally.gates_unknown += 1;
                        let uncertain = exec.writes;
                        return Err(if uncertain {
                            CommandError::UNCERTAIN
                        } else {
                            CommandError::NOT_EXECUTED
                        });
                    }
                    GateOutcome::Lost => {
                        self.caller.tally.gates_lost += 1;
                        return Err(CommandError::NOT_EXECUTED);
                    }
                }
            }
        }
        Ok((outcome, took))
    }
}

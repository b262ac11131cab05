//! Whom scripts are run for: a connection, as the leader that runs its script sees it.
//!
//! It holds the rules of the connection's user, compiled, as they are when the script is called: a
//! change of rules holds for the next script. Nothing here is the connection itself, so that a script
//! may run on any thread, and on after its connection has gone.

use std::sync::Arc;

use bytes::Bytes;
use commands::acl::User;
use commands::table::{self, Entry};
use commands::{CommandError, Flags, Run, Session as Command};
use wire::ids::{CommandId, TableId};
use wire::resp::Reply;
use wire::service::{ScriptAccount, ScriptClient};

use crate::Shared;
use crate::clients::Client;
use crate::connection::Connection;
use crate::monitors::Origin;
use crate::pubsub::Topic;
use crate::route::positions_or_none;
use crate::run::{self, Asker};
use crate::stats::Counters;
use crate::tracking::Tracker;
use crate::users::{Context, Denial, log_denial};

/// See the module's text.
pub(crate) struct ScriptUser {
    shared: Arc<Shared>,
    client: Arc<Client>,
    user: Arc<User>,
    /// Whether the rules forbid anything.
    is_restricted: bool,
    /// What is told of changes, if the connection caches.
    tracker: Option<Arc<Tracker>>,
}

impl std::fmt::Debug for ScriptUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptUser").field("client", &self.client.id).finish_non_exhaustive()
    }
}

impl ScriptClient for ScriptUser {
    fn check(&self, command: CommandId, args: &[Bytes]) -> Result<(), Reply> {
        if !self.is_restricted {
            return Ok(());
        }
        let entry = table::entry(command);
        self.user
            .check(entry, args)
            .map_err(|denied| Reply::from(denied.to_error_of_script(self.user.name(), entry)))?;
        self.user.check_sort(entry, args).map_err(Reply::from)
    }

    fn may_run(&self, command: CommandId, args: &[Bytes]) -> bool {
        !self.is_restricted || self.user.check(table::entry(command), args).is_ok()
    }

    fn reads(&self, command: CommandId, args: &[Bytes]) {
        let Some(tracker) = &self.tracker else { return };
        let entry = table::entry(command);
        if tracker.remembers() && entry.command.flags.has(Flags::READONLY) {
            let at = positions_or_none(entry, args).unwrap_or_default();
            let tracking = &self.shared.hub().tracking;
            at.iter().for_each(|at| tracking.register(&args[*at], self.client.id));
        }
    }

    fn asks_nodes(&self, command: CommandId) -> bool {
        match table::entry(command).command.run {
            // It may take as long as it likes.
            Run::Session(Command::Debug) => true,
            Run::Session(what) => run::asks_nodes(what),
            _ => false,
        }
    }

    fn answer(&self, command: CommandId, args: &[Bytes]) -> Reply {
        let asker = Asker { shared: &self.shared, client: &self.client };
        let answer = match table::entry(command).command.run {
            Run::Session(Command::Swapdb) => Some(Err(CommandError::SCRIPT_OTHER_TABLE)),
            Run::Session(Command::Debug) => Some(run::debug::in_script(asker, args)),
            Run::Session(Command::Wait) => Some(run::wait::in_script(args)),
            Run::Session(Command::Waitaof) => Some(run::wait::aof_in_script(args)),
            Run::Session(what) => run::answer(what, asker, args),
            Run::Group(_) => Some(Ok(run::command::all())),
            _ => None,
        };
        answer.unwrap_or(Err(CommandError::NOT_FROM_SCRIPT)).unwrap_or_else(Reply::from)
    }

    fn table(&self, database: TableId) -> TableId {
        self.shared.hub().databases.table(database)
    }

    fn receivers(&self, sharded: bool, channel: &[u8]) -> usize {
        self.shared.hub().pubsub.receivers(Topic::of_message(sharded), channel)
    }

    fn is_watched(&self) -> bool {
        self.shared.hub().monitors.any()
    }

    fn done(&self, account: &ScriptAccount) {
        let stats = &self.shared.stats;
        for count in &account.counts {
            stats.count_of_script(count, self.shared.tracks_latency());
        }
        account.errors.iter().for_each(|line| stats.error(line));
        let errors = account.errors.len() as u64;
        stats.add(&mut Counters { errors, ..Counters::default() });
        for (command, args) in &account.denied {
            let entry = table::entry(*command);
            if let Err(denied) = self.user.check(entry, args) {
                let (denial, object) = (Denial::Rules(denied.reason), denied.object(entry, args));
                let about = (denial, Context::Lua);
                log_denial(&self.shared, &self.client, about, &object, self.user.name());
            }
        }
        let monitors = &self.shared.hub().monitors;
        for (at, (table, command, args)) in account.lines.iter().enumerate() {
            let peer = (at == 0).then_some(self.client.peer);
            let table = self.shared.hub().databases.database(*table).0;
            let origin = Origin { at_us: self.shared.now_us(), table, peer };
            monitors.show_of_script(table::entry(*command), args, &origin);
        }
    }
}

impl Connection {
    /// Whom a script is run for; `None` if the command is none.
    pub(crate) fn script_client(&mut self, entry: &Entry) -> Option<Arc<dyn ScriptClient>> {
        if !matches!(entry.command.run, Run::Script(_)) {
            return None;
        }
        let user = self.session.login.rules();
        let tracker = self.session.tracked.as_ref().map(|tracked| &tracked.tracker);
        if let Some(known) = &self.session.script_client
            && Arc::ptr_eq(&known.user, &user)
            && known.tracker.as_ref().map(Arc::as_ptr) == tracker.map(Arc::as_ptr)
        {
            return Some(Arc::clone(known) as Arc<dyn ScriptClient>);
        }
        let client = Arc::new(ScriptUser {
            shared: Arc::clone(&self.shared),
            client: Arc::clone(&self.session.client),
            is_restricted: !user.is_unrestricted(),
            user,
            tracker: tracker.cloned(),
        });
        self.session.script_client = Some(Arc::clone(&client));
        Some(client)
    }
}

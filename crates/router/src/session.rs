//! A connection's state: what its commands change and later commands of it depend on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use wire::ids::TableId;
use wire::service::Gate;

use crate::clients::Client;
use crate::monitors::Monitoring;
use crate::pubsub::Subscriptions;
use crate::run::transaction::{Multi, WatchedTable};
use crate::script_client::ScriptUser;
use crate::tracking::Tracked;
use crate::users::Login;

/// What CLIENT REPLY said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum ReplyMode {
    #[default]
    On,
    Off,
    /// The command after the present one, CLIENT REPLY SKIP itself, is not answered.
    SkipAfterThis,
    /// The next command's reply is not sent.
    SkipNext,
}

/// The state of a connection that only it reads; what others see is in [`Client`].
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    pub(crate) table: TableId,
    /// 2 or 3.
    pub(crate) protocol: u8,
    /// Who it is logged in as: `default` until it says otherwise.
    pub(crate) login: Login,
    /// Whether it may say more than the handshake.
    pub(crate) authenticated: bool,
    pub(crate) reply_mode: ReplyMode,
    /// The connection is closed once its replies are written.
    pub(crate) closing: bool,
    /// The newest write to each partition and the replicas sure to hold it, for WAIT. Small: an
    /// element per partition written to.
    pub(crate) written: Vec<(Gate, usize)>,
    /// What was queued since MULTI; `None` outside a transaction.
    pub(crate) multi: Option<Box<Multi>>,
    /// What WATCH saw, by table.
    pub(crate) watched: Vec<WatchedTable>,
    /// What it subscribes to; `None`: nothing.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Set while it is shown all commands.
    pub(crate) monitoring: Option<Box<Monitoring>>,
    /// Set while it is told of keys that change.
    pub(crate) tracked: Option<Box<Tracked>>,
    /// Whom its scripts are run for, as long as neither the rules nor what it caches change.
    pub(crate) script_client: Option<Arc<ScriptUser>>,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>, login: Login, authenticated: bool) -> Session {
        client.set_authenticated(authenticated);
        Session {
            client,
            table: TableId(0),
            protocol: 2,
            login,
            authenticated,
            reply_mode: ReplyMode::On,
            closing: false,
            written: Vec::new(),
            multi: None,
            watched: Vec::new(),
            subscriptions: None,
            monitoring: None,
            tracked: None,
            script_client: None,
        }
    }

    pub(crate) fn select(&mut self, table: TableId) {
        self.table = table;
        self.client.table.store(table.0, Relaxed);
    }

    pub(crate) fn set_protocol(&mut self, version: u8) {
        self.protocol = version;
        self.client.protocol.store(version, Relaxed);
    }

    pub(crate) fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
        self.client.set_authenticated(authenticated);
    }

    /// Remembers a write for WAIT.
    pub(crate) fn wrote(&mut self, gate: Gate, sure_replicas: usize) {
        match self.written.iter_mut().find(|(known, _)| known.partition == gate.partition) {
            Some(newest) => *newest = (gate, sure_replicas),
            None => self.written.push((gate, sure_replicas)),
        }
    }

    /// Whether only few commands may be given to it: it subscribes, and in RESP2 no reply could be
    /// told from a message.
    pub(crate) fn is_subscriber(&self) -> bool {
        self.subscriptions.is_some() && self.protocol == 2
    }

    /// From now on the connection is this user's.
    pub(crate) fn log_in(&mut self, login: Login, authenticated: bool) {
        self.client.set_account(login.account.clone());
        self.login = login;
        self.set_authenticated(authenticated);
    }

    /// From now on nothing is pushed to it that it has asked for.
    pub(crate) fn end_pushes(&mut self) {
        self.subscriptions = None;
        self.monitoring = None;
        self.tracked = None;
    }

    /// RESET: as a new connection, but for its number.
    pub(crate) fn reset(&mut self, login: Login, authenticated: bool) {
        self.discard();
        self.end_pushes();
        self.select(TableId(0));
        self.set_protocol(2);
        self.log_in(login, authenticated);
        // A SKIP before it still takes this command's own reply, as in Redis.
        if self.reply_mode != ReplyMode::SkipNext {
            self.reply_mode = ReplyMode::On;
        }
        self.client.no_evict.store(false, Relaxed);
        self.client.no_touch.store(false, Relaxed);
        self.client.names.lock().name = bytes::Bytes::new();
    }
}

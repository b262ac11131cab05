//! Who may do what: the users, the connections logged in as them, and what was denied.
//!
//! A [`User`] is a value; its *account* is the place that holds the newest one. A connection keeps its
//! account and a copy of the user; before each command it reads one flag of the account, and if that
//! says that something is to be checked, a number that says whether the copy is still the newest. So
//! a change of rules holds for the next command of every connection, and users without restrictions,
//! `default` as a rule, pay for one load.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use bytes::Bytes;
use commands::CommandError;
use commands::acl::{Defaults, Denied, Reason, User, write_file};
use commands::table::Entry;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::Shared;
use crate::clients::{Client, Clients};

/// Denials that are alike count as one entry of ACL LOG if no more than this lies between them.
const GROUPING_MS: u64 = 60_000;
/// Newest entries of ACL LOG among which one that is alike is looked for.
const GROUPING_ENTRIES: usize = 10;
/// Longest object or user name that ACL LOG keeps, in bytes: what is denied is sent by strangers.
const LOGGED_BYTES_MAX: usize = 1024;

/// The place of a user's newest rules.
#[derive(Debug)]
pub(crate) struct Account {
    name: Bytes,
    user: RwLock<Arc<User>>,
    version: AtomicU64,
    /// Whether anything has to be checked: all that most connections read of it.
    restricted: AtomicBool,
    changed: Notify,
}

impl Account {
    fn new(user: User) -> Arc<Account> {
        Arc::new(Account {
            name: user.name().clone(),
            restricted: AtomicBool::new(!user.is_unrestricted()),
            user: RwLock::new(Arc::new(user)),
            version: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &Bytes {
        &self.name
    }

    /// Whether commands have to be checked.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted.load(Relaxed)
    }

    /// The newest rules.
    pub(crate) fn user(&self) -> Arc<User> {
        self.user.read().clone()
    }

    /// Resolves at the next change of the rules after it was enabled.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn set(&self, user: User) {
        let mut place = self.user.write();
        // First: no command may be let through unchecked once SETUSER has been answered.
        self.restricted.store(!user.is_unrestricted(), SeqCst);
        *place = Arc::new(user);
        self.version.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
    }
}

/// Who a connection is logged in as, with the rules it has seen last.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) account: Arc<Account>,
    user: Arc<User>,
    version: u64,
}

impl Login {
    pub(crate) fn new(account: Arc<Account>) -> Login {
        // The version first: rules that come between are then read once more, never missed.
        let version = account.version.load(SeqCst);
        Login { user: account.user(), account, version }
    }

    /// The user, with its newest rules.
    pub(crate) fn user(&mut self) -> &User {
        if self.account.version.load(Relaxed) != self.version {
            *self = Login::new(self.account.clone());
        }
        &self.user
    }

    /// The same, to keep.
    pub(crate) fn rules(&mut self) -> Arc<User> {
        self.user();
        Arc::clone(&self.user)
    }
}

impl Login {
    /// Whether the rules let a command line run.
    pub(crate) fn allows(&mut self, entry: &Entry, args: &[Bytes]) -> bool {
        let user = self.user();
        user.check(entry, args).is_ok() && user.check_sort(entry, args).is_ok()
    }
}

/// What denied something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Denial {
    /// A command, for one of these reasons.
    Rules(Reason),
    /// A log-in.
    Auth,
}

/// Where something was denied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    Toplevel,
    Multi,
    Lua,
}

/// An entry of ACL LOG.
#[derive(Clone, Debug)]
pub(crate) struct LogEntry {
    pub(crate) id: u64,
    pub(crate) count: u64,
    pub(crate) denial: Denial,
    pub(crate) context: Context,
    /// The command, key or channel; what the password was given with, of a log-in.
    pub(crate) object: Bytes,
    pub(crate) user: Bytes,
    /// The connection, as CLIENT LIST tells it.
    pub(crate) client: String,
    pub(crate) created_ms: u64,
    pub(crate) updated_ms: u64,
}

/// A user whose rules have changed.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) before: Arc<User>,
    pub(crate) after: Arc<User>,
}

/// How often what was denied, since the start; for INFO.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    pub(crate) auth: AtomicU64,
    pub(crate) command: AtomicU64,
    pub(crate) key: AtomicU64,
    pub(crate) channel: AtomicU64,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Users {
    accounts: RwLock<BTreeMap<Bytes, Arc<Account>>>,
    default: Arc<Account>,
    log: Mutex<(u64, VecDeque<LogEntry>)>,
    pub(crate) denials: Denials,
}

impl Users {
    /// The default user, with this password if it is not empty.
    pub(crate) fn new(password: &str) -> Users {
        let user = User::default_user().with_only_password(password.as_bytes());
        let default = Account::new(user);
        let accounts = BTreeMap::from([(default.name().clone(), default.clone())]);
        Users {
            accounts: RwLock::new(accounts),
            default,
            log: Mutex::default(),
            denials: Denials::default(),
        }
    }

    /// A new connection's log-in, and whether it has to authenticate itself first.
    pub(crate) fn welcome(&self) -> (Login, bool) {
        let login = Login::new(self.default.clone());
        let authenticated = login.user.needs_no_password() && login.user.is_enabled();
        (login, authenticated)
    }

    /// Whether connections need not authenticate themselves.
    pub(crate) fn is_open(&self) -> bool {
        let user = self.default.user();
        user.needs_no_password() && user.is_enabled()
    }

    /// Whether the default user can be logged in as with any password.
    pub(crate) fn default_needs_no_password(&self) -> bool {
        self.default.user().needs_no_password()
    }

    /// Sets the default user's only password, or none (`requirepass`).
    pub(crate) fn set_default_password(&self, password: &str) {
        let _changing = self.accounts.write();
        self.default.set(self.default.user().with_only_password(password.as_bytes()));
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.accounts.read().get(name).cloned()
    }

    /// The newest rules of all users, by name.
    pub(crate) fn all(&self) -> Vec<Arc<User>> {
        self.accounts.read().values().map(|account| account.user()).collect()
    }

    /// Logs in; `None` if the password is wrong or there is no such user to log in as.
    pub(crate) fn log_in(&self, name: &[u8], password: &[u8]) -> Option<Login> {
        let login = Login::new(self.get(name)?);
        login.user.accepts(password).then_some(login)
    }

    /// ACL SETUSER: makes a user or changes one. The user before and after, if it was there.
    ///
    /// *Errors*: a rule that is wrong; nothing has changed then.
    pub(crate) fn set(
        &self,
        name: &[u8],
        rules: &[Bytes],
        defaults: Defaults,
    ) -> Result<Option<Changed>, CommandError> {
        let mut accounts = self.accounts.write();
        if let Some(account) = accounts.get(name) {
            let before = account.user();
            account.set(before.with_rules(rules, defaults)?);
            return Ok(Some(Changed { before, after: account.user() }));
        }
        let user = User::new(name, defaults).with_rules(rules, defaults)?;
        accounts.insert(user.name().clone(), Account::new(user));
        Ok(None)
    }

    /// Removes a user; its account, if there was one. Connections that hold it may do nothing any more.
    pub(crate) fn remove(&self, name: &[u8]) -> Option<Arc<Account>> {
        let account = self.accounts.write().remove(name)?;
        account.set(User::new(name, Defaults::default()));
        Some(account)
    }

    /// Puts these users in the place of all. The default user stays as it is if it is not among them.
    /// The accounts of users who are gone, and the users before and after of those who stay.
    pub(crate) fn replace(&self, users: Vec<User>) -> (Vec<Arc<Account>>, Vec<Changed>) {
        let mut accounts = self.accounts.write();
        let mut old = std::mem::take(&mut *accounts);
        let mut changed = Vec::new();
        for user in users {
            let name = user.name().clone();
            let account = match old.remove(&name) {
                Some(account) => {
                    let before = account.user();
                    account.set(user);
                    changed.push(Changed { before, after: account.user() });
                    account
                }
                None => Account::new(user),
            };
            accounts.insert(name, account);
        }
        old.remove(self.default.name());
        accounts.entry(self.default.name().clone()).or_insert_with(|| self.default.clone());
        let gone: Vec<_> = old.into_values().collect();
        for account in &gone {
            account.set(User::new(account.name(), Defaults::default()));
        }
        (gone, changed)
    }

    /// The text of the ACL file.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        let users = self.all();
        write_file(users.iter().map(|user| &**user))
    }

    // --- What was denied

    /// Counts a denial and puts it into ACL LOG, which keeps so many entries.
    pub(crate) fn denied(&self, entry: LogEntry, length_max: usize) {
        let count = match entry.denial {
            Denial::Auth => &self.denials.auth,
            Denial::Rules(Reason::Command) => &self.denials.command,
            Denial::Rules(Reason::Key) => &self.denials.key,
            Denial::Rules(Reason::Channel) => &self.denials.channel,
        };
        count.fetch_add(1, Relaxed);
        let (next_id, log) = &mut *self.log.lock();
        let is_alike = |known: &LogEntry| {
            known.denial == entry.denial
                && known.context == entry.context
                && entry.updated_ms.abs_diff(known.updated_ms) <= GROUPING_MS
                && known.object == entry.object
                && known.user == entry.user
        };
        let alike = log.iter().take(GROUPING_ENTRIES).position(is_alike);
        if let Some(mut known) = alike.and_then(|at| log.remove(at)) {
            known.count += 1;
            known.updated_ms = entry.updated_ms;
            known.client = entry.client;
            log.push_front(known);
        } else if length_max > 0 {
            log.push_front(LogEntry { id: *next_id, ..entry });
            *next_id += 1;
        }
        log.truncate(length_max);
    }

    /// The newest entries of ACL LOG.
    pub(crate) fn newest(&self, count: usize) -> Vec<LogEntry> {
        self.log.lock().1.iter().take(count).cloned().collect()
    }

    pub(crate) fn forget_log(&self) {
        self.log.lock().1.clear();
    }
}

/// Of what a denied client sent, what the log keeps, in memory of its own.
pub(crate) fn logged(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(LOGGED_BYTES_MAX)])
}

/// Closes the connections that are logged in with an account that is gone, this one (`me`) only after
/// its reply; whether it is among them.
pub(crate) fn close_connections(clients: &Clients, gone: &[Arc<Account>], me: u64) -> bool {
    let mut mine = false;
    for client in clients.all() {
        if !gone.iter().any(|account| Arc::ptr_eq(account, &client.account())) {
            continue;
        }
        if client.id == me {
            mine = true;
        } else {
            client.kill();
        }
    }
    mine
}

impl crate::connection::Connection {
    /// Whether a connection that has not authenticated itself need not do so any more, since the
    /// default user has come to be without a password; it is taken in then.
    pub(crate) fn is_welcome(&mut self) -> bool {
        let (login, authenticated) = self.shared.users.welcome();
        if authenticated {
            self.session.log_in(login, true);
            self.update_limits();
        }
        authenticated
    }

    /// Whether the rules let a command line run; a denial is logged.
    ///
    /// *Errors*: the refusal for the client.
    pub(crate) fn check_rules(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
        context: Context,
    ) -> Result<(), CommandError> {
        if !self.session.login.account.is_restricted() {
            return Ok(());
        }
        let user = self.session.login.user();
        match user.check(entry, args) {
            Ok(()) => user.check_sort(entry, args),
            Err(denied) => {
                let refusal = denied.to_error(user.name(), entry);
                self.log_denied(entry, args, denied, context);
                Err(refusal)
            }
        }
    }

    /// Puts a denied command into ACL LOG.
    pub(crate) fn log_denied(
        &mut self,
        entry: &'static Entry,
        args: &[Bytes],
        denied: Denied,
        context: Context,
    ) {
        let object = denied.object(entry, args);
        let user = self.session.login.account.name().clone();
        let about = (Denial::Rules(denied.reason), context);
        log_denial(&self.shared, &self.session.client, about, &object, &user);
    }

    /// Puts a log-in that failed into ACL LOG; `word` is the command's name as it came.
    pub(crate) fn log_failed_login(&mut self, word: &[u8], user: &[u8]) {
        let context = if self.session.multi.is_some() { Context::Multi } else { Context::Toplevel };
        let about = (Denial::Auth, context);
        log_denial(&self.shared, &self.session.client, about, word, user);
    }
}

/// Puts a denial into ACL LOG.
pub(crate) fn log_denial(
    shared: &Shared,
    client: &Client,
    (denial, context): (Denial, Context),
    object: &[u8],
    user: &[u8],
) {
    let now_ms = shared.now_us() / 1000;
    let entry = LogEntry {
        id: 0,
        count: 1,
        denial,
        context,
        object: logged(object),
        user: logged(user),
        client: client.describe(0),
        created_ms: now_ms,
        updated_ms: now_ms,
    };
    let length_max = shared.config.live.acllog_max_len.load(Relaxed) as usize;
    shared.users.denied(entry, length_max);
}

//! The connections of this router, as CLIENT LIST shows them and CLIENT KILL and PAUSE reach them.
//!
//! A connection owns its [`crate::session::Session`] alone. What others may see or change of it is in
//! its [`Client`]: atomics that the connection stores once per pipeline, names behind a mutex that is
//! taken only by the commands that set or show them, and a wake-up for being killed.

use std::cmp::Reverse;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use wire::ids::CommandId;
use wire::service::Claim;

use crate::config::Live;
use crate::pushes::{Added, Push, Pushes};
use crate::tracking::Tracker;
use crate::users::Account;

/// What other connections see of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) socket: i64,
    /// When it was accepted.
    pub(crate) since: Instant,
    /// Milliseconds after `since` at which it last sent or took something.
    active_ms: AtomicU64,
    /// Whether it is being served: it waits, not the router.
    pub(crate) is_served: AtomicBool,
    /// How often what it had sent was read, and done.
    pub(crate) rounds: AtomicU64,
    /// A message of it waits until others were heard.
    pub(crate) hears: AtomicBool,
    /// Whether `socket` is this connection's: whoever uses it holds this meanwhile.
    has_socket: Mutex<bool>,
    /// Milliseconds after `since` at which it last became one that has to log in.
    stranger_since_ms: AtomicU64,
    pub(crate) table: AtomicU32,
    pub(crate) protocol: AtomicU8,
    last_command: AtomicU16,
    blocking: Mutex<Blocking>,
    unblock: Notify,
    /// Commands queued since MULTI; -1 outside a transaction.
    pub(crate) queued: AtomicI64,
    pub(crate) queued_bytes: AtomicUsize,
    /// Keys watched.
    pub(crate) watching: AtomicUsize,
    pub(crate) input_bytes: AtomicUsize,
    pub(crate) output_bytes: AtomicUsize,
    /// The command that waits, here and where it is kept.
    pub(crate) waiting_bytes: AtomicUsize,
    authenticated: AtomicBool,
    pub(crate) no_evict: AtomicBool,
    pub(crate) no_touch: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) names: Mutex<Names>,
    account: Mutex<Arc<Account>>,
    killed: AtomicBool,
    draining: AtomicBool,
    gone: AtomicBool,
    /// What is sent to it unasked; only those have one that were ever to be sent something.
    pushes: OnceLock<Box<Pushes>>,
    /// Wakes the connection's task.
    wake: Mutex<Option<Waker>>,
}

/// What a connection says of itself.
#[derive(Clone, Default, Debug)]
pub(crate) struct Names {
    pub(crate) name: Bytes,
    pub(crate) library: Bytes,
    pub(crate) library_version: Bytes,
}

/// No command was run yet, or the last one does not exist.
const NO_COMMAND: u16 = u16::MAX;

/// What keeps a connection from going on.
#[derive(Debug)]
enum Blocking {
    /// Nothing.
    No,
    /// CLIENT PAUSE: told as blocked, but CLIENT UNBLOCK does not reach it.
    Held,
    /// A command, until somebody takes this.
    Command(Arc<Claim>),
    /// CLIENT UNBLOCK has taken it.
    Ended(Unblock),
}

/// How CLIENT UNBLOCK ends a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unblock {
    /// As if its time were up.
    Timeout,
    /// With an error.
    Error,
}

/// A connection that a command blocks; not any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Blocked<'a>(&'a Client);

impl Blocked<'_> {
    /// Resolves when CLIENT UNBLOCK ends the wait.
    ///
    /// *Cancel safety*: dropping the future changes nothing.
    pub(crate) async fn unblocked(&self) -> Unblock {
        loop {
            match self.ended() {
                Some(how) => return how,
                None => self.0.unblock.notified().await,
            }
        }
    }

    /// How CLIENT UNBLOCK ended the wait, if it did.
    pub(crate) fn ended(&self) -> Option<Unblock> {
        match *self.0.blocking.lock() {
            Blocking::Ended(how) => Some(how),
            _ => None,
        }
    }

    /// Goes on waiting, for another to take another claim.
    ///
    /// *Errors*: CLIENT UNBLOCK has ended the wait.
    pub(crate) fn renew(&self, claim: Arc<Claim>) -> Result<(), Unblock> {
        let mut blocking = self.0.blocking.lock();
        if let Blocking::Ended(how) = *blocking {
            return Err(how);
        }
        *blocking = Blocking::Command(claim);
        Ok(())
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        *self.0.blocking.lock() = Blocking::No;
    }
}

/// As long as it lives, a client's socket is its connection's. To be dropped before the socket is closed.
#[derive(Debug)]
pub(crate) struct HasSocket(Arc<Client>);

impl Drop for HasSocket {
    fn drop(&mut self) {
        *self.0.has_socket.lock() = false;
        // Whoever waits for it to be heard need not any more.
        self.0.rounds.fetch_add(1, Relaxed);
    }
}

impl Client {
    /// Marks the connection as blocked by a command: CLIENT UNBLOCK ends that if it takes the claim.
    pub(crate) fn block(&self, claim: Arc<Claim>) -> Blocked<'_> {
        *self.blocking.lock() = Blocking::Command(claim);
        Blocked(self)
    }

    /// Marks the connection as held back by a pause.
    pub(crate) fn hold(&self) -> Blocked<'_> {
        *self.blocking.lock() = Blocking::Held;
        Blocked(self)
    }

    /// Whether a command blocks the connection, or a pause holds one back.
    pub(crate) fn is_blocked(&self) -> bool {
        match &*self.blocking.lock() {
            Blocking::No => false,
            Blocking::Held | Blocking::Ended(_) => true,
            Blocking::Command(claim) => !claim.is_taken(),
        }
    }

    /// Ends a wait; false if the connection is not blocked, or another was faster.
    pub(crate) fn end_block(&self, how: Unblock) -> bool {
        let mut blocking = self.blocking.lock();
        let ended = matches!(&*blocking, Blocking::Command(claim) if claim.take());
        if ended {
            *blocking = Blocking::Ended(how);
            // There is one waiter at most; if it is not there yet it finds this permit.
            self.unblock.notify_one();
        }
        ended
    }

    pub(crate) fn new(
        id: u64,
        (peer, local): (SocketAddr, SocketAddr),
        socket: i64,
        account: Arc<Account>,
    ) -> Client {
        Client {
            id,
            peer,
            local,
            socket,
            since: Instant::now(),
            active_ms: AtomicU64::new(0),
            is_served: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            hears: AtomicBool::new(false),
            has_socket: Mutex::new(false),
            stranger_since_ms: AtomicU64::new(0),
            table: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            last_command: AtomicU16::new(NO_COMMAND),
            blocking: Mutex::new(Blocking::No),
            unblock: Notify::new(),
            queued: AtomicI64::new(-1),
            queued_bytes: AtomicUsize::new(0),
            watching: AtomicUsize::new(0),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            authenticated: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            names: Mutex::new(Names::default()),
            account: Mutex::new(account),
            killed: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            pushes: OnceLock::new(),
            wake: Mutex::new(None),
        }
    }

    /// Who it is logged in as.
    pub(crate) fn account(&self) -> Arc<Account> {
        self.account.lock().clone()
    }

    pub(crate) fn set_account(&self, account: Arc<Account>) {
        *self.account.lock() = account;
    }

    /// Notes the command that is about to run; `None` if there is none of that name.
    pub(crate) fn runs(&self, command: Option<CommandId>) {
        self.last_command.store(command.map_or(NO_COMMAND, |id| id.0), Relaxed);
    }

    /// Tells the connection to close; it wakes from whatever it waits for.
    pub(crate) fn kill(&self) {
        self.killed.store(true, SeqCst);
        self.wake();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(SeqCst)
    }

    /// Resolves when the connection is killed.
    ///
    /// *Cancel safety*: dropping the future changes nothing. Only the connection's own task may wait.
    pub(crate) fn killed(&self) -> impl Future<Output = ()> {
        self.wait_until(Client::is_killed)
    }

    fn wait_until(&self, condition: impl Fn(&Client) -> bool) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            if condition(self) {
                return Poll::Ready(());
            }
            {
                let mut wake = self.wake.lock();
                if !wake.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *wake = Some(cx.waker().clone());
                }
            }
            // It may have become true before the waker was in its place.
            if condition(self) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn wake(&self) {
        if let Some(waker) = self.wake.lock().take() {
            waker.wake();
        }
    }

    /// Tells the connection to close when it has nothing to do.
    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
        self.wake();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Whether an idle connection should close.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_killed() || self.is_draining()
    }

    /// Resolves when an idle connection should close, or something is to be sent to it.
    ///
    /// *Cancel safety*: dropping the future changes nothing. Only the connection's own task may wait.
    pub(crate) fn called(&self) -> impl Future<Output = ()> {
        let is_pushed = |client: &Client| client.pushes().is_some_and(Pushes::is_waiting);
        self.wait_until(move |client| client.has_ended() || is_pushed(client))
    }

    /// The queue of what is sent to it unasked, if it has one.
    pub(crate) fn pushes(&self) -> Option<&Pushes> {
        self.pushes.get().map(|pushes| &**pushes)
    }

    /// The same; made if need be.
    pub(crate) fn open_pushes(&self, live: &Arc<Live>) -> &Pushes {
        self.pushes.get_or_init(|| Box::new(Pushes::new(live.clone())))
    }

    /// Sends it something unasked. What has no queue is sent nothing.
    pub(crate) fn push(&self, push: Push) {
        let Some(pushes) = self.pushes() else { return };
        match pushes.add(push, self.output_bytes.load(Relaxed)) {
            Added::First => self.wake(),
            Added::Behind => {}
            Added::TooMuch => self.close_for_unread(),
        }
    }

    /// Closes it if it has left too much unread for too long.
    pub(crate) fn close_if_overdue(&self) {
        let unsent = self.output_bytes.load(Relaxed);
        if self.pushes().is_some_and(|pushes| pushes.is_overdue(unsent)) {
            self.close_for_unread();
        }
    }

    fn close_for_unread(&self) {
        if !self.is_killed() {
            tracing::warn!(conn = self.id, "closed: what is sent to it is not read");
            self.kill();
        }
    }

    /// Whether the connection has ended, or is told to: nothing is sent to it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed) || self.is_killed()
    }

    /// Whether it subscribes to anything.
    pub(crate) fn subscribes(&self) -> bool {
        self.pushes().is_some_and(Pushes::subscribes)
    }

    /// Whether it is shown all commands.
    pub(crate) fn is_monitor(&self) -> bool {
        self.pushes().is_some_and(|pushes| pushes.monitors.load(Relaxed))
    }

    /// The socket is the connection's from now on, until what is returned is dropped.
    pub(crate) fn has_socket(self: &Arc<Client>) -> HasSocket {
        *self.has_socket.lock() = true;
        HasSocket(self.clone())
    }

    /// Whether something it has sent is being done, and not what waits for others, or is there to be read.
    pub(crate) fn is_behind(&self) -> bool {
        // In this order: what has left the socket is served by then.
        let is_served = || *self.has_socket.lock() && self.is_served.load(Relaxed);
        self.is_unheard() || is_served() && !self.is_blocked()
    }

    /// Whether something it has sent, or its end, is there to be read. Not of one that does not read what it
    /// is sent: nothing is read from it either.
    fn is_unheard(&self) -> bool {
        let has_socket = self.has_socket.lock();
        let Ok(socket) = RawFd::try_from(self.socket) else { return false };
        if !*has_socket || self.output_bytes.load(Relaxed) > 0 {
            return false;
        }
        // SAFETY: the connection closes its socket only after it has said so under the lock that is held.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        let peeked = socket2::SockRef::from(&socket).peek(&mut [MaybeUninit::uninit()]);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Notes that it has sent or taken something.
    pub(crate) fn is_active(&self) {
        self.active_ms.store(self.since.elapsed().as_millis() as u64, Relaxed);
    }

    /// Since when it has sent and taken nothing.
    pub(crate) fn idle(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.active_ms.load(Relaxed)))
    }

    /// Whether it is idle of its own will: it is not one that is told things, and waits for nothing.
    pub(crate) fn may_time_out(&self) -> bool {
        !self.is_served.load(Relaxed)
            && !self.is_blocked()
            && !self.subscribes()
            && !self.is_monitor()
    }

    /// Notes whether it has logged in, or need not.
    pub(crate) fn set_authenticated(&self, authenticated: bool) {
        if self.authenticated.swap(authenticated, Relaxed) && !authenticated {
            self.stranger_since_ms.store(self.since.elapsed().as_millis() as u64, Relaxed);
        }
    }

    /// For how long it has had to log in and not done so; `None` if it need not.
    pub(crate) fn stranger_for(&self) -> Option<Duration> {
        let since = Duration::from_millis(self.stranger_since_ms.load(Relaxed));
        let is_stranger = !self.authenticated.load(Relaxed);
        is_stranger.then(|| self.since.elapsed().saturating_sub(since))
    }

    /// What it has sent that is not done, what it has queued, waits with, and has not taken, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let (_, pushed) = self.pushes().map_or((0, 0), Pushes::waiting);
        let counted =
            [&self.input_bytes, &self.output_bytes, &self.queued_bytes, &self.waiting_bytes];
        pushed + counted.iter().map(|bytes| bytes.load(Relaxed)).sum::<usize>()
    }

    /// The line of CLIENT LIST and CLIENT INFO, without its newline. What it is running, if it is asked
    /// for by that, had so many bytes.
    pub(crate) fn describe(&self, running_bytes: usize) -> String {
        let names = self.names.lock().clone();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let input = self.input_bytes.load(Relaxed) + running_bytes;
        let output = self.output_bytes.load(Relaxed);
        let queued = self.queued_bytes.load(Relaxed);
        let count =
            |of: fn(&Pushes) -> &AtomicU32| self.pushes().map_or(0, |p| of(p).load(Relaxed));
        let redirect = match self.tracker() {
            Some(tracker) => tracker.redirect.as_ref().map_or(0, |target| target.id as i64),
            None => -1,
        };
        let (pushes, pushed) = self.pushes().map_or((0, 0), Pushes::waiting);
        format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} \
             ssub={} multi={} watch={} qbuf={input} qbuf-free=0 argv-mem=0 multi-mem={queued} rbs=0 \
             rbp=0 \
             obl={output} oll={pushes} omem={pushed} tot-mem={} events=r cmd={} user={} \
             redir={redirect} resp={} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            self.socket,
            text(&names.name),
            self.since.elapsed().as_secs(),
            self.idle().as_secs(),
            self.flags(),
            self.table.load(Relaxed),
            count(|pushes| &pushes.channels),
            count(|pushes| &pushes.patterns),
            count(|pushes| &pushes.shard_channels),
            self.queued.load(Relaxed),
            self.watching.load(Relaxed),
            self.held_bytes() + running_bytes + size_of::<Client>(),
            self.last_command_name(),
            text(self.account().name()),
            self.protocol.load(Relaxed),
            text(&names.library),
            text(&names.library_version),
        )
    }

    /// How it is told of keys that change, if it is.
    pub(crate) fn tracker(&self) -> Option<Arc<Tracker>> {
        self.pushes().and_then(Pushes::tracker)
    }

    fn flags(&self) -> String {
        let tracker = self.tracker();
        let tracks = |what: fn(&Tracker) -> bool| tracker.as_ref().is_some_and(|t| what(t));
        let flags = [
            ('O', self.is_monitor()),
            ('P', self.subscribes()),
            ('x', self.queued.load(Relaxed) >= 0),
            ('b', self.is_blocked()),
            ('t', tracker.is_some()),
            ('R', tracks(Tracker::is_broken)),
            ('B', tracks(|tracker| tracker.options.broadcast)),
            ('c', self.closing.load(Relaxed) || self.is_killed()),
            ('e', self.no_evict.load(Relaxed)),
            ('T', self.no_touch.load(Relaxed)),
        ];
        let set: String = flags.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
        if set.is_empty() { "N".to_owned() } else { set }
    }

    fn last_command_name(&self) -> String {
        match self.last_command.load(Relaxed) {
            NO_COMMAND => "NULL".to_owned(),
            id => table::entry(CommandId(id)).full_name(),
        }
    }
}

/// Which commands CLIENT PAUSE holds back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum PauseMode {
    /// Commands that may write.
    Writes,
    /// All.
    All,
}

/// All connections of this router.
#[derive(Debug)]
pub(crate) struct Clients {
    map: DashMap<u64, Arc<Client>>,
    next_id: AtomicU64,
    /// Whether `pause` holds something: the only thing the hot path reads of it.
    is_paused: AtomicBool,
    pause: watch::Sender<Option<(PauseMode, Instant)>>,
}

impl Clients {
    pub(crate) fn new() -> Clients {
        Clients {
            map: DashMap::new(),
            next_id: AtomicU64::new(1),
            is_paused: AtomicBool::new(false),
            pause: watch::Sender::new(None),
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(crate) fn count(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn add(&self, client: Arc<Client>) {
        self.map.insert(client.id, client);
    }

    pub(crate) fn remove(&self, id: u64) {
        if let Some((_, client)) = self.map.remove(&id) {
            client.gone.store(true, Relaxed);
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.map.get(&id).map(|client| client.clone())
    }

    /// Closes those that hold the most, until all together hold no more than so many bytes; how many.
    /// Those that are not to be evicted count, and stay.
    pub(crate) fn evict(&self, bytes_max: u64) -> u64 {
        let living = || self.map.iter().filter(|entry| !entry.value().is_killed());
        let held = |client: &Client| client.held_bytes() as u64;
        if living().map(|entry| held(entry.value())).sum::<u64>() <= bytes_max {
            return 0;
        }
        // Once more, at one moment each: what they hold changes meanwhile.
        let mut holders: Vec<_> =
            living().map(|entry| (held(entry.value()), entry.value().clone())).collect();
        let mut total: u64 = holders.iter().map(|(bytes, _)| bytes).sum();
        holders.retain(|(bytes, client)| *bytes > 0 && !client.no_evict.load(Relaxed));
        holders.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut evicted = 0;
        for (bytes, client) in holders {
            if total <= bytes_max {
                break;
            }
            tracing::warn!(
                conn = client.id,
                bytes,
                "closed: clients hold more than maxmemory-clients"
            );
            client.kill();
            total -= bytes;
            evicted += 1;
        }
        evicted
    }

    /// All connections, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.map.iter().map(|entry| entry.value().clone()).collect();
        all.sort_unstable_by_key(|client| client.id);
        all
    }

    /// Starts a pause or makes it longer and stronger; never shorter or weaker, as in Redis. `begun` is told
    /// until when it lasts now: in the order in which pauses begin and end, so that whoever goes by it and
    /// the connections agree.
    pub(crate) fn pause(&self, mode: PauseMode, until: Instant, begun: impl FnOnce(Instant)) {
        self.pause.send_modify(|pause| {
            let (old_mode, old_until) = pause.unwrap_or((mode, until));
            let lasts = until.max(old_until);
            *pause = Some((mode.max(old_mode), lasts));
            self.is_paused.store(true, Relaxed);
            begun(lasts);
        });
    }

    /// Ends the pause; `ended` is called in the same order as `begun` above.
    pub(crate) fn unpause(&self, ended: impl FnOnce()) {
        self.pause.send_modify(|pause| {
            *pause = None;
            self.is_paused.store(false, Relaxed);
            ended();
        });
    }

    /// Whether a command has to wait now.
    pub(crate) fn holds_back(&self, may_write: bool) -> bool {
        self.is_paused.load(Relaxed) && self.held_until(may_write).is_some()
    }

    /// Waits until a command may go on.
    ///
    /// *Cancel safety*: dropping the future changes nothing.
    pub(crate) async fn unpaused(&self, may_write: bool) {
        let mut changes = self.pause.subscribe();
        while let Some(until) = self.held_until(may_write) {
            // Whichever comes first: the end of the pause, or a change of it.
            let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
        }
    }

    fn held_until(&self, may_write: bool) -> Option<Instant> {
        let (mode, until) = (*self.pause.borrow())?;
        if until <= Instant::now() {
            // The next reader of the flag is spared the lock; a newer pause sets it again.
            self.pause.send_if_modified(|pause| {
                let over = pause.is_some_and(|(_, until)| until <= Instant::now());
                if over {
                    *pause = None;
                    self.is_paused.store(false, Relaxed);
                }
                false
            });
            return None;
        }
        (mode == PauseMode::All || may_write).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::Users;

    #[test]
    fn what_goes_by_a_pause_hears_of_its_end_last() {
        let clients = Clients::new();
        let (told, now) = (parking_lot::Mutex::new(None), Instant::now());
        let begin = |seconds: u64| {
            let until = now + std::time::Duration::from_secs(1_000 + seconds);
            clients.pause(PauseMode::Writes, until, |lasts| {
                std::thread::yield_now();
                *told.lock() = Some(lasts);
            });
        };
        for round in 1..=2_000 {
            std::thread::scope(|scope| {
                scope.spawn(|| begin(round));
                scope.spawn(|| begin(round + 100));
                scope.spawn(|| clients.unpause(|| *told.lock() = None));
            });
            assert_eq!(clients.held_until(true), *told.lock(), "round {round}");
        }
    }

    #[test]
    fn those_that_hold_the_most_are_closed_whatever_they_do_meanwhile() {
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let account = Users::new("").welcome().0.account;
        for round in 0..500 {
            let clients = Clients::new();
            let all: Vec<_> = (0..5)
                .map(|id| Arc::new(Client::new(id, (address, address), 3, account.clone())))
                .collect();
            for (client, bytes) in all.iter().zip([1, 1, 500, 400, 0]) {
                client.input_bytes.store(bytes, Relaxed);
                clients.add(client.clone());
            }
            all[2].no_evict.store(true, Relaxed);
            let over = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for bytes in [100, 1 << 40].iter().cycle().take(1_000_000) {
                        all[3].input_bytes.store(*bytes, Relaxed);
                        if over.load(Relaxed) {
                            break;
                        }
                    }
                });
                while all[3].input_bytes.load(Relaxed) == 400 {
                    std::hint::spin_loop();
                }
                let evicted = clients.evict(550);
                over.store(true, Relaxed);
                assert_eq!(evicted, 1, "round {round}");
            });
            let killed: Vec<_> = all.iter().map(|client| client.is_killed()).collect();
            assert_eq!(killed, [false, false, false, true, false], "round {round}");
            assert_eq!(clients.evict(550), 0, "who is on the way out does not count");
            assert_eq!(clients.evict(1), 2, "and the rest, but for who is not to go");
        }
    }

    #[test]
    fn a_stranger_is_one_since_it_has_to_log_in() {
        let address: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let account = Users::new("").welcome().0.account;
        let mut client = Client::new(1, (address, address), 3, account);
        let hour = Duration::from_secs(3600);
        client.since = client.since.checked_sub(hour).expect("up that long");
        client.set_authenticated(false);
        assert!(client.stranger_for().is_some_and(|age| age >= hour));
        client.set_authenticated(true);
        assert_eq!(client.stranger_for(), None);
        client.set_authenticated(false);
        client.set_authenticated(false);
        assert!(client.stranger_for().is_some_and(|age| age < hour / 2), "only since RESET");
    }
}

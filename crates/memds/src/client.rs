//! What a router asks MemDS with.
//!
//! **Constant work.** Every routed command costs MemDS one lookup, whether the router's cache had the
//! route or not: a command whose route was not cached asks with [`MemdsClient::lookup`] and waits,
//! any other one is put on the mirror queue with [`MemdsClient::mirror`] and does not wait. So MemDS
//! is always as busy as it would be with every cache empty, and a fleet of routers that restarts cold
//! changes nothing for it. Nothing is coalesced, answers are always whole, and a full queue makes the
//! caller wait instead of dropping.
//!
//! ```text
//!   mirror() ─► queue ─► run(): gather for a moment, cut into batches ─► one node of the fleet
//!                          ▲                                               │ in turn
//!                          └── no answer in time: another node ◄───────────┘
//! ```
//!
//! A node that let a batch or a caller wait in vain is passed over for a second, if another is left:
//! else every third lookup would wait for a dead node, and most of them would be sent twice.
//!
//! If no node of the fleet answers, mirrored batches are given up after a few attempts and counted:
//! what the caches hold still serves, so MemDS being gone must not stop the traffic that needs it
//! least.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use wire::ids::NodeId;
use wire::peer::{Frame, FrameHandler, Kind, Transport};
use wire::service::Route;

use crate::message::{self, ITEMS_MAX, Lookup};
use crate::route::RouteRef;

/// How long a node that did not answer is passed over.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// How a client asks.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// How long a node may take to answer before another one is asked.
    pub answer_timeout: Duration,
    /// How often a lookup is sent at most, to a different node each time.
    pub attempts: usize,
    /// How long mirrored lookups are gathered before they are sent.
    pub gather: Duration,
    /// Mirrored lookups sent in one frame.
    pub batch_lookups: usize,
    /// Mirrored lookups that may wait to be sent. More make the caller wait.
    pub queue_lookups: usize,
    /// Batches that may be on their way. More stay in the queue.
    pub batches_in_flight: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            answer_timeout: Duration::from_millis(50),
            attempts: 4,
            gather: Duration::from_millis(1),
            batch_lookups: 512,
            queue_lookups: 64 * 1024,
            batches_in_flight: 64,
        }
    }
}

/// What a client has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientStats {
    /// Lookups put on the mirror queue.
    pub mirrored: u64,
    /// Lookups a caller waited for.
    pub foreground: u64,
    /// Mirrored lookups answered.
    pub answered: u64,
    /// Frames sent again, to another node.
    pub retries: u64,
    /// Mirrored lookups given up: no node answered.
    pub abandoned: u64,
}

#[derive(Default)]
struct Counts {
    mirrored: AtomicU64,
    foreground: AtomicU64,
    answered: AtomicU64,
    retries: AtomicU64,
    abandoned: AtomicU64,
}

/// A batch that was sent.
struct Pending {
    node: NodeId,
    sent: Instant,
    attempts: usize,
    lookups: Vec<Lookup>,
    waiter: Waiter,
}

enum Waiter {
    /// The mirror; the permit bounds how many batches are on their way.
    Mirror { _permit: OwnedSemaphorePermit },
    /// A caller of [`MemdsClient::lookup`].
    Caller(oneshot::Sender<Option<Route>>),
}

/// A lookup under way, begun with [`MemdsClient::ask`]. Dropping it forgets the answer.
pub struct Asked {
    lookup: Lookup,
    /// `None`: there is no node to ask.
    sent: Option<Sent>,
}

/// A lookup that a caller waits for, at one node.
struct Sent {
    batch: u64,
    node: NodeId,
    answer: oneshot::Receiver<Option<Route>>,
}

impl Asked {
    /// The route, if the first node has answered with one by now. If not, [`MemdsClient::answer`]
    /// goes on with what this gives back.
    ///
    /// *Errors*: not answered, or the node knows no route.
    pub fn take_route(mut self) -> Result<Route, Asked> {
        let Some(sent) = &mut self.sent else { return Err(self) };
        match sent.answer.try_recv() {
            Ok(Some(route)) => Ok(route),
            // Looked at again by whoever waits.
            Ok(None) => {
                let (sender, answer) = oneshot::channel();
                let _ = sender.send(None);
                sent.answer = answer;
                Err(self)
            }
            Err(_) => Err(self),
        }
    }
}

type OnAnswer = Box<dyn Fn(&RouteRef<'_>) + Send + Sync>;

/// Asks a fleet of MemDS nodes.
pub struct MemdsClient {
    node: NodeId,
    transport: Arc<dyn Transport>,
    options: ClientOptions,
    on_answer: OnAnswer,
    fleet: RwLock<Arc<[NodeId]>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// Nodes that did not answer in time, and until when they are passed over.
    silent: Mutex<HashMap<NodeId, Instant>>,
    next_batch: AtomicU64,
    queue: Mutex<Vec<Lookup>>,
    /// The queue is no longer empty.
    work: Notify,
    /// The queue has room again.
    room: Notify,
    in_flight: Arc<Semaphore>,
    /// By their numbers: what was sent first is asked for again first.
    pending: Mutex<BTreeMap<u64, Pending>>,
    counts: Counts,
}

impl MemdsClient {
    /// A client of node `node`. Register it as the handler of [`MemdsClient::KINDS`] and spawn
    /// [`MemdsClient::run`]. `on_answer` gets every route that is answered, mirrored or not: the
    /// cache installs it if it is newer. It is called where frames arrive: short, never waiting.
    pub fn new(
        node: NodeId,
        fleet: Vec<NodeId>,
        transport: Arc<dyn Transport>,
        options: ClientOptions,
        on_answer: impl Fn(&RouteRef<'_>) + Send + Sync + 'static,
    ) -> Arc<MemdsClient> {
        let options = ClientOptions {
            batch_lookups: options.batch_lookups.clamp(1, ITEMS_MAX),
            queue_lookups: options.queue_lookups.max(1),
            attempts: options.attempts.max(1),
            ..options
        };
        Arc::new(MemdsClient {
            node,
            transport,
            options,
            on_answer: Box::new(on_answer),
            fleet: RwLock::new(fleet.into()),
            turn: AtomicUsize::new(node.0 as usize),
            silent: Mutex::default(),
            next_batch: AtomicU64::new(0),
            queue: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
            in_flight: Arc::new(Semaphore::new(options.batches_in_flight.max(1))),
            pending: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// The frames this role takes.
    pub const KINDS: &[Kind] = &[Kind::MemdsAnswer];

    /// Replaces the list of MemDS nodes.
    pub fn set_fleet(&self, fleet: Vec<NodeId>) {
        *self.fleet.write() = fleet.into();
    }

    /// What the client has done so far.
    pub fn stats(&self) -> ClientStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ClientStats {
            mirrored: read(&self.counts.mirrored),
            foreground: read(&self.counts.foreground),
            answered: read(&self.counts.answered),
            retries: read(&self.counts.retries),
            abandoned: read(&self.counts.abandoned),
        }
    }

    /// Batches and lookups sent and neither answered nor given up.
    pub fn under_way(&self) -> usize {
        self.pending.lock().len()
    }

    /// Finds the route that serves a position; `None` if no node knows one, or none answers. This is
    /// the command's one lookup: it is not to be mirrored as well.
    ///
    /// *Cancel safety*: dropping the future forgets the answer.
    pub async fn lookup(&self, lookup: Lookup) -> Option<Route> {
        self.answer(self.ask(lookup)).await
    }

    /// Begins a [`MemdsClient::lookup`]: asks the first node. If the transport brings its answer at
    /// once, as within one process, [`Asked::take_route`] has it without a wait.
    pub fn ask(&self, lookup: Lookup) -> Asked {
        self.counts.foreground.fetch_add(1, Ordering::Relaxed);
        counter!("memds_client_foreground_total").increment(1);
        Asked { lookup, sent: self.ask_node(lookup, 0, None) }
    }

    /// Waits for the answer to what was asked, and asks other nodes where it must.
    ///
    /// A node that does not know the position may have just started, so another one is asked too.
    ///
    /// *Cancel safety*: dropping the future forgets the answer.
    pub async fn answer(&self, asked: Asked) -> Option<Route> {
        let Asked { lookup, mut sent } = asked;
        let mut unknown = 0;
        for attempt in 1.. {
            let Sent { batch, node, answer } = sent?;
            match timeout(self.options.answer_timeout, answer).await {
                Ok(Ok(Some(route))) => return Some(route),
                Ok(_) => {
                    unknown += 1;
                    if unknown >= self.fleet.read().len() {
                        return None;
                    }
                }
                Err(_) => {
                    self.pending.lock().remove(&batch);
                    self.pass_over(node);
                }
            }
            if attempt >= self.options.attempts {
                return None;
            }
            sent = self.ask_node(lookup, attempt, Some(node));
        }
        None
    }

    fn ask_node(&self, lookup: Lookup, attempt: usize, last: Option<NodeId>) -> Option<Sent> {
        let (sender, answer) = oneshot::channel();
        let (batch, node) = self.send(vec![lookup], Waiter::Caller(sender), attempt, last)?;
        Some(Sent { batch, node, answer })
    }

    /// Mirrors lookups whose routes were cached. Returns at once unless the queue is full.
    ///
    /// *Cancel safety*: what was queued stays queued.
    pub async fn mirror(&self, lookups: &[Lookup]) {
        for lookups in lookups.chunks(self.options.queue_lookups) {
            while !self.try_mirror(lookups) {
                let room = self.room.notified();
                tokio::pin!(room);
                // Listens before it looks, so that room made in between is not missed.
                room.as_mut().enable();
                if self.try_mirror(lookups) {
                    break;
                }
                room.await;
            }
        }
    }

    /// Mirrors lookups if the queue has room for all of them; false and nothing is queued if not.
    pub fn try_mirror(&self, lookups: &[Lookup]) -> bool {
        let mut queue = self.queue.lock();
        if !queue.is_empty() && queue.len() + lookups.len() > self.options.queue_lookups {
            return false;
        }
        let was_empty = queue.is_empty();
        queue.extend_from_slice(lookups);
        drop(queue);
        self.counts.mirrored.fetch_add(lookups.len() as u64, Ordering::Relaxed);
        if was_empty && !lookups.is_empty() {
            self.work.notify_one();
        }
        true
    }

    /// Sends what is mirrored and asks again where no answer came; never ends. Dropping the future
    /// stops the mirror: callers of [`MemdsClient::mirror`] then wait once the queue is full.
    pub async fn run(self: Arc<Self>) {
        loop {
            let idle = self.pending.lock().is_empty();
            tokio::select! {
                biased;
                () = self.work.notified() => {
                    sleep(self.options.gather).await;
                    self.send_queue().await;
                }
                () = sleep(self.sweep_interval()), if !idle => {}
            }
            self.ask_again();
        }
    }

    fn sweep_interval(&self) -> Duration {
        self.options.answer_timeout / 4
    }

    async fn send_queue(&self) {
        let mut lookups = Vec::new();
        loop {
            lookups.clear();
            std::mem::swap(&mut lookups, &mut *self.queue.lock());
            self.room.notify_waiters();
            if lookups.is_empty() {
                return;
            }
            counter!("memds_client_mirrored_total").increment(lookups.len() as u64);
            for batch in lookups.chunks(self.options.batch_lookups) {
                let _permit = self.permit().await;
                self.send(batch.to_vec(), Waiter::Mirror { _permit }, 0, None);
            }
        }
    }

    /// Waits until another batch may be sent. Meanwhile asks again where no answer came: without
    /// that, batches to a dead node would hold their permits for ever.
    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            let permit = Arc::clone(&self.in_flight).acquire_owned();
            match timeout(self.sweep_interval(), permit).await {
                Ok(permit) => return permit.expect("the semaphore is never closed"),
                Err(_) => self.ask_again(),
            }
        }
    }

    /// Sends a batch to the node whose turn it is, or to the one after `last`, which did not answer.
    /// Returns the batch's number and the node; `None` if there is no node.
    fn send(
        &self,
        lookups: Vec<Lookup>,
        waiter: Waiter,
        attempts: usize,
        last: Option<NodeId>,
    ) -> Option<(u64, NodeId)> {
        let node = self.pick(last)?;
        if attempts > 0 {
            self.counts.retries.fetch_add(1, Ordering::Relaxed);
            counter!("memds_client_retries_total").increment(1);
        }
        let batch = self.next_batch.fetch_add(1, Ordering::Relaxed);
        let body = message::encode_lookups(batch, &lookups);
        let attempts = attempts + 1;
        let pending = Pending { node, sent: Instant::now(), attempts, lookups, waiter };
        self.pending.lock().insert(batch, pending);
        // Outside the lock: the answer may arrive inside `send`.
        self.transport.send(node, Frame::new(Kind::MemdsLookup, self.node, node, body));
        Some((batch, node))
    }

    /// The node whose turn it is, or the one after `last`; the next one if that is passed over.
    fn pick(&self, last: Option<NodeId>) -> Option<NodeId> {
        let fleet = Arc::clone(&self.fleet.read());
        let turn = match last.and_then(|last| fleet.iter().position(|node| *node == last)) {
            Some(position) => position + 1,
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let in_turn = || (0..fleet.len()).map(|i| fleet[turn.wrapping_add(i) % fleet.len()]);
        let mut silent = self.silent.lock();
        if silent.is_empty() {
            return in_turn().next();
        }
        let now = Instant::now();
        silent.retain(|_, until| *until > now);
        let speaks = |node: &NodeId| !silent.contains_key(node);
        in_turn().find(speaks).or_else(|| in_turn().next())
    }

    fn pass_over(&self, node: NodeId) {
        self.silent.lock().insert(node, Instant::now() + SILENT_FOR);
    }

    /// Sends mirrored batches whose time is over to another node, or gives them up. Forgets lookups
    /// whose callers are gone.
    fn ask_again(&self) {
        let overdue: Vec<Pending> = {
            let mut pending = self.pending.lock();
            let late = |_: &u64, sent: &mut Pending| match &sent.waiter {
                Waiter::Mirror { .. } => sent.sent.elapsed() >= self.options.answer_timeout,
                Waiter::Caller(caller) => caller.is_closed(),
            };
            pending.extract_if(.., late).map(|(_, pending)| pending).collect()
        };
        for Pending { node, attempts, lookups, waiter, .. } in overdue {
            if matches!(waiter, Waiter::Caller(_)) {
                continue;
            }
            self.pass_over(node);
            if attempts < self.options.attempts {
                self.send(lookups, waiter, attempts, Some(node));
            } else {
                let lost = lookups.len() as u64;
                self.counts.abandoned.fetch_add(lost, Ordering::Relaxed);
                counter!("memds_client_abandoned_total").increment(lost);
            }
        }
    }

    fn take_answer(&self, from: NodeId, body: &Bytes) -> Result<(), message::MessageError> {
        let (batch, answers) = message::answer_batch(body)?;
        let pending = {
            let mut pending = self.pending.lock();
            if pending.get(&batch).is_none_or(|sent| sent.node != from) {
                return Ok(()); // Asked again meanwhile: this answer comes too late.
            }
            pending.remove(&batch)
        };
        let Some(sent) = pending else { return Ok(()) };
        self.silent.lock().remove(&from);
        let mut first = None;
        let outcome = message::decode_answers(answers, sent.lookups.len(), |_, route| {
            if let Some(route) = route {
                (self.on_answer)(&route);
                if matches!(sent.waiter, Waiter::Caller(_)) {
                    first = Some(route.to_route());
                }
            }
        });
        if outcome.is_err() {
            // As good as no answer: it will be asked for again when its time is over.
            self.pending.lock().insert(batch, sent);
            return outcome;
        }
        match sent.waiter {
            Waiter::Mirror { .. } => {
                let answered = sent.lookups.len() as u64;
                self.counts.answered.fetch_add(answered, Ordering::Relaxed);
            }
            // The caller may have gone.
            Waiter::Caller(sender) => drop(sender.send(first)),
        }
        Ok(())
    }
}

impl FrameHandler for MemdsClient {
    fn handle(&self, from: NodeId, frame: Frame) {
        if frame.kind != Kind::MemdsAnswer {
            return;
        }
        if let Err(error) = self.take_answer(from, frame.body()) {
            tracing::warn!(peer = from.0, %error, "answer dropped");
        }
    }
}

//! The router's side of MemDS: one lookup per routed command, whether its cache had the route.
//!
//! A command whose route is not cached waits for [`Client::lookup`]. For any other the router calls
//! [`Client::mirror`], which only appends to a queue: a thread sends what gathered as soon as that
//! is a batch, and every millisecond. Mirrored lookups are neither merged nor dropped: if they
//! were, traffic would grow when caches go cold, which is when it must not. The queue is bounded by
//! [`Client::mirror_ready`], that the router awaits before it reads more commands.
//!
//! Answers to both kinds go to `on_route`, which puts newer routes into the cache; of mirrored
//! lookups only if they say something new, since nearly always they do not.
//!
//! A batch that stays unanswered is sent once more, to another node. A node that let a batch or a
//! lookup time out is passed over for a second, if another is left.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, mpsc};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::{Frame, FrameHandler, FrameKind, Transport};
use wire::placement::Placement;
use wire::service::{Route, RouteVersion};

use crate::message::{self, Answer, BodyError, Lookup};

/// Lookups that are sent without waiting for more.
const BATCH_LOOKUPS: usize = 64;
/// Frames of one lookup at most.
const TRIES_MAX: usize = 6;
/// How long a node that did not answer is passed over.
const SUSPECT_MS: u64 = 1000;
/// Partitions whose newest version is kept in mind.
const NEWEST_PARTITIONS_MAX: usize = 1 << 18;
/// Empty rounds after which the thread sleeps until it is woken: waking it costs the caller a
/// system call, so it stays awake between the commands of a busy connection.
const QUIET_ROUNDS: u32 = 20;

/// Is told the route that a lookup met.
type OnRoute = dyn Fn(Placement, &Route) + Send + Sync;

/// How a [`Client`] works.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The client's own address: where answers go.
    pub id: NodeId,
    /// The MemDS nodes.
    pub nodes: Vec<NodeId>,
    /// How long an answer is waited for before another node is asked.
    pub timeout: Duration,
    /// How long a mirrored lookup waits for others at most.
    pub mirror_interval: Duration,
    /// Mirrored lookups that may wait to be sent before [`Client::mirror_ready`] holds callers up.
    pub mirror_lookups_max: usize,
}

impl ClientOptions {
    /// The defaults: 50 ms, 1 ms, 65,536 lookups.
    pub fn new(id: NodeId, nodes: Vec<NodeId>) -> ClientOptions {
        ClientOptions {
            id,
            nodes,
            timeout: Duration::from_millis(50),
            mirror_interval: Duration::from_millis(1),
            mirror_lookups_max: 1 << 16,
        }
    }
}

/// What a client did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientStats {
    /// Lookups a command waited for; one that asks two nodes counts twice.
    pub foreground: u64,
    /// Mirrored lookups sent, repetitions left out.
    pub mirrored: u64,
    /// Mirrored lookups sent once more because they were not answered.
    pub repeated: u64,
    /// Lookups answered.
    pub answered: u64,
    /// Frames that were not answered in time.
    pub timeouts: u64,
    /// Frames that were not understood.
    pub malformed: u64,
}

/// Looks routes up in MemDS. Connect [`Client::frame_handler`] to the transport under its id.
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: ClientOptions,
    transport: Arc<dyn Transport>,
    on_route: Box<OnRoute>,
    started: Instant,
    next_batch: AtomicU64,
    next_node: AtomicUsize,
    /// For each node, until when it is passed over: milliseconds since `started`.
    suspect_until_ms: Vec<AtomicU64>,
    /// Foreground lookups under way, by batch.
    waiting: Mutex<HashMap<u64, Waiter>>,
    mirror: Mutex<Mirror>,
    wake: Condvar,
    /// Lookups in the queue or in the thread's hands.
    queued: AtomicUsize,
    room: Notify,
    /// Mirrored batches under way.
    unanswered: Mutex<HashMap<u64, Batch>>,
    /// For each partition the version of the newest route that a mirrored lookup met.
    newest: Mutex<HashMap<PartitionId, RouteVersion>>,
    counts: Counts,
}

/// A foreground lookup under way.
struct Waiter {
    lookup: Lookup,
    /// Takes who answered, and what.
    answers: mpsc::UnboundedSender<(NodeId, Option<Route>)>,
}

/// What callers hand to the thread.
#[derive(Default)]
struct Mirror {
    queue: Vec<Lookup>,
    /// The thread waits without a time limit.
    asleep: bool,
    stop: bool,
}

struct Batch {
    lookups: Vec<Lookup>,
    node: usize,
    deadline: Instant,
    repeated: bool,
}

#[derive(Default)]
struct Counts {
    foreground: AtomicU64,
    mirrored: AtomicU64,
    repeated: AtomicU64,
    answered: AtomicU64,
    timeouts: AtomicU64,
    malformed: AtomicU64,
}

impl Client {
    /// A client with its thread, which ends when the client is dropped. `on_route` is told the route
    /// that each foreground lookup met, and of those that mirrored lookups met the ones that are
    /// news, on the thread that brings the answer.
    ///
    /// *Errors*: if the thread cannot be started.
    pub fn new(
        options: ClientOptions,
        transport: Arc<dyn Transport>,
        on_route: impl Fn(Placement, &Route) + Send + Sync + 'static,
    ) -> std::io::Result<Client> {
        let shared = Arc::new(Shared {
            suspect_until_ms: options.nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            options,
            transport,
            on_route: Box::new(on_route),
            started: Instant::now(),
            next_batch: AtomicU64::new(1),
            next_node: AtomicUsize::new(0),
            waiting: Mutex::default(),
            mirror: Mutex::default(),
            wake: Condvar::new(),
            queued: AtomicUsize::new(0),
            room: Notify::new(),
            unanswered: Mutex::default(),
            newest: Mutex::default(),
            counts: Counts::default(),
        });
        let thread = thread::Builder::new().name("memds-mirror".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Client { shared, thread: Some(thread) })
    }

    /// Asks MemDS who serves a placement; `None` if no node that answers knows. Nodes are asked one
    /// after the other, each as long as the timeout.
    ///
    /// *Cancel safety*: dropping the future forgets the lookup; its answer still reaches `on_route`.
    pub async fn lookup(&self, table: TableId, placement: Placement) -> Option<Route> {
        self.shared.lookup((table, placement)).await
    }

    /// Sends lookups whose answers nobody waits for.
    pub fn mirror(&self, lookups: &[Lookup]) {
        if lookups.is_empty() {
            return;
        }
        let mut mirror = self.shared.mirror.lock();
        let before = mirror.queue.len();
        mirror.queue.extend_from_slice(lookups);
        self.shared.queued.fetch_add(lookups.len(), Ordering::Relaxed);
        let full = before < BATCH_LOOKUPS && mirror.queue.len() >= BATCH_LOOKUPS;
        let wake = full || std::mem::take(&mut mirror.asleep);
        drop(mirror);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Waits until the queue of mirrored lookups has room. The router awaits this before it reads
    /// more commands.
    ///
    /// *Cancel safety*: dropping the future changes nothing.
    pub async fn mirror_ready(&self) {
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            // Listens before it looks, so that room made in between is not missed.
            room.as_mut().enable();
            if self.shared.has_room() {
                return;
            }
            room.await;
        }
    }

    /// What takes the answers. It does not keep the client alive, so the transport may hold it.
    pub fn frame_handler(&self) -> Arc<dyn FrameHandler> {
        Arc::new(Answers(Arc::downgrade(&self.shared)))
    }

    /// What the client did since it started.
    pub fn stats(&self) -> ClientStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        ClientStats {
            foreground: read(&counts.foreground),
            mirrored: read(&counts.mirrored),
            repeated: read(&counts.repeated),
            answered: read(&counts.answered),
            timeouts: read(&counts.timeouts),
            malformed: read(&counts.malformed),
        }
    }
}

struct Answers(Weak<Shared>);

impl FrameHandler for Answers {
    fn handle(&self, frame: Frame) {
        if let Some(shared) = self.0.upgrade() {
            shared.handle(&frame);
        }
    }
}

impl Drop for Client {
    /// Sends what is queued and ends the thread.
    fn drop(&mut self) {
        self.shared.mirror.lock().stop = true;
        self.shared.wake.notify_one();
        // The last owner may be the thread itself, through a transport that hands frames over.
        if let Some(thread) =
            self.thread.take().filter(|t| t.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the mirror thread panicked");
        }
    }
}

/// Forgets a foreground lookup when its future ends or is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    batch: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.batch);
    }
}

impl Shared {
    async fn lookup(&self, lookup: Lookup) -> Option<Route> {
        let nodes = self.options.nodes.len();
        let batch = self.next_batch.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::unbounded_channel();
        self.waiting.lock().insert(batch, Waiter { lookup, answers: sender });
        let _forget = Waiting { shared: self, batch };
        let body = message::encode_lookups(batch, &[lookup]);
        let start = self.pick(None)?;
        let mut knows_not = vec![false; nodes];
        for node in (0..TRIES_MAX.min(2 * nodes)).map(|i| (start + i) % nodes) {
            if knows_not[node] {
                continue;
            }
            self.count(&self.counts.foreground, "memds_client_foreground_total", 1);
            self.send(node, &body);
            let deadline = tokio::time::Instant::now() + self.options.timeout;
            while !knows_not[node] {
                match tokio::time::timeout_at(deadline, answers.recv()).await {
                    Ok(Some((_, Some(route)))) => return Some(route),
                    Ok(Some((from, None))) => {
                        let from = self.options.nodes.iter().position(|&n| n == from);
                        from.into_iter().for_each(|from| knows_not[from] = true);
                    }
                    Ok(None) => return None,
                    Err(_) => {
                        self.suspect(node);
                        break;
                    }
                }
            }
        }
        None
    }

    /// The thread: gathers, sends, repeats.
    fn run(&self) {
        let mut sending = Vec::new();
        let mut quiet_rounds = 0;
        let mut next_check = self.started;
        loop {
            let stop = self.gather(&mut sending, quiet_rounds);
            quiet_rounds = if sending.is_empty() { quiet_rounds + 1 } else { 0 };
            for lookups in sending.chunks(message::LOOKUPS_MAX) {
                self.send_mirrored(lookups);
            }
            self.queued.fetch_sub(sending.len(), Ordering::Relaxed);
            if self.has_room() {
                self.room.notify_waiters();
            }
            if stop {
                return;
            }
            sending.clear();
            let now = Instant::now();
            if now >= next_check {
                next_check = now + self.options.mirror_interval;
                if self.repeat_unanswered(now) > 0 {
                    quiet_rounds = 0;
                }
            }
        }
    }

    /// Waits for a batch, or for the time it may take to become one, and takes it.
    fn gather(&self, sending: &mut Vec<Lookup>, quiet_rounds: u32) -> bool {
        let mut mirror = self.mirror.lock();
        if mirror.queue.len() < BATCH_LOOKUPS && !mirror.stop {
            if mirror.queue.is_empty() && quiet_rounds >= QUIET_ROUNDS {
                mirror.asleep = true;
                while mirror.asleep && !mirror.stop {
                    self.wake.wait(&mut mirror);
                }
            }
            if mirror.queue.len() < BATCH_LOOKUPS && !mirror.stop {
                self.wake.wait_for(&mut mirror, self.options.mirror_interval);
            }
        }
        std::mem::swap(&mut mirror.queue, sending);
        mirror.stop
    }

    fn send_mirrored(&self, lookups: &[Lookup]) {
        let Some(node) = self.pick(None) else { return };
        let batch = self.next_batch.fetch_add(1, Ordering::Relaxed);
        let body = message::encode_lookups(batch, lookups);
        let deadline = Instant::now() + self.options.timeout;
        self.count(&self.counts.mirrored, "memds_client_mirrored_total", lookups.len());
        let waiting = Batch { lookups: lookups.to_vec(), node, deadline, repeated: false };
        self.unanswered.lock().insert(batch, waiting);
        self.send(node, &body);
    }

    /// Sends late batches once more, to another node, and gives those up that were. Returns how
    /// many batches are under way.
    fn repeat_unanswered(&self, now: Instant) -> usize {
        let mut late = Vec::new();
        let mut unanswered = self.unanswered.lock();
        unanswered.retain(|&number, batch| {
            if batch.deadline > now {
                return true;
            }
            self.suspect(batch.node);
            if batch.repeated {
                return false;
            }
            let Some(node) = self.pick(Some(batch.node)) else { return false };
            (batch.node, batch.repeated) = (node, true);
            batch.deadline = now + self.options.timeout;
            let body = message::encode_lookups(number, &batch.lookups);
            late.push((node, body, batch.lookups.len()));
            true
        });
        let under_way = unanswered.len();
        drop(unanswered);
        for (node, body, lookups) in late {
            self.count(&self.counts.repeated, "memds_client_repeated_total", lookups);
            self.send(node, &body);
        }
        under_way
    }

    fn handle(&self, frame: &Frame) {
        let answer = match frame.kind {
            FrameKind::MemdsAnswer => message::decode_answer(&frame.body),
            _ => Err(BodyError::Invalid("frame kind for a MemDS client")),
        };
        match answer {
            Ok(answer) => self.take(frame.from, answer),
            Err(error) => {
                tracing::warn!(from = %frame.from, %error, "frame not understood");
                self.count(&self.counts.malformed, "memds_client_malformed_total", 1);
            }
        }
    }

    fn take(&self, from: NodeId, answer: Answer) {
        self.count(&self.counts.answered, "memds_client_answered_total", answer.found.len());
        if let Some(node) = self.options.nodes.iter().position(|&node| node == from) {
            self.suspect_until_ms[node].store(0, Ordering::Relaxed);
        }
        let Some((lookups, mirrored)) = self.lookups_of(answer.batch) else { return };
        let told: Vec<bool> =
            answer.routes.iter().map(|route| !mirrored || self.is_news(route)).collect();
        let routes = answer.found.iter().map(|found| {
            let index = usize::from((*found)?);
            Some((&answer.routes[index], told[index]))
        });
        for (&(_, placement), route) in lookups.iter().zip(routes) {
            if let Some((route, true)) = route {
                (self.on_route)(placement, route);
            }
        }
        if let Some(waiter) = self.waiting.lock().get(&answer.batch) {
            let route = answer.found.first().copied().flatten();
            let route = route.map(|index| answer.routes[usize::from(index)].clone());
            // Nobody listens any more if the lookup ended in this moment.
            let _ = waiter.answers.send((from, route));
        }
    }

    /// What a batch that is under way asked, and whether it is a mirrored one: that is done with
    /// then.
    fn lookups_of(&self, batch: u64) -> Option<(Vec<Lookup>, bool)> {
        if let Some(batch) = self.unanswered.lock().remove(&batch) {
            return Some((batch.lookups, true));
        }
        self.waiting.lock().get(&batch).map(|waiter| (vec![waiter.lookup], false))
    }

    /// Whether no mirrored answer has brought this route, or a newer one, before.
    fn is_news(&self, route: &Route) -> bool {
        let mut newest = self.newest.lock();
        if newest.len() >= NEWEST_PARTITIONS_MAX {
            // Telling routes twice does no harm.
            newest.clear();
        }
        let known = newest.insert(route.partition, route.version);
        match known.filter(|known| *known >= route.version) {
            Some(known) => {
                newest.insert(route.partition, known);
                false
            }
            None => true,
        }
    }

    /// The next node in turn that is not `passed` over nor under suspicion; any if there is none.
    fn pick(&self, passed: Option<usize>) -> Option<usize> {
        let nodes = self.options.nodes.len();
        let start = self.next_node.fetch_add(1, Ordering::Relaxed);
        let now = self.now_ms();
        let in_turn = || (0..nodes).map(|i| start.wrapping_add(i) % nodes);
        let other = |&node: &usize| Some(node) != passed;
        let trusted = |&node: &usize| self.suspect_until_ms[node].load(Ordering::Relaxed) <= now;
        in_turn()
            .filter(other)
            .find(trusted)
            .or_else(|| in_turn().find(other))
            .or_else(|| in_turn().next())
    }

    fn suspect(&self, node: usize) {
        self.suspect_until_ms[node].store(self.now_ms() + SUSPECT_MS, Ordering::Relaxed);
        self.count(&self.counts.timeouts, "memds_client_timeouts_total", 1);
    }

    fn has_room(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < self.options.mirror_lookups_max
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn send(&self, node: usize, body: &Bytes) {
        let (from, to) = (self.options.id, self.options.nodes[node]);
        let kind = FrameKind::MemdsLookup;
        self.transport.send(Frame::new(kind, from, to, PartitionId(0), body.clone()));
    }

    fn count(&self, count: &AtomicU64, name: &'static str, by: usize) {
        count.fetch_add(by as u64, Ordering::Relaxed);
        counter!(name).increment(by as u64);
    }
}

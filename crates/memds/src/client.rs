//! What a router asks MemDS by.
//!
//! A cache miss asks in the foreground ([`Client::lookup`]). A cache hit puts its lookup on the
//! mirror queue ([`Client::mirror`]): one thread sends what has gathered, in frames of many
//! lookups, to the fleet's nodes in turn. Nothing is coalesced and nothing dropped, or the
//! fleet's load would depend on what the caches know: a lookup that stays unanswered is sent
//! again to another node, and a full queue makes callers wait ([`Client::mirror_room`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::{Frame, FrameHandler, FrameKind, Transport};
use wire::placement::Placement;
use wire::service::{Route, RouteVersion};

use crate::message::{self, LOOKUPS_MAX};

/// A question: who serves this placement of this table?
pub type Lookup = (TableId, Placement);

/// Is told the route that a lookup met.
type OnRoute = dyn Fn(Placement, &Route) + Send + Sync;

/// How a client asks.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The address that answers come to.
    pub id: NodeId,
    /// The fleet.
    pub nodes: Vec<NodeId>,
    /// How long an answer may take before another node is asked. Default 100 ms.
    pub timeout: Duration,
    /// How long mirrored lookups gather before they are sent. Default 1 ms.
    pub gather: Duration,
    /// Mirrored lookups not sent yet, at most; then callers wait. Default 65,536.
    pub queue_lookups: usize,
}

impl ClientOptions {
    /// The defaults for an address and a fleet.
    pub fn new(id: NodeId, nodes: Vec<NodeId>) -> ClientOptions {
        ClientOptions {
            id,
            nodes,
            timeout: Duration::from_millis(100),
            gather: Duration::from_millis(1),
            queue_lookups: 65_536,
        }
    }
}

/// What a client counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientStats {
    /// Lookups answered by the fleet, foreground and mirrored.
    pub answered: u64,
    /// Lookups sent again because no answer came in time.
    pub repeated: u64,
    /// Mirrored lookups not answered yet.
    pub pending: u64,
}

/// See the module's text. Connect [`Client::frame_handler`] to the transport under its id.
pub struct Client {
    shared: Arc<Shared>,
    mirror_thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: ClientOptions,
    transport: Arc<dyn Transport>,
    on_route: Box<OnRoute>,
    queue: Mutex<Queue>,
    queue_filled: Condvar,
    queue_emptied: Notify,
    under_way: Mutex<HashMap<u64, Batch>>,
    next_batch: AtomicU64,
    next_node: AtomicUsize,
    stopping: AtomicBool,
    answered: AtomicU64,
    repeated: AtomicU64,
    pending: AtomicU64,
    /// The newest version of each partition's route that answers brought.
    newest: Mutex<HashMap<PartitionId, RouteVersion>>,
}

#[derive(Default)]
struct Queue {
    lookups: Vec<Lookup>,
    /// Whether the mirror thread waits to be told.
    idle: bool,
}

/// Lookups sent and not answered.
struct Batch {
    lookups: Vec<Lookup>,
    sent: Instant,
    /// Who waits for it, if it is a foreground lookup.
    waiter: Option<oneshot::Sender<Option<Route>>>,
}

impl Client {
    /// A client; `on_route` is told the route that each foreground lookup met, and of mirrored
    /// lookups those that are newer than any before.
    pub fn new(
        options: ClientOptions,
        transport: Arc<dyn Transport>,
        on_route: impl Fn(Placement, &Route) + Send + Sync + 'static,
    ) -> std::io::Result<Client> {
        assert!(!options.nodes.is_empty(), "a fleet has nodes");
        let shared = Arc::new(Shared {
            options,
            transport,
            on_route: Box::new(on_route),
            queue: Mutex::new(Queue::default()),
            queue_filled: Condvar::new(),
            queue_emptied: Notify::new(),
            under_way: Mutex::new(HashMap::new()),
            next_batch: AtomicU64::new(1),
            next_node: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            newest: Mutex::new(HashMap::new()),
        });
        let mirror = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("mirror".to_owned());
        let mirror_thread = thread.spawn(move || mirror.run_mirror())?;
        Ok(Client { shared, mirror_thread: Some(mirror_thread) })
    }

    /// What takes the answers.
    pub fn frame_handler(&self) -> Arc<dyn FrameHandler> {
        Arc::new(Answers(Arc::downgrade(&self.shared)))
    }

    /// The route of the partition that holds a placement, from MemDS; `None` if no node of the fleet
    /// knows one.
    ///
    /// *Cancel safety*: dropping the future forgets the answer, no more.
    pub async fn lookup(&self, table: TableId, placement: Placement) -> Option<Route> {
        for _ in 0..self.shared.options.nodes.len() {
            let (waiter, answer) = oneshot::channel();
            let batch = self.shared.send(vec![(table, placement)], Some(waiter));
            match tokio::time::timeout(self.shared.options.timeout, answer).await {
                Ok(Ok(Some(route))) => return Some(route),
                Ok(_) => {}
                Err(_) => {
                    self.shared.repeated.fetch_add(1, Ordering::Relaxed);
                    self.shared.under_way.lock().remove(&batch);
                }
            }
        }
        None
    }

    /// Puts the lookups of cache hits on their way. Never waits; see [`Client::mirror_room`].
    pub fn mirror(&self, lookups: &[Lookup]) {
        self.shared.pending.fetch_add(lookups.len() as u64, Ordering::Relaxed);
        let mut queue = self.shared.queue.lock();
        queue.lookups.extend_from_slice(lookups);
        if queue.idle {
            queue.idle = false;
            self.shared.queue_filled.notify_one();
        }
    }

    /// Whether the mirror queue is full: await [`Client::mirror_room`] before going on.
    pub fn is_full(&self) -> bool {
        self.shared.queue.lock().lookups.len() >= self.shared.options.queue_lookups
    }

    /// Resolves when the mirror queue has room.
    pub async fn mirror_room(&self) {
        loop {
            let emptied = self.shared.queue_emptied.notified();
            if !self.is_full() {
                return;
            }
            emptied.await;
        }
    }

    /// What it counted.
    pub fn stats(&self) -> ClientStats {
        ClientStats {
            answered: self.shared.answered.load(Ordering::Relaxed),
            repeated: self.shared.repeated.load(Ordering::Relaxed),
            pending: self.shared.pending.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        drop(self.shared.queue.lock());
        self.shared.queue_filled.notify_all();
        if let Some(thread) = self.mirror_thread.take() {
            // A thread that panicked has said so on stderr already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Sends lookups to the next node of the fleet; returns the batch's number.
    fn send(&self, lookups: Vec<Lookup>, waiter: Option<oneshot::Sender<Option<Route>>>) -> u64 {
        let batch = self.next_batch.fetch_add(1, Ordering::Relaxed);
        let body = message::encode_lookup(batch, &lookups);
        let sent = Instant::now();
        self.under_way.lock().insert(batch, Batch { lookups, sent, waiter });
        let nodes = &self.options.nodes;
        let node = nodes[self.next_node.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        let (kind, partition) = (FrameKind::MemdsLookup, PartitionId(0));
        self.transport.send(Frame::new(kind, self.options.id, node, partition, body));
        batch
    }

    fn run_mirror(&self) {
        let mut next_check = Instant::now() + self.options.timeout;
        while !self.stopping.load(Ordering::Acquire) {
            let lookups = {
                let mut queue = self.queue.lock();
                if queue.lookups.is_empty() {
                    queue.idle = true;
                    self.queue_filled.wait_for(&mut queue, self.options.timeout);
                    queue.idle = false;
                }
                std::mem::take(&mut queue.lookups)
            };
            self.queue_emptied.notify_waiters();
            for lookups in lookups.chunks(LOOKUPS_MAX) {
                self.send(lookups.to_vec(), None);
            }
            if Instant::now() >= next_check {
                self.repeat_unanswered();
                next_check = Instant::now() + self.options.timeout;
            }
            if !lookups.is_empty() {
                // Not a wait for anything: the next frame shall carry more than one lookup.
                std::thread::sleep(self.options.gather);
            }
        }
    }

    /// Sends mirrored lookups that nobody answered to the next node.
    fn repeat_unanswered(&self) {
        let timeout = self.options.timeout;
        let late = |batch: &Batch| batch.waiter.is_none() && batch.sent.elapsed() > timeout;
        let mut under_way = self.under_way.lock();
        let numbers: Vec<u64> =
            under_way.iter().filter(|(_, batch)| late(batch)).map(|(number, _)| *number).collect();
        let batches: Vec<_> =
            numbers.iter().filter_map(|number| under_way.remove(number)).collect();
        drop(under_way);
        for batch in batches {
            self.repeated.fetch_add(batch.lookups.len() as u64, Ordering::Relaxed);
            self.send(batch.lookups, None);
        }
    }

    fn handle_answer(&self, frame: Frame) {
        let Some(answer) = message::decode_answer(frame.body) else {
            tracing::warn!(from = frame.from.0, "malformed MemDS answer");
            return;
        };
        let Some(batch) = self.under_way.lock().remove(&answer.batch) else { return };
        self.answered.fetch_add(answer.found.len() as u64, Ordering::Relaxed);
        if batch.waiter.is_none() {
            self.pending.fetch_sub(batch.lookups.len() as u64, Ordering::Relaxed);
        }
        let told: Vec<bool> = answer
            .routes
            .iter()
            .map(|route| batch.waiter.is_some() || self.is_news(route))
            .collect();
        for ((_, placement), found) in batch.lookups.iter().zip(&answer.found) {
            if let Some(index) = found.map(usize::from).filter(|index| told[*index]) {
                (self.on_route)(*placement, &answer.routes[index]);
            }
        }
        if let Some(waiter) = batch.waiter {
            let found = answer.found.first().copied().flatten();
            let route = found.map(|index| answer.routes[usize::from(index)].clone());
            // A waiter that is gone has timed out.
            let _ = waiter.send(route);
        }
    }
}

impl Shared {
    /// Whether no answer has brought this route, or a newer one, before.
    fn is_news(&self, route: &Route) -> bool {
        let mut newest = self.newest.lock();
        match newest.get_mut(&route.partition) {
            Some(known) if *known >= route.version => false,
            Some(known) => {
                *known = route.version;
                true
            }
            None => {
                newest.insert(route.partition, route.version);
                true
            }
        }
    }
}

struct Answers(std::sync::Weak<Shared>);

impl FrameHandler for Answers {
    fn handle(&self, frame: Frame) {
        if let (FrameKind::MemdsAnswer, Some(shared)) = (frame.kind, self.0.upgrade()) {
            shared.handle_answer(frame);
        }
    }
}

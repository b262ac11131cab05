//! The storage nodes of one process, as routers see them: a direct call each.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::resp::Reply;
use wire::service::{
    Answer, BoxFuture, BusyScript, Call, Evaluated, Gate, GateOutcome, NodeFault, NodeStatus,
    Order, ScriptControl, ScriptCounts, StorageService, Stored, Transaction, ValueShapes,
};

use crate::care::Change;
use crate::faults::{Faults, blocking};
use crate::node::Node;
use crate::recover::{Assignment, OpenError, abandon, damage_a_file};
use crate::scripting::Scripting;
use crate::shapes::Shapes;

/// An operator's order is given up after so long.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether leadership has moved.
const LEADER_POLL: Duration = Duration::from_millis(5);
/// A node that a panic stopped is opened again after this, and after twice as long each time more.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// The longest time after which it is.
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(300);
/// A node that has run for so long since its last panic has none behind it.
const PANIC_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// A node that could not begin anew is tried again after this.
const BEGIN_ANEW_AFTER: Duration = Duration::from_secs(1);
/// How long it is waited for the word of a damaged node's groups; later they are asked now and then.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// How often they are asked meanwhile.
const ASK_POLL: Duration = Duration::from_millis(200);
/// How often the waits of a node that stands still are looked at.
const PAUSED_POLL: Duration = Duration::from_millis(20);

/// Opens a node again after it was stopped.
/// Its assignments are empty if it was open before: what is not in its folder then was lost.
pub type OpenNode = Box<dyn Fn(&[Assignment]) -> Result<Node, OpenError> + Send + Sync>;
/// Injects faults between nodes.
pub type LinkFaults = Box<dyn Fn(NodeFault) -> Result<(), String> + Send + Sync>;

/// A node's place in the process, whether it runs or not.
pub struct NodeSeat {
    /// Its zone.
    pub zone: Zone,
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds from the beginning.
    pub assignments: Arc<[Assignment]>,
    /// Its faults; those that [`NodeSeat::open`] opens it with.
    pub faults: Arc<Faults>,
    /// Opens it.
    pub open: OpenNode,
}

struct Seat {
    seat: NodeSeat,
    /// The node was open in this process.
    begun: AtomicBool,
    node: RwLock<Option<Arc<Node>>>,
    panics: Mutex<Panics>,
    anew: Mutex<Option<Anew>>,
}

/// A damaged node is to begin anew.
#[derive(Clone, Copy)]
struct Anew {
    /// When the next step is tried.
    due: Instant,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Not all groups have said that they can do without it.
    Ask,
    PutAside,
    Open,
}

/// When a node is opened again after a panic.
#[derive(Default)]
struct Panics {
    /// How often in a row it was.
    reopened: u32,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Panics {
    /// Whether it is time; sets the time when asked first.
    fn is_due(&mut self, now: Instant) -> bool {
        let Some(due) = self.due else {
            if self.last.is_some_and(|last| now - last > PANIC_FORGOTTEN_AFTER) {
                self.reopened = 0;
            }
            let after = REOPEN_AFTER.saturating_mul(1 << self.reopened.min(16));
            self.due = Some(now + after.min(REOPEN_AFTER_MAX));
            self.last = Some(now);
            self.reopened += 1;
            return false;
        };
        let is_due = now >= due;
        if is_due {
            self.due = None;
        }
        is_due
    }
}

impl Seat {
    fn assignments(&self) -> &[Assignment] {
        if self.begun.load(Ordering::Acquire) { &[] } else { &self.seat.assignments }
    }

    fn open(&self) -> Result<Node, OpenError> {
        let node = (self.seat.open)(self.assignments())?;
        self.begun.store(true, Ordering::Release);
        Ok(node)
    }

    /// Puts aside what the node held, unless that is done, and opens it. A disk that refuses now may be
    /// free later: what is left to do stays written down.
    fn begin_anew(&self, id: NodeId) -> Result<Node, OpenError> {
        if self.step() != Some(Step::Open) {
            self.set_step(Step::PutAside);
            abandon(id, &self.seat.folder, self.assignments())?;
            self.begun.store(true, Ordering::Release);
        }
        self.set_step(Step::Open);
        let opened = self.open()?;
        *self.anew.lock() = None;
        Ok(opened)
    }

    fn step(&self) -> Option<Step> {
        self.anew.lock().map(|anew| anew.step)
    }

    fn set_step(&self, step: Step) {
        *self.anew.lock() = Some(Anew { due: Instant::now() + BEGIN_ANEW_AFTER, step });
    }

    /// What is left to do for the node to begin anew, if it is time to try again.
    fn step_due(&self) -> Option<Step> {
        let anew = *self.anew.lock();
        let is_empty = self.node.read().is_none();
        anew.filter(|anew| is_empty && anew.due <= Instant::now()).map(|anew| anew.step)
    }
}

type Seats = BTreeMap<NodeId, Seat>;

/// See the module's text. Nodes can be stopped and started one by one (`ADMIN FAULT`).
pub struct LocalNodes {
    seats: Arc<Seats>,
    links: OnceLock<LinkFaults>,
    partitions: Vec<PartitionId>,
    scripting: Arc<Scripting>,
    shapes: Arc<Shapes>,
}

impl LocalNodes {
    /// No nodes yet. They have all these partitions among them, and share the rest by their options.
    ///
    /// *Panics* if there are no partitions.
    pub fn new(
        partitions: Vec<PartitionId>,
        scripting: Arc<Scripting>,
        shapes: Arc<Shapes>,
    ) -> LocalNodes {
        assert!(!partitions.is_empty(), "a damaged node would ask nobody");
        let (seats, links) = (Arc::default(), OnceLock::new());
        LocalNodes { seats, links, partitions, scripting, shapes }
    }

    /// Keeps a node's seat under its id, empty until [`LocalNodes::open`].
    ///
    /// *Panics* once an order is under way.
    pub fn add(&mut self, id: NodeId, seat: NodeSeat) {
        let seat = Seat {
            seat,
            begun: AtomicBool::new(false),
            node: RwLock::default(),
            panics: Mutex::default(),
            anew: Mutex::default(),
        };
        let seats = Arc::get_mut(&mut self.seats).expect("nodes are added before they are used");
        seats.insert(id, seat);
    }

    /// Opens all nodes, side by side: each has a log to read. What opening said of those whose seats
    /// stay empty is returned.
    pub fn open(&self) -> Vec<(NodeId, OpenError)> {
        std::thread::scope(|scope| {
            let opening: Vec<_> =
                (self.seats.iter()).map(|(id, seat)| (*id, scope.spawn(|| seat.open()))).collect();
            let mut failed = Vec::new();
            for (id, opened) in opening {
                match opened.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                    Ok(node) => *self.seats[&id].node.write() = Some(Arc::new(node)),
                    Err(error) => failed.push((id, error)),
                }
            }
            failed
        })
    }

    /// Has faults between nodes injected by this.
    pub fn set_links(&self, links: LinkFaults) {
        // Set once, where the process is put together.
        let _ = self.links.set(links);
    }

    /// The node with this id, if it runs.
    pub fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.seats.get(&id)?.node.read().clone()
    }

    /// Stops all nodes and waits until their threads have ended.
    pub fn stop(&self) {
        for seat in self.seats.values() {
            stop_seat(seat);
        }
    }

    /// Starts a node that does not run. One whose folder is damaged is abandoned first (see
    /// [`abandon`]), once all groups say that they can do without it. That is waited for a while;
    /// [`LocalNodes::tend`] goes on asking.
    ///
    /// *Errors*: what opening said.
    pub fn start(&self, id: NodeId) -> Result<(), String> {
        let seat = self.seat(id)?;
        if seat.node.read().as_ref().is_some_and(|node| node.is_running()) {
            return Err(format!("node {id} runs already"));
        }
        // What is left of a node that stopped by itself.
        stop_seat(seat);
        let opened = match seat.step() {
            Some(Step::PutAside | Step::Open) => seat.begin_anew(id),
            Some(Step::Ask) | None => match seat.open() {
                Err(OpenError::Damaged(what)) => {
                    tracing::error!(node = id.0, what, "what the node holds is damaged");
                    seat.set_step(Step::Ask);
                    match self.is_let_go(id) {
                        true => seat.begin_anew(id),
                        false => Err(OpenError::Damaged(what)),
                    }
                }
                opened => {
                    *seat.anew.lock() = None;
                    opened
                }
            },
        };
        let opened = Arc::new(opened.map_err(|error| error.to_string())?);
        *seat.node.write() = Some(opened);
        Ok(())
    }

    /// Waits until the groups of a node that is down can do without it; false if it takes too long.
    fn is_let_go(&self, id: NodeId) -> bool {
        let deadline = Instant::now() + ASK_TIMEOUT;
        while !self.can_do_without(id) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(ASK_POLL);
        }
        true
    }

    /// Whether the leader of every partition says that its group can do without this node. Which
    /// partitions the node itself is in, only those know: where one has no leader, nobody goes.
    fn can_do_without(&self, id: NodeId) -> bool {
        let others = self.seats.iter().filter(|(other, _)| **other != id);
        let others: Vec<_> = others.filter_map(|(_, seat)| seat.node.read().clone()).collect();
        // Who is asked in vain would hold back other changes of its group meanwhile.
        let is_led = |partition: &PartitionId| others.iter().any(|node| node.leads(*partition));
        if !self.partitions.iter().all(is_led) {
            return false;
        }
        // All of them: each asks its members when it is asked.
        let does_without =
            |partition: &&PartitionId| others.iter().any(|node| node.does_without(**partition, id));
        self.partitions.iter().filter(does_without).count() == self.partitions.len()
    }

    /// Opens nodes again that stopped to begin anew, since their rows were damaged, or because of a
    /// panic. One that cannot, because its disk is full or fails, or the groups cannot do without it yet,
    /// is tried again. To be called now and then.
    pub fn tend(&self) {
        for (id, seat) in self.seats.iter() {
            let panicked = |node: &Arc<Node>| !node.is_running() && node.panicked();
            let panicked = seat.node.read().as_ref().is_some_and(panicked);
            if panicked && seat.panics.lock().is_due(Instant::now()) {
                match self.start(*id) {
                    Ok(()) => tracing::info!(node = id.0, "opened again after a panic"),
                    Err(error) => tracing::error!(node = id.0, error, "node cannot be opened"),
                }
            }
            let wants = |node: &Arc<Node>| !node.is_running() && node.wants_reopening();
            if seat.node.read().as_ref().is_some_and(wants) {
                stop_seat(seat);
            } else {
                match seat.step_due() {
                    Some(Step::Ask) if !self.can_do_without(*id) => {
                        seat.set_step(Step::Ask);
                        continue;
                    }
                    Some(_) => {}
                    None => continue,
                }
            }
            match seat.begin_anew(*id) {
                Ok(opened) => *seat.node.write() = Some(Arc::new(opened)),
                Err(error) => tracing::error!(node = id.0, %error, "node could not begin anew"),
            }
        }
    }

    fn seat(&self, id: NodeId) -> Result<&Seat, String> {
        self.seats.get(&id).ok_or_else(|| format!("no node {id}"))
    }

    fn pause(&self, id: NodeId) -> Result<(), String> {
        let seat = self.seat(id)?;
        let node = self.node(id).ok_or_else(|| format!("node {id} is stopped"))?;
        let faults = Arc::clone(&seat.seat.faults);
        if faults.is_paused() {
            return Err(format!("node {id} is paused already"));
        }
        faults.pause();
        // A router waits by its own clock; in one process it is the node's, which stands still.
        let node = Arc::downgrade(&node);
        let keep_time = move || {
            std::thread::sleep(PAUSED_POLL);
            faults.refuse_calls();
            while faults.is_paused()
                && let Some(node) = node.upgrade()
            {
                node.end_waits();
                drop(node);
                std::thread::sleep(PAUSED_POLL);
            }
        };
        let started = std::thread::Builder::new().name("paused".into()).spawn(keep_time);
        started.map(drop).map_err(|error| error.to_string())
    }

    fn wipe(&self, id: NodeId) -> Result<(), String> {
        let seat = self.seat(id)?;
        stop_seat(seat);
        match std::fs::remove_dir_all(&seat.seat.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

/// Takes the node out of its seat and waits for its end: calls in flight hold it a little longer.
fn stop_seat(seat: &Seat) -> bool {
    // Calls that a paused node holds go on, and let go of the seat.
    if let Some(node) = &*seat.node.read() {
        node.request_stop();
    }
    let Some(node) = seat.node.write().take() else { return false };
    node.request_stop();
    let mut node = node;
    loop {
        match Arc::try_unwrap(node) {
            Ok(last) => {
                drop(last);
                return true;
            }
            Err(shared) => {
                node = shared;
                std::thread::yield_now();
            }
        }
    }
}

/// The node that leads a partition.
fn leader(seats: &Seats, partition: PartitionId) -> Option<(NodeId, Arc<Node>)> {
    let running = seats.iter().filter_map(|(id, seat)| Some((*id, seat.node.read().clone()?)));
    let mut leaders = running.filter(|(_, node)| node.leads(partition));
    leaders.next()
}

/// The same, once there is one: a lease may be missing for a moment.
async fn leader_in_time(
    seats: &Seats,
    partition: PartitionId,
) -> Result<(NodeId, Arc<Node>), String> {
    let deadline = Instant::now() + ORDER_TIMEOUT;
    let is_here = |seat: &Seat| seat.node.read().as_ref().is_some_and(|it| it.holds(partition));
    loop {
        match leader(seats, partition) {
            Some(found) => return Ok(found),
            // Nobody can come to lead it, or did in time.
            None if Instant::now() > deadline || !seats.values().any(is_here) => {
                return Err(format!("partition {partition} has no leader"));
            }
            None => tokio::time::sleep(LEADER_POLL).await,
        }
    }
}

/// Has another node lead, and waits until it does.
async fn transfer(seats: &Seats, partition: PartitionId, to: NodeId) -> Result<(), String> {
    let deadline = Instant::now() + ORDER_TIMEOUT;
    if !seats.contains_key(&to) {
        return Err(format!("no node {to}"));
    }
    let mut last = format!("partition {partition} has no leader");
    let mut asked = None;
    while Instant::now() < deadline {
        match leader(seats, partition) {
            Some((id, _)) if id == to => return Ok(()),
            // A hand-over that came to nothing is tried again.
            Some((id, node)) if asked != Some(id) || !node.is_handing_over(partition) => {
                node.hand_over(partition, to).map_err(|error| last.clone_from(&error)).ok();
                asked = Some(id);
                if !node.has_storage_replica(partition, to) {
                    return Err(last);
                }
            }
            _ => {}
        }
        tokio::time::sleep(LEADER_POLL).await;
    }
    Err(last)
}

/// Has every node write what only its log holds, one after the other: each is busy with it.
async fn flush(seats: &Seats) -> Result<(), String> {
    let running: Vec<_> = seats.values().filter_map(|seat| seat.node.read().clone()).collect();
    for node in running {
        let flushed = tokio::task::spawn_blocking(move || node.flush()).await;
        flushed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn carry_out(seats: Arc<Seats>, order: Order) -> Result<(), String> {
    let (partition, change) = match order {
        Order::Flush => return flush(&seats).await,
        Order::Transfer { partition, node } => return transfer(&seats, partition, node).await,
        Order::AddReplica { partition, node, log } => (partition, Change::Add { node, log }),
        Order::RemoveReplica { partition, node } => (partition, Change::Remove { node }),
    };
    let (id, mut node) = leader_in_time(&seats, partition).await?;
    if change == (Change::Remove { node: id }) {
        // Nobody shall notice that the leader goes.
        let heir = node.heirs(partition).first().copied();
        let heir = heir.ok_or("there is no other replica that could lead")?;
        transfer(&seats, partition, heir).await?;
        node = leader_in_time(&seats, partition).await?.1;
    }
    let change = node.change_members(partition, change);
    drop(node);
    change.await
}

impl StorageService for LocalNodes {
    fn call(&self, node: NodeId, call: Call<'_>) -> Answer {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.call(call),
                None => Answer::NotHere(None),
            },
            None => Answer::NotHere(None),
        }
    }

    fn call_all(
        &self,
        node: NodeId,
        calls: &[Call<'_>],
        done: &mut Vec<Evaluated>,
    ) -> Option<Answer> {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.call_all(calls, done),
                None => Some(Answer::NotHere(None)),
            },
            None => Some(Answer::NotHere(None)),
        }
    }

    fn transact(&self, node: NodeId, transaction: Transaction<'_>) -> Answer {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.transact(transaction),
                None => Answer::NotHere(None),
            },
            None => Answer::NotHere(None),
        }
    }

    fn outcome(&self, gate: Gate) -> Option<GateOutcome> {
        self.seats.keys().find_map(|id| self.node(*id)?.outcome(gate))
    }

    fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        match self.node(gate.node) {
            Some(node) => node.wait(gate, timeout),
            None => Box::pin(std::future::ready(GateOutcome::Unknown)),
        }
    }

    fn scripts(&self, control: ScriptControl<'_>) -> Reply {
        self.scripting.control(control)
    }

    fn busy_scripts(&self) -> Vec<(TableId, BusyScript)> {
        self.scripting.busy()
    }

    fn shape(&self, shapes: ValueShapes) {
        self.shapes.set(shapes);
    }

    fn keep_expired_until(&self, at_ms: u64) {
        self.shapes.keep_expired_until(at_ms);
    }

    fn script_counts(&self) -> ScriptCounts {
        self.scripting.counts()
    }

    fn status(&self) -> Vec<NodeStatus> {
        let status = |(id, seat): (&NodeId, &Seat)| match &*seat.node.read() {
            Some(node) => node.status(),
            None => NodeStatus::stopped(*id, seat.seat.zone.clone()),
        };
        self.seats.iter().map(status).collect()
    }

    fn applied(&self, partition: PartitionId) -> Vec<(NodeId, u64)> {
        let applied = |(id, seat): (&NodeId, &Seat)| {
            let node = seat.node.read();
            Some((*id, node.as_ref()?.applied(partition)?))
        };
        self.seats.iter().filter_map(applied).collect()
    }

    fn running_nodes(&self) -> usize {
        let runs = |seat: &&Seat| seat.node.read().as_ref().is_some_and(|node| node.is_running());
        self.seats.values().filter(runs).count()
    }

    fn order(&self, order: Order) -> BoxFuture<Result<(), String>> {
        Box::pin(carry_out(Arc::clone(&self.seats), order))
    }

    fn fault(&self, fault: NodeFault) -> Result<(), String> {
        match fault {
            NodeFault::Stop(id) => {
                let seat = self.seat(id)?;
                let stopped = blocking(|| stop_seat(seat));
                stopped.then_some(()).ok_or_else(|| format!("node {id} is stopped already"))
            }
            NodeFault::Start(id) => blocking(|| self.start(id)),
            NodeFault::Pause(id) => self.pause(id),
            NodeFault::Resume(id) => {
                self.seat(id)?.seat.faults.resume();
                Ok(())
            }
            NodeFault::Clock(id, ahead_ms) => {
                self.seat(id)?.seat.faults.set_clock_ahead_ms(ahead_ms);
                Ok(())
            }
            NodeFault::KeepExpired(id, keeps) => {
                self.seat(id)?.seat.faults.keep_expired(keeps);
                Ok(())
            }
            NodeFault::Disk(id, fault) => {
                self.seat(id)?.seat.faults.set_disk(fault);
                Ok(())
            }
            NodeFault::Corrupt(id, stored, at) => {
                let folder = &self.seat(id)?.seat.folder;
                let (path, offset) = damage_a_file(folder, stored == Stored::Table, at)
                    .map_err(|error| error.to_string())?;
                tracing::warn!(node = id.0, ?path, offset, "changed a byte, as ordered");
                Ok(())
            }
            NodeFault::Wipe(id) => blocking(|| self.wipe(id)),
            NodeFault::Panic(id) => {
                self.node(id).ok_or_else(|| format!("node {id} is stopped"))?;
                self.seat(id)?.seat.faults.panic_once();
                Ok(())
            }
            NodeFault::Cut(..) | NodeFault::Join | NodeFault::Delay(_) => {
                let links = self.links.get().ok_or("links of this process have no faults")?;
                links(fault)
            }
        }
    }
}

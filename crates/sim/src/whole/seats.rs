//! The storage nodes of a run: processes that come and go over their disks, and how routers reach them.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memds::Publisher;
use parking_lot::Mutex;
use storage::machine::{self, Machine, Time};
use storage::{Assignment, Faults, NodeOptions, OpenError, Publish, Stepped, Surroundings};
use tokio::runtime::Handle;
use tokio::time::sleep;
use wire::ids::{CommandId, NodeId, PartitionId, TableId, Zone};
use wire::peer::{Frame, FrameHandler, Transport};
use wire::resp::Reply;
use wire::service::{
    Answer, BoxFuture, Call, Evaluated, Gate, GateOutcome, NodeFault, NodeStatus, Order, Request,
    ScriptClient, ScriptControl, ScriptCounts, Served, StorageService, Transaction,
};

use super::MEMDS;
use super::clock::{Clock, Dice, Now};
use super::disk::Disk;
use super::ether::{Ether, place};

/// How often it is looked whether a process that stands still goes on.
const PAUSED_POLL: Duration = Duration::from_millis(1);

/// How late one who has given up is forgotten, if no frame says.
const FORGOTTEN_US: u64 = 20_000;

/// The folder of a node on its disk.
pub(crate) fn folder() -> &'static Path {
    Path::new("node")
}

/// A node's place, whether a process runs in it or not.
pub(crate) struct Seat {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<Clock>,
    options: NodeOptions,
    zone: Zone,
    assignments: Vec<Assignment>,
    running: Mutex<Option<Running>>,
    /// The node was open once: what is not in its folder then was lost.
    begun: AtomicU64,
    /// What the node holds is to be put aside, which its disk refused.
    to_abandon: AtomicBool,
    /// Which life of the process this is: events of an older one mean nothing.
    life: AtomicU64,
    paused_until: AtomicU64,
}

struct Running {
    stepped: Stepped,
    handler: Arc<dyn FrameHandler>,
}

impl Seat {
    pub(crate) fn new(
        (seed, id, zone): (u64, NodeId, Zone),
        (disk, clock): (Disk, Arc<Clock>),
        mut options: NodeOptions,
        assignments: Vec<Assignment>,
    ) -> Seat {
        options.machine = Machine {
            disk: machine::Disk::Other(Arc::new(disk.clone())),
            time: Time::Virtual(clock.clone()),
            chance: machine::Chance::Virtual(Dice::new(seed, id.0 as usize)),
        };
        Seat {
            id,
            disk,
            clock,
            options,
            zone,
            assignments,
            running: Mutex::default(),
            begun: AtomicU64::new(0),
            to_abandon: AtomicBool::new(false),
            life: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
        }
    }

    fn assignments(&self) -> &[Assignment] {
        if self.begun.load(Relaxed) == 1 { &[] } else { &self.assignments }
    }

    pub(crate) fn life(&self) -> u64 {
        self.life.load(Relaxed)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.lock().is_some()
    }

    pub(crate) fn pause(&self, until: u64) {
        self.paused_until.store(until, Relaxed);
    }

    pub(crate) fn paused_until(&self) -> u64 {
        self.paused_until.load(Relaxed)
    }

    /// Does something with the node, if it runs.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Stepped) -> R) -> Option<R> {
        self.running.lock().as_mut().map(|running| act(&mut running.stepped))
    }

    /// Starts the process. One whose folder is damaged is abandoned first, if `may_abandon` says so then:
    /// tells what was damaged.
    pub(crate) fn start(
        &self,
        ether: &Ether,
        may_abandon: impl FnOnce() -> bool,
    ) -> Result<Option<String>, OpenError> {
        if self.to_abandon.load(Relaxed) {
            self.abandon()?;
        }
        let mut damage = None;
        let opened = match self.open(ether) {
            Err(OpenError::Damaged(what)) if may_abandon() => {
                tracing::info!(node = self.id.0, what, "abandoned");
                damage = Some(what);
                self.abandon()?;
                self.open(ether)
            }
            opened => opened,
        };
        *self.running.lock() = Some(opened?);
        self.begun.store(1, Relaxed);
        Ok(damage)
    }

    /// Crosses out what the node holds; if its disk refuses, the next start does.
    pub(crate) fn abandon(&self) -> Result<(), OpenError> {
        let disk = machine::Disk::Other(Arc::new(self.disk.clone()));
        self.to_abandon.store(true, Relaxed);
        storage::abandon_on(&disk, self.id, folder(), self.assignments())?;
        self.to_abandon.store(false, Relaxed);
        self.begun.store(1, Relaxed);
        Ok(())
    }

    fn open(&self, ether: &Ether) -> Result<Running, OpenError> {
        let transport: Arc<dyn Transport> = Arc::new(ether.clone());
        let publisher = Publisher::new(self.id, MEMDS.to_vec(), transport.clone());
        let publish: Publish =
            Arc::new(move |route| publisher.announce(std::slice::from_ref(&route)));
        let surroundings = Surroundings { transport, publish, faults: Arc::new(Faults::default()) };
        let (zone, options) = (self.zone.clone(), self.options.clone());
        let assignments = self.assignments();
        let stepped = Stepped::open(self.id, zone, folder(), options, assignments, surroundings)?;
        let handler = stepped.node().frame_handler();
        Ok(Running { stepped, handler })
    }

    /// Kills the process; with the power, what its disk has not made durable is lost. False if there
    /// was none.
    pub(crate) fn kill(&self, power_fails: bool) -> bool {
        // First, so that nothing is written by the way it ends.
        self.disk.set_fuse(Some(0));
        let running = self.running.lock().take();
        let was_running = running.is_some();
        drop(running);
        self.disk.crash(power_fails);
        self.life.fetch_add(1, Relaxed);
        self.paused_until.store(0, Relaxed);
        was_running
    }

    /// A frame arrives.
    pub(crate) fn hear(&self, frame: Frame) {
        let handler = self.running.lock().as_ref().map(|running| running.handler.clone());
        if let Some(handler) = handler {
            handler.handle(frame.from, frame);
        }
    }
}

/// All nodes, as a router sees them.
pub(crate) struct Seats {
    pub(crate) seats: Vec<Seat>,
    pub(crate) now: Now,
    ether: Ether,
    /// Calls travel, and may be lost; else they are made where the router is.
    travels: bool,
}

/// A call that is on its way.
struct Travelling {
    command: CommandId,
    table: TableId,
    partition: PartitionId,
    epoch: u64,
    args: Vec<Bytes>,
    origin: u64,
    request: Option<Request>,
    waiting_since: Option<Instant>,
    client: Option<Arc<dyn ScriptClient>>,
}

impl Seats {
    pub(crate) fn new(seats: Vec<Seat>, now: Now, ether: Ether, travels: bool) -> Seats {
        Seats { seats, now, ether, travels }
    }

    fn seat(&self, node: NodeId) -> Option<&Seat> {
        self.seats.get((node.0 as usize).checked_sub(1)?)
    }

    /// The node, if a process runs there and does not stand still.
    fn on<R>(&self, node: NodeId, act: impl FnOnce(&Stepped) -> R) -> Result<R, Answer> {
        let seat = self.seat(node).ok_or(Answer::NotHere(None))?;
        if seat.paused_until() > self.now.get() {
            return Err(Answer::NotYet);
        }
        seat.with(|stepped| act(stepped)).ok_or(Answer::NotHere(None))
    }
}

/// Handles of a router to all nodes.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) seats: Arc<Seats>,
    /// The router's number, from 0.
    pub(crate) router: u32,
}

impl Reach {
    /// Travels to a node, and waits while that stands still; false if the message is lost.
    async fn travel(&self, node: NodeId, forth: bool) -> bool {
        let nodes = self.seats.seats.len();
        let router = place(NodeId(super::ROUTER + self.router), nodes);
        let node = place(node, nodes);
        let (from, to) = if forth { (router, node) } else { (node, router) };
        let Some(delay_us) = self.seats.ether.travel(from, to) else { return false };
        sleep(Duration::from_micros(delay_us)).await;
        while self.seats.seats[node].paused_until() > self.seats.now.get() {
            sleep(PAUSED_POLL).await;
        }
        true
    }

    /// A leader learns late that nobody waits for a call in its line any more: whoever gave up has the
    /// claim, and takes the call out of the line when it comes to it.
    fn forgotten_late(&self, node: NodeId, answer: Answer) -> Answer {
        let Answer::Waits(mut waiting) = answer else { return answer };
        let nodes = self.seats.seats.len();
        let router = place(NodeId(super::ROUTER + self.router), nodes);
        let late_us = self.seats.ether.travel(router, place(node, nodes));
        let late = Duration::from_micros(late_us.unwrap_or(FORGOTTEN_US));
        let served = std::mem::replace(&mut waiting.served, Box::pin(std::future::pending()));
        waiting.served = Box::pin(InLine { served: Some(served), late });
        Answer::Waits(waiting)
    }

    async fn call_far(self, node: NodeId, call: Travelling) -> Answer {
        if !self.travel(node, true).await {
            return std::future::pending().await;
        }
        let answer = {
            let Travelling {
                command,
                table,
                partition,
                epoch,
                ref args,
                origin,
                waiting_since,
                ..
            } = call;
            let (request, client) = (call.request, call.client.as_ref());
            let call = Call {
                command,
                table,
                partition,
                epoch,
                args,
                origin,
                request,
                waiting_since,
                client,
            };
            let answer = self.seats.on(node, |stepped| stepped.node().call(call));
            self.forgotten_late(node, answer.unwrap_or_else(|no| no))
        };
        if !self.travel(node, false).await {
            return std::future::pending().await;
        }
        answer
    }

    async fn wait_far(self, gate: Gate, timeout: Duration) -> GateOutcome {
        let wait = async {
            if !self.travel(gate.node, true).await {
                return std::future::pending().await;
            }
            let waiting = self.seats.on(gate.node, |stepped| stepped.node().wait(gate, timeout));
            let Ok(waiting) = waiting else { return GateOutcome::Unknown };
            let outcome = waiting.await;
            if !self.travel(gate.node, false).await {
                return std::future::pending().await;
            }
            outcome
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(GateOutcome::Unknown)
    }
}

/// What one who waits holds; its place in line outlives it a little.
struct InLine {
    served: Option<BoxFuture<Option<Served>>>,
    late: Duration,
}

impl Future for InLine {
    type Output = Option<Served>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.served {
            Some(served) => served.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        // Nothing is late once the run has ended.
        if let (Some(served), Ok(runtime)) = (self.served.take(), Handle::try_current()) {
            let late = self.late;
            runtime.spawn(async move {
                sleep(late).await;
                drop(served);
            });
        }
    }
}

impl StorageService for Reach {
    fn call(&self, node: NodeId, call: Call<'_>) -> Answer {
        if !self.seats.travels {
            let answer = self.seats.on(node, |stepped| stepped.node().call(call));
            return self.forgotten_late(node, answer.unwrap_or_else(|no| no));
        }
        let Call { command, table, partition, epoch, args, origin, request, waiting_since, client } =
            call;
        let (args, client) = (args.to_vec(), client.cloned());
        let call = Travelling {
            command,
            table,
            partition,
            epoch,
            args,
            origin,
            request,
            waiting_since,
            client,
        };
        Answer::Later(Box::pin(self.clone().call_far(node, call)))
    }

    fn call_all(
        &self,
        node: NodeId,
        calls: &[Call<'_>],
        done: &mut Vec<Evaluated>,
    ) -> Option<Answer> {
        if self.seats.travels {
            return calls.first().map(|call| self.call(node, *call));
        }
        match self.seats.on(node, |stepped| stepped.node().call_all(calls, done)) {
            Ok(answer) => answer.map(|answer| self.forgotten_late(node, answer)),
            Err(no) => Some(no),
        }
    }

    fn transact(&self, node: NodeId, transaction: Transaction<'_>) -> Answer {
        let run = |stepped: &Stepped| stepped.node().transact(transaction);
        self.seats.on(node, run).unwrap_or_else(|no| no)
    }

    fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        if self.seats.travels {
            return Box::pin(self.clone().wait_far(gate, timeout));
        }
        match self.seats.on(gate.node, |stepped| stepped.node().wait(gate, timeout)) {
            Ok(waiting) => waiting,
            Err(_) => Box::pin(std::future::ready(GateOutcome::Unknown)),
        }
    }

    fn outcome(&self, gate: Gate) -> Option<GateOutcome> {
        let nodes = (1..=self.seats.seats.len() as u32).map(NodeId);
        let ask = |node| self.seats.on(node, |stepped| stepped.node().outcome(gate)).ok().flatten();
        nodes.into_iter().find_map(ask)
    }

    fn scripts(&self, _: ScriptControl<'_>) -> Reply {
        Reply::Null
    }

    fn script_counts(&self) -> ScriptCounts {
        ScriptCounts::default()
    }

    fn status(&self) -> Vec<NodeStatus> {
        Vec::new()
    }

    fn order(&self, _: Order) -> BoxFuture<Result<(), String>> {
        Box::pin(std::future::ready(Err("there is no operator".into())))
    }

    fn fault(&self, _: NodeFault) -> Result<(), String> {
        Err("faults come from the seed".into())
    }
}

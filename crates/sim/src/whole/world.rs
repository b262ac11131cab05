//! The run: a queue of events in virtual time, and what each does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use memds::{ClientOptions, MemdsClient, MemdsNode};
use parking_lot::Mutex;
use router::{Host, RouteCache, Router, RouterOptions, Shutdown};
use storage::{Assignment, Node, OpenError};
use tokio::task::JoinHandle;
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::peer::{Frame, FrameHandler, Transport};
use wire::placement::PlacementRange;

use super::amnesia::Amnesia;
use super::clock::{Clock, Now};
use super::disk::Disk;
use super::ether::Ether;
use super::faults::{Faults, WALL_OFF_MS_MAX};
use super::holds::Holds;
use super::limits;
use super::seats::{Reach, Seat, Seats, folder};
use super::voices;
use super::watch::Watch;
use super::work::{Client, Ledger};
use super::{MEMDS, ROUTER, Summary};
use crate::checks::{Violation, violation};
use crate::random::Random;
use crate::trace::Trace;

/// The partitions of a run, each a whole table.
pub(super) const PARTITIONS: [PartitionId; 2] = [PartitionId(1), PartitionId(2)];
/// How often a node's clock thread makes its round.
const TICK_US: u64 = 20_000;
/// How often the keeper looks around if nothing happens.
const KEEP_US: u64 = 50_000;
/// How often what has to wait is tried again.
const AGAIN_US: u64 = 2_000;
/// How often MemDS nodes compare their maps.
const HEAL_US: u64 = 5_000_000;
/// How often the end of a run looks whether all is well.
const PROBE_US: u64 = 50_000;
/// How long after the last fault everything must be answered and all replicas agree.
const RECOVERY_MAX_US: u64 = 60_000_000;
/// A disk that is well syncs within this.
pub(super) const SYNC_US: u64 = 2_000;
/// A run that takes more events than this talks in circles.
const EVENTS_MAX: u64 = 3_000_000;
/// A node that could not be opened is tried again after this.
const REOPEN_US: u64 = 300_000;
/// Turns that tasks get after an event.
const TURNS: usize = 3;
/// How many of a thousand runs are gentle.
const GENTLE_PER_MILLE: u64 = 125;
/// Clients of a gentle run: they write as much as the log is to hold while somebody is away.
const GENTLE_CLIENTS: u64 = 7;
/// How long a part of a snapshot takes in a gentle run whose faults are over: less than until it is asked
/// for again, and so long that the whole takes longer than the log is kept.
const SLOW_GIVER_US: (u64, u64) = (200_000, 600_000);
/// Between two looks at who may answer reads, in events.
const LEASES_EVERY: u64 = 4;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    Frame(Frame),
    Synced {
        node: usize,
        life: u64,
    },
    Beat {
        node: usize,
        life: u64,
    },
    Tick {
        node: usize,
        life: u64,
    },
    /// The keeper looks around.
    Keep {
        node: usize,
        life: u64,
    },
    /// The keeper has something to do.
    KeepNow {
        node: usize,
        life: u64,
    },
    CatchUp {
        node: usize,
        life: u64,
    },
    Give {
        node: usize,
        life: u64,
    },
    Flush {
        node: usize,
        life: u64,
    },
    /// The node's rows are flushed, or compacted, though they need not be.
    Tend,
    Restart {
        node: usize,
    },
    NotFull {
        node: usize,
    },
    ReadsWell {
        node: usize,
    },
    Heal,
    Fault,
    Calm,
    Probe,
}

/// What a node's threads are doing.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Agenda {
    syncing: bool,
    keeping: bool,
    giving: bool,
    reading: bool,
    flushing: bool,
    /// If the process dies at a step: for how long.
    pub(super) down_us: u64,
}

/// A node that has lost what was durable: until its groups are whole again no other may.
#[derive(Debug)]
pub(super) struct Wound {
    pub(super) newest: Vec<u64>,
}

/// The store and everything around it.
pub(crate) struct World<'a> {
    pub(super) now: Now,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) seats: Arc<Seats>,
    pub(super) agendas: Vec<Agenda>,
    pub(super) sync_us: Vec<u64>,
    pub(super) ether: Ether,
    fleet: Vec<Arc<MemdsNode>>,
    asker: Arc<MemdsClient>,
    clients: Vec<Client>,
    /// Clients at work: what they have asked for is answered before everything is read once more.
    working: Vec<JoinHandle<()>>,
    closing: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    pub(super) faults: Faults,
    pub(super) random: Random,
    pub(super) watch: Watch,
    pub(super) holds: Holds,
    pub(super) wound: Option<Wound>,
    pub(super) amnesia: Amnesia,
    /// Nodes on whose disks a bit has changed.
    pub(super) flipped: Vec<bool>,
    broken: Option<Violation>,
    /// Clocks drift apart by more than the margin: what rests on time is not promised.
    loose: bool,
    pub(super) trace: &'a mut Trace,
    pub(super) summary: Summary,
    pub(super) calm_at: u64,
    pub(super) calm: bool,
    /// A short log, slow snapshots, few faults: replicas that have older rows get snapshots.
    pub(super) gentle: bool,
    /// Clients work on until all replicas have come so far.
    catching_up: Option<Vec<u64>>,
    slept_us: u64,
}

impl<'a> World<'a> {
    /// Must be made within the runtime.
    pub(crate) fn new(seed: u64, trace: &'a mut Trace) -> World<'a> {
        let mut random = Random::new(seed, "whole");
        let now = Now::new();
        let (founders, spares) = random.pick(&[(3, 0), (3, 1), (3, 2), (5, 0)]);
        let nodes = founders + spares;
        let loose = random.chance(50);
        let gentle = Random::new(seed, "gentle").chance(GENTLE_PER_MILLE);
        let faults = Faults::new(seed, gentle);
        let disks: Vec<_> = (0..nodes).map(|node| Disk::new(seed, node)).collect();
        let ether = Ether::new(seed, now.clone(), disks.clone());
        let options = limits::of_run((seed, gentle), &mut random, nodes);
        trace.line(0, || format!("seed {seed}: {founders} + {spares} nodes, {options:?}"));
        let seats = disks.into_iter().enumerate().map(|(at, disk)| {
            let id = NodeId(at as u32 + 1);
            let wall = random.between(0, 2 * WALL_OFF_MS_MAX as u64) as i64 - WALL_OFF_MS_MAX;
            let wall = if faults.walls { wall } else { 0 };
            let clock = Clock::new(now.clone(), drift(loose, &mut random), wall);
            let zone = zone_of(id);
            Seat::new((seed, id, zone), (disk, clock), options.clone(), assignments(founders))
        });
        let seats: Vec<_> = seats.collect();
        let travels = random.chance(500);
        let seats = Arc::new(Seats::new(seats, now.clone(), ether.clone(), travels));
        let (fleet, asker, routers) = front(&ether, &seats, random.between(1, 2) as u32);
        let (is_over, ledger) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Ledger>>::default());
        let client = |at: u64| Client {
            number: at,
            now: now.clone(),
            router: routers[at as usize % routers.len()].clone(),
            ledger: ledger.clone(),
            random: Random::new(seed, &format!("client {at}")),
            is_over: is_over.clone(),
        };
        let clients = random.between(2, 6);
        let clients = (0..if gentle { GENTLE_CLIENTS } else { clients }).map(client).collect();
        World {
            queue: BTreeMap::new(),
            scheduled: 0,
            agendas: vec![Agenda::default(); nodes],
            sync_us: vec![SYNC_US; nodes],
            flipped: vec![false; nodes],
            broken: None,
            working: Vec::new(),
            closing: None,
            watch: Watch::default(),
            holds: Holds::default(),
            wound: None,
            amnesia: Amnesia::new(seed, gentle),
            summary: Summary::default(),
            calm_at: random.between(3_000_000, 10_000_000),
            calm: false,
            gentle,
            catching_up: None,
            slept_us: 0,
            now,
            seats,
            ether,
            fleet,
            asker,
            clients,
            is_over,
            ledger,
            faults,
            random,
            loose,
            trace,
        }
    }

    /// Runs until the faults have stopped and everything agrees.
    pub(crate) async fn run(mut self) -> Result<Summary, Violation> {
        let _ear = self.trace.is_kept().then(|| tracing::subscriber::set_default(voices::Ear));
        tokio::spawn(self.asker.clone().run());
        for node in 0..self.seats.seats.len() {
            self.start(node);
        }
        for partition in PARTITIONS {
            let first = self.random.below(3) as usize;
            self.seats.seats[first].with(|stepped| stepped.node().campaign(partition));
        }
        let last = self.clients.pop();
        let working = self.clients.drain(..).map(|client| tokio::spawn(client.run()));
        self.working.extend(working);
        self.clients.extend(last);
        self.after(HEAL_US, Event::Heal);
        self.after(100_000, Event::Tend);
        let gap = self.faults.gap_us();
        self.after(gap, Event::Fault);
        self.after(self.calm_at, Event::Calm);
        self.attend_all()?;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now.set(at);
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return violation("no storm", format!("{EVENTS_MAX} events and no end"));
            }
            self.sleep().await;
            let done = self.happen(event)?;
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            self.attend_all()?;
            if done {
                return self.finish();
            }
        }
        unreachable!("the last event of a run asks for the next")
    }

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now.get() + delay_us, event);
    }

    pub(super) fn at(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at_us, self.scheduled), event);
    }

    /// Moves the runtime's clock on, which knows milliseconds.
    async fn sleep(&mut self) {
        let passed = self.now.get() - self.slept_us;
        if passed >= 1_000 {
            self.slept_us = self.now.get();
            tokio::time::advance(Duration::from_micros(passed)).await;
        }
    }

    /// True when the run is over.
    fn happen(&mut self, event: Event) -> Result<bool, Violation> {
        if self.is_old(&event) {
            return Ok(false);
        }
        if let Some(until) = self.held_until(&event) {
            // Ties keep their order: what came first is put back first.
            self.at(until, event);
            return Ok(false);
        }
        match event {
            Event::Frame(frame) => self.deliver(frame),
            Event::Synced { node, .. } => {
                self.agendas[node].syncing = false;
                self.seats.seats[node].with(|stepped| stepped.end_sync());
                self.amnesia.synced = Some(node);
            }
            Event::Beat { node, life } => {
                let rest = self.seats.seats[node].with(|stepped| stepped.beat());
                if let Some(rest) = rest {
                    let real_us = self.seats.seats[node].clock.real_us(rest.as_micros() as u64);
                    self.after(real_us, Event::Beat { node, life });
                }
            }
            Event::Tick { node, life } => {
                self.seats.seats[node].with(|stepped| stepped.tick());
                self.after(TICK_US, Event::Tick { node, life });
            }
            Event::Keep { node, life } => {
                // One that has to wait is made up for by the next.
                self.seats.seats[node].with(|stepped| stepped.keep());
                self.after(KEEP_US, Event::Keep { node, life });
            }
            Event::KeepNow { node, life } => {
                let kept = self.seats.seats[node].with(|stepped| stepped.keep());
                self.agendas[node].keeping = kept == Some(false);
                if kept == Some(false) {
                    self.after(AGAIN_US, Event::KeepNow { node, life });
                }
            }
            Event::Give { node, life } => {
                let gave = self.seats.seats[node].with(|stepped| stepped.give());
                self.agendas[node].giving = gave == Some(false);
                if gave == Some(false) {
                    self.after(AGAIN_US, Event::Give { node, life });
                }
            }
            Event::CatchUp { node, .. } => {
                self.agendas[node].reading = false;
                self.seats.seats[node].with(|stepped| stepped.catch_up());
            }
            Event::Flush { node, life } => self.flush(node, life),
            Event::Tend => self.tend(),
            Event::Restart { node } => self.start(node),
            Event::NotFull { node } => self.seats.seats[node].disk.set_full(false),
            Event::ReadsWell { node } => self.seats.seats[node].disk.set_misreads(0),
            Event::Heal => {
                for (at, node) in self.fleet.iter().enumerate() {
                    node.heal_from(MEMDS[(at + 1) % MEMDS.len()]);
                }
                self.after(HEAL_US, Event::Heal);
            }
            Event::Fault => self.fault(),
            Event::Calm => self.calm_in_time(),
            Event::Probe => return self.probe(),
        }
        Ok(false)
    }

    /// Until when the event's node stands still.
    fn held_until(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Frame(frame) => (frame.to.0 as usize).wrapping_sub(1),
            Event::Synced { node, .. }
            | Event::Beat { node, .. }
            | Event::Tick { node, .. }
            | Event::Keep { node, .. }
            | Event::KeepNow { node, .. }
            | Event::Give { node, .. }
            | Event::CatchUp { node, .. }
            | Event::Flush { node, .. } => *node,
            _ => return None,
        };
        let until = self.seats.seats.get(node)?.paused_until();
        (until > self.now.get()).then_some(until)
    }

    /// Whether the event is of a life that is over.
    fn is_old(&self, event: &Event) -> bool {
        match event {
            Event::Synced { node, life }
            | Event::Beat { node, life }
            | Event::Tick { node, life }
            | Event::Keep { node, life }
            | Event::KeepNow { node, life }
            | Event::Give { node, life }
            | Event::CatchUp { node, life }
            | Event::Flush { node, life } => self.seats.seats[*node].life() != *life,
            _ => false,
        }
    }

    fn deliver(&mut self, frame: Frame) {
        // What is on its way when a link is cut is lost as well.
        if !self.ether.arrives(&frame) {
            return;
        }
        match frame.to.0 {
            id if id >= ROUTER => self.asker.handle(frame.from, frame),
            id if id >= MEMDS[0].0 => {
                self.fleet[(id - MEMDS[0].0) as usize].handle(frame.from, frame);
            }
            id => self.seats.seats[id as usize - 1].hear(frame),
        }
    }

    fn flush(&mut self, node: usize, life: u64) {
        let seat = &self.seats.seats[node];
        let waits = seat.with(|stepped| {
            stepped.flush();
            stepped.is_flushing()
        });
        self.agendas[node].flushing = waits == Some(true);
        if waits == Some(true) {
            self.after(AGAIN_US, Event::Flush { node, life });
        }
    }

    /// Some node flushes or compacts.
    fn tend(&mut self) {
        let node = self.random.below(self.seats.seats.len() as u64) as usize;
        let life = self.seats.seats[node].life();
        if self.random.chance(300) {
            // An error is one of the disk, which others will meet, too.
            self.seats.seats[node].with(|stepped| stepped.compact().ok());
        } else if !self.agendas[node].flushing {
            self.agendas[node].flushing = true;
            self.after(0, Event::Flush { node, life });
        }
        let gap = self.random.skewed(10_000, 1_000_000);
        self.after(gap, Event::Tend);
    }

    pub(super) fn start(&mut self, node: usize) {
        let seats = Arc::clone(&self.seats);
        let seat = &seats.seats[node];
        if seat.is_running() {
            return;
        }
        // A log that is read wrongly as a whole cannot be told from one that was torn.
        seat.disk.set_misreads(0);
        let opened = seat.start(&self.ether, || self.can_do_without(node));
        if let Some(what) = opened.as_ref().map_or_else(damage_of, Option::as_ref)
            && !self.flipped[node]
        {
            let detail = format!("node {}: {what}", node + 1);
            self.broken = Some(Violation { check: "no damage but what was done", detail });
        }
        let life = seat.life();
        self.agendas[node] = Agenda::default();
        if opened.is_ok()
            && let Some(name) = seat.disk.name_to_lose()
            && !name.starts_with(folder().join("incoming"))
        {
            let detail = format!("node {}: {}", node + 1, name.display());
            self.broken = Some(Violation { check: "what a start finds is durable", detail });
        }
        match opened {
            Ok(damage) => {
                self.summary.abandoned += u64::from(damage.is_some());
                self.note(|| format!("{} starts", node + 1));
                self.after(0, Event::Beat { node, life });
                self.after(TICK_US, Event::Tick { node, life });
                self.after(0, Event::Keep { node, life });
            }
            Err(error) => {
                self.note(|| format!("{} cannot start: {error}", node + 1));
                seat.kill(false);
                self.after(REOPEN_US, Event::Restart { node });
            }
        }
    }

    /// Whether the leader of every partition says that its group can do without a node.
    fn can_do_without(&self, node: usize) -> bool {
        let seats = &self.seats.seats;
        let id = seats[node].id;
        let any = |says: &dyn Fn(&Node) -> bool| {
            seats.iter().any(|seat| seat.with(|stepped| says(stepped.node())) == Some(true))
        };
        let is_led = |partition: &PartitionId| any(&|node| node.leads(*partition));
        let does_without =
            |partition: &&PartitionId| any(&|node| node.does_without(**partition, id));
        PARTITIONS.iter().all(is_led)
            && PARTITIONS.iter().filter(does_without).count() == PARTITIONS.len()
    }

    /// Kills a process.
    pub(super) fn crash(&mut self, node: usize, power_fails: bool, down_us: u64) {
        if self.seats.seats[node].kill(power_fails) {
            self.summary.crashes += 1;
            self.note(|| {
                let power = if power_fails { ", and its power fails" } else { "" };
                format!("{} dies{power}", node + 1)
            });
            self.agendas[node] = Agenda::default();
            self.after(down_us, Event::Restart { node });
        }
    }

    /// Looks at all nodes after an event.
    fn attend_all(&mut self) -> Result<(), Violation> {
        for line in voices::said() {
            self.note(|| line);
        }
        if let Some(panic) = voices::panicked() {
            return violation("panic", panic);
        }
        let said = self.ether.take();
        self.forget_synced(&said);
        for (at, frame) in said {
            self.at(at, Event::Frame(frame));
        }
        self.forget_more();
        for node in 0..self.seats.seats.len() {
            self.attend(node)?;
        }
        if !self.loose && self.summary.events.is_multiple_of(LEASES_EVERY) {
            self.watch.leases(&self.seats.seats, self.now.get())?;
        }
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        self.ledger.lock().broken()
    }

    fn attend(&mut self, node: usize) -> Result<(), Violation> {
        let seats = Arc::clone(&self.seats);
        let seat = &seats.seats[node];
        if seat.disk.is_off() && seat.is_running() {
            let power_fails = self.random.chance(600);
            self.crash(node, power_fails, self.agendas[node].down_us);
            return Ok(());
        }
        let state = seat.with(|stepped| {
            let node = stepped.node();
            let stopped = (node.wants_reopening(), node.panicked());
            (node.is_running(), stopped, stepped.wants())
        });
        let Some((is_running, (wants_reopening, panicked), wants)) = state else { return Ok(()) };
        if panicked {
            return violation("no panic", format!("node {} stopped by one", node + 1));
        }
        if !is_running {
            self.summary.stopped += 1;
            self.note(|| format!("{} has stopped", node + 1));
            let power_fails = self.random.chance(200);
            let down_us = self.agendas[node].down_us.max(1_000);
            self.crash(node, power_fails, down_us);
            if wants_reopening {
                self.summary.abandoned += 1;
                if !self.flipped[node] {
                    let detail = format!("rows of node {}", node + 1);
                    return violation("no damage but what was done", detail);
                }
                if let Err(error) = seat.abandon() {
                    self.note(|| format!("{} cannot begin anew yet: {error}", node + 1));
                }
            }
            return Ok(());
        }
        let (life, agenda) = (seat.life(), &mut self.agendas[node]);
        let may_sync = seat.paused_until() <= self.now.get();
        let mut due = Vec::new();
        if wants.log && !agenda.syncing && may_sync {
            agenda.syncing = true;
            seat.with(|stepped| stepped.begin_sync());
            let longest = self.sync_us[node];
            due.push((self.random.between(longest / 4, longest), Event::Synced { node, life }));
        }
        if wants.giver && !agenda.giving {
            agenda.giving = true;
            let slow = self.gentle && self.calm;
            let (least, most) = if slow { SLOW_GIVER_US } else { (50, 5_000) };
            due.push((self.random.skewed(least, most), Event::Give { node, life }));
        }
        if wants.catch_up && !agenda.reading {
            agenda.reading = true;
            due.push((self.random.skewed(20, 5_000), Event::CatchUp { node, life }));
        }
        if wants.keeper && !agenda.keeping {
            agenda.keeping = true;
            due.push((self.random.skewed(50, 5_000), Event::KeepNow { node, life }));
        }
        if wants.flush && !agenda.flushing {
            agenda.flushing = true;
            due.push((self.random.skewed(50, 5_000), Event::Flush { node, life }));
        }
        due.into_iter().for_each(|(delay, event)| self.after(delay, event));
        self.watch.look(node, seat)
    }

    /// What clients and replicas have to say when all is over.
    fn finish(mut self) -> Result<Summary, Violation> {
        let ledger = self.ledger.lock();
        ledger.check(self.loose)?;
        self.summary.runs = 1;
        self.summary.virtual_us = self.now.get();
        self.summary.frames = self.ether.sent();
        self.summary.leaders = self.watch.leaders;
        self.summary.batches = self.watch.batches;
        self.summary.asked = ledger.asked;
        self.summary.answered = ledger.answered;
        self.summary.uncertain = ledger.uncertain;
        self.summary.refused = ledger.refused;
        let misreads: u64 = self.seats.seats.iter().map(|seat| seat.disk.misreads()).sum();
        self.summary.damaged += misreads;
        Ok(self.summary)
    }

    /// Faults stop.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.note(|| "CALM".to_owned());
        self.ether.calm();
        self.sync_us.fill(SYNC_US);
        for node in 0..self.seats.seats.len() {
            let disk = &self.seats.seats[node].disk;
            disk.set_full(false);
            disk.set_misreads(0);
            disk.set_sync_fails(false);
            if !disk.is_off() {
                disk.set_fuse(None);
            }
            self.start(node);
        }
        match self.gentle {
            true => self.catching_up = Some(self.watch.newest_of_all()),
            false => self.is_over.store(true, Relaxed),
        }
        self.after(PROBE_US, Event::Probe);
    }

    /// True once everything was read again and all replicas hold the same.
    fn probe(&mut self) -> Result<bool, Violation> {
        self.after(PROBE_US, Event::Probe);
        self.check_holds()?;
        if let Some(newest) = self.catching_up.take() {
            if self.is_whole(&newest, None) {
                self.note(|| "ALL HAVE CAUGHT UP".to_owned());
                self.calm_at = self.now.get();
                self.is_over.store(true, Relaxed);
            } else if self.now.get() > self.calm_at + RECOVERY_MAX_US {
                let text = format!("{newest:?} is not reached by all while clients work");
                return violation("all catch up under load", text);
            } else {
                self.catching_up = Some(newest);
            }
            return Ok(false);
        }
        let is_closed = match &self.closing {
            Some(closing) => closing.is_finished(),
            // What is under way ends first.
            None if !self.working.iter().all(JoinHandle::is_finished) => false,
            None => {
                let last = self.clients.pop();
                self.closing = last.map(|client| tokio::spawn(client.close()));
                false
            }
        };
        let apart = match is_closed {
            false => "not everything is answered yet".to_owned(),
            true => match self.agrees()? {
                None => return Ok(true),
                Some(apart) => apart,
            },
        };
        if self.now.get() > self.calm_at + RECOVERY_MAX_US {
            return violation("liveness", apart);
        }
        Ok(false)
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now.get(), text);
    }
}

/// What is damaged, if that is why a node could not be opened.
fn damage_of(error: &OpenError) -> Option<&String> {
    match error {
        OpenError::Damaged(what) => Some(what),
        _ => None,
    }
}

/// How long a clock thinks a real second is.
fn drift(loose: bool, random: &mut Random) -> u64 {
    // Two clocks differ by 1.09 / 0.91 at most: within the margin of 20 %. Loose ones do not.
    let (slowest, fastest) = if loose { (700_000, 1_300_000) } else { (910_000, 1_090_000) };
    match random.below(4) {
        0 => slowest,
        1 => fastest,
        _ => random.between(slowest, fastest),
    }
}

pub(super) fn zone_of(id: NodeId) -> Zone {
    Zone(["a", "b", "c"][id.0 as usize % 3].to_owned())
}

/// Each table is one partition, on the first nodes.
fn assignments(founders: usize) -> Vec<Assignment> {
    let members: Vec<_> = (1..=founders as u32).map(NodeId).collect();
    let assignment = |(table, partition): (usize, &PartitionId)| Assignment {
        partition: *partition,
        range: PlacementRange::whole(TableId(table as u32)),
        members: members.clone(),
    };
    PARTITIONS.iter().enumerate().map(assignment).collect()
}

type Front = (Vec<Arc<MemdsNode>>, Arc<MemdsClient>, Vec<Router>);

/// MemDS nodes, and routers, which share what asks them.
fn front(ether: &Ether, seats: &Arc<Seats>, routers: u32) -> Front {
    let transport: Arc<dyn Transport> = Arc::new(ether.clone());
    let fleet = MEMDS.map(|id| Arc::new(MemdsNode::new(id, transport.clone()))).to_vec();
    let cache = RouteCache::new(1 << 16);
    let learning = cache.clone();
    let options = ClientOptions::default();
    let asker =
        MemdsClient::new(NodeId(ROUTER), MEMDS.to_vec(), transport, options, move |route| {
            learning.learn(route);
        });
    let routers = (0..routers).map(|router| {
        let storage = Arc::new(Reach { seats: seats.clone(), router: router.min(1) });
        let life = seats.now.get() << 8 | u64::from(router);
        let options = RouterOptions { life, ..RouterOptions::default() };
        let (asker, cache) = (asker.clone(), cache.clone());
        Router::new(options, storage, asker, cache, Arc::new(NoHost))
            .expect("the defaults are fine")
    });
    (fleet, asker.clone(), routers.collect())
}

/// The process of a router that nobody asks anything.
struct NoHost;

impl Host for NoHost {
    fn shutdown(&self, _: Shutdown) -> Result<(), String> {
        Err("simulated".into())
    }

    fn abort_shutdown(&self) -> bool {
        false
    }

    fn config_file(&self) -> Option<String> {
        None
    }

    fn rewrite_config(&self, _: &[(&str, String)]) -> Result<(), String> {
        Err("simulated".into())
    }

    fn read_acl_file(&self, _: &str) -> Result<Vec<u8>, String> {
        Err("simulated".into())
    }

    fn write_acl_file(&self, _: &str, _: &[u8]) -> Result<(), String> {
        Err("simulated".into())
    }

    fn set_log_level(&self, _: &str) {}

    fn allocated_bytes(&self) -> Option<u64> {
        None
    }
}

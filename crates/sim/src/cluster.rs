//! The run: a queue of events in virtual time, and what each does to the nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use paxos::{
    Beat, Config, Index, LivenessOutput, Message, NodeId, Options, Output, ProposeError, Record,
    Value, codec,
};

use crate::checks::{Checks, Violation, number_of, violation};
use crate::clients::{Clients, Read};
use crate::faults::Faults;
use crate::host::Host;
use crate::members::Chunk;
use crate::network::Network;
use crate::overdue::Overdue;
use crate::random::Random;
use crate::strikes::{Betrayal, Gray};
use crate::trace::Trace;
use crate::unheard::Unheard;
use crate::{Setup, Summary};

/// How long after the last fault a proposal must be committed everywhere.
pub(crate) const RECOVERY_MAX_US: u64 = 40_000_000;
/// Proposals of a run, at most.
const PROPOSALS_MAX: u64 = 250;
/// How often the end of a run looks whether all is well.
pub(crate) const PROBE_US: u64 = 50_000;
/// After so long another probe is proposed: a change of leaders may have lost the last one.
const PROBE_AGAIN_US: u64 = 2_000_000;
/// A run that takes more events than this talks in circles.
const EVENTS_MAX: u64 = 1_000_000;
/// Messages sent before the faults stopped have arrived after this.
const SETTLED_US: u64 = 6_000_000;
/// How long nobody new may lead once all is well.
const STEADY_US: u64 = 4_000_000;
/// How long before the end of faults a leader's disk turns slow, to be ahead of its log.
pub(crate) const SLOW_BEFORE_CALM_US: u64 = 900_000;
/// A disk that is well syncs within this.
pub(crate) const SYNC_US: u64 = 2_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver { from: usize, to: usize, bytes: Bytes },
    DeliverBeat { from: usize, to: usize, bytes: Bytes },
    Synced { node: usize, life: u64 },
    Tick { node: usize, life: u64 },
    BeatTick { node: usize, life: u64 },
    LogRead { node: usize, life: u64, to: NodeId, first: Index, last: Index },
    Restart { node: usize },
    Campaign { node: usize },
    Join { node: usize },
    SlowLeader,
    Betray,
    Usurp { leader: usize, node: usize },
    Relapse { leader: usize, heard_by: usize },
    Unheard { dying: Option<(usize, u64)> },
    Overdue { heir: Option<usize> },
    Propose,
    Burst { node: usize },
    Reform,
    Retire { node: usize },
    AskChunk { from: usize, to: usize, index: Index, offset: usize },
    Chunk { to: usize, chunk: Box<Chunk> },
    ChunkDue { node: usize, life: u64, index: Index, offset: usize },
    Flush,
    Read,
    ReadDone { node: usize, life: u64, read: Read },
    Clog { node: usize },
    Fault,
    Calm,
    Probe,
}

/// A cluster and everything around it.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    pub(crate) now: u64,
    /// By time, then by the order in which they were thought of.
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    /// All nodes there ever were.
    pub(crate) members: Vec<NodeId>,
    /// Those the group began with.
    pub(crate) initial: Vec<NodeId>,
    /// Whether members come and go in this run.
    pub(crate) reforms: bool,
    /// The newest configuration that anybody knows to be chosen.
    pub(crate) config: Config,
    /// All that were proposed.
    pub(crate) configs: Vec<Config>,
    pub(crate) options: Options,
    pub(crate) hosts: Vec<Host>,
    pub(crate) sync_us: Vec<u64>,
    pub(crate) network: Network,
    pub(crate) faults: Faults,
    pub(crate) random: Random,
    pub(crate) checks: Checks,
    pub(crate) clients: Clients,
    /// Clocks drift apart by more than the margin in this run: what rests on time is not promised.
    pub(crate) loose: bool,
    /// So many of a thousand reads of the log come back with what is not there.
    pub(crate) misreads_per_mille: u64,
    pub(crate) trace: &'a mut Trace,
    pub(crate) summary: Summary,
    /// When faults stop.
    pub(crate) calm_at: u64,
    pub(crate) calm: bool,
    /// Nodes (a bit each) that stay dead when faults stop: a minority.
    pub(crate) lost: u64,
    /// What stays broken when faults stop.
    pub(crate) gray: Option<Gray>,
    pub(crate) betrayal: Option<Betrayal>,
    pub(crate) unheard: Unheard,
    pub(crate) overdue: Overdue,
    /// The leader whose disk turned slow before the end of faults.
    pub(crate) slow_leader: Option<usize>,
    probe: Option<(u64, u64)>,
    /// Leaderships, and until when there may be no more of them.
    steady: Option<(u64, u64)>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(seed: u64, setup: Setup, trace: &'a mut Trace) -> Cluster<'a> {
        let mut random = Random::new(seed, "cluster");
        let any = random.pick(&[3, 3, 5]);
        let nodes = setup.nodes.unwrap_or(any);
        let members: Vec<_> = (1..=nodes as u32).map(NodeId).collect();
        let options = options(&mut random);
        let loose = random.chance(50);
        let hosts = members.iter().map(|id| Host::new(*id, loose, &mut random)).collect();
        let calm_at = random.between(2_000_000, 12_000_000);
        trace.line(0, || format!("seed {seed}: {nodes} nodes, {options:?}"));
        Cluster {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            sync_us: vec![SYNC_US; nodes],
            network: Network::new(seed),
            reforms: random.chance(400) || setup.all_faults,
            initial: members.clone(),
            config: Config::initial(&members),
            configs: vec![Config::initial(&members)],
            faults: Faults::new(seed, setup.all_faults),
            checks: Checks::default(),
            clients: Clients::default(),
            loose,
            misreads_per_mille: random.pick(&[0, 0, 0, 100, 400]),
            summary: Summary::default(),
            calm: false,
            lost: 0,
            gray: None,
            betrayal: None,
            unheard: Unheard::new(seed),
            overdue: Overdue::new(seed),
            slow_leader: None,
            probe: None,
            steady: None,
            members,
            options,
            hosts,
            random,
            trace,
            calm_at,
        }
    }

    /// Runs until the faults have stopped and the cluster has recovered.
    pub(crate) fn run(mut self) -> Result<Summary, Violation> {
        self.plan_unheard();
        self.plan_overdue();
        for node in 0..self.hosts.len() {
            self.start(node)?;
        }
        if self.random.chance(500) {
            let node = self.random.below(self.hosts.len() as u64) as usize;
            self.step(node, |replica, now| replica.campaign(now))?;
        }
        self.after(100_000, Event::Propose);
        self.after(50_000, Event::Flush);
        self.after(50_000, Event::Read);
        let gap = self.faults.gap_us();
        self.after(gap, Event::Fault);
        if self.reforms {
            self.after(gap, Event::Reform);
        }
        self.after(self.calm_at, Event::Calm);
        match self.random.below(100) {
            0..15 => self.after(self.calm_at - SLOW_BEFORE_CALM_US, Event::SlowLeader),
            15..30 => {
                let before = self.random.skewed(20_000, 400_000);
                self.after(self.calm_at - before, Event::Betray);
            }
            _ => {}
        }
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return violation("no storm", format!("{EVENTS_MAX} events and no end"));
            }
            let done = self.happen(event)?;
            self.check_serving()?;
            if done {
                return self.finish();
            }
        }
        unreachable!("the last event of a run asks for the next")
    }

    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay_us, self.scheduled), event);
    }

    /// True when the run is over.
    fn happen(&mut self, event: Event) -> Result<bool, Violation> {
        if let Event::Deliver { to: node, .. }
        | Event::DeliverBeat { to: node, .. }
        | Event::BeatTick { node, .. }
        | Event::Synced { node, .. }
        | Event::Tick { node, .. }
        | Event::LogRead { node, .. }
        | Event::ReadDone { node, .. }
        | Event::AskChunk { to: node, .. }
        | Event::Chunk { to: node, .. } = &event
            && let Some(until) = self.hosts[*node].paused_until
        {
            if self.now < until {
                // Ties keep their order: what came first is put back first.
                self.after(until - self.now, event);
                return Ok(false);
            }
            self.hosts[*node].paused_until = None;
        }
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, bytes)?,
            Event::Synced { node, life } => self.synced(node, life)?,
            Event::Tick { node, life } => self.tick(node, life)?,
            Event::DeliverBeat { from, to, bytes } => self.deliver_beat(from, to, bytes)?,
            Event::BeatTick { node, life } => self.beat_tick(node, life)?,
            Event::LogRead { node, life, to, first, last } => {
                self.log_read((node, life), to, first, last)?;
            }
            Event::Restart { node } => self.start(node)?,
            Event::Campaign { node } => {
                if self.hosts[node].paused_until.is_none() {
                    self.trace_node(node, || "is told to campaign".to_owned());
                    self.step(node, |replica, now| replica.campaign(now))?;
                }
            }
            Event::Join { node } => {
                if !self.calm {
                    self.network.join_node(node);
                }
            }
            Event::SlowLeader => self.slow_leader(),
            Event::Betray => self.betray()?,
            Event::Relapse { .. } | Event::Usurp { .. } if self.calm => {}
            Event::Usurp { leader, node } => self.usurp(leader, node, false),
            Event::Relapse { leader, heard_by } => self.relapse(leader, heard_by),
            Event::Unheard { dying } => self.unheard(dying)?,
            Event::Overdue { heir } => self.overdue(heir)?,
            Event::Propose => self.work()?,
            Event::Burst { node } => {
                if self.may_be_asked(node) && !self.calm {
                    self.propose(node, 8)?;
                }
            }
            Event::Reform => self.reform()?,
            Event::Retire { node } => self.retire(node),
            Event::AskChunk { from, to, index, offset } => self.give_chunk(from, to, index, offset),
            Event::Chunk { to, chunk } => self.take_chunk(to, *chunk)?,
            Event::ChunkDue { node, life, index, offset } => {
                self.chunk_due((node, life), (index, offset))?;
            }
            Event::Flush => self.flush()?,
            Event::Read => self.read(),
            Event::ReadDone { node, life, read } => self.read_done(node, life, read),
            Event::Clog { node } => self.clog(node),
            Event::Fault => self.fault()?,
            Event::Calm => self.calm()?,
            Event::Probe => return self.probe(),
        }
        Ok(false)
    }

    fn log_read(
        &mut self,
        (node, life): (usize, u64),
        to: NodeId,
        first: Index,
        last: Index,
    ) -> Result<(), Violation> {
        if self.hosts[node].life != life {
            return Ok(());
        }
        let bytes_max = self.options.catch_up_bytes;
        let entries = self.hosts[node].disk.read(first, last, bytes_max);
        let is_misread = !self.calm && self.random.chance(self.misreads_per_mille);
        self.summary.damaged += u64::from(is_misread);
        if entries.is_empty() || is_misread {
            return self.step(node, |replica, _| replica.log_unreadable(to, first));
        }
        self.summary.log_reads += 1;
        self.send(node, to, &Message::chosen(entries));
        Ok(())
    }

    // The nodes.

    pub(crate) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.hosts[node].replica.is_some() || self.is_lost(node) || self.hosts[node].gone {
            return Ok(());
        }
        let known = (&self.initial[..], &self.members[..]);
        self.hosts[node].start(known, &self.options, self.now, &mut self.random);
        self.trace_node(node, || "starts".to_owned());
        self.drain(node)
    }

    /// Lets a replica do something, and does what it wants done.
    pub(crate) fn step(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut paxos::Replica, paxos::Instant),
    ) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        let now = host.clock.local(self.now);
        if let Some(replica) = &mut host.replica {
            act(replica, now);
        }
        self.drain(node)
    }

    fn drain(&mut self, node: usize) -> Result<(), Violation> {
        self.drain_liveness(node);
        while let Some(replica) = &mut self.hosts[node].replica {
            let Some(output) = replica.poll_output() else { break };
            self.output(node, output)?;
            if let Some((outputs, down_us)) = self.hosts[node].dies_in {
                if outputs <= 1 {
                    self.crash(node, down_us);
                    return Ok(());
                }
                self.hosts[node].dies_in = Some((outputs - 1, down_us));
            }
        }
        let life = self.hosts[node].life;
        if let Some(at) = self.hosts[node].tick_wanted() {
            self.after(at.saturating_sub(self.now), Event::Tick { node, life });
        }
        if let Some(at) = self.hosts[node].beat_wanted() {
            self.after(at.saturating_sub(self.now), Event::BeatTick { node, life });
        }
        Ok(())
    }

    fn drain_liveness(&mut self, node: usize) {
        while let Some(liveness) = &mut self.hosts[node].liveness {
            match liveness.poll_output() {
                Some(LivenessOutput::Send { to, beat }) => self.send_beat(node, to, &beat),
                Some(LivenessOutput::Changed) => {
                    self.trace_node(node, || "sees support begin or end".to_owned());
                    let host = &mut self.hosts[node];
                    let now = host.clock.local(self.now);
                    if let Some(replica) = &mut host.replica {
                        replica.handle_liveness(now);
                    }
                }
                None => return,
            }
        }
    }

    fn send_beat(&mut self, from: usize, to: NodeId, beat: &Beat) {
        let to = to.0 as usize - 1;
        self.trace_node(from, || format!("sends {}: {beat:?}", to + 1));
        let bytes = codec::encode_beat(beat).freeze();
        for delay in self.network.fate(from, to).into_iter().flatten() {
            self.after(delay, Event::DeliverBeat { from, to, bytes: bytes.clone() });
        }
    }

    fn deliver_beat(&mut self, from: usize, to: usize, bytes: Bytes) -> Result<(), Violation> {
        if self.network.is_cut(from, to) {
            return Ok(());
        }
        let Ok(beat) = codec::decode_beat(bytes) else {
            return violation("codec", format!("a beat of {from} is none"));
        };
        self.trace_node(to, || format!("hears {}: {beat:?}", from + 1));
        let (sender, host) = (self.members[from], &mut self.hosts[to]);
        let now = host.clock.local(self.now);
        if let Some(liveness) = &mut host.liveness {
            liveness.handle_beat(sender, beat, now);
        }
        self.drain(to)
    }

    fn beat_tick(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        if host.life != life {
            return Ok(());
        }
        host.beat_at = None;
        let now = host.clock.local(self.now);
        if let Some(liveness) = &mut host.liveness {
            liveness.handle_tick(now);
        }
        self.drain(node)
    }

    fn output(&mut self, node: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::Persist { token, record } => {
                self.trace_node(node, || format!("writes {token}: {record:?}"));
                if let Some(until) = self.hosts[node].disk_full_until
                    && self.now < until
                {
                    // There is no room: the node stops.
                    self.crash(node, until - self.now);
                    return Ok(());
                }
                if matches!(record, Record::Promise(_))
                    && let Some(dies_in) = self.hosts[node].dies_at_promise.take()
                {
                    self.hosts[node].dies_in = Some(dies_in);
                }
                if let Record::Skip(index) = record
                    && self.hosts[node].is_log
                    && index > self.hosts[node].machine.applied()
                {
                    self.hosts[node].machine.values.clear();
                    self.hosts[node].machine.skipped = index.0;
                }
                if self.hosts[node].disk.append(token, record) {
                    self.start_sync(node);
                }
            }
            Output::Send { to, message } => {
                if let Message::Promise { ballot, .. } = &message
                    && self.hosts[node].disk.promised() < *ballot
                {
                    let text = format!("node {} says {message:?}", node + 1);
                    return violation("durable before said", text);
                }
                self.send(node, to, &message);
                if matches!(message, Message::Promise { .. }) {
                    self.betray_at_promise(node);
                }
            }
            Output::ConfigChanged { .. } | Output::Removed | Output::InstallSnapshot { .. } => {
                self.member_output(node, output)?;
            }
            Output::Commit { index, value } => self.commit(node, index, value)?,
            Output::RoleChanged { role } => {
                self.trace_node(node, || format!("is {} now", role.name()));
                if role == paxos::Role::Leader {
                    self.summary.leaders += 1;
                    if std::mem::take(&mut self.hosts[node].mute_when_leads) && !self.calm {
                        (0..self.hosts.len()).for_each(|other| self.network.cut(node, other));
                    }
                }
            }
            Output::ReadLog { to, first, last } => {
                self.trace_node(node, || format!("reads {first:?}..={last:?} for {to:?}"));
                let delay = self.random.skewed(20, 20_000);
                let life = self.hosts[node].life;
                self.after(delay, Event::LogRead { node, life, to, first, last });
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let to = to.0 as usize - 1;
        let fate = self.network.fate(from, to);
        self.trace_node(from, || {
            let lost = if fate == [None, None] { " (lost)" } else { "" };
            format!("sends {}{lost}: {message:?}", to + 1)
        });
        let bytes = codec::encode(message).freeze();
        // One that leads by now may be handed over what another has had since.
        let is_late = matches!(message, Message::TakeOver { .. }) && self.random.chance(400);
        let late_us = if is_late { self.random.skewed(100_000, 4_000_000) } else { 0 };
        let is_unheard = matches!(message, Message::TakeOver { .. }) && self.random.chance(400);
        if is_unheard && !self.calm {
            // The old leader does not hear what its heir does with it.
            self.network.cut(to, from);
        }
        for delay in fate.into_iter().flatten() {
            self.after(delay + late_us, Event::Deliver { from, to, bytes: bytes.clone() });
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Bytes) -> Result<(), Violation> {
        // What is on its way when a link is cut is lost as well.
        if self.hosts[to].replica.is_none() || self.network.is_cut(from, to) {
            return Ok(());
        }
        let again = bytes.clone();
        let message = match codec::decode(bytes) {
            Ok(message) => message,
            Err(error) => return violation("codec", format!("{error} in a message of {from}")),
        };
        if matches!(message, Message::Chosen { .. })
            && !self.calm
            && std::mem::take(&mut self.hosts[to].campaigns_at_chosen)
        {
            // Out of reach of whom it learns from, as those who know most are not to promise.
            self.network.cut(to, from);
            let delay = self.random.between(500, 8_000);
            self.after(delay, Event::Deliver { from, to, bytes: again });
            return self.step(to, |replica, now| replica.campaign(now));
        }
        self.trace_node(to, || format!("hears {}: {message:?}", from + 1));
        let sender = self.members[from];
        self.step(to, |replica, now| replica.handle_message(sender, message, now))
    }

    fn commit(&mut self, node: usize, index: Index, value: Value) -> Result<(), Violation> {
        self.trace_node(node, || format!("commits {index:?}: {value:?}"));
        let host = &mut self.hosts[node];
        let before = host.machine.applied();
        self.checks.commit(node + 1, before, index, &value)?;
        let proposed = host.proposed.remove(&index.0);
        let mut is_own = false;
        if let Value::Data(data) = &value
            && let Some(number) = proposed
            && number_of(data) == proposed
        {
            self.checks.acknowledge(number);
            self.clients.written(number, self.now);
            is_own = true;
        }
        host.machine.values.push(value);
        if is_own {
            self.betray_at_commit(node);
            self.mute_unheard(node);
        }
        Ok(())
    }

    fn start_sync(&mut self, node: usize) {
        let delay = self.random.between(self.sync_us[node] / 4, self.sync_us[node]);
        let life = self.hosts[node].life;
        self.after(delay, Event::Synced { node, life });
    }

    fn synced(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        if self.hosts[node].life != life {
            return Ok(());
        }
        if let Some(down_us) = self.hosts[node].sync_fails.take() {
            self.crash(node, down_us);
            return Ok(());
        }
        let Some((token, more)) = self.hosts[node].disk.synced() else { return Ok(()) };
        if more {
            self.start_sync(node);
        }
        self.trace_node(node, || format!("has synced up to {token}"));
        self.step(node, |replica, now| replica.handle_persisted(token, now))
    }

    fn tick(&mut self, node: usize, life: u64) -> Result<(), Violation> {
        if self.hosts[node].life != life {
            return Ok(());
        }
        self.hosts[node].tick_at = None;
        self.step(node, |replica, now| {
            // Deadlines move; only the last one counts.
            if now >= replica.next_deadline() {
                replica.handle_tick(now);
            }
        })
    }

    pub(crate) fn crash(&mut self, node: usize, down_us: u64) {
        if self.hosts[node].replica.is_none() {
            return;
        }
        let lost = self.hosts[node].crash(&mut self.random);
        self.summary.crashes += 1;
        self.trace_node(node, || format!("dies; {lost} records lost"));
        self.after(down_us, Event::Restart { node });
    }

    // The world.

    /// Clients propose a few values wherever somebody thinks it leads.
    fn work(&mut self) -> Result<(), Violation> {
        if self.calm || self.checks.proposals() >= PROPOSALS_MAX {
            return Ok(());
        }
        let node = self.random.below(self.hosts.len() as u64) as usize;
        for at in 0..self.hosts.len() {
            let node = (node + at) % self.hosts.len();
            if self.may_be_asked(node) {
                for _ in 0..self.random.skewed(1, 12) {
                    let bytes = self.random.skewed(8, 300) as usize;
                    self.propose(node, bytes)?;
                }
                if self.random.chance(800) {
                    break;
                }
            }
        }
        let gap = self.random.skewed(500, 200_000);
        self.after(gap, Event::Propose);
        Ok(())
    }

    pub(crate) fn may_be_asked(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        host.paused_until.is_none() && host.replica.as_ref().is_some_and(|r| r.is_leader())
    }

    pub(crate) fn propose(&mut self, node: usize, bytes: usize) -> Result<Option<u64>, Violation> {
        let host = &mut self.hosts[node];
        let now = host.clock.local(self.now);
        let Some(replica) = &mut host.replica else { return Ok(None) };
        if let Err(why) = replica.may_propose(bytes.max(8)) {
            self.summary.windows_full += u64::from(why == ProposeError::WindowFull);
            return Ok(None);
        }
        let (number, data) = self.checks.new_value(bytes);
        let expected = replica.next_index();
        match replica.propose(data, now) {
            Ok(index) if index == expected => {
                host.proposed.insert(index.0, number);
                self.clients.write(number, self.now);
                self.trace_node(node, || format!("proposes value {number} at {index:?}"));
            }
            other => {
                let text = format!("{other:?} where {expected:?} was announced");
                return violation("proposing", text);
            }
        }
        self.drain(node)?;
        Ok(Some(number))
    }

    /// Some state machine makes durable what it holds, or some of it.
    fn flush(&mut self) -> Result<(), Violation> {
        let node = self.random.below(self.hosts.len() as u64) as usize;
        self.flush_node(node, false)?;
        let gap = self.random.skewed(10_000, 2_000_000);
        self.after(gap, Event::Flush);
        Ok(())
    }

    pub(crate) fn flush_node(&mut self, node: usize, all: bool) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        if let Some(replica) = &mut host.replica
            && host.paused_until.is_none()
            && !host.is_log
        {
            let applied = host.machine.applied();
            let flushable = replica.flushable();
            let least = if all { flushable.0 } else { host.machine.flushed.0 };
            let flushed = Index(self.random.between(least, flushable.0));
            host.machine.flushed = flushed;
            replica.set_flushed(flushed);
            self.trace_node(node, || format!("has flushed {flushed:?} of {applied:?}"));
            self.drain(node)?;
        }
        Ok(())
    }

    /// True once a value proposed after the last fault is committed everywhere.
    fn probe(&mut self) -> Result<bool, Violation> {
        if let Some((number, _)) = self.probe
            && let Some(index) = self.checks.committed_at(number)
            && !self.config.is_joint()
            && (0..self.hosts.len())
                .all(|node| !self.must_recover(node) || self.hosts[node].machine.applied() >= index)
        {
            return self.steady();
        }
        if self.now > self.calm_at + RECOVERY_MAX_US {
            let applied: Vec<_> = self.hosts.iter().map(|host| host.machine.applied().0).collect();
            let text = format!("probe (value, proposed at) {:?}, applied {applied:?}", self.probe);
            return violation("liveness", text);
        }
        if self.probe.is_none_or(|(_, at)| self.now > at + PROBE_AGAIN_US) {
            let server = (0..self.hosts.len())
                .find(|node| self.hosts[*node].serves_from(self.now).is_some());
            if let Some(node) = server
                && let Some(number) = self.propose(node, 8)?
            {
                self.probe = Some((number, self.now));
            }
        }
        self.after(PROBE_US, Event::Probe);
        Ok(false)
    }

    /// All is well. A quarter of the runs go on to see that it stays so: nobody who misses a
    /// message here and there may disturb a leader that works.
    fn steady(&mut self) -> Result<bool, Violation> {
        if !self.calm_at.is_multiple_of(4) || self.loose {
            return Ok(true);
        }
        let leaders = self.summary.leaders;
        let settled = self.calm_at + SETTLED_US;
        let end = settled.max(self.now) + STEADY_US;
        let (before, until) = *self.steady.get_or_insert((leaders, end));
        if self.now <= settled {
            self.steady = Some((leaders, until));
        } else if leaders > before {
            let text = format!("{} new leaderships though all is well", leaders - before);
            return violation("steady leadership", text);
        }
        self.after(PROBE_US, Event::Probe);
        Ok(self.now >= until)
    }

    fn check_serving(&self) -> Result<(), Violation> {
        if self.loose {
            return Ok(());
        }
        let mut serving = None;
        for (node, host) in self.hosts.iter().enumerate() {
            if let Some(applied) = host.serves_from(self.now)
                && let Some(other) = serving.replace((node + 1, applied))
            {
                return self.checks.serving(&[other, (node + 1, applied)]);
            }
        }
        match serving {
            Some(one) => self.checks.serving(&[one]),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Summary, Violation> {
        let whole = |node: &(usize, &Host)| self.must_recover(node.0);
        for (node, host) in self.hosts.iter().enumerate().filter(whole) {
            if !host.is_log {
                self.checks.finish(node + 1, &host.machine.values)?;
            }
        }
        if !self.loose {
            self.clients.check()?;
        }
        self.summary.runs = 1;
        self.summary.virtual_us = self.now;
        self.summary.proposed = self.checks.proposals();
        self.summary.acknowledged = self.checks.acknowledged();
        self.summary.committed = self.checks.newest().0;
        Ok(self.summary)
    }

    pub(crate) fn trace_node(&mut self, node: usize, text: impl FnOnce() -> String) {
        self.trace.line(self.now, || format!("{} {}", node + 1, text()));
    }
}

/// Limits that are small at times, so that windows fill, memory is short and catch-up takes steps.
pub(crate) fn options(random: &mut Random) -> Options {
    let defaults = Options::default();
    Options {
        window_entries: random.pick(&[1, 4, 16, 256]),
        window_bytes: random.pick(&[200, 1_000, defaults.window_bytes]),
        keep_bytes: random.pick(&[0, 300, 3_000, defaults.keep_bytes]),
        catch_up_bytes: random.pick(&[1, 500, defaults.catch_up_bytes]),
        hand_out_bytes: random.pick(&[0, 500, defaults.hand_out_bytes]),
        catch_up_ahead_bytes: random.pick(&[0, 500, defaults.catch_up_ahead_bytes]),
        held_bytes: random.pick(&[500, 5_000, defaults.held_bytes]),
        ..defaults
    }
}

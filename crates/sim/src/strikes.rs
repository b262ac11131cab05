//! What faults do to the cluster, and what stays broken when they stop.

use crate::checks::Violation;
use crate::cluster::{Cluster, Event, PROBE_US, RECOVERY_MAX_US, SLOW_BEFORE_CALM_US, SYNC_US};
use crate::faults::Fault;
use crate::host::Host;
use paxos::Index;

/// A node that has not heard its leader for so long supports it no more.
const ESTRANGED_US: u64 = 1_400_000;

/// A fault that lasts: the others have to go on in spite of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gray {
    /// A node that hears nobody.
    Deaf(usize),
    /// A node that nobody hears.
    Mute(usize),
    /// One direction of one link.
    OneWay(usize, usize),
}

/// A leader that is about to go, and who follows it.
#[derive(Clone, Debug)]
pub(crate) struct Betrayal {
    leader: usize,
    heir: usize,
    /// They promise the heir, with the leader.
    allies: Vec<usize>,
    /// The leader dies once it has promised.
    is_promised: bool,
}

/// When a leader that is about to go commits for the last time: those who start again are there.
const BURST_AFTER_US: u64 = 5_000;

impl Cluster<'_> {
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let leader = (0..self.hosts.len()).find(|node| self.may_be_asked(*node));
        if let Some(fault) = self.faults.next(self.hosts.len(), leader) {
            self.trace.line(self.now, || format!("FAULT {fault:?}"));
            self.summary.faults += 1;
            self.strike(fault)?;
        }
        let gap = self.faults.gap_us();
        self.after(gap, Event::Fault);
        Ok(())
    }

    pub(crate) fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        let nodes = self.hosts.len();
        match fault {
            Fault::Crash { node, outputs, down_us } => {
                if outputs == 0 {
                    self.crash(node, down_us);
                } else {
                    self.hosts[node].dies_in = Some((outputs, down_us));
                }
            }
            Fault::CrashAtPromise { node, outputs, down_us } => {
                self.hosts[node].dies_at_promise = Some((outputs, down_us));
            }
            Fault::Campaign { node, lethal, hidden_from } => {
                self.disturb(node, lethal, hidden_from);
            }
            Fault::Usurp { leader, node } => self.usurp(leader, node, true),
            Fault::Wipe { node } => self.wipe(node),
            Fault::Estrange { leader, node } => {
                self.network.cut(leader, node);
                self.network.cut(node, leader);
                self.after(ESTRANGED_US, Event::Usurp { leader, node });
            }
            Fault::Transfer { leader, to } => {
                let id = self.members[to];
                self.step(leader, |replica, now| {
                    // Refused if it does not serve at this moment.
                    let _ = replica.transfer(id, now);
                })?;
            }
            Fault::Damage { node, entries, down_us } => self.damage(node, entries, down_us),
            Fault::LateLearner { node, away_us, learns_us } => {
                self.network.split(1 << node);
                self.after(away_us, Event::Join { node });
                self.hosts[node].campaigns_at_chosen = self.random.chance(500);
                self.after(away_us + learns_us, Event::Campaign { node });
            }
            Fault::Relapse { leader, heard_by, after_us, late_us } => {
                self.begin_relapse((leader, heard_by), after_us, late_us)?;
            }
            Fault::Blackout { down_us } => {
                for node in 0..nodes {
                    let stagger = self.random.skewed(1, 500_000);
                    self.crash(node, down_us + stagger);
                }
            }
            Fault::Pause { node, for_us } => {
                self.hosts[node].paused_until = Some(self.now + for_us);
            }
            Fault::Split { set } => self.network.split(set),
            Fault::CutOneWay { from, to } => self.network.cut(from, to),
            Fault::Isolate { node, inbound } => {
                for other in (0..nodes).filter(|other| *other != node) {
                    if inbound {
                        self.network.cut(other, node);
                    } else {
                        self.network.cut(node, other);
                    }
                }
            }
            Fault::Join => self.network.join(),
            Fault::Disk { node, sync_us } => self.sync_us[node] = sync_us,
            Fault::SyncFails { node, down_us } => self.hosts[node].sync_fails = Some(down_us),
            Fault::DiskFull { node, for_us } => self.fill_disk(node, for_us),
            Fault::Swizzle { set, step_us } => self.swizzle(set, step_us),
        }
        Ok(())
    }

    /// The leader is cut off and the others start again, `node` too or not, which campaigns then.
    pub(crate) fn usurp(&mut self, leader: usize, node: usize, forgets: bool) {
        self.network.split(1 << leader);
        for other in (0..self.hosts.len()).filter(|other| *other != leader) {
            if other != node || forgets {
                self.crash(other, 1_000);
            }
        }
        self.after(2_000, Event::Campaign { node });
    }

    /// A node campaigns against a leader that may not hear of it.
    fn disturb(&mut self, node: usize, lethal: u64, hidden_from: Option<usize>) {
        let nodes = self.hosts.len();
        for dying in (0..nodes).filter(|node| (lethal >> node) & 1 == 1) {
            // Writing the promise is the first; a careless acceptor would send it next.
            let outputs = self.random.pick(&[1, 2, 2, 2, 3, 4, 8, 20]);
            let down_us = self.random.skewed(100, 10_000);
            self.hosts[dying].dies_at_promise = Some((outputs, down_us));
        }
        if let Some(leader) = hidden_from {
            self.network.cut(node, leader);
            self.network.cut(leader, node);
            // What it goes on to propose meets those who forgot what they promised.
            for at in 1..10 {
                self.after(at * 2_000, Event::Burst { node: leader });
            }
        }
        self.after(0, Event::Campaign { node });
    }

    fn fill_disk(&mut self, node: usize, for_us: u64) {
        self.hosts[node].disk_full_until = Some(self.now + for_us);
    }

    /// Clogs the nodes of a set (a bit each) in a random order, and unclogs them in another.
    fn swizzle(&mut self, set: u64, step_us: u64) {
        let mut nodes: Vec<_> =
            (0..self.hosts.len()).filter(|node| (set >> node) & 1 == 1).collect();
        let mut at = 0;
        for round in 0..2 {
            for left in (1..=nodes.len()).rev() {
                nodes.swap(left - 1, self.random.below(left as u64) as usize);
            }
            for &node in &nodes {
                at += self.random.between(1, step_us);
                let event = if round == 0 { Event::Clog { node } } else { Event::Join { node } };
                self.after(at, event);
            }
        }
    }

    /// Cuts a node off from all others.
    pub(crate) fn clog(&mut self, node: usize) {
        if !self.calm {
            for other in (0..self.hosts.len()).filter(|other| *other != node) {
                self.network.cut(node, other);
                self.network.cut(other, node);
            }
        }
    }

    /// Some entries of a dead node's log turn out to be damaged.
    fn damage(&mut self, node: usize, entries: u64, down_us: u64) {
        let nodes = self.hosts.len();
        // What two logs lose at once may be gone for good.
        let others = (0..nodes).filter(|other| *other != node);
        if others.clone().all(|other| !self.hosts[other].disk.is_damaged_above(Index(0)))
            && !self.hosts.iter().any(|host| host.gone)
        {
            self.crash(node, down_us);
            let host = &mut self.hosts[node];
            let all = self.random.chance(500) && !host.is_log;
            let above = if all { Index(0) } else { host.machine.flushed };
            let damaged = host.disk.damage(above, entries, &mut self.random);
            self.summary.damaged += damaged;
            self.trace_node(node, || format!("finds {damaged} entries damaged"));
        }
    }

    /// Only one node hears the leader, and its answer will be late.
    fn begin_relapse(
        &mut self,
        (leader, heard_by): (usize, usize),
        after_us: u64,
        late_us: u64,
    ) -> Result<(), Violation> {
        self.network.split(1 << leader);
        self.network.join_link(leader, heard_by);
        self.network.held = Some((heard_by, leader, late_us));
        self.sync_us[leader] = 100_000;
        for _ in 0..3 {
            self.propose(leader, 8)?;
        }
        self.after(after_us, Event::Relapse { leader, heard_by });
        Ok(())
    }

    /// The leader dies and leads again, and nobody hears it then.
    pub(crate) fn relapse(&mut self, leader: usize, heard_by: usize) {
        self.network.held = None;
        self.crash(leader, 100);
        self.network.join_node(leader);
        self.network.cut(leader, heard_by);
        self.hosts[leader].mute_when_leads = true;
        self.after(200, Event::Campaign { node: leader });
    }

    /// Faults stop: every link works, every disk is well, and all run but a minority at times.
    pub(crate) fn calm(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.network.calm();
        self.sync_us.fill(SYNC_US);
        self.choose_lasting();
        self.trace.line(self.now, || format!("CALM, without {:#b}, {:?}", self.lost, self.gray));
        let nodes = self.hosts.len();
        for node in 0..nodes {
            self.hosts[node].sync_fails = None;
            self.hosts[node].disk_full_until = None;
            self.hosts[node].dies_in = None;
            self.hosts[node].dies_at_promise = None;
            if self.is_lost(node) {
                self.crash(node, RECOVERY_MAX_US * 2);
            } else {
                self.start(node)?;
            }
        }
        self.after(PROBE_US, Event::Probe);
        self.last_blow()
    }

    /// Chooses what stays broken: a minority of the nodes dead, or one node or link half broken.
    pub(crate) fn choose_lasting(&mut self) {
        let nodes = self.hosts.len() as u64;
        let (one, other) = (self.random.below(nodes) as usize, self.random.below(nodes) as usize);
        let is_damaged = |host: &Host| host.disk.is_damaged_above(Index(0));
        if self.reforms || self.hosts.iter().any(is_damaged) {
            // What one has lost the others may have to tell, each of them.
            self.lost = 0;
            return;
        }
        if let Some(leader) = self.slow_leader {
            self.lost = 1 << other & !(1 << leader);
        } else if self.lost != 0 {
            // Chosen already.
        } else if self.random.chance(400) {
            for _ in 0..self.random.between(1, (nodes - 1) / 2) {
                self.lost |= 1 << self.random.below(nodes);
            }
        } else if self.random.chance(500) {
            let leader = (0..self.hosts.len()).find(|node| self.may_be_asked(*node));
            let one = if self.random.chance(500) { leader.unwrap_or(one) } else { one };
            let gray =
                self.random.pick(&[Gray::Deaf(one), Gray::Mute(one), Gray::OneWay(one, other)]);
            self.gray = Some(gray);
            for node in (0..self.hosts.len()).filter(|node| *node != one) {
                match gray {
                    Gray::Deaf(_) => self.network.cut(node, one),
                    Gray::Mute(_) => self.network.cut(one, node),
                    Gray::OneWay(from, to) if from != to => self.network.cut(from, to),
                    Gray::OneWay(..) => {}
                }
            }
        }
    }

    /// Shortly before the faults stop, the leader's disk is slow and its clients are not: what it
    /// commits is on other disks only.
    pub(crate) fn slow_leader(&mut self) {
        let leader = (0..self.hosts.len()).find(|node| self.may_be_asked(*node));
        if let Some(node) = leader {
            self.sync_us[node] = SLOW_BEFORE_CALM_US;
            self.slow_leader = leader;
        }
    }

    /// Shortly before the faults stop, the leader commits what the others have and do not know to be
    /// chosen; it promises its heir, tells how much is chosen, and is never seen again.
    pub(crate) fn betray(&mut self) -> Result<(), Violation> {
        let Some(leader) = (0..self.hosts.len()).find(|node| self.may_be_asked(*node)) else {
            return Ok(());
        };
        let others: Vec<_> = (0..self.hosts.len()).filter(|other| *other != leader).collect();
        let heir = self.random.pick(&others);
        let is_damaged = |host: &Host| host.disk.is_damaged_above(Index(0));
        if self.reforms || self.lost != 0 || self.hosts.iter().any(is_damaged) {
            return Ok(());
        }
        self.network.join();
        // The heir and as many as it needs besides the leader have to forget whom they back.
        let allies: Vec<_> = others.iter().copied().filter(|other| *other != heir).collect();
        let allies = allies[..(self.hosts.len() - 3) / 2].to_vec();
        for node in allies.iter().copied().chain([heir]) {
            self.crash(node, 1);
        }
        self.betrayal = Some(Betrayal { leader, heir, allies, is_promised: false });
        self.after(BURST_AFTER_US, Event::Burst { node: leader });
        Ok(())
    }

    /// The leader that is about to go has committed something: its heir campaigns at once, and none but
    /// those two hear of it.
    pub(crate) fn betray_at_commit(&mut self, node: usize) {
        let Some(betrayal) = &mut self.betrayal else { return };
        if self.calm || node != betrayal.leader || betrayal.is_promised {
            return;
        }
        betrayal.is_promised = true;
        let Betrayal { leader, heir, allies, .. } = betrayal.clone();
        for other in (0..self.hosts.len()).filter(|other| *other != leader && *other != heir) {
            self.network.cut(leader, other);
            if !allies.contains(&other) {
                self.network.cut(heir, other);
                self.network.cut(other, heir);
            }
        }
        self.after(0, Event::Campaign { node: heir });
    }

    /// That leader has said how much is chosen: nobody hears of it again.
    pub(crate) fn betray_at_promise(&mut self, node: usize) {
        let is_it = |betrayal: &Betrayal| betrayal.is_promised && node == betrayal.leader;
        if self.calm || self.betrayal.take_if(|betrayal| is_it(betrayal)).is_none() {
            return;
        }
        self.lost = 1 << node;
        self.crash(node, RECOVERY_MAX_US * 2);
    }

    /// That leader dies as the faults stop, right after its state machine took all it may.
    pub(crate) fn last_blow(&mut self) -> Result<(), Violation> {
        if let Some(node) = self.slow_leader {
            self.flush_node(node, true)?;
            self.crash(node, 1_000);
        }
        Ok(())
    }

    pub(crate) fn is_lost(&self, node: usize) -> bool {
        (self.lost >> node) & 1 == 1
    }

    /// Whether a node must have everything in the end.
    pub(crate) fn must_recover(&self, node: usize) -> bool {
        let is_gray = match self.gray {
            None => false,
            Some(Gray::Deaf(gray) | Gray::Mute(gray)) => gray == node,
            Some(Gray::OneWay(from, to)) => node == from || node == to,
        };
        let host = &self.hosts[node];
        !is_gray && !self.is_lost(node) && !host.gone && self.config.kind(host.id).is_some()
    }
}

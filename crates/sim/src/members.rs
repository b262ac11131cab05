//! Members that come and go, nodes that lose everything, and snapshots for those that need one.
//!
//! A snapshot is pulled chunk by chunk; a chunk whose checksum is wrong counts as lost. What was
//! fetched survives a crash and the loss of whoever gave it: any other replica that has come as far
//! goes on with it. The rows of before stay until the last chunk is there.

use paxos::{Config, Index, Member, MemberKind, NodeId, Output, Value};

use crate::checks::{Violation, violation};
use crate::cluster::{Cluster, Event};
use crate::host::Host;

/// Nodes of a run, all that ever were.
pub(crate) const HOSTS_MAX: usize = 14;
/// Members of a group at most; one more while one replaces another.
const GROUP_MAX: usize = 6;
/// Values in a chunk.
const CHUNK_VALUES: usize = 8;
/// A chunk that has not come by now is asked for again.
const CHUNK_TIMEOUT_US: u64 = 200_000;
/// So often; then whoever was to give it is given up.
const CHUNK_TRIES: u64 = 6;

/// A snapshot on its way to a node.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    from: usize,
    at_least: Index,
    tries: u64,
}

/// What of a snapshot is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    index: Index,
    values: Vec<Value>,
}

/// Part of a snapshot in transit.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    index: Index,
    offset: usize,
    values: Vec<Value>,
    config: Config,
    checksum: u64,
}

fn checksum(values: &[Value]) -> u64 {
    let bytes = values.iter().flat_map(|value| match value {
        Value::Noop => vec![0],
        Value::Data(data) | Value::Config(data) => data.to_vec(),
    });
    bytes.fold(7, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Cluster<'_> {
    /// Somebody wants other members.
    pub(crate) fn reform(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let leader = (0..self.hosts.len()).find(|node| self.may_be_asked(*node));
        if let Some(leader) = leader
            && let Some(config) = self.hosts[leader].replica.as_ref().map(|r| r.config().clone())
            && let Some(members) = self.wanted(&config)
        {
            let proposed =
                Config { old: config.members.clone(), members: members.clone(), ..config.clone() };
            self.trace.line(self.now, || format!("REFORM at {}: {members:?}", leader + 1));
            let mut changed = Ok(Index(0));
            self.step(leader, |replica, now| changed = replica.change_members(&members, now))?;
            if changed.is_ok() {
                let returned = |m: &&Member| !config.members.contains(m) && m.id <= config.newest;
                if let Some(member) = members.iter().find(returned) {
                    return violation("identities never return", format!("{member:?} is back"));
                }
                self.summary.changes += 1;
                self.configs.push(proposed);
            }
        }
        let gap = self.random.skewed(50_000, 1_500_000);
        self.after(gap, Event::Reform);
        Ok(())
    }

    /// The members that shall follow.
    fn wanted(&mut self, config: &Config) -> Option<Vec<Member>> {
        if config.is_joint() {
            return None;
        }
        let mut members = config.members.clone();
        let gone = members.iter().position(|member| self.host_of(member.id).gone);
        let log = members.iter().position(|member| member.kind == MemberKind::Log);
        let any = self.random.below(members.len() as u64) as usize;
        let storage = members.iter().filter(|m| m.kind == MemberKind::Storage).count();
        match (gone, self.random.below(3)) {
            (Some(gone), _) => {
                let kind = members.remove(gone).kind;
                members.push(self.spare(config, kind)?);
            }
            (None, 0) if members.len() < GROUP_MAX => {
                members.push(self.spare(config, MemberKind::Log)?);
            }
            (None, 1) if log.is_some() => drop(members.remove(log?)),
            _ if storage > 1 => {
                let kind = members.remove(any).kind;
                members.push(self.spare(config, kind)?);
            }
            _ => return None,
        }
        if self.random.chance(20) {
            // An identity that was used before: it has to be refused.
            let id = NodeId(self.random.between(1, u64::from(config.newest.0)) as u32);
            if let Some(last) = members.last_mut() {
                last.id = id;
            }
        }
        members.sort_unstable();
        Some(members)
    }

    fn host_of(&self, id: NodeId) -> &Host {
        &self.hosts[id.0 as usize - 1]
    }

    /// A node that is no member yet: one that was to be, or a new one.
    fn spare(&mut self, config: &Config, kind: MemberKind) -> Option<Member> {
        let fits = |host: &&Host| {
            host.id > config.newest && !host.gone && host.is_log == (kind == MemberKind::Log)
        };
        if let Some(host) = self.hosts.iter().find(fits) {
            return Some(Member { id: host.id, kind });
        }
        if self.hosts.len() == HOSTS_MAX {
            return None;
        }
        let id = NodeId(self.hosts.len() as u32 + 1);
        let mut host = Host::new(id, self.loose, &mut self.random);
        host.is_log = kind == MemberKind::Log;
        self.members.push(id);
        let known = (&self.initial[..], &self.members[..]);
        host.start(known, &self.options, self.now, &mut self.random);
        self.hosts.push(host);
        self.sync_us.push(self.sync_us[0].min(2_000));
        Some(Member { id, kind })
    }

    /// A node loses all it had and never comes back as what it was, if the others can do without.
    pub(crate) fn wipe(&mut self, node: usize) {
        let id = self.hosts[node].id;
        let is_gone = |member: &Member| self.host_of(member.id).gone || member.id == id;
        let survives = |half: &[Member]| {
            half.iter().filter(|member| is_gone(member)).count() * 2 < half.len()
                && half.iter().any(|m| m.kind == MemberKind::Storage && !is_gone(m))
        };
        let is_damaged = self.hosts.iter().any(|host| host.disk.is_damaged_above(Index(0)));
        let may = self.configs.iter().rev().take(4).all(|config| {
            survives(&config.members) && (config.old.is_empty() || survives(&config.old))
        });
        if self.reforms && may && !is_damaged && !self.hosts[node].gone {
            self.trace.line(self.now, || format!("WIPED {}", node + 1));
            self.summary.wiped += 1;
            self.crash(node, 1);
            self.hosts[node].gone = true;
        }
    }

    /// A node that was removed is switched off.
    pub(crate) fn retire(&mut self, node: usize) {
        self.crash(node, 1);
        self.hosts[node].gone = true;
    }

    /// A replica heard who the members are.
    fn config_changed(&mut self, config: Config) -> Result<(), Violation> {
        if config.index <= self.config.index {
            return Ok(());
        }
        let ends = self.config.is_joint() && config.members == self.config.members;
        let since = self.config.index;
        if ends && !config.is_joint() && self.summary.damaged == 0 {
            let holds = |member: &&Member| {
                let host = self.host_of(member.id);
                host.gone || host.holds_through(since)
            };
            let holders = config.members.iter().filter(holds).count();
            if holders * 2 <= config.members.len() {
                let text = format!("{holders} members hold {since:?} as {config:?} begins");
                return violation("new members have caught up", text);
            }
        }
        self.config = config;
        Ok(())
    }

    // Snapshots.

    fn start_install(
        &mut self,
        node: usize,
        from: NodeId,
        at_least: Index,
    ) -> Result<(), Violation> {
        if !self.reforms && self.summary.damaged == 0 {
            let text = format!("node {} needs what no member may have dropped", node + 1);
            return violation("no needless snapshot", text);
        }
        let host = &mut self.hosts[node];
        host.install = Some(Install { from: from.0 as usize - 1, at_least, tries: 0 });
        host.partial.take_if(|partial| partial.index < at_least);
        self.ask_chunk(node);
        Ok(())
    }

    fn ask_chunk(&mut self, node: usize) {
        let host = &self.hosts[node];
        let Some(install) = &host.install else { return };
        let (index, offset) = match &host.partial {
            Some(partial) => (partial.index, partial.values.len()),
            None => (Index(0), 0),
        };
        let (to, life) = (install.from, host.life);
        for delay in self.network.fate(node, to).into_iter().flatten() {
            self.after(delay, Event::AskChunk { from: node, to, index, offset });
        }
        self.after(CHUNK_TIMEOUT_US, Event::ChunkDue { node, life, index, offset });
    }

    pub(crate) fn give_chunk(&mut self, from: usize, to: usize, index: Index, offset: usize) {
        let host = &self.hosts[to];
        let Some(replica) = &host.replica else { return };
        let index = if index == Index(0) { host.machine.applied() } else { index };
        if host.is_log || index > host.machine.applied() || self.network.is_cut(to, from) {
            return;
        }
        let end = (offset + CHUNK_VALUES).min(index.0 as usize);
        let values = host.machine.values[offset.min(end)..end].to_vec();
        let config = replica.config().clone();
        let damage = u64::from(self.random.chance(50));
        let checksum = checksum(&values) ^ damage;
        let chunk = Chunk { index, offset, values, config, checksum };
        for delay in self.network.fate(to, from).into_iter().flatten() {
            let chunk = Box::new(chunk.clone());
            self.after(delay, Event::Chunk { to: from, chunk });
        }
    }

    pub(crate) fn take_chunk(&mut self, node: usize, chunk: Chunk) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        let Some(install) = &mut host.install else { return Ok(()) };
        let is_whole = checksum(&chunk.values) == chunk.checksum;
        if host.replica.is_none() || !is_whole || chunk.index < install.at_least {
            return Ok(());
        }
        let empty = Partial { index: chunk.index, values: Vec::new() };
        let partial = host.partial.get_or_insert(empty);
        if partial.index != chunk.index || partial.values.len() != chunk.offset {
            return Ok(());
        }
        install.tries = 0;
        partial.values.extend(chunk.values);
        if partial.values.len() < chunk.index.0 as usize {
            self.ask_chunk(node);
            return Ok(());
        }
        self.finish_install(node, chunk.config)
    }

    /// The last chunk is there: the new rows take the place of the old ones in one step.
    fn finish_install(&mut self, node: usize, config: Config) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        host.install = None;
        let Some(Partial { index, values }) = host.partial.take() else { return Ok(()) };
        if !self.checks.is_prefix(&values) {
            return violation("snapshot", format!("node {} gets another state", node + 1));
        }
        // The store asks whether its rows on disk are as new; what memory holds comes over the snapshot's.
        if index > host.machine.applied() {
            host.machine.values = values;
            host.machine.flushed = index;
            host.machine.config = Some(config.clone());
            self.summary.installed += 1;
        }
        self.step(node, |replica, now| replica.installed(index, config, now))
    }

    pub(crate) fn chunk_due(
        &mut self,
        (node, life): (usize, u64),
        asked: (Index, usize),
    ) -> Result<(), Violation> {
        let host = &mut self.hosts[node];
        let has = host.partial.as_ref().map_or((Index(0), 0), |p| (p.index, p.values.len()));
        let Some(install) = host.install.as_mut().filter(|_| host.life == life) else {
            return Ok(());
        };
        if has != asked {
            return Ok(());
        }
        install.tries += 1;
        if install.tries < CHUNK_TRIES {
            self.ask_chunk(node);
            return Ok(());
        }
        host.install = None;
        if self.random.chance(300) {
            self.hosts[node].partial = None;
        }
        self.step(node, |replica, _| replica.install_failed())
    }

    /// Outputs that concern members and snapshots.
    pub(crate) fn member_output(&mut self, node: usize, output: Output) -> Result<(), Violation> {
        match output {
            Output::ConfigChanged { config } => {
                self.trace_node(node, || format!("knows {config:?}"));
                self.config_changed(config)?;
            }
            Output::Removed => {
                self.trace_node(node, || "is removed".to_owned());
                let delay = self.random.skewed(1_000, 3_000_000);
                self.after(delay, Event::Retire { node });
            }
            Output::InstallSnapshot { from, at_least } => {
                self.trace_node(node, || format!("needs a snapshot of {at_least:?} of {from:?}"));
                self.start_install(node, from, at_least)?;
            }
            _ => unreachable!("the caller has taken the others"),
        }
        Ok(())
    }
}

//! One node as its replica sees it: a disk, a state machine, a clock, and the process around them.

use std::collections::{BTreeMap, VecDeque};

use paxos::{
    Ballot, Config, Entry, Index, Instant, Life, Liveness, NodeId, Options, Record, Recovered,
    Replica, Value,
};

use crate::members::{Install, Partial};
use crate::random::Random;

/// A clock that drifts. Its origin is another in each incarnation, as monotonic clocks' are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset_us: u64,
    /// How long this clock thinks a real second is, in microseconds.
    rate: u64,
}

/// A real second in microseconds.
const SECOND_US: u64 = 1_000_000;
/// How long clocks think it is that drift no further apart than the margin.
pub(crate) const SLOWEST: u64 = 910_000;
pub(crate) const FASTEST: u64 = 1_090_000;

impl Clock {
    /// Sets how long it thinks a real second is, before the node first starts.
    pub(crate) fn set_rate(&mut self, rate: u64) {
        self.rate = rate;
    }

    pub(crate) fn local(self, real_us: u64) -> Instant {
        Instant(self.offset_us + real_us * self.rate / SECOND_US)
    }

    /// The first real microsecond at which this clock shows a time.
    fn real(self, local: Instant) -> u64 {
        let passed = local.0.saturating_sub(self.offset_us);
        passed.saturating_mul(SECOND_US).div_ceil(self.rate)
    }
}

/// What is on a disk: the log, as records that are synced and records that may vanish.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Disk {
    promised: Ballot,
    chosen: Index,
    truncated: Index,
    entries: BTreeMap<u64, Entry>,
    /// Entries whose identity is known and whose value is damaged.
    faulty: BTreeMap<u64, Ballot>,
    config: Option<Config>,
    unsynced: VecDeque<(u64, Record)>,
    /// A sync is under way that covers records up to this token.
    syncing: Option<u64>,
}

impl Disk {
    /// Appends a record. True if a sync has to be started now.
    pub(crate) fn append(&mut self, token: u64, record: Record) -> bool {
        let must_sync = record.must_sync();
        self.unsynced.push_back((token, record));
        must_sync && self.start_sync()
    }

    /// Starts a sync of everything appended so far, unless one is under way.
    fn start_sync(&mut self) -> bool {
        let newest = self.unsynced.back().map(|(token, _)| *token);
        if self.syncing.is_some() || newest.is_none() {
            return false;
        }
        self.syncing = newest;
        true
    }

    /// The sync has ended: the token it covers, and whether another one is started.
    pub(crate) fn synced(&mut self) -> Option<(u64, bool)> {
        let through = self.syncing.take()?;
        while self.unsynced.front().is_some_and(|(token, _)| *token <= through) {
            let (_, record) = self.unsynced.pop_front()?;
            self.keep(record);
        }
        let more = self.unsynced.iter().any(|(_, record)| record.must_sync());
        Some((through, more && self.start_sync()))
    }

    fn keep(&mut self, record: Record) {
        match record {
            Record::Promise(ballot) => self.promised = self.promised.max(ballot),
            Record::Accept(entry) => {
                self.promised = self.promised.max(entry.ballot);
                let newest = self.entries.get(&entry.index.0).map(|held| held.ballot);
                if newest.is_none_or(|newest| newest <= entry.ballot) {
                    self.faulty.remove(&entry.index.0);
                    self.entries.insert(entry.index.0, entry);
                }
            }
            Record::Config(config) => self.config = Some(config),
            Record::Chosen(index) => self.chosen = self.chosen.max(index),
            Record::Truncate(index) | Record::Skip(index) => {
                self.truncated = self.truncated.max(index);
                self.entries = self.entries.split_off(&(self.truncated.0 + 1));
                self.faulty = self.faulty.split_off(&(self.truncated.0 + 1));
            }
        }
    }

    /// As [`Replica::count_anew`]: of what need not be synced, the newest mark is left.
    pub(crate) fn count_anew(&mut self) {
        let newest = self.unsynced.iter().filter_map(|(_, record)| match record {
            Record::Chosen(index) => Some(*index),
            _ => None,
        });
        let newest = newest.max().map(|index| (0, Record::Chosen(index)));
        self.unsynced.retain(|(_, record)| !matches!(record, Record::Chosen(_)));
        self.unsynced.iter_mut().for_each(|(token, _)| *token = 0);
        self.unsynced.extend(newest);
    }

    /// The power fails and all that is not synced is lost.
    pub(crate) fn lose_unsynced(&mut self) {
        self.unsynced.clear();
        self.syncing = None;
    }

    /// The power fails: of what is not synced, some first records may have got there.
    pub(crate) fn crash(&mut self, random: &mut Random) -> usize {
        let survive = random.below(self.unsynced.len() as u64 + 1) as usize;
        let lost = self.unsynced.len() - survive;
        for _ in 0..survive {
            if let Some((_, record)) = self.unsynced.pop_front() {
                self.keep(record);
            }
        }
        self.unsynced.clear();
        self.syncing = None;
        lost
    }

    /// Damages up to so many entries above an index; returns how many.
    pub(crate) fn damage(&mut self, above: Index, entries: u64, random: &mut Random) -> u64 {
        let mut damaged = 0;
        for _ in 0..entries {
            // The newest are what others may not have yet.
            let back = random.skewed(1, 64) as usize - 1;
            let range = self.entries.range(above.0 + 1..);
            let Some((&index, _)) = range.rev().nth(back) else { continue };
            if let Some(entry) = self.entries.remove(&index) {
                self.faulty.insert(index, entry.ballot);
                damaged += 1;
            }
        }
        damaged
    }

    /// What is durably promised.
    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    /// Whether entries above an index are damaged.
    pub(crate) fn is_damaged_above(&self, applied: Index) -> bool {
        self.faulty.range(applied.0 + 1..).next().is_some()
    }

    /// Chosen entries for a member that lags: as many as fit, and one at least.
    pub(crate) fn read(&self, first: Index, last: Index, bytes_max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        let (mut index, mut bytes) = (first, 0);
        while index <= last && (entries.is_empty() || bytes < bytes_max) {
            let Some(entry) = self.entries.get(&index.0) else { break };
            bytes += entry.value.len();
            entries.push(entry.clone());
            index = index.next();
        }
        entries
    }

    pub(crate) fn recover(&self, applied: Index) -> Recovered {
        let above = self.entries.range(applied.0 + 1..);
        let faulty = self.faulty.range(applied.0 + 1..);
        Recovered {
            promised: self.promised,
            chosen: self.chosen,
            applied,
            truncated: self.truncated,
            entries: above.map(|(_, entry)| entry.clone()).collect(),
            faulty: faulty.map(|(index, ballot)| (Index(*index), *ballot)).collect(),
            config: self.config.clone(),
        }
    }
}

/// The state machine: all it was ever given. What is above `flushed` dies with the process.
#[derive(Default, Debug)]
pub(crate) struct Machine {
    pub(crate) values: Vec<Value>,
    pub(crate) flushed: Index,
    /// Entries before the first value: a log replica keeps no state.
    pub(crate) skipped: u64,
    /// What the last snapshot came with.
    pub(crate) config: Option<Config>,
}

impl Machine {
    pub(crate) fn applied(&self) -> Index {
        Index(self.skipped + self.values.len() as u64)
    }
}

/// A node.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    pub(crate) clock: Clock,
    /// `None` while the process is dead, as is `replica` then.
    pub(crate) liveness: Option<Liveness>,
    pub(crate) replica: Option<Replica>,
    /// Which life of the process this is: events of an older one mean nothing.
    pub(crate) life: u64,
    /// Until when the process stands still.
    pub(crate) paused_until: Option<u64>,
    /// The process dies after so many more outputs, for so many microseconds.
    pub(crate) dies_in: Option<(u64, u64)>,
    /// This becomes `dies_in` when the process next writes a promise.
    pub(crate) dies_at_promise: Option<(u64, u64)>,
    /// When this process next hears chosen entries, it campaigns and hears them a moment later.
    pub(crate) campaigns_at_chosen: bool,
    /// When this process next leads, nobody hears it.
    pub(crate) mute_when_leads: bool,
    /// The next sync fails, and the process is down for so many microseconds.
    pub(crate) sync_fails: Option<u64>,
    /// Until when nothing can be appended.
    pub(crate) disk_full_until: Option<u64>,
    /// Has a log and no state machine.
    pub(crate) is_log: bool,
    /// Wiped, or removed and switched off: never starts again.
    pub(crate) gone: bool,
    pub(crate) install: Option<Install>,
    /// What of a snapshot is on disk.
    pub(crate) partial: Option<Partial>,
    /// What this life proposed, by index.
    pub(crate) proposed: BTreeMap<u64, u64>,
    /// The real time for which a tick is scheduled.
    pub(crate) tick_at: Option<u64>,
    /// The same for the node's liveness.
    pub(crate) beat_at: Option<u64>,
}

impl Host {
    pub(crate) fn new(id: NodeId, loose: bool, random: &mut Random) -> Host {
        // Two clocks differ by 1.09 / 0.91 at most: within the margin of 20 %. Loose ones do not.
        let (slowest, fastest) = if loose { (700_000, 1_300_000) } else { (SLOWEST, FASTEST) };
        let rate = match random.below(4) {
            0 => slowest,
            1 => fastest,
            _ => random.between(slowest, fastest),
        };
        Host {
            id,
            disk: Disk::default(),
            machine: Machine::default(),
            clock: Clock { offset_us: 0, rate },
            liveness: None,
            replica: None,
            life: 0,
            paused_until: None,
            dies_in: None,
            dies_at_promise: None,
            campaigns_at_chosen: false,
            is_log: false,
            gone: false,
            install: None,
            partial: None,
            mute_when_leads: false,
            sync_fails: None,
            disk_full_until: None,
            proposed: BTreeMap::new(),
            tick_at: None,
            beat_at: None,
        }
    }

    /// Starts the process over what the disk holds, among all nodes there are.
    pub(crate) fn start(
        &mut self,
        (members, nodes): (&[NodeId], &[NodeId]),
        options: &Options,
        real_us: u64,
        random: &mut Random,
    ) {
        self.clock.offset_us = random.below(1 << 40);
        let mut recovered = self.disk.recover(self.machine.applied());
        if let Some(config) = &self.machine.config {
            let newer = recovered.config.take().filter(|logged| logged.index > config.index);
            recovered.config = newer.or(Some(config.clone()));
        }
        let now = self.clock.local(real_us);
        let life = Life(random.next());
        let mut liveness = Liveness::new(self.id, life, options.clone(), now);
        nodes.iter().for_each(|peer| liveness.add_peer(*peer, now));
        let (supports, seed) = (liveness.supports(), random.next());
        self.liveness = Some(liveness);
        let options = options.clone();
        let replica = Replica::new(self.id, members, options, recovered, supports, now, seed);
        self.replica = Some(replica);
    }

    /// Whether everything up to an index is on this node's disk, as state or as log.
    pub(crate) fn holds_through(&self, index: Index) -> bool {
        let first = self.machine.flushed.max(self.disk.truncated).0 + 1;
        (first..=index.0).all(|index| self.disk.entries.contains_key(&index))
    }

    /// Kills the process; returns how many records are lost.
    pub(crate) fn crash(&mut self, random: &mut Random) -> usize {
        self.replica = None;
        self.liveness = None;
        self.life += 1;
        self.paused_until = None;
        self.dies_in = None;
        self.proposed.clear();
        self.tick_at = None;
        self.beat_at = None;
        self.install = None;
        self.machine.values.truncate(self.machine.flushed.0 as usize);
        let lost = self.disk.crash(random);
        if self.is_log {
            self.machine.values.clear();
            self.machine.skipped = self.disk.truncated.0;
        }
        lost
    }

    /// The real time at which the replica wants a tick, if none is scheduled by then.
    pub(crate) fn tick_wanted(&mut self) -> Option<u64> {
        let wanted = self.clock.real(self.replica.as_ref()?.next_deadline());
        if self.tick_at.is_some_and(|at| at <= wanted) {
            return None;
        }
        self.tick_at = Some(wanted);
        self.tick_at
    }

    /// The real time at which the liveness wants a tick, if none is scheduled by then.
    pub(crate) fn beat_wanted(&mut self) -> Option<u64> {
        let wanted = self.clock.real(self.liveness.as_ref()?.next_deadline());
        if self.beat_at.is_some_and(|at| at <= wanted) {
            return None;
        }
        self.beat_at = Some(wanted);
        self.beat_at
    }

    /// Whether the replica may answer a read at this moment, and from which state.
    pub(crate) fn serves_from(&self, real_us: u64) -> Option<Index> {
        let replica = self.replica.as_ref()?;
        replica.may_serve(self.clock.local(real_us)).then(|| self.machine.applied())
    }
}

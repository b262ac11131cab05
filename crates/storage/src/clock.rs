//! The clock thread: ticks of consensus, expiry, eviction, ends of waits, care for groups, routes told
//! again, and batches that no connection waits for. It looks at those replicas alone that are awake
//! ([`crate::agenda`]); one to which nothing happens is looked at for nothing, however many there are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wire::ids::PartitionId;

use crate::agenda::Timers;
use crate::care;
use crate::core::Now;
use crate::driver::{Shared, pressure_us};
use crate::partition::Partition;
use crate::pulse;

/// How often the clock thread looks at the replicas that are awake.
const TICK: Duration = Duration::from_millis(20);
/// How long the clock thread rests at most: other nodes are looked after as well.
const REST_MAX: Duration = Duration::from_millis(100);
/// Keys deleted by expiry in one step, under one lock.
const EXPIRE_KEYS_MAX: usize = 256;
/// Steps of expiry in one round of a partition.
const EXPIRE_STEPS_MAX: usize = 16;
/// How long eviction may go on in one round of a partition.
const EVICT_TIME_MAX: Duration = Duration::from_millis(2);
/// Steps of eviction in one round of a partition, however little time they take.
const EVICT_STEPS_MAX: usize = 256;
/// How long a replica that lagged may apply what is chosen in one round.
const APPLY_TIME_MAX: Duration = Duration::from_millis(5);
/// Steps of that in one round of a partition, however little time they take.
const APPLY_STEPS_MAX: usize = 256;
/// Partitions that sleep and give memory back in one round, at most, while there is too little.
const EVICT_PARTITIONS_MAX: usize = 64;
/// How often a leader tells its route again to a MemDS node that may have missed it.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(10);
/// Routes told again at once, at most; those of more partitions take several intervals.
const PUBLISH_ROUTES_MAX: usize = 1024;

/// What goes round all partitions, some at a time.
#[derive(Default)]
struct Round {
    /// It goes on behind this one.
    behind: Option<PartitionId>,
}

impl Round {
    /// The next partitions, at most so many, none twice.
    fn next(&mut self, shared: &Shared, count: usize) -> Vec<Arc<Partition>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let partitions = shared.partitions.read();
        let behind = self.behind.map_or(Unbounded, Excluded);
        let ahead = partitions.range((behind, Unbounded)).map(|(_, partition)| partition);
        let ahead = ahead.chain(partitions.values()).take(count.min(partitions.len()));
        let next: Vec<_> = ahead.cloned().collect();
        self.behind = next.last().map(|partition| partition.id);
        next
    }
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    let mut rounds = Rounds::new(shared.clock.instant());
    while !shared.is_stopping() {
        if rounds.awake.is_empty() {
            shared.agenda.wait(rounds.timers.rest(shared.clock.monotonic(), REST_MAX));
        }
        // Not at once: most of what was begun is over by the next tick.
        std::thread::park_timeout(TICK);
        shared.faults.checkpoint();
        rounds.go(shared);
    }
}

/// What the clock thread does, round after round.
pub(crate) struct Rounds {
    awake: Vec<Arc<Partition>>,
    timers: Timers,
    told: Round,
    evicted: Round,
    next_publish: Instant,
}

impl Rounds {
    /// From now on.
    pub(crate) fn new(now: Instant) -> Rounds {
        Rounds {
            awake: Vec::new(),
            timers: Timers::default(),
            told: Round::default(),
            evicted: Round::default(),
            next_publish: now + PUBLISH_INTERVAL,
        }
    }

    /// One round.
    pub(crate) fn go(&mut self, shared: &Shared) {
        pulse::tell_replicas(shared);
        care::look_around(shared);
        let now = shared.now();
        self.awake.extend(shared.agenda.take().iter().filter_map(std::sync::Weak::upgrade));
        while let Some(due) = self.timers.pop(now.monotonic) {
            self.awake.push(due);
        }
        let timers = &mut self.timers;
        self.awake.retain(|partition| {
            // A replica that was let go is nobody's any more.
            let is_held = shared.replica(partition.id, partition.identity).is_some();
            is_held && look_at(shared, partition, now, timers)
        });
        if shared.options.rows.is_exceeded() {
            let some = self.evicted.next(shared, EVICT_PARTITIONS_MAX);
            some.iter().for_each(|partition| make_room(shared, partition));
        }
        let instant = shared.clock.instant();
        if instant >= self.next_publish {
            self.next_publish = instant + PUBLISH_INTERVAL;
            publish_again(shared, &self.told.next(shared, PUBLISH_ROUTES_MAX));
        }
        let memory = shared.memory_bytes.load(Ordering::Relaxed);
        let level0 = shared.lsm.level0_runs() as u64;
        let pressure = pressure_us(memory, shared.options.memtable_bytes, level0);
        shared.pressure_us.store(pressure, Ordering::Relaxed);
    }
}

/// Does what is due at a replica. False if it sleeps from now on.
fn look_at(shared: &Shared, partition: &Arc<Partition>, now: Now, timers: &mut Timers) -> bool {
    shared.faults.checkpoint();
    partition.attention.begin();
    let instant = shared.clock.instant();
    let care_due = care::look_after(shared, partition, now).map(|in_| now.monotonic.after(in_));
    let (discarded, has_more) = shared.step_in(partition, partition.look(), |core, actions| {
        if core.replica.next_deadline() <= now.monotonic {
            core.replica.handle_tick(now.monotonic);
        }
        core.end_waits(instant);
        if core.serves(now.monotonic) {
            // Whom a full batch had no room for.
            core.serve_kept(&shared.lsm);
        }
        if core.may_seal() && !shared.is_stopping() {
            // Whoever was to seal it is gone.
            core.seal(now, actions);
        }
        (core.take_discarded(), core.replica.has_more())
    });
    drop(discarded);
    if has_more {
        apply_more(shared, partition, now);
    }
    make_room(shared, partition);
    expire_keys(shared, partition, now);
    let core = partition.look();
    let due = core.due(now).into_iter().chain(care_due).min();
    if due.is_some_and(|due| due <= now.monotonic.after(TICK)) || !partition.attention.sleep() {
        return true;
    }
    timers.set(partition, due);
    false
}

/// Tells the routes of these partitions that this node leads.
fn publish_again(shared: &Shared, partitions: &[Arc<Partition>]) {
    for partition in partitions {
        let now = shared.clock.monotonic();
        let route = {
            let core = partition.look();
            core.serves(now).then(|| core.route())
        };
        if let Some(route) = route {
            (shared.publish)(route);
        }
    }
}

/// Applies what a replica that lagged has not applied yet, in steps that each hold the lock for a moment.
fn apply_more(shared: &Shared, partition: &Arc<Partition>, now: Now) {
    let until = shared.clock.instant() + APPLY_TIME_MAX;
    for _ in 0..APPLY_STEPS_MAX {
        let has_more = shared.step_in(partition, partition.look(), |core, _| {
            core.replica.handle_tick(now.monotonic);
            core.replica.has_more()
        });
        if !has_more || shared.clock.instant() >= until {
            return;
        }
    }
}

/// Evicts rows while their budget is exceeded, in steps that each hold the lock for a moment. The
/// partition that writes evicts its own; those that do not give memory back here.
fn make_room(shared: &Shared, partition: &Partition) {
    let until = shared.clock.instant() + EVICT_TIME_MAX;
    for _ in 0..EVICT_STEPS_MAX {
        if !partition.look().make_room() || shared.clock.instant() >= until {
            return;
        }
    }
}

/// Deletes keys whose time has come, in steps that each hold the partition's lock for a moment.
fn expire_keys(shared: &Shared, partition: &Arc<Partition>, now: Now) {
    if shared.faults.keeps_expired() || shared.options.shapes.keeps_expired(now.wall_ms) {
        return;
    }
    for _ in 0..EXPIRE_STEPS_MAX {
        let more = shared.step_in(partition, partition.look(), |core, _| {
            core.expire(now, &shared.lsm, EXPIRE_KEYS_MAX).map(|()| core.is_expiry_due())
        });
        match more {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(node = shared.id.0, %error, "expiry could not read its index");
                return;
            }
        }
    }
}

//! A node's clocks in virtual time, and its chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use storage::machine::{Draw, Timekeeper};

use crate::random::Random;

/// What all clocks of a run show when it begins, in milliseconds since the epoch.
const WALL_MS: i64 = 1_700_000_000_000;
/// A real second in microseconds.
const SECOND_US: u64 = 1_000_000;

/// The time of the world, in microseconds since the run began.
#[derive(Clone, Debug)]
pub(crate) struct Now {
    real_us: Arc<AtomicU64>,
    origin: Instant,
}

impl Now {
    pub(crate) fn new() -> Now {
        Now { real_us: Arc::default(), origin: Instant::now() }
    }

    pub(crate) fn get(&self) -> u64 {
        self.real_us.load(Relaxed)
    }

    pub(crate) fn set(&self, us: u64) {
        self.real_us.store(us, Relaxed);
    }
}

/// A node's clocks: the monotonic one drifts, the wall's is off as well.
#[derive(Debug)]
pub(crate) struct Clock {
    now: Now,
    /// How long this clock thinks a real second is, in microseconds.
    rate_us: u64,
    wall_off_ms: AtomicI64,
}

impl Clock {
    pub(crate) fn new(now: Now, rate_us: u64, wall_off_ms: i64) -> Arc<Clock> {
        Arc::new(Clock { now, rate_us, wall_off_ms: AtomicI64::new(wall_off_ms) })
    }

    /// Somebody sets the clock on the wall.
    pub(crate) fn set_wall(&self, off_ms: i64) {
        self.wall_off_ms.store(off_ms, Relaxed);
    }

    /// How long a span of this clock takes, in real microseconds.
    pub(crate) fn real_us(&self, local_us: u64) -> u64 {
        (local_us * SECOND_US).div_ceil(self.rate_us)
    }
}

impl Timekeeper for Clock {
    fn origin(&self) -> Instant {
        self.now.origin
    }

    fn monotonic_us(&self) -> u64 {
        self.now.get() * self.rate_us / SECOND_US
    }

    fn wall_ms(&self) -> u64 {
        let since = (self.now.get() / 1000) as i64;
        (WALL_MS + since + self.wall_off_ms.load(Relaxed)) as u64
    }
}

/// Random bits for a node.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<Random>);

impl Dice {
    pub(crate) fn new(seed: u64, node: usize) -> Arc<Dice> {
        Arc::new(Dice(Mutex::new(Random::new(seed, &format!("dice {node}")))))
    }
}

impl Draw for Dice {
    fn draw(&self) -> u64 {
        self.0.lock().next()
    }
}

//! A partition replica on its node: the core behind its lock.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use wire::ids::PartitionId;
use wire::placement::PlacementRange;

use crate::core::{Core, Now};

/// See the module's text.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) range: PlacementRange,
    pub(crate) core: Mutex<Core>,
}

impl Partition {
    pub(crate) fn new(id: PartitionId, range: PlacementRange, core: Core) -> Partition {
        Partition { id, range, core: Mutex::new(core) }
    }
}

/// The node's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// The monotonic time.
    pub(crate) fn monotonic(&self) -> paxos::Instant {
        self.at(Instant::now())
    }

    /// A moment as consensus counts time.
    pub(crate) fn at(&self, instant: Instant) -> paxos::Instant {
        paxos::Instant((instant - self.origin).as_micros() as u64)
    }

    /// Both times.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall_ms = wall.unwrap_or(Duration::ZERO).as_millis() as u64;
        Now { monotonic: self.monotonic(), wall_ms }
    }
}

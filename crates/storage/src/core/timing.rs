//! When a partition needs the clock thread.

use std::time::Duration;

use paxos::Instant;

use super::{Core, Now};
use crate::timers::NEVER;

/// How long a leader without a lease waits before it looks for expired keys again.
const NO_LEASE_DELAY: Duration = Duration::from_secs(1);

/// What a core knows about its entry in [`crate::timers::Timers`].
pub(crate) struct Timing {
    /// The entry's time.
    at: Instant,
    /// The entry covers what wants the clock soon.
    covers_soon: bool,
    /// When keys may expire, for the time that the agenda said then.
    expiry_at: Instant,
    expiry_for_ms: Option<u64>,
}

impl Timing {
    pub(crate) fn new() -> Timing {
        Timing { at: NEVER, covers_soon: false, expiry_at: NEVER, expiry_for_ms: None }
    }
}

impl Core {
    /// When this partition needs the clock thread, if that is earlier than its entry says: the times
    /// before and after. `soon` tells the time at which whatever waits for the next tick is served.
    pub(crate) fn retime(&mut self, soon: impl FnOnce() -> Instant) -> Option<(Instant, Instant)> {
        let mut at = self.replica.next_deadline();
        if self.replica.is_leader()
            && let Some(due_ms) = self.expiry.next_due_ms()
        {
            let is_known = self.timing.expiry_for_ms == Some(due_ms);
            at = at.min(if is_known { self.timing.expiry_at } else { Instant(0) });
        }
        if !self.timing.covers_soon && self.wants_clock() {
            self.timing.covers_soon = true;
            at = at.min(soon());
        }
        let before = self.timing.at;
        if at >= before {
            return None;
        }
        self.timing.at = at;
        Some((before, at))
    }

    /// Takes note that its entry was taken out. False if that was not the newest.
    pub(crate) fn timer_fired(&mut self, at: Instant) -> bool {
        let is_newest = self.timing.at == at;
        if is_newest {
            self.timing.at = NEVER;
            self.timing.covers_soon = false;
        }
        is_newest
    }

    /// Whether there is something that the next tick has to look after.
    fn wants_clock(&self) -> bool {
        let sweeps = self.resident.as_ref().is_some_and(|resident| resident.is_sweeping());
        let waits = !self.waiters.is_empty() || self.blocked.is_ready();
        self.open.is_some() || waits || !self.discarded.is_empty() || sweeps
    }

    /// Expired keys up to now are deleted, or nobody may do that now.
    pub(super) fn expiry_checked(&mut self, now: Now) {
        let due_ms = self.expiry.next_due_ms();
        let wait = if self.serves(now.monotonic) {
            Duration::from_millis(due_ms.unwrap_or(u64::MAX).saturating_sub(self.now_ms))
        } else {
            NO_LEASE_DELAY
        };
        self.timing.expiry_for_ms = due_ms;
        self.timing.expiry_at = now.monotonic.after(wait);
    }
}

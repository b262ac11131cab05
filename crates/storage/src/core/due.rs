//! When the clock thread next has something to do for a replica.

use std::time::Duration;

use super::{Core, Now};

/// A leader of keys with a time to live looks at the wall clock at least so often: it may have been set.
const EXPIRY_LOOK_MAX: Duration = Duration::from_secs(10);

impl Core {
    /// When the clock thread is to look at this replica again; what has passed means its next tick.
    /// `None`: not before something happens to the replica.
    pub(crate) fn due(&self, now: Now) -> Option<paxos::Instant> {
        let is_busy = self.open.is_some()
            || !self.waiters.is_empty()
            || self.handing_over.is_some()
            || !self.discarded.is_empty()
            || self.blocked.is_ready()
            || self.resident.as_ref().is_some_and(|resident| resident.is_sweeping(self.horizon()));
        if is_busy {
            return Some(now.monotonic);
        }
        let due_ms = self.expiry.next_due_ms().filter(|_| self.replica.is_leader());
        let expiry = due_ms.map(|due_ms| {
            let left = due_ms.saturating_sub(self.now_ms.max(now.wall_ms));
            now.monotonic.after(Duration::from_millis(left).min(EXPIRY_LOOK_MAX))
        });
        let consensus =
            Some(self.replica.next_deadline()).filter(|due| *due < paxos::Instant::NEVER);
        expiry.into_iter().chain(consensus).min()
    }
}

//! Keys whose time has come.

use commands::types::keyspace::expire_due;
use commands::{Txn, ViewError};

use super::{Asker, Core, Now};
use crate::containment::contained;
use crate::lsm::Lsm;

impl Core {
    /// Deletes keys whose time has come, at most `limit`.
    pub(crate) fn expire(&mut self, now: Now, lsm: &Lsm, limit: usize) -> Result<(), ViewError> {
        self.now_ms = self.now_ms.max(now.wall_ms);
        let is_due = self.expiry.is_due(self.now_ms);
        if !is_due
            || self.held.is_some()
            || self.handing_over.is_some()
            || !self.may_evaluate(now.monotonic)
        {
            return Ok(());
        }
        let next_version = self.next_version();
        let Some(view) = self.view(lsm, true) else { return Ok(()) };
        let mut txn = Txn::new(&view, next_version);
        let expired = contained("expiry", || expire_due(&mut txn, &self.expiry, limit));
        let expired = expired.ok_or_else(|| ViewError::Io("it panicked".into()))??;
        let effects = txn.into_effects();
        self.expiry.done(&expired, self.now_ms);
        if !effects.is_empty() {
            self.asker = Asker::default();
            self.join(effects);
            self.serve_kept(lsm);
        }
        Ok(())
    }

    /// Whether this leader knows of a key whose time has come.
    pub(crate) fn is_expiry_due(&self) -> bool {
        self.replica.is_leader() && self.expiry.is_due(self.now_ms)
    }
}

//! Keys and fields whose time has come.

use bytes::Bytes;
use commands::overdue::{self, Overdue};
use commands::types::keyspace::expire_due;
use commands::{Txn, ViewError};

use super::{Asker, Core, Now, check_effects};
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
        if !effects.is_empty() && check_effects(&effects).is_ok() {
            self.asker = Asker::default();
            self.join(effects);
            self.serve_kept(lsm);
        }
        Ok(())
    }

    /// Sees to what a command met, behind it, unless there is too much to be proposed already. Nothing waits
    /// for it: what fails is left to [`Core::expire`], or to who meets it next.
    pub(super) fn settle_met(&mut self, met: &[(Bytes, Overdue)], lsm: &Lsm) {
        let is_kept = || self.shapes.keeps_expired(self.now_ms);
        if met.is_empty() || self.handing_over.is_some() || self.is_batch_full() || is_kept() {
            return;
        }
        let next_version = self.next_version();
        let Some(view) = self.view(lsm, false) else { return };
        let mut txn = Txn::new(&view, next_version);
        let settled = contained("expiry", || overdue::settle(&mut txn, met));
        if !matches!(settled, Some(Ok(()))) {
            return;
        }
        let effects = txn.into_effects();
        if !effects.is_empty() {
            self.asker = Asker::default();
            self.join(effects);
        }
    }

    /// Whether this leader knows of a key whose time has come.
    pub(crate) fn is_expiry_due(&self) -> bool {
        self.replica.is_leader() && self.expiry.is_due(self.now_ms)
    }
}

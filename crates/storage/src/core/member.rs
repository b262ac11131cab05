//! A partition replica as a member of its group: its route, leadership that is handed over, rows that
//! are given to another replica or taken from one, a log that is kept within bounds.

use std::collections::VecDeque;
use std::sync::Arc;

use paxos::{ChangeError, Config, Index, Member, MemberKind, Replica};
use wire::ids::NodeId;
use wire::service::{Route, RouteVersion};

use super::{Actions, Core, Now};
use crate::backlog::Batches;
use crate::identity::node_of;
use crate::lsm::{Lsm, Snapshot};
use crate::meta::Applied;
use crate::requests::Requests;

/// Between two marks of [`LogSizes`] at most, in bytes of batches.
const MARK_BYTES: u64 = 1 << 20;
/// Marks of a log that is as long as it may be, at least.
const MARKS: u64 = 8;

/// Rows to be fetched from another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Install {
    pub(crate) from: paxos::NodeId,
    /// The log index that they must reach.
    pub(crate) at_least: u64,
}

/// A replica's rows at one log index.
pub(crate) struct Captured {
    pub(crate) applied: Applied,
    pub(crate) requests: Requests,
    pub(crate) config: Config,
    /// What fjall did not hold yet, oldest first.
    pub(crate) batches: Vec<Arc<Batches>>,
    pub(crate) rows: Snapshot,
}

/// Leadership on its way to another member. Writes wait for the new leader from the beginning, so
/// that nothing is evaluated here that this leader cannot propose any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    to: paxos::NodeId,
    until: paxos::Instant,
    /// Consensus was asked: nothing is on its way any more.
    asked: bool,
}

/// How large the log is behind an index: every megabyte a mark, and more of a log that is to be short.
#[derive(Debug)]
pub(super) struct LogSizes {
    total: u64,
    mark_bytes: u64,
    /// Indexes and the total up to them.
    marks: VecDeque<(u64, u64)>,
}

impl Default for LogSizes {
    fn default() -> LogSizes {
        LogSizes { total: 0, mark_bytes: MARK_BYTES, marks: VecDeque::new() }
    }
}

impl LogSizes {
    pub(super) fn add(&mut self, index: u64, bytes: u64) {
        self.total += bytes;
        if self.marks.back().is_none_or(|(_, total)| self.total - total >= self.mark_bytes) {
            self.marks.push_back((index, self.total));
        }
    }

    /// The highest marked index with at least so many bytes behind it.
    fn behind(&mut self, bytes: u64, truncated: u64) -> Option<u64> {
        self.mark_bytes = MARK_BYTES.min(bytes / MARKS);
        while self.marks.front().is_some_and(|(index, _)| *index <= truncated) {
            self.marks.pop_front();
        }
        let small = self.marks.partition_point(|(_, total)| self.total - total >= bytes);
        Some(self.marks[small.checked_sub(1)?].0)
    }
}

/// The epoch of a replica's routes: raised by each configuration.
pub(super) fn epoch_of(replica: &Replica) -> u64 {
    replica.config().index.0 + 1
}

impl Core {
    /// The route as this replica knows it.
    pub(crate) fn route(&self) -> Route {
        let status = self.replica.status();
        let storage = self.replica.config().members.iter();
        let storage = storage.filter(|member| member.kind == MemberKind::Storage);
        let mut members: Vec<NodeId> = storage.map(|member| node_of(member.id)).collect();
        members.sort_unstable();
        Route {
            partition: self.partition,
            range: self.range,
            version: RouteVersion { epoch: self.epoch, ballot: status.ballot.number },
            leader: status.leader.map(node_of),
            members,
        }
    }

    /// Whether there is no other replica.
    pub(super) fn is_alone(&self) -> bool {
        self.replica.config().members.len() == 1
    }

    pub(super) fn config_changed(&mut self, actions: &mut Actions) {
        self.epoch = epoch_of(&self.replica);
        let config = self.replica.config();
        let (node, partition, index) = (self.node.0, self.partition.0, config.index.0);
        tracing::info!(node, partition, index, members = ?config.members, old = ?config.old, "members");
        if self.replica.is_leader() {
            actions.publish = Some(self.route());
        }
    }

    /// Begins to hand leadership over.
    ///
    /// *Errors*: this replica does not serve, or the other cannot lead.
    pub(crate) fn begin_hand_over(
        &mut self,
        to: paxos::NodeId,
        now: Now,
    ) -> Result<(), paxos::TransferError> {
        if !self.serves(now.monotonic) {
            return Err(paxos::TransferError::NotLeader);
        }
        let config = self.replica.config();
        if config.kind(to) != Some(MemberKind::Storage) || config.is_joint() {
            return Err(paxos::TransferError::NoCandidate);
        }
        let until = now.monotonic.after(self.replica.options().lease);
        self.handing_over = Some(HandOver { to, until, asked: false });
        self.go_on_handing_over(now);
        Ok(())
    }

    /// Whether leadership is on its way to another member.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over.is_some()
    }

    /// Has consensus hand over once nothing is on its way here; gives up in time.
    pub(crate) fn go_on_handing_over(&mut self, now: Now) {
        let Some(hand_over) = &mut self.handing_over else { return };
        let is_over = !self.replica.is_leader()
            || now.monotonic >= hand_over.until
            || (hand_over.asked && !self.replica.is_handing_over());
        if is_over {
            self.handing_over = None;
            return;
        }
        if !hand_over.asked && self.open.is_none() && self.in_flight.is_empty() {
            hand_over.asked = true;
            if self.replica.transfer(hand_over.to, now.monotonic).is_err() {
                self.handing_over = None;
            }
        }
    }

    /// Proposes other members. An open batch goes first: its effects name the index that is next.
    pub(crate) fn change_members(
        &mut self,
        members: &[Member],
        now: Now,
        actions: &mut Actions,
    ) -> Result<(), ChangeError> {
        self.seal(now, actions);
        if self.open.is_some() || self.handing_over.is_some() {
            return Err(ChangeError::InProgress);
        }
        self.replica.change_members(members, now.monotonic).map(drop)
    }

    /// The rows as they are now, to be given to another replica.
    pub(crate) fn capture(&self, lsm: &Lsm) -> Captured {
        Captured {
            applied: self.applied,
            requests: self.requests.clone(),
            config: self.replica.config().clone(),
            batches: self.backlog.share(),
            // Under the partition's lock: what a flush is bringing in is in the batches too.
            rows: lsm.snapshot(),
        }
    }

    /// The rows in fjall are now those of a snapshot: goes on from there. Tells how many bytes of
    /// batches were dropped. No flush may be under way.
    pub(crate) fn installed(
        &mut self,
        (applied, requests): (Applied, Requests),
        config: Config,
        now: Now,
    ) -> u64 {
        let mut dropped = 0;
        self.rows_through = self.rows_through.max(applied.index);
        if applied.index > self.applied.index {
            dropped = self.backlog.clear();
            self.sizes = LogSizes::default();
            self.applied = applied;
            self.requests = requests;
            self.flushed_index = applied.index;
            self.frozen_index = applied.index;
            self.flush_epoch += 1;
            self.now_ms = self.now_ms.max(applied.now_ms);
            self.recent.clear();
            self.reset_tip();
        }
        self.replica.installed(Index(applied.index), config, now.monotonic);
        dropped
    }

    /// Drops everything: the replica goes. Tells how many bytes of batches were dropped.
    pub(crate) fn clear(&mut self) -> u64 {
        self.abandon_waits();
        self.discarded.extend(self.resident.take());
        self.backlog.clear()
    }

    /// Has consensus let go of entries that would make the log longer than so many bytes, but of none
    /// above `held`, which somebody is about to need.
    pub(crate) fn bound_log(&mut self, bytes_max: u64, held: Option<u64>) {
        let truncated = self.replica.status().truncated.0;
        if let Some(index) = self.sizes.behind(bytes_max, truncated) {
            self.replica.let_go(Index(index.min(held.unwrap_or(u64::MAX))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_by_whole_marks() {
        let mut sizes = LogSizes::default();
        assert_eq!(sizes.behind(MARK_BYTES * 10, 0), None);
        for index in 1..=100 {
            sizes.add(index, MARK_BYTES / 4);
        }
        // A mark at 1, 5, 9, … 97.
        assert_eq!(sizes.behind(0, 0), Some(97));
        assert_eq!(sizes.behind(MARK_BYTES * 10, 0), Some(57));
        assert_eq!(sizes.behind(MARK_BYTES * 10, 80), None, "less is kept");
        assert_eq!(sizes.behind(MARK_BYTES * 100, 0), None);
        assert!(sizes.marks.front().is_some_and(|(index, _)| *index > 80));
        // A short log has its marks closer together.
        for index in 101..=110 {
            sizes.add(index, MARK_BYTES / 4);
        }
        assert_eq!(sizes.behind(MARK_BYTES, 100), Some(105), "a mark at 101, 105 and 109");
        for index in 111..=120 {
            sizes.add(index, MARK_BYTES / 4);
        }
        assert_eq!(sizes.behind(MARK_BYTES, 100), Some(116));
    }
}

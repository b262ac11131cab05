//! Calls of several commands or keys: a transaction, and looks at keys that it will depend on.

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{CommandError, Flags};
use smallvec::SmallVec;
use wire::ids::{CommandId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Request, Transaction, Watched, Work};

use crate::cache::Target;
use crate::route::{Answered, Caller, Routed};

/// What a routed call carries instead of one command.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(super) work: Work<'a>,
    pub(super) placements: SmallVec<[Placement; 8]>,
    pub(super) whole_table: bool,
    /// The table that the watched keys are of.
    pub(super) mapped: Option<TableId>,
    pub(crate) writes: bool,
    pub(crate) has_script: bool,
}

impl Batch<'_> {
    /// Whether a partition of this range holds all that the batch touches.
    pub(crate) fn is_within(&self, range: &PlacementRange) -> bool {
        if (range.first, range.last) == (Placement::MIN, Placement::MAX) {
            return true;
        }
        !self.whole_table && self.placements.iter().all(|placement| range.contains(*placement))
    }

    /// Whether a key that exists was watched in another table than this one, which the database is now.
    /// (Of keys that did not exist, the leader finds out whether they do now.)
    pub(crate) fn watched_elsewhere(&self, table: TableId) -> bool {
        let exists = |watched: &Watched| watched.seen.is_some();
        self.mapped.is_some_and(|mapped| mapped != table) && self.work.watched().iter().any(exists)
    }

    pub(crate) fn transaction<'b>(
        &'b self,
        routed: &'b Routed<'_>,
        target: &Target,
        (origin, request): (u64, Option<Request>),
    ) -> Transaction<'b> {
        Transaction {
            table: target.range.table,
            partition: target.partition,
            epoch: target.version.epoch,
            work: self.work,
            origin,
            request,
            client: routed.client.as_ref(),
        }
    }
}

/// The call of a batch; `entry` is the command that it is for.
pub(super) fn routed<'a>(
    entry: &'static Entry,
    table: TableId,
    batch: &'a Batch<'a>,
) -> Routed<'a> {
    let placement = batch.placements.first().copied().unwrap_or(Placement::MIN);
    let mut routed = Routed::by_placement(entry, table, &[], placement);
    routed.batch = Some(batch);
    routed
}

/// A look at keys.
pub(super) fn look<'a>(keys: &'a [Bytes]) -> Batch<'a> {
    Batch {
        work: Work::Look(keys),
        placements: keys.iter().map(|key| Placement::of_key(key)).collect(),
        whole_table: false,
        mapped: None,
        writes: false,
        has_script: false,
    }
}

/// Has the partition that holds a key do some work on it; `entry` is the command that it is for.
pub(crate) async fn work_at(
    caller: &mut Caller,
    (entry, table, key): (&'static Entry, TableId, &[u8]),
    work: Work<'_>,
) -> Result<Answered, CommandError> {
    let writes = |(id, _): &(CommandId, _)| table::entry(*id).command.flags.has(Flags::WRITE);
    let batch = Batch {
        work,
        placements: SmallVec::from_slice(&[Placement::of_key(key)]),
        whole_table: false,
        mapped: None,
        writes: work.commands().iter().any(writes),
        has_script: false,
    };
    caller.call(&routed(entry, table, &batch)).await
}

/// Whether a batch was refused because no partition holds all of it.
pub(super) fn is_apart(error: &CommandError) -> bool {
    *error == CommandError::CROSS_PARTITION
}

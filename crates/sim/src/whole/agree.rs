//! Whether replicas hold the same, when all is over.

use commands::rows::{RowKind, parse};
use storage::{RequestSums, Seen, StoredRows};
use wire::ids::PartitionId;

use super::world::{PARTITIONS, World};
use crate::checks::{Violation, violation};

impl World<'_> {
    /// Whether all members of all groups hold the same rows; else why not yet.
    pub(super) fn agrees(&self) -> Result<Option<String>, Violation> {
        for partition in PARTITIONS {
            let Some(members) = self.members(partition) else {
                return Ok(Some(format!("nobody leads {partition}")));
            };
            let newest = self.watch.newest(partition);
            let mut first: Option<(u32, StoredRows)> = None;
            let mut answered: Option<(u32, RequestSums)> = None;
            for identity in members {
                let at = place_of(identity);
                let Some(seen) = self.seen(at, partition, identity) else {
                    return Ok(Some(format!("{partition}: {identity} is not there")));
                };
                if seen.applied != newest {
                    let text = format!("{partition}: {identity} is at {}", seen.applied);
                    return Ok(Some(format!("{text}, not {newest}")));
                }
                if !seen.is_storage {
                    continue;
                }
                let rows = self.seats.seats[at].with(|stepped| stepped.rows(partition)).flatten();
                let rows = match rows {
                    Some(Ok(rows)) => rows,
                    other => return Ok(Some(format!("{partition}: {identity} has {other:?}"))),
                };
                check_counters(partition, identity, seen.keys, &rows)?;
                if let Some(known) = self.seats.seats[at].with(|s| s.requests(partition)).flatten()
                {
                    let first = answered.get_or_insert_with(|| (identity, known.clone()));
                    check_requests(partition, (first.0, &first.1), (identity, &known))?;
                }
                match &first {
                    None => first = Some((identity, rows)),
                    Some((other, known)) if *known != rows => {
                        let text = difference(known, &rows);
                        let who = format!("{partition}: {other} and {identity}");
                        return violation("equal replicas", format!("{who} differ: {text}"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(None)
    }

    /// The identities of a group's members, if somebody leads it and they are not changing.
    pub(super) fn members(&self, partition: PartitionId) -> Option<Vec<u32>> {
        let seats = self.seats.seats.iter();
        let mut members = seats.filter_map(|seat| seat.with(|stepped| stepped.members(partition)));
        members.find_map(|members| members)
    }

    /// A replica, if it is there.
    pub(super) fn seen(&self, at: usize, partition: PartitionId, identity: u32) -> Option<Seen> {
        let replicas = self.seats.seats.get(at)?.with(|stepped| stepped.replicas())?;
        replicas.into_iter().find(|seen| seen.partition == partition && seen.identity == identity)
    }
}

/// The place of a replica's node.
pub(super) fn place_of(identity: u32) -> usize {
    (identity & storage::NODE_MAX) as usize - 1
}

/// The counter of keys is that of the rows.
fn check_counters(
    partition: PartitionId,
    identity: u32,
    keys: u64,
    rows: &StoredRows,
) -> Result<(), Violation> {
    let headers = rows.keys().filter(|row| matches!(parse(row), Some(RowKind::Header { .. })));
    let headers = headers.count() as u64;
    if headers != keys {
        let text = format!("{partition}: {identity} counts {keys} keys and has {headers}");
        return violation("counters are exact", text);
    }
    Ok(())
}

/// What replicas know of requests that may be made again is the same, as far back as both remember.
fn check_requests(
    partition: PartitionId,
    (one, first): (u32, &RequestSums),
    (other, second): (u32, &RequestSums),
) -> Result<(), Violation> {
    let from = first.0.max(second.0);
    let behind = |sums: &RequestSums| -> Vec<_> {
        sums.1.iter().copied().filter(|(index, _)| *index > from).collect()
    };
    let (first, second) = (behind(first), behind(second));
    if first != second {
        let text = format!(
            "{partition}, behind {from}: {one} knows of {} batches, {other} of {}",
            first.len(),
            second.len()
        );
        return violation("requests are known alike", text);
    }
    Ok(())
}

fn difference(one: &StoredRows, other: &StoredRows) -> String {
    let differs = |key: &&bytes::Bytes| one.get(*key) != other.get(*key);
    let keys: Vec<_> = one.keys().chain(other.keys()).filter(differs).collect();
    let shown = keys
        .iter()
        .take(3)
        .map(|key| format!("{key:?} is {:?} and {:?}", one.get(*key), other.get(*key)));
    format!("{} rows: {}", keys.len(), shown.collect::<Vec<_>>().join("; "))
}

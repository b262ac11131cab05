//! What compaction drops: rows that no reader sees any more.
//!
//! DEL of a collection and FLUSHDB write no tombstones. They name what died, a generation or all
//! headers up to a version, and the rows go when compaction meets them.
//!
//! Versions are positions in a group's log, so an entry holds for the placements of its group. When
//! a range changes to a group whose log does not continue the old one's numbers, [`DeadSet::clear`]
//! it before a row of the new group is ingested.
//!
//! Dropping leaves no tombstone, so an older value of the same row may show again: it is as dead
//! as the newer one was. A row that is dropped late, or never, costs space and nothing else: no
//! reader follows a dead generation, and readers check the fence. Rows of the TTL index are kept
//! whatever happened to their headers, for their keys say nothing of a version; the expiry task
//! deletes them when they are due.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use commands::rows::{self, RowKind};
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use parking_lot::RwLock;
use wire::ids::{TableId, Version};
use wire::placement::{Placement, PlacementRange};

use super::plain::Rows;
use crate::row::verify_row;

/// Reads the version out of the opened value of a header row.
pub type HeaderVersion = fn(&[u8]) -> Option<Version>;

/// What is dead on this node. Shared between the partitions, which add to it, and compaction, which
/// asks it.
///
/// A generation is in here from when the batch that dropped it is in fjall, with all rows it ever had,
/// until all tables have been rewritten without them ([`crate::lsm::Lsm::begin_sweep`]). One that comes and goes
/// between two flushes never is: none of its rows get to fjall.
#[derive(Debug, Default)]
pub struct DeadSet {
    dead: RwLock<Dead>,
}

#[derive(Clone, Debug, Default)]
struct Dead {
    /// Dead generations by the placements they are dead in: a range for each partition.
    generations: HashMap<TableId, Vec<(PlacementRange, HashSet<Version>)>>,
    fences: HashMap<TableId, Vec<Fence>>,
    /// How often something was cleared.
    clears: u64,
}

#[derive(Clone, Copy, Debug)]
struct Fence {
    range: PlacementRange,
    version: Version,
}

impl DeadSet {
    /// Nothing is dead.
    pub fn new() -> DeadSet {
        DeadSet::default()
    }

    /// Collections ceased to exist: their data rows may go.
    pub fn add_generations(
        &self,
        range: PlacementRange,
        generations: impl IntoIterator<Item = Version>,
    ) {
        let mut generations = generations.into_iter().peekable();
        if generations.peek().is_none() {
            return;
        }
        let mut dead = self.dead.write();
        let of_table = dead.generations.entry(range.table).or_default();
        match of_table.iter_mut().find(|(other, _)| *other == range) {
            Some((_, held)) => held.extend(generations),
            None => of_table.push((range, generations.collect())),
        }
    }

    /// The rows of generations are gone, or are not to be dropped any more.
    pub fn remove_generations(
        &self,
        range: PlacementRange,
        generations: impl IntoIterator<Item = Version>,
    ) {
        let mut dead = self.dead.write();
        let mut of_table = dead.generations.get_mut(&range.table).into_iter().flatten();
        if let Some((_, held)) = of_table.find(|(other, _)| *other == range) {
            for generation in generations {
                held.remove(&generation);
            }
            held.shrink_to(2 * held.len());
        }
    }

    /// All headers of the range up to a version ceased to exist, and with them all generations up
    /// to it. A lower fence than the one that stands changes nothing.
    pub fn set_fence(&self, range: PlacementRange, version: Version) {
        let mut dead = self.dead.write();
        let fences = dead.fences.entry(range.table).or_default();
        match fences.iter_mut().find(|fence| fence.range == range) {
            Some(fence) => fence.version = fence.version.max(version),
            None => fences.push(Fence { range, version }),
        }
        // The fence says the same of them.
        for (other, held) in dead.generations.get_mut(&range.table).into_iter().flatten() {
            if range.contains(other.first) && range.contains(other.last) {
                held.retain(|generation| *generation > version);
            }
        }
    }

    /// Forgets everything about the placements of a range. Entries that reach beyond it are
    /// forgotten as a whole: rows that stay too long are harmless.
    pub fn clear(&self, range: PlacementRange) {
        let mut dead = self.dead.write();
        dead.clears += 1;
        let overlaps = |other: &PlacementRange| {
            other.table == range.table && other.first <= range.last && range.first <= other.last
        };
        if let Some(of_table) = dead.generations.get_mut(&range.table) {
            of_table.retain(|(other, _)| !overlaps(other));
        }
        for fences in dead.fences.values_mut() {
            fences.retain(|fence| !overlaps(&fence.range));
        }
        dead.fences.retain(|_, fences| !fences.is_empty());
    }

    /// How often something was cleared: what was dead before may be there again.
    pub fn clears(&self) -> u64 {
        self.dead.read().clears
    }

    /// How many generations are waiting to be dropped.
    pub fn generations(&self) -> usize {
        let dead = self.dead.read();
        dead.generations.values().flatten().map(|(_, held)| held.len()).sum()
    }
}

impl Dead {
    fn names(&self, table: TableId, placement: Placement, generation: Version) -> bool {
        let of_table = self.generations.get(&table).into_iter().flatten();
        let mut around = of_table.filter(|(range, _)| range.contains(placement));
        around.any(|(_, held)| held.contains(&generation))
    }
}

impl DeadSet {
    /// Those of some rows that compaction would keep.
    pub(super) fn living(&self, header_version: HeaderVersion, rows: &Rows) -> Rows {
        let dead = Arc::new(DeadSet { dead: RwLock::new(self.dead.read().clone()) });
        let (stopping, fence, last) = (Arc::default(), FenceAt::default(), None);
        let mut filter = Filter { dead, header_version, stopping, fence, last };
        let living = rows.iter().filter(|(key, sealed)| {
            let value = || Ok::<_, fjall::LsmError>(&sealed[..]);
            !filter.is_dead(key, value).is_ok_and(|is_dead| is_dead)
        });
        living.map(|(key, sealed)| (key.clone(), sealed.clone())).collect()
    }
}

/// The factory of the filters of all compactions.
pub(super) fn factory(
    dead: Arc<DeadSet>,
    header_version: HeaderVersion,
    stopping: Arc<AtomicBool>,
) -> Arc<dyn Factory> {
    Arc::new(DeadRows { dead: AssertUnwindSafe(dead), header_version, stopping })
}

struct DeadRows {
    /// Its lock is not poisoned by a panic, and what it guards is never half changed.
    dead: AssertUnwindSafe<Arc<DeadSet>>,
    header_version: HeaderVersion,
    stopping: Arc<AtomicBool>,
}

impl Factory for DeadRows {
    fn name(&self) -> &str {
        "dead-rows"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Filter {
            dead: Arc::clone(&self.dead.0),
            header_version: self.header_version,
            stopping: Arc::clone(&self.stopping),
            fence: FenceAt::default(),
            last: None,
        })
    }
}

/// It asks the set as it goes: what is dead stays dead, and a set may be large to copy.
struct Filter {
    dead: Arc<DeadSet>,
    header_version: HeaderVersion,
    stopping: Arc<AtomicBool>,
    fence: FenceAt,
    /// The collection that was last asked for, and whether it is named. Its rows come in a row.
    last: Option<((TableId, Placement, Version), bool)>,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        if self.stopping.load(Ordering::Relaxed) {
            // The only way to end a compaction early; it leaves everything as it was.
            return Err(fjall::LsmError::Io(std::io::Error::other("the node is stopping")));
        }
        let is_dead = self.is_dead(item.key(), || item.value())?;
        Ok(if is_dead { Verdict::Destroy } else { Verdict::Keep })
    }
}

impl Filter {
    fn is_dead<V: AsRef<[u8]>, E>(
        &mut self,
        key: &[u8],
        value: impl FnOnce() -> Result<V, E>,
    ) -> Result<bool, E> {
        Ok(match rows::parse(key) {
            Some(RowKind::Data { table, placement, generation, .. }) => {
                self.is_generation_dead(table, placement, generation)
            }
            Some(RowKind::Header { table, placement, .. }) => {
                match self.fence.of(&self.dead, table, placement) {
                    Some(fence) => self.is_header_behind(key, value()?.as_ref(), fence),
                    None => false,
                }
            }
            Some(RowKind::Ttl { .. } | RowKind::Meta) | None => false,
        })
    }

    fn is_generation_dead(
        &mut self,
        table: TableId,
        placement: Placement,
        generation: Version,
    ) -> bool {
        let asked = (table, placement, generation);
        let named = match self.last {
            Some((last, named)) if last == asked => named,
            _ => self.dead.dead.read().names(table, placement, generation),
        };
        self.last = Some((asked, named));
        let fence = self.fence.of(&self.dead, table, placement);
        named || fence.is_some_and(|fence| generation <= fence)
    }

    fn is_header_behind(&self, key: &[u8], sealed: &[u8], fence: Version) -> bool {
        // A damaged header is kept: its reader is to find the damage, not nothing.
        let version = verify_row(key, sealed).ok().and_then(self.header_version);
        version.is_some_and(|version| version <= fence)
    }
}

/// The fence at the placement last asked for, and the placements around it that have the same one.
/// Compaction goes in the order of placements, so the fences are searched once per change.
#[derive(Default)]
struct FenceAt {
    around: Option<PlacementRange>,
    fence: Option<Version>,
}

impl FenceAt {
    fn of(&mut self, dead: &DeadSet, table: TableId, placement: Placement) -> Option<Version> {
        if self.around.is_some_and(|range| range.table == table && range.contains(placement)) {
            return self.fence;
        }
        self.at(&dead.dead.read(), table, placement)
    }

    fn at(&mut self, dead: &Dead, table: TableId, placement: Placement) -> Option<Version> {
        if self.around.is_some_and(|range| range.table == table && range.contains(placement)) {
            return self.fence;
        }
        let mut around = PlacementRange::whole(table);
        self.fence = None;
        for fence in dead.fences.get(&table).into_iter().flatten() {
            let range = fence.range;
            if range.contains(placement) {
                self.fence = self.fence.max(Some(fence.version));
                around.first = around.first.max(range.first);
                around.last = around.last.min(range.last);
            } else if range.last < placement {
                around.first = around.first.max(after(range.last));
            } else {
                around.last = around.last.min(before(range.first));
            }
        }
        self.around = Some(around);
        self.fence
    }
}

fn after(placement: Placement) -> Placement {
    Placement::new(placement.get() + 1).unwrap_or(Placement::MAX)
}

fn before(placement: Placement) -> Placement {
    Placement::new(placement.get().saturating_sub(1)).unwrap_or(Placement::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(table: u32, first: u64, last: u64) -> PlacementRange {
        let placement = |at| Placement::new(at).unwrap();
        PlacementRange { table: TableId(table), first: placement(first), last: placement(last) }
    }

    fn version(index: u64) -> Version {
        Version { index, ordinal: 0 }
    }

    #[test]
    fn the_highest_fence_at_a_placement_holds() {
        let dead = DeadSet::new();
        dead.set_fence(range(1, 10, 99), version(5));
        dead.set_fence(range(1, 10, 99), version(3)); // lower: nothing changes
        dead.set_fence(range(1, 50, 60), version(9)); // a split's part, flushed again
        dead.set_fence(range(2, 0, 7), version(1));
        let snapshot = dead.dead.read().clone();
        let truth = |table, at| match (table, at) {
            (1, 50..=60) => Some(version(9)),
            (1, 10..=99) => Some(version(5)),
            (2, 0..=7) => Some(version(1)),
            _ => None,
        };
        let mut memo = FenceAt::default();
        for table in 0..4 {
            for at in (0..120).chain((0..120).rev()) {
                let placement = Placement::new(at).unwrap();
                let found = memo.at(&snapshot, TableId(table), placement);
                assert_eq!(found, truth(table, at), "table {table} at {at}");
            }
        }
    }

    #[test]
    fn clearing_a_range_forgets_what_overlaps() {
        let dead = DeadSet::new();
        dead.add_generations(range(1, 0, 9), [version(4)]);
        dead.add_generations(range(1, 10, 19), [version(4), version(4), version(5)]);
        dead.set_fence(range(1, 0, 19), version(2));
        assert_eq!((dead.generations(), dead.clears()), (3, 0));
        dead.clear(range(1, 0, 5));
        assert_eq!((dead.generations(), dead.clears()), (2, 1));
        assert!(dead.dead.read().fences.is_empty());
        let names = |at| {
            let placement = Placement::new(at).expect("40 bits");
            dead.dead.read().names(TableId(1), placement, version(4))
        };
        assert!(!names(9) && names(10) && !names(20));
        dead.remove_generations(range(1, 10, 19), [version(4), version(7)]);
        assert!(!names(10));
        assert_eq!(dead.generations(), 1);
    }
}

//! Rows in the order of a hash of what they name: the fields of a hash, the members of a set.
//!
//! ```text
//! data row, what follows the generation = 0 hash32(name):u32 name
//! ```
//!
//! A name stands at its hash, a number below 2^32, whichever others come and go. So a cursor is a
//! hash: what stays is met exactly once by a walk, and nobody keeps a walk's state.
//!
//! A draw takes a window of the ring of hashes, of a width that holds a few names on average, at a
//! random start. Each name lies in equally many windows, and each of a window's names stands in one
//! of a fixed number of slots; an empty slot means to draw again. So all names are equally likely
//! (the first name behind a random position would be likelier the wider the gap before it).

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use wire::ids::{TableId, Version};
use wire::placement::Placement;

use crate::rows;
use crate::view::{Direction, View, ViewError};

/// The first byte behind the generation in a row of the ring.
const SUB_RING: u8 = 0;
/// Bytes before the name in a row of the ring, behind the generation.
const PREFIX_BYTES: usize = 5;
/// Hashes of names are below this.
pub(crate) const HASHES: u64 = 1 << 32;

/// Names in a window of a draw, on average.
const WINDOW_NAMES: u64 = 32;
/// Slots of a window. More than this many names in one have not quite the chance of others; hashes
/// being random, that is rarer than one window in 10^9. To find where a window begins takes longer than
/// to pass its names, so windows are wide: the share of slots that are taken grows with them.
const WINDOW_SLOTS: u64 = 72;
/// Draws before it is concluded that nearly all that is there is hidden.
const DRAWS_MAX: usize = 512;
/// A collection of no more names than this is read as a whole rather than drawn from.
const WHOLE_NAMES_MAX: u64 = 64;
/// Likewise, bytes.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Drawing one name costs as much as reading about so many in a row.
const DRAW_COST: u64 = 16;

/// Where a name stands among the others. Part of the stored format.
pub(crate) fn hash32(name: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64_with_seed(name, 2) as u32
}

/// The row of a field of a hash, or of a member of a set or sorted set, in a collection with data rows.
pub fn element_row(
    table: TableId,
    placement: Placement,
    generation: Version,
    name: &[u8],
) -> Bytes {
    let parts = [&[SUB_RING][..], &hash32(name).to_be_bytes(), name];
    rows::data_key_of(table, placement, generation, parts)
}

/// Where a collection with data rows lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) table: TableId,
    pub(crate) placement: Placement,
    pub(crate) generation: Version,
}

impl Place {
    /// The row of a name.
    pub(crate) fn ring_row(&self, name: &[u8]) -> Bytes {
        element_row(self.table, self.placement, self.generation, name)
    }

    /// Visits the names whose hash is in `[from, to)` and their rows' values, in the order of the
    /// hashes.
    pub(crate) fn ring(
        &self,
        view: &dyn View,
        (from, to): (u64, u64),
        visit: &mut dyn FnMut(u64, Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let prefix = self.row(&[]).len();
        let (from, to) = (self.hash_row(from), self.hash_row(to));
        let mut outcome = Ok(());
        view.scan(&from, &to, Direction::Forward, &mut |row, value| {
            let hash = row.get(prefix + 1..prefix + PREFIX_BYTES);
            let Some(hash) = hash.and_then(|hash| <[u8; 4]>::try_from(hash).ok()) else {
                outcome = Err(ViewError::Damaged);
                return ControlFlow::Break(());
            };
            let name = row.slice(prefix + PREFIX_BYTES..);
            visit(u64::from(u32::from_be_bytes(hash)), name, value)
        })?;
        outcome
    }

    /// The lowest row of a name with this hash; above all names, if the hash is above all hashes.
    fn hash_row(&self, hash: u64) -> Bytes {
        match u32::try_from(hash) {
            Ok(hash) => {
                let [a, b, c, d] = hash.to_be_bytes();
                self.row(&[SUB_RING, a, b, c, d])
            }
            Err(_) => self.row(&[SUB_RING + 1]),
        }
    }

    /// A row of the collection.
    pub(crate) fn row(&self, sub: &[u8]) -> Bytes {
        rows::data_key(self.table, self.placement, self.generation, sub)
    }
}

/// What a walk met: a name, and the value of its row.
pub(crate) type Met = (Bytes, Bytes);

/// The next `count` names from a cursor on, and the next cursor; 0 at the end. Names that share a
/// hash come together: no cursor could point between them.
pub(crate) fn scan(
    place: &Place,
    view: &dyn View,
    cursor: u64,
    count: usize,
) -> Result<(Vec<Met>, u64), ViewError> {
    let (mut found, mut next, mut last) = (Vec::new(), 0, None);
    place.ring(view, (cursor.min(HASHES), HASHES), &mut |at, name, value| {
        if found.len() >= count && last != Some(at) {
            next = at;
            return ControlFlow::Break(());
        }
        last = Some(at);
        found.push((name, value.clone()));
        ControlFlow::Continue(())
    })?;
    Ok((found, next))
}

/// Reads a row's name and value.
type Read<'a, T> = dyn Fn(Bytes, &Bytes) -> Result<Option<T>, ViewError> + 'a;

/// A collection to draw from.
pub(crate) struct Urn<'a, T> {
    pub(crate) view: &'a dyn View,
    /// Its rows, if it has any.
    pub(crate) place: Option<Place>,
    /// How many names it has, and how many bytes.
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// What a row holds; `None` if clients must not see it.
    pub(crate) read: &'a Read<'a, T>,
    /// All that clients may see.
    pub(crate) all: &'a dyn Fn() -> Result<Vec<T>, ViewError>,
}

impl<T: Clone> Urn<'_, T> {
    /// So many random ones, each drawn from all; none if all are hidden.
    pub(crate) fn repeated(&self, count: usize) -> Result<Vec<T>, ViewError> {
        if let Some(place) = self.drawn_from(count as u64) {
            let mut drawn = Vec::with_capacity(count);
            while drawn.len() < count {
                let Some((_, one)) = self.draw(&place)? else { break };
                drawn.push(one);
            }
            if drawn.len() == count {
                return Ok(drawn);
            }
        }
        let all = (self.all)()?;
        if all.is_empty() {
            return Ok(all);
        }
        Ok((0..count).map(|_| all[self.below(all.len())].clone()).collect())
    }

    /// So many different random ones, or all if there are no more.
    pub(crate) fn distinct(&self, count: u64) -> Result<Vec<T>, ViewError> {
        if let Some(place) = self.drawn_from(count) {
            let (mut seen, mut drawn) = (HashSet::new(), Vec::new());
            // Less than a sixteenth is wanted, so a draw is hardly ever in vain.
            for _ in 0..count.saturating_mul(2) + DRAWS_MAX as u64 {
                if drawn.len() as u64 == count {
                    break;
                }
                let Some((name, one)) = self.draw(&place)? else { break };
                if seen.insert(name) {
                    drawn.push(one);
                }
            }
            if drawn.len() as u64 == count {
                return Ok(drawn);
            }
        }
        let mut all = (self.all)()?;
        // What is left out is chosen at random; what is left keeps its order, as in Redis.
        let mut leave_out = all.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        let mut left = all.len();
        all.retain(|_| {
            let keep = self.below(left) >= leave_out;
            left -= 1;
            leave_out -= usize::from(!keep);
            keep
        });
        Ok(all)
    }

    /// Its rows, if drawing so many is cheaper than to read all.
    fn drawn_from(&self, count: u64) -> Option<Place> {
        let large = self.count > WHOLE_NAMES_MAX || self.bytes > WHOLE_BYTES_MAX;
        self.place.filter(|_| large && count.saturating_mul(DRAW_COST) < self.count)
    }

    fn below(&self, bound: usize) -> usize {
        (self.view.random() % bound.max(1) as u64) as usize
    }

    /// Draws one; `None` if hidden ones only were met.
    fn draw(&self, place: &Place) -> Result<Option<(Bytes, T)>, ViewError> {
        let width = (HASHES * WINDOW_NAMES / self.count.max(1)).clamp(1, HASHES);
        for _ in 0..DRAWS_MAX {
            let start = self.view.random() % HASHES;
            let window = (start, start + width);
            let slot = self.view.random() % WINDOW_SLOTS;
            let (names, mut met) = self.at_slot(place, window, slot)?;
            if names > WINDOW_SLOTS {
                // It is crowded: each has a slot of its own.
                met = self.at_slot(place, window, self.view.random() % names)?.1;
            }
            if let Some((name, value)) = met
                && let Some(one) = (self.read)(name.clone(), &value)?
            {
                return Ok(Some((name, one)));
            }
        }
        Ok(None)
    }

    /// How many names stand in a window, and which of them in a slot of it.
    fn at_slot(
        &self,
        place: &Place,
        (start, end): (u64, u64),
        slot: u64,
    ) -> Result<(u64, Option<Met>), ViewError> {
        let (mut names, mut met) = (0, None);
        let prefix = place.row(&[]).len() + PREFIX_BYTES;
        let behind = end.saturating_sub(HASHES);
        for (from, to) in [(start, end.min(HASHES)), (0, behind)] {
            if from == to {
                continue;
            }
            let (from, to) = (place.hash_row(from), place.hash_row(to));
            self.view.skim(&from, &to, &mut |row, value| {
                if names == slot {
                    let name = row.get(prefix..).unwrap_or_default();
                    met = Some((Bytes::copy_from_slice(name), value()));
                }
                names += 1;
                ControlFlow::Continue(())
            })?;
        }
        Ok((names, met))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_their_hashes() {
        let place = Place {
            table: TableId(0),
            placement: Placement::MIN,
            generation: Version { index: 1, ordinal: 2 },
        };
        for name in [&b""[..], b"a", b"field", &[0xff; 40]] {
            let row = place.ring_row(name);
            let hash = u64::from(hash32(name));
            assert!(place.hash_row(hash) <= row && row < place.hash_row(hash + 1));
            assert!(row < place.hash_row(HASHES) && place.hash_row(HASHES) <= place.row(&[1]));
        }
    }
}

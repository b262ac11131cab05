//! Walking over a hash: HSCAN, and the draws of HRANDFIELD.
//!
//! A field stands at its hash, a number below 2^32, whichever others come and go. So a cursor is a
//! hash: a field that stays is met exactly once by a walk, and nobody keeps a walk's state.
//!
//! A draw takes a window of the ring of hashes, of a width that holds a few fields on average, at a
//! random start. Each field lies in equally many windows, and each of a window's fields stands in one
//! of a fixed number of slots; an empty slot means to draw again. So all fields are equally likely
//! (the first field behind a random position would be likelier the wider the gap before it).

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::types::hash::{Entry, Fields, HASHES, Hash, Place};
use crate::view::ViewError;

/// Fields in a window of a draw, on average.
const WINDOW_FIELDS: u64 = 8;
/// Slots of a window. More than this many fields in one have not quite the chance of others; hashes
/// being random, that is rarer than one window in 10^9.
const WINDOW_SLOTS: u64 = 32;
/// Draws before it is concluded that nearly all fields are hidden.
const DRAWS_MAX: usize = 512;
/// A hash with no more fields than this is read as a whole rather than drawn from.
const WHOLE_FIELDS_MAX: u64 = 1_024;
/// Likewise, bytes.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
/// Drawing one field costs as much as reading about so many in a row.
const DRAW_COST: u64 = 16;

/// The fields that exist for clients among the next `count` from a cursor on, and the next cursor; 0
/// at the end. Fields that share a hash come together: no cursor could point between them.
pub(crate) fn scan(
    hash: &Hash<'_>,
    cursor: u64,
    count: usize,
) -> Result<(Vec<Entry>, u64), ViewError> {
    let place = match &hash.fields {
        // It is small, and has no order to go on in.
        Fields::Inline(_) => return Ok((hash.live()?, 0)),
        Fields::Rows(place) => place,
    };
    let now_ms = hash.view().now_ms();
    let (mut found, mut next) = (Vec::new(), 0);
    let (mut visited, mut last) = (0, None);
    place.fields(hash.view(), (cursor.min(HASHES), HASHES), &mut |at, entry| {
        if visited >= count && last != Some(at) {
            next = at;
            return ControlFlow::Break(());
        }
        (visited, last) = (visited + 1, Some(at));
        if entry.is_live(now_ms) {
            found.push(entry);
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, next))
}

/// A random field; `None` if all are hidden.
pub(crate) fn random(hash: &Hash<'_>) -> Result<Option<Entry>, ViewError> {
    Ok(random_repeated(hash, 1)?.pop())
}

/// So many random fields, each drawn from all; none if all are hidden.
pub(crate) fn random_repeated(hash: &Hash<'_>, count: usize) -> Result<Vec<Entry>, ViewError> {
    if let Fields::Rows(place) = &hash.fields
        && is_large(hash)
        && (count as u64).saturating_mul(DRAW_COST) < hash.count
    {
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let Some(entry) = draw(hash, place)? else { break };
            drawn.push(entry);
        }
        if drawn.len() == count {
            return Ok(drawn);
        }
    }
    let live = hash.live()?;
    if live.is_empty() {
        return Ok(live);
    }
    Ok((0..count).map(|_| live[below(hash, live.len())].clone()).collect())
}

/// So many different random fields, or all if there are no more.
pub(crate) fn random_distinct(hash: &Hash<'_>, count: u64) -> Result<Vec<Entry>, ViewError> {
    if let Fields::Rows(place) = &hash.fields
        && is_large(hash)
        && count.saturating_mul(DRAW_COST) < hash.count
    {
        let mut seen = HashSet::new();
        let mut drawn = Vec::new();
        // Less than a sixteenth of the fields are wanted, so a draw is hardly ever in vain.
        for _ in 0..count.saturating_mul(2) + DRAWS_MAX as u64 {
            if drawn.len() as u64 == count {
                break;
            }
            let Some(entry) = draw(hash, place)? else { break };
            if seen.insert(entry.field.clone()) {
                drawn.push(entry);
            }
        }
        if drawn.len() as u64 == count {
            return Ok(drawn);
        }
    }
    let mut live = hash.live()?;
    // What is left out is chosen at random; what is left keeps its order, as in Redis.
    let mut leave_out = live.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    let mut left = live.len();
    live.retain(|_| {
        let keep = below(hash, left) >= leave_out;
        left -= 1;
        leave_out -= usize::from(!keep);
        keep
    });
    Ok(live)
}

fn is_large(hash: &Hash<'_>) -> bool {
    hash.count > WHOLE_FIELDS_MAX || hash.bytes > WHOLE_BYTES_MAX
}

fn below(hash: &Hash<'_>, bound: usize) -> usize {
    (hash.view().random() % bound.max(1) as u64) as usize
}

/// Draws a field; `None` if hidden ones only were met.
fn draw(hash: &Hash<'_>, place: &Place) -> Result<Option<Entry>, ViewError> {
    let view = hash.view();
    let now_ms = view.now_ms();
    let width = (HASHES * WINDOW_FIELDS / hash.count.max(1)).clamp(1, HASHES);
    for _ in 0..DRAWS_MAX {
        let start = view.random() % HASHES;
        let end = start + width;
        let mut window = Vec::new();
        let mut collect = |_, entry| {
            window.push(entry);
            ControlFlow::Continue(())
        };
        place.fields(view, (start, end.min(HASHES)), &mut collect)?;
        if end > HASHES {
            place.fields(view, (0, end - HASHES), &mut collect)?;
        }
        let slot = view.random() % WINDOW_SLOTS.max(window.len() as u64);
        if (slot as usize) < window.len() {
            let entry = window.swap_remove(slot as usize);
            if entry.is_live(now_ms) {
                return Ok(Some(entry));
            }
        }
    }
    Ok(None)
}

//! Walking over the keys of a partition in the order of their positions: SCAN, KEYS, RANDOMKEY.
//!
//! A position is a key's placement and 13 bits of its hash, a number below 2^53 (rows.rs). It does
//! not depend on which partition holds the key, which is what makes SCAN's cursor stateless.

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::placement::Placement;

use crate::overdue::Overdue;
use crate::rows::{self, KEY_HASH_BITS, RowKind};
use crate::types::header::Header;
use crate::types::keyspace;
use crate::view::{Direction, View, ViewError};

/// Positions looked at for a random key before an accepted one; a bound, rarely reached.
const RANDOM_TRIES_MAX: usize = 128;

/// How much closer than the average gap a key may stand to the key before it and still be drawn
/// with the same probability as the others.
const RANDOM_EVENNESS: u64 = 8;

/// A key met on the way.
pub(crate) struct Met {
    /// Its position.
    pub(crate) position: u64,
    /// The client's key.
    pub(crate) key: Bytes,
    /// Its header row's value.
    value: Bytes,
}

impl Met {
    /// Its header, if the key exists for clients.
    pub(crate) fn header(&self, view: &dyn View) -> Result<Option<Header>, ViewError> {
        keyspace::read_row(view, &self.value)
    }

    /// The same, for who comes upon the key by itself: has it expired, it may be deleted.
    pub(crate) fn read(&self, view: &dyn View) -> Result<Option<Header>, ViewError> {
        let header = self.header(view)?;
        if header.is_none() {
            view.meet_overdue(&self.key, Overdue::Key);
        }
        Ok(header)
    }
}

/// Visits the partition's keys from a position on, hidden ones too, until `visit` breaks.
pub(crate) fn keys_from(
    view: &dyn View,
    position: u64,
    visit: &mut dyn FnMut(Met) -> Result<ControlFlow<()>, ViewError>,
) -> Result<(), ViewError> {
    let end = rows::headers_end(view.table(), view.range().last);
    let mut from = position.max(first_position(view));
    // The data rows of a collection lie between the headers: they are leapt over, not read.
    while let Some(start) = start_row(view, from) {
        let mut outcome = Ok(());
        let mut leap = None;
        view.scan(&start, &end, Direction::Forward, &mut |row, value| {
            let Some(position) = rows::header_position(row) else {
                leap = position_behind_data(row);
                return ControlFlow::Break(());
            };
            let met =
                Met { position, key: row.slice(rows::HEADER_PREFIX_BYTES..), value: value.clone() };
            match visit(met) {
                Ok(flow) => flow,
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        outcome?;
        match leap {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(())
}

/// The lowest position the partition holds.
pub(crate) fn first_position(view: &dyn View) -> u64 {
    view.range().first.get() << KEY_HASH_BITS
}

/// The lowest position above the partition; 0 if there is none.
pub(crate) fn position_behind(view: &dyn View) -> u64 {
    let last = view.range().last;
    if last == Placement::MAX { 0 } else { (last.get() + 1) << KEY_HASH_BITS }
}

fn start_row(view: &dyn View, position: u64) -> Option<Bytes> {
    Placement::new(position >> KEY_HASH_BITS)?;
    Some(rows::header_key_at(view.table(), position))
}

fn position_behind_data(row: &[u8]) -> Option<u64> {
    match rows::parse(row) {
        Some(RowKind::Data { placement, .. }) => Some((placement.get() + 1) << KEY_HASH_BITS),
        _ => None,
    }
}

/// A random key that exists for clients; `None` if there is none.
///
/// A random position is drawn, and the first key at or behind it is the candidate. Alone this would
/// favour keys behind wide gaps, so a candidate is accepted with a probability inverse to its gap.
pub(crate) fn random_key(view: &dyn View) -> Result<Option<Bytes>, ViewError> {
    let keys = view.counters().keys;
    if keys == 0 {
        return Ok(None);
    }
    let first = first_position(view);
    let span = (view.range().last.get() - view.range().first.get() + 1) << KEY_HASH_BITS;
    let short_gap = (span / keys / RANDOM_EVENNESS).max(1);
    let mut candidate = None;
    for _ in 0..RANDOM_TRIES_MAX {
        let position = first + view.random() % span;
        let met = match first_ties(view, position)? {
            ties if ties.is_empty() => first_ties(view, first)?,
            ties => ties,
        };
        let Some(one) = met.get((view.random() % met.len().max(1) as u64) as usize) else { break };
        if one.read(view)?.is_none() {
            continue;
        }
        let gap = gap_before(view, one.position, span)?;
        let accepted = gap <= short_gap || view.random() % gap < short_gap;
        candidate = Some(one.key.clone());
        if accepted {
            return Ok(candidate);
        }
    }
    match candidate {
        Some(key) => Ok(Some(key)),
        None => first_live(view),
    }
}

/// All keys at the first position, from `position` on, that has any.
fn first_ties(view: &dyn View, position: u64) -> Result<Vec<Met>, ViewError> {
    let mut ties: Vec<Met> = Vec::new();
    keys_from(view, position, &mut |met| {
        if ties.last().is_some_and(|last| last.position != met.position) {
            return Ok(ControlFlow::Break(()));
        }
        ties.push(met);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ties)
}

/// How far the key before lies, going round at the partition's start.
fn gap_before(view: &dyn View, position: u64, span: u64) -> Result<u64, ViewError> {
    let first = first_position(view);
    let below = |to: u64| {
        let start = rows::header_key_at(view.table(), first);
        let end = rows::header_key_at(view.table(), to);
        let mut before = None;
        view.scan(&start, &end, Direction::Backward, &mut |row, _| {
            // Data rows stand for their key: same placement, so near enough.
            before = rows::header_position(row).or_else(|| position_behind_data(row));
            ControlFlow::Break(())
        })?;
        Ok::<_, ViewError>(before)
    };
    Ok(match below(position)? {
        Some(before) => position.saturating_sub(before).max(1),
        None => match last_position(view)? {
            Some(last) => (position + span).saturating_sub(last).clamp(1, span),
            None => span,
        },
    })
}

fn last_position(view: &dyn View) -> Result<Option<u64>, ViewError> {
    let start = rows::header_key_at(view.table(), first_position(view));
    let end = rows::headers_end(view.table(), view.range().last);
    let mut last = None;
    view.scan(&start, &end, Direction::Backward, &mut |row, _| {
        last = rows::header_position(row).or_else(|| position_behind_data(row));
        ControlFlow::Break(())
    })?;
    Ok(last)
}

/// Where every draw met a key that has expired, the first that has not is as good as any.
fn first_live(view: &dyn View) -> Result<Option<Bytes>, ViewError> {
    let mut live = None;
    keys_from(view, first_position(view), &mut |met| {
        if met.read(view)?.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        live = Some(met.key);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(live)
}

//! What a pipeline's calls will look up, touched together before the first of them is evaluated.
//!
//! A look into memory waits for it several times, each time for where to look next. Calls that wait side
//! by side wait once. So first the header rows of all keys are touched, and then, of calls on one
//! large collection that follow each other, the rows of the elements that they name. Nothing depends on it: a
//! row that is guessed wrongly costs a look.

use bytes::Bytes;
use commands::types::header;
use commands::{TOUCHED_ELEMENTS_MIN, element_row, key_positions, rows, table};
use smallvec::SmallVec;
use wire::placement::Placement;
use wire::service::Call;

use crate::resident::Resident;

/// So many calls have something to gain.
const CALLS_MIN: usize = 4;

/// The positions of the keys that calls name first, once if they name the same in a row; none of too few
/// calls.
pub(crate) fn positions(calls: &[Call<'_>]) -> SmallVec<[u64; 64]> {
    if calls.len() < CALLS_MIN {
        return SmallVec::new();
    }
    let (mut found, mut last) = (SmallVec::new(), None);
    for key in calls.iter().filter_map(first_key) {
        if last.replace(key) != Some(key) {
            found.push(rows::position(Placement::of_key(key), key));
        }
    }
    found
}

/// The key that a call names first.
fn first_key<'a>(call: &Call<'a>) -> Option<&'a Bytes> {
    let command = table::entry(call.command).command;
    let at = *key_positions(command, call.args).ok()?.first()?;
    call.args.get(at)
}

/// The rows of the elements that calls name in large collections, if several calls in a row name one in
/// the same.
pub(crate) fn element_rows(resident: &Resident, calls: &[Call<'_>]) -> SmallVec<[Bytes; 64]> {
    let mut found = SmallVec::new();
    if calls.len() < CALLS_MIN {
        return found;
    }
    for calls in calls.chunk_by(|one, next| one.args.get(1) == next.args.get(1)) {
        if calls.len() < CALLS_MIN || !calls.iter().any(|call| element(call).is_some()) {
            continue;
        }
        let [Call { table, args: [_, key, ..], .. }, ..] = calls else { continue };
        let header = resident.get(&rows::header_key_on_stack(*table, key));
        let value = header.and_then(|header| header.value_here());
        let large =
            value.and_then(header::rows_of).filter(|(_, count)| *count >= TOUCHED_ELEMENTS_MIN);
        let Some((generation, _)) = large else { continue };
        let placement = Placement::of_key(key);
        let row = |name: &Bytes| element_row(*table, placement, generation, name);
        found.extend(calls.iter().filter_map(element).map(row));
    }
    found
}

/// The element that a call names.
fn element<'a>(call: &Call<'a>) -> Option<&'a Bytes> {
    let at = table::entry(call.command).command.element?;
    call.args.get(usize::from(at))
}

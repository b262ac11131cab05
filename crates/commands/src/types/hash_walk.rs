//! Walking over a hash: HSCAN, and the draws of HRANDFIELD. How: types/ring.rs.

use bytes::Bytes;

use crate::types::hash::{Entry, Fields, Hash, read_field};
use crate::types::ring::{self, Place, Urn};
use crate::view::ViewError;

/// The fields that exist for clients among the next `count` from a cursor on, and the next cursor; 0
/// at the end.
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
    let (met, next) = ring::scan(place, hash.view(), cursor, count)?;
    let live = met.into_iter().map(|(field, value)| read_live(hash, field, &value));
    let live: Vec<Option<Entry>> = live.collect::<Result<_, _>>()?;
    Ok((live.into_iter().flatten().collect(), next))
}

/// A random field; `None` if all are hidden.
pub(crate) fn random(hash: &Hash<'_>) -> Result<Option<Entry>, ViewError> {
    Ok(random_repeated(hash, 1)?.pop())
}

/// So many random fields, each drawn from all; none if all are hidden.
pub(crate) fn random_repeated(hash: &Hash<'_>, count: usize) -> Result<Vec<Entry>, ViewError> {
    with_urn(hash, |urn| urn.repeated(count))
}

/// So many different random fields, or all if there are no more.
pub(crate) fn random_distinct(hash: &Hash<'_>, count: u64) -> Result<Vec<Entry>, ViewError> {
    with_urn(hash, |urn| urn.distinct(count))
}

fn with_urn<R>(hash: &Hash<'_>, draw: impl FnOnce(&Urn<'_, Entry>) -> R) -> R {
    let place: Option<Place> = match &hash.fields {
        Fields::Inline(_) => None,
        Fields::Rows(place) => Some(*place),
    };
    draw(&Urn {
        view: hash.view(),
        place,
        count: hash.count,
        bytes: hash.bytes,
        read: &|field, value| read_live(hash, field, value),
        all: &|| hash.live(),
    })
}

fn read_live(hash: &Hash<'_>, field: Bytes, value: &Bytes) -> Result<Option<Entry>, ViewError> {
    let entry = read_field(field, value).ok_or(ViewError::Damaged)?;
    Ok(Some(entry).filter(|entry| entry.is_live(hash.view())))
}

//! The bodies of MemDS frames. Numbers are big-endian; a body ends where its grammar ends.
//!
//! ```text
//! lookups     = batch:u64 count:u16 (table:u32 placement:u40)*
//! answer      = batch:u64 routes count:u16 (route_index:u16)*     0xffff: this node knows no route
//! push        = routes
//! sync        = count:u16 part*
//! sync_answer = map_routes:u32 count:u16 part* routes
//!
//! routes      = count:u16 route*
//! route       = table:u32 first:u40 last:u40 partition:u64 epoch:u64 ballot:u64
//!               leader members
//! leader      = 0:u8 | 1:u8 node:u32
//! members     = count:u8 (node:u32)*
//! part        = table:u32 placement:u40 bits:u8 hash:u64 routes:u32      all keys with these first bits
//! ```
//!
//! An answer names each distinct route once, however many of its lookups led there: every lookup
//! is still looked up, only the answer is shorter.

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

use crate::perkle::{PartSummary, Prefix};
use crate::route::RouteKey;

/// Lookups in one frame at most.
pub(crate) const LOOKUPS_MAX: usize = 256;
/// Routes in one frame at most.
pub(crate) const ROUTES_MAX: usize = 1 << 14;
/// Parts in one frame at most.
pub(crate) const PARTS_MAX: usize = 1 << 13;
/// Members of a partition at most.
pub(crate) const MEMBERS_MAX: usize = 64;

const LOOKUP_BYTES: usize = 9;
const PART_BYTES: usize = 22;
/// Bytes of a route with no leader and no members.
const ROUTE_BYTES_MIN: usize = 40;
const NO_ROUTE: u16 = u16::MAX;

/// A question: who serves this placement of this table?
pub type Lookup = (TableId, Placement);

/// Why bytes are no body of their frame's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It ends too early.
    #[error("body too short")]
    Short,
    /// It goes on after its end.
    #[error("bytes after the end of the body")]
    Trailing,
    /// A count is above its limit.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A field has a value it cannot have.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

impl From<TryGetError> for BodyError {
    fn from(_: TryGetError) -> BodyError {
        BodyError::Short
    }
}

/// The answer to a batch of lookups.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) batch: u64,
    pub(crate) routes: Vec<Route>,
    /// For each lookup the position of its route in `routes`.
    pub(crate) found: Vec<Option<u16>>,
}

/// The answer to a comparison of maps.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct SyncAnswer {
    /// Routes in the whole map of the node that answers.
    pub(crate) map_routes: u32,
    /// What the parts asked about divide into, where they differ and are large.
    pub(crate) parts: Vec<PartSummary>,
    /// What it holds of small parts that differ.
    pub(crate) routes: Vec<Route>,
}

pub(crate) fn encode_lookups(batch: u64, lookups: &[Lookup]) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + lookups.len() * LOOKUP_BYTES);
    out.put_u64(batch);
    out.put_u16(count(lookups.len()));
    for (table, placement) in lookups {
        out.put_u32(table.0);
        out.put_slice(&placement.to_bytes());
    }
    out.freeze()
}

pub(crate) fn decode_lookups(mut body: &[u8]) -> Result<(u64, Vec<Lookup>), BodyError> {
    let batch = body.try_get_u64()?;
    let count = take_count(&mut body, LOOKUPS_MAX, LOOKUP_BYTES, "lookups")?;
    let mut lookups = Vec::with_capacity(count);
    for _ in 0..count {
        let table = TableId(body.try_get_u32()?);
        lookups.push((table, take_placement(&mut body)?));
    }
    end(body)?;
    Ok((batch, lookups))
}

pub(crate) fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + answer.routes.len() * 64 + answer.found.len() * 2);
    out.put_u64(answer.batch);
    put_routes(&mut out, &answer.routes);
    out.put_u16(count(answer.found.len()));
    for found in &answer.found {
        out.put_u16(found.unwrap_or(NO_ROUTE));
    }
    out.freeze()
}

pub(crate) fn decode_answer(mut body: &[u8]) -> Result<Answer, BodyError> {
    let batch = body.try_get_u64()?;
    let routes = take_routes(&mut body)?;
    let count = take_count(&mut body, LOOKUPS_MAX, 2, "lookups")?;
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let index = body.try_get_u16()?;
        if index != NO_ROUTE && usize::from(index) >= routes.len() {
            return Err(BodyError::Invalid("route index"));
        }
        found.push((index != NO_ROUTE).then_some(index));
    }
    end(body)?;
    Ok(Answer { batch, routes, found })
}

/// *Panics*: with more than [`ROUTES_MAX`] routes.
pub(crate) fn encode_push(routes: &[Route]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + routes.len() * 64);
    put_routes(&mut out, routes);
    out.freeze()
}

pub(crate) fn decode_push(mut body: &[u8]) -> Result<Vec<Route>, BodyError> {
    let routes = take_routes(&mut body)?;
    end(body)?;
    Ok(routes)
}

pub(crate) fn encode_sync(parts: &[PartSummary]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + parts.len() * PART_BYTES);
    put_parts(&mut out, parts);
    out.freeze()
}

pub(crate) fn decode_sync(mut body: &[u8]) -> Result<Vec<PartSummary>, BodyError> {
    let parts = take_parts(&mut body)?;
    end(body)?;
    Ok(parts)
}

pub(crate) fn encode_sync_answer(answer: &SyncAnswer) -> Bytes {
    let length = 8 + answer.parts.len() * PART_BYTES + answer.routes.len() * 64;
    let mut out = BytesMut::with_capacity(length);
    out.put_u32(answer.map_routes);
    put_parts(&mut out, &answer.parts);
    put_routes(&mut out, &answer.routes);
    out.freeze()
}

pub(crate) fn decode_sync_answer(mut body: &[u8]) -> Result<SyncAnswer, BodyError> {
    let map_routes = body.try_get_u32()?;
    let parts = take_parts(&mut body)?;
    let routes = take_routes(&mut body)?;
    end(body)?;
    Ok(SyncAnswer { map_routes, parts, routes })
}

fn put_routes(out: &mut BytesMut, routes: &[Route]) {
    out.put_u16(count(routes.len()));
    for route in routes {
        put_route(out, route);
    }
}

fn take_routes(body: &mut &[u8]) -> Result<Vec<Route>, BodyError> {
    let count = take_count(body, ROUTES_MAX, ROUTE_BYTES_MIN, "routes")?;
    (0..count).map(|_| take_route(body)).collect()
}

fn put_route(out: &mut BytesMut, route: &Route) {
    out.put_u32(route.range.table.0);
    out.put_slice(&route.range.first.to_bytes());
    out.put_slice(&route.range.last.to_bytes());
    out.put_u64(route.partition.0);
    out.put_u64(route.version.epoch);
    out.put_u64(route.version.ballot);
    match route.leader {
        Some(leader) => {
            out.put_u8(1);
            out.put_u32(leader.0);
        }
        None => out.put_u8(0),
    }
    out.put_u8(u8::try_from(route.members.len()).expect("members are bounded where they enter"));
    for member in &route.members {
        out.put_u32(member.0);
    }
}

fn take_route(body: &mut &[u8]) -> Result<Route, BodyError> {
    let table = TableId(body.try_get_u32()?);
    let first = take_placement(body)?;
    let last = take_placement(body)?;
    if first > last {
        return Err(BodyError::Invalid("range"));
    }
    let partition = PartitionId(body.try_get_u64()?);
    let version = RouteVersion { epoch: body.try_get_u64()?, ballot: body.try_get_u64()? };
    let leader = match body.try_get_u8()? {
        0 => None,
        1 => Some(NodeId(body.try_get_u32()?)),
        _ => return Err(BodyError::Invalid("leader")),
    };
    let count = usize::from(body.try_get_u8()?);
    if count > MEMBERS_MAX {
        return Err(BodyError::TooMany("members"));
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(NodeId(body.try_get_u32()?));
    }
    let range = PlacementRange { table, first, last };
    Ok(Route { partition, range, version, leader, members })
}

fn put_parts(out: &mut BytesMut, parts: &[PartSummary]) {
    out.put_u16(count(parts.len()));
    for part in parts {
        out.put_u32(part.prefix.first.table().0);
        out.put_slice(&part.prefix.first.placement().to_bytes());
        out.put_u8(part.prefix.bits);
        out.put_u64(part.hash);
        out.put_u32(part.count);
    }
}

fn take_parts(body: &mut &[u8]) -> Result<Vec<PartSummary>, BodyError> {
    let count = take_count(body, PARTS_MAX, PART_BYTES, "parts")?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let table = TableId(body.try_get_u32()?);
        let first = RouteKey::new(table, take_placement(body)?);
        let prefix = Prefix::of(first, body.try_get_u8()?).ok_or(BodyError::Invalid("prefix"))?;
        parts.push(PartSummary { prefix, hash: body.try_get_u64()?, count: body.try_get_u32()? });
    }
    Ok(parts)
}

fn take_placement(body: &mut &[u8]) -> Result<Placement, BodyError> {
    let (bytes, rest) = body.split_first_chunk::<5>().ok_or(BodyError::Short)?;
    *body = rest;
    Ok(Placement::from_bytes(*bytes))
}

/// A count that fits its limit and what is left of the body, so that it may be allocated for.
fn take_count(
    body: &mut &[u8],
    limit: usize,
    bytes_each: usize,
    what: &'static str,
) -> Result<usize, BodyError> {
    let count = usize::from(body.try_get_u16()?);
    if count > limit {
        return Err(BodyError::TooMany(what));
    }
    if count * bytes_each > body.len() {
        return Err(BodyError::Short);
    }
    Ok(count)
}

fn count(length: usize) -> u16 {
    u16::try_from(length).expect("senders keep to the limits of this module")
}

fn end(body: &[u8]) -> Result<(), BodyError> {
    if body.is_empty() { Ok(()) } else { Err(BodyError::Trailing) }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn route(number: u64) -> Route {
        let at = |value| Placement::new(value).expect("below 2^40");
        Route {
            partition: PartitionId(u64::MAX - number),
            range: PlacementRange { table: TableId(7), first: at(number), last: at(number + 9) },
            version: RouteVersion { epoch: number, ballot: 1 << 40 },
            leader: (number % 2 == 1).then_some(NodeId(0)),
            members: (0..number as u32).map(NodeId).collect(),
        }
    }

    /// One body of each kind, and whether bytes are a body of that kind.
    fn samples() -> Vec<(Bytes, fn(&[u8]) -> bool)> {
        let lookups = [(TableId(1), Placement::MIN), (TableId(u32::MAX), Placement::MAX)];
        let routes = vec![route(0), route(1), route(3)];
        let answer =
            Answer { batch: 9, routes: routes.clone(), found: vec![Some(2), None, Some(0)] };
        let prefix = Prefix::of(RouteKey::new(TableId(5), Placement::MAX), 33).expect("in a key");
        let parts = vec![PartSummary { prefix, hash: 3, count: 4 }; 2];
        let sync_answer = SyncAnswer { map_routes: 5, parts: parts.clone(), routes };
        assert_eq!(decode_lookups(&encode_lookups(8, &lookups)), Ok((8, lookups.to_vec())));
        assert_eq!(decode_answer(&encode_answer(&answer)).as_ref(), Ok(&answer));
        assert_eq!(decode_push(&encode_push(&answer.routes)).as_ref(), Ok(&answer.routes));
        assert_eq!(decode_sync(&encode_sync(&parts)).as_ref(), Ok(&parts));
        let encoded = encode_sync_answer(&sync_answer);
        assert_eq!(decode_sync_answer(&encoded).as_ref(), Ok(&sync_answer));
        vec![
            (encode_lookups(8, &lookups), |body| decode_lookups(body).is_ok()),
            (encode_answer(&answer), |body| decode_answer(body).is_ok()),
            (encode_push(&answer.routes), |body| decode_push(body).is_ok()),
            (encode_sync(&parts), |body| decode_sync(body).is_ok()),
            (encoded, |body| decode_sync_answer(body).is_ok()),
        ]
    }

    #[test]
    fn bodies_round_trip_and_nothing_shorter_or_longer_is_one() {
        for (body, is_body) in samples() {
            assert!(is_body(&body));
            for cut in 0..body.len() {
                assert!(!is_body(&body[..cut]), "cut at {cut} of {}", body.len());
            }
            assert!(!is_body(&[&body[..], &[0]].concat()));
        }
    }

    #[test]
    fn damaged_and_random_bytes_do_no_harm() {
        let rng = &mut StdRng::seed_from_u64(1);
        let samples = samples();
        for (body, is_body) in &samples {
            for at in 0..body.len() {
                let mut damaged = body.to_vec();
                damaged[at] ^= 1 << rng.random_range(0..8);
                is_body(&damaged);
            }
        }
        for _ in 0..20_000 {
            let mut bytes = vec![0; rng.random_range(0..80)];
            rng.fill_bytes(&mut bytes);
            // Small counts, so that some bytes after them are looked at.
            for at in [0, 4, 8] {
                if bytes.len() > at + 1 && rng.random() {
                    (bytes[at], bytes[at + 1]) = (0, bytes[at + 1] % 3);
                }
            }
            samples.iter().for_each(|(_, is_body)| {
                is_body(&bytes);
            });
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut backwards = route(3);
        backwards.range.last = Placement::MIN;
        let error = decode_push(&encode_push(&[backwards]));
        assert_eq!(error, Err(BodyError::Invalid("range")));
        let answer = Answer { batch: 1, routes: vec![route(1)], found: vec![Some(1)] };
        let error = decode_answer(&encode_answer(&answer));
        assert_eq!(error, Err(BodyError::Invalid("route index")));
        let crowd = Route { members: vec![NodeId(1); MEMBERS_MAX + 1], ..route(1) };
        assert_eq!(decode_push(&encode_push(&[crowd])), Err(BodyError::TooMany("members")));
        let many = vec![(TableId(0), Placement::MIN); LOOKUPS_MAX + 1];
        assert_eq!(decode_lookups(&encode_lookups(1, &many)), Err(BodyError::TooMany("lookups")));
        let mut deep = encode_sync(&[]).to_vec();
        deep.splice(.., [&[0, 1][..], &[0; 9], &[73], &[0; 12]].concat());
        assert_eq!(decode_sync(&deep), Err(BodyError::Invalid("prefix")));
    }
}

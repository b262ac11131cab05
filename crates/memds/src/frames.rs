//! The bodies of MemDS frames. Numbers are big-endian; a body ends where its grammar ends.
//!
//! ```text
//! lookups     = batch:u64 count:u16 (table:u32 placement:u40)*
//! answer      = batch:u64 routes count:u16 (route_index:u16)*     0xffff: this node knows no route
//! push        = routes
//! sync        = count:u16 region*
//! sync_answer = map_entries:u32 count:u16 region* routes
//!
//! routes      = count:u16 route*
//! route       = table:u32 first:u40 last:u40 partition:u64 epoch:u64 ballot:u64
//!               leader members
//! leader      = 0:u8 | 1:u8 node:u32
//! members     = count:u8 (node:u32)*
//! region      = table:u32 placement:u40 bits:u8 hash:u64 entries:u32
//! ```
//!
//! An answer names each distinct route once, however many of its lookups led there: every lookup
//! is still looked up, only the answer is shorter.

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

use crate::region::{REGION_BITS_MAX, Region, Summary};

/// Lookups in one frame at most.
pub(crate) const LOOKUPS_MAX: usize = 256;
/// Routes in one frame at most.
pub(crate) const ROUTES_MAX: usize = 1 << 15;
/// Regions in one frame at most.
pub(crate) const REGIONS_MAX: usize = 1 << 13;
/// Members of a partition at most.
pub(crate) const MEMBERS_MAX: usize = 64;

const LOOKUP_BYTES: usize = 9;
const REGION_BYTES: usize = 22;
/// Bytes of a route with no leader and no members.
const ROUTE_BYTES_MIN: usize = 40;
const NO_ROUTE: u16 = u16::MAX;

/// One question: who serves this placement?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// The table.
    pub table: TableId,
    /// Where the key lives in it.
    pub placement: Placement,
}

/// Why bytes are no body of their frame's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
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
    /// Entries of the whole map of the node that answers.
    pub(crate) map_entries: u32,
    /// Parts of the regions asked about that the node cannot call equal.
    pub(crate) regions: Vec<(Region, Summary)>,
    /// What it holds of small regions that differ.
    pub(crate) routes: Vec<Route>,
}

pub(crate) fn encode_lookups(batch: u64, lookups: &[Lookup]) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + lookups.len() * LOOKUP_BYTES);
    out.put_u64(batch);
    out.put_u16(count(lookups.len()));
    for lookup in lookups {
        out.put_u32(lookup.table.0);
        out.put_slice(&lookup.placement.to_bytes());
    }
    out.freeze()
}

pub(crate) fn decode_lookups(mut body: &[u8]) -> Result<(u64, Vec<Lookup>), BodyError> {
    let batch = body.try_get_u64()?;
    let count = take_count(&mut body, LOOKUPS_MAX, LOOKUP_BYTES, "lookups")?;
    let mut lookups = Vec::with_capacity(count);
    for _ in 0..count {
        let table = TableId(body.try_get_u32()?);
        lookups.push(Lookup { table, placement: take_placement(&mut body)? });
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

pub(crate) fn encode_sync(regions: &[(Region, Summary)]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + regions.len() * REGION_BYTES);
    put_regions(&mut out, regions);
    out.freeze()
}

pub(crate) fn decode_sync(mut body: &[u8]) -> Result<Vec<(Region, Summary)>, BodyError> {
    let regions = take_regions(&mut body)?;
    end(body)?;
    Ok(regions)
}

pub(crate) fn encode_sync_answer(answer: &SyncAnswer) -> Bytes {
    let length = 8 + answer.regions.len() * REGION_BYTES + answer.routes.len() * 64;
    let mut out = BytesMut::with_capacity(length);
    out.put_u32(answer.map_entries);
    put_regions(&mut out, &answer.regions);
    put_routes(&mut out, &answer.routes);
    out.freeze()
}

pub(crate) fn decode_sync_answer(mut body: &[u8]) -> Result<SyncAnswer, BodyError> {
    let map_entries = body.try_get_u32()?;
    let regions = take_regions(&mut body)?;
    let routes = take_routes(&mut body)?;
    end(body)?;
    Ok(SyncAnswer { map_entries, regions, routes })
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

fn put_regions(out: &mut BytesMut, regions: &[(Region, Summary)]) {
    out.put_u16(count(regions.len()));
    for (region, summary) in regions {
        let (table, placement) = region.start();
        out.put_u32(table.0);
        out.put_slice(&placement.to_bytes());
        out.put_u8(region.bits());
        out.put_u64(summary.hash);
        out.put_u32(summary.entries);
    }
}

fn take_regions(body: &mut &[u8]) -> Result<Vec<(Region, Summary)>, BodyError> {
    let count = take_count(body, REGIONS_MAX, REGION_BYTES, "regions")?;
    let mut regions = Vec::with_capacity(count);
    for _ in 0..count {
        let table = TableId(body.try_get_u32()?);
        let placement = take_placement(body)?;
        let bits = body.try_get_u8()?;
        if bits > REGION_BITS_MAX {
            return Err(BodyError::Invalid("region"));
        }
        let region = Region::new(table, placement, bits);
        let summary = Summary { hash: body.try_get_u64()?, entries: body.try_get_u32()? };
        regions.push((region, summary));
    }
    Ok(regions)
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

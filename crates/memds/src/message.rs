//! Bodies of the frames between MemDS and those who ask, tell and heal it. Integers little-endian.
//!
//! ```text
//! lookup  = batch:u64 count:u32 count*( table:u32 placement:u40 )
//! answer  = batch:u64 count:u32 count*( found:u8 [route] )       ; in the order of the lookup
//! push    = count:u32 count*route
//! ask     = count:u32 count*part                                 ; parts as the asker has them
//! tell    = whole:u32 count:u32 count*( kind:u8 ( part part / push ) )
//!           ; routes in the teller's whole map; only parts that differ
//! part    = prefix:u72 bits:u8 hash:u64 count:u32
//! route   = table:u32 first:u40 last:u40 partition:u64 epoch:u64 ballot:u64
//!           leader:u32 has_leader:u8 members:u8 members*node:u32
//! ```
//!
//! A body is checked as it is read: a frame's checksum says it arrived as it was sent, not that
//! the sender was sane.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

use crate::perkle::{PartSummary, Prefix};
use crate::route::{KEY_BITS, RouteKey, RouteRef};

/// Most items in one body: lookups, routes or parts.
pub(crate) const ITEMS_MAX: usize = 4096;

/// Most replicas of a partition that a message carries.
pub const MEMBERS_MAX: usize = 32;

/// One question: who serves this position?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lookup {
    /// The table.
    pub table: TableId,
    /// The key's placement.
    pub placement: Placement,
}

impl From<Lookup> for RouteKey {
    fn from(lookup: Lookup) -> RouteKey {
        RouteKey::new(lookup.table, lookup.placement)
    }
}

/// A body is not what its kind says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("MemDS message: malformed body")]
pub struct MessageError;

const LOOKUP_BYTES: usize = 9;
/// A route without its members.
const ROUTE_BYTES: usize = 4 + 5 + 5 + 8 + 8 + 8 + 4 + 1 + 1;
const PART_BYTES: usize = 9 + 1 + 8 + 4;

pub(crate) fn encode_lookups(batch: u64, lookups: &[Lookup]) -> Bytes {
    let mut body = BytesMut::with_capacity(12 + lookups.len() * LOOKUP_BYTES);
    body.put_u64_le(batch);
    body.put_u32_le(lookups.len() as u32);
    for lookup in lookups {
        body.put_u32_le(lookup.table.0);
        put_placement(lookup.placement, &mut body);
    }
    body.freeze()
}

/// Reads a batch's number and appends its keys to `keys`.
pub(crate) fn decode_lookups(
    mut body: &[u8],
    keys: &mut Vec<RouteKey>,
) -> Result<u64, MessageError> {
    let batch = body.try_get_u64_le().map_err(|_| MessageError)?;
    let count = item_count(&mut body)?;
    let items = body.as_chunks::<LOOKUP_BYTES>();
    if items.0.len() != count || !items.1.is_empty() {
        return Err(MessageError);
    }
    keys.extend(items.0.iter().map(|item| {
        let mut item = &item[..];
        RouteKey::new(TableId(item.get_u32_le()), get_placement(&mut item))
    }));
    Ok(batch)
}

/// Starts an answer of `count` routes: each is appended by [`put_answer`].
pub(crate) fn start_answer(batch: u64, count: usize) -> BytesMut {
    let mut body = BytesMut::with_capacity(12 + count * (1 + ROUTE_BYTES + 12));
    body.put_u64_le(batch);
    body.put_u32_le(count as u32);
    body
}

pub(crate) fn put_answer(route: Option<&RouteRef<'_>>, body: &mut BytesMut) {
    body.put_u8(u8::from(route.is_some()));
    if let Some(route) = route {
        put_route(route, body);
    }
}

/// The batch number of an answer, and the rest.
pub(crate) fn answer_batch(mut body: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let batch = body.try_get_u64_le().map_err(|_| MessageError)?;
    Ok((batch, body))
}

/// Reads what follows the batch number of an answer to `count` lookups.
pub(crate) fn decode_answers(
    mut body: &[u8],
    count: usize,
    mut answered: impl FnMut(usize, Option<RouteRef<'_>>),
) -> Result<(), MessageError> {
    if item_count(&mut body)? != count {
        return Err(MessageError);
    }
    let mut members = SmallVec::new();
    for index in 0..count {
        match body.try_get_u8().map_err(|_| MessageError)? {
            0 => answered(index, None),
            1 => answered(index, Some(get_route(&mut body, &mut members)?)),
            _ => return Err(MessageError),
        }
    }
    if body.is_empty() { Ok(()) } else { Err(MessageError) }
}

pub(crate) fn encode_routes<'a>(
    routes: impl ExactSizeIterator<Item = RouteRef<'a>>,
    body: &mut BytesMut,
) {
    body.put_u32_le(routes.len() as u32);
    for route in routes {
        put_route(&route, body);
    }
}

/// Reads routes that end the body.
pub(crate) fn decode_routes(mut body: &[u8]) -> Result<Vec<Route>, MessageError> {
    let routes = get_routes(&mut body)?;
    if body.is_empty() { Ok(routes) } else { Err(MessageError) }
}

fn get_routes(body: &mut &[u8]) -> Result<Vec<Route>, MessageError> {
    let count = item_count(body)?;
    let mut members = SmallVec::new();
    (0..count).map(|_| Ok(get_route(body, &mut members)?.to_route())).collect()
}

pub(crate) fn encode_ask(parts: &[PartSummary]) -> Bytes {
    let mut body = BytesMut::with_capacity(4 + parts.len() * PART_BYTES);
    body.put_u32_le(parts.len() as u32);
    parts.iter().for_each(|part| put_part(part, &mut body));
    body.freeze()
}

pub(crate) fn decode_ask(mut body: &[u8]) -> Result<Vec<PartSummary>, MessageError> {
    let count = item_count(&mut body)?;
    let parts = (0..count).map(|_| get_part(&mut body)).collect::<Result<_, _>>()?;
    if body.is_empty() { Ok(parts) } else { Err(MessageError) }
}

/// What a node tells of a part in which it differs from the asker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// All its routes.
    Routes(Vec<Route>),
    /// Its two halves, to be asked for.
    Parts([PartSummary; 2]),
}

const TOLD_ROUTES: u8 = 0;
const TOLD_PARTS: u8 = 1;

pub(crate) fn put_told_routes(routes: &[RouteRef<'_>], body: &mut BytesMut) {
    body.put_u8(TOLD_ROUTES);
    encode_routes(routes.iter().copied(), body);
}

pub(crate) fn put_told_parts(parts: &[PartSummary; 2], body: &mut BytesMut) {
    body.put_u8(TOLD_PARTS);
    parts.iter().for_each(|part| put_part(part, body));
}

pub(crate) fn finish_tell(whole: usize, count: u32, told: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(8 + told.len());
    body.put_u32_le(whole as u32);
    body.put_u32_le(count);
    body.put_slice(told);
    body.freeze()
}

/// The size of the teller's map and what it told.
pub(crate) fn decode_tell(mut body: &[u8]) -> Result<(usize, Vec<Told>), MessageError> {
    let whole = body.try_get_u32_le().map_err(|_| MessageError)? as usize;
    let count = item_count(&mut body)?;
    let told = (0..count)
        .map(|_| match body.try_get_u8().map_err(|_| MessageError)? {
            TOLD_ROUTES => get_routes(&mut body).map(Told::Routes),
            TOLD_PARTS => Ok(Told::Parts([get_part(&mut body)?, get_part(&mut body)?])),
            _ => Err(MessageError),
        })
        .collect::<Result<_, _>>()?;
    if body.is_empty() { Ok((whole, told)) } else { Err(MessageError) }
}

fn item_count(body: &mut &[u8]) -> Result<usize, MessageError> {
    let count = body.try_get_u32_le().map_err(|_| MessageError)? as usize;
    if count <= ITEMS_MAX { Ok(count) } else { Err(MessageError) }
}

fn put_part(part: &PartSummary, body: &mut BytesMut) {
    body.put_slice(&part.prefix.first.get().to_le_bytes()[..9]);
    body.put_u8(part.prefix.bits);
    body.put_u64_le(part.hash);
    body.put_u32_le(part.count);
}

fn get_part(body: &mut &[u8]) -> Result<PartSummary, MessageError> {
    if body.len() < PART_BYTES {
        return Err(MessageError);
    }
    let mut first = [0; 16];
    body.copy_to_slice(&mut first[..(KEY_BITS / 8) as usize]);
    let first = RouteKey::from_number(u128::from_le_bytes(first));
    let prefix = Prefix::of(first, body.get_u8()).ok_or(MessageError)?;
    Ok(PartSummary { prefix, hash: body.get_u64_le(), count: body.get_u32_le() })
}

fn put_route(route: &RouteRef<'_>, body: &mut BytesMut) {
    // One append: bounds are checked once instead of ten times.
    let mut fixed = [0; ROUTE_BYTES];
    let mut out = &mut fixed[..];
    out.put_u32_le(route.range.table.0);
    put_placement(route.range.first, &mut out);
    put_placement(route.range.last, &mut out);
    out.put_u64_le(route.partition.0);
    out.put_u64_le(route.version.epoch);
    out.put_u64_le(route.version.ballot);
    out.put_u32_le(route.leader.unwrap_or_default().0);
    out.put_u8(u8::from(route.leader.is_some()));
    let members = &route.members[..route.members.len().min(MEMBERS_MAX)];
    out.put_u8(members.len() as u8);
    body.put_slice(&fixed);
    members.iter().for_each(|member| body.put_u32_le(member.0));
}

/// Reads a route, its members into `members`.
fn get_route<'a>(
    body: &mut &[u8],
    members: &'a mut SmallVec<[NodeId; 8]>,
) -> Result<RouteRef<'a>, MessageError> {
    let (fixed, rest) = body.split_first_chunk::<ROUTE_BYTES>().ok_or(MessageError)?;
    let mut fixed = &fixed[..];
    let table = TableId(fixed.get_u32_le());
    let (first, last) = (get_placement(&mut fixed), get_placement(&mut fixed));
    let partition = PartitionId(fixed.get_u64_le());
    let version = RouteVersion { epoch: fixed.get_u64_le(), ballot: fixed.get_u64_le() };
    let leader = NodeId(fixed.get_u32_le());
    let leader = (fixed.get_u8() != 0).then_some(leader);
    let count = usize::from(fixed.get_u8());
    if first > last || count > MEMBERS_MAX || rest.len() < count * 4 {
        return Err(MessageError);
    }
    let (nodes, rest) = rest.split_at(count * 4);
    members.clear();
    members.extend(nodes.as_chunks().0.iter().map(|node| NodeId(u32::from_le_bytes(*node))));
    *body = rest;
    let range = PlacementRange { table, first, last };
    Ok(RouteRef { partition, range, version, leader, members })
}

fn put_placement(placement: Placement, body: &mut impl BufMut) {
    body.put_slice(&placement.to_bytes());
}

fn get_placement(body: &mut &[u8]) -> Placement {
    let mut bytes = [0; 5];
    body.copy_to_slice(&mut bytes);
    Placement::from_bytes(bytes)
}

#[cfg(test)]
mod tests;

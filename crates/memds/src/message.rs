//! The bodies of MemDS frames.
//!
//! ```text
//! MemdsLookup = batch:u64 count:u16 (table:u32 placement:[u8;5])*
//! MemdsAnswer = batch:u64 routes:u16 route* lookups:u16 (index of a route:u16 | 0xffff none)*
//! MemdsPush   = routes:u16 route*
//! route       = partition:u64 table:u32 first:[u8;5] last:[u8;5] epoch:u64 ballot:u64
//!               leader:u32 (0 none) members:u8 member:u32*
//! ```
//!
//! Numbers are big-endian. An answer names each route once, however many of its lookups met it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

/// Lookups in one frame at most.
pub(crate) const LOOKUPS_MAX: usize = 512;
/// Routes in one push frame at most.
pub(crate) const ROUTES_MAX: usize = 1024;

const NO_ROUTE: u16 = u16::MAX;

/// A question: who serves this placement?
pub(crate) type Place = (TableId, Placement);

pub(crate) fn encode_lookup(batch: u64, places: &[Place]) -> Bytes {
    debug_assert!(places.len() <= LOOKUPS_MAX);
    let mut out = BytesMut::with_capacity(10 + 9 * places.len());
    out.put_u64(batch);
    out.put_u16(places.len() as u16);
    for (table, placement) in places {
        out.put_u32(table.0);
        out.put_slice(&placement.to_bytes());
    }
    out.freeze()
}

pub(crate) fn decode_lookup(mut body: Bytes) -> Option<(u64, Vec<Place>)> {
    let batch = body.try_get_u64().ok()?;
    let count = usize::from(body.try_get_u16().ok()?);
    if count > LOOKUPS_MAX || body.len() != count * 9 {
        return None;
    }
    let place = |_| Some((TableId(body.try_get_u32().ok()?), take_placement(&mut body)?));
    Some((batch, (0..count).map(place).collect::<Option<_>>()?))
}

/// An answer: the routes met, and for each lookup which of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) batch: u64,
    pub(crate) routes: Vec<Route>,
    pub(crate) found: Vec<Option<u16>>,
}

pub(crate) fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + 64 * answer.routes.len() + 2 * answer.found.len());
    out.put_u64(answer.batch);
    put_routes(&mut out, &answer.routes);
    out.put_u16(answer.found.len() as u16);
    answer.found.iter().for_each(|found| out.put_u16(found.unwrap_or(NO_ROUTE)));
    out.freeze()
}

pub(crate) fn decode_answer(mut body: Bytes) -> Option<Answer> {
    let batch = body.try_get_u64().ok()?;
    let routes = take_routes(&mut body)?;
    let count = usize::from(body.try_get_u16().ok()?);
    if body.len() != count * 2 {
        return None;
    }
    let found = |_| {
        let index = body.get_u16();
        (index != NO_ROUTE).then_some(index)
    };
    let found: Vec<_> = (0..count).map(found).collect();
    let sound = found.iter().flatten().all(|index| usize::from(*index) < routes.len());
    sound.then_some(Answer { batch, routes, found })
}

pub(crate) fn encode_push(routes: &[Route]) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + 64 * routes.len());
    put_routes(&mut out, routes);
    out.freeze()
}

pub(crate) fn decode_push(mut body: Bytes) -> Option<Vec<Route>> {
    let routes = take_routes(&mut body)?;
    body.is_empty().then_some(routes)
}

fn put_routes(out: &mut BytesMut, routes: &[Route]) {
    out.put_u16(routes.len() as u16);
    for route in routes {
        out.put_u64(route.partition.0);
        out.put_u32(route.range.table.0);
        out.put_slice(&route.range.first.to_bytes());
        out.put_slice(&route.range.last.to_bytes());
        out.put_u64(route.version.epoch);
        out.put_u64(route.version.ballot);
        out.put_u32(route.leader.map_or(0, |node| node.0));
        out.put_u8(route.members.len() as u8);
        route.members.iter().for_each(|member| out.put_u32(member.0));
    }
}

fn take_routes(body: &mut Bytes) -> Option<Vec<Route>> {
    let count = usize::from(body.try_get_u16().ok()?);
    if count > ROUTES_MAX {
        return None;
    }
    (0..count).map(|_| take_route(body)).collect()
}

fn take_route(body: &mut Bytes) -> Option<Route> {
    let partition = PartitionId(body.try_get_u64().ok()?);
    let table = TableId(body.try_get_u32().ok()?);
    let (first, last) = (take_placement(body)?, take_placement(body)?);
    let epoch = body.try_get_u64().ok()?;
    let ballot = body.try_get_u64().ok()?;
    let leader = body.try_get_u32().ok()?;
    let members = body.try_get_u8().ok()?;
    let members =
        (0..members).map(|_| body.try_get_u32().ok().map(NodeId)).collect::<Option<_>>()?;
    Some(Route {
        partition,
        range: PlacementRange { table, first, last },
        version: RouteVersion { epoch, ballot },
        leader: (leader != 0).then_some(NodeId(leader)),
        members,
    })
}

fn take_placement(body: &mut Bytes) -> Option<Placement> {
    let bytes: [u8; 5] = body.get(..5)?.try_into().ok()?;
    body.advance(5);
    Some(Placement::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(partition: u64, leader: Option<NodeId>) -> Route {
        Route {
            partition: PartitionId(partition),
            range: PlacementRange::whole(TableId(3)),
            version: RouteVersion { epoch: 4, ballot: 5 },
            leader,
            members: vec![NodeId(1), NodeId(2)],
        }
    }

    #[test]
    fn messages_round_trip_and_no_cut_is_one() {
        let places = vec![(TableId(0), Placement::MIN), (TableId(9), Placement::MAX)];
        let lookup = encode_lookup(7, &places);
        assert_eq!(decode_lookup(lookup.clone()), Some((7, places)));
        let routes = vec![route(1, None), route(2, Some(NodeId(2)))];
        let answer =
            Answer { batch: 7, routes: routes.clone(), found: vec![Some(1), None, Some(0)] };
        let encoded = encode_answer(&answer);
        assert_eq!(decode_answer(encoded.clone()), Some(answer));
        let push = encode_push(&routes);
        assert_eq!(decode_push(push.clone()), Some(routes));
        for cut in 0..lookup.len() {
            assert_eq!(decode_lookup(lookup.slice(..cut)), None, "lookup cut at {cut}");
        }
        for cut in 0..encoded.len() {
            assert_eq!(decode_answer(encoded.slice(..cut)), None, "answer cut at {cut}");
        }
        for cut in 0..push.len() {
            assert_eq!(decode_push(push.slice(..cut)), None, "push cut at {cut}");
        }
    }

    #[test]
    fn an_answer_that_names_no_route_of_its_own_is_refused() {
        let answer = Answer { batch: 1, routes: vec![route(1, None)], found: vec![Some(1)] };
        assert_eq!(decode_answer(encode_answer(&answer)), None);
    }
}

//! Messages round-trip, and no damage makes reading one panic.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn route(first: u64, members: u32) -> Route {
    Route {
        partition: PartitionId(first + 7),
        range: PlacementRange {
            table: TableId(3),
            first: Placement::new(first).expect("40 bits"),
            last: Placement::MAX,
        },
        version: RouteVersion { epoch: 5, ballot: u64::MAX },
        leader: (members > 1).then_some(NodeId(1)),
        members: (0..members).map(NodeId).collect(),
    }
}

fn lookup(placement: u64) -> Lookup {
    Lookup { table: TableId(9), placement: Placement::new(placement).expect("40 bits") }
}

#[test]
fn lookups_and_answers_round_trip() {
    let lookups = [lookup(0), lookup(1 << 39)];
    let mut keys = Vec::new();
    assert_eq!(decode_lookups(&encode_lookups(77, &lookups), &mut keys), Ok(77));
    assert_eq!(keys, lookups.map(RouteKey::from));

    let routes = [Some(route(0, 3)), None, Some(route(5, 0)), Some(route(6, MEMBERS_MAX as u32))];
    let mut body = start_answer(78, routes.len());
    routes.iter().for_each(|route| {
        put_answer(route.as_ref().map(RouteRef::from).as_ref(), &mut body);
    });
    let (batch, answers) = answer_batch(&body).expect("long enough");
    assert_eq!(batch, 78);
    let mut answered = Vec::new();
    let each = |index, route: Option<RouteRef<'_>>| {
        answered.push((index, route.map(|route| route.to_route())));
    };
    assert_eq!(decode_answers(answers, routes.len(), each), Ok(()));
    assert_eq!(answered, routes.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(decode_answers(answers, 3, |_, _| ()), Err(MessageError));
}

#[test]
fn parts_round_trip() {
    let part = PartSummary {
        prefix: Prefix::of(RouteKey::MAX, 41).expect("at most 72 bits"),
        hash: 12,
        count: 9,
    };
    assert_eq!(decode_ask(&encode_ask(&[part, part])), Ok(vec![part, part]));
    let routes = [route(1, 2), route(2, 3)];
    let mut told = BytesMut::new();
    put_told_parts(&[part, part], &mut told);
    put_told_routes(&routes.iter().map(RouteRef::from).collect::<Vec<_>>(), &mut told);
    let expected = vec![Told::Parts([part, part]), Told::Routes(routes.to_vec())];
    assert_eq!(decode_tell(&finish_tell(100, 2, &told)), Ok((100, expected)));
}

#[test]
fn damage_is_refused_or_read_but_never_panics() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut routes = BytesMut::new();
    encode_routes([route(1, 2), route(2, 3)].iter().map(RouteRef::from), &mut routes);
    let mut answer = start_answer(1, 1);
    put_answer(Some(&RouteRef::from(&route(0, 3))), &mut answer);
    let mut told = BytesMut::new();
    put_told_routes(&[RouteRef::from(&route(1, 1))], &mut told);
    let bodies = [
        encode_lookups(1, &[lookup(4)]),
        routes.freeze(),
        answer.freeze(),
        finish_tell(9, 1, &told),
        encode_ask(&[PartSummary { prefix: Prefix::ALL, hash: 0, count: 0 }]),
    ];
    let mut refused = 0;
    for round in 0..50_000 {
        let mut body = bodies[round % bodies.len()].to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..body.len());
            match rng.random_range(0..3) {
                0 => body[at] = rng.random(),
                1 => body.insert(at, rng.random()),
                _ if body.len() > 1 => body.truncate(at.max(1)),
                _ => {}
            }
        }
        refused += usize::from(match round % bodies.len() {
            0 => decode_lookups(&body, &mut Vec::new()).is_err(),
            1 => decode_routes(&body).is_err(),
            2 => answer_batch(&body)
                .and_then(|(_, rest)| decode_answers(rest, 1, |_, _| ()))
                .is_err(),
            3 => decode_tell(&body).is_err(),
            _ => decode_ask(&body).is_err(),
        });
    }
    assert!(refused > 10_000, "{refused}");
}

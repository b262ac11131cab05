//! Geo commands, over sorted sets whose scores are places: types/geohash.rs.

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Options, Word};
use crate::command::{Command, Flags, KeyFlags, Keys, at_least, key, read, write};
use crate::double::parse_double;
use crate::error::{CommandError, Echo};
use crate::families::sorted_set::{AddOptions, add_scored};
use crate::txn::Txn;
use crate::types::geohash::{Point, Search, Shape};
use crate::types::sorted_set::{Member, ScoreBound, SortedSet};
use crate::types::sorted_set_edit::replace;
use crate::view::{Direction, View};

const GROWS: Flags = Flags::DENYOOM;
const NONE: Flags = Flags::NONE;

const RO_ACCESS: Keys = key(1, ACCESS_FLAGS);
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const ACCESS_FLAGS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const TARGET_FLAGS: KeyFlags = KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0);
const STORE: Keys = Keys::Pair(TARGET_FLAGS, ACCESS_FLAGS);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name                    arity        flags  keys       handler
    write("GEOADD",                at_least(5), GROWS, RW_UPDATE, geoadd),
    read ("GEODIST",               at_least(4), NONE,  RO_ACCESS, geodist),
    read ("GEOHASH",               at_least(2), NONE,  RO_ACCESS, geohash),
    read ("GEOPOS",                at_least(2), NONE,  RO_ACCESS, geopos),
    write("GEORADIUS",             at_least(6), GROWS, Keys::AndStore { from: 6 }, georadius),
    write("GEORADIUSBYMEMBER",     at_least(5), GROWS, Keys::AndStore { from: 5 }, georadiusbymember),
    read ("GEORADIUSBYMEMBER_RO",  at_least(5), NONE,  RO_ACCESS, georadiusbymember_ro),
    read ("GEORADIUS_RO",          at_least(6), NONE,  RO_ACCESS, georadius_ro),
    read ("GEOSEARCH",             at_least(7), NONE,  RO_ACCESS, geosearch),
    write("GEOSEARCHSTORE",        at_least(8), GROWS, STORE,     geosearchstore),
];

fn geoadd(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut options, mut at) = (AddOptions::default(), 2);
    while let Some(arg) = args.get(at) {
        match Word::new(arg).as_bytes() {
            b"NX" => options.new_only = true,
            b"XX" => options.old_only = true,
            b"CH" => options.count_changed = true,
            _ => break,
        }
        at += 1;
    }
    let (triples, rest) = args.from(at).as_chunks::<3>();
    if !rest.is_empty() || (options.new_only && options.old_only) {
        return Err(CommandError::Syntax);
    }
    let mut scored = Vec::with_capacity(triples.len());
    for [longitude, latitude, name] in triples {
        scored.push((point(longitude, latitude)?.score(), name));
    }
    // Nothing to add is what ZADD refuses.
    if scored.is_empty() {
        return Err(CommandError::Syntax);
    }
    add_scored(txn, args.bytes(1)?, &scored, options)
}

// --- Places of members

fn geopos(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    of_members(view, args, Reply::NullArray, coordinates)
}

fn geohash(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    of_members(view, args, Reply::Null, |point| Reply::Bulk(Bytes::copy_from_slice(&point.text())))
}

fn of_members(
    view: &dyn View,
    args: Args<'_>,
    none: Reply,
    answer: fn(Point) -> Reply,
) -> Result<Reply, CommandError> {
    let set = SortedSet::read(view, args.bytes(1)?)?;
    let replies = args.from(2).iter().map(|name| {
        let score = set.as_ref().map_or(Ok(None), |set| set.score(view, name))?;
        Ok(score.map_or(none.clone(), |score| answer(Point::of_score(score))))
    });
    Ok(Reply::Array(replies.collect::<Result<_, CommandError>>()?))
}

fn geodist(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let unit_m = match args.from(4) {
        [] => 1.0,
        [unit] => unit_m_of(unit)?,
        _ => return Err(CommandError::Syntax),
    };
    let Some(set) = SortedSet::read(view, args.bytes(1)?)? else { return Ok(Reply::Null) };
    let (one, other) = (set.score(view, args.bytes(2)?)?, set.score(view, args.bytes(3)?)?);
    let (Some(one), Some(other)) = (one, other) else { return Ok(Reply::Null) };
    let distance_m = Point::of_score(one).distance_m(Point::of_score(other));
    Ok(distance_reply(distance_m / unit_m))
}

// --- Searching

/// What a command's name says of its search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// GEORADIUS
    Around,
    /// GEORADIUSBYMEMBER
    AroundMember,
    /// GEOSEARCH
    Search,
}

/// What becomes of what is found.
#[derive(Clone, Debug)]
struct Query {
    centre: Option<Point>,
    /// It was said, although a member's set may not be there …
    has_centre: bool,
    /// … by naming a member.
    centre_is_member: bool,
    shape: Option<(Shape, f64)>,
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    /// Nearest first, or farthest first.
    order: Option<Direction>,
    /// 0: all.
    count: u64,
    /// The first that are found are enough.
    any: bool,
    /// Where the result is stored, and whether with distances for scores.
    store: Option<Bytes>,
    store_distances: bool,
}

/// Something found.
#[derive(Clone, Debug)]
struct Found {
    member: Member,
    point: Point,
    distance_m: f64,
}

impl Query {
    fn new() -> Query {
        Query {
            centre: None,
            has_centre: false,
            centre_is_member: false,
            shape: None,
            with_distance: false,
            with_hash: false,
            with_coordinates: false,
            order: None,
            count: 0,
            any: false,
            store: None,
            store_distances: false,
        }
    }

    /// Reads what stands before the options; how many arguments that is, from the key on.
    fn parse_start(
        &mut self,
        view: &dyn View,
        set: Option<&SortedSet>,
        args: Args<'_>,
        form: Form,
    ) -> Result<usize, CommandError> {
        let radius_at = match form {
            Form::Search => return Ok(1),
            Form::Around => {
                self.centre = Some(point(args.bytes(2)?, args.bytes(3)?)?);
                4
            }
            // What is said of a set that is not there is not looked at.
            Form::AroundMember if set.is_none() => return Ok(4),
            Form::AroundMember => {
                self.centre = Some(place_of(view, set, args.bytes(2)?)?);
                3
            }
        };
        let (radius, unit) = (args.bytes(radius_at)?, args.bytes(radius_at + 1)?);
        self.shape = Some(circle(radius, unit)?);
        Ok(radius_at + 1)
    }

    fn parse_options(
        &mut self,
        view: &dyn View,
        set: Option<&SortedSet>,
        mut options: Options<'_>,
        (form, may_store): (Form, bool),
    ) -> Result<(), CommandError> {
        let searches = form == Form::Search;
        while let Some(word) = options.word() {
            let left = options.left();
            match word.as_bytes() {
                b"WITHDIST" => self.with_distance = true,
                b"WITHHASH" => self.with_hash = true,
                b"WITHCOORD" => self.with_coordinates = true,
                b"ANY" => self.any = true,
                b"ASC" => self.order = Some(Direction::Forward),
                b"DESC" => self.order = Some(Direction::Backward),
                b"COUNT" if left > 0 => {
                    let count = u64::try_from(options.int()?).ok().filter(|count| *count > 0);
                    self.count = count.ok_or(CommandError::COUNT_ABOVE_ZERO)?;
                }
                store @ (b"STORE" | b"STOREDIST") if left > 0 && may_store && !searches => {
                    self.store_distances = store == b"STOREDIST";
                    self.store = Some(options.value()?.clone());
                }
                b"STOREDIST" if may_store && searches => self.store_distances = true,
                _ if searches => self.parse_search(view, set, &word, &mut options)?,
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(())
    }

    /// Reads an option that only GEOSEARCH has.
    fn parse_search(
        &mut self,
        view: &dyn View,
        set: Option<&SortedSet>,
        word: &Word,
        options: &mut Options<'_>,
    ) -> Result<(), CommandError> {
        let left = options.left();
        let by_member = self.has_centre && self.centre_is_member;
        let by_place = self.has_centre && !self.centre_is_member;
        match word.as_bytes() {
            b"FROMMEMBER" if left > 0 && !by_place => {
                let name = options.value()?;
                if set.is_some() {
                    self.centre = Some(place_of(view, set, name)?);
                }
                (self.has_centre, self.centre_is_member) = (true, true);
            }
            b"FROMLONLAT" if left > 1 && !by_member => {
                self.centre = Some(point(options.value()?, options.value()?)?);
                self.has_centre = true;
            }
            b"BYRADIUS" if left > 1 && !matches!(self.shape, Some((Shape::Box(..), _))) => {
                self.shape = Some(circle(options.value()?, options.value()?)?);
            }
            b"BYBOX" if left > 2 && !matches!(self.shape, Some((Shape::Circle(_), _))) => {
                let (width, height) = (options.value()?, options.value()?);
                let width = parse_double(width).ok_or(CommandError::GEO_WIDTH)?;
                let height = parse_double(height).ok_or(CommandError::GEO_HEIGHT)?;
                if width < 0.0 || height < 0.0 {
                    return Err(CommandError::GEO_BOX_NEGATIVE);
                }
                let unit_m = unit_m_of(options.value()?)?;
                self.shape = Some((Shape::Box(width, height), unit_m));
            }
            _ => return Err(CommandError::Syntax),
        }
        Ok(())
    }

    /// Refuses what does not go together.
    fn check(&self, form: Form, name: &[u8]) -> Result<(), CommandError> {
        let with = self.with_distance || self.with_hash || self.with_coordinates;
        if self.store.is_some() && with {
            return Err(match form {
                Form::Search => CommandError::GEOSEARCHSTORE_WITH,
                _ => CommandError::GEORADIUS_STORE_WITH,
            });
        }
        if form == Form::Search {
            if !self.has_centre {
                return Err(CommandError::GeoOneCentre(Echo::new(name)));
            }
            if self.shape.is_none() {
                return Err(CommandError::GeoOneShape(Echo::new(name)));
            }
        }
        if self.any && self.count == 0 {
            return Err(CommandError::GEO_ANY);
        }
        Ok(())
    }

    /// What is inside, in the order asked for.
    fn find(&self, view: &dyn View, set: &SortedSet) -> Result<Vec<Found>, CommandError> {
        let (Some(centre), Some((said, unit_m))) = (self.centre, self.shape) else {
            return Err(CommandError::Syntax);
        };
        let shape = match said {
            Shape::Circle(radius) => Shape::Circle(radius * unit_m),
            Shape::Box(width, height) => Shape::Box(width * unit_m, height * unit_m),
        };
        let search = Search { centre, shape, unit_m, said };
        let enough = if self.any { self.count } else { u64::MAX };
        let mut found = Vec::new();
        for scores in search.score_ranges() {
            if found.len() as u64 >= enough {
                break;
            }
            let min = ScoreBound { score: scores.start, excluded: false };
            let max = ScoreBound { score: scores.end, excluded: true };
            let ranks = set.score_ranks(view, (min, max))?;
            set.walk(view, ranks, Direction::Forward, &mut |member| {
                let point = Point::of_score(member.score);
                if let Some(distance_m) = search.distance_m(point) {
                    found.push(Found { member, point, distance_m });
                }
                let done = found.len() as u64 >= enough;
                if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        // The nearest are those that a COUNT means, unless any will do.
        let order = match self.order {
            None if self.count > 0 && !self.any => Some(Direction::Forward),
            order => order,
        };
        let by_distance = |one: &Found, other: &Found| {
            one.distance_m.partial_cmp(&other.distance_m).unwrap_or(std::cmp::Ordering::Equal)
        };
        match order {
            Some(Direction::Forward) => found.sort_by(by_distance),
            Some(Direction::Backward) => found.sort_by(|one, other| by_distance(other, one)),
            None => {}
        }
        if self.count > 0 {
            found.truncate(usize::try_from(self.count).unwrap_or(usize::MAX));
        }
        Ok(found)
    }

    fn unit_m(&self) -> f64 {
        self.shape.map_or(1.0, |(_, unit_m)| unit_m)
    }

    fn answer(&self, found: Vec<Found>) -> Reply {
        let unit_m = self.unit_m();
        let one = |Found { member, point, distance_m }: Found| {
            let mut parts = vec![Reply::Bulk(member.name)];
            if self.with_distance {
                parts.push(distance_reply(distance_m / unit_m));
            }
            if self.with_hash {
                parts.push(Reply::Integer(member.score as i64));
            }
            if self.with_coordinates {
                parts.push(coordinates(point));
            }
            match parts.pop() {
                Some(name) if parts.is_empty() => name,
                last => {
                    parts.extend(last);
                    Reply::Array(parts)
                }
            }
        };
        Reply::Array(found.into_iter().map(one).collect())
    }

    fn store(
        &self,
        txn: &mut Txn<'_>,
        key: &[u8],
        found: Vec<Found>,
        event: &'static str,
    ) -> Result<Reply, CommandError> {
        let unit_m = self.unit_m();
        let scored = found.into_iter().map(|found| match self.store_distances {
            true => Member { score: found.distance_m / unit_m, ..found.member },
            false => found.member,
        });
        Ok(Reply::Integer(replace(txn, key, scored.collect(), event)? as i64))
    }
}

/// A search that only answers.
fn look(view: &dyn View, args: Args<'_>, form: Form) -> Result<Reply, CommandError> {
    let (query, set) = parse(view, args, (form, false))?;
    Ok(match set {
        Some(set) => query.answer(query.find(view, &set)?),
        None => Reply::Array(Vec::new()),
    })
}

/// A search that may store what it finds.
fn look_or_store(txn: &mut Txn<'_>, args: Args<'_>, form: Form) -> Result<Reply, CommandError> {
    let (query, set) = parse(txn, args, (form, true))?;
    let found = match &set {
        Some(set) => query.find(txn, set)?,
        None => Vec::new(),
    };
    match query.store.clone() {
        Some(key) => {
            let event = if form == Form::Search { "geosearchstore" } else { "georadiusstore" };
            query.store(txn, &key, found, event)
        }
        None => Ok(query.answer(found)),
    }
}

/// Reads a search; its sorted set, if there is one.
fn parse(
    view: &dyn View,
    args: Args<'_>,
    (form, may_store): (Form, bool),
) -> Result<(Query, Option<SortedSet>), CommandError> {
    let mut query = Query::new();
    let stores_first = may_store && form == Form::Search;
    let source_at = if stores_first { 2 } else { 1 };
    let set = SortedSet::read(view, args.bytes(source_at)?)?;
    if stores_first {
        query.store = Some(args.bytes(1)?.clone());
    }
    let start = query.parse_start(view, set.as_ref(), args, form)?;
    let options = args.options(source_at + start);
    query.parse_options(view, set.as_ref(), options, (form, may_store))?;
    query.check(form, args.bytes(0)?)?;
    Ok((query, set))
}

fn georadius(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    look_or_store(txn, args, Form::Around)
}

fn georadius_ro(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    look(view, args, Form::Around)
}

fn georadiusbymember(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    look_or_store(txn, args, Form::AroundMember)
}

fn georadiusbymember_ro(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    look(view, args, Form::AroundMember)
}

fn geosearch(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    look(view, args, Form::Search)
}

fn geosearchstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    look_or_store(txn, args, Form::Search)
}

// --- Arguments and replies

fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point, CommandError> {
    let longitude = parse_double(longitude).ok_or(CommandError::NotFloat)?;
    let latitude = parse_double(latitude).ok_or(CommandError::NotFloat)?;
    let point = Point { longitude, latitude };
    if !point.is_valid() {
        return Err(CommandError::InvalidPlace(longitude, latitude));
    }
    Ok(point)
}

fn place_of(view: &dyn View, set: Option<&SortedSet>, name: &[u8]) -> Result<Point, CommandError> {
    let score = set.map_or(Ok(None), |set| set.score(view, name))?;
    score.map(Point::of_score).ok_or(CommandError::GEO_MEMBER)
}

fn circle(radius: &[u8], unit: &[u8]) -> Result<(Shape, f64), CommandError> {
    let radius = parse_double(radius).ok_or(CommandError::GEO_RADIUS)?;
    if radius < 0.0 {
        return Err(CommandError::GEO_RADIUS_NEGATIVE);
    }
    Ok((Shape::Circle(radius), unit_m_of(unit)?))
}

/// Metres in a unit.
fn unit_m_of(unit: &[u8]) -> Result<f64, CommandError> {
    match Word::new(unit).as_bytes() {
        b"M" => Ok(1.0),
        b"KM" => Ok(1000.0),
        b"FT" => Ok(0.3048),
        b"MI" => Ok(1609.34),
        _ => Err(CommandError::GEO_UNIT),
    }
}

/// A distance with four digits behind the point, rounded to the even one in doubt.
fn distance_reply(distance: f64) -> Reply {
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    let (sign, scaled) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    let text = format!("{sign}{}.{:04}", scaled / 10_000, scaled % 10_000);
    Reply::Bulk(Bytes::from(text))
}

fn coordinates(point: Point) -> Reply {
    let degrees = |degrees: f64| {
        // As C prints a long double with 17 digits behind the point, without zeros at the end.
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        Reply::DoubleText(Bytes::copy_from_slice(text.as_bytes()))
    };
    Reply::Array(vec![degrees(point.longitude), degrees(point.latitude)])
}

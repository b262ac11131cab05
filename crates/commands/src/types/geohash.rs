//! Geohashes: a place on earth as one number, whose high bits say roughly where it is.
//!
//! A position is halved and halved again in both directions, and the answers are interleaved, the
//! longitude's above the latitude's; [`STEPS_MAX`] halvings make 52 bits, which a score holds exactly.
//! What lies in one square of a coarser grid has one prefix, and so is one range of scores: a search
//! looks at the square around its centre and the eight around that one.
//!
//! Arithmetic is that of Redis, operation by operation, in doubles: answers are equal to the last
//! digit. The poles cannot be named: latitudes end at the edge of the square map of the world.

use std::ops::Range;

/// Halvings in each direction.
pub(crate) const STEPS_MAX: u32 = 26;
/// Longitudes, in degrees.
pub(crate) const LONGITUDES: (f64, f64) = (-180.0, 180.0);
/// Latitudes, in degrees.
pub(crate) const LATITUDES: (f64, f64) = (-85.051_128_78, 85.051_128_78);

const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Half of the map's side, in metres.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const DEGREE: f64 = std::f64::consts::PI / 180.0;

const EVEN_BITS: u64 = 0x5555_5555_5555_5555;
const ODD_BITS: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// A place, in degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Point {
    pub(crate) longitude: f64,
    pub(crate) latitude: f64,
}

impl Point {
    /// Whether it can be named.
    pub(crate) fn is_valid(self) -> bool {
        let inside = |(low, high): (f64, f64), at: f64| !(at < low || at > high);
        inside(LONGITUDES, self.longitude) && inside(LATITUDES, self.latitude)
    }

    /// The score that stands for it.
    pub(crate) fn score(self) -> f64 {
        Cell::around(self, STEPS_MAX).bits as f64
    }

    /// The place that a score stands for: the middle of its square.
    pub(crate) fn of_score(score: f64) -> Point {
        let area = Cell { bits: to_bits(score), steps: STEPS_MAX }.area();
        let middle = |(low, high): (f64, f64), most: (f64, f64)| {
            let middle = (low + high) / 2.0;
            if middle > most.1 {
                most.1
            } else if middle < most.0 {
                most.0
            } else {
                middle
            }
        };
        Point {
            longitude: middle(area.longitudes, LONGITUDES),
            latitude: middle(area.latitudes, LATITUDES),
        }
    }

    /// The standard geohash: over all latitudes, to the poles, in eleven letters.
    pub(crate) fn text(self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = encode(self, STEPS_MAX, (LONGITUDES, (-90.0, 90.0)));
        // There are 52 bits, and so no more than the first two of the last letter: it is 0.
        let mut text = [ALPHABET[0]; 11];
        for (at, letter) in text[..10].iter_mut().enumerate() {
            *letter = ALPHABET[(bits >> (52 - (at + 1) * 5)) as usize & 0x1f];
        }
        text
    }

    /// The distance to another place along a great circle, in metres.
    pub(crate) fn distance_m(self, other: Point) -> f64 {
        let v = ((other.longitude * DEGREE - self.longitude * DEGREE) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance_m(self.latitude, other.latitude);
        }
        let (here, there) = (self.latitude * DEGREE, other.latitude * DEGREE);
        let u = ((there - here) / 2.0).sin();
        let a = u * u + here.cos() * there.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }
}

fn latitude_distance_m(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_M * (other * DEGREE - one * DEGREE).abs()
}

/// A double as an unsigned number, as the machine's C converts it: scores that GEOADD did not make
/// have a place, too.
fn to_bits(score: f64) -> u64 {
    const HALF: f64 = (1u64 << 63) as f64;
    // What does not fit becomes the lowest number; Rust would saturate.
    let signed = |value: f64| if (-HALF..HALF).contains(&value) { value as i64 } else { i64::MIN };
    if score < HALF { signed(score) as u64 } else { signed(score - HALF) as u64 ^ 1 << 63 }
}

/// The bits of `low` at even positions, those of `high` at odd ones.
fn interleave(low: u32, high: u32) -> u64 {
    let spread = |bits: u32| {
        let mut bits = u64::from(bits);
        bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
        bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
        bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
        (bits | bits << 1) & EVEN_BITS
    };
    spread(low) | spread(high) << 1
}

/// The bits at even positions.
fn even_bits(bits: u64) -> u32 {
    let mut bits = bits & EVEN_BITS;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

fn encode(point: Point, steps: u32, (longitudes, latitudes): ((f64, f64), (f64, f64))) -> u64 {
    let parts = (1u64 << steps) as f64;
    let part = |at: f64, (low, high): (f64, f64)| (at - low) / (high - low) * parts;
    let (latitude, longitude) =
        (part(point.latitude, latitudes), part(point.longitude, longitudes));
    interleave(latitude as u32, longitude as u32)
}

/// A square of a grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    bits: u64,
    steps: u32,
}

/// The degrees from and to which a square reaches.
#[derive(Clone, Copy, Debug)]
struct Area {
    longitudes: (f64, f64),
    latitudes: (f64, f64),
}

impl Cell {
    fn around(point: Point, steps: u32) -> Cell {
        Cell { bits: encode(point, steps, (LONGITUDES, LATITUDES)), steps }
    }

    fn area(self) -> Area {
        let parts = (1u64 << self.steps) as f64;
        let degrees = |at: u32, (low, high): (f64, f64)| {
            let edge = |at: u32| low + f64::from(at) / parts * (high - low);
            (edge(at), edge(at.wrapping_add(1)))
        };
        Area {
            longitudes: degrees(even_bits(self.bits >> 1), LONGITUDES),
            latitudes: degrees(even_bits(self.bits), LATITUDES),
        }
    }

    /// The square so many squares further east and north, round the world's edges.
    fn neighbour(self, east: i32, north: i32) -> Cell {
        let unused = 64 - self.steps * 2;
        let shift = |own: u64, by: i32, mask: u64, between: u64| {
            // Ones between the number's bits carry what is added across them.
            let between = between >> unused;
            let moved = match by {
                0 => return own,
                1.. => own.wrapping_add(between.wrapping_add(1)),
                _ => (own | between).wrapping_sub(between.wrapping_add(1)),
            };
            moved & (mask >> unused)
        };
        let x = shift(self.bits & ODD_BITS, east, ODD_BITS, EVEN_BITS);
        let y = shift(self.bits & EVEN_BITS, north, EVEN_BITS, ODD_BITS);
        Cell { bits: x | y, steps: self.steps }
    }

    /// The scores of the places in it.
    fn scores(self) -> Range<f64> {
        let aligned = |bits: u64| (bits << (2 * (STEPS_MAX - self.steps))) as f64;
        aligned(self.bits)..aligned(self.bits.wrapping_add(1))
    }
}

/// What is searched, in metres.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Shape {
    /// All within a distance.
    Circle(f64),
    /// All within half a width to both sides and half a height to both others.
    Box(f64, f64),
}

/// A search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    pub(crate) centre: Point,
    pub(crate) shape: Shape,
    /// Metres in the unit that the radius, or the sides, were said in.
    pub(crate) unit_m: f64,
    /// The shape in that unit: some arithmetic is done before it is converted.
    pub(crate) said: Shape,
}

impl Search {
    /// The distance of a place from the centre, in metres, if it is inside.
    pub(crate) fn distance_m(&self, point: Point) -> Option<f64> {
        match self.shape {
            Shape::Circle(radius) => {
                let distance = self.centre.distance_m(point);
                if distance > radius { None } else { Some(distance) }
            }
            Shape::Box(width, height) => {
                if latitude_distance_m(point.latitude, self.centre.latitude) > height / 2.0 {
                    return None;
                }
                let beside = Point { latitude: point.latitude, ..self.centre };
                if point.distance_m(beside) > width / 2.0 {
                    return None;
                }
                Some(self.centre.distance_m(point))
            }
        }
    }

    /// The area that everything inside lies in.
    fn bounds(&self) -> Area {
        let (width, height) = match self.said {
            Shape::Circle(radius) => (self.unit_m * radius, self.unit_m * radius),
            Shape::Box(width, height) => {
                (self.unit_m * (width / 2.0), self.unit_m * (height / 2.0))
            }
        };
        let Point { longitude, latitude } = self.centre;
        let degrees = |radians: f64| radians / DEGREE;
        let latitudes = degrees(height / EARTH_RADIUS_M);
        // The edge nearer to a pole is shorter in metres for as many degrees.
        let edge = if latitude < 0.0 { latitude - latitudes } else { latitude + latitudes };
        let longitudes = degrees(width / EARTH_RADIUS_M / (edge * DEGREE).cos());
        Area {
            longitudes: (longitude - longitudes, longitude + longitudes),
            latitudes: (latitude - latitudes, latitude + latitudes),
        }
    }

    /// How fine a grid may be whose nine squares hold everything inside, most of the time.
    fn steps(&self) -> u32 {
        let radius = match self.said {
            Shape::Circle(radius) => radius,
            Shape::Box(width, height) => {
                let (x, y) = (width / 2.0, height / 2.0);
                (x * x + y * y).sqrt()
            }
        };
        let mut reach = radius * self.unit_m;
        if reach == 0.0 {
            return STEPS_MAX;
        }
        let mut steps: i32 = 1;
        while reach < MERCATOR_MAX_M {
            reach *= 2.0;
            steps += 1;
        }
        steps -= 2;
        // Towards the poles the squares are narrower than on the map.
        let latitude = self.centre.latitude.abs();
        steps -= i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        steps.clamp(1, STEPS_MAX as i32) as u32
    }

    /// The ranges of scores, without their ends, that hold everything inside, in the order in which
    /// Redis looks at them.
    pub(crate) fn score_ranges(&self) -> Vec<Range<f64>> {
        let bounds = self.bounds();
        let (west, east) = bounds.longitudes;
        let (south, north) = bounds.latitudes;
        let mut cell = Cell::around(self.centre, self.steps());
        let reaches = |east_by, north_by| cell.neighbour(east_by, north_by).area();
        let too_fine = reaches(0, 1).latitudes.1 < north
            || reaches(0, -1).latitudes.0 > south
            || reaches(1, 0).longitudes.1 < east
            || reaches(-1, 0).longitudes.0 > west;
        if cell.steps > 1 && too_fine {
            cell = Cell::around(self.centre, cell.steps - 1);
        }
        let area = cell.area();
        // A coarse grid goes round the world, so that no side of it is without use.
        let is_needed = |(east_by, north_by): (i32, i32)| {
            let beyond = (north_by < 0 && area.latitudes.0 < south)
                || (north_by > 0 && area.latitudes.1 > north)
                || (east_by < 0 && area.longitudes.0 < west)
                || (east_by > 0 && area.longitudes.1 > east);
            cell.steps < 2 || !beyond
        };
        const AROUND: [(i32, i32); 9] =
            [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut ranges = Vec::new();
        let mut last = None;
        for (at, (east_by, north_by)) in AROUND.into_iter().enumerate() {
            let next = cell.neighbour(east_by, north_by);
            // In a coarse grid a square has the same neighbour on both sides.
            if is_needed((east_by, north_by)) && last != Some(next) {
                ranges.push(next.scores());
                // Redis forgets that the first one was looked at.
                last = (at > 0).then_some(next);
            }
        }
        ranges
    }
}

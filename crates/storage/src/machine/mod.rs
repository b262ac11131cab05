//! What a node stands on: files, time and chance. The system's, or those of a simulation, which has
//! the same code run in virtual time over disks that fail as it likes.

mod disk;
mod extents;
mod ring;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use disk::{BLOCK_BYTES, Blocks, DirectFile, File, Writeback, write_back};
pub use disk::{Disk, FileSystem, Open, OpenFile};
pub(crate) use extents::Extents;
pub(crate) use ring::{PARTS_MAX, Part, Ring};

/// See the module's text. Default: the system's.
#[derive(Clone, Default, Debug)]
pub struct Machine {
    /// Files.
    pub disk: Disk,
    /// Time.
    pub time: Time,
    /// Chance.
    pub chance: Chance,
}

impl Machine {
    /// Whether all of it is made up.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.disk, Disk::Other(_))
    }
}

/// A clock that somebody sets.
pub trait Timekeeper: Send + Sync + Debug {
    /// What every [`Instant`] is counted from: always the same.
    fn origin(&self) -> Instant;
    /// Monotonic microseconds since the origin.
    fn monotonic_us(&self) -> u64;
    /// Milliseconds since the epoch, by the clock on the wall.
    fn wall_ms(&self) -> u64;
}

/// Where a node reads the time.
#[derive(Clone, Default, Debug)]
pub enum Time {
    /// The system's clocks.
    #[default]
    System,
    /// Clocks that somebody sets.
    Virtual(Arc<dyn Timekeeper>),
}

impl Time {
    /// The monotonic time.
    pub(crate) fn instant(&self) -> Instant {
        match self {
            Time::System => Instant::now(),
            Time::Virtual(keeper) => keeper.origin() + Duration::from_micros(keeper.monotonic_us()),
        }
    }

    /// Milliseconds since the epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        match self {
            Time::System => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                wall.unwrap_or(Duration::ZERO).as_millis() as u64
            }
            Time::Virtual(keeper) => keeper.wall_ms(),
        }
    }
}

/// Draws 64 random bits.
pub trait Draw: Send + Sync + Debug {
    /// The next ones.
    fn draw(&self) -> u64;
}

/// Where a node gets what no other may have: names of its lives, salts of its segments.
#[derive(Clone, Default, Debug)]
pub enum Chance {
    /// The system's randomness.
    #[default]
    System,
    /// Numbers that somebody makes.
    Virtual(Arc<dyn Draw>),
}

impl Chance {
    /// 64 random bits.
    pub(crate) fn draw(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        match self {
            // The standard library's hash keys are the system's randomness; no more of it is needed.
            Chance::System => {
                std::collections::hash_map::RandomState::new().build_hasher().finish()
            }
            Chance::Virtual(draw) => draw.draw(),
        }
    }
}

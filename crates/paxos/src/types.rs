//! Names and numbers of consensus.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;

/// A member of groups. At most 2^24 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

/// A position in a group's log. The first entry has index 1; 0 is "nothing".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Index(pub u64);

impl Index {
    /// The index after this one.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

/// Monotonic time in microseconds since an origin of the host's choosing. Never sent as an
/// absolute time: peers only echo it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(pub u64);

/// No host's clock shows this.
pub(crate) const NEVER: Instant = Instant::NEVER;

impl Instant {
    /// No host's clock shows this: the deadline of who has nothing to do.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The time `duration` later.
    pub const fn after(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_micros() as u64))
    }

    /// How long from this time until `later`; zero if it has passed.
    pub const fn until(self, later: Instant) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

/// A leadership number: a round and the node that leads in it, as one ordered number. No two nodes
/// share one, and no node uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// `round << 24 | node`
    pub number: u64,
}

const NODE_BITS: u32 = 24;

impl Ballot {
    /// Below every ballot that a node can have.
    pub const ZERO: Ballot = Ballot { number: 0 };

    /// The ballot of a node in a round.
    ///
    /// *Panics* if the node has more than 24 bits or the round more than 40.
    pub fn new(round: u64, node: NodeId) -> Ballot {
        assert!(node.0 < 1 << NODE_BITS && round < 1 << (64 - NODE_BITS));
        Ballot { number: round << NODE_BITS | u64::from(node.0) }
    }

    /// The ballot with this number.
    pub const fn from_number(number: u64) -> Ballot {
        Ballot { number }
    }

    /// The round.
    pub const fn round(self) -> u64 {
        self.number >> NODE_BITS
    }

    /// The node that leads.
    pub const fn node(self) -> NodeId {
        NodeId((self.number & ((1 << NODE_BITS) - 1)) as u32)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round(), self.node().0)
    }
}

/// What a log entry holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Nothing: fills a gap, or opens a leadership.
    Noop,
    /// The host's bytes.
    Data(Bytes),
    /// An encoded [`Config`].
    Config(Bytes),
}

impl Value {
    /// The value of an entry that a host's log holds with these bytes: the host's data or a
    /// configuration, whose first bytes no host's data may have.
    pub fn from_log(bytes: Bytes) -> Value {
        if Config::is_encoded(&bytes) { Value::Config(bytes) } else { Value::Data(bytes) }
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        match self {
            Value::Noop => 0,
            Value::Data(bytes) | Value::Config(bytes) => bytes.len(),
        }
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Noop => f.write_str("noop"),
            Value::Data(bytes) => write!(f, "{} bytes", bytes.len()),
            Value::Config(bytes) => write!(f, "{:?}", Config::decode(bytes, Index(0))),
        }
    }
}

/// An accepted value: what an acceptor's log holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Where.
    pub index: Index,
    /// In which ballot it was accepted.
    pub ballot: Ballot,
    /// What.
    pub value: Value,
}

/// What the host writes to its log. Records of a group are durable in the order they were made.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    /// No ballot below this one will be obeyed. Must be synced.
    Promise(Ballot),
    /// A value accepted; it also promises its ballot. Must be synced.
    Accept(Entry),
    /// All entries up to here are chosen: a hint that shortens recovery. Needs no sync of its own.
    Chosen(Index),
    /// Entries up to here are not needed any more. Needs no sync of its own.
    Truncate(Index),
    /// As [`Record::Truncate`], of entries that this log never held: others are told that it goes on
    /// behind them. Must be synced.
    Skip(Index),
    /// Who is in the group: the newest of these counts. Must be synced.
    Config(Config),
}

impl Record {
    /// Whether others are told of this record once it is durable, so that it must be synced soon.
    pub const fn must_sync(&self) -> bool {
        !matches!(self, Record::Chosen(_) | Record::Truncate(_))
    }
}

/// What a replica starts from: what its host's log and state machine hold.
#[derive(Clone, Default, Debug)]
pub struct Recovered {
    /// The highest ballot promised or accepted.
    pub promised: Ballot,
    /// The newest [`Record::Chosen`].
    pub chosen: Index,
    /// The state machine holds all entries up to here; see [`crate::Replica::flushable`].
    pub applied: Index,
    /// The newest [`Record::Truncate`] or [`Record::Skip`].
    pub truncated: Index,
    /// Accepted entries above `applied`, the newest readable ballot for each index, ascending.
    pub entries: Vec<Entry>,
    /// What was accepted above `applied` and cannot be read any more: where, and in which ballot.
    /// Peers repair it; until then this replica does not vote as if it had not accepted it.
    pub faulty: Vec<(Index, Ballot)>,
    /// The newest [`Record::Config`], or the one a snapshot was installed with if that is newer;
    /// `None`: as the group began.
    pub config: Option<Config>,
}

/// Time and size limits of a replica.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// How often nodes beat, and a leader tells its followers what they do not know. Default 150 ms.
    pub heartbeat: Duration,
    /// How long a node supports another, and so lets nobody else lead, after it heard it. Default 1 s.
    /// Zero: time stands still, as in a model, and leaders need no leases.
    pub lease: Duration,
    /// By how many percent a node counts on another's support for shorter than that gives it: what two
    /// clocks may drift apart. At least 20. Default 20.
    pub drift_margin_percent: u32,
    /// How long a follower hears nothing before it asks around; up to as much again is added at
    /// random. Default 700 ms.
    pub suspicion: Duration,
    /// How long an accept, a question or a campaign stays unanswered before it is repeated.
    /// Default 300 ms.
    pub resend: Duration,
    /// Entries proposed and not chosen. Default 256.
    pub window_entries: u64,
    /// Bytes proposed and not chosen. Default 32 MiB.
    pub window_bytes: usize,
    /// Bytes of chosen entries kept in memory for members that lag. Default 8 MiB.
    pub keep_bytes: usize,
    /// Bytes of entries in one message: what is more goes in several. Default 1 MiB.
    pub catch_up_bytes: usize,
    /// Bytes of chosen entries that a follower hands out at once, and one entry in any case: what is more
    /// comes with the next message or tick, so that whoever brings a message waits for little of it. Less
    /// than `catch_up_bytes`, and a follower under load would lag for ever. Default 1 MiB.
    pub hand_out_bytes: usize,
    /// Bytes of entries that were handed out and are not durable yet, from which on no more are fetched
    /// from others. Default 16 MiB.
    pub catch_up_ahead_bytes: usize,
    /// Bytes of entries held in memory besides those that are kept, from which on a follower accepts none that is newer than all it
    /// has: it lacks older ones, or its disk does not keep up. Default 256 MiB.
    pub held_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heartbeat: Duration::from_millis(150),
            lease: Duration::from_secs(1),
            drift_margin_percent: 20,
            suspicion: Duration::from_millis(700),
            resend: Duration::from_millis(300),
            window_entries: 256,
            window_bytes: 32 << 20,
            keep_bytes: 8 << 20,
            catch_up_bytes: 1 << 20,
            hand_out_bytes: 1 << 20,
            catch_up_ahead_bytes: 16 << 20,
            held_bytes: 256 << 20,
        }
    }
}

impl Options {
    /// How long a node may count on another's support, from the moment it sent what was answered.
    pub fn leader_lease(&self) -> Duration {
        self.lease * (100 - self.drift_margin_percent) / 100
    }
}

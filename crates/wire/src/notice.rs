//! What storage nodes tell routers unasked: events of keys (Redis's keyspace notifications) and keys
//! that changed (client-side caching).
//!
//! ```text
//! handler ──notes──▶ open batch ──chosen, applied at its leader──▶ Listener: routers, their clients
//! ```
//!
//! Nothing is told of what could still be lost, and whoever wrote is answered after it was told. A
//! node that stops before it has told of a batch does not make up for it: events are lost then, as
//! they are to a subscriber that is away. Of changes nothing may be lost, so a new leader says
//! that anything may have changed.

use std::sync::Arc;

use bytes::Bytes;

use crate::ids::TableId;

/// Kinds of events and of other things to be told, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wanted(pub u32);

#[allow(missing_docs, reason = "each is Redis's class of events of that name")]
impl Wanted {
    pub const NONE: Wanted = Wanted(0);
    pub const GENERIC: Wanted = Wanted(1);
    pub const STRING: Wanted = Wanted(1 << 1);
    pub const LIST: Wanted = Wanted(1 << 2);
    pub const SET: Wanted = Wanted(1 << 3);
    pub const HASH: Wanted = Wanted(1 << 4);
    pub const SORTED_SET: Wanted = Wanted(1 << 5);
    pub const EXPIRED: Wanted = Wanted(1 << 6);
    pub const EVICTED: Wanted = Wanted(1 << 7);
    pub const STREAM: Wanted = Wanted(1 << 8);
    pub const MODULE: Wanted = Wanted(1 << 9);
    pub const KEY_MISS: Wanted = Wanted(1 << 10);
    pub const NEW: Wanted = Wanted(1 << 11);
    /// Not a class of events: the names of keys that change.
    pub const CHANGES: Wanted = Wanted(1 << 16);

    /// Whether all of `other`'s bits are set.
    pub const fn has(self, other: Wanted) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Wanted {
    type Output = Wanted;

    fn bitor(self, other: Wanted) -> Wanted {
        Wanted(self.0 | other.0)
    }
}

/// Something happened to a key, or a script has something published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// An event of a key.
    Event {
        /// What kind of event it is.
        class: Wanted,
        /// Redis's name of it.
        event: &'static str,
        /// The key.
        key: Bytes,
    },
    /// A message of a script, to be published with what the script changed.
    Message {
        /// Whether the channel is a shard channel.
        sharded: bool,
        /// The channel.
        channel: Bytes,
        /// The message.
        text: Bytes,
    },
}

impl Notice {
    /// The name of the event and the key; `None` if it is a message.
    pub fn event(&self) -> Option<(&'static str, &Bytes)> {
        match self {
            Notice::Event { event, key, .. } => Some((event, key)),
            Notice::Message { .. } => None,
        }
    }
}

/// A key changed or ceased to exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// The connection whose command did it; 0 if none did or it is not known.
    pub origin: u64,
}

/// What is told at once, of one table.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct News {
    /// Events and messages, in their order.
    pub notices: Vec<Notice>,
    /// Keys that changed, in their order.
    pub changes: Vec<Change>,
    /// All keys are gone: the table was flushed.
    pub flushed: bool,
    /// There were keys when it was flushed, or it is not known.
    pub had_keys: bool,
    /// A partition has a new leader, which cannot know what the one before it has told: any key of
    /// the table may have changed.
    pub new_leader: bool,
}

impl News {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.changes.is_empty() && !self.flushed && !self.new_leader
    }
}

/// Whom storage nodes tell.
pub trait Listener: Send + Sync + 'static {
    /// What is wanted now. Asked for each command: no more than a load.
    fn wanted(&self) -> Wanted;

    /// Takes news. It is called while the partition is locked, so that news come in the order of
    /// what happened: it must not wait, nor call a storage node.
    fn hear(&self, table: TableId, news: &News);
}

/// A listener among options.
#[derive(Clone)]
pub struct Told(pub Arc<dyn Listener>);

impl Default for Told {
    fn default() -> Told {
        Told(Arc::new(Nobody))
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// Nobody, who wants nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Nobody;

impl Listener for Nobody {
    fn wanted(&self) -> Wanted {
        Wanted::NONE
    }

    fn hear(&self, _: TableId, _: &News) {}
}

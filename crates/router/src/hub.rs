//! Who is told what unasked, across all connections of a router: subscribers, monitors, and those who
//! keep keys in caches of their own.
//!
//! It is made before the router and given to it, so that storage nodes may hold it, too: they tell
//! it what happens to keys ([`Listener`]), under the partition's lock. Nothing here waits or calls a
//! storage node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use wire::ids::TableId;
use wire::notice::{Listener, News, Notice, Wanted};

use crate::databases::Databases;
use crate::monitors::Monitors;
use crate::pubsub::{PubSub, Topic};
use crate::tracking::{Tracker, Tracking};

/// Events are published on the channels of their keys, and on their own.
const KEYSPACE: u32 = 1 << 24;
const KEYEVENT: u32 = 1 << 25;

/// See the module's text.
#[derive(Default, Debug)]
pub struct Hub {
    pub(crate) pubsub: PubSub,
    pub(crate) monitors: Monitors,
    pub(crate) tracking: Tracking,
    /// Which table each database is: events name databases.
    pub(crate) databases: Databases,
    /// Bits of [`Wanted`] and the two above; changed under `changing`.
    wanted: AtomicU32,
    changing: Mutex<()>,
}

impl Hub {
    /// Publishes events of these classes from now on (`notify-keyspace-events`, valid).
    pub(crate) fn set_events(&self, letters: &str) {
        let events = bits_of(letters);
        let _changing = self.changing.lock();
        let changes = self.wanted.load(Relaxed) & Wanted::CHANGES.0;
        self.wanted.store(events | changes, Relaxed);
    }

    /// Begins to tell a connection of keys that change.
    pub(crate) fn start_tracking(&self, tracker: &Arc<Tracker>) {
        let _changing = self.changing.lock();
        self.tracking.add(tracker);
        self.wanted.fetch_or(Wanted::CHANGES.0, Relaxed);
    }

    /// Ends it.
    pub(crate) fn stop_tracking(&self, tracker: &Tracker) {
        let _changing = self.changing.lock();
        self.tracking.remove(tracker);
        if self.tracking.counts()[0] == 0 {
            self.wanted.fetch_and(!Wanted::CHANGES.0, Relaxed);
            // Nothing is heard of from now on, so nothing would take the rows out.
            self.tracking.forget();
        }
    }

    fn publish(&self, table: TableId, event: &[u8], key: &[u8], wanted: u32) {
        let database = self.databases.database(table).0;
        if wanted & KEYSPACE != 0 {
            let channel = [format!("__keyspace@{database}__:").as_bytes(), key].concat();
            self.pubsub.publish(Topic::Channel, &channel, event);
        }
        if wanted & KEYEVENT != 0 {
            let channel = [format!("__keyevent@{database}__:").as_bytes(), event].concat();
            self.pubsub.publish(Topic::Channel, &channel, key);
        }
    }
}

impl Listener for Hub {
    fn wanted(&self) -> Wanted {
        Wanted(self.wanted.load(Relaxed))
    }

    fn hear(&self, table: TableId, news: &News) {
        if table == TableId::SYSTEM {
            // Its keys are no client's.
            return;
        }
        let wanted = self.wanted.load(Relaxed);
        for notice in &news.notices {
            match notice {
                Notice::Event { class, event, key } if wanted & class.0 != 0 => {
                    self.publish(table, event.as_bytes(), key, wanted);
                }
                Notice::Event { .. } => {}
                Notice::Message { sharded, channel, text } => {
                    self.pubsub.publish(Topic::of_message(*sharded), channel, text);
                }
            }
        }
        if wanted & Wanted::CHANGES.0 != 0 {
            self.tracking.changed(&news.changes);
            if news.flushed {
                self.tracking.flushed(news.had_keys);
            }
            if news.new_leader {
                self.tracking.lost_track_of(table);
            }
        }
    }
}

/// The bits of the letters of `notify-keyspace-events`; none if nothing says where events go.
fn bits_of(letters: &str) -> u32 {
    const CLASSES: [(char, Wanted); 12] = [
        ('g', Wanted::GENERIC),
        ('$', Wanted::STRING),
        ('l', Wanted::LIST),
        ('s', Wanted::SET),
        ('h', Wanted::HASH),
        ('z', Wanted::SORTED_SET),
        ('x', Wanted::EXPIRED),
        ('e', Wanted::EVICTED),
        ('t', Wanted::STREAM),
        ('d', Wanted::MODULE),
        ('m', Wanted::KEY_MISS),
        ('n', Wanted::NEW),
    ];
    let has =
        |letter: char, common: bool| letters.contains(letter) || (common && letters.contains('A'));
    let classes = CLASSES
        .iter()
        .filter(|(letter, _)| has(*letter, !matches!(letter, 'm' | 'n')))
        .fold(0, |bits, (_, class)| bits | class.0);
    let mut channels = if has('K', false) { KEYSPACE } else { 0 };
    channels |= if has('E', false) { KEYEVENT } else { 0 };
    if channels == 0 { 0 } else { channels | classes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters() {
        assert_eq!(bits_of(""), 0);
        assert_eq!(bits_of("Ag$"), 0, "nothing says where to");
        assert_eq!(bits_of("K$"), KEYSPACE | Wanted::STRING.0);
        assert_eq!(bits_of("EAn") & Wanted::KEY_MISS.0, 0);
        let all = bits_of("AKEmn");
        assert_eq!(all & KEYEVENT, KEYEVENT);
        assert_eq!((all & 0xfff).count_ones(), 12);
    }
}

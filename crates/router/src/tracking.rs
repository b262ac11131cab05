//! Client-side caching: who may hold which keys in a cache of its own, and telling them when a key
//! changes.
//!
//! ```text
//! read:   connection registers its keys ──▶ leader evaluates ──▶ reply
//! write:  leader evaluates ──▶ chosen ──▶ applied: hear(key) ──▶ the key's row taken out ──▶ pushes
//! ```
//!
//! *Nothing is missed*, because of four orders that must stay so:
//!
//! 1. A key is registered *before* it is read. A write that is heard of in between takes the
//!    registration along, but its push waits in the connection's queue until the reply stands in the
//!    output: the connection puts pushes into its output only between commands, never between a
//!    registration and the reply it was made for. So the client drops what it has just been told.
//! 2. A change is heard of when its batch is applied, under the partition's lock, like every read:
//!    who read before the write was evaluated is registered by then, and who reads after that
//!    reads the new value, for which a push that comes late does no harm.
//! 3. The wish to hear of changes is set before the first read that depends on it.
//! 4. Where all keys are gone, rows are cleared first and the clients told afterwards, so that a
//!    registration that is cleared is one whose client is still going to be told.
//!
//! What a leader that is lost had still to tell is made up for by the next one: whoever has read from
//! the table is told that all has changed, and so is whoever broadcasts: what is cached there others may
//! have read.
//!
//! Keys are tracked by their names alone, whatever table they are in, as in Redis. The table is
//! bounded (`tracking-table-max-keys`): a row that has to go is told like a change.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use bytes::{BufMut, Bytes, BytesMut};
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use wire::ids::TableId;
use wire::notice::Change;

use crate::clients::Client;
use crate::pushes::{Push, put_bulk, put_number};

/// A bit of [`Tracker::read_tables`]: it was never told that all has changed.
const FRESH: u64 = 1 << 63;

/// A table's bit; the last ones share one.
fn bit_of(table: TableId) -> u64 {
    1 << table.0.min(62)
}

/// Keys are spread over so many locks.
const SHARDS: usize = 64;

/// The channel on which connections of RESP2 are told, those of others.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// What CLIENT TRACKING was told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct TrackingOptions {
    /// All keys with certain prefixes are told, whether read or not.
    pub(crate) broadcast: bool,
    /// Only what follows CLIENT CACHING YES is tracked.
    pub(crate) opt_in: bool,
    /// What follows CLIENT CACHING NO is not tracked.
    pub(crate) opt_out: bool,
    /// The connection's own changes are not told.
    pub(crate) no_loop: bool,
}

/// A connection that is told.
#[derive(Debug)]
pub(crate) struct Tracker {
    client: Arc<Client>,
    /// The connection that is told in its stead.
    pub(crate) redirect: Option<Arc<Client>>,
    pub(crate) options: TrackingOptions,
    /// Of keys that are told when broadcasting; in order.
    pub(crate) prefixes: Vec<Bytes>,
    /// That connection is gone.
    is_broken: AtomicBool,
    /// The tables it has read from since it was last told that all has changed, and [`FRESH`].
    read_tables: AtomicU64,
    /// Whether the keys of the command that runs are to be remembered.
    remembers: AtomicBool,
}

impl Tracker {
    pub(crate) fn new(
        client: Arc<Client>,
        redirect: Option<Arc<Client>>,
        options: TrackingOptions,
        prefixes: Vec<Bytes>,
    ) -> Tracker {
        let is_broken = AtomicBool::new(false);
        let read_tables = AtomicU64::new(FRESH);
        let remembers = AtomicBool::new(false);
        Tracker { client, redirect, options, prefixes, is_broken, read_tables, remembers }
    }

    /// Whether the keys of the command that runs are to be remembered.
    pub(crate) fn remembers(&self) -> bool {
        self.remembers.load(Relaxed)
    }

    /// Whether the connection that should be told was found gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Relaxed)
    }

    /// Tells of keys; `None`: of all. A connection of RESP2 that is not redirected cannot be told.
    fn tell(&self, keys: Option<&[&[u8]]>) {
        let redirected = self.redirect.as_ref();
        if redirected.is_some_and(|target| target.is_gone()) {
            self.is_broken.store(true, Relaxed);
            if self.client.protocol.load(Relaxed) == 3 {
                self.client.push(Push::Notice(broken(redirected.map_or(0, |gone| gone.id))));
            }
            return;
        }
        let target = redirected.unwrap_or(&self.client);
        if target.protocol.load(Relaxed) == 3 {
            target.push(Push::Notice(invalidation(&[b"invalidate"], keys, b"_\r\n")));
        } else if redirected.is_some() && target.subscribes() {
            let body = invalidation(&[b"message", CHANNEL], keys, b"$-1\r\n");
            target.push(Push::Message(body));
        }
    }
}

/// An array without its type byte: some words, and an array of keys or the null that stands for all.
fn invalidation(words: &[&[u8]], keys: Option<&[&[u8]]>, null: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    put_number(words.len() + 1, &mut out);
    words.iter().for_each(|word| put_bulk(word, &mut out));
    match keys {
        None => out.put_slice(null),
        Some(keys) => {
            out.put_u8(b'*');
            put_number(keys.len(), &mut out);
            keys.iter().for_each(|key| put_bulk(key, &mut out));
        }
    }
    out.freeze()
}

fn broken(id: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    put_number(2, &mut out);
    put_bulk(b"tracking-redir-broken", &mut out);
    out.put_slice(format!(":{id}\r\n").as_bytes());
    out.freeze()
}

/// Connections of a row that are looked through one by one; of more, there is a set.
const LISTED_MAX: usize = 16;

/// The connections that may hold a key: mostly one or two.
#[derive(Debug)]
enum Ids {
    Listed(SmallVec<[u64; 2]>),
    Set(HashSet<u64, foldhash::fast::RandomState>),
}

impl Ids {
    fn len(&self) -> usize {
        match self {
            Ids::Listed(ids) => ids.len(),
            Ids::Set(ids) => ids.len(),
        }
    }

    /// Adds a connection; whether it was not there. Before a row grows to twice of what it was, those go
    /// that `is_known` does not know any more.
    fn add(&mut self, id: u64, is_known: impl Fn(u64) -> bool) -> Added {
        let mut gone = 0;
        match self {
            Ids::Listed(ids) if ids.contains(&id) => return Added { new: false, gone },
            Ids::Set(ids) if ids.contains(&id) => return Added { new: false, gone },
            Ids::Listed(ids) if ids.len() < LISTED_MAX => {
                ids.push(id);
                return Added { new: true, gone };
            }
            Ids::Listed(ids) => *self = Ids::Set(ids.drain(..).collect()),
            Ids::Set(_) => {}
        }
        if let Ids::Set(ids) = self {
            if ids.len() == ids.capacity() || ids.len() == LISTED_MAX {
                let before = ids.len();
                ids.retain(|id| is_known(*id));
                gone = before - ids.len();
            }
            ids.insert(id);
        }
        Added { new: true, gone }
    }

    fn contains(&self, id: u64) -> bool {
        match self {
            Ids::Listed(ids) => ids.contains(&id),
            Ids::Set(ids) => ids.contains(&id),
        }
    }

    fn each(self, visit: impl FnMut(u64)) {
        match self {
            Ids::Listed(ids) => ids.into_iter().for_each(visit),
            Ids::Set(ids) => ids.into_iter().for_each(visit),
        }
    }
}

/// What became of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Added {
    new: bool,
    /// Connections that went.
    gone: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Tracking {
    trackers: DashMap<u64, Arc<Tracker>>,
    hasher: foldhash::fast::RandomState,
    shards: Vec<Mutex<HashMap<Bytes, Ids>>>,
    /// Rows of all shards, and connections in them.
    keys: AtomicUsize,
    items: AtomicUsize,
    /// Rows at most; 0: as many as come.
    keys_max: AtomicUsize,
    prefixes: RwLock<BTreeMap<Bytes, HashMap<u64, Arc<Tracker>>>>,
}

impl Default for Tracking {
    fn default() -> Tracking {
        Tracking {
            trackers: DashMap::new(),
            hasher: foldhash::fast::RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(0),
            prefixes: RwLock::default(),
        }
    }
}

impl Tracking {
    /// Connections that are told, rows of the table, connections in them, and prefixes.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let prefixes = self.prefixes.read().len();
        [self.trackers.len(), self.keys.load(Relaxed), self.items.load(Relaxed), prefixes]
    }

    /// Begins to tell a connection, or goes on in another way.
    pub(crate) fn add(&self, tracker: &Arc<Tracker>) {
        let id = tracker.client.id;
        let mut prefixes = self.prefixes.write();
        for prefix in &tracker.prefixes {
            prefixes.entry(prefix.clone()).or_default().insert(id, tracker.clone());
        }
        drop(prefixes);
        self.trackers.insert(id, tracker.clone());
    }

    /// Ends it. What the table says of the connection is passed over when it is met.
    pub(crate) fn remove(&self, tracker: &Tracker) {
        let id = tracker.client.id;
        self.trackers.remove(&id);
        let mut prefixes = self.prefixes.write();
        for prefix in &tracker.prefixes {
            if let Some(of_prefix) = prefixes.get_mut(prefix) {
                of_prefix.remove(&id);
                if of_prefix.is_empty() {
                    prefixes.remove(prefix);
                }
            }
        }
    }

    /// Remembers that a connection is about to read a key.
    pub(crate) fn register(&self, key: &[u8], id: u64) {
        let at = self.shard_of(key);
        {
            let mut shard = self.shards[at].lock();
            match shard.get_mut(key) {
                Some(ids) => {
                    let Added { new, gone } = ids.add(id, |id| self.trackers.contains_key(&id));
                    self.items.fetch_sub(gone, Relaxed);
                    if !new {
                        return;
                    }
                }
                None => {
                    // Copied: a slice would keep the whole buffer it was read into.
                    let ids = Ids::Listed(SmallVec::from_slice(&[id]));
                    shard.insert(Bytes::copy_from_slice(key), ids);
                    self.keys.fetch_add(1, Relaxed);
                }
            }
            self.items.fetch_add(1, Relaxed);
        }
        self.evict(at);
    }

    /// Whether a connection is told of the next change of a key.
    fn is_registered(&self, key: &[u8], id: u64) -> bool {
        let shard = self.shards[self.shard_of(key)].lock();
        shard.get(key).is_some_and(|ids| ids.contains(id))
    }

    /// Sets the most rows that are kept.
    pub(crate) fn set_keys_max(&self, keys_max: usize) {
        self.keys_max.store(keys_max, Relaxed);
        self.evict(0);
    }

    /// Lets rows go while there are too many, from this shard on.
    fn evict(&self, from: usize) {
        let keys_max = self.keys_max.load(Relaxed);
        let is_full = || keys_max > 0 && self.keys.load(Relaxed) > keys_max;
        for at in (from..SHARDS).chain(0..from) {
            while is_full() {
                let row = {
                    let mut shard = self.shards[at].lock();
                    let key = shard.keys().next().cloned();
                    key.and_then(|key| shard.remove_entry(&key))
                };
                let Some((key, ids)) = row else { break };
                self.keys.fetch_sub(1, Relaxed);
                self.tell_row(&key, ids, None);
            }
        }
    }

    /// Tells of keys that changed.
    pub(crate) fn changed(&self, changes: &[Change]) {
        for Change { key, origin } in changes {
            let row = self.shards[self.shard_of(key)].lock().remove(key);
            if let Some(ids) = row {
                self.keys.fetch_sub(1, Relaxed);
                self.tell_row(key, ids, Some(*origin));
            }
        }
        let prefixes = self.prefixes.read();
        for (prefix, trackers) in prefixes.iter() {
            let told = |change: &&Change| change.key.starts_with(prefix);
            if !changes.iter().any(|change| told(&change)) {
                continue;
            }
            for tracker in trackers.values() {
                let own =
                    |change: &Change| tracker.options.no_loop && change.origin == tracker.client.id;
                let mut keys: Vec<&[u8]> = changes
                    .iter()
                    .filter(told)
                    .filter(|change| !own(change))
                    .map(|change| &change.key[..])
                    .collect();
                keys.sort_unstable();
                keys.dedup();
                if !keys.is_empty() {
                    tracker.tell(Some(&keys));
                }
            }
        }
    }

    /// Tells the connections of a row that was taken out. `None`: the key has not changed, it is only
    /// not tracked any more.
    fn tell_row(&self, key: &[u8], ids: Ids, origin: Option<u64>) {
        self.items.fetch_sub(ids.len(), Relaxed);
        ids.each(|id| {
            let Some(tracker) = self.trackers.get(&id).map(|tracker| tracker.clone()) else {
                return;
            };
            let is_own = tracker.options.no_loop && origin == Some(id);
            if !is_own && !tracker.options.broadcast {
                tracker.tell(Some(&[key]));
            }
        });
    }

    /// Takes out all rows.
    pub(crate) fn forget(&self) {
        for shard in &self.shards {
            let rows = std::mem::take(&mut *shard.lock());
            self.keys.fetch_sub(rows.len(), Relaxed);
            self.items.fetch_sub(rows.values().map(Ids::len).sum(), Relaxed);
        }
    }

    /// Tells that all keys of a partition are gone; `had_keys`: there were any.
    pub(crate) fn flushed(&self, had_keys: bool) {
        self.forget();
        // FLUSHALL is heard of once for each partition: whoever has cached nothing since need not be
        // told again.
        self.tell_readers(u64::MAX, had_keys);
    }

    /// Tells whoever may hold keys of a table that any of them may have changed. Rows stay: they are those
    /// of other tables, too.
    pub(crate) fn lost_track_of(&self, table: TableId) {
        if table != TableId::SYSTEM {
            self.tell_readers(bit_of(table), true);
        }
    }

    /// Tells those who have read from these tables, and those who broadcast if they are to be told: what
    /// they hold was read by others, of whom nothing is known here.
    fn tell_readers(&self, of_tables: u64, broadcasters: bool) {
        let trackers: Vec<_> = self.trackers.iter().map(|tracker| tracker.clone()).collect();
        for tracker in trackers {
            let has_read = tracker.read_tables.load(SeqCst) & of_tables != 0
                && tracker.read_tables.swap(0, SeqCst) != 0;
            if has_read || (broadcasters && tracker.options.broadcast) {
                tracker.tell(None);
            }
        }
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }
}

/// A connection's own part of it; ends when it is dropped.
pub(crate) struct Tracked {
    hub: Arc<crate::Hub>,
    pub(crate) tracker: Arc<Tracker>,
    /// CLIENT CACHING was given for the next command.
    pub(crate) caching: bool,
    /// Pushes have left since the keys of the command that runs were remembered.
    pub(crate) told_since: bool,
    /// What was run last may have changed keys that the connection itself is told of: what it is told is to
    /// stand behind that reply, as in Redis, so the pipeline goes on when the change is durable.
    pub(crate) hears_itself: bool,
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("caching", &self.caching).finish_non_exhaustive()
    }
}

impl Tracked {
    /// Starts. The client must have a queue of pushes.
    pub(crate) fn start(hub: Arc<crate::Hub>, tracker: Tracker) -> Tracked {
        let tracker = Arc::new(tracker);
        let mut tracked = Tracked {
            hub,
            tracker: tracker.clone(),
            caching: false,
            told_since: false,
            hears_itself: false,
        };
        tracked.go_on(tracker);
        tracked
    }

    /// Goes on in another way; all prefixes so far are among those of `tracker`.
    pub(crate) fn change(&mut self, tracker: Tracker) {
        // What was read before may be cached still.
        let read = self.tracker.read_tables.load(SeqCst);
        tracker.read_tables.fetch_or(read, SeqCst);
        self.go_on(Arc::new(tracker));
    }

    fn go_on(&mut self, tracker: Arc<Tracker>) {
        if let Some(pushes) = tracker.client.pushes() {
            pushes.set_tracker(Some(tracker.clone()));
        }
        self.hub.start_tracking(&tracker);
        self.tracker = tracker;
    }

    /// Remembers keys that are about to be read, if they are to be tracked.
    pub(crate) fn remember<'k>(&mut self, table: TableId, keys: impl Iterator<Item = &'k Bytes>) {
        self.told_since = false;
        let options = &self.tracker.options;
        self.tracker.read_tables.fetch_or(bit_of(table), SeqCst);
        let is_wanted = match (options.opt_in, options.opt_out) {
            (true, _) => self.caching,
            (_, true) => !self.caching,
            _ => !options.broadcast,
        };
        self.tracker.remembers.store(is_wanted, Relaxed);
        if is_wanted {
            keys.for_each(|key| self.hub.tracking.register(key, self.tracker.client.id));
        }
    }

    /// To be called before a command that changes keys; without keys: nobody knows which.
    pub(crate) fn changes<'k>(&mut self, keys: impl ExactSizeIterator<Item = &'k Bytes>) {
        let Tracker { client, redirect, options, prefixes, .. } = &*self.tracker;
        if options.no_loop || redirect.is_some() || client.protocol.load(Relaxed) != 3 {
            return;
        }
        let is_any = keys.len() == 0 || options.broadcast && prefixes.is_empty();
        let is_told = |key: &Bytes| match options.broadcast {
            true => prefixes.iter().any(|prefix| key.starts_with(prefix)),
            false => self.hub.tracking.is_registered(key, client.id),
        };
        self.hears_itself |= is_any || keys.into_iter().any(is_told);
    }

    /// To be called behind the reply of a command that has read keys: if pushes have left while it waited,
    /// one of them may have told of a change before the one that the reply tells of, and no other change
    /// would be told. So the client is told to drop what it has just read.
    pub(crate) fn make_good<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) {
        if self.told_since && self.tracker.remembers() {
            let keys: Vec<&[u8]> = keys.map(|key| &key[..]).collect();
            self.tracker.tell(Some(&keys));
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.hub.stop_tracking(&self.tracker);
        if let Some(pushes) = self.tracker.client.pushes() {
            pushes.set_tracker(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_each_connection_once_and_forgets_who_is_gone() {
        let mut ids = Ids::Listed(SmallVec::from_slice(&[0]));
        for round in 0..2 {
            for id in 1..1_000 {
                let added = ids.add(id, |_| true);
                assert_eq!(added, Added { new: round == 0, gone: 0 });
            }
        }
        assert_eq!(ids.len(), 1_000);
        let mut gone = 0;
        for id in 1_000..4_000 {
            gone += ids.add(id, |id| id % 2 == 0).gone;
        }
        assert!(gone >= 500 && ids.len() == 4_000 - gone, "{gone} of {}", ids.len());
        let mut all = Vec::new();
        ids.each(|id| all.push(id));
        assert!((1_000..4_000).step_by(2).all(|id| all.contains(&id)));
    }
}

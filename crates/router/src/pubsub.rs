//! Who subscribes to what, and the delivery of published messages.
//!
//! *Order.* A message goes to all its receivers under one lock, chosen by the channel: two messages
//! on one channel reach everybody in the same order, those who match a pattern included. Messages on
//! several channels keep the order of their publisher.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use commands::glob;
use parking_lot::{Mutex, RwLock};

use crate::clients::Client;
use crate::pushes::{Push, Pushes, bulks};

/// Channels are spread over so many locks.
const SHARDS: usize = 64;

/// What can be subscribed to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Topic {
    /// A channel.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A shard channel: another space of names, without patterns.
    Shard,
}

impl Topic {
    /// What PUBLISH or SPUBLISH sends to.
    pub(crate) fn of_message(sharded: bool) -> Topic {
        if sharded { Topic::Shard } else { Topic::Channel }
    }
}

/// Receivers by their numbers.
type Receivers = HashMap<u64, Arc<Client>>;

/// All subscriptions of a router's connections.
#[derive(Debug)]
pub(crate) struct PubSub {
    hasher: foldhash::fast::RandomState,
    channels: Channels,
    shard_channels: Channels,
    patterns: RwLock<HashMap<Bytes, Receivers>>,
    /// Patterns with subscribers: publishing where there are none takes no second lock.
    pattern_count: AtomicUsize,
}

/// Channels and their receivers.
#[derive(Debug)]
struct Channels {
    shards: Vec<Mutex<HashMap<Bytes, Receivers>>>,
}

impl Channels {
    fn new() -> Channels {
        Channels { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn matching(&self, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let matching = shard
                .keys()
                .filter(|channel| pattern.is_none_or(|pattern| glob::matches(pattern, channel)));
            found.extend(matching.cloned());
        }
        found
    }
}

impl Default for PubSub {
    fn default() -> PubSub {
        PubSub {
            hasher: foldhash::fast::RandomState::default(),
            channels: Channels::new(),
            shard_channels: Channels::new(),
            patterns: RwLock::default(),
            pattern_count: AtomicUsize::new(0),
        }
    }
}

impl PubSub {
    /// Sends a message to everybody who subscribes; returns how often it was sent.
    pub(crate) fn publish(&self, topic: Topic, channel: &[u8], message: &[u8]) -> usize {
        let shard = self.shard(topic, channel).lock();
        let mut receivers = 0;
        if let Some(subscribed) = shard.get(channel) {
            let word: &[u8] = if topic == Topic::Shard { b"smessage" } else { b"message" };
            receivers += push_to_all(subscribed, || bulks(&[word, channel, message]));
        }
        if topic == Topic::Shard || self.pattern_count.load(Relaxed) == 0 {
            return receivers;
        }
        for (pattern, subscribed) in self.patterns.read().iter() {
            if glob::matches(pattern, channel) {
                let body = || bulks(&[b"pmessage", pattern, channel, message]);
                receivers += push_to_all(subscribed, body);
            }
        }
        receivers
    }

    /// How often a message would be sent now.
    pub(crate) fn receivers(&self, topic: Topic, channel: &[u8]) -> usize {
        let direct = self.subscribers(topic, channel);
        if topic == Topic::Shard || self.pattern_count.load(Relaxed) == 0 {
            return direct;
        }
        let patterns = self.patterns.read();
        let matching = patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
        direct + matching.map(|(_, subscribed)| subscribed.len()).sum::<usize>()
    }

    /// Who would get a message, unless there are more than `most`.
    pub(crate) fn few_receivers(
        &self,
        topic: Topic,
        channel: &[u8],
        most: usize,
    ) -> Vec<Arc<Client>> {
        let mut clients = Vec::new();
        let mut add = |subscribed: &Receivers| {
            clients.extend(subscribed.values().take(most + 1).cloned());
        };
        if let Some(subscribed) = self.shard(topic, channel).lock().get(channel) {
            add(subscribed);
        }
        if topic != Topic::Shard && self.pattern_count.load(Relaxed) > 0 {
            let patterns = self.patterns.read();
            let matching = patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
            matching.take(most).for_each(|(_, subscribed)| add(subscribed));
        }
        if clients.len() > most { Vec::new() } else { clients }
    }

    /// Channels of a topic that have subscribers and match, in no order.
    pub(crate) fn matching(&self, topic: Topic, pattern: Option<&[u8]>) -> Vec<Bytes> {
        self.channels_of(topic).matching(pattern)
    }

    /// How many subscribe to a channel itself.
    pub(crate) fn subscribers(&self, topic: Topic, channel: &[u8]) -> usize {
        self.shard(topic, channel).lock().get(channel).map_or(0, Receivers::len)
    }

    /// Channels or patterns with subscribers.
    pub(crate) fn count(&self, topic: Topic) -> usize {
        match topic {
            Topic::Pattern => self.pattern_count.load(Relaxed),
            Topic::Channel | Topic::Shard => self.channels_of(topic).count(),
        }
    }

    /// Visits each subscription to a topic: what is subscribed to, and who does.
    pub(crate) fn each(&self, topic: Topic, mut visit: impl FnMut(&[u8], &Arc<Client>)) {
        let mut visit_all = |names: &HashMap<Bytes, Receivers>| {
            for (name, receivers) in names {
                receivers.values().for_each(|client| visit(name, client));
            }
        };
        match topic {
            Topic::Pattern => visit_all(&self.patterns.read()),
            Topic::Channel | Topic::Shard => {
                let shards = &self.channels_of(topic).shards;
                shards.iter().for_each(|shard| visit_all(&shard.lock()));
            }
        }
    }

    fn channels_of(&self, topic: Topic) -> &Channels {
        if topic == Topic::Shard { &self.shard_channels } else { &self.channels }
    }

    fn shard(&self, topic: Topic, channel: &[u8]) -> &Mutex<HashMap<Bytes, Receivers>> {
        let at = self.hasher.hash_one(channel) as usize % SHARDS;
        &self.channels_of(topic).shards[at]
    }

    fn add(&self, topic: Topic, name: &Bytes, client: &Arc<Client>) {
        let add_to = |names: &mut HashMap<Bytes, Receivers>| {
            names.entry(name.clone()).or_default().insert(client.id, client.clone());
            names.len()
        };
        match topic {
            Topic::Pattern => {
                let mut patterns = self.patterns.write();
                let count = add_to(&mut patterns);
                self.pattern_count.store(count, Relaxed);
            }
            Topic::Channel | Topic::Shard => {
                add_to(&mut self.shard(topic, name).lock());
            }
        }
    }

    fn remove(&self, topic: Topic, name: &[u8], client: &Client) {
        let remove_from = |names: &mut HashMap<Bytes, Receivers>| {
            if let Some(receivers) = names.get_mut(name) {
                receivers.remove(&client.id);
                if receivers.is_empty() {
                    names.remove(name);
                }
            }
            names.len()
        };
        match topic {
            Topic::Pattern => {
                let mut patterns = self.patterns.write();
                let count = remove_from(&mut patterns);
                self.pattern_count.store(count, Relaxed);
            }
            Topic::Channel | Topic::Shard => {
                remove_from(&mut self.shard(topic, name).lock());
            }
        }
    }
}

fn push_to_all(receivers: &Receivers, body: impl FnOnce() -> Bytes) -> usize {
    let body = body();
    receivers.values().for_each(|client| client.push(Push::Message(body.clone())));
    receivers.len()
}

/// The subscriptions of one connection; they end when this is dropped.
pub(crate) struct Subscriptions {
    hub: Arc<crate::Hub>,
    client: Arc<Client>,
    names: [BTreeSet<Bytes>; 3],
}

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Subscriptions {
    pub(crate) fn new(hub: Arc<crate::Hub>, client: Arc<Client>) -> Subscriptions {
        Subscriptions { hub, client, names: Default::default() }
    }

    /// Subscribes to a name; nothing changes if it was subscribed to.
    pub(crate) fn add(&mut self, topic: Topic, name: &[u8]) {
        // Copied: a slice would keep the whole buffer it was read into.
        let name = Bytes::copy_from_slice(name);
        if self.names[topic as usize].insert(name.clone()) {
            self.hub.pubsub.add(topic, &name, &self.client);
            self.tell(topic);
        }
    }

    /// Ends a subscription, if there is one. No message on it is queued after this returns.
    pub(crate) fn remove(&mut self, topic: Topic, name: &[u8]) {
        if self.names[topic as usize].remove(name) {
            self.hub.pubsub.remove(topic, name, &self.client);
            self.tell(topic);
        }
    }

    /// What is subscribed to of a topic, in order.
    pub(crate) fn names(&self, topic: Topic) -> Vec<Bytes> {
        self.names[topic as usize].iter().cloned().collect()
    }

    /// The number that SUBSCRIBE and its kin answer: channels and patterns are counted together.
    pub(crate) fn count(&self, topic: Topic) -> usize {
        let count = |topic: Topic| self.names[topic as usize].len();
        match topic {
            Topic::Shard => count(Topic::Shard),
            Topic::Channel | Topic::Pattern => count(Topic::Channel) + count(Topic::Pattern),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.iter().all(BTreeSet::is_empty)
    }

    fn tell(&self, topic: Topic) {
        let Some(pushes) = self.client.pushes() else { return };
        count_of(pushes, topic).store(self.names[topic as usize].len() as u32, Relaxed);
    }
}

fn count_of(pushes: &Pushes, topic: Topic) -> &AtomicU32 {
    match topic {
        Topic::Channel => &pushes.channels,
        Topic::Pattern => &pushes.patterns,
        Topic::Shard => &pushes.shard_channels,
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        for topic in [Topic::Channel, Topic::Pattern, Topic::Shard] {
            for name in std::mem::take(&mut self.names[topic as usize]) {
                self.hub.pubsub.remove(topic, &name, &self.client);
            }
            self.tell(topic);
        }
    }
}

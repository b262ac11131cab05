//! The Perkle tree: a Patricia tree that is a Merkle tree, holding the partition maps of all
//! tables.
//!
//! Keys are bit strings of one length ([`RouteKey`]). A Patricia tree branches only at bits where
//! keys differ, so its shape is a function of its content. Here a subtree of at most 64 routes is
//! one packed leaf:
//!
//! ```text
//!                       bit 3                    inner: the first bit at which keys below differ,
//!               0 ┌───────┴──────┐ 1                    the lowest key of the 1-side,
//!               bit 9         [61 routes]               the hash of both sides' hashes
//!          0 ┌────┴────┐ 1                       leaf:  at most 64 routes, in about 16 bytes each
//!      [40 routes] [33 routes]
//! ```
//!
//! The rule "a leaf exactly if at most 64 routes" makes the shape, and with it every hash,
//! independent of the order of changes. So two maps are equal if their roots are, and what differs
//! is found by descending only where hashes differ.
//!
//! A floor lookup compares the key with the 1-side's lowest key at each inner node: no bit tests,
//! no way back. Insertions and removals follow the bits.
//!
//! This is a plain data structure: no lock, no clock, no I/O.

mod diff;
mod iter;
mod leaf;
mod replica_sets;

use leaf::{Entry, LEAF_ENTRIES_MAX, Leaf, content_hash};
use replica_sets::ReplicaSets;
use wire::service::Route;
use xxhash_rust::xxh3::xxh3_64;

pub use diff::Difference;
pub use iter::Routes;

use crate::route::{KEY_BITS, PackedKey, RouteKey, RouteRef};

/// Most routes a [`Summary`] lists one by one.
pub const SUMMARY_ROUTES_MAX: usize = LEAF_ENTRIES_MAX;

/// A node: a position among the leaves or among the inner nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NodeRef(u32);

const LEAF_BIT: u32 = 1 << 31;

enum Node {
    Leaf(usize),
    Inner(usize),
}

impl NodeRef {
    fn leaf(position: usize) -> NodeRef {
        NodeRef(u32::try_from(position).expect("fewer than 2^31 leaves") | LEAF_BIT)
    }

    fn inner(position: usize) -> NodeRef {
        NodeRef(u32::try_from(position).expect("fewer than 2^31 inner nodes"))
    }

    fn node(self) -> Node {
        if self.0 & LEAF_BIT != 0 {
            Node::Leaf((self.0 & !LEAF_BIT) as usize)
        } else {
            Node::Inner(self.0 as usize)
        }
    }
}

/// A branch. More than [`LEAF_ENTRIES_MAX`] routes are below it.
#[derive(Clone, Copy, Debug)]
struct Inner {
    /// The lowest key of the 1-side.
    split: PackedKey,
    sides: [NodeRef; 2],
}

/// What lookups do not need to know of a branch, apart so that more branches fit into the cache.
#[derive(Clone, Copy, Debug)]
struct InnerSum {
    hash: u64,
    /// Routes below.
    count: u32,
    /// The first bit at which keys below differ.
    bit: u8,
}

/// The first bits of a key: names a part of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The lowest key of the part.
    pub first: RouteKey,
    /// How many bits count, at most [`KEY_BITS`].
    pub bits: u8,
}

impl Prefix {
    /// The whole map.
    pub const ALL: Prefix = Prefix { first: RouteKey::MIN, bits: 0 };

    /// The prefix of `bits` bits that `key` has; `None` if a key has fewer bits.
    pub fn of(key: RouteKey, bits: u8) -> Option<Prefix> {
        let dropped = KEY_BITS.checked_sub(u32::from(bits))?;
        Some(Prefix { first: RouteKey::from_number(key.get() >> dropped << dropped), bits })
    }

    /// The highest key of the part.
    pub fn last(&self) -> RouteKey {
        let free = KEY_BITS - u32::from(self.bits);
        RouteKey::from_number(self.first.get() | ((1 << free) - 1))
    }

    fn contains(&self, key: RouteKey) -> bool {
        self.first <= key && key <= self.last()
    }
}

/// What a part of the map holds, in a few words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Summary<'a> {
    /// At most [`SUMMARY_ROUTES_MAX`] routes.
    Routes(Vec<RouteRef<'a>>),
    /// More: the two parts they divide into.
    Parts([PartSummary; 2]),
}

/// Hash and size of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartSummary {
    /// The part.
    pub prefix: Prefix,
    /// Its hash.
    pub hash: u64,
    /// Routes in it.
    pub count: u32,
}

/// A map from first placements to routes.
#[derive(Debug, Default)]
pub struct Perkle {
    root: Option<NodeRef>,
    inners: Vec<Inner>,
    /// Parallel to `inners`.
    sums: Vec<InnerSum>,
    leaves: Vec<Leaf>,
    free_inners: Vec<u32>,
    free_leaves: Vec<u32>,
    sets: ReplicaSets,
}

impl Perkle {
    /// An empty map.
    pub fn new() -> Perkle {
        Perkle::default()
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.root.map_or(0, |root| self.count(root))
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The Merkle root: equal for equal content, whatever happened before; 0 if empty.
    pub fn root_hash(&self) -> u64 {
        self.root.map_or(0, |root| self.hash(root))
    }

    /// The route filed under exactly this key.
    pub fn get(&self, key: RouteKey) -> Option<RouteRef<'_>> {
        self.floor(key).filter(|route| route.key() == key)
    }

    /// The route with the greatest key that is at most `key`, of whatever table. To route a
    /// command, check that the route's range contains the placement: there may be gaps.
    pub fn floor(&self, key: RouteKey) -> Option<RouteRef<'_>> {
        let leaf = &self.leaves[self.leaf_for(key, |_| {})?];
        let index = leaf.count_up_to(key).checked_sub(1)?;
        Some(leaf.entry(index).resolve(&self.sets))
    }

    /// [`Perkle::floor`] of each key, in order, given to `found`. For many keys it is faster: a
    /// single lookup mostly waits for memory, so several descend side by side.
    pub fn floor_each<'a>(
        &'a self,
        keys: &[RouteKey],
        mut found: impl FnMut(RouteKey, Option<RouteRef<'a>>),
    ) {
        /// As many waits for memory as a core keeps open at once, roughly.
        const SIDE_BY_SIDE: usize = 16;
        let Some(root) = self.root else {
            return keys.iter().for_each(|key| found(*key, None));
        };
        for group in keys.chunks(SIDE_BY_SIDE) {
            let mut nodes = [root; SIDE_BY_SIDE];
            loop {
                let mut inner = false;
                for (node, key) in nodes.iter_mut().zip(group) {
                    if let Node::Inner(position) = node.node() {
                        let Inner { split, sides } = self.inners[position];
                        *node = sides[usize::from(*key >= split.into())];
                        inner = true;
                    }
                }
                if !inner {
                    break;
                }
            }
            // Three rounds, each of which only asks memory for what the next one needs: the waits of
            // one round overlap, those of a chain of dependent loads could not.
            let mut touched = 0;
            for node in &nodes[..group.len()] {
                touched ^= self.leaf_at(*node).touch_keys();
            }
            let mut counts = [0; SIDE_BY_SIDE];
            for ((node, key), count) in nodes.iter().zip(group).zip(&mut counts) {
                let leaf = self.leaf_at(*node);
                *count = leaf.count_up_to(*key);
                touched ^= leaf.touch_row(count.saturating_sub(1));
            }
            std::hint::black_box(touched);
            for ((node, key), count) in nodes.iter().zip(group).zip(&counts) {
                let index = count.checked_sub(1);
                let entry = index.map(|index| self.leaf_at(*node).entry(index));
                found(*key, entry.map(|entry| entry.resolve(&self.sets)));
            }
        }
    }

    /// The route with the smallest key that is at least `key`, of whatever table.
    pub fn ceiling(&self, key: RouteKey) -> Option<RouteRef<'_>> {
        self.range(key, RouteKey::MAX).next()
    }

    /// All routes from `first` to `last`, both included, in order.
    pub fn range(&self, first: RouteKey, last: RouteKey) -> Routes<'_> {
        Routes::new(self, first, last)
    }

    /// All routes whose keys begin with a prefix, in order.
    pub fn prefix(&self, prefix: Prefix) -> Routes<'_> {
        self.range(prefix.first, prefix.last())
    }

    /// Files a route under its first placement, in place of what was there. True if something was.
    pub fn insert(&mut self, route: &Route) -> bool {
        let entry = self.unresolved(route);
        let Some(root) = self.root else {
            self.root = Some(self.add_leaf(&[entry]));
            return false;
        };
        let before = self.count(root);
        let root = self.insert_below(root, entry);
        self.root = Some(root);
        self.count(root) == before
    }

    /// Removes the route filed under exactly this key. True if there was one.
    pub fn remove(&mut self, key: RouteKey) -> bool {
        let Some(root) = self.root else { return false };
        if self.get(key).is_none() {
            return false;
        }
        self.root = self.remove_below(root, key);
        true
    }

    /// Hash and size of a part of the map. The hash is the one a map of just these routes has.
    pub fn part(&self, prefix: Prefix) -> PartSummary {
        let (hash, count) = match self.below(prefix) {
            Part::Empty => (0, 0),
            Part::Node(node) => (self.hash(node), self.count(node)),
            Part::Entries(entries) => (content_hash(&entries, &self.sets), entries.len()),
        };
        PartSummary { prefix, hash, count: count as u32 }
    }

    /// What a part of the map holds: its routes if they are few, else the parts it divides into.
    pub fn summary(&self, prefix: Prefix) -> Summary<'_> {
        if let Part::Node(node) = self.below(prefix)
            && let Node::Inner(position) = node.node()
        {
            let Inner { split, sides } = self.inners[position];
            let (split, bit) = (RouteKey::from(split), self.sums[position].bit);
            let one = Prefix::of(split, bit + 1).expect("a bit of a key");
            let zero_key =
                RouteKey::from_number(one.first.get() & !(1 << (KEY_BITS - 1 - u32::from(bit))));
            let zero = Prefix { first: zero_key, bits: bit + 1 };
            return Summary::Parts([(zero, sides[0]), (one, sides[1])].map(|(prefix, side)| {
                PartSummary { prefix, hash: self.hash(side), count: self.count(side) as u32 }
            }));
        }
        Summary::Routes(self.prefix(prefix).collect())
    }

    /// Bytes allocated for everything: inner nodes, leaves, replica sets, spare room.
    pub fn memory_bytes(&self) -> usize {
        self.inners.capacity() * size_of::<Inner>()
            + self.sums.capacity() * size_of::<InnerSum>()
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.leaves.iter().map(Leaf::memory_bytes).sum::<usize>()
            + (self.free_inners.capacity() + self.free_leaves.capacity()) * size_of::<u32>()
            + self.sets.memory_bytes()
    }

    fn count(&self, node: NodeRef) -> usize {
        match node.node() {
            Node::Leaf(position) => self.leaves[position].len(),
            Node::Inner(position) => self.sums[position].count as usize,
        }
    }

    fn hash(&self, node: NodeRef) -> u64 {
        match node.node() {
            Node::Leaf(position) => self.leaves[position].hash,
            Node::Inner(position) => self.sums[position].hash,
        }
    }

    /// The leaf that a descent ended at.
    fn leaf_at(&self, node: NodeRef) -> &Leaf {
        match node.node() {
            Node::Leaf(position) => &self.leaves[position],
            Node::Inner(_) => unreachable!("a descent ends at a leaf"),
        }
    }

    /// The first bit at which keys below an inner node differ.
    fn bit(&self, position: usize) -> u32 {
        u32::from(self.sums[position].bit)
    }

    fn first_key(&self, mut node: NodeRef) -> RouteKey {
        loop {
            match node.node() {
                Node::Leaf(position) => return self.leaves[position].first_key(),
                Node::Inner(position) => node = self.inners[position].sides[0],
            }
        }
    }

    /// The leaf that holds the floor of `key`, if there is one. Tells `passed` of each 1-side that
    /// lies beyond the key, from the highest to the lowest.
    fn leaf_for(&self, key: RouteKey, mut passed: impl FnMut(NodeRef)) -> Option<usize> {
        let mut node = self.root?;
        loop {
            match node.node() {
                Node::Leaf(position) => return Some(position),
                Node::Inner(position) => {
                    let inner = &self.inners[position];
                    let one = key >= inner.split.into();
                    if !one {
                        passed(inner.sides[1]);
                    }
                    node = inner.sides[usize::from(one)];
                }
            }
        }
    }

    /// Finds what lies below a prefix.
    fn below(&self, prefix: Prefix) -> Part {
        let Some(mut node) = self.root else { return Part::Empty };
        loop {
            match node.node() {
                Node::Leaf(position) => {
                    let entries = self.leaves[position].entries();
                    let entries: Vec<Entry> =
                        entries.filter(|entry| prefix.contains(entry.key)).collect();
                    return if entries.is_empty() { Part::Empty } else { Part::Entries(entries) };
                }
                Node::Inner(position) => {
                    let inner = &self.inners[position];
                    let shared = RouteKey::from(inner.split).first_difference(prefix.first);
                    let bit = self.bit(position);
                    if u32::from(prefix.bits) <= bit {
                        let below = shared >= u32::from(prefix.bits);
                        return if below { Part::Node(node) } else { Part::Empty };
                    }
                    if shared < bit {
                        return Part::Empty;
                    }
                    node = inner.sides[usize::from(prefix.first.bit(bit))];
                }
            }
        }
    }

    fn unresolved(&mut self, route: &Route) -> Entry {
        let (set, leader) = self.sets.acquire(&route.members, route.leader);
        Entry {
            key: RouteRef::from(route).key(),
            last: route.range.last,
            partition: route.partition.0,
            epoch: route.version.epoch,
            ballot: route.version.ballot,
            set,
            leader,
        }
    }

    fn insert_below(&mut self, node: NodeRef, entry: Entry) -> NodeRef {
        match node.node() {
            Node::Leaf(position) => {
                let mut entries: Vec<Entry> = self.leaves[position].entries().collect();
                match entries.binary_search_by_key(&entry.key, |entry| entry.key) {
                    Ok(index) => {
                        self.sets.release(entries[index].set);
                        entries[index] = entry;
                    }
                    Err(index) => entries.insert(index, entry),
                }
                self.rebuild(node, &entries)
            }
            Node::Inner(position) => {
                let Inner { split, sides } = self.inners[position];
                let bit = self.bit(position);
                let difference = entry.key.first_difference(split.into());
                if difference < bit {
                    // Beside all that is below: a branch above this one.
                    let other = self.add_leaf(&[entry]);
                    let one = entry.key.bit(difference);
                    return self
                        .add_inner(difference, if one { [node, other] } else { [other, node] });
                }
                let side = usize::from(entry.key.bit(bit));
                let changed = self.insert_below(sides[side], entry);
                self.replace_side(position, side, changed);
                node
            }
        }
    }

    /// Removes a key that is there.
    fn remove_below(&mut self, node: NodeRef, key: RouteKey) -> Option<NodeRef> {
        match node.node() {
            Node::Leaf(position) => {
                let mut entries: Vec<Entry> = self.leaves[position].entries().collect();
                if let Ok(index) = entries.binary_search_by_key(&key, |entry| entry.key) {
                    self.sets.release(entries.remove(index).set);
                }
                if entries.is_empty() {
                    self.drop_leaf(position);
                    return None;
                }
                Some(self.rebuild(node, &entries))
            }
            Node::Inner(position) => {
                let sides = self.inners[position].sides;
                let side = usize::from(key.bit(self.bit(position)));
                let Some(changed) = self.remove_below(sides[side], key) else {
                    self.drop_inner(position);
                    return Some(sides[1 - side]);
                };
                self.replace_side(position, side, changed);
                if self.count(node) <= LEAF_ENTRIES_MAX {
                    return Some(self.collapse(position));
                }
                Some(node)
            }
        }
    }
}

/// What lies below a prefix.
enum Part {
    Empty,
    /// All that is below this node and nothing else.
    Node(NodeRef),
    /// Some of a leaf.
    Entries(Vec<Entry>),
}

/// Nodes come and go; their positions stay. The shape follows from the content alone.
impl Perkle {
    /// Puts these entries, which are all that is below `leaf` now, in its place.
    fn rebuild(&mut self, leaf: NodeRef, entries: &[Entry]) -> NodeRef {
        let Node::Leaf(position) = leaf.node() else {
            unreachable!("only leaves are rebuilt");
        };
        if entries.len() <= LEAF_ENTRIES_MAX {
            self.leaves[position] = Leaf::pack(entries, &self.sets);
            return leaf;
        }
        self.drop_leaf(position);
        self.build(entries)
    }

    /// Makes the tree of at least one entry in ascending order of keys.
    fn build(&mut self, entries: &[Entry]) -> NodeRef {
        if entries.len() <= LEAF_ENTRIES_MAX {
            return self.add_leaf(entries);
        }
        let bit = entries[0].key.first_difference(entries[entries.len() - 1].key);
        let (zero, one) = entries.split_at(entries.partition_point(|entry| !entry.key.bit(bit)));
        let sides = [self.build(zero), self.build(one)];
        self.add_inner(bit, sides)
    }

    fn add_leaf(&mut self, entries: &[Entry]) -> NodeRef {
        let leaf = Leaf::pack(entries, &self.sets);
        let position = match self.free_leaves.pop() {
            Some(position) => {
                self.leaves[position as usize] = leaf;
                position as usize
            }
            None => {
                push_frugally(&mut self.leaves, leaf);
                self.leaves.len() - 1
            }
        };
        NodeRef::leaf(position)
    }

    fn drop_leaf(&mut self, position: usize) {
        self.leaves[position] = Leaf::vacant();
        self.free_leaves.push(position as u32);
    }

    fn add_inner(&mut self, bit: u32, sides: [NodeRef; 2]) -> NodeRef {
        let split = self.first_key(sides[1]);
        let inner = Inner { split: split.into(), sides };
        let sum = InnerSum { hash: 0, count: 0, bit: bit as u8 };
        let position = match self.free_inners.pop() {
            Some(position) => position as usize,
            None => {
                push_frugally(&mut self.inners, inner);
                push_frugally(&mut self.sums, sum);
                self.inners.len() - 1
            }
        };
        self.inners[position] = inner;
        self.sums[position] = sum;
        self.sum_up(position);
        NodeRef::inner(position)
    }

    fn drop_inner(&mut self, position: usize) {
        self.free_inners.push(position as u32);
    }

    /// Notes that one side of an inner node is another now.
    fn replace_side(&mut self, position: usize, side: usize, changed: NodeRef) {
        self.inners[position].sides[side] = changed;
        if side == 1 {
            self.inners[position].split = self.first_key(changed).into();
        }
        self.sum_up(position);
    }

    fn sum_up(&mut self, position: usize) {
        let [zero, one] = self.inners[position].sides;
        let mut hashes = [0; 16];
        hashes[..8].copy_from_slice(&self.hash(zero).to_le_bytes());
        hashes[8..].copy_from_slice(&self.hash(one).to_le_bytes());
        let count = (self.count(zero) + self.count(one)) as u32;
        self.sums[position] = InnerSum { hash: xxh3_64(&hashes), count, ..self.sums[position] };
    }

    /// Makes an inner node with few routes below a leaf.
    fn collapse(&mut self, position: usize) -> NodeRef {
        let mut entries = Vec::with_capacity(LEAF_ENTRIES_MAX);
        for side in self.inners[position].sides {
            let Node::Leaf(leaf) = side.node() else {
                unreachable!("an inner node holds more than a leaf could");
            };
            entries.extend(self.leaves[leaf].entries());
            self.drop_leaf(leaf);
        }
        self.drop_inner(position);
        self.add_leaf(&entries)
    }
}

/// Pushes; grows by an eighth instead of to the double, which would be memory for nothing.
fn push_frugally<T>(items: &mut Vec<T>, item: T) {
    if items.len() == items.capacity() {
        items.reserve_exact(items.len() / 8 + 16);
    }
    items.push(item);
}

impl FromIterator<Route> for Perkle {
    /// Builds a map at once; of several routes with one key the last one counts.
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Perkle {
        let mut map = Perkle::new();
        let mut entries: Vec<Entry> =
            routes.into_iter().map(|route| map.unresolved(&route)).collect();
        entries.sort_by_key(|entry| entry.key);
        let mut unique: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            match unique.last_mut().filter(|last| last.key == entry.key) {
                Some(last) => map.sets.release(std::mem::replace(last, entry).set),
                None => unique.push(entry),
            }
        }
        if !unique.is_empty() {
            map.root = Some(map.build(&unique));
        }
        map.inners.shrink_to_fit();
        map.sums.shrink_to_fit();
        map.leaves.shrink_to_fit();
        map
    }
}

#[cfg(test)]
mod tests;

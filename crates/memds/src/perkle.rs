//! The Perkle tree: a Patricia trie that is also a Merkle tree.
//!
//! Keys are 72 bits, `table | first placement`; a value is a route. An inner node names the first
//! bit in which the keys below it differ, so bits that all of them share cost nothing. Where at most
//! 128 keys are left the trie ends in a packed page ([`crate::page`]).
//!
//! ```text
//!                 bit 31                     keys below agree in bits 0..31
//!                /      \
//!           bit 40      page                 a page holds what shares its parent's prefix,
//!          /      \                          if that is at most 128 keys
//!        page    page
//! ```
//!
//! *Shape.* A subtree is a page exactly if it has at most 128 keys. The tree, and with it every
//! hash, is therefore a function of its entries alone, whatever the order in which they came.
//!
//! *Hashes.* A page hashes its entries, an inner node its bit and its children. Two trees are
//! compared from the root down, and only where hashes differ. The hash is xxh3, 64 bits: it guards
//! against loss and delay among nodes that trust each other, not against an adversary.
//!
//! *Lookup.* The descent looks at one bit per inner node and compares no prefixes: 12 bytes per
//! node, apart from hashes and counts. The page reached shows whether a skipped bit differed; in a
//! map without holes it hardly ever does, and only then is the way walked again.

mod compare;

use std::ops::RangeInclusive;

use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};
use xxhash_rust::xxh3::xxh3_64;

pub use self::compare::Difference;
pub(crate) use self::compare::{Parts, REGION_PARTS_MAX};
use crate::groups::Groups;
use crate::page::{Entry, PAGE_ENTRIES_MAX, Page, hash_of_entries};
use crate::region::{KEY_BITS, Key, Region, Summary, key, key_parts};

/// An entry, seen in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteRef<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The placements it is found for.
    pub range: PlacementRange,
    /// How new it is.
    pub version: RouteVersion,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The storage replicas.
    pub members: &'a [NodeId],
}

impl RouteRef<'_> {
    /// A copy.
    pub fn to_route(self) -> Route {
        let RouteRef { partition, range, version, leader, members } = self;
        Route { partition, range, version, leader, members: members.to_vec() }
    }
}

/// Bytes a tree takes on the heap, allocator overhead left out.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Inner nodes with their hashes and counts, and the list of pages.
    pub nodes: usize,
    /// Pages: keys, ranges, partitions, versions and the positions of replica sets.
    pub pages: usize,
    /// Replica sets with their leaders.
    pub groups: usize,
    /// How many different ones there are.
    pub group_count: usize,
}

impl Footprint {
    /// All of it.
    pub fn bytes(&self) -> usize {
        self.nodes + self.pages + self.groups
    }
}

/// A map from (table, first placement) to routes.
#[derive(Default)]
pub struct Perkle {
    root: Option<Link>,
    inner: Vec<Inner>,
    /// For each inner node what is below it. Apart, so that lookups do not load it.
    summaries: Vec<Summary>,
    pages: Vec<Option<Page>>,
    free_inner: Vec<u32>,
    free_pages: Vec<u32>,
    groups: Groups,
}

/// A subtree: the position of an inner node, or with the highest bit set, that of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link(u32);

/// A branch in the key's bit `bit`.
#[derive(Clone, Copy)]
struct Inner {
    children: [Link; 2],
    bit: u8,
}

/// What a link leads to.
enum Node<'a> {
    Inner(&'a Inner),
    Page(&'a Page),
}

/// An inner node on the way down, and the side taken.
type Step = (u32, usize);

const PAGE: u32 = 1 << 31;

impl Link {
    fn page(self) -> Option<usize> {
        (self.0 & PAGE != 0).then_some((self.0 & !PAGE) as usize)
    }
}

impl Perkle {
    /// An empty tree.
    pub fn new() -> Perkle {
        Perkle::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.root.map_or(0, |root| self.summary_of(root).entries as usize)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The Merkle root: equal for equal entries and, but for a chance of 2^-64, for no others.
    pub fn merkle_root(&self) -> u64 {
        self.root.map_or(0, |root| self.summary_of(root).hash)
    }

    /// Puts a route under the start of its range. The route that was there, if any.
    pub fn insert(&mut self, route: &Route) -> Option<Route> {
        let entry = Entry {
            key: key(route.range.table, route.range.first),
            length: route.range.last.get().saturating_sub(route.range.first.get()),
            partition: route.partition.0,
            epoch: route.version.epoch,
            ballot: route.version.ballot,
            group: self.groups.acquire(route.leader, &route.members),
        };
        let Some(root) = self.root else {
            self.root = Some(self.add_page(&[entry]));
            return None;
        };
        let mut path = Vec::with_capacity(40);
        let reached = self.descend(root, entry.key, |step| path.push(step));
        let page = self.page(reached);
        let differs = first_difference(entry.key, page.first_key());
        let branch = path.iter().position(|&(inner, _)| self.inner[inner as usize].bit > differs);
        if let Some(branch) = branch {
            // A bit that all below this node share is another in the new key.
            let below = self.link_at(&path[..branch]);
            let new = self.add_page(&[entry]);
            let joined = self.add_inner(differs, entry.key, new, below);
            self.relink(&path[..branch], joined);
            self.refresh(&path[..branch]);
            return None;
        }
        let mut entries: Vec<Entry> = page.entries().collect();
        let old = match entries.binary_search_by_key(&entry.key, |entry| entry.key) {
            Ok(at) => Some(std::mem::replace(&mut entries[at], entry)),
            Err(at) => {
                entries.insert(at, entry);
                None
            }
        };
        let old = old.map(|old| self.take(old));
        self.remove_page(reached);
        let new = self.add_subtree(&entries);
        self.relink(&path, new);
        self.refresh(&path);
        old
    }

    /// Removes and returns the route under this key.
    pub fn remove(&mut self, table: TableId, first: Placement) -> Option<Route> {
        let key = key(table, first);
        let mut path = Vec::with_capacity(40);
        let reached = self.descend(self.root?, key, |step| path.push(step));
        let mut entries: Vec<Entry> = self.page(reached).entries().collect();
        let at = entries.binary_search_by_key(&key, |entry| entry.key).ok()?;
        let old = entries.remove(at);
        let few = |&(inner, _): &Step| {
            self.summaries[inner as usize].entries as usize <= PAGE_ENTRIES_MAX + 1
        };
        if let Some(top) = path.iter().position(few) {
            // What is left below this node fits a page.
            let link = self.link_at(&path[..top]);
            let mut entries = Vec::with_capacity(PAGE_ENTRIES_MAX);
            self.dissolve(link, &mut entries);
            entries.retain(|entry| entry.key != key);
            let page = self.add_page(&entries);
            path.truncate(top);
            self.relink(&path, page);
        } else {
            self.remove_page(reached);
            if !entries.is_empty() {
                let page = self.add_page(&entries);
                self.relink(&path, page);
            } else if let Some((parent, side)) = path.pop() {
                let sibling = self.inner[parent as usize].children[1 - side];
                self.free_inner.push(parent);
                self.relink(&path, sibling);
            } else {
                self.root = None;
            }
        }
        self.refresh(&path);
        Some(self.take(old))
    }

    /// The route under exactly this key.
    pub fn get(&self, table: TableId, first: Placement) -> Option<RouteRef<'_>> {
        self.floor(table, first)
            .filter(|route| (route.range.table, route.range.first) == (table, first))
    }

    /// The route with the greatest key that is at most this one; of another table if this table
    /// has none.
    pub fn floor(&self, table: TableId, placement: Placement) -> Option<RouteRef<'_>> {
        let key = key(table, placement);
        let mut last_bit = 0;
        let reached = self.descend(self.root?, key, |(inner, _)| {
            last_bit = self.inner[inner as usize].bit;
        });
        let page = self.page(reached);
        let differs = first_difference(key, page.first_key());
        if differs >= last_bit {
            let rank = page.rank(key);
            if rank > 0 {
                return Some(self.view(page.entry(rank - 1)));
            }
        }
        let last = self.last_before(key, differs)?;
        Some(self.view(last))
    }

    /// The route with the least key that is at least this one.
    pub fn ceiling(&self, table: TableId, placement: Placement) -> Option<RouteRef<'_>> {
        self.iter_keys(key(table, placement)..=Key::MAX).next()
    }

    /// The routes of a table whose ranges start in `starts`, in order.
    pub fn range(
        &self,
        table: TableId,
        starts: RangeInclusive<Placement>,
    ) -> impl Iterator<Item = RouteRef<'_>> {
        self.iter_keys(key(table, *starts.start())..=key(table, *starts.end()))
    }

    /// The routes whose keys begin with the first `bits` bits of this key, in order.
    ///
    /// *Panics*: if `bits` is more than a key has, 72.
    pub fn prefix(
        &self,
        table: TableId,
        placement: Placement,
        bits: u8,
    ) -> impl Iterator<Item = RouteRef<'_>> {
        assert!(bits <= KEY_BITS, "a key has 72 bits");
        let region = Region::new(table, placement, bits);
        self.iter_keys(region.first()..=region.last())
    }

    /// All routes, in order.
    pub fn iter(&self) -> impl Iterator<Item = RouteRef<'_>> {
        self.iter_keys(0..=Key::MAX)
    }

    /// What the tree takes.
    pub fn footprint(&self) -> Footprint {
        let frees = (self.free_inner.capacity() + self.free_pages.capacity()) * size_of::<u32>();
        let nodes = self.inner.capacity() * size_of::<Inner>()
            + self.summaries.capacity() * size_of::<Summary>()
            + self.pages.capacity() * size_of::<Option<Page>>();
        Footprint {
            nodes: nodes + frees,
            pages: self.pages.iter().flatten().map(Page::heap_bytes).sum(),
            groups: self.groups.heap_bytes(),
            group_count: self.groups.len(),
        }
    }
}

/// Reading.
impl Perkle {
    fn node(&self, link: Link) -> Node<'_> {
        match link.page() {
            Some(_) => Node::Page(self.page(link)),
            None => Node::Inner(&self.inner[link.0 as usize]),
        }
    }

    fn page(&self, link: Link) -> &Page {
        let at = link.page().expect("the link of a page");
        self.pages[at].as_ref().expect("linked pages exist")
    }

    fn summary_of(&self, link: Link) -> Summary {
        match self.node(link) {
            Node::Inner(_) => self.summaries[link.0 as usize],
            Node::Page(page) => Summary { hash: page.hash(), entries: page.len() as u32 },
        }
    }

    fn view(&self, entry: Entry) -> RouteRef<'_> {
        let (table, first) = key_parts(entry.key);
        let last = Placement::new(first.get() + entry.length).unwrap_or(Placement::MAX);
        let group = self.groups.get(entry.group);
        RouteRef {
            partition: PartitionId(entry.partition),
            range: PlacementRange { table, first, last },
            version: RouteVersion { epoch: entry.epoch, ballot: entry.ballot },
            leader: group.leader,
            members: &group.members,
        }
    }

    /// The page where the key's bits lead, and the steps to it.
    fn descend(&self, from: Link, key: Key, mut step: impl FnMut(Step)) -> Link {
        let mut link = from;
        while link.page().is_none() {
            let inner = &self.inner[link.0 as usize];
            let side = bit_of(key, inner.bit);
            step((link.0, side));
            link = inner.children[side];
        }
        link
    }

    fn any_key(&self, link: Link) -> Key {
        self.page(self.descend(link, 0, |_| ())).first_key()
    }

    /// The greatest entry below the key, which is in no page or before all of its page; `differs`
    /// is its first bit that the keys it met do not have.
    fn last_before(&self, key: Key, differs: u8) -> Option<Entry> {
        let mut link = self.root?;
        let mut left = None;
        while let Node::Inner(inner) = self.node(link)
            && inner.bit < differs
        {
            let side = bit_of(key, inner.bit);
            if side == 1 {
                left = Some(inner.children[0]);
            }
            link = inner.children[side];
        }
        let first = self.any_key(link);
        let nearest = if first < key { Some(link) } else { left };
        let page = self.page(self.descend(nearest?, Key::MAX, |_| ()));
        Some(page.entry(page.len() - 1))
    }

    fn iter_keys(&self, keys: RangeInclusive<Key>) -> Iter<'_> {
        let mut iter = Iter { tree: self, ahead: Vec::new(), page: None, end: *keys.end() };
        let Some(root) = self.root else { return iter };
        let start = *keys.start();
        let near = self.page(self.descend(root, start, |_| ())).first_key();
        let differs = first_difference(start, near);
        let mut link = root;
        loop {
            match self.node(link) {
                Node::Inner(inner) if inner.bit < differs => {
                    let side = bit_of(start, inner.bit);
                    if side == 0 {
                        iter.ahead.push(inner.children[1]);
                    }
                    link = inner.children[side];
                }
                // The whole subtree lies on one side of the start.
                Node::Inner(_) => {
                    if near > start {
                        iter.ahead.push(link);
                    }
                    return iter;
                }
                Node::Page(page) => {
                    let at = page.rank(start);
                    let exact = at > 0 && page.key(at - 1) == start;
                    iter.page = Some((page, at - usize::from(exact)));
                    return iter;
                }
            }
        }
    }

    fn hash_of(&self, entry: &Entry) -> u64 {
        let mut bytes = [0; 56];
        bytes[..16].copy_from_slice(&entry.key.to_le_bytes());
        let rest = [
            entry.length,
            entry.partition,
            entry.epoch,
            entry.ballot,
            self.groups.hash(entry.group),
        ];
        for (to, from) in bytes[16..].chunks_exact_mut(8).zip(rest) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}

/// Writing. A changed subtree is built anew and linked where the old one was; then the summaries
/// on the way up are made anew.
impl Perkle {
    /// The subtree of these entries: a page, or branches above pages.
    fn add_subtree(&mut self, entries: &[Entry]) -> Link {
        if entries.len() <= PAGE_ENTRIES_MAX {
            return self.add_page(entries);
        }
        let (first, last) = (entries[0].key, entries[entries.len() - 1].key);
        let bit = first_difference(first, last);
        let (low, high) = entries.split_at(entries.partition_point(|e| bit_of(e.key, bit) == 0));
        let (low, high) = (self.add_subtree(low), self.add_subtree(high));
        self.add_inner(bit, first, low, high)
    }

    fn add_page(&mut self, entries: &[Entry]) -> Link {
        let hash = hash_of_entries(entries.iter().map(|entry| self.hash_of(entry)));
        let page = Some(Page::new(entries, hash));
        let at = if let Some(at) = self.free_pages.pop() {
            self.pages[at as usize] = page;
            at
        } else {
            self.pages.push(page);
            position(self.pages.len() - 1)
        };
        Link(at | PAGE)
    }

    fn remove_page(&mut self, link: Link) {
        let at = link.page().expect("the link of a page");
        self.pages[at] = None;
        self.free_pages.push(at as u32);
    }

    /// A branch in `bit` between `one`, to which `key` belongs, and `other`.
    fn add_inner(&mut self, bit: u8, key: Key, one: Link, other: Link) -> Link {
        let children = if bit_of(key, bit) == 0 { [one, other] } else { [other, one] };
        let inner = Inner { children, bit };
        let summary = self.summarize(&inner);
        if let Some(at) = self.free_inner.pop() {
            self.inner[at as usize] = inner;
            self.summaries[at as usize] = summary;
            return Link(at);
        }
        self.inner.push(inner);
        self.summaries.push(summary);
        Link(position(self.inner.len() - 1))
    }

    fn summarize(&self, inner: &Inner) -> Summary {
        let [low, high] = inner.children.map(|child| self.summary_of(child));
        let mut bytes = [0; 17];
        bytes[0] = inner.bit;
        bytes[1..9].copy_from_slice(&low.hash.to_le_bytes());
        bytes[9..].copy_from_slice(&high.hash.to_le_bytes());
        Summary { hash: xxh3_64(&bytes), entries: low.entries + high.entries }
    }

    /// The subtree to which these steps lead.
    fn link_at(&self, path: &[Step]) -> Link {
        match path.last() {
            Some(&(inner, side)) => self.inner[inner as usize].children[side],
            None => self.root.expect("a path starts at a root"),
        }
    }

    fn relink(&mut self, path: &[Step], link: Link) {
        match path.last() {
            Some(&(inner, side)) => self.inner[inner as usize].children[side] = link,
            None => self.root = Some(link),
        }
    }

    fn refresh(&mut self, path: &[Step]) {
        for &(inner, _) in path.iter().rev() {
            self.summaries[inner as usize] = self.summarize(&self.inner[inner as usize]);
        }
    }

    /// Takes a subtree apart into its entries.
    fn dissolve(&mut self, link: Link, into: &mut Vec<Entry>) {
        if link.page().is_some() {
            into.extend(self.page(link).entries());
            self.remove_page(link);
            return;
        }
        let children = self.inner[link.0 as usize].children;
        self.free_inner.push(link.0);
        children.into_iter().for_each(|child| self.dissolve(child, into));
    }

    /// The route of an entry that is no longer in the tree.
    fn take(&mut self, entry: Entry) -> Route {
        let route = self.view(entry).to_route();
        self.groups.release(entry.group);
        route
    }
}

/// Entries in order.
struct Iter<'a> {
    tree: &'a Perkle,
    /// Subtrees to come, the nearest last.
    ahead: Vec<Link>,
    /// The page being read, and the position in it.
    page: Option<(&'a Page, usize)>,
    end: Key,
}

impl<'a> Iterator for Iter<'a> {
    type Item = RouteRef<'a>;

    fn next(&mut self) -> Option<RouteRef<'a>> {
        loop {
            if let Some((page, at)) = &mut self.page
                && *at < page.len()
            {
                let entry = page.entry(*at);
                *at += 1;
                if entry.key > self.end {
                    self.ahead.clear();
                    self.page = None;
                    return None;
                }
                return Some(self.tree.view(entry));
            }
            match self.tree.node(self.ahead.pop()?) {
                Node::Page(page) => self.page = Some((page, 0)),
                Node::Inner(inner) => self.ahead.extend([inner.children[1], inner.children[0]]),
            }
        }
    }
}

fn bit_of(key: Key, bit: u8) -> usize {
    ((key >> (KEY_BITS - 1 - bit)) & 1) as usize
}

/// The first bit in which two keys differ; [`KEY_BITS`] if none.
fn first_difference(a: Key, b: Key) -> u8 {
    ((a ^ b).leading_zeros() - (Key::BITS - u32::from(KEY_BITS))) as u8
}

fn position(at: usize) -> u32 {
    u32::try_from(at).ok().filter(|at| at & PAGE == 0).expect("fewer than 2^31 nodes")
}

//! Where two Perkle trees differ: with both at hand, and with one of them on another node.
//!
//! Two nodes compare *regions*, all keys with the same first bits. What a region holds is hashed to
//! the same number whatever else the tree holds and whatever its shape there, so neither node needs
//! to know where the other's branches are.

use wire::ids::TableId;
use wire::placement::Placement;
use wire::service::Route;

use super::{Iter, Link, Node, Perkle, RouteRef, bit_of, first_difference};
use crate::page::hash_of_entries;
use crate::region::{Key, Region, Summary, key, key_parts};

/// Levels of inner nodes that a region is split into at once.
const SPLIT_LEVELS: u32 = 4;
/// Parts a region is split into at most.
pub(crate) const REGION_PARTS_MAX: usize = 1 << SPLIT_LEVELS;

/// Where two trees differ.
#[derive(Default, Debug)]
pub struct Difference {
    /// The keys that only one holds, or for which they hold different routes, in order.
    pub keys: Vec<(TableId, Placement)>,
    /// Pairs of subtrees that were compared to find that out.
    pub compared: usize,
}

/// What a tree holds of a region.
enum Found {
    /// Nothing.
    Nothing,
    /// Exactly this subtree.
    All(Link),
    /// A part of this page.
    Part(Link),
}

/// What a region consists of, as another node needs to know it.
pub(crate) enum Parts {
    /// Many entries, in these smaller regions.
    Regions(Vec<(Region, Summary)>),
    /// Few: all of them.
    Routes(Vec<Route>),
}

/// Comparison with a tree at hand.
impl Perkle {
    /// Where another tree differs, found by descending only where hashes do.
    pub fn diff(&self, other: &Perkle) -> Difference {
        let mut difference = Difference::default();
        self.compare(self.root, other, other.root, &mut difference);
        difference
    }

    /// Compares two subtrees, one of which holds all keys that the other's place could hold.
    fn compare(
        &self,
        mine: Option<Link>,
        other: &Perkle,
        theirs: Option<Link>,
        difference: &mut Difference,
    ) {
        difference.compared += 1;
        let (Some(a), Some(b)) = (mine, theirs) else {
            return self.compare_entries(mine, other, theirs, difference);
        };
        if self.summary_of(a) == other.summary_of(b) {
            return;
        }
        let (Node::Inner(x), Node::Inner(y)) = (self.node(a), other.node(b)) else {
            return self.compare_entries(mine, other, theirs, difference);
        };
        let (some_mine, some_theirs) = (self.any_key(a), other.any_key(b));
        let agree = first_difference(some_mine, some_theirs);
        if agree < x.bit.min(y.bit) {
            // Two subtrees with no key in common, each in order before or behind the other.
            self.compare_entries(mine, other, theirs, difference);
        } else if x.bit == y.bit {
            for (x, y) in x.children.into_iter().zip(y.children) {
                self.compare(Some(x), other, Some(y), difference);
            }
        } else if x.bit < y.bit {
            for (side, child) in x.children.into_iter().enumerate() {
                let theirs = (bit_of(some_theirs, x.bit) == side).then_some(b);
                self.compare(Some(child), other, theirs, difference);
            }
        } else {
            for (side, child) in y.children.into_iter().enumerate() {
                let mine = (bit_of(some_mine, y.bit) == side).then_some(a);
                self.compare(mine, other, Some(child), difference);
            }
        }
    }

    fn compare_entries(
        &self,
        mine: Option<Link>,
        other: &Perkle,
        theirs: Option<Link>,
        difference: &mut Difference,
    ) {
        let mut mine = self.iter_subtree(mine).peekable();
        let mut theirs = other.iter_subtree(theirs).peekable();
        loop {
            let next = |route: &RouteRef<'_>| key(route.range.table, route.range.first);
            let (a, b) = (mine.peek().map(next), theirs.peek().map(next));
            let Some(least) = a.into_iter().chain(b).min() else { return };
            let x = if a == Some(least) { mine.next() } else { None };
            let y = if b == Some(least) { theirs.next() } else { None };
            if x != y {
                difference.keys.push(key_parts(least));
            }
        }
    }

    fn iter_subtree(&self, link: Option<Link>) -> Iter<'_> {
        Iter { tree: self, ahead: link.into_iter().collect(), page: None, end: Key::MAX }
    }
}

/// Regions, for comparison with a tree elsewhere.
impl Perkle {
    /// What the region holds.
    pub(crate) fn summary(&self, region: Region) -> Summary {
        match self.find(region) {
            Found::Nothing => Summary::default(),
            Found::All(link) => self.summary_of(link),
            Found::Part(link) => {
                let within = || self.page(link).entries().filter(|e| region.contains(e.key));
                let hash = hash_of_entries(within().map(|entry| self.hash_of(&entry)));
                Summary { hash, entries: within().count() as u32 }
            }
        }
    }

    /// The entries of a region if they are few, else its parts.
    pub(crate) fn parts(&self, region: Region) -> Parts {
        let link = match self.find(region) {
            Found::Nothing => return Parts::Routes(Vec::new()),
            Found::All(link) | Found::Part(link) => link,
        };
        match self.node(link) {
            Node::Page(page) => {
                let within = page.entries().filter(|entry| region.contains(entry.key));
                Parts::Routes(within.map(|entry| self.view(entry).to_route()).collect())
            }
            Node::Inner(_) => {
                let mut regions = Vec::with_capacity(REGION_PARTS_MAX);
                self.split(link, region.bits(), SPLIT_LEVELS, &mut regions);
                Parts::Regions(regions)
            }
        }
    }

    fn split(&self, link: Link, bits: u8, levels: u32, into: &mut Vec<(Region, Summary)>) {
        match self.node(link) {
            Node::Inner(inner) if levels > 0 => {
                for child in inner.children {
                    self.split(child, inner.bit + 1, levels - 1, into);
                }
            }
            _ => {
                into.push((Region::of_key(self.any_key(link), bits), self.summary_of(link)));
            }
        }
    }

    fn find(&self, region: Region) -> Found {
        let Some(mut link) = self.root else { return Found::Nothing };
        loop {
            match self.node(link) {
                Node::Inner(inner) if inner.bit < region.bits() => {
                    link = inner.children[bit_of(region.first(), inner.bit)];
                }
                // All keys below agree in the bits that the region fixes, and some others.
                Node::Inner(_) if region.contains(self.any_key(link)) => return Found::All(link),
                Node::Inner(_) => return Found::Nothing,
                Node::Page(page) => {
                    let within = page.entries().filter(|e| region.contains(e.key)).count();
                    return match within {
                        0 => Found::Nothing,
                        _ if within == page.len() => Found::All(link),
                        _ => Found::Part(link),
                    };
                }
            }
        }
    }
}

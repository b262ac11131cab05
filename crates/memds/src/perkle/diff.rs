//! What differs between two maps, found by descending only where hashes differ.

use super::{Inner, Node, NodeRef, Perkle};
use crate::route::{RouteKey, RouteRef};

/// A key at which two maps differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference<'a> {
    /// The key.
    pub key: RouteKey,
    /// The first map's route, if it has one.
    pub ours: Option<RouteRef<'a>>,
    /// The second map's route, if it has one.
    pub theirs: Option<RouteRef<'a>>,
}

impl Perkle {
    /// Every key at which this map and another differ, in order. Costs what differs.
    pub fn differences<'a>(&'a self, other: &'a Perkle) -> Vec<Difference<'a>> {
        let mut walk = Walk { ours: self, theirs: other, found: Vec::new() };
        walk.pair(self.root, other.root);
        walk.found
    }
}

/// An inner node.
struct Branch {
    node: NodeRef,
    split: RouteKey,
    bit: u32,
    sides: [NodeRef; 2],
}

struct Walk<'a> {
    ours: &'a Perkle,
    theirs: &'a Perkle,
    found: Vec<Difference<'a>>,
}

impl<'a> Walk<'a> {
    fn pair(&mut self, ours: Option<NodeRef>, theirs: Option<NodeRef>) {
        if let (Some(x), Some(y)) = (ours, theirs)
            && self.ours.hash(x) == self.theirs.hash(y)
        {
            return;
        }
        match (self.ours.branch(ours), self.theirs.branch(theirs)) {
            (Some(x), Some(y)) => self.branches(x, y),
            // Fewer than a leaf's worth on one side: nearly all of the other side differs.
            _ => self.merge(ours, theirs),
        }
    }

    /// Compares two branches. Their keys agree in the bits before each one's branch; where the
    /// branches are at different bits, one lies below one side of the other.
    fn branches(&mut self, x: Branch, y: Branch) {
        if x.split.first_difference(y.split) < x.bit.min(y.bit) {
            if x.split < y.split {
                self.merge(Some(x.node), None);
                self.merge(None, Some(y.node));
            } else {
                self.merge(None, Some(y.node));
                self.merge(Some(x.node), None);
            }
            return;
        }
        for side in [0, 1] {
            // Where a branch lies as a whole below one side of the other, it stands for itself.
            let below = |branch: &Branch, other: &Branch| {
                if branch.bit <= other.bit {
                    return Some(branch.sides[side]);
                }
                let here = usize::from(branch.split.bit(other.bit)) == side;
                here.then_some(branch.node)
            };
            self.pair(below(&x, &y), below(&y, &x));
        }
    }

    /// Compares route by route.
    fn merge(&mut self, ours: Option<NodeRef>, theirs: Option<NodeRef>) {
        let mut ours = self.ours.below_node(ours).peekable();
        let mut theirs = self.theirs.below_node(theirs).peekable();
        loop {
            let key = match (ours.peek(), theirs.peek()) {
                (None, None) => return,
                (Some(x), None) => x.key(),
                (None, Some(y)) => y.key(),
                (Some(x), Some(y)) => x.key().min(y.key()),
            };
            let x = ours.next_if(|route| route.key() == key);
            let y = theirs.next_if(|route| route.key() == key);
            if x != y {
                self.found.push(Difference { key, ours: x, theirs: y });
            }
        }
    }
}

impl Perkle {
    fn branch(&self, node: Option<NodeRef>) -> Option<Branch> {
        let node = node?;
        match node.node() {
            Node::Leaf(_) => None,
            Node::Inner(position) => {
                let Inner { split, sides } = self.inners[position];
                Some(Branch { node, split: split.into(), bit: self.bit(position), sides })
            }
        }
    }

    fn below_node(&self, node: Option<NodeRef>) -> impl Iterator<Item = RouteRef<'_>> {
        let count = node.map_or(0, |node| self.count(node));
        let first = node.map_or(RouteKey::MIN, |node| self.first_key(node));
        self.range(first, RouteKey::MAX).take(count)
    }
}

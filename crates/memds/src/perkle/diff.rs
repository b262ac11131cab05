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
        match (self.ours.inner(ours), self.theirs.inner(theirs)) {
            (Some(x), Some(y)) => self.inner_pair((ours, x), (theirs, y)),
            // Fewer than a leaf's worth on one side: nearly all of the other side differs.
            _ => self.merge(ours, theirs),
        }
    }

    /// Compares two branches. Their keys agree in the bits before each one's branch; where the
    /// branches are at different bits, one lies below one side of the other.
    fn inner_pair(&mut self, ours: (Option<NodeRef>, Inner), theirs: (Option<NodeRef>, Inner)) {
        let ((x_node, x), (y_node, y)) = (ours, theirs);
        let shared = x.split.first_difference(y.split);
        let (x_bit, y_bit) = (u32::from(x.bit), u32::from(y.bit));
        if shared < x_bit.min(y_bit) {
            if x.split < y.split {
                self.merge(x_node, None);
                self.merge(None, y_node);
            } else {
                self.merge(None, y_node);
                self.merge(x_node, None);
            }
            return;
        }
        for side in [0, 1] {
            let below = |inner: Inner| Some(inner.sides[side]);
            if x_bit == y_bit {
                self.pair(below(x), below(y));
            } else if x_bit < y_bit {
                let here = usize::from(y.split.bit(x_bit)) == side;
                self.pair(below(x), y_node.filter(|_| here));
            } else {
                let here = usize::from(x.split.bit(y_bit)) == side;
                self.pair(x_node.filter(|_| here), below(y));
            }
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
    fn inner(&self, node: Option<NodeRef>) -> Option<Inner> {
        match node?.node() {
            Node::Leaf(_) => None,
            Node::Inner(position) => Some(self.inners[position]),
        }
    }

    fn below_node(&self, node: Option<NodeRef>) -> impl Iterator<Item = RouteRef<'_>> {
        let count = node.map_or(0, |node| self.count(node));
        let first = node.map_or(RouteKey::MIN, |node| self.first_key(node));
        self.range(first, RouteKey::MAX).take(count)
    }
}

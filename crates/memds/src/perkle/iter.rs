//! Iteration in order of keys.

use smallvec::SmallVec;

use super::{Node, NodeRef, Perkle};
use crate::route::{RouteKey, RouteRef};

/// Routes in ascending order of their keys.
#[derive(Debug)]
pub struct Routes<'a> {
    map: &'a Perkle,
    /// What comes after the current leaf; the next one is last.
    pending: SmallVec<[NodeRef; 24]>,
    leaf: Option<usize>,
    index: usize,
    last: RouteKey,
}

impl<'a> Routes<'a> {
    pub(super) fn new(map: &'a Perkle, first: RouteKey, last: RouteKey) -> Routes<'a> {
        let mut pending = SmallVec::new();
        let leaf = map.leaf_for(first, |side| pending.push(side));
        let index = leaf.map_or(0, |leaf| {
            let leaf = &map.leaves[leaf];
            let up_to = leaf.count_up_to(first);
            if up_to > 0 && leaf.key(up_to - 1) == first { up_to - 1 } else { up_to }
        });
        Routes { map, pending, leaf, index, last }
    }

    /// Goes to the next leaf.
    fn advance(&mut self) -> Option<()> {
        let mut node = self.pending.pop()?;
        loop {
            match node.node() {
                Node::Leaf(position) => {
                    (self.leaf, self.index) = (Some(position), 0);
                    return Some(());
                }
                Node::Inner(position) => {
                    let [zero, one] = self.map.inners[position].sides;
                    self.pending.push(one);
                    node = zero;
                }
            }
        }
    }
}

impl<'a> Iterator for Routes<'a> {
    type Item = RouteRef<'a>;

    fn next(&mut self) -> Option<RouteRef<'a>> {
        loop {
            let leaf = &self.map.leaves[self.leaf?];
            if self.index < leaf.len() {
                if leaf.key(self.index) > self.last {
                    self.leaf = None;
                    return None;
                }
                self.index += 1;
                return Some(leaf.entry(self.index - 1).resolve(&self.map.sets));
            }
            if self.advance().is_none() {
                self.leaf = None;
            }
        }
    }
}

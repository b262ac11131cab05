//! Replica sets, each stored once: a million partitions live on a few thousand of them, so a route
//! holds a number of two bytes instead of its members.

use std::collections::HashMap;

use smallvec::SmallVec;
use wire::ids::NodeId;

/// Who holds a partition. Three members stand in the slot itself: a lookup waits for memory once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ReplicaSet {
    members: SmallVec<[NodeId; 4]>,
    /// A leader that is none of the members (or not one of the first few): kept with the set, since
    /// a route has no room for it and it hardly ever happens.
    outsider: Option<NodeId>,
}

#[derive(Debug)]
struct Slot {
    set: ReplicaSet,
    /// Routes that name this set; 0 if the slot is free.
    references: u32,
}

/// The sets in use, by number.
#[derive(Debug, Default)]
pub(super) struct ReplicaSets {
    slots: Vec<Slot>,
    numbers: HashMap<ReplicaSet, u32>,
    free: Vec<u32>,
}

/// The leader is none.
const NO_LEADER: u8 = 0;
/// The leader is the set's outsider. Codes between are positions among the members, plus one.
const OUTSIDER: u8 = u8::MAX;

impl ReplicaSets {
    /// Adds a reference to a set. Returns the set's number and the leader's code within it.
    pub(super) fn acquire(&mut self, members: &[NodeId], leader: Option<NodeId>) -> (u32, u8) {
        let (outsider, code) = match leader {
            None => (None, NO_LEADER),
            Some(leader) => match members.iter().position(|member| *member == leader) {
                Some(position) if position + 1 < usize::from(OUTSIDER) => {
                    (None, position as u8 + 1)
                }
                _ => (Some(leader), OUTSIDER),
            },
        };
        let set = ReplicaSet { members: members.into(), outsider };
        if let Some(&number) = self.numbers.get(&set) {
            self.slots[number as usize].references += 1;
            return (number, code);
        }
        let slot = Slot { set: set.clone(), references: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer replica sets than partitions")
            }
        };
        self.numbers.insert(set, number);
        (number, code)
    }

    /// Takes a reference away; a set nobody names is forgotten.
    pub(super) fn release(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.references -= 1;
        if slot.references == 0 {
            self.numbers.remove(&slot.set);
            self.free.push(number);
        }
    }

    /// The members of a set and the leader its code stands for.
    pub(super) fn resolve(&self, number: u32, leader: u8) -> (&[NodeId], Option<NodeId>) {
        let set = &self.slots[number as usize].set;
        let leader = match leader {
            NO_LEADER => None,
            OUTSIDER => set.outsider,
            position => Some(set.members[usize::from(position) - 1]),
        };
        (&set.members, leader)
    }

    /// Sets in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes allocated, estimated.
    pub(super) fn memory_bytes(&self) -> usize {
        // A hash map's control byte, at a load of 7/8 or less. Sets of more than four are few.
        self.slots.capacity() * size_of::<Slot>()
            + self.numbers.capacity() * (size_of::<(ReplicaSet, u32)>() + 1) * 8 / 7
            + self.free.capacity() * size_of::<u32>()
    }
}

//! Replica sets with their leaders, each held once.
//!
//! Replicas are placed so that few sets of nodes share partitions, so a million partitions have a
//! few thousand different sets. An entry of the tree holds a set's position, some 13 bits.

use std::collections::HashMap;
use std::mem::size_of;
use std::sync::Arc;

use wire::ids::NodeId;
use xxhash_rust::xxh3::xxh3_64;

/// Members and leader of a partition.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(crate) struct Group {
    pub(crate) leader: Option<NodeId>,
    pub(crate) members: Box<[NodeId]>,
}

/// All groups in use.
#[derive(Default)]
pub(crate) struct Groups {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_group: HashMap<Arc<Group>, u32>,
}

struct Slot {
    group: Arc<Group>,
    hash: u64,
    uses: u32,
}

impl Groups {
    /// The position of a group, which is in use once more.
    pub(crate) fn acquire(&mut self, leader: Option<NodeId>, members: &[NodeId]) -> u32 {
        let group = Group { leader, members: members.into() };
        if let Some(&at) = self.by_group.get(&group) {
            let slot = self.slots[at as usize].as_mut().expect("listed groups are in use");
            slot.uses += 1;
            return at;
        }
        let (group, hash) = (Arc::new(group), hash_of(leader, members));
        let slot = Some(Slot { group: Arc::clone(&group), hash, uses: 1 });
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).expect("fewer groups than entries")
        };
        self.by_group.insert(group, at);
        at
    }

    /// Takes back one [`Groups::acquire`].
    pub(crate) fn release(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        let used = slot.as_mut().expect("released groups are in use");
        used.uses -= 1;
        if used.uses == 0 {
            self.by_group.remove(&used.group);
            *slot = None;
            self.free.push(at);
        }
    }

    /// A group in use.
    pub(crate) fn get(&self, at: u32) -> &Group {
        &self.slot(at).group
    }

    /// What a group in use hashes to; the same in every process.
    pub(crate) fn hash(&self, at: u32) -> u64 {
        self.slot(at).hash
    }

    fn slot(&self, at: u32) -> &Slot {
        self.slots[at as usize].as_ref().expect("positions name groups in use")
    }

    /// How many different groups there are.
    pub(crate) fn len(&self) -> usize {
        self.by_group.len()
    }

    /// Bytes on the heap, the hash map's reckoned as its entries at a load of 7/8.
    pub(crate) fn heap_bytes(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<Option<Slot>>() + self.free.capacity() * 4;
        let index = self.by_group.capacity() * (size_of::<(Arc<Group>, u32)>() + 1) * 8 / 7;
        let group = |slot: &Slot| size_of::<Group>() + 16 + slot.group.members.len() * 4;
        slots + index + self.slots.iter().flatten().map(group).sum::<usize>()
    }
}

fn hash_of(leader: Option<NodeId>, members: &[NodeId]) -> u64 {
    let mut bytes = Vec::with_capacity(5 + members.len() * 4);
    bytes.push(u8::from(leader.is_some()));
    bytes.extend_from_slice(&leader.unwrap_or_default().0.to_le_bytes());
    members.iter().for_each(|member| bytes.extend_from_slice(&member.0.to_le_bytes()));
    xxh3_64(&bytes)
}

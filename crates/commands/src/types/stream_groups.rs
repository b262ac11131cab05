//! Consumer groups of a stream: rows beside its entries.
//!
//! ```text
//! data rows, what follows the generation (numbers and ids big-endian):
//!   1 name                                   a group
//!   2 group:u32 name                         a consumer of a group
//!   3 group:u32 epoch:u32 id                 an entry that is pending, by ID
//!   4 group:u32 epoch:u32 consumer:u32 id    the same, by the consumer that has it; value empty
//! group    = number last_id read pending consumers next_consumer epoch acked     all varints
//! read     = 0: not known | one more than how many entries were read
//! consumer = number seen_ms active pending             active = 0: never | one more than when, in ms
//! pending  = delivered_ms deliveries consumer:varint name of the consumer
//! ```
//!
//! What is pending is counted, so that no answer but that which lists it reads it all. An entry that
//! is acknowledged leaves deleted rows behind, over which later walks would step: once there are
//! [`RENEW_FACTOR`] times as many as of entries still pending, those are written anew under the next
//! epoch, if they are few enough for one command. The acknowledgements before paid for it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::txn::Txn;
use crate::types::header::{put_varint, read_varint};
use crate::types::ring::Place;
use crate::types::stream::Id;
use crate::view::{Direction, View, ViewError};

const SUB_GROUP: u8 = 1;
const SUB_CONSUMER: u8 = 2;
const SUB_PENDING: u8 = 3;
const SUB_OWNED: u8 = 4;

/// Rows deleted for each that is left, before these are written anew.
const RENEW_FACTOR: u64 = 4;
/// Fewer than so many deleted rows are stepped over at any rate.
const RENEW_DELETED_MIN: u64 = 256;
/// Most pending entries that are written anew.
const RENEW_PENDING_MAX: u64 = 4_096;

/// A consumer group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) name: Bytes,
    number: u32,
    /// The last entry that was delivered.
    pub(crate) last_id: Id,
    /// How many entries were ever read up to it, if that is known.
    pub(crate) entries_read: Option<u64>,
    /// How many entries are pending.
    pub(crate) pending: u64,
    /// How many consumers it has.
    pub(crate) consumers: u64,
    next_consumer: u32,
    epoch: u32,
    /// Rows of pending entries deleted in this epoch.
    acked: u64,
}

/// A consumer of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Consumer {
    pub(crate) name: Bytes,
    number: u32,
    /// When it last asked for something, in ms since the epoch.
    pub(crate) seen_ms: u64,
    /// When it last got something.
    pub(crate) active_ms: Option<u64>,
    /// How many entries it has pending.
    pub(crate) pending: u64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) id: Id,
    /// When it was last delivered, in ms since the epoch.
    pub(crate) delivered_ms: u64,
    /// How often.
    pub(crate) deliveries: u64,
    owner: u32,
    /// Who has it.
    pub(crate) consumer: Bytes,
}

impl Group {
    fn row(place: &Place, name: &[u8]) -> Bytes {
        place.row(&[&[SUB_GROUP], name].concat())
    }

    /// The group of this name.
    pub(crate) fn get(
        view: &dyn View,
        place: &Place,
        name: &[u8],
    ) -> Result<Option<Group>, ViewError> {
        let Some(value) = view.get(&Group::row(place, name))? else { return Ok(None) };
        Group::read(Bytes::copy_from_slice(name), &value).ok_or(ViewError::Damaged).map(Some)
    }

    /// All groups, by name.
    pub(crate) fn all(view: &dyn View, place: &Place) -> Result<Vec<Group>, ViewError> {
        let from = place.row(&[SUB_GROUP]);
        collect(view, (&from, &place.row(&[SUB_GROUP + 1])), |row, value| {
            Group::read(row.slice(from.len()..), value)
        })
    }

    fn read(name: Bytes, value: &[u8]) -> Option<Group> {
        let mut rest = value;
        let input = &mut rest;
        let group = Group {
            name,
            number: read_number(input)?,
            last_id: Id::read(input)?,
            entries_read: read_varint(input)?.checked_sub(1),
            pending: read_varint(input)?,
            consumers: read_varint(input)?,
            next_consumer: read_number(input)?,
            epoch: read_number(input)?,
            acked: read_varint(input)?,
        };
        rest.is_empty().then_some(group)
    }

    fn put(&self, txn: &mut Txn<'_>, place: &Place) {
        let mut value = BytesMut::new();
        put_varint(&mut value, u64::from(self.number));
        self.last_id.put(&mut value);
        put_varint(&mut value, self.entries_read.map_or(0, |read| read + 1));
        put_varint(&mut value, self.pending);
        put_varint(&mut value, self.consumers);
        put_varint(&mut value, u64::from(self.next_consumer));
        put_varint(&mut value, u64::from(self.epoch));
        put_varint(&mut value, self.acked);
        txn.put(Group::row(place, &self.name), value.freeze());
    }

    fn consumer_row(&self, place: &Place, name: &[u8]) -> Bytes {
        place.row(&[&[SUB_CONSUMER], &self.number.to_be_bytes()[..], name].concat())
    }

    fn pending_prefix(&self, place: &Place) -> Bytes {
        let numbers = [self.number.to_be_bytes(), self.epoch.to_be_bytes()].concat();
        place.row(&[&[SUB_PENDING], &numbers[..]].concat())
    }

    fn owned_prefix(&self, place: &Place, consumer: u32) -> Bytes {
        let numbers = [self.number, self.epoch, consumer].map(u32::to_be_bytes).concat();
        place.row(&[&[SUB_OWNED], &numbers[..]].concat())
    }

    /// A consumer.
    pub(crate) fn consumer(
        &self,
        view: &dyn View,
        place: &Place,
        name: &[u8],
    ) -> Result<Option<Consumer>, ViewError> {
        let Some(value) = view.get(&self.consumer_row(place, name))? else { return Ok(None) };
        Consumer::read(Bytes::copy_from_slice(name), &value).ok_or(ViewError::Damaged).map(Some)
    }

    /// All consumers, by name.
    pub(crate) fn all_consumers(
        &self,
        view: &dyn View,
        place: &Place,
    ) -> Result<Vec<Consumer>, ViewError> {
        let from = self.consumer_row(place, b"");
        collect(view, (&from, &behind(&from)), |row, value| {
            Consumer::read(row.slice(from.len()..), value)
        })
    }

    /// An entry, if it is pending.
    pub(crate) fn pending(
        &self,
        view: &dyn View,
        place: &Place,
        id: Id,
    ) -> Result<Option<Pending>, ViewError> {
        let row = id_row(&self.pending_prefix(place), id);
        let Some(value) = view.get(&row)? else { return Ok(None) };
        Pending::read(id, &value).ok_or(ViewError::Damaged).map(Some)
    }

    /// The first or last entry that is pending.
    pub(crate) fn edge(
        &self,
        view: &dyn View,
        place: &Place,
        direction: Direction,
    ) -> Result<Option<Id>, ViewError> {
        let prefix = self.pending_prefix(place);
        let mut edge = None;
        view.scan(&prefix, &behind(&prefix), direction, &mut |row, _| {
            edge = row_id(row);
            ControlFlow::Break(())
        })?;
        Ok(edge)
    }

    /// Visits the pending entries from an ID on.
    pub(crate) fn visit_pending(
        &self,
        view: &dyn View,
        place: &Place,
        from: Id,
        visit: &mut dyn FnMut(Pending) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let prefix = self.pending_prefix(place);
        let mut outcome = Ok(());
        view.scan(
            &id_row(&prefix, from),
            &behind(&prefix),
            Direction::Forward,
            &mut |row, value| match row_id(row).and_then(|id| Pending::read(id, value)) {
                Some(pending) => visit(pending),
                None => {
                    outcome = Err(ViewError::Damaged);
                    ControlFlow::Break(())
                }
            },
        )?;
        outcome
    }

    /// The first `count` entries that a consumer has pending, from an ID on.
    pub(crate) fn owned(
        &self,
        view: &dyn View,
        place: &Place,
        consumer: &Consumer,
        from: Id,
        count: usize,
    ) -> Result<Vec<Id>, ViewError> {
        let prefix = self.owned_prefix(place, consumer.number);
        let mut ids = Vec::new();
        if count == 0 {
            return Ok(ids);
        }
        view.scan(&id_row(&prefix, from), &behind(&prefix), Direction::Forward, &mut |row, _| {
            ids.extend(row_id(row));
            if ids.len() >= count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(ids)
    }
}

impl Consumer {
    fn read(name: Bytes, value: &[u8]) -> Option<Consumer> {
        let mut rest = value;
        let input = &mut rest;
        let consumer = Consumer {
            name,
            number: read_number(input)?,
            seen_ms: read_varint(input)?,
            active_ms: read_varint(input)?.checked_sub(1),
            pending: read_varint(input)?,
        };
        rest.is_empty().then_some(consumer)
    }

    fn put(&self, txn: &mut Txn<'_>, row: Bytes) {
        let mut value = BytesMut::new();
        put_varint(&mut value, u64::from(self.number));
        put_varint(&mut value, self.seen_ms);
        put_varint(&mut value, self.active_ms.map_or(0, |at| at + 1));
        put_varint(&mut value, self.pending);
        txn.put(row, value.freeze());
    }
}

impl Pending {
    fn read(id: Id, value: &Bytes) -> Option<Pending> {
        let mut input = &value[..];
        let delivered_ms = read_varint(&mut input)?;
        let deliveries = read_varint(&mut input)?;
        let owner = read_number(&mut input)?;
        Some(Pending { id, delivered_ms, deliveries, owner, consumer: value.slice_ref(input) })
    }

    fn value(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(16 + self.consumer.len());
        put_varint(&mut value, self.delivered_ms);
        put_varint(&mut value, self.deliveries);
        put_varint(&mut value, u64::from(self.owner));
        value.put_slice(&self.consumer);
        value.freeze()
    }
}

/// A group that is being changed: its row and those of its consumers are written once, at the end.
pub(crate) struct GroupEdit {
    place: Place,
    pub(crate) group: Group,
    consumers: BTreeMap<Bytes, Consumer>,
}

impl GroupEdit {
    /// Begins with a group.
    pub(crate) fn open(
        view: &dyn View,
        place: Place,
        name: &[u8],
    ) -> Result<Option<GroupEdit>, ViewError> {
        let group = Group::get(view, &place, name)?;
        Ok(group.map(|group| GroupEdit { place, group, consumers: BTreeMap::new() }))
    }

    /// Begins with a new group that gets this number.
    pub(crate) fn create(
        place: Place,
        name: &[u8],
        number: u64,
        last_id: Id,
        entries_read: Option<u64>,
    ) -> GroupEdit {
        let group = Group {
            name: Bytes::copy_from_slice(name),
            number: u32::try_from(number).unwrap_or(u32::MAX),
            last_id,
            entries_read,
            pending: 0,
            consumers: 0,
            next_consumer: 0,
            epoch: 0,
            acked: 0,
        };
        GroupEdit { place, group, consumers: BTreeMap::new() }
    }

    /// A consumer, if there is one of this name.
    pub(crate) fn consumer(
        &mut self,
        view: &dyn View,
        name: &[u8],
    ) -> Result<Option<&mut Consumer>, ViewError> {
        if !self.consumers.contains_key(name) {
            let Some(consumer) = self.group.consumer(view, &self.place, name)? else {
                return Ok(None);
            };
            self.consumers.insert(consumer.name.clone(), consumer);
        }
        Ok(self.consumers.get_mut(name))
    }

    /// Makes a consumer; whether there was none of this name.
    pub(crate) fn create_consumer(
        &mut self,
        view: &dyn View,
        name: &[u8],
    ) -> Result<bool, ViewError> {
        if self.consumer(view, name)?.is_some() {
            return Ok(false);
        }
        let name = Bytes::copy_from_slice(name);
        let number = self.group.next_consumer;
        let seen_ms = view.now_ms();
        let consumer =
            Consumer { name: name.clone(), number, seen_ms, active_ms: None, pending: 0 };
        self.consumers.insert(name, consumer);
        self.group.next_consumer += 1;
        self.group.consumers += 1;
        Ok(true)
    }

    /// Has a consumer, made if need be, ask for something now; whether it was made.
    pub(crate) fn see(&mut self, view: &dyn View, name: &[u8]) -> Result<bool, ViewError> {
        let created = self.create_consumer(view, name)?;
        if let Some(consumer) = self.consumer(view, name)? {
            consumer.seen_ms = view.now_ms();
        }
        Ok(created)
    }

    /// Deletes a consumer; how many entries it had pending, which are not any more.
    pub(crate) fn delete_consumer(
        &mut self,
        txn: &mut Txn<'_>,
        name: &[u8],
    ) -> Result<Option<u64>, ViewError> {
        let Some(consumer) = self.consumer(txn, name)?.cloned() else { return Ok(None) };
        let place = self.place;
        let ids = self.group.owned(txn, &place, &consumer, Id::MIN, usize::MAX)?;
        for id in &ids {
            self.delete_rows(txn, consumer.number, *id);
        }
        self.consumers.remove(name);
        self.group.consumers = self.group.consumers.saturating_sub(1);
        txn.delete(self.group.consumer_row(&place, name));
        Ok(Some(ids.len() as u64))
    }

    /// Gives an entry to a consumer, which must be there.
    pub(crate) fn give(
        &mut self,
        txn: &mut Txn<'_>,
        consumer: &[u8],
        id: Id,
        (delivered_ms, deliveries): (u64, u64),
    ) -> Result<(), ViewError> {
        let place = self.place;
        let old = self.group.pending(txn, &place, id)?;
        let Some(Consumer { number, name, .. }) = self.consumer(txn, consumer)?.cloned() else {
            return Ok(());
        };
        if old.as_ref().is_none_or(|old| old.owner != number) {
            match &old {
                Some(old) => {
                    txn.delete(id_row(&self.group.owned_prefix(&place, old.owner), id));
                    self.group.acked += 1;
                    if let Some(owner) = self.consumer(txn, &old.consumer)? {
                        owner.pending = owner.pending.saturating_sub(1);
                    }
                }
                None => self.group.pending += 1,
            }
            txn.put(id_row(&self.group.owned_prefix(&place, number), id), Bytes::new());
            if let Some(consumer) = self.consumer(txn, consumer)? {
                consumer.pending += 1;
            }
        }
        let pending = Pending { id, delivered_ms, deliveries, owner: number, consumer: name };
        txn.put(id_row(&self.group.pending_prefix(&place), id), pending.value());
        Ok(())
    }

    /// Acknowledges an entry; whether it was pending.
    pub(crate) fn release(&mut self, txn: &mut Txn<'_>, id: Id) -> Result<bool, ViewError> {
        let place = self.place;
        let Some(old) = self.group.pending(txn, &place, id)? else { return Ok(false) };
        self.delete_rows(txn, old.owner, id);
        if let Some(owner) = self.consumer(txn, &old.consumer)? {
            owner.pending = owner.pending.saturating_sub(1);
        }
        Ok(true)
    }

    fn delete_rows(&mut self, txn: &mut Txn<'_>, owner: u32, id: Id) {
        txn.delete(id_row(&self.group.owned_prefix(&self.place, owner), id));
        txn.delete(id_row(&self.group.pending_prefix(&self.place), id));
        self.group.pending = self.group.pending.saturating_sub(1);
        self.group.acked += 1;
    }

    /// Deletes the group and all its rows.
    pub(crate) fn destroy(self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        let (place, group) = (self.place, &self.group);
        let number = group.number.to_be_bytes();
        let mut rows = vec![Group::row(&place, &group.name)];
        for sub in [SUB_CONSUMER, SUB_PENDING, SUB_OWNED] {
            let from = place.row(&[&[sub], &number[..]].concat());
            txn.scan(&from, &behind(&from), Direction::Forward, &mut |row, _| {
                rows.push(row.clone());
                ControlFlow::Continue(())
            })?;
        }
        for row in rows {
            txn.delete(row);
        }
        Ok(())
    }

    /// Ends the change: writes the group and the consumers that were looked at.
    pub(crate) fn finish(mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        self.renew(txn)?;
        for (name, consumer) in &self.consumers {
            consumer.put(txn, self.group.consumer_row(&self.place, name));
        }
        self.group.put(txn, &self.place);
        Ok(())
    }

    /// Leaves deleted rows behind, if there are far more of them than of others.
    fn renew(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        let Group { pending, acked, .. } = self.group;
        if acked < RENEW_DELETED_MIN.max(pending.saturating_mul(RENEW_FACTOR))
            || pending > RENEW_PENDING_MAX
        {
            return Ok(());
        }
        let place = self.place;
        let mut kept = Vec::new();
        self.group.visit_pending(txn, &place, Id::MIN, &mut |pending| {
            kept.push(pending);
            ControlFlow::Continue(())
        })?;
        for pending in &kept {
            self.delete_rows(txn, pending.owner, pending.id);
        }
        self.group.epoch += 1;
        (self.group.pending, self.group.acked) = (kept.len() as u64, 0);
        for pending in kept {
            let owned = self.group.owned_prefix(&place, pending.owner);
            txn.put(id_row(&owned, pending.id), Bytes::new());
            txn.put(id_row(&self.group.pending_prefix(&place), pending.id), pending.value());
        }
        Ok(())
    }
}

fn collect<T>(
    view: &dyn View,
    (from, to): (&Bytes, &Bytes),
    read: impl Fn(&Bytes, &Bytes) -> Option<T>,
) -> Result<Vec<T>, ViewError> {
    let (mut all, mut outcome) = (Vec::new(), Ok(()));
    view.scan(from, to, Direction::Forward, &mut |row, value| match read(row, value) {
        Some(one) => {
            all.push(one);
            ControlFlow::Continue(())
        }
        None => {
            outcome = Err(ViewError::Damaged);
            ControlFlow::Break(())
        }
    })?;
    outcome.map(|()| all)
}

fn id_row(prefix: &[u8], id: Id) -> Bytes {
    [prefix, &id.to_bytes()].concat().into()
}

fn row_id(row: &[u8]) -> Option<Id> {
    row.last_chunk().map(|id| Id::from_bytes(*id))
}

/// Just above all rows that begin with a prefix.
fn behind(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Bytes::from(end)
}

fn read_number(input: &mut &[u8]) -> Option<u32> {
    u32::try_from(read_varint(input)?).ok()
}

//! Lists: elements in the order of their positions.
//!
//! ```text
//! body of the header = marks:u8 [packed_bytes:varint] sequence        types/sequence.rs
//! marks              = QUICKLIST 1
//! ```
//!
//! Without QUICKLIST the list is one that Redis would keep in one listpack, and `packed_bytes` follow:
//! what the elements would take there, by which Redis decides when it is a listpack no longer. They
//! have nothing to do with how the list is stored.

use std::ops::{ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::header::{Header, Kind, Value, put_varint, read_varint};
use crate::types::keyspace::{self, Found};
use crate::types::listpack;
use crate::types::sequence::Sequence;
use crate::view::{Direction, View, ViewError};

/// Redis's `list-max-listpack-size` of -2, in bytes: a larger list is a `quicklist`.
pub(crate) const LISTPACK_BYTES_MAX: u64 = 8 << 10;
/// A quicklist that has shrunk to this becomes a listpack again.
const LISTPACK_AGAIN_BYTES_MAX: u64 = LISTPACK_BYTES_MAX / 2;
/// Bytes of a listpack without elements.
const LISTPACK_FRAME_BYTES: u64 = 7;
/// An element that is no number takes so many bytes beside its text, or a few more.
const LISTPACK_ELEMENT_BYTES: u64 = 2;

const MARK_QUICKLIST: u8 = 1;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// What a list's header says.
#[derive(Clone, Debug)]
pub(crate) struct List {
    /// Its elements.
    pub(crate) elements: Sequence,
    /// What they would take in Redis's listpack; `None` if Redis keeps a quicklist.
    pub(crate) packed_bytes: Option<u64>,
}

impl List {
    /// The list at a key; `None` if the key does not exist.
    ///
    /// *Errors*: `WrongType` if it holds something else.
    pub(crate) fn read(view: &dyn View, key: &[u8]) -> Result<Option<List>, CommandError> {
        let Some(Header { value, .. }) = keyspace::read(view, key)? else { return Ok(None) };
        if value.kind() != Kind::List {
            return Err(CommandError::WrongType);
        }
        Ok(Some(List::of(view, key, &value)?))
    }

    /// The list that a header of this key holds.
    pub(crate) fn of(view: &dyn View, key: &[u8], value: &Value) -> Result<List, ViewError> {
        let (packed_bytes, rest) = read_head(value).ok_or(ViewError::Damaged)?;
        Ok(List { elements: Sequence::read(view, key, (value, rest), None)?, packed_bytes })
    }

    fn value(&self) -> Value {
        let mut head = BytesMut::with_capacity(16 + self.elements.header_bytes());
        match self.packed_bytes {
            None => head.put_u8(MARK_QUICKLIST),
            Some(packed) => {
                head.put_u8(0);
                put_varint(&mut head, packed);
            }
        }
        self.elements.value(Kind::List, head)
    }
}

/// Redis's name of the encoding of a list.
pub(crate) fn encoding(value: &Value) -> &'static str {
    match read_head(value) {
        Some((Some(_), _)) => "listpack",
        _ => "quicklist",
    }
}

fn read_head(value: &Value) -> Option<(Option<u64>, Bytes)> {
    let (Value::Inline { body, .. } | Value::Rows { body, .. }) = value else { return None };
    let (marks, mut rest) = body.split_first()?;
    let packed = match *marks {
        0 => Some(read_varint(&mut rest)?),
        MARK_QUICKLIST => None,
        _ => return None,
    };
    Some((packed, body.slice_ref(rest)))
}

/// A list that is being changed. [`ListEdit::finish`] writes its header, once, with a new version.
pub(crate) struct ListEdit<'k> {
    key: &'k [u8],
    found: Found,
    list: List,
    changed: bool,
    shrunk: bool,
}

impl<'k> ListEdit<'k> {
    /// Begins with the list at a key, or with an empty one.
    ///
    /// *Errors*: `WrongType` if the key holds something else.
    pub(crate) fn open(view: &dyn View, key: &'k [u8]) -> Result<ListEdit<'k>, CommandError> {
        let found = keyspace::lookup_of(view, key, Kind::List)?;
        let list = match found.header() {
            Some(header) => List::of(view, key, &header.value)?,
            None => List { elements: Sequence::empty(None), packed_bytes: Some(0) },
        };
        Ok(ListEdit { key, found, list, changed: false, shrunk: false })
    }

    /// Whether the key exists for clients.
    pub(crate) fn exists(&self) -> bool {
        self.found.exists()
    }

    /// How many elements it has.
    pub(crate) fn count(&self) -> u64 {
        self.list.elements.count()
    }

    /// Its elements.
    pub(crate) fn elements(&self) -> &Sequence {
        &self.list.elements
    }

    /// Redis decides before it adds elements whether they still fit into a listpack.
    pub(crate) fn will_add(&mut self, elements: &[Bytes]) {
        let added: u64 = elements.iter().map(|element| element.len() as u64).sum();
        let packed = self.list.packed_bytes;
        let fits = |packed: &u64| packed + added + LISTPACK_FRAME_BYTES <= LISTPACK_BYTES_MAX;
        self.list.packed_bytes = packed.filter(fits);
    }

    /// Puts elements at an end, one after the other.
    pub(crate) fn push(
        &mut self,
        txn: &mut Txn<'_>,
        end: End,
        elements: &[Bytes],
    ) -> Result<(), ViewError> {
        self.push_each(txn, end, &[elements])
    }

    /// The same for elements that come a few at a time, which is what Redis looks at.
    pub(crate) fn push_each(
        &mut self,
        txn: &mut Txn<'_>,
        end: End,
        parts: &[&[Bytes]],
    ) -> Result<(), ViewError> {
        for part in parts {
            self.will_add(part);
            if let Some(packed) = &mut self.list.packed_bytes {
                *packed += packed_bytes(part);
            }
        }
        let mut elements = parts.concat();
        let at = match end {
            End::Left => 0,
            End::Right => self.count(),
        };
        if end == End::Left {
            elements.reverse();
        }
        self.changed = true;
        self.list.elements.splice(txn, self.key, at..at, &elements)?;
        Ok(())
    }

    /// Takes up to `count` elements from an end, the outermost first.
    pub(crate) fn pop(
        &mut self,
        txn: &mut Txn<'_>,
        end: End,
        count: u64,
    ) -> Result<Vec<Bytes>, ViewError> {
        self.pop_within(txn, end, (count, usize::MAX))
    }

    /// The same, but none behind the one that has too many bytes with those before it.
    pub(crate) fn pop_within(
        &mut self,
        txn: &mut Txn<'_>,
        end: End,
        (count, bytes): (u64, usize),
    ) -> Result<Vec<Bytes>, ViewError> {
        let length = self.count();
        let most = count.min(length);
        let (positions, direction) = match end {
            End::Left => (0..most, Direction::Forward),
            End::Right => (length - most..length, Direction::Backward),
        };
        let (mut popped, mut left) = (Vec::new(), bytes);
        self.list.elements.walk(txn, positions, direction, &mut |item| {
            popped.push(item.share());
            match left.checked_sub(item.len()) {
                Some(rest) => left = rest,
                None => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        let count = popped.len() as u64;
        self.remove(txn, if end == End::Left { 0..count } else { length - count..length })?;
        Ok(popped)
    }

    /// Removes the elements at these positions.
    pub(crate) fn remove(
        &mut self,
        txn: &mut Txn<'_>,
        positions: Range<u64>,
    ) -> Result<(), ViewError> {
        if positions.is_empty() {
            return Ok(());
        }
        if positions == (0..self.count()) {
            // Nothing of it will be left: the whole generation goes, row by row is not needed.
            self.changed = true;
            self.list = List { elements: Sequence::empty(None), packed_bytes: Some(0) };
            return Ok(());
        }
        self.shrunk = true;
        self.splice(txn, positions, &[])
    }

    /// Puts an element in the place of another.
    pub(crate) fn set(
        &mut self,
        txn: &mut Txn<'_>,
        at: u64,
        element: &Bytes,
    ) -> Result<(), ViewError> {
        self.will_add(std::slice::from_ref(element));
        self.shrunk = true;
        self.splice(txn, at..at + 1, std::slice::from_ref(element))
    }

    /// Puts an element before the one at a position.
    pub(crate) fn insert(
        &mut self,
        txn: &mut Txn<'_>,
        at: u64,
        element: &Bytes,
    ) -> Result<(), ViewError> {
        self.splice(txn, at..at, std::slice::from_ref(element))
    }

    /// Marks the list as changed although no element is: Redis rewrites it, and so do we.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    fn splice(
        &mut self,
        txn: &mut Txn<'_>,
        positions: Range<u64>,
        insert: &[Bytes],
    ) -> Result<(), ViewError> {
        self.changed = true;
        if let Some(packed) = &mut self.list.packed_bytes {
            // It is small, so what goes is read for its size.
            let gone = self.list.elements.range(txn, positions.clone(), Direction::Forward)?;
            *packed = (*packed + packed_bytes(insert)).saturating_sub(packed_bytes(&gone));
        }
        self.list.elements.splice(txn, self.key, positions, insert)?;
        Ok(())
    }

    /// Ends the change: writes the header, or removes the key if no element is left.
    pub(crate) fn finish(mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        if !self.changed {
            return Ok(());
        }
        if self.count() == 0 {
            keyspace::remove(txn, self.key, self.found);
            return Ok(());
        }
        if self.shrunk {
            self.pack_again(txn)?;
        }
        let expire_at_ms = self.found.expire_at_ms();
        keyspace::store(txn, self.key, self.found, self.list.value(), expire_at_ms);
        Ok(())
    }

    /// Redis makes a listpack again of a quicklist that has shrunk to one small node. How its nodes
    /// were divided is not known here: the whole must be small.
    fn pack_again(&mut self, view: &dyn View) -> Result<(), ViewError> {
        let elements = &self.list.elements;
        let least = elements.bytes() + LISTPACK_ELEMENT_BYTES * elements.count();
        let small = least + LISTPACK_FRAME_BYTES <= LISTPACK_AGAIN_BYTES_MAX;
        if self.list.packed_bytes.is_none() && small {
            let all = elements.range(view, 0..elements.count(), Direction::Forward)?;
            self.list.packed_bytes = Some(packed_bytes(&all));
        }
        Ok(())
    }
}

fn packed_bytes(elements: &[Bytes]) -> u64 {
    elements.iter().map(|element| listpack::element_bytes(element) as u64).sum()
}

/// A list of these elements, for a key that [`keyspace::store`] puts it at.
pub(crate) fn build(txn: &mut Txn<'_>, key: &[u8], elements: &[Bytes]) -> Result<Value, ViewError> {
    let found = Found::nothing(txn, key);
    let list = List { elements: Sequence::empty(None), packed_bytes: Some(0) };
    let mut edit = ListEdit { key, found, list, changed: false, shrunk: false };
    edit.splice(txn, 0..0, elements)?;
    let packed = edit.list.packed_bytes;
    edit.list.packed_bytes =
        packed.filter(|packed| packed + LISTPACK_FRAME_BYTES <= LISTPACK_BYTES_MAX);
    Ok(edit.list.value())
}

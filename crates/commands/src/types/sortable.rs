//! What SORT sorts, and what it stores: the one place that knows the types it takes. They give their
//! elements in their own order, and a list is made of what STORE keeps.

use bytes::Bytes;

use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::header::{Kind, Value};
use crate::types::keyspace;
use crate::types::set::Set;
use crate::view::View;

/// Elements to be sorted.
pub(crate) struct Elements {
    /// Whether their order means something: that of a list and of a sorted set does.
    pub(crate) ordered: bool,
    pub(crate) elements: Vec<Bytes>,
}

/// The elements at a key; none if it does not exist.
///
/// *Errors*: `WrongType` if it holds nothing that SORT takes.
pub(crate) fn elements(view: &dyn View, key: &[u8]) -> Result<Elements, CommandError> {
    let Some(header) = keyspace::read(view, key)? else {
        return Ok(Elements { ordered: true, elements: Vec::new() });
    };
    match header.value.kind() {
        Kind::Set => {
            let elements = Set::of(view, key, &header.value)?.all()?;
            Ok(Elements { ordered: false, elements })
        }
        _ => Err(CommandError::WrongType),
    }
}

/// A list of these elements, for a key that [`keyspace::store`] puts it at.
///
/// *Errors*: there are no lists yet.
pub(crate) fn list_of(_: &mut Txn<'_>, _: &[u8], _: Vec<Bytes>) -> Result<Value, CommandError> {
    Err(CommandError::SORT_STORE)
}

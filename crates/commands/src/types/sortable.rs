//! What SORT sorts: the one place that knows the types it takes. They give their elements in their
//! own order.

use bytes::Bytes;

use crate::error::CommandError;
use crate::types::header::Kind;
use crate::types::keyspace;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::sorted_set::SortedSet;
use crate::view::{Direction, View};

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
        Kind::List => {
            let List { elements, .. } = List::of(view, key, &header.value)?;
            let elements = elements.range(view, 0..elements.count(), Direction::Forward)?;
            Ok(Elements { ordered: true, elements })
        }
        Kind::SortedSet => {
            let members = SortedSet::of(view, key, &header.value)?.all(view)?;
            let elements = members.into_iter().map(|member| member.name).collect();
            Ok(Elements { ordered: true, elements })
        }
        _ => Err(CommandError::WrongType),
    }
}

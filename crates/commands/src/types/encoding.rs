//! What OBJECT ENCODING says: Redis's names for how *it* would hold the value.

use crate::args::parse_int;
use crate::types::hash;
use crate::types::header::{Kind, TextForm, Value};
use crate::types::list;
use crate::types::set;
use crate::types::sorted_set;

/// Longest string that Redis keeps beside its object, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;
/// Numbers from 0 on that Redis has one object each for.
const SHARED_NUMBERS: i64 = 10_000;

/// The name of a value's encoding.
pub(crate) fn name(value: &Value) -> &'static str {
    match value {
        Value::String { text, form } => text_name(text, *form),
        Value::Inline { kind: Kind::Stream, .. } | Value::Rows { kind: Kind::Stream, .. } => {
            "stream"
        }
        Value::Inline { kind: Kind::Hash, .. } | Value::Rows { kind: Kind::Hash, .. } => {
            hash::meta_of(value).unwrap_or_default().encoding()
        }
        Value::Inline { kind: Kind::Set, .. } | Value::Rows { kind: Kind::Set, .. } => {
            set::encoding_of(value).name()
        }
        Value::Inline { kind: Kind::List, .. } | Value::Rows { kind: Kind::List, .. } => {
            list::encoding(value)
        }
        Value::Inline { kind: Kind::SortedSet, .. } | Value::Rows { kind: Kind::SortedSet, .. } => {
            sorted_set::encoding(value)
        }
        Value::Inline { .. } => "listpack",
        Value::Rows { .. } => "hashtable",
    }
}

/// Whether Redis would use an object that others use, too.
pub(crate) fn is_shared(value: &Value) -> bool {
    match value {
        Value::String { text, form: TextForm::Auto } => {
            parse_int(text).is_some_and(|number| (0..SHARED_NUMBERS).contains(&number))
        }
        _ => false,
    }
}

fn text_name(text: &[u8], form: TextForm) -> &'static str {
    match form {
        TextForm::Raw => "raw",
        TextForm::Auto if parse_int(text).is_some() => "int",
        _ if text.len() <= EMBEDDED_BYTES_MAX => "embstr",
        _ => "raw",
    }
}

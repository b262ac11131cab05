//! The sole home of texts a client can see when something is refused.

use std::borrow::Cow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::view::ViewError;

/// A refusal. Its `Display` is the line after `-`, prefix included.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// A number was expected.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// A floating-point number was expected.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// An option is unknown or misplaced.
    #[error("ERR syntax error")]
    Syntax,
    /// Anything else, with its prefix.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// A stored row could not be read.
    #[error("ERR {0}")]
    Storage(String),
}

impl From<ViewError> for CommandError {
    fn from(error: ViewError) -> CommandError {
        CommandError::Storage(error.to_string())
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Reply {
        Reply::Error(Bytes::from(error.to_string()))
    }
}

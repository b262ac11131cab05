//! The sole home of texts a client can see when something is refused.

use std::borrow::Cow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::view::ViewError;

/// A refusal. Its `Display` is the line after `-`, prefix included.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
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
    /// Too few or too many arguments for the command of this lower-case name.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// The key of RENAME and its like does not exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// An integer would leave its range.
    #[error("ERR increment or decrement would overflow")]
    IncrementOverflow,
    /// DECRBY by the one number that has no negative.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// INCRBYFLOAT would leave the numbers.
    #[error("ERR increment would produce NaN or Infinity")]
    IncrementNotFinite,
    /// The resulting string would be too long.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// A negative offset into a string.
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    /// A time to live that is not positive or too far away, for the command of this lower-case
    /// name.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpireTime(&'static str),
    /// EXPIRE was given an option it does not know.
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    /// SCAN was given no cursor.
    #[error("ERR invalid cursor")]
    InvalidCursor,
    /// RESTORE met a key without REPLACE.
    #[error("BUSYKEY Target key name already exists.")]
    BusyKey,
    /// RESTORE was given something that DUMP never made.
    #[error("ERR Bad data format")]
    BadDataFormat,
    /// Any other fixed text, with its prefix; the constants below are such.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// A stored row could not be read.
    #[error("ERR {0}")]
    Storage(String),
}

#[allow(missing_docs, reason = "the text says it")]
impl CommandError {
    pub const EXPIRE_NX_CONFLICT: CommandError =
        CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible");
    pub const EXPIRE_GT_LT_CONFLICT: CommandError =
        CommandError::text("ERR GT and LT options at the same time are not compatible");
    pub const DB_OUT_OF_RANGE: CommandError = CommandError::text("ERR DB index is out of range");
    pub const SAME_OBJECT: CommandError =
        CommandError::text("ERR source and destination objects are the same");
    pub const LCS_NOT_STRINGS: CommandError =
        CommandError::text("ERR The specified keys must contain string values");
    pub const LCS_LEN_AND_IDX: CommandError =
        CommandError::text("ERR If you want both the length and indexes, please just use IDX.");
    pub const LCS_TOO_BIG: CommandError = CommandError::text(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    );
    pub const NOT_LFU: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
         that when switching between policies at runtime LRU and LFU data will take some time to \
         adjust.",
    );
    pub const NOT_DUMPABLE: CommandError =
        CommandError::text("ERR DUMP does not know the type of this value");
    pub const RESTORE_TTL: CommandError = CommandError::text("ERR Invalid TTL value, must be >= 0");
    pub const RESTORE_IDLETIME: CommandError =
        CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
    pub const RESTORE_FREQ: CommandError =
        CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
    pub const RESTORE_CHECKSUM: CommandError =
        CommandError::text("ERR DUMP payload version or checksum are wrong");

    /// A fixed text, prefix included.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }
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

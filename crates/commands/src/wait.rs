//! Commands that wait for data (BLPOP, XREAD BLOCK): what for, and for how long.
//!
//! Their handlers are like all others and answer a null when there is nothing: what such a command
//! says inside MULTI or a script. Their rows name a second function besides, which is asked only
//! after such an answer: it says at which keys a value of what kind is awaited. Whoever can wait
//! keeps the command line until one of the keys changes, and runs the handler again.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, parse_int};
use crate::error::CommandError;
use crate::types::header::Kind;
use crate::types::long_double::LongDouble;
use crate::view::View;

/// Says what a command line waits for that was just answered by a null; `None` if it does not wait.
pub type WaitHandler = fn(&dyn View, Args<'_>) -> Result<Option<Wait>, CommandError>;

/// What a command line waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// The keys where it may appear.
    pub keys: Vec<Bytes>,
    /// What must be there for another try to make sense.
    pub kind: Kind,
    /// Another try is due, too, when anything else becomes of a key: then it is refused.
    pub or_gone: bool,
    /// How long it waits, in ms; `None` is for ever.
    pub timeout_ms: Option<u64>,
    /// The line to be tried again, if it is not the one that was sent.
    pub args: Option<Vec<Bytes>>,
}

impl Wait {
    /// A wait for a value of a kind, for any of these keys.
    pub(crate) fn new(kind: Kind, keys: &[Bytes], timeout_ms: Option<u64>) -> Wait {
        Wait { keys: keys.to_vec(), kind, or_gone: false, timeout_ms, args: None }
    }
}

/// Whether a reply says that there was nothing.
pub fn is_nothing(reply: &Reply) -> bool {
    matches!(reply, Reply::Null | Reply::NullArray)
}

/// Reads a timeout in seconds, with a fraction, as milliseconds rounded up; `None` is for ever.
///
/// *Errors*: those of Redis, which refuses what would end beyond its clock's last moment.
pub(crate) fn timeout_of_seconds(text: &[u8], now_ms: u64) -> Result<Option<u64>, CommandError> {
    let seconds = LongDouble::parse(text).ok_or(CommandError::TIMEOUT_NOT_FLOAT)?;
    let ms = seconds.thousandfold_rounded_up().ok_or(CommandError::TIMEOUT_RANGE)?;
    timeout(ms, now_ms)
}

/// Reads a timeout in milliseconds; `None` is for ever.
///
/// *Errors*: as [`timeout_of_seconds`].
pub(crate) fn timeout_of_ms(text: &[u8], now_ms: u64) -> Result<Option<u64>, CommandError> {
    timeout(parse_int(text).ok_or(CommandError::PAUSE_NOT_INTEGER)?, now_ms)
}

fn timeout(ms: i64, now_ms: u64) -> Result<Option<u64>, CommandError> {
    let ms = u64::try_from(ms).map_err(|_| CommandError::PAUSE_NEGATIVE)?;
    if ms > (i64::MAX as u64).saturating_sub(now_ms) {
        return Err(CommandError::TIMEOUT_RANGE);
    }
    Ok((ms > 0).then_some(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    #[test]
    fn timeouts_as_redis_reads_them() {
        let seconds = |text: &str| timeout_of_seconds(text.as_bytes(), NOW_MS);
        for (text, ms) in [
            ("0", None),
            ("-0", None),
            ("0.0", None),
            ("-0.0005", None),
            ("1", Some(1_000)),
            ("0.001", Some(1)),
            ("0.0000001", Some(1)),
            ("1.0001", Some(1_001)),
            ("0x10", Some(16_000)),
            ("1e3", Some(1_000_000)),
            ("9223370336854775.8", Some(9_223_370_336_854_775_800)),
        ] {
            assert_eq!(seconds(text), Ok(ms), "{text}");
        }
        for (text, error) in [
            ("", CommandError::TIMEOUT_NOT_FLOAT),
            ("nan", CommandError::TIMEOUT_NOT_FLOAT),
            ("x", CommandError::TIMEOUT_NOT_FLOAT),
            (" 1", CommandError::TIMEOUT_NOT_FLOAT),
            ("-1", CommandError::PAUSE_NEGATIVE),
            ("-0.002", CommandError::PAUSE_NEGATIVE),
            ("-inf", CommandError::PAUSE_NEGATIVE),
            ("-1e300", CommandError::PAUSE_NEGATIVE),
            ("inf", CommandError::TIMEOUT_RANGE),
            ("1e300", CommandError::TIMEOUT_RANGE),
            ("0x7FFFFFFFFFFFFFFF", CommandError::TIMEOUT_RANGE),
            ("9223370336854776", CommandError::TIMEOUT_RANGE),
        ] {
            assert_eq!(seconds(text), Err(error), "{text}");
        }
        let ms = |text: &str| timeout_of_ms(text.as_bytes(), NOW_MS);
        assert_eq!((ms("0"), ms("7")), (Ok(None), Ok(Some(7))));
        assert_eq!(ms("-1"), Err(CommandError::PAUSE_NEGATIVE));
        assert_eq!(ms("1.5"), Err(CommandError::PAUSE_NOT_INTEGER));
        assert_eq!(ms("9223372036854775807"), Err(CommandError::TIMEOUT_RANGE));
    }
}

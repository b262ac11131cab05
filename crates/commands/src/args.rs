//! A command's arguments, and the one parser for every number a client can send.
//!
//! Numbers are read exactly as Redis reads them, since what it refuses is part of its contract:
//! an integer has no leading `+`, blank or zero and fits `i64`. Every `usize` computed from one is
//! checked, and results are bounded *before* memory is taken for them ([`VALUE_BYTES_MAX`]).

use bytes::Bytes;

use crate::error::CommandError;

/// Longest string a command may make, in bytes. Redis allows 512 MB; a value here is also a log
/// entry and a row, and a client who can make 512 MB out of a 40-byte SETRANGE hurts all others.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Longest option word; anything longer is none.
const WORD_BYTES_MAX: usize = 16;

/// The arguments of a command, its name at position 0.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(pub &'a [Bytes]);

impl<'a> Args<'a> {
    /// How many there are, the name included.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The argument at a position, if there is one.
    pub fn get(self, at: usize) -> Option<&'a Bytes> {
        self.0.get(at)
    }

    /// The argument at a position. A missing one is a syntax error: arity is checked before a
    /// handler runs, so this is met only behind an option.
    pub fn bytes(self, at: usize) -> Result<&'a Bytes, CommandError> {
        self.0.get(at).ok_or(CommandError::Syntax)
    }

    /// The integer at a position.
    pub(crate) fn int(self, at: usize) -> Result<i64, CommandError> {
        parse_int(self.bytes(at)?).ok_or(CommandError::NotInteger)
    }

    /// The arguments from a position on; empty if there are none.
    pub fn from(self, at: usize) -> &'a [Bytes] {
        self.0.get(at..).unwrap_or_default()
    }

    /// The options from a position on.
    pub(crate) fn options(self, from: usize) -> Options<'a> {
        Options { rest: self.from(from) }
    }
}

/// Options after a command's fixed arguments, read front to back.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a> {
    rest: &'a [Bytes],
}

impl<'a> Options<'a> {
    /// The next argument as an option's name, in upper case; `None` at the end.
    pub(crate) fn word(&mut self) -> Option<Word> {
        self.raw().map(|raw| Word::new(raw))
    }

    /// The next argument as it is; `None` at the end.
    pub(crate) fn raw(&mut self) -> Option<&'a Bytes> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The value of the option just read.
    ///
    /// *Errors*: `Syntax` if there is none.
    pub(crate) fn value(&mut self) -> Result<&'a Bytes, CommandError> {
        self.raw().ok_or(CommandError::Syntax)
    }

    /// The value of the option just read, as an integer.
    ///
    /// *Errors*: `Syntax` if there is none, `NotInteger` if it is no integer.
    pub(crate) fn int(&mut self) -> Result<i64, CommandError> {
        parse_int(self.value()?).ok_or(CommandError::NotInteger)
    }

    /// How many arguments are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

/// An option's name in upper case, on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: usize,
}

impl Word {
    /// The upper case of `raw`; of something too long to be an option, the empty word.
    pub(crate) fn new(raw: &[u8]) -> Word {
        let mut word = Word { bytes: [0; WORD_BYTES_MAX], length: 0 };
        if let Some(bytes) = word.bytes.get_mut(..raw.len()) {
            bytes.copy_from_slice(raw);
            bytes.make_ascii_uppercase();
            word.length = raw.len();
        }
        word
    }

    /// The word, to be matched against literals.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Reads an integer as Redis does: `-?[1-9][0-9]*` or `0`, within `i64`.
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    if digits == b"0" && !negative {
        return Some(0);
    }
    if !matches!(digits.first()?, b'1'..=b'9') || digits.len() > 19 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = i64::from(digit.checked_sub(b'0').filter(|d| *d <= 9)?);
        // Counting downwards reaches i64::MIN, whose positive twin does not exist.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Reads the integer of 32 bits that SELECT and COPY take for a table's number.
///
/// *Errors*: `NotInteger`, or a text that says the range.
pub fn parse_int32(text: &[u8]) -> Result<i32, CommandError> {
    let value = parse_int(text).ok_or(CommandError::NotInteger)?;
    i32::try_from(value).map_err(|_| CommandError::INT32_RANGE)
}

/// Reads SCAN's cursor as Redis 7.2 does, by C's `strtoul`: leading zeros and signs pass, a
/// negative number wraps, a NUL ends the text, and nothing at all is 0.
///
/// *Errors*: `InvalidCursor`.
pub fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let (negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let magnitude = digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    });
    let magnitude = magnitude.filter(|_| !digits.is_empty()).ok_or(CommandError::InvalidCursor)?;
    Ok(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// The decimal digits of an integer.
pub(crate) fn int_text(value: i64) -> Bytes {
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_redis_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("7", 7),
            ("-7", -7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1.0",
            "1e3",
            "0x1",
            "one",
            "1\0",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "--1",
            "/",
            ":",
        ] {
            assert_eq!(parse_int(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn cursors_as_redis_reads_them() {
        assert_eq!(parse_cursor(b"0"), Ok(0));
        assert_eq!(parse_cursor(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_cursor(b"007"), Ok(7));
        assert_eq!(parse_cursor(b""), Ok(0));
        assert_eq!(parse_cursor(b"+7"), Ok(7));
        assert_eq!(parse_cursor(b"\0x"), Ok(0));
        assert_eq!(parse_cursor(b"7\0x"), Ok(7));
        assert_eq!(parse_cursor(b"-1"), Ok(u64::MAX));
        for text in ["-", " 1", "1 ", "18446744073709551616", "-18446744073709551616", "1x", "x"] {
            assert_eq!(parse_cursor(text.as_bytes()), Err(CommandError::InvalidCursor), "{text}");
        }
    }

    #[test]
    fn words_are_upper_case_and_short() {
        assert_eq!(Word::new(b"keepTTL").as_bytes(), b"KEEPTTL");
        assert_eq!(Word::new(&[b'x'; 17]).as_bytes(), b"");
        assert_eq!(Word::new(&[b'x'; 16]).as_bytes(), &[b'X'; 16]);
    }
}

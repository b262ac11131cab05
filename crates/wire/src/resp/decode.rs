//! Requests: what a client may send.
//!
//! ```text
//! request = array / inline
//! array   = "*" count CRLF count*( "$" length CRLF length*OCTET CRLF )
//! inline  = line ( LF / CRLF )                     ; words: see inline.rs
//! ```
//!
//! An array of count ≤ 0 and a line without words ask for nothing and are skipped. Texts of
//! refusals and what they follow from are Redis's, and so is what is *not* looked at: the byte after
//! a header's CR and the two bytes after a bulk. One thing differs: Redis waits for ever on an
//! inline command with a NUL in it, we refuse it.
//!
//! **Incremental.** The decoder keeps what it has understood of a partial command, so no byte is
//! looked at twice however a command is cut into reads. The result never depends on the cuts.
//!
//! **Zero-copy.** Arguments are slices of the read buffer. The exception is an argument of at least
//! [`LARGE_BULK_BYTES`] that arrives in several reads: it is gathered in an allocation of its own.
//! So the read buffer never grows to the size of the largest value (a 5-byte argument after it
//! would pin all of it), and its growth never copies the value again.
//!
//! **Memory follows what was received**, never what was declared: `*1048576` or `$67108864`
//! allocate nothing.
//!
//! This module is ours because `redis-protocol` builds a tree of frames and starts over on a
//! partial one; the `decode` bench shows both. Tests hold the two against each other.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::inline::split_arguments;
use super::{Limits, Reply};

/// A command's name and arguments.
pub type Arguments = SmallVec<[Bytes; 4]>;

/// A partly received argument of at least so many bytes is gathered apart from the read buffer.
const LARGE_BULK_BYTES: usize = 32 * 1024;

/// The first allocation for a large argument; it doubles with what arrives.
const LARGE_BULK_FIRST_BYTES: usize = 64 * 1024;

const CRLF_BYTES: usize = 2;

/// What a client sent is no request. The connection answers [`DecodeError::to_reply`] and closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// `*` with something else than a number, or one beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidArrayLength,
    /// More arguments than a client may send before it has logged in.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedArrayLength,
    /// A `*` line without an end.
    #[error("Protocol error: too big mbulk count string")]
    ArrayHeaderTooLong,
    /// Something else than a bulk string in an array.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// `$` with something else than a number, or one beyond the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// A longer argument than a client may send before it has logged in.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// A `$` line without an end.
    #[error("Protocol error: too big bulk count string")]
    BulkHeaderTooLong,
    /// An inline command without an end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// Quotes of an inline command do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline command with a NUL: most likely another protocol.
    #[error("Protocol error: NUL in inline request")]
    NulInInline,
    /// One command is larger than the query buffer may be.
    #[error("Protocol error: request exceeds the query buffer limit")]
    QueryBufferFull,
}

impl DecodeError {
    /// The error reply, `ERR` included.
    pub fn to_reply(self) -> Reply {
        let mut line = format!("ERR {self}").into_bytes();
        if let DecodeError::ExpectedBulk(byte) = self {
            // The byte itself, as Redis echoes it, not its UTF-8 form.
            line.truncate(line.len() - char::from(byte).len_utf8() - 1);
            line.extend([byte, b'\'']);
        }
        Reply::Error(Bytes::from(line))
    }
}

/// Decodes the requests of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    /// Arguments of the current array that are still to come; 0 between commands.
    missing: usize,
    /// Length of the argument whose header has been read and whose body is incomplete.
    bulk: Option<usize>,
    /// The arguments of the current array that are complete.
    args: Arguments,
    /// How many of `args` no longer refer to the read buffer.
    detached: usize,
    /// What has arrived of a large argument (and of its CRLF).
    large: Vec<u8>,
    /// Bytes at the start of the read buffer known to hold no end of line.
    scanned: usize,
    /// Bytes of the current command that have left the read buffer.
    taken: usize,
    /// Why decoding ended. A stream that was misread once has no next command.
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Decoder {
        Decoder { limits, ..Decoder::default() }
    }

    /// Changes the limits, from the next header on. To be called between two commands (after AUTH
    /// was *executed*): so a client that has not logged in is decoded one command at a time.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes the next complete command out of `buffer`; `None` if more bytes are needed.
    ///
    /// The name and the arguments are at least one. What was understood of a partial command is
    /// kept here, so `buffer` must be the same one at every call, only ever appended to.
    ///
    /// *Errors*: the stream is not RESP or exceeds a limit. All later calls answer the same.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let outcome = self.next_command(buffer);
        if let Err(error) = outcome {
            *self = Decoder { limits: self.limits, failed: Some(error), ..Decoder::default() };
        }
        outcome
    }

    /// Bytes held here for a command that is not complete, beside what is in the read buffer.
    pub fn pending_bytes(&self) -> usize {
        self.large.capacity()
            + self.args.iter().map(|arg| size_of::<Bytes>() + arg.len()).sum::<usize>()
    }

    /// Makes what is held of a partial command independent of the read buffer, so that its memory can
    /// be used again while the client takes its time. Copies each argument once at most.
    pub fn detach(&mut self) {
        for arg in &mut self.args[self.detached..] {
            // Larger ones were gathered apart, or fill most of the buffer anyway.
            if arg.len() < LARGE_BULK_BYTES {
                *arg = Bytes::copy_from_slice(arg);
            }
        }
        self.detached = self.args.len();
    }

    /// How many bytes the argument in progress still lacks at least (0 if unknown): what a
    /// connection may use to size its next read.
    pub fn missing_bytes(&self, buffer: &BytesMut) -> usize {
        self.bulk.map_or(0, |length| {
            (length + CRLF_BYTES).saturating_sub(self.large.len() + buffer.len())
        })
    }

    #[inline]
    fn next_command(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, DecodeError> {
        while self.missing == 0 {
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(count) = self.array_header(buffer)? else { return Ok(None) };
                    self.missing = count;
                }
                Some(_) => match self.inline_command(buffer)? {
                    Some(args) if args.is_empty() => {}
                    other => return Ok(other),
                },
            }
        }
        self.array_body(buffer)
    }

    /// Reads `*count CRLF`; a count below 0 is 0.
    fn array_header(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, DecodeError> {
        let Some(line) = self.line(buffer).map_err(|_| DecodeError::ArrayHeaderTooLong)? else {
            return Ok(None);
        };
        let count = parse_number(&buffer[1..line]).ok_or(DecodeError::InvalidArrayLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > self.limits.args {
            return Err(if self.limits.authenticated || count > i32::MAX as usize {
                DecodeError::InvalidArrayLength
            } else {
                DecodeError::UnauthenticatedArrayLength
            });
        }
        buffer.advance(line + CRLF_BYTES);
        self.taken = line + CRLF_BYTES;
        Ok(Some(count))
    }

    /// Reads the arguments of an array as far as they have arrived.
    #[inline]
    fn array_body(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, DecodeError> {
        // Complete arguments are noted as ranges first and cut off in one piece: one split of the
        // read buffer for each command instead of one for each argument.
        let mut ranges: SmallVec<[Range<usize>; 8]> = SmallVec::new();
        let mut at = 0;
        while self.missing > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.bulk_header(buffer, at)? {
                    Some((length, next)) => {
                        at = next;
                        self.bulk = Some(length);
                        length
                    }
                    None => break,
                },
            };
            let end = at + length;
            if !self.large.is_empty() || buffer.len() < end + CRLF_BYTES {
                self.cut(buffer, at, &mut ranges);
                at = 0;
                if length < LARGE_BULK_BYTES || !self.gather_large(buffer, length)? {
                    return Ok(None);
                }
            } else {
                ranges.push(at..end);
                at = end + CRLF_BYTES;
            }
            self.bulk = None;
            self.missing -= 1;
        }
        self.cut(buffer, at, &mut ranges);
        if self.missing > 0 {
            return Ok(None);
        }
        self.detached = 0;
        Ok(Some(std::mem::take(&mut self.args)))
    }

    /// Takes the first `length` bytes off the buffer and the arguments in them.
    #[inline]
    fn cut(
        &mut self,
        buffer: &mut BytesMut,
        length: usize,
        ranges: &mut SmallVec<[Range<usize>; 8]>,
    ) {
        if length == 0 {
            return;
        }
        self.taken += length;
        let mut block = buffer.split_to(length).freeze();
        let Some(last) = ranges.pop() else { return };
        for range in ranges.iter() {
            self.args.push(block.slice(range.clone()));
        }
        ranges.clear();
        // The last argument takes the block over: one reference less to count.
        block.truncate(last.end);
        block.advance(last.start);
        self.args.push(block);
    }

    /// Reads `$length CRLF` at `at`. Returns the length and where the body starts.
    #[inline]
    fn bulk_header(
        &mut self,
        buffer: &[u8],
        at: usize,
    ) -> Result<Option<(usize, usize)>, DecodeError> {
        let header = &buffer[at..];
        match header.first() {
            None => return Ok(None),
            Some(b'$') => {}
            // A line break would break the error line; Redis prints a space as well.
            Some(b'\r' | b'\n') => return Err(DecodeError::ExpectedBulk(b' ')),
            Some(&other) => return Err(DecodeError::ExpectedBulk(other)),
        }
        let (length, line) = match *header {
            // Nearly all headers are one or two digits.
            [_, ones @ b'0'..=b'9', b'\r', _, ..] => (usize::from(ones - b'0'), 2),
            [_, tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..] => {
                (usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), 3)
            }
            _ => {
                let line = self.line(header).map_err(|_| DecodeError::BulkHeaderTooLong)?;
                let Some(line) = line else { return Ok(None) };
                let length = parse_number(&header[1..line]);
                let length = length.and_then(|length| usize::try_from(length).ok());
                (length.ok_or(DecodeError::InvalidBulkLength)?, line)
            }
        };
        self.scanned = 0;
        if length > self.limits.bulk_bytes {
            return Err(if self.limits.authenticated {
                DecodeError::InvalidBulkLength
            } else {
                DecodeError::UnauthenticatedBulkLength
            });
        }
        let body = at + line + CRLF_BYTES;
        if self.taken + body + length > self.limits.query_buffer_bytes {
            return Err(DecodeError::QueryBufferFull);
        }
        Ok(Some((length, body)))
    }

    /// Moves what has arrived of a large argument out of the read buffer. True once it is complete
    /// and among the arguments.
    fn gather_large(&mut self, buffer: &mut BytesMut, length: usize) -> Result<bool, DecodeError> {
        let whole = length + CRLF_BYTES;
        let arrived = buffer.len().min(whole - self.large.len());
        let needed = self.large.len() + arrived;
        if needed > self.large.capacity() {
            let doubled = (2 * needed).max(LARGE_BULK_FIRST_BYTES).min(whole);
            self.large.reserve_exact(doubled - self.large.len());
        }
        self.large.extend_from_slice(&buffer[..arrived]);
        buffer.advance(arrived);
        self.taken += arrived;
        if self.large.len() < whole {
            return Ok(false);
        }
        self.large.truncate(length);
        self.args.push(Bytes::from(std::mem::take(&mut self.large)));
        Ok(true)
    }

    /// Reads an inline command. Empty arguments mean an empty line.
    fn inline_command(&mut self, buffer: &mut BytesMut) -> Result<Option<Arguments>, DecodeError> {
        // A NUL is looked for along with the end: the start of a TLS handshake holds one, and its
        // client sends no line's end but waits for an answer.
        let end = memchr::memchr2(b'\n', 0, &buffer[self.scanned..]).map(|at| self.scanned + at);
        if end.unwrap_or(buffer.len()) > self.limits.line_bytes {
            return Err(DecodeError::InlineTooLong);
        }
        let Some(end) = end else {
            self.scanned = buffer.len();
            return Ok(None);
        };
        if buffer[end] == 0 {
            return Err(DecodeError::NulInInline);
        }
        self.scanned = 0;
        let mut line = buffer.split_to(end + 1).freeze();
        line.truncate(if line[..end].ends_with(b"\r") { end - 1 } else { end });
        // As in Redis, what bounds the words of a line is its length.
        let args = split_arguments(&line).map_err(|_| DecodeError::UnbalancedQuotes)?;
        Ok(Some(args))
    }

    /// Finds the CR of the header line that `bytes` starts with. `None` until the byte after the CR
    /// is there too; an error if the line is longer than allowed.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<usize>, LineTooLong> {
        let end = bytes[self.scanned..].iter().position(|&byte| byte == b'\r');
        let end = end.map(|at| self.scanned + at);
        if end.unwrap_or(bytes.len()) > self.limits.line_bytes {
            return Err(LineTooLong);
        }
        match end {
            Some(end) if end + 1 < bytes.len() => {
                self.scanned = 0;
                Ok(Some(end))
            }
            _ => {
                self.scanned = end.unwrap_or(bytes.len());
                Ok(None)
            }
        }
    }
}

struct LineTooLong;

/// Digits of the longest number.
const NUMBER_BYTES_MAX: usize = 20;

/// Parses a number as Redis's `string2ll`: no sign but `-`, no blank, no leading zero, no `-0`.
fn parse_number(digits: &[u8]) -> Option<i64> {
    match *digits {
        [ones @ b'0'..=b'9'] => return Some(i64::from(ones - b'0')),
        _ if digits.len() > NUMBER_BYTES_MAX => return None,
        _ => {}
    }
    let (negative, magnitude) = match digits.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, digits),
    };
    if !matches!(magnitude.first(), Some(b'1'..=b'9')) {
        return None;
    }
    magnitude.iter().try_fold(0i64, |number, &digit| {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        // Towards the sign, so that i64::MIN is reached without overflow.
        number.checked_mul(10)?.checked_add(if negative { -digit } else { digit })
    })
}

#[cfg(test)]
mod tests;

//! A client of raw bytes. A reply is kept as it came and as a tree: the bytes are what the
//! differential test compares, the tree is what its listed differences look into.
//!
//! ```text
//! reply   = simple | error | int | bulk | array | null | double | bool | bignum | verbatim | map | set | push
//! bulk    = "$" length CRLF bytes CRLF | "$-1" CRLF        ; likewise "=" verbatim, "!" bulk error
//! array   = "*" count CRLF reply* | "*-1" CRLF             ; likewise "~" set, ">" push
//! map     = "%" count CRLF (reply reply)*
//! others  = one type byte, text, CRLF
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A server that says nothing for so long is taken for hung.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Nesting deeper than this is refused: no command of Redis's answers so.
const DEPTH_MAX: usize = 16;

/// A reply as a tree. Number-like types keep their text, so that two spellings stay two values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `+text`
    Simple(Vec<u8>),
    /// `-text`, or RESP3's `!` with a length
    Error(Vec<u8>),
    /// `:number`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// RESP2's `$-1` or `*-1`, or RESP3's `_`
    Nil,
    /// `*`
    Array(Vec<Value>),
    /// `,text`
    Double(Vec<u8>),
    /// `#t` or `#f`
    Bool(bool),
    /// `(text`
    BigNumber(Vec<u8>),
    /// `=`, format and colon included
    Verbatim(Vec<u8>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a simple string, a bulk string or a verbatim string (without its format).
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text) | Value::Bulk(text) => Some(text),
            Value::Verbatim(text) => text.get(4..),
            _ => None,
        }
    }

    /// The same as UTF-8, lossily; empty for other types.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(self.text().unwrap_or_default()).into_owned()
    }

    /// The elements of an array, set or push.
    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a map, or of an array that stands for one in RESP2.
    pub fn pairs(&self) -> Option<Vec<(&Value, &Value)>> {
        match self {
            Value::Map(pairs) => Some(pairs.iter().map(|(k, v)| (k, v)).collect()),
            Value::Array(items) if items.len() % 2 == 0 => {
                Some(items.chunks(2).map(|pair| (&pair[0], &pair[1])).collect())
            }
            _ => None,
        }
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The text of an error; empty if it is none.
    pub fn error_text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Value::Error(text) => String::from_utf8_lossy(text),
            _ => "".into(),
        }
    }
}

/// As text, not as lists of byte values: this is what a failed assertion prints.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "+{}", show(text)),
            Value::Error(text) => write!(f, "-{}", show(text)),
            Value::Int(number) => write!(f, ":{number}"),
            Value::Bulk(text) => write!(f, "\"{}\"", show(text)),
            Value::Nil => f.write_str("nil"),
            Value::Array(items) => f.debug_list().entries(items).finish(),
            Value::Double(text) => write!(f, ",{}", show(text)),
            Value::Bool(value) => write!(f, "#{value}"),
            Value::BigNumber(text) => write!(f, "({}", show(text)),
            Value::Verbatim(text) => write!(f, "=\"{}\"", show(text)),
            Value::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Value::Set(items) => f.debug_set().entries(items).finish(),
            Value::Push(items) => {
                f.write_str(">")?;
                f.debug_list().entries(items).finish()
            }
        }
    }
}

/// A reply: its bytes and what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// As it came over the wire.
    pub raw: Vec<u8>,
    /// Decoded.
    pub value: Value,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes read; those before `taken` are decoded.
    buffer: Vec<u8>,
    taken: usize,
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(Client { stream, buffer: Vec::new(), taken: 0 })
    }

    /// Another limit than 30 s on the wait for bytes.
    pub fn set_read_timeout(&self, limit: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("send")
    }

    /// Tells the server that nothing more will be sent.
    pub fn finish_sending(&self) -> Result<()> {
        Ok(self.stream.shutdown(std::net::Shutdown::Write)?)
    }

    /// The next reply; `None` when the server has closed the connection.
    pub fn read(&mut self) -> Result<Option<Reply>> {
        loop {
            if let Some((value, end)) = decode(&self.buffer, self.taken, 0)? {
                let raw = self.buffer[self.taken..end].to_vec();
                self.taken = end;
                return Ok(Some(Reply { raw, value }));
            }
            if !self.fill()? {
                ensure!(self.taken == self.buffer.len(), "closed in the middle of a reply");
                return Ok(None);
            }
        }
    }

    /// Reads more bytes; false when the server has closed the connection.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + 64 * 1024, 0);
        // A process that was stopped and goes on finds its wait interrupted.
        let outcome = loop {
            match self.stream.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buffer.truncate(old + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(count) => Ok(count > 0),
            // A server that closes while our bytes are unread makes the kernel send a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error).context("wait for a reply"),
        }
    }

    /// All bytes until the server closes the connection.
    pub fn read_to_close(&mut self) -> Result<Vec<u8>> {
        while self.fill()? {}
        Ok(self.buffer.split_off(self.taken))
    }

    /// Sends one command and gives its reply; a closed connection is an error.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value> {
        let mut bytes = Vec::new();
        encode(args, &mut bytes);
        self.send_raw(&bytes)?;
        match self.read()? {
            Some(reply) => Ok(reply.value),
            None => bail!("the server closed the connection"),
        }
    }

    /// [`Client::call`] with the words of a line, for commands without spaces in their arguments.
    pub fn line(&mut self, words: &str) -> Result<Value> {
        self.call(&words.split_whitespace().collect::<Vec<_>>())
    }
}

/// Appends a command as a RESP array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        into.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        into.extend_from_slice(arg);
        into.extend_from_slice(b"\r\n");
    }
}

/// The value that starts at `at` and where it ends; `None` if it is not all there yet.
fn decode(buffer: &[u8], at: usize, depth: usize) -> Result<Option<(Value, usize)>> {
    ensure!(depth <= DEPTH_MAX, "reply nested deeper than {DEPTH_MAX}");
    let Some(line_end) = buffer.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n'))
    else {
        return Ok(None);
    };
    let end = at + line_end + 1;
    ensure!(line_end >= 2 && buffer[end - 2] == b'\r', "line without CRLF: {:?}", &buffer[at..end]);
    let text = &buffer[at + 1..end - 2];
    let value = match buffer[at] {
        b'+' => Value::Simple(text.to_vec()),
        b'-' => Value::Error(text.to_vec()),
        b',' => Value::Double(text.to_vec()),
        b'(' => Value::BigNumber(text.to_vec()),
        b':' => Value::Int(number(text)?),
        b'_' if text.is_empty() => Value::Nil,
        b'#' if text == b"t" => Value::Bool(true),
        b'#' if text == b"f" => Value::Bool(false),
        b'$' | b'*' if text == b"-1" => Value::Nil,
        kind @ (b'$' | b'=' | b'!') => return decode_sized(buffer, kind, number(text)?, end),
        kind @ (b'*' | b'~' | b'>' | b'%') => {
            return decode_many(buffer, kind, number(text)?, end, depth);
        }
        other => bail!("reply of unknown type {:?}", other as char),
    };
    Ok(Some((value, end)))
}

fn decode_sized(buffer: &[u8], kind: u8, size: i64, at: usize) -> Result<Option<(Value, usize)>> {
    let size = usize::try_from(size).context("negative length")?;
    let Some(body) = buffer.get(at..at + size + 2) else { return Ok(None) };
    ensure!(body.ends_with(b"\r\n"), "string without CRLF");
    let body = body[..size].to_vec();
    let value = match kind {
        b'$' => Value::Bulk(body),
        b'=' => Value::Verbatim(body),
        _ => Value::Error(body),
    };
    Ok(Some((value, at + size + 2)))
}

fn decode_many(
    buffer: &[u8],
    kind: u8,
    count: i64,
    mut at: usize,
    depth: usize,
) -> Result<Option<(Value, usize)>> {
    let count = usize::try_from(count).context("negative count")?;
    let parts = if kind == b'%' { 2 * count } else { count };
    let mut items = Vec::new();
    for _ in 0..parts {
        let Some((item, end)) = decode(buffer, at, depth + 1)? else { return Ok(None) };
        items.push(item);
        at = end;
    }
    let value = match kind {
        b'*' => Value::Array(items),
        b'~' => Value::Set(items),
        b'>' => Value::Push(items),
        _ => {
            let mut items = items.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
    };
    Ok(Some((value, at)))
}

fn number(text: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(text)?;
    text.parse().with_context(|| format!("number {text:?}"))
}

/// Bytes as redis-cli would take them inside double quotes; long ones are cut.
pub fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 300;
    let mut text = bytes.iter().take(SHOWN_MAX).fold(String::new(), |mut text, byte| {
        match byte {
            b'\\' | b'"' => text.extend(['\\', *byte as char]),
            b' '..=b'~' => text.push(*byte as char),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
        text
    });
    if bytes.len() > SHOWN_MAX {
        text.push_str(&format!("…({} bytes)", bytes.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Value {
        let (value, end) = decode(bytes, 0, 0).unwrap().unwrap();
        assert_eq!(end, bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 0, 0).unwrap(), None, "cut at {cut}");
        }
        value
    }

    #[test]
    fn every_type_is_decoded_and_waits_for_its_last_byte() {
        assert_eq!(whole(b"+OK\r\n"), Value::Simple(b"OK".to_vec()));
        assert_eq!(whole(b"$-1\r\n"), Value::Nil);
        assert_eq!(whole(b"_\r\n"), Value::Nil);
        assert_eq!(whole(b"$4\r\na\r\nb\r\n"), Value::Bulk(b"a\r\nb".to_vec()));
        assert_eq!(whole(b"=5\r\ntxt:a\r\n").text(), Some(&b"a"[..]));
        assert_eq!(
            whole(b"%1\r\n+a\r\n*2\r\n:-1\r\n#t\r\n"),
            Value::Map(vec![(
                Value::Simple(b"a".to_vec()),
                Value::Array(vec![Value::Int(-1), Value::Bool(true)])
            )])
        );
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for bad in [&b"hello\r\n"[..], b":1x\r\n", b"$1\r\nab\r\n", b"+a\n", b"#x\r\n", b"*-2\r\n"]
        {
            assert!(decode(bad, 0, 0).is_err(), "{}", show(bad));
        }
    }
}

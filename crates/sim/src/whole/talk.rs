//! A client's end of a connection: command lines out, replies in, as RESP2 has them.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Text(String),
    Error(String),
    Number(i64),
    Nothing,
    List(Vec<Said>),
}

impl Said {
    /// The number in a text.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Said::Text(text) => text.split('.').next()?.parse().ok(),
            Said::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The same without the filling of values.
    pub(crate) fn shown(&self) -> String {
        match self {
            Said::Text(text) => text.split('.').next().unwrap_or_default().to_owned(),
            Said::Error(text) => text.clone(),
            Said::Number(number) => number.to_string(),
            Said::Nothing => "nothing".to_owned(),
            Said::List(items) => {
                let items: Vec<_> = items.iter().map(Said::shown).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }

    /// Whether it may have happened though this is an error.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self, Said::Error(text) if text.starts_with("UNCERTAIN"))
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Said::Error(_))
    }
}

/// The connection ended, or says what is no reply.
#[derive(Debug)]
pub(crate) struct Ended;

/// A connection.
pub(crate) struct Talk {
    stream: DuplexStream,
    input: BytesMut,
}

impl Talk {
    pub(crate) fn new(stream: DuplexStream) -> Talk {
        Talk { stream, input: BytesMut::new() }
    }

    /// Sends command lines, all at once.
    pub(crate) async fn send(&mut self, lines: &[Vec<String>]) -> Result<(), Ended> {
        let mut out = String::new();
        for line in lines {
            out += &format!("*{}\r\n", line.len());
            for word in line {
                out += &format!("${}\r\n{word}\r\n", word.len());
            }
        }
        self.stream.write_all(out.as_bytes()).await.map_err(|_| Ended)
    }

    /// The next reply.
    pub(crate) async fn hear(&mut self) -> Result<Said, Ended> {
        loop {
            let mut rest = &self.input[..];
            if let Some(said) = take(&mut rest)? {
                let used = self.input.len() - rest.len();
                self.input.advance(used);
                return Ok(said);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(Ended),
                Ok(_) => {}
            }
        }
    }
}

/// A whole reply from the front; `None`: there is only a part of one.
fn take(rest: &mut &[u8]) -> Result<Option<Said>, Ended> {
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| Ended)?;
    let mut after = &rest[end + 2..];
    let (kind, text) = line.split_at_checked(1).ok_or(Ended)?;
    let said = match kind {
        "+" => Said::Text(text.to_owned()),
        "-" => Said::Error(text.to_owned()),
        ":" => Said::Number(text.parse().map_err(|_| Ended)?),
        "$" => match text.parse::<usize>() {
            Err(_) => Said::Nothing,
            Ok(length) if after.len() < length + 2 => return Ok(None),
            Ok(length) => {
                let text = String::from_utf8_lossy(&after[..length]).into_owned();
                after = &after[length + 2..];
                Said::Text(text)
            }
        },
        "*" => match text.parse::<usize>() {
            Err(_) => Said::Nothing,
            Ok(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    let Some(item) = take(&mut after)? else { return Ok(None) };
                    items.push(item);
                }
                Said::List(items)
            }
        },
        _ => return Err(Ended),
    };
    *rest = after;
    Ok(Some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let bytes = b"*4\r\n$3\r\n7.x\r\n:-2\r\n*-1\r\n$-1\r\n-UNCERTAIN why\r\n";
        let mut rest = &bytes[..];
        let list = take(&mut rest).expect("RESP").expect("whole");
        let Said::List(items) = &list else { panic!("{list:?}") };
        assert_eq!(items[0].number(), Some(7));
        assert_eq!(items[1..], [Said::Number(-2), Said::Nothing, Said::Nothing]);
        assert!(take(&mut rest).expect("RESP").expect("whole").is_uncertain());
        assert!(rest.is_empty());
        let list_bytes = bytes.len() - b"-UNCERTAIN why\r\n".len();
        for cut in 0..list_bytes {
            assert!(matches!(take(&mut &bytes[..cut]), Ok(None)), "cut at {cut}");
        }
    }
}

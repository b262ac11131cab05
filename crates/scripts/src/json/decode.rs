//! From JSON to Lua values. As in the C library, the text ends at its first NUL.

use mlua::{Lua, Result, Value};

use super::{DEPTH_LIMIT, Settings, number};
use crate::convert::nested;
use crate::raise;

pub(super) fn decode(lua: &Lua, settings: &Settings, text: &[u8]) -> Result<Value> {
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(raise::text(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { lua, settings, text, at: 0, depth: 0 };
    let token = decoder.next();
    let value = decoder.value(token)?;
    match decoder.next() {
        (Token::End, _) => Ok(value),
        token => Err(decoder.expected("the end", &token)),
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    text: &'a [u8],
    at: usize,
    depth: usize,
}

#[derive(Debug)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    End,
    Null,
    Boolean(bool),
    Number(f64),
    String(Vec<u8>),
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Null => "T_NULL",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Number(_) => "T_NUMBER",
            Token::String(_) => "T_STRING",
            Token::Error(why) => why,
        }
    }
}

/// A token and where it stands.
type Placed = (Token, usize);

impl Decoder<'_> {
    /// The byte at a distance; NUL at the end.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn expected(&self, what: &str, (token, at): &Placed) -> mlua::Error {
        let (found, at) = (token.name(), at + 1);
        raise::text(self.lua, format_args!("Expected {what} but found {found} at character {at}"))
    }

    fn next(&mut self) -> Placed {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let single = match self.peek(0) {
            0 => return (Token::End, start),
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => {
                return match self.string() {
                    Ok(text) => (Token::String(text), start),
                    Err(why) => (Token::Error(why), self.at),
                };
            }
            b'-' | b'0'..=b'9' => {
                if self.settings.decode_invalid == 0 && self.is_odd_number() {
                    return (Token::Error("invalid number"), start);
                }
                return (self.number(), start);
            }
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+' => return (self.word(), start),
            _ => return (Token::Error("invalid token"), start),
        };
        self.at += 1;
        (single, start)
    }

    fn word(&mut self) -> Token {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let words = [
            (&b"true"[..], Token::Boolean(true)),
            (b"false", Token::Boolean(false)),
            (b"null", Token::Null),
        ];
        for (word, token) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return token;
            }
        }
        if self.settings.decode_invalid == 1 && self.is_odd_number() {
            return self.number();
        }
        Token::Error("invalid token")
    }

    fn number(&mut self) -> Token {
        let (number, length) = number::read(&self.text[self.at..]);
        self.at += length;
        if length == 0 { Token::Error("invalid number") } else { Token::Number(number) }
    }

    /// Whether what comes is a number that JSON does not know.
    fn is_odd_number(&self) -> bool {
        if self.peek(0) == b'+' {
            return true;
        }
        let first = usize::from(self.peek(0) == b'-');
        match self.peek(first) {
            b'0' => matches!(self.peek(first + 1), b'x' | b'X' | b'0'..=b'9'),
            byte if byte <= b'9' => false,
            _ => {
                let word: Vec<u8> = (0..3).map(|at| self.peek(first + at)).collect();
                word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
            }
        }
    }

    fn string(&mut self) -> std::result::Result<Vec<u8>, &'static str> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                0 => return Err("unexpected end of string"),
                b'\\' => {
                    let plain = match self.peek(1) {
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 0x08,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 0x0c,
                        b'r' => b'\r',
                        b'u' => {
                            self.unicode(&mut out).ok_or("invalid unicode escape code")?;
                            continue;
                        }
                        _ => return Err("invalid escape code"),
                    };
                    out.push(plain);
                    self.at += 2;
                }
                byte => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// A `\u` escape, or two that are a pair of surrogates.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let mut code = self.hex(2)?;
        let mut length = 6;
        if code & 0xf800 == 0xd800 {
            if code & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
                return None;
            }
            let low = self.hex(8)?;
            if low & 0xfc00 != 0xdc00 {
                return None;
            }
            code = ((code & 0x3ff) << 10 | (low & 0x3ff)) + 0x1_0000;
            length = 12;
        }
        let letter = char::from_u32(code)?;
        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        self.at += length;
        Some(())
    }

    fn hex(&self, ahead: usize) -> Option<u32> {
        (ahead..ahead + 4)
            .try_fold(0, |code, at| Some(code << 4 | char::from(self.peek(at)).to_digit(16)?))
    }

    fn descend(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth as i64 <= self.settings.decode_depth && self.depth <= DEPTH_LIMIT {
            return Ok(());
        }
        let (depth, at) = (self.depth, self.at);
        let text = format!("Found too many nested data structures ({depth}) at character {at}");
        Err(raise::text(self.lua, text))
    }

    fn value(&mut self, token: Placed) -> Result<Value> {
        Ok(match token.0 {
            Token::String(text) => Value::String(self.lua.create_string(text)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(value) => Value::Boolean(value),
            Token::Null => Value::NULL,
            Token::ObjectBegin => nested(|| self.object())?,
            Token::ArrayBegin => nested(|| self.array())?,
            _ => return Err(self.expected("value", &token)),
        })
    }

    fn object(&mut self) -> Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.0, Token::ObjectEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        loop {
            let Token::String(key) = token.0 else {
                return Err(self.expected("object key string", &token));
            };
            let colon = self.next();
            if !matches!(colon.0, Token::Colon) {
                return Err(self.expected("colon", &colon));
            }
            let next = self.next();
            let value = self.value(next)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            let next = self.next();
            match next.0 {
                Token::ObjectEnd => {
                    self.depth -= 1;
                    return Ok(Value::Table(table));
                }
                Token::Comma => token = self.next(),
                _ => return Err(self.expected("comma or object end", &next)),
            }
        }
    }

    fn array(&mut self) -> Result<Value> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.0, Token::ArrayEnd) {
            self.depth -= 1;
            return Ok(Value::Table(table));
        }
        for at in 1.. {
            let value = self.value(token)?;
            table.raw_set(at, value)?;
            let next = self.next();
            match next.0 {
                Token::ArrayEnd => break,
                Token::Comma => token = self.next(),
                _ => return Err(self.expected("comma or array end", &next)),
            }
        }
        self.depth -= 1;
        Ok(Value::Table(table))
    }
}

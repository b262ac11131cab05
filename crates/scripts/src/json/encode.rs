//! From Lua values to JSON.

use std::fmt::Display;

use mlua::{Lua, Result, Table, Value};

use super::{DEPTH_LIMIT, Settings, number};
use crate::convert::nested;
use crate::outside::Outside;
use crate::raise;

pub(super) fn encode(
    lua: &Lua,
    (settings, outside): (&Settings, &mut Outside<'_>),
    value: &Value,
) -> Result<Vec<u8>> {
    let mut encoder = Encoder { lua, settings, outside, out: Vec::new() };
    encoder.put(value, 0)?;
    Ok(encoder.out)
}

struct Encoder<'a, 'b> {
    lua: &'a Lua,
    settings: &'a Settings,
    outside: &'a mut Outside<'b>,
    out: Vec<u8>,
}

impl Encoder<'_, '_> {
    fn put(&mut self, value: &Value, depth: usize) -> Result<()> {
        match value {
            Value::String(text) => self.put_string(&text.as_bytes()),
            Value::Integer(number) => self.put_number(*number as f64)?,
            Value::Number(number) => self.put_number(*number)?,
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Table(table) => nested(|| self.put_table(table, depth + 1))?,
            Value::Nil => self.out.extend_from_slice(b"null"),
            value if *value == Value::NULL => self.out.extend_from_slice(b"null"),
            other => return Err(self.refuse(raise::type_name(other), "type not supported")),
        }
        self.outside.is_now(self.out.len())
    }

    fn refuse(&self, what: &str, why: impl Display) -> mlua::Error {
        raise::text(self.lua, format_args!("Cannot serialise {what}: {why}"))
    }

    fn put_string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for byte in text {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                0x08 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0x00..=0x1f | 0x7f => {
                    self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                }
                byte => self.out.push(*byte),
            }
        }
        self.out.push(b'"');
    }

    fn put_number(&mut self, number: f64) -> Result<()> {
        if !number.is_finite() {
            match self.settings.encode_invalid {
                0 => return Err(self.refuse("number", "must not be NaN or Inf")),
                1 if number.is_nan() => self.out.extend_from_slice(b"nan"),
                1 => self.out.extend_from_slice(number::print(number, 1).as_bytes()),
                _ => self.out.extend_from_slice(b"null"),
            }
            return Ok(());
        }
        let digits = usize::try_from(self.settings.digits).unwrap_or(1);
        self.out.extend_from_slice(number::print(number, digits).as_bytes());
        Ok(())
    }

    fn put_table(&mut self, table: &Table, depth: usize) -> Result<()> {
        if depth as i64 > self.settings.encode_depth || depth > DEPTH_LIMIT {
            let text = format_args!("Cannot serialise, excessive nesting ({depth})");
            return Err(raise::text(self.lua, text));
        }
        match self.array_length(table)? {
            Some(length) if length > 0 => {
                self.out.push(b'[');
                for at in 1..=length {
                    if at > 1 {
                        self.out.push(b',');
                    }
                    self.put(&table.raw_get::<Value>(at)?, depth)?;
                }
                self.out.push(b']');
            }
            _ => self.put_object(table, depth)?,
        }
        Ok(())
    }

    fn put_object(&mut self, table: &Table, depth: usize) -> Result<()> {
        self.out.push(b'{');
        let mut is_first = true;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair?;
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            match &key {
                Value::String(text) => self.put_string(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.put(&key, depth)?;
                    self.out.push(b'"');
                }
                other => {
                    let why = "table key must be a number or string";
                    return Err(self.refuse(raise::type_name(other), why));
                }
            }
            self.out.push(b':');
            self.put(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The highest index, if all keys are positive whole numbers.
    fn array_length(&self, table: &Table) -> Result<Option<i64>> {
        let (mut highest, mut items) = (0, 0);
        for pair in table.pairs::<Value, Value>() {
            let key = match pair?.0 {
                Value::Integer(key) => key,
                Value::Number(key) if key.fract() == 0.0 && key >= 1.0 => key as i64,
                _ => return Ok(None),
            };
            if key < 1 {
                return Ok(None);
            }
            highest = highest.max(key);
            items += 1;
        }
        let Settings { sparse_ratio, sparse_safe, sparse_convert, .. } = *self.settings;
        // Never without a bound, as every hole is written: a script could fill the memory by one key.
        let is_sparse = highest > items * sparse_ratio.max(1) && highest > sparse_safe;
        if is_sparse && (sparse_ratio > 0 || highest > items + HOLES_MAX) {
            if sparse_convert == 0 {
                return Err(self.refuse("table", "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(highest))
    }
}

/// Holes that are written as null where a script allows any number of them.
const HOLES_MAX: i64 = 1 << 24;

//! From replies to Lua values and back, as Redis converts them.
//!
//! ```text
//! reply          Lua, RESP2          Lua, after redis.setresp(3)
//! status         {ok=…}              the same
//! error          {err=…}             the same
//! integer        number              the same
//! bulk           string              the same
//! null           false               nil
//! array          {1, 2, …}           the same
//! map, set       {k, v, …}, {m, …}   {map={k=v}}, {set={m=true}}
//! double         string              {double=n}
//! boolean        1 or 0              true or false
//! big number     string              {big_number=…}
//! verbatim       string              {verbatim_string={format=…, string=…}}
//! ```

use bytes::Bytes;
use mlua::{Lua, Table, Value};
use wire::resp::{Bulks, DOUBLE_BYTES_MAX, Reply, format_double};

use crate::outside::Outside;
use crate::raise;

/// Tables within tables that a script may answer. Redis ends at the size of Lua's stack.
pub const REPLY_DEPTH_MAX: usize = 1_000;

/// Refusals of a command's words: there are none; one of them is nothing that could be one.
pub(crate) const NO_WORDS: &str =
    "ERR Please specify at least one argument for this redis lib call";
pub(crate) const NO_WORD: &str = "ERR Lua redis lib command arguments must be strings or integers";

/// Stack that one step into a nested value may need, in bytes.
const STEP_STACK_BYTES: usize = 64 << 10;
/// What the stack grows by where less is left.
const STACK_GROWTH_BYTES: usize = 1 << 20;

/// Takes a step into a nested value: what scripts nest must not end at the size of a thread's stack.
pub(crate) fn nested<T>(step: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STEP_STACK_BYTES, STACK_GROWTH_BYTES, step)
}

/// What Redis answers where a script's answer is nested too deep.
const TOO_DEEP: &[u8] = b"ERR reached lua stack limit";

/// A reply as a script sees it.
pub(crate) fn to_lua(lua: &Lua, reply: &Reply, resp3: bool) -> mlua::Result<Value> {
    let string = |text: &[u8]| lua.create_string(text).map(Value::String);
    Ok(match reply {
        Reply::Simple(text) => single(lua, "ok", string(text.as_bytes())?)?,
        Reply::Status(text) => single(lua, "ok", string(text)?)?,
        Reply::Error(line) => Value::Table(raise::error_table(lua, line)?),
        Reply::Integer(number) => Value::Number(*number as f64),
        Reply::Bulk(text) => string(text)?,
        Reply::Null | Reply::NullArray if resp3 => Value::Nil,
        Reply::Null | Reply::NullArray => Value::Boolean(false),
        Reply::Array(items) | Reply::Push(items) => array(lua, items, resp3)?,
        Reply::Bulks(items) => texts(lua, items)?,
        Reply::Set(items) if resp3 => {
            let set = lua.create_table_with_capacity(0, items.len())?;
            for item in items {
                set_pair(&set, to_lua(lua, item, resp3)?, Value::Boolean(true))?;
            }
            single(lua, "set", Value::Table(set))?
        }
        Reply::Set(items) => array(lua, items, resp3)?,
        Reply::Map(pairs) | Reply::Keyed(pairs) if resp3 => {
            let map = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                set_pair(&map, to_lua(lua, key, resp3)?, to_lua(lua, value, resp3)?)?;
            }
            single(lua, "map", Value::Table(map))?
        }
        Reply::Map(pairs) => flat(lua, pairs, resp3)?,
        Reply::Pairs(pairs) if !resp3 => flat(lua, pairs, resp3)?,
        Reply::Pairs(pairs) | Reply::Keyed(pairs) => {
            let table = lua.create_table_with_capacity(pairs.len(), 0)?;
            for (at, (key, value)) in pairs.iter().enumerate() {
                let pair = lua.create_table_with_capacity(2, 0)?;
                pair.raw_set(1, to_lua(lua, key, resp3)?)?;
                pair.raw_set(2, to_lua(lua, value, resp3)?)?;
                table.raw_set(at + 1, pair)?;
            }
            Value::Table(table)
        }
        Reply::Double(number) if resp3 => single(lua, "double", Value::Number(*number))?,
        Reply::Double(number) => {
            let mut buffer = [0; DOUBLE_BYTES_MAX];
            string(format_double(*number, &mut buffer))?
        }
        Reply::DoubleText(text) if resp3 => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            single(lua, "double", Value::Number(number.unwrap_or(f64::NAN)))?
        }
        Reply::DoubleText(text) => string(text)?,
        Reply::Boolean(value) if resp3 => Value::Boolean(*value),
        Reply::Boolean(value) => Value::Number(f64::from(u8::from(*value))),
        Reply::BigNumber(digits) if resp3 => single(lua, "big_number", string(digits)?)?,
        Reply::BigNumber(digits) => string(digits)?,
        Reply::Verbatim { format, text } if resp3 => {
            let parts = lua.create_table_with_capacity(0, 2)?;
            parts.raw_set("format", string(format)?)?;
            parts.raw_set("string", string(text)?)?;
            single(lua, "verbatim_string", Value::Table(parts))?
        }
        Reply::Verbatim { text, .. } => string(text)?,
        // A command that answers several times, or not at all, is none of a script's.
        Reply::Sequence(replies) => match replies.iter().find(|reply| !is_attributes(reply)) {
            Some(first) => to_lua(lua, first, resp3)?,
            None => Value::Nil,
        },
        // Scripts are not told of attributes.
        Reply::Attributes(_) => Value::Nil,
    })
}

fn is_attributes(reply: &Reply) -> bool {
    matches!(reply, Reply::Attributes(_))
}

fn array(lua: &Lua, items: &[Reply], resp3: bool) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (at, item) in items.iter().enumerate() {
        table.raw_set(at + 1, to_lua(lua, item, resp3)?)?;
    }
    Ok(Value::Table(table))
}

fn texts(lua: &Lua, items: &Bulks) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (at, item) in items.iter().enumerate() {
        table.raw_set(at + 1, lua.create_string(item)?)?;
    }
    Ok(Value::Table(table))
}

fn flat(lua: &Lua, pairs: &[(Reply, Reply)], resp3: bool) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(pairs.len() * 2, 0)?;
    for (at, (key, value)) in pairs.iter().enumerate() {
        table.raw_set(2 * at + 1, to_lua(lua, key, resp3)?)?;
        table.raw_set(2 * at + 2, to_lua(lua, value, resp3)?)?;
    }
    Ok(Value::Table(table))
}

fn single(lua: &Lua, field: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(field, value)?;
    Ok(Value::Table(table))
}

/// Sets a pair whose key may be none that Lua can have.
fn set_pair(table: &Table, key: Value, value: Value) -> mlua::Result<()> {
    let is_key = !key.is_nil() && !matches!(key, Value::Number(number) if number.is_nan());
    if is_key { table.raw_set(key, value) } else { Ok(()) }
}

/// What a script answered, as a reply.
///
/// *Errors*: it has more bytes than the script's state may use.
pub(crate) fn from_lua(
    value: &Value,
    resp3: bool,
    depth: usize,
    outside: &mut Outside<'_>,
) -> mlua::Result<Reply> {
    let text = if let Value::String(text) = value { text.as_bytes().len() } else { 0 };
    outside.add(size_of::<Reply>() + text)?;
    if depth > REPLY_DEPTH_MAX {
        return Ok(Reply::Error(Bytes::from_static(TOO_DEEP)));
    }
    Ok(match value {
        Value::String(text) => Reply::Bulk(bytes_of(text)),
        Value::Boolean(value) if resp3 => Reply::Boolean(*value),
        Value::Boolean(true) => Reply::Integer(1),
        Value::Boolean(false) => Reply::Null,
        Value::Integer(number) => Reply::Integer(*number),
        Value::Number(number) => Reply::Integer(truncated(*number)),
        Value::Table(table) => nested(|| from_table(table, resp3, depth, outside))?,
        _ => Reply::Null,
    })
}

fn from_table(
    table: &Table,
    resp3: bool,
    depth: usize,
    outside: &mut Outside<'_>,
) -> mlua::Result<Reply> {
    if let Value::String(line) = table.raw_get("err")? {
        return Ok(Reply::Error(up_to_nul(&line.as_bytes())));
    }
    if let Value::String(text) = table.raw_get("ok")? {
        return Ok(Reply::Status(up_to_nul(&text.as_bytes())));
    }
    match table.raw_get("double")? {
        Value::Number(number) => return Ok(Reply::Double(number)),
        Value::Integer(number) => return Ok(Reply::Double(number as f64)),
        _ => {}
    }
    if let Value::String(digits) = table.raw_get("big_number")? {
        let no_line_end = |byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
        return Ok(Reply::BigNumber(digits.as_bytes().iter().map(no_line_end).collect()));
    }
    if let Value::Table(parts) = table.raw_get("verbatim_string")?
        && let Value::String(format) = parts.raw_get("format")?
        && let Value::String(text) = parts.raw_get("string")?
    {
        let mut letters = *b"   ";
        for (letter, given) in letters.iter_mut().zip(format.as_bytes().iter()) {
            *letter = *given;
        }
        return Ok(Reply::Verbatim { format: letters, text: bytes_of(&text) });
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let mut pairs = Vec::new();
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            let key = from_lua(&key, resp3, depth + 1, outside)?;
            pairs.push((key, from_lua(&value, resp3, depth + 1, outside)?));
        }
        return Ok(Reply::Map(pairs));
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let mut members = Vec::new();
        for pair in set.pairs::<Value, Value>() {
            members.push(from_lua(&pair?.0, resp3, depth + 1, outside)?);
        }
        return Ok(Reply::Set(members));
    }
    let mut items = Vec::new();
    loop {
        let item: Value = table.raw_get(items.len() + 1)?;
        if item.is_nil() {
            return Ok(Reply::Array(items));
        }
        items.push(from_lua(&item, resp3, depth + 1, outside)?);
    }
}

/// As a C cast does it on the machines that Redis runs on: what fits no integer is the smallest one.
pub(crate) fn truncated(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

pub(crate) fn bytes_of(text: &mlua::LuaString) -> Bytes {
    Bytes::copy_from_slice(&text.as_bytes())
}

pub(crate) fn up_to_nul(text: &[u8]) -> Bytes {
    Bytes::copy_from_slice(text.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// A command's argument: a string, or a number in the digits that lose nothing.
pub(crate) fn argument(value: &Value) -> Option<Bytes> {
    Some(match value {
        Value::String(text) => bytes_of(text),
        Value::Integer(number) => integer(*number),
        Value::Number(number) => word_of_number(*number),
        _ => return None,
    })
}

/// A number as a command's word.
pub(crate) fn word_of_number(number: f64) -> Bytes {
    let whole = number as i64;
    if whole as f64 == number && whole != i64::MAX {
        return integer(whole);
    }
    let mut buffer = [0; DOUBLE_BYTES_MAX];
    Bytes::copy_from_slice(format_double(number, &mut buffer))
}

fn integer(number: i64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}

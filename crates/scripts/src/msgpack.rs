//! The library `cmsgpack`: MessagePack, with what Redis makes of Lua's values.
//!
//! A table with the keys 1 to n and no others is an array, any other a map; whole numbers are
//! integers; what is nested deeper than 16 tables is nil, so that a table may refer to itself.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::convert::nested;
use crate::outside::Outside;
use crate::raise;
use crate::vm::State;

/// Tables within tables that are packed.
const PACK_DEPTH_MAX: usize = 16;
/// Arrays and maps within one another that are unpacked. Redis ends at the size of Lua's stack.
const UNPACK_DEPTH_MAX: usize = 1_000;

pub(crate) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let state = Rc::clone(state);
    define(lua, &table, "pack", move |args| pack(&args, &state))?;
    define(lua, &table, "unpack", |args| unpack(&args, None, 0))?;
    define(lua, &table, "unpack_one", |args| {
        let offset = args.integer_or(2, 0)?;
        unpack(&args, Some(1), offset)
    })?;
    define(lua, &table, "unpack_limit", |args| {
        let (limit, offset) = (args.integer(2)?, args.integer_or(3, 0)?);
        unpack(&args, Some(limit), offset)
    })?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn pack(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    if args.values.is_empty() {
        return args.refuse(0, "MessagePack pack needs input.");
    }
    let (mut out, mut outside) = (Vec::new(), Outside::new(state));
    for value in args.values {
        put(&mut out, value, 0, &mut outside)?;
    }
    one(Value::String(args.lua.create_string(out)?))
}

fn put(out: &mut Vec<u8>, value: &Value, depth: usize, outside: &mut Outside<'_>) -> Result<()> {
    match value {
        Value::String(text) => put_text(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => put_integer(out, *number),
        Value::Number(number) => {
            let whole = *number as i64;
            if whole as f64 == *number && whole != i64::MAX {
                put_integer(out, whole);
            } else if f64::from(*number as f32) == *number {
                out.push(0xca);
                out.extend_from_slice(&(*number as f32).to_be_bytes());
            } else {
                out.push(0xcb);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Value::Table(table) if depth < PACK_DEPTH_MAX => put_table(out, table, depth, outside)?,
        _ => out.push(0xc0),
    }
    outside.is_now(out.len())
}

fn put_table(
    out: &mut Vec<u8>,
    table: &Table,
    depth: usize,
    outside: &mut Outside<'_>,
) -> Result<()> {
    let (mut count, mut highest, mut is_array) = (0usize, 0.0f64, true);
    for pair in table.pairs::<Value, Value>() {
        let key = match pair?.0 {
            Value::Integer(key) => key as f64,
            Value::Number(key) => key,
            _ => f64::NAN,
        };
        is_array &= key >= 1.0 && key.fract() == 0.0 && key <= f64::from(i32::MAX);
        highest = highest.max(key);
        count += 1;
    }
    if is_array && highest == count as f64 {
        put_length(out, count, 0x90, 0xdc);
        for at in 1..=count {
            put(out, &table.raw_get::<Value>(at)?, depth + 1, outside)?;
        }
        return Ok(());
    }
    put_length(out, count, 0x80, 0xde);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        put(out, &key, depth + 1, outside)?;
        put(out, &value, depth + 1, outside)?;
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..0x100 => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..0x1_0000 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// The length of an array or a map; `large` is followed by the tag of 32 bits.
fn put_length(out: &mut Vec<u8>, length: usize, small: u8, large: u8) {
    match length {
        0..16 => out.push(small | length as u8),
        16..0x1_0000 => {
            out.push(large);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(large + 1);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn put_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..0x80 => out.push(number as u8),
        0x80..0x100 => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..0x1_0000 => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(0xce);
            out.extend_from_slice(&(number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&number.to_be_bytes());
        }
        -32..0 => out.push(number as u8),
        -0x80..-32 => out.extend_from_slice(&[0xd0, number as u8]),
        -0x8000..-0x80 => {
            out.push(0xd1);
            out.extend_from_slice(&(number as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend_from_slice(&(number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}

/// Why bytes could not be unpacked.
enum Bad {
    Missing,
    Format,
    TooDeep,
    Lua(mlua::Error),
}

impl From<mlua::Error> for Bad {
    fn from(error: mlua::Error) -> Bad {
        Bad::Lua(error)
    }
}

/// Unpacks values from an offset on: all, or at most so many, and then the offset of what follows (-1
/// at the end) comes first.
fn unpack(args: &Arguments<'_>, limit: Option<i64>, offset: i64) -> Result<MultiValue> {
    let text = args.string(1)?;
    let text = text.as_bytes();
    let length = text.len();
    let refuse = |message: String| Err(raise::text(args.lua, message));
    let (Ok(start), Ok(most)) = (usize::try_from(offset), u64::try_from(limit.unwrap_or(0))) else {
        return refuse(format!(
            "Invalid request to unpack with offset of {offset} and limit of {length}."
        ));
    };
    if start > length {
        return refuse(format!("Start offset {start} greater than input length {length}."));
    }
    // As there: a limit and an offset of nothing ask for everything.
    let is_all = most == 0 && start == 0;
    let mut rest = &text[start..];
    let mut results = Vec::new();
    while !rest.is_empty() && (is_all || (results.len() as u64) < most) {
        match take(args.lua, &mut rest, 0) {
            Ok(value) => results.push(value),
            Err(Bad::Missing) => return refuse("Missing bytes in input.".to_owned()),
            Err(Bad::Format) => return refuse("Bad data format in input.".to_owned()),
            Err(Bad::TooDeep) => return refuse("too many nested values in input".to_owned()),
            Err(Bad::Lua(error)) => return Err(error),
        }
    }
    if !is_all {
        let next = if rest.is_empty() { -1 } else { (length - rest.len()) as i64 };
        results.insert(0, Value::Integer(next));
    }
    Ok(MultiValue::from_vec(results))
}

fn bytes<const N: usize>(rest: &mut &[u8]) -> std::result::Result<[u8; N], Bad> {
    let (head, tail) = rest.split_first_chunk().ok_or(Bad::Missing)?;
    *rest = tail;
    Ok(*head)
}

fn take(lua: &Lua, rest: &mut &[u8], depth: usize) -> std::result::Result<Value, Bad> {
    if depth > UNPACK_DEPTH_MAX {
        return Err(Bad::TooDeep);
    }
    let [tag] = bytes(rest)?;
    let number = |number: f64| Ok(Value::Number(number));
    match tag {
        0x00..=0x7f => number(f64::from(tag)),
        0xe0..=0xff => number(f64::from(tag.cast_signed())),
        0xcc => number(f64::from(bytes::<1>(rest)?[0])),
        0xcd => number(f64::from(u16::from_be_bytes(bytes(rest)?))),
        0xce => number(f64::from(u32::from_be_bytes(bytes(rest)?))),
        0xcf => number(u64::from_be_bytes(bytes(rest)?) as f64),
        0xd0 => number(f64::from(i8::from_be_bytes(bytes(rest)?))),
        0xd1 => number(f64::from(i16::from_be_bytes(bytes(rest)?))),
        0xd2 => number(f64::from(i32::from_be_bytes(bytes(rest)?))),
        0xd3 => number(i64::from_be_bytes(bytes(rest)?) as f64),
        0xca => number(f64::from(f32::from_be_bytes(bytes(rest)?))),
        0xcb => number(f64::from_be_bytes(bytes(rest)?)),
        0xc0 => Ok(Value::Nil),
        0xc2 => Ok(Value::Boolean(false)),
        0xc3 => Ok(Value::Boolean(true)),
        0xa0..=0xbf => take_text(lua, rest, usize::from(tag & 0x1f)),
        0xd9 => {
            let length = usize::from(bytes::<1>(rest)?[0]);
            take_text(lua, rest, length)
        }
        0xda => {
            let length = usize::from(u16::from_be_bytes(bytes(rest)?));
            take_text(lua, rest, length)
        }
        0xdb => {
            let length = u32::from_be_bytes(bytes(rest)?) as usize;
            take_text(lua, rest, length)
        }
        0x90..=0x9f => take_array(lua, rest, u32::from(tag & 0xf), depth),
        0xdc => {
            let length = u32::from(u16::from_be_bytes(bytes(rest)?));
            take_array(lua, rest, length, depth)
        }
        0xdd => {
            let length = u32::from_be_bytes(bytes(rest)?);
            take_array(lua, rest, length, depth)
        }
        0x80..=0x8f => take_map(lua, rest, u32::from(tag & 0xf), depth),
        0xde => {
            let length = u32::from(u16::from_be_bytes(bytes(rest)?));
            take_map(lua, rest, length, depth)
        }
        0xdf => {
            let length = u32::from_be_bytes(bytes(rest)?);
            take_map(lua, rest, length, depth)
        }
        _ => Err(Bad::Format),
    }
}

fn take_text(lua: &Lua, rest: &mut &[u8], length: usize) -> std::result::Result<Value, Bad> {
    let text = rest.split_off(..length).ok_or(Bad::Missing)?;
    Ok(Value::String(lua.create_string(text)?))
}

fn take_array(
    lua: &Lua,
    rest: &mut &[u8],
    length: u32,
    depth: usize,
) -> std::result::Result<Value, Bad> {
    let table = lua.create_table()?;
    for at in 1..=length {
        table.raw_set(at, nested(|| take(lua, rest, depth + 1))?)?;
    }
    Ok(Value::Table(table))
}

fn take_map(
    lua: &Lua,
    rest: &mut &[u8],
    length: u32,
    depth: usize,
) -> std::result::Result<Value, Bad> {
    let table = lua.create_table()?;
    for _ in 0..length {
        let key = nested(|| take(lua, rest, depth + 1))?;
        let value = nested(|| take(lua, rest, depth + 1))?;
        match key {
            Value::Nil => return Err(raise::text(lua, "table index is nil").into()),
            Value::Number(number) if number.is_nan() => {
                return Err(raise::text(lua, "table index is NaN").into());
            }
            key => table.raw_set(key, value)?,
        }
    }
    Ok(Value::Table(table))
}

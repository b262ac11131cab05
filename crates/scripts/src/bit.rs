//! The library `bit`: operations on 32 bits, of numbers that wrap around.

use mlua::{Lua, Result, Table, Value};

use crate::arguments::{Arguments, define, one};

pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    define(lua, &table, "tobit", |args| signed(bits(&args, 1)?))?;
    define(lua, &table, "bnot", |args| signed(!bits(&args, 1)?))?;
    define(lua, &table, "band", |args| fold(&args, |a, b| a & b))?;
    define(lua, &table, "bor", |args| fold(&args, |a, b| a | b))?;
    define(lua, &table, "bxor", |args| fold(&args, |a, b| a ^ b))?;
    define(lua, &table, "lshift", |args| shift(&args, |a, n| a << n))?;
    define(lua, &table, "rshift", |args| shift(&args, |a, n| a >> n))?;
    define(lua, &table, "arshift", |args| shift(&args, |a, n| (a.cast_signed() >> n) as u32))?;
    define(lua, &table, "rol", |args| shift(&args, u32::rotate_left))?;
    define(lua, &table, "ror", |args| shift(&args, u32::rotate_right))?;
    define(lua, &table, "bswap", |args| signed(bits(&args, 1)?.swap_bytes()))?;
    define(lua, &table, "tohex", tohex)?;
    Ok(table)
}

/// The low 32 bits of the nearest whole number: added to 1.5 * 2^52, they are the double's own.
fn bits(args: &Arguments<'_>, at: usize) -> Result<u32> {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    Ok((args.number(at)? + ROUND).to_bits() as u32)
}

fn signed(bits: u32) -> Result<mlua::MultiValue> {
    one(Value::Integer(i64::from(bits.cast_signed())))
}

fn fold(args: &Arguments<'_>, run: fn(u32, u32) -> u32) -> Result<mlua::MultiValue> {
    let mut result = bits(args, 1)?;
    for at in 2..=args.values.len() {
        result = run(result, bits(args, at)?);
    }
    signed(result)
}

fn shift(args: &Arguments<'_>, run: fn(u32, u32) -> u32) -> Result<mlua::MultiValue> {
    signed(run(bits(args, 1)?, bits(args, 2)? & 31))
}

fn tohex(args: Arguments<'_>) -> Result<mlua::MultiValue> {
    let value = bits(&args, 1)?;
    let digits = match args.get(2) {
        None => 8,
        Some(_) => bits(&args, 2)?.cast_signed(),
    };
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let kept = digits.unsigned_abs().min(8) as usize;
    one(Value::String(args.lua.create_string(&text[8 - kept..])?))
}

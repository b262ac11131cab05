//! The library `cjson`: JSON with the conventions of lua-cjson.
//!
//! A table with positive whole keys only is an array, an empty one is an object; null is a light
//! user datum (`cjson.null`); an array with many holes is refused unless asked for; numbers have 14
//! digits. What a script sets (`encode_max_depth` and its kin) holds to the end of that script.

mod decode;
mod encode;
mod number;

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::outside::Outside;
use crate::vm::State;

/// Tables within tables, at most, unless a script asks for more.
const DEPTH_MAX: i64 = 1_000;
/// Beyond this neither encoding nor decoding goes, whatever a script asks for: both recurse.
const DEPTH_LIMIT: usize = 1_500;
const NUMBER_DIGITS: i64 = 14;

/// What to make of NaN and the infinities.
const INVALID: &[&str] = &["off", "on", "null"];
const OFF_ON: &[&str] = &["off", "on"];

/// Settings, as `cjson`'s functions change them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    sparse_convert: i64,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    /// An index into [`INVALID`].
    encode_invalid: i64,
    decode_invalid: i64,
    keep_buffer: i64,
    digits: i64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            sparse_convert: 0,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: DEPTH_MAX,
            decode_depth: DEPTH_MAX,
            encode_invalid: 0,
            decode_invalid: 1,
            keep_buffer: 1,
            digits: NUMBER_DIGITS,
        }
    }
}

pub(crate) type Shared = Rc<RefCell<Settings>>;

/// Makes the library, on settings of its own.
pub(crate) fn library(lua: &Lua, settings: &Shared, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let with = |run: fn(&Arguments<'_>, &Shared) -> Result<MultiValue>| {
        let settings = Rc::clone(settings);
        move |args: Arguments<'_>| run(&args, &settings)
    };
    let (shared, counting) = (Rc::clone(settings), Rc::clone(state));
    define(lua, &table, "encode", move |args| encode(&args, &shared, &counting))?;
    define(lua, &table, "decode", with(decode))?;
    define(lua, &table, "encode_sparse_array", with(sparse_array))?;
    define(lua, &table, "encode_max_depth", with(encode_max_depth))?;
    define(lua, &table, "decode_max_depth", with(decode_max_depth))?;
    define(lua, &table, "encode_number_precision", with(number_precision))?;
    define(lua, &table, "encode_keep_buffer", with(keep_buffer))?;
    define(lua, &table, "encode_invalid_numbers", with(encode_invalid_numbers))?;
    define(lua, &table, "decode_invalid_numbers", with(decode_invalid_numbers))?;
    let state = Rc::clone(state);
    define(lua, &table, "new", move |args| {
        one(Value::Table(library(args.lua, &Shared::default(), &state)?))
    })?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn encode(args: &Arguments<'_>, settings: &Shared, state: &State) -> Result<MultiValue> {
    let [value] = exactly_one(args)?;
    let mut outside = Outside::new(state);
    let text = encode::encode(args.lua, (&settings.borrow(), &mut outside), value)?;
    one(Value::String(args.lua.create_string(text)?))
}

fn decode(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    exactly_one(args)?;
    let text = args.string(1)?;
    one(decode::decode(args.lua, &settings.borrow(), &text.as_bytes())?)
}

fn exactly_one<'a>(args: &'a Arguments<'_>) -> Result<[&'a Value; 1]> {
    match (args.get(1), args.values.len()) {
        (Some(value), 1) => Ok([value]),
        _ => args.refuse(1, "expected 1 argument"),
    }
}

fn at_most(args: &Arguments<'_>, count: usize) -> Result<()> {
    if args.values.len() > count {
        return args.refuse(count + 1, "found too many arguments");
    }
    Ok(())
}

/// Sets a number, if one is given, and tells it.
fn int(args: &Arguments<'_>, at: usize, setting: &mut i64, range: (i64, i64)) -> Result<Value> {
    if args.get(at).is_some_and(|value| !value.is_nil()) {
        let given = args.integer(at)?;
        if !(range.0..=range.1).contains(&given) {
            let (min, max) = range;
            return args.refuse(1, format_args!("expected integer between {min} and {max}"));
        }
        *setting = given;
    }
    Ok(Value::Integer(*setting))
}

/// Sets one of several words (or true, for the second), if one is given, and tells it.
fn word(args: &Arguments<'_>, at: usize, setting: &mut i64, words: &[&str]) -> Result<Value> {
    match args.get(at) {
        None | Some(Value::Nil) => {}
        Some(Value::Boolean(value)) => *setting = i64::from(*value),
        Some(_) => {
            let given = args.string(at)?;
            let found = words.iter().position(|word| given == *word);
            match found {
                Some(found) => *setting = found as i64,
                None => {
                    let given = given.to_string_lossy();
                    return args.refuse(at, format_args!("invalid option '{given}'"));
                }
            }
        }
    }
    match *setting {
        0 | 1 => Ok(Value::Boolean(*setting == 1)),
        other => Ok(Value::String(args.lua.create_string(words[other as usize])?)),
    }
}

fn sparse_array(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 3)?;
    let mut settings = settings.borrow_mut();
    let all = (0, i64::from(i32::MAX));
    let convert = word(args, 1, &mut settings.sparse_convert, OFF_ON)?;
    let ratio = int(args, 2, &mut settings.sparse_ratio, all)?;
    let safe = int(args, 3, &mut settings.sparse_safe, all)?;
    Ok(MultiValue::from_iter([convert, ratio, safe]))
}

fn encode_max_depth(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(int(args, 1, &mut settings.borrow_mut().encode_depth, (1, i64::from(i32::MAX)))?)
}

fn decode_max_depth(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(int(args, 1, &mut settings.borrow_mut().decode_depth, (1, i64::from(i32::MAX)))?)
}

fn number_precision(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(int(args, 1, &mut settings.borrow_mut().digits, (1, NUMBER_DIGITS))?)
}

fn keep_buffer(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(word(args, 1, &mut settings.borrow_mut().keep_buffer, OFF_ON)?)
}

fn encode_invalid_numbers(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(word(args, 1, &mut settings.borrow_mut().encode_invalid, INVALID)?)
}

fn decode_invalid_numbers(args: &Arguments<'_>, settings: &Shared) -> Result<MultiValue> {
    at_most(args, 1)?;
    one(word(args, 1, &mut settings.borrow_mut().decode_invalid, OFF_ON)?)
}

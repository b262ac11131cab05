//! The arguments of a library's function, checked as Lua's C libraries check theirs.

use mlua::{Lua, MultiValue, Result, Value};

use crate::raise;

/// What a function was called with, and its name for refusals.
pub(crate) struct Arguments<'a> {
    pub(crate) lua: &'a Lua,
    pub(crate) function: &'static str,
    pub(crate) values: &'a MultiValue,
}

impl Arguments<'_> {
    /// The argument at a position from 1; `None` if it was not given.
    pub(crate) fn get(&self, at: usize) -> Option<&Value> {
        self.values.get(at - 1)
    }

    fn is_absent(&self, at: usize) -> bool {
        self.get(at).is_none_or(Value::is_nil)
    }

    /// A number, or a string that reads as one.
    pub(crate) fn number(&self, at: usize) -> Result<f64> {
        let given = self.get(at);
        match given {
            Some(Value::Number(number)) => return Ok(*number),
            Some(Value::Integer(number)) => return Ok(*number as f64),
            Some(value @ Value::String(_)) => {
                if let Some(number) = self.lua.coerce_number(value.clone())? {
                    return Ok(number);
                }
            }
            _ => {}
        }
        Err(raise::wrong_type(self.lua, at, self.function, "number", given))
    }

    pub(crate) fn integer(&self, at: usize) -> Result<i64> {
        Ok(crate::convert::truncated(self.number(at)?))
    }

    pub(crate) fn integer_or(&self, at: usize, default: i64) -> Result<i64> {
        if self.is_absent(at) { Ok(default) } else { self.integer(at) }
    }

    /// A string, or a number as Lua writes it.
    pub(crate) fn string(&self, at: usize) -> Result<mlua::LuaString> {
        let given = self.get(at);
        if let Some(value @ (Value::String(_) | Value::Number(_) | Value::Integer(_))) = given
            && let Some(text) = self.lua.coerce_string(value.clone())?
        {
            return Ok(text);
        }
        Err(raise::wrong_type(self.lua, at, self.function, "string", given))
    }

    /// A refusal of the argument at a position.
    pub(crate) fn refuse<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T> {
        Err(raise::argument(self.lua, at, self.function, message))
    }
}

/// Sets a function of a library.
pub(crate) fn define(
    lua: &Lua,
    library: &mlua::Table,
    name: &'static str,
    run: impl Fn(Arguments<'_>) -> Result<MultiValue> + 'static,
) -> Result<()> {
    let function = lua.create_function(move |lua, values: MultiValue| {
        run(Arguments { lua, function: name, values: &values })
    })?;
    library.raw_set(name, function)
}

/// One result.
pub(crate) fn one(value: Value) -> Result<MultiValue> {
    Ok(MultiValue::from_iter([value]))
}

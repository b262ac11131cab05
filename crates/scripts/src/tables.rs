//! Functions of the library `table` whose loops nobody could interrupt: a table with elements at powers
//! of two alone passes for one with 2^30 of them, and `insert` takes any position.

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define};
use crate::raise::{self, Protected};

/// Elements that one call may go over. A table that has so many needs more memory than states have by
/// default; going over them takes half a second.
const ELEMENTS_MAX: i64 = 1 << 24;

pub(crate) fn functions(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let library: Table = lua.globals().raw_get("table")?;
    let native = |name: &str| library.raw_get::<Function>(name);
    let insert_native = native("insert")?;
    define(lua, &table, "insert", move |args| insert(&args, &insert_native))?;
    let remove_native = native("remove")?;
    define(lua, &table, "remove", move |args| {
        let length = length(&args)?;
        let at = args.integer_or(2, length)?;
        if !(1..=length).contains(&at) {
            return Ok(MultiValue::new());
        }
        bounded(&args, length - at)?;
        remove_native.call((args.values[0].clone(), at))
    })?;
    let (sort, protected) = (native("sort")?, Protected::new(lua)?);
    define(lua, &table, "sort", move |args| {
        bounded(&args, length(&args)?)?;
        if !matches!(args.get(2), None | Some(Value::Nil)) {
            function_at(&args)?;
        }
        // Lua puts the place before this one of its errors; called from here it finds none.
        const DISORDER: &str = "invalid order function for sorting";
        let done = protected.call(args.lua, &sort, args.values.clone());
        done.map_err(|error| {
            let is_disorder = raise::is_text(args.lua, &error, DISORDER);
            if is_disorder { raise::text(args.lua, DISORDER) } else { error }
        })
    })?;
    let (foreachi, protected) = (native("foreachi")?, Protected::new(lua)?);
    define(lua, &table, "foreachi", move |args| {
        bounded(&args, length(&args)?)?;
        function_at(&args)?;
        protected.call(args.lua, &foreachi, args.values.clone())
    })?;
    Ok(table)
}

fn insert(args: &Arguments<'_>, native: &Function) -> Result<MultiValue> {
    let end = length(args)? + 1;
    match args.values.len() {
        2 => {
            table_of(args)?.raw_set(end, args.values[1].clone())?;
            Ok(MultiValue::new())
        }
        3 => {
            let at = args.integer(2)?.clamp(i32::MIN.into(), i32::MAX.into());
            bounded(args, end - at)?;
            native.call((args.values[0].clone(), at, args.values[2].clone()))
        }
        _ => Err(raise::text(args.lua, "wrong number of arguments to 'insert'")),
    }
}

fn table_of<'a>(args: &'a Arguments<'_>) -> Result<&'a Table> {
    match args.get(1) {
        Some(Value::Table(table)) => Ok(table),
        other => Err(raise::wrong_type(args.lua, 1, args.function, "table", other)),
    }
}

fn length(args: &Arguments<'_>) -> Result<i64> {
    Ok(table_of(args)?.raw_len() as i64)
}

fn function_at(args: &Arguments<'_>) -> Result<()> {
    match args.get(2) {
        Some(Value::Function(_)) => Ok(()),
        other => Err(raise::wrong_type(args.lua, 2, args.function, "function", other)),
    }
}

fn bounded(args: &Arguments<'_>, elements: i64) -> Result<()> {
    if elements > ELEMENTS_MAX {
        return Err(raise::text(args.lua, "too many elements"));
    }
    Ok(())
}

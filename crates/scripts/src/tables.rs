//! Functions of the library `table` whose loops nobody could interrupt: a table with elements at powers
//! of two alone passes for one with 2^30 of them, and `insert` takes any position.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define};
use crate::raise::{self, Protected};
use crate::vm::State;

/// Elements that one call may go over; a table that has so many takes up all memory that states have by
/// default.
const ELEMENTS_MAX: i64 = 1 << 24;
/// Elements that are sorted without a look at whether the script has to end: ten milliseconds at worst.
const SORTED_UNSEEN_MAX: i64 = 1_000;

pub(crate) fn functions(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let library: Table = lua.globals().raw_get("table")?;
    let native = |name: &str| library.raw_get::<Function>(name);
    let insert_native = native("insert")?;
    let state = Rc::clone(state);
    define(lua, &table, "insert", move |args| {
        // The others have nothing to move in a stand-in that `insert` has put nothing into.
        state.wrote_raw.set(true);
        insert(&args, &insert_native)
    })?;
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
    let sorter = Sorter::new(lua, native("sort")?)?;
    define(lua, &table, "sort", move |args| sorter.sort(&args))?;
    let (foreachi, protected) = (native("foreachi")?, Protected::new(lua)?);
    define(lua, &table, "foreachi", move |args| {
        bounded(&args, length(&args)?)?;
        function_at(&args)?;
        protected.call(args.lua, &foreachi, args.values.clone())
    })?;
    Ok(table)
}

/// `sort`. Some orders take it a time that grows with the square of what is sorted, and nothing but an
/// instruction of Lua's is counted: what is long is compared by a function of Lua's.
struct Sorter {
    native: Function,
    protected: Protected,
    /// Compares as `sort` does by itself.
    less: Function,
    /// Makes a function of Lua's that calls another.
    wrap: Function,
}

impl Sorter {
    fn new(lua: &Lua, native: Function) -> Result<Sorter> {
        let load = |code: &str| lua.load(code).set_name("=evenkeel").into_function();
        Ok(Sorter {
            native,
            protected: Protected::new(lua)?,
            less: load("local one, other = ... return one < other")?,
            wrap: load(
                "local less = ... return function(one, other) return (less(one, other)) end",
            )?,
        })
    }

    fn sort(&self, args: &Arguments<'_>) -> Result<MultiValue> {
        let length = length(args)?;
        bounded(args, length)?;
        let given = match args.get(2) {
            None | Some(Value::Nil) => None,
            Some(Value::Function(given)) => Some(given.clone()),
            _ => Some(function_at(args)?.clone()),
        };
        let less = match given {
            given if length <= SORTED_UNSEEN_MAX => given,
            None => Some(self.less.clone()),
            Some(given) if given.info().what == "C" => Some(self.wrap.call(given)?),
            given => given,
        };
        let mut values = MultiValue::from_iter([args.values[0].clone()]);
        values.extend(less.map(Value::Function));
        // Lua puts the place before this one of its errors; called from here it finds none.
        const DISORDER: &str = "invalid order function for sorting";
        let done = self.protected.call(args.lua, &self.native, values);
        done.map_err(|error| {
            let is_disorder = raise::is_text(args.lua, &error, DISORDER);
            if is_disorder { raise::text(args.lua, DISORDER) } else { error }
        })
    }
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

fn function_at<'a>(args: &'a Arguments<'_>) -> Result<&'a Function> {
    match args.get(2) {
        Some(Value::Function(function)) => Ok(function),
        other => Err(raise::wrong_type(args.lua, 2, args.function, "function", other)),
    }
}

fn bounded(args: &Arguments<'_>, elements: i64) -> Result<()> {
    if elements > ELEMENTS_MAX {
        return Err(raise::text(args.lua, "too many elements"));
    }
    Ok(())
}

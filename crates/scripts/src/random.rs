//! `math.random` and `math.randomseed`: the generator of Redis, so that a seed gives the numbers that
//! it gives there. Each run starts from another seed.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::vm::State;

const MULTIPLIER: u64 = 0x5_deec_e66d;
const INCREMENT: u64 = 0xb;
const MASK: u64 = (1 << 48) - 1;
const LOW_OF_SEED: u64 = 0x330e;
const LIMIT: f64 = i32::MAX as f64;

/// A linear congruential generator of 48 bits.
#[derive(Debug, Default)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn seed(&self, seed: u32) {
        self.0.set(u64::from(seed) << 16 | LOW_OF_SEED);
    }

    /// 31 bits.
    fn next(&self) -> u32 {
        let next = self.0.get().wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & MASK;
        self.0.set(next);
        (next >> 17) as u32
    }
}

/// What replaces functions of `math`.
pub(crate) fn functions(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let numbers = Rc::clone(state);
    define(lua, &table, "random", move |args| random(&args, &numbers.random))?;
    let numbers = Rc::clone(state);
    define(lua, &table, "randomseed", move |args| {
        numbers.random.seed(args.integer(1)? as u32);
        Ok(MultiValue::new())
    })?;
    Ok(table)
}

fn random(args: &Arguments<'_>, numbers: &Random) -> Result<MultiValue> {
    let fraction = f64::from(numbers.next() % i32::MAX as u32) / LIMIT;
    let int = |at| args.integer(at).map(|number| f64::from(number as i32));
    one(Value::Number(match args.values.len() {
        0 => fraction,
        1 => match int(1)? {
            upper if upper >= 1.0 => (fraction * upper).floor() + 1.0,
            _ => return args.refuse(1, "interval is empty"),
        },
        2 => match (int(1)?, int(2)?) {
            (lower, upper) if lower <= upper => (fraction * (upper - lower + 1.0)).floor() + lower,
            _ => return args.refuse(2, "interval is empty"),
        },
        _ => return Err(crate::raise::text(args.lua, "wrong number of arguments")),
    }))
}

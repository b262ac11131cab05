//! The library `struct`: values packed as C lays them out.
//!
//! ```text
//! format  = ( endian | align | item | ' ' )*
//! endian  = '<' little | '>' big             little at first
//! align   = '!' [n]                          a power of two, 8 at most if none is given
//! item    = b B h H l L T                    signed and unsigned, 1, 2, 8 and 8 bytes
//!         | i[n] I[n]                        n bytes, 4 if none is given
//!         | f d                              float and double
//!         | x                                a byte of nothing
//!         | c[n]                             n bytes; c0: all of them
//!         | s                                bytes up to a NUL
//! ```

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::raise;

const INTEGER_BYTES_MAX: usize = 32;
const ALIGN_DEFAULT: usize = 8;
/// Numbers in a format, so that sizes cannot overflow.
const NUMBER_MAX: usize = i32::MAX as usize;
/// What a script may pack at once: the largest string a client can have.
const PACKED_BYTES_MAX: usize = 512 << 20;

pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    define(lua, &table, "pack", |args| {
        // As there, where a nil separates the arguments from what is made of them.
        let mark = (!args.values.is_empty()).then_some(Value::Nil);
        let values = args.values.iter().cloned().chain(mark).collect();
        pack(&Arguments { values: &values, ..args })
    })?;
    define(lua, &table, "unpack", |args| unpack(&args))?;
    define(lua, &table, "size", |args| size(&args))?;
    Ok(table)
}

/// A format that is being read.
struct Format<'a> {
    args: &'a Arguments<'a>,
    text: std::slice::Iter<'a, u8>,
    big: bool,
    align: usize,
}

struct Item {
    option: u8,
    size: usize,
    /// Bytes to leave out first.
    padding: usize,
}

impl Format<'_> {
    /// The next item at an offset; control options are taken on the way.
    fn next(&mut self, offset: usize) -> Result<Option<Item>> {
        let Some(option) = self.text.next().copied() else { return Ok(None) };
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => match self.number(4)? {
                size if size > INTEGER_BYTES_MAX => {
                    let limit = INTEGER_BYTES_MAX;
                    let text = format_args!("integral size {size} is larger than limit of {limit}");
                    return Err(raise::text(self.args.lua, text));
                }
                size => size,
            },
            b's' => 0,
            _ => {
                self.control(option)?;
                0
            }
        };
        let align = if option == b'c' { 0 } else { size.min(self.align) };
        let padding =
            if align == 0 { 0 } else { align.wrapping_sub(offset & (align - 1)) & (align - 1) };
        Ok(Some(Item { option, size, padding }))
    }

    fn number(&mut self, default: usize) -> Result<usize> {
        if !self.text.as_slice().first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut number = 0;
        while let Some(digit) = self.text.as_slice().first().filter(|byte| byte.is_ascii_digit()) {
            number = number * 10 + usize::from(digit - b'0');
            if number > NUMBER_MAX {
                return Err(raise::text(self.args.lua, "integral size overflow"));
            }
            self.text.next();
        }
        Ok(number)
    }

    fn control(&mut self, option: u8) -> Result<()> {
        match option {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let align = self.number(ALIGN_DEFAULT)?;
                if !align.is_power_of_two() {
                    let text = format_args!("alignment {align} is not a power of 2");
                    return Err(raise::text(self.args.lua, text));
                }
                self.align = align;
            }
            other => {
                let other = char::from(other);
                return self.args.refuse(1, format_args!("invalid format option '{other}'"));
            }
        }
        Ok(())
    }

    /// Little-endian bytes in the format's order, and back.
    fn ordered<'b>(&self, bytes: &'b mut [u8]) -> &'b [u8] {
        if self.big {
            bytes.reverse();
        }
        bytes
    }
}

fn format<'a>(args: &'a Arguments<'a>, text: &'a [u8]) -> Format<'a> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Format { args, text: text.iter(), big: false, align: 1 }
}

fn pack(args: &Arguments<'_>) -> Result<MultiValue> {
    let text = args.string(1)?;
    let text = text.as_bytes();
    let mut format = format(args, &text);
    let mut out = Vec::new();
    let mut at = 2;
    while let Some(Item { option, size, padding }) = format.next(out.len())? {
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = args.number(at)?;
                let value = if number < 0.0 { (number as i64) as u64 } else { number as u64 };
                let mut bytes = [0; INTEGER_BYTES_MAX];
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                out.extend_from_slice(format.ordered(&mut bytes[..size]));
                at += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                let mut bytes = (args.number(at)? as f32).to_le_bytes();
                out.extend_from_slice(format.ordered(&mut bytes));
                at += 1;
            }
            b'd' => {
                let mut bytes = args.number(at)?.to_le_bytes();
                out.extend_from_slice(format.ordered(&mut bytes));
                at += 1;
            }
            b'c' | b's' => {
                let given = args.string(at)?;
                let given = given.as_bytes();
                at += 1;
                let kept = if size == 0 { given.len() } else { size };
                let Some(kept) = given.get(..kept) else {
                    return args.refuse(at, "string too short");
                };
                out.extend_from_slice(kept);
                if option == b's' {
                    out.push(0);
                }
            }
            _ => {}
        }
        if out.len() > PACKED_BYTES_MAX {
            return Err(raise::text(args.lua, "format result too large"));
        }
    }
    one(Value::String(args.lua.create_string(out)?))
}

fn unpack(args: &Arguments<'_>) -> Result<MultiValue> {
    let (text, data) = (args.string(1)?, args.string(2)?);
    let (text, data) = (text.as_bytes(), data.as_bytes());
    let Some(mut at) =
        args.integer_or(3, 1)?.checked_sub(1).and_then(|at| usize::try_from(at).ok())
    else {
        return args.refuse(3, "offset must be 1 or greater");
    };
    let mut format = format(args, &text);
    let mut results: Vec<Value> = Vec::new();
    let too_short = || args.refuse(2, "data string too short");
    while let Some(Item { option, mut size, padding }) = format.next(at)? {
        at = at.saturating_add(padding);
        let Some(mut item) = at.checked_add(size).and_then(|end| data.get(at..end)) else {
            return too_short();
        };
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let bytes = &mut [0; INTEGER_BYTES_MAX][..size];
                bytes.copy_from_slice(item);
                let number = integer(format.ordered(bytes), option.is_ascii_lowercase());
                results.push(Value::Number(number));
            }
            b'f' => {
                let mut bytes: [u8; 4] = item.try_into().expect("a float has four bytes");
                format.ordered(&mut bytes);
                results.push(Value::Number(f64::from(f32::from_le_bytes(bytes))));
            }
            b'd' => {
                let mut bytes: [u8; 8] = item.try_into().expect("a double has eight bytes");
                format.ordered(&mut bytes);
                results.push(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' => {
                if size == 0 {
                    let counted = match results.pop() {
                        Some(Value::Number(count)) => count,
                        _ => {
                            let text = "format 'c0' needs a previous size";
                            return Err(raise::text(args.lua, text));
                        }
                    };
                    size = counted as usize;
                    let end = at.checked_add(size);
                    let Some(counted) = end.and_then(|end| data.get(at..end)) else {
                        return too_short();
                    };
                    item = counted;
                }
                results.push(Value::String(args.lua.create_string(item)?));
            }
            b's' => {
                let Some(length) = data[at..].iter().position(|byte| *byte == 0) else {
                    return Err(raise::text(args.lua, "unfinished string in data"));
                };
                results.push(Value::String(args.lua.create_string(&data[at..at + length])?));
                size = length + 1;
            }
            _ => {}
        }
        at += size;
    }
    results.push(Value::Integer(at as i64 + 1));
    Ok(MultiValue::from_vec(results))
}

/// A little-endian integer of any size; of more than eight bytes the low ones count.
fn integer(bytes: &[u8], is_signed: bool) -> f64 {
    let mut low = [0; 8];
    for (to, from) in low.iter_mut().zip(bytes) {
        *to = *from;
    }
    let value = u64::from_le_bytes(low);
    if !is_signed {
        return value as f64;
    }
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    if unused == 64 { 0.0 } else { ((value << unused).cast_signed() >> unused) as f64 }
}

fn size(args: &Arguments<'_>) -> Result<MultiValue> {
    let text = args.string(1)?;
    let text = text.as_bytes();
    let mut format = format(args, &text);
    let mut total = 0usize;
    while let Some(Item { option, size, padding }) = format.next(total)? {
        match option {
            b's' => return args.refuse(1, "option 's' has no fixed size"),
            b'c' if size == 0 => return args.refuse(1, "option 'c0' has no fixed size"),
            _ => {}
        }
        total = total.saturating_add(padding).saturating_add(size);
        if total > NUMBER_MAX {
            return args.refuse(1, "format result too large");
        }
    }
    one(Value::Integer(total as i64))
}

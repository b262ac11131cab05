//! Bitmap commands: strings seen as bits. How bits are counted and found: types/bits.rs.
//!
//! Redis bounds a bit's offset by the longest string, 512 MB; so does a read here, since behind the
//! end of a string all bits are 0. A write is bound by our own longest string, with the same refusal.

use bytes::{Bytes, BytesMut};
use wire::resp::Reply;

use super::string::{read_text, text_of};
use crate::args::{Args, VALUE_BYTES_MAX, Word, parse_int};
use crate::command::{Command, Flags, KeyFlags, Keys, at_least, exactly, key, read, write};
use crate::error::CommandError;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::bits::{self, Field, Operation, Overflow};
use crate::types::header::{TextForm, Value};
use crate::types::keyspace::{self, Found};
use crate::view::View;

const FAST: Flags = Flags::FAST;
const NONE: Flags = Flags::NONE;
const DENYOOM: Flags = Flags::DENYOOM;

const RO_ACCESS_FLAGS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const RO_ACCESS: Keys = key(1, RO_ACCESS_FLAGS);
const RW_ACCESS_FLAGS: KeyFlags =
    KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0);
const RW_ACCESS: Keys = key(1, RW_ACCESS_FLAGS);
const FIELD_KEY: Keys = key(1, KeyFlags(RW_ACCESS_FLAGS.0 | KeyFlags::VARIABLE_FLAGS.0));
const BITOP_KEYS: Keys = Keys::Into {
    target: 2,
    into: KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0),
    from: RO_ACCESS_FLAGS,
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name           arity        flags    keys        handler
    read ("BITCOUNT",    at_least(2), NONE,    RO_ACCESS,  bitcount),
    write("BITFIELD",    at_least(2), DENYOOM, FIELD_KEY,  bitfield),
    read ("BITFIELD_RO", at_least(2), FAST,    RO_ACCESS,  bitfield_ro),
    write("BITOP",       at_least(4), DENYOOM, BITOP_KEYS, bitop),
    read ("BITPOS",      at_least(3), NONE,    RO_ACCESS,  bitpos),
    read ("GETBIT",      exactly(3),  FAST,    RO_ACCESS,  getbit),
    write("SETBIT",      exactly(4),  DENYOOM, RW_ACCESS,  setbit),
];

/// Bits that can be addressed: those of Redis's longest string.
const OFFSET_MAX: i64 = (512 << 20) * 8 - 1;

/// A bit's offset; `#n` is the `n`th field of this width, if there is one.
fn offset(text: &[u8], width: Option<u32>) -> Result<u64, CommandError> {
    let parsed = match (text.split_first(), width) {
        (Some((b'#', number)), Some(width)) => {
            parse_int(number).and_then(|number| number.checked_mul(i64::from(width)))
        }
        _ => parse_int(text),
    };
    let offset = parsed.filter(|offset| (0..=OFFSET_MAX).contains(offset));
    offset.map(|offset| offset as u64).ok_or(CommandError::BIT_OFFSET)
}

// --- Single bits

fn getbit(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let offset = offset(args.bytes(2)?, None)?;
    let text = read_text(view, args.bytes(1)?)?.unwrap_or_default();
    Ok(Reply::Integer(i64::from(bits::get(&text, offset))))
}

fn setbit(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let offset = offset(args.bytes(2)?, None)?;
    let on = match parse_int(args.bytes(3)?) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(CommandError::BIT_VALUE),
    };
    let key = args.bytes(1)?;
    let mut target = Target::open(txn, key, (offset >> 3) + 1)?;
    let before = bits::get(&target.text, offset);
    if before != on {
        bits::set(target.text_mut(), offset, on);
    }
    let changed = target.has_new_bits;
    target.store(txn, key);
    note_bits(txn, key, changed);
    Ok(Reply::Integer(i64::from(before)))
}

/// A string whose bits are written. What Redis does to the string before it looks at the bits is
/// done here, too: it is made if there is none, grows to what is addressed, and its encoding is raw.
struct Target {
    found: Found,
    text: BytesMut,
    changed: bool,
    /// It is longer than before, or has other bits.
    has_new_bits: bool,
}

/// Notes that bits of a string were written, if they are others than before.
fn note_bits(txn: &Txn<'_>, key: &[u8], changed: bool) {
    if changed {
        txn.note(Wanted::STRING, "setbit", key);
    }
}

impl Target {
    fn open(txn: &Txn<'_>, key: &[u8], length: u64) -> Result<Target, CommandError> {
        let found = keyspace::lookup(txn, key)?;
        let old = text_of(&found)?.cloned().unwrap_or_default();
        let length = usize::try_from(length).ok().filter(|length| *length <= VALUE_BYTES_MAX);
        let length = length.ok_or(CommandError::BIT_OFFSET)?.max(old.len());
        let is_raw = found.header().is_some_and(|header| {
            matches!(header.value, Value::String { form: TextForm::Raw, .. })
        });
        let changed = !is_raw || length > old.len();
        let mut text = BytesMut::with_capacity(length);
        text.extend_from_slice(&old);
        text.resize(length, 0);
        Ok(Target { has_new_bits: length > old.len(), found, text, changed })
    }

    fn text_mut(&mut self) -> &mut [u8] {
        self.changed = true;
        self.has_new_bits = true;
        &mut self.text
    }

    /// Stores the string, if it is another one now: whoever watches it is told the truth.
    fn store(self, txn: &mut Txn<'_>, key: &[u8]) {
        if self.changed {
            let expire_at_ms = self.found.expire_at_ms();
            keyspace::store(txn, key, self.found, raw(self.text.freeze()), expire_at_ms);
        }
    }
}

fn raw(text: Bytes) -> Value {
    Value::String { text, form: TextForm::Raw }
}

// --- Ranges

/// Whether a range is of bits rather than of bytes.
fn is_of_bits(unit: Option<&Bytes>) -> Result<bool, CommandError> {
    match unit.map(|unit| Word::new(unit)) {
        None => Ok(false),
        Some(word) if word.as_bytes() == b"BIT" => Ok(true),
        Some(word) if word.as_bytes() == b"BYTE" => Ok(false),
        Some(_) => Err(CommandError::Syntax),
    }
}

/// The first and last bit that bounds name in a text, negative ones counted from its end; `None` if
/// there are none between them.
fn bit_range(length: usize, (start, end): (i64, i64), of_bits: bool) -> Option<(u64, u64)> {
    let total = if of_bits { length as i64 * 8 } else { length as i64 };
    let from_end = |at: i64| if at < 0 { at.saturating_add(total).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end {
        return None;
    }
    let (start, end) = (start as u64, end as u64);
    Some(if of_bits { (start, end) } else { (start * 8, end * 8 + 7) })
}

fn bitcount(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let (bounds, of_bits) = match args.len() {
        2 => ((0, -1), false),
        4 | 5 => ((args.int(2)?, args.int(3)?), is_of_bits(args.get(4))?),
        _ => return Err(CommandError::Syntax),
    };
    let text = read_text(view, args.bytes(1)?)?.unwrap_or_default();
    // Redis answers so before it clamps; after clamping, both bounds would be 0.
    let backward = bounds.0 < 0 && bounds.1 < 0 && bounds.0 > bounds.1;
    let range = bit_range(text.len(), bounds, of_bits).filter(|_| !backward);
    let count = range.map_or(0, |(first, last)| bits::count(&text, first, last));
    Ok(Reply::Integer(count as i64))
}

fn bitpos(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = match args.int(2)? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::BIT_WANTED),
    };
    if args.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = if args.len() > 3 { args.int(3)? } else { 0 };
    let of_bits = is_of_bits(args.get(5))?;
    let end = if args.len() > 4 { Some(args.int(4)?) } else { None };
    let Some(text) = read_text(view, args.bytes(1)?)? else {
        // A string that does not exist is endless zeros.
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let range = bit_range(text.len(), (start, end.unwrap_or(-1)), of_bits);
    let found = range.and_then(|(first, last)| bits::find(&text, first, last, wanted));
    Ok(Reply::Integer(match (found, range) {
        (Some(at), _) => at as i64,
        // Without an end, the first zero may be the one behind the string.
        (None, Some(_)) if !wanted && end.is_none() => text.len() as i64 * 8,
        (None, _) => -1,
    }))
}

// --- BITOP

fn bitop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let operation = match Word::new(args.bytes(1)?).as_bytes() {
        b"AND" => Some(Operation::And),
        b"OR" => Some(Operation::Or),
        b"XOR" => Some(Operation::Xor),
        b"NOT" => None,
        _ => return Err(CommandError::Syntax),
    };
    let sources = args.from(3);
    if operation.is_none() && sources.len() != 1 {
        return Err(CommandError::BITOP_NOT);
    }
    let mut texts = Vec::with_capacity(sources.len());
    for source in sources {
        texts.push(read_text(txn, source)?.unwrap_or_default());
    }
    let length = texts.iter().map(Bytes::len).max().unwrap_or(0);
    let mut result = BytesMut::with_capacity(length);
    if let Some((first, others)) = texts.split_first() {
        result.extend_from_slice(first);
        result.resize(length, 0);
        match operation {
            Some(operation) => {
                others.iter().for_each(|other| bits::join(&mut result, operation, other));
            }
            None => result.iter_mut().for_each(|byte| *byte = !*byte),
        }
    }
    let target = args.bytes(2)?;
    let found = keyspace::lookup(txn, target)?;
    if length == 0 {
        keyspace::remove(txn, target, found);
    } else {
        keyspace::store(txn, target, found, raw(result.freeze()), None);
        txn.note(Wanted::STRING, "set", target);
    }
    Ok(Reply::Integer(length as i64))
}

// --- BITFIELD

/// One of BITFIELD's operations.
struct FieldOperation {
    field: Field,
    what: FieldChange,
    overflow: Overflow,
}

#[derive(Clone, Copy)]
enum FieldChange {
    Get,
    Set(i64),
    Increment(i64),
}

fn parse_operations(args: Args<'_>) -> Result<Vec<FieldOperation>, CommandError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = args.options(2);
    while let Some(word) = rest.word() {
        let (get, set) = match word.as_bytes() {
            b"OVERFLOW" if rest.left() >= 1 => {
                overflow = match Word::new(rest.value()?).as_bytes() {
                    b"WRAP" => Overflow::Wrap,
                    b"SAT" => Overflow::Saturate,
                    b"FAIL" => Overflow::Fail,
                    _ => return Err(CommandError::BITFIELD_OVERFLOW),
                };
                continue;
            }
            b"GET" if rest.left() >= 2 => (true, false),
            b"SET" if rest.left() >= 3 => (false, true),
            b"INCRBY" if rest.left() >= 3 => (false, false),
            _ => return Err(CommandError::Syntax),
        };
        let (signed, bits) = field_type(rest.value()?)?;
        let offset = offset(rest.value()?, Some(bits))?;
        let what = match (get, set) {
            (true, _) => FieldChange::Get,
            (_, true) => FieldChange::Set(rest.int()?),
            _ => FieldChange::Increment(rest.int()?),
        };
        operations.push(FieldOperation { field: Field { offset, bits, signed }, what, overflow });
    }
    Ok(operations)
}

/// `i8`, `u63` …: whether it has a sign, and its bits.
fn field_type(text: &[u8]) -> Result<(bool, u32), CommandError> {
    let (signed, width) = match text.split_first() {
        Some((b'i', width)) => (true, width),
        Some((b'u', width)) => (false, width),
        _ => return Err(CommandError::BITFIELD_TYPE),
    };
    // Up to a NUL, as C reads it.
    let width = width.split(|byte| *byte == 0).next().unwrap_or_default();
    let widest = if signed { 64 } else { 63 };
    let bits = parse_int(width).filter(|bits| (1..=widest).contains(bits));
    bits.map(|bits| (signed, bits as u32)).ok_or(CommandError::BITFIELD_TYPE)
}

fn bitfield_ro(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let operations = parse_operations(args)?;
    if operations.iter().any(|operation| !matches!(operation.what, FieldChange::Get)) {
        return Err(CommandError::BITFIELD_RO);
    }
    get_fields(view, args.bytes(1)?, &operations)
}

fn get_fields(
    view: &dyn View,
    key: &[u8],
    operations: &[FieldOperation],
) -> Result<Reply, CommandError> {
    let text = read_text(view, key)?.unwrap_or_default();
    let get = |operation: &FieldOperation| Reply::Integer(operation.field.get(&text));
    Ok(Reply::Array(operations.iter().map(get).collect()))
}

fn bitfield(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let operations = parse_operations(args)?;
    let key = args.bytes(1)?;
    let written = operations.iter().filter(|operation| !matches!(operation.what, FieldChange::Get));
    let Some(length) = written.map(|operation| operation.field.end_bytes()).max() else {
        return get_fields(txn, key, &operations);
    };
    let mut target = Target::open(txn, key, length)?;
    let mut replies = Vec::with_capacity(operations.len());
    let mut writes = false;
    for FieldOperation { field, what, overflow } in operations {
        let old = field.get(&target.text);
        let number = match what {
            FieldChange::Get => {
                replies.push(Reply::Integer(old));
                continue;
            }
            // Without a sign a negative number is the one that its bits are.
            FieldChange::Set(value) if !field.signed => i128::from(value.cast_unsigned()),
            FieldChange::Set(value) => i128::from(value),
            FieldChange::Increment(by) => i128::from(old) + i128::from(by),
        };
        let Some(new) = field.fit(number, overflow) else {
            replies.push(Reply::Null);
            continue;
        };
        writes = true;
        if new != old {
            field.set(target.text_mut(), new);
        }
        let is_set = matches!(what, FieldChange::Set(_));
        replies.push(Reply::Integer(if is_set { old } else { new }));
    }
    // A string that only grew, as all writes overflowed, has no event.
    let changed = writes && target.has_new_bits;
    target.store(txn, key);
    note_bits(txn, key, changed);
    Ok(Reply::Array(replies))
}

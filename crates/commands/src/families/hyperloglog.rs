//! HyperLogLog commands, on strings. Their format: types/hyperloglog.rs.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Word};
use crate::command::{
    Command, Flags, KeyFlags, Keys, Session, at_least, exactly, key, keys_from, read, session,
    write,
};
use crate::error::{CommandError, Echo};
use crate::families::string::{read_text, text_of};
use crate::notes::Wanted;
use crate::overdue::Overdue;
use crate::txn::Txn;
use crate::types::header::{TextForm, Value};
use crate::types::hyperloglog::{
    Corrupted, HyperLogLog, Opcode, REGISTERS, Registers, SPARSE_BYTES_MAX, estimate,
};
use crate::types::keyspace::{self, Found};
use crate::view::View;

const GROWS: Flags = Flags::DENYOOM.and(Flags::FAST);
/// What was counted is kept in the string, behind the command: a pause and a script that may not write
/// treat it as a write.
const COUNTS: Flags = Flags::MAY_REPLICATE;
const ADMIN: Flags = Flags::ADMIN;
const DEBUGS: Flags = Flags::DENYOOM.and(Flags::ADMIN);

const RW_ACCESS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0);
const RW_INSERT: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0));
const ALL: Keys = keys_from(1, 1, RW_ACCESS);
const MERGE: Keys = Keys::Into {
    target: 1,
    into: KeyFlags(RW_ACCESS.0 | KeyFlags::INSERT.0),
    from: KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0),
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name          arity        flags            keys       handler
    write(  "PFADD",      at_least(2), GROWS,           RW_INSERT, pfadd),
    read (  "PFCOUNT",    at_least(2), COUNTS,          ALL,       pfcount),
    write(  "PFDEBUG",    exactly(3),  DEBUGS,          key(2, RW_ACCESS), pfdebug),
    write(  "PFMERGE",    at_least(2), Flags::DENYOOM,  MERGE,     pfmerge),
    session("PFSELFTEST", exactly(1),  ADMIN,           Keys::None, Session::PfSelftest),
];

fn pfadd(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let old = of(text_of(&found)?)?;
    let mut updated = old.is_none();
    let mut one = old.unwrap_or_else(HyperLogLog::new);
    let sparse_max = txn.shapes().sparse_bytes_max;
    for element in args.from(2) {
        updated |= one.add(element, sparse_max)?;
    }
    if updated {
        one.forget_count();
        store(txn, key, found, one);
        txn.note(Wanted::STRING, "pfadd", key);
    }
    Ok(Reply::Integer(i64::from(updated)))
}

fn pfcount(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let count = match args.from(1) {
        [key] => match of(read_text(view, key)?.as_ref())? {
            Some(one) => {
                if one.known_count().is_none() {
                    view.meet_overdue(key, Overdue::Count);
                }
                one.count()?
            }
            None => 0,
        },
        keys => estimate(&merged(view, keys)?.0),
    };
    Ok(Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX)))
}

/// Writes the count of a HyperLogLog into it, so that the next PFCOUNT finds it.
pub(crate) fn remember_count(
    txn: &mut Txn<'_>,
    key: &[u8],
    found: Found,
) -> Result<(), CommandError> {
    if let Some(mut one) = of(text_of(&found)?)?
        && one.known_count().is_none()
    {
        one.remember_count()?;
        store(txn, key, found, one);
    }
    Ok(())
}

fn pfmerge(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (registers, any_dense) = merged(txn, args.from(1))?;
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let mut one = of(text_of(&found)?)?.unwrap_or_else(HyperLogLog::new);
    if any_dense {
        one.make_dense()?;
    }
    let sparse_max = txn.shapes().sparse_bytes_max;
    for (index, value) in registers.iter().enumerate().filter(|(_, value)| **value > 0) {
        one.raise(index, *value, sparse_max)?;
    }
    one.forget_count();
    store(txn, key, found, one);
    // Redis calls it so, too.
    txn.note(Wanted::STRING, "pfadd", key);
    Ok(Reply::OK)
}

/// The highest of each register, and whether any of the strings is dense.
fn merged(view: &dyn View, keys: &[Bytes]) -> Result<(Box<Registers>, bool), CommandError> {
    let (mut registers, mut any_dense) = (Box::new([0; REGISTERS]), false);
    for key in keys {
        if let Some(one) = of(read_text(view, key)?.as_ref())? {
            any_dense |= !one.is_sparse();
            one.merge_into(&mut registers)?;
        }
    }
    Ok((registers, any_dense))
}

fn pfdebug(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(2)?;
    let found = keyspace::lookup(txn, key)?;
    let mut one = of(text_of(&found)?)?.ok_or(CommandError::PFDEBUG_NO_KEY)?;
    let name = args.bytes(1)?;
    Ok(match Word::new(name).as_bytes() {
        b"GETREG" => {
            let mut registers = Box::new([0; REGISTERS]);
            one.merge_into(&mut registers)?;
            if one.make_dense()? {
                store(txn, key, found, one);
            }
            Reply::Array(registers.iter().map(|value| Reply::Integer(i64::from(*value))).collect())
        }
        b"DECODE" if !one.is_sparse() => return Err(CommandError::PFDEBUG_NOT_SPARSE),
        b"DECODE" => {
            let parts = one.opcodes().map_while(Result::ok).map(|opcode| match opcode {
                Opcode::Zeros(run) => format!("z:{run}"),
                Opcode::ManyZeros(run) => format!("Z:{run}"),
                Opcode::Value(value, run) => format!("v:{value},{run}"),
            });
            Reply::Bulk(Bytes::from(parts.collect::<Vec<_>>().join(" ")))
        }
        b"ENCODING" => Reply::Simple(if one.is_sparse() { "sparse" } else { "dense" }),
        b"TODENSE" => {
            let changed = one.make_dense()?;
            if changed {
                store(txn, key, found, one);
            }
            Reply::Integer(i64::from(changed))
        }
        _ => return Err(CommandError::PfdebugUnknown(Echo::new(name))),
    })
}

/// Elements that the self-test adds.
const SELF_TEST_ELEMENTS: u64 = 100_000;

/// What PFSELFTEST answers: OK, or what is wrong. It asks no partition, so the router sends it.
///
/// Fewer elements than Redis adds, since a router serves others, too.
pub fn hyperloglog_self_test(seed: u64) -> Reply {
    let test = || -> Result<Option<String>, Corrupted> {
        let (mut sparse, mut dense) = (HyperLogLog::new(), HyperLogLog::new());
        dense.make_dense()?;
        let mut checkpoint = 1;
        for number in 1..=SELF_TEST_ELEMENTS {
            let element = (number ^ seed).to_le_bytes();
            sparse.add(&element, SPARSE_BYTES_MAX)?;
            dense.add(&element, SPARSE_BYTES_MAX)?;
            if number != checkpoint {
                continue;
            }
            for one in [&mut sparse, &mut dense] {
                one.forget_count();
            }
            if number < SPARSE_BYTES_MAX / 2 && !sparse.is_sparse() {
                return Ok(Some("sparse encoding not used".to_owned()));
            }
            let count = dense.count()?;
            if sparse.count()? != count {
                return Ok(Some("dense/sparse disagree".to_owned()));
            }
            let error_max = (1.04 / (REGISTERS as f64).sqrt() * 6.0 * number as f64).ceil() as u64;
            let error = count.abs_diff(number);
            if error > error_max {
                return Ok(Some(format!("Too big error. card:{number} abserr:{error}")));
            }
            checkpoint *= 10;
        }
        Ok(None)
    };
    match test() {
        Ok(None) => Reply::OK,
        Ok(Some(what)) => CommandError::SelfTestFailed(what).into(),
        Err(Corrupted) => CommandError::CORRUPTED_HLL.into(),
    }
}

impl From<Corrupted> for CommandError {
    fn from(_: Corrupted) -> CommandError {
        CommandError::CORRUPTED_HLL
    }
}

fn of(text: Option<&Bytes>) -> Result<Option<HyperLogLog>, CommandError> {
    text.map(|text| HyperLogLog::read(text).ok_or(CommandError::NOT_HLL)).transpose()
}

fn store(txn: &mut Txn<'_>, key: &[u8], found: Found, one: HyperLogLog) {
    let expire_at_ms = found.expire_at_ms();
    let text = Bytes::from(one.into_bytes());
    let value = Value::String { text, form: TextForm::Raw };
    keyspace::store(txn, key, found, value, expire_at_ms);
}

//! Set commands. Layout of a set: types/set.rs.

use std::collections::HashSet;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, parse_cursor, parse_int};
use crate::command::{
    Command, Flags, KeyFlags, Keys, Ran, at_least, exactly, key, keys_from, read, write,
};
use crate::cursor::{self, Walk};
use crate::error::CommandError;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::keyspace;
use crate::types::set::{Encoding, Set};
use crate::types::set_edit::{self, SetEdit};
use crate::view::View;

const FAST: Flags = Flags::FAST;
const DENYOOM: Flags = Flags::DENYOOM;
const GROWS: Flags = Flags::DENYOOM.and(Flags::FAST);
const NONE: Flags = Flags::NONE;

const RO_ACCESS_FLAGS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const RW_INSERT_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0);
const RW_TAKE_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0);
const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, RO_ACCESS_FLAGS);
const RW_INSERT: Keys = key(1, RW_INSERT_FLAGS);
const RW_DELETE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0));
const RW_TAKE: Keys = key(1, RW_TAKE_FLAGS);
const ALL_ACCESS: Keys = keys_from(1, 1, RO_ACCESS_FLAGS);
const COUNTED: Keys = Keys::Counted { at: 1, flags: RO_ACCESS_FLAGS };
const MOVE: Keys = Keys::Pair(RW_TAKE_FLAGS, RW_INSERT_FLAGS);
const STORE: Keys = Keys::Into {
    target: 1,
    into: KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0),
    from: RO_ACCESS_FLAGS,
};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name           arity        flags    keys        handler
    write("SADD",        at_least(3), GROWS,   RW_INSERT,  sadd).element_at(2).or_many(sadd_many),
    read ("SCARD",       exactly(2),  FAST,    RO,         scard),
    read ("SDIFF",       at_least(2), NONE,    ALL_ACCESS, sdiff),
    write("SDIFFSTORE",  at_least(3), DENYOOM, STORE,      sdiffstore),
    read ("SINTER",      at_least(2), NONE,    ALL_ACCESS, sinter),
    read ("SINTERCARD",  at_least(3), NONE,    COUNTED,    sintercard),
    write("SINTERSTORE", at_least(3), DENYOOM, STORE,      sinterstore),
    read ("SISMEMBER",   exactly(3),  FAST,    RO,         sismember).element_at(2),
    read ("SMEMBERS",    exactly(2),  NONE,    RO_ACCESS,  smembers),
    read ("SMISMEMBER",  at_least(3), FAST,    RO_ACCESS,         smismember).element_at(2),
    write("SMOVE",       exactly(4),  FAST,    MOVE,       smove),
    write("SPOP",        at_least(2), FAST,    RW_TAKE,    spop),
    read ("SRANDMEMBER", at_least(2), NONE,    RO_ACCESS,  srandmember),
    write("SREM",        at_least(3), FAST,    RW_DELETE,  srem).element_at(2),
    read ("SSCAN",       at_least(3), NONE,    RO_ACCESS,  sscan),
    read ("SUNION",      at_least(2), NONE,    ALL_ACCESS, sunion),
    write("SUNIONSTORE", at_least(3), DENYOOM, STORE,      sunionstore),
];

/// Members that SRANDMEMBER draws with repetition at most. Redis sets no limit, and fills its memory.
const RANDOM_REPEATED_MAX: u64 = 1 << 16;
/// Members of a large set looked at together.
const PAGE_MEMBERS: usize = 1_024;
/// As Redis does: if SPOP leaves less than this part of what it takes, the rest is written anew.
const SPOP_REWRITE_FACTOR: u64 = 5;

// --- Reading

fn scard(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = Set::read(view, args.bytes(1)?)?;
    Ok(Reply::Integer(set.map_or(0, |set| set.count as i64)))
}

fn sismember(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = Set::read(view, args.bytes(1)?)?;
    let is_member =
        set.map_or(Ok(false), |set| set.contains(args.bytes(2)?).map_err(CommandError::from));
    Ok(Reply::Integer(i64::from(is_member?)))
}

fn smismember(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = Set::read(view, args.bytes(1)?)?;
    let replies = args.from(2).iter().map(|member| {
        let is_member = set.as_ref().map_or(Ok(false), |set| set.contains(member))?;
        Ok(Reply::Integer(i64::from(is_member)))
    });
    Ok(Reply::Array(replies.collect::<Result<_, CommandError>>()?))
}

fn smembers(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = Set::read(view, args.bytes(1)?)?;
    Ok(as_set(set.map_or(Ok(Vec::new()), |set| set.all())?))
}

fn sscan(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let cursor = parse_cursor(args.bytes(2)?)?;
    // Redis looks at the options only of a set that exists.
    let Some(set) = Set::read(view, args.bytes(1)?)? else {
        return Ok(cursor::answer(0, Vec::new()));
    };
    let walk = Walk::parse(args.options(3), false)?;
    let (members, next) = set.scan(cursor, walk.count)?;
    let asked = members.into_iter().filter(|member| walk.matches(member)).map(Reply::Bulk);
    Ok(cursor::answer(next, asked.collect()))
}

fn srandmember(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let count = match args.from(2) {
        [] => {
            let drawn = Set::read(view, key)?.map(|set| set.random_repeated(1)).transpose()?;
            return Ok(bulk_or_null(drawn.and_then(|mut drawn| drawn.pop())));
        }
        [count] => parse_int(count).ok_or(CommandError::NotInteger)?,
        _ => return Err(CommandError::Syntax),
    };
    if count == i64::MIN {
        return Err(CommandError::RANDOM_COUNT_RANGE);
    }
    let Some(set) = Set::read(view, key)? else { return Ok(Reply::Array(Vec::new())) };
    let drawn = if count >= 0 {
        set.random_distinct(count.unsigned_abs())?
    } else if count.unsigned_abs() > RANDOM_REPEATED_MAX {
        return Err(CommandError::OUT_OF_RANGE);
    } else {
        set.random_repeated(count.unsigned_abs() as usize)?
    };
    Ok(Reply::Array(drawn.into_iter().map(Reply::Bulk).collect()))
}

fn as_set(members: Vec<Bytes>) -> Reply {
    Reply::Set(members.into_iter().map(Reply::Bulk).collect())
}

fn bulk_or_null(member: Option<Bytes>) -> Reply {
    member.map_or(Reply::Null, Reply::Bulk)
}

// --- Writing

fn sadd(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut set = SetEdit::open(txn, args.bytes(1)?)?;
    let added = add_members(&mut set, txn, args)?;
    set.finish(txn)?;
    if added > 0 {
        txn.note(Wanted::SET, "sadd", args.bytes(1)?);
    }
    Ok(Reply::Integer(added))
}

fn sadd_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    let [first, ..] = lines else { return Ok(Vec::new()) };
    let key = first.bytes(1)?;
    let mut set = SetEdit::open(txn, key)?;
    let mut ran = Vec::with_capacity(lines.len());
    for line in lines {
        let added = add_members(&mut set, txn, *line)?;
        ran.push(Ran { reply: Reply::Integer(added), wrote: added > 0 });
    }
    set.finish(txn)?;
    for _ in ran.iter().filter(|ran| ran.wrote) {
        txn.note(Wanted::SET, "sadd", key);
    }
    Ok(ran)
}

/// Adds the members that a line of SADD names; how many are new.
fn add_members(
    set: &mut SetEdit<'_>,
    txn: &mut Txn<'_>,
    args: Args<'_>,
) -> Result<i64, CommandError> {
    set.will_add(args.bytes(2)?, args.from(2).len());
    let mut added = 0;
    for member in args.from(2) {
        added += i64::from(set.add(txn, member)?);
    }
    Ok(added)
}

fn srem(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut set = SetEdit::open(txn, args.bytes(1)?)?;
    let mut removed = 0;
    for member in args.from(2) {
        removed += i64::from(set.remove(txn, member)?);
    }
    if removed > 0 {
        txn.note(Wanted::SET, "srem", args.bytes(1)?);
    }
    set.finish(txn)?;
    Ok(Reply::Integer(removed))
}

fn smove(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from, to, member) = (args.bytes(1)?, args.bytes(2)?, args.bytes(3)?);
    if keyspace::peek(txn, from)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let mut source = SetEdit::open(txn, from)?;
    let mut target = SetEdit::open(txn, to)?;
    if from == to {
        return Ok(Reply::Integer(i64::from(source.contains(txn, member)?)));
    }
    if !source.remove(txn, member)? {
        return Ok(Reply::Integer(0));
    }
    txn.note(Wanted::SET, "srem", from);
    source.finish(txn)?;
    let added = target.add(txn, member)?;
    target.finish(txn)?;
    if added {
        txn.note(Wanted::SET, "sadd", to);
    }
    Ok(Reply::Integer(1))
}

fn spop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let count = match args.from(2) {
        [] => None,
        [count] => Some(
            parse_int(count)
                .and_then(|count| u64::try_from(count).ok())
                .ok_or(CommandError::NOT_POSITIVE)?,
        ),
        _ => return Err(CommandError::Syntax),
    };
    let mut set = SetEdit::open(txn, key)?;
    let Some(count) = count else {
        let drawn = set.draw(txn, 1)?.pop();
        if let Some(member) = &drawn {
            set.remove_known(txn, member)?;
            txn.note(Wanted::SET, "spop", key);
        }
        set.finish(txn)?;
        return Ok(bulk_or_null(drawn));
    };
    let size = set.count();
    if count > 0 && size > 0 {
        txn.note(Wanted::SET, "spop", key);
    }
    if count >= size {
        let all = set.draw(txn, size)?;
        set.replace(txn, Vec::new(), Encoding::Intset);
        set.finish(txn)?;
        return Ok(as_set(all));
    }
    let drawn = set.draw(txn, count)?;
    if (size - count).saturating_mul(SPOP_REWRITE_FACTOR) > count {
        for member in &drawn {
            set.remove_known(txn, member)?;
        }
    } else {
        let taken: HashSet<&Bytes> = drawn.iter().collect();
        let mut rest = set.draw(txn, size)?;
        rest.retain(|member| !taken.contains(member));
        let encoding = set.encoding_of_rest(&rest);
        set.replace(txn, rest, encoding);
    }
    set.finish(txn)?;
    Ok(as_set(drawn))
}

// --- Several sets

fn sinter(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(as_set(intersection(view, args.from(1), u64::MAX)?))
}

fn sintercard(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let count = parse_int(args.bytes(1)?).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(CommandError::NUMKEYS_NOT_POSITIVE)?;
    let keys = args.from(2).get(..count).ok_or(CommandError::NUMKEYS_TOO_MANY)?;
    let mut limit = 0;
    let mut options = args.options(2 + count);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"LIMIT" if options.left() > 0 => {
                let said = parse_int(options.value()?).and_then(|limit| u64::try_from(limit).ok());
                limit = said.ok_or(CommandError::LIMIT_NEGATIVE)?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let limit = if limit == 0 { u64::MAX } else { limit };
    Ok(Reply::Integer(intersection(view, keys, limit)?.len() as i64))
}

fn sinterstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let members = intersection(txn, args.from(2), u64::MAX)?;
    let encoding = Encoding::of_intersection(&members);
    store(txn, args.bytes(1)?, members, (encoding, "sinterstore"))
}

/// The first `limit` members that all the sets have.
fn intersection(view: &dyn View, keys: &[Bytes], limit: u64) -> Result<Vec<Bytes>, CommandError> {
    let sets = read_all(view, keys)?;
    let present = sets.len();
    let mut sets: Vec<Set<'_>> = sets.into_iter().flatten().collect();
    if sets.len() < present {
        return Ok(Vec::new());
    }
    sets.sort_by_key(|set| set.count);
    let Some((smallest, others)) = sets.split_first() else { return Ok(Vec::new()) };
    let (mut common, mut cursor) = (Vec::new(), 0);
    loop {
        let (page, next) = smallest.scan(cursor, PAGE_MEMBERS)?;
        for member in page {
            if in_all(others, &member)? {
                common.push(member);
                if common.len() as u64 >= limit {
                    return Ok(common);
                }
            }
        }
        if next == 0 {
            return Ok(common);
        }
        cursor = next;
    }
}

fn in_all(sets: &[Set<'_>], member: &[u8]) -> Result<bool, CommandError> {
    for set in sets {
        if !set.contains(member)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sunion(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(as_set(union(view, args.from(1))?.members))
}

fn sunionstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Gathered { members, encoding, .. } = union(txn, args.from(2))?;
    store(txn, args.bytes(1)?, members, (encoding, "sunionstore"))
}

fn union(view: &dyn View, keys: &[Bytes]) -> Result<Gathered, CommandError> {
    let mut union = Gathered::default();
    for set in read_all(view, keys)?.into_iter().flatten() {
        for member in set.all()? {
            union.add(member);
        }
    }
    Ok(union)
}

fn sdiff(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(as_set(difference(view, args.from(1))?.members))
}

fn sdiffstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Gathered { members, encoding, .. } = difference(txn, args.from(2))?;
    store(txn, args.bytes(1)?, members, (encoding, "sdiffstore"))
}

/// The members of the first set that none of the others has. As in Redis, either each of them is
/// looked for in the others, or the others' members are taken away from them: whatever is less work.
fn difference(view: &dyn View, keys: &[Bytes]) -> Result<Gathered, CommandError> {
    let mut sets = read_all(view, keys)?.into_iter();
    let mut left = Gathered::default();
    let Some(Some(first)) = sets.next() else { return Ok(left) };
    if keys[1..].contains(&keys[0]) {
        return Ok(left);
    }
    let mut others: Vec<Set<'_>> = sets.flatten().collect();
    let looking = first.count.saturating_mul(others.len() as u64 + 1) / 2;
    let taking = others.iter().map(|set| set.count).fold(first.count, u64::saturating_add);
    if looking <= taking {
        others.sort_by_key(|set| std::cmp::Reverse(set.count));
        for member in first.all()? {
            if !in_any(&others, &member)? {
                left.add(member);
            }
        }
        return Ok(left);
    }
    for member in first.all()? {
        left.add(member);
    }
    for set in &others {
        for member in set.all()? {
            left.seen.remove(&member);
        }
    }
    left.members.retain(|member| left.seen.contains(member));
    Ok(left)
}

fn in_any(sets: &[Set<'_>], member: &[u8]) -> Result<bool, CommandError> {
    for set in sets {
        if set.contains(member)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Members of several sets, each once, with the encoding that Redis comes to by adding them.
struct Gathered {
    members: Vec<Bytes>,
    seen: HashSet<Bytes>,
    encoding: Encoding,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered { members: Vec::new(), seen: HashSet::new(), encoding: Encoding::Intset }
    }
}

impl Gathered {
    fn add(&mut self, member: Bytes) {
        if self.seen.insert(member.clone()) {
            self.encoding = self.encoding.with(self.members.len() as u64, &member);
            self.members.push(member);
        }
    }
}

/// The sets at these keys.
///
/// *Errors*: `WrongType`, even if another key is missing.
fn read_all<'v>(view: &'v dyn View, keys: &[Bytes]) -> Result<Vec<Option<Set<'v>>>, CommandError> {
    keys.iter().map(|key| Set::read(view, key)).collect()
}

/// Makes the key a set of these members, or removes it if there are none; how many there are.
fn store(
    txn: &mut Txn<'_>,
    key: &[u8],
    members: Vec<Bytes>,
    (encoding, event): (Encoding, &'static str),
) -> Result<Reply, CommandError> {
    let found = keyspace::lookup(txn, key)?;
    let count = members.len() as i64;
    if members.is_empty() {
        keyspace::remove(txn, key, found);
    } else {
        let value = set_edit::build(txn, key, members, encoding)?;
        keyspace::store(txn, key, found, value, None);
        txn.note(Wanted::SET, event, key);
    }
    Ok(Reply::Integer(count))
}

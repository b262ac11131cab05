//! List commands. Layout of a list: types/list.rs.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use wire::resp::{BulksBuilder, Reply, SHARED_BULK_BYTES};

use crate::args::{Args, Options, Word, parse_int};
use crate::command::{Command, Flags, KeyFlags, Keys, Ran, at_least, exactly, key, read, write};
use crate::error::CommandError;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::header::Kind;
use crate::types::list::{End, List, ListEdit};
use crate::types::sequence::Sequence;
use crate::view::{Direction, View};
use crate::wait::{Wait, timeout_of_seconds};

const FAST: Flags = Flags::FAST;
const GROWS: Flags = Flags::DENYOOM;
const GROWS_FAST: Flags = Flags::DENYOOM.and(Flags::FAST);
const NONE: Flags = Flags::NONE;

const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0));
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const RW_INSERT: Keys = key(1, INSERT_FLAGS);
const RW_DELETE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0));
const RW_TAKE: Keys = key(1, TAKE_FLAGS);
const INSERT_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0);
const TAKE_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0);
const MOVE: Keys = Keys::Pair(TAKE_FLAGS, INSERT_FLAGS);
const MPOP: Keys = Keys::Counted { at: 1, flags: TAKE_FLAGS };
const BPOP: Keys = Keys::Range { first: 1, last: -2, step: 1, flags: TAKE_FLAGS };
const BMPOP: Keys = Keys::Counted { at: 2, flags: TAKE_FLAGS };

/// Lines that are run at once take elements until these have more bytes.
const POPPED_BYTES_MAX: usize = 64 << 10;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name         arity        flags       keys       handler
    write("BLMOVE",     exactly(6),  GROWS,      MOVE,      blmove).or_waits(wait_to_move),
    write("BLMOVEM",    at_least(6), GROWS,      MOVE,      blmovem).or_waits(wait_to_move_many),
    write("BLMPOP",     at_least(5), NONE,       BMPOP,     blmpop).or_waits(wait_to_mpop),
    write("BLPOP",      at_least(3), NONE,       BPOP,      blpop).or_waits(wait_to_pop),
    write("BRPOP",      at_least(3), NONE,       BPOP,      brpop).or_waits(wait_to_pop),
    write("BRPOPLPUSH", exactly(4),  GROWS,      MOVE,      brpoplpush).or_waits(wait_to_move),
    read ("LINDEX",     exactly(3),  NONE,       RO_ACCESS, lindex),
    write("LINSERT",    exactly(5),  GROWS,      RW_INSERT, linsert),
    read ("LLEN",       exactly(2),  FAST,       RO,        llen),
    write("LMOVE",      exactly(5),  GROWS,      MOVE,      lmove),
    write("LMOVEM",     at_least(5), GROWS,      MOVE,      lmovem),
    write("LMPOP",      at_least(4), NONE,       MPOP,      lmpop),
    write("LPOP",       at_least(2), FAST,       RW_TAKE,   lpop).or_many(lpop_many),
    read ("LPOS",       at_least(3), NONE,       RO_ACCESS, lpos),
    write("LPUSH",      at_least(3), GROWS_FAST, RW_INSERT, lpush).or_many(lpush_many),
    write("LPUSHX",     at_least(3), GROWS_FAST, RW_INSERT, lpushx),
    read ("LRANGE",     exactly(4),  NONE,       RO_ACCESS, lrange),
    write("LREM",       exactly(4),  NONE,       RW_DELETE, lrem),
    write("LSET",       exactly(4),  GROWS,      RW_UPDATE, lset),
    write("LTRIM",      exactly(4),  NONE,       RW_DELETE, ltrim),
    write("RPOP",       at_least(2), FAST,       RW_TAKE,   rpop).or_many(rpop_many),
    write("RPOPLPUSH",  exactly(3),  GROWS,      MOVE,      rpoplpush),
    write("RPUSH",      at_least(3), GROWS_FAST, RW_INSERT, rpush).or_many(rpush_many),
    write("RPUSHX",     at_least(3), GROWS_FAST, RW_INSERT, rpushx),
];

// --- Pushing

fn lpush(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(txn, args, End::Left, false)
}

fn rpush(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(txn, args, End::Right, false)
}

fn lpushx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(txn, args, End::Left, true)
}

fn rpushx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    push(txn, args, End::Right, true)
}

fn push(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    end: End,
    must_exist: bool,
) -> Result<Reply, CommandError> {
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    if must_exist && !list.exists() {
        return Ok(Reply::Integer(0));
    }
    list.push(txn, end, args.from(2))?;
    let count = list.count();
    list.finish(txn)?;
    txn.note(Wanted::LIST, pushed(end), args.bytes(1)?);
    Ok(Reply::Integer(count as i64))
}

fn lpush_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    push_many(txn, lines, End::Left)
}

fn rpush_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    push_many(txn, lines, End::Right)
}

fn push_many(txn: &mut Txn<'_>, lines: &[Args<'_>], end: End) -> Result<Vec<Ran>, CommandError> {
    let [first, ..] = lines else { return Ok(Vec::new()) };
    let key = first.bytes(1)?;
    let mut list = ListEdit::open(txn, key)?;
    let mut count = list.count();
    let parts: Vec<&[Bytes]> = lines.iter().map(|line| line.from(2)).collect();
    list.push_each(txn, end, &parts)?;
    list.finish(txn)?;
    let ran = parts.iter().map(|part| {
        txn.note(Wanted::LIST, pushed(end), key);
        count += part.len() as u64;
        Ran { reply: Reply::Integer(count as i64), wrote: true }
    });
    Ok(ran.collect())
}

/// The event of pushing to an end.
fn pushed(end: End) -> &'static str {
    match end {
        End::Left => "lpush",
        End::Right => "rpush",
    }
}

/// The event of popping from an end.
fn popped_from(end: End) -> &'static str {
    match end {
        End::Left => "lpop",
        End::Right => "rpop",
    }
}

fn linsert(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let behind = match Word::new(args.bytes(2)?).as_bytes() {
        b"AFTER" => 1,
        b"BEFORE" => 0,
        _ => return Err(CommandError::Syntax),
    };
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    if !list.exists() {
        return Ok(Reply::Integer(0));
    }
    let (pivot, element) = (args.bytes(3)?, args.bytes(4)?);
    let (mut at, mut found) = (0, false);
    list.elements().walk(txn, 0..list.count(), Direction::Forward, &mut |met| {
        found = *met == pivot[..];
        at += u64::from(!found);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if !found {
        return Ok(Reply::Integer(-1));
    }
    list.will_add(std::slice::from_ref(element));
    list.insert(txn, at + behind, element)?;
    let count = list.count();
    list.finish(txn)?;
    txn.note(Wanted::LIST, "linsert", args.bytes(1)?);
    Ok(Reply::Integer(count as i64))
}

// --- Popping

fn lpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(txn, args, End::Left, "lpop")
}

fn rpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(txn, args, End::Right, "rpop")
}

fn pop(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    end: End,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let wanted = match args.from(2) {
        [] => None,
        [count] => Some(positive(count, CommandError::NOT_POSITIVE)?),
        _ => return Err(CommandError::Arity(command.into())),
    };
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    if !list.exists() {
        return Ok(if wanted.is_some() { Reply::NullArray } else { Reply::Null });
    }
    let mut popped = list.pop(txn, end, wanted.unwrap_or(1))?;
    if !popped.is_empty() {
        txn.note(Wanted::LIST, popped_from(end), args.bytes(1)?);
    }
    list.finish(txn)?;
    Ok(match wanted {
        None => popped.pop().map_or(Reply::Null, Reply::Bulk),
        Some(_) => bulks(popped),
    })
}

fn lpop_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    pop_many(txn, lines, End::Left)
}

fn rpop_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    pop_many(txn, lines, End::Right)
}

/// Runs the first lines that want one element each.
fn pop_many(txn: &mut Txn<'_>, lines: &[Args<'_>], end: End) -> Result<Vec<Ran>, CommandError> {
    let count = lines.iter().take_while(|line| line.len() == 2).count();
    let [first, ..] = &lines[..count] else { return Ok(Vec::new()) };
    let key = first.bytes(1)?;
    let mut list = ListEdit::open(txn, key)?;
    let popped = list.pop_within(txn, end, (count as u64, POPPED_BYTES_MAX))?;
    popped.iter().for_each(|_| txn.note(Wanted::LIST, popped_from(end), key));
    // Where elements are left, so are lines that have yet to take theirs.
    let in_vain = if list.count() == 0 { count - popped.len() } else { 0 };
    list.finish(txn)?;
    let popped = popped.into_iter().map(|item| Ran { reply: Reply::Bulk(item), wrote: true });
    let nothing = (0..in_vain).map(|_| Ran { reply: Reply::Null, wrote: false });
    Ok(popped.chain(nothing).collect())
}

fn lmpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, end, count) = mpop_arguments(args, 1)?;
    mpop_reply(txn, keys, end, count)
}

fn mpop_reply(
    txn: &mut Txn<'_>,
    keys: &[Bytes],
    end: End,
    count: u64,
) -> Result<Reply, CommandError> {
    Ok(match pop_first(txn, keys, end, count)? {
        Some((key, popped)) => Reply::Array(vec![Reply::Bulk(key), bulks(popped)]),
        None => Reply::NullArray,
    })
}

/// The keys, the end and the count of LMPOP, whose number of keys stands at a position.
pub(crate) fn mpop_arguments(
    args: Args<'_>,
    at: usize,
) -> Result<(&[Bytes], End, u64), CommandError> {
    let keys = counted_keys(args, at)?;
    let mut options = args.options(at + 1 + keys.len());
    let end = end_of(options.value()?)?;
    let count = mpop_count(options)?;
    Ok((keys, end, count))
}

/// The keys that a number at a position announces, if there is at least one argument behind them.
pub(crate) fn counted_keys(args: Args<'_>, at: usize) -> Result<&[Bytes], CommandError> {
    let count = parse_int(args.bytes(at)?).filter(|count| *count > 0);
    let count = count.ok_or(CommandError::NUMKEYS_NOT_POSITIVE)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let rest = args.from(at + 1);
    if count >= rest.len() {
        return Err(CommandError::Syntax);
    }
    Ok(&rest[..count])
}

/// The COUNT of LMPOP and ZMPOP, which may be said once.
pub(crate) fn mpop_count(mut options: Options<'_>) -> Result<u64, CommandError> {
    let mut count = None;
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"COUNT" if count.is_none() && options.left() > 0 => {
                let wanted = parse_int(options.value()?).filter(|wanted| *wanted > 0);
                count = Some(wanted.ok_or(CommandError::COUNT_NOT_POSITIVE)?.unsigned_abs());
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(count.unwrap_or(1))
}

/// Pops from the first of these lists that exists; its key and the elements, the outermost first.
pub(crate) fn pop_first(
    txn: &mut Txn<'_>,
    keys: &[Bytes],
    end: End,
    count: u64,
) -> Result<Option<(Bytes, Vec<Bytes>)>, CommandError> {
    for key in keys {
        let mut list = ListEdit::open(txn, key)?;
        if list.exists() {
            let popped = list.pop(txn, end, count)?;
            txn.note(Wanted::LIST, popped_from(end), key);
            list.finish(txn)?;
            return Ok(Some((key.clone(), popped)));
        }
    }
    Ok(None)
}

fn lmove(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from_end, to_end) = (end_of(args.bytes(3)?)?, end_of(args.bytes(4)?)?);
    move_reply(txn, args, from_end, to_end)
}

fn rpoplpush(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    move_reply(txn, args, End::Right, End::Left)
}

fn move_reply(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    from_end: End,
    to_end: End,
) -> Result<Reply, CommandError> {
    let moved = move_one(txn, (args.bytes(1)?, from_end), (args.bytes(2)?, to_end))?;
    Ok(moved.map_or(Reply::Null, Reply::Bulk))
}

/// Takes an element from an end of a list and puts it at an end of another, or of the same; `None`
/// if there is no list to take from.
pub(crate) fn move_one(
    txn: &mut Txn<'_>,
    (from, from_end): (&[u8], End),
    (to, to_end): (&[u8], End),
) -> Result<Option<Bytes>, CommandError> {
    let mut source = ListEdit::open(txn, from)?;
    if !source.exists() {
        return Ok(None);
    }
    if from == to {
        let moved = source.pop(txn, from_end, 1)?;
        source.push(txn, to_end, &moved)?;
        source.finish(txn)?;
        txn.note(Wanted::LIST, pushed(to_end), to);
        txn.note(Wanted::LIST, popped_from(from_end), from);
        return Ok(moved.into_iter().next());
    }
    let mut target = ListEdit::open(txn, to)?;
    let moved = source.pop(txn, from_end, 1)?;
    target.push(txn, to_end, &moved)?;
    target.finish(txn)?;
    txn.note(Wanted::LIST, pushed(to_end), to);
    txn.note(Wanted::LIST, popped_from(from_end), from);
    source.finish(txn)?;
    Ok(moved.into_iter().next())
}

fn lmovem(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let how = MoveMany::read(args, 5)?;
    Ok(match how.run(txn, args)? {
        None if how.exactly => Reply::Null,
        moved => bulks(moved.unwrap_or_default()),
    })
}

/// What LMOVEM is to move.
struct MoveMany {
    from_end: End,
    to_end: End,
    count: u64,
    /// Not one less.
    exactly: bool,
    /// One by one, so that a later one is nearer to the end; else together, in their order.
    one_by_one: bool,
}

impl MoveMany {
    /// Reads how many, and in which order, from a position on.
    fn read(args: Args<'_>, at: usize) -> Result<MoveMany, CommandError> {
        let (from_end, to_end) = (end_of(args.bytes(3)?)?, end_of(args.bytes(4)?)?);
        let mut how = MoveMany { from_end, to_end, count: 1, exactly: false, one_by_one: true };
        let mut options = args.options(at);
        let Some(selector) = options.word() else { return Ok(how) };
        how.exactly = match selector.as_bytes() {
            b"COUNT" => false,
            b"EXACTLY" => true,
            _ => return Err(CommandError::Syntax),
        };
        let count = parse_int(options.value()?).filter(|count| *count > 0);
        let order = Word::new(options.value()?);
        how.one_by_one = match order.as_bytes() {
            b"OBO" => true,
            b"BULK" => false,
            _ => return Err(CommandError::Syntax),
        };
        if options.left() > 0 {
            return Err(CommandError::Syntax);
        }
        how.count = count.ok_or(CommandError::COUNT_NOT_POSITIVE)?.unsigned_abs();
        Ok(how)
    }

    /// Moves elements and returns them as they stand in the destination now; `None` if there are none,
    /// or too few.
    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>) -> Result<Option<Vec<Bytes>>, CommandError> {
        let (from, to) = (args.bytes(1)?, args.bytes(2)?);
        let mut source = ListEdit::open(txn, from)?;
        if !source.exists() || (self.exactly && source.count() < self.count) {
            return Ok(None);
        }
        let mut target = if from == to { None } else { Some(ListEdit::open(txn, to)?) };
        let mut moved = source.pop(txn, self.from_end, self.count)?;
        // From here on as they are pushed, one after the other.
        if !self.one_by_one && self.from_end == self.to_end {
            moved.reverse();
        }
        target.as_mut().unwrap_or(&mut source).push(txn, self.to_end, &moved)?;
        if let Some(target) = target {
            target.finish(txn)?;
        }
        txn.note(Wanted::LIST, pushed(self.to_end), to);
        txn.note(Wanted::LIST, popped_from(self.from_end), from);
        source.finish(txn)?;
        if self.to_end == End::Left {
            moved.reverse();
        }
        Ok(Some(moved))
    }
}

// --- What waits

fn blpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    bpop(txn, args, End::Left)
}

fn brpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    bpop(txn, args, End::Right)
}

fn bpop(txn: &mut Txn<'_>, args: Args<'_>, end: End) -> Result<Reply, CommandError> {
    let (keys, timeout) = keys_and_timeout(args)?;
    timeout_of_seconds(timeout, txn.now_ms())?;
    let popped = pop_first(txn, keys, end, 1)?;
    Ok(popped.map_or(Reply::NullArray, |(key, popped)| {
        Reply::Array(std::iter::once(key).chain(popped).map(Reply::Bulk).collect())
    }))
}

fn wait_to_pop(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let (keys, timeout) = keys_and_timeout(args)?;
    let timeout_ms = timeout_of_seconds(timeout, view.now_ms())?;
    Ok(Some(Wait::new(Kind::List, keys, timeout_ms)))
}

/// The keys of BLPOP and its like, and the timeout behind them.
pub(crate) fn keys_and_timeout(args: Args<'_>) -> Result<(&[Bytes], &Bytes), CommandError> {
    match args.from(1).split_last() {
        Some((timeout, keys)) => Ok((keys, timeout)),
        None => Err(CommandError::Syntax),
    }
}

fn blmpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, end, count) = mpop_arguments(args, 2)?;
    timeout_of_seconds(args.bytes(1)?, txn.now_ms())?;
    mpop_reply(txn, keys, end, count)
}

fn wait_to_mpop(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let (keys, ..) = mpop_arguments(args, 2)?;
    let timeout_ms = timeout_of_seconds(args.bytes(1)?, view.now_ms())?;
    Ok(Some(Wait::new(Kind::List, keys, timeout_ms)))
}

fn blmove(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (from_end, to_end) = (end_of(args.bytes(3)?)?, end_of(args.bytes(4)?)?);
    timeout_of_seconds(args.bytes(5)?, txn.now_ms())?;
    move_reply(txn, args, from_end, to_end)
}

fn blmovem(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let how = MoveMany::read(args, 6)?;
    timeout_of_seconds(args.bytes(5)?, txn.now_ms())?;
    Ok(how.run(txn, args)?.map_or(Reply::Null, bulks))
}

fn brpoplpush(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    timeout_of_seconds(args.bytes(3)?, txn.now_ms())?;
    move_reply(txn, args, End::Right, End::Left)
}

fn wait_to_move(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    wait_for_source(view, args, args.len() - 1)
}

fn wait_to_move_many(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    wait_for_source(view, args, 5)
}

/// It waits for the source alone; the timeout stands at a position.
fn wait_for_source(
    view: &dyn View,
    args: Args<'_>,
    timeout_at: usize,
) -> Result<Option<Wait>, CommandError> {
    let timeout_ms = timeout_of_seconds(args.bytes(timeout_at)?, view.now_ms())?;
    Ok(Some(Wait::new(Kind::List, &args.0[1..2], timeout_ms)))
}

// --- Reading

fn llen(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let list = List::read(view, args.bytes(1)?)?;
    Ok(Reply::Integer(list.map_or(0, |list| list.elements.count() as i64)))
}

fn lindex(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    // Redis looks at the index only of a list that exists.
    let Some(list) = List::read(view, args.bytes(1)?)? else { return Ok(Reply::Null) };
    let element = match position(args.int(2)?, list.elements.count()) {
        Some(at) => list.elements.get(view, at)?,
        None => None,
    };
    Ok(element.map_or(Reply::Null, Reply::Bulk))
}

fn lrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, stop) = (args.int(2)?, args.int(3)?);
    let Some(list) = List::read(view, args.bytes(1)?)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let positions = positions(start, stop, list.elements.count());
    if list.elements.bytes() / list.elements.count().max(1) >= SHARED_BULK_BYTES as u64 {
        // What is so long is sent from where it is.
        return Ok(bulks(list.elements.range(view, positions, Direction::Forward)?));
    }
    range_reply(view, &list.elements, positions)
}

/// The elements at these positions, written as they are met.
fn range_reply(
    view: &dyn View,
    elements: &Sequence,
    positions: Range<u64>,
) -> Result<Reply, CommandError> {
    let wanted = positions.end - positions.start;
    let bytes = elements.bytes() / elements.count().max(1) * wanted;
    let room = |number: u64| usize::try_from(number).unwrap_or_default();
    let mut found = BulksBuilder::with_capacity(room(wanted), room(bytes));
    elements.walk(view, positions, Direction::Forward, &mut |element| {
        found.push(&element);
        ControlFlow::Continue(())
    })?;
    Ok(found.finish())
}

fn lpos(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut rank, mut count, mut most) = (1, None, 0);
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        let more = options.left() > 0;
        match word.as_bytes() {
            b"RANK" if more => {
                rank = options.int()?;
                if rank == i64::MIN {
                    return Err(CommandError::RANDOM_COUNT_RANGE);
                }
                if rank == 0 {
                    return Err(CommandError::LPOS_RANK);
                }
            }
            b"COUNT" if more => {
                count = Some(positive(options.value()?, CommandError::LPOS_COUNT)?);
            }
            b"MAXLEN" if more => most = positive(options.value()?, CommandError::LPOS_MAXLEN)?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let found = match List::read(view, args.bytes(1)?)? {
        Some(list) => {
            // COUNT 0 asks for all.
            let wanted = count.map_or(1, |count| if count == 0 { u64::MAX } else { count });
            let most = if most == 0 { u64::MAX } else { most };
            matches(view, &list, args.bytes(2)?, (rank, wanted, most))?
        }
        None => Vec::new(),
    };
    let mut found = found.into_iter().map(|at| Reply::Integer(at as i64));
    Ok(match count {
        Some(_) => Reply::Array(found.collect()),
        None => found.next().unwrap_or(Reply::Null),
    })
}

/// Positions of up to `wanted` elements like this one, from the `rank`th on, among the first `most`;
/// a negative rank counts and looks from the tail.
fn matches(
    view: &dyn View,
    list: &List,
    element: &Bytes,
    (rank, wanted, most): (i64, u64, u64),
) -> Result<Vec<u64>, CommandError> {
    let length = list.elements.count();
    let most = most.min(length);
    let (positions, direction) = match rank > 0 {
        true => (0..most, Direction::Forward),
        false => (length - most..length, Direction::Backward),
    };
    let (mut passed, mut to_skip, mut found) = (0, rank.unsigned_abs() - 1, Vec::new());
    list.elements.walk(view, positions, direction, &mut |met| {
        if *met == element[..] {
            if to_skip > 0 {
                to_skip -= 1;
            } else {
                found.push(if rank > 0 { passed } else { length - 1 - passed });
            }
        }
        passed += 1;
        let done = found.len() as u64 >= wanted;
        if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

// --- Changing

fn lset(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    if !list.exists() {
        return Err(CommandError::NoSuchKey);
    }
    let at = position(args.int(2)?, list.count());
    let at = at.ok_or(CommandError::INDEX_OUT_OF_RANGE)?;
    list.set(txn, at, args.bytes(3)?)?;
    list.finish(txn)?;
    txn.note(Wanted::LIST, "lset", args.bytes(1)?);
    Ok(Reply::OK)
}

fn lrem(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = args.int(2)?;
    if wanted == i64::MIN {
        return Err(CommandError::RANDOM_COUNT_RANGE);
    }
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    let element = args.bytes(3)?;
    let length = list.count();
    let direction = if wanted < 0 { Direction::Backward } else { Direction::Forward };
    let most = if wanted == 0 { u64::MAX } else { wanted.unsigned_abs() };
    let (mut passed, mut removed) = (0, 0);
    // Runs of neighbours, in the order of the walk.
    let mut runs: Vec<Range<u64>> = Vec::new();
    list.elements().walk(txn, 0..length, direction, &mut |met| {
        let at = if wanted < 0 { length - 1 - passed } else { passed };
        if *met == element[..] {
            removed += 1;
            match runs.last_mut() {
                Some(run) if run.end == at => run.end += 1,
                Some(run) if run.start == at + 1 => run.start = at,
                _ => runs.push(at..at + 1),
            }
        }
        passed += 1;
        if removed == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    // From the tail on, so that the positions of the others stay.
    if wanted >= 0 {
        runs.reverse();
    }
    for run in runs {
        list.remove(txn, run)?;
    }
    if removed > 0 {
        txn.note(Wanted::LIST, "lrem", args.bytes(1)?);
    }
    list.finish(txn)?;
    Ok(Reply::Integer(removed as i64))
}

fn ltrim(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, stop) = (args.int(2)?, args.int(3)?);
    let mut list = ListEdit::open(txn, args.bytes(1)?)?;
    if list.exists() {
        let length = list.count();
        let kept = positions(start, stop, length);
        list.remove(txn, kept.end..length)?;
        list.remove(txn, 0..kept.start)?;
        list.touch();
        txn.note(Wanted::LIST, "ltrim", args.bytes(1)?);
    }
    list.finish(txn)?;
    Ok(Reply::OK)
}

// --- Arguments and replies

fn bulks(elements: Vec<Bytes>) -> Reply {
    Reply::Array(elements.into_iter().map(Reply::Bulk).collect())
}

/// LEFT or RIGHT.
pub(crate) fn end_of(word: &[u8]) -> Result<End, CommandError> {
    match Word::new(word).as_bytes() {
        b"LEFT" => Ok(End::Left),
        b"RIGHT" => Ok(End::Right),
        _ => Err(CommandError::Syntax),
    }
}

/// A number that is not negative; what is no number is refused alike.
pub(crate) fn positive(text: &[u8], refused: CommandError) -> Result<u64, CommandError> {
    parse_int(text).and_then(|number| u64::try_from(number).ok()).ok_or(refused)
}

/// The position that an index means, a negative one counting from the end.
fn position(index: i64, length: u64) -> Option<u64> {
    let at = match u64::try_from(index) {
        Ok(at) => at,
        Err(_) => length.checked_sub(index.unsigned_abs())?,
    };
    (at < length).then_some(at)
}

/// The positions from one index to another, both included.
pub(crate) fn positions(start: i64, stop: i64, length: u64) -> Range<u64> {
    let from_end = |index: i64| match u64::try_from(index) {
        Ok(at) => Some(at),
        Err(_) => length.checked_sub(index.unsigned_abs()),
    };
    let start = from_end(start).unwrap_or(0);
    match from_end(stop) {
        Some(stop) if start <= stop && start < length => start..stop.min(length - 1) + 1,
        _ => length..length,
    }
}

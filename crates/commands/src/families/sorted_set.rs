//! Sorted set commands: members, scores, ranks. Layout: types/sorted_set.rs. Ranges:
//! families/sorted_set_range.rs. Unions and their like: families/sorted_set_algebra.rs.

use std::collections::HashSet;

use bytes::Bytes;
use wire::resp::{DOUBLE_BYTES_MAX, Reply, format_double};

use crate::args::{Args, Word, parse_cursor, parse_int};
use crate::command::{Command, Flags, KeyFlags, Keys, Ran, at_least, exactly, key, read, write};
use crate::cursor::{self, Walk};
use crate::double::parse_double;
use crate::error::CommandError;
use crate::families::list::{counted_keys, keys_and_timeout, mpop_count, positive};
use crate::families::{sorted_set_algebra as algebra, sorted_set_range as range};
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::header::Kind;
use crate::types::sorted_set::{Member, SortedSet};
use crate::types::sorted_set_edit::SortedSetEdit;
use crate::view::{Direction, View};
use crate::wait::{Wait, timeout_of_seconds};

const FAST: Flags = Flags::FAST;
const GROWS: Flags = Flags::DENYOOM;
const GROWS_FAST: Flags = Flags::DENYOOM.and(Flags::FAST);
const NONE: Flags = Flags::NONE;

const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, ACCESS_FLAGS);
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const RW_DELETE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0));
const RW_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0));
const RW_TAKE: Keys = key(1, TAKE_FLAGS);
const ACCESS_FLAGS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const TAKE_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0);
const TARGET_FLAGS: KeyFlags = KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0);
const MPOP: Keys = Keys::Counted { at: 1, flags: TAKE_FLAGS };
const BPOP: Keys = Keys::Range { first: 1, last: -2, step: 1, flags: TAKE_FLAGS };
const BMPOP: Keys = Keys::Counted { at: 2, flags: TAKE_FLAGS };
const COUNTED: Keys = Keys::Counted { at: 1, flags: ACCESS_FLAGS };
const STORE_ONE: Keys = Keys::Pair(TARGET_FLAGS, ACCESS_FLAGS);
const STORE: Keys = Keys::CountedInto { target: 1, at: 2, into: TARGET_FLAGS, from: ACCESS_FLAGS };

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name                arity        flags       keys       handler
    write("BZMPOP",            at_least(5), NONE,       BMPOP,     bzmpop).or_waits(wait_to_mpop),
    write("BZPOPMAX",          at_least(3), FAST,       BPOP,      bzpopmax).or_waits(wait_to_pop),
    write("BZPOPMIN",          at_least(3), FAST,       BPOP,      bzpopmin).or_waits(wait_to_pop),
    write("ZADD",              at_least(4), GROWS_FAST, RW_UPDATE, zadd).or_many(zadd_many),
    read ("ZCARD",             exactly(2),  FAST,       RO,        zcard),
    read ("ZCOUNT",            exactly(4),  FAST,       RO_ACCESS, range::zcount),
    read ("ZDIFF",             at_least(3), NONE,       COUNTED,   algebra::zdiff),
    write("ZDIFFSTORE",        at_least(4), GROWS,      STORE,     algebra::zdiffstore),
    write("ZINCRBY",           exactly(4),  GROWS_FAST, RW_ACCESS, zincrby).or_many(zincrby_many),
    read ("ZINTER",            at_least(3), NONE,       COUNTED,   algebra::zinter),
    read ("ZINTERCARD",        at_least(3), NONE,       COUNTED,   algebra::zintercard),
    write("ZINTERSTORE",       at_least(4), GROWS,      STORE,     algebra::zinterstore),
    read ("ZLEXCOUNT",         exactly(4),  FAST,       RO_ACCESS, range::zlexcount),
    write("ZMPOP",             at_least(4), NONE,       MPOP,      zmpop),
    read ("ZMSCORE",           at_least(3), FAST,       RO_ACCESS, zmscore).element_at(2),
    write("ZPOPMAX",           at_least(2), FAST,       RW_TAKE,   zpopmax),
    write("ZPOPMIN",           at_least(2), FAST,       RW_TAKE,   zpopmin),
    read ("ZRANDMEMBER",       at_least(2), NONE,       RO_ACCESS, zrandmember),
    read ("ZRANGE",            at_least(4), NONE,       RO_ACCESS, range::zrange),
    read ("ZRANGEBYLEX",       at_least(4), NONE,       RO_ACCESS, range::zrangebylex),
    read ("ZRANGEBYSCORE",     at_least(4), NONE,       RO_ACCESS, range::zrangebyscore),
    write("ZRANGESTORE",       at_least(5), GROWS,      STORE_ONE, range::zrangestore),
    read ("ZRANK",             at_least(3), FAST,       RO_ACCESS, zrank),
    write("ZREM",              at_least(3), FAST,       RW_DELETE, zrem),
    write("ZREMRANGEBYLEX",    exactly(4),  NONE,       RW_DELETE, range::zremrangebylex),
    write("ZREMRANGEBYRANK",   exactly(4),  NONE,       RW_DELETE, range::zremrangebyrank),
    write("ZREMRANGEBYSCORE",  exactly(4),  NONE,       RW_DELETE, range::zremrangebyscore),
    read ("ZREVRANGE",         at_least(4), NONE,       RO_ACCESS, range::zrevrange),
    read ("ZREVRANGEBYLEX",    at_least(4), NONE,       RO_ACCESS, range::zrevrangebylex),
    read ("ZREVRANGEBYSCORE",  at_least(4), NONE,       RO_ACCESS, range::zrevrangebyscore),
    read ("ZREVRANK",          at_least(3), FAST,       RO_ACCESS, zrevrank),
    read ("ZSCAN",             at_least(3), NONE,       RO_ACCESS, zscan),
    read ("ZSCORE",            exactly(3),  FAST,       RO_ACCESS, zscore).element_at(2),
    read ("ZUNION",            at_least(3), NONE,       COUNTED,   algebra::zunion),
    write("ZUNIONSTORE",       at_least(4), GROWS,      STORE,     algebra::zunionstore),
];

/// Members that ZRANDMEMBER draws with repetition at most. Redis sets no limit, and fills its memory.
const RANDOM_REPEATED_MAX: u64 = 1 << 16;
/// Drawing one rank costs as much as reading about so many members in a row.
const DRAW_COST: u64 = 16;

// --- Adding and removing

/// The options of ZADD.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct AddOptions {
    /// Only new members.
    pub(crate) new_only: bool,
    /// Only members that are there.
    pub(crate) old_only: bool,
    /// Changed scores are counted, too.
    pub(crate) count_changed: bool,
    /// The score is added to the one that is there.
    pub(crate) increment: bool,
    /// Only to a greater score.
    pub(crate) greater: bool,
    /// Only to a lesser score.
    pub(crate) less: bool,
}

impl AddOptions {
    /// Those of ZINCRBY, which is ZADD with INCR.
    fn of_zincrby() -> AddOptions {
        AddOptions { increment: true, ..AddOptions::default() }
    }

    /// The event of what changes something.
    fn event(self) -> &'static str {
        if self.increment { "zincr" } else { "zadd" }
    }
}

/// Scores and members, as a line names them.
type Scored<'a> = Vec<(f64, &'a Bytes)>;

fn zadd(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(txn, args, AddOptions::default())
}

fn zadd_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    add_many(txn, lines, AddOptions::default())
}

fn zincrby(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(txn, args, AddOptions::of_zincrby())
}

fn zincrby_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    add_many(txn, lines, AddOptions::of_zincrby())
}

fn add(txn: &mut Txn<'_>, args: Args<'_>, options: AddOptions) -> Result<Reply, CommandError> {
    let (scored, options) = add_arguments(args, options)?;
    add_scored(txn, args.bytes(1)?, &scored, options)
}

fn add_many(
    txn: &mut Txn<'_>,
    lines: &[Args<'_>],
    options: AddOptions,
) -> Result<Vec<Ran>, CommandError> {
    let [first, ..] = lines else { return Ok(Vec::new()) };
    let key = first.bytes(1)?;
    let mut set = SortedSetEdit::open(txn, key)?;
    let (mut ran, mut events) = (Vec::with_capacity(lines.len()), Vec::new());
    let lines = lines.iter().map(|line| add_arguments(*line, options));
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    set.touch(txn, lines.iter().flat_map(|(scored, _)| scored.iter().map(|(_, name)| *name)));
    for (scored, options) in lines {
        let one = add_members(&mut set, txn, &scored, options)?;
        events.extend(one.wrote.then(|| options.event()));
        ran.push(one);
    }
    set.finish(txn)?;
    for event in events {
        txn.note(Wanted::SORTED_SET, event, key);
    }
    Ok(ran)
}

/// The scores and members that a line names, and its options beside those of its command.
fn add_arguments(
    args: Args<'_>,
    mut options: AddOptions,
) -> Result<(Scored<'_>, AddOptions), CommandError> {
    let mut at = 2;
    while let Some(arg) = args.get(at) {
        match Word::new(arg).as_bytes() {
            b"NX" => options.new_only = true,
            b"XX" => options.old_only = true,
            b"CH" => options.count_changed = true,
            b"INCR" => options.increment = true,
            b"GT" => options.greater = true,
            b"LT" => options.less = true,
            _ => break,
        }
        at += 1;
    }
    let (pairs, rest) = args.from(at).as_chunks::<2>();
    if !rest.is_empty() || pairs.is_empty() {
        return Err(CommandError::Syntax);
    }
    if options.new_only && options.old_only {
        return Err(CommandError::ZADD_NX_XX);
    }
    let (greater, less) = (options.greater, options.less);
    if ((greater || less) && options.new_only) || (greater && less) {
        return Err(CommandError::ZADD_GT_LT_NX);
    }
    if options.increment && pairs.len() > 1 {
        return Err(CommandError::ZADD_INCR_PAIR);
    }
    let mut scored = Vec::with_capacity(pairs.len());
    for [score, name] in pairs {
        scored.push((parse_double(score).ok_or(CommandError::NotFloat)?, name));
    }
    Ok((scored, options))
}

/// Gives members scores, as ZADD does; its answer.
pub(crate) fn add_scored(
    txn: &mut Txn<'_>,
    key: &[u8],
    scored: &[(f64, &Bytes)],
    options: AddOptions,
) -> Result<Reply, CommandError> {
    let mut set = SortedSetEdit::open(txn, key)?;
    set.touch(txn, scored.iter().map(|(_, name)| *name));
    let Ran { reply, wrote } = add_members(&mut set, txn, scored, options)?;
    set.finish(txn)?;
    if wrote {
        txn.note(Wanted::SORTED_SET, options.event(), key);
    }
    Ok(reply)
}

/// Gives members scores in a set that is open.
fn add_members(
    set: &mut SortedSetEdit<'_>,
    txn: &mut Txn<'_>,
    scored: &[(f64, &Bytes)],
    options: AddOptions,
) -> Result<Ran, CommandError> {
    let (mut added, mut changed, mut result) = (0, 0, None);
    if set.exists() || !options.old_only {
        set.will_put(scored.len() as u64, scored.first().map_or(&[], |(_, name)| &name[..]));
        for (score, name) in scored {
            let old = set.score(txn, name)?;
            let new = match old {
                _ if options.old_only && old.is_none() => continue,
                Some(old) if options.increment && !options.new_only => old + score,
                _ => *score,
            };
            if new.is_nan() {
                return Err(CommandError::SCORE_NAN);
            }
            let refused = |old| {
                options.new_only || (options.less && new >= old) || (options.greater && new <= old)
            };
            if old.is_some_and(refused) {
                continue;
            }
            result = Some(new);
            if old != Some(new) {
                set.put(txn, name, old, new)?;
                added += i64::from(old.is_none());
                changed += i64::from(old.is_some());
            }
        }
    }
    let reply = match options.increment {
        true => result.map_or(Reply::Null, Reply::Double),
        false => Reply::Integer(added + if options.count_changed { changed } else { 0 }),
    };
    Ok(Ran { reply, wrote: added + changed > 0 })
}

fn zrem(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut set = SortedSetEdit::open(txn, args.bytes(1)?)?;
    let (mut removed, names) = (0, args.from(2));
    set.touch(txn, names.iter());
    for name in names {
        removed += i64::from(set.remove(txn, name)?.is_some());
    }
    if removed > 0 {
        txn.note(Wanted::SORTED_SET, "zrem", args.bytes(1)?);
    }
    set.finish(txn)?;
    Ok(Reply::Integer(removed))
}

// --- Popping

/// Whether the lowest or the highest scores are popped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extreme {
    Min,
    Max,
}

fn zpopmin(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(txn, args, Extreme::Min)
}

fn zpopmax(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    pop(txn, args, Extreme::Max)
}

fn pop(txn: &mut Txn<'_>, args: Args<'_>, extreme: Extreme) -> Result<Reply, CommandError> {
    let wanted = match args.from(2) {
        [] => None,
        [count] => Some(positive(count, CommandError::NOT_POSITIVE)?),
        _ => return Err(CommandError::Syntax),
    };
    let keys = &args.from(1)[..1];
    let popped = pop_first(txn, keys, extreme, wanted.unwrap_or(1))?;
    let popped = popped.map_or(Vec::new(), |(_, popped)| popped);
    Ok(match wanted {
        Some(_) => members_reply(popped, true),
        // One pair is not nested, in RESP3 neither.
        None => Reply::Array(popped.into_iter().flat_map(pair).collect()),
    })
}

fn zmpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, extreme, count) = mpop_arguments(args, 1)?;
    mpop_reply(txn, keys, extreme, count)
}

fn mpop_reply(
    txn: &mut Txn<'_>,
    keys: &[Bytes],
    extreme: Extreme,
    count: u64,
) -> Result<Reply, CommandError> {
    let Some((key, popped)) = pop_first(txn, keys, extreme, count)? else {
        return Ok(Reply::NullArray);
    };
    let popped = popped.into_iter().map(|member| Reply::Array(pair(member).to_vec()));
    Ok(Reply::Array(vec![Reply::Bulk(key), Reply::Array(popped.collect())]))
}

/// The keys, the end and the count of ZMPOP, whose number of keys stands at a position.
pub(crate) fn mpop_arguments(
    args: Args<'_>,
    at: usize,
) -> Result<(&[Bytes], Extreme, u64), CommandError> {
    let keys = counted_keys(args, at)?;
    let mut options = args.options(at + 1 + keys.len());
    let extreme = match Word::new(options.value()?).as_bytes() {
        b"MIN" => Extreme::Min,
        b"MAX" => Extreme::Max,
        _ => return Err(CommandError::Syntax),
    };
    Ok((keys, extreme, mpop_count(options)?))
}

/// Pops from the first of these sorted sets that exists; its key and the members, the outermost
/// first.
pub(crate) fn pop_first(
    txn: &mut Txn<'_>,
    keys: &[Bytes],
    extreme: Extreme,
    count: u64,
) -> Result<Option<(Bytes, Vec<Member>)>, CommandError> {
    for key in keys {
        let mut set = SortedSetEdit::open(txn, key)?;
        if set.exists() {
            let length = set.set().count();
            let count = count.min(length);
            let (ranks, direction) = match extreme {
                Extreme::Min => (0..count, Direction::Forward),
                Extreme::Max => (length - count..length, Direction::Backward),
            };
            let popped = set.set().range(txn, ranks.clone(), direction)?;
            set.remove_ranks(txn, ranks)?;
            if count > 0 {
                let event = if extreme == Extreme::Min { "zpopmin" } else { "zpopmax" };
                txn.note(Wanted::SORTED_SET, event, key);
            }
            set.finish(txn)?;
            return Ok(Some((key.clone(), popped)));
        }
    }
    Ok(None)
}

// --- What waits

fn bzpopmin(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    bpop(txn, args, Extreme::Min)
}

fn bzpopmax(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    bpop(txn, args, Extreme::Max)
}

fn bpop(txn: &mut Txn<'_>, args: Args<'_>, extreme: Extreme) -> Result<Reply, CommandError> {
    let (keys, timeout) = keys_and_timeout(args)?;
    timeout_of_seconds(timeout, txn.now_ms())?;
    let popped = pop_first(txn, keys, extreme, 1)?;
    Ok(popped.map_or(Reply::NullArray, |(key, popped)| {
        let member = popped.into_iter().flat_map(pair);
        Reply::Array(std::iter::once(Reply::Bulk(key)).chain(member).collect())
    }))
}

fn wait_to_pop(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let (keys, timeout) = keys_and_timeout(args)?;
    let timeout_ms = timeout_of_seconds(timeout, view.now_ms())?;
    Ok(Some(Wait::new(Kind::SortedSet, keys, timeout_ms)))
}

fn bzmpop(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (keys, extreme, count) = mpop_arguments(args, 2)?;
    timeout_of_seconds(args.bytes(1)?, txn.now_ms())?;
    mpop_reply(txn, keys, extreme, count)
}

fn wait_to_mpop(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let (keys, ..) = mpop_arguments(args, 2)?;
    let timeout_ms = timeout_of_seconds(args.bytes(1)?, view.now_ms())?;
    Ok(Some(Wait::new(Kind::SortedSet, keys, timeout_ms)))
}

// --- Looking at members

fn zcard(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = SortedSet::read(view, args.bytes(1)?)?;
    Ok(Reply::Integer(set.map_or(0, |set| set.count() as i64)))
}

fn zscore(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = SortedSet::read(view, args.bytes(1)?)?;
    score_reply(view, set.as_ref(), args.bytes(2)?)
}

fn zmscore(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let set = SortedSet::read(view, args.bytes(1)?)?;
    let scores = args.from(2).iter().map(|name| score_reply(view, set.as_ref(), name));
    Ok(Reply::Array(scores.collect::<Result<_, _>>()?))
}

fn score_reply(
    view: &dyn View,
    set: Option<&SortedSet>,
    name: &[u8],
) -> Result<Reply, CommandError> {
    let score = set.map_or(Ok(None), |set| set.score(view, name))?;
    Ok(score.map_or(Reply::Null, Reply::Double))
}

fn zrank(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    rank(view, args, false, "zrank")
}

fn zrevrank(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    rank(view, args, true, "zrevrank")
}

fn rank(
    view: &dyn View,
    args: Args<'_>,
    reverse: bool,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let with_score = match args.from(3) {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"WITHSCORE") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(command.into())),
    };
    let none = if with_score { Reply::NullArray } else { Reply::Null };
    let Some(set) = SortedSet::read(view, args.bytes(1)?)? else { return Ok(none) };
    let name = args.bytes(2)?;
    let Some(score) = set.score(view, name)? else { return Ok(none) };
    let rank = set.rank(view, name, score)?;
    let rank = if reverse { set.count().saturating_sub(rank + 1) } else { rank };
    let rank = Reply::Integer(rank as i64);
    Ok(if with_score { Reply::Array(vec![rank, Reply::Double(score)]) } else { rank })
}

fn zscan(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let at = parse_cursor(args.bytes(2)?)?;
    // Redis looks at the options only of a set that exists.
    let Some(set) = SortedSet::read(view, args.bytes(1)?)? else {
        return Ok(cursor::answer(0, Vec::new()));
    };
    let walk = Walk::parse(args.options(3), false)?;
    let (members, next) = set.scan(view, at, walk.count)?;
    let members = members.into_iter().filter(|member| walk.matches(&member.name));
    let items = members
        .flat_map(|Member { name, score }| [Reply::Bulk(name), Reply::Bulk(score_text(score))]);
    Ok(cursor::answer(next, items.collect()))
}

fn zrandmember(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(count) = args.get(2) else {
        let Some(set) = SortedSet::read(view, args.bytes(1)?)? else { return Ok(Reply::Null) };
        let drawn = set.at(view, view.random() % set.count().max(1))?;
        return Ok(drawn.map_or(Reply::Null, |member| Reply::Bulk(member.name)));
    };
    let count = parse_int(count).ok_or(CommandError::NotInteger)?;
    if count == i64::MIN {
        return Err(CommandError::RANDOM_COUNT_RANGE);
    }
    let with_scores = match args.from(3) {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"WITHSCORES") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_scores && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let Some(set) = SortedSet::read(view, args.bytes(1)?)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let wanted = count.unsigned_abs();
    if count < 0 && wanted > RANDOM_REPEATED_MAX {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let drawn = if count < 0 {
        let drawn = (0..wanted).filter_map(|_| {
            let rank = view.random() % set.count().max(1);
            set.at(view, rank).transpose()
        });
        drawn.collect::<Result<_, _>>()?
    } else {
        random_distinct(view, &set, wanted)?
    };
    Ok(members_reply(drawn, with_scores))
}

/// So many different random members, or all if there are no more.
fn random_distinct(
    view: &dyn View,
    set: &SortedSet,
    wanted: u64,
) -> Result<Vec<Member>, CommandError> {
    let length = set.count();
    if wanted >= length {
        return Ok(set.all(view)?);
    }
    // Floyd's way: each subset is as likely as any other, with one draw for each member.
    let (mut ranks, mut drawn) = (HashSet::new(), Vec::new());
    for last in length - wanted..length {
        let rank = view.random() % (last + 1);
        let rank = if ranks.insert(rank) { rank } else { last };
        ranks.insert(rank);
        drawn.push(rank);
    }
    if wanted.saturating_mul(DRAW_COST) < length {
        let members = drawn.into_iter().filter_map(|rank| set.at(view, rank).transpose());
        return Ok(members.collect::<Result<_, _>>()?);
    }
    let all = set.all(view)?;
    Ok(drawn.into_iter().filter_map(|rank| all.get(rank as usize).cloned()).collect())
}

// --- Replies

/// A score's digits.
pub(crate) fn score_text(score: f64) -> Bytes {
    let mut digits = [0; DOUBLE_BYTES_MAX];
    Bytes::copy_from_slice(format_double(score, &mut digits))
}

fn pair(member: Member) -> [Reply; 2] {
    [Reply::Bulk(member.name), Reply::Double(member.score)]
}

/// Members, with their scores or without.
pub(crate) fn members_reply(members: Vec<Member>, with_scores: bool) -> Reply {
    match with_scores {
        true => {
            let pairs = members.into_iter().map(pair).map(|[name, score]| (name, score));
            Reply::Pairs(pairs.collect())
        }
        false => Reply::Array(members.into_iter().map(|member| Reply::Bulk(member.name)).collect()),
    }
}

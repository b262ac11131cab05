//! Ranges of sorted sets, by rank, by score, by member: ZRANGE and all that say the same in another
//! way; counting and removing them.

use std::ops::Range;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Options};
use crate::double::parse_bound;
use crate::error::CommandError;
use crate::families::list::positions;
use crate::families::sorted_set::members_reply;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::sorted_set::{LexBound, Member, ScoreBound, SortedSet};
use crate::types::sorted_set_edit::{SortedSetEdit, replace};
use crate::view::{Direction, View};

/// By what a range is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range's two ends, the lower one first.
#[derive(Clone, Debug)]
enum Ends {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound, LexBound),
}

impl Ends {
    fn parse(by: By, low: &Bytes, high: &Bytes) -> Result<Ends, CommandError> {
        Ok(match by {
            By::Rank => {
                let int = |text| crate::args::parse_int(text).ok_or(CommandError::NotInteger);
                Ends::Rank(int(low)?, int(high)?)
            }
            By::Score => Ends::Score(score_bound(low)?, score_bound(high)?),
            By::Lex => Ends::Lex(lex_bound(low)?, lex_bound(high)?),
        })
    }

    /// The ranks between them.
    fn ranks(
        &self,
        view: &dyn View,
        set: &SortedSet,
        direction: Direction,
    ) -> Result<Range<u64>, CommandError> {
        Ok(match self {
            Ends::Rank(start, stop) => {
                let (ranks, length) = (positions(*start, *stop, set.count()), set.count());
                match direction {
                    Direction::Forward => ranks,
                    Direction::Backward => length - ranks.end..length - ranks.start,
                }
            }
            Ends::Score(min, max) => set.score_ranks(view, (*min, *max))?,
            Ends::Lex(min, max) => set.lex_ranks(view, (min, max), direction)?,
        })
    }
}

fn score_bound(text: &[u8]) -> Result<ScoreBound, CommandError> {
    let (excluded, text) = match text.strip_prefix(b"(") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let score = parse_bound(text).ok_or(CommandError::MIN_OR_MAX_NOT_FLOAT)?;
    Ok(ScoreBound { score, excluded })
}

fn lex_bound(text: &Bytes) -> Result<LexBound, CommandError> {
    // A NUL ends the text of + and -, as C sees it.
    match text.first() {
        Some(b'-') if matches!(text.get(1), None | Some(0)) => Ok(LexBound::Lowest),
        Some(b'+') if matches!(text.get(1), None | Some(0)) => Ok(LexBound::Highest),
        Some(b'[') => Ok(LexBound::At(text.slice(1..), false)),
        Some(b'(') => Ok(LexBound::At(text.slice(1..), true)),
        _ => Err(CommandError::MIN_OR_MAX_NOT_LEX),
    }
}

/// What a command asks for.
#[derive(Clone, Debug)]
struct Query {
    ends: Ends,
    direction: Direction,
    with_scores: bool,
    offset: i64,
    /// Negative: all.
    limit: i64,
}

/// What a command's name says of its query; what it does not say, options may.
#[derive(Clone, Copy, Debug)]
struct Form {
    by: Option<By>,
    direction: Option<Direction>,
    stores: bool,
}

impl Query {
    fn parse(
        form: Form,
        (first, second): (&Bytes, &Bytes),
        mut options: Options<'_>,
    ) -> Result<Query, CommandError> {
        let (mut by, mut direction) = (form.by, form.direction);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        while let Some(word) = options.word() {
            match word.as_bytes() {
                b"WITHSCORES" if !form.stores => with_scores = true,
                b"LIMIT" if options.left() >= 2 => {
                    (offset, limit) = (options.int()?, options.int()?);
                }
                b"REV" if form.direction.is_none() && direction.is_none() => {
                    direction = Some(Direction::Backward);
                }
                b"BYLEX" if by.is_none() => by = Some(By::Lex),
                b"BYSCORE" if by.is_none() => by = Some(By::Score),
                _ => return Err(CommandError::Syntax),
            }
        }
        let by = by.unwrap_or(By::Rank);
        let direction = direction.unwrap_or(Direction::Forward);
        if limit != -1 && by == By::Rank {
            return Err(CommandError::LIMIT_OF_RANKS);
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::SCORES_BY_LEX);
        }
        let (low, high) = match (by, direction) {
            (By::Score | By::Lex, Direction::Backward) => (second, first),
            _ => (first, second),
        };
        let ends = Ends::parse(by, low, high)?;
        Ok(Query { ends, direction, with_scores, offset, limit })
    }

    fn members(&self, view: &dyn View, set: &SortedSet) -> Result<Vec<Member>, CommandError> {
        let ranks = self.ends.ranks(view, set, self.direction)?;
        // A LIMIT of all ranks passes, and its offset is not looked at.
        if let Ends::Rank(..) = self.ends {
            return Ok(set.range(view, ranks, self.direction)?);
        }
        let length = ranks.end - ranks.start;
        let skipped = u64::try_from(self.offset).unwrap_or(u64::MAX).min(length);
        let taken = u64::try_from(self.limit).unwrap_or(u64::MAX).min(length - skipped);
        let ranks = match self.direction {
            Direction::Forward => ranks.start + skipped..ranks.start + skipped + taken,
            Direction::Backward => ranks.end - skipped - taken..ranks.end - skipped,
        };
        Ok(set.range(view, ranks, self.direction)?)
    }
}

fn query(view: &dyn View, args: Args<'_>, form: Form) -> Result<Reply, CommandError> {
    let query = Query::parse(form, (args.bytes(2)?, args.bytes(3)?), args.options(4))?;
    Ok(match SortedSet::read(view, args.bytes(1)?)? {
        Some(set) => members_reply(query.members(view, &set)?, query.with_scores),
        None => Reply::Array(Vec::new()),
    })
}

pub(super) fn zrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    query(view, args, Form { by: None, direction: None, stores: false })
}

pub(super) fn zrevrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    named(view, args, By::Rank, Direction::Backward)
}

pub(super) fn zrangebyscore(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    named(view, args, By::Score, Direction::Forward)
}

pub(super) fn zrevrangebyscore(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    named(view, args, By::Score, Direction::Backward)
}

pub(super) fn zrangebylex(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    named(view, args, By::Lex, Direction::Forward)
}

pub(super) fn zrevrangebylex(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    named(view, args, By::Lex, Direction::Backward)
}

fn named(
    view: &dyn View,
    args: Args<'_>,
    by: By,
    direction: Direction,
) -> Result<Reply, CommandError> {
    query(view, args, Form { by: Some(by), direction: Some(direction), stores: false })
}

pub(super) fn zrangestore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let form = Form { by: None, direction: None, stores: true };
    let query = Query::parse(form, (args.bytes(3)?, args.bytes(4)?), args.options(5))?;
    let members = match SortedSet::read(txn, args.bytes(2)?)? {
        Some(set) => query.members(txn, &set)?,
        None => Vec::new(),
    };
    Ok(Reply::Integer(replace(txn, args.bytes(1)?, members, "zrangestore")? as i64))
}

// --- Counting and removing

pub(super) fn zcount(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    count(view, args, By::Score)
}

pub(super) fn zlexcount(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    count(view, args, By::Lex)
}

fn count(view: &dyn View, args: Args<'_>, by: By) -> Result<Reply, CommandError> {
    let ends = Ends::parse(by, args.bytes(2)?, args.bytes(3)?)?;
    let Some(set) = SortedSet::read(view, args.bytes(1)?)? else { return Ok(Reply::Integer(0)) };
    let ranks = ends.ranks(view, &set, Direction::Forward)?;
    Ok(Reply::Integer((ranks.end - ranks.start) as i64))
}

pub(super) fn zremrangebyrank(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(txn, args, By::Rank, "zremrangebyrank")
}

pub(super) fn zremrangebyscore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(txn, args, By::Score, "zremrangebyscore")
}

pub(super) fn zremrangebylex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    remove(txn, args, By::Lex, "zremrangebylex")
}

fn remove(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    by: By,
    event: &'static str,
) -> Result<Reply, CommandError> {
    let ends = Ends::parse(by, args.bytes(2)?, args.bytes(3)?)?;
    let mut set = SortedSetEdit::open(txn, args.bytes(1)?)?;
    let ranks = ends.ranks(txn, set.set(), Direction::Forward)?;
    let removed = set.remove_ranks(txn, ranks)?;
    if removed > 0 {
        txn.note(Wanted::SORTED_SET, event, args.bytes(1)?);
    }
    set.finish(txn)?;
    Ok(Reply::Integer(removed as i64))
}

//! Sorted sets: members in the order of their scores, and of their bytes where scores are equal.
//!
//! ```text
//! body of the header = marks:u8 sequence               types/sequence.rs
//! marks              = SKIPLIST 1
//! item               = score:f64 member                 big-endian
//! separator          = the first bytes of a score, zeros behind them | score:f64 and first bytes of a member
//!
//! data rows beside those of the sequence, what follows the generation:
//!   0 hash32(member):u32 member                         value = score:f64
//! ```
//!
//! While it is small a member is found by looking at all. In rows it has a row of its own that tells
//! its score; where a score stands among the others, the directory tells. The rows of members stand
//! in the order of a hash, which is what ZSCAN's stateless cursor stands on; ZRANDMEMBER draws ranks.
//!
//! SKIPLIST has nothing to do with how the set is stored. It remembers which encoding Redis would
//! name: like its own, it is never taken back.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};
use wire::ids::{TableId, Version};
use wire::placement::Placement;

use crate::error::CommandError;
use crate::rows;
use crate::types::directory::Order;
use crate::types::header::{Header, Kind, Value};
use crate::types::keyspace;
use crate::types::ring::{HASHES, element_row};
use crate::types::sequence::{Items, Sequence};
use crate::view::{Direction, View, ViewError};

/// Redis's `zset-max-listpack-entries`: with more members it answers `skiplist`.
pub(crate) const LISTPACK_MEMBERS_MAX: u64 = 128;
/// Redis's `zset-max-listpack-value`, in bytes: with a longer member likewise.
pub(crate) const LISTPACK_TEXT_BYTES_MAX: usize = 64;

const MARK_SKIPLIST: u8 = 1;
pub(super) const SCORE_BYTES: usize = 8;
const SUB_MEMBER: u8 = 0;
/// Bytes before the member in its row, behind the generation.
const MEMBER_PREFIX_BYTES: usize = 5;

/// A member and its score.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Member {
    pub(crate) name: Bytes,
    pub(crate) score: f64,
}

impl Member {
    fn read(item: &Bytes) -> Result<Member, ViewError> {
        let score = score_of(item).ok_or(ViewError::Damaged)?;
        Ok(Member { name: item.slice(SCORE_BYTES..), score })
    }

    pub(super) fn item(name: &[u8], score: f64) -> Bytes {
        let mut item = BytesMut::with_capacity(SCORE_BYTES + name.len());
        item.put_f64(score);
        item.put_slice(name);
        item.freeze()
    }

    /// The order of a sorted set.
    pub(crate) fn order(&self, other: &Member) -> Ordering {
        order((self.score, &self.name), (other.score, &other.name))
    }
}

/// The order of scores and names.
pub(super) fn order(
    (score, name): (f64, &[u8]),
    (other_score, other_name): (f64, &[u8]),
) -> Ordering {
    let scores = score.partial_cmp(&other_score).unwrap_or(Ordering::Equal);
    scores.then_with(|| name.cmp(other_name))
}

fn score_of(item: &[u8]) -> Option<f64> {
    item.first_chunk::<SCORE_BYTES>().map(|score| f64::from_be_bytes(*score))
}

/// The score that Redis keeps: in a listpack it is a number of its own kind, and -0 is none.
pub(super) fn kept_score(score: f64, is_skiplist: bool) -> f64 {
    if is_skiplist { score } else { score + 0.0 }
}

/// An item's score and member, or those of a separator, which may lack the end of a score; an empty one
/// stands before everything.
fn parts(item: &[u8]) -> (f64, &[u8]) {
    match item.split_first_chunk::<SCORE_BYTES>() {
        Some((score, name)) => (f64::from_be_bytes(*score), name),
        None if item.is_empty() => (f64::NEG_INFINITY, b""),
        None => {
            let mut score = [0; SCORE_BYTES];
            score[..item.len()].copy_from_slice(item);
            (f64::from_be_bytes(score), b"")
        }
    }
}

/// The order of a sorted set's items.
pub(super) static ORDER: Order = Order { compare, separate };

fn compare(one: &[u8], other: &[u8]) -> Ordering {
    order(parts(one), parts(other))
}

/// How much of one item tells that it stands behind another, if it does: of its score, if that is
/// higher, else as much of its member as it takes.
fn separate(low: &[u8], high: &[u8]) -> Option<usize> {
    let ((low_score, low_name), (high_score, high_name)) = (parts(low), parts(high));
    if low_score != high_score {
        return (low_score < high_score).then(|| score_bytes(low_score, high_score));
    }
    let alike = low_name.iter().zip(high_name).take_while(|(low, high)| low == high).count();
    (low_name < high_name).then_some(SCORE_BYTES + alike + 1)
}

/// How many first bytes of a score are, with zeros behind them, a score that is still above a lower one
/// and not above it. (Without its end a negative score is a higher one.)
fn score_bytes(low: f64, high: f64) -> usize {
    let begins = |bytes: &usize| {
        let score = f64::from_bits(high.to_bits() & (u64::MAX << (u64::BITS as usize - 8 * bytes)));
        low < score && score <= high
    };
    (1..SCORE_BYTES).find(begins).unwrap_or(SCORE_BYTES)
}

/// An end of a range of scores.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct ScoreBound {
    pub(crate) score: f64,
    /// Whether the score itself is outside.
    pub(crate) excluded: bool,
}

/// An end of a range of members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LexBound {
    /// `-`, before all members.
    Lowest,
    /// `+`, behind all members.
    Highest,
    /// A member, and whether it is outside.
    At(Bytes, bool),
}

impl LexBound {
    /// As the lower end: whether a member is inside.
    fn is_at_or_before(&self, name: &[u8]) -> bool {
        match self {
            LexBound::Lowest => true,
            LexBound::Highest => false,
            LexBound::At(bound, excluded) => &bound[..] < name || (!excluded && bound == name),
        }
    }

    /// As the upper end: whether a member is inside.
    fn is_at_or_behind(&self, name: &[u8]) -> bool {
        match self {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::At(bound, excluded) => name < &bound[..] || (!excluded && bound == name),
        }
    }

    /// Whether nothing can be between this lower end and that upper one.
    fn is_behind(&self, upper: &LexBound) -> bool {
        match (self, upper) {
            (LexBound::Highest, _) | (_, LexBound::Lowest) => true,
            (LexBound::At(low, low_out), LexBound::At(high, high_out)) => {
                low > high || (low == high && (*low_out || *high_out))
            }
            _ => false,
        }
    }
}

/// As Redis walks over a listpack: to the first member inside one end, and on to the last that is
/// inside the other.
fn lex_ranks_of(
    all: &[Member],
    (min, max): (&LexBound, &LexBound),
    direction: Direction,
) -> Range<u64> {
    let above = |member: &Member| min.is_at_or_before(&member.name);
    let below = |member: &Member| max.is_at_or_behind(&member.name);
    // Redis asks the outermost members first whether there can be any.
    let possible = all.last().is_some_and(above) && all.first().is_some_and(below);
    let (start, end) = match direction {
        _ if !possible => (0, 0),
        Direction::Forward => {
            let start = all.iter().take_while(|member| !above(member)).count();
            (start, start + all[start..].iter().take_while(|member| below(member)).count())
        }
        Direction::Backward => {
            let end = all.len() - all.iter().rev().take_while(|member| !below(member)).count();
            (end - all[..end].iter().rev().take_while(|member| above(member)).count(), end)
        }
    };
    start as u64..end as u64
}

/// The rows of the members.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemberRows {
    table: TableId,
    placement: Placement,
    generation: Version,
}

impl MemberRows {
    pub(super) fn row(&self, name: &[u8]) -> Bytes {
        element_row(self.table, self.placement, self.generation, name)
    }

    /// The lowest row of a member with this hash; above all, if the hash is above all hashes.
    fn hash_row(&self, hash: u64) -> Bytes {
        let sub = match u32::try_from(hash) {
            Ok(hash) => [&[SUB_MEMBER][..], &hash.to_be_bytes()].concat(),
            Err(_) => vec![SUB_MEMBER + 1],
        };
        rows::data_key(self.table, self.placement, self.generation, &sub)
    }
}

/// A sorted set to be read.
#[derive(Clone, Debug)]
pub(crate) struct SortedSet {
    table: TableId,
    placement: Placement,
    pub(super) members: Sequence,
    pub(crate) is_skiplist: bool,
}

impl SortedSet {
    /// The sorted set at a key; `None` if the key does not exist.
    ///
    /// *Errors*: `WrongType` if it holds something else.
    pub(crate) fn read(view: &dyn View, key: &[u8]) -> Result<Option<SortedSet>, CommandError> {
        let Some(Header { value, .. }) = keyspace::read(view, key)? else { return Ok(None) };
        if value.kind() != Kind::SortedSet {
            return Err(CommandError::WrongType);
        }
        Ok(Some(SortedSet::of(view, key, &value)?))
    }

    /// The sorted set that a header of this key holds.
    pub(crate) fn of(view: &dyn View, key: &[u8], value: &Value) -> Result<SortedSet, ViewError> {
        let (is_skiplist, rest) = read_head(value).ok_or(ViewError::Damaged)?;
        Ok(SortedSet {
            table: view.table(),
            placement: Placement::of_key(key),
            members: Sequence::read(view, key, (value, rest), Some(&ORDER))?,
            is_skiplist,
        })
    }

    pub(super) fn empty(view: &dyn View, key: &[u8]) -> SortedSet {
        SortedSet {
            table: view.table(),
            placement: Placement::of_key(key),
            members: Sequence::empty(Some(&ORDER)),
            is_skiplist: false,
        }
    }

    pub(super) fn value(&self) -> Value {
        let mut head = BytesMut::with_capacity(1 + self.members.header_bytes());
        head.put_u8(if self.is_skiplist { MARK_SKIPLIST } else { 0 });
        self.members.value(Kind::SortedSet, head)
    }

    pub(super) fn member_rows(&self) -> Option<MemberRows> {
        match &self.members.items {
            Items::Inline(..) | Items::Ended(_) => None,
            Items::Rows(directory) => Some(MemberRows {
                table: self.table,
                placement: self.placement,
                generation: directory.site().generation,
            }),
        }
    }

    /// How many members it has.
    pub(crate) fn count(&self) -> u64 {
        self.members.count()
    }

    /// A member's score.
    pub(crate) fn score(&self, view: &dyn View, name: &[u8]) -> Result<Option<f64>, ViewError> {
        if let Some(rows) = self.member_rows() {
            let Some(row) = view.get(&rows.row(name))? else { return Ok(None) };
            // One that is no number has no place in an order.
            let score = score_of(&row).filter(|score| !score.is_nan());
            return score.ok_or(ViewError::Damaged).map(Some);
        }
        let mut score = None;
        self.members.walk(view, 0..self.count(), Direction::Forward, &mut |item| {
            let (found, met) = parts(&item);
            if met == name {
                score = Some(found);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(score)
    }

    /// How many members stand before one with this score and name, which need not be there.
    pub(crate) fn rank(&self, view: &dyn View, name: &[u8], score: f64) -> Result<u64, ViewError> {
        self.members.rank(view, &|item| {
            let (met_score, met_name) = parts(item);
            met_score < score || (met_score == score && met_name < name)
        })
    }

    /// The member at a rank.
    pub(crate) fn at(&self, view: &dyn View, rank: u64) -> Result<Option<Member>, ViewError> {
        self.members.get(view, rank)?.map(|item| Member::read(&item)).transpose()
    }

    /// The members at these ranks.
    pub(crate) fn range(
        &self,
        view: &dyn View,
        ranks: Range<u64>,
        direction: Direction,
    ) -> Result<Vec<Member>, ViewError> {
        let mut members = Vec::new();
        self.walk(view, ranks, direction, &mut |member| {
            members.push(member);
            ControlFlow::Continue(())
        })?;
        Ok(members)
    }

    /// All members, in order.
    pub(crate) fn all(&self, view: &dyn View) -> Result<Vec<Member>, ViewError> {
        self.range(view, 0..self.count(), Direction::Forward)
    }

    /// Visits the members at these ranks in a direction, until `visit` breaks.
    pub(crate) fn walk(
        &self,
        view: &dyn View,
        ranks: Range<u64>,
        direction: Direction,
        visit: &mut dyn FnMut(Member) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let mut outcome = Ok(());
        self.members.walk(
            view,
            ranks,
            direction,
            &mut |item| match Member::read(&item.share()) {
                Ok(member) => visit(member),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        outcome
    }

    /// The ranks of the members with scores from one bound to another.
    pub(crate) fn score_ranks(
        &self,
        view: &dyn View,
        (min, max): (ScoreBound, ScoreBound),
    ) -> Result<Range<u64>, ViewError> {
        let start = self.members.rank(view, &|item| {
            let score = parts(item).0;
            score < min.score || (min.excluded && score == min.score)
        })?;
        let end = self.members.rank(view, &|item| {
            let score = parts(item).0;
            score < max.score || (!max.excluded && score == max.score)
        })?;
        Ok(start..end.max(start))
    }

    /// The ranks of the members from one bound to another, if all have the same score.
    ///
    /// What is asked of others Redis leaves open; while a set is small, the same is answered.
    pub(crate) fn lex_ranks(
        &self,
        view: &dyn View,
        bounds: (&LexBound, &LexBound),
        direction: Direction,
    ) -> Result<Range<u64>, ViewError> {
        if bounds.0.is_behind(bounds.1) {
            return Ok(0..0);
        }
        if let Items::Inline(..) = self.members.items {
            return Ok(lex_ranks_of(&self.all(view)?, bounds, direction));
        }
        let (count, forward) = (self.count(), Direction::Forward);
        let above = |member: &Member| bounds.0.is_at_or_before(&member.name);
        let below = |member: &Member| bounds.1.is_at_or_behind(&member.name);
        let first = self.range(view, 0..1, forward)?.pop();
        let last = self.range(view, count.saturating_sub(1)..count, forward)?.pop();
        // As in Redis, and as of a small one: nothing, if one of the outermost members is outside.
        let (Some(first), Some(last)) = (first.filter(below), last.filter(above)) else {
            return Ok(0..0);
        };
        let (start, end) = if first.score == last.score {
            let start =
                self.members.rank(view, &|item| !bounds.0.is_at_or_before(parts(item).1))?;
            (start, self.members.rank(view, &|item| bounds.1.is_at_or_behind(parts(item).1))?)
        } else {
            // The directory tells scores apart, and not always names.
            (self.halved(view, &|member| !above(member))?, self.halved(view, &below)?)
        };
        Ok(start..end.max(start))
    }

    /// The rank found by halving, as if those that `is_before` came first.
    fn halved(
        &self,
        view: &dyn View,
        is_before: &dyn Fn(&Member) -> bool,
    ) -> Result<u64, ViewError> {
        let (mut from, mut to) = (0, self.count());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.range(view, middle..middle + 1, Direction::Forward)?.first() {
                Some(member) if is_before(member) => from = middle + 1,
                _ => to = middle,
            }
        }
        Ok(from)
    }

    /// The next `count` members from a cursor on, and the next cursor; 0 at the end. Members that
    /// share a hash come together: no cursor could point between them.
    pub(crate) fn scan(
        &self,
        view: &dyn View,
        cursor: u64,
        count: usize,
    ) -> Result<(Vec<Member>, u64), ViewError> {
        // A small set has no order to go on in.
        let Some(rows) = self.member_rows() else { return Ok((self.all(view)?, 0)) };
        let prefix = rows::data_key(rows.table, rows.placement, rows.generation, &[]).len();
        let (from, to) = (rows.hash_row(cursor.min(HASHES)), rows.hash_row(HASHES));
        let (mut found, mut next, mut last) = (Vec::new(), 0, None);
        let mut outcome = Ok(());
        view.scan(&from, &to, Direction::Forward, &mut |row, value| {
            let hash = row.get(prefix + 1..prefix + MEMBER_PREFIX_BYTES);
            let hash = hash.and_then(|hash| <[u8; 4]>::try_from(hash).ok());
            let (Some(hash), Some(score)) = (hash, score_of(value)) else {
                outcome = Err(ViewError::Damaged);
                return ControlFlow::Break(());
            };
            let at = u64::from(u32::from_be_bytes(hash));
            if found.len() >= count && last != Some(at) {
                next = at;
                return ControlFlow::Break(());
            }
            last = Some(at);
            found.push(Member { name: row.slice(prefix + MEMBER_PREFIX_BYTES..), score });
            ControlFlow::Continue(())
        })?;
        outcome?;
        Ok((found, next))
    }
}

fn read_head(value: &Value) -> Option<(bool, Bytes)> {
    let (Value::Inline { body, .. } | Value::Rows { body, .. }) = value else { return None };
    let (marks, rest) = body.split_first()?;
    (marks & !MARK_SKIPLIST == 0).then(|| (*marks == MARK_SKIPLIST, body.slice_ref(rest)))
}

/// Redis's name of the encoding of a sorted set.
pub(crate) fn encoding(value: &Value) -> &'static str {
    match read_head(value) {
        Some((false, _)) => "listpack",
        _ => "skiplist",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn separators_stand_above_what_is_before_and_not_above_what_is_behind() {
        let mut random = Random::new(7);
        let mut shortest = SCORE_BYTES;
        for round in 0..20_000 {
            let mut score = || match round % 3 {
                0 => f64::from_bits(random.next()),
                1 => random.below(1_000_000) as f64 - 500_000.0,
                _ => [0.0, -0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY][random.below(5)],
            };
            let (one, other) = (score(), score());
            let (low, high) = (one.min(other), one.max(other));
            if low.is_nan() || high.is_nan() || low == high {
                continue;
            }
            let (before, behind) = (Member::item(b"z", low), Member::item(b"a", high));
            let length = separate(&before, &behind).expect("it is above");
            let (between, name) = parts(&behind[..length]);
            assert!(low < between && between <= high && name.is_empty(), "{low} {between} {high}");
            assert!(separate(&before, &behind[..length]).is_some());
            assert_eq!(separate(&behind, &behind[..length]), None);
            shortest = shortest.min(length);
        }
        assert_eq!(shortest, 1);
    }
}

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
use crate::notes::Wanted;
use crate::rows;
use crate::txn::Txn;
use crate::types::directory::{Edit, Order, TOUCHED_ITEMS_MIN, TOUCHED_MAX};
use crate::types::header::{Header, Kind, Value};
use crate::types::keyspace::{self, Found};
use crate::types::ring::{HASHES, element_row};
use crate::types::sequence::{Items, Sequence};
use crate::view::{Direction, View, ViewError};

/// Redis's `zset-max-listpack-entries`: with more members it answers `skiplist`.
pub(crate) const LISTPACK_MEMBERS_MAX: u64 = 128;
/// Redis's `zset-max-listpack-value`, in bytes: with a longer member likewise.
pub(crate) const LISTPACK_TEXT_BYTES_MAX: usize = 64;

const MARK_SKIPLIST: u8 = 1;
const SCORE_BYTES: usize = 8;
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

    fn item(name: &[u8], score: f64) -> Bytes {
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
fn order((score, name): (f64, &[u8]), (other_score, other_name): (f64, &[u8])) -> Ordering {
    let scores = score.partial_cmp(&other_score).unwrap_or(Ordering::Equal);
    scores.then_with(|| name.cmp(other_name))
}

fn score_of(item: &[u8]) -> Option<f64> {
    item.first_chunk::<SCORE_BYTES>().map(|score| f64::from_be_bytes(*score))
}

/// The score that Redis keeps: in a listpack it is a number of its own kind, and -0 is none.
fn kept_score(score: f64, is_skiplist: bool) -> f64 {
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
static ORDER: Order = Order { compare, separate };

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
struct MemberRows {
    table: TableId,
    placement: Placement,
    generation: Version,
}

impl MemberRows {
    fn row(&self, name: &[u8]) -> Bytes {
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
    members: Sequence,
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

    fn empty(view: &dyn View, key: &[u8]) -> SortedSet {
        SortedSet {
            table: view.table(),
            placement: Placement::of_key(key),
            members: Sequence::empty(Some(&ORDER)),
            is_skiplist: false,
        }
    }

    fn value(&self) -> Value {
        let mut head = BytesMut::with_capacity(1 + self.members.header_bytes());
        head.put_u8(if self.is_skiplist { MARK_SKIPLIST } else { 0 });
        self.members.value(Kind::SortedSet, head)
    }

    fn member_rows(&self) -> Option<MemberRows> {
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

/// A member that has another score now, or came, or went.
#[derive(Debug)]
struct Rescored {
    name: Bytes,
    old: Option<f64>,
    new: Option<f64>,
}

/// A sorted set that is being changed. [`SortedSetEdit::finish`] writes its header, once, with a new
/// version.
///
/// Where members have rows, those are written at once, and the directory of all together: until then
/// the set tells the scores of members as they are by now, and where they stand as it was before.
pub(crate) struct SortedSetEdit<'k> {
    key: &'k [u8],
    found: Found,
    set: SortedSet,
    /// What the directory does not know yet, in the order of the changes.
    rescored: Vec<Rescored>,
    /// How many more members there are than the directory knows.
    growth: i64,
    /// Whether the next change makes a skiplist of it.
    skiplist_next: bool,
    changed: bool,
}

impl<'k> SortedSetEdit<'k> {
    /// Begins with the sorted set at a key, or with an empty one.
    ///
    /// *Errors*: `WrongType` if the key holds something else.
    pub(crate) fn open(view: &dyn View, key: &'k [u8]) -> Result<SortedSetEdit<'k>, CommandError> {
        let found = keyspace::lookup(view, key)?;
        if found.header().is_some_and(|header| header.value.kind() != Kind::SortedSet) {
            return Err(CommandError::WrongType);
        }
        let set = match found.header() {
            Some(header) => SortedSet::of(view, key, &header.value)?,
            None => SortedSet::empty(view, key),
        };
        Ok(SortedSetEdit::of(key, found, set))
    }

    fn of(key: &'k [u8], found: Found, set: SortedSet) -> SortedSetEdit<'k> {
        let (rescored, growth) = (Vec::new(), 0);
        SortedSetEdit { key, found, set, rescored, growth, skiplist_next: false, changed: false }
    }

    /// Whether the key exists for clients by now: no set is empty.
    pub(crate) fn exists(&self) -> bool {
        self.count() > 0
    }

    fn count(&self) -> u64 {
        self.set.count().saturating_add_signed(self.growth)
    }

    /// Says that the scores of these members, or of the first of them, will be asked for soon.
    pub(crate) fn touch<'n>(&self, view: &dyn View, names: impl Iterator<Item = &'n Bytes>) {
        if let Some(rows) = self.set.member_rows().filter(|_| self.count() >= TOUCHED_ITEMS_MIN) {
            view.touch(&names.take(TOUCHED_MAX).map(|name| rows.row(name)).collect::<Vec<_>>());
        }
    }

    /// A member's score by now.
    pub(crate) fn score(&self, view: &dyn View, name: &[u8]) -> Result<Option<f64>, ViewError> {
        self.set.score(view, name)
    }

    /// The set, to which no member has been put yet and of which none was removed.
    pub(crate) fn set(&self) -> &SortedSet {
        debug_assert!(self.rescored.is_empty(), "the directory does not know all members");
        &self.set
    }

    /// Redis makes a skiplist of a set that is given so many members at once, known ones or not, and
    /// of a new one whose first member is long; but it keeps nothing of that if none of them changes
    /// something.
    pub(crate) fn will_put(&mut self, members: u64, first: &[u8]) {
        let is_long = !self.exists() && first.len() > LISTPACK_TEXT_BYTES_MAX;
        self.skiplist_next = members > LISTPACK_MEMBERS_MAX || is_long;
    }

    /// Gives a member a score; `old` is the one it has.
    pub(crate) fn put(
        &mut self,
        txn: &mut Txn<'_>,
        name: &Bytes,
        old: Option<f64>,
        score: f64,
    ) -> Result<(), ViewError> {
        self.changed = true;
        self.set.is_skiplist |= self.skiplist_next;
        if old.is_none() {
            let count = self.count() + 1;
            self.set.is_skiplist |=
                count > LISTPACK_MEMBERS_MAX || name.len() > LISTPACK_TEXT_BYTES_MAX;
        }
        let score = kept_score(score, self.set.is_skiplist);
        if let Some(rows) = self.set.member_rows() {
            txn.put(rows.row(name), Bytes::copy_from_slice(&score.to_be_bytes()));
            self.rescore(name, old, Some(score));
            return Ok(());
        }
        let new_at = self.set.rank(txn, name, score)?;
        let positions = match old {
            None => new_at..new_at,
            Some(old) => {
                let old_at = self.set.rank(txn, name, old)?;
                // Between its neighbours still: one change is enough.
                if new_at == old_at || new_at == old_at + 1 {
                    old_at..old_at + 1
                } else {
                    self.splice(txn, old_at..old_at + 1, &[])?;
                    let at = if new_at > old_at { new_at - 1 } else { new_at };
                    at..at
                }
            }
        };
        self.splice(txn, positions, &[Member::item(name, score)])
    }

    fn rescore(&mut self, name: &Bytes, old: Option<f64>, new: Option<f64>) {
        self.growth += i64::from(new.is_some()) - i64::from(old.is_some());
        self.rescored.push(Rescored { name: name.clone(), old, new });
    }

    /// Has the directory know all members.
    fn settle(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        let is_empty = self.count() == 0;
        let mut rescored = std::mem::take(&mut self.rescored);
        self.growth = 0;
        if is_empty {
            self.set.members = Sequence::empty(Some(&ORDER));
        }
        if is_empty || rescored.is_empty() {
            return Ok(());
        }
        // Of one that changed several times what was first and what is now.
        rescored.sort_by(|one, other| one.name.cmp(&other.name));
        rescored.dedup_by(|later, first| {
            let is_same = later.name == first.name;
            if is_same {
                first.new = later.new;
            }
            is_same
        });
        let bits = |score: Option<f64>| score.map(f64::to_bits);
        let mut steps = Vec::with_capacity(2 * rescored.len());
        for Rescored { name, old, new } in &rescored {
            if bits(*old) != bits(*new) {
                steps.extend(old.map(|old| (old, name, false)));
                steps.extend(new.map(|new| (new, name, true)));
            }
        }
        // Stable: of a score that is as high as the one before, that one is removed first.
        steps.sort_by(|one, other| order((one.0, one.1), (other.0, other.1)));
        let mut items =
            Vec::with_capacity(steps.iter().map(|(_, name, _)| SCORE_BYTES + name.len()).sum());
        for (score, name, _) in &steps {
            items.extend_from_slice(&score.to_be_bytes());
            items.extend_from_slice(name);
        }
        let mut rest = &items[..];
        let edits = steps.iter().map(|(_, name, is_inserted)| {
            let (item, others) = rest.split_at(SCORE_BYTES + name.len());
            rest = others;
            if *is_inserted { Edit::Insert(item) } else { Edit::Remove(item) }
        });
        let edits: Vec<Edit<'_>> = edits.collect();
        self.set.members.edit(txn, &edits)
    }

    /// Removes a member; its score, if it was there.
    pub(crate) fn remove(
        &mut self,
        txn: &mut Txn<'_>,
        name: &Bytes,
    ) -> Result<Option<f64>, ViewError> {
        let Some(score) = self.set.score(txn, name)? else { return Ok(None) };
        self.changed = true;
        if let Some(rows) = self.set.member_rows() {
            txn.delete(rows.row(name));
            self.rescore(name, Some(score), None);
            return Ok(Some(score));
        }
        let rank = self.set.rank(txn, name, score)?;
        self.splice(txn, rank..rank + 1, &[])?;
        Ok(Some(score))
    }

    /// Removes the members at these ranks; how many there were.
    pub(crate) fn remove_ranks(
        &mut self,
        txn: &mut Txn<'_>,
        ranks: Range<u64>,
    ) -> Result<u64, ViewError> {
        if ranks.is_empty() {
            return Ok(0);
        }
        debug_assert!(self.rescored.is_empty(), "the ranks are not those of by now");
        self.changed = true;
        let removed = ranks.end - ranks.start;
        // Nothing of it will be left: the whole generation goes.
        if removed < self.set.count()
            && let Some(rows) = self.set.member_rows()
        {
            for member in self.set.range(txn, ranks.clone(), Direction::Forward)? {
                txn.delete(rows.row(&member.name));
            }
        }
        if removed == self.set.count() {
            self.set.members = Sequence::empty(Some(&ORDER));
            return Ok(removed);
        }
        self.splice(txn, ranks, &[])?;
        Ok(removed)
    }

    fn splice(
        &mut self,
        txn: &mut Txn<'_>,
        positions: Range<u64>,
        insert: &[Bytes],
    ) -> Result<(), ViewError> {
        let moved = self.set.members.splice(txn, self.key, positions, insert)?;
        if let Some(rows) = self.set.member_rows().filter(|_| moved) {
            for member in self.set.all(txn)? {
                let score = Bytes::copy_from_slice(&member.score.to_be_bytes());
                txn.put(rows.row(&member.name), score);
            }
        }
        Ok(())
    }

    /// Ends the change: writes the header, or removes the key if no member is left.
    pub(crate) fn finish(mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        if !self.changed {
            return Ok(());
        }
        self.settle(txn)?;
        if self.set.count() == 0 {
            keyspace::remove(txn, self.key, self.found);
            return Ok(());
        }
        let expire_at_ms = self.found.expire_at_ms();
        keyspace::store(txn, self.key, self.found, self.set.value(), expire_at_ms);
        Ok(())
    }
}

/// A sorted set of these members, in any order, for a key that [`keyspace::store`] puts it at.
pub(crate) fn build(
    txn: &mut Txn<'_>,
    key: &[u8],
    mut members: Vec<Member>,
) -> Result<Value, ViewError> {
    members.sort_by(Member::order);
    let found = Found::nothing(txn, key);
    let set = SortedSet::empty(txn, key);
    let mut edit = SortedSetEdit::of(key, found, set);
    let is_skiplist = members.len() as u64 > LISTPACK_MEMBERS_MAX
        || members.iter().any(|member| member.name.len() > LISTPACK_TEXT_BYTES_MAX);
    let item = |member: &Member| Member::item(&member.name, kept_score(member.score, is_skiplist));
    let items: Vec<Bytes> = members.iter().map(item).collect();
    edit.splice(txn, 0..0, &items)?;
    edit.set.is_skiplist = is_skiplist;
    Ok(edit.set.value())
}

/// Puts a sorted set of these members at a key, in the place of whatever is there; without members
/// nothing is there any more. How many there are. `event` is what is noted of a set that is stored.
pub(crate) fn replace(
    txn: &mut Txn<'_>,
    key: &[u8],
    members: Vec<Member>,
    event: &'static str,
) -> Result<u64, CommandError> {
    let found = keyspace::lookup(txn, key)?;
    let count = members.len() as u64;
    if members.is_empty() {
        keyspace::remove(txn, key, found);
    } else {
        let value = build(txn, key, members)?;
        keyspace::store(txn, key, found, value, None);
        txn.note(Wanted::SORTED_SET, event, key);
    }
    Ok(count)
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

//! Changing a sorted set: scores of members, the directory and the header once, at the end.
//!
//! [`SortedSetEdit::finish`] is where a changed sorted set gets its new header, and so its new version
//! (which WATCH compares) and its part in the counters. One that lost its last member is no key any
//! more.

use std::ops::Range;

use bytes::Bytes;

use crate::error::CommandError;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::directory::Edit;
use crate::types::header::{Kind, Value};
use crate::types::keyspace::{self, Found};
use crate::types::sequence::Sequence;
use crate::types::sorted_set::{
    LISTPACK_MEMBERS_MAX, LISTPACK_TEXT_BYTES_MAX, Member, ORDER, SCORE_BYTES, SortedSet,
    kept_score, order,
};
use crate::view::{Direction, TOUCHED_ELEMENTS_MIN, TOUCHED_ROWS_MAX, View, ViewError};

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
        let found = keyspace::lookup_of(view, key, Kind::SortedSet)?;
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

    /// Says that the scores of these members, or of the first of them, will be asked for soon. One alone
    /// has nothing to gain.
    pub(crate) fn touch<'n>(
        &self,
        view: &dyn View,
        names: impl Iterator<Item = &'n Bytes> + Clone,
    ) {
        let is_worth_it = self.count() >= TOUCHED_ELEMENTS_MIN && names.clone().nth(1).is_some();
        if let Some(rows) = self.set.member_rows().filter(|_| is_worth_it) {
            view.touch(
                &names.take(TOUCHED_ROWS_MAX).map(|name| rows.row(name)).collect::<Vec<_>>(),
            );
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

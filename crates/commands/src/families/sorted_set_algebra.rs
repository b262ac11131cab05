//! ZUNION, ZINTER, ZDIFF: their forms that answer, that store, and that count.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Options, Word};
use crate::double::parse_double;
use crate::error::CommandError;
use crate::families::list::positive;
use crate::families::sorted_set::members_reply;
use crate::txn::Txn;
use crate::types::header::{Header, Kind, Value};
use crate::types::keyspace;
use crate::types::set::Set;
use crate::types::sorted_set::{Member, SortedSet};
use crate::types::sorted_set_edit::replace;
use crate::view::{Direction, View, ViewError};

/// What is made of the sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// Where the result goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Answered,
    Stored,
    Counted,
}

/// What becomes of a member's scores in several sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, one: f64, other: f64) -> f64 {
        match self {
            // The sum of the infinities is 0, by Redis's convention.
            Aggregate::Sum => number_or_zero(one + other),
            Aggregate::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Aggregate::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A set that is taken part in.
struct Source {
    members: Members,
    weight: f64,
}

enum Members {
    None,
    Sorted(SortedSet),
    /// Those of a set, each with a score of 1.
    Plain {
        key: Bytes,
        value: Value,
        count: u64,
    },
}

/// The score of a set's members.
const PLAIN_SCORE: f64 = 1.0;

impl Source {
    fn read(view: &dyn View, key: &Bytes) -> Result<Source, CommandError> {
        let members = match keyspace::read(view, key)? {
            None => Members::None,
            Some(Header { value, .. }) if value.kind() == Kind::Set => {
                let count = Set::of(view, key, &value)?.count;
                Members::Plain { key: key.clone(), value, count }
            }
            Some(_) => SortedSet::read(view, key)?.map_or(Members::None, Members::Sorted),
        };
        Ok(Source { members, weight: 1.0 })
    }

    fn count(&self) -> u64 {
        match &self.members {
            Members::None => 0,
            Members::Sorted(set) => set.count(),
            Members::Plain { count, .. } => *count,
        }
    }

    fn score(&self, view: &dyn View, name: &[u8]) -> Result<Option<f64>, ViewError> {
        match &self.members {
            Members::None => Ok(None),
            Members::Sorted(set) => set.score(view, name),
            Members::Plain { key, value, .. } => {
                let is_member = Set::of(view, key, value)?.contains(name)?;
                Ok(is_member.then_some(PLAIN_SCORE))
            }
        }
    }

    fn walk(
        &self,
        view: &dyn View,
        visit: &mut dyn FnMut(Member) -> Result<ControlFlow<()>, ViewError>,
    ) -> Result<(), ViewError> {
        match &self.members {
            Members::None => Ok(()),
            Members::Sorted(set) => {
                let mut outcome = Ok(());
                set.walk(view, 0..set.count(), Direction::Forward, &mut |member| {
                    visit(member).unwrap_or_else(|error| {
                        outcome = Err(error);
                        ControlFlow::Break(())
                    })
                })?;
                outcome
            }
            Members::Plain { key, value, .. } => {
                for name in Set::of(view, key, value)?.all()? {
                    if visit(Member { name, score: PLAIN_SCORE })?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    fn weighed(&self, score: f64) -> f64 {
        self.weight * score
    }
}

/// A command's arguments.
struct Query {
    operation: Operation,
    sources: Vec<Source>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Counting stops here; 0: never.
    limit: u64,
}

impl Query {
    fn parse(
        view: &dyn View,
        args: Args<'_>,
        (operation, result): (Operation, Outcome),
        command: &'static str,
    ) -> Result<Query, CommandError> {
        let at = if result == Outcome::Stored { 2 } else { 1 };
        let count = args.int(at)?;
        if count < 1 {
            return Err(CommandError::AtLeastOneKey(command));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let keys = args.from(at + 1).get(..count).ok_or(CommandError::Syntax)?;
        let sources: Result<_, _> = keys.iter().map(|key| Source::read(view, key)).collect();
        let mut query = Query {
            operation,
            sources: sources?,
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: 0,
        };
        query.parse_options(args.options(at + 1 + count), result)?;
        Ok(query)
    }

    fn parse_options(
        &mut self,
        mut options: Options<'_>,
        result: Outcome,
    ) -> Result<(), CommandError> {
        let aggregates = self.operation != Operation::Difference && result != Outcome::Counted;
        while let Some(word) = options.word() {
            match word.as_bytes() {
                b"WEIGHTS" if aggregates && options.left() >= self.sources.len() => {
                    for source in &mut self.sources {
                        let weight = parse_double(options.value()?);
                        source.weight = weight.ok_or(CommandError::WEIGHT_NOT_FLOAT)?;
                    }
                }
                b"AGGREGATE" if aggregates && options.left() > 0 => {
                    self.aggregate = match Word::new(options.value()?).as_bytes() {
                        b"SUM" => Aggregate::Sum,
                        b"MIN" => Aggregate::Min,
                        b"MAX" => Aggregate::Max,
                        _ => return Err(CommandError::Syntax),
                    };
                }
                b"WITHSCORES" if result == Outcome::Answered => self.with_scores = true,
                b"LIMIT" if result == Outcome::Counted && options.left() > 0 => {
                    self.limit = positive(options.value()?, CommandError::LIMIT_NEGATIVE)?;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(())
    }

    /// The result, in order.
    fn members(mut self, view: &dyn View) -> Result<Vec<Member>, CommandError> {
        // Sums of doubles depend on their order: Redis's, from the smallest set to the largest.
        if self.operation != Operation::Difference {
            self.sources.sort_by_key(Source::count);
        }
        let mut members = match self.operation {
            Operation::Union => self.union(view)?,
            Operation::Intersection => self.intersection(view)?,
            Operation::Difference => self.difference(view)?,
        };
        members.sort_by(Member::order);
        Ok(members)
    }

    fn union(&self, view: &dyn View) -> Result<Vec<Member>, ViewError> {
        let mut scores: HashMap<Bytes, f64> = HashMap::new();
        for source in &self.sources {
            source.walk(view, &mut |member| {
                let score = number_or_zero(source.weighed(member.score));
                match scores.entry(member.name) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(score);
                    }
                    Entry::Occupied(mut met) => {
                        let joined = self.aggregate.join(*met.get(), score);
                        met.insert(joined);
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(scores.into_iter().map(|(name, score)| Member { name, score }).collect())
    }

    fn intersection(&self, view: &dyn View) -> Result<Vec<Member>, ViewError> {
        let (smallest, others) = match self.sources.split_first() {
            Some((smallest, others)) if smallest.count() > 0 => (smallest, others),
            _ => return Ok(Vec::new()),
        };
        let mut members = Vec::new();
        smallest.walk(view, &mut |member| {
            let mut score = number_or_zero(smallest.weighed(member.score));
            for other in others {
                let Some(met) = other.score(view, &member.name)? else {
                    return Ok(ControlFlow::Continue(()));
                };
                score = self.aggregate.join(score, other.weighed(met));
            }
            members.push(Member { name: member.name, score });
            let done = self.limit > 0 && members.len() as u64 >= self.limit;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(members)
    }

    fn difference(&self, view: &dyn View) -> Result<Vec<Member>, ViewError> {
        let Some((first, others)) = self.sources.split_first() else { return Ok(Vec::new()) };
        let mut members = Vec::new();
        first.walk(view, &mut |member| {
            for other in others {
                if other.score(view, &member.name)?.is_some() {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            members.push(member);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(members)
    }
}

fn answer(
    view: &dyn View,
    args: Args<'_>,
    operation: Operation,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let query = Query::parse(view, args, (operation, Outcome::Answered), command)?;
    let with_scores = query.with_scores;
    Ok(members_reply(query.members(view)?, with_scores))
}

fn store(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    operation: Operation,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let query = Query::parse(txn, args, (operation, Outcome::Stored), command)?;
    let members = query.members(txn)?;
    Ok(Reply::Integer(replace(txn, args.bytes(1)?, members, command)? as i64))
}

pub(super) fn zunion(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Union, "zunion")
}

pub(super) fn zinter(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Intersection, "zinter")
}

pub(super) fn zdiff(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Operation::Difference, "zdiff")
}

pub(super) fn zunionstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    store(txn, args, Operation::Union, "zunionstore")
}

pub(super) fn zinterstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    store(txn, args, Operation::Intersection, "zinterstore")
}

pub(super) fn zdiffstore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    store(txn, args, Operation::Difference, "zdiffstore")
}

pub(super) fn zintercard(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let form = (Operation::Intersection, Outcome::Counted);
    let query = Query::parse(view, args, form, "zintercard")?;
    Ok(Reply::Integer(query.members(view)?.len() as i64))
}

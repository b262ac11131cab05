//! Whether what clients saw is what one copy of each key would have shown: linearizability.
//!
//! A history is what clients know: when they asked, when they were answered, and what. A write that
//! was never answered may have happened at any time since, or never.
//!
//! Every value is written once, so the order of operations is one of their values: a write, then all
//! reads of it (Gibbons and Korach, Testing Shared Memories, 1997). A value has to come before
//! another if one of its operations ended before one of the other's began. There is an order unless
//! two values have to come before each other. The tests compare this with a search for an order.

use std::collections::BTreeMap;

/// What a client asked of a key, and what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// This value was written.
    Write(u64),
    /// This value was read; `None`: there was none yet.
    Read(Option<u64>),
}

/// One operation on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Operation {
    pub(crate) invoked: u64,
    /// `None` if no answer came.
    pub(crate) returned: Option<u64>,
    pub(crate) what: What,
}

/// What is known of the operations on one value.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// When the first of them ended; none has ended before time began but the write of nothing.
    first_end: i128,
    /// When the last of them began.
    last_begin: i128,
}

/// Whether there is an order of these operations on one key, each at some moment between its begin
/// and its end, in which every read shows the write before it. No value is written twice.
pub(crate) fn is_linearizable(history: &[Operation]) -> bool {
    const NEVER: i128 = i128::MAX;
    let mut groups = BTreeMap::from([(None, Group { first_end: -1, last_begin: -1 })]);
    let mut written = BTreeMap::from([(None, -1)]);
    for operation in history {
        let begin = i128::from(operation.invoked);
        let value = match operation.what {
            What::Write(value) => {
                written.insert(Some(value), begin);
                Some(value)
            }
            What::Read(value) => value,
        };
        let end = operation.returned.map_or(NEVER, i128::from);
        let group = groups.entry(value).or_insert(Group { first_end: end, last_begin: begin });
        group.first_end = group.first_end.min(end);
        group.last_begin = group.last_begin.max(begin);
    }
    // Nobody reads what is not being written yet.
    let is_written = |(value, group): (&Option<u64>, &Group)| {
        written.get(value).is_some_and(|begin| *begin <= group.first_end)
    };
    if !groups.iter().all(is_written) {
        return false;
    }
    let groups: Vec<Group> = groups.into_values().collect();
    let comes_first = |one: &Group, other: &Group| one.first_end < other.last_begin;
    let are_in_order = |at: usize| {
        let one = &groups[at];
        groups[..at].iter().all(|other| !(comes_first(one, other) && comes_first(other, one)))
    };
    (0..groups.len()).all(are_in_order)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn write(value: u64, invoked: u64, returned: u64) -> Operation {
        Operation { invoked, returned: Some(returned), what: What::Write(value) }
    }

    fn lost(value: u64, invoked: u64) -> Operation {
        Operation { invoked, returned: None, what: What::Write(value) }
    }

    fn read(value: u64, invoked: u64, returned: u64) -> Operation {
        Operation { invoked, returned: Some(returned), what: What::Read(Some(value)) }
    }

    fn nothing(invoked: u64, returned: u64) -> Operation {
        Operation { invoked, returned: Some(returned), what: What::Read(None) }
    }

    /// A search of all orders, as an oracle: by Wing and Gong, with Lowe's memory of what was tried.
    fn has_an_order(history: &[Operation]) -> bool {
        let ended = history.iter().enumerate().filter(|(_, it)| it.returned.is_some());
        let to_do = ended.fold(0u32, |set, (at, _)| set | 1 << at);
        let mut tried = HashSet::new();
        let mut stack = vec![(0u32, None)];
        while let Some((done, value)) = stack.pop() {
            if to_do & !done == 0 {
                return true;
            }
            if !tried.insert((done, value)) {
                continue;
            }
            let left = || (0..history.len()).filter(|at| done >> at & 1 == 0);
            let first_end = left().filter_map(|at| history[at].returned).min().unwrap_or(u64::MAX);
            for at in left().filter(|at| history[*at].invoked <= first_end) {
                match history[at].what {
                    What::Write(new) => stack.push((done | 1 << at, Some(new))),
                    What::Read(seen) if seen == value => stack.push((done | 1 << at, value)),
                    What::Read(_) => {}
                }
            }
        }
        false
    }

    #[test]
    fn the_verdict_is_that_of_a_search_for_an_order() {
        let mut verdicts = [0, 0];
        for seed in 0..20_000 {
            let mut random = crate::random::Random::new(seed, "orders");
            let mut history = Vec::new();
            for value in 0..random.between(1, 4) {
                let invoked = random.below(20);
                let returned = random.chance(700).then(|| invoked + random.below(8));
                history.push(Operation { invoked, returned, what: What::Write(value) });
            }
            let values = history.len() as u64;
            for _ in 0..random.below(6) {
                let value = random.below(values + 1);
                let (invoked, took) = (random.below(24), random.below(8));
                let what = What::Read((value < values).then_some(value));
                history.push(Operation { invoked, returned: Some(invoked + took), what });
            }
            let verdict = is_linearizable(&history);
            assert_eq!(verdict, has_an_order(&history), "{history:?}");
            verdicts[usize::from(verdict)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 2_000), "{verdicts:?}");
    }

    #[test]
    fn what_one_copy_could_have_shown_is_linearizable() {
        for history in [
            vec![],
            vec![nothing(0, 1), write(1, 2, 5), read(1, 6, 7)],
            // While it is written, both are right, though not the old one after the new one.
            vec![write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6), read(2, 7, 8)],
            // A write without an answer shows when it likes, or never.
            vec![write(1, 0, 1), lost(2, 2), read(1, 3, 4), read(2, 50, 51), read(2, 60, 61)],
            vec![write(1, 0, 1), lost(2, 2), read(1, 90, 91)],
            // Two at once, in either order.
            vec![write(1, 0, 5), write(2, 0, 5), read(1, 6, 7)],
            vec![write(1, 0, 5), write(2, 0, 5), read(2, 6, 7)],
        ] {
            assert!(is_linearizable(&history), "{history:?}");
        }
    }

    #[test]
    fn what_no_copy_could_have_shown_is_not() {
        for history in [
            // A stale read.
            vec![write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
            // A lost write.
            vec![write(1, 0, 1), nothing(2, 3)],
            // The new value, then the old one.
            vec![write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)],
            vec![write(1, 0, 1), lost(2, 2), read(2, 3, 4), read(1, 5, 6)],
            // Two readers who disagree about two writes.
            vec![write(1, 0, 5), write(2, 0, 5), read(1, 6, 7), read(2, 8, 9)],
            // A value from the future, and one from nowhere.
            vec![read(1, 0, 1), write(1, 2, 3)],
            vec![read(7, 0, 1)],
        ] {
            assert!(!is_linearizable(&history), "{history:?}");
        }
    }

    /// Histories made by one copy pass; changed at one place, most of them do not.
    #[test]
    fn a_changed_answer_is_found() {
        let mut found = 0;
        for seed in 0..200 {
            let mut random = crate::random::Random::new(seed, "history");
            let (mut value, mut history) = (None, Vec::new());
            for step in 0..60u64 {
                let at = step * 10;
                let (invoked, returned) = (at - random.below(at.min(9) + 1), at + random.below(9));
                if random.chance(400) {
                    value = Some(step);
                    history.push(write(step, invoked, returned));
                } else {
                    let what = What::Read(value);
                    history.push(Operation { invoked, returned: Some(returned), what });
                }
            }
            assert!(is_linearizable(&history));
            let reads = |operation: &&mut Operation| matches!(operation.what, What::Read(Some(_)));
            if let Some(last) = history.iter_mut().rev().find(reads)
                && let What::Read(Some(value)) = &mut last.what
            {
                *value = value.saturating_sub(10);
                found += u64::from(!is_linearizable(&history));
            }
        }
        assert!(found > 150, "{found} of 200");
    }
}

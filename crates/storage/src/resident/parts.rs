//! Parts of something in order, each found by where it begins.
//!
//! What a look costs is the memory it has to wait for. So of each separator (where a part begins) eight
//! bytes, those behind what all have in common, lie side by side as numbers: a look reads some of
//! those, and a separator itself only where numbers are alike.
//!
//! ```text
//! separators   (any)   "k4x"   "k73"          common = "k"
//! numbers         –    "4x"    "73"           a key at or above one belongs there or behind
//! parts           A      B       C
//! ```
//!
//! The first part takes all keys below the second separator, whatever its own says.

use std::cmp::Ordering as Order;

use smallvec::SmallVec;

use super::few::{alike, prefix_of};

/// The start of a key, without the table that all keys begin with.
pub(super) type Separator = SmallVec<[u8; 32]>;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Parts<T> {
    /// What all separators but the first begin with.
    common: Separator,
    /// Of each separator the eight bytes behind that.
    numbers: Vec<u64>,
    separators: Vec<Separator>,
    parts: Vec<T>,
}

impl<T> Default for Parts<T> {
    fn default() -> Parts<T> {
        let (numbers, separators, parts) = Default::default();
        Parts { common: Separator::new(), numbers, separators, parts }
    }
}

impl<T> Parts<T> {
    /// One part, which takes all keys.
    pub(super) fn of(part: T) -> Parts<T> {
        let separators = vec![Separator::new()];
        Parts { common: Separator::new(), numbers: vec![0], separators, parts: vec![part] }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Where a key belongs; anything, if there is no part.
    pub(super) fn position(&self, key: &[u8]) -> usize {
        let skip = self.common.len();
        match key[..key.len().min(skip)].cmp(&self.common) {
            Order::Less => return 0,
            Order::Greater => return self.len().saturating_sub(1),
            Order::Equal => {}
        }
        let number = prefix_of(key, skip);
        let rest = self.numbers.get(1..).unwrap_or_default();
        let at = rest.partition_point(|known| *known < number);
        if rest.get(at) != Some(&number) {
            return at;
        }
        let end = at + rest[at..].partition_point(|known| *known == number);
        at + self.separators[at + 1..=end].partition_point(|separator| separator[..] <= *key)
    }

    /// The part where a key belongs, if there is any.
    pub(super) fn part_of(&self, key: &[u8]) -> Option<&T> {
        self.parts.get(self.position(key))
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.parts.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.parts.get_mut(at)
    }

    /// Where the part at a position begins, if there is one.
    pub(super) fn separator(&self, at: usize) -> Option<&Separator> {
        self.separators.get(at)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.parts.iter()
    }

    pub(super) fn into_parts(self) -> Vec<T> {
        self.parts
    }

    /// Puts a part behind the one at a position. It begins above where that one does, and below where
    /// the next one does.
    pub(super) fn insert_behind(&mut self, at: usize, separator: Separator, part: T) {
        if self.len() == 1 {
            self.common = separator.clone();
        } else {
            self.common_to(alike(&self.common, &separator));
        }
        self.numbers.insert(at + 1, prefix_of(&separator, self.common.len()));
        self.separators.insert(at + 1, separator);
        self.parts.insert(at + 1, part);
    }

    /// Takes a part out. What was its own belongs to the one before it, or, of the first, to the next.
    pub(super) fn remove(&mut self, at: usize) -> T {
        let separator = at.max(1).min(self.len() - 1);
        self.numbers.remove(separator);
        self.separators.remove(separator);
        self.parts.remove(at)
    }

    /// Takes out the parts from a position on, which is not the first.
    pub(super) fn split_off(&mut self, at: usize) -> Parts<T> {
        let mut high = Parts {
            common: self.common.clone(),
            numbers: self.numbers.split_off(at),
            separators: self.separators.split_off(at),
            parts: self.parts.split_off(at),
        };
        self.tighten();
        high.tighten();
        high
    }

    /// Looks anew for what all separators begin with, and gives back what room is too much.
    fn tighten(&mut self) {
        if let [_, first, .., last] = &self.separators[..] {
            let alike = alike(first, last);
            self.common = Separator::from_slice(&first[..alike]);
            self.renumber();
        }
    }

    fn common_to(&mut self, bytes: usize) {
        if bytes < self.common.len() {
            self.common.truncate(bytes);
            self.renumber();
        }
    }

    fn renumber(&mut self) {
        let skip = self.common.len();
        self.numbers.clear();
        self.numbers.extend(self.separators.iter().map(|separator| prefix_of(separator, skip)));
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Bytes that often begin alike, with zeros and lengths that tell some apart.
    fn some(random: &mut StdRng) -> Separator {
        let start = [&b"a"[..], b"abcdefgh", b"abcdefgh\0\0\0\0\0\0\0\0", b"b"];
        let mut key = Separator::from_slice(start[random.random_range(0..start.len())]);
        key.extend((0..random.random_range(0..10)).map(|_| random.random_range(0..3) * 127));
        key
    }

    #[test]
    fn a_key_belongs_to_the_last_part_that_begins_at_or_before_it() {
        let mut split = 0;
        for seed in 0..200 {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut parts = Parts::of(Separator::new());
            // Where parts begin; each part is its own beginning.
            let mut model = vec![Separator::new()];
            for _ in 0..300 {
                let key = some(random);
                let at = model[1..].partition_point(|separator| *separator <= key);
                assert_eq!(parts.position(&key), at, "seed {seed}, {key:?} in {model:?}");
                match random.random_range(0..10) {
                    0..6 if model[at] != key => {
                        model.insert(at + 1, key.clone());
                        parts.insert_behind(at, key.clone(), key);
                    }
                    6 | 7 if model.len() > 1 => {
                        model.remove(at.max(1));
                        parts.remove(at);
                    }
                    8 if model.len() > 20 => {
                        let at = random.random_range(1..model.len());
                        split += 1;
                        let high = parts.split_off(at);
                        let high_model = model.split_off(at);
                        assert_eq!(high.separators, high_model);
                        for key in (0..20).map(|_| some(random)) {
                            let at = high_model[1..].partition_point(|begins| *begins <= key);
                            assert_eq!(high.position(&key), at, "seed {seed}");
                        }
                    }
                    _ => {}
                }
                assert_eq!(parts.separators[1..], model[1..], "seed {seed}");
            }
        }
        assert!(split > 100, "parts were divided {split} times");
    }
}

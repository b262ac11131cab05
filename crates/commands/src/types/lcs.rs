//! The longest common subsequence of two strings, as LCS answers it.
//!
//! The usual table of prefix lengths, walked back from its far corner. Where both neighbours are
//! as good, the walk goes left (shorter `b`), since Redis does and its choice shows in the reply.

use bytes::Bytes;

/// Largest table of prefix lengths, in bytes; it bounds the work, too. Redis uses the limit of a
/// bulk, 512 MB: a second of everybody else's time.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// What the strings share.
pub(crate) struct Common {
    /// The subsequence.
    pub(crate) text: Bytes,
    /// The runs it consists of, last first.
    pub(crate) matches: Vec<Match>,
}

/// A run that occurs in both strings.
pub(crate) struct Match {
    /// Where it starts in the first string.
    pub(crate) a: usize,
    /// Where it starts in the second string.
    pub(crate) b: usize,
    /// Its length; never 0.
    pub(crate) length: usize,
}

/// The longest common subsequence; `None` if the table would be too large.
pub(crate) fn find(a: &[u8], b: &[u8]) -> Option<Common> {
    let width = b.len().checked_add(1)?;
    let cells = a.len().checked_add(1)?.checked_mul(width)?;
    if cells.checked_mul(size_of::<u32>())? > TABLE_BYTES_MAX {
        return None;
    }
    let mut table = vec![0u32; cells];
    for (i, byte_a) in a.iter().enumerate() {
        let (above, below) = table[i * width..].split_at_mut(width);
        for (j, byte_b) in b.iter().enumerate() {
            below[j + 1] = if byte_a == byte_b { above[j] + 1 } else { above[j + 1].max(below[j]) };
        }
    }
    Some(walk_back(a, b, &table, width))
}

fn walk_back(a: &[u8], b: &[u8], table: &[u32], width: usize) -> Common {
    let mut text = Vec::with_capacity(table.last().map_or(0, |length| *length as usize));
    let mut matches: Vec<Match> = Vec::new();
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            text.push(a[i - 1]);
            match matches.last_mut() {
                Some(last) if last.a == i && last.b == j => {
                    *last = Match { a: i - 1, b: j - 1, length: last.length + 1 };
                }
                _ => matches.push(Match { a: i - 1, b: j - 1, length: 1 }),
            }
            (i, j) = (i - 1, j - 1);
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    text.reverse();
    Common { text: Bytes::from(text), matches }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn finds_a_common_subsequence_of_the_right_length() {
        let mut random = Random::new(3);
        for _ in 0..500 {
            let a: Vec<u8> = random.bytes(9).iter().map(|b| b % 3).collect();
            let b: Vec<u8> = random.bytes(9).iter().map(|b| b % 3).collect();
            let found = find(&a, &b).expect("small");
            assert_eq!(found.text.len(), by_all_subsets(&a, &b));
            let runs = found.matches.iter().rev();
            let joined: Vec<u8> = runs.flat_map(|m| a[m.a..m.a + m.length].to_vec()).collect();
            assert_eq!(found.text, joined);
            for m in &found.matches {
                assert_eq!(a[m.a..m.a + m.length], b[m.b..m.b + m.length]);
            }
        }
    }

    /// The length of the longest subsequence of `a` that `b` contains, trying every one.
    fn by_all_subsets(a: &[u8], b: &[u8]) -> usize {
        let contained = |mask: u32| {
            let mut rest = b.iter();
            (0..a.len()).filter(|i| mask >> i & 1 == 1).all(|i| rest.any(|byte| *byte == a[i]))
        };
        let masks = (0u32..1 << a.len()).filter(|mask| contained(*mask));
        masks.map(|mask| mask.count_ones() as usize).max().unwrap_or(0)
    }

    #[test]
    fn a_table_too_large_is_refused() {
        assert!(find(&[b'x'; 5000], &[b'y'; 5000]).is_none());
        assert!(find(&[b'x'; 4000], &[b'y'; 4000]).is_some());
    }
}

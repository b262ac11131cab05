//! A range's rows replaced by others, in one run: what a reader or a crash meets is the old rows or
//! the new ones.

use bytes::Bytes;

use super::{Engine, Lsm, LsmError, from_fjall};

/// A row of a run: key and sealed value; `None` to delete.
pub(crate) type RunRow = (Bytes, Option<Bytes>);

impl Lsm {
    /// Replaces the rows within ranges (ascending, `[from, to)`), but for those that `keeps` says are
    /// to be left alone, by `rows` (ascending, sealed), and writes `says`, rows of any keys. Visible all
    /// at once, and durable, when it returns. Returns the number of new rows.
    ///
    /// *Errors*: after one nothing has changed.
    pub(crate) fn replace<E: From<LsmError>>(
        &self,
        ranges: &[(Bytes, Bytes)],
        keeps: &dyn Fn(&[u8]) -> bool,
        rows: impl Iterator<Item = Result<(Bytes, Bytes), E>>,
        says: &[RunRow],
    ) -> Result<u64, E> {
        let mut says = says.to_vec();
        says.sort();
        let mut count = 0;
        let rows = rows.map(|row| {
            row.map(|(key, sealed)| {
                count += 1;
                (key, Some(sealed))
            })
        });
        let old = ranges.iter().flat_map(|(from, to)| self.keys(from, to, keeps));
        let old = old
            .filter(|_| !mutant!(OldRowsStay))
            .map(|key| key.map(|key| (key, None)).map_err(E::from));
        let new = merge(rows, says.into_iter().map(Ok));
        let done = self.ingest_each(merge(new, old));
        if let Err(error) = &done
            && let Some(LsmError::Damaged(what)) = error.as_lsm()
        {
            self.note_damage(what);
        }
        done.map_err(Each::into)?;
        Ok(count)
    }

    /// The keys of a range that are not to be kept.
    fn keys<'a>(
        &'a self,
        from: &'a [u8],
        to: &'a [u8],
        keeps: &'a dyn Fn(&[u8]) -> bool,
    ) -> impl Iterator<Item = Result<Bytes, LsmError>> + 'a {
        let (tables, plain) = match &self.engine {
            Engine::Tables(tables) => ((from < to).then(|| tables.rows.range(from..to)), None),
            Engine::Plain(plain) => (None, (from < to).then(|| plain.now())),
        };
        let within = |key: &Bytes| *from <= **key && **key < *to;
        let plain = plain.map(|rows| rows.keys().filter(|key| within(key)).cloned().collect());
        let plain = plain.into_iter().flat_map(|keys: Vec<Bytes>| keys).map(Ok);
        let keys = tables.into_iter().flatten().map(|row| {
            let (key, _) = row.into_inner().map_err(from_fjall("scan rows to replace"))?;
            Ok(Bytes::from(key))
        });
        keys.chain(plain).filter(move |key| !key.as_ref().is_ok_and(|key| keeps(key)))
    }
}

/// Why a run of fallible rows was not taken in.
pub(super) enum Each<E> {
    Lsm(LsmError),
    Row(E),
}

impl<E> Each<E> {
    fn as_lsm(&self) -> Option<&LsmError> {
        match self {
            Each::Lsm(error) => Some(error),
            Each::Row(_) => None,
        }
    }

    fn into(self) -> E
    where
        E: From<LsmError>,
    {
        match self {
            Each::Lsm(error) => error.into(),
            Each::Row(error) => error,
        }
    }
}

impl<E> From<LsmError> for Each<E> {
    fn from(error: LsmError) -> Each<E> {
        Each::Lsm(error)
    }
}

/// Two ascending runs as one; of equal keys the first one's row.
fn merge<E>(
    first: impl Iterator<Item = Result<RunRow, E>>,
    second: impl Iterator<Item = Result<RunRow, E>>,
) -> impl Iterator<Item = Result<RunRow, E>> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    std::iter::from_fn(move || {
        let order = match (first.peek(), second.peek()) {
            (Some(Ok((first, _))), Some(Ok((second, _)))) => first.cmp(second),
            // An error comes as soon as it is met.
            (Some(Err(_)), _) | (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => first.next(),
            std::cmp::Ordering::Equal => {
                second.next();
                first.next()
            }
            std::cmp::Ordering::Greater => second.next(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_runs_row_counts() {
        let run = |keys: &[u8], value: Option<&'static [u8]>| {
            let row = |key: &u8| (Bytes::copy_from_slice(&[*key]), value.map(Bytes::from_static));
            keys.iter().map(row).map(Ok::<_, LsmError>).collect::<Vec<_>>()
        };
        let merged = merge(run(b"bce", Some(b"new")).into_iter(), run(b"abcd", None).into_iter());
        let merged: Vec<_> = merged.map(|row| row.expect("no error")).collect();
        let says: Vec<_> = merged.iter().map(|(key, value)| (key[0], value.is_some())).collect();
        assert_eq!(says, [(b'a', false), (b'b', true), (b'c', true), (b'd', false), (b'e', true)]);
    }
}

//! What a batch changes, for those who are to be told (`wire::notice`): every write to a key writes
//! its header row, so the header rows name the keys.

use bytes::Bytes;
use commands::Effects;
use commands::rows::{self, RowKind};
use wire::notice::{Change, News};

use crate::batch::{Batch, BatchError, Effect};

/// The keys that effects change in a partition that has so many.
pub(crate) fn note_changes(news: &mut News, effects: &Effects, keys: u64, origin: u64) {
    if effects.flushed_through.is_some() {
        news.flushed = true;
        news.had_keys |= keys > 0;
    }
    for write in &effects.writes {
        if let Some(RowKind::Header { key, .. }) = rows::parse(&write.row) {
            let key = Bytes::copy_from_slice(key);
            news.changes.push(Change { key, origin });
        }
    }
}

/// The keys that another leader's batch changes.
pub(crate) fn changes_of(batch: &Batch) -> Result<News, BatchError> {
    let mut news = News::default();
    batch.for_each(|effect| match effect {
        Effect::Write { row, .. } => {
            if let Some(RowKind::Header { key, .. }) = rows::parse(row) {
                let key = Bytes::copy_from_slice(key);
                news.changes.push(Change { key, origin: 0 });
            }
        }
        Effect::Flush(_) => (news.flushed, news.had_keys) = (true, true),
        Effect::Drop(_) => {}
    })?;
    Ok(news)
}

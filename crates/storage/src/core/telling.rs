//! What is told of evaluations that leave nothing in a batch.

use wire::notice::{News, Notice};

use super::Core;

impl Core {
    /// Tells of what no batch waits for.
    pub(crate) fn tell(&self, notices: Vec<Notice>) {
        if !notices.is_empty() {
            let news = News { notices, ..News::default() };
            self.listener.hear(self.range.table, &news);
        }
    }

    /// Tells of what was made of rows up to a proposed index: once that is applied, with what its batch
    /// has to tell; at once if it is applied already. Should the batch get lost, so does this.
    pub(super) fn tell_after(&mut self, read: u64, mut notices: Vec<Notice>) {
        if notices.is_empty() || read <= self.applied.index {
            return self.tell(notices);
        }
        let news = match &mut self.open {
            Some(open) if open.index == read => &mut open.news,
            _ => {
                let at = self.in_flight.binary_search_by_key(&read, |batch| batch.index);
                &mut self.in_flight[at.expect("what is proposed is open or in flight")].news
            }
        };
        news.notices.append(&mut notices);
    }
}

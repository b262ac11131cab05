//! What is told of evaluations that leave nothing in a batch.

use wire::notice::{News, Notice};
use wire::service::Gate;

use super::Core;

impl Core {
    /// Tells of what no batch waits for.
    pub(crate) fn tell(&self, notices: Vec<Notice>) {
        if !notices.is_empty() {
            let news = News { notices, ..News::default() };
            self.listener.hear(self.range.table, &news);
        }
    }

    /// Tells of what a reply tells that waits for this gate: once its batch is applied, with what that
    /// has to tell; at once if it waits for none. Should the batch get lost, so does this.
    pub(super) fn tell_after(&mut self, gate: Option<Gate>, mut notices: Vec<Notice>) {
        let Some(gate) = gate.filter(|_| !notices.is_empty()) else { return self.tell(notices) };
        let news = match &mut self.open {
            Some(open) if open.index == gate.index => &mut open.news,
            _ => {
                let at = self.in_flight.binary_search_by_key(&gate.index, |batch| batch.index);
                &mut self.in_flight[at.expect("what is proposed is open or in flight")].news
            }
        };
        news.notices.append(&mut notices);
    }
}

//! What commands note of keys, for those who want to be told: Redis's keyspace notifications.
//!
//! Handlers name each event as Redis does, once the change it stands for is made, in Redis's order.
//! What nobody wants is not noted and costs a comparison. `new`, `expired` and `del` need no handler:
//! `types/keyspace.rs` notes them where keys come and go, `keymiss` where a read finds nothing.

use std::cell::RefCell;

use bytes::Bytes;
pub use wire::notice::{Notice, Wanted};

/// What was noted on a view.
#[derive(Clone, Default, Debug)]
pub struct Notes {
    wanted: Wanted,
    notices: RefCell<Vec<Notice>>,
}

impl Notes {
    /// Takes notes of what is wanted.
    pub const fn new(wanted: Wanted) -> Notes {
        Notes { wanted, notices: RefCell::new(Vec::new()) }
    }

    /// What is noted at all.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Notes an event, if it is wanted.
    #[inline]
    pub fn note(&self, class: Wanted, event: &'static str, key: &[u8]) {
        if self.wanted.0 & class.0 != 0 {
            self.add(class, event, key);
        }
    }

    #[cold]
    fn add(&self, class: Wanted, event: &'static str, key: &[u8]) {
        let key = Bytes::copy_from_slice(key);
        self.notices.borrow_mut().push(Notice::Event { class, event, key });
    }

    /// Has a message published, whoever wants events.
    pub fn publish(&self, sharded: bool, channel: &[u8], text: &[u8]) {
        // Copied: slices would keep the buffers they were read into.
        let (channel, text) = (Bytes::copy_from_slice(channel), Bytes::copy_from_slice(text));
        self.notices.borrow_mut().push(Notice::Message { sharded, channel, text });
    }

    /// Adds what was noted elsewhere.
    pub fn extend(&self, notices: Vec<Notice>) {
        if !notices.is_empty() {
            self.notices.borrow_mut().extend(notices);
        }
    }

    /// Takes out what was noted.
    pub fn take(&self) -> Vec<Notice> {
        self.notices.take()
    }
}

//! How values are kept, as far as CONFIG sets it: the nodes of a process share it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use wire::service::ValueShapes;

/// See the module's text.
#[derive(Debug)]
pub struct Shapes {
    stream_node_entries: AtomicU64,
    sparse_bytes_max: AtomicU64,
    checks_payloads: AtomicBool,
    /// What has expired is not deleted before, in ms since the epoch.
    expired_until_ms: AtomicU64,
}

impl Default for Shapes {
    fn default() -> Shapes {
        let default = ValueShapes::default();
        Shapes {
            stream_node_entries: AtomicU64::new(default.stream_node_entries),
            sparse_bytes_max: AtomicU64::new(default.sparse_bytes_max),
            checks_payloads: AtomicBool::new(default.checks_payloads),
            expired_until_ms: AtomicU64::new(0),
        }
    }
}

impl Shapes {
    pub(crate) fn set(&self, shapes: ValueShapes) {
        self.stream_node_entries.store(shapes.stream_node_entries, Relaxed);
        self.sparse_bytes_max.store(shapes.sparse_bytes_max, Relaxed);
        self.checks_payloads.store(shapes.checks_payloads, Relaxed);
    }

    /// Has what has expired stay until then.
    pub(crate) fn keep_expired_until(&self, at_ms: u64) {
        self.expired_until_ms.store(at_ms, Relaxed);
    }

    /// Whether what has expired is to stay.
    pub(crate) fn keeps_expired(&self, now_ms: u64) -> bool {
        now_ms < self.expired_until_ms.load(Relaxed)
    }

    pub(crate) fn get(&self) -> ValueShapes {
        ValueShapes {
            stream_node_entries: self.stream_node_entries.load(Relaxed),
            sparse_bytes_max: self.sparse_bytes_max.load(Relaxed),
            checks_payloads: self.checks_payloads.load(Relaxed),
        }
    }
}

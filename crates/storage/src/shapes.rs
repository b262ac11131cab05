//! How values are kept, as far as CONFIG sets it: the nodes of a process share it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use wire::service::ValueShapes;

/// See the module's text.
#[derive(Debug)]
pub struct Shapes {
    stream_node_entries: AtomicU64,
    sparse_bytes_max: AtomicU64,
}

impl Default for Shapes {
    fn default() -> Shapes {
        let default = ValueShapes::default();
        Shapes {
            stream_node_entries: AtomicU64::new(default.stream_node_entries),
            sparse_bytes_max: AtomicU64::new(default.sparse_bytes_max),
        }
    }
}

impl Shapes {
    pub(crate) fn set(&self, shapes: ValueShapes) {
        self.stream_node_entries.store(shapes.stream_node_entries, Relaxed);
        self.sparse_bytes_max.store(shapes.sparse_bytes_max, Relaxed);
    }

    pub(crate) fn get(&self) -> ValueShapes {
        ValueShapes {
            stream_node_entries: self.stream_node_entries.load(Relaxed),
            sparse_bytes_max: self.sparse_bytes_max.load(Relaxed),
        }
    }
}

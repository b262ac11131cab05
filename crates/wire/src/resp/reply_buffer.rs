//! What a connection has yet to write.
//!
//! A rope: small replies are written into one tail buffer; a value of [`SHARED_BULK_BYTES`] or more
//! is not copied, it becomes a link of its own. The connection writes it through `Buf` with
//! vectored writes (`write_buf`, `write_all_buf`).

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Values of at least so many bytes are sent from where they are instead of being copied. Below
/// it, a copy costs less than one more link in the vectored write.
pub const SHARED_BULK_BYTES: usize = 16 * 1024;

/// Bytes to be written, in order. Read it as [`Buf`].
#[derive(Debug, Default)]
pub struct ReplyBuffer {
    /// Complete links, before the tail.
    links: VecDeque<Bytes>,
    /// Bytes in `links`.
    linked: usize,
    tail: BytesMut,
}

impl ReplyBuffer {
    /// An empty buffer; allocates nothing.
    pub fn new() -> ReplyBuffer {
        ReplyBuffer::default()
    }

    /// Bytes not yet written.
    pub fn len(&self) -> usize {
        self.linked + self.tail.len()
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes by copying them.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
    }

    /// Appends bytes, sharing them if that is cheaper than a copy.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_BULK_BYTES {
            self.tail.put_slice(bytes);
            return;
        }
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.linked += before.len();
            self.links.push_back(before);
        }
        self.linked += bytes.len();
        self.links.push_back(bytes.clone());
    }

    /// Whether all is written, nothing was shared, and it takes at most so many bytes.
    pub fn is_small(&mut self, bytes_max: usize) -> bool {
        // What was written before is taken back for that; the capacity does not tell of it.
        self.is_empty() && self.links.capacity() == 0 && !self.tail.try_reclaim(bytes_max + 1)
    }

    /// The buffer small parts of a reply are written into.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }
}

impl Buf for ReplyBuffer {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.links.front().map_or(&self.tail, |link| link)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let links = self.links.iter().map(|link| &link[..]);
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut used = 0;
        for (slot, part) in dst.iter_mut().zip(links.chain(tail)) {
            *slot = IoSlice::new(part);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "cannot advance past the end of a ReplyBuffer");
        while let Some(link) = self.links.front_mut() {
            if count < link.len() {
                link.advance(count);
                self.linked -= count;
                return;
            }
            count -= link.len();
            self.linked -= link.len();
            self.links.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_are_shared_and_order_is_kept() {
        let large = Bytes::from(vec![b'x'; SHARED_BULK_BYTES]);
        let mut out = ReplyBuffer::new();
        out.put_slice(b"head");
        out.put_shared(&large);
        out.put_shared(&Bytes::from_static(b"small"));
        assert_eq!(out.len(), 4 + SHARED_BULK_BYTES + 5);

        let mut slices = [IoSlice::new(b""); 8];
        assert_eq!(out.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr(), "shared, not copied");

        out.advance(2);
        assert_eq!(out.chunk(), b"ad");
        out.advance(3);
        assert_eq!(out.remaining(), SHARED_BULK_BYTES + 4);
        out.advance(SHARED_BULK_BYTES);
        assert_eq!(out.chunk(), b"mall");
        out.advance(4);
        assert!(out.is_empty());
        assert_eq!(out.chunks_vectored(&mut [IoSlice::new(b"")]), 0);
    }

    #[test]
    fn a_buffer_is_small_by_all_that_it_takes() {
        let mut out = ReplyBuffer::new();
        assert!(out.is_small(0));
        out.put_slice(&[0; 10_000]);
        assert!(!out.is_small(100_000), "not all is written");
        for step in [9_000, 990, 10] {
            out.advance(step);
        }
        assert!(!out.is_small(9_999));
        assert!(out.is_small(20_000));
        out.put_shared(&Bytes::from(vec![b'x'; SHARED_BULK_BYTES]));
        out.advance(SHARED_BULK_BYTES);
        assert!(!out.is_small(usize::MAX - 1), "links are kept");
    }
}

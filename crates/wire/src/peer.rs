//! What nodes say to each other: frames, and the two traits that carry them.
//!
//! ```text
//! frame = magic:u16 (0x4576) version:u8 (1) kind:u8 from:u32 to:u32 partition:u64 length:u32
//!         body_crc32c:u32 head_crc32c:u32 body
//! ```
//!
//! Numbers are big-endian. The head's checksum covers all before it, the body's the body. Between
//! machines a frame travels in this form; in one process it is handed over as it is, its body
//! shared. Frames may be lost, repeated and reordered, and whoever receives one must not mind.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, RwLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{NodeId, PartitionId};

/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 32;
/// Bytes of a frame's body at most.
pub const BODY_BYTES_MAX: usize = 256 << 20;

const MAGIC: u16 = 0x4576;
const FORMAT_VERSION: u8 = 1;

/// What a frame's body is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// A consensus message of the partition's group.
    Paxos = 1,
    /// A batch of lookups for a MemDS node.
    MemdsLookup = 2,
    /// The answer to one.
    MemdsAnswer = 3,
    /// A route made known to a MemDS node.
    MemdsPush = 4,
    /// A MemDS node compares its map with another's.
    MemdsSync = 5,
    /// The answer to that.
    MemdsSyncAnswer = 6,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<FrameKind> {
        Some(match number {
            1 => FrameKind::Paxos,
            2 => FrameKind::MemdsLookup,
            3 => FrameKind::MemdsAnswer,
            4 => FrameKind::MemdsPush,
            5 => FrameKind::MemdsSync,
            6 => FrameKind::MemdsSyncAnswer,
            _ => return None,
        })
    }
}

/// A frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// Who sent it.
    pub from: NodeId,
    /// Who shall get it.
    pub to: NodeId,
    /// Which partition it is about; 0 if none.
    pub partition: PartitionId,
    /// The content; its format belongs to the kind.
    pub body: Bytes,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The head is not one of ours, or of a format this build does not know.
    #[error("not a frame of this format")]
    Format,
    /// A checksum does not fit: the connection cannot be trusted any further.
    #[error("frame checksum mismatch")]
    Checksum,
    /// The body is longer than [`BODY_BYTES_MAX`].
    #[error("frame too long")]
    TooLong,
}

impl Frame {
    /// A frame of these parts.
    pub fn new(
        kind: FrameKind,
        from: NodeId,
        to: NodeId,
        partition: PartitionId,
        body: Bytes,
    ) -> Frame {
        Frame { kind, from, to, partition, body }
    }

    /// The head in the form it travels in; the body follows it as it is.
    pub fn encode_head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let mut out = &mut head[..];
        out.put_u16(MAGIC);
        out.put_u8(FORMAT_VERSION);
        out.put_u8(self.kind as u8);
        out.put_u32(self.from.0);
        out.put_u32(self.to.0);
        out.put_u64(self.partition.0);
        out.put_u32(u32::try_from(self.body.len()).expect("bodies are bounded far below 4 GiB"));
        out.put_u32(crc32c::crc32c(&self.body));
        let checksum = crc32c::crc32c(&head[..HEAD_BYTES - 4]);
        head[HEAD_BYTES - 4..].copy_from_slice(&checksum.to_be_bytes());
        head
    }

    /// Takes a frame from the front of a buffer; `None` until all of it has arrived.
    ///
    /// *Errors*: see [`FrameError`]. The connection must be closed then.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        if crc32c::crc32c(&head[..HEAD_BYTES - 4]).to_be_bytes() != head[HEAD_BYTES - 4..] {
            return Err(FrameError::Checksum);
        }
        let mut rest = &head[..];
        if rest.get_u16() != MAGIC || rest.get_u8() != FORMAT_VERSION {
            return Err(FrameError::Format);
        }
        let kind = FrameKind::from_number(rest.get_u8()).ok_or(FrameError::Format)?;
        let (from, to) = (NodeId(rest.get_u32()), NodeId(rest.get_u32()));
        let partition = PartitionId(rest.get_u64());
        let length = rest.get_u32() as usize;
        let body_checksum = rest.get_u32();
        if length > BODY_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        if buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        buffer.advance(HEAD_BYTES);
        let body = buffer.split_to(length).freeze();
        if crc32c::crc32c(&body) != body_checksum {
            return Err(FrameError::Checksum);
        }
        Ok(Some(Frame { kind, from, to, partition, body }))
    }
}

/// Carries frames to where they are addressed.
pub trait Transport: Send + Sync {
    /// Sends a frame. Never blocks; a frame that cannot be delivered is dropped.
    fn send(&self, frame: Frame);
}

/// Takes frames in.
pub trait FrameHandler: Send + Sync {
    /// Handles a frame, on the thread that brings it.
    fn handle(&self, frame: Frame);
}

/// The transport inside one process: a frame is handled on its sender's thread.
///
/// A frame sent while another is being handled on the same thread waits until that is done, so
/// that an exchange of messages never nests, whatever its length.
#[derive(Default)]
pub struct LocalTransport {
    handlers: RwLock<HashMap<NodeId, Arc<dyn FrameHandler>>>,
}

type Delivery = (Arc<dyn FrameHandler>, Frame);

thread_local! {
    /// Frames to handle once the one under way is done; `None` when none is under way.
    static WAITING: RefCell<Option<VecDeque<Delivery>>> = const { RefCell::new(None) };
}

/// Ends the exchange under way on this thread, also when a handler panics.
struct EndOfExchange;

impl Drop for EndOfExchange {
    fn drop(&mut self) {
        WAITING.set(None);
    }
}

impl LocalTransport {
    /// Frames for this node go to this handler from now on.
    pub fn connect(&self, node: NodeId, handler: Arc<dyn FrameHandler>) {
        self.write().insert(node, handler);
    }

    /// Frames for this node are dropped from now on.
    pub fn disconnect(&self, node: NodeId) {
        self.write().remove(&node);
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<NodeId, Arc<dyn FrameHandler>>> {
        self.handlers.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Transport for LocalTransport {
    fn send(&self, frame: Frame) {
        let handlers = self.handlers.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(handler) = handlers.get(&frame.to).cloned() else { return };
        drop(handlers);
        let mut next = WAITING.with_borrow_mut(|waiting| match waiting {
            Some(waiting) => {
                waiting.push_back((handler, frame));
                None
            }
            None => {
                *waiting = Some(VecDeque::new());
                Some((handler, frame))
            }
        });
        let _outermost = next.is_some().then(|| EndOfExchange);
        while let Some((handler, frame)) = next {
            handler.handle(frame);
            next = WAITING.with_borrow_mut(|waiting| waiting.as_mut()?.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn sample() -> Frame {
        let body = Bytes::from_static(b"promise");
        Frame::new(FrameKind::Paxos, NodeId(1), NodeId(2), PartitionId(3), body)
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::from(&frame.encode_head()[..]);
        bytes.extend_from_slice(&frame.body);
        bytes
    }

    #[test]
    fn frames_round_trip_in_pieces() {
        let frame = sample();
        let mut stream = encoded(&frame);
        stream.extend_from_slice(&encoded(&frame));
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for byte in stream {
            arrived.put_u8(byte);
            frames.extend(Frame::decode(&mut arrived).expect("sound bytes"));
        }
        assert_eq!(frames, [frame.clone(), frame]);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        for at in 0..encoded(&sample()).len() {
            let mut bytes = encoded(&sample());
            bytes[at] ^= 1;
            assert!(Frame::decode(&mut bytes).is_err(), "flip at {at}");
        }
    }

    /// Answers each frame with a shorter one to the other node, and notes how deep it nests.
    struct Echo {
        transport: Arc<LocalTransport>,
        depth: Mutex<(usize, usize)>,
    }

    impl FrameHandler for Echo {
        fn handle(&self, frame: Frame) {
            let count = |change: fn(usize) -> usize| {
                let mut depth = self.depth.lock().expect("not poisoned");
                depth.0 = change(depth.0);
                depth.1 = depth.1.max(depth.0);
            };
            count(|depth| depth + 1);
            if !frame.body.is_empty() {
                let body = frame.body.slice(1..);
                let (from, to) = (frame.to, frame.from);
                self.transport.send(Frame { from, to, body, ..frame });
            }
            count(|depth| depth - 1);
        }
    }

    #[test]
    fn a_long_exchange_does_not_nest() {
        let transport = Arc::new(LocalTransport::default());
        let echo = Arc::new(Echo { transport: Arc::clone(&transport), depth: Mutex::default() });
        transport.connect(NodeId(1), echo.clone());
        transport.connect(NodeId(2), echo.clone());
        let body = Bytes::from(vec![0; 10_000]);
        transport.send(Frame { body, ..sample() });
        assert_eq!(*echo.depth.lock().expect("not poisoned"), (0, 1));
        transport.disconnect(NodeId(2));
        transport.send(sample());
        assert_eq!(*echo.depth.lock().expect("not poisoned"), (0, 1));
    }
}

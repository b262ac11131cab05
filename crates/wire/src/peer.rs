//! Frames between nodes, and what carries them.
//!
//! ```text
//! frame  = header body                     ; integers little-endian
//! header = magic    "EKP1"                 ; 4: protocol and its version
//!          kind     u32                    ; 4: what the body is; see Kind
//!          from     u32                    ; 4: node
//!          to       u32                    ; 4: node
//!          group    u64                    ; 8: partition, or 0 if the kind concerns none
//!          length   u32                    ; 4: bytes of body
//!          body_crc u32                    ; 4: CRC-32C of body
//!          head_crc u32                    ; 4: CRC-32C of the 32 bytes before
//! ```
//!
//! A frame is what a peer may be told, whoever the peer is: nodes of one process exchange the same
//! frames as nodes of three zones. A body is never copied: the sender's bytes are the receiver's
//! in one process, and a slice of the read buffer behind a socket.
//!
//! A [`Transport`] promises little: frames may be lost, and those from different nodes may overtake
//! each other. Everything above must live with that.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, RwLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ids::{NodeId, PartitionId};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 36;

/// The longest body. Larger things (snapshots) travel in parts.
pub const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"EKP1";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame's body is. Numbers are part of the protocol: never reused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            fn from_number(number: u32) -> Option<Kind> {
                match number {
                    $($number => Some(Kind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A Paxos message of the group in the header; opaque here.
    Paxos = 1,
    /// Node-level liveness; opaque here.
    Heartbeat = 2,
    /// Between storage nodes, of replicas: taking in, letting go, snapshots; opaque here.
    Replica = 3,
    /// A batch of route lookups, router to MemDS.
    MemdsLookup = 16,
    /// The routes that were looked up, MemDS to router.
    MemdsAnswer = 17,
    /// Routes a storage node announces to MemDS.
    MemdsPush = 18,
    /// Hashes of parts of a partition map, to learn what differs.
    MemdsSyncAsk = 19,
    /// The parts of a partition map that differ.
    MemdsSyncTell = 20,
}

/// One message from a node to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// Who sends it.
    pub from: NodeId,
    /// Who is to get it.
    pub to: NodeId,
    /// The group it concerns; `PartitionId(0)` if none.
    pub group: PartitionId,
    body: Bytes,
    /// Kept beside the body, so that a broadcast computes it once.
    body_crc: u32,
}

/// What arrived is no frame; the connection it came by cannot be used any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol, or another version of it.
    #[error("peer frame: not an EKP1 header")]
    Magic,
    /// The header was damaged.
    #[error("peer frame: header checksum differs")]
    HeaderChecksum,
    /// The body was damaged.
    #[error("peer frame: body checksum differs")]
    BodyChecksum,
    /// A kind this version does not know.
    #[error("peer frame: unknown kind {0}")]
    Kind(u32),
    /// A body that is too long, or shorter or longer than the header says.
    #[error("peer frame: body of {0} bytes")]
    Length(usize),
}

impl Frame {
    /// A frame that concerns no group.
    ///
    /// *Panics* if the body is longer than [`BODY_BYTES_MAX`].
    pub fn new(kind: Kind, from: NodeId, to: NodeId, body: Bytes) -> Frame {
        assert!(body.len() <= BODY_BYTES_MAX, "a peer frame of {} bytes", body.len());
        let body_crc = crc32c::crc32c(&body);
        Frame { kind, from, to, group: PartitionId(0), body, body_crc }
    }

    /// The same frame, for a group.
    pub fn for_group(self, group: PartitionId) -> Frame {
        Frame { group, ..self }
    }

    /// The same frame, to another node. Shares the body and its checksum.
    pub fn to_node(&self, to: NodeId) -> Frame {
        Frame { to, ..self.clone() }
    }

    /// The body; shared, not copied.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The frame's header. Written before [`Frame::body`], it makes the frame.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_slice(&MAGIC);
        out.put_u32_le(self.kind as u32);
        out.put_u32_le(self.from.0);
        out.put_u32_le(self.to.0);
        out.put_u64_le(self.group.0);
        out.put_u32_le(u32::try_from(self.body.len()).expect("bounded by BODY_BYTES_MAX"));
        out.put_u32_le(self.body_crc);
        let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// The frame with this header and body, if both are whole and belong together.
    ///
    /// *Errors*: any [`FrameError`].
    pub fn from_parts(header: &[u8; HEADER_BYTES], body: Bytes) -> Result<Frame, FrameError> {
        let head = Header::parse(header)?;
        if body.len() != head.length {
            return Err(FrameError::Length(body.len()));
        }
        head.with_body(body)
    }

    /// Takes the next frame out of `buffer`; `None` if more bytes are needed. The body is a slice
    /// of the buffer. Allocates nothing for bytes that were declared and not received.
    ///
    /// *Errors*: any [`FrameError`]; the stream is then out of step.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let head = Header::parse(header)?;
        if rest.len() < head.length {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let body = buffer.split_to(head.length).freeze();
        head.with_body(body).map(Some)
    }
}

/// A header whose own checksum was right.
struct Header {
    kind: Kind,
    from: NodeId,
    to: NodeId,
    group: PartitionId,
    length: usize,
    body_crc: u32,
}

impl Header {
    fn parse(header: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let (covered, crc) = header.split_at(HEADER_BYTES - 4);
        let mut fields = covered.strip_prefix(&MAGIC).ok_or(FrameError::Magic)?;
        if crc32c::crc32c(covered).to_le_bytes() != crc {
            return Err(FrameError::HeaderChecksum);
        }
        let kind = fields.get_u32_le();
        let kind = Kind::from_number(kind).ok_or(FrameError::Kind(kind))?;
        let (from, to) = (NodeId(fields.get_u32_le()), NodeId(fields.get_u32_le()));
        let group = PartitionId(fields.get_u64_le());
        let length = fields.get_u32_le() as usize;
        if length > BODY_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        Ok(Header { kind, from, to, group, length, body_crc: fields.get_u32_le() })
    }

    fn with_body(self, body: Bytes) -> Result<Frame, FrameError> {
        if crc32c::crc32c(&body) != self.body_crc {
            return Err(FrameError::BodyChecksum);
        }
        let Header { kind, from, to, group, body_crc, .. } = self;
        Ok(Frame { kind, from, to, group, body, body_crc })
    }
}

/// Carries frames to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `frame` to `to`. Never blocks; may drop the frame (an unreachable node, a full queue).
    ///
    /// The far side's handler may run inside this call: hold no lock that a handler takes.
    fn send(&self, to: NodeId, frame: Frame);
}

/// Receives the frames of one node.
pub trait FrameHandler: Send + Sync + 'static {
    /// Takes one frame. Called by whatever thread the frame arrived on, several at once: short, and
    /// never waiting.
    fn handle(&self, from: NodeId, frame: Frame);
}

/// Hands each frame of a node to the role its kind belongs to. Frames of a kind nobody took are
/// dropped, as if they had been lost.
#[derive(Default)]
pub struct Dispatch {
    roles: [OnceLock<Arc<dyn FrameHandler>>; Kind::ALL.len()],
}

impl Dispatch {
    /// A dispatch without roles.
    pub fn new() -> Dispatch {
        Dispatch::default()
    }

    /// Gives the frames of `kinds` to `handler`. False if one of them has a handler already.
    pub fn assign(&self, kinds: &[Kind], handler: &Arc<dyn FrameHandler>) -> bool {
        kinds.iter().all(|kind| self.roles[position(*kind)].set(Arc::clone(handler)).is_ok())
    }
}

impl FrameHandler for Dispatch {
    fn handle(&self, from: NodeId, frame: Frame) {
        if let Some(handler) = self.roles[position(frame.kind)].get() {
            handler.handle(from, frame);
        }
    }
}

fn position(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).expect("ALL holds every kind")
}

/// Joins the nodes of one process. A frame is checked as one from a socket would be, and its body
/// is shared; the receiver's handler runs inside [`Transport::send`].
#[derive(Default)]
pub struct LocalTransport {
    nodes: RwLock<HashMap<NodeId, Node>>,
}

struct Node {
    handler: Arc<dyn FrameHandler>,
    connected: bool,
}

impl LocalTransport {
    /// A transport that reaches no node yet.
    pub fn new() -> LocalTransport {
        LocalTransport::default()
    }

    /// Makes `handler` the receiver of a node's frames and connects the node.
    pub fn register(&self, node: NodeId, handler: Arc<dyn FrameHandler>) {
        self.write().insert(node, Node { handler, connected: true });
    }

    /// Lets frames to and from a registered node pass again.
    pub fn connect(&self, node: NodeId) {
        self.set_connected(node, true);
    }

    /// Drops all frames to and from a node from now on.
    pub fn disconnect(&self, node: NodeId) {
        self.set_connected(node, false);
    }

    fn set_connected(&self, node: NodeId, connected: bool) {
        if let Some(entry) = self.write().get_mut(&node) {
            entry.connected = connected;
        }
    }

    /// The handler of `to`, unless the way from `from` is cut. A sender need not be registered.
    fn receiver(&self, from: NodeId, to: NodeId) -> Option<Arc<dyn FrameHandler>> {
        let nodes = self.nodes.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let sender_connected = nodes.get(&from).is_none_or(|node| node.connected);
        let receiver = nodes.get(&to).filter(|node| node.connected && sender_connected)?;
        Some(Arc::clone(&receiver.handler))
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<NodeId, Node>> {
        // A panic elsewhere cannot have left the map half-changed.
        self.nodes.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

thread_local! {
    /// Frames to handle once the one under way is done; `None` when none is under way.
    static WAITING: RefCell<Option<VecDeque<Delivery>>> = const { RefCell::new(None) };
}

/// A frame and who takes it.
type Delivery = (Arc<dyn FrameHandler>, Frame);

/// Ends the exchange under way on this thread, also when a handler panics.
struct EndOfExchange;

impl Drop for EndOfExchange {
    fn drop(&mut self) {
        WAITING.set(None);
    }
}

impl Transport for LocalTransport {
    /// A frame sent while another is being handled on the same thread waits until that is done: an
    /// exchange of messages never nests, however long it is.
    fn send(&self, to: NodeId, frame: Frame) {
        let frame = if frame.to == to { frame } else { frame.to_node(to) };
        let Some(handler) = self.receiver(frame.from, to) else { return };
        // What a socket would do, so that nothing comes to rely on one process.
        let Ok(frame) = Frame::from_parts(&frame.header(), frame.body) else { return };
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
            handler.handle(frame.from, frame);
            next = WAITING.with_borrow_mut(|waiting| waiting.as_mut()?.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn frame() -> Frame {
        let body = Bytes::from_static(b"a body of some bytes");
        Frame::new(Kind::Paxos, NodeId(1), NodeId(2), body).for_group(PartitionId(77))
    }

    fn bytes(frame: &Frame) -> BytesMut {
        let mut bytes = BytesMut::from(&frame.header()[..]);
        bytes.extend_from_slice(frame.body());
        bytes
    }

    #[test]
    fn frames_round_trip_in_any_pieces() {
        let empty = Frame::new(Kind::MemdsPush, NodeId(u32::MAX), NodeId(0), Bytes::new());
        let mut stream = bytes(&frame());
        stream.extend_from_slice(&bytes(&empty));
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in stream {
            buffer.put_u8(byte);
            while let Some(frame) = Frame::decode(&mut buffer).expect("valid") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [frame(), empty]);
    }

    #[test]
    fn bodies_are_shared() {
        let mut buffer = bytes(&frame());
        let body = buffer[HEADER_BYTES..].as_ptr();
        let decoded = Frame::decode(&mut buffer).expect("valid").expect("complete");
        assert_eq!(decoded.body().as_ptr(), body);
        assert_eq!(frame().to_node(NodeId(3)).body().as_ptr(), frame().body().as_ptr());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = bytes(&frame());
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&mut damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn unknown_kinds_and_long_bodies_are_refused() {
        let with = |at: usize, value: u32| {
            let mut header = frame().header();
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
            header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            Frame::decode(&mut BytesMut::from(&header[..]))
        };
        assert_eq!(with(4, 999), Err(FrameError::Kind(999)));
        assert_eq!(with(24, u32::MAX), Err(FrameError::Length(u32::MAX as usize)));
        let short = Frame::from_parts(&frame().header(), Bytes::from_static(b"a"));
        assert_eq!(short, Err(FrameError::Length(1)));
    }

    #[derive(Default)]
    struct Inbox(Mutex<Vec<Frame>>);

    impl FrameHandler for Inbox {
        fn handle(&self, from: NodeId, frame: Frame) {
            assert_eq!(from, frame.from);
            self.0.lock().expect("no panic inside").push(frame);
        }
    }

    #[test]
    fn a_disconnected_node_neither_hears_nor_is_heard() {
        let transport = LocalTransport::new();
        let inbox = Arc::new(Inbox::default());
        transport.register(NodeId(1), Arc::new(Inbox::default()));
        transport.register(NodeId(2), inbox.clone());
        let received = || inbox.0.lock().expect("no panic inside").len();
        transport.send(NodeId(2), frame());
        assert_eq!(received(), 1);
        for node in [NodeId(1), NodeId(2)] {
            transport.disconnect(node);
            transport.send(NodeId(2), frame());
            transport.connect(node);
        }
        assert_eq!(received(), 1);
        transport.send(NodeId(2), frame());
        transport.send(NodeId(9), frame());
        assert_eq!(received(), 2);
    }

    #[test]
    fn kinds_go_to_their_roles() {
        let dispatch = Dispatch::new();
        let inbox = Arc::new(Inbox::default());
        let handler: Arc<dyn FrameHandler> = inbox.clone();
        assert!(dispatch.assign(&[Kind::Paxos, Kind::Heartbeat], &handler));
        assert!(!dispatch.assign(&[Kind::Paxos], &handler));
        dispatch.handle(NodeId(1), frame());
        let push = Frame::new(Kind::MemdsPush, NodeId(1), NodeId(2), Bytes::new());
        dispatch.handle(NodeId(1), push);
        assert_eq!(inbox.0.lock().expect("no panic inside").len(), 1);
    }

    /// Answers each frame with a shorter one, and notes how deep it nests.
    struct Echo {
        transport: Arc<LocalTransport>,
        depth: Mutex<(usize, usize)>,
    }

    impl FrameHandler for Echo {
        fn handle(&self, from: NodeId, frame: Frame) {
            let count = |change: fn(usize) -> usize| {
                let mut depth = self.depth.lock().expect("not poisoned");
                depth.0 = change(depth.0);
                depth.1 = depth.1.max(depth.0);
            };
            count(|depth| depth + 1);
            if !frame.body().is_empty() {
                let answer = Frame::new(Kind::Paxos, frame.to, from, frame.body().slice(1..));
                self.transport.send(from, answer);
            }
            count(|depth| depth - 1);
        }
    }

    #[test]
    fn a_long_exchange_does_not_nest() {
        let transport = Arc::new(LocalTransport::new());
        let echo = Arc::new(Echo { transport: transport.clone(), depth: Mutex::default() });
        transport.register(NodeId(1), echo.clone());
        transport.register(NodeId(2), echo.clone());
        let body = Bytes::from(vec![0; 10_000]);
        transport.send(NodeId(2), Frame::new(Kind::Paxos, NodeId(1), NodeId(2), body));
        assert_eq!(*echo.depth.lock().expect("not poisoned"), (0, 1));
    }
}

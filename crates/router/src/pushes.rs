//! What is sent to a connection without its asking: published messages, invalidations, lines of MONITOR.
//!
//! ```text
//! publisher ──encodes once──▶ queue of each receiver ──wakes──▶ its task: output, socket
//! ```
//!
//! Whoever causes a push never waits for a receiver: it adds to a queue and goes on. Only the
//! connection's own task writes to its socket, so pushes stand between replies, never inside one. What
//! was queued before the task takes up a command leaves before that command's reply; what a command
//! pushes to its own connection leaves after its reply, as in Redis since 7.2.
//!
//! Most connections are never pushed anything and have no queue. Most of those that have one leave
//! their client's limits far away; a receiver that does not read is closed at the limit of its class
//! (`client-output-buffer-limit`), as what it has not read lies here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use wire::resp::ReplyBuffer;

use crate::config::{Live, OutputClass};
use crate::tracking::Tracker;

/// Bytes of pushes that a connection may leave unread that subscribes to nothing: invalidations and lines of
/// MONITOR. `client-output-buffer-limit` may make it less; what it allows for `normal` connections has to
/// be enough for the longest reply.
const UNSUBSCRIBED_BYTES_MAX: usize = 64 << 20;
/// What a queued push is counted with besides its bytes.
const OVERHEAD_BYTES: usize = size_of::<Push>();

/// Something to be sent.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    /// A published message: an array in RESP2, a push in RESP3. Its bytes behind the type byte.
    Message(Bytes),
    /// The same of anything else than a message.
    Notice(Bytes),
    /// Bytes to be sent as they are.
    Line(Bytes),
}

impl Push {
    fn bytes(&self) -> usize {
        let (Push::Message(bytes) | Push::Notice(bytes) | Push::Line(bytes)) = self;
        bytes.len() + OVERHEAD_BYTES
    }

    fn write(&self, protocol: u8, out: &mut ReplyBuffer) {
        match self {
            // Queued before the protocol was changed: among replies of RESP2 it would be taken for one.
            Push::Notice(_) if protocol != 3 => {}
            Push::Message(bytes) | Push::Notice(bytes) => {
                out.put_slice(if protocol == 3 { b">" } else { b"*" });
                out.put_shared(bytes);
            }
            Push::Line(bytes) => out.put_shared(bytes),
        }
    }
}

/// An array of bulks, without its type byte.
pub(crate) fn bulks(parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len() + 16).sum::<usize>();
    let mut out = BytesMut::with_capacity(length + 8);
    put_number(parts.len(), &mut out);
    parts.iter().for_each(|part| put_bulk(part, &mut out));
    out.freeze()
}

/// A bulk.
pub(crate) fn put_bulk(text: &[u8], out: &mut BytesMut) {
    out.put_u8(b'$');
    put_number(text.len(), out);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

/// A number and the end of its line.
pub(crate) fn put_number(number: usize, out: &mut BytesMut) {
    // Twenty digits are enough for 64 bits.
    let mut digits = [0u8; 20];
    let (mut at, mut left) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// The queue of one connection, and what CLIENT LIST tells of those who push to it.
#[derive(Debug)]
pub(crate) struct Pushes {
    queue: Mutex<Queue>,
    /// Whether something waits: read by the connection without the lock.
    waiting: AtomicBool,
    live: Arc<Live>,
    pub(crate) channels: AtomicU32,
    pub(crate) patterns: AtomicU32,
    pub(crate) shard_channels: AtomicU32,
    pub(crate) monitors: AtomicBool,
    /// How the connection is told of keys that change, if it is.
    tracker: Mutex<Option<Arc<Tracker>>>,
}

#[derive(Debug, Default)]
struct Queue {
    pushes: VecDeque<Push>,
    bytes: usize,
    /// Since when more waits than the soft limit allows.
    over_since: Option<Instant>,
}

/// What adding a push calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Added {
    /// The connection must be woken.
    First,
    /// It was called before.
    Behind,
    /// The connection leaves too much unread: it must be closed.
    TooMuch,
}

impl Pushes {
    pub(crate) fn new(live: Arc<Live>) -> Pushes {
        Pushes {
            queue: Mutex::default(),
            waiting: AtomicBool::new(false),
            live,
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            monitors: AtomicBool::new(false),
            tracker: Mutex::default(),
        }
    }

    /// How the connection is told of keys that change, if it is.
    pub(crate) fn tracker(&self) -> Option<Arc<Tracker>> {
        self.tracker.lock().clone()
    }

    pub(crate) fn set_tracker(&self, tracker: Option<Arc<Tracker>>) {
        *self.tracker.lock() = tracker;
    }

    /// Whether the connection subscribes to anything.
    pub(crate) fn subscribes(&self) -> bool {
        self.subscriptions() > 0
    }

    fn subscriptions(&self) -> u32 {
        let counts = [&self.channels, &self.patterns, &self.shard_channels];
        counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The class of output limits that the connection is of.
    pub(crate) fn class(&self) -> OutputClass {
        if self.subscribes() { OutputClass::PubSub } else { OutputClass::Normal }
    }

    /// Adds a push; `unsent` bytes wait in the connection's output.
    pub(crate) fn add(&self, push: Push, unsent: usize) -> Added {
        let mut queue = self.queue.lock();
        let first = queue.pushes.is_empty();
        queue.bytes += push.bytes();
        queue.pushes.push_back(push);
        self.waiting.store(true, Release);
        match (self.is_too_much(&mut queue, unsent), first) {
            (true, _) => Added::TooMuch,
            (false, true) => Added::First,
            (false, false) => Added::Behind,
        }
    }

    /// Whether the connection has left too much unread, looked at without a new push.
    pub(crate) fn is_overdue(&self, unsent: usize) -> bool {
        self.is_too_much(&mut self.queue.lock(), unsent)
    }

    fn is_too_much(&self, queue: &mut Queue, unsent: usize) -> bool {
        let limits = self.live.output(self.class());
        let waiting = queue.bytes + unsent;
        if self.class() == OutputClass::Normal && queue.bytes > UNSUBSCRIBED_BYTES_MAX {
            return true;
        }
        if limits.hard_bytes > 0 && waiting > limits.hard_bytes {
            return true;
        }
        if limits.soft_bytes == 0 || waiting <= limits.soft_bytes {
            queue.over_since = None;
            return false;
        }
        let since = *queue.over_since.get_or_insert_with(Instant::now);
        since.elapsed() > Duration::from_secs(limits.soft_s)
    }

    /// Pushes that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.pushes.len(), queue.bytes)
    }

    /// Whether something waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Acquire)
    }

    /// Writes all that waits.
    pub(crate) fn take(&self, protocol: u8, out: &mut ReplyBuffer) {
        let pushes = {
            let mut queue = self.queue.lock();
            self.waiting.store(false, Relaxed);
            queue.bytes = 0;
            std::mem::take(&mut queue.pushes)
        };
        pushes.iter().for_each(|push| push.write(protocol, out));
    }

    /// Writes the messages that wait, ahead of whatever else does: a subscription is about to end, and
    /// they must not come after its end is told.
    pub(crate) fn take_messages(&self, protocol: u8, out: &mut ReplyBuffer) {
        let mut queue = self.queue.lock();
        queue.pushes.retain(|push| {
            let is_message = matches!(push, Push::Message(_));
            if is_message {
                push.write(protocol, out);
            }
            !is_message
        });
        queue.bytes = queue.pushes.iter().map(Push::bytes).sum();
        self.waiting.store(!queue.pushes.is_empty(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;
    use crate::config::Config;

    fn pushes(limits: &str) -> Pushes {
        let setting = ("client-output-buffer-limit".to_owned(), limits.to_owned());
        Pushes::new(Config::new(&[setting]).expect("settings").live)
    }

    fn text(mut out: ReplyBuffer) -> String {
        let length = out.remaining();
        String::from_utf8(out.copy_to_bytes(length).to_vec()).expect("text")
    }

    #[test]
    fn only_the_first_push_wakes_and_messages_may_go_ahead() {
        let pushes = pushes("pubsub 0 0 0");
        let push = |text: &[u8]| bulks(&[text]);
        assert_eq!(pushes.add(Push::Notice(push(b"n")), 0), Added::First);
        assert_eq!(pushes.add(Push::Message(push(b"m")), 0), Added::Behind);
        let mut out = ReplyBuffer::new();
        pushes.take_messages(2, &mut out);
        assert_eq!(text(out), "*1\r\n$1\r\nm\r\n");
        assert!(pushes.is_waiting());
        let mut out = ReplyBuffer::new();
        pushes.take(3, &mut out);
        assert_eq!(text(out), ">1\r\n$1\r\nn\r\n");
        assert!(!pushes.is_waiting());
        assert_eq!(pushes.waiting(), (0, 0));
        // Queued in RESP3, taken in RESP2: no client could tell it from a reply.
        assert_eq!(pushes.add(Push::Notice(push(b"n")), 0), Added::First);
        let mut out = ReplyBuffer::new();
        pushes.take(2, &mut out);
        assert_eq!(text(out), "");
        assert_eq!(pushes.add(Push::Line(Bytes::from_static(b"+x\r\n")), 0), Added::First);
    }

    #[test]
    fn limits_are_those_of_the_class() {
        let pushes = pushes("normal 0 0 0 pubsub 1000 0 0");
        let push = || Push::Message(Bytes::from(vec![b'x'; 600]));
        for _ in 0..10 {
            assert_ne!(pushes.add(push(), 0), Added::TooMuch, "no subscriber: no limit");
        }
        pushes.take(2, &mut ReplyBuffer::new());
        pushes.channels.store(1, Relaxed);
        assert_eq!(pushes.add(push(), 0), Added::First);
        assert_eq!(pushes.add(push(), 0), Added::TooMuch);
        pushes.take(2, &mut ReplyBuffer::new());
        assert_eq!(pushes.add(push(), 900), Added::TooMuch, "what lies in the output counts");
    }

    #[test]
    fn a_soft_limit_lets_time_pass() {
        let pushes = pushes("normal 0 100 3600");
        let push = || Push::Line(Bytes::from(vec![b'x'; 200]));
        assert_eq!(pushes.add(push(), 0), Added::First);
        assert_eq!(pushes.add(push(), 0), Added::Behind);
        let hour_ago = Instant::now().checked_sub(Duration::from_secs(3601)).expect("up that long");
        pushes.queue.lock().over_since = Some(hour_ago);
        assert!(pushes.is_overdue(0));
        assert_eq!(pushes.add(push(), 0), Added::TooMuch);
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 1234, usize::MAX] {
            let mut out = BytesMut::new();
            put_number(number, &mut out);
            assert_eq!(out, format!("{number}\r\n").as_bytes());
        }
    }
}

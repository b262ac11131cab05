//! Links between the nodes of this process that lose frames or take their time (`ADMIN FAULT
//! PARTITION`, `DELAY`). Only there if faults are enabled.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use wire::ids::NodeId;
use wire::peer::{Frame, LocalTransport, Transport};
use wire::service::NodeFault;

/// Frames on their way at most; more are lost.
const FRAMES_MAX: usize = 100_000;

/// See the module's text.
pub(crate) struct Links {
    inner: Arc<LocalTransport>,
    /// Whether anything is wrong: without a fault a frame costs one more look.
    are_faulty: AtomicBool,
    cut: RwLock<HashSet<(NodeId, NodeId)>>,
    delay_us: AtomicU64,
    /// In the order in which they are due: all are delayed alike.
    on_their_way: Mutex<VecDeque<(Instant, NodeId, Frame)>>,
    sent: Condvar,
}

impl Links {
    /// Links without faults, and the thread that delivers what is delayed.
    pub(crate) fn start(inner: Arc<LocalTransport>) -> anyhow::Result<Arc<Links>> {
        let links = Arc::new(Links {
            inner,
            are_faulty: AtomicBool::new(false),
            cut: RwLock::default(),
            delay_us: AtomicU64::new(0),
            on_their_way: Mutex::default(),
            sent: Condvar::new(),
        });
        let delivering = Arc::downgrade(&links);
        std::thread::Builder::new()
            .name("links".into())
            .spawn(move || {
                while let Some(links) = delivering.upgrade() {
                    links.deliver();
                }
            })
            .context("start the thread of links")?;
        Ok(links)
    }

    /// Injects a fault, or ends all.
    pub(crate) fn fault(&self, fault: NodeFault) -> Result<(), String> {
        let cut = || self.cut.write().unwrap_or_else(PoisonError::into_inner);
        match fault {
            NodeFault::Cut(a, b) => {
                cut().extend([(a, b), (b, a)]);
                self.are_faulty.store(true, Ordering::SeqCst);
            }
            NodeFault::Delay(delay) => {
                self.delay_us.store(delay.as_micros() as u64, Ordering::SeqCst);
                self.are_faulty.store(true, Ordering::SeqCst);
            }
            NodeFault::Join => {
                cut().clear();
                self.delay_us.store(0, Ordering::SeqCst);
                self.are_faulty.store(false, Ordering::SeqCst);
            }
            other => return Err(format!("{other:?} is no fault of links")),
        }
        Ok(())
    }

    /// Waits a moment for frames that are due, and delivers them.
    fn deliver(&self) {
        /// The thread looks so often whether the links still exist.
        const PATIENCE: Duration = Duration::from_millis(500);
        let mut frames = self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner);
        let due = frames.front().map(|(due, ..)| due.saturating_duration_since(Instant::now()));
        if due.is_none_or(|due| !due.is_zero()) {
            let wait = due.unwrap_or(PATIENCE);
            let waited = self.sent.wait_timeout(frames, wait);
            frames = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_due = |frame: &mut (Instant, NodeId, Frame)| frame.0 <= Instant::now();
        let next = frames.pop_front_if(is_due);
        drop(frames);
        if let Some((_, to, frame)) = next {
            self.inner.send(to, frame);
        }
    }
}

impl Transport for Links {
    fn send(&self, to: NodeId, frame: Frame) {
        if !self.are_faulty.load(Ordering::Relaxed) {
            self.inner.send(to, frame);
            return;
        }
        let cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        if cut.contains(&(frame.from, to)) {
            return;
        }
        drop(cut);
        let delay = Duration::from_micros(self.delay_us.load(Ordering::Relaxed));
        if delay.is_zero() {
            self.inner.send(to, frame);
            return;
        }
        let mut frames = self.on_their_way.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < FRAMES_MAX {
            frames.push_back((Instant::now() + delay, to, frame));
            self.sent.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bytes::Bytes;
    use wire::peer::{FrameHandler, Kind};

    use super::*;

    struct Inbox(mpsc::Sender<Instant>);

    impl FrameHandler for Inbox {
        fn handle(&self, _: NodeId, _: Frame) {
            let _ = self.0.send(Instant::now());
        }
    }

    #[test]
    fn frames_get_lost_or_late_as_told() {
        let inner = Arc::new(LocalTransport::default());
        let (tell, told) = mpsc::channel();
        inner.register(NodeId(2), Arc::new(Inbox(tell)));
        let links = Links::start(inner).expect("a thread");
        let send = || {
            let frame = Frame::new(Kind::Paxos, NodeId(1), NodeId(2), Bytes::new());
            links.send(NodeId(2), frame);
            Instant::now()
        };
        send();
        told.try_recv().expect("at once");
        links.fault(NodeFault::Cut(NodeId(2), NodeId(1))).expect("a fault of links");
        send();
        assert!(told.try_recv().is_err());
        links.fault(NodeFault::Join).expect("a fault of links");
        let delay = Duration::from_millis(30);
        links.fault(NodeFault::Delay(delay)).expect("a fault of links");
        let sent = send();
        let came = told.recv_timeout(Duration::from_secs(10)).expect("late");
        assert!(came - sent >= delay - Duration::from_millis(1));
        links.fault(NodeFault::Join).expect("a fault of links");
        send();
        told.try_recv().expect("at once again");
        assert!(links.fault(NodeFault::Stop(NodeId(1))).is_err());
    }
}

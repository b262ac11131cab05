//! Faults of a node, injected on purpose (`ADMIN FAULT`, tests): a process that stands still, a disk
//! that refuses, is full or is slow, a wall clock that is wrong, a panic, what has expired kept. Whoever works for the node comes by here; as long as there is no
//! fault that is one relaxed load of a flag.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wire::service::DiskFault;

const ERROR: u8 = 1;
const FULL: u8 = 2;
const SLOW: u8 = 3;

/// The faults of one node. Outlives the node: a disk stays broken when a process starts again.
#[derive(Default, Debug)]
pub struct Faults {
    paused: AtomicBool,
    /// Calls are not even taken any more.
    refuses: AtomicBool,
    disk: AtomicU8,
    slow_us: AtomicU64,
    /// By how much the wall clock is ahead.
    ahead_ms: AtomicI64,
    /// Who next changes something panics.
    panics: AtomicBool,
    /// What has expired is not deleted.
    keeps_expired: AtomicBool,
    lock: Mutex<()>,
    resumed: Condvar,
}

impl Faults {
    /// Stands still from now on: no thread of the node passes a checkpoint.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
    }

    /// Takes no calls any more: those that came just as the node began to stand still were taken, and
    /// are held until it goes on; whoever comes later gets no answer.
    pub(crate) fn refuse_calls(&self) {
        self.refuses.store(self.is_paused(), Ordering::SeqCst);
    }

    /// Whether calls get no answer.
    pub(crate) fn refuses_calls(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// Goes on.
    pub fn resume(&self) {
        self.refuses.store(false, Ordering::SeqCst);
        self.paused.store(false, Ordering::SeqCst);
        drop(self.lock.lock());
        self.resumed.notify_all();
    }

    /// Whether the node stands still.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Has what has expired kept, or deleted again.
    pub fn keep_expired(&self, keeps: bool) {
        self.keeps_expired.store(keeps, Ordering::SeqCst);
    }

    pub(crate) fn keeps_expired(&self) -> bool {
        self.keeps_expired.load(Ordering::Relaxed)
    }

    /// Has whoever next changes something of the node panic.
    pub fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    pub(crate) fn panic_if_ordered(&self) {
        if self.panics.load(Ordering::Relaxed) && self.panics.swap(false, Ordering::SeqCst) {
            panic!("as ordered");
        }
    }

    /// Sets what the disk does.
    pub fn set_disk(&self, fault: DiskFault) {
        let disk = match fault {
            DiskFault::None => 0,
            DiskFault::Error => ERROR,
            DiskFault::Full => FULL,
            DiskFault::Slow(by) => {
                self.slow_us.store(by.as_micros() as u64, Ordering::SeqCst);
                SLOW
            }
        };
        self.disk.store(disk, Ordering::SeqCst);
    }

    /// Sets by how many milliseconds the node's wall clock is ahead; negative: behind.
    pub fn set_clock_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::SeqCst);
    }

    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Waits while the node stands still. Not to be called with a lock of a partition held.
    pub(crate) fn checkpoint(&self) {
        if !self.is_paused() {
            return;
        }
        let wait = || {
            let mut lock = self.lock.lock();
            while self.is_paused() {
                self.resumed.wait(&mut lock);
            }
        };
        blocking(wait);
    }

    /// Whether the disk has a fault.
    pub(crate) fn has_disk_fault(&self) -> bool {
        self.disk.load(Ordering::Relaxed) != 0
    }

    /// What the disk answers to a write or a sync.
    pub(crate) fn disk(&self) -> io::Result<()> {
        match self.disk.load(Ordering::Relaxed) {
            ERROR => Err(io::Error::from_raw_os_error(libc::EIO)),
            FULL => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            SLOW => {
                std::thread::sleep(Duration::from_micros(self.slow_us.load(Ordering::Relaxed)));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Does what takes long. If this is a connection's thread, others take over what else it was to do.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

//! A cache of opened rows in front of the LSM.
//!
//! The cache holds what fjall holds, never what only a memtable has, and a reader looks into the
//! memtables first. The danger is a reader that reads an old value from fjall, is held up while
//! the row is changed, flushed, and its memtable dropped, and then puts the old value into the
//! cache, where nothing hides it any more. So:
//!
//! ```text
//! reader                                    flush, in this order
//!   1 looks into the memtables: not there     a ingests the run: fjall has the new values
//!   2 looks into the cache: not there         b raises the epoch
//!   3 notes the epoch                         c removes the run's keys from the cache,
//!   4 reads fjall                               each under its stripe's lock
//!   5 under the key's stripe's lock: if       d only now drops the memtable
//!     the epoch is as noted, puts it in
//! ```
//!
//! If the check of 5 comes after b, nothing is put in (or the read began after b, and so after a:
//! then it read the new value). If it comes before b, then c comes after the put, because of the
//! lock, and removes it; until d the memtable hides it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Builder;

/// Locks that keep fills and removals of one key apart.
const STRIPES: usize = 64;
/// What an entry costs beside its bytes, about.
const ENTRY_BYTES: usize = 160;

/// A bounded cache from row keys to opened bodies. Rows that do not exist are not cached: the
/// LSM's filters answer for them.
pub struct RowCache {
    rows: moka::sync::Cache<Bytes, Bytes, Xxh3Builder>,
    /// Raised by each flush.
    epoch: AtomicU64,
    stripes: [Mutex<()>; STRIPES],
    hasher: Xxh3Builder,
}

impl std::fmt::Debug for RowCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowCache").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

impl RowCache {
    /// An empty cache that takes about so many bytes of memory.
    pub fn new(bytes_max: u64) -> RowCache {
        let weigh = |key: &Bytes, value: &Bytes| {
            u32::try_from(key.len() + value.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
        };
        // Clients choose the keys, so they must not know the seed.
        let hasher = Xxh3Builder::new().with_seed(RandomState::new().hash_one("row cache"));
        let rows = moka::sync::Cache::builder().weigher(weigh).max_capacity(bytes_max);
        RowCache {
            rows: rows.build_with_hasher(hasher),
            epoch: AtomicU64::new(0),
            stripes: [const { Mutex::new(()) }; STRIPES],
            hasher,
        }
    }

    /// The row, if the cache has it.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows.get(key)
    }

    /// The row from the cache, else from `read` (the LSM), which it is then cached for. To be
    /// called only after the memtables were found not to have the row.
    pub fn get_or_read<E>(
        &self,
        key: &[u8],
        read: impl FnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        if let Some(value) = self.rows.get(key) {
            return Ok(Some(value));
        }
        let epoch = self.epoch.load(Ordering::SeqCst);
        let value = read()?;
        if let Some(value) = &value {
            self.put(epoch, key, value);
        }
        Ok(value)
    }

    fn put(&self, epoch: u64, key: &[u8], value: &[u8]) {
        // Copies: what fjall answers is a slice of a block, which a small row would keep in memory.
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let _stripe = self.stripe(&key);
        if self.epoch.load(Ordering::SeqCst) == epoch {
            self.rows.insert(key, value);
        }
    }

    /// The LSM holds new values (or none) of these rows now. To be called after the run was
    /// ingested and before its memtables are dropped.
    pub fn flushed<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        for key in keys {
            let _stripe = self.stripe(key);
            self.rows.invalidate(key);
        }
    }

    /// Forgets everything, for instance when rows of a range were replaced as a whole.
    pub fn clear(&self) {
        // All stripes, so that no fill that has checked the epoch is still to put its value in.
        let _all: Vec<_> = self.stripes.iter().map(Mutex::lock).collect();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.rows.invalidate_all();
    }

    /// Bytes that the entries weigh, about.
    pub fn bytes(&self) -> u64 {
        self.rows.weighted_size()
    }

    /// Rows in the cache, about.
    pub fn rows(&self) -> u64 {
        self.rows.entry_count()
    }

    fn stripe(&self, key: &[u8]) -> parking_lot::MutexGuard<'_, ()> {
        self.stripes[self.hasher.hash_one(key) as usize % STRIPES].lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use parking_lot::RwLock;

    use super::*;

    #[test]
    fn caches_what_is_there_and_no_block_with_it() {
        let cache = RowCache::new(1 << 20);
        let block = Bytes::from(vec![1; 4096]);
        let mut reads = 0;
        for _ in 0..3 {
            let row = cache.get_or_read(b"k", || -> Result<_, ()> {
                reads += 1;
                Ok(Some(block.slice(..5)))
            });
            assert_eq!(row, Ok(Some(Bytes::from_static(&[1; 5]))));
            drop(row);
        }
        assert_eq!(reads, 1);
        assert!(block.is_unique(), "the cache keeps a copy, not a slice of the block");
        assert_eq!(cache.get_or_read(b"none", || Ok::<_, ()>(None)), Ok(None));
        cache.flushed([&b"k"[..]]);
        assert_eq!(cache.get_or_read(b"k", || Err("read again")), Err("read again"));
        assert_eq!(
            cache.get_or_read(b"k", || Ok::<_, ()>(Some(block.slice(..2)))).unwrap().unwrap(),
            [1, 1][..]
        );
        cache.clear();
        assert_eq!(cache.get_or_read(b"k", || Err("read again")), Err("read again"));
    }

    #[test]
    fn stays_within_its_bytes() {
        let cache = RowCache::new(100_000);
        for i in 0..5_000u32 {
            let key = i.to_be_bytes();
            cache.get_or_read(&key, || Ok::<_, ()>(Some(Bytes::from(vec![0; 100])))).unwrap();
        }
        cache.rows.run_pending_tasks();
        assert!(cache.bytes() <= 100_000 && cache.rows() > 100, "{} bytes", cache.bytes());
    }

    /// A model of a partition: a memtable over a store, flushed all the time, read by many.
    /// A reader must never see a value older than one that was written before its read began.
    #[test]
    fn no_reader_sees_the_past() {
        const KEYS: usize = 8;
        let key = |k: usize| [k as u8];
        let value = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
        let number = |b: &Bytes| u64::from_be_bytes(b[..].try_into().unwrap());
        let cache = RowCache::new(1 << 20);
        let memtable: [RwLock<Option<Bytes>>; KEYS] = Default::default();
        let store: [RwLock<Bytes>; KEYS] = std::array::from_fn(|_| RwLock::new(value(0)));
        let written: [AtomicU64; KEYS] = Default::default();
        let (done, hits) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for reader in 0..3usize {
                let (cache, memtable, store) = (&cache, &memtable, &store);
                let (written, done, hits) = (&written, &done, &hits);
                scope.spawn(move || {
                    let mut turn = reader;
                    while !done.load(Ordering::SeqCst) {
                        turn = turn.wrapping_mul(5).wrapping_add(3 + reader);
                        let k = (turn >> 3) % KEYS;
                        let least = written[k].load(Ordering::SeqCst);
                        let in_memory = memtable[k].read().clone();
                        let seen = in_memory.unwrap_or_else(|| {
                            let mut hit = 1;
                            let read = || {
                                hit = 0;
                                let old = store[k].read().clone();
                                if turn % 3 == 0 {
                                    std::thread::yield_now(); // held up with what it has read
                                }
                                Ok::<_, ()>(Some(old))
                            };
                            let seen = cache.get_or_read(&key(k), read).unwrap().unwrap();
                            hits.fetch_add(hit, Ordering::Relaxed);
                            seen
                        });
                        assert!(number(&seen) >= least, "saw {} of {least}", number(&seen));
                    }
                });
            }
            // On until the cache was in use, however the threads happen to be scheduled.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            for n in 1u64.. {
                let enough = n > 40_000 && hits.load(Ordering::Relaxed) > 1000;
                if enough || std::time::Instant::now() > deadline {
                    break;
                }
                let k = n as usize % KEYS;
                *memtable[k].write() = Some(value(n));
                written[k].store(n, Ordering::SeqCst);
                if n % 3 == 0 {
                    let dirty: Vec<usize> =
                        (0..KEYS).filter(|&k| memtable[k].read().is_some()).collect();
                    for &k in &dirty {
                        *store[k].write() = memtable[k].read().clone().unwrap();
                    }
                    let keys: Vec<[u8; 1]> = dirty.iter().map(|&k| key(k)).collect();
                    cache.flushed(keys.iter().map(|key| &key[..]));
                    for &k in &dirty {
                        *memtable[k].write() = None;
                    }
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(hits.load(Ordering::Relaxed) > 1000, "the cache was in use");
    }
}

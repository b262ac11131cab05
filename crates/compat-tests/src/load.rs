//! Writers that remember what was acknowledged, and the check that none of it is lost.
//!
//! Each writer owns its keys and numbers its writes. A value names its key and number and carries a
//! checksum over both and a filler whose length depends on the number:
//!
//! ```text
//! value = key "|" number "|" checksum "|" filler
//! ```
//!
//! So a value that is read later shows which write it is, and a torn or misplaced one shows itself.
//! Of a key's writes the newest acknowledged one, or a later one that was sent, must be there; the
//! same holds for a counter that grows by INCR, which also shows a write that was applied twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::resp::{Client, Value, encode};

/// Commands a writer has under way at once.
pub const PIPELINE_DEPTH: usize = 32;
/// Keys of one writer.
const KEYS: usize = 2_000;
/// Fillers are shorter than this.
const FILLER_BYTES_MAX: u64 = 300;
/// How long a writer waits before it tries again what was refused.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What one writer knows.
#[derive(Clone, Debug)]
pub struct Writer {
    id: usize,
    /// For each key the newest number acknowledged and the newest one sent; 0 for none.
    keys: Vec<(u64, u64)>,
    /// The counter's increments, acknowledged and sent.
    counter: (u64, u64),
    next: u64,
    /// Writes acknowledged in all.
    pub acknowledged: u64,
    /// The longest time between two acknowledgements while running.
    pub longest_gap: Duration,
    /// Refusals, by their prefix, and how many.
    pub refusals: std::collections::BTreeMap<String, u64>,
}

/// Writers at work on threads.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<(Writer, Result<()>)>>,
}

impl Writer {
    /// A writer that has not written yet.
    pub fn new(id: usize) -> Writer {
        Writer {
            id,
            keys: vec![(0, 0); KEYS],
            counter: (0, 0),
            next: 1,
            acknowledged: 0,
            longest_gap: Duration::ZERO,
            refusals: Default::default(),
        }
    }

    fn key(&self, index: usize) -> String {
        format!("writer:{}:{index}", self.id)
    }

    fn counter_key(&self) -> String {
        format!("counter:{}", self.id)
    }

    /// Writes until told to stop or until the connection breaks, which is no error here.
    fn run(&mut self, port: u16, stop: &AtomicBool, total: &AtomicU64) -> Result<()> {
        let Ok(mut client) = Client::connect(port) else { return Ok(()) };
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let (indexes, bytes) = self.batch();
            if client.send_raw(&bytes).is_err() {
                return Ok(());
            }
            let mut refused = false;
            for (index, number) in indexes {
                // An end in the middle of a batch leaves the rest of it sent, not acknowledged.
                let Ok(Some(reply)) = client.read() else { return Ok(()) };
                match (index, reply.value) {
                    (Some(index), Value::Simple(ok)) if ok == b"OK" => self.keys[index].0 = number,
                    (None, Value::Int(value)) => self.counted(value)?,
                    (_, Value::Error(text)) => {
                        self.refuse(&text)?;
                        refused = true;
                        continue;
                    }
                    (_, other) => bail!("a write was answered with {other:?}"),
                }
                self.acknowledged += 1;
                total.fetch_add(1, Ordering::Relaxed);
                self.longest_gap = self.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            if refused {
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        Ok(())
    }

    /// The next writes: SETs of different keys, and one INCR.
    fn batch(&mut self) -> (Vec<(Option<usize>, u64)>, Vec<u8>) {
        let (mut indexes, mut bytes) = (Vec::new(), Vec::new());
        for _ in 1..PIPELINE_DEPTH {
            let number = self.next;
            self.next += 1;
            let index = (number as usize * 7) % KEYS;
            self.keys[index].1 = number;
            let key = self.key(index);
            encode(&[b"SET", key.as_bytes(), &value(&key, number)], &mut bytes);
            indexes.push((Some(index), number));
        }
        self.counter.1 += 1;
        encode(&["INCR", &self.counter_key()], &mut bytes);
        indexes.push((None, 0));
        (indexes, bytes)
    }

    fn counted(&mut self, value: i64) -> Result<()> {
        let (acknowledged, sent) = self.counter;
        let value = u64::try_from(value)?;
        ensure!(
            acknowledged < value && value <= sent,
            "INCR gave {value} after {acknowledged} acknowledged and {sent} sent"
        );
        self.counter.0 = value;
        Ok(())
    }

    /// A refusal is one of those that a client is told to expect; anything else fails the test.
    fn refuse(&mut self, text: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(text);
        let prefix = text.split(' ').next().unwrap_or_default().to_owned();
        let known = ["TRYAGAIN", "CLUSTERDOWN", "UNCERTAIN"].contains(&prefix.as_str());
        ensure!(known, "a write was refused: {text}");
        *self.refusals.entry(prefix).or_default() += 1;
        Ok(())
    }

    /// Reads everything back. What is there becomes what must be there from now on.
    pub fn verify(&mut self, client: &mut Client) -> Result<()> {
        let mut bytes = Vec::new();
        (0..KEYS).for_each(|index| encode(&["GET", &self.key(index)], &mut bytes));
        encode(&["GET", &self.counter_key()], &mut bytes);
        client.send_raw(&bytes)?;
        let mut replies = Vec::new();
        while replies.len() <= KEYS {
            replies.push(client.read()?.context("closed while reading back")?.value);
        }
        let counter = replies.pop().context("the counter's reply")?;
        for (index, reply) in replies.iter().enumerate() {
            let key = self.key(index);
            let (acknowledged, sent) = self.keys[index];
            let found = match reply {
                Value::Nil => 0,
                Value::Bulk(found) => number(&key, found)?,
                other => bail!("GET {key}: {other:?}"),
            };
            ensure!(
                acknowledged <= found,
                "lost: {key} is at write {found}, acknowledged was {acknowledged}"
            );
            ensure!(found <= sent, "invented: {key} is at write {found}, sent was {sent}");
            self.keys[index].0 = found;
        }
        let found: u64 = match &counter {
            Value::Nil => 0,
            other => other.to_text().parse().with_context(|| format!("counter: {other:?}"))?,
        };
        let (acknowledged, sent) = self.counter;
        ensure!(acknowledged <= found, "lost: counter at {found}, acknowledged {acknowledged}");
        ensure!(found <= sent, "applied twice: counter at {found}, sent {sent}");
        self.counter = (found, found);
        Ok(())
    }
}

impl Load {
    /// Sets the writers to work.
    pub fn start(port: u16, writers: Vec<Writer>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let spawn = |mut writer: Writer| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                let outcome = writer.run(port, &stop, &acknowledged);
                (writer, outcome)
            })
        };
        let threads = writers.into_iter().map(spawn).collect();
        Load { stop, acknowledged, threads }
    }

    /// Writes acknowledged since the start, by all writers.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops the writers, each after the batch it has under way, and gives them back.
    pub fn stop(self) -> Result<Vec<Writer>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut writers = Vec::new();
        for thread in self.threads {
            let Ok((writer, outcome)) = thread.join() else { bail!("a writer panicked") };
            outcome.with_context(|| format!("writer {}", writer.id))?;
            writers.push(writer);
        }
        Ok(writers)
    }
}

/// The value of a key's write.
pub fn value(key: &str, number: u64) -> Vec<u8> {
    let filler = "f".repeat((number.wrapping_mul(2_654_435_761) % FILLER_BYTES_MAX) as usize);
    format!("{key}|{number}|{:016x}|{filler}", checksum(key, number, &filler)).into_bytes()
}

/// The number of the write that made this value; an error if no write of this key did.
pub fn number(key: &str, found: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(found).with_context(|| format!("torn value of {key}"))?;
    let number = text
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('|')?.split('|').next()?.parse().ok())
        .with_context(|| format!("foreign value under {key}: {text}"))?;
    ensure!(value(key, number) == found, "torn value of {key}: {text}");
    Ok(number)
}

/// FNV-1a of the parts.
fn checksum(key: &str, number: u64, filler: &str) -> u64 {
    let bytes = key.bytes().chain(number.to_le_bytes()).chain(filler.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Options, Server, wait_until};

    #[test]
    fn a_value_is_bound_to_its_key_and_number() {
        let good = value("k", 41);
        assert_eq!(number("k", &good).unwrap(), 41);
        assert!(number("other", &good).is_err());
        assert!(number("k", &good[..good.len() - 1]).is_err());
        let mut flipped = good.clone();
        flipped[4] ^= 1;
        assert!(number("k", &flipped).is_err());
    }

    #[test]
    fn a_loss_a_forgery_and_a_double_are_noticed() {
        let redis = Server::start(Options::redis()).unwrap();
        let mut client = redis.client().unwrap();
        let load = Load::start(redis.port(), vec![Writer::new(0)]);
        wait_until("every key written", Duration::from_secs(30), || {
            Ok(load.acknowledged() > 2 * KEYS as u64)
        })
        .unwrap();
        let mut writer = load.stop().unwrap().remove(0);
        writer.verify(&mut client).unwrap();

        let complaint = |writer: &Writer, client: &mut Client| {
            format!("{:#}", writer.clone().verify(client).unwrap_err())
        };
        client.line("RENAME writer:0:5 kept").unwrap();
        assert!(complaint(&writer, &mut client).contains("lost"));
        client.line("COPY writer:0:6 writer:0:5").unwrap();
        assert!(complaint(&writer, &mut client).contains("foreign"));
        client.line("RENAME kept writer:0:5").unwrap();
        client.line("INCR counter:0").unwrap();
        assert!(complaint(&writer, &mut client).contains("twice"));
        client.line("DECRBY counter:0 2").unwrap();
        assert!(complaint(&writer, &mut client).contains("lost"));
    }
}

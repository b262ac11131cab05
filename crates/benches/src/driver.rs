//! The load driver: many connections to one server, latencies in a histogram.
//!
//! *Closed loop* ([`closed`]): each connection sends a pipeline, waits for all its replies, sends
//! the next. It finds how fast a server can be, and hides how slow it was meanwhile: a server that
//! stops is not asked while it stops.
//!
//! *Open loop* ([`open`]): commands are sent at a rate whatever comes back, and a latency runs from
//! the time at which its command was *meant* to be sent. A stall of a second at 50,000 a second so
//! shows as 50,000 late commands, as it would to 50,000 users.
//!
//! ```text
//! pacing thread:  each tick → the commands due, on the connections in turn (never blocks)
//! driver thread:  replies of all connections → histogram      (tokio, one thread)
//! ```
//!
//! Both are bounded in time and in commands under way, and speak to 127.0.0.1 only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use wire::resp::{Reply, ReplyDecoder, RespVersion};

/// Longest latency that is told apart.
const LATENCY_US_MAX: u64 = 120_000_000;
/// How long the replies of the last commands are waited for.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Commands under way in an open loop; a server that is further behind has failed.
const UNDER_WAY_MAX: u64 = 4_000_000;
/// How often the pacing thread sends. Commands due within one tick leave together.
const TICK: Duration = Duration::from_micros(200);
/// Silence longer than this, while replies are due, is a stall.
pub const STALL: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 64 << 10;

/// What a generator wrote: one command, or several that count as one.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Replies it is answered with.
    pub replies: u32,
    /// Which of the outcome's histograms it counts in.
    pub class: usize,
}

impl Step {
    /// One command with one reply.
    pub const ONE: Step = Step { replies: 1, class: 0 };
}

/// Writes the next command of a connection.
pub type Generator = Box<dyn FnMut(&mut BytesMut) -> Step + Send>;

/// When a closed loop ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// Steps sent by all connections.
    pub steps: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies in microseconds by class of step.
    pub latency_us: Vec<Histogram<u64>>,
    /// Steps answered.
    pub done: u64,
    /// Error replies.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// From the first command to the last reply.
    pub elapsed: Duration,
    /// When the server was silent for longer than [`STALL`] although replies were due, since the
    /// start, and for how long. Open loops only.
    pub stalls: Vec<(Duration, Duration)>,
}

impl Outcome {
    fn new(classes: usize) -> Outcome {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds");
        Outcome {
            latency_us: (0..classes).map(|_| histogram()).collect(),
            done: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            stalls: Vec::new(),
        }
    }

    /// Steps a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile (0.99) of the latencies of all classes, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let mut all = self.latency_us[0].clone();
        for other in &self.latency_us[1..] {
            all.add(other).expect("equal bounds");
        }
        all.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Adds another run's figures.
    pub fn add(&mut self, other: &Outcome) {
        for (mine, theirs) in self.latency_us.iter_mut().zip(&other.latency_us) {
            mine.add(theirs).expect("equal bounds");
        }
        self.done += other.done;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.elapsed += other.elapsed;
        self.stalls.extend(&other.stalls);
    }

    /// The same, unless there were error replies.
    pub fn without_errors(self) -> Result<Outcome> {
        let first = self.first_error.clone().unwrap_or_default();
        ensure!(self.errors == 0, "{} error replies, the first: {first}", self.errors);
        Ok(self)
    }

    fn record(&mut self, class: usize, latency: Duration) {
        self.latency_us[class].saturating_record((latency.as_micros() as u64).max(1));
        self.done += 1;
    }
}

/// Replies as they come in on one connection.
struct Replies {
    buffer: BytesMut,
    decoder: ReplyDecoder,
}

impl Replies {
    fn new() -> Replies {
        let decoder = ReplyDecoder::new(RespVersion::Resp2);
        Replies { buffer: BytesMut::with_capacity(READ_BYTES), decoder }
    }

    /// Takes a reply that is there already; false if there is none.
    fn take(&mut self, outcome: &mut Outcome) -> Result<bool> {
        let Some(reply) = self.decoder.decode(&mut self.buffer)? else { return Ok(false) };
        if let Reply::Error(text) = reply {
            outcome.errors += 1;
            outcome.first_error.get_or_insert_with(|| String::from_utf8_lossy(&text).into_owned());
        }
        Ok(true)
    }

    async fn read(&mut self, stream: &mut TcpStream) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        let count = stream.read_buf(&mut self.buffer).await.context("read replies")?;
        ensure!(count > 0, "the server closed a connection");
        Ok(())
    }
}

/// Runs futures of one thread to their end, the first error ending all.
fn run_local<T: 'static>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

async fn join(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a connection's task")??;
    }
    Ok(())
}

fn unshare(outcome: Rc<RefCell<Outcome>>) -> Outcome {
    Rc::into_inner(outcome).expect("all tasks have ended").into_inner()
}

/// Closed loop: `pipeline` steps under way on each connection, until it is time.
///
/// *Errors*: a connection that fails. Error replies are counted only.
pub fn closed(
    port: u16,
    generators: Vec<Generator>,
    pipeline: usize,
    until: Until,
    classes: usize,
) -> Result<Outcome> {
    let outcome = Rc::new(RefCell::new(Outcome::new(classes)));
    let left = Rc::new(RefCell::new(until.steps));
    run_local(async {
        let mut streams = Vec::new();
        for _ in &generators {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connect")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (stream, generator) in streams.into_iter().zip(generators) {
            let (outcome, left) = (outcome.clone(), left.clone());
            let deadline = start + until.elapsed;
            tasks.spawn_local(closed_connection(
                stream, generator, pipeline, deadline, left, outcome,
            ));
        }
        tokio::time::timeout(until.elapsed + DRAIN_WITHIN, join(tasks))
            .await
            .context("the server does not answer")??;
        outcome.borrow_mut().elapsed = start.elapsed();
        Ok(())
    })?;
    Ok(unshare(outcome))
}

async fn closed_connection(
    mut stream: TcpStream,
    mut generator: Generator,
    pipeline: usize,
    deadline: Instant,
    left: Rc<RefCell<u64>>,
    outcome: Rc<RefCell<Outcome>>,
) -> Result<()> {
    let (mut replies, mut bytes) = (Replies::new(), BytesMut::new());
    let mut steps = VecDeque::new();
    loop {
        let count = (pipeline as u64).min(*left.borrow());
        let sent = Instant::now();
        if count == 0 || sent >= deadline {
            return Ok(());
        }
        *left.borrow_mut() -= count;
        steps.extend((0..count).map(|_| generator(&mut bytes)));
        stream.write_all(&bytes).await.context("send commands")?;
        bytes.clear();
        while let Some(Step { replies: due, class }) = steps.pop_front() {
            for _ in 0..due {
                while !replies.take(&mut outcome.borrow_mut())? {
                    replies.read(&mut stream).await?;
                }
            }
            outcome.borrow_mut().record(class, sent.elapsed());
        }
    }
}

/// A step under way in an open loop, and when it was meant to be sent.
type Sent = (Instant, Step);

/// What a connection's two sides share.
#[derive(Default)]
struct Line {
    under_way: Mutex<VecDeque<Sent>>,
    /// Set when no further step will be sent.
    ended: Mutex<bool>,
    changed: Notify,
}

impl Line {
    fn is_over(&self) -> bool {
        *self.ended.lock().expect("no panic") && self.under_way.lock().expect("no panic").is_empty()
    }
}

/// Open loop: `rate` steps a second for `duration`, over as many connections as generators.
///
/// *Errors*: a connection that fails, or a server that falls hopelessly behind. Error replies are
/// counted only.
pub fn open(
    port: u16,
    generators: Vec<Generator>,
    rate: f64,
    duration: Duration,
    classes: usize,
) -> Result<Outcome> {
    let outcome = Rc::new(RefCell::new(Outcome::new(classes)));
    run_local(async {
        let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
        let start = Instant::now();
        let last_reply = Rc::new(RefCell::new(start));
        for generator in generators {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connect")?;
            stream.set_nodelay(true)?;
            let stream = stream.into_std()?;
            let line = Arc::new(Line::default());
            let backlog = BytesMut::new();
            let writer = stream.try_clone()?;
            senders.push(Sender { stream: writer, generator, line: line.clone(), backlog });
            let stream = TcpStream::from_std(stream)?;
            let times = (start, last_reply.clone());
            tasks.spawn_local(receive(stream, line, times, outcome.clone()));
        }
        let pacing = std::thread::spawn(move || pace(senders, rate, duration));
        let received = tokio::time::timeout(duration + DRAIN_WITHIN, join(tasks)).await;
        let paced = pacing.join().map_err(|_| anyhow::anyhow!("the pacing thread panicked"))?;
        received.context("the server does not answer")??;
        paced?;
        outcome.borrow_mut().elapsed = last_reply.borrow().duration_since(start);
        Ok(())
    })?;
    Ok(unshare(outcome))
}

async fn receive(
    mut stream: TcpStream,
    line: Arc<Line>,
    (start, last_reply): (Instant, Rc<RefCell<Instant>>),
    outcome: Rc<RefCell<Outcome>>,
) -> Result<()> {
    let mut replies = Replies::new();
    let mut seen = 0;
    while !line.is_over() {
        tokio::select! {
            read = replies.read(&mut stream) => read?,
            () = line.changed.notified() => continue,
        }
        let (now, mut outcome) = (Instant::now(), outcome.borrow_mut());
        let mut under_way = line.under_way.lock().expect("no panic");
        if let Some((oldest, _)) = under_way.front() {
            let silent_since = (*last_reply.borrow()).max(*oldest);
            let silence = now.saturating_duration_since(silent_since);
            if silence > STALL {
                outcome.stalls.push((silent_since.duration_since(start), silence));
            }
        }
        *last_reply.borrow_mut() = now;
        while replies.take(&mut outcome)? {
            let (meant, step) = *under_way.front().context("a reply that nobody asked for")?;
            seen += 1;
            if seen == step.replies {
                seen = 0;
                under_way.pop_front();
                outcome.record(step.class, now.saturating_duration_since(meant));
            }
        }
    }
    Ok(())
}

/// The sending side of a connection. Its socket never blocks: what the kernel does not take waits
/// in `backlog`, and its latency runs on.
struct Sender {
    stream: std::net::TcpStream,
    generator: Generator,
    line: Arc<Line>,
    backlog: BytesMut,
}

impl Sender {
    /// Adds steps that were meant to leave at this time.
    fn add(&mut self, steps: u64, meant: Instant) {
        let mut under_way = self.line.under_way.lock().expect("no panic");
        under_way.extend((0..steps).map(|_| (meant, (self.generator)(&mut self.backlog))));
    }

    /// Sends what the kernel takes. True if all is sent.
    fn push(&mut self) -> Result<bool> {
        while !self.backlog.is_empty() {
            match self.stream.write(&self.backlog) {
                Ok(count) => self.backlog.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("send commands"),
            }
        }
        Ok(true)
    }
}

impl Drop for Sender {
    /// Also when pacing fails, so that the other side does not wait for more.
    fn drop(&mut self) {
        *self.line.ended.lock().expect("no panic") = true;
        self.line.changed.notify_one();
    }
}

fn pace(mut senders: Vec<Sender>, rate: f64, duration: Duration) -> Result<()> {
    let start = Instant::now();
    let mut sent = 0;
    let mut at = 0;
    for tick in 1.. {
        let meant = start + TICK * tick;
        if meant > start + duration {
            break;
        }
        std::thread::sleep(meant.saturating_duration_since(Instant::now()));
        let due = ((TICK * tick).as_secs_f64() * rate) as u64;
        at = (at + 1) % senders.len();
        senders[at].add(due - sent, meant);
        sent = due;
        // Those with a backlog are tried at each tick, too.
        for sender in &mut senders {
            sender.push()?;
        }
        if tick % 1_000 == 0 {
            let waiting = |sender: &Sender| sender.line.under_way.lock().map_or(0, |l| l.len());
            let under_way: usize = senders.iter().map(waiting).sum();
            ensure!(under_way as u64 <= UNDER_WAY_MAX, "{under_way} commands wait for replies");
        }
    }
    let deadline = Instant::now() + DRAIN_WITHIN;
    for sender in &mut senders {
        while !sender.push()? {
            ensure!(Instant::now() < deadline, "the server takes no more commands");
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::client::encode;

    const PING_BYTES: usize = b"*1\r\n$4\r\nPING\r\n".len();
    const PAUSE: Duration = Duration::from_millis(400);

    /// A server that answers PINGs, but nothing for [`PAUSE`] once so many were answered.
    fn pausing_server(pause_after: usize) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let (mut bytes, mut answered) = (0, 0);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                bytes += count;
                let due = bytes / PING_BYTES - answered;
                if (answered..answered + due).contains(&pause_after) {
                    std::thread::sleep(PAUSE);
                }
                answered += due;
                stream.write_all(&b"+PONG\r\n".repeat(due)).expect("it reads");
            }
        });
        port
    }

    fn pings() -> Vec<Generator> {
        let ping = |out: &mut BytesMut| {
            encode(&["PING"], out);
            Step::ONE
        };
        vec![Box::new(ping)]
    }

    #[test]
    fn an_open_loop_counts_a_pause_against_all_who_were_due_in_it() {
        let port = pausing_server(200);
        let outcome = open(port, pings(), 1_000.0, Duration::from_secs(1), 1).expect("it runs");
        assert!((990..=1_000).contains(&outcome.done), "{}", outcome.done);
        // 400 of 1,000 were due while the server was silent; half of those waited 200 ms or more.
        assert!(outcome.quantile_ms(0.85) > 100.0, "{}", outcome.quantile_ms(0.85));
        // A busy machine may have added others.
        let is_it = |(at, length): &(Duration, Duration)| {
            *at >= Duration::from_millis(150) && *length > PAUSE / 2
        };
        assert!(outcome.stalls.iter().any(is_it), "{:?}", outcome.stalls);
    }

    #[test]
    fn a_closed_loop_asks_nothing_meanwhile() {
        let port = pausing_server(200);
        let until = Until { steps: 1_000, elapsed: Duration::from_secs(30) };
        let outcome = closed(port, pings(), 1, until, 1).expect("it runs");
        assert_eq!((outcome.done, outcome.errors), (1_000, 0));
        assert!(outcome.quantile_ms(0.99) < 100.0 && outcome.quantile_ms(1.0) > 350.0);
    }
}

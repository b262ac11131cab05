//! A client's connection: one task that reads, runs and answers.
//!
//! ```text
//! read what the socket holds → decode and run every complete command, back to back
//!   → wait until what they wrote is durable → write all replies, in order → read …
//! ```
//!
//! Nothing is read while replies wait to be written, so a client that does not read its replies stops
//! itself and holds at most one pipeline's replies here. An idle connection holds no buffers: bytes are
//! read into a buffer of the thread, which keeps what it gave away only as long as commands need it.
//!
//! A reply is encoded when its command was evaluated, before its write is durable. Should the write
//! lose its place in the log, it is made again, or its reply replaced, before anything is written
//! (`again`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use commands::table::Entry;
use commands::{CommandError, Run, Session as Command};
use smallvec::SmallVec;
use tokio::io::ReadBuf;
use wire::resp::{self, Arguments, DecodeError, Decoder, Limits, Reply, ReplyBuffer, RespVersion};
use wire::service::{Gate, GateOutcome, RequestId};

use crate::Shared;
use crate::again::{Again, Gated, Lines};
use crate::clients::HasSocket;
use crate::config::OutputClass;
use crate::dispatch::Progress;
use crate::monitors::Origin;
use crate::pending::{Behind, Pending};
use crate::pushes::Pushes;
use crate::route::{Answered, Caller};
use crate::run::transaction::copied;
use crate::session::{ReplyMode, Session};
use crate::slowlog;
use crate::stream::Stream;
use crate::turns;

/// A thread's read buffer, in bytes.
const THREAD_BUFFER_BYTES: usize = 64 << 10;
/// Least free space that is worth a read.
const READ_BYTES_MIN: usize = 4 << 10;
/// Replies are written when so many bytes wait, even if the pipeline goes on.
const FLUSH_BYTES: usize = 256 << 10;
/// Replies are written when so many of them wait for a gate, even if the pipeline goes on.
const GATED_MAX: usize = 4096;
/// Bytes of unread replies at which a connection that has not logged in is closed.
const OUTPUT_BEFORE_AUTH_BYTES_MAX: usize = 64 << 10;
/// Unread replies that are no longer in all do not count by the limits of CONFIG: Redis has room for
/// them in each connection.
const OUTPUT_UNCOUNTED_BYTES: usize = 16 << 10;

/// A connection and everything it runs commands with.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Session,
    pub(crate) caller: Caller,
    /// The end of the last command's execution: the start of the next one's.
    pub(crate) clock: Instant,
    /// Stands before the stream, and so is dropped before it.
    _has_socket: Option<HasSocket>,
    stream: Stream,
    input: BytesMut,
    /// Whether `input` is a part of the thread's buffer.
    input_is_shared: bool,
    decoder: Decoder,
    pub(crate) output: ReplyBuffer,
    pub(crate) gated: Vec<Gated>,
    /// A gate of these that was waited for already.
    pub(crate) settled: Option<(Gate, GateOutcome)>,
    /// The lines of commands in `gated`.
    pub(crate) lines: Lines,
    /// Calls of the pipeline to one partition that are made together; see `pending.rs`.
    pub(crate) pending: Pending,
}

/// The connection is over: closed by either side, killed, or out of bounds.
pub(crate) struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Closed {
        Closed
    }
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, stream: Stream, session: Session) -> Connection {
        let has_socket = matches!(stream, Stream::Socket(_)).then(|| session.client.has_socket());
        let mut connection = Connection {
            caller: Caller::new(shared.clone(), session.client.id),
            shared,
            session,
            clock: Instant::now(),
            _has_socket: has_socket,
            stream,
            input: BytesMut::new(),
            input_is_shared: false,
            decoder: Decoder::default(),
            output: ReplyBuffer::new(),
            gated: Vec::new(),
            settled: None,
            lines: Lines::default(),
            pending: Pending::default(),
        };
        connection.update_limits();
        connection
    }

    /// Serves the client until the connection ends.
    pub(crate) async fn run(&mut self) {
        while self.read().await.is_ok() {
            // On the heap as long as it runs: an idle connection does not keep room for it.
            if Box::pin(self.run_pipeline()).await.is_err() || self.session.closing {
                break;
            }
            self.session.client.is_served.store(false, Relaxed);
            self.session.client.rounds.fetch_add(1, Relaxed);
            if self.session.client.is_draining() {
                break;
            }
        }
        self.caller.flush().await;
    }

    /// Waits for bytes from the client.
    async fn read(&mut self) -> Result<(), Closed> {
        let client = self.session.client.clone();
        let mut is_first = true;
        let read = loop {
            tokio::select! {
                biased;
                read = poll_fn(|cx| {
                    // Before its bytes leave the socket: whoever finds none there sees that they are served.
                    client.is_served.store(true, Relaxed);
                    let read = self.poll_read(cx);
                    if read.is_pending() {
                        client.is_served.store(false, Relaxed);
                        if std::mem::take(&mut is_first) {
                            self.release();
                        }
                    }
                    read
                }) => break read?,
                () = client.called() => {}
            }
            if client.has_ended() {
                return Err(Closed);
            }
            // On the heap, as a connection that is never pushed anything needs no room for it.
            Box::pin(self.send_pushes()).await?;
            is_first = true;
        };
        if read == 0 {
            return Err(Closed);
        }
        self.caller.tally.reads += 1;
        self.caller.tally.input_bytes += read as u64;
        client.is_active();
        Ok(())
    }

    /// Reads into the connection's own buffer if it holds the start of a command, else into the
    /// thread's.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        thread_local! {
            static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
        }
        if !self.input.is_empty() {
            self.input.reserve(READ_BYTES_MIN.max(self.input.len().min(THREAD_BUFFER_BYTES)));
            return poll_read_into(&mut self.stream, cx, &mut self.input);
        }
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.capacity() < READ_BYTES_MIN {
                // Takes the old memory again if no command refers to it any more.
                buffer.reserve(THREAD_BUFFER_BYTES);
            }
            let read = poll_read_into(&mut self.stream, cx, buffer);
            self.input = buffer.split();
            self.input_is_shared = true;
            read
        })
    }

    /// Writes what was pushed to an idle connection.
    async fn send_pushes(&mut self) -> Result<(), Closed> {
        self.put_pushes();
        self.write().await?;
        self.caller.count();
        // Whoever is pushed to without end lets others have the thread.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Puts what was pushed behind the replies.
    pub(crate) fn put_pushes(&mut self) {
        if let Some(pushes) = self.session.client.pushes()
            && pushes.is_waiting()
        {
            pushes.take(self.session.protocol, &mut self.output);
        }
    }

    /// Puts the messages that were pushed behind the replies, and leaves what else was pushed for later.
    pub(crate) fn put_messages(&mut self) {
        if let Some(pushes) = self.session.client.pushes()
            && pushes.is_waiting()
        {
            pushes.take_messages(self.session.protocol, &mut self.output);
        }
    }

    /// Takes in what the client sends while a command of it waits, and sends it what is pushed. Resolves
    /// when the client has gone or is to go, or has sent more than may wait.
    ///
    /// *Cancel safety*: what was read is kept.
    pub(crate) async fn gone(&mut self) -> Closed {
        let client = self.session.client.clone();
        loop {
            let read = tokio::select! {
                biased;
                () = client.called() => {
                    if client.has_ended() {
                        return Closed;
                    }
                    if let Some(tracked) = &mut self.session.tracked {
                        tracked.told_since = true;
                    }
                    if self.send_pushes().await.is_err() {
                        return Closed;
                    }
                    continue;
                }
                read = poll_fn(|cx| {
                    let read = self.poll_read(cx);
                    self.leave_thread_buffer();
                    read
                }) => read,
            };
            let Ok(read @ 1..) = read else { return Closed };
            self.caller.tally.input_bytes += read as u64;
            client.is_active();
            client.input_bytes.store(self.input.len(), Relaxed);
            let limit = self.shared.config.live.query_buffer_bytes.load(Relaxed) as usize;
            if self.input.len() > limit {
                let bytes = self.input.len();
                tracing::warn!(conn = client.id, bytes, "closed: it sends too much while it waits");
                self.caller.tally.query_limit_disconnections += 1;
                return Closed;
            }
        }
    }

    fn leave_thread_buffer(&mut self) {
        if self.input_is_shared {
            self.input = BytesMut::from(&self.input[..]);
            self.input_is_shared = false;
        }
    }

    /// Gives back what an idle connection does not need. What is left of a partial command moves out
    /// of the thread's buffer.
    pub(crate) fn release(&mut self) {
        self.leave_thread_buffer();
        self.decoder.detach();
        self.leave_spare();
        let client = &self.session.client;
        client.input_bytes.store(self.input.len() + self.decoder.pending_bytes(), Relaxed);
    }

    /// Runs every complete command that was read, and answers.
    async fn run_pipeline(&mut self) -> Result<(), Closed> {
        self.clock = Instant::now();
        self.update_limits();
        self.take_spare();
        // What was pushed before a command came leaves before its reply.
        self.put_pushes();
        while !self.session.closing {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(args)) => {
                    if let Some(args) = self.join_pending(args) {
                        self.finish_pending(Behind::More).await?;
                        if let Some(args) = self.join_pending(args)
                            && let Progress::Waits(slow) = self.run_command(&args)
                        {
                            let args = if slow.is_long() { copied(&args).into() } else { args };
                            self.run_slowly(&args, slow).await?;
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.finish_pending(Behind::More).await?;
                    self.refuse(error);
                }
            }
            let tracked = self.session.tracked.as_mut();
            let hears_itself = tracked.is_some_and(|own| std::mem::take(&mut own.hears_itself));
            if hears_itself || self.output.len() >= FLUSH_BYTES || self.gated.len() >= GATED_MAX {
                self.flush().await?;
                // A long pipeline shares the thread with other connections.
                tokio::task::yield_now().await;
                self.clock = Instant::now();
            }
        }
        self.finish_pending(Behind::Nothing).await?;
        self.flush().await
    }

    /// What was sent is no request: answers why, and closes. Too large a one is not answered, as in Redis.
    fn refuse(&mut self, error: DecodeError) {
        if matches!(error, DecodeError::QueryBufferFull) {
            tracing::warn!(conn = self.session.client.id, "closed: its request is too large");
            self.caller.tally.query_limit_disconnections += 1;
            self.session.closing = true;
            return;
        }
        let reply = error.to_reply();
        if let Reply::Error(line) = &reply {
            self.shared.stats.error(line);
        }
        self.caller.tally.errors += 1;
        self.encode(&reply);
        self.session.closing = true;
    }

    /// Closes without another word: replies that have not left are dropped, so that a browser that
    /// was tricked into speaking to a server of this network learns as little as may be.
    pub(crate) fn hang_up(&mut self) {
        self.output = ReplyBuffer::new();
        self.gated.clear();
        self.session.closing = true;
    }

    /// Ends an executed command: counts it and queues its reply.
    pub(crate) fn finish(&mut self, entry: &'static Entry, args: &Arguments, done: Done) {
        let now = Instant::now();
        let took = now - self.clock;
        self.clock = now;
        self.finish_timed(entry, args, done, took);
    }

    /// Ends an executed command whose duration is known.
    pub(crate) fn finish_timed(
        &mut self,
        entry: &'static Entry,
        args: &Arguments,
        done: Done,
        took: Duration,
    ) {
        self.show(entry, args);
        self.finish_shown(entry, args, done, took);
    }

    /// Ends an executed command that those who monitor have been shown.
    pub(crate) fn finish_shown(
        &mut self,
        entry: &'static Entry,
        args: &Arguments,
        done: Done,
        took: Duration,
    ) {
        let failed = self.count_error(&done.reply);
        self.caller.tally.commands += 1;
        self.shared.stats.call(entry.id, took, self.shared.tracks_latency(), failed);
        slowlog::observe(self, entry, args, took);
        self.end_caching(entry);
        let again = self.keep(entry, args, &done);
        self.reply_gated(done, again);
    }

    /// CLIENT CACHING is good for the next command, or the next transaction.
    fn end_caching(&mut self, entry: &Entry) {
        if let Some(tracked) = &mut self.session.tracked
            && self.session.multi.is_none()
            && entry.group.is_none_or(|group| group.name != "CLIENT")
        {
            tracked.caching = false;
        }
    }

    /// Shows an executed command to those who monitor.
    pub(crate) fn show(&self, entry: &Entry, args: &[Bytes]) {
        let monitors = &self.shared.hub().monitors;
        if monitors.any() {
            let (client, table) = (&self.session.client, self.session.table.0);
            let peer = Some(client.peer);
            let origin = Origin { at_us: self.shared.now_us(), table, peer };
            monitors.show(entry, args, &origin);
        }
    }

    /// Ends a command that was refused before it was executed.
    pub(crate) fn reject(&mut self, entry: Option<&'static Entry>, error: CommandError) {
        let is_exec =
            entry.is_some_and(|entry| matches!(entry.command.run, Run::Session(Command::Exec)));
        let error = if is_exec { self.refuse_exec(&error) } else { error };
        if let Some(multi) = &mut self.session.multi {
            multi.fail();
        }
        if let Some(entry) = entry {
            self.shared.stats.reject(entry.id);
            self.end_caching(entry);
        }
        let reply = Reply::from(error);
        self.count_error(&reply);
        self.reply(Done::from(reply));
    }

    /// Counts a reply if it is an error; whether it is.
    pub(crate) fn count_error(&mut self, reply: &Reply) -> bool {
        let Reply::Error(line) = reply else { return false };
        self.caller.tally.errors += 1;
        self.shared.stats.error(line);
        true
    }

    /// Queues a reply.
    pub(crate) fn reply(&mut self, done: Done) {
        self.reply_gated(done, None);
    }

    fn reply_gated(&mut self, done: Done, mut again: Option<Again>) {
        let mode = self.session.reply_mode;
        match mode {
            ReplyMode::On | ReplyMode::Off => {}
            ReplyMode::SkipAfterThis => self.session.reply_mode = ReplyMode::SkipNext,
            ReplyMode::SkipNext => self.session.reply_mode = ReplyMode::On,
        }
        // What tells of subscriptions is no reply, as in Redis: it is sent all the same.
        if mode != ReplyMode::On && !is_pushes(&done.reply) {
            return;
        }
        let start = self.output.len();
        self.encode(&done.reply);
        let at = start..self.output.len();
        let writes = done.writes;
        self.gated.extend(done.gates.into_iter().map(|gate| Gated {
            at: at.clone(),
            gate,
            writes,
            again: again.take(),
        }));
    }

    pub(crate) fn encode(&mut self, reply: &Reply) {
        let version =
            if self.session.protocol == 3 { RespVersion::Resp3 } else { RespVersion::Resp2 };
        resp::encode(reply, version, &mut self.output);
    }

    /// Waits until the replies may leave, and writes them.
    pub(crate) async fn flush(&mut self) -> Result<(), Closed> {
        self.caller.flush().await;
        if !self.gated.is_empty() {
            self.settle().await?;
        } else if self.settled.is_none() && !self.output.is_empty() && self.stream.is_socket() {
            turns::let_others_come().await;
        }
        self.settled = None;
        self.put_pushes();
        if !self.output.is_empty() {
            self.write().await?;
        }
        Ok(())
    }

    /// Writes all replies, within the limits on what a client may leave unread.
    async fn write(&mut self) -> Result<(), Closed> {
        let total = self.output.len() as u64;
        let mut unread_since: Option<Instant> = None;
        // What is too much is not begun, though the socket might take all of it.
        self.patience(&mut unread_since)?;
        let mut was_served = None;
        while !self.output.is_empty() {
            match self.try_write() {
                Ok(0) => return Err(Closed),
                Ok(written) => {
                    self.caller.tally.writes += 1;
                    self.output.advance(written);
                    if was_served.is_some() {
                        self.session.client.is_active();
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            let client = &self.session.client;
            client.output_bytes.store(self.output.len(), Relaxed);
            // From here on it is the client that is waited for.
            was_served.get_or_insert_with(|| client.is_served.swap(false, Relaxed));
            let patience = self.patience(&mut unread_since)?;
            tokio::select! {
                ready = self.stream.writable() => ready?,
                () = self.session.client.killed() => return Err(Closed),
                () = sleep_until(patience) => {
                    return Err(self.closed_for_output(self.output.len()));
                }
            }
        }
        let client = &self.session.client;
        client.output_bytes.store(0, Relaxed);
        client.is_active();
        if let Some(was_served) = was_served {
            client.is_served.store(was_served, Relaxed);
        }
        self.caller.tally.output_bytes += total;
        Ok(())
    }

    fn try_write(&mut self) -> io::Result<usize> {
        if self.output.chunk().len() == self.output.remaining() {
            return self.stream.try_write(self.output.chunk());
        }
        let mut slices = [io::IoSlice::new(&[]); 64];
        let count = self.output.chunks_vectored(&mut slices);
        self.stream.try_write_vectored(&slices[..count])
    }

    /// How long the client may leave what waits unread; over the hard limit it may not at all.
    fn patience(&mut self, unread_since: &mut Option<Instant>) -> Result<Option<Instant>, Closed> {
        let pushes = self.session.client.pushes();
        let class = pushes.map_or(OutputClass::Normal, Pushes::class);
        let limits = self.shared.config.live.output(class);
        let (hard, soft) = (limits.hard_bytes, limits.soft_bytes);
        let waiting = self.output.len() + pushes.map_or(0, |pushes| pushes.waiting().1);
        let counted = if waiting > OUTPUT_UNCOUNTED_BYTES { waiting } else { 0 };
        let too_much = (hard > 0 && counted > hard)
            || (!self.session.authenticated && waiting > OUTPUT_BEFORE_AUTH_BYTES_MAX);
        if too_much {
            return Err(self.closed_for_output(waiting));
        }
        if soft == 0 || counted <= soft {
            *unread_since = None;
            return Ok(None);
        }
        let since = *unread_since.get_or_insert_with(Instant::now);
        Ok(Some(since + Duration::from_secs(limits.soft_s)))
    }

    /// The end of a connection that leaves too much unread, or for too long.
    fn closed_for_output(&mut self, waiting: usize) -> Closed {
        tracing::warn!(conn = self.session.client.id, waiting, "closed: its replies are not read");
        self.caller.tally.output_limit_disconnections += 1;
        Closed
    }

    /// Bounds on what the client may send, by CONFIG and by whether it has logged in.
    pub(crate) fn update_limits(&mut self) {
        let live = &self.shared.config.live;
        let limits = if self.session.authenticated {
            Limits {
                bulk_bytes: live.proto_max_bulk_len.load(Relaxed) as usize,
                query_buffer_bytes: live.query_buffer_bytes.load(Relaxed) as usize,
                ..Limits::DEFAULT
            }
        } else {
            Limits::BEFORE_AUTH
        };
        if *self.decoder.limits() != limits {
            self.decoder.set_limits(limits);
        }
    }
}

/// Whether a reply is made of pushes (SUBSCRIBE and its kin).
fn is_pushes(reply: &Reply) -> bool {
    let is_push = |reply: &Reply| matches!(reply, Reply::Push(_));
    matches!(reply, Reply::Sequence(replies) if replies.iter().all(is_push))
}

/// Reads what the socket holds into a buffer's free space; 0 at the end of the stream.
fn poll_read_into(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut free = ReadBuf::uninit(buffer.spare_capacity_mut());
    std::task::ready!(stream.poll_read(cx, &mut free))?;
    let read = free.filled().len();
    // SAFETY: `filled` are the first `read` bytes of the buffer's free space, now initialized.
    unsafe { buffer.advance_mut(read) };
    Poll::Ready(Ok(read))
}

/// Sleeps until then, or for ever.
pub(crate) async fn sleep_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}

/// What must be durable before a reply may leave: mostly nothing or one thing.
pub(crate) type Gates = SmallVec<[Gate; 1]>;

/// An executed command: its reply, and what must be durable before it may leave.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) reply: Reply,
    pub(crate) gates: Gates,
    pub(crate) writes: bool,
    /// Whether it can be made again, with the line it was made with.
    pub(crate) repeatable: bool,
    /// The name it was made under.
    pub(crate) request: Option<RequestId>,
}

impl Done {
    /// What several partitions, or none, answered.
    pub(crate) fn gated(reply: Reply, gates: Gates, writes: bool) -> Done {
        Done { reply, gates, writes, repeatable: false, request: None }
    }

    /// A partition's answer.
    pub(crate) fn new(answered: Answered, writes: bool) -> Done {
        let gates = answered.gate.into_iter().collect();
        let request = answered.request;
        Done { reply: answered.reply, gates, writes, repeatable: false, request }
    }
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Done {
        Done::gated(reply, Gates::new(), false)
    }
}

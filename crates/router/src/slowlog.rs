//! SLOWLOG: the last commands that took longer than a threshold to execute.
//!
//! As in Redis the time is the execution's alone: not the time in the network, nor the wait for the
//! quorum, nor a pause. The ring is behind a mutex that only slow commands and SLOWLOG itself take.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use commands::table::Entry;
use commands::{Flags, Run, Session};

use crate::connection::Connection;
use crate::latency::Sample;

/// Most arguments of a command that are kept.
const ARGS_MAX: usize = 32;
/// Most bytes of an argument that are kept.
const ARG_BYTES_MAX: usize = 128;

/// A slow command.
#[derive(Clone, Debug)]
pub(crate) struct SlowCommand {
    pub(crate) id: i64,
    /// Seconds since the epoch.
    pub(crate) at_s: i64,
    pub(crate) took_us: i64,
    pub(crate) args: Vec<Bytes>,
    pub(crate) peer: String,
    pub(crate) client_name: Bytes,
}

/// The ring of slow commands, newest first.
#[derive(Default, Debug)]
pub(crate) struct Slowlog {
    entries: VecDeque<SlowCommand>,
    next_id: i64,
}

impl Slowlog {
    pub(crate) fn push(
        &mut self,
        (at_s, took): (i64, Duration),
        args: &[Bytes],
        (peer, client_name): (String, Bytes),
        length_max: usize,
    ) {
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        let args = shortened(args);
        let id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(SlowCommand { id, at_s, took_us, args, peer, client_name });
        self.entries.truncate(length_max);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn newest(&self, count: usize) -> Vec<SlowCommand> {
        self.entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

/// Looks at how long a command took: the slow log and LATENCY's events follow from it.
pub(crate) fn observe(connection: &Connection, entry: &Entry, args: &[Bytes], took: Duration) {
    let shared = &connection.shared;
    let live = &shared.config.live;
    let threshold_us = live.slowlog_slower_than_us.load(Relaxed);
    let took_us = took.as_micros() as i64;
    if threshold_us >= 0 && took_us >= threshold_us && !entry.command.flags.has(Flags::SKIP_SLOWLOG)
    {
        let length_max = live.slowlog_max_len.load(Relaxed) as usize;
        let client = &connection.session.client;
        let from = (client.peer.to_string(), client.names.lock().name.clone());
        let args = redacted(entry, args);
        shared.slowlog.lock().push((shared.now_s(), took), &args, from, length_max);
    }
    let threshold_ms = live.latency_threshold_ms.load(Relaxed);
    if threshold_ms > 0 && took_us >= threshold_ms as i64 * 1000 {
        let fast = entry.command.flags.has(Flags::FAST);
        let event = if fast { "fast-command" } else { "command" };
        let took_ms = took.as_millis() as u64;
        shared.latency.add(event, Sample { at_s: shared.now_s(), took_ms });
    }
}

/// What stands in the place of a password.
pub(crate) const REDACTED: &str = "(redacted)";

/// Whether an argument is a password, or who logs in with it: such do not belong in a log.
pub(crate) fn is_secret(entry: &Entry, args: &[Bytes], at: usize) -> bool {
    match entry.command.run {
        Run::Session(Session::Auth) => at >= 1,
        Run::Session(Session::Hello) => {
            let is_auth = |at: usize| at >= 2 && args[at].eq_ignore_ascii_case(b"AUTH");
            (at >= 3 && is_auth(at - 1)) || (at >= 4 && is_auth(at - 2))
        }
        Run::Session(Session::Migrate) => {
            let is =
                |at: usize, word: &str| at >= 6 && args[at].eq_ignore_ascii_case(word.as_bytes());
            at >= 7 && (is(at - 1, "AUTH") || is(at - 1, "AUTH2") || is(at - 2, "AUTH2"))
        }
        Run::Session(Session::ConfigSet) => at >= 3,
        Run::Session(Session::AclSetuser | Session::AclDeluser | Session::AclGetuser) => at >= 2,
        _ => false,
    }
}

fn redacted<'a>(entry: &Entry, args: &'a [Bytes]) -> Cow<'a, [Bytes]> {
    let mut redacted = Cow::Borrowed(args);
    for at in 1..args.len() {
        if is_secret(entry, args, at) {
            redacted.to_mut()[at] = Bytes::from_static(REDACTED.as_bytes());
        }
    }
    redacted
}

/// The arguments as SLOWLOG keeps them: a bounded number, each of bounded length, copied so that
/// they do not hold the buffer they were read into.
fn shortened(args: &[Bytes]) -> Vec<Bytes> {
    let kept = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut short: Vec<Bytes> = args[..kept].iter().map(shortened_arg).collect();
    if kept < args.len() {
        short.push(Bytes::from(format!("... ({} more arguments)", args.len() - kept)));
    }
    short
}

fn shortened_arg(arg: &Bytes) -> Bytes {
    if arg.len() <= ARG_BYTES_MAX {
        return Bytes::copy_from_slice(arg);
    }
    let mut short = arg[..ARG_BYTES_MAX].to_vec();
    short.extend(format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX).into_bytes());
    Bytes::from(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_shortened() {
        let mut log = Slowlog::default();
        let args = vec![Bytes::from(vec![b'x'; 200]); 40];
        for _ in 0..3 {
            let client = (String::new(), Bytes::new());
            log.push((1, Duration::from_micros(7)), &args, client, 2);
        }
        assert_eq!(log.len(), 2);
        let newest = &log.newest(1)[0];
        assert_eq!((newest.id, newest.took_us, newest.args.len()), (2, 7, 32));
        assert_eq!(newest.args[31], Bytes::from_static(b"... (9 more arguments)"));
        assert!(newest.args[0].ends_with(b"... (72 more bytes)"));
    }
}

//! SLOWLOG: the last commands that took longer than a threshold to execute.
//!
//! As in Redis the time is the execution's alone: not the time in the network, nor the wait for the
//! quorum, nor a pause. The ring is behind a mutex that only slow commands and SLOWLOG itself take.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

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

/// The arguments as SLOWLOG keeps them: a bounded number, each of bounded length, copied so that
/// they do not hold the buffer they were read into.
fn shortened(args: &[Bytes]) -> Vec<Bytes> {
    let kept = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut short: Vec<Bytes> = args[..kept].iter().map(|arg| shortened_arg(arg)).collect();
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

//! MONITOR: every command that this router has run, shown to whoever asked for it.
//!
//! While nobody monitors, a command costs one relaxed load. A line shows a command when it was
//! evaluated; like in Redis that is before anybody could see its reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::{BufMut, Bytes, BytesMut};
use commands::{Flags, table::Entry};
use parking_lot::RwLock;

use crate::clients::Client;
use crate::pushes::Push;
use crate::slowlog;

/// The connections that monitor.
#[derive(Default, Debug)]
pub(crate) struct Monitors {
    any: AtomicBool,
    clients: RwLock<Vec<Arc<Client>>>,
}

/// Who ran a command, for its line.
pub(crate) struct Origin {
    /// Microseconds since the epoch.
    pub(crate) at_us: u64,
    pub(crate) table: u32,
    /// Where from; `None`: from a script.
    pub(crate) peer: Option<SocketAddr>,
}

impl Monitors {
    /// Whether anybody monitors.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Shows a command to all that monitor, unless it is one of an administrator's.
    pub(crate) fn show(&self, entry: &Entry, args: &[Bytes], origin: &Origin) {
        if !entry.command.flags.has(Flags::SKIP_MONITOR) {
            self.show_of_script(entry, args, origin);
        }
    }

    /// Shows a script, or a command of one: a script is shown when what it did is.
    pub(crate) fn show_of_script(&self, entry: &Entry, args: &[Bytes], origin: &Origin) {
        if entry.command.flags.has(Flags::ADMIN) {
            return;
        }
        let line = line(entry, args, origin);
        self.clients.read().iter().for_each(|client| client.push(Push::Line(line.clone())));
    }

    fn add(&self, client: Arc<Client>) {
        let mut clients = self.clients.write();
        clients.push(client);
        self.any.store(true, Relaxed);
    }

    fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.retain(|client| client.id != id);
        self.any.store(!clients.is_empty(), Relaxed);
    }
}

/// `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`
fn line(entry: &Entry, args: &[Bytes], origin: &Origin) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + args.iter().map(|arg| arg.len() + 3).sum::<usize>());
    let (seconds, micros) = (origin.at_us / 1_000_000, origin.at_us % 1_000_000);
    let peer = origin.peer.map_or("lua".to_owned(), |peer| peer.to_string());
    let head = format!("+{seconds}.{micros:06} [{} {peer}]", origin.table);
    out.put_slice(head.as_bytes());
    for (at, arg) in args.iter().enumerate() {
        out.put_slice(b" \"");
        if slowlog::is_secret(entry, args, at) {
            out.put_slice(slowlog::REDACTED.as_bytes());
        } else {
            put_escaped(arg, &mut out);
        }
        out.put_u8(b'"');
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

/// As C writes a string.
fn put_escaped(text: &[u8], out: &mut BytesMut) {
    for byte in text {
        match byte {
            b'\\' | b'"' => out.put_slice(&[b'\\', *byte]),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            7 => out.put_slice(b"\\a"),
            8 => out.put_slice(b"\\b"),
            b' '..=b'~' => out.put_u8(*byte),
            other => out.put_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
}

/// A connection that monitors; not any more once this is dropped.
pub(crate) struct Monitoring {
    hub: Arc<crate::Hub>,
    client: Arc<Client>,
}

impl std::fmt::Debug for Monitoring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitoring")
    }
}

impl Monitoring {
    /// Starts. The client must have a queue of pushes.
    pub(crate) fn start(hub: Arc<crate::Hub>, client: Arc<Client>) -> Monitoring {
        if let Some(pushes) = client.pushes() {
            pushes.monitors.store(true, Relaxed);
        }
        hub.monitors.add(client.clone());
        Monitoring { hub, client }
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.hub.monitors.remove(self.client.id);
        if let Some(pushes) = self.client.pushes() {
            pushes.monitors.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use commands::table;

    use super::*;

    #[test]
    fn a_line_is_as_redis_writes_it() {
        let show = |args: &[&'static [u8]]| {
            let args: Vec<Bytes> = args.iter().map(|arg| Bytes::from_static(arg)).collect();
            let entry = table::lookup(&args[0]).expect("a command");
            let peer = Some("127.0.0.1:60866".parse().expect("an address"));
            let origin = Origin { at_us: 1_339_518_083_007_412, table: 3, peer };
            String::from_utf8(line(entry, &args, &origin).to_vec()).expect("text")
        };
        let head = "+1339518083.007412 [3 127.0.0.1:60866]";
        assert_eq!(
            show(&[b"set", b"a\0\"\\", b"\r\n\t\xff\x07 ~"]),
            format!("{head} \"set\" \"a\\x00\\\"\\\\\" \"\\r\\n\\t\\xff\\a ~\"\r\n")
        );
        assert_eq!(
            show(&[b"AUTH", b"me", b"secret"]),
            format!("{head} \"AUTH\" \"(redacted)\" \"(redacted)\"\r\n")
        );
        assert_eq!(
            show(&[b"HELLO", b"3", b"AUTH", b"me", b"secret", b"SETNAME", b"x"]),
            format!(
                "{head} \"HELLO\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"x\"\r\n"
            )
        );
    }
}

//! File descriptors: how many the process may have, and how they are divided between its clients and its
//! storage nodes.
//!
//! ```text
//! RLIMIT_NOFILE, raised
//!   ├─ the process itself, and what is kept free for nodes that need more than usual
//!   ├─ each node: its log, tables that are being made; tables kept open for reading
//!   └─ the rest: clients, at most `maxclients`
//! ```
//!
//! A client that comes when only those are left that are kept free is refused, so that connections never
//! keep a node from its disk.

use anyhow::{Result, ensure};

/// Descriptors of the process itself: streams, listeners, the runtime, the lock of the data folder.
const PROCESS: u64 = 32;
/// Descriptors that no client gets: logs grow while a node is away, and snapshots are sent.
const KEPT_FREE: u64 = 64;
/// Descriptors of a node besides its open tables: segments of its log and the ring that it is written with,
/// runs that are being written.
const NODE: u64 = 64;
/// Tables that a node keeps open, if there are descriptors enough, and at least.
const TABLES_MAX: u64 = 900;
const TABLES_MIN: u64 = 32;
/// If there are not enough, the nodes' tables get this part of them.
const TABLES_SHARE: u64 = 4;

/// Who may have how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptors {
    /// Clients that there is room for, if more are wanted.
    pub(crate) clients_max: u64,
    /// A client's descriptor is below this number: the system gives out the lowest that is free.
    pub(crate) below: u64,
    /// Tables that a node keeps open.
    pub(crate) tables: u64,
}

impl Descriptors {
    /// Raises the process's limit to what is wanted, or as far as it may go, and divides what it comes to.
    /// `is_default`: nobody asked for just so many clients.
    ///
    /// *Errors*: it is not enough for a single client.
    pub(crate) fn claim(clients: u64, is_default: bool, nodes: u32) -> Result<Descriptors> {
        let wanted = PROCESS + KEPT_FREE + u64::from(nodes) * (NODE + TABLES_MAX) + clients;
        let limit = raise_limit(wanted);
        let divided = Descriptors::divide(limit, clients, nodes);
        let needed = PROCESS + KEPT_FREE + u64::from(nodes) * (NODE + TABLES_MIN) + clients;
        ensure!(
            divided.clients_max > 0,
            "Your current 'ulimit -n' of {limit} is not enough for the server to start. Please \
             increase your open file limit to at least {needed}. Exiting."
        );
        if divided.clients_max < clients {
            let told = format!(
                "You requested maxclients of {clients} requiring at least {needed} max file \
                 descriptors. Current maximum open files is {limit}. maxclients has been reduced to \
                 {} to compensate for low ulimit. If you need higher maxclients increase 'ulimit -n'.",
                divided.clients_max
            );
            if is_default { tracing::info!("{told}") } else { tracing::warn!("{told}") }
        }
        Ok(divided)
    }

    fn divide(limit: u64, clients: u64, nodes: u32) -> Descriptors {
        let nodes = u64::from(nodes);
        let fixed = PROCESS + KEPT_FREE + nodes * NODE;
        let left = limit.saturating_sub(fixed);
        let plenty = left >= nodes * TABLES_MAX + clients;
        let share = left / TABLES_SHARE / nodes;
        let tables = if plenty { TABLES_MAX } else { share.clamp(TABLES_MIN, TABLES_MAX) };
        Descriptors {
            clients_max: left.saturating_sub(nodes * tables),
            below: limit.saturating_sub(KEPT_FREE),
            tables,
        }
    }
}

/// Raises the limit to what is wanted, which root may do beyond the hard one, or to the hard one; what it
/// is then.
fn raise_limit(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through the call, which fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "the limit of file descriptors is not known: taken to be {UNKNOWN}");
        return UNKNOWN;
    }
    let hard = limit.rlim_max;
    for (soft, hard) in [(wanted.max(hard), wanted.max(hard)), (hard, hard)] {
        let raised = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the structure lives through the call, which reads it.
        if limit.rlim_cur < soft && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            limit = raised;
        }
    }
    limit.rlim_cur
}

/// The limit if it cannot be asked for.
const UNKNOWN: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_nodes_do_not_need() {
        let divided = Descriptors::divide(1 << 20, 20_000, 3);
        assert!(divided.clients_max >= 20_000);
        assert_eq!(divided.tables, TABLES_MAX);
        for (limit, nodes) in [(1024, 3), (1024, 1), (4096, 3), (65_536, 99)] {
            let Descriptors { clients_max, below, tables } =
                Descriptors::divide(limit, 20_000, nodes);
            assert!(clients_max > 0 && tables >= TABLES_MIN, "{limit} {nodes}");
            assert_eq!(below, limit - KEPT_FREE);
            let nodes = u64::from(nodes);
            assert!(clients_max + nodes * (NODE + tables) + PROCESS + KEPT_FREE <= limit);
        }
        assert_eq!(Descriptors::divide(256, 20_000, 3).clients_max, 0);
    }
}

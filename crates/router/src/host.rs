//! What a router needs from the process it runs in.

use std::sync::Arc;
use std::time::Duration;

use crate::hub::Hub;

/// How SHUTDOWN wants the process to end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shutdown {
    /// Do not wait for anything that can be left to recovery.
    pub now: bool,
    /// Go on even if something that should have been done first fails.
    pub force: bool,
}

/// The process a router runs in, implemented by `server`.
pub trait Host: Send + Sync + 'static {
    /// Begins to end the process; the connection that asked gets no reply if this succeeds.
    ///
    /// *Errors*: a text for the log; the client is told to look there, as Redis does.
    fn shutdown(&self, how: Shutdown) -> Result<(), String>;

    /// Stops what [`Host::shutdown`] began; false if nothing was begun.
    fn abort_shutdown(&self) -> bool;

    /// The file CONFIG REWRITE writes and INFO names, if the process was started with one.
    fn config_file(&self) -> Option<String>;

    /// Writes these parameters, all that differ from their defaults, to the configuration file.
    ///
    /// *Errors*: a text for the client.
    fn rewrite_config(&self, parameters: &[(&str, String)]) -> Result<(), String>;

    /// The ACL file's text (`aclfile`).
    ///
    /// *Errors*: why it cannot be read.
    fn read_acl_file(&self, path: &str) -> Result<Vec<u8>, String>;

    /// Puts this text in the place of the ACL file's, on the disk when it returns.
    ///
    /// *Errors*: a text for the log.
    fn write_acl_file(&self, path: &str, text: &[u8]) -> Result<(), String>;

    /// Makes the log speak of more or less: `debug`, `verbose`, `notice` or `warning`.
    fn set_log_level(&self, level: &str);

    /// The allocator, for INFO.
    fn allocator(&self) -> &'static str {
        "libc"
    }

    /// Bytes the allocator has given out, if it can tell.
    fn allocated_bytes(&self) -> Option<u64>;
}

/// How a router is set up.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// Parameters by their redis.conf names, as CONFIG SET takes them; those not given have their
    /// defaults.
    pub parameters: Vec<(String, String)>,
    /// How long a request may wait for a leader, a route or a quorum.
    pub request_timeout: Duration,
    /// Names this life of the router in its requests: no other start of any router has the same number.
    /// Default: random.
    pub life: u64,
    /// Whether ADMIN FAULT works.
    pub enable_faults: bool,
    /// Evenkeel's version, for INFO.
    pub evenkeel_version: String,
    /// The path of the program, for INFO.
    pub executable: String,
    /// Who is told what unasked; storage nodes may hold it, too.
    pub hub: Arc<Hub>,
    /// Whether databases may have changed tables (SWAPDB): what is in the system's own table about it is
    /// asked for at the start, and calls wait until it is known. Default: no, for tests.
    pub keeps_databases: bool,
    /// Connections that the process has room for: `maxclients` can be set to no more.
    pub clients_max: u64,
    /// A connection is refused if its descriptor is not below this: the last ones are for storage.
    pub sockets_below: u64,
}

impl Default for RouterOptions {
    fn default() -> RouterOptions {
        RouterOptions {
            parameters: Vec::new(),
            request_timeout: Duration::from_secs(5),
            life: rand::random(),
            enable_faults: false,
            evenkeel_version: env!("CARGO_PKG_VERSION").to_owned(),
            executable: String::new(),
            hub: Arc::default(),
            keeps_databases: false,
            clients_max: u64::MAX,
            sockets_below: u64::MAX,
        }
    }
}

//! Accepting connections, and the clock tick of a router.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use memds::MemdsClient;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use wire::resp::Reply;
use wire::service::StorageService;

use commands::CommandError;

use crate::cache::RouteCache;
use crate::clients::{Client, Clients};
use crate::config::Config;
use crate::connection::Connection;
use crate::databases;
use crate::host::{Host, RouterOptions};
use crate::joint::Joint;
use crate::latency::Latency;
use crate::run::{self, wait::Applied};
use crate::session::Session;
use crate::shared::{Shared, Traffic};
use crate::slowlog::Slowlog;
use crate::stats::{Counters, Stats};
use crate::stream::Stream;
use crate::users::{Login, Users};

/// How long accepting rests when the process is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often per-second figures are sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Samples between looks at idle connections and updates of metrics.
const SAMPLES_PER_SWEEP: u32 = 10;
/// Bytes that may be under way in each direction of a connection from within the process.
const ATTACHED_BYTES: usize = 64 << 10;
/// How long a client may take to log in.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// A router. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ticking: Arc<AtomicBool>,
    /// The map of databases is being asked for, or was.
    loading: Arc<AtomicBool>,
}

impl Router {
    /// A router over these storage nodes. `memds` is a running client whose answers go to
    /// [`RouteCache::learn`] of `cache`.
    ///
    /// *Errors*: a text that names the parameter that does not exist or is invalid, or what is wrong with
    /// the ACL file.
    pub fn new(
        options: RouterOptions,
        storage: Arc<dyn StorageService>,
        memds: Arc<MemdsClient>,
        cache: Arc<RouteCache>,
        host: Arc<dyn Host>,
    ) -> Result<Router, String> {
        let config = Config::new(&options.parameters)?;
        let users = Users::new(&config.get("requirepass"));
        let run_id = (0..5).map(|_| format!("{:08x}", rand::random::<u32>())).collect();
        let shared = Arc::new(Shared {
            memds,
            options,
            config,
            clients: Clients::new(),
            users,
            stats: Stats::new(),
            slowlog: Mutex::new(Slowlog::default()),
            latency: Latency::default(),
            applied: Applied::default(),
            joint: Joint::default(),
            cache,
            storage,
            host,
            started: Instant::now(),
            run_id,
        });
        shared.limit_scripts();
        shared.shape_values();
        shared.configure_hub();
        if shared.options.keeps_databases {
            shared.hub().databases.forget();
        }
        run::acl::load_at_start(&shared)?;
        let stop = watch::Sender::new(false);
        Ok(Router { shared, stop, ticking: Arc::default(), loading: Arc::default() })
    }

    /// Accepts and serves connections until [`Router::stop`]. May be called for several listeners
    /// at once.
    pub async fn serve(&self, listener: TcpListener) {
        self.start_ticking();
        if self.shared.options.keeps_databases && !self.loading.swap(true, Relaxed) {
            tokio::spawn(databases::load(Arc::clone(&self.shared)));
        }
        let mut stopped = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    /// Stops accepting, lets each connection finish what it is doing and closes it. Resolves when all
    /// are closed or `grace` has passed; then the rest is cut off.
    pub async fn stop(&self, grace: Duration) {
        self.stop.send_replace(true);
        let deadline = Instant::now() + grace;
        while self.shared.clients.count() > 0 && Instant::now() < deadline {
            self.shared.clients.all().iter().for_each(|client| client.drain());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.clients.all().iter().for_each(|client| client.kill());
    }

    /// What routing cost since the start.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }

    /// Empties the route cache (ADMIN CACHE FLUSH).
    pub fn flush_cache(&self) {
        self.shared.cache.flush();
    }

    /// The value of a parameter, as CONFIG GET answers it; `None` if there is none of this name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let name = bytes::Bytes::copy_from_slice(name.as_bytes());
        self.shared.config.matching(&[name]).pop().map(|(_, value)| value)
    }

    fn welcome(&self, stream: TcpStream) {
        let shared = &self.shared;
        if let Some(refusal) = self.refusal(&stream) {
            shared.stats.add(&mut Counters { refused_connections: 1, ..Counters::default() });
            refuse(&stream, refusal);
            return;
        }
        let (login, authenticated) = shared.users.welcome();
        let Ok(client) = self.client_of(&stream, &login) else { return };
        self.start(Stream::Socket(stream), client, (login, authenticated));
    }

    /// A connection from within the process. Must be called within a runtime.
    pub fn attach(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(ATTACHED_BYTES);
        let (login, authenticated) = self.shared.users.welcome();
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let id = self.shared.clients.next_id();
        let client = Client::new(id, (nowhere, nowhere), 0, login.account.clone());
        self.start(Stream::Memory(near), client, (login, authenticated));
        far
    }

    /// Serves a client, in a task of its own.
    fn start(&self, stream: Stream, client: Client, (login, authenticated): (Login, bool)) {
        let shared = &self.shared;
        let client = Arc::new(client);
        shared.stats.add(&mut Counters { connections: 1, ..Counters::default() });
        shared.clients.add(client.clone());
        let registered = Registered { shared: shared.clone(), id: client.id };
        let session = Session::new(client, login, authenticated);
        let mut connection = Connection::new(shared.clone(), stream, session);
        tokio::spawn(async move {
            // Leaves the registry however the connection ends.
            let _registered = registered;
            connection.run().await;
        });
    }

    /// Why a connection is not taken in, if it is not.
    fn refusal(&self, stream: &TcpStream) -> Option<CommandError> {
        let shared = &self.shared;
        let max = shared.config.live.maxclients.load(Relaxed);
        let descriptor = stream.as_raw_fd().unsigned_abs();
        let is_full = shared.clients.count() as u64 >= max
            || u64::from(descriptor) >= shared.options.sockets_below;
        if is_full {
            return Some(CommandError::MAX_CLIENTS);
        }
        // Who has gone already learns nothing.
        let peer = stream.peer_addr().ok()?.ip();
        let protects = shared.config.live.protected_mode.load(Relaxed)
            && shared.users.default_needs_no_password();
        (protects && !peer.to_canonical().is_loopback()).then_some(CommandError::PROTECTED_MODE)
    }

    fn client_of(&self, stream: &TcpStream, login: &Login) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        let keepalive_s = self.shared.config.live.tcp_keepalive_s.load(Relaxed);
        if keepalive_s > 0 {
            let every = Duration::from_secs((keepalive_s / 3).max(1));
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(Duration::from_secs(keepalive_s))
                .with_interval(every)
                .with_retries(3);
            socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
        }
        let id = self.shared.clients.next_id();
        let socket = i64::from(stream.as_raw_fd());
        let ends = (stream.peer_addr()?, stream.local_addr()?);
        Ok(Client::new(id, ends, socket, login.account.clone()))
    }

    fn start_ticking(&self) {
        if self.ticking.swap(true, Relaxed) {
            return;
        }
        let shared = self.shared.clone();
        let mut stopped = self.stop.subscribe();
        tokio::spawn(async move {
            let mut last = Instant::now();
            for tick in 1u32.. {
                tokio::select! {
                    () = tokio::time::sleep(SAMPLE_EVERY) => {}
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
                shared.stats.sample(last.elapsed());
                last = Instant::now();
                evict(&shared);
                if tick.is_multiple_of(SAMPLES_PER_SWEEP) {
                    sweep(&shared);
                }
            }
        });
    }
}

/// A connection's place in the registry.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.clients.remove(self.id);
    }
}

/// Whether only the connection that was being accepted is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Says why a connection is not taken in, as Redis does, and closes.
fn refuse(stream: &TcpStream, refusal: CommandError) {
    let Reply::Error(line) = Reply::from(refusal) else { return };
    let line = [b"-", &line[..], b"\r\n"].concat();
    // The socket is new, so it has room; if not, the client is told by the closing alone.
    let _ = socket2::SockRef::from(stream).send(&line);
}

/// Closes the connections that hold the most, if all together hold too much.
fn evict(shared: &Shared) {
    let Some(most) = shared.config.clients_bytes_max() else { return };
    let evicted_clients = shared.clients.evict(most);
    if evicted_clients > 0 {
        shared.stats.add(&mut Counters { evicted_clients, ..Counters::default() });
    }
}

/// Closes connections that are idle too long or do not log in, and updates the metrics.
fn sweep(shared: &Shared) {
    let live = &shared.config.live;
    let timeout_s = live.timeout_s.load(Relaxed);
    let password_required = !shared.users.is_open();
    if timeout_s > 0 || password_required {
        for client in shared.clients.all() {
            let idle = timeout_s > 0
                && client.idle() > Duration::from_secs(timeout_s)
                && client.may_time_out();
            let stranger = client.stranger_for().is_some_and(|age| age > LOGIN_WITHIN);
            if idle || (password_required && stranger) {
                client.kill();
            }
        }
    }
    for client in shared.clients.all() {
        client.close_if_overdue();
    }
    let totals = shared.stats.totals();
    for (name, value) in [
        ("router_commands_total", totals.commands),
        ("router_errors_total", totals.errors),
        ("router_connections_total", totals.connections),
        ("router_refused_connections_total", totals.refused_connections),
        ("router_input_bytes_total", totals.input_bytes),
        ("router_output_bytes_total", totals.output_bytes),
        ("router_routed_commands_total", totals.routed),
        ("router_cache_hits_total", totals.cache_hits),
        ("router_cache_misses_total", totals.cache_misses),
        ("router_memds_lookups_total", totals.lookups),
        ("router_route_corrections_total", totals.corrections),
        ("router_retries_total", totals.retries),
        ("router_gates_lost_total", totals.gates_lost),
        ("router_gates_unknown_total", totals.gates_unknown),
        ("router_calls_made_again_total", totals.repeated),
    ] {
        metrics::counter!(name).absolute(value);
    }
    metrics::gauge!("router_connections").set(shared.clients.count() as f64);
}

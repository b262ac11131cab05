//! What all connections of a router share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use memds::MemdsClient;
use parking_lot::Mutex;
use wire::service::{ScriptControl, StorageService};

use crate::cache::RouteCache;
use crate::clients::Clients;
use crate::config::Config;
use crate::host::{Host, RouterOptions};
use crate::hub::Hub;
use crate::joint::Joint;
use crate::latency::Latency;
use crate::run::wait::Applied;
use crate::slowlog::Slowlog;
use crate::stats::Stats;
use crate::users::Users;

/// The state of a router that is not one connection's.
pub(crate) struct Shared {
    pub(crate) options: RouterOptions,
    pub(crate) config: Config,
    pub(crate) clients: Clients,
    pub(crate) users: Users,
    pub(crate) stats: Stats,
    pub(crate) slowlog: Mutex<Slowlog>,
    pub(crate) latency: Latency,
    pub(crate) applied: Applied,
    pub(crate) cache: Arc<RouteCache>,
    pub(crate) joint: Joint,
    pub(crate) storage: Arc<dyn StorageService>,
    pub(crate) memds: Arc<MemdsClient>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) started: Instant,
    /// Forty hexadecimal digits, new at each start, as INFO shows them.
    pub(crate) run_id: String,
}

/// What a router's calls cost: for tests, benchmarks and metrics. Sums since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Calls routed to partitions.
    pub routed: u64,
    /// Of these, those whose route was cached.
    pub cache_hits: u64,
    /// Of these, those whose route was not.
    pub cache_misses: u64,
    /// Lookups sent to MemDS for them: one each.
    pub lookups: u64,
    /// Lookups because a route turned out wrong, on top.
    pub corrections: u64,
    /// Calls made again before they were executed.
    pub retries: u64,
}

impl Shared {
    /// Seconds since the epoch.
    pub(crate) fn now_s(&self) -> i64 {
        (self.now_us() / 1_000_000) as i64
    }

    /// Microseconds since the epoch.
    pub(crate) fn now_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }

    /// Whether it is kept how long commands take (`latency-tracking`).
    pub(crate) fn tracks_latency(&self) -> bool {
        self.config.live.latency_tracking.load(Relaxed)
    }

    pub(crate) fn databases(&self) -> u32 {
        u32::try_from(self.config.live.databases.load(Relaxed)).unwrap_or(u32::MAX)
    }

    /// Tells the storage nodes what scripts may use.
    pub(crate) fn limit_scripts(&self) {
        self.storage.scripts(ScriptControl::Limits(self.config.script_limits()));
    }

    /// Has values kept as CONFIG says.
    pub(crate) fn shape_values(&self) {
        self.storage.shape(self.config.value_shapes());
    }

    /// Has the hub do as CONFIG says.
    pub(crate) fn configure_hub(&self) {
        let config = &self.config;
        self.hub().set_events(&config.get("notify-keyspace-events"));
        let keys_max = config.get("tracking-table-max-keys").parse().unwrap_or(0);
        self.hub().tracking.set_keys_max(keys_max);
    }

    /// Who is told what unasked.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.options.hub
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        rand::random()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let totals = self.stats.totals();
        Traffic {
            routed: totals.routed,
            cache_hits: totals.cache_hits,
            cache_misses: totals.cache_misses,
            lookups: totals.lookups,
            corrections: totals.corrections,
            retries: totals.retries,
        }
    }
}

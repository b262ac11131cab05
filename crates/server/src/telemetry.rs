//! Logs: to stderr, one line an event, fields not prose. stdout stays free for the line that says
//! the server is ready.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes what is logged while the server runs.
pub(crate) struct LogLevel {
    handle: reload::Handle<Targets, Registry>,
}

impl LogLevel {
    /// Sets the level by our names or Redis's (`verbose`, `notice`, `warning`).
    pub(crate) fn set(&self, level: &str) {
        if self.handle.reload(filter(level)).is_err() {
            tracing::warn!(level, "log level not changed");
        }
    }
}

/// Starts logging.
pub(crate) fn init(level: &str) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter(level));
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false))
        .init();
    LogLevel { handle }
}

/// The storage engine tells each file it opens as news. It is heard from DEBUG on; its warnings are
/// always.
const ENGINE: &[&str] = &["fjall", "lsm_tree"];

fn filter(level: &str) -> Targets {
    let level = match level {
        "trace" => LevelFilter::TRACE,
        "debug" | "verbose" => LevelFilter::DEBUG,
        "warn" | "warning" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let engine = if level == LevelFilter::INFO { LevelFilter::WARN } else { level };
    let targets = ENGINE.iter().map(|target| (*target, engine));
    Targets::new().with_default(level).with_targets(targets)
}

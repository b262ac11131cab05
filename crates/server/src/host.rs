//! What the router may ask of the process it runs in.

use router::{Host, Shutdown};
use tokio::sync::watch;

use crate::telemetry::LogLevel;

/// The process, for its router.
pub(crate) struct ServerHost {
    shutdown: watch::Sender<bool>,
    logs: LogLevel,
}

impl ServerHost {
    pub(crate) fn new(logs: LogLevel) -> ServerHost {
        ServerHost { shutdown: watch::Sender::new(false), logs }
    }

    /// Resolves once SHUTDOWN was called.
    pub(crate) async fn shutdown_asked(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.shutdown.subscribe().wait_for(|asked| *asked).await;
    }
}

impl Host for ServerHost {
    fn shutdown(&self, _how: Shutdown) -> Result<(), String> {
        // Nothing has to be saved first: all that was acknowledged is in the logs.
        self.shutdown.send_replace(true);
        Ok(())
    }

    fn abort_shutdown(&self) -> bool {
        false
    }

    fn config_file(&self) -> Option<String> {
        None
    }

    fn rewrite_config(&self, _parameters: &[(&str, String)]) -> Result<(), String> {
        Err("ERR The server is running without a config file".to_owned())
    }

    fn set_log_level(&self, level: &str) {
        self.logs.set(level);
    }

    fn allocated_bytes(&self) -> Option<u64> {
        None
    }
}

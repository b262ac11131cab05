//! What the router may ask of the process it runs in.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

    fn read_acl_file(&self, path: &str) -> Result<Vec<u8>, String> {
        fs::read(path).map_err(|error| error.to_string())
    }

    fn write_acl_file(&self, path: &str, text: &[u8]) -> Result<(), String> {
        replace_file(Path::new(path), text).map_err(|error| error.to_string())
    }

    fn set_log_level(&self, level: &str) {
        self.logs.set(level);
    }

    fn allocator(&self) -> &'static str {
        crate::ALLOCATOR_NAME
    }

    fn allocated_bytes(&self) -> Option<u64> {
        None
    }
}

/// Puts a text in the place of a file's: after a crash there is the one or the other, whole. Only the
/// owner may read it, since it has the hashes of passwords.
fn replace_file(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let options = &mut File::options();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // Whatever is left of it; there may be nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users.acl");
        for text in ["user a on", "user b on", ""] {
            replace_file(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let missing = folder.path().join("no").join("users.acl");
        assert!(replace_file(&missing, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}

//! The data folder: one process at a time, and a note of what was made in it.
//!
//! ```text
//! DIR/LOCK       held (flock) by the process that uses the folder
//! DIR/CLUSTER    text: "evenkeel 1" newline "replicas N" newline "databases N" newline
//! DIR/node-N/    a storage node's folder
//! ```

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::config::Config;

const FORMAT: &str = "evenkeel 1";

/// An open data folder. The lock ends with it.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder for this configuration.
    ///
    /// *Errors*: it is in use, or was made with other settings that cannot be changed.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Folder> {
        let path = config.dir.clone();
        fs::create_dir_all(&path)
            .with_context(|| format!("make data folder {}", path.display()))?;
        let lock = File::create(path.join("LOCK")).context("open LOCK")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("data folder {} is in use by another process", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock data folder"),
        }
        check_cluster(&path, config)?;
        Ok(Folder { path, _lock: lock })
    }

    /// The folder of a node.
    pub(crate) fn node(&self, id: u32) -> PathBuf {
        self.path.join(format!("node-{id}"))
    }
}

fn check_cluster(path: &Path, config: &Config) -> anyhow::Result<()> {
    let file = path.join("CLUSTER");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Without the note, data would be opened under settings nobody checked.
            let orphan = path.join("node-1").exists();
            ensure!(!orphan, "{} is missing although the folder holds data", file.display());
            return write_cluster(path, config);
        }
        Err(error) => return Err(error).context(format!("read {}", file.display())),
    };
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    ensure!(format == FORMAT, "{}: format '{format}', this build reads '{FORMAT}'", file.display());
    let mut replicas = None;
    let mut databases = None;
    for line in lines {
        match line.split_once(' ').map(|(name, value)| (name, value.parse::<u32>())) {
            Some(("replicas", Ok(value))) => replicas = Some(value),
            Some(("databases", Ok(value))) => databases = Some(value),
            _ => bail!("{}: cannot read line '{line}'", file.display()),
        }
    }
    let (Some(replicas), Some(databases)) = (replicas, databases) else {
        bail!("{}: incomplete", file.display())
    };
    ensure!(
        replicas == config.replicas,
        "the data folder was made with --replicas {replicas}; it cannot be opened with {}",
        config.replicas
    );
    ensure!(
        databases <= config.databases,
        "the data folder holds {databases} databases; it cannot be opened with --databases {}",
        config.databases
    );
    if databases < config.databases { write_cluster(path, config) } else { Ok(()) }
}

fn write_cluster(path: &Path, config: &Config) -> anyhow::Result<()> {
    let text = format!("{FORMAT}\nreplicas {}\ndatabases {}\n", config.replicas, config.databases);
    let temporary = path.join("CLUSTER.new");
    let mut file = File::create(&temporary).context("write CLUSTER")?;
    file.write_all(text.as_bytes()).context("write CLUSTER")?;
    file.sync_all().context("sync CLUSTER")?;
    fs::rename(&temporary, path.join("CLUSTER")).context("rename CLUSTER")?;
    File::open(path)?.sync_all().context("sync data folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path) -> Config {
        Config { dir: path.to_owned(), ..Config::default() }
    }

    #[test]
    fn a_folder_keeps_its_settings_and_its_owner() {
        let temporary = tempfile::tempdir().expect("a folder for the test");
        let base = config(temporary.path());
        let folder = Folder::open(&base).expect("a new folder");
        let text = Folder::open(&base).err().expect("in use").to_string();
        assert!(text.contains("in use"), "{text}");
        drop(folder);

        let other = Config { replicas: 1, ..base.clone() };
        let text = Folder::open(&other).err().expect("other settings").to_string();
        assert!(text.contains("--replicas 3"), "{text}");
        drop(Folder::open(&Config { databases: 32, ..base.clone() }).expect("more tables"));
        assert!(Folder::open(&base).is_err(), "fewer tables than it holds");
    }

    #[test]
    fn data_without_its_note_is_not_opened() {
        let temporary = tempfile::tempdir().expect("a folder for the test");
        fs::create_dir(temporary.path().join("node-1")).expect("a node's folder");
        assert!(Folder::open(&config(temporary.path())).is_err());
    }
}

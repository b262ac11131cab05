//! The data folder: one process at a time, and a note of what was made in it.
//!
//! ```text
//! DIR/LOCK       held (flock) by the process that uses the folder
//! DIR/CLUSTER    lines: "evenkeel 1", "replicas N", "databases N", and for each storage node
//!                "made ID DATABASES": the tables that it has begun to hold
//! DIR/node-N/    a storage node's folder
//! ```
//!
//! A node whose folder lacks what it is noted to have begun has lost it, and must not begin it again
//! under the name of before.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::config::Config;

const FORMAT: &str = "evenkeel 1";

/// An open data folder. The lock ends with it.
pub(crate) struct Folder {
    path: PathBuf,
    note: Note,
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
        let note = check_cluster(&path, config)?;
        Ok(Folder { path, note, _lock: lock })
    }

    /// How many tables a node has begun to hold.
    pub(crate) fn made(&self, id: u32) -> u32 {
        self.note.made.get(&id).copied().unwrap_or(0)
    }

    /// Notes that a node holds all tables now. Durable when it returns.
    pub(crate) fn note_made(&mut self, id: u32) -> anyhow::Result<()> {
        if self.made(id) == self.note.databases {
            return Ok(());
        }
        self.note.made.insert(id, self.note.databases);
        self.note.write(&self.path)
    }

    /// The folder of a node.
    pub(crate) fn node(&self, id: u32) -> PathBuf {
        self.path.join(format!("node-{id}"))
    }
}

/// What CLUSTER says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Note {
    replicas: u32,
    databases: u32,
    /// By node, how many tables it has begun to hold.
    made: BTreeMap<u32, u32>,
}

fn check_cluster(path: &Path, config: &Config) -> anyhow::Result<Note> {
    let file = path.join("CLUSTER");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Without the note, data would be opened under settings nobody checked.
            let orphan = path.join("node-1").exists();
            ensure!(!orphan, "{} is missing although the folder holds data", file.display());
            let Config { replicas, databases, .. } = *config;
            let note = Note { replicas, databases, made: BTreeMap::new() };
            note.write(path)?;
            return Ok(note);
        }
        Err(error) => return Err(error).context(format!("read {}", file.display())),
    };
    let mut note = Note::read(&text).with_context(|| file.display().to_string())?;
    let Note { replicas, databases, .. } = note;
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
    if let Some(last) = note.made.keys().max().filter(|last| **last > config.nodes) {
        bail!(
            "the data folder holds node {last}; it cannot be opened with --nodes {}",
            config.nodes
        );
    }
    if databases < config.databases {
        note.databases = config.databases;
        note.write(path)?;
    }
    Ok(note)
}

impl Note {
    fn read(text: &str) -> anyhow::Result<Note> {
        let mut lines = text.lines();
        let format = lines.next().unwrap_or_default();
        ensure!(format == FORMAT, "format '{format}', this build reads '{FORMAT}'");
        let (mut replicas, mut databases, mut made) = (None, None, BTreeMap::new());
        for line in lines {
            let mut words = line.split(' ');
            let name = words.next();
            let numbers: Option<Vec<u32>> = words.map(|word| word.parse().ok()).collect();
            match (name, numbers.as_deref()) {
                (Some("replicas"), Some([value])) => replicas = Some(*value),
                (Some("databases"), Some([value])) => databases = Some(*value),
                (Some("made"), Some([id, tables])) => {
                    made.insert(*id, *tables);
                }
                _ => bail!("cannot read line '{line}'"),
            }
        }
        let (Some(replicas), Some(databases)) = (replicas, databases) else { bail!("incomplete") };
        Ok(Note { replicas, databases, made })
    }

    /// Writes the note. Durable when it returns.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text =
            format!("{FORMAT}\nreplicas {}\ndatabases {}\n", self.replicas, self.databases);
        for (id, tables) in &self.made {
            text.push_str(&format!("made {id} {tables}\n"));
        }
        let temporary = path.join("CLUSTER.new");
        let mut file = File::create(&temporary).context("write CLUSTER")?;
        file.write_all(text.as_bytes()).context("write CLUSTER")?;
        file.sync_all().context("sync CLUSTER")?;
        fs::rename(&temporary, path.join("CLUSTER")).context("rename CLUSTER")?;
        File::open(path)?.sync_all().context("sync data folder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path) -> Config {
        Config { dir: path.to_owned(), nodes: 3, ..Config::default() }
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

    #[test]
    fn what_a_node_has_begun_is_noted() {
        let temporary = tempfile::tempdir().expect("a folder for the test");
        let base = config(temporary.path());
        let mut folder = Folder::open(&base).expect("a new folder");
        assert_eq!(folder.made(2), 0);
        folder.note_made(2).expect("noted");
        drop(folder);
        let folder = Folder::open(&Config { databases: 32, ..base.clone() }).expect("more tables");
        assert_eq!((folder.made(1), folder.made(2)), (0, 16), "the new ones are not begun");
        drop(folder);
        assert!(Folder::open(&Config { nodes: 1, databases: 32, ..base }).is_err());
    }
}

//! Files as a node uses them.
//!
//! ```text
//! durable after             OpenFile::sync        what was written to the file
//!                           FileSystem::sync_folder   names in the folder: creations, renames, removals
//! ```

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// To read one that is there.
    Read,
    /// To read and write one that is there.
    Write,
    /// To read and write, made if it is not there.
    Create,
    /// To read and write, empty.
    Truncate,
}

/// A file system that is not the system's.
pub trait FileSystem: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn OpenFile>>;
    /// Makes a folder and those it is in.
    fn create_folders(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder, in the order of names.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether there is a file or a folder of this name.
    fn exists(&self, path: &Path) -> bool;
    /// Gives a file or a folder another name; what had that is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// An open file of a [`FileSystem`].
pub trait OpenFile: Send + Sync + Debug {
    /// Reads what stands at an offset: the number of bytes; fewer than asked for at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes at an offset; the file grows if it must.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// The length.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file, or appends zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Locks the file against others, until it is dropped; false if another has.
    fn try_lock(&self) -> io::Result<bool>;
}

/// Where a node keeps its files.
#[derive(Clone, Default, Debug)]
pub enum Disk {
    /// The system's file system.
    #[default]
    System,
    /// Another.
    Other(Arc<dyn FileSystem>),
}

impl Disk {
    pub(crate) fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        match self {
            Disk::System => {
                let mut options = OpenOptions::new();
                options.read(true).write(how != Open::Read);
                options.create(matches!(how, Open::Create | Open::Truncate));
                options.truncate(how == Open::Truncate).open(path).map(File::System)
            }
            Disk::Other(files) => files.open(path, how).map(File::Other),
        }
    }

    pub(crate) fn create_folders(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::System => std::fs::create_dir_all(path),
            Disk::Other(files) => files.create_folders(path),
        }
    }

    pub(crate) fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match self {
            Disk::System => std::fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect(),
            Disk::Other(files) => files.list(folder),
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        match self {
            Disk::System => path.exists(),
            Disk::Other(files) => files.exists(path),
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Disk::System => std::fs::rename(from, to),
            Disk::Other(files) => files.rename(from, to),
        }
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::System => std::fs::remove_file(path),
            Disk::Other(files) => files.remove_file(path),
        }
    }

    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::System => std::fs::remove_dir_all(path),
            Disk::Other(files) => files.remove_folder(path),
        }
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::System => std::fs::File::open(path).and_then(|folder| folder.sync_all()),
            Disk::Other(files) => files.sync_folder(path),
        }
    }

    /// All that a file holds.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let length = file.length()?;
        file.read_up_to(0, length)
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    /// One of the system's.
    System(std::fs::File),
    /// One of another file system.
    Other(Arc<dyn OpenFile>),
}

impl File {
    /// Fills `bytes`, or fails with [`io::ErrorKind::UnexpectedEof`].
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            File::System(file) => file.read_exact_at(bytes, at),
            File::Other(file) => match file.read_at(bytes, at)? {
                read if read == bytes.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Up to so many bytes from an offset on: fewer where the file ends.
    pub(crate) fn read_up_to(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let left = self.length()?.saturating_sub(at);
        let mut bytes = vec![0; left.min(length) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let (rest, from) = (&mut bytes[filled..], at + filled as u64);
            let read = match self {
                File::System(file) => file.read_at(rest, from)?,
                File::Other(file) => file.read_at(rest, from)?,
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            File::System(file) => file.write_all_at(bytes, at),
            File::Other(file) => file.write_all_at(bytes, at),
        }
    }

    pub(crate) fn length(&self) -> io::Result<u64> {
        match self {
            File::System(file) => Ok(file.metadata()?.len()),
            File::Other(file) => file.length(),
        }
    }

    pub(crate) fn set_length(&self, length: u64) -> io::Result<()> {
        match self {
            File::System(file) => file.set_len(length),
            File::Other(file) => file.set_length(length),
        }
    }

    /// Makes durable what was written within the file's length.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match self {
            File::System(file) => file.sync_data(),
            File::Other(file) => file.sync(),
        }
    }

    /// Waits until what was written has gone to the disk, so that a sync finds little to do. It is not
    /// durable by that, and an error is told again by the sync that counts.
    pub(crate) fn write_back(&self) {
        if let File::System(file) = self {
            write_back(file, Writeback::Awaited);
        }
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        match self {
            File::System(file) => file.sync_all(),
            File::Other(file) => file.sync(),
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<File> {
        match self {
            File::System(file) => file.try_clone().map(File::System),
            File::Other(file) => Ok(File::Other(Arc::clone(file))),
        }
    }

    /// Locks the file against others, until it is dropped; false if another has.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        match self {
            File::System(file) => match file.try_lock() {
                Ok(()) => Ok(true),
                Err(std::fs::TryLockError::WouldBlock) => Ok(false),
                Err(std::fs::TryLockError::Error(error)) => Err(error),
            },
            File::Other(file) => file.try_lock(),
        }
    }
}
/// Whether a write-back is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writeback {
    /// Only begun.
    Begun,
    /// To its end.
    Awaited,
}

/// Sends what a file holds in memory to the disk, without making it durable. Nothing where the system
/// has no such call.
#[cfg(target_os = "linux")]
pub(crate) fn write_back(file: &std::fs::File, how: Writeback) {
    use std::os::fd::AsRawFd;
    let flags = match how {
        Writeback::Begun => libc::SYNC_FILE_RANGE_WRITE,
        Writeback::Awaited => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    // SAFETY: no memory is passed; the file is open. Offset and length 0: all of the file. An error
    // would be told again by the sync that counts.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn write_back(_: &std::fs::File, _: Writeback) {}

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

use super::extents::{self, Extents};

/// What a [`DirectFile`] is written in, in bytes: no disk's own blocks are larger.
pub(crate) const BLOCK_BYTES: usize = 4096;

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

    /// A second handle to a file, to write past the system's cache; `None` where that cannot be.
    pub(crate) fn open_direct(&self, path: &Path) -> Option<DirectFile> {
        match self {
            Disk::System => open_direct(path).map(DirectFile::of),
            Disk::Other(_) => None,
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

/// A handle that writes past the system's cache: what is written has gone to the disk, and is durable after
/// the next sync of the file, by any handle. It takes the processor half of what a write through the cache
/// and its sync take.
#[derive(Debug)]
pub(crate) struct DirectFile {
    file: std::fs::File,
    extents_have_meaning: bool,
}

impl DirectFile {
    /// Of a file that was opened so.
    pub(crate) fn of(file: std::fs::File) -> DirectFile {
        DirectFile { extents_have_meaning: extents::have_meaning(&file), file }
    }

    /// Writes whole blocks to a multiple of [`BLOCK_BYTES`].
    pub(crate) fn write_all_at(&self, blocks: &Blocks, at: u64) -> io::Result<()> {
        self.file.write_all_at(blocks.bytes(), at)
    }

    /// Whether a sync of another file may make durable what was written to this one; see [`Extents`].
    pub(crate) fn may_share_syncs(&self) -> bool {
        self.extents_have_meaning
    }

    /// Where it lies, from its beginning for so many bytes.
    pub(crate) fn extents(&self, length: u64) -> Option<Extents> {
        Extents::of(&self.file, 0, length)
    }

    /// Whether a range lies where it did.
    pub(crate) fn lies(&self, before: &Extents, at: u64, length: u64) -> bool {
        Extents::of(&self.file, at, length) == Some(before.within(at, length))
    }

    /// Makes durable all that was written to the file, by any handle.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(target_os = "linux")]
    /// The system's number of it.
    pub(crate) fn descriptor(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.file)
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<std::fs::File> {
    None
}

/// Bytes in whole blocks, which begin where blocks of memory do.
#[derive(Default, Debug)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    /// Bytes that were put.
    length: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

impl Blocks {
    /// So many blocks of zeros.
    pub(crate) fn zeros(blocks: usize) -> Blocks {
        let block = Block([0; BLOCK_BYTES]);
        Blocks { blocks: vec![block; blocks], length: blocks * BLOCK_BYTES }
    }

    /// These bytes, one part behind the other, and zeros to the end of the last block. The memory is used
    /// again.
    pub(crate) fn fill(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        self.blocks.resize(length.div_ceil(BLOCK_BYTES), Block([0; BLOCK_BYTES]));
        self.length = length;
        let mut at = 0;
        let bytes = self.bytes_mut();
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes[at..].fill(0);
    }

    /// Whole blocks.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (blocks, bytes) = (self.blocks.as_ptr(), self.blocks.len() * BLOCK_BYTES);
        // SAFETY: a block is an array of as many bytes as it is aligned to, so blocks lie side by side
        // without gaps, all of them initialized; the slice borrows them.
        unsafe { std::slice::from_raw_parts(blocks.cast(), bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let (blocks, bytes) = (self.blocks.as_mut_ptr(), self.blocks.len() * BLOCK_BYTES);
        // SAFETY: as above, borrowed exclusively; any bytes make a block.
        unsafe { std::slice::from_raw_parts_mut(blocks.cast(), bytes) }
    }

    /// What was put into the last block, unless it is full.
    pub(crate) fn tail(&self) -> &[u8] {
        let whole = self.length / BLOCK_BYTES * BLOCK_BYTES;
        &self.bytes()[whole..self.length]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_tell_what_was_put_last() {
        let mut blocks = Blocks::default();
        let long = vec![7; 3 * BLOCK_BYTES];
        for (parts, tail) in [
            (vec![&b"abc"[..], b"de"], &b"abcde"[..]),
            (vec![&long[..]], b""),
            (vec![&long[..], b"x"], b"x"),
            (vec![&long[..100]], &long[..100]),
            (vec![], b""),
        ] {
            blocks.fill(&parts);
            let put = parts.concat();
            let bytes = blocks.bytes();
            assert_eq!(bytes.len(), put.len().next_multiple_of(BLOCK_BYTES));
            assert!(bytes.starts_with(&put) && bytes[put.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(blocks.tail(), tail);
            assert_eq!(bytes.as_ptr() as usize % BLOCK_BYTES, 0);
        }
    }
}

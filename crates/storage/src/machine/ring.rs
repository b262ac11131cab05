//! Blocks of several files written and made durable at once: one system call and one wait by io_uring, and one
//! sync where that is enough, instead of one of each for each file.

use std::io;

use super::{Blocks, DirectFile, Extents};

/// The most parts that are written at once.
pub(crate) const PARTS_MAX: usize = 16;

/// What is to be written to one file.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// Not the file of another part.
    pub(crate) file: &'a DirectFile,
    /// What is written …
    pub(crate) blocks: &'a Blocks,
    /// … from here, a multiple of a block's length.
    pub(crate) at: u64,
    /// Where the file lay when it was last synced, if nothing has been written to it through the system's
    /// cache since.
    pub(crate) lay: Option<&'a Extents>,
}

impl Part<'_> {
    /// Whether another file's sync on this device, which followed the writes, made it durable.
    fn is_durable(&self, synced: Option<u64>) -> bool {
        let bytes = self.blocks.bytes().len() as u64;
        self.lay
            .is_some_and(|lay| Some(lay.device()) == synced && self.file.lies(lay, self.at, bytes))
    }
}

/// See the module's text.
pub(crate) struct Ring(inner::Ring);

impl Ring {
    /// `None` where the system has no io_uring, or forbids it.
    pub(crate) fn new() -> Option<Ring> {
        inner::Ring::new().map(Ring)
    }

    /// Writes up to [`PARTS_MAX`] parts. Each of which there is no error is durable when this returns, and
    /// where [`Part::lay`] was not given, all of its file.
    ///
    /// *Errors*: [`io::ErrorKind::InvalidInput`] and [`io::ErrorKind::Unsupported`] if the file, or the system,
    /// takes no such write; nothing was written then. After another one nobody knows what was. After a sync that
    /// failed none is tried.
    pub(crate) fn write(&mut self, parts: &[Part<'_>]) -> Vec<io::Result<()>> {
        let written = self.0.write(parts);
        let (mut synced, mut has_failed) = (None, false);
        let sync = |(part, written): (&Part<'_>, io::Result<usize>)| {
            use io::ErrorKind::{Interrupted, WouldBlock};
            match written {
                Ok(bytes) if bytes == part.blocks.bytes().len() => {}
                Err(error) if !matches!(error.kind(), Interrupted | WouldBlock) => {
                    return Err(error);
                }
                // Cut short.
                _ => {
                    part.file.write_all_at(part.blocks, part.at)?;
                    synced = None;
                }
            }
            if !part.is_durable(synced) {
                if has_failed {
                    // The device may have lost what it held of any file, and call the next sync a success.
                    return Err(io::Error::other("the sync of another file failed"));
                }
                let result = part.file.sync_data();
                has_failed = result.is_err();
                result.map_err(io::Error::other)?;
                synced = part.lay.map(Extents::device).or(synced);
            }
            Ok(())
        };
        parts.iter().zip(written).map(sync).collect()
    }
}

#[cfg(target_os = "linux")]
mod inner {
    use std::io;

    use io_uring::{IoUring, opcode, types};

    use super::{PARTS_MAX, Part};

    pub(super) struct Ring(IoUring);

    impl Ring {
        pub(super) fn new() -> Option<Ring> {
            IoUring::new(PARTS_MAX as u32).map(Ring).ok()
        }

        /// For each part how many bytes were written.
        pub(super) fn write(&mut self, parts: &[Part<'_>]) -> Vec<io::Result<usize>> {
            for (number, part) in parts.iter().enumerate() {
                let (file, bytes) = (types::Fd(part.file.descriptor()), part.blocks.bytes());
                let length = u32::try_from(bytes.len()).expect("a batch is far below 4 GiB");
                let write = opcode::Write::new(file, bytes.as_ptr(), length)
                    .offset(part.at)
                    .build()
                    .user_data(number as u64);
                // SAFETY: file and bytes are borrowed until the system is done with them, see below.
                unsafe { self.0.submission().push(&write) }.expect("there is room for all parts");
            }
            let mut results: Vec<Option<io::Result<usize>>> = parts.iter().map(|_| None).collect();
            while results.iter().any(Option::is_none) {
                self.wait(results.iter().filter(|result| result.is_none()).count());
                for done in self.0.completion() {
                    let result = done.result();
                    let failed = |_| io::Error::from_raw_os_error(-result);
                    results[done.user_data() as usize] =
                        Some(usize::try_from(result).map_err(failed));
                }
            }
            results.into_iter().flatten().collect()
        }

        /// Tells the system of what is new, and waits until so many are done, or a signal comes.
        fn wait(&mut self, parts: usize) {
            use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
            match self.0.submit_and_wait(parts) {
                Err(error) if !matches!(error.kind(), Interrupted | ResourceBusy | WouldBlock) => {
                    // The system may still read that memory later, whatever is in it then.
                    tracing::error!(%error, "io_uring cannot be waited for");
                    std::process::abort();
                }
                _ => {}
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod inner {
    use std::convert::Infallible;
    use std::io;

    use super::Part;

    pub(super) struct Ring(Infallible);

    impl Ring {
        pub(super) fn new() -> Option<Ring> {
            None
        }

        pub(super) fn write(&mut self, _: &[Part<'_>]) -> Vec<io::Result<usize>> {
            match self.0 {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_none_is_tried() {
        let Some(mut ring) = Ring::new() else { return }; // Nothing is written at once here.
        let mut blocks = Blocks::default();
        blocks.fill(&[b"bytes"]);
        let healthy = DirectFile::of(tempfile::tempfile_in(".").unwrap());
        // It takes all writes and no sync.
        let broken = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let broken = DirectFile::of(broken);
        let mut succeed = |files: &[&DirectFile]| {
            let parts = files.iter().map(|file| Part { file, blocks: &blocks, at: 0, lay: None });
            let parts: Vec<_> = parts.collect();
            ring.write(&parts).iter().map(io::Result::is_ok).collect::<Vec<_>>()
        };
        assert_eq!(succeed(&[&healthy]), [true]);
        assert_eq!(succeed(&[&healthy, &broken]), [true, false]);
        assert_eq!(succeed(&[&broken, &healthy]), [false, false]);
        assert_eq!(succeed(&[&healthy]), [true], "the next batch has a sync of its own");
    }
}

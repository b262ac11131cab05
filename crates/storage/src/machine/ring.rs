//! Blocks of several files written and made durable at once: one system call and one wait instead of two for
//! each file, by io_uring.

use std::io;

use super::{Blocks, DirectFile};

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
}

/// See the module's text.
pub(crate) struct Ring(inner::Ring);

impl Ring {
    /// `None` where the system has no io_uring, or forbids it.
    pub(crate) fn new() -> Option<Ring> {
        inner::Ring::new().map(Ring)
    }

    /// Writes up to [`PARTS_MAX`] parts, each of which is durable when this returns, unless there is an error
    /// for it; nothing else of its file need be.
    ///
    /// *Errors*: [`io::ErrorKind::InvalidInput`] and [`io::ErrorKind::Unsupported`] if the file takes no such
    /// write; nothing was written then. After another one nobody knows what was.
    pub(crate) fn write(&mut self, parts: &[Part<'_>]) -> Vec<io::Result<()>> {
        self.0.write(parts)
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

        pub(super) fn write(&mut self, parts: &[Part<'_>]) -> Vec<io::Result<()>> {
            for (number, part) in parts.iter().enumerate() {
                let (file, bytes) = (types::Fd(part.file.descriptor()), part.blocks.bytes());
                let length = u32::try_from(bytes.len()).expect("a batch is far below 4 GiB");
                let write = opcode::Write::new(file, bytes.as_ptr(), length)
                    .offset(part.at)
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
                    .user_data(number as u64);
                // SAFETY: file and bytes are borrowed until the system is done with them, see below.
                unsafe { self.0.submission().push(&write) }.expect("there is room for all parts");
            }
            let mut results: Vec<Option<io::Result<()>>> = parts.iter().map(|_| None).collect();
            while results.iter().any(Option::is_none) {
                self.wait(results.iter().filter(|result| result.is_none()).count());
                for done in self.0.completion() {
                    let number = done.user_data() as usize;
                    results[number] = Some(match (done.result(), parts[number].blocks.bytes()) {
                        (error, _) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                        (written, bytes) if written as usize == bytes.len() => Ok(()),
                        _ => Err(io::ErrorKind::WriteZero.into()),
                    });
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

        pub(super) fn write(&mut self, _: &[Part<'_>]) -> Vec<io::Result<()>> {
            match self.0 {}
        }
    }
}

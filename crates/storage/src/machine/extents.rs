//! Where on its device a file lies.
//!
//! The sync of a file has its device write down all that it holds, other files' blocks too. So where several
//! files have been written past the system's cache, one sync makes all of them durable that lie where they
//! lay when they themselves were last synced: nothing but their blocks has changed then. A file that was
//! moved since, or got holes (by a defragmenter, `fallocate --dig-holes`), needs a sync of its own. This is so
//! of ext4; elsewhere files may share blocks, or have logs of their own.

/// The pieces of a file, or of a range of it, in ascending order; none touches the one before it. Equal if
/// they lie at the same places of the same device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Extents {
    /// The system's number of the file system.
    device: u64,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    /// Where in the file …
    at: u64,
    /// … and where on the device.
    place: u64,
    length: u64,
}

impl Extents {
    /// The extents of a range of a file. `None` if a part of it lies nowhere, or it may yet come to lie
    /// elsewhere, or if that cannot be told.
    pub(crate) fn of(file: &std::fs::File, at: u64, length: u64) -> Option<Extents> {
        system::extents(file, at, length).ok().flatten()
    }

    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Those of a range.
    pub(crate) fn within(&self, at: u64, length: u64) -> Extents {
        let end = at + length;
        let cut = |piece: &Piece| {
            let from = piece.at.max(at);
            let length = (piece.at + piece.length).min(end).checked_sub(from)?;
            (length > 0).then_some(Piece {
                at: from,
                place: piece.place + (from - piece.at),
                length,
            })
        };
        Extents { device: self.device, pieces: self.pieces.iter().filter_map(cut).collect() }
    }

    fn push(&mut self, next: Piece) {
        match self.pieces.last_mut() {
            Some(last) if last.place + last.length == next.place => last.length += next.length,
            _ => self.pieces.push(next),
        }
    }
}

/// Whether a file's extents can be told, and mean what is said above.
pub(crate) fn have_meaning(file: &std::fs::File) -> bool {
    system::is_ext4(file).unwrap_or(false)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::{Extents, Piece};

    /// `struct fiemap` of linux/fiemap.h.
    #[repr(C)]
    struct Request {
        start: u64,
        length: u64,
        flags: u32,
        mapped: u32,
        room: u32,
        reserved: u32,
        extents: [Extent; ROOM],
    }

    /// `struct fiemap_extent`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Extent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved: [u64; 2],
        flags: u32,
        reserved_too: [u32; 3],
    }

    /// Extents that are asked for at once.
    const ROOM: usize = 32;
    /// A file of more than so many calls is not worth it.
    const CALLS_MAX: usize = 32;
    /// `FS_IOC_FIEMAP`.
    const FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
    /// `FIEMAP_EXTENT_LAST` and `FIEMAP_EXTENT_MERGED`: all others say that blocks are not just there.
    const HARMLESS: u32 = 0x1 | 0x1000;

    pub(super) fn extents(file: &File, at: u64, length: u64) -> io::Result<Option<Extents>> {
        let mut found = Extents { device: file.metadata()?.dev(), pieces: Vec::new() };
        let (mut next, end) = (at, at + length);
        for _ in 0..CALLS_MAX {
            let mut request = Request {
                start: next,
                length: end - next,
                flags: 0,
                mapped: 0,
                room: ROOM as u32,
                reserved: 0,
                extents: [Extent::default(); ROOM],
            };
            // SAFETY: the file is open, and the request has the layout and the room that it says.
            let asked = unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut request) };
            if asked != 0 {
                return Err(io::Error::last_os_error());
            }
            for extent in request.extents.iter().take(request.mapped as usize) {
                let Extent { logical, physical, length, flags, .. } = *extent;
                let is_first = found.pieces.is_empty() && logical <= at;
                if flags & !HARMLESS != 0 || !(is_first || logical == next) {
                    return Ok(None);
                }
                found.push(Piece { at: logical, place: physical, length });
                next = logical + length;
                if next >= end {
                    return Ok(Some(found.within(at, end - at)));
                }
            }
            if (request.mapped as usize) < ROOM {
                return Ok(None);
            }
        }
        Ok(None)
    }

    pub(super) fn is_ext4(file: &File) -> io::Result<bool> {
        let mut told = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the file is open, and there is room for the answer.
        if unsafe { libc::fstatfs(file.as_raw_fd(), told.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: filled in, since the call says so.
        let told = unsafe { told.assume_init() };
        Ok(told.f_type == libc::EXT4_SUPER_MAGIC)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::File;
    use std::io;

    use super::Extents;

    pub(super) fn extents(_: &File, _: u64, _: u64) -> io::Result<Option<Extents>> {
        Ok(None)
    }

    pub(super) fn is_ext4(_: &File) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_file_that_got_a_hole_lies_elsewhere() {
        let file = tempfile::tempfile_in(".").unwrap();
        if !have_meaning(&file) {
            return; // What follows is about ext4.
        }
        const BLOCK: u64 = 4096;
        file.write_all_at(&vec![7; 64 * BLOCK as usize], 0).unwrap();
        let all = |file: &std::fs::File| Extents::of(file, 0, 64 * BLOCK);
        file.sync_all().unwrap();
        let before = all(&file).expect("all of it is there");
        assert_eq!(all(&file), Some(before.clone()));
        for (at, length) in [(0, 1), (5 * BLOCK + 3, 2 * BLOCK), (63 * BLOCK, BLOCK)] {
            assert_eq!(Extents::of(&file, at, length), Some(before.within(at, length)));
        }
        assert_eq!(Extents::of(&file, 63 * BLOCK, 2 * BLOCK), None, "behind the end");
        let (hole, flags) = (9 * BLOCK, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
        // SAFETY: the file is open.
        let punched = unsafe {
            libc::fallocate(file.as_raw_fd(), flags, hole as libc::off_t, BLOCK as libc::off_t)
        };
        assert_eq!(punched, 0);
        assert_eq!(all(&file), None);
        assert_eq!(Extents::of(&file, hole, 1), None);
        assert_eq!(Extents::of(&file, 0, hole), Some(before.within(0, hole)));
        // Allocated, and not written.
        // SAFETY: the file is open.
        let allocated = unsafe {
            libc::fallocate(file.as_raw_fd(), 0, hole as libc::off_t, BLOCK as libc::off_t)
        };
        assert_eq!((allocated, Extents::of(&file, hole, BLOCK)), (0, None));
    }

    #[test]
    fn pieces_are_cut_and_joined() {
        let piece = |at, place, length| Piece { at, place, length };
        let mut extents = Extents { device: 1, pieces: Vec::new() };
        for next in [piece(0, 100, 10), piece(10, 110, 10), piece(20, 50, 10)] {
            extents.push(next);
        }
        assert_eq!(extents.pieces, [piece(0, 100, 20), piece(20, 50, 10)]);
        assert_eq!(extents.within(5, 20).pieces, [piece(5, 105, 15), piece(20, 50, 5)]);
        assert_eq!(extents.within(20, 10).pieces, [piece(20, 50, 10)]);
        assert_eq!(extents.within(30, 5).pieces, []);
    }
}

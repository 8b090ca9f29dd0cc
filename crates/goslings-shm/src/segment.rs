//! A piece of shared memory: a file without a name, its mapping, and its descriptor, by which other processes get it.
//!
//! **Invariants**
//! * The file can be made neither smaller nor larger: that is sealed, and of a file that comes from elsewhere the seal is
//!   demanded. So no other process can take pages away under a mapping.
//! * The memory is there before the segment is: who writes to it later never finds that there is none left.
//! * Nothing has a name. When the last descriptor and the last mapping are gone, however that came, so is the memory.
//! * A ring is mapped and not open: its descriptor has no use once the other side has it. So is a long message that has come:
//!   else a process that keeps many would have no descriptors left.

use crate::available::{LOOK_FROM, available};
use crate::ring::{DATA, Header, Memory, Source};
use crate::sync::AtomicU64;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Shared memory, mapped here.
#[derive(Debug)]
pub struct Segment {
    file: OwnedFd,
    mapping: Mapping,
    writable: bool,
}

/// What may be done with the bytes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// What is written others see.
    Shared,
    /// What is written nobody else sees: each page is copied when it is written for the first time.
    Own,
}

/// So many bytes from here, until the drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping stays where it is; it is handed out as an address only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Segment {
    /// `len` bytes, at least one, all zero.
    ///
    /// # Errors
    /// The system's: ENOMEM, ENOSPC, EMFILE, EFBIG; EINVAL for none at all.
    pub fn new(len: usize) -> io::Result<Segment> {
        let file = file_of(len)?;
        reserve(&file, len as u64)?;
        Segment::map(seal(file)?, len, true)
    }

    /// Maps what another process has made. `at_least`: how long it must be.
    ///
    /// # Errors
    /// The system's; `InvalidData` if it is no such file.
    pub fn from_file(file: OwnedFd, at_least: usize, writable: bool) -> io::Result<Segment> {
        let len = Segment::checked(&file, at_least)?;
        Segment::map(file, len, writable)
    }

    /// How long it is, if it is what another process has made, and at least so long.
    pub(crate) fn checked(file: &OwnedFd, at_least: usize) -> io::Result<usize> {
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match rustix::fs::fcntl_get_seals(file) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
            Ok(_) => return refused("shared memory whose size is not sealed"),
            Err(Errno::INVAL) => return refused("the descriptor is not one of shared memory"),
            Err(error) => return Err(error.into()),
        }
        let Ok(len) = usize::try_from(rustix::fs::fstat(file)?.st_size) else {
            return refused("shared memory of an impossible size");
        };
        if len < at_least.max(1) {
            return refused("shared memory that is smaller than was said");
        }
        Ok(len)
    }

    /// Maps what process `number` has open as descriptor `fd`, if that is the file `inode`: on the same machine, by the same
    /// user, as long as that process has it.
    ///
    /// # Errors
    /// The system's; `NotFound` if it is not there any more.
    pub fn from_process(number: u32, fd: i32, inode: u64, writable: bool) -> io::Result<Segment> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::CLOEXEC | if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = rustix::fs::open(format!("/proc/{number}/fd/{fd}"), flags, Mode::empty())?;
        if rustix::fs::fstat(&file)?.st_ino != inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        Segment::from_file(file, 1, writable)
    }

    /// The number of its file, which no other that exists now has.
    ///
    /// # Errors
    /// The system's.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_ino)
    }

    fn map(file: OwnedFd, len: usize, writable: bool) -> io::Result<Segment> {
        let access = if writable { Access::Shared } else { Access::Read };
        Segment::map_or_not(file, len, access).map_err(|(_, error)| error)
    }

    /// Maps `len` bytes of a file that was checked; gives it back if that fails.
    pub(crate) fn map_or_not(
        file: OwnedFd,
        len: usize,
        access: Access,
    ) -> Result<Segment, (OwnedFd, io::Error)> {
        let writable = access != Access::Read;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = if access == Access::Own { MapFlags::PRIVATE } else { MapFlags::SHARED };
        // SAFETY: a new mapping, wherever the system likes.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, &file, 0) };
        match start.map(NonNull::new) {
            Ok(Some(start)) => Ok(Segment { file, mapping: Mapping { start, len }, writable }),
            Ok(None) => Err((file, io::ErrorKind::OutOfMemory.into())),
            Err(error) => Err((file, error.into())),
        }
    }

    /// Where it begins. Other processes may change it at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.start.as_ptr().cast()
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Never: a segment has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether the bytes may be written here.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `Segment::map`, and nobody has a reference into it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// Memory that another process has made, mapped here, and no descriptor: others cannot get it from here.
#[derive(Debug)]
pub struct Mapped {
    mapping: Mapping,
    writable: bool,
}

impl From<Segment> for Mapped {
    fn from(Segment { mapping, writable, .. }: Segment) -> Mapped {
        Mapped { mapping, writable }
    }
}

impl Mapped {
    /// As [`Segment::as_ptr`].
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.start.as_ptr().cast()
    }

    /// As [`Segment::len`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// As [`Segment::is_empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// As [`Segment::is_writable`].
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

/// Gives the file its memory. In pieces: an older system undoes the whole call when a signal comes, and signals may come
/// more often than all of it takes.
fn reserve(file: &OwnedFd, len: u64) -> io::Result<()> {
    const PIECE: u64 = 16 << 20;
    for at in (0..len).step_by(PIECE as usize) {
        let piece = PIECE.min(len - at);
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), at, piece))?;
    }
    Ok(())
}

/// New memory, all of it still to be had.
pub(crate) fn file_of(len: usize) -> io::Result<OwnedFd> {
    if len == 0 {
        return Err(Errno::INVAL.into());
    }
    if len > isize::MAX as usize || len >= LOOK_FROM && available().is_some_and(|bytes| len as u64 > bytes) {
        return Err(Errno::NOMEM.into());
    }
    let file = rustix::fs::memfd_create("goslings", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    Ok(file)
}

/// Writes the bytes of `parts` to a new file, one after another. Written, not mapped here: so each byte is touched once, and that
/// there is no memory left is an error of the call.
pub(crate) fn write(file: OwnedFd, parts: &[Source<'_>]) -> io::Result<OwnedFd> {
    let mut at = 0;
    for part in parts {
        let mut done = 0;
        while done < part.len() {
            // SAFETY: `done` bytes into what can be read, and so many are left. The system reads them as they are.
            let left = unsafe { std::slice::from_raw_parts(part.as_ptr().add(done), part.len() - done) };
            match rustix::io::pwrite(&file, left, at) {
                Ok(0) => return Err(Errno::NOSPC.into()),
                Ok(count) => {
                    done += count;
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(file)
}

/// Its size is final.
pub(crate) fn seal(file: OwnedFd) -> io::Result<OwnedFd> {
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// Mapped memory with a ring in it: the header, and a power of two of bytes.
#[derive(Debug)]
pub(crate) struct RingMemory(Mapping);

impl RingMemory {
    /// The memory, and its file, for the other side.
    pub(crate) fn new(capacity: usize) -> io::Result<(RingMemory, OwnedFd)> {
        let Segment { file, mapping, .. } = Segment::new(DATA + capacity)?;
        Ok((RingMemory(mapping), file))
    }

    /// One that came from elsewhere.
    pub(crate) fn from_file(file: OwnedFd) -> io::Result<RingMemory> {
        let Segment { mapping, .. } = Segment::from_file(file, DATA + 4096, true)?;
        if !(mapping.len - DATA).is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a ring of a wrong size"));
        }
        Ok(RingMemory(mapping))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.start.as_ptr().cast()
    }
}

impl Memory for RingMemory {
    fn header(&self) -> &Header {
        // SAFETY: at the beginning of a page, in place as long as `self`, and valid whatever its bytes are: atomics only.
        unsafe { &*self.as_ptr().cast::<Header>() }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `DATA` is a multiple of a word, and not beyond the end.
        let start = unsafe { self.as_ptr().add(DATA) };
        // SAFETY: so many bytes there are, in place as long as `self`; atomics, as above.
        unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), (self.0.len - DATA) / 8) }
    }
}

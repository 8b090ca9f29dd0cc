//! The memory of long messages: written once, mapped by who receives it, and used again when nobody has it any more.
//!
//! New memory is dear. The system finds, clears and counts each page, and takes it back afterwards; together that takes about
//! eight times as long as the copy for which it is wanted. So a link keeps the memory of its last messages for the next ones.
//!
//! **Invariants**
//! * Nobody is asked, or believed, who says that he has done with a message. What is sent is a descriptor that was opened for
//!   reading only, apart from ours. Of such the system knows how many there are: it counts descriptors, wherever they were
//!   passed on to, those in a socket's queue, and mappings. It grants a lease for writing if there is none but ours, and then
//!   alone a spare is written again (`is_ours_alone`).
//! * A spare is in the list, or with the one call that fills it.
//! * Each byte of it has memory: filling it cannot run out of that.
//! * What a message does not fill is cleared: nothing is left of an earlier one.
//! * A forked child has neither mapping nor descriptor of it.

#[cfg(all(test, not(miri)))]
#[expect(unsafe_code, reason = "mappings")]
mod tests;

use crate::forks::{Watched, generation};
use crate::ring::Source;
use crate::segment::{file_of, seal, write};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How many are kept.
const SPARES_MAX: usize = 8;
/// How many bytes they may have together.
const BYTES_MAX: usize = 512 << 20;
/// A message gets a spare that is at most so much longer: this share of its own length, and a page.
const SLACK: usize = 16;
const PAGE: usize = 4096;
/// Of the system's `fcntl`; the crate libc does not know it.
const F_SETSIG: i32 = 10;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for moves and calls that do not wait")]
type Leaf<T> = std::sync::Mutex<T>;

/// Memory for long messages.
#[derive(Debug, Default)]
pub struct Spares(Leaf<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Who was used last is last.
    spares: Vec<Spare>,
    /// Whether somebody calls `trim` from time to time.
    tended: bool,
}

impl Spares {
    /// A file with the bytes of `parts`, `len` together, to be read by others.
    ///
    /// # Errors
    /// The system's: ENOSPC, ENOMEM, EFBIG, EMFILE.
    pub fn written(&self, len: usize, parts: &[Source<'_>]) -> io::Result<OwnedFd> {
        let mut spare = match self.free(len) {
            Some(mut spare) => match spare.fill(parts) {
                Ok(()) => spare,
                // It could not be mapped here.
                Err(_) => return write(file_of(len)?, parts).and_then(seal),
            },
            None => match self.another(len, parts)? {
                Made::Spare(spare) => spare,
                Made::Once(file) => return Ok(file),
            },
        };
        let Ok(reader) = spare.opened(OFlags::RDONLY) else {
            return Ok(spare.give_up());
        };
        spare.used = Instant::now();
        self.keep(spare);
        Ok(reader)
    }

    /// Forgets those that were not used for `idle`, and gives their memory back. Whether there are others; if not, it need not be
    /// called again until `must_be_tended`.
    pub fn trim(&self, idle: Duration) -> bool {
        let now = Instant::now();
        let mut kept = self.kept();
        let (old, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut kept.spares).into_iter().partition(|spare| now - spare.used >= idle);
        kept.spares = others;
        kept.tended = !kept.spares.is_empty();
        let tended = kept.tended;
        drop(kept);
        drop(old);
        tended
    }

    /// Whether the caller must see to it that `trim` is called from now on.
    pub fn must_be_tended(&self) -> bool {
        let mut kept = self.kept();
        let must = !kept.tended && !kept.spares.is_empty();
        kept.tended |= must;
        must
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that nobody has any more, and that `len` bytes fill.
    fn free(&self, len: usize) -> Option<Spare> {
        let mut kept = self.kept();
        let fits = len..=len.saturating_add(len / SLACK + PAGE);
        // Rather one that is mapped already, and in the processor's caches.
        let at = kept.spares.iter().rposition(|spare| fits.contains(&spare.len) && spare.is_ours_alone())?;
        Some(kept.spares.remove(at))
    }

    fn keep(&self, spare: Spare) {
        let mut kept = self.kept();
        kept.spares.push(spare);
        let mut dropped = Vec::new();
        while kept.spares.len() > SPARES_MAX
            || kept.spares.iter().map(|spare| spare.len).sum::<usize>() > BYTES_MAX
        {
            dropped.push(kept.spares.remove(0));
        }
        drop(kept);
        drop(dropped);
    }

    fn another(&self, len: usize, parts: &[Source<'_>]) -> io::Result<Made> {
        let made = Spare::made(len, parts);
        match made.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error) {
            Some(Errno::NOMEM | Errno::NOSPC | Errno::MFILE | Errno::NFILE) => {
                // Perhaps because of what is kept here.
                self.trim(Duration::ZERO);
                Spare::made(len, parts)
            }
            _ => made,
        }
    }
}

/// A file that was written.
enum Made {
    Spare(Spare),
    /// It cannot be known who has it: not to be used again.
    Once(OwnedFd),
}

/// Memory that was part of a message, and will be of another.
#[derive(Debug)]
struct Spare {
    // Dropped first.
    _watched: Watched,
    /// Opened for writing, by us alone.
    file: OwnedFd,
    /// From the second message on.
    mapping: Option<Mapping>,
    /// How many bytes: a multiple of a page.
    len: usize,
    used: Instant,
}

impl Spare {
    /// The first message is written, not mapped: so that there is no memory left is an error.
    fn made(len: usize, parts: &[Source<'_>]) -> io::Result<Made> {
        let whole = len.next_multiple_of(PAGE);
        let made = seal(write(file_of(whole)?, parts)?)?;
        if whole > BYTES_MAX {
            return Ok(Made::Once(made));
        }
        // The descriptor that comes with the memory is not among those that are counted; one that is opened is.
        let Ok(file) = opened(&made, OFlags::RDWR) else { return Ok(Made::Once(made)) };
        drop(made);
        mute(&file);
        let watched = Watched::new(&[file.as_raw_fd()]);
        let spare = Spare { _watched: watched, file, mapping: None, len: whole, used: Instant::now() };
        // On some systems nobody knows.
        if spare.is_ours_alone() { Ok(Made::Spare(spare)) } else { Ok(Made::Once(spare.give_up())) }
    }

    fn opened(&self, how: OFlags) -> io::Result<OwnedFd> {
        opened(&self.file, how)
    }

    /// Whether nobody else has it, in any process: neither open, nor mapped, nor under way. What they have read before that, they
    /// have read before anything that is written after it: the system counts in one place, with locks.
    fn is_ours_alone(&self) -> bool {
        let lease = |kind: i32| {
            // SAFETY: plain numbers, and a descriptor that stays open during the call.
            unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
        };
        let granted = lease(libc::F_WRLCK);
        granted && lease(libc::F_UNLCK)
    }

    /// The file alone, to be used once.
    fn give_up(self) -> OwnedFd {
        self.file
    }

    /// Overwrites it. Nobody else has it.
    fn fill(&mut self, parts: &[Source<'_>]) -> io::Result<()> {
        let mapping = match self.mapping.take() {
            Some(mapping) => mapping,
            None => Mapping::new(&self.file, self.len)?,
        };
        self.mapping.insert(mapping).fill(parts);
        Ok(())
    }
}

/// Where a spare is written.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
    generation: u32,
}

// SAFETY: it stays where it is, and belongs to its spare alone.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, len: usize) -> io::Result<Mapping> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping, wherever the system likes.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, access, flags, file, 0) }?;
        // SAFETY: just mapped. It changes what a forked child gets.
        let kept = unsafe { rustix::mm::madvise(start, len, Advice::LinuxDontFork) };
        debug_assert!(kept.is_ok(), "{kept:?}");
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len, generation: generation() })
    }

    /// Writes the parts one after another, and zeros behind them.
    fn fill(&mut self, parts: &[Source<'_>]) {
        let mut at = 0;
        for part in parts {
            assert!(part.len() <= self.len - at, "chosen to be long enough");
            // SAFETY: within the mapping, as just seen.
            let to = unsafe { self.start.add(at) };
            // SAFETY: from what can be read to as many bytes of ours, which are handed out to nobody.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), to.as_ptr(), part.len()) };
            at += part.len();
        }
        // SAFETY: not beyond the mapping's end.
        let rest = unsafe { self.start.add(at) };
        // SAFETY: as above, up to that end.
        unsafe { ptr::write_bytes(rest.as_ptr(), 0, self.len - at) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a forked child there is nothing, or something else.
        if self.generation == generation() {
            // SAFETY: mapped by `new`, and handed out to nobody.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }
}

/// The file of a descriptor, opened once more.
fn opened(file: &OwnedFd, how: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, how | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whoever opens the file by our /proc entry, in the moment of a lease, makes the system signal that to us. Not with SIGIO,
/// which would end the process.
fn mute(file: &OwnedFd) {
    // SAFETY: plain numbers, and a descriptor that stays open during the call.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) };
    debug_assert_eq!(set, 0);
}

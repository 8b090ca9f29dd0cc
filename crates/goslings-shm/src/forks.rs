//! What a fork does to links: a forked child has copies of their descriptors, and must not keep the other side from seeing that
//! its parent has died, nor take part.
//!
//! **Invariants**
//! * A descriptor is watched from its making to just before its close. In a forked child each that is watched is replaced by
//!   one of /dev/null: the number stays taken, so whoever closes it later closes that.
//! * The lock is held for a move. A child that is forked while somebody else holds it keeps its copies.

use rustix::fs::{Mode, OFlags};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
static WATCHED: std::sync::Mutex<Vec<RawFd>> = std::sync::Mutex::new(Vec::new());

/// How many forks this process descends from.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many forks this process descends from: what was made under another number is a parent's.
#[must_use]
pub fn generation() -> u32 {
    // Ordering: Relaxed. Changes in a child with one thread only.
    GENERATION.load(Ordering::Relaxed)
}

/// Descriptors that are replaced in forked children, from here to the drop, which comes before they are closed.
#[derive(Debug)]
pub struct Watched(Vec<RawFd>);

impl Watched {
    /// Watches these.
    #[must_use]
    pub fn new(fds: &[RawFd]) -> Watched {
        WATCHED.lock().unwrap_or_else(PoisonError::into_inner).extend(fds);
        Watched(fds.to_vec())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        for fd in &self.0 {
            if let Some(at) = watched.iter().position(|other| other == fd) {
                watched.swap_remove(at);
            }
        }
    }
}

/// In a forked child, which has one thread.
pub(crate) fn after_fork_child() {
    // Ordering: Relaxed. As above.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let Ok(mut watched) = WATCHED.try_lock() else { return };
    let null = if watched.is_empty() {
        None
    } else {
        rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).ok()
    };
    for fd in watched.drain(..) {
        if let Some(null) = &null {
            replace(fd, null);
        }
    }
}

fn replace(fd: RawFd, by: &OwnedFd) {
    // SAFETY: open, and its owner closes it after it has said so here.
    let mut owned = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    // It cannot fail for want of descriptors: the number is taken already.
    let _ = rustix::io::dup3(by, &mut owned, rustix::io::DupFlags::CLOEXEC);
    // Its owner's, as before.
    let _ = owned.into_raw_fd();
}

//! A descriptor whose every use goes through one object: it is closed when the last call on it has come back, so that no
//! call finds its number in use for another file.
//!
//! ```text
//! word:  | 31 CLOSED | 30 .. 0 calls |     CLOSED is never taken back; no call begins after it
//! ```

use super::{Direction, NetError, Trust, attempt_with, closing};
use crate::clock::Wait;
use crate::sched;
use crate::sync::{AtomicU32, Ordering};
use crate::waiter::{Park, Parker, at_once};
use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

const CLOSED: u32 = 1 << 31;

/// A descriptor of ours.
pub struct Owned {
    fd: RawFd,
    word: AtomicU32,
}

/// A call, from here to its drop.
struct Call<'a>(&'a Owned);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // Ordering: AcqRel. Release: whoever closes comes after this call. Acquire: if that is us, after all others.
        if self.0.word.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.0.close_now();
        }
    }
}

impl Owned {
    /// Takes over `fd`, which should not block.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Owned {
        let fd = fd.into_raw_fd();
        if let Some(place) = sched::runtime().net.fds.place(fd) {
            place.lock().own();
        }
        Owned { fd, word: AtomicU32::new(0) }
    }

    fn enter(&self) -> Result<Call<'_>, NetError> {
        // Ordering: Relaxed. A first guess for the exchange below.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(NetError::Closed);
            }
            // Ordering: Relaxed. The word alone decides; the descriptor came with the object.
            match self.word.compare_exchange_weak(word, word + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Call(self)),
                Err(now) => word = now,
            }
        }
    }

    fn close_now(&self) {
        // SAFETY: it was ours, and no call uses it any more.
        drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
    }

    /// As [`attempt`](super::attempt), again and again asking how long to wait. `all_read`: the caller has last read all that
    /// there was of a stream, so need not try before something has come.
    ///
    /// # Blocking
    /// As [`ready`](super::ready).
    ///
    /// # Errors
    /// As [`attempt`](super::attempt); [`NetError::Closed`] also if it was closed before.
    pub fn attempt<T>(
        &self,
        direction: Direction,
        wait: impl Fn() -> Wait,
        all_read: bool,
        attempt: impl FnMut(RawFd) -> io::Result<T>,
    ) -> Result<T, NetError> {
        at_once(self.attempt_by(direction, wait, all_read, &Parker::new(), attempt))
    }

    pub(crate) async fn attempt_by<T>(
        &self,
        direction: Direction,
        wait: impl Fn() -> Wait,
        all_read: bool,
        parker: &impl Park,
        mut attempt: impl FnMut(RawFd) -> io::Result<T>,
    ) -> Result<T, NetError> {
        let _call = self.enter()?;
        let trust = if all_read { Trust::AllRead } else { Trust::Owned };
        attempt_with(self.fd, direction, wait, trust, parker, || attempt(self.fd)).await
    }

    /// Calls `look` with the descriptor, which stays open meanwhile.
    ///
    /// # Errors
    /// [`NetError::Closed`]; what `look` failed with.
    pub fn with<T>(&self, look: impl FnOnce(RawFd) -> io::Result<T>) -> Result<T, NetError> {
        let _call = self.enter()?;
        Ok(look(self.fd)?)
    }

    /// Its number, unless it is closed.
    #[must_use]
    pub fn number(&self) -> Option<RawFd> {
        // Ordering: Relaxed. A moment old.
        (self.word.load(Ordering::Relaxed) & CLOSED == 0).then_some(self.fd)
    }

    /// Closes it: calls that wait fail with [`NetError::Closed`]. False: it is closed already. Never blocks.
    pub fn close(&self) -> bool {
        // Ordering: AcqRel. As in `Call`'s drop.
        let before = self.word.fetch_or(CLOSED, Ordering::AcqRel);
        if before & CLOSED != 0 {
            return false;
        }
        closing(self.fd);
        if before == 0 {
            self.close_now();
        }
        true
    }

    /// Those who wait try again, and ask anew how long to wait.
    pub fn rouse(&self) {
        let Ok(_call) = self.enter() else { return };
        if let Some(place) = sched::existing().and_then(|runtime| runtime.net.fds.existing(self.fd)) {
            let wakes = place.lock().rouse();
            wakes.wake_all();
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("fd", &self.number()).finish()
    }
}

//! Mutual exclusion without an owner: whoever has locked it, anybody may unlock it (rows Y01 to Y05).
//!
//! **Invariants**
//! * `WAITERS` is set while somebody is queued; it may stay set for a while after the last one left.
//! * `WOKEN` is set from the moment a waiter is woken to compete for the lock until it has got it or
//!   has queued again, and only one waiter is in that state: so waiters stay in order.
//! * A waiter that has waited for longer than [`PATIENCE_NS`] is not woken to compete: the lock goes to
//!   it locked, and no newcomer can take it on the way.
//!
//! ```text
//! word:  | 2 WOKEN | 1 WAITERS | 0 LOCKED |
//!
//!  from                     to                     who                        under the queue's lock
//!  no LOCKED                + LOCKED               take                       no
//!  LOCKED                   0                      unlock                     no
//!  LOCKED                   + WAITERS, - WOKEN     lock, about to queue       yes
//!  LOCKED, WOKEN            - LOCKED               unlock                     yes
//!  LOCKED, WAITERS          WOKEN or LOCKED        unlock: compete, or owned  yes
//! ```

#[cfg(all(test, loom))]
mod loom;

use crate::clock::{Wait, now};
use crate::lock::{self, Rank};
use crate::sync::{AtomicU32, Ordering};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::WaitQueue;
use std::fmt;
use std::sync::atomic::AtomicU64;

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;
const WOKEN: u32 = 4;

/// After so long a wait the lock is handed over instead of fought for.
const PATIENCE_NS: u64 = 1_000_000;

/// A lock without data. Not reentrant.
pub struct Mutex {
    word: AtomicU32,
    /// Each waiter brings the time at which it came. When woken, it finds it again if it owns the lock.
    queue: lock::Mutex<WaitQueue<u64>>,
    /// Who locked it last by waiting for it if need be: a goroutine's number, 0 for a thread. For dumps.
    holder: AtomicU64,
}

/// The lock was not locked: a mistake of whoever unlocks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLocked;

impl Mutex {
    /// An unlocked one.
    #[must_use]
    pub fn new() -> Mutex {
        Mutex {
            word: AtomicU32::new(0),
            queue: lock::Mutex::new(Rank::Object, WaitQueue::new()),
            holder: AtomicU64::new(0),
        }
    }

    /// Locks it.
    ///
    /// # Blocking
    /// Until it is unlocked and nobody who waited longer than a millisecond wants it, at most as `wait` says.
    ///
    /// # Errors
    /// [`WaitError`] with the reason; it is not locked then.
    #[inline]
    pub fn lock(&self, wait: Wait) -> Result<(), WaitError> {
        let parker = Parker::new();
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        if !self.take() {
            at_once(self.lock_slow(&parker, wait))?;
        }
        self.note_holder(&parker);
        Ok(())
    }

    pub(crate) async fn lock_with(&self, wait: Wait, parker: &impl Park) -> Result<(), WaitError> {
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        if !self.take() {
            self.lock_slow(parker, wait).await?;
        }
        self.note_holder(parker);
        Ok(())
    }

    #[inline]
    fn note_holder(&self, parker: &impl Park) {
        // Ordering: Relaxed. For people to read.
        self.holder.store(parker.goroutine(), Ordering::Relaxed);
    }

    /// Who holds it, if it is locked: a goroutine's number, or 0 for a thread.
    pub(crate) fn holder(&self) -> u64 {
        // Ordering: Relaxed. For people to read.
        self.holder.load(Ordering::Relaxed)
    }

    /// Locks it if it is free and not being handed over.
    #[inline]
    #[must_use]
    pub fn try_lock(&self) -> bool {
        let taken = self.take();
        if taken {
            self.note_holder(&Parker::new());
        }
        taken
    }

    #[inline]
    fn take(&self) -> bool {
        // Ordering: Relaxed. A first guess for the exchange below.
        let mut word = self.word.load(Ordering::Relaxed);
        while word & LOCKED == 0 {
            // Ordering: Acquire pairs with the Release of whoever unlocked last (`unlock`,
            // `unlock_slow`): what it did while it held the lock is visible. Failure: a new guess.
            let taken =
                self.word.compare_exchange_weak(word, word | LOCKED, Ordering::Acquire, Ordering::Relaxed);
            match taken {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
        false
    }

    /// Unlocks it; who has locked it does not matter.
    ///
    /// # Errors
    /// [`NotLocked`].
    #[inline]
    pub fn unlock(&self) -> Result<(), NotLocked> {
        // Ordering: Release pairs with the Acquire in `take` and `take_or_note`. Failure: not that
        // simple; the slow path looks again.
        match self.word.compare_exchange(LOCKED, 0, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => self.unlock_slow(),
        }
    }

    /// In a forked child, whose only thread this is: unlocks it, whoever had it and whoever was about to have it.
    pub fn reinit(&self) {
        let queue = self.queue.lock();
        let waiters = if queue.is_empty() { 0 } else { WAITERS };
        // Ordering: Release, as in `unlock`.
        self.word.store(waiters, Ordering::Release);
    }

    /// Whether it is locked, a moment ago.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        // Ordering: Relaxed. Old when it is read; nothing may depend on it.
        self.word.load(Ordering::Relaxed) & LOCKED != 0
    }

    /// Locks it whatever happens, unless the call is abandoned or that is a deadlock, and returns whether something has
    /// raised meanwhile. A cancellation that arrives meanwhile stays pending.
    pub(crate) async fn lock_regardless(&self, parker: &impl Park) -> bool {
        let (mut cancelled, mut raised) = (false, false);
        while !self.take() {
            match self.lock_slow(parker, Wait::Forever).await {
                Ok(()) => break,
                Err(WaitError::Cancelled) if parker.abandoned() => return raised,
                Err(WaitError::Interrupted) if parker.hopeless() => return true,
                Err(WaitError::Cancelled) => cancelled = true,
                Err(WaitError::Interrupted) => raised = true,
                Err(WaitError::TimedOut) => {}
            }
        }
        self.note_holder(parker);
        if cancelled {
            parker.waiter().cancel_later();
        }
        raised
    }

    #[cold]
    async fn lock_slow(&self, parker: &impl Park, wait: Wait) -> Result<(), WaitError> {
        let since = now().0;
        let mut place = Place::Back;
        let mut woken = 0;
        loop {
            let queue = self.queue.lock();
            if self.take_or_note(woken) {
                return Ok(());
            }
            let why = (WaitReason::MutexLock.on(self), wait);
            match wait_in(&self.queue, queue, |queue| queue, (place, since), parker, why).await {
                Waited::Served(Some(_)) => return Ok(()),
                Waited::Served(None) => {
                    woken = WOKEN;
                    place = Place::Front;
                }
                Waited::ServedInVain(handed_over) => {
                    if handed_over.is_some() || self.take_woken() {
                        // It is ours, and we cannot keep it: the next one gets it.
                        let unlocked = self.unlock();
                        debug_assert_eq!(unlocked, Ok(()), "a lock handed over was not locked");
                    }
                    return Err(WaitError::Interrupted);
                }
                Waited::Failed(error, _) => return Err(error),
            }
        }
    }

    /// As a waiter that was woken to compete: takes the lock, or leaves the rest to its holder.
    fn take_woken(&self) -> bool {
        let _queue = self.queue.lock();
        self.take_or_note(WOKEN)
    }

    /// Takes the lock, or notes that somebody waits for it; in both cases `woken` is done with. Under the
    /// queue's lock.
    fn take_or_note(&self, woken: u32) -> bool {
        // Ordering: Relaxed. A first guess for the exchange below.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = word & LOCKED == 0;
            let next = (word & !woken) | if free { LOCKED } else { WAITERS };
            // Ordering: Acquire, as in `take`. Failure: a new guess.
            let changed = self.word.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed);
            match changed {
                Ok(_) => return free,
                Err(found) => word = found,
            }
        }
    }

    #[cold]
    fn unlock_slow(&self) -> Result<(), NotLocked> {
        let mut queue = self.queue.lock();
        // Ordering: Relaxed. A first guess for the exchange below.
        let mut word = self.word.load(Ordering::Relaxed);
        while word != LOCKED | WAITERS {
            if word & LOCKED == 0 {
                return Err(NotLocked);
            }
            // Ordering: Release, as in `unlock`. Failure: a new guess.
            let changed =
                self.word.compare_exchange_weak(word, word & !LOCKED, Ordering::Release, Ordering::Relaxed);
            match changed {
                Ok(_) => return Ok(()),
                Err(found) => word = found,
            }
        }
        // From here on nobody else changes the word: it is locked, and all the rest needs the queue's lock.
        let Some(mut waiter) = queue.pop() else {
            // Ordering: Release, as in `unlock`.
            self.word.store(0, Ordering::Release);
            return Ok(());
        };
        let since = waiter.take();
        let waiters = if queue.is_empty() { 0 } else { WAITERS };
        let next = if now().0.saturating_sub(since) > PATIENCE_NS {
            waiter.put(since);
            LOCKED
        } else {
            WOKEN
        };
        // Ordering: Release, as in `unlock`; to an owner the same travels with the wake.
        self.word.store(waiters | next, Ordering::Release);
        let wake = waiter.wake_later();
        drop(queue);
        wake.wake();
        Ok(())
    }
}

impl Default for Mutex {
    fn default() -> Mutex {
        Mutex::new()
    }
}

impl fmt::Debug for Mutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl fmt::Display for NotLocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unlock of unlocked mutex")
    }
}

impl std::error::Error for NotLocked {}

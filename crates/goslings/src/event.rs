//! A flag that can be waited for.
//!
//! **Invariant**: the flag changes under the queue's lock only, and while it is up no live waiter is
//! queued. Reading it without the lock is enough to pass.

use crate::clock::Wait;
use crate::lock::{Mutex, Rank};
use crate::sync::{AtomicU32, Ordering};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;

/// A flag, down at first.
pub struct Event {
    flag: AtomicU32,
    queue: Mutex<WaitQueue<()>>,
}

impl Event {
    /// A flag that is down.
    #[must_use]
    pub fn new() -> Event {
        Event { flag: AtomicU32::new(0), queue: Mutex::new(Rank::Object, WaitQueue::new()) }
    }

    /// Raises the flag and releases everybody who waits, even if it is lowered again at once.
    pub fn set(&self) {
        let mut wakes = WakeList::new();
        {
            let mut queue = self.queue.lock();
            // Ordering: Release pairs with the Acquire in `is_set`. Stored even if it is up already:
            // who sees it then sees what this caller did before, too.
            self.flag.store(1, Ordering::Release);
            while let Some(waiter) = queue.pop() {
                wakes.push(waiter);
            }
        }
        wakes.wake_all();
    }

    /// Lowers the flag.
    pub fn clear(&self) {
        let _queue = self.queue.lock();
        // Ordering: Relaxed. Seeing it down allows nothing.
        self.flag.store(0, Ordering::Relaxed);
    }

    /// Whether the flag is up.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `set`.
        self.flag.load(Ordering::Acquire) != 0
    }

    /// Waits for the flag.
    ///
    /// # Blocking
    /// Until it goes up, at most as `wait` says.
    ///
    /// # Errors
    /// [`WaitError`] with the reason.
    pub fn wait(&self, wait: Wait) -> Result<(), WaitError> {
        at_once(self.wait_with(wait, &Parker::new()))
    }

    pub(crate) async fn wait_with(&self, wait: Wait, parker: &impl Park) -> Result<(), WaitError> {
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        if self.is_set() {
            return Ok(());
        }
        let queue = self.queue.lock();
        if self.is_set() {
            return Ok(());
        }
        let why = (WaitReason::EventWait.on(self), wait);
        match wait_in(&self.queue, queue, |queue| queue, (Place::Back, ()), parker, why).await {
            Waited::Served(_) => Ok(()),
            Waited::ServedInVain(_) => Err(WaitError::Interrupted),
            Waited::Failed(error, _) => Err(error),
        }
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}

//! Waits for a change of what a mutex protects (row Y13).
//!
//! **Invariants**
//! * A waiter is queued before it unlocks the mutex, so no notify after the unlock can miss it.
//! * A notify goes to the waiter that has been queued longest, and to no one who comes later. A waiter
//!   that is cancelled, or whose time is up, was not notified; one that was notified and is then
//!   interrupted passes the notify on.

use crate::clock::{Deadline, Wait};
use crate::lock::{self, Rank};
use crate::mutex::{Mutex, NotLocked};
use crate::waiter::{Outcome, Park, Parker, WaitReason, at_once};
use crate::waiting::WaitError;
use crate::waitq::{Node, WaitQueue, WakeList};
use std::fmt;

/// A place to wait in for a notify.
pub struct Cond {
    queue: lock::Mutex<WaitQueue<()>>,
}

/// Why [`Cond::wait`] ended without a notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CondError {
    /// The mutex was not locked; it still is not.
    NotLocked,
    /// The wait failed; the mutex is locked again.
    Wait(WaitError),
}

impl Cond {
    /// One that nobody waits in.
    #[must_use]
    pub fn new() -> Cond {
        Cond { queue: lock::Mutex::new(Rank::Object, WaitQueue::new()) }
    }

    /// Unlocks `mutex`, waits for a notify and locks `mutex` again, which is not given up whatever
    /// happens. Never returns Ok without a notify, but others may have run before the lock was had.
    ///
    /// # Blocking
    /// Until notified, at most as `wait` says; then until `mutex` can be locked.
    ///
    /// # Errors
    /// [`CondError`] with the reason.
    pub fn wait(&self, mutex: &Mutex, wait: Wait) -> Result<(), CondError> {
        at_once(self.wait_with(mutex, wait, &Parker::new()))
    }

    pub(crate) async fn wait_with(
        &self,
        mutex: &Mutex,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<(), CondError> {
        if parker.waiter().take_cancel() {
            return Err(CondError::Wait(WaitError::Cancelled));
        }
        // Trying once means to let others at the mutex once.
        let wait = if wait == Wait::No { Wait::Until(Deadline(0)) } else { wait };
        let node = Node::new(parker, 0, Some(()));
        {
            let mut queue = self.queue.lock();
            if !parker.waiter().begin() {
                return Err(CondError::Wait(WaitError::Cancelled));
            }
            // SAFETY: the node stays in this frame, which does not return before the node was popped and
            // its waiter woken, or removed below; the wait has begun.
            unsafe { queue.push(&node) };
        }
        let unlocked = mutex.unlock();
        let outcome = match unlocked {
            Ok(()) => parker.park(WaitReason::CondWait.on(self), wait).await,
            Err(NotLocked) => parker.give_up().await,
        };
        let error = match outcome {
            Outcome::Case(_) => None,
            Outcome::TimedOut => Some(WaitError::TimedOut),
            Outcome::Cancelled | Outcome::Abandoned => Some(WaitError::Cancelled),
            Outcome::Interrupted => Some(WaitError::Interrupted),
        };
        if error.is_some() {
            self.queue.lock().remove(&node);
        }
        let raised = parker.raised();
        let raised = unlocked.is_ok() && (mutex.lock_regardless(parker).await | raised);
        if error.is_none() && (raised || unlocked.is_err()) {
            self.notify_one();
        }
        match error {
            _ if unlocked.is_err() => Err(CondError::NotLocked),
            _ if raised => Err(CondError::Wait(WaitError::Interrupted)),
            Some(error) => Err(CondError::Wait(error)),
            None => Ok(()),
        }
    }

    /// Wakes the one who has waited longest; nobody if nobody waits. The mutex need not be locked.
    pub fn notify_one(&self) {
        let waiter = self.queue.lock().pop();
        if let Some(waiter) = waiter {
            waiter.wake_later().wake();
        }
    }

    /// Wakes everybody who waits now.
    pub fn notify_all(&self) {
        let mut wakes = WakeList::new();
        {
            let mut queue = self.queue.lock();
            while let Some(waiter) = queue.pop() {
                wakes.push(waiter);
            }
        }
        wakes.wake_all();
    }
}

impl Default for Cond {
    fn default() -> Cond {
        Cond::new()
    }
}

impl fmt::Debug for Cond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cond").finish_non_exhaustive()
    }
}

impl fmt::Display for CondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CondError::NotLocked => f.write_str("wait on a condition with an unlocked mutex"),
            CondError::Wait(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CondError {}

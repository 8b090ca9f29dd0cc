//! Waits for a number of things to be done (rows Y09 to Y11).
//!
//! **Invariants**
//! * `WAITERS` changes under the queue's lock only, and is set while a live waiter is queued.
//! * The counter may become zero beside a set `WAITERS` under the queue's lock only, in one step with
//!   taking everybody out of the queue: so a group may be used again before its waiters have returned.
//!
//! ```text
//! word:  | 63 .. 1 counter | 0 WAITERS |
//! ```

#[cfg(all(test, loom))]
mod loom;

use crate::clock::Wait;
use crate::lock::{Mutex, Rank};
use crate::sync::{AtomicI64, Ordering};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;

const WAITERS: i64 = 1;
const ONE: i64 = 2;

/// A counter that can be waited for to become zero.
pub struct WaitGroup {
    word: AtomicI64,
    queue: Mutex<WaitQueue<()>>,
}

/// The counter would have become negative (or larger than 62 bits can say). It is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negative;

impl WaitGroup {
    /// A group of nothing.
    #[must_use]
    pub fn new() -> WaitGroup {
        WaitGroup { word: AtomicI64::new(0), queue: Mutex::new(Rank::Object, WaitQueue::new()) }
    }

    /// Adds `number`, which may be negative, to the counter; at zero everybody who waits is released.
    ///
    /// # Errors
    /// [`Negative`].
    #[inline]
    pub fn add(&self, number: i64) -> Result<(), Negative> {
        // Ordering: Relaxed. A first guess for the exchange below.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let next = Self::sum(word, number)?;
            if next == WAITERS {
                return self.add_last(number);
            }
            // Ordering: Release pairs with the Acquire in `wait`: what was done before `done` is
            // visible after `wait`. Acquire: the last `done` passes on what the others released.
            let added = self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed);
            match added {
                Ok(_) => return Ok(()),
                Err(found) => word = found,
            }
        }
    }

    /// One thing is done: `add(-1)`.
    ///
    /// # Errors
    /// [`Negative`].
    #[inline]
    pub fn done(&self) -> Result<(), Negative> {
        self.add(-1)
    }

    /// Waits for the counter to be zero.
    ///
    /// # Blocking
    /// Until it is zero, if only for a moment; at most as `wait` says.
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
        if self.count() == 0 {
            return Ok(());
        }
        let queue = self.queue.lock();
        // Ordering: Acquire pairs with the Release in `add`; a waiter that is queued gets the same from
        // the wake. The bit tells `add` to look at the queue, whose lock we hold.
        let word = self.word.fetch_or(WAITERS, Ordering::Acquire);
        if word < ONE {
            // Ordering: Relaxed. Takes back the bit, which nobody looks at while the count is zero.
            self.word.fetch_and(!WAITERS, Ordering::Relaxed);
            return Ok(());
        }
        let why = (WaitReason::WaitGroupWait.on(self), wait);
        match wait_in(&self.queue, queue, |queue| queue, (Place::Back, ()), parker, why).await {
            Waited::Served(_) => Ok(()),
            Waited::ServedInVain(_) => Err(WaitError::Interrupted),
            Waited::Failed(error, queue) => {
                if queue.is_empty() {
                    // Ordering: Relaxed. Under the queue's lock; spares the last `done` a look.
                    self.word.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    /// The counter, a moment ago.
    #[inline]
    #[must_use]
    pub fn count(&self) -> i64 {
        // Ordering: Acquire pairs with the Release in `add`, for `wait` and for whoever reads zero here.
        self.word.load(Ordering::Acquire) >> 1
    }

    /// `word` with `number` more in its counter.
    #[inline]
    fn sum(word: i64, number: i64) -> Result<i64, Negative> {
        let change = number.checked_mul(ONE).ok_or(Negative)?;
        word.checked_add(change).filter(|&next| next >= 0).ok_or(Negative)
    }

    /// `add`, when it looks as if that releases somebody.
    #[cold]
    fn add_last(&self, number: i64) -> Result<(), Negative> {
        let mut wakes = WakeList::new();
        {
            let mut queue = self.queue.lock();
            // Ordering: Relaxed. A first guess for the exchange below.
            let mut word = self.word.load(Ordering::Relaxed);
            loop {
                let next = Self::sum(word, number)?;
                let zero = next < ONE;
                let next = if zero { 0 } else { next };
                // Ordering: AcqRel, as in `add`.
                let added = self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed);
                match added {
                    Ok(_) if zero => break,
                    Ok(_) => return Ok(()),
                    Err(found) => word = found,
                }
            }
            while let Some(waiter) = queue.pop() {
                wakes.push(waiter);
            }
        }
        wakes.wake_all();
        Ok(())
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl fmt::Display for Negative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("negative WaitGroup counter")
    }
}

impl std::error::Error for Negative {}

//! A number of permits, taken and given back in any amounts, served first in, first out (rows E07, E08).
//!
//! **Invariants** (under the lock)
//! * `free <= size`.
//! * If somebody is queued, the first in line wants more than is free: a large wish holds back the small
//!   ones behind it, so that it is met some day.

use crate::clock::Wait;
use crate::lock::{Mutex, Rank};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;

/// A weighted semaphore.
pub struct Semaphore {
    size: u64,
    state: Mutex<State>,
}

struct State {
    free: u64,
    /// Each waiter brings how many it wants.
    queue: WaitQueue<u64>,
}

/// Why [`Semaphore::acquire`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// More than there will ever be.
    TooMany,
    /// The wait failed.
    Wait(WaitError),
}

/// More was given back than had been taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl State {
    fn try_acquire(&mut self, number: u64) -> bool {
        let granted = number <= self.free && self.queue.peek().is_none();
        if granted {
            self.free -= number;
        }
        granted
    }

    /// Serves whoever is first in line, as long as there is enough.
    fn grant(&mut self) -> WakeList<u64> {
        let mut wakes = WakeList::new();
        while let Some(mut waiter) = self.queue.pop_if(|&number| number <= self.free) {
            self.free -= waiter.take();
            wakes.push(waiter);
        }
        wakes
    }
}

impl Semaphore {
    /// A semaphore of `size` permits, all free.
    #[must_use]
    pub fn new(size: u64) -> Semaphore {
        let state = State { free: size, queue: WaitQueue::new() };
        Semaphore { size, state: Mutex::new(Rank::Object, state) }
    }

    /// Takes `number` permits.
    ///
    /// # Blocking
    /// Until so many are free and whoever came before has been served, at most as `wait` says.
    ///
    /// # Errors
    /// [`AcquireError`] with the reason; nothing was taken then.
    pub fn acquire(&self, number: u64, wait: Wait) -> Result<(), AcquireError> {
        at_once(self.acquire_with(number, wait, &Parker::new()))
    }

    pub(crate) async fn acquire_with(
        &self,
        number: u64,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<(), AcquireError> {
        if parker.waiter().take_cancel() {
            return Err(AcquireError::Wait(WaitError::Cancelled));
        }
        if number > self.size {
            return Err(AcquireError::TooMany);
        }
        let mut state = self.state.lock();
        if state.try_acquire(number) {
            return Ok(());
        }
        let why = (WaitReason::SemaphoreAcquire.on(self), wait);
        match wait_in(&self.state, state, |state| &mut state.queue, (Place::Back, number), parker, why).await
        {
            Waited::Served(_) => Ok(()),
            Waited::ServedInVain(_) => {
                let undone = self.release(number);
                debug_assert_eq!(undone, Ok(()), "permits granted were not counted");
                Err(AcquireError::Wait(WaitError::Interrupted))
            }
            Waited::Failed(error, mut state) => {
                // We may have been what held the others back.
                let wakes = state.grant();
                drop(state);
                wakes.wake_all();
                Err(AcquireError::Wait(error))
            }
        }
    }

    /// Takes `number` permits if they are free and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, number: u64) -> bool {
        self.state.lock().try_acquire(number)
    }

    /// Gives `number` permits back.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn release(&self, number: u64) -> Result<(), TooMany> {
        let mut state = self.state.lock();
        if number > self.size - state.free {
            return Err(TooMany);
        }
        state.free += number;
        let wakes = state.grant();
        drop(state);
        wakes.wake_all();
        Ok(())
    }

    /// How many permits there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many of them are free, a moment ago.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.state.lock().free
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::TooMany => f.write_str("more permits than the semaphore has"),
            AcquireError::Wait(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("semaphore: released more than held")
    }
}

impl std::error::Error for AcquireError {}
impl std::error::Error for TooMany {}

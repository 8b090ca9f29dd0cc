//! A point that a fixed number of parties pass together, again and again.
//!
//! **Invariants** (under the lock)
//! * `arrived < parties`: the last one to come lets everybody pass in the same step.
//! * A barrier that somebody has left before it was full is broken: the others would wait for ever, so
//!   they are told, and so is whoever comes later, until `reset`. (`threading.Barrier` does the same.)
//! * `round` advances whenever everybody leaves, and `broken_round` is the last one that did not pass.

use crate::clock::Wait;
use crate::lock::{Guard, Mutex, Rank};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;

/// A barrier.
pub struct Barrier {
    parties: usize,
    state: Mutex<State>,
}

struct State {
    arrived: usize,
    broken: bool,
    /// Counted from 1.
    round: u64,
    /// 0: none.
    broken_round: u64,
    /// Each waiter brings its index, and finds it again if the barrier was passed.
    queue: WaitQueue<usize>,
}

/// Why [`Barrier::wait`] did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierError {
    /// The barrier is broken, or was broken or reset while waiting.
    Broken,
    /// The wait failed. That has broken the barrier, unless it was passed at the same moment.
    Wait(WaitError),
}

impl State {
    /// Ends the round: everybody passes, or nobody does.
    fn end_round(&mut self, passed: bool) -> WakeList<usize> {
        if !passed {
            self.broken_round = self.round;
        }
        self.round += 1;
        self.arrived = 0;
        let mut wakes = WakeList::new();
        while let Some(mut waiter) = self.queue.pop() {
            let index = waiter.take();
            if passed {
                waiter.put(index);
            }
            wakes.push(waiter);
        }
        wakes
    }
}

impl Barrier {
    /// A barrier for so many parties.
    ///
    /// # Panics
    /// If `parties` is 0.
    #[must_use]
    pub fn new(parties: usize) -> Barrier {
        assert!(parties > 0, "a barrier for nobody");
        let state = State { arrived: 0, broken: false, round: 1, broken_round: 0, queue: WaitQueue::new() };
        Barrier { parties, state: Mutex::new(Rank::Object, state) }
    }

    /// Waits for all parties; returns how many had come before, a different number for each.
    ///
    /// # Blocking
    /// Until the last one comes, at most as `wait` says.
    ///
    /// # Errors
    /// [`BarrierError`] with the reason.
    pub fn wait(&self, wait: Wait) -> Result<usize, BarrierError> {
        at_once(self.wait_with(wait, &Parker::new()))
    }

    pub(crate) async fn wait_with(&self, wait: Wait, parker: &impl Park) -> Result<usize, BarrierError> {
        if parker.waiter().take_cancel() {
            return Err(BarrierError::Wait(WaitError::Cancelled));
        }
        let mut state = self.state.lock();
        if state.broken {
            return Err(BarrierError::Broken);
        }
        let (index, round) = (state.arrived, state.round);
        if index + 1 == self.parties {
            let wakes = state.end_round(true);
            drop(state);
            wakes.wake_all();
            return Ok(index);
        }
        state.arrived += 1;
        let why = (WaitReason::BarrierWait.on(self), wait);
        let (error, state) =
            match wait_in(&self.state, state, |state| &mut state.queue, (Place::Back, index), parker, why)
                .await
            {
                Waited::Served(Some(index)) => return Ok(index),
                Waited::Served(None) => return Err(BarrierError::Broken),
                Waited::ServedInVain(_) => return Err(BarrierError::Wait(WaitError::Interrupted)),
                Waited::Failed(error, state) => (error, state),
            };
        if state.round == round {
            Self::break_up(state, true);
            return Err(BarrierError::Wait(error));
        }
        // The round ended between the end of our wait and this lock. In doubt it was broken.
        let passed = state.broken_round < round;
        drop(state);
        match error {
            WaitError::Interrupted => Err(BarrierError::Wait(error)),
            _ if !passed => Err(BarrierError::Wait(error)),
            WaitError::TimedOut => Ok(index),
            WaitError::Cancelled => {
                parker.waiter().cancel_later();
                Ok(index)
            }
        }
    }
    /// Breaks the barrier: everybody who waits, and whoever comes before `reset`, is told.
    pub fn abort(&self) {
        Self::break_up(self.state.lock(), true);
    }

    /// Makes the barrier as new. Whoever waits is told that it was broken.
    pub fn reset(&self) {
        Self::break_up(self.state.lock(), false);
    }

    fn break_up(mut state: Guard<'_, State>, broken: bool) {
        state.broken = broken;
        let wakes = state.end_round(false);
        drop(state);
        wakes.wake_all();
    }

    /// How many it takes.
    #[must_use]
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().arrived
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state.lock().broken
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("parties", &self.parties).finish_non_exhaustive()
    }
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BarrierError::Broken => f.write_str("the barrier is broken"),
            BarrierError::Wait(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BarrierError {}

//! Sleeping: a wait that nobody ends but the clock, a cancellation or a signal.

use crate::clock::Wait;
use crate::waiter::{Outcome, Park, Parker, WaitReason, at_once};

/// Why a sleep ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepError {
    /// The goroutine was cancelled.
    Cancelled,
    /// A signal handler raised in this thread.
    Interrupted,
}

/// Sleeps until `wait` is over; `Wait::No` only checks for cancellation.
///
/// # Blocking
/// Parks the goroutine, or puts a plain thread to sleep. Never ends early without an error.
///
/// # Errors
/// [`SleepError`].
pub fn sleep(wait: Wait) -> Result<(), SleepError> {
    at_once(sleep_with(wait, &Parker::new()))
}

pub(crate) async fn sleep_with(wait: Wait, parker: &impl Park) -> Result<(), SleepError> {
    if parker.waiter().take_cancel() {
        return Err(SleepError::Cancelled);
    }
    if wait == Wait::No {
        return Ok(());
    }
    if !parker.waiter().begin() {
        return Err(SleepError::Cancelled);
    }
    match parker.park(WaitReason::Sleep.alone(), wait).await {
        Outcome::Cancelled | Outcome::Abandoned => Err(SleepError::Cancelled),
        Outcome::Interrupted => Err(SleepError::Interrupted),
        Outcome::TimedOut | Outcome::Case(_) if parker.raised() => Err(SleepError::Interrupted),
        Outcome::TimedOut | Outcome::Case(_) => Ok(()),
    }
}

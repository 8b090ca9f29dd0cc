//! One wait in one queue: how every object but channels and `select` waits, and why such a wait may fail.
//!
//! **Invariants**
//! * The node lives in the frame of [`wait_in`], which returns only after the node was served and its
//!   waiter woken, or after the node was taken out under the object's lock.
//! * A wait that fails has changed nothing but the queue; what else its coming has changed, the caller
//!   undoes under the lock that comes with the failure.

use crate::clock::Wait;
use crate::lock::{Guard, Mutex};
use crate::waiter::{Outcome, Park, Why};
use crate::waitq::{Node, WaitQueue};
use std::fmt;

/// Why a wait ended without what it waited for. The object is as if the wait had never been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The time was up.
    TimedOut,
    /// The goroutine was cancelled.
    Cancelled,
    /// A signal handler raised in this thread.
    Interrupted,
}

/// Where a waiter stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Back,
    /// For one that was woken, lost a race and waits on.
    Front,
}

/// How a wait in a queue went.
#[must_use]
pub(crate) enum Waited<'a, S, T> {
    /// It was served, and this was in the node afterwards.
    Served(Option<T>),
    /// It was served, but a signal handler raised meanwhile: undo, then report `Interrupted`.
    ServedInVain(Option<T>),
    /// It failed. The node is out of the queue, and the object is still locked.
    Failed(WaitError, Guard<'a, S>),
}

/// Waits in a queue of `object`, which is locked by `state`: queues a node with `value`, unlocks, parks.
pub(crate) async fn wait_in<'a, S, T>(
    object: &'a Mutex<S>,
    mut state: Guard<'a, S>,
    queue: fn(&mut S) -> &mut WaitQueue<T>,
    (place, value): (Place, T),
    parker: &impl Park,
    (why, wait): (Why, Wait),
) -> Waited<'a, S, T> {
    if wait == Wait::No {
        return Waited::Failed(WaitError::TimedOut, state);
    }
    if !parker.waiter().begin() {
        return Waited::Failed(WaitError::Cancelled, state);
    }
    let node = Node::new(parker, 0, Some(value));
    match place {
        // SAFETY: the node stays in this frame, which does not return before the node was popped and
        // its waiter woken, or removed below; the wait has begun.
        Place::Back => unsafe { queue(&mut state).push(&node) },
        // SAFETY: as above.
        Place::Front => unsafe { queue(&mut state).push_front(&node) },
    }
    drop(state);

    let error = match parker.park(why, wait).await {
        Outcome::Case(_) => {
            // SAFETY: the wait is over, and whoever served the node has taken it out of the queue.
            let value = unsafe { node.take() };
            return if parker.raised() { Waited::ServedInVain(value) } else { Waited::Served(value) };
        }
        Outcome::TimedOut => WaitError::TimedOut,
        Outcome::Cancelled | Outcome::Abandoned => WaitError::Cancelled,
        Outcome::Interrupted => WaitError::Interrupted,
    };
    let mut state = object.lock();
    queue(&mut state).remove(&node);
    Waited::Failed(error, state)
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitError::TimedOut => "wait timed out",
            WaitError::Cancelled => "goroutine cancelled while waiting",
            WaitError::Interrupted => "wait interrupted by a signal",
        })
    }
}

impl std::error::Error for WaitError {}

//! The inbox: how other threads hand a woken goroutine to the worker it lives on.
//!
//! Many push, one takes. A stack of tasks linked through their own `next` field; the taker empties it in
//! one swap and turns the order around, so that wakes are served first in, first out.
//!
//! **Invariant**: a task is pushed by whoever won its wait, so it is in no other queue, and the inbox
//! owns the one reference that parked with it.

use crate::sync::{AtomicPtr, Ordering};
use crate::task::Task;
use std::collections::VecDeque;
use std::ptr;

pub(crate) struct Inbox {
    top: AtomicPtr<Task>,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Puts `task` in.
    ///
    /// # Safety
    /// The task is alive, in no queue, and the caller gives its reference to the inbox.
    pub(crate) unsafe fn push(&self, task: *mut Task) {
        // Ordering: Relaxed. Only a first guess for the exchange below.
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            // Ordering: Relaxed. The link is published by the exchange below.
            // SAFETY: by the contract the task is alive, and its link is ours.
            unsafe { (*task).next.store(top, Ordering::Relaxed) };
            // Ordering: Release pairs with the Acquire swap in `take`: the link, and all that the waker
            // wrote into the waiter's node, are visible to the worker. Failure: just a new guess.
            match self.top.compare_exchange_weak(top, task, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Ordering: Relaxed. A hint; before sleeping it is read again after the idle protocol's fence.
        self.top.load(Ordering::Relaxed).is_null()
    }

    /// Moves everything into `queue`, oldest first.
    pub(crate) fn take(&self, queue: &mut VecDeque<*mut Task>) {
        // Ordering: Acquire pairs with the Release exchange in `push`.
        let mut task = self.top.swap(ptr::null_mut(), Ordering::Acquire);
        let start = queue.len();
        while !task.is_null() {
            queue.push_back(task);
            // Ordering: Relaxed. Published by the swap above.
            // SAFETY: what is in the inbox is alive: it owns a reference.
            task = unsafe { (*task).next.load(Ordering::Relaxed) };
        }
        queue.make_contiguous()[start..].reverse();
    }
}

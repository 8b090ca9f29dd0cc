//! Waiting without a stack: calls that are polled, for `async` code.
//!
//! The calls are the same `async` functions that goroutines with a stack run on the spot (waiter.rs, [`Park`]);
//! here their state lives in a box. Who polls is a goroutine without a stack, or a task of a foreign event loop.
//!
//! **Invariants**
//! * Between the start of a wait and its end at most one waker claims it, and wakes once. The end is taken
//!   notice of only after that wake: until then the waker may use the nodes, which are in the box.
//! * So a call that waits is never dropped as it is: [`Waiting`] first ends its wait (`end_wait`).
//! * A caller waits for one thing at a time.

mod calls;
#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(any(loom, miri))))]
mod tests;

pub use calls::{
    acquire, attempt, attempt_owned, await_barrier, await_cond, await_event, await_wait_group, changed, lock,
    ready, recv, rlock, rwlock, select, send, sleep, turn_over,
};

use crate::clock::Wait;
use crate::lock::{Mutex, Rank};
use crate::sched;
use crate::sync::{AtomicU32, Ordering};
use crate::task::Task;
use crate::timer::Entry;
use crate::waiter::{Kind, Outcome, Park, Waiter, Why};
use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Who waits without a stack.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A goroutine without a stack.
    Task(Arc<Task>),
    /// A task of a foreign event loop.
    Foreign(Arc<Foreign>),
}

/// A task of a foreign event loop, as long as it waits for one thing.
#[repr(C)]
pub struct Foreign {
    /// First, so that a pointer to it is a pointer to the whole.
    waiter: Waiter,
    woken: AtomicU32,
    key: u64,
    port: Arc<Port>,
}

/// Where a foreign event loop hears whose waits are over.
pub struct Port {
    keys: Mutex<Vec<u64>>,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Port {
    /// A port that calls `ring` when something has come into an empty port: on any thread, attached to the
    /// host or not, so it must neither call the host nor block.
    #[must_use]
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Arc<Port> {
        Arc::new(Port { keys: Mutex::new(Rank::Sched, Vec::new()), ring: Box::new(ring) })
    }

    /// Takes out the keys of those whose waits are over.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.keys.lock())
    }

    fn put(&self, key: u64) {
        let first = {
            let mut keys = self.keys.lock();
            keys.push(key);
            keys.len() == 1
        };
        if first {
            (self.ring)();
        }
    }
}

impl Foreign {
    /// A waiter whose end is told to `port` with `key`.
    #[must_use]
    pub fn new(port: Arc<Port>, key: u64) -> Arc<Foreign> {
        Arc::new(Foreign { waiter: Waiter::new(Kind::Foreign), woken: AtomicU32::new(0), key, port })
    }

    /// # Safety
    /// As [`crate::waiter::Wake::new`]: called once, by the winner.
    pub(crate) unsafe fn wake(this: NonNull<Foreign>) {
        // SAFETY: the waiter stays until it was woken.
        let (port, key) = unsafe { (Arc::clone(&(*this.as_ptr()).port), (*this.as_ptr()).key) };
        // Ordering: Release pairs with the Acquire in `Caller::was_woken`: what the waker wrote into the
        // waiter's node is seen. Our last access: the waiter may be gone right after.
        // SAFETY: as above.
        unsafe { (*this.as_ptr()).woken.store(1, Ordering::Release) };
        port.put(key);
    }
}

impl Caller {
    /// The running goroutine, if it has no stack of its own.
    #[must_use]
    pub fn current_task() -> Option<Caller> {
        sched::current_stackless().map(Caller::Task)
    }

    /// Whether it is waiting for something.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiter().is_waiting()
    }

    fn waiter(&self) -> &Waiter {
        match self {
            Caller::Task(task) => task.waiter(),
            Caller::Foreign(foreign) => &foreign.waiter,
        }
    }

    fn pointer(&self) -> NonNull<Waiter> {
        match self {
            Caller::Task(task) => NonNull::from(&**task).cast(),
            Caller::Foreign(foreign) => NonNull::from(&**foreign).cast(),
        }
    }

    /// Whether its wait is over, which it has not noticed yet.
    #[must_use]
    pub fn was_woken(&self) -> bool {
        match self {
            Caller::Task(task) => task.was_woken(),
            // Ordering: Acquire pairs with the Release in `Foreign::wake`.
            Caller::Foreign(foreign) => foreign.woken.load(Ordering::Acquire) != 0,
        }
    }

    /// The wake has been noticed: ready for another wait.
    fn forget_wake(&self) {
        match self {
            Caller::Task(task) => task.forget_wake(),
            // Ordering: Relaxed. The waker is done with it.
            Caller::Foreign(foreign) => foreign.woken.store(0, Ordering::Relaxed),
        }
    }

    /// Ends the wait, if it has not ended; afterwards nobody uses its nodes.
    fn end_wait(&self, claim: impl Fn(&Waiter) -> bool) {
        if claim(self.waiter()) {
            match self {
                Caller::Task(task) => task.wake_unqueued(),
                // Ordering: Relaxed. Read by this thread.
                Caller::Foreign(foreign) => foreign.woken.store(1, Ordering::Relaxed),
            }
        }
        // Somebody else won, and is about to wake: it holds no lock and calls nothing in between.
        let mut rounds = 0;
        while !self.was_woken() {
            rounds += 1;
            if rounds < 100 {
                std::hint::spin_loop();
            } else {
                sched::yield_thread();
            }
        }
    }
}

/// How a call that is polled waits.
pub(crate) struct Poller {
    caller: Caller,
    abandoned: Cell<bool>,
}

impl Park for Poller {
    fn waiter(&self) -> &Waiter {
        self.caller.waiter()
    }

    fn pointer(&self) -> NonNull<Waiter> {
        self.caller.pointer()
    }

    fn goroutine(&self) -> u64 {
        if let Caller::Task(task) = &self.caller { task.id() } else { 0 }
    }

    fn has_worker(&self) -> bool {
        matches!(self.caller, Caller::Task(_))
    }

    fn raised(&self) -> bool {
        false
    }

    fn abandoned(&self) -> bool {
        self.abandoned.get()
    }

    fn park(&self, why: Why, wait: Wait) -> impl Future<Output = Outcome> {
        debug_assert!(wait != Wait::No, "a call that may not wait must not park");
        let entry = match wait {
            // In a box of its own: most waits have no time limit, and this is what a parked goroutine costs.
            Wait::Until(at) => Some(Box::new(Entry::waking(at, self.pointer()))),
            Wait::Forever | Wait::No => None,
        };
        Parked { poller: self, entry, why, started: false }
    }
}

/// One wait. Pinned: the timers know where its entry is.
struct Parked<'a> {
    poller: &'a Poller,
    entry: Option<Box<Entry>>,
    why: Why,
    started: bool,
}

impl Future for Parked<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: nothing is moved out of it below.
        let this = unsafe { self.get_unchecked_mut() };
        let caller = &this.poller.caller;
        if !this.started {
            this.started = true;
            if let Caller::Task(task) = caller {
                task.note_wait(this.why, this.entry.is_some());
            }
            if let Some(entry) = &this.entry {
                // SAFETY: pinned, and taken out below, before this future ends; a future that has not ended is
                // not dropped (module invariants).
                unsafe { sched::timers().insert(entry) };
            }
        }
        if !caller.was_woken() {
            return Poll::Pending;
        }
        if let Some(entry) = &this.entry {
            sched::timers().remove(entry);
        }
        if let Caller::Task(task) = caller {
            task.note_no_wait();
        }
        caller.forget_wake();
        let outcome = caller.waiter().finish();
        if outcome == Outcome::Abandoned {
            this.poller.abandoned.set(true);
            return Poll::Ready(Outcome::Cancelled);
        }
        Poll::Ready(outcome)
    }
}

/// A call that waits, between its polls.
pub struct Waiting<T> {
    /// None once it has answered.
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    caller: Caller,
    /// Whether it has begun to wait.
    begun: bool,
}

// SAFETY: what is not Send in the box are its nodes and timer entries, which are linked and touched under their
// objects' locks only, and its caller's waiter, which is atomic; the makers of these calls (below, and in the
// modules of the objects) put nothing else into it that is not Send. It is polled through `&mut`, so by one
// thread at a time.
unsafe impl<T: Send> Send for Waiting<T> {}

impl<T> Waiting<T> {
    /// A call of `caller`, not begun yet. What `make` returns must be `Send` but for what [`Park`] brings.
    pub(crate) fn new<F>(caller: Caller, make: impl FnOnce(Poller) -> F) -> Waiting<T>
    where
        F: Future<Output = T> + 'static,
    {
        let poller = Poller { caller: caller.clone(), abandoned: Cell::new(false) };
        Waiting { future: Some(Box::pin(make(poller))), caller, begun: false }
    }

    /// Goes on with the call; its answer, or None if it waits.
    ///
    /// # Panics
    /// After the answer; and if its caller waits for something else.
    pub fn poll(&mut self) -> Option<T> {
        let future = self.future.as_mut().expect("a call that has answered is not polled");
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => {
                self.future = None;
                self.begun = false;
                Some(answer)
            }
            Poll::Pending => {
                self.begun = true;
                None
            }
        }
    }

    /// Ends the wait as a cancellation would, and goes on with the call. If it had been served already, its
    /// answer says so; a call that must wait for something else first answers None.
    pub fn cancel(&mut self) -> Option<T> {
        if self.begun {
            self.caller.end_wait(Waiter::claim_cancelled);
        }
        self.poll()
    }

    /// Who waits.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Ends the call where it stands. Its answer, if it had been served; else nothing has happened.
    pub fn abandon(&mut self) -> Option<T> {
        while self.begun {
            self.caller.end_wait(Waiter::claim_abandoned);
            if let Some(answer) = self.poll() {
                return Some(answer);
            }
        }
        None
    }
}

impl<T> Drop for Waiting<T> {
    /// Drops what it may have been served: who cares calls `abandon` first.
    fn drop(&mut self) {
        drop(self.abandon());
    }
}

impl<T> fmt::Debug for Waiting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

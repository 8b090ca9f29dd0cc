//! A first-in, first-out queue of waiters, and the node by which each stands in it.
//!
//! **Invariants**
//! * A node lives on the waiting stack (or beside it) and does not move while it is queued.
//! * Queue and nodes are touched only under the lock of the object the queue belongs to, except that
//!   a node's value belongs to whoever claimed its waiter, from the claim to the wake, and to the
//!   waiter before and after.
//! * Nodes of an older runtime generation are ghosts: copies, in a forked child, of waiters whose
//!   threads do not exist there. They are dropped unseen.
//!
//! ```text
//!  head -> node <-> node <-> node <- tail        each node: waiter, case number, value
//! ```

use crate::sched::generation;
use crate::waiter::{Park, Waiter, Wake};
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomPinned;
use std::ptr::{self, NonNull};

/// One place in one queue.
pub(crate) struct Node<T> {
    previous: Cell<*const Node<T>>,
    next: Cell<*const Node<T>>,
    queued: Cell<bool>,
    generation: u32,
    /// Which case of the wait this node stands for; 0 for a plain call.
    case: u32,
    waiter: NonNull<Waiter>,
    value: UnsafeCell<Option<T>>,
    _pinned: PhantomPinned,
}

impl<T> Node<T> {
    pub(crate) fn new(parker: &impl Park, case: u32, value: Option<T>) -> Node<T> {
        Node {
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            queued: Cell::new(false),
            generation: generation(),
            case,
            waiter: parker.pointer(),
            value: UnsafeCell::new(value),
            _pinned: PhantomPinned,
        }
    }

    /// Takes the value out.
    ///
    /// # Safety
    /// The caller is the waiter, and its wait is over (or has not begun).
    pub(crate) unsafe fn take(&self) -> Option<T> {
        // SAFETY: by the contract nobody else may touch the value now.
        unsafe { (*self.value.get()).take() }
    }
}

/// A node whose waiter was claimed: the holder may set or take its value, and owes the wake.
pub(crate) struct Claimed<T> {
    node: NonNull<Node<T>>,
}

impl<T> Claimed<T> {
    /// Gives the waiter a value (a receiver's node).
    pub(crate) fn put(&mut self, value: T) {
        // SAFETY: the claim gives us the value until the wake (module invariants).
        let place = unsafe { &mut *(*self.node.as_ptr()).value.get() };
        debug_assert!(place.is_none(), "a receiver brings no value");
        *place = Some(value);
    }

    /// Takes the waiter's value (a sender's node).
    pub(crate) fn take(&mut self) -> T {
        // SAFETY: the claim gives us the value until the wake (module invariants).
        let place = unsafe { &mut *(*self.node.as_ptr()).value.get() };
        place.take().expect("a sender brings a value")
    }

    /// Done with the node: what is left is to wake, after unlocking.
    pub(crate) fn wake_later(self) -> Wake {
        // SAFETY: the node is valid until the wake, and we hold the claim.
        let waiter = unsafe { (*self.node.as_ptr()).waiter };
        // SAFETY: the claim was won by `pop`, and `self` is consumed, so this is the only Wake.
        unsafe { Wake::new(waiter) }
    }
}

/// Claimed nodes, chained through their own links: wakes any number without allocating.
pub(crate) struct WakeList<T> {
    first: *const Node<T>,
    last: *const Node<T>,
}

impl<T> WakeList<T> {
    pub(crate) fn new() -> WakeList<T> {
        WakeList { first: ptr::null(), last: ptr::null() }
    }

    pub(crate) fn push(&mut self, claimed: Claimed<T>) {
        let node = claimed.node.as_ptr().cast_const();
        // SAFETY: claimed nodes are valid until their wake, which only `wake_all` performs.
        unsafe { (*node).next.set(ptr::null()) };
        if self.last.is_null() {
            self.first = node;
        } else {
            // SAFETY: as above: `last` is claimed and not woken yet.
            unsafe { (*self.last).next.set(node) };
        }
        self.last = node;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Wakes all, in the order of `push`.
    pub(crate) fn wake_all(self) {
        let mut node = self.first;
        while !node.is_null() {
            // SAFETY: not woken yet, so still valid; `next` is read before the wake that may end it.
            let (next, waiter) = unsafe { ((*node).next.get(), (*node).waiter) };
            // SAFETY: the claim was won when the node entered this list; each is woken once.
            unsafe { Wake::new(waiter) }.wake();
            node = next;
        }
    }
}

/// The queue.
pub(crate) struct WaitQueue<T> {
    head: *const Node<T>,
    tail: *const Node<T>,
}

// SAFETY: the pointers are followed only under the lock of the queue's object, and the nodes stay
// valid while queued; values of T travel between threads, hence the bound.
unsafe impl<T: Send> Send for WaitQueue<T> {}

impl<T> WaitQueue<T> {
    pub(crate) const fn new() -> WaitQueue<T> {
        WaitQueue { head: ptr::null(), tail: ptr::null() }
    }

    /// Whether nobody is queued; a queue of nothing but lost or dead waiters counts as not empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Whether somebody of this process is queued.
    pub(crate) fn has_any(&mut self) -> bool {
        let _ = self.peek();
        !self.is_empty()
    }

    /// The values that `waiter` has brought here and that nobody has taken.
    ///
    /// # Safety
    /// `waiter` waits, was not claimed, and cannot return meanwhile.
    pub(crate) unsafe fn brought_by(&self, waiter: NonNull<Waiter>) -> Vec<&T> {
        let mut found = Vec::new();
        let mut node = self.head;
        // SAFETY: queued nodes are valid, and we are under the queue's lock.
        while let Some(here) = unsafe { node.as_ref() } {
            if here.waiter == waiter && here.generation == generation() {
                // SAFETY: by the contract nobody else touches the value now.
                found.extend(unsafe { (*here.value.get()).as_ref() });
            }
            node = here.next.get();
        }
        found
    }

    /// Queues `node` at the back.
    ///
    /// # Safety
    /// The node stays in place, alive, until it was popped and woken, or removed. Its wait has begun.
    pub(crate) unsafe fn push(&mut self, node: &Node<T>) {
        debug_assert!(!node.queued.get(), "queued twice");
        node.queued.set(true);
        node.previous.set(self.tail);
        node.next.set(ptr::null());
        if self.tail.is_null() {
            self.head = node;
        } else {
            // SAFETY: queued nodes are valid, and we are under the queue's lock.
            unsafe { (*self.tail).next.set(node) };
        }
        self.tail = node;
    }

    /// Queues `node` at the front: for a waiter that was woken, lost a race and waits on.
    ///
    /// # Safety
    /// As [`WaitQueue::push`].
    pub(crate) unsafe fn push_front(&mut self, node: &Node<T>) {
        debug_assert!(!node.queued.get(), "queued twice");
        node.queued.set(true);
        node.previous.set(ptr::null());
        node.next.set(self.head);
        if self.head.is_null() {
            self.tail = node;
        } else {
            // SAFETY: queued nodes are valid, and we are under the queue's lock.
            unsafe { (*self.head).previous.set(node) };
        }
        self.head = node;
    }

    /// Takes out `node` if it is still queued: O(1).
    pub(crate) fn remove(&mut self, node: &Node<T>) {
        if !node.queued.get() {
            return;
        }
        let (previous, next) = (node.previous.get(), node.next.get());
        if previous.is_null() {
            self.head = next;
        } else {
            // SAFETY: neighbours of a queued node are queued, hence valid; we are under the lock.
            unsafe { (*previous).next.set(next) };
        }
        if next.is_null() {
            self.tail = previous;
        } else {
            // SAFETY: as above.
            unsafe { (*next).previous.set(previous) };
        }
        node.queued.set(false);
    }

    /// Takes out the oldest waiter that can still be claimed, and claims it.
    pub(crate) fn pop(&mut self) -> Option<Claimed<T>> {
        self.pop_if(|_| true)
    }

    /// The same, as long as the value that the oldest waiter brought pleases.
    pub(crate) fn pop_if(&mut self, pleases: impl Fn(&T) -> bool) -> Option<Claimed<T>> {
        loop {
            let node = NonNull::new(self.head.cast_mut())?;
            // SAFETY: queued nodes are valid (in a forked child the ghosts' memory was copied too).
            let found = unsafe { node.as_ref() };
            if found.generation != generation() {
                self.remove(found);
                continue;
            }
            // SAFETY: as in `peek`.
            if unsafe { (*found.value.get()).as_ref() }.is_some_and(|value| !pleases(value)) {
                return None;
            }
            self.remove(found);
            // SAFETY: a queued node of this generation has a live waiter (waiter.rs, invariants).
            if unsafe { found.waiter.as_ref() }.claim(found.case) {
                return Some(Claimed { node });
            }
        }
    }

    /// The oldest waiter whose value pleases, wherever it stands; looks at all before it.
    pub(crate) fn pop_where(&mut self, pleases: impl Fn(&T) -> bool) -> Option<Claimed<T>> {
        let mut next = self.head;
        while let Some(node) = NonNull::new(next.cast_mut()) {
            // SAFETY: as in `pop_if`.
            let found = unsafe { node.as_ref() };
            next = found.next.get();
            if found.generation != generation() {
                self.remove(found);
                continue;
            }
            // SAFETY: as in `peek`.
            if unsafe { (*found.value.get()).as_ref() }.is_some_and(|value| !pleases(value)) {
                continue;
            }
            self.remove(found);
            // SAFETY: as in `pop_if`.
            if unsafe { found.waiter.as_ref() }.claim(found.case) {
                return Some(Claimed { node });
            }
        }
        None
    }

    /// The value of the oldest node, for looking only. Skips ghosts: None if nobody else is queued.
    pub(crate) fn peek(&mut self) -> Option<&T> {
        loop {
            let node = NonNull::new(self.head.cast_mut())?;
            // SAFETY: as in `pop`.
            let found = unsafe { node.as_ref() };
            if found.generation == generation() {
                // SAFETY: nobody writes the value of a queued, unclaimed node; a claimed one has left
                // the queue under this lock, or its waiter timed out and only removes it.
                return unsafe { (*found.value.get()).as_ref() };
            }
            self.remove(found);
        }
    }
}

//! Plain threads that sleep in a wait: who they are and what for. For dumps, and for deadlock detection.
//!
//! **Invariants**
//! * A thread has one record, made at its first wait and used again by others after its end; records are
//!   never freed.
//! * While a record shows a wait, the frame of that wait is alive: the thread takes it out, under the record's
//!   lock, before the waiting call returns. So under the lock its waiter may be looked at.
//! * A thread that runs a signal handler in the middle of a wait has no waiter in its record meanwhile, or that of
//!   a wait of the handler: it is awake.

use crate::clock::{Deadline, coarse, note, now};
use crate::sched;
use crate::waiter::{WaitReason, Waiter, Why};
use std::cell::Cell;
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move; statics cannot be loom's")]
type WaitLock = std::sync::Mutex<Shown>;

/// What a record shows.
struct Shown {
    /// Null: it does not wait, or runs a signal handler meanwhile.
    waiter: *const Waiter,
    /// `None`: it does not wait.
    why: Why,
    since: u64,
    timed: bool,
    /// Counts the waits; no two in a row have the same number.
    turn: u64,
    /// What the host knows the thread by.
    thread: usize,
}

// SAFETY: the pointer is followed under the record's lock only.
unsafe impl Send for Shown {}

pub(crate) struct Record {
    shown: WaitLock,
    /// Whether a living thread has it.
    taken: AtomicBool,
    /// Whether what it waits for is something to do for others: see [`idle`].
    idle: AtomicBool,
    next: *const Record,
}

// SAFETY: `next` is written before the record is shown to others; the rest is atomic or locked.
unsafe impl Sync for Record {}

/// All records, newest first.
static FIRST: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// Gives the thread's record back at its end.
struct Own(Cell<Option<&'static Record>>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(record) = self.0.get() {
            // Ordering: Release pairs with the Acquire in `take`: whoever has it next finds it as we left it.
            record.taken.store(false, Ordering::Release);
        }
    }
}

thread_local! {
    static OWN: Own = const { Own(Cell::new(None)) };
    /// Whether this thread waits for something that is not ours: see [`outside`].
    static OUTSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What is seen of a waiting thread.
#[derive(Clone, Copy, Debug)]
pub struct SeenThread {
    /// As `pthread_self` gives it.
    pub thread: usize,
    /// What it waits for.
    pub reason: WaitReason,
    /// On which object: an address, 0 if none. Alive while the thread cannot get hold of the host.
    pub object: usize,
    /// Since when.
    pub since: Deadline,
}

/// A wait that is shown, from here to its drop.
pub(crate) struct Showing {
    record: Option<&'static Record>,
    waiter: *const Waiter,
    why: Why,
    timed: bool,
}

impl Showing {
    /// Shows that this thread waits with `waiter`, which stays where it is until the drop.
    pub(crate) fn new(waiter: &Waiter, why: Why, timed: bool) -> Showing {
        note(now());
        let record = if OUTSIDE.get() { None } else { own() };
        let showing = Showing { record, waiter, why, timed };
        showing.resume();
        showing
    }

    /// A signal handler runs in the middle of the wait: the thread is awake until `resume`.
    pub(crate) fn pause(&self) {
        if let Some(record) = self.record {
            let mut shown = record.lock();
            shown.waiter = ptr::null();
            shown.turn += 1;
        }
    }

    /// The wait goes on.
    pub(crate) fn resume(&self) {
        if let Some(record) = self.record {
            let mut shown = record.lock();
            shown.waiter = self.waiter;
            shown.why = self.why;
            shown.timed = self.timed;
            shown.since = coarse();
            shown.turn += 1;
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.pause();
        if let Some(record) = self.record {
            record.lock().why = WaitReason::None.alone();
        }
    }
}

impl Record {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all() -> impl Iterator<Item = &'static Record> {
    // Ordering: Acquire pairs with the Release in `take`: the record is complete.
    let first = FIRST.load(Ordering::Acquire).cast_const();
    // SAFETY: null, or a record, which is never freed; as is its next.
    std::iter::successors(unsafe { first.as_ref() }, |record| unsafe { record.next.as_ref() })
}

/// This thread's record; None if the thread is ending.
fn own() -> Option<&'static Record> {
    OWN.try_with(|own| {
        if own.0.get().is_none() {
            own.0.set(Some(take()));
        }
        own.0.get()
    })
    .ok()
    .flatten()
}

/// Takes a record for this thread.
fn take() -> &'static Record {
    // SAFETY: names the calling thread.
    let thread = unsafe { libc::pthread_self() } as usize;
    for record in all() {
        // Ordering: Acquire pairs with the Release of its last owner's end. Failure: it is another's.
        if record.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            record.lock().thread = thread;
            return record;
        }
    }
    let shown =
        Shown { waiter: ptr::null(), why: WaitReason::None.alone(), since: 0, timed: false, turn: 0, thread };
    let record = Box::leak(Box::new(Record {
        shown: WaitLock::new(shown),
        taken: AtomicBool::new(true),
        idle: AtomicBool::new(false),
        next: ptr::null(),
    }));
    // Ordering: Relaxed. A first guess for the exchange below.
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        record.next = first;
        // Ordering: Release pairs with the Acquire in `all`. Failure: a new guess.
        match FIRST.compare_exchange_weak(first, record, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return record,
            Err(found) => first = found,
        }
    }
}

/// Runs `wait`, in which this thread waits to do something for others and nothing of its own: the wait neither
/// counts as somebody's who could go on, nor as a lost one.
pub fn idle<R>(wait: impl FnOnce() -> R) -> R {
    let record = own();
    let set = |idle| {
        if let Some(record) = record {
            // Ordering: Relaxed. Read under the record's lock while a wait is shown, which comes later.
            record.idle.store(idle, Ordering::Relaxed);
        }
    };
    set(true);
    let result = wait();
    set(false);
    result
}

/// Runs `wait`, in which a thread waits for something that is not ours, whatever it is made of: it is not shown, and
/// so counts as one that might go on. In a goroutine that has a stack this changes nothing.
#[inline]
pub fn outside<R>(wait: impl FnOnce() -> R) -> R {
    if sched::current_stackful().is_some() {
        return wait();
    }
    let before = OUTSIDE.replace(true);
    let result = wait();
    OUTSIDE.set(before);
    result
}

/// The threads that wait now, idle ones aside.
#[must_use]
pub fn waiting_threads() -> Vec<SeenThread> {
    all()
        .filter_map(|record| {
            let shown = record.lock();
            // Ordering: Relaxed. As in `idle`.
            (shown.why.reason != WaitReason::None && !record.idle.load(Ordering::Relaxed)).then_some(
                SeenThread {
                    thread: shown.thread,
                    reason: shown.why.reason,
                    object: shown.why.object,
                    since: Deadline(shown.since),
                },
            )
        })
        .collect()
}

/// Adds the number of each waiting thread's wait to `turns`. None: one may go on by itself, or is about to.
pub(crate) fn asleep(turns: &mut Vec<u64>) -> Option<usize> {
    let mut count = 0;
    for record in all() {
        let shown = record.lock();
        // SAFETY: null, or shown, and so in place while we hold the record's lock.
        let Some(waiter) = (unsafe { shown.waiter.as_ref() }) else { continue };
        // Ordering: Relaxed. As in `idle`.
        if !waiter.is_unclaimed() || shown.timed && !record.idle.load(Ordering::Relaxed) {
            return None;
        }
        turns.push(shown.turn);
        count += 1;
    }
    Some(count)
}

/// In a forked child, which has one thread: forgets the records, whose locks others may have held.
pub(crate) fn after_fork_child() {
    // Ordering: Relaxed. There is only this thread; the old records are leaked on purpose.
    FIRST.store(ptr::null_mut(), Ordering::Relaxed);
    let _ = OWN.try_with(|own| own.0.set(None));
}

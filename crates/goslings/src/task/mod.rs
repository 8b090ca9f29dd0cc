//! A goroutine: what to run, who waits in its name, and the stack it runs on once it has started, if it needs one.
//!
//! **Invariants**
//! * A task with a stack that has started runs only on its home worker, for ever: frames of the host keep pointers
//!   to their thread. Until then it is a job in a queue, and any worker may take it. Its `home` and `fiber` are
//!   touched by the home worker only (and by who creates the task, before).
//! * A task without a stack is a job for ever: whichever worker has it from a queue runs its next step there. Its
//!   `home` says where it ran last, which binds nobody, and it has no fiber.
//! * A task is in at most one queue at a time; the queue owns one reference to it.

mod fiber;
pub(crate) mod stack;

pub(crate) use fiber::{Fiber, Switch};

use crate::bubble::Membership;
use crate::clock;
use crate::sched::Shared;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};
use crate::waiter::{Kind, WaitReason, Waiter, Why};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

/// What a goroutine runs. Two words, so that a host can start one without a box.
#[derive(Debug)]
pub struct Job {
    data: *mut (),
    vtable: &'static JobVTable,
}

/// How to run, fail or drop the data of a [`Job`]; each consumes it.
#[derive(Debug)]
pub struct JobVTable {
    /// Runs it, on the goroutine's own stack.
    pub run: unsafe fn(*mut ()),
    /// There was no memory for a stack: tells whoever waits for the result. On the worker's stack.
    pub no_stack: unsafe fn(*mut ()),
    /// The job will never run.
    pub drop: unsafe fn(*mut ()),
    /// Runs it as far as it goes without waiting, on the worker's stack; consumes the data when it is done. A
    /// job with this needs no stack of its own, and `run` is not called.
    pub step: Option<unsafe fn(*mut ()) -> Step>,
}

/// How far a step of a goroutine without a stack has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It waits for what it has begun to wait for; if that is nothing, it gives way to others.
    Waiting,
    /// It has ended.
    Done,
}

// SAFETY: a Job is made from `Send` data only (`Job::new`), or its maker vouches for it (`from_raw`).
unsafe impl Send for Job {}

impl Job {
    /// A job that runs `body`.
    pub fn new<F: FnOnce() + Send + 'static>(body: F) -> Job {
        unsafe fn run<F: FnOnce()>(data: *mut ()) {
            // SAFETY: `data` came from the box below and is consumed once.
            let body = unsafe { Box::from_raw(data.cast::<F>()) };
            body();
        }
        unsafe fn discard<F>(data: *mut ()) {
            // SAFETY: as in `run`.
            drop(unsafe { Box::from_raw(data.cast::<F>()) });
        }
        struct Table<F>(std::marker::PhantomData<F>);
        impl<F: FnOnce() + 'static> Table<F> {
            const TABLE: &'static JobVTable =
                &JobVTable { run: run::<F>, no_stack: discard::<F>, drop: discard::<F>, step: None };
        }
        Job { data: Box::into_raw(Box::new(body)).cast(), vtable: Table::<F>::TABLE }
    }

    /// A job of the host's own making.
    ///
    /// # Safety
    /// `data` may be used from any thread, and each function of `vtable` may be called on it once, from
    /// any attached thread.
    #[must_use]
    pub unsafe fn from_raw(data: *mut (), vtable: &'static JobVTable) -> Job {
        Job { data, vtable }
    }

    pub(crate) fn run(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: consumed here, once (ManuallyDrop keeps `drop` from doing it again).
        unsafe { (this.vtable.run)(this.data) }
    }

    pub(crate) fn no_stack(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: as in `run`.
        unsafe { (this.vtable.no_stack)(this.data) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // SAFETY: not consumed yet, or `self` would be in a ManuallyDrop.
        unsafe { (self.vtable.drop)(self.data) }
    }
}

/// A goroutine.
#[repr(C)]
pub struct Task {
    /// First, so that a pointer to it is a pointer to the task.
    waiter: Waiter,
    id: u64,
    /// Link of the inbox it is in; belongs to that inbox.
    pub(crate) next: AtomicPtr<Task>,
    /// The worker it has started on; null before. Written once, by that worker; without a stack at each step.
    home: AtomicPtr<Shared>,
    /// Its stack, while it is started and not finished. Home worker only.
    fiber: Cell<*mut Fiber>,
    /// Taken by whoever starts it, or by its last step. Belongs to whoever holds the queue's reference.
    job: UnsafeCell<Option<Job>>,
    /// Without a stack: how it leaves its worker and comes back. [`LEFT`] and [`WOKEN`] are set by one side
    /// each; who is second queues it.
    wake: AtomicU32,
    /// What it waits for, and since when (on the coarse clock); of its last wait while it does not wait.
    reason: AtomicU8,
    /// Whether that wait ends by itself.
    timed: AtomicBool,
    /// How often it has locked itself to its thread; at the most that fits it stays. Touched by itself and, at its end,
    /// by its worker; others look at it while it cannot run.
    pub(crate) locked: Cell<u16>,
    object: AtomicUsize,
    since: AtomicU64,
    /// An object of the host's that a call of this goroutine holds while it waits, and nothing else shows; null: none.
    held: AtomicPtr<()>,
    /// The host's own: what it knows this goroutine by.
    host_data: AtomicPtr<()>,
    /// The bubble it belongs to, if any.
    membership: Option<Box<Membership>>,
}

// Many wait at a time: with the counts of an Arc and the allocator's own word, that is two lines of cache.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Task>() <= 104, "a goroutine takes more than it did");

// SAFETY: `fiber` and `job` are touched by one owner at a time (see the fields); the rest is atomic.
unsafe impl Sync for Task {}
// SAFETY: as above; a Job is Send.
unsafe impl Send for Task {}

/// It waits and has left its worker: who wakes it queues it.
const LEFT: u32 = 1;
/// Its wait is over.
const WOKEN: u32 = 2;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// The first number of this process: lower ones are of those that it was forked from.
static OLDEST_ID: AtomicU64 = AtomicU64::new(0);

impl Task {
    /// A number for a goroutine that is to be started later.
    #[must_use]
    pub fn reserve_id() -> u64 {
        // Ordering: Relaxed. Only uniqueness matters.
        NEXT_ID.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new(
        id: u64,
        job: Job,
        host_data: *mut (),
        membership: Option<Box<Membership>>,
    ) -> Arc<Task> {
        Arc::new(Task {
            waiter: Waiter::new(if job.vtable.step.is_some() { Kind::Stackless } else { Kind::Task }),
            id,
            next: AtomicPtr::new(ptr::null_mut()),
            home: AtomicPtr::new(ptr::null_mut()),
            fiber: Cell::new(ptr::null_mut()),
            job: UnsafeCell::new(Some(job)),
            wake: AtomicU32::new(0),
            reason: AtomicU8::new(0),
            object: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            timed: AtomicBool::new(false),
            held: AtomicPtr::new(ptr::null_mut()),
            host_data: AtomicPtr::new(host_data),
            membership,
            locked: Cell::new(0),
        })
    }

    /// In a forked child: the goroutines that there were are the parent's.
    pub(crate) fn forget_all() {
        // Ordering: Relaxed. There is only this thread.
        OLDEST_ID.store(NEXT_ID.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether it is a goroutine of the process that forked this one.
    pub fn is_ghost(&self) -> bool {
        // Ordering: Relaxed. Changes only in a forked child, while it has one thread.
        self.id < OLDEST_ID.load(Ordering::Relaxed)
    }

    /// Its number: counted from 1, never used again in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Asks the goroutine to stop: its current or next wait ends with `Cancelled`. A goroutine that has
    /// not started still starts; its host decides.
    pub fn cancel(&self) {
        if self.waiter.request_cancel() {
            // SAFETY: we won the waiter's word, so the wake is ours.
            unsafe { crate::waiter::Wake::new(NonNull::from(&self.waiter)) }.wake();
        }
    }

    /// Changes what the host knows it by; from inside the goroutine only.
    pub fn set_host_data(&self, data: *mut ()) {
        // Ordering: Relaxed. Read by the goroutine itself.
        self.host_data.store(data, Ordering::Relaxed);
    }

    /// What the host gave at `spawn_with`.
    pub fn host_data(&self) -> *mut () {
        // Ordering: Relaxed. Changes only inside the goroutine, which is who reads it.
        self.host_data.load(Ordering::Relaxed)
    }

    /// Consumes a pending cancellation: for cancel points that do not wait.
    pub fn take_cancel(&self) -> bool {
        self.waiter.take_cancel()
    }

    /// Why it waits; the reason of its last wait while it runs.
    pub fn reason(&self) -> WaitReason {
        // Ordering: Relaxed. For people to read; may be a moment old.
        let number = self.reason.load(Ordering::Relaxed);
        WaitReason::from_number(number)
    }

    /// Whether it has begun to run.
    pub fn has_started(&self) -> bool {
        // Ordering: Relaxed. May be a moment old.
        !self.home.load(Ordering::Relaxed).is_null()
    }

    /// What it knows of its bubble; None: it belongs to none.
    #[inline]
    pub(crate) fn membership(&self) -> Option<&Membership> {
        self.membership.as_deref()
    }

    /// The number of the bubble that it belongs to; 0: none.
    #[must_use]
    pub fn bubble_id(&self) -> u32 {
        self.membership().map_or(0, |member| member.bubble.id())
    }

    /// Its number in that bubble, counted from 0 in the order of starting.
    #[must_use]
    pub fn bubble_number(&self) -> Option<u32> {
        self.membership().map(Membership::number)
    }

    #[inline]
    pub(crate) fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    #[inline]
    pub(crate) fn home(&self) -> *mut Shared {
        // Ordering: Relaxed. Written before the task first ran; whoever wakes it holds a claim on a wait
        // that began after that, and got it through a lock.
        self.home.load(Ordering::Relaxed)
    }

    pub(crate) fn set_home(&self, home: &'static Shared) {
        // Ordering: Relaxed. As in `home`.
        self.home.store(ptr::from_ref(home).cast_mut(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn fiber(&self) -> *mut Fiber {
        self.fiber.get()
    }

    #[inline]
    pub(crate) fn set_fiber(&self, fiber: *mut Fiber) {
        self.fiber.set(fiber);
    }

    /// # Safety
    /// The caller holds the reference that the task's queue held.
    pub(crate) unsafe fn take_job(&self) -> Option<Job> {
        // SAFETY: by the contract nobody else is here.
        unsafe { (*self.job.get()).take() }
    }

    /// Whether it runs on the stacks of the workers, step by step.
    #[inline]
    #[must_use]
    pub fn is_stackless(&self) -> bool {
        self.waiter.kind() == Kind::Stackless
    }

    /// Runs the next step of a goroutine without a stack.
    ///
    /// # Safety
    /// The caller holds the reference that the task's queue held.
    pub(crate) unsafe fn step(&self) -> Step {
        // SAFETY: by the contract nobody else is here; the job stays until it is done.
        let Some(job) = (unsafe { &*self.job.get() }) else { return Step::Done };
        let Some(step) = job.vtable.step else { return Step::Done };
        // SAFETY: the job's data, not consumed before.
        let went = unsafe { step(job.data) };
        if went == Step::Done {
            // SAFETY: as above; the step has consumed the data.
            std::mem::forget(unsafe { self.take_job() });
        }
        went
    }

    /// It waits, and its step has returned. True: it has left the worker, and belongs to whoever wakes it;
    /// false: it was woken meanwhile.
    pub(crate) fn leave(&self) -> bool {
        // Ordering: AcqRel. Release: whoever is handed the task sees all that its step did. Acquire: if it was
        // woken, what the waker wrote into its node is seen.
        self.wake.fetch_or(LEFT, Ordering::AcqRel) & WOKEN == 0
    }

    /// Its wait is over. True: it had left its worker, and the caller queues it; else the caller must not
    /// touch it any more.
    pub(crate) fn wake(&self) -> bool {
        // Ordering: AcqRel, as in `leave`, the other way round.
        self.wake.fetch_or(WOKEN, Ordering::AcqRel) & LEFT != 0
    }

    /// It has ended its wait itself.
    pub(crate) fn wake_unqueued(&self) {
        if self.wake() {
            // It was parked, and somebody has taken its call away from it: nobody will ever run it again.
            // SAFETY: the reference that was parked with it, which nobody else has.
            drop(unsafe { Arc::from_raw(ptr::from_ref(self)) });
        }
    }

    /// Whether the wait is over, and the waker done with it.
    pub(crate) fn was_woken(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `wake`.
        self.wake.load(Ordering::Acquire) & WOKEN != 0
    }

    /// Ready for another wait.
    pub(crate) fn forget_wake(&self) {
        // Ordering: Relaxed. Neither side uses the word until the next wait begins.
        self.wake.store(0, Ordering::Relaxed);
    }

    /// It is about to wait.
    #[inline]
    pub(crate) fn note_wait(&self, why: Why, timed: bool) {
        // Ordering: Relaxed. As below.
        self.timed.store(timed, Ordering::Relaxed);
        // Ordering: Relaxed. For people to read; whoever follows the address has stopped this goroutine in a
        // way that makes the store visible.
        self.object.store(why.object, Ordering::Relaxed);
        // Ordering: Relaxed. As above.
        self.since.store(clock::coarse(), Ordering::Relaxed);
        // Ordering: Relaxed. As above.
        self.reason.store(why.reason as u8, Ordering::Relaxed);
    }

    /// The object of its last wait, and the time at which that began on the coarse clock.
    pub(crate) fn waits_on(&self) -> (usize, u64) {
        // Ordering: Relaxed. As in `note_wait`.
        (self.object.load(Ordering::Relaxed), self.since.load(Ordering::Relaxed))
    }

    /// Whether its last wait had a time limit.
    pub(crate) fn is_timed(&self) -> bool {
        // Ordering: Relaxed. As in `note_wait`.
        self.timed.load(Ordering::Relaxed)
    }

    /// Shows what a call of this goroutine holds, from inside it; returns what was shown before.
    pub fn show_held(&self, object: *mut ()) -> *mut () {
        let before = self.held();
        // Ordering: Relaxed. As in `note_wait`.
        self.held.store(object, Ordering::Relaxed);
        before
    }

    /// What was last shown to be held.
    pub fn held(&self) -> *mut () {
        // Ordering: Relaxed. As in `note_wait`.
        self.held.load(Ordering::Relaxed)
    }

    /// It goes on.
    #[inline]
    pub(crate) fn note_no_wait(&self) {
        // Ordering: Relaxed. As in `note_wait`.
        self.reason.store(WaitReason::None as u8, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}

//! Someone who waits: a goroutine, or an OS thread. Whoever wakes it cannot tell which.
//!
//! **Invariants**
//! * The state word decides every race. Wakers, timers, cancellation and signals all try to change
//!   `WAITING` into their own outcome with one compare-and-swap; exactly one succeeds.
//! * Who won has the duty to call [`Wake::wake`] once, after releasing its locks, and until then the
//!   waiter cannot return: its stack, and the nodes on it, stay valid.
//! * A waiter's nodes are in queues only while it waits; it takes them out, under each queue's lock,
//!   before the waiting call returns. So whoever finds a node in a queue may touch its waiter.
//!
//! ```text
//! state word:  | 31 CANCEL | 30 .. 0 outcome |
//!
//!  IDLE --begin--> WAITING --claim--> CASE+i | TIMED_OUT | CANCELLED | INTERRUPTED --finish--> IDLE
//!  IDLE|CANCEL --begin--> IDLE   (refused: the wait ends before it began, with Cancelled)
//!  request_cancel: WAITING -> CANCELLED, CANCELLED -> itself, anything else -> itself|CANCEL
//! ```

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::clock::{Deadline, Wait};
use crate::deadlock;
use crate::futex;
use crate::host::host;
use crate::polled::Foreign;
use crate::sched;
use crate::sync::{AtomicU32, Ordering};
use crate::task::Task;
use crate::threads::Showing;
use std::cell::Cell;
use std::future::ready;
use std::pin::pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const TIMED_OUT: u32 = 2;
const CANCELLED: u32 = 3;
const INTERRUPTED: u32 = 4;
const ABANDONED: u32 = 5;
const FIRST_CASE: u32 = 8;
const CANCEL: u32 = 1 << 31;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The node with this number was served.
    Case(u32),
    TimedOut,
    Cancelled,
    /// A signal handler raised (plain threads only).
    Interrupted,
    /// Nobody polls the call any more (waits without a stack only).
    Abandoned,
}

/// What someone waits for: shown in dumps and in deadlock reports. Numbers are unique and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the text of each is what it means")]
pub enum WaitReason {
    None = 0,
    ChanReceive = 1,
    ChanSend = 2,
    Select = 3,
    SelectNoCases = 4,
    Sleep = 5,
    MutexLock = 6,
    RwMutexRLock = 7,
    RwMutexLock = 8,
    WaitGroupWait = 9,
    CondWait = 10,
    SemaphoreAcquire = 11,
    EventWait = 12,
    BarrierWait = 13,
    GoroutineResult = 14,
    ChanReceiveNil = 15,
    ChanSendNil = 16,
    NetRead = 17,
    NetWrite = 18,
    TransactionRetry = 19,
}

impl WaitReason {
    const ALL: [WaitReason; 20] = [
        WaitReason::None,
        WaitReason::ChanReceive,
        WaitReason::ChanSend,
        WaitReason::Select,
        WaitReason::SelectNoCases,
        WaitReason::Sleep,
        WaitReason::MutexLock,
        WaitReason::RwMutexRLock,
        WaitReason::RwMutexLock,
        WaitReason::WaitGroupWait,
        WaitReason::CondWait,
        WaitReason::SemaphoreAcquire,
        WaitReason::EventWait,
        WaitReason::BarrierWait,
        WaitReason::GoroutineResult,
        WaitReason::ChanReceiveNil,
        WaitReason::ChanSendNil,
        WaitReason::NetRead,
        WaitReason::NetWrite,
        WaitReason::TransactionRetry,
    ];

    pub(crate) fn from_number(number: u8) -> WaitReason {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(WaitReason::None)
    }

    /// The words that stand in brackets in a dump; Go's where Go has them.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            WaitReason::None => "running",
            WaitReason::ChanReceive => "chan receive",
            WaitReason::ChanSend => "chan send",
            WaitReason::Select => "select",
            WaitReason::SelectNoCases => "select (no cases)",
            WaitReason::Sleep => "sleep",
            WaitReason::MutexLock => "sync.Mutex.Lock",
            WaitReason::RwMutexRLock => "sync.RWMutex.RLock",
            WaitReason::RwMutexLock => "sync.RWMutex.Lock",
            WaitReason::WaitGroupWait => "sync.WaitGroup.Wait",
            WaitReason::CondWait => "sync.Cond.Wait",
            WaitReason::SemaphoreAcquire => "semacquire",
            WaitReason::EventWait => "event wait",
            WaitReason::BarrierWait => "barrier wait",
            WaitReason::GoroutineResult => "goroutine result",
            WaitReason::ChanReceiveNil => "chan receive (nil chan)",
            WaitReason::ChanSendNil => "chan send (nil chan)",
            WaitReason::NetRead => "net read",
            WaitReason::NetWrite => "net write",
            WaitReason::TransactionRetry => "transaction retry",
        }
    }
}

/// Why somebody waits, and on what: for those who look from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    pub(crate) reason: WaitReason,
    /// The address of the object that is waited on, which lives at least until the wait is over; 0: none.
    /// For [`WaitReason::Select`], of a `select::Channels`.
    pub(crate) object: usize,
}

impl WaitReason {
    /// This reason, and the object.
    #[inline]
    pub(crate) fn on<T>(self, object: &T) -> Why {
        Why { reason: self, object: std::ptr::from_ref(object).expose_provenance() }
    }

    /// This reason, and no object.
    #[inline]
    pub(crate) fn alone(self) -> Why {
        Why { reason: self, object: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The waiter is the first field of a [`Task`] with a stack.
    Task,
    /// The waiter is the first field of a [`Task`] without one.
    Stackless,
    /// The waiter is the first field of a [`ThreadWaiter`].
    Thread,
    /// The waiter is the first field of a [`Foreign`].
    Foreign,
}

/// The part of a waiter that wakers see.
#[repr(C)]
pub(crate) struct Waiter {
    state: AtomicU32,
    kind: Kind,
}

impl Waiter {
    pub(crate) fn new(kind: Kind) -> Waiter {
        Waiter { state: AtomicU32::new(IDLE), kind }
    }

    /// Starts a wait, before the first node is queued. False: a cancellation was pending; it is
    /// consumed, and there is no wait.
    #[must_use]
    pub(crate) fn begin(&self) -> bool {
        // Ordering: Relaxed. The word is published to wakers by the lock of each queue that a node of
        // this wait enters; `request_cancel` needs no more than the word itself.
        match self.state.compare_exchange(IDLE, WAITING, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(found) => {
                debug_assert_eq!(found, CANCEL, "a wait inside a wait");
                // Ordering: Relaxed. Only the owner leaves this state.
                self.state.store(IDLE, Ordering::Relaxed);
                false
            }
        }
    }

    /// Ends the wait with the node numbered `case`. True: the caller won, and owes the wake.
    #[must_use]
    pub(crate) fn claim(&self, case: u32) -> bool {
        self.change(FIRST_CASE + case)
    }

    pub(crate) fn claim_timeout(&self) -> bool {
        self.change(TIMED_OUT)
    }

    pub(crate) fn claim_cancelled(&self) -> bool {
        self.change(CANCELLED)
    }

    pub(crate) fn claim_abandoned(&self) -> bool {
        self.change(ABANDONED)
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a wait has begun and its end has not been taken notice of.
    pub(crate) fn is_waiting(&self) -> bool {
        // Ordering: Relaxed. Asked by the waiter itself, who begins and ends its waits.
        self.state.load(Ordering::Relaxed) & !CANCEL != IDLE
    }

    fn claim_interrupt(&self) -> bool {
        self.change(INTERRUPTED)
    }

    fn change(&self, outcome: u32) -> bool {
        // Ordering: Relaxed. The compare-and-swap decides the race by the word alone; what the winner
        // writes into the node travels to the waiter with the wake (the inbox's push, or the Release
        // swap of the sleeper's word), and a loser looks at nothing.
        self.state.compare_exchange(WAITING, outcome, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Asks for cancellation. Returns true if the waiter was waiting: then the caller owes the wake. What is asked for
    /// again before the waiter has noticed is one cancellation.
    #[must_use]
    pub(crate) fn request_cancel(&self) -> bool {
        // Ordering: Relaxed. As in `change`: the word alone decides.
        let mut found = self.state.load(Ordering::Relaxed);
        loop {
            let next = match found {
                WAITING => CANCELLED,
                CANCELLED => return false,
                other => other | CANCEL,
            };
            // Ordering: Relaxed. As above.
            match self.state.compare_exchange_weak(found, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return found == WAITING,
                Err(now) => found = now,
            }
        }
    }

    /// Whether it waits, and nobody has ended that yet.
    pub(crate) fn is_unclaimed(&self) -> bool {
        // Ordering: Relaxed. A moment old, unless the caller knows that nobody is awake.
        self.state.load(Ordering::Relaxed) == WAITING
    }

    /// Consumes a pending cancellation, if there is one: the check at the start of blocking calls.
    #[inline]
    pub(crate) fn take_cancel(&self) -> bool {
        // Ordering: Relaxed. A request that arrives just after is seen by the next check or `begin`.
        if self.state.load(Ordering::Relaxed) != CANCEL {
            return false;
        }
        // Ordering: Relaxed. Outside a wait only the owner clears the bit.
        self.state.store(IDLE, Ordering::Relaxed);
        true
    }

    /// Asks for one's own cancellation, outside a wait: one that came at the wrong moment.
    pub(crate) fn cancel_later(&self) {
        let waiting = self.request_cancel();
        debug_assert!(!waiting, "cancelled one's own wait");
    }

    /// Ends the wait and says how it went. A cancellation requested after the claim stays pending.
    pub(crate) fn finish(&self) -> Outcome {
        // Ordering: Acquire, for model checkers that do not see the edge of the wake itself; the
        // winner's writes came with it.
        let found = self.state.fetch_and(CANCEL, Ordering::Acquire) & !CANCEL;
        match found {
            TIMED_OUT => Outcome::TimedOut,
            CANCELLED => Outcome::Cancelled,
            INTERRUPTED => Outcome::Interrupted,
            ABANDONED => Outcome::Abandoned,
            case => {
                debug_assert!(case >= FIRST_CASE, "woken without an outcome: {case}");
                Outcome::Case(case - FIRST_CASE)
            }
        }
    }
}

/// The right and the duty to wake one waiter, once, after every lock is released.
#[must_use]
pub(crate) struct Wake(NonNull<Waiter>);

// SAFETY: a Wake is a claim on a waiter that stays in place until it is woken; which thread does it
// does not matter.
unsafe impl Send for Wake {}

impl Wake {
    /// # Safety
    /// The caller won the waiter's state word and has not woken it yet.
    pub(crate) unsafe fn new(waiter: NonNull<Waiter>) -> Wake {
        Wake(waiter)
    }

    /// Wakes it.
    #[inline]
    pub(crate) fn wake(self) {
        crate::lock::assert_none_held();
        // SAFETY: by the contract of `new` the waiter is alive until this wake, and `kind` never changes.
        let kind = unsafe { (*self.0.as_ptr()).kind };
        if kind == Kind::Task {
            // SAFETY: Kind::Task is only given to the waiter that is a Task's first field (repr(C)).
            unsafe { sched::ready(self.0.cast::<Task>()) }
        } else {
            self.wake_stackless(kind);
        }
    }

    /// For those who are no goroutines with a stack.
    #[inline(never)]
    fn wake_stackless(self, kind: Kind) {
        match kind {
            // SAFETY: as in `wake`.
            Kind::Task => unsafe { sched::ready(self.0.cast::<Task>()) },
            // SAFETY: likewise for Kind::Stackless.
            Kind::Stackless => unsafe { sched::ready_stackless(self.0.cast::<Task>()) },
            // SAFETY: likewise for a ThreadWaiter.
            Kind::Thread => unsafe { ThreadWaiter::wake(self.0.cast::<ThreadWaiter>()) },
            // SAFETY: likewise for a Foreign.
            Kind::Foreign => unsafe { Foreign::wake(self.0.cast::<Foreign>()) },
        }
    }
}

/// An OS thread that waits. Lives in the waiting call's frame, one per call, so that a signal handler
/// that runs during a wait may itself wait.
#[repr(C)]
pub(crate) struct ThreadWaiter {
    waiter: Waiter,
    word: AtomicU32,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const WOKEN: u32 = 2;

impl ThreadWaiter {
    fn new() -> ThreadWaiter {
        ThreadWaiter { waiter: Waiter::new(Kind::Thread), word: AtomicU32::new(AWAKE) }
    }

    /// # Safety
    /// As [`Wake::new`]: called once, by the winner.
    unsafe fn wake(this: NonNull<ThreadWaiter>) {
        // SAFETY: the waiter cannot return before the swap below; forming the address reads nothing.
        let word = unsafe { &raw const (*this.as_ptr()).word };
        // Ordering: Release pairs with the Acquire in `sleep`: what we wrote into the waiter's node is
        // visible when it wakes. The swap is our last access: the frame may be gone right after.
        // SAFETY: as above.
        if unsafe { (*word).swap(WOKEN, Ordering::Release) } == ASLEEP {
            futex::wake(word);
        }
    }

    /// Sleeps until woken. On the way the deadline and signals try to win the state word themselves.
    /// Returns what has raised.
    fn sleep(&self, why: Why, mut deadline: Option<Deadline>) -> Raised {
        let mut raised = Raised::Nothing;
        // Ordering: Relaxed. ASLEEP only tells the waker that a system call is needed.
        let asleep = self.word.compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
        if asleep.is_err() {
            // Ordering: Acquire pairs with the Release swap in `wake`.
            let _ = self.word.load(Ordering::Acquire);
            return raised;
        }
        let showing = Showing::new(&self.waiter, why, deadline.is_some());
        let (state, mut slices) = (host().detach(), futex::Slices::new());
        // Ordering: Acquire pairs with the Release swap in `wake`.
        while self.word.load(Ordering::Acquire) != WOKEN {
            match slices.wait(&self.word, ASLEEP, deadline) {
                futex::Woken::Called => {}
                futex::Woken::Time => {
                    if deadline.is_some_and(|at| at.left().is_zero()) {
                        if self.waiter.claim_timeout() {
                            break;
                        }
                        // Somebody else won: its wake is on the way.
                        deadline = None;
                    }
                }
                futex::Woken::Signal => {
                    if raised != Raised::Nothing {
                        continue;
                    }
                    showing.pause();
                    let handled = host().signalled(state);
                    showing.resume();
                    let found = match handled {
                        true => Found::Raised,
                        false if deadline.is_none() && slices.is_main() => self.deadlocked(state),
                        false => Found::Nothing,
                    };
                    match found {
                        Found::Nothing => {}
                        Found::Raised => {
                            raised = Raised::BySignal;
                            if self.waiter.claim_interrupt() {
                                break;
                            }
                            deadline = None;
                        }
                        Found::Deadlock => {
                            raised = Raised::ByDeadlock;
                            break;
                        }
                    }
                }
            }
        }
        host().attach(state);
        raised
    }

    /// Looks whether nobody can go on. If so, ends this wait, and has that raised here.
    fn deadlocked(&self, state: usize) -> Found {
        if !deadlock::nobody_can_go_on() {
            return Found::Nothing;
        }
        // The host may run code before it answers: so look again.
        match host().may_deadlock(state) {
            None => Found::Raised,
            Some(true) if deadlock::nobody_can_go_on() && self.waiter.claim_interrupt() => {
                host().deadlocked(state);
                Found::Deadlock
            }
            Some(_) => Found::Nothing,
        }
    }
}

/// What a thread has found that got up to look.
enum Found {
    Nothing,
    /// A signal handler has raised.
    Raised,
    Deadlock,
}

/// What has raised in a thread that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    Nothing,
    BySignal,
    ByDeadlock,
}

/// Who waits, as the calls that wait see it: they are written once, as `async` functions, for those who wait
/// on a stack (a goroutine, a thread: [`Parker`]) and those who are polled ([`Poller`]).
///
/// [`Poller`]: crate::polled::Poller
pub(crate) trait Park {
    fn waiter(&self) -> &Waiter;
    /// The waiter as its wakers need it: a pointer to the whole task or thread waiter around it.
    fn pointer(&self) -> NonNull<Waiter>;
    /// The number of the goroutine that waits; 0 for anybody else.
    fn goroutine(&self) -> u64;
    /// Whether a worker runs who waits, and looks after the wait.
    fn has_worker(&self) -> bool;
    /// Whether a signal handler raised during the wait; its exception is pending in the interpreter.
    fn raised(&self) -> bool;
    /// Waits, after `begin` and with every node queued and every lock released.
    fn park(&self, why: Why, wait: Wait) -> impl Future<Output = Outcome>;

    /// Whether what was waited for cannot come: the exception that is pending says so.
    fn hopeless(&self) -> bool {
        false
    }

    /// Whether nobody will poll the call again: it must come to its end without waiting.
    fn abandoned(&self) -> bool {
        false
    }

    /// Ends a wait that has begun and turns out to be a mistake. If somebody has served it already, that
    /// is the outcome.
    async fn give_up(&self) -> Outcome {
        if self.waiter().claim_timeout() {
            return self.waiter().finish();
        }
        self.park(WaitReason::None.alone(), Wait::Forever).await
    }
}

/// Runs a call that waits as `P` = [`Parker`] does: on the spot.
#[inline(always)]
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    match call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("whoever has a stack waits on it"),
    }
}

/// Whoever is running here, about to wait on its stack: the current goroutine, or else this thread.
pub(crate) struct Parker {
    task: Option<&'static Task>,
    thread: ThreadWaiter,
    raised: Cell<Raised>,
}

impl Parker {
    #[inline]
    pub(crate) fn new() -> Parker {
        Parker {
            task: sched::current_stackful(),
            thread: ThreadWaiter::new(),
            raised: Cell::new(Raised::Nothing),
        }
    }

    /// What [`Park::park`] does, on the spot.
    ///
    /// Takes `&self`: while it runs, wakers use pointers into it.
    #[inline(always)]
    pub(crate) fn wait(&self, why: Why, wait: Wait) -> Outcome {
        crate::lock::assert_none_held();
        debug_assert!(wait != Wait::No, "a call that may not wait must not park");
        let deadline = match wait {
            Wait::Until(at) => Some(at),
            Wait::Forever | Wait::No => None,
        };
        match self.task {
            Some(task) => sched::park(task, why, deadline),
            None => self.sleep(why, deadline),
        }
        self.waiter().finish()
    }

    #[inline(never)]
    fn sleep(&self, why: Why, deadline: Option<Deadline>) {
        self.raised.set(self.thread.sleep(why, deadline));
        // Ordering: Relaxed. Ready for another wait: the waker, if any, is done with the word.
        self.thread.word.store(AWAKE, Ordering::Relaxed);
    }
}

impl Park for Parker {
    #[inline]
    fn waiter(&self) -> &Waiter {
        match self.task {
            Some(task) => task.waiter(),
            None => &self.thread.waiter,
        }
    }

    #[inline]
    fn pointer(&self) -> NonNull<Waiter> {
        match self.task {
            Some(task) => NonNull::from(task).cast(),
            None => NonNull::from(&self.thread).cast(),
        }
    }

    #[inline]
    fn goroutine(&self) -> u64 {
        self.task.map_or(0, Task::id)
    }

    #[inline]
    fn has_worker(&self) -> bool {
        self.task.is_some()
    }

    #[inline]
    fn raised(&self) -> bool {
        self.raised.get() != Raised::Nothing
    }

    fn hopeless(&self) -> bool {
        self.raised.get() == Raised::ByDeadlock
    }

    #[inline]
    fn park(&self, why: Why, wait: Wait) -> impl Future<Output = Outcome> {
        ready(self.wait(why, wait))
    }
}

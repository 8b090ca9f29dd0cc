//! A worker: one OS thread that runs goroutines, one at a time.
//!
//! **Invariants**
//! * Everything in [`Worker`] is touched by its own thread only. What others may touch is in [`Shared`].
//! * The thread is attached to the host while it looks for work and runs goroutines, and detached
//!   whenever it spins or sleeps.

use super::Runtime;
use super::idle::Bed;
use super::monitor::Watch;
use super::runq::Inbox;
use crate::bubble::Bubble;
use crate::clock::{self, now};
use crate::host::host;
use crate::net::NetPoll;
use crate::task::{Fiber, Step, Switch, Task};
use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// How many hand-offs in a row may jump the queue before the others get their turn.
const STREAK: u32 = 64;
/// Every so many goroutines, those that may run anywhere (`fresh`) come first, so that nothing starves.
const FAIRNESS: u32 = 61;
/// Every so many goroutines the clock is read for timers.
const TIMERS: u32 = 16;
/// How many free fibers a worker keeps.
const FREE_FIBERS: usize = 1024;
/// One in so many finished goroutines has its stack looked at, whether it grew.
const TRIM: u32 = 32;
/// How often a worker without work looks again in one round: a microsecond or two.
const SPINS: u32 = 60;
/// The most rounds before it sleeps.
const PATIENCE_MAX: u32 = 16;
/// Giving way for so long means that others compute.
const LONG_YIELD_NS: u64 = 20_000;
/// A sleep as short as this (with its two switches of thread) was not worth the system calls.
const WORTH_WAITING_NS: u64 = 50_000;

/// A task that anybody may run, in a deque or the injector: owns a reference.
pub(crate) struct Fresh(pub(crate) *const Task);

// SAFETY: a task may be used from any thread; the pointer owns a reference (Arc::into_raw).
unsafe impl Send for Fresh {}

/// The part of a worker that others see. Never freed.
pub(crate) struct Shared {
    /// Its number, counted from 0.
    pub(crate) index: usize,
    pub(crate) inbox: Inbox,
    pub(crate) bed: Bed,
    pub(crate) stealer: Stealer<Fresh>,
    /// Goroutines that have not started and are to start here: see `spawn_at`. They are anybody's while the worker is
    /// away or locked.
    pub(super) placed: Injector<Fresh>,
    pub(crate) counts: Counts,
    pub(crate) watch: Watch,
    /// The goroutine without a stack that was woken last by the one that runs here: next in turn, unless somebody
    /// takes it elsewhere because that one does not let go.
    pub(super) handed: AtomicPtr<Task>,
}

impl Shared {
    /// Whether others start what was placed here.
    pub(super) fn is_out(&self) -> bool {
        self.watch.is_away() || self.watch.is_locked()
    }

    /// The oldest goroutine that was placed here.
    #[inline]
    fn take_placed(&self) -> Option<Fresh> {
        if self.placed.is_empty() {
            return None;
        }
        loop {
            match self.placed.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// Takes out whoever is next in turn here and may run anywhere.
    #[inline]
    pub(super) fn take_handed(&self) -> Option<*mut Task> {
        // Ordering: Relaxed. A hint that saves the swap; the worker itself has written it, or looks again.
        if self.handed.load(Ordering::Relaxed).is_null() {
            return None;
        }
        // Ordering: Acquire pairs with the Release in `make_next`: all that was done to the task is seen.
        let task = self.handed.swap(ptr::null_mut(), Ordering::Acquire);
        (!task.is_null()).then_some(task)
    }
}

/// Written by one thread, read by anybody.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) spawned: Count,
    pub(crate) started: Count,
    pub(crate) finished: Count,
    pub(crate) switches: Count,
    pub(crate) stolen: Count,
    pub(crate) sleeps: Count,
    pub(crate) preemptions: Count,
}

/// A counter that only its owner advances.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add_one(&self) {
        // Ordering: Relaxed. One writer; readers want a number, not an order.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // Ordering: Relaxed. As above.
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// The worker whose thread this is.
#[inline]
pub(crate) fn current() -> Option<&'static Worker> {
    let worker = WORKER.with(Cell::get);
    // SAFETY: set by `Worker::run` to a worker that lives as long as its thread, and reset in a forked
    // child; a reference handed out here is used on this thread only (Worker is not Sync).
    unsafe { worker.as_ref() }
}

/// In a forked child: this thread runs no worker any more.
pub(super) fn forget_current() {
    WORKER.with(|worker| worker.set(ptr::null()));
}

pub(crate) struct Worker {
    pub(crate) runtime: &'static Runtime,
    pub(crate) shared: &'static Shared,
    index: usize,
    generation: u32,
    /// The goroutine that was woken last by the one that runs: next in turn.
    next: Cell<*mut Task>,
    streak: Cell<u32>,
    /// Started goroutines that are ready.
    ready: RefCell<VecDeque<*mut Task>>,
    /// Goroutines that may run anywhere: those that have not started, and those without a stack that are ready. Others
    /// steal from it.
    fresh: Deque<Fresh>,
    #[expect(clippy::vec_box, reason = "a fiber's address is known to its coroutine: it must not move")]
    free: RefCell<Vec<Box<Fiber>>>,
    current: Cell<*const Task>,
    tick: Cell<u32>,
    to_trim: Cell<u32>,
    searching: Cell<bool>,
    /// How many goroutines are locked to this thread.
    locked: Cell<u32>,
    /// Whether somebody has just yielded to the others.
    fresh_first: Cell<bool>,
    /// How many rounds to look on before sleeping: see `learn`.
    patience: Cell<u32>,
    /// Bubbles that live here and have something to do.
    bubbles: RefCell<VecDeque<Arc<Bubble>>>,
    has_bubbles: Cell<bool>,
}

impl Worker {
    /// Makes the worker and what others see of it. To be run on its own thread.
    pub(super) fn new(runtime: &'static Runtime, index: usize) -> Worker {
        let fresh = Deque::new_fifo();
        let shared = Box::leak(Box::new(Shared {
            index,
            inbox: Inbox::new(),
            bed: Bed::new(),
            stealer: fresh.stealer(),
            placed: Injector::new(),
            counts: Counts::default(),
            watch: Watch::new(),
            handed: AtomicPtr::new(ptr::null_mut()),
        }));
        Worker {
            runtime,
            shared,
            index,
            generation: super::generation(),
            next: Cell::new(ptr::null_mut()),
            streak: Cell::new(0),
            ready: RefCell::new(VecDeque::new()),
            fresh,
            free: RefCell::new(Vec::new()),
            current: Cell::new(ptr::null()),
            tick: Cell::new(0),
            to_trim: Cell::new(TRIM),
            searching: Cell::new(true),
            locked: Cell::new(0),
            fresh_first: Cell::new(false),
            patience: Cell::new(1),
            bubbles: RefCell::new(VecDeque::new()),
            has_bubbles: Cell::new(false),
        }
    }

    /// The goroutine that runs on this worker now.
    #[inline]
    pub(crate) fn current_task(&self) -> *const Task {
        self.current.get()
    }

    /// Its number.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The thread's life. Counted as searching from the start.
    pub(super) fn run(&'static self) {
        WORKER.with(|worker| worker.set(self));
        host().worker(&mut |handle| {
            self.shared.watch.note_thread(handle);
            self.work();
        });
    }

    fn work(&self) -> ! {
        // Ordering: Release pairs with the Acquire in `stop`: this thread is attached.
        self.runtime.arrived.fetch_add(1, Ordering::Release);
        loop {
            if self.runtime.is_stopping() {
                self.stop();
            }
            if self.has_bubbles.get() {
                self.bubble_turn();
            }
            match self.find() {
                Some(task) => {
                    self.found();
                    self.execute(task);
                }
                None if self.has_bubbles.get() => {}
                None => self.rest(),
            }
        }
    }

    /// A bubble that lives here has something to do.
    pub(crate) fn add_bubble(&self, bubble: Arc<Bubble>) {
        self.bubbles.borrow_mut().push_back(bubble);
        self.has_bubbles.set(true);
    }

    /// Runs one member of the next bubble, if one can run; then others get their turn.
    #[cold]
    #[inline(never)]
    fn bubble_turn(&self) {
        let bubble = {
            let mut bubbles = self.bubbles.borrow_mut();
            let bubble = bubbles.pop_front();
            self.has_bubbles.set(!bubbles.is_empty());
            bubble
        };
        let Some(bubble) = bubble else { return };
        if let Some(task) = bubble.next() {
            self.found();
            self.run_task(task);
            self.add_bubble(bubble);
        }
    }

    /// A goroutine that has not started, from this worker: to the back of the deque.
    pub(crate) fn push_fresh(&self, task: Arc<Task>) {
        self.shared.counts.spawned.add_one();
        self.fresh.push(Fresh(Arc::into_raw(task)));
        self.runtime.work_for_anybody();
    }

    /// A goroutine was woken by the one that runs here: it is next.
    #[inline]
    pub(crate) fn make_next(&self, task: *mut Task) {
        // SAFETY: the reference of the queue it comes from is ours.
        if !unsafe { (*task).is_stackless() } {
            self.make_next_here(task);
            return;
        }
        self.shared.watch.note_waiting(true);
        // Ordering: AcqRel. Release pairs with the Acquire in `take_handed`; Acquire: see there.
        let displaced = self.shared.handed.swap(task, Ordering::AcqRel);
        if !displaced.is_null() {
            self.push_ready(displaced);
        }
    }

    /// The same for one that has started here, on a stack.
    #[inline]
    pub(crate) fn make_next_here(&self, task: *mut Task) {
        self.shared.watch.note_waiting(true);
        if self.current.get().is_null() {
            // Nobody runs: a timer or a poller has woken it, and maybe others.
            self.ready.borrow_mut().push_back(task);
            return;
        }
        let displaced = self.next.replace(task);
        if !displaced.is_null() {
            self.push_ready(displaced);
        }
    }

    /// A goroutine that may go on: to the back of its queue. One without a stack may go on anywhere.
    #[inline(never)]
    fn push_ready(&self, task: *mut Task) {
        // SAFETY: the reference of the queue it comes from is ours.
        if unsafe { (*task).is_stackless() } {
            self.fresh.push(Fresh(task));
            self.runtime.work_for_anybody();
        } else {
            self.ready.borrow_mut().push_back(task);
        }
    }

    fn find(&self) -> Option<*mut Task> {
        let tick = self.tick.get().wrapping_add(1);
        self.tick.set(tick);
        if tick.is_multiple_of(TIMERS) {
            self.runtime.timers.run_due();
        }
        if tick.is_multiple_of(FAIRNESS) {
            self.look_at_net();
            // Goroutines without a stack go round in the own queue: it may never be empty.
            if let Some(task) = self.of_all() {
                return Some(task);
            }
        }
        let fresh_first = self.fresh_first.replace(false) || tick.is_multiple_of(FAIRNESS);
        if let Some(task) = fresh_first.then(|| self.find_fresh()).flatten() {
            return Some(task);
        }
        let next = self.next.replace(ptr::null_mut());
        if !next.is_null() {
            if self.streak.get() < STREAK {
                self.streak.set(self.streak.get() + 1);
                return Some(next);
            }
            self.push_ready(next);
        }
        if let Some(handed) = self.shared.take_handed() {
            if self.streak.get() < STREAK {
                self.streak.set(self.streak.get() + 1);
                return Some(handed);
            }
            self.push_ready(handed);
        }
        self.streak.set(0);
        let mut ready = self.ready.borrow_mut();
        if !self.shared.inbox.is_empty() {
            self.shared.inbox.take(&mut ready);
        }
        if let Some(task) = ready.pop_front() {
            return Some(task);
        }
        drop(ready);
        if let Some(task) = self.own_fresh() {
            return Some(task);
        }
        if self.look_at_net()
            && let Some(task) = self.ready.borrow_mut().pop_front()
        {
            return Some(task);
        }
        if let Some(task) = self.find_fresh() {
            return Some(task);
        }
        self.runtime.timers.run_due();
        // Timers may have made somebody ready.
        self.shared
            .take_handed()
            .or_else(|| self.ready.borrow_mut().pop_front())
            .or_else(|| self.find_fresh())
    }

    /// Makes those ready whose descriptors are; whether there was anybody.
    #[inline]
    fn look_at_net(&self) -> bool {
        self.shared.bed.awaited_net().is_some_and(NetPoll::look)
    }

    /// A goroutine that was placed here, or out of the worker's own deque.
    fn own_fresh(&self) -> Option<*mut Task> {
        if self.shared.watch.is_locked() {
            return None;
        }
        self.shared.take_placed().or_else(|| self.fresh.pop()).map(|task| task.0.cast_mut())
    }

    /// A goroutine out of the queue that all workers have.
    fn of_all(&self) -> Option<*mut Task> {
        if !self.takes_fresh() {
            return None;
        }
        self.take_injected().map(|task| task.0.cast_mut())
    }

    fn find_fresh(&self) -> Option<*mut Task> {
        if self.shared.watch.is_locked() {
            return None;
        }
        let fresh = self.shared.take_placed().or_else(|| self.fresh.pop()).or_else(|| {
            if !self.takes_fresh() {
                return None;
            }
            self.take_injected().or_else(|| self.steal())
        });
        fresh.map(|task| task.0.cast_mut())
    }

    fn take_injected(&self) -> Option<Fresh> {
        loop {
            match self.runtime.injector.steal_batch_and_pop(&self.fresh) {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    fn steal(&self) -> Option<Fresh> {
        let workers = self.runtime.worker_count();
        let start = crate::random::below(workers.max(1));
        for offset in 0..workers {
            let victim = self.runtime.worker((start + offset) % workers)?;
            if ptr::eq(victim, self.shared) {
                continue;
            }
            if victim.is_out()
                && let Some(task) = victim.take_placed()
            {
                self.shared.counts.stolen.add_one();
                return Some(task);
            }
            loop {
                match victim.stealer.steal_batch_and_pop(&self.fresh) {
                    Steal::Success(task) => {
                        self.shared.counts.stolen.add_one();
                        return Some(task);
                    }
                    Steal::Empty => break,
                    Steal::Retry => std::hint::spin_loop(),
                }
            }
        }
        None
    }

    /// Found something to do. The last one to stop searching calls the next if there is more, so that
    /// parallelism grows with the work.
    #[inline]
    fn found(&self) {
        if self.searching.replace(false)
            && self.runtime.idle.stop_searching_with_work()
            && self.runtime.has_fresh()
        {
            self.runtime.work_for_anybody();
        }
    }

    #[inline]
    fn execute(&self, task: *mut Task) {
        // SAFETY: the queue's reference to the task is ours until it parks, yields or ends.
        match unsafe { &*task }.membership() {
            None => self.run_task(task),
            Some(member) => member.arrives(task, self),
        }
    }

    /// Always inlined, as are [`sched::park`] and all that leads to the switch itself: each return from a function that
    /// was called before a switch and returns after it is one that the processor guesses wrong.
    ///
    /// [`sched::park`]: super::park
    #[inline(always)]
    fn run_task(&self, task: *mut Task) {
        // SAFETY: the queue's reference to the task is ours until it parks, yields or ends.
        let running = unsafe { &*task };
        if running.is_stackless() {
            self.step(task, running);
            return;
        }
        let mut fiber = running.fiber();
        if fiber.is_null() {
            fiber = match self.start(running) {
                Some(fiber) => fiber,
                None => {
                    self.finish(task);
                    return;
                }
            };
        }
        self.current.set(task);
        self.shared.watch.note_running(running.id());
        self.shared.watch.note_waiting(!self.ready.borrow().is_empty());
        // SAFETY: the fiber belongs to this task, and so to this thread; it is suspended.
        let why = unsafe { (*fiber).resume(task) };
        if self.generation != super::generation() {
            // This is the child of a fork, and the goroutine that forked has come to its end.
            host().forked_goroutine_ended();
        }
        self.current.set(ptr::null());
        self.shared.watch.note_running(0);
        self.shared.counts.switches.add_one();
        match why {
            // Whoever wakes it has its reference now; it may even be back in our inbox.
            Switch::Parked => {}
            Switch::Yielded => match running.membership() {
                None => {
                    let mut ready = self.ready.borrow_mut();
                    if !self.shared.inbox.is_empty() {
                        // Those who were woken meanwhile come first.
                        self.shared.inbox.take(&mut ready);
                    }
                    ready.push_back(task);
                    // The others include those that have not started.
                    self.fresh_first.set(true);
                }
                Some(member) => member.yielded(task),
            },
            Switch::Done => {
                running.set_fiber(ptr::null_mut());
                // SAFETY: made by `Box::into_raw` in `start`, and free again.
                self.recycle(unsafe { Box::from_raw(fiber) });
                self.finish(task);
            }
        }
    }

    /// Runs a goroutine without a stack until it waits, gives way or ends.
    #[inline(never)]
    fn step(&self, task: *mut Task, running: &Task) {
        if !running.has_started() {
            self.shared.counts.started.add_one();
        }
        running.set_home(self.shared);
        self.current.set(task);
        self.shared.watch.note_running(running.id());
        self.shared.watch.note_waiting(!self.ready.borrow().is_empty());
        // SAFETY: the queue's reference is ours.
        let went = unsafe { running.step() };
        if self.generation != super::generation() {
            host().forked_goroutine_ended();
        }
        self.current.set(ptr::null());
        self.shared.watch.note_running(0);
        self.shared.counts.switches.add_one();
        match went {
            Step::Done => self.finish(task),
            Step::Waiting if !running.waiter().is_waiting() => match running.membership() {
                None => self.push_ready(task),
                Some(member) => member.yielded(task),
            },
            Step::Waiting => match running.membership() {
                // If it leaves, whoever wakes it has its reference now; it may even run elsewhere.
                None if running.leave() => {}
                None => self.make_next(task),
                Some(member) => {
                    member.parks(running.reason());
                    if !running.leave() {
                        member.woken_before(task);
                    }
                }
            },
        }
    }

    /// Gives a goroutine a fiber of its own. None: there was no memory for a stack.
    #[inline]
    fn start(&self, task: &Task) -> Option<*mut Fiber> {
        self.shared.counts.started.add_one();
        let free = self.free.borrow_mut().pop();
        let fiber = match free.map_or_else(Fiber::new, Ok) {
            Ok(fiber) => Box::into_raw(fiber),
            Err(_) => {
                // SAFETY: we hold the queue's reference.
                if let Some(job) = unsafe { task.take_job() } {
                    job.no_stack();
                }
                return None;
            }
        };
        task.set_home(self.shared);
        task.set_fiber(fiber);
        Some(fiber)
    }

    /// One more goroutine has locked itself to this thread.
    pub(super) fn lock_thread(&self) {
        self.locked.set(self.locked.get() + 1);
        if self.locked.get() == 1 {
            self.shared.watch.set_locked(true);
            self.runtime.refresh_takers();
            // What waits in our deque is for others now.
            if self.runtime.has_fresh() {
                self.runtime.work_for_anybody();
            }
        }
    }

    pub(super) fn unlock_thread(&self) {
        self.locked.set(self.locked.get() - 1);
        if self.locked.get() == 0 {
            self.shared.watch.set_locked(false);
            self.runtime.refresh_takers();
        }
    }

    fn finish(&self, task: *mut Task) {
        // SAFETY: the queue's reference keeps it alive, and is ours.
        if unsafe { (*task).locked.replace(0) } > 0 {
            self.unlock_thread();
        }
        self.shared.counts.finished.add_one();
        // SAFETY: the queue's reference, which nobody else has.
        let task = unsafe { Arc::from_raw(task.cast_const()) };
        if let Some(member) = task.membership() {
            member.ended();
        }
    }

    fn recycle(&self, fiber: Box<Fiber>) {
        let left = self.to_trim.get() - 1;
        self.to_trim.set(if left == 0 { TRIM } else { left });
        if left == 0 {
            fiber.trim();
        }
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_FIBERS {
            free.push(fiber);
        } else {
            drop(free);
            fiber.dismiss();
        }
    }

    /// Nothing to do: look on for a moment, then sleep; both detached.
    fn rest(&self) {
        if self.takes_fresh() && !self.searching.replace(true) {
            self.runtime.idle.start_searching();
        }
        let state = host().detach();
        if !self.spin() {
            if self.searching.replace(false) {
                self.runtime.idle.stop_searching();
            }
            let asleep = now();
            self.sleep();
            let awake = now();
            clock::note(awake);
            self.learn(awake.0 - asleep.0);
        }
        host().attach(state);
    }

    /// Looks on for a while; true if there is work. Lets other threads run in between, so that on a busy
    /// machine this takes their place only for moments. When they take long it sleeps: who is woken comes before those who
    /// compute, who gives way comes after them.
    fn spin(&self) -> bool {
        for round in 0..self.patience.get() {
            for _ in 0..SPINS {
                std::hint::spin_loop();
                if self.sees_work() {
                    return true;
                }
            }
            if self.shared.bed.awaited_net().is_some_and(NetPoll::look_instead) {
                return true;
            }
            if round > 0 {
                let before = now();
                std::thread::yield_now();
                if now().0 - before.0 > LONG_YIELD_NS {
                    self.patience.set(1);
                    return self.sees_work();
                }
            }
        }
        false
    }

    /// Adjusts how long to look on next time by how long this sleep was: if a little more patience would
    /// have saved it (a partner on another worker answers in microseconds), have more; else have less.
    fn learn(&self, slept_ns: u64) {
        let patience = self.patience.get();
        self.patience.set(if slept_ns < WORTH_WAITING_NS {
            (patience * 4).min(PATIENCE_MAX)
        } else {
            (patience / 2).max(1)
        });
    }

    /// The steps of README.md. A worker that may not take fresh goroutines is not on the list, where it
    /// would catch calls that are not for it.
    fn sleep(&self) {
        let listed = self.takes_fresh();
        self.shared.bed.announce();
        if listed {
            self.runtime.idle.enter(self.shared);
        } else if self.runtime.has_fresh() {
            // Somebody may have counted on us when we still searched.
            self.runtime.work_for_anybody();
        }
        if !self.sees_work() && self.takes_fresh() == listed {
            self.shared.counts.sleeps.add_one();
            self.shared.bed.sleep();
        }
        self.shared.bed.rise();
        self.runtime.monitor.ring();
        if !listed {
            return;
        }
        self.runtime.idle.leave(self.shared);
        if self.takes_fresh() {
            self.searching.set(true);
        } else {
            // Called for work that we may not take any more: somebody else has to.
            self.runtime.idle.stop_searching();
            self.runtime.work_for_anybody();
        }
    }

    /// Whether it may start goroutines: not if it is one too many.
    fn takes_fresh(&self) -> bool {
        self.index < self.runtime.takers() && !self.shared.watch.is_locked()
    }

    /// Whether somebody else would run here, if the goroutine that runs gave way.
    pub(super) fn has_others(&self) -> bool {
        // Ordering: Relaxed. A hint.
        let handed = !self.shared.handed.load(Ordering::Relaxed).is_null();
        handed || !self.next.get().is_null() || !self.ready.borrow().is_empty() || self.sees_work()
    }

    fn sees_work(&self) -> bool {
        if !self.shared.inbox.is_empty() || self.runtime.is_stopping() {
            return true;
        }
        if !self.shared.placed.is_empty() && !self.shared.watch.is_locked() {
            return true;
        }
        self.takes_fresh() && self.runtime.has_fresh()
    }

    /// The program is ending: sleep for ever. What is parked stays parked.
    fn stop(&self) -> ! {
        host().detach();
        self.sleep_for_ever()
    }

    fn sleep_for_ever(&self) -> ! {
        loop {
            self.shared.bed.announce();
            self.shared.bed.sleep();
        }
    }
}

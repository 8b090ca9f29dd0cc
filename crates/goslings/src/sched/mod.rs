//! The scheduler: starts goroutines, wakes them, and keeps the workers that run them.
//!
//! One runtime per process, made at first use, never freed. After `fork` the child makes a new one; the
//! generation number tells waiters of the old one (ghosts) from those of the new.

mod idle;
#[cfg(all(test, loom))]
mod loom;
mod monitor;
mod runq;
mod worker;

pub use monitor::Held;
pub(crate) use worker::{Shared, Worker};

use crate::bubble::{self, Bubble};
use crate::clock::Deadline;
use crate::lock::{Mutex, Rank};
use crate::net::Net;
use crate::task::{Fiber, Job, Switch, Task};
use crate::timer::{Entry, Timers};
use crate::waiter::Why;
use crossbeam_deque::Injector;
use idle::{Bed, Idle};
use monitor::Monitor;
use std::pin::pin;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use worker::Fresh;

/// As many workers as can ever be.
pub const PROCS_MAX: usize = 256;

pub(crate) struct Runtime {
    injector: Injector<Fresh>,
    idle: Idle,
    pub(crate) timers: Timers,
    pub(crate) net: Net,
    pub(crate) monitor: Monitor,
    /// How many workers are to take goroutines that have not started: see `set_procs`.
    procs: AtomicUsize,
    /// The first so many workers take them; more than `procs` while some of these are away. Written under `growing`.
    takers: AtomicUsize,
    /// How many exist; the first so many places of `workers` are set.
    count: AtomicUsize,
    /// How many of them have attached.
    arrived: AtomicUsize,
    workers: Box<[OnceLock<&'static Shared>]>,
    /// Held while a worker is added.
    growing: Mutex<()>,
    stopping: AtomicBool,
    /// Goroutines started from threads that are no workers.
    injected: AtomicU64,
}

static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// What `set_procs` asked for before there was a runtime; 0: nothing.
static PROCS_ASKED: AtomicUsize = AtomicUsize::new(0);

/// Counts the forks that this process descends from.
#[inline]
pub(crate) fn generation() -> u32 {
    // Ordering: Relaxed. Changes only in a forked child, while it has one thread.
    GENERATION.load(Ordering::Relaxed)
}

/// The runtime, if somebody has used it.
pub(crate) fn existing() -> Option<&'static Runtime> {
    // Ordering: Acquire pairs with the Release exchange in `runtime`: it is fully built.
    let found = RUNTIME.load(Ordering::Acquire);
    // SAFETY: never freed once stored.
    unsafe { found.as_ref() }
}

pub(crate) fn runtime() -> &'static Runtime {
    if let Some(runtime) = existing() {
        return runtime;
    }
    let made = Box::into_raw(Box::new(Runtime::new()));
    // Ordering: AcqRel, pairs with the Acquire in `existing`: publishes ours, or sees the other's.
    match RUNTIME.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just made, and never freed.
        Ok(_) => unsafe { &*made },
        Err(first) => {
            // SAFETY: ours was never shown to anybody.
            drop(unsafe { Box::from_raw(made) });
            // SAFETY: never freed once stored.
            unsafe { &*first }
        }
    }
}

/// The timers for whoever asks: of its bubble, else of the runtime.
pub(crate) fn timers() -> &'static Timers {
    bubble::with_current(|bubble| bubble.timers()).unwrap_or_else(|| &runtime().timers)
}

/// Not one worker could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoThread;

/// Starts a goroutine that runs `job`.
///
/// # Panics
/// If the system refuses the runtime its first thread.
pub fn spawn(job: Job) -> Arc<Task> {
    let mut spawned = None;
    spawn_with(Task::reserve_id(), job, ptr::null_mut(), |task| spawned = Some(Arc::clone(task)))
        .expect("a thread for the first worker");
    spawned.expect("shown before it was queued")
}

/// Starts the goroutine with the reserved number `id`, which its host knows by `host_data`: see
/// [`Task::host_data`]. `before` sees it before it can run.
///
/// # Errors
/// [`NoThread`]; the job was dropped.
pub fn spawn_with(
    id: u64,
    job: Job,
    host_data: *mut (),
    before: impl FnOnce(&Arc<Task>),
) -> Result<(), NoThread> {
    spawn_in(bubble::current().as_ref(), id, job, host_data, before)
}

/// The same, in this bubble, or in none.
///
/// # Errors
/// As [`spawn_with`].
pub fn spawn_in(
    bubble: Option<&Arc<Bubble>>,
    id: u64,
    job: Job,
    host_data: *mut (),
    before: impl FnOnce(&Arc<Task>),
) -> Result<(), NoThread> {
    let worker = worker::current();
    if worker.is_none() {
        runtime().have_a_worker()?;
    }
    let task = Task::new(id, job, host_data, bubble.map(Bubble::join));
    before(&task);
    if bubble.is_some_and(|bubble| bubble.started(&task, worker)) {
        match worker {
            Some(worker) => worker.shared.counts.spawned.add_one(),
            None => runtime().count_injected(),
        }
        return Ok(());
    }
    match worker {
        Some(worker) => worker.push_fresh(task),
        None => {
            let runtime = runtime();
            runtime.count_injected();
            runtime.injector.push(Fresh(Arc::into_raw(task)));
            runtime.work_for_anybody();
        }
    }
    Ok(())
}

/// The same, in no bubble, and started by this worker, so that it will live there; by another one if this one is held up,
/// or one too many. For those who know better where to than who happens to be idle.
///
/// # Errors
/// As [`spawn_with`].
pub fn spawn_at(
    index: usize,
    id: u64,
    job: Job,
    host_data: *mut (),
    before: impl FnOnce(&Arc<Task>),
) -> Result<(), NoThread> {
    let runtime = runtime();
    let wanted = index.saturating_add(1).min(runtime.takers());
    for _ in runtime.worker_count()..wanted {
        // Those that cannot be had are not waited for.
        let _ = runtime.grow();
    }
    let Some(home) = runtime.worker(index).filter(|home| index < runtime.takers() && !home.is_out()) else {
        return spawn_in(None, id, job, host_data, before);
    };
    let task = Task::new(id, job, host_data, None);
    before(&task);
    runtime.count_injected();
    home.placed.push(Fresh(Arc::into_raw(task)));
    home.bed.wake();
    // Its fence is between the push and this look: who finds it away later finds the goroutine, too.
    if home.is_out() {
        runtime.work_for_anybody();
    }
    Ok(())
}

/// The workers that start goroutines now, those that sleep first. Some may not exist yet.
#[must_use]
pub fn places() -> Vec<usize> {
    let runtime = runtime();
    let here = |index: &usize| runtime.worker(*index).is_none_or(|shared| !shared.is_out());
    let mut places: Vec<usize> = (0..runtime.takers()).filter(here).collect();
    places.sort_by_key(|&index| runtime.worker(index).is_some_and(|shared| !shared.bed.is_taken()));
    places
}

/// The worker whose thread this is, by its number in [`places`].
#[must_use]
pub fn current_place() -> Option<usize> {
    worker::current().map(Worker::index)
}

/// The goroutine that this code runs in.
#[inline]
pub(crate) fn current_task() -> Option<&'static Task> {
    let worker = worker::current()?;
    // SAFETY: the running task is kept alive by its worker's reference while this code runs in it; the
    // reference is used no longer than that.
    unsafe { worker.current_task().as_ref() }
}

/// The same, if it has a stack of its own to wait on.
#[inline]
pub(crate) fn current_stackful() -> Option<&'static Task> {
    current_task().filter(|task| !task.is_stackless())
}

/// The goroutine that this code runs in, to keep, if it has no stack of its own.
pub(crate) fn current_stackless() -> Option<Arc<Task>> {
    current().filter(|task| task.is_stackless())
}

/// The bed of the worker whose thread this is.
pub(crate) fn current_bed() -> Option<&'static Bed> {
    worker::current().map(|worker| &worker.shared.bed)
}

/// Calls `look` with the goroutine that this code runs in.
pub fn with_current<R>(look: impl FnOnce(Option<&Task>) -> R) -> R {
    look(current_task())
}

/// The goroutine that this code runs in, to keep. None on a plain thread.
#[must_use]
pub fn current() -> Option<Arc<Task>> {
    let task = ptr::from_ref(current_task()?);
    // SAFETY: the pointer came from `Arc::into_raw`, and the worker's reference keeps it alive.
    unsafe { Arc::increment_strong_count(task) };
    // SAFETY: the count was just taken for this Arc.
    Some(unsafe { Arc::from_raw(task) })
}

/// Puts the running goroutine aside until it is woken.
#[inline(always)]
pub(crate) fn park(task: &Task, why: Why, deadline: Option<Deadline>) {
    task.note_wait(why, deadline.is_some());
    match deadline {
        None => leave(task, why),
        Some(at) => park_until(task, why, at),
    }
    task.note_no_wait();
}

#[inline(never)]
fn park_until(task: &Task, why: Why, at: Deadline) {
    let entry = pin!(Entry::waking(at, NonNull::from(task).cast()));
    let timers = timers();
    // SAFETY: the entry stays in this frame, and `remove` below takes it out before it ends.
    unsafe { timers.insert(&entry) };
    leave(task, why);
    timers.remove(&entry);
}

#[inline(always)]
fn leave(task: &Task, why: Why) {
    if let Some(member) = task.membership() {
        member.parks(why.reason);
    }
    switch_out(task, Switch::Parked);
}

/// Lets the other goroutines of this worker run first. On a plain thread, and in a goroutine without a stack
/// (which gives way by returning to its worker): lets other threads run.
pub fn yield_now() {
    match current_stackful() {
        Some(task) => {
            if let Some(member) = task.membership() {
                member.gives_way();
            }
            switch_out(task, Switch::Yielded);
        }
        None => yield_thread(),
    }
}

/// Whether others would run here if the running goroutine called [`yield_now`], a moment ago. False on a plain thread, and
/// in a goroutine without a stack.
#[must_use]
pub fn others_are_ready() -> bool {
    current_stackful().is_some() && worker::current().is_some_and(Worker::has_others)
}

/// Lets other threads run.
pub(crate) fn yield_thread() {
    let state = crate::host::host().detach();
    std::thread::yield_now();
    crate::host::host().attach(state);
}

/// The running goroutine lets the one go first that its bubble has chosen.
pub(crate) fn make_way(task: &Task) {
    switch_out(task, Switch::Yielded);
}

#[inline(always)]
fn switch_out(task: &Task, why: Switch) {
    crate::lock::assert_none_held();
    // SAFETY: `task` is the running one, so this code runs on its fiber.
    unsafe { Fiber::switch_out(task.fiber(), why) };
}

/// A parked goroutine may go on.
///
/// # Safety
/// The caller won the task's wait (waiter.rs) and calls this once.
#[inline]
pub(crate) unsafe fn ready(task: NonNull<Task>) {
    // SAFETY: a waiting task is alive until it is woken.
    let woken = unsafe { task.as_ref() };
    let (home, worker) = (woken.home(), worker::current());
    if woken.membership().is_some_and(|member| member.wakes(task, worker)) {
        return;
    }
    match worker {
        Some(worker) if ptr::eq(worker.shared, home) => worker.make_next_here(task.as_ptr()),
        // SAFETY: by the contract; a task that waits has started, so it has a home.
        _ => unsafe { ready_elsewhere(task, home) },
    }
}

/// # Safety
/// As [`ready`]; `home` is the task's, and not null.
#[inline(never)]
unsafe fn ready_elsewhere(task: NonNull<Task>, home: *const Shared) {
    // SAFETY: homes are never freed.
    let home = unsafe { &*home };
    // SAFETY: the winner of the wait hands over the reference that parked with the task.
    unsafe { home.inbox.push(task.as_ptr()) };
    home.bed.wake();
}

/// The wait of a goroutine without a stack is over: it may go on, on any worker.
///
/// # Safety
/// As [`ready`].
pub(crate) unsafe fn ready_stackless(task: NonNull<Task>) {
    // SAFETY: a waiting task is alive until it is woken. If it has not left its worker yet, that worker goes on
    // with it, and it is not touched here again.
    if !unsafe { task.as_ref() }.wake() {
        return;
    }
    let worker = worker::current();
    // SAFETY: it had left its worker, and is ours until it is queued.
    let member = unsafe { task.as_ref() }.membership();
    if member.is_some_and(|member| member.wakes(task, worker)) {
        return;
    }
    match worker {
        Some(worker) => worker.make_next(task.as_ptr()),
        None => {
            let runtime = runtime();
            runtime.injector.push(Fresh(task.as_ptr()));
            runtime.work_for_anybody();
        }
    }
}

/// How many workers take goroutines: see [`set_procs`].
pub fn procs() -> usize {
    runtime().procs()
}

/// Sets how many workers take goroutines that have not started, 1 to [`PROCS_MAX`]; returns the number
/// before. Workers above a lowered number go on with the goroutines that started there.
pub fn set_procs(procs: usize) -> usize {
    let procs = procs.clamp(1, PROCS_MAX);
    let runtime = runtime();
    // Ordering: Relaxed. A number that `refresh_takers` reads.
    let before = runtime.procs.swap(procs, Ordering::Relaxed);
    runtime.refresh_takers();
    before
}

/// Sets the number of workers of a runtime that is still to be made.
pub fn set_default_procs(procs: usize) {
    // Ordering: Relaxed. Set at start, by the host.
    PROCS_ASKED.store(procs.clamp(1, PROCS_MAX), Ordering::Relaxed);
}

/// Sets how long a goroutine may have its worker while others wait, before it is asked to let them run and a spare
/// worker is brought up: a whole number of nanoseconds, 0 for as long as it likes. Default: 10 ms.
pub fn set_slice(nanoseconds: u64) {
    monitor::set_slice_ns(nanoseconds);
    if let Some(runtime) = existing() {
        if runtime.worker_count() > 0 {
            runtime.monitor.start(runtime);
        }
        runtime.monitor.ring();
    }
}

/// Has the host told of each goroutine that has held its worker for so long while others waited; 0: never.
pub fn set_warn_held(nanoseconds: u64) {
    monitor::set_warn_ns(nanoseconds);
}

/// The goroutines that have held their workers for longer than a slice.
#[must_use]
pub fn held() -> Vec<Held> {
    existing().map_or_else(Vec::new, monitor::held)
}

/// For the host, on a thread that it has interrupted: whether a goroutine runs here that is asked to let others run, and
/// can: one with a stack, outside of bubbles, which have an order of their own.
#[must_use]
pub fn is_asked() -> bool {
    let Some(worker) = worker::current() else { return false };
    worker.shared.is_asked()
        && current_task().is_some_and(|task| !task.is_stackless() && task.membership().is_none())
}

/// What [`is_asked`] says, is done or cannot be done: until it is asked again.
pub fn forget_request() {
    if let (Some(worker), Some(runtime)) = (worker::current(), existing())
        && worker.shared.is_asked()
    {
        worker.shared.forget_request();
        runtime.monitor.note_answer();
    }
}

/// From now on no goroutine that has not started yet starts on the thread of the running one, until that has called
/// [`unlock_os_thread`] as often, or ends. Those that have started there go on while it waits: they cannot move. Does
/// nothing on a plain thread and in a goroutine without a stack.
pub fn lock_os_thread() {
    if let (Some(worker), Some(task)) =
        (worker::current(), current_task().filter(|task| !task.is_stackless()))
    {
        task.locked.set(task.locked.get().saturating_add(1));
        if task.locked.get() == 1 {
            worker.lock_thread();
        }
    }
}

/// Undoes one [`lock_os_thread`] of the running goroutine; false if there is none left to undo.
pub fn unlock_os_thread() -> bool {
    let (Some(worker), Some(task)) = (worker::current(), current_task()) else { return false };
    let Some(left) = task.locked.get().checked_sub(1) else { return false };
    if left == u16::MAX - 1 {
        // Nobody knows how often any more: until it ends.
        return true;
    }
    task.locked.set(left);
    if left == 0 {
        worker.unlock_thread();
    }
    true
}

/// Lets others run because the goroutine was asked to.
pub fn give_way() {
    if let Some(worker) = worker::current() {
        worker.shared.counts.preemptions.add_one();
    }
    yield_now();
}

/// Whether a goroutine is asked to let others run, and has not answered yet.
#[must_use]
pub fn anybody_is_asked() -> bool {
    existing().is_some_and(Runtime::anybody_is_asked)
}

/// Numbers about the runtime, each counted since it was made.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Stats {
    pub procs: usize,
    pub workers: usize,
    pub takers: usize,
    pub goroutines: u64,
    pub spawned: u64,
    pub started: u64,
    pub finished: u64,
    pub switches: u64,
    pub stolen: u64,
    pub sleeps: u64,
    pub preemptions: u64,
    pub held: usize,
    pub longest_hold_ns: u64,
    pub timers: usize,
    pub stacks: usize,
}

/// Reads the counters; they are not of one instant.
#[must_use]
pub fn stats() -> Stats {
    let Some(runtime) = existing() else { return Stats::default() };
    let mut stats = Stats {
        procs: runtime.procs(),
        workers: runtime.worker_count(),
        takers: runtime.takers(),
        // Ordering: Relaxed. A number for people to read.
        spawned: runtime.injected.load(Ordering::Relaxed),
        held: monitor::held(runtime).len(),
        longest_hold_ns: runtime.monitor.longest_ns(),
        timers: runtime.timers.len(),
        stacks: crate::task::stack::mapped(),
        ..Stats::default()
    };
    // Finished first: so that a goroutine that ends meanwhile is counted as alive, never as minus one.
    for index in 0..stats.workers {
        stats.finished += runtime.worker(index).map_or(0, |shared| shared.counts.finished.get());
    }
    for shared in (0..stats.workers).filter_map(|index| runtime.worker(index)) {
        stats.spawned += shared.counts.spawned.get();
        stats.started += shared.counts.started.get();
        stats.switches += shared.counts.switches.get();
        stats.stolen += shared.counts.stolen.get();
        stats.sleeps += shared.counts.sleeps.get();
        stats.preemptions += shared.counts.preemptions.get();
    }
    stats.goroutines = stats.spawned.saturating_sub(stats.finished);
    stats
}

/// How many threads the runtime has, if all are asleep and have nothing to do; their numbers go to `turns`. None: one
/// is up, or there is work. See deadlock.rs.
pub(crate) fn asleep(turns: &mut Vec<u64>) -> Option<usize> {
    // Ordering: Acquire, as in `runtime`.
    let found = RUNTIME.load(Ordering::Acquire);
    // SAFETY: never freed once stored.
    let Some(runtime) = (unsafe { found.as_ref() }) else { return Some(0) };
    let workers = runtime.worker_count();
    for index in 0..workers {
        let shared = runtime.worker(index)?;
        turns.push(u64::from(shared.bed.asleep()?));
        if !shared.inbox.is_empty() || !shared.placed.is_empty() {
            return None;
        }
    }
    if runtime.has_fresh() {
        return None;
    }
    Some(workers + runtime.monitor.threads() + runtime.timers.asleep(turns)? + runtime.net.asleep()?)
}

/// Whether a timer is set that will end somebody's wait, or run something.
pub(crate) fn something_is_set() -> bool {
    // Ordering: Acquire, as in `runtime`.
    let found = RUNTIME.load(Ordering::Acquire);
    // SAFETY: never freed once stored.
    unsafe { found.as_ref() }.is_some_and(|runtime| runtime.timers.something_is_set())
}

/// The program is ending: workers stop at their next look for work and never attach again. To be called
/// attached; waits for workers whose thread is still on its way to the interpreter, which must not find it
/// gone.
pub fn stop() {
    let Some(runtime) = existing() else { return };
    // Ordering: Relaxed. Sleepers stay asleep; the others read it before each goroutine.
    runtime.stopping.store(true, Ordering::Relaxed);
    // Whoever is adding a worker has added it after this; nobody adds another.
    drop(runtime.growing.lock());
    // Ordering: Acquire pairs with the Release in `Worker::work`: the thread is attached.
    while runtime.arrived.load(Ordering::Acquire) < runtime.worker_count() {
        yield_now();
    }
    runtime.monitor.leave_host();
}

/// To be called before `fork`, attached: waits until no unattached thread is inside the runtime.
/// [`after_fork_parent`] or [`after_fork_child`] must follow.
pub fn before_fork() {
    runtime().timers.close_gate();
}

/// Undoes [`before_fork`].
pub fn after_fork_parent() {
    runtime().timers.open_gate();
}

/// To be called in a forked child, which has one thread: forgets the runtime, its workers and waiters.
pub fn after_fork_child() {
    worker::forget_current();
    if let Some(runtime) = existing() {
        set_default_procs(runtime.procs());
    }
    crate::threads::after_fork_child();
    Task::forget_all();
    // Ordering: Relaxed. There is only this thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // Ordering: Relaxed. There is only this thread; the old runtime is leaked on purpose.
    RUNTIME.store(ptr::null_mut(), Ordering::Relaxed);
}

impl Runtime {
    fn new() -> Runtime {
        // Ordering: Relaxed. Set at start, by the host.
        let asked = PROCS_ASKED.load(Ordering::Relaxed);
        let procs = if asked == 0 {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        } else {
            asked
        };
        Runtime {
            injector: Injector::new(),
            idle: Idle::new(),
            timers: Timers::new(),
            net: Net::new(),
            monitor: Monitor::new(),
            procs: AtomicUsize::new(procs.min(PROCS_MAX)),
            takers: AtomicUsize::new(procs.min(PROCS_MAX)),
            count: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            workers: (0..PROCS_MAX).map(|_| OnceLock::new()).collect(),
            growing: Mutex::new(Rank::Sched, ()),
            stopping: AtomicBool::new(false),
            injected: AtomicU64::new(0),
        }
    }

    /// A goroutine was started from a thread that is no worker.
    fn count_injected(&self) {
        // Ordering: Relaxed. A number for people to read.
        self.injected.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn procs(&self) -> usize {
        // Ordering: Relaxed. See `set_procs`.
        self.procs.load(Ordering::Relaxed)
    }

    /// How many workers take goroutines that have not started: those before this index.
    #[inline]
    fn takers(&self) -> usize {
        // Ordering: Relaxed. A number read by workers when they look for work; who sleeps is woken to read it.
        self.takers.load(Ordering::Relaxed)
    }

    /// Finds out anew how many that are: so many that `procs` of them are not away.
    #[cold]
    fn refresh_takers(&'static self) {
        let (before, after) = {
            let _growing = self.growing.lock();
            let after = self.count_takers();
            // Ordering: Relaxed. See `takers`.
            (self.takers.swap(after, Ordering::Relaxed), after)
        };
        if before == after {
            return;
        }
        for index in before.min(after)..self.worker_count() {
            // Those who are one too many leave the list of sleepers, the others enter it again.
            if let Some(shared) = self.worker(index) {
                shared.bed.wake();
            }
        }
        self.work_for_anybody();
    }

    fn count_takers(&self) -> usize {
        let mut here = 0;
        for index in 0..PROCS_MAX {
            let away = self.worker(index).is_some_and(Shared::is_out);
            here += usize::from(!away);
            if here == self.procs() {
                return index + 1;
            }
        }
        PROCS_MAX
    }

    fn anybody_is_asked(&self) -> bool {
        (0..self.worker_count())
            .filter_map(|index| self.worker(index))
            .any(|shared| shared.watch.running() != 0 && shared.is_asked())
    }

    #[inline]
    fn worker_count(&self) -> usize {
        // Ordering: Acquire pairs with the Release store in `grow`: the places below are set.
        self.count.load(Ordering::Acquire)
    }

    fn worker(&self, index: usize) -> Option<&'static Shared> {
        self.workers.get(index)?.get().copied()
    }

    #[inline]
    fn is_stopping(&self) -> bool {
        // Ordering: Relaxed. See `stop`.
        self.stopping.load(Ordering::Relaxed)
    }

    fn has_fresh(&self) -> bool {
        !self.injector.is_empty()
            || (0..self.worker_count())
                .filter_map(|index| self.worker(index))
                .any(|shared| !shared.stealer.is_empty() || (shared.is_out() && !shared.placed.is_empty()))
    }

    /// A goroutine that anybody may start was queued: see that somebody looks for it.
    #[inline]
    fn work_for_anybody(&'static self) {
        if !self.idle.notify() && self.worker_count() < self.takers() {
            // Without a thread more those that exist must do.
            let _ = self.grow();
        }
    }

    /// Sees that there is a worker at all.
    #[inline]
    fn have_a_worker(&'static self) -> Result<(), NoThread> {
        if self.worker_count() == 0 { self.grow() } else { Ok(()) }
    }

    /// Adds a worker, if there may be one more.
    #[cold]
    fn grow(&'static self) -> Result<(), NoThread> {
        let _growing = self.growing.lock();
        let index = self.worker_count();
        if index >= self.takers() || self.is_stopping() {
            return Ok(());
        }
        let worker: &'static Worker = Box::leak(Box::new(Worker::new(self, index)));
        self.idle.start_searching();
        let address = ptr::from_ref(worker).expose_provenance();
        let thread = std::thread::Builder::new().name("goslings".into()).spawn(move || {
            let worker: *const Worker = ptr::with_exposed_provenance(address);
            // SAFETY: leaked above, and used by this thread only from here on.
            unsafe { &*worker }.run();
        });
        if thread.is_err() {
            // Those that exist must do; the next goroutine tries again.
            self.idle.stop_searching();
            return Err(NoThread);
        }
        let _ = self.workers[index].set(worker.shared);
        // Ordering: Release pairs with the Acquire load in `worker_count`.
        self.count.store(index + 1, Ordering::Release);
        self.monitor.start(self);
        self.monitor.ring();
        Ok(())
    }
}

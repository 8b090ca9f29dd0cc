//! A bubble: goroutines with a clock of their own, of which one runs at a time.
//!
//! Two uses. A *virtual* bubble is Go's `testing/synctest`: its clock stands while anybody of it can run, and
//! jumps to the next timer when all are blocked for good. An *explored* bubble chooses, besides, at every
//! operation who goes on, from a seed: so one schedule after the other can be tried, and repeated.
//!
//! **Invariants**
//! * A goroutine belongs to the bubble of whoever started it, for ever.
//! * All members run on one worker, `home`: the one that first meets a member. The worker's own queues never
//!   run a member; they hand it to the bubble (`arrive`), and the bubble gives it back when chosen (`next`).
//! * `active` counts the members that are not parked, wherever they are on their way. A member leaves the count
//!   before it switches out, with its timer set, and enters it again when it is woken; so once the count is
//!   zero, nobody can come back but by a timer of the bubble or from outside.
//! * `stubborn` counts the parked members that something outside may wake. While it is not zero the clock
//!   stands.
//! * No lock of the runtime is taken under the bubble's but none; wakes come after it.

mod order;
mod trace;

pub use order::Order;
pub use trace::{OUTSIDE, Step, What};

use crate::clock::Deadline;
use crate::event::Event;
use crate::lock::{Guard, Mutex, Rank};
use crate::sched::{Shared, Worker};
use crate::task::Task;
use crate::timer::Timers;
use crate::waiter::WaitReason;
use order::Chooser;
use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How a bubble behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether every operation is a step at which another member may go on.
    pub explores: bool,
    /// Who runs next.
    pub order: Order,
    /// Where all its random choices come from.
    pub seed: u64,
    /// Whether a timer may also fire while somebody could run, as if that somebody were slow.
    pub early_timers: bool,
    /// After so many steps the run is given up.
    pub steps_max: u64,
}

/// How far a bubble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Members run, or wait for something outside.
    Running,
    /// All members have ended.
    Ended,
    /// The first member has not ended, and no member can ever go on.
    Deadlock,
    /// The first member has ended, and those left can never go on.
    Left,
    /// It took more steps than it may.
    TooLong,
}

/// What an operation is about: decides whether a wait in it is for good, and who may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Something that anybody may use, inside or outside: a mutex, a number.
    Anything,
    /// An object made in the bubble of this number (0: outside), for its members only.
    Made(u32),
    /// The same, but outsiders may use it, too.
    Shared(u32),
    /// Objects made in the bubble of this number, and others made outside: their users are its members.
    Mixed(u32),
    /// Nothing that others could touch: a sleep, a nil channel.
    Nothing,
}

/// Why an operation may not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The object was made in a bubble, and this is not it.
    Outside,
    /// The run is being cleared away.
    Cancelled,
}

/// What a bubble knows of a member.
#[derive(Default)]
struct Member {
    /// Until it ends.
    task: Option<Arc<Task>>,
    label: &'static str,
    place: u32,
}

/// A member, for people.
#[derive(Clone, Debug)]
pub struct MemberState {
    /// Counted from 0, in the order of starting.
    pub number: u32,
    /// The goroutine.
    pub task: Arc<Task>,
    /// What it began to do last.
    pub label: &'static str,
    /// Where: a number of the host's.
    pub place: u32,
}

/// Members that can run, with their numbers.
type Ready = VecDeque<(u32, *mut Task)>;

struct State {
    status: Status,
    members: Vec<Member>,
    ready: Ready,
    /// Chosen to run next, by who has just made way for it.
    next: Option<*mut Task>,
    active: usize,
    stubborn: usize,
    live: usize,
    /// The first member has ended.
    over: bool,
    /// How often the clock moved since then.
    encores: u32,
    /// What is left is to be cleared away: no choices, no steps, and the clock stands.
    ending: bool,
    /// Whether it is in its worker's list.
    queued: bool,
    home: *const Shared,
    steps: u64,
    chooser: Chooser,
    trace: Vec<Step>,
    /// Who wants to know when all others are blocked.
    quiet: Option<Arc<Event>>,
}

// SAFETY: a task may be used from any thread, `home` is never freed, and the rest is plain data.
unsafe impl Send for State {}

/// A bubble.
pub struct Bubble {
    id: u32,
    config: Config,
    clock: AtomicU64,
    random: AtomicU64,
    timers: &'static Timers,
    state: Mutex<State>,
    settled: Event,
    closed: AtomicBool,
    /// Closed when all members had ended: nobody sets a timer in it any more.
    spent: AtomicBool,
    host_data: Box<dyn Any + Send + Sync>,
}

/// What a task knows of its bubble.
pub(crate) struct Membership {
    pub(crate) bubble: Arc<Bubble>,
    number: u32,
    /// Whether its current or next wait can be ended by the bubble only. Written by the member itself.
    durable: AtomicBool,
}

/// A clock may move so often after the first member has ended, in an explored run: those that end by themselves
/// may, those that tick for ever are left.
const ENCORES: u32 = 1000;
/// One step in so many a timer fires early, where that is asked for.
const EARLY: u64 = 16;

/// How many bubbles are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The bubble that this thread acts for, outside of any goroutine.
    static ACTING: Cell<*const Arc<Bubble>> = const { Cell::new(ptr::null()) };
}

/// Whether there is any bubble: what every hook asks first.
#[inline]
#[must_use]
pub fn any() -> bool {
    // Ordering: Relaxed. Whoever is in a bubble got there after it was opened, on this thread or by a hand-over
    // through a lock.
    OPEN.load(Ordering::Relaxed) != 0
}

/// Calls `look` with the bubble that this code runs in.
pub(crate) fn with_current<R>(look: impl FnOnce(&Arc<Bubble>) -> R) -> Option<R> {
    if !any() {
        return None;
    }
    let acting = ACTING.with(Cell::get);
    // SAFETY: set by `acting_for` only, for as long as the Arc lives.
    if let Some(bubble) = unsafe { acting.as_ref() } {
        return Some(look(bubble));
    }
    let member = crate::sched::current_task()?.membership()?;
    Some(look(&member.bubble))
}

/// The bubble that this code runs in.
#[must_use]
pub fn current() -> Option<Arc<Bubble>> {
    with_current(Arc::clone)
}

/// The number of the bubble that this code runs in; 0: none. What an object made here remembers.
#[inline]
#[must_use]
pub fn current_id() -> u32 {
    if any() { with_current(|bubble| bubble.id).unwrap_or(0) } else { 0 }
}

/// The time in the bubble that this code runs in.
#[inline]
pub(crate) fn now() -> Option<Deadline> {
    if any() { with_current(|bubble| bubble.now()) } else { None }
}

/// A random number of the bubble that this code runs in.
#[inline]
pub(crate) fn random() -> Option<u64> {
    if any() { with_current(|bubble| bubble.random()) } else { None }
}

/// The number that stands for every bubble, and for none: of what nobody ever changes.
pub const ANYWHERE: u32 = u32::MAX;

/// The running goroutine is about to do something that others can notice. `place` says where, in the host's
/// numbers, and is called without locks held; None: this is no step.
///
/// Whoever has no stack cannot be put aside here: true says that it is to give way, and to go on later.
///
/// # Errors
/// [`Refused`].
pub fn operation(
    label: &'static str,
    on: On,
    place: impl FnOnce(&Bubble) -> Option<u32>,
) -> Result<bool, Refused> {
    let id = current_id();
    let on = if let On::Made(ANYWHERE) = on { On::Nothing } else { on };
    if let On::Made(made) | On::Mixed(made) = on
        && made != 0
        && made != id
    {
        return Err(Refused::Outside);
    }
    let Some(task) = crate::sched::current_task() else { return Ok(false) };
    let Some(member) = task.membership() else { return Ok(false) };
    let bubble = &member.bubble;
    let durable = match on {
        On::Anything | On::Mixed(_) => false,
        On::Made(made) | On::Shared(made) => made == id,
        On::Nothing => true,
    };
    // Ordering: Relaxed. Read by whoever ends the wait, which it found through a lock.
    member.durable.store(durable || bubble.config.explores, Ordering::Relaxed);
    match place(bubble) {
        Some(place) => bubble.step(task, member, label, place),
        None => Ok(false),
    }
}

impl Bubble {
    /// An empty one. `host_data` is the host's own.
    #[must_use]
    pub fn new(config: Config, host_data: Box<dyn Any + Send + Sync>) -> Arc<Bubble> {
        // Ordering: Relaxed. See `any`.
        OPEN.fetch_add(1, Ordering::Relaxed);
        let state = State {
            status: Status::Running,
            members: Vec::new(),
            ready: Ready::new(),
            next: None,
            active: 0,
            stubborn: 0,
            live: 0,
            over: false,
            encores: 0,
            ending: false,
            queued: false,
            home: ptr::null(),
            steps: 0,
            chooser: Chooser::new(config.order, config.seed),
            trace: Vec::new(),
            quiet: None,
        };
        Arc::new(Bubble {
            // Ordering: Relaxed. Only uniqueness matters.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            config,
            clock: AtomicU64::new(0),
            random: AtomicU64::new(crate::random::mix(config.seed ^ 0x5DEE_CE66)),
            timers: Timers::of_a_bubble(),
            state: Mutex::new(Rank::Bubble, state),
            settled: Event::new(),
            closed: AtomicBool::new(false),
            spent: AtomicBool::new(false),
            host_data,
        })
    }

    /// Its number, never 0.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the host gave at the start.
    #[must_use]
    pub fn host_data(&self) -> &(dyn Any + Send + Sync) {
        &*self.host_data
    }

    /// Whether every operation is a step.
    #[must_use]
    pub fn explores(&self) -> bool {
        self.config.explores
    }

    /// Its time, which begins with 0.
    #[must_use]
    pub fn now(&self) -> Deadline {
        // Ordering: Relaxed. Moves while no member runs; a member that goes on got there through a lock.
        Deadline(self.clock.load(Ordering::Relaxed))
    }

    /// Its timers.
    pub(crate) fn timers(&self) -> &'static Timers {
        self.timers
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    /// How many steps it has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// How many members have not ended.
    #[must_use]
    pub fn live(&self) -> usize {
        self.state.lock().live
    }

    /// What happened so far; empties it.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Step> {
        std::mem::take(&mut self.state.lock().trace)
    }

    /// Those that have not ended.
    #[must_use]
    pub fn members(&self) -> Vec<MemberState> {
        let state = self.state.lock();
        let alive = state.members.iter().zip(0u32..).filter_map(|(member, number)| {
            let task = Arc::clone(member.task.as_ref()?);
            Some(MemberState { number, task, label: member.label, place: member.place })
        });
        alive.collect()
    }

    /// Set when the status is no more `Running`, and, once it is being cleared away, when all are blocked.
    #[must_use]
    pub fn settled(&self) -> &Event {
        &self.settled
    }

    /// From now on members only end: nobody chooses, and the clock stands. To be called before they are
    /// cancelled.
    pub fn end(&self) {
        self.settled.clear();
        let mut state = self.state.lock();
        state.ending = true;
        if state.live == 0 {
            drop(state);
            self.settled.set();
        }
    }

    /// It is not needed any more: members that are left are left for ever, and its timers are forgotten.
    pub fn close(&self) {
        // Ordering: Relaxed. Decides who counts, no more.
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // Ordering: Relaxed. See `any`.
        OPEN.fetch_sub(1, Ordering::Relaxed);
        let (empty, members) = {
            let mut state = self.state.lock();
            (state.live == 0, std::mem::take(&mut state.members))
        };
        drop(members);
        self.timers.clear();
        // Ordering: Relaxed. Read when this is the last reference, which comes after all others were given up.
        self.spent.store(empty, Ordering::Relaxed);
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        // Ordering: Relaxed. Members run one at a time; from others' reads comes no order.
        let before = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        crate::random::mix(before)
    }

    /// Returns once all other members are blocked for good. False: somebody waits for that already.
    ///
    /// # Errors
    /// As [`Event::wait`].
    pub fn wait_quiet(&self) -> Result<bool, crate::waiting::WaitError> {
        let event = Arc::new(Event::new());
        {
            let mut state = self.state.lock();
            if state.quiet.is_some() {
                return Ok(false);
            }
            state.quiet = Some(Arc::clone(&event));
        }
        let waited = event.wait(crate::clock::Wait::Forever);
        let mut state = self.state.lock();
        if state.quiet.as_ref().is_some_and(|other| Arc::ptr_eq(other, &event)) {
            state.quiet = None;
        }
        waited.map(|()| true)
    }

    /// A member is about to be made.
    pub(crate) fn join(self: &Arc<Self>) -> Box<Membership> {
        let mut state = self.state.lock();
        let number = state.members.len() as u32;
        state.members.push(Member::default());
        state.chooser.add();
        drop(state);
        Box::new(Membership { bubble: Arc::clone(self), number, durable: AtomicBool::new(false) })
    }

    /// The member `task` was started. True: it is queued; else the caller hands it to some worker, which will
    /// `arrive` with it.
    pub(crate) fn started(self: &Arc<Self>, task: &Arc<Task>, worker: Option<&Worker>) -> bool {
        let Some(member) = task.membership() else { return false };
        let mut state = self.state.lock();
        if let Some(known) = state.members.get_mut(member.number as usize) {
            known.task = Some(Arc::clone(task));
        }
        state.active += 1;
        state.live += 1;
        let who = self.running_number();
        self.note(&mut state, who, What::Starts(member.number));
        match worker {
            Some(worker) if ptr::eq(worker.shared, state.home) => {
                let task = Arc::into_raw(Arc::clone(task)).cast_mut();
                state.ready.push_back((member.number, task));
                self.queue(state, worker);
                true
            }
            _ => false,
        }
    }

    /// A worker has found `task`, a member, in one of its own queues.
    fn arrive(self: &Arc<Self>, task: *mut Task, number: u32, worker: &Worker) {
        let mut state = self.state.lock();
        if state.home.is_null() {
            state.home = worker.shared;
        }
        if ptr::eq(worker.shared, state.home) {
            state.ready.push_back((number, task));
            self.queue(state, worker);
        } else {
            // SAFETY: homes are never freed.
            let home = unsafe { &*state.home };
            drop(state);
            // SAFETY: the worker gives up the reference that its queue held.
            unsafe { home.inbox.push(task) };
            home.bed.wake();
        }
    }

    /// Sees that `worker`, the home, looks after this bubble.
    fn queue(self: &Arc<Self>, mut state: Guard<'_, State>, worker: &Worker) {
        if !std::mem::replace(&mut state.queued, true) {
            drop(state);
            worker.add_bubble(Arc::clone(self));
        }
    }

    /// The number of the member that runs on this thread.
    fn running_number(&self) -> u32 {
        if !ACTING.with(Cell::get).is_null() {
            return OUTSIDE;
        }
        let member = crate::sched::current_task().and_then(Task::membership);
        member.filter(|member| member.bubble.id == self.id).map_or(OUTSIDE, |member| member.number)
    }

    fn note(&self, state: &mut State, who: u32, what: What) {
        if self.config.explores && !state.ending {
            state.trace.push(Step { who, what });
        }
    }

    /// A step of an explored run.
    fn step(
        self: &Arc<Self>,
        task: &Task,
        member: &Membership,
        label: &'static str,
        place: u32,
    ) -> Result<bool, Refused> {
        let mut state = self.state.lock();
        let known = &mut state.members;
        if let Some(known) = known.get_mut(member.number as usize) {
            (known.label, known.place) = (label, place);
        }
        if !self.config.explores {
            return Ok(false);
        }
        if state.ending {
            drop(state);
            return if task.take_cancel() { Err(Refused::Cancelled) } else { Ok(false) };
        }
        state.steps += 1;
        self.note(&mut state, member.number, What::Operation(label, place));
        if state.steps > self.config.steps_max {
            state.status = if state.over { Status::Left } else { Status::TooLong };
            state.ending = true;
            drop(state);
            self.settled.set();
            return Ok(false);
        }
        if self.config.early_timers && state.chooser.one_in(EARLY) {
            let soonest = self.timers.soonest();
            if let Some(at) = soonest {
                self.note(&mut state, OUTSIDE, What::Time(at.0));
                drop(state);
                self.advance(at);
                state = self.state.lock();
            }
        }
        if state.next.is_some() {
            // Without a stack, and asked already to give way.
            return Ok(true);
        }
        let steps = state.steps;
        let State { chooser, ready, next, .. } = &mut *state;
        let other = chooser.interrupt(steps, member.number, ready.iter().map(|ready| ready.0));
        if let Some((_, other)) = other.and_then(|place| ready.remove(place)) {
            *next = Some(other);
            drop(state);
            if task.is_stackless() {
                return Ok(true);
            }
            crate::sched::make_way(task);
            let mut state = self.state.lock();
            self.note(&mut state, member.number, What::GoesOn);
        }
        Ok(false)
    }

    /// Moves the clock on to `at` and fires what is due by then, in random order.
    fn advance(self: &Arc<Self>, at: Deadline) {
        // Ordering: Relaxed. As in `now`.
        self.clock.fetch_max(at.0, Ordering::Relaxed);
        let now = self.now();
        let before = ACTING.replace(ptr::from_ref(self));
        self.timers.fire_in_any_order(now, |count| (self.random() % count as u64) as usize);
        ACTING.set(before);
    }

    /// Whoever runs next; on the home worker. None: nobody can, and the bubble is out of the worker's list.
    pub(crate) fn next(self: &Arc<Self>) -> Option<*mut Task> {
        loop {
            if self.timers.soonest().is_some_and(|at| at <= self.now()) {
                self.advance(self.now());
            }
            let mut state = self.state.lock();
            if let Some(next) = state.next.take() {
                return Some(next);
            }
            if !state.ready.is_empty() {
                let State { chooser, ready, ending, .. } = &mut *state;
                let place = if *ending { 0 } else { chooser.choose(ready.iter().map(|ready| ready.0)) };
                return ready.remove(place).map(|ready| ready.1);
            }
            if !self.idle(state) {
                return None;
            }
        }
    }

    /// Nobody is ready. If all are blocked, does what then has to happen; true: look again.
    fn idle(self: &Arc<Self>, mut state: Guard<'_, State>) -> bool {
        if state.active > 0 || state.live == 0 || state.stubborn > 0 {
            state.queued = false;
            return false;
        }
        if let Some(quiet) = state.quiet.take() {
            drop(state);
            quiet.set();
            return true;
        }
        if state.ending || state.status != Status::Running {
            state.queued = false;
            let tell = state.ending;
            drop(state);
            if tell {
                self.settled.set();
            }
            return false;
        }
        // Once the first member is over, time goes on for a while in explored runs, and not at all in others.
        let moves = !state.over || (self.config.explores && state.encores < ENCORES);
        if let Some(at) = self.timers.soonest().filter(|_| moves) {
            state.encores += u32::from(state.over);
            self.note(&mut state, OUTSIDE, What::Time(at.0));
            drop(state);
            self.advance(at);
            return true;
        }
        state.status = if state.over { Status::Left } else { Status::Deadlock };
        state.queued = false;
        drop(state);
        self.settled.set();
        false
    }
}

impl Drop for Bubble {
    /// Not before: until its worker has let go of it, it may look for timers that are due by its own clock.
    fn drop(&mut self) {
        if *self.spent.get_mut() {
            self.timers.recycle();
        }
    }
}

impl Membership {
    /// Its number in the bubble.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// A worker has found it in one of its own queues.
    pub(crate) fn arrives(&self, task: *mut Task, worker: &Worker) {
        self.bubble.arrive(task, self.number, worker);
    }

    /// It is about to switch out and wait; its timer is set.
    pub(crate) fn parks(&self, reason: WaitReason) {
        // Ordering: Relaxed. Its own.
        let durable = self.durable.load(Ordering::Relaxed);
        let mut state = self.bubble.state.lock();
        state.active -= 1;
        state.stubborn += usize::from(!durable);
        self.bubble.note(&mut state, self.number, What::Waits(reason));
    }

    /// Somebody has won its wait: it can run. On its home worker that is noted here, else the caller hands it
    /// to the home's inbox. True: it is queued.
    pub(crate) fn wakes(&self, task: NonNull<Task>, worker: Option<&Worker>) -> bool {
        let bubble = &self.bubble;
        let who = bubble.running_number();
        let mut state = bubble.state.lock();
        state.active += 1;
        // Ordering: Relaxed. See `operation`.
        state.stubborn -= usize::from(!self.durable.load(Ordering::Relaxed));
        bubble.note(&mut state, who, What::Wakes(self.number));
        match worker {
            Some(worker) if ptr::eq(worker.shared, state.home) => {
                state.ready.push_back((self.number, task.as_ptr()));
                bubble.queue(state, worker);
                true
            }
            _ => false,
        }
    }

    /// It parks, and was woken before it had left its worker.
    pub(crate) fn woken_before(&self, task: *mut Task) {
        let mut state = self.bubble.state.lock();
        state.active += 1;
        // Ordering: Relaxed. Its own.
        state.stubborn -= usize::from(!self.durable.load(Ordering::Relaxed));
        state.ready.push_back((self.number, task));
    }

    /// It lets all others go first.
    pub(crate) fn gives_way(&self) {
        let mut state = self.bubble.state.lock();
        if let Order::Pct { .. } = self.bubble.config.order {
            state.chooser.demote(self.number);
        }
    }

    /// It has switched out and wants to go on.
    pub(crate) fn yielded(&self, task: *mut Task) {
        // The worker still has the bubble in hand.
        self.bubble.state.lock().ready.push_back((self.number, task));
    }

    /// It has ended.
    pub(crate) fn ended(&self) {
        let bubble = &self.bubble;
        let mut state = bubble.state.lock();
        state.active -= 1;
        state.live -= 1;
        state.over |= self.number == 0;
        bubble.note(&mut state, self.number, What::Ends);
        let task = state.members.get_mut(self.number as usize).and_then(|member| member.task.take());
        let last = state.live == 0;
        if last && state.status == Status::Running {
            state.status = Status::Ended;
        }
        drop(state);
        drop(task);
        if last {
            bubble.settled.set();
        }
    }
}

impl std::fmt::Debug for Bubble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bubble").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_heap_of_timers_is_used_again_when_nobody_has_the_bubble_any_more() {
        let config = Config {
            explores: false,
            order: Order::Random,
            seed: 1,
            early_timers: false,
            steps_max: u64::MAX,
        };
        let first = Bubble::new(config, Box::new(()));
        first.close();
        // Its worker may look after it for another moment.
        let second = Bubble::new(config, Box::new(()));
        assert!(!ptr::eq(first.timers(), second.timers()));
    }
}

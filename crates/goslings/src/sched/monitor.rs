//! The monitor: one thread that looks at the workers twice in a slice, so that nobody starves behind a goroutine that
//! does not let go of its worker.
//!
//! A goroutine that has had its worker for a slice while others wait is asked to give it up, if its host can do
//! that. If it does not, or is in a foreign call, its worker is *away*: it does not count among those that start
//! goroutines, and a spare worker does (`Runtime::refresh_takers`), until the worker is back.
//!
//! **Invariants**
//! * It sleeps while all workers sleep. The worker that gets up first wakes it: the same protocol as between a
//!   worker and those who bring work (README.md), with the monitor as the sleeper and the worker as the work.
//! * What it reads of a worker are plain stores of that worker: hints, which may be a moment old.
//! * It attaches to the host only to ask or to warn, and never once `stop` has returned.
//! * A worker's host handle is used while `Monitor::handles` is held, or by the host itself with that worker stopped.

use super::Runtime;
use super::idle::Bed;
use super::worker::{Fresh, Shared};
use crate::clock::{self, Deadline, now};
use crate::futex;
use crate::host::host;
use crate::lock::{Mutex, Rank};
use crate::sync::{AtomicU32, Ordering, fence};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};

const LOOKING: u32 = 0;
const ASLEEP: u32 = 1;

const SLICE_NS: u64 = 10_000_000;
/// So often it looks in a slice: a goroutine has its worker for a slice and at most such a part of one more.
const LOOKS: u64 = 2;
/// How soon it looks again while goroutines wait to start and every worker is away: until there are enough spares,
/// which a few dozen looks bring about.
const HURRY_NS: u64 = 250_000;
/// So many times a goroutine is asked in vain before its worker counts as away.
const ASKS: u32 = 2;
/// So many slices at most it has for an answer if its thread does not get to compute, which is no reason for bringing
/// up another one.
const PATIENCE: u64 = 10;
/// After so many slices nobody is waited for any more, and others may be asked.
const ROUND: u64 = PATIENCE + 2;
/// So many times as long as the last requests slowed the program down, nobody is asked again; at most for so many slices.
const REST: u64 = 5;
const REST_SLICES: u64 = 2;

/// How long a goroutine may have its worker while others wait, in nanoseconds; 0: for ever.
static SLICE: AtomicU64 = AtomicU64::new(SLICE_NS);
/// From when on a goroutine that holds others up is reported, in nanoseconds; 0: never.
static WARN: AtomicU64 = AtomicU64::new(0);

pub(super) fn slice_ns() -> u64 {
    // Ordering: Relaxed. A setting; the next look reads it.
    SLICE.load(Ordering::Relaxed)
}

pub(super) fn set_slice_ns(slice: u64) {
    // Ordering: Relaxed. As above.
    SLICE.store(slice, Ordering::Relaxed);
}

pub(super) fn set_warn_ns(warn: u64) {
    // Ordering: Relaxed. As above.
    WARN.store(warn, Ordering::Relaxed);
}

/// What a worker and the monitor tell each other.
pub(crate) struct Watch {
    /// The number of the goroutine that runs; 0: none. Written by the worker.
    running: AtomicU64,
    /// Whether somebody who has started here is ready while another runs. Written by the worker.
    waiting: AtomicBool,
    /// The turn that is asked to end (see `Shared::turn`); 0: none. Written by the monitor, cleared by the worker.
    unwanted: AtomicU64,
    /// Since when one goroutine has had the worker, once that is a slice; 0: not so long. Written by the monitor.
    held_since: AtomicU64,
    /// Whether it is held such that somebody else should start goroutines. Written by the monitor.
    away: AtomicBool,
    /// Whether a goroutine has locked itself to the worker's thread: then no others start there. Written by the worker.
    locked: AtomicBool,
    /// What the host knows the worker by; 0: it has no thread.
    handle: AtomicUsize,
    /// The clock of the thread's own time.
    clock: AtomicI32,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch {
            running: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            unwanted: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
            away: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            handle: AtomicUsize::new(0),
            clock: AtomicI32::new(0),
        }
    }

    /// The worker turns to a goroutine, or (0) away from one.
    #[inline]
    pub(super) fn note_running(&self, goroutine: u64) {
        // Ordering: Relaxed. For the monitor, which may see it a moment late.
        self.running.store(goroutine, Ordering::Relaxed);
    }

    /// Whether somebody waits for the running goroutine to let go.
    #[inline]
    pub(super) fn note_waiting(&self, waiting: bool) {
        // Ordering: Relaxed. As above.
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// The worker's thread, which is the caller's, has started.
    pub(super) fn note_thread(&self, handle: usize) {
        // Ordering: Relaxed. Published by the handle.
        self.clock.store(clock::of_this_thread(), Ordering::Relaxed);
        self.set_handle(handle);
    }

    /// How long the thread has computed, in nanoseconds.
    fn computed_ns(&self) -> u64 {
        // Ordering: Relaxed. Read after the handle.
        clock::thread_ns(self.clock.load(Ordering::Relaxed))
    }

    fn set_handle(&self, handle: usize) {
        // Ordering: Release pairs with the Acquire in `handle`: the host has set the thread up.
        self.handle.store(handle, Ordering::Release);
    }

    fn handle(&self) -> usize {
        // Ordering: Acquire, as above.
        self.handle.load(Ordering::Acquire)
    }

    /// The request for that turn, if it is still there, is none any more.
    fn withdraw_request(&self, turn: u64) {
        // Ordering: Relaxed. The word alone counts.
        let _ = self.unwanted.compare_exchange(turn, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn running(&self) -> u64 {
        // Ordering: Relaxed. As in `note_running`.
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn is_away(&self) -> bool {
        // Ordering: Relaxed. Read under the lock under which it is acted upon; a moment late does no harm.
        self.away.load(Ordering::Relaxed)
    }

    pub(super) fn is_locked(&self) -> bool {
        // Ordering: Relaxed. As in `is_away`; the worker itself reads its own store.
        self.locked.load(Ordering::Relaxed)
    }

    pub(super) fn set_locked(&self, locked: bool) {
        // Ordering: Relaxed. As above.
        self.locked.store(locked, Ordering::Relaxed);
    }

    /// Since when one goroutine has held the worker, if that is long.
    fn held_since(&self) -> Option<Deadline> {
        // Ordering: Relaxed. For people to read.
        let since = self.held_since.load(Ordering::Relaxed);
        (since != 0).then_some(Deadline(since))
    }
}

impl Shared {
    /// Counts the goroutines that the worker has turned to; the number of the running one's turn. Never 0.
    #[inline]
    fn turn(&self) -> u64 {
        self.counts.switches.get() + 1
    }

    /// The running goroutine, which is the caller's, has heard the request.
    pub(super) fn forget_request(&self) {
        // Ordering: Relaxed. The word alone counts; a request that comes just after is heard next time.
        self.watch.unwanted.store(0, Ordering::Relaxed);
    }

    /// Whether the goroutine that runs here is asked to let the others run.
    pub(super) fn is_asked(&self) -> bool {
        // Ordering: Relaxed. The request is for one turn, by number: a stale one is told by that.
        let unwanted = self.watch.unwanted.load(Ordering::Relaxed);
        unwanted != 0 && unwanted == self.turn()
    }
}

/// A goroutine that holds its worker.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its number.
    pub goroutine: u64,
    /// For how long at least, in nanoseconds.
    pub held_ns: u64,
}

/// The part of the monitor that others see.
pub(crate) struct Monitor {
    /// What it sleeps on.
    word: AtomicU32,
    started: AtomicBool,
    /// Whether it is attached, or about to be.
    attaching: AtomicBool,
    /// Held while a handle of a worker is used; a worker whose thread ends takes it to withdraw its own.
    handles: Mutex<()>,
    longest_ns: AtomicU64,
    /// When a goroutine answered last. Written by workers.
    answered: AtomicU64,
}

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor {
            word: AtomicU32::new(LOOKING),
            started: AtomicBool::new(false),
            attaching: AtomicBool::new(false),
            handles: Mutex::new(Rank::Sched, ()),
            longest_ns: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// How many threads it is. It wakes no goroutine, so whether it sleeps does not matter.
    pub(super) fn threads(&self) -> usize {
        // Ordering: Relaxed. Once set it stays, but for the moment of a failure.
        usize::from(self.started.load(Ordering::Relaxed))
    }

    /// Starts the thread, unless it runs or nobody wants it.
    pub(super) fn start(&self, runtime: &'static Runtime) {
        // Ordering: Relaxed. A loser of the race sees true and leaves it to the winner.
        if slice_ns() == 0 || self.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let thread = std::thread::Builder::new()
            .name("goslings-monitor".into())
            .stack_size(512 * 1024)
            .spawn(move || Rounds::new(runtime).run());
        if thread.is_err() {
            // Without it everything works but that; the next worker tries again.
            // Ordering: Relaxed. As above.
            self.started.store(false, Ordering::Relaxed);
        }
    }

    /// A worker has got up, or a setting was changed. Call after that can be seen.
    #[inline]
    pub(crate) fn ring(&self) {
        // Ordering: SeqCst fence, pairs with the one in `doze`: either we see ASLEEP, or it sees a worker up.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. Ordered by the fence.
        if self.word.load(Ordering::Relaxed) == ASLEEP {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Ordering: Relaxed. The word carries no data.
        if self.word.swap(LOOKING, Ordering::Relaxed) == ASLEEP {
            futex::wake(&raw const self.word);
        }
    }

    /// Sleeps until somebody rings, unless one of `beds` is left.
    pub(crate) fn doze<'a>(&self, mut beds: impl Iterator<Item = &'a Bed>) {
        // Ordering: Relaxed, then a SeqCst fence that pairs with the one in `ring`.
        self.word.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if beds.all(Bed::is_taken) {
            // Ordering: Relaxed. What the looks read are hints anyway.
            while self.word.load(Ordering::Relaxed) == ASLEEP {
                futex::wait(&self.word, ASLEEP, None);
            }
        }
        // Ordering: Relaxed. Up: no ring needed.
        self.word.store(LOOKING, Ordering::Relaxed);
    }

    /// Runs `call`, which may attach to the host, unless the program is ending.
    fn attached(&self, runtime: &Runtime, call: impl FnOnce()) {
        // Ordering: Relaxed, then a SeqCst fence that pairs with the one in `leave_host`: either it sees us
        // attaching and waits, or we see that the program is ending.
        self.attaching.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !runtime.is_stopping() {
            call();
        }
        // Ordering: Release pairs with the Acquire in `leave_host`: the call is over.
        self.attaching.store(false, Ordering::Release);
    }

    /// The program is ending, as `is_stopping` says already: from the return on, nothing attaches here. To be
    /// called attached.
    pub(super) fn leave_host(&self) {
        // Ordering: SeqCst fence, pairs with the one in `attached`.
        fence(Ordering::SeqCst);
        // Ordering: Acquire, as there.
        while self.attaching.load(Ordering::Acquire) {
            super::yield_now();
        }
    }

    /// The worker's thread is about to end, attached: nobody uses its handle any more.
    #[expect(dead_code, reason = "for worker threads that end")]
    pub(super) fn withdraw(&self, watch: &Watch) {
        let _handles = self.handles.lock();
        watch.set_handle(0);
    }

    /// A goroutine has answered a request.
    pub(super) fn note_answer(&self) {
        // Ordering: Relaxed. A time, for the next look.
        self.answered.store(now().0, Ordering::Relaxed);
    }

    /// The longest time that a goroutine has been seen to hold a worker.
    pub(super) fn longest_ns(&self) -> u64 {
        // Ordering: Relaxed. A number for people to read.
        self.longest_ns.load(Ordering::Relaxed)
    }
}

/// The goroutines that hold their workers for longer than a slice now.
pub(super) fn held(runtime: &Runtime) -> Vec<Held> {
    let now = now().0;
    (0..runtime.worker_count())
        .filter_map(|index| {
            let watch = &runtime.worker(index)?.watch;
            let since = watch.held_since()?;
            let goroutine = watch.running();
            (goroutine != 0).then(|| Held { goroutine, held_ns: now.saturating_sub(since.0) })
        })
        .collect()
}

/// What the monitor remembers of a worker.
#[derive(Clone, Copy, Default)]
struct Look {
    goroutine: u64,
    turn: u64,
    since: u64,
    /// Whether others have waited for this goroutine.
    blamed: bool,
    warned: bool,
    asked: u32,
    /// When it was asked last, and how long its thread had computed by then.
    asked_at: u64,
    computed: u64,
}

/// The thread.
struct Rounds {
    runtime: &'static Runtime,
    looks: Vec<Look>,
    /// Whether the host may still have something set up for earlier requests.
    asked: bool,
    /// When the first of those was made.
    asked_since: u64,
    /// Until when nobody is asked.
    rests_until: u64,
}

/// What one look was for.
enum Todo {
    Nothing,
    Ask { handle: usize, times: u32 },
    Warn { handle: usize, goroutine: u64, held_ns: u64 },
}

impl Rounds {
    fn new(runtime: &'static Runtime) -> Rounds {
        Rounds { runtime, looks: Vec::new(), asked: false, asked_since: 0, rests_until: 0 }
    }

    fn run(mut self) {
        let monitor = &self.runtime.monitor;
        while !self.runtime.is_stopping() {
            let slice = slice_ns();
            if slice == 0 {
                // Switched off: until the setting changes.
                self.forget();
                monitor.doze(std::iter::empty());
                continue;
            }
            let pause = self.look(slice);
            let workers = (0..self.runtime.worker_count()).filter_map(|index| self.runtime.worker(index));
            if !self.asked {
                monitor.doze(workers.map(|shared| &shared.bed));
            }
            let deadline = Deadline(now().0 + pause);
            // A ring changes nothing while the word says LOOKING: this sleeps its time.
            futex::wait(&monitor.word, LOOKING, Some(deadline));
        }
    }

    /// Looks at every worker; returns after how many nanoseconds to look again.
    fn look(&mut self, slice: u64) -> u64 {
        let now = now();
        clock::note(now);
        let runtime = self.runtime;
        let count = runtime.worker_count();
        self.looks.resize(count, Look::default());
        // Goroutines wait to start, and nobody comes for them.
        let unserved = runtime.has_fresh() && runtime.idle.nobody_is_free();
        self.conclude(slice);
        let may_ask = !self.asked && now.0 >= self.rests_until;
        let mut changed = false;
        for index in 0..count {
            let Some(shared) = runtime.worker(index) else { continue };
            let away = shared.watch.is_away();
            let todo = self.look_at(index, shared, now.0, slice, unserved, may_ask);
            changed |= away != shared.watch.is_away();
            self.carry_out(index, todo);
        }
        self.conclude(slice);
        if changed {
            runtime.refresh_takers();
            if runtime.has_fresh() {
                // What was placed where nobody comes for it.
                runtime.work_for_anybody();
            }
        }
        // The spares may be held up in the same way: see soon whether they are.
        let hurry = unserved && runtime.takers() > runtime.procs() && runtime.takers() < super::PROCS_MAX;
        let pause = (slice / LOOKS).max(1);
        if hurry { pause.min(HURRY_NS) } else { pause }
    }

    /// Ends what the host has set up for requests, when nobody is asked any more.
    ///
    /// While it is set up, whoever runs the same code as those who are asked is slower. So those who hold workers are
    /// asked together, nobody else is asked before all of them have answered or cannot, and then there is a rest.
    fn conclude(&mut self, slice: u64) {
        let runtime = self.runtime;
        if !self.asked {
            return;
        }
        if runtime.anybody_is_asked() {
            if now().0 - self.asked_since < ROUND * slice {
                return;
            }
            // Whatever keeps that one from answering must not keep others from being asked.
            self.withdraw_all();
        }
        self.asked = false;
        runtime.monitor.attached(runtime, || host().interrupt_nobody());
        // Ordering: Relaxed. A time.
        let answered = runtime.monitor.answered.load(Ordering::Relaxed);
        let end = if answered > self.asked_since { answered } else { now().0 };
        self.rests_until = end + ((end - self.asked_since) * REST).min(slice * REST_SLICES);
    }

    fn look_at(
        &mut self,
        index: usize,
        shared: &'static Shared,
        now: u64,
        slice: u64,
        unserved: bool,
        may_ask: bool,
    ) -> Todo {
        let (watch, runtime) = (&shared.watch, self.runtime);
        let (goroutine, turn) = (watch.running(), shared.turn());
        let look = &mut self.looks[index];
        if goroutine == 0 || (goroutine, turn) != (look.goroutine, look.turn) {
            *look = Look { goroutine, turn, since: now, ..Look::default() };
            // Of an earlier turn, or of this one, before it was seen which goroutine has it.
            // Ordering: Relaxed. The word alone counts.
            watch.unwanted.store(0, Ordering::Relaxed);
            // Ordering: Relaxed. Written by this thread, read by people.
            watch.held_since.store(0, Ordering::Relaxed);
            // Ordering: Relaxed. See `is_away`.
            watch.away.store(false, Ordering::Relaxed);
            return Todo::Nothing;
        }
        let held = now - look.since;
        if held >= slice / LOOKS
            && let Some(net) = shared.bed.awaited_net()
        {
            // The worker would, if it were not held.
            net.look_instead();
        }
        let hurry = unserved && runtime.takers() > runtime.procs();
        if held < slice && !hurry {
            return Todo::Nothing;
        }
        let out = {
            let _handles = runtime.monitor.handles.lock();
            match watch.handle() {
                0 => false,
                handle => host().is_out(handle),
            }
        };
        let long = held >= slice;
        // Ordering: Relaxed. Hints.
        let waits_here =
            watch.waiting.load(Ordering::Relaxed) || !shared.inbox.is_empty() || !shared.placed.is_empty();
        if long {
            if let Some(handed) = shared.take_handed() {
                // It needs no stack that is kept here: let it run elsewhere.
                runtime.injector.push(Fresh(handed));
                runtime.work_for_anybody();
            }
            // Ordering: Relaxed. As above.
            watch.held_since.store(look.since, Ordering::Relaxed);
            // Ordering: Relaxed. Written by this thread only.
            runtime.monitor.longest_ns.fetch_max(held, Ordering::Relaxed);
            look.blamed |= unserved || waits_here;
        }
        let since_asked = now - look.asked_at;
        // It has had the chance to answer: a thread that did not get to compute has not.
        let in_vain = look.asked > 0
            && since_asked >= slice
            && (out || since_asked >= PATIENCE * slice || watch.computed_ns() >= look.computed + slice / 4);
        if in_vain {
            // Nobody is kept waiting for its answer.
            watch.withdraw_request(turn);
        }
        if out || (in_vain && look.asked >= ASKS) {
            // Ordering: Relaxed. See `is_away`.
            watch.away.store(true, Ordering::Relaxed);
        }
        let handle = watch.handle();
        // Ordering: Relaxed. A setting.
        let warn = WARN.load(Ordering::Relaxed);
        if look.blamed && !look.warned && warn != 0 && held >= warn {
            look.warned = true;
            return Todo::Warn { handle, goroutine, held_ns: held };
        }
        // Less and less often: it may not be able to.
        let due = look.asked == 0 || (in_vain && since_asked >= slice * u64::from(look.asked));
        if long && !out && due && may_ask && (unserved || waits_here) {
            look.asked += 1;
            look.asked_at = now;
            // Ordering: Relaxed. Seen by the goroutine when the host has interrupted it.
            watch.unwanted.store(turn, Ordering::Relaxed);
            return Todo::Ask { handle, times: look.asked };
        }
        Todo::Nothing
    }

    fn carry_out(&mut self, index: usize, todo: Todo) {
        let (runtime, monitor) = (self.runtime, &self.runtime.monitor);
        match todo {
            Todo::Nothing => {}
            Todo::Ask { handle, times } => {
                if !std::mem::replace(&mut self.asked, true) {
                    self.asked_since = now().0;
                }
                monitor.attached(runtime, || host().interrupt(handle, times));
                // To attach may have taken a while.
                let look = &mut self.looks[index];
                look.asked_at = now().0;
                look.computed = runtime.worker(index).map_or(0, |shared| shared.watch.computed_ns());
            }
            Todo::Warn { handle, goroutine, held_ns } => {
                monitor.attached(runtime, || host().warn_held(handle, goroutine, held_ns));
            }
        }
    }

    /// Nobody is asked any more.
    fn withdraw_all(&self) {
        for shared in (0..self.runtime.worker_count()).filter_map(|index| self.runtime.worker(index)) {
            // Ordering: Relaxed. As in `look_at`.
            shared.watch.unwanted.store(0, Ordering::Relaxed);
        }
    }

    /// Nobody is watched any more.
    fn forget(&mut self) {
        let runtime = self.runtime;
        self.looks.clear();
        for shared in (0..runtime.worker_count()).filter_map(|index| runtime.worker(index)) {
            // Ordering: Relaxed. As in `look_at`.
            shared.watch.held_since.store(0, Ordering::Relaxed);
            // Ordering: Relaxed. As in `look_at`.
            shared.watch.away.store(false, Ordering::Relaxed);
        }
        self.withdraw_all();
        if std::mem::take(&mut self.asked) {
            runtime.monitor.attached(runtime, || host().interrupt_nobody());
        }
        runtime.refresh_takers();
    }
}

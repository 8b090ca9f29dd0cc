//! Timers: a heap of moments, each with what happens then.
//!
//! **Invariants**
//! * An entry lives in its owner's frame or box, does not move while queued, and is removed by its owner
//!   before it dies. Heap and entries are touched only under the heap's lock.
//! * What an entry does at its time happens under that lock, so whoever has removed an entry knows that it
//!   neither is firing nor will. Firing claims a waiter or stores a tick: data only. Wakes, and functions
//!   to start, are collected and carried out after unlocking.
//! * `soonest` is the time of the heap's top, written under the lock; reading it without is a hint.
//!
//! A bubble has a heap of its own, which only the bubble fires, when it moves its clock.
//!
//! Who fires: workers look every few goroutines and when they run out of work; for the times when all are
//! asleep or busy there is one thread that sleeps until the next entry is due. It never attaches to the host.

use crate::clock::{self, Deadline, now};
use crate::futex;
use crate::lock::{Mutex, Rank};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::waiter::{Waiter, Wake};
use std::cell::Cell;
use std::marker::PhantomPinned;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

const NOT_QUEUED: usize = usize::MAX;
const NEVER: u64 = u64::MAX;
/// Children per heap node: four keep the tree flat and a node's children in one cache line.
const WIDTH: usize = 4;
/// How many entries one look fires before it lets go of the lock.
const BATCH: usize = 64;

/// What a timer that is no mere wake-up does at its time. Called under the heap's lock: store, claim,
/// count, but never wake, never call the host, never block.
pub trait Target: Send + Sync {
    /// `due` is when it was to happen.
    fn fire(&self, due: Deadline) -> Fired;

    /// Whether it would do something that somebody waits for, or run something. Called under the heap's lock.
    fn matters(&self) -> bool {
        true
    }
}

/// What is left to do after a timer fired, without the lock.
pub struct Fired(pub(crate) After);

impl std::fmt::Debug for Fired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fired")
    }
}

pub(crate) enum After {
    Nothing,
    Wake(Wake),
    Call(Box<dyn FnOnce() + Send>),
}

impl After {
    fn carry_out(self) {
        match self {
            After::Nothing => {}
            After::Wake(wake) => wake.wake(),
            After::Call(call) => call(),
        }
    }
}

impl Fired {
    /// Stores a tick into `chan`, dropping it if one is there already. For [`Chan::for_ticks`].
    ///
    /// [`Chan::for_ticks`]: crate::Chan::for_ticks
    pub fn tick<T>(chan: &crate::Chan<T>, tick: T) -> Fired {
        match chan.state().lock().send(tick) {
            crate::chan::Sent::Handed(wake) => Fired(After::Wake(wake)),
            _ => Fired(After::Nothing),
        }
    }

    /// Runs `call` soon, on whatever thread fires timers: it must be short and never touch the host.
    pub fn call(call: impl FnOnce() + Send + 'static) -> Fired {
        Fired(After::Call(Box::new(call)))
    }
}

enum Action {
    Wake(NonNull<Waiter>),
    Target(Arc<dyn Target>),
}

/// One timer.
pub(crate) struct Entry {
    when: Cell<u64>,
    /// Nanoseconds between two ticks; 0: once.
    period: Cell<u64>,
    place: Cell<usize>,
    action: Action,
    _pinned: PhantomPinned,
}

impl Entry {
    /// An entry that ends `waiter`'s wait.
    pub(crate) fn waking(at: Deadline, waiter: NonNull<Waiter>) -> Entry {
        Entry {
            when: Cell::new(at.0),
            period: Cell::new(0),
            place: Cell::new(NOT_QUEUED),
            action: Action::Wake(waiter),
            _pinned: PhantomPinned,
        }
    }
}

struct Heap(Vec<(u64, NonNull<Entry>)>);

// SAFETY: the entries are touched under the heap's lock only, and stay valid while queued.
unsafe impl Send for Heap {}

pub(crate) struct Timers {
    heap: Mutex<Heap>,
    soonest: AtomicU64,
    /// The clock thread sleeps on this word; it counts the times it was called.
    bell: AtomicU32,
    /// Until when the clock thread sleeps; 0: it is up.
    alarm: AtomicU64,
    /// Counts the times that the clock thread got up. For deadlock detection.
    rounds: AtomicU64,
    running: AtomicBool,
    /// Held by the clock thread while it fires, and by a forking thread: see `sched::before_fork`.
    gate: AtomicU32,
    /// Whether it belongs to a bubble: then no thread looks after it.
    of_bubble: bool,
}

/// Heaps of bubbles that are over: a timer may still know its heap, so they are never freed, but used again.
#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
static FREE: std::sync::Mutex<Vec<&'static Timers>> = std::sync::Mutex::new(Vec::new());

/// From so many timers that are due at the same time one is chosen at random.
const CHOICE: usize = 64;

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            of_bubble: false,
            heap: Mutex::new(Rank::Timers, Heap(Vec::new())),
            soonest: AtomicU64::new(NEVER),
            bell: AtomicU32::new(0),
            alarm: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            running: AtomicBool::new(false),
            gate: AtomicU32::new(0),
        }
    }

    /// An empty heap for a bubble.
    pub(crate) fn of_a_bubble() -> &'static Timers {
        let free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Box::leak(Box::new(Timers { of_bubble: true, ..Timers::new() })))
    }

    /// Forgets all entries: they will not fire.
    pub(crate) fn clear(&self) {
        let mut heap = self.heap.lock();
        while let Some(last) = heap.0.len().checked_sub(1) {
            heap.remove(last);
        }
        self.note_soonest(&heap);
    }

    /// A bubble's heap, empty, is free for another bubble.
    pub(crate) fn recycle(&'static self) {
        FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(self);
    }

    /// When the next entry is due.
    pub(crate) fn soonest(&self) -> Option<Deadline> {
        // Ordering: Relaxed. For bubbles, whose members enter timers while they run, and who asks when none does.
        let soonest = self.soonest.load(Ordering::Relaxed);
        (soonest != NEVER).then_some(Deadline(soonest))
    }

    /// Fires what is due at `time`, one after the other; of several `pick` chooses, given their number.
    pub(crate) fn fire_in_any_order(&self, time: Deadline, pick: impl Fn(usize) -> usize) {
        loop {
            let after = {
                let mut heap = self.heap.lock();
                let due = heap.due(time);
                if due.is_empty() {
                    return;
                }
                let after = heap.fire(due[pick(due.len())], time);
                self.note_soonest(&heap);
                after
            };
            after.carry_out();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.lock().0.len()
    }

    /// Queues `entry`.
    ///
    /// # Safety
    /// It stays in place, alive, until it has fired (if it has no period) or was removed.
    pub(crate) unsafe fn insert(&'static self, entry: &Entry) {
        {
            let mut heap = self.heap.lock();
            debug_assert_eq!(entry.place.get(), NOT_QUEUED, "queued twice");
            heap.push(entry.when.get(), NonNull::from(entry));
            self.note_soonest(&heap);
        }
        self.call_clock(entry.when.get());
    }

    /// Takes `entry` out; false if it is not queued (any more).
    pub(crate) fn remove(&self, entry: &Entry) -> bool {
        let mut heap = self.heap.lock();
        let place = entry.place.get();
        if place == NOT_QUEUED {
            return false;
        }
        heap.remove(place);
        self.note_soonest(&heap);
        true
    }

    /// Runs `change` with the heap locked, when `entry` is in it or not (its argument), and queues it for
    /// `next` afterwards: so that stopping, draining and starting anew are one step.
    ///
    /// # Safety
    /// As [`Timers::insert`].
    unsafe fn reset<R>(
        &'static self,
        entry: &Entry,
        next: Option<(Deadline, u64)>,
        change: impl FnOnce(bool) -> R,
    ) -> R {
        let result = {
            let mut heap = self.heap.lock();
            let place = entry.place.get();
            if place != NOT_QUEUED {
                heap.remove(place);
            }
            let result = change(place != NOT_QUEUED);
            if let Some((at, period)) = next {
                entry.when.set(at.0);
                entry.period.set(period);
                heap.push(at.0, NonNull::from(entry));
            }
            self.note_soonest(&heap);
            result
        };
        if let Some((at, _)) = next {
            self.call_clock(at.0);
        }
        result
    }

    fn note_soonest(&self, heap: &Heap) {
        let soonest = heap.0.first().map_or(NEVER, |top| top.0);
        // Ordering: Relaxed. A hint; the truth is under the lock.
        self.soonest.store(soonest, Ordering::Relaxed);
    }

    /// Fires what is due. Cheap if nothing is queued; else reads the clock.
    pub(crate) fn run_due(&self) {
        // Ordering: Relaxed. A hint: a timer that was just added is seen next time, or by the clock.
        let soonest = self.soonest.load(Ordering::Relaxed);
        if soonest != NEVER {
            let time = now();
            clock::note(time);
            if soonest <= time.0 {
                while self.fire_batch(now()) {}
            }
        }
    }

    /// Fires at most [`BATCH`] entries; returns whether more are due.
    fn fire_batch(&self, time: Deadline) -> bool {
        let mut after: [After; BATCH] = [const { After::Nothing }; BATCH];
        let mut count = 0;
        let more = {
            let mut heap = self.heap.lock();
            while count < BATCH && heap.0.first().is_some_and(|top| top.0 <= time.0) {
                after[count] = heap.fire(0, time);
                count += 1;
            }
            self.note_soonest(&heap);
            heap.0.first().is_some_and(|top| top.0 <= time.0)
        };
        for what in after {
            what.carry_out();
        }
        more
    }

    /// An entry for `when` was added: sees that the clock thread exists and does not oversleep it.
    fn call_clock(&'static self, when: u64) {
        if self.of_bubble {
            return;
        }
        // Ordering: Relaxed. Started once; a loser of the race sees true and goes on.
        if !self.running.load(Ordering::Relaxed) && !self.running.swap(true, Ordering::Relaxed) {
            let started = std::thread::Builder::new()
                .name("goslings-clock".into())
                .stack_size(128 * 1024)
                .spawn(move || self.clock());
            if started.is_err() {
                // Workers fire what they can; the next timer tries again.
                // Ordering: Relaxed. As above.
                self.running.store(false, Ordering::Relaxed);
            }
        }
        // Ordering: SeqCst fence, pairs with the one in `clock`: either we see its alarm and ring, or it
        // sees our entry in `soonest`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. Ordered by the fence.
        if self.alarm.load(Ordering::Relaxed) > when {
            // Ordering: Relaxed. Only the change of the word counts.
            self.bell.fetch_add(1, Ordering::Relaxed);
            futex::wake(&raw const self.bell);
        }
    }

    /// The clock thread: fires what nobody else does.
    fn clock(&self) -> ! {
        loop {
            // Ordering: Relaxed. If the bell rings from here on, the sleep below ends at once.
            let bell = self.bell.load(Ordering::Relaxed);
            // Ordering: Relaxed. Ordered by the fence below.
            self.alarm.store(NEVER, Ordering::Relaxed);
            // Ordering: SeqCst fence, pairs with the one in `call_clock`.
            fence(Ordering::SeqCst);
            // Ordering: Relaxed. Ordered by the fence.
            let soonest = self.soonest.load(Ordering::Relaxed);
            if soonest > now().0 {
                let deadline = (soonest != NEVER).then_some(Deadline(soonest));
                // Ordering: Relaxed. Lowering the alarm only saves rings; a ring for an entry between
                // the two stores is harmless.
                self.alarm.store(soonest, Ordering::Relaxed);
                futex::wait(&self.bell, bell, deadline);
            }
            // Ordering: Relaxed. We are up: no ring needed.
            self.alarm.store(0, Ordering::Relaxed);
            // Ordering: Release, after the store above and before anything fires, for `asleep`.
            self.rounds.fetch_add(1, Ordering::Release);
            self.close_gate();
            self.run_due();
            self.open_gate();
        }
    }

    /// Whether the clock thread sleeps, or there is none: how many threads that is; its number goes to `turns`. None
    /// if it is up. See deadlock.rs.
    pub(crate) fn asleep(&self, turns: &mut Vec<u64>) -> Option<usize> {
        // Ordering: Relaxed. Once set it stays.
        if !self.running.load(Ordering::Relaxed) {
            return Some(0);
        }
        // Ordering: Acquire. The number first: as in `Bed::asleep`.
        turns.push(self.rounds.load(Ordering::Acquire));
        // Ordering: Acquire, as above.
        (self.alarm.load(Ordering::Acquire) != 0).then_some(1)
    }

    /// Whether an entry is queued that will end somebody's wait, or run something.
    pub(crate) fn something_is_set(&self) -> bool {
        let heap = self.heap.lock();
        heap.0.iter().any(|(_, entry)| {
            // SAFETY: queued, hence valid.
            match unsafe { &entry.as_ref().action } {
                Action::Wake(_) => true,
                Action::Target(target) => target.matters(),
            }
        })
    }

    pub(crate) fn close_gate(&self) {
        // Ordering: Acquire pairs with the Release in `open_gate`: what was done inside is seen.
        while self.gate.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
    }

    pub(crate) fn open_gate(&self) {
        // Ordering: Release, as above.
        self.gate.store(0, Ordering::Release);
    }
}

impl Heap {
    fn push(&mut self, when: u64, entry: NonNull<Entry>) {
        self.0.push((when, entry));
        self.up(self.0.len() - 1);
    }

    fn remove(&mut self, place: usize) {
        let (_, entry) = self.0.swap_remove(place);
        // SAFETY: it was queued, hence valid.
        unsafe { entry.as_ref() }.place.set(NOT_QUEUED);
        if place < self.0.len() {
            self.down(place);
            self.up(place);
        }
    }

    /// The places of what is due at `time`, up to [`CHOICE`] of them.
    fn due(&self, time: Deadline) -> Vec<usize> {
        let is_due = |&place: &usize| self.0.get(place).is_some_and(|entry| entry.0 <= time.0);
        let mut due: Vec<usize> = std::iter::once(0).filter(is_due).collect();
        let mut seen = 0;
        // Whoever is due has a parent that is due.
        while seen < due.len() && due.len() < CHOICE {
            let first = due[seen] * WIDTH + 1;
            due.extend((first..first + WIDTH).filter(is_due));
            seen += 1;
        }
        due
    }

    /// Fires an entry that is due: takes it out, or moves it on by whole periods.
    fn fire(&mut self, place: usize, time: Deadline) -> After {
        let (when, entry) = self.0[place];
        // SAFETY: queued, hence valid.
        let entry = unsafe { entry.as_ref() };
        let period = entry.period.get();
        if let Some(missed) = (time.0 - when).checked_div(period) {
            let next = when + (missed + 1) * period;
            entry.when.set(next);
            self.0[place].0 = next;
            self.down(place);
        } else {
            // No period: once.
            self.remove(place);
        }
        match &entry.action {
            Action::Wake(waiter) => {
                // SAFETY: the waiter removes its entry before it goes, so it is still there.
                if unsafe { waiter.as_ref() }.claim_timeout() {
                    // SAFETY: we won it just now.
                    After::Wake(unsafe { Wake::new(*waiter) })
                } else {
                    After::Nothing
                }
            }
            Action::Target(target) => target.fire(Deadline(when)).0,
        }
    }

    fn set(&mut self, place: usize, item: (u64, NonNull<Entry>)) {
        self.0[place] = item;
        // SAFETY: queued, hence valid; `place` is guarded by the heap's lock.
        unsafe { item.1.as_ref() }.place.set(place);
    }

    fn up(&mut self, mut place: usize) {
        let item = self.0[place];
        while place > 0 {
            let parent = (place - 1) / WIDTH;
            if self.0[parent].0 <= item.0 {
                break;
            }
            self.set(place, self.0[parent]);
            place = parent;
        }
        self.set(place, item);
    }

    fn down(&mut self, mut place: usize) {
        let item = self.0[place];
        loop {
            let first = place * WIDTH + 1;
            let last = (first + WIDTH).min(self.0.len());
            let Some(least) = (first..last).min_by_key(|&child| self.0[child].0) else { break };
            if self.0[least].0 >= item.0 {
                break;
            }
            self.set(place, self.0[least]);
            place = least;
        }
        self.set(place, item);
    }
}

/// A timer with a target of its own: what `Timer`, `Ticker` and `after_func` are made of.
pub struct Timer {
    entry: Box<Entry>,
    /// The heap it was last set in: after a fork, that of the old runtime.
    home: AtomicPtr<Timers>,
}

// SAFETY: the entry is touched under the heap's lock only; its action is a Send + Sync target.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

impl Timer {
    /// A timer that is not set yet.
    #[must_use]
    pub fn new(target: Arc<dyn Target>) -> Timer {
        let entry = Entry {
            when: Cell::new(0),
            period: Cell::new(0),
            place: Cell::new(NOT_QUEUED),
            action: Action::Target(target),
            _pinned: PhantomPinned,
        };
        Timer { entry: Box::new(entry), home: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Stops the timer if it is set, runs `clean` (which says whether something was there to clean, such
    /// as an unread tick), and sets it to `next`, with a period in nanoseconds or 0: all in one step, in
    /// which nothing can fire. Returns whether it was set or `clean` said yes.
    pub fn reset(&self, next: Option<(Deadline, u64)>, clean: impl FnOnce() -> bool) -> bool {
        let timers = crate::sched::timers();
        // Ordering: Relaxed. The heap's lock orders what matters; runtimes change only in a forked child,
        // which has one thread then.
        let home = self.home.swap(std::ptr::from_ref(timers).cast_mut(), Ordering::Relaxed);
        if !std::ptr::eq(home, timers) {
            // SAFETY: null, or the heap of a runtime; these are never freed.
            if let Some(old) = unsafe { home.as_ref() } {
                old.remove(&self.entry);
            }
        }
        // SAFETY: the entry is in a box that `drop` removes from the heap first.
        unsafe {
            timers.reset(&self.entry, next, |was_set| {
                let cleaned = clean();
                was_set || cleaned
            })
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: as in `reset`.
        if let Some(timers) = unsafe { self.home.get_mut().as_ref() } {
            timers.remove(&self.entry);
        }
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

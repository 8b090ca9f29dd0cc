//! What a goroutine is to run, what it runs, how it has ended: one after the other, in one place of its handle.
//!
//! **Invariants**
//! * The phase is written by its *runner* only: the worker that runs the goroutine, or whoever has taken `unstarted`
//!   away. Runners follow each other; the run queues order what they do.
//! * It is written under the lock. So the runner reads it without the lock, and anybody else with it.
//! * `End` is the last phase: once `ended` is set, nobody writes it any more, and anybody reads it.
//! * Under the lock data is moved, and nothing called or dropped.

use crate::coroutine::Coroutine;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTraceback, PyTuple};
use std::cell::UnsafeCell;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a goroutine is to run.
pub(crate) struct Start {
    pub(crate) function: Py<PyAny>,
    pub(crate) args: Py<PyTuple>,
    pub(crate) kwargs: Option<Py<PyDict>>,
    /// A copy of the starter's context; None if it had none.
    pub(crate) context: Option<Py<PyAny>>,
}

/// How it ended.
pub(crate) enum End {
    Returned(Kept),
    /// With its traceback as it was then: who raises it again adds to it.
    Raised(Py<PyBaseException>, Option<Py<PyTraceback>>),
    /// With the message given to `cancel`.
    Cancelled(Kept),
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type KeptLock = std::sync::Mutex<Option<Py<PyAny>>>;

/// An object that the collector may take away, to break a cycle through it.
pub(crate) struct Kept(KeptLock);

impl Kept {
    pub(crate) fn new(object: Option<Py<PyAny>>) -> Kept {
        Kept(KeptLock::new(object))
    }

    pub(crate) fn get(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|object| object.clone_ref(py))
    }

    fn take(&self) -> Option<Py<PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock() {
            Ok(object) => visit.call(&*object),
            Err(_) => Ok(()),
        }
    }
}

/// Where a goroutine is in its life.
pub(crate) enum Phase {
    /// Not begun; or, with a stack, running: the call borrows from here.
    Start(Start),
    /// Begun, without a stack.
    Coroutine(Coroutine),
    /// Between two of the others.
    Nothing,
    End(End),
}

/// What few goroutines have.
#[derive(Default)]
pub(crate) struct Rare {
    pub(crate) cancel_message: Option<Py<PyAny>>,
    pub(crate) name: Option<Py<PyString>>,
    pub(crate) callbacks: Vec<Py<PyAny>>,
}

/// What is asked of it.
#[derive(Clone, Copy, Default)]
struct Flags {
    /// Made by `prepare`, and neither started nor cancelled yet.
    unstarted: bool,
    cancel_requested: bool,
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type FlagsLock = std::sync::Mutex<Flags>;
type FlagsGuard<'a> = std::sync::MutexGuard<'a, Flags>;

/// The life of a goroutine.
pub(crate) struct Life {
    flags: FlagsLock,
    rare: UnsafeCell<Option<Box<Rare>>>,
    phase: UnsafeCell<Phase>,
    ended: AtomicBool,
}

// SAFETY: `rare` is touched under the lock only, `phase` as the invariants say; what they hold may be sent and shared.
unsafe impl Sync for Life {}

/// A life, locked.
pub(crate) struct Locked<'a> {
    flags: FlagsGuard<'a>,
    life: &'a Life,
}

impl Life {
    pub(crate) fn new(start: Start) -> Life {
        Life {
            flags: FlagsLock::new(Flags::default()),
            rare: UnsafeCell::new(None),
            phase: UnsafeCell::new(Phase::Start(start)),
            ended: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { flags: self.flags.lock().unwrap_or_else(PoisonError::into_inner), life: self }
    }

    /// The same for the collector, which waits for nobody.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked { flags: self.flags.try_lock().ok()?, life: self })
    }

    /// How it has ended, if it has.
    #[inline]
    pub(crate) fn end(&self) -> Option<&End> {
        if !self.has_ended() {
            return None;
        }
        // SAFETY: once `ended` is set nobody writes.
        match unsafe { &*self.phase.get() } {
            Phase::End(end) => Some(end),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `finish`: the end is seen.
        self.ended.load(Ordering::Acquire)
    }

    /// The coroutine of one without a stack that has begun and not ended.
    ///
    /// # Safety
    /// The caller is the runner, or the world stands still; the reference is not used after the next change of phase.
    #[inline]
    pub(crate) unsafe fn coroutine(&self) -> Option<&Coroutine> {
        // SAFETY: by the contract nobody writes meanwhile.
        match unsafe { &*self.phase.get() } {
            Phase::Coroutine(coroutine) => Some(coroutine),
            _ => None,
        }
    }

    /// Changes the phase; the caller drops what it gets.
    ///
    /// # Safety
    /// The caller is the runner, and it has not ended.
    #[inline]
    pub(crate) unsafe fn turn(&self, next: Phase) -> Phase {
        let _lock = self.lock();
        // SAFETY: by the contract nobody else writes; readers have the lock.
        unsafe { std::mem::replace(&mut *self.phase.get(), next) }
    }

    /// It ends. The caller drops the phase that it gets, and calls those who asked for that.
    ///
    /// # Safety
    /// As [`turn`](Life::turn).
    pub(crate) unsafe fn finish(&self, end: End) -> (Phase, Vec<Py<PyAny>>) {
        let mut lock = self.lock();
        let callbacks = lock.rare_if_any().map_or_else(Vec::new, |rare| std::mem::take(&mut rare.callbacks));
        // SAFETY: by the contract nobody else writes; readers have the lock.
        let before = unsafe { std::mem::replace(&mut *self.phase.get(), Phase::End(end)) };
        // Ordering: Release pairs with the Acquire in `has_ended`.
        self.ended.store(true, Ordering::Release);
        (before, callbacks)
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(mut lock) = self.try_lock() else { return Ok(()) };
        if let Some(rare) = lock.rare_if_any() {
            visit.call(&rare.cancel_message)?;
            for callback in &rare.callbacks {
                visit.call(callback)?;
            }
        }
        match lock.phase() {
            Phase::Start(start) => {
                visit.call(&start.function)?;
                visit.call(&start.args)?;
                visit.call(&start.kwargs)?;
                visit.call(&start.context)
            }
            Phase::Coroutine(coroutine) => coroutine.visit(visit),
            Phase::Nothing => Ok(()),
            Phase::End(End::Returned(kept) | End::Cancelled(kept)) => kept.visit(visit),
            Phase::End(End::Raised(error, traceback)) => {
                visit.call(error)?;
                visit.call(traceback)
            }
        }
    }

    /// Breaks any cycle through it. Exceptions can be cleared themselves: enough for those through one.
    pub(crate) fn clear(&self) {
        if let Some(End::Returned(kept) | End::Cancelled(kept)) = self.end() {
            drop(kept.take());
        }
    }
}

impl Locked<'_> {
    pub(crate) fn phase(&self) -> &Phase {
        // SAFETY: locked, so nobody writes.
        unsafe { &*self.life.phase.get() }
    }

    pub(crate) fn start(&self) -> Option<&Start> {
        match self.phase() {
            Phase::Start(start) => Some(start),
            _ => None,
        }
    }

    /// What few goroutines have, if this one does.
    pub(crate) fn rare_if_any(&mut self) -> Option<&mut Rare> {
        // SAFETY: locked, and `self` is borrowed as long as what it gives.
        unsafe { &mut *self.life.rare.get() }.as_deref_mut()
    }

    /// The same; now it does.
    pub(crate) fn rare(&mut self) -> &mut Rare {
        // SAFETY: as above.
        unsafe { &mut *self.life.rare.get() }.get_or_insert_default()
    }

    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.flags.cancel_requested
    }

    pub(crate) fn request_cancel(&mut self) {
        self.flags.cancel_requested = true;
    }

    pub(crate) fn set_unstarted(&mut self) {
        self.flags.unstarted = true;
    }

    /// Whether it was still to be started. The caller, who starts or ends it, is its runner now.
    pub(crate) fn take_unstarted(&mut self) -> bool {
        std::mem::take(&mut self.flags.unstarted)
    }
}

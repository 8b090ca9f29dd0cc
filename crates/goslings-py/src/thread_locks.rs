//! The locks that `goslings.patch` gives to `threading` and `_thread`, and who somebody is to them.
//!
//! They look like `_thread.lock` and `_thread.RLock`, down to the texts of errors. A goroutine that has to wait parks;
//! whoever cannot park (a plain thread, a goroutine without a stack) sleeps, as with the originals: such a wait is not
//! one of ours, so it is not looked at for deadlocks.

use crate::bubble::{On, operation};
use crate::errors;
use crate::timeout::seconds;
use goslings::{Task, Wait, WaitError};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::atomic::{AtomicU64, Ordering};

/// As `threading.TIMEOUT_MAX`, in seconds.
const SECONDS_MAX: f64 = 9_223_372_036.0;

/// Tells goroutines and threads apart: goroutines have odd numbers, threads the addresses that they always had.
pub(crate) fn ident() -> u64 {
    goslings::with_current(|task| task.map(Task::id)).map_or_else(thread_ident, |id| 2 * id + 1)
}

fn thread_ident() -> u64 {
    // SAFETY of the binding: PyThread_get_thread_ident gives pthread_self.
    crate::host::thread_ident()
}

/// get_ident(): a number that no other living thread or goroutine has.
#[pyfunction]
pub(crate) fn get_ident() -> u64 {
    ident()
}

/// What `acquire(blocking, timeout)` asks for.
fn how_long(blocking: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
    let Some(timeout) = timeout else { return Ok(if blocking { Wait::Forever } else { Wait::No }) };
    if timeout.is_none() {
        return Err(PyTypeError::new_err("'NoneType' object cannot be interpreted as an integer"));
    }
    let seconds = seconds(timeout, "timeout")?;
    if seconds == -1.0 {
        return Ok(if blocking { Wait::Forever } else { Wait::No });
    }
    if !blocking {
        return Err(PyValueError::new_err("can't specify a timeout for a non-blocking call"));
    }
    if seconds < 0.0 {
        return Err(PyValueError::new_err("timeout value must be a non-negative number"));
    }
    if seconds > SECONDS_MAX {
        return Err(PyOverflowError::new_err("timeout value is too large"));
    }
    Ok(crate::timeout::from_seconds(seconds))
}

/// Whether `mutex` was locked in time.
fn lock(py: Python<'_>, mutex: &goslings::Mutex, wait: Wait) -> PyResult<bool> {
    match wait {
        Wait::No => Ok(mutex.try_lock()),
        wait => match goslings::outside(|| mutex.lock(wait)) {
            Ok(()) => Ok(true),
            Err(WaitError::TimedOut) => Ok(false),
            Err(error) => Err(errors::wait(py, error, "acquire")),
        },
    }
}

/// A lock object is a synchronization primitive: `threading.Lock`, in goroutines, too.
///
/// A lock is not owned by who locked it; another thread or goroutine may unlock it.
#[pyclass(name = "lock", module = "_thread", frozen, weakref)]
pub(crate) struct ThreadLock {
    mutex: goslings::Mutex,
}

#[pymethods]
impl ThreadLock {
    #[new]
    fn new() -> ThreadLock {
        ThreadLock { mutex: goslings::Mutex::new() }
    }

    /// Locks it; returns whether that was possible in time.
    ///
    /// Without an argument this waits until it can. A `timeout` of -1 is none.
    #[pyo3(signature = (blocking = true, timeout = None))]
    fn acquire(&self, py: Python<'_>, blocking: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        operation(py, "threading.Lock.acquire", On::Anything)?;
        lock(py, &self.mutex, how_long(blocking, timeout)?)
    }

    /// An obsolete synonym of acquire().
    #[pyo3(signature = (blocking = true, timeout = None))]
    fn acquire_lock(
        &self,
        py: Python<'_>,
        blocking: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        self.acquire(py, blocking, timeout)
    }

    /// Unlocks it. Raises RuntimeError if it is not locked.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "threading.Lock.release", On::Anything)?;
        self.mutex.unlock().map_err(|_| PyRuntimeError::new_err("release unlocked lock"))
    }

    /// An obsolete synonym of release().
    fn release_lock(&self, py: Python<'_>) -> PyResult<()> {
        self.release(py)
    }

    /// Whether it is locked.
    fn locked(&self) -> bool {
        self.mutex.is_locked()
    }

    /// An obsolete synonym of locked().
    fn locked_lock(&self) -> bool {
        self.locked()
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, true, None)
    }

    #[pyo3(signature = (*_exc_info))]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.release(py)
    }

    /// In a forked child: it is unlocked, whoever had it.
    fn _at_fork_reinit(&self) {
        self.mutex.reinit();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let state = if slf.get().locked() { "locked" } else { "unlocked" };
        format!("<{state} _thread.lock object at {:p}>", slf.as_ptr())
    }
}

/// A lock that its owner, a thread or a goroutine, may lock again: `threading.RLock`, in goroutines, too.
#[pyclass(name = "RLock", module = "_thread", frozen, weakref, subclass)]
pub(crate) struct ThreadRLock {
    mutex: goslings::Mutex,
    /// Who has locked it; 0: nobody. Written by the owner alone.
    owner: AtomicU64,
    /// How often the owner has. Touched by the owner alone, and by those who print it.
    count: AtomicU64,
}

impl ThreadRLock {
    fn is_mine(&self) -> bool {
        // Ordering: Relaxed. Only who asks could have written its own number.
        self.owner.load(Ordering::Relaxed) == ident()
    }

    fn own(&self, owner: u64, count: u64) {
        // Ordering: Relaxed. The mutex orders what owners do one after the other.
        self.count.store(count, Ordering::Relaxed);
        // Ordering: Relaxed. As above.
        self.owner.store(owner, Ordering::Relaxed);
    }

    fn level(&self) -> u64 {
        // Ordering: Relaxed. The owner's own, or for people to read.
        self.count.load(Ordering::Relaxed)
    }

    fn must_be_mine(&self) -> PyResult<()> {
        match self.is_mine() {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err("cannot release un-acquired lock")),
        }
    }

    fn unlock(&self) {
        self.own(0, 0);
        let unlocked = self.mutex.unlock();
        debug_assert_eq!(unlocked, Ok(()), "somebody had it");
    }
}

#[pymethods]
impl ThreadRLock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> ThreadRLock {
        ThreadRLock { mutex: goslings::Mutex::new(), owner: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Locks it, once more if the caller has it already; returns whether that was possible in time.
    ///
    /// Without an argument this waits until it can. A `timeout` of -1 is none.
    #[pyo3(signature = (blocking = true, timeout = None))]
    fn acquire(&self, py: Python<'_>, blocking: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let wait = how_long(blocking, timeout)?;
        operation(py, "threading.RLock.acquire", On::Anything)?;
        if self.is_mine() {
            self.own(ident(), self.level() + 1);
            return Ok(true);
        }
        let locked = lock(py, &self.mutex, wait)?;
        if locked {
            self.own(ident(), 1);
        }
        Ok(locked)
    }

    /// Undoes one acquire(). Raises RuntimeError if the caller does not have it.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "threading.RLock.release", On::Anything)?;
        self.must_be_mine()?;
        match self.level() {
            1 => self.unlock(),
            level => self.own(ident(), level - 1),
        }
        Ok(())
    }

    /// Whether it is locked by anybody.
    fn locked(&self) -> bool {
        self.mutex.is_locked()
    }

    /// Whether the caller has it.
    fn _is_owned(&self) -> bool {
        self.is_mine()
    }

    /// How often the caller has locked it.
    fn _recursion_count(&self) -> u64 {
        if self.is_mine() { self.level() } else { 0 }
    }

    /// For internal use by `threading.Condition`.
    fn _release_save(&self) -> PyResult<(u64, u64)> {
        self.must_be_mine()?;
        let state = (self.level(), ident());
        self.unlock();
        Ok(state)
    }

    /// For internal use by `threading.Condition`.
    fn _acquire_restore(&self, py: Python<'_>, state: (u64, u64)) -> PyResult<()> {
        lock(py, &self.mutex, Wait::Forever)?;
        self.own(state.1, state.0);
        Ok(())
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, true, None)
    }

    #[pyo3(signature = (*_exc_info))]
    fn __exit__(&self, py: Python<'_>, _exc_info: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.release(py)
    }

    /// In a forked child: it is unlocked, whoever had it.
    fn _at_fork_reinit(&self) {
        self.own(0, 0);
        self.mutex.reinit();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let state = if this.locked() { "locked" } else { "unlocked" };
        let kind = slf.get_type();
        let module: String = kind.getattr("__module__")?.extract()?;
        // Ordering: Relaxed. For people to read.
        let owner = this.owner.load(Ordering::Relaxed);
        let (name, count, at) = (kind.qualname()?, this.level(), slf.as_ptr());
        Ok(format!("<{state} {module}.{name} object owner={owner} count={count} at {at:p}>"))
    }
}

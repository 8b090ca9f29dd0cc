//! `Mutex`.

use crate::awaitable::Awaitable;
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::{Wait, polled};
use pyo3::prelude::*;
use std::sync::Arc;

/// A mutual exclusion lock for goroutines and threads alike; not reentrant, and any goroutine may unlock it.
///
/// As a context manager it locks and unlocks. Waiters are served in order; a newcomer may be quicker until the
/// first of them has waited for a millisecond. Go: `sync.Mutex`.
#[pyclass(name = "Mutex", module = "goslings", frozen, weakref)]
pub(crate) struct PyMutex {
    pub(crate) mutex: Arc<goslings::Mutex>,
}

/// Locks when awaited, and answers `gives`.
pub(crate) fn locking(mutex: &Arc<goslings::Mutex>, wait: Wait, gives: Py<PyAny>) -> Awaitable {
    let wanted = Arc::clone(mutex);
    let unlock = |mutex: &goslings::Mutex| {
        let unlocked = mutex.unlock();
        debug_assert_eq!(unlocked, Ok(()), "locked just now");
    };
    Awaitable::locking(move |caller| polled::lock(wanted, wait, caller), Arc::clone(mutex), gives, unlock)
        .about("Mutex.alock", On::Anything)
}

impl PyMutex {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.mutex)
    }

    /// Locks, where the caller may wait.
    #[inline]
    pub(crate) fn lock_here(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Mutex.lock", On::Anything)?;
        self.mutex.lock(Wait::Forever).map_err(|error| errors::wait(py, error, "lock"))
    }

    #[inline]
    pub(crate) fn unlock_here(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Mutex.unlock", On::Anything)?;
        self.mutex.unlock().map_err(|_| errors::misuse("unlock of unlocked Mutex"))
    }
}

#[pymethods]
impl PyMutex {
    #[new]
    fn new() -> PyMutex {
        PyMutex { mutex: Arc::new(goslings::Mutex::new()) }
    }

    /// Locks. Blocks while somebody else holds it, at most `timeout` seconds; then raises TimeoutError.
    #[pyo3(signature = (timeout = None))]
    fn lock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        operation(py, "Mutex.lock", On::Anything)?;
        may_block(py, "mutex.alock()")?;
        self.mutex.lock(wait(timeout)?).map_err(|error| errors::wait(py, error, "lock"))
    }

    /// Locks wherever it is called, also in a coroutine, which then holds up others: for imports.
    fn _lock_here(&self, py: Python<'_>) -> PyResult<()> {
        self.mutex.lock(Wait::Forever).map_err(|error| errors::wait(py, error, "lock"))
    }

    /// alock(timeout=None): as `lock`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn alock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Ok(locking(&self.mutex, wait(timeout)?, py.None()))
    }

    /// Locks if nobody holds it; returns whether it did. Never blocks.
    fn try_lock(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Mutex.try_lock", On::Anything)?;
        Ok(self.mutex.try_lock())
    }

    /// Unlocks. Never blocks. Raises RuntimeError if it is not locked.
    fn unlock(&self, py: Python<'_>) -> PyResult<()> {
        self.unlock_here(py)
    }

    /// Whether somebody holds it.
    fn locked(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Mutex.locked", On::Anything)?;
        Ok(self.mutex.is_locked())
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().lock(slf.py(), None)?;
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.unlock(py)
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Awaitable {
        let gives = slf.clone().into_any().unbind();
        locking(&slf.get().mutex, Wait::Forever, gives)
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.unlock(py)?;
        Ok(Awaitable::nothing())
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Mutex"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Mutex"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Mutex"))
    }
}

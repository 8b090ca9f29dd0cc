//! `Mutex`.

use crate::bubble::{On, operation};
use crate::errors;
use crate::timeout::wait;
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
        self.mutex.lock(wait(timeout)?).map_err(|error| errors::wait(py, error, "lock"))
    }

    /// Locks if nobody holds it; returns whether it did. Never blocks.
    fn try_lock(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Mutex.try_lock", On::Anything)?;
        Ok(self.mutex.try_lock())
    }

    /// Unlocks. Never blocks. Raises RuntimeError if it is not locked.
    fn unlock(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Mutex.unlock", On::Anything)?;
        self.mutex.unlock().map_err(|_| errors::misuse("unlock of unlocked Mutex"))
    }

    /// Whether somebody holds it.
    fn locked(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Mutex.locked", On::Anything)?;
        Ok(self.mutex.is_locked())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().lock(slf.py(), None)?;
        Ok(slf)
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

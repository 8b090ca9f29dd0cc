//! `Cond`.

use crate::awaitable::{Awaitable, Both};
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::mutex::PyMutex;
use crate::timeout::wait;
use goslings::{CondError, polled};
use pyo3::prelude::*;
use pyo3::types::PyBool;
use std::sync::Arc;

/// Cond(mutex): a place to wait, with `mutex` held, for a change announced by others.
///
/// Never wakes by itself; `notify` wakes the longest waiter. As a context manager it locks the mutex.
/// Go: `sync.Cond`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Cond {
    cond: Arc<goslings::Cond>,
    mutex: Py<PyMutex>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

fn notified(py: Python<'_>, answer: Result<(), CondError>) -> PyResult<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(CondError::NotLocked) => Err(errors::misuse("Cond.wait with its Mutex unlocked")),
        Err(CondError::Wait(error)) => errors::waited(py, Err(error)),
    }
}

impl Cond {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.cond)
    }
}

#[pymethods]
impl Cond {
    #[new]
    fn new(mutex: Py<PyMutex>) -> Cond {
        Cond { cond: Arc::new(goslings::Cond::new()), mutex, made: goslings::bubble::current_id() }
    }

    /// Unlocks the mutex, waits to be notified, and locks it again; returns whether that came within
    /// `timeout` seconds.
    ///
    /// The mutex is locked on return in every case. Raises RuntimeError if it was not locked.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        operation(py, "Cond.wait", On::Made(self.made))?;
        may_block(py, "cond.await_()")?;
        notified(py, self.cond.wait(&self.mutex.get().mutex, wait(timeout)?))
    }

    /// await_(timeout=None): as `wait`, awaited. A task that is cancelled in it has the mutex locked.
    #[pyo3(signature = (timeout = None))]
    fn await_(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (cond, mutex, wait) =
            (Arc::clone(&self.cond), Arc::clone(&self.mutex.get().mutex), wait(timeout)?);
        let kept = (Both(Arc::clone(&cond)), Arc::downgrade(&mutex));
        Ok(Awaitable::keeping(
            move |caller| polled::await_cond(cond, mutex, wait, caller),
            kept,
            |_kept, py, answer| {
                notified(py, answer).map(|in_time| PyBool::new(py, in_time).to_owned().into_any().unbind())
            },
            |(cond, _), answer| {
                if answer.is_ok() {
                    // Notified in vain: the next one is notified instead.
                    cond.0.notify_one();
                }
                None
            },
        )
        .about("Cond.await_", On::Made(self.made)))
    }

    /// Wakes the one that has waited longest, if anybody waits. Never blocks.
    fn notify(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Cond.notify", On::Made(self.made))?;
        self.cond.notify_one();
        Ok(())
    }

    /// Wakes all that wait now. Never blocks.
    fn notify_all(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Cond.notify_all", On::Made(self.made))?;
        self.cond.notify_all();
        Ok(())
    }

    /// The mutex given at the start.
    #[getter]
    fn mutex(&self, py: Python<'_>) -> Py<PyMutex> {
        self.mutex.clone_ref(py)
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().mutex.bind(slf.py()).call_method0("lock")?;
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        operation(py, "Mutex.unlock", On::Anything)?;
        self.mutex.get().mutex.unlock().map_err(|_| errors::misuse("unlock of unlocked Mutex"))
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Awaitable {
        let gives = slf.clone().into_any().unbind();
        crate::mutex::locking(&slf.get().mutex.get().mutex, goslings::Wait::Forever, gives)
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        type_: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        tb: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.__exit__(py, type_, value, tb)?;
        Ok(Awaitable::nothing())
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Cond"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Cond"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Cond"))
    }
}

//! `WaitGroup`.

use crate::awaitable::Awaitable;
use crate::bubble::{On, operation};
use crate::errors;
use crate::goroutine::{Goroutine, launch};
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::polled;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// Waits for a number of goroutines to be done. Reusable once all are. Go: `sync.WaitGroup`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct WaitGroup {
    group: Arc<goslings::WaitGroup>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

impl WaitGroup {
    /// The runtime's object behind it.
    pub(crate) fn counter(&self) -> Arc<goslings::WaitGroup> {
        Arc::clone(&self.group)
    }
}

impl WaitGroup {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.group)
    }
}

#[pymethods]
impl WaitGroup {
    #[new]
    fn new() -> WaitGroup {
        WaitGroup { group: Arc::new(goslings::WaitGroup::new()), made: goslings::bubble::current_id() }
    }

    /// Adds `n`, which may be negative, to the counter. Never blocks. Raises RuntimeError if that takes it
    /// below zero.
    #[pyo3(signature = (n = 1))]
    fn add(&self, py: Python<'_>, n: i64) -> PyResult<()> {
        operation(py, "WaitGroup.add", On::Made(self.made))?;
        self.group.add(n).map_err(|_| errors::misuse("negative WaitGroup counter"))
    }

    /// Takes one off the counter. Never blocks. Raises RuntimeError below zero.
    fn done(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "WaitGroup.done", On::Made(self.made))?;
        self.group.done().map_err(|_| errors::misuse("negative WaitGroup counter"))
    }

    /// Waits until the counter is zero; returns whether that came within `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        operation(py, "WaitGroup.wait", On::Made(self.made))?;
        may_block(py, "group.await_()")?;
        errors::waited(py, self.group.wait(wait(timeout)?))
    }

    /// await_(timeout=None): as `wait`, awaited. `await group` is the same without a timeout.
    #[pyo3(signature = (timeout = None))]
    fn await_(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (group, wait) = (Arc::clone(&self.group), wait(timeout)?);
        let kept = Arc::downgrade(&group);
        let waiting = Awaitable::waiting(move |caller| polled::await_wait_group(group, wait, caller), kept);
        Ok(waiting.about("WaitGroup.await_", On::Made(self.made)))
    }

    fn __await__(&self) -> PyResult<Awaitable> {
        self.await_(None)
    }

    /// Starts `fn(*args, **kwargs)` as a goroutine that counts here until it ends, however it ends.
    #[pyo3(signature = (r#fn, /, *args, **kwargs))]
    fn go(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        kwargs: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<Goroutine>> {
        launch(py, r#fn, args, kwargs, Some(Arc::clone(&self.group)))
    }

    /// The counter.
    #[getter]
    fn count(&self) -> i64 {
        self.group.count()
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("WaitGroup"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("WaitGroup"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("WaitGroup"))
    }
}

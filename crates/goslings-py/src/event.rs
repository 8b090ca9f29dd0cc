//! `Event`.

use crate::awaitable::Awaitable;
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::polled;
use pyo3::prelude::*;
use std::sync::Arc;

/// A flag that can be waited for; as `threading.Event`, for goroutines and threads alike.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Event {
    event: Arc<goslings::Event>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

impl Event {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.event)
    }
}

#[pymethods]
impl Event {
    #[new]
    fn new() -> Event {
        Event { event: Arc::new(goslings::Event::new()), made: goslings::bubble::current_id() }
    }

    /// Sets the flag and wakes all who wait. Never blocks.
    fn set(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Event.set", On::Anything)?;
        self.event.set();
        Ok(())
    }

    /// Clears the flag. Never blocks.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Event.clear", On::Anything)?;
        self.event.clear();
        Ok(())
    }

    /// Whether the flag is set.
    fn is_set(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Event.is_set", On::Anything)?;
        Ok(self.event.is_set())
    }

    /// Waits until the flag is set; returns whether that came within `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        operation(py, "Event.wait", On::Shared(self.made))?;
        may_block(py, "event.await_()")?;
        errors::waited(py, self.event.wait(wait(timeout)?))
    }

    /// await_(timeout=None): as `wait`, awaited. `await event` is the same without a timeout.
    #[pyo3(signature = (timeout = None))]
    fn await_(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (event, wait) = (Arc::clone(&self.event), wait(timeout)?);
        let kept = Arc::downgrade(&event);
        let waiting = Awaitable::waiting(move |caller| polled::await_event(event, wait, caller), kept);
        Ok(waiting.about("Event.await_", On::Shared(self.made)))
    }

    fn __await__(&self) -> PyResult<Awaitable> {
        self.await_(None)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Event"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Event"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Event"))
    }
}

/// An event that something outside any bubble will set: who waits for it does not wait for good.
#[pyfunction]
#[pyo3(name = "_outside_event")]
pub(crate) fn outside_event() -> Event {
    Event { event: Arc::new(goslings::Event::new()), made: 0 }
}

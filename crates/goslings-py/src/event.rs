//! `Event`.

use crate::errors;
use crate::timeout::wait;
use pyo3::prelude::*;

/// A flag that can be waited for; as `threading.Event`, for goroutines and threads alike.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Event {
    event: goslings::Event,
}

#[pymethods]
impl Event {
    #[new]
    fn new() -> Event {
        Event { event: goslings::Event::new() }
    }

    /// Sets the flag and wakes all who wait. Never blocks.
    fn set(&self) {
        self.event.set();
    }

    /// Clears the flag. Never blocks.
    fn clear(&self) {
        self.event.clear();
    }

    /// Whether the flag is set.
    fn is_set(&self) -> bool {
        self.event.is_set()
    }

    /// Waits until the flag is set; returns whether that came within `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        errors::waited(py, self.event.wait(wait(timeout)?))
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

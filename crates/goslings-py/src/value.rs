//! What travels through a channel: a Python object, or a time that becomes one where it is received.
//!
//! Timers fire on threads that are not attached to the interpreter, so a tick is a plain number until then.

use pyo3::prelude::*;
use pyo3::types::PyFloat;

pub(crate) enum Value {
    Object(Py<PyAny>),
    /// Seconds on the clock of `time.monotonic()`.
    Time(f64),
}

impl Value {
    #[inline]
    pub(crate) fn into_object(self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Value::Object(object) => object,
            Value::Time(seconds) => PyFloat::new(py, seconds).into_any().unbind(),
        }
    }
}

pub(crate) type Channel = goslings::Chan<Value>;

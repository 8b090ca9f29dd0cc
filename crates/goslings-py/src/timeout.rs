//! `timeout` arguments: None waits for ever, zero or less tries once.

use goslings::Wait;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};
use std::time::Duration;

/// What the caller's `timeout` means, in seconds.
#[inline]
pub(crate) fn wait(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
    match timeout {
        None => Ok(Wait::Forever),
        Some(timeout) if timeout.is_none() => Ok(Wait::Forever),
        Some(timeout) => seconds(timeout, "timeout").map(from_seconds),
    }
}

/// A number of seconds; not NaN.
pub(crate) fn seconds(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    let is_number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !is_number && (value.is_instance_of::<PyBool>() || !value.hasattr("__float__")?) {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{name} must be a number of seconds, not {kind}")));
    }
    let seconds: f64 = match value.extract() {
        Ok(seconds) => seconds,
        // An int too large for a float: longer than any wait.
        Err(error) if value.is_instance_of::<PyInt>() => {
            let _ = error;
            if value.lt(0)? { 0.0 } else { f64::INFINITY }
        }
        Err(error) => return Err(error),
    };
    if seconds.is_nan() {
        return Err(PyValueError::new_err(format!("{name} must not be NaN")));
    }
    Ok(seconds)
}

/// Waits at most so many seconds; more than 500 years is for ever.
pub(crate) fn from_seconds(seconds: f64) -> Wait {
    if seconds <= 0.0 {
        return Wait::No;
    }
    // The smallest wait is a nanosecond, so that a tiny timeout does wait.
    Duration::try_from_secs_f64(seconds)
        .map_or(Wait::Forever, |time| Wait::at_most(time.max(Duration::from_nanos(1))))
}

//! `_Patched`: a function of the standard library that does something else in goroutines.

use crate::bubble::{On, operation};
use crate::errors;
use crate::host;
use crate::net::descriptor;
use crate::timeout::{from_seconds, wait};
use goslings::WaitError;
use goslings::net::{self, Direction, NetError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// Whether this code can park: it runs in a goroutine that has a stack.
#[inline]
pub(crate) fn parks() -> bool {
    goslings::with_current(|task| task.is_some_and(|task| !task.is_stackless()))
}

/// Whether this code can park: it runs in a goroutine that has a stack.
#[pyfunction]
#[pyo3(name = "_can_park")]
pub(crate) fn can_park() -> bool {
    parks()
}

/// What `goslings.patch` puts in a function's place: calls `parked` in a goroutine that can park, else `original`.
///
/// It is no descriptor, as functions written in C are none: kept in a class it does not become a method. It is
/// pickled by its name.
#[pyclass(name = "_Patched", module = "goslings", frozen, dict, weakref)]
pub(crate) struct PyPatched {
    original: Py<PyAny>,
    parked: Py<PyAny>,
}

#[pymethods]
impl PyPatched {
    #[new]
    fn new(py: Python<'_>, original: Bound<'_, PyAny>, parked: Py<PyAny>) -> PyResult<Py<PyPatched>> {
        let patched = Bound::new(py, PyPatched { original: original.clone().unbind(), parked })?;
        for name in ["__name__", "__qualname__", "__doc__", "__module__"] {
            if let Ok(value) = original.getattr(name) {
                patched.setattr(name, value)?;
            }
        }
        patched.setattr("__wrapped__", original)?;
        Ok(patched.unbind())
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let function = if parks() { &self.parked } else { &self.original };
        host::call(function.bind(py), args, kwargs)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyString>> {
        Ok(slf.getattr("__name__")?.cast_into()?)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("<patched {}>", slf.get().original.bind(slf.py()).repr()?))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.original)?;
        visit.call(&self.parked)
    }
}

/// As `sleep`, wherever it is called: in a coroutine that runs in a goroutine, too, which then holds up others there.
#[pyfunction]
#[pyo3(name = "_sleep_here")]
pub(crate) fn sleep_here(py: Python<'_>, seconds: f64) -> PyResult<()> {
    operation(py, "time.sleep", On::Nothing)?;
    goslings::sleep(from_seconds(seconds)).map_err(|error| errors::sleep(py, error))
}

/// As `wait_fd`, wherever it is called: in a coroutine that runs in a goroutine, too, which then holds up others there.
#[pyfunction]
#[pyo3(name = "_wait_fd_here", signature = (fd, write, timeout = None))]
pub(crate) fn wait_fd_here(
    py: Python<'_>,
    fd: &Bound<'_, PyAny>,
    write: bool,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    operation(py, "wait_fd", On::Anything)?;
    let direction = if write { Direction::Write } else { Direction::Read };
    match net::ready(descriptor(fd)?, direction, wait(timeout)?) {
        Ok(()) => Ok(true),
        Err(NetError::Wait(WaitError::TimedOut)) => Ok(false),
        Err(error) => Err(errors::net(py, error)),
    }
}

//! What `Group` and others that are written in Python need of goroutines: to be made first and started later.

use crate::goroutine::{self, Goroutine};
use crate::host;
use crate::waitgroup::WaitGroup;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Makes a goroutine that `_start` starts; it counts in `group` until its end. Calls `watcher(goroutine)` at
/// its end, before anybody else hears of it. Cancelled before it was started, it ends at once.
#[pyfunction]
#[pyo3(name = "_prepare")]
pub(crate) fn prepare(
    py: Python<'_>,
    group: &Bound<'_, WaitGroup>,
    watcher: Py<PyAny>,
    r#fn: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<Py<Goroutine>> {
    goroutine::prepare(py, group.get().counter(), watcher, r#fn, args, kwargs)
}

/// Starts a goroutine made by `_prepare`; False if it has been started or cancelled already.
#[pyfunction]
#[pyo3(name = "_start")]
pub(crate) fn start(py: Python<'_>, goroutine: &Bound<'_, Goroutine>) -> bool {
    goroutine::start_prepared(py, goroutine)
}

/// What an ended goroutine raised, or None; does not count as reading it.
#[pyfunction]
#[pyo3(name = "_failure")]
pub(crate) fn failure(py: Python<'_>, goroutine: &Bound<'_, Goroutine>) -> Option<Py<PyBaseException>> {
    goroutine.get().failure(py)
}

/// Raises RuntimeError, naming `twin` as what to use, in an async goroutine or asyncio task: for what may block.
#[pyfunction]
#[pyo3(name = "_may_block")]
pub(crate) fn may_block(py: Python<'_>, twin: &str) -> PyResult<()> {
    host::may_block(py, twin)
}

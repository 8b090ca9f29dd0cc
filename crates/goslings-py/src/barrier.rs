//! `Barrier`.

use crate::awaitable::{Awaitable, undo_nothing};
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::{BarrierError, polled};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use std::sync::Arc;

/// Barrier(n): lets `n` goroutines or threads wait for each other, again and again; as `threading.Barrier`.
///
/// Raises ValueError unless `n` is positive.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Barrier {
    barrier: Arc<goslings::Barrier>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

fn failed(py: Python<'_>, error: BarrierError) -> PyErr {
    match error {
        BarrierError::Broken => errors::broken_barrier(),
        BarrierError::Wait(error) => errors::wait(py, error, "barrier wait"),
    }
}

impl Barrier {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.barrier)
    }
}

#[pymethods]
impl Barrier {
    #[new]
    fn new(n: i64) -> PyResult<Barrier> {
        match usize::try_from(n) {
            Ok(parties) if parties > 0 => Ok(Barrier {
                barrier: Arc::new(goslings::Barrier::new(parties)),
                made: goslings::bubble::current_id(),
            }),
            _ => Err(PyValueError::new_err("a Barrier needs a positive number of parties")),
        }
    }

    /// Waits until all have come; returns the number of this one, 0 to n - 1.
    ///
    /// Blocks at most `timeout` seconds; a wait that fails breaks the barrier for all. Raises TimeoutError
    /// after `timeout`, and threading.BrokenBarrierError if it is or gets broken.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        operation(py, "Barrier.wait", On::Shared(self.made))?;
        may_block(py, "barrier.await_()")?;
        self.barrier.wait(wait(timeout)?).map_err(|error| failed(py, error))
    }

    /// await_(timeout=None): as `wait`, awaited. A task that is cancelled in it breaks the barrier.
    #[pyo3(signature = (timeout = None))]
    fn await_(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (barrier, wait) = (Arc::clone(&self.barrier), wait(timeout)?);
        let kept = Arc::downgrade(&barrier);
        Ok(Awaitable::keeping(
            move |caller| polled::await_barrier(barrier, wait, caller),
            kept,
            |_kept, py, answer| match answer {
                Ok(number) => Ok(PyInt::new(py, number).into_any().unbind()),
                Err(error) => Err(failed(py, error)),
            },
            |_kept, answer| undo_nothing(answer),
        )
        .about("Barrier.await_", On::Shared(self.made)))
    }

    /// Breaks the barrier: those who wait and those who come get BrokenBarrierError.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Barrier.abort", On::Anything)?;
        self.barrier.abort();
        Ok(())
    }

    /// Makes the barrier as new; those who wait get BrokenBarrierError.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Barrier.reset", On::Anything)?;
        self.barrier.reset();
        Ok(())
    }

    /// How many it waits for.
    #[getter]
    fn parties(&self) -> usize {
        self.barrier.parties()
    }

    /// How many wait now.
    #[getter]
    fn n_waiting(&self) -> usize {
        self.barrier.waiting()
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> bool {
        self.barrier.is_broken()
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Barrier"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Barrier"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Barrier"))
    }
}

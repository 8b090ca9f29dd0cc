//! `AtomicInt`.

use crate::bubble::{On, operation};
use crate::errors;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering};

/// AtomicInt(value=0): a 64-bit integer whose every operation is one indivisible step.
///
/// Sequentially consistent, wraps around at 64 bits, never blocks. Raises OverflowError for an argument that
/// does not fit. Go: `sync/atomic.Int64`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct AtomicInt {
    value: AtomicI64,
}

#[pymethods]
impl AtomicInt {
    #[new]
    #[pyo3(signature = (value = 0))]
    fn new(value: i64) -> AtomicInt {
        AtomicInt { value: AtomicI64::new(value) }
    }

    /// The value.
    fn load(&self, py: Python<'_>) -> PyResult<i64> {
        operation(py, "AtomicInt.load", On::Anything)?;
        // Ordering: SeqCst. That is what the class promises (Go's memory model).
        Ok(self.value.load(Ordering::SeqCst))
    }

    /// Sets the value.
    fn store(&self, py: Python<'_>, value: i64) -> PyResult<()> {
        operation(py, "AtomicInt.store", On::Anything)?;
        // Ordering: SeqCst. As in `load`.
        self.value.store(value, Ordering::SeqCst);
        Ok(())
    }

    /// Adds `delta` and returns the new value.
    #[pyo3(signature = (delta = 1))]
    fn add(&self, py: Python<'_>, delta: i64) -> PyResult<i64> {
        operation(py, "AtomicInt.add", On::Anything)?;
        // Ordering: SeqCst. As in `load`.
        Ok(self.value.fetch_add(delta, Ordering::SeqCst).wrapping_add(delta))
    }

    /// Sets the value and returns the old one.
    fn swap(&self, py: Python<'_>, value: i64) -> PyResult<i64> {
        operation(py, "AtomicInt.swap", On::Anything)?;
        // Ordering: SeqCst. As in `load`.
        Ok(self.value.swap(value, Ordering::SeqCst))
    }

    /// Sets the value to `new` if it is `old`; returns whether it was.
    fn compare_and_swap(&self, py: Python<'_>, old: i64, new: i64) -> PyResult<bool> {
        operation(py, "AtomicInt.compare_and_swap", On::Anything)?;
        // Ordering: SeqCst. As in `load`.
        Ok(self.value.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    fn __int__(&self, py: Python<'_>) -> PyResult<i64> {
        self.load(py)
    }

    fn __repr__(&self) -> String {
        // Ordering: SeqCst. As in `load`.
        format!("AtomicInt({})", self.value.load(Ordering::SeqCst))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("AtomicInt"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("AtomicInt"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("AtomicInt"))
    }
}

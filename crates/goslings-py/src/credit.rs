//! Sends without asking: slots of a channel's buffer that are promised to a sender in another process.
//!
//! Both map a page whose first word says how many sends are left (low half) and how many were made (high half). The
//! sender takes one before it sends; home adds some, and takes back what is left. All three are one atomic step, so a slot
//! is the sender's or home's at any time, whoever dies.

use crate::chan::channel_of;
use crate::errors;
use crate::shm::Segment;
use crate::value::{Channel, Value};
use goslings::chan::Promise;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The word, in memory that stays mapped as long as the segment.
struct Word(Py<Segment>);

impl Word {
    fn new(segment: Bound<'_, Segment>) -> PyResult<Word> {
        let shared = segment.get();
        if shared.shared().len() < 8 || !shared.shared().is_writable() {
            return Err(PyValueError::new_err("not a page for credit"));
        }
        Ok(Word(segment.unbind()))
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped, writable, at least eight bytes (`new`), page-aligned; only atomic operations touch it.
        unsafe { AtomicU64::from_ptr(self.0.get().shared().as_ptr().cast()) }
    }
}

impl Promise for Word {
    fn add(&self, sends: u32) {
        // Ordering: Relaxed. The word carries nothing but itself: values go over the link.
        self.word().fetch_add(u64::from(sends), Ordering::Relaxed);
    }

    fn take_back(&self) -> u32 {
        // Ordering: Relaxed. As above.
        (self.word().fetch_and(!u64::from(u32::MAX), Ordering::Relaxed) & u64::from(u32::MAX)) as u32
    }
}

/// The home side of a promise.
#[pyclass(name = "_Credit", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyCredit {
    channel: Arc<Channel>,
    promise: Arc<dyn Promise>,
    target: u32,
}

#[pymethods]
impl PyCredit {
    #[new]
    fn new(ch: &Bound<'_, PyAny>, segment: Bound<'_, Segment>, target: u32) -> PyResult<PyCredit> {
        let channel = channel_of(ch).ok_or_else(|| PyTypeError::new_err("not a channel"))?;
        Ok(PyCredit { channel, promise: Arc::new(Word::new(segment)?), target })
    }

    /// Promises more, if there is room. Never blocks.
    fn more(&self) {
        self.channel.promise(&self.promise, self.target);
    }

    /// A value that was sent on the promise has arrived. Never blocks. RuntimeError if nothing was promised.
    fn arrive(&self, value: Py<PyAny>) -> PyResult<()> {
        let arrived = self.channel.arrive(&self.promise, Value::Object(value), self.target);
        arrived.map_err(|_| PyRuntimeError::new_err("a value came without a promise"))
    }

    /// A value that was sent on the promise cannot be had.
    fn lost(&self) {
        self.channel.lost(&self.promise);
    }

    /// Nothing more arrives on it.
    fn end(&self) {
        self.channel.call_off(&self.promise);
    }
}

/// The sender's side of a promise.
#[pyclass(name = "_Allowance", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyAllowance(Word);

#[pymethods]
impl PyAllowance {
    #[new]
    fn new(segment: Bound<'_, Segment>) -> PyResult<PyAllowance> {
        Word::new(segment).map(PyAllowance)
    }

    /// Takes one send; returns whether there was one. A cancel point. Never blocks.
    fn take(&self, py: Python<'_>) -> PyResult<bool> {
        if goslings::with_current(|task| task.is_some_and(goslings::Task::take_cancel)) {
            return Err(errors::cancelled(py));
        }
        // Ordering: Relaxed. As in `add`.
        let taken = self.0.word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let left = word & u64::from(u32::MAX);
            (left > 0).then(|| (word - 1).wrapping_add(1 << 32))
        });
        Ok(taken.is_ok())
    }
}

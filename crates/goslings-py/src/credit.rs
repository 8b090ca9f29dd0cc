//! Sends without asking: slots of a channel's buffer that are promised to a sender in another process.
//!
//! Both map a page whose first word says how many sends are left (low half) and how many were made (high half). The
//! sender takes one before it sends; home adds some, and takes back what is left. All three are one atomic step, so a slot
//! is the sender's or home's at any time, whoever dies.

use crate::chan::channel_of;
use crate::shm::Segment;
use crate::value::{Channel, Value};
use goslings::chan::Promise;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The word, in memory that stays mapped as long as the segment.
pub(crate) struct Word(Py<Segment>);

impl Word {
    pub(crate) fn new(segment: Bound<'_, Segment>) -> PyResult<Word> {
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

    /// Takes one send; returns whether there was one.
    pub(crate) fn take(&self) -> bool {
        // Ordering: Relaxed. As in `add`.
        let taken = self.word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let left = word & u64::from(u32::MAX);
            (left > 0).then(|| (word - 1).wrapping_add(1 << 32))
        });
        taken.is_ok()
    }

    /// Whether there is a send to take, a moment ago.
    pub(crate) fn has_some(&self) -> bool {
        // Ordering: Relaxed. As in `add`.
        self.word().load(Ordering::Relaxed) & u64::from(u32::MAX) != 0
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

/// Where values of a stream arrive.
#[derive(Clone)]
pub(crate) struct Inflow {
    channel: Arc<Channel>,
    promise: Arc<dyn Promise>,
}

impl Inflow {
    /// Values have arrived, in this order. What was not promised stays where it is.
    pub(crate) fn arrive(&self, values: &mut VecDeque<Value>) {
        self.channel.arrive(&self.promise, values);
    }

    /// A value has arrived that cannot be had.
    pub(crate) fn lost(&self) {
        self.channel.lost(&self.promise);
    }
}

/// The home side of a promise.
#[pyclass(name = "_Credit", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyCredit {
    pub(crate) inflow: Inflow,
    word: Arc<Word>,
    target: u32,
}

#[pymethods]
impl PyCredit {
    #[new]
    fn new(ch: &Bound<'_, PyAny>, segment: Bound<'_, Segment>, target: u32) -> PyResult<PyCredit> {
        let channel = channel_of(ch).ok_or_else(|| PyTypeError::new_err("not a channel"))?;
        let word = Arc::new(Word::new(segment)?);
        let promise: Arc<dyn Promise> = Arc::clone(&word) as Arc<dyn Promise>;
        Ok(PyCredit { inflow: Inflow { channel, promise }, word, target })
    }

    /// Promises more, if there is room. Returns whether there was something left before. Never blocks.
    fn more(&self) -> bool {
        let some = self.word.has_some();
        self.inflow.channel.promise(&self.inflow.promise, self.target);
        some
    }

    /// Nothing more arrives on it.
    fn end(&self) {
        self.inflow.channel.call_off(&self.inflow.promise);
    }
}

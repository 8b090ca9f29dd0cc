//! A wait in the stead of somebody in another process: one `select`, begun and gone on with by whoever has time.
//!
//! The first `poll` tries the cases and queues what has to wait, before it returns: so who asks first is first in the
//! queue. The end of the wait puts the stead's number into its bell's list and rings. A bell is a channel, so that
//! a goroutine can wait for it like for anything else.
//!
//! **Invariants**
//! * The call is taken out of its lock by whoever polls or cancels it, and put back if it still waits. Nothing is called
//!   and nothing dropped under the lock.
//! * It answers once: with what a case has brought, or that it was cancelled and nothing has happened.
//! * What was received for a stead that is dropped unanswered goes back to its channel.

use crate::chan::{RecvChan, channel_of};
use crate::value::{Channel, Value};
use goslings::polled::{self, Caller, Foreign, Port, Waiting};
use goslings::{SelectError, Selected, Wait};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// Rings when a wait in somebody's stead is over, or when asked to.
#[pyclass(name = "_Bell", module = "goslings._goslings", frozen)]
pub(crate) struct PyBell {
    port: Arc<Port>,
    rung: Arc<Channel>,
}

#[pymethods]
impl PyBell {
    #[new]
    fn new() -> PyBell {
        let rung = Arc::new(Channel::new(1));
        let ring = Arc::clone(&rung);
        let port = Port::new(move || {
            let _ = ring.try_send(Value::Time(0.0));
        });
        PyBell { port, rung }
    }

    /// A channel that holds a value after it was rung.
    #[getter]
    fn rung(&self) -> RecvChan {
        RecvChan { channel: Arc::clone(&self.rung), of: None, timer: None }
    }

    /// Rings it. Never blocks.
    fn ring(&self) {
        let _ = self.rung.try_send(Value::Time(0.0));
    }

    /// Takes out the numbers of the waits that are over. Never blocks.
    fn take(&self) -> Vec<u64> {
        self.port.take()
    }
}

type Call = Waiting<Result<Selected<Value>, SelectError>>;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type CallLock = std::sync::Mutex<Option<Call>>;

/// What became of it: the case's index (-1: cancelled), what was received, and True; False if a receive found the
/// channel closed, None if a send did.
type Answer = (isize, Option<Py<PyAny>>, Option<bool>);

/// A `select` in the stead of somebody else; see the module. `cases` are triples of a channel or a view, whether to
/// send, and what.
#[pyclass(name = "_Stead", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyStead {
    call: CallLock,
    cancelled: AtomicBool,
    channels: Vec<Arc<Channel>>,
    sends: Vec<bool>,
}

impl PyStead {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, py: Python<'_>, answer: Result<Selected<Value>, SelectError>) -> Answer {
        match answer {
            Ok(Selected { index, value: Some(value) }) => {
                (index.cast_signed(), Some(value.into_object(py)), Some(true))
            }
            Ok(Selected { index, value: None }) => (index.cast_signed(), None, Some(self.sends[index])),
            Err(SelectError::Closed(index)) => (index.cast_signed(), None, None),
            Err(_) => (-1, None, Some(false)),
        }
    }
}

#[pymethods]
impl PyStead {
    #[new]
    fn new(
        bell: &Bound<'_, PyBell>,
        number: u64,
        cases: Vec<(Bound<'_, PyAny>, bool, Py<PyAny>)>,
        waits: bool,
    ) -> PyResult<PyStead> {
        let mut given = Vec::with_capacity(cases.len());
        let mut channels = Vec::with_capacity(cases.len());
        let mut sends = Vec::with_capacity(cases.len());
        for (chan, sending, value) in cases {
            let channel = channel_of(&chan).ok_or_else(|| PyTypeError::new_err("not a channel"))?;
            channels.push(Arc::clone(&channel));
            sends.push(sending);
            given.push((Some(channel), sending.then_some(Value::Object(value))));
        }
        let caller = Caller::Foreign(Foreign::new(Arc::clone(&bell.get().port), number));
        let wait = if waits { Wait::Forever } else { Wait::No };
        let call = polled::select(given, wait, caller);
        Ok(PyStead { call: CallLock::new(Some(call)), cancelled: AtomicBool::new(false), channels, sends })
    }

    /// Begins the wait or goes on after it; the answer, or None if it waits or has answered. Never blocks.
    fn poll(&self, py: Python<'_>) -> Option<Answer> {
        loop {
            let mut call = self.lock().take()?;
            if let Some(answer) = call.poll() {
                return Some(self.answer(py, answer));
            }
            let caller = call.caller().clone();
            *self.lock() = Some(call);
            // Whoever came meanwhile found nothing, and left it to us.
            // Ordering: SeqCst, as the store in `cancel`: with the lock in between, one of the two sees the other.
            if self.cancelled.load(Ordering::SeqCst) {
                return self.cancel(py);
            }
            if !caller.was_woken() {
                return None;
            }
        }
    }

    /// Ends the wait; the answer, or None if somebody else has it or is about to. Never blocks.
    fn cancel(&self, py: Python<'_>) -> Option<Answer> {
        // Ordering: as above.
        self.cancelled.store(true, Ordering::SeqCst);
        let mut call = self.lock().take()?;
        call.cancel().map(|answer| self.answer(py, answer))
    }
}

impl Drop for PyStead {
    fn drop(&mut self) {
        let Some(mut call) = self.lock().take() else { return };
        if let Some(Ok(Selected { index, value: Some(value) })) = call.abandon() {
            self.channels[index].put_back(value);
        }
    }
}

/// Puts a received value back to the front of a channel, for somebody who turned out unable to keep it.
#[pyfunction]
#[pyo3(name = "_put_back")]
pub(crate) fn put_back(ch: &Bound<'_, PyAny>, value: Py<PyAny>) -> PyResult<()> {
    let channel = channel_of(ch).ok_or_else(|| PyTypeError::new_err("not a channel"))?;
    channel.put_back(Value::Object(value));
    Ok(())
}

/// A `Selected`, for a select that was carried out in Python.
#[pyfunction]
#[pyo3(name = "_selected")]
pub(crate) fn selected(index: usize, chan: Py<PyAny>, value: Py<PyAny>, ok: bool) -> crate::select::Selected {
    crate::select::Selected::new(index, chan, value, ok)
}

/// Whether this is a channel of another process, or a view of one: its class says so.
pub(crate) fn is_elsewhere(chan: &Bound<'_, PyAny>) -> bool {
    chan.get_type().hasattr(pyo3::intern!(chan.py(), "_goslings_directions")).unwrap_or(false)
}

/// Whether a channel of another process can be sent to (`direction` 2) or received from (1).
pub(crate) fn goes(chan: &Bound<'_, PyAny>, direction: u8) -> bool {
    let directions = chan.get_type().getattr(pyo3::intern!(chan.py(), "_goslings_directions"));
    directions.and_then(|directions| directions.extract::<u8>()).is_ok_and(|both| both & direction != 0)
}

/// The function of `goslings.processes` that selects among channels of several processes.
pub(crate) fn elsewhere<'py>(
    py: Python<'py>,
    name: &str,
    cases: &Bound<'py, PyTuple>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    py.import("goslings.processes._select")?.call_method1(name, (cases, timeout))
}

//! How asyncio event loops hear that a wait is over.
//!
//! Wakers run on any thread, attached to the interpreter or not, so they only put a number into the loop's
//! port and write to its descriptor, which the loop watches. What the loop then does is in `goslings/_port.py`.

use goslings::polled::{Caller, Foreign, Port};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The port of one event loop, and the descriptor by which the loop hears of it.
#[pyclass(name = "_Port", module = "goslings._goslings", frozen)]
pub(crate) struct PyPort {
    port: Arc<Port>,
    bell: Arc<File>,
}

/// A descriptor that counts what is written to it.
fn bell() -> PyResult<File> {
    // SAFETY: makes a descriptor, or answers -1.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(PyOSError::new_err(std::io::Error::last_os_error().raw_os_error()));
    }
    // SAFETY: just made, and nobody else's.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

#[pymethods]
impl PyPort {
    #[new]
    fn new() -> PyResult<PyPort> {
        let bell = Arc::new(bell()?);
        // The descriptor stays open as long as anybody may ring: else it could be somebody else's by then.
        let rung = Arc::clone(&bell);
        let port = Port::new(move || {
            let _ = (&*rung).write(&1u64.to_ne_bytes());
        });
        Ok(PyPort { port, bell })
    }

    /// The descriptor that is readable when there is something to take.
    fn fileno(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Takes out the numbers of the waits that are over. Never blocks.
    fn take(&self) -> Vec<u64> {
        let mut count = [0; 8];
        let _ = (&*self.bell).read(&mut count);
        self.port.take()
    }
}

/// One wait of an asyncio task.
pub(crate) struct LoopWait {
    /// A weak reference to a `goslings._port.LoopPort`, which refers to the task that waits; so that a task whose loop
    /// was closed can be collected.
    of: Py<PyAny>,
    foreign: Arc<Foreign>,
    key: u64,
}

impl LoopWait {
    /// In a task of `running`, the event loop that runs on this thread.
    pub(crate) fn new(running: &Bound<'_, PyAny>) -> PyResult<LoopWait> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        static OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = running.py();
        let of = OF.get_or_try_init(py, || py.import("goslings._port")?.getattr("of").map(Bound::unbind))?;
        let of = of.bind(py).call1((running,))?;
        let port = of.getattr("port")?.cast_into::<PyPort>()?;
        // Ordering: Relaxed. Only a number of its own.
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        let foreign = Foreign::new(Arc::clone(&port.get().port), key);
        Ok(LoopWait { of: of.getattr("me")?.unbind(), foreign, key })
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::Foreign(Arc::clone(&self.foreign))
    }

    /// The `LoopPort`; None if its loop was closed.
    fn loop_port<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of.bind(py).call0().map(|port| (!port.is_none()).then_some(port))
    }

    /// A future that is done when the wait is over, ready to be yielded to the loop.
    pub(crate) fn future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.loop_port(py)? {
            Some(port) => port.call_method1("wait", (self.key,)).map(Bound::unbind),
            None => Err(PyRuntimeError::new_err("the event loop of this wait was closed")),
        }
    }

    /// Nobody waits for the future any more.
    pub(crate) fn forget(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(port) = self.loop_port(py)? {
            port.call_method1("forget", (self.key,))?;
        }
        Ok(())
    }

    /// The task was cancelled when it had been served already: if `error` is that cancellation, asks for it
    /// again, for the next wait, and returns true.
    pub(crate) fn cancel_again(&self, py: Python<'_>, error: &PyErr) -> PyResult<bool> {
        let Some(port) = self.loop_port(py)? else { return Ok(false) };
        let again = port.call_method1("cancel_again", (error.value(py),))?;
        again.extract().map_err(|_: PyErr| PyRuntimeError::new_err("cancel_again answers with a bool"))
    }
}

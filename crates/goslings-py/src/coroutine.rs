//! Coroutines as goroutines: what an `async def` function returns, stepped by whichever worker is free; or driven
//! by a goroutine with a stack, if it comes out of a plain function.

use crate::errors;
use crate::host::{self, Sent};
use goslings::polled::{Caller, Foreign, Port};
use goslings::{Event, Wait};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::sync::{Arc, OnceLock};

/// A coroutine that runs as a goroutine without a stack.
pub(crate) struct Coroutine {
    object: Py<PyAny>,
    context: host::Context,
    locals: host::OwnLocals,
}

impl Coroutine {
    pub(crate) fn new(object: Py<PyAny>, context: host::Context) -> Coroutine {
        Coroutine { object, context, locals: host::OwnLocals::new() }
    }

    /// Runs it until it waits or gives way (None), or ends.
    pub(crate) fn step(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let object = self.object.bind(py);
        let result =
            self.locals.enter(py, || self.context.enter(py, || answer(object, host::send_none(object))));
        if result.is_some() {
            self.locals.end(py);
        }
        result
    }

    /// The coroutine itself, borrowed.
    pub(crate) fn as_ptr(&self) -> *mut pyo3::ffi::PyObject {
        self.object.as_ptr()
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        self.context.visit(visit)
    }
}

/// What a step came to; None if it waits or gives way. What it cannot wait for is thrown back at it.
fn answer(object: &Bound<'_, PyAny>, mut sent: Sent) -> Option<PyResult<Py<PyAny>>> {
    loop {
        match sent {
            Sent::Returns(value) => return Some(Ok(value)),
            Sent::Raises(error) => return Some(Err(error)),
            Sent::Yields(value) if value.is_none(object.py()) => return None,
            Sent::Yields(value) => sent = host::throw(object, foreign(value.bind(object.py()))),
        }
    }
}

/// The error for a coroutine that awaits what is no call of goslings.
fn foreign(value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type().qualname().map_or_else(|_| "object".into(), |name| name.to_string());
    let what = if value.hasattr("_asyncio_future_blocking").unwrap_or(false) {
        format!("an asyncio {kind}, which needs its event loop: await goslings.aio.await_(...) around it")
    } else {
        format!("something that yields a {kind}: only awaitables of goslings wait there")
    };
    PyRuntimeError::new_err(format!("an async goroutine awaited {what}"))
}

/// How a goroutine with a stack waits for a coroutine that it drives.
pub(crate) struct Driver {
    caller: Caller,
    port: Arc<Port>,
    rung: Arc<Event>,
}

impl Driver {
    fn new() -> Driver {
        let rung = Arc::new(Event::new());
        let bell = Arc::clone(&rung);
        let port = Port::new(move || bell.set());
        Driver { caller: Caller::Foreign(Foreign::new(Arc::clone(&port), 0)), port, rung }
    }
}

/// Who awaits in the running goroutine, if that drives a coroutine.
pub(crate) fn driver(py: Python<'_>) -> Option<Caller> {
    let handle = host::current_handle(py)?;
    handle.get().driver().map(|driver| driver.caller.clone())
}

/// Runs a coroutine to its end, in the goroutine of `place`, which parks when the coroutine waits.
pub(crate) fn drive(object: &Bound<'_, PyAny>, place: &OnceLock<Driver>) -> PyResult<Py<PyAny>> {
    let py = object.py();
    let driver = place.get_or_init(Driver::new);
    let mut sent = host::send_none(object);
    loop {
        if let Some(answer) = answer(object, sent) {
            return answer;
        }
        if !driver.caller.is_waiting() {
            goslings::yield_now();
            sent = host::send_none(object);
            continue;
        }
        sent = match driver.rung.wait(Wait::Forever) {
            Ok(()) => {
                driver.rung.clear();
                driver.port.take();
                host::send_none(object)
            }
            Err(error) => host::throw(object, errors::wait(py, error, "await")),
        };
    }
}

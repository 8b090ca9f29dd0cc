//! Runtime outcomes as Python exceptions: the only place that makes them.

use goslings::chan::{CloseError, RecvError, SendError, SendErrorKind, TryRecvError, TrySendError};
use goslings::{NetError, SelectError, SleepError, WaitError};
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PySystemError, PyTimeoutError, PyTypeError};
use pyo3::prelude::*;

mod classes {
    pyo3::import_exception!(goslings._errors, Closed);
    pyo3::import_exception!(goslings._errors, WouldBlock);
    pyo3::import_exception!(goslings._errors, Cancelled);
    pyo3::import_exception!(goslings._errors, GoExit);
    pyo3::import_exception!(goslings._errors, TransactionRetry);
    pyo3::import_exception!(goslings._errors, TransactionConflict);
    pyo3::import_exception!(concurrent.futures, CancelledError);
    pyo3::import_exception!(threading, BrokenBarrierError);
}
pub(crate) use classes::{
    Cancelled, CancelledError, Closed, GoExit, TransactionConflict, TransactionRetry, WouldBlock,
};

/// Finds the classes that are defined elsewhere. At import, since later the frame in which one is needed may lack
/// what an import takes.
pub(crate) fn install(py: Python<'_>) {
    Closed::type_object(py);
    WouldBlock::type_object(py);
    Cancelled::type_object(py);
    GoExit::type_object(py);
    TransactionRetry::type_object(py);
    TransactionConflict::type_object(py);
    CancelledError::type_object(py);
    classes::BrokenBarrierError::type_object(py);
}

/// The exception that a signal handler raised while this thread waited.
pub(crate) fn pending(py: Python<'_>) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| PySystemError::new_err("interrupted without an exception"))
}

/// `Cancelled`, with the message that was given to `cancel`.
pub(crate) fn cancelled(py: Python<'_>) -> PyErr {
    match crate::goroutine::cancel_message(py) {
        Some(message) => Cancelled::new_err((message,)),
        None => Cancelled::new_err(()),
    }
}

pub(crate) fn timed_out(what: &str) -> PyErr {
    PyTimeoutError::new_err(format!("{what} timed out"))
}

pub(crate) fn send<T>(py: Python<'_>, error: SendError<T>) -> PyErr {
    match error.kind {
        SendErrorKind::Closed => Closed::new_err("send on closed channel"),
        SendErrorKind::TimedOut => timed_out("send"),
        SendErrorKind::Cancelled => cancelled(py),
        SendErrorKind::Interrupted => pending(py),
    }
}

pub(crate) fn recv(py: Python<'_>, error: RecvError) -> PyErr {
    match error {
        RecvError::Closed => Closed::new_err("receive on closed channel"),
        RecvError::TimedOut => timed_out("recv"),
        RecvError::Cancelled => cancelled(py),
        RecvError::Interrupted => pending(py),
    }
}

pub(crate) fn select(py: Python<'_>, error: SelectError) -> PyErr {
    match error {
        SelectError::TimedOut => timed_out("select"),
        SelectError::Closed(index) => {
            Closed::new_err(format!("send on closed channel (case {index} of select)"))
        }
        SelectError::Cancelled => cancelled(py),
        SelectError::Interrupted => pending(py),
    }
}

pub(crate) fn sleep(py: Python<'_>, error: SleepError) -> PyErr {
    match error {
        SleepError::Cancelled => cancelled(py),
        SleepError::Interrupted => pending(py),
    }
}

pub(crate) fn try_send<T>(error: &TrySendError<T>) -> Option<PyErr> {
    match error {
        TrySendError::Full(_) => None,
        TrySendError::Closed(_) => Some(Closed::new_err("send on closed channel")),
    }
}

pub(crate) fn try_recv(error: TryRecvError) -> PyErr {
    match error {
        TryRecvError::Empty => WouldBlock::new_err("nothing to receive"),
        TryRecvError::Closed => Closed::new_err("receive on closed channel"),
    }
}

pub(crate) fn close(_: CloseError) -> PyErr {
    Closed::new_err("close of closed channel")
}

/// A wait for a lock or a permit that failed.
pub(crate) fn wait(py: Python<'_>, error: WaitError, what: &str) -> PyErr {
    match error {
        WaitError::TimedOut => timed_out(what),
        WaitError::Cancelled => cancelled(py),
        WaitError::Interrupted => pending(py),
    }
}

/// A wait for a descriptor, or a system call on one, that failed.
pub(crate) fn net(py: Python<'_>, error: NetError) -> PyErr {
    match error {
        // In the words of a socket.
        NetError::Wait(WaitError::TimedOut) => PyTimeoutError::new_err("timed out"),
        NetError::Wait(error) => wait(py, error, "wait"),
        NetError::Closed => os(py, libc::EBADF),
        NetError::System(number) => os(py, number),
    }
}

/// The subclass of OSError for an error number.
pub(crate) fn os(py: Python<'_>, number: i32) -> PyErr {
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
    match text {
        Ok(text) => PyOSError::new_err((number, text.unbind())),
        Err(error) => error,
    }
}

/// A `wait(timeout)` that answers with a bool.
pub(crate) fn waited(py: Python<'_>, result: Result<(), WaitError>) -> PyResult<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(WaitError::TimedOut) => Ok(false),
        Err(error) => Err(wait(py, error, "wait")),
    }
}

/// A synchronisation object used against its rules.
pub(crate) fn misuse(text: &'static str) -> PyErr {
    PyRuntimeError::new_err(text)
}

pub(crate) fn broken_barrier() -> PyErr {
    classes::BrokenBarrierError::new_err(())
}

pub(crate) fn no_copy(what: &str) -> PyErr {
    PyTypeError::new_err(format!("a {what} cannot be copied: it is a reference already, pass it on as it is"))
}

pub(crate) fn no_pickle(what: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "a {what} cannot be pickled: it belongs to this process; pass it to a goroutine instead"
    ))
}

//! Waiting for file descriptors.

use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::timeout::wait;
use goslings::{Direction, NetError, WaitError};
use pyo3::prelude::*;

fn direction(write: bool) -> Direction {
    if write { Direction::Write } else { Direction::Read }
}

/// Waits until `fd` can be read or written, has failed or was hung up; returns whether that came within `timeout` seconds.
///
/// Parks the goroutine, or blocks the thread such that signals are handled. A file that is always ready, on a disk for
/// one, is ready at once. Raises OSError (EBADF) if there is no such descriptor, or if it was closed meanwhile, as
/// `closing_fd` tells.
#[pyfunction]
#[pyo3(signature = (fd, write, timeout = None))]
pub(crate) fn wait_fd(
    py: Python<'_>,
    fd: i32,
    write: bool,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    operation(py, "wait_fd", On::Anything)?;
    may_block(py, "_goslings.await_fd()")?;
    match goslings::ready(fd, direction(write), wait(timeout)?) {
        Ok(()) => Ok(true),
        Err(NetError::Wait(WaitError::TimedOut)) => Ok(false),
        Err(error) => Err(errors::net(py, error)),
    }
}

/// Tells that `fd` is about to be closed. Whoever waits for it fails with OSError (EBADF). Never blocks.
#[pyfunction]
pub(crate) fn closing_fd(fd: i32) {
    goslings::closing(fd);
}

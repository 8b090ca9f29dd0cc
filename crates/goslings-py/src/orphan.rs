//! What ends a worker process whose parent is gone: a thread of the system that never attaches. So it needs nothing of the
//! interpreter, which may be in a C call that does not return, or in a deadlock.

use crate::errors;
use pyo3::prelude::*;
use std::time::Duration;

/// Ends the process, with status 1, `grace` seconds after the other side of the socket `fd` has gone. `fd` stays open until
/// the process ends; -1: nobody ends it. If the process is stopped when its parent dies, it is made to go on, since it could not end otherwise.
/// Never blocks. Raises OSError if the system has no thread for it.
#[pyfunction]
#[pyo3(name = "_end_with")]
pub(crate) fn end_with(py: Python<'_>, fd: i32, grace: f64) -> PyResult<()> {
    // SAFETY: sets a number of this process. Of a signal that does nothing to a process that runs.
    // If it fails, a stopped process is on its own.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT) };
    if fd < 0 {
        return Ok(());
    }
    let grace = Duration::try_from_secs_f64(grace).unwrap_or(Duration::ZERO);
    let watch = move || {
        let mut watched = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one place, in this frame. -1: a signal.
        while unsafe { libc::poll(&raw mut watched, 1, -1) } < 0 {}
        std::thread::sleep(grace);
        // SAFETY: ends the process, without any code of it.
        unsafe { libc::_exit(1) };
    };
    let thread =
        std::thread::Builder::new().name("goslings orphan".into()).stack_size(64 * 1024).spawn(watch);
    thread.map(drop).map_err(|error| errors::os(py, error.raw_os_error().unwrap_or(libc::EAGAIN)))
}

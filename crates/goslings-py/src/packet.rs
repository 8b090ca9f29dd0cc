//! Packets: messages over a Unix socket of the kind SEQPACKET, each of which the system keeps whole. Nothing here waits, but
//! for a moment where that is asked for.

use crate::bytes::View;
use crate::errors;
use crate::host::detached;
use goslings_shm as shm;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyEOFError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::time::{Duration, Instant};

/// The largest packet that is taken.
const LARGEST: usize = 64 * 1024;

thread_local! {
    static PLACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into_boxed_slice());
}

/// Borrows a descriptor for a call.
fn borrowed<'a>(py: Python<'_>, fd: i32) -> PyResult<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(errors::os(py, libc::EBADF));
    }
    // SAFETY: not -1; that it stays open during the call is the caller's to see to, as with every number of a descriptor.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Sends a packet, with the descriptor `file` if that is given; returns whether there was room. Never blocks.
///
/// Raises BrokenPipeError if nobody can receive it any more, and other kinds of OSError.
#[pyfunction]
#[pyo3(name = "_send_packet", signature = (fd, data, file = None, /))]
pub(crate) fn send_packet(
    py: Python<'_>,
    fd: i32,
    data: &Bound<'_, PyAny>,
    file: Option<i32>,
) -> PyResult<bool> {
    let view = View::of(data)?;
    let sent = match file {
        None => loop {
            match goslings::net::send(fd, view.bytes(), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        },
        Some(file) => {
            let (fd, file) = (borrowed(py, fd)?, borrowed(py, file)?);
            shm::send_with_fds(fd, &view.bytes().to_vec(), &[file]).map_err(io::Error::from)
        }
    };
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(errors::os(py, error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// The next packet, as bytes; or the descriptor that came with it, which is the caller's; None if there is none yet.
///
/// `look`: for how many microseconds to look again and again if there is none, detached. Raises EOFError at the end, OSError
/// with EMFILE if a descriptor came and this process can have no more.
#[pyfunction]
#[pyo3(name = "_recv_packet", signature = (fd, look = 0, /))]
pub(crate) fn recv_packet(py: Python<'_>, fd: i32, look: u32) -> PyResult<Py<PyAny>> {
    let socket = borrowed(py, fd)?;
    let mut looked = look == 0;
    PLACE.with_borrow_mut(|place| {
        loop {
            match shm::recv_with_fds(socket, place).map_err(io::Error::from) {
                Ok(came) if came.lost => return Err(errors::os(py, libc::EMFILE)),
                Ok(mut came) => {
                    return match (came.fds.pop(), came.bytes) {
                        (Some(file), _) => file.into_raw_fd().into_py_any(py),
                        (None, 0) => Err(PyEOFError::new_err(())),
                        (None, count) => PyBytes::new(py, &place[..count]).into_py_any(py),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if looked {
                        return Ok(py.None());
                    }
                    looked = true;
                    detached(py, || until_something_comes(fd, Duration::from_micros(look.into())));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(PyEOFError::new_err(()));
                }
                Err(error) => return Err(errors::os(py, error.raw_os_error().unwrap_or(libc::EIO))),
            }
        }
    })
}

/// Looks again and again, until there is something to receive, or for so long.
fn until_something_comes(fd: i32, time: Duration) {
    let end = Instant::now() + time;
    let mut byte = [0];
    let mut peek = || goslings::net::recv(fd, goslings::net::Bytes::of(&mut byte), libc::MSG_PEEK);
    while matches!(peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock) && Instant::now() < end {
        std::hint::spin_loop();
    }
}

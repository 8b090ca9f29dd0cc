//! Waiting for file descriptors, and the calls on them that wait.
//!
//! Each call tries first, without waiting (`MSG_DONTWAIT`), and waits only if there is nothing: the goroutine parks.

use crate::awaitable::{Awaitable, undo_nothing};
use crate::bubble::{On, operation};
use crate::bytes::{LARGE, View, receive, size};
use crate::errors;
use crate::host::{detached, may_block};
use crate::timeout::{from_seconds, seconds, wait};
use goslings::net::{self, Address, Direction, NetError};
use goslings::{Wait, WaitError, polled};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString};
use std::ffi::OsStr;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

/// A descriptor: its number, or that of an object with a `fileno` method, as sockets are. Such an object is asked when the
/// call has begun, so that there is no moment in which another goroutine could close what it has said.
pub(crate) fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<i32> {
    if object.is_instance_of::<PyInt>() {
        return object.extract();
    }
    object.call_method0(intern!(object.py(), "fileno"))?.extract()
}

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
    fd: &Bound<'_, PyAny>,
    write: bool,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    operation(py, "wait_fd", On::Anything)?;
    may_block(py, "_goslings.await_fd()")?;
    match net::ready(descriptor(fd)?, direction(write), wait(timeout)?) {
        Ok(()) => Ok(true),
        Err(NetError::Wait(WaitError::TimedOut)) => Ok(false),
        Err(error) => Err(errors::net(py, error)),
    }
}

/// await_fd(fd, write, timeout=None): as `wait_fd`, awaited.
#[pyfunction]
#[pyo3(signature = (fd, write, timeout = None))]
pub(crate) fn await_fd(fd: i32, write: bool, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
    let wait = wait(timeout)?;
    Ok(Awaitable::call(
        move |caller| polled::ready(fd, direction(write), wait, caller),
        |py, result| match result {
            Ok(()) => Ok(PyBool::new(py, true).to_owned().into_any().unbind()),
            Err(NetError::Wait(WaitError::TimedOut)) => {
                Ok(PyBool::new(py, false).to_owned().into_any().unbind())
            }
            Err(error) => Err(errors::net(py, error)),
        },
        undo_nothing,
    )
    .about("await_fd", On::Anything))
}

/// Tells that `fd` is about to be closed. Whoever waits for it fails with OSError (EBADF). Never blocks.
#[pyfunction]
pub(crate) fn closing_fd(fd: i32) {
    net::closing(fd);
}

/// What a socket's timeout means: none waits for ever, 0 not at all.
fn limit(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_none()) else { return Ok(Wait::Forever) };
    let seconds = seconds(timeout, "timeout")?;
    if seconds < 0.0 {
        return Err(PyValueError::new_err("Timeout value out of range"));
    }
    Ok(from_seconds(seconds))
}

/// Begins a call that may wait.
fn begin(py: Python<'_>, label: &'static str, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Wait> {
    operation(py, label, On::Anything)?;
    may_block(py, "await its twin of goslings.net")?;
    limit(timeout)
}

/// Runs a system call that moves `bytes` bytes: detached, if that takes long.
#[inline]
pub(crate) fn carry_out<R: Send>(py: Python<'_>, bytes: usize, call: impl FnOnce() -> R) -> R {
    if bytes <= LARGE { call() } else { detached(py, call) }
}

/// Receives at most `n` bytes from a socket; b"" at the end of what the other side sends.
///
/// Tries without waiting; if there is nothing, parks the goroutine, or blocks the thread, and tries again, at most `timeout`
/// seconds: then TimeoutError("timed out"). None: for ever; 0: BlockingIOError at once. `flags`: as `socket.recv` has them.
/// The descriptor itself may block or not. Raises OSError by the error number; EBADF if it is closed meanwhile.
#[pyfunction]
#[pyo3(signature = (fd, n, flags = 0, timeout = None))]
pub(crate) fn sock_recv<'py>(
    py: Python<'py>,
    fd: &Bound<'_, PyAny>,
    n: isize,
    flags: i32,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let wait = begin(py, "socket.recv", timeout)?;
    let fd = descriptor(fd)?;
    let n = size(n, "recv")?;
    let got = net::attempt(fd, Direction::Read, wait, || {
        receive(py, n, |into| carry_out(py, n, || net::recv(fd, into, flags)))
    });
    got.map(|got| got.finish(py)).map_err(|error| errors::net(py, error))
}

/// Receives at most `nbytes` bytes (0: as many as fit) from a socket into `buffer`; returns how many. Else as `sock_recv`.
#[pyfunction]
#[pyo3(signature = (fd, buffer, nbytes = 0, flags = 0, timeout = None))]
pub(crate) fn sock_recv_into(
    py: Python<'_>,
    fd: &Bound<'_, PyAny>,
    buffer: &Bound<'_, PyAny>,
    nbytes: isize,
    flags: i32,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let wait = begin(py, "socket.recv_into", timeout)?;
    let fd = descriptor(fd)?;
    let view = View::writable(buffer)?;
    let into = room(&view, nbytes)?;
    net::attempt(fd, Direction::Read, wait, || carry_out(py, into.len(), || net::recv(fd, into, flags)))
        .map_err(|error| errors::net(py, error))
}

/// The part of a buffer that a caller wants to be filled.
pub(crate) fn room(view: &View, nbytes: isize) -> PyResult<net::Bytes> {
    let (bytes, nbytes) = (view.bytes(), size(nbytes, "recv_into")?);
    if nbytes > bytes.len() {
        return Err(PyValueError::new_err("buffer too small for requested bytes"));
    }
    Ok(if nbytes == 0 { bytes } else { bytes.first(nbytes) })
}

/// Sends what there is room for of `data` on a socket; returns how many bytes. Waits as `sock_recv` does until there is
/// some.
#[pyfunction]
#[pyo3(signature = (fd, data, flags = 0, timeout = None))]
pub(crate) fn sock_send(
    py: Python<'_>,
    fd: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    flags: i32,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let wait = begin(py, "socket.send", timeout)?;
    let fd = descriptor(fd)?;
    let view = View::of(data)?;
    let from = view.bytes();
    net::attempt(fd, Direction::Write, wait, || carry_out(py, from.len(), || net::send(fd, from, flags)))
        .map_err(|error| errors::net(py, error))
}

/// Sends all of `data` on a socket. Waits as `sock_recv` does whenever there is no room, at most `timeout` seconds in all.
#[pyfunction]
#[pyo3(signature = (fd, data, flags = 0, timeout = None))]
pub(crate) fn sock_sendall(
    py: Python<'_>,
    fd: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    flags: i32,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let wait = begin(py, "socket.sendall", timeout)?;
    let fd = descriptor(fd)?;
    let view = View::of(data)?;
    let mut left = view.bytes();
    while !left.is_empty() {
        let sent = net::attempt(fd, Direction::Write, wait, || {
            carry_out(py, left.len(), || net::send(fd, left, flags))
        });
        left = left.after(sent.map_err(|error| errors::net(py, error))?);
    }
    Ok(())
}

/// Accepts a connection on a listening socket: its descriptor, which blocks and is not inherited, and the address of the
/// other side, as `socket` has it for IPv4, IPv6 and Unix sockets; for others, the bytes of the sockaddr.
///
/// Waits as `sock_recv` does. The listening socket must not block by itself (O_NONBLOCK), or a client that gives up between
/// the look and the call would hold up the worker.
#[pyfunction]
#[pyo3(signature = (fd, timeout = None))]
pub(crate) fn sock_accept<'py>(
    py: Python<'py>,
    fd: &Bound<'_, PyAny>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<(i32, Bound<'py, PyAny>)> {
    let wait = begin(py, "socket.accept", timeout)?;
    let fd = descriptor(fd)?;
    let accepted = net::attempt(fd, Direction::Accept, wait, || net::accept(fd, true));
    let (new, from) = accepted.map_err(|error| errors::net(py, error))?;
    let address = address(py, &from)?;
    Ok((new.into_raw_fd(), address))
}

/// Reads at most `n` bytes from a pipe, a terminal or the like; b"" at its end. Waits as `sock_recv` does.
#[pyfunction]
#[pyo3(signature = (fd, n, timeout = None))]
pub(crate) fn read_fd<'py>(
    py: Python<'py>,
    fd: i32,
    n: isize,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let wait = begin(py, "os.read", timeout)?;
    let n = size(n, "read")?;
    let long = on_disk(py, fd)?;
    let got = net::attempt(fd, Direction::Read, wait, || {
        receive(py, n, |into| carry_out(py, if long { usize::MAX } else { n }, || net::read(fd, into)))
    });
    got.map(|got| got.finish(py)).map_err(|error| errors::net(py, error))
}

/// Writes `data` to a pipe, a terminal or the like; returns how many bytes were written: all, unless the descriptor is one
/// that does not block. Waits as `sock_recv` does whenever there is no room, at most `timeout` seconds in all.
#[pyfunction]
#[pyo3(signature = (fd, data, timeout = None))]
pub(crate) fn write_fd(
    py: Python<'_>,
    fd: i32,
    data: &Bound<'_, PyAny>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let wait = begin(py, "os.write", timeout)?;
    let view = View::of(data)?;
    let (all, failed) = (view.bytes(), |error: NetError| errors::net(py, error));
    let long = on_disk(py, fd)?;
    let once = long || !net::blocks(fd).map_err(|error| failed(error.into()))?;
    let mut done = 0;
    loop {
        let left = all.after(done);
        let write = |left: net::Bytes| {
            carry_out(py, if long { usize::MAX } else { left.len() }, || {
                if long { net::write_at_once(fd, left) } else { net::write(fd, left) }
            })
        };
        done += net::attempt(fd, Direction::Write, wait, || write(left)).map_err(failed)?;
        if once || done >= all.len() {
            return Ok(done);
        }
    }
}

fn on_disk(py: Python<'_>, fd: i32) -> PyResult<bool> {
    net::is_on_disk(fd).map_err(|error: io::Error| errors::net(py, error.into()))
}

/// An address as `socket` has it.
pub(crate) fn address<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address.parse() {
        Some(net::Parsed::V4(host, port)) => Ok((host.to_string(), port).into_pyobject(py)?.into_any()),
        Some(net::Parsed::V6(host, port, flow, scope)) => {
            Ok((host.to_string(), port, flow, scope).into_pyobject(py)?.into_any())
        }
        Some(net::Parsed::Path(path)) => Ok(OsStr::from_bytes(path).into_pyobject(py)?.into_any()),
        Some(net::Parsed::Abstract(name)) => Ok(PyBytes::new(py, name).into_any()),
        None if address.bytes().is_empty() => Ok(PyString::new(py, "").into_any()),
        None => Ok(PyBytes::new(py, address.bytes()).into_any()),
    }
}

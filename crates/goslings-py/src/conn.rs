//! `goslings.net`'s connections and listeners.

use crate::awaitable::{Awaitable, undo_nothing};
use crate::bubble::{On, operation};
use crate::bytes::{Got, View, receive, size};
use crate::errors;
use crate::host::may_block;
use crate::net::{address, carry_out, room};
use crate::timeout::{from_seconds, seconds, wait};
use goslings::net::{self, Direction, NetError, Owned};
use goslings::polled;
use goslings::{Deadline, Wait, WaitError};
use pyo3::exceptions::{PyEOFError, PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

/// How much is read ahead at a time.
const CHUNK: usize = 64 * 1024;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type RestLock = std::sync::Mutex<Vec<u8>>;

/// A moment after which calls fail, whenever they have begun: 0: none.
#[derive(Default)]
struct Limit(AtomicU64);

impl Limit {
    fn set(&self, after: Option<f64>) {
        let at = match after.map(from_seconds) {
            None | Some(Wait::Forever) => 0,
            Some(Wait::No) => goslings::now().0.max(1),
            Some(Wait::Until(at)) => at.0,
        };
        // Ordering: Relaxed. Who waits is roused through the descriptor's lock, and reads it anew.
        self.0.store(at, Ordering::Relaxed);
    }

    /// The sooner of this and what the call was given.
    fn and(&self, wait: Wait) -> Wait {
        // Ordering: Relaxed. As above.
        match (self.0.load(Ordering::Relaxed), wait) {
            (0, wait) => wait,
            (at, Wait::Forever) => Wait::Until(Deadline(at)),
            (at, Wait::Until(other)) => Wait::Until(other.min(Deadline(at))),
            (_, Wait::No) => Wait::No,
        }
    }

    /// Raises TimeoutError if it is over.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        // Ordering: Relaxed. As above.
        let at = self.0.load(Ordering::Relaxed);
        if at != 0 && at <= goslings::now().0 {
            return Err(errors::net(py, NetError::Wait(WaitError::TimedOut)));
        }
        Ok(())
    }
}

/// What a call shares with its awaited twin.
struct Inner {
    owned: Arc<Owned>,
    /// Whether a short read says that there is no more: so it is with TCP.
    short_is_all: bool,
    /// Whether the last read was short.
    all_read: AtomicBool,
    reads: Limit,
    writes: Limit,
    /// Whether there is something in `rest`.
    ahead: AtomicBool,
    /// What was read ahead.
    rest: RestLock,
}

impl Inner {
    /// Takes out at most `n` bytes of what was read ahead.
    fn take_rest(&self, n: usize) -> Option<Vec<u8>> {
        // Ordering: Relaxed. Two who read at the same time share what comes in any way.
        if n == 0 || !self.ahead.load(Ordering::Relaxed) {
            return None;
        }
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<u8> =
            if n >= rest.len() { std::mem::take(&mut rest) } else { rest.drain(..n).collect() };
        // Ordering: Relaxed. As above.
        self.ahead.store(!rest.is_empty(), Ordering::Relaxed);
        (!taken.is_empty()).then_some(taken)
    }

    /// Puts back what was read and not used: it comes first.
    fn put_rest(&self, mut bytes: Vec<u8>) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.append(&mut rest);
        // Ordering: Relaxed. As in `take_rest`.
        self.ahead.store(!bytes.is_empty(), Ordering::Relaxed);
        *rest = bytes;
    }

    /// Reads what there is, once; `call` is told the descriptor.
    fn read<T>(
        &self,
        py: Python<'_>,
        wait: Wait,
        wanted: usize,
        mut call: impl FnMut(i32) -> io::Result<T>,
        len: impl Fn(&T) -> usize,
    ) -> PyResult<T> {
        self.reads.check(py)?;
        // Ordering: Relaxed. Of two who read at the same time, each finds out for itself.
        let all_read = self.short_is_all && self.all_read.load(Ordering::Relaxed);
        let limit = || self.reads.and(wait);
        let got = self.owned.attempt(Direction::Read, limit, all_read, &mut call);
        let got = got.map_err(|error| failed(py, error))?;
        let count = len(&got);
        // Ordering: Relaxed. As above. The end is read for ever.
        self.all_read.store(count > 0 && count < wanted, Ordering::Relaxed);
        Ok(got)
    }
}

/// A call on a connection that failed.
fn failed(py: Python<'_>, error: NetError) -> PyErr {
    match error {
        // It tried at the last moment.
        NetError::System(libc::EAGAIN) => errors::net(py, NetError::Wait(WaitError::TimedOut)),
        error => errors::net(py, error),
    }
}

/// A connection: bytes that come and go, in order.
///
/// Made by `dial` and by `Listener.accept`. `Conn(fd)` takes over a connected stream socket. Any goroutine or thread may
/// use it at any time; one of them at a time should read, and one write. As a context manager it closes at the end.
#[pyclass(module = "goslings.net", frozen, weakref)]
pub(crate) struct Conn(Arc<Inner>);

impl Conn {
    fn from_fd(fd: OwnedFd, short_is_all: bool) -> Conn {
        Conn(Arc::new(Inner {
            owned: Arc::new(Owned::new(fd)),
            short_is_all,
            all_read: AtomicBool::new(false),
            reads: Limit::default(),
            writes: Limit::default(),
            ahead: AtomicBool::new(false),
            rest: RestLock::default(),
        }))
    }

    fn where_is<'py>(&self, py: Python<'py>, peer: bool) -> PyResult<Bound<'py, PyAny>> {
        let found = self.0.owned.with(|fd| net::address_of(fd, peer));
        address(py, &found.map_err(|error| failed(py, error))?)
    }
}

fn begin(
    py: Python<'_>,
    label: &'static str,
    twin: &str,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Wait> {
    operation(py, label, On::Anything)?;
    may_block(py, twin)?;
    wait(timeout)
}

/// A number of seconds from now, or None.
fn after(seconds_from_now: Option<&Bound<'_, PyAny>>) -> PyResult<Option<f64>> {
    seconds_from_now.filter(|value| !value.is_none()).map(|value| seconds(value, "deadline")).transpose()
}

#[pymethods]
impl Conn {
    #[new]
    fn new(py: Python<'_>, fd: i32) -> PyResult<Conn> {
        let tcp = net::prepare(fd).map_err(|error| errors::net(py, error.into()))?;
        // SAFETY: the caller gives it to us; it was looked at just now.
        Ok(Conn::from_fd(unsafe { OwnedFd::from_raw_fd(fd) }, tcp))
    }

    /// Receives at most `n` bytes, as soon as there are any; b"" once the other side has closed its sending half.
    ///
    /// Blocks, at most `timeout` seconds and until the deadline: then TimeoutError. Raises OSError by its error number.
    #[pyo3(signature = (n = 65536, timeout = None))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        n: isize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wait = begin(py, "Conn.recv", "conn.arecv()", timeout)?;
        let n = size(n, "recv")?;
        if let Some(rest) = self.0.take_rest(n) {
            return Ok(PyBytes::new(py, &rest));
        }
        let call = |fd| receive(py, n, |into| carry_out(py, n, || net::recv(fd, into, 0)));
        let got = self.0.read(py, wait, n, call, Got::len)?;
        Ok(got.finish(py))
    }

    /// Receives into `buffer` at most `nbytes` bytes (0: as many as fit); returns how many. Else as `recv`.
    #[pyo3(signature = (buffer, nbytes = 0, timeout = None))]
    fn recv_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let wait = begin(py, "Conn.recv_into", "conn.arecv()", timeout)?;
        let view = View::writable(buffer)?;
        let into = room(&view, nbytes)?;
        if let Some(rest) = self.0.take_rest(into.len()) {
            into.fill(&rest);
            return Ok(rest.len());
        }
        let call = |fd| carry_out(py, into.len(), || net::recv(fd, into, 0));
        self.0.read(py, wait, into.len(), call, |&count| count)
    }

    /// Receives exactly `n` bytes. Raises EOFError if the other side ends before: what came is received next.
    ///
    /// Blocks as `recv` does, at most `timeout` seconds in all.
    #[pyo3(signature = (n, timeout = None))]
    fn read_exactly<'py>(
        &self,
        py: Python<'py>,
        n: isize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wait = begin(py, "Conn.read_exactly", "conn.arecv()", timeout)?;
        let n = size(n, "read_exactly")?;
        let mut got = Vec::new();
        let ended = self.read_while(py, wait, &mut got, |got| (got.len() < n).then_some(n - got.len()))?;
        if ended {
            let count = got.len();
            self.0.put_rest(got);
            return Err(PyEOFError::new_err(format!("the connection ended after {count} of {n} bytes")));
        }
        let rest = got.split_off(n);
        if !rest.is_empty() {
            self.0.put_rest(rest);
        }
        Ok(PyBytes::new(py, &got))
    }

    /// Receives up to and including the next `separator`; at the end of the connection what is left, b"" if that is nothing.
    ///
    /// Raises ValueError if there is none within `limit` bytes; what came is received next. Blocks as `recv` does, at most
    /// `timeout` seconds in all.
    #[pyo3(signature = (separator = None, limit = 65536, timeout = None))]
    fn read_until<'py>(
        &self,
        py: Python<'py>,
        separator: Option<&[u8]>,
        limit: isize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let wait = begin(py, "Conn.read_until", "conn.arecv()", timeout)?;
        let separator = separator.unwrap_or(b"\n");
        if separator.is_empty() {
            return Err(PyValueError::new_err("empty separator"));
        }
        let limit = size(limit, "read_until")?;
        let (mut got, mut end, mut searched) = (Vec::new(), None, 0);
        self.read_while(py, wait, &mut got, |got| {
            // It may have begun in what was searched.
            let from = searched.min(got.len()).saturating_sub(separator.len() - 1);
            let found = got[from..].windows(separator.len()).position(|window| window == separator);
            searched = got.len();
            end = found.map(|at| from + at + separator.len());
            (end.is_none() && got.len() < limit).then_some(CHUNK)
        })?;
        let count = match end {
            Some(end) if end <= limit => end,
            None if got.len() < limit => got.len(),
            _ => {
                self.0.put_rest(got);
                return Err(PyValueError::new_err(format!("no separator within {limit} bytes")));
            }
        };
        let rest = got.split_off(count);
        if !rest.is_empty() {
            self.0.put_rest(rest);
        }
        Ok(PyBytes::new(py, &got))
    }

    /// Sends all of `data`. Blocks while the other side does not take it, at most `timeout` seconds and until the deadline:
    /// then TimeoutError, and nobody knows how much was sent. Raises OSError by its error number.
    #[pyo3(signature = (data, timeout = None))]
    fn send(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let wait = begin(py, "Conn.send", "conn.asend()", timeout)?;
        let view = View::of(data)?;
        let inner = &self.0;
        inner.writes.check(py)?;
        let mut left = view.bytes();
        let call = |fd| {
            while !left.is_empty() {
                left = left.after(carry_out(py, left.len(), || net::send(fd, left, 0))?);
            }
            Ok(())
        };
        let sent = inner.owned.attempt(Direction::Write, || inner.writes.and(wait), false, call);
        sent.map_err(|error| failed(py, error))
    }

    /// arecv(n=65536, timeout=None): as `recv`, awaited.
    #[pyo3(signature = (n = 65536, timeout = None))]
    fn arecv(&self, n: isize, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (n, wait) = (size(n, "recv")?.min(CHUNK), wait(timeout)?);
        let (owned, inner, limits, back) =
            (Arc::clone(&self.0.owned), Arc::clone(&self.0), Arc::clone(&self.0), Arc::clone(&self.0));
        let call = move |fd| {
            if let Some(rest) = inner.take_rest(n) {
                return Ok(rest);
            }
            let mut got = vec![0; n];
            let count = net::recv(fd, net::Bytes::of(&mut got), 0)?;
            got.truncate(count);
            Ok(got)
        };
        let awaitable = Awaitable::call(
            move |caller| {
                polled::attempt_owned(owned, Direction::Read, move || limits.reads.and(wait), call, caller)
            },
            |py, got: Result<Vec<u8>, NetError>| match got {
                Ok(got) => Ok(PyBytes::new(py, &got).into_any().unbind()),
                Err(error) => Err(failed(py, error)),
            },
            move |got| {
                if let Ok(got) = got {
                    back.put_rest(got);
                }
                None
            },
        );
        Ok(awaitable.about("Conn.arecv", On::Anything))
    }

    /// asend(data, timeout=None): as `send`, awaited. A copy of the data is sent. If it is cancelled, part of it may have
    /// been.
    #[pyo3(signature = (data, timeout = None))]
    fn asend(&self, data: &Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (mut data, wait) = (View::of(data)?.bytes().to_vec(), wait(timeout)?);
        let (owned, limits) = (Arc::clone(&self.0.owned), Arc::clone(&self.0));
        let mut done = 0;
        let call = move |fd| {
            while done < data.len() {
                done += net::send(fd, net::Bytes::of(&mut data[done..]), 0)?;
            }
            Ok(())
        };
        let awaitable = Awaitable::call(
            move |caller| {
                polled::attempt_owned(owned, Direction::Write, move || limits.writes.and(wait), call, caller)
            },
            |py, sent: Result<(), NetError>| sent.map(|()| py.None()).map_err(|error| failed(py, error)),
            undo_nothing,
        );
        Ok(awaitable.about("Conn.asend", On::Anything))
    }

    /// Has calls that receive or send fail with TimeoutError from `seconds` from now on, those that wait already as well.
    /// None: no deadline. Go: `SetDeadline`.
    fn set_deadline(&self, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let after = after(seconds)?;
        self.0.reads.set(after);
        self.0.writes.set(after);
        self.0.owned.rouse();
        Ok(())
    }

    /// As `set_deadline`, for receiving.
    fn set_read_deadline(&self, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.0.reads.set(after(seconds)?);
        self.0.owned.rouse();
        Ok(())
    }

    /// As `set_deadline`, for sending.
    fn set_write_deadline(&self, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.0.writes.set(after(seconds)?);
        self.0.owned.rouse();
        Ok(())
    }

    /// Closes the connection: calls that wait fail with OSError (EBADF). To close it again does nothing. Never blocks.
    fn close(&self) {
        self.0.owned.close();
    }

    /// Tells the other side that nothing more will be sent; receiving goes on. Never blocks.
    fn close_write(&self, py: Python<'_>) -> PyResult<()> {
        self.0.owned.with(net::shutdown_write).map_err(|error| failed(py, error))
    }

    /// Whether it was closed here.
    #[getter]
    fn closed(&self) -> bool {
        self.0.owned.number().is_none()
    }

    /// The descriptor's number; -1 once it is closed.
    fn fileno(&self) -> i32 {
        self.0.owned.number().unwrap_or(-1)
    }

    /// The address at this end, as `socket.getsockname` gives it.
    #[getter]
    fn local_address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.where_is(py, false)
    }

    /// The address of the other side, as `socket.getpeername` gives it.
    #[getter]
    fn peer_address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.where_is(py, true)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _type: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _tb: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        match self.0.owned.number() {
            Some(fd) => format!("<goslings.net.Conn fd={fd}>"),
            None => "<goslings.net.Conn closed>".into(),
        }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Conn"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Conn"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Conn"))
    }
}

impl Conn {
    /// Reads into `got` as long as `more` says how much it wants; whether the other side ended before. On failure what was
    /// read is put back.
    fn read_while(
        &self,
        py: Python<'_>,
        wait: Wait,
        got: &mut Vec<u8>,
        mut more: impl FnMut(&[u8]) -> Option<usize>,
    ) -> PyResult<bool> {
        if let Some(rest) = self.0.take_rest(usize::MAX) {
            *got = rest;
        }
        loop {
            let Some(wanted) = more(got) else { return Ok(false) };
            let n = wanted.min(CHUNK);
            let call = |fd| receive(py, n, |into| net::recv(fd, into, 0));
            match self.0.read(py, wait, n, call, Got::len) {
                Ok(read) => {
                    if read.len() == 0 {
                        return Ok(true);
                    }
                    read.append_to(got);
                }
                Err(error) => {
                    self.0.put_rest(std::mem::take(got));
                    return Err(error);
                }
            }
        }
    }
}

/// A socket that connections come in on.
///
/// Made by `listen`. `Listener(fd)` takes over a listening stream socket. Any goroutine or thread may use it at any time.
/// Iteration accepts until it is closed; as a context manager it closes at the end.
#[pyclass(module = "goslings.net", frozen, weakref)]
pub(crate) struct Listener {
    owned: Arc<Owned>,
    tcp: bool,
}

fn accept_one(fd: i32, tcp: bool) -> io::Result<OwnedFd> {
    let (new, _) = net::accept(fd)?;
    if tcp {
        net::no_delay(&new);
    }
    Ok(new)
}

impl Listener {
    fn accepting(&self, wait: Wait, closed: fn(Python<'_>, NetError) -> PyErr) -> Awaitable {
        let (owned, tcp) = (Arc::clone(&self.owned), self.tcp);
        Awaitable::call(
            move |caller| {
                polled::attempt_owned(
                    owned,
                    Direction::Read,
                    move || wait,
                    move |fd| accept_one(fd, tcp),
                    caller,
                )
            },
            move |py, new: Result<OwnedFd, NetError>| match new {
                Ok(new) => Ok(Bound::new(py, Conn::from_fd(new, tcp))?.into_any().unbind()),
                Err(error) => Err(closed(py, error)),
            },
            undo_nothing,
        )
        .about("Listener.aaccept", On::Anything)
    }
}

#[pymethods]
impl Listener {
    #[new]
    fn new(py: Python<'_>, fd: i32) -> PyResult<Listener> {
        let tcp = net::prepare(fd).map_err(|error| errors::net(py, error.into()))?;
        // SAFETY: the caller gives it to us; it was looked at just now.
        Ok(Listener { owned: Arc::new(Owned::new(unsafe { OwnedFd::from_raw_fd(fd) })), tcp })
    }

    /// Waits for a connection. Blocks, at most `timeout` seconds: then TimeoutError. Raises OSError by its error number: EBADF
    /// if it is closed, EMFILE if there are no descriptors left, and the connection waits.
    #[pyo3(signature = (timeout = None))]
    fn accept(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Conn> {
        let wait = begin(py, "Listener.accept", "listener.aaccept()", timeout)?;
        let new = self.owned.attempt(Direction::Read, || wait, false, |fd| accept_one(fd, self.tcp));
        Ok(Conn::from_fd(new.map_err(|error| failed(py, error))?, self.tcp))
    }

    /// aaccept(timeout=None): as `accept`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn aaccept(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Ok(self.accepting(wait(timeout)?, failed))
    }

    /// Closes it: whoever waits for a connection fails with OSError (EBADF), or ends its iteration. Connections that were
    /// accepted stay. To close it again does nothing. Never blocks.
    fn close(&self) {
        self.owned.close();
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.owned.number().is_none()
    }

    /// The descriptor's number; -1 once it is closed.
    fn fileno(&self) -> i32 {
        self.owned.number().unwrap_or(-1)
    }

    /// Where it listens, as `socket.getsockname` gives it.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let found = self.owned.with(|fd| net::address_of(fd, false));
        address(py, &found.map_err(|error| failed(py, error))?)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Conn>> {
        let wait = begin(py, "Listener.accept", "async for", None)?;
        match self.owned.attempt(Direction::Read, || wait, false, |fd| accept_one(fd, self.tcp)) {
            Ok(new) => Ok(Some(Conn::from_fd(new, self.tcp))),
            Err(NetError::Closed) => Ok(None),
            Err(error) => Err(failed(py, error)),
        }
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> Awaitable {
        self.accepting(Wait::Forever, |py, error| match error {
            NetError::Closed => PyStopAsyncIteration::new_err(()),
            error => failed(py, error),
        })
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _type: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _tb: &Bound<'_, PyAny>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        match self.owned.number() {
            Some(fd) => format!("<goslings.net.Listener fd={fd}>"),
            None => "<goslings.net.Listener closed>".into(),
        }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Listener"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Listener"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Listener"))
    }
}

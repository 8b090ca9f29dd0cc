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

/// The bytes below a connection; with TLS, below two.
struct Stream {
    owned: Arc<Owned>,
    /// Whether a short read says that there is no more: so it is with TCP.
    short_is_all: bool,
    /// Whether the last read was short.
    all_read: AtomicBool,
    reads: Limit,
    writes: Limit,
}

/// What a call shares with its awaited twin.
struct Inner {
    stream: Arc<Stream>,
    /// Whether there is something in `rest`.
    ahead: AtomicBool,
    /// What was read ahead.
    rest: RestLock,
}

impl Stream {
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

    /// Sends everything; `limit` says how long to wait, whenever it has to.
    fn send(&self, py: Python<'_>, data: &Bound<'_, PyAny>, limit: impl Fn() -> Wait) -> PyResult<()> {
        let view = View::of(data)?;
        self.writes.check(py)?;
        let mut left = view.bytes();
        let call = |fd| {
            while !left.is_empty() {
                left = left.after(carry_out(py, left.len(), || net::send(fd, left, 0))?);
            }
            Ok(())
        };
        let sent = self.owned.attempt(Direction::Write, || self.writes.and(limit()), false, call);
        sent.map_err(|error| failed(py, error))
    }
}

impl Inner {
    fn new(stream: Arc<Stream>) -> Inner {
        Inner { stream, ahead: AtomicBool::new(false), rest: RestLock::default() }
    }

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
///
/// `Conn(other)` is one more for the bytes of another connection. So subclasses are made that have something above these,
/// as TLS: they bring `recv` and `send`, their twins, `recv_into`, `close` and `close_write`.
#[pyclass(module = "goslings.net", frozen, subclass, weakref)]
pub(crate) struct Conn(Arc<Inner>);

impl Conn {
    fn from_fd(fd: OwnedFd, short_is_all: bool) -> Conn {
        Conn(Arc::new(Inner::new(Arc::new(Stream {
            owned: Arc::new(Owned::new(fd)),
            short_is_all,
            all_read: AtomicBool::new(false),
            reads: Limit::default(),
            writes: Limit::default(),
        }))))
    }

    fn where_is<'py>(&self, py: Python<'py>, peer: bool) -> PyResult<Bound<'py, PyAny>> {
        let found = self.0.stream.owned.with(|fd| net::address_of(fd, peer));
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
    fn new(fd: &Bound<'_, PyAny>) -> PyResult<Conn> {
        let py = fd.py();
        if let Ok(other) = fd.cast::<Conn>() {
            return Ok(Conn(Arc::new(Inner::new(Arc::clone(&other.get().0.stream)))));
        }
        let fd: i32 = fd.extract()?;
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
        let got = self.0.stream.read(py, wait, n, call, Got::len)?;
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
        self.0.stream.read(py, wait, into.len(), call, |&count| count)
    }

    /// Receives exactly `n` bytes. Raises EOFError if the other side ends before: what came is received next.
    ///
    /// Blocks as `recv` does, at most `timeout` seconds in all.
    #[pyo3(signature = (n, timeout = None))]
    fn read_exactly<'py>(
        slf: &Bound<'py, Self>,
        n: isize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (py, this) = (slf.py(), slf.get());
        let wait = begin(py, "Conn.read_exactly", "conn.arecv()", timeout)?;
        let n = size(n, "read_exactly")?;
        let mut got = Vec::new();
        let ended = read_while(slf, wait, &mut got, |got| (got.len() < n).then_some(n - got.len()))?;
        if ended {
            let count = got.len();
            this.0.put_rest(got);
            return Err(PyEOFError::new_err(format!("the connection ended after {count} of {n} bytes")));
        }
        let rest = got.split_off(n);
        if !rest.is_empty() {
            this.0.put_rest(rest);
        }
        Ok(PyBytes::new(py, &got))
    }

    /// Receives up to and including the next `separator`; at the end of the connection what is left, b"" if that is nothing.
    ///
    /// Raises ValueError if there is none within `limit` bytes; what came is received next. Blocks as `recv` does, at most
    /// `timeout` seconds in all.
    #[pyo3(signature = (separator = None, limit = 65536, timeout = None))]
    fn read_until<'py>(
        slf: &Bound<'py, Self>,
        separator: Option<&[u8]>,
        limit: isize,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (py, this) = (slf.py(), slf.get());
        let wait = begin(py, "Conn.read_until", "conn.arecv()", timeout)?;
        let separator = separator.unwrap_or(b"\n");
        if separator.is_empty() {
            return Err(PyValueError::new_err("empty separator"));
        }
        let limit = size(limit, "read_until")?;
        let (mut got, mut end, mut searched) = (Vec::new(), None, 0);
        read_while(slf, wait, &mut got, |got| {
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
                this.0.put_rest(got);
                return Err(PyValueError::new_err(format!("no separator within {limit} bytes")));
            }
        };
        let rest = got.split_off(count);
        if !rest.is_empty() {
            this.0.put_rest(rest);
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
        self.0.stream.send(py, data, || wait)
    }

    /// As `send`, but `timeout` is how long the other side may take nothing.
    fn _send_parts(&self, py: Python<'_>, data: &Bound<'_, PyAny>, timeout: f64) -> PyResult<()> {
        operation(py, "Conn.send", On::Anything)?;
        may_block(py, "conn.asend()")?;
        self.0.stream.send(py, data, || from_seconds(timeout))
    }

    /// Sends what there is room for; returns how many bytes. Never blocks.
    fn _try_send(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = View::of(data)?;
        let sent = self.0.stream.owned.with(|fd| match net::send(fd, view.bytes(), 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        });
        sent.map_err(|error| failed(py, error))
    }

    /// Takes out at most `n` bytes of what was read ahead.
    fn _take_rest<'py>(&self, py: Python<'py>, n: isize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.take_rest(size(n, "recv")?).unwrap_or_default()))
    }

    /// Puts back what was read and not used: it comes first.
    fn _put_rest(&self, data: &[u8]) {
        self.0.put_rest(data.to_vec());
    }

    /// `socket.shutdown`.
    fn _shutdown(&self, py: Python<'_>, how: i32) -> PyResult<()> {
        self.0.stream.owned.with(|fd| net::shutdown(fd, how)).map_err(|error| failed(py, error))
    }

    /// Has `close` forget what was not sent yet, and break the line.
    fn _reset(&self, py: Python<'_>) -> PyResult<()> {
        self.0.stream.owned.with(net::reset_at_close).map_err(|error| failed(py, error))
    }

    /// arecv(n=65536, timeout=None): as `recv`, awaited.
    #[pyo3(signature = (n = 65536, timeout = None))]
    fn arecv(&self, n: isize, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let (n, wait) = (size(n, "recv")?.min(CHUNK), wait(timeout)?);
        let stream = &self.0.stream;
        let (owned, limits) = (Arc::clone(&stream.owned), Arc::clone(stream));
        let (inner, back) = (Arc::clone(&self.0), Arc::clone(&self.0));
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
        let stream = &self.0.stream;
        let (owned, limits) = (Arc::clone(&stream.owned), Arc::clone(stream));
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
        self.0.stream.reads.set(after);
        self.0.stream.writes.set(after);
        self.0.stream.owned.rouse();
        Ok(())
    }

    /// As `set_deadline`, for receiving.
    fn set_read_deadline(&self, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.0.stream.reads.set(after(seconds)?);
        self.0.stream.owned.rouse();
        Ok(())
    }

    /// As `set_deadline`, for sending.
    fn set_write_deadline(&self, seconds: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.0.stream.writes.set(after(seconds)?);
        self.0.stream.owned.rouse();
        Ok(())
    }

    /// Closes the connection: calls that wait fail with OSError (EBADF). To close it again does nothing. Never blocks.
    fn close(&self) {
        self.0.stream.owned.close();
    }

    /// Tells the other side that nothing more will be sent; receiving goes on. Never blocks.
    fn close_write(&self, py: Python<'_>) -> PyResult<()> {
        self.0.stream.owned.with(|fd| net::shutdown(fd, libc::SHUT_WR)).map_err(|error| failed(py, error))
    }

    /// Whether it was closed here.
    #[getter]
    fn closed(&self) -> bool {
        self.0.stream.owned.number().is_none()
    }

    /// The descriptor's number; -1 once it is closed.
    fn fileno(&self) -> i32 {
        self.0.stream.owned.number().unwrap_or(-1)
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

    fn __exit__(
        slf: &Bound<'_, Self>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if slf.is_exact_instance_of::<Conn>() {
            slf.get().close();
            return Ok(());
        }
        slf.call_method0("close").map(drop)
    }

    fn __repr__(&self) -> String {
        match self.0.stream.owned.number() {
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

/// Reads into `got` as long as `more` says how much it wants; whether the other side ended before. On failure what was
/// read is put back.
fn read_while(
    conn: &Bound<'_, Conn>,
    wait: Wait,
    got: &mut Vec<u8>,
    mut more: impl FnMut(&[u8]) -> Option<usize>,
) -> PyResult<bool> {
    let (py, this) = (conn.py(), conn.get());
    let plain = conn.is_exact_instance_of::<Conn>();
    if let Some(rest) = this.0.take_rest(usize::MAX) {
        *got = rest;
    }
    loop {
        let Some(wanted) = more(got) else { return Ok(false) };
        let n = wanted.min(CHUNK);
        let before = got.len();
        let read = if plain {
            let call = |fd| receive(py, n, |into| net::recv(fd, into, 0));
            this.0.stream.read(py, wait, n, call, Got::len).map(|read| read.append_to(got))
        } else {
            receive_above(conn, n, wait).map(|read| got.extend_from_slice(read.as_bytes()))
        };
        match read {
            Ok(()) if got.len() == before => return Ok(true),
            Ok(()) => {}
            Err(error) => {
                this.0.put_rest(std::mem::take(got));
                return Err(error);
            }
        }
    }
}

/// Calls `recv` of a subclass.
fn receive_above<'py>(conn: &Bound<'py, Conn>, n: usize, wait: Wait) -> PyResult<Bound<'py, PyBytes>> {
    let left = match wait {
        Wait::Forever => None,
        Wait::No => Some(0.0),
        Wait::Until(at) => Some(at.0.saturating_sub(goslings::now().0) as f64 / 1e9),
    };
    Ok(conn.call_method1("recv", (n, left))?.cast_into::<PyBytes>()?)
}

/// A socket that connections come in on.
///
/// Made by `listen`. `Listener(fd)` takes over a listening stream socket. Any goroutine or thread may use it at any time.
/// Iteration accepts until it is closed; as a context manager it closes at the end.
#[pyclass(module = "goslings.net", frozen, subclass, weakref)]
pub(crate) struct Listener {
    owned: Arc<Owned>,
    tcp: bool,
}

fn accept_one(fd: i32, tcp: bool) -> io::Result<OwnedFd> {
    let (new, _) = net::accept(fd, false)?;
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
                    Direction::Accept,
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
        let new = self.owned.attempt(Direction::Accept, || wait, false, |fd| accept_one(fd, self.tcp));
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
        match self.owned.attempt(Direction::Accept, || wait, false, |fd| accept_one(fd, self.tcp)) {
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

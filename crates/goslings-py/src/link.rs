//! `Link`: messages between two processes. `goslings_shm` moves them; here is who waits, and for what.
//!
//! **Invariants**
//! * Who sends holds the turn to send, from the look for room to the record: so the room that was found is there, and the
//!   descriptors of messages come in the order of the messages. A turn is a lock of the runtime: whoever waits for it, or holds
//!   it and waits for room, parks.
//! * The leaf locks around the ends are held for moves and for system calls that do not wait.

use crate::bubble::{On, operation};
use crate::bytes::View;
use crate::errors;
use crate::host::{detached, may_block};
use crate::shm::{Mapped, system};
use crate::spin::{Spin, gather};
use crate::stream::{Batch, Streams, TURN, VALUE};
use crate::timeout::wait;
use goslings::net::{Direction, NetError, Owned};
use goslings::{Wait, WaitError};
use goslings_shm::{
    Body, FDS_MAX, INLINE_MAX, LinkError, Receiver, Sender, Source, Spares, Watched, generation, pair,
};
use pyo3::exceptions::{
    PyBrokenPipeError, PyConnectionError, PyEOFError, PyMemoryError, PyOSError, PyOverflowError, PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a link keeps the memory of a long message for another one.
const SPARE: Duration = Duration::from_secs(1);
/// How often whoever would rather not wait looks for the turn to send, which is seldom taken for longer than a record takes.
const TRIES: u32 = 64;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for moves and calls that do not wait")]
type Leaf<T> = std::sync::Mutex<T>;

/// One end, and whose turn it is with it.
struct End<T> {
    turn: goslings::Mutex,
    state: Leaf<T>,
}

impl<T> End<T> {
    fn new(state: T) -> End<T> {
        End { turn: goslings::Mutex::new(), state: Leaf::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, wait: Wait) -> Result<Turn<'_>, WaitError> {
        self.turn.lock(wait)?;
        Ok(Turn(&self.turn))
    }
}

/// From here to its drop.
struct Turn<'a>(&'a goslings::Mutex);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let unlocked = self.0.unlock();
        debug_assert_eq!(unlocked, Ok(()), "ours");
    }
}

/// Link(fd): messages to and from another process, which has made a Link of the other end of the same socket pair.
///
/// `fd` is one of a connected pair of Unix stream sockets that nothing was sent on; the link takes it over. Messages are
/// delivered whole, in order, and each once. Short ones go through shared memory without a system call, unless the other side
/// sleeps; long ones in a file of their own, which the other side maps. Any goroutine or thread may send or receive at any time.
/// A forked child cannot use it, and does not keep it open.
///
/// Raises OSError by the error number if there is no memory or no descriptor for it; `fd` is the caller's then.
#[pyclass(module = "goslings._goslings", frozen, weakref)]
pub(crate) struct Link {
    socket: Owned,
    /// Can be read when there may be room.
    room: Owned,
    sending: End<Sender>,
    receiving: End<Receiver>,
    spin: Spin,
    /// Whether messages wait to be sent: whoever sends without waiting queues behind them.
    queued: AtomicBool,
    /// The memory of long messages.
    spares: Arc<Spares>,
    /// The message that `recv` could not map.
    unmapped: Leaf<Option<OwnedFd>>,
    /// Whether this end was closed: whatever stops a call then, that is why.
    closed: AtomicBool,
    /// Which process made it, by how many forks that descends from.
    generation: u32,
    /// Its sockets, until they are closed.
    watched: Leaf<Option<Watched>>,
}

/// A long message that was written, and not sent.
#[pyclass(module = "goslings._goslings", name = "_Letter", frozen)]
pub(crate) struct Letter {
    file: OwnedFd,
    len: usize,
}

/// What stopped a call.
pub(crate) enum Stopped {
    Net(NetError),
    Link(LinkError),
    Python(PyErr),
}

impl From<NetError> for Stopped {
    fn from(error: NetError) -> Stopped {
        Stopped::Net(error)
    }
}

impl From<LinkError> for Stopped {
    fn from(error: LinkError) -> Stopped {
        Stopped::Link(error)
    }
}

impl Stopped {
    fn raise(self, py: Python<'_>, link: &Link, sending: bool) -> PyErr {
        match self {
            Stopped::Link(_) if link.is_closed() => errors::os(py, libc::EBADF),
            Stopped::Net(error) => errors::net(py, error),
            Stopped::Link(LinkError::Ended) if sending => {
                PyBrokenPipeError::new_err((libc::EPIPE, "the other side of the link is gone"))
            }
            Stopped::Link(LinkError::Ended) => PyEOFError::new_err("the other side of the link is gone"),
            Stopped::Link(LinkError::Garbage(why)) => PyConnectionError::new_err(format!(
                "the other side of the link does not follow the rules: {why}"
            )),
            Stopped::Link(LinkError::System(error)) => system(py, &error),
            Stopped::Python(error) => error,
        }
    }
}

fn borrowed(fd: &i32) -> BorrowedFd<'_> {
    // SAFETY: of an `Owned`, in a call that keeps it open.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

/// What is left to wait after `wait` began.
fn no_wait(error: NetError) -> NetError {
    if error == NetError::System(libc::EAGAIN) { NetError::Wait(WaitError::TimedOut) } else { error }
}

impl Link {
    /// Calls `attempt` until it gives something, and waits in between until `of` is ready.
    fn until<T>(
        of: &Owned,
        direction: Direction,
        wait: Wait,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> Result<Option<T>, Stopped>,
    ) -> Result<T, Stopped> {
        let attempt = |fd: i32| match attempt(borrowed(&fd)) {
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(Some(done)) => Ok(Ok(done)),
            Err(stopped) => Ok(Err(stopped)),
        };
        of.attempt(direction, || wait, false, attempt).map_err(no_wait)?
    }

    /// Writes a long message. Somebody sees to it that its memory is not kept for longer than it is used.
    fn apart(&self, py: Python<'_>, len: usize, sources: &[Source<'_>]) -> PyResult<OwnedFd> {
        let written = detached(py, || self.spares.written(len, sources));
        let written = written.map_err(|error| unwritten(py, &error, len))?;
        if self.spares.must_be_tended() {
            let spares = Arc::downgrade(&self.spares);
            let tend = move || {
                while spares.upgrade().is_some_and(|spares| spares.trim(SPARE)) {
                    thread::sleep(SPARE / 2);
                }
            };
            if thread::Builder::new().name("goslings-spares".into()).spawn(tend).is_err() {
                self.spares.trim(Duration::ZERO);
            }
        }
        Ok(written)
    }

    /// Calls `send` with a message that is given as its parts, or as a letter: how long it is, its parts, and if it is a long one
    /// the file that it was written to.
    fn outgoing<T>(
        &self,
        parts: &Bound<'_, PyAny>,
        send: impl FnOnce(usize, &[Source<'_>], Option<BorrowedFd<'_>>) -> Result<T, Stopped>,
    ) -> PyResult<T> {
        let py = parts.py();
        if let Ok(letter) = parts.cast::<Letter>() {
            let letter = letter.get();
            let sent = send(letter.len, &[], Some(letter.file.as_fd()));
            return sent.map_err(|stopped| stopped.raise(py, self, true));
        }
        let views = views(parts)?;
        let sources: Vec<Source<'_>> = views.iter().map(View::source).collect();
        let len: usize = sources.iter().map(Source::len).sum();
        let apart = if len > INLINE_MAX { Some(self.apart(py, len, &sources)?) } else { None };
        let sent = send(len, &sources, apart.as_ref().map(AsFd::as_fd));
        sent.map_err(|stopped| stopped.raise(py, self, true))
    }

    fn send_parts(
        &self,
        len: usize,
        sources: &[Source<'_>],
        apart: Option<BorrowedFd<'_>>,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> Result<(), Stopped> {
        let _turn = self.sending.turn(wait).map_err(NetError::Wait)?;
        let reserve = |room: BorrowedFd<'_>| {
            let reserved = self.socket.with(|socket| {
                let mut sender = self.sending.state();
                let reserved = sender.reserve(len, borrowed(&socket), room);
                if apart.is_none() && fds.is_empty() && matches!(reserved, Ok(Some(()))) {
                    sender.commit(borrowed(&socket), len, sources, 0);
                }
                Ok(reserved)
            });
            Ok(reserved??)
        };
        Link::until(&self.room, Direction::Read, wait, reserve)?;
        if apart.is_none() && fds.is_empty() {
            return Ok(());
        }
        let all: Vec<BorrowedFd<'_>> = apart.into_iter().chain(fds.iter().copied()).collect();
        let send = |socket: BorrowedFd<'_>| {
            let mut sender = self.sending.state();
            let sent = sender.send_fds(socket, &all)?;
            if sent.is_some() {
                sender.commit(socket, len, sources, all.len());
            }
            Ok(sent)
        };
        Link::until(&self.socket, Direction::Write, wait, send)
    }

    /// Sends one short message if that needs no waiting and nothing else is queued; returns whether it was sent.
    pub(crate) fn put(&self, sources: &[Source<'_>]) -> Result<bool, Stopped> {
        if self.generation != generation() {
            return Err(Stopped::Link(LinkError::Ended));
        }
        // Ordering: Acquire pairs with the Release in `_hold`. Whoever queued something before this call has set it before;
        // when it is not set any more, what was queued is sent.
        if self.queued.load(Ordering::Acquire) {
            return Ok(false);
        }
        let len = sources.iter().map(Source::len).sum();
        let put = {
            let mut sender = self.sending.state();
            let put = sender.put(len, sources);
            if put == Some(true) {
                // If it is closed by now, the other side finds what was sent before the end.
                let _ = self.socket.with(|socket| {
                    sender.ring(borrowed(&socket));
                    Ok(())
                });
            }
            put
        };
        if put.is_some() { Ok(true) } else { self.post_parts(len, sources, None, &[]) }
    }

    /// As `send_parts`, but never waits: false if there is no room, or somebody else sends.
    fn post_parts(
        &self,
        len: usize,
        sources: &[Source<'_>],
        apart: Option<BorrowedFd<'_>>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool, Stopped> {
        let try_lock = || {
            std::hint::spin_loop();
            self.sending.turn.try_lock()
        };
        if !(self.sending.turn.try_lock() || (0..TRIES).any(|_| try_lock())) {
            return Ok(false);
        }
        let _turn = Turn(&self.sending.turn);
        let sent = self.room.with(|room| {
            Ok(self.socket.with(|socket| {
                let (room, socket) = (borrowed(&room), borrowed(&socket));
                let all: Vec<BorrowedFd<'_>> = apart.into_iter().chain(fds.iter().copied()).collect();
                let mut sender = self.sending.state();
                let reserved = sender.reserve(len, socket, room);
                Ok(reserved.and_then(|reserved| {
                    if reserved.is_none() || !all.is_empty() && sender.send_fds(socket, &all)?.is_none() {
                        return Ok(false);
                    }
                    sender.commit(socket, len, sources, all.len());
                    Ok(true)
                }))
            }))
        });
        Ok(sent???)
    }

    /// Sends a message if that needs no waiting, as `_post`: whether it was sent.
    pub(crate) fn post_bytes(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<bool> {
        self.here()?;
        let sent = self.post_parts(bytes.len(), &[Source::from(bytes)], None, &[]);
        sent.map_err(|stopped| stopped.raise(py, self, true))
    }

    /// The next message. Those that belong to streams go to `streams`, if there are any.
    fn recv_one<'py>(
        &self,
        py: Python<'py>,
        wait: Wait,
        streams: Option<&Streams>,
    ) -> Result<(Bound<'py, PyAny>, Vec<OwnedFd>), Stopped> {
        let _turn = self.receiving.turn(wait).map_err(NetError::Wait)?;
        let mut spun = wait == Wait::No;
        let mut asleep: Option<Instant> = None;
        let mut batch = streams.map(Batch::new);
        let receive = |socket: BorrowedFd<'_>| {
            if let Some(since) = asleep.take() {
                self.spin.slept(since.elapsed());
            }
            loop {
                let mut receiver = self.receiving.state();
                if receiver.is_empty() {
                    if batch.as_mut().is_some_and(|batch| batch.is_turn_of_others(1)) {
                        drop(receiver);
                        goslings::yield_now();
                        continue;
                    }
                    if !spun {
                        spun = true;
                        drop(receiver);
                        let is_near = || self.receiving.state().is_near();
                        let came = self.spin.until_unless(py, || !self.receiving.state().is_empty(), is_near);
                        if batch.as_mut().is_some_and(Batch::flows) && came {
                            gather(py);
                        }
                        continue;
                    }
                }
                let Some(len) = receiver.next(socket)? else {
                    spun = false;
                    asleep = Some(Instant::now());
                    return Ok(None);
                };
                if let Some(batch) = &mut batch {
                    let collected = batch.collect(&mut receiver);
                    if !batch.is_empty() {
                        drop(receiver);
                        batch.deliver(py)?;
                        collected?;
                        if batch.is_turn_of_others(TURN) {
                            goslings::yield_now();
                        }
                        continue;
                    }
                    collected?;
                }
                drop(receiver);
                let (bytes, room) = new_bytes(py, len).map_err(Stopped::Python)?;
                // The turn is ours: it is still the next one.
                let message = self.receiving.state().take(socket, room)?;
                if streams.is_some() && bytes.as_bytes().first() == Some(&VALUE) {
                    return Err(LinkError::Garbage("a value without a head, or with descriptors").into());
                }
                return match message.body {
                    Body::Copied => Ok(Some((bytes.into_any(), message.fds))),
                    Body::Apart(memory, len) => {
                        let view = view_of(py, memory, len).map_err(Stopped::Python)?;
                        Ok(Some((view, message.fds)))
                    }
                    Body::Unmapped(file, error) => {
                        let old = self.unmapped().replace(file);
                        drop(old);
                        Err(Stopped::Link(LinkError::System(error)))
                    }
                };
            }
        };
        let received = Link::until(&self.socket, Direction::Read, wait, receive);
        if let Err(Stopped::Link(LinkError::Ended | LinkError::Garbage(_))) = &received {
            self.sending.state().reader_is_gone();
        }
        received
    }

    fn unmapped(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.unmapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        // Ordering: Relaxed. See `shut`.
        self.closed.load(Ordering::Relaxed)
    }

    fn say_goodbye(&self) {
        let shut = self.socket.with(|socket| {
            self.receiving.state().leave(borrowed(&socket));
            // SAFETY: a descriptor that stays open during the call.
            unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
            Ok(())
        });
        // Somebody else has closed it meanwhile.
        let _ = shut;
        // Now, and not when the object is gone: whoever has referred to it last may sleep for long before that is known.
        self.receiving.state().close();
        self.sending.state().close();
    }

    /// Refuses to take part in a forked child.
    fn here(&self) -> PyResult<()> {
        if self.generation == generation() {
            return Ok(());
        }
        Err(errors::misuse("a link cannot be used in a forked child: it is of the process that made it"))
    }

    fn shut(&self) {
        // Ordering: Relaxed. Who is woken by what follows is ordered by that.
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // A forked child has nothing to say: the link is its parent's.
        if self.generation == generation() {
            self.say_goodbye();
        }
        drop(self.watched.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.socket.close();
        self.room.close();
        self.spares.trim(Duration::ZERO);
    }
}

/// The parts of a message, as they are now.
fn views(parts: &Bound<'_, PyAny>) -> PyResult<Vec<View>> {
    parts.try_iter()?.map(|part| View::of(&part?)).collect()
}

/// Why a message of `len` bytes could not be written.
fn unwritten(py: Python<'_>, error: &io::Error, len: usize) -> PyErr {
    let os = |number: i32, why: &str| {
        PyOSError::new_err((number, format!("no shared memory for a message of {len} bytes: {why}")))
    };
    match error.raw_os_error() {
        Some(libc::ENOMEM) => PyMemoryError::new_err(format!(
            "no shared memory for a message of {len} bytes: let go of others, or send it in parts"
        )),
        Some(number @ libc::ENOSPC) => {
            os(number, "it is full; let go of other messages, or send it in parts")
        }
        Some(number @ libc::EFBIG) => os(number, "larger than files may be (RLIMIT_FSIZE, ulimit -f)"),
        Some(number @ (libc::EMFILE | libc::ENFILE)) => {
            os(number, "no descriptor is left (RLIMIT_NOFILE, ulimit -n)")
        }
        _ => system(py, error),
    }
}

/// New bytes, and the room in them, which is to be filled before anybody else sees them.
fn new_bytes<'py>(
    py: Python<'py>,
    len: usize,
) -> PyResult<(Bound<'py, PyBytes>, &'py mut [MaybeUninit<u8>])> {
    let size = isize::try_from(len).map_err(|_| PyOverflowError::new_err(()))?;
    // SAFETY: attached; new bytes that nobody else has seen, or null with an exception.
    let bytes =
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size)) }?;
    // SAFETY: just made as that.
    let bytes: Bound<'py, PyBytes> = unsafe { bytes.cast_into_unchecked() };
    // SAFETY: `len` bytes that are ours to fill; the object lives as long as they are used, in `recv_one`.
    let room = unsafe { std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(bytes.as_ptr()).cast(), len) };
    Ok((bytes, room))
}

/// A view of the first `len` bytes of a mapping, which it keeps.
fn view_of(py: Python<'_>, memory: goslings_shm::Mapped, len: usize) -> PyResult<Bound<'_, PyAny>> {
    let whole = Bound::new(py, Mapped::wrap(memory))?;
    let view = PyMemoryView::from(whole.as_any())?;
    if view.len()? == len {
        return Ok(view.into_any());
    }
    let len = isize::try_from(len).map_err(|_| PyMemoryError::new_err(()))?;
    view.get_item(PySlice::new(py, 0, len, 1))
}

#[pymethods]
impl Link {
    #[new]
    fn new(py: Python<'_>, fd: i32) -> PyResult<Link> {
        if fd < 0 {
            return Err(errors::os(py, libc::EBADF));
        }
        goslings::net::prepare(fd).map_err(|error| errors::net(py, error.into()))?;
        let (sender, receiver, room) = pair(borrowed(&fd)).map_err(|error| system(py, &error))?;
        // SAFETY: the caller gives it to us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let watched = Watched::new(&[fd, room.as_raw_fd()]);
        Ok(Link {
            socket: Owned::new(socket),
            room: Owned::new(room),
            sending: End::new(sender),
            receiving: End::new(receiver),
            spin: Spin::default(),
            queued: AtomicBool::new(false),
            spares: Arc::default(),
            unmapped: Leaf::new(None),
            closed: AtomicBool::new(false),
            generation: generation(),
            watched: Leaf::new(Some(watched)),
        })
    }

    /// Sends one message: the bytes of all `parts`, one after another, and copies of the descriptors `fds` (at most 252).
    ///
    /// Blocks while there is no room, at most `timeout` seconds: then TimeoutError. A call that fails has sent nothing. Raises
    /// BrokenPipeError if the other side has closed or died; it may have done so before it had received everything.
    /// ConnectionError if it does not follow the rules, MemoryError and OSError (ENOSPC, EMFILE, ETOOMANYREFS) if the system
    /// has no room for a long message or its descriptors; OSError (EBADF) if this end is closed.
    #[pyo3(signature = (parts, fds = None, timeout = None))]
    fn send(
        &self,
        py: Python<'_>,
        parts: &Bound<'_, PyAny>,
        fds: Option<Vec<i32>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        operation(py, "Link.send", On::Anything)?;
        self.here()?;
        may_block(py, "go(link.send, ...)")?;
        let wait = wait(timeout)?;
        let fds = fds.unwrap_or_default();
        if fds.len() > FDS_MAX {
            return Err(PyValueError::new_err(format!("more than {FDS_MAX} descriptors in one message")));
        }
        if fds.iter().any(|&fd| fd < 0) {
            return Err(errors::os(py, libc::EBADF));
        }
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(borrowed).collect();
        self.outgoing(parts, |len, sources, apart| self.send_parts(len, sources, apart, &fds, wait))
    }

    /// Sends one message if that needs no waiting; returns whether it was sent. Never blocks and is no
    /// cancel point. Raises what `send` raises.
    fn _post(&self, parts: &Bound<'_, PyAny>, fds: Vec<i32>) -> PyResult<bool> {
        self.here()?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(borrowed).collect();
        self.outgoing(parts, |len, sources, apart| self.post_parts(len, sources, apart, &fds))
    }

    /// The same for a short message and nothing else, unless messages wait to be sent (`_hold`): false then.
    fn _put(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<bool> {
        self.here()?;
        self.put(&[Source::from(data.as_bytes())]).map_err(|stopped| stopped.raise(py, self, true))
    }

    /// Writes a long message, so that sending it needs no more memory and no more copy: what `send` and `_post` take in place
    /// of its parts. Of a short one, the parts themselves. Never blocks. Raises MemoryError and OSError as `send` does.
    fn _written<'py>(&self, parts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.here()?;
        let py = parts.py();
        let views = views(parts)?;
        let sources: Vec<Source<'_>> = views.iter().map(View::source).collect();
        let len: usize = sources.iter().map(Source::len).sum();
        if len <= INLINE_MAX {
            return Ok(parts.clone());
        }
        let file = self.apart(py, len, &sources)?;
        Ok(Bound::new(py, Letter { file, len })?.into_any())
    }

    /// From now on long messages can be written where they are received: a page is copied when it is written.
    fn _let_write(&self) {
        self.receiving.state().let_write();
    }

    /// The first bytes, at most `size`, of the message that `recv` could not map, once; None if there is none.
    fn _unmapped<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(file) = self.unmapped().take() else { return Ok(None) };
        let mut bytes = vec![0; size];
        let count = std::fs::File::from(file).read_at(&mut bytes, 0)?;
        Ok(Some(PyBytes::new(py, &bytes[..count])))
    }

    /// Receives the next message: its bytes, and the descriptors that came with it, which are the caller's to close. The bytes
    /// are `bytes`, or for a long message a read-only memoryview of shared memory, which is free when that is gone.
    ///
    /// Blocks while there is none, at most `timeout` seconds: then TimeoutError. Raises EOFError if the other side has closed or
    /// died and everything that it sent is received; ConnectionError if it does not follow the rules; OSError (EMFILE) if there
    /// are no descriptors for the message, and MemoryError if there is no room for it, which stays the next one; a long one that
    /// cannot be mapped is lost, and the next one can be had; OSError (EBADF) if this end is closed.
    #[pyo3(signature = (timeout = None))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyList>)> {
        operation(py, "Link.recv", On::Anything)?;
        self.here()?;
        may_block(py, "go(link.recv)")?;
        let wait = wait(timeout)?;
        let (bytes, fds) = self.recv_one(py, wait, None).map_err(|stopped| stopped.raise(py, self, false))?;
        let fds = PyList::new(py, fds.into_iter().map(IntoRawFd::into_raw_fd))?;
        Ok((bytes, fds))
    }

    /// As `recv`, without a timeout, but values of streams go to their channels.
    fn _recv<'py>(
        &self,
        py: Python<'py>,
        streams: &Streams,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyList>)> {
        operation(py, "Link.recv", On::Anything)?;
        self.here()?;
        may_block(py, "go(link.recv)")?;
        let received = self.recv_one(py, Wait::Forever, Some(streams));
        let (bytes, fds) = received.map_err(|stopped| stopped.raise(py, self, false))?;
        let fds = PyList::new(py, fds.into_iter().map(IntoRawFd::into_raw_fd))?;
        Ok((bytes, fds))
    }

    /// Whether messages wait to be sent: then values of streams queue behind them.
    fn _hold(&self, queued: bool) {
        // Ordering: Release. See `put`.
        self.queued.store(queued, Ordering::Release);
    }

    /// Closes this end: calls that wait fail with OSError (EBADF), the other side receives what was sent, then the end. Closing
    /// twice is no error. Never blocks.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Link.close", On::Anything)?;
        self.shut();
        Ok(())
    }

    /// Whether this end is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    /// The descriptor of the socket; -1 if it is closed. Not to be read or written.
    fn fileno(&self) -> i32 {
        self.socket.number().unwrap_or(-1)
    }

    fn __enter__(slf: Bound<'_, Link>) -> Bound<'_, Link> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        match self.socket.number() {
            Some(fd) => format!("<Link on descriptor {fd}>"),
            None => "<Link, closed>".into(),
        }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Link"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Link"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Link"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shut();
    }
}

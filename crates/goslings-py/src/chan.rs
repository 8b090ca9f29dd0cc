//! `chan`, and its send-only and receive-only views.

use crate::awaitable::{Awaitable, Form};
use crate::bubble::{On, operation};
use crate::errors::{self, no_copy, no_pickle};
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::quick::{ChannelOf, HasChannel};
use crate::timeout::wait;
use crate::value::{Channel, Value};
use goslings::Wait;
use goslings::chan::{RecvError, TryRecvError};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};
use std::sync::Arc;

/// chan(capacity=0): a typed conduit between goroutines, threads and tasks; Go's channel.
///
/// `capacity` is how many values it buffers; 0 is a rendezvous, where a send ends together with a receive.
/// Waiters are served first in, first out, and each value goes to exactly one receiver.
///
/// Raises ValueError for a negative capacity, TypeError for one that is not an int.
#[pyclass(name = "chan", module = "goslings", frozen, weakref, generic)]
pub(crate) struct PyChan {
    pub(crate) channel: Arc<Channel>,
}

/// A view of a channel that only sends. Equal to its channel. Made by `chan.sender()`.
#[pyclass(module = "goslings", frozen, weakref, generic)]
pub(crate) struct SendChan {
    pub(crate) channel: Arc<Channel>,
    /// The channel it is a view of: what the collector finds the buffer by.
    of: Py<PyChan>,
}

/// A view of a channel that only receives, and cannot close it. Equal to its channel. Made by
/// `chan.receiver()`; `after`, `Timer.c`, `Ticker.c` and `Goroutine.finished` are such views.
#[pyclass(module = "goslings", frozen, weakref, generic)]
pub(crate) struct RecvChan {
    pub(crate) channel: Arc<Channel>,
    /// The channel it is a view of, if that is a `chan`: what the collector finds the buffer by.
    pub(crate) of: Option<Py<PyChan>>,
    /// What must live as long as somebody may receive here: the timer behind the channel, if any.
    pub(crate) timer: Option<Arc<goslings::Timer>>,
}

impl HasChannel for PyChan {
    fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl HasChannel for SendChan {
    fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

impl HasChannel for RecvChan {
    fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    fn keeps_more(&self) -> bool {
        self.timer.is_some()
    }
}

/// The channel behind a `chan` or a view of it; None for anything else.
pub(crate) fn channel_of(object: &Bound<'_, PyAny>) -> Option<Arc<Channel>> {
    if let Ok(chan) = object.cast::<PyChan>() {
        return Some(Arc::clone(&chan.get().channel));
    }
    if let Ok(view) = object.cast::<RecvChan>() {
        return Some(Arc::clone(&view.get().channel));
    }
    object.cast::<SendChan>().ok().map(|view| Arc::clone(&view.get().channel))
}

fn send(channel: &Channel, value: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let py = value.py();
    operation(py, "chan.send", On::Made(channel.bubble()))?;
    may_block(py, "ch.asend(value)")?;
    let wait = wait(timeout)?;
    channel.send(Value::Object(value.unbind()), wait).map_err(|error| errors::send(py, error))
}

/// The same without a timeout, where it may block: for quick.rs, as what follows.
#[inline]
pub(crate) fn send_here(channel: &Channel, value: Bound<'_, PyAny>) -> PyResult<()> {
    let py = value.py();
    operation(py, "chan.send", On::Made(channel.bubble()))?;
    channel.send(Value::Object(value.unbind()), Wait::Forever).map_err(|error| errors::send(py, error))
}

fn recv(channel: &Channel, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    operation(py, "chan.recv", On::Made(channel.bubble()))?;
    may_block(py, "ch.arecv()")?;
    match channel.recv(wait(timeout)?) {
        Ok(value) => Ok(value.into_object(py)),
        Err(error) => Err(errors::recv(py, error)),
    }
}

#[inline]
pub(crate) fn recv_here(channel: &Channel, py: Python<'_>) -> PyResult<Py<PyAny>> {
    operation(py, "chan.recv", On::Made(channel.bubble()))?;
    match channel.recv(Wait::Forever) {
        Ok(value) => Ok(value.into_object(py)),
        Err(error) => Err(errors::recv(py, error)),
    }
}

/// The receiving end of a channel that is never ready, also for goroutines of a bubble: Go's nil channel as an object.
#[pyfunction]
#[pyo3(name = "_never")]
pub(crate) fn never() -> RecvChan {
    RecvChan { channel: Arc::new(Channel::never()), of: None, timer: None }
}

/// Receives for a thread that only serves others: it does not count for deadlocks.
#[pyfunction]
#[pyo3(name = "_recv_idle")]
pub(crate) fn recv_idle(
    py: Python<'_>,
    ch: &Bound<'_, PyChan>,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>> {
    goslings::idle(|| recv(&ch.get().channel, py, Some(timeout)))
}

/// Receives for a queue of the standard library: a thread that waits does not count for deadlocks.
#[pyfunction]
#[pyo3(name = "_recv_outside", signature = (ch, timeout = None))]
pub(crate) fn recv_outside(
    py: Python<'_>,
    ch: &Bound<'_, PyChan>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let channel = &ch.get().channel;
    operation(py, "queue.SimpleQueue.get", On::Made(channel.bubble()))?;
    let wait = wait(timeout)?;
    match goslings::outside(|| channel.recv(wait)) {
        Ok(value) => Ok(value.into_object(py)),
        Err(error) => Err(errors::recv(py, error)),
    }
}

fn recv_ok<'py>(
    channel: &Channel,
    py: Python<'py>,
    timeout: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    operation(py, "chan.recv", On::Made(channel.bubble()))?;
    may_block(py, "ch.arecv_ok()")?;
    match channel.recv(wait(timeout)?) {
        Ok(value) => (value.into_object(py), true).into_pyobject(py),
        Err(RecvError::Closed) => (py.None(), false).into_pyobject(py),
        Err(error) => Err(errors::recv(py, error)),
    }
}

fn try_send(channel: &Channel, value: Bound<'_, PyAny>) -> PyResult<bool> {
    operation(value.py(), "chan.try_send", On::Made(channel.bubble()))?;
    match channel.try_send(Value::Object(value.unbind())) {
        Ok(()) => Ok(true),
        Err(error) => errors::try_send(&error).map_or(Ok(false), Err),
    }
}

/// An argument that may be left out, where None is a value like any other.
enum Optional {
    Missing,
    Given(Py<PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Optional {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Optional::Given(object.to_owned().unbind()))
    }
}

fn try_recv(channel: &Channel, py: Python<'_>, default: Optional) -> PyResult<Py<PyAny>> {
    operation(py, "chan.try_recv", On::Made(channel.bubble()))?;
    match (channel.try_recv(), default) {
        (Ok(value), _) => Ok(value.into_object(py)),
        (Err(TryRecvError::Empty), Optional::Given(default)) => Ok(default),
        (Err(error), _) => Err(errors::try_recv(error)),
    }
}

fn next(channel: &Channel, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
    may_block(py, "ch.arecv()`, or iterate with `async for")?;
    next_here(channel, py)
}

#[inline]
pub(crate) fn next_here(channel: &Channel, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
    operation(py, "chan.recv", On::Made(channel.bubble()))?;
    match channel.recv(Wait::Forever) {
        Ok(value) => Ok(Some(value.into_object(py))),
        Err(RecvError::Closed) => Ok(None),
        Err(error) => Err(errors::recv(py, error)),
    }
}

fn close(channel: &Channel, py: Python<'_>) -> PyResult<()> {
    operation(py, "chan.close", On::Made(channel.bubble()))?;
    channel.close().map_err(errors::close)
}

/// Closes the channel at the end of a `with` block: closed already is what that wants.
fn leave(channel: &Channel, py: Python<'_>) -> PyResult<()> {
    operation(py, "chan.close", On::Made(channel.bubble()))?;
    let _ = channel.close();
    Ok(())
}

fn is_closed(channel: &Channel, py: Python<'_>) -> PyResult<bool> {
    operation(py, "chan.closed", On::Anything)?;
    Ok(channel.is_closed())
}

fn len(channel: &Channel, py: Python<'_>) -> PyResult<usize> {
    operation(py, "len(chan)", On::Anything)?;
    Ok(channel.len())
}

fn same(channel: &Arc<Channel>, other: &Bound<'_, PyAny>) -> Option<bool> {
    channel_of(other).map(|other| Arc::ptr_eq(channel, &other))
}

fn hash(channel: &Arc<Channel>) -> isize {
    // Addresses are aligned: the low bits say nothing.
    (Arc::as_ptr(channel).addr() >> 4).cast_signed()
}

impl PyChan {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.channel)
    }
}

#[pymethods]
impl PyChan {
    #[new]
    #[pyo3(signature = (capacity = None), text_signature = "(capacity=0)")]
    fn new(capacity: Option<&Bound<'_, PyAny>>) -> PyResult<PyChan> {
        let capacity = match capacity {
            None => 0,
            Some(capacity) => {
                let is_int = capacity.is_instance_of::<PyInt>();
                if !is_int && !capacity.hasattr("__index__")? {
                    let kind = capacity.get_type().name()?;
                    return Err(PyTypeError::new_err(format!("capacity must be an int, not {kind}")));
                }
                let capacity = if is_int { capacity.clone() } else { capacity.call_method0("__index__")? };
                if capacity.lt(0)? {
                    return Err(PyValueError::new_err("capacity must not be negative"));
                }
                capacity.extract::<usize>().map_err(|_| PyValueError::new_err("capacity is too large"))?
            }
        };
        Ok(PyChan { channel: Arc::new(Channel::new(capacity)) })
    }

    /// Sends `value`.
    ///
    /// Blocks until a receiver takes it (unbuffered) or there is room, at most `timeout` seconds.
    /// Raises Closed if the channel is closed, also while waiting; TimeoutError after `timeout`, and then
    /// the value was not delivered. Go: `ch <- value`.
    #[pyo3(signature = (value, timeout = None))]
    fn send(&self, value: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        send(&self.channel, value, timeout)
    }

    /// Receives a value.
    ///
    /// Blocks until there is one, at most `timeout` seconds. Raises Closed if the channel is closed and
    /// drained, TimeoutError after `timeout`. Go: `<-ch`.
    #[pyo3(signature = (timeout = None))]
    fn recv(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        recv(&self.channel, py, timeout)
    }

    /// Receives: `(value, True)`, or `(None, False)` once the channel is closed and drained.
    ///
    /// Blocks as `recv`; raises TimeoutError, never Closed. Go: `value, ok := <-ch`.
    #[pyo3(signature = (timeout = None))]
    fn recv_ok<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        recv_ok(&self.channel, py, timeout)
    }

    /// Sends `value` if that needs no waiting; returns whether it was sent.
    ///
    /// Never blocks. Raises Closed on a closed channel.
    fn try_send(&self, value: Bound<'_, PyAny>) -> PyResult<bool> {
        try_send(&self.channel, value)
    }

    /// Receives a value if that needs no waiting; else returns `default`.
    ///
    /// Never blocks. Without `default` raises WouldBlock; on a closed, drained channel raises Closed.
    #[pyo3(signature = (default = Optional::Missing))]
    fn try_recv(&self, py: Python<'_>, default: Optional) -> PyResult<Py<PyAny>> {
        try_recv(&self.channel, py, default)
    }

    /// asend(value, timeout=None): as `send`, awaited: in async goroutines and asyncio tasks.
    ///
    /// A task that is cancelled after the value was taken goes on, and is cancelled at its next await.
    #[pyo3(signature = (value, timeout = None))]
    fn asend(
        slf: &Bound<'_, Self>,
        value: Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Awaitable>> {
        Awaitable::sending(ChannelOf::new(slf), value, wait(timeout)?)
    }

    /// arecv(timeout=None): as `recv`, awaited: in async goroutines and asyncio tasks.
    ///
    /// A task that is cancelled after it was given a value puts that back to the front of the channel.
    #[pyo3(signature = (timeout = None))]
    fn arecv(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving(slf.py(), ChannelOf::new(slf), Form::Value, wait(timeout)?)
    }

    /// arecv_ok(timeout=None): as `recv_ok`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn arecv_ok(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving(slf.py(), ChannelOf::new(slf), Form::Pair, wait(timeout)?)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving(slf.py(), ChannelOf::new(slf), Form::Next, Wait::Forever)
    }

    /// Closes the channel: wakes every waiter; what is buffered stays receivable.
    ///
    /// Never blocks. Raises Closed if it is closed already.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        close(&self.channel, py)
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        is_closed(&self.channel, py)
    }

    /// How many values it can buffer.
    #[getter]
    fn capacity(&self) -> usize {
        self.channel.capacity()
    }

    /// A view of this channel that only sends.
    fn sender(slf: Bound<'_, Self>) -> SendChan {
        SendChan { channel: Arc::clone(&slf.get().channel), of: slf.unbind() }
    }

    /// A view of this channel that only receives.
    fn receiver(slf: Bound<'_, Self>) -> RecvChan {
        RecvChan { channel: Arc::clone(&slf.get().channel), of: Some(slf.unbind()), timer: None }
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        len(&self.channel, py)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        next(&self.channel, py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        leave(&self.channel, py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Py<PyAny> {
        equal(py, same(&self.channel, other))
    }

    fn __hash__(&self) -> isize {
        hash(&self.channel)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(no_copy("chan"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(no_copy("chan"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("chan"))
    }

    fn __repr__(&self) -> String {
        let state = if self.channel.is_closed() { ", closed" } else { "" };
        format!(
            "<chan {:#x}: {} of {} buffered{state}>",
            Arc::as_ptr(&self.channel).addr(),
            self.channel.len(),
            self.channel.capacity()
        )
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whatever else holds the channel's buffer (views, cases) refers to this object too: the buffer is
        // shown here, once, and nowhere else.
        self.channel.visit(|value| match value {
            Value::Object(object) => visit.call(object),
            Value::Time(_) | Value::Plain(..) => Ok(()),
        })
    }

    fn __clear__(&self) {
        self.channel.drain();
    }
}

/// The answer of `__eq__`: NotImplemented for what is no channel.
fn equal(py: Python<'_>, same: Option<bool>) -> Py<PyAny> {
    match same {
        Some(same) => pyo3::types::PyBool::new(py, same).to_owned().into_any().unbind(),
        None => py.NotImplemented(),
    }
}

impl SendChan {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.channel)
    }
}

#[pymethods]
impl SendChan {
    /// As `chan.send`.
    #[pyo3(signature = (value, timeout = None))]
    fn send(&self, value: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        send(&self.channel, value, timeout)
    }

    /// As `chan.try_send`.
    fn try_send(&self, value: Bound<'_, PyAny>) -> PyResult<bool> {
        try_send(&self.channel, value)
    }

    /// asend(value, timeout=None): as `chan.asend`: in async goroutines and asyncio tasks.
    #[pyo3(signature = (value, timeout = None))]
    fn asend(
        slf: &Bound<'_, Self>,
        value: Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Awaitable>> {
        Awaitable::sending(ChannelOf::new(slf), value, wait(timeout)?)
    }

    /// As `chan.close`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        close(&self.channel, py)
    }

    /// Whether the channel was closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        is_closed(&self.channel, py)
    }

    /// How many values the channel can buffer.
    #[getter]
    fn capacity(&self) -> usize {
        self.channel.capacity()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        len(&self.channel, py)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        leave(&self.channel, py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Py<PyAny> {
        equal(py, same(&self.channel, other))
    }

    fn __hash__(&self) -> isize {
        hash(&self.channel)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(no_copy("SendChan"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(no_copy("SendChan"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("SendChan"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.of)
    }

    fn __repr__(&self) -> String {
        format!("<SendChan of chan {:#x}>", Arc::as_ptr(&self.channel).addr())
    }
}

impl RecvChan {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.channel)
    }
}

#[pymethods]
impl RecvChan {
    /// As `chan.recv`.
    #[pyo3(signature = (timeout = None))]
    fn recv(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        recv(&self.channel, py, timeout)
    }

    /// As `chan.recv_ok`.
    #[pyo3(signature = (timeout = None))]
    fn recv_ok<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        recv_ok(&self.channel, py, timeout)
    }

    /// As `chan.try_recv`.
    #[pyo3(signature = (default = Optional::Missing))]
    fn try_recv(&self, py: Python<'_>, default: Optional) -> PyResult<Py<PyAny>> {
        try_recv(&self.channel, py, default)
    }

    /// arecv(timeout=None): as `recv`, awaited: in async goroutines and asyncio tasks.
    ///
    /// A task that is cancelled after it was given a value puts that back to the front of the channel.
    #[pyo3(signature = (timeout = None))]
    fn arecv(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving_of(slf, Form::Value, wait(timeout)?)
    }

    /// arecv_ok(timeout=None): as `recv_ok`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn arecv_ok(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving_of(slf, Form::Pair, wait(timeout)?)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving_of(slf, Form::Next, Wait::Forever)
    }

    /// Whether the channel was closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        is_closed(&self.channel, py)
    }

    /// How many values the channel can buffer; 0 for a timer's.
    #[getter]
    fn capacity(&self) -> usize {
        self.channel.capacity()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        len(&self.channel, py)
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        next(&self.channel, py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Py<PyAny> {
        equal(py, same(&self.channel, other))
    }

    fn __hash__(&self) -> isize {
        hash(&self.channel)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(no_copy("RecvChan"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(no_copy("RecvChan"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(no_pickle("RecvChan"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.of)
    }

    fn __repr__(&self) -> String {
        format!("<RecvChan of chan {:#x}>", Arc::as_ptr(&self.channel).addr())
    }
}

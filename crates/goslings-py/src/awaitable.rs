//! What `asend`, `arecv` and their like return: a call that is carried out when it is awaited, in an async
//! goroutine or in an asyncio task.
//!
//! The runtime polls its calls without a stack (`goslings::polled`); here each step of `await` is a poll. A call
//! that waits gives way: in an async goroutine by yielding None to the worker that runs it, in an asyncio task
//! by yielding a future, which the loop's port (port.rs) sets when the wait is over.

use crate::bubble::{On, awaited};
use crate::chan::RecvChan;
use crate::errors;
use crate::host;
use crate::port::LoopWait;
use crate::quick::ChannelOf;
use crate::value::{Channel, Value};
use goslings::chan::{RecvError, SendError, TryRecvError, TrySendError};
use goslings::polled::{self, Caller, Waiting};
use goslings::{Wait, WaitError};
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

type Answer = PyResult<Py<PyAny>>;

/// How a call went that was cancelled from outside while it waited.
enum Cancelled {
    /// As if it had never been made.
    Undone,
    /// It had been carried out, and cannot be undone.
    Stands(Answer),
    /// It has to wait for something else first.
    NotYet,
}

/// A call that waits.
trait Polled: Send {
    fn poll(&mut self, py: Python<'_>) -> Option<Answer>;
    fn cancel(&mut self, py: Python<'_>) -> Cancelled;
    /// Goes on with a call that was cancelled, and had to wait for something else first.
    fn go_on_cancelled(&mut self, py: Python<'_>) -> Cancelled;
    /// Whether its wait is over: who waits goes on then only.
    fn was_woken(&self) -> bool;
    /// Shows what it owns, as far as that is known. It waits, and the world stands still.
    fn show(&self, see: &mut dyn FnMut(Owned));
}

/// Something that a call owns: for the search for leaks.
#[derive(Clone, Copy)]
pub(crate) enum Owned {
    /// One reference to an object.
    Object(*mut ffi::PyObject),
    /// One share of what can be waited on at `address`; there are `shares` of it.
    Share { address: usize, shares: usize },
}

impl Owned {
    pub(crate) fn share<T>(shared: &Arc<T>) -> Owned {
        let address = Arc::as_ptr(shared).expose_provenance();
        Owned::Share { address, shares: Arc::strong_count(shared) }
    }
}

/// What a call keeps for its answer.
pub(crate) trait Keep: Send {
    /// Shows each thing that it or the wait owns, once; what is not shown counts as reachable by anybody.
    fn show(&self, see: &mut dyn FnMut(Owned));
}

/// Nothing, or what nobody asks for.
impl Keep for () {
    fn show(&self, _see: &mut dyn FnMut(Owned)) {}
}

impl<T> Keep for Py<T> {
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        see(Owned::Object(self.as_ptr()));
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        self.0.show(see);
        self.1.show(see);
    }
}

/// A share of what is waited on; the wait has another one.
pub(crate) struct Both<T>(pub(crate) Arc<T>);

impl<T> Keep for Both<T>
where
    Arc<T>: Send,
{
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        see(Owned::share(&self.0));
        see(Owned::share(&self.0));
    }
}

/// No share: only the wait has one.
impl<T> Keep for Weak<T>
where
    Weak<T>: Send,
{
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        see(Owned::Share { address: self.as_ptr().expose_provenance(), shares: self.strong_count() });
    }
}

/// A call of the runtime, and what its answer means in Python.
struct Typed<T, K, F, U>
where
    U: Fn(&K, T) -> Option<T>,
{
    waiting: Waiting<T>,
    kept: K,
    finish: F,
    /// Takes back what the answer brought; gives the answer if that cannot be.
    undo: U,
}

impl<T, K, F, U> Polled for Typed<T, K, F, U>
where
    T: Send,
    K: Keep,
    F: Fn(&K, Python<'_>, T) -> Answer + Send,
    U: Fn(&K, T) -> Option<T> + Send,
{
    fn poll(&mut self, py: Python<'_>) -> Option<Answer> {
        self.waiting.poll().map(|answer| (self.finish)(&self.kept, py, answer))
    }

    fn was_woken(&self) -> bool {
        self.waiting.caller().was_woken()
    }

    fn show(&self, see: &mut dyn FnMut(Owned)) {
        self.kept.show(see);
    }

    fn cancel(&mut self, py: Python<'_>) -> Cancelled {
        let answer = self.waiting.cancel();
        self.take_back(py, answer)
    }

    fn go_on_cancelled(&mut self, py: Python<'_>) -> Cancelled {
        let answer = self.waiting.poll();
        self.take_back(py, answer)
    }
}

impl<T, K, F, U> Typed<T, K, F, U>
where
    F: Fn(&K, Python<'_>, T) -> Answer,
    U: Fn(&K, T) -> Option<T>,
{
    fn take_back(&mut self, py: Python<'_>, answer: Option<T>) -> Cancelled {
        match answer {
            None => Cancelled::NotYet,
            Some(answer) => match (self.undo)(&self.kept, answer) {
                None => Cancelled::Undone,
                Some(answer) => Cancelled::Stands((self.finish)(&self.kept, py, answer)),
            },
        }
    }
}

impl<T, K, F, U> Drop for Typed<T, K, F, U>
where
    U: Fn(&K, T) -> Option<T>,
{
    fn drop(&mut self) {
        if let Some(answer) = self.waiting.abandon() {
            let _ = (self.undo)(&self.kept, answer);
        }
    }
}

/// A call, and what must live as long as it waits.
struct Keeping<K> {
    call: Box<dyn Polled>,
    /// Not shown: what it keeps alive may do something by itself, as a timer does.
    _kept: K,
}

impl<K: Send> Polled for Keeping<K> {
    fn poll(&mut self, py: Python<'_>) -> Option<Answer> {
        self.call.poll(py)
    }

    fn cancel(&mut self, py: Python<'_>) -> Cancelled {
        self.call.cancel(py)
    }

    fn go_on_cancelled(&mut self, py: Python<'_>) -> Cancelled {
        self.call.go_on_cancelled(py)
    }

    fn was_woken(&self) -> bool {
        self.call.was_woken()
    }

    fn show(&self, see: &mut dyn FnMut(Owned)) {
        self.call.show(see);
    }
}

/// How what was received is shown.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// The value; Closed is raised.
    Value,
    /// `(value, ok)`.
    Pair,
    /// The value; the end of the channel ends an `async for`.
    Next,
}

type Start = Box<dyn FnOnce(Caller) -> Box<dyn Polled> + Send>;

enum State {
    Send(ChannelOf, Value, Wait),
    Recv(ChannelOf, Form, Wait),
    /// Gives way once.
    Yield,
    /// Has given way.
    Yielded,
    /// With what it is called, and what it is about.
    Start(Start, &'static str, On),
    /// Has given way before it was begun.
    Again(Box<State>),
    Waiting(Box<Underway>),
    /// Being stepped, or done.
    Done,
}

impl State {
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        match self {
            State::Send(channel, value, _) => {
                see(Owned::Object(channel.owner()));
                if let Value::Object(value) = value {
                    see(Owned::Object(value.as_ptr()));
                }
            }
            State::Recv(channel, ..) => see(Owned::Object(channel.owner())),
            State::Again(state) => state.show(see),
            State::Waiting(underway) => underway.call.show(see),
            // What is in the box of a call that has not begun counts as reachable.
            State::Start(..) | State::Yield | State::Yielded | State::Done => {}
        }
    }
}

/// A call that waits, and for whom.
struct Underway {
    call: Box<dyn Polled>,
    /// In an asyncio task.
    asyncio: Option<Box<LoopWait>>,
    /// What is to be raised when the call has come to its end.
    raise: Option<Py<PyAny>>,
}

/// A call that waits, to be awaited once: `await ch.arecv()`.
///
/// Nothing happens before it is awaited. In an async goroutine it parks the goroutine, in an asyncio task it
/// suspends the task.
#[pyclass(module = "goslings", frozen, generic)]
pub(crate) struct Awaitable {
    state: UnsafeCell<State>,
    /// Whether somebody has hold of `state`.
    held: AtomicBool,
}

// SAFETY: `state` is Send, and touched by one thread at a time: whoever has set `held` (`replace`), who has the GIL and the
// only reference (`step`), or who has stopped all others (`show`).
unsafe impl Sync for Awaitable {}

/// What a step of `await` comes to.
pub(crate) enum Went {
    Yields(Py<PyAny>),
    Returns(Py<PyAny>),
    ReturnsNone,
}

impl Awaitable {
    fn new(state: State) -> Awaitable {
        Awaitable { state: UnsafeCell::new(state), held: AtomicBool::new(false) }
    }

    #[inline]
    pub(crate) fn sending(
        channel: ChannelOf,
        value: Bound<'_, PyAny>,
        wait: Wait,
    ) -> PyResult<Py<Awaitable>> {
        let py = value.py();
        let state = State::Send(channel, Value::Object(value.unbind()), wait);
        host::new_awaitable(py, Awaitable::new(state))
    }

    #[inline]
    pub(crate) fn receiving(
        py: Python<'_>,
        channel: ChannelOf,
        form: Form,
        wait: Wait,
    ) -> PyResult<Py<Awaitable>> {
        host::new_awaitable(py, Awaitable::new(State::Recv(channel, form, wait)))
    }

    /// As `receiving`, from a view that keeps a timer alive: until the call has ended the timer must not stop.
    pub(crate) fn receiving_of(
        view: &Bound<'_, RecvChan>,
        form: Form,
        wait: Wait,
    ) -> PyResult<Py<Awaitable>> {
        let (object, py, view) = (view, view.py(), view.get());
        let Some(timer) = &view.timer else {
            return Awaitable::receiving(py, ChannelOf::new(object), form, wait);
        };
        let (channel, timer) = (Arc::clone(&view.channel), Arc::clone(timer));
        let start: Start = Box::new(move |caller| {
            Box::new(Keeping { call: recv_later(channel, form, wait, caller), _kept: timer })
        });
        let on = On::Made(view.channel.bubble());
        host::new_awaitable(py, Awaitable::new(State::Start(start, "chan.arecv", on)))
    }

    /// Any other call: `make` begins it, `finish` says what its answer means, `undo` takes it back (None) or
    /// says that it stands. Both are given what is `kept`.
    pub(crate) fn keeping<T, K, F, U>(
        make: impl FnOnce(Caller) -> Waiting<T> + Send + 'static,
        kept: K,
        finish: F,
        undo: U,
    ) -> Awaitable
    where
        T: Send + 'static,
        K: Keep + 'static,
        F: Fn(&K, Python<'_>, T) -> Answer + Send + 'static,
        U: Fn(&K, T) -> Option<T> + Send + 'static,
    {
        let start: Start =
            Box::new(move |caller| Box::new(Typed { waiting: make(caller), kept, finish, undo }));
        Awaitable::new(State::Start(start, "await", On::Anything))
    }

    /// The same, with nothing that the search for leaks has to know of.
    pub(crate) fn call<T, F, U>(
        make: impl FnOnce(Caller) -> Waiting<T> + Send + 'static,
        finish: F,
        undo: U,
    ) -> Awaitable
    where
        T: Send + 'static,
        F: Fn(Python<'_>, T) -> Answer + Send + 'static,
        U: Fn(T) -> Option<T> + Send + 'static,
    {
        Awaitable::keeping(make, (), move |(), py, answer| finish(py, answer), move |(), answer| undo(answer))
    }

    /// A wait that brings nothing: its answer is whether it ended in time.
    pub(crate) fn waiting<K: Keep + 'static>(
        make: impl FnOnce(Caller) -> Waiting<Result<(), WaitError>> + Send + 'static,
        kept: K,
    ) -> Awaitable {
        let finish = |_: &K, py: Python<'_>, answer| {
            errors::waited(py, answer).map(|in_time| PyBool::new(py, in_time).to_owned().into_any().unbind())
        };
        Awaitable::keeping(make, kept, finish, |_, answer| undo_nothing(answer))
    }

    /// A wait for a lock, which `unlock` undoes. Answers `gives`.
    pub(crate) fn locking<L: Send + Sync + 'static>(
        make: impl FnOnce(Caller) -> Waiting<Result<(), WaitError>> + Send + 'static,
        lock: Arc<L>,
        gives: Py<PyAny>,
        unlock: impl Fn(&L) + Send + 'static,
    ) -> Awaitable {
        let finish = |kept: &(Both<L>, Py<PyAny>), py: Python<'_>, answer: Result<(), WaitError>| match answer
        {
            Ok(()) => Ok(kept.1.clone_ref(py)),
            Err(error) => Err(errors::wait(py, error, "lock")),
        };
        let undo = move |kept: &(Both<L>, Py<PyAny>), answer: Result<(), WaitError>| {
            if answer.is_ok() {
                unlock(&kept.0.0);
            }
            None
        };
        Awaitable::keeping(make, (Both(lock), gives), finish, undo)
    }

    /// Says what the call is called, and what it is about; for calls made by `call`.
    pub(crate) fn about(mut self, label: &'static str, on: On) -> Awaitable {
        if let State::Start(_, its_label, its_on) = self.state.get_mut() {
            (*its_label, *its_on) = (label, on);
        }
        self
    }

    /// Nothing to wait for: what an `__aexit__` that does not block returns.
    pub(crate) fn nothing() -> Awaitable {
        Awaitable::new(State::Yielded)
    }

    /// Gives way to others, once.
    pub(crate) fn gosched() -> Awaitable {
        Awaitable::new(State::Yield)
    }

    /// Shows what the call owns, as far as that is known.
    ///
    /// # Safety
    /// The world stands still.
    pub(crate) unsafe fn show(&self, see: &mut dyn FnMut(Owned)) {
        // Ordering: Relaxed. Whoever has hold of the state was stopped in a way that makes the store visible.
        if !self.held.load(Ordering::Relaxed) {
            // SAFETY: nobody has hold of it, and by the contract nobody gets hold of it.
            unsafe { &*self.state.get() }.show(see);
        }
    }

    /// Takes the state out and puts another in. Done if somebody else does so at this moment.
    #[inline]
    fn replace(&self, state: State) -> State {
        // Ordering: Acquire pairs with the Release below: the state of the last one is seen.
        if self.held.swap(true, Ordering::Acquire) {
            return State::Done;
        }
        // SAFETY: we have set `held`; nothing is called, and nothing dropped, until it is cleared.
        let before = unsafe { std::mem::replace(&mut *self.state.get(), state) };
        // Ordering: Release, as above.
        self.held.store(false, Ordering::Release);
        before
    }

    /// The next step of `await`. `alone`: nobody else refers to it, or can until this has returned or called something.
    #[inline]
    pub(crate) fn step(&self, py: Python<'_>, alone: bool) -> PyResult<Went> {
        let before = match alone {
            // SAFETY: nobody else can get at it; nothing is called, and nothing dropped, meanwhile.
            true => unsafe { std::mem::replace(&mut *self.state.get(), State::Done) },
            false => self.replace(State::Done),
        };
        let state = match before {
            State::Again(state) => *state,
            state => {
                let gives_way = match &state {
                    State::Send(channel, ..) => awaited(py, "chan.asend", On::Made(channel.get().bubble()))?,
                    State::Recv(channel, ..) => awaited(py, "chan.arecv", On::Made(channel.get().bubble()))?,
                    State::Start(_, label, on) => awaited(py, label, *on)?,
                    State::Yield => awaited(py, "agosched", On::Nothing).map(|_gives_way| false)?,
                    _ => false,
                };
                if gives_way {
                    self.replace(State::Again(Box::new(state)));
                    return Ok(Went::Yields(py.None()));
                }
                state
            }
        };
        match state {
            State::Send(channel, value, wait) => {
                begin(py)?;
                match channel.get().try_send(value) {
                    Ok(()) => Ok(Went::ReturnsNone),
                    Err(TrySendError::Full(value)) if wait != Wait::No => {
                        self.start(py, |caller| send_later(channel.share(), value, wait, caller))
                    }
                    Err(error) => Err(errors::try_send(&error).unwrap_or_else(|| errors::timed_out("send"))),
                }
            }
            State::Recv(channel, form, wait) => {
                begin(py)?;
                match channel.get().try_recv() {
                    Ok(value) => received(py, form, Ok(value)).map(Went::Returns),
                    Err(TryRecvError::Empty) if wait != Wait::No => {
                        self.start(py, |caller| recv_later(channel.share(), form, wait, caller))
                    }
                    Err(TryRecvError::Empty) => Err(errors::timed_out("recv")),
                    Err(TryRecvError::Closed) => {
                        received(py, form, Err(RecvError::Closed)).map(Went::Returns)
                    }
                }
            }
            State::Yield => {
                begin(py)?;
                self.replace(State::Yielded);
                Ok(Went::Yields(py.None()))
            }
            State::Yielded => Ok(Went::ReturnsNone),
            State::Start(start, ..) => self.start(py, start),
            State::Waiting(underway) if underway.call.was_woken() => self.go_on(py, underway),
            waiting @ State::Waiting(_) => {
                // Another task, or another goroutine, than the one that waits.
                self.replace(waiting);
                Err(awaited_again())
            }
            State::Done | State::Again(_) => Err(awaited_again()),
        }
    }

    fn start(&self, py: Python<'_>, start: impl FnOnce(Caller) -> Box<dyn Polled>) -> PyResult<Went> {
        let (caller, asyncio) = caller(py)?;
        if caller.is_waiting() {
            return Err(PyRuntimeError::new_err(
                "this goroutine waits for something else already: it can await one thing at a time",
            ));
        }
        self.go_on(py, Box::new(Underway { call: start(caller), asyncio, raise: None }))
    }

    fn go_on(&self, py: Python<'_>, mut underway: Box<Underway>) -> PyResult<Went> {
        if let Some(error) = underway.raise.take() {
            let cancelled = underway.call.go_on_cancelled(py);
            return self.end_cancelled(py, underway, cancelled, PyErr::from_value(error.into_bound(py)));
        }
        match underway.call.poll(py) {
            Some(answer) => answer.map(Went::Returns),
            None => self.wait(py, underway),
        }
    }

    /// Gives way until the wait is over.
    fn wait(&self, py: Python<'_>, underway: Box<Underway>) -> PyResult<Went> {
        let yields = match &underway.asyncio {
            Some(wait) => wait.future(py)?,
            None => py.None(),
        };
        self.replace(State::Waiting(underway));
        Ok(Went::Yields(yields))
    }

    /// `error` is thrown in where the call waits: an asyncio task is cancelled, or a coroutine closed.
    fn interrupt(&self, py: Python<'_>, error: PyErr) -> PyResult<Went> {
        let State::Waiting(mut underway) = self.replace(State::Done) else { return Err(error) };
        let cancelled = underway.call.cancel(py);
        self.end_cancelled(py, underway, cancelled, error)
    }

    /// What comes of a call that `error` has cancelled.
    fn end_cancelled(
        &self,
        py: Python<'_>,
        mut underway: Box<Underway>,
        cancelled: Cancelled,
        error: PyErr,
    ) -> PyResult<Went> {
        match cancelled {
            Cancelled::Undone => {}
            Cancelled::Stands(answer) => {
                if let Some(wait) = &underway.asyncio
                    && wait.cancel_again(py, &error)?
                {
                    return answer.map(Went::Returns);
                }
            }
            Cancelled::NotYet => {
                underway.raise = Some(error.into_value(py).into_any());
                return self.wait(py, underway);
            }
        }
        if let Some(wait) = &underway.asyncio {
            wait.forget(py)?;
        }
        Err(error)
    }
}

#[cold]
fn awaited_again() -> PyErr {
    PyRuntimeError::new_err("a call like this is awaited once, and by one task: make a new one")
}

/// What every call does first: a cancellation that was asked for comes now.
fn begin(py: Python<'_>) -> PyResult<()> {
    if goslings::with_current(|task| task.is_some_and(goslings::Task::take_cancel)) {
        return Err(errors::cancelled(py));
    }
    Ok(())
}

/// Who awaits.
fn caller(py: Python<'_>) -> PyResult<(Caller, Option<Box<LoopWait>>)> {
    if let Some(running) = host::running_loop(py) {
        let wait = LoopWait::new(&running)?;
        return Ok((wait.caller(), Some(Box::new(wait))));
    }
    if let Some(caller) = Caller::current_task() {
        return Ok((caller, None));
    }
    match crate::coroutine::driver(py) {
        Some(caller) => Ok((caller, None)),
        None => Err(PyRuntimeError::new_err(
            "await this in an async goroutine (`go` an async def function) or in an asyncio task",
        )),
    }
}

fn received(py: Python<'_>, form: Form, answer: Result<Value, RecvError>) -> Answer {
    match (answer, form) {
        (Ok(value), Form::Value | Form::Next) => Ok(value.into_object(py)),
        (Ok(value), Form::Pair) => Ok((value.into_object(py), true).into_pyobject(py)?.into_any().unbind()),
        (Err(RecvError::Closed), Form::Pair) => Ok((py.None(), false).into_pyobject(py)?.into_any().unbind()),
        (Err(RecvError::Closed), Form::Next) => Err(PyStopAsyncIteration::new_err(())),
        (Err(error), _) => Err(errors::recv(py, error)),
    }
}

fn send_later(channel: Arc<Channel>, value: Value, wait: Wait, caller: Caller) -> Box<dyn Polled> {
    let kept = Arc::downgrade(&channel);
    Box::new(Typed {
        waiting: polled::send(channel, value, wait, caller),
        kept,
        finish: |_: &Weak<Channel>, py: Python<'_>, answer: Result<(), SendError<Value>>| match answer {
            Ok(()) => Ok(py.None()),
            Err(error) => Err(errors::send(py, error)),
        },
        undo: |_: &Weak<Channel>, answer: Result<(), SendError<Value>>| answer.is_ok().then_some(answer),
    })
}

fn recv_later(channel: Arc<Channel>, form: Form, wait: Wait, caller: Caller) -> Box<dyn Polled> {
    let from = Both(Arc::clone(&channel));
    Box::new(Typed {
        waiting: polled::recv(channel, wait, caller),
        kept: from,
        finish: move |_: &Both<Channel>, py: Python<'_>, answer: Result<Value, RecvError>| {
            received(py, form, answer)
        },
        undo: |from: &Both<Channel>, answer: Result<Value, RecvError>| {
            if let Ok(value) = answer {
                from.0.put_back(value);
            }
            None
        },
    })
}

/// For waits that bring nothing: whatever came of them, a cancellation comes instead.
pub(crate) fn undo_nothing<T>(_answer: T) -> Option<T> {
    None
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Answer {
        told(self.step(py, false))
    }

    /// A step, for those who drive coroutines by hand. `value` must be None.
    fn send(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> Answer {
        let _ = value;
        self.__next__(py)
    }

    /// Raises an exception where the call waits; it is withdrawn.
    #[pyo3(signature = (r#type, value = None, traceback = None))]
    fn throw(
        &self,
        py: Python<'_>,
        r#type: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> Answer {
        let _ = traceback;
        let error = match value {
            Some(value) if !value.is_none() && r#type.is_instance_of::<pyo3::types::PyType>() => {
                if value.is_instance_of::<pyo3::exceptions::PyBaseException>() {
                    value
                } else {
                    r#type.call1((value,))?
                }
            }
            _ if r#type.is_instance_of::<pyo3::types::PyType>() => r#type.call0()?,
            _ => r#type,
        };
        told(self.interrupt(py, PyErr::from_value(error)))
    }

    /// Withdraws the call.
    fn close(&self) {
        drop(self.replace(State::Done));
    }
}

/// A step as iterators tell of it.
fn told(went: PyResult<Went>) -> Answer {
    match went? {
        Went::Yields(value) => Ok(value),
        Went::Returns(value) => Err(PyStopIteration::new_err((value,))),
        Went::ReturnsNone => Err(PyStopIteration::new_err(())),
    }
}

/// aselect(*cases, timeout=None): as `select`, awaited.
#[pyfunction]
#[pyo3(signature = (*cases, timeout = None))]
pub(crate) fn aselect(cases: Bound<'_, PyTuple>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    crate::select::awaitable(cases, timeout)
}

/// asleep(seconds): as `sleep`, awaited.
#[pyfunction]
#[pyo3(signature = (seconds, /))]
pub(crate) fn asleep(seconds: &Bound<'_, PyAny>) -> PyResult<Awaitable> {
    let wait = crate::timeout::from_seconds(crate::timeout::seconds(seconds, "seconds")?);
    if wait == Wait::No {
        return Ok(Awaitable::gosched());
    }
    Ok(Awaitable::call(
        move |caller| polled::sleep(wait, caller),
        |py, slept| slept.map(|()| py.None()).map_err(|error| errors::sleep(py, error)),
        undo_nothing,
    )
    .about("asleep", On::Nothing))
}

/// agosched(): as `gosched`, awaited.
#[pyfunction]
pub(crate) fn agosched() -> Awaitable {
    Awaitable::gosched()
}

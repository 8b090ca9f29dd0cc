//! Bubbles: what `goslings.testing` is made of, and the hook at the start of every operation.

use crate::errors;
use crate::goroutine::{Goroutine, launch_in};
use crate::host;
use crate::stm;
use crate::timeout::wait;
pub(crate) use goslings::bubble::On;
use goslings::bubble::{self, Bubble, Config, OUTSIDE, Order, Refused, Status, What};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// What is remembered of a bubble's goroutines; nothing is called, and nothing dropped, under its lock.
struct Book {
    /// All of them, so that none is lost sight of, each with the name of its function.
    handles: Vec<(Py<Goroutine>, Option<Py<PyAny>>)>,
    /// Places in the program: a code object and an offset in it.
    places: Vec<(Py<PyAny>, i32)>,
    /// Their numbers, by address: `places` keeps what is there.
    numbers: HashMap<(usize, i32), u32>,
    /// Code in files of this folder is not where something happens, but whoever calls it.
    folder: Py<PyString>,
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type BookLock = std::sync::Mutex<Book>;

/// The number of no place.
const NOWHERE: u32 = u32::MAX;

fn book(bubble: &Bubble) -> Option<std::sync::MutexGuard<'_, Book>> {
    let book = bubble.host_data().downcast_ref::<BookLock>()?;
    Some(book.lock().unwrap_or_else(PoisonError::into_inner))
}

/// To be called at the start of everything that others can notice: a step of an explored run, and the check that
/// objects of a bubble stay in it, and that transactions touch nothing else. Raises RuntimeError if not.
#[inline]
pub(crate) fn operation(py: Python<'_>, label: &'static str, on: On) -> PyResult<()> {
    awaited(py, label, on).map(|_gives_way| ())
}

/// The same for a call that is awaited: whether the goroutine is to give way before it.
#[inline]
pub(crate) fn awaited(py: Python<'_>, label: &'static str, on: On) -> PyResult<bool> {
    if stm::used() {
        stm::check(label)?;
    }
    step_of_transaction(py, label, on)
}

/// The same for what transactions are made of.
#[inline]
pub(crate) fn step_of_transaction(py: Python<'_>, label: &'static str, on: On) -> PyResult<bool> {
    let made = if let On::Made(made) | On::Mixed(made) = on { made } else { 0 };
    if made != 0 || bubble::any() { begin(py, label, on) } else { Ok(false) }
}

#[cold]
fn begin(py: Python<'_>, label: &'static str, on: On) -> PyResult<bool> {
    bubble::operation(label, on, |bubble| place(py, bubble)).map_err(|refused| match refused {
        Refused::Outside => PyRuntimeError::new_err(format!(
            "{label}: the object was made in a bubble of goslings.testing and is used outside it"
        )),
        Refused::Cancelled => errors::cancelled(py),
    })
}

/// The number of the place that the running code is at; None in an import, which is no part of a test.
fn place(py: Python<'_>, bubble: &Bubble) -> Option<u32> {
    let folder = book(bubble).map(|book| book.folder.clone_ref(py));
    let Some((code, offset)) = folder.and_then(|folder| host::caller_outside(py, &folder)) else {
        return Some(NOWHERE);
    };
    if offset < 0 {
        return None;
    }
    let key = (code.as_ptr().addr(), offset);
    let mut book = book(bubble)?;
    if let Some(&number) = book.numbers.get(&key) {
        drop(book);
        drop(code);
        return Some(number);
    }
    let number = book.places.len() as u32;
    book.places.push((code, offset));
    book.numbers.insert(key, number);
    Some(number)
}

/// What a function is called.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    function.getattr("__name__").ok().map(Bound::unbind)
}

/// A goroutine of `bubble` was made, which runs the function with this name.
pub(crate) fn keep(py: Python<'_>, bubble: &Bubble, handle: &Py<Goroutine>, name: Option<Py<PyAny>>) {
    let kept = (handle.clone_ref(py), name);
    if let Some(mut book) = book(bubble) {
        book.handles.push(kept);
    }
}

/// A bubble. For `goslings.testing` itself.
#[pyclass(name = "_Bubble", module = "goslings._goslings", frozen)]
pub(crate) struct PyBubble {
    bubble: Arc<Bubble>,
}

/// File and line of a place.
fn show<'py>(py: Python<'py>, bubble: &Bubble, number: u32) -> PyResult<(Bound<'py, PyAny>, i32)> {
    let found = book(bubble).and_then(|book| {
        let (code, offset) = book.places.get(number as usize)?;
        Some((code.clone_ref(py), *offset))
    });
    let Some((code, offset)) = found else { return Ok((PyString::new(py, "").into_any(), 0)) };
    let code = code.into_bound(py);
    Ok((code.getattr("co_filename")?, host::line(&code, offset)))
}

fn number(member: u32) -> i64 {
    if member == OUTSIDE { -1 } else { i64::from(member) }
}

#[pymethods]
impl PyBubble {
    #[new]
    #[pyo3(signature = (*, explores, order, depth, span, seed, early, steps, folder))]
    #[expect(clippy::too_many_arguments, reason = "all by name, from one place")]
    fn new(
        explores: bool,
        order: &str,
        depth: u32,
        span: u64,
        seed: u64,
        early: bool,
        steps: u64,
        folder: Py<PyString>,
    ) -> PyResult<PyBubble> {
        let order = match order {
            "fifo" => Order::Fifo,
            "random" => Order::Random,
            "pct" => Order::Pct { depth, span },
            _ => return Err(PyValueError::new_err("no such order")),
        };
        let config = Config { explores, order, seed, early_timers: early, steps_max: steps };
        let book = Book { handles: Vec::new(), places: Vec::new(), numbers: HashMap::new(), folder };
        Ok(PyBubble { bubble: Bubble::new(config, Box::new(BookLock::new(book))) })
    }

    /// Starts a goroutine in it.
    #[pyo3(signature = (r#fn, /, *args))]
    fn go(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<Goroutine>> {
        launch_in(py, Some(&self.bubble), r#fn, args, None, None)
    }

    /// Waits until its status is no more "running", or, after `end`, until all are blocked or have ended.
    #[pyo3(signature = (timeout = None))]
    fn settle(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        errors::waited(py, self.bubble.settled().wait(wait(timeout)?))
    }

    /// Returns once all others are blocked for good; False if somebody waits for that already.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "testing.wait", On::Nothing)?;
        self.bubble.wait_quiet().map_err(|error| errors::wait(py, error, "wait"))
    }

    #[getter]
    fn id(&self) -> u32 {
        self.bubble.id()
    }

    #[getter]
    fn explores(&self) -> bool {
        self.bubble.explores()
    }

    /// Nanoseconds since its beginning.
    #[getter]
    fn now(&self) -> u64 {
        self.bubble.now().0
    }

    #[getter]
    fn steps(&self) -> u64 {
        self.bubble.steps()
    }

    #[getter]
    fn live(&self) -> usize {
        self.bubble.live()
    }

    #[getter]
    fn status(&self) -> &'static str {
        match self.bubble.status() {
            Status::Running => "running",
            Status::Ended => "ended",
            Status::Deadlock => "deadlock",
            Status::Left => "left",
            Status::TooLong => "too long",
        }
    }

    /// From now on its goroutines only end. Cancel them afterwards.
    fn end(&self) {
        self.bubble.end();
    }

    /// It is not needed any more: what it knows is forgotten.
    fn close(&self, py: Python<'_>) {
        self.bubble.close();
        let forgotten = book(&self.bubble).map(|mut book| {
            book.numbers.clear();
            (std::mem::take(&mut book.handles), std::mem::take(&mut book.places))
        });
        for (handle, _) in forgotten.iter().flat_map(|(handles, _)| handles) {
            // As at the end of a goroutine: not left to the destructor, which may come late on free-threaded builds.
            crate::goroutine::forget(handle.bind(py));
        }
        drop(forgotten);
    }

    /// Those that have not ended: number, state, what they began to do last, file, line.
    fn members<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for member in self.bubble.members() {
            let state = if member.task.has_started() { member.task.reason().text() } else { "not started" };
            let (file, line) = show(py, &self.bubble, member.place)?;
            list.append((member.number, state, member.label, file, line))?;
        }
        Ok(list)
    }

    /// What happened: who (-1: nobody of it), what, a text or number about it, file, line. Empties it.
    fn trace<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for step in self.bubble.take_trace() {
            let who = number(step.who);
            let nowhere = || (PyString::new(py, "").into_any(), 0);
            match step.what {
                What::Operation(label, place) => {
                    let (file, line) = show(py, &self.bubble, place)?;
                    list.append((who, "does", label, file, line))?;
                }
                What::GoesOn => list.append((who, "goes on", "", nowhere().0, 0))?,
                What::Waits(reason) => list.append((who, "waits", reason.text(), nowhere().0, 0))?,
                What::Wakes(other) => list.append((who, "wakes", number(other), nowhere().0, 0))?,
                What::Starts(other) => list.append((who, "starts", number(other), nowhere().0, 0))?,
                What::Ends => list.append((who, "ends", "", nowhere().0, 0))?,
                What::Time(now) => list.append((who, "time", now, nowhere().0, 0))?,
            }
        }
        Ok(list)
    }

    /// All its goroutines: number, handle, name of the function.
    fn goroutines<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (handle, name) in self.handles(py) {
            let number = handle.get().bubble_number();
            list.append((number, handle, name))?;
        }
        Ok(list)
    }

    /// The failures that nobody has read, each with the number of its goroutine. Counts as reading them.
    fn unread<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (handle, _) in self.handles(py) {
            if let Some(error) = handle.get().take_unread(py) {
                list.append((handle.get().bubble_number(), error))?;
            }
        }
        Ok(list)
    }
}

impl PyBubble {
    fn handles(&self, py: Python<'_>) -> Vec<(Py<Goroutine>, Option<Py<PyAny>>)> {
        let Some(book) = book(&self.bubble) else { return Vec::new() };
        let copy = |name: &Option<Py<PyAny>>| name.as_ref().map(|name| name.clone_ref(py));
        book.handles.iter().map(|(handle, name)| (handle.clone_ref(py), copy(name))).collect()
    }
}

/// The bubble that this code runs in.
#[pyfunction]
#[pyo3(name = "_bubble")]
pub(crate) fn current() -> Option<PyBubble> {
    bubble::current().map(|bubble| PyBubble { bubble })
}

/// A step of an explored run that is no operation of goslings; there are few different labels.
#[pyfunction]
#[pyo3(name = "_step")]
pub(crate) fn step(py: Python<'_>, label: &str) -> PyResult<()> {
    if bubble::any() { begin(py, lasting(label), On::Anything).map(|_gives_way| ()) } else { Ok(()) }
}

/// The same text, for ever.
fn lasting(text: &str) -> &'static str {
    #[expect(clippy::disallowed_types, reason = "a leaf lock, held for a look-up")]
    static KNOWN: std::sync::Mutex<Vec<&'static str>> = std::sync::Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.iter().find(|&&found| found == text) {
        return found;
    }
    let kept: &'static str = Box::leak(text.into());
    known.push(kept);
    kept
}

//! Transactions: `TVar`, and the calls that run them.
//!
//! A transaction lives in the frame of the call that runs it. Those of a thread are chained, innermost first, each
//! with the number of the goroutine that runs it, since goroutines may take turns in the middle of one; a goroutine
//! with a stack never leaves its thread, and one without runs a transaction within one step.
//!
//! **Invariants**
//! * From its first read to its clearing a transaction is pinned: it holds variables without counting references.
//! * A transaction is in its thread's chain while its function runs, and only then. What drops objects, and so may
//!   call anything, happens while it is not, or while it is not borrowed.
//! * No Python code runs that could reach a transaction while it is borrowed: it is out of the chain then (a wait for
//!   the turn, a clearing), or nothing is called.

use crate::awaitable::Awaitable;
use crate::bubble::{On, step_of_transaction};
use crate::errors::{self, TransactionConflict, TransactionRetry};
use crate::host::{self, may_block};
use crate::shared;
use goslings::polled;
use goslings::stm::{CommitError, Held, Kept, Pin, Share, Space, Transaction, Var, Watch, pin, space};
use goslings::{Wait, WaitError};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

/// So many attempts may be lost before a transaction takes the turn.
const LOSSES_MAX: u32 = 8;

/// What a variable holds.
pub(crate) struct Object(Py<PyAny>);

impl Object {
    /// To be what this variable holds; None: one that is just made.
    fn new(value: Py<PyAny>, owner: Option<&Bound<'_, PyAny>>) -> Object {
        shared::may_race(&value, owner);
        Object(value)
    }
}

impl Share for Object {
    #[inline]
    fn share(&self) -> Object {
        // SAFETY: variables are read in calls of ours, which are attached; it counts and calls nobody.
        Object(self.0.clone_ref(unsafe { Python::assume_attached() }))
    }

    #[inline]
    unsafe fn share_racing(slot: *const Object) -> Option<Object> {
        // SAFETY: attached as for `share`; by the caller's promise the slot changes by `exchange` alone, and what
        // comes into one has been through `may_race`.
        unsafe { shared::share_racing(slot.cast()) }.map(Object)
    }

    #[inline]
    unsafe fn exchange(slot: *mut Object, value: &mut Object) {
        // SAFETY: by the caller's promise the slot lives, and is changed here alone.
        unsafe { shared::exchange(slot.cast(), &mut value.0) };
    }
}

/// A variable, apart from the object that stands for it in Python.
struct Variable {
    var: goslings::stm::TVar<Object>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

/// How a transaction holds on to a variable: while it is pinned.
#[derive(Clone, Copy)]
pub(crate) struct Handle(Held<Variable>);

impl Deref for Handle {
    type Target = goslings::stm::TVar<Object>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        // SAFETY: a handle is made for the entry of a transaction that is pinned until it has been cleared.
        unsafe { &self.0.get().var }
    }
}

impl Var for Handle {
    type Value = Object;
}

/// How a watch does: it owns them.
#[derive(Clone)]
pub(crate) struct Owner(Kept<Variable>);

impl Deref for Owner {
    type Target = goslings::stm::TVar<Object>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0.var
    }
}

impl Var for Owner {
    type Value = Object;
}

/// What a transaction cannot do any more, though its function runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doom {
    No,
    Conflict,
    Retry,
}

/// A function to be called, and its arguments.
struct Call(Py<PyAny>, Py<PyTuple>, Option<Py<PyDict>>);

/// A transaction that runs.
struct Running {
    tx: RefCell<Transaction<Handle>>,
    /// While there is something in `tx`.
    pin: Cell<Option<Pin>>,
    /// The number of its goroutine; 0: of the thread itself.
    owner: Cell<u64>,
    /// The next in the thread's chain.
    outer: Cell<*const Running>,
    doom: Cell<Doom>,
    after: RefCell<Vec<Call>>,
}

thread_local! {
    /// The chain of the thread's transactions.
    static CHAIN: Cell<*const Running> = const { Cell::new(ptr::null()) };
    /// One that was used, to be used again.
    static SPARE: Cell<Option<Box<Running>>> = const { Cell::new(None) };
    static COUNTS: Mine = Mine::new();
}

/// Whether anybody has ever run a transaction.
static USED: AtomicBool = AtomicBool::new(false);

#[inline]
pub(crate) fn used() -> bool {
    // Ordering: Relaxed. Whoever is inside a transaction has set it on this thread.
    USED.load(Ordering::Relaxed)
}

#[inline]
fn owner() -> u64 {
    goslings::with_current(|task| task.map_or(0, goslings::Task::id))
}

/// Calls `look` with the transaction that this code runs in.
#[inline]
fn with_current<R>(look: impl FnOnce(Option<&Running>) -> R) -> R {
    let mut next = CHAIN.get();
    if !next.is_null() {
        let owner = owner();
        // SAFETY: those in the chain are in frames of this thread that have not returned (`Linked`).
        while let Some(running) = unsafe { next.as_ref() } {
            if running.owner.get() == owner {
                return look(Some(running));
            }
            next = running.outer.get();
        }
    }
    look(None)
}

/// While it lives, the transaction is in the chain.
struct Linked<'a>(&'a Running);

impl<'a> Linked<'a> {
    #[inline]
    fn new(running: &'a Running) -> Linked<'a> {
        running.outer.set(CHAIN.get());
        CHAIN.set(running);
        Linked(running)
    }
}

impl Drop for Linked<'_> {
    #[inline]
    fn drop(&mut self) {
        let me = ptr::from_ref(self.0);
        if CHAIN.get() == me {
            CHAIN.set(self.0.outer.get());
            return;
        }
        let mut next = CHAIN.get();
        // SAFETY: as in `with_current`.
        while let Some(running) = unsafe { next.as_ref() } {
            if running.outer.get() == me {
                running.outer.set(self.0.outer.get());
                return;
            }
            next = running.outer.get();
        }
        debug_assert!(false, "not in the chain");
    }
}

/// Refuses what a transaction must not do, since it may run more than once: everything that others notice.
#[inline]
pub(crate) fn check(label: &'static str) -> PyResult<()> {
    if with_current(|running| running.is_none()) { Ok(()) } else { refuse(label) }
}

#[cold]
fn refuse(label: &'static str) -> PyResult<()> {
    const HARMLESS: [&str; 6] =
        ["len(chan)", "chan.closed", "Event.is_set", "Mutex.locked", "Goroutine.done", "testing.wait"];
    if HARMLESS.contains(&label) || label.starts_with("AtomicInt.") {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(format!(
        "{label} in a transaction, which may run more than once: do it after the commit, with on_commit(fn, *args)"
    )))
}

impl Running {
    fn new() -> Running {
        Running {
            tx: RefCell::new(Transaction::new(space())),
            pin: Cell::new(None),
            owner: Cell::new(0),
            outer: Cell::new(ptr::null()),
            doom: Cell::new(Doom::No),
            after: RefCell::new(Vec::new()),
        }
    }

    /// Raises again what the function has swallowed.
    #[inline]
    fn alive(&self) -> PyResult<()> {
        if self.doom.get() == Doom::No { Ok(()) } else { Err(self.end(self.doom.get())) }
    }

    #[cold]
    fn end(&self, doom: Doom) -> PyErr {
        self.doom.set(doom);
        if doom == Doom::Retry { TransactionRetry::new_err(()) } else { TransactionConflict::new_err(()) }
    }

    /// A nested part: its writes are undone if it raises.
    fn nested<'py>(&self, call: impl FnOnce() -> PyResult<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let mark = self.tx.borrow_mut().nest();
        let after = self.after.borrow().len();
        let result = call();
        if result.is_ok() {
            self.tx.borrow_mut().keep(mark);
        } else {
            let undone = self.tx.borrow_mut().undo(mark);
            let withdrawn: Vec<Call> = self.after.borrow_mut().drain(after..).collect();
            drop((undone, withdrawn));
        }
        result
    }

    /// Not in the chain: what a change of would let another attempt go differently.
    fn watch(&self) -> Watch<Owner> {
        // SAFETY: it is pinned since before it made its entries.
        self.tx.borrow().watch_as(|handle| Owner(unsafe { handle.0.keep() }))
    }

    /// Not in the chain: forgets the attempt.
    fn clear(&self) {
        self.doom.set(Doom::No);
        // Its owner alone reaches it, and what is called by a drop does not find it.
        self.tx.borrow_mut().clear();
        self.pin.set(None);
        if !self.after.borrow().is_empty() {
            drop(self.after.take());
        }
    }
}

/// How one attempt went.
enum Went<'py> {
    Committed(Bound<'py, PyAny>, Vec<Call>),
    Retry(Watch<Owner>),
    Conflict,
    /// Somebody else has the turn.
    NotNow,
    Raised(PyErr),
}

/// What the function of a transaction is called with.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a, 'py> {
    All(&'a Bound<'py, PyTuple>, Option<&'a Bound<'py, PyDict>>),
    /// Positions only, as the caller has them: a tuple would count a reference to each.
    Positions(&'a [NonNull<ffi::PyObject>]),
}

impl<'py> Given<'_, 'py> {
    #[inline]
    fn call(self, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Given::All(args, kwargs) => host::call(function, args, kwargs),
            Given::Positions(args) => host::call_with(function, args),
        }
    }
}

/// A transaction from its first attempt to its commit.
struct Attempts<'a, 'py> {
    running: Option<Box<Running>>,
    lost: u32,
    function: &'a Bound<'py, PyAny>,
    given: Given<'a, 'py>,
}

impl<'a, 'py> Attempts<'a, 'py> {
    fn new(function: &'a Bound<'py, PyAny>, given: Given<'a, 'py>) -> Attempts<'a, 'py> {
        if !used() {
            // Ordering: Relaxed. See `used`.
            USED.store(true, Ordering::Relaxed);
        }
        let running = SPARE.take().unwrap_or_else(|| Box::new(Running::new()));
        running.owner.set(owner());
        Attempts { running: Some(running), lost: 0, function, given }
    }

    fn running(&self) -> &Running {
        self.running.as_deref().expect("until the drop")
    }

    /// Runs the function once and tries to commit.
    fn attempt(&mut self) -> Went<'py> {
        let running = self.running();
        running.pin.set(Some(pin()));
        let linked = Linked::new(running);
        let mut result = self.given.call(self.function);
        if let Ok(value) = &result {
            // A step of an explored run; may raise, as any call that a goroutine is cancelled in.
            if let Err(error) = step_of_transaction(value.py(), "stm.commit", On::Anything) {
                result = Err(error);
            }
        }
        drop(linked);
        match (running.doom.get(), result) {
            (Doom::Retry, Ok(_)) => Went::Retry(running.watch()),
            (Doom::Conflict, Ok(_)) => Went::Conflict,
            (Doom::No, Ok(value)) => self.commit(value),
            (doom, Err(error)) => {
                let py = self.function.py();
                if doom == Doom::Retry && error.is_instance_of::<TransactionRetry>(py) {
                    Went::Retry(running.watch())
                } else if doom == Doom::Conflict && error.is_instance_of::<TransactionConflict>(py) {
                    Went::Conflict
                } else {
                    Went::Raised(error)
                }
            }
        }
    }

    fn commit(&self, value: Bound<'py, PyAny>) -> Went<'py> {
        // SAFETY: attached; compares the type.
        if unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) } != 0 {
            let _ = value.call_method0("close");
            return Went::Raised(PyTypeError::new_err(
                "a transaction runs an ordinary function, not an async one: it may run more than once, and waits in retry() only",
            ));
        }
        let running = self.running();
        match running.tx.borrow_mut().commit() {
            Ok(()) => Went::Committed(value, running.after.take()),
            Err(CommitError::Conflict) => Went::Conflict,
            Err(CommitError::NotNow) => Went::NotNow,
        }
    }

    /// Forgets the attempt that was lost. Whether it is time to ask for the turn.
    fn again(&mut self) -> bool {
        self.running().clear();
        count(|counts| &counts.conflicts);
        self.lost += 1;
        // In a bubble one runs at a time, and whoever waits must be known to it.
        self.lost >= LOSSES_MAX && goslings::bubble::current_id() == 0
    }

    /// It has committed.
    fn done(mut self, value: Bound<'py, PyAny>, after: Vec<Call>) -> PyResult<Bound<'py, PyAny>> {
        count(|counts| &counts.commits);
        let running = self.running.take().expect("until the drop");
        let had_turn = running.tx.borrow().has_turn();
        put_away(running);
        if had_turn {
            count(|counts| &counts.turns);
        }
        run_after(value.py(), after)?;
        Ok(value)
    }
}

/// For whoever comes next on this thread.
fn put_away(running: Box<Running>) {
    running.tx.borrow_mut().give_turn_back();
    running.clear();
    running.outer.set(ptr::null());
    SPARE.set(Some(running));
}

impl Drop for Attempts<'_, '_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            put_away(running);
        }
    }
}

/// Calls what was to be called after the commit. All of it, in order; the first exception is raised, others are shown.
fn run_after(py: Python<'_>, after: Vec<Call>) -> PyResult<()> {
    let mut raised = Ok(());
    for Call(function, args, kwargs) in after {
        let kwargs = kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        if let Err(error) = host::call(function.bind(py), args.bind(py), kwargs) {
            if raised.is_ok() {
                raised = Err(error);
            } else {
                error.write_unraisable(py, Some(function.bind(py)));
            }
        }
    }
    raised
}

fn no_transaction(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "{what} outside a transaction: call it in a function that atomically() runs"
    ))
}

/// A variable that changes in transactions only, and all that one transaction changes at once.
///
/// Haskell: `TVar`. What it holds should not be changed in place: others would see that at once, and nothing would
/// undo it; `set` another value, or `modify` it into one.
#[pyclass(module = "goslings.stm", frozen, generic, weakref)]
pub(crate) struct TVar(Kept<Variable>);

impl TVar {
    #[inline]
    fn write<'py>(slf: &Bound<'py, Self>, value: Py<PyAny>) -> PyResult<()> {
        let me = &slf.get().0;
        let value = Object::new(value, Some(slf.as_any()));
        let rest = with_current(|running| match running {
            None => Some(value),
            Some(running) => {
                let before = running.tx.borrow_mut().write_as(&me.var, || Handle(me.held()), value);
                drop(before);
                None
            }
        });
        let Some(mut value) = rest else { return Ok(()) };
        loop {
            match me.var.set(space(), value) {
                Ok(before) => {
                    drop(before);
                    return Ok(());
                }
                Err(back) => value = back,
            }
            space().wait().map_err(|error| errors::wait(slf.py(), error, "TVar.set"))?;
        }
    }

    fn read(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let me = &slf.get().0;
        shared::used(slf.as_any());
        with_current(|running| match running {
            None => Ok(me.var.get().0),
            Some(running) => {
                running.alive()?;
                let found = running.tx.borrow_mut().read_as(&me.var, || Handle(me.held()));
                found.map(|object| object.0).map_err(|_| running.end(Doom::Conflict))
            }
        })
    }
}

#[pymethods]
impl TVar {
    #[new]
    #[pyo3(signature = (value, /))]
    fn new(value: Py<PyAny>) -> TVar {
        let var = goslings::stm::TVar::new(Object::new(value, None));
        TVar(Kept::new(Variable { var, made: goslings::bubble::current_id() }))
    }

    /// The value: in a transaction, as that sees it; outside, as of now. Never blocks.
    fn get(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        step_of_transaction(slf.py(), "TVar.get", On::Shared(slf.get().0.made))?;
        TVar::read(slf)
    }

    /// Sets it: in a transaction, for everybody else when that commits; outside, at once.
    ///
    /// Blocks, outside, only while a transaction that has lost too often has its turn.
    #[pyo3(signature = (value, /))]
    fn set(slf: &Bound<'_, Self>, value: Py<PyAny>) -> PyResult<()> {
        step_of_transaction(slf.py(), "TVar.set", On::Shared(slf.get().0.made))?;
        with_current(|running| running.map_or(Ok(()), Running::alive))?;
        TVar::write(slf, value)
    }

    /// modify(fn, *args): sets it to `fn(value, *args)`, and returns that.
    ///
    /// Outside a transaction this is one of its own: `fn` may be called more than once.
    #[pyo3(signature = (r#fn, /, *args))]
    fn modify<'py>(
        slf: &Bound<'py, Self>,
        r#fn: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if with_current(|running| running.is_none()) {
            let again = slf.getattr("modify")?;
            let all = behind(r#fn, args)?;
            return run(py, &again, Given::All(&all, None));
        }
        let value = TVar::get(slf)?;
        let all = behind(value.into_bound(py), args)?;
        let value = host::call(&r#fn, &all, None)?;
        TVar::set(slf, value.clone().unbind())?;
        Ok(value)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let now = self.0.var.get().0;
        let value = now.bind(py);
        let kind = value.get_type();
        // A variable may hold what holds the variable.
        if kind.is(py.get_type::<pyo3::types::PyInt>()) || kind.is(py.get_type::<pyo3::types::PyString>()) {
            return Ok(format!("<TVar {}>", value.repr()?));
        }
        Ok(format!("<TVar of {}>", kind.name()?))
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("TVar"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("TVar"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("TVar"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.var.visit(|object| visit.call(&object.0)).unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        // SAFETY: the collector is attached.
        let none = unsafe { Python::assume_attached() }.None();
        drop(self.0.var.replace(Object(none)));
    }
}

impl Drop for TVar {
    fn drop(&mut self) {
        // What it holds goes at once; the memory, when no transaction is left that has used it.
        // SAFETY: objects are dropped by whoever is attached.
        let none = unsafe { Python::assume_attached() }.None();
        drop(self.0.var.replace(Object(none)));
    }
}

/// `first`, and then `args`.
fn behind<'py>(first: Bound<'py, PyAny>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    let mut all = Vec::with_capacity(1 + args.len());
    all.push(first);
    all.extend(args.iter());
    PyTuple::new(args.py(), all)
}

fn run<'py>(
    py: Python<'py>,
    function: &Bound<'py, PyAny>,
    given: Given<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut attempts = Attempts::new(function, given);
    loop {
        let wants_turn = match attempts.attempt() {
            Went::Committed(value, after) => return attempts.done(value, after),
            Went::Raised(error) => return Err(error),
            Went::Conflict => attempts.again(),
            Went::NotNow => {
                // What it has read may be the same after the turn; to run it anew costs less than to be sure.
                attempts.running().clear();
                waited(py, space().wait())?;
                false
            }
            Went::Retry(watch) => {
                attempts.running().tx.borrow_mut().give_turn_back();
                attempts.running().clear();
                attempts.lost = 0;
                count(|counts| &counts.retries);
                let made = common(&watch);
                step_of_transaction(py, "stm.retry", On::Shared(made))?;
                waited(py, watch.wait(Wait::Forever))?;
                false
            }
        };
        if wants_turn {
            let taken = attempts.running().tx.borrow_mut().take_turn();
            waited(py, taken)?;
        }
        py.check_signals()?;
    }
}

fn waited(py: Python<'_>, result: Result<(), WaitError>) -> PyResult<()> {
    result.map_err(|error| errors::wait(py, error, "transaction"))
}

/// The number of the bubble in which all of them were made; 0: none.
fn common(watch: &Watch<Owner>) -> u32 {
    let mut made = watch.vars().map(|var| var.0.made);
    let first = made.next().unwrap_or(0);
    if made.all(|other| other == first) { first } else { 0 }
}

/// atomically(fn, *args, **kwargs): runs `fn` as a transaction.
///
/// All that it does with TVars happens at once, or, if it raises, not at all. Returns what it returns. On a conflict
/// with others `fn` runs again: whatever else it does is done again, too (see `on_commit`). Blocks while `retry` waits.
/// Inside a transaction it is a part of that; if it raises, its own part is undone. Haskell: `atomically`.
#[pyfunction]
#[pyo3(signature = (r#fn, /, *args, **kwargs))]
pub(crate) fn atomically<'py>(
    py: Python<'py>,
    r#fn: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    atomically_with(py, r#fn, Given::All(args, kwargs))
}

#[inline]
pub(crate) fn atomically_with<'py>(
    py: Python<'py>,
    function: &Bound<'py, PyAny>,
    given: Given<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let nested = with_current(|running| {
        running.map(|running| {
            running.alive()?;
            running.nested(|| given.call(function))
        })
    });
    if let Some(result) = nested {
        return result;
    }
    may_block(py, "aatomically(...)")?;
    run(py, function, given)
}

/// Waits, when awaited, until a transaction is worth another attempt.
#[pyclass(name = "_Watching", module = "goslings._goslings", frozen)]
pub(crate) struct Watching(std::sync::atomic::AtomicPtr<Until>);

enum Until {
    Changed(Watch<Owner>, u32),
    TurnOver(&'static Space),
}

impl Watching {
    fn new(until: Until) -> Watching {
        Watching(std::sync::atomic::AtomicPtr::new(Box::into_raw(Box::new(until))))
    }

    fn take(&self) -> Option<Box<Until>> {
        // Ordering: AcqRel. Whoever takes it out has it alone.
        let taken = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: made by `new`, and taken out once.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[pymethods]
impl Watching {
    fn __await__(&self) -> PyResult<Awaitable> {
        match self.take().map(|until| *until) {
            Some(Until::Changed(watch, made)) => {
                let waiting =
                    Awaitable::waiting(move |caller| polled::changed(watch, Wait::Forever, caller), ());
                Ok(waiting.about("stm.retry", On::Shared(made)))
            }
            Some(Until::TurnOver(space)) => {
                let waiting = Awaitable::waiting(move |caller| polled::turn_over(space, caller), ());
                Ok(waiting.about("stm.turn", On::Anything))
            }
            None => Err(PyRuntimeError::new_err("awaited twice")),
        }
    }
}

/// Runs a transaction up to its commit, or to where it must wait: `(False, what to await before the next call)`.
#[pyfunction]
#[pyo3(name = "_attempt")]
pub(crate) fn attempt<'py>(
    py: Python<'py>,
    r#fn: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<(bool, Bound<'py, PyAny>)> {
    if with_current(|running| running.is_some()) {
        return Err(PyRuntimeError::new_err("aatomically inside a transaction: call atomically"));
    }
    let mut attempts = Attempts::new(r#fn, Given::All(args, Some(kwargs)));
    let until = loop {
        match attempts.attempt() {
            Went::Committed(value, after) => return Ok((true, attempts.done(value, after)?)),
            Went::Raised(error) => return Err(error),
            Went::Conflict => {
                if attempts.again() {
                    attempts.running().tx.borrow_mut().try_take_turn();
                }
            }
            Went::NotNow => break Until::TurnOver(space()),
            Went::Retry(watch) => {
                count(|counts| &counts.retries);
                let made = common(&watch);
                break Until::Changed(watch, made);
            }
        }
        py.check_signals()?;
    };
    Ok((false, Bound::new(py, Watching::new(until))?.into_any()))
}

/// Ends this attempt of the transaction.
#[pyfunction]
#[pyo3(name = "_retry")]
pub(crate) fn retry() -> PyResult<()> {
    with_current(|running| {
        Err(running.map_or_else(|| no_transaction("retry()"), |running| running.end(Doom::Retry)))
    })
}

/// or_else(f, g, *more): the result of the first of these functions that does not `retry`.
///
/// What one did before it retried is undone. If all do, the transaction waits for a change of anything that any of them has
/// read. RuntimeError outside a transaction. Haskell: `orElse`.
#[pyfunction]
#[pyo3(signature = (*functions))]
pub(crate) fn or_else<'py>(py: Python<'py>, functions: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let Some(last) = functions.len().checked_sub(1) else {
        return Err(PyTypeError::new_err("or_else needs functions, to be called without arguments"));
    };
    let none = PyTuple::empty(py);
    with_current(|running| {
        let running = running.ok_or_else(|| no_transaction("or_else()"))?;
        for (index, function) in functions.iter().enumerate() {
            running.alive()?;
            match running.nested(|| host::call(&function, &none, None)) {
                Err(error)
                    if index < last
                        && running.doom.get() == Doom::Retry
                        && error.is_instance_of::<TransactionRetry>(py) =>
                {
                    running.doom.set(Doom::No);
                }
                result => return result,
            }
        }
        unreachable!("the last one returns")
    })
}

/// on_commit(fn, *args, **kwargs): has `fn` called once, after the transaction has committed and outside it.
///
/// In the order of these calls. The place for whatever others notice: sends, prints, files.
#[pyfunction]
#[pyo3(signature = (r#fn, /, *args, **kwargs))]
pub(crate) fn on_commit(
    r#fn: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<()> {
    if !r#fn.is_callable() {
        let kind = r#fn.get_type().name()?;
        return Err(PyTypeError::new_err(format!("on_commit needs a function, not {kind}")));
    }
    with_current(|running| {
        let running = running.ok_or_else(|| no_transaction("on_commit()"))?;
        running.alive()?;
        running.after.borrow_mut().push(Call(r#fn.unbind(), args.unbind(), kwargs.map(Bound::unbind)));
        Ok(())
    })
}

/// Counters of one thread.
#[derive(Default)]
struct Counts {
    commits: AtomicU64,
    conflicts: AtomicU64,
    retries: AtomicU64,
    turns: AtomicU64,
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
static ALL: std::sync::Mutex<Vec<Arc<Counts>>> = std::sync::Mutex::new(Vec::new());

/// This thread's counters: in the list of all. Those of threads that have ended are kept, added up, in its first place.
struct Mine(Arc<Counts>);

impl Mine {
    fn new() -> Mine {
        let mine = Arc::new(Counts::default());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            all.push(Arc::default());
        }
        all.push(Arc::clone(&mine));
        Mine(mine)
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, &self.0));
        if let Some(ended) = all.first() {
            for (sum, count) in ended.each().into_iter().zip(self.0.each()) {
                // Ordering: Relaxed. Numbers for people to read; the lock orders them.
                sum.fetch_add(count.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }
}

impl Counts {
    fn each(&self) -> [&AtomicU64; 4] {
        [&self.commits, &self.conflicts, &self.retries, &self.turns]
    }
}

#[inline]
fn count(which: impl FnOnce(&Counts) -> &AtomicU64) {
    // A thread that is ending counts no more.
    let _ = COUNTS.try_with(|mine| {
        let counter = which(&mine.0);
        // Ordering: Relaxed. Written by this thread only, read by people.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    });
}

/// Commits, conflicts, retries and turns of the process.
#[pyfunction]
#[pyo3(name = "_stm_stats")]
pub(crate) fn stats() -> [u64; 4] {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sums = [0; 4];
    for counts in all.iter() {
        for (sum, count) in sums.iter_mut().zip(counts.each()) {
            // Ordering: Relaxed. As above.
            *sum += count.load(Ordering::Relaxed);
        }
    }
    sums
}

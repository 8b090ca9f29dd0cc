//! CPython as the runtime's host: attaching, detaching, and the swap of per-thread state around a switch.
//!
//! The swap itself is C (`csrc/pystate.c`), since it needs the interpreter's private headers. The only place
//! that attaches to the interpreter.

use crate::awaitable::{Awaitable, Went};
use crate::goroutine::{self, Goroutine};
use crate::nested;
use crate::preempt;
use crate::stacks;
use goslings::{AREA_SIZE, Area, Host, Job, JobVTable, StackBounds, Step, Task};
use pyo3::exceptions::{PyImportError, PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

unsafe extern "C" {
    fn gs_area_size() -> usize;
    fn gs_stack_kb() -> usize;
    fn gs_layout_problem() -> *const c_char;
    fn gs_watch_forks() -> c_int;
    fn gs_worker_start() -> *mut Worker;
    fn gs_worker_is_out(worker: *mut Worker) -> c_int;
    fn gs_enter(area: *mut Area, low: usize, base: usize, end: usize);
    fn gs_leave(area: *mut Area);
    fn gs_caller(skip: c_int, offset: *mut c_int) -> *mut ffi::PyObject;
    fn gs_caller_outside(folder: *mut ffi::PyObject, offset: *mut c_int) -> *mut ffi::PyObject;
    fn gs_own_locals();
    fn gs_has_own_locals() -> c_int;
    fn gs_exchange_locals(locals: *mut Locals);
    fn gs_end_own_locals();
    fn gs_end_locals(locals: *mut Locals);
    fn gs_has_context() -> c_int;
    fn gs_exchange_context(context: *mut ffi::PyObject) -> *mut ffi::PyObject;
    fn gs_stop_iteration(value: *mut ffi::PyObject);
    fn gs_running_loop() -> *mut ffi::PyObject;
    fn gs_set_stackless(now: c_int);
    fn gs_is_among_coroutines() -> c_int;
    fn gs_here() -> c_int;
    fn gs_is_worker() -> c_int;
    fn gs_revive(memory: *mut c_void) -> *mut ffi::PyObject;
    fn gs_is_async(function: *mut ffi::PyObject) -> c_int;
    fn gs_nearest_coroutine() -> *mut ffi::PyObject;
    fn PyErr_FormatUnraisable(format: *const c_char, ...);
    fn PyCode_Addr2Line(code: *mut ffi::PyObject, offset: c_int) -> c_int;
}

/// A worker thread, as the C file knows it.
#[repr(C)]
pub(crate) struct Worker([u8; 0]);

/// Functions that may wait for the interpreter, and so find that it has come to its end: 3.13 unwinds the
/// thread then (see [`Hang`]). Nobody may call them by PyO3's declarations, which say that they do not unwind: the
/// optimizer takes one declaration for all calls, and no guard is left.
mod waiting {
    use goslings::Area;
    use pyo3::ffi::{PyObject, PyThreadState};
    use std::ffi::c_int;

    // Of the interpreter's own, under names of ours: PyO3 declares those as functions that never unwind, and of two
    // declarations of one name in a unit of code generation the compiler takes either.
    unsafe extern "C-unwind" {
        pub(super) fn gs_attach(state: *mut PyThreadState);
        pub(super) fn gs_call(f: *mut PyObject, args: *mut PyObject, kw: *mut PyObject) -> *mut PyObject;
        pub(super) fn gs_call_with(
            f: *mut PyObject,
            args: *const *mut PyObject,
            count: usize,
        ) -> *mut PyObject;
        pub(super) fn gs_send(
            iterator: *mut PyObject,
            value: *mut PyObject,
            result: *mut *mut PyObject,
        ) -> c_int;
        pub(super) fn gs_save(area: *mut Area);
        pub(super) fn gs_restore(area: *mut Area);
    }
}

/// 3.13 ends a thread that wants the interpreter after its end by unwinding it. Nothing of ours may run then,
/// not even a destructor; so this guard, innermost in every frame that may be unwound, makes the thread wait
/// for the end of the process instead, as 3.14 does itself.
pub(crate) struct Hang;

impl Hang {
    /// Runs `call`, out of which an unwinding does not come.
    #[inline(always)]
    pub(crate) fn guard<R>(call: impl FnOnce() -> R) -> R {
        let guard = Hang;
        let result = call();
        std::mem::forget(guard);
        result
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        loop {
            // SAFETY: waits for a signal; no memory is involved.
            unsafe { libc::pause() };
        }
    }
}

struct Interpreter;

impl Host for Interpreter {
    fn detach(&self) -> usize {
        // SAFETY: the runtime calls this on an attached thread.
        unsafe { ffi::PyEval_SaveThread() }.expose_provenance()
    }

    fn attach(&self, state: usize) {
        let state = std::ptr::with_exposed_provenance_mut(state);
        // SAFETY: `state` came from `detach` on this thread.
        Hang::guard(|| unsafe { waiting::gs_attach(state) });
    }

    fn signalled(&self, state: usize) -> bool {
        self.attach(state);
        // SAFETY: attached. Runs handlers on the main thread only; an exception of theirs stays pending in
        // the thread state until the waiting call takes it.
        let raised = unsafe { ffi::PyErr_CheckSignals() } != 0;
        self.detach();
        raised
    }

    fn may_deadlock(&self, state: usize) -> Option<bool> {
        self.attach(state);
        // SAFETY: attached.
        let py = unsafe { Python::assume_attached() };
        let may = stacks::may_deadlock(py);
        self.detach();
        may
    }

    fn deadlocked(&self, state: usize) {
        self.attach(state);
        // SAFETY: attached.
        let py = unsafe { Python::assume_attached() };
        stacks::deadlock(py).restore(py);
        self.detach();
    }

    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn worker(&self, run: &mut dyn FnMut(usize)) {
        Python::attach(|py| {
            // SAFETY: attached, on a new thread.
            let worker = unsafe { gs_worker_start() };
            if worker.is_null() {
                PyErr::take(py).inspect(|error| error.print(py));
                fatal("a worker could not set up its thread state");
            }
            run(worker.expose_provenance());
        });
    }

    fn is_out(&self, worker: usize) -> bool {
        // SAFETY: a number that `worker` gave, of a thread that the runtime keeps from ending meanwhile.
        unsafe { gs_worker_is_out(std::ptr::with_exposed_provenance_mut(worker)) != 0 }
    }

    fn interrupt(&self, worker: usize, times: u32) {
        attached(|py| preempt::interrupt(py, worker, times));
    }

    fn interrupt_nobody(&self) {
        attached(preempt::interrupt_nobody);
    }

    fn warn_held(&self, _worker: usize, goroutine: u64, held_ns: u64) {
        attached(|py| {
            let warned = py
                .import("goslings._warn")
                .and_then(|module| module.call_method1("held", (goroutine, held_ns as f64 / 1e9)));
            if let Err(error) = warned {
                error.write_unraisable(py, None);
            }
        });
    }

    unsafe fn enter(&self, area: *mut Area, stack: StackBounds) {
        // SAFETY: the runtime's contract is the C function's; its size was checked at import.
        unsafe { gs_enter(area, stack.low, stack.base, stack.end) }
    }

    unsafe fn leave(&self, area: *mut Area) {
        // SAFETY: the runtime's contract.
        unsafe { gs_leave(area) }
    }

    unsafe fn save(&self, area: *mut Area) {
        // SAFETY: the runtime's contract.
        Hang::guard(|| unsafe { waiting::gs_save(area) });
    }

    unsafe fn restore(&self, area: *mut Area) {
        // SAFETY: the runtime's contract.
        Hang::guard(|| unsafe { waiting::gs_restore(area) });
    }

    fn forked_goroutine_ended(&self) -> ! {
        // SAFETY: attached; in the forked child this is the only thread. A thread's function that returns
        // in a forked child ends that process with status 0, without atexit: the same here.
        unsafe {
            ffi::PyRun_SimpleString(
                c"import sys\nfor f in (sys.stdout, sys.stderr):\n  f and f.flush()\n".as_ptr(),
            );
            libc::_exit(0)
        }
    }

    fn panicked(&self, message: &str) {
        fatal(message);
    }
}

/// Our own bug, in a place where Python code cannot be told: say so and end the process, rather than go
/// on with an interpreter in an unknown state.
pub(crate) fn fatal(message: &str) -> ! {
    eprintln!("goslings: internal error, please report: {message}");
    std::process::abort()
}

/// Makes CPython the runtime's host. Refuses an interpreter that the C file does not fit.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    // SAFETY: attached; the function only compares numbers.
    let problem = unsafe { gs_layout_problem() };
    if !problem.is_null() {
        // SAFETY: a static C string.
        let problem = unsafe { CStr::from_ptr(problem) }.to_string_lossy();
        return Err(PyImportError::new_err(format!(
            "goslings was built for another interpreter; this is {problem}. Build it here: \
             pip install --force-reinstall --no-binary goslings goslings"
        )));
    }
    // SAFETY: returns a number.
    let size = unsafe { gs_area_size() };
    if size > AREA_SIZE {
        return Err(PyImportError::new_err(format!("goroutine state needs {size} bytes, not {AREA_SIZE}")));
    }
    // SAFETY: registers a function that stays; a module is initialised once.
    if unsafe { gs_watch_forks() } != 0 {
        return Err(PyImportError::new_err("the system refuses to tell of forks: out of memory"));
    }
    // SAFETY: returns a number.
    goslings::set_default_stack(unsafe { gs_stack_kb() });
    goslings::set_host(&Interpreter);
    install_finalizer(py);
    install_steps(py);
    nested::install(py);
    preempt::install(py)
}

/// Stops the workers at their next look for work; for `atexit`.
#[pyfunction]
#[pyo3(name = "_stop")]
pub(crate) fn stop(py: Python<'_>) {
    goroutine::report_all_unread(py);
    goslings::stop();
    preempt::close(py);
}

#[pyfunction]
#[pyo3(name = "_before_fork")]
pub(crate) fn before_fork(py: Python<'_>) {
    preempt::close(py);
    goslings::before_fork();
}

#[pyfunction]
#[pyo3(name = "_after_fork_parent")]
pub(crate) fn after_fork_parent() {
    goslings::after_fork_parent();
    preempt::open();
}

#[pyfunction]
#[pyo3(name = "_after_fork_child")]
pub(crate) fn after_fork_child() {
    goroutine::forget_failed();
    preempt::open();
    goslings::after_fork_child();
    goslings_shm::after_fork_child();
    goslings::stm::after_fork_child();
}

/// What the runtime uses of the kernel, for `goslings doctor`.
#[pyfunction]
#[pyo3(name = "_kernel")]
pub(crate) fn kernel(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("stack_bytes", goslings::slot_size())?;
    facts.set_item("guard_by_advice", goslings::guard_is_advice())?;
    Ok(facts)
}

/// Runs `f`, which does not touch the interpreter, detached.
pub(crate) fn detached<R>(_py: Python<'_>, f: impl FnOnce() -> R) -> R {
    let state = Interpreter.detach();
    let result = f();
    Interpreter.attach(state);
    result
}

/// Runs `f` attached; for destructors, which Python calls attached.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn attached<R>(f: impl FnOnce(Python<'_>) -> R) -> R {
    Python::attach(f)
}

/// A job that runs the goroutine of `handle`, and what `current_handle` will find it by. Without a stack it is
/// stepped instead.
pub(crate) fn job(handle: Py<Goroutine>, stackless: bool) -> (Job, *mut ()) {
    static STACKLESS: JobVTable =
        JobVTable { run: run_job, no_stack: fail_job, drop: drop_job, step: Some(step_job) };
    static TABLE: JobVTable = JobVTable { run: run_job, no_stack: fail_job, drop: drop_job, step: None };
    let data = handle.into_ptr().cast::<()>();
    // SAFETY: `data` is a strong reference to a frozen class, usable from any attached thread; each
    // function below consumes it.
    (unsafe { Job::from_raw(data, if stackless { &STACKLESS } else { &TABLE }) }, data)
}

unsafe fn step_job(data: *mut ()) -> Step {
    // SAFETY: workers are attached while they run goroutines.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the job holds a reference until its last step.
    let handle = unsafe { Bound::from_borrowed_ptr(py, data.cast()).cast_into_unchecked::<Goroutine>() };
    // SAFETY: writes a word of this thread's.
    unsafe { gs_set_stackless(1) };
    let ended = goroutine::step(py, &handle);
    // SAFETY: as above.
    unsafe { gs_set_stackless(0) };
    if !ended {
        return Step::Waiting;
    }
    drop(handle);
    disown();
    // SAFETY: consumed once, by the contract of JobVTable.
    drop(unsafe { take_handle(py, data) });
    Step::Done
}

unsafe fn take_handle<'py>(py: Python<'py>, data: *mut ()) -> Bound<'py, Goroutine> {
    // SAFETY: `data` is the strong reference that `job` put there; the caller consumes it.
    unsafe { Bound::from_owned_ptr(py, data.cast()).cast_into_unchecked() }
}

unsafe fn run_job(data: *mut ()) {
    // SAFETY: workers are attached while they run goroutines.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: consumed once, by the contract of JobVTable.
    let handle = unsafe { take_handle(py, data) };
    crate::goroutine::run(py, &handle);
    disown();
}

unsafe fn fail_job(data: *mut ()) {
    // SAFETY: as in `run_job`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: consumed once, by the contract of JobVTable.
    crate::goroutine::no_stack(py, &unsafe { take_handle(py, data) });
}

unsafe fn drop_job(data: *mut ()) {
    // SAFETY: as in `run_job`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: consumed once, by the contract of JobVTable.
    drop(unsafe { take_handle(py, data) });
}

/// Whether nobody else refers to `handle`, which its own goroutine holds.
pub(crate) fn is_only_reference(handle: &Bound<'_, Goroutine>) -> bool {
    // SAFETY: a live object. Who could add a reference meanwhile would have to have one, weak ones aside.
    unsafe { ffi::Py_REFCNT(handle.as_ptr()) == 1 }
}

unsafe extern "C" fn finalize(handle: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls finalizers attached.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as above; a finalizer must leave a pending exception as it was.
    let pending = unsafe { ffi::PyErr_GetRaisedException() };
    // SAFETY: called for objects of the class it was installed in, alive throughout the call.
    let handle = unsafe { Bound::from_borrowed_ptr(py, handle).cast_into_unchecked::<Goroutine>() };
    goroutine::finalize(&handle);
    // SAFETY: the exception that was taken above, or null.
    unsafe { ffi::PyErr_SetRaisedException(pending) };
}

/// Gives Goroutine a finalizer, which PyO3 has no word for: the collector calls it before it takes a cycle apart. And a
/// shorter way to be freed.
fn install_finalizer(py: Python<'_>) {
    let class = py.get_type::<Goroutine>().as_type_ptr();
    // SAFETY: a heap type of ours, and nobody has made an instance yet.
    unsafe {
        (*class).tp_finalize = Some(finalize);
        if let Some(usual) = (*class).tp_dealloc.replace(free_handle) {
            let _ = USUAL_FREE_OF_HANDLES.set(usual);
        }
    }
}

/// How PyO3 frees a handle.
static USUAL_FREE_OF_HANDLES: OnceLock<ffi::destructor> = OnceLock::new();
/// Where in such an object its content is; the same in all. 0: not known yet.
static HANDLE: AtomicUsize = AtomicUsize::new(0);

/// What PyO3's function does, without what it does for threads that it does not know.
unsafe extern "C" fn free_handle(object: *mut ffi::PyObject) {
    // Ordering: Relaxed. A number that does not change once it is known.
    let offset = HANDLE.load(Ordering::Relaxed);
    // Elsewhere PyO3 must count the thread as attached first, or would put off what is dropped here.
    if offset == 0 || !is_worker() {
        if let Some(usual) = USUAL_FREE_OF_HANDLES.get() {
            // SAFETY: as this function was called.
            unsafe { usual(object) };
        }
        return;
    }
    // SAFETY: the object has come to its end; its class has weak references, no `__dict__` and no subclasses. Nobody
    // uses the content any more.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let class = ffi::Py_TYPE(object);
        let weak = object.byte_offset((*class).tp_weaklistoffset).cast::<*mut ffi::PyObject>();
        if !(*weak).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        object.byte_add(offset).cast::<Goroutine>().drop_in_place();
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// Makes a handle: one for every `go`, so this takes the short way.
#[inline]
pub(crate) fn new_handle(py: Python<'_>, content: Goroutine) -> PyResult<Py<Goroutine>> {
    // Ordering: Relaxed. A number that does not change once it is known.
    let offset = HANDLE.load(Ordering::Relaxed);
    if offset == 0 {
        let first = Bound::new(py, content)?;
        let offset = std::ptr::from_ref(first.get()).addr() - first.as_ptr().addr();
        // Ordering: Relaxed. As above.
        HANDLE.store(offset, Ordering::Relaxed);
        return Ok(first.unbind());
    }
    // SAFETY: attached. The class makes the object, empty; the content has its place at the same offset as in the first
    // one, and is written before anything else can happen on this thread, and so before anybody sees the object.
    unsafe {
        let object = ffi::PyType_GenericAlloc(py.get_type::<Goroutine>().as_type_ptr(), 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        object.byte_add(offset).cast::<Goroutine>().write(content);
        Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked::<Goroutine>().unbind())
    }
}

/// The handle of the goroutine that this thread runs now.
pub(crate) fn current_handle(py: Python<'_>) -> Option<Bound<'_, Goroutine>> {
    let data = goslings::with_current(|task| task.map(goslings::Task::host_data))?;
    // SAFETY: the job of a running goroutine holds a reference to its handle (as does who calls `adopt`).
    let handle = unsafe { Bound::from_borrowed_ptr_or_opt(py, data.cast()) }?;
    handle.cast_into().ok()
}

/// Lets `current_handle` find `handle` in `task`, which this code runs in, from here to the task's end; the
/// caller keeps the handle alive until then.
pub(crate) fn adopt(task: &goslings::Task, handle: &Bound<'_, Goroutine>) {
    task.set_host_data(handle.as_ptr().cast());
}

/// The handle of the running goroutine may go away now: from here on `current_handle` finds none.
pub(crate) fn disown() {
    goslings::with_current(|task| {
        if let Some(task) = task {
            task.set_host_data(std::ptr::null_mut());
        }
    });
}

/// A copy of the current context for a new goroutine; None if this thread has none yet.
#[inline]
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
    // SAFETY: attached; only looks at the thread's own state.
    if unsafe { gs_has_context() } == 0 {
        return Ok(None);
    }
    // SAFETY: attached; returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }.map(|c| Some(c.unbind()))
}

/// From now on goroutines that begin have thread-local data of their own.
#[pyfunction]
#[pyo3(name = "_own_locals")]
pub(crate) fn own_locals(_py: Python<'_>) {
    // SAFETY: attached; sets a flag.
    unsafe { gs_own_locals() };
}

/// Tells `sys.unraisablehook` of an exception that ended a thread started by `_thread.start_new_thread`.
#[pyfunction]
#[pyo3(name = "_unraisable")]
pub(crate) fn unraisable(error: Bound<'_, PyAny>, function: &Bound<'_, PyAny>) {
    let py = error.py();
    PyErr::from_value(error).restore(py);
    // SAFETY: attached, with an exception set, which the call takes; one object for the one `%R`.
    unsafe {
        PyErr_FormatUnraisable(c"Exception ignored in thread started by %R".as_ptr(), function.as_ptr());
    }
}

/// The running goroutine's function has returned: its thread-local data ends.
pub(crate) fn end_own_locals(_py: Python<'_>) {
    // SAFETY: attached; in a goroutine, at a point where any code may run.
    unsafe { gs_end_own_locals() };
}

/// By what `threading.local` finds a goroutine's data: two references, or null. As in the C file.
#[repr(C)]
struct Locals {
    key: *mut ffi::PyObject,
    sentinel: *mut ffi::PyObject,
}

/// The thread-local data of a goroutine without a stack: current while it runs.
pub(crate) struct OwnLocals(Cell<Locals>);

// SAFETY: touched by whoever runs the goroutine, which is one thread at a time, and by its destructor; attached.
unsafe impl Send for OwnLocals {}
// SAFETY: as above.
unsafe impl Sync for OwnLocals {}

impl OwnLocals {
    pub(crate) fn new() -> OwnLocals {
        OwnLocals(Cell::new(Locals { key: std::ptr::null_mut(), sentinel: std::ptr::null_mut() }))
    }

    /// Runs `f` with it, if goroutines have their own.
    #[inline]
    pub(crate) fn enter<R>(&self, _py: Python<'_>, f: impl FnOnce() -> R) -> R {
        // SAFETY: attached; reads a flag, which is never unset.
        if unsafe { gs_has_own_locals() } == 0 {
            return f();
        }
        // SAFETY: attached; the references move into the thread state, and those there out.
        unsafe { gs_exchange_locals(self.0.as_ptr()) };
        let result = f();
        // SAFETY: as above, the other way round.
        unsafe { gs_exchange_locals(self.0.as_ptr()) };
        result
    }

    /// Ends it.
    pub(crate) fn end(&self, _py: Python<'_>) {
        // SAFETY: attached; two references of ours, or null.
        unsafe { gs_end_locals(self.0.as_ptr()) };
    }
}

impl Drop for OwnLocals {
    fn drop(&mut self) {
        // SAFETY: destructors of handles run attached.
        unsafe { gs_end_locals(self.0.as_ptr()) };
    }
}

/// The number that the interpreter knows the calling thread by.
pub(crate) fn thread_ident() -> u64 {
    // SAFETY: names the calling thread.
    unsafe { libc::pthread_self() }
}

/// The context of a goroutine without a stack: current while it runs.
pub(crate) struct Context(AtomicPtr<ffi::PyObject>);

impl Context {
    /// `copied` came from [`copy_context`].
    pub(crate) fn new(copied: Option<Py<PyAny>>) -> Context {
        Context(AtomicPtr::new(copied.map_or(std::ptr::null_mut(), Py::into_ptr)))
    }

    /// Runs `f` in it.
    #[inline]
    pub(crate) fn enter<R>(&self, _py: Python<'_>, f: impl FnOnce() -> R) -> R {
        // Ordering: Relaxed. Whoever runs the goroutine has it for itself; the run queues order the rest.
        let mine = self.0.swap(std::ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: attached; the reference moves into the thread state, and the one there out.
        let before = unsafe { gs_exchange_context(mine) };
        let result = f();
        // SAFETY: as above, the other way round.
        let mine = unsafe { gs_exchange_context(before) };
        // Ordering: Relaxed. As above.
        self.0.store(mine, Ordering::Relaxed);
        result
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Ordering: Relaxed. The collector has stopped whoever could change it.
        let context = self.0.load(Ordering::Relaxed);
        // SAFETY: null, or a reference that is ours while the collector looks; it is not counted here.
        let context = std::mem::ManuallyDrop::new(unsafe {
            Bound::from_owned_ptr_or_opt(Python::assume_attached(), context).map(Bound::unbind)
        });
        visit.call(&*context)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: null, or our reference; destructors of handles run attached.
        unsafe { ffi::Py_XDECREF(*self.0.get_mut()) };
    }
}

/// What a step of a coroutine came to.
pub(crate) enum Sent {
    Yields(Py<PyAny>),
    Returns(Py<PyAny>),
    Raises(PyErr),
}

/// Runs a coroutine to its next yield, or its end.
#[inline]
pub(crate) fn send_none(coroutine: &Bound<'_, PyAny>) -> Sent {
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: attached; borrowed references that live through the call.
    let went =
        Hang::guard(|| unsafe { waiting::gs_send(coroutine.as_ptr(), ffi::Py_None(), &raw mut result) });
    // SAFETY: a new reference, or null with an exception set.
    let result = unsafe { Bound::from_owned_ptr_or_opt(py, result) };
    match (went, result) {
        (YIELDS, Some(value)) => Sent::Yields(value.unbind()),
        (RETURNS, Some(value)) => Sent::Returns(value.unbind()),
        _ => Sent::Raises(PyErr::fetch(py)),
    }
}

/// `PySendResult`.
const RETURNS: c_int = 0;
const YIELDS: c_int = 1;

/// Raises `error` where a coroutine waits, and runs it on from there.
pub(crate) fn throw(coroutine: &Bound<'_, PyAny>, error: PyErr) -> Sent {
    let py = coroutine.py();
    let thrown = coroutine
        .getattr("throw")
        .and_then(|throw| call(&throw, &PyTuple::new(py, [error.into_value(py)])?, None));
    match thrown {
        Ok(value) => Sent::Yields(value.unbind()),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => match error.value(py).getattr("value") {
            Ok(value) => Sent::Returns(value.unbind()),
            Err(error) => Sent::Raises(error),
        },
        Err(error) => Sent::Raises(error),
    }
}

/// Whether calling `function` gives a coroutine: it is an `async def` function, or something around one.
#[inline]
pub(crate) fn is_async(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: attached; looks at types and flags only.
    match unsafe { gs_is_async(function.as_ptr()) } {
        ..0 => function.py().import("goslings._async")?.call_method1("is_async", (function,))?.extract(),
        flag => Ok(flag != 0),
    }
}

/// The asyncio event loop that runs here, if any.
#[inline]
pub(crate) fn running_loop(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: attached; a borrowed reference of the thread's own state, or null.
    unsafe { Bound::from_borrowed_ptr_or_opt(py, gs_running_loop()) }
}

/// Whether this code runs in a goroutine that may wait where it is.
#[inline]
pub(crate) fn may_block_here() -> bool {
    // SAFETY: called attached; reads words of this thread's.
    unsafe { gs_here() == 1 }
}

/// Whether this thread is a worker.
#[inline]
pub(crate) fn is_worker() -> bool {
    // SAFETY: reads a word of this thread's.
    unsafe { gs_is_worker() != 0 }
}

/// Refuses a call that blocks where that would hold up other coroutines: `twin` is what to await instead.
#[inline]
pub(crate) fn may_block(py: Python<'_>, twin: &str) -> PyResult<()> {
    // SAFETY: attached; reads two words of this thread's.
    if unsafe { gs_is_among_coroutines() } == 0 { Ok(()) } else { refuse_in_coroutine(py, twin) }
}

#[cold]
fn refuse_in_coroutine(py: Python<'_>, twin: &str) -> PyResult<()> {
    let stackless = goslings::with_current(|task| task.is_some_and(Task::is_stackless));
    if !stackless && running_loop(py).is_none() {
        // A forked child of a goroutine without a stack: a plain thread by now.
        return Ok(());
    }
    if !stackless {
        // SAFETY: attached; a borrowed reference to code that runs, or null.
        let code = unsafe { Bound::from_borrowed_ptr_or_opt(py, gs_nearest_coroutine()) };
        // A notebook runs its cells inside a loop: those may block.
        let Some(code) = code else { return Ok(()) };
        let name: String = code.getattr("co_name")?.extract()?;
        let file: String = code.getattr("co_filename")?.extract()?;
        if name == "<module>" || file.contains("IPython") || file.contains("ipykernel") {
            return Ok(());
        }
    }
    let wait = if twin.starts_with("async ") { "" } else { "await " };
    Err(PyRuntimeError::new_err(format!(
        "this call blocks, and so would hold up every other coroutine here: use `{wait}{twin}`"
    )))
}

/// Gives awaitables the slots of a step as the interpreter's own awaitables have them: PyO3 would raise a full
/// StopIteration at the end of each call.
fn install_steps(py: Python<'_>) {
    /// # Safety
    /// For slots: called attached, with an object of the class that they are installed in.
    unsafe fn step(awaitable: *mut ffi::PyObject) -> PyResult<Went> {
        // SAFETY: by the contract.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: by the contract; the caller keeps it alive.
        let awaitable = unsafe { Borrowed::from_ptr(py, awaitable).cast_unchecked::<Awaitable>() };
        // If there is one reference, it is the caller's, and while we have the GIL nobody else can get one. Without it
        // somebody can at any moment, by looking at what the coroutine awaits.
        // SAFETY: a live object.
        let alone = !cfg!(Py_GIL_DISABLED) && unsafe { ffi::Py_REFCNT(awaitable.as_ptr()) == 1 };
        awaitable.get().step(py, alone)
    }
    unsafe extern "C" fn send(
        awaitable: *mut ffi::PyObject,
        _value: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult {
        // SAFETY: as the interpreter calls slots.
        let (value, went) = match unsafe { step(awaitable) } {
            Ok(Went::Yields(value)) => (value.into_ptr(), ffi::PySendResult::PYGEN_NEXT),
            Ok(Went::Returns(value)) => (value.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
            Ok(Went::ReturnsNone) => {
                // SAFETY: attached.
                let none = unsafe { Python::assume_attached() }.None();
                (none.into_ptr(), ffi::PySendResult::PYGEN_RETURN)
            }
            Err(error) => {
                // SAFETY: attached.
                error.restore(unsafe { Python::assume_attached() });
                (std::ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR)
            }
        };
        // SAFETY: the interpreter gives a place for the result.
        unsafe { *result = value };
        went
    }
    unsafe extern "C" fn next(awaitable: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: as the interpreter calls slots.
        match unsafe { step(awaitable) } {
            Ok(Went::Yields(value)) => return value.into_ptr(),
            // SAFETY: attached; the reference is given away.
            Ok(Went::Returns(value)) => unsafe { gs_stop_iteration(value.into_ptr()) },
            // No exception at all means None.
            Ok(Went::ReturnsNone) => {}
            // SAFETY: attached.
            Err(error) => error.restore(unsafe { Python::assume_attached() }),
        }
        std::ptr::null_mut()
    }
    let class = py.get_type::<Awaitable>().as_type_ptr();
    // SAFETY: a heap type of ours with methods `__await__` and `__next__`, and so with these slots; nobody has made
    // an instance.
    unsafe {
        if let Some(usual) = (*class).tp_dealloc.replace(free_awaitable_in_turn) {
            let _ = USUAL_FREE.set(usual);
        }
        (*class).tp_iternext = Some(next);
        (*(*class).tp_as_async).am_send = Some(send);
        (*(*class).tp_as_async).am_await = Some(ffi::PyObject_SelfIter);
    }
}

/// How many freed awaitables a thread keeps for the next ones.
const SPARE: usize = 8;

thread_local! {
    /// Memory of awaitables that were freed on this thread, each with the reference that it had to its class. Small:
    /// most code has few underway at a time. What is here when the thread ends is lost with it: by then the thread
    /// has no interpreter to give it back to.
    static FREED: RefCell<([*mut ffi::PyObject; SPARE], usize)> =
        const { RefCell::new(([std::ptr::null_mut(); SPARE], 0)) };
}

/// How PyO3 frees an awaitable.
static USUAL_FREE: OnceLock<ffi::destructor> = OnceLock::new();
/// Where in such an object its content is; the same in all. 0: not known yet.
static CONTENT: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn free_awaitable_in_turn(object: *mut ffi::PyObject) {
    // SAFETY: as this function was called.
    unsafe { nested::free_in_turn(object, free_awaitable) }
}

unsafe extern "C" fn free_awaitable(object: *mut ffi::PyObject) {
    // Ordering: Relaxed. A number that does not change once it is known.
    let offset = CONTENT.load(Ordering::Relaxed);
    // Elsewhere PyO3 must count the thread as attached first, or would put off what is dropped here.
    if offset == 0 || !is_worker() {
        if let Some(usual) = USUAL_FREE.get() {
            // SAFETY: as this function was called.
            unsafe { usual(object) };
        }
        return;
    }
    // SAFETY: the object has come to its end, and this is its content; nobody uses it any more. (It has neither a
    // `__dict__` nor weak references, and its class has no subclasses.)
    unsafe { object.byte_add(offset).cast::<Awaitable>().drop_in_place() };
    let kept = FREED.try_with(|freed| {
        let (blocks, count) = &mut *freed.borrow_mut();
        let room = *count < SPARE;
        if room {
            blocks[*count] = object;
            *count += 1;
        }
        room
    });
    if kept != Ok(true) {
        // SAFETY: the object has come to its end, and with it its reference to its class.
        unsafe {
            let class = ffi::Py_TYPE(object);
            ffi::PyObject_Free(object.cast());
            ffi::Py_DECREF(class.cast());
        }
    }
}

/// Makes an awaitable: one is made for every call that is awaited, so this takes the short way.
#[inline]
pub(crate) fn new_awaitable(py: Python<'_>, content: Awaitable) -> PyResult<Py<Awaitable>> {
    // Ordering: Relaxed. A number that does not change once it is known.
    let offset = CONTENT.load(Ordering::Relaxed);
    if offset == 0 {
        let first = Bound::new(py, content)?;
        let offset = std::ptr::from_ref(first.get()).addr() - first.as_ptr().addr();
        // Ordering: Relaxed. As above.
        CONTENT.store(offset, Ordering::Relaxed);
        return Ok(first.unbind());
    }
    let spare = FREED.with(|freed| {
        let (blocks, count) = &mut *freed.borrow_mut();
        *count = count.checked_sub(1)?;
        Some(blocks[*count])
    });
    // SAFETY: attached. The memory is that of an object of this class that was freed and still has its reference to
    // it, or the class makes it; the content has its place at the same offset as in the first one, where nothing else
    // is (see `free_awaitable`), and is written before anybody sees the object.
    unsafe {
        let object = match spare {
            Some(memory) => gs_revive(memory.cast()),
            None => ffi::PyType_GenericAlloc(py.get_type::<Awaitable>().as_type_ptr(), 0),
        };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        object.byte_add(offset).cast::<Awaitable>().write(content);
        Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked::<Awaitable>().unbind())
    }
}

/// A call of what somebody else keeps alive: it holds no references, so that all that there are can be found in the
/// one who does.
pub(crate) struct Lent {
    function: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
    context: *mut ffi::PyObject,
}

/// Lends what is to be called. The lender keeps it until the call is over.
pub(crate) fn lend(
    function: &Py<PyAny>,
    args: &Py<PyTuple>,
    kwargs: Option<&Py<PyDict>>,
    context: Option<&Py<PyAny>>,
) -> Lent {
    let null = std::ptr::null_mut;
    Lent {
        function: function.as_ptr(),
        args: args.as_ptr(),
        kwargs: kwargs.map_or_else(null, Py::as_ptr),
        context: context.map_or_else(null, Py::as_ptr),
    }
}

impl Lent {
    /// Calls it.
    pub(crate) fn call(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        // SAFETY: `lend`'s contract; these are borrowed, so their drop must not happen.
        let borrow = |object| unsafe { Borrowed::from_ptr_or_opt(py, object) };
        let (Some(function), Some(args)) = (borrow(self.function), borrow(self.args)) else {
            unreachable!("lent from references");
        };
        let (kwargs, context) = (borrow(self.kwargs), borrow(self.context));
        // SAFETY: lent from a tuple.
        let args = unsafe { args.cast_unchecked::<PyTuple>() };
        // SAFETY: lent from a dict.
        let kwargs = kwargs.map(|kwargs| unsafe { kwargs.cast_unchecked::<PyDict>() });
        call_in_context(&function, &args, kwargs.as_deref(), context.as_deref())
    }
}

/// Shows the references that a call of a Python function holds to its arguments until it returns, beside those of its
/// frame: with named ones it makes an array of all.
pub(crate) fn visit_call_copies(
    function: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
    visit: &mut impl FnMut(*mut ffi::PyObject),
) {
    // SAFETY: the callers give a callable, a tuple and a dict that live, and nothing changes them meanwhile.
    unsafe {
        if ffi::PyFunction_Check(function) == 0 || ffi::PyDict_Size(kwargs) == 0 {
            return;
        }
        for place in 0..ffi::PyTuple_Size(args) {
            visit(ffi::PyTuple_GetItem(args, place));
        }
        let (mut place, mut value) = (0, std::ptr::null_mut());
        while ffi::PyDict_Next(kwargs, &raw mut place, std::ptr::null_mut(), &raw mut value) != 0 {
            visit(value);
        }
    }
}

/// Shows that the running goroutine holds `object` while it waits in a call of ours, until the drop. For the search
/// for leaks.
pub(crate) struct Held(*mut ());

impl Held {
    #[inline]
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> Held {
        Held(Held::show(object.as_ptr().cast()))
    }

    fn show(object: *mut ()) -> *mut () {
        goslings::with_current(|task| task.map_or(std::ptr::null_mut(), |task| task.show_held(object)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        Held::show(self.0);
    }
}

/// Calls `function` with `context` entered.
#[inline]
pub(crate) fn call_in_context<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    context: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(context) = context else { return call(function, args, kwargs) };
    // SAFETY: attached, and `context` is a context that was just copied, so entered nowhere.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(function.py()));
    }
    let result = call(function, args, kwargs);
    // SAFETY: entered above, on this goroutine.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(function.py()));
    }
    result
}

/// Calls `function`; the only way in which goslings calls user code.
pub(crate) fn call<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kwargs = kwargs.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: attached; borrowed references that live through the call; a new reference or null comes back.
    unsafe {
        let result = Hang::guard(|| waiting::gs_call(function.as_ptr(), args.as_ptr(), kwargs));
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// The same, with borrowed arguments by position.
#[inline]
pub(crate) fn call_with<'py>(
    function: &Bound<'py, PyAny>,
    args: &[std::ptr::NonNull<ffi::PyObject>],
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the arguments live through the call; a new reference or null comes back.
    unsafe {
        let result =
            Hang::guard(|| waiting::gs_call_with(function.as_ptr(), args.as_ptr().cast(), args.len()));
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// Whether `value` is what calling an `async def` function gives.
#[inline]
pub(crate) fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: compares a type pointer.
    unsafe { ffi::PyCoro_CheckExact(value.as_ptr()) != 0 }
}

/// A module that has been imported. Unlike `Python::import` it works in whatever frame a finalizer runs: that one
/// calls the `__import__` of the frame's builtins, which some code does without.
pub(crate) fn imported<'py>(py: Python<'py>, name: &CStr) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached, and a C string; a new reference, or null with an exception set.
    let name = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_FromString(name.as_ptr())) }?;
    // SAFETY: attached; a new reference, or null, with an exception set if that is an error.
    let module = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyImport_GetModule(name.as_ptr())) };
    module.ok_or_else(|| {
        PyErr::take(py).unwrap_or_else(|| PyImportError::new_err(format!("{name} has not been imported")))
    })
}

/// Where the calling Python code is, or the caller that is `skip` frames further out.
#[inline]
pub(crate) fn caller(py: Python<'_>, skip: c_int) -> Option<(Py<PyAny>, i32)> {
    let mut offset = 0;
    // SAFETY: attached; returns a new reference or null.
    let code = unsafe { Bound::from_owned_ptr_or_opt(py, gs_caller(skip, &raw mut offset)) }?;
    Some((code.unbind(), offset))
}

/// Where the calling Python code is that is not in a file of `folder`; the offset is negative in an import.
pub(crate) fn caller_outside(py: Python<'_>, folder: &Py<PyString>) -> Option<(Py<PyAny>, i32)> {
    let mut offset = 0;
    // SAFETY: attached, `folder` is a str; returns a new reference or null.
    let code =
        unsafe { Bound::from_owned_ptr_or_opt(py, gs_caller_outside(folder.as_ptr(), &raw mut offset)) }?;
    Some((code.unbind(), offset))
}

/// The line of an offset in a code object.
pub(crate) fn line(code: &Bound<'_, PyAny>, offset: i32) -> i32 {
    // SAFETY: attached, and `caller` only gives code objects.
    unsafe { PyCode_Addr2Line(code.as_ptr(), offset) }
}

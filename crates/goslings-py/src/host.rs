//! CPython as the runtime's host: attaching, detaching, and the swap of per-thread state around a switch.
//!
//! The swap itself is C (`csrc/pystate.c`), since it needs the interpreter's private headers. The only place
//! that attaches to the interpreter.

use crate::goroutine::{self, Goroutine};
use crate::stacks;
use goslings::{AREA_SIZE, Area, Host, Job, JobVTable, StackBounds};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    fn gs_area_size() -> usize;
    fn gs_stack_kb() -> usize;
    fn gs_layout_problem() -> *const c_char;
    fn gs_worker_start() -> *mut Worker;
    fn gs_worker_is_out(worker: *mut Worker) -> c_int;
    fn gs_enter(area: *mut Area, low: usize, base: usize, end: usize);
    fn gs_leave(area: *mut Area);
    fn gs_caller(skip: c_int, offset: *mut c_int) -> *mut ffi::PyObject;
    fn gs_caller_outside(folder: *mut ffi::PyObject, offset: *mut c_int) -> *mut ffi::PyObject;
    fn gs_has_context() -> c_int;
    fn PyCode_Addr2Line(code: *mut ffi::PyObject, offset: c_int) -> c_int;
}

/// A worker thread, as the C file knows it.
#[repr(C)]
struct Worker([u8; 0]);

/// Functions that may wait for the interpreter, and so find that it has come to its end: 3.13 unwinds the
/// thread then (see [`Hang`]).
mod waiting {
    use goslings::Area;
    use pyo3::ffi::{PyObject, PyThreadState};

    unsafe extern "C-unwind" {
        pub(super) fn PyEval_RestoreThread(state: *mut PyThreadState);
        pub(super) fn PyObject_Call(
            f: *mut PyObject,
            args: *mut PyObject,
            kw: *mut PyObject,
        ) -> *mut PyObject;
        pub(super) fn gs_save(area: *mut Area);
        pub(super) fn gs_restore(area: *mut Area);
    }
}

/// 3.13 ends a thread that wants the interpreter after its end by unwinding it. Nothing of ours may run then,
/// not even a destructor; so this guard, innermost in every frame that may be unwound, makes the thread wait
/// for the end of the process instead, as 3.14 does itself.
struct Hang;

impl Hang {
    /// Runs `call`, out of which an unwinding does not come.
    #[inline(always)]
    fn guard<R>(call: impl FnOnce() -> R) -> R {
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
        Hang::guard(|| unsafe { waiting::PyEval_RestoreThread(state) });
    }

    fn signalled(&self, state: usize) -> bool {
        self.attach(state);
        // SAFETY: attached. Runs handlers on the main thread only; an exception of theirs stays pending in
        // the thread state until the waiting call takes it.
        let raised = unsafe { ffi::PyErr_CheckSignals() } != 0;
        self.detach();
        raised
    }

    fn may_deadlock(&self, state: usize) -> bool {
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

    fn interrupt(&self, _worker: usize, _times: u32) {}

    fn interrupt_nobody(&self) {}

    fn warn_held(&self, _worker: usize, _goroutine: u64, _held_ns: u64) {}

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
fn fatal(message: &str) -> ! {
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
    // SAFETY: returns a number.
    goslings::set_default_stack(unsafe { gs_stack_kb() });
    goslings::set_host(&Interpreter);
    install_finalizer(py);
    Ok(())
}

/// Stops the workers at their next look for work; for `atexit`.
#[pyfunction]
#[pyo3(name = "_stop")]
pub(crate) fn stop(py: Python<'_>) {
    goroutine::report_all_unread(py);
    goslings::stop();
}

#[pyfunction]
#[pyo3(name = "_before_fork")]
pub(crate) fn before_fork() {
    goslings::before_fork();
}

#[pyfunction]
#[pyo3(name = "_after_fork_parent")]
pub(crate) fn after_fork_parent() {
    goslings::after_fork_parent();
}

#[pyfunction]
#[pyo3(name = "_after_fork_child")]
pub(crate) fn after_fork_child() {
    goroutine::forget_failed();
    goslings::after_fork_child();
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

/// Runs `f` attached; for destructors, which Python calls attached.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn attached<R>(f: impl FnOnce(Python<'_>) -> R) -> R {
    Python::attach(f)
}

/// A job that runs the goroutine of `handle`, and what `current_handle` will find it by.
pub(crate) fn job(handle: Py<Goroutine>) -> (Job, *mut ()) {
    static TABLE: JobVTable = JobVTable { run: run_job, no_stack: fail_job, drop: drop_job, step: None };
    let data = handle.into_ptr().cast::<()>();
    // SAFETY: `data` is a strong reference to a frozen class, usable from any attached thread; each
    // function below consumes it.
    (unsafe { Job::from_raw(data, &TABLE) }, data)
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

/// Gives Goroutine a finalizer, which PyO3 has no word for: the collector calls it before it takes a cycle apart.
fn install_finalizer(py: Python<'_>) {
    let class = py.get_type::<Goroutine>().as_type_ptr();
    // SAFETY: a heap type of ours, and nobody has made an instance yet.
    unsafe { (*class).tp_finalize = Some(finalize) };
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
        let result = Hang::guard(|| waiting::PyObject_Call(function.as_ptr(), args.as_ptr(), kwargs));
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

//! Preemption: a goroutine that computes is called back by `sys.monitoring`, and yields.
//!
//! The runtime's monitor asks for it (`Host::interrupt`). Its thread attaches for a moment, finds what code the
//! worker runs, and switches on events for the innermost of it: jumps, and the starts and ends of functions and
//! generators. Each calls `interrupted` on whatever thread runs that code; the goroutine that is meant switches the events off again
//! and yields. So nothing is switched on, and nothing costs anything, while nobody hogs a worker.
//!
//! **Invariants**
//! * `ARMED` holds every code object with events on; it is changed, and the events with it, by whoever has set `BUSY`
//!   only. Nobody waits for that: who does not get it leaves it to the monitor, which comes again after a slice.
//! * The monitor's thread runs no Python code and drops no object of the program but code objects, so it cannot be
//!   held up by a finalizer.
//! * A goroutine yields here only where any Python code could run, and not while it may hold a lock of threads: see
//!   pystate.c.

use crate::host;
use crate::stacks::visit_objects;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C-unwind" {
    /// May wait for the interpreter, and so find that it has come to its end.
    fn gs_may_hold_lock() -> c_int;
}

unsafe extern "C" {
    fn gs_worker_frames(
        worker: *mut crate::host::Worker,
        codes: *mut *mut ffi::PyObject,
        offsets: *mut c_int,
        room: ffi::Py_ssize_t,
    ) -> ffi::Py_ssize_t;
    fn gs_learn_locks(lock: *mut ffi::PyObject, rlock: *mut ffi::PyObject) -> c_int;
}

/// The tool numbers that the interpreter reserves for nobody.
const TOOLS: [u8; 2] = [3, 4];
const NAME: &str = "goslings";
/// So often a goroutine that may hold a lock is looked at again at its next event; then in a slice.
const REFUSALS: u32 = 30;
/// So many innermost frames are looked at.
const FRAMES: usize = 64;
/// So many different code objects get events at first: the innermost function jumps or ends sooner or later. If that
/// brings nothing, all that were found. To switch events stops the world, each time.
const CODES: usize = 1;
/// What an event is switched on for.
const EVENTS: [&str; 5] = ["JUMP", "PY_START", "PY_RESUME", "PY_RETURN", "PY_YIELD"];

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
static ARMED: std::sync::Mutex<Vec<Py<PyAny>>> = std::sync::Mutex::new(Vec::new());
static BUSY: AtomicBool = AtomicBool::new(false);
static TOOL: PyOnceLock<Monitoring> = PyOnceLock::new();

thread_local! {
    /// How often the running goroutine could not yield since it was asked.
    static REFUSED: Cell<u32> = const { Cell::new(0) };
}

/// What we use of `sys.monitoring`.
struct Monitoring {
    module: Py<PyAny>,
    set_local_events: Py<PyAny>,
    get_tool: Py<PyAny>,
    events: [u32; EVENTS.len()],
}

impl Monitoring {
    fn get(py: Python<'_>) -> PyResult<&Monitoring> {
        TOOL.get_or_try_init(py, || {
            let module = py.import("sys")?.getattr("monitoring")?;
            let events = module.getattr("events")?;
            let threads = py.import("_thread")?;
            let (lock, rlock) = (threads.getattr("LockType")?, threads.getattr("RLock")?);
            // SAFETY: attached; two objects, which are looked at for what they are.
            if unsafe { gs_learn_locks(lock.as_ptr(), rlock.as_ptr()) } != 0 {
                return Err(PyErr::fetch(py));
            }
            let mut numbers = [0; EVENTS.len()];
            for (number, name) in numbers.iter_mut().zip(EVENTS) {
                *number = events.getattr(name)?.extract()?;
            }
            Ok(Monitoring {
                set_local_events: module.getattr("set_local_events")?.unbind(),
                get_tool: module.getattr("get_tool")?.unbind(),
                events: numbers,
                module: module.unbind(),
            })
        })
    }

    fn is_ours(&self, py: Python<'_>, tool: u8) -> PyResult<bool> {
        let name = self.get_tool.bind(py).call1((tool,))?;
        Ok(!name.is_none() && name.eq(NAME)?)
    }

    /// The number under which we are registered; None if others have them all.
    fn tool(&self, py: Python<'_>) -> PyResult<Option<u8>> {
        for tool in TOOLS {
            if self.is_ours(py, tool)? {
                return Ok(Some(tool));
            }
        }
        for tool in TOOLS {
            let module = self.module.bind(py);
            if module.call_method1(intern!(py, "use_tool_id"), (tool, NAME)).is_err() {
                continue;
            }
            let callback = pyo3::wrap_pyfunction!(interrupted, py)?;
            for event in self.events {
                module.call_method1(intern!(py, "register_callback"), (tool, event, &callback))?;
            }
            return Ok(Some(tool));
        }
        Ok(None)
    }

    fn set_events(&self, py: Python<'_>, tool: u8, code: &Py<PyAny>, events: u32) -> PyResult<()> {
        let args = (tool, code, events).into_pyobject(py)?;
        host::call(self.set_local_events.bind(py), &args, None).map(drop)
    }
}

/// The right to change `ARMED` and the events.
struct Busy;

impl Busy {
    fn try_begin() -> Option<Busy> {
        // Ordering: Acquire pairs with the Release in `drop`: the events are as the last one left them.
        if BUSY.swap(true, Ordering::Acquire) { None } else { Some(Busy) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Ordering: Release, as above.
        BUSY.store(false, Ordering::Release);
    }
}

fn armed() -> std::sync::MutexGuard<'static, Vec<Py<PyAny>>> {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks up what the monitor's thread will need: it must not run imports. Called at import.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    Monitoring::get(py).map(drop)
}

/// Has the goroutine that runs on `worker` call `interrupted` soon.
pub(crate) fn interrupt(py: Python<'_>, worker: usize, times: u32) {
    // Without memory, or a tool number, it goes on computing; its worker will count as away.
    let _ = try_interrupt(py, worker, times);
}

fn try_interrupt(py: Python<'_>, worker: usize, times: u32) -> PyResult<()> {
    let monitoring = Monitoring::get(py)?;
    let Some(tool) = monitoring.tool(py)? else { return Ok(()) };
    let most = if times == 1 { CODES } else { FRAMES };
    let Some(_busy) = Busy::try_begin() else { return Ok(()) };
    let all = monitoring.events.iter().fold(0, |all, event| all | event);
    for code in running_codes(py, worker, most) {
        let known = armed().iter().any(|other| other.is(&code));
        if !known {
            armed().push(code.clone_ref(py));
            monitoring.set_events(py, tool, &code, all)?;
        }
    }
    Ok(())
}

/// No goroutine is asked to yield any more.
pub(crate) fn interrupt_nobody(py: Python<'_>) {
    // If that fails, the next callback tries again.
    let _ = disarm(py);
}

fn disarm(py: Python<'_>) -> PyResult<()> {
    let Some(_busy) = Busy::try_begin() else { return Ok(()) };
    let codes: Vec<_> = armed().iter().map(|code| code.clone_ref(py)).collect();
    if codes.is_empty() {
        return Ok(());
    }
    let monitoring = Monitoring::get(py)?;
    if let Some(tool) = monitoring.tool(py)? {
        for code in &codes {
            // Of a tool number that was taken away from us meanwhile, no events are left.
            let _ = monitoring.set_events(py, tool, code, 0);
        }
    }
    // Not before: a child that is forked meanwhile has to know them.
    let done = std::mem::take(&mut *armed());
    drop(done);
    Ok(())
}

/// To be called before `fork`, and when the program ends: waits until nobody switches events, and keeps everybody from
/// it. For that stops the world, and a thread that was about to do so would leave the interpreter's lock for it locked.
pub(crate) fn close(py: Python<'_>) {
    loop {
        if let Some(busy) = Busy::try_begin() {
            std::mem::forget(busy);
            return;
        }
        py.detach(std::thread::yield_now);
    }
}

/// Undoes [`close`]; after a fork, in the parent and in the child.
pub(crate) fn open() {
    drop(Busy);
}

/// The different code objects that a worker runs, innermost first, at most `most`. Those of the import system are left
/// out: what it does under its own lock must not be interrupted.
fn running_codes(py: Python<'_>, worker: usize, most: usize) -> Vec<Py<PyAny>> {
    let mut codes: Vec<Py<PyAny>> = Vec::new();
    for (code, _) in frames(py, worker) {
        if codes.len() < most && !codes.iter().any(|other| other.is(&code)) && !is_importlib(py, &code) {
            codes.push(code);
        }
    }
    codes
}

fn is_importlib(py: Python<'_>, code: &Py<PyAny>) -> bool {
    let name = code.bind(py).getattr(intern!(py, "co_filename"));
    name.is_ok_and(|name| name.extract::<&str>().is_ok_and(|name| name.starts_with("<frozen importlib")))
}

/// What a worker runs: code objects and the offsets of their instructions, innermost first.
pub(crate) fn frames(py: Python<'_>, worker: usize) -> Vec<(Py<PyAny>, c_int)> {
    let mut look =
        Look { worker, codes: [std::ptr::null_mut(); FRAMES], offsets: [0; FRAMES], found: 0, done: false };
    let arg = (&raw mut look).cast();
    // `look_at` does what is allowed in a visit, and gets the look back that it is given here.
    visit_objects(py, look_at, arg);
    let codes = look.codes.into_iter().take(look.found).map(|code| {
        // SAFETY: a new reference to a code object.
        unsafe { Bound::from_owned_ptr(py, code) }.unbind()
    });
    codes.zip(look.offsets).collect()
}

struct Look {
    worker: usize,
    codes: [*mut ffi::PyObject; FRAMES],
    offsets: [c_int; FRAMES],
    found: usize,
    done: bool,
}

/// Looks at the frames, the first time that it is called.
unsafe extern "C" fn look_at(_object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `frames` gives its own, and touches it no more until the visit is over.
    let look = unsafe { &mut *arg.cast::<Look>() };
    if !look.done {
        look.done = true;
        let worker = std::ptr::with_exposed_provenance_mut(look.worker);
        let (codes, offsets) = (look.codes.as_mut_ptr(), look.offsets.as_mut_ptr());
        // SAFETY: a worker that the runtime knows; the world stands still; there is as much room as is said.
        let found = unsafe { gs_worker_frames(worker, codes, offsets, FRAMES as ffi::Py_ssize_t) };
        look.found = usize::try_from(found).unwrap_or(0).min(FRAMES);
    }
    0
}

/// Called by the interpreter at each event that is switched on, with the code and offsets that it is about.
#[pyfunction]
#[pyo3(signature = (_code, _offset, _to = None))]
fn interrupted(
    py: Python<'_>,
    _code: &Bound<'_, PyAny>,
    _offset: &Bound<'_, PyAny>,
    _to: Option<&Bound<'_, PyAny>>,
) {
    let mut yields = goslings::is_asked();
    // SAFETY: attached, called by the interpreter's loop.
    if yields && host::Hang::guard(|| unsafe { gs_may_hold_lock() }) != 0 {
        let refused = REFUSED.get() + 1;
        REFUSED.set(refused);
        if refused < REFUSALS {
            return;
        }
        yields = false;
    }
    REFUSED.set(0);
    goslings::forget_request();
    if !goslings::anybody_is_asked() {
        // What cannot be switched off now is switched off at the next event.
        let _ = disarm(py);
    }
    if yields {
        goslings::give_way();
    }
}

/// Whether goroutines that compute can be interrupted: for `goslings doctor`.
#[pyfunction]
#[pyo3(name = "_can_preempt")]
pub(crate) fn can_preempt(py: Python<'_>) -> PyResult<bool> {
    let monitoring = Monitoring::get(py)?;
    for tool in TOOLS {
        if monitoring.get_tool.bind(py).call1((tool,))?.is_none() || monitoring.is_ours(py, tool)? {
            return Ok(true);
        }
    }
    Ok(false)
}

//! What every goroutine does, for `stacks` and `dump`: found through the collector, which knows every handle.
//!
//! There is no list of goroutines, so that starting one costs nothing for this. A goroutine that has not ended holds
//! a reference to its handle, and handles are objects that the collector tracks: so a visit of all of these finds
//! all goroutines. During the visit the world stands still: on free-threaded builds the interpreter has stopped all
//! threads that are attached, on others the GIL is held. What needs Python objects to be made, or could run other
//! code, is done afterwards.

use crate::goroutine::Goroutine;
use crate::value::Channel;
use goslings::{Area, Described, Seen, SeenThread, Standing, WaitReason};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::ffi::{c_int, c_void};

/// What is called with each object.
pub(crate) type Visit = unsafe extern "C" fn(*mut ffi::PyObject, *mut c_void) -> c_int;

unsafe extern "C" {
    fn PyUnstable_GC_VisitObjects(callback: Visit, arg: *mut c_void);
    fn gs_is_running(area: *const Area) -> c_int;
    fn gs_frames(
        area: *const Area,
        codes: *mut *mut ffi::PyObject,
        offsets: *mut c_int,
        room: ffi::Py_ssize_t,
    ) -> ffi::Py_ssize_t;
    fn gs_coroutine_is_running(coroutine: *mut ffi::PyObject) -> c_int;
    fn gs_coroutine_frames(
        coroutine: *mut ffi::PyObject,
        codes: *mut *mut ffi::PyObject,
        offsets: *mut c_int,
        room: ffi::Py_ssize_t,
    ) -> ffi::Py_ssize_t;
}

/// A frame: its code object and the offset of the instruction.
type Place = (Py<PyAny>, c_int);

struct Found {
    handle: Py<Goroutine>,
    seen: Seen,
    running: bool,
    waits_on: Vec<Described>,
    frames: Vec<Place>,
}

struct FoundThread {
    seen: SeenThread,
    waits_on: Vec<Described>,
}

struct Search<'py> {
    py: Python<'py>,
    class: *mut ffi::PyTypeObject,
    goroutines: Vec<Found>,
    /// None before the first object was visited.
    threads: Option<Vec<FoundThread>>,
}

/// Finds all goroutines that have not ended, and all threads that wait.
fn search(py: Python<'_>) -> Search<'_> {
    let class = py.get_type::<Goroutine>().as_type_ptr();
    let mut search = Search { py, class, goroutines: Vec::new(), threads: None };
    let arg = (&raw mut search).cast();
    visit_objects(py, visit, arg);
    search
}

/// Calls `visit` with each object that the collector tracks until it returns 0; the world stands still meanwhile.
pub(crate) fn visit_objects(_py: Python<'_>, visit: Visit, arg: *mut c_void) {
    // SAFETY: attached; the callers' functions do what is allowed there, and get back what they give.
    unsafe { PyUnstable_GC_VisitObjects(visit, arg) };
}

/// Looks at one object. Makes none, drops none, calls no Python; 1: go on.
unsafe extern "C" fn visit(object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `search` gives its own, and touches it no more until the visit is over.
    let search = unsafe { &mut *arg.cast::<Search<'_>>() };
    if search.threads.is_none() {
        search.threads = Some(threads());
    }
    // SAFETY: the collector gives live objects.
    if unsafe { ffi::Py_TYPE(object) } != search.class {
        return 1;
    }
    // SAFETY: as above, and its class was just compared.
    let handle = unsafe { Borrowed::from_ptr(search.py, object).cast_unchecked::<Goroutine>() };
    let Some(task) = handle.get().alive() else { return 1 };
    // SAFETY: the world stands still during a visit, and the goroutine is alive.
    let seen = unsafe { task.look() };
    // SAFETY: an area that the runtime shows belongs to a goroutine that has begun and not ended.
    let mut running = !seen.area.is_null() && unsafe { gs_is_running(seen.area) } != 0;
    let waits_on = match seen.standing {
        // SAFETY: it waits, and the world stands still.
        Standing::Waiting => unsafe { describe(seen.reason, seen.object) },
        _ => Vec::new(),
    };
    let frames = match handle.get().coroutine() {
        // SAFETY: as for `running`.
        None => unsafe { frames(search.py, seen.area) },
        Some(coroutine) => {
            // SAFETY: the handle keeps it alive, and the world stands still.
            running = unsafe { gs_coroutine_is_running(coroutine) } != 0;
            // SAFETY: as above; there is as much room as is said.
            collect(search.py, |codes, offsets, room| unsafe {
                gs_coroutine_frames(coroutine, codes, offsets, room)
            })
        }
    };
    search.goroutines.push(Found { handle: handle.to_owned().unbind(), seen, running, waits_on, frames });
    1
}

fn threads() -> Vec<FoundThread> {
    let describe = |seen: SeenThread| {
        // SAFETY: called during a visit: the thread is in its wait until it gets hold of the interpreter.
        let waits_on = unsafe { describe(seen.reason, seen.object) };
        FoundThread { seen, waits_on }
    };
    goslings::waiting_threads().into_iter().map(describe).collect()
}

/// # Safety
/// Of a wait that was seen since the world stands still.
unsafe fn describe(reason: WaitReason, object: usize) -> Vec<Described> {
    // SAFETY: by the contract.
    let objects = unsafe { goslings::objects(reason, object) };
    let describe = |object| match reason {
        WaitReason::ChanReceive | WaitReason::ChanSend | WaitReason::Select | WaitReason::GoroutineResult => {
            // SAFETY: these reasons are given with a channel, and all channels of this process carry Values.
            let channel = unsafe { &*std::ptr::with_exposed_provenance::<Channel>(object) };
            Some(channel.describe())
        }
        // SAFETY: by the contract.
        _ => unsafe { goslings::describe(reason, object) },
    };
    objects.into_iter().filter_map(describe).collect()
}

/// # Safety
/// The world stands still; `area` is null or of a goroutine that has begun and not ended.
unsafe fn frames(py: Python<'_>, area: *const Area) -> Vec<Place> {
    if area.is_null() {
        return Vec::new();
    }
    // SAFETY: by the contract; there is as much room as is said.
    collect(py, |codes, offsets, room| unsafe { gs_frames(area, codes, offsets, room) })
}

/// The places that `fill` gives, which answers how many there are, and fills only as many as it is told.
fn collect(
    py: Python<'_>,
    fill: impl Fn(*mut *mut ffi::PyObject, *mut c_int, ffi::Py_ssize_t) -> ffi::Py_ssize_t,
) -> Vec<Place> {
    let mut room = 32;
    loop {
        let mut codes = vec![std::ptr::null_mut(); room];
        let mut offsets = vec![0; room];
        let size = ffi::Py_ssize_t::try_from(room).unwrap_or(ffi::Py_ssize_t::MAX);
        let count = fill(codes.as_mut_ptr(), offsets.as_mut_ptr(), size);
        let count = usize::try_from(count).unwrap_or(0);
        let own = codes.into_iter().take(count.min(room)).map(|code| {
            // SAFETY: a new reference to a code object.
            unsafe { Bound::from_owned_ptr(py, code) }.unbind()
        });
        let places: Vec<Place> = own.zip(offsets).collect();
        if count <= room {
            return places;
        }
        // Others refer to the code objects too: to drop the references runs nothing.
        drop(places);
        room = count;
    }
}

fn describe_wait<'py>(dict: &Bound<'py, PyDict>, waits_on: &[Described]) -> PyResult<()> {
    let texts: Vec<&str> = waits_on.iter().map(|object| object.text.as_str()).collect();
    dict.set_item("waiting_for", texts.join(", "))?;
    let holders: Vec<u64> = waits_on.iter().map(|object| object.holder).filter(|&id| id != 0).collect();
    dict.set_item("holders", holders)
}

impl Found {
    fn state(&self) -> &'static str {
        match self.seen.standing {
            Standing::NotStarted => "not started",
            Standing::Waiting => self.seen.reason.text(),
            Standing::Active if self.running => "running",
            Standing::Active | Standing::Woken => "runnable",
        }
    }

    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let dict = PyDict::new(py);
        let handle = self.handle.get();
        dict.set_item("id", self.seen.id)?;
        dict.set_item("name", handle.label(py))?;
        dict.set_item("state", self.state())?;
        let waits = self.seen.standing == Standing::Waiting;
        dict.set_item("since", waits.then_some(self.seen.since.0))?;
        describe_wait(&dict, &self.waits_on)?;
        dict.set_item("started_at", handle.place(py))?;
        dict.set_item("creator", handle.creator())?;
        dict.set_item("worker", self.seen.worker)?;
        dict.set_item("locked", self.seen.locked)?;
        dict.set_item("frames", self.frames)?;
        Ok(dict)
    }
}

/// Every goroutine, and every thread that waits: two lists of dicts, for `goslings.stacks`.
#[pyfunction]
#[pyo3(name = "_stacks")]
pub(crate) fn stacks(py: Python<'_>) -> PyResult<(Bound<'_, PyList>, Bound<'_, PyList>)> {
    let search = search(py);
    let goroutines = PyList::empty(py);
    for found in search.goroutines {
        goroutines.append(found.into_dict(py)?)?;
    }
    let threads = PyList::empty(py);
    for found in search.threads.unwrap_or_default() {
        let dict = PyDict::new(py);
        dict.set_item("thread", found.seen.thread)?;
        dict.set_item("state", found.seen.reason.text())?;
        dict.set_item("since", found.seen.since.0)?;
        describe_wait(&dict, &found.waits_on)?;
        threads.append(dict)?;
    }
    Ok((goroutines, threads))
}

/// The time now, in nanoseconds on the clock of the above.
#[pyfunction]
#[pyo3(name = "_now")]
pub(crate) fn now() -> u64 {
    goslings::real().0
}

/// Switches the detection of deadlocks on or off.
#[pyfunction]
#[pyo3(name = "_detect_deadlocks")]
pub(crate) fn detect_deadlocks(on: bool) {
    goslings::detect_deadlocks(on);
}

/// Whether the program has nothing of its own that could end a deadlock: signal handlers. None: it has, one has just
/// raised while that was looked up, and what it raised is pending.
pub(crate) fn may_deadlock(py: Python<'_>) -> Option<bool> {
    let pending = PyErr::take(py);
    let answer = py
        .import("goslings._stacks")
        .and_then(|module| module.call_method0("may_deadlock"))
        .and_then(|answer| answer.is_truthy());
    let answer = match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            error.restore(py);
            None
        }
    };
    if let (Some(_), Some(pending)) = (answer, pending) {
        pending.restore(py);
    }
    answer
}

/// The exception that tells of a deadlock; one that is pending already is its context.
pub(crate) fn deadlock(py: Python<'_>) -> PyErr {
    let pending = PyErr::take(py);
    let made = py.import("goslings._stacks").and_then(|module| module.call_method0("deadlock"));
    let error = made.map_or_else(|error| error, PyErr::from_value);
    if let Some(pending) = pending {
        let _ = error.value(py).setattr("__context__", pending.into_value(py));
    }
    error
}

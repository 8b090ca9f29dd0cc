//! Goroutines that wait for ever: parked without a time limit on objects that nothing else can reach.
//!
//! The collector's method, turned round. Of every object that the collector knows it is counted how many of its
//! references are *explained*: held by other such objects, by the frames of generators and coroutines that are
//! suspended, by calls that are awaited, or by the frames of goroutines that may be lost. An object
//! with a reference that is not explained is a *root*: something that goes on holds it, such as the frame of a running
//! thread, C code, or a container that the collector does not track. What roots reach is marked. A waiting goroutine that
//! waits on something marked may still be woken: its own references become roots, and so on until nothing changes.
//! Those that are left are lost.
//!
//! It errs on one side: whatever is not understood counts as a reference from outside, and then a lost goroutine may go
//! unreported. What is reported can be reached by nobody.
//!
//! What a goroutine without a stack refers to is found through its handle: that refers to the coroutine, its frame to what
//! it awaits, and so on to the call (awaitable.rs) in which it waits. That is no object of the collector's, so it shows
//! what it owns itself.
//!
//! All this happens while the world stands still, as in stacks.rs. No Python object is made, and none dropped.

use crate::awaitable::{Awaitable, Owned};
use crate::barrier::Barrier;
use crate::chan::{PyChan, RecvChan, SendChan};
use crate::cond::Cond;
use crate::event::Event;
use crate::goroutine::Goroutine;
use crate::mutex::PyMutex;
use crate::rwmutex::{RWMutex, RWMutexSide};
use crate::semaphore::Semaphore;
use crate::stacks::visit_objects;
use crate::timer::{PyTimer, Ticker};
use crate::value::{Channel, Value};
use crate::waitgroup::WaitGroup;
use goslings::{Area, Seen, Standing, WaitReason};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};

type ShowRef = unsafe extern "C" fn(*mut c_void, *mut ffi::PyObject, c_int, c_int);

unsafe extern "C" {
    fn gs_frame_refs(
        area: *const Area,
        depths: *const c_int,
        known: ffi::Py_ssize_t,
        visit: ShowRef,
        arg: *mut c_void,
    ) -> c_int;
    fn gs_generator_refs(generator: *mut ffi::PyObject, visit: ShowRef, arg: *mut c_void) -> c_int;
}

/// Through what an object lets others wake those who wait there.
pub(crate) struct Waitable {
    /// The address that the waiters have; 0: none.
    pub(crate) address: usize,
    /// How many owners there are besides this object.
    pub(crate) others: usize,
}

impl Waitable {
    /// Of an object that has this, perhaps with others.
    pub(crate) fn shared<T>(object: &std::sync::Arc<T>) -> Waitable {
        let address = std::sync::Arc::as_ptr(object).expose_provenance();
        Waitable { address, others: std::sync::Arc::strong_count(object) - 1 }
    }

    /// Of an object that nobody can wait on.
    pub(crate) fn none() -> Waitable {
        Waitable { address: 0, others: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its references are all shown by its `tp_traverse`, each once.
    Container,
    /// A generator or coroutine: its `tp_traverse` may show references that are not counted.
    Frame,
    /// A call that is awaited.
    Call,
    /// The handle of a goroutine.
    Handle,
    /// No container.
    Leaf,
}

struct Node {
    object: *mut ffi::PyObject,
    /// References that nobody has explained so far.
    unexplained: isize,
    kind: Kind,
    marked: bool,
}

/// A goroutine that may be lost.
struct Candidate {
    id: u64,
    handle: u32,
    reason: WaitReason,
    /// What it waits on.
    addresses: Vec<usize>,
    /// What its frames refer to.
    refs: Vec<u32>,
    alive: bool,
}

/// The classes whose objects can be waited on, and how to look at one.
type Look = fn(Python<'_>, *mut ffi::PyObject) -> Waitable;

struct Analysis<'py> {
    py: Python<'py>,
    classes: Classes,
    /// For each goroutine the depths of its frames' evaluation stacks, where they have to be computed.
    depths: HashMap<u64, Vec<c_int>>,
    listed: Vec<*mut ffi::PyObject>,
    nodes: Vec<Node>,
    index: HashMap<usize, u32>,
    candidates: Vec<Candidate>,
    /// Their places there, by their handles and by their numbers.
    by_handle: HashMap<u32, usize>,
    by_id: HashMap<u64, usize>,
    /// What may be a reference of a candidate's frames to an object that was not known then.
    unsure: Vec<(usize, *mut ffi::PyObject)>,
    /// Of each address that may be waited on: the objects that have a share of it, one with two shares twice, and how
    /// many others one of them saw.
    waitables: HashMap<usize, (Vec<u32>, usize)>,
    /// WaitGroups by address: the goroutines that count in them.
    groups: HashMap<usize, Vec<u64>>,
    done: bool,
}

struct Classes {
    goroutine: *mut ffi::PyTypeObject,
    awaitable: *mut ffi::PyTypeObject,
    looks: HashMap<usize, Look>,
}

macro_rules! looks {
    ($py:expr, $($class:ty),*) => {
        HashMap::from([$({
            let look: Look = |py, object| {
                // SAFETY: called for live objects of this class.
                unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<$class>() }.get().waitable()
            };
            ($py.get_type::<$class>().as_ptr().addr(), look)
        }),*])
    };
}

impl Classes {
    fn new(py: Python<'_>) -> Classes {
        let looks = looks!(
            py,
            PyChan,
            SendChan,
            RecvChan,
            PyTimer,
            Ticker,
            PyMutex,
            RWMutex,
            RWMutexSide,
            WaitGroup,
            Cond,
            Semaphore,
            Event,
            Barrier
        );
        Classes {
            goroutine: py.get_type::<Goroutine>().as_type_ptr(),
            awaitable: py.get_type::<Awaitable>().as_type_ptr(),
            looks,
        }
    }

    fn is_call(&self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: the callers give live objects.
        (unsafe { ffi::Py_TYPE(object) }) == self.awaitable
    }

    fn look(&self, object: *mut ffi::PyObject) -> Option<Look> {
        // SAFETY: the callers give live objects.
        let class = unsafe { ffi::Py_TYPE(object) };
        self.looks.get(&class.addr()).copied()
    }
}

/// Whether it is a generator or the like.
fn has_frame(object: *mut ffi::PyObject) -> bool {
    // SAFETY: compares type pointers of a live object.
    unsafe {
        ffi::PyGen_Check(object) != 0
            || ffi::PyCoro_CheckExact(object) != 0
            || ffi::Py_TYPE(object) == &raw mut ffi::PyAsyncGen_Type
    }
}

/// Calls the object's `tp_traverse`.
///
/// # Safety
/// The object is a live container, and the world stands still.
unsafe fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) {
    // SAFETY: by the contract.
    let class = unsafe { ffi::Py_TYPE(object) };
    // SAFETY: a live object's type.
    if let Some(traverse) = unsafe { (*class).tp_traverse } {
        // SAFETY: what a collector does, at a time when it could.
        unsafe { traverse(object, visit, arg) };
    }
}

/// Shows what a call that is awaited owns.
///
/// # Safety
/// The object is a live Awaitable, and the world stands still.
unsafe fn show_call(py: Python<'_>, object: *mut ffi::PyObject, see: &mut dyn FnMut(Owned)) {
    // SAFETY: by the contract.
    unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<Awaitable>().get().show(see) };
}

/// What `explain` is given.
struct Explaining<'a, 'py> {
    analysis: &'a mut Analysis<'py>,
    /// Whose references they are, if a goroutine's.
    candidate: Option<usize>,
}

unsafe extern "C" fn explain(object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `Analysis` gives it for the time of the traversal.
    let explaining = unsafe { &mut *arg.cast::<Explaining<'_, '_>>() };
    explaining.reference(object, true, true);
    0
}

unsafe extern "C" fn explain_frame(
    arg: *mut c_void,
    object: *mut ffi::PyObject,
    counted: c_int,
    sure: c_int,
) {
    // SAFETY: as in `explain`.
    let explaining = unsafe { &mut *arg.cast::<Explaining<'_, '_>>() };
    explaining.reference(object, counted != 0, sure != 0);
}

impl Explaining<'_, '_> {
    /// A reference to `object`, if there is one.
    fn reference(&mut self, object: *mut ffi::PyObject, counted: bool, sure: bool) {
        let node = match self.analysis.index.get(&object.addr()) {
            Some(&node) => node,
            None if sure => match self.analysis.discover(object) {
                Some(node) => node,
                None => return,
            },
            None => {
                // What it is, if anything, is known when all objects are.
                let candidate = self.candidate.unwrap_or_default();
                self.analysis.unsure.push((candidate, object));
                return;
            }
        };
        if counted {
            self.analysis.nodes[node as usize].unexplained -= 1;
        }
        if let Some(candidate) = self.candidate {
            self.analysis.candidates[candidate].refs.push(node);
        }
    }
}

struct Marking<'a> {
    index: &'a HashMap<usize, u32>,
    found: Vec<u32>,
}

impl Marking<'_> {
    fn reference(&mut self, object: *mut ffi::PyObject) {
        self.found.extend(self.index.get(&object.addr()));
    }
}

unsafe extern "C" fn mark(object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `Analysis::mark` gives it for the time of the traversal.
    let marking = unsafe { &mut *arg.cast::<Marking<'_>>() };
    marking.reference(object);
    0
}

impl Analysis<'_> {
    fn add(&mut self, object: *mut ffi::PyObject, unexplained: isize, kind: Kind) -> u32 {
        let node = u32::try_from(self.nodes.len()).expect("fewer than four thousand million objects");
        self.nodes.push(Node { object, unexplained, kind, marked: false });
        self.index.insert(object.addr(), node);
        if has_weak_references(object) {
            // Somebody may get at it that way.
            self.nodes[node as usize].unexplained += 1;
        }
        if kind == Kind::Call {
            let waitables = &mut self.waitables;
            let mut see = |owned| {
                if let Owned::Share { address, shares } = owned {
                    let entry = waitables.entry(address).or_default();
                    entry.0.push(node);
                    entry.1 = entry.1.max(shares - 1);
                }
            };
            // SAFETY: it was shown as a live object of this class.
            unsafe { show_call(self.py, object, &mut see) };
        } else if let Some(look) = self.classes.look(object) {
            let waitable = look(self.py, object);
            let entry = self.waitables.entry(waitable.address).or_default();
            entry.0.push(node);
            entry.1 = entry.1.max(waitable.others);
        }
        node
    }

    /// An object that is referred to and was not listed. Of interest are those that can be waited on, calls, and
    /// simple containers, which the collector stops to track if they hold none of its own.
    fn discover(&mut self, object: *mut ffi::PyObject) -> Option<u32> {
        // SAFETY: whoever shows a reference shows a live object.
        let simple = unsafe { ffi::PyTuple_CheckExact(object) != 0 || ffi::PyDict_CheckExact(object) != 0 };
        let kind = match () {
            () if simple => Kind::Container,
            () if self.classes.is_call(object) => Kind::Call,
            () if self.classes.look(object).is_some() => Kind::Leaf,
            () => return None,
        };
        // SAFETY: as above.
        let count = unsafe { ffi::Py_REFCNT(object) };
        Some(self.add(object, count, kind))
    }

    /// Everything at once: the world stands still until it returns.
    fn run(&mut self) {
        for place in 0..self.listed.len() {
            let object = self.listed[place];
            let kind = match () {
                // SAFETY: the list keeps it alive.
                () if unsafe { ffi::Py_TYPE(object) } == self.classes.goroutine => Kind::Handle,
                () if has_frame(object) => Kind::Frame,
                () => Kind::Container,
            };
            // One reference is the list's.
            // SAFETY: as above.
            let count = unsafe { ffi::Py_REFCNT(object) } - 1;
            self.add(object, count, kind);
        }
        self.find_candidates();
        let mut next = 0;
        while next < self.nodes.len() {
            let Node { object, kind, .. } = self.nodes[next];
            next += 1;
            let py = self.py;
            let mut explaining = Explaining { analysis: self, candidate: None };
            match kind {
                Kind::Container | Kind::Handle => {
                    // SAFETY: alive, and the world stands still.
                    unsafe { traverse(object, explain, (&raw mut explaining).cast()) };
                }
                Kind::Frame => {
                    // One that runs shows nothing here.
                    // SAFETY: as above; a generator or the like.
                    unsafe { gs_generator_refs(object, explain_frame, (&raw mut explaining).cast()) };
                }
                Kind::Call => {
                    let mut see = |owned| {
                        if let Owned::Object(object) = owned {
                            explaining.reference(object, true, true);
                        }
                    };
                    // SAFETY: as above; of this class.
                    unsafe { show_call(py, object, &mut see) };
                }
                Kind::Leaf => {}
            }
        }
        for (candidate, object) in std::mem::take(&mut self.unsure) {
            if let Some(&node) = self.index.get(&object.addr()) {
                self.nodes[node as usize].unexplained -= 1;
                self.candidates[candidate].refs.push(node);
            }
        }
        let roots: Vec<u32> =
            (0..self.nodes.len() as u32).filter(|&node| self.nodes[node as usize].unexplained != 0).collect();
        self.mark(roots);
        while self.revive() {}
    }

    /// Finds the goroutines that may be lost, and explains their references.
    fn find_candidates(&mut self) {
        let handles: Vec<u32> = (0..self.nodes.len() as u32)
            .filter(|&node| self.nodes[node as usize].kind == Kind::Handle)
            .collect();
        for node in handles {
            let object = self.nodes[node as usize].object;
            // SAFETY: a live object whose class was compared.
            let handle = unsafe { Borrowed::from_ptr(self.py, object).cast_unchecked::<Goroutine>() };
            let Some(task) = handle.get().alive() else { continue };
            // SAFETY: the world stands still, and the goroutine is alive.
            let seen = unsafe { task.look() };
            if let Some(group) = handle.get().group_address() {
                self.groups.entry(group).or_default().push(seen.id);
            }
            let has_frames = !seen.area.is_null() || handle.get().coroutine().is_some();
            // Who sleeps, however long, waits for nobody.
            let waits = seen.standing == Standing::Waiting && !seen.timed && seen.reason != WaitReason::Sleep;
            if waits && has_frames {
                self.add_candidate(node, &seen, task);
            }
        }
    }

    fn add_candidate(&mut self, node: u32, seen: &Seen, task: &goslings::Task) {
        // SAFETY: it waits, and the world stands still.
        let addresses = unsafe { goslings::objects(seen.reason, seen.object) };
        let place = self.candidates.len();
        self.by_handle.insert(node, place);
        self.by_id.insert(seen.id, place);
        let depths = self.depths.remove(&seen.id).unwrap_or_default();
        self.candidates.push(Candidate {
            id: seen.id,
            handle: node,
            reason: seen.reason,
            addresses: addresses.clone(),
            refs: Vec::new(),
            alive: false,
        });
        let (py, object) = (self.py, self.nodes[node as usize].object);
        // The reference by which the goroutine itself keeps its handle.
        self.nodes[node as usize].unexplained -= 1;
        let mut explaining = Explaining { analysis: self, candidate: Some(place) };
        let arg = (&raw mut explaining).cast();
        let known = ffi::Py_ssize_t::try_from(depths.len()).unwrap_or(0);
        // One without a stack has them in its coroutine, to which its handle refers.
        // SAFETY: the area of a goroutine that waits; the depths are as many as is said.
        let told = seen.area.is_null()
            || unsafe { gs_frame_refs(seen.area, depths.as_ptr(), known, explain_frame, arg) } == 0;
        // SAFETY: a live object whose class was compared.
        let handle = unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<Goroutine>() };
        handle.get().visit_copies(|object| explaining.reference(object, true, true));
        let held = task.held();
        if !held.is_null() {
            explaining.reference(held.cast(), true, true);
        }
        if is_channel(seen.reason) {
            for address in &addresses {
                // SAFETY: these reasons are given with channels, which live as long as the wait.
                let channel = unsafe { &*std::ptr::with_exposed_provenance::<Channel>(*address) };
                let show = |value: &Value| {
                    if let Value::Object(object) = value {
                        explaining.reference(object.as_ptr(), true, true);
                    }
                };
                // SAFETY: the goroutine waits, and the world stands still.
                unsafe { channel.visit_sender(task, show) };
            }
        }
        self.candidates[place].alive = !told;
    }

    /// Marks what can be reached from `from`.
    fn mark(&mut self, mut from: Vec<u32>) {
        while let Some(node) = from.pop() {
            let Node { object, kind, marked, .. } = self.nodes[node as usize];
            if std::mem::replace(&mut self.nodes[node as usize].marked, true) || marked {
                continue;
            }
            let lost = self.by_handle.get(&node).is_some_and(|&place| !self.candidates[place].alive);
            if kind == Kind::Leaf || lost {
                // Who has the handle of a goroutine does not have what it was given.
                continue;
            }
            let mut marking = Marking { index: &self.index, found: from };
            if kind == Kind::Call {
                let mut see = |owned| {
                    if let Owned::Object(object) = owned {
                        marking.reference(object);
                    }
                };
                // SAFETY: alive, and of this class; the world stands still.
                unsafe { show_call(self.py, object, &mut see) };
            } else {
                // SAFETY: as above.
                unsafe { traverse(object, mark, (&raw mut marking).cast()) };
            }
            from = marking.found;
        }
    }

    /// Looks for goroutines that may still be woken; false if there is none that was not known.
    fn revive(&mut self) -> bool {
        let mut more = false;
        for place in 0..self.candidates.len() {
            let candidate = &self.candidates[place];
            let new = candidate.alive
                || candidate.addresses.iter().any(|&address| self.may_wake(candidate, address));
            if !new || candidate.refs.first() == Some(&u32::MAX) {
                continue;
            }
            more = true;
            let candidate = &mut self.candidates[place];
            candidate.alive = true;
            let handle = candidate.handle;
            // Done with: a sign for the next round.
            let mut refs = std::mem::replace(&mut candidate.refs, vec![u32::MAX]);
            self.nodes[handle as usize].marked = false;
            refs.push(handle);
            self.mark(refs);
        }
        more
    }

    /// Whether somebody who goes on may end a wait at `address`.
    fn may_wake(&self, candidate: &Candidate, address: usize) -> bool {
        let lost = |id: u64| self.by_id.get(&id).is_some_and(|&place| !self.candidates[place].alive);
        if is_channel(candidate.reason) {
            // SAFETY: as in `add_candidate`.
            let channel = unsafe { &*std::ptr::with_exposed_provenance::<Channel>(address) };
            if channel.goroutine() != 0 {
                return !lost(channel.goroutine());
            }
        }
        let groups = self.groups.get(&address);
        if groups.is_some_and(|members| members.iter().any(|&id| !lost(id))) {
            return true;
        }
        match self.waitables.get(&address) {
            None => true,
            Some((nodes, others)) => {
                nodes.iter().any(|&node| self.nodes[node as usize].marked)
                    || *others + 1 > nodes.len() + self.owners_of_group(address)
            }
        }
    }

    /// How many handles own the WaitGroup at `address`.
    fn owners_of_group(&self, address: usize) -> usize {
        self.groups.get(&address).map_or(0, Vec::len)
    }
}

fn is_channel(reason: WaitReason) -> bool {
    matches!(
        reason,
        WaitReason::ChanReceive | WaitReason::ChanSend | WaitReason::Select | WaitReason::GoroutineResult
    )
}

/// Whether a weak reference to it exists.
fn has_weak_references(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object.
    let class = unsafe { ffi::Py_TYPE(object) };
    // SAFETY: its type.
    let offset = unsafe { (*class).tp_weaklistoffset };
    if offset == 0 {
        return false;
    }
    // SAFETY: an object of this class has the head of its list of weak references there; before its beginning, if the
    // interpreter manages it. (Of classes that are not on the heap the interpreter has it elsewhere, and nothing here.)
    let first = unsafe { *object.byte_offset(offset).cast::<*mut ffi::PyObject>() };
    !first.is_null()
}

unsafe extern "C" fn begin(_object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `leaks` gives its own.
    let analysis = unsafe { &mut *arg.cast::<Analysis<'_>>() };
    if !std::mem::replace(&mut analysis.done, true) {
        analysis.run();
    }
    0 // no more visits
}

/// The numbers of the goroutines that nobody can wake. `objects`: all that the collector tracks; `depths`: see
/// `gs_frame_refs`, by number.
#[pyfunction]
#[pyo3(name = "_leaks")]
pub(crate) fn leaks(
    py: Python<'_>,
    objects: &Bound<'_, PyList>,
    depths: &Bound<'_, PyDict>,
) -> PyResult<Vec<u64>> {
    let mut analysis = Analysis {
        py,
        classes: Classes::new(py),
        depths: depths.extract()?,
        listed: objects.iter().map(|object| object.as_ptr()).collect(),
        nodes: Vec::with_capacity(objects.len()),
        index: HashMap::with_capacity(objects.len()),
        candidates: Vec::new(),
        by_handle: HashMap::new(),
        by_id: HashMap::new(),
        unsure: Vec::new(),
        waitables: HashMap::new(),
        groups: HashMap::new(),
        done: false,
    };
    visit_objects(py, begin, (&raw mut analysis).cast());
    Ok(analysis.candidates.iter().filter(|one| !one.alive).map(|one| one.id).collect())
}

//! Receives without asking: values of a channel of another process whose copies have come ahead (chan/lease.rs).
//!
//! All processes that receive from the channel map one page. Its first word counts the values that are claimed, its second
//! says that whoever claims one is to ring for home: `claim` moves the first, then looks at the second; home writes the second,
//! then looks at the first; a full fence on both sides makes one of them see the other.
//!
//! **Invariants**
//! * A copy is received only by moving the count from its number to the next, in one step: so nobody else has received the
//!   value, nobody else will, and all before it are received.
//! * A copy whose number is behind the count is dropped. One that is ahead of it waits: the values before it went to
//!   others, or are still at home. Home can always be asked, and answers with the next value, wherever copies of it are.
//! * A forked child takes no part: `claim` finds nothing there, and home's side is over (chan/lease.rs).

use crate::chan::channel_of;
use crate::errors;
use crate::link::Link;
use crate::shm::Segment;
use crate::value::{Channel, Value};
use goslings::chan::Lease;
use goslings_shm::generation;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError};

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for moves")]
type Leaf<T> = std::sync::Mutex<T>;

/// So many bytes of copies go at once, about.
const BATCH_BYTES: usize = 24 * 1024;
/// Plain values of more bytes are not copied ahead.
const LARGE: usize = 4096;
/// What an object counts whose pickle nobody has seen yet.
const UNKNOWN: usize = 512;
/// Of so many copies or more, the next ones are asked for when half of them are left.
const AHEAD: usize = 16;
/// Where the second word is: in a cache line of its own.
const TELL: usize = 128;

/// The words, in memory that stays mapped as long as the segment.
struct Page(Py<Segment>);

impl Page {
    fn new(segment: Bound<'_, Segment>) -> PyResult<Page> {
        let page = Page(segment.unbind());
        for at in [0, TELL] {
            if page.0.get().shared().cell::<AtomicU64>(at).is_none() {
                return Err(PyValueError::new_err("not a page for a lease"));
            }
        }
        Ok(page)
    }

    fn count(&self) -> &AtomicU64 {
        self.0.get().shared().cell(0).expect("looked at in `new`")
    }

    fn told(&self) -> &AtomicU64 {
        self.0.get().shared().cell(TELL).expect("looked at in `new`")
    }
}

impl Lease for Page {
    fn claimed(&self) -> u64 {
        // Ordering: Relaxed. The count carries nothing but itself: copies go over the link. `tell` has a fence.
        self.count().load(Ordering::Relaxed)
    }

    fn claim(&self, number: u64) -> bool {
        // Ordering: Relaxed. As above.
        self.count().compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn take_back(&self, end: u64) -> u64 {
        // Ordering: Relaxed. As above.
        self.count().swap(end, Ordering::Relaxed)
    }

    fn tell(&self) {
        // Ordering: Relaxed. The fence orders it.
        self.told().store(1, Ordering::Relaxed);
        // Ordering: SeqCst fence between this store and the look at the count. Pairs with the one in `must_tell`.
        fence(Ordering::SeqCst);
    }
}

impl Page {
    /// After a claim: whether home is to be told of it.
    fn must_tell(&self) -> bool {
        // Ordering: SeqCst fence between the change of the count and this look. Pairs with the one in `tell`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. The fence has ordered it; for the swap, one of those who see it tells.
        self.told().load(Ordering::Relaxed) != 0 && self.told().swap(0, Ordering::Relaxed) != 0
    }
}

/// How many bytes a value without parts takes; None for others.
fn plain_weight(object: &Bound<'_, PyAny>) -> Option<usize> {
    if object.is_none() || object.is_exact_instance_of::<PyBool>() || object.is_exact_instance_of::<PyFloat>()
    {
        return Some(8);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(bytes.as_bytes().len());
    }
    if object.is_exact_instance_of::<PyString>() {
        // SAFETY: attached, and it is a str; reads its length.
        return Some(unsafe { ffi::PyUnicode_GetLength(object.as_ptr()) }.cast_unsigned());
    }
    if object.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: attached, and it is an int; no error but the overflow, which raises nothing.
        unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) };
        return if overflow == 0 { Some(8) } else { None };
    }
    None
}

/// How many bytes a value takes that may be copied ahead. `plain`: no others may.
fn weight(py: Python<'_>, value: &Value, plain: bool) -> Option<usize> {
    let weight = match value {
        Value::Object(object) => plain_weight(object.bind(py)),
        Value::Time(_) => return None,
        Value::Plain(at, slab) => Some(slab.get(*at).weight()),
    };
    match weight {
        Some(len) => (len < LARGE).then_some(len),
        None => (!plain).then_some(UNKNOWN),
    }
}

/// Another reference to it. Makes no object: it is called under the lock of the channel.
fn copy_of(py: Python<'_>, value: &Value) -> Option<Value> {
    match value {
        Value::Object(object) => Some(Value::Object(object.clone_ref(py))),
        Value::Time(_) => None,
        Value::Plain(at, slab) => Some(Value::Plain(*at, Arc::clone(slab))),
    }
}

/// See `PyLease::values`.
type Shown<'py> = (u64, Bound<'py, PyList>, bool, Bound<'py, PyList>);

/// What home has of a lease.
#[pyclass(name = "_Lease", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyLease {
    channel: Arc<Channel>,
    lease: Arc<dyn Lease>,
    segment: Py<Segment>,
}

#[pymethods]
impl PyLease {
    /// A lease of the channel `ch`, which has no other; `segment`: the page.
    #[new]
    fn new(ch: &Bound<'_, PyAny>, segment: Bound<'_, Segment>) -> PyResult<PyLease> {
        let channel = channel_of(ch).ok_or_else(|| PyTypeError::new_err("not a channel"))?;
        let page = Page::new(segment.clone())?;
        Ok(PyLease { channel, lease: Arc::new(page), segment: segment.unbind() })
    }

    /// The page.
    #[getter]
    fn segment(&self, py: Python<'_>) -> Py<Segment> {
        self.segment.clone_ref(py)
    }

    /// Values to be copied ahead, at most `most`, which have numbers from `number` on: the number of the first, the values,
    /// whether all are plain, and what is to be dropped. `plain`: no others. Never blocks.
    fn values<'py>(&self, py: Python<'py>, number: u64, most: usize, plain: bool) -> PyResult<Shown<'py>> {
        let mut found: Vec<Value> = Vec::new();
        let (mut first, mut bytes) = (number, 0);
        // What was leased before may be anything, also when `plain` is set: copies end before it.
        let spent = self.channel.lease(
            &self.lease,
            number,
            |value| weight(py, value, plain).is_some(),
            |number, value| {
                let Some(more) = weight(py, value, plain) else { return false };
                let Some(copy) = copy_of(py, value) else { return false };
                if found.is_empty() {
                    first = number;
                }
                found.push(copy);
                bytes += more;
                found.len() < most && bytes < BATCH_BYTES
            },
        );
        let spent = PyList::new(py, spent.into_iter().map(|value| value.into_object(py)))?;
        let found: Vec<Py<PyAny>> = found.into_iter().map(|value| value.into_object(py)).collect();
        let plain = found.iter().all(|object| plain_weight(object.bind(py)).is_some());
        Ok((first, PyList::new(py, found)?, plain, spent))
    }

    /// Values were claimed elsewhere: lets senders in. Never blocks.
    fn claimed(&self) {
        drop(self.channel.claimed());
    }

    /// Nobody claims anything any more.
    fn end(&self) {
        drop(self.channel.end_lease(&self.lease));
    }
}

/// A copy.
struct Copied {
    number: u64,
    value: Py<PyAny>,
    /// Whether it is to be unpickled.
    packed: bool,
}

/// Copies of values of a channel of another process, and the count by which they are claimed.
///
/// `more` is sent over `link` when home is to be told that something was claimed; if there is no room, `ring()` is called.
/// `unpack(packed)` makes a value.
#[pyclass(name = "_Claims", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct PyClaims {
    page: Page,
    copies: Leaf<Copies>,
    /// Where home is told to look, or to send more, and in what words.
    link: Py<Link>,
    more: Py<PyBytes>,
    /// What tells it if the link has no room.
    ring: Py<PyAny>,
    /// What makes a value of a packed one.
    unpack: Py<PyAny>,
    closed: AtomicBool,
    generation: u32,
}

#[derive(Default)]
struct Copies {
    queue: VecDeque<Copied>,
    /// More is to be asked for when so many are left; 0: it was.
    low: usize,
}

/// What became of a try.
enum Tried {
    Claimed { copied: Copied, ring: bool },
    Nothing,
}

impl PyClaims {
    fn copies(&self) -> std::sync::MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the next value, if a copy of it is here. `stale`: what is to be dropped.
    fn try_claim(&self, stale: &mut Vec<Copied>) -> Tried {
        let mut copies = self.copies();
        loop {
            let Some(front) = copies.queue.front() else { return Tried::Nothing };
            let (number, claimed) = (front.number, self.page.claimed());
            if number > claimed {
                return Tried::Nothing;
            }
            let won = number == claimed && self.page.claim(number);
            let Some(copied) = copies.queue.pop_front() else { return Tried::Nothing };
            if !won {
                stale.push(copied);
                continue;
            }
            let more = copies.low > 0 && copies.queue.len() <= copies.low;
            if more {
                copies.low = 0;
            }
            drop(copies);
            let told = self.page.must_tell();
            return Tried::Claimed { copied, ring: more || told };
        }
    }

    /// Whoever has claimed a value must come away with it: nothing is raised here.
    fn tell_home(&self, py: Python<'_>) {
        match self.link.get().post_bytes(py, self.more.as_bytes(py)) {
            Ok(true) | Err(_) => {} // the link has ended: its reader tells
            Ok(false) => {
                if let Err(error) = self.ring.call0(py) {
                    error.write_unraisable(py, Some(self.ring.bind(py)));
                }
            }
        }
    }
}

#[pymethods]
impl PyClaims {
    #[new]
    fn new(
        segment: Bound<'_, Segment>,
        link: Py<Link>,
        more: Py<PyBytes>,
        ring: Py<PyAny>,
        unpack: Py<PyAny>,
    ) -> PyResult<PyClaims> {
        Ok(PyClaims {
            page: Page::new(segment)?,
            copies: Leaf::new(Copies::default()),
            link,
            more,
            ring,
            unpack,
            closed: AtomicBool::new(false),
            generation: generation(),
        })
    }

    /// Copies have come; the first has this number. `packed`: which are to be unpickled. Never blocks.
    fn add(&self, first: u64, values: &Bound<'_, PyList>, packed: Vec<usize>) {
        if first.checked_add(values.len() as u64).is_none() {
            return; // nonsense: home is asked for what comes next
        }
        let mut came: Vec<Copied> = Vec::with_capacity(values.len());
        for (value, number) in values.iter().zip(first..) {
            came.push(Copied { number, value: value.unbind(), packed: false });
        }
        for place in packed {
            if let Some(copied) = came.get_mut(place) {
                copied.packed = true;
            }
        }
        let claimed = self.page.claimed();
        let mut stale: Vec<Copied> = Vec::new();
        let mut copies = self.copies();
        while copies.queue.front().is_some_and(|front| front.number < claimed) {
            stale.extend(copies.queue.pop_front());
        }
        // Batches are told in turns, and may pass each other on their way.
        let at = copies.queue.partition_point(|copied| copied.number < first);
        if at == copies.queue.len() {
            copies.queue.extend(came);
        } else {
            let later = copies.queue.split_off(at);
            copies.queue.extend(came);
            copies.queue.extend(later);
        }
        let here = copies.queue.len();
        copies.low = if here >= AHEAD { here / 2 } else { 0 };
        drop(copies);
        drop(stale);
    }

    /// Claims the next value, if a copy of it is here; else returns this object. A cancel point. Never blocks.
    fn claim(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        // Ordering: Relaxed. Whoever closes it has no more to say.
        if this.closed.load(Ordering::Relaxed) || this.generation != generation() {
            return Ok(slf.clone().into_any().unbind());
        }
        if goslings::with_current(|task| task.is_some_and(goslings::Task::take_cancel)) {
            return Err(errors::cancelled(py));
        }
        let mut stale = Vec::new();
        let tried = this.try_claim(&mut stale);
        drop(stale);
        match tried {
            Tried::Nothing => Ok(slf.clone().into_any().unbind()),
            Tried::Claimed { copied, ring } => {
                if ring {
                    this.tell_home(py);
                }
                if copied.packed { this.unpack.call1(py, (copied.value,)) } else { Ok(copied.value) }
            }
        }
    }

    /// How many copies are here that nobody has claimed.
    fn __len__(&self) -> usize {
        let claimed = self.page.claimed();
        let copies = self.copies();
        copies.queue.len() - copies.queue.partition_point(|copied| copied.number < claimed)
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// Nothing can be claimed any more: home is gone.
    fn close(&self) {
        // Ordering: Relaxed. See `claim`.
        self.closed.store(true, Ordering::Relaxed);
        let copies = std::mem::take(&mut *self.copies());
        drop(copies);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.link)?;
        visit.call(&self.ring)?;
        visit.call(&self.unpack)?;
        // Copies are plain, or pickles: they refer to nothing.
        Ok(())
    }
}

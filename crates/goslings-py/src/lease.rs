//! Receives without asking: values of a channel of another process whose copies have come ahead (chan/lease.rs).
//!
//! All processes that receive from the channel map one page. Its first word counts the values that are claimed, its second
//! says that whoever claims one is to ring for home: `claim` moves the first, then looks at the second; home writes the second,
//! then looks at the first; a full fence on both sides makes one of them see the other.
//!
//! Copies come as frames, which Rust writes and reads. What is in them are the values' bytes; the object is made by whoever
//! claims one, and pickles are unpickled then.
//!
//! ```text
//! frame: | u8 COPIES | u8 0 | u48 the channel's number at home | u64 number of the first value | values, as in a Slab |
//! ```
//!
//! **Invariants**
//! * A copy is received only by moving the count from its number to the next, in one step: so nobody else has received the
//!   value, nobody else will, and all before it are received.
//! * A copy whose number is behind the count is dropped. One that is ahead of it waits: the values before it went to
//!   others, or are still at home. Home can always be asked, and answers with the next value, wherever copies of it are.
//! * A forked child takes no part: `claim` finds nothing there, and home's side is over (chan/lease.rs).

use crate::bubble::{On, operation};
use crate::chan::channel_of;
use crate::errors;
use crate::link::Link;
use crate::plain::{object_of, plain_of};
use crate::shm::Segment;
use crate::spin::Spin;
use crate::value::{Channel, Slab, Value};
use goslings::chan::Lease;
use goslings::chan::RecvError;
use goslings::{Chan, Wait};
use goslings_shm::{Garbage, Plain, generation};
use pyo3::exceptions::{PyConnectionError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for moves")]
type Leaf<T> = std::sync::Mutex<T>;

/// So long is what stands before each value in a slab.
const HEAD: usize = 8;
/// So many bytes of copies go at once, about.
const BATCH_BYTES: usize = 40 * 1024;
/// Plain values of more bytes are not copied ahead.
const LARGE: usize = 4096;
/// What an object counts whose pickle nobody has seen yet.
const UNKNOWN: usize = 512;
/// Of so many copies or more, the next ones are asked for when half of them are left.
const AHEAD: usize = 16;
/// The first byte of a frame of copies. A pickle begins with 0x80; for others see `stream.rs`.
const COPIES: u8 = 2;
/// So long is what comes before the values.
const FRAME: usize = 16;
/// Whoever has asked for more waits for it so long before he asks for a value: a message there and back takes about as long,
/// and costs both sides more than many copies.
const SOON: Duration = Duration::from_micros(100);
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

/// A frame of copies, to be filled.
fn frame_of(channel: u64, first: u64, values: &Slab) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME + values.as_bytes().len());
    frame.extend_from_slice(&(channel << 16 | u64::from(COPIES)).to_le_bytes());
    frame.extend_from_slice(&first.to_le_bytes());
    frame.extend_from_slice(values.as_bytes());
    frame
}

/// The values as a slab, if none of them has to be pickled.
fn slab_of(py: Python<'_>, values: &[Value]) -> Option<Slab> {
    let mut slab = Slab::default();
    for value in values {
        match value {
            Value::Object(object) => slab.push(&plain_of(object.bind(py))?),
            Value::Time(_) => return None,
            Value::Plain(at, other) => slab.push(&other.get(*at)),
        }
    }
    Some(slab)
}

/// See `PyLease::values`.
type Shown<'py> = (u64, usize, Option<Bound<'py, PyBytes>>, Bound<'py, PyList>, Bound<'py, PyList>);

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

    /// Values to be copied ahead, at most `most`, which have numbers from `number` on: the number of the first, how many, a
    /// frame for the channel's number `channel` if all are plain, else the values, and what is to be dropped. `plain`: no
    /// others. Never blocks.
    fn values<'py>(
        &self,
        py: Python<'py>,
        channel: u64,
        number: u64,
        most: usize,
        plain: bool,
    ) -> PyResult<Shown<'py>> {
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
                bytes += more + HEAD;
                found.len() < most && bytes < BATCH_BYTES
            },
        );
        let spent = PyList::new(py, spent.into_iter().map(|value| value.into_object(py)))?;
        let count = found.len();
        if let Some(slab) = slab_of(py, &found) {
            let frame = PyBytes::new(py, &frame_of(channel, first, &slab));
            return Ok((first, count, Some(frame), PyList::empty(py), spent));
        }
        let found = PyList::new(py, found.into_iter().map(|value| value.into_object(py)))?;
        Ok((first, count, None, found, spent))
    }

    /// The frame of these values. `packed`: which are pickles; all others are plain.
    #[staticmethod]
    fn frame<'py>(
        channel: u64,
        first: u64,
        values: &Bound<'py, PyList>,
        packed: Vec<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut slab = Slab::default();
        let mut packed = packed.into_iter().peekable();
        for (place, value) in values.iter().enumerate() {
            let plain = match packed.next_if_eq(&place) {
                Some(_) => value.cast_exact::<PyBytes>().ok().map(|data| Plain::Pickle(data.as_bytes())),
                None => plain_of(&value),
            };
            slab.push(&plain.ok_or_else(|| PyTypeError::new_err("a value that is to be pickled"))?);
        }
        Ok(PyBytes::new(values.py(), &frame_of(channel, first, &slab)))
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
    /// Where in the slab it is.
    at: u32,
    slab: Arc<Slab>,
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
    /// Has a value when copies have come that somebody may wait for.
    came: Chan<()>,
    /// Whether waiting for them has been worth while.
    spin: Spin,
    closed: AtomicBool,
    generation: u32,
}

#[derive(Default)]
struct Copies {
    queue: VecDeque<Copied>,
    /// More is to be asked for when so many are left; 0: it was.
    low: usize,
    /// More was asked for, and has not come.
    asked: bool,
}

/// What became of a try.
enum Tried {
    Claimed { copied: Copied, ring: bool },
    Nothing,
}

impl PyClaims {
    /// Claims the next value, if a copy of it is here.
    #[inline]
    fn claim_now(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        // Ordering: Relaxed. Whoever closes it has no more to say.
        if self.closed.load(Ordering::Relaxed) || self.generation != generation() {
            return Ok(None);
        }
        if goslings::with_current(|task| task.is_some_and(goslings::Task::take_cancel)) {
            return Err(errors::cancelled(py));
        }
        match self.try_claim() {
            Tried::Nothing => Ok(None),
            Tried::Claimed { copied, ring } => {
                if ring {
                    self.tell_home(py);
                }
                match copied.slab.get(copied.at) {
                    Plain::Pickle(data) => self.unpack.call1(py, (PyBytes::new(py, data),)).map(Some),
                    plain => Ok(object_of(py, &plain).map(Bound::unbind)),
                }
            }
        }
    }

    /// The same; if more was asked for, waits for that for a moment.
    #[inline]
    pub(crate) fn claim_soon(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        operation(py, "chan.recv", On::Anything)?;
        match self.claim_now(py)? {
            None => self.wait_and_claim(py),
            claimed => Ok(claimed),
        }
    }

    #[cold]
    fn wait_and_claim(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if !self.is_asked() || !self.spin.is_worth_while() {
            return Ok(None);
        }
        let soon = Wait::at_most(SOON);
        let claimed = loop {
            match self.came.recv(soon) {
                Ok(()) => {}
                Err(RecvError::TimedOut | RecvError::Closed) => break None,
                Err(error) => return Err(errors::recv(py, error)),
            }
            // It may have been there for long, or others have claimed what had come.
            let claimed = self.claim_now(py)?;
            if claimed.is_some() || !self.is_asked() {
                break claimed;
            }
        };
        self.spin.note(claimed.is_some());
        if claimed.is_some() && !self.copies().queue.is_empty() {
            self.say_come();
        }
        Ok(claimed)
    }

    fn is_asked(&self) -> bool {
        self.copies().asked
    }

    /// Wakes one of those who wait for copies.
    fn say_come(&self) {
        // Full: somebody will look anyway.
        let _ = self.came.try_send(());
    }

    fn copies(&self) -> std::sync::MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn try_claim(&self) -> Tried {
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
                continue;
            }
            let more = copies.low > 0 && copies.queue.len() <= copies.low;
            if more {
                copies.low = 0;
                copies.asked = true;
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
            came: Chan::new(1),
            spin: Spin::default(),
            closed: AtomicBool::new(false),
            generation: generation(),
        })
    }

    /// A frame of copies has come. Raises ConnectionError if it is none. Never blocks.
    fn add(&self, frame: &Bound<'_, PyBytes>) -> PyResult<()> {
        let garbage = |Garbage(why)| {
            PyConnectionError::new_err(format!("the other side of the link does not follow the rules: {why}"))
        };
        let (head, values) = frame
            .as_bytes()
            .split_first_chunk::<FRAME>()
            .ok_or_else(|| garbage(Garbage("copies without a head")))?;
        let first = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
        let (slab, places) = Slab::read(values).map_err(garbage)?;
        if first.checked_add(places.len() as u64).is_none() {
            return Err(garbage(Garbage("copies with impossible numbers")));
        }
        let slab = Arc::new(slab);
        let came = (first..).zip(places).map(|(number, at)| Copied { number, at, slab: Arc::clone(&slab) });
        let claimed = self.page.claimed();
        let mut copies = self.copies();
        while copies.queue.front().is_some_and(|front| front.number < claimed) {
            copies.queue.pop_front();
        }
        // Batches are told in turns, and may pass each other on their way.
        let at = copies.queue.partition_point(|copied| copied.number < first);
        let later = copies.queue.split_off(at);
        copies.queue.extend(came);
        copies.queue.extend(later);
        let here = copies.queue.len();
        copies.low = if here >= AHEAD { here / 2 } else { 0 };
        let waited = std::mem::take(&mut copies.asked);
        drop(copies);
        if waited {
            self.say_come();
        }
        Ok(())
    }

    /// The channel's number in a frame of copies.
    #[staticmethod]
    fn channel_in(frame: &Bound<'_, PyBytes>) -> Option<u64> {
        let head = frame.as_bytes().first_chunk::<8>()?;
        (head[0] == COPIES).then_some(u64::from_le_bytes(*head) >> 16)
    }

    /// Claims the next value, if a copy of it is here; else returns this object. A cancel point. Never blocks.
    fn claim(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Ok(slf.get().claim_now(slf.py())?.unwrap_or_else(|| slf.clone().into_any().unbind()))
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
        self.say_come();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.link)?;
        visit.call(&self.ring)?;
        visit.call(&self.unpack)?;
        // Copies are bytes: they refer to nothing.
        Ok(())
    }
}

//! Streams: values that a process sends on a channel of another one without waiting for answers, as records of the link.
//!
//! ```text
//! record: | u8 VALUE | u8 type | u48 the channel's number at home | bytes |        type and bytes: goslings_shm::Plain
//! ```
//!
//! The sender takes a credit (`credit.rs`) and writes the record into the link's ring, in the call of `send` itself. At home
//! whoever reads the link takes the records that are there, many at once, and puts their values into the channels: a lock of
//! the channel and a wake-up for each batch, not for each value. Python code runs for values that need pickle, and when
//! something does not go on: no credit, no room in the ring, a link that has ended.
//!
//! **Invariants**
//! * What one goroutine sends stays in order: a record is written only while nothing waits to be written (`Link::queued`),
//!   and values of a batch are in their channels before anything that came after them is looked at.
//! * Nothing is believed of a record but what was copied out of the ring and checked. A number without credit, more values
//!   than were promised, or bytes that are no value end the link; what came before has arrived.
//! * No lock is held while Python is called, an object is made, or one is dropped.

use crate::bubble::{On, operation};
use crate::credit::{Inflow, PyCredit, Word};
use crate::errors;
use crate::host::may_block;
use crate::lease::PyClaims;
use crate::link::{Link, Stopped};
use crate::plain::plain_of;
use crate::shm::Segment;
use crate::spin::Spin;
use crate::value::{Slab, Value};
use goslings_shm::{Garbage, LinkError, Plain, Receiver, Source};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError};

/// The first byte of a record with a value that was sent on credit. A pickle begins with 0x80, a frame with buffers with 0.
pub(crate) const VALUE: u8 = 1;
/// Values of so many bytes and more are not sent on credit: they wait for their answer.
const SMALL: usize = 4096;
/// So many values at most are taken at once.
const BATCH: usize = 128;
/// So many values one after another are the beginning of more.
const FLOW: usize = 8;
/// After so many values those who are ready have their turn.
pub(crate) const TURN: usize = 512;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a look-up")]
type Leaf<T> = std::sync::Mutex<T>;

fn head(tag: u8, number: u64) -> [u8; 8] {
    debug_assert!(number >> 48 == 0, "more channels than any process has");
    let mut head = (number << 16).to_le_bytes();
    head[0] = VALUE;
    head[1] = tag;
    head
}

fn number_in(head: [u8; 8]) -> u64 {
    u64::from_le_bytes(head) >> 16
}

/// What became of a send.
pub(crate) enum Sent {
    Done,
    /// There is no credit, or the link has ended: home is to be asked.
    Ask,
    /// The value needs pickle.
    Pickle,
    /// The credit is taken, and this record is to be queued: there is no room, or others wait for it.
    Queue(Vec<u8>),
}

impl Sent {
    /// For Python: True, False, None, or the record.
    fn told(self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Sent::Done => PyBool::new(py, true).to_owned().into_any().unbind(),
            Sent::Ask => PyBool::new(py, false).to_owned().into_any().unbind(),
            Sent::Pickle => py.None(),
            Sent::Queue(record) => PyBytes::new(py, &record).into_any().unbind(),
        }
    }
}

/// What needs no answer of a channel of another process: the sending end of a stream, and copies that come ahead.
#[pyclass(name = "_Outflow", module = "goslings._goslings", frozen, weakref)]
pub(crate) struct Outflow {
    link: Py<Link>,
    /// The channel's, at its home.
    number: u64,
    /// What home has promised, if anything.
    word: OnceLock<Word>,
    spin: Spin,
    /// What can be received without asking, if home sends copies ahead.
    claims: OnceLock<Py<PyClaims>>,
}

impl Outflow {
    /// Sends the value if that needs no answer. `waits`: for a moment, for credit.
    pub(crate) fn send(&self, value: &Bound<'_, PyAny>, waits: bool) -> PyResult<Sent> {
        let Some(word) = self.word.get() else { return Ok(Sent::Ask) };
        let Some(plain) = plain_of(value) else { return Ok(Sent::Pickle) };
        self.put(value.py(), word, &plain, waits)
    }

    #[inline]
    fn put(&self, py: Python<'_>, word: &Word, plain: &Plain<'_>, waits: bool) -> PyResult<Sent> {
        let mut number = [0; 8];
        let body = plain.body(&mut number);
        if body.len() >= SMALL {
            return Ok(Sent::Ask);
        }
        operation(py, "chan.send", On::Anything)?;
        if goslings::with_current(|task| task.is_some_and(goslings::Task::take_cancel)) {
            return Err(errors::cancelled(py));
        }
        if !(word.take() || waits && self.take_soon(py, word)) {
            return Ok(Sent::Ask);
        }
        let head = head(plain.tag(), self.number);
        Ok(match self.link.get().put(&[Source::from(&head[..]), Source::from(body)]) {
            Ok(true) => Sent::Done,
            Ok(false) => Sent::Queue([&head[..], body].concat()),
            Err(_) => Sent::Ask,
        })
    }

    /// Takes a credit that comes at once: whoever receives is often about to make room for many values.
    #[cold]
    fn take_soon(&self, py: Python<'_>, word: &Word) -> bool {
        goslings::yield_now();
        word.take() || self.spin.until_letting(py, || word.has_some()) && word.take()
    }
}

#[pymethods]
impl Outflow {
    #[new]
    fn new(link: Py<Link>, number: u64) -> Outflow {
        Outflow { link, number, word: OnceLock::new(), spin: Spin::default(), claims: OnceLock::new() }
    }

    /// Home has promised sends, which this page counts.
    fn allow(&self, segment: Bound<'_, Segment>) -> PyResult<()> {
        // A second page would be the same.
        let _ = self.word.set(Word::new(segment)?);
        Ok(())
    }

    /// Copies come ahead.
    fn claim_from(&self, claims: Py<PyClaims>) {
        // Home leases a channel once, as long as this process has it.
        let _ = self.claims.set(claims);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.link)?;
        self.claims.get().map_or(Ok(()), |claims| visit.call(claims))
    }

    /// Sends `value` if that needs no answer: True. False: home is to be asked. None: it is to be pickled. Bytes: these are to
    /// be queued behind the messages that wait for room. A cancel point. Never blocks.
    #[pyo3(name = "send")]
    fn send_now(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Ok(self.send(value, false)?.told(value.py()))
    }

    /// The same for a value that was pickled.
    fn send_pickle(&self, data: &Bound<'_, PyBytes>) -> PyResult<Py<PyAny>> {
        let py = data.py();
        let sent = match self.word.get() {
            Some(word) => self.put(py, word, &Plain::Pickle(data.as_bytes()), false)?,
            None => Sent::Ask,
        };
        Ok(sent.told(py))
    }
}

/// What the classes of foreign channels have from here.
#[pyclass(name = "_Foreign", module = "goslings._goslings", frozen, subclass)]
pub(crate) struct Foreign {
    outflow: Py<Outflow>,
}

impl Foreign {
    #[inline]
    pub(crate) fn send_here(slf: &Bound<'_, Foreign>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        match slf.get().outflow.get().send(value, true)? {
            Sent::Done => Ok(()),
            sent => Foreign::send_otherwise(slf, value, None, sent),
        }
    }

    #[cold]
    fn send_otherwise(
        slf: &Bound<'_, Foreign>,
        value: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        sent: Sent,
    ) -> PyResult<()> {
        let py = slf.py();
        slf.call_method1(pyo3::intern!(py, "_send_otherwise"), (value, timeout, sent.told(py)))?;
        Ok(())
    }

    /// A value that has come ahead.
    #[inline]
    fn claimed(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.outflow.get().claims.get() {
            Some(claims) => claims.get().claim_soon(py),
            None => Ok(None),
        }
    }

    #[inline]
    pub(crate) fn recv_here(slf: &Bound<'_, Foreign>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        match slf.get().claimed(py)? {
            Some(value) => Ok(value),
            None => Ok(slf.call_method1(pyo3::intern!(py, "_recv_otherwise"), (py.None(),))?.unbind()),
        }
    }
}

#[pymethods]
impl Foreign {
    /// `origin`: what the process has of the channel.
    #[new]
    fn new(origin: &Bound<'_, PyAny>) -> PyResult<Foreign> {
        let outflow = origin.getattr(pyo3::intern!(origin.py(), "outflow"))?;
        Ok(Foreign { outflow: outflow.cast_into::<Outflow>()?.unbind() })
    }

    /// As `chan.send`: blocks until a receiver takes the value or home has stored it, or has promised to.
    #[pyo3(signature = (value, timeout = None))]
    fn _send(
        slf: &Bound<'_, Foreign>,
        value: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        may_block(slf.py(), "ch.asend(value)")?;
        match slf.get().outflow.get().send(value, timeout.is_none())? {
            Sent::Done => Ok(()),
            sent => Foreign::send_otherwise(slf, value, timeout, sent),
        }
    }

    /// As `chan.recv`: blocks until home has a value.
    #[pyo3(signature = (timeout = None))]
    fn _recv(slf: &Bound<'_, Foreign>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        may_block(py, "ch.arecv()")?;
        if timeout.is_none() {
            return Foreign::recv_here(slf);
        }
        Ok(slf.call_method1(pyo3::intern!(py, "_recv_otherwise"), (timeout,))?.unbind())
    }

    /// As `next`.
    fn _next(slf: &Bound<'_, Foreign>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        may_block(py, "ch.arecv()`, or iterate with `async for")?;
        match slf.get().claimed(py)? {
            Some(value) => Ok(value),
            None => Ok(slf.call_method0(pyo3::intern!(py, "_next_otherwise"))?.unbind()),
        }
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.outflow)
    }
}

/// The receiving ends of the streams of one link.
#[pyclass(name = "_Streams", module = "goslings._goslings", frozen)]
pub(crate) struct Streams {
    inflows: Leaf<HashMap<u64, Inflow>>,
    unpickle: Py<PyAny>,
    failed: Py<PyAny>,
}

impl Streams {
    fn inflows(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Inflow>> {
        self.inflows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Streams {
    /// `unpickle` makes a value of bytes; `failed` is told of the exceptions that this raises.
    #[new]
    fn new(unpickle: Py<PyAny>, failed: Py<PyAny>) -> Streams {
        Streams { inflows: Leaf::new(HashMap::new()), unpickle, failed }
    }

    /// From now on values may come for this channel.
    fn add(&self, number: u64, credit: &PyCredit) {
        self.inflows().insert(number, credit.inflow.clone());
    }

    /// No longer.
    fn remove(&self, number: u64) {
        let inflow = self.inflows().remove(&number);
        drop(inflow);
    }

    /// For none any more: the link has ended.
    fn clear(&self) {
        let inflows = std::mem::take(&mut *self.inflows());
        drop(inflows);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.unpickle)?;
        visit.call(&self.failed)
    }
}

/// Values on their way from a link to their channels.
pub(crate) struct Batch<'a> {
    streams: &'a Streams,
    slab: Slab,
    /// Channels' numbers, and where in the slab their values are.
    came: Vec<(u64, u32)>,
    values: VecDeque<Value>,
    /// How many were put into channels since others had their turn.
    delivered: usize,
    /// How many have come since there was nothing to collect.
    run: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(streams: &'a Streams) -> Batch<'a> {
        let (slab, came, values) = (Slab::default(), Vec::new(), VecDeque::new());
        Batch { streams, slab, came, values, delivered: 0, run: 0 }
    }

    /// Takes what has come of streams; after an error what came before it.
    pub(crate) fn collect(&mut self, receiver: &mut Receiver) -> Result<(), LinkError> {
        while self.came.len() < BATCH {
            let at = self.slab.bytes().len();
            if !receiver.take_if(self.slab.bytes(), |head| head[0] == VALUE)? {
                break;
            }
            // No more than BATCH records, none longer than a part of the ring.
            let at = at as u32;
            let head = self.slab.check(at).map_err(|Garbage(why)| LinkError::Garbage(why))?;
            if head[0] != VALUE {
                return Err(LinkError::Garbage("a record that changes"));
            }
            self.came.push((number_in(head), at));
        }
        self.run += self.came.len();
        Ok(())
    }

    /// Whether nothing was collected.
    pub(crate) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// Whether those who are ready should have their turn, since `enough` was delivered; it is taken to be given.
    pub(crate) fn is_turn_of_others(&mut self, enough: usize) -> bool {
        let theirs = self.delivered >= enough;
        if theirs {
            self.delivered = 0;
        }
        theirs
    }

    /// There is nothing to collect. Whether many have come one after another.
    pub(crate) fn flows(&mut self) -> bool {
        std::mem::take(&mut self.run) >= FLOW
    }

    /// Puts what was collected into the channels.
    pub(crate) fn deliver(&mut self, py: Python<'_>) -> Result<(), Stopped> {
        let slab = Arc::new(std::mem::take(&mut self.slab));
        let came = std::mem::take(&mut self.came);
        let delivered = came.chunk_by(|one, other| one.0 == other.0).try_for_each(|run| {
            let inflow = self.streams.inflows().get(&run[0].0).cloned();
            let inflow = inflow.ok_or(LinkError::Garbage("a value for a channel without credit"))?;
            for &(_, at) in run {
                match slab.get(at) {
                    Plain::Pickle(data) => self.unpickle(py, &inflow, data)?,
                    _ => self.values.push_back(Value::Plain(at, Arc::clone(&slab))),
                }
            }
            inflow.arrive(&mut self.values);
            if self.values.is_empty() {
                return Ok(());
            }
            Err(LinkError::Garbage("more values than were promised").into())
        });
        self.delivered += came.len();
        self.values.clear();
        self.came = came;
        self.came.clear();
        delivered
    }

    #[cold]
    fn unpickle(&mut self, py: Python<'_>, inflow: &Inflow, data: &[u8]) -> Result<(), Stopped> {
        match self.streams.unpickle.call1(py, (PyBytes::new(py, data),)) {
            Ok(value) => self.values.push_back(Value::Object(value)),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                // Whoever sent it has gone on: nobody is there to be told but the program's log.
                inflow.lost();
                self.streams.failed.call1(py, (error,)).map_err(Stopped::Python)?;
            }
            Err(error) => return Err(Stopped::Python(error)),
        }
        Ok(())
    }
}

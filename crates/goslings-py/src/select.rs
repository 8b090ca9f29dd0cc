//! `select` and its cases.

use crate::awaitable::{Awaitable, Keep, Owned};
use crate::bubble::{On, operation};
use crate::chan::{PyChan, RecvChan, SendChan};
use crate::errors;
use crate::host::{Held, may_block};
use crate::stead;
use crate::timeout::wait;
use crate::value::{Channel, Value};
use goslings::SelectError;
use goslings::bubble::ANYWHERE;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// One case of a `select`. Made by `recv(ch)` and `send(ch, value)`; may be used again.
#[pyclass(module = "goslings", frozen)]
pub(crate) struct Case {
    /// The channel or view as the caller gave it, checked; Python's None for a case that is never ready.
    given: Py<PyAny>,
    /// What to send; None for a receive.
    value: Option<Py<PyAny>>,
}

#[pymethods]
impl Case {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.given)?;
        visit.call(&self.value)
    }

    /// What a case is made of: the channel or None, whether it sends, and what.
    fn _parts(&self, py: Python<'_>) -> (Py<PyAny>, bool, Option<Py<PyAny>>) {
        (self.given.clone_ref(py), self.value.is_some(), self.value.as_ref().map(|value| value.clone_ref(py)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let chan = self.given.bind(py).repr()?;
        match &self.value {
            Some(value) => Ok(format!("send({chan}, {})", value.bind(py).repr()?)),
            None => Ok(format!("recv({chan})")),
        }
    }
}

/// recv(ch): a receive case for `select`. `recv(None)` is never ready: Go's nil channel.
///
/// Raises TypeError for a SendChan or anything that is no channel.
#[pyfunction]
#[pyo3(signature = (ch, /))]
pub(crate) fn recv(ch: Bound<'_, PyAny>) -> PyResult<Case> {
    if ch.is_instance_of::<PyChan>() || ch.is_instance_of::<RecvChan>() || ch.is_none() {
        return Ok(Case { given: ch.unbind(), value: None });
    }
    if stead::is_elsewhere(&ch) {
        if !stead::goes(&ch, 1) {
            return Err(PyTypeError::new_err("cannot receive from a SendChan: it only sends"));
        }
        return Ok(Case { given: ch.unbind(), value: None });
    }
    if ch.is_instance_of::<SendChan>() {
        return Err(PyTypeError::new_err("cannot receive from a SendChan: it only sends"));
    }
    let kind = ch.get_type().name()?;
    Err(PyTypeError::new_err(format!("recv needs a chan, a RecvChan or None, not {kind}")))
}

/// send(ch, value): a send case for `select`. `send(None, value)` is never ready: Go's nil channel.
///
/// Raises TypeError for a RecvChan or anything that is no channel.
#[pyfunction]
#[pyo3(signature = (ch, value, /))]
pub(crate) fn send(ch: Bound<'_, PyAny>, value: Py<PyAny>) -> PyResult<Case> {
    if ch.is_instance_of::<PyChan>() || ch.is_instance_of::<SendChan>() || ch.is_none() {
        return Ok(Case { given: ch.unbind(), value: Some(value) });
    }
    if stead::is_elsewhere(&ch) {
        if !stead::goes(&ch, 2) {
            return Err(PyTypeError::new_err("cannot send to a RecvChan: it only receives"));
        }
        return Ok(Case { given: ch.unbind(), value: Some(value) });
    }
    if ch.is_instance_of::<RecvChan>() {
        return Err(PyTypeError::new_err("cannot send to a RecvChan: it only receives"));
    }
    let kind = ch.get_type().name()?;
    Err(PyTypeError::new_err(format!("send needs a chan, a SendChan or None, not {kind}")))
}

/// The case that a `select` carried out: `index`, `chan` (the object given in the case), `value` and `ok`.
///
/// For a receive `ok` is False if the channel is closed and drained; for a send it is True.
/// Matches as `Selected(index, value, ok)`.
#[pyclass(module = "goslings", frozen, generic)]
pub(crate) struct Selected {
    /// The place of the case in the call.
    #[pyo3(get)]
    index: usize,
    /// The channel or view given in the case.
    #[pyo3(get)]
    chan: Py<PyAny>,
    /// What was received; None for a send, and for a closed, drained channel.
    #[pyo3(get)]
    value: Py<PyAny>,
    /// False only for a receive from a closed, drained channel.
    #[pyo3(get)]
    ok: bool,
}

impl Selected {
    pub(crate) fn new(index: usize, chan: Py<PyAny>, value: Py<PyAny>, ok: bool) -> Selected {
        Selected { index, chan, value, ok }
    }
}

#[pymethods]
impl Selected {
    #[classattr]
    fn __match_args__(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, ["index", "value", "ok"])
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.chan)?;
        visit.call(&self.value)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let value = self.value.bind(py).repr()?;
        let ok = if self.ok { "True" } else { "False" };
        Ok(format!("Selected(index={}, value={value}, ok={ok})", self.index))
    }
}

/// select(*cases, timeout=None): waits until one of the cases can be carried out, and carries it out.
///
/// Of several ready cases one is chosen uniformly at random. Blocks until one is ready; with `timeout=0`
/// returns None at once if none is (Go's `default`), with `timeout=s` after `s` seconds. Returns a
/// `Selected`. Raises Closed if the chosen send case's channel is closed. Go: `select`.
#[pyfunction]
#[pyo3(signature = (*cases, timeout = None))]
pub(crate) fn select(
    py: Python<'_>,
    cases: &Bound<'_, PyTuple>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Py<PyAny>>> {
    may_block(py, "aselect(...)")?;
    let mut given: Few<'_> = Few::new();
    let all = cases;
    let cases = all.as_slice();
    for case in cases {
        let case = checked(case)?;
        given.push(match (channel(case.given.bind(py)), &case.value) {
            (None, _) if !case.given.is_none(py) => {
                return stead::elsewhere(py, "select", all, timeout).map(|answer| Some(answer.unbind()));
            }
            (None, None) => goslings::Case::Never,
            (None, Some(_)) => goslings::Case::NeverSend,
            (Some(channel), None) => goslings::Case::Recv(channel),
            (Some(channel), Some(value)) => {
                goslings::Case::Send(channel, Some(Value::Object(value.clone_ref(py))))
            }
        });
    }
    operation(py, "select", given.made())?;
    let wait = wait(timeout)?;
    let held = Held::new(all);
    let answer = goslings::select(given.as_mut_slice(), wait);
    drop(held);
    match answer {
        Ok(chosen) => {
            let selected = selected(py, checked(&cases[chosen.index])?, chosen);
            Ok(Some(selected.into_pyobject(py)?.into_any().unbind()))
        }
        Err(SelectError::TimedOut) => Ok(None),
        Err(error) => Err(errors::select(py, error)),
    }
}

fn checked<'a>(case: &'a Bound<'_, PyAny>) -> PyResult<&'a Case> {
    let Ok(case) = case.cast::<Case>() else {
        let kind = case.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "select takes cases made by recv(ch) and send(ch, value), not {kind}"
        )));
    };
    Ok(case.get())
}

fn selected(py: Python<'_>, case: &Case, chosen: goslings::Selected<Value>) -> Selected {
    Selected {
        index: chosen.index,
        chan: case.given.clone_ref(py),
        ok: case.value.is_some() || chosen.value.is_some(),
        value: chosen.value.map_or_else(|| py.None(), |value| value.into_object(py)),
    }
}

/// What a select that is awaited tries.
struct Tried {
    cases: Py<PyTuple>,
    /// The channel of each case.
    channels: Vec<Option<Arc<Channel>>>,
}

impl Keep for Tried {
    fn show(&self, see: &mut dyn FnMut(Owned)) {
        self.cases.show(see);
        for channel in self.channels.iter().flatten() {
            // The wait has another one.
            see(Owned::share(channel));
            see(Owned::share(channel));
        }
    }
}

/// A select to be awaited.
pub(crate) fn awaitable(
    cases: Bound<'_, PyTuple>,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let py = cases.py();
    let wait = wait(timeout)?;
    let mut given = Vec::with_capacity(cases.len());
    for case in cases.as_slice() {
        let case = checked(case)?;
        let channel = crate::chan::channel_of(case.given.bind(py));
        if channel.is_none() && !case.given.is_none(py) {
            return stead::elsewhere(py, "aselect", &cases, timeout).map(Bound::unbind);
        }
        given.push((channel, case.value.as_ref().map(|value| Value::Object(value.clone_ref(py)))));
    }
    let channels: Vec<_> = given.iter().map(|(channel, _)| channel.clone()).collect();
    let made = made_in(channels.iter().flatten().map(|channel| channel.bubble()));
    let awaitable = Awaitable::keeping(
        move |caller| goslings::polled::select(given, wait, caller),
        Tried { cases: cases.unbind(), channels },
        |tried, py, answer| match answer {
            Ok(chosen) => {
                let case = tried.cases.bind(py).get_item(chosen.index)?;
                Ok(selected(py, checked(&case)?, chosen).into_pyobject(py)?.into_any().unbind())
            }
            Err(SelectError::TimedOut) => Ok(py.None()),
            Err(error) => Err(errors::select(py, error)),
        },
        |tried, answer| match answer {
            Ok(goslings::Selected { index, value: Some(value) }) => {
                // Received: back to where it came from.
                if let Some(channel) = &tried.channels[index] {
                    channel.put_back(value);
                }
                None
            }
            // Sent, or found closed, which changes nothing.
            Ok(sent) => Some(Ok(sent)),
            Err(_) => None,
        },
    );
    Ok(awaitable.about("aselect", made).into_pyobject(py)?.into_any().unbind())
}

/// Where the channels with these bubbles were made.
fn made_in(bubbles: impl Iterator<Item = u32>) -> On {
    let mut bubbles = bubbles.filter(|&made| made != ANYWHERE);
    let Some(first) = bubbles.next() else { return On::Nothing };
    // Of several bubbles: whoever is in one of them is outside the other.
    match bubbles.filter(|&other| other != first).max() {
        None => On::Made(first),
        Some(other) => On::Mixed(first.max(other)),
    }
}

/// The channel of a case.
#[inline]
fn channel<'a>(given: &'a Bound<'_, PyAny>) -> Option<&'a Channel> {
    if let Ok(chan) = given.cast::<PyChan>() {
        return Some(&chan.get().channel);
    }
    if let Ok(view) = given.cast::<RecvChan>() {
        return Some(&view.get().channel);
    }
    given.cast::<SendChan>().ok().map(|view| &*view.get().channel)
}

/// The runtime's cases: a usual select allocates nothing for them.
struct Few<'a> {
    inline: [goslings::Case<'a, Value>; 4],
    len: usize,
    more: Vec<goslings::Case<'a, Value>>,
}

impl<'a> Few<'a> {
    fn new() -> Few<'a> {
        Few { inline: [const { goslings::Case::Never }; 4], len: 0, more: Vec::new() }
    }

    fn push(&mut self, case: goslings::Case<'a, Value>) {
        if self.len < self.inline.len() {
            self.inline[self.len] = case;
        } else {
            if self.len == self.inline.len() {
                let inline = std::mem::replace(&mut self.inline, [const { goslings::Case::Never }; 4]);
                self.more.extend(inline);
            }
            self.more.push(case);
        }
        self.len += 1;
    }

    /// Where the channels were made.
    fn made(&self) -> On {
        let cases = if self.len <= self.inline.len() { &self.inline[..self.len] } else { &self.more };
        made_in(cases.iter().filter_map(goslings::Case::chan).map(Channel::bubble))
    }

    fn as_mut_slice(&mut self) -> &mut [goslings::Case<'a, Value>] {
        if self.len <= self.inline.len() { &mut self.inline[..self.len] } else { &mut self.more }
    }
}

//! `sleep`, `after`, `after_func`, `Timer` and `Ticker`: Go 1.23's rules.

use crate::awaitable::{Awaitable, Form};
use crate::bubble::{On, operation};
use crate::chan::RecvChan;
use crate::errors;
use crate::goroutine::run_here;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::quick::{ChannelOf, HasChannel};
use crate::timeout::{from_seconds, seconds};
use crate::value::{Channel, Value};
use goslings::{Deadline, Fired, Job, Target, Timer, Wait};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Stores the time it was due into a channel.
struct Tick(Arc<Channel>);

impl Target for Tick {
    fn fire(&self, due: Deadline) -> Fired {
        Fired::tick(&self.0, Value::Time(due.0 as f64 / 1e9))
    }

    fn matters(&self) -> bool {
        self.0.has_receivers()
    }
}

/// Longer than any program runs; what a number of seconds that the clock cannot count becomes.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

fn deadline(seconds: f64) -> Deadline {
    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(FAR).min(FAR);
    Deadline::after(time).unwrap_or(Deadline(u64::MAX - 1))
}

fn has_tick(channel: &Channel) -> bool {
    channel.try_recv().is_ok()
}

/// sleep(seconds): parks this goroutine (or plain thread) for at least so long.
///
/// Zero or less returns at once, but is a cancel point. Go: `time.Sleep`.
#[pyfunction]
#[pyo3(signature = (seconds, /))]
pub(crate) fn sleep(seconds: &Bound<'_, PyAny>) -> PyResult<()> {
    operation(seconds.py(), "sleep", On::Nothing)?;
    may_block(seconds.py(), "asleep(seconds)")?;
    let wait = from_seconds(crate::timeout::seconds(seconds, "seconds")?);
    goslings::sleep(wait).map_err(|error| errors::sleep(seconds.py(), error))
}

/// after(seconds): a receive-only channel that gets the time (of time.monotonic()) once, then.
///
/// Never blocks. Go: `time.After`.
#[pyfunction]
#[pyo3(signature = (seconds, /))]
pub(crate) fn after(seconds: &Bound<'_, PyAny>) -> PyResult<RecvChan> {
    PyTimer::new(seconds)?.c()
}

/// after_func(seconds, fn): starts a goroutine that runs `fn()` then; returns the Timer, which has no channel.
///
/// Never blocks. Raises TypeError if `fn` is not callable. Go: `time.AfterFunc`.
#[pyfunction]
#[pyo3(signature = (seconds, r#fn, /))]
pub(crate) fn after_func(seconds: &Bound<'_, PyAny>, r#fn: Bound<'_, PyAny>) -> PyResult<PyTimer> {
    let at = deadline(crate::timeout::seconds(seconds, "seconds")?);
    if !r#fn.is_callable() {
        return Err(PyTypeError::new_err("after_func needs a callable"));
    }
    let call = Arc::new(Call {
        function: r#fn.unbind(),
        keep: KeepLock::new(None),
        made: goslings::bubble::current_id(),
        this: OnceLock::new(),
    });
    let _ = call.this.set(Arc::downgrade(&call));
    let timer = Arc::new(Timer::new(Arc::clone(&call) as Arc<dyn Target>));
    let timer = PyTimer { timer, kind: Kind::Function(call) };
    timer.set(Some(at));
    Ok(timer)
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type KeepLock = std::sync::Mutex<Option<Arc<Timer>>>;

/// Starts a goroutine.
struct Call {
    function: Py<PyAny>,
    /// The timer itself, while it is set: it fires also when nobody holds it any more.
    keep: KeepLock,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
    this: OnceLock<Weak<Call>>,
}

impl Call {
    fn keep(&self, timer: Option<Arc<Timer>>) -> Option<Arc<Timer>> {
        let mut keep = self.keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *keep, timer)
    }
}

impl Target for Call {
    fn fire(&self, _due: Deadline) -> Fired {
        let kept = self.keep(None);
        let this = self.this.get().and_then(Weak::upgrade);
        // Runs on a thread that may not touch Python: it only queues a goroutine, which is what calls, and
        // what drops the references.
        Fired::call(move || {
            goslings::spawn(Job::new(move || {
                crate::host::attached(|py| {
                    if let Some(this) = &this
                        && let Err(error) = run_here(py, this.function.clone_ref(py))
                    {
                        error.write_unraisable(py, None);
                    }
                });
                drop((this, kept));
            }));
        })
    }
}

/// A single event in the future: `c` gets the time (of time.monotonic(), in seconds) when it comes.
///
/// After `stop` or `reset` no value of before is received. Go: `time.Timer`, as of 1.23.
#[pyclass(name = "Timer", module = "goslings", frozen, weakref)]
pub(crate) struct PyTimer {
    timer: Arc<Timer>,
    kind: Kind,
}

enum Kind {
    Channel(Arc<Channel>),
    Function(Arc<Call>),
}

impl PyTimer {
    fn made(&self) -> On {
        match &self.kind {
            Kind::Channel(channel) => On::Made(channel.bubble()),
            Kind::Function(call) => On::Made(call.made),
        }
    }

    /// Stops the timer, or sets it anew; returns whether that prevented something.
    fn set(&self, at: Option<Deadline>) -> bool {
        let next = at.map(|at| (at, 0));
        match &self.kind {
            Kind::Channel(channel) => self.timer.reset(next, || has_tick(channel)),
            Kind::Function(call) => {
                // Keep it before it may fire, let go of it after it cannot any more.
                let kept = at.and_then(|_| call.keep(Some(Arc::clone(&self.timer))));
                let was_set = self.timer.reset(next, || false);
                let let_go = if at.is_none() { call.keep(None) } else { None };
                drop((kept, let_go));
                was_set
            }
        }
    }
}

impl PyTimer {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        match &self.kind {
            Kind::Channel(channel) => Waitable::shared(channel),
            Kind::Function(_) => Waitable::none(),
        }
    }
}

#[pymethods]
impl PyTimer {
    #[new]
    #[pyo3(signature = (seconds, /))]
    fn new(seconds: &Bound<'_, PyAny>) -> PyResult<PyTimer> {
        let at = deadline(crate::timeout::seconds(seconds, "seconds")?);
        let channel = Arc::new(Channel::for_ticks());
        let timer = Timer::new(Arc::new(Tick(Arc::clone(&channel))));
        timer.reset(Some((at, 0)), || false);
        Ok(PyTimer { timer: Arc::new(timer), kind: Kind::Channel(channel) })
    }

    /// The receive-only channel that gets the time.
    ///
    /// Raises TypeError for a timer made by `after_func`, which has none.
    #[getter]
    fn c(&self) -> PyResult<RecvChan> {
        match &self.kind {
            Kind::Channel(channel) => {
                let timer = Some(Arc::clone(&self.timer));
                Ok(RecvChan { channel: Arc::clone(channel), of: None, timer })
            }
            Kind::Function(_) => Err(PyTypeError::new_err("a timer made by after_func has no channel")),
        }
    }

    /// Stops the timer; returns whether that came in time: before its value was received, or before its
    /// function was started. Does not wait for a function that runs. Never blocks.
    fn stop(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Timer.stop", self.made())?;
        Ok(self.set(None))
    }

    /// Sets the timer anew, `seconds` from now; returns what `stop` would have.
    #[pyo3(signature = (seconds, /))]
    fn reset(&self, seconds: &Bound<'_, PyAny>) -> PyResult<bool> {
        operation(seconds.py(), "Timer.reset", self.made())?;
        let at = deadline(crate::timeout::seconds(seconds, "seconds")?);
        Ok(self.set(Some(at)))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.kind {
            // While it is set, or somebody else keeps it, the function is wanted without this object.
            Kind::Function(call) if Arc::strong_count(&self.timer) == 1 => visit.call(&call.function),
            _ => Ok(()),
        }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Timer"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Timer"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Timer"))
    }
}

/// A clock that ticks every so many seconds: `c` gets the time of each tick; iterating receives them.
///
/// Keeps its grid; a slow receiver misses ticks, at most one waits. Raises ValueError unless positive.
/// Go: `time.Ticker`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Ticker {
    timer: Arc<Timer>,
    channel: Arc<Channel>,
}

impl HasChannel for Ticker {
    fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

fn period(value: &Bound<'_, PyAny>) -> PyResult<(Deadline, u64)> {
    let period = seconds(value, "seconds")?;
    if period <= 0.0 {
        return Err(PyValueError::new_err("non-positive interval for Ticker"));
    }
    let time = Duration::try_from_secs_f64(period).unwrap_or(FAR).clamp(Duration::from_nanos(1), FAR);
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Ok((deadline(period), nanoseconds))
}

impl Ticker {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.channel)
    }
}

#[pymethods]
impl Ticker {
    #[new]
    #[pyo3(signature = (seconds, /))]
    fn new(seconds: &Bound<'_, PyAny>) -> PyResult<Ticker> {
        let next = period(seconds)?;
        let channel = Arc::new(Channel::for_ticks());
        let timer = Timer::new(Arc::new(Tick(Arc::clone(&channel))));
        timer.reset(Some(next), || false);
        Ok(Ticker { timer: Arc::new(timer), channel })
    }

    /// The receive-only channel that gets the ticks.
    #[getter]
    fn c(&self) -> RecvChan {
        RecvChan { channel: Arc::clone(&self.channel), of: None, timer: Some(Arc::clone(&self.timer)) }
    }

    /// Ticks no more. Does not close the channel; nothing of before is received afterwards.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        operation(py, "Ticker.stop", On::Made(self.channel.bubble()))?;
        self.timer.reset(None, || has_tick(&self.channel));
        Ok(())
    }

    /// Ticks every `seconds` from now on.
    #[pyo3(signature = (seconds, /))]
    fn reset(&self, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        operation(seconds.py(), "Ticker.reset", On::Made(self.channel.bubble()))?;
        self.timer.reset(Some(period(seconds)?), || has_tick(&self.channel));
        Ok(())
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Py<Awaitable>> {
        Awaitable::receiving(slf.py(), ChannelOf::new(slf), Form::Next, Wait::Forever)
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        operation(py, "chan.recv", On::Made(self.channel.bubble()))?;
        may_block(py, "ticker.c.arecv()`, or iterate with `async for")?;
        match self.channel.recv(Wait::Forever) {
            Ok(value) => Ok(value.into_object(py)),
            Err(error) => Err(errors::recv(py, error)),
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.stop(py)
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Ticker"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Ticker"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Ticker"))
    }
}

//! `go`, and the handle it returns.

use crate::awaitable::{Awaitable, undo_nothing};
use crate::bubble::{self, On, operation};
use crate::chan::RecvChan;
use crate::coroutine::{self, Coroutine, Driver};
use crate::errors::{self, Cancelled, CancelledError, GoExit};
use crate::host;
use crate::life::{End, Kept, Life, Phase, Start};
use crate::once::OnceArc;
use crate::timeout::wait;
use crate::value::Channel;
use goslings::bubble::Bubble;
use goslings::chan::RecvError;
use goslings::{Task, WaitGroup};
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock, PoisonError};

/// Reads what is to be run; also, whether it gives a coroutine.
#[inline]
fn prepared(
    py: Python<'_>,
    function: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<(Start, bool)> {
    if !function.is_callable() {
        if host::is_coroutine(&function) {
            return Err(PyTypeError::new_err(
                "go needs the async def function and its arguments, not what calling it gives: go(f, x)",
            ));
        }
        let kind = function.get_type().name()?;
        return Err(PyTypeError::new_err(format!("go needs a callable, not {kind}")));
    }
    let stackless = host::is_async(&function)?;
    let context = host::copy_context(py)?;
    let (function, args, kwargs) = (function.unbind(), args.unbind(), kwargs.map(Bound::unbind));
    Ok((Start { function, args, kwargs, context }, stackless))
}

/// The handle of a goroutine: what `go` returns. Waits for its end, gives its result, cancels it.
///
/// An exception that nobody reads is reported to `goslings.excepthook` when the last handle goes away.
#[pyclass(module = "goslings", frozen, weakref, generic)]
pub(crate) struct Goroutine {
    task: OnceArc<Task>,
    life: Life,
    /// Closed when the goroutine has ended; made when somebody wants to wait.
    finished: OnceArc<Channel>,
    /// Told when it ends.
    group: Option<Arc<WaitGroup>>,
    extra: OnceArc<Extra>,
    /// The goroutine that called `go`; 0: a thread.
    creator: u64,
    /// Where `go` was called: a code object, and an offset in it.
    code: Option<Py<PyAny>>,
    offset: i32,
    /// Whether it runs without a stack of its own.
    stackless: bool,
    /// Whether somebody has looked at the result.
    read: AtomicBool,
}

/// What few goroutines have, and is read without a lock.
#[derive(Default)]
struct Extra {
    /// Of one that `prepare` made.
    member: Option<Member>,
    /// Of one that drives a coroutine on its stack.
    driver: OnceLock<Driver>,
}

/// What a goroutine that is started later has from the beginning.
struct Member {
    id: u64,
    /// Called with the handle when it has ended, before anybody else hears of it.
    watcher: Py<PyAny>,
}

/// go(fn, /, *args, **kwargs): starts `fn(*args, **kwargs)` concurrently and returns its handle at once.
///
/// `fn` may block anywhere, at any depth, in any code it calls: only its goroutine waits. Never blocks.
/// Raises TypeError if `fn` is not callable. Go: `go f(x)`.
#[pyfunction]
#[pyo3(signature = (r#fn, /, *args, **kwargs))]
pub(crate) fn go(
    py: Python<'_>,
    r#fn: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<Py<Goroutine>> {
    launch(py, r#fn, args, kwargs, None)
}

/// Starts a goroutine; it counts in `group` until its end.
pub(crate) fn launch(
    py: Python<'_>,
    function: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
    group: Option<Arc<WaitGroup>>,
) -> PyResult<Py<Goroutine>> {
    operation(py, "go", On::Anything)?;
    launch_in(py, goslings::bubble::current().as_ref(), function, args, kwargs, group)
}

/// The same, in this bubble or in none.
pub(crate) fn launch_in(
    py: Python<'_>,
    bubble: Option<&Arc<Bubble>>,
    function: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
    group: Option<Arc<WaitGroup>>,
) -> PyResult<Py<Goroutine>> {
    let (start, stackless) = prepared(py, function, args, kwargs)?;
    if let Some(group) = &group {
        group.add(1).map_err(|_| errors::misuse("negative WaitGroup counter"))?;
    }
    let handle = host::new_handle(py, Goroutine::new(start, stackless, group, host::caller(py, 0)))?;
    if let Err(error) = spawn(py, bubble, &handle, Task::reserve_id()) {
        if let Some(group) = &handle.get().group {
            let _ = group.done();
        }
        return Err(error);
    }
    Ok(handle)
}

fn no_thread() -> PyErr {
    PyRuntimeError::new_err("cannot start a goroutine: the system refuses a new thread")
}

fn spawn(py: Python<'_>, bubble: Option<&Arc<Bubble>>, handle: &Py<Goroutine>, id: u64) -> PyResult<()> {
    if let Some(bubble) = bubble {
        bubble::keep(py, bubble, handle, handle.get().function_name(py));
    }
    let (job, data) = host::job(handle.clone_ref(py), handle.get().stackless);
    let spawned = goslings::spawn_in(bubble, id, job, data, |task| handle.get().task.set(Arc::clone(task)));
    match spawned {
        Ok(()) => Ok(()),
        Err(_) => Err(no_thread()),
    }
}

/// Starts `fn(*args)` on the worker of that number, if it starts goroutines; else as `go`.
#[pyfunction]
#[pyo3(name = "_go_at", signature = (worker, r#fn, /, *args))]
pub(crate) fn go_at(
    py: Python<'_>,
    worker: usize,
    r#fn: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
) -> PyResult<Py<Goroutine>> {
    operation(py, "go", On::Anything)?;
    if goslings::bubble::current().is_some() {
        return launch_in(py, goslings::bubble::current().as_ref(), r#fn, args, None, None);
    }
    let (start, stackless) = prepared(py, r#fn, args, None)?;
    let handle = host::new_handle(py, Goroutine::new(start, stackless, None, host::caller(py, 0)))?;
    let (job, data) = host::job(handle.clone_ref(py), stackless);
    let spawned = goslings::spawn_at(worker, Task::reserve_id(), job, data, |task| {
        handle.get().task.set(Arc::clone(task));
    });
    spawned.map_err(|_| no_thread())?;
    Ok(handle)
}

/// The numbers of the workers that start goroutines now, those that sleep first.
#[pyfunction]
#[pyo3(name = "_places")]
pub(crate) fn places() -> Vec<usize> {
    goslings::places()
}

/// The number of the worker that runs this; -1 on a plain thread.
#[pyfunction]
#[pyo3(name = "_place")]
pub(crate) fn place() -> isize {
    goslings::current_place().map_or(-1, usize::cast_signed)
}

/// Makes a goroutine that [`start_prepared`] starts later. It counts in `group` from now on until its end, of
/// which `watcher` is told first. The caller's caller counts as the one who starts it.
pub(crate) fn prepare(
    py: Python<'_>,
    group: Arc<WaitGroup>,
    watcher: Py<PyAny>,
    function: Bound<'_, PyAny>,
    args: Bound<'_, PyTuple>,
    kwargs: Option<Bound<'_, PyDict>>,
) -> PyResult<Py<Goroutine>> {
    let (start, stackless) = prepared(py, function, args, kwargs)?;
    let mut handle = Goroutine::new(start, stackless, None, host::caller(py, 1));
    let member = Some(Member { id: Task::reserve_id(), watcher });
    handle.extra = OnceArc::with(Arc::new(Extra { member, driver: OnceLock::new() }));
    handle.life.lock().set_unstarted();
    group.add(1).map_err(|_| errors::misuse("negative WaitGroup counter"))?;
    handle.group = Some(group);
    Py::new(py, handle)
}

/// Starts a goroutine that was prepared. False: it was cancelled meanwhile, or is started already.
pub(crate) fn start_prepared(py: Python<'_>, handle: &Bound<'_, Goroutine>) -> bool {
    let this = handle.get();
    let Some(member) = this.member() else { return false };
    if !this.life.lock().take_unstarted() {
        return false;
    }
    if let Err(error) = spawn(py, goslings::bubble::current().as_ref(), handle.as_unbound(), member.id) {
        // SAFETY: nobody else starts it now, or ends it.
        let start = unsafe { this.life.turn(Phase::Nothing) };
        drop(start);
        this.finish(py, handle, End::Raised(error.into_value(py), None));
    }
    true
}

/// Makes a handle for the goroutine that this code runs in, which has none, and runs `function` in it.
pub(crate) fn run_here(py: Python<'_>, function: Py<PyAny>) -> PyResult<()> {
    let name = goslings::bubble::any().then(|| bubble::name_of(function.bind(py))).flatten();
    let start = Start { function, args: PyTuple::empty(py).unbind(), kwargs: None, context: None };
    let handle = Bound::new(py, Goroutine::new(start, false, None, None))?;
    if let Some(task) = goslings::current() {
        host::adopt(&task, &handle);
        if let Some(bubble) = goslings::bubble::current() {
            bubble::keep(py, &bubble, &handle.clone().unbind(), name);
        }
        handle.get().task.set(task);
    }
    run(py, &handle);
    host::disown();
    Ok(())
}

/// Runs the goroutine of `handle`, on its own stack.
pub(crate) fn run(py: Python<'_>, handle: &Bound<'_, Goroutine>) {
    let this = handle.get();
    let call = {
        let life = this.life.lock();
        let start = life.start().filter(|_| !life.is_cancel_requested());
        start.map(|start| {
            host::lend(&start.function, &start.args, start.kwargs.as_ref(), start.context.as_ref())
        })
    };
    let end = match call {
        // The handle keeps what was lent until the call is over.
        Some(call) => this.call(py, call),
        None => End::Cancelled(Kept::new(this.take_cancel_message())),
    };
    // SAFETY: this is where it runs.
    let start = unsafe { this.life.turn(Phase::Nothing) };
    drop(start);
    host::end_own_locals(py);
    this.finish(py, handle, end);
}

/// The next step of the goroutine of `handle`, which has no stack; true if it was the last.
pub(crate) fn step(py: Python<'_>, handle: &Bound<'_, Goroutine>) -> bool {
    let this = handle.get();
    // SAFETY: this is where it runs; the next phase comes after the last step.
    let coroutine = unsafe { this.life.coroutine() };
    let end = match coroutine.map_or_else(|| this.begin(py), Ok) {
        Ok(coroutine) => match coroutine.step(py) {
            None => return false,
            Some(result) => this.end_of(py, result),
        },
        Err(end) => end,
    };
    this.finish(py, handle, end);
    true
}

/// There was no memory for a stack.
pub(crate) fn no_stack(py: Python<'_>, handle: &Bound<'_, Goroutine>) {
    let this = handle.get();
    // SAFETY: this is where it would run.
    let start = unsafe { this.life.turn(Phase::Nothing) };
    drop(start);
    let error = pyo3::exceptions::PyMemoryError::new_err(format!(
        "no memory for a goroutine's stack ({} KiB of address space; see GOSLINGS_STACK_KB)",
        goslings::slot_size() / 1024
    ));
    this.finish(py, handle, End::Raised(error.into_value(py), None));
}

impl Goroutine {
    fn new(
        start: Start,
        stackless: bool,
        group: Option<Arc<WaitGroup>>,
        place: Option<(Py<PyAny>, i32)>,
    ) -> Goroutine {
        let (code, offset) = place.map_or((None, 0), |(code, offset)| (Some(code), offset));
        Goroutine {
            task: OnceArc::empty(),
            life: Life::new(start),
            finished: OnceArc::empty(),
            group,
            extra: OnceArc::empty(),
            creator: goslings::with_current(|task| task.map_or(0, Task::id)),
            code,
            offset,
            stackless,
            read: AtomicBool::new(false),
        }
    }

    /// The coroutine of one without a stack that has begun: borrowed. The world stands still.
    pub(crate) fn coroutine(&self) -> Option<*mut pyo3::ffi::PyObject> {
        let life = self.life.try_lock()?;
        match life.phase() {
            Phase::Coroutine(coroutine) => Some(coroutine.as_ptr()),
            _ => None,
        }
    }

    /// How it waits for a coroutine that it drives on its stack.
    pub(crate) fn driver(&self) -> Option<&Driver> {
        self.extra.get()?.driver.get()
    }

    fn member(&self) -> Option<&Member> {
        self.extra.get()?.member.as_ref()
    }

    fn call(&self, py: Python<'_>, call: host::Lent) -> End {
        // A plain function that returns a coroutine: it runs here, on this stack.
        let result = call.call(py).and_then(|value| match host::is_coroutine(&value) {
            true => coroutine::drive(&value, &self.extra.get_or_make(|| Arc::new(Extra::default())).driver),
            false => Ok(value.unbind()),
        });
        self.end_of(py, result)
    }

    /// Calls the `async def` function: that only makes its coroutine.
    fn begin(&self, py: Python<'_>) -> Result<&Coroutine, End> {
        let cancelled = self.life.lock().is_cancel_requested();
        // SAFETY: this is where it runs.
        let start = unsafe { self.life.turn(Phase::Nothing) };
        let Phase::Start(start) = start else { unreachable!("it has not begun") };
        if cancelled {
            return Err(End::Cancelled(Kept::new(self.take_cancel_message())));
        }
        let kwargs = start.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
        let context = host::Context::new(start.context);
        let made = context.enter(py, || host::call(start.function.bind(py), start.args.bind(py), kwargs));
        match made {
            Ok(made) if host::is_coroutine(&made) => {
                // SAFETY: this is where it runs, and nothing was there.
                drop(unsafe { self.life.turn(Phase::Coroutine(Coroutine::new(made.unbind(), context))) });
                // SAFETY: as above; the next phase comes after the last step.
                unsafe { self.life.coroutine() }.ok_or_else(|| unreachable!("just put there"))
            }
            made => Err(self.end_of(py, made.map(Bound::unbind))),
        }
    }

    /// How a goroutine has ended whose function answers this.
    fn end_of(&self, py: Python<'_>, result: PyResult<Py<PyAny>>) -> End {
        match result {
            Ok(value) => End::Returned(Kept::new(Some(value))),
            Err(error) if error.is_instance_of::<GoExit>(py) => End::Returned(Kept::new(None)),
            Err(error) if error.is_instance_of::<Cancelled>(py) && self.life.lock().is_cancel_requested() => {
                End::Cancelled(Kept::new(self.take_cancel_message()))
            }
            Err(error) => {
                let traceback = error.traceback(py);
                let value = error.into_value(py);
                if let Some(traceback) = &traceback {
                    let _ = value.bind(py).setattr("__traceback__", traceback);
                }
                End::Raised(value, traceback.map(Bound::unbind))
            }
        }
    }

    fn finish(&self, py: Python<'_>, handle: &Bound<'_, Goroutine>, end: End) {
        let failed = matches!(end, End::Raised(..));
        // SAFETY: its runner calls this, once.
        let (before, callbacks) = unsafe { self.life.finish(end) };
        drop(before);
        if failed && !host::is_only_reference(handle) {
            // Before anybody hears of the end: the program may be over as soon as they do.
            FAILED.add(py, handle);
        }
        if let Some(member) = self.member() {
            call_back(py, member.watcher.bind(py), handle);
        }
        // Ordering: SeqCst fence, pairs with the one in `finished`: either we see the channel and close it,
        // or whoever makes it sees the end.
        fence(Ordering::SeqCst);
        if let Some(finished) = self.finished.get() {
            let _ = finished.close();
        }
        if self.group.as_ref().is_some_and(|group| group.done().is_err()) {
            let error = errors::misuse("negative WaitGroup counter").into_value(py);
            report(py, error, self.label(py), self.started_at(py));
        }
        for callback in callbacks {
            call_back(py, callback.bind(py), handle);
        }
        if failed && host::is_only_reference(handle) {
            // Not left to the destructor: free-threaded builds leave that to the thread that called `go`, which
            // may wait for ever for what this goroutine was to do.
            self.report_unread(py);
        }
    }

    /// Tells `goslings.excepthook` of the failure, unless somebody has read it.
    fn report_unread(&self, py: Python<'_>) {
        let Some(End::Raised(error, _)) = self.life.end() else { return };
        // Ordering: Relaxed. Decides who reports; the failure itself comes with `end`.
        if !self.read.swap(true, Ordering::Relaxed) {
            report(py, error.clone_ref(py), self.label(py), self.started_at(py));
        }
    }

    /// The channel that is closed at the end.
    fn finished(&self) -> &Channel {
        let finished = self.finished.get_or_make(|| {
            let (id, bubble) = self.task.get().map_or((0, 0), |task| (task.id(), task.bubble_id()));
            Arc::new(Channel::for_end(id, bubble))
        });
        // Ordering: SeqCst fence, pairs with the one in `finish`.
        fence(Ordering::SeqCst);
        if self.life.has_ended() {
            // Both may close it: one of them is first.
            let _ = finished.close();
        }
        finished
    }

    /// The same, to keep.
    fn share_finished(&self) -> Arc<Channel> {
        self.finished();
        self.finished.share().expect("just made")
    }

    /// What its function is called, as long as it has not begun.
    fn function_name(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let function = self.life.lock().start().map(|start| start.function.clone_ref(py));
        bubble::name_of(function?.bind(py))
    }

    /// Its number in its bubble.
    pub(crate) fn bubble_number(&self) -> Option<u32> {
        self.task.get()?.bubble_number()
    }

    /// How it failed, if nobody has read that yet; now somebody has.
    pub(crate) fn take_unread(&self, py: Python<'_>) -> Option<Py<PyBaseException>> {
        let Some(End::Raised(error, _)) = self.life.end() else { return None };
        // Ordering: Relaxed. As in `report_unread`.
        (!self.read.swap(true, Ordering::Relaxed)).then(|| error.clone_ref(py))
    }

    /// The number of its bubble; 0: none.
    fn bubble_id(&self) -> u32 {
        self.task.get().map_or(0, |task| task.bubble_id())
    }

    /// Waits for the end; false if the time was up first.
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        operation(py, "Goroutine.result", On::Shared(self.bubble_id()))?;
        let wait = wait(timeout)?;
        if self.life.has_ended() {
            return Ok(true);
        }
        host::may_block(py, "goroutine, or goroutine.ajoin()")?;
        match self.finished().recv(wait) {
            Err(RecvError::Closed) => Ok(true),
            Err(RecvError::TimedOut) => Ok(false),
            Err(error) => Err(errors::recv(py, error)),
            Ok(_) => unreachable!("nobody sends on it"),
        }
    }

    fn take_cancel_message(&self) -> Option<Py<PyAny>> {
        self.life.lock().rare_if_any()?.cancel_message.take()
    }

    fn mark_read(&self) {
        // Ordering: Relaxed. Read again by the destructor, which comes after every use of the handle.
        self.read.store(true, Ordering::Relaxed);
    }

    /// The end, once it is there.
    fn outcome(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<&End> {
        if !self.wait(py, timeout)? {
            return Err(errors::timed_out("waiting for the goroutine"));
        }
        self.mark_read();
        Ok(self.life.end().expect("set before the channel is closed"))
    }

    /// The goroutine, if it has not ended and belongs to this process.
    pub(crate) fn alive(&self) -> Option<&Task> {
        self.task.get().filter(|task| !self.life.has_ended() && !task.is_ghost())
    }

    /// Where the WaitGroup is that is told of its end.
    pub(crate) fn group_address(&self) -> Option<usize> {
        self.group.as_ref().map(|group| Arc::as_ptr(group).expose_provenance())
    }

    /// Shows what a call of a Python function refers to beside what its handle and its frame do: it copies all its
    /// arguments, if some have names.
    pub(crate) fn visit_copies(&self, mut visit: impl FnMut(*mut pyo3::ffi::PyObject)) {
        let Some(life) = self.life.try_lock() else { return };
        let Some(start) = life.start() else { return };
        if let Some(kwargs) = &start.kwargs {
            host::visit_call_copies(
                start.function.as_ptr(),
                start.args.as_ptr(),
                kwargs.as_ptr(),
                &mut visit,
            );
        }
    }

    /// The number of the goroutine that started it; 0 if that was a thread.
    pub(crate) fn creator(&self) -> u64 {
        self.creator
    }

    /// Where it was started: a code object and a line.
    pub(crate) fn place(&self, py: Python<'_>) -> Option<(Py<PyAny>, i32)> {
        let code = self.code.as_ref()?;
        Some((code.clone_ref(py), host::line(code.bind(py), self.offset)))
    }

    /// Waits for the end when awaited, and answers what `answer` says then.
    fn awaiting(
        slf: Bound<'_, Self>,
        timeout: Option<&Bound<'_, PyAny>>,
        answer: fn(&Bound<'_, Goroutine>) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Awaitable> {
        let finished = slf.get().share_finished();
        let on = On::Shared(slf.get().bubble_id());
        let (handle, wait) = (slf.unbind(), wait(timeout)?);
        Ok(Awaitable::keeping(
            move |caller| goslings::polled::recv(finished, wait, caller),
            handle,
            move |handle, py, ended| match ended {
                Err(RecvError::Closed) | Ok(_) => answer(handle.bind(py)),
                Err(RecvError::TimedOut) => Err(errors::timed_out("waiting for the goroutine")),
                Err(error) => Err(errors::recv(py, error)),
            },
            |_handle, ended| undo_nothing(ended),
        )
        .about("await Goroutine", on))
    }

    pub(crate) fn label(&self, py: Python<'_>) -> String {
        let name = self.life.lock().rare_if_any().and_then(|rare| Some(rare.name.as_ref()?.clone_ref(py)));
        if let Some(name) = name {
            return name.bind(py).to_string();
        }
        format!("goroutine-{}", self.number())
    }

    fn number(&self) -> u64 {
        match (self.task.get(), self.member()) {
            (Some(task), _) => task.id(),
            (None, Some(member)) => member.id,
            (None, None) => 0,
        }
    }

    /// What it raised, without that counting as reading it.
    pub(crate) fn failure(&self, py: Python<'_>) -> Option<Py<PyBaseException>> {
        match self.life.end()? {
            End::Raised(error, _) => Some(error.clone_ref(py)),
            End::Returned(_) | End::Cancelled(_) => None,
        }
    }

    /// "file:line" of the `go` that started it.
    fn started_at(&self, py: Python<'_>) -> Option<String> {
        let code = self.code.as_ref()?;
        let line = host::line(code.bind(py), self.offset);
        let file = code.bind(py).getattr("co_filename").ok()?;
        Some(format!("{file}:{line}"))
    }
}

fn cancelled_error(message: Option<Py<PyAny>>) -> PyErr {
    match message {
        Some(message) => CancelledError::new_err((message,)),
        None => CancelledError::new_err(()),
    }
}

fn call_back(py: Python<'_>, callback: &Bound<'_, PyAny>, handle: &Bound<'_, Goroutine>) {
    let called = PyTuple::new(py, [handle]).and_then(|args| host::call(callback, &args, None));
    if let Err(error) = called {
        report(py, error.into_value(py), "a done callback".into(), None);
    }
}

/// Tells `goslings.excepthook` of an exception that nobody will see.
fn report(py: Python<'_>, error: Py<PyBaseException>, name: String, place: Option<String>) {
    let told = host::imported(py, c"goslings._hooks")
        .and_then(|hooks| hooks.call_method1("report", (error.clone_ref(py), name, place)));
    if let Err(failed) = told {
        failed.write_unraisable(py, None);
        PyErr::from_value(error.into_bound(py).into_any()).write_unraisable(py, None);
    }
}

impl Drop for Goroutine {
    fn drop(&mut self) {
        if self.life.lock().take_unstarted()
            && let Some(group) = &self.group
        {
            // Nobody can start it any more.
            let _ = group.done();
        }
        if !*self.read.get_mut() && matches!(self.life.end(), Some(End::Raised(..))) {
            host::attached(|py| self.report_unread(py));
        }
    }
}

/// A reference to `handle` is about to go away: if it is the last, nobody will read how the goroutine failed.
pub(crate) fn forget(handle: &Bound<'_, Goroutine>) {
    if host::is_only_reference(handle) {
        handle.get().report_unread(handle.py());
    }
}

/// The collector is about to break up a cycle that `handle` is part of: its exception is still whole.
pub(crate) fn finalize(handle: &Bound<'_, Goroutine>) {
    handle.get().report_unread(handle.py());
}

/// Goroutines that failed while somebody could still look: for the end of the program.
struct Failed {
    handles: FailedLock,
}

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a move")]
type FailedLock = std::sync::Mutex<Vec<Py<PyWeakrefReference>>>;

static FAILED: Failed = Failed { handles: FailedLock::new(Vec::new()) };

impl Failed {
    /// As many are kept before it is looked which of them are gone.
    const MANY: usize = 64;

    fn take(&self) -> Vec<Py<PyWeakrefReference>> {
        std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, py: Python<'_>, handle: &Bound<'_, Goroutine>) {
        // No memory for it: then it is reported when the handle goes away, if not at the end.
        let Ok(handle) = PyWeakrefReference::new(handle) else { return };
        let mut handles = self.take();
        if handles.len() >= Failed::MANY && handles.len().is_power_of_two() {
            handles.retain(|handle| handle.bind(py).upgrade().is_some());
        }
        handles.push(handle.unbind());
        let mut here = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        here.append(&mut handles);
    }
}

/// Reports the failures that nobody has read; called when the program ends.
pub(crate) fn report_all_unread(py: Python<'_>) {
    for handle in FAILED.take() {
        let handle = handle.bind(py).upgrade();
        if let Some(Ok(handle)) = handle.as_ref().map(|handle| handle.cast::<Goroutine>()) {
            handle.get().report_unread(py);
        }
    }
}

/// In a forked child: the parent's failures are the parent's.
pub(crate) fn forget_failed() {
    drop(FAILED.take());
}

#[pymethods]
impl Goroutine {
    /// Waits for the end and returns the value, or raises what the goroutine raised.
    ///
    /// Blocks at most `timeout` seconds. Raises TimeoutError after that, and
    /// concurrent.futures.CancelledError if the goroutine was cancelled.
    #[pyo3(signature = (timeout = None))]
    fn result(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        match self.outcome(py, timeout)? {
            End::Returned(value) => Ok(value.get(py).unwrap_or_else(|| py.None())),
            End::Raised(error, traceback) => {
                let error = error.bind(py);
                error.setattr("__traceback__", traceback)?;
                Err(PyErr::from_value(error.clone().into_any()))
            }
            End::Cancelled(message) => Err(cancelled_error(message.get(py))),
        }
    }

    /// Waits for the end and returns what the goroutine raised, or None.
    ///
    /// Blocks and raises as `result`.
    #[pyo3(signature = (timeout = None))]
    fn exception(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Py<PyBaseException>>> {
        match self.outcome(py, timeout)? {
            End::Returned(_) => Ok(None),
            End::Raised(error, _) => Ok(Some(error.clone_ref(py))),
            End::Cancelled(message) => Err(cancelled_error(message.get(py))),
        }
    }

    /// Waits for the end, however it comes; returns whether it came within `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn join(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        self.wait(py, timeout)
    }

    fn __await__(slf: Bound<'_, Self>) -> Awaitable {
        Goroutine::aresult(slf, None).expect("without a timeout nothing can be wrong with it")
    }

    /// aresult(timeout=None): as `result`, awaited. `await goroutine` is the same without a timeout.
    ///
    /// For async goroutines and asyncio tasks. Cancelling the task that awaits does not cancel the goroutine.
    #[pyo3(signature = (timeout = None))]
    fn aresult(slf: Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Goroutine::awaiting(slf, timeout, |handle| handle.get().result(handle.py(), None))
    }

    /// aexception(timeout=None): as `exception`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn aexception(slf: Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Goroutine::awaiting(slf, timeout, |handle| {
            let error = handle.get().exception(handle.py(), None)?;
            Ok(error.map_or_else(|| handle.py().None(), Py::into_any))
        })
    }

    /// ajoin(timeout=None): as `join`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn ajoin(slf: Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let finished = slf.get().share_finished();
        let wait = wait(timeout)?;
        Ok(Awaitable::call(
            move |caller| goslings::polled::recv(finished, wait, caller),
            |py, answer| match answer {
                Err(RecvError::TimedOut) => {
                    Ok(pyo3::types::PyBool::new(py, false).to_owned().into_any().unbind())
                }
                Err(RecvError::Closed) | Ok(_) => {
                    Ok(pyo3::types::PyBool::new(py, true).to_owned().into_any().unbind())
                }
                Err(error) => Err(errors::recv(py, error)),
            },
            undo_nothing,
        )
        .about("Goroutine.ajoin", On::Shared(slf.get().bubble_id())))
    }

    /// Whether it has ended. Never blocks.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "Goroutine.done", On::Anything)?;
        Ok(self.life.has_ended())
    }

    /// Whether it has ended by being cancelled. Never blocks.
    fn cancelled(&self) -> bool {
        matches!(self.life.end(), Some(End::Cancelled(_)))
    }

    /// Asks the goroutine to stop: `Cancelled` is raised in it where it waits, or where it waits next.
    ///
    /// One that has not started will not run. Returns False if it has ended already. Never blocks.
    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        operation(slf.py(), "Goroutine.cancel", On::Anything)?;
        let this = slf.get();
        if this.life.has_ended() {
            return Ok(false);
        }
        let (old, unstarted) = {
            let mut life = this.life.lock();
            life.request_cancel();
            let old = match msg {
                Some(msg) => life.rare().cancel_message.replace(msg),
                None => life.rare_if_any().and_then(|rare| rare.cancel_message.take()),
            };
            (old, life.take_unstarted())
        };
        drop(old);
        if unstarted {
            // Nobody will start it: this is its end.
            // SAFETY: as was just said.
            let start = unsafe { this.life.turn(Phase::Nothing) };
            drop(start);
            this.finish(slf.py(), slf, End::Cancelled(Kept::new(this.take_cancel_message())));
        } else if let Some(task) = this.task.get() {
            task.cancel();
        }
        Ok(true)
    }

    /// Calls `fn(goroutine)` when it has ended, on its worker; at once if it has ended already.
    ///
    /// What `fn` raises goes to `goslings.excepthook`.
    fn add_done_callback(slf: &Bound<'_, Self>, r#fn: Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        if !r#fn.is_callable() {
            return Err(PyTypeError::new_err("add_done_callback needs a callable"));
        }
        {
            // `finish` sets the end and takes the callbacks in one step: either it will find this one, or we see
            // the end.
            let mut life = this.life.lock();
            if !this.life.has_ended() {
                life.rare().callbacks.push(r#fn.unbind());
                return Ok(());
            }
        }
        call_back(slf.py(), &r#fn, slf);
        Ok(())
    }

    /// Its number: counted from 1, never used again in this process.
    #[getter]
    fn id(&self) -> u64 {
        self.number()
    }

    /// Its name in dumps and reports; "goroutine-<id>" unless set.
    #[getter]
    fn name(&self, py: Python<'_>) -> String {
        self.label(py)
    }

    #[setter]
    fn set_name(&self, name: Bound<'_, PyString>) {
        let old = self.life.lock().rare().name.replace(name.unbind());
        drop(old);
    }

    /// A receive-only channel that is closed when the goroutine has ended: for `select`.
    #[getter(finished)]
    fn finished_view(&self) -> RecvChan {
        RecvChan { channel: self.share_finished(), of: None, timer: None }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Goroutine"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        self.__copy__()
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Goroutine"))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let state = match (self.life.end(), self.task.get()) {
            (Some(End::Returned(_)), _) => "done",
            (Some(End::Raised(..)), _) => "failed",
            (Some(End::Cancelled(_)), _) => "cancelled",
            (None, Some(task)) if task.has_started() => task.reason().text(),
            _ => "not started",
        };
        format!("<Goroutine {} ({state})>", self.label(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(member) = self.member() {
            visit.call(&member.watcher)?;
        }
        self.life.visit(&visit)
    }

    fn __clear__(&self) {
        self.life.clear();
    }
}

/// The message given to the `cancel` of the running goroutine.
pub(crate) fn cancel_message(py: Python<'_>) -> Option<Py<PyAny>> {
    let handle = host::current_handle(py)?;
    let mut life = handle.get().life.lock();
    life.rare_if_any()?.cancel_message.as_ref().map(|message| message.clone_ref(py))
}

/// The running goroutine; None on a plain thread.
#[pyfunction]
pub(crate) fn current(py: Python<'_>) -> Option<Bound<'_, Goroutine>> {
    host::current_handle(py)
}

/// Lets others run: the goroutine goes on after those that are ready on its worker. A cancel point.
///
/// Raises RuntimeError in an async goroutine, which gives way by `await agosched()` only.
#[pyfunction]
pub(crate) fn gosched(py: Python<'_>) -> PyResult<()> {
    if goslings::with_current(|task| task.is_some_and(Task::is_stackless)) {
        return Err(errors::misuse(
            "gosched() cannot let others run in an async goroutine: use `await agosched()`",
        ));
    }
    operation(py, "gosched", On::Nothing)?;
    if goslings::with_current(|task| task.is_some_and(Task::take_cancel)) {
        return Err(errors::cancelled(py));
    }
    goslings::yield_now();
    Ok(())
}

/// Ends this goroutine, running its `finally` blocks; its result is None. Raises RuntimeError on a plain thread.
#[pyfunction]
pub(crate) fn goexit(py: Python<'_>) -> PyResult<()> {
    if host::current_handle(py).is_none() {
        return Err(PyRuntimeError::new_err("goexit outside a goroutine"));
    }
    Err(GoExit::new_err(()))
}

/// gomaxprocs(n=None): sets how many workers take new goroutines and returns the number before.
///
/// None or less than 1 only reads. At most 256. Goroutines that have started stay on their worker.
#[pyfunction]
#[pyo3(signature = (n = None))]
pub(crate) fn gomaxprocs(n: Option<i64>) -> PyResult<usize> {
    match n {
        Some(n) if n > 0 => {
            let procs = usize::try_from(n).unwrap_or(usize::MAX);
            if procs > goslings::PROCS_MAX {
                let most = goslings::PROCS_MAX;
                return Err(PyValueError::new_err(format!("gomaxprocs takes at most {most}")));
            }
            Ok(goslings::set_procs(procs))
        }
        _ => Ok(goslings::procs()),
    }
}

/// The number of workers before anything is started; for `goslings` itself.
#[pyfunction]
#[pyo3(name = "_start_default")]
pub(crate) fn start_default(procs: usize) {
    goslings::set_default_procs(procs);
}

/// From now on no goroutine starts on this one's thread, until it has called `unlock_os_thread` as often, or ends.
///
/// For foreign code that depends on its thread. A goroutine never changes threads once it has started; those that have
/// started on the same one before go on there while this one waits (unlike in Go, they cannot move). On a plain thread
/// and in an async goroutine it does nothing. Never blocks. Go: `runtime.LockOSThread`.
#[pyfunction]
pub(crate) fn lock_os_thread() {
    goslings::lock_os_thread();
}

/// Undoes one `lock_os_thread` of this goroutine; does nothing if there is none left. Never blocks.
#[pyfunction]
pub(crate) fn unlock_os_thread() {
    goslings::unlock_os_thread();
}

/// How long a goroutine may have its worker while others wait, in milliseconds; 0: no matter how long.
#[pyfunction]
#[pyo3(name = "_set_slice_ms")]
pub(crate) fn set_slice_ms(ms: u64) {
    goslings::set_slice(ms.saturating_mul(1_000_000));
}

/// After how many milliseconds a goroutine that holds others up is warned of; 0: never.
#[pyfunction]
#[pyo3(name = "_set_warn_ms")]
pub(crate) fn set_warn_ms(ms: u64) {
    goslings::set_warn_held(ms.saturating_mul(1_000_000));
}

/// The goroutines that have held their workers for longer than a slice: pairs of a number and of seconds.
#[pyfunction]
#[pyo3(name = "_held")]
pub(crate) fn held() -> Vec<(u64, f64)> {
    goslings::held().into_iter().map(|hold| (hold.goroutine, hold.held_ns as f64 / 1e9)).collect()
}

/// How many goroutines exist: running, ready, parked or not started yet.
#[pyfunction]
pub(crate) fn num_goroutine() -> u64 {
    goslings::stats().goroutines
}

/// The runtime's counters, as a dict.
#[pyfunction]
#[pyo3(name = "_stats")]
pub(crate) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let stats = goslings::stats();
    let dict = PyDict::new(py);
    dict.set_item("procs", stats.procs)?;
    dict.set_item("workers", stats.workers)?;
    dict.set_item("spares", stats.workers.saturating_sub(stats.procs))?;
    dict.set_item("goroutines", stats.goroutines)?;
    dict.set_item("spawned", stats.spawned)?;
    dict.set_item("started", stats.started)?;
    dict.set_item("finished", stats.finished)?;
    dict.set_item("switches", stats.switches)?;
    dict.set_item("stolen", stats.stolen)?;
    dict.set_item("sleeps", stats.sleeps)?;
    dict.set_item("preemptions", stats.preemptions)?;
    dict.set_item("held", stats.held)?;
    dict.set_item("longest_hold", stats.longest_hold_ns as f64 / 1e9)?;
    dict.set_item("timers", stats.timers)?;
    dict.set_item("stacks", stats.stacks)?;
    Ok(dict)
}

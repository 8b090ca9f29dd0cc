//! The calls that programs make most, without the parsing of arguments and the guards that PyO3 puts around each.
//!
//! PyO3 makes the classes. At import the functions of a few of their methods and slots are replaced by those here, which
//! serve the usual form of a call (values by position, no timeout) on a worker's thread, and leave every other call to
//! the functions that PyO3 made.
//!
//! **Invariants**
//! * On a worker's thread PyO3 counts the thread as attached all the time (`Host::worker`), so references are dropped at
//!   once, here as in its own functions. Elsewhere it would put the drops off: so elsewhere its own functions are called.
//! * A panic does not leave these functions: [`Whole`] ends the process.

use crate::awaitable::{Awaitable, Form};
use crate::chan::{self, PyChan, RecvChan, SendChan};
use crate::goroutine::{self, Goroutine};
use crate::host;
use crate::mutex::PyMutex;
use crate::stm::{self, Given};
use crate::stream::Foreign;
use crate::value::Channel;
use crate::waitgroup::WaitGroup;
use goslings::Wait;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, PyCFunctionFastWithKeywords, PyObject};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyClass, PyTypeInfo};
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// Ends the process if it is dropped, which only a panic does.
struct Whole;

impl Drop for Whole {
    fn drop(&mut self) {
        host::fatal("a call panicked");
    }
}

/// The functions that PyO3 made for one class.
struct Usual {
    send: OnceLock<PyCFunctionFastWithKeywords>,
    recv: OnceLock<PyCFunctionFastWithKeywords>,
    asend: OnceLock<PyCFunctionFastWithKeywords>,
    arecv: OnceLock<PyCFunctionFastWithKeywords>,
    next: OnceLock<ffi::iternextfunc>,
    anext: OnceLock<ffi::unaryfunc>,
}

impl Usual {
    const fn new() -> Usual {
        Usual {
            send: OnceLock::new(),
            recv: OnceLock::new(),
            asend: OnceLock::new(),
            arecv: OnceLock::new(),
            next: OnceLock::new(),
            anext: OnceLock::new(),
        }
    }
}

/// A class with a channel.
pub(crate) trait HasChannel: PyClass<Frozen = True> + Sync {
    /// It never changes.
    fn channel(&self) -> &Arc<Channel>;

    /// Whether something else must live as long as somebody may receive.
    fn keeps_more(&self) -> bool {
        false
    }
}

/// What is remembered for each class that has a channel.
trait Replaced: HasChannel {
    fn usual() -> &'static Usual;
}

macro_rules! replaced {
    ($($class:ty),*) => { $(
        impl Replaced for $class {
            fn usual() -> &'static Usual {
                static USUAL: Usual = Usual::new();
                &USUAL
            }
        }
    )* };
}

replaced!(PyChan, SendChan, RecvChan);

/// A channel, kept alive by the object that has it.
pub(crate) struct ChannelOf {
    channel: NonNull<Channel>,
    owner: Py<PyAny>,
}

// SAFETY: a Channel may be used from any thread; the reference is one, too.
unsafe impl Send for ChannelOf {}

impl ChannelOf {
    #[inline]
    pub(crate) fn new<C: HasChannel>(owner: &Bound<'_, C>) -> ChannelOf {
        ChannelOf {
            // By way of the Arc: `share` counts with it.
            channel: NonNull::new(Arc::as_ptr(owner.get().channel()).cast_mut())
                .expect("an Arc is somewhere"),
            owner: owner.clone().into_any().unbind(),
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> &Channel {
        // SAFETY: the owner is kept, and its channel never changes (`HasChannel`).
        unsafe { self.channel.as_ref() }
    }

    /// The object that has it, borrowed.
    pub(crate) fn owner(&self) -> *mut PyObject {
        self.owner.as_ptr()
    }

    /// The same, for longer.
    pub(crate) fn share(&self) -> Arc<Channel> {
        let channel = self.channel.as_ptr().cast_const();
        // SAFETY: it is in an Arc, which the owner has.
        unsafe { Arc::increment_strong_count(channel) };
        // SAFETY: the count was just taken for this Arc.
        unsafe { Arc::from_raw(channel) }
    }
}

/// Answers a call: a new reference, or null with an exception set.
#[inline(always)]
fn answer<'py>(py: Python<'py>, call: impl FnOnce() -> PyResult<*mut PyObject>) -> *mut PyObject {
    let whole = Whole;
    let answer = match call() {
        Ok(answer) => answer,
        Err(error) => {
            error.restore(py);
            std::ptr::null_mut()
        }
    };
    std::mem::forget(whole);
    answer
}

/// # Safety
/// `object` is a live object of class `C`, and the thread attached.
#[inline(always)]
unsafe fn this<'py, C: HasChannel>(object: *mut PyObject) -> Borrowed<'static, 'py, C> {
    // SAFETY: by the contract; the caller of a slot or a method keeps it alive through the call.
    unsafe { Borrowed::from_ptr(Python::assume_attached(), object).cast_unchecked() }
}

unsafe extern "C" fn send<C: Replaced>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 1 || !names.is_null() || !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().send)(object, args, count, names) };
    }
    // SAFETY: a method is called attached, with an object of its class, and as many arguments as said.
    let (this, value) = unsafe { (this::<C>(object), Borrowed::from_ptr(Python::assume_attached(), *args)) };
    let py = this.py();
    answer(py, || {
        chan::send_here(this.get().channel(), value.to_owned())?;
        Ok(py.None().into_ptr())
    })
}

unsafe extern "C" fn recv<C: Replaced>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 0 || !names.is_null() || !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().recv)(object, args, count, names) };
    }
    // SAFETY: as in `send`.
    let this = unsafe { this::<C>(object) };
    let py = this.py();
    answer(py, || chan::recv_here(this.get().channel(), py).map(Py::into_ptr))
}

unsafe extern "C" fn next<C: Replaced>(object: *mut PyObject) -> *mut PyObject {
    if !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().next)(object) };
    }
    // SAFETY: as in `send`.
    let this = unsafe { this::<C>(object) };
    let py = this.py();
    answer(py, || {
        let next = chan::next_here(this.get().channel(), py)?;
        Ok(next.map_or(std::ptr::null_mut(), Py::into_ptr))
    })
}

unsafe extern "C" fn asend<C: Replaced>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 1 || !names.is_null() || !host::is_worker() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().asend)(object, args, count, names) };
    }
    // SAFETY: as in `send`.
    let (this, value) = unsafe { (this::<C>(object), Borrowed::from_ptr(Python::assume_attached(), *args)) };
    answer(this.py(), || {
        Awaitable::sending(ChannelOf::new(&this), value.to_owned(), Wait::Forever).map(Py::into_ptr)
    })
}

unsafe extern "C" fn arecv<C: Replaced>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as in `send`.
    let this = unsafe { this::<C>(object) };
    if count != 0 || !names.is_null() || this.get().keeps_more() || !host::is_worker() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().arecv)(object, args, count, names) };
    }
    let py = this.py();
    answer(py, || {
        Awaitable::receiving(py, ChannelOf::new(&this), Form::Value, Wait::Forever).map(Py::into_ptr)
    })
}

unsafe extern "C" fn anext<C: Replaced>(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: as in `send`.
    let this = unsafe { this::<C>(object) };
    if this.get().keeps_more() || !host::is_worker() {
        // SAFETY: as this function was called.
        return unsafe { usual(&C::usual().anext)(object) };
    }
    let py = this.py();
    answer(py, || {
        Awaitable::receiving(py, ChannelOf::new(&this), Form::Next, Wait::Forever).map(Py::into_ptr)
    })
}

/// The function that PyO3 made for sending on a channel of another process.
static SEND_ELSEWHERE: OnceLock<PyCFunctionFastWithKeywords> = OnceLock::new();

unsafe extern "C" fn send_elsewhere(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 1 || !names.is_null() || !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&SEND_ELSEWHERE)(object, args, count, names) };
    }
    // SAFETY: a method is called attached, with an object of its class, and as many arguments as said; the caller keeps them.
    let (this, value) = unsafe {
        let py = Python::assume_attached();
        let this: Borrowed<'_, '_, Foreign> = Borrowed::from_ptr(py, object).cast_unchecked();
        (this, Borrowed::from_ptr(py, *args))
    };
    let py = this.py();
    answer(py, || {
        Foreign::send_here(&this, &value)?;
        Ok(py.None().into_ptr())
    })
}

/// The function that PyO3 made for receiving from a channel of another process.
static RECV_ELSEWHERE: OnceLock<PyCFunctionFastWithKeywords> = OnceLock::new();

unsafe extern "C" fn recv_elsewhere(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 0 || !names.is_null() || !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&RECV_ELSEWHERE)(object, args, count, names) };
    }
    // SAFETY: a method is called attached, with an object of its class; the caller keeps it.
    let this: Borrowed<'_, '_, Foreign> =
        unsafe { Borrowed::from_ptr(Python::assume_attached(), object).cast_unchecked() };
    answer(this.py(), || Foreign::recv_here(&this).map(Py::into_ptr))
}

/// The function that PyO3 made. It takes its arguments in a tuple, which counts a reference to each.
static ATOMICALLY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

unsafe extern "C" fn atomically(
    _module: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: a function is called attached.
    let py = unsafe { Python::assume_attached() };
    if count < 1 || !names.is_null() || !host::is_worker() {
        let usual = ATOMICALLY.get(py).expect("kept before it was replaced");
        // SAFETY: as this function was called.
        return unsafe { ffi::PyObject_Vectorcall(usual.as_ptr(), args, count.cast_unsigned(), names) };
    }
    // SAFETY: there are as many arguments as said, none of them null.
    let given =
        unsafe { std::slice::from_raw_parts(args.cast::<NonNull<PyObject>>(), count.cast_unsigned()) };
    let (function, args) = given.split_first().expect("at least one");
    // SAFETY: the caller keeps it through the call.
    let function = unsafe { Borrowed::from_ptr(py, function.as_ptr()) };
    answer(py, || stm::atomically_with(py, &function, Given::Positions(args)).map(Bound::into_ptr))
}

/// Puts another function in the place of one of the module, with its name and its text, and keeps the one that was there.
///
/// # Safety
/// `function` serves the function `name`.
unsafe fn replace_function(
    module: &Bound<'_, PyModule>,
    name: &str,
    function: PyCFunctionFastWithKeywords,
    kept: Option<&PyOnceLock<Py<PyAny>>>,
) -> PyResult<()> {
    let py = module.py();
    let made = module.getattr(name)?;
    let module_name = module.name()?;
    // SAFETY: a function of our module, whose description PyO3 has made for ever; so is the new one. A new reference
    // comes back, or null with an exception set.
    let other = unsafe {
        assert!(ffi::PyCFunction_CheckExact(made.as_ptr()) != 0, "a function of ours");
        let made = (*made.as_ptr().cast::<ffi::PyCFunctionObject>()).m_ml;
        let method = quick_definition(&*made, function);
        let other = ffi::PyCFunction_NewEx(method, module.as_ptr(), module_name.as_ptr());
        Bound::from_owned_ptr_or_err(py, other)?
    };
    if let Some(kept) = kept {
        let _ = kept.set(py, made.unbind());
    }
    module.setattr(name, other)
}

/// The functions that PyO3 made for `Mutex`.
struct UsualOfMutex {
    lock: OnceLock<PyCFunctionFastWithKeywords>,
    unlock: OnceLock<ffi::PyCFunction>,
    enter: OnceLock<ffi::PyCFunction>,
    exit: OnceLock<PyCFunctionFastWithKeywords>,
}

static MUTEX: UsualOfMutex = UsualOfMutex {
    lock: OnceLock::new(),
    unlock: OnceLock::new(),
    enter: OnceLock::new(),
    exit: OnceLock::new(),
};

/// # Safety
/// `object` is a live Mutex, and the thread attached.
#[inline(always)]
unsafe fn mutex<'py>(object: *mut PyObject) -> Borrowed<'static, 'py, PyMutex> {
    // SAFETY: by the contract; the caller of a method keeps it alive through the call.
    unsafe { Borrowed::from_ptr(Python::assume_attached(), object).cast_unchecked() }
}

unsafe extern "C" fn lock(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 0 || !names.is_null() || !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&MUTEX.lock)(object, args, count, names) };
    }
    // SAFETY: a method is called attached, with an object of its class.
    let this = unsafe { mutex(object) };
    answer(this.py(), || this.get().lock_here(this.py()).map(|()| this.py().None().into_ptr()))
}

unsafe extern "C" fn enter(object: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    if !host::may_block_here() {
        // SAFETY: as this function was called.
        return unsafe { usual(&MUTEX.enter)(object, nothing) };
    }
    // SAFETY: as in `lock`.
    let this = unsafe { mutex(object) };
    answer(this.py(), || this.get().lock_here(this.py()).map(|()| this.to_owned().into_ptr()))
}

unsafe extern "C" fn unlock(object: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    if !host::is_worker() {
        // SAFETY: as this function was called.
        return unsafe { usual(&MUTEX.unlock)(object, nothing) };
    }
    // SAFETY: as in `lock`.
    let this = unsafe { mutex(object) };
    answer(this.py(), || this.get().unlock_here(this.py()).map(|()| this.py().None().into_ptr()))
}

unsafe extern "C" fn exit(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    if count != 3 || !names.is_null() || !host::is_worker() {
        // SAFETY: as this function was called.
        return unsafe { usual(&MUTEX.exit)(object, args, count, names) };
    }
    // SAFETY: as in `lock`.
    let this = unsafe { mutex(object) };
    answer(this.py(), || this.get().unlock_here(this.py()).map(|()| this.py().None().into_ptr()))
}

#[inline]
fn usual<F: Copy>(function: &OnceLock<F>) -> F {
    *function.get().expect("kept before it was replaced")
}

/// The description that PyO3 has made of a method, for ever.
fn description<C: PyTypeInfo>(py: Python<'_>, name: &CStr) -> PyResult<*mut ffi::PyMethodDef> {
    let class = C::type_object_raw(py).cast();
    // SAFETY: attached; a new reference, or null with an exception set.
    let method =
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyObject_GetAttrString(class, name.as_ptr())) }?;
    // SAFETY: compares types.
    let is_method = unsafe { ffi::Py_IS_TYPE(method.as_ptr(), &raw mut ffi::PyMethodDescr_Type) } != 0;
    assert!(is_method, "a method of ours");
    // SAFETY: a method of a class of ours.
    Ok(unsafe { (*method.as_ptr().cast::<ffi::PyMethodDescrObject>()).d_method })
}

/// Replaces the function of a method, and keeps the one that it had.
///
/// # Safety
/// `function` serves the method `name` of `C`.
unsafe fn replace<C: PyTypeInfo>(
    py: Python<'_>,
    name: &CStr,
    function: PyCFunctionFastWithKeywords,
    kept: &OnceLock<PyCFunctionFastWithKeywords>,
) -> PyResult<()> {
    let made = description::<C>(py, name)?;
    // SAFETY: a method of ours that nobody calls yet. It takes its arguments in this way, or the flags would be others.
    unsafe {
        assert_eq!((*made).ml_flags, ffi::METH_FASTCALL | ffi::METH_KEYWORDS, "the form of a method");
        if kept.set((*made).ml_meth.PyCFunctionFastWithKeywords).is_ok() {
            (*made).ml_meth = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function };
        }
    }
    Ok(())
}

/// The same for a method without arguments.
///
/// # Safety
/// As [`replace`].
unsafe fn replace_bare<C: PyTypeInfo>(
    py: Python<'_>,
    name: &CStr,
    function: ffi::PyCFunction,
    kept: &OnceLock<ffi::PyCFunction>,
) -> PyResult<()> {
    let made = description::<C>(py, name)?;
    // SAFETY: as in `replace`.
    unsafe {
        assert_eq!((*made).ml_flags, ffi::METH_NOARGS, "the form of a method");
        if kept.set((*made).ml_meth.PyCFunction).is_ok() {
            (*made).ml_meth = ffi::PyMethodDefPointer { PyCFunction: function };
        }
    }
    Ok(())
}

fn install_senders<C: Replaced>(py: Python<'_>) -> PyResult<()> {
    let usual = C::usual();
    // SAFETY: the functions are of these methods.
    unsafe {
        replace::<C>(py, c"send", send::<C>, &usual.send)?;
        replace::<C>(py, c"asend", asend::<C>, &usual.asend)
    }
}

fn install_receivers<C: Replaced>(py: Python<'_>) -> PyResult<()> {
    let usual = C::usual();
    // SAFETY: the functions are of these methods.
    unsafe {
        replace::<C>(py, c"recv", recv::<C>, &usual.recv)?;
        replace::<C>(py, c"arecv", arecv::<C>, &usual.arecv)?;
    }
    let class = C::type_object_raw(py);
    // SAFETY: a heap type of ours with `__next__` and `__anext__`, so with these slots; nobody uses it yet.
    unsafe {
        let made = (*class).tp_iternext.expect("it has __next__");
        if usual.next.set(made).is_ok() {
            (*class).tp_iternext = Some(next::<C>);
        }
        let made = (*(*class).tp_as_async).am_anext.expect("it has __anext__");
        if usual.anext.set(made).is_ok() {
            (*(*class).tp_as_async).am_anext = Some(anext::<C>);
        }
    }
    Ok(())
}

fn install_mutex(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the functions are of these methods.
    unsafe {
        replace::<PyMutex>(py, c"lock", lock, &MUTEX.lock)?;
        replace_bare::<PyMutex>(py, c"unlock", unlock, &MUTEX.unlock)?;
        replace_bare::<PyMutex>(py, c"__enter__", enter, &MUTEX.enter)?;
        replace::<PyMutex>(py, c"__exit__", exit, &MUTEX.exit)
    }
}

/// A function, its arguments, and the named ones.
type Sorted<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>);

/// Makes what `go` needs of a call's arguments: the function, a tuple of the others, and a dict of the named ones.
///
/// # Safety
/// The arguments of a call, as the interpreter gives them.
#[inline]
unsafe fn sort<'py>(
    py: Python<'py>,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> PyResult<Sorted<'py>> {
    let Some(others) = count.checked_sub(1).filter(|&others| others >= 0) else {
        return Err(PyTypeError::new_err("go() missing 1 required positional argument: 'fn'"));
    };
    // SAFETY: there are `count` arguments, and then as many as there are names, all alive through the call; the tuple
    // is new, and its places take new references.
    unsafe {
        let function = Bound::from_borrowed_ptr(py, *args);
        let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(others))?;
        for place in 0..others {
            let argument = *args.offset(1 + place);
            ffi::Py_INCREF(argument);
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), place, argument);
        }
        let mut kwargs = None;
        if !names.is_null() && ffi::PyTuple_GET_SIZE(names) > 0 {
            let dict = PyDict::new(py);
            for place in 0..ffi::PyTuple_GET_SIZE(names) {
                let (name, value) = (ffi::PyTuple_GET_ITEM(names, place), *args.offset(count + place));
                dict.set_item(Borrowed::from_ptr(py, name), Borrowed::from_ptr(py, value))?;
            }
            kwargs = Some(dict);
        }
        Ok((function, tuple.cast_into_unchecked(), kwargs))
    }
}

/// Starts what the arguments say.
///
/// # Safety
/// As [`sort`], called attached.
#[inline(always)]
unsafe fn start(
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
    launch: impl FnOnce(
        Python<'_>,
        Bound<'_, PyAny>,
        Bound<'_, PyTuple>,
        Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<Goroutine>>,
) -> *mut PyObject {
    let begin = |py: Python<'_>| {
        answer(py, || {
            // SAFETY: by the contract.
            let (function, args, kwargs) = unsafe { sort(py, args, count, names) }?;
            launch(py, function, args, kwargs).map(Py::into_ptr)
        })
    };
    if host::is_worker() {
        // SAFETY: by the contract.
        begin(unsafe { Python::assume_attached() })
    } else {
        host::attached(begin)
    }
}

unsafe extern "C" fn go(
    _module: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as the interpreter calls functions.
    unsafe { start(args, count, names, |py, f, args, kwargs| goroutine::launch(py, f, args, kwargs, None)) }
}

unsafe extern "C" fn group_go(
    object: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as the interpreter calls methods, with an object of the class.
    unsafe {
        start(args, count, names, |py, f, args, kwargs| {
            let group = Borrowed::from_ptr(py, object).cast_unchecked::<WaitGroup>();
            goroutine::launch(py, f, args, kwargs, Some(group.get().counter()))
        })
    }
}

/// A description like the one that PyO3 has made, of a function that takes its arguments in the quick way. For ever.
fn quick_definition(
    made: &ffi::PyMethodDef,
    function: PyCFunctionFastWithKeywords,
) -> &'static mut ffi::PyMethodDef {
    Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: made.ml_name,
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: made.ml_doc,
    }))
}

/// Puts functions in the places of `go` and `WaitGroup.go` that get no tuple of all arguments.
fn install_go(py: Python<'_>, module: &Bound<'_, PyModule>) -> PyResult<()> {
    // SAFETY: the function is that one; it needs no other.
    unsafe { replace_function(module, "go", go, None) }?;
    let class = py.get_type::<WaitGroup>();
    let made = description::<WaitGroup>(py, c"go")?;
    // SAFETY: a method that PyO3 has made, whose description stays; the one that takes its place serves the same
    // arguments. Attached; a new reference, or null with an exception set.
    unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), quick_definition(&*made, group_go));
        class.setattr("go", Bound::from_owned_ptr_or_err(py, method)?)
    }
}

/// Replaces them all; at import.
pub(crate) fn install(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // SAFETY: the function is that one.
    unsafe { replace_function(module, "atomically", atomically, Some(&ATOMICALLY)) }?;
    // SAFETY: the function is of this method.
    unsafe { replace::<Foreign>(py, c"_send", send_elsewhere, &SEND_ELSEWHERE) }?;
    // SAFETY: the function is of this method.
    unsafe { replace::<Foreign>(py, c"_recv", recv_elsewhere, &RECV_ELSEWHERE) }?;
    install_senders::<PyChan>(py)?;
    install_senders::<SendChan>(py)?;
    install_receivers::<PyChan>(py)?;
    install_receivers::<RecvChan>(py)?;
    install_mutex(py)?;
    install_go(py, module)
}

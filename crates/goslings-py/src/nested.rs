//! Objects that hold one another in a long chain, such as a channel in a channel in a channel. Dropping the first drops
//! the second inside its own drop, and so on, until the stack ends. So what would be too deep is put off.
//!
//! From 3.14 on the interpreter does so with all objects that its collector knows; before, only with those of classes
//! that ask for it. Awaitables are not known to the collector.
//!
//! **Invariants**
//! * `DEPTH` counts the drops under way on this thread, and never exceeds `DEPTH_MAX`. What comes to its end at that depth
//!   goes into `LATER`: dead, and unknown to the collector.
//! * Whoever brings `DEPTH` from `DEPTH_MAX` to one less drops what is in `LATER`. Something is in there only while others
//!   are that deep, so nothing stays for ever; a goroutine that parks in the middle (a finalizer may) holds it up at most.

use crate::chan::{PyChan, RecvChan, SendChan};
use crate::goroutine::Goroutine;
use crate::select::{Case, Selected};
use crate::stm::TVar;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

/// A drop takes some hundred bytes of stack for each class in between; a goroutine's stack has room for many more.
const DEPTH_MAX: u32 = 50;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LATER: RefCell<Vec<(*mut ffi::PyObject, ffi::destructor)>> = const { RefCell::new(Vec::new()) };
}

/// Frees an object by `free`, now or after those whose drop it is part of.
///
/// # Safety
/// As for a class's destructor: attached, the object has come to its end, and `free` is its class's way to free it.
#[inline]
pub(crate) unsafe fn free_in_turn(object: *mut ffi::PyObject, free: ffi::destructor) {
    let depth = DEPTH.get();
    if depth >= DEPTH_MAX {
        // SAFETY: by the contract.
        return unsafe { put_off(object, free) };
    }
    DEPTH.set(depth + 1);
    // SAFETY: by the contract.
    unsafe { free(object) };
    let depth = DEPTH.get() - 1;
    DEPTH.set(depth);
    if depth == DEPTH_MAX - 1 {
        free_later();
    }
}

#[cold]
unsafe fn put_off(object: *mut ffi::PyObject, free: ffi::destructor) {
    // SAFETY: a live class.
    if unsafe { ffi::PyType_HasFeature(ffi::Py_TYPE(object), ffi::Py_TPFLAGS_HAVE_GC) } != 0 {
        // SAFETY: attached; an object of a class that the collector knows. Twice does no harm.
        unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    }
    let kept = LATER.try_with(|later| later.borrow_mut().push((object, free)));
    if kept.is_err() {
        // The thread ends: deep or not.
        // SAFETY: by the contract.
        unsafe { free(object) };
    }
}

#[cold]
fn free_later() {
    while let Ok(Some((object, free))) = LATER.try_with(|later| later.borrow_mut().pop()) {
        DEPTH.set(DEPTH.get() + 1);
        // SAFETY: put off by `put_off`, with its way to be freed; taken out once.
        unsafe { free(object) };
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// How PyO3 frees the objects of the classes below.
static USUAL: [OnceLock<ffi::destructor>; 7] = [const { OnceLock::new() }; 7];

unsafe extern "C" fn free<const CLASS: usize>(object: *mut ffi::PyObject) {
    if let Some(&usual) = USUAL[CLASS].get() {
        // SAFETY: as this function was called; `usual` was the class's.
        unsafe { free_in_turn(object, usual) };
    }
}

unsafe fn replace<const CLASS: usize>(class: *mut ffi::PyTypeObject) {
    // SAFETY: by the caller.
    if let Some(usual) = unsafe { (*class).tp_dealloc.replace(free::<CLASS>) } {
        let _ = USUAL[CLASS].set(usual);
    }
}

/// Lets objects that can hold others of ours be freed in turn, where the interpreter does not see to that.
pub(crate) fn install(py: Python<'_>) {
    if py.version_info() >= (3, 14) {
        return;
    }
    // SAFETY: heap types of ours without subclasses; nobody has made an instance.
    unsafe {
        replace::<0>(py.get_type::<PyChan>().as_type_ptr());
        replace::<1>(py.get_type::<SendChan>().as_type_ptr());
        replace::<2>(py.get_type::<RecvChan>().as_type_ptr());
        replace::<3>(py.get_type::<Case>().as_type_ptr());
        replace::<4>(py.get_type::<Selected>().as_type_ptr());
        replace::<5>(py.get_type::<Goroutine>().as_type_ptr());
        replace::<6>(py.get_type::<TVar>().as_type_ptr());
    }
}

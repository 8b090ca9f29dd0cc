//! Objects that many threads use at once: without a lock, and, for some, without counting.

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn gs_share_racing(slot: *const AtomicPtr<PyObject>) -> *mut PyObject;
    fn gs_may_race(object: *mut PyObject, shared: c_int);
    fn gs_is_shared(object: *mut PyObject) -> c_int;
    fn gs_used(object: *mut PyObject);
    fn gs_uncounted(object: *mut PyObject);
}

/// Before it comes into a slot of which others take it with `share_racing`: one of `owner`, if that has been used.
#[inline]
pub(crate) fn may_race(object: &Py<PyAny>, owner: Option<&Bound<'_, PyAny>>) {
    // SAFETY: references of ours.
    unsafe {
        let shared = owner.map_or(0, |owner| gs_is_shared(owner.as_ptr()));
        gs_may_race(object.as_ptr(), shared);
    }
}

/// Another reference to what is in the slot, which others may exchange meanwhile: then it may be to any object. None:
/// this interpreter cannot, or it went away at this moment.
///
/// # Safety
/// Attached. The slot lives, changes by `exchange` only, and what it holds has been through `may_race`.
#[inline]
pub(crate) unsafe fn share_racing(slot: *const NonNull<PyObject>) -> Option<Py<PyAny>> {
    // SAFETY: the caller's promise; an `AtomicPtr` has the layout of a pointer.
    let object = unsafe { gs_share_racing(slot.cast()) };
    // SAFETY: attached; a new reference or null.
    unsafe { Bound::from_owned_ptr_or_opt(Python::assume_attached(), object).map(Bound::unbind) }
}

/// Puts `value` into the slot; what was there is in `value` afterwards.
///
/// # Safety
/// The slot lives, and nobody else is in this function with it.
#[inline]
pub(crate) unsafe fn exchange(slot: *mut NonNull<PyObject>, value: &mut Py<PyAny>) {
    // SAFETY: an `AtomicPtr` has the layout of a pointer, and `Py` that of a `NonNull`.
    let (slot, mine) =
        unsafe { (&*slot.cast::<AtomicPtr<PyObject>>(), &mut *std::ptr::from_mut(value).cast()) };
    // Ordering: Release for who takes it without a lock: it sees the object, and what was stored before.
    *mine = slot.swap(*mine, Ordering::Release);
}

/// Told of each use of an object that may be everybody's: one that other threads than its own use again and again is
/// left to the collector, so that the interpreter need not count its uses (free-threaded, 3.14 on).
#[inline]
pub(crate) fn used(object: &Bound<'_, PyAny>) {
    // SAFETY: a reference of ours.
    unsafe { gs_used(object.as_ptr()) };
}

/// The functions of a module are called by all threads at once: their uses are not counted, as those of functions
/// that Python code defines, or that the interpreter's own modules bring.
pub(crate) fn functions(module: &Bound<'_, PyModule>) {
    for (_, value) in module.dict() {
        // SAFETY: attached; a reference of ours; looks at its type.
        if unsafe { pyo3::ffi::PyCFunction_CheckExact(value.as_ptr()) } != 0 {
            // SAFETY: a reference of ours.
            unsafe { gs_uncounted(value.as_ptr()) };
        }
    }
}

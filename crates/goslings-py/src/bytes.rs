//! Bytes that come from descriptors and go there: buffers of objects, and new `bytes`.

use goslings::net::Bytes;
use goslings_shm::Source;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::cell::RefCell;
use std::io;

/// So much is received into a place that all calls of a thread share, and copied from there: no call that waits keeps
/// memory for what has not come.
const SHARED: usize = 64 * 1024;
/// With more bytes than these a system call copies for so long that others should be let in.
pub(crate) const LARGE: usize = 64 * 1024;

thread_local! {
    static PLACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED].into_boxed_slice());
}

/// The buffer of an object, held from here to the drop.
pub(crate) struct View(ffi::Py_buffer);

impl View {
    /// To read from.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<View> {
        View::new(object, ffi::PyBUF_SIMPLE)
    }

    /// To write to.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<View> {
        View::new(object, ffi::PyBUF_WRITABLE)
    }

    fn new(object: &Bound<'_, PyAny>, flags: i32) -> PyResult<View> {
        let mut view = ffi::Py_buffer::new();
        // SAFETY: attached; filled, or an exception is set.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut view, flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(View(view))
    }

    pub(crate) fn bytes(&self) -> Bytes {
        // SAFETY: the object keeps it in place until the release, and this is used no longer than the view.
        unsafe { Bytes::new(self.0.buf.cast(), self.0.len.cast_unsigned()) }
    }
}

impl View {
    /// The same, to be sent to another process.
    pub(crate) fn source(&self) -> Source<'_> {
        // SAFETY: the object keeps it in place until the release.
        unsafe { Source::new(self.0.buf.cast(), self.0.len.cast_unsigned()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: attached, as every call of this module; filled by `PyObject_GetBuffer`.
        unsafe { ffi::PyBuffer_Release(&raw mut self.0) };
    }
}

/// What a call gave that wanted at most `n` bytes.
pub(crate) enum Got {
    /// So many are in the place that is shared.
    Shared(usize),
    Large(Py<PyBytes>, usize),
}

/// Has `call` fill at most `n` bytes. To be finished (`Got::finish`) on the same thread before anything else is received.
pub(crate) fn receive(
    py: Python<'_>,
    n: usize,
    call: impl FnOnce(Bytes) -> io::Result<usize>,
) -> io::Result<Got> {
    if n <= SHARED {
        return PLACE.with_borrow_mut(|place| {
            // SAFETY: this thread's own, and in place during the call.
            let count = call(unsafe { Bytes::new(place.as_mut_ptr(), n) })?;
            Ok(Got::Shared(count))
        });
    }
    let size = ffi::Py_ssize_t::try_from(n).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: attached; new bytes that nobody else has seen, or null with an exception, which is told in another way.
    let mut object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size) };
    if object.is_null() {
        drop(PyErr::take(py));
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // SAFETY: `n` bytes that are ours to fill.
    let room = unsafe { Bytes::new(ffi::PyBytes_AsString(object).cast(), n) };
    match call(room) {
        Ok(count) => {
            // SAFETY: nobody else has it; on failure it is freed, and null.
            if unsafe { ffi::_PyBytes_Resize(&raw mut object, count.cast_signed()) } != 0 {
                drop(PyErr::take(py));
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            // SAFETY: a reference of ours to bytes.
            let bytes = unsafe { Bound::from_owned_ptr(py, object).cast_into_unchecked().unbind() };
            Ok(Got::Large(bytes, count))
        }
        Err(error) => {
            // SAFETY: a reference of ours.
            unsafe { ffi::Py_DECREF(object) };
            Err(error)
        }
    }
}

impl Got {
    /// As an object.
    pub(crate) fn finish(self, py: Python<'_>) -> Bound<'_, PyBytes> {
        match self {
            Got::Shared(count) => PLACE.with_borrow(|place| PyBytes::new(py, &place[..count])),
            Got::Large(bytes, _) => bytes.into_bound(py),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Got::Shared(count) => *count,
            Got::Large(_, count) => *count,
        }
    }

    /// Copies them to the end of `all`.
    pub(crate) fn append_to(self, all: &mut Vec<u8>) {
        if let Got::Shared(count) = self {
            PLACE.with_borrow(|place| all.extend_from_slice(&place[..count]));
        }
    }
}

/// A number of bytes that a caller wants.
pub(crate) fn size(n: isize, what: &str) -> PyResult<usize> {
    usize::try_from(n).map_err(|_| PyValueError::new_err(format!("negative buffersize in {what}")))
}

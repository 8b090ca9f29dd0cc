//! Python values that travel without pickle (`goslings_shm::Plain`): from an object, and back to one.

use goslings_shm::Plain;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

/// The value, if it is of a plain type itself (not of a class of its own) and can be written without pickle. What is borrowed
/// lasts as long as the object. Never calls Python code.
pub(crate) fn plain_of<'a>(object: &'a Bound<'_, PyAny>) -> Option<Plain<'a>> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(Plain::Bytes(bytes.as_bytes()));
    }
    if let Ok(str) = object.cast_exact::<PyString>() {
        return text_of(str).map(Plain::Str);
    }
    if object.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: attached; an int, of which no code of its own is asked.
        let int = unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) };
        return (overflow == 0).then_some(Plain::Int(int));
    }
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return Some(Plain::Float(float.value()));
    }
    if object.is_none() {
        return Some(Plain::Nothing);
    }
    object.cast_exact::<PyBool>().ok().map(|bool| Plain::Bool(bool.is_true()))
}

/// The text of a str; None if it cannot be had as UTF-8: lone surrogates, or no memory for it.
fn text_of<'a>(str: &'a Bound<'_, PyString>) -> Option<&'a str> {
    str.to_str().ok()
}

/// The object for a value; None for a pickle, whose bytes are somebody else's matter.
pub(crate) fn object_of<'py>(py: Python<'py>, plain: &Plain<'_>) -> Option<Bound<'py, PyAny>> {
    Some(match *plain {
        Plain::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Plain::Str(str) => PyString::new(py, str).into_any(),
        Plain::Int(int) => PyInt::new(py, int).into_any(),
        Plain::Float(float) => PyFloat::new(py, float).into_any(),
        Plain::Nothing => py.None().into_bound(py),
        Plain::Bool(bool) => PyBool::new(py, bool).to_owned().into_any(),
        Plain::Pickle(_) => return None,
    })
}

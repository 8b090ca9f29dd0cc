//! `Segment`: memory that several processes share.

use crate::errors;
use crate::host::detached;
use goslings_shm as shm;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Memory that several processes share, all zero at first.
///
/// It has the buffer protocol: `memoryview(segment)`, `numpy.frombuffer(segment)`. It has no name, only a descriptor
/// (`fileno()`); a process that gets that maps the same memory with `Segment.from_fd`. The memory is free again when the last
/// descriptor is closed and the last mapping gone, in whatever way the processes end. Its size never changes.
///
/// Raises ValueError for a size below 1, MemoryError if there is no address space or memory for it, OSError by the error number
/// if the system refuses: ENOSPC if shared memory is full, EMFILE, EFBIG beyond RLIMIT_FSIZE.
#[pyclass(module = "goslings._goslings", frozen, weakref)]
pub(crate) struct Segment(shm::Segment);

impl Segment {
    pub(crate) fn wrap(segment: shm::Segment) -> Segment {
        Segment(segment)
    }
}

/// An error of the system's.
pub(crate) fn system(py: Python<'_>, error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) if number == libc::ENOMEM => {
            PyMemoryError::new_err("the system has no memory for a shared segment")
        }
        Some(number) => errors::os(py, number),
        None if error.kind() == io::ErrorKind::OutOfMemory => PyMemoryError::new_err(()),
        None => PyValueError::new_err(error.to_string()),
    }
}

#[pymethods]
impl Segment {
    #[new]
    fn new(py: Python<'_>, size: isize) -> PyResult<Segment> {
        let size = usize::try_from(size).unwrap_or(0);
        if size == 0 {
            return Err(PyValueError::new_err("a segment has at least one byte"));
        }
        let made = detached(py, || shm::Segment::new(size));
        made.map(Segment).map_err(|error| system(py, &error))
    }

    /// Maps the memory that a descriptor stands for, and takes the descriptor over: it is closed with the segment.
    ///
    /// `readonly`: it cannot be written here. Raises ValueError if the descriptor is no segment's, and OSError as the class does;
    /// the descriptor is closed then.
    #[staticmethod]
    #[pyo3(signature = (fd, *, readonly = false))]
    fn from_fd(py: Python<'_>, fd: i32, readonly: bool) -> PyResult<Segment> {
        if fd < 0 {
            return Err(errors::os(py, libc::EBADF));
        }
        // SAFETY: the caller gives it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mapped = shm::Segment::from_file(fd, 1, !readonly);
        mapped.map(Segment).map_err(|error| system(py, &error))
    }

    /// The descriptor, which stays the segment's.
    fn fileno(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }

    /// How many bytes.
    #[getter]
    fn size(&self) -> usize {
        self.0.len()
    }

    /// Whether it cannot be written here.
    #[getter]
    fn readonly(&self) -> bool {
        !self.0.is_writable()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        let access = if self.0.is_writable() { "" } else { ", read-only" };
        format!("<Segment of {} bytes{access}>", self.0.len())
    }

    unsafe fn __getbuffer__(
        slf: &Bound<'_, Segment>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let segment = &slf.get().0;
        let readonly = c_int::from(!segment.is_writable());
        let (start, len) = (segment.as_ptr().cast(), segment.len().cast_signed());
        // SAFETY: attached; the view is the caller's to fill, holds a reference to us, and we never move the memory.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, readonly, flags) } != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Segment"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Segment"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Segment"))
    }
}

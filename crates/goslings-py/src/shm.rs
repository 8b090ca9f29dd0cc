//! `Segment`: memory that several processes share.

use crate::errors;
use crate::host::detached;
use goslings_shm as shm;
use pyo3::exceptions::{PyFileNotFoundError, PyMemoryError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};
use std::ffi::{c_int, c_long, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

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
    pub(crate) fn shared(&self) -> &shm::Segment {
        &self.0
    }
}

/// The memory of a message that has come: it has the buffer protocol, and is free when the last buffer is gone.
#[pyclass(module = "goslings._goslings", name = "_Mapped", frozen)]
pub(crate) struct Mapped(shm::Mapped);

impl Mapped {
    pub(crate) fn wrap(memory: shm::Mapped) -> Mapped {
        Mapped(memory)
    }
}

#[pymethods]
impl Mapped {
    unsafe fn __getbuffer__(
        slf: &Bound<'_, Mapped>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let memory = &slf.get().0;
        let readonly = c_int::from(!memory.is_writable());
        let (start, len) = (memory.as_ptr().cast(), memory.len().cast_signed());
        // SAFETY: attached; the view is the caller's to fill, holds a reference to us, and we never move the memory.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, readonly, flags) } != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
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

/// What `pickle` wants: a function, and its arguments.
type Reduced<'py, A> = (Bound<'py, PyAny>, A);

/// Runs the block with `N` being the type of the typecode.
macro_rules! numbers {
    ($kind:expr, $N:ident => $body:block) => {
        numbers!(@ $kind, $N, $body, 'b' i8, 'B' u8, 'h' i16, 'H' u16, 'i' i32, 'I' u32, 'l' c_long, 'L' c_ulong,
            'q' i64, 'Q' u64, 'f' f32, 'd' f64)
    };
    (@ $kind:expr, $N:ident, $body:block, $($code:literal $type:ty),*) => {
        match $kind {
            $($code => { type $N = $type; $body })*
            other => Err(PyTypeError::new_err(format!("no atomic operations on numbers of type {other:?}"))),
        }
    };
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
    #[classmethod]
    #[pyo3(signature = (fd, *, readonly = false))]
    fn from_fd(cls: &Bound<'_, PyType>, fd: i32, readonly: bool) -> PyResult<Segment> {
        let py = cls.py();
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

    /// How it travels to another place: its descriptor goes along.
    #[pyo3(signature = (fds, /))]
    fn _goslings_reduce<'py>(
        slf: &Bound<'py, Segment>,
        fds: &Bound<'py, PyList>,
    ) -> PyResult<Reduced<'py, (usize, bool)>> {
        let received = slf.py().import("goslings.processes._shared")?.getattr("received_segment")?;
        fds.append(slf.get().fileno())?;
        Ok((received, (fds.len() - 1, slf.get().readonly())))
    }

    /// How it travels to any other process of this machine and user: by where it is to be found.
    fn __reduce__<'py>(slf: &Bound<'py, Segment>) -> PyResult<Reduced<'py, (u32, i32, u64, bool)>> {
        let (py, segment) = (slf.py(), slf.get());
        let inode = segment.0.inode().map_err(|error| system(py, &error))?;
        let from = slf.get_type().getattr("_from_process")?;
        Ok((from, (std::process::id(), segment.fileno(), inode, segment.readonly())))
    }

    /// Maps a segment of another process, which must still have it.
    #[classmethod]
    fn _from_process(
        cls: &Bound<'_, PyType>,
        process: u32,
        fd: i32,
        inode: u64,
        readonly: bool,
    ) -> PyResult<Segment> {
        shm::Segment::from_process(process, fd, inode, !readonly).map(Segment).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PyFileNotFoundError::new_err(format!(
                "shared memory of process {process}, which has ended or has let go of it since it pickled it"
            )),
            _ => system(cls.py(), &error),
        })
    }

    /// Adds to the number of type `kind` (a typecode) at byte `at`; returns the new one.
    fn _add<'py>(&self, at: usize, kind: char, delta: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.change(at, kind, delta, Change::Add)
    }

    /// Sets it; returns the old one.
    fn _swap<'py>(&self, at: usize, kind: char, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.change(at, kind, value, Change::Swap)
    }

    /// Sets it to `new` if it is `old`; returns whether it was. Floats are compared as numbers, but for NaN, which is itself.
    fn _compare_and_swap(
        &self,
        at: usize,
        kind: char,
        old: &Bound<'_, PyAny>,
        new: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        numbers!(kind, N => {
            let (old, new) = (old.extract::<N>()?, new.extract::<N>()?);
            let cell = self.cell(at)?;
            // Ordering: SeqCst. What AtomicInt promises, too.
            let found = N::update(cell, |now| (now == old || now.bits() == old.bits()).then_some(new));
            Ok(found.is_ok())
        })
    }

    /// Takes the lock at byte `at` if it is free. `slept`: the caller has waited.
    fn _try_lock(&self, at: usize, slept: bool) -> PyResult<bool> {
        Ok(shm::Lock::of(self.cell(at)?).try_lock(slept))
    }

    /// Takes the lock at byte `at` from a process that has died: its number, or None.
    fn _take_from_dead(&self, at: usize) -> PyResult<Option<u32>> {
        Ok(shm::Lock::of(self.cell(at)?).take_from_dead())
    }

    /// Sleeps until the lock at byte `at` may be free, at most so many seconds. Blocks the thread, detached.
    fn _wait_lock(&self, py: Python<'_>, at: usize, seconds: f64) -> PyResult<()> {
        let lock = shm::Lock::of(self.cell(at)?);
        let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        detached(py, || lock.wait(time));
        py.check_signals()
    }

    /// Unlocks the lock at byte `at`; whether this process held it.
    fn _unlock(&self, at: usize) -> PyResult<bool> {
        Ok(shm::Lock::of(self.cell(at)?).unlock())
    }

    /// For benchmarks: the bare round trips of two processes that sleep on the word at byte `at`. Blocks the thread.
    fn _ping_pong(&self, py: Python<'_>, at: usize, rounds: u32, first: bool) -> PyResult<()> {
        let word = self.cell(at)?;
        detached(py, || shm::ping_pong(word, rounds, first));
        Ok(())
    }

    /// The process that holds the lock at byte `at`, or None.
    fn _lock_holder(&self, at: usize) -> PyResult<Option<u32>> {
        Ok(shm::Lock::of(self.cell(at)?).holder())
    }
}

enum Change {
    Add,
    Swap,
}

/// A type of numbers that has a cell to lie in.
trait Number: Copy + PartialEq {
    type Cell: shm::Cell;
    type Bits: PartialEq;

    fn bits(self) -> Self::Bits;
    fn plus(self, other: Self) -> Self;
    /// Changes it in one step, unless `change` gives nothing. The old one.
    fn update(cell: &Self::Cell, change: impl FnMut(Self) -> Option<Self>) -> Result<Self, Self>;
}

macro_rules! number {
    ($type:ty, $cell:ty, $bits:ty, $plus:expr, $to:expr, $from:expr) => {
        impl Number for $type {
            type Cell = $cell;
            type Bits = $bits;

            fn bits(self) -> $bits {
                $to(self)
            }

            fn plus(self, other: Self) -> Self {
                $plus(self, other)
            }

            fn update(cell: &$cell, mut change: impl FnMut(Self) -> Option<Self>) -> Result<Self, Self> {
                // Ordering: SeqCst. What AtomicInt promises, too.
                cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |bits| change($from(bits)).map($to))
                    .map($from)
                    .map_err($from)
            }
        }
    };
}

number!(i8, AtomicU8, u8, i8::wrapping_add, i8::cast_unsigned, u8::cast_signed);
number!(u8, AtomicU8, u8, u8::wrapping_add, std::convert::identity, std::convert::identity);
number!(i16, AtomicU16, u16, i16::wrapping_add, i16::cast_unsigned, u16::cast_signed);
number!(u16, AtomicU16, u16, u16::wrapping_add, std::convert::identity, std::convert::identity);
number!(i32, AtomicU32, u32, i32::wrapping_add, i32::cast_unsigned, u32::cast_signed);
number!(u32, AtomicU32, u32, u32::wrapping_add, std::convert::identity, std::convert::identity);
number!(i64, AtomicU64, u64, i64::wrapping_add, i64::cast_unsigned, u64::cast_signed);
number!(u64, AtomicU64, u64, u64::wrapping_add, std::convert::identity, std::convert::identity);
number!(f32, AtomicU32, u32, std::ops::Add::add, f32::to_bits, f32::from_bits);
number!(f64, AtomicU64, u64, std::ops::Add::add, f64::to_bits, f64::from_bits);

impl Segment {
    fn cell<C: shm::Cell>(&self, at: usize) -> PyResult<&C> {
        self.0.cell(at).ok_or_else(|| PyValueError::new_err("no place for a number that can be written"))
    }

    fn change<'py>(
        &self,
        at: usize,
        kind: char,
        by: &Bound<'py, PyAny>,
        how: Change,
    ) -> PyResult<Bound<'py, PyAny>> {
        numbers!(kind, N => {
            let (py, by) = (by.py(), by.extract::<N>()?);
            let cell = self.cell(at)?;
            let next = |now: N| match how {
                Change::Add => now.plus(by),
                Change::Swap => by,
            };
            let (Ok(old) | Err(old)) = N::update(cell, |now| Some(next(now)));
            let answer = match how {
                Change::Add => next(old),
                Change::Swap => old,
            };
            Ok(answer.into_pyobject(py)?.into_any())
        })
    }
}

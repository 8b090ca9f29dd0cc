//! `Semaphore`.

use crate::awaitable::{Awaitable, Both};
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::{AcquireError, Wait, polled};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::Arc;

/// Semaphore(n): `n` permits, of which one may acquire several at once.
///
/// First in, first out: one who wants many holds back those behind who want few. As a context manager it
/// acquires one. Raises ValueError for a negative `n`. Go: `golang.org/x/sync/semaphore`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct Semaphore {
    semaphore: Arc<goslings::Semaphore>,
    /// The number of the bubble that it was made in; 0: none.
    made: u32,
}

fn number(n: i64) -> PyResult<u64> {
    u64::try_from(n).map_err(|_| PyValueError::new_err("a number of permits must not be negative"))
}

fn failed(py: Python<'_>, error: AcquireError, n: i64, size: u64) -> PyErr {
    match error {
        AcquireError::TooMany => PyValueError::new_err(format!("cannot acquire {n} of {size} permits")),
        AcquireError::Wait(error) => errors::wait(py, error, "acquire"),
    }
}

/// Acquires `n` when awaited, and answers `gives`.
fn acquiring(semaphore: &Arc<goslings::Semaphore>, n: u64, wait: Wait, gives: Py<PyAny>) -> Awaitable {
    let wanted = Arc::clone(semaphore);
    Awaitable::keeping(
        move |caller| polled::acquire(wanted, n, wait, caller),
        (Both(Arc::clone(semaphore)), gives),
        move |(semaphore, gives), py, answer| match answer {
            Ok(()) => Ok(gives.clone_ref(py)),
            Err(error) => Err(failed(py, error, n.cast_signed(), semaphore.0.size())),
        },
        move |(semaphore, _gives), answer| {
            if answer.is_ok() {
                let released = semaphore.0.release(n);
                debug_assert_eq!(released, Ok(()), "acquired just now");
            }
            None
        },
    )
}

impl Semaphore {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.semaphore)
    }
}

#[pymethods]
impl Semaphore {
    #[new]
    fn new(n: i64) -> PyResult<Semaphore> {
        Ok(Semaphore {
            semaphore: Arc::new(goslings::Semaphore::new(number(n)?)),
            made: goslings::bubble::current_id(),
        })
    }

    /// Takes `n` permits. Blocks until they are free, at most `timeout` seconds; then raises TimeoutError.
    ///
    /// Raises ValueError if `n` is more than there are in all.
    #[pyo3(signature = (n = 1, timeout = None))]
    fn acquire(&self, py: Python<'_>, n: i64, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        operation(py, "Semaphore.acquire", On::Shared(self.made))?;
        may_block(py, "semaphore.aacquire()")?;
        let acquired = self.semaphore.acquire(number(n)?, wait(timeout)?);
        acquired.map_err(|error| failed(py, error, n, self.semaphore.size()))
    }

    /// aacquire(n=1, timeout=None): as `acquire`, awaited.
    #[pyo3(signature = (n = 1, timeout = None))]
    fn aacquire(&self, py: Python<'_>, n: i64, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        let acquiring = acquiring(&self.semaphore, number(n)?, wait(timeout)?, py.None());
        Ok(acquiring.about("Semaphore.aacquire", On::Shared(self.made)))
    }

    /// Takes `n` permits if that needs no waiting; returns whether it did.
    #[pyo3(signature = (n = 1))]
    fn try_acquire(&self, py: Python<'_>, n: i64) -> PyResult<bool> {
        operation(py, "Semaphore.try_acquire", On::Anything)?;
        Ok(self.semaphore.try_acquire(number(n)?))
    }

    /// Gives `n` permits back. Never blocks. Raises RuntimeError if that is more than were taken.
    #[pyo3(signature = (n = 1))]
    fn release(&self, py: Python<'_>, n: i64) -> PyResult<()> {
        operation(py, "Semaphore.release", On::Anything)?;
        let released = self.semaphore.release(number(n)?);
        released.map_err(|_| errors::misuse("release of more permits than were acquired"))
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().acquire(slf.py(), 1, None)?;
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.release(py, 1)
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Awaitable {
        let gives = slf.clone().into_any().unbind();
        let made = slf.get().made;
        acquiring(&slf.get().semaphore, 1, Wait::Forever, gives).about("Semaphore.aacquire", On::Shared(made))
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.release(py, 1)?;
        Ok(Awaitable::nothing())
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("Semaphore"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("Semaphore"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("Semaphore"))
    }
}

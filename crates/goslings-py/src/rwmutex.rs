//! `RWMutex`.

use crate::awaitable::Awaitable;
use crate::bubble::{On, operation};
use crate::errors;
use crate::host::may_block;
use crate::leaks::Waitable;
use crate::timeout::wait;
use goslings::{RwMutex, Wait, polled};
use pyo3::prelude::*;
use std::sync::Arc;

/// A lock for many readers or one writer. `with rw.read():` and `with rw.write():`.
///
/// Once a writer waits, new readers wait behind it; when it is done, those readers go before the next writer.
/// Not reentrant, no upgrade. Go: `sync.RWMutex`.
#[pyclass(module = "goslings", frozen, weakref)]
pub(crate) struct RWMutex {
    mutex: Arc<RwMutex>,
}

/// One side of a RWMutex, as a context manager.
#[pyclass(module = "goslings", frozen)]
pub(crate) struct RWMutexSide {
    mutex: Arc<RwMutex>,
    writes: bool,
}

fn rlock(mutex: &RwMutex, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    operation(py, "RWMutex.rlock", On::Anything)?;
    may_block(py, "rw.arlock()`, or `async with rw.read()")?;
    mutex.rlock(wait(timeout)?).map_err(|error| errors::wait(py, error, "rlock"))
}

fn lock(mutex: &RwMutex, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    operation(py, "RWMutex.lock", On::Anything)?;
    may_block(py, "rw.alock()`, or `async with rw.write()")?;
    mutex.lock(wait(timeout)?).map_err(|error| errors::wait(py, error, "lock"))
}

fn runlock(mutex: &RwMutex, py: Python<'_>) -> PyResult<()> {
    operation(py, "RWMutex.runlock", On::Anything)?;
    mutex.runlock().map_err(|_| errors::misuse("runlock of unlocked RWMutex"))
}

fn unlock(mutex: &RwMutex, py: Python<'_>) -> PyResult<()> {
    operation(py, "RWMutex.unlock", On::Anything)?;
    mutex.unlock().map_err(|_| errors::misuse("unlock of unlocked RWMutex"))
}

/// Locks one side when awaited, and answers `gives`.
fn locking(mutex: &Arc<RwMutex>, writes: bool, wait: Wait, gives: Py<PyAny>) -> Awaitable {
    let wanted = Arc::clone(mutex);
    let lock = if writes { polled::rwlock } else { polled::rlock };
    let unlock = move |mutex: &goslings::RwMutex| {
        let unlocked = if writes { mutex.unlock() } else { mutex.runlock() };
        debug_assert_eq!(unlocked, Ok(()), "locked just now");
    };
    Awaitable::locking(move |caller| lock(wanted, wait, caller), Arc::clone(mutex), gives, unlock)
        .about(if writes { "RWMutex.alock" } else { "RWMutex.arlock" }, On::Anything)
}

impl RWMutex {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.mutex)
    }
}

#[pymethods]
impl RWMutex {
    #[new]
    fn new() -> RWMutex {
        RWMutex { mutex: Arc::new(RwMutex::new()) }
    }

    /// Locks for reading. Blocks while a writer holds it or waits, at most `timeout` seconds; then raises
    /// TimeoutError.
    #[pyo3(signature = (timeout = None))]
    fn rlock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        rlock(&self.mutex, py, timeout)
    }

    /// arlock(timeout=None): as `rlock`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn arlock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Ok(locking(&self.mutex, false, wait(timeout)?, py.None()))
    }

    /// Locks for reading if that needs no waiting; returns whether it did.
    fn try_rlock(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "RWMutex.try_rlock", On::Anything)?;
        Ok(self.mutex.try_rlock())
    }

    /// Undoes one `rlock`. Raises RuntimeError if no reader holds it.
    fn runlock(&self, py: Python<'_>) -> PyResult<()> {
        runlock(&self.mutex, py)
    }

    /// Locks for writing. Blocks while anybody holds it, at most `timeout` seconds; then raises TimeoutError.
    #[pyo3(signature = (timeout = None))]
    fn lock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        lock(&self.mutex, py, timeout)
    }

    /// alock(timeout=None): as `lock`, awaited.
    #[pyo3(signature = (timeout = None))]
    fn alock(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Awaitable> {
        Ok(locking(&self.mutex, true, wait(timeout)?, py.None()))
    }

    /// Locks for writing if that needs no waiting; returns whether it did.
    fn try_lock(&self, py: Python<'_>) -> PyResult<bool> {
        operation(py, "RWMutex.try_lock", On::Anything)?;
        Ok(self.mutex.try_lock())
    }

    /// Undoes `lock`. Raises RuntimeError if no writer holds it.
    fn unlock(&self, py: Python<'_>) -> PyResult<()> {
        unlock(&self.mutex, py)
    }

    /// The reading side: `with rw.read():`.
    fn read(&self) -> RWMutexSide {
        RWMutexSide { mutex: Arc::clone(&self.mutex), writes: false }
    }

    /// The writing side: `with rw.write():`.
    fn write(&self) -> RWMutexSide {
        RWMutexSide { mutex: Arc::clone(&self.mutex), writes: true }
    }

    fn __copy__(&self) -> PyResult<()> {
        Err(errors::no_copy("RWMutex"))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(errors::no_copy("RWMutex"))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(errors::no_pickle("RWMutex"))
    }
}

impl RWMutexSide {
    /// For the search for leaks.
    pub(crate) fn waitable(&self) -> Waitable {
        Waitable::shared(&self.mutex)
    }
}

#[pymethods]
impl RWMutexSide {
    fn __aenter__(slf: Bound<'_, Self>) -> Awaitable {
        let gives = slf.clone().into_any().unbind();
        locking(&slf.get().mutex, slf.get().writes, Wait::Forever, gives)
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        type_: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        tb: &Bound<'_, PyAny>,
    ) -> PyResult<Awaitable> {
        self.__exit__(py, type_, value, tb)?;
        Ok(Awaitable::nothing())
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let this = slf.get();
        if this.writes {
            lock(&this.mutex, slf.py(), None)?;
        } else {
            rlock(&this.mutex, slf.py(), None)?;
        }
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if self.writes { unlock(&self.mutex, py) } else { runlock(&self.mutex, py) }
    }
}

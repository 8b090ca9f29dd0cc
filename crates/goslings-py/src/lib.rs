//! The Python module of goslings. One file per noun; each only translates between Python and the runtime
//! crate. `python/goslings` re-exports what is defined here.

mod atomic;
#[expect(unsafe_code, reason = "a state that is taken out and put back")]
mod awaitable;
mod barrier;
mod bubble;
#[expect(unsafe_code, reason = "buffers of the interpreter")]
mod bytes;
mod chan;
mod cond;
#[expect(unsafe_code, reason = "descriptors that are given to us")]
mod conn;
mod coroutine;
#[expect(unsafe_code, reason = "a word in shared memory")]
mod credit;
mod errors;
mod event;
#[expect(unsafe_code, reason = "who runs a goroutine may touch its phase")]
mod goroutine;
mod group;
#[expect(unsafe_code, reason = "calls into the C file that swaps the interpreter's per-thread state")]
mod host;
mod http;
#[expect(unsafe_code, reason = "looks at objects while the collector has stopped everybody")]
mod leaks;
#[expect(unsafe_code, reason = "looks at numbers and lengths without a way to raise")]
mod lease;
#[expect(unsafe_code, reason = "a phase that its runner alone writes")]
mod life;
#[expect(unsafe_code, reason = "descriptors that are given to us, and bytes that are filled")]
mod link;
mod mutex;
#[expect(unsafe_code, reason = "how objects are freed")]
mod nested;
mod net;
#[expect(unsafe_code, reason = "an Arc in a word")]
mod once;
#[expect(unsafe_code, reason = "calls of the system")]
mod orphan;
#[expect(unsafe_code, reason = "numbers of descriptors")]
mod packet;
mod patched;
#[expect(unsafe_code, reason = "a number that the interpreter reads")]
mod plain;
#[expect(unsafe_code, reason = "a descriptor of its own")]
mod port;
#[expect(unsafe_code, reason = "calls into the C file that reads frames")]
mod preempt;
#[expect(unsafe_code, reason = "functions that the interpreter calls itself")]
mod quick;
mod rwmutex;
mod select;
mod semaphore;
#[expect(unsafe_code, reason = "slots that others exchange")]
mod shared;
#[expect(unsafe_code, reason = "a descriptor that is given to us, and a buffer")]
mod shm;
mod spin;
#[expect(unsafe_code, reason = "looks at objects while the collector visits them")]
mod stacks;
mod stead;
#[expect(unsafe_code, reason = "transactions in the frames of the calls that run them")]
mod stm;
mod stream;
mod thread_locks;
mod timeout;
mod timer;
mod value;
mod waitgroup;

use pyo3::prelude::*;

/// The compiled part of goslings. Import from `goslings` instead.
#[pymodule(gil_used = false, name = "_goslings")]
mod module {
    #[pymodule_export]
    use crate::atomic::AtomicInt;
    #[pymodule_export]
    use crate::awaitable::{Awaitable, agosched, aselect, asleep};
    #[pymodule_export]
    use crate::barrier::Barrier;
    #[pymodule_export]
    use crate::bubble::{PyBubble, current as bubble, step};
    #[pymodule_export]
    use crate::chan::{PyChan, RecvChan, SendChan, never, recv_idle, recv_outside};
    #[pymodule_export]
    use crate::cond::Cond;
    #[pymodule_export]
    use crate::conn::{Conn, Listener};
    #[pymodule_export]
    use crate::credit::PyCredit;
    #[pymodule_export]
    use crate::event::{Event, outside_event};
    #[pymodule_export]
    use crate::goroutine::{
        Goroutine, current, go, go_at, goexit, gomaxprocs, gosched, held, lock_os_thread, num_goroutine,
        place, places, set_slice_ms, set_warn_ms, start_default, stats, unlock_os_thread,
    };
    #[pymodule_export]
    use crate::group::{failure, may_block, prepare, start};
    #[pymodule_export]
    use crate::host::{
        after_fork_child, after_fork_parent, before_fork, kernel, own_locals, stop, unraisable,
    };
    #[pymodule_export]
    use crate::http::{HttpReader, response_head};
    #[pymodule_export]
    use crate::leaks::leaks;
    #[pymodule_export]
    use crate::lease::{PyClaims, PyLease};
    #[pymodule_export]
    use crate::link::{Letter, Link};
    #[pymodule_export]
    use crate::mutex::PyMutex;
    #[pymodule_export]
    use crate::net::{
        await_fd, closing_fd, read_fd, sock_accept, sock_recv, sock_recv_into, sock_send, sock_sendall,
        wait_fd, write_fd,
    };
    #[pymodule_export]
    use crate::orphan::end_with;
    #[pymodule_export]
    use crate::packet::{recv_packet, send_packet};
    #[pymodule_export]
    use crate::patched::{PyPatched, can_park, sleep_here, wait_fd_here};
    #[pymodule_export]
    use crate::port::PyPort;
    #[pymodule_export]
    use crate::preempt::can_preempt;
    #[pymodule_export]
    use crate::rwmutex::{RWMutex, RWMutexSide};
    #[pymodule_export]
    use crate::select::{Case, Selected, recv, select, send};
    #[pymodule_export]
    use crate::semaphore::Semaphore;
    #[pymodule_export]
    use crate::shm::Segment;
    #[pymodule_export]
    use crate::stacks::{detect_deadlocks, now, stacks as all_stacks};
    #[pymodule_export]
    use crate::stead::{PyBell, PyStead, put_back, selected};
    #[pymodule_export]
    use crate::stm::{TVar, Watching, atomically, attempt, on_commit, or_else, retry, stats as stm_stats};
    #[pymodule_export]
    use crate::stream::{Foreign, Outflow, Streams};
    #[pymodule_export]
    use crate::thread_locks::{ThreadLock, ThreadRLock, get_ident};
    #[pymodule_export]
    use crate::timer::{PyTimer, Ticker, after, after_func, sleep};
    #[pymodule_export]
    use crate::waitgroup::WaitGroup;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::errors::install(module.py());
        crate::quick::install(module)?;
        crate::shared::functions(module);
        crate::host::install(module.py())
    }
}

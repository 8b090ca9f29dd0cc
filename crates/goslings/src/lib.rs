//! Goroutines, channels and select: the runtime of goslings. It knows no Python; whatever it needs of the
//! interpreter it lives in goes through [`Host`].
//!
//! Where is what: `chan/` channels, `select.rs`, `timer.rs`, one file per synchronisation object; `waiter.rs`
//! and `waitq.rs`, what all of them wait with; `task/` goroutines and stacks; `sched/` who runs when; `bubble/`
//! goroutines with a clock and an order of their own, for tests.

// The audit list: every module that needs unsafe code, and why. The others cannot contain any.
mod barrier;
#[expect(unsafe_code, reason = "tasks and workers behind raw pointers")]
pub mod bubble;
#[expect(unsafe_code, reason = "nodes in the frame of the waiting call")]
pub mod chan;
#[cfg_attr(not(loom), expect(unsafe_code, reason = "the clock is a system call"))]
mod clock;
#[expect(unsafe_code, reason = "nodes in the frame of the waiting call")]
mod cond;
mod deadlock;
mod event;
#[cfg_attr(not(loom), expect(unsafe_code, reason = "system calls on a word"))]
mod futex;
#[expect(unsafe_code, reason = "a host keeps promises that the compiler cannot see")]
mod host;
mod lock;
mod mutex;
#[expect(unsafe_code, reason = "system calls on descriptors")]
pub mod net;
#[expect(unsafe_code, reason = "waits whose state is in a box")]
pub mod polled;
mod random;
mod rwmutex;
#[expect(unsafe_code, reason = "runtimes and tasks behind raw pointers")]
mod sched;
#[expect(unsafe_code, reason = "nodes in the frame of the waiting call")]
mod select;
mod semaphore;
mod sleep;
#[expect(unsafe_code, reason = "looks at waits that cannot end meanwhile")]
mod stacks;
#[expect(unsafe_code, reason = "nodes beside the frame of the waiting call")]
pub mod stm;
mod sync;
#[expect(unsafe_code, reason = "stacks, and switching between them")]
mod task;
#[expect(unsafe_code, reason = "waiters in their threads' frames")]
mod threads;
#[expect(unsafe_code, reason = "timers in their owners' frames")]
mod timer;
#[expect(unsafe_code, reason = "waiters in their own frames")]
mod waiter;
mod waitgroup;
#[expect(unsafe_code, reason = "nodes in the frame of the waiting call")]
mod waiting;
#[expect(unsafe_code, reason = "nodes in their waiters' frames")]
mod waitq;
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "a cell that loom watches")]
mod watched;

pub use barrier::{Barrier, BarrierError};
pub use chan::Chan;
pub use clock::{Deadline, Wait, now, real};
pub use cond::{Cond, CondError};
pub use deadlock::detect_deadlocks;
pub use event::Event;
pub use host::{AREA_SIZE, Area, Host, PlainHost, StackBounds, set_host};
pub use mutex::{Mutex, NotLocked};
pub use net::{Direction, NetError};
pub use rwmutex::RwMutex;
pub use sched::{
    Held, NoThread, PROCS_MAX, Stats, after_fork_child, after_fork_parent, anybody_is_asked, before_fork,
    current, current_place, forget_request, give_way, held, is_asked, lock_os_thread, others_are_ready,
    places, procs, set_default_procs, set_procs, set_slice, set_warn_held, spawn, spawn_at, spawn_in,
    spawn_with, stats, stop, unlock_os_thread, with_current, yield_now,
};
pub use select::{Case, SelectError, Selected, select};
pub use semaphore::{AcquireError, Semaphore, TooMany};
pub use sleep::{SleepError, sleep};
pub use stacks::{Described, Seen, Standing, describe, objects};
pub use task::stack::{guard_is_advice, set_default_stack, slot_size};
pub use task::{Job, JobVTable, Step, Task};
pub use threads::{SeenThread, idle, outside, waiting_threads};
pub use timer::{Fired, Target, Timer};
pub use waiter::WaitReason;
pub use waitgroup::{Negative, WaitGroup};
pub use waiting::WaitError;

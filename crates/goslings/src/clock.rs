//! The monotonic clock, in whole nanoseconds: the one `time.monotonic()` reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub u64);

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is done.
    Forever,
    /// Until then.
    Until(Deadline),
    /// Not at all: try once.
    No,
}

impl Wait {
    /// Waits at most `time` from now; zero tries once. Times beyond 500 years wait for ever.
    #[must_use]
    pub fn at_most(time: Duration) -> Wait {
        if time.is_zero() { Wait::No } else { Deadline::after(time).map_or(Wait::Forever, Wait::Until) }
    }
}

impl Deadline {
    /// `time` from now; None where the clock cannot count that far.
    #[must_use]
    pub fn after(time: Duration) -> Option<Deadline> {
        let nanoseconds = u64::try_from(time.as_nanos()).ok()?;
        now().0.checked_add(nanoseconds).map(Deadline)
    }

    /// What is left until then.
    #[must_use]
    pub fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now().0))
    }
}

/// The coarse clock: what somebody last read, in nanoseconds.
static COARSE: AtomicU64 = AtomicU64::new(0);

/// Finer than this the coarse clock is not moved, so that its cache line stays where it is.
const COARSE_NS: u64 = 1_000_000;

/// A time of the last moments, for the cost of a load: for what people read. It stands still while nobody
/// reads the clock for another reason.
#[inline]
pub(crate) fn coarse() -> u64 {
    // Ordering: Relaxed. A number for people to read.
    let time = COARSE.load(Ordering::Relaxed);
    if time == 0 { first_reading() } else { time }
}

/// Nobody has read the clock yet.
#[cold]
fn first_reading() -> u64 {
    let time = real().0;
    // Ordering: Relaxed. As in `coarse`.
    COARSE.store(time, Ordering::Relaxed);
    time
}

/// Somebody has read the clock.
#[inline]
pub(crate) fn note(now: Deadline) {
    // Ordering: Relaxed. As in `coarse`.
    if now.0 > COARSE.load(Ordering::Relaxed) + COARSE_NS {
        // Ordering: Relaxed. As in `coarse`; of two at the same time either will do.
        COARSE.store(now.0, Ordering::Relaxed);
    }
}

/// The time now; in a bubble, that of the bubble.
#[must_use]
pub fn now() -> Deadline {
    crate::bubble::now().unwrap_or_else(real)
}

/// The time now, also in a bubble.
#[cfg(not(loom))]
#[must_use]
pub fn real() -> Deadline {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to; CLOCK_MONOTONIC exists on every system we build for.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Deadline(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The number of the clock that counts how long the calling thread computes.
#[cfg(not(loom))]
pub(crate) fn of_this_thread() -> i32 {
    let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
    // SAFETY: of the calling thread itself; `clock` is a valid place to write to.
    unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
    clock
}

/// The time on such a clock, in nanoseconds; 0 if its thread is gone.
#[cfg(not(loom))]
pub(crate) fn thread_ns(clock: i32) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to; a clock that does not exist is refused.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(loom)]
pub use model::real;
#[cfg(all(loom, test))]
pub(crate) use model::restart;
#[cfg(loom)]
pub(crate) use model::{of_this_thread, thread_ns};

/// Time for models, which have to be the same in each run: it advances when somebody looks.
#[cfg(loom)]
mod model {
    use super::Deadline;
    use std::cell::Cell;

    // Not loom's thread-locals: loom runs all threads of a model on one thread, so these are global.
    std::thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
        static TICK: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn of_this_thread() -> i32 {
        0
    }

    pub(crate) fn thread_ns(_clock: i32) -> u64 {
        0
    }

    /// The time now.
    pub fn real() -> Deadline {
        NOW.set(NOW.get() + TICK.get());
        Deadline(NOW.get())
    }

    #[cfg(test)]
    pub(crate) fn restart(tick: u64) {
        NOW.set(0);
        TICK.set(tick);
    }
}

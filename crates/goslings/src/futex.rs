//! Sleeping on a word: Linux's futex, which a signal interrupts (that is what makes Ctrl-C work in a
//! blocked `recv`), and a portable stand-in for other systems and for loom.
//!
//! **Invariant**: [`wake`] takes an address and never reads it, so a waker may call it after the word's
//! owner has gone on and its stack frame is dead; at worst someone else wakes once too often, and every
//! sleeper here re-reads its word in a loop.

use crate::clock::{Deadline, now};
use crate::sync::AtomicU32;

/// Sleeping in slices, for a thread that runs signal handlers. A signal that comes after the interpreter looked
/// for one and before the sleep interrupts nothing: it is found when the slice is over. Only the main
/// thread runs handlers; the others sleep until they are woken.
pub(crate) struct Slices {
    /// How long the next one is, in nanoseconds; None on a thread that hears no signals.
    next: Option<u64>,
}

/// The first slice; each further one is twice as long, up to [`LONGEST_NS`].
const FIRST_NS: u64 = 1_000_000;
const LONGEST_NS: u64 = 1_000_000_000;

impl Slices {
    pub(crate) fn new() -> Slices {
        Slices { next: hears_signals().then_some(FIRST_NS) }
    }

    /// Whether this is the main thread, as far as the system tells.
    pub(crate) fn is_main(&self) -> bool {
        self.next.is_some()
    }

    /// As [`wait`]; also ends as if by a signal when a slice is over.
    pub(crate) fn wait(&mut self, word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Woken {
        let Some(slice) = self.next else { return wait(word, expected, deadline) };
        let over = Deadline(now().0.saturating_add(slice));
        if deadline.is_some_and(|at| at <= over) {
            return wait(word, expected, deadline);
        }
        match wait(word, expected, Some(over)) {
            Woken::Time => {
                self.next = Some((slice * 2).min(LONGEST_NS));
                Woken::Signal
            }
            other => other,
        }
    }
}

/// Why a sleep ended. All three may be spurious: look at the word again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// By a waker, or for no reason.
    Called,
    Signal,
    Time,
}

#[cfg(all(target_os = "linux", not(loom)))]
mod system {
    use super::{AtomicU32, Deadline, Woken};

    /// Sleeps while `*word == expected`, until `deadline` on the monotonic clock.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Woken {
        let time = deadline.map(|at| libc::timespec {
            tv_sec: libc::time_t::try_from(at.0 / 1_000_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: (at.0 % 1_000_000_000) as libc::c_long,
        });
        let time_ptr = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `word` is a live reference and `time_ptr` is null or points to `time`, which outlives
        // the call; FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time and any non-zero mask.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                expected,
                time_ptr,
                std::ptr::null::<u32>(),
                u32::MAX,
            )
        };
        if answer == 0 {
            return Woken::Called;
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => Woken::Signal,
            Some(libc::ETIMEDOUT) => Woken::Time,
            _ => Woken::Called,
        }
    }

    /// Whether this is the process's first thread. Asked once a thread: in the child of a thread that forks
    /// the answer stays no, and a signal is then noticed only if it comes during a sleep.
    pub(crate) fn hears_signals() -> bool {
        std::thread_local! {
            // SAFETY: takes nothing and cannot fail.
            static FIRST: bool = u32::try_from(unsafe { libc::gettid() }) == Ok(std::process::id());
        }
        FIRST.with(|&first| first)
    }

    /// Wakes one thread that sleeps on the word at `address`, which need not exist any more.
    pub(crate) fn wake(address: *const AtomicU32) {
        // SAFETY: FUTEX_WAKE only uses the address as a key; the kernel reads nothing there.
        unsafe {
            libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1);
        }
    }
}

#[cfg(loom)]
mod system {
    use super::{AtomicU32, Deadline, Woken};
    use loom::sync::{Condvar, Mutex};

    loom::lazy_static! {
        /// One queue for all words, as below. Without timed sleeps, so that a lost wake is a deadlock,
        /// which loom reports.
        static ref SLEEPERS: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    /// A sleep with a deadline ends by it after others had a chance to run.
    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Woken {
        if deadline.is_some() {
            loom::thread::yield_now();
            return Woken::Time;
        }
        let guard = SLEEPERS.0.lock().expect("not poisoned");
        // Ordering: Relaxed, as in the kernel: the sleeper's own re-read is what synchronizes.
        if word.load(crate::sync::Ordering::Relaxed) == expected {
            drop(SLEEPERS.1.wait(guard));
        }
        Woken::Called
    }

    pub(crate) fn hears_signals() -> bool {
        false
    }

    pub(crate) fn wake(_address: *const AtomicU32) {
        drop(SLEEPERS.0.lock());
        SLEEPERS.1.notify_all();
    }
}

#[cfg(all(not(target_os = "linux"), not(loom)))]
mod system {
    use super::{AtomicU32, Deadline, Woken};
    use std::sync::Condvar;
    use std::time::Duration;

    /// One queue for all words: slow and right. Sleeps are cut into slices so that a signal is noticed.
    #[expect(clippy::disallowed_types, reason = "a leaf lock: nothing is taken or called under it")]
    static SLEEPERS: (std::sync::Mutex<()>, Condvar) = (std::sync::Mutex::new(()), Condvar::new());
    const SLICE: Duration = Duration::from_millis(20);

    pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Woken {
        let left = deadline.map_or(SLICE, |at| at.left().min(SLICE));
        if left.is_zero() {
            return Woken::Time;
        }
        let guard = SLEEPERS.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Ordering: Acquire pairs with the Release store of the waker; the queue's lock orders the
        // check against the notify, so that no wake falls between them.
        if word.load(crate::sync::Ordering::Acquire) == expected {
            drop(SLEEPERS.1.wait_timeout(guard, left));
            return Woken::Signal;
        }
        Woken::Called
    }

    /// Each sleep is a slice already.
    pub(crate) fn hears_signals() -> bool {
        false
    }

    pub(crate) fn wake(_address: *const AtomicU32) {
        drop(SLEEPERS.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        SLEEPERS.1.notify_all();
    }
}

use system::hears_signals;
pub(crate) use system::{wait, wake};

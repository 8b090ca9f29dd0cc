//! Sleeping on a word in shared memory, and waking who does, across processes. Linux's futex.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Why a sleep ended. All may be spurious: look at the word again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// The word had another value, or somebody woke us.
    Called,
    /// A signal came.
    Signal,
    /// The time was up.
    Time,
}

/// Sleeps while `*word == expected`, at most `time`.
///
/// # Blocking
/// The thread.
pub fn sleep(word: &AtomicU32, expected: u32, time: Option<Duration>) -> Slept {
    use rustix::io::Errno;
    let time = time.and_then(|time| rustix::thread::futex::Timespec::try_from(time).ok());
    match rustix::thread::futex::wait(word, rustix::thread::futex::Flags::empty(), expected, time.as_ref()) {
        Err(Errno::INTR) => Slept::Signal,
        Err(Errno::TIMEDOUT) => Slept::Time,
        _ => Slept::Called,
    }
}

/// Wakes at most `count` of those who sleep on `word`, in whatever process.
pub fn wake(word: &AtomicU32, count: u32) {
    let woken = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), count);
    debug_assert!(woken.is_ok(), "{woken:?}");
}

/// The least that a round trip between two processes can cost if both sleep, to compare others with: `rounds` times, one side
/// (`first`) sets the word, wakes the other, and sleeps until that has set it back. `word` is 0 before.
///
/// # Blocking
/// The thread.
pub fn ping_pong(word: &AtomicU32, rounds: u32, first: bool) {
    let (mine, theirs) = if first { (0, 1) } else { (1, 0) };
    for _ in 0..rounds {
        // Ordering: Acquire and Release. Each side sees what the other has done before.
        while word.load(Ordering::Acquire) != mine {
            sleep(word, theirs, None);
        }
        // Ordering: as above.
        word.store(theirs, Ordering::Release);
        wake(word, 1);
    }
}

//! Deadlock: nobody can ever go on. Looked for by the main thread while it waits without an end.
//!
//! It is one if at one instant every thread of the process sleeps in a wait of ours, without a time limit, and
//! nothing that is set can end one of these waits. The main thread sleeps in slices anyhow (futex.rs); after each
//! it looks. A look is a few loads as long as anybody is awake.
//!
//! **Why a look is exact.** Each thread has a state, asleep or not, and a number that changes whenever it gets up,
//! before it does anything. The look reads all numbers and states, then what is constant while all are asleep
//! (timers, number of threads), then all numbers and states again. If they are the same, and asleep, both times,
//! then each thread was asleep from its first reading to its second, so there was an instant, and a stretch of time
//! in the middle, in which all were. What was queued, claimed or due by then was seen by the second reading, since
//! nobody was there to take it away.
//!
//! **Who is a thread.** Workers, the clock thread, the monitor (which has no goroutine to wake), and the plain threads
//! that wait on something of ours. The system counts the threads of the process: if there are others, of whatever
//! kind, one of them might wake somebody, and the look says no.

use crate::sched;
use crate::threads;
use std::sync::atomic::{AtomicBool, Ordering, fence};

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Switches the detection of deadlocks on or off; it is on.
pub fn detect_deadlocks(on: bool) {
    // Ordering: Relaxed. A setting.
    ENABLED.store(on, Ordering::Relaxed);
}

/// Whether everybody sleeps for good. To be asked by a thread that waits, and shows it, without an end.
pub(crate) fn nobody_can_go_on() -> bool {
    // Ordering: Relaxed. A setting.
    if !ENABLED.load(Ordering::Relaxed) {
        return false;
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let Some(known) = look(&mut before) else { return false };
    // Ordering: SeqCst fences around what is read in the middle: see the module.
    fence(Ordering::SeqCst);
    if sched::something_is_set() || system::threads() != Some(known) {
        return false;
    }
    // Ordering: SeqCst, as above.
    fence(Ordering::SeqCst);
    look(&mut after) == Some(known) && before == after
}

/// How many threads are known and asleep; None if one is awake. Their numbers go to `turns`.
fn look(turns: &mut Vec<u64>) -> Option<usize> {
    Some(sched::asleep(turns)? + threads::asleep(turns)?)
}

#[cfg(all(target_os = "linux", not(loom)))]
mod system {
    /// How many threads the process has.
    pub(super) fn threads() -> Option<usize> {
        std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
    }
}

#[cfg(any(not(target_os = "linux"), loom))]
mod system {
    /// Nobody knows.
    pub(super) fn threads() -> Option<usize> {
        None
    }
}

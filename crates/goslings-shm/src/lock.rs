//! A lock that processes share, in one word, and what becomes of it when its holder dies.
//!
//! **Invariants**
//! * The word names the process that holds the lock: its number, and when it started, since numbers are used again. Both are
//!   written by the exchange that takes the lock, so there is no moment at which a holder is unknown.
//! * `WAITERS` is set while somebody sleeps, and stays set for a while after. Who slept takes the lock with the flag set, since
//!   others may sleep, too.
//! * Nobody but the kernel says that a process is dead. Who finds the holder dead takes the lock from it by an exchange: of
//!   several one succeeds.
//! * Other processes may write anything into the word. Then the lock is not held by whom it says, and that is all.
//!
//! ```text
//! word:  | 63 .. 32 start of the process | 31 WAITERS | 30 .. 0 number of the process |     0: free
//! ```

use crate::futex::{self, Slept};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const WAITERS: u64 = 1 << 31;
const NUMBER: u64 = WAITERS - 1;

/// This process, as words name it; 0: not known yet.
static ME: AtomicU64 = AtomicU64::new(0);

/// A word that is a lock, in shared memory.
#[derive(Debug)]
pub struct Lock<'a>(&'a AtomicU64);

impl<'a> Lock<'a> {
    /// The lock in `word`; 0 is an unlocked one.
    #[must_use]
    pub fn of(word: &'a AtomicU64) -> Lock<'a> {
        Lock(word)
    }

    /// Takes it if it is free. `slept`: the caller has waited for it.
    #[must_use]
    pub fn try_lock(&self, slept: bool) -> bool {
        let mine = me() | if slept { WAITERS } else { 0 };
        // Ordering: Acquire pairs with the Release in `unlock`: what the last holder has done is visible. Failure: held.
        self.0.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes it from a process that has died: the number of that one.
    #[must_use]
    pub fn take_from_dead(&self) -> Option<u32> {
        // Ordering: Relaxed. The exchange below decides.
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 || is_alive(word) {
            return None;
        }
        // Ordering: Acquire, as in `try_lock`, if the dead one had it from somebody. Failure: another was quicker.
        let taken = self.0.compare_exchange(word, me() | WAITERS, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then_some((word & NUMBER) as u32)
    }

    /// Sleeps until it may be free, at most `time`.
    ///
    /// # Blocking
    /// The thread.
    pub fn wait(&self, time: Duration) -> Slept {
        // Ordering: Relaxed. The exchange below and the kernel's own look decide.
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return Slept::Called;
        }
        let marked = word | WAITERS;
        // Ordering: Relaxed. It says only that somebody sleeps; the futex orders that against `unlock`. Failure: look again.
        if self.0.compare_exchange(word, marked, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Slept::Called;
        }
        futex::sleep(self.low(), marked as u32, Some(time))
    }

    /// Unlocks it. False: this process does not hold it.
    #[must_use]
    pub fn unlock(&self) -> bool {
        // Ordering: Relaxed. Nobody else gives away what is ours.
        let word = self.0.load(Ordering::Relaxed);
        if word & !WAITERS != me() {
            return false;
        }
        // Ordering: Release pairs with the Acquire in `try_lock`.
        if self.0.swap(0, Ordering::Release) & WAITERS != 0 {
            futex::wake(self.low(), 1);
        }
        true
    }

    /// The process that holds it, if somebody does.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        // Ordering: Relaxed. For people to read.
        let word = self.0.load(Ordering::Relaxed);
        (word != 0).then_some((word & NUMBER) as u32)
    }

    /// The half that the kernel compares.
    fn low(&self) -> &AtomicU32 {
        let at = std::ptr::from_ref(self.0).cast::<AtomicU32>();
        // SAFETY: the half of the word that has the small bits, in place as long as the word; only the kernel looks at it.
        unsafe { &*at.add(usize::from(cfg!(target_endian = "big"))) }
    }
}

/// How a word names this process.
fn me() -> u64 {
    // Ordering: Relaxed. All who find out find the same.
    let known = ME.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let number = std::process::id();
    let word = u64::from(number) | u64::from(started(number).unwrap_or(0)) << 32;
    // Ordering: Relaxed. As above.
    ME.store(word, Ordering::Relaxed);
    word
}

/// In a forked child: this is another process.
pub(crate) fn after_fork_child() {
    // Ordering: Relaxed. There is only this thread.
    ME.store(0, Ordering::Relaxed);
}

/// When a process started, in ticks since the system did; the low half. None: not to be found out.
fn started(number: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(ticks as u32)
}

/// Whether the process that `word` names lives. When in doubt, yes.
fn is_alive(word: u64) -> bool {
    let number = (word & NUMBER) as u32;
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return false };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH | Errno::INVAL) => return false,
        Err(_) => return true,
        Ok(process) => {
            let mut looked = [PollFd::new(&process, PollFlags::IN)];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            // Readable: it has ended, perhaps nobody has asked for its status yet.
            if let Ok(1..) = rustix::event::poll(&mut looked, Some(&at_once)) {
                return false;
            }
        }
    }
    let then = (word >> 32) as u32;
    then == 0 || started(number).is_none_or(|now| now == then)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::{Lock, WAITERS, is_alive, me, started};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn it_is_held_by_one() {
        let word = AtomicU64::new(0);
        let lock = Lock::of(&word);
        assert!(!lock.unlock());
        assert!(lock.try_lock(false) && !lock.try_lock(false));
        assert_eq!(lock.holder(), Some(std::process::id()));
        assert_eq!(lock.take_from_dead(), None);
        assert!(lock.unlock() && lock.holder().is_none());
    }

    #[test]
    fn threads_that_wait_get_it_one_after_another() {
        let (word, inside) = (AtomicU64::new(0), AtomicU64::new(0));
        let turn = || {
            for _ in 0..2000 {
                let (lock, mut slept) = (Lock::of(&word), false);
                while !lock.try_lock(slept) {
                    lock.wait(Duration::from_secs(60));
                    slept = true;
                }
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                std::thread::yield_now();
                inside.fetch_sub(1, Ordering::Relaxed);
                assert!(lock.unlock());
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(turn);
            }
        });
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_alive() {
        assert!(is_alive(me()) && is_alive(me() | WAITERS));
        let number = u64::from(std::process::id());
        let other_start = u64::from(started(std::process::id()).expect("ours") + 1);
        assert!(!is_alive(number | other_start << 32), "the number is another's by now");
        assert!(is_alive(number), "nobody knows when it started");
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let ended = u64::from(child.id()) | u64::from(started(child.id()).unwrap_or(0)) << 32;
        while is_alive(ended) {
            std::thread::yield_now();
        }
        child.wait().expect("a child");
        assert!(!is_alive(ended));
        assert!(!is_alive((WAITERS - 1) | 7 << 32), "garbage");
    }
}

//! Models of the state word and of a thread's sleep: one winner, no lost wake, and what the winner wrote
//! is seen.

use super::*;
use crate::sync::model;
use crate::watched::Watched;
use ::loom::sync::Arc;
use ::loom::thread;

/// A pointer to a waiter, to give to a waker; and what wakers write before they wake.
struct Shared {
    waiter: NonNull<Waiter>,
    note: Watched,
}

// SAFETY: as in the queues: the waiter stays in place until it was woken.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// As a waker of case `case` does it.
    fn serve(&self, case: u32) -> bool {
        // SAFETY: `wait` does not return before it has joined all wakers.
        let won = unsafe { self.waiter.as_ref() }.claim(case);
        if won {
            self.note.set(case);
            // SAFETY: won just now.
            unsafe { Wake::new(self.waiter) }.wake();
        }
        won
    }
}

/// Waits while each of `wakers` threads tries to serve; returns the outcome and how many won.
fn wait(wakers: u32, wait: Wait) -> (Outcome, usize) {
    let parker = Parker::new();
    assert!(parker.waiter().begin());
    let shared = Arc::new(Shared { waiter: parker.pointer(), note: Watched::new(99) });
    let threads: Vec<_> = (0..wakers)
        .map(|case| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.serve(case))
        })
        .collect();
    let outcome = at_once(parker.park(WaitReason::None.alone(), wait));
    if let Outcome::Case(case) = outcome {
        assert_eq!(shared.note.get(), case);
    }
    let won = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    (outcome, won.filter(|&won| won).count())
}

#[test]
fn a_wake_is_never_lost() {
    model(0, || assert_eq!(wait(1, Wait::Forever), (Outcome::Case(0), 1)));
}

#[test]
fn of_two_wakers_one_wins() {
    model(0, || {
        let (outcome, won) = wait(2, Wait::Forever);
        assert!(matches!(outcome, Outcome::Case(0 | 1)));
        assert_eq!(won, 1);
    });
}

#[test]
fn time_and_a_waker_agree_who_won() {
    model(0, || {
        let (outcome, won) = wait(1, Wait::Until(Deadline(0)));
        assert_eq!(won == 1, outcome == Outcome::Case(0));
        assert!(won == 1 || outcome == Outcome::TimedOut);
    });
}

#[test]
fn a_parker_waits_again() {
    model(0, || {
        let parker = Parker::new();
        for wait in [Wait::Until(Deadline(0)), Wait::Forever] {
            assert!(parker.waiter().begin());
            let shared = Arc::new(Shared { waiter: parker.pointer(), note: Watched::new(0) });
            let thread = thread::spawn(move || shared.serve(1));
            let served = at_once(parker.park(WaitReason::None.alone(), wait)) == Outcome::Case(1);
            assert_eq!(thread.join().expect("no panic"), served);
        }
    });
}

#[test]
fn a_cancellation_strikes_exactly_once() {
    model(0, || {
        // Only goroutines are cancelled, and models have none: this is the word alone.
        let waiter = Arc::new(Waiter::new(Kind::Thread));
        let other = Arc::clone(&waiter);
        let thread = thread::spawn(move || other.request_cancel());
        let mut struck = 0;
        if waiter.begin() {
            if waiter.claim(0) {
                struck += u32::from(waiter.finish() == Outcome::Cancelled);
            } else {
                assert_eq!(waiter.finish(), Outcome::Cancelled);
                struck += 1;
            }
        } else {
            struck += 1;
        }
        thread.join().expect("no panic");
        struck += u32::from(waiter.take_cancel());
        assert_eq!(struck, 1);
        assert!(!waiter.take_cancel());
    });
}

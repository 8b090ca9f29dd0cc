//! Models of how a goroutine without a stack leaves its worker while it is woken, and is abandoned while it is
//! served: it is queued by one side, once, and nobody uses a node after its end.

use super::*;
use crate::sync::model;
use crate::task::Job;
use crate::watched::Watched;
use ::loom::sync::Arc as LoomArc;
use ::loom::thread;

struct Shared {
    task: Arc<Task>,
    /// What a waker writes into the waiter's node.
    note: Watched,
}

fn shared() -> LoomArc<Shared> {
    let task = Task::new(Task::reserve_id(), Job::new(|| {}), std::ptr::null_mut(), None);
    LoomArc::new(Shared { task, note: Watched::new(0) })
}

/// As a waker does it; true if it is the one to queue the task.
fn serve(shared: &Shared, note: u32) -> Option<bool> {
    if !shared.task.waiter().claim(0) {
        return None;
    }
    shared.note.set(note);
    Some(shared.task.wake())
}

#[test]
fn one_side_queues_it() {
    model(0, || {
        let shared = shared();
        assert!(shared.task.waiter().begin());
        let waker = {
            let shared = LoomArc::clone(&shared);
            thread::spawn(move || serve(&shared, 7))
        };
        let left = shared.task.leave();
        if !left {
            // Woken meanwhile: it goes on at once, and sees what the waker wrote.
            assert!(shared.task.was_woken());
            assert_eq!(shared.note.get(), 7);
        }
        let queued = waker.join().expect("no panic").expect("nobody else claims");
        assert_eq!(left, queued, "it left, and the waker queues it; or it stayed, and nobody does");
        assert_eq!(shared.note.get(), 7);
        shared.task.forget_wake();
        assert_eq!(shared.task.waiter().finish(), Outcome::Case(0));
    });
}

#[test]
fn of_two_wakers_one_queues_it() {
    model(0, || {
        let shared = shared();
        assert!(shared.task.waiter().begin());
        let wakers: Vec<_> = (1..=2)
            .map(|note| {
                let shared = LoomArc::clone(&shared);
                thread::spawn(move || serve(&shared, note))
            })
            .collect();
        let left = shared.task.leave();
        let served: Vec<_> = wakers.into_iter().filter_map(|waker| waker.join().expect("no panic")).collect();
        assert_eq!(served, [left]);
    });
}

#[test]
fn who_is_abandoned_waits_for_a_waker_that_was_first() {
    model(0, || {
        let shared = shared();
        assert!(shared.task.waiter().begin());
        let waker = {
            let shared = LoomArc::clone(&shared);
            thread::spawn(move || serve(&shared, 7))
        };
        if shared.task.waiter().claim_abandoned() {
            assert!(!shared.task.wake(), "it has not left");
        }
        while !shared.task.was_woken() {
            thread::yield_now();
        }
        // From here on the node may go.
        let note = shared.note.get();
        let outcome = shared.task.waiter().finish();
        assert_eq!(outcome, if note == 7 { Outcome::Case(0) } else { Outcome::Abandoned });
        assert_eq!(waker.join().expect("no panic").is_some(), note == 7);
    });
}

//! Models of the wait group: who waits sees what was done, and is always released.

use super::*;
use crate::sync::model;
use crate::watched::Watched;
use ::loom::sync::Arc;
use ::loom::thread;

struct Work {
    group: WaitGroup,
    parts: [Watched; 2],
}

#[test]
fn who_waits_sees_what_was_done() {
    model(0, || {
        let parts = [Watched::new(0), Watched::new(0)];
        let work = Arc::new(Work { group: WaitGroup::new(), parts });
        work.group.add(2).expect("positive");
        let threads = [0, 1].map(|part| {
            let work = Arc::clone(&work);
            thread::spawn(move || {
                work.parts[part].set(1);
                work.group.done().expect("added");
            })
        });
        work.group.wait(Wait::Forever).expect("a plain thread");
        for part in &work.parts {
            assert_eq!(part.get(), 1);
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

#[test]
fn it_can_be_used_again_before_its_waiter_has_returned() {
    model(0, || {
        let group = Arc::new(WaitGroup::new());
        group.add(1).expect("positive");
        let waiter = Arc::clone(&group);
        let thread = thread::spawn(move || waiter.wait(Wait::Forever));
        group.done().expect("added");
        group.add(1).expect("positive");
        group.done().expect("added");
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        assert_eq!(group.count(), 0);
    });
}

#[test]
fn a_waiter_that_times_out_takes_nobody_along() {
    model(0, || {
        let group = Arc::new(WaitGroup::new());
        group.add(1).expect("positive");
        let hasty = Arc::clone(&group);
        let hasty = thread::spawn(move || hasty.wait(Wait::Until(crate::clock::Deadline(0))));
        let done = Arc::clone(&group);
        let done = thread::spawn(move || done.done());
        assert_eq!(group.wait(Wait::Forever), Ok(()));
        assert_eq!(done.join().expect("no panic"), Ok(()));
        let _ = hasty.join().expect("no panic");
    });
}

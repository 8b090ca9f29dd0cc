//! Changing the number of workers while they sleep. A file of its own: the number is the process's.

#![cfg(not(miri))] // It cannot switch stacks.

use goslings::{Chan, Job, Wait, procs, set_procs, spawn, stats};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts so many goroutines that wait for each other, from this thread, and waits for them.
fn start_and_meet(number: usize) {
    let (here, go_on) = (Arc::new(Chan::new(number)), Arc::new(Chan::<()>::new(0)));
    for _ in 0..number {
        let (here, go_on) = (Arc::clone(&here), Arc::clone(&go_on));
        spawn(Job::new(move || {
            here.try_send(()).expect("room");
            assert!(go_on.recv(Wait::Forever).is_err());
            here.send((), Wait::Forever).expect("open");
        }));
    }
    for half in 0..2 {
        for _ in 0..number {
            let met = here.recv(Wait::at_most(Duration::from_secs(30)));
            assert_eq!(met, Ok(()), "a goroutine was not started (half {half})");
        }
        if half == 0 {
            go_on.close().expect("once");
        }
    }
}

#[test]
fn a_call_for_a_worker_reaches_one_that_may_come() {
    set_procs(4);
    assert_eq!(procs(), 4);
    // Busy enough for all four to exist.
    let deadline = Instant::now() + Duration::from_secs(30);
    while stats().workers < 4 && Instant::now() < deadline {
        for _ in 0..8 {
            spawn(Job::new(|| std::thread::sleep(Duration::from_millis(1))));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for round in 0..200 {
        set_procs([1, 3, 2, 4][round % 4]);
        if round % 3 == 0 {
            // Long enough for all to fall asleep.
            std::thread::sleep(Duration::from_millis(1));
        }
        start_and_meet(1 + round % 5);
    }
    set_procs(1);
    std::thread::sleep(Duration::from_millis(20));
    start_and_meet(1);
}

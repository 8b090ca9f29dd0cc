//! Nobody starves behind a goroutine that holds its worker. A file of its own: the number of workers is the process's.

#![cfg(not(miri))] // It cannot switch stacks.

use goslings::{Job, held, procs, set_procs, set_slice, spawn, stats};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn goroutines_that_hold_their_workers_get_spare_ones_and_these_retire() {
    const BLOCKERS: usize = 5;
    set_procs(1);
    // Each holds its thread until all have come: so all run at once, though there is one worker for them.
    let meeting = Arc::new(Barrier::new(BLOCKERS + 1));
    let (ends, ended) = mpsc::channel();
    let numbers: Vec<u64> = (0..BLOCKERS)
        .map(|_| {
            let (meeting, ends) = (Arc::clone(&meeting), ends.clone());
            let task = spawn(Job::new(move || {
                meeting.wait();
                meeting.wait();
                ends.send(()).expect("somebody listens");
            }));
            task.id()
        })
        .collect();
    meeting.wait();
    assert_eq!(procs(), 1, "spare workers do not count");
    assert!(stats().workers >= BLOCKERS);
    until("all are known to hold their workers", || {
        let held = held();
        numbers.iter().all(|number| held.iter().any(|hold| hold.goroutine == *number && hold.held_ns > 0))
    });
    // Others are served meanwhile.
    let others = ends.clone();
    spawn(Job::new(move || others.send(()).expect("somebody listens")));
    ended.recv_timeout(Duration::from_secs(30)).expect("it ran beside those that hold their workers");
    meeting.wait();
    for _ in 0..BLOCKERS {
        ended.recv_timeout(Duration::from_secs(30)).expect("it ended");
    }
    until("nobody holds a worker", || stats().held == 0);
    assert!(stats().longest_hold_ns > 0);

    // Switched off, a goroutine that holds the only worker holds up the others; switched on again, it does not.
    // A look comes every slice, so some time after the last hold the first worker is the only one again. A spare may
    // have been about to look for work when it was retired, hence the rest.
    until("the spares have retired", || {
        let first = starts_on();
        (0..20).all(|_| starts_on() == first) && stats().takers == 1
    });
    set_slice(0);
    let (release, wait) = mpsc::channel::<()>();
    let begun = ends.clone();
    spawn(Job::new(move || {
        begun.send(()).expect("somebody listens");
        let _ = wait.recv();
    }));
    ended.recv_timeout(Duration::from_secs(30)).expect("it began");
    let other = ends.clone();
    spawn(Job::new(move || other.send(()).expect("somebody listens")));
    assert!(ended.recv_timeout(Duration::from_millis(100)).is_err(), "nobody looks");
    set_slice(5_000_000);
    ended.recv_timeout(Duration::from_secs(30)).expect("somebody looks again");
    drop(release);
}

/// The thread that a new goroutine starts on.
fn starts_on() -> std::thread::ThreadId {
    let (tell, told) = mpsc::channel();
    spawn(Job::new(move || tell.send(std::thread::current().id()).expect("somebody listens")));
    told.recv_timeout(Duration::from_secs(30)).expect("it ran")
}

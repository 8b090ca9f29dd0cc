//! Goroutines without a stack, and tasks of a foreign loop, as a host makes them.

use super::*;
use crate::chan::{Chan, RecvError};
use crate::task::{Job, JobVTable, Step};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc;
use std::time::Duration;

/// What a goroutine without a stack does: called until it says that it is done.
type Body = Box<dyn FnMut() -> Step + Send>;

fn spawn(body: impl FnMut() -> Step + Send + 'static) {
    unsafe fn step(data: *mut ()) -> Step {
        // SAFETY: made below; nobody else uses it.
        let went = unsafe { (*data.cast::<Body>())() };
        if went == Step::Done {
            // SAFETY: as above; this was the last step.
            drop(unsafe { Box::from_raw(data.cast::<Body>()) });
        }
        went
    }
    unsafe fn never(_data: *mut ()) {
        unreachable!("it needs no stack")
    }
    static TABLE: JobVTable = JobVTable { run: never, no_stack: never, drop: never, step: Some(step) };
    let body: Body = Box::new(body);
    // SAFETY: a boxed Body is Send, and `step` consumes it at its end.
    sched::spawn(unsafe { Job::from_raw(Box::into_raw(Box::new(body)).cast(), &TABLE) });
}

/// Receives until the channel is closed; hands the sum to `done`.
fn spawn_adder(chan: Arc<Chan<u64>>, done: mpsc::Sender<u64>) {
    let mut sum = 0;
    let mut call: Option<Waiting<Result<u64, RecvError>>> = None;
    spawn(move || {
        loop {
            let current = call.get_or_insert_with(|| {
                recv(Arc::clone(&chan), Wait::Forever, Caller::current_task().expect("in a goroutine"))
            });
            match current.poll() {
                None => return Step::Waiting,
                Some(Ok(value)) => sum += value,
                Some(Err(error)) => {
                    assert_eq!(error, RecvError::Closed);
                    done.send(sum).expect("the test waits");
                    return Step::Done;
                }
            }
            call = None;
        }
    });
}

#[test]
fn values_from_threads_and_goroutines_arrive_once() {
    const EACH: u64 = 2_000;
    let chan = Arc::new(Chan::new(3));
    let (done, sums) = mpsc::channel();
    for _ in 0..8 {
        spawn_adder(Arc::clone(&chan), done.clone());
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let chan = Arc::clone(&chan);
            std::thread::spawn(move || (1..=EACH).for_each(|i| chan.send(i, Wait::Forever).expect("open")))
        })
        .collect();
    let group = Arc::new(crate::WaitGroup::new());
    for _ in 0..4 {
        group.add(1).expect("counts");
        let (chan, group) = (Arc::clone(&chan), Arc::clone(&group));
        sched::spawn(Job::new(move || {
            (1..=EACH).for_each(|i| chan.send(i, Wait::Forever).expect("open"));
            group.done().expect("counts");
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    group.wait(Wait::Forever).expect("no cancellation");
    chan.close().expect("once");
    let sum: u64 = (0..8).map(|_| sums.recv().expect("each ends")).sum();
    assert_eq!(sum, 8 * EACH * (EACH + 1) / 2);
}

#[test]
fn who_gives_way_comes_back() {
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    let (done, ended) = mpsc::channel();
    for _ in 0..10 {
        let done = done.clone();
        let mut left = 100;
        spawn(move || {
            // Ordering: Relaxed. A count, read after all have ended.
            STEPS.fetch_add(1, Ordering::Relaxed);
            left -= 1;
            if left == 0 {
                done.send(()).expect("the test waits");
                return Step::Done;
            }
            Step::Waiting
        });
    }
    (0..10).for_each(|_| ended.recv().expect("each ends"));
    // Ordering: Relaxed. As above.
    assert_eq!(STEPS.load(Ordering::Relaxed), 1000);
}

/// A foreign loop's port, and a way to wait for the next key.
fn port() -> (Arc<Port>, mpsc::Receiver<()>) {
    let (rung, rings) = mpsc::channel();
    (Port::new(move || rung.send(()).expect("the test waits")), rings)
}

#[test]
fn a_foreign_loop_hears_of_the_end_and_of_timeouts() {
    static KEY: AtomicU64 = AtomicU64::new(7);
    let (port, rings) = port();
    let chan = Arc::new(Chan::new(0));
    // Ordering: Relaxed. Only a number.
    let key = KEY.fetch_add(1, Ordering::Relaxed);
    let caller = Caller::Foreign(Foreign::new(Arc::clone(&port), key));
    let mut call = recv(Arc::clone(&chan), Wait::Forever, caller);
    assert!(call.poll().is_none());
    chan.send(5, Wait::Forever).expect("somebody receives");
    rings.recv().expect("a ring");
    assert_eq!(port.take(), [key]);
    assert_eq!(call.poll(), Some(Ok(5)));

    let caller = Caller::Foreign(Foreign::new(Arc::clone(&port), 1));
    let mut call = recv(Arc::clone(&chan), Wait::at_most(Duration::from_millis(1)), caller);
    assert!(call.poll().is_none());
    rings.recv().expect("a ring");
    assert_eq!(port.take(), [1]);
    assert_eq!(call.poll(), Some(Err(RecvError::TimedOut)));
}

#[test]
fn a_call_that_is_cancelled_or_dropped_leaves_nothing_behind() {
    let (port, _rings) = port();
    let chan: Arc<Chan<i32>> = Arc::new(Chan::new(0));
    let caller = || Caller::Foreign(Foreign::new(Arc::clone(&port), 1));
    let mut call = recv(Arc::clone(&chan), Wait::Forever, caller());
    assert!(call.poll().is_none());
    assert_eq!(call.cancel(), Some(Err(RecvError::Cancelled)));
    let mut call = recv(Arc::clone(&chan), Wait::Forever, caller());
    assert!(call.poll().is_none());
    drop(call);
    let mut served = recv(Arc::clone(&chan), Wait::Forever, caller());
    assert!(served.poll().is_none());
    // The first two would be served before this one.
    chan.send(3, Wait::Forever).expect("somebody receives");
    assert_eq!(served.cancel(), Some(Ok(3)), "served before it was cancelled");
    let mut call = send(Arc::clone(&chan), 4, Wait::Forever, caller());
    assert!(call.poll().is_none());
    drop(call);
    assert!(chan.try_recv().is_err());
}

#[test]
fn an_abandoned_wait_of_a_cond_ends_without_its_mutex() {
    let (port, _rings) = port();
    let (cond, mutex) = (Arc::new(crate::Cond::new()), Arc::new(crate::Mutex::new()));
    let caller = Caller::Foreign(Foreign::new(port, 1));
    assert!(mutex.try_lock());
    let mut call = await_cond(Arc::clone(&cond), Arc::clone(&mutex), Wait::Forever, caller);
    assert!(call.poll().is_none());
    assert!(mutex.try_lock(), "the wait has unlocked it");
    assert!(call.cancel().is_none(), "it has to lock it again first");
    drop(call);
    assert_eq!(mutex.unlock(), Ok(()));
    assert!(mutex.try_lock(), "nobody is in line");
}

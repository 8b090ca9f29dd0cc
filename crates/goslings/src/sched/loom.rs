//! Models of the inbox and of how workers sleep: work that was brought is always found.

use super::idle::{Bed, Idle};
use super::monitor::Monitor;
use super::runq::Inbox;
use super::worker::Shared;
use crate::net::NetPoll;
use crate::sync::{AtomicU32, Ordering, model};
use crate::task::{Job, Task};
use ::loom::sync::Arc;
use ::loom::thread;
use std::collections::VecDeque;
use std::ptr;

fn task() -> *mut Task {
    std::sync::Arc::into_raw(Task::new(Task::reserve_id(), Job::new(|| {}), ptr::null_mut(), None)).cast_mut()
}

fn drop_all(tasks: &mut VecDeque<*mut Task>) -> usize {
    let count = tasks.len();
    for task in tasks.drain(..) {
        // SAFETY: made by `task`, and given to the inbox, whose reference is ours now.
        drop(unsafe { std::sync::Arc::from_raw(task.cast_const()) });
    }
    count
}

/// Addresses, so that they may travel.
fn push(inbox: &Inbox, task: usize) {
    // SAFETY: a new task that is in no queue.
    unsafe { inbox.push(ptr::with_exposed_provenance_mut(task)) };
}

#[test]
fn an_inbox_keeps_every_task_and_each_pushers_order() {
    model(0, || {
        let inbox = Arc::new(Inbox::new());
        let tasks = [(); 3].map(|()| task().expose_provenance());
        let first = Arc::clone(&inbox);
        let first = thread::spawn(move || {
            push(&first, tasks[0]);
            push(&first, tasks[1]);
        });
        let second = Arc::clone(&inbox);
        let second = thread::spawn(move || push(&second, tasks[2]));
        let mut taken = VecDeque::new();
        inbox.take(&mut taken);
        first.join().expect("no panic");
        second.join().expect("no panic");
        inbox.take(&mut taken);
        let place = |task: usize| taken.iter().position(|&other| other.addr() == task);
        assert!(place(tasks[0]) < place(tasks[1]), "out of order");
        assert_eq!(drop_all(&mut taken), 3);
        assert!(inbox.is_empty());
    });
}

#[test]
fn a_worker_never_sleeps_beside_a_full_inbox() {
    model(0, || {
        let shared = Arc::new((Inbox::new(), Bed::new()));
        let waker = Arc::clone(&shared);
        let task = task().expose_provenance();
        let thread = thread::spawn(move || {
            push(&waker.0, task);
            waker.1.wake();
        });
        let mut taken = VecDeque::new();
        while taken.is_empty() {
            shared.1.announce();
            if shared.0.is_empty() {
                shared.1.sleep();
            }
            shared.1.rise();
            shared.0.take(&mut taken);
        }
        thread.join().expect("no panic");
        assert_eq!(drop_all(&mut taken), 1);
    });
}

#[test]
fn a_worker_never_sleeps_in_its_poller_beside_a_full_inbox() {
    model(0, || {
        let net = NetPoll::alone();
        let awaited = net.await_one();
        let shared = Arc::new((Inbox::new(), Bed::with_net(net)));
        let waker = Arc::clone(&shared);
        let tasks = [(); 2].map(|()| task().expose_provenance());
        let thread = thread::spawn(move || {
            for task in tasks {
                push(&waker.0, task);
                waker.1.wake();
            }
        });
        let mut taken = VecDeque::new();
        let mut awaited = Some(awaited);
        while taken.len() < 2 {
            shared.1.announce();
            if shared.0.is_empty() {
                shared.1.sleep();
            }
            shared.1.rise();
            shared.0.take(&mut taken);
            // The first one was who waited: then the worker sleeps on the word, and a late ring does no harm.
            awaited = awaited.filter(|_| taken.is_empty());
        }
        thread.join().expect("no panic");
        assert_eq!(drop_all(&mut taken), 2);
    });
}

/// Stands for the deques: how many fresh goroutines there are.
struct Work {
    idle: Idle,
    fresh: AtomicU32,
}

impl Work {
    fn new() -> Arc<Work> {
        Arc::new(Work { idle: Idle::new(), fresh: AtomicU32::new(0) })
    }

    fn bring(&self) {
        // Ordering: Relaxed. The protocol's fences have to do it.
        self.fresh.fetch_add(1, Ordering::Relaxed);
        self.idle.notify();
    }

    fn take(&self) -> bool {
        // Ordering: Relaxed. As above.
        let found = self.fresh.load(Ordering::Relaxed);
        // Ordering: Relaxed. As above.
        found > 0
            && self.fresh.compare_exchange(found, found - 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A worker's life until it has found one goroutine: `Worker::rest` and `found` without the rest.
    fn work_once(&self, shared: &'static Shared) {
        self.idle.start_searching();
        while !self.take() {
            self.idle.stop_searching();
            shared.bed.announce();
            self.idle.enter(shared);
            // Ordering: Relaxed. As above.
            if self.fresh.load(Ordering::Relaxed) == 0 {
                shared.bed.sleep();
            }
            shared.bed.rise();
            self.idle.leave(shared);
        }
        // Ordering: Relaxed. As above.
        if self.idle.stop_searching_with_work() && self.fresh.load(Ordering::Relaxed) > 0 {
            self.idle.notify();
        }
    }
}

/// What a worker shows of itself; leaked, as in the program.
fn shared() -> &'static Shared {
    let deque = crossbeam_deque::Worker::new_fifo();
    Box::leak(Box::new(Shared {
        index: 0,
        inbox: Inbox::new(),
        bed: Bed::new(),
        stealer: deque.stealer(),
        counts: super::worker::Counts::default(),
        watch: super::monitor::Watch::new(),
        placed: crossbeam_deque::Injector::new(),
        handed: std::sync::atomic::AtomicPtr::default(),
    }))
}

#[test]
fn fresh_work_finds_a_sleeper() {
    model(0, || {
        let work = Work::new();
        let worker = Arc::clone(&work);
        let thread = thread::spawn(move || worker.work_once(shared()));
        work.bring();
        thread.join().expect("no panic");
    });
}

#[test]
fn two_pieces_of_work_find_two_workers() {
    model(0, || {
        let work = Work::new();
        let threads = [(); 2].map(|()| {
            let work = Arc::clone(&work);
            thread::spawn(move || work.work_once(shared()))
        });
        work.bring();
        work.bring();
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

#[test]
fn the_monitor_does_not_sleep_beside_a_worker_that_is_up() {
    model(0, || {
        let shared = Arc::new((Monitor::new(), Bed::new()));
        let worker = Arc::clone(&shared);
        shared.1.announce();
        let thread = thread::spawn(move || {
            worker.1.rise();
            worker.0.ring();
        });
        // Returns only when somebody is up; a lost ring is a deadlock, which loom reports.
        shared.0.doze(std::iter::once(&shared.1));
        thread.join().expect("no panic");
    });
}

#[test]
fn a_worker_that_gets_up_while_another_lies_down_is_seen() {
    model(0, || {
        let shared = Arc::new((Monitor::new(), Bed::new(), Bed::new()));
        shared.1.announce();
        let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
        let up = thread::spawn(move || {
            up.1.rise();
            up.0.ring();
        });
        let down = thread::spawn(move || down.2.announce());
        shared.0.doze([&shared.1, &shared.2].into_iter());
        up.join().expect("no panic");
        down.join().expect("no panic");
    });
}

//! Synchronisation objects between goroutines and threads: order, accounting, and waits that fail.

#![cfg(not(miri))] // It cannot switch stacks.

use goslings::{
    AcquireError, Barrier, BarrierError, Chan, Cond, CondError, Event, Job, Mutex, Negative, NotLocked,
    RwMutex, Semaphore, Task, TooMany, Wait, WaitError, WaitGroup, WaitReason, spawn, yield_now,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(10);

fn soon() -> Wait {
    Wait::at_most(SHORT)
}

/// Long enough for anything that works.
fn at_last() -> Wait {
    Wait::at_most(Duration::from_secs(60))
}

fn go(body: impl FnOnce() + Send + 'static) -> Arc<Task> {
    spawn(Job::new(body))
}

/// Starts a goroutine and hands its result to a channel.
fn go_for<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> (Arc<Task>, Arc<Chan<T>>) {
    let answer = Arc::new(Chan::new(1));
    let sender = Arc::clone(&answer);
    // Not `send`, where a cancellation that is still pending would strike.
    (go(move || assert!(sender.try_send(body()).is_ok())), answer)
}

/// Waits until a goroutine waits for that reason; not for how long, but for the fact.
fn until_waits(task: &Task, reason: WaitReason) {
    until(|| task.reason() == reason);
}

fn until(mut reached: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_micros(200));
    }
}

/// A number whose changes get lost unless a lock keeps them apart.
#[derive(Default)]
struct Unguarded(AtomicU64);

impl Unguarded {
    fn add(&self, number: u64) {
        let sum = self.get().wrapping_add(number);
        std::hint::spin_loop();
        self.0.store(sum, Relaxed);
    }
    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Runs `body` in so many threads and goroutines each, and waits for all of them.
fn everybody(threads: usize, goroutines: usize, body: impl Fn(usize) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let group = Arc::new(WaitGroup::new());
    group.add(goroutines as i64).expect("positive");
    for index in 0..goroutines {
        let (body, group) = (Arc::clone(&body), Arc::clone(&group));
        go(move || {
            body(index);
            group.done().expect("added");
        });
    }
    let threads: Vec<_> = (0..threads)
        .map(|index| {
            let body = Arc::clone(&body);
            thread::spawn(move || body(goroutines + index))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    group.wait(at_last()).expect("the goroutines end");
}

#[test]
fn a_mutex_excludes() {
    let shared = Arc::new((Mutex::new(), Unguarded::default()));
    let inner = Arc::clone(&shared);
    everybody(3, 20, move |index| {
        for turn in 0..500 {
            inner.0.lock(Wait::Forever).expect("nobody cancels");
            inner.1.add(1);
            if (turn + index) % 50 == 0 {
                yield_now();
            }
            inner.0.unlock().expect("locked");
        }
    });
    assert_eq!(shared.1.get(), 23 * 500);
    assert!(!shared.0.is_locked());
}

#[test]
fn a_mutex_has_no_owner_and_refuses_a_second_unlock() {
    let mutex = Arc::new(Mutex::new());
    mutex.lock(Wait::Forever).expect("free");
    assert!(!mutex.try_lock());
    assert_eq!(mutex.lock(Wait::No), Err(WaitError::TimedOut));
    let inner = Arc::clone(&mutex);
    let (_, answer) = go_for(move || (inner.unlock(), inner.unlock()));
    assert_eq!(answer.recv(at_last()), Ok((Ok(()), Err(NotLocked))));
    assert!(mutex.try_lock());
    assert_eq!(mutex.unlock(), Ok(()));
    assert_eq!(mutex.unlock(), Err(NotLocked));
}

#[test]
fn a_mutex_is_handed_over_to_who_waited_long() {
    // Nobody can see from outside that the waiter is queued; so it gets more and more time until it was.
    let handed_over = (0..10).any(|attempt| {
        let mutex = Arc::new(Mutex::new());
        mutex.lock(Wait::Forever).expect("free");
        let inner = Arc::clone(&mutex);
        let waiter = thread::spawn(move || inner.lock(at_last()));
        thread::sleep(Duration::from_millis(20 << attempt));
        mutex.unlock().expect("locked");
        let newcomer = mutex.try_lock();
        if newcomer {
            mutex.unlock().expect("locked by the newcomer");
        }
        assert_eq!(waiter.join().expect("no panic"), Ok(()));
        mutex.unlock().expect("locked by the waiter");
        assert!(mutex.try_lock());
        !newcomer
    });
    assert!(handed_over, "a newcomer took a lock that should have been handed over");
}

#[test]
fn a_greedy_locker_starves_nobody() {
    let mutex = Arc::new(Mutex::new());
    let stop = Arc::new(Event::new());
    let (inner, end) = (Arc::clone(&mutex), Arc::clone(&stop));
    let greedy = thread::spawn(move || {
        while !end.is_set() {
            inner.lock(Wait::Forever).expect("nobody cancels");
            thread::sleep(Duration::from_micros(100));
            inner.unlock().expect("locked");
        }
    });
    let inner = Arc::clone(&mutex);
    let (_, answer) = go_for(move || {
        for _ in 0..10 {
            inner.lock(at_last()).expect("in time");
            inner.unlock().expect("locked");
        }
    });
    assert_eq!(answer.recv(at_last()), Ok(()));
    stop.set();
    greedy.join().expect("no panic");
}

#[test]
fn waits_for_a_mutex_that_fail_leave_it_alone() {
    let mutex = Arc::new(Mutex::new());
    mutex.lock(Wait::Forever).expect("free");
    assert_eq!(mutex.lock(soon()), Err(WaitError::TimedOut));
    let inner = Arc::clone(&mutex);
    let (task, answer) = go_for(move || inner.lock(Wait::Forever));
    until_waits(&task, WaitReason::MutexLock);
    task.cancel();
    assert_eq!(answer.recv(at_last()), Ok(Err(WaitError::Cancelled)));
    mutex.unlock().expect("still locked");
    assert!(mutex.try_lock(), "a waiter that had left was given the lock");
}

#[test]
fn cancelling_and_timing_out_around_a_mutex_loses_no_turn() {
    let shared = Arc::new((Mutex::new(), Unguarded::default(), AtomicUsize::new(0)));
    let inner = Arc::clone(&shared);
    let group = Arc::new(WaitGroup::new());
    let tasks: Vec<_> = (0..20)
        .map(|index| {
            let (inner, group) = (Arc::clone(&inner), Arc::clone(&group));
            group.add(1).expect("positive");
            go(move || {
                for turn in 0..200 {
                    let wait = if (turn + index) % 3 == 0 {
                        Wait::at_most(Duration::from_micros(50))
                    } else {
                        Wait::Forever
                    };
                    if inner.0.lock(wait).is_ok() {
                        inner.1.add(1);
                        inner.2.fetch_add(1, SeqCst);
                        yield_now();
                        inner.0.unlock().expect("locked");
                    }
                }
                group.done().expect("added");
            })
        })
        .collect();
    for round in 0..300 {
        tasks[round % tasks.len()].cancel();
    }
    // Not cancellable, since it is a plain thread.
    group.wait(at_last()).expect("nobody hangs");
    assert!(shared.0.try_lock());
    assert_eq!(shared.1.get(), shared.2.load(SeqCst) as u64);
}

#[test]
fn an_rw_mutex_admits_readers_or_a_writer() {
    let shared = Arc::new((RwMutex::new(), Unguarded::default(), AtomicUsize::new(0)));
    let inner = Arc::clone(&shared);
    everybody(2, 12, move |index| {
        for turn in 0..300 {
            if (turn + index) % 4 == 0 {
                inner.0.lock(Wait::Forever).expect("nobody cancels");
                assert_eq!(inner.2.load(SeqCst), 0, "a writer beside a reader");
                inner.1.add(1);
                yield_now();
                inner.0.unlock().expect("locked");
            } else {
                inner.0.rlock(Wait::Forever).expect("nobody cancels");
                inner.2.fetch_add(1, SeqCst);
                std::hint::black_box(inner.1.get());
                yield_now();
                inner.2.fetch_sub(1, SeqCst);
                inner.0.runlock().expect("locked");
            }
        }
    });
    assert_eq!(shared.1.get(), 14 * 300 / 4);
    assert_eq!(shared.0.unlock(), Err(NotLocked));
    assert_eq!(shared.0.runlock(), Err(NotLocked));
}

#[test]
fn a_waiting_writer_holds_back_new_readers_until_it_gives_up() {
    let lock = Arc::new(RwMutex::new());
    lock.rlock(Wait::Forever).expect("free");
    let inner = Arc::clone(&lock);
    let (writer, wrote) = go_for(move || inner.lock(Wait::Forever));
    until_waits(&writer, WaitReason::RwMutexLock);
    assert!(!lock.try_rlock());
    assert!(!lock.try_lock());
    assert_eq!(lock.rlock(soon()), Err(WaitError::TimedOut));
    let inner = Arc::clone(&lock);
    let (reader, read) = go_for(move || inner.rlock(Wait::Forever));
    until_waits(&reader, WaitReason::RwMutexRLock);
    writer.cancel();
    assert_eq!(wrote.recv(at_last()), Ok(Err(WaitError::Cancelled)));
    assert_eq!(read.recv(at_last()), Ok(Ok(())), "a reader waited for a writer that had gone");
    assert_eq!((lock.runlock(), lock.runlock(), lock.runlock()), (Ok(()), Ok(()), Err(NotLocked)));
    assert!(lock.try_lock());
}

#[test]
fn waiting_readers_go_before_the_next_writer() {
    let lock = Arc::new(RwMutex::new());
    lock.lock(Wait::Forever).expect("free");
    let log = Arc::new(Chan::new(10));
    let start = |writer: bool| {
        let (lock, log) = (Arc::clone(&lock), Arc::clone(&log));
        let task = go(move || {
            if writer { lock.lock(Wait::Forever) } else { lock.rlock(Wait::Forever) }.expect("no cancel");
            log.try_send(writer).expect("room");
            if writer { lock.unlock() } else { lock.runlock() }.expect("locked");
        });
        until_waits(&task, if writer { WaitReason::RwMutexLock } else { WaitReason::RwMutexRLock });
    };
    start(true);
    for _ in 0..5 {
        start(false);
    }
    lock.unlock().expect("locked");
    let order: Vec<_> = (0..6).map(|_| log.recv(at_last()).expect("six")).collect();
    assert_eq!(order, [false, false, false, false, false, true]);
}

#[test]
fn a_wait_group_releases_everybody_and_can_be_used_again() {
    let group = Arc::new(WaitGroup::new());
    group.wait(Wait::No).expect("zero already");
    for round in 1..=3 {
        group.add(round).expect("positive");
        let released = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (group, released) = (Arc::clone(&group), Arc::clone(&released));
                go(move || {
                    group.wait(Wait::Forever).expect("nobody cancels");
                    released.fetch_add(1, SeqCst);
                })
            })
            .collect();
        for task in &tasks {
            until_waits(task, WaitReason::WaitGroupWait);
        }
        assert_eq!(group.wait(Wait::No), Err(WaitError::TimedOut));
        assert_eq!(group.wait(soon()), Err(WaitError::TimedOut));
        for _ in 0..round {
            assert_eq!(released.load(SeqCst), 0);
            group.done().expect("added");
        }
        until(|| released.load(SeqCst) == 20);
        assert_eq!(group.count(), 0);
    }
}

#[test]
fn a_wait_group_never_goes_below_zero() {
    let group = WaitGroup::new();
    assert_eq!(group.done(), Err(Negative));
    group.add(2).expect("positive");
    assert_eq!(group.add(-3), Err(Negative));
    assert_eq!(group.add(i64::MAX), Err(Negative));
    assert_eq!(group.add(i64::MIN), Err(Negative));
    assert_eq!(group.count(), 2);
    group.add(-2).expect("to zero");
    assert_eq!(group.wait(Wait::Forever), Ok(()));
}

#[test]
fn a_cancelled_wait_for_a_group_leaves_the_others_waiting() {
    let group = Arc::new(WaitGroup::new());
    group.add(1).expect("positive");
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let group = Arc::clone(&group);
            go_for(move || group.wait(Wait::Forever))
        })
        .collect();
    for (task, _) in &waiters {
        until_waits(task, WaitReason::WaitGroupWait);
    }
    waiters[1].0.cancel();
    assert_eq!(waiters[1].1.recv(at_last()), Ok(Err(WaitError::Cancelled)));
    group.done().expect("added");
    assert_eq!(waiters[0].1.recv(at_last()), Ok(Ok(())));
    assert_eq!(waiters[2].1.recv(at_last()), Ok(Ok(())));
}

#[test]
fn a_condition_wakes_in_order() {
    let pair = Arc::new((Mutex::new(), Cond::new()));
    let log = Arc::new(Chan::new(5));
    for index in 0..5 {
        let (pair, log) = (Arc::clone(&pair), Arc::clone(&log));
        let task = go(move || {
            pair.0.lock(Wait::Forever).expect("nobody cancels");
            pair.1.wait(&pair.0, Wait::Forever).expect("notified");
            log.try_send(index).expect("room");
            pair.0.unlock().expect("held on return");
        });
        until_waits(&task, WaitReason::CondWait);
    }
    for index in 0..5 {
        assert_eq!(log.len(), 0);
        pair.1.notify_one();
        assert_eq!(log.recv(at_last()), Ok(index));
    }
    pair.1.notify_one();
    pair.0.lock(at_last()).expect("free");
    let late = pair.1.wait(&pair.0, soon());
    assert_eq!(late, Err(CondError::Wait(WaitError::TimedOut)), "a notify for nobody was kept");
    assert_eq!(pair.0.unlock(), Ok(()));
    assert_eq!(pair.1.wait(&pair.0, Wait::Forever), Err(CondError::NotLocked));
}

#[test]
fn a_cancelled_waiter_holds_the_mutex_again_and_eats_no_notify() {
    let pair = Arc::new((Mutex::new(), Cond::new()));
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let pair = Arc::clone(&pair);
            let waiter = go_for(move || {
                pair.0.lock(Wait::Forever).expect("not cancelled yet");
                let result = pair.1.wait(&pair.0, Wait::Forever);
                (result, pair.0.unlock())
            });
            until_waits(&waiter.0, WaitReason::CondWait);
            waiter
        })
        .collect();
    // Cancelled while somebody else holds the mutex, and cancelled again while it waits for that.
    pair.0.lock(at_last()).expect("free");
    waiters[0].0.cancel();
    until_waits(&waiters[0].0, WaitReason::MutexLock);
    waiters[0].0.cancel();
    pair.1.notify_one();
    pair.0.unlock().expect("locked");
    let cancelled = Err(CondError::Wait(WaitError::Cancelled));
    assert_eq!(waiters[0].1.recv(at_last()), Ok((cancelled, Ok(()))));
    assert_eq!(waiters[1].1.recv(at_last()), Ok((Ok(()), Ok(()))));
    assert_eq!(waiters[2].1.try_recv(), Err(goslings::chan::TryRecvError::Empty));
    pair.1.notify_all();
    assert_eq!(waiters[2].1.recv(at_last()), Ok((Ok(()), Ok(()))));
}

#[test]
fn a_queue_of_mutex_and_conditions_loses_nothing() {
    struct Queue {
        mutex: Mutex,
        changed: Cond,
        count: Unguarded,
        taken: AtomicUsize,
    }
    let queue = Arc::new(Queue {
        mutex: Mutex::new(),
        changed: Cond::new(),
        count: Unguarded::default(),
        taken: AtomicUsize::new(0),
    });
    let inner = Arc::clone(&queue);
    everybody(2, 8, move |index| {
        for _ in 0..300 {
            inner.mutex.lock(Wait::Forever).expect("nobody cancels");
            if index % 2 == 0 {
                inner.count.add(1);
                inner.changed.notify_one();
            } else {
                while inner.count.get() == 0 {
                    // Times out now and then: that must not swallow a notify.
                    let _ = inner.changed.wait(&inner.mutex, Wait::at_most(Duration::from_millis(1)));
                }
                inner.count.add(u64::MAX);
                inner.taken.fetch_add(1, SeqCst);
            }
            inner.mutex.unlock().expect("held");
        }
    });
    assert_eq!((queue.taken.load(SeqCst), queue.count.get()), (5 * 300, 0));
}

#[test]
fn a_large_wish_holds_back_small_ones() {
    let semaphore = Arc::new(Semaphore::new(3));
    assert_eq!(semaphore.acquire(4, Wait::Forever), Err(AcquireError::TooMany));
    semaphore.acquire(1, Wait::Forever).expect("free");
    let inner = Arc::clone(&semaphore);
    let (large, all) = go_for(move || inner.acquire(3, Wait::Forever));
    until_waits(&large, WaitReason::SemaphoreAcquire);
    assert!(!semaphore.try_acquire(1), "overtook a waiter");
    assert_eq!(semaphore.acquire(1, soon()), Err(AcquireError::Wait(WaitError::TimedOut)));
    let inner = Arc::clone(&semaphore);
    let (small, one) = go_for(move || inner.acquire(1, Wait::Forever));
    until_waits(&small, WaitReason::SemaphoreAcquire);
    large.cancel();
    assert_eq!(all.recv(at_last()), Ok(Err(AcquireError::Wait(WaitError::Cancelled))));
    assert_eq!(one.recv(at_last()), Ok(Ok(())), "held back by a waiter that had gone");
    assert_eq!(semaphore.free(), 1);
    assert_eq!(semaphore.release(3), Err(TooMany));
    assert_eq!(semaphore.release(2), Ok(()));
    assert_eq!((semaphore.free(), semaphore.size()), (3, 3));
}

#[test]
fn a_semaphore_counts_right() {
    let shared = Arc::new((Semaphore::new(5), AtomicUsize::new(0)));
    let inner = Arc::clone(&shared);
    everybody(2, 12, move |index| {
        for turn in 0..300 {
            let number = (index + turn) % 5 + 1;
            let wait = if turn % 7 == 0 { Wait::at_most(Duration::from_micros(30)) } else { Wait::Forever };
            if inner.0.acquire(number as u64, wait).is_ok() {
                assert!(inner.1.fetch_add(number, SeqCst) + number <= 5, "more than there are");
                yield_now();
                inner.1.fetch_sub(number, SeqCst);
                inner.0.release(number as u64).expect("held");
            }
        }
    });
    assert_eq!(shared.0.free(), 5);
}

#[test]
fn an_event_releases_everybody_who_waits_even_if_cleared_at_once() {
    let event = Arc::new(Event::new());
    assert_eq!(event.wait(Wait::No), Err(WaitError::TimedOut));
    assert_eq!(event.wait(soon()), Err(WaitError::TimedOut));
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let event = Arc::clone(&event);
            go_for(move || event.wait(Wait::Forever))
        })
        .collect();
    for (task, _) in &waiters {
        until_waits(task, WaitReason::EventWait);
    }
    waiters[0].0.cancel();
    assert_eq!(waiters[0].1.recv(at_last()), Ok(Err(WaitError::Cancelled)));
    event.set();
    event.clear();
    for (_, answer) in &waiters[1..] {
        assert_eq!(answer.recv(at_last()), Ok(Ok(())));
    }
    assert!(!event.is_set());
    event.set();
    assert_eq!(event.wait(Wait::No), Ok(()));
}

#[test]
fn a_barrier_lets_all_pass_together_again_and_again() {
    let shared = Arc::new((Barrier::new(6), AtomicUsize::new(0), AtomicUsize::new(0)));
    let inner = Arc::clone(&shared);
    everybody(2, 4, move |_| {
        for round in 0..200 {
            inner.1.fetch_add(1, SeqCst);
            let index = inner.0.wait(Wait::Forever).expect("not broken");
            assert!(inner.1.load(SeqCst) >= 6 * (round + 1), "passed before the last one came");
            inner.2.fetch_add(index, SeqCst);
        }
    });
    assert_eq!(shared.2.load(SeqCst), 200 * (1 + 2 + 3 + 4 + 5));
    assert_eq!(shared.0.waiting(), 0);
}

#[test]
fn a_barrier_that_somebody_leaves_is_broken_until_reset() {
    let barrier = Arc::new(Barrier::new(3));
    let wait = |barrier: &Arc<Barrier>| {
        let inner = Arc::clone(barrier);
        let (task, answer) = go_for(move || inner.wait(Wait::Forever));
        until_waits(&task, WaitReason::BarrierWait);
        (task, answer)
    };
    let (first, answer) = wait(&barrier);
    assert_eq!(barrier.wait(soon()), Err(BarrierError::Wait(WaitError::TimedOut)));
    assert_eq!(answer.recv(at_last()), Ok(Err(BarrierError::Broken)));
    assert!(barrier.is_broken());
    assert_eq!(barrier.wait(Wait::Forever), Err(BarrierError::Broken));
    barrier.reset();
    drop(first);
    let (task, answer) = wait(&barrier);
    assert_eq!(barrier.waiting(), 1);
    task.cancel();
    assert_eq!(answer.recv(at_last()), Ok(Err(BarrierError::Wait(WaitError::Cancelled))));
    assert!(barrier.is_broken());
    barrier.reset();
    let (_, first) = wait(&barrier);
    let (_, second) = wait(&barrier);
    assert_eq!(barrier.wait(Wait::Forever), Ok(2));
    assert_eq!((first.recv(at_last()), second.recv(at_last())), (Ok(Ok(0)), Ok(Ok(1))));
    barrier.abort();
    assert_eq!(barrier.wait(Wait::Forever), Err(BarrierError::Broken));
}

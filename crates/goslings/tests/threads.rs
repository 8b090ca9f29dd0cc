//! Channels, `select`, timers and synchronisation objects between plain threads only: what Miri can run,
//! since nothing here switches stacks. Every value counts how often it was dropped.

use goslings::{
    Barrier, Case, Chan, Cond, Deadline, Event, Fired, Mutex, RwMutex, SelectError, Semaphore, Target, Timer,
    Wait, WaitGroup, now, select,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// Miri is some hundred times slower.
const MANY: usize = if cfg!(miri) { 8 } else { 2000 };

fn at_last() -> Wait {
    Wait::at_most(Duration::from_secs(120))
}

fn soon() -> Wait {
    Wait::at_most(Duration::from_micros(200))
}

/// A value that reports its end.
struct Counted {
    number: usize,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// Runs each of `bodies` in a thread of its own and collects the results.
fn all<T: Send>(bodies: Vec<Box<dyn FnOnce() -> T + Send + '_>>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = bodies.into_iter().map(|body| scope.spawn(body)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// `count` times the same body, told its number.
fn crowd<T: Send>(count: usize, body: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let body = &body;
    all((0..count).map(|index| Box::new(move || body(index)) as Box<dyn FnOnce() -> T + Send>).collect())
}

#[test]
fn each_value_arrives_once_and_is_dropped_once() {
    for capacity in [0, 1, 3] {
        let (chan, dropped) = (Chan::new(capacity), Arc::new(AtomicUsize::new(0)));
        let senders_left = AtomicUsize::new(2);
        let sums = crowd(4, |index| {
            let mut sum = 0;
            if index < 2 {
                for number in 1..=MANY {
                    let mut value = Some(Counted { number, dropped: Arc::clone(&dropped) });
                    // Some sends are too impatient, and get their value back.
                    while let Some(again) = value.take() {
                        let wait = if number % 2 == 0 { soon() } else { Wait::Forever };
                        value =
                            chan.send(again, wait).err().map(|refused| refused.value.expect("given back"));
                    }
                }
                if senders_left.fetch_sub(1, SeqCst) == 1 {
                    chan.close().expect("once");
                }
                return 0;
            }
            loop {
                match chan.recv(if sum % 3 == 0 { soon() } else { Wait::Forever }) {
                    Ok(value) => sum += value.number,
                    Err(goslings::chan::RecvError::TimedOut) => {}
                    Err(_) => return sum,
                }
            }
        });
        assert_eq!(sums.iter().sum::<usize>(), MANY * (MANY + 1));
        assert_eq!(dropped.load(SeqCst), 2 * MANY);
    }
}

#[test]
fn what_is_left_in_a_channel_is_dropped_with_it() {
    let (chan, dropped) = (Chan::new(4), Arc::new(AtomicUsize::new(0)));
    for number in 0..4 {
        assert!(chan.try_send(Counted { number, dropped: Arc::clone(&dropped) }).is_ok());
    }
    chan.put_back(chan.try_recv().unwrap_or_else(|_| panic!("full")));
    assert_eq!((chan.len(), dropped.load(SeqCst)), (4, 0));
    drop(chan);
    assert_eq!(dropped.load(SeqCst), 4);
}

#[test]
fn selects_in_both_directions_lose_and_double_nothing() {
    let (a, b, dropped) = (Chan::new(0), Chan::new(1), Arc::new(AtomicUsize::new(0)));
    let sums = crowd(4, |index| {
        let mut sum = 0;
        for number in 1..=MANY {
            if index < 2 {
                let mut value = Some(Counted { number, dropped: Arc::clone(&dropped) });
                while value.is_some() {
                    let wait = if number % 2 == 0 { soon() } else { Wait::Forever };
                    let mut cases = [Case::Send(&a, value.take()), Case::Never];
                    if number % 3 == 0 {
                        cases.swap(0, 1);
                        let Case::Send(_, moved) = &mut cases[1] else { unreachable!() };
                        cases[1] = Case::Send(&b, moved.take());
                    }
                    let done = select(&mut cases, wait);
                    let left = cases.into_iter().find_map(|case| match case {
                        Case::Send(_, left) => left,
                        _ => None,
                    });
                    assert_eq!(done.is_err(), left.is_some());
                    value = left;
                }
            } else {
                let mut cases = [Case::Recv(&a), Case::Recv(&b), Case::Recv(&a)];
                let got = loop {
                    match select(&mut cases, if number % 2 == 0 { soon() } else { Wait::Forever }) {
                        Ok(selected) => break selected.value.expect("open"),
                        Err(error) => assert_eq!(error, SelectError::TimedOut),
                    }
                };
                sum += got.number;
            }
        }
        sum
    });
    assert_eq!(sums.iter().sum::<usize>(), MANY * (MANY + 1));
    assert_eq!(dropped.load(SeqCst), 2 * MANY);
    assert!(a.try_recv().is_err() && b.try_recv().is_err());
}

#[test]
fn a_select_of_many_cases_serves_each_of_them() {
    let chans: Vec<Chan<usize>> = (0..7).map(|_| Chan::new(0)).collect();
    all::<()>(vec![
        Box::new(|| {
            for round in 0..MANY {
                chans[round % 7].send(round, Wait::Forever).expect("open");
            }
        }),
        Box::new(|| {
            for round in 0..MANY {
                let mut cases: Vec<_> = chans.iter().rev().map(Case::Recv).collect();
                let selected = select(&mut cases, at_last()).expect("fed");
                assert_eq!((selected.index, selected.value), (6 - round % 7, Some(round)));
            }
        }),
    ]);
}

#[test]
fn close_releases_senders_receivers_and_selects() {
    let (full, empty) = (Chan::new(1), Chan::new(0));
    full.try_send(0).expect("room");
    let released = all(vec![
        Box::new(|| full.send(1, Wait::Forever).expect_err("closed").value == Some(1))
            as Box<dyn FnOnce() -> bool + Send>,
        Box::new(|| empty.recv(Wait::Forever).is_err()),
        Box::new(|| {
            let mut cases = [Case::Recv(&empty), Case::Send(&full, Some(2))];
            matches!(
                select(&mut cases, Wait::Forever).map(|selected| (selected.index, selected.value)),
                Ok((0, None)) | Err(SelectError::Closed(1))
            )
        }),
        Box::new(|| {
            thread::sleep(Duration::from_millis(5));
            full.close().is_ok() && empty.close().is_ok()
        }),
    ]);
    assert_eq!(released, [true; 4]);
    assert_eq!((full.recv(Wait::No), full.recv(Wait::No).is_err()), (Ok(0), true));
}

#[test]
fn locks_exclude_and_permits_are_counted() {
    let (mutex, lock, semaphore) = (Mutex::new(), RwMutex::new(), Semaphore::new(2));
    let inside = [const { AtomicUsize::new(0) }; 3];
    let enter = |which: usize, most: usize| {
        assert!(inside[which].fetch_add(1, SeqCst) < most);
        thread::yield_now();
        inside[which].fetch_sub(1, SeqCst);
    };
    crowd(3, |index| {
        for round in 0..MANY {
            let wait = if (round + index) % 3 == 0 { soon() } else { Wait::Forever };
            if mutex.lock(wait).is_ok() {
                enter(0, 1);
                mutex.unlock().expect("locked");
            }
            if (round + index) % 2 == 0 {
                if lock.lock(wait).is_ok() {
                    enter(1, 1);
                    lock.unlock().expect("locked");
                }
            } else if lock.rlock(wait).is_ok() {
                assert!(!lock.try_lock());
                lock.runlock().expect("locked");
            }
            if semaphore.acquire(1, wait).is_ok() {
                enter(2, 2);
                semaphore.release(1).expect("held");
            }
        }
    });
    assert!(mutex.try_lock() && lock.try_lock() && semaphore.try_acquire(2));
}

#[test]
fn groups_events_barriers_and_conditions_release_everybody() {
    let (group, event, barrier) = (WaitGroup::new(), Event::new(), Barrier::new(4));
    let (mutex, cond, turn) = (Mutex::new(), Cond::new(), AtomicUsize::new(0));
    group.add(4).expect("positive");
    crowd(4, |index| {
        for round in 0..MANY / 4 {
            barrier.wait(Wait::Forever).expect("whole");
            mutex.lock(Wait::Forever).expect("a plain thread");
            while turn.load(SeqCst) != 4 * round + index {
                cond.wait(&mutex, if index == 1 { soon() } else { Wait::Forever }).ok();
            }
            turn.fetch_add(1, SeqCst);
            cond.notify_all();
            mutex.unlock().expect("held");
        }
        group.done().expect("added");
        group.wait(Wait::Forever).expect("a plain thread");
        if index == 0 {
            event.set();
        }
        event.wait(Wait::Forever).expect("a plain thread");
    });
    assert_eq!(turn.load(SeqCst), MANY / 4 * 4);
}

/// Ticks into a channel and counts.
struct Ticks {
    chan: Chan<u64>,
    calls: Arc<AtomicUsize>,
}

impl Target for Ticks {
    fn fire(&self, due: Deadline) -> Fired {
        if self.calls.fetch_add(1, SeqCst).is_multiple_of(2) {
            Fired::tick(&self.chan, due.0)
        } else {
            let calls = Arc::clone(&self.calls);
            Fired::call(move || {
                calls.fetch_add(1, SeqCst);
            })
        }
    }
}

#[test]
fn timers_fire_stop_and_start_anew() {
    let calls = Arc::new(AtomicUsize::new(0));
    let ticks = Arc::new(Ticks { chan: Chan::for_ticks(), calls: Arc::clone(&calls) });
    let timer = Timer::new(Arc::clone(&ticks) as Arc<dyn Target>);
    let after = |time: Duration| Deadline::after(time).expect("soon");
    let due = after(Duration::from_millis(5));
    assert!(!timer.reset(Some((due, 0)), || false));
    assert_eq!(ticks.chan.recv(at_last()), Ok(due.0));
    assert!(now() >= due);
    // The second time it calls, and the call counts once more.
    timer.reset(Some((after(Duration::from_millis(1)), 0)), || false);
    while calls.load(SeqCst) < 3 {
        thread::yield_now();
    }
    timer.reset(Some((after(Duration::from_secs(600)), 0)), || false);
    assert!(timer.reset(None, || false), "it was set");
    assert!(!timer.reset(None, || false), "it was stopped");
    // Every millisecond: each tick and each call make the number even or odd in turn.
    timer.reset(Some((after(Duration::from_millis(1)), 1_000_000)), || false);
    while calls.load(SeqCst) < 9 {
        thread::yield_now();
    }
    drop(timer);
    let many: Vec<_> = (0..20).map(|_| Timer::new(Arc::clone(&ticks) as Arc<dyn Target>)).collect();
    for (index, timer) in many.iter().enumerate() {
        timer.reset(Some((after(Duration::from_secs(60 + (index as u64 * 7) % 20)), 0)), || false);
    }
    let before = calls.load(SeqCst);
    drop(many);
    assert_eq!(calls.load(SeqCst), before);
}

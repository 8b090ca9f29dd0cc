//! Channels between goroutines and threads, on the plain host.

use super::*;
use crate::{Case, Job, SelectError, select, spawn};
use std::sync::Arc;
use std::time::Duration;

fn run<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let answer = Arc::new(Chan::new(1));
    let sender = Arc::clone(&answer);
    spawn(Job::new(move || drop(sender.send(body(), Wait::Forever))));
    answer.recv(Wait::at_most(Duration::from_secs(60))).expect("the goroutine ends")
}

#[test]
fn a_rendezvous_hands_over_in_order() {
    let sum = run(|| {
        let chan = Arc::new(Chan::new(0));
        let producer = Arc::clone(&chan);
        spawn(Job::new(move || {
            for i in 0..1000_u64 {
                producer.send(i, Wait::Forever).expect("open");
            }
            producer.close().expect("once");
        }));
        let mut next = 0;
        while let Ok(got) = chan.recv(Wait::Forever) {
            assert_eq!(got, next);
            next += 1;
        }
        next
    });
    assert_eq!(sum, 1000);
}

#[test]
fn threads_and_goroutines_share_a_channel_and_lose_nothing() {
    for capacity in [0, 1, 16] {
        let chan = Arc::new(Chan::new(capacity));
        let out = Arc::new(Chan::new(0));
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let chan = Arc::clone(&chan);
                std::thread::spawn(move || {
                    for i in 0..2000_u64 {
                        chan.send(t * 2000 + i, Wait::Forever).expect("open");
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            let (chan, out) = (Arc::clone(&chan), Arc::clone(&out));
            spawn(Job::new(move || {
                let mut mine = Vec::new();
                while let Ok(value) = chan.recv(Wait::Forever) {
                    mine.push(value);
                }
                out.send(mine, Wait::Forever).expect("open");
            }));
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        chan.close().expect("once");
        let mut all: Vec<u64> = (0..4).flat_map(|_| out.recv(Wait::Forever).expect("four answers")).collect();
        all.sort_unstable();
        assert_eq!(all, (0..6000).collect::<Vec<_>>());
    }
}

#[test]
fn a_timeout_delivers_nothing() {
    let chan = Chan::<u32>::new(0);
    let wait = Wait::at_most(Duration::from_millis(10));
    assert_eq!(chan.recv(wait), Err(RecvError::TimedOut));
    let refused = chan.send(7, wait).expect_err("nobody receives");
    assert_eq!((refused.kind, refused.value), (SendErrorKind::TimedOut, Some(7)));
    assert_eq!(chan.try_recv(), Err(TryRecvError::Empty));
    run(move || {
        assert_eq!(chan.recv(Wait::at_most(Duration::from_millis(10))), Err(RecvError::TimedOut));
    });
}

#[test]
fn select_takes_one_and_withdraws_the_rest() {
    run(|| {
        let (a, b) = (Arc::new(Chan::new(0)), Arc::new(Chan::<u32>::new(0)));
        let sender = Arc::clone(&a);
        spawn(Job::new(move || sender.send(5, Wait::Forever).expect("received")));
        let mut cases = [Case::Recv(&*a), Case::Recv(&*b), Case::Send(&*b, Some(1))];
        let selected = select(&mut cases, Wait::Forever).expect("a is fed");
        assert_eq!((selected.index, selected.value), (0, Some(5)));
        assert!(matches!(&cases[2], Case::Send(_, Some(1))));
        assert!(b.try_send(3).is_err(), "a stale waiter was left behind");
        let mut cases = [Case::Recv(&*a), Case::Never];
        assert_eq!(select(&mut cases, Wait::No).expect_err("empty"), SelectError::TimedOut);
    });
}

#[test]
fn cancel_ends_a_wait_and_a_second_one_the_next() {
    let chan = Arc::new(Chan::<u32>::new(0));
    let report = Arc::new(Chan::new(2));
    let (inner, out) = (Arc::clone(&chan), Arc::clone(&report));
    let task = spawn(Job::new(move || {
        let first = inner.recv(Wait::Forever);
        out.send(first, Wait::Forever).expect("room");
        let second = inner.recv(Wait::Forever);
        let _ = out.try_send(second);
    }));
    task.cancel();
    assert_eq!(report.recv(Wait::Forever), Ok(Err(RecvError::Cancelled)));
    task.cancel();
    assert_eq!(report.recv(Wait::Forever), Ok(Err(RecvError::Cancelled)));
}

#[test]
fn close_wakes_everybody_and_gives_senders_their_values_back() {
    let chan = Arc::new(Chan::new(0));
    let report = Arc::new(Chan::new(10));
    for i in 0..10_u32 {
        let (chan, report) = (Arc::clone(&chan), Arc::clone(&report));
        spawn(Job::new(move || {
            let refused = chan.send(i, Wait::Forever).expect_err("closed");
            report.send(refused.value, Wait::Forever).expect("open");
        }));
    }
    std::thread::sleep(Duration::from_millis(20));
    chan.close().expect("once");
    assert_eq!(chan.close(), Err(CloseError));
    let mut back: Vec<_> =
        (0..10).map(|_| report.recv(Wait::Forever).expect("ten").expect("a value")).collect();
    back.sort_unstable();
    assert_eq!(back, (0..10).collect::<Vec<_>>());
}

/// Counts what is promised, as memory that two processes share would.
#[derive(Default)]
struct Left(std::sync::atomic::AtomicU32);

impl super::Promise for Left {
    fn add(&self, sends: u32) {
        // Ordering: Relaxed. One thread.
        self.0.fetch_add(sends, std::sync::atomic::Ordering::Relaxed);
    }

    fn take_back(&self) -> u32 {
        // Ordering: Relaxed. One thread.
        self.0.swap(0, std::sync::atomic::Ordering::Relaxed)
    }
}

impl Left {
    fn take(&self, sends: u32) {
        // Ordering: Relaxed. One thread.
        let before = self.0.fetch_sub(sends, std::sync::atomic::Ordering::Relaxed);
        assert!(before >= sends);
    }
}

#[test]
fn promised_slots_are_full_until_somebody_wants_them() {
    let chan = Chan::new(4);
    let left = std::sync::Arc::new(Left::default());
    let promise: std::sync::Arc<dyn super::Promise> = left.clone();
    chan.promise(&promise, 4);
    left.take(1);
    for value in 0..3 {
        assert!(chan.try_send(value).is_ok(), "three were taken back");
    }
    assert!(chan.try_send(3).is_err(), "one is on its way");
    assert!(chan.arrive(&promise, 9, 4).is_ok());
    assert_eq!((0..4).map(|_| chan.try_recv().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 9]);
    assert_eq!(chan.arrive(&promise, 9, 4), Err(9), "the buffer was full: nothing was promised again");
}

#[test]
fn a_closed_channel_is_drained_when_nothing_is_on_its_way() {
    let chan = Chan::new(4);
    let left = std::sync::Arc::new(Left::default());
    let promise: std::sync::Arc<dyn super::Promise> = left.clone();
    chan.promise(&promise, 4);
    left.take(2);
    chan.close().unwrap();
    assert!(matches!(chan.try_recv(), Err(TryRecvError::Empty)));
    assert!(chan.arrive(&promise, 1, 4).is_ok());
    assert_eq!(chan.try_recv().ok(), Some(1));
    assert!(matches!(chan.try_recv(), Err(TryRecvError::Empty)));
    chan.call_off(&promise);
    assert!(matches!(chan.try_recv(), Err(TryRecvError::Closed)));
}

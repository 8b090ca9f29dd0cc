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

    fn left(&self) -> u32 {
        // Ordering: Relaxed. As above.
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// What was not promised of these.
fn arrives(chan: &Chan<i32>, promise: &std::sync::Arc<dyn super::Promise>, values: &[i32]) -> Vec<i32> {
    let mut values = values.iter().copied().collect();
    chan.arrive(promise, &mut values);
    values.into()
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
    assert!(arrives(&chan, &promise, &[9]).is_empty());
    assert_eq!((0..4).map(|_| chan.try_recv().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 9]);
    assert_eq!(left.left(), 3, "who receives promises again, up to more than half");
    left.take(3);
    assert_eq!(arrives(&chan, &promise, &[1, 2, 3, 4, 5]), [4, 5], "more than was promised");
    assert_eq!((chan.len(), left.left()), (3, 1));
}

#[test]
fn what_arrives_together_is_received_in_order_by_those_who_wait_and_by_others() {
    let chan = std::sync::Arc::new(Chan::new(8));
    let left = std::sync::Arc::new(Left::default());
    let promise: std::sync::Arc<dyn super::Promise> = left.clone();
    chan.promise(&promise, 8);
    left.take(3);
    let receiver = std::thread::spawn({
        let chan = std::sync::Arc::clone(&chan);
        move || chan.recv(Wait::Forever)
    });
    while !chan.has_receivers() {
        std::thread::yield_now();
    }
    assert!(arrives(&chan, &promise, &[1, 2, 3]).is_empty());
    assert_eq!(receiver.join().unwrap().ok(), Some(1));
    assert_eq!((chan.try_recv().ok(), chan.try_recv().ok()), (Some(2), Some(3)));
}

#[test]
fn nothing_is_promised_while_somebody_waits_to_send_or_after_the_end() {
    let chan = std::sync::Arc::new(Chan::new(1));
    let left = std::sync::Arc::new(Left::default());
    let promise: std::sync::Arc<dyn super::Promise> = left.clone();
    chan.try_send(0).unwrap();
    let sender = std::thread::spawn({
        let chan = std::sync::Arc::clone(&chan);
        move || chan.send(1, Wait::Forever)
    });
    while !chan.state().lock().senders.has_any() {
        std::thread::yield_now();
    }
    chan.promise(&promise, 1);
    assert_eq!(chan.try_recv().ok(), Some(0));
    assert!(sender.join().unwrap().is_ok());
    assert_eq!(left.left(), 0, "the one slot is the sender's who waited");
    chan.close().unwrap();
    assert_eq!(chan.try_recv().ok(), Some(1));
    assert_eq!(left.left(), 0, "closed");
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
    assert!(arrives(&chan, &promise, &[1]).is_empty());
    assert_eq!(chan.try_recv().ok(), Some(1));
    assert!(matches!(chan.try_recv(), Err(TryRecvError::Empty)));
    chan.call_off(&promise);
    assert!(matches!(chan.try_recv(), Err(TryRecvError::Closed)));
}

/// The count of a lease, as memory that processes share would have it.
#[derive(Default)]
struct Count {
    claimed: std::sync::atomic::AtomicU64,
    told: std::sync::atomic::AtomicBool,
}

impl super::Lease for Count {
    fn claimed(&self) -> u64 {
        // Ordering: SeqCst. The simplest.
        self.claimed.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn claim(&self, number: u64) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        // Ordering: SeqCst. The simplest.
        self.claimed.compare_exchange(number, number + 1, SeqCst, SeqCst).is_ok()
    }

    fn take_back(&self, end: u64) -> u64 {
        // Ordering: SeqCst. The simplest.
        self.claimed.swap(end, std::sync::atomic::Ordering::SeqCst)
    }

    fn tell(&self) {
        // Ordering: SeqCst. The simplest.
        self.told.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

type Shared = (Arc<Count>, Arc<dyn super::Lease>);

fn lease() -> Shared {
    let count = Arc::new(Count::default());
    (count.clone(), count)
}

/// What is shown of values from `number` on, at most `most`, of those that are below 100.
fn shown(chan: &Chan<u32>, lease: &Arc<dyn super::Lease>, number: u64, most: usize) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    let spent = chan.lease(
        lease,
        number,
        |&value| value < 100,
        |number, &value| {
            found.push((number, value));
            found.len() < most
        },
    );
    drop(spent);
    found
}

#[test]
fn leased_values_are_received_in_order_here_and_there() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    for value in 0..6 {
        chan.try_send(value).expect("room");
    }
    assert_eq!(shown(&chan, &lease, 0, 4), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    assert_eq!(chan.len(), 6);
    assert!(count.claim(0), "there");
    assert!(!count.claim(0), "once");
    assert_eq!((chan.len(), chan.try_recv()), (5, Ok(1)));
    assert!(!count.claim(1), "received here");
    assert!(count.claim(2), "there again");
    assert_eq!(chan.claimed().len(), 2, "what others received is given out to be dropped");
    let rest: Vec<_> = std::iter::from_fn(|| chan.try_recv().ok()).collect();
    assert_eq!(rest, [3, 4, 5]);
    assert_eq!(shown(&chan, &lease, 4, 4), []);
    chan.try_send(6).expect("room");
    assert_eq!(shown(&chan, &lease, 2, 4), [(4, 6)], "numbers are those of leased values");
}

#[test]
fn who_joins_later_is_shown_what_nobody_has_claimed() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    for value in 0..6 {
        chan.try_send(value).expect("room");
    }
    assert_eq!(shown(&chan, &lease, 0, 2).len(), 2);
    assert!(count.claim(0));
    assert_eq!(shown(&chan, &lease, 0, 8), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

#[test]
fn a_value_that_does_not_fit_stays_and_so_does_what_is_behind_it() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    for value in [1, 200, 2] {
        chan.try_send(value).expect("room");
    }
    assert_eq!(shown(&chan, &lease, 0, 8), [(0, 1)]);
    assert!(count.claim(0));
    assert_eq!(shown(&chan, &lease, 1, 8), []);
    assert_eq!(chan.try_recv(), Ok(200));
    assert_eq!(shown(&chan, &lease, 1, 8), [(1, 2)]);
}

#[test]
fn claims_make_room_for_who_waits_and_nobody_passes_him() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Arc::new(Chan::new(2));
    chan.try_send(0).expect("room");
    chan.try_send(1).expect("room");
    assert_eq!(shown(&chan, &lease, 0, 2).len(), 2);
    let sender = Arc::clone(&chan);
    let waits = std::thread::spawn(move || sender.send(2, Wait::Forever).expect("open"));
    while !chan.state.lock().senders.has_any() {
        std::thread::yield_now();
    }
    assert!(count.told.swap(false, std::sync::atomic::Ordering::SeqCst), "who waits asks to be told");
    assert!(count.claim(0));
    assert_eq!(chan.len(), 1);
    assert!(chan.try_send(3).is_err(), "behind the one that waits");
    drop(chan.claimed());
    waits.join().expect("no panic");
    assert_eq!(chan.len(), 2);
    assert!(count.claim(1));
    chan.try_send(3).expect("nobody waits: room is found at once");
    assert_eq!(std::iter::from_fn(|| chan.try_recv().ok()).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn what_is_put_back_comes_before_what_is_leased() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    for value in 0..4 {
        chan.try_send(value).expect("room");
    }
    assert_eq!(shown(&chan, &lease, 0, 3).len(), 3);
    let first = chan.try_recv().expect("there is one");
    chan.put_back(first);
    assert!(!count.claim(1) && !count.claim(2), "copies that were shown are worth nothing now");
    assert_eq!(shown(&chan, &lease, 1, 8), [(3, 0), (4, 1), (5, 2), (6, 3)]);
    assert!(count.claim(3));
    assert_eq!(std::iter::from_fn(|| chan.try_recv().ok()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_closed_channel_is_drained_when_all_that_was_leased_is_claimed() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    chan.try_send(0).expect("room");
    chan.try_send(1).expect("room");
    assert_eq!(shown(&chan, &lease, 0, 8).len(), 2);
    chan.close().expect("once");
    assert!(count.claim(0));
    assert_eq!(chan.try_recv(), Ok(1));
    assert_eq!(chan.try_recv(), Err(TryRecvError::Closed));
    drop(chan.end_lease(&lease));
    assert_eq!(chan.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn the_end_of_a_lease_leaves_what_nobody_claimed() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Chan::new(8);
    for value in 0..4 {
        chan.try_send(value).expect("room");
    }
    assert_eq!(shown(&chan, &lease, 0, 3).len(), 3);
    assert!(count.claim(0));
    assert_eq!(chan.end_lease(&lease).len(), 1);
    assert!(!count.claim(1), "it is over");
    assert_eq!(std::iter::from_fn(|| chan.try_recv().ok()).collect::<Vec<_>>(), [1, 2, 3]);
    let (_, another) = self::lease();
    chan.try_send(9).expect("room");
    assert_eq!(shown(&chan, &another, 0, 8), [(0, 9)], "another one may begin");
}

#[test]
fn a_count_that_cannot_be_ends_the_lease_and_loses_nothing() {
    for nonsense in [1_u64 << 40, 5] {
        let (count, lease) = lease();
        let chan = Chan::new(8);
        for value in 0..4 {
            chan.try_send(value).expect("room");
        }
        assert_eq!(shown(&chan, &lease, 0, 3).len(), 3);
        // Ordering: SeqCst. The simplest.
        count.claimed.store(nonsense, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(shown(&chan, &lease, 3, 8), []);
        assert_eq!(std::iter::from_fn(|| chan.try_recv().ok()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        // Ordering: SeqCst. The simplest.
        count.claimed.store(0, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(chan.len(), 0);
    }
}

#[expect(clippy::disallowed_types, reason = "what a link is elsewhere")]
type Copies = std::sync::Mutex<std::collections::VecDeque<(u64, u32)>>;

#[test]
fn claims_from_many_threads_beside_receives_and_sends_lose_nothing() {
    use super::Lease;
    let (count, lease) = lease();
    let chan = Arc::new(Chan::new(16));
    let told = Arc::new(Chan::<()>::new(1));
    let number = 4000_u32;
    let copies = Arc::new(Copies::default());
    let claimers: Vec<_> = (0..2)
        .map(|_| {
            let (count, copies, told) = (Arc::clone(&count), Arc::clone(&copies), Arc::clone(&told));
            std::thread::spawn(move || {
                let mut mine = Vec::new();
                loop {
                    let mut copies = copies.lock().expect("no panic");
                    match copies.front().copied() {
                        Some((_, u32::MAX)) => return mine,
                        Some((number, value)) if count.claim(number) => {
                            copies.pop_front();
                            drop(copies);
                            mine.push(value);
                            if count.told.swap(false, std::sync::atomic::Ordering::SeqCst) {
                                let _ = told.try_send(());
                            }
                        }
                        Some((number, _)) if number < count.claimed() => drop(copies.pop_front()),
                        _ => {
                            drop(copies);
                            let _ = told.try_send(());
                            std::thread::yield_now();
                        }
                    }
                }
            })
        })
        .collect();
    let receiver = Arc::clone(&chan);
    let here = std::thread::spawn(move || {
        let mut mine = Vec::new();
        while let Ok(value) = receiver.recv(Wait::Forever) {
            mine.push(value);
        }
        mine
    });
    let home = {
        let (chan, copies, told) = (Arc::clone(&chan), Arc::clone(&copies), Arc::clone(&told));
        std::thread::spawn(move || {
            let mut next = 0;
            while told.recv(Wait::Forever).is_ok() {
                let shown = self::shown(&chan, &lease, next, 8);
                next = shown.last().map_or(next, |(number, _)| number + 1);
                copies.lock().expect("no panic").extend(shown);
            }
        })
    };
    for value in 0..number {
        chan.send(value % 100, Wait::Forever).expect("open");
    }
    chan.close().expect("once");
    let mut sum = here.join().expect("no panic").len();
    copies.lock().expect("no panic").push_front((u64::MAX, u32::MAX));
    told.close().expect("once");
    home.join().expect("no panic");
    for claimer in claimers {
        sum += claimer.join().expect("no panic").len();
    }
    assert_eq!(sum, number as usize);
}

//! Goroutines and threads that wait for pipes and sockets.

use super::{Bytes, Direction, NetError, Owned, accept, attempt, closing, is_ready, ready, recv};
use crate::clock::Wait;
use crate::sched::{self, spawn};
use crate::task::{Job, Task};
use crate::waiter::WaitReason;
use crate::waiting::WaitError;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const FOREVER: Wait = Wait::Forever;

/// Starts a goroutine; what it returns comes out of the channel.
fn go<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> (Arc<Task>, Receiver<T>) {
    let (sender, receiver) = channel();
    let task = spawn(Job::new(move || sender.send(body()).expect("somebody waits")));
    (task, receiver)
}

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().expect("a pair of sockets");
    one.set_nonblocking(true).expect("a socket");
    other.set_nonblocking(true).expect("a socket");
    (one, other)
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "not within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn parked(task: &Task, reason: WaitReason) {
    until(|| task.reason() == reason && task.waiter().is_unclaimed());
}

fn wait_read(fd: i32) -> (Arc<Task>, Receiver<Result<(), NetError>>) {
    let (task, answer) = go(move || ready(fd, Direction::Read, FOREVER));
    parked(&task, WaitReason::NetRead);
    (task, answer)
}

#[test]
fn a_goroutine_waits_until_there_is_something_to_read() {
    let (mut one, other) = pair();
    let (_, answer) = wait_read(other.as_raw_fd());
    one.write_all(b"x").expect("room");
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn what_is_ready_needs_no_wait() {
    let (mut one, other) = pair();
    assert_eq!(is_ready(other.as_raw_fd(), Direction::Read), Ok(false));
    assert_eq!(ready(other.as_raw_fd(), Direction::Read, Wait::No), Err(NetError::Wait(WaitError::TimedOut)));
    one.write_all(b"x").expect("room");
    assert_eq!(ready(other.as_raw_fd(), Direction::Read, Wait::No), Ok(()));
    assert_eq!(ready(one.as_raw_fd(), Direction::Write, FOREVER), Ok(()));
}

#[test]
fn a_thread_waits_too() {
    let (mut one, other) = pair();
    let (sender, receiver) = channel();
    let fd = other.as_raw_fd();
    std::thread::spawn(move || sender.send(ready(fd, Direction::Read, FOREVER)));
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    one.write_all(b"x").expect("room");
    assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn a_wait_ends_in_time() {
    let (_one, other) = pair();
    let fd = other.as_raw_fd();
    let (_, answer) = go(move || ready(fd, Direction::Read, Wait::at_most(Duration::from_millis(10))));
    assert_eq!(answer.recv_timeout(LONG), Ok(Err(NetError::Wait(WaitError::TimedOut))));
}

#[test]
fn a_cancelled_goroutine_waits_no_more() {
    let (_one, other) = pair();
    let (task, answer) = wait_read(other.as_raw_fd());
    task.cancel();
    assert_eq!(answer.recv_timeout(LONG), Ok(Err(NetError::Wait(WaitError::Cancelled))));
}

#[test]
fn everybody_who_waits_for_it_hears_of_it() {
    let (mut one, other) = pair();
    let waiting: Vec<_> = (0..5).map(|_| wait_read(other.as_raw_fd())).collect();
    one.write_all(b"x").expect("room");
    for (_, answer) in waiting {
        assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
    }
}

type Accepting = (Arc<Task>, Receiver<bool>);

/// A listening socket, and goroutines of which each accepts one connection; `tried` counts their attempts.
fn acceptors(count: usize, tried: &Arc<AtomicUsize>) -> (UnixListener, Vec<Accepting>) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let path = std::env::temp_dir().join(format!(
        "goslings-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    let listener = UnixListener::bind(&path).expect("a socket");
    listener.set_nonblocking(true).expect("a socket");
    let fd = listener.as_raw_fd();
    let waiting = (0..count)
        .map(|_| {
            let tried = Arc::clone(tried);
            let (task, answer) = go(move || {
                let accepted = attempt(fd, Direction::Accept, FOREVER, || {
                    tried.fetch_add(1, Ordering::Relaxed);
                    accept(fd, false)
                });
                accepted.is_ok()
            });
            parked(&task, WaitReason::NetRead);
            (task, answer)
        })
        .collect();
    (listener, waiting)
}

fn connect(listener: &UnixListener) -> UnixStream {
    let address = listener.local_addr().expect("an address");
    UnixStream::connect(address.as_pathname().expect("a path")).expect("room in the backlog")
}

fn remove(listener: &UnixListener) {
    let address = listener.local_addr().expect("an address");
    let _ = std::fs::remove_file(address.as_pathname().expect("a path"));
}

#[test]
fn of_those_who_accept_an_event_wakes_a_few() {
    const WAITING: usize = 60;
    let tried = Arc::new(AtomicUsize::new(0));
    let (listener, waiting) = acceptors(WAITING, &tried);
    let before = tried.load(Ordering::Relaxed);
    let _client = connect(&listener);
    until(|| waiting.iter().any(|(_, answer)| answer.try_recv() == Ok(true)));
    // One for each worker's poller, and the one whom each of these wakes in turn.
    let more = tried.load(Ordering::Relaxed) - before;
    assert!(more <= WAITING / 2, "{more} of {WAITING} were woken for one connection");
    remove(&listener);
    closing(listener.as_raw_fd());
    for (_, answer) in waiting {
        // All others hear of the close; the one that had a connection has answered.
        assert_ne!(answer.recv_timeout(LONG), Ok(true));
    }
}

#[test]
fn everybody_who_accepts_gets_a_connection_if_there_are_enough() {
    for round in 0..50 {
        let tried = Arc::new(AtomicUsize::new(0));
        let (listener, waiting) = acceptors(8, &tried);
        if round % 2 == 0 {
            // Some give up: what they were woken for is others'.
            for (task, answer) in &waiting[..4] {
                task.cancel();
                assert_eq!(answer.recv_timeout(LONG), Ok(false));
            }
        }
        let expected = if round % 2 == 0 { &waiting[4..] } else { &waiting[..] };
        let _clients: Vec<_> = expected.iter().map(|_| connect(&listener)).collect();
        for (_, answer) in expected {
            assert_eq!(answer.recv_timeout(LONG), Ok(true));
        }
        remove(&listener);
        closing(listener.as_raw_fd());
    }
}

#[test]
fn observers_hear_of_a_connection_beside_those_who_accept() {
    let tried = Arc::new(AtomicUsize::new(0));
    let (listener, waiting) = acceptors(2, &tried);
    let (_, observer) = wait_read(listener.as_raw_fd());
    let _client = connect(&listener);
    let _second = connect(&listener);
    for (_, answer) in waiting {
        assert_eq!(answer.recv_timeout(LONG), Ok(true));
    }
    remove(&listener);
    closing(listener.as_raw_fd());
    // It has seen one of them, or has looked too late and is told of the close.
    assert!(matches!(observer.recv_timeout(LONG), Ok(Ok(()) | Err(NetError::Closed))));
}

#[test]
fn a_call_does_not_wait_for_a_file_that_has_taken_over_its_number() {
    let (_one, other) = pair();
    let (mut strange, stranger) = pair();
    strange.write_all(b"not for you").expect("room");
    let fd = other.as_raw_fd();
    let mut calls = 0;
    let got = attempt(fd, Direction::Read, FOREVER, || {
        calls += 1;
        assert_eq!(calls, 1, "it tried the strange file");
        // Between the attempt and the wait.
        closing(fd);
        // SAFETY: both are open, and `other` closes what has its number then.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), fd) }, fd);
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
    assert_eq!(got, Err(NetError::Closed));
}

#[test]
fn readers_and_writers_are_told_apart() {
    let (mut one, other) = pair();
    while (&other).write(&[0; 4096]).is_ok() {}
    let (_, reads) = wait_read(other.as_raw_fd());
    let fd = other.as_raw_fd();
    let (writer, writes) = go(move || ready(fd, Direction::Write, FOREVER));
    parked(&writer, WaitReason::NetWrite);
    one.write_all(b"x").expect("room");
    assert_eq!(reads.recv_timeout(LONG), Ok(Ok(())));
    assert!(writes.recv_timeout(Duration::from_millis(20)).is_err());
    let mut room = vec![0; 1 << 16];
    while one.read(&mut room).is_ok_and(|count| count > 0) {}
    assert_eq!(writes.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn a_hang_up_ends_both_waits() {
    let (one, other) = pair();
    while (&other).write(&[0; 4096]).is_ok() {}
    let (_, reads) = wait_read(other.as_raw_fd());
    let fd = other.as_raw_fd();
    let (writer, writes) = go(move || ready(fd, Direction::Write, FOREVER));
    parked(&writer, WaitReason::NetWrite);
    drop(one);
    assert_eq!(reads.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!(writes.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn a_half_closed_connection_can_be_read() {
    let (one, other) = pair();
    let (_, answer) = wait_read(other.as_raw_fd());
    one.shutdown(std::net::Shutdown::Write).expect("a socket");
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn who_waits_for_what_is_closed_is_told() {
    let (_one, other) = pair();
    let (_, answer) = wait_read(other.as_raw_fd());
    let fd = other.as_raw_fd();
    let (sender, by_thread) = channel();
    std::thread::spawn(move || sender.send(ready(fd, Direction::Read, FOREVER)));
    until(|| sched::runtime().net.shared.get().is_some_and(|poll| poll.is_awaited()));
    std::thread::sleep(Duration::from_millis(10));
    closing(fd);
    drop(other);
    assert_eq!(answer.recv_timeout(LONG), Ok(Err(NetError::Closed)));
    assert_eq!(by_thread.recv_timeout(LONG), Ok(Err(NetError::Closed)));
}

#[test]
fn closing_what_nobody_waits_for_does_nothing() {
    closing(-1);
    closing(1_000_000);
    let (mut one, other) = pair();
    closing(other.as_raw_fd());
    let (_, answer) = wait_read(other.as_raw_fd());
    one.write_all(b"x").expect("room");
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
}

/// Has `fd` refer to what `other` does, as if it had been closed and its number given to that.
fn replace(fd: i32, other: &impl AsRawFd) {
    // SAFETY: two descriptors of this test.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
}

#[test]
fn a_number_that_is_used_again_behind_our_back_loses_no_wake() {
    let (_one, other) = pair();
    let fd = other.into_raw_fd();
    let (old, old_answer) = wait_read(fd);
    let (mut new_one, new_other) = pair();
    replace(fd, &new_other);
    drop(new_other);
    let (_, answer) = wait_read(fd);
    new_one.write_all(b"x").expect("room");
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
    // Who waited for the file that is gone has found the new one.
    assert_eq!(old_answer.recv_timeout(LONG), Ok(Ok(())));
    drop(old);
    // SAFETY: ours, since `into_raw_fd`.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

#[test]
fn events_of_a_file_that_is_gone_are_not_those_of_its_successor() {
    let (mut one, other) = pair();
    let kept = other.try_clone().expect("a copy");
    let fd = other.into_raw_fd();
    let (old, _) = wait_read(fd);
    old.cancel();
    let (mut new_one, new_other) = pair();
    replace(fd, &new_other);
    drop(new_other);
    let (task, answer) = wait_read(fd);
    // The old file lives on by its copy, and is still registered under the number.
    for _ in 0..10 {
        one.write_all(b"x").expect("room");
    }
    assert!(answer.recv_timeout(Duration::from_millis(50)).is_err());
    parked(&task, WaitReason::NetRead);
    new_one.write_all(b"x").expect("room");
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
    drop(kept);
    // SAFETY: ours, since `into_raw_fd`.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

#[test]
fn an_attempt_is_made_until_it_succeeds() {
    let (mut one, other) = pair();
    let (task, answer) = go(move || {
        let mut got = Vec::new();
        while got.len() < 3 {
            let mut byte = [0];
            let read = || (&other).read(&mut byte);
            assert_eq!(attempt(other.as_raw_fd(), Direction::Read, FOREVER, read), Ok(1));
            got.push(byte[0]);
        }
        got
    });
    for byte in b"abc" {
        parked(&task, WaitReason::NetRead);
        one.write_all(&[*byte]).expect("room");
    }
    assert_eq!(answer.recv_timeout(LONG), Ok(b"abc".to_vec()));
}

#[test]
fn an_error_of_an_attempt_comes_through() {
    let (one, _other) = pair();
    let fd = one.as_raw_fd();
    let mut calls = 0;
    let broken = attempt(fd, Direction::Write, FOREVER, || {
        calls += 1;
        if calls == 1 {
            Err::<(), _>(io::ErrorKind::Interrupted.into())
        } else {
            Err(io::Error::from_raw_os_error(libc::EPIPE))
        }
    });
    assert_eq!((broken, calls), (Err(NetError::System(libc::EPIPE)), 2));
    let blocks = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    assert_eq!(attempt(fd, Direction::Write, Wait::No, blocks), Err(NetError::System(libc::EAGAIN)));
}

#[test]
fn what_is_no_descriptor_is_refused() {
    for fd in [-1, 1_000_000] {
        assert_eq!(ready(fd, Direction::Read, FOREVER), Err(NetError::System(libc::EBADF)));
        let blocks = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        assert_eq!(attempt(fd, Direction::Read, FOREVER, blocks), Err(NetError::System(libc::EBADF)));
    }
}

#[test]
fn a_file_that_is_always_ready_is_not_waited_for() {
    let file = std::fs::File::open("/proc/self/exe").expect("this program");
    let mut calls = 0;
    let twice = || {
        calls += 1;
        if calls == 1 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    };
    assert_eq!(attempt(file.as_raw_fd(), Direction::Read, FOREVER, twice), Ok(()));
}

#[test]
fn thousands_wait_at_once() {
    let pairs: Vec<_> = (0..400).map(|_| pair()).collect();
    let waiting: Vec<_> = pairs.iter().map(|(_, other)| wait_read(other.as_raw_fd())).collect();
    for (one, _) in pairs.iter().rev() {
        (&mut &*one).write_all(b"x").expect("room");
    }
    for (_, answer) in waiting {
        assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
    }
}

#[test]
fn a_goroutine_that_computes_does_not_hide_what_is_ready() {
    let (mut one, other) = pair();
    let (waiter, answer) = wait_read(other.as_raw_fd());
    let (sender, on_its_worker) = channel();
    // One after the other, until one has come to that worker: that one holds it until it sees the other woken.
    loop {
        let (sender, waiter) = (sender.clone(), Arc::clone(&waiter));
        let (_, ran) = go(move || {
            let here = sched::current().is_some_and(|task| task.home() == waiter.home());
            if here {
                sender.send(()).expect("somebody waits");
                until(|| !waiter.waiter().is_unclaimed());
            }
        });
        if on_its_worker.recv_timeout(Duration::from_millis(5)).is_ok() {
            one.write_all(b"x").expect("room");
            assert_eq!(ran.recv_timeout(LONG), Ok(()));
            break;
        }
    }
    assert_eq!(answer.recv_timeout(LONG), Ok(Ok(())));
}

#[test]
fn bytes_go_round_in_a_ring_of_goroutines() {
    let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
    let (mut firsts, mut seconds): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    seconds.rotate_left(1);
    let mut start = firsts[0].try_clone().expect("a copy");
    let done: Vec<_> = firsts
        .drain(..)
        .zip(seconds)
        .map(|(mut to, mut from)| {
            go(move || {
                let mut seen = 0u32;
                loop {
                    let mut byte = [0];
                    let fd = from.as_raw_fd();
                    let read =
                        attempt(fd, Direction::Read, FOREVER, || from.read(&mut byte)).expect("no error");
                    if read == 0 {
                        return seen;
                    }
                    seen += 1;
                    if seen == 500 {
                        return seen;
                    }
                    let fd = to.as_raw_fd();
                    attempt(fd, Direction::Write, FOREVER, || to.write(&byte)).expect("no error");
                }
            })
        })
        .collect();
    start.write_all(b"x").expect("room");
    drop(start);
    let most = done.into_iter().map(|(_, seen)| seen.recv_timeout(LONG).expect("an end")).max();
    assert_eq!(most, Some(500));
}

#[test]
fn what_is_ours_is_closed_when_the_last_call_is_over() {
    let (one, other) = pair();
    let (fd, owned) = (other.as_raw_fd(), Arc::new(Owned::new(OwnedFd::from(other))));
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let owned = Arc::clone(&owned);
            let (task, answer) = go(move || {
                owned.attempt(Direction::Read, || FOREVER, false, |fd| recv(fd, Bytes::of(&mut [0]), 0))
            });
            parked(&task, WaitReason::NetRead);
            answer
        })
        .collect();
    assert_eq!(owned.number(), Some(fd));
    assert!(owned.close());
    assert!(!owned.close());
    for answer in calls {
        assert_eq!(answer.recv_timeout(LONG), Ok(Err(NetError::Closed)));
    }
    assert_eq!(owned.number(), None);
    assert_eq!(owned.with(|_| Ok(())), Err(NetError::Closed));
    // The other side sees the end: the descriptor is gone.
    assert_eq!(attempt(one.as_raw_fd(), Direction::Read, FOREVER, || (&one).read(&mut [0])), Ok(0));
}

#[test]
fn calls_and_a_close_at_the_same_time_leave_nobody_waiting() {
    for _ in 0..200 {
        let (_one, other) = pair();
        let owned = Arc::new(Owned::new(OwnedFd::from(other)));
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let owned = Arc::clone(&owned);
                go(move || {
                    owned.attempt(Direction::Read, || FOREVER, false, |fd| recv(fd, Bytes::of(&mut [0]), 0))
                })
                .1
            })
            .collect();
        assert!(owned.close());
        for answer in calls {
            assert_eq!(answer.recv_timeout(LONG), Ok(Err(NetError::Closed)));
        }
    }
}

#[test]
fn what_comes_while_nobody_waits_is_found_by_the_next_wait() {
    let (mut one, other) = pair();
    let owned = Arc::new(Owned::new(OwnedFd::from(other)));
    let (go_on, waits) = channel::<()>();
    let (tell, has_read) = channel();
    let theirs = Arc::clone(&owned);
    let (task, answer) = go(move || {
        let read =
            || theirs.attempt(Direction::Read, || FOREVER, true, |fd| recv(fd, Bytes::of(&mut [0; 9]), 0));
        let first = read();
        tell.send(()).expect("somebody waits");
        // The worker does not look for descriptors meanwhile, and is not held for long.
        waits.recv_timeout(LONG).expect("a word");
        [first, read(), read()]
    });
    parked(&task, WaitReason::NetRead);
    one.write_all(b"a").expect("room");
    has_read.recv_timeout(LONG).expect("a word");
    one.write_all(b"bc").expect("room");
    go_on.send(()).expect("somebody waits");
    parked(&task, WaitReason::NetRead);
    drop(one);
    assert_eq!(answer.recv_timeout(LONG), Ok([Ok(1), Ok(2), Ok(0)]));
}

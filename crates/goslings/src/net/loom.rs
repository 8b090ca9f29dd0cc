//! Models of those who wait to accept: an event wakes one of them, who wakes the next; nobody is forgotten while there is
//! a connection.

use super::fds::{Fd, Registered, Seen};
use super::{Direction, NetError, NetPoll, pass_on, wait_to_take};
use crate::clock::{Deadline, Wait};
use crate::sync::{AtomicU32, Ordering, model};
use crate::waiter::{Parker, at_once};
use crate::waiting::WaitError;
use ::loom::sync::Arc;
use ::loom::thread;

/// A deadline that has always passed.
const AT_ONCE: Wait = Wait::Until(Deadline(0));

/// A listening descriptor, registered, and how many connections wait in its backlog.
struct Listener {
    place: &'static Fd,
    poll: &'static NetPoll,
    backlog: AtomicU32,
}

impl Listener {
    fn new() -> Arc<Listener> {
        let (place, poll): (&'static Fd, _) = (Box::leak(Box::new(Fd::new(3))), NetPoll::alone());
        let mut state = place.lock();
        state.own();
        let registered = state.register(3, poll, Direction::Accept);
        assert!(matches!(registered, Ok(Registered::Yes)));
        drop(state);
        Arc::new(Listener { place, poll, backlog: AtomicU32::new(0) })
    }

    /// So many connections come, and the poller hears of them at once.
    fn come(&self, count: u32) {
        // Ordering: AcqRel. The kernel's own lock.
        self.backlog.fetch_add(count, Ordering::AcqRel);
        let seen = Seen { fd: 3, number: 1, read: true, ..Seen::default() };
        let wakes = self.place.lock().happened(self.poll, &seen);
        wakes.wake_all();
    }

    fn take(&self) -> bool {
        // Ordering: AcqRel. As above.
        let taken =
            self.backlog.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
        taken.is_ok()
    }

    /// As `attempt_with` does it; whether there was one in time.
    fn accept(&self, wait: Wait) -> bool {
        let mut owes = false;
        loop {
            if self.take() {
                if owes {
                    pass_on(self.place);
                }
                return true;
            }
            let mut state = self.place.lock();
            match state.register(3, self.poll, Direction::Accept) {
                Ok(Registered::Yes) => {}
                Ok(Registered::LookAgain) => {
                    owes = true;
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            let parker = Parker::new();
            match at_once(wait_to_take(self.place, state, self.poll, wait, &parker)) {
                Ok(()) => owes = true,
                Err(error) => {
                    assert_eq!(error, NetError::Wait(WaitError::TimedOut));
                    return false;
                }
            }
        }
    }
}

/// One of those who accept has `first` as its patience, the other waits for ever; these connections come.
fn accepting(first: Wait, events: &'static [u32]) {
    model(0, move || {
        let listener = Listener::new();
        let beside = Arc::clone(&listener);
        let one = thread::spawn(move || beside.accept(first));
        let beside = Arc::clone(&listener);
        let other = thread::spawn(move || beside.accept(Wait::Forever));
        for &count in events {
            listener.come(count);
        }
        assert!(other.join().expect("no panic"));
        let served = one.join().expect("no panic");
        assert!(served || first != Wait::Forever);
    });
}

#[test]
fn two_connections_with_one_event() {
    accepting(Wait::Forever, &[2]);
}

#[test]
fn two_connections_one_after_the_other() {
    accepting(Wait::Forever, &[1, 1]);
}

#[test]
fn one_of_two_gives_up() {
    accepting(AT_ONCE, &[2]);
    accepting(AT_ONCE, &[1, 1]);
}

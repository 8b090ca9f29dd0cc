//! The descriptors, by number: who waits for each, and with which pollers it is registered.
//!
//! **Invariants**
//! * A place, once made, stays where it is as long as the runtime: pollers and waiters find it by the number.
//! * The union of what all waiters want is what the newest registration asks for.
//! * Of those who wait to take one of what is there (`Direction::Accept`) an event wakes one: of those for whom the poller
//!   looks, so that each poller's event wakes somebody who can go on where it was seen. There may be more than one behind
//!   an event. So whoever has waited and then taken one, or failed in another way than by finding nothing, wakes the next,
//!   or notes that there may be something, for one who has found nothing and is about to wait. If it finds nothing,
//!   somebody else has taken what there was, and what comes later is a new event.

use super::{Direction, NetPoll};
use crate::lock::{Guard, Mutex, Rank};
use crate::waitq::{WaitQueue, WakeList};
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a waiter is told of its descriptor. It brings `Open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    Closed,
}

/// Who waits to take one of what is there. It brings the poller that looks for it, and is given a verdict.
#[derive(Clone, Copy)]
pub(super) enum Taker {
    By(&'static NetPoll),
    Told(Verdict),
}

/// What an event says.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) fd: i32,
    /// Of the registration.
    pub(super) number: u32,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) at_end: bool,
}

/// A poller in which a descriptor is registered, and the number of that registration.
struct Known {
    poll: &'static NetPoll,
    number: u32,
    /// What it is registered for.
    read: bool,
    write: bool,
}

/// What to do after a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    /// Wait.
    Yes,
    /// Look again: it may be ready.
    LookAgain,
}

/// What is known of one descriptor.
pub(super) struct State {
    pub(super) read: WaitQueue<Verdict>,
    pub(super) write: WaitQueue<Verdict>,
    pub(super) accept: WaitQueue<Taker>,
    /// The number of the newest registration.
    newest: u32,
    /// Whether a close is told beforehand. Then registrations stay, and what is below counts.
    owned: bool,
    /// Whether something has happened while nobody waited for it.
    readable: bool,
    writable: bool,
    /// Whether the other side sends no more: then there is something to read for ever, its end.
    at_end: bool,
    first: Option<Known>,
    /// Those beyond the first: goroutines of several workers have waited for it.
    others: Vec<Known>,
}

impl State {
    fn known(&mut self, poll: &NetPoll) -> Option<&mut Known> {
        self.first.iter_mut().chain(&mut self.others).find(|known| ptr::eq(known.poll, poll))
    }

    /// Has `poll` report what is and becomes ready, for all who wait and one more, who is about to be queued.
    pub(super) fn register(
        &mut self,
        fd: i32,
        poll: &'static NetPoll,
        direction: Direction,
    ) -> io::Result<Registered> {
        if self.owned {
            let noted = match direction {
                Direction::Read | Direction::Accept => &mut self.readable,
                Direction::Write => &mut self.writable,
            };
            if std::mem::take(noted) {
                return Ok(Registered::LookAgain);
            }
        }
        let read = direction != Direction::Write || !self.read.is_empty() || !self.accept.is_empty();
        let write = direction == Direction::Write || !self.write.is_empty();
        let owned = self.owned;
        if let Some(known) = self.known(poll) {
            if owned && (known.read || !read) && (known.write || !write) {
                return Ok(Registered::Yes);
            }
            let wanted = if owned { (read || known.read, write || known.write) } else { (read, write) };
            match poll.change(fd, known.number, wanted) {
                Ok(()) => {
                    (known.read, known.write) = wanted;
                    return Ok(Registered::Yes);
                }
                // Another file has the number now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.newest = self.newest.wrapping_add(1);
        let number = self.newest;
        match poll.add(fd, number, (read, write)) {
            Ok(()) => {}
            // It was closed, we were told, and is open after all.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                poll.change(fd, number, (read, write))?;
            }
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(Registered::LookAgain),
            Err(error) => return Err(error),
        }
        if let Some(known) = self.known(poll) {
            (known.number, known.read, known.write) = (number, read, write);
        } else if self.first.is_none() {
            self.first = Some(Known { poll, number, read, write });
        } else {
            self.others.push(Known { poll, number, read, write });
        }
        Ok(Registered::Yes)
    }

    /// Takes out those whom an event of `poll` with that number concerns.
    pub(super) fn happened(&mut self, poll: &NetPoll, seen: &Seen) -> Wakes {
        let mut wakes = Wakes::none();
        if self.known(poll).is_none_or(|known| known.number != seen.number) {
            return wakes;
        }
        if seen.read {
            let mut any = take_all(&mut self.read, Verdict::Open, &mut wakes.all);
            if seen.at_end {
                any |= self.take_all_takers(Verdict::Open, &mut wakes.takers);
            } else {
                any |= self.take_taker(Some(poll), &mut wakes.takers);
            }
            self.readable |= !any;
        }
        if seen.write {
            self.writable |= !take_all(&mut self.write, Verdict::Open, &mut wakes.all);
        }
        self.at_end |= seen.at_end;
        wakes
    }

    /// Takes out the first of those who wait to take one; only of those for whom `poll` looks, if that is given.
    fn take_taker(&mut self, poll: Option<&NetPoll>, wakes: &mut WakeList<Taker>) -> bool {
        let here = |taker: &Taker| match (poll, taker) {
            (Some(poll), Taker::By(other)) => ptr::eq(poll, *other),
            _ => true,
        };
        let Some(mut waiter) = self.accept.pop_where(here) else { return false };
        let _ = waiter.take();
        waiter.put(Taker::Told(Verdict::Open));
        wakes.push(waiter);
        true
    }

    fn take_all_takers(&mut self, verdict: Verdict, wakes: &mut WakeList<Taker>) -> bool {
        let mut any = false;
        while let Some(mut waiter) = self.accept.pop() {
            let _ = waiter.take();
            waiter.put(Taker::Told(verdict));
            wakes.push(waiter);
            any = true;
        }
        any
    }

    /// Takes out the next of those who wait to take one: whoever had the last event may have left some.
    pub(super) fn pass_on(&mut self) -> Wakes {
        let mut wakes = Wakes::none();
        let any = self.take_taker(None, &mut wakes.takers);
        self.readable |= !any && self.owned;
        wakes
    }

    /// Whether everything that has come since the last look is known, so that who has read all need not look again before
    /// waiting.
    pub(super) fn is_followed(&mut self, poll: &NetPoll) -> bool {
        self.owned && !self.at_end && self.known(poll).is_some_and(|known| known.read)
    }

    /// Takes out everybody, to try again.
    pub(super) fn rouse(&mut self) -> Wakes {
        self.wake_everybody(Verdict::Open)
    }

    fn wake_everybody(&mut self, verdict: Verdict) -> Wakes {
        let mut wakes = Wakes::none();
        take_all(&mut self.read, verdict, &mut wakes.all);
        take_all(&mut self.write, verdict, &mut wakes.all);
        self.take_all_takers(verdict, &mut wakes.takers);
        wakes
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owned
    }

    /// From now on a close is told beforehand; what was known was of the file that had the number before.
    pub(super) fn own(&mut self) {
        self.owned = true;
        (self.readable, self.writable, self.at_end) = (false, false, false);
        (self.first, self.others) = (None, Vec::new());
    }

    /// Forgets all registrations, and takes out everybody.
    pub(super) fn close(&mut self) -> Wakes {
        self.own();
        self.owned = false;
        self.wake_everybody(Verdict::Closed)
    }
}

/// Who is to be woken, without the lock.
#[must_use]
pub(super) struct Wakes {
    all: WakeList<Verdict>,
    takers: WakeList<Taker>,
}

impl Wakes {
    fn none() -> Wakes {
        Wakes { all: WakeList::new(), takers: WakeList::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.takers.is_empty()
    }

    pub(super) fn wake_all(self) {
        self.all.wake_all();
        self.takers.wake_all();
    }
}

/// Whether there was anybody.
fn take_all(queue: &mut WaitQueue<Verdict>, verdict: Verdict, wakes: &mut WakeList<Verdict>) -> bool {
    let mut any = false;
    while let Some(mut waiter) = queue.pop() {
        let _ = waiter.take();
        waiter.put(verdict);
        wakes.push(waiter);
        any = true;
    }
    any
}

/// One descriptor.
pub(crate) struct Fd {
    number: i32,
    /// How often it was about to be closed. Written under the lock.
    closes: AtomicU32,
    state: Mutex<State>,
}

impl Fd {
    pub(super) fn new(number: i32) -> Fd {
        let (read, write) = (WaitQueue::new(), WaitQueue::new());
        let state = State {
            read,
            write,
            accept: WaitQueue::new(),
            newest: 0,
            owned: false,
            readable: false,
            writable: false,
            at_end: false,
            first: None,
            others: Vec::new(),
        };
        Fd { number, closes: AtomicU32::new(0), state: Mutex::new(Rank::Object, state) }
    }

    /// How often it was about to be closed: whoever finds another number than before has a number that may be of another
    /// file by now. Exact under the lock.
    pub(super) fn closes(&self) -> u32 {
        // Ordering: Relaxed. Whoever was given the number after a close has heard of it in the same way; a close at the
        // same time is found under the lock.
        self.closes.load(Ordering::Relaxed)
    }

    /// It is about to be closed.
    pub(super) fn closing(&self) {
        let wakes = {
            let mut state = self.lock();
            // Ordering: Relaxed. As in `closes`.
            self.closes.fetch_add(1, Ordering::Relaxed);
            state.close()
        };
        wakes.wake_all();
    }

    pub(super) fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    pub(super) fn mutex(&self) -> &Mutex<State> {
        &self.state
    }

    /// The descriptor, as the system numbers it.
    pub(crate) fn number(&self) -> i32 {
        self.number
    }
}

/// The first chunk has so many places; each further one doubles what there is.
const FIRST: usize = 64;
/// So many chunks hold every number there can be.
const CHUNKS: usize = 27;

/// All descriptors that somebody has waited for, and their neighbours.
pub(super) struct Fds([OnceLock<Box<[Fd]>>; CHUNKS]);

impl Fds {
    pub(super) fn new() -> Fds {
        Fds([const { OnceLock::new() }; CHUNKS])
    }

    /// The chunk of a number, where that begins, and how long it is.
    fn chunk(number: usize) -> (usize, usize, usize) {
        if number < FIRST {
            return (0, 0, FIRST);
        }
        let chunk = (number / FIRST).ilog2() as usize + 1;
        let start = FIRST << (chunk - 1);
        (chunk, start, start)
    }

    /// The place of `fd`; None if that is no number of a descriptor.
    pub(super) fn place(&self, fd: i32) -> Option<&Fd> {
        let number = usize::try_from(fd).ok()?;
        let (chunk, start, len) = Fds::chunk(number);
        let places =
            self.0.get(chunk)?.get_or_init(|| (start..start + len).map(|n| Fd::new(n as i32)).collect());
        places.get(number - start)
    }

    /// The same, if somebody has waited for it or a neighbour.
    pub(super) fn existing(&self, fd: i32) -> Option<&Fd> {
        let number = usize::try_from(fd).ok()?;
        let (chunk, start, _) = Fds::chunk(number);
        self.0.get(chunk)?.get()?.get(number - start)
    }

    /// A poller has seen something of `fd`. Returns whether somebody was woken. No lock may be held.
    #[cfg_attr(any(loom, miri), expect(dead_code, reason = "the stand-in sees nothing"))]
    pub(super) fn happened(&self, poll: &NetPoll, seen: &Seen) -> bool {
        let Some(place) = self.existing(seen.fd) else { return false };
        let wakes = place.lock().happened(poll, seen);
        let any = !wakes.is_empty();
        wakes.wake_all();
        any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CHUNKS, Fds};

    #[test]
    fn every_number_has_one_place() {
        let mut before = (0, 0, 0);
        for number in 0..100_000 {
            let (chunk, start, len) = Fds::chunk(number);
            assert!(start <= number && number < start + len, "{number}");
            assert!((chunk, start, len) == before || start == before.1 + before.2, "{number}");
            before = (chunk, start, len);
        }
        assert!(Fds::chunk(i32::MAX as usize).0 < CHUNKS);
    }

    #[test]
    fn a_place_knows_its_number() {
        let fds = Fds::new();
        assert!(fds.existing(5).is_none() && fds.place(-1).is_none());
        for fd in [0, 63, 64, 127, 128, 5000] {
            assert_eq!(fds.place(fd).map(super::Fd::number), Some(fd));
            assert!(fds.existing(fd).is_some());
        }
    }
}

//! A poller: what the system tells of descriptors, through `mio` (epoll on Linux, kqueue elsewhere).
//!
//! **Invariants**
//! * The lock around what `mio` needs exclusively is a leaf, and is held while its owner sleeps in the poller: others only
//!   try it. Under it data moves and nothing else; waiters are woken after it.
//! * A ring is never lost: it makes the poll that runs, or else the next one, return.

use super::fds::Seen;
use crate::sched::Runtime;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

/// So many events are taken at a time.
const BATCH: usize = 256;
/// The token of the ring. No descriptor has such a number.
const RING: Token = Token(usize::MAX);

#[expect(clippy::disallowed_types, reason = "a leaf lock that its owner sleeps with; others only try it")]
type PollLock = std::sync::Mutex<(Poll, Events)>;

type Guard<'a> = std::sync::MutexGuard<'a, (Poll, Events)>;

/// Events, taken out.
struct Batch {
    seen: [Seen; BATCH],
    count: usize,
}

pub(crate) struct NetPoll {
    runtime: &'static Runtime,
    registry: Registry,
    ring: Waker,
    poll: PollLock,
    /// How many wait for something that this one will see.
    awaited: AtomicU32,
}

/// One who waits, from here to its drop.
pub(super) struct Awaited(&'static NetPoll);

impl Drop for Awaited {
    fn drop(&mut self) {
        // Ordering: Relaxed. See `is_awaited`.
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

fn seen(event: &Event) -> Option<Seen> {
    if event.token() == RING {
        return None;
    }
    let token = event.token().0 as u64;
    let mut at_end = event.is_read_closed() || event.is_error();
    let mut read = event.is_readable() || at_end;
    let mut write = event.is_writable() || event.is_write_closed() || event.is_error();
    if !read && !write {
        // Half-closed and nothing else, or something new: they look themselves.
        (read, write, at_end) = (true, true, true);
    }
    Some(Seen { fd: (token >> 32) as i32, number: token as u32, read, write, at_end })
}

fn token(fd: i32, number: u32) -> Token {
    Token(((fd as u64) << 32 | u64::from(number)) as usize)
}

fn interest((read, write): (bool, bool)) -> Interest {
    match (read, write) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (false, true) => Interest::WRITABLE,
        _ => Interest::READABLE,
    }
}

impl NetPoll {
    /// A poller, which is never freed.
    pub(crate) fn new(runtime: &'static Runtime) -> io::Result<&'static NetPoll> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let ring = Waker::new(&registry, RING)?;
        let poll = PollLock::new((poll, Events::with_capacity(BATCH)));
        Ok(Box::leak(Box::new(NetPoll { runtime, registry, ring, poll, awaited: AtomicU32::new(0) })))
    }

    /// From now on `fd` is registered here.
    pub(super) fn add(&self, fd: i32, number: u32, wanted: (bool, bool)) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd), token(fd, number), interest(wanted))
    }

    /// What is registered changes; what is ready is reported (again).
    pub(super) fn change(&self, fd: i32, number: u32, wanted: (bool, bool)) -> io::Result<()> {
        self.registry.reregister(&mut SourceFd(&fd), token(fd, number), interest(wanted))
    }

    /// Somebody waits for something that this poller will see, until the drop of what is returned.
    pub(super) fn await_one(&'static self) -> Awaited {
        // Ordering: Relaxed. See `is_awaited`.
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(self)
    }

    /// Whether anybody waits. Exact for the worker whose poller it is, and for whoever knows that nobody is awake.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        // Ordering: Relaxed. Who begins to wait does so on the worker's own thread; who has ended one may still count.
        self.awaited.load(Ordering::Relaxed) != 0
    }

    /// Makes a poll that sleeps return, or else the next one.
    pub(crate) fn ring(&self) {
        if let Err(error) = self.ring.wake() {
            panic!("the ring of a poller: {error}");
        }
    }

    /// Looks, and wakes whom it concerns; returns whether there was anybody. By the owner, attached to the host.
    pub(crate) fn look(&self) -> bool {
        let Some(seen) = self.take(self.lock(), Some(Duration::ZERO)) else { return false };
        self.tell(&seen)
    }

    /// The same, unless somebody looks already. By anybody who is not attached.
    pub(crate) fn look_instead(&self) -> bool {
        if !self.is_awaited() {
            return false;
        }
        let poll = match self.poll.try_lock() {
            Ok(poll) => poll,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        self.take(poll, Some(Duration::ZERO)).is_some_and(|seen| self.tell_unattached(&seen))
    }

    /// Sleeps until something happens or somebody rings, then as `look`. May also return for no reason. By the owner,
    /// not attached.
    pub(crate) fn sleep(&self) -> bool {
        self.take(self.lock(), None).is_some_and(|seen| self.tell_unattached(&seen))
    }

    fn lock(&self) -> Guard<'_> {
        self.poll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the system has to tell by then; None if that is nothing.
    fn take(&self, mut poll: Guard<'_>, time: Option<Duration>) -> Option<Batch> {
        let (poll, events) = &mut *poll;
        if let Err(error) = poll.poll(events, time) {
            assert!(error.kind() == io::ErrorKind::Interrupted, "a poller: {error}");
            return None;
        }
        let mut batch = Batch { seen: [Seen::default(); BATCH], count: 0 };
        for seen in events.iter().filter_map(seen) {
            batch.seen[batch.count] = seen;
            batch.count += 1;
        }
        (batch.count > 0).then_some(batch)
    }

    /// Wakes whom it concerns.
    fn tell(&self, batch: &Batch) -> bool {
        let mut any = false;
        for seen in &batch.seen[..batch.count] {
            any |= self.runtime.net.fds.happened(self, seen);
        }
        any
    }

    /// The same, on a thread that a fork of the process does not wait for otherwise: see `sched::before_fork`.
    fn tell_unattached(&self, batch: &Batch) -> bool {
        self.runtime.timers.close_gate();
        let any = self.tell(batch);
        self.runtime.timers.open_gate();
        any
    }

    /// The life of the thread that looks for those who have no worker.
    pub(super) fn look_for_ever(&self) -> ! {
        loop {
            self.sleep();
        }
    }
}

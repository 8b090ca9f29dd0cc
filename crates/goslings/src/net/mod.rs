//! Waiting for file descriptors: a goroutine parks until one can be read or written.
//!
//! Each worker has a poller (`poll.rs`) of its own, made when somebody first waits for a descriptor there: a goroutine
//! that has started never leaves its worker, so whoever polls is who runs it. The worker sleeps in its poller, and looks
//! into it when it runs out of work; while a goroutine holds the worker for long, the monitor looks. Plain threads and
//! tasks of event loops share one more poller, which has a thread of its own.
//!
//! **Invariants**
//! * Pollers report changes (edges), not states. A wait registers its descriptor anew, under the descriptor's lock and
//!   with its node queued under the same: the system then reports what is ready already. So no edge is missed, also if
//!   the descriptor was closed and the number given to another file since.
//! * A registration covers all who wait then. It has a number; an event that carries another one than the descriptor has
//!   now, for that poller, is about a file that is gone, and is ignored.
//! * A descriptor whose close is told beforehand (`Owned`) stays registered. What happens to it while nobody waits is
//!   noted, and the next wait looks again at once.
//! * An event ends all waits in its direction. Those who cannot go on after all wait again, and so register anew. Of those
//!   who wait to accept it ends one: see fds.rs.
//! * A number may be closed, and be another file's, whenever nobody looks. Closes that are told are counted, and who waits,
//!   or tries again, looks whether there was one since it was called. What is left is the moment between that look and the
//!   system call, as in any program that uses numbers on several threads; `Owned` has none.
//! * A descriptor's lock is held for moves and for `epoll_ctl`, which does not wait.

mod calls;
mod fds;
#[cfg(all(test, loom))]
mod loom;
mod owned;
#[cfg(not(any(loom, miri)))]
mod poll;
#[cfg(any(loom, miri))]
#[path = "stand_in.rs"]
mod poll;
#[cfg(all(test, not(any(loom, miri))))]
mod tests;

pub use calls::{
    Address, Bytes, Parsed, accept, address_of, blocks, is_on_disk, no_delay, prepare, read, recv,
    reset_at_close, send, shutdown, write, write_at_once,
};
pub use owned::Owned;
pub(crate) use poll::NetPoll;

use crate::clock::Wait;
use crate::lock::Guard;
use crate::sched::{self, Runtime};
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use fds::{Fds, Registered, State, Taker, Verdict};
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use fds::Fd;

/// What a descriptor is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Direction {
    Read,
    Write,
    /// As `Read`, for whoever takes one of what is there and leaves the rest to others: an event is for one of them.
    Accept,
}

/// Why a wait for a descriptor, or what was tried on it, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The wait failed.
    Wait(WaitError),
    /// It was closed meanwhile: see [`closing`].
    Closed,
    /// The system refused; its error number.
    System(i32),
}

/// What is known beforehand of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It is a number, and no more.
    Number,
    /// It is open, and its close will be told.
    Owned,
    /// Also that its reader has read all that there was of a stream.
    AllRead,
}

/// The descriptors that somebody waits or has waited for, and the poller of those who have no worker.
pub(crate) struct Net {
    fds: Fds,
    shared: OnceLock<&'static NetPoll>,
    /// Whether the shared poller has its thread.
    running: AtomicBool,
}

impl Net {
    pub(crate) fn new() -> Net {
        Net { fds: Fds::new(), shared: OnceLock::new(), running: AtomicBool::new(false) }
    }

    /// Makes the poller of those who have no worker, without its thread. Before any other: who finds no descriptors left for
    /// a poller of its own has this one.
    pub(crate) fn reserve(&self, runtime: &'static Runtime) -> io::Result<&'static NetPoll> {
        if let Some(poll) = self.shared.get() {
            return Ok(poll);
        }
        let made = NetPoll::new(runtime)?;
        // Of two at the same time one is never used.
        Ok(self.shared.get_or_init(|| made))
    }

    /// The poller of those who have no worker.
    fn shared(&self, runtime: &'static Runtime) -> io::Result<&'static NetPoll> {
        let poll = self.reserve(runtime)?;
        // Ordering: Relaxed. A loser of the race sees true and goes on; the thread comes.
        if !self.running.swap(true, Ordering::Relaxed) {
            let thread = std::thread::Builder::new()
                .name("goslings-poller".into())
                .stack_size(128 * 1024)
                .spawn(move || poll.look_for_ever());
            if let Err(error) = thread {
                // Ordering: Relaxed. As above: the next one tries again.
                self.running.store(false, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(poll)
    }

    /// How many threads look for those who have no worker. None if one of these could go on. See deadlock.rs.
    pub(crate) fn asleep(&self) -> Option<usize> {
        // Ordering: Relaxed. Once set it stays, but for the moment of a failure.
        if !self.running.load(Ordering::Relaxed) {
            return Some(0);
        }
        // The thread touches nobody who does not count as waiting: until who was woken has gone on.
        (!self.shared.get()?.is_awaited()).then_some(1)
    }
}

/// Waits until `fd` is ready, has failed or was hung up; as of then: others may be sooner.
///
/// A file that is never not ready (on a disk, for one) is ready at once.
///
/// # Blocking
/// Parks the goroutine or blocks the thread, at most as `wait` says; with `Wait::No` not at all.
///
/// # Errors
/// [`NetError`]. `System(EBADF)`: there is no such descriptor.
pub fn ready(fd: i32, direction: Direction, wait: Wait) -> Result<(), NetError> {
    at_once(ready_with(fd, direction, wait, &Parker::new()))
}

/// Calls `attempt` until it does anything but fail with `WouldBlock`, and waits in between until `fd` is ready.
///
/// # Blocking
/// As [`ready`]; `attempt` must not wait itself.
///
/// # Errors
/// [`NetError`]; what `attempt` failed with is `System`. With `Wait::No` that may be `EAGAIN`.
pub fn attempt<T>(
    fd: i32,
    direction: Direction,
    wait: Wait,
    attempt: impl FnMut() -> io::Result<T>,
) -> Result<T, NetError> {
    at_once(attempt_with(fd, direction, || wait, Trust::Number, &Parker::new(), attempt))
}

async fn attempt_with<T>(
    fd: i32,
    direction: Direction,
    wait: impl Fn() -> Wait,
    trust: Trust,
    parker: &impl Park,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Result<T, NetError> {
    if parker.waiter().take_cancel() {
        return Err(NetError::Wait(WaitError::Cancelled));
    }
    let place = open_place(fd)?;
    let closes = place.closes();
    if trust == Trust::AllRead && wait() != Wait::No {
        something_happens(place, direction, wait(), (trust, closes), parker).await?;
    }
    let trust = if trust == Trust::AllRead { Trust::Owned } else { trust };
    let mut owes = false;
    loop {
        let done = attempt();
        match done {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let wait = wait();
                if wait == Wait::No {
                    return Err(NetError::System(libc::EAGAIN));
                }
                something_happens(place, direction, wait, (trust, closes), parker).await?;
                owes = direction == Direction::Accept;
                if place.closes() != closes && trust == Trust::Number {
                    return Err(NetError::Closed);
                }
            }
            done => {
                if owes {
                    pass_on(place);
                }
                return Ok(done?);
            }
        }
    }
}

/// The place of a descriptor. Numbers that are none would need memory for all below them.
fn open_place(fd: i32) -> Result<&'static Fd, NetError> {
    let fds = &sched::runtime().net.fds;
    if let Some(place) = fds.existing(fd) {
        return Ok(place);
    }
    let _ = blocks(fd)?;
    fds.place(fd).ok_or(NetError::System(libc::EBADF))
}

/// Wakes the next of those who wait to take one of what is there, by one who has had its turn.
fn pass_on(place: &Fd) {
    let wakes = place.lock().pass_on();
    wakes.wake_all();
}

/// [`attempt`], for those who are polled.
pub(crate) async fn attempt_by<T>(
    fd: i32,
    direction: Direction,
    wait: Wait,
    parker: &impl Park,
    attempt: impl FnMut() -> io::Result<T>,
) -> Result<T, NetError> {
    attempt_with(fd, direction, || wait, Trust::Number, parker, attempt).await
}

pub(crate) async fn ready_with(
    fd: i32,
    direction: Direction,
    wait: Wait,
    parker: &impl Park,
) -> Result<(), NetError> {
    let look = || match is_ready(fd, direction) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
        Err(NetError::System(number)) => Err(io::Error::from_raw_os_error(number)),
        Err(error) => Err(io::Error::other(error)),
    };
    let ready = attempt_by(fd, direction, wait, parker, look).await;
    if let Err(NetError::System(libc::EAGAIN)) = ready {
        return Err(NetError::Wait(WaitError::TimedOut));
    }
    ready
}

/// Waits until a poller has seen something of a descriptor, which may be nothing to whoever waits: then it tries, and waits
/// again. `closes`: how often it was closed when the call began.
async fn something_happens(
    place: &'static Fd,
    direction: Direction,
    wait: Wait,
    (trust, closes): (Trust, u32),
    parker: &impl Park,
) -> Result<(), NetError> {
    let (runtime, fd) = (sched::runtime(), place.number());
    let bed = sched::current_bed().filter(|_| parker.has_worker());
    let poll = match bed.and_then(|bed| bed.net_poll(runtime).ok()) {
        Some(poll) => poll,
        None => runtime.net.shared(runtime)?,
    };
    let mut state = place.lock();
    if place.closes() != closes || (trust != Trust::Number && !state.is_owned()) {
        return Err(NetError::Closed);
    }
    if trust == Trust::AllRead && !state.is_followed(poll) {
        return Ok(());
    }
    if state.register(fd, poll, direction)? == Registered::LookAgain {
        return Ok(());
    }
    let _awaited = poll.await_one();
    if direction == Direction::Accept {
        return wait_to_take(place, state, poll, wait, parker).await;
    }
    let (queue, reason): (fn(&mut State) -> &mut _, _) = match direction {
        Direction::Write => (|state| &mut state.write, WaitReason::NetWrite),
        _ => (|state| &mut state.read, WaitReason::NetRead),
    };
    let (node, why) = ((Place::Back, Verdict::Open), (reason.on(place), wait));
    match wait_in(place.mutex(), state, queue, node, parker, why).await {
        Waited::ServedInVain(_) => Err(NetError::Wait(WaitError::Interrupted)),
        Waited::Served(Some(Verdict::Closed)) => Err(NetError::Closed),
        Waited::Served(_) => Ok(()),
        Waited::Failed(error, _) => Err(NetError::Wait(error)),
    }
}

/// Waits for its turn to take one of what is there; afterwards [`pass_on`] is owed.
async fn wait_to_take(
    place: &'static Fd,
    state: Guard<'static, State>,
    poll: &'static NetPoll,
    wait: Wait,
    parker: &impl Park,
) -> Result<(), NetError> {
    let (node, why) = ((Place::Back, Taker::By(poll)), (WaitReason::NetRead.on(place), wait));
    match wait_in(place.mutex(), state, |state| &mut state.accept, node, parker, why).await {
        Waited::Served(Some(Taker::Told(Verdict::Closed))) => Err(NetError::Closed),
        Waited::Served(_) => Ok(()),
        Waited::ServedInVain(_) => {
            // What it was woken for is the next one's.
            pass_on(place);
            Err(NetError::Wait(WaitError::Interrupted))
        }
        Waited::Failed(error, _) => Err(NetError::Wait(error)),
    }
}

/// Whether `fd` is ready now.
///
/// # Errors
/// [`NetError::System`].
pub fn is_ready(fd: i32, direction: Direction) -> Result<bool, NetError> {
    if fd < 0 {
        return Err(NetError::System(libc::EBADF));
    }
    let events = match direction {
        Direction::Read | Direction::Accept => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    loop {
        // SAFETY: one entry, in place during the call, which does not wait.
        match unsafe { libc::poll(&raw mut poll, 1, 0) } {
            0 => return Ok(false),
            1 if poll.revents & libc::POLLNVAL != 0 => return Err(NetError::System(libc::EBADF)),
            1 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error.into());
                }
            }
        }
    }
}

/// Tells that `fd` is about to be closed: those who wait for it fail with [`NetError::Closed`]. Never blocks.
pub fn closing(fd: i32) {
    let Some(place) = sched::existing().and_then(|runtime| runtime.net.fds.existing(fd)) else { return };
    place.closing();
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> NetError {
        NetError::System(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Wait(error) => error.fmt(f),
            NetError::Closed => f.write_str("descriptor closed while waited for"),
            NetError::System(number) => io::Error::from_raw_os_error(*number).fmt(f),
        }
    }
}

impl std::error::Error for NetError {}

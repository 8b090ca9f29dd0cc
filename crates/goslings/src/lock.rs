//! Runtime locks with ranks: a thread may only take locks of a rank below those it holds.
//!
//! **Invariants**
//! * Under a lock only data moves: no wake, no park, no call into the host, no drop of a user's value.
//! * Ranks are taken outermost first, in the order of [`Rank`]. Debug builds keep the ranks a thread
//!   holds and panic on an inversion, printing the list.
//! * Several locks of one rank are taken only by [`lock_all`], in address order, each once.
//!
//! A holder never waits for anything, so a lock is held for tens of nanoseconds; that is why blocking on
//! one while attached to the interpreter is tolerable (a stop-the-world waits that long at most).

use crate::sync::{RawGuard, RawMutex};
use std::ops::{Deref, DerefMut};

/// Every lock of the runtime, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    /// The timer heap: firing a timer stores into a channel.
    Timers,
    /// A channel's state.
    Chan,
    /// The state of a synchronisation object.
    Object,
    /// The state of a bubble.
    Bubble,
    /// The list of sleeping workers, the stack pool, the worker table.
    Sched,
}

/// A mutex that knows its rank.
pub(crate) struct Mutex<T> {
    raw: RawMutex<T>,
    rank: Rank,
}

/// The right to touch what the mutex protects.
pub(crate) struct Guard<'a, T> {
    raw: RawGuard<'a, T>,
    _held: Held,
}

impl<T> Mutex<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Mutex { raw: RawMutex::new(value), rank }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let held = Held::push(self.rank, false);
        Guard { raw: ignore_poison(self.raw.lock()), _held: held }
    }

    /// For those who must not wait: a garbage collector's visit, a dump from a signal handler.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let raw = self.raw.try_lock().ok()?;
        Some(Guard { raw, _held: Held::push(self.rank, true) })
    }
}

/// A poisoned lock means that we panicked while moving data; the data itself is moved by
/// plain assignments that cannot be half done, so going on is better than failing every later call.
#[inline]
fn ignore_poison<G>(result: std::sync::LockResult<G>) -> G {
    result.unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks all of `mutexes`, which must be sorted by address and free of duplicates.
pub(crate) fn lock_all<'a, T, const N: usize>(
    mutexes: impl Iterator<Item = &'a Mutex<T>>,
) -> SmallGuards<'a, T, N> {
    let mut guards = SmallGuards::new();
    let mut last: usize = 0;
    for mutex in mutexes {
        let address = std::ptr::from_ref(mutex).addr();
        debug_assert!(address > last, "lock_all: not in address order");
        last = address;
        let held = Held::push(mutex.rank, true);
        guards.push(Guard { raw: ignore_poison(mutex.raw.lock()), _held: held });
    }
    guards
}

/// Guards of one [`lock_all`]: the first `N` inline, so that a usual `select` allocates nothing.
pub(crate) struct SmallGuards<'a, T, const N: usize> {
    inline: [Option<Guard<'a, T>>; N],
    rest: Vec<Guard<'a, T>>,
    len: usize,
}

impl<'a, T, const N: usize> SmallGuards<'a, T, N> {
    fn new() -> Self {
        SmallGuards { inline: [const { None }; N], rest: Vec::new(), len: 0 }
    }

    fn push(&mut self, guard: Guard<'a, T>) {
        match self.inline.get_mut(self.len) {
            Some(place) => *place = Some(guard),
            None => self.rest.push(guard),
        }
        self.len += 1;
    }

    /// The `index`-th guard, in the order in which they were locked.
    pub(crate) fn get(&mut self, index: usize) -> &mut T {
        match self.inline.get_mut(index) {
            Some(place) => place.as_mut().expect("index below len"),
            None => &mut self.rest[index - N],
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.raw
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.raw
    }
}

/// The ranks that this thread holds; nothing at all in release builds.
struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

#[cfg(debug_assertions)]
crate::sync::per_thread! {
    static HELD: std::cell::RefCell<Vec<Rank>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Held {
    #[cfg(not(debug_assertions))]
    #[inline]
    fn push(_rank: Rank, _same_rank_allowed: bool) -> Held {
        Held {}
    }

    #[cfg(debug_assertions)]
    fn push(rank: Rank, same_rank_allowed: bool) -> Held {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            let inverted = held.iter().any(|&h| h > rank || (h == rank && !same_rank_allowed));
            assert!(!inverted, "lock rank inversion: taking {rank:?} while holding {held:?}");
            held.push(rank);
        });
        Held { rank }
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            let place = held.iter().rposition(|&h| h == self.rank).expect("a rank that is held");
            held.remove(place);
        });
    }
}

/// Panics (in debug builds) if this thread holds any runtime lock: called before every park and sleep.
#[inline]
pub(crate) fn assert_none_held() {
    #[cfg(debug_assertions)]
    HELD.with(|held| {
        let held = held.borrow();
        assert!(held.is_empty(), "about to wait while holding {held:?}");
    });
}

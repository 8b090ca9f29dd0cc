//! A variable that transactions read and write.
//!
//! **Invariants**
//! * The value is exchanged under the lock, between two changes of the word: to COMMITTING before, to the new version
//!   after. So who finds the same version before and after a look at the value has looked at one that stood still,
//!   and needs no lock, if it can look at a value that others exchange ([`Share::share_racing`]).
//! * A read writes nothing to the variable unless it takes the lock: readers share it without slowing each other.

use super::turn::Space;
use crate::lock::{Guard, Mutex, Rank};
use crate::sync::{AtomicU64, Ordering};
use crate::waitq::{WaitQueue, WakeList};
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::Deref;

/// In the word, beside the version: somebody who holds the lock is about to publish.
const COMMITTING: u64 = 1;

/// A value that may be in several places at once, such as a counted reference.
pub trait Share: Sized {
    /// Another one of it. Called under a lock: it moves data, and calls nobody.
    #[must_use]
    fn share(&self) -> Self;

    /// Another one of what is in `slot`, which somebody may `exchange` at this moment. None: only under the lock.
    ///
    /// If it is had, the look was an acquiring one; and if it was exchanged meanwhile, it may be anything that can be
    /// dropped.
    ///
    /// # Safety
    /// `slot` lives, and is changed by `exchange` alone.
    #[inline]
    #[must_use]
    unsafe fn share_racing(slot: *const Self) -> Option<Self> {
        let _ = slot;
        None
    }

    /// Puts `value` into `slot`; what was there is in `value` afterwards. Moves data, and calls nobody. The change is a
    /// releasing one, if `share_racing` is not the default.
    ///
    /// # Safety
    /// `slot` lives, and only `share_racing` looks at it meanwhile.
    #[inline]
    unsafe fn exchange(slot: *mut Self, value: &mut Self) {
        // SAFETY: the caller's promise; without a `share_racing` of its own nobody looks.
        std::mem::swap(unsafe { &mut *slot }, value);
    }
}

impl<T: Clone> Share for T {
    fn share(&self) -> T {
        self.clone()
    }
}

/// How a transaction holds on to a variable: by an `Arc`, or by a host's own reference.
pub trait Var: Deref<Target = TVar<Self::Value>> + Share {
    /// What the variable holds.
    type Value: Share;
}

impl<V: Share> Var for std::sync::Arc<TVar<V>> {
    type Value = V;
}

/// Those who wait for a change.
pub(super) type Watchers = WaitQueue<()>;

/// A variable that changes only in transactions.
// On cache lines of its own: two variables have nothing to do with each other.
#[repr(align(64))]
pub struct TVar<V> {
    /// `version << 1`, and COMMITTING.
    word: AtomicU64,
    /// Exchanged by whoever has the lock.
    value: UnsafeCell<V>,
    watchers: Mutex<Watchers>,
}

// SAFETY: the value is changed under the lock, and looked at under it or as `Share::share_racing` can.
unsafe impl<V: Send + Sync> Sync for TVar<V> {}

impl<V: Share> TVar<V> {
    /// A variable with this value, as old as everything.
    #[must_use]
    pub fn new(value: V) -> TVar<V> {
        TVar {
            word: AtomicU64::new(0),
            value: UnsafeCell::new(value),
            watchers: Mutex::new(Rank::Object, WaitQueue::new()),
        }
    }

    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn lock(&self) -> Guard<'_, Watchers> {
        self.watchers.lock()
    }

    pub(super) fn mutex(&self) -> &Mutex<Watchers> {
        &self.watchers
    }

    /// The version, by whoever holds the lock and is not committing.
    pub(super) fn version(&self) -> u64 {
        // Ordering: Relaxed. Changed under the lock only.
        self.word.load(Ordering::Relaxed) >> 1
    }

    /// Whether it still has that version, and nobody is about to change it; `ours`: but the caller, who has
    /// locked it to commit.
    pub(super) fn is_still(&self, version: u64, ours: bool) -> bool {
        // Ordering: Acquire pairs with the Release in `publish`. That a commit which drew its time before the
        // caller read the clock is seen at all, is due to the clock: its bit was set before it drew.
        self.word.load(Ordering::Acquire) == version << 1 | u64::from(ours)
    }

    /// The caller, who holds the lock, is about to draw a time.
    pub(super) fn announce(&self) {
        let version = self.version();
        // Ordering: Relaxed. Published by the Release of the clock's change, which comes after it.
        self.word.store(version << 1 | COMMITTING, Ordering::Relaxed);
    }

    /// Undoes `announce`.
    pub(super) fn renounce(&self) {
        let version = self.version();
        // Ordering: Release, so that who sees it sees nothing of before as later; the lock is still held.
        self.word.store(version << 1, Ordering::Release);
    }

    /// Exchanges the value, as of this version, and claims all who wait for that. It was announced; the caller has
    /// the lock.
    pub(super) fn publish(
        &self,
        watchers: &mut Watchers,
        version: u64,
        value: &mut V,
        wakes: &mut WakeList<()>,
    ) {
        // SAFETY: under the lock.
        unsafe { V::exchange(self.value.get(), value) };
        // Ordering: Release pairs with the Acquire in `is_still` and in `read`.
        self.word.store(version << 1, Ordering::Release);
        while let Some(watcher) = watchers.pop() {
            wakes.push(watcher);
        }
    }

    /// Calls `look` with the value, unless somebody has the lock: for a collector's visit.
    pub fn visit<R>(&self, look: impl FnOnce(&V) -> R) -> Option<R> {
        let _lock = self.watchers.try_lock()?;
        // SAFETY: under the lock nobody exchanges it.
        Some(look(unsafe { &*self.value.get() }))
    }

    /// Puts another value in place of its own, which comes back: for whoever takes the variable apart. Nobody is
    /// told, and nobody may read it any more.
    pub fn replace(&self, mut value: V) -> V {
        let _lock = self.watchers.lock();
        // SAFETY: under the lock.
        unsafe { V::exchange(self.value.get(), &mut value) };
        value
    }

    /// The value and its version, of one instant. `stale`: what else came of it, to be dropped later.
    #[inline]
    pub(super) fn read(&self, stale: &mut Vec<V>) -> (u64, V) {
        // Ordering: Acquire pairs with the Release in `publish`: the value is that version's or a later one.
        let before = self.word.load(Ordering::Acquire);
        if before & COMMITTING == 0 {
            // SAFETY: exchanged by `publish` and `replace` alone.
            if let Some(value) = unsafe { V::share_racing(self.value.get()) } {
                // Ordering: Acquire. The look at the value was an acquiring one, so this one comes after it; had it
                // found a later value, what was stored before that, at least COMMITTING, would be found here.
                if self.word.load(Ordering::Acquire) == before {
                    return (before >> 1, value);
                }
                stale.push(value);
            }
        }
        self.read_locked()
    }

    #[cold]
    fn read_locked(&self) -> (u64, V) {
        let _lock = self.watchers.lock();
        // SAFETY: under the lock nobody exchanges it.
        (self.version(), unsafe { &*self.value.get() }.share())
    }

    /// Sets it: a transaction that does nothing else. The value that was there comes back.
    ///
    /// # Errors
    /// The value, if somebody has the turn: [`Space::wait`], then try again.
    pub fn set(&self, space: &Space, mut value: V) -> Result<V, V> {
        let mut wakes = WakeList::new();
        {
            let mut watchers = self.watchers.lock();
            self.announce();
            let (time, taken) = space.draw();
            if taken {
                self.renounce();
                return Err(value);
            }
            self.publish(&mut watchers, time, &mut value, &mut wakes);
        }
        wakes.wake_all();
        Ok(value)
    }

    /// The value now: a transaction that reads nothing else.
    #[must_use]
    pub fn get(&self) -> V {
        self.read(&mut Vec::new()).1
    }
}

impl<V> fmt::Debug for TVar<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ordering: Relaxed. For people to read.
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("TVar").field("version", &(word >> 1)).finish_non_exhaustive()
    }
}

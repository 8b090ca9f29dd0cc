//! A variable that transactions read and write.

use super::turn::Space;
use crate::lock::{Guard, Mutex, Rank};
use crate::sync::{AtomicU64, Ordering};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;
use std::ops::Deref;

/// In the word, beside the version: somebody who holds the lock is about to publish.
const COMMITTING: u64 = 1;

/// A value that may be in several places at once, such as a counted reference.
pub trait Share {
    /// Another one of it. Called under a lock: it moves data, and calls nobody.
    #[must_use]
    fn share(&self) -> Self;
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

pub(super) struct State<V> {
    value: V,
    /// Those who wait for a change.
    watchers: WaitQueue<()>,
}

/// A variable that changes only in transactions.
pub struct TVar<V> {
    /// `version << 1`, and COMMITTING.
    word: AtomicU64,
    state: Mutex<State<V>>,
}

impl<V> TVar<V> {
    /// A variable with this value, as old as everything.
    #[must_use]
    pub fn new(value: V) -> TVar<V> {
        let state = State { value, watchers: WaitQueue::new() };
        TVar { word: AtomicU64::new(0), state: Mutex::new(Rank::Object, state) }
    }

    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn lock(&self) -> Guard<'_, State<V>> {
        self.state.lock()
    }

    pub(super) fn mutex(&self) -> &Mutex<State<V>> {
        &self.state
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

    /// Exchanges the value, as of this version, and claims all who wait for that.
    pub(super) fn publish(
        &self,
        state: &mut State<V>,
        version: u64,
        value: &mut V,
        wakes: &mut WakeList<()>,
    ) {
        std::mem::swap(&mut state.value, value);
        // Ordering: Release pairs with the Acquire in `is_still`.
        self.word.store(version << 1, Ordering::Release);
        while let Some(watcher) = state.watchers.pop() {
            wakes.push(watcher);
        }
    }

    /// Calls `look` with the value, unless somebody has the lock: for a collector's visit.
    pub fn visit<R>(&self, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.state.try_lock().map(|state| look(&state.value))
    }

    /// Puts another value in place of its own, which comes back: for a collector that breaks a cycle. Nobody is told.
    pub fn replace(&self, value: V) -> V {
        std::mem::replace(&mut self.state.lock().value, value)
    }
}

impl<V: Share> TVar<V> {
    /// The value and its version, of one instant.
    pub(super) fn read(&self) -> (u64, V) {
        let state = self.state.lock();
        (self.version(), state.value.share())
    }

    /// Sets it: a transaction that does nothing else. The value that was there comes back.
    ///
    /// # Errors
    /// The value, if somebody has the turn: [`Space::wait`], then try again.
    pub fn set(&self, space: &Space, mut value: V) -> Result<V, V> {
        let mut wakes = WakeList::new();
        {
            let mut state = self.state.lock();
            if space.is_taken() {
                return Err(value);
            }
            self.announce();
            self.publish(&mut state, space.draw(), &mut value, &mut wakes);
        }
        wakes.wake_all();
        Ok(value)
    }

    /// The value now: a transaction that reads nothing else.
    #[must_use]
    pub fn get(&self) -> V {
        self.state.lock().value.share()
    }
}

impl<V> State<V> {
    pub(super) fn watchers(&mut self) -> &mut WaitQueue<()> {
        &mut self.watchers
    }
}

impl<V> fmt::Debug for TVar<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Ordering: Relaxed. For people to read.
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("TVar").field("version", &(word >> 1)).finish_non_exhaustive()
    }
}

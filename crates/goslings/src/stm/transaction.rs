//! One attempt after the other: what it has read, what it will write.
//!
//! **Invariants**
//! * One entry for each variable that was touched, whatever was done with it; entries never go away within an
//!   attempt, so that an attempt undone in part still knows all that it has read.
//! * `undo` holds, for what was written inside a nested part, what was pending before.

use super::turn::Space;
use super::tvar::{Share, TVar, Var, Watchers};
use super::watch::Watch;
use crate::lock::{SmallGuards, lock_all};
use crate::waiter::{Park, Parker, at_once};
use crate::waiting::WaitError;
use crate::waitq::WakeList;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Up to so many variables an entry is looked for one by one.
const FEW: usize = 12;
/// So many locks of a commit cost no allocation.
const INLINE: usize = 8;
/// No version: the variable was not read.
const UNREAD: u64 = u64::MAX;

/// What was read cannot be had together with what was read before: the attempt must start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// Why a commit published nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// What was read has changed: start anew.
    Conflict,
    /// Somebody has the turn: [`Space::wait`], then commit again.
    NotNow,
}

struct Entry<K: Var> {
    var: K,
    /// The version that was read, or UNREAD.
    seen: u64,
}

/// A place in an attempt to which its later writes can be undone.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// A transaction, to be attempted until it commits.
pub struct Transaction<K: Var> {
    space: &'static Space,
    /// All that was read is of this time. An attempt begins with that of the one before, not with a look at the clock,
    /// which all commits write: what is newer moves it.
    snapshot: u64,
    entries: Vec<Entry<K>>,
    /// For each entry, what is to be written. After a commit: what was there before.
    pending: Vec<Option<K::Value>>,
    /// The place of each variable's entry, once they are many.
    places: HashMap<usize, usize, BuildHasherDefault<Mix>>,
    /// Whether writes are noted in `undo`.
    depth: usize,
    undo: Vec<(usize, Option<K::Value>)>,
    /// What was read and is not used: dropped when it is cleared, where a drop may call anything.
    stale: Vec<K::Value>,
    /// How much is pending.
    writes: usize,
    has_turn: bool,
}

impl<K: Var> Transaction<K> {
    /// One that has not begun.
    #[must_use]
    pub fn new(space: &'static Space) -> Transaction<K> {
        Transaction {
            space,
            snapshot: 0,
            entries: Vec::new(),
            pending: Vec::new(),
            places: HashMap::default(),
            depth: 0,
            undo: Vec::new(),
            stale: Vec::new(),
            writes: 0,
            has_turn: false,
        }
    }

    /// Forgets everything: the next attempt may begin. Drops variables and values.
    #[inline]
    pub fn clear(&mut self) {
        self.depth = 0;
        self.writes = 0;
        self.undo.clear();
        self.stale.clear();
        self.pending.clear();
        self.entries.clear();
        if !self.places.is_empty() {
            self.places.clear();
        }
    }

    fn find(&self, var: &TVar<K::Value>) -> Option<usize> {
        if self.entries.len() <= FEW {
            return self.entries.iter().position(|entry| std::ptr::eq(&*entry.var, var));
        }
        self.places.get(&var.address()).copied()
    }

    fn push(&mut self, var: K, seen: u64) -> usize {
        let place = self.entries.len();
        if place == FEW {
            let all = self.entries.iter().enumerate();
            self.places.extend(all.map(|(place, entry)| (entry.var.address(), place)));
        }
        if place >= FEW {
            self.places.insert(var.address(), place);
        }
        self.entries.push(Entry { var, seen });
        self.pending.push(None);
        place
    }

    /// The value of a variable as this transaction sees it.
    ///
    /// # Errors
    /// [`Conflict`] if it was changed such that no snapshot has it beside all that was read before.
    #[inline]
    pub fn read(&mut self, var: &K) -> Result<K::Value, Conflict> {
        self.read_as(var, || var.share())
    }

    /// The same; `handle` makes what the transaction holds on to it by, if it does not yet.
    ///
    /// # Errors
    /// As [`Transaction::read`].
    #[inline]
    pub fn read_as(
        &mut self,
        var: &TVar<K::Value>,
        handle: impl FnOnce() -> K,
    ) -> Result<K::Value, Conflict> {
        let Some(place) = self.find(var) else {
            let (version, value) = var.read(&mut self.stale);
            self.push(handle(), version);
            if version > self.snapshot {
                self.extend()?;
            }
            return Ok(value);
        };
        if let Some(pending) = &self.pending[place] {
            return Ok(pending.share());
        }
        let (version, value) = var.read(&mut self.stale);
        let seen = &mut self.entries[place].seen;
        if *seen == UNREAD {
            // Written in a nested part that was undone.
            *seen = version;
        } else if *seen != version {
            return Err(Conflict);
        }
        if version > self.snapshot {
            self.extend()?;
        }
        Ok(value)
    }

    /// Moves the snapshot to now, if everything that was read is still there.
    #[cold]
    fn extend(&mut self) -> Result<(), Conflict> {
        let now = self.space.now();
        if !self.is_valid(false) {
            return Err(Conflict);
        }
        self.snapshot = now;
        Ok(())
    }

    /// Whether all that was read is still there. `announced`: what is to be written is locked and announced by us.
    fn is_valid(&self, announced: bool) -> bool {
        let mut all = self.entries.iter().zip(&self.pending);
        all.all(|(entry, pending)| {
            entry.seen == UNREAD || entry.var.is_still(entry.seen, announced && pending.is_some())
        })
    }

    /// Sets a variable, for this transaction alone until it commits. What was pending comes back, to be dropped.
    #[inline]
    pub fn write(&mut self, var: &K, value: K::Value) -> Option<K::Value> {
        self.write_as(var, || var.share(), value)
    }

    /// The same; `handle` as in [`Transaction::read_as`].
    #[inline]
    pub fn write_as(
        &mut self,
        var: &TVar<K::Value>,
        handle: impl FnOnce() -> K,
        value: K::Value,
    ) -> Option<K::Value> {
        let place = match self.find(var) {
            Some(place) => place,
            None => self.push(handle(), UNREAD),
        };
        let before = self.pending[place].replace(value);
        self.writes += usize::from(before.is_none());
        if self.depth == 0 {
            return before;
        }
        self.undo.push((place, before));
        None
    }

    /// Begins a nested part.
    pub fn nest(&mut self) -> Mark {
        self.depth += 1;
        Mark(self.undo.len())
    }

    /// Ends the innermost nested part; its writes stay.
    pub fn keep(&mut self, _mark: Mark) {
        self.depth -= 1;
    }

    /// Ends the innermost nested part and undoes its writes, which come back, to be dropped. What it has read
    /// stays read.
    pub fn undo(&mut self, mark: Mark) -> Vec<K::Value> {
        self.depth -= 1;
        let mut undone = Vec::new();
        while self.undo.len() > mark.0 {
            let (place, before) = self.undo.pop().expect("longer than the mark");
            self.writes -= usize::from(before.is_none());
            undone.extend(std::mem::replace(&mut self.pending[place], before));
        }
        undone
    }

    /// Whether it has the turn.
    #[must_use]
    pub fn has_turn(&self) -> bool {
        self.has_turn
    }

    /// Waits for the turn: nobody else commits until it is given back. For a transaction that has lost too often.
    ///
    /// # Blocking
    /// As long as others have it.
    ///
    /// # Errors
    /// [`WaitError`] with the reason.
    pub fn take_turn(&mut self) -> Result<(), WaitError> {
        at_once(self.take_turn_with(&Parker::new()))
    }

    /// Takes the turn if nobody has it; whether it has it now. Never blocks.
    pub fn try_take_turn(&mut self) -> bool {
        self.has_turn = self.has_turn || self.space.try_take();
        self.has_turn
    }

    pub(crate) async fn take_turn_with(&mut self, parker: &impl Park) -> Result<(), WaitError> {
        if !self.has_turn {
            self.space.take(parker).await?;
            self.has_turn = true;
        }
        Ok(())
    }

    /// Gives the turn back, if it has it.
    pub fn give_turn_back(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            self.space.give_back();
        }
    }

    /// Publishes all writes at once. Afterwards, whether it did or not, only [`Transaction::clear`] or, after
    /// [`CommitError::NotNow`], another commit makes sense.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was published.
    #[inline]
    pub fn commit(&mut self) -> Result<(), CommitError> {
        if self.writes == 0 {
            // All that was read is of one instant, the snapshot's.
            return Ok(());
        }
        self.publish()
    }

    fn publish(&mut self) -> Result<(), CommitError> {
        let mut inline = [0_usize; INLINE];
        let mut many = Vec::new();
        let order: &mut [usize] = if self.writes <= INLINE {
            &mut inline[..self.writes]
        } else {
            many.resize(self.writes, 0);
            &mut many
        };
        let written = self.pending.iter().enumerate().filter(|(_, pending)| pending.is_some());
        for (slot, (place, _)) in order.iter_mut().zip(written) {
            *slot = place;
        }
        if order.len() > 1 {
            order.sort_unstable_by_key(|&place| self.entries[place].var.address());
        }
        let mut wakes = WakeList::new();
        let result = self.publish_in(order, &mut wakes);
        wakes.wake_all();
        result
    }

    /// `order`: the places of what is to be written, by address.
    fn publish_in(&mut self, order: &[usize], wakes: &mut WakeList<()>) -> Result<(), CommitError> {
        let locks = order.iter().map(|&place| self.entries[place].var.mutex());
        let mut guards: SmallGuards<'_, Watchers, INLINE> = lock_all(locks);
        for &place in order {
            self.entries[place].var.announce();
        }
        let (time, taken) = self.space.draw();
        let not_now = taken && !self.has_turn;
        // Nobody has drawn a time since the snapshot: what was read then is what there is.
        if not_now || time != self.snapshot + 1 && !self.is_valid(true) {
            for &place in order {
                self.entries[place].var.renounce();
            }
            return Err(if not_now { CommitError::NotNow } else { CommitError::Conflict });
        }
        // For the next attempt, which begins where this one ends.
        self.snapshot = time;
        for (number, &place) in order.iter().enumerate() {
            let value = self.pending[place].as_mut().expect("what is to be written");
            self.entries[place].var.publish(guards.get(number), time, value, wakes);
        }
        Ok(())
    }

    /// What would have to change for another attempt to go differently: all that was read. `keep` makes what the
    /// watch holds on to a variable by.
    #[must_use]
    pub fn watch_as<W: Var<Value = K::Value>>(&self, keep: impl Fn(&K) -> W) -> Watch<W> {
        let read = self.entries.iter().filter(|entry| entry.seen != UNREAD);
        Watch::new(read.map(|entry| (keep(&entry.var), entry.seen)).collect())
    }

    /// The same, by shares of what the transaction holds.
    #[must_use]
    pub fn watch(&self) -> Watch<K> {
        self.watch_as(K::share)
    }
}

impl<K: Var> Drop for Transaction<K> {
    fn drop(&mut self) {
        self.give_turn_back();
    }
}

impl<K: Var> std::fmt::Debug for Transaction<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// Mixes an address: all of them end in zeros.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("addresses only")
    }

    fn write_usize(&mut self, address: usize) {
        let mixed = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

//! Values of a channel that receivers elsewhere may claim without asking.
//!
//! Home shows copies of the values that come next to others, and keeps the values. They have numbers, from 0 on, and one
//! count, which everybody who takes part can change, says how many of them are claimed. Whoever moves it from N to N+1 has
//! received value N, here or there; all other copies of it are worth nothing from then on. So a value is received once,
//! receives are in order across all who take part, nobody holds a value that somebody else waits for, and whoever dies takes
//! nothing along but what it had received.
//!
//! **Invariants**
//! * What is leased comes before what is buffered, and counts as buffered until it is claimed.
//! * `next` is the number of the first leased value, and the count as it was when last looked at. The count only grows, and
//!   not beyond the last leased value: else somebody does not follow the rules, and the lease is over.
//! * Home learns of claims when it looks. Who may sleep until there is a claim (a sender, and the buffer is full) calls
//!   `tell`, then looks again: with a full fence in between there and between a claim and the look at what `tell` has left,
//!   one of the two sees the other. `loom.rs` has the proof.
//! * Values that were claimed elsewhere are kept until somebody takes them away to drop them: never under the lock.
//! * A forked child has no part in it: what was not claimed when it looks for the first time is buffered again there.

use crate::sched::generation;
use std::collections::VecDeque;
use std::sync::Arc;

/// The count that all who take part share. Called under a channel's lock: it must neither wait nor call anybody.
pub trait Lease: Send + Sync {
    /// How many values are claimed.
    fn claimed(&self) -> u64;
    /// Claims value `number`, if it is the next one. Whether it was.
    fn claim(&self, number: u64) -> bool;
    /// Claims all values before `end`. How many had been claimed.
    fn take_back(&self, end: u64) -> u64;
    /// Whoever claims a value from now on is to say so, once. With a full fence behind it.
    fn tell(&self);
}

/// What is leased of a channel.
pub(super) struct Leased<T> {
    lease: Arc<dyn Lease>,
    /// Somebody has not followed the rules, or this is a forked child.
    over: bool,
    generation: u32,
    next: u64,
    values: VecDeque<T>,
    /// Claimed elsewhere, to be dropped.
    spent: Vec<T>,
}

impl<T> Leased<T> {
    pub(super) fn new(lease: Arc<dyn Lease>) -> Leased<T> {
        let next = lease.claimed();
        Leased {
            lease,
            over: false,
            generation: generation(),
            next,
            values: VecDeque::new(),
            spent: Vec::new(),
        }
    }

    pub(super) fn is(&self, lease: &Arc<dyn Lease>) -> bool {
        Arc::ptr_eq(&self.lease, lease)
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// How many were not claimed, when last looked.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The same of this moment.
    pub(super) fn len_now(&self) -> usize {
        if self.over || self.generation != generation() {
            return self.values.len();
        }
        let claimed = usize::try_from(self.lease.claimed().saturating_sub(self.next));
        self.values.len().saturating_sub(claimed.unwrap_or(0))
    }

    /// Learns of claims. What is not to be leased any more goes to the front of `buffer`.
    pub(super) fn look(&mut self, buffer: &mut VecDeque<T>) {
        if self.over {
            return;
        }
        match usize::try_from(self.lease.claimed().wrapping_sub(self.next)) {
            Ok(claimed) if claimed <= self.values.len() => {
                self.spent.extend(self.values.drain(..claimed));
                self.next += claimed as u64;
            }
            // Nonsense: nobody can tell which values others believe to have.
            _ => self.over = true,
        }
        self.over |= self.generation != generation();
        if self.over {
            self.give_back(buffer);
        }
    }

    /// Receives the first one.
    pub(super) fn claim(&mut self, buffer: &mut VecDeque<T>) -> Option<T> {
        loop {
            self.look(buffer);
            if self.values.is_empty() {
                return None;
            }
            if self.lease.claim(self.next) {
                self.next += 1;
                return self.values.pop_front();
            }
        }
    }

    /// Ends the lease of what was not claimed; it goes to the front of `buffer`.
    pub(super) fn take_back(&mut self, buffer: &mut VecDeque<T>) {
        self.look(buffer);
        if self.over {
            return;
        }
        let end = self.next + self.values.len() as u64;
        let claimed = self.lease.take_back(end).clamp(self.next, end) - self.next;
        self.spent.extend(self.values.drain(..claimed as usize));
        self.next = end;
        self.give_back(buffer);
    }

    fn give_back(&mut self, buffer: &mut VecDeque<T>) {
        while let Some(value) = self.values.pop_back() {
            buffer.push_front(value);
        }
    }

    /// Whoever claims a value is to say so.
    pub(super) fn tell(&self) {
        if !self.over {
            self.lease.tell();
        }
    }

    /// Leases the first value of `buffer`, if it `fits`, unless that is leased already which has number `number`.
    /// That value.
    pub(super) fn extend(
        &mut self,
        number: u64,
        buffer: &mut VecDeque<T>,
        fits: impl FnOnce(&T) -> bool,
    ) -> Option<&T> {
        let index = usize::try_from(number.checked_sub(self.next)?).ok()?;
        if index == self.values.len() && !self.over && fits(buffer.front()?) {
            self.values.push_back(buffer.pop_front()?);
        }
        self.values.get(index)
    }

    /// The number of the first value that was not claimed when last looked.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes away what is to be dropped.
    pub(super) fn spent(&mut self) -> Vec<T> {
        std::mem::take(&mut self.spent)
    }

    /// All that is here, to be shown.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.spent.iter().chain(&self.values)
    }
}

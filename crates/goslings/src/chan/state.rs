//! What a channel's lock protects, and the steps that never wait: Go's `chansend` and `chanrecv`
//! without the parking. `select` takes the same steps with several locks held.
//!
//! **Invariants**
//! * Live receivers are queued only while the buffer is empty, live senders only while it is full.
//! * Therefore a send that finds a receiver hands the value over directly, past the buffer, and nobody
//!   who comes later can take it; a receive from a full buffer lets exactly one sender in.
//! * After `close` no live waiter is queued, and none queues again.
//!
//! * Slots may be promised to senders elsewhere (`Promise`): they count as full, and are taken back as soon as somebody
//!   else would have to wait for them. What is not taken back is on its way, and arrives or is called off. Until then a
//!   closed channel is not drained. When half of what he may have is used up he gets more, by whoever brings his values and
//!   by whoever receives them, a quarter at least: so he seldom looks in vain, and a look costs little.
//! * Values at the front may be leased to receivers elsewhere (`lease.rs`): "the buffer" above means these, too. Claims
//!   that nobody here has looked for yet make room that senders who wait do not know of; until they are told, those who
//!   come later queue behind them.
//!
//! The buffer grows as it fills: a large capacity costs nothing until it is used.

use super::lease::{Lease, Leased};
use crate::waiter::Wake;
use crate::waitq::{WaitQueue, WakeList};
use std::collections::VecDeque;
use std::sync::Arc;

/// What somebody elsewhere knows of the slots that are promised to him: he uses them up without asking. Called under a
/// channel's lock: it must neither wait nor call anybody.
pub trait Promise: Send + Sync {
    /// So many sends more.
    fn add(&self, sends: u32);
    /// Takes back what was not used; how much that was.
    fn take_back(&self) -> u32;
}

/// Slots that are promised.
struct Promised {
    to: Arc<dyn Promise>,
    /// How many are neither taken back nor filled.
    slots: u32,
    /// How many he has at most.
    target: u32,
}

pub(crate) struct State<T> {
    buffer: VecDeque<T>,
    capacity: usize,
    closed: bool,
    /// A timer's channel: holds one tick, and pretends to hold none (`len` and `capacity` say 0).
    tick: bool,
    pub(crate) receivers: WaitQueue<T>,
    pub(crate) senders: WaitQueue<T>,
    /// How many slots are promised in all.
    reserved: usize,
    promised: Vec<Promised>,
    /// What receivers elsewhere may claim: comes before the buffer.
    leased: Option<Box<Leased<T>>>,
}

/// What a look at a lease has brought, for after unlocking.
pub(crate) struct Looked<T> {
    /// To be woken.
    pub(crate) wakes: WakeList<T>,
    /// To be dropped.
    pub(crate) spent: Vec<T>,
}

/// What became of a send that does not wait.
pub(crate) enum Sent<T> {
    /// Handed to this receiver, who must be woken once the lock is released.
    Handed(Wake),
    Stored,
    Closed(T),
    WouldBlock(T),
}

/// What became of a receive that does not wait.
pub(crate) enum Received<T> {
    /// The value, and the sender who must be woken once the lock is released.
    Value(T, Option<Wake>),
    Closed,
    WouldBlock,
}

impl<T> State<T> {
    pub(crate) fn new(capacity: usize, tick: bool) -> State<T> {
        State {
            buffer: VecDeque::new(),
            capacity,
            closed: false,
            tick,
            receivers: WaitQueue::new(),
            senders: WaitQueue::new(),
            reserved: 0,
            promised: Vec::new(),
            leased: None,
        }
    }

    #[inline]
    pub(crate) fn send(&mut self, value: T) -> Sent<T> {
        if self.closed {
            return Sent::Closed(value);
        }
        if let Some(mut receiver) = self.receivers.pop() {
            debug_assert!(self.buffer.is_empty(), "a receiver waited beside a value");
            receiver.put(value);
            return Sent::Handed(receiver.wake_later());
        }
        if self.leased.is_some() && self.senders.has_any() {
            return Sent::WouldBlock(value);
        }
        if self.has_room()
            || self.reserved > 0 && self.take_back()
            || self.leased.is_some() && self.has_room_by_claims()
        {
            self.buffer.push_back(value);
            return Sent::Stored;
        }
        Sent::WouldBlock(value)
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.buffer.len() + self.leased() + self.reserved < self.capacity
    }

    /// How many values are leased, as far as known.
    #[inline]
    fn leased(&self) -> usize {
        self.leased.as_ref().map_or(0, |leased| leased.len())
    }

    /// Learns of claims elsewhere.
    fn look(&mut self) {
        if let Some(leased) = &mut self.leased {
            leased.look(&mut self.buffer);
        }
    }

    /// Whether claims have made room; if not, the next one will be told.
    #[cold]
    fn has_room_by_claims(&mut self) -> bool {
        self.look();
        if self.has_room() {
            return true;
        }
        if let Some(leased) = &self.leased {
            leased.tell();
        }
        self.look();
        self.has_room()
    }

    /// Looks for claims, and lets those in who waited for them.
    fn settle(&mut self) -> WakeList<T> {
        self.look();
        let mut wakes = WakeList::new();
        self.let_in(&mut wakes);
        while self.leased.is_some() && self.senders.has_any() && self.has_room_by_claims() {
            self.let_in(&mut wakes);
        }
        wakes
    }

    /// Values were claimed elsewhere.
    pub(crate) fn claimed(&mut self) -> Looked<T> {
        let wakes = self.settle();
        self.renew_all();
        Looked { wakes, spent: self.leased.as_mut().map_or_else(Vec::new, |leased| leased.spent()) }
    }

    /// Leases values from number `from` on: `show` is called with each, and its number, until it returns false; of those that
    /// are in the buffer it is asked first whether they `fit`.
    pub(crate) fn lease(
        &mut self,
        to: &Arc<dyn Lease>,
        from: u64,
        mut fits: impl FnMut(&T) -> bool,
        mut show: impl FnMut(u64, &T) -> bool,
    ) -> Looked<T> {
        let looked = self.claimed();
        if self.leased.as_ref().is_none_or(|leased| leased.is_over() && !leased.is(to)) && !self.tick {
            self.leased = Some(Box::new(Leased::new(Arc::clone(to))));
        }
        if let Some(leased) = &mut self.leased
            && leased.is(to)
        {
            let mut number = from.max(leased.next());
            while let Some(value) = leased.extend(number, &mut self.buffer, &mut fits) {
                if !show(number, value) {
                    break;
                }
                number += 1;
            }
        }
        looked
    }

    /// Nobody claims anything any more.
    pub(crate) fn end_lease(&mut self, to: &Arc<dyn Lease>) -> Looked<T> {
        if let Some(leased) = &mut self.leased
            && leased.is(to)
        {
            leased.take_back(&mut self.buffer);
            let looked = self.claimed();
            self.leased = None;
            return looked;
        }
        Looked { wakes: WakeList::new(), spent: Vec::new() }
    }

    /// Takes back all promises that were not used; whether there is room then.
    #[cold]
    fn take_back(&mut self) -> bool {
        for promised in &mut self.promised {
            let unused = promised.to.take_back().min(promised.slots);
            promised.slots -= unused;
            self.reserved -= unused as usize;
        }
        self.has_room()
    }

    /// Promises slots to a sender elsewhere, such that he has up to `target` from now on: what there is of them, and none
    /// while somebody waits to send.
    pub(crate) fn promise(&mut self, to: &Arc<dyn Promise>, target: u32) {
        if self.closed {
            return;
        }
        let index = self.index_of(to).unwrap_or_else(|| {
            self.promised.push(Promised { to: Arc::clone(to), slots: 0, target });
            self.promised.len() - 1
        });
        self.promised[index].target = target;
        self.renew(index, 1);
    }

    fn index_of(&self, to: &Arc<dyn Promise>) -> Option<usize> {
        self.promised.iter().position(|promised| Arc::ptr_eq(&promised.to, to))
    }

    /// Promises more, if that is `at_least` so much.
    fn renew(&mut self, index: usize, at_least: u32) {
        if self.closed || self.senders.has_any() {
            return;
        }
        self.look();
        let free = self.capacity.saturating_sub(self.buffer.len() + self.leased() + self.reserved);
        let promised = &mut self.promised[index];
        let wanted = promised.target.saturating_sub(promised.slots);
        let more = wanted.min(u32::try_from(free).unwrap_or(u32::MAX));
        if more > 0 && more >= at_least {
            promised.slots += more;
            self.reserved += more as usize;
            promised.to.add(more);
        }
    }

    /// Promises more to those who have used up half, if it is worth while.
    #[inline]
    fn renew_all(&mut self) {
        for index in 0..self.promised.len() {
            let Promised { slots, target, .. } = self.promised[index];
            if slots <= target / 2 {
                self.renew(index, target / 4);
            }
        }
    }

    /// Values that were sent on a promise have arrived, in this order. What is more than was promised stays where it is.
    pub(crate) fn arrive(&mut self, to: &Arc<dyn Promise>, values: &mut VecDeque<T>) -> WakeList<T> {
        let mut wakes = WakeList::new();
        let Some(index) = self.index_of(to) else { return wakes };
        let slots = &mut self.promised[index].slots;
        let mut left = values.len().min(*slots as usize);
        // No more than `slots`.
        *slots -= left as u32;
        self.reserved -= left;
        while left > 0 {
            let Some(mut receiver) = self.receivers.pop() else { break };
            receiver.put(values.pop_front().expect("as many as are left"));
            wakes.push(receiver);
            left -= 1;
        }
        self.buffer.extend(values.drain(..left));
        self.renew_all();
        self.drained(&mut wakes);
        wakes
    }

    /// A value that was sent on this promise cannot be had.
    pub(crate) fn lost(&mut self, to: &Arc<dyn Promise>) -> WakeList<T> {
        let mine = self.index_of(to).map(|index| &mut self.promised[index].slots).filter(|slots| **slots > 0);
        if let Some(slots) = mine {
            *slots -= 1;
            self.reserved -= 1;
        }
        let mut wakes = WakeList::new();
        self.let_in(&mut wakes);
        wakes
    }

    /// Nothing more arrives on this promise: its slots are free.
    pub(crate) fn call_off(&mut self, to: &Arc<dyn Promise>) -> WakeList<T> {
        let Some(index) = self.index_of(to) else { return WakeList::new() };
        let promised = self.promised.swap_remove(index);
        promised.to.take_back();
        self.reserved -= promised.slots as usize;
        let mut wakes = WakeList::new();
        self.let_in(&mut wakes);
        wakes
    }

    /// Slots have become free without a receive: lets senders in, and whoever waits for the end of a closed channel out.
    fn let_in(&mut self, wakes: &mut WakeList<T>) {
        self.drained(wakes);
        while self.has_room() {
            let Some(mut sender) = self.senders.pop() else { break };
            let value = sender.take();
            if let Some(mut receiver) = self.receivers.pop() {
                receiver.put(value);
                wakes.push(receiver);
            } else {
                self.buffer.push_back(value);
            }
            wakes.push(sender);
        }
    }

    /// Receivers that waited for the last values of a closed channel, if there are none.
    fn drained(&mut self, wakes: &mut WakeList<T>) {
        if self.closed && self.reserved == 0 {
            while let Some(receiver) = self.receivers.pop() {
                wakes.push(receiver);
            }
        }
    }

    #[inline]
    pub(crate) fn recv(&mut self) -> Received<T> {
        let leased = self.leased.as_mut().and_then(|leased| leased.claim(&mut self.buffer));
        if let Some(value) = leased.or_else(|| self.buffer.pop_front()) {
            // More than `capacity` can be held after `put_back`: then no sender gets in yet.
            let room = self.has_room();
            let sender = if room { self.senders.pop() } else { None };
            let wake = sender.map(|mut sender| {
                self.buffer.push_back(sender.take());
                sender.wake_later()
            });
            if !self.promised.is_empty() {
                self.renew_all();
            }
            return Received::Value(value, wake);
        }
        if let Some(mut sender) = self.senders.pop() {
            let unknown = self.reserved > 0 || self.leased.is_some();
            debug_assert!(self.capacity == 0 || unknown, "a sender waited beside free room");
            let value = sender.take();
            return Received::Value(value, Some(sender.wake_later()));
        }
        if self.closed && self.reserved == 0 { Received::Closed } else { Received::WouldBlock }
    }

    /// Puts a received value back to where it came from, for a receiver that cannot keep it: to the
    /// oldest waiting receiver, or to the front of the buffer, which may then hold one more than
    /// its capacity.
    pub(crate) fn put_back(&mut self, value: T) -> Option<Wake> {
        if let Some(mut receiver) = self.receivers.pop() {
            receiver.put(value);
            return Some(receiver.wake_later());
        }
        if let Some(leased) = &mut self.leased {
            leased.take_back(&mut self.buffer);
        }
        self.buffer.push_front(value);
        None
    }

    /// Closes and claims everybody who waits. None if it was closed before.
    pub(crate) fn close(&mut self) -> Option<WakeList<T>> {
        if self.closed {
            return None;
        }
        self.closed = true;
        if self.reserved > 0 {
            self.take_back();
        }
        // Receivers find no value in their node, senders find theirs still there: both know by that.
        let mut wakes = WakeList::new();
        self.drained(&mut wakes);
        while let Some(sender) = self.senders.pop() {
            wakes.push(sender);
        }
        Some(wakes)
    }

    /// Takes out everything that is buffered, to be dropped after unlocking.
    pub(crate) fn drain(&mut self) -> (VecDeque<T>, Vec<T>) {
        if let Some(leased) = &mut self.leased {
            leased.take_back(&mut self.buffer);
        }
        (
            std::mem::take(&mut self.buffer),
            self.leased.as_mut().map_or_else(Vec::new, |leased| leased.spent()),
        )
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn len(&self) -> usize {
        let leased = self.leased.as_ref().map_or(0, |leased| leased.len_now());
        if self.tick { 0 } else { leased + self.buffer.len() }
    }

    pub(crate) fn capacity(&self) -> usize {
        if self.tick { 0 } else { self.capacity }
    }

    pub(crate) fn buffered(&self) -> impl Iterator<Item = &T> {
        self.leased.iter().flat_map(|leased| leased.all()).chain(&self.buffer)
    }
}

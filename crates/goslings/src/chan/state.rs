//! What a channel's lock protects, and the steps that never wait: Go's `chansend` and `chanrecv`
//! without the parking. `select` takes the same steps with several locks held.
//!
//! **Invariants**
//! * Live receivers are queued only while the buffer is empty, live senders only while it is full.
//! * Therefore a send that finds a receiver hands the value over directly, past the buffer, and nobody
//!   who comes later can take it; a receive from a full buffer lets exactly one sender in.
//! * After `close` no live waiter is queued, and none queues again.
//!
//! The buffer grows as it fills: a large capacity costs nothing until it is used.

use crate::waiter::Wake;
use crate::waitq::{WaitQueue, WakeList};
use std::collections::VecDeque;

pub(crate) struct State<T> {
    buffer: VecDeque<T>,
    capacity: usize,
    closed: bool,
    /// A timer's channel: holds one tick, and pretends to hold none (`len` and `capacity` say 0).
    tick: bool,
    pub(crate) receivers: WaitQueue<T>,
    pub(crate) senders: WaitQueue<T>,
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
        if self.buffer.len() < self.capacity {
            self.buffer.push_back(value);
            return Sent::Stored;
        }
        Sent::WouldBlock(value)
    }

    #[inline]
    pub(crate) fn recv(&mut self) -> Received<T> {
        if let Some(value) = self.buffer.pop_front() {
            // More than `capacity` can be held after `put_back`: then no sender gets in yet.
            let room = self.buffer.len() < self.capacity;
            let sender = if room { self.senders.pop() } else { None };
            let wake = sender.map(|mut sender| {
                self.buffer.push_back(sender.take());
                sender.wake_later()
            });
            return Received::Value(value, wake);
        }
        if let Some(mut sender) = self.senders.pop() {
            debug_assert_eq!(self.capacity, 0, "a sender waited beside free room");
            let value = sender.take();
            return Received::Value(value, Some(sender.wake_later()));
        }
        if self.closed { Received::Closed } else { Received::WouldBlock }
    }

    /// Puts a received value back to where it came from, for a receiver that cannot keep it: to the
    /// oldest waiting receiver, or to the front of the buffer, which may then hold one more than
    /// its capacity.
    pub(crate) fn put_back(&mut self, value: T) -> Option<Wake> {
        if let Some(mut receiver) = self.receivers.pop() {
            receiver.put(value);
            return Some(receiver.wake_later());
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
        let mut wakes = WakeList::new();
        // Receivers find no value in their node, senders find theirs still there: both know by that.
        while let Some(receiver) = self.receivers.pop() {
            wakes.push(receiver);
        }
        while let Some(sender) = self.senders.pop() {
            wakes.push(sender);
        }
        Some(wakes)
    }

    /// Takes out everything that is buffered, to be dropped after unlocking.
    pub(crate) fn drain(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn len(&self) -> usize {
        if self.tick { 0 } else { self.buffer.len() }
    }

    pub(crate) fn capacity(&self) -> usize {
        if self.tick { 0 } else { self.capacity }
    }

    pub(crate) fn buffered(&self) -> impl Iterator<Item = &T> {
        self.buffer.iter()
    }
}

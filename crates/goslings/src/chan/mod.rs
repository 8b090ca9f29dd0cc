//! Channels: Go's, with Go's guarantees (rows C01 to C24 of the semantics).
//!
//! A lock, a ring buffer and two queues of waiters. `send` reads: lock, try the step that does not wait,
//! else queue a node that lives in this very call, unlock, park. Whoever serves the node claims its
//! waiter, moves the value, unlocks, wakes. Nothing is allocated on the way.

mod error;
mod lease;
mod state;
#[cfg(all(test, not(any(loom, miri))))]
mod tests;

#[cfg(all(test, loom))]
mod loom;

pub use error::{CloseError, RecvError, SendError, SendErrorKind, TryRecvError, TrySendError};
pub use lease::Lease;
pub use state::Promise;
pub(crate) use state::{Received, Sent, State};

use crate::bubble;
use crate::clock::Wait;
use crate::lock::{Guard, Mutex, Rank};
use crate::waiter::{Outcome, Park, Parker, WaitReason};
use crate::waitq::Node;

/// A channel of `T`. Shared by reference: wrap it in an `Arc`.
pub struct Chan<T> {
    state: Mutex<State<T>>,
    /// The goroutine whose end closes it; 0 for a usual channel. For dumps.
    goroutine: u64,
    /// The number of the bubble that it was made in; 0: none.
    bubble: u32,
}

/// A send that has to wait: its value, and the channel, locked.
type Begun<'a, T> = (T, Guard<'a, State<T>>);

impl<T> Chan<T> {
    /// A channel that holds up to `capacity` values; 0 is a rendezvous.
    #[must_use]
    pub fn new(capacity: usize) -> Chan<T> {
        Chan::made_in(bubble::current_id(), State::new(capacity, false))
    }

    /// A timer's channel: holds at most one tick, drops those that find it full, and shows `len` and
    /// `capacity` 0 (Go 1.23).
    #[must_use]
    pub fn for_ticks() -> Chan<T> {
        Chan::made_in(bubble::current_id(), State::new(1, true))
    }

    /// A channel that is closed at the end of the goroutine with this number, in the bubble of that number;
    /// nobody sends on it.
    #[must_use]
    pub fn for_end(goroutine: u64, bubble: u32) -> Chan<T> {
        Chan { goroutine, ..Chan::made_in(bubble, State::new(0, false)) }
    }

    /// A channel on which nobody sends, and which nobody closes: at home in every bubble.
    #[must_use]
    pub fn never() -> Chan<T> {
        Chan::made_in(bubble::ANYWHERE, State::new(0, false))
    }

    fn made_in(bubble: u32, state: State<T>) -> Chan<T> {
        Chan { state: Mutex::new(Rank::Chan, state), goroutine: 0, bubble }
    }

    /// The number of the bubble that it was made in; 0: none; or [`bubble::ANYWHERE`].
    #[inline]
    #[must_use]
    pub fn bubble(&self) -> u32 {
        self.bubble
    }

    pub(crate) fn state(&self) -> &Mutex<State<T>> {
        &self.state
    }

    /// Sends `value`.
    ///
    /// # Blocking
    /// Until a receiver takes it or the buffer has room, at most as `wait` says.
    ///
    /// # Errors
    /// [`SendError`] with the reason and the value, which then was not delivered.
    #[inline]
    pub fn send(&self, value: T, wait: Wait) -> Result<(), SendError<T>> {
        let parker = Parker::new();
        match self.send_now(value, wait, &parker) {
            Ok(sent) => sent,
            Err((value, state)) => self.send_and_wait(value, state, wait, &parker),
        }
    }

    #[inline]
    pub(crate) async fn send_with(
        &self,
        value: T,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<(), SendError<T>> {
        match self.send_now(value, wait, parker) {
            Ok(sent) => sent,
            Err((value, state)) => self.send_later(value, state, wait, parker).await,
        }
    }

    /// What can be said without waiting; else the value back, the channel still locked and the wait begun.
    #[inline]
    fn send_now(
        &self,
        value: T,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<Result<(), SendError<T>>, Begun<'_, T>> {
        let fail = |kind, value| Ok(Err(SendError { kind, value: Some(value) }));
        if parker.waiter().take_cancel() {
            return fail(SendErrorKind::Cancelled, value);
        }
        let mut state = self.state.lock();
        let value = match state.send(value) {
            Sent::Handed(wake) => {
                drop(state);
                wake.wake();
                return Ok(Ok(()));
            }
            Sent::Stored => return Ok(Ok(())),
            Sent::Closed(value) => return fail(SendErrorKind::Closed, value),
            Sent::WouldBlock(value) => value,
        };
        if wait == Wait::No {
            return fail(SendErrorKind::TimedOut, value);
        }
        if !parker.waiter().begin() {
            return fail(SendErrorKind::Cancelled, value);
        }
        Err((value, state))
    }

    /// The rest of `send` for somebody with a stack: what `at_once(self.send_later(…))` would do, without a future.
    #[inline(always)]
    fn send_and_wait(
        &self,
        value: T,
        state: Guard<'_, State<T>>,
        wait: Wait,
        parker: &Parker,
    ) -> Result<(), SendError<T>> {
        let node = Node::new(parker, 0, Some(value));
        // SAFETY: the node stays in this frame until `sent`.
        unsafe { Self::queue_sender(state, &node) };
        let outcome = parker.wait(WaitReason::ChanSend.on(self), wait);
        self.sent(&node, outcome, parker)
    }

    async fn send_later(
        &self,
        value: T,
        state: Guard<'_, State<T>>,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<(), SendError<T>> {
        let node = Node::new(parker, 0, Some(value));
        // SAFETY: the node stays in this frame until `sent`.
        unsafe { Self::queue_sender(state, &node) };
        let outcome = parker.park(WaitReason::ChanSend.on(self), wait).await;
        self.sent(&node, outcome, parker)
    }

    /// # Safety
    /// The node's wait has begun, and it stays in its place until [`Chan::sent`] has returned.
    #[inline]
    unsafe fn queue_sender(mut state: Guard<'_, State<T>>, node: &Node<T>) {
        // SAFETY: by the contract it does not go away before it was popped and its waiter woken, or removed.
        unsafe { state.senders.push(node) };
    }

    /// The wait of a send is over.
    #[inline]
    fn sent(&self, node: &Node<T>, outcome: Outcome, parker: &impl Park) -> Result<(), SendError<T>> {
        let kind = match outcome {
            Outcome::Case(_) => None,
            Outcome::TimedOut => Some(SendErrorKind::TimedOut),
            Outcome::Cancelled | Outcome::Abandoned => Some(SendErrorKind::Cancelled),
            Outcome::Interrupted => Some(SendErrorKind::Interrupted),
        };
        if kind.is_some() {
            self.state.lock().senders.remove(node);
        }
        // SAFETY: the wait is over and the node is in no queue.
        let left = unsafe { node.take() };
        match (kind, left) {
            (Some(kind), value) => Err(SendError { kind, value }),
            // Served by `close`, which leaves the value where it is.
            (None, Some(value)) => Err(SendError { kind: SendErrorKind::Closed, value: Some(value) }),
            (None, None) if parker.raised() => {
                Err(SendError { kind: SendErrorKind::Interrupted, value: None })
            }
            (None, None) => Ok(()),
        }
    }

    /// Receives a value.
    ///
    /// # Blocking
    /// Until there is one or the channel is closed, at most as `wait` says.
    ///
    /// # Errors
    /// [`RecvError`] with the reason; nothing was received then.
    #[inline]
    pub fn recv(&self, wait: Wait) -> Result<T, RecvError> {
        let parker = Parker::new();
        match self.recv_now(wait, &parker) {
            Ok(received) => received,
            Err(state) => self.recv_and_wait(state, wait, &parker),
        }
    }

    /// What can be said without waiting; else the channel still locked and the wait begun.
    #[inline]
    pub(crate) fn recv_now(
        &self,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<Result<T, RecvError>, Guard<'_, State<T>>> {
        if parker.waiter().take_cancel() {
            return Ok(Err(RecvError::Cancelled));
        }
        let mut state = self.state.lock();
        match state.recv() {
            Received::Value(value, wake) => {
                drop(state);
                if let Some(wake) = wake {
                    wake.wake();
                }
                return Ok(Ok(value));
            }
            Received::Closed => return Ok(Err(RecvError::Closed)),
            Received::WouldBlock => {}
        }
        if wait == Wait::No {
            return Ok(Err(RecvError::TimedOut));
        }
        if !parker.waiter().begin() {
            return Ok(Err(RecvError::Cancelled));
        }
        Err(state)
    }

    /// The rest of `recv`, as [`Chan::send_and_wait`].
    #[inline(always)]
    fn recv_and_wait(&self, state: Guard<'_, State<T>>, wait: Wait, parker: &Parker) -> Result<T, RecvError> {
        let node = Node::new(parker, 0, None);
        // SAFETY: the node stays in this frame until `received`.
        unsafe { Self::queue_receiver(state, &node) };
        let outcome = parker.wait(self.recv_reason().on(self), wait);
        self.received(&node, outcome, parker)
    }

    pub(crate) async fn recv_later(
        &self,
        state: Guard<'_, State<T>>,
        wait: Wait,
        parker: &impl Park,
    ) -> Result<T, RecvError> {
        let node = Node::new(parker, 0, None);
        // SAFETY: the node stays in this frame until `received`.
        unsafe { Self::queue_receiver(state, &node) };
        let outcome = parker.park(self.recv_reason().on(self), wait).await;
        self.received(&node, outcome, parker)
    }

    /// # Safety
    /// The node's wait has begun, and it stays in its place until [`Chan::received`] has returned.
    #[inline]
    unsafe fn queue_receiver(mut state: Guard<'_, State<T>>, node: &Node<T>) {
        // SAFETY: as in `queue_sender`.
        unsafe { state.receivers.push(node) };
    }

    /// The wait of a receive is over.
    #[inline]
    fn received(&self, node: &Node<T>, outcome: Outcome, parker: &impl Park) -> Result<T, RecvError> {
        let error = match outcome {
            Outcome::Case(_) => None,
            Outcome::TimedOut => Some(RecvError::TimedOut),
            Outcome::Cancelled | Outcome::Abandoned => Some(RecvError::Cancelled),
            Outcome::Interrupted => Some(RecvError::Interrupted),
        };
        if let Some(error) = error {
            self.state.lock().receivers.remove(node);
            return Err(error);
        }
        // SAFETY: the wait is over and the node is in no queue.
        let value = unsafe { node.take() };
        match value {
            Some(value) if parker.raised() => {
                self.put_back(value);
                Err(RecvError::Interrupted)
            }
            Some(value) => Ok(value),
            None if parker.raised() => Err(RecvError::Interrupted),
            // Served by `close`, which brings nothing.
            None => Err(RecvError::Closed),
        }
    }

    /// Whether somebody waits to receive; perhaps also if somebody has just stopped to. Must not be called under
    /// another channel's lock.
    pub fn has_receivers(&self) -> bool {
        let mut state = self.state.lock();
        state.receivers.has_any()
    }

    /// Shows every value that `task` waits to send here; none if the lock is taken.
    ///
    /// # Safety
    /// `task` was seen to wait since the world stands still: see stacks.rs.
    pub unsafe fn visit_sender(&self, task: &crate::Task, visit: impl FnMut(&T)) {
        if let Some(state) = self.state.try_lock() {
            // SAFETY: by the contract.
            let values = unsafe { state.senders.brought_by(std::ptr::NonNull::from(task).cast()) };
            values.into_iter().for_each(visit);
        }
    }

    /// The goroutine whose end closes it; 0 for a usual channel.
    pub fn goroutine(&self) -> u64 {
        self.goroutine
    }

    /// Why a receiver waits.
    fn recv_reason(&self) -> WaitReason {
        if self.goroutine == 0 { WaitReason::ChanReceive } else { WaitReason::GoroutineResult }
    }

    /// What it is, for dumps; the wait of a goroutine for another's end is that other's matter.
    pub fn describe(&self) -> crate::Described {
        if self.goroutine != 0 {
            return crate::Described {
                text: format!("goroutine {}", self.goroutine),
                holder: self.goroutine,
            };
        }
        let address = std::ptr::from_ref(self).addr();
        let text = match self.state.try_lock() {
            Some(state) => {
                let (len, capacity) = (state.len(), state.capacity());
                format!("chan {address:#x} ({len} of {capacity} buffered)")
            }
            None => format!("chan {address:#x}"),
        };
        crate::Described { text, holder: 0 }
    }

    /// Sends only if that needs no waiting.
    ///
    /// # Errors
    /// [`TrySendError`] with the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let sent = self.state.lock().send(value);
        match sent {
            Sent::Handed(wake) => wake.wake(),
            Sent::Stored => {}
            Sent::Closed(value) => return Err(TrySendError::Closed(value)),
            Sent::WouldBlock(value) => return Err(TrySendError::Full(value)),
        }
        Ok(())
    }

    /// Receives only if that needs no waiting.
    ///
    /// # Errors
    /// [`TryRecvError`] with the reason.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let received = self.state.lock().recv();
        match received {
            Received::Value(value, wake) => {
                if let Some(wake) = wake {
                    wake.wake();
                }
                Ok(value)
            }
            Received::Closed => Err(TryRecvError::Closed),
            Received::WouldBlock => Err(TryRecvError::Empty),
        }
    }

    /// Promises slots of the buffer to a sender elsewhere, such that he has up to `target` from now on, also of those that
    /// become free later.
    pub fn promise(&self, to: &std::sync::Arc<dyn Promise>, target: u32) {
        self.state.lock().promise(to, target);
    }

    /// Values that were sent on a promise have arrived, in this order. What is more than was promised stays where it is.
    pub fn arrive(&self, to: &std::sync::Arc<dyn Promise>, values: &mut std::collections::VecDeque<T>) {
        let wakes = self.state.lock().arrive(to, values);
        wakes.wake_all();
    }

    /// A value that was sent on a promise cannot be had: its slot is free.
    pub fn lost(&self, to: &std::sync::Arc<dyn Promise>) {
        let wakes = self.state.lock().lost(to);
        wakes.wake_all();
    }

    /// Nothing more arrives on this promise.
    pub fn call_off(&self, to: &std::sync::Arc<dyn Promise>) {
        let wakes = self.state.lock().call_off(to);
        wakes.wake_all();
    }

    /// Leases values to receivers elsewhere, from number `from` on: `show` is called with each and its number, until it
    /// returns false; of those that were not leased before it is asked first whether they `fit`. Both are called under the
    /// channel's lock: they must neither wait nor call anybody.
    ///
    /// Returns values that were claimed, to be dropped where that may be.
    #[must_use]
    pub fn lease(
        &self,
        to: &std::sync::Arc<dyn Lease>,
        from: u64,
        fits: impl FnMut(&T) -> bool,
        show: impl FnMut(u64, &T) -> bool,
    ) -> Vec<T> {
        let looked = self.state.lock().lease(to, from, fits, show);
        looked.wakes.wake_all();
        looked.spent
    }

    /// Leased values were claimed elsewhere: lets senders in. Returns what is to be dropped, as [`Chan::lease`].
    #[must_use]
    pub fn claimed(&self) -> Vec<T> {
        let looked = self.state.lock().claimed();
        looked.wakes.wake_all();
        looked.spent
    }

    /// Nobody claims anything any more. Returns what is to be dropped, as [`Chan::lease`].
    #[must_use]
    pub fn end_lease(&self, to: &std::sync::Arc<dyn Lease>) -> Vec<T> {
        let looked = self.state.lock().end_lease(to);
        looked.wakes.wake_all();
        looked.spent
    }

    /// Puts a received value back to the front, for a receiver that turns out unable to keep it.
    pub fn put_back(&self, value: T) {
        let wake = self.state.lock().put_back(value);
        if let Some(wake) = wake {
            wake.wake();
        }
    }

    /// Closes the channel and wakes everybody who waits on it. What is buffered stays receivable.
    ///
    /// # Errors
    /// [`CloseError`] if it was closed before.
    pub fn close(&self) -> Result<(), CloseError> {
        let wakes = self.state.lock().close();
        wakes.ok_or(CloseError)?.wake_all();
        Ok(())
    }

    /// Empties the buffer and drops what was in it, here and now.
    pub fn drain(&self) {
        let values = self.state.lock().drain();
        drop(values);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed()
    }

    /// How many values are buffered; waiting senders do not count.
    pub fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values it can buffer.
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity()
    }

    /// Shows every buffered value to `visit`, if the lock is free: for a garbage collector that has
    /// stopped everybody else. `visit` must not touch the channel.
    ///
    /// # Errors
    /// Whatever `visit` returns.
    pub fn visit<E>(&self, mut visit: impl FnMut(&T) -> Result<(), E>) -> Result<(), E> {
        match self.state.try_lock() {
            Some(state) => state.buffered().try_for_each(&mut visit),
            None => Ok(()),
        }
    }
}

impl<T> std::fmt::Debug for Chan<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chan").finish_non_exhaustive()
    }
}

//! The calls that can be polled: each is the call of the same name, with whoever waits as its last argument.
//!
//! They hold on to what they wait for by `K`: an `Arc`, or a host's own reference.

use super::{Caller, Waiting};
use crate::chan::{Chan, RecvError, SendError};
use crate::clock::Wait;
use crate::net::{self, Direction, NetError};
use crate::select::{Case, SelectError, Selected};
use crate::semaphore::{AcquireError, Semaphore};
use crate::sleep::SleepError;
use crate::waiting::WaitError;
use crate::{Barrier, BarrierError, Cond, CondError, Event, Mutex, RwMutex, WaitGroup};
use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// [`Chan::send`].
pub fn send<T, K>(chan: K, value: T, wait: Wait, caller: Caller) -> Waiting<Result<(), SendError<T>>>
where
    T: Send + 'static,
    K: Deref<Target = Chan<T>> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { chan.send_with(value, wait, &poller).await })
}

/// [`Chan::recv`].
pub fn recv<T, K>(chan: K, wait: Wait, caller: Caller) -> Waiting<Result<T, RecvError>>
where
    T: Send + 'static,
    K: Deref<Target = Chan<T>> + Send + 'static,
{
    // Without a function of its own in between: a layer less in what a parked goroutine costs.
    Waiting::new(caller, move |poller| async move {
        match chan.recv_now(wait, &poller) {
            Ok(received) => received,
            Err(state) => chan.recv_later(state, wait, &poller).await,
        }
    })
}

/// [`crate::select`]. Each case is a channel, or None for one that is never ready, and what to send, or None to
/// receive. Values of sends that were not carried out are dropped.
pub fn select<T, K>(
    cases: Vec<(Option<K>, Option<T>)>,
    wait: Wait,
    caller: Caller,
) -> Waiting<Result<Selected<T>, SelectError>>
where
    T: Send + 'static,
    K: Deref<Target = Chan<T>> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move {
        let (chans, values): (Vec<Option<K>>, Vec<Option<T>>) = cases.into_iter().unzip();
        let mut cases: Vec<Case<'_, T>> = chans
            .iter()
            .zip(values)
            .map(|(chan, value)| match (chan, value) {
                (None, _) => Case::Never,
                (Some(chan), None) => Case::Recv(chan),
                (Some(chan), value) => Case::Send(chan, value),
            })
            .collect();
        crate::select::select_with(&mut cases, wait, &poller).await
    })
}

/// [`crate::sleep`].
#[must_use]
pub fn sleep(wait: Wait, caller: Caller) -> Waiting<Result<(), SleepError>> {
    Waiting::new(caller, move |poller| async move { crate::sleep::sleep_with(wait, &poller).await })
}

/// [`net::ready`].
#[must_use]
pub fn ready(fd: i32, direction: Direction, wait: Wait, caller: Caller) -> Waiting<Result<(), NetError>> {
    Waiting::new(caller, move |poller| async move { net::ready_with(fd, direction, wait, &poller).await })
}

/// [`net::attempt`].
pub fn attempt<T: Send + 'static>(
    fd: i32,
    direction: Direction,
    wait: Wait,
    attempt: impl FnMut() -> io::Result<T> + Send + 'static,
    caller: Caller,
) -> Waiting<Result<T, NetError>> {
    Waiting::new(
        caller,
        move |poller| async move { net::attempt_by(fd, direction, wait, &poller, attempt).await },
    )
}

/// [`net::Owned::attempt`].
pub fn attempt_owned<T: Send + 'static>(
    owned: Arc<net::Owned>,
    direction: Direction,
    wait: impl Fn() -> Wait + Send + 'static,
    attempt: impl FnMut(i32) -> io::Result<T> + Send + 'static,
    caller: Caller,
) -> Waiting<Result<T, NetError>> {
    Waiting::new(caller, move |poller| async move {
        owned.attempt_by(direction, wait, false, &poller, attempt).await
    })
}

/// [`Mutex::lock`].
pub fn lock<K>(mutex: K, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: Deref<Target = Mutex> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { mutex.lock_with(wait, &poller).await })
}

/// [`RwMutex::lock`].
pub fn rwlock<K>(mutex: K, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: Deref<Target = RwMutex> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { mutex.lock_with(wait, &poller).await })
}

/// [`RwMutex::rlock`].
pub fn rlock<K>(mutex: K, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: Deref<Target = RwMutex> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { mutex.rlock_with(wait, &poller).await })
}

/// [`WaitGroup::wait`].
pub fn await_wait_group<K>(group: K, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: Deref<Target = WaitGroup> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { group.wait_with(wait, &poller).await })
}

/// [`Event::wait`].
pub fn await_event<K>(event: K, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: Deref<Target = Event> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { event.wait_with(wait, &poller).await })
}

/// [`Semaphore::acquire`].
pub fn acquire<K>(semaphore: K, number: u64, wait: Wait, caller: Caller) -> Waiting<Result<(), AcquireError>>
where
    K: Deref<Target = Semaphore> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { semaphore.acquire_with(number, wait, &poller).await })
}

/// [`Cond::wait`]. If it is abandoned, the mutex may be left unlocked.
pub fn await_cond<K, M>(cond: K, mutex: M, wait: Wait, caller: Caller) -> Waiting<Result<(), CondError>>
where
    K: Deref<Target = Cond> + Send + 'static,
    M: Deref<Target = Mutex> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { cond.wait_with(&mutex, wait, &poller).await })
}

/// [`Barrier::wait`].
pub fn await_barrier<K>(barrier: K, wait: Wait, caller: Caller) -> Waiting<Result<usize, BarrierError>>
where
    K: Deref<Target = Barrier> + Send + 'static,
{
    Waiting::new(caller, move |poller| async move { barrier.wait_with(wait, &poller).await })
}

/// [`Watch::wait`].
///
/// [`Watch::wait`]: crate::stm::Watch::wait
#[must_use]
pub fn changed<K>(watch: crate::stm::Watch<K>, wait: Wait, caller: Caller) -> Waiting<Result<(), WaitError>>
where
    K: crate::stm::Var + Send + 'static,
    K::Value: Send,
{
    Waiting::new(caller, move |poller| async move { watch.wait_with(wait, &poller).await })
}

/// [`Space::wait`].
///
/// [`Space::wait`]: crate::stm::Space::wait
#[must_use]
pub fn turn_over(space: &'static crate::stm::Space, caller: Caller) -> Waiting<Result<(), WaitError>> {
    Waiting::new(caller, move |poller| async move { space.wait_with(&poller).await })
}

//! Every sequence of four operations on a channel, compared after each step with a small model.
//!
//! Each operation runs in a goroutine of its own and is started when those before it are done or wait, as
//! the model says they should; so a run has one outcome, and a sequence that fails can be run again.

#![cfg(not(miri))] // It cannot switch stacks.

use goslings::chan::{RecvError, SendErrorKind, TryRecvError, TrySendError};
use goslings::{Chan, Job, Task, Wait, WaitReason, spawn, yield_now};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Send,
    Recv,
    TrySend,
    TryRecv,
    Close,
    /// Cancels the operation that has waited longest.
    Cancel,
}

const OPS: [Op; 6] = [Op::Send, Op::Recv, Op::TrySend, Op::TryRecv, Op::Close, Op::Cancel];
const STEPS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Got(usize),
    Closed,
    WouldBlock,
    Cancelled,
}

/// What a channel is. Values are the numbers of the operations that send them.
struct Model {
    capacity: usize,
    closed: bool,
    buffer: VecDeque<usize>,
    senders: VecDeque<usize>,
    receivers: VecDeque<usize>,
    ends: [Option<End>; STEPS],
}

impl Model {
    fn step(&mut self, me: usize, op: Op) {
        let end = match op {
            Op::Send | Op::TrySend if self.closed => Some(End::Closed),
            Op::Send | Op::TrySend => {
                if let Some(receiver) = self.receivers.pop_front() {
                    self.ends[receiver] = Some(End::Got(me));
                    Some(End::Done)
                } else if self.buffer.len() < self.capacity {
                    self.buffer.push_back(me);
                    Some(End::Done)
                } else if op == Op::Send {
                    self.senders.push_back(me);
                    None
                } else {
                    Some(End::WouldBlock)
                }
            }
            Op::Recv | Op::TryRecv => {
                if let Some(sender) = self.senders.pop_front() {
                    self.ends[sender] = Some(End::Done);
                    self.buffer.push_back(sender);
                }
                match self.buffer.pop_front() {
                    Some(value) => Some(End::Got(value)),
                    None if self.closed => Some(End::Closed),
                    None if op == Op::TryRecv => Some(End::WouldBlock),
                    None => {
                        self.receivers.push_back(me);
                        None
                    }
                }
            }
            Op::Close if self.closed => Some(End::Closed),
            Op::Close => {
                self.closed = true;
                for waiter in self.senders.drain(..).chain(self.receivers.drain(..)) {
                    self.ends[waiter] = Some(End::Closed);
                }
                Some(End::Done)
            }
            Op::Cancel => {
                // Senders and receivers never wait at the same time.
                if let Some(waiter) = self.senders.pop_front().or_else(|| self.receivers.pop_front()) {
                    self.ends[waiter] = Some(End::Cancelled);
                }
                Some(End::Done)
            }
        };
        self.ends[me] = end;
    }

    /// The number of the operation that a cancellation would strike.
    fn oldest(&self) -> Option<usize> {
        self.senders.front().or(self.receivers.front()).copied()
    }
}

/// One operation on the real channel.
struct Running {
    task: Arc<Task>,
    end: Arc<OnceLock<End>>,
}

fn start(chan: &Arc<Chan<usize>>, me: usize, op: Op, victim: Option<Arc<Task>>) -> Running {
    let end = Arc::new(OnceLock::new());
    let (chan, place) = (Arc::clone(chan), Arc::clone(&end));
    let task = spawn(Job::new(move || {
        let end = match op {
            Op::Send => match chan.send(me, Wait::Forever) {
                Ok(()) => End::Done,
                Err(refused) => {
                    assert_eq!(refused.value, Some(me), "the value was not given back");
                    if refused.kind == SendErrorKind::Closed { End::Closed } else { End::Cancelled }
                }
            },
            Op::Recv => match chan.recv(Wait::Forever) {
                Ok(value) => End::Got(value),
                Err(RecvError::Closed) => End::Closed,
                Err(_) => End::Cancelled,
            },
            Op::TrySend => match chan.try_send(me) {
                Ok(()) => End::Done,
                Err(TrySendError::Full(_)) => End::WouldBlock,
                Err(TrySendError::Closed(_)) => End::Closed,
            },
            Op::TryRecv => match chan.try_recv() {
                Ok(value) => End::Got(value),
                Err(TryRecvError::Empty) => End::WouldBlock,
                Err(TryRecvError::Closed) => End::Closed,
            },
            Op::Close => chan.close().map_or(End::Closed, |()| End::Done),
            Op::Cancel => {
                if let Some(victim) = victim {
                    victim.cancel();
                }
                End::Done
            }
        };
        place.set(end).expect("an operation ends once");
    }));
    Running { task, end }
}

/// Waits until the operation is where the model has it.
fn settled(running: &Running, expected: Option<End>) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    let waits = || matches!(running.task.reason(), WaitReason::ChanSend | WaitReason::ChanReceive);
    while running.end.get().is_none() && !(expected.is_none() && waits()) {
        if Instant::now() > deadline {
            return false;
        }
        yield_now();
    }
    running.end.get().copied() == expected
}

fn run(capacity: usize, ops: [Op; STEPS]) {
    let chan = Arc::new(Chan::new(capacity));
    let mut model = Model {
        capacity,
        closed: false,
        buffer: VecDeque::new(),
        senders: VecDeque::new(),
        receivers: VecDeque::new(),
        ends: [None; STEPS],
    };
    let mut running: Vec<Running> = Vec::new();
    for (me, op) in ops.into_iter().enumerate() {
        let victim = model.oldest().map(|oldest| Arc::clone(&running[oldest].task));
        running.push(start(&chan, me, op, victim));
        model.step(me, op);
        for (index, running) in running.iter().enumerate() {
            let expected = model.ends[index];
            assert!(
                settled(running, expected),
                "capacity {capacity}, {ops:?}: after step {me}, operation {index} is {:?}, not {expected:?}",
                running.end.get(),
            );
        }
        assert_eq!(chan.len(), model.buffer.len(), "capacity {capacity}, {ops:?}: after step {me}");
    }
    while let Some(oldest) = model.oldest() {
        running[oldest].task.cancel();
        model.step(0, Op::Cancel);
        assert!(settled(&running[oldest], Some(End::Cancelled)), "capacity {capacity}, {ops:?}: at the end");
    }
    let left: Vec<_> = std::iter::from_fn(|| chan.try_recv().ok()).collect();
    assert!(left.iter().eq(&model.buffer), "capacity {capacity}, {ops:?}: {left:?} was left");
}

#[test]
fn every_order_of_four_operations_does_what_the_model_does() {
    for capacity in 0..=2 {
        for number in 0..OPS.len().pow(STEPS as u32) {
            let ops = std::array::from_fn(|step| OPS[number / OPS.len().pow(step as u32) % OPS.len()]);
            run(capacity, ops);
        }
    }
}

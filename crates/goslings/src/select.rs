//! `select`: waits on several channels at once and carries out exactly one case (rows S01 to S19).
//!
//! All channels are locked together, in address order, so that "none is ready" is said of one instant.
//! Ready cases are tried in random order and the first that works is taken. Else one node per case is
//! queued, in random order too, and whoever claims the waiter first has chosen the case; the other nodes
//! are withdrawn before `select` returns.

#[cfg(all(test, loom))]
mod loom;

use crate::chan::{Chan, Received, Sent, State};
use crate::clock::Wait;
use crate::lock::{Mutex, SmallGuards, lock_all};
use crate::random::shuffle;
use crate::waiter::{Outcome, Park, Parker, WaitReason, Wake, at_once};
use crate::waitq::Node;

/// How many cases are handled without allocating.
const INLINE: usize = 4;

/// One case.
#[derive(Debug)]
pub enum Case<'a, T> {
    /// Receive from this channel.
    Recv(&'a Chan<T>),
    /// Send this value. It is taken out when it was sent, and only then.
    Send(&'a Chan<T>, Option<T>),
    /// Never ready: a receive from Go's nil channel.
    Never,
    /// The same for a send.
    NeverSend,
}

/// The case that was carried out.
#[derive(Debug)]
pub struct Selected<T> {
    /// Its place in the list.
    pub index: usize,
    /// What was received: None if it was a send, or the channel is closed and drained.
    pub value: Option<T>,
}

/// Why a select carried out no case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectError {
    /// No case was ready in time.
    TimedOut,
    /// The send case with this index was chosen, and its channel is closed.
    Closed(usize),
    /// The goroutine was cancelled.
    Cancelled,
    /// A signal handler raised in this thread; nothing was received, but a value may have been sent.
    Interrupted,
}

impl<'a, T> Case<'a, T> {
    /// Its channel.
    #[must_use]
    pub fn chan(&self) -> Option<&'a Chan<T>> {
        match self {
            Case::Recv(chan) | Case::Send(chan, _) => Some(chan),
            Case::Never | Case::NeverSend => None,
        }
    }
}

/// The plan of one select: which channel is which guard.
struct Plan {
    /// For each case, the place of its channel in address order; unused for `Never`.
    guard: [u32; INLINE],
    /// The cases that take part.
    order: [u32; INLINE],
    more: Option<Box<(Vec<u32>, Vec<u32>)>>,
    len: usize,
    cases: usize,
}

/// The channels of a waiting select, for those who look from outside: in the frame of the waiting call.
pub(crate) struct Channels {
    len: usize,
    inline: [usize; INLINE],
    more: Vec<usize>,
}

impl Channels {
    fn of<T>(cases: &[Case<'_, T>]) -> Channels {
        let mut channels = Channels { len: 0, inline: [0; INLINE], more: Vec::new() };
        for chan in cases.iter().filter_map(Case::chan) {
            let address = std::ptr::from_ref(chan).expose_provenance();
            if cases.len() <= INLINE {
                channels.inline[channels.len] = address;
                channels.len += 1;
            } else {
                channels.more.push(address);
            }
        }
        channels
    }

    /// Their addresses; one that takes part twice is there twice.
    pub(crate) fn list(&self) -> &[usize] {
        if self.more.is_empty() { &self.inline[..self.len] } else { &self.more }
    }
}

/// Waits until one of `cases` can be carried out, and carries it out.
///
/// # Blocking
/// Until a case is ready, at most as `wait` says; `Wait::No` is Go's `default`.
///
/// # Errors
/// [`SelectError`] with the reason. Values of send cases that were not carried out are still in them.
pub fn select<T>(cases: &mut [Case<'_, T>], wait: Wait) -> Result<Selected<T>, SelectError> {
    at_once(select_with(cases, wait, &Parker::new()))
}

pub(crate) async fn select_with<T>(
    cases: &mut [Case<'_, T>],
    wait: Wait,
    parker: &impl Park,
) -> Result<Selected<T>, SelectError> {
    if parker.waiter().take_cancel() {
        return Err(SelectError::Cancelled);
    }
    if cases.len() <= INLINE {
        let mut nodes = [const { None }; INLINE];
        select_in(cases, wait, parker, &mut nodes[..]).await
    } else {
        let mut nodes: Vec<Option<Node<T>>> = (0..cases.len()).map(|_| None).collect();
        select_in(cases, wait, parker, &mut nodes).await
    }
}

async fn select_in<T>(
    cases: &mut [Case<'_, T>],
    wait: Wait,
    parker: &impl Park,
    nodes: &mut [Option<Node<T>>],
) -> Result<Selected<T>, SelectError> {
    let mut plan = Plan::new(cases);
    {
        let mut guards: SmallGuards<'_, State<T>, INLINE> = lock_all(plan.locks(cases));
        plan.shuffle();
        for &index in plan.order() {
            let index = index as usize;
            if let Some(done) = attempt(&mut cases[index], guards.get(plan.guard(index)), index) {
                drop(guards);
                return done.finish();
            }
        }
        if wait == Wait::No {
            return Err(SelectError::TimedOut);
        }
        if !parker.waiter().begin() {
            return Err(SelectError::Cancelled);
        }
        for &index in plan.order() {
            let index = index as usize;
            queue(&mut cases[index], guards.get(plan.guard(index)), index, parker, &mut nodes[index]);
        }
    }
    let channels = Channels::of(cases);
    let why = match (channels.list(), &*cases) {
        ([], [Case::Never]) => WaitReason::ChanReceiveNil.alone(),
        ([], [Case::NeverSend]) => WaitReason::ChanSendNil.alone(),
        ([], _) => WaitReason::SelectNoCases.alone(),
        _ => WaitReason::Select.on(&channels),
    };
    let outcome = parker.park(why, wait).await;
    let served = if let Outcome::Case(index) = outcome { Some(index as usize) } else { None };
    withdraw(cases, nodes, served);
    match outcome {
        Outcome::Case(index) => finish_served(cases, index as usize, nodes, parker.raised()),
        Outcome::TimedOut => Err(SelectError::TimedOut),
        Outcome::Cancelled | Outcome::Abandoned => Err(SelectError::Cancelled),
        Outcome::Interrupted => Err(SelectError::Interrupted),
    }
}

/// A case carried out at once; `finish` wakes the other side, after unlocking.
struct Done<T> {
    result: Result<Selected<T>, SelectError>,
    wake: Option<Wake>,
}

impl<T> Done<T> {
    fn finish(self) -> Result<Selected<T>, SelectError> {
        if let Some(wake) = self.wake {
            wake.wake();
        }
        self.result
    }
}

/// Carries out the case if it is ready.
fn attempt<T>(case: &mut Case<'_, T>, state: &mut State<T>, index: usize) -> Option<Done<T>> {
    match case {
        Case::Recv(_) => match state.recv() {
            Received::Value(value, wake) => {
                Some(Done { result: Ok(Selected { index, value: Some(value) }), wake })
            }
            Received::Closed => Some(Done { result: Ok(Selected { index, value: None }), wake: None }),
            Received::WouldBlock => None,
        },
        Case::Send(_, place) => match state.send(place.take().expect("a send case has a value")) {
            Sent::Handed(wake) => {
                Some(Done { result: Ok(Selected { index, value: None }), wake: Some(wake) })
            }
            Sent::Stored => Some(Done { result: Ok(Selected { index, value: None }), wake: None }),
            Sent::Closed(value) => {
                *place = Some(value);
                Some(Done { result: Err(SelectError::Closed(index)), wake: None })
            }
            Sent::WouldBlock(value) => {
                *place = Some(value);
                None
            }
        },
        Case::Never | Case::NeverSend => None,
    }
}

fn queue<T>(
    case: &mut Case<'_, T>,
    state: &mut State<T>,
    index: usize,
    parker: &impl Park,
    place: &mut Option<Node<T>>,
) {
    let value = if let Case::Send(_, value) = case { value.take() } else { None };
    let node = place.insert(Node::new(parker, index as u32, value));
    // SAFETY: the node stays in `select`'s array, which outlives the wait; `withdraw` takes out every
    // node that was not popped by the waker, before `select` returns.
    unsafe {
        match case {
            Case::Recv(_) => state.receivers.push(node),
            Case::Send(..) => state.senders.push(node),
            Case::Never | Case::NeverSend => {}
        }
    }
}

/// Takes every node out of its queue, except the one that was served (its waker did).
fn withdraw<T>(cases: &mut [Case<'_, T>], nodes: &[Option<Node<T>>], served: Option<usize>) {
    for (index, case) in cases.iter_mut().enumerate() {
        let Some(node) = nodes.get(index).and_then(Option::as_ref) else { continue };
        if served == Some(index) {
            continue;
        }
        match case {
            Case::Recv(chan) => chan.state().lock().receivers.remove(node),
            Case::Send(chan, place) => {
                chan.state().lock().senders.remove(node);
                // SAFETY: the wait is over and the node is in no queue.
                *place = unsafe { node.take() };
            }
            Case::Never | Case::NeverSend => {}
        }
    }
}

/// The wait ended by a node that was served: by the other side, or by `close`.
fn finish_served<T>(
    cases: &mut [Case<'_, T>],
    index: usize,
    nodes: &[Option<Node<T>>],
    raised: bool,
) -> Result<Selected<T>, SelectError> {
    let node = nodes[index].as_ref().expect("a served case has a node");
    // SAFETY: the wait is over and the node is in no queue.
    let value = unsafe { node.take() };
    match (&mut cases[index], value) {
        (Case::Recv(chan), Some(value)) if raised => {
            chan.put_back(value);
            Err(SelectError::Interrupted)
        }
        (Case::Send(_, place), Some(value)) => {
            *place = Some(value);
            Err(SelectError::Closed(index))
        }
        _ if raised => Err(SelectError::Interrupted),
        (_, value) => Ok(Selected { index, value }),
    }
}

impl Plan {
    fn new<T>(cases: &[Case<'_, T>]) -> Plan {
        let mut plan =
            Plan { guard: [0; INLINE], order: [0; INLINE], more: None, len: 0, cases: cases.len() };
        if cases.len() > INLINE {
            plan.more = Some(Box::new((vec![0; cases.len()], Vec::with_capacity(cases.len()))));
        }
        for (index, case) in cases.iter().enumerate() {
            if case.chan().is_some() {
                match &mut plan.more {
                    Some(more) => more.1.push(index as u32),
                    None => plan.order[plan.len] = index as u32,
                }
                plan.len += 1;
            }
        }
        // First in address order, to number the guards; then shuffled.
        let address =
            |index: &u32| cases[*index as usize].chan().map_or(0, |chan| std::ptr::from_ref(chan).addr());
        let (guard, order) = match &mut plan.more {
            Some(more) => (&mut more.0[..], &mut more.1[..]),
            None => (&mut plan.guard[..], &mut plan.order[..plan.len]),
        };
        order.sort_unstable_by_key(address);
        let mut number = 0;
        for place in 0..order.len() {
            if place > 0 && address(&order[place]) != address(&order[place - 1]) {
                number += 1;
            }
            guard[order[place] as usize] = number;
        }
        plan
    }

    /// The locks of the channels, in address order, each once. Before the shuffle only.
    fn locks<'a, T>(&self, cases: &[Case<'a, T>]) -> impl Iterator<Item = &'a Mutex<State<T>>> {
        let mut last = None;
        self.order().iter().filter_map(move |&index| {
            let number = self.guard(index as usize);
            let first = last != Some(number);
            last = Some(number);
            if first { cases[index as usize].chan().map(Chan::state) } else { None }
        })
    }

    fn shuffle(&mut self) {
        let order = match &mut self.more {
            Some(more) => &mut more.1[..],
            None => &mut self.order[..self.len],
        };
        if crate::bubble::any() {
            // Where things are in memory must not matter to a run that is to be repeated.
            order.sort_unstable();
        }
        shuffle(order);
    }

    /// The cases that take part: in address order, after `shuffle` in random order.
    fn order(&self) -> &[u32] {
        match &self.more {
            Some(more) => &more.1,
            None => &self.order[..self.len],
        }
    }

    fn guard(&self, case: usize) -> usize {
        debug_assert!(case < self.cases);
        match &self.more {
            Some(more) => more.0[case] as usize,
            None => self.guard[case] as usize,
        }
    }
}

//! Who of a bubble runs next.
//!
//! **Invariant**: every choice depends on the seed and on the choices before it, and on nothing else: not on
//! addresses, not on the time, not on threads. So a schedule can be repeated from its seed.
//!
//! `Pct` is probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte 2010): everybody has
//! a random priority, the highest that can run runs, and at `depth - 1` steps, chosen at random, whoever runs
//! falls below all others. A bug that needs `depth` events in a certain order is found with probability at
//! least `1 / (goroutines * span^(depth - 1))` a schedule, which is far more than blind choice gives.

use std::cmp::Reverse;

/// How a bubble chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// First ready, first run; nobody is interrupted, unless it goes on without end.
    Fifo,
    /// Anybody, at every step.
    Random,
    /// By priorities that change at a few of the first `span` steps.
    Pct {
        /// How many events the bugs looked for put in order.
        depth: u32,
        /// How many steps a run has, about.
        span: u64,
    },
}

/// SplitMix64: see random.rs.
#[derive(Debug)]
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Source {
        Source(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::random::mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Priorities from here on are given at the start; those below come later, each lower than the last.
const INITIAL: u64 = 1 << 32;
/// Who has taken so many steps in a row while others could run falls below them: else a loop that waits for
/// somebody else, without waiting on an object, would go on for ever.
const FAIR: u32 = 200;

/// The state of the choice.
#[derive(Debug)]
pub(crate) struct Chooser {
    order: Order,
    source: Source,
    /// The steps at which priorities change, ascending.
    changes: Vec<u64>,
    /// The next lower priority.
    floor: u64,
    /// How many steps the running one has taken in a row.
    streak: u32,
    /// By member.
    priorities: Vec<u64>,
}

impl Chooser {
    pub(crate) fn new(order: Order, seed: u64) -> Chooser {
        let mut source = Source::new(seed);
        let mut changes = Vec::new();
        if let Order::Pct { depth, span } = order {
            changes = (1..depth).map(|_| 1 + source.below(span.max(1))).collect();
            changes.sort_unstable();
        }
        Chooser { order, source, changes, floor: INITIAL, streak: 0, priorities: Vec::new() }
    }

    /// A new member; they are numbered from 0.
    pub(crate) fn add(&mut self) {
        let priority = INITIAL + self.source.below(u64::MAX - INITIAL);
        self.priorities.push(priority);
    }

    /// Whether it is time for something that happens one time in `many`.
    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.source.below(many) == 0
    }

    /// The place in `ready` (of members that can run, not empty) of the one that runs next.
    pub(crate) fn choose(&mut self, ready: impl ExactSizeIterator<Item = u32>) -> usize {
        self.streak = 0;
        match self.order {
            Order::Fifo => 0,
            Order::Random => self.source.below(ready.len() as u64) as usize,
            Order::Pct { .. } => self.highest(ready).map_or(0, |(place, _)| place),
        }
    }

    /// Before step number `step` of `running`, while `ready` can run too: the place of the one that runs
    /// first; None: nobody.
    pub(crate) fn interrupt(
        &mut self,
        step: u64,
        running: u32,
        ready: impl ExactSizeIterator<Item = u32>,
    ) -> Option<usize> {
        self.streak += 1;
        match self.order {
            Order::Fifo => {
                let other = (self.streak > FAIR && ready.len() > 0).then_some(0);
                self.streak = if other.is_some() { 0 } else { self.streak };
                other
            }
            Order::Random => {
                let place = self.source.below(ready.len() as u64 + 1) as usize;
                (place < ready.len()).then_some(place)
            }
            Order::Pct { .. } => {
                if self.changes.binary_search(&step).is_ok() || self.streak > FAIR {
                    self.demote(running);
                }
                let (place, priority) = self.highest(ready)?;
                (priority > self.priorities[running as usize]).then_some(place)
            }
        }
    }

    /// `member` gives way to all others.
    pub(crate) fn demote(&mut self, member: u32) {
        self.streak = 0;
        self.floor -= 1;
        self.priorities[member as usize] = self.floor;
    }

    fn highest(&self, ready: impl Iterator<Item = u32>) -> Option<(usize, u64)> {
        let ranked = ready.enumerate().map(|(place, member)| (place, self.priorities[member as usize]));
        ranked.max_by_key(|&(place, priority)| (priority, Reverse(place)))
    }
}

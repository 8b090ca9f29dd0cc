//! What happened in a bubble, step by step: for people, and to compare two runs.

use crate::waiter::WaitReason;

/// One entry of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The member that did it: 0 is the first. [`OUTSIDE`] for what nobody of the bubble did.
    pub who: u32,
    /// What it did.
    pub what: What,
}

/// Not a member.
pub const OUTSIDE: u32 = u32::MAX;

/// What a member did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Began an operation. The place is a number of the host's.
    Operation(&'static str, u32),
    /// Goes on with the operation before which it has made way for another.
    GoesOn,
    /// Parked.
    Waits(WaitReason),
    /// Woke this member.
    Wakes(u32),
    /// Started this member.
    Starts(u32),
    /// Ended.
    Ends,
    /// The clock moved to this many nanoseconds.
    Time(u64),
}

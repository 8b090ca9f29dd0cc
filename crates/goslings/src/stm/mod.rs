//! Software transactional memory: variables that are read and written together, or not at all.
//!
//! The algorithm is TL2 (Dice, Shalev, Shavit 2006) with extension of the snapshot: a clock for all, a version in
//! each variable. A transaction reads whatever is not newer than its snapshot, keeps what it writes to itself, and
//! at the end locks the variables it writes, draws a new time from the clock, checks that what it has read is
//! still there, and publishes. `retry` waits for a change of what was read, with the same queues and nodes as
//! everything else here.
//!
//! **Invariants**
//! * A variable's value and version change together, under its lock, after its COMMITTING bit was set and then
//!   a time drawn from the clock. So whoever has a snapshot of that time or later finds the lock held, or the
//!   new value; and of two commits that touch what the other has read, the one that draws later sees the bit of
//!   the one that drew before.
//! * All that a transaction has read was there together at its snapshot's time, at every moment, whether it will
//!   commit or not (opacity). A read that cannot be had so ends the attempt.
//! * Locks of variables are taken in address order, all of a commit at once, or one alone for a read.
//! * Under a lock only data moves: values are dropped by whoever holds the transaction, after unlocking.

mod kept;
#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;
mod transaction;
mod turn;
mod tvar;
mod watch;

pub use kept::{Held, Kept, Pin, after_fork_child, pin};
pub use transaction::{CommitError, Conflict, Mark, Transaction};
pub use turn::{Space, space};
pub use tvar::{Share, TVar, Var};
pub use watch::Watch;

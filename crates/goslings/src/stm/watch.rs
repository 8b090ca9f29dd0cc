//! Waiting for a change: what `retry` does.
//!
//! **Invariant**: one node for each variable, in a list that does not move while any of them is queued; all are
//! out of their queues before the wait returns.

use super::tvar::Var;
use crate::clock::Wait;
use crate::waiter::{Outcome, Park, Parker, WaitReason, at_once};
use crate::waiting::WaitError;
use crate::waitq::Node;
use std::fmt;

/// Variables, and the versions that were read of them.
pub struct Watch<K> {
    read: Vec<(K, u64)>,
}

impl<K: Var> Watch<K> {
    pub(super) fn new(read: Vec<(K, u64)>) -> Watch<K> {
        Watch { read }
    }

    /// What is watched.
    pub fn vars(&self) -> impl Iterator<Item = &K> {
        self.read.iter().map(|(var, _)| var)
    }

    /// Waits until one of them is not what it was; for ever, if there are none.
    ///
    /// # Blocking
    /// Until then, at most as `wait` says.
    ///
    /// # Errors
    /// [`WaitError`] with the reason.
    pub fn wait(&self, wait: Wait) -> Result<(), WaitError> {
        at_once(self.wait_with(wait, &Parker::new()))
    }

    pub(crate) async fn wait_with(&self, wait: Wait, parker: &impl Park) -> Result<(), WaitError> {
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        if wait == Wait::No {
            let changed = self.read.iter().any(|(var, version)| !var.is_still(*version, false));
            return if changed { Ok(()) } else { Err(WaitError::TimedOut) };
        }
        if !parker.waiter().begin() {
            return Err(WaitError::Cancelled);
        }
        let nodes: Vec<Node<()>> =
            (0..self.read.len()).map(|index| Node::new(parker, index as u32, Some(()))).collect();
        let outcome = if self.queue(&nodes) {
            parker.park(WaitReason::TransactionRetry.alone(), wait).await
        } else {
            match parker.give_up().await {
                Outcome::TimedOut => Outcome::Case(0),
                other => other,
            }
        };
        self.withdraw(&nodes);
        match outcome {
            Outcome::Case(_) if parker.raised() => Err(WaitError::Interrupted),
            Outcome::Case(_) => Ok(()),
            Outcome::TimedOut => Err(WaitError::TimedOut),
            Outcome::Cancelled | Outcome::Abandoned => Err(WaitError::Cancelled),
            Outcome::Interrupted => Err(WaitError::Interrupted),
        }
    }

    /// Queues a node everywhere. False: something has changed already.
    fn queue(&self, nodes: &[Node<()>]) -> bool {
        self.read.iter().zip(nodes).all(|((var, version), node)| {
            let mut watchers = var.lock();
            let same = var.version() == *version;
            if same {
                // SAFETY: the node stays in the list of `wait_with`, which does not return before the node was
                // popped and its waiter woken, or removed by `withdraw`; the wait has begun.
                unsafe { watchers.push(node) };
            }
            same
        })
    }

    fn withdraw(&self, nodes: &[Node<()>]) {
        for ((var, _), node) in self.read.iter().zip(nodes) {
            var.lock().remove(node);
        }
    }
}

impl<K> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("vars", &self.read.len()).finish()
    }
}

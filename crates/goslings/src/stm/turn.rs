//! What all transactions share: the clock, and the turn of one that has lost too often.
//!
//! **Invariants**
//! * The clock only grows; each commit that writes draws a time of its own.
//! * While somebody has the turn, nobody else publishes. Commits that were past that check when it was taken may
//!   still come through; there are at most as many as threads, so whoever has the turn soon meets no conflict.

use crate::clock::Wait;
use crate::mutex::Mutex;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::waiter::{Park, Parker, at_once};
use crate::waiting::WaitError;
use std::sync::OnceLock;

/// A clock and a turn: variables of one space are used in transactions of that space.
pub struct Space {
    clock: AtomicU64,
    /// Whether somebody has the turn.
    taken: AtomicU32,
    turn: Mutex,
}

/// The space of everybody.
#[must_use]
pub fn space() -> &'static Space {
    static SPACE: OnceLock<Space> = OnceLock::new();
    SPACE.get_or_init(Space::new)
}

impl Space {
    pub(super) fn new() -> Space {
        Space { clock: AtomicU64::new(0), taken: AtomicU32::new(0), turn: Mutex::new() }
    }

    /// The time of the last commit.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        // Ordering: Acquire pairs with the Release in `draw`: the locks that those commits held are seen.
        self.clock.load(Ordering::Acquire)
    }

    /// The time of a new commit, whose variables are locked and announced.
    #[inline]
    pub(super) fn draw(&self) -> u64 {
        // Ordering: AcqRel. Release: whoever draws or reads the clock later sees our announcements. Acquire: we
        // see those of all who drew before.
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        // Ordering: Relaxed. Seen late, it lets one commit more through.
        self.taken.load(Ordering::Relaxed) != 0
    }

    /// Takes the turn; only who has it publishes from now on.
    pub(super) async fn take(&self, parker: &impl Park) -> Result<(), WaitError> {
        self.turn.lock_with(Wait::Forever, parker).await?;
        // Ordering: Relaxed. See `is_taken`.
        self.taken.store(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the turn, if nobody has it.
    pub(super) fn try_take(&self) -> bool {
        let taken = self.turn.try_lock();
        if taken {
            // Ordering: Relaxed. See `is_taken`.
            self.taken.store(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives it back.
    pub(super) fn give_back(&self) {
        // Ordering: Relaxed. See `is_taken`; who waits is woken by the unlock.
        self.taken.store(0, Ordering::Relaxed);
        let _ = self.turn.unlock();
    }

    /// Waits until nobody has the turn.
    pub(crate) async fn wait_with(&self, parker: &impl Park) -> Result<(), WaitError> {
        if self.is_taken() {
            self.turn.lock_with(Wait::Forever, parker).await?;
            let _ = self.turn.unlock();
        }
        Ok(())
    }

    /// Waits until nobody has the turn: after [`CommitError::NotNow`].
    ///
    /// # Blocking
    /// As long as the transaction runs that has it.
    ///
    /// # Errors
    /// [`WaitError`] with the reason.
    ///
    /// [`CommitError::NotNow`]: super::CommitError::NotNow
    pub fn wait(&self) -> Result<(), WaitError> {
        at_once(self.wait_with(&Parker::new()))
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("taken", &self.is_taken()).finish_non_exhaustive()
    }
}

//! What all transactions share: the clock, and the turn of one that has lost too often.
//!
//! **Invariants**
//! * The clock only grows; each commit that writes draws a time of its own.
//! * While somebody has the turn, nobody else publishes. Commits that had drawn their time when it was taken may
//!   still come through; there are at most as many as threads, so whoever has the turn soon meets no conflict.

use crate::clock::Wait;
use crate::mutex::Mutex;
use crate::sync::{AtomicU64, Ordering};
use crate::waiter::{Park, Parker, at_once};
use crate::waiting::WaitError;
use std::sync::OnceLock;

/// In the word, beside the time: somebody has the turn.
const TAKEN: u64 = 1;

/// A clock and a turn: variables of one space are used in transactions of that space.
pub struct Space {
    /// `time << 1`, and TAKEN: a commit finds both with the one access that it needs anyway.
    word: AtomicU64,
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
        Space { word: AtomicU64::new(0), turn: Mutex::new() }
    }

    /// The time of the last commit.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        // Ordering: Acquire pairs with the Release in `draw`: the locks that those commits held are seen.
        self.word.load(Ordering::Acquire) >> 1
    }

    /// The time of a new commit, whose variables are locked and announced; and whether somebody has the turn.
    #[inline]
    pub(super) fn draw(&self) -> (u64, bool) {
        // Ordering: AcqRel. Release: whoever draws or reads the clock later sees our announcements. Acquire: we
        // see those of all who drew before.
        let word = self.word.fetch_add(2, Ordering::AcqRel);
        ((word >> 1) + 1, word & TAKEN != 0)
    }

    fn is_taken(&self) -> bool {
        // Ordering: Relaxed. Seen late, it lets its reader try once more.
        self.word.load(Ordering::Relaxed) & TAKEN != 0
    }

    /// Takes the turn; only who has it publishes from now on.
    pub(super) async fn take(&self, parker: &impl Park) -> Result<(), WaitError> {
        self.turn.lock_with(Wait::Forever, parker).await?;
        self.take_word();
        Ok(())
    }

    /// Takes the turn, if nobody has it.
    pub(super) fn try_take(&self) -> bool {
        let taken = self.turn.try_lock();
        if taken {
            self.take_word();
        }
        taken
    }

    fn take_word(&self) {
        // Ordering: Relaxed. All changes of the word are in one order: who draws later finds it.
        self.word.fetch_or(TAKEN, Ordering::Relaxed);
    }

    /// Gives it back.
    pub(super) fn give_back(&self) {
        // Ordering: Relaxed. As in `take_word`; who waits is woken by the unlock.
        self.word.fetch_and(!TAKEN, Ordering::Relaxed);
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

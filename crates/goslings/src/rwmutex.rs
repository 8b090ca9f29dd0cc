//! Many readers or one writer, without owners (rows Y06 to Y08).
//!
//! **Invariants** (under the lock)
//! * `writer` and `readers > 0` exclude each other.
//! * A reader is queued only while a writer holds the lock or is queued; a writer only while somebody
//!   holds it. Who is served holds it from that moment on: nobody can take it on the way.
//! * When a writer leaves, every queued reader goes before the next writer; when the last reader leaves,
//!   the next writer goes. So neither side can starve the other.

use crate::clock::Wait;
use crate::lock::{Mutex, Rank};
use crate::mutex::NotLocked;
use crate::waiter::{Park, Parker, WaitReason, at_once};
use crate::waiting::{Place, WaitError, Waited, wait_in};
use crate::waitq::{WaitQueue, WakeList};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A lock without data that many readers or one writer may hold. Not reentrant, not even for readers: a
/// second `rlock` waits behind a writer that waits for the first.
pub struct RwMutex {
    state: Mutex<State>,
    /// Who locked it last for writing: a goroutine's number, 0 for a thread. For dumps.
    holder: AtomicU64,
}

struct State {
    readers: usize,
    writer: bool,
    waiting_readers: WaitQueue<()>,
    waiting_writers: WaitQueue<()>,
}

impl State {
    fn try_rlock(&mut self) -> bool {
        let free = !self.writer && self.waiting_writers.peek().is_none();
        self.readers += usize::from(free);
        free
    }

    fn try_lock(&mut self) -> bool {
        let free = !self.writer && self.readers == 0;
        self.writer |= free;
        free
    }

    fn admit_readers(&mut self) -> WakeList<()> {
        let mut wakes = WakeList::new();
        while let Some(reader) = self.waiting_readers.pop() {
            self.readers += 1;
            wakes.push(reader);
        }
        wakes
    }

    /// Nobody holds it: gives it to the next writer if there is one.
    fn admit_writer(&mut self) -> WakeList<()> {
        debug_assert!(!self.writer && self.readers == 0, "admitted a writer to a lock that is held");
        let mut wakes = WakeList::new();
        if let Some(writer) = self.waiting_writers.pop() {
            self.writer = true;
            wakes.push(writer);
        }
        wakes
    }

    /// A waiting writer has gone without the lock: readers may have waited for its sake only.
    fn writer_gone(&mut self) -> WakeList<()> {
        if self.writer || self.waiting_writers.peek().is_some() {
            return WakeList::new();
        }
        self.admit_readers()
    }
}

impl RwMutex {
    /// An unlocked one.
    #[must_use]
    pub fn new() -> RwMutex {
        let state = State {
            readers: 0,
            writer: false,
            waiting_readers: WaitQueue::new(),
            waiting_writers: WaitQueue::new(),
        };
        RwMutex { state: Mutex::new(Rank::Object, state), holder: AtomicU64::new(0) }
    }

    /// Locks it for reading.
    ///
    /// # Blocking
    /// While a writer holds it or waits for it, at most as `wait` says.
    ///
    /// # Errors
    /// [`WaitError`] with the reason; it is not locked then.
    pub fn rlock(&self, wait: Wait) -> Result<(), WaitError> {
        at_once(self.rlock_with(wait, &Parker::new()))
    }

    pub(crate) async fn rlock_with(&self, wait: Wait, parker: &impl Park) -> Result<(), WaitError> {
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        let mut state = self.state.lock();
        if state.try_rlock() {
            return Ok(());
        }
        let why = (WaitReason::RwMutexRLock.on(self), wait);
        match wait_in(&self.state, state, |state| &mut state.waiting_readers, (Place::Back, ()), parker, why)
            .await
        {
            Waited::Served(_) => Ok(()),
            Waited::ServedInVain(_) => {
                let undone = self.runlock();
                debug_assert_eq!(undone, Ok(()), "a reader was admitted and did not count");
                Err(WaitError::Interrupted)
            }
            Waited::Failed(error, _) => Err(error),
        }
    }

    /// Locks it for reading if no writer holds it or waits for it.
    #[must_use]
    pub fn try_rlock(&self) -> bool {
        self.state.lock().try_rlock()
    }

    /// Ends one reader's hold.
    ///
    /// # Errors
    /// [`NotLocked`] if no reader holds it.
    pub fn runlock(&self) -> Result<(), NotLocked> {
        let mut state = self.state.lock();
        state.readers = state.readers.checked_sub(1).ok_or(NotLocked)?;
        if state.readers == 0 {
            let wakes = state.admit_writer();
            drop(state);
            wakes.wake_all();
        }
        Ok(())
    }

    /// Locks it for writing.
    ///
    /// # Blocking
    /// While anybody holds it, and while readers that waited for the last writer go first; at most as
    /// `wait` says.
    ///
    /// # Errors
    /// [`WaitError`] with the reason; it is not locked then.
    pub fn lock(&self, wait: Wait) -> Result<(), WaitError> {
        at_once(self.lock_with(wait, &Parker::new()))
    }

    pub(crate) async fn lock_with(&self, wait: Wait, parker: &impl Park) -> Result<(), WaitError> {
        if parker.waiter().take_cancel() {
            return Err(WaitError::Cancelled);
        }
        let mut state = self.state.lock();
        if state.try_lock() {
            self.note_holder(parker.goroutine());
            return Ok(());
        }
        let why = (WaitReason::RwMutexLock.on(self), wait);
        match wait_in(&self.state, state, |state| &mut state.waiting_writers, (Place::Back, ()), parker, why)
            .await
        {
            Waited::Served(_) => {
                self.note_holder(parker.goroutine());
                Ok(())
            }
            Waited::ServedInVain(_) => {
                let undone = self.unlock();
                debug_assert_eq!(undone, Ok(()), "a writer was admitted and did not count");
                Err(WaitError::Interrupted)
            }
            Waited::Failed(error, mut state) => {
                let wakes = state.writer_gone();
                drop(state);
                wakes.wake_all();
                Err(error)
            }
        }
    }

    /// Locks it for writing if nobody holds it.
    #[must_use]
    pub fn try_lock(&self) -> bool {
        let locked = self.state.lock().try_lock();
        if locked {
            self.note_holder(Parker::new().goroutine());
        }
        locked
    }

    fn note_holder(&self, goroutine: u64) {
        // Ordering: Relaxed. For people to read.
        self.holder.store(goroutine, Ordering::Relaxed);
    }

    /// How many readers hold it, or who writes: a goroutine's number, 0 for a thread. None if its lock is taken.
    pub(crate) fn holders(&self) -> Option<(usize, Option<u64>)> {
        let state = self.state.try_lock()?;
        // Ordering: Relaxed. For people to read.
        Some((state.readers, state.writer.then(|| self.holder.load(Ordering::Relaxed))))
    }

    /// Ends the writer's hold.
    ///
    /// # Errors
    /// [`NotLocked`] if no writer holds it.
    pub fn unlock(&self) -> Result<(), NotLocked> {
        let mut state = self.state.lock();
        if !state.writer {
            return Err(NotLocked);
        }
        state.writer = false;
        let mut wakes = state.admit_readers();
        if state.readers == 0 {
            wakes = state.admit_writer();
        }
        drop(state);
        wakes.wake_all();
        Ok(())
    }
}

impl Default for RwMutex {
    fn default() -> RwMutex {
        RwMutex::new()
    }
}

impl fmt::Debug for RwMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwMutex").finish_non_exhaustive()
    }
}

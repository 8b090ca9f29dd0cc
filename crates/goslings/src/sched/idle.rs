//! Which workers sleep, and how work wakes one. The protocol is argued in README.md beside this file.

use super::Runtime;
use super::worker::Shared;
use crate::futex;
use crate::lock::{Mutex, Rank};
use crate::net::NetPoll;
use crate::sync::{AtomicU32, Ordering, fence};
use std::io;
use std::sync::OnceLock;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const NOTIFIED: u32 = 2;
/// As ASLEEP, but in the worker's poller.
const POLLING: u32 = 3;

/// Where a worker sleeps: on a word, or, if somebody waits for descriptors there, in its poller.
pub(crate) struct Bed {
    word: AtomicU32,
    /// The worker's poller. Made by the worker, before it first sleeps there.
    net: OnceLock<&'static NetPoll>,
    /// Counts the times that its worker got up. For deadlock detection.
    turns: AtomicU32,
}

impl Bed {
    pub(crate) fn new() -> Bed {
        Bed { word: AtomicU32::new(AWAKE), net: OnceLock::new(), turns: AtomicU32::new(0) }
    }

    #[cfg(all(test, loom))]
    pub(super) fn with_net(net: &'static NetPoll) -> Bed {
        let bed = Bed::new();
        let _ = bed.net.set(net);
        bed
    }

    /// The worker's poller, which is made now if there is none. To be called by the worker.
    pub(crate) fn net_poll(&self, runtime: &'static Runtime) -> io::Result<&'static NetPoll> {
        if let Some(net) = self.net.get() {
            return Ok(net);
        }
        runtime.net.reserve(runtime)?;
        let made = NetPoll::new(runtime)?;
        Ok(self.net.get_or_init(|| made))
    }

    /// The worker's poller, if somebody waits for descriptors there.
    #[inline]
    pub(crate) fn awaited_net(&self) -> Option<&'static NetPoll> {
        self.net.get().copied().filter(|net| net.is_awaited())
    }

    /// Step 1 of going to sleep: from now on wakers see it. Look for work once more before step 4.
    pub(crate) fn announce(&self) {
        let place = if self.awaited_net().is_some() { POLLING } else { ASLEEP };
        // Ordering: Acquire pairs with the Release in `wake`: a late wake of an earlier sleep comes before
        // this sleep for everybody, and so cannot be taken for a wake of this one. Then a SeqCst fence that
        // pairs with the one in `wake`: either the waker sees ASLEEP, or we see its work when we look again.
        // Release: what it did before is seen by who finds it asleep.
        self.word.swap(place, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Sleeps until woken, unless that has happened since `announce`; in the poller also until somebody's descriptor
    /// is ready.
    pub(crate) fn sleep(&self) {
        loop {
            // Ordering: Acquire. The work itself is published by its queue; this only ends the sleep.
            match (self.word.load(Ordering::Acquire), self.net.get()) {
                (ASLEEP, _) => drop(futex::wait(&self.word, ASLEEP, None)),
                (POLLING, Some(net)) => {
                    if net.sleep() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Up again, whatever the reason.
    pub(crate) fn rise(&self) {
        // Ordering: Relaxed. Only hints to wakers that no system call is needed.
        self.word.store(AWAKE, Ordering::Relaxed);
        // Ordering: Release, after the store above and before any work, for `asleep`. Only the owner counts.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// The number of its worker's sleep, if it sleeps and was not called. See deadlock.rs.
    pub(crate) fn asleep(&self) -> Option<u32> {
        // Ordering: Acquire. The number first: whoever reads the same number and ASLEEP later knows that the worker
        // did nothing in between, since it counts after it has left ASLEEP.
        let turn = self.turns.load(Ordering::Acquire);
        // Ordering: Acquire pairs with the Release part of `announce`: what it did before it slept is seen.
        (self.word.load(Ordering::Acquire) == ASLEEP).then_some(turn)
    }

    /// Whether the worker sleeps, or is about to, or was called and will say that it is up.
    pub(crate) fn is_taken(&self) -> bool {
        // Ordering: Relaxed. Ordered by the fences of `Monitor::doze` and `Monitor::ring`.
        self.word.load(Ordering::Relaxed) != AWAKE
    }

    /// Wakes the worker if it sleeps. Call after the work was queued.
    pub(crate) fn wake(&self) {
        // Ordering: SeqCst fence, pairs with the one in `announce`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. Ordered after the push by the fence.
        if !matches!(self.word.load(Ordering::Relaxed), ASLEEP | POLLING) {
            return;
        }
        // Ordering: Release, so that the sleeper's Acquire sees everything before. Acquire pairs with `announce`: the
        // poller in which it sleeps is seen.
        match (self.word.swap(NOTIFIED, Ordering::AcqRel), self.net.get()) {
            (ASLEEP, _) => futex::wake(&raw const self.word),
            (POLLING, Some(net)) => net.ring(),
            _ => {}
        }
    }
}

/// Who sleeps, who is looking for work.
pub(crate) struct Idle {
    sleeping: AtomicU32,
    searching: AtomicU32,
    list: Mutex<Vec<&'static Shared>>,
}

impl Idle {
    pub(crate) fn new() -> Idle {
        Idle {
            sleeping: AtomicU32::new(0),
            searching: AtomicU32::new(0),
            list: Mutex::new(Rank::Sched, Vec::new()),
        }
    }

    /// There is new work that anybody may take. Wakes one worker, unless somebody is looking already.
    /// False: nobody sleeps and nobody looks (more workers may be started).
    pub(crate) fn notify(&self) -> bool {
        // Ordering: SeqCst fence, pairs with those in `enter` and `stop_searching_with_work`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. Ordered after the push by the fence. A worker that stops searching
        // announces and looks again, so trusting it is safe.
        if self.searching.load(Ordering::Relaxed) != 0 {
            return true;
        }
        // Ordering: Relaxed. As above.
        if self.sleeping.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let sleeper = {
            let mut list = self.list.lock();
            let sleeper = list.pop();
            if sleeper.is_some() {
                // Ordering: Relaxed. Both counts change under the list's lock when someone is woken.
                self.sleeping.fetch_sub(1, Ordering::Relaxed);
                // Ordering: Relaxed. As above.
                self.searching.fetch_add(1, Ordering::Relaxed);
            }
            sleeper
        };
        match sleeper {
            Some(shared) => {
                shared.bed.wake();
                true
            }
            None => false,
        }
    }

    /// Whether nobody sleeps and nobody looks, who could take new work. May be a moment old.
    pub(crate) fn nobody_is_free(&self) -> bool {
        // Ordering: Relaxed. A hint.
        self.searching.load(Ordering::Relaxed) == 0 && self.sleeping.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn start_searching(&self) {
        // Ordering: Relaxed. A hint that saves wakes; see `notify`.
        self.searching.fetch_add(1, Ordering::Relaxed);
    }

    /// Found nothing. The caller goes to sleep by the protocol, or calls `notify`.
    pub(crate) fn stop_searching(&self) {
        // Ordering: Relaxed. What follows (`announce`, or `notify`) brings its own fence.
        self.searching.fetch_sub(1, Ordering::Relaxed);
    }

    /// Found something. Returns true if this was the last one looking: then the caller looks whether
    /// there is more, and calls `notify` if so.
    pub(crate) fn stop_searching_with_work(&self) -> bool {
        // Ordering: Relaxed, then a SeqCst fence that pairs with the one in `notify`: either a bringer
        // of work sees that we do not search any more, or we see its work when we look.
        let last = self.searching.fetch_sub(1, Ordering::Relaxed) == 1;
        fence(Ordering::SeqCst);
        last
    }

    /// Step 2 of going to sleep: enters the list of sleepers. Whoever finds the worker there finds it
    /// announced, and so cannot fail to wake it.
    pub(crate) fn enter(&self, shared: &'static Shared) {
        {
            let mut list = self.list.lock();
            list.push(shared);
            // Ordering: Relaxed. Changed under the list's lock, published by the fence.
            self.sleeping.fetch_add(1, Ordering::Relaxed);
        }
        // Ordering: SeqCst fence, pairs with the one in `notify`: either it sees a sleeper, or we see its
        // work when we look again.
        fence(Ordering::SeqCst);
    }

    /// Leaves the list, and counts as searching, as one does whom `notify` has taken out: a worker that
    /// saw work at its last look may not be the only one that is needed.
    pub(crate) fn leave(&self, shared: &'static Shared) {
        let mut list = self.list.lock();
        let place = list.iter().position(|&other| std::ptr::eq(other, shared));
        if let Some(place) = place {
            list.remove(place);
            // Ordering: Relaxed. Changed under the lock.
            self.sleeping.fetch_sub(1, Ordering::Relaxed);
            // Ordering: Relaxed. As in `notify`.
            self.searching.fetch_add(1, Ordering::Relaxed);
        }
    }
}

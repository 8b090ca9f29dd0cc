//! What can be seen of goroutines from outside while the world stands still: for dumps.
//!
//! "The world stands still" means: no thread is attached to the host but the caller's, and none can become
//! attached. A goroutine or thread that waits may be woken meanwhile, but its waiting call cannot return; so
//! what it waits on is there, and may be looked at (with `try_lock`: somebody unattached may hold a lock).

use crate::clock::Deadline;
use crate::host::Area;
use crate::mutex::Mutex;
use crate::net::Fd;
use crate::rwmutex::RwMutex;
use crate::select::Channels;
use crate::task::Task;
use crate::waiter::WaitReason;
use crate::waitgroup::WaitGroup;
use std::ptr;

/// What a goroutine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not begun.
    NotStarted,
    /// It runs, or is ready to: whether its state is put aside in its [`Area`], the host knows.
    Active,
    /// It was woken, and has not had its turn yet.
    Woken,
    /// It waits.
    Waiting,
}

/// A goroutine as it is seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its number.
    pub id: u64,
    /// What it does.
    pub standing: Standing,
    /// What it waits for, if it does.
    pub reason: WaitReason,
    /// On which object: an address, 0 if none. See [`objects`].
    pub object: usize,
    /// Whether that wait has a time limit.
    pub timed: bool,
    /// Since when, on the coarse clock.
    pub since: Deadline,
    /// What its host put aside; null if it has no stack.
    pub area: *mut Area,
    /// The number of the worker that runs it or ran it last, counted from 0; None before it has started.
    pub worker: Option<usize>,
    /// Whether it has locked itself to its thread.
    pub locked: bool,
}

impl Task {
    /// Looks at the goroutine.
    ///
    /// # Safety
    /// The world stands still (see the module), and the goroutine has not ended.
    #[must_use]
    pub unsafe fn look(&self) -> Seen {
        let reason = self.reason();
        let standing = match (self.has_started(), reason, self.waiter().is_unclaimed()) {
            (false, ..) => Standing::NotStarted,
            (_, WaitReason::None, _) => Standing::Active,
            (_, _, false) => Standing::Woken,
            _ => Standing::Waiting,
        };
        let (object, since) = self.waits_on();
        let fiber = self.fiber();
        // SAFETY: a started task's fiber lives until its end, and its worker stands still.
        let area = unsafe { fiber.as_ref() }.map_or(ptr::null_mut(), |fiber| fiber.area());
        // SAFETY: null, or a worker's part that others see, which is never freed.
        let worker = unsafe { self.home().as_ref() }.map(|home| home.index);
        Seen {
            id: self.id(),
            standing,
            reason,
            object,
            timed: self.is_timed(),
            since: Deadline(since),
            area,
            worker,
            locked: self.locked.get() > 0,
        }
    }
}

/// The objects that a wait for `reason` at `object` waits on: channels for a select, else the one.
///
/// # Safety
/// Both are of a wait that was seen since the world stands still.
#[must_use]
pub unsafe fn objects(reason: WaitReason, object: usize) -> Vec<usize> {
    match (reason, object) {
        (_, 0) => Vec::new(),
        (WaitReason::Select, _) => {
            // SAFETY: this reason is given with the `Channels` in the waiting call's frame only.
            let channels = unsafe { &*ptr::with_exposed_provenance::<Channels>(object) };
            channels.list().to_vec()
        }
        _ => vec![object],
    }
}

/// What is known of an object that is waited on.
#[derive(Debug)]
pub struct Described {
    /// In words.
    pub text: String,
    /// The goroutine that holds it up, if one is known: 0 if not.
    pub holder: u64,
}

/// Describes an object that is no channel.
///
/// # Safety
/// As [`objects`], which gave `object`.
#[must_use]
pub unsafe fn describe(reason: WaitReason, object: usize) -> Option<Described> {
    let plain = |text: &str| Some(Described { text: text.into(), holder: 0 });
    let held = |what: &str, holder: u64| {
        let text = if holder == 0 {
            format!("{what} held by a thread")
        } else {
            format!("{what} held by goroutine {holder}")
        };
        Some(Described { text, holder })
    };
    match reason {
        WaitReason::MutexLock => {
            // SAFETY: this reason is given with a Mutex only, which its waiter keeps alive.
            let mutex = unsafe { &*ptr::with_exposed_provenance::<Mutex>(object) };
            if mutex.is_locked() { held("Mutex", mutex.holder()) } else { plain("Mutex") }
        }
        WaitReason::RwMutexRLock | WaitReason::RwMutexLock => {
            // SAFETY: likewise with an RwMutex.
            let mutex = unsafe { &*ptr::with_exposed_provenance::<RwMutex>(object) };
            match mutex.holders() {
                Some((0, Some(writer))) => held("RWMutex", writer),
                Some((1, None)) => plain("RWMutex held by a reader"),
                Some((readers, None)) => plain(&format!("RWMutex held by {readers} readers")),
                _ => plain("RWMutex"),
            }
        }
        WaitReason::WaitGroupWait => {
            // SAFETY: likewise with a WaitGroup.
            let group = unsafe { &*ptr::with_exposed_provenance::<WaitGroup>(object) };
            plain(&format!("WaitGroup with {} to be done", group.count()))
        }
        WaitReason::NetRead | WaitReason::NetWrite => {
            // SAFETY: likewise with a descriptor's place, which is never freed.
            let place = unsafe { &*ptr::with_exposed_provenance::<Fd>(object) };
            plain(&format!("descriptor {}", place.number()))
        }
        WaitReason::CondWait => plain("Cond"),
        WaitReason::SemaphoreAcquire => plain("Semaphore"),
        WaitReason::EventWait => plain("Event"),
        WaitReason::BarrierWait => plain("Barrier"),
        _ => None,
    }
}

//! The host: what the runtime needs to know of the interpreter it lives in, and no more.
//!
//! A host keeps state per OS thread ("attached": may run the interpreter) and per goroutine (what must be
//! put aside when another goroutine runs on the same thread). The runtime calls it at the moments below,
//! and never while holding a lock.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Room for what a host puts aside of one goroutine; lives on the goroutine's own stack.
#[repr(C, align(16))]
pub struct Area(pub [MaybeUninit<u8>; AREA_SIZE]);

/// Size of an [`Area`], in bytes.
pub const AREA_SIZE: usize = 384;

/// The memory of a goroutine, as its host may want to know it.
#[derive(Clone, Copy, Debug)]
pub struct StackBounds {
    /// Lowest usable address (the guard page ends here).
    pub low: usize,
    /// Where the stack begins; it grows down from here.
    pub base: usize,
    /// End of the part above `base`, which is the host's own to use.
    pub end: usize,
}

/// The interpreter, as the runtime sees it.
pub trait Host: Sync {
    /// This thread is about to sleep: let go of the interpreter. Returns what `attach` needs.
    fn detach(&self) -> usize;
    /// This thread has slept: take hold of the interpreter again.
    fn attach(&self, state: usize);
    /// A signal interrupted this (detached) thread's sleep. Runs what handlers there are and returns
    /// whether one raised; the thread is detached again on return.
    fn signalled(&self, state: usize) -> bool;
    /// Nobody can go on, and this (detached) thread is to hear of it: whether the host lets it. A host that knows of
    /// something else that could still happen says no. Detached again on return.
    ///
    /// None: a signal handler has raised meanwhile, and what it raised is pending, as after `signalled`.
    fn may_deadlock(&self, _state: usize) -> Option<bool> {
        Some(false)
    }
    /// Nobody can go on: raises that in this (detached) thread, as a signal handler would. Detached again on return.
    fn deadlocked(&self, _state: usize) {}
    /// A new worker thread has started: attaches it and calls `run`, which never returns, with a number other than 0
    /// that the functions below will know the thread by.
    fn worker(&self, run: &mut dyn FnMut(usize));
    /// Whether the goroutine that runs on that worker is in a call that has let go of the interpreter. When in doubt,
    /// no. Called with a lock held, from a thread that is not attached: only looks.
    fn is_out(&self, worker: usize) -> bool;
    /// Sees to it that the goroutine that runs on that worker soon looks at [`is_asked`](crate::is_asked), and
    /// gives way if that says so; if possible. Called the `times`-th time for the same turn of it, by one thread that is
    /// not attached.
    fn interrupt(&self, worker: usize, times: u32);
    /// No goroutine is to be interrupted any more; called as `interrupt` is.
    fn interrupt_nobody(&self);
    /// Goroutine number `goroutine` has held that worker for `held_ns` while others waited. Called as `interrupt` is.
    fn warn_held(&self, worker: usize, goroutine: u64, held_ns: u64);
    /// A goroutine is about to run for the first time on this thread.
    ///
    /// # Safety
    /// `area` stays in place until `leave`, and `stack` is the stack that this call runs on.
    unsafe fn enter(&self, area: *mut Area, stack: StackBounds);
    /// The goroutine of `area` has ended; the thread is back in its base state.
    ///
    /// # Safety
    /// `area` was given to `enter` on this thread, and its goroutine is the running one.
    unsafe fn leave(&self, area: *mut Area);
    /// The running goroutine is about to be put aside; the thread is back in its base state.
    ///
    /// # Safety
    /// As `leave`.
    unsafe fn save(&self, area: *mut Area);
    /// The goroutine of `area` goes on.
    ///
    /// # Safety
    /// `area` was filled by `save` on this thread, and no goroutine is running here.
    unsafe fn restore(&self, area: *mut Area);
    /// The goroutine that forked has come to its end in the forked child: end the process as a thread that
    /// was the last one would.
    fn forked_goroutine_ended(&self) -> !;
    /// A goroutine's body panicked: our bug. Reports it; the goroutine ends.
    fn panicked(&self, message: &str);
}

/// A host for programs without an interpreter: Rust tests, benches.
#[derive(Debug)]
pub struct PlainHost;

impl Host for PlainHost {
    fn detach(&self) -> usize {
        0
    }
    fn attach(&self, _state: usize) {}
    fn signalled(&self, _state: usize) -> bool {
        false
    }
    fn worker(&self, run: &mut dyn FnMut(usize)) {
        run(1);
    }
    fn is_out(&self, _worker: usize) -> bool {
        false
    }
    fn interrupt(&self, _worker: usize, _times: u32) {}
    fn interrupt_nobody(&self) {}
    fn warn_held(&self, _worker: usize, goroutine: u64, held_ns: u64) {
        eprintln!("goslings: goroutine {goroutine} has held its worker for {} ms", held_ns / 1_000_000);
    }
    unsafe fn enter(&self, _area: *mut Area, _stack: StackBounds) {}
    unsafe fn leave(&self, _area: *mut Area) {}
    unsafe fn save(&self, _area: *mut Area) {}
    unsafe fn restore(&self, _area: *mut Area) {}
    fn forked_goroutine_ended(&self) -> ! {
        std::process::exit(0)
    }
    fn panicked(&self, message: &str) {
        eprintln!("goslings: a goroutine panicked: {message}");
    }
}

static HOST: OnceLock<&'static dyn Host> = OnceLock::new();

/// Names the host, once per process, before the first goroutine starts. Returns false if one was named.
pub fn set_host(host: &'static dyn Host) -> bool {
    HOST.set(host).is_ok()
}

#[inline]
pub(crate) fn host() -> &'static dyn Host {
    match HOST.get() {
        Some(host) => *host,
        None => &PlainHost,
    }
}

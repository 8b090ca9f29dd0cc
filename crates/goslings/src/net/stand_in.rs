//! In place of `poll.rs` under loom and Miri, which know no pollers: one whose descriptors are never ready. What is left is
//! the ring, by which a worker that sleeps in its poller is woken.

use crate::futex;
use crate::sched::Runtime;
use crate::sync::{AtomicU32, Ordering};
use std::io;

pub(crate) struct NetPoll {
    rung: AtomicU32,
    awaited: AtomicU32,
}

pub(crate) struct Awaited(&'static NetPoll);

impl Drop for Awaited {
    fn drop(&mut self) {
        // Ordering: Relaxed. As in `poll.rs`.
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NetPoll {
    pub(crate) fn new(_runtime: &'static Runtime) -> io::Result<&'static NetPoll> {
        Ok(Self::alone())
    }

    /// One that belongs to no runtime.
    pub(crate) fn alone() -> &'static NetPoll {
        Box::leak(Box::new(NetPoll { rung: AtomicU32::new(0), awaited: AtomicU32::new(0) }))
    }

    pub(super) fn add(&self, _fd: i32, _number: u32, _wanted: (bool, bool)) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn change(&self, _fd: i32, _number: u32, _wanted: (bool, bool)) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn await_one(&'static self) -> Awaited {
        // Ordering: Relaxed. As in `poll.rs`.
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Awaited(self)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        // Ordering: Relaxed. As in `poll.rs`.
        self.awaited.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn ring(&self) {
        // Ordering: Release pairs with the Acquire in `sleep`. It adds, as a write to an eventfd does.
        self.rung.fetch_add(1, Ordering::Release);
        futex::wake(&raw const self.rung);
    }

    pub(crate) fn look(&self) -> bool {
        false
    }

    pub(crate) fn look_instead(&self) -> bool {
        false
    }

    pub(crate) fn sleep(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `ring`.
        while self.rung.swap(0, Ordering::Acquire) == 0 {
            futex::wait(&self.rung, 0, None);
        }
        false
    }

    pub(super) fn look_for_ever(&self) -> ! {
        loop {
            self.sleep();
        }
    }
}

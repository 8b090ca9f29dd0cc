//! A stack with a coroutine on it that runs one goroutine after another.
//!
//! **Invariants**
//! * A fiber is created, resumed and dropped by one worker thread; it never changes threads.
//! * Between goroutines it is suspended at the bottom of its loop, where nothing on its stack needs a
//!   destructor: so it may be reset without unwinding. A fiber suspended inside a goroutine is never
//!   dropped (its frames may belong to a foreign interpreter): it is abandoned.

use super::Task;
use super::stack::{self, OutOfStacks, TaskStack};
use crate::host::{AREA_SIZE, Area, StackBounds, host};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Why a fiber gave the thread back to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Its goroutine waits; whoever wakes it queues it.
    Parked,
    /// Its goroutine wants to go on after the others.
    Yielded,
    /// Its goroutine has ended; the fiber is free.
    Done,
}

type Start = *const Task;

pub(crate) struct Fiber {
    coroutine: Option<Coroutine<Start, Switch, (), TaskStack>>,
    bounds: StackBounds,
    /// Both live in the coroutine's root frame, from the first resume on.
    yielder: Cell<*const Yielder<Start, Switch>>,
    area: Cell<*mut Area>,
}

impl Fiber {
    pub(crate) fn new() -> Result<Box<Fiber>, OutOfStacks> {
        let stack = stack::allocate()?;
        let bounds = stack.bounds();
        let mut fiber = Box::new(Fiber {
            coroutine: None,
            bounds,
            yielder: Cell::new(ptr::null()),
            area: Cell::new(ptr::null_mut()),
        });
        // The box does not move, and outlives its coroutine: the root loop may keep the address.
        let address = ptr::from_ref::<Fiber>(&fiber);
        fiber.coroutine = Some(Coroutine::with_stack(stack, move |yielder, first| {
            root(address, yielder, first);
        }));
        Ok(fiber)
    }

    /// What the host has put aside of its goroutine.
    pub(crate) fn area(&self) -> *mut Area {
        self.area.get()
    }

    /// Runs the goroutine on this fiber (`task` is only looked at if the fiber is free) until it waits,
    /// yields or ends.
    #[inline(always)]
    pub(crate) fn resume(&mut self, task: *const Task) -> Switch {
        let coroutine = self.coroutine.as_mut().expect("a fiber in use has its coroutine");
        match coroutine.resume(task) {
            CoroutineResult::Yield(why) => why,
            CoroutineResult::Return(()) => unreachable!("a fiber's root loop does not end"),
        }
    }

    /// Gives the thread back to the worker, from inside the goroutine that runs on this fiber.
    ///
    /// # Safety
    /// `this` is the fiber that this very code runs on.
    #[inline(always)]
    pub(crate) unsafe fn switch_out(this: *const Fiber, why: Switch) {
        // SAFETY: a running fiber is alive, and its root frame has set both cells.
        let (yielder, area) = unsafe { ((*this).yielder.get(), (*this).area.get()) };
        // SAFETY: the area belongs to the running goroutine (Host::save's contract).
        unsafe { host().save(area) };
        // SAFETY: the yielder lives in the root frame below us.
        unsafe { (*yielder).suspend(why) };
        // SAFETY: the worker resumed us on our own thread, with no goroutine running.
        unsafe { host().restore(area) };
    }

    /// Ends a free fiber and recycles its stack.
    #[expect(clippy::boxed_local, reason = "its coroutine knows the address of the box")]
    pub(crate) fn dismiss(mut self: Box<Self>) {
        if let Some(mut coroutine) = self.coroutine.take() {
            // SAFETY: the fiber is free, so it is suspended in its root loop, whose frame holds nothing
            // that needs a destructor (or it has never run at all, which reset would leak nothing of:
            // its closure holds one address).
            unsafe { coroutine.force_reset() };
            stack::release(coroutine.into_stack());
        }
    }

    /// Gives back memory that a deep goroutine has touched. Only for a free fiber.
    pub(crate) fn trim(&self) {
        stack::trim(self.bounds);
    }
}

fn root(fiber: *const Fiber, yielder: &Yielder<Start, Switch>, first: Start) {
    let mut area = Area([MaybeUninit::uninit(); AREA_SIZE]);
    let area = &raw mut area;
    // SAFETY: the box holds the fiber in place as long as its coroutine exists.
    let this = unsafe { &*fiber };
    this.yielder.set(yielder);
    this.area.set(area);
    let mut task = first;
    loop {
        // SAFETY: `area` and the stack are this fiber's own; `leave` follows below.
        unsafe { host().enter(area, this.bounds) };
        run(task);
        // SAFETY: entered above, and its goroutine has just ended.
        unsafe { host().leave(area) };
        task = yielder.suspend(Switch::Done);
    }
}

#[inline(never)]
fn run(task: Start) {
    // SAFETY: the worker holds a reference to the task it runs, and the queue's right to its job.
    let job = unsafe { (*task).take_job() };
    let Some(job) = job else { return };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.run())) {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        host().panicked(text);
    }
}

//! For models: a number that loom watches. Touching it from two threads without a happens-before edge
//! between them is a reported race.

use loom::cell::UnsafeCell;

#[derive(Debug, Default)]
pub(crate) struct Watched(UnsafeCell<u32>);

// SAFETY: loom checks every access, which is what this type is for.
unsafe impl Sync for Watched {}

impl Watched {
    pub(crate) fn new(number: u32) -> Watched {
        Watched(UnsafeCell::new(number))
    }

    pub(crate) fn set(&self, number: u32) {
        self.0.with_mut(|place| {
            // SAFETY: loom has just checked that nobody else is here.
            unsafe { *place = number }
        });
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.with(|place| {
            // SAFETY: loom has just checked that nobody writes here.
            unsafe { *place }
        })
    }
}

//! Numbers in shared memory, changed in one step: what `Value` and `Array` are made of.

use crate::Segment;
use crate::sync::AtomicU64;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

/// An atomic type that may lie in shared memory: valid whatever its bytes are.
pub trait Cell: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! cells {
    ($($cell:ty),*) => { $(impl sealed::Sealed for $cell {} impl Cell for $cell {})* };
}
cells!(AtomicU8, AtomicU16, AtomicU32, AtomicU64);

impl Segment {
    /// The cell at byte `at`. None: it would not lie within the segment, or not at a multiple of its size, or the memory cannot
    /// be written here.
    #[must_use]
    pub fn cell<C: Cell>(&self, at: usize) -> Option<&C> {
        let size = size_of::<C>();
        if !self.is_writable() || !at.is_multiple_of(size) || at.checked_add(size)? > self.len() {
            return None;
        }
        // SAFETY: within the mapping, as was just looked at, which begins at a page.
        let cell = unsafe { self.as_ptr().add(at) }.cast::<C>();
        // SAFETY: aligned, in place as long as `self`, and valid whatever its bytes are; everybody changes it atomically, or
        // through the interpreter's own plain stores, which are one instruction for what is aligned.
        Some(unsafe { &*cell })
    }
}

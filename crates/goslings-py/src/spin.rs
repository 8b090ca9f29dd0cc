//! Looking again and again for something that another process does, before sleeping or asking for it.

use crate::host::detached;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long: longer than the other side needs to wake up and answer, or two sides that have once slept would never find out
/// that they need not.
const SPIN: Duration = Duration::from_micros(50);
/// After so many looks in vain one after another only one in [`PROBE`] waits begins with a look: the other side takes longer,
/// or has no processor to run on, perhaps because of us.
const VAIN: u32 = 3;
/// See [`VAIN`].
const PROBE: u32 = 16;
/// How many looks there are between two looks at the clock.
const LOOKS: u32 = 32;

/// Whether that has been worth while: how many waits in a row have not ended with a look.
#[derive(Debug, Default)]
pub(crate) struct Spin(AtomicU32);

impl Spin {
    /// Looks for a while, detached, if that is worth while. Whether it came.
    pub(crate) fn until(&self, py: Python<'_>, came: impl Fn() -> bool) -> bool {
        // Ordering: Relaxed. A count for a guess.
        let vain = self.0.load(Ordering::Relaxed);
        let found = (vain < VAIN || vain.is_multiple_of(PROBE)) && detached(py, || comes_soon(came));
        // Ordering: Relaxed. As above.
        self.0.store(if found { 0 } else { vain.wrapping_add(1) }, Ordering::Relaxed);
        found
    }
}

fn comes_soon(came: impl Fn() -> bool) -> bool {
    let until = Instant::now() + SPIN;
    loop {
        for _ in 0..LOOKS {
            if came() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

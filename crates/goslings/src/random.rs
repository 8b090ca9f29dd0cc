//! A small random source for choices that must be fair, not secret: which ready case, whom to rob.
//!
//! In a bubble it is the bubble's own, so that a run can be repeated from its seed.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

crate::sync::per_thread! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// A number below `bound`, uniform up to a bias of `bound` in 2^32.
pub(crate) fn below(bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
    (((next() >> 32) * bound) >> 32) as usize
}

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mix per number.
fn next() -> u64 {
    if let Some(number) = crate::bubble::random() {
        return number;
    }
    STATE.with(|state| {
        let mut seed = state.get();
        if seed == 0 {
            seed = asked_for().unwrap_or_else(|| crate::sync::chance(std::ptr::from_ref(state).addr()));
        }
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(seed);
        mix(seed)
    })
}

/// The mix of SplitMix64: makes numbers that look random of numbers that do not.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Where a thread starts if the environment names a seed: another place for each thread, in the order in which
/// they first choose.
fn asked_for() -> Option<u64> {
    static SEED: OnceLock<Option<u64>> = OnceLock::new();
    static THREADS: AtomicU64 = AtomicU64::new(1);
    let seed = (*SEED.get_or_init(|| std::env::var("GOSLINGS_SEED").ok()?.parse().ok()))?;
    // Ordering: Relaxed. Only uniqueness matters.
    Some(mix(seed ^ mix(THREADS.fetch_add(1, Ordering::Relaxed))))
}

/// Puts `items` in random order (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}

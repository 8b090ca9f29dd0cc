//! What a model checker has to see, chosen here only: std's, or loom's under `cfg(loom)`.
//!
//! Atomics, locks and thread-locals of what the models check (waiter words, the inbox, the idle protocol,
//! the objects) come from here. Process-wide statics stay std atomics: loom's cannot be made in a `const`.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::sync::MutexGuard as RawGuard;
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, fence};
    pub(crate) use std::thread_local as per_thread;

    #[expect(clippy::disallowed_types, reason = "the one place that may name it; lock.rs wraps it in a rank")]
    pub(crate) type RawMutex<T> = std::sync::Mutex<T>;

    /// A number to start a thread's random choices from, made of the time and of where something is.
    pub(crate) fn chance(address: usize) -> u64 {
        crate::clock::now().0 ^ (address as u64).rotate_left(32)
    }
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, fence};
    pub(crate) use loom::sync::{Mutex as RawMutex, MutexGuard as RawGuard};

    /// Loom's does not know `const` blocks.
    macro_rules! per_thread {
        ($(#[$meta:meta])* static $name:ident: $type:ty = const { $value:expr };) => {
            loom::thread_local! { $(#[$meta])* static $name: $type = $value; }
        };
    }
    pub(crate) use per_thread;

    /// Models leave nothing to chance.
    pub(crate) fn chance(_address: usize) -> u64 {
        1
    }

    /// Explores `body`, to two preemptions unless `LOOM_MAX_PREEMPTIONS` says otherwise. Each call of
    /// `clock::now` advances the time by `tick` nanoseconds.
    #[cfg(test)]
    pub(crate) fn model(tick: u64, body: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.check(move || {
            crate::clock::restart(tick);
            body();
        });
    }
}

pub(crate) use chosen::*;
pub(crate) use std::sync::atomic::Ordering;

//! What a model checker has to see, chosen here only: std's, or loom's under `cfg(loom)`.
//!
//! Atomics, locks and thread-locals of what the models check (waiter words, the inbox, the idle protocol,
//! the objects) come from here. Process-wide statics stay std atomics: loom's cannot be made in a `const`.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::sync::MutexGuard as RawGuard;
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, fence};
    pub(crate) use std::thread_local;

    #[expect(clippy::disallowed_types, reason = "the one place that may name it; lock.rs wraps it in a rank")]
    pub(crate) type RawMutex<T> = std::sync::Mutex<T>;
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, fence};
    pub(crate) use loom::sync::{Mutex as RawMutex, MutexGuard as RawGuard};
    pub(crate) use loom::thread_local;

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

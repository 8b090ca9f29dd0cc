//! The atomics of the runtime, chosen here only: std's, or loom's under `cfg(loom)`.
//!
//! What a model checks (waiter words, the inbox, the idle protocol, the lock) takes its atomics from
//! here. Process-wide statics stay std atomics: loom's cannot be made in a `const`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, fence};

pub(crate) use std::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex as RawMutex, MutexGuard as RawGuard};
#[cfg(not(loom))]
#[expect(clippy::disallowed_types, reason = "the one place that may name it; lock.rs wraps it in a rank")]
pub(crate) type RawMutex<T> = std::sync::Mutex<T>;
#[cfg(not(loom))]
pub(crate) use std::sync::MutexGuard as RawGuard;

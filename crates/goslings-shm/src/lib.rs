//! Memory that several processes share: segments, rings of messages, and what wakes whoever waits for them. It knows neither
//! Python nor the runtime: nothing here waits, but what says so; whoever calls waits as it likes.
//!
//! Where is what: `segment.rs` memory and its descriptor; `ring.rs` messages in one direction;
//! `spares.rs` the memory of long messages; `socket.rs` descriptors and
//! bells; `link.rs` both directions together; `futex.rs` sleeping on a shared word; `lock.rs` and `cells.rs` what `Value` and
//! `Array` need; `plain.rs` values that need no pickle.
//!
//! **What comes from the other side is not trusted.** Each length, offset and number in shared memory is read once, checked,
//! and used from the copy. Shared memory is touched through atomics, so that whatever the other side does meanwhile is a wrong
//! value and no undefined behaviour. What does not fit is [`Garbage`].

#![cfg_attr(loom, allow(dead_code, reason = "models use the ring without a link"))]

// The audit list: every module that needs unsafe code, and why. The others cannot contain any.
#[cfg(not(loom))]
mod available;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "atomics in a mapping")]
mod cells;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "descriptors whose owners are elsewhere")]
mod forks;
#[cfg(not(loom))]
mod futex;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "half of a word")]
mod lock;
mod plain;
#[expect(unsafe_code, reason = "copies from memory of the caller's")]
mod ring;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "mappings")]
mod segment;
#[cfg(not(loom))]
mod socket;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "mappings, and leases on files")]
mod spares;
mod sync;

#[cfg(not(loom))]
pub use cells::Cell;
#[cfg(not(loom))]
pub use forks::{Watched, generation};
#[cfg(not(loom))]
pub use futex::{Slept, ping_pong, sleep, wake};
#[cfg(not(loom))]
pub use link::{Body, INLINE_MAX, LinkError, Message, Receiver, Sender, pair};
#[cfg(not(loom))]
pub use lock::Lock;
pub use plain::Plain;
pub use ring::{Garbage, Source};
#[cfg(not(loom))]
pub use segment::{Mapped, Segment};
#[cfg(not(loom))]
pub use socket::{Came, FDS_MAX, recv as recv_with_fds, send as send_with_fds};
#[cfg(not(loom))]
pub use spares::Spares;

/// To be called in a forked child, which has one thread, before anything of this crate is used there.
#[cfg(not(loom))]
pub fn after_fork_child() {
    lock::after_fork_child();
    forks::after_fork_child();
}

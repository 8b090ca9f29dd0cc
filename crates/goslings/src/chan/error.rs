//! Why a channel operation did not happen. A failed send gives its value back.

use std::fmt;

/// Why a blocking send ended without sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendErrorKind {
    /// The channel is closed, or was closed while waiting.
    Closed,
    /// The time was up.
    TimedOut,
    /// The goroutine was cancelled.
    Cancelled,
    /// A signal handler raised in this thread. `value` is None if the value had been taken already.
    Interrupted,
}

/// A send that did not happen.
#[derive(Debug)]
pub struct SendError<T> {
    /// Why.
    pub kind: SendErrorKind,
    /// The value, not delivered (see [`SendErrorKind::Interrupted`] for the exception).
    pub value: Option<T>,
}

/// Why a blocking receive ended without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The channel is closed and drained.
    Closed,
    /// The time was up.
    TimedOut,
    /// The goroutine was cancelled.
    Cancelled,
    /// A signal handler raised in this thread; nothing was received.
    Interrupted,
}

/// A [`try_send`](super::Chan::try_send) that did not happen.
#[derive(Debug)]
pub enum TrySendError<T> {
    /// Nobody is waiting and there is no room.
    Full(T),
    /// The channel is closed.
    Closed(T),
}

/// Why [`try_recv`](super::Chan::try_recv) has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there, and the channel is open.
    Empty,
    /// The channel is closed and drained.
    Closed,
}

/// The channel was closed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseError;

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SendErrorKind::Closed => "send on closed channel",
            SendErrorKind::TimedOut => "send timed out",
            SendErrorKind::Cancelled => "goroutine cancelled in send",
            SendErrorKind::Interrupted => "send interrupted by a signal",
        })
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecvError::Closed => "receive on closed channel",
            RecvError::TimedOut => "receive timed out",
            RecvError::Cancelled => "goroutine cancelled in receive",
            RecvError::Interrupted => "receive interrupted by a signal",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "send would block",
            TrySendError::Closed(_) => "send on closed channel",
        })
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "receive would block",
            TryRecvError::Closed => "receive on closed channel",
        })
    }
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("close of closed channel")
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}
impl std::error::Error for RecvError {}
impl<T: fmt::Debug> std::error::Error for TrySendError<T> {}
impl std::error::Error for TryRecvError {}
impl std::error::Error for CloseError {}

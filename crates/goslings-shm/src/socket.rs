//! What goes over the socket between two processes: descriptors, and single bytes that wake (bells). No call waits.
//!
//! A process that has no descriptors left loses those that come: the system closes them. So a link looks at what has come first
//! (`look`), which gives descriptors as well, and takes it away when it has all of them (`take`): what it has not got stays
//! where it is. For the long messages that a full table would keep out, some descriptors are held in reserve.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many descriptors one message can carry; the system allows 253, and one is ours.
pub const FDS_MAX: usize = 252;

/// What has come.
#[derive(Debug)]
pub struct Came {
    /// How many bytes; 0 at the end.
    pub bytes: usize,
    /// The descriptors of one message of the other side, at most: the system does not join those of two.
    pub fds: Vec<OwnedFd>,
    /// Whether some were lost on the way: this process may have no more.
    pub lost: bool,
}

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Sends one byte, which says nothing. Whether the other side still is there; if the socket is full, it has enough to wake
/// from.
pub(crate) fn ring(socket: BorrowedFd<'_>) -> bool {
    loop {
        match rustix::net::send(socket, &[0], SEND) {
            Ok(_) | Err(Errno::AGAIN) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Sends `bytes` together with descriptors: all or nothing, if there are few bytes.
///
/// # Errors
/// The system's.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SEND) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Receives what there is, at most `into`, and at most the descriptors of one message.
///
/// # Errors
/// The system's.
pub fn recv(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<Came, Errno> {
    receive(socket, into, RecvFlags::empty())
}

/// The same, but it stays where it is; the descriptors are there again for the next who looks. If some are lost, those that
/// are held in reserve are used as well.
///
/// # Errors
/// The system's.
pub(crate) fn look(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<Came, Errno> {
    let came = receive(socket, into, RecvFlags::PEEK)?;
    if !came.lost {
        // Ordering: Relaxed. A hint: whoever misses it leaves it to the next.
        if LENT.load(Ordering::Relaxed) {
            keep_reserve();
        }
        return Ok(came);
    }
    drop(came);
    // Ordering: Relaxed. As above.
    LENT.store(true, Ordering::Relaxed);
    let reserve = std::mem::take(&mut *reserved());
    drop(reserve);
    let came = receive(socket, into, RecvFlags::PEEK)?;
    if came.lost {
        let Came { bytes, fds, lost } = came;
        drop(fds);
        keep_reserve();
        return Ok(Came { bytes, fds: Vec::new(), lost });
    }
    Ok(came)
}

/// Takes away so many bytes that were looked at, and the descriptors with them.
///
/// # Errors
/// The system's.
pub(crate) fn take(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *bytes, RecvFlags::DONTWAIT))?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, into: &mut [u8], how: RecvFlags) -> Result<Came, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | how;
    let came = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let lost = came.flags.contains(ReturnFlags::CTRUNC);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    Ok(Came { bytes: came.bytes, fds, lost })
}

/// So many descriptors are held in reserve: a long message needs one, and some have their own.
const RESERVE: usize = 4;

#[expect(clippy::disallowed_types, reason = "a leaf lock, held for moves and calls that do not wait")]
static RESERVED: std::sync::Mutex<Vec<OwnedFd>> = std::sync::Mutex::new(Vec::new());

/// Whether some of the reserve may be in use.
static LENT: AtomicBool = AtomicBool::new(false);

fn reserved() -> std::sync::MutexGuard<'static, Vec<OwnedFd>> {
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills the reserve, as far as that can be had.
pub(crate) fn keep_reserve() {
    let mut reserve = reserved();
    while reserve.len() < RESERVE {
        match rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(null) => reserve.push(null),
            Err(_) => return,
        }
    }
    // Ordering: Relaxed. As in `look`.
    LENT.store(false, Ordering::Relaxed);
}

//! What goes over the socket between two processes: descriptors, and single bytes that wake (bells). No call waits.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT.union(RecvFlags::CMSG_CLOEXEC);
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

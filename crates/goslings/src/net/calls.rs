//! The system calls on descriptors that never wait: they fail with `WouldBlock` instead.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Where bytes go, or come from: memory of the host's, which others may change meanwhile, as with any thread.
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    start: *mut u8,
    len: usize,
}

// SAFETY: by the contract of `new` the memory may be used from any thread.
unsafe impl Send for Bytes {}

impl Bytes {
    /// `len` bytes at `start`.
    ///
    /// # Safety
    /// The memory stays in place until the last call that is given this has returned. If it is only sent from, it need
    /// not be writable.
    #[must_use]
    pub unsafe fn new(start: *mut u8, len: usize) -> Bytes {
        Bytes { start, len }
    }

    /// Those of a slice, which the caller has for itself until the last call that is given this.
    #[must_use]
    pub fn of(slice: &mut [u8]) -> Bytes {
        Bytes { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// Copies `from` to their beginning, as much as fits.
    pub fn fill(self, from: &[u8]) {
        // SAFETY: writable for so many bytes; an overlap is allowed.
        unsafe { std::ptr::copy(from.as_ptr(), self.start, from.len().min(self.len)) };
    }

    /// A copy.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        // SAFETY: readable for so many bytes.
        unsafe { std::ptr::copy(self.start, copy.as_mut_ptr(), self.len) };
        copy
    }

    /// What is left without the first `count`.
    #[must_use]
    pub fn after(self, count: usize) -> Bytes {
        let count = count.min(self.len);
        // SAFETY: not beyond the end.
        Bytes { start: unsafe { self.start.add(count) }, len: self.len - count }
    }

    /// At most the first `count`.
    #[must_use]
    pub fn first(self, count: usize) -> Bytes {
        Bytes { len: self.len.min(count), ..self }
    }

    /// How many they are.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

fn count(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

#[cfg(target_os = "linux")]
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT;

/// Receives from a socket.
///
/// # Errors
/// The system's.
pub fn recv(fd: i32, into: Bytes, flags: i32) -> io::Result<usize> {
    // SAFETY: memory that is writable for so many bytes.
    count(unsafe { libc::recv(fd, into.start.cast(), into.len, flags | libc::MSG_DONTWAIT) })
}

/// Sends on a socket.
///
/// # Errors
/// The system's.
pub fn send(fd: i32, from: Bytes, flags: i32) -> io::Result<usize> {
    // SAFETY: memory that is readable for so many bytes.
    count(unsafe { libc::send(fd, from.start.cast(), from.len, flags | SEND_FLAGS) })
}

/// Reads, if there is something to read.
///
/// # Errors
/// The system's.
pub fn read(fd: i32, into: Bytes) -> io::Result<usize> {
    would_block_unless(fd, super::Direction::Read)?;
    // SAFETY: memory that is writable for so many bytes.
    count(unsafe { libc::read(fd, into.start.cast(), into.len) })
}

/// Writes what there is room for. If the descriptor is one that blocks, no more than a pipe with room takes for sure.
///
/// # Errors
/// The system's.
pub fn write(fd: i32, from: Bytes) -> io::Result<usize> {
    would_block_unless(fd, super::Direction::Write)?;
    let from = if blocks(fd)? { from.first(libc::PIPE_BUF) } else { from };
    // SAFETY: memory that is readable for so many bytes.
    count(unsafe { libc::write(fd, from.start.cast(), from.len) })
}

fn would_block_unless(fd: i32, direction: super::Direction) -> io::Result<()> {
    match super::is_ready(fd, direction) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
        Err(super::NetError::System(number)) => Err(io::Error::from_raw_os_error(number)),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Whether calls on `fd` wait, as far as its own flag says.
///
/// # Errors
/// The system's.
pub fn blocks(fd: i32) -> io::Result<bool> {
    // SAFETY: takes no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags & libc::O_NONBLOCK == 0) }
}

/// Whether `fd` is a file on a disk, or a disk: these are always ready, and take their time.
///
/// # Errors
/// The system's.
pub fn is_on_disk(fd: i32) -> io::Result<bool> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a place for the answer.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled.
    let mode = unsafe { stat.assume_init() }.st_mode & libc::S_IFMT;
    Ok(mode == libc::S_IFREG || mode == libc::S_IFBLK)
}

/// The address of a socket, as the system has it.
#[derive(Clone, Copy)]
pub struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    fn empty() -> Address {
        // SAFETY: plain numbers, for which zero is a value.
        let storage = unsafe { std::mem::zeroed() };
        Address { storage, len: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    /// Its bytes: a `sockaddr` of whatever family.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = (self.len as usize).min(size_of::<libc::sockaddr_storage>());
        // SAFETY: plain numbers, and not beyond them.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), len) }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("family", &self.storage.ss_family).finish_non_exhaustive()
    }
}

/// Accepts a connection on a socket that does not block; the new one is not inherited, and blocks as `blocks` says.
/// Connections that are gone by now are passed over.
///
/// # Errors
/// The system's.
pub fn accept(fd: i32, blocks: bool) -> io::Result<(OwnedFd, Address)> {
    #[cfg(target_os = "linux")]
    let flags = libc::SOCK_CLOEXEC | if blocks { 0 } else { libc::SOCK_NONBLOCK };
    let mut address = Address::empty();
    loop {
        let (place, len) = ((&raw mut address.storage).cast(), &raw mut address.len);
        #[cfg(target_os = "linux")]
        // SAFETY: places for the answer, and their length.
        let new = unsafe { libc::accept4(fd, place, len, flags) };
        #[cfg(not(target_os = "linux"))]
        // SAFETY: as above; then flags of the new descriptor.
        let new = unsafe {
            let new = libc::accept(fd, place, len);
            if new >= 0 {
                libc::fcntl(new, libc::F_SETFL, if blocks { 0 } else { libc::O_NONBLOCK });
                libc::fcntl(new, libc::F_SETFD, libc::FD_CLOEXEC);
            }
            new
        };
        if new >= 0 {
            // SAFETY: new, and nobody else's.
            return Ok((unsafe { OwnedFd::from_raw_fd(new) }, address));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::ConnectionAborted {
            return Err(error);
        }
        address = Address::empty();
    }
}

/// What an address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Host and port.
    V4(std::net::Ipv4Addr, u16),
    /// Host, port, flow information, scope.
    V6(std::net::Ipv6Addr, u16, u32, u32),
    /// The path of a Unix socket; empty if it has none.
    Path(&'a [u8]),
    /// The name of a Unix socket that is in no directory, with its leading zero.
    Abstract(&'a [u8]),
}

impl Address {
    /// What it says; None for other families.
    #[must_use]
    pub fn parse(&self) -> Option<Parsed<'_>> {
        let start = (&raw const self.storage).cast::<u8>();
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that it is one; the storage is aligned for all.
                let v4 = unsafe { &*start.cast::<libc::sockaddr_in>() };
                let host = std::net::Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(Parsed::V4(host, u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*start.cast::<libc::sockaddr_in6>() };
                let host = std::net::Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(Parsed::V6(
                    host,
                    u16::from_be(v6.sin6_port),
                    u32::from_be(v6.sin6_flowinfo),
                    v6.sin6_scope_id,
                ))
            }
            libc::AF_UNIX => {
                let path = self.bytes().get(std::mem::offset_of!(libc::sockaddr_un, sun_path)..)?;
                if path.first() == Some(&0) {
                    return Some(Parsed::Abstract(path));
                }
                let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                Some(Parsed::Path(&path[..end]))
            }
            _ => None,
        }
    }
}

/// The address of a socket, or of what it is connected to.
///
/// # Errors
/// The system's.
pub fn address_of(fd: i32, peer: bool) -> io::Result<Address> {
    let mut address = Address::empty();
    let (place, len) = ((&raw mut address.storage).cast(), &raw mut address.len);
    let answer = if peer {
        // SAFETY: places for the answer, and their length.
        unsafe { libc::getpeername(fd, place, len) }
    } else {
        // SAFETY: as above.
        unsafe { libc::getsockname(fd, place, len) }
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(address) }
}

/// Ends one direction of a connection, or both: `SHUT_RD`, `SHUT_WR`, `SHUT_RDWR`.
///
/// # Errors
/// The system's.
pub fn shutdown(fd: i32, how: i32) -> io::Result<()> {
    // SAFETY: takes no memory.
    if unsafe { libc::shutdown(fd, how) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the close of a connection forget what was not sent yet, and break the line.
///
/// # Errors
/// The system's.
pub fn reset_at_close(fd: i32) -> io::Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option's value, and its length.
    let answer =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const now).cast(), len) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes to what is always ready: a file on a disk.
///
/// # Errors
/// The system's.
pub fn write_at_once(fd: i32, from: Bytes) -> io::Result<usize> {
    // SAFETY: memory that is readable for so many bytes.
    count(unsafe { libc::write(fd, from.start.cast(), from.len) })
}

fn option(fd: i32, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: a place for a number, and its length.
    let answer = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Has the stream socket `fd` not block any more; whether it is one of TCP.
///
/// # Errors
/// The system's; `EINVAL` if it is no stream socket.
pub fn prepare(fd: i32) -> io::Result<bool> {
    if option(fd, libc::SOL_SOCKET, libc::SO_TYPE)? != libc::SOCK_STREAM {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: takes no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let address = address_of(fd, false)?;
    Ok(matches!(address.parse(), Some(Parsed::V4(..) | Parsed::V6(..))))
}

/// Has a connection send what there is at once: as Go does, and asyncio. If the system refuses, so be it.
pub fn no_delay(fd: &OwnedFd) {
    let on = 1i32;
    // SAFETY: a number, and its length.
    unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(fd),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
}

//! Messages between two processes that have a socket pair: a ring in each direction, descriptors and bells over sockets.
//!
//! Each side makes the ring that it writes, and a second socket pair, whose one end it keeps: that one tells of room. With its
//! first message on the socket, the greeting, it sends the ring's memory and the other end. It need not wait for the other's
//! greeting before it sends. Nothing here waits: who is told to wait (None) waits until the descriptor in question can be read
//! or written, and calls again.
//!
//! ```text
//!   socket   ->  greeting + ring, bell;  then a byte for "there is a record", and the descriptors of messages, in order
//!   bell     <-  a byte for "there is room"
//! ```
//!
//! **Invariants**
//! * The descriptors of a message are on the socket before its record is in the ring: who reads the record finds them.
//! * Descriptors that this process has no room for stay on the socket, and their record in the ring, until it has.
//! * A message is there as a whole or not at all. Whoever dies has sent what it has sent: its end of the socket comes to the
//!   reader as the end, and the reader looks into the ring once more after it.
//! * A message that is longer than [`INLINE_MAX`] lies in a file of its own (`spares.rs`); its record says how long it is, and is longer than
//!   that takes (`weight`).
//! * After garbage nothing is read any more.

use crate::forks::Watched;
use crate::ring::{Consumer, Garbage, Producer, Record, Source, longest};
use crate::segment::{Access, Mapped, RingMemory, Segment};
use crate::socket;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The size of a ring, in bytes: what a second-level cache holds beside other things.
const CAPACITY: usize = 256 * 1024;
/// Longer messages have a file of their own.
pub const INLINE_MAX: usize = longest(CAPACITY);
/// What the greeting says.
const GREETING: &[u8; 8] = b"gosling1";
/// A record's kind: its bytes are the message.
const INLINE: u16 = 1;
/// A record's kind: its bytes are the length of the message, which is in the first descriptor.
const APART: u16 = 2;
/// How many batches of descriptors may have come before their records are read. The system has no room for so many.
const BATCHES_MAX: usize = 4096;
/// So often a writer that never sleeps looks whether the reader is still there, in milliseconds, and a tick of the system.
const LOOK_EVERY: u64 = 1;

/// Why a link does not go on.
#[derive(Debug)]
pub enum LinkError {
    /// The other side has closed, or died; what it had sent is received.
    Ended,
    /// The other side does not follow the rules.
    Garbage(&'static str),
    /// The system's; the link itself may go on.
    System(io::Error),
}

/// The bytes of a message.
#[derive(Debug)]
pub enum Body {
    /// They were copied to where the caller wanted them.
    Copied,
    /// They are the first so many of this memory.
    Apart(Mapped, usize),
    /// They are in this file, and could not be mapped.
    Unmapped(OwnedFd, io::Error),
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// What it says.
    pub body: Body,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    /// None after `close`.
    ring: Option<Producer<RingMemory>>,
    gone: bool,
    /// Somebody has found room, and has not written yet: it is his.
    reserved: bool,
    /// When it was last looked for the reader, in milliseconds.
    looked: u64,
}

/// The number of the processor that this runs on, from 1.
fn processor() -> u32 {
    u32::try_from(rustix::thread::sched_getcpu() + 1).unwrap_or(0)
}

/// Where to ring for the writer.
#[derive(Debug)]
struct Bell {
    // Dropped first.
    _watched: Watched,
    socket: OwnedFd,
}

impl Bell {
    fn ring(&self) {
        // If the writer is gone, the link's own socket tells.
        socket::ring(self.socket.as_fd());
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The ring, and where to ring when there is room again. None until the greeting has come.
    ring: Option<(Consumer<RingMemory>, Bell)>,
    /// Descriptors whose records have not been read.
    batches: VecDeque<Vec<OwnedFd>>,
    /// Whether the writer is to ring.
    asleep: bool,
    ended: bool,
    garbage: Option<&'static str>,
    /// Whether long messages can be written here, and nobody else sees that.
    own: bool,
}

/// How long the record of a message of `len` bytes is. That of a long one takes room in the ring for which it has no use, so that
/// about 16 MiB are on their way at most, or four messages: memory that nobody has asked for yet.
fn weight(len: usize) -> usize {
    if len > INLINE_MAX { (len / 64).clamp(8, INLINE_MAX) } else { len }
}

/// The time, as it was at the last tick of the system: much cheaper than the exact one.
#[inline]
fn milliseconds() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Both ends of a link over `socket`, which is one of a connected pair of stream sockets, and the descriptor that can be read
/// when there may be room for more.
///
/// # Errors
/// The system's.
pub fn pair(socket: BorrowedFd<'_>) -> io::Result<(Sender, Receiver, OwnedFd)> {
    // Complete, before anybody else can see it.
    let (memory, file) = RingMemory::new(CAPACITY)?;
    let ring = Some(Producer::new(memory));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (room, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    socket::send(socket, GREETING, &[file.as_fd(), theirs.as_fd()])?;
    socket::keep_reserve();
    let sender = Sender { ring, gone: false, reserved: false, looked: milliseconds() };
    Ok((sender, Receiver::default(), room))
}

impl Sender {
    /// Whether a message of `len` bytes could be sent now. None: wait until `room` can be read.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn reserve(
        &mut self,
        len: usize,
        socket: BorrowedFd<'_>,
        room: BorrowedFd<'_>,
    ) -> Result<Option<()>, LinkError> {
        let len = weight(len);
        self.look_for_reader(socket)?;
        let found = self.find_room(len, room)?;
        self.reserved = found.is_some();
        Ok(found)
    }

    fn find_room(&mut self, len: usize, room: BorrowedFd<'_>) -> Result<Option<()>, LinkError> {
        let Some(ring) = &mut self.ring else { return self.end() };
        if ring.has_room(len)? {
            return Ok(Some(()));
        }
        let mut rung = [0; 64];
        loop {
            let Some(ring) = &mut self.ring else { return self.end() };
            ring.fall_asleep();
            if ring.has_room(len)? {
                ring.wake_up();
                return Ok(Some(()));
            }
            match rustix::net::recv(room, &mut rung, rustix::net::RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.end(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return self.end(),
            }
        }
    }

    /// Sends the descriptors of the message that comes next. None: wait until `socket` can be written.
    ///
    /// # Errors
    /// [`LinkError`]; nothing was sent then.
    pub fn send_fds(
        &mut self,
        socket: BorrowedFd<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Option<()>, LinkError> {
        if self.ring.is_none() {
            return self.end();
        }
        match socket::send(socket, &[0], fds) {
            Ok(_) => Ok(Some(())),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => self.end(),
            Err(error) => Err(LinkError::System(error.into())),
        }
    }

    /// Sends a message, for which there is room and whose `fds` descriptors have been sent. Of one longer than
    /// [`INLINE_MAX`] the bytes are in the first of these.
    pub fn commit(&mut self, socket: BorrowedFd<'_>, len: usize, parts: &[Source<'_>], fds: usize) {
        let fds = u16::try_from(fds).expect("no more than FDS_MAX descriptors");
        self.reserved = false;
        let Some(ring) = &mut self.ring else { return };
        ring.note_processor(processor());
        if len > INLINE_MAX {
            ring.push(APART, fds, &[Source::from(&(len as u64).to_le_bytes()[..])], weight(len));
        } else {
            ring.push(INLINE, fds, parts, 0);
        }
        if ring.must_ring() {
            self.ring(socket);
        }
    }

    /// Sends a short message without descriptors, if nothing but that is to be done: there is room, which nobody else has
    /// found, and it is not time to look for the reader. None: it was not sent, `reserve` says why. Else whether the reader
    /// sleeps: then `ring` is to be called.
    #[inline]
    pub fn put(&mut self, len: usize, parts: &[Source<'_>]) -> Option<bool> {
        if self.reserved || self.gone || milliseconds() >= self.looked + LOOK_EVERY {
            return None;
        }
        let ring = self.ring.as_mut().filter(|ring| !ring.is_reader_gone())?;
        if !ring.has_room(len).ok()? {
            return None;
        }
        ring.note_processor(processor());
        ring.push(INLINE, 0, parts, 0);
        Some(ring.must_ring())
    }

    /// Wakes the reader.
    pub fn ring(&mut self, socket: BorrowedFd<'_>) {
        if !socket::ring(socket) {
            self.gone = true;
        }
    }

    /// The reader is gone, as this side's own receiving end has found out.
    pub fn reader_is_gone(&mut self) {
        self.gone = true;
    }

    /// Gives the memory back: nothing is sent any more.
    pub fn close(&mut self) {
        self.ring = None;
    }

    fn end<T>(&mut self) -> Result<T, LinkError> {
        self.gone = true;
        Err(LinkError::Ended)
    }

    fn look_for_reader(&mut self, socket: BorrowedFd<'_>) -> Result<(), LinkError> {
        if self.gone || self.ring.as_ref().is_none_or(Producer::is_reader_gone) {
            return self.end();
        }
        let now = milliseconds();
        if now >= self.looked + LOOK_EVERY {
            self.looked = now;
            let mut looked = [PollFd::new(&socket, PollFlags::empty())];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            if let Ok(1..) = rustix::event::poll(&mut looked, Some(&at_once)) {
                return self.end();
            }
        }
        Ok(())
    }
}

impl Receiver {
    /// How many bytes the next message wants to be copied to (`take`). None: wait until `socket` can be read.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn next(&mut self, socket: BorrowedFd<'_>) -> Result<Option<usize>, LinkError> {
        loop {
            if let Some(record) = self.record()? {
                return match record.kind {
                    INLINE => Ok(Some(record.len)),
                    APART if record.len >= 8 && record.fds > 0 => Ok(Some(0)),
                    _ => self.refuse("a record of an unknown kind"),
                };
            }
            if self.ended {
                return Err(LinkError::Ended);
            }
            if let (Some((ring, _)), false) = (&self.ring, self.asleep) {
                ring.fall_asleep();
                self.asleep = true;
            } else if !self.listen(socket)? {
                return Ok(None);
            }
        }
    }

    fn record(&mut self) -> Result<Option<Record>, LinkError> {
        if let Some(why) = self.garbage {
            return Err(LinkError::Garbage(why));
        }
        let Some((ring, _)) = &mut self.ring else { return Ok(None) };
        let found = ring.next();
        if self.asleep && found != Ok(None) {
            ring.wake_up();
            self.asleep = false;
        }
        match found {
            Ok(record) => Ok(record),
            Err(Garbage(why)) => self.refuse(why),
        }
    }

    /// Takes what `next` told of. `into`: room for exactly so many bytes.
    ///
    /// # Errors
    /// [`LinkError`]. `System`: its descriptors could not be had (EMFILE, ENFILE), and it stays the next one.
    pub fn take(
        &mut self,
        socket: BorrowedFd<'_>,
        into: &mut [MaybeUninit<u8>],
    ) -> Result<Message, LinkError> {
        let Some(record) = self.record()? else { return Err(LinkError::Ended) };
        let mut fds = if record.fds == 0 { Vec::new() } else { self.batch(socket)? };
        if fds.len() != usize::from(record.fds) {
            return self.refuse("other descriptors than a record says");
        }
        let Some((ring, bell)) = &mut self.ring else { return Err(LinkError::Ended) };
        let len = if record.kind == APART { ring.first_word() } else { 0 };
        if record.kind == INLINE {
            ring.copy(record, into);
        }
        if ring.release(record) {
            bell.ring();
        }
        if record.kind == INLINE {
            return Ok(Message { body: Body::Copied, fds });
        }
        let Ok(len) = usize::try_from(len) else {
            return self.refuse("a message of an impossible length");
        };
        let file = fds.remove(0);
        let whole = match Segment::checked(&file, len) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.refuse("a long message without its memory");
            }
            Err(error) => return Err(LinkError::System(error)),
        };
        // Mapped, it is kept without a descriptor.
        let body = match Segment::map_or_not(file, whole, if self.own { Access::Own } else { Access::Read }) {
            Ok(segment) => Body::Apart(Mapped::from(segment), len),
            Err((file, error)) => Body::Unmapped(file, error),
        };
        Ok(Message { body, fds })
    }

    /// From now on long messages can be written, as if they had been copied.
    pub fn let_write(&mut self) {
        self.own = true;
    }

    /// Takes the next message if there is one that is short, without descriptors, and whose first eight bytes are `wanted`:
    /// appends it to `into`. Whoever writes may change the bytes meanwhile: what is in `into` counts.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn take_if(
        &mut self,
        into: &mut Vec<u8>,
        wanted: impl FnOnce([u8; 8]) -> bool,
    ) -> Result<bool, LinkError> {
        let Some(record) = self.record()? else { return Ok(false) };
        let Some((ring, bell)) = &mut self.ring else { return Ok(false) };
        let plain = record.kind == INLINE && record.fds == 0 && record.len >= 8;
        if !plain || !wanted(ring.first_word().to_le_bytes()) {
            return Ok(false);
        }
        ring.append(record, into);
        if ring.release(record) {
            bell.ring();
        }
        Ok(true)
    }

    /// Whether there is nothing to read, a moment ago: cheap, for those who look again and again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.as_ref().is_none_or(|(ring, _)| ring.is_empty())
    }

    /// Whether the other side has last written on the processor that this runs on: then it cannot run while this does.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.ring.as_ref().is_some_and(|(ring, _)| ring.processor() == processor())
    }

    /// Says that nothing will be received any more: whoever sends fails.
    pub fn leave(&mut self, socket: BorrowedFd<'_>) {
        if self.ring.is_none() && self.garbage.is_none() {
            // Perhaps it has greeted meanwhile. If not, or in a wrong way, the socket tells it.
            let _ = self.listen(socket);
        }
        self.say_gone();
    }

    /// Gives memory and descriptors back, also those that have come and were not received.
    pub fn close(&mut self) {
        self.ring = None;
        self.batches.clear();
        self.ended = true;
    }

    fn say_gone(&self) {
        if let Some((ring, bell)) = &self.ring {
            ring.leave();
            bell.ring();
        }
    }

    /// The descriptors that belong to the next record that has some.
    fn batch(&mut self, socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, LinkError> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Ok(batch);
            }
            if self.ended || !self.listen(socket)? {
                return self.refuse("a record whose descriptors have not come");
            }
        }
    }

    /// Receives from the socket, once. False: there is nothing. What there are no descriptors for is left there.
    fn listen(&mut self, socket: BorrowedFd<'_>) -> Result<bool, LinkError> {
        let mut bytes = [0; 512];
        let wanted = if self.ring.is_some() { bytes.len() } else { GREETING.len() };
        let came = match socket::look(socket, &mut bytes[..wanted]) {
            Ok(came) if came.lost => return Err(LinkError::System(Errno::MFILE.into())),
            Ok(came) => came,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => {
                self.ended = true;
                return Ok(true);
            }
            Err(error) => return Err(LinkError::System(error.into())),
        };
        let said = &mut bytes[..came.bytes];
        socket::take(socket, said).map_err(|error| LinkError::System(error.into()))?;
        if said.is_empty() {
            self.ended = true;
        } else if self.ring.is_none() {
            self.greeted(&bytes[..came.bytes], came.fds)?;
        } else {
            // Whoever rang has taken back that we sleep.
            self.asleep = false;
            if !came.fds.is_empty() {
                if self.batches.len() == BATCHES_MAX {
                    return self.refuse("descriptors without records");
                }
                self.batches.push_back(came.fds);
            }
        }
        Ok(true)
    }

    fn greeted(&mut self, said: &[u8], fds: Vec<OwnedFd>) -> Result<(), LinkError> {
        let mut fds = fds.into_iter();
        let (Some(ring), Some(bell), None, true) = (fds.next(), fds.next(), fds.next(), said == GREETING)
        else {
            return self.refuse("no greeting");
        };
        let ring = match RingMemory::from_file(ring) {
            Ok(ring) => ring,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.refuse("a greeting without a ring");
            }
            Err(error) => {
                self.garbage = Some("the greeting's ring could not be mapped");
                return Err(LinkError::System(error));
            }
        };
        match Consumer::open(ring) {
            Ok(ring) => {
                let watched = Watched::new(&[bell.as_raw_fd()]);
                self.ring = Some((ring, Bell { _watched: watched, socket: bell }));
            }
            Err(Garbage(why)) => return self.refuse(why),
        }
        Ok(())
    }

    /// Nothing will be read any more.
    fn refuse<T>(&mut self, why: &'static str) -> Result<T, LinkError> {
        self.garbage = Some(why);
        self.say_gone();
        Err(LinkError::Garbage(why))
    }
}

impl From<Garbage> for LinkError {
    fn from(Garbage(why): Garbage) -> LinkError {
        LinkError::Garbage(why)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Ended => f.write_str("the other side has gone"),
            LinkError::Garbage(why) => f.write_str(why),
            LinkError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LinkError {}

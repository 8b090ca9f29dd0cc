//! A ring of messages in shared memory: one process writes, another reads.
//!
//! **Invariants**
//! * `tail` and `head` count bytes since the beginning and never go back. What lies between them belongs to the reader, the
//!   rest to the writer. Each keeps its own count in memory of its own, and believes the other's only within these bounds.
//! * A record is whole before `tail` includes it. So a writer that dies in the middle of one has not written it.
//! * Every record begins at a multiple of 16 with its length and its number. A number that is not the next one is garbage:
//!   somebody else has written there.
//! * Who is about to sleep says so, and then looks again; who has moved on looks whether the other sleeps. With a full fence in
//!   between on both sides, one of the two sees the other, and no wake-up is lost. `loom.rs` has the proof.
//!
//! ```text
//! header (4096 bytes)                                    who writes
//!     0  magic, version, capacity                        the writer, once
//!   128  tail                                            the writer
//!   256  head                                            the reader
//!   384  sleeping: the reader waits for a record         the reader 1; the writer 0, as it rings
//!   512  full: the writer waits for room                 the writer 1; the reader 0, as it rings
//!   640  gone: the reader will read no more              the reader, once
//!   768  processor: where the writer last wrote, from 1  the writer; nothing depends on it
//! data (capacity bytes, a power of two)
//!     record: | u32 length | u16 kind | u16 descriptors | u64 number | bytes, filled up to 16 |
//! ```
//!
//! The words that only matter to those who sleep have cache lines of their own: whoever is busy reads them from its cache.

#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(test)]
mod tests_memory;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// "goslings", to be read in a dump of the memory.
const MAGIC: u64 = u64::from_le_bytes(*b"goslings");
/// The layout above. Another one, or another meaning, gets another number.
const VERSION: u32 = 2;
/// Where the data begins.
pub(crate) const DATA: usize = 4096;
/// Records begin at multiples of this, and so long is what stands before their bytes.
const UNIT: u64 = 16;

/// What a reader found cannot have been written by a writer that follows the rules, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage(pub &'static str);

/// A word that has a cache line (and the one that is fetched with it) for itself.
#[repr(C, align(128))]
#[derive(Debug, Default)]
struct Line<T>(T);

#[repr(C)]
#[derive(Debug, Default)]
struct Identity {
    magic: AtomicU64,
    capacity: AtomicU64,
    version: AtomicU32,
}

/// The beginning of a ring's memory. All of it is valid whatever its bytes are.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Header {
    identity: Line<Identity>,
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    sleeping: Line<AtomicU32>,
    full: Line<AtomicU32>,
    gone: Line<AtomicU32>,
    processor: Line<AtomicU32>,
}

#[cfg(not(loom))]
const _: () = {
    assert!(std::mem::offset_of!(Header, tail) == 128);
    assert!(std::mem::offset_of!(Header, head) == 256);
    assert!(std::mem::offset_of!(Header, sleeping) == 384);
    assert!(std::mem::offset_of!(Header, full) == 512);
    assert!(std::mem::offset_of!(Header, gone) == 640);
    assert!(std::mem::offset_of!(Header, processor) == 768);
    assert!(size_of::<Header>() <= DATA);
    assert!(align_of::<Header>() <= DATA);
};

/// Where a ring lies: shared memory, or that of a test.
pub(crate) trait Memory {
    fn header(&self) -> &Header;
    /// The data. Their number is a power of two, and always the same.
    fn words(&self) -> &[AtomicU64];
}

/// Bytes to be sent: memory of the caller's, which others may change meanwhile, as with any thread.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    start: *const u8,
    len: usize,
    life: PhantomData<&'a [u8]>,
}

impl<'a> Source<'a> {
    /// `len` bytes at `start`.
    ///
    /// # Safety
    /// They can be read as long as `'a` lasts.
    #[must_use]
    pub unsafe fn new(start: *const u8, len: usize) -> Source<'a> {
        Source { start, len, life: PhantomData }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they are.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Source<'a> {
        Source { start: bytes.as_ptr(), len: bytes.len(), life: PhantomData }
    }
}

/// What stands before a record's bytes, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) len: usize,
    pub(crate) kind: u16,
    pub(crate) fds: u16,
}

/// How much room a record of `len` bytes takes.
fn span(len: usize) -> u64 {
    UNIT + (len as u64).next_multiple_of(UNIT)
}

/// The longest record that is written, in bytes: a quarter of the ring. See `Consumer::release`.
pub(crate) const fn longest(capacity: usize) -> usize {
    capacity / 4 - UNIT as usize
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    capacity: u64,
    tail: u64,
    /// The reader's, when last looked at.
    head: u64,
    number: u64,
}

impl<M: Memory> Producer<M> {
    /// Makes a ring in `memory`, which is zeroed and nobody else has yet.
    pub(crate) fn new(memory: M) -> Producer<M> {
        let capacity = memory.words().len() as u64 * 8;
        assert!(capacity.is_power_of_two() && capacity >= 4 * UNIT, "a ring of {capacity} bytes");
        let identity = &memory.header().identity.0;
        // Ordering: Relaxed. The memory is handed over later, by a system call.
        identity.magic.store(MAGIC, Ordering::Relaxed);
        identity.capacity.store(capacity, Ordering::Relaxed);
        identity.version.store(VERSION, Ordering::Relaxed);
        Producer { memory, capacity, tail: 0, head: 0, number: 0 }
    }

    /// Whether a record of `len` bytes fits in now.
    pub(crate) fn has_room(&mut self, len: usize) -> Result<bool, Garbage> {
        let wanted = span(len);
        debug_assert!(len <= longest(self.capacity as usize), "too long a record: {len}");
        if self.capacity - (self.tail - self.head) >= wanted {
            return Ok(true);
        }
        // Ordering: Acquire pairs with the Release in `release`: the reader has read what it gives back.
        let head = self.memory.header().head.0.load(Ordering::Acquire);
        if head.wrapping_sub(self.head) > self.tail - self.head || !head.is_multiple_of(UNIT) {
            return Err(Garbage("a reader's position that cannot be"));
        }
        self.head = head;
        Ok(self.capacity - (self.tail - self.head) >= wanted)
    }

    /// Writes a record, for which there is room. Its length is that of all parts, or `at_least` if that is more; what is beyond
    /// the parts is whatever was there.
    pub(crate) fn push(&mut self, kind: u16, fds: u16, parts: &[Source<'_>], at_least: usize) {
        let len = parts.iter().map(Source::len).sum::<usize>().max(at_least);
        assert!(self.capacity - (self.tail - self.head) >= span(len), "no room");
        let words = self.memory.words();
        let mask = words.len() - 1;
        let mut at = (self.tail / 8) as usize;
        let mut put = |word: u64| {
            // Ordering: Relaxed. `tail`, below, shows them.
            words[at & mask].store(word, Ordering::Relaxed);
            at += 1;
        };
        put(len as u64 | u64::from(kind) << 32 | u64::from(fds) << 48);
        put(self.number);
        let mut packer = Packer { word: 0, filled: 0 };
        for part in parts {
            packer.add(part, &mut put);
        }
        packer.finish(&mut put);
        self.number += 1;
        self.tail += span(len);
        // Ordering: Release pairs with the Acquire in `next`: the record is whole.
        self.memory.header().tail.0.store(self.tail, Ordering::Release);
    }

    /// After a push: whether the reader sleeps, and is to be rung for. Answers so once for each sleep.
    pub(crate) fn must_ring(&self) -> bool {
        let sleeping = &self.memory.header().sleeping.0;
        // Ordering: SeqCst fence between the store of `tail` and this look. Pairs with the one in `Consumer::fall_asleep`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. The fence has ordered it.
        if sleeping.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Ordering: Relaxed. Whoever swaps it rings; the bell and the wait for it order the rest.
        sleeping.swap(0, Ordering::Relaxed) != 0
    }

    /// Says that this end is about to sleep until there is room; then look again (`has_room`) before sleeping.
    pub(crate) fn fall_asleep(&self) {
        // Ordering: Relaxed. The fence orders it.
        self.memory.header().full.0.store(1, Ordering::Relaxed);
        // Ordering: SeqCst fence between this store and the look at `head`. Pairs with the one in `Consumer::release`.
        fence(Ordering::SeqCst);
    }

    /// The sleep is over, or does not take place.
    pub(crate) fn wake_up(&self) {
        // Ordering: Relaxed. At worst the reader rings once too often.
        self.memory.header().full.0.store(0, Ordering::Relaxed);
    }

    /// Says on which processor this end runs, for a guess of the reader's.
    pub(crate) fn note_processor(&self, number: u32) {
        let noted = &self.memory.header().processor.0;
        // Ordering: Relaxed, both. A hint; and whoever stays where it is leaves the reader its cache line.
        if noted.load(Ordering::Relaxed) != number {
            noted.store(number, Ordering::Relaxed);
        }
    }

    /// Whether the reader has said that it reads no more.
    pub(crate) fn is_reader_gone(&self) -> bool {
        // Ordering: Relaxed. A notice, nothing comes with it.
        self.memory.header().gone.0.load(Ordering::Relaxed) != 0
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    capacity: u64,
    head: u64,
    /// The writer's, when last looked at.
    tail: u64,
    number: u64,
    /// Where `head` was when the writer was last thought of.
    told: u64,
}

impl<M: Memory> Consumer<M> {
    /// Opens the ring that somebody else has made in `memory`.
    pub(crate) fn open(memory: M) -> Result<Consumer<M>, Garbage> {
        let capacity = memory.words().len() as u64 * 8;
        let identity = &memory.header().identity.0;
        // Ordering: Relaxed. The memory has come by a system call.
        if identity.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Garbage("no ring in the memory"));
        }
        // Ordering: Relaxed. As above.
        if identity.version.load(Ordering::Relaxed) != VERSION {
            return Err(Garbage("a ring of another version"));
        }
        // Ordering: Relaxed. As above.
        if identity.capacity.load(Ordering::Relaxed) != capacity
            || !capacity.is_power_of_two()
            || capacity < 4 * UNIT
        {
            return Err(Garbage("a ring of a wrong size"));
        }
        Ok(Consumer { memory, capacity, head: 0, tail: 0, number: 0, told: 0 })
    }

    /// The next record, which stays where it is until `release`.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Garbage> {
        if self.tail == self.head {
            // Ordering: Acquire pairs with the Release in `push`: the records are whole.
            let tail = self.memory.header().tail.0.load(Ordering::Acquire);
            if tail.wrapping_sub(self.head) > self.capacity || !tail.is_multiple_of(UNIT) {
                return Err(Garbage("a writer's position that cannot be"));
            }
            self.tail = tail;
            if tail == self.head {
                return Ok(None);
            }
        }
        let words = self.memory.words();
        let at = (self.head / 8) as usize & (words.len() - 1);
        // Ordering: Relaxed. The look at `tail` has ordered them. Two words in a row: `head` is a multiple of two words.
        let (first, number) = (words[at].load(Ordering::Relaxed), words[at + 1].load(Ordering::Relaxed));
        if number != self.number {
            return Err(Garbage("a record out of sequence"));
        }
        let len = (first & u64::from(u32::MAX)) as usize;
        if len > longest(self.capacity as usize) || span(len) > self.tail - self.head {
            return Err(Garbage("a record that is longer than what was written"));
        }
        Ok(Some(Record { len, kind: (first >> 32) as u16, fds: (first >> 48) as u16 }))
    }

    /// Copies the bytes of `record`, which `next` has just given, to `into`, which has room for exactly these.
    pub(crate) fn copy(&self, record: Record, into: &mut [MaybeUninit<u8>]) {
        assert_eq!(record.len, into.len(), "room for another record");
        let words = self.memory.words();
        let mask = words.len() - 1;
        let start = ((self.head + UNIT) / 8) as usize & mask;
        let until_end = (words.len() - start) * 8;
        let (before, after) = into.split_at_mut(until_end.min(record.len));
        copy_words(&words[start..], before);
        copy_words(words, after);
    }

    /// The same, to the end of `into`.
    pub(crate) fn append(&self, record: Record, into: &mut Vec<u8>) {
        into.reserve(record.len);
        let len = into.len();
        self.copy(record, &mut into.spare_capacity_mut()[..record.len]);
        // SAFETY: so many are reserved, and `copy` has filled all of them.
        unsafe { into.set_len(len + record.len) };
    }

    /// The first 8 bytes of the record that `next` has just given, as a little-endian number.
    pub(crate) fn first_word(&self) -> u64 {
        let words = self.memory.words();
        // Ordering: Relaxed. The look at `tail` has ordered it.
        words[((self.head + UNIT) / 8) as usize & (words.len() - 1)].load(Ordering::Relaxed).to_le()
    }

    /// Gives the room of `record`, which `next` has just given, back to the writer. Returns whether that one sleeps, and
    /// is to be rung for.
    ///
    /// The writer is thought of when the ring is empty, as far as known, and every quarter of a ring: whoever reads on
    /// until nothing is left will think of it. It needs no more than a quarter at a time.
    #[must_use]
    pub(crate) fn release(&mut self, record: Record) -> bool {
        self.head += span(record.len);
        self.number += 1;
        let header = self.memory.header();
        // Ordering: Release pairs with the Acquire in `has_room`: the bytes are read.
        header.head.0.store(self.head, Ordering::Release);
        if self.head != self.tail && self.head - self.told < self.capacity / 4 {
            return false;
        }
        self.told = self.head;
        // Ordering: SeqCst fence between the store of `head` and this look. Pairs with the one in `Producer::fall_asleep`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. The fence has ordered it; for the swap see `must_ring`.
        header.full.0.load(Ordering::Relaxed) != 0 && header.full.0.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether there is something to read, a moment ago: cheap, for those who look again and again.
    pub(crate) fn is_empty(&self) -> bool {
        // Ordering: Relaxed. `next` looks properly.
        self.tail == self.head && self.memory.header().tail.0.load(Ordering::Relaxed) == self.head
    }

    /// What the writer has last noted.
    pub(crate) fn processor(&self) -> u32 {
        // Ordering: Relaxed. A hint.
        self.memory.header().processor.0.load(Ordering::Relaxed)
    }

    /// Says that this end is about to sleep until there is a record; then look again (`next`) before sleeping.
    pub(crate) fn fall_asleep(&self) {
        // Ordering: Relaxed. The fence orders it.
        self.memory.header().sleeping.0.store(1, Ordering::Relaxed);
        // Ordering: SeqCst fence between this store and the look at `tail`. Pairs with the one in `Producer::must_ring`.
        fence(Ordering::SeqCst);
    }

    /// The sleep is over, or does not take place.
    pub(crate) fn wake_up(&self) {
        // Ordering: Relaxed. At worst the writer rings once too often.
        self.memory.header().sleeping.0.store(0, Ordering::Relaxed);
    }

    /// Says that nothing will be read any more.
    pub(crate) fn leave(&self) {
        // Ordering: Relaxed. A notice, nothing comes with it.
        self.memory.header().gone.0.store(1, Ordering::Relaxed);
    }
}

/// Copies as many bytes as `into` has.
fn copy_words(words: &[AtomicU64], into: &mut [MaybeUninit<u8>]) {
    let mut chunks = into.chunks_exact_mut(8);
    let mut words = words.iter();
    for (chunk, word) in chunks.by_ref().zip(words.by_ref()) {
        // Ordering: Relaxed. The look at `tail` has ordered them.
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        chunk.copy_from_slice(&bytes.map(MaybeUninit::new));
    }
    let rest = chunks.into_remainder();
    if let (false, Some(word)) = (rest.is_empty(), words.next()) {
        // Ordering: Relaxed. As above.
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes().map(MaybeUninit::new);
        rest.copy_from_slice(&bytes[..rest.len()]);
    }
}

/// Puts bytes together to words.
struct Packer {
    word: u64,
    /// How many bytes of `word` are there; fewer than 8.
    filled: usize,
}

impl Packer {
    fn add(&mut self, part: &Source<'_>, put: &mut impl FnMut(u64)) {
        let (mut at, mut left) = (part.start, part.len);
        while left >= 8 {
            // SAFETY: at least 8 bytes from here on can be read.
            let word = u64::from_le(unsafe { at.cast::<u64>().read_unaligned() });
            if self.filled == 0 {
                put(word.to_le());
            } else {
                let shift = self.filled * 8;
                put((self.word | word << shift).to_le());
                self.word = word >> (64 - shift);
            }
            // SAFETY: not beyond the end.
            at = unsafe { at.add(8) };
            left -= 8;
        }
        for _ in 0..left {
            // SAFETY: one of those that are left.
            self.word |= u64::from(unsafe { at.read() }) << (self.filled * 8);
            // SAFETY: not beyond the end.
            at = unsafe { at.add(1) };
            self.filled += 1;
            if self.filled == 8 {
                put(self.word.to_le());
                (self.word, self.filled) = (0, 0);
            }
        }
    }

    fn finish(self, put: &mut impl FnMut(u64)) {
        if self.filled > 0 {
            put(self.word.to_le());
        }
    }
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Garbage {}

//! Stacks for goroutines: address space reserved in blocks, memory committed page by page as touched.
//!
//! ```text
//!  one slot (1 MiB, or what the host asks for)
//!  | guard | ... C stack, grows down <- base | host's part, grows up -> |
//!                                       ^ in the middle of a page, so that a goroutine which
//!                                         uses little of either touches one page in all
//! ```
//!
//! The guard is made with `MADV_GUARD_INSTALL` where the kernel has it (Linux 6.13): it costs no mapping,
//! so a million stacks stay far below `vm.max_map_count`. Elsewhere it is an `mprotect`ed page, two
//! mappings a stack, and the number of goroutines alive at once ends near 32,000.

use crate::host::StackBounds;
use crate::lock::{Mutex, Rank};
use corosensei::stack::{Stack, StackPointer};
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Slots that are mapped together.
const BLOCK: usize = 64;
/// The part above the base, for the host.
const HOST_PART: usize = 64 * 1024;
/// How much of the page that `base` lies in belongs to the C stack.
const SPLIT: usize = 3392;
/// `MADV_GUARD_INSTALL`, from Linux's uapi; libc does not name it yet.
const MADV_GUARD_INSTALL: libc::c_int = 102;
/// What a recycled stack may keep committed, when it is looked at: see `trim`.
const KEEP: usize = 32 * 1024;

/// The size of a page, as the system says.
fn page() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: asks for a number.
        usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
    })
}

static DEFAULT_KB: AtomicUsize = AtomicUsize::new(1024);

/// Sets the size of a slot, in KiB, where `GOSLINGS_STACK_KB` does not; before the first stack.
pub fn set_default_stack(kilobytes: usize) {
    // Ordering: Relaxed. Set at start, by the host.
    DEFAULT_KB.store(kilobytes, Ordering::Relaxed);
}

/// The size of a slot in bytes: `GOSLINGS_STACK_KB`, from 192 KiB to 1 GiB, or the host's default.
pub fn slot_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let asked = std::env::var("GOSLINGS_STACK_KB").ok().and_then(|text| text.parse::<usize>().ok());
        // Ordering: Relaxed. As in `set_default_stack`.
        let default = DEFAULT_KB.load(Ordering::Relaxed);
        let size = asked.unwrap_or(default).clamp(192, 1024 * 1024) * 1024;
        size.next_multiple_of(64 * 1024)
    })
}

/// Which kind of guard this kernel gives: decided at the first stack.
static GUARD_IS_ADVICE: OnceLock<bool> = OnceLock::new();

/// Whether guards are installed by advice (cheap) rather than by mprotect; None before the first stack.
pub fn guard_is_advice() -> Option<bool> {
    GUARD_IS_ADVICE.get().copied()
}

/// No memory for another stack.
#[derive(Clone, Copy, Debug)]
pub struct OutOfStacks;

/// One stack. Owned by one goroutine at a time, recycled through [`release`].
#[derive(Debug)]
pub(crate) struct TaskStack {
    slot: NonZeroUsize,
    /// Where it starts: asked for at each switch.
    base: StackPointer,
}

impl TaskStack {
    fn new(slot: NonZeroUsize) -> TaskStack {
        let base = NonZeroUsize::new(bounds(slot).base).expect("an address");
        TaskStack { slot, base }
    }

    pub(crate) fn bounds(&self) -> StackBounds {
        bounds(self.slot)
    }
}

fn bounds(slot: NonZeroUsize) -> StackBounds {
    let end = slot.get() + slot_size();
    StackBounds { low: slot.get() + page(), base: end - HOST_PART + SPLIT, end }
}

// SAFETY: the slot has a guard page at its low end, installed before the stack was handed out, and at
// least 128 KiB between the guard and the base (slot_size's lower bound); base and limit are aligned.
unsafe impl Stack for TaskStack {
    fn base(&self) -> StackPointer {
        self.base
    }
    fn limit(&self) -> StackPointer {
        self.slot
    }
}

/// Slots that are mapped and not in use.
struct Pool {
    /// With a guard, and no page committed.
    clean: Vec<NonZeroUsize>,
    /// Mapped, and not guarded yet: the rest of the newest block.
    fresh: std::ops::Range<usize>,
}

static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// How many stacks are mapped, in use or not.
pub fn mapped() -> usize {
    // Ordering: Relaxed. A number for people to read.
    MAPPED.load(Ordering::Relaxed)
}

fn pool() -> &'static Mutex<Pool> {
    POOL.get_or_init(|| Mutex::new(Rank::Sched, Pool { clean: Vec::new(), fresh: 0..0 }))
}

/// A stack, from the pool or newly mapped.
pub(crate) fn allocate() -> Result<TaskStack, OutOfStacks> {
    let size = slot_size();
    let slot = {
        let mut pool = pool().lock();
        if let Some(slot) = pool.clean.pop() {
            return Ok(TaskStack::new(slot));
        }
        if pool.fresh.is_empty() {
            pool.fresh = match map(size * BLOCK) {
                Ok(start) => start..start + size * BLOCK,
                Err(_) => {
                    // Address space is short: one slot is better than none.
                    let start = map(size)?;
                    start..start + size
                }
            };
        }
        let slot = pool.fresh.start;
        pool.fresh.start += size;
        slot
    };
    if let Err(refused) = guard(slot) {
        let mut pool = pool().lock();
        if pool.fresh.start == slot + size {
            pool.fresh.start = slot;
        }
        return Err(refused);
    }
    // Ordering: Relaxed. A number for people to read.
    MAPPED.fetch_add(1, Ordering::Relaxed);
    NonZeroUsize::new(slot).map(TaskStack::new).ok_or(OutOfStacks)
}

/// Takes a stack back; its pages are returned to the system.
pub(crate) fn release(stack: TaskStack) {
    let bounds = stack.bounds();
    // SAFETY: the range is our own mapping above the guard, and nobody runs on it any more.
    unsafe { libc::madvise(bounds.low as *mut _, bounds.end - bounds.low, libc::MADV_DONTNEED) };
    pool().lock().clean.push(stack.slot);
}

fn map(bytes: usize) -> Result<usize, OutOfStacks> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(OutOfStacks);
    }
    // Huge pages would commit two slots at once where one page is wanted.
    #[cfg(target_os = "linux")]
    // SAFETY: advice about the mapping that was just made.
    unsafe {
        libc::madvise(address, bytes, libc::MADV_NOHUGEPAGE);
    }
    Ok(address as usize)
}

fn guard(slot: usize) -> Result<(), OutOfStacks> {
    let by_advice = *GUARD_IS_ADVICE.get_or_init(|| advise_guard(slot));
    if by_advice && advise_guard(slot) {
        return Ok(());
    }
    // SAFETY: the lowest page of a slot that is ours and not in use.
    let answer = unsafe { libc::mprotect(slot as *mut _, page(), libc::PROT_NONE) };
    if answer == 0 { Ok(()) } else { Err(OutOfStacks) }
}

fn advise_guard(slot: usize) -> bool {
    // SAFETY: the lowest page of a slot that is ours and not in use; an unknown advice is refused.
    cfg!(target_os = "linux") && unsafe { libc::madvise(slot as *mut _, page(), MADV_GUARD_INSTALL) } == 0
}

/// Gives back the pages below those that a usual goroutine touches, if any are committed.
pub(crate) fn trim(bounds: StackBounds) {
    let keep_from = (bounds.base - SPLIT - KEEP) / page() * page();
    let mut resident = 0_u8;
    // SAFETY: one page inside our own mapping, and one byte to write to.
    let asked = unsafe { libc::mincore(keep_from as *mut _, page(), (&raw mut resident).cast()) };
    if asked == 0 && resident & 1 == 1 {
        // SAFETY: the range lies inside our own mapping, above the guard, and nobody runs on it.
        unsafe { libc::madvise(bounds.low as *mut _, keep_from - bounds.low, libc::MADV_DONTNEED) };
    }
}

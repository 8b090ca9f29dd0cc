//! Memory that transactions use without counting who does.
//!
//! A count in each variable would be changed by all who read it, and its cache line would travel with every read. So a
//! transaction is *pinned* while it runs, and what is given up stays where it is until all who were pinned at that
//! moment are over. That is epoch-based reclamation (Fraser 2004), by crossbeam-epoch, which the queues of the scheduler use, too.
//!
//! **Invariants**
//! * A `Held` is used only between a [`pin`] that came before it was made and the end of that.
//! * Only memory waits so: what a variable holds is taken out when the variable is given up.

use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

/// Who is pinned, and what waits for them. A forked child begins anew: those of its parent's threads that were pinned
/// would be so for ever.
#[expect(clippy::disallowed_types, reason = "a leaf lock, held for a clone")]
static COLLECTOR: OnceLock<std::sync::Mutex<Collector>> = OnceLock::new();
/// How often this process's line of ancestors has begun anew.
static GENERATION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static MINE: RefCell<Option<(u32, Rc<LocalHandle>)>> = const { RefCell::new(None) };
}

#[cold]
fn register() -> LocalHandle {
    let collector = COLLECTOR.get_or_init(Default::default);
    collector.lock().unwrap_or_else(PoisonError::into_inner).register()
}

/// While it lives, nothing goes away that was there when it was made.
pub struct Pin(Guard);

/// Pins this thread.
#[must_use]
#[inline]
pub fn pin() -> Pin {
    // Ordering: Relaxed. Changed in a forked child before it has a second thread.
    let generation = GENERATION.load(Ordering::Relaxed);
    let mine = MINE.try_with(|mine| {
        let mut mine = mine.borrow_mut();
        match &*mine {
            Some((of, handle)) if *of == generation => Rc::clone(handle),
            _ => {
                let handle = Rc::new(register());
                // That of a parent is never used again, and nobody reads it.
                std::mem::forget(mine.replace((generation, Rc::clone(&handle))));
                handle
            }
        }
    });
    // Pinning may give memory back, and call whatever a drop calls: nothing is borrowed here.
    // Without a handle the thread is ending.
    Pin(mine.map_or_else(|_| register().pin(), |handle| handle.pin()))
}

/// In a forked child, which has one thread: forgets who was pinned.
pub fn after_fork_child() {
    // Ordering: Relaxed. As in `pin`.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    if let Some(collector) = COLLECTOR.get() {
        // The lock may have been copied while somebody had it; then what was pinned there stays.
        if let Ok(mut collector) = collector.try_lock() {
            std::mem::forget(std::mem::take(&mut *collector));
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

/// An owner of something that others may hold while they are pinned.
pub struct Kept<T: Send + Sync + 'static>(Option<Arc<T>>);

impl<T: Send + Sync + 'static> Kept<T> {
    /// The first owner.
    #[must_use]
    pub fn new(value: T) -> Kept<T> {
        Kept(Some(Arc::new(value)))
    }

    /// For whoever is pinned.
    #[inline]
    #[must_use]
    pub fn held(&self) -> Held<T> {
        let kept = self.0.as_ref().expect("until the drop");
        // By way of the Arc: `keep` counts with it.
        Held(NonNull::new(Arc::as_ptr(kept).cast_mut()).expect("an Arc is somewhere"))
    }
}

impl<T: Send + Sync + 'static> Clone for Kept<T> {
    fn clone(&self) -> Kept<T> {
        Kept(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Deref for Kept<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().expect("until the drop")
    }
}

impl<T: Send + Sync + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        let Some(last) = self.0.take() else { return };
        pin().0.defer(move || drop(last));
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Something of a [`Kept`], for as long as its user is pinned.
pub struct Held<T>(NonNull<T>);

impl<T: Send + Sync + 'static> Held<T> {
    /// An owner of its own, which needs no pin.
    ///
    /// # Safety
    /// The caller is pinned since before this was made.
    #[must_use]
    pub unsafe fn keep(&self) -> Kept<T> {
        let pointer = self.0.as_ptr().cast_const();
        // SAFETY: it came from the Arc of a Kept, which gives its count back when nobody is pinned any more.
        unsafe { Arc::increment_strong_count(pointer) };
        // SAFETY: the count was just taken for this Arc.
        Kept(Some(unsafe { Arc::from_raw(pointer) }))
    }

    /// What it holds.
    ///
    /// # Safety
    /// As for `keep`.
    #[inline]
    #[must_use]
    pub unsafe fn get(&self) -> &T {
        // SAFETY: by the caller's promise it is there.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Held<T> {
    #[inline]
    fn clone(&self) -> Held<T> {
        *self
    }
}

impl<T> Copy for Held<T> {}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    struct Noted(Arc<AtomicU32>);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pins until what was given up has gone.
    fn until_gone(gone: &AtomicU32, count: u32) {
        while gone.load(Ordering::Relaxed) < count {
            pin().0.flush();
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_given_up_stays_for_those_who_were_pinned() {
        let gone = Arc::new(AtomicU32::new(0));
        let kept = Kept::new(Noted(Arc::clone(&gone)));
        let pinned = pin();
        let held = kept.held();
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(kept);
                for _ in 0..1000 {
                    pin().0.flush();
                }
            });
        });
        // SAFETY: pinned since before.
        let inner = unsafe { held.get() };
        assert_eq!(inner.0.load(Ordering::Relaxed), 0);
        drop(pinned);
        until_gone(&gone, 1);
    }

    #[test]
    fn an_owner_made_of_what_was_held_keeps_it() {
        let gone = Arc::new(AtomicU32::new(0));
        let kept = Kept::new(Noted(Arc::clone(&gone)));
        let owner = {
            let _pinned = pin();
            let held = kept.held();
            drop(kept);
            // SAFETY: pinned since before.
            unsafe { held.keep() }
        };
        for _ in 0..1000 {
            pin().0.flush();
        }
        assert_eq!(gone.load(Ordering::Relaxed), 0);
        drop(owner);
        until_gone(&gone, 1);
    }
}

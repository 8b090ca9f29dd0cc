//! A place for an `Arc` that is filled once: one word, where `OnceLock` takes two and a protocol for waiting.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Empty, or an `Arc` that stays. Whoever loses the race to fill it drops what it has made.
pub(crate) struct OnceArc<T>(AtomicPtr<T>);

impl<T> OnceArc<T> {
    pub(crate) fn empty() -> OnceArc<T> {
        OnceArc(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn with(object: Arc<T>) -> OnceArc<T> {
        OnceArc(AtomicPtr::new(Arc::into_raw(object).cast_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // Ordering: Acquire pairs with the Release in `set`: the object is seen as it was made.
        let object = self.0.load(Ordering::Acquire);
        // SAFETY: null, or from an Arc that this place owns until it is dropped.
        unsafe { object.as_ref() }
    }

    /// Fills it, unless it is filled.
    #[inline]
    pub(crate) fn set(&self, object: Arc<T>) {
        let made = Arc::into_raw(object).cast_mut();
        // Ordering: Release pairs with the Acquire in `get`. Who loses looks with that.
        if self.0.compare_exchange(ptr::null_mut(), made, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: from the Arc above; nobody has seen it.
            drop(unsafe { Arc::from_raw(made.cast_const()) });
        }
    }

    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> Arc<T>) -> &T {
        if self.get().is_none() {
            self.set(make());
        }
        self.get().expect("somebody has filled it")
    }

    /// What is in it, to keep.
    pub(crate) fn share(&self) -> Option<Arc<T>> {
        let object = ptr::from_ref(self.get()?);
        // SAFETY: it is in an Arc, which this place owns.
        unsafe { Arc::increment_strong_count(object) };
        // SAFETY: the count was just taken for this Arc.
        Some(unsafe { Arc::from_raw(object) })
    }
}

impl<T> Drop for OnceArc<T> {
    fn drop(&mut self) {
        let object = *self.0.get_mut();
        if !object.is_null() {
            // SAFETY: from the Arc that this place owns.
            drop(unsafe { Arc::from_raw(object.cast_const()) });
        }
    }
}

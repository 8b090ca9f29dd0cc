//! A ring's memory that is not shared with another process, for tests and models.

use super::{Header, Memory};
use crate::sync::AtomicU64;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct Heap(Arc<(Header, Box<[AtomicU64]>)>);

impl Heap {
    pub(super) fn new(capacity: usize) -> Heap {
        Heap(Arc::new((Header::default(), (0..capacity / 8).map(|_| AtomicU64::new(0)).collect())))
    }
}

impl Memory for Heap {
    fn header(&self) -> &Header {
        &self.0.0
    }

    fn words(&self) -> &[AtomicU64] {
        &self.0.1
    }
}

//! Models of the mutex: exclusion, and no waiter forgotten, with and without hand-over.

use super::*;
use crate::clock::Deadline;
use crate::sync::model;
use crate::watched::Watched;
use ::loom::sync::Arc;
use ::loom::thread;

struct Guarded {
    mutex: Mutex,
    count: Watched,
}

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded { mutex: Mutex::new(), count: Watched::new(0) })
    }

    fn add_one(&self, wait: Wait) -> u32 {
        if self.mutex.lock(wait).is_err() {
            return 0;
        }
        self.count.set(self.count.get() + 1);
        self.mutex.unlock().expect("locked");
        1
    }
}

/// As many threads as `waits`, each locks once; `tick` decides whether waiters run out of patience.
fn contend<const N: usize>(tick: u64, waits: [Wait; N]) {
    model(tick, move || {
        let guarded = Guarded::new();
        let mut threads = Vec::new();
        for &wait in &waits[1..] {
            let guarded = Arc::clone(&guarded);
            threads.push(thread::spawn(move || guarded.add_one(wait)));
        }
        let mut added = guarded.add_one(waits[0]);
        for thread in threads {
            added += thread.join().expect("no panic");
        }
        assert!(guarded.mutex.try_lock(), "left locked");
        assert_eq!(guarded.count.get(), added);
    });
}

const AT_ONCE: Wait = Wait::Until(Deadline(0));

#[test]
fn two_threads_compete() {
    contend(0, [Wait::Forever; 2]);
}

#[test]
fn three_threads_compete() {
    contend(0, [Wait::Forever; 3]);
}

#[test]
fn three_threads_hand_over() {
    contend(2 * PATIENCE_NS, [Wait::Forever; 3]);
}

#[test]
fn a_waiter_that_times_out_breaks_no_chain() {
    contend(0, [Wait::Forever, AT_ONCE, Wait::Forever]);
}

#[test]
fn a_waiter_that_times_out_breaks_no_chain_of_hand_overs() {
    contend(2 * PATIENCE_NS, [Wait::Forever, AT_ONCE, Wait::Forever]);
}

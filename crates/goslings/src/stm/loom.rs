//! Models of transactions: every order of the steps of two of them.

use super::*;
use crate::clock::Wait;
use crate::sync::{AtomicU64, Ordering, model};
use ::loom::sync::Arc;
use ::loom::thread;
use std::ops::Deref;

/// A handle on one of two variables, counted by loom. They lie side by side: a commit locks in the order of addresses,
/// and that must be the same each time a schedule is run.
struct Cell(Arc<[TVar<u32>; 2]>, usize);

impl Deref for Cell {
    type Target = TVar<u32>;

    fn deref(&self) -> &TVar<u32> {
        &self.0[self.1]
    }
}

impl Clone for Cell {
    fn clone(&self) -> Cell {
        Cell(Arc::clone(&self.0), self.1)
    }
}

impl Var for Cell {
    type Value = u32;
}

type Tx = Transaction<Cell>;

/// A number that is read while others exchange it.
struct Racing(AtomicU64);

impl Share for Racing {
    fn share(&self) -> Racing {
        // Ordering: Relaxed. Under the lock.
        Racing(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    unsafe fn share_racing(slot: *const Racing) -> Option<Racing> {
        // Ordering: Acquire, as `Share` wants it.
        let found = unsafe { &*slot }.0.load(Ordering::Acquire);
        Some(Racing(AtomicU64::new(found)))
    }

    unsafe fn exchange(slot: *mut Racing, value: &mut Racing) {
        // Ordering: Release, as `Share` wants it; the other is the caller's own.
        let before = unsafe { &*slot }.0.swap(value.number(), Ordering::Release);
        value.0.store(before, Ordering::Relaxed);
    }
}

impl Racing {
    fn number(&self) -> u64 {
        // Ordering: Relaxed. The caller's own.
        self.0.load(Ordering::Relaxed)
    }
}

fn cell() -> Cell {
    cells().0
}

fn cells() -> (Cell, Cell) {
    let both = Arc::new([TVar::new(0), TVar::new(0)]);
    (Cell(Arc::clone(&both), 0), Cell(both, 1))
}

fn new_space() -> &'static Space {
    Box::leak(Box::new(Space::new()))
}

/// Attempts `body` until it commits.
fn atomically<R>(space: &'static Space, mut body: impl FnMut(&mut Tx) -> Result<R, Conflict>) -> R {
    let mut tx = Tx::new(space);
    loop {
        if let Ok(result) = body(&mut tx) {
            loop {
                match tx.commit() {
                    Ok(()) => return result,
                    Err(CommitError::NotNow) => space.wait().expect("nobody cancels"),
                    Err(CommitError::Conflict) => break,
                }
            }
        }
        tx.clear();
        thread::yield_now();
    }
}

#[test]
fn no_increment_is_lost() {
    model(0, || {
        let (space, x) = (new_space(), cell());
        let add = |x: &Cell| {
            atomically(space, |tx| {
                let value = tx.read(x)?;
                tx.write(x, value + 1);
                Ok(())
            });
        };
        let inner = x.clone();
        let other = thread::spawn(move || add(&inner));
        add(&x);
        other.join().expect("no panic");
        assert_eq!(x.get(), 2);
    });
}

#[test]
fn no_two_write_what_the_other_has_read() {
    model(0, || {
        let (space, (x, y)) = (new_space(), cells());
        let take = |mine: &Cell, others: &Cell| {
            atomically(space, |tx| {
                if tx.read(others)? == 0 {
                    tx.write(mine, 1);
                }
                Ok(())
            });
        };
        let (a, b) = (x.clone(), y.clone());
        let other = thread::spawn(move || take(&a, &b));
        take(&y, &x);
        other.join().expect("no panic");
        assert_eq!(x.get() + y.get(), 1);
    });
}

#[test]
fn an_attempt_with_an_old_snapshot_sees_what_was_together_and_what_is_done() {
    model(0, || {
        let (space, (x, y)) = (new_space(), cells());
        let mut tx = Tx::new(space);
        tx.write(&x, 1);
        tx.write(&y, 1);
        assert_eq!(tx.commit(), Ok(()));
        tx.clear();
        let (a, b) = (x.clone(), y.clone());
        let done = Arc::new(AtomicU64::new(0));
        let tell = Arc::clone(&done);
        let writer = thread::spawn(move || {
            for value in 2..=3 {
                atomically(space, |tx| {
                    tx.write(&a, value);
                    tx.write(&b, value);
                    Ok(())
                });
                tell.store(u64::from(value), Ordering::Release);
            }
        });
        let least = done.load(Ordering::Acquire);
        if let Ok(first) = tx.read(&x)
            && let Ok(second) = tx.read(&y)
        {
            assert_eq!(first, second);
            assert!(u64::from(first) >= least, "older than what was done before it began");
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn no_attempt_sees_half_a_commit() {
    model(0, || {
        let (space, (x, y)) = (new_space(), cells());
        let (a, b) = (x.clone(), y.clone());
        let writer = thread::spawn(move || {
            atomically(space, |tx| {
                tx.write(&a, 1);
                tx.write(&b, 1);
                Ok(())
            });
        });
        let mut tx = Tx::new(space);
        if let Ok(first) = tx.read(&x)
            && let Ok(second) = tx.read(&y)
        {
            assert_eq!(first, second);
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn who_waits_for_a_change_is_woken() {
    model(0, || {
        let (space, (x, y)) = (new_space(), cells());
        let inner = x.clone();
        let writer = thread::spawn(move || {
            atomically(space, |tx| {
                tx.write(&inner, 1);
                Ok(())
            });
        });
        loop {
            let mut tx = Tx::new(space);
            if let (Ok(_), Ok(1)) = (tx.read(&y), tx.read(&x)) {
                break;
            }
            tx.watch().wait(Wait::Forever).expect("nobody cancels");
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn who_has_the_turn_comes_through() {
    model(0, || {
        let (space, x) = (new_space(), cell());
        let add = |tx: &mut Tx, x: &Cell| {
            let value = tx.read(x).expect("one variable is always of one instant");
            tx.write(x, value + 1);
        };
        let inner = x.clone();
        let other = thread::spawn(move || {
            atomically(space, |tx| {
                add(tx, &inner);
                Ok(())
            });
        });
        let mut tx = Tx::new(space);
        tx.take_turn().expect("nobody cancels");
        let mut lost = 0;
        loop {
            add(&mut tx, &x);
            if tx.commit() == Ok(()) {
                break;
            }
            tx.clear();
            lost += 1;
        }
        assert!(lost <= 1, "the other may have been past the check once");
        tx.give_turn_back();
        other.join().expect("no panic");
        assert_eq!(x.get(), 2);
    });
}

#[test]
fn an_alternative_that_was_undone_is_still_watched() {
    model(0, || {
        let (space, (x, y)) = (new_space(), cells());
        let inner = x.clone();
        let writer = thread::spawn(move || {
            atomically(space, |tx| {
                tx.write(&inner, 1);
                Ok(())
            });
        });
        // or_else: first x, which undoes its write, then y; both retry.
        loop {
            let mut tx = Tx::new(space);
            let mark = tx.nest();
            let first = tx.read(&x);
            tx.write(&y, 7);
            if first == Ok(1) {
                break;
            }
            drop(tx.undo(mark));
            if tx.read(&y) != Ok(0) {
                continue;
            }
            tx.watch().wait(Wait::Forever).expect("nobody cancels");
        }
        writer.join().expect("no panic");
        assert_eq!(y.get(), 0);
    });
}

#[test]
fn a_look_without_the_lock_finds_a_value_and_its_version() {
    model(0, || {
        let space = new_space();
        let x = Arc::new(TVar::new(Racing(AtomicU64::new(0))));
        let inner = Arc::clone(&x);
        let writer = thread::spawn(move || {
            for value in 1..=2 {
                let set = inner.set(space, Racing(AtomicU64::new(value)));
                assert!(set.is_ok(), "nobody has the turn");
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            let (version, value) = x.read(&mut Vec::new());
            assert_eq!(version, value.number(), "each commit draws the next time");
            assert!(version >= last);
            last = version;
        }
        writer.join().expect("no panic");
        assert_eq!(x.get().number(), 2);
    });
}

//! Transactions between threads and goroutines, with exact books.

use super::*;
use crate::chan::Chan;
use crate::clock::Wait;
use crate::random::below;
use crate::task::Job;
use crate::waiting::WaitError;
use crate::{set_procs, spawn, yield_now};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

type Cell = Arc<TVar<i64>>;
type Tx = Transaction<Cell>;

fn cell(value: i64) -> Cell {
    Arc::new(TVar::new(value))
}

/// Runs `body` until it commits; after some losses with the turn.
fn atomically<R>(body: impl FnMut(&mut Tx) -> Result<R, Conflict>) -> R {
    atomically_with(body).0
}

fn atomically_with<R>(mut body: impl FnMut(&mut Tx) -> Result<R, Conflict>) -> (R, u32) {
    let mut tx = Tx::new(space());
    let mut lost = 0;
    loop {
        if let Ok(result) = body(&mut tx) {
            loop {
                match tx.commit() {
                    Ok(()) => return (result, lost),
                    Err(CommitError::NotNow) => space().wait().expect("nobody cancels"),
                    Err(CommitError::Conflict) => break,
                }
            }
        }
        lost += 1;
        tx.clear();
        if lost >= 8 {
            tx.take_turn().expect("nobody cancels");
        }
    }
}

#[test]
fn it_sees_its_own_writes_and_others_see_them_after_the_commit() {
    let x = cell(1);
    let mut tx = Tx::new(space());
    assert_eq!(tx.read(&x), Ok(1));
    assert_eq!(tx.write(&x, 2), None);
    assert_eq!(tx.write(&x, 3), Some(2));
    assert_eq!((tx.read(&x), x.get()), (Ok(3), 1));
    assert_eq!(tx.commit(), Ok(()));
    assert_eq!(x.get(), 3);
}

#[test]
fn a_change_of_what_was_read_is_a_conflict_and_of_anything_else_is_not() {
    let (x, y) = (cell(1), cell(1));
    let (mut a, mut b) = (Tx::new(space()), Tx::new(space()));
    assert_eq!(a.read(&x), Ok(1));
    b.write(&x, 2);
    assert_eq!(b.commit(), Ok(()));
    // Newer than the snapshot, which cannot move past the change of x.
    b.clear();
    b.write(&y, 2);
    assert_eq!(b.commit(), Ok(()));
    assert_eq!(a.read(&y), Err(Conflict));
    a.clear();
    assert_eq!(a.read(&x), Ok(2));
    b.clear();
    b.write(&y, 3);
    assert_eq!(b.commit(), Ok(()));
    assert_eq!(a.read(&y), Ok(3), "the snapshot moves: x is what it was");
    a.write(&x, 5);
    b.clear();
    b.write(&y, 4);
    assert_eq!(b.commit(), Ok(()));
    assert_eq!(a.commit(), Err(CommitError::Conflict));
    assert_eq!((x.get(), y.get()), (2, 4));
    // What was written blindly conflicts with nobody.
    let mut c = Tx::new(space());
    c.write(&x, 7);
    b.clear();
    b.write(&x, 6);
    assert_eq!(b.commit(), Ok(()));
    assert_eq!(c.commit(), Ok(()));
    assert_eq!(x.get(), 7);
}

#[test]
fn nested_parts_are_undone_alone_and_what_they_read_stays_read() {
    let vars: Vec<Cell> = (0..40).map(cell).collect();
    let mut tx = Tx::new(space());
    for var in &vars[..20] {
        tx.write(var, 100);
    }
    let outer = tx.nest();
    tx.write(&vars[0], 200);
    let inner = tx.nest();
    for var in &vars {
        let value = tx.read(var).expect("alone");
        tx.write(var, value + 1);
    }
    let mut undone = tx.undo(inner);
    undone.sort_unstable();
    assert_eq!(undone.len(), 40);
    assert_eq!((tx.read(&vars[0]), tx.read(&vars[1]), tx.read(&vars[30])), (Ok(200), Ok(100), Ok(30)));
    tx.keep(outer);
    assert_eq!(tx.watch().vars().count(), 20, "those that were not written before they were read");
    assert_eq!(tx.commit(), Ok(()));
    assert_eq!(vars.iter().map(|var| var.get()).collect::<Vec<_>>()[..2], [200, 100]);
    assert_eq!(vars[30].get(), 30);
}

#[test]
fn money_is_conserved_between_threads_and_goroutines() {
    const ACCOUNTS: usize = 16;
    if !cfg!(miri) {
        set_procs(2); // which starts workers
    }
    let rounds = if cfg!(miri) { 30 } else { 3000 };
    let accounts: Arc<Vec<Cell>> = Arc::new((0..ACCOUNTS).map(|_| cell(100)).collect());
    let transfer = |accounts: &[Cell]| {
        let (from, to) = (below(ACCOUNTS), below(ACCOUNTS));
        atomically(|tx| {
            let balance = tx.read(&accounts[from])?;
            tx.write(&accounts[from], balance - 1);
            let balance = tx.read(&accounts[to])?;
            tx.write(&accounts[to], balance + 1);
            Ok(())
        });
    };
    let sum = |accounts: &[Cell]| {
        atomically(|tx| accounts.iter().map(|var| tx.read(var)).sum::<Result<i64, Conflict>>())
    };
    let over = Arc::new(Chan::<()>::new(8));
    let mut threads = Vec::new();
    for number in 0..4 {
        let (accounts, over) = (Arc::clone(&accounts), Arc::clone(&over));
        let work = move || {
            for round in 0..rounds {
                transfer(&accounts);
                if round % 50 == 0 {
                    assert_eq!(sum(&accounts), 1600);
                    if number % 2 == 0 {
                        yield_now();
                    }
                }
            }
            over.send((), Wait::Forever).expect("open");
        };
        if number % 2 == 0 && !cfg!(miri) {
            spawn(Job::new(work));
        } else {
            threads.push(thread::spawn(work));
        }
    }
    for _ in 0..4 {
        over.recv(Wait::Forever).expect("open");
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(sum(&accounts), 1600);
}

#[test]
fn a_long_transaction_gets_its_turn() {
    let vars: Arc<Vec<Cell>> = Arc::new((0..50).map(|_| cell(0)).collect());
    let stop = cell(0);
    let (inner, end) = (Arc::clone(&vars), Arc::clone(&stop));
    let greedy = thread::spawn(move || {
        let mut turn = 0;
        while end.get() == 0 {
            turn += 1;
            atomically(|tx| {
                tx.write(&inner[turn % 50], turn as i64);
                Ok(())
            });
        }
    });
    for _ in 0..3 {
        let (_, lost) = atomically_with(|tx| {
            for var in &*vars {
                let value = tx.read(var)?;
                tx.write(var, value);
                thread::yield_now();
            }
            Ok(())
        });
        assert!(lost <= 8 + 8, "{lost} attempts");
    }
    atomically(|tx| {
        tx.write(&stop, 1);
        Ok(())
    });
    greedy.join().expect("no panic");
}

#[test]
fn a_watch_ends_with_any_change_and_with_time() {
    let (x, y, z) = (cell(0), cell(0), cell(0));
    let mut tx = Tx::new(space());
    assert_eq!((tx.read(&x), tx.read(&y)), (Ok(0), Ok(0)));
    tx.write(&z, 1);
    let watch = tx.watch();
    drop(tx);
    assert_eq!(watch.wait(Wait::at_most(Duration::from_millis(5))), Err(WaitError::TimedOut));
    assert_eq!(watch.wait(Wait::No), Err(WaitError::TimedOut));
    let inner = Arc::clone(&y);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        atomically(|tx| {
            tx.write(&inner, 1);
            Ok(())
        });
    });
    assert_eq!(watch.wait(Wait::Forever), Ok(()));
    assert_eq!(watch.wait(Wait::Forever), Ok(()), "it has changed since");
    assert_eq!(watch.wait(Wait::No), Ok(()));
    other.join().expect("no panic");
}

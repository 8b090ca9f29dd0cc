//! Models of the ring: records are whole and in order, and no wake-up is lost. A lost one is a thread that waits for ever,
//! which loom reports.

use super::tests_memory::Heap;
use super::{Consumer, Producer, Record, Source};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::mem::MaybeUninit;

/// What the socket is: who rings leaves something there, and who waits takes all of it.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().expect("nobody panics") = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().expect("nobody panics");
        while !*rung {
            rung = self.changed.wait(rung).expect("nobody panics");
        }
        *rung = false;
    }
}

/// Explores `body`, to two preemptions unless `LOOM_MAX_PREEMPTIONS` says otherwise.
fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(body);
}

fn send(ring: &mut Producer<Heap>, kind: u16, part: &[u8], records: &Bell, room: &Bell) {
    loop {
        if ring.has_room(part.len()).expect("a decent reader") {
            break;
        }
        ring.fall_asleep();
        if ring.has_room(part.len()).expect("a decent reader") {
            ring.wake_up();
            break;
        }
        room.wait();
    }
    ring.push(kind, 0, &[Source::from(part)], 0);
    if ring.must_ring() {
        records.ring();
    }
}

fn receive(ring: &mut Consumer<Heap>, records: &Bell) -> Record {
    loop {
        if let Some(record) = ring.next().expect("a decent writer") {
            return record;
        }
        ring.fall_asleep();
        if let Some(record) = ring.next().expect("a decent writer") {
            ring.wake_up();
            return record;
        }
        records.wait();
    }
}

/// A ring for four records without bytes, and more of these than fit.
fn full_and_empty(count: u16) {
    model(move || {
        let memory = Heap::new(64);
        let mut producer = Producer::new(memory.clone());
        let mut consumer = Consumer::open(memory).expect("a ring");
        let bells = Arc::new((Bell::default(), Bell::default()));
        let theirs = Arc::clone(&bells);
        let writer = thread::spawn(move || {
            for kind in 0..count {
                send(&mut producer, kind, &[], &theirs.0, &theirs.1);
            }
        });
        for kind in 0..count {
            let record = receive(&mut consumer, &bells.0);
            assert_eq!(record, Record { len: 0, kind, fds: 0 });
            if consumer.release(record) {
                bells.1.ring();
            }
        }
        writer.join().expect("the writer");
    });
}

#[test]
fn loom_nobody_sleeps_through_a_record() {
    full_and_empty(2);
}

#[test]
fn loom_nobody_sleeps_through_room() {
    full_and_empty(6);
}

#[test]
fn loom_a_record_is_whole() {
    model(|| {
        let memory = Heap::new(128);
        let mut producer = Producer::new(memory.clone());
        let mut consumer = Consumer::open(memory).expect("a ring");
        let writer = thread::spawn(move || {
            for kind in 1..3 {
                assert_eq!(producer.has_room(16), Ok(true));
                producer.push(kind, 0, &[Source::from(&[kind as u8; 16][..])], 0);
            }
        });
        for kind in 1..3 {
            while consumer.next() == Ok(None) {
                thread::yield_now();
            }
            let record = consumer.next().expect("a decent writer").expect("a record");
            let mut bytes = [MaybeUninit::new(0); 16];
            consumer.copy(record, &mut bytes);
            // SAFETY: filled from the beginning on.
            assert!(bytes.iter().all(|byte| unsafe { byte.assume_init() } == kind as u8));
            let _ = consumer.release(record);
        }
        writer.join().expect("the writer");
    });
}

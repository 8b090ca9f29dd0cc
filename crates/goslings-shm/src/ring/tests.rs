//! The ring from inside: what is written comes out, and whatever the other side writes is found out.

use super::tests_memory::Heap;
use super::{Consumer, Garbage, Memory, Producer, Record, Source, longest};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// A simple generator (xorshift): a test is a function of its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn ring(capacity: usize) -> (Producer<Heap>, Consumer<Heap>, Heap) {
    let memory = Heap::new(capacity);
    (Producer::new(memory.clone()), Consumer::open(memory.clone()).expect("a ring"), memory)
}

fn bytes_of(consumer: &Consumer<Heap>, record: Record) -> Vec<u8> {
    let mut bytes = vec![MaybeUninit::new(0xEE); record.len];
    consumer.copy(record, &mut bytes);
    // SAFETY: filled from the beginning on.
    bytes.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
}

#[test]
fn what_is_written_comes_out_however_it_is_cut() {
    let capacity = 1024;
    let (mut producer, mut consumer, _memory) = ring(capacity);
    let mut random = Random(7);
    let rounds = if cfg!(miri) { 60 } else { 20_000 };
    let mut waiting = std::collections::VecDeque::new();
    for round in 0..rounds {
        let len = random.below(longest(capacity) + 1);
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        while !producer.has_room(len).expect("a decent reader") {
            let expected: Vec<u8> = waiting.pop_front().expect("a full ring has records");
            let record = consumer.next().expect("a decent writer").expect("a record");
            assert_eq!(bytes_of(&consumer, record), expected);
            let _ = consumer.release(record);
        }
        let first = random.below(len + 1);
        let second = first + random.below(len - first + 1);
        let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]].map(Source::from);
        producer.push(round as u16, 3, &parts, 0);
        waiting.push_back(bytes);
    }
}

#[test]
fn a_writer_and_a_reader_at_the_same_time() {
    let capacity = 512;
    let (mut producer, mut consumer, _memory) = ring(capacity);
    let count: u64 = if cfg!(miri) { 50 } else { 100_000 };
    let writer = std::thread::spawn(move || {
        for number in 0..count {
            let bytes = vec![number as u8; (number % 100) as usize];
            while !producer.has_room(bytes.len()).expect("a decent reader") {
                std::thread::yield_now();
            }
            producer.push(1, 0, &[Source::from(&bytes[..])], 0);
        }
    });
    for number in 0..count {
        let record = loop {
            match consumer.next().expect("a decent writer") {
                Some(record) => break record,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(bytes_of(&consumer, record), vec![number as u8; (number % 100) as usize]);
        let _ = consumer.release(record);
    }
    writer.join().expect("the writer");
}

#[test]
fn a_record_that_was_not_finished_is_not_there() {
    let (mut producer, mut consumer, memory) = ring(256);
    producer.push(1, 0, &[Source::from(&b"whole"[..])], 0);
    // What a writer has done that dies before its last step.
    let at = (producer.tail / 8) as usize;
    memory.words()[at].store(16, Ordering::Relaxed);
    memory.words()[at + 1].store(1, Ordering::Relaxed);
    let record = consumer.next().expect("a decent writer").expect("a record");
    assert_eq!(bytes_of(&consumer, record), b"whole");
    let _ = consumer.release(record);
    assert_eq!(consumer.next(), Ok(None));
}

#[test]
fn the_reader_sees_where_the_writer_ran() {
    let (producer, consumer, _memory) = ring(256);
    assert_eq!(consumer.processor(), 0);
    producer.note_processor(3);
    producer.note_processor(2);
    assert_eq!(consumer.processor(), 2);
}

#[test]
fn a_ring_of_another_version_is_refused() {
    let (_producer, _consumer, memory) = ring(256);
    memory.header().identity.0.version.store(99, Ordering::Relaxed);
    assert_eq!(Consumer::open(memory.clone()).err(), Some(Garbage("a ring of another version")));
    memory.header().identity.0.magic.store(0, Ordering::Relaxed);
    assert_eq!(Consumer::open(memory).err(), Some(Garbage("no ring in the memory")));
}

#[test]
fn positions_that_cannot_be_are_garbage() {
    for tail in [8, 17, 272, u64::MAX, u64::MAX - 15, 1 << 40] {
        let (_producer, mut consumer, memory) = ring(256);
        memory.header().tail.0.store(tail, Ordering::Relaxed);
        assert!(consumer.next().is_err(), "tail {tail}");
    }
    for head in [16 * 20, u64::MAX, u64::MAX - 15, 8] {
        let (mut producer, _consumer, memory) = ring(256);
        while producer.has_room(0).expect("a decent reader") {
            producer.push(1, 0, &[], 0);
        }
        memory.header().head.0.store(head, Ordering::Relaxed);
        assert!(producer.has_room(0).is_err(), "head {head}");
    }
}

#[test]
fn records_that_cannot_be_are_garbage() {
    for (first, number) in [(1 << 30, 0), (32, 0), (u64::MAX, 0), (0, 1), (0, u64::MAX)] {
        let (_producer, mut consumer, memory) = ring(256);
        memory.words()[0].store(first, Ordering::Relaxed);
        memory.words()[1].store(number, Ordering::Relaxed);
        memory.header().tail.0.store(32, Ordering::Relaxed);
        assert!(consumer.next().is_err(), "{first:x} {number}");
    }
}

#[test]
fn random_bytes_do_no_harm() {
    let rounds = if cfg!(miri) { 5 } else { 20_000 };
    for seed in 1..=rounds {
        let mut random = Random(seed);
        let capacity = 256;
        let (mut producer, mut consumer, memory) = ring(capacity);
        let (mut at, mut garbage) = (0, (false, false));
        while at < 40 && garbage != (true, true) {
            at += 1;
            let header = memory.header();
            let value = match random.below(3) {
                0 => random.next(),
                1 => random.next() % 512,
                _ => (random.next() % 32) * 16,
            };
            match random.below(8) {
                0 => header.tail.0.store(value, Ordering::Relaxed),
                1 => header.head.0.store(value, Ordering::Relaxed),
                2 => header.sleeping.0.store(value as u32, Ordering::Relaxed),
                3 => header.full.0.store(value as u32, Ordering::Relaxed),
                4 => header.gone.0.store(value as u32, Ordering::Relaxed),
                _ => memory.words()[random.below(capacity / 8)].store(value, Ordering::Relaxed),
            }
            if !garbage.0 {
                let len = random.below(longest(capacity) + 1);
                match producer.has_room(len) {
                    Ok(true) => producer.push(1, 0, &[Source::from(&vec![1; len][..])], 0),
                    Ok(false) => producer.fall_asleep(),
                    Err(_) => garbage.0 = true,
                }
                let _ = (producer.must_ring(), producer.is_reader_gone());
            }
            match consumer.next() {
                Ok(Some(record)) if !garbage.1 => {
                    let _ = bytes_of(&consumer, record);
                    let _ = (consumer.first_word(), consumer.release(record));
                }
                Ok(_) => consumer.fall_asleep(),
                Err(_) => garbage.1 = true,
            }
        }
    }
}

//! The runtime without an interpreter: nanoseconds per item, the median of five rounds.
//!
//! `cargo bench -p goslings` runs all; a word after `--` runs the workloads that contain it.
//! `GOSLINGS_PROCS` sets the number of workers.

use goslings::{Case, Chan, Job, Mutex, Wait, WaitGroup, now, procs, select, set_procs, sleep, spawn};
use std::sync::Arc;
use std::time::Duration;

const ROUNDS: usize = 5;

fn go(body: impl FnOnce() + Send + 'static) {
    spawn(Job::new(body));
}

/// Runs `body` so many times at once, each in a goroutine, and waits for all.
fn gang(count: usize, body: impl Fn(usize) + Send + Sync + 'static) {
    let (body, group) = (Arc::new(body), Arc::new(WaitGroup::new()));
    group.add(count as i64).expect("positive");
    for index in 0..count {
        let (body, group) = (Arc::clone(&body), Arc::clone(&group));
        go(move || {
            body(index);
            group.done().expect("added");
        });
    }
    group.wait(Wait::Forever).expect("nobody cancels");
}

fn send(chan: &Chan<u64>, value: u64) {
    chan.send(value, Wait::Forever).expect("open");
}

fn recv(chan: &Chan<u64>) -> u64 {
    chan.recv(Wait::Forever).expect("open")
}

/// Goroutines that end at once.
fn spawn_many(items: usize) {
    gang(items, |_| {});
}

/// Two goroutines, a value there and back: an item is a round trip.
fn pingpong(items: usize) {
    let (there, back) = (Chan::new(0), Chan::new(0));
    gang(2, move |index| {
        for item in 0..items as u64 {
            if index == 0 {
                send(&there, item);
                recv(&back);
            } else {
                send(&back, recv(&there));
            }
        }
    });
}

/// So many senders and receivers on one channel.
fn stream(items: usize, capacity: usize, pairs: usize) {
    let chan = Chan::new(capacity);
    gang(2 * pairs, move |index| {
        for item in 0..(items / pairs) as u64 {
            if index % 2 == 0 {
                send(&chan, item);
            } else {
                recv(&chan);
            }
        }
    });
}

/// One goroutine selects from two channels, each fed by another.
fn select_two(items: usize) {
    let chans = [Chan::new(0), Chan::new(0)];
    gang(3, move |index| {
        if index < 2 {
            (0..(items / 2) as u64).for_each(|item| send(&chans[index], item));
            return;
        }
        for _ in 0..items / 2 * 2 {
            let mut cases = [Case::Recv(&chans[0]), Case::Recv(&chans[1])];
            select(&mut cases, Wait::Forever).expect("fed");
        }
    });
}

/// Eight goroutines lock and unlock one mutex.
fn mutex(items: usize) {
    let mutex = Mutex::new();
    gang(8, move |_| {
        for _ in 0..items / 8 {
            mutex.lock(Wait::Forever).expect("nobody cancels");
            mutex.unlock().expect("locked");
        }
    });
}

/// The first so many primes through a chain of filters. Returns how many filters were passed or stopped
/// at by the numbers up to the last prime: each is an item.
fn sieve(primes: usize) -> usize {
    let answer = Arc::new(Chan::new(1));
    let sender = Arc::clone(&answer);
    go(move || {
        let mut from = Arc::new(Chan::new(0));
        let numbers = Arc::clone(&from);
        // Until the channel is closed, as all are in the end.
        go(move || assert!(!(2..).all(|number| numbers.send(number, Wait::Forever).is_ok())));
        let (mut all, mut last) = (vec![Arc::clone(&from)], 0);
        for _ in 0..primes {
            let prime = recv(&from);
            last = prime;
            let (source, sink) = (from, Arc::new(Chan::new(0)));
            from = Arc::clone(&sink);
            all.push(Arc::clone(&sink));
            go(move || {
                while let Ok(number) = source.recv(Wait::Forever) {
                    if number % prime != 0 && sink.send(number, Wait::Forever).is_err() {
                        return;
                    }
                }
            });
        }
        all.iter().for_each(|chan| chan.close().expect("once"));
        send(&sender, last);
    });
    let last = recv(&answer);
    let mut found: Vec<u64> = Vec::new();
    (2..=last).fold(0, |hops, number| {
        let divisor = found.iter().position(|prime| number % prime == 0);
        if divisor.is_none() {
            found.push(number);
        }
        hops + divisor.map_or(found.len(), |place| place + 1)
    })
}

/// A thousand goroutines that sleep again and again: an item is a sleep beyond its time.
fn timer(items: usize) -> Duration {
    let slept = Duration::from_micros(100);
    let rounds = items / 1000;
    let start = now();
    gang(1000, move |_| {
        for _ in 0..rounds {
            sleep(Wait::at_most(slept)).expect("nobody cancels");
        }
    });
    Duration::from_nanos(now().0 - start.0).saturating_sub(slept * rounds as u32)
}

fn measure(name: &str, mut round: impl FnMut() -> (Duration, usize)) {
    let wanted = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect::<Vec<_>>();
    if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
        return;
    }
    let mut each: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (time, items) = round();
            time.as_nanos() as f64 / items as f64
        })
        .collect();
    each.sort_by(f64::total_cmp);
    println!("{name:12} {:10.1} ns", each[ROUNDS / 2]);
}

/// Measures a workload that carries out `items`.
fn items(name: &str, items: usize, workload: impl Fn(usize)) {
    measure(name, || {
        let start = now();
        workload(items);
        (Duration::from_nanos(now().0 - start.0), items)
    });
}

fn main() {
    if let Some(number) = std::env::var("GOSLINGS_PROCS").ok().and_then(|text| text.parse().ok()) {
        set_procs(number);
    }
    println!("{} workers, median of {ROUNDS}", procs());
    items("spawn", 200_000, spawn_many);
    items("pingpong", 200_000, pingpong);
    items("unbuffered", 300_000, |items| stream(items, 0, 1));
    items("buffered", 1_000_000, |items| stream(items, 128, 1));
    items("mpmc", 400_000, |items| stream(items, 16, 4));
    items("select2", 300_000, select_two);
    items("mutex", 1_000_000, mutex);
    measure("sieve", || {
        let start = now();
        let hops = sieve(300);
        (Duration::from_nanos(now().0 - start.0), hops)
    });
    measure("timer", || (timer(20_000), 20_000));
}

//! Everything at once, for as long as `GOSLINGS_STRESS_SECONDS` says (5), with exact accounting at the end.
//! Run with `cargo test -p goslings --release --test stress -- --ignored --nocapture`; choices flow from
//! the seed that is printed, and that `GOSLINGS_SEED` sets.

#![cfg(not(miri))] // It cannot switch stacks.

use goslings::{
    Barrier, Case, Chan, Cond, Event, Job, Mutex, RwMutex, Semaphore, Task, Wait, WaitGroup, select,
    set_procs, spawn, yield_now,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    let seed = from_env("GOSLINGS_SEED", goslings::now().0);
    println!("GOSLINGS_SEED={seed}");
    seed
}

/// How long each scenario runs.
fn time() -> Duration {
    Duration::from_secs(from_env("GOSLINGS_STRESS_SECONDS", 5))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)) >> 16) % bound
    }

    /// Mostly patient.
    fn wait(&mut self) -> Wait {
        match self.below(8) {
            0 => Wait::No,
            1..=3 => Wait::at_most(Duration::from_micros(1 + self.below(200))),
            _ => Wait::Forever,
        }
    }
}

/// Runs `body` in goroutines and threads until it is told to end, cancels goroutines at random meanwhile
/// and changes the number of workers. `body` is told the number of its runner, and has to end when the
/// flag is down and its waits fail; `release` is called again and again to make them.
fn storm(
    goroutines: usize,
    threads: usize,
    body: impl Fn(&mut Random, &AtomicBool) + Send + Sync + 'static,
    mut release: impl FnMut(),
) {
    let mut random = Random(seed());
    let (body, go_on) = (Arc::new(body), Arc::new(AtomicBool::new(true)));
    let left = Arc::new(AtomicUsize::new(goroutines + threads));
    let runner = |mut own: Random| {
        let (body, go_on, left) = (Arc::clone(&body), Arc::clone(&go_on), Arc::clone(&left));
        move || {
            body(&mut own, &go_on);
            left.fetch_sub(1, SeqCst);
        }
    };
    let tasks: Vec<Arc<Task>> =
        (0..goroutines).map(|_| spawn(Job::new(runner(Random(random.below(u64::MAX)))))).collect();
    let joined: Vec<_> =
        (0..threads).map(|_| thread::spawn(runner(Random(random.below(u64::MAX))))).collect();
    let end = Instant::now() + time();
    while Instant::now() < end {
        for _ in 0..random.below(5) {
            tasks[random.below(goroutines as u64) as usize].cancel();
        }
        if random.below(50) == 0 {
            set_procs(1 + random.below(6) as usize);
        }
        thread::sleep(Duration::from_micros(random.below(300)));
    }
    go_on.store(false, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(60);
    while left.load(SeqCst) > 0 {
        assert!(Instant::now() < deadline, "{} runners hang", left.load(SeqCst));
        for task in &tasks {
            task.cancel();
        }
        release();
        thread::sleep(Duration::from_millis(1));
    }
    for thread in joined {
        thread.join().expect("no panic");
    }
}

#[test]
#[ignore = "long; make stress"]
fn channels_deliver_each_value_once() {
    /// Sums of what went in and came out: equal sums of values and of squares, and equal counts.
    #[derive(Default)]
    struct Sums([AtomicU64; 3]);
    impl Sums {
        fn add(&self, value: u64) {
            for (sum, term) in self.0.iter().zip([1, value, value.wrapping_mul(value)]) {
                sum.fetch_add(term, SeqCst);
            }
        }
        fn get(&self) -> [u64; 3] {
            [0, 1, 2].map(|index| self.0[index].load(SeqCst))
        }
    }
    let chans: Arc<Vec<Chan<u64>>> = Arc::new([0, 0, 1, 5].into_iter().map(Chan::new).collect());
    let (sent, received) = (Arc::new(Sums::default()), Arc::new(Sums::default()));
    let next = AtomicU64::new(1);
    let (inner, into, out) = (Arc::clone(&chans), Arc::clone(&sent), Arc::clone(&received));
    let body = move |random: &mut Random, go_on: &AtomicBool| {
        while go_on.load(SeqCst) {
            let chan = &inner[random.below(4) as usize];
            let other = &inner[random.below(4) as usize];
            let wait = random.wait();
            let value = next.fetch_add(1, SeqCst);
            match random.below(4) {
                0 if chan.send(value, wait).is_ok() => into.add(value),
                1 => {
                    if let Ok(got) = chan.recv(wait) {
                        out.add(got);
                    }
                }
                2 => {
                    let mut cases = [Case::Recv(chan), Case::Send(other, Some(value)), Case::Recv(other)];
                    let done = select(&mut cases, wait);
                    match (done, &cases[1]) {
                        (Ok(done), Case::Send(_, left)) if done.index == 1 => {
                            assert_eq!((done.value, *left), (None, None));
                            into.add(value);
                        }
                        (Ok(done), Case::Send(_, left)) => {
                            assert_eq!(*left, Some(value), "sent and received in one select");
                            out.add(done.value.expect("open"));
                        }
                        (Err(_), Case::Send(_, left)) => assert_eq!(*left, Some(value)),
                        _ => unreachable!(),
                    }
                }
                3 if random.below(16) == 0 => yield_now(),
                _ => {}
            }
        }
    };
    let (inner, into, out) = (Arc::clone(&chans), Arc::clone(&sent), Arc::clone(&received));
    let release = move || {
        // For the threads, which cannot be cancelled: a partner for whoever waits.
        for chan in inner.iter() {
            if let Ok(got) = chan.try_recv() {
                out.add(got);
            }
            if chan.try_send(0).is_ok() {
                into.add(0);
            }
        }
    };
    storm(200, 4, body, release);
    for chan in chans.iter() {
        while let Ok(got) = chan.try_recv() {
            received.add(got);
        }
    }
    println!("{} values", sent.get()[0]);
    assert_eq!(sent.get(), received.get());
}

#[test]
#[ignore = "long; make stress"]
fn objects_count_right() {
    struct Objects {
        mutex: Mutex,
        lock: RwMutex,
        semaphore: Semaphore,
        cond: Cond,
        tokens: AtomicI64,
        inside: [AtomicI64; 3],
    }
    let objects = Arc::new(Objects {
        mutex: Mutex::new(),
        lock: RwMutex::new(),
        semaphore: Semaphore::new(5),
        cond: Cond::new(),
        tokens: AtomicI64::new(0),
        inside: Default::default(),
    });
    let inner = Arc::clone(&objects);
    let body = move |random: &mut Random, go_on: &AtomicBool| {
        let enter = |which: usize, number: i64, most: i64, stay: bool| {
            let before = inner.inside[which].fetch_add(number, SeqCst);
            assert!(before >= 0 && before + number <= most, "{before} + {number} of {most} inside");
            if stay {
                yield_now();
            }
            inner.inside[which].fetch_sub(number, SeqCst);
        };
        while go_on.load(SeqCst) {
            let (wait, stay) = (random.wait(), random.below(4) == 0);
            match random.below(6) {
                0 if inner.mutex.lock(wait).is_ok() => {
                    enter(0, 1, 1, stay);
                    inner.mutex.unlock().expect("locked");
                }
                1 if inner.lock.lock(wait).is_ok() => {
                    enter(1, 1000, 1000, stay);
                    inner.lock.unlock().expect("locked");
                }
                2 if inner.lock.rlock(wait).is_ok() => {
                    enter(1, 1, 999, stay);
                    inner.lock.runlock().expect("locked");
                }
                3 => {
                    let number = 1 + random.below(5);
                    if inner.semaphore.acquire(number, wait).is_ok() {
                        enter(2, number as i64, 5, stay);
                        inner.semaphore.release(number).expect("held");
                    }
                }
                // One token for each notify: if a notify is lost, somebody waits beside a token.
                4 if inner.mutex.lock(wait).is_ok() => {
                    inner.tokens.fetch_add(1, SeqCst);
                    inner.cond.notify_one();
                    inner.mutex.unlock().expect("locked");
                }
                5 if inner.mutex.lock(wait).is_ok() => {
                    let mut ended = false;
                    while !ended && inner.tokens.load(SeqCst) <= 0 {
                        ended = inner.cond.wait(&inner.mutex, wait).is_err();
                        enter(0, 1, 1, false);
                    }
                    if !ended {
                        inner.tokens.fetch_sub(1, SeqCst);
                    }
                    inner.mutex.unlock().expect("locked again");
                }
                _ => {}
            }
        }
    };
    let inner = Arc::clone(&objects);
    storm(200, 4, body, move || {
        inner.mutex.lock(Wait::Forever).expect("a plain thread");
        inner.tokens.fetch_add(1000, SeqCst);
        inner.mutex.unlock().expect("locked");
        inner.cond.notify_all();
    });
    assert!(objects.mutex.try_lock() && objects.lock.try_lock() && objects.semaphore.try_acquire(5));
}

#[test]
#[ignore = "long; make stress"]
fn groups_and_barriers_release_everybody_round_by_round() {
    const PARTIES: usize = 50;
    println!("for {:?}", time());
    let end = Instant::now() + time();
    let (mut rounds, barrier) = (0, Arc::new(Barrier::new(PARTIES)));
    while Instant::now() < end {
        let (group, event) = (Arc::new(WaitGroup::new()), Arc::new(Event::new()));
        let (sum, released) = (Arc::new(AtomicUsize::new(0)), Arc::new(WaitGroup::new()));
        group.add(PARTIES as i64).expect("positive");
        released.add(PARTIES as i64).expect("positive");
        for _ in 0..PARTIES {
            let (group, event, barrier) = (Arc::clone(&group), Arc::clone(&event), Arc::clone(&barrier));
            let (sum, released) = (Arc::clone(&sum), Arc::clone(&released));
            spawn(Job::new(move || {
                sum.fetch_add(barrier.wait(Wait::Forever).expect("whole"), SeqCst);
                group.done().expect("added");
                group.wait(Wait::Forever).expect("nobody cancels");
                event.wait(Wait::Forever).expect("nobody cancels");
                released.done().expect("added");
            }));
        }
        group.wait(Wait::at_most(Duration::from_secs(60))).expect("all arrive");
        assert_eq!(sum.load(SeqCst), PARTIES * (PARTIES - 1) / 2);
        event.set();
        released.wait(Wait::at_most(Duration::from_secs(60))).expect("all are released");
        rounds += 1;
    }
    println!("{rounds} rounds");
}

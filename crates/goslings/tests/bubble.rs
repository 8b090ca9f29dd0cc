//! Bubbles with the plain host: a clock that jumps, and schedules that repeat.

#![cfg(not(any(loom, miri)))]

use goslings::bubble::{self, Bubble, Config, On, Order, Status, Step};
use goslings::{Chan, Job, Wait, now, sleep, spawn_in};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn config(explores: bool, order: Order, seed: u64) -> Config {
    Config { explores, order, seed, early_timers: false, steps_max: 10_000 }
}

fn run(config: Config, body: impl FnOnce() + Send + 'static) -> Arc<Bubble> {
    let bubble = Bubble::new(config, Box::new(()));
    spawn_in(Some(&bubble), goslings::Task::reserve_id(), Job::new(body), std::ptr::null_mut(), |_| {})
        .unwrap();
    bubble.settled().wait(Wait::at_most(Duration::from_secs(60))).unwrap();
    bubble
}

fn step(label: &'static str, on: On) {
    bubble::operation(label, on, |_| Some(0)).unwrap();
}

#[test]
fn a_day_takes_no_time() {
    let (began, slept) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&slept);
    let bubble = run(config(false, Order::Fifo, 1), move || {
        step("sleep", On::Nothing);
        sleep(Wait::at_most(Duration::from_secs(86_400))).unwrap();
        // Ordering: Relaxed. Read after the bubble has settled.
        seen.store(now().0, Ordering::Relaxed);
    });
    assert_eq!(bubble.status(), Status::Ended);
    // Ordering: Relaxed. As above.
    assert_eq!(slept.load(Ordering::Relaxed), 86_400_000_000_000);
    assert!(began.elapsed() < Duration::from_secs(30));
    bubble.close();
}

#[test]
fn all_blocked_is_a_deadlock() {
    let bubble = run(config(false, Order::Fifo, 1), || {
        let chan = Chan::<u32>::new(0);
        step("recv", On::Made(chan.bubble()));
        let _ = chan.recv(Wait::Forever);
    });
    assert_eq!(bubble.status(), Status::Deadlock);
    let members = bubble.members();
    assert_eq!((members.len(), members[0].number, members[0].label), (1, 0, "recv"));
    bubble.end();
    members[0].task.cancel();
    bubble.settled().wait(Wait::at_most(Duration::from_secs(60))).unwrap();
    assert_eq!(bubble.live(), 0);
    bubble.close();
}

fn trace_of(order: Order, seed: u64) -> Vec<Step> {
    let bubble = run(config(true, order, seed), || {
        let chan = Arc::new(Chan::new(1));
        for number in 0..3 {
            let chan = Arc::clone(&chan);
            step("go", On::Anything);
            goslings::spawn(Job::new(move || {
                step("send", On::Anything);
                chan.send(number, Wait::Forever).unwrap();
            }));
        }
        for _ in 0..3 {
            step("recv", On::Anything);
            chan.recv(Wait::Forever).unwrap();
        }
    });
    assert_eq!(bubble.status(), Status::Ended);
    let trace = bubble.take_trace();
    bubble.close();
    trace
}

#[test]
fn a_seed_repeats_a_schedule() {
    for order in [Order::Random, Order::Pct { depth: 3, span: 16 }] {
        let traces: Vec<_> = (0..30).map(|seed| trace_of(order, seed)).collect();
        for (seed, trace) in (0..30).zip(&traces) {
            assert_eq!(&trace_of(order, seed), trace, "{order:?} {seed}");
        }
        let mut different = traces;
        different.sort_by_key(|trace| format!("{trace:?}"));
        different.dedup();
        assert!(different.len() > 5, "{order:?}: {}", different.len());
    }
}

//! Models of channels. What travels is a cell that loom watches: a hand-over without its happens-before
//! edge is a reported race, a lost wake a reported deadlock.

use super::*;
use crate::clock::Deadline;
use crate::sync::{Ordering, fence, model};
use crate::watched::Watched;
use ::loom::sync::Arc;
use ::loom::thread;

/// A deadline that has always passed.
const AT_ONCE: Wait = Wait::Until(Deadline(0));

/// A value whose sender and receiver touch what loom watches.
#[derive(Debug)]
struct Parcel(Watched);

impl Parcel {
    fn new(content: u32) -> Parcel {
        let parcel = Parcel(Watched::default());
        parcel.0.set(content);
        parcel
    }

    fn open(self) -> u32 {
        self.0.get()
    }
}

fn chan(capacity: usize) -> Arc<Chan<Parcel>> {
    Arc::new(Chan::new(capacity))
}

#[test]
fn a_rendezvous_hands_over() {
    model(0, || {
        let chan = chan(0);
        let sender = Arc::clone(&chan);
        let thread = thread::spawn(move || {
            sender.send(Parcel::new(1), Wait::Forever).expect("open");
            sender.send(Parcel::new(2), Wait::Forever).expect("open");
        });
        assert_eq!(chan.recv(Wait::Forever).map(Parcel::open), Ok(1));
        assert_eq!(chan.recv(Wait::Forever).map(Parcel::open), Ok(2));
        thread.join().expect("no panic");
    });
}

#[test]
fn two_senders_and_a_full_buffer_lose_nothing() {
    model(0, || {
        let chan = chan(1);
        let threads: Vec<_> = (1..=2)
            .map(|content| {
                let chan = Arc::clone(&chan);
                thread::spawn(move || chan.send(Parcel::new(content), Wait::Forever).expect("open"))
            })
            .collect();
        let first = chan.recv(Wait::Forever).expect("open").open();
        let second = chan.recv(Wait::Forever).expect("open").open();
        assert_eq!(first + second, 3);
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert!(chan.is_empty());
    });
}

#[test]
fn two_receivers_take_one_each() {
    model(0, || {
        let chan = chan(0);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let chan = Arc::clone(&chan);
                thread::spawn(move || chan.recv(Wait::Forever).expect("open").open())
            })
            .collect();
        chan.send(Parcel::new(1), Wait::Forever).expect("open");
        chan.send(Parcel::new(2), Wait::Forever).expect("open");
        let sum: u32 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert_eq!(sum, 3);
    });
}

#[test]
fn close_beside_a_send_either_refuses_it_or_keeps_it() {
    for capacity in [0, 1] {
        model(0, move || {
            let chan = chan(capacity);
            let sender = Arc::clone(&chan);
            let sent = thread::spawn(move || match sender.send(Parcel::new(1), Wait::Forever) {
                Ok(()) => true,
                Err(refused) => {
                    assert_eq!(refused.kind, SendErrorKind::Closed);
                    assert_eq!(refused.value.map(Parcel::open), Some(1));
                    false
                }
            });
            chan.close().expect("once");
            let got = chan.recv(Wait::Forever).map(Parcel::open);
            let sent = sent.join().expect("no panic");
            assert_eq!(got, if sent { Ok(1) } else { Err(RecvError::Closed) });
        });
    }
}

#[test]
fn close_wakes_a_receiver() {
    model(0, || {
        let chan = chan(0);
        let receiver = Arc::clone(&chan);
        let thread = thread::spawn(move || receiver.recv(Wait::Forever).map(Parcel::open));
        chan.close().expect("once");
        assert_eq!(thread.join().expect("no panic"), Err(RecvError::Closed));
    });
}

#[test]
fn a_send_that_times_out_was_not_received() {
    model(0, || {
        let chan = chan(0);
        let sender = Arc::clone(&chan);
        let thread = thread::spawn(move || match sender.send(Parcel::new(1), AT_ONCE) {
            Ok(()) => None,
            Err(refused) => refused.value.map(Parcel::open),
        });
        let got = chan.try_recv().map(Parcel::open).ok();
        let back = thread.join().expect("no panic");
        assert_eq!(got.or(back), Some(1), "lost");
        assert!(got.is_none() || back.is_none(), "doubled");
    });
}

#[test]
fn a_receive_that_times_out_took_nothing() {
    model(0, || {
        let chan = chan(0);
        let receiver = Arc::clone(&chan);
        let thread = thread::spawn(move || receiver.recv(AT_ONCE).map(Parcel::open));
        let sent = chan.try_send(Parcel::new(1)).is_ok();
        let got = thread.join().expect("no panic");
        assert_eq!(got, if sent { Ok(1) } else { Err(RecvError::TimedOut) });
    });
}

#[test]
fn a_receiver_that_times_out_does_not_take_the_others_turn() {
    model(0, || {
        let chan = chan(0);
        let (hasty, patient) = (Arc::clone(&chan), Arc::clone(&chan));
        let hasty = thread::spawn(move || hasty.recv(AT_ONCE).map(Parcel::open).ok());
        let patient = thread::spawn(move || patient.recv(Wait::Forever).map(Parcel::open).ok());
        chan.send(Parcel::new(1), Wait::Forever).expect("open");
        chan.close().expect("once");
        let got = (hasty.join().expect("no panic"), patient.join().expect("no panic"));
        assert!(got == (Some(1), None) || got == (None, Some(1)), "{got:?}");
    });
}

/// A lease as the binding has it: relaxed, with a fence where somebody sleeps.
#[derive(Debug, Default)]
struct Count {
    claimed: crate::sync::AtomicU64,
    told: crate::sync::AtomicU32,
}

impl Lease for Count {
    fn claimed(&self) -> u64 {
        // Ordering: Relaxed. As in the binding.
        self.claimed.load(Ordering::Relaxed)
    }

    fn claim(&self, number: u64) -> bool {
        // Ordering: Relaxed. As in the binding.
        self.claimed.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn take_back(&self, end: u64) -> u64 {
        // Ordering: Relaxed. As in the binding.
        self.claimed.swap(end, Ordering::Relaxed)
    }

    fn tell(&self) {
        // Ordering: Relaxed, and a SeqCst fence, which pairs with the one in `must_tell`.
        self.told.store(1, Ordering::Relaxed);
        // Ordering: SeqCst. As above.
        fence(Ordering::SeqCst);
    }
}

impl Count {
    fn must_tell(&self) -> bool {
        // Ordering: SeqCst fence between the claim and this look. Pairs with the one in `tell`.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed. As in the binding.
        self.told.load(Ordering::Relaxed) != 0 && self.told.swap(0, Ordering::Relaxed) != 0
    }
}

type Counted = std::sync::Arc<Count>;

/// A channel with so many values, of which `leased` are leased.
fn leased(capacity: usize, values: u32, leased: u64) -> (Arc<Chan<u32>>, Counted, std::sync::Arc<dyn Lease>) {
    let chan = Arc::new(Chan::new(capacity));
    for value in 0..values {
        chan.try_send(value).expect("room");
    }
    let count = Counted::default();
    let lease: std::sync::Arc<dyn Lease> = count.clone();
    let spent = chan.lease(&lease, 0, |_| true, |number, _| number + 1 < leased);
    assert!(spent.is_empty());
    (chan, count, lease)
}

#[test]
fn a_leased_value_is_received_here_or_claimed_there() {
    model(0, || {
        let (chan, count, _) = leased(2, 2, 2);
        let there: Vec<_> = (0..2)
            .map(|_| {
                let count = count.clone();
                thread::spawn(move || (0..2).filter(|&number| count.claim(number)).count())
            })
            .collect();
        let here = usize::from(chan.try_recv().is_ok());
        let there: usize = there.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert_eq!(here + there + chan.len(), 2);
    });
}

#[test]
fn a_lease_that_is_taken_back_leaves_exactly_what_nobody_claimed() {
    model(0, || {
        let (chan, count, lease) = leased(2, 2, 2);
        let claimer = {
            let count = count.clone();
            thread::spawn(move || {
                (0..2).filter(|&number| count.claim(number)).map(|number| number as u32).collect()
            })
        };
        drop(chan.end_lease(&lease));
        let mut all: Vec<u32> = claimer.join().expect("no panic");
        all.extend(std::iter::from_fn(|| chan.try_recv().ok()));
        assert_eq!(all, [0, 1], "in order, each once");
    });
}

#[test]
fn who_waits_for_room_hears_of_a_claim() {
    model(0, || {
        let (chan, count, _) = leased(1, 1, 1);
        let claimer = {
            let (chan, count) = (Arc::clone(&chan), count.clone());
            thread::spawn(move || {
                assert!(count.claim(0));
                if count.must_tell() {
                    drop(chan.claimed());
                }
            })
        };
        chan.send(1, Wait::Forever).expect("open");
        claimer.join().expect("no panic");
        assert_eq!(chan.try_recv(), Ok(1));
    });
}

#[test]
fn two_who_wait_for_room_are_both_let_in() {
    model(0, || {
        let (chan, count, _) = leased(2, 2, 2);
        let claimer = {
            let (chan, count) = (Arc::clone(&chan), count.clone());
            thread::spawn(move || {
                for number in 0..2 {
                    assert!(count.claim(number));
                    if count.must_tell() {
                        drop(chan.claimed());
                    }
                }
            })
        };
        let other = {
            let chan = Arc::clone(&chan);
            thread::spawn(move || chan.send(1, Wait::Forever).expect("open"))
        };
        chan.send(2, Wait::Forever).expect("open");
        other.join().expect("no panic");
        claimer.join().expect("no panic");
    });
}

#[test]
fn whoever_dies_with_a_claim_untold_holds_nobody_up() {
    model(0, || {
        let (chan, count, lease) = leased(1, 1, 1);
        let dies = {
            let (chan, count) = (Arc::clone(&chan), count.clone());
            thread::spawn(move || {
                let claimed = count.claim(0);
                let _ = count.must_tell();
                // Its end is all that home hears.
                drop(chan.end_lease(&lease));
                claimed
            })
        };
        chan.send(1, Wait::Forever).expect("open");
        assert!(dies.join().expect("no panic"));
        assert_eq!(chan.try_recv(), Ok(1));
    });
}

//! Models of channels. What travels is a cell that loom watches: a hand-over without its happens-before
//! edge is a reported race, a lost wake a reported deadlock.

use super::*;
use crate::clock::Deadline;
use crate::sync::model;
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

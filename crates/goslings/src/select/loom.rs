//! Models of `select`: exactly one case, whoever meets whom.

use super::*;
use crate::clock::Deadline;
use crate::sync::model;
use ::loom::sync::Arc;
use ::loom::thread;

const AT_ONCE: Wait = Wait::Until(Deadline(0));

fn pair() -> Arc<(Chan<u32>, Chan<u32>)> {
    Arc::new((Chan::new(0), Chan::new(0)))
}

#[test]
fn takes_from_whichever_comes() {
    model(0, || {
        let chans = pair();
        let threads: Vec<_> = [false, true]
            .map(|second| {
                let chans = Arc::clone(&chans);
                thread::spawn(move || {
                    let chan = if second { &chans.1 } else { &chans.0 };
                    chan.send(u32::from(second), Wait::Forever).expect("open");
                })
            })
            .into_iter()
            .collect();
        let mut seen = [false; 2];
        for _ in 0..2 {
            let mut cases = [Case::Recv(&chans.0), Case::Recv(&chans.1)];
            let selected = select(&mut cases, Wait::Forever).expect("both come");
            assert_eq!(selected.value, Some(selected.index as u32));
            assert!(!std::mem::replace(&mut seen[selected.index], true), "the same one twice");
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

#[test]
fn two_selects_meet_in_one_case() {
    model(0, || {
        let chans = pair();
        let inner = Arc::clone(&chans);
        let thread = thread::spawn(move || {
            let mut cases = [Case::Recv(&inner.0), Case::Recv(&inner.1)];
            let selected = select(&mut cases, Wait::Forever).expect("the other sends");
            (selected.index, selected.value)
        });
        // The other way round, so that they would lock in opposite orders.
        let mut cases = [Case::Send(&chans.1, Some(1)), Case::Send(&chans.0, Some(0))];
        let sent = select(&mut cases, Wait::Forever).expect("the other receives");
        let left = cases.iter().filter(|case| matches!(case, Case::Send(_, Some(_)))).count();
        assert_eq!((sent.value, left), (None, 1));
        let (index, value) = thread.join().expect("no panic");
        assert_eq!((index, value), (1 - sent.index, Some(1 - sent.index as u32)));
    });
}

#[test]
fn a_timeout_leaves_nobody_behind() {
    model(0, || {
        let chans = pair();
        let inner = Arc::clone(&chans);
        let thread = thread::spawn(move || {
            let mut cases = [Case::Recv(&inner.0), Case::Send(&inner.1, Some(7))];
            let result = select(&mut cases, AT_ONCE).map(|selected| (selected.index, selected.value));
            let kept = matches!(cases[1], Case::Send(_, Some(7)));
            (result, kept)
        });
        let sent = chans.0.try_send(5).is_ok();
        let received = chans.1.try_recv().ok();
        let (result, kept) = thread.join().expect("no panic");
        match result {
            Ok((0, value)) => assert_eq!((value, sent, received, kept), (Some(5), true, None, true)),
            Ok((_, value)) => assert_eq!((value, sent, received, kept), (None, false, Some(7), false)),
            Err(error) => {
                assert_eq!(error, SelectError::TimedOut);
                assert_eq!((sent, received, kept), (false, None, true));
            }
        }
        assert!(chans.0.try_send(6).is_err() && chans.1.try_recv().is_err(), "a stale waiter");
    });
}

#[test]
fn close_ends_a_select() {
    model(0, || {
        let chans = pair();
        let inner = Arc::clone(&chans);
        let thread = thread::spawn(move || {
            let mut cases = [Case::Recv(&inner.0), Case::Send(&inner.1, Some(7))];
            let result = select(&mut cases, Wait::Forever).map(|selected| selected.index);
            (result, matches!(cases[1], Case::Send(_, Some(7))))
        });
        chans.1.close().expect("once");
        assert_eq!(thread.join().expect("no panic"), (Err(SelectError::Closed(1)), true));
    });
}

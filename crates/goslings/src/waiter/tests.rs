//! The state word alone: no wake, no park.

use super::{Kind, Outcome, Waiter};

#[test]
fn requests_before_a_cancelled_waiter_has_noticed_are_one() {
    let waiter = Waiter::new(Kind::Task);
    assert!(waiter.begin());
    assert!(waiter.request_cancel(), "it waits: the wake is ours");
    assert!(!waiter.request_cancel() && !waiter.request_cancel());
    assert_eq!(waiter.finish(), Outcome::Cancelled);
    assert!(!waiter.take_cancel(), "nothing is left of the others");
    assert!(waiter.begin());
}

#[test]
fn a_request_after_the_wait_was_served_stays() {
    let waiter = Waiter::new(Kind::Task);
    assert!(waiter.begin() && waiter.claim(3));
    assert!(!waiter.request_cancel() && !waiter.request_cancel());
    assert_eq!(waiter.finish(), Outcome::Case(3));
    assert!(waiter.take_cancel() && !waiter.take_cancel());
}

#[test]
fn a_request_outside_a_wait_ends_the_next_one_before_it_begins() {
    let waiter = Waiter::new(Kind::Task);
    assert!(!waiter.request_cancel() && !waiter.request_cancel());
    assert!(!waiter.begin());
    assert!(waiter.begin());
}

//! Looking again and again for something that another process does, before sleeping or asking for it.
//!
//! Two sides that have both slept would sleep for ever after, if each looked for a shorter time than the other needs to wake up
//! and answer: every answer would find a sleeper. So a sleep that a longer look would have saved makes the next look longer.
//! Whoever could run on this worker meanwhile does: a look takes no time but what nobody here wants.
//!
//! The other side may have no processor but this one: the system often wakes a process where the one runs that has woken it,
//! and leaves both there for milliseconds, since neither of them sleeps. Who cannot know that (a sender without credit) lets
//! others run in between.

use crate::host::detached;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long.
const SHORT: Duration = Duration::from_micros(50);
/// How long after a sleep that was shorter: longer than the other side needs to wake up, compute a little, and answer.
const LONG: Duration = Duration::from_micros(200);
/// After so many looks in vain one after another only one in [`PROBE`] waits begins with a look: the other side takes longer,
/// or has no processor to run on, perhaps because of us.
const VAIN: u32 = 3;
/// See [`VAIN`].
const PROBE: u32 = 16;
/// How many looks there are between two looks at the clock.
const LOOKS: u32 = 32;
/// Whoever finds that so much time has gone by between two looks at the clock has lost the processor meanwhile: others want it,
/// perhaps whoever is to answer.
const LOST: Duration = Duration::from_micros(20);

/// If it takes longer to let others run, some have run.
const LET: Duration = Duration::from_micros(3);
/// How long whoever lets others run looks in all: what they run does not count, since that may be the other side.
const LETTING_MAX: Duration = Duration::from_micros(500);
/// How long: what somebody writes that is read at once costs both sides a transfer between their processors, many at a time
/// cost little more than one.
const GATHER: Duration = Duration::from_micros(2);

/// Looks are short.
const BRIEF: u8 = 0;
/// They are long.
const PATIENT: u8 = 1;
/// The last one was long, and in vain: the next ones are not, but for probes.
const DISAPPOINTED: u8 = 2;

/// Whether that has been worth while: how many waits in a row have not ended with a look, and how long the next one is.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    vain: AtomicU32,
    mood: AtomicU8,
}

/// How a look has ended.
enum Look {
    Came,
    Late,
    /// Somebody else could run here.
    Others,
}

impl Spin {
    /// Looks for a while, detached, if that is worth while, but not as long as `near`: whoever is to answer wants this
    /// processor. Whether it came. Others on this worker may run meanwhile.
    pub(crate) fn until_unless(
        &self,
        py: Python<'_>,
        came: impl Fn() -> bool,
        near: impl Fn() -> bool,
    ) -> bool {
        if near() {
            return came();
        }
        // Ordering: Relaxed, here and below. Numbers for a guess.
        let (vain, mood) = (self.vain.load(Ordering::Relaxed), self.mood.load(Ordering::Relaxed));
        let probe = vain.is_multiple_of(PROBE);
        let long = mood == PATIENT || mood == DISAPPOINTED && probe;
        let found = (vain < VAIN || probe) && look(py, if long { LONG } else { SHORT }, &came, &near);
        // Ordering: Relaxed. As above.
        self.vain.store(if found { 0 } else { vain.wrapping_add(1) }, Ordering::Relaxed);
        if long {
            // Ordering: Relaxed. As above.
            self.mood.store(if found { PATIENT } else { DISAPPOINTED }, Ordering::Relaxed);
        }
        found
    }

    /// As `until_unless`, for a short look that lets other threads of the system run in between.
    pub(crate) fn until_letting(&self, py: Python<'_>, came: impl Fn() -> bool) -> bool {
        let found = self.is_worth_while() && detached(py, || comes_letting(came));
        self.note(found);
        found
    }

    /// Whether it is worth while to wait for a moment.
    pub(crate) fn is_worth_while(&self) -> bool {
        // Ordering: Relaxed. As in `until_unless`.
        let vain = self.vain.load(Ordering::Relaxed);
        vain < VAIN || vain.is_multiple_of(PROBE)
    }

    /// Whether it was.
    pub(crate) fn note(&self, found: bool) {
        // Ordering: Relaxed. As in `until_unless`.
        let vain = self.vain.load(Ordering::Relaxed);
        // Ordering: Relaxed. As in `until_unless`.
        self.vain.store(if found { 0 } else { vain.wrapping_add(1) }, Ordering::Relaxed);
    }

    /// After a look in vain, or none, it took so long until it came.
    pub(crate) fn slept(&self, time: Duration) {
        // Ordering: Relaxed. As in `until_unless`.
        let mood = self.mood.load(Ordering::Relaxed);
        if time >= LONG && mood == PATIENT {
            // Ordering: Relaxed. As in `until_unless`.
            self.mood.store(BRIEF, Ordering::Relaxed);
        } else if time < LONG && mood == BRIEF {
            // Ordering: Relaxed, both. As in `until_unless`.
            self.mood.store(PATIENT, Ordering::Relaxed);
            self.vain.fetch_min(VAIN - 1, Ordering::Relaxed);
        }
    }
}

fn look(py: Python<'_>, time: Duration, came: &impl Fn() -> bool, near: &impl Fn() -> bool) -> bool {
    let mut spent = Duration::ZERO;
    loop {
        if goslings::others_are_ready() {
            goslings::yield_now();
        }
        match detached(py, || comes_soon(&mut spent, time, came, near)) {
            Look::Came => return true,
            Look::Late => return false,
            Look::Others => {}
        }
    }
}

fn comes_soon(
    spent: &mut Duration,
    time: Duration,
    came: &impl Fn() -> bool,
    near: &impl Fn() -> bool,
) -> Look {
    let mut last = Instant::now();
    loop {
        let seen = (0..LOOKS).any(|_| {
            std::hint::spin_loop();
            came()
        });
        let now = Instant::now();
        let since = now - last;
        last = now;
        *spent += since;
        if since >= LOST {
            // If it has come, then because we were out of the way: it would have come sooner to somebody who sleeps.
            return Look::Late;
        }
        if seen {
            return Look::Came;
        }
        if *spent >= time || near() {
            return Look::Late;
        }
        if goslings::others_are_ready() {
            return Look::Others;
        }
    }
}

fn comes_letting(came: impl Fn() -> bool) -> bool {
    let (begun, mut others) = (Instant::now(), Duration::ZERO);
    loop {
        for _ in 0..LOOKS {
            if came() {
                return true;
            }
            std::hint::spin_loop();
        }
        let before = Instant::now();
        thread::yield_now();
        let now = Instant::now();
        if now - before >= LET {
            others += now - before;
        }
        if now - begun >= LETTING_MAX || now - begun >= SHORT + others {
            return came();
        }
    }
}

/// What has come is probably the first of many: leaves them alone for a moment.
pub(crate) fn gather(py: Python<'_>) {
    detached(py, || {
        let until = Instant::now() + GATHER;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    });
}

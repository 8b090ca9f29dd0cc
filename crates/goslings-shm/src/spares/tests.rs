use super::{BYTES_MAX, PAGE, SPARES_MAX, Spares};
use crate::Segment;
use crate::ring::Source;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

const LEN: usize = 300_000;

fn written(spares: &Spares, bytes: &[u8]) -> OwnedFd {
    spares.written(bytes.len(), &[Source::from(bytes)]).expect("there is memory")
}

fn which(file: &OwnedFd) -> u64 {
    File::from(file.try_clone().expect("a descriptor")).metadata().expect("a file").ino()
}

fn bytes_of(file: OwnedFd) -> Vec<u8> {
    let segment = Segment::from_file(file, 1, false).expect("a segment");
    // SAFETY: mapped, and nobody writes it meanwhile.
    unsafe { std::slice::from_raw_parts(segment.as_ptr(), segment.len()) }.to_vec()
}

#[test]
fn the_memory_of_a_message_is_used_again_when_nobody_has_it() {
    let spares = Spares::default();
    let first = written(&spares, &[1; LEN]);
    let inode = which(&first);
    assert_ne!(which(&written(&spares, &[2; LEN])), inode, "the first is open");
    let mapped = Segment::from_file(first, LEN, false).expect("a segment");
    assert_ne!(which(&written(&spares, &[3; LEN])), inode, "the first is mapped");
    drop(mapped);
    let inodes: Vec<u64> = (0..4).map(|round| which(&written(&spares, &[round; LEN]))).collect();
    assert!(inodes.iter().all(|other| *other == inodes[0]), "{inodes:?}");
}

#[test]
fn parts_lie_one_after_another_and_nothing_is_left_of_an_earlier_message() {
    let spares = Spares::default();
    let inode = which(&written(&spares, &[1; LEN]));
    let parts = [&[2_u8; 1000][..], &[], &[3; LEN - 9000]];
    let again = spares.written(LEN - 8000, &parts.map(Source::from)).expect("there is memory");
    assert_eq!(which(&again), inode);
    let bytes = bytes_of(again);
    assert_eq!(bytes[..LEN - 8000], parts.concat());
    assert_eq!(bytes.len(), LEN.next_multiple_of(PAGE));
    assert!(bytes[LEN - 8000..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_much_shorter_or_a_longer_message_gets_memory_of_its_own() {
    let spares = Spares::default();
    let inode = which(&written(&spares, &[1; LEN]));
    assert_ne!(which(&written(&spares, &[1; LEN / 2])), inode);
    assert_ne!(which(&written(&spares, &[1; LEN + PAGE])), inode);
}

#[test]
fn who_receives_cannot_write_it_by_accident() {
    let spares = Spares::default();
    let file = written(&spares, &[1; LEN]);
    let refused = Segment::from_file(file.try_clone().expect("a descriptor"), LEN, true).map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied));
    assert!(File::from(file).write(&[0]).is_err());
}

#[test]
fn memory_that_somebody_else_could_write_is_not_used_again() {
    let spares = Spares::default();
    let file = written(&spares, &[1; LEN]);
    let inode = which(&file);
    let writer = super::opened(&file, super::OFlags::RDWR).expect("Linux lets one");
    drop(file);
    assert_ne!(which(&written(&spares, &[2; LEN])), inode);
    drop(writer);
}

#[test]
fn what_is_not_used_is_given_back() {
    let spares = Spares::default();
    assert!(!spares.must_be_tended());
    let file = written(&spares, &[1; LEN]);
    assert!(spares.must_be_tended());
    assert!(!spares.must_be_tended(), "somebody does it");
    assert!(spares.trim(Duration::from_secs(1000)));
    assert!(!spares.trim(Duration::ZERO));
    assert_eq!(bytes_of(file)[..LEN], [1; LEN], "who has it keeps it");
    drop(written(&spares, &[1; LEN]));
    assert!(spares.must_be_tended(), "as at first");
}

#[test]
fn only_so_many_are_kept() {
    let spares = Spares::default();
    let held: Vec<OwnedFd> = (0..3 * SPARES_MAX).map(|_| written(&spares, &[1; LEN])).collect();
    let kept = spares.kept().spares.len();
    assert_eq!(kept, SPARES_MAX);
    assert!(kept * LEN < BYTES_MAX);
    drop(held);
}

#[test]
fn what_cannot_be_had_is_an_error() {
    let spares = Spares::default();
    let parts = [Source::from(&[1][..])];
    assert!(spares.written(1 << 60, &parts).is_err());
    assert!(spares.written(0, &[]).is_err());
    assert_eq!(bytes_of(written(&spares, &[1; LEN]))[..LEN], [1; LEN]);
}

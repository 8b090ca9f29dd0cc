"""`_goslings.Segment`: memory that processes share."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import sys

import pytest
from goslings._goslings import Segment
from helpers import check_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files with seals are Linux's")


def names() -> set[str]:
    return set(os.listdir("/dev/shm"))


def open_inodes() -> set[int]:
    """The files that this process has open. (How many there are depends on what other tests have left.)"""
    gc.collect()
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.fstat(int(name)).st_ino)
    return inodes


def test_a_segment_is_zero_and_can_be_written() -> None:
    segment = Segment(10_000)
    assert segment.size == len(segment) == 10_000
    assert not segment.readonly
    view = memoryview(segment)
    assert view.nbytes == 10_000 and bytes(view) == bytes(10_000)
    view[5:10] = b"hello"
    assert bytes(memoryview(segment)[:12]) == b"\0\0\0\0\0hello\0\0"
    assert repr(segment) == "<Segment of 10000 bytes>"


def test_two_mappings_are_the_same_memory() -> None:
    one = Segment(100)
    other = Segment.from_fd(os.dup(one.fileno()))
    seen = Segment.from_fd(os.dup(one.fileno()), readonly=True)
    memoryview(one)[:3] = b"one"
    memoryview(other)[3:8] = b"other"
    assert bytes(memoryview(seen)[:8]) == b"oneother"
    assert seen.readonly and memoryview(seen).readonly
    assert repr(seen) == "<Segment of 100 bytes, read-only>"
    with pytest.raises(TypeError):
        memoryview(seen)[0] = 1


def test_a_child_process_sees_it() -> None:
    segment = Segment(4096)
    pid = os.fork()
    if pid == 0:
        memoryview(segment)[:5] = b"child"
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert bytes(memoryview(segment)[:5]) == b"child"


def test_the_memory_lasts_as_long_as_a_view() -> None:
    segment = Segment(4096)
    inode = os.fstat(segment.fileno()).st_ino
    view = memoryview(segment)
    del segment
    assert inode in open_inodes()
    view[:4] = b"here"
    assert bytes(view[:4]) == b"here"
    view.release()
    assert inode not in open_inodes()


def test_nothing_has_a_name() -> None:
    before = names()
    segment = Segment(1 << 20)
    assert names() <= before
    del segment


def test_its_size_is_sealed() -> None:
    segment = Segment(4096)
    for size in (0, 100, 8192):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fileno(), size)


def test_a_descriptor_that_is_no_segment_is_refused(tmp_path: os.PathLike[str]) -> None:
    fd = os.open(os.path.join(tmp_path, "file"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4096)
    inodes = {os.fstat(fd).st_ino}
    with pytest.raises(ValueError, match="not one of shared memory"):
        Segment.from_fd(fd)
    unsealed = os.memfd_create("mine", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 4096)
    inodes.add(os.fstat(unsealed).st_ino)
    with pytest.raises(ValueError, match="not sealed"):
        Segment.from_fd(unsealed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Segment.from_fd(-1)
    assert not inodes & open_inodes()


def test_impossible_sizes() -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least one byte"):
            Segment(size)
    for size in (1 << 45, 1 << 60, (1 << 63) - 1):
        with pytest.raises(MemoryError, match="no memory for a shared segment"):
            Segment(size)
    with pytest.raises(OverflowError):
        Segment(1 << 70)


def test_no_descriptors_left() -> None:
    out = check_child("""
        import errno, os, resource
        from goslings._goslings import Segment
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, 10_000))
        filled = []
        try:
            while True:
                filled.append(os.dup(0))
        except OSError:
            pass
        try:
            Segment(4096)
        except OSError as error:
            print(error.errno == errno.EMFILE)
        os.close(filled.pop())
        print(Segment(4096).size)
    """)
    assert out.split() == ["True", "4096"]


def test_a_limit_on_the_size_of_files_is_an_error() -> None:
    out = check_child("""
        import errno, resource
        from goslings._goslings import Segment
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            Segment(1 << 20)
        except OSError as error:
            print(error.errno == errno.EFBIG)
        print(Segment(1 << 10).size)
    """)
    assert out.split() == ["True", "1024"]


def test_no_address_space_is_a_memory_error() -> None:
    out = check_child("""
        import os, pathlib, resource
        from goslings._goslings import Segment
        large = Segment(1 << 28)
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 26), size + (1 << 26)))
        before = len(os.listdir("/proc/self/fd"))
        try:
            Segment.from_fd(os.dup(large.fileno()))
        except MemoryError as error:
            print("MemoryError:", error)
        print(len(os.listdir("/proc/self/fd")) == before)
    """)
    assert out.splitlines() == ["MemoryError: the system has no memory for a shared segment", "True"]


def test_a_segment_is_not_copied() -> None:
    for act in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="reference already"):
            act(Segment(1))


def test_a_pickled_segment_is_the_same_memory_as_long_as_it_is_there() -> None:
    segment = Segment(100)
    readonly = Segment.from_fd(os.dup(segment.fileno()), readonly=True)
    sent = pickle.dumps(segment)
    memoryview(pickle.loads(sent))[:4] = b"here"
    again = pickle.loads(pickle.dumps(readonly))
    assert bytes(memoryview(again)[:4]) == b"here" and again.readonly
    del segment
    with pytest.raises(FileNotFoundError, match=f"process {os.getpid()}, which has ended or has let go"):
        pickle.loads(sent)

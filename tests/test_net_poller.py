"""Waiting for file descriptors: `wait_fd` and `closing_fd`, which sockets are made of."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import goslings
import pytest
from goslings import Goroutine, _goslings, chan, go, testing
from goslings._goslings import closing_fd, wait_fd
from helpers import SECONDS, check_child, count, results, state, until, waits

READ, WRITE = "net read", "net write"
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets that do not block."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def reader(sock: socket.socket) -> Goroutine[bool]:
    """A goroutine that waits until `sock` can be read."""
    return waits(go(wait_fd, sock.fileno(), False), READ)


def fill(sock: socket.socket) -> None:
    """Writes until there is no more room."""
    try:
        while True:
            sock.send(bytes(1 << 16))
    except BlockingIOError:
        pass


def bad_fd(goroutine: Goroutine[object]) -> None:
    with pytest.raises(OSError) as error:
        goroutine.result(SECONDS)
    assert error.value.errno == errno.EBADF


def test_a_goroutine_waits_until_there_is_something_to_read(pair: Pair) -> None:
    waiting = reader(pair[0])
    pair[1].send(b"x")
    assert waiting.result(SECONDS)


def test_a_goroutine_waits_until_there_is_room(pair: Pair) -> None:
    fill(pair[0])
    waiting = waits(go(wait_fd, pair[0].fileno(), True), WRITE)
    while select.select([pair[1]], [], [], 0)[0]:
        pair[1].recv(1 << 20)
    assert waiting.result(SECONDS)


def test_what_is_ready_is_not_waited_for(start: Callable[..., Callable[[], object]], pair: Pair) -> None:
    pair[1].send(b"x")
    fd = pair[0].fileno()
    assert start(lambda: wait_fd(fd, False))() is True
    assert start(lambda: wait_fd(fd, False, 0))() is True
    assert start(lambda: wait_fd(fd, True))() is True


def test_a_wait_ends_in_time(start: Callable[..., Callable[[], object]], pair: Pair) -> None:
    fd = pair[0].fileno()
    began = time.monotonic()
    assert start(lambda: wait_fd(fd, False, 0.02))() is False
    assert time.monotonic() - began >= 0.02
    assert start(lambda: wait_fd(fd, False, 0))() is False
    assert start(lambda: wait_fd(fd, False, -1))() is False


def test_a_plain_thread_waits_and_is_woken(pair: Pair) -> None:
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(wait_fd(pair[0].fileno(), False)))
    thread.start()
    pair[1].send(b"x")
    thread.join(SECONDS)
    assert answer == [True]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
def test_a_signal_handler_may_raise_out_of_a_wait_of_the_main_thread(pair: Pair) -> None:
    def handler(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(InterruptedError):
            wait_fd(pair[0].fileno(), False)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_readers_and_writers_of_one_descriptor_are_told_apart(pair: Pair) -> None:
    fill(pair[0])
    read = reader(pair[0])
    write = waits(go(wait_fd, pair[0].fileno(), True), WRITE)
    pair[1].send(b"x")
    assert read.result(SECONDS)
    assert state(write) == WRITE
    while select.select([pair[1]], [], [], 0)[0]:
        pair[1].recv(1 << 20)
    assert write.result(SECONDS)


def test_everybody_who_waits_for_it_goes_on(pair: Pair) -> None:
    waiting = [reader(pair[0]) for _ in range(20)]
    pair[1].send(b"x")
    assert results(waiting) == [True] * 20


def test_who_comes_too_late_waits_again(pair: Pair) -> None:
    got: chan[bytes] = chan(2)

    def read() -> None:
        while True:
            wait_fd(pair[0].fileno(), False)
            try:
                got.send(pair[0].recv(1))
                return
            except BlockingIOError:
                pass

    both = [go(read), go(read)]
    for goroutine in both:
        waits(goroutine, READ)
    pair[1].send(b"a")
    assert got.recv(SECONDS) == b"a"
    pair[1].send(b"b")
    assert got.recv(SECONDS) == b"b"
    results(both)


def test_a_half_closed_connection_can_be_read(pair: Pair) -> None:
    waiting = reader(pair[0])
    pair[1].shutdown(socket.SHUT_WR)
    assert waiting.result(SECONDS)
    assert pair[0].recv(1) == b""


def test_a_hang_up_ends_waits_in_both_directions(pair: Pair) -> None:
    fill(pair[0])
    read = reader(pair[0])
    write = waits(go(wait_fd, pair[0].fileno(), True), WRITE)
    pair[1].close()
    assert results([read, write]) == [True, True]


def test_the_end_of_a_pipe_is_seen() -> None:
    out, into = os.pipe()
    waiting = waits(go(wait_fd, out, False), READ)
    os.close(into)
    assert waiting.result(SECONDS)
    os.close(out)


def test_a_refused_connection_is_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(address) in (errno.EINPROGRESS, errno.ECONNREFUSED)
        assert go(wait_fd, sock.fileno(), True).result(SECONDS)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ECONNREFUSED, 0)


def test_a_file_on_a_disk_is_always_ready(start: Callable[..., Callable[[], object]]) -> None:
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        assert start(lambda: wait_fd(fd, False))() is True
        assert start(lambda: wait_fd(fd, True, 1))() is True


@pytest.mark.parametrize("fd", [-1, 10**6, 2**31 - 1])
def test_what_is_no_descriptor_is_refused(fd: int) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        wait_fd(fd, False)
    assert error.value.errno == errno.EBADF
    closing_fd(fd)


# Closing


def test_who_waits_for_what_is_closed_is_told(pair: Pair) -> None:
    fill(pair[0])
    waiting = [reader(pair[0]), waits(go(wait_fd, pair[0].fileno(), True), WRITE)]
    closing_fd(pair[0].fileno())
    pair[0].close()
    for goroutine in waiting:
        bad_fd(goroutine)


def test_a_thread_that_waits_for_what_is_closed_is_told(pair: Pair) -> None:
    fd = pair[0].fileno()
    caught: list[int | None] = []

    def wait() -> None:
        try:
            wait_fd(fd, False)
        except OSError as error:
            caught.append(error.errno)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: READ in thread_waits())
    closing_fd(fd)
    thread.join(SECONDS)
    assert caught == [errno.EBADF]


def thread_waits() -> list[str]:
    """What plain threads wait for."""
    return [thread["state"] for thread in _goslings._stacks()[1]]


def test_a_number_may_be_used_again_after_closing(pair: Pair) -> None:
    """The descriptor is closed, its number taken by another file, and that one waited for: many times."""
    fd = os.dup(pair[0].fileno())
    for _ in range(count(50)):
        old = waits(go(wait_fd, fd, False), READ)
        new_one, new_other = socket.socketpair()
        with new_one, new_other:
            closing_fd(fd)
            os.dup2(new_one.fileno(), fd)
            bad_fd(old)
            new = waits(go(wait_fd, fd, False), READ)
            new_other.send(b"x")
            assert new.result(SECONDS)
            closing_fd(fd)
            os.dup2(pair[0].fileno(), fd)
    os.close(fd)


def test_a_number_that_is_used_again_behind_our_back_loses_no_wake(pair: Pair) -> None:
    fd = os.dup(pair[0].fileno())
    lost = waits(go(wait_fd, fd, False), READ)
    new_one, new_other = socket.socketpair()
    with new_one, new_other:
        os.dup2(new_one.fileno(), fd)
        new = waits(go(wait_fd, fd, False), READ)
        new_other.send(b"x")
        assert new.result(SECONDS)
        # It waits for a number, which it finds ready.
        assert lost.result(SECONDS)
    os.close(fd)


def test_what_happens_to_a_copy_of_what_is_gone_wakes_nobody(pair: Pair) -> None:
    """The old file lives on by a copy, and the system still reports it under the number."""
    fd = os.dup(pair[0].fileno())
    assert go(wait_fd, fd, False, 0.001).result(SECONDS) is False
    new_one, new_other = socket.socketpair()
    with new_one, new_other:
        os.dup2(new_one.fileno(), fd)
        waiting = waits(go(wait_fd, fd, False), READ)
        for _ in range(10):
            pair[1].send(b"x")
        assert go(wait_fd, pair[0].fileno(), False).result(SECONDS)
        assert state(waiting) == READ
        new_other.send(b"x")
        assert waiting.result(SECONDS)
    os.close(fd)


def test_copies_of_a_descriptor_are_waited_for_apart(pair: Pair) -> None:
    copy = os.dup(pair[0].fileno())
    both = [reader(pair[0]), waits(go(wait_fd, copy, False), READ)]
    closing_fd(copy)
    os.close(copy)
    bad_fd(both[1])
    assert state(both[0]) == READ
    pair[1].send(b"x")
    assert both[0].result(SECONDS)


def test_closing_and_waiting_at_the_same_time_leaves_nobody_behind(two_workers: None) -> None:
    def wait(fd: int, rounds: int) -> None:
        for _ in range(rounds):
            try:
                wait_fd(fd, False)
            except OSError as error:
                assert error.errno == errno.EBADF

    rounds = count(200)
    one, other = socket.socketpair()
    with one, other:
        fd = one.fileno()
        waiting = [go(wait, fd, rounds) for _ in range(4)]

        def close() -> None:
            while any(state(goroutine) != "done" for goroutine in waiting):
                closing_fd(fd)
                goslings.gosched()

        go(close).result(SECONDS)
        results(waiting)


# Beside others


def test_a_cancelled_goroutine_waits_no_more(pair: Pair) -> None:
    waiting = reader(pair[0])
    waiting.cancel("enough")
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    again = reader(pair[0])
    pair[1].send(b"x")
    assert again.result(SECONDS)


def test_a_goroutine_that_computes_does_not_keep_others_from_their_sockets(one_worker: None, pair: Pair) -> None:
    stop = False

    def hog() -> int:
        rounds = 0
        while not stop:
            rounds += 1
        return rounds

    waiting = reader(pair[0])
    busy = go(hog)
    until(lambda: state(busy) == "running")
    pair[1].send(b"x")
    try:
        assert waiting.result(SECONDS)
    finally:
        stop = True
    assert busy.result(SECONDS)


def test_goroutines_that_are_always_ready_do_not_keep_others_from_their_sockets(one_worker: None, pair: Pair) -> None:
    stop = False

    def spin() -> None:
        while not stop:
            goslings.gosched()

    waiting = reader(pair[0])
    busy = [go(spin) for _ in range(3)]
    pair[1].send(b"x")
    try:
        assert waiting.result(SECONDS)
    finally:
        stop = True
    results(busy)


def test_a_wait_is_no_deadlock_and_one_is_seen_when_it_is_over() -> None:
    out = check_child(
        """
        import subprocess, sys
        from goslings import Deadlock, _goslings, chan, go
        # Nothing of this process can end the wait, and it takes longer than the search for deadlocks.
        with subprocess.Popen(["sh", "-c", "sleep 0.5; echo x"], stdout=subprocess.PIPE) as other:
            fd = other.stdout.fileno()
            assert go(_goslings.wait_fd, fd, False).result()
            assert _goslings.wait_fd(fd, False)
        try:
            chan().recv()
        except Deadlock:
            print("deadlock")
        """
    )
    assert out == "deadlock\n"


def test_stacks_tell_which_descriptor_is_waited_for(pair: Pair) -> None:
    waiting = reader(pair[0])
    text = "\n".join(str(stack) for stack in goslings.stacks())
    assert f"[{READ}" in text
    assert f"waits for descriptor {pair[0].fileno()}" in text
    pair[1].send(b"x")
    waiting.result(SECONDS)


def test_a_wait_is_no_leak(collect: None, pair: Pair) -> None:
    number = go(wait_fd, pair[0].fileno(), False).id
    until(lambda: any(stack.id == number and stack.state == READ for stack in goslings.stacks()))
    assert number not in {leak.id for leak in goslings.leaks()}
    pair[1].send(b"x")
    until(lambda: all(stack.id != number for stack in goslings.stacks()))


def test_virtual_time_stands_while_somebody_waits_for_a_descriptor(pair: Pair) -> None:
    def main() -> float:
        sleeping = go(goslings.sleep, 1)
        waiting = go(wait_fd, pair[0].fileno(), False)
        timer = threading.Timer(0.05, pair[1].send, [b"x"])
        timer.start()
        assert waiting.result()
        woken = testing.now()
        sleeping.join()
        return woken

    began = testing.virtual_time(seed=1).run(testing.now)
    assert testing.virtual_time(seed=1).run(main) == began


def test_a_thousand_wait_at_once(two_workers: None) -> None:
    pairs = [socket.socketpair() for _ in range(400)]
    try:
        waiting = [go(wait_fd, one.fileno(), False) for one, _ in pairs]
        for _, other in reversed(pairs):
            other.send(b"x")
        assert all(results(waiting))
    finally:
        for one, other in pairs:
            one.close()
            other.close()


def test_bytes_go_to_and_fro(two_workers: None) -> None:
    """Each side waits for the other, on whatever worker: a lost wake would be the end."""

    def play(sock: socket.socket, rounds: int) -> None:
        for _ in range(rounds):
            while True:
                try:
                    byte = sock.recv(1)
                    break
                except BlockingIOError:
                    wait_fd(sock.fileno(), False)
            sock.send(byte)

    rounds = count(2000)
    pairs = [socket.socketpair() for _ in range(8)]
    players = []
    for one, other in pairs:
        for sock in (one, other):
            sock.setblocking(False)
            players.append(go(play, sock, rounds))
        one.send(b"x")
    results(players)
    for one, other in pairs:
        one.close()
        other.close()


def test_a_child_process_has_pollers_of_its_own(pair: Pair) -> None:
    check_child(
        """
        import os, socket
        from goslings import go, _goslings
        one, other = socket.socketpair()
        waiting = go(_goslings.wait_fd, one.fileno(), False)
        while "net read" not in repr(waiting):
            os.sched_yield()
        child = os.fork()
        if child == 0:
            a, b = socket.socketpair()
            waiting = go(_goslings.wait_fd, a.fileno(), False)
            while "net read" not in repr(waiting):
                os.sched_yield()
            b.send(b"x")
            os._exit(0 if waiting.result(20) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        other.send(b"x")
        assert waiting.result(20)
        one.close()
        other.close()
        """
    )


def test_a_program_ends_with_thousands_waiting() -> None:
    check_child(
        """
        import os, time
        from goslings import go, _goslings
        pipes = [os.pipe() for _ in range(200)]
        waiting = [go(_goslings.wait_fd, out, False) for out, _ in pipes for _ in range(10)]
        while any("net read" not in repr(one) for one in waiting):
            time.sleep(0.001)
        """
    )


def test_without_descriptors_left_a_wait_fails_and_the_next_does_not() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > 64
    check_child(
        """
        import errno, os, resource, socket
        from goslings import go, _goslings
        one, other = socket.socketpair()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        # The worker's poller is a descriptor, too.
        try:
            go(_goslings.wait_fd, one.fileno(), False).result(20)
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        else:
            raise AssertionError("no descriptor was left")
        for fd in taken:
            os.close(fd)
        other.send(b"x")
        assert go(_goslings.wait_fd, one.fileno(), False).result(20)
        one.close()
        other.close()
        """
    )

"""Waiting for a descriptor, each in the way that is best: a goroutine parks, a thread sleeps in the system."""

from __future__ import annotations

import select
import time

from goslings._goslings import _can_park, wait_fd

__all__ = ["ready"]

_LONGEST = 2**31 - 1
"""The most milliseconds that `poll` takes."""


def ready(fd: int, write: bool, timeout: float | None) -> bool:
    """Waits until `fd` can be read or written, at most `timeout` seconds; returns whether that came."""
    if _can_park():
        return wait_fd(fd, write, timeout)
    poll = select.poll()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    if timeout is None:
        return bool(poll.poll())
    end = time.monotonic() + timeout
    # Rounded up: who has waited to the end is not asked to wait for the rest of a millisecond.
    while not poll.poll(min(max(0.0, 1000 * (end - time.monotonic()) + 1), _LONGEST)):
        if time.monotonic() >= end:
            return False
    return True

"""Leases of channels of this process: one for a channel, as long as there are peers that claim its values."""

from __future__ import annotations

import os
from typing import Any

from goslings import _threads
from goslings._goslings import Segment, _Lease

__all__ = ["join", "leave"]

_PAGE = 4096

_lock = _threads.lock()
_leases: dict[Any, tuple[_Lease, set[int]]] = {}
"""The lease of a channel, and whose it is: the ids of what the peers have of the channel."""


def join(channel: Any, who: object) -> _Lease:
    """The lease of the channel, which `who` takes part in from now on. Raises OSError if there is no memory for it."""
    with _lock:
        found = _leases.get(channel)
        if found is None:
            found = _leases[channel] = _Lease(channel, Segment(_PAGE)), set()
        found[1].add(id(who))
        return found[0]


def leave(channel: Any, who: object) -> None:
    """`who` claims nothing more."""
    with _lock:
        lease, takers = _leases[channel]
        takers.discard(id(who))
        last = not takers
        if last:
            del _leases[channel]
    # It may have claimed something and died before it could say so.
    if last:
        lease.end()
    else:
        lease.claimed()


def _after_fork() -> None:
    global _lock
    _lock = _threads.lock()
    _leases.clear()


os.register_at_fork(after_in_child=_after_fork)

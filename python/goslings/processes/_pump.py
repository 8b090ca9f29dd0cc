"""The goroutine that goes on with waits in the stead of others, and tells peers which of their channels were dropped.

There is one in a process, as long as there are peers or such waits. It never waits for anything but its bell.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from goslings import _threads
from goslings._goslings import Goroutine, _Bell, go
from goslings.processes._signals import whole

if TYPE_CHECKING:
    from goslings.processes._peer import Peer

__all__ = ["add", "bell", "forget", "know", "ring"]

_lock = _threads.lock()
_peers: set[Peer] = set()
_waiting: dict[int, Any] = {}
_numbers = 0
_goroutine: Goroutine[None] | None = None
bell = _Bell()


@whole
def know(peer: Peer) -> None:
    """A peer that may have something to be told."""
    with _lock:
        _peers.add(peer)
        _start()


def _start() -> None:
    """Under the lock."""
    global _goroutine
    if _goroutine is None:
        _goroutine = go(_run)
        _goroutine.name = "goslings.processes pump"


@whole
def forget(peer: Peer) -> None:
    """Its link has ended."""
    with _lock:
        _peers.discard(peer)
    bell.ring()


@whole
def add(waiter: Any) -> int:
    """A number for something whose `woken()` is to be called when the bell tells of that number."""
    global _numbers
    with _lock:
        _numbers += 1
        _waiting[_numbers] = waiter
        _start()  # the last peer may have gone meanwhile
        return _numbers


def remove(number: int) -> None:
    """It has ended."""
    _waiting.pop(number, None)
    if not _peers and not _waiting:
        bell.ring()  # then the goroutine ends


def ring() -> None:
    """Something was dropped. Never blocks, takes no lock: for finalizers."""
    bell.ring()


def _run() -> None:
    global _goroutine
    rung = bell.rung
    while True:
        rung.recv()
        for number in bell.take():
            waiter = _waiting.pop(number, None)
            if waiter is not None:
                try:
                    waiter.woken()
                except Exception as error:
                    go(_raise, error)  # the program hears of it, and all others are served
            del waiter  # what it has sent or received is not ours to keep until the next one
        if any(peer.gone or peer.unsent for peer in list(_peers)):
            for peer in list(_peers):
                peer.tell_gone()
        with _lock:
            if not _peers and not _waiting:
                _goroutine = None
                return


def _raise(error: BaseException) -> None:
    raise error


def _after_fork() -> None:
    global _lock, _goroutine, bell
    _lock = _threads.lock()
    _peers.clear()
    _waiting.clear()
    _goroutine = None
    bell = _Bell()


os.register_at_fork(after_in_child=_after_fork)

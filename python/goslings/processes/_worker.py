"""What runs in a worker process: it reads calls from the parent, runs each as a goroutine, and answers.

The main thread runs the initializer and then only waits, so that signals have somebody to handle them. A worker ends
when the parent says so, or when the link ends, since the parent is gone then: within moments if it can, and a thread
that needs nothing of the interpreter sees to it that it does (crates/goslings-py/src/orphan.rs).
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
from typing import Any

import goslings
from goslings import _threads
from goslings._goslings import Goroutine, Link, _end_with, _recv_outside, chan, go
from goslings.processes import _heart, _messages, _pickle, _spawn
from goslings.processes._errors import WorkerDied
from goslings.processes._peer import Peer

__all__ = ["main"]

_GRACE = 3.0
"""Seconds that a worker without a parent may take to end."""


class Worker:
    """The calls that run here."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._lock = _threads.lock()
        self._calls: dict[int, Goroutine[Any] | None] = {}
        self._stopped: dict[int, tuple[Any, ...]] = {}
        self._held: dict[int, tuple[int, str, _pickle.Payload, list[int]]] = {}
        """Calls that came early, because they are large, and are not started yet; of the reader."""
        self._early: list[tuple[int, str, _pickle.Payload, list[int]]] | None = []
        """Calls that have come before the initializer was done; None after that."""
        self.told = chan[Any](2)
        """What the main thread is to do: an initializer, then how to end."""
        peer.handlers = {
            _messages.INIT: self._on_init,
            _messages.CALL: self._on_call,
            _messages.START: self._on_start,
            _messages.STOP: self._on_stop,
            _messages.BYE: self._on_bye,
        }

    def read(self) -> None:
        """Serves the link until it ends."""
        try:
            self._peer.read()
        finally:
            self._peer.end(WorkerDied("the parent process is gone"))
            self.told.try_send(None)

    def _on_init(self, fds: list[int], payload: _pickle.Payload) -> None:
        self.told.try_send((payload, _own(fds)))

    def _on_bye(self, fds: list[int]) -> None:
        self.told.try_send(0)

    def _on_call(self, fds: list[int], number: int, name: str, payload: _pickle.Payload, held: bool) -> None:
        call = number, name, payload, _own(fds)
        if held:
            self._held[number] = call
        else:
            self._receive(call)

    def _on_start(self, fds: list[int], number: int) -> None:
        self._receive(self._held.pop(number))

    def _receive(self, call: tuple[int, str, _pickle.Payload, list[int]]) -> None:
        with self._lock:
            self._calls[call[0]] = None
            if self._early is not None:
                self._early.append(call)
                return
        self._go(call)

    def open(self) -> None:
        """From now on calls are begun, and those that wait."""
        with self._lock:
            early, self._early = self._early, None
        for call in early or ():
            self._go(call)

    def _go(self, call: tuple[int, str, _pickle.Payload, list[int]]) -> None:
        try:
            go(self._begin, *call)
        except Exception as error:  # there is no thread to be had for it
            _pickle.close(call[3])
            self._answer(call[0], error)

    def _on_stop(self, fds: list[int], number: int, message: tuple[Any, ...]) -> None:
        held = self._held.pop(number, None)
        if held is not None:
            _pickle.close(held[3])
            return
        with self._lock:
            if number not in self._calls:
                return
            goroutine = self._calls[number]
            if goroutine is None:
                self._stopped[number] = message
        if goroutine is not None:
            goroutine.cancel(*message)

    def _begin(self, number: int, name: str, payload: _pickle.Payload, fds: list[int]) -> None:
        # Not by who reads the link: unpickling imports modules, which takes its time and may do anything.
        try:
            fn, args, kwargs = self._peer.unpack(payload, fds)
        except BaseException as error:
            self._answer(number, error)
            return
        finally:
            _pickle.close(fds)
        try:
            goroutine = go(fn, *args, **kwargs)
        except Exception as error:
            self._answer(number, error)
            return
        goroutine.name = name
        del fn, args, kwargs
        with self._lock:
            self._calls[number] = goroutine
            stopped = self._stopped.pop(number, None)
        if stopped is not None:
            goroutine.cancel(*stopped)
        goroutine.add_done_callback(lambda goroutine: self._ended(number, goroutine))

    def _ended(self, number: int, goroutine: Goroutine[Any]) -> None:
        try:
            error = goroutine.exception()
        except concurrent.futures.CancelledError as cancelled:
            self._calls.pop(number, None)
            self._peer.post((_messages.RESULT, number, None, cancelled.args))
            return
        if error is not None:
            self._answer(number, error)
            return
        parcel = self._peer.parcel()
        try:
            payload = self._peer.pack(goroutine.result(), "result", parcel)
        except BaseException as problem:
            self._answer(number, problem)
            return
        parcel.sent()
        try:
            self._peer.post((_messages.RESULT, number, True, payload), _pickle.is_large(payload), parcel)
        except (OSError, MemoryError) as problem:
            parcel.sent(back=True)
            self._answer(number, problem)
            return
        self._calls.pop(number, None)

    def _answer(self, number: int, error: BaseException) -> None:
        self._calls.pop(number, None)
        self._stopped.pop(number, None)
        self._peer.post_failure(error, _messages.RESULT, number, False)


def _own(fds: list[int]) -> list[int]:
    """Takes the descriptors over from who reads the link."""
    owned = list(fds)
    fds.clear()
    return owned


def main(fd: int, pair: int) -> None:
    """Runs a worker whose link to the parent is `fd`, to its end."""
    _spawn.own_interrupts()
    os.set_inheritable(fd, False)
    _end_with(fd, _GRACE)
    try:
        link = Link(fd)
    except ConnectionError:
        sys.exit(1)  # the parent has ended meanwhile
    peer = Peer(link, pair, 1, "the parent process")
    worker = Worker(peer)
    reader = go(worker.read)
    reader.name = "goslings.processes reader"
    told = _recv_outside(worker.told)
    if told is None:
        sys.exit(1)
    if told == 0:
        return
    payload, fds = told
    for heart in fds[payload[2] :]:
        _heart.answer(heart)
    try:
        initializer, initargs, procs, writable = peer.unpack(payload, fds)
        if writable:
            peer.let_write()
        if procs is not None and "GOSLINGS_PROCS" not in os.environ:
            goslings.gomaxprocs(procs)
        if initializer is not None:
            initializer(*initargs)
    except BaseException as error:
        peer.post_failure(error, _messages.READY)
    else:
        del initializer, initargs, payload
        peer.post((_messages.READY, None))
        worker.open()
    status = _recv_outside(worker.told)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(1 if status is None else 0)

"""A worker process as its parent sees it: `Child`, and `Call`, a call that runs there.

The parent has a goroutine for each call, which waits for the answer; cancelling that asks the worker to cancel the
remote one, and the answer decides. Each worker has a goroutine that reads its link (`Child._run`) and, at the end of
that, finds out how the process ended, closes what there was with it, tells everybody who waited, and puts back what it
held. Nothing is left for the collector: whoever has referred to a link last may sleep for long before that is known.
"""

from __future__ import annotations

import concurrent.futures
import secrets
import socket
from collections.abc import Callable
from typing import Any, Protocol

from goslings import _threads
from goslings._errors import Cancelled
from goslings._goslings import Goroutine, Link, _recv_outside, chan, go
from goslings.processes import _messages, _pickle, _spawn
from goslings.processes._errors import WorkerDied
from goslings.processes._heart import Heart
from goslings.processes._peer import Failure, Parcel, Peer

__all__ = ["END_SECONDS", "Call", "Child"]

END_SECONDS = 5.0
"""How long a worker may take to end, after it was told to or has closed its link."""


class _Pool(Protocol):
    """What a worker tells its pool."""

    def ended(self, child: Child) -> None: ...
    def is_ready(self) -> None: ...
    def broke(self, error: BaseException) -> None: ...
    def fell(self, child: Child) -> None: ...
    def lost(self, child: Child, text: str) -> None: ...


class Call:
    """A call that runs in a worker, or is on its way there."""

    __slots__ = ("answer", "goroutine", "number", "start", "started", "worker")

    def __init__(self, worker: Child, number: int) -> None:
        self.worker = worker
        self.number = number
        self.start: Callable[[], None] = lambda: None
        """Makes it begin there. Not before somebody waits for it here: one that is cancelled before that never runs."""
        self.started = False
        self.answer = chan[Any](1)
        self.goroutine: Goroutine[Any] | None = None
        """Who waits for it."""

    def wait(self) -> Any:
        """Its result. What a goroutine of the parent runs."""
        cancelled: Cancelled | None = None
        self.started = True
        self.start()
        del self.start
        while True:
            try:
                how, what, fds = self.answer.recv() if cancelled is None else _recv_outside(self.answer)
                break
            except Cancelled as error:
                cancelled = error
                self.stop(error.args)
        peer = self.worker.peer
        try:
            if how is None:
                # By somebody else there: not this goroutine's own end.
                raise cancelled if cancelled is not None else concurrent.futures.CancelledError(*what)
            if isinstance(how, BaseException):
                raise how
            if how:
                return peer.unpack(what, fds)
            raise peer.failure(what, fds)
        finally:
            _pickle.close(fds)
            # Its traceback refers to this frame: the two would keep the worker until the collector comes.
            how = cancelled = None

    def stop(self, message: tuple[Any, ...]) -> None:
        """Asks the worker to cancel it."""
        try:
            self.worker.peer.post((_messages.STOP, self.number, message))
        except Exception:
            # The message cannot be pickled.
            self.worker.peer.post((_messages.STOP, self.number, (str(message[0]),)))

    def ended(self, goroutine: Goroutine[Any]) -> None:
        """The goroutine that waits has ended; perhaps it was cancelled before it started."""
        self.goroutine = None
        if not self.started:
            self.worker.drop(self)


class Child:
    """A worker process, as the parent sees it."""

    def __init__(self, pool: _Pool, start: Callable[[int, int], Any], heart: Heart | None) -> None:
        """Starts the process; `start` gets the worker's end of the link, and its number."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pair = secrets.randbits(62)
        try:
            with theirs:
                self.process = start(theirs.fileno(), pair)
        except BaseException:
            ours.close()
            raise
        self._pool = pool
        self._lock = _threads.lock()
        self._numbers = 0
        self.heart = heart
        self.calls: dict[int, Call] = {}
        self.started = 0
        self.ready = False
        self.retired = False
        """It gets no more calls, and may end when it has none."""
        self.fate: str | None = None
        """Why it was killed."""
        try:
            link = Link(ours.fileno())
        except BaseException:
            ours.close()
            self.process.kill()
            self.process.wait(None)
            raise
        ours.detach()
        self.peer = Peer(link, pair, 0, "a worker process")
        self.peer.handlers = {_messages.READY: self._on_ready, _messages.RESULT: self._on_result}

    def begin(self, init: Callable[[Peer, Parcel], _pickle.Payload]) -> None:
        """Tells it what to do first, and reads what it says. Raises what `init` raises; it is killed then."""
        parcel = self.peer.parcel()
        try:
            payload = init(self.peer, parcel)
            if self.heart is not None:
                parcel.append(self.heart.theirs)
            parcel.sent()
            self.peer.post((_messages.INIT, payload), _pickle.is_large(payload), parcel)
        except BaseException:
            self.process.kill()
            raise
        finally:
            if self.heart is not None:
                self.heart.given()
            self.goroutine = go(self._run)
            self.goroutine.name = "goslings.processes worker"

    def prepare(self, name: str, payload: _pickle.Payload, parcel: Parcel) -> Call:
        """A call, which its `start` begins. Large buffers are sent now: later changes are not seen.

        The answer says if the worker is gone.
        """
        with self._lock:
            self._numbers += 1
            number = self._numbers
            call = self.calls[number] = Call(self, number)
            dead = self.peer.dead is not None
        if dead:
            self._answer(number, self.peer.death(), None, [])
        elif parcel or _pickle.is_large(payload):
            parcel.sent()
            try:
                self.peer.post((_messages.CALL, number, name, payload, True), True, parcel)
            except BaseException:
                parcel.sent(back=True)
                # Who takes it out of the list tells the pool; the caller hears of the error.
                with self._lock:
                    mine = self.calls.pop(number, None) is not None
                if not mine:
                    return call
                raise
            call.start = lambda: self.peer.post((_messages.START, number))
        else:

            def start() -> None:
                parcel.sent()
                self.peer.post((_messages.CALL, number, name, payload, False))

            call.start = start
        return call

    def drop(self, call: Call) -> None:
        """It was never started."""
        call.stop(())
        self._answer(call.number, None, (), [])

    def say_bye(self) -> None:
        """Lets it end; there is nothing left for it to do."""
        self.peer.post((_messages.BYE,))

    def kill(self, why: str) -> None:
        """Kills it; `why` is what those who wait for it are told."""
        self.fate = why
        self.end()

    def end(self) -> None:
        """Ends it with force."""
        self.process.kill()
        if self.process.is_unknown:
            self.peer.close()  # then it ends by itself

    def _answer(self, number: int, how: Any, what: Any, fds: list[int]) -> None:
        with self._lock:
            call = self.calls.pop(number, None)
        if call is None:
            _pickle.close(fds)
            return
        call.answer.try_send((how, what, fds))
        self._pool.ended(self)

    def _on_ready(self, fds: list[int], failure: Failure | None) -> None:
        if failure is None:
            self.ready = True
            self._pool.is_ready()
        else:
            self._pool.broke(self.peer.failure(failure, fds))
            self.process.kill()

    def _on_result(self, fds: list[int], number: int, how: bool | None, what: Any) -> None:
        owned = list(fds)
        fds.clear()
        self._answer(number, how, what, owned)

    def _run(self) -> None:
        garbage = ""
        try:
            self.peer.read()
        except Exception as error:
            garbage = f" after garbage on its link ({type(error).__name__}: {error})"
        finally:
            self.peer.close()
        self._pool.fell(self)
        status = self.process.wait(None if self.retired else 0 if garbage else END_SECONDS)
        if status is None:
            self.process.kill()
            self.process.wait(None)
            text = f"worker {self.process.pid} was ended{garbage or ': it has closed its link'}"
        elif self.fate is not None:
            text = f"worker {self.process.pid} was killed: {self.fate}"
        else:
            text = f"worker {self.process.pid} {_spawn.told(status)}{garbage}"
        if self.heart is not None:
            self.heart.close()
        try:
            self.peer.end(WorkerDied(text))
        finally:
            with self._lock:
                left = list(self.calls)
            for number in left:
                self._answer(number, WorkerDied(text), None, [])
            self._pool.lost(self, text)

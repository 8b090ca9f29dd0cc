"""One connection between two sides that call each other's objects. Both sides run this code; they differ in who
listens.

A call has a number, chosen by who calls. Its answer carries the number, so answers come in any order. The reader hands
each call to a goroutine of its own (`_serving.py`): a slow one holds up nobody. Kinds of messages, each the body of a
frame:

    | kind, 1 byte | number, 8 bytes | what follows |

    CALL     of the call       object's number, method, arguments; arguments None: the attribute
    ANSWER   of the call       the value
    FAILED   of the call       the exception, pickled, or None; its text; its traceback
    CANCEL   of the call       nobody waits for the answer any more
    CHOICE   of the operation  a select among channels (`_operations.py`); FAILED and CANCEL are of operations, too
    CHOSEN   of the operation  its outcome; a value that was received is kept until TAKEN or REFUSED
    TAKEN    of the operation  the value has been used
    REFUSED  of the operation  the value has not been used: back with it
    DROP     of the object     how many references are given up

Invariants:

* What a message names is looked up as it is read, before the next message: a DROP that follows cannot take it away.
* Once `_over` is set, no call is added to `_waiting`, and every one that was there is failed.
* However the reader ends, the session does.
* Between an answer and its end there is no cancel point, at either side: who has the value keeps it, or gives it back.
* A value that was received is at one side: until TAKEN at the side of the channel. If the connection breaks before
  that, it goes back to the front of its channel. Where TAKEN itself was lost on the way, it is seen twice rather than
  never.
* Calls and operations are numbered together, so that a number means one of them.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import time
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

from goslings._goslings import Event, _may_block, go, gosched
from goslings.processes._errors import RemoteTraceback
from goslings.processes._remote._carry import Message, decode, encode, numbers
from goslings.processes._remote._errors import Disconnected, RemoteError, text_of
from goslings.processes._remote._frames import FrameError, Frames
from goslings.processes._remote._operations import CANCEL, TAKEN, Operations
from goslings.processes._remote._references import References
from goslings.processes._remote._serving import Serving, failed, failed_because
from goslings.processes._remote._shared import Description, Exposed, check_limit
from goslings.processes._signals import is_interruptible

__all__ = ["Session"]

_HEAD = struct.Struct(">BQ")
_REFERENCES = struct.Struct(">I")
_CALL, _CHOICE, _ANSWER, _FAILED, _CANCEL, _TAKEN, _REFUSED, _DROP, _CHOSEN = range(9)

Make = Callable[["Session", int, Description], Any]
"""Makes the proxy of an object of the other side."""


class _Waiting:
    """A call whose answer is to come."""

    __slots__ = ("body", "done", "failure", "number", "pins")

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = Event()
        self.body: bytes | None = None
        self.pins: Any = None
        self.failure: BaseException | None = None


class Session:
    """A connection after its handshake."""

    def __init__(
        self,
        frames: Frames,
        make: Make,
        *,
        root: Exposed | None,
        peer: str,
        limit: int,
        calls: int,
    ) -> None:
        self._frames, self._make = frames, make
        self.peer = peer
        self._calls, self._limit = calls, limit
        self._serves = root is not None
        self.peer_limit = limit
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._serving = Serving(self)
        self._operations = Operations(self)
        self._kept: dict[int, Any] = {}
        """Receipts for values that the other side has been sent."""
        self.references = References(root, _drops(frames))
        self._over: BaseException | None = None
        self._pid = os.getpid()
        self.root = root
        self.finished = Event()
        _sessions.add(self)

    # Greeting

    def greet(self) -> None:
        """Tells the other side what there is, and how much may be sent here at a time."""
        description = None if self.root is None else tuple(self.root.description)
        self._frames.post(pickle.dumps((self._limit, description), 5))

    def be_greeted(self) -> Description | None:
        """The other side's root, if it has one. Blocks. Raises FrameError, EOFError, OSError."""
        body = self._frames.read()
        try:
            limit, description = pickle.loads(body)
            self.peer_limit = check_limit(limit)
            return None if description is None else Description.checked(*description)
        except Exception as error:
            raise FrameError("the other side knows the key, and does not greet as this protocol has it") from error

    # Calling

    def call(
        self,
        target: int,
        name: str,
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None = None,
        timeout: float | None = None,
        twin: str | None = None,
    ) -> Any:
        """Calls a method of an object of the other side, and waits for what comes of it.

        Raises what the method raised; Disconnected; TimeoutError after `timeout` seconds: then the call is cancelled
        there. `twin`: what coroutines can await instead.
        """
        _may_block(twin or f"{name}.acall()")
        waiting = self._begin(target, name, args, kwargs)
        try:
            done = waiting.done.wait(timeout)
        except BaseException:
            self._abandon(waiting)
            raise
        if not done and self._give_up(waiting):
            raise TimeoutError("timed out")
        return self._finish(waiting)

    def cast(self, target: int, name: str, args: tuple[Any, ...]) -> None:
        """Calls a method, and does not wait for what comes of it. Never blocks."""
        self._send_call(next(self._numbers), target, name, args, None)

    async def acall(
        self,
        target: int,
        name: str,
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """As `call`, awaited."""
        waiting = self._begin(target, name, args, kwargs)
        try:
            done = await waiting.done.await_(timeout)
        except BaseException:
            self._abandon(waiting)
            raise
        if not done and self._give_up(waiting):
            raise TimeoutError("timed out")
        return self._finish(waiting)

    def _begin(self, target: int, name: str, args: tuple[Any, ...] | None, kwargs: dict[str, Any] | None) -> _Waiting:
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting(number)
        try:
            self._send_call(number, target, name, args, kwargs)
        except BaseException:
            self._waiting.pop(number, None)
            raise
        if self._over is not None and self._waiting.pop(number, None) is not None:
            raise self.death()
        return waiting

    def _send_call(
        self, number: int, target: int, name: str, args: tuple[Any, ...] | None, kwargs: dict[str, Any] | None
    ) -> None:
        if self._over is not None:
            raise self.death()
        named = [(f"arg {index}", arg) for index, arg in enumerate(args or ())]
        named += [(f"arg {key}", arg) for key, arg in (kwargs or {}).items()]
        message = encode((target, name, args, kwargs), self, named)
        self.check_size(message, 0)
        self._frames.post(_HEAD.pack(_CALL, number) + message.body)

    def death(self) -> BaseException:
        """A new exception that says what `over` says."""
        over = self._over
        assert over is not None
        return type(over)(*over.args)

    def takes(self, message: Message, more: int = 0) -> bool:
        """Whether the other side takes a message with `more` bytes before it."""
        return len(message.body) + _HEAD.size + more <= self.peer_limit

    def check_size(self, message: Message, more: int) -> None:
        """Raises ValueError if it does not."""
        if not self.takes(message, more):
            self.references.take_back(message.lent)
            size = len(message.body) + _HEAD.size + more
            raise ValueError(f"a message of {size} bytes: the other side takes at most {self.peer_limit}")

    def _tell(self, kind: int, number: int, rest: bytes = b"") -> None:
        if self._over is None:
            self._frames.post(_HEAD.pack(kind, number) + rest)

    def _give_up(self, waiting: _Waiting) -> bool:
        """Nobody waits for the answer any more. False: it is there."""
        if self._waiting.pop(waiting.number, None) is not None:
            self._tell(_CANCEL, waiting.number)
            return True
        return False

    def _abandon(self, waiting: _Waiting) -> None:
        """The same, and what is there is not looked at."""
        if not self._give_up(waiting) and waiting.body is not None:
            self.references.refuse(numbers(waiting.body, _HEAD.size)[0])

    def _finish(self, waiting: _Waiting) -> Any:
        """What came of a call."""
        if waiting.failure is not None:
            raise type(waiting.failure)(*waiting.failure.args)
        body = waiting.body
        assert body is not None
        if body[0] == _ANSWER:
            return decode(body, _HEAD.size, self, waiting.pins)
        error = self.failure(body)
        try:
            raise error
        finally:
            del error, waiting

    def failure(self, body: bytes) -> BaseException:
        """The exception that a message of FAILED tells of; its cause is the traceback there."""
        error: BaseException | None = None
        text, where = "a call failed, and how cannot be read", ""
        try:
            pickled, text, where = decode(body, _HEAD.size, self, None)
            if pickled is not None:
                error = pickle.loads(pickled)
        except Exception:
            error = None  # its class is not known here, or takes other arguments than it has kept
        if not isinstance(error, BaseException):
            error = RemoteError(text)
        error.__cause__ = RemoteTraceback(where)
        return error

    # Channels: as `processes/_select.py` wants a peer

    def parcel(self) -> None:
        """What goes beside a pickle: nothing, here."""

    def pack(self, value: Any, where: str, parcel: None) -> Any:
        """Pickles what is to be sent on a channel of the other side."""
        if self._over is not None:
            raise self.death()
        return self._operations.pack(value)

    def begin(self, operation: Any, waits: bool, cases: Any) -> None:
        """Begins a select among channels of the other side."""
        plain = [(channel, sends, value[0] if sends else None) for channel, sends, value in cases]
        self._operations.begin(operation, waits, plain)

    def post(self, message: tuple[int, int]) -> None:
        """Says something about an operation."""
        kind, number = message
        if kind == CANCEL:
            self._operations.cancel(number)
        else:
            self._tell(_TAKEN if kind == TAKEN else _REFUSED, number)

    def number(self) -> int:
        """A number for a call or an operation."""
        return next(self._numbers)

    def tell_choice(self, number: int, body: bytes) -> None:
        """Begins an operation."""
        self._tell(_CHOICE, number, body)

    def tell_chosen(self, number: int, body: bytes) -> None:
        """Ends an operation of the other side."""
        self._tell(_CHOSEN, number, body)

    def tell_cancel(self, number: int) -> None:
        """Nobody waits for an operation any more."""
        self._tell(_CANCEL, number)

    def tell_failed(self, number: int, error: BaseException) -> None:
        """A call or an operation of the other side has failed."""
        self._tell(_FAILED, number, failed(self, error).body)

    def tell_answer(self, number: int, message: Message) -> None:
        """A call of the other side is done."""
        self._tell(_ANSWER, number, message.body)

    def keep(self, number: int, receipt: Any) -> None:
        """Keeps the receipt for a value that is about to be sent to the other side, until that has it."""
        self._kept[number] = receipt
        if self._over is not None and self._kept.pop(number, None) is not None:
            receipt.undo()

    def is_behind(self) -> bool:
        """Whether the other side takes less than it is sent."""
        return self._serves and self._frames.is_full()

    def wait_for_room(self) -> None:
        """Waits while it is so. Blocks."""
        if self._serves:
            self._frames.wait_for_room()

    # Reading

    def read_all(self) -> None:
        """Reads and hands on messages until the connection ends. Blocks. What happened is in `over`."""
        _read_all(self._frames, lambda: self)

    def start_reading(self) -> None:
        """The same in a goroutine of its own, which does not keep the session alive."""
        go(_read_all, self._frames, weakref.ref(self)).name = f"reader of {self.peer}"

    def take(self, body: bytes) -> None:
        """One message."""
        kind, number = _HEAD.unpack_from(body)
        if kind == _FAILED and self._operations.take_failed(number, body):
            pass
        elif kind in (_ANSWER, _FAILED):
            self._take_answer(number, body)
        elif kind == _CALL:
            self._take_call(number, body)
        elif kind == _CHOICE:
            self._take_choice(number, body)
        elif kind == _CHOSEN:
            given_up = self._operations.take_chosen(number, body, _HEAD.size)
            if given_up is not None:
                self._tell(_REFUSED, number)
                self.references.refuse(given_up)
        elif kind == _CANCEL:
            self._cancel(number)
        elif kind in (_TAKEN, _REFUSED):
            receipt = self._kept.pop(number, None)
            if receipt is not None:
                receipt.taken() if kind == _TAKEN else receipt.undo()
        elif kind == _DROP:
            self.references.drop(number, *_REFERENCES.unpack_from(body, _HEAD.size))
        else:
            raise FrameError(f"a message of an unknown kind, {kind}")

    def _take_answer(self, number: int, body: bytes) -> None:
        lent, yours, _ = numbers(body, _HEAD.size)
        waiting = self._waiting.get(number)
        if waiting is not None:
            # First the answer, then away: who finds itself taken out has it.
            waiting.pins = {each: self.references.own(each) for each in yours} if yours else None
            waiting.body = body
            if self._waiting.pop(number, None) is None:
                waiting = None
        if waiting is None:  # it was given up
            self.references.refuse(lent)
            return
        waiting.done.set()

    def _are_too_many(self, number: int, lent: tuple[int, ...]) -> bool:
        if len(self._serving) + len(self._operations) + len(self._kept) < self._calls:
            return False
        text = f"more than {self._calls} calls at once on one connection"
        self._tell(_FAILED, number, failed_because(self, text).body)
        self.references.refuse(lent)
        return True

    def _take_choice(self, number: int, body: bytes) -> None:
        if not self._are_too_many(number, self._operations.lent(body, _HEAD.size)):
            self._operations.take_choice(number, body, _HEAD.size)

    def _take_call(self, number: int, body: bytes) -> None:
        if not self._are_too_many(number, numbers(body, _HEAD.size)[0]):
            self._serving.begin(self, number, body, _HEAD.size)
            # Behind whoever is ready here: calls are not begun faster than they are carried out.
            gosched()

    def _cancel(self, number: int) -> None:
        """The caller has given up."""
        if not self._operations.give_up(number):
            self._serving.cancel(number)

    # References

    def lend(self, exposed: Exposed) -> int:
        """Counts one more reference that the other side gets to an object of ours; returns its number."""
        return self.references.lend(exposed)

    def borrow(self, number: int, description: Any) -> Any:
        """The proxy of an object of the other side that a message brings."""
        return self.references.borrow(number, lambda: self._make(self, number, Description.checked(*description)))

    def number_of(self, obj: Any) -> tuple[int, int] | None:
        """The number of an object of the other side, if this is a proxy of this connection, and which view it is."""
        of = getattr(type(obj), "_goslings_remote", None)
        if of is None:
            return None
        session, number, view = of(obj)
        if session is self:
            return number, view
        if hasattr(type(obj), "_goslings_view"):
            return None  # a channel is passed on
        raise pickle.PicklingError("a proxy goes through the connection that it came from, and through no other")

    # The end

    @property
    def over(self) -> BaseException | None:
        """Why the connection is over, or None."""
        return self._over

    def end(self, error: BaseException) -> None:
        """The connection is over: all who wait are told, calls are cancelled, values go back. Never blocks."""
        if self._over is None:
            self._over = error
        if self.finished.is_set():
            return
        if is_interruptible():
            go(self._wind_up)  # a signal may come in the middle
        else:
            self._wind_up()

    def _wind_up(self) -> None:
        """May be done by several at a time: each part is, once."""
        self._frames.close()
        for number, waiting in list(self._waiting.items()):
            waiting.failure = self._over
            if self._waiting.pop(number, None) is not None:
                waiting.done.set()
        self._serving.end()
        self._operations.end()
        _undo(self._kept)
        self.references.clear()
        self.finished.set()

    def wait_idle(self, seconds: float | None) -> bool:
        """Waits until no method is being called here, other than those of channels, and the answers are sent; returns
        whether that came.
        """
        end = None if seconds is None else time.monotonic() + seconds
        if not self._serving.busy.wait(seconds):
            return False
        return self._frames.wait_sent(None if end is None else max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Ends the connection from this side. Never blocks."""
        if os.getpid() == self._pid:
            self.end(Disconnected("this connection was closed here"))

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if _is_finalizing():
            return  # there may be no `os` any more, and the system closes it
        if getattr(self, "_over", self) is None and os.getpid() == self._pid:
            self._frames.close()
            if self._operations:
                go(self._operations.withdraw)
            if self._kept:
                go(_undo, self._kept)


def _drops(frames: Frames) -> Callable[[int, int], None]:
    """Tells the other side of references that are given up."""
    return lambda number, references: frames.post(_HEAD.pack(_DROP, number) + _REFERENCES.pack(references))


def _undo(kept: dict[int, Any]) -> None:
    """Values that the other side has not said to have go back."""
    while kept:
        try:
            _, receipt = kept.popitem()  # the last first: so they stand in their order again
        except KeyError:
            break
        receipt.undo()


def _read_all(frames: Frames, session_of: Callable[[], Session | None]) -> None:
    """The reader. Holds the session only while it has a message for it."""
    error: BaseException
    while True:
        try:
            body = frames.read()
        except (EOFError, ConnectionResetError):
            error = Disconnected("the other side has ended, or has closed the connection")
        except TimeoutError:
            error = Disconnected("the other side cannot be reached any more")
        except Exception as failure:
            # MemoryError, too: nobody knows any more where the next frame begins.
            error = Disconnected(f"the connection was closed: {text_of(frames.failure or failure)}")
            error.__cause__ = failure
        else:
            session = session_of()
            if session is None:
                return
            try:
                session.take(body)
            except Exception as failure:
                # The key was right, and yet this is no message of this protocol.
                error = Disconnected(f"the connection was closed: {text_of(failure)}")
                session.end(error)
                return
            del session, body
            continue
        session = session_of()
        if session is not None:
            session.end(error)
        return


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    """The child has copies of connections that belong to its parent: it may not speak on them."""
    for session in list(_sessions):
        session._over = Disconnected("the process has forked: connect again in the child")


os.register_at_fork(after_in_child=_after_fork)

"""One connection between two sides that call each other's objects. Both sides run this code; they differ in who
listens.

A call has a number, chosen by who calls. Its answer carries the number, so answers come in any order. The reader hands
each call to a goroutine of its own: a slow one holds up nobody. Kinds of messages, each the body of a frame:

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

* An object that the other side refers to is in `_lent`, with the number of references that were sent and not yet given
  back by DROP. Proxies count what they received. So an object that is sent while its last proxy dies is not lost.
* What a message names is looked up as it is read, before the next message: a DROP that follows cannot take it away.
* Once `_over` is set, no call is added to `_waiting`, and every one that was there has been failed.
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
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from inspect import iscoroutine
from itertools import count
from typing import Any

from goslings._errors import GoExit
from goslings._goslings import Event, Goroutine, Mutex, WaitGroup, _may_block, current, go, gosched
from goslings.processes._errors import RemoteTraceback
from goslings.processes._remote._carry import Message, decode, encode, numbers
from goslings.processes._remote._errors import Disconnected, RemoteError, describe
from goslings.processes._remote._frames import FrameError, Frames
from goslings.processes._remote._held import held
from goslings.processes._remote._operations import CANCEL, TAKEN, Operations
from goslings.processes._remote._shared import ASKED, Description, Exposed, Shared

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


class _Entry:
    """An object of ours that the other side refers to."""

    __slots__ = ("count", "exposed")

    def __init__(self, exposed: Exposed, count: int) -> None:
        self.exposed, self.count = exposed, count


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
        self._peer_limit = limit
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._running: dict[int, Goroutine[Any] | None] = {}
        self._unwanted: set[int] = set()
        self._busy = WaitGroup()
        self._operations = Operations(self)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        """Receipts for values that the other side has been sent."""
        self._lent: dict[int, _Entry] = {}
        self._lent_by_key: dict[Any, int] = {}
        self._next_lent = 1
        self._lock = Mutex()
        self._borrowed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._borrow_count: dict[int, int] = {}
        self._over: BaseException | None = None
        self._pid = os.getpid()
        self.root = root
        self.finished = Event()
        if root is not None:
            self._lent[0] = _Entry(root, 1)
            self._lent_by_key[root.key] = 0
        _sessions.add(self)

    # Greeting

    def greet(self) -> None:
        """Tells the other side what there is, and how much may be sent here at a time."""
        description = None if self.root is None else tuple(self.root.description)
        self._frames.post(pickle.dumps((self._limit, description), 5))

    def be_greeted(self) -> Description | None:
        """The other side's root, if it has one. Blocks."""
        limit, description = pickle.loads(self._frames.read())
        self._peer_limit = limit
        return None if description is None else Description(*description)

    # Calling

    def call(
        self,
        target: int,
        name: str,
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Calls a method of an object of the other side, and waits for what comes of it.

        Raises what the method raised; Disconnected; TimeoutError after `timeout` seconds: then the call is cancelled
        there.
        """
        _may_block(f"{name}.acall()")
        waiting = self._begin(target, name, args, kwargs)
        try:
            done = waiting.done.wait(timeout)
        except BaseException:
            self._give_up(waiting)
            raise
        if not done and self._give_up(waiting):
            raise TimeoutError("timed out")
        return self._finish(waiting)

    def cast(self, target: int, name: str, args: tuple[Any, ...]) -> None:
        """Calls a method, and does not wait for what comes of it. Never blocks."""
        self._begin(target, name, args, None)

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
            self._give_up(waiting)
            raise
        if not done and self._give_up(waiting):
            raise TimeoutError("timed out")
        return self._finish(waiting)

    def _begin(self, target: int, name: str, args: tuple[Any, ...] | None, kwargs: dict[str, Any] | None) -> _Waiting:
        if self._over is not None:
            raise self.death()
        named = [(f"arg {index}", arg) for index, arg in enumerate(args or ())]
        named += [(f"arg {key}", arg) for key, arg in (kwargs or {}).items()]
        message = encode((target, name, args, kwargs), self, named)
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting(number)
        waiting.pins = args  # proxies in it live on until the answer, so that the other side finds what they mean
        try:
            self._post(_CALL, number, message)
        except BaseException:
            self._waiting.pop(number, None)
            raise
        if self._over is not None and self._waiting.pop(number, None) is not None:
            raise self.death()
        return waiting

    def death(self) -> BaseException:
        """A new exception that says what `over` says."""
        over = self._over
        assert over is not None
        return type(over)(*over.args)

    def _post(self, kind: int, number: int, message: Message) -> None:
        self.check_size(message, 0)
        self._frames.post(_HEAD.pack(kind, number) + message.body)

    def check_size(self, message: Message, more: int) -> None:
        """Raises ValueError if the other side does not take a message with `more` bytes before it."""
        size = len(message.body) + _HEAD.size + more
        if size > self._peer_limit:
            self.take_back(message.lent)
            raise ValueError(f"a message of {size} bytes: the other side takes at most {self._peer_limit}")

    def _tell(self, kind: int, number: int, rest: bytes = b"") -> None:
        if self._over is None:
            self._frames.post(_HEAD.pack(kind, number) + rest)

    def _give_up(self, waiting: _Waiting) -> bool:
        """Nobody waits for the answer any more. False: it is there."""
        if self._waiting.pop(waiting.number, None) is not None:
            self._tell(_CANCEL, waiting.number)
            return True
        return False

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

    def pack(self, value: Any, where: str, fds: list[int]) -> Any:
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
        self._tell(_FAILED, number, self._failed(error).body)

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
                self._refuse(given_up)
        elif kind == _CANCEL:
            self._cancel(number)
        elif kind in (_TAKEN, _REFUSED):
            receipt = self._kept.pop(number, None)
            if receipt is not None:
                receipt.taken() if kind == _TAKEN else receipt.undo()
        elif kind == _DROP:
            self._drop(number, *_REFERENCES.unpack_from(body, _HEAD.size))
        else:
            raise FrameError(f"a message of an unknown kind, {kind}")

    def _take_answer(self, number: int, body: bytes) -> None:
        lent, yours, _ = numbers(body, _HEAD.size)
        waiting = self._waiting.get(number)
        if waiting is not None:
            # First the answer, then away: who finds itself taken out has it.
            waiting.pins = {each: self.own(each) for each in yours} if yours else None
            waiting.body = body
            if self._waiting.pop(number, None) is None:
                waiting = None
        if waiting is None:  # it was given up
            self._refuse(lent)
            return
        waiting.done.set()

    def _refuse(self, lent: tuple[int, ...]) -> None:
        """Gives back what a message names that nobody will unpickle."""
        for each in lent:
            self._tell(_DROP, each, _REFERENCES.pack(1))

    def _are_too_many(self, number: int) -> bool:
        if len(self._running) + len(self._operations) + len(self._kept) < self._calls:
            return False
        message = encode((None, f"more than {self._calls} calls at once on one connection", ""), self)
        self._tell(_FAILED, number, message.body)
        return True

    def _take_choice(self, number: int, body: bytes) -> None:
        if not self._are_too_many(number):
            self._operations.take_choice(number, body, _HEAD.size)

    def _take_call(self, number: int, body: bytes) -> None:
        if self._are_too_many(number):
            return
        yours = numbers(body, _HEAD.size)[1]
        pins = {each: self.own(each) for each in yours} if yours else None
        self._running[number] = None  # until it has started
        go(self._serve, number, body, pins)
        # Behind whoever is ready here: calls are not begun faster than they are carried out.
        gosched()

    def _cancel(self, number: int) -> None:
        """The caller has given up."""
        if self._operations.give_up(number):
            return
        if number not in self._running:
            return
        if self._running[number] is None:
            self._unwanted.add(number)
        # Looked at again: it may have started meanwhile, and looked before there was something to see.
        goroutine = self._running.get(number)
        if goroutine is not None:
            goroutine.cancel("the caller has given up")

    # Serving

    def _serve(self, number: int, body: bytes, pins: dict[int, Any] | None) -> None:
        """Carries out a call. Whatever happens, it is answered."""
        busy: list[None] = []
        value: Any = None
        try:
            self._running[number] = current()
            try:
                if self._serves:
                    self._frames.wait_for_room()  # who takes no answers gets no more of them
                if number in self._unwanted or self._over is not None:
                    raise CancelledError("nobody waits for it")
                value = self._carry_out(body, pins, busy)
                message = self._pack(value)
            except Exception as error:
                kind, message = _FAILED, self._failed(error)
            else:
                kind = _ANSWER
            self._tell(kind, number, message.body)
            value = None  # not before: what it names is the other side's, who keeps it as long as there is a proxy here
        except BaseException as error:
            # Cancelled, by who called or by the program; or SystemExit and the like, which are not to end the caller.
            if isinstance(error, GoExit):
                error = RuntimeError("the call ended its goroutine")
            self._tell(_FAILED, number, self._failed(error).body)
        finally:
            self._running.pop(number, None)
            self._unwanted.discard(number)
            if busy:
                self._busy.done()

    def _carry_out(self, body: bytes, pins: dict[int, Any] | None, busy: list[None]) -> Any:
        target, name, args, kwargs = decode(body, _HEAD.size, self, pins)
        exposed = self.entry(target)
        if exposed is None:
            raise RuntimeError("the object is not there any more")
        if name not in exposed.allowed or (exposed.description.kind != "object" and name not in ASKED):
            raise AttributeError(f"{exposed.description.name} does not expose {name!r}")
        if args is None:
            return getattr(exposed.obj, name)
        if exposed.description.kind != "object":
            return getattr(exposed.obj, name)()
        self._busy.add()
        busy.append(None)  # until the answer is on its way
        value = getattr(exposed.obj, name)(*args, **(kwargs or {}))
        if iscoroutine(value):
            value = _await(value)
        if name in ("__iter__", "__reversed__"):
            value = Shared(value, ("__next__", "__iter__"))
        return value

    def _pack(self, value: Any) -> Message:
        """The answer's message."""
        message = encode(value, self, [("result", value)])
        if len(message.body) + _HEAD.size > self._peer_limit:
            self.take_back(message.lent)
            raise ValueError(f"an answer of {len(message.body)} bytes: the caller takes at most {self._peer_limit}")
        return message

    def _failed(self, error: BaseException) -> Message:
        pickled = None
        text = f"{type(error).__qualname__}: {error}" if str(error) else type(error).__qualname__
        if isinstance(error, Exception | CancelledError):
            try:
                pickled = pickle.dumps(error, 5)
                pickle.loads(pickled)  # some can be written and not be read
            except Exception:
                pickled = None
        where = describe(error, within=__file__)
        message = encode((pickled, text, where), self)
        if len(message.body) + _HEAD.size > self._peer_limit:
            message = encode((None, text[:500], where[-500:]), self)
        return message

    # References

    def lend(self, exposed: Exposed) -> tuple[int, Description]:
        """Counts one more reference that the other side gets to an object of ours."""
        with held(self._lock):
            number = self._lent_by_key.get(exposed.key)
            if number is not None:
                entry = self._lent[number]
                if entry.exposed.allowed == exposed.allowed:
                    entry.count += 1
                    return number, exposed.description
            number, self._next_lent = self._next_lent, self._next_lent + 1
            self._lent[number] = _Entry(exposed, 1)
            self._lent_by_key[exposed.key] = number
            return number, exposed.description

    def lend_again(self, lent: tuple[tuple[int, Exposed], ...]) -> None:
        """Counts one more reference for objects that were lent under these numbers before."""
        with held(self._lock):
            for number, exposed in lent:
                entry = self._lent.get(number)
                if entry is None:
                    entry = self._lent[number] = _Entry(exposed, 0)
                    self._lent_by_key.setdefault(exposed.key, number)
                entry.count += 1

    def exposed(self, lent: tuple[int, ...]) -> tuple[tuple[int, Exposed], ...]:
        """What is lent under these numbers, to be lent again."""
        return tuple((number, self._lent[number].exposed) for number in lent)

    def entry(self, number: int) -> Exposed | None:
        """What the other side may use under a number."""
        entry = self._lent.get(number)
        return None if entry is None else entry.exposed

    def take_back(self, lent: Any) -> None:
        """References that were counted and not sent."""
        for number in lent:
            self._drop(number, 1)

    def _drop(self, number: int, references: int) -> None:
        with held(self._lock):
            entry = self._lent.get(number)
            if entry is None or number == 0:
                return
            entry.count -= references
            if entry.count > 0:
                return
            del self._lent[number]
            if self._lent_by_key.get(entry.exposed.key) == number:
                del self._lent_by_key[entry.exposed.key]
        del entry  # outside of the lock: it may be the last reference

    def own(self, number: int) -> Any:
        """The object of ours that a message names."""
        entry = self._lent.get(number)
        if entry is None:
            raise pickle.UnpicklingError("a reference to an object that is not there any more")
        return entry.exposed.obj

    def borrow(self, number: int, description: Any) -> Any:
        """The proxy of an object of the other side that a message brings."""
        with held(self._lock):
            self._borrow_count[number] = self._borrow_count.get(number, 0) + 1
            proxy = self._borrowed.get(number)
            if proxy is None:
                proxy = self._borrowed[number] = self._make(self, number, Description(*description))
            return proxy

    def dropped(self, number: int) -> None:
        """A proxy is gone: called by its finalizer, anywhere."""
        if self._over is None:
            go(self._give_back, number)

    def _give_back(self, number: int) -> None:
        with held(self._lock):
            if self._borrowed.get(number) is not None:
                return  # another has come meanwhile, and will give back for both
            references = self._borrow_count.pop(number, 0)
        if references:
            self._tell(_DROP, number, _REFERENCES.pack(references))

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
        with held(self._lock):
            if self._over is not None:
                return
            self._over = error
        self._frames.close()
        for number, waiting in list(self._waiting.items()):
            waiting.failure = error
            if self._waiting.pop(number, None) is not None:
                waiting.done.set()
        for goroutine in list(self._running.values()):
            if goroutine is not None:
                goroutine.cancel("the other side has disconnected")
        self._operations.end()
        while self._kept:
            try:
                _, receipt = self._kept.popitem()  # the last first: so they stand in their order again
            except KeyError:
                break
            receipt.undo()
        with held(self._lock):
            lent, self._lent = self._lent, {}
            self._lent_by_key = {}
            self._borrow_count.clear()
        lent.clear()
        self.finished.set()

    def wait_idle(self, seconds: float | None) -> bool:
        """Waits until no method is being called here, other than those of channels, and the answers are sent; returns
        whether that came.
        """
        end = None if seconds is None else time.monotonic() + seconds
        if not self._busy.wait(seconds):
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
        except (OSError, ValueError) as failure:
            error = Disconnected(f"the connection was closed: {frames.failure or failure}")
            error.__cause__ = failure
        else:
            session = session_of()
            if session is None:
                return
            try:
                session.take(body)
            except Exception as failure:
                # The key was right, and yet this is no message of this protocol.
                error = Disconnected(f"the connection was closed: {failure}")
                session.end(error)
                return
            del session, body
            continue
        session = session_of()
        if session is not None:
            session.end(error)
        return


def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs what an async method returned, as an async goroutine; cancelled with who waits for it."""

    async def run() -> Any:
        return await coroutine

    goroutine = go(run)
    try:
        return goroutine.result()
    except BaseException:
        goroutine.cancel()
        raise


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    """The child has copies of connections that belong to its parent: it may not speak on them."""
    for session in list(_sessions):
        session._over = Disconnected("the process has forked: connect again in the child")


os.register_at_fork(after_in_child=_after_fork)

"""Operations on channels that live in several processes.

`start` begins a select (a send or a receive is one with a single case) and calls `done` exactly once with the outcome.
Three kinds, by where the channels are:

* `Local`: all are in this process. A `_Stead` waits in the channels' queues, as a goroutine would.
* `Remote`: all are with one peer. It is carried out there, as a whole: exact, however many cases.
* `Mixed`: anything else, below.

**What was received and is not wanted** goes back: an outcome with a value has a receipt, of which one of `taken()` and
`undo()` is called; of several calls the first counts. A signal may end whoever waits at any moment until the receipt is
called, so what leaves `wait` by an exception calls `undo()` last.

**Mixed.** The cases are grouped by place. First each group is tried without waiting, in random order, weighted by its
cases. Then all groups wait at once. A receive can be undone, a send cannot: so only one group, the *decider*, may
have its sends queued, and

* an outcome of the decider stands. Everything else is withdrawn, and what others have received meanwhile is undone.
* an outcome of another group, which is a receive, is provisional: the decider is asked to withdraw. If it can, the
  receive stands; if it had an outcome by then, that stands, and the receive is undone.

So of all groups exactly one outcome stands, and no send happens that is not told. If sends are in several places,
these take turns to be the decider, for some milliseconds of random length: receives wait in all places all the time
but for the moment of the change, so every send meets a receive that waits long enough. The outcome is told after every
group has answered: nothing of a select is left when it returns.

Rejected: to lock all places, decide, and unlock. It holds up strangers for a round trip, and for ever when one dies.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from goslings import _threads
from goslings._errors import Closed
from goslings._goslings import (
    Case,
    _can_park,
    _may_block,
    _put_back,
    _recv_outside,
    _selected,
    _Stead,
    after_func,
    chan,
    current,
)
from goslings.processes import _messages, _pump
from goslings.processes._signals import Told, again, shielded, whole

__all__ = ["Outcome", "Owed", "Remote", "aselect", "moment", "now", "select", "start"]

CANCELLED = -1


class Outcome:
    """What became of an operation: an index (-1: nothing has happened), a value and ok, as of a select; or an error."""

    __slots__ = ("error", "index", "ok", "receipt", "value")

    def __init__(
        self, index: int = CANCELLED, value: Any = None, ok: bool | None = False, error: BaseException | None = None
    ) -> None:
        self.index = index
        self.value = value
        self.ok = ok
        """True: carried out. False: a channel to receive from is closed and drained. None: one to send to is closed."""
        self.error = error
        self.receipt: Any = None


Done = Callable[[Outcome], object]
Cases = Sequence[tuple[Any, bool, Any]]
"""A channel, whether to send, and what."""


class Kept:
    """The receipt for a value of a channel in this process."""

    __slots__ = ("_channel", "_value")

    def __init__(self, channel: Any, value: Any) -> None:
        self._channel = channel
        self._value = value

    def taken(self) -> None:
        self._channel = self._value = None

    def undo(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            _put_back(channel, self._value)


class Owed:
    """The receipt for a value of a peer's channel."""

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Any, number: int) -> None:
        self._peer = peer
        self._number = number

    def taken(self) -> None:
        self._peer.post((_messages.TAKEN, self._number))

    def undo(self) -> None:
        self._peer.post((_messages.UNDO, self._number))


class Local:
    """A select among channels of this process, without a goroutine."""

    __slots__ = ("_cases", "_done", "_number", "_stead")

    def __init__(self, cases: Cases, waits: bool, done: Done) -> None:
        self._cases = cases
        self._done = done
        self._number = _pump.add(self)
        self._stead = _Stead(_pump.bell, self._number, list(cases), waits)
        self.woken()

    def woken(self) -> None:
        """The wait has begun, or is over."""
        self._tell(self._stead.poll())

    def cancel(self) -> None:
        self._tell(self._stead.cancel())

    def _tell(self, answer: tuple[int, Any, bool | None] | None) -> None:
        if answer is None:
            return
        _pump.remove(self._number)
        index, value, ok = answer
        outcome = Outcome(index, value, ok)
        if ok and not self._cases[index][1]:
            outcome.receipt = Kept(self._cases[index][0], value)
        self._done(outcome)


class Remote:
    """A select among channels of one peer."""

    __slots__ = ("_done", "number", "peer")

    def __init__(self, peer: Any, packed: Cases, waits: bool, done: Done) -> None:
        """`packed`: numbers of channels, whether to send, and payloads with descriptors."""
        self.peer = peer
        self._done = done
        self.number = 0
        peer.begin(self, waits, packed)

    def cancel(self) -> None:
        self.peer.post((_messages.CANCEL, self.number))

    def answered(self, outcome: Outcome) -> None:
        self._done(outcome)


def pack(cases: Cases) -> list[tuple[Any, bool, Any]]:
    """The cases with what is sent to other processes pickled: so that errors are where the value came from."""
    packed = []
    for channel, sends, value in cases:
        home = getattr(channel, "_goslings_home", None)
        if home is not None and sends:
            parcel = home[0].parcel()
            packed.append((channel, True, (home[0].pack(value, "value", parcel), parcel)))
        else:
            packed.append((channel, sends, value))
    return packed


def _place(channel: Any) -> Any:
    home = getattr(channel, "_goslings_home", None)
    return None if home is None else home[0]


def _at(peer: Any, cases: Cases, waits: bool, done: Done) -> Any:
    if peer is None:
        return Local(cases, waits, done)
    numbered = [(channel._goslings_home[1], sends, value) for channel, sends, value in cases]
    return Remote(peer, numbered, waits, done)


def start(cases: Cases, waits: bool, done: Done, packed: bool = False) -> Any:
    """Begins a select; calls `done` with the outcome, perhaps at once. What it returns can be cancelled.

    Never blocks. Raises what says why a value cannot be pickled, unless that was done before.
    """
    if not packed:
        cases = pack(cases)
    places = {_place(channel) for channel, _, _ in cases}
    if len(places) == 1:
        return _at(places.pop(), cases, waits, done)
    return _mixed(cases, waits, done)


class _Group:
    """The cases of one place."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.cases: list[tuple[Any, bool, Any]] = []
        self.indices: list[int] = []
        self.handle: Any = None
        self.under_way = False
        self.cancelled = False

    @property
    def sends(self) -> bool:
        return any(sends for _, sends, _ in self.cases)


class Mixed:
    """A select among channels of several processes; see the module."""

    def __init__(self, cases: Cases, waits: bool, done: Done) -> None:
        groups: dict[Any, _Group] = {}
        for index, case in enumerate(cases):
            group = groups.setdefault(_place(case[0]), _Group(_place(case[0])))
            group.cases.append(case)
            group.indices.append(index)
        self._groups = list(groups.values())
        self._done = done
        self._waits = waits
        self._trying: list[_Group] | None = sorted(
            self._groups, key=lambda group: random.random() ** (1 / len(group.cases)), reverse=True
        )
        senders = [group for group in self._groups if group.sends]
        self._deciders = random.sample(senders, len(senders)) or [self._groups[0]]
        self._decider = self._deciders[0]
        self._winner: Outcome | None = None
        self._provisional: Outcome | None = None
        self._cancelled = False
        self._over = False
        self._round = 0
        # Events are handled one at a time, by whoever brings the first of them.
        self._lock = _threads.lock()
        self._events: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._busy = False
        self._tell(self._try_next)

    @whole
    def cancel(self) -> None:
        self._tell(self._on_cancel)

    def _tell(self, event: Callable[..., None], *args: Any) -> None:
        with self._lock:
            self._events.append((event, args))
            if self._busy:
                return
            self._busy = True
        while True:
            with self._lock:
                if not self._events:
                    self._busy = False
                    return
                event, args = self._events.pop(0)
            event(*args)

    def _begin(self, group: _Group, waits: bool, with_sends: bool) -> None:
        chosen = [place for place, case in enumerate(group.cases) if with_sends or not case[1]]
        if not chosen:
            return
        indices = [group.indices[place] for place in chosen]
        group.under_way, group.cancelled, group.handle = True, False, None

        def done(outcome: Outcome) -> None:
            if outcome.index >= 0:
                outcome.index = indices[outcome.index]
            self._tell(self._on_outcome, group, outcome)

        group.handle = _at(group.place, [group.cases[place] for place in chosen], waits, done)

    def _try_next(self) -> None:
        assert self._trying is not None
        if self._trying and not self._cancelled:
            self._begin(self._trying.pop(0), False, True)
            return
        self._trying = None
        if self._waits and not self._cancelled:
            self._wait()
        else:
            self._finish(Outcome())

    def _wait(self) -> None:
        self._round += 1
        for group in self._groups:
            self._begin(group, True, group is self._decider)
        if len(self._deciders) > 1:
            after_func(random.uniform(0.002, 0.006), functools.partial(self._tell, self._on_turn, self._round))

    def _withdraw(self) -> None:
        for group in self._groups:
            if group.under_way and not group.cancelled:
                group.cancelled = True
                group.handle.cancel()

    def _on_turn(self, number: int) -> None:
        if number == self._round and not self._over:
            self._withdraw()

    def _on_cancel(self) -> None:
        self._cancelled = True
        self._withdraw()

    def _on_outcome(self, group: _Group, outcome: Outcome) -> None:
        group.under_way = False
        if self._trying is not None:
            if outcome.index >= 0 or outcome.error is not None:
                self._finish(outcome)
            else:
                self._try_next()
            return
        if outcome.index >= 0 or outcome.error is not None:
            if group is self._decider and self._winner is None:
                self._winner = outcome
            elif self._provisional is None and self._winner is None:
                self._provisional = outcome
            elif outcome.receipt is not None:
                outcome.receipt.undo()
            self._withdraw()
        if any(group.under_way for group in self._groups):
            return
        if self._winner is not None:
            if self._provisional is not None and self._provisional.receipt is not None:
                self._provisional.receipt.undo()
            self._finish(self._winner)
        elif self._provisional is not None:
            self._finish(self._provisional)
        elif self._cancelled:
            self._finish(Outcome())
        else:
            self._deciders.append(self._deciders.pop(0))
            self._decider = self._deciders[0]
            self._wait()

    def _finish(self, outcome: Outcome) -> None:
        self._over = True
        for group in self._groups:
            # Which refer to this: nothing is left for the collector.
            group.handle, group.cases = None, []
        self._groups.clear()
        self._done(outcome)


_mixed = whole(Mixed)


# For those who wait


class _Answer:
    """What comes of an operation, for whoever began it. If that one has left, nobody has it.

    The outcome stays here, and `came` tells of it: a signal that comes as it is received cannot take it along.
    """

    __slots__ = ("_left", "came", "outcome")

    def __init__(self) -> None:
        self.came: chan[None] = chan(1)
        self.outcome: Any = None
        self._left = False

    def answered(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.came.try_send(None)
        if self._left:
            self._undo()

    __call__ = answered

    def leave(self) -> None:
        """Nobody waits any more. Said first, and looked at then; what comes does it the other way round."""
        self._left = True
        self._undo()

    def _undo(self) -> None:
        if self.outcome is not None and self.outcome.receipt is not None:
            self.outcome.receipt.undo()

    def settled(self, error: BaseException) -> Outcome:
        """What has become of an operation that was withdrawn because of `error`. Waits for that, whatever comes."""
        while self.outcome is None:
            try:
                _recv_outside(self.came)
            except BaseException:
                continue  # the first one is what is raised in the end
        try:
            return _settle(self.outcome, error)
        finally:
            del error  # as in `_settle`


class Solo(_Answer):
    """One send or receive on a channel of a peer, for somebody who waits for the answer."""

    __slots__ = ("begun", "number", "peer")

    def __init__(self, peer: Any) -> None:
        super().__init__()
        self.peer = peer
        self.number = 0
        self.begun = False

    def begin(self, waits: bool, channel: int, packed: Any) -> None:
        """`channel`: its number; `packed`: what to send, and its parcel, or None to receive."""
        self.peer.begin_one(self, waits, channel, packed)
        self.begun = True

    def cancel(self) -> None:
        self.peer.post((_messages.CANCEL, self.number))


def now(cases: Cases) -> Outcome:
    """An operation that does not wait, but for the answer of another process. It is settled."""
    _may_wait_a_moment()
    answer, begun = _Answer(), False
    try:
        try:
            begun = start(cases, False, answer) is not None
            _recv_outside(answer.came)
        except BaseException as error:
            if not begun:
                raise  # or a signal came in the middle of that
            return _checked(answer.settled(error))
        return _checked(answer.outcome)
    except BaseException:
        answer.leave()
        raise


def moment(answer: Told) -> Any:
    """The answer, which does come soon: a wait that nothing interrupts.

    Raises RuntimeError in an async goroutine, which would hold up whoever brings the answer.
    """
    _may_wait_a_moment()
    return shielded(answer)


def _may_wait_a_moment() -> None:
    if current() is not None and not _can_park():
        raise RuntimeError(
            "this needs an answer of another process, and cannot wait for it in an async goroutine: "
            "`await ch.asend(value, 0)` and `await ch.arecv(0)` do, or ask in a goroutine with a stack"
        )


def wait(cases: Cases, timeout: float | None, packed: bool = False) -> Outcome:
    """Carries out a select, waiting at most `timeout` seconds; an outcome with index -1 then. It is settled."""
    answer, handle = _Answer(), None
    try:
        try:
            handle = start(cases, timeout is None or timeout > 0, answer, packed)
            answer.came.recv(timeout if timeout is None or timeout > 0 else None)
        except BaseException as error:
            if handle is None:
                raise  # or a signal came in the middle of that
            handle.cancel()
            return _checked(answer.settled(error))
        return _checked(answer.outcome)
    except BaseException:
        answer.leave()
        raise


def wait_one(peer: Any, channel: int, packed: Any, timeout: float | None) -> Outcome:
    """The same for one send or receive on a channel of a peer, as `Solo` takes it."""
    handle = Solo(peer)
    try:
        try:
            handle.begin(timeout is None or timeout > 0, channel, packed)
            handle.came.recv(timeout if timeout is None or timeout > 0 else None)
        except BaseException as error:
            # Not begun: it raised, or a signal came in the middle, and nobody knows whether an answer will come.
            if handle.number:
                handle.cancel()
            if not handle.begun:
                raise
            return _checked(handle.settled(error))
        return _checked(handle.outcome)
    except BaseException:
        handle.leave()
        raise


async def await_(cases: Cases, timeout: float | None, packed: bool = False) -> Outcome:
    """The same, awaited."""
    answer, handle = _Answer(), None
    try:
        handle = start(cases, timeout is None or timeout > 0, answer, packed)
        await answer.came.arecv(timeout if timeout is None or timeout > 0 else None)
    except BaseException as error:
        if handle is not None:
            handle.cancel()
        if handle is None or isinstance(error, GeneratorExit):  # the coroutine is closed, and may not await any more
            answer.leave()
            raise
        while answer.outcome is None:
            try:
                await answer.came.arecv()
            except GeneratorExit:
                answer.leave()
                raise
            except BaseException:
                continue
        return _checked(_settle(answer.outcome, error))
    return _checked(answer.outcome)


def _settle(outcome: Outcome, error: BaseException) -> Outcome:
    """The operation was withdrawn because of `error`, and ended like this: what is to be told, or an exception."""
    if isinstance(error, TimeoutError):
        return outcome  # served at the last moment, or not at all
    try:
        if outcome.receipt is not None:
            outcome.receipt.undo()
            raise error
        if outcome.index >= 0 and outcome.ok:
            # Sent: that cannot be undone, and must not be done again.
            _cancel_again(error)
            return outcome
        raise error
    finally:
        del error  # its traceback refers to this frame


def _cancel_again(error: BaseException) -> None:
    import asyncio

    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    try:
        if task is None:
            again(error)
        else:
            task.uncancel()  # the same request, not one more
            task.cancel(*error.args)
    finally:
        del error  # as in `_settle`


def _checked(outcome: Outcome) -> Outcome:
    error, outcome.error = outcome.error, None
    if error is not None:
        try:
            raise error
        finally:
            error = None  # its traceback refers to this frame
    if outcome.receipt is not None:
        outcome.receipt.taken()
        outcome.receipt = None
    return outcome


def _given(cases: Sequence[Case]) -> tuple[list[int], list[tuple[Any, bool, Any]], list[Any]]:
    """Of the cases that can be ready: their indices, parts, and channels."""
    indices, parts, channels = [], [], []
    for index, case in enumerate(cases):
        given, sends, value = case._parts()
        if given is not None:
            whole = getattr(given, "_goslings_whole", given)
            indices.append(index)
            parts.append((whole, sends, value))
            channels.append(given)
    return indices, parts, channels


def _chosen(outcome: Outcome, indices: list[int], channels: list[Any]) -> Any:
    if outcome.index < 0:
        return None
    index = indices[outcome.index]
    if outcome.ok is None:
        raise Closed(f"send on closed channel (case {index} of select)")
    return _selected(index, channels[outcome.index], outcome.value, outcome.ok)


def select(cases: Sequence[Case], timeout: float | None) -> Any:
    """`goslings.select`, if one of the channels is in another process."""
    _may_block("aselect(...)")
    indices, parts, channels = _given(cases)
    return _chosen(wait(parts, timeout), indices, channels)


async def aselect(cases: Sequence[Case], timeout: float | None) -> Any:
    """`goslings.aselect`, if one of the channels is in another process."""
    indices, parts, channels = _given(cases)
    return _chosen(await await_(parts, timeout), indices, channels)

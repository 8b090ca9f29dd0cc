"""The other side of a link: what it may use of ours, what we use of its, and the messages in between.

Both sides run the same code. Between worker and worker stands the parent, which uses a channel of one like any channel
of its own, and lends it to the other: nobody knows of more than one peer at a time.

**What is lent.** A channel that is pickled becomes a reference: whose it is, and its number there. The owner keeps it
in `_exports` with a count of the references that were given out; the other side has one object for it (`_imports`)
and tells how many of them are gone when that dies. References on their way are counted, so nothing goes away under
them: one for each message that holds one, since each is rebuilt once where it arrives. What was pickled and not sent,
since the select was over before, or the rest of it cannot be pickled, is given back (`Parcel`). That the object is gone
is told by the callback of a weak reference, not by a finalizer: while a finalizer runs, weak references may still find
the object, and who gets it so has one that will not be finalized again.

**Signals.** A handler may raise between any two instructions of the main thread, also in a `with lock`. So what locks
is carried out by a goroutine there (`_signals.whole`), and an operation of ours begins and ends without the lock: it is
listed first, and `dead` is looked at then; `end` does it the other way round.

**Operations.** The side that wants something numbers it (OP), the side of the channels carries it out, at once or with
a wait in its stead (_select.py), and answers exactly once. CANCEL only asks for that answer to come soon. A received
value stays with its owner, as a receipt, until TAKEN says that it has arrived with whoever wanted it; UNDO, or the
death of the other side, puts it back to the front. The link keeps the order, so whatever a process sends after it has
taken a value comes after that TAKEN.

**Receives without asking.** A peer that receives from a channel again and again is sent copies of the values that
come next, as far as they are small, and claims them itself (LEASE, COPIES; chan/lease.rs has the argument). It says
MORE when few copies are left, or when somebody here waits for what is claimed. Asking (OP) works as ever beside it,
and gets the next value, whoever has copies of that: so a peer asks when it has none that it can claim, and everything
but a plain receive always asks. More copies come with the answer.

**Never wait while you read.** The goroutine that reads a link neither waits for channels nor for room in a link: what
does not fit is queued here, and written by a goroutine of its own. Everybody who waits for an answer has at most one
operation under way, and streams have credits, so the queue is bounded by what others do.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import os
import pickle
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from goslings import _threads
from goslings._goslings import (
    AtomicInt,
    Link,
    RecvChan,
    Segment,
    SendChan,
    _Claims,
    _Credit,
    _Lease,
    _Letter,
    _Outflow,
    _Streams,
    chan,
    go,
    sleep,
)
from goslings.processes import _leases, _messages, _pickle, _pump, _select
from goslings.processes._errors import RemoteTraceback
from goslings.processes._signals import Told, is_interruptible, whole

__all__ = ["Peer", "resolve"]

CHAN, SEND, RECV = 0, 1, 2
"""What a reference is to: the channel or a view of it."""
_VIEWS: dict[type, int] = {chan: CHAN, SendChan: SEND, RecvChan: RECV}

_STREAM_SENDS = 8
"""So many sends of a peer on one channel, and it may go on without asking; and so large must the buffer be."""
_STREAM_MOST = 512
"""So many sends may be under way."""
_PAGE = 4096
_SHORT = 1 << 15
"""Longer messages may have to be written to memory of their own."""
_ROOM_SECONDS = 10.0
"""So long a message waits for descriptors, or memory, before its link is given up."""
_SHORT_OF = {
    errno.EMFILE: "no descriptor is left (RLIMIT_NOFILE, ulimit -n)",
    errno.ENFILE: "the system has no descriptor left",
    errno.ENOMEM: "no memory is left (RLIMIT_AS, ulimit -v)",
    errno.ENOBUFS: "the system has no memory left",
}
_LEASE_RECVS = 8
"""So many receives of a peer on one channel, and it gets copies of what comes next; and so large must the buffer be."""
_LEASE_MOST = 512
"""So many copies go at once."""
_LEASE_BYTES = 4096
"""Pickles of more bytes are not copied ahead; and for so many receives nothing else that has to be pickled."""
_LEASE_PAUSE = 64
_LEASE_TOTAL = 16384
"""So many bytes of pickles go at once, and one more."""

_NOTHING = object()

_peers: weakref.WeakValueDictionary[tuple[int, int], Peer] = weakref.WeakValueDictionary()


Failure = tuple[_pickle.Payload | None, str, str]
"""An exception on its way: itself, if it can be pickled, what it says, and its traceback."""


class Lent:
    """A channel of ours, or one that we have from another peer, that the peer may use."""

    __slots__ = ("channel", "copied", "count", "credit", "lease", "page", "pause", "receives", "sends", "views")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.count = 0
        self.views: dict[int, Any] = {}
        self.sends = 0
        """How many sends were asked for."""
        self.credit: _Credit | None = None
        """What the peer may send without asking."""
        self.page: Segment | None = None
        """What that is counted in."""
        self.receives = 0
        """How many receives were asked for, up to the number that makes a lease."""
        self.lease: _Lease | None = None
        """What the peer may receive without asking."""
        self.copied = 0
        """The number of the first value that was not copied to the peer."""
        self.pause = 0
        """So many receives must be asked for until values are pickled ahead again."""

    def end(self) -> None:
        """The peer has nothing of it any more."""
        credit, self.credit, self.page = self.credit, None, None
        if credit is not None:
            credit.end()
        lease, self.lease = self.lease, None
        if lease is not None:
            _leases.leave(self.channel, self)


class Parcel(list[int]):
    """What travels beside pickles: their descriptors, and the references to channels in them."""

    _references: _References | None = None

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer

    def reduce(self, obj: Any) -> Any:
        """What the pickler writes for `obj`; None: what it likes."""
        kind = type(obj)
        view = _VIEWS.get(kind)
        if view is None:
            view = getattr(kind, "_goslings_view", None)
            if view is None:
                return None
        references = self._references
        if references is None:
            references = self._references = _References(self._peer)
        return references.refer(obj, view)

    @property
    def refers(self) -> bool:
        """Whether there are any."""
        return self._references is not None

    def sent(self, back: bool = False) -> None:
        """What it belongs to is about to be sent, perhaps once more; `back`: it was not, after all."""
        if self._references is not None:
            self._references.sent(back)


class _References:
    """References that were counted when something was pickled, and belong to the message with it."""

    __slots__ = ("_found", "_peer", "_sent")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._found: list[tuple[int, bool, Any, int]] = []
        self._sent = 0

    @whole
    def refer(self, obj: Any, view: int) -> tuple[Any, ...]:
        peer = self._peer
        of, there = getattr(obj, "_goslings_home", (None, 0))
        theirs = of is peer
        number = there if theirs else peer.lend(obj, view)
        self._found.append((number, theirs, obj, view))
        return resolve, (peer._other, theirs, number, view)

    @whole
    def sent(self, back: bool) -> None:
        peer = self._peer
        for number, theirs, obj, view in self._found:
            if theirs:
                # It is the other side's own. One reference more, until this one has come home.
                peer.post((_messages.RELEASE, number, 1 if back else -1))
            elif back:
                if self._sent > 1:
                    peer.take_back(number)
            elif self._sent:
                peer.lend(obj, view, number)
        self._sent += -1 if back else 1

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if self._sent or _is_finalizing():
            return
        lent = [number for number, theirs, _, _ in self._found if not theirs and number]
        if lent:
            self._peer.unsent.extend(lent)
            _pump.ring()


class Peer:
    """One process that we share channels with, and the link to it."""

    def __init__(self, link: Link, pair: int, end: int, name: str) -> None:
        """`pair` names the link in both processes, `end` (0, 1) our side of it; `name` is for errors."""
        self.name = name
        self._writable = False
        self.handlers: dict[int, Callable[..., None]] = {}
        """What to do with other kinds of messages: called with what the tuple holds, and the descriptors."""
        self.dead: BaseException | None = None
        """Why operations fail, after the link has ended."""
        self._link = link
        self._key = (pair, end)
        self._other = (pair, 1 - end)
        self._lock = _threads.lock()
        self._outbox: collections.deque[tuple[Any, list[int]]] = collections.deque()
        self._numbers = AtomicInt()
        self._operations: dict[int, _select.Remote | _select.Solo] = {}
        self._questions: dict[int, Told] = {}
        self._serving: dict[int, Any] = {}
        self._receipts: dict[int, Any] = {}
        self._exports: dict[int, Lent] = {}
        self._export_numbers: dict[Any, int] = {}
        self._streams = _Streams(pickle.loads, _report)
        self._imports: dict[int, weakref.ref[Any]] = {}
        self._import_counts: dict[int, int] = {}
        """References that came in, and that home was not told of."""
        self.gone: collections.deque[int] = collections.deque()
        """Imports that were collected; told by the pump, if they have not come again meanwhile."""
        self.unsent: collections.deque[int] = collections.deque()
        """Exports to which a reference was counted and not sent; taken back by the pump."""
        _peers[self._key] = self
        _pump.know(self)

    # Sending

    def post(self, message: tuple[Any, ...], large: bool = False, fds: Sequence[int] = ()) -> None:
        """Sends a message, now or soon. Never blocks. Does nothing if the link has ended: its reader tells.

        Raises MemoryError or OSError if a long message could not be written: it is not sent then.
        """
        if self.dead is not None:
            return
        parts: Any = _messages.encode(message, large)
        if not large and not fds and len(parts[0]) <= _SHORT:
            with contextlib.suppress(OSError):
                if not self._link._put(parts[0]):
                    self.post_frame(parts)
            return
        if large or len(parts[0]) > _SHORT:
            parts = self._link._written(parts)  # copied once, whenever it is sent
        self.post_frame(parts, fds)

    @whole
    def post_frame(self, parts: Any, fds: Sequence[int] = ()) -> None:
        """The same for the parts of a frame."""
        with self._lock:
            start = not self._outbox
            try:
                if start and self._link._post(parts, list(fds)):
                    return
            except OSError:
                return
            kept = parts if isinstance(parts, _Letter) else [bytes(part) for part in parts]
            self._outbox.append((kept, [os.dup(fd) for fd in fds]))
            self._link._hold(True)
        if start:
            go(self._write)

    def _write(self) -> None:
        while True:
            parts, fds = self._outbox[0]
            with contextlib.suppress(OSError):
                self._link.send(parts, fds)
            for fd in fds:
                os.close(fd)
            with self._lock:
                self._outbox.popleft()
                if not self._outbox:
                    self._link._hold(False)
                    return

    def let_write(self) -> None:
        """From now on large buffers can be written where they arrive."""
        self._writable = True
        self._link._let_write()

    def close(self) -> None:
        """Ends the link."""
        self._link.close()

    # Values

    def pack(self, value: Any, where: str, parcel: Parcel) -> _pickle.Payload:
        """Pickles a value for the other side; raises what says why it cannot be."""
        return _pickle.dumps(value, parcel.reduce, where, parcel)

    def unpack(self, payload: _pickle.Payload, fds: list[int] | None = None) -> Any:
        """The value that the other side has packed."""
        return _pickle.loads(payload, self._writable, fds)

    def parcel(self) -> Parcel:
        """What `pack` fills."""
        return Parcel(self)

    def outflow(self, number: int) -> _Outflow:
        """The sending end of a stream to a channel of the other side."""
        return _Outflow(self._link, number)

    @whole
    def lend(self, obj: Any, view: int, number: int | None = None) -> int:
        """Counts one more reference to a channel; its number, which it has had before if one is given."""
        with self._lock:
            if self.dead is not None:
                return 0  # nothing is sent any more
            if number is None:
                number = self._export_numbers.get(obj)
                if number is None:
                    number = self._numbers.add(1)
            lent = self._exports.get(number)
            if lent is None:
                lent = self._exports[number] = Lent(obj)
                self._export_numbers.setdefault(obj, number)
            lent.views.setdefault(view, obj)
            lent.count += 1
        return number

    @whole
    def take_back(self, number: int, count: int = 1) -> None:
        """So many references to a channel of ours are gone."""
        with self._lock:
            lent = self._exports.get(number)
            if lent is None:
                return  # the link has ended
            lent.count -= count
            gone = lent.count == 0
            if gone:
                del self._exports[number]
                # Equal to its views: whichever was lent first.
                if self._export_numbers.get(lent.channel) == number:
                    del self._export_numbers[lent.channel]
        if gone:
            self._streams.remove(number)
            lent.end()

    @whole
    def own(self, number: int, view: int) -> Any:
        """A channel that we have lent, coming home."""
        lent = self._exports[number]
        if view in lent.views:
            found = lent.views[view]
        else:
            whole = lent.views[CHAN]
            found = whole.sender() if view == SEND else whole.receiver()
        self.take_back(number)
        return found

    @whole
    def borrowed(self, number: int, view: int) -> Any:
        """The object for a channel of the other side."""
        from goslings.processes import _chan

        with self._lock:
            known = self._imported(number)
            if known is None:
                known = _chan.Origin(self, number)
                self._imports[number] = weakref.ref(known, functools.partial(_dropped, self.gone, number))
            self._import_counts[number] = self._import_counts.get(number, 0) + 1
        return known.view(view)

    def _imported(self, number: int) -> Any:
        """What we have of a channel of the other side, or None."""
        known = self._imports.get(number)
        return None if known is None else known()

    def tell_gone(self) -> None:
        """Tells which references were dropped. By the pump."""
        while self.gone:
            number = self.gone.popleft()
            with self._lock:
                if self._imported(number) is not None:
                    continue  # it has come again, and the count goes on
                self._imports.pop(number, None)
                count = self._import_counts.pop(number, 0)
            if count:
                self.post((_messages.RELEASE, number, count))
        while self.unsent:
            self.take_back(self.unsent.popleft())

    # Operations of ours

    def begin(self, operation: _select.Remote, waits: bool, cases: Sequence[tuple[int, bool, Any]]) -> None:
        """Sends an operation; its answer comes to `operation.answered`. Payloads come as (payload, parcel)."""
        fds: list[int] = []
        plain = []
        parcels = []
        large = False
        for channel, sends, packed in cases:
            payload = None
            if packed is not None:
                payload = packed[0]
                parcels.append(packed[1])
                fds += packed[1]
                large = large or _pickle.is_large(payload)
            plain.append((channel, sends, payload))
        self._begin(operation, waits, plain, large, fds, parcels)

    def begin_one(self, operation: _select.Solo, waits: bool, channel: int, packed: Any) -> None:
        """The same for one send (`packed`: its payload and parcel) or receive (None)."""
        if packed is None:
            self._begin(operation, waits, ((channel, False, None),), False, (), ())
        else:
            payload, parcel = packed
            self._begin(operation, waits, ((channel, True, payload),), _pickle.is_large(payload), parcel, (parcel,))

    def _begin(
        self,
        operation: _select.Remote | _select.Solo,
        waits: bool,
        plain: Sequence[tuple[int, bool, Any]],
        large: bool,
        fds: Sequence[int],
        parcels: Sequence[Parcel],
    ) -> None:
        for parcel in parcels:
            if parcel.refers and is_interruptible():
                _begin_whole(self, operation, waits, plain, large, fds, parcels)  # references are counted, and sent
                return
        number = operation.number = self._numbers.add(1)
        self._operations[number] = operation
        if self.dead is not None:
            if self._operations.pop(number, None) is not None:
                operation.answered(_select.Outcome(error=self.death()))
            return
        for parcel in parcels:
            parcel.sent()
        try:
            self.post((_messages.OP, number, waits, plain), large, fds)
        except (OSError, MemoryError) as error:
            for parcel in parcels:
                parcel.sent(back=True)
            if self._operations.pop(number, None) is not None:
                operation.answered(_select.Outcome(error=error))

    def ask(self, channel: int, question: str) -> Any:
        """Asks for something about a channel of the other side, and waits for the answer, a moment."""
        answer = Told()
        number = self._numbers.add(1)
        self._questions[number] = answer
        if self.dead is not None:
            self._questions.pop(number, None)
            raise self.death()
        self.post((_messages.ASK, number, channel, question))
        said = _select.moment(answer)
        del answer  # which refers to it, too
        if isinstance(said, BaseException):
            try:
                raise said
            finally:
                del said  # its traceback refers to this frame
        return said

    def death(self) -> BaseException:
        """A new exception that says what `dead` says."""
        dead = self.dead
        assert dead is not None
        return type(dead)(*dead.args)

    # Reading

    def read(self) -> None:
        """Reads the link to its end, and serves what comes. Raises what garbage on it raises."""
        link = self._link
        handlers: dict[int, Callable[..., None]] = {
            _messages.OP: self._on_op,
            _messages.CANCEL: self._on_cancel,
            _messages.ANSWER: self._on_answer,
            _messages.FAILED: self._on_failed,
            _messages.TAKEN: self._on_taken,
            _messages.UNDO: self._on_undo,
            _messages.RELEASE: self._on_release,
            _messages.ASK: self._on_ask,
            _messages.CREDIT: self._on_credit,
            _messages.LEASE: self._on_lease,
            _messages.MORE: self._on_more,
            _messages.ANSWERED: self._on_answered,
            **self.handlers,
        }
        waited = 0.0
        while True:
            unmapped = None
            try:
                frame, fds = link._recv(self._streams)
            except EOFError:
                return
            except (OSError, MemoryError) as error:
                if link.closed:
                    return
                unmapped = link._unmapped(_messages.HEAD_MAX)
                if unmapped is None:
                    waited += _wait_for_room(error, waited)
                    continue
                # Whom it was for is told.
                frame, fds = unmapped, []
            waited = 0.0
            try:
                if frame and frame[0] == _messages.COPIES:
                    self._on_copies(bytes(frame))
                    continue
                message = _messages.decode(frame) if unmapped is None else _messages.head(unmapped)
                handlers[message[0]](fds, *message[1:])
            finally:
                _pickle.close(fds)
            del frame, message, unmapped  # nothing is kept while we wait for the next one

    def end(self, why: BaseException) -> None:
        """After the link has ended: whoever waits for the other side hears why, and what it held comes back."""
        with self._lock:
            self.dead = why
        operations = list(_emptied(self._operations))
        questions = list(_emptied(self._questions))
        serving = list(self._serving.values())
        for served in serving:
            served.cancel()
        receipts = [self._receipts.pop(number) for number in sorted(self._receipts, reverse=True)]
        for receipt in receipts:
            receipt.undo()
        for ref in list(self._imports.values()):
            origin = ref()
            if origin is not None and origin.claims is not None:
                origin.claims.close()
        with self._lock:
            exports = list(self._exports.values())
            numbers = list(self._export_numbers)
            self._exports.clear()
            self._export_numbers.clear()
        self._streams.clear()
        for lent in exports:
            lent.end()
        del exports, numbers
        for operation in operations:
            operation.answered(_select.Outcome(error=self.death()))
        for question in questions:
            question(self.death())
        _pump.forget(self)
        self.handlers = {}  # which refer to who has this peer: nothing is left for the collector

    def _on_op(self, fds: list[int], number: int, waits: bool, cases: Sequence[tuple[int, bool, Any]]) -> None:
        found = []
        at = 0
        try:
            for channel, sends, payload in cases:
                value = None
                if payload is not None:
                    end = at + payload[2]
                    own = fds[at:end]
                    fds[at:end] = [-1] * len(own)
                    try:
                        value = self.unpack(payload, own)
                    finally:
                        _pickle.close(own)
                    at = end
                found.append((self._exports[channel].channel, sends, value))
        except BaseException as error:
            self._fail(number, error)
            return
        served = Served(self, number, cases[0][0] if len(cases) == 1 else None)
        if len(cases) == 1 and served.at_once(*found[0]):
            return
        self._serving[number] = served
        served.begin(found, waits)

    def _on_cancel(self, fds: list[int], number: int) -> None:
        served = self._serving.get(number)
        if served is not None:
            served.cancel()

    def _on_answer(self, fds: list[int], number: int, index: int, ok: bool | None, payload: Any) -> None:
        operation = self._operations.pop(number)
        outcome = _select.Outcome(index, None, ok)
        if payload is not None:
            outcome.receipt = _select.Owed(self, number)
            try:
                outcome.value = self.unpack(payload, fds)
            except BaseException as error:
                if _pickle.is_for_want_of_room(error):
                    outcome.receipt.undo()  # it stays where it was
                else:
                    # It cannot be rebuilt here: whoever wanted it hears that, and nobody else would fare better.
                    outcome.receipt.taken()
                outcome = _select.Outcome(error=error)
        operation.answered(outcome)

    def _on_failed(self, fds: list[int], number: int, payload: Any) -> None:
        error = self.failure(payload, fds)
        question = self._questions.pop(number, None)
        if question is not None:
            question(error)
            return
        self._operations.pop(number).answered(_select.Outcome(error=error))

    def _on_taken(self, fds: list[int], number: int) -> None:
        receipt = self._receipts.pop(number, None)
        if receipt is not None:  # a signal may have cut who says so, and had it said twice
            receipt.taken()

    def _on_undo(self, fds: list[int], number: int) -> None:
        receipt = self._receipts.pop(number, None)
        if receipt is not None:
            receipt.undo()

    def _on_release(self, fds: list[int], number: int, count: int) -> None:
        if number not in self._exports:
            raise ValueError(f"there is no channel {number}")
        self.take_back(number, count)

    # Streams: a channel with a buffer promises some of it to a peer that sends again and again, so that the sends need
    # no answer. What is promised and unused is taken back as soon as somebody else would have to wait for it.

    def _asked_to_send(self, number: int) -> None:
        """The peer has sent, and waited for the answer."""
        lent = self._exports.get(number)
        if lent is None or getattr(lent.channel, "_goslings_home", None) is not None:
            return
        with self._lock:
            if self._exports.get(number) is not lent:
                return  # it was given back, or the link has ended: nothing may be promised any more
            lent.sends += 1
            lends = False
            if lent.credit is not None:
                # If it has credit, and does not use it, it has perhaps forgotten the channel meanwhile, and the page.
                lends = lent.credit.more() and lent.sends % _STREAM_SENDS == 0
            elif lent.sends == _STREAM_SENDS and lent.channel.capacity >= _STREAM_SENDS:
                try:
                    lent.page = Segment(_PAGE)
                except (OSError, MemoryError):
                    lent.sends = 0  # no memory: another time
                    return
                lent.credit = _Credit(lent.channel, lent.page, min(lent.channel.capacity, _STREAM_MOST))
                self._streams.add(number, lent.credit)
                lent.credit.more()
                lends = True
            page = lent.page
        if lends:
            assert page is not None
            self.post((_messages.CREDIT, number), False, [page.fileno()])

    def _on_credit(self, fds: list[int], number: int) -> None:
        origin = self._imported(number)
        if origin is not None:
            with contextlib.suppress(OSError, MemoryError):  # without the page each send is asked for
                origin.outflow.allow(Segment.from_fd(fds.pop()))

    # Leases: whoever receives again and again gets copies of what comes next, and claims it by a count in a page that
    # all who take part share.

    def _asked_to_receive(self, number: int) -> None:
        """The peer has received, and waited for the answer."""
        lent = self._exports.get(number)
        if lent is None or getattr(lent.channel, "_goslings_home", None) is not None:
            return
        lent.pause -= lent.pause > 0
        if lent.lease is None:
            lent.receives += 1
            if lent.receives < _LEASE_RECVS or lent.channel.capacity < _LEASE_RECVS:
                return
            with self._lock:
                if self._exports.get(number) is not lent:
                    return
                begins = lent.lease is None
                try:
                    lease = lent.lease = lent.lease or _leases.join(lent.channel, lent)
                except (OSError, MemoryError):
                    lent.receives = 0  # no memory: another time
                    return
            if begins:
                self.post((_messages.LEASE, number), False, [lease.segment.fileno()])
        self._copy_ahead(number, lent)

    def _on_more(self, fds: list[int], number: int) -> None:
        lent = self._exports.get(number)
        if lent is not None:
            self._copy_ahead(number, lent)

    def _copy_ahead(self, number: int, lent: Lent) -> None:
        """Lets senders in who waited for claims, and sends copies of what comes next."""
        lease = lent.lease
        if lease is None:
            return  # it was given back meanwhile
        first, found, frame, values, _ = lease.values(number, lent.copied, _LEASE_MOST, lent.pause > 0)
        if not found:
            return
        # Two that do this at once may send a copy twice: whichever is behind the count is dropped.
        lent.copied = first + found
        if frame is None:
            packed = self._pack_ahead(lent, first, values)
            if not values:
                return
            frame = lease.frame(number, first, values, packed)
        if self.dead is None:
            with contextlib.suppress(OSError, MemoryError):  # they are here, and can be asked for
                self.post_frame(self._link._written([frame]) if len(frame) > _SHORT else [frame])

    def _pack_ahead(self, lent: Lent, first: int, values: list[Any]) -> list[int]:
        """Pickles those that need it, in their places, up to the first that has to be asked for. Which these are."""
        packed: list[int] = []
        fds: list[int] = []
        size = 0
        for place, value in enumerate(values):
            if type(value) in _pickle.PLAIN:
                continue
            if size > _LEASE_TOTAL:
                del values[place:]
                lent.copied = first + place
                break
            try:
                data, buffers, _ = _pickle.dumps(value, _refuse, "value", fds)
            except Exception:
                data, buffers = b"", [None]  # whoever asks for it hears why
            if fds or buffers or type(data) is not bytes or len(data) > _LEASE_BYTES:
                del values[place:]
                lent.copied = first + place + 1
                lent.pause = _LEASE_PAUSE
                break
            values[place] = data
            packed.append(place)
            size += len(data)
        return packed

    def _on_lease(self, fds: list[int], number: int) -> None:
        origin = self._imported(number)
        if origin is not None:
            more = b"".join(_messages.encode((_messages.MORE, number), False))
            ring = functools.partial(self.post, (_messages.MORE, number))
            with contextlib.suppress(OSError, MemoryError):  # without the page everything is asked for
                origin.claims = _Claims(Segment.from_fd(fds.pop()), self._link, more, ring, self._unpack_ahead)
                origin.outflow.claim_from(origin.claims)

    def _on_copies(self, frame: bytes) -> None:
        number = _Claims.channel_in(frame)
        origin = None if number is None else self._imported(number)
        if origin is not None and origin.claims is not None:
            origin.claims.add(frame)

    def _unpack_ahead(self, data: bytes) -> Any:
        return self.unpack((data, (), 0))

    def _on_ask(self, fds: list[int], number: int, channel: int, question: str) -> None:
        lent = self._exports[channel]
        if getattr(lent.channel, "_goslings_home", None) is not None:
            go(self._reply, number, lent.channel, question)  # it lives elsewhere: that takes a wait
        else:
            self._reply(number, lent.channel, question)

    def _reply(self, number: int, channel: Any, question: str) -> None:
        try:
            answer: Any
            if question == "len":
                answer = len(channel)
            elif question == "closed":
                answer = channel.closed
            elif question == "capacity":
                answer = channel.capacity
            else:
                channel.close()
                answer = None
        except Exception as error:
            self._fail(number, error)
            return
        self.post((_messages.ANSWERED, number, answer))

    def _on_answered(self, fds: list[int], number: int, answer: Any) -> None:
        self._questions.pop(number)(answer)

    def _fail(self, number: int, error: BaseException) -> None:
        self.post_failure(error, _messages.FAILED, number)

    # Exceptions

    def pack_failure(self, error: BaseException) -> tuple[Failure, Parcel]:
        """An exception for the other side: the exception, what it says, and its traceback as text."""
        text = "".join(traceback.format_exception(error))
        said = "".join(traceback.format_exception_only(error)).strip()
        fds = Parcel(self)
        payload: _pickle.Payload | None
        try:
            payload = self.pack(error.with_traceback(None), "exception", fds)
        except Exception as problem:
            payload = None
            said += f" (the exception itself could not travel: {problem})"
        return (payload, said, text), fds

    def post_failure(self, error: BaseException, *head: Any) -> None:
        """Sends a message that ends with the exception; with what it says, if there is no memory for more."""
        failure, fds = self.pack_failure(error)
        fds.sent()
        try:
            self.post((*head, failure), True, fds)
        except (OSError, MemoryError) as problem:
            fds.sent(back=True)
            said = f"{failure[1]} (the exception itself could not travel: {problem})"
            self.post((*head, (None, said[: _SHORT // 4], failure[2][-_SHORT // 4 :])))

    def failure(self, failure: Failure, fds: list[int]) -> BaseException:
        """The exception that the other side has packed; its cause is the traceback there."""
        payload, said, text = failure
        error: BaseException
        try:
            error = RuntimeError(said) if payload is None else self.unpack(payload, fds)
            if not isinstance(error, BaseException):
                raise TypeError("not an exception")
        except BaseException as problem:
            # Many can be pickled and not rebuilt: their __init__ wants other arguments.
            error = RuntimeError(f"{said} (the exception itself could not be rebuilt: {problem})")
        error.__cause__ = RemoteTraceback(text)
        return error


_begin_whole = whole(Peer._begin)


def _emptied[T](operations: dict[int, T]) -> Iterator[T]:
    """What is in there, which nobody else gets then. Others may put something in meanwhile."""
    with contextlib.suppress(KeyError):
        while True:
            yield operations.popitem()[1]


def _dropped(
    gone: collections.deque[int],
    number: int,
    _origin: object,
    _is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """An import was collected. Called anywhere."""
    if not _is_finalizing():  # what this would call may be gone already
        gone.append(number)
        _pump.ring()


def _wait_for_room(error: OSError | MemoryError, waited: float) -> float:
    """Waits a moment, for a message that there are no descriptors or no memory for, and that stays the next one.

    How long. Raises an error that is none of those, or if that has `waited` too long.
    """
    number = error.errno if isinstance(error, OSError) else errno.ENOMEM
    if number not in _SHORT_OF:
        raise error
    if waited >= _ROOM_SECONDS:
        raise OSError(number, f"for {waited:.0f} s a message could not be received: {_SHORT_OF[number]}") from None
    pause = min(0.1, 0.001 + waited / 4)
    sleep(pause)
    return pause


class Served:
    """An operation of the other side, on channels of ours."""

    __slots__ = ("_handle", "_number", "_on", "_peer")

    def __init__(self, peer: Peer, number: int, on: int | None) -> None:
        self._peer = peer
        self._number = number
        self._on = on
        """The channel, if it is a plain send or receive."""
        self._handle: Any = None

    def at_once(self, channel: Any, sends: bool, value: Any) -> bool:
        """Carries out a plain send or receive on a channel of this process if that needs no wait; whether it did."""
        kind = type(channel)
        if kind is not chan and kind is not (SendChan if sends else RecvChan):
            return False
        # Whatever is raised, nothing has happened: the wait tells why.
        if sends:
            try:
                if not channel.try_send(value):
                    return False
            except Exception:
                return False
            self._done(_select.Outcome(0, None, True))
            return True
        try:
            value = channel.try_recv(_NOTHING)
        except Exception:
            return False
        if value is _NOTHING:
            return False
        outcome = _select.Outcome(0, value, True)
        outcome.receipt = _select.Kept(channel, value)
        self._done(outcome)
        return True

    def begin(self, cases: list[tuple[Any, bool, Any]], waits: bool) -> None:
        self._handle = _select.start(cases, waits, self._done)

    def cancel(self) -> None:
        handle = self._handle
        if handle is not None:
            handle.cancel()

    def _done(self, outcome: _select.Outcome) -> None:
        peer, number = self._peer, self._number
        peer._serving.pop(number, None)
        if outcome.error is not None:
            peer._fail(number, outcome.error)
            return
        if outcome.receipt is None:
            peer.post((_messages.ANSWER, number, outcome.index, outcome.ok, None))
            if self._on is not None and outcome.ok:
                peer._asked_to_send(self._on)
            return
        fds = Parcel(peer)
        try:
            payload = peer.pack(outcome.value, "value", fds)
        except BaseException as error:
            # Sent here, where nothing is pickled: told where it was wanted, since nobody elsewhere could have it.
            outcome.receipt.taken()
            peer._fail(number, error)
            return
        with peer._lock:
            dead = peer.dead is not None
            if not dead:
                peer._receipts[number] = outcome.receipt
        if dead:
            outcome.receipt.undo()
            return
        if self._on is not None:
            peer._asked_to_receive(self._on)
        fds.sent()
        try:
            peer.post((_messages.ANSWER, number, outcome.index, outcome.ok, payload), _pickle.is_large(payload), fds)
        except (OSError, MemoryError) as error:
            fds.sent(back=True)
            with peer._lock:
                receipt = peer._receipts.pop(number, None)
            if receipt is not None:
                receipt.undo()
                peer._fail(number, error)


def _refuse(obj: Any) -> None:
    """For copies of values that others may receive: they hold no references to channels, which are counted."""
    if type(obj) in (chan, SendChan, RecvChan) or hasattr(type(obj), "_goslings_view"):
        raise pickle.PicklingError("a channel does not travel ahead")


def _report(error: BaseException) -> None:
    """A value of a stream could not be rebuilt: to the program's log, as what a goroutine raises."""
    go(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


def resolve(key: tuple[int, int], home: bool, number: int, view: int) -> Any:
    """What a reference to a channel becomes where it is unpickled."""
    peer = _peers.get(key)
    if peer is None:
        raise pickle.UnpicklingError("a channel travels between the processes of a pool only")
    return peer.own(number, view) if home else peer.borrowed(number, view)


def _after_fork() -> None:
    """The child has no part in its parent's processes; its links are closed there (link.rs)."""
    for peer in list(_peers.values()):
        peer.dead = RuntimeError("a forked child has no part in its parent's processes")
    _peers.clear()


os.register_at_fork(after_in_child=_after_fork)

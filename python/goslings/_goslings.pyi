"""The compiled part of goslings. Import from `goslings` instead."""

import collections.abc
from collections.abc import Buffer, Callable, Coroutine, Generator, Iterable, Sequence
from types import GenericAlias, TracebackType
from typing import Any, Literal, NoReturn, Self, SupportsIndex, final, overload

from _typeshed import FileDescriptorLike
from typing_extensions import disjoint_base

__all__ = [
    "AtomicInt",
    "Awaitable",
    "Barrier",
    "Case",
    "Cond",
    "Conn",
    "Event",
    "Goroutine",
    "Link",
    "Listener",
    "Mutex",
    "RLock",
    "RWMutex",
    "RWMutexSide",
    "RecvChan",
    "Segment",
    "Selected",
    "Semaphore",
    "SendChan",
    "TVar",
    "Ticker",
    "Timer",
    "WaitGroup",
    "_Bubble",
    "_HttpReader",
    "_Patched",
    "_Bell",
    "_Claims",
    "_Credit",
    "_Foreign",
    "_Lease",
    "_Letter",
    "_Outflow",
    "_Port",
    "_Stead",
    "_Streams",
    "_Watching",
    "_after_fork_child",
    "_after_fork_parent",
    "_attempt",
    "_before_fork",
    "_bubble",
    "_can_park",
    "_can_preempt",
    "_detect_deadlocks",
    "_end_with",
    "_failure",
    "_go_at",
    "_held",
    "_http_head",
    "_kernel",
    "_leaks",
    "_may_block",
    "_never",
    "_now",
    "_outside_event",
    "_own_locals",
    "_place",
    "_places",
    "_prepare",
    "_put_back",
    "_recv_idle",
    "_recv_outside",
    "_recv_packet",
    "_retry",
    "_selected",
    "_send_packet",
    "_set_slice_ms",
    "_set_warn_ms",
    "_stacks",
    "_sleep_here",
    "_start",
    "_start_default",
    "_stats",
    "_step",
    "_stm_stats",
    "_stop",
    "_unraisable",
    "_wait_fd_here",
    "after",
    "after_func",
    "agosched",
    "aselect",
    "asleep",
    "await_fd",
    "atomically",
    "chan",
    "closing_fd",
    "current",
    "get_ident",
    "go",
    "goexit",
    "gomaxprocs",
    "gosched",
    "lock",
    "lock_os_thread",
    "num_goroutine",
    "read_fd",
    "on_commit",
    "or_else",
    "recv",
    "select",
    "send",
    "sleep",
    "sock_accept",
    "sock_recv",
    "sock_recv_into",
    "sock_send",
    "sock_sendall",
    "unlock_os_thread",
    "wait_fd",
    "write_fd",
]

# Calls to be awaited

@final
class Awaitable[T]:
    """A call that waits, to be awaited once: `await ch.arecv()`.

    Nothing happens before it is awaited. In an async goroutine it parks the goroutine, in an asyncio task it suspends
    the task.
    """

    def __await__(self) -> Generator[Any, None, T]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: None) -> Any:
        """A step, for those who drive coroutines by hand. `value` must be None."""
    def throw(self, type: object, value: object = None, traceback: object = None) -> Any:
        """Raises an exception where the call waits; it is withdrawn."""
    def close(self) -> None:
        """Withdraws the call."""
    def __class_getitem__(cls, key: object) -> GenericAlias: ...

@final
class _Credit:
    """The home side of a promise."""

    def __new__(cls, ch: chan[Any] | SendChan[Any], segment: Segment, target: int) -> Self: ...
    def more(self) -> bool:
        """Promises more, if there is room. Returns whether there was something left before. Never blocks."""
    def end(self) -> None:
        """Nothing more arrives on it."""

@disjoint_base
class _Foreign:
    """What the classes of foreign channels have from here."""

    def __new__(cls, origin: Any) -> Self: ...
    def _send(self, value: Any, timeout: float | None = None) -> None:
        """As `chan.send`: blocks until a receiver takes the value or home has stored it, or has promised to."""
    def _recv(self, timeout: float | None = None) -> Any:
        """As `chan.recv`: blocks until home has a value."""
    def _next(self) -> Any:
        """As `next`."""

@final
class _Outflow:
    """What needs no answer of a channel of another process: the sending end of a stream, and copies that come ahead."""

    def __new__(cls, link: Link, number: int) -> Self: ...
    def allow(self, segment: Segment) -> None:
        """Home has promised sends, which this page counts."""
    def claim_from(self, claims: _Claims) -> None:
        """Copies come ahead."""
    def send(self, value: Any) -> bool | bytes | None:
        """Sends `value` if that needs no answer: True. False: home is to be asked. None: it is to be pickled. Bytes:
        these are to be queued behind the messages that wait for room. A cancel point. Never blocks.
        """
    def send_pickle(self, data: bytes) -> bool | bytes:
        """The same for a value that was pickled."""

@final
class _Streams:
    """The receiving ends of the streams of one link."""

    def __new__(cls, unpickle: Callable[[bytes], Any], failed: Callable[[Exception], object]) -> Self: ...
    def add(self, number: int, credit: _Credit) -> None:
        """From now on values may come for this channel."""
    def remove(self, number: int) -> None:
        """No longer."""
    def clear(self) -> None:
        """For none any more: the link has ended."""

@final
class _Lease:
    """What home has of a lease."""

    def __new__(cls, ch: chan[Any] | SendChan[Any] | RecvChan[Any], segment: Segment) -> Self: ...
    @property
    def segment(self) -> Segment:
        """The page."""
    def values(
        self, channel: int, number: int, most: int, plain: bool
    ) -> tuple[int, int, bytes | None, list[Any], list[Any]]:
        """Values to be copied ahead, at most `most`, which have numbers from `number` on: the number of the first, how
        many, a frame for the channel's number `channel` if all are plain, else the values, and what is to be dropped.
        `plain`: no others. Never blocks.
        """
    @staticmethod
    def frame(channel: int, first: int, values: list[Any], packed: Sequence[int]) -> bytes:
        """The frame of these values. `packed`: which are pickles; all others are plain."""
    def claimed(self) -> None:
        """Values were claimed elsewhere: lets senders in. Never blocks."""
    def end(self) -> None:
        """Nobody claims anything any more."""

@final
class _Claims:
    """Copies of values of a channel of another process, and the count by which they are claimed.

    `more` is sent over `link` when home is to be told that something was claimed; if there is no room, `ring()` is
    called. `unpack(packed)` makes a value.
    """

    def __new__(
        cls, segment: Segment, link: Link, more: bytes, ring: Callable[[], object], unpack: Callable[[bytes], Any]
    ) -> Self: ...
    def add(self, frame: bytes) -> None:
        """A frame of copies has come. Raises ConnectionError if it is none. Never blocks."""
    @staticmethod
    def channel_in(frame: bytes) -> int | None:
        """The channel's number in a frame of copies."""
    def claim(self) -> Any:
        """Claims the next value, if a copy of it is here; else returns this object. A cancel point. Never blocks."""
    def close(self) -> None:
        """Nothing can be claimed any more: home is gone."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

@final
class _Bell:
    """Rings when a wait in somebody's stead is over, or when asked to."""

    def __new__(cls) -> Self: ...
    @property
    def rung(self) -> RecvChan[float]:
        """A channel that holds a value after it was rung."""
    def ring(self) -> None:
        """Rings it. Never blocks."""
    def take(self) -> list[int]:
        """Takes out the numbers of the waits that are over. Never blocks."""

@final
class _Stead:
    """A `select` in the stead of somebody else; see the module. `cases` are triples of a channel or a view, whether to
    send, and what.
    """

    def __new__(cls, bell: _Bell, number: int, cases: list[tuple[Any, bool, Any]], waits: bool) -> Self: ...
    def poll(self) -> tuple[int, Any, bool | None] | None:
        """Begins the wait or goes on after it; the answer, or None if it waits or has answered. Never blocks."""
    def cancel(self) -> tuple[int, Any, bool | None] | None:
        """Ends the wait; the answer, or None if somebody else has it or is about to. Never blocks."""

@final
class _Port:
    """The port of one event loop, and the descriptor by which the loop hears of it."""

    def __new__(cls) -> Self: ...
    def fileno(self) -> int:
        """The descriptor that is readable when there is something to take."""
    def take(self) -> list[int]:
        """Takes out the numbers of the waits that are over. Never blocks."""

@overload
def aselect(*cases: Case, timeout: None = None) -> Awaitable[Selected[Any]]:
    """aselect(*cases, timeout=None): as `select`, awaited."""

@overload
def aselect(*cases: Case, timeout: float | None) -> Awaitable[Selected[Any] | None]: ...
def asleep(seconds: float, /) -> Awaitable[None]:
    """asleep(seconds): as `sleep`, awaited."""

def agosched() -> Awaitable[None]:
    """agosched(): as `gosched`, awaited."""

# Goroutines

@final
class Goroutine[T]:
    """The handle of a goroutine: what `go` returns. Waits for its end, gives its result, cancels it.

    An exception that nobody reads is reported to `goslings.excepthook` when the last handle goes away.
    """

    def result(self, timeout: float | None = None) -> T:
        """Waits for the end and returns the value, or raises what the goroutine raised.

        Blocks at most `timeout` seconds. Raises TimeoutError after that, and
        concurrent.futures.CancelledError if the goroutine was cancelled.
        """
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the end and returns what the goroutine raised, or None.

        Blocks and raises as `result`.
        """
    def join(self, timeout: float | None = None) -> bool:
        """Waits for the end, however it comes; returns whether it came within `timeout` seconds."""
    def __await__(self) -> Generator[Any, None, T]: ...
    def aresult(self, timeout: float | None = None) -> Awaitable[T]:
        """aresult(timeout=None): as `result`, awaited. `await goroutine` is the same without a timeout.

        For async goroutines and asyncio tasks. Cancelling the task that awaits does not cancel the goroutine.
        """
    def aexception(self, timeout: float | None = None) -> Awaitable[BaseException | None]:
        """aexception(timeout=None): as `exception`, awaited."""
    def ajoin(self, timeout: float | None = None) -> Awaitable[bool]:
        """ajoin(timeout=None): as `join`, awaited."""
    def done(self) -> bool:
        """Whether it has ended. Never blocks."""
    def cancelled(self) -> bool:
        """Whether it has ended by being cancelled. Never blocks."""
    def cancel(self, msg: object = None) -> bool:
        """Asks the goroutine to stop: `Cancelled` is raised in it where it waits, or where it waits next.

        One that has not started will not run. Returns False if it has ended already. Never blocks.
        """
    def add_done_callback(self, fn: Callable[[Goroutine[T]], object]) -> None:
        """Calls `fn(goroutine)` when it has ended, on its worker; at once if it has ended already.

        What `fn` raises goes to `goslings.excepthook`.
        """
    @property
    def id(self) -> int:
        """Its number: counted from 1, never used again in this process."""
    @property
    def name(self) -> str:
        """Its name in dumps and reports; "goroutine-<id>" unless set."""
    @name.setter
    def name(self, name: str) -> None: ...
    @property
    def finished(self) -> RecvChan[None]:
        """A receive-only channel that is closed when the goroutine has ended: for `select`."""
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@overload
def go[**P, T](fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]: ...
@overload
def go[**P, T](fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]:
    """go(fn, /, *args, **kwargs): starts `fn(*args, **kwargs)` concurrently and returns its handle at once.

    `fn` may block anywhere, at any depth, in any code it calls: only its goroutine waits. Never blocks.
    Raises TypeError if `fn` is not callable. Go: `go f(x)`.
    """

def current() -> Goroutine[Any] | None:
    """The running goroutine; None on a plain thread."""

def lock_os_thread() -> None:
    """From now on no goroutine starts on this one's thread, until it has called `unlock_os_thread` as often, or ends.

    For foreign code that depends on its thread. A goroutine never changes threads once it has started; those that have
    started on the same one before go on there while this one waits (unlike in Go, they cannot move). On a plain thread
    and in an async goroutine it does nothing. Never blocks. Go: `runtime.LockOSThread`.
    """

def unlock_os_thread() -> None:
    """Undoes one `lock_os_thread` of this goroutine; does nothing if there is none left. Never blocks."""

def gosched() -> None:
    """Lets others run: the goroutine goes on after those that are ready on its worker. A cancel point.

    Raises RuntimeError in an async goroutine, which gives way by `await agosched()` only.
    """

def goexit() -> NoReturn:
    """Ends this goroutine, running its `finally` blocks; its result is None. Raises RuntimeError on a plain
    thread.
    """

def gomaxprocs(n: int | None = None) -> int:
    """gomaxprocs(n=None): sets how many workers take new goroutines and returns the number before.

    None or less than 1 only reads. At most 256. Goroutines that have started stay on their worker.
    """

def num_goroutine() -> int:
    """How many goroutines exist: running, ready, parked or not started yet."""

# Channels

@final
class chan[T]:
    """chan(capacity=0): a typed conduit between goroutines, threads and tasks; Go's channel.

    `capacity` is how many values it buffers; 0 is a rendezvous, where a send ends together with a receive.
    Waiters are served first in, first out, and each value goes to exactly one receiver.

    Raises ValueError for a negative capacity, TypeError for one that is not an int.
    """

    def __new__(cls, capacity: SupportsIndex = 0) -> Self: ...
    def send(self, value: T, timeout: float | None = None) -> None:
        """Sends `value`.

        Blocks until a receiver takes it (unbuffered) or there is room, at most `timeout` seconds. Raises
        Closed if the channel is closed, also while waiting; TimeoutError after `timeout`, and then the value
        was not delivered. Go: `ch <- value`.
        """
    def recv(self, timeout: float | None = None) -> T:
        """Receives a value.

        Blocks until there is one, at most `timeout` seconds. Raises Closed if the channel is closed and
        drained, TimeoutError after `timeout`. Go: `<-ch`.
        """
    def recv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """Receives: `(value, True)`, or `(None, False)` once the channel is closed and drained.

        Blocks as `recv`; raises TimeoutError, never Closed. Go: `value, ok := <-ch`.
        """
    def try_send(self, value: T) -> bool:
        """Sends `value` if that needs no waiting; returns whether it was sent.

        Never blocks. Raises Closed on a closed channel.
        """
    @overload
    def try_recv(self) -> T:
        """Receives a value if that needs no waiting; else returns `default`.

        Never blocks. Without `default` raises WouldBlock; on a closed, drained channel raises Closed.
        """
    @overload
    def try_recv[D](self, default: D) -> T | D: ...
    def asend(self, value: T, timeout: float | None = None) -> Awaitable[None]:
        """asend(value, timeout=None): as `send`, awaited: in async goroutines and asyncio tasks.

        A task that is cancelled after the value was taken goes on, and is cancelled at its next await.
        """
    def arecv(self, timeout: float | None = None) -> Awaitable[T]:
        """arecv(timeout=None): as `recv`, awaited: in async goroutines and asyncio tasks.

        A task that is cancelled after it was given a value puts that back to the front of the channel.
        """
    def arecv_ok(
        self, timeout: float | None = None
    ) -> Awaitable[tuple[T, Literal[True]] | tuple[None, Literal[False]]]:
        """arecv_ok(timeout=None): as `recv_ok`, awaited."""
    def close(self) -> None:
        """Closes the channel: wakes every waiter; what is buffered stays receivable.

        Never blocks. Raises Closed if it is closed already.
        """
    @property
    def closed(self) -> bool:
        """Whether it was closed."""
    @property
    def capacity(self) -> int:
        """How many values it can buffer."""
    def sender(self) -> SendChan[T]:
        """A view of this channel that only sends."""
    def receiver(self) -> RecvChan[T]:
        """A view of this channel that only receives."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[T]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> T: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class SendChan[T]:
    """A view of a channel that only sends. Equal to its channel. Made by `chan.sender()`."""

    def send(self, value: T, timeout: float | None = None) -> None:
        """As `chan.send`."""
    def try_send(self, value: T) -> bool:
        """As `chan.try_send`."""
    def asend(self, value: T, timeout: float | None = None) -> Awaitable[None]:
        """asend(value, timeout=None): as `chan.asend`: in async goroutines and asyncio tasks."""
    def close(self) -> None:
        """As `chan.close`."""
    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
    @property
    def capacity(self) -> int:
        """How many values the channel can buffer."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class RecvChan[T]:
    """A view of a channel that only receives, and cannot close it. Equal to its channel. Made by
    `chan.receiver()`; `after`, `Timer.c`, `Ticker.c` and `Goroutine.finished` are such views.
    """

    def recv(self, timeout: float | None = None) -> T:
        """As `chan.recv`."""
    def recv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """As `chan.recv_ok`."""
    @overload
    def try_recv(self) -> T:
        """As `chan.try_recv`."""
    @overload
    def try_recv[D](self, default: D) -> T | D: ...
    def arecv(self, timeout: float | None = None) -> Awaitable[T]:
        """arecv(timeout=None): as `recv`, awaited: in async goroutines and asyncio tasks.

        A task that is cancelled after it was given a value puts that back to the front of the channel.
        """
    def arecv_ok(
        self, timeout: float | None = None
    ) -> Awaitable[tuple[T, Literal[True]] | tuple[None, Literal[False]]]:
        """arecv_ok(timeout=None): as `recv_ok`, awaited."""
    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
    @property
    def capacity(self) -> int:
        """How many values the channel can buffer; 0 for a timer's."""
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[T]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> T: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

# Select

@final
class Case:
    """One case of a `select`. Made by `recv(ch)` and `send(ch, value)`; may be used again."""

    def _parts(self) -> tuple[Any, bool, Any]:
        """What a case is made of: the channel or None, whether it sends, and what."""

# `select` gives a Selected[Any]: which case it was is a number, and types do not follow numbers. Whoever knows
# better says so: `picked: Selected[int] | None = select(...)`.
@final
class Selected[T]:
    """The case that a `select` carried out: `index`, `chan` (the object given in the case), `value` and `ok`.

    For a receive `ok` is False if the channel is closed and drained; for a send it is True. Matches as
    `Selected(index, value, ok)`.
    """

    __match_args__ = ("index", "value", "ok")
    @property
    def index(self) -> int:
        """The place of the case in the call."""
    @property
    def chan(self) -> Any:
        """The channel or view given in the case."""
    @property
    def value(self) -> T:
        """What was received; None for a send, and for a closed, drained channel."""
    @property
    def ok(self) -> bool:
        """False only for a receive from a closed, drained channel."""
    def __class_getitem__(cls, key: object) -> GenericAlias: ...

def recv(ch: chan[Any] | RecvChan[Any] | None, /) -> Case:
    """recv(ch): a receive case for `select`. `recv(None)` is never ready: Go's nil channel.

    Raises TypeError for a SendChan or anything that is no channel.
    """

def send[T](ch: chan[T] | SendChan[T] | None, value: T, /) -> Case:
    """send(ch, value): a send case for `select`. `send(None, value)` is never ready: Go's nil channel.

    Raises TypeError for a RecvChan or anything that is no channel.
    """

@overload
def select(*, timeout: None = None) -> NoReturn:
    """select(*cases, timeout=None): waits until one of the cases can be carried out, and carries it out.

    Of several ready cases one is chosen uniformly at random. Blocks until one is ready; with `timeout=0`
    returns None at once if none is (Go's `default`), with `timeout=s` after `s` seconds. Returns a
    `Selected`. Raises Closed if the chosen send case's channel is closed. Go: `select`.
    """

@overload
def select(*cases: Case, timeout: None = None) -> Selected[Any]: ...
@overload
def select(*cases: Case, timeout: float | None) -> Selected[Any] | None: ...

# Time

def sleep(seconds: float, /) -> None:
    """sleep(seconds): parks this goroutine (or plain thread) for at least so long.

    Zero or less returns at once, but is a cancel point. Go: `time.Sleep`.
    """

def after(seconds: float, /) -> RecvChan[float]:
    """after(seconds): a receive-only channel that gets the time (of time.monotonic()) once, then.

    Never blocks. Go: `time.After`.
    """

def after_func(seconds: float, fn: Callable[[], object], /) -> Timer:
    """after_func(seconds, fn): starts a goroutine that runs `fn()` then; returns the Timer, which has no
    channel.

    Never blocks. Raises TypeError if `fn` is not callable. Go: `time.AfterFunc`.
    """

@final
class Timer:
    """A single event in the future: `c` gets the time (of time.monotonic(), in seconds) when it comes.

    After `stop` or `reset` no value of before is received. Go: `time.Timer`, as of 1.23.
    """

    def __new__(cls, seconds: float, /) -> Self: ...
    @property
    def c(self) -> RecvChan[float]:
        """The receive-only channel that gets the time.

        Raises TypeError for a timer made by `after_func`, which has none.
        """
    def stop(self) -> bool:
        """Stops the timer; returns whether that came in time: before its value was received, or before its
        function was started. Does not wait for a function that runs. Never blocks.
        """
    def reset(self, seconds: float, /) -> bool:
        """Sets the timer anew, `seconds` from now; returns what `stop` would have."""
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Ticker:
    """A clock that ticks every so many seconds: `c` gets the time of each tick; iterating receives them.

    Keeps its grid; a slow receiver misses ticks, at most one waits. Raises ValueError unless positive. Go:
    `time.Ticker`.
    """

    def __new__(cls, seconds: float, /) -> Self: ...
    @property
    def c(self) -> RecvChan[float]:
        """The receive-only channel that gets the ticks."""
    def stop(self) -> None:
        """Ticks no more. Does not close the channel; nothing of before is received afterwards."""
    def reset(self, seconds: float, /) -> None:
        """Ticks every `seconds` from now on."""
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[float]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> float: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

# Synchronisation

@final
class Mutex:
    """A mutual exclusion lock for goroutines and threads alike; not reentrant, and any goroutine may unlock
    it.

    As a context manager it locks and unlocks. Waiters are served in order; a newcomer may be quicker until
    the first of them has waited for a millisecond. Go: `sync.Mutex`.
    """

    def __new__(cls) -> Self: ...
    def lock(self, timeout: float | None = None) -> None:
        """Locks. Blocks while somebody else holds it, at most `timeout` seconds; then raises TimeoutError."""
    def alock(self, timeout: float | None = None) -> Awaitable[None]:
        """alock(timeout=None): as `lock`, awaited."""
    def _lock_here(self) -> None:
        """Locks wherever it is called, also in a coroutine, which then holds up others: for imports."""
    def try_lock(self) -> bool:
        """Locks if nobody holds it; returns whether it did. Never blocks."""
    def unlock(self) -> None:
        """Unlocks. Never blocks. Raises RuntimeError if it is not locked."""
    def locked(self) -> bool:
        """Whether somebody holds it."""
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> Awaitable[None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class RWMutex:
    """A lock for many readers or one writer. `with rw.read():` and `with rw.write():`.

    Once a writer waits, new readers wait behind it; when it is done, those readers go before the next writer.
    Not reentrant, no upgrade. Go: `sync.RWMutex`.
    """

    def __new__(cls) -> Self: ...
    def rlock(self, timeout: float | None = None) -> None:
        """Locks for reading. Blocks while a writer holds it or waits, at most `timeout` seconds; then raises
        TimeoutError.
        """
    def arlock(self, timeout: float | None = None) -> Awaitable[None]:
        """arlock(timeout=None): as `rlock`, awaited."""
    def try_rlock(self) -> bool:
        """Locks for reading if that needs no waiting; returns whether it did."""
    def runlock(self) -> None:
        """Undoes one `rlock`. Raises RuntimeError if no reader holds it."""
    def lock(self, timeout: float | None = None) -> None:
        """Locks for writing. Blocks while anybody holds it, at most `timeout` seconds; then raises
        TimeoutError.
        """
    def alock(self, timeout: float | None = None) -> Awaitable[None]:
        """alock(timeout=None): as `lock`, awaited."""
    def try_lock(self) -> bool:
        """Locks for writing if that needs no waiting; returns whether it did."""
    def unlock(self) -> None:
        """Undoes `lock`. Raises RuntimeError if no writer holds it."""
    def read(self) -> RWMutexSide:
        """The reading side: `with rw.read():`."""
    def write(self) -> RWMutexSide:
        """The writing side: `with rw.write():`."""
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class RWMutexSide:
    """One side of a RWMutex, as a context manager."""

    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> Awaitable[None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...

@final
class Cond:
    """Cond(mutex): a place to wait, with `mutex` held, for a change announced by others.

    Never wakes by itself; `notify` wakes the longest waiter. As a context manager it locks the mutex. Go:
    `sync.Cond`.
    """

    def __new__(cls, mutex: Mutex) -> Self: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Unlocks the mutex, waits to be notified, and locks it again; returns whether that came within
        `timeout` seconds.

        The mutex is locked on return in every case. Raises RuntimeError if it was not locked.
        """
    def await_(self, timeout: float | None = None) -> Awaitable[bool]:
        """await_(timeout=None): as `wait`, awaited. A task that is cancelled in it has the mutex locked."""
    def notify(self) -> None:
        """Wakes the one that has waited longest, if anybody waits. Never blocks."""
    def notify_all(self) -> None:
        """Wakes all that wait now. Never blocks."""
    @property
    def mutex(self) -> Mutex:
        """The mutex given at the start."""
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> Awaitable[None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class WaitGroup:
    """Waits for a number of goroutines to be done. Reusable once all are. Go: `sync.WaitGroup`."""

    def __new__(cls) -> Self: ...
    def add(self, n: int = 1) -> None:
        """Adds `n`, which may be negative, to the counter. Never blocks. Raises RuntimeError if that takes it
        below zero.
        """
    def done(self) -> None:
        """Takes one off the counter. Never blocks. Raises RuntimeError below zero."""
    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the counter is zero; returns whether that came within `timeout` seconds."""
    @overload
    def go[**P, T](
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Goroutine[T]: ...
    @overload
    def go[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]:
        """Starts `fn(*args, **kwargs)` as a goroutine that counts here until it ends, however it ends."""
    @property
    def count(self) -> int:
        """The counter."""
    def await_(self, timeout: float | None = None) -> Awaitable[bool]:
        """await_(timeout=None): as `wait`, awaited. `await group` is the same without a timeout."""
    def __await__(self) -> Generator[Any, None, bool]: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Semaphore:
    """Semaphore(n): `n` permits, of which one may acquire several at once.

    First in, first out: one who wants many holds back those behind who want few. As a context manager it
    acquires one. Raises ValueError for a negative `n`. Go: `golang.org/x/sync/semaphore`.
    """

    def __new__(cls, n: int) -> Self: ...
    def acquire(self, n: int = 1, timeout: float | None = None) -> None:
        """Takes `n` permits. Blocks until they are free, at most `timeout` seconds; then raises TimeoutError.

        Raises ValueError if `n` is more than there are in all.
        """
    def aacquire(self, n: int = 1, timeout: float | None = None) -> Awaitable[None]:
        """aacquire(n=1, timeout=None): as `acquire`, awaited."""
    def try_acquire(self, n: int = 1) -> bool:
        """Takes `n` permits if that needs no waiting; returns whether it did."""
    def release(self, n: int = 1) -> None:
        """Gives `n` permits back. Never blocks. Raises RuntimeError if that is more than were taken."""
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> Awaitable[None]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@disjoint_base
class Conn:
    """A connection: bytes that come and go, in order.

    Made by `dial` and by `Listener.accept`. `Conn(fd)` takes over a connected stream socket. Any goroutine or
    thread may use it at any time; one of them at a time should read, and one write. As a context manager it closes
    at the end.

    `Conn(other)` is one more for the bytes of another connection. So subclasses are made that have something above
    these, as TLS: they bring `recv` and `send`, their twins, `recv_into`, `close` and `close_write`.
    """

    def __new__(cls, fd: int | Conn) -> Self: ...
    def recv(self, n: int = 65536, timeout: float | None = None) -> bytes:
        """Receives at most `n` bytes, as soon as there are any; b"" once the other side has closed its sending
        half.

        Blocks, at most `timeout` seconds and until the deadline: then TimeoutError. Raises OSError by its error
        number.
        """

    def recv_into(self, buffer: Buffer, nbytes: int = 0, timeout: float | None = None) -> int:
        """Receives into `buffer` at most `nbytes` bytes (0: as many as fit); returns how many. Else as `recv`."""

    def read_exactly(self, n: int, timeout: float | None = None) -> bytes:
        """Receives exactly `n` bytes. Raises EOFError if the other side ends before: what came is received next.

        Blocks as `recv` does, at most `timeout` seconds in all.
        """

    def read_until(self, separator: bytes | None = None, limit: int = 65536, timeout: float | None = None) -> bytes:
        """Receives up to and including the next `separator`; at the end of the connection what is left, b"" if that
        is nothing.

        Raises ValueError if there is none within `limit` bytes; what came is received next. Blocks as `recv` does,
        at most `timeout` seconds in all.
        """

    def send(self, data: Buffer, timeout: float | None = None) -> None:
        """Sends all of `data`. Blocks while the other side does not take it, at most `timeout` seconds and until
        the deadline: then TimeoutError, and nobody knows how much was sent. Raises OSError by its error number.
        """

    def _send_parts(self, data: Buffer, timeout: float) -> None:
        """As `send`, but `timeout` is how long the other side may take nothing."""

    def _try_send(self, data: Buffer) -> int:
        """Sends what there is room for; returns how many bytes. Never blocks."""

    def _take_rest(self, n: int) -> bytes:
        """Takes out at most `n` bytes of what was read ahead."""

    def _put_rest(self, data: bytes) -> None:
        """Puts back what was read and not used: it comes first."""

    def _shutdown(self, how: int) -> None:
        """`socket.shutdown`."""

    def _reset(self) -> None:
        """Has `close` forget what was not sent yet, and break the line."""

    def arecv(self, n: int = 65536, timeout: float | None = None) -> collections.abc.Awaitable[bytes]:
        """arecv(n=65536, timeout=None): as `recv`, awaited."""

    def asend(self, data: Buffer, timeout: float | None = None) -> collections.abc.Awaitable[None]:
        """asend(data, timeout=None): as `send`, awaited. A copy of the data is sent. If it is cancelled, part of it
        may have been.
        """

    def set_deadline(self, seconds: float | None) -> None:
        """Has calls that receive or send fail with TimeoutError from `seconds` from now on, those that wait already
        as well. None: no deadline. Go: `SetDeadline`.
        """

    def set_read_deadline(self, seconds: float | None) -> None:
        """As `set_deadline`, for receiving."""

    def set_write_deadline(self, seconds: float | None) -> None:
        """As `set_deadline`, for sending."""

    def close(self) -> None:
        """Closes the connection: calls that wait fail with OSError (EBADF). To close it again does nothing. Never
        blocks.
        """

    def close_write(self) -> None:
        """Tells the other side that nothing more will be sent; receiving goes on. Never blocks."""

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""

    def fileno(self) -> int:
        """The descriptor's number; -1 once it is closed."""

    @property
    def local_address(self) -> Any:
        """The address at this end, as `socket.getsockname` gives it."""

    @property
    def peer_address(self) -> Any:
        """The address of the other side, as `socket.getpeername` gives it."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@disjoint_base
class Listener:
    """A socket that connections come in on.

    Made by `listen`. `Listener(fd)` takes over a listening stream socket. Any goroutine or thread may use it at any
    time. Iteration accepts until it is closed; as a context manager it closes at the end.
    """

    def __new__(cls, fd: int) -> Self: ...
    def accept(self, timeout: float | None = None) -> Conn:
        """Waits for a connection. Blocks, at most `timeout` seconds: then TimeoutError. Raises OSError by its error
        number: EBADF if it is closed, EMFILE if there are no descriptors left, and the connection waits.
        """

    def aaccept(self, timeout: float | None = None) -> collections.abc.Awaitable[Conn]:
        """aaccept(timeout=None): as `accept`, awaited."""

    def close(self) -> None:
        """Closes it: whoever waits for a connection fails with OSError (EBADF), or ends its iteration. Connections
        that were accepted stay. To close it again does nothing. Never blocks.
        """

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    def fileno(self) -> int:
        """The descriptor's number; -1 once it is closed."""

    @property
    def address(self) -> Any:
        """Where it listens, as `socket.getsockname` gives it."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Conn: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> collections.abc.Awaitable[Conn]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Event:
    """A flag that can be waited for; as `threading.Event`, for goroutines and threads alike."""

    def __new__(cls) -> Self: ...
    def set(self) -> None:
        """Sets the flag and wakes all who wait. Never blocks."""
    def clear(self) -> None:
        """Clears the flag. Never blocks."""
    def is_set(self) -> bool:
        """Whether the flag is set."""
    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the flag is set; returns whether that came within `timeout` seconds."""
    def await_(self, timeout: float | None = None) -> Awaitable[bool]:
        """await_(timeout=None): as `wait`, awaited. `await event` is the same without a timeout."""
    def __await__(self) -> Generator[Any, None, bool]: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class Barrier:
    """Barrier(n): lets `n` goroutines or threads wait for each other, again and again; as
    `threading.Barrier`.

    Raises ValueError unless `n` is positive.
    """

    def __new__(cls, n: int) -> Self: ...
    def wait(self, timeout: float | None = None) -> int:
        """Waits until all have come; returns the number of this one, 0 to n - 1.

        Blocks at most `timeout` seconds; a wait that fails breaks the barrier for all. Raises TimeoutError
        after `timeout`, and threading.BrokenBarrierError if it is or gets broken.
        """
    def await_(self, timeout: float | None = None) -> Awaitable[int]:
        """await_(timeout=None): as `wait`, awaited. A task that is cancelled in it breaks the barrier."""
    def abort(self) -> None:
        """Breaks the barrier: those who wait and those who come get BrokenBarrierError."""
    def reset(self) -> None:
        """Makes the barrier as new; those who wait get BrokenBarrierError."""
    @property
    def parties(self) -> int:
        """How many it waits for."""
    @property
    def n_waiting(self) -> int:
        """How many wait now."""
    @property
    def broken(self) -> bool:
        """Whether it is broken."""
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class AtomicInt:
    """AtomicInt(value=0): a 64-bit integer whose every operation is one indivisible step.

    Sequentially consistent, wraps around at 64 bits, never blocks. Raises OverflowError for an argument that
    does not fit. Go: `sync/atomic.Int64`.
    """

    def __new__(cls, value: int = 0) -> Self: ...
    def load(self) -> int:
        """The value."""
    def store(self, value: int) -> None:
        """Sets the value."""
    def add(self, delta: int = 1) -> int:
        """Adds `delta` and returns the new value."""
    def swap(self, value: int) -> int:
        """Sets the value and returns the old one."""
    def compare_and_swap(self, old: int, new: int) -> bool:
        """Sets the value to `new` if it is `old`; returns whether it was."""
    def __int__(self) -> int: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

# For goslings itself

def _start_default(procs: int) -> None:
    """The number of workers before anything is started; for `goslings` itself."""

def _set_warn_ms(ms: int) -> None:
    """After how many milliseconds a goroutine that holds others up is warned of; 0: never."""

def _set_slice_ms(ms: int) -> None:
    """How long a goroutine may have its worker while others wait, in milliseconds; 0: no matter how long."""

def _can_preempt() -> bool:
    """Whether goroutines that compute can be interrupted: for `goslings doctor`."""

def _held() -> list[tuple[int, float]]:
    """The goroutines that have held their workers for longer than a slice: pairs of a number and of seconds."""

def _prepare[T](
    group: WaitGroup,
    watcher: Callable[[Goroutine[T]], object],
    fn: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> Goroutine[T]:
    """Makes a goroutine that `_start` starts; it counts in `group` until its end. Calls `watcher(goroutine)` at
    its end, before anybody else hears of it. Cancelled before it was started, it ends at once.
    """

def _go_at[*Ts, T](worker: int, fn: Callable[[*Ts], T], /, *args: *Ts) -> Goroutine[T]:
    """Starts `fn(*args)` on the worker of that number, if it starts goroutines; else as `go`."""

def _places() -> list[int]:
    """The numbers of the workers that start goroutines now, those that sleep first."""

def _place() -> int:
    """The number of the worker that runs this; -1 on a plain thread."""

def _start(goroutine: Goroutine[Any]) -> bool:
    """Starts a goroutine made by `_prepare`; False if it has been started or cancelled already."""

def _never() -> RecvChan[Any]:
    """The receiving end of a channel that is never ready, also for goroutines of a bubble: Go's nil channel as an
    object.
    """

def _may_block(twin: str) -> None:
    """Raises RuntimeError, naming `twin` as what to use, in an async goroutine or asyncio task: for what may
    block.
    """

def _failure(goroutine: Goroutine[Any]) -> BaseException | None:
    """What an ended goroutine raised, or None; does not count as reading it."""

def _end_with(fd: int, grace: float) -> None:
    """Ends the process, with status 1, `grace` seconds after the other side of the socket `fd` has gone. `fd` stays
    open until the process ends; -1: nobody ends it. If the process is stopped when its parent dies, it is made to go
    on, since it could not end otherwise. Never blocks. Raises OSError if the system has no thread for it.
    """

def _stats() -> dict[str, Any]:
    """The runtime's counters, as a dict."""

def _kernel() -> dict[str, Any]:
    """What the runtime uses of the kernel, for `goslings doctor`."""

def _stacks() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every goroutine, and every thread that waits: two lists of dicts, for `goslings.stacks`."""

def _detect_deadlocks(on: bool) -> None:
    """Switches the detection of deadlocks on or off."""

def _put_back(ch: chan[Any] | RecvChan[Any], value: object) -> None:
    """Puts a received value back to the front of a channel, for somebody who turned out unable to keep it."""

def _selected(index: int, chan: object, value: object, ok: bool) -> Selected[Any]:
    """A `Selected`, for a select that was carried out in Python."""

def _recv_idle[T](ch: chan[T], timeout: float) -> T:
    """Receives for a thread that only serves others: it does not count for deadlocks."""

def wait_fd(fd: FileDescriptorLike, write: bool, timeout: float | None = None) -> bool:
    """Waits until `fd` can be read or written, has failed or was hung up; returns whether that came within `timeout`
    seconds.

    Parks the goroutine, or blocks the thread such that signals are handled. A file that is always ready, on a disk for
    one, is ready at once. Raises OSError (EBADF) if there is no such descriptor, or if it was closed meanwhile, as
    `closing_fd` tells.
    """

@final
class Segment:
    """Memory that several processes share, all zero at first.

    It has the buffer protocol: `memoryview(segment)`, `numpy.frombuffer(segment)`. It has no name, only a descriptor
    (`fileno()`); a process that gets that maps the same memory with `Segment.from_fd`. The memory is free again when
    the last descriptor is closed and the last mapping gone, in whatever way the processes end. Its size never changes.

    Raises ValueError for a size below 1, MemoryError if there is no address space or memory for it, OSError by the
    error number if the system refuses: ENOSPC if shared memory is full, EMFILE, EFBIG beyond RLIMIT_FSIZE.
    """

    def __new__(cls, size: int) -> Self: ...
    @classmethod
    def from_fd(cls, fd: int, *, readonly: bool = False) -> Segment:
        """Maps the memory that a descriptor stands for, and takes the descriptor over: it is closed with the segment.

        `readonly`: it cannot be written here. Raises ValueError if the descriptor is no segment's, and OSError as the
        class does; the descriptor is closed then.
        """

    def fileno(self) -> int:
        """The descriptor, which stays the segment's."""

    @property
    def size(self) -> int:
        """How many bytes."""

    @property
    def readonly(self) -> bool:
        """Whether it cannot be written here."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def _goslings_reduce(self, fds: list[int], /) -> tuple[Callable[[int, bool], Segment], tuple[int, bool]]:
        """How it travels to another place: its descriptor goes along."""

    def __reduce__(self) -> tuple[Callable[..., Segment], tuple[int, int, int, bool]]: ...
    @classmethod
    def _from_process(cls, process: int, fd: int, inode: int, readonly: bool) -> Segment:
        """Maps a segment of another process, which must still have it."""

    def _add(self, at: int, kind: str, delta: float) -> Any:
        """Adds to the number of type `kind` (a typecode) at byte `at`; returns the new one."""

    def _swap(self, at: int, kind: str, value: float) -> Any:
        """Sets it; returns the old one."""

    def _compare_and_swap(self, at: int, kind: str, old: float, new: float) -> bool:
        """Sets it to `new` if it is `old`; returns whether it was. Floats are compared as numbers, but for NaN, which
        is itself.
        """

    def _try_lock(self, at: int, slept: bool) -> bool:
        """Takes the lock at byte `at` if it is free. `slept`: the caller has waited."""

    def _take_from_dead(self, at: int) -> int | None:
        """Takes the lock at byte `at` from a process that has died: its number, or None."""

    def _wait_lock(self, at: int, seconds: float) -> None:
        """Sleeps until the lock at byte `at` may be free, at most so many seconds. Blocks the thread, detached."""

    def _unlock(self, at: int) -> bool:
        """Unlocks the lock at byte `at`; whether this process held it."""

    def _ping_pong(self, at: int, rounds: int, first: bool) -> None:
        """For benchmarks: the bare round trips of two processes that sleep on the word at byte `at`. Blocks the
        thread.
        """

    def _lock_holder(self, at: int) -> int | None:
        """The process that holds the lock at byte `at`, or None."""

@final
@final
class _Letter:
    """A long message that was written, and not sent."""

@final
class Link:
    """Link(fd): messages to and from another process, which has made a Link of the other end of the same socket pair.

    `fd` is one of a connected pair of Unix stream sockets that nothing was sent on; the link takes it over. Messages
    are delivered whole, in order, and each once. Short ones go through shared memory without a system call, unless the
    other side sleeps; long ones in a file of their own, which the other side maps. Any goroutine or thread may send or
    receive at any time. A forked child cannot use it, and does not keep it open.

    Raises OSError by the error number if there is no memory or no descriptor for it; `fd` is the caller's then.
    """

    def __new__(cls, fd: int) -> Self: ...
    def send(
        self, parts: Iterable[Buffer] | _Letter, fds: Sequence[int] | None = None, timeout: float | None = None
    ) -> None:
        """Sends one message: the bytes of all `parts`, one after another, and copies of the descriptors `fds` (at most
        252).

        Blocks while there is no room, at most `timeout` seconds: then TimeoutError. A call that fails has sent nothing.
        Raises BrokenPipeError if the other side has closed or died; it may have done so before it had received
        everything. ConnectionError if it does not follow the rules, MemoryError and OSError (ENOSPC, EMFILE,
        ETOOMANYREFS) if the system has no room for a long message or its descriptors; OSError (EBADF) if this end is
        closed.
        """

    def _post(self, parts: Iterable[Buffer] | _Letter, fds: list[int]) -> bool:
        """Sends one message if that needs no waiting; returns whether it was sent. Never blocks and is no cancel point.
        Raises what `send` raises.
        """

    def _put(self, data: bytes) -> bool:
        """The same for a short message and nothing else, unless messages wait to be sent (`_hold`): false then."""

    def _recv(self, streams: _Streams) -> tuple[bytes | memoryview, list[int]]:
        """As `recv`, without a timeout, but values of streams go to their channels."""
    def _hold(self, queued: bool) -> None:
        """Whether messages wait to be sent: then values of streams queue behind them."""

    def _written(self, parts: Iterable[Buffer]) -> Iterable[Buffer] | _Letter:
        """Writes a long message, so that sending it needs no more memory and no more copy: what `send` and `_post` take
        in place of its parts. Of a short one, the parts themselves. Never blocks. Raises MemoryError and OSError as
        `send` does.
        """

    def _let_write(self) -> None:
        """From now on long messages can be written where they are received: a page is copied when it is written."""

    def _unmapped(self, size: int) -> bytes | None:
        """The first bytes, at most `size`, of the message that `recv` could not map, once; None if there is none."""

    def recv(self, timeout: float | None = None) -> tuple[bytes | memoryview, list[int]]:
        """Receives the next message: its bytes, and the descriptors that came with it, which are the caller's to close.
        The bytes are `bytes`, or for a long message a read-only memoryview of shared memory, which is free when that is
        gone.

        Blocks while there is none, at most `timeout` seconds: then TimeoutError. Raises EOFError if the other side has
        closed or died and everything that it sent is received; ConnectionError if it does not follow the rules;
        OSError (EMFILE) if there are no descriptors for the message, and MemoryError if there is no room for it, which
        stays the next one; a long one that cannot be mapped is lost, and the next one can be had; OSError (EBADF) if
        this end is closed.
        """

    def close(self) -> None:
        """Closes this end: calls that wait fail with OSError (EBADF), the other side receives what was sent, then the
        end. Closing twice is no error. Never blocks.
        """

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""

    def fileno(self) -> int:
        """The descriptor of the socket; -1 if it is closed. Not to be read or written."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

def sock_recv(fd: FileDescriptorLike, n: int, flags: int = 0, timeout: float | None = None) -> bytes:
    """Receives at most `n` bytes from a socket; b"" at the end of what the other side sends.

    Tries without waiting; if there is nothing, parks the goroutine, or blocks the thread, and tries again, at most
    `timeout` seconds: then TimeoutError("timed out"). None: for ever; 0: BlockingIOError at once. `flags`: as
    `socket.recv` has them. The descriptor itself may block or not. Raises OSError by the error number; EBADF if it is
    closed meanwhile.
    """

def sock_recv_into(
    fd: FileDescriptorLike, buffer: Buffer, nbytes: int = 0, flags: int = 0, timeout: float | None = None
) -> int:
    """Receives at most `nbytes` bytes (0: as many as fit) from a socket into `buffer`; returns how many. Else as
    `sock_recv`.
    """

def sock_send(fd: FileDescriptorLike, data: Buffer, flags: int = 0, timeout: float | None = None) -> int:
    """Sends what there is room for of `data` on a socket; returns how many bytes. Waits as `sock_recv` does until there
    is some.
    """

def sock_sendall(fd: FileDescriptorLike, data: Buffer, flags: int = 0, timeout: float | None = None) -> None:
    """Sends all of `data` on a socket. Waits as `sock_recv` does whenever there is no room, at most `timeout` seconds
    in all.
    """

def sock_accept(fd: FileDescriptorLike, timeout: float | None = None) -> tuple[int, Any]:
    """Accepts a connection on a listening socket: its descriptor, which blocks and is not inherited, and the
    address of the other side, as `socket` has it for IPv4, IPv6 and Unix sockets; for others, the bytes of the
    sockaddr.

    Waits as `sock_recv` does. The listening socket must not block by itself (O_NONBLOCK), or a client that gives up
    between the look and the call would hold up the worker.
    """

def read_fd(fd: int, n: int, timeout: float | None = None) -> bytes:
    """Reads at most `n` bytes from a pipe, a terminal or the like; b"" at its end. Waits as `sock_recv` does."""

def write_fd(fd: int, data: Buffer, timeout: float | None = None) -> int:
    """Writes `data` to a pipe, a terminal or the like; returns how many bytes were written: all, unless the descriptor
    is one that does not block. Waits as `sock_recv` does whenever there is no room, at most `timeout` seconds in all.
    """

def await_fd(fd: int, write: bool, timeout: float | None = None) -> Awaitable[bool]:
    """await_fd(fd, write, timeout=None): as `wait_fd`, awaited."""

def closing_fd(fd: int) -> None:
    """Tells that `fd` is about to be closed. Whoever waits for it fails with OSError (EBADF). Never blocks."""

def _leaks(objects: list[Any], depths: dict[int, list[int]]) -> list[int]:
    """The numbers of the goroutines that nobody can wake. `objects`: all that the collector tracks; `depths`: see
    `gs_frame_refs`, by number."""

def _now() -> int:
    """The time now, in nanoseconds on the clock of the above."""

def _stop() -> None:
    """Stops the workers at their next look for work; for `atexit`."""

def _before_fork() -> None: ...
def _after_fork_parent() -> None: ...
def _after_fork_child() -> None: ...

# Bubbles: for `goslings.testing`

@final
class _Bubble:
    """A bubble. For `goslings.testing` itself."""

    def __new__(
        cls, *, explores: bool, order: str, depth: int, span: int, seed: int, early: bool, steps: int, folder: str
    ) -> Self: ...
    def go[T](self, fn: Callable[..., T], /, *args: object) -> Goroutine[T]:
        """Starts a goroutine in it."""
    def settle(self, timeout: float | None = None) -> bool:
        """Waits until its status is no more "running", or, after `end`, until all are blocked or have ended."""
    def wait(self) -> bool:
        """Returns once all others are blocked for good; False if somebody waits for that already."""
    @property
    def id(self) -> int: ...
    @property
    def explores(self) -> bool: ...
    @property
    def now(self) -> int:
        """Nanoseconds since its beginning."""
    @property
    def steps(self) -> int: ...
    @property
    def live(self) -> int: ...
    @property
    def status(self) -> Literal["running", "ended", "deadlock", "left", "too long"]: ...
    def end(self) -> None:
        """From now on its goroutines only end. Cancel them afterwards."""
    def close(self) -> None:
        """It is not needed any more: what it knows is forgotten."""
    def members(self) -> list[tuple[int, str, str, str, int]]:
        """Those that have not ended: number, state, what they began to do last, file, line."""
    def trace(self) -> list[tuple[int, str, str | int, str, int]]:
        """What happened: who (-1: nobody of it), what, a text or number about it, file, line. Empties it."""
    def goroutines(self) -> list[tuple[int, Goroutine[Any], str | None]]:
        """All its goroutines: number, handle, name of the function."""
    def unread(self) -> list[tuple[int, BaseException]]:
        """The failures that nobody has read, each with the number of its goroutine. Counts as reading them."""

def _bubble() -> _Bubble | None:
    """The bubble that this code runs in."""

def _step(label: str) -> None:
    """A step of an explored run that is no operation of goslings; there are few different labels."""

def _outside_event() -> Event:
    """An event that something outside any bubble will set: who waits for it does not wait for good."""

# For goslings.patch

def _can_park() -> bool:
    """Whether this code can park: it runs in a goroutine that has a stack."""

@final
class _Patched:
    """What `goslings.patch` puts in a function's place: calls `parked` in a goroutine that can park, else `original`.

    It is no descriptor, as functions written in C are none: kept in a class it does not become a method. It is
    pickled by its name.
    """

    def __new__(cls, original: Callable[..., Any], parked: Callable[..., Any]) -> Self: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __reduce__(self) -> str: ...

def _sleep_here(seconds: float) -> None:
    """As `sleep`, wherever it is called: in a coroutine that runs in a goroutine, too, which then holds up others
    there.
    """

def _wait_fd_here(fd: FileDescriptorLike, write: bool, timeout: float | None = None) -> bool:
    """As `wait_fd`, wherever it is called: in a coroutine that runs in a goroutine, too, which then holds up others
    there.
    """

def _own_locals() -> None:
    """From now on goroutines that begin have thread-local data of their own."""

def _send_packet(fd: int, data: Buffer, file: int | None = None, /) -> bool:
    """Sends a packet, with the descriptor `file` if that is given; returns whether there was room. Never blocks.

    Raises BrokenPipeError if nobody can receive it any more, and other kinds of OSError.
    """

def _recv_packet(fd: int, look: int = 0, /) -> bytes | int | None:
    """The next packet, as bytes; or the descriptor that came with it, which is the caller's; None if there is none yet.

    `look`: for how many microseconds to look again and again if there is none, detached. Raises EOFError at the end,
    OSError with EMFILE if a descriptor came and this process can have no more.
    """

def _recv_outside[T](ch: chan[T], timeout: float | None = None) -> T:
    """Receives for a queue of the standard library: a thread that waits does not count for deadlocks."""

def _unraisable(error: BaseException, function: object) -> None:
    """Tells `sys.unraisablehook` of an exception that ended a thread started by `_thread.start_new_thread`."""

def get_ident() -> int:
    """get_ident(): a number that no other living thread or goroutine has."""

@final
class lock:
    """A lock object is a synchronization primitive: `threading.Lock`, in goroutines, too.

    A lock is not owned by who locked it; another thread or goroutine may unlock it.
    """

    def __new__(cls) -> Self: ...
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Locks it; returns whether that was possible in time.

        Without an argument this waits until it can. A `timeout` of -1 is none.
        """
    def acquire_lock(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """An obsolete synonym of acquire()."""
    def release(self) -> None:
        """Unlocks it. Raises RuntimeError if it is not locked."""
    def release_lock(self) -> None:
        """An obsolete synonym of release()."""
    def locked(self) -> bool:
        """Whether it is locked."""
    def locked_lock(self) -> bool:
        """An obsolete synonym of locked()."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *_exc_info: object) -> None: ...
    def _at_fork_reinit(self) -> None:
        """In a forked child: it is unlocked, whoever had it."""

@disjoint_base
class RLock:
    """A lock that its owner, a thread or a goroutine, may lock again: `threading.RLock`, in goroutines, too."""

    def __new__(cls, *_args: object, **_kwargs: object) -> Self: ...
    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Locks it, once more if the caller has it already; returns whether that was possible in time.

        Without an argument this waits until it can. A `timeout` of -1 is none.
        """
    def release(self) -> None:
        """Undoes one acquire(). Raises RuntimeError if the caller does not have it."""
    def locked(self) -> bool:
        """Whether it is locked by anybody."""
    def _is_owned(self) -> bool:
        """Whether the caller has it."""
    def _recursion_count(self) -> int:
        """How often the caller has locked it."""
    def _release_save(self) -> tuple[int, int]:
        """For internal use by `threading.Condition`."""
    def _acquire_restore(self, state: tuple[int, int]) -> None:
        """For internal use by `threading.Condition`."""
    def __enter__(self) -> bool: ...
    def __exit__(self, *_exc_info: object) -> None: ...
    def _at_fork_reinit(self) -> None:
        """In a forked child: it is unlocked, whoever had it."""

# HTTP

@final
class _HttpReader:
    """The requests of one connection: `feed` it what was received, and take out heads and bodies in turn."""

    def __new__(cls, head_limit: int, line_limit: int, header_count: int, body_limit: int) -> Self: ...
    def feed(self, data: bytes) -> None:
        """Adds what was received."""

    def head(self, base: dict[str, Any]) -> tuple[dict[str, Any], int, bool, bool] | None:
        """The next head as a WSGI environ made from `base`; None: more has to be fed first.

        Returns (environ, length of the body or -1 for chunks, whether the connection may be kept, whether the client
        waits for 100 Continue). Raises ValueError(status, reason).
        """

    def body(self, most: int) -> bytes | None:
        """Bytes of the present body, at most `most`; b"" at its end; None: more has to be fed first.

        Raises ValueError(status, reason).
        """

    @property
    def ended(self) -> bool:
        """Whether the present body is at its end."""

    @property
    def pending(self) -> int:
        """How many bytes were fed and not taken."""

def _http_head(status: str, headers: list[tuple[str, str]]) -> tuple[bytes, int, bool, bool, bool]:
    """The head of an answer, without the empty line at its end.

    Returns (bytes, Content-Length or -1, whether the app wants the connection closed, whether it set Date, whether it
    set Server). Headers that belong to the server (Connection, Transfer-Encoding …) are left out. Raises TypeError and
    ValueError for what PEP 3333 forbids, so that no value can begin a header or an answer of its own.
    """

# For goslings.stm

@final
class TVar[T]:
    """A variable that changes in transactions only, and all that one transaction changes at once.

    Haskell: `TVar`. What it holds should not be changed in place: others would see that at once, and nothing would
    undo it; `set` another value, or `modify` it into one.
    """

    def __new__(cls, value: T, /) -> Self: ...
    def get(self) -> T:
        """The value: in a transaction, as that sees it; outside, as of now. Never blocks."""
    def set(self, value: T, /) -> None:
        """Sets it: in a transaction, for everybody else when that commits; outside, at once.

        Blocks, outside, only while a transaction that has lost too often has its turn.
        """
    def modify[*A](self, fn: Callable[[T, *A], T], /, *args: *A) -> T:
        """modify(fn, *args): sets it to `fn(value, *args)`, and returns that.

        Outside a transaction this is one of its own: `fn` may be called more than once.
        """
    def __class_getitem__(cls, key: object) -> GenericAlias: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, _memo: object) -> NoReturn: ...
    def __reduce__(self) -> NoReturn: ...

@final
class _Watching:
    """Waits, when awaited, until a transaction is worth another attempt."""

    def __await__(self) -> Generator[Any, None, bool]: ...

def atomically[**P, T](fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """atomically(fn, *args, **kwargs): runs `fn` as a transaction.

    All that it does with TVars happens at once, or, if it raises, not at all. Returns what it returns. On a conflict
    with others `fn` runs again: whatever else it does is done again, too (see `on_commit`). Blocks while `retry` waits.
    Inside a transaction it is a part of that; if it raises, its own part is undone. Haskell: `atomically`.
    """

def or_else[T](*functions: Callable[[], T]) -> T:
    """or_else(f, g, *more): the result of the first of these functions that does not `retry`.

    What one did before it retried is undone. If all do, the transaction waits for a change of anything that any of
    them has read. RuntimeError outside a transaction. Haskell: `orElse`.
    """

def on_commit[**P](fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
    """on_commit(fn, *args, **kwargs): has `fn` called once, after the transaction has committed and outside it.

    In the order of these calls. The place for whatever others notice: sends, prints, files.
    """

def _retry() -> NoReturn:
    """Ends this attempt of the transaction."""

def _attempt(fn: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
    """Runs a transaction up to its commit, or to where it must wait: `(False, what to await before the next call)`."""

def _stm_stats() -> list[int]:
    """Commits, conflicts, retries and turns of the process."""

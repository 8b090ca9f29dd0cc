"""Queues between processes: no feeder thread, no locks between processes, and goroutines that wait are parked.

A queue is a socket that keeps messages whole (`connection.Messages`), whose two ends every process has that uses the
queue; and if it is bounded a semaphore of free places, if not a number in shared memory, of items.

`put` pickles at once and sends at once, if the socket has room. What has no room waits in this process, in order, and a
goroutine sends it as others take; so `put` of an unbounded queue never waits, as in the standard library, and what is
left at the end of the process is sent before it ends, unless `cancel_join_thread` was called. While the system has no
descriptor or no memory for it, it goes on waiting. `put` that fails has put nothing, and gives back the place.
"""

from __future__ import annotations

import copyreg
import errno
import io
import os
import pickle
import types
from collections import ChainMap, deque
from multiprocessing import context as _context
from multiprocessing import reduction as _reduction
from multiprocessing import util as _util
from queue import Empty as Empty
from queue import Full as Full
from typing import Any

from goslings._errors import Cancelled
from goslings._goslings import Mutex, Segment, _outside_event, go, sleep
from goslings.compat.multiprocessing._ready import ready
from goslings.compat.multiprocessing.connection import Lost, Messages, message_pair
from goslings.compat.multiprocessing.synchronize import SEM_VALUE_MAX

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

_ForkingPickler: Any = _reduction.ForkingPickler
_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
"""Types that every pickler pickles alike."""
_loads = pickle.loads
_PAGE = 4096
_FINAL = frozenset({None, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN, errno.ENOTSOCK, errno.EPIPE})
"""Errors after which nothing can be sent any more; None: the connection was closed here."""
_PAUSES = 0.01, 1.0
"""After another error: so many seconds until the next attempt, at first and at most. Each is twice the last."""


class _Pickler(pickle.Pickler):
    """As the library's ForkingPickler, which makes a table of reducers for each value that it pickles."""

    dispatch_table: Any = ChainMap[Any, Any](_ForkingPickler._extra_reducers, copyreg.dispatch_table)


def _dumps(obj: Any) -> Any:
    """What `ForkingPickler.dumps` makes."""
    if type(obj) in _PLAIN:
        return pickle.dumps(obj)
    buffer = io.BytesIO()
    _Pickler(buffer).dump(obj)
    return buffer.getbuffer()


class _Count:
    """A number that processes share and change in one step. It goes to children, as a queue does."""

    __slots__ = ("_segment",)

    def __init__(self) -> None:
        self._segment = Segment(_PAGE)

    def add(self, n: int) -> int:
        """Adds to it; returns what it is then."""
        value: int = self._segment._add(0, "q", n)
        return value

    def __reduce__(self) -> Any:
        return _rebuild_count, (_reduction.DupFd(self._segment.fileno()),)


def _rebuild_count(fd: Any) -> _Count:
    count = _Count.__new__(_Count)
    count._segment = Segment.from_fd(fd.detach())
    return count


class _Outbox:
    """What a process has put and the socket has not taken yet. Sent in order, by one goroutine at a time."""

    def __init__(self, writer: Messages) -> None:
        self._writer = writer
        self._waiting: deque[Any] = deque()
        self._lock = Mutex()
        self._sent = _outside_event()
        self._sent.set()
        self._pid = os.getpid()

    def send(self, data: Any) -> None:
        # Without the lock: what this thread has put before has gone if nothing waits.
        if not self._waiting and self._writer.try_send_bytes(data):
            return
        self._lock._lock_here()
        try:
            if not self._waiting and self._writer.try_send_bytes(data):
                return
            self._waiting.append(data)
            if len(self._waiting) > 1:
                return
            self._sent = _outside_event()
            try:
                go(self._drain, self._sent)
            except BaseException:
                self._waiting.popleft()
                self._sent.set()
                raise
        finally:
            self._lock.unlock()

    def _drain(self, sent: Any) -> None:
        first, longest = _PAUSES
        pause = first
        try:
            while True:
                try:
                    if self._send_waiting():
                        return
                    pause = first
                    ready(self._writer.fileno(), True, None)
                except OSError as error:
                    if error.errno in _FINAL:  # nobody is left to read, or the queue was broken on purpose
                        self.drop()
                        return
                    if pause < longest <= 2 * pause:
                        Queue._on_queue_feeder_error(error, None)  # it may last, and hold up the end of the process
                    sleep(pause)
                    pause = min(longest, 2 * pause)
        finally:
            sent.set()

    def _send_waiting(self) -> bool:
        """Sends what there is room for; returns whether that was all."""
        self._lock._lock_here()
        try:
            while self._waiting and self._writer.try_send_bytes(self._waiting[0]):
                self._waiting.popleft()
            return not self._waiting
        finally:
            self._lock.unlock()

    def drop(self) -> None:
        """Forgets what waits."""
        self._lock._lock_here()
        try:
            self._waiting.clear()
        finally:
            self._lock.unlock()

    def join(self) -> None:
        """Waits until everything was sent. Blocks."""
        if self._pid == os.getpid():
            self._sent.wait()


class Queue:
    """As `multiprocessing.Queue`."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._bounded = maxsize > 0
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._reader, self._writer = message_pair()
        self._sem: Any = ctx.Semaphore(maxsize) if maxsize > 0 else None
        self._items: Any = None if maxsize > 0 else _Count()
        self._opid = os.getpid()
        self._ignore_epipe = False
        self._reset()
        _util.register_after_fork(self, Queue._reset)

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        ends = self._reader, self._writer, self._sem, self._items
        return self._ignore_epipe, self._maxsize, self._bounded, ends, self._opid

    def __setstate__(self, state: Any) -> None:
        self._ignore_epipe, self._maxsize, self._bounded, ends, self._opid = state
        self._reader, self._writer, self._sem, self._items = ends
        self._reset()

    def _reset(self) -> None:
        self._outbox = _Outbox(self._writer)
        self._closed = False
        self._used = False
        self._join: Any = None
        self._join_cancelled = False

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Puts an item. Blocks while a bounded queue is full; then raises Full. Never blocks on another."""
        self._check()
        if self._bounded and not self._sem.acquire(block, timeout):
            raise Full
        try:
            data = _dumps(obj)
        except BaseException as error:
            if self._bounded:
                self._sem.release()
            if not isinstance(error, Exception):
                raise
            self._on_queue_feeder_error(error, obj)
            return
        self._put(data)

    def _put(self, data: Any) -> None:
        if not self._bounded:
            self._items.add(1)
        self._used = True
        try:
            self._outbox.send(data)
        except (Exception, Cancelled) as error:  # others, an interrupt for one, may come when it has gone
            if not (self._ignore_epipe and isinstance(error, BrokenPipeError)):
                self._gone()
                raise
        if self._join is None and not self._join_cancelled and not self._outbox._sent.is_set():
            self._join = _util.Finalize(self, _Outbox.join, [self._outbox], exitpriority=-5)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes an item. Blocks while there is none; then raises Empty.

        Raises OSError if there is no descriptor or no memory for a large item, which is lost.
        """
        self._check()
        try:
            data = self._reader.next_bytes(timeout) if block else self._reader.try_recv_bytes()
        except Lost:
            self._gone()
            raise
        if data is None:
            raise Empty
        self._give_place()
        return _loads(data)

    def _give_place(self) -> None:
        if self._bounded:
            self._sem.release()
        else:
            self._items.add(-1)

    def _gone(self) -> None:
        """An item that was counted is nowhere: it could not be put, or not be had."""
        self._give_place()

    def qsize(self) -> int:
        """How many items there are, more or less."""
        if self._bounded:
            free: int = self._sem.get_value()
            return self._maxsize - free
        items: int = self._items.add(0)
        return max(0, items)

    def empty(self) -> bool:
        """Whether there is nothing to take now."""
        return not self._poll()

    def _poll(self, timeout: float = 0.0) -> bool:
        return self._reader.poll(timeout)

    def full(self) -> bool:
        """Whether there is no free place now."""
        zero: bool = self._bounded and self._sem._semlock._is_zero()
        return zero

    def get_nowait(self) -> Any:
        """As `get(False)`."""
        return self.get(False)

    def put_nowait(self, obj: Any) -> None:
        """As `put(obj, False)`."""
        self.put(obj, False)

    def close(self) -> None:
        """Nothing more is put or taken in this process; what was put is sent."""
        if not self._closed:
            self._closed = True
            if self._outbox._sent.is_set():
                self._close_ends()

    def join_thread(self) -> None:
        """Waits until what was put has been sent; after `close` only. Blocks."""
        assert self._closed, f"Queue {self!r} not closed"
        if not self._join_cancelled:
            self._outbox.join()
            self._close_ends()

    def _close_ends(self) -> None:
        """As the standard library's feeder does at its end, which begins with the first `put`."""
        if self._used:
            self._reader.close()
            self._writer.close()

    def cancel_join_thread(self) -> None:
        """At the end of this process, what was put and has no room is lost."""
        self._join_cancelled = True
        if self._join is not None:
            self._join.cancel()

    def _terminate_broken(self) -> None:
        self._reader.close()
        self._outbox.drop()
        self.close()

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:
        import traceback

        traceback.print_exception(e)

    __class_getitem__: Any = classmethod(types.GenericAlias)


class JoinableQueue(Queue):
    """As `multiprocessing.JoinableQueue`."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._unfinished_tasks = _Count()
        self._cond = ctx.Condition()

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._cond, self._unfinished_tasks

    def __setstate__(self, state: Any) -> None:
        state, self._cond, self._unfinished_tasks = state
        super().__setstate__(state)

    def _put(self, data: Any) -> None:
        # Before it can be taken, and so before it can be done with.
        self._unfinished_tasks.add(1)
        super()._put(data)

    def _gone(self) -> None:
        super()._gone()
        self.task_done()

    def task_done(self) -> None:
        """Says that an item that was taken is done with."""
        left = self._unfinished_tasks.add(-1)
        if left < 0:
            self._unfinished_tasks.add(1)
            raise ValueError("task_done() called too many times")
        if left == 0:
            # Who joins has looked before, and waits by now, since it has the lock in between; or looks after.
            with self._cond:
                self._cond.notify_all()

    def join(self) -> None:
        """Waits until every item that was put is done with. Blocks."""
        with self._cond:
            if self._unfinished_tasks.add(0) > 0:
                self._cond.wait()


class _NoLock:
    """Stands where the standard library's code expects a lock that is not needed here."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *error: object) -> None:
        pass


class SimpleQueue:
    """As `multiprocessing.SimpleQueue`."""

    def __init__(self, *, ctx: Any) -> None:
        self._reader, self._writer = message_pair()
        self._rlock = self._wlock = _NoLock()

    def close(self) -> None:
        """Closes both ends here."""
        self._reader.close()
        self._writer.close()

    def empty(self) -> bool:
        """Whether there is nothing to take now."""
        return not self._reader.poll()

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        return self._reader, self._writer

    def __setstate__(self, state: Any) -> None:
        self._reader, self._writer = state
        self._rlock = self._wlock = _NoLock()

    def _poll(self, timeout: float = 0.0) -> bool:
        return self._reader.poll(timeout)

    def get(self) -> Any:
        """Takes an item. Blocks while there is none."""
        return _loads(self._reader.next_bytes())

    def put(self, obj: Any) -> None:
        """Puts an item. Blocks while the system has no room for it."""
        self._writer._send_bytes(_dumps(obj))

    __class_getitem__: Any = classmethod(types.GenericAlias)

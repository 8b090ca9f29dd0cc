"""`Processes`: which workers there are, and who of them gets a call. What a worker is, says _child.py."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from goslings import _threads
from goslings._goslings import Event, Goroutine, WaitGroup, go
from goslings._runtime import cpu_quota, free_threaded
from goslings.processes import _pickle, _spawn
from goslings.processes._child import END_SECONDS, Child
from goslings.processes._errors import WorkerDied
from goslings.processes._heart import START_SECONDS, Heart
from goslings.processes._peer import Parcel, Peer

__all__ = ["Processes", "WorkerStats"]

_BAD_STARTS = 3
"""So many workers in a row that die before they are ready, and no more are started."""


@dataclass(frozen=True)
class WorkerStats:
    """A worker process of a pool, a moment ago."""

    __module__ = "goslings.processes"

    pid: int
    """Its process number; 0 if the fork server has not started it yet."""
    state: str
    """"starting", "ready", or "ending": it gets no more calls."""
    calls: int
    """Calls that it has, running or on their way there or back."""
    started: int
    """Calls that it was given so far."""
    silent: float
    """For how many seconds it has not answered; always 0 without a `hang_timeout`."""


class Processes:
    """Worker processes that run goroutines: parallel Python on any build.

    `n` is how many (default: the usable CPUs). `start` is "spawn", a fresh interpreter for each, or "forkserver", a
    fork of a fresh interpreter that has imported goslings. `initializer(*initargs)` runs in each worker first. After
    `max_tasks` calls a worker is replaced. Arrays and other large buffers arrive read-only, unless `writable`.

    With `hang_timeout`, a worker whose interpreter does not answer for so many seconds while somebody waits for it is
    killed, and its calls fail with WorkerDied: it is stopped, in a deadlock, or in a C call that keeps the GIL,
    however useful. Code that computes or waits is no reason. Without, nobody looks.

    Use it in a `with` block: at its end it waits for its goroutines, and after an exception cancels them. Workers end
    with the parent, however that ends. Raises ValueError or TypeError for arguments that make no sense, OSError
    if the system refuses a process.

    >>> from goslings.processes import Processes
    >>> with Processes(2) as workers:
    ...     halves = [workers.go(sum, range(k, 1000, 2)) for k in range(2)]
    ...     print(sum(half.result() for half in halves))
    499500
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        start: Literal["spawn", "forkserver"] = "spawn",
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        max_tasks: int | None = None,
        writable: bool = False,
        hang_timeout: float | None = None,
    ) -> None:
        cpus = _cpus()
        if n is None:
            n = cpus
        if n < 1:
            raise ValueError("n must be at least 1")
        if max_tasks is not None and max_tasks < 1:
            raise ValueError("max_tasks must be at least 1")
        if hang_timeout is not None and not hang_timeout > 0:
            raise ValueError("hang_timeout must be more than 0 seconds")
        if start not in ("spawn", "forkserver"):
            raise ValueError(f'start must be "spawn" or "forkserver", not {start!r}')
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {type(initializer).__name__}")
        procs = max(1, cpus // n) if free_threaded() else None
        self._settings = (initializer, tuple(initargs), procs, writable)
        self._writable = writable
        self._max_tasks = max_tasks
        self._hang_timeout = hang_timeout
        self._n = n
        self._lock = _threads.lock()
        self._active = WaitGroup()
        """Calls."""
        self._starts = WaitGroup()
        """Workers that are being started."""
        self._starting = 0
        self._closed = False
        self._broken: BaseException | None = None
        self._bad_starts = 0
        self._workers: list[Child] = []
        """Those that take calls."""
        self._all: set[Child] = set()
        """Those, and those that have still to end."""
        self._forks = start == "forkserver"
        self._server: _spawn.ForkServer | None = None
        self._over = Event()
        """The workers have ended."""
        self._maker = os.getpid()
        try:
            self._fill()
        except BaseException:
            self.kill()
            raise
        if hang_timeout is not None:
            go(self._watch, float(hang_timeout)).name = "goslings.processes watch"

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken is not None else "open"
        silent = [f", {worker.pid} silent for {worker.silent:.1f} s" for worker in self.stats() if worker.silent]
        return f"<Processes ({len(self._workers)} workers, {state}{''.join(silent)})>"

    def go[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]:
        """Starts `fn(*args, **kwargs)` as a goroutine in one of the workers; returns its handle here, at once.

        Functions, also closures, lambdas and those of `__main__`, arguments, results and exceptions travel by pickle,
        channels by reference. An exception has the traceback from there as its `__cause__`. `cancel` cancels the
        goroutine there. If the worker dies the result is `WorkerDied`.

        Raises TypeError if something cannot be pickled, and says what; RuntimeError after `close`; WorkerDied if
        workers die as soon as they start; MemoryError or OSError (ENOSPC, EFBIG, EMFILE) if there is no shared memory
        for large arguments.
        """
        if not callable(fn):
            raise TypeError(f"go needs a callable, not {type(fn).__name__}")
        if self._is_copy():
            raise RuntimeError("a forked child has no part in its parent's processes: make others")
        worker, replace = self._choose()
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        parcel = worker.peer.parcel()
        try:
            payload = _pickle.dumps_call(fn, args, kwargs, parcel.reduce, parcel)
            call = worker.prepare(name, payload, parcel)
        except BaseException:
            self.ended(worker)
            raise
        finally:
            if replace:
                self._retire(worker)
        try:
            goroutine: Goroutine[T] = go(call.wait)
        except BaseException:
            worker.drop(call)
            raise
        goroutine.name = name
        call.goroutine = goroutine
        goroutine.add_done_callback(call.ended)
        return goroutine

    def cancel(self, msg: str | None = None) -> None:
        """Cancels every goroutine of the pool. Never blocks."""
        if self._is_copy():
            return
        with self._lock:
            workers = list(self._all)
        for worker in workers:
            for call in list(worker.calls.values()):
                goroutine = call.goroutine
                if goroutine is not None:
                    goroutine.cancel(msg)

    def close(self, timeout: float | None = None) -> None:
        """Takes no more calls, waits for those that run, and ends the workers. Again: does nothing.

        Blocks at most `timeout` seconds; then raises TimeoutError, and the calls go on. In a forked child it does
        nothing: the workers are its parent's.
        """
        if self._is_copy():
            return
        with self._lock:
            self._closed = True
        if not self._active.wait(timeout):
            raise TimeoutError("close timed out")
        self._end()

    async def aclose(self, timeout: float | None = None) -> None:
        """As `close`, awaited."""
        if self._is_copy():
            return
        with self._lock:
            self._closed = True
        if not await self._active.await_(timeout):
            raise TimeoutError("close timed out")
        await go(self._end)

    def kill(self) -> None:
        """Takes no more calls and kills the workers: who waits for them gets WorkerDied. Not in a forked child."""
        if self._is_copy():
            return
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.process.kill()
        self._end()

    def stats(self) -> list[WorkerStats]:
        """The workers, those that are about to end included. Never blocks."""
        with self._lock:
            workers = list(self._all)
            taking = set(self._workers)
        return [
            WorkerStats(
                worker.process.pid,
                "ending" if worker not in taking else "ready" if worker.ready else "starting",
                len(worker.calls),
                worker.started,
                0.0 if worker.heart is None else worker.heart.silent,
            )
            for worker in workers
        ]

    @property
    def pids(self) -> list[int]:
        """The process numbers of the workers that take calls."""
        return [worker.process.pid for worker in list(self._workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.cancel()
                self.close(END_SECONDS)
            else:
                self.close()
        except TimeoutError:
            return  # calls that do not end: `finally` sees to that, and the block's own exception is raised
        finally:
            self.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.cancel()
                await self.aclose(END_SECONDS)
            else:
                await self.aclose()
        except TimeoutError:
            return
        finally:
            await go(self.kill)

    # Workers

    def _is_copy(self) -> bool:
        """Whether this is a forked child's copy of a pool, whose locks and workers are its parent's."""
        return os.getpid() != self._maker

    def _fill(self, now: bool = False) -> None:
        """Starts workers until there are as many as there should be. Raises OSError if the system refuses.

        `now`: one in any case, if there is none. Never waits for others.
        """
        while True:
            with self._lock:
                enough = len(self._workers) + self._starting >= self._n and not (now and not self._workers)
                if enough or self._closed or self._broken is not None:
                    return
                self._starting += 1
                self._starts.add(1)
            try:
                heart = None if self._hang_timeout is None else Heart()
                try:
                    worker = Child(self, self._process, heart)
                except BaseException:
                    if heart is not None:
                        heart.close()
                    raise
                with self._lock:
                    self._all.add(worker)
                    self._workers.append(worker)
                worker.begin(self._init)
            finally:
                with self._lock:
                    self._starting -= 1
                self._starts.done()

    def _process(self, fd: int, pair: int) -> Any:
        """A new process."""
        if not self._forks:
            return _spawn.Spawned(fd, pair)
        for _ in range(3):
            server = self._server or self._new_server()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                return _spawn.Forked(server, fd, pair)
            # It has died, and its workers with it: who reads from it sees to that.
            with self._lock:
                if self._server is server:
                    self._server = None
            server.close()
        raise BrokenPipeError("the fork server dies as soon as it is started")

    def _new_server(self) -> _spawn.ForkServer:
        made = _spawn.ForkServer()
        with self._lock:
            server = self._server
            if server is None:
                self._server = made
                return made
        made.close()
        return server

    def _init(self, peer: Peer, parcel: Parcel) -> _pickle.Payload:
        """What a worker hears first."""
        if self._writable:
            peer.let_write()
        return peer.pack(self._settings, "initializer", parcel)

    def _choose(self) -> tuple[Child, bool]:
        """The worker with the least to do, which has one call more now; and whether that was its last."""
        while True:
            with self._lock:
                if self._closed:
                    raise RuntimeError("this pool of processes was closed")
                if self._broken is not None:
                    raise WorkerDied(f"no worker can be started: {self._broken}") from self._broken
                full = len(self._workers) + self._starting >= self._n
                if self._workers and full:
                    return self._chosen()
            # All have just died, and others are starting them anew; or some could not be started when they should.
            try:
                self._fill(now=True)
            except OSError:
                with self._lock:
                    if self._workers and not self._closed:
                        return self._chosen()
                raise

    def _chosen(self) -> tuple[Child, bool]:
        """Under the lock."""
        worker = min(self._workers, key=lambda worker: (len(worker.calls), worker.started))
        worker.started += 1
        self._active.add(1)
        last = self._max_tasks is not None and worker.started >= self._max_tasks
        if last:
            self._workers.remove(worker)
        return worker, last

    def _retire(self, worker: Child) -> None:
        """It gets no more calls: another takes its place."""
        with contextlib.suppress(OSError):  # later, then
            self._fill()
        worker.retired = True
        self._bye_if_done(worker)

    def _bye_if_done(self, worker: Child) -> None:
        if worker.retired and not worker.calls:
            worker.say_bye()

    def _watch(self, limit: float) -> None:
        """Kills workers that do not answer. A goroutine of its own."""
        pause = min(limit / 4, 1.0)
        looked = time.monotonic()
        while True:
            if self._over.wait(pause):
                return
            now = time.monotonic()
            seconds, looked = min(now - looked, 2 * pause), now
            with self._lock:
                workers = list(self._all)
            for worker in workers:
                heart = worker.heart
                assert heart is not None
                peer = worker.peer
                waits = worker.calls or peer._operations or peer._questions or not heart.answered
                silent = heart.look(seconds, bool(waits))
                if worker.fate is None and silent > (
                    limit if worker.ready or heart.answered else max(limit, START_SECONDS)
                ):
                    worker.kill(f"it did not answer for {silent:.1f} s")

    # What workers tell

    def ended(self, worker: Child) -> None:
        """A call has ended."""
        self._active.done()
        self._bye_if_done(worker)

    def is_ready(self) -> None:
        """A worker has started."""
        self._bad_starts = 0

    def broke(self, error: BaseException) -> None:
        """Workers cannot be started."""
        with self._lock:
            if self._broken is None:
                self._broken = error

    def fell(self, worker: Child) -> None:
        """A worker has ended, or is about to: it gets no more calls."""
        with self._lock:
            if worker in self._workers:
                self._workers.remove(worker)

    def lost(self, worker: Child, text: str) -> None:
        """A worker has ended, and everybody has been told."""
        with self._lock:
            self._all.discard(worker)
            if not worker.ready and not worker.retired:
                self._bad_starts += 1
                if self._bad_starts >= _BAD_STARTS and self._broken is None:
                    self._broken = WorkerDied(text)
        try:
            self._fill()
        except OSError:
            return  # the next call tries again, and tells
        except Exception as error:
            self.broke(error)

    def _end(self) -> None:
        """Ends all workers, with force if they take too long. None is started any more."""
        self._starts.wait()
        with self._lock:
            workers = list(self._all)
        for worker in workers:
            worker.retired = True
            worker.say_bye()
        until = time.monotonic() + END_SECONDS
        for worker in workers:
            if not worker.goroutine.join(max(0.0, until - time.monotonic())):
                worker.end()
        for worker in workers:
            while not worker.goroutine.join(END_SECONDS):
                worker.end()  # its server may have ended meanwhile, and not have told of it
        self._over.set()
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()


def _cpus() -> int:
    import math

    cpus = os.process_cpu_count() or 1
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))

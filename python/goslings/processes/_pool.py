"""`Processes`: goroutines in worker processes.

The parent has a goroutine for each call, which waits for the answer; cancelling that asks the worker to cancel the
remote one, and the answer decides. Each worker has a goroutine that reads its link (`_Worker._run`) and, at the end of
that, finds out how the process ended, tells everybody who waited, puts back what it held, and starts another.
"""

from __future__ import annotations

import concurrent.futures
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from goslings import _threads
from goslings._errors import Cancelled
from goslings._goslings import Goroutine, Link, WaitGroup, _recv_outside, chan, go
from goslings._runtime import cpu_quota, free_threaded
from goslings.processes import _messages, _pickle, _spawn
from goslings.processes._errors import WorkerDied
from goslings.processes._peer import Failure, Peer

__all__ = ["Processes"]

_END_SECONDS = 5.0
"""How long a worker may take to end, after it was told to or has closed its link."""
_BAD_STARTS = 3
"""So many workers in a row that die before they are ready, and no more are started."""


class _Call:
    """A call that runs in a worker, or is on its way there."""

    __slots__ = ("answer", "goroutine", "number", "over", "start", "started", "worker")

    def __init__(self, worker: _Worker, number: int) -> None:
        self.worker = worker
        self.number = number
        self.start: Callable[[], None] = lambda: None
        """Makes it begin there. Not before somebody waits for it here: one that is cancelled before that never runs."""
        self.started = False
        self.answer = chan[Any](1)
        self.over = False
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
            for fd in fds:
                os.close(fd)

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


class _Worker:
    """A worker process, as the parent sees it."""

    def __init__(self, pool: Processes, start: Callable[[int, int], Any], init: Callable[[Peer], None]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pair = secrets.randbits(62)
        with theirs:
            try:
                self.process = start(theirs.fileno(), pair)
            except BaseException:
                ours.close()
                raise
        self._pool = pool
        self._lock = _threads.lock()
        self._numbers = 0
        self.calls: dict[int, _Call] = {}
        self.started = 0
        self.ready = False
        self.retired = False
        self.peer = Peer(Link(ours.detach()), pair, 0, "a worker process")
        self.peer.handlers = {_messages.READY: self._on_ready, _messages.RESULT: self._on_result}
        init(self.peer)
        self.goroutine = go(self._run)
        self.goroutine.name = "goslings.processes worker"

    def prepare(self, name: str, payload: _pickle.Payload, fds: Sequence[int]) -> _Call:
        """A call, which its `start` begins. Large buffers are sent now: later changes are not seen.

        The answer says if the worker is gone.
        """
        with self._lock:
            self._numbers += 1
            number = self._numbers
            call = self.calls[number] = _Call(self, number)
            dead = self.peer.dead is not None
        if dead:
            self._answer(number, self.peer.death(), None, [])
        elif fds or _pickle.is_large(payload):
            self.peer.post((_messages.CALL, number, name, payload, True), True, fds)
            call.start = lambda: self.peer.post((_messages.START, number))
        else:
            call.start = lambda: self.peer.post((_messages.CALL, number, name, payload, False))
        return call

    def drop(self, call: _Call) -> None:
        """It was never started."""
        call.stop(())
        self._answer(call.number, None, (), [])

    def say_bye(self) -> None:
        """Lets it end; there is nothing left for it to do."""
        self.peer.post((_messages.BYE,))

    def _answer(self, number: int, how: Any, what: Any, fds: list[int]) -> None:
        with self._lock:
            call = self.calls.pop(number, None)
        if call is None:
            return
        call.over = True
        call.answer.try_send((how, what, fds))
        self._pool._ended(self)

    def _on_ready(self, fds: list[int], failure: Failure | None) -> None:
        if failure is None:
            self.ready = True
            self._pool._is_ready()
        else:
            self._pool._broke(self.peer.failure(failure, fds))
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
        status = self.process.wait(None if self.retired else 0 if garbage else _END_SECONDS)
        if status is None:
            self.process.kill()
            self.process.wait(None)
            text = f"worker {self.process.pid} was ended{garbage or ': it has closed its link'}"
        else:
            text = f"worker {self.process.pid} {_spawn.told(status)}{garbage}"
        self.peer.end(WorkerDied(text))
        with self._lock:
            lost = list(self.calls)
        for number in lost:
            self._answer(number, self.peer.death(), None, [])
        self._pool._lost(self, text)


class Processes:
    """Worker processes that run goroutines: parallel Python on any build.

    `n` is how many (default: the usable CPUs). `start` is "spawn", a fresh interpreter for each, or "forkserver", a
    fork of a fresh interpreter that has imported goslings. `initializer(*initargs)` runs in each worker first. After
    `max_tasks` calls a worker is replaced. Arrays and other large buffers arrive read-only, unless `writable`.

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
    ) -> None:
        cpus = _cpus()
        if n is None:
            n = cpus
        if n < 1:
            raise ValueError("n must be at least 1")
        if max_tasks is not None and max_tasks < 1:
            raise ValueError("max_tasks must be at least 1")
        if start not in ("spawn", "forkserver"):
            raise ValueError(f'start must be "spawn" or "forkserver", not {start!r}')
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {type(initializer).__name__}")
        procs = max(1, cpus // n) if free_threaded() else None
        self._settings = (initializer, tuple(initargs), procs, writable)
        self._writable = writable
        self._max_tasks = max_tasks
        self._lock = _threads.lock()
        self._active = WaitGroup()
        self._closed = False
        self._broken: BaseException | None = None
        self._bad_starts = 0
        self._workers: list[_Worker] = []
        """Those that take calls."""
        self._all: set[_Worker] = set()
        """Those, and those that have still to end."""
        self._server = _spawn.ForkServer() if start == "forkserver" else None
        try:
            for _ in range(n):
                self._start()
        except BaseException:
            self.kill()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken is not None else "open"
        return f"<Processes ({len(self._workers)} workers, {state})>"

    def go[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]:
        """Starts `fn(*args, **kwargs)` as a goroutine in one of the workers; returns its handle here, at once.

        Functions, also closures, lambdas and those of `__main__`, arguments, results and exceptions travel by pickle,
        channels by reference. An exception has the traceback from there as its `__cause__`. `cancel` cancels the
        goroutine there. If the worker dies the result is `WorkerDied`.

        Raises TypeError if something cannot be pickled, and says what; RuntimeError after `close`; WorkerDied if
        workers die as soon as they start.
        """
        if not callable(fn):
            raise TypeError(f"go needs a callable, not {type(fn).__name__}")
        while (worker := self._choose()) is None:
            self._start()
        with self._lock:
            worker.started += 1
            self._active.add(1)
            replace = self._max_tasks is not None and worker.started >= self._max_tasks
            if replace and worker in self._workers:
                self._workers.remove(worker)
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        fds: list[int] = []
        try:
            payload = _pickle.dumps_call(fn, args, kwargs, worker.peer._reduce, fds)
            call = worker.prepare(name, payload, fds)
        except BaseException:
            self._ended(worker)
            raise
        finally:
            if replace:
                self._retire(worker)
        goroutine: Goroutine[T] = go(call.wait)
        goroutine.name = name
        call.goroutine = goroutine
        goroutine.add_done_callback(call.ended)
        return goroutine

    def cancel(self, msg: str | None = None) -> None:
        """Cancels every goroutine of the pool. Never blocks."""
        with self._lock:
            workers = list(self._all)
        for worker in workers:
            for call in list(worker.calls.values()):
                goroutine = call.goroutine
                if goroutine is not None:
                    goroutine.cancel(msg)

    def close(self, timeout: float | None = None) -> None:
        """Takes no more calls, waits for those that run, and ends the workers. Again: does nothing.

        Blocks at most `timeout` seconds; then raises TimeoutError, and the calls go on.
        """
        with self._lock:
            self._closed = True
        if not self._active.wait(timeout):
            raise TimeoutError("close timed out")
        self._end()

    async def aclose(self, timeout: float | None = None) -> None:
        """As `close`, awaited."""
        with self._lock:
            self._closed = True
        if not await self._active.await_(timeout):
            raise TimeoutError("close timed out")
        await go(self._end)

    def kill(self) -> None:
        """Takes no more calls and kills the workers: who waits for them gets WorkerDied."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.process.kill()
        self._end()

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
                self.close(_END_SECONDS)
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
                await self.aclose(_END_SECONDS)
            else:
                await self.aclose()
        except TimeoutError:
            return
        finally:
            await go(self.kill)

    # Workers

    def _start(self) -> None:
        """One more worker."""
        server = self._server
        start = _spawn.Spawned if server is None else lambda fd, pair: _spawn.Forked(server, fd, pair)
        worker = _Worker(self, start, self._init)
        with self._lock:
            self._all.add(worker)
            self._workers.append(worker)

    def _init(self, peer: Peer) -> None:
        """The first message to a worker."""
        peer.writable = self._writable
        fds: list[int] = []
        payload = peer.pack(self._settings, "initializer", fds)
        peer.post((_messages.INIT, payload), _pickle.is_large(payload), fds)

    def _choose(self) -> _Worker | None:
        """The worker with the least to do; None if there is none at the moment."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this pool of processes was closed")
            if self._broken is not None:
                raise WorkerDied(f"no worker can be started: {self._broken}") from self._broken
            alive = [worker for worker in self._workers if worker.peer.dead is None]
            return min(alive, key=lambda worker: (len(worker.calls), worker.started), default=None)

    def _is_ready(self) -> None:
        self._bad_starts = 0

    def _broke(self, error: BaseException) -> None:
        """Workers cannot be started."""
        with self._lock:
            if self._broken is None:
                self._broken = error

    def _retire(self, worker: _Worker) -> None:
        """It gets no more calls: another takes its place."""
        self._start()
        with self._lock:
            worker.retired = True
        self._bye_if_done(worker)

    def _bye_if_done(self, worker: _Worker) -> None:
        if worker.retired and not worker.calls:
            worker.say_bye()

    def _ended(self, worker: _Worker) -> None:
        """A call of this worker has ended."""
        self._active.done()
        self._bye_if_done(worker)

    def _lost(self, worker: _Worker, text: str) -> None:
        """A worker has ended."""
        with self._lock:
            self._all.discard(worker)
            missing = worker in self._workers
            if missing:
                self._workers.remove(worker)
            if not worker.ready:
                self._bad_starts += 1
                if self._bad_starts >= _BAD_STARTS and self._broken is None:
                    self._broken = WorkerDied(text)
            again = missing and not self._closed and self._broken is None
        if again:
            try:
                self._start()
            except Exception as error:
                self._broke(error)

    def _end(self) -> None:
        """Ends all workers, with force if they take too long."""
        with self._lock:
            workers = list(self._all)
        for worker in workers:
            worker.retired = True
            worker.say_bye()
        for worker in workers:
            if not worker.goroutine.join(_END_SECONDS):
                worker.process.kill()
        for worker in workers:
            worker.goroutine.join()
        if self._server is not None:
            self._server.close()


def _cpus() -> int:
    import math

    cpus = os.process_cpu_count() or 1
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))

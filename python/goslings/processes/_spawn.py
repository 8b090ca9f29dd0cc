"""How a worker process comes to be, and how it went: started anew, or forked from a server that has no threads."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from goslings import _threads
from goslings._goslings import Event, go, sleep, wait_fd

__all__ = ["ForkServer", "Forked", "Spawned", "told"]

_NO_FORK = 1 << 16
"""In the place of an exit status: the process never was."""


def command(code: str) -> list[str]:
    """The command line of an interpreter like this one that runs `code`."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # private: no stub
    return [sys.executable, *flags, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]


def told(status: int) -> str:
    """An exit status, as `subprocess` gives it, in words."""
    if status == _NO_FORK:
        return "could not be forked: the fork server has no memory, processes or descriptors left"
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"


def start(code: str, fd: int) -> subprocess.Popen[bytes]:
    """Starts an interpreter with `code`, which inherits `fd`, and SIGINT blocked until `own_interrupts`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command(code), pass_fds=[fd], stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def own_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; what becomes of the workers is the parent's decision.

    A handler and not SIG_IGN, which the programs that they start would inherit.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Spawned:
    """A worker process that was started anew."""

    def __init__(self, fd: int, pair: int) -> None:
        """`fd` is the worker's end of the link. Raises OSError if the system refuses."""
        code = f"from goslings.processes._worker import main; main({fd}, {pair})"
        self._process = start(code, fd)
        self.pid = self._process.pid
        self._lock = _threads.lock()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    is_unknown = False
    """Whether it cannot be killed."""

    def wait(self, timeout: float | None) -> int | None:
        """Its exit status, once it has ended; None after `timeout` seconds. For one goroutine, until it is told."""
        if not _wait_readable(self._pidfd, timeout):
            return None
        with self._lock:
            os.close(self._pidfd)
            self._pidfd = -1
            return self._process.wait()

    def kill(self) -> None:
        """Kills it, if it lives."""
        with self._lock:
            kill(self._pidfd)


def _wait_readable(fd: int, timeout: float | None) -> bool:
    """As `wait_fd`, also where there is no descriptor left for a poller."""
    try:
        return wait_fd(fd, False, timeout)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    until = None if timeout is None else time.monotonic() + timeout
    while not poll.poll(0):
        if until is not None and time.monotonic() >= until:
            return False
        sleep(0.02)
    return True


def kill(pidfd: int) -> None:
    """Kills the process of this descriptor, if it lives; -1: none."""
    if pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


class Forked:
    """A worker process that a server has forked."""

    def __init__(self, server: ForkServer, fd: int, pair: int) -> None:
        """Raises BrokenPipeError or ConnectionResetError if the server is gone."""
        self.pid = 0
        self._server = server
        self._status: int | None = None
        self._pidfd = -1
        self._lock = _threads.lock()
        self._started = Event()
        """Or it never will."""
        self._ended = Event()
        server.fork(self, fd, pair)
        go(self._see_to_the_start).name = "goslings.processes fork"

    def wait(self, timeout: float | None) -> int | None:
        """As `Spawned.wait`."""
        if not self._ended.wait(timeout):
            return None
        with self._lock:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
            return self._status

    def kill(self) -> None:
        """As `Spawned.kill`, also a server that does not tell of its start, or then of its end, for long."""
        if not self._started.wait(_FORK_SECONDS):
            self._server.kill()
        with self._lock:
            kill(self._pidfd)
        if not self._ended.is_set():
            go(self._see_to_the_end)

    def _see_to_the_start(self) -> None:
        """A server that was stopped is killed: whoever waits for the worker would wait for ever. A slow one is not."""
        while not self._started.wait(_FORK_SECONDS):
            if self._server.is_stopped():
                self._server.kill()
                return

    @property
    def is_unknown(self) -> bool:
        """Whether its server has told of it without a descriptor, or has ended before: perhaps it runs."""
        return self._started.is_set() and self._pidfd < 0

    def _see_to_the_end(self) -> None:
        if not self._ended.wait(_FORK_SECONDS):
            self._server.kill()

    def begun(self, pid: int, pidfd: int) -> None:
        """The server tells of its start."""
        with self._lock:
            self.pid = pid
            self._pidfd = pidfd
        self._started.set()

    def over(self, status: int) -> None:
        """The server tells of its end."""
        self._status = status
        self._started.set()
        self._ended.set()

    def orphaned(self) -> None:
        """The server has ended before it. Waits for its end."""
        if self._pidfd >= 0:
            kill(self._pidfd)
            _wait_readable(self._pidfd, None)
        self.over(-signal.SIGKILL)


_FORK_SECONDS = 10.0
"""How long a fork may take."""
_TOLD = struct.Struct("<Bqi")
"""What the server tells: started or ended, the worker's pair, and its pid (with a descriptor of it) or status."""
_STARTED, _ENDED, _NOT_STARTED = 0, 1, 2


class ForkServer:
    """A process that has imported goslings, and forks workers on demand."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                code = f"from goslings.processes._spawn import serve; serve({theirs.fileno()})"
                self._process = start(code, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        self._socket = ours
        self._socket.setblocking(False)
        self._lock = _threads.lock()
        self._workers: dict[int, Forked] = {}
        self._gone = False
        go(self._read).name = "goslings.processes fork server"

    def fork(self, worker: Forked, fd: int, pair: int) -> None:
        """Asks for a worker."""
        request = pickle.dumps((pair, sys.path))
        while True:
            with self._lock:
                if self._gone:
                    raise BrokenPipeError("the fork server is gone")
                self._workers[pair] = worker
                try:
                    socket.send_fds(self._socket, [request], [fd])
                    return
                except BlockingIOError:
                    del self._workers[pair]
                except BaseException:
                    del self._workers[pair]
                    raise
            # Many workers at once: as soon as the server has read some of the requests.
            room = select.poll()
            room.register(self._socket, select.POLLOUT)
            room.poll(1000)

    def kill(self) -> None:
        """It ends, and its workers with it."""
        self._process.kill()

    def is_stopped(self) -> bool:
        """Whether it stands still, by a signal or under a debugger."""
        try:
            with open(f"/proc/{self._process.pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] in "Tt"
        except OSError:
            return False

    def close(self) -> None:
        """The server ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_FORK_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        while True:
            fds: list[int] = []
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _TOLD.size, 1)
            except BlockingIOError:
                _wait_readable(self._socket.fileno(), None)
                continue
            except OSError:
                data = b""
            if not data:
                break
            what, pair, number = _TOLD.unpack(data)
            if what == _STARTED:
                self._workers[pair].begun(number, fds[0] if fds else -1)
            else:
                self._workers.pop(pair).over(number)
        with self._lock:
            self._gone = True
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.orphaned()
        self._socket.close()


def serve(fd: int) -> None:
    """The server: one thread, no goroutine; forks until its socket ends."""
    from goslings._goslings import _end_with
    from goslings.processes import _worker

    own_interrupts()
    _end_with(-1, 0)  # who is stopped goes on then, and sees the end of its socket
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    poll = select.poll()
    poll.register(control, select.POLLIN)

    def tell(what: int, pair: int, number: int, *fds: int) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: the end of the socket comes next
            socket.send_fds(control, [_TOLD.pack(what, pair, number)], fds)

    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != fd:
                pid, pair = children.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                tell(_ENDED, pair, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            try:
                data, fds, _, _ = socket.recv_fds(control, 1 << 16, 1)
            except ConnectionResetError:
                data = b""  # it has not read all that was told
            if not data:
                os._exit(0)
            pair, path = pickle.loads(data)
            pid = 0
            try:
                given = fds[0]  # lost, if there are no descriptors left
                pid = os.fork()
                if pid == 0:
                    _become(control, children, given, pair, path, _worker.main)
                child = os.pidfd_open(pid)
            except (OSError, IndexError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                tell(_NOT_STARTED, pair, _NO_FORK)
                continue
            finally:
                for given in fds:
                    os.close(given)
            children[child] = (pid, pair)
            poll.register(child, select.POLLIN)
            tell(_STARTED, pair, pid, child)


def _become(control: socket.socket, siblings: Iterable[int], fd: int, pair: int, path: list[str], main: Any) -> None:
    """In the child: the worker, to its end."""
    status = 1
    try:
        control.close()
        for pidfd in siblings:
            os.close(pidfd)
        sys.path[:] = path
        main(fd, pair)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

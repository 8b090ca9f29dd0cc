"""How a worker process comes to be, and how it went: started anew, or forked from a server that has no threads."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from typing import Any

from goslings import _threads
from goslings._goslings import Event, go, wait_fd

__all__ = ["ForkServer", "Forked", "Spawned", "told"]


def command(code: str) -> list[str]:
    """The command line of an interpreter like this one that runs `code`."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # private: no stub
    return [sys.executable, *flags, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]


def told(status: int) -> str:
    """An exit status, as `subprocess` gives it, in words."""
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
        self._pidfd = os.pidfd_open(self.pid)
        self._lock = _threads.lock()

    def wait(self, timeout: float | None) -> int | None:
        """Its exit status, once it has ended; None after `timeout` seconds. For one goroutine, until it is told."""
        if not wait_fd(self._pidfd, False, timeout):
            return None
        with self._lock:
            os.close(self._pidfd)
            self._pidfd = -1
            return self._process.wait()

    def kill(self) -> None:
        """Kills it, if it lives."""
        with self._lock:
            if self._pidfd >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class Forked:
    """A worker process that a server has forked."""

    def __init__(self, server: ForkServer, fd: int, pair: int) -> None:
        self.pid = 0
        self.status: int | None = None
        self.started = Event()
        self.ended = Event()
        server.fork(self, fd, pair)

    def wait(self, timeout: float | None) -> int | None:
        """As `Spawned.wait`."""
        return self.status if self.ended.wait(timeout) else None

    def kill(self) -> None:
        """As `Spawned.kill`."""
        self.started.wait(10)
        if self.pid and not self.ended.is_set():
            # The server reaps it after it has told us: until then the number is its own.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


_TOLD = struct.Struct("<Bqi")
"""What the server tells: started (0) or ended (1), the worker's pair, and its pid or status."""


class ForkServer:
    """A process that has imported goslings, and forks workers on demand."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from goslings.processes._spawn import serve; serve({theirs.fileno()})"
            self._process = start(code, theirs.fileno())
        self._socket = ours
        self._socket.setblocking(False)
        self._lock = _threads.lock()
        self._workers: dict[int, Forked] = {}
        go(self._read).name = "goslings.processes fork server"

    def fork(self, worker: Forked, fd: int, pair: int) -> None:
        """Asks for a worker."""
        self._workers[pair] = worker
        with self._lock:
            socket.send_fds(self._socket, [pickle.dumps((pair, sys.path))], [fd])

    def close(self) -> None:
        """The server ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(_TOLD.size)
            except BlockingIOError:
                wait_fd(self._socket.fileno(), False)
                continue
            except OSError:
                data = b""
            if not data:
                break
            ended, pair, number = _TOLD.unpack(data)
            worker = self._workers[pair]
            if ended:
                del self._workers[pair]
                worker.status = number
                worker.ended.set()
            else:
                worker.pid = number
                worker.started.set()
        for worker in self._workers.values():
            # It has lost its parent; its link tells the rest.
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            worker.status = -signal.SIGKILL
            worker.started.set()
            worker.ended.set()
        self._socket.close()


def serve(fd: int) -> None:
    """The server: one thread, no goroutine; forks until its socket ends."""
    import select

    from goslings.processes import _worker

    own_interrupts()
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready != fd:
                pid, pair = children.pop(ready)
                # Told first: while it is a zombie nobody else gets its number.
                status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                assert status is not None
                code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
                with contextlib.suppress(OSError):
                    control.send(_TOLD.pack(1, pair, code))
                poll.unregister(ready)
                os.close(ready)
                os.waitpid(pid, 0)
                continue
            data, fds, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not data:
                os._exit(0)
            pair, path = pickle.loads(data)
            pid = os.fork()
            if pid == 0:
                _become(control, fds[0], pair, path, _worker.main)
            os.close(fds[0])
            child = os.pidfd_open(pid)
            children[child] = (pid, pair)
            poll.register(child, select.POLLIN)
            control.send(_TOLD.pack(0, pair, pid))


def _become(control: socket.socket, fd: int, pair: int, path: list[str], main: Any) -> None:
    """In the child: the worker, to its end."""
    status = 1
    try:
        control.close()
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

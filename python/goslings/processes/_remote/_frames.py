"""Frames: what both sides send each other once they know who they are.

    | length of the body, 4 bytes, big-endian | seal, 16 bytes | body |

The seal is BLAKE2b, keyed with the key of its direction, over the frame's number, its length, and the body, of which a
large one is represented by its SHA-256: processors have instructions for that. Frames are counted from 0, so that none
can be changed, left out, repeated or exchanged on the way. Within TLS, too: it costs a microsecond, and then nothing
depends on how certificates were checked. It hides nothing; TLS does.

Who sends never waits: the frame goes to a queue, and whoever finds nobody sending sends what is queued, as far as
there is room without waiting. What is left is sent by a goroutine of its own. So a caller that is cancelled never
leaves half a frame behind, frames that come together go with one system call, and asyncio tasks can send. `_turn` says
who sends: one at a time. If a signal ends what the main thread was sending, nobody knows how far it came, so that ends
the connection; a lock would stay locked instead.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from hashlib import blake2b, sha256
from hmac import compare_digest

from goslings._goslings import AtomicInt, Conn, Event, go
from goslings.processes._signals import is_interruptible

__all__ = ["FrameError", "Frames"]

_HEAD = struct.Struct(">I16s")
_NUMBER = struct.Struct(">QI")
_LARGE = 1024
_SEAL = 16
_BATCH = 256 * 1024
"""About so many bytes are sealed and sent in one go."""
_HELD_MAX = 4 * 1024 * 1024
"""While more bytes than this wait to be sent, a server begins no calls."""
_PIECE = 1024 * 1024
_NOBODY, _SOMEBODY, _MAIN_THREAD = range(3)
"""Who sends."""
STALLED = 60.0
"""Who takes less than `_PIECE` bytes in so many seconds is taken for gone, where that is asked for."""


class FrameError(ConnectionError):
    """What came is no frame that the other side has sealed, or is too large."""


def _seal(keyed: blake2b, number: int, body: bytes) -> bytes:
    seal = keyed.copy()
    seal.update(_NUMBER.pack(number, len(body)))
    seal.update(body if len(body) < _LARGE else sha256(body).digest())
    return seal.digest()


class Frames:
    """The frames of one connection. One goroutine reads; anybody sends."""

    def __init__(self, wire: Conn, send_key: bytes, recv_key: bytes, limit: int, *, impatient: bool) -> None:
        self._wire = wire
        self._impatient = impatient
        self._some = wire._try_send if type(wire) is Conn else None
        self._sealing = blake2b(key=send_key, digest_size=_SEAL)
        self._checking = blake2b(key=recv_key, digest_size=_SEAL)
        self._sent = self._received = 0
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._turn = AtomicInt(_NOBODY)
        self._asked: Event | None = None
        """Set when the turn is over, if somebody waits for that."""
        self._held = AtomicInt()
        self._room = Event()
        self._room.set()
        self.failure: BaseException | None = None

    def read(self) -> bytes:
        """The body of the next frame. Blocks. Raises FrameError, EOFError, OSError."""
        length, seal = _HEAD.unpack(self._wire.read_exactly(_HEAD.size))
        if length > self._limit:
            raise FrameError(f"a frame of {length} bytes: at most {self._limit} are taken")
        body = self._wire.read_exactly(length)
        if not compare_digest(_seal(self._checking, self._received, body), seal):
            raise FrameError("a frame that the other side has not sealed")
        self._received += 1
        return body

    def post(self, body: bytes) -> None:
        """Sends a frame, in its turn. Never blocks. What goes wrong, the reader is told: the connection is closed."""
        self._queue.append(body)
        self._held.add(len(body))
        if not is_interruptible():
            self._send_queued(_SOMEBODY)
            return
        try:
            self._send_queued(_MAIN_THREAD)
        except BaseException:
            if self._turn.load() == _MAIN_THREAD:
                go(self._give_back, ConnectionError("a signal has interrupted the main thread while it was sending"))
            raise

    def _send_queued(self, who: int) -> None:
        # Whoever has the turn looks again after giving it back; so of two, one sees what the other has queued.
        while self._queue and self._turn.compare_and_swap(_NOBODY, who):
            if not self._push():
                return
            self._give_back()

    def _give_back(self, error: BaseException | None = None) -> None:
        if error is not None:
            self._fail(error)
        self._turn.store(_NOBODY)
        # Whoever waits has put this up first, and looks at the turn then.
        if self._asked is not None:
            self._asked.set()

    def is_full(self) -> bool:
        """Whether who begins a call should wait for room."""
        return self._held.load() > _HELD_MAX and self.failure is None

    def wait_for_room(self) -> None:
        """Waits while the other side takes less than it is sent. Blocks."""
        while self._held.load() > _HELD_MAX and self.failure is None:
            # Whoever takes the sign down looks again, and puts it up if there is room: so it is never down for nothing.
            self._room.clear()
            if self._held.load() <= _HELD_MAX or self.failure is not None:
                self._room.set()
                return
            self._room.wait()

    def wait_sent(self, seconds: float | None) -> bool:
        """Waits until what was posted is with the system, or cannot be any more; returns whether that came."""
        end = None if seconds is None else time.monotonic() + seconds
        if self._asked is None:
            self._asked = Event()
        while True:
            self._asked.clear()
            self._send_queued(_SOMEBODY)
            if not self._queue and self._turn.load() == _NOBODY:
                return True
            if not self._asked.wait(None if end is None else max(0.0, end - time.monotonic())):
                return False

    def _batch(self) -> list[bytes]:
        """Seals what is queued, up to some size."""
        parts: list[bytes] = []
        size = 0
        while size < _BATCH:
            try:
                body = self._queue.popleft()
            except IndexError:
                break
            parts += (_HEAD.pack(len(body), _seal(self._sealing, self._sent, body)), body)
            self._sent += 1
            size += len(body) + _HEAD.size
            if self._held.add(-len(body)) <= _HELD_MAX:
                self._room.set()
        return parts

    def _push(self) -> bool:
        """Sends while that needs no waiting; returns whether the turn is to be given back. Has it."""
        try:
            while parts := self._batch():
                data = b"".join(parts)
                sent = 0 if self._some is None else self._some(data)
                if sent < len(data):
                    go(self._drain, memoryview(data)[sent:])
                    return False
        except Exception as error:  # of the network; or there was no memory for this, or no thread
            self._fail(error)
        return True

    def _drain(self, left: memoryview) -> None:
        """Sends the rest, waiting for room, and whatever is queued by then. Has the turn, and gives it back."""
        try:
            while left:
                for start in range(0, len(left), _PIECE):
                    self._wire.send(left[start : start + _PIECE], STALLED if self._impatient else None)
                left = memoryview(b"".join(self._batch()))
        except TimeoutError:
            self._fail(TimeoutError(f"the other side has taken nothing for {STALLED:g} s"))
        except Exception as error:
            self._fail(error)
        finally:
            self._give_back()
        self._send_queued(_SOMEBODY)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self._queue.clear()
        self._room.set()
        self._wire.close()

    def close(self) -> None:
        """Closes the connection: who reads fails with OSError. Never blocks."""
        self._fail(ConnectionError("it was closed here"))

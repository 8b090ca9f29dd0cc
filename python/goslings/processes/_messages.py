"""Messages between two processes: a small tuple whose first item says what it is, and buffers beside it.

Values of streams are records of their own kind, which Python code does not see (crates/goslings-py/src/stream.rs);
copies of what comes next are frames that Rust writes and reads (lease.rs beside it). Any other frame on the link is
the tuple's pickle. With buffers it is, after a zero, which no pickle begins with: the length of the pickle and the
number of buffers, the lengths of these, the pickle, and each buffer at a multiple of 64 bytes, so that arrays are
aligned where they are mapped.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["HEAD_MAX", "Lost", "decode", "encode", "head"]

# Kinds, and what follows in the tuple. `op` numbers an operation, among those of the side that began it.
OP = 1  # op, waits, cases: (channel, sends, payload) – begins a select, a send or a receive at the channels' home
CANCEL = 2  # op
ANSWER = 3  # op, index, ok, payload: index -1: cancelled; ok None: a send found the channel closed
FAILED = 4  # op, payload of an exception
TAKEN = 5  # op: what it received has arrived with whoever wanted it
UNDO = 6  # op: what it received goes back
RELEASE = 7  # channel, count: so many references to it are gone
ASK = 8  # op, channel, question
CALL = 9  # number, name, payload of (fn, args, kwargs), whether to wait for START
START = 16  # number
STOP = 10  # number, message: cancels the call
RESULT = 11  # number, how it ended, payload
READY = 12  # the worker has started; payload of its initializer's exception, or None
BYE = 13  # end when you have nothing to do
ANSWERED = 14  # op, the answer to a question
CREDIT = 17  # channel: a page with sends that need no answer comes with it (crates/goslings-py/src/credit.rs)
LEASE = 30  # channel: a page by which its values can be claimed comes with it (crates/goslings-py/src/lease.rs)
MORE = 32  # channel: values of it were claimed, look, and send more copies
COPIES = 2  # no tuple: a frame that begins with this byte (crates/goslings-py/src/lease.rs), copies of what comes next
INIT = 15  # payload of what a worker needs to know first

_HEAD = struct.Struct("<xxxxII")
_ALIGN = 64
HEAD_MAX = 1 << 18
"""In so many bytes of a frame is all of it but its buffers."""


class Lost(bytes):
    """Stands for a buffer that could not be had here."""


def encode(message: tuple[Any, ...], large: bool) -> list[Any]:
    """The parts of a frame. `large`: whether there may be buffers in it."""
    if not large:
        return [pickle.dumps(message, 5)]
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, 5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    parts: list[Any] = [_HEAD.pack(len(data), len(raw)) + struct.pack(f"<{len(raw)}Q", *(part.nbytes for part in raw))]
    parts.append(data)
    at = len(parts[0]) + len(data)
    for part in raw:
        gap = -at % _ALIGN
        if gap:
            parts.append(bytes(gap))
        parts.append(part)
        at += gap + part.nbytes
    return parts


def decode(frame: Any) -> tuple[Any, ...]:
    """The message of a frame. Raises ValueError, or what pickle raises, if it is none."""
    if frame[0]:
        small: tuple[Any, ...] = pickle.loads(frame)
        return small
    view = memoryview(frame)
    data, sizes, at = _head(view)
    buffers = []
    for size in sizes:
        at += -at % _ALIGN
        if at + size > view.nbytes:
            raise ValueError("a frame is shorter than it says")
        buffers.append(view[at : at + size])
        at += size
    message: tuple[Any, ...] = pickle.loads(data, buffers=buffers)
    return message


def head(frame: bytes) -> tuple[Any, ...]:
    """The message of which these are the first bytes, with `Lost` in place of its buffers."""
    if frame[0]:
        raise MemoryError("no room here for a message")
    data, sizes, _ = _head(memoryview(frame))
    message: tuple[Any, ...] = pickle.loads(data, buffers=[Lost()] * len(sizes))
    return message


def _head(view: memoryview) -> tuple[memoryview, Sequence[int], int]:
    """The pickle, the lengths of the buffers, and where these begin."""
    length, count = _HEAD.unpack_from(view)
    at = _HEAD.size
    sizes: Sequence[int] = struct.unpack_from(f"<{count}Q", view, at)
    at += 8 * count
    return view[at : at + length], sizes, at + length

"""Values on their way between processes: pickled when they are sent, with large buffers beside the pickle.

Most values are of plain types, which pickle's C code does alone. Everything else goes through cloudpickle, which also
takes functions, closures, lambdas and what `__main__` defines, and through our reducers: a channel becomes a reference
(_chan.py), and an object with a method `_goslings_reduce(fds)` says itself how it travels, and may add descriptors
to the list that travel with it.

Contiguous buffers that offer themselves (protocol 5: NumPy, Arrow) are not copied into the pickle. The link copies them
once, into memory that the other side maps.

A value that cannot be pickled is an error that names the place in it: `arg 0 .config['lock']: cannot pickle …`.
"""

from __future__ import annotations

import contextvars
import errno
import io
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cloudpickle

from goslings.processes import _messages

__all__ = ["Payload", "close", "dumps", "dumps_call", "dumps_whole", "is_large", "loads", "taken"]

Payload = tuple[Any, Sequence[Any], int]
"""A pickled value: the pickle, its buffers, and how many descriptors belong to it."""

PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
"""Types without parts, and without a way to fail."""

_FLAT = 64
"""So many parts are looked at to find out that they are plain."""

_LARGE = 1 << 16
"""From how many bytes on a pickle travels as a buffer of its own."""

Reducer = Callable[[Any], Any]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's, with what `reduce` says of an object first."""

    def __init__(
        self, file: io.BytesIO, buffers: list[pickle.PickleBuffer] | None, reduce: Reducer, fds: list[int] | None
    ) -> None:
        """None for `buffers`: they go into the pickle; for `fds`: nothing travels with it."""
        super().__init__(file, protocol=5, buffer_callback=None if buffers is None else buffers.append)
        self._reduce = reduce
        self._fds = fds

    def reducer_override(self, obj: Any) -> Any:
        reduced = self._reduce(obj)
        if reduced is not None:
            return reduced
        if self._fds is not None:
            own = getattr(type(obj), "_goslings_reduce", None)
            if own is not None:
                return own(obj, self._fds)
        return super().reducer_override(obj)


def dumps(value: Any, reduce: Reducer, where: str, fds: list[int]) -> Payload:
    """Pickles `value`; `where` is what an error calls it. Appends descriptors to `fds`.

    Never blocks, but for what the value's own methods do. Raises TypeError, PicklingError or what such a method raises,
    with the place in front.
    """
    if type(value) in PLAIN and (type(value) not in (bytes, str) or len(value) < _LARGE):
        return pickle.dumps(value, 5), (), 0
    if _is_flat(value):
        data = pickle.dumps(value, 5)
        if len(data) <= _LARGE:
            return data, (), 0
    # Not a bytearray: it may change before this is sent, if it has to wait.
    whole = _Whole(value) if type(value) is bytes else value
    return _dumps(whole, reduce, [(where, value)], fds)


def _is_flat(value: Any) -> bool:
    """Whether it is a short list, tuple or dict of plain values: pickle's C code alone takes that, ten times faster."""
    kind = type(value)
    if kind not in (dict, list, tuple) or len(value) > _FLAT or not PLAIN.issuperset(map(type, value)):
        return False
    return kind is not dict or PLAIN.issuperset(map(type, value.values()))


def dumps_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], reduce: Reducer, fds: list[int]) -> Payload:
    """The same for a call: the triple of these."""
    named = [("function", fn), *((f"arg {index}", arg) for index, arg in enumerate(args))]
    named += [(f"arg {name}", arg) for name, arg in kwargs.items()]
    wholes = {id(arg): _Whole(arg) for _, arg in named if type(arg) in (bytes, bytearray) and len(arg) >= _LARGE}
    args = tuple(wholes.get(id(arg), arg) for arg in args)
    kwargs = {name: wholes.get(id(arg), arg) for name, arg in kwargs.items()}
    return _dumps((fn, args, kwargs), reduce, named, fds)


class _Whole:
    """Long bytes, which are not copied into the pickle, but from where they are and once more into what they become."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def dumps_whole(value: Any, reduce: Reducer, named: list[tuple[str, Any]]) -> bytes:
    """Pickles `value` into one piece, for another machine. `named`: its parts, as errors call them."""
    file = io.BytesIO()
    try:
        _Pickler(file, None, reduce, None).dump(value)
    except Exception as error:
        _explain(named, reduce, error)
        raise
    return file.getvalue()


def _explain(named: list[tuple[str, Any]], reduce: Reducer, error: Exception) -> None:
    """Raises what names the part that cannot be pickled, if it is found."""
    for where, part in named:
        problem = _failure(part, reduce)
        if problem is not None:
            raise _told(part, reduce, where, problem) from error


def _dumps(value: Any, reduce: Reducer, named: list[tuple[str, Any]], fds: list[int]) -> Payload:
    file = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    before = len(fds)
    try:
        _Pickler(file, buffers, reduce, fds).dump(value)
    except Exception as error:
        del fds[before:]
        _explain(named, reduce, error)
        raise
    data: Any = pickle.PickleBuffer(file.getbuffer()) if file.tell() > _LARGE else file.getvalue()
    return data, buffers, len(fds) - before


def is_large(payload: Payload) -> bool:
    """Whether it has parts that should not be copied into a message."""
    return bool(payload[1]) or type(payload[0]) is pickle.PickleBuffer


def loads(payload: Payload, writable: bool, fds: list[int] | None = None) -> Any:
    """The value. `fds`: the descriptors that came with it; those that it has taken are -1 after that.

    `writable`: its buffers can be written.

    Raises what its parts raise; NoRoom, a MemoryError, if its buffers could not be mapped here.
    """
    data, buffers, _ = payload
    if not buffers and not fds and type(data) is bytes:
        return pickle.loads(data)
    if any(_is_lost(buffer) for buffer in (data, *buffers)):
        raise NoRoom(
            f"no room in process {os.getpid()} to map a large value: it needs address space (RLIMIT_AS, ulimit -v)"
        )
    if buffers and writable:
        # Those that came in mappings of our own are writable already.
        buffers = [bytearray(buffer) if memoryview(buffer).readonly else buffer for buffer in buffers]
    if not fds:
        return pickle.loads(data, buffers=buffers)
    token = _fds.set(fds)
    try:
        return pickle.loads(data, buffers=buffers)
    finally:
        _fds.reset(token)


class NoRoom(MemoryError):
    """A value has come, and cannot be had in this process."""


def is_for_want_of_room(error: BaseException) -> bool:
    """Whether a value could not be rebuilt because there are no descriptors or no memory for it here."""
    return isinstance(error, NoRoom) or isinstance(error, OSError) and error.errno in _SHORT_OF


_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def _is_lost(buffer: Any) -> bool:
    return type(buffer) is _messages.Lost or type(buffer) is memoryview and type(buffer.obj) is _messages.Lost


def taken(index: int) -> int:
    """For what `_goslings_reduce` names to make an object: the descriptor that was appended as this one.

    It is the object's own from now on, since there may be none left to copy it.
    """
    fds = _fds.get()
    fd, fds[index] = fds[index], -1
    return fd


def close(fds: Iterable[int]) -> None:
    """Closes descriptors that came with a value, but for those that were taken."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


_fds: contextvars.ContextVar[list[int]] = contextvars.ContextVar("goslings.processes fds")


# Where it is that cannot be pickled


def _failure(value: Any, reduce: Reducer) -> Exception | None:
    try:
        _Pickler(io.BytesIO(), [], reduce, []).dump(value)
    except Exception as error:
        return error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, and how they are written behind its name."""
    if hasattr(type(value), "_goslings_remote"):
        return  # a proxy: what it is made of is nobody's business
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
            yield f" key {key!r}", key
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield f" item {part!r}", part
    function = getattr(value, "__func__", value)
    if hasattr(function, "__code__"):
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=False):
            try:
                yield f" closure {name}", cell.cell_contents
            except ValueError:
                continue
        for name in function.__code__.co_names:
            if name in function.__globals__:
                yield f" global {name}", function.__globals__[name]
        for index, part in enumerate(function.__defaults__ or ()):
            yield f" default {index}", part
    if isinstance(value, BaseException):
        yield ".args", value.args
    if function is not value:
        yield ".__self__", value.__self__
    if hasattr(value, "func") and hasattr(value, "args"):  # functools.partial
        yield ".func", value.func
        yield ".args", value.args
        yield ".keywords", getattr(value, "keywords", None)
    if not isinstance(value, type):
        for name, part in dict(getattr(value, "__dict__", None) or {}).items():
            yield f".{name}", part
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    yield f".{name}", getattr(value, name)


def _told(value: Any, reduce: Reducer, where: str, error: Exception) -> Exception:
    """The error, with the path to the part that it is about."""
    path: list[str] = []
    seen = {id(value)}
    for _ in range(50):
        for name, part in _parts(value):
            if type(part) in PLAIN or id(part) in seen:
                continue
            inner = _failure(part, reduce)
            if inner is not None:
                seen.add(id(part))
                path.append(name)
                value, error = part, inner
                break
        else:
            break
    place = "".join(path)
    separator = " " if place[:1] == "." else ""
    kind = type(error) if type(error) in (TypeError, pickle.PicklingError, AttributeError, ValueError) else TypeError
    return kind(f"{where}{separator}{place}: {_text(value, error)}")


def _text(value: Any, error: Exception) -> str:
    text = str(error)
    return text if text.startswith("cannot pickle") else f"cannot pickle {type(value).__qualname__!r} object: {text}"

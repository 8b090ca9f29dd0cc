"""Numbers that processes share: `Value`, `Array`, and their lock. (`SharedArray` is in _shared_array.py.)

Each lies in a segment of shared memory (`_goslings.Segment`) and is pickled by reference: what comes out elsewhere is
the same memory. Through a place the segment's descriptor travels, so the memory lives as long as anybody has it.
Pickled in any other way (`multiprocessing`, joblib), it is found by the process that pickled it, which has to have it
until it is unpickled.

A lock is a word in the same memory, which names the process that holds it. Goroutines and threads of one process agree
by a lock of their own before they ask for the word; so who waits for another process is one at a time, and parks: a
thread of `blocking` sleeps for it.
"""

from __future__ import annotations

import ctypes
import math
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from goslings._blocking import blocking
from goslings._goslings import RLock, Segment, _can_park

__all__ = ["Array", "SharedLock", "Value", "received_segment", "segment_of"]

_LOCK_BYTES = 64
"""The lock lies first, with a cache line for itself."""
_LOOK_SECONDS = 0.1
"""So often who waits for a lock looks whether its holder still lives."""


def received_segment(index: int, readonly: bool) -> Segment:
    """The segment whose descriptor came as this one with a message of a place."""
    from goslings.processes import _pickle

    return Segment.from_fd(_pickle.taken(index), readonly=readonly)


def segment_of(obj: object) -> Segment | None:
    """The shared memory in which `obj` lies, or None."""
    segment = getattr(obj, "_segment", None)
    return segment if isinstance(segment, Segment) else None


# The lock


class SharedLock:
    """A lock that goroutines and threads of several processes share; whoever holds it may take it again.

    Made by `Value` and `Array`. As a context manager it locks and unlocks. If the process that holds it dies, the next
    one gets it, with a RuntimeWarning: what the lock protects may be half changed.
    """

    __slots__ = ("_at", "_here", "_segment")

    def __init__(self, segment: Segment, at: int = 0) -> None:
        self._segment = segment
        self._at = at
        self._here = RLock()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Locks; returns whether it did. Blocks while somebody else holds it, at most `timeout` seconds; with
        `block=False` not at all.
        """
        limit = math.inf if timeout is None else time.monotonic() + max(timeout, 0.0)
        wait = -1.0 if timeout is None else max(timeout, 0.0)
        if not (self._here.acquire(True, wait) if block else self._here.acquire(False)):
            return False
        taken = False
        try:
            taken = self._here._recursion_count() > 1 or self._take(limit if block else -math.inf)
        finally:
            if not taken:
                self._here.release()
        return taken

    def _take(self, limit: float) -> bool:
        segment, at, slept = self._segment, self._at, False
        while not segment._try_lock(at, slept):
            dead = segment._take_from_dead(at)
            if dead is not None:
                self._warn(dead)
                return True
            left = limit - time.monotonic()
            if left <= 0:
                return False
            pause = min(left, _LOOK_SECONDS)
            if _can_park():
                blocking(segment._wait_lock, at, pause)
            else:
                segment._wait_lock(at, pause)
            slept = True
        return True

    def _warn(self, dead: int) -> None:
        try:
            text = f"process {dead} died while it held this lock: what it protects may be half changed"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        except RuntimeWarning:
            self._segment._unlock(self._at)
            raise

    def release(self) -> None:
        """Unlocks. Raises RuntimeError (AssertionError's place in `multiprocessing`) if the caller does not hold it."""
        if self._here._recursion_count() == 1:
            self._segment._unlock(self._at)
        self._here.release()

    def holder(self) -> int | None:
        """The number of the process that holds it, or None; as of now."""
        return self._segment._lock_holder(self._at)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedLock, (self._segment, self._at)

    def __repr__(self) -> str:
        holder = self.holder()
        return f"<SharedLock, {'free' if holder is None else f'held by process {holder}'}>"


# Numbers

_TYPES: dict[str, Any] = {
    "c": ctypes.c_char, "u": ctypes.c_wchar,
    "b": ctypes.c_byte, "B": ctypes.c_ubyte, "h": ctypes.c_short, "H": ctypes.c_ushort,
    "i": ctypes.c_int, "I": ctypes.c_uint, "l": ctypes.c_long, "L": ctypes.c_ulong,
    "q": ctypes.c_longlong, "Q": ctypes.c_ulonglong, "f": ctypes.c_float, "d": ctypes.c_double,
}  # fmt: skip
"""The types of `multiprocessing`, by their codes."""


def _type_of(typecode_or_type: Any) -> Any:
    try:
        return _TYPES.get(typecode_or_type, typecode_or_type)
    except TypeError:
        return typecode_or_type


def _room(size: int) -> Segment:
    return Segment(_LOCK_BYTES + max(size, 1))


class _Shared:
    """What `Value` and `Array` have in common: a ctypes object in a segment, and perhaps a lock."""

    __slots__ = ("__weakref__", "_lock", "_obj", "_segment", "_type")

    _lock: Any
    _obj: Any
    _segment: Segment
    _type: Any

    def _lie(self, segment: Segment, kind: Any, lock: Any) -> None:
        self._segment, self._type = segment, kind
        self._obj = kind.from_buffer(segment, _LOCK_BYTES)
        self._lock = SharedLock(segment) if lock is True else lock

    def get_obj(self) -> Any:
        """The ctypes object, to be used without the lock or while holding it."""
        return self._obj

    def get_lock(self) -> Any:
        """The lock: a SharedLock, or what was given as `lock`."""
        if self._lock is False:
            raise AttributeError("made without a lock")
        return self._lock

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """As `get_lock().acquire`."""
        taken: bool = self.get_lock().acquire(block, timeout)
        return taken

    def release(self) -> None:
        """As `get_lock().release`."""
        self.get_lock().release()

    def __enter__(self) -> Any:
        return self.get_lock().__enter__()

    def __exit__(self, *args: Any) -> Any:
        return self.get_lock().__exit__(*args)

    def _lock_to_pickle(self) -> Any:
        """True: the one that lies with it."""
        own = isinstance(self._lock, SharedLock) and self._lock._segment is self._segment
        return True if own else self._lock

    def _locked(self) -> Any:
        return _NO_LOCK if self._lock is False else self._lock


class _NoLock:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NO_LOCK = _NoLock()


def _number(kind: Any) -> str:
    """The typecode of a number that can be changed in one step."""
    code = getattr(kind, "_type_", None)
    if not isinstance(code, str) or code not in "bBhHiIlLqQfd":
        raise TypeError(f"no atomic operations on {kind.__name__}")
    return code


class Value(_Shared):
    """Value(typecode_or_type, *args, lock=True): a number, or any ctypes object, that processes share.

    As `multiprocessing.Value`: `.value` (or the fields of a structure) under the lock, `get_lock()`, `get_obj()`,
    `acquire`, `release`; zero unless `args` say otherwise. `lock`: True, False, or a lock. Besides, `add`, `swap` and
    `compare_and_swap` change an integer or float in one step, without the lock. Pickled by reference.
    """

    __slots__ = ()

    def __init__(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> None:
        kind = _type_of(typecode_or_type)
        _check_lock(lock)
        self._lie(_room(ctypes.sizeof(kind)), kind, lock)
        if args:
            self._obj.__init__(*args)

    @property
    def value(self) -> Any:
        """What it is, read and written under the lock, which blocks while somebody else holds that."""
        with self._locked():
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._locked():
            self._obj.value = value

    def add(self, delta: Any = 1) -> Any:
        """Adds `delta` in one step and returns the new value; integers wrap around. Never blocks, and ignores the lock.

        Raises TypeError if it is no number, OverflowError if `delta` does not fit.
        """
        return self._segment._add(_LOCK_BYTES, _number(self._type), delta)

    def swap(self, value: Any) -> Any:
        """Sets it in one step and returns what it was. Else as `add`."""
        return self._segment._swap(_LOCK_BYTES, _number(self._type), value)

    def compare_and_swap(self, old: Any, new: Any) -> bool:
        """Sets it to `new` if it is `old`, in one step; returns whether it was. Else as `add`."""
        return self._segment._compare_and_swap(_LOCK_BYTES, _number(self._type), old, new)

    def __getattr__(self, name: str) -> Any:
        # A structure's fields. Not called for what the class has.
        if name not in {field[0] for field in getattr(self._type, "_fields_", ())}:
            raise AttributeError(f"a Value of {self._type.__name__} has no {name!r}")
        with self._locked():
            return getattr(self._obj, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name != "value":
            with self._locked():
                setattr(self._obj, name, value)
        else:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _value, (self._segment, self._type, self._lock_to_pickle())

    def __repr__(self) -> str:
        return f"<Value {self._obj!r}>"


class Array(_Shared):
    """Array(typecode_or_type, size_or_initializer, *, lock=True): numbers that processes share.

    As `multiprocessing.Array`: indices and slices, iteration, `len` under the lock, `get_lock()`, `get_obj()`, and
    `.value` and `.raw` of characters; zeros unless an initializer says otherwise. Besides, `add`, `swap` and
    `compare_and_swap` change one number in one step, without the lock. Pickled by reference.
    """

    __slots__ = ()

    def __init__(self, typecode_or_type: Any, size_or_initializer: int | Iterable[Any], *, lock: Any = True) -> None:
        element = _type_of(typecode_or_type)
        _check_lock(lock)
        if isinstance(size_or_initializer, int):
            if size_or_initializer < 0:
                raise ValueError("an array has no negative length")
            values: list[Any] | None = None
            kind = element * size_or_initializer
        else:
            values = list(size_or_initializer)
            kind = element * len(values)
        self._lie(_room(ctypes.sizeof(kind)), kind, lock)
        if values:
            self._obj[:] = values

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, index: int | slice) -> Any:
        with self._locked():
            return self._obj[index]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        with self._locked():
            self._obj[index] = value

    def __getslice__(self, start: int, stop: int) -> Any:
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        self[start:stop] = values

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self)):
            yield self[index]

    @property
    def value(self) -> Any:
        """The characters up to the first zero; of an array of `c` or `u`. Else AttributeError."""
        with self._locked():
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._locked():
            self._obj.value = value

    @property
    def raw(self) -> Any:
        """All bytes of an array of `c`. Else AttributeError."""
        with self._locked():
            return self._obj.raw

    @raw.setter
    def raw(self, value: Any) -> None:
        with self._locked():
            self._obj.raw = value

    def add(self, index: int, delta: Any = 1) -> Any:
        """Adds `delta` to one number in one step and returns the new one; integers wrap around. Never blocks, and
        ignores the lock.

        Raises IndexError, TypeError if these are no numbers, OverflowError if `delta` does not fit.
        """
        return self._segment._add(self._place(index), _number(self._type._type_), delta)

    def swap(self, index: int, value: Any) -> Any:
        """Sets one number in one step and returns what it was. Else as `add`."""
        return self._segment._swap(self._place(index), _number(self._type._type_), value)

    def compare_and_swap(self, index: int, old: Any, new: Any) -> bool:
        """Sets one number to `new` if it is `old`, in one step; returns whether it was. Else as `add`."""
        return self._segment._compare_and_swap(self._place(index), _number(self._type._type_), old, new)

    def _place(self, index: int) -> int:
        length = len(self._obj)
        if not -length <= index < length:
            raise IndexError("invalid index")
        return _LOCK_BYTES + index % length * ctypes.sizeof(self._type._type_)

    def __reduce__(self) -> tuple[Any, ...]:
        return _array, (self._segment, self._type._type_, len(self), self._lock_to_pickle())

    def __repr__(self) -> str:
        return f"<Array of {len(self)} {self._type._type_.__name__}>"


def _check_lock(lock: Any) -> None:
    if not isinstance(lock, bool) and not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")


def _value(segment: Segment, kind: Any, lock: Any) -> Value:
    value = Value.__new__(Value)
    value._lie(segment, kind, lock)
    return value


def _array(segment: Segment, element: Any, length: int, lock: Any) -> Array:
    array = Array.__new__(Array)
    array._lie(segment, element * length, lock)
    return array

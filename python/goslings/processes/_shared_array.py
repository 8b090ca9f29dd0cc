"""`SharedArray`: a NumPy array whose memory processes share. Imported when it is used, since NumPy may not be there."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from goslings._goslings import Segment

__all__ = ["SharedArray", "shared_array"]


class SharedArray(np.ndarray[Any, Any]):
    """SharedArray(shape, dtype=float, order="C"): a NumPy array of zeros in shared memory.

    Pickled, it is the same memory elsewhere, as are views of it (slices, transposed). What is computed from it is an
    ordinary array; a copy is an ordinary one in all but type, and is pickled by value. The memory is free when no
    process has an array in it any more. Nothing keeps those who write at the same time apart.

    Raises TypeError for a dtype with Python objects in it, MemoryError and OSError (ENOSPC, EFBIG, EMFILE) if there is
    no memory.
    """

    _segment: Segment | None
    _start: int

    def __new__(cls, shape: Any, dtype: npt.DTypeLike = float, order: Any = "C") -> Self:
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"objects cannot lie in shared memory: dtype {dtype}")
        sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        if any(size < 0 for size in sizes):
            raise ValueError("negative dimensions are not allowed")
        segment = Segment(max(1, math.prod(map(int, sizes)) * dtype.itemsize))
        array = super().__new__(cls, sizes, dtype, segment, 0, None, order)
        array._lie(segment)
        return array

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Self:
        """A copy of `array` in shared memory."""
        values = np.asarray(array)
        made = cls(values.shape, values.dtype)
        made[...] = values
        return made

    @property
    def shared(self) -> bool:
        """Whether it lies in shared memory, and is pickled by reference."""
        return self._segment is not None

    def _lie(self, segment: Segment) -> None:
        self._segment = segment
        self._start = np.frombuffer(segment, np.uint8).__array_interface__["data"][0]

    def __array_finalize__(self, obj: Any) -> None:
        segment = getattr(obj, "_segment", None)
        self._segment = None
        if segment is None or self.flags.owndata:
            return
        at = self.__array_interface__["data"][0] - obj._start
        if 0 <= at <= segment.size:
            self._segment, self._start = segment, obj._start

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if isinstance(array, SharedArray):
            return array
        return array[()] if return_scalar else np.asarray(array)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._segment is None:
            return np.asarray(self).__reduce_ex__(protocol)
        at = self.__array_interface__["data"][0] - self._start
        return _rebuilt, (self._segment, at, self.shape, self.strides, self.dtype, self.flags.writeable)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


def _rebuilt(
    segment: Segment, at: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, writeable: bool
) -> SharedArray:
    array: SharedArray = np.ndarray.__new__(SharedArray, shape, dtype, segment, at, strides)
    array._lie(segment)
    array.flags.writeable = writeable and not segment.readonly
    return array


def shared_array(shape: Any, dtype: npt.DTypeLike = float) -> SharedArray:
    """A `SharedArray` of zeros."""
    return SharedArray(shape, dtype)

"""`goslings.processes`: `Value`, `Array` and `SharedArray`, memory that processes share."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import goslings
import pytest
from goslings import go
from goslings._goslings import Segment
from goslings.processes import Array, Value
from goslings.processes._shared import SharedLock, segment_of
from helpers import check_child, count, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is made of Linux's memory files")

SECONDS = 60.0


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


@contextlib.contextmanager
def child(run: Callable[[], object]) -> Iterator[int]:
    """A forked process that runs `run`; it has ended well, or was killed, by the end of the block."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            run()
            status = 0
        os._exit(status)
    yield pid
    assert os.waitpid(pid, 0)[1] in (0, signal.SIGKILL)


def there_and_back(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


# Value


def test_a_value_is_what_multiprocessing_makes_of_it() -> None:
    for code, start, other in [
        ("i", 7, -1),
        ("d", 3.5, 4.25),
        ("h", -232, 1),
        ("c", b"x", b"y"),
        (ctypes.c_bool, True, False),
    ]:
        value = Value(code, start)
        assert value.value == start
        value.value = other
        assert value.value == other and value.get_obj().value == other
    assert Value("q").value == 0
    with pytest.raises(TypeError):
        Value("i", "text")
    with pytest.raises(AttributeError, match="acquire"):
        Value("i", 1, lock="navalue")


def test_a_structure_has_its_fields() -> None:
    point = Value(Point, 3, 4.0)
    point.x += 5
    assert (point.x, point.y) == (8, 4.0)
    again = there_and_back(point)
    again.y = 2.5
    assert point.y == 2.5
    with pytest.raises(AttributeError, match="no 'z'"):
        _ = point.z


def test_numbers_change_in_one_step() -> None:
    for code in "bBhHiIlLqQ":
        value = Value(code, 5)
        assert (value.add(), value.add(3), value.swap(2), value.value) == (6, 9, 9, 2)
        assert not value.compare_and_swap(5, 6)
        assert value.compare_and_swap(2, 7) and value.value == 7
    for code in "fd":
        value = Value(code, 0.5)
        assert (value.add(0.25), value.swap(8.0), value.value) == (0.75, 0.75, 8.0)
        assert value.compare_and_swap(8.0, -0.0) and value.compare_and_swap(0.0, float("nan"))
        assert value.compare_and_swap(float("nan"), 1.0) and value.value == 1.0


def test_integers_wrap_and_what_does_not_fit_is_refused() -> None:
    small = Value("b", 127)
    assert small.add(1) == -128
    assert Value("Q", 0).add(0) == 0
    for wrong in (128, -129, 1 << 70):
        with pytest.raises(OverflowError):
            small.add(wrong)
    with pytest.raises(OverflowError):
        Value("Q").add(-1)
    with pytest.raises(TypeError):
        small.add("1")
    for code in ("c", Point, ctypes.c_bool):
        with pytest.raises(TypeError, match="no atomic operations"):
            Value(code).add(1)


def test_a_value_is_the_same_in_other_processes() -> None:
    value = Value("i", 1)
    with child(lambda: value.add(41)):
        pass
    assert value.value == 42
    sent = pickle.dumps(value)
    with child(lambda: setattr(pickle.loads(sent), "value", 43)):
        pass
    assert value.value == 43


def test_processes_count_together() -> None:
    total, each, processes = Value("q"), count(20_000), 3
    locked = Value("q")

    def add() -> None:
        for _ in range(each):
            total.add()
        for _ in range(each // 20):
            with locked:
                locked.get_obj().value += 1

    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            stack.enter_context(child(add))
    assert total.value == processes * each
    assert locked.value == processes * (each // 20)


def test_pickled_after_its_end_it_is_not_there() -> None:
    sent = pickle.dumps(Value("i"))
    gc.collect()
    with pytest.raises(OSError, match="shared memory"):
        pickle.loads(sent)


# Array


def test_an_array_is_what_multiprocessing_makes_of_it() -> None:
    array = Array("i", 5)
    assert list(array) == [0] * 5 and len(array) == 5
    array[0] = 3
    array[2:4] = [10, 20]
    assert array[:] == [3, 0, 10, 20, 0] and array[-2] == 20 and array[1:3] == [0, 10]
    assert list(Array("d", [1.5, 2.5])) == [1.5, 2.5]
    for index in (5, -6):
        with pytest.raises(IndexError):
            array[index]
    text = Array("c", 10)
    text.value = b"hello"
    assert text.value == b"hello" and text.raw == b"hello" + bytes(5)
    assert len(Array("i", 0)) == 0 and len(Array(Point, 3)) == 3
    with pytest.raises(ValueError, match="negative"):
        Array("i", -1)


def test_numbers_of_an_array_change_in_one_step() -> None:
    array = Array("h", [1, 2, 3])
    assert (array.add(0), array.add(-1, 7), array.swap(1, 9)) == (2, 10, 2)
    assert array.compare_and_swap(1, 9, 4) and not array.compare_and_swap(1, 9, 5)
    assert array[:] == [2, 4, 10]
    for index in (3, -4):
        with pytest.raises(IndexError):
            array.add(index)
    with pytest.raises(TypeError, match="no atomic operations"):
        Array("c", 1).add(0, 1)


def test_an_array_is_the_same_in_other_processes() -> None:
    array = Array("d", range(4))
    sent = pickle.dumps(array)
    with child(lambda: pickle.loads(sent).add(2, 0.5)):
        pass
    assert array[:] == [0.0, 1.0, 2.5, 3.0]


# Locks


def test_a_lock_may_be_taken_again_by_who_has_it() -> None:
    value = Value("i")
    with value.get_lock():
        assert value.get_lock().acquire(timeout=0)
        value.value += 1
        assert not go(value.acquire, False).result(SECONDS)
        assert not go(value.acquire, True, 0.01).result(SECONDS)
        value.release()
    assert go(value.acquire, False).result(SECONDS) is True
    with pytest.raises(RuntimeError):
        value.release()


def test_without_a_lock_there_is_none() -> None:
    value, array = Value("i", 3, lock=False), Array("i", [3], lock=False)
    for shared in (value, array, there_and_back(value)):
        with pytest.raises(AttributeError):
            shared.get_lock()
    assert value.value == array[0] == 3


def test_two_values_can_have_one_lock() -> None:
    one = Value("i")
    other = Value("i", lock=one.get_lock())
    with one:
        assert not go(other.acquire, False).result(SECONDS)
    again = there_and_back(other)
    with one:
        assert not go(again.acquire, False).result(SECONDS)
    own = threading.RLock()
    assert Value("i", lock=own).get_lock() is own


def test_who_waits_for_another_process_parks(one_worker: None) -> None:
    value, reader = Value("i"), os.pipe()

    def hold() -> None:
        with value:
            os.write(reader[1], b"x")
            until(lambda: value.get_obj().value == 1)
            value.get_obj().value = 2

    with child(hold):
        os.read(reader[0], 1)
        assert value.get_lock().holder() not in (None, os.getpid())

        def wait() -> int:
            with value:
                return int(value.get_obj().value)

        waiting = go(wait)
        # The only worker is free for others meanwhile.
        assert go(lambda: "free").result(SECONDS) == "free"
        assert not value.acquire(False)
        assert not waiting.done()
        value.get_obj().value = 1
        assert waiting.result(SECONDS) == 2
    for fd in reader:
        os.close(fd)


def test_cancelled_waits_for_a_lock_do_not_take_it() -> None:
    value = Value("i")
    held = there_and_back(value)
    with held:
        waiting = go(value.acquire)
        until(lambda: "running" not in repr(waiting))
        waiting.cancel()
        assert waiting.join(SECONDS)
    assert waiting.cancelled()
    assert value.acquire(timeout=SECONDS)
    value.release()


def test_a_lock_outlives_its_holder() -> None:
    value, reader = Value("i"), os.pipe()

    def die() -> None:
        value.acquire()
        os.write(reader[1], b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    with child(die) as pid:
        os.read(reader[0], 1)
        with pytest.warns(RuntimeWarning, match=f"process {pid} died while it held this lock"):
            assert go(value.acquire, True, SECONDS).result(SECONDS)
        # It is held by the goroutine above, which has ended without giving it back.
        assert value.get_lock().holder() == os.getpid()
    for fd in reader:
        os.close(fd)


def test_a_warning_that_raises_leaves_the_lock_free() -> None:
    value = Value("i")

    with child(lambda: (value.acquire(), os.kill(os.getpid(), signal.SIGKILL))):
        until(lambda: value.get_lock().holder() is not None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Its last breath may take a while.
            with pytest.raises(RuntimeWarning):
                value.acquire(timeout=SECONDS)
        assert value.acquire(timeout=0)
        value.release()


def test_processes_that_are_killed_while_they_hold_it_hold_up_nobody() -> None:
    value = Value("q")

    def work() -> None:
        warnings.simplefilter("ignore")
        while True:
            with value:
                value.get_obj().value += 1

    for _ in range(count(5)):
        before = value.get_obj().value
        with child(work) as one, child(work) as other:
            until(lambda before=before: value.get_obj().value > before + 100)  # type: ignore[misc]
            os.kill(one, signal.SIGKILL)
            between = value.get_obj().value
            until(lambda between=between: value.get_obj().value > between + 100)  # type: ignore[misc]
            os.kill(other, signal.SIGKILL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert value.acquire(timeout=SECONDS)
        value.release()


def test_a_lock_says_who_holds_it() -> None:
    lock = SharedLock(Segment(64))
    assert repr(lock) == "<SharedLock, free>"
    with lock:
        assert repr(lock) == f"<SharedLock, held by process {os.getpid()}>"
    assert repr(Value("i", 3)) == "<Value c_int(3)>" and repr(Array("i", 3)) == "<Array of 3 c_int>"


# SharedArray


@pytest.fixture(scope="module")
def np() -> Any:
    return pytest.importorskip("numpy", reason="NumPy is not installed here")


def test_a_shared_array_is_an_array_of_zeros(np: Any) -> None:
    from goslings.processes import SharedArray, shared_array

    array = shared_array((3, 4), "f4")
    assert type(array) is SharedArray and array.shape == (3, 4) and array.dtype == np.float32 and array.shared
    assert not array.any()
    assert shared_array(5).dtype == np.float64 and shared_array(0).shape == (0,) and shared_array(()).shape == ()
    copied = SharedArray.of([[1, 2], [3, 4]])
    assert copied.tolist() == [[1, 2], [3, 4]] and copied.shared
    with pytest.raises(TypeError, match="objects"):
        shared_array(3, object)
    with pytest.raises(ValueError, match="negative"):
        shared_array((2, -1))
    with pytest.raises(MemoryError):
        shared_array(1 << 50)


def test_an_array_and_its_views_are_pickled_by_reference(np: Any) -> None:
    from goslings.processes import SharedArray

    array = SharedArray.of(np.arange(24.0).reshape(4, 6))
    views = {
        "all": array, "part": array[1:3, ::2], "turned": array.T, "backwards": array[::-1, ::-1], "row": array[2],
        "flat": array.reshape(-1), "bytes": array.view(np.uint8), "one": array[1:2, 1:2],
    }  # fmt: skip
    for name, view in views.items():
        sent = pickle.dumps(view, 5)
        assert len(sent) < 500, name
        again = pickle.loads(sent)
        assert type(again) is SharedArray and again.shared and np.array_equal(again, view), name
        assert again.strides == view.strides, name
    again = there_and_back(array[1])
    again[:] = 7
    assert array[1].tolist() == [7] * 6
    frozen = array[:2]
    frozen.flags.writeable = False
    assert not there_and_back(frozen).flags.writeable


def test_what_is_computed_is_an_ordinary_array(np: Any) -> None:
    from goslings.processes import SharedArray

    array = SharedArray.of(np.arange(6.0))
    assert type(array + 1) is np.ndarray and type(np.sqrt(array)) is np.ndarray
    assert isinstance(array.sum(), float) and isinstance(array[2], float)
    array += 1
    assert array.shared and array.tolist() == [1, 2, 3, 4, 5, 6]
    copied = array.copy()
    assert not getattr(copied, "shared", False)
    again = there_and_back(copied)
    again[0] = 100
    assert copied[0] == 1 and array[0] == 1
    for act in (copy.copy, copy.deepcopy):
        assert act(array).tolist() == array.tolist()
        act(array)[0] = 50
        assert array[0] == 1


def test_a_shared_array_is_the_same_in_other_processes(np: Any) -> None:
    from goslings.processes import SharedArray

    array = SharedArray.of(np.zeros((100, 100)))
    sent = pickle.dumps(array[50:])

    def write() -> None:
        pickle.loads(sent)[0] = 1.5

    with child(write):
        pass
    assert array[50].tolist() == [1.5] * 100 and not array[49].any()


def test_goroutines_write_their_parts_at_the_same_time(np: Any) -> None:
    from goslings.processes import SharedArray

    array = SharedArray((16, 1000), "i8")
    for goroutine in [go(array[row].fill, row) for row in range(16)]:
        goroutine.result(SECONDS)
    assert array.sum() == sum(range(16)) * 1000


def test_the_memory_goes_with_the_last_array(np: Any) -> None:
    from goslings.processes import SharedArray

    def is_open() -> bool:
        gc.collect()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.fstat(int(name)).st_ino == inode:
                    return True
        return False

    array = SharedArray((1000,))
    segment = segment_of(array)
    assert segment is not None
    inode = os.fstat(segment.fileno()).st_ino
    row = array[10:20]
    del array, segment
    assert is_open()
    row[:] = 1
    del row
    assert not is_open()


def test_with_multiprocessing(np: Any) -> None:
    out = check_child("""
        import multiprocessing, os, sys
        from goslings.processes import SharedArray, Value

        def fill(array, value):
            array[:] = 3
            value.add(5)

        if __name__ == "__main__":
            array, value = SharedArray((1000,)), Value("i")
            process = multiprocessing.get_context("fork").Process(target=fill, args=(array, value))
            process.start()
            process.join()
            print(array.sum(), value.value)
    """)
    assert out.split() == ["3000.0", "5"]


def test_with_pandas(np: Any) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed here")
    from goslings.processes import SharedArray

    array = SharedArray.of(np.arange(12.0).reshape(4, 3))
    frame = pd.DataFrame(array, columns=list("abc"), copy=False)
    array[0, 0] = 100
    assert frame["a"].tolist() == [100, 3, 6, 9]
    assert frame.groupby(frame["c"] > 5).sum()["b"].tolist() == [5, 17]
    assert frame.describe().loc["max", "a"] == 100


def test_with_scikit_learn(np: Any) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed here")
    from goslings.processes import SharedArray

    x = SharedArray.of(np.arange(20.0).reshape(10, 2) ** 1.5)
    y = SharedArray.of(np.asarray(x) @ [2.0, -1.0] + 3)
    model = linear.LinearRegression().fit(x, y)
    assert np.allclose(model.predict(x), y)
    assert np.allclose(model.coef_, [2, -1])


def test_segment_of_tells_where_something_lies(np: Any) -> None:
    from goslings.processes import SharedArray

    array = SharedArray(3)
    assert isinstance(segment_of(array), Segment) and segment_of(array[1:]) is segment_of(array)
    assert isinstance(segment_of(Value("i")), Segment) and isinstance(segment_of(Array("i", 2)), Segment)
    assert segment_of(np.zeros(3)) is None and segment_of(array + 1) is None and segment_of(goslings) is None

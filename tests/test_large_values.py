"""Large values between processes: how often they are copied, what they take, and what happens when there is no room."""

from __future__ import annotations

import array
import ctypes
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from goslings import chan, go
from goslings.processes import Processes
from helpers import check_child

SECONDS = 60.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(1) as pool:
        yield pool


# What travels


class Columns:
    """An object with buffers of its own, as Arrow's tables: protocol 5, without NumPy."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def __reduce_ex__(self, protocol: Any) -> Any:
        assert protocol >= 5
        return Columns, tuple(pickle.PickleBuffer(column) for column in self.columns)


class Buffer(ctypes.Structure):
    """The beginning of CPython's Py_buffer, and room for the rest."""

    _fields_ = (("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("rest", ctypes.c_byte * 128))


def lies_in_shared_memory(buffer: Any) -> bool:
    """Whether its bytes are in a mapping of a link's, in the process that runs this."""
    found, api = Buffer(), ctypes.pythonapi
    api.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.POINTER(Buffer), ctypes.c_int)
    api.PyBuffer_Release.argtypes = (ctypes.POINTER(Buffer),)
    assert api.PyObject_GetBuffer(buffer, ctypes.byref(found), 0) == 0
    address = int(found.buf)
    api.PyBuffer_Release(ctypes.byref(found))
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return "memfd:goslings" in line
    return False


def test_an_object_with_buffers_travels_without_a_copy(workers: Processes) -> None:
    sent = Columns(array.array("d", range(50_000)), bytearray(b"x" * 200_000))

    def there(columns: Any) -> Any:
        return [(lies_in_shared_memory(column), bytes(column)) for column in columns.columns], columns

    found, back = workers.go(there, sent).result(SECONDS)
    assert found == [(True, bytes(column)) for column in sent.columns]
    assert [bytes(column) for column in back.columns] == [bytes(column) for column in sent.columns]
    assert all(lies_in_shared_memory(column) for column in back.columns)


def test_a_table_of_arrow_travels_without_a_copy(workers: Processes) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="there is no pyarrow for this interpreter")
    table = pyarrow.table({"number": list(range(100_000)), "half": [k / 2 for k in range(100_000)]})

    def there(table: Any) -> Any:
        buffers = [buffer for column in table.columns for buffer in column.chunk(0).buffers() if buffer is not None]
        return all(map(lies_in_shared_memory, buffers)), table.column("half")[99_999].as_py(), table

    shared, last, back = workers.go(there, table).result(SECONDS)
    assert (shared, last) == (True, 49_999.5)
    assert back.equals(table)


def test_a_data_frame_travels_without_a_copy(workers: Processes) -> None:
    pandas = pytest.importorskip("pandas", reason="there is no pandas for this interpreter")
    numpy = pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")
    frame = pandas.DataFrame({"number": numpy.arange(100_000), "half": numpy.arange(100_000) / 2})

    def there(frame: Any) -> Any:
        shared = [lies_in_shared_memory(frame[name].to_numpy().data) for name in frame]
        return shared, float(frame["half"].sum()), frame

    shared, total, back = workers.go(there, frame).result(SECONDS)
    assert (shared, total) == ([True, True], frame["half"].sum())
    assert back.equals(frame)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_arrive_as_what_they_were(workers: Processes, kind: Any) -> None:
    data = kind(b"0123456789" * 100_000)
    for back in (workers.go(lambda value: (type(value), value), data).result(SECONDS)[1],
                 workers.go(lambda value: value, value=data).result(SECONDS)):  # fmt: skip
        assert type(back) is kind and back == data
    there, home = chan[Any](), chan[Any]()
    crew = workers.go(lambda: home.send(there.recv()))
    there.send(data)
    back = home.recv(SECONDS)
    crew.result(SECONDS)
    assert type(back) is kind and back == data
    if kind is bytearray:
        back[0] = 0  # its own
        assert data[0] == ord("0")


def test_long_bytes_that_are_two_arguments_are_sent_once(workers: Processes) -> None:
    data = b"0123456789" * 100_000
    assert workers.go(lambda a, b, c: (a is b is c, a == data), data, data, c=data).result(SECONDS) == (True, True)


def test_what_is_written_where_it_arrived_is_written_nowhere_else() -> None:
    """With `writable`: pages are copied when they are written, and the memory of a message is used again meanwhile."""
    numpy = pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")

    def there(array: Any) -> Any:
        in_memory = lies_in_shared_memory(array)
        kept.append(array)
        array[::1000] += 1
        return in_memory, [float(old.sum()) for old in kept], array

    with Processes(1, writable=True) as pool:
        pool.go(abs, 1).result(SECONDS)  # what comes before the worker has started is copied
        data = numpy.zeros(200_000)
        kept: list[Any] = []
        for turn in range(5):
            in_memory, sums, back = pool.go(there, data).result(SECONDS)
            assert in_memory and lies_in_shared_memory(back) and sums == [200.0], turn
            back += 1
            assert (data.sum(), back.sum()) == (0, 200_200)
        small = numpy.zeros(10)
        assert pool.go(there, small).result(SECONDS)[2].flags.writeable


def test_a_received_value_stays_as_it_is_while_others_come(workers: Processes) -> None:
    """Memory is used again, but not while somebody looks at it."""
    numpy = pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")

    def there(values: Any, more: Any) -> Any:
        for value in values:
            more.send((value.min(), value.max(), value))

    values, more = chan[Any](), chan[Any]()
    crew = workers.go(there, values, more)
    sender = go(lambda: [values.send(numpy.full(100_000, turn)) for turn in range(30)])
    held = []
    for turn in range(30):
        lowest, highest, value = more.recv(SECONDS)
        assert (lowest, highest) == (turn, turn)
        held.append(value)
        if len(held) > 5:
            held.pop(0)
        for back, kept in enumerate(reversed(held)):
            assert kept.min() == kept.max() == turn - back
    sender.result(SECONDS)
    values.close()
    crew.result(SECONDS)


# What it takes


def test_a_large_array_takes_its_own_size_in_each_direction() -> None:
    """64 MiB to a worker and back: beside the array, at most 1.1 times its size of memory in each direction."""
    pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")
    out = check_child("""
        import os, resource
        import numpy
        from goslings.processes import Processes

        def peak():
            # What is anonymous, and what was touched of shared memory.
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def shared():
            # Blocks of the memory files of this process, each once.
            found = {}
            for fd in os.listdir("/proc/self/fd"):
                try:
                    if "memfd:goslings" in os.readlink(f"/proc/self/fd/{fd}"):
                        status = os.stat(f"/proc/self/fd/{fd}")
                        found[status.st_ino] = status.st_blocks * 512
                except OSError:
                    pass
            return found

        def there(array):
            return peak(), shared(), float(array.sum()), array

        data = numpy.arange(8 << 20, dtype="f8")
        with Processes(1) as workers:
            workers.go(there, numpy.zeros(30_000)).result(30)
            before_here, before_there = peak(), workers.go(peak).result(30)
            before = sum((workers.go(shared).result(30) | shared()).values())
            inside, _, total, back = workers.go(there, data).result(30)
            assert total == data.sum() == float(back.sum())
            memory = workers.go(shared).result(30) | shared()
            print((peak() - before_here) / data.nbytes)
            print((workers.go(peak).result(30) - before_there) / data.nbytes)
            print((sum(memory.values()) - before) / data.nbytes)
    """)
    here, there, memory = map(float, out.split())
    # Resident: the one array that was received; all of shared memory: two.
    assert here <= 1.1 and there <= 1.1 and memory <= 2.2, out


# When there is no room


def test_a_result_larger_than_files_may_be_is_an_error_of_the_call() -> None:
    def limited() -> bytes:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        return bytes(1 << 21)

    with Processes(1) as workers:
        with pytest.raises(OSError, match=r"2\d+ bytes: larger than files may be \(RLIMIT_FSIZE, ulimit -f\)"):
            workers.go(limited).result(SECONDS)
        assert workers.go(len, b"x" * (1 << 21)).result(SECONDS) == 1 << 21
        # The same for a value on a channel.
        home = chan[Any](1)
        with pytest.raises(OSError, match="RLIMIT_FSIZE"):
            workers.go(lambda: home.send(bytes(1 << 21))).result(SECONDS)
        assert len(home) == 0
        workers.go(lambda: home.send(bytes(1 << 10))).result(SECONDS)
        assert home.recv() == bytes(1 << 10)


def test_an_argument_larger_than_files_may_be_is_an_error_of_go_and_nothing_leaks() -> None:
    out = check_child("""
        import os, resource
        from goslings import chan
        from goslings.processes import Processes

        with Processes(1) as workers:
            assert workers.go(len, b"x").result(30) == 1
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                try:
                    workers.go(len, bytes(1 << 21))
                except OSError as error:
                    assert "RLIMIT_FSIZE" in str(error), error
                else:
                    raise AssertionError("it was sent")
            # A value that was sent here, where nothing is written, and is wanted there: it is not lost.
            values = chan(1)
            values.send(bytes(1 << 21))
            try:
                workers.go(lambda: len(values.recv())).result(30)
            except OSError as error:
                print("RLIMIT_FSIZE" in str(error))
            print(len(values))
            print(len(os.listdir("/proc/self/fd")) - before)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            print(workers.go(lambda: len(values.recv())).result(30))
    """)
    assert out.split() == ["True", "1", "0", str(1 << 21)]


def test_a_worker_without_address_space_for_an_argument_says_so_and_goes_on() -> None:
    out = check_child("""
        import pathlib, resource
        from goslings import chan
        from goslings.processes import Processes

        def limit(more):
            # More than `more` bytes cannot be mapped; and None: as before.
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
            soft = hard if more is None else pages * resource.getpagesize() + more
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

        with Processes(1) as workers:
            pid, = workers.pids
            data = bytearray(128 << 20)
            workers.go(limit, 64 << 20).result(30)
            try:
                workers.go(len, data).result(30)
            except MemoryError as error:
                print("RLIMIT_AS" in str(error))
            home = chan(1)
            home.send(data)
            try:
                workers.go(lambda: len(home.recv())).result(30)
            except MemoryError as error:
                print("RLIMIT_AS" in str(error))
            workers.go(limit, None).result(30)
            print(workers.go(len, data).result(30), workers.pids == [pid])
    """)
    assert out.split() == ["True", "True", str(128 << 20), "True"]


def test_a_parent_without_address_space_for_a_result_says_so_and_goes_on() -> None:
    out = check_child("""
        import pathlib, resource
        from goslings.processes import Processes

        with Processes(1) as workers:
            pid, = workers.pids
            workers.go(abs, 1).result(30)
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), hard))
            try:
                workers.go(bytearray, 128 << 20).result(30)
            except MemoryError as error:
                print("RLIMIT_AS" in str(error))
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            print(len(workers.go(bytearray, 128 << 20).result(30)), workers.pids == [pid])
    """)
    assert out.split() == ["True", str(128 << 20), "True"]


def test_a_value_larger_than_all_memory_is_a_memory_error() -> None:
    """Without touching any of it: what is sent is as many pages of the same zeros."""
    out = check_child("""
        import mmap
        from goslings.processes import Processes
        import pickle

        class Huge:
            def __init__(self, buffer):
                self.buffer = buffer
            def __reduce_ex__(self, protocol):
                return Huge, (pickle.PickleBuffer(self.buffer),)

        with open("/proc/meminfo") as meminfo:
            total = next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemTotal"))
        huge = mmap.mmap(-1, total * 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        with Processes(1) as workers:
            try:
                workers.go(id, Huge(huge))
            except MemoryError as error:
                print(f"no shared memory for a message of {total * 2}"[:-6] in str(error))
            print(workers.go(abs, -1).result(30))
    """)
    assert out.split() == ["True", "1"]

"""Mistakes that the types catch: each line ends with the code of the error that mypy must report there."""

from __future__ import annotations

from goslings import (
    AtomicInt,
    Cond,
    Goroutine,
    Group,
    Map,
    Mutex,
    RecvChan,
    SendChan,
    WaitGroup,
    background,
    chan,
    go,
    once_value,
    parmap,
    recv,
    select,
    send,
    sleep,
)


def double(n: int) -> int:
    return 2 * n


def starting() -> None:
    go(double, "a")  # E: call-overload
    go(double)  # E: call-overload
    go(double, 1, 2)  # E: call-overload
    go(double, m=1)  # E: call-overload
    go(5)  # E: call-overload
    WaitGroup().go(double, None)  # E: call-overload
    g: Goroutine[str] = go(double, 1)  # E: call-overload
    g.id = 5  # E: misc
    g.result("soon")  # E: arg-type
    g.upper()  # E: attr-defined


def sending(numbers: chan[int], out: SendChan[int], source: RecvChan[int]) -> None:
    numbers.send("a")  # E: arg-type
    numbers.send(1, "soon")  # E: arg-type
    numbers.recv().upper()  # E: attr-defined
    numbers.closed = True  # E: misc
    chan[int]("many")  # E: arg-type
    out.recv()  # E: attr-defined
    source.send(1)  # E: attr-defined
    source.close()  # E: attr-defined
    strings: chan[str] = numbers  # E: assignment
    anything: chan[object] = numbers  # E: assignment
    wide: SendChan[object] = out  # E: assignment
    narrow: RecvChan[bool] = source  # E: assignment
    print(strings, anything, wide, narrow)


def receiving(source: RecvChan[int]) -> int:
    value, _ok = source.recv_ok()
    return value  # E: return-value


def selecting(numbers: chan[int]) -> None:
    recv(numbers.sender())  # E: arg-type
    send(numbers.receiver(), 1)  # E: arg-type
    send(numbers, "a")  # E: misc
    select(numbers)  # E: call-overload
    select(recv(numbers), timeout="soon")  # E: call-overload
    print(select(recv(numbers), timeout=1).index)  # E: union-attr


def the_rest() -> None:
    sleep("a second")  # E: arg-type
    sleep(seconds=1)  # E: call-arg
    Cond()  # E: call-arg
    AtomicInt(1.5)  # E: arg-type
    Map[str, int]().store("a", "b")  # E: arg-type
    once_value(double)  # E: arg-type
    with Mutex() as mutex:
        mutex.acquire()  # E: attr-defined


def structure() -> None:
    Group().go(double)  # E: call-overload
    parmap(len, [1])  # E: arg-type
    parmap(double, 5)  # E: arg-type
    background().cancel("why")  # E: arg-type
    background().with_timeout("soon")  # E: arg-type


class Mine(Mutex):  # E: misc
    pass

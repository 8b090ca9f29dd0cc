"""A fork in the middle of everything: what the child finds, and that it can go on."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Any

from goslings import (
    Closed,
    Event,
    Mutex,
    WaitGroup,
    WouldBlock,
    agosched,
    chan,
    go,
    num_goroutine,
    recv,
    select,
    send,
    sleep,
)

from fuzz.ledger import Token

CHILD_SECONDS = 120
"""A child that takes longer is hung: it is killed, and that is a failure."""
VALUES = 50


def fork(channels: list[chan[Token]], capacities: list[int]) -> str | None:
    """Forks; the child tries what it has inherited, and new objects. Blocks until it ends. What was wrong, or None."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(CHILD_SECONDS)
            inherited(channels, capacities)
            anew()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        return "the child hung"
    return None if code == 0 else f"the child ended with {code}"


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found} instead of {wanted}")


def inherited(channels: list[chan[Token]], capacities: list[int]) -> None:
    """The channels are as they were, without those who waited there."""
    expect("goroutines in the child", num_goroutine(), 0)
    for number, (ch, capacity) in enumerate(zip(channels, capacities, strict=True)):
        values = []
        try:
            while (token := ch.try_recv(None)) is not None:
                values.append(token.number)
        except Closed:
            pass
        expect(f"values twice in channel {number}", len(values), len(set(values)))
        if ch.closed:
            continue
        for n in range(capacity):
            expect(f"room for value {n} in channel {number} of {capacity}", ch.try_send(Token(n)), True)
        expect(f"room in channel {number}, which is full, and where nobody waits", ch.try_send(Token(0)), False)
        got = [ch.recv().number for _ in range(capacity)]
        expect(f"channel {number}", got, list(range(capacity)))
        reader = go(ch.recv)
        ch.send(Token(7))
        expect("what was handed over", reader.result().number, 7)


def anew() -> None:
    """Goroutines of all kinds, and what they wait with."""
    jobs: chan[int] = chan()
    answers: chan[int] = chan(3)
    group, mutex, over, total = WaitGroup(), Mutex(), Event(), [0]

    def worker() -> None:
        for job in jobs:
            with mutex:
                total[0] += 1
            select(send(answers, job))

    async def stackless() -> None:
        async for job in jobs:
            async with mutex:
                total[0] += 1
            await agosched()
            await answers.asend(job)

    for fn in (worker, stackless, worker, stackless):
        group.go(fn)

    def feed() -> None:
        for n in range(VALUES):
            jobs.send(n)
        jobs.close()
        group.wait()
        over.set()

    feeder = go(feed)
    got: list[Any] = []
    while len(got) < VALUES:
        chosen = select(recv(answers), timeout=CHILD_SECONDS)
        got.append(chosen.value if chosen else None)
    expect("values in the child", sorted(got), list(range(VALUES)))
    feeder.result()
    expect("the event", over.wait(CHILD_SECONDS), True)
    expect("the sum under the mutex", total[0], VALUES)
    sleep(0.001)
    try:
        answers.try_recv()
    except WouldBlock:
        return
    raise AssertionError("a value more than there were")

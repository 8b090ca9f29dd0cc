"""Long chains of objects that hold one another: dropping the first drops all, and no stack ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
from goslings import chan, go

LENGTH = 100_000

CHAINS = {
    "channels": "link = chan(1); link.send(last)",
    "receiving ends": "link = chan(1); link.send(last); link = link.receiver()",
    "sending ends": "link = chan(1); link.send(last); link = link.sender()",
    "cases": "link = send(idle, last)",
    "what select found": "link = chan(1); link.send(last); link = select(recv(link))",
    "awaitables": "link = idle.asend(last)",
    "variables": "link = TVar(last)",
    "goroutines": "link = go(same, last); link.join()",
}

PROGRAM = """
from goslings import chan, go, recv, select, send
from goslings.stm import TVar

idle = chan()

def same(value):
    return value

def make_and_drop():
    last = None
    for _ in range({length}):
        {step}
        last = link
    del link
    del last

{run}
print("dropped")
"""


@pytest.mark.parametrize("run", ["make_and_drop()", "go(make_and_drop).result()"], ids=["main", "goroutine"])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_long_chain_is_dropped(chain: str, run: str) -> None:
    length = LENGTH // 10 if chain == "goroutines" else LENGTH
    program = PROGRAM.format(step=CHAINS[chain], length=length, run=run)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "dropped\n"), done.stderr[-2000:]


class Noted:
    """Says when it is dropped, and waits meanwhile."""

    def __init__(self, told: list[int], wait: object = None) -> None:
        self.told = told
        self.wait = wait

    def __del__(self) -> None:
        self.told.append(1)
        if isinstance(self.wait, chan):
            self.wait.recv()


def chain_with(inner: object, length: int) -> chan[object]:
    for _ in range(length):
        link = chan[object](1)
        link.send(inner)
        inner = link
    assert isinstance(inner, chan)
    return inner


def test_everything_in_a_chain_is_dropped_at_once() -> None:
    told: list[int] = []
    first = chain_with(Noted(told), 1000)
    inside = weakref.ref(first)
    del first
    gc.collect()  # where counts are merged late
    assert inside() is None
    assert told == [1]


def test_who_parks_while_it_is_dropped_holds_up_no_chain_of_others_for_ever() -> None:
    told: list[int] = []
    gate: chan[None] = chan()

    def drop(wait: object) -> None:
        link = chain_with(Noted(told, wait), 200)
        del link

    held = [go(drop, gate) for _ in range(4)]
    others = [go(drop, None) for _ in range(4)]
    for goroutine in others:
        goroutine.result()
    for _ in held:
        gate.send(None)
    for goroutine in held:
        goroutine.result()
    gc.collect()
    assert len(told) == 8

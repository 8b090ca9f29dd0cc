"""The Santa Claus problem (Trono 1994), after Peyton Jones: Beautiful Concurrency (2007).

    python examples/santa.py [DELIVERIES]

Santa sleeps until all nine reindeer are back, or three of his ten elves want to see him; the reindeer come first.
Groups form in transactions, and `or_else` says who comes first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from goslings import Goroutine, go
from goslings.stm import TVar, atomically, check, or_else


class Gate:
    """Lets so many through each time that it is opened."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = TVar(0)

    def go_through(self) -> None:
        """Waits until it is open."""

        def through() -> None:
            check(self.left.get() > 0)
            self.left.set(self.left.get() - 1)

        atomically(through)

    def open(self) -> None:
        """Opens it, and waits until all have gone through."""
        atomically(self.left.set, self.size)
        atomically(lambda: check(self.left.get() == 0))


class Team:
    """So many at a time meet Santa: they go in by one gate, and out by another."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.state: TVar[tuple[int, Gate, Gate]] = TVar((size, Gate(size), Gate(size)))

    def join(self) -> tuple[Gate, Gate]:
        """Waits until the next team has room; the gates of that team."""

        def enter() -> tuple[Gate, Gate]:
            left, into, out = self.state.get()
            check(left > 0)
            self.state.set((left - 1, into, out))
            return into, out

        return atomically(enter)

    def awaits(self) -> tuple[Gate, Gate]:
        """In a transaction: waits until the team is complete, and lets the next one form."""
        left, into, out = self.state.get()
        check(left == 0)
        self.state.set((self.size, Gate(self.size), Gate(self.size)))
        return into, out


@dataclass
class NorthPole:
    """What has happened."""

    delivered: int = 0
    consulted: int = 0
    told: list[str] = field(default_factory=list)


def north_pole(deliveries: int) -> NorthPole:
    """Runs until Santa has delivered so many times."""
    pole, elves, reindeer = NorthPole(), Team(3), Team(9)

    def helper(team: Team) -> None:
        while True:
            into, out = team.join()
            into.go_through()
            out.go_through()

    helpers: list[Goroutine[None]] = [go(helper, elves) for _ in range(10)]
    helpers += [go(helper, reindeer) for _ in range(9)]
    while pole.delivered < deliveries:
        task, gates = atomically(or_else, lambda: ("deliver", reindeer.awaits()), lambda: ("consult", elves.awaits()))
        for gate in gates:
            gate.open()
        pole.told.append(task)
        if task == "deliver":
            pole.delivered += 1
        else:
            pole.consulted += 1
    for one in helpers:
        one.cancel()
        one.join()
    return pole


if __name__ == "__main__":
    pole = north_pole(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    print(f"Santa has delivered {pole.delivered} times and met his elves {pole.consulted} times")

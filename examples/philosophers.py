"""Dining philosophers with transactions: nobody can hold one fork and wait for the other.

    python examples/philosophers.py [PHILOSOPHERS] [MEALS]

Each takes both forks in one transaction, which waits until both are there. So there is no order to keep, and no
deadlock to avoid.
"""

from __future__ import annotations

import sys

from goslings import Group
from goslings.stm import TVar, atomic, check


@atomic
def take(*forks: TVar[bool]) -> None:
    for fork in forks:
        check(fork.get())
        fork.set(False)


@atomic
def put_back(*forks: TVar[bool]) -> None:
    for fork in forks:
        fork.set(True)


def dine(philosophers: int, meals: int) -> list[int]:
    """How often each has eaten."""
    forks = [TVar(True) for _ in range(philosophers)]
    eaten = [0] * philosophers

    def philosopher(me: int) -> None:
        mine = forks[me], forks[(me + 1) % philosophers]
        for _ in range(meals):
            take(*mine)
            eaten[me] += 1
            put_back(*mine)

    with Group() as table:
        for me in range(philosophers):
            table.go(philosopher, me)
    assert all(fork.get() for fork in forks)
    return eaten


if __name__ == "__main__":
    philosophers = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    meals = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    print(f"{philosophers} philosophers have eaten {dine(philosophers, meals)} meals")

"""What one actor knows for certain of the values it has handled, and what all of them must say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from goslings import AtomicInt

SHIFT = 32
"""A value's number: the actor that made it, and in so many low bits a count."""


class Token:
    """What is sent: a number, and counted while it exists."""

    __slots__ = ("number",)
    alive = AtomicInt()

    def __init__(self, number: int) -> None:
        self.number = number
        Token.alive.add(1)

    def __del__(self) -> None:
        Token.alive.add(-1)


@dataclass
class Ledger:
    """Kept by one actor."""

    number: int
    made: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)
    """(channel, value) of each send that was reported to have happened, in order."""
    kept: list[int] = field(default_factory=list)
    """The values of sends that were reported not to have happened."""
    received: list[tuple[int, int]] = field(default_factory=list)
    """(channel, value), in order."""
    events: Counter[str] = field(default_factory=Counter)
    """How often something happened."""
    operations: int = 0

    def token(self) -> Token:
        self.made += 1
        return Token(self.number << SHIFT | self.made)


def check(
    ledgers: list[Ledger], drained: list[list[int]], capacities: list[int], unordered: Collection[int] = ()
) -> list[str]:
    """What is wrong; nothing, if every value that was sent was received or is among the `drained`, once, in order.

    On the channels `unordered` a value may have been put back, whose receiver was cancelled.
    """
    problems = []
    kept = {value for ledger in ledgers for value in ledger.kept}
    per_channel: list[Counter[int]] = [Counter() for _ in capacities]
    for ledger in ledgers:
        for channel, value in ledger.sent:
            per_channel[channel][value] += 1
            if value in kept:
                problems.append(f"{name(value)} was reported as sent and as not sent")
    found: list[Counter[int]] = [Counter(values) for values in drained]
    for ledger in ledgers:
        for channel, value in ledger.received:
            found[channel][value] += 1
            if value in kept:
                problems.append(f"{name(value)} was received, and its send was reported to have failed")
    for channel, (sent, received) in enumerate(zip(per_channel, found, strict=True)):
        for value in (sent - received).keys():
            problems.append(f"{name(value)} was sent on channel {channel} and is lost")
        for value in (received - sent).keys():
            what = "twice" if received[value] > 1 else "and nobody says that it was sent"
            problems.append(f"{name(value)} was received on channel {channel} {what}")
        if channel in unordered:
            continue
        if capacities[channel] == 0 and drained[channel]:
            problems.append(f"channel {channel} holds {len(drained[channel])} values without a buffer")
        if len(drained[channel]) > capacities[channel]:
            problems.append(f"channel {channel} holds more values than it has room for")
    return problems + check_order(ledgers, drained, unordered)


def check_order(ledgers: list[Ledger], drained: list[list[int]], unordered: Collection[int]) -> list[str]:
    """Whoever receives gets the values of one sender in the order in which they were sent."""
    problems = []
    for ledger in ledgers:
        last: dict[tuple[int, int], int] = {}
        for channel, value in ledger.received:
            place = (channel, value >> SHIFT)
            if last.get(place, -1) >= value and channel not in unordered:
                problems.append(f"{ledger.number} received {name(value)} after a later one on channel {channel}")
            last[place] = value
    highest: dict[tuple[int, int], int] = {}
    for ledger in ledgers:
        for channel, value in ledger.received:
            place = (channel, value >> SHIFT)
            highest[place] = max(highest.get(place, -1), value)
    for channel, values in enumerate(drained):
        for value in values:
            place = (channel, value >> SHIFT)
            if highest.get(place, -1) >= value and channel not in unordered:
                problems.append(f"{name(value)} was left in channel {channel}, and a later one received")
            highest[place] = max(highest.get(place, -1), value)
    return problems


def name(value: int) -> str:
    """As people read it."""
    return f"value {value & (1 << SHIFT) - 1} of actor {value >> SHIFT}"

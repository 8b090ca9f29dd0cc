"""A random program: who takes part, and what each of them does. A function of its seed alone.

A program is made of actors, each with a list of steps; a step is a tuple of a name, which is that of a method of
`machine.Machine`, and its arguments. Actor 0 is the main thread. Every other actor is started by exactly one step of
one actor with a smaller number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Step = tuple[Any, ...]
MAIN, GOROUTINE, THREAD, ASYNC, TASK = "main", "goroutine", "thread", "async goroutine", "asyncio task"


@dataclass
class Actor:
    """Someone who takes part."""

    number: int
    kind: str
    stops: bool
    """Whether it ends when it is cancelled; else it goes on with its next step."""
    steps: list[Step] = field(default_factory=list)


@dataclass
class Program:
    """What is run."""

    seed: int
    capacities: list[int]
    semaphores: list[int]
    barriers: list[int]
    procs: int
    slice_ms: int
    switch_interval: float
    actors: list[Actor]
    uvloop: bool = False
    """Whether the event loop is uvloop's."""
    signals: bool = False
    """Whether signals keep coming, whose handler sends and receives."""
    bubble: bool = False
    """Whether it runs in a bubble: with virtual time, and goroutines only."""

    def __str__(self) -> str:
        lines = [f"program {self.seed}: channels {self.capacities}, semaphores {self.semaphores}, procs {self.procs}"]
        lines[0] += ", uvloop" * self.uvloop + ", signals" * self.signals + ", in a bubble" * self.bubble
        for actor in self.actors:
            lines.append(f"  {actor.number} ({actor.kind}{', stops' if actor.stops else ''})")
            lines += [f"    {' '.join(map(str, step))}" for step in actor.steps]
        return "\n".join(lines)


def generate(seed: int) -> Program:
    """The program of this seed."""
    return _Generator(seed).program


# How often each kind of step is drawn.
CHANNEL_STEPS = {
    "send": 10,
    "recv": 10,
    "recv_ok": 3,
    "try_send": 4,
    "try_recv": 4,
    "burst": 6,
    "gulp": 6,
    "iterate": 3,
    "select": 14,
    "context": 2,
    "close": 0.3,
}
OTHER_STEPS = {
    "gosched": 4,
    "sleep": 2,
    "os_sleep": 0.5,
    "in_thread": 0.5,
    "spin": 1,
    "add": 2,
    "once": 0.5,
    "ticks": 0.3,
    "set_event": 0.7,
    "clear_event": 0.7,
    "wait_event": 1,
    "meet": 0.7,
    "abort": 0.1,
    "produce": 2,
    "consume": 2,
    "gomaxprocs": 0.3,
    "collect": 0.1,
    "length": 1,
    "timer": 0.5,
    "shared": 0.5,
    "fork": 0.1,
}
OUTSIDE_ONLY = {"os_sleep", "in_thread", "fork"}
"""What programs in a bubble do not do: there is no other thread to wait for in it, and no child."""
LOCKING_STEPS = {"mutex": 4, "read": 2, "write": 1, "acquire": 2}
FAMILY_STEPS = {"spawn": 6, "join": 2, "cancel": 12, "group": 1, "wait_group": 1, "parmap": 0.3, "goexit": 0.2}


class _Generator:
    def __init__(self, seed: int) -> None:
        rnd = self.rnd = random.Random(seed)
        self.bubble = rnd.random() < 0.15
        self.channels = rnd.randint(1, 6)
        self.free = rnd.choice((0, 2, 5, 9, 14))  # so many more actors may be started
        self.actors: list[Actor] = []
        semaphores = [rnd.randint(1, 4) for _ in range(2)]
        self.semaphores = semaphores
        self.kinds = rnd.choice(((4, 1, 0, 0), (2, 1, 2, 1), (1, 0, 4, 0), (1, 0, 1, 2)))
        main = self.actor(MAIN)
        for _ in range(rnd.randint(1, 6)):
            main.steps.append(("spawn", self.member(length=rnd.randint(3, 60))))
        main.steps += [self.step(main, depth=0, waits=False) for _ in range(rnd.randint(0, 25))]
        self.program = Program(
            seed,
            capacities=[rnd.choice((0, 0, 0, 1, 1, 2, 3, 7, 64)) for _ in range(self.channels)],
            semaphores=semaphores,
            barriers=[rnd.randint(1, 4) for _ in range(2)],
            procs=rnd.choice((1, 2, 2, 3, 4)),
            slice_ms=rnd.choice((1, 10, 10)),
            switch_interval=rnd.choice((5e-3, 1e-4, 5e-6)),
            actors=self.actors,
            uvloop=rnd.random() < 0.5,
            signals=rnd.random() < 0.3 and not self.bubble,
            bubble=self.bubble,
        )

    def actor(self, kind: str) -> Actor:
        actor = Actor(len(self.actors), kind, stops=self.rnd.random() < 0.6)
        self.actors.append(actor)
        return actor

    def member(self, length: int, kind: str | None = None) -> int:
        """A new actor with so many steps; its number."""
        kinds = (GOROUTINE, GOROUTINE, ASYNC, ASYNC) if self.bubble else (GOROUTINE, THREAD, ASYNC, TASK)
        kind = kind or self.rnd.choices(kinds, self.kinds)[0]
        actor = self.actor(kind)
        actor.steps += [self.step(actor, depth=0, waits=True) for _ in range(length)]
        return actor.number

    def step(self, actor: Actor, depth: int, waits: bool) -> Step:
        """`waits`: whether it may wait without a time limit, which the main thread must not."""
        rnd = self.rnd
        kinds = [CHANNEL_STEPS, OTHER_STEPS, LOCKING_STEPS, FAMILY_STEPS]
        weights = [60.0, 20, 8, 9]
        if depth:
            # Nobody waits for a lock and for a child who wants it.
            weights[2], weights[3] = (2 if depth < 2 else 0), 0
        (steps,) = rnd.choices(kinds, weights)
        (name,) = rnd.choices(list(steps), list(steps.values()))
        if self.bubble and name in OUTSIDE_ONLY:
            name = "gosched"
        return (name, *getattr(self, name, lambda *_: ())(actor, depth, waits))

    # What the steps take

    def channel(self) -> int:
        # Some are busier than others.
        return min(self.rnd.randrange(self.channels), self.rnd.randrange(self.channels + 1))

    def limit(self, waits: bool) -> float | None:
        rnd = self.rnd
        kind = rnd.random()
        if kind < 0.5 and waits:
            return None
        return rnd.choice((0, 1e-5, 1e-4)) if kind < 0.7 else rnd.random() * rnd.choice((1e-4, 1e-3, 5e-3))

    def send(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.channel(), self.limit(waits))

    recv = recv_ok = send

    def try_send(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.channel(),)

    try_recv = close = length = try_send

    def burst(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.channel(), self.rnd.randint(2, 40), self.limit(waits))

    gulp = burst

    def iterate(self, actor: Actor, depth: int, waits: bool) -> Step:
        if not waits:
            return (self.channel(), 0)
        return (self.channel(), self.rnd.randint(1, 30))

    def cases(self) -> list[Step]:
        rnd = self.rnd
        cases: list[Step] = []
        for _ in range(rnd.choice((1, 2, 2, 3, 4, 8))):
            kind = rnd.random()
            if kind < 0.45:
                cases.append(("recv", self.channel()))
            elif kind < 0.9:
                cases.append(("send", self.channel()))
            elif kind < 0.95:
                cases.append((rnd.choice(("recv", "send")), None))
            else:
                cases.append(("after", rnd.random() * 2e-3))
        return cases

    def select(self, actor: Actor, depth: int, waits: bool) -> Step:
        cases = self.cases()
        only_nil = all(case[1] is None for case in cases)
        return (cases, self.limit(waits and not only_nil), self.rnd.randint(1, 10))

    def context(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.random() * 2e-3, self.cases())

    def sleep(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.choice((0, 1e-5, self.rnd.random() * 2e-3)),)

    os_sleep = in_thread = sleep

    def spin(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.choice((100, 1000, 30_000)),)

    def ticks(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randint(1, 4), self.rnd.random() * 1e-3 + 1e-5)

    def timer(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.random() * 1e-3, self.rnd.random() < 0.5)

    def wait_event(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.limit(waits),)

    consume = wait_event

    def produce(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.random() < 0.3,)

    def meet(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randrange(2), self.limit(waits))

    def abort(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randrange(2),)

    def once(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randrange(3),)

    shared = once

    def gomaxprocs(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randint(1, 4),)

    def body(self, actor: Actor, depth: int, waits: bool) -> list[Step]:
        return [self.step(actor, depth + 1, waits) for _ in range(self.rnd.choice((0, 0, 1, 2)))]

    def mutex(self, actor: Actor, depth: int, waits: bool) -> Step:
        # Several are taken in the order of their numbers: those of a body are higher.
        # Nobody waits with one in a bubble: a lock may be unlocked from outside, so that the clock would stand.
        return (depth, self.limit(waits), [] if self.bubble else self.body(actor, depth, waits))

    read = mutex

    write = read

    def acquire(self, actor: Actor, depth: int, waits: bool) -> Step:
        most = self.semaphores[0] if depth == 0 else self.semaphores[1]
        return (min(depth, 1), self.rnd.randint(1, most), self.limit(waits), self.body(actor, depth, waits))

    # Families

    def children(self, kind: str | None = None) -> list[int]:
        wanted = self.rnd.randint(1, 4)
        numbers = []
        while self.free > 0 and len(numbers) < wanted:
            self.free -= 1
            numbers.append(self.member(self.rnd.randint(1, 25), kind))
        return numbers

    def spawn(self, actor: Actor, depth: int, waits: bool) -> Step:
        return tuple(self.children())

    def group(self, actor: Actor, depth: int, waits: bool) -> Step:
        if not waits:
            return ([], None, False)
        return (
            self.children(self.rnd.choice((GOROUTINE, ASYNC))),
            self.rnd.choice((None, 1, 2)),
            self.rnd.random() < 0.2,
        )

    def wait_group(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.children(self.rnd.choice((GOROUTINE, ASYNC))), self.limit(waits))

    def join(self, actor: Actor, depth: int, waits: bool) -> Step:
        # Never for ever: it may be queued in a group, behind the one who waits for it.
        return (self.rnd.randint(1, 20), self.limit(waits=False))

    def cancel(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randint(1, 12),)

    def parmap(self, actor: Actor, depth: int, waits: bool) -> Step:
        return (self.rnd.randint(0, 20), self.rnd.randint(1, 4), self.rnd.random() < 0.5)

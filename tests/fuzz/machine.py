"""Runs a program: makes what its actors share, starts them, brings them to an end, and checks what they say.

A step may wait for ever. When nobody has got on for a moment the machine helps: it takes a value here and brings one
there. After some of that it ends the program: it closes the channels, sets the events and so on until everybody has
ended. So every program ends, unless somebody was not woken.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import goslings
from goslings import (
    AtomicInt,
    Barrier,
    Cancelled,
    Closed,
    Cond,
    Context,
    Event,
    Goroutine,
    Group,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    WouldBlock,
    after,
    background,
    blocking,
    chan,
    go,
    goexit,
    gomaxprocs,
    gosched,
    num_goroutine,
    parmap,
    recv,
    select,
    send,
    sleep,
)
from goslings._errors import GoExit

from fuzz import child
from fuzz.ledger import Ledger, Token, check
from fuzz.program import ASYNC, GOROUTINE, MAIN, TASK, THREAD, Actor, Program, Step

PATIENCE = 2
"""Nobody has got on for so many looks: nobody will."""
LOOK_SECONDS = 0.0005
HELPS = 12
"""So often the machine helps."""
RUN_SECONDS = 0.5
"""After so long a program is ended in any case."""
END_SECONDS = 60.0
"""How long everybody may take to end then. Far more than it needs."""


class Failure(Exception):
    """Something that must not happen."""


class Machine:
    """One run of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.slack = 2e-9 if program.bubble else 0.0
        """What a difference of two times may be wrong by: those of a bubble are exact, but for their rounding."""
        self.channels = [chan[Token](capacity) for capacity in program.capacities]
        self.closed = [False] * len(self.channels)  # set by whoever has closed it
        self.ledgers = [Ledger(actor.number) for actor in program.actors]
        self.handles: list[Any] = [None] * len(program.actors)
        self.steps = [0] * len(program.actors)
        self.ending = False
        self.problems: list[str] = []
        self.mutexes = [Mutex() for _ in range(3)]
        self.cells = [0] * 3
        self.inside: list[object] = [None] * 3
        self.rwmutexes = [RWMutex() for _ in range(3)]
        self.pairs = [[0, 0] for _ in range(3)]
        self.semaphores = [Semaphore(n) for n in program.semaphores]
        self.taken = [AtomicInt() for _ in program.semaphores]
        self.cond = Cond(Mutex())
        self.goods = 0
        self.event = Event()
        self.barriers = [Barrier(n) for n in program.barriers]
        self.onces = [Once() for _ in range(3)]
        self.once_calls = [0] * 3
        self.total = AtomicInt()
        self.put_back: set[int] = set()
        """Channels on whose front a value may have been put back, out of its order: see `goslings.chan.arecv`."""
        self.cancels = 0
        self.handler = Ledger(len(program.actors))
        """Of the handler of signals."""

    # The run

    def run(self) -> Counter[str]:
        """Runs the program to its end and returns what happened how often. Raises Failure."""
        before = num_goroutine()
        procs, interval = gomaxprocs(self.program.procs), sys.getswitchinterval()
        sys.setswitchinterval(self.program.switch_interval)
        hook, goslings.excepthook = goslings.excepthook, self.unread
        try:
            with Signals(self) if self.program.signals else nullcontext():
                self.act(0)
                self.settle()
                self.end()
            self.check()
            self.wait_for(lambda: num_goroutine() <= before, "goroutines are left")
        finally:
            goslings.excepthook = hook
            sys.setswitchinterval(interval)
            gomaxprocs(procs)
        if self.problems:
            raise Failure("\n".join(self.problems[:20]))
        return self.counts()

    def unread(self, args: Any) -> None:
        self.problems.append(f"unread: {args.exc_value!r}")

    def settle(self) -> None:
        last, unchanged, helps, until = -1, 0, 0, time.monotonic() + RUN_SECONDS
        rnd = random.Random(self.program.seed)
        while not self.all_over() and helps < HELPS and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            now = sum(ledger.operations for ledger in self.ledgers[1:])
            unchanged = unchanged + 1 if now == last else 0
            last = now
            if unchanged == PATIENCE:
                unchanged, helps = 0, helps + 1
                self.help(rnd)

    def help(self, rnd: random.Random) -> None:
        main, ledger = self.program.actors[0], self.ledgers[0]
        for number in range(len(self.channels)):
            for _ in range(rnd.randrange(20)):
                self.take(main, ledger, (rnd.choice(("try_send", "try_recv")), number))
        self.take(main, ledger, ("produce", rnd.random() < 0.5))
        self.take(main, ledger, (rnd.choice(("set_event", "clear_event")),))
        self.take(main, ledger, ("abort", rnd.randrange(2)))

    def end(self) -> None:
        self.ending = True
        for number, ch in enumerate(self.channels):
            with suppress(Closed):
                ch.close()
            self.closed[number] = True

        def over() -> bool:
            self.event.set()
            self.cond.notify_all()
            for barrier in self.barriers:
                barrier.abort()
            return self.all_over()

        self.wait_for(over, "somebody does not end")

    def wait_for(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline, pause = time.monotonic() + END_SECONDS, 0.0
        while not condition():
            if time.monotonic() > deadline:
                raise Failure("\n".join([complaint, *self.problems]))
            time.sleep(pause)
            pause = min(0.01, pause + 0.0001)

    def all_over(self) -> bool:
        return all(handle is None or handle.done() for handle in self.handles)

    def check(self) -> None:
        drained = []
        for ch in self.channels:
            values = []
            with suppress(Closed):
                while True:
                    values.append(ch.try_recv().number)
            drained.append(values)
        for handle in self.handles:
            if isinstance(handle, Goroutine) and not handle.cancelled():
                error = handle.exception(0)
                if error is not None:
                    self.problems.append(f"a goroutine failed: {error!r}")
        self.problems += check([*self.ledgers, self.handler], drained, self.program.capacities, self.put_back)
        counts = self.counts()
        self.expect("mutex", sum(self.cells), counts["mutex"])
        for a, b in self.pairs:
            self.expect("RWMutex", a, b)
        self.expect("RWMutex writers", sum(a for a, _ in self.pairs), counts["write"])
        self.expect("semaphores", [taken.load() for taken in self.taken], [0] * len(self.taken))
        self.expect("goods", self.goods, counts["produced"] - counts["consumed"])
        self.expect("total", self.total.load(), counts["add"])
        for once in self.once_calls:
            self.expect("once", once <= 1, True)
        for semaphore, most in zip(self.semaphores, self.program.semaphores, strict=True):
            self.expect("permits", semaphore.try_acquire(most), True)
        for mutex in self.mutexes:
            self.expect("mutex unlocked", mutex.try_lock(), True)
        for rwmutex in self.rwmutexes:
            self.expect("RWMutex unlocked", rwmutex.try_lock(), True)

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{what}: {found} instead of {wanted}")

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        ledgers = [*self.ledgers, self.handler]
        for ledger in ledgers:
            total += ledger.events
        total["operations"] = sum(ledger.operations for ledger in ledgers)
        total["values"] = sum(len(ledger.sent) for ledger in ledgers)
        total["actors"] = sum(handle is not None for handle in self.handles)
        return total

    # Actors

    def act(self, number: int) -> None:
        """What an actor does."""
        actor, ledger = self.program.actors[number], self.ledgers[number]
        try:
            for step in actor.steps:
                if self.ending:
                    break
                self.take(actor, ledger, step)
                self.steps[number] += 1
        except Cancelled:
            ledger.events["ended by cancellation"] += 1
            raise
        except GoExit:
            raise
        except BaseException as error:
            self.problems.append(f"actor {number}, step {self.steps[number]} ({actor.kind}): {error!r}")

    def take(self, actor: Actor, ledger: Ledger, step: Step) -> None:
        name, *args = step
        ledger.operations += 1
        try:
            getattr(self, name)(actor, ledger, *args)
        except Cancelled:
            ledger.events["cancelled"] += 1
            if actor.kind in (MAIN, THREAD):
                raise Failure("Cancelled outside a goroutine") from None
            if actor.stops:
                raise

    def body(self, actor: Actor, ledger: Ledger, steps: list[Step]) -> None:
        for step in steps:
            self.take(actor, ledger, step)

    def start(self, number: int) -> None:
        actor = self.program.actors[number]
        if actor.kind == THREAD:
            self.handles[number] = Thread(self.act, number)
        else:
            self.handles[number] = go(self.act, number)

    @contextmanager
    def timed(self, ledger: Ledger, limit: float | None) -> Iterator[None]:
        """Around something that may time out: but not before its time."""
        before = time.monotonic()
        try:
            yield
        except TimeoutError:
            ledger.events["timed out"] += 1
            took = time.monotonic() - before
            if limit is None or took < limit - self.slack:
                raise Failure(f"a limit of {limit} s was over after {took} s") from None

    # Steps: channels

    def sending(self, ledger: Ledger, number: int, operation: Callable[[Token], object]) -> None:
        token, was_closed = ledger.token(), self.closed[number]
        value, sent = token.number, False
        try:
            sent = operation(token) is not False
        except Closed:
            ledger.events["closed"] += 1
            if not self.channels[number].closed:
                raise Failure(f"channel {number} is not closed") from None
        finally:
            if sent:
                ledger.sent.append((number, value))
            else:
                ledger.kept.append(value)
        if sent and was_closed:
            raise Failure(f"sent on channel {number} after it was closed")

    def receiving(self, ledger: Ledger, number: int, operation: Callable[[], Token | None]) -> None:
        was_closed = self.closed[number]
        try:
            token = operation()
        except Closed:
            token = None
            ledger.events["closed"] += 1
            if not self.channels[number].closed:
                raise Failure(f"channel {number} is not closed") from None
        except (WouldBlock, TimeoutError):
            if was_closed:
                raise Failure(f"channel {number} was closed, and a receive found nothing to say") from None
            raise
        if token is not None:
            ledger.received.append((number, token.number))

    def send(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        with self.timed(ledger, limit):
            self.sending(ledger, number, lambda token: self.channels[number].send(token, limit))

    def burst(self, actor: Actor, ledger: Ledger, number: int, times: int, limit: float | None) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            self.send(actor, ledger, number, limit)

    def try_send(self, actor: Actor, ledger: Ledger, number: int) -> None:
        self.sending(ledger, number, self.channels[number].try_send)

    def recv(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        with self.timed(ledger, limit):
            self.receiving(ledger, number, lambda: self.channels[number].recv(limit))

    def gulp(self, actor: Actor, ledger: Ledger, number: int, times: int, limit: float | None) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            self.recv(actor, ledger, number, limit)

    def recv_ok(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        def operation() -> Token | None:
            token, ok = self.channels[number].recv_ok(limit)
            if not ok and (token is not None or not self.channels[number].closed):
                raise Failure(f"channel {number} gave {token} and said it was closed")
            return token

        with self.timed(ledger, limit):
            self.receiving(ledger, number, operation)

    def try_recv(self, actor: Actor, ledger: Ledger, number: int) -> None:
        with suppress(WouldBlock):
            self.receiving(ledger, number, self.channels[number].try_recv)

    def iterate(self, actor: Actor, ledger: Ledger, number: int, times: int) -> None:
        for token in itertools.islice(self.channels[number], times):
            ledger.received.append((number, token.number))
            ledger.operations += 1

    def close(self, actor: Actor, ledger: Ledger, number: int) -> None:
        try:
            self.channels[number].close()
        except Closed:
            return
        self.closed[number] = True
        ledger.events["close"] += 1

    def length(self, actor: Actor, ledger: Ledger, number: int) -> None:
        if not 0 <= len(self.channels[number]) <= self.program.capacities[number] and number not in self.put_back:
            raise Failure(f"channel {number} holds {len(self.channels[number])}")

    def select(self, actor: Actor, ledger: Ledger, cases: list[Step], limit: float | None, times: int) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            self.choose(ledger, cases, limit)

    def context(self, actor: Actor, ledger: Ledger, seconds: float, cases: list[Step]) -> None:
        with self.with_context(seconds) as context:
            self.choose(ledger, [*cases, ("done", context)], None)

    def choose(self, ledger: Ledger, cases: list[Step], limit: float | None) -> None:
        """One select."""
        choice = self.choice(ledger, cases, limit)
        with choice:
            choice.picked = select(*choice.made, timeout=limit)
        choice.note()

    def choice(self, ledger: Ledger, cases: list[Step], limit: float | None) -> Choice:
        return Choice(self, ledger, cases, limit)

    def with_context(self, seconds: float) -> Context:
        return background().with_timeout(seconds)

    # Steps: synchronisation

    def mutex(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            self.mutexes[number].lock(limit)
            with self.holding_mutex(actor, ledger, number):
                self.body(actor, ledger, steps)

    @contextmanager
    def holding_mutex(self, actor: Actor, ledger: Ledger, number: int) -> Iterator[None]:
        try:
            if self.inside[number] is not None:
                raise Failure(f"two hold mutex {number}")
            self.inside[number], value = actor, self.cells[number]
            try:
                yield
            finally:
                self.inside[number], self.cells[number] = None, value + 1
                ledger.events["mutex"] += 1
        finally:
            self.mutexes[number].unlock()

    def read(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            self.rwmutexes[number].rlock(limit)
            with self.reading(number):
                self.body(actor, ledger, steps)

    @contextmanager
    def reading(self, number: int) -> Iterator[None]:
        try:
            pair = self.pairs[number]
            before = list(pair)
            yield
            if pair != before or pair[0] != pair[1]:
                raise Failure(f"somebody wrote while RWMutex {number} was held for reading")
        finally:
            self.rwmutexes[number].runlock()

    def write(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            self.rwmutexes[number].lock(limit)
            with self.writing(ledger, number):
                self.body(actor, ledger, steps)

    @contextmanager
    def writing(self, ledger: Ledger, number: int) -> Iterator[None]:
        try:
            pair = self.pairs[number]
            value = pair[0]
            pair[0] = value + 1
            try:
                yield
            finally:
                if pair != [value + 1, value]:
                    raise Failure(f"two write under RWMutex {number}")
                pair[1] = value + 1
                ledger.events["write"] += 1
        finally:
            self.rwmutexes[number].unlock()

    def acquire(
        self, actor: Actor, ledger: Ledger, number: int, permits: int, limit: float | None, steps: list[Step]
    ) -> None:
        with self.timed(ledger, limit):
            self.semaphores[number].acquire(permits, limit)
            with self.having(number, permits):
                self.body(actor, ledger, steps)

    @contextmanager
    def having(self, number: int, permits: int) -> Iterator[None]:
        try:
            if self.taken[number].add(permits) > self.program.semaphores[number]:
                raise Failure(f"more is taken of semaphore {number} than there is")
            yield
        finally:
            self.taken[number].add(-permits)
            self.semaphores[number].release(permits)

    def produce(self, actor: Actor, ledger: Ledger, for_all: bool) -> None:
        with self.cond:
            self.goods += 1
            ledger.events["produced"] += 1
            self.cond.notify_all() if for_all else self.cond.notify()

    def consume(self, actor: Actor, ledger: Ledger, limit: float | None) -> None:
        with self.cond:
            while self.goods == 0 and not self.ending:
                if not self.cond.wait(limit):
                    return
            if self.goods > 0:
                self.goods -= 1
                ledger.events["consumed"] += 1

    def set_event(self, actor: Actor, ledger: Ledger) -> None:
        self.event.set()

    def clear_event(self, actor: Actor, ledger: Ledger) -> None:
        self.event.clear()

    def wait_event(self, actor: Actor, ledger: Ledger, limit: float | None) -> None:
        if not self.event.wait(limit) and limit is None:
            raise Failure("an event that nobody waits for was not set")

    def meet(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        try:
            with self.timed(ledger, limit):
                if not 0 <= self.barriers[number].wait(limit) < self.program.barriers[number]:
                    raise Failure("a barrier counts wrong")
        except threading.BrokenBarrierError:
            if not self.ending:
                self.barriers[number].reset()

    def abort(self, actor: Actor, ledger: Ledger, number: int) -> None:
        self.barriers[number].abort()

    def once(self, actor: Actor, ledger: Ledger, number: int) -> None:
        def call() -> None:
            self.once_calls[number] += 1

        self.onces[number].do(call)
        if self.once_calls[number] != 1:
            raise Failure("Once returned before its function had run")

    def add(self, actor: Actor, ledger: Ledger) -> None:
        self.total.add(1)
        ledger.events["add"] += 1

    def shared(self, actor: Actor, ledger: Ledger, number: int) -> None:
        # Objects of the runtime that go away while others use them.
        event = Event()
        g = go(event.wait)
        if number == 0:
            g.cancel()
        event.set()
        del event, g

    def fork(self, actor: Actor, ledger: Ledger) -> None:
        if actor.kind == TASK:
            return  # its child would be in the loop of asyncio, which is for nobody to use
        failure = child.fork(self.channels, self.program.capacities)
        ledger.events["fork"] += 1
        if failure:
            raise Failure(f"forked by {actor.kind}: {failure}")

    # Steps: time and the runtime

    def gosched(self, actor: Actor, ledger: Ledger) -> None:
        gosched()

    def sleep(self, actor: Actor, ledger: Ledger, seconds: float) -> None:
        before = time.monotonic()
        sleep(seconds)
        self.check_sleep(seconds, time.monotonic() - before)

    def check_sleep(self, seconds: float, slept: float) -> None:
        if slept < seconds - self.slack:
            raise Failure("a sleep was too short")
        if self.program.bubble and slept > seconds + self.slack:
            raise Failure(f"a sleep of {seconds} s took {slept} s in a bubble, where nothing takes time")

    def os_sleep(self, actor: Actor, ledger: Ledger, seconds: float) -> None:
        time.sleep(seconds)

    def in_thread(self, actor: Actor, ledger: Ledger, seconds: float) -> None:
        if actor.kind == GOROUTINE and blocking(threading.get_ident) == threading.get_ident():
            raise Failure("a blocking call has run on a worker")
        blocking(time.sleep, seconds)

    def spin(self, actor: Actor, ledger: Ledger, times: int) -> None:
        for _ in range(times):
            pass

    def ticks(self, actor: Actor, ledger: Ledger, times: int, seconds: float) -> None:
        with Ticker(seconds) as ticker:
            for _ in itertools.islice(ticker, times):
                pass

    def timer(self, actor: Actor, ledger: Ledger, seconds: float, stop: bool) -> None:
        timer = Timer(seconds)
        if stop and timer.stop():
            if timer.c.try_recv(None) is not None:
                raise Failure("a timer that was stopped has rung")
        elif not stop:
            timer.c.recv()

    def gomaxprocs(self, actor: Actor, ledger: Ledger, procs: int) -> None:
        gomaxprocs(procs)

    def collect(self, actor: Actor, ledger: Ledger) -> None:
        gc.collect()

    def goexit(self, actor: Actor, ledger: Ledger) -> None:
        if actor.kind in (GOROUTINE, ASYNC):
            goexit()

    # Steps: families

    def spawn(self, actor: Actor, ledger: Ledger, *numbers: int) -> None:
        for number in numbers:
            self.start(number)

    def join(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        handle = self.handles[number] if actor.number < number < len(self.handles) else None
        if handle is not None and not handle.join(limit) and limit is None:
            raise Failure("a join without a limit ended too early")

    def cancel(self, actor: Actor, ledger: Ledger, number: int) -> None:
        handle = self.handles[number] if number < len(self.handles) else None
        if handle is not None and handle.cancel(number):
            ledger.events["cancel"] += 1

    def function(self, number: int) -> Callable[[int], Any]:
        return self.act

    def all_ended(self, numbers: list[int], complaint: str) -> None:
        if not all(handle is None or handle.done() for handle in map(self.handles.__getitem__, numbers)):
            raise Failure(complaint)

    def group(self, actor: Actor, ledger: Ledger, numbers: list[int], limit: int | None, cancel: bool) -> None:
        try:
            with Group(limit) as group:
                for number in numbers:
                    self.handles[number] = group.go(self.function(number), number)
                if cancel:
                    group.cancel()
        finally:
            self.all_ended(numbers, "a Group has ended before its goroutines")

    def start_group(self, numbers: list[int]) -> WaitGroup:
        group = WaitGroup()
        for number in numbers:
            self.handles[number] = group.go(self.function(number), number)
        return group

    def wait_group(self, actor: Actor, ledger: Ledger, numbers: list[int], limit: float | None) -> None:
        group = self.start_group(numbers)
        if group.wait(limit):
            self.all_ended(numbers, "a WaitGroup is done before its goroutines")
        elif limit is None:
            raise Failure("a WaitGroup's wait without a limit ended too early")

    def parmap(self, actor: Actor, ledger: Ledger, items: int, limit: int, ordered: bool) -> None:
        def work(n: int) -> int:
            gosched()
            return n

        self.check_mapped(list(self.mapped(work, items, limit, ordered)), items, ordered)

    def mapped(self, work: Callable[[int], Any], items: int, limit: int, ordered: bool) -> Any:
        return parmap(work, range(items), limit=limit, ordered=ordered)

    def check_mapped(self, got: list[int], items: int, ordered: bool) -> None:
        if sorted(got) != list(range(items)) or (ordered and got != sorted(got)):
            raise Failure(f"parmap gave {got}")


class Signals:
    """Signals that keep coming while a program runs. Their handler tries to send and to receive in the main thread."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._over = machine, False
        self._rnd = random.Random(machine.program.seed)
        self._before: Any = None
        self._thread = threading.Thread(target=self._send, name="signals")

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGUSR1, self._handle)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    def _send(self) -> None:
        ledger = self._machine.handler
        while not self._over:
            handled = ledger.events["signal"]
            os.kill(os.getpid(), signal.SIGUSR1)
            # One handler at a time: its books are those of one actor.
            while ledger.events["signal"] == handled and not self._over:
                time.sleep(0.0001)
            time.sleep(self._rnd.random() * 0.002)

    def _handle(self, _number: int, _frame: object) -> None:
        machine = self._machine
        number = self._rnd.randrange(len(machine.channels))
        try:
            machine.take(
                machine.program.actors[0], machine.handler, (self._rnd.choice(("try_send", "try_recv")), number)
            )
        except Exception as error:  # not in the middle of whatever it has interrupted
            machine.problems.append(f"the handler of signals: {error!r}")
        machine.handler.events["signal"] += 1


class Choice:
    """One select: what is tried, and what came of it. To be entered around the call."""

    def __init__(self, machine: Machine, ledger: Ledger, cases: list[Step], limit: float | None) -> None:
        self.machine, self.ledger, self.cases, self.limit = machine, ledger, cases, limit
        self.made: list[Any] = []
        self.picked: Any = None
        self._values: dict[int, int] = {}  # those to send, until they are
        self._was_closed = [kind == "send" and what is not None and machine.closed[what] for kind, what in cases]
        for index, (kind, what) in enumerate(cases):
            if kind == "after":
                self.made.append(recv(after(what)))
            elif kind == "done":
                self.made.append(recv(what.done))
            elif kind == "recv":
                self.made.append(recv(None if what is None else machine.channels[what]))
            else:
                token = ledger.token()
                self._values[index] = token.number
                self.made.append(send(None if what is None else machine.channels[what], token))
        self._before = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.made.clear()
        if self.picked is not None and self.picked.index in self._values:
            self.ledger.sent.append((self.cases[self.picked.index][1], self._values.pop(self.picked.index)))
        self.ledger.kept.extend(self._values.values())
        if kind is None and self.picked is None:
            self.ledger.events["timed out"] += 1
            if self.limit is None or time.monotonic() - self._before < self.limit - self.machine.slack:
                raise Failure(f"a select with a limit of {self.limit} s ended without a case")
        if kind is None or not issubclass(kind, Closed):
            return False
        self.ledger.events["closed"] += 1
        channels = self.machine.channels
        if not any(kind == "send" and what is not None and channels[what].closed for kind, what in self.cases):
            raise Failure("a select says Closed, and no channel is") from None
        return True

    def note(self) -> None:
        """Keeps what was received, and looks whether that can be."""
        picked = self.picked
        if picked is None:
            return
        kind, what = self.cases[picked.index]
        if kind == "recv" and picked.ok:
            self.ledger.received.append((what, picked.value.number))
        elif kind == "recv" and not self.machine.channels[what].closed:
            raise Failure(f"a select says that channel {what} is closed")
        elif kind == "send" and self._was_closed[picked.index]:
            raise Failure(f"a select has sent on channel {what} after it was closed")
        elif kind == "done" and what.err() is None:
            raise Failure("a context is done and has no error")


class Thread:
    """A plain thread, with the handle that goroutines have."""

    def __init__(self, fn: Callable[[int], object], number: int) -> None:
        self._ended = Event()

        def run() -> None:
            try:
                fn(number)
            finally:
                self._ended.set()

        self._thread = threading.Thread(target=run, name=f"actor {number}")
        self._thread.start()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout: float | None) -> bool:
        return self._ended.wait(timeout)

    def ajoin(self, timeout: float | None) -> Awaitable[bool]:
        return self._ended.await_(timeout)

    def cancel(self, _message: object) -> bool:
        return False

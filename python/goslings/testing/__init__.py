"""Tests of concurrent code that do not depend on luck: clocks that jump, and schedules that are tried one by one.

>>> from goslings import AtomicInt, WaitGroup
>>> from goslings.testing import explore
>>> def lost_update():
...     number, group = AtomicInt(), WaitGroup()
...     for _ in range(2):
...         group.go(lambda: number.store(number.load() + 1))
...     group.wait()
...     assert number.load() == 2
>>> try:
...     explore(lost_update, seed=1)
... except AssertionError as failure:
...     print(type(failure).__name__)
ScheduleFailure
"""

from goslings.testing._explore import Exploration as Exploration
from goslings.testing._explore import explore as explore
from goslings.testing._explore import replay as replay
from goslings.testing._trace import ScheduleFailure as ScheduleFailure
from goslings.testing._trace import TraceStep as TraceStep
from goslings.testing._virtual import Clock as Clock
from goslings.testing._virtual import now as now
from goslings.testing._virtual import sleep as sleep
from goslings.testing._virtual import virtual_time as virtual_time
from goslings.testing._virtual import wait as wait

__all__ = [
    "Clock",
    "Exploration",
    "ScheduleFailure",
    "TraceStep",
    "explore",
    "now",
    "replay",
    "sleep",
    "virtual_time",
    "wait",
]

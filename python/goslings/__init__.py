"""Goroutines and channels for Python: ordinary functions started with `go`, talking over channels.

>>> from goslings import go, chan
>>> squares = chan()
>>> def square(n):
...     squares.send(n * n)
>>> for n in range(3):
...     _ = go(square, n)
>>> sorted(squares.recv() for _ in range(3))
[0, 1, 4]
"""

from goslings._blocking import blocking as blocking
from goslings._context import Context as Context
from goslings._context import background as background
from goslings._errors import Cancelled as Cancelled
from goslings._errors import Closed as Closed
from goslings._errors import DeadlineExceeded as DeadlineExceeded
from goslings._errors import Deadlock as Deadlock
from goslings._errors import GoslingsError as GoslingsError
from goslings._errors import WouldBlock as WouldBlock
from goslings._goslings import AtomicInt as AtomicInt
from goslings._goslings import Barrier as Barrier
from goslings._goslings import Case as Case
from goslings._goslings import Cond as Cond
from goslings._goslings import Event as Event
from goslings._goslings import Goroutine as Goroutine
from goslings._goslings import Mutex as Mutex
from goslings._goslings import RecvChan as RecvChan
from goslings._goslings import RWMutex as RWMutex
from goslings._goslings import Selected as Selected
from goslings._goslings import Semaphore as Semaphore
from goslings._goslings import SendChan as SendChan
from goslings._goslings import Ticker as Ticker
from goslings._goslings import Timer as Timer
from goslings._goslings import WaitGroup as WaitGroup
from goslings._goslings import after as after
from goslings._goslings import after_func as after_func
from goslings._goslings import agosched as agosched
from goslings._goslings import aselect as aselect
from goslings._goslings import asleep as asleep
from goslings._goslings import chan as chan
from goslings._goslings import current as current
from goslings._goslings import go as go
from goslings._goslings import goexit as goexit
from goslings._goslings import gomaxprocs as gomaxprocs
from goslings._goslings import gosched as gosched
from goslings._goslings import lock_os_thread as lock_os_thread
from goslings._goslings import num_goroutine as num_goroutine
from goslings._goslings import recv as recv
from goslings._goslings import select as select
from goslings._goslings import send as send
from goslings._goslings import sleep as sleep
from goslings._goslings import unlock_os_thread as unlock_os_thread
from goslings._group import Group as Group
from goslings._hooks import ExceptHookArgs as ExceptHookArgs
from goslings._hooks import excepthook as excepthook
from goslings._leaks import leaks as leaks
from goslings._map import Map as Map
from goslings._once import Once as Once
from goslings._once import once_value as once_value
from goslings._parmap import parmap as parmap
from goslings._patch import PatchReport as PatchReport
from goslings._patch import patch as patch
from goslings._pool import Pool as Pool
from goslings._runtime import install as _install
from goslings._singleflight import SingleFlight as SingleFlight
from goslings._stacks import GoroutineStack as GoroutineStack
from goslings._stacks import dump as dump
from goslings._stacks import stacks as stacks
from goslings._stats import Stats as Stats
from goslings._stats import stats as stats

__version__ = "0.1.0"

_install()
del _install

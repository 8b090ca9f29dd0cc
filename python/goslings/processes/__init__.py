"""Places on this machine: worker processes that run goroutines and share channels.

>>> from goslings import chan
>>> from goslings.processes import Processes
>>> with Processes(1) as workers:
...     squares = chan()
...     _ = workers.go(lambda: [squares.send(n * n) for n in range(3)])
...     print([squares.recv() for _ in range(3)])
[0, 1, 4]
"""

from goslings.processes._errors import WorkerDied as WorkerDied
from goslings.processes._pool import Processes as Processes

__all__ = ["Processes", "WorkerDied"]

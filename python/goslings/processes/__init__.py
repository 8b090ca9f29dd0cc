"""Places: worker processes on this machine, and objects served to processes and machines anywhere.

>>> from goslings import chan
>>> from goslings.processes import Processes
>>> with Processes(1) as workers:
...     squares = chan()
...     _ = workers.go(lambda: [squares.send(n * n) for n in range(3)])
...     print([squares.recv() for _ in range(3)])
[0, 1, 4]

>>> from goslings.processes import connect, serve
>>> class Counter:
...     def __init__(self):
...         self.count = 0
...     def add(self, n=1):
...         self.count += n
...         return self.count
>>> with serve(Counter(), ("localhost", 0), b"a secret of both sides") as server:
...     with connect(server.address, b"a secret of both sides") as counter:
...         counter.add(), counter.add(40)
(1, 41)

>>> from goslings.processes import Value
>>> Value("i", 41).add()
42
"""

from typing import TYPE_CHECKING, Any

from goslings.processes._errors import RemoteTraceback as RemoteTraceback
from goslings.processes._errors import WorkerDied as WorkerDied
from goslings.processes._pool import Processes as Processes
from goslings.processes._pool import WorkerStats as WorkerStats
from goslings.processes._remote import AuthenticationError as AuthenticationError
from goslings.processes._remote import Disconnected as Disconnected
from goslings.processes._remote import Proxy as Proxy
from goslings.processes._remote import RemoteChan as RemoteChan
from goslings.processes._remote import RemoteError as RemoteError
from goslings.processes._remote import RemoteMethod as RemoteMethod
from goslings.processes._remote import RemoteRecvChan as RemoteRecvChan
from goslings.processes._remote import RemoteSendChan as RemoteSendChan
from goslings.processes._remote import Server as Server
from goslings.processes._remote import Shared as Shared
from goslings.processes._remote import aconnect as aconnect
from goslings.processes._remote import connect as connect
from goslings.processes._remote import disconnect as disconnect
from goslings.processes._remote import serve as serve
from goslings.processes._shared import Array as Array
from goslings.processes._shared import Value as Value

if TYPE_CHECKING:
    from goslings.processes._shared_array import SharedArray as SharedArray
    from goslings.processes._shared_array import shared_array as shared_array

__all__ = [
    "Array",
    "AuthenticationError",
    "Disconnected",
    "Processes",
    "Proxy",
    "RemoteChan",
    "RemoteError",
    "RemoteMethod",
    "RemoteRecvChan",
    "RemoteSendChan",
    "RemoteTraceback",
    "Server",
    "Shared",
    "SharedArray",
    "Value",
    "WorkerDied",
    "WorkerStats",
    "aconnect",
    "connect",
    "disconnect",
    "serve",
    "shared_array",
]


def __getattr__(name: str) -> Any:
    # These need NumPy, which need not be there.
    if name in ("SharedArray", "shared_array"):
        from goslings.processes import _shared_array

        return getattr(_shared_array, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Objects served to other processes and machines: `serve` and `connect`.

From the outside in: `_server.py` (listens, admits, connects), `_proxy.py` and `_channel.py` (what users hold),
`_session.py` (the connection: calls, messages, the end), `_serving.py` (calls of the other side), `_operations.py`
(selects among channels), `_references.py` (what each side has of the other), `_carry.py` (what is pickled and what
stays), `_shared.py` (allow-lists), `_frames.py` (sealed messages), `_auth.py` (who is there), `_wire.py` (TCP, Unix
sockets, TLS).
"""

from goslings.processes._remote._channel import RemoteChan as RemoteChan
from goslings.processes._remote._channel import RemoteRecvChan as RemoteRecvChan
from goslings.processes._remote._channel import RemoteSendChan as RemoteSendChan
from goslings.processes._remote._errors import AuthenticationError as AuthenticationError
from goslings.processes._remote._errors import Disconnected as Disconnected
from goslings.processes._remote._errors import RemoteError as RemoteError
from goslings.processes._remote._proxy import Proxy as Proxy
from goslings.processes._remote._proxy import RemoteMethod as RemoteMethod
from goslings.processes._remote._proxy import disconnect as disconnect
from goslings.processes._remote._server import Server as Server
from goslings.processes._remote._server import aconnect as aconnect
from goslings.processes._remote._server import connect as connect
from goslings.processes._remote._server import serve as serve
from goslings.processes._remote._shared import Shared as Shared

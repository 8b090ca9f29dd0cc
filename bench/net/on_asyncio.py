"""The echo server on asyncio: `on_asyncio.py PORT streams|protocols [uvloop]`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass


async def main() -> None:
    port = int(sys.argv[1])
    if sys.argv[2] == "protocols":
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    else:
        server = await asyncio.start_server(echo, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


factory = None
if "uvloop" in sys.argv:
    import uvloop

    factory = uvloop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())

"""The servers of `goslings demo fib`: a number per line in, its Fibonacci number per line out.

`python -m goslings.demo.fib_servers NAME` serves on a free port of the loopback interface, prints the port, and ends
when its standard input does. After David Beazley's talk "Python Concurrency From the Ground Up" (PyCon 2015): the
server is the same each time, but for how it does several things at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

__all__ = ["SERVERS", "fib"]


def fib(n: int) -> int:
    """Slowly, on purpose."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def answer(client: socket.socket, compute: Callable[[int], int]) -> None:
    """Serves one client. Plain blocking code."""
    with client, client.makefile("rb") as lines:
        for line in lines:
            client.sendall(b"%d\n" % compute(int(line)))


def threads(listener: socket.socket) -> None:
    """A thread for each client, which computes, too."""
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(client, fib), daemon=True).start()


def processes(listener: socket.socket) -> None:
    """A thread for each client, and a pool of processes that compute."""
    with ProcessPoolExecutor(os.process_cpu_count()) as pool:
        pool.submit(fib, 1).result()
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            compute = lambda n: pool.submit(fib, n).result()  # noqa: E731 - the same as `fib`, elsewhere
            threading.Thread(target=answer, args=(client, compute), daemon=True).start()


def event_loop(listener: socket.socket) -> None:
    """asyncio: a task for each client, which computes, too."""

    async def answer_task(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"%d\n" % fib(int(line)))
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer_task, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


def goroutines(listener: socket.socket) -> None:
    """A goroutine for each client, with the same code as the thread has; `blocking` calls what may take long."""
    from goslings import blocking, go

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            go(answer, client, lambda n: blocking(fib, n))

    go(accept).result()


def coroutines(listener: socket.socket) -> None:
    """A goroutine without a stack for each client, which computes, too: any worker goes on with it."""
    from goslings import go, net

    async def answer_async(conn: net.Conn) -> None:
        with conn:
            while data := await conn.arecv(100):
                for line in data.splitlines():
                    await conn.asend(b"%d\n" % fib(int(line)))

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            go(answer_async, net.Conn(client.detach()))

    go(accept).result()


SERVERS: dict[str, Callable[[socket.socket], None]] = {
    "threads": threads,
    "threads+processes": processes,
    "asyncio": event_loop,
    "goslings": goroutines,
    "goslings-async": coroutines,
}


def main(name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    parent = sys.stdin
    if name.startswith("goslings"):
        import goslings

        goslings.patch()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)

    def end_with_parent() -> None:
        os.read(parent.fileno(), 1)
        os.killpg(0, signal.SIGKILL)  # and the pool's processes

    os.setpgid(0, 0)
    threading.Thread(target=end_with_parent, daemon=True).start()
    SERVERS[name](listener)


if __name__ == "__main__":
    main(sys.argv[1])

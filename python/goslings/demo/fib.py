"""`goslings demo fib`: short requests beside long ones, for five ways to write the same server.

`fib_servers` has the servers; the one with goroutines is blocking socket code under `goslings.patch()`. Each runs in a
process of its own, and `fib_client` in another asks it. Here they are started, and what came out is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .feed_options import positive, seconds
from .feed_page import FeedError
from .feed_report import interpreter, matplotlib_pyplot
from .fib_client import LONG
from .fib_servers import SERVERS

_DESCRIPTION = f"""\
David Beazley's server, live: it answers each line with the Fibonacci number of the number in it. One connection asks
for fib(1), alone at first, and then while another connection asks for fib({LONG}), which keeps a CPU busy. Measured are
the short requests, in turn against a server with threads, one with threads and a pool of processes, one with asyncio,
one with goroutines: blocking socket code, with the standard library patched; and one with goroutines of `async def`.
"""

_EPILOG = """\
examples:
  goslings demo fib                      all servers, 3 s for each figure
  goslings demo fib --seconds 10 --rounds 3 --plot fib.svg
  goslings demo fib --only threads,goslings

How to read the table. `kept` is how much of its rate alone a server keeps beside the long requests. With a GIL, threads
wait for it 5 ms at each request; an event loop waits for the whole computation. Figures are medians of the rounds.
"""


def main(argv: Sequence[str]) -> int:
    """The command. Returns the exit status."""
    options = _options(argv)
    try:
        if options.plot:
            matplotlib_pyplot()
        print(interpreter(), flush=True)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for _ in range(options.rounds):
            for name, done in rounds.items():
                if sys.stderr.isatty():
                    print(f"\r{name:20}\r", end="", file=sys.stderr, flush=True)
                done.append(measure(name, options.seconds))
        rows = {name: _median(done) for name, done in rounds.items()}
        print(table(rows))
        if options.json:
            options.json.write_text(json.dumps({"python": interpreter(), "servers": rows}, indent=1) + "\n")
        if options.plot:
            plot(options.plot, rows)
    except (FeedError, OSError) as error:
        print(f"goslings demo fib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("goslings demo fib: interrupted", file=sys.stderr)
        return 130
    return 0


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Runs one server and the client. Raises FeedError if one of them fails."""
    command = [sys.executable, "-m", "goslings.demo.fib_servers", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                raise FeedError(f"the server with {name} did not start; its error is above")
            client = [sys.executable, "-m", "goslings.demo.fib_client", port, str(seconds)]
            done = subprocess.run(client, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise FeedError(f"the client of the server with {name} failed; its error is above")
            result: dict[str, Any] = json.loads(done.stdout)
            return result
        finally:
            assert server.stdin is not None
            server.stdin.close()  # at which it ends, with its processes
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def _median(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        case: {key: statistics.median(each[case][key] for each in rounds) for key in rounds[0][case]}
        for case in ("alone", "beside")
    }


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Rates and latencies of the short requests."""
    lines = [
        f"{'':18} {'fib(1) alone':^30}   {f'fib(1) beside fib({LONG})':^38}   {f'fib({LONG})':>8}",
        f"{'':18} {'req/s':>10} {'p50':>9} {'p99':>9}   {'req/s':>10} {'kept':>7} {'p50':>9} {'p99':>9}   {'req/s':>8}",
    ]
    for name, row in rows.items():
        alone, beside = row["alone"], row["beside"]
        lines.append(
            f"{name:18} {alone['rate']:10,.0f} {_time(alone['p50']):>9} {_time(alone['p99']):>9}   "
            f"{beside['rate']:10,.0f} {beside['rate'] / alone['rate']:7.1%} {_time(beside['p50']):>9} "
            f"{_time(beside['p99']):>9}   {beside['long']:8.1f}"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def plot(path: Path, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Rates and p99 of both cases, as bars. Needs matplotlib. Raises FeedError."""
    pyplot = matplotlib_pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    names = list(rows)
    for side, (key, label, factor) in zip(
        axes, [("rate", "requests for fib(1) per second", 1.0), ("p99", "p99 of fib(1), ms", 1e3)], strict=True
    ):
        for offset, case, color in ((0.0, "alone", "#4a7"), (0.4, "beside", "#a33")):
            values = [rows[name][case][key] * factor for name in names]
            bars = side.barh([at + offset for at in range(len(names))], values, 0.38, color=color, label=case)
            side.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        side.set_xscale("log")
        side.margins(x=0.2)
        side.set_yticks([at + 0.2 for at in range(len(names))], names)
        side.set_xlabel(label)
        side.invert_yaxis()
    axes[0].legend(["alone", f"beside fib({LONG})"], fontsize=8)
    figure.suptitle(interpreter(), fontsize=10)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise FeedError(f"cannot draw {path}: {error}") from None


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SERVERS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(SERVERS)}")
    return names


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="goslings demo fib",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=seconds, default=3.0, metavar="S", help="for each figure (default 3)")
    add("--rounds", type=positive(100), default=1, metavar="N", help="measure so often (default 1)")
    add("--only", type=_names, default=list(SERVERS), metavar="NAME,…", help=f"some of {', '.join(SERVERS)}")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--plot", type=Path, metavar="FILE", help="draw them (PNG, SVG or PDF); needs matplotlib")
    return parser.parse_args(argv)

"""Exit: the program ends when main does, at once, whoever waits."""

from __future__ import annotations

import time

import pytest
from helpers import check_child, count, run_child

MANY = count(10_000)

PARKED = f"""
import atexit, os, sys, threading, time
from goslings import chan, go, select, recv, send, sleep, num_goroutine, gosched, Ticker, after, after_func
ch, full, n = chan(), chan(1), {MANY}
full.send(0)
waits = [ch.recv, lambda: full.send(1), lambda: select(recv(ch), send(full, 1)), lambda: sleep(3600),
         lambda: ch.recv(timeout=3600), lambda: select()]
def waits_in_finally(i):
    try:
        waits[i % len(waits)]()
    finally:
        print("unwound", file=sys.stderr)
goroutines = [go(waits_in_finally, i) for i in range(n)]
for _ in range(200):
    gosched()
"""

ENDS = {
    "plain end": ("", 0, ""),
    "everything parked": (
        "while any('not started' in repr(g) for g in goroutines[::100]): sleep(0.001)\nsleep(0.05)",
        0,
        "",
    ),
    "handles dropped": ("del goroutines", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "sys.exit with text": ("sys.exit('text')", 1, "text\n"),
    "an exception": ("raise KeyError('main')", 1, "KeyError: 'main'\n"),
    "os._exit": ("os._exit(5)", 5, ""),
    "exit from a goroutine": ("go(os._exit, 6)\nchan().recv()", 6, ""),
    "busy workers": ("def busy():\n    while True: pass\nfor _ in range(4): go(busy)\nsleep(0.01)", 0, ""),
    "busy workers that switch": (
        "def busy():\n    while True:\n        gosched(); len(goroutines)\nfor _ in range(4): go(busy)\nsleep(0.01)",
        0,
        "",
    ),
    "workers that hand over": (
        "def a():\n    while True: x.send(1)\ndef b():\n    while True: x.recv()\n"
        "x = chan()\nfor _ in range(4): go(a); go(b)\nsleep(0.01)",
        0,
        "",
    ),
    "workers in C code": ("import time\nfor _ in range(2): go(time.sleep, 3600)\nsleep(0.01)", 0, ""),
    "workers that collect": (
        "import gc\ndef collects():\n    while True: gc.collect(0)\nfor _ in range(2): go(collects)\nsleep(0.01)",
        0,
        "",
    ),
    "workers that start others": (
        "def starts():\n    while True: go(ch.recv, timeout=0.001).join(); go(int)\n"
        "import goslings\ngoslings.excepthook = lambda args: None\nfor _ in range(4): go(starts)\nsleep(0.01)",
        0,
        "",
    ),
    "timers": (
        "t = [Ticker(0.0001) for _ in range(10)] + [after(i / 1000) for i in range(100)] + "
        "[after_func(i / 10000, gosched) for i in range(100)]\nsleep(0.005)",
        0,
        "",
    ),
    "threads that wait": (
        "for _ in range(5): threading.Thread(target=chan().recv, daemon=True).start()\nsleep(0.01)",
        0,
        "",
    ),
    "a thread that still works": (
        "def late():\n    time.sleep(0.05)\n    ch2 = chan()\n    go(ch2.send, 1)\n    assert ch2.recv() == 1\n"
        "threading.Thread(target=late).start()",
        0,
        "",
    ),
    "atexit functions that use goroutines": (
        "@atexit.register\ndef late():\n    ch2 = chan()\n    go(ch2.send, 1)\n    assert ch2.recv(timeout=10) == 1",
        0,
        "",
    ),
    "finalizers that use channels": (
        "class Final:\n    def __del__(self, chan=chan):\n"
        "        ch3 = chan(1); ch3.send(1); ch3.recv(); ch3.try_recv(None); ch3.close()\n"
        "keep = Final()\nkeep.me = keep",
        0,
        "",
    ),
    "finalizers that start goroutines": (
        "class Final:\n    def __del__(self, go=go):\n        go(int)\nkeep = Final()",
        0,
        "",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_g02_exit_with_many_parked_goroutines(end: str) -> None:
    code, status, err = ENDS[end]
    # A half of a second is allowed for starting them, and ten for leaving on a machine that is busy.
    done = run_child(PARKED + code, seconds=30)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr[-2000:]
    if "exception" in end:
        assert done.stderr.endswith(err)
        assert "unwound" not in done.stderr
    else:
        assert done.stderr == err


def test_exit_is_quick() -> None:
    out = check_child(PARKED + "print(time.monotonic())\n")
    assert time.monotonic() - float(out) < 5


def test_g02_when_main_returns_nobody_is_waited_for() -> None:
    out = check_child(
        """
        from goslings import go, sleep
        def work():
            try:
                print("started", flush=True)
                sleep(3600)
            finally:
                print("finally")
        g = go(work)
        while "sleep" not in repr(g):
            sleep(0.001)
        """
    )
    assert out == "started\n"


def test_g02_sys_exit_in_a_goroutine_ends_the_goroutine_only() -> None:
    out = check_child(
        """
        import sys
        from goslings import go, sleep
        go(sys.exit, 3)
        g = go(sys.exit, 4)
        sleep(0.01)
        print(type(g.exception()).__name__, g.exception().code)
        """
    )
    assert out == "SystemExit 4\n"

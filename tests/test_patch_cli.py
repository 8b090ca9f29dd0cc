"""`goslings run --patch`, `-m`, and what `goslings doctor` tells of `goslings.patch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def command(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "goslings", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


SCRIPT = """
import os, sys, threading, time
import goslings
def body():
    time.sleep(0.2)
    os.write(1, f"{goslings.current() is not None}\\n".encode())
if __name__ == "__main__":
    print(sys.argv[1:], __name__, flush=True)
    threads = [threading.Thread(target=body) for _ in range(50)]
    started = time.monotonic()
    for thread in threads: thread.start()
    print(goslings.num_goroutine() >= 50, flush=True)
    for thread in threads: thread.join()
    assert time.monotonic() - started < 9
"""


def test_run_patch_makes_threads_goroutines_everywhere(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for how in (["--patch", "--procs", "1", "script.py"], ["--patch", "--procs", "1", "-m", "script"]):
        lines = command("run", *how, "a", "--patch", cwd=tmp_path).splitlines()
        assert lines == ["['a', '--patch'] __main__", "True", *["True"] * 50], how


def test_run_without_patch_leaves_threads_alone(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    lines = command("run", "script.py", cwd=tmp_path).splitlines()
    assert lines == ["[] __main__", "False", *["False"] * 50]


def test_run_a_module_as_python_does(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import sys, package\nprint(__name__, __package__, sys.argv[1:], sys.path[0], __file__)\n"
        "assert sys.modules['__main__'].__dict__ is globals()\n"
    )
    ours = command("run", "-m", "package", "x", cwd=tmp_path)
    python = subprocess.run([sys.executable, "-m", "package", "x"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert ours == python.stdout and "package" in ours


def test_doctor_tells_of_patch(tmp_path: Path) -> None:
    (tmp_path / "early_bird.py").write_text("from time import sleep as real_sleep\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "goslings", "doctor", "--json", "--import", "early_bird"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    found = json.loads(done.stdout)["patch"]
    assert "time.sleep" in found["patched"]["time"] and "threading.Thread" in found["patched"]["threading"]
    assert found["too_early"] == ["early_bird.real_sleep is time.sleep"]
    assert found["not_patched"]

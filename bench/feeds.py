"""The feed demo as a workload: run by the demo itself, which writes what it measured as JSON."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from programs import Interpreter, environment

TIMEOUT = 1800.0


def run(interpreter: Interpreter, rounds: int, scale: float) -> dict[str, Any]:
    """What the demo measured on this interpreter, or why it did not."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "feeds.json"
        command = [interpreter.python, "-m", "goslings", "demo", "feeds", "--json", str(output)]
        command += ["--rounds", str(rounds), *(["--quick"] if scale < 1 else [])]
        try:
            done = subprocess.run(
                command, env=environment({}), cwd=folder, stdin=subprocess.DEVNULL, check=False,
                capture_output=True, text=True, timeout=TIMEOUT,
            )  # fmt: skip
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it gave no message"])[-1]
                return {"error": last}
            return digest(json.loads(output.read_text()))
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            return {"error": f"{type(error).__name__}: {error}"}


def digest(content: dict[str, Any]) -> dict[str, Any]:
    """The demo's figures, without its list of feeds."""
    if not content["same_store"]:
        return {"error": "the runs did not end with the same store"}
    ceiling = content["ceiling"]
    return {
        "ceiling": ceiling and ceiling["speedup"],
        "rows": {
            r["mode"]: {
                "seconds": statistics.median(r["walls"]),
                "least": min(r["walls"]),
                "most": max(r["walls"]),
                "speedup": r["speedup"],
                "peak_mib": r["peak_memory_bytes"] / 2**20,
            }
            for r in content["runs"]
        },
    }

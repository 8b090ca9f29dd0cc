"""The feed demo as a workload: run by the demo itself, which prints what it measured as JSON."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from programs import Interpreter, environment

TIMEOUT = 900.0


def run(interpreters: list[Interpreter], scale: float) -> dict[str, Any]:
    """Per interpreter the demo's rows, or why there are none."""
    found = {}
    for interpreter in interpreters:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "feeds.json"
            command = [interpreter.python, "-m", "goslings", "demo", "feeds", "--json", str(output)]
            try:
                done = subprocess.run(
                    command, env=environment({}), cwd=folder, stdin=subprocess.DEVNULL, check=False,
                    capture_output=True, text=True, timeout=TIMEOUT,
                )  # fmt: skip
                if done.returncode:
                    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                    found[interpreter.tag] = {"error": last}
                else:
                    found[interpreter.tag] = json.loads(output.read_text())
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                found[interpreter.tag] = {"error": str(error)}
    return found

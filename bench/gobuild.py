"""Finds Go and builds bench/go with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "go"
HOW_TO_GET_IT = (
    "Go was not found, so there are no Go columns. Install Debian's `golang-go` package or unpack "
    "a release of Go, then put `go` on PATH, set GOSLINGS_GO=/path/to/go, or pass --go /path/to/go."
)


def find(given: str | None) -> str | None:
    """The `go` command: --go, $GOSLINGS_GO, PATH."""
    wanted = given or os.environ.get("GOSLINGS_GO")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise SystemExit(f"{wanted} is not a go command")
        return found
    return shutil.which("go")


def build(go: str) -> Path:
    """Build the program; the binary is kept outside of the tree."""
    folder = Path(tempfile.gettempdir()) / f"goslings-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    binary = folder / "goslings-bench"
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0", "GOWORK": "off"}
    command = [go, "build", "-o", str(binary), "."]
    done = subprocess.run(command, cwd=SOURCES, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench/go could not be built with {go}:\n{done.stderr}")
    return binary

"""The command line: `goslings run`, `serve`, `doctor` and `demo`; `python -m goslings` is the same."""

from __future__ import annotations

import argparse
import builtins
import importlib
import io
import os
import runpy
import sys
import types
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader

import goslings
from goslings import _doctor, _goslings, _stacks

__all__ = ["main"]

DEMOS = {
    "feeds": (
        "goslings.demo.feeds",
        "a feed reader: the same input read one by one, with threads, processes and goroutines",
    ),
    "fib": (
        "goslings.demo.fib",
        "a server that computes: short requests beside long ones, with threads, asyncio and goroutines",
    ),
    "crawl": (
        "goslings.demo.crawl",
        "a crawler with requests, unmodified, in 500 goroutines on two workers",
    ),
}
"""Name: the module whose `main(argv)` it is, and what it shows."""

EXAMPLES = """\
examples:
  goslings run server.py --port 8000      as `python server.py --port 8000`
  goslings run --procs 2 crunch.py        the same, with two workers
  goslings run --patch -m http.server     a module, with the standard library patched
  goslings serve hello:app                a WSGI application: Flask, Django …
  goslings doctor                         what goslings finds on this machine, and whether it works
  goslings doctor --import numpy          whether importing numpy turns the GIL on
  goslings demo                           what there is to see
  goslings demo feeds                     see it

`goslings COMMAND --help` tells more about each.
"""

RUN_HELP = """\
Runs a script as `python script.py` would: as __main__, with its own arguments and its folder first in
sys.path. What follows the script belongs to the script. With --patch the standard library's calls that
wait park (see goslings.patch), and threads are goroutines, also those that the main thread starts.
SIGQUIT (Ctrl-\\) prints what every goroutine does and ends the program with status 2, as a deadlock does.
"""

RUN_EXAMPLES = """\
examples:
  goslings run server.py --port 8000
  goslings run --patch -m http.server 8000
  goslings run --procs 2 crunch.py input.csv
"""

DOCTOR_HELP = """\
Tells what goslings finds: the interpreter and its GIL, the number of workers and why, what it uses of the
kernel, versions, and the variables that steer it. Then it starts a thousand goroutines and measures a
round trip. The exit status is 0 if all is well; else 1, and the last lines say what to do.
"""

DOCTOR_EXAMPLES = """\
examples:
  goslings doctor
  goslings doctor --import numpy --import mypackage._speedups
  goslings doctor --json | jq .workers
"""

DEMO_EXAMPLES = """\
examples:
  goslings demo                 lists the demos
  goslings demo feeds --help    the options of one
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (default: the process's own arguments) and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:  # has a parser of its own, and options that begin with a dash
        status: int = importlib.import_module("goslings.wsgi._command").main(arguments[1:])
        return status
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "run":
        return run(
            options.script,
            options.args,
            options.procs,
            options.warn_blocking,
            as_module=options.module,
            patched=options.patch,
        )
    if options.command == "doctor":
        return _doctor.main(options.modules, as_json=options.json)
    if options.command == "demo":
        return demo(options.name, options.args)
    parser.print_help()
    return 0


def run(
    script: str,
    args: Sequence[str],
    procs: int | None = None,
    warn_blocking: int | None = None,
    *,
    as_module: bool = False,
    patched: bool = False,
) -> int:
    """Runs the script in this process, which is its own from now on. Lets its SystemExit pass.

    As `python -m` would, if it is a module's name.
    """
    path, source = os.path.abspath(script), b""
    if not as_module:
        try:
            with io.open_code(path) as file:
                source = file.read()
        except OSError as error:
            return _complain("run", f"can't open {script!r}: {error.strerror}")
    if procs is not None:
        try:
            goslings.gomaxprocs(procs)
        except ValueError as error:
            return _complain("run", f"--procs {procs}: {error}")
    if warn_blocking is not None:
        _goslings._set_warn_ms(warn_blocking)
    _stacks.quit_on_signal()
    if patched:
        goslings.patch(everywhere=True)
    module = types.ModuleType("__main__")
    vars(module).update(__builtins__=builtins)
    # It stays __main__ after its last line: threads and atexit functions still look for it.
    sys.modules["__main__"] = module
    sys.argv[:] = [script, *args]
    try:
        if as_module:
            if not sys.flags.safe_path:
                sys.path[0] = os.getcwd()
            # Not public, and so unknown to the types: what `python -m` itself calls.
            runpy._run_module_as_main(script)  # type: ignore[attr-defined]
        else:
            if not sys.flags.safe_path:
                sys.path[0] = os.path.dirname(os.path.realpath(path))
            loader = SourceFileLoader("__main__", path)
            vars(module).update(__file__=path, __loader__=loader, __cached__=None)
            exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except Exception as error:
        # Shown here, as the interpreter would, so that the traceback begins with the script.
        _show(error)
        return 2 if isinstance(error, goslings.Deadlock) else 1
    return 0


def _show(error: Exception) -> None:
    """Prints the traceback without our own frame, which is its first."""
    traceback = error.__traceback__
    error.__traceback__ = traceback and traceback.tb_next
    sys.excepthook(type(error), error, error.__traceback__)


def demo(name: str | None, args: Sequence[str]) -> int:
    """Runs a demo, or lists them."""
    if name is None:
        for known, (_, what) in DEMOS.items():
            print(f"goslings demo {known:8} {what}")
        return 0
    if name not in DEMOS:
        return _complain("demo", f"there is no demo {name!r}; there is: {', '.join(DEMOS)}")
    status: int = importlib.import_module(DEMOS[name][0]).main(list(args))
    return status


def _complain(command: str, text: str) -> int:
    print(f"goslings {command}: {text}", file=sys.stderr)
    return 2


def _procs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="goslings",
        description="Goroutines and channels for Python.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"goslings {goslings.__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")

    def command(name: str, help: str, description: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    run = command("run", "run a script", RUN_HELP, RUN_EXAMPLES)
    run.add_argument(
        "--warn-blocking",
        type=_procs,
        metavar="MS",
        help="print where a goroutine has held its worker for so many milliseconds while others waited",
    )
    run.add_argument("--procs", type=_procs, metavar="N", help="workers that run goroutines (see goslings.gomaxprocs)")
    run.add_argument("--patch", action="store_true", help="call goslings.patch() first")
    run.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    run.add_argument("script", help="a Python source file")
    run.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the script")

    command("serve", "serve a WSGI application", "", "")

    doctor = command("doctor", "tell what is found here, and whether it works", DOCTOR_HELP, DOCTOR_EXAMPLES)
    doctor.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="tell whether importing it turns the GIL of a free-threaded build on (repeatable)",
    )
    doctor.add_argument("--json", action="store_true", help="tell it as JSON")

    demo = command("demo", "see goslings at work", "Runs a demo; without a name lists them.", DEMO_EXAMPLES)
    demo.add_argument("name", nargs="?", metavar="NAME", help=f"one of: {', '.join(DEMOS)}")
    demo.add_argument("args", nargs=argparse.REMAINDER, help="arguments of the demo")
    return parser


if __name__ == "__main__":
    sys.exit(main())

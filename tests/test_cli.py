"""The command line: `goslings run`, `doctor` and `demo`, as users call them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import goslings
import pytest
from goslings import __main__ as cli
from helpers import FREE_THREADED

FREE_THREADED_BUILD = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

Result = subprocess.CompletedProcess[str]


def command(
    *args: str, cwd: Path | None = None, env: dict[str, str] | None = None, python: Sequence[str] = ()
) -> Result:
    """Runs `python -m goslings ARGS`."""
    return subprocess.run(
        [sys.executable, *python, "-m", "goslings", *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def script(folder: Path, text: str, name: str = "script.py") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def output(result: Result) -> str:
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


# The command as a whole


def test_help_teaches_with_examples() -> None:
    shown = output(command("--help"))
    for part in ("goslings run server.py", "goslings doctor", "goslings demo feeds"):
        assert part in shown
    for name in ("run", "doctor", "demo"):
        assert "examples:" in output(command(name, "--help"))


def test_without_a_command_it_shows_its_help() -> None:
    assert output(command()) == output(command("--help"))


def test_version() -> None:
    assert output(command("--version")) == f"goslings {goslings.__version__}\n"


def test_the_console_script_is_the_same() -> None:
    installed = Path(sysconfig.get_path("scripts")) / "goslings"
    shown = subprocess.run([installed, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown == f"goslings {goslings.__version__}\n"


@pytest.mark.parametrize(
    "args",
    [["walk"], ["run"], ["--fast"], ["doctor", "numpy"], ["run", "--procs", "0", "x.py"]],
    ids=" ".join,
)
def test_a_wrong_command_line_is_an_error_with_status_2(args: list[str]) -> None:
    result = command(*args)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("usage: goslings")
    assert "error: " in result.stderr.splitlines()[-1]


# run


def test_run_is_the_script_as_main(tmp_path: Path) -> None:
    text = """
import sys
print(__name__, __file__, sys.argv, sys.path[0], sep="\\n")
print(sys.modules["__main__"].__dict__ is globals(), __spec__, __package__, __doc__)
"""
    path = script(tmp_path, '"""What it does."""' + text)
    ours = output(command("run", path, "a", "--help", "--procs", "2", "--", "-x"))
    plain = subprocess.run(
        [sys.executable, path, "a", "--help", "--procs", "2", "--", "-x"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ours == plain.stdout
    assert "What it does." in ours


def test_run_finds_what_lies_beside_the_script_not_what_lies_here(tmp_path: Path) -> None:
    script(tmp_path, "where = 'beside'", "there/goslings_test_neighbour.py")
    script(tmp_path, "where = 'here'", "here/goslings_test_neighbour.py")
    script(tmp_path, "import goslings_test_neighbour as n; print(n.where)", "there/script.py")
    (tmp_path / "here" / "link.py").symlink_to(tmp_path / "there" / "script.py")
    for path in ("../there/script.py", "link.py"):
        assert output(command("run", path, cwd=tmp_path / "here")) == "beside\n"


def test_run_with_a_safe_path_adds_no_folder(tmp_path: Path) -> None:
    path = script(tmp_path, "import sys; print(sys.path[0])")
    shown = output(command("run", path, python=["-P"]))
    assert shown.strip() != str(tmp_path)


def test_run_runs_goroutines(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "from goslings import go, chan\n"
        "ch = chan()\n"
        "def square(n):\n"
        "    ch.send(n * n)\n"
        "for n in range(3):\n"
        "    go(square, n)\n"
        "print(sorted(ch.recv() for _ in range(3)))\n",
    )
    assert output(command("run", path)) == "[0, 1, 4]\n"


def test_run_sets_the_number_of_workers(tmp_path: Path) -> None:
    path = script(tmp_path, "import goslings; print(goslings.gomaxprocs())")
    assert output(command("run", "--procs", "3", path, env={"GOSLINGS_PROCS": "2"})) == "3\n"
    assert output(command("run", path, env={"GOSLINGS_PROCS": "2"})) == "2\n"
    assert output(command("run", "--procs", "20", path)) == "20\n"  # which are hardly there when it ends
    many = command("run", "--procs", "100000", path)
    assert many.returncode == 2 and many.stderr.startswith("goslings run: --procs 100000: ")


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('enough')", 1, "enough\n"),
        ("raise SystemExit(3)", 3, ""),
    ],
)
def test_run_ends_as_the_script_does(tmp_path: Path, end: str, status: int, said: str) -> None:
    result = command("run", script(tmp_path, f"import sys\n{end}\n"))
    assert (result.returncode, result.stderr) == (status, said)


@pytest.mark.parametrize(
    "text", ["def f():\n    1 / 0\nf()\n", "if True\n    pass\n", "x = '\\udcff", "raise OSError(2, 'no')"]
)
def test_run_shows_an_exception_as_python_does(tmp_path: Path, text: str) -> None:
    path = script(tmp_path, text)
    ours = command("run", path)
    plain = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert ours.returncode == plain.returncode == 1
    assert ours.stderr == plain.stderr


def test_run_calls_the_excepthook_of_the_script(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import sys\nsys.excepthook = lambda kind, error, tb: print('hook', error, tb.tb_lineno)\n1 / 0\n",
    )
    result = command("run", path)
    assert (result.returncode, result.stdout, result.stderr) == (1, "hook division by zero 3\n", "")


def test_run_leaves_the_script_in_place_for_threads_and_exit_functions(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import atexit, pickle, sys, threading\n"
        "class Mine: pass\n"
        "main = threading.main_thread()\n"
        "def later():\n"
        "    main.join()\n"
        "    print(type(pickle.loads(pickle.dumps(Mine()))) is Mine)\n"
        "threading.Thread(target=later).start()\n"
        "atexit.register(lambda: print(sys.modules['__main__'].Mine is Mine))\n",
    )
    assert output(command("run", path)) == "True\nTrue\n"


def test_run_lets_spawned_processes_find_the_script(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import multiprocessing\n"
        "def square(n):\n"
        "    return n * n\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(square, [1, 2, 3]))\n",
    )
    assert output(command("run", path)) == "[1, 4, 9]\n"


def test_run_obeys_the_coding_of_the_script(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes("# coding: latin-1\nprint(ascii('é'))\n".encode("latin-1"))
    assert output(command("run", str(path))) == "'\\xe9'\n"


def test_run_is_interrupted_as_python_is(tmp_path: Path) -> None:
    path = script(tmp_path, "from goslings import chan\nprint('ready', flush=True)\nchan().recv(timeout=3600)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "goslings", "run", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("name", ["absent.py", "."])
def test_run_without_a_script_to_read_is_one_clear_line(tmp_path: Path, name: str) -> None:
    result = command("run", name, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"goslings run: can't open '{name}': ")


# doctor


def doctor(*args: str, status: int = 0, env: dict[str, str] | None = None) -> dict[str, object]:
    result = command("doctor", "--json", *args, env=env)
    assert (result.returncode, result.stderr) == (status, ""), result
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_doctor_tells_what_it_finds() -> None:
    shown = output(command("doctor"))
    assert f"goslings     {goslings.__version__}, " in shown
    assert sys.executable in shown
    assert ("free-threaded build" if FREE_THREADED_BUILD else "GIL build") in shown
    assert "1000 goroutines in " in shown and " ns for a round trip" in shown
    assert "KiB of address space for each goroutine" in shown
    assert "all is well" in shown.splitlines()[-1]


def test_doctor_tells_it_as_json() -> None:
    found = doctor(env={"GOSLINGS_PROCS": "3", "GOSLINGS_BLOCKING": "7", "GOSLINGS_STACK_KB": "256"})
    assert set(found) == {
        *(
            "goslings",
            "python",
            "workers",
            "self_test",
            "kernel",
            "packages",
            "environment",
            "imports",
            "patch",
            "problems",
        )
    }
    assert found["environment"] == {
        **{name: value for name in ("GOSLINGS_PANIC", "PYTHON_GIL") if (value := os.environ.get(name))},
        "GOSLINGS_PROCS": "3",
        "GOSLINGS_BLOCKING": "7",
        "GOSLINGS_STACK_KB": "256",
    }
    assert found["problems"] == []
    python, workers, kernel = found["python"], found["workers"], found["kernel"]
    assert isinstance(python, dict) and isinstance(workers, dict) and isinstance(kernel, dict)
    assert python["free_threaded_build"] is FREE_THREADED_BUILD
    assert python["gil"] is not FREE_THREADED
    assert (workers["procs"], workers["why"]) == (3, "GOSLINGS_PROCS says so")
    assert kernel["stack_bytes"] == 256 * 1024
    assert kernel["guard_by_advice"] in (True, False)


def test_doctor_tells_why_there_are_so_many_workers() -> None:
    env = {"GOSLINGS_PROCS": ""}
    workers = doctor(env=env)["workers"]
    assert isinstance(workers, dict)
    if FREE_THREADED:
        assert workers["why"] in ("the CPUs that this process may use", "the container's CPU quota")
        assert 1 <= workers["procs"] <= workers["usable_cpus"]
    else:
        assert (workers["procs"], workers["why"]) == (1, "with the GIL one goroutine runs at a time")


def test_doctor_says_what_to_do_about_an_import_that_fails() -> None:
    result = command("doctor", "--import", "goslings_no_such_module", "--import", "json")
    assert (result.returncode, result.stderr) == (1, "")
    what, do = result.stdout.splitlines()[-2:]
    assert what == (
        "problem: goslings_no_such_module cannot be imported: "
        "ModuleNotFoundError: No module named 'goslings_no_such_module'"
    )
    assert do == "what to do: install or repair goslings_no_such_module"
    assert "import       json: " in result.stdout


def test_doctor_survives_an_import_that_ends_the_interpreter(tmp_path: Path) -> None:
    script(tmp_path, "import os; os.abort()", "goslings_test_aborts.py")
    found = doctor("--import", "goslings_test_aborts", status=1, env={"PYTHONPATH": str(tmp_path)})
    assert found["problems"] == [
        {
            "what": f"goslings_test_aborts cannot be imported: the interpreter ended with status {-signal.SIGABRT}",
            "do": "install or repair goslings_test_aborts",
        }
    ]


OLD_EXTENSION = """\
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "goslings_test_old", .m_size = 0};
PyMODINIT_FUNC PyInit_goslings_test_old(void) { return PyModuleDef_Init(&module); }
"""


@pytest.fixture(scope="module")
def old_extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an extension module that does not say that it can do without the GIL."""
    folder = tmp_path_factory.mktemp("old")
    source = folder / "old.c"
    source.write_text(OLD_EXTENSION, encoding="ascii")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "building goslings needs a C compiler too"
    include = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    built = folder / f"goslings_test_old{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([compiler, "-shared", "-fPIC", *include, "-o", built, source], check=True)
    return folder


def test_doctor_names_the_module_that_an_import_turns_the_gil_on_for(old_extension: Path) -> None:
    script(old_extension, "import goslings_test_old", "goslings_test_innocent.py")
    found = doctor(
        *("--import", "goslings_test_innocent", "--import", "json"),
        status=1 if FREE_THREADED_BUILD else 0,
        env={"PYTHONPATH": str(old_extension)},
    )
    culprit = "goslings_test_old" if FREE_THREADED_BUILD else None
    assert found["imports"] == [
        {"module": "goslings_test_innocent", "gil": True, "enabled_by": culprit, "failure": None},
        {"module": "json", "gil": not FREE_THREADED_BUILD, "enabled_by": None, "failure": None},
    ]
    problems = found["problems"]
    assert isinstance(problems, list)
    assert [problem["what"] for problem in problems] == (
        ["importing goslings_test_old turns the GIL on: Python code then runs on one core"]
        if FREE_THREADED_BUILD
        else []
    )


def test_doctor_names_the_module_that_turned_the_gil_on_at_the_start(old_extension: Path, tmp_path: Path) -> None:
    script(
        tmp_path,
        "import warnings\nwarnings.simplefilter('ignore')\nimport goslings_test_old\n",
        "sitecustomize.py",
    )
    folders = os.pathsep.join(map(str, (tmp_path, old_extension)))
    result = command("doctor", env={"PYTHONPATH": folders, "PYTHON_GIL": ""})
    if FREE_THREADED_BUILD:
        assert result.returncode == 1
        assert "GIL          on: turned on by the module goslings_test_old\n" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("what to do: upgrade goslings_test_old ")
    else:
        assert result.returncode == 0
        assert "GIL          on: this build always has it\n" in result.stdout


@pytest.mark.skipif(not FREE_THREADED_BUILD, reason="PYTHON_GIL is for free-threaded builds")
def test_doctor_tells_that_the_gil_was_asked_for() -> None:
    found = doctor(status=1, env={"PYTHON_GIL": "1", "GOSLINGS_PROCS": ""})
    assert found["problems"] == [
        {
            "what": "the GIL is on, asked for by PYTHON_GIL=1 or -X gil=1",
            "do": "unset PYTHON_GIL and leave -X gil out",
        }
    ]
    forced = doctor(env={"PYTHON_GIL": "0"})["python"]
    assert isinstance(forced, dict)
    assert (forced["gil"], forced["gil_why"]) == (False, "forced by PYTHON_GIL=0 or -X gil=0")


# demo


def test_demo_lists_the_demos() -> None:
    lines = output(command("demo")).splitlines()
    assert len(lines) == len(cli.DEMOS)
    assert lines[0].startswith("goslings demo feeds")


def test_demo_passes_its_arguments_on() -> None:
    assert "usage: goslings demo feeds" in output(command("demo", "feeds", "--help"))


def test_an_unknown_demo_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "nothing"]) == 2
    assert capsys.readouterr() == ("", "goslings demo: there is no demo 'nothing'; there is: feeds, fib, crawl\n")

"""Stages as forks of a process that has their imports: alike, ended alike, and never old code."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from tasks import stages
from tasks.fork_client import fork_server
from tasks.guard import Start
from tasks.stages import StageFailedError, StageTransientError, reproduce
from tests.builders import REPOSITORY
from tests.tasks.builders import ignore, init_dvc

# Each starts DVC or other programs.
pytestmark = pytest.mark.slow

# A stage of a workspace that has its own copy of our code.
STAGE = """
import json, os, signal, sys, time
from pathlib import Path

umask = os.umask(0)
os.umask(umask)
found = {
    "arguments": sys.argv, "started as": sys.orig_argv[1:], "path": sys.path, "umask": umask,
    "environment": dict(os.environ), "name": __spec__.name, "folder": os.getcwd(),
    # Not of SIGINT: until it runs, a new process heeds it in a way of its own.
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGCHLD)],
    "wakeup": signal.set_wakeup_fd(-1), "input": sys.stdin.read(),
    "streams": [(s.encoding, s.errors, s.write_through, s.isatty())
                for s in (sys.stdout, sys.stderr)],
    "files": sorted(os.listdir("/proc/self/fd")),
}
Path("found.json").write_text(json.dumps(found))
is_fork = b"tasks.fork_server" in Path("/proc/self/cmdline").read_bytes()
Path("is_fork.json").write_text(json.dumps(is_fork))
print("said")
exec(Path("then.py").read_text() if Path("then.py").exists() else "")
Path("out.txt").write_text("new")
"""
GRAPH = """
stages:
  toy:
    cmd: python -m gdc.stages.toy 'an argument'
    always_changed: true
    outs:
      - out.txt
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("__init__", "environment", "errors", "filesystem/__init__",
                 "filesystem/json_values", "stages/__init__", "workspace/__init__",
                 "workspace/handover"):  # fmt: skip
        place = tmp_path / f"gdc/{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / f"gdc/{name}.py", place)
    (tmp_path / "gdc/stages/toy.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    monkeypatch.chdir(tmp_path)
    init_dvc(tmp_path, no_scm=True)
    return tmp_path


def read(name: str) -> Any:  # noqa: ANN401  # what a stage has written
    return json.loads(Path(f"{name}.json").read_text())


def run(start: Start, then: str = "") -> list[str]:
    """Run the stage, with what it does at its end; returns what it has said."""
    Path("then.py").write_text(then)
    said: list[str] = []
    reproduce("toy", "parent", said.append, start=start)
    return said


def test_a_fork_finds_what_a_new_process_finds(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a scheduler names one; no address of a socket is so long.
    deep = workspace.parent / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    reproduce("toy", "parent", ignore)
    alone = read("found")
    assert read("is_fork") is False
    with fork_server(()) as start:
        # As libraries do when they are imported.
        monkeypatch.setenv("SET_SINCE", "1")
        assert "said" in run(start)
    assert read("is_fork") is True
    assert read("found") == alone
    assert alone["environment"]["GDC_PARENT_RUN_ID"] == "parent"
    assert (workspace / "out.txt").read_text() == "new"


@pytest.fixture(params=["/bin/sh", "/bin/bash"])
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of DVC: bash is replaced by the stage, others wait for it and may end first."""
    if not Path(request.param).exists():
        pytest.skip(f"no {request.param} here")
    monkeypatch.setenv("SHELL", request.param)


@pytest.mark.usefixtures("workspace", "shell")
def test_a_fork_that_fails_fails_as_a_new_process_does() -> None:
    ends = {
        "sys.exit((sys.stderr.write('error: a mistake'), 2)[1])": (StageFailedError, "a mistake"),
        "raise SystemExit(75)": (StageTransientError, "exited with 75"),
        "os.kill(os.getpid(), signal.SIGKILL)": (StageFailedError, "exited with (-9|137)"),
    }
    with fork_server(()) as start:
        for then, (kind, message) in ends.items():
            with pytest.raises(StageFailedError, match=message) as caught:
                run(start, then)
            assert type(caught.value) is kind
            assert read("is_fork") is True


@pytest.mark.usefixtures("workspace")
def test_a_fork_does_what_is_left_for_its_end_but_takes_no_module_apart() -> None:
    then = """
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.1), print("of a thread"))).start()
class Module: __del__ = lambda self, say=os.write: say(1, b"taken apart\\n")
sys.modules["left"] = Module()
"""
    with fork_server(()) as start:
        said = run(start, then)
    assert said[said.index("said") :][:3] == ["said", "of a thread", "at exit"]
    assert "taken apart" not in said


def test_code_that_was_edited_runs_and_not_what_the_server_knows(workspace: Path) -> None:
    stage = workspace / "gdc/stages/toy.py"
    with fork_server(("gdc.stages.toy",)) as start:
        run(start)
        stage.write_text(STAGE.replace('"new"', '"newer"'))
        run(start)
        assert read("is_fork") is False
        assert (workspace / "out.txt").read_text() == "newer"


@pytest.mark.usefixtures("workspace")
def test_a_stage_starts_by_itself_once_the_server_is_gone() -> None:
    with fork_server(()) as start:
        server = only_server()
        server.kill()
        server.wait()
        assert "said" in run(start)
        assert read("is_fork") is False


def only_server() -> psutil.Process:
    """The server, once it has its arguments: they follow what tells its parent that it started."""
    while True:
        children = psutil.Process().children()
        found = [child for child in children if "tasks.fork_server" in child.cmdline()]
        if found:
            return found[0]
        assert any(not child.cmdline() for child in children)


@pytest.mark.parametrize(
    ("graph", "is_ours"), [(GRAPH, True), ("stages: {}\n", False), (None, False)]
)
def test_what_our_stages_need_is_imported_where_the_graph_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str | None, *, is_ours: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if graph is not None:
        Path("dvc.yaml").write_text(graph)
    with fork_server():
        asked = only_server().cmdline()
    assert "dvc.repo.reproduce" in asked
    assert ("torch" in asked) == is_ours


WAITS = """
def stop(*_):
    Path("stopped").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
Path("waits.json").write_text(str(os.getpid()))
time.sleep(300)
"""


def wait_for(path: Path, is_alive: Callable[[], bool]) -> None:
    while not path.exists() or not path.read_text():
        assert is_alive()
        time.sleep(0.05)


@pytest.mark.usefixtures("shell")
def test_a_stop_reaches_a_fork_and_leaves_nothing_behind(workspace: Path) -> None:
    # Other tests may keep a server in this process.
    others = set(psutil.Process().children(recursive=True))
    with fork_server(()) as start:
        failures: list[Exception] = []

        def target() -> None:
            try:
                run(start, WAITS)
            except StageFailedError as error:
                failures.append(error)

        thread = Thread(target=target)
        thread.start()
        wait_for(workspace / "waits.json", thread.is_alive)
        family = [p for p in psutil.Process().children(recursive=True) if p not in others]
        stages.stop_stages()
        thread.join(timeout=30)
        assert re.search(r"exited with (143|-15)", str(failures[0]))
        # A shell that ends by the signal does not wait for the stage.
        stage = [process for process in family if process.pid == int(read("waits"))]
        assert psutil.wait_procs(stage, timeout=30)[1] == []
        assert (workspace / "stopped").exists()
    assert psutil.wait_procs(family, timeout=30)[1] == []


def test_all_end_with_a_flow_that_is_killed(workspace: Path) -> None:
    (workspace / "then.py").write_text(WAITS)
    program = (
        "from tasks.stages import reproduce\n"
        "from tasks.fork_client import fork_server\n"
        "with fork_server(()) as start:\n"
        "    reproduce('toy', None, print, start=start)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    flow = subprocess.Popen([sys.executable, "-P", "-c", program], env=environment)
    wait_for(workspace / "waits.json", lambda: flow.poll() is None)
    assert read("is_fork") is True
    family = [*psutil.Process(flow.pid).children(recursive=True), psutil.Process(read("waits"))]
    flow.kill()
    flow.wait()
    assert psutil.wait_procs(family, timeout=30)[1] == []

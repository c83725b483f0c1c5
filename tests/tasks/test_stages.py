"""One stage run by DVC: its outcome, its failure, its end when it is stopped."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gdc.workspace import dvc, files, paths
from gdc.workspace.code_digests import code_digests
from tasks import stages
from tasks.graph import changed_targets
from tasks.stages import (
    StageFailedError,
    StageTransientError,
    outcome_of,
    process_group,
    read_lines,
    reproduce,
)
from tests.builders import is_running, stopped_by_ctrl_c
from tests.tasks.builders import ignore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def test_a_stage_is_executed_then_skipped_then_restored(toy: Path) -> None:
    assert reproduce("manifest", None, ignore).outcome == "executed"
    assert reproduce("retrain@none", None, ignore).outcome == "executed"
    assert reproduce("retrain@none", None, ignore).outcome == "skipped"
    assert changed_targets() == {"retrain@paper", "report"}
    (toy / "none.txt").write_text("changed\n")
    assert reproduce("retrain@none", None, ignore).outcome == "executed"
    (toy / "none.txt").write_text("none\n")
    assert reproduce("retrain@none", None, ignore).outcome == "restored"
    assert (toy / "data/none.txt").read_text() == "source\nnone\n"


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        pytest.param("mistake", StageFailedError, "^manifest: there was a mistake$", id="exit 2"),
        pytest.param("outage", StageTransientError, "^manifest: there was a outage$", id="exit 75"),
        pytest.param("bug", StageFailedError, "manifest: (.|\n)*RuntimeError: boom", id="exit 1"),
    ],
)
def test_a_failed_stage_speaks_for_itself(
    toy: Path, word: str, error: type[StageFailedError], message: str
) -> None:
    (toy / "source.txt").write_text(word)
    with pytest.raises(StageFailedError, match=message) as caught:
        reproduce("manifest", None, ignore)
    assert type(caught.value) is error


def test_a_progress_bar_is_logged_every_five_seconds_and_advice_never() -> None:
    clock = iter(range(0, 100, 2))
    output = b"start\r\n 10%\r 20%\r 30%\r 40%\r 99%\r\x0a\xff\nUse `dvc push` to send\nend"
    # 10 % is shown at 0 and noted at 2; 20 % at 4 and 30 % at 6 are too early, 40 % at 8 is not.
    assert list(read_lines(io.BytesIO(output), lambda: next(clock))) == [
        "start", " 10%", " 40%", " 99%", "\ufffd", "end",
    ]  # fmt: skip


def test_an_outcome_that_dvc_does_not_tell_is_an_error() -> None:
    with pytest.raises(StageFailedError, match="score: DVC did not say"):
        outcome_of("score", ["something else"])


def test_an_interrupted_stage_leaves_no_process_behind(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    sleep = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))"
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", start, f"{sleep}; time.sleep(60)", str(pid_file)]
    with suppress(KeyboardInterrupt), process_group(command, dict(os.environ)):
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert not is_running(int(pid_file.read_text()))
    assert not stages._running


# A DVC whose stage runs until it is stopped, and which then writes for a second.
WRITING_DVC = """
import subprocess, sys, time
from pathlib import Path

started = "import pathlib, time; pathlib.Path('started').touch(); time.sleep(60)"
subprocess.run([sys.executable, "-c", started])
Path("lock").write_text("half")
time.sleep(1)
Path("lock").write_text("whole")
"""


def test_a_stop_ends_the_stage_and_lets_dvc_finish_its_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.py").write_text(WRITING_DVC)
    with suppress(KeyboardInterrupt), process_group(dvc.command(), dict(os.environ)):
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert (tmp_path / "lock").read_text() == "whole"


def test_a_stage_ends_with_a_flow_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the flow's process alone, which has no way out to end anything."""
    pid_file = tmp_path / "pid"
    sleep = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))"
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", start, f"{sleep}; time.sleep(60)", str(pid_file)]
    program = (
        "import os; from tasks.stages import process_group\n"
        f"with process_group({command!r}, dict(os.environ)): pass"
    )
    flow = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.05)
    flow.kill()
    flow.wait()
    deadline = time.monotonic() + 30
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(pid_file.read_text()))


def test_a_guarded_program_hands_on_its_output_and_its_exit_code() -> None:
    program = "import sys; print(sys.stdin.read() + 'said'); sys.exit(7)"
    with process_group([sys.executable, "-c", program], dict(os.environ)) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"said\n"
    assert process.wait() == 7


# A stage that waits in the middle of a write.
TERMINATED_STAGE = """
import atexit, os, signal, time
from pathlib import Path
from gdc.filesystem import durable
from gdc.stages.runner import run

# A stop that comes again at its end.
atexit.register(os.kill, os.getpid(), signal.SIGTERM)

def main():
    with durable.new_file(Path("data/a")) as temporary:
        temporary.write_text("half")
        time.sleep(60)

run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_stopped_leaves_nothing_half_written_and_no_traceback(
    tmp_path: Path, number: int
) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-c", TERMINATED_STAGE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "data/.a.tmp").exists():
        time.sleep(0.05)
    stage.send_signal(number)
    assert stage.communicate(timeout=200)[1] == b""
    assert stage.returncode == 128 + number
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("module", ["gdc.errors", "polars"])
def test_ctrl_c_ends_a_stage_that_still_imports_without_a_traceback(
    tmp_path: Path, module: str
) -> None:
    program = (
        f"import sys, time; sys.argv = ['-m']; import gdc.stages, {module}\n"
        "print(flush=True); time.sleep(60)"
    )
    assert stopped_by_ctrl_c(program, tmp_path) == (128 + signal.SIGINT, b"")


def test_code_that_manifest_has_not_seen_is_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / paths.CODE, code_digests() | {"partition": "of other code"})
    done = subprocess.run(
        [sys.executable, "-m", "gdc.stages.partition"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/code.json: expected the digest of this code for")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["code.json"]


def launched(launcher: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A stage that trains, without what takes seconds to import, under a launcher."""
    code = "from gdc.stages.runner import run\nrun(lambda: None, is_training=True)\n"
    (folder / "training.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "training"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GDC_LAUNCHER": launcher},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_launcher_that_is_no_program_is_refused(tmp_path: Path) -> None:
    done = launched("no-such-program -n 2", tmp_path)
    assert done.returncode == 2
    assert "error: GDC_LAUNCHER: expected a program such as" in done.stderr


def test_a_launcher_that_numbers_no_process_is_refused_and_not_started_for_ever(
    tmp_path: Path,
) -> None:
    launcher = f"{sys.executable} -W ignore"
    done = launched(launcher, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: GDC_LAUNCHER: expected a program that numbers what")
    assert f"got '{launcher}'" in done.stderr


def test_an_outage_that_a_launcher_tells_of_is_one() -> None:
    lines = ["error: MLflow is down", "  exitcode  : 75 (pid: 123)", "ERROR: ... exited with 1"]
    assert type(stages.failure("train@0", lines)) is StageTransientError
    lines[1] = "  exitcode  : 2 (pid: 75)"
    assert type(stages.failure("train@0", lines)) is StageFailedError


def test_what_several_processes_say_alike_is_said_once() -> None:
    lines = ["error: training: no sample is left", "error: training: no sample is left"]
    assert str(stages.failure("train@0", lines)) == "train@0: training: no sample is left"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ERROR: failed to reproduce 'a': failed to run: a, exited with 75", StageTransientError),
        ("ERROR: failed to reproduce 'a': failed to run: a, exited with 2", StageFailedError),
        ("error: the source said: exited with 75", StageFailedError),
    ],
)
def test_only_the_exit_code_makes_a_failure_transient(
    line: str, error: type[StageFailedError]
) -> None:
    assert type(stages.failure("a", [line])) is error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ERROR: failed to reproduce 'a': failed to run: b, exited with -6", "got SIGABRT. A lib"),
        ("ERROR: failed to reproduce 'a': failed to run: b, exited with 137", "got SIGKILL. The"),
        (" exitcode  : -11 (pid: 7)", "got SIGSEGV. A library crashed"),
        ("ERROR: failed to reproduce 'a': failed to run: b, exited with 139", "got SIGSEGV. A lib"),
    ],
)
def test_a_stage_that_a_signal_ended_says_of_what_and_what_to_do(line: str, said: str) -> None:
    message = str(stages.failure("train@0", ["memory allocation of 9 bytes failed", line]))
    assert message.startswith(f"train@0: expected it to end by itself, {said}")
    assert "memory allocation of 9 bytes failed" in message


def test_a_stage_that_failed_or_was_stopped_died_of_nothing() -> None:
    for code in (1, 2, 75, 130, 143, -15, 255):
        line = f"ERROR: failed to reproduce 'a': failed to run: b, exited with {code}"
        assert str(stages.failure("a", [line])) == f"a: {line}"


def test_a_module_of_the_users_in_the_workspace_is_no_library_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("random", "queue", "polars"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('yours')")
    words = [sys.executable, "-m", "gdc.stages.manifest"]
    environment = dvc.environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr[:20]) == (2, "error: params.yaml: "), done.stderr
    # A checkout of ours is what runs in it.
    (tmp_path / "gdc").mkdir()
    assert "PYTHONSAFEPATH" not in dvc.environment()


def test_a_stage_knows_its_parent_run_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "other")
    environment = dvc.environment("parent")
    assert environment["GDC_PARENT_RUN_ID"] == "parent"
    assert "MLFLOW_RUN_ID" not in environment
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)

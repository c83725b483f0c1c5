"""Targets, outcomes, lineage and publishing in a toy workspace of three stages."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.lock import Lock
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.client.schemas.objects import State, TaskRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Failed

from flows import server
from flows.curate import curate, require_success
from flows.program import STOPPED, only_run_here
from flows.server import prefect_server
from gdc.errors import ConfigError, TransientError
from gdc.workspace import dvc, dvc_files, files, paths, tracking
from gdc.workspace.code_digests import code_digests
from tasks import lineage, publish, stages
from tasks.graph import Graph, changed_targets, load_graph, parse_status, workers
from tasks.lineage import recorded_run
from tasks.processes import processes, run_stage
from tasks.schedule import run_graph
from tasks.stages import (
    StageFailedError,
    StageResult,
    StageTransientError,
    outcome_of,
    process_group,
    read_lines,
    reproduce,
)
from tests.builders import is_running
from tests.comparison.builders import arm_result
from tests.report.builders import params_of, report_of, tables_of

ROOT = Path(__file__).parent.parent.parent

# Writes its inputs to its output; an input that says so makes it fail.
TOY_STAGE = """
import sys
from pathlib import Path

target, *inputs = map(Path, sys.argv[1:])
with open("work/started.txt", "a") as started:
    started.write(f"{target.stem}\\n")
text = "".join(path.read_text() for path in inputs)
for word, code in (("mistake", 2), ("outage", 75)):
    if word in text:
        sys.exit((sys.stderr.write(f"error: there was a {word}\\n"), code)[1])
if "bug" in text:
    raise RuntimeError("boom")
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(text)
"""
TOY_GRAPH = """
stages:
  manifest:
    cmd: python toy.py data/manifest.txt source.txt
    always_changed: true
    outs:
      - data/manifest.txt
  retrain:
    matrix:
      arm: [none, paper]
    cmd: python toy.py data/${item.arm}.txt data/manifest.txt ${item.arm}.txt
    deps:
      - data/manifest.txt
      - ${item.arm}.txt
    outs:
      - data/${item.arm}.txt
  report:
    cmd: python toy.py data/report.txt data/none.txt data/paper.txt
    deps:
      - data/none.txt
      - data/paper.txt
    outs:
      - data/report.txt
"""


def make_toy(folder: Path) -> None:
    (folder / "toy.py").write_text(TOY_STAGE)
    (folder / "dvc.yaml").write_text(TOY_GRAPH)
    for name in ("source", "none", "paper"):
        (folder / f"{name}.txt").write_text(f"{name}\n")
    (folder / ".gitignore").write_text("/data\n/work\n")
    (folder / "work").mkdir()
    git(folder, "init", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    commit_all(folder)


def commit_all(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--message=Start")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture(scope="session")
def pristine_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_toy(folder)
    return folder


@pytest.fixture
def toy(pristine_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the toy workspace, as the current folder."""
    shutil.copytree(pristine_toy, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    return tmp_path / "toy"


def ignore(_line: str) -> None:
    """A log that nobody reads."""


# ---- graph

CHAIN = Graph(
    {
        "ingest": frozenset(),
        "retrain@none-1": frozenset({"ingest"}),
        "retrain@paper-1": frozenset({"ingest"}),
        "report": frozenset({"retrain@none-1", "retrain@paper-1"}),
    }
)


@pytest.mark.parametrize(
    ("changed", "unchanged"),
    [
        pytest.param(set(), set(CHAIN.upstream), id="nothing changed"),
        pytest.param({"ingest"}, set(), id="all below a change is suspect"),
        pytest.param({"retrain@none-1"}, {"ingest", "retrain@paper-1"}, id="siblings are not"),
    ],
)
def test_a_target_is_unchanged_only_with_all_its_ancestors(
    changed: set[str], unchanged: set[str]
) -> None:
    assert CHAIN.unchanged(changed) == unchanged


def test_a_target_is_below_all_that_it_depends_on() -> None:
    assert CHAIN.above("report") == {"ingest", "retrain@none-1", "retrain@paper-1"}
    assert CHAIN.above("ingest") == set()


def test_a_stage_that_always_runs_counts_as_changed_only_when_its_files_are() -> None:
    status = {
        "manifest": ["always changed"],
        "ingest": [{"changed outs": {"data/corpus.parquet": "deleted"}}, "always changed"],
        "train@0": [{"changed deps": {"data/corpus.parquet": "modified"}}],
    }
    assert parse_status(json.dumps(status)) == {"ingest", "train@0"}


def test_the_toy_graph_is_read_with_its_edges(toy: Path) -> None:
    assert load_graph(toy).upstream == {
        "manifest": frozenset(),
        "retrain@none": {"manifest"},
        "retrain@paper": {"manifest"},
        "report": {"retrain@none", "retrain@paper"},
    }


def test_a_folder_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not inside of a DVC repository.*gdc init"):
        load_graph(tmp_path)


def test_a_graph_that_dvc_cannot_read_is_refused_without_advice_to_write_another(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages:\n  manifest: {cmd: [}\n")
    with pytest.raises(ConfigError, match=r"dvc\.yaml: (?!.*gdc init).*`dvc status`"):
        load_graph(toy)


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [workers(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]


# ---- one stage


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
    deadline = time.monotonic() + 5
    while is_running(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(pid_file.read_text()))


def test_a_guarded_program_hands_on_its_output_and_its_exit_code() -> None:
    program = "import sys; print(sys.stdin.read() + 'said'); sys.exit(7)"
    with process_group([sys.executable, "-c", program], dict(os.environ)) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"said\n"
    assert process.returncode == 7


# A stage that waits in the middle of a write.
TERMINATED_STAGE = """
import time
from pathlib import Path
from gdc.workspace import files
from gdc.stages.runner import run

def main():
    with files.new_file(Path("data/a")) as temporary:
        temporary.write_text("half")
        time.sleep(60)

run(main)
"""


def test_a_stage_that_is_terminated_leaves_nothing_half_written(tmp_path: Path) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-c", TERMINATED_STAGE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while not (tmp_path / "data/.a.tmp").exists():
        time.sleep(0.05)
    stage.terminate()
    assert stage.wait(timeout=10) == 128 + signal.SIGTERM
    assert list((tmp_path / "data").iterdir()) == []


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
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["code.json"]


def test_a_launcher_that_is_no_program_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gdc.stages.train", "--seed", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GDC_LAUNCHER": "no-such-program -n 2"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "error: GDC_LAUNCHER: expected a program such as" in done.stderr


def test_a_launcher_that_numbers_no_process_is_refused_and_not_started_for_ever(
    tmp_path: Path,
) -> None:
    launcher = f"{sys.executable} -W ignore"
    done = subprocess.run(
        [sys.executable, "-m", "gdc.stages.train", "--seed", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GDC_LAUNCHER": launcher},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
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


def test_a_stage_knows_its_parent_run_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "other")
    environment = dvc.environment("parent")
    assert environment["GDC_PARENT_RUN_ID"] == "parent"
    assert "MLFLOW_RUN_ID" not in environment
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


# ---- what a kill leaves


def damaged(content: bytes, how: str) -> bytes:
    """A dvc.lock as a kill, a merge or another program leaves it."""
    ours, theirs = content, content.replace(b"md5: ", b"md5: 0")
    return {
        "cut off": content[: content.rindex(b"path:") + 5],
        "empty": b"",
        "conflict": b"<<<<<<< HEAD\n" + ours + b"=======\n" + theirs + b">>>>>>> other\n",
        "not UTF-8": content.replace(b"path", b"p\xff"),
    }[how]


@pytest.fixture
def toy_with_results(toy: Path) -> Path:
    for target in ("manifest", "retrain@none"):
        assert reproduce(target, None, ignore).outcome == "executed"
    return toy


@pytest.mark.parametrize("has_copy", [True, False])
@pytest.mark.parametrize("how", ["cut off", "empty", "conflict", "not UTF-8"])
def test_a_lock_that_dvc_cannot_read_is_put_back_and_no_stage_runs_again(
    toy_with_results: Path, capsys: pytest.CaptureFixture[str], how: str, *, has_copy: bool
) -> None:
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(damaged(whole, how))
    if not has_copy:
        dvc_files.COPY.unlink()
    with only_run_here():
        pass
    said = capsys.readouterr().err
    assert said.startswith("dvc.lock: expected DVC's record of the stages, got ")
    assert ("git merge" in said, "git add dvc.lock" in said) == (how == "conflict",) * 2
    assert Path("dvc.lock.damaged-1").read_bytes() == damaged(whole, how)
    if has_copy:
        assert Path("dvc.lock").read_bytes() == whole
    load_graph(toy_with_results)
    outcome = reproduce("retrain@none", None, ignore).outcome
    assert outcome == ("skipped" if has_copy else "restored")
    assert Path("work/started.txt").read_text().split() == ["manifest", "none"]
    assert Path("data/none.txt").read_text() == "source\nnone\n"


def test_a_lock_cut_off_at_any_place_is_read_by_dvc(toy_with_results: Path) -> None:
    whole = Path("dvc.lock").read_bytes()
    for length in range(0, len(whole), len(whole) // 30):
        Path("dvc.lock").write_bytes(whole[:length])
        dvc_files.keep_copy()
        dvc_files.mend()
        assert "retrain@none" in load_graph(toy_with_results).upstream


def test_a_lock_that_dvc_is_writing_is_left_to_it(
    toy_with_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_files, "WAIT_SECONDS", 0.2)
    Path("dvc.lock").write_bytes(b"schema")
    with Lock(str(toy_with_results / ".dvc/tmp/lock")):
        assert dvc_files.mend() is None
    assert Path("dvc.lock").read_bytes() == b"schema"
    assert dvc_files.mend() is not None


@pytest.mark.parametrize("claims", ["", '{"write": {"/data', "of a process that is no DVC"])
def test_the_list_of_claims_on_paths_is_mended(toy: Path, claims: str) -> None:
    if claims.startswith("of"):
        claim = {"pid": os.getpid(), "cmd": "dvc repro"}
        claims = json.dumps({"write": {str(toy / "data/manifest.txt"): claim}})
    (toy / ".dvc/tmp").mkdir(exist_ok=True)
    (toy / ".dvc/tmp/rwlock").write_text(claims)
    with pytest.raises(StageFailedError, match=r"RWLock-file|is busy"):
        reproduce("manifest", None, ignore)
    with only_run_here():
        assert reproduce("manifest", None, ignore).outcome == "executed"


def test_the_claims_of_a_dvc_that_runs_are_kept(toy: Path) -> None:
    waits = [sys.executable, "-c", "import time; time.sleep(60)", "dvc"]
    with subprocess.Popen(waits) as running:
        claims = json.dumps({"read": {str(toy): [{"pid": running.pid, "cmd": "dvc repro"}]}})
        (toy / ".dvc/tmp").mkdir(exist_ok=True)
        (toy / ".dvc/tmp/rwlock").write_text(claims)
        dvc_files.mend()
        running.kill()
    assert (toy / ".dvc/tmp/rwlock").read_text() == claims


class SilentRun:
    """A run in MLflow that takes everything."""

    run_id = "a"

    def take(self, *_: object) -> None:
        """Log nothing."""

    log_table = set_tags = log_artifact = log_metrics = take


@pytest.mark.parametrize("damage", ["dvc.lock", "data/manifest.json", "lineage/retrain-none.json"])
def test_what_records_a_failure_does_not_hide_it(
    toy: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    run = nullcontext(SilentRun())
    monkeypatch.setattr(tracking, "parent_run", lambda _name, _tags: run)
    (toy / damage).parent.mkdir(exist_ok=True)
    (toy / damage).write_text("<<<<<<< HEAD\n: {")
    failed = StageResult("retrain@none", "skipped", 0.0, StageFailedError("the first failure"))

    def fail() -> None:
        with recorded_run() as record:
            record.results.append(failed)
            require_success([replace(failed, outcome="failed")])

    with pytest.raises(StageFailedError, match=r"\nthe first failure$"):
        fail()


# ---- stages side by side


def test_only_a_transient_failure_is_tried_again() -> None:
    condition = run_stage.retry_condition_fn
    assert condition is not None
    for error, again in ((StageFailedError("a"), False), (StageTransientError("a"), True)):
        state: State[Any] = Failed(data=error)
        assert condition(run_stage, TaskRun(task_key="a", dynamic_key="a"), state) is again


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_failed_cell_lets_its_siblings_finish(toy: Path) -> None:
    reproduce("manifest", None, ignore)
    (toy / "none.txt").write_text("mistake")

    @flow
    def both() -> list[StageResult]:
        graph = Graph({"retrain@none": frozenset(), "retrain@paper": frozenset()})
        with processes(None, 2) as executor:
            return list(run_graph(graph, executor, lambda _: False))

    failed, done = sorted(both(), key=lambda result: result.target)
    assert (failed.outcome, done.outcome) == ("failed", "executed")
    assert str(failed.error) == "retrain@none: there was a mistake"
    # A mistake of the user's is not tried again.
    assert sorted((toy / "work/started.txt").read_text().split()) == ["manifest", "none", "paper"]


# ---- the record of a run


@given(order=st.permutations(["ingest", "train@0", "train@1"]))
def test_the_digest_of_the_lock_does_not_depend_on_the_order_of_its_stages(
    order: list[str],
) -> None:
    text = "stages:\n" + "".join(f"  {name}:\n    cmd: run {name}\n" for name in order)
    canonical = (
        b'{"stages": {"ingest": {"cmd": "run ingest"}, "train@0": {"cmd": "run train@0"}, '
        b'"train@1": {"cmd": "run train@1"}}}'
    )
    assert lineage.lock_digest(text) == hashlib.sha256(canonical).hexdigest()


@pytest.mark.usefixtures("toy")
def test_skipped_and_restored_stages_point_to_the_run_that_made_their_files() -> None:
    files.write_json(paths.lineage_path("retrain", "none-1"), {"run_id": "first"})
    files.write_json(paths.lineage_path("score", None), {"run_id": "second"})
    results = [
        StageResult("manifest", "skipped", 0.0),
        StageResult("retrain@none-1", "restored", 1.26),
        StageResult("score", "executed", 2.0),
    ]
    rows = [lineage.stage_row(result) for result in results]
    assert rows[1] == {
        "stage": "retrain/none-1", "outcome": "restored", "seconds": 1.3, "run_id": "first",
    }  # fmt: skip
    assert lineage.origin_tags(rows) == {"gdc.origin.retrain/none-1": "first"}


def test_the_code_is_dirty_once_a_tracked_file_changes(toy: Path) -> None:
    head = git(toy, "rev-parse", "HEAD")
    assert lineage.code_tags() == {"gdc.git.commit": head, "gdc.git.dirty": "false"}
    (toy / "untracked").write_text("")
    assert lineage.code_tags()["gdc.git.dirty"] == "false"
    (toy / "toy.py").write_text("")
    assert lineage.code_tags()["gdc.git.dirty"] == "true"


# ---- publishing


@pytest.mark.parametrize(
    ("ratio", "difference", "objection"),
    [
        pytest.param(1.0, -0.2, None, id="less leakage at no cost"),
        pytest.param(1.05, 0.0, None, id="both exactly at their limits"),
        pytest.param(1.06, -0.2, "paper costs utility: perplexity x1.060, ", id="cost"),
        pytest.param(1.0, 0.01, "paper leaks more: extraction +0.010", id="leak"),
        pytest.param(1.0, None, "paper was not compared", id="no canaries"),
    ],
)
def test_the_gate(ratio: float | None, difference: float | None, objection: str | None) -> None:
    result = replace(arm_result("paper"), perplexity_ratio=ratio, extraction_difference=difference)
    said = publish.objection(result)
    assert (said is None) == (objection is None)
    assert objection is None or (said is not None and said.startswith(objection))


def test_the_lock_is_committed_beside_the_checkout(toy: Path) -> None:
    head = git(toy, "rev-parse", "HEAD")
    (toy / "toy.py").write_text("work in progress")
    git(toy, "add", "toy.py")
    (toy / "dvc.lock").write_text("first")
    before = git(toy, "status", "--porcelain")
    commit = publish.commit_lock("curation/2026-01-02")
    assert git(toy, "diff-tree", "-r", "--name-only", "--no-commit-id", commit) == "dvc.lock"
    assert git(toy, "show", "curation/2026-01-02:dvc.lock") == "first"
    assert git(toy, "rev-parse", "HEAD", f"{commit}^").split() == [head, head]
    assert git(toy, "status", "--porcelain") == before
    assert publish.commit_lock("curation/2026-01-02") == commit
    (toy / "dvc.lock").write_text("second")
    assert git(toy, "rev-parse", f"{publish.commit_lock('curation/2026-01-02')}^") == commit


def test_a_lock_is_committed_with_the_code_of_the_day_s_last_commit(toy: Path) -> None:
    (toy / "dvc.lock").write_text("first")
    first = publish.commit_lock("curation/2026-01-02")
    (toy / "toy.py").write_text("of the afternoon")
    git(toy, "add", "toy.py")
    git(toy, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--message=Edit")
    (toy / "dvc.lock").write_text("second")
    second = publish.commit_lock("curation/2026-01-02")
    assert git(toy, "show", f"{second}:toy.py") == "of the afternoon"
    assert git(toy, "show", f"{second}:dvc.lock") == "second"
    head = git(toy, "rev-parse", "HEAD")
    assert git(toy, "rev-parse", f"{second}^1", f"{second}^2").split() == [first, head]
    assert publish.commit_lock("curation/2026-01-02") == second


@pytest.mark.parametrize("command", [("status",), ("add", "--all")])
@pytest.mark.parametrize("name", ["toy.py", "params.yaml", "gdc/new.py"])
def test_a_lock_is_not_published_beside_other_code(
    toy: Path, name: str, command: tuple[str, ...]
) -> None:
    (toy / "dvc.lock").write_text("may differ")
    (toy / "notes.txt").write_text("may be new")
    publish.require_committed()
    (toy / name).parent.mkdir(exist_ok=True)
    (toy / name).write_text("edited")
    git(toy, *command)
    with pytest.raises(ConfigError, match=f"as committed, got changes in .*{name}.*Commit or undo"):
        publish.require_committed()


@pytest.mark.usefixtures("toy")
def test_a_workspace_without_a_remote_is_not_published() -> None:
    with pytest.raises(ConfigError, match="expected a default DVC remote, got none"):
        publish.require_publishable()


def test_a_second_run_in_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal = pytest.raises(TransientError, match=f"got process {os.getpid()} here too")
    with only_run_here(), refusal, only_run_here():
        pass
    with only_run_here():
        Path("work/.lock.pid").unlink()
        with pytest.raises(TransientError, match="got another process here too"), only_run_here():
            pass
    with only_run_here():
        pass


def test_a_server_that_is_named_and_away_is_refused_in_seconds() -> None:
    started = time.monotonic()
    away = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    refusal = pytest.raises(TransientError, match=r"^PREFECT_API_URL: .*127\.0\.0\.1:9/api, got")
    with away, refusal, prefect_server():
        pass
    assert time.monotonic() - started < 30


def test_a_home_that_prefect_cannot_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file/.prefect"
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: home}),
        pytest.raises(ConfigError, match=rf"^PREFECT_HOME: .*{home}.*export PREFECT_HOME="),
        prefect_server(),
    ):
        pass


def test_a_temporary_server_that_does_not_come_up_has_left_its_words_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "_PROGRAM", ("no_such_program",))
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path}),
        pytest.raises(TransientError, match=rf"got its end.*{tmp_path / server.LOG}"),
        prefect_server(),
    ):
        pass
    assert "No module named no_such_program" in (tmp_path / server.LOG).read_text()


# ---- the whole flow

# A phase copies its inputs; `retrain` also logs a model, so that there is one to promote.
PHASE_STAGE = """
import sys
from pathlib import Path

stage, cell, target, *inputs = sys.argv[1:]
text = "".join(Path(path).read_text() for path in inputs)
if "mistake" in text:
    sys.exit((sys.stderr.write("error: there was a mistake\\n"), 2)[1])
Path(target).parent.mkdir(parents=True, exist_ok=True)
Path(target).write_text(text)
if stage == "retrain":
    from gdc.workspace import tracking

    with tracking.stage_run(stage, {}, cell=cell) as run:
        run.log_model(Path("model"))
"""
ARMS = ("none", "paper")


def report_of_arms() -> dict[str, Any]:
    """A report whose arm ``paper`` leaks half as much at the same perplexity."""
    report = report_of(tables_of(), params_of())
    rates = {"none": 0.5, "paper": 0.25}
    for arm in report["arms"]:
        rate = rates[arm["arm"]]
        arm["perplexity"]["mean"] = 10.0
        arm["extraction_rate"]["mean"] = rate
        arm |= {"perplexity_ratio": 1.0, "extraction_difference": rate - 0.5}
    return report


def phase_graph() -> dict[str, Any]:
    """One toy stage for each phase of the flow, as dvc.yaml."""

    def entry(stage: str, target: str, inputs: list[str], cell: str = "") -> dict[str, Any]:
        command = f"python phase.py {stage} '{cell}' {target} {' '.join(inputs)}"
        return {"cmd": command, "deps": inputs, "outs": [target]}

    manifest = entry("manifest", "data/manifest.json", ["source.json"]) | {"always_changed": True}
    del manifest["deps"]
    graph = {"manifest": manifest}
    before = "data/manifest.json"
    stages = ("ingest", "halves", "train", "score", "calibrate", "partition", "spans", "intervene")
    for stage in stages:
        graph[stage] = entry(stage, f"data/{stage}", [before])
        before = f"data/{stage}"
    # Beside `train`, from what it reads too.
    graph["reference"] = entry("reference", "data/reference", ["data/halves"])
    graph["score"] = entry("score", "data/score", ["data/train", "data/reference"])
    matrix = {"matrix": {"arm": list(ARMS), "seed": [1]}}
    cell = "${item.arm}-${item.seed}"
    graph["retrain"] = matrix | entry("retrain", f"data/{cell}", [before, "${item.arm}.txt"], cell)
    graph["retrain"]["outs"].append(f"lineage/retrain-{cell}.json")
    graph["evaluate"] = matrix | entry("evaluate", f"metrics/{cell}", [f"data/{cell}"])
    deps = [f"metrics/{arm}-1" for arm in ARMS]
    graph["report"] = entry("report", "reports/report.json", ["report.json"])
    graph["report"]["deps"] += deps
    return {"stages": graph}


def make_pipeline(folder: Path) -> None:
    params = (resources.files("gdc") / "presets" / "docs.yaml").read_text(encoding="utf-8")
    params = re.sub(r"(?m)^  arms: \[none.*$", "  arms: [none, paper]", params)
    params = params.replace("seeds: [1, 2]", "seeds: [1]")
    (folder / "params.yaml").write_text(params)
    (folder / "dvc.yaml").write_text(json.dumps(phase_graph()))
    (folder / "phase.py").write_text(PHASE_STAGE)
    (folder / "source.json").write_text('{"digest": "abc"}')
    (folder / "report.json").write_text(json.dumps(report_of_arms()))
    files.write_json(folder / paths.CODE, code_digests())
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    for arm in ARMS:
        (folder / f"{arm}.txt").write_text(arm)
    (folder / ".gitignore").write_text("/data\n/lineage\n/metrics\n/reports\n/work\n/ml*\n")
    git(folder, "init", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    commit_all(folder)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy workspace with every phase of the flow, as the current folder."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    make_pipeline(folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "GDC_EXPERIMENT", "GDC_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return folder


def last_parent() -> dict[str, Any]:
    """Tags, metrics and stage table of the newest parent run, and the names of its children."""
    with closing(sqlite3.connect("mlflow.db")) as database:
        run_id, status = database.execute(
            "select run_uuid, status from runs where name = 'curate' order by start_time desc"
        ).fetchone()
        tags = database.execute("select key, value from tags where run_uuid = ?", (run_id,))
        metrics = database.execute(
            "select key, value from latest_metrics where run_uuid = ?", (run_id,)
        )
        children = database.execute(
            "select name from runs join tags on runs.run_uuid = tags.run_uuid "
            "where key = 'mlflow.parentRunId' and value = ? order by name",
            (run_id,),
        )
        table = json.loads(Path(f"mlartifacts/{run_id}/artifacts/stages.json").read_text())
        return {
            "status": status,
            "tags": dict(tags.fetchall()),
            "metrics": dict(metrics.fetchall()),
            "children": [name for (name,) in children],
            "outcomes": {row["stage"]: row["outcome"] for row in table},
        }


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_flow_runs_everything_then_nothing_and_publishes(pipeline: Path) -> None:
    curate()
    first = last_parent()
    assert first["status"] == "FINISHED"
    assert set(first["outcomes"].values()) == {"executed"}
    assert first["children"] == ["retrain/none-1", "retrain/paper-1"]
    assert first["metrics"]["paper/extraction_rate"] == 0.25
    assert first["tags"]["gdc.manifest.digest"] == "abc"
    assert changed_targets() == set()

    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "--default", "near", "../remote"], check=True
    )
    with pytest.raises(ConfigError, match=r"got changes in \.dvc/config"):
        curate(publish=True)
    commit_all(pipeline)
    curate(publish=True)
    second = last_parent()
    assert {t for t, outcome in second["outcomes"].items() if outcome == "executed"} == {"manifest"}
    assert second["children"] == []
    origin = files.read_json(paths.lineage_path("retrain", "paper-1"))["run_id"]
    assert second["tags"]["gdc.origin.retrain/paper-1"] == origin
    assert second["tags"]["gdc.gate"].startswith("passed: champion is version 1")
    branch, commit = second["tags"]["gdc.published"].split(":")
    assert git(pipeline, "rev-parse", branch) == commit
    assert (
        git(pipeline, "show", f"{branch}:dvc.lock") == (pipeline / "dvc.lock").read_text().strip()
    )
    assert any((pipeline.parent / "remote").rglob("*"))
    assert_edited_code_is_not_published()


def assert_edited_code_is_not_published() -> None:
    files.write_json(paths.CODE, code_digests() | {"score": "of code that was edited since"})
    with pytest.raises(ConfigError, match=r"got changed \['score'\]\. Run the flow again"):
        curate(publish=True)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_failed_target_takes_along_only_what_needs_it_and_is_recorded(pipeline: Path) -> None:
    (pipeline / "paper.txt").write_text("mistake")
    with pytest.raises(StageFailedError) as caught:
        curate()
    assert str(caught.value) == (
        "1 of 15 stages failed\n"
        "not run, as they need one that failed: evaluate@paper-1, report\n"
        "retrain@paper-1: there was a mistake"
    )
    parent = last_parent()
    assert parent["status"] == "FAILED"
    failed = {t: outcome for t, outcome in parent["outcomes"].items() if outcome != "executed"}
    assert failed == {
        "retrain/paper-1": "failed", "evaluate/paper-1": "not run", "report": "not run",
    }  # fmt: skip
    assert parent["outcomes"]["evaluate/none-1"] == "executed"
    assert parent["metrics"] == {}

    (pipeline / "source.json").write_text('"mistake"')
    with pytest.raises(
        StageFailedError, match=r"1 of 15 .*\n.*halves.*\nmanifest: there was a mistake"
    ):
        curate()
    outcomes = last_parent()["outcomes"]
    assert outcomes.pop("manifest") == "failed"
    assert set(outcomes.values()) == {"not run"}


# ---- a stop


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and Path(process.cwd()) == folder:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_in_ten_seconds_though_the_server_is_gone(
    pipeline: Path, tmp_path: Path, number: signal.Signals
) -> None:
    waiting = PHASE_STAGE + "\nif stage == 'ingest':\n    import time; time.sleep(600)\n"
    (pipeline / "phase.py").write_text(waiting)
    program = [sys.executable, "-c", "from gdc.cli import main; main()", "run"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
    while not (pipeline / "data/ingest").exists():
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    (uvicorn,) = [p for p in processes_in(pipeline) if p.cmdline()[1:3] == ["-m", "uvicorn"]]
    uvicorn.kill()
    started = time.monotonic()
    os.killpg(run.pid, number)
    assert run.wait(timeout=60) == 128 + number
    assert time.monotonic() - started < 11
    assert psutil.wait_procs(processes_in(pipeline), timeout=5)[1] == []
    said = (tmp_path / "log").read_text()
    assert said.endswith(STOPPED)
    assert "Traceback" not in said
    assert "httpx" not in said
    load_graph(pipeline)

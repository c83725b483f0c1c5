"""What a kill leaves of DVC's files, and how the next run goes on."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.lock import Lock

from flows.program import only_run_here
from gdc.workspace import dvc_files
from tasks.graph import load_graph
from tasks.stages import (
    StageFailedError,
    reproduce,
)
from tests.tasks.builders import ignore

# Each starts DVC or other programs.
pytestmark = pytest.mark.slow


def damaged(content: bytes, how: str) -> bytes:
    """A dvc.lock as a kill, a merge or another program leaves it."""
    ours, theirs = content, content.replace(b"md5: ", b"md5: 0")
    return {
        "cut off": content[: content.rindex(b"path:") + 5],
        "empty": b"",
        "conflict": b"<<<<<<< HEAD\n" + ours + b"=======\n" + theirs + b">>>>>>> other\n",
        "not UTF-8": content.replace(b"path", b"p\xff"),
    }[how]


@pytest.fixture(scope="module")
def finished_toy(pristine_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "toy"
    shutil.copytree(pristine_toy, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for target in ("manifest", "retrain@none"):
            assert reproduce(target, None, ignore).outcome == "executed"
    return folder


@pytest.fixture
def toy_with_results(finished_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of a toy workspace in which two stages have run, as the current folder."""
    shutil.copytree(finished_toy, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    return tmp_path / "toy"


HOW = ["cut off", "empty", "conflict", "not UTF-8"]


@pytest.mark.parametrize("has_copy", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_lock_that_dvc_cannot_read_is_put_back_and_no_stage_runs_again(
    toy_with_results: Path, capsys: pytest.CaptureFixture[str], how: str, *, has_copy: bool
) -> None:
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(damaged(whole, how))
    if not has_copy:
        dvc_files.COPY.unlink()
    before = sorted(toy_with_results.rglob("*"))
    foretold = dvc_files.damage()
    assert (sorted(toy_with_results.rglob("*")), Path("dvc.lock").read_bytes()) == (
        before,
        damaged(whole, how),
    )
    with only_run_here():
        pass
    said = capsys.readouterr().err
    assert said.startswith("dvc.lock: expected DVC's record of the stages, got ")
    # Its beginning and its end are those of what the run says.
    assert foretold is not None
    assert foretold.partition(". ")[0] == said.partition(". ")[0]
    assert foretold.partition("What the")[2] == said.rstrip().partition("What the")[2]
    assert ("puts the last whole copy back" in foretold) == has_copy
    assert dvc_files.damage() is None
    assert ("git merge" in said, "git add dvc.lock" in said) == (how == "conflict",) * 2
    assert Path("dvc.lock.damaged-1").read_bytes() == damaged(whole, how)
    assert (Path("dvc.lock").read_bytes() if Path("dvc.lock").exists() else None) == (
        whole if has_copy else None
    )
    load_graph(toy_with_results)
    if how == HOW[0]:
        # The same files as after any other damage.
        outcome = reproduce("retrain@none", None, ignore).outcome
        assert outcome == ("skipped" if has_copy else "restored")
    assert Path("work/started.txt").read_text().split() == ["manifest", "none"]
    assert Path("data/none.txt").read_text() == "source\nnone\n"


def test_a_lock_cut_off_at_any_place_is_read_by_dvc(toy_with_results: Path) -> None:
    whole = Path("dvc.lock").read_bytes()
    for length in range(0, len(whole), len(whole) // 30):
        Path("dvc.lock").write_bytes(whole[:length])
        dvc_files.keep_copy()
        dvc_files.repair()
        assert "retrain@none" in load_graph(toy_with_results).upstream


def test_a_lock_that_dvc_is_writing_is_left_to_it(
    toy_with_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_files, "WAIT_SECONDS", 0.2)
    Path("dvc.lock").write_bytes(b"schema")
    with Lock(str(toy_with_results / ".dvc/tmp/lock")):
        assert dvc_files.damage() is None
        assert dvc_files.repair() is None
    assert Path("dvc.lock").read_bytes() == b"schema"
    assert dvc_files.repair() is not None


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
        dvc_files.repair()
        running.kill()
    assert (toy / ".dvc/tmp/rwlock").read_text() == claims


@pytest.mark.parametrize("damage", ["cut off", "flipped", "missing"])
def test_a_damaged_object_of_the_cache_is_not_taken_for_a_result(
    toy_with_results: Path, damage: str
) -> None:
    content = (toy_with_results / "data/none.txt").read_bytes()
    name = hashlib.md5(content, usedforsecurity=False).hexdigest()
    cached = toy_with_results / ".dvc/cache/files/md5" / name[:2] / name[2:]
    assert cached.read_bytes() == content
    cached.chmod(0o644)
    cached.write_bytes({"cut off": b"sou", "flipped": b"Source\nnone\n"}.get(damage, b""))
    cached.chmod(0o444)
    if damage == "missing":
        cached.unlink()
    (toy_with_results / "data/none.txt").unlink()
    Path("dvc.lock").unlink()
    lines: list[str] = []
    reproduce("manifest", None, ignore)
    assert reproduce("retrain@none", None, lines.append).outcome == "executed"
    assert Path("data/none.txt").read_bytes() == content
    assert cached.read_bytes() == content
    told = [line for line in lines if "got a damaged copy from DVC's cache" in line]
    assert len(told) == (damage != "missing")

"""The record of a run: which code, which data, which outcomes."""

import hashlib
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.curate import require_success
from gdc.workspace import files, paths, tracking
from tasks import lineage
from tasks.lineage import recorded_run
from tasks.stages import (
    StageFailedError,
    StageResult,
)
from tests.tasks.builders import git


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
    for stage, cell, run_id in (("retrain", "none-1", "first"), ("score", None, "second")):
        written = asdict(tracking.Lineage(stage, cell, run_id, model_id=None))
        files.write_json(paths.lineage_path(stage, cell), written)
    results = [
        StageResult("manifest", "skipped", 0.0),
        StageResult("retrain@none-1", "restored", 1.26),
        StageResult("score", "executed", 2.0),
    ]
    rows = [lineage.stage_row(result) for result in results]
    assert rows[1] == lineage.StageRow("retrain/none-1", "restored", 1.3, run_id="first")
    assert lineage.origin_tags(rows) == {"gdc.origin.retrain/none-1": "first"}


def test_the_code_is_dirty_once_a_tracked_file_changes(toy: Path) -> None:
    head = git(toy, "rev-parse", "HEAD")
    assert lineage.code_tags() == {"gdc.git.commit": head, "gdc.git.dirty": "false"}
    (toy / "untracked").write_text("")
    assert lineage.code_tags()["gdc.git.dirty"] == "false"
    (toy / "toy.py").write_text("")
    assert lineage.code_tags()["gdc.git.dirty"] == "true"


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
    assert paths.UNRECORDED.exists()

"""The flow in a toy workspace: what it runs, records, publishes, and how it stops."""

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import ArtifactSort

from flows.curate import curate
from flows.program import STOP_SECONDS, STOPPED
from gdc.errors import ConfigError
from gdc.workspace import files, paths
from gdc.workspace.code_digests import code_digests
from tasks.graph import changed_targets, load_graph
from tasks.stages import (
    StageFailedError,
)
from tests.flows.toy_pipeline import PHASE_STAGE, whole_graph, write_graph
from tests.tasks.builders import commit_all, git


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


PROOF = ("gdc.curated.proof", "unproven")


def assert_version_says_why(gate: str) -> None:
    assert gate.startswith("passed: champion is version 1")
    with closing(sqlite3.connect("mlflow.db")) as database:
        versions = database.execute("select version, description from model_versions").fetchall()
    assert [version for version, _ in versions] == [1]
    assert versions[0][1].endswith("Gate passed.")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_flow_runs_everything_then_nothing_and_publishes(pipeline: Path) -> None:
    curate()
    first = last_parent()
    assert (first["status"], set(first["outcomes"].values())) == ("FINISHED", {"executed"})
    assert first["children"] == ["arm/none", "arm/paper", "retrain/none-1", "retrain/paper-1"]
    assert first["metrics"]["none/extraction"] == 0.5
    assert first["tags"].items() >= {("gdc.manifest.digest", "abc"), PROOF}
    assert changed_targets() == set()
    assert_prefect_shows_the_verdict(pipeline, first["tags"]["mlflow.note.content"])

    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "--default", "near", "../remote"], check=True
    )
    with pytest.raises(ConfigError, match=r"got changes in \.dvc/config"):
        curate(publish=True)
    commit_all(pipeline)
    curate(publish=True)
    second = last_parent()
    assert {t for t, outcome in second["outcomes"].items() if outcome == "executed"} == {"manifest"}
    assert second["children"] == ["arm/none", "arm/paper"]
    origin = files.read_json(paths.lineage_path("retrain", "paper-1"))["run_id"]
    assert second["tags"]["gdc.origin.retrain/paper-1"] == origin
    assert_version_says_why(second["tags"]["gdc.gate"])
    branch, commit = second["tags"]["gdc.published"].split(":")
    assert git(pipeline, "rev-parse", branch) == commit
    assert (
        git(pipeline, "show", f"{branch}:dvc.lock") == (pipeline / "dvc.lock").read_text().strip()
    )
    assert any((pipeline.parent / "remote").rglob("*"))
    assert_certified(pipeline, branch)
    assert_edited_code_is_not_published()


def assert_prefect_shows_the_verdict(pipeline: Path, note: str) -> None:
    """The run is named after its folder, and its page has what the run's page in MLflow has."""
    with get_client(sync_client=True) as client:
        # Other tests of the module have runs on the same server.
        artifact = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)[0]
        assert artifact.flow_run_id is not None
        run = client.read_flow_run(artifact.flow_run_id)
    assert (artifact.key, artifact.data) == ("verdict", note)
    assert note.startswith("**Found** ")
    assert re.fullmatch(rf"{pipeline.name} \d{{4}}-\d\d-\d\d \d\d:\d\d", run.name)


def assert_certified(pipeline: Path, branch: str) -> None:
    """The branch carries a certificate of what was pushed."""
    published = json.loads(git(pipeline, "show", f"{branch}:reports/certificate.json"))
    assert published["commit"] == git(pipeline, "rev-parse", "HEAD")
    assert {arm["arm"] for arm in published["results"]["arms"]} == {"none", "paper"}
    lock = hashlib.sha256((pipeline / "dvc.lock").read_bytes()).hexdigest()
    assert published["files"]["lock"]["dvc.lock"] == lock


def assert_edited_code_is_not_published() -> None:
    files.write_json(paths.CODE, code_digests() | {"score": "of code that was edited since"})
    with pytest.raises(ConfigError, match=r"got changed \['score'\]\. Run the flow again"):
        curate(publish=True)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_failed_target_stops_only_what_needs_it_and_is_recorded(pipeline: Path) -> None:
    (pipeline / "paper.txt").write_text("mistake")
    with pytest.raises(StageFailedError) as caught:
        curate()
    assert str(caught.value) == (
        "1 of 11 stages failed\n"
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
        StageFailedError, match=r"1 of 11 .*\n.*halves.*\nmanifest: there was a mistake"
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
def test_a_stop_ends_in_ten_seconds_though_the_server_is_gone(
    pipeline: Path, tmp_path: Path
) -> None:
    write_graph(pipeline, whole_graph())
    waiting = PHASE_STAGE + "\nif stage == 'ingest':\n    import time; time.sleep(600)\n"
    (pipeline / "phase.py").write_text(waiting)
    program = [sys.executable, "-P", "-m", "gdc", "run"]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
    while not (pipeline / "data/ingest").exists():
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    (uvicorn,) = [p for p in processes_in(pipeline) if p.cmdline()[1:3] == ["-m", "uvicorn"]]
    uvicorn.kill()
    started = time.monotonic()
    os.killpg(run.pid, signal.SIGTERM)
    assert run.wait(timeout=60) == 128 + signal.SIGTERM
    # Longer on a busy machine; without the bound Prefect would ask its server for minutes.
    assert time.monotonic() - started < STOP_SECONDS + 20
    assert STOP_SECONDS < 10
    assert psutil.wait_procs(processes_in(pipeline), timeout=30)[1] == []
    said = (tmp_path / "log").read_text()
    assert said.endswith(STOPPED)
    assert "Traceback" not in said
    assert "httpx" not in said
    load_graph(pipeline)

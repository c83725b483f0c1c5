"""What a stage records, read back from MLflow's own tables with plain SQL."""

import hashlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient  # noqa: TID251  # a store that is nobody's yet
from mlflow.tracking._tracking_service import utils  # noqa: TID251  # where plugins register

from gdc.errors import ConfigError, SchemaError, TransientError
from gdc.workspace import files, mlflow_store, paths, tracking

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "GDC_EXPERIMENT", "GDC_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def rows(query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect("mlflow.db")) as database:
        return database.execute(query, values).fetchall()


def tags_of(run_id: str) -> dict[str, str]:
    return dict(rows("select key, value from tags where run_uuid = ?", run_id))


def lineage_of(stage: str, cell: str | None = None) -> dict[str, Any]:
    return files.read_json(paths.lineage_path(stage, cell))


def write_lineage(path: Path, run_id: str = "", model_id: str | None = None) -> None:
    files.write_json(path, asdict(tracking.Lineage("train", None, run_id, model_id)))


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.usefixtures("workspace")
def test_a_stage_run_is_named_finished_and_has_a_lineage() -> None:
    with tracking.stage_run("retrain", {}, cell="none-1") as run:
        pass
    assert rows("select name, status from runs") == [("retrain/none-1", "FINISHED")]
    assert lineage_of("retrain", "none-1") == {
        "stage": "retrain", "cell": "none-1", "run_id": run.run_id, "model_id": None,
    }  # fmt: skip
    assert tags_of(run.run_id)["launcher"] == "dvc"


@pytest.mark.usefixtures("workspace")
def test_a_failed_stage_ends_its_run_and_leaves_no_lineage() -> None:
    with pytest.raises(SchemaError, match="no such table"), tracking.stage_run("score", {}):
        raise SchemaError("no such table")
    assert rows("select name, status from runs") == [("score", "FAILED")]
    assert not paths.lineage_path("score", None).exists()


def test_the_parent_of_a_stage_is_ours_whatever_mlflow_run_is_active(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.parent_run("curate", {"launcher": "prefect"}) as parent:
        monkeypatch.setenv("GDC_PARENT_RUN_ID", parent.run_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", "other")
        with tracking.stage_run("score", {}) as child:
            pass
    assert tags_of(child.run_id)["mlflow.parentRunId"] == parent.run_id
    assert tags_of(child.run_id)["launcher"] == "prefect"
    assert (workspace / "mlflow.db").exists()


@pytest.mark.usefixtures("workspace")
def test_the_run_of_a_killed_child_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with tracking.parent_run("curate", {}) as parent:
        monkeypatch.setenv("GDC_PARENT_RUN_ID", parent.run_id)
        killed = tracking.stage_run("train", {}, cell="0")
        killed.__enter__()
    assert rows("select name, status from runs order by name") == [
        ("curate", "FINISHED"), ("train/0", "KILLED"),
    ]  # fmt: skip


@pytest.mark.usefixtures("workspace")
def test_the_runs_of_a_flow_that_was_killed_are_ended_by_the_next_one_of_the_workspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, flows = tracking.workspace(), []
    for name in ("elsewhere", here):
        monkeypatch.setattr(tracking, "workspace", lambda name=name: name)
        flows.append(tracking.parent_run(name, {}))
        monkeypatch.setenv("GDC_PARENT_RUN_ID", flows[-1].__enter__().run_id)
        flows.append(tracking.stage_run("train", {}, cell=name))
        flows[-1].__enter__()
    with tracking.parent_run("next", {}):
        pass
    assert dict(rows("select name, status from runs")) == {
        "elsewhere": "RUNNING", "train/elsewhere": "RUNNING",
        here: "KILLED", f"train/{here}": "KILLED",
        "next": "FINISHED",
    }  # fmt: skip


@pytest.mark.parametrize("opened", [tracking.parent_run, tracking.stage_run])
@pytest.mark.usefixtures("workspace")
def test_a_run_that_cannot_be_ended_does_not_hide_why_it_failed(
    opened: Callable[[str, Mapping[str, str]], AbstractContextManager[tracking.Run]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the server is gone")

    monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
    with pytest.raises(SchemaError, match=r"^the first$"), opened("score", {}):
        raise SchemaError("the first")
    with pytest.raises(OSError, match="the server is gone"), opened("score", {}):
        pass


@pytest.mark.usefixtures("workspace")
def test_params_are_flat_and_cut_at_the_limit_of_mlflow() -> None:
    sections = {"score": {"epsilon": {"kind": "quantile", "value": 0.1}}, "long": "x" * 7000}
    with tracking.stage_run("score", sections):
        pass
    assert dict(rows("select key, value from params")) == {
        "score.epsilon.kind": "quantile",
        "score.epsilon.value": "0.1",
        "long": "x" * 6000,
    }


@pytest.mark.parametrize(
    ("params", "flat"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"a": {"b": {"c": 1}}}, {"a.b.c": "1"}, id="three levels"),
        pytest.param({"a": [1, 2], "b": None}, {"a": "[1, 2]", "b": "None"}, id="leaves as text"),
    ],
)
def test_nested_params_are_flattened(params: dict[str, Any], flat: dict[str, str]) -> None:
    assert tracking.flatten(params) == flat


@pytest.mark.usefixtures("workspace")
def test_a_metric_without_a_value_is_left_out() -> None:
    with tracking.stage_run("evaluate", {}) as run:
        run.log_metrics({"perplexity": 66.5, "extraction_rate": None})
    assert rows("select key, value from metrics") == [("perplexity", 66.5)]


@pytest.mark.usefixtures("workspace")
def test_a_curve_longer_than_a_batch_keeps_every_step() -> None:
    points = [(10 * i, i / 4) for i in range(1234)]
    with tracking.stage_run("train", {}) as run:
        run.log_curve("loss", points)
    assert rows("select step, value from metrics where key = 'loss' order by step") == points


@pytest.mark.usefixtures("workspace")
def test_a_curve_that_grew_is_logged_from_where_it_ended() -> None:
    with tracking.stage_run("train", {}) as run:
        run.log_curve("loss", [(1, 3.0), (2, 2.0)])
        run.log_curve("loss", [(1, 3.0), (2, 2.0), (3, 1.0)])
    found = rows("select step, value from metrics where key = 'loss' order by step")
    assert found == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.usefixtures("workspace")
def test_a_run_below_another_one_has_params_and_numbers_of_its_own() -> None:
    with tracking.parent_run("curate", {}) as run, run.child("arm/a", {"gdc.arm": "a"}) as arm:
        arm.log_params({"rule": "none"})
        arm.log_metrics({"extraction": 0.25})
    assert tags_of(arm.run_id)["mlflow.parentRunId"] == run.run_id
    assert rows("select key, value from params where run_uuid = ?", arm.run_id) == [
        ("rule", "none")
    ]
    assert rows("select status from runs") == [("FINISHED",)] * 2


@pytest.mark.usefixtures("workspace")
def test_a_file_and_a_folder_are_artifacts_of_the_workspace() -> None:
    make_model(Path("data/plans"))
    Path("note.txt").write_text("hello")
    with tracking.stage_run("intervene", {}) as run:
        run.log_artifact(Path("data/plans"))
        run.log_artifact(Path("note.txt"))
    (artifacts,) = Path("mlartifacts").glob(f"{run.run_id}/artifacts")
    files = [p.relative_to(artifacts).as_posix() for p in artifacts.rglob("*") if p.is_file()]
    assert sorted(files) == ["note.txt", "plans/config.json"]


@pytest.mark.usefixtures("workspace")
def test_a_table_is_stored_to_be_read_by_programs_and_by_people() -> None:
    with tracking.parent_run("curate", {}) as run:
        run.log_table("stages", ["stage", "seconds"], [["score", 1.5]])
    (folder,) = Path("mlartifacts").glob(f"{run.run_id}/artifacts")
    assert json.loads((folder / "stages.json").read_text()) == [{"stage": "score", "seconds": 1.5}]
    assert (folder / "stages.md").read_text() == (
        "| stage | seconds |\n| --- | --- |\n| score | 1.5 |\n"
    )


@pytest.mark.usefixtures("workspace")
def test_a_dataset_is_known_by_the_md5_that_dvc_knows_it_by() -> None:
    pl.DataFrame({"sample_id": ["a", "b"]}).write_parquet("corpus.parquet")
    with tracking.stage_run("train", {}) as run:
        run.log_dataset("corpus", Path("corpus.parquet"), "training")
    md5 = hashlib.md5(Path("corpus.parquet").read_bytes()).hexdigest()  # noqa: S324  # DVC's
    assert rows("select name, digest from datasets") == [("corpus", md5)]
    (profile,) = rows("select dataset_profile from datasets")
    assert json.loads(profile[0]) == {"num_rows": 2, "num_elements": 2}
    assert rows("select name, value from input_tags") == [("mlflow.data.context", "training")]


@pytest.mark.usefixtures("workspace")
def test_a_model_is_an_output_of_one_run_and_an_input_of_the_next() -> None:
    folder = make_model(Path("data/models/none-1"))
    with tracking.stage_run("retrain", {}, cell="none-1") as run:
        run.log_model(folder, {"heldout_loss": 4.5})
    model_id = lineage_of("retrain", "none-1")["model_id"]
    assert rows("select model_id, name, status, source_run_id from logged_models") == [
        (model_id, "none-1", 2, run.run_id),  # 2: READY
    ]
    assert rows("select model_id, metric_name, metric_value from logged_model_metrics") == [
        (model_id, "heldout_loss", 4.5),
    ]
    with tracking.stage_run("evaluate", {}, cell="none-1") as user:
        user.use_model(paths.lineage_path("retrain", "none-1"))
    edges = rows("select source_type, source_id, destination_type, destination_id from inputs")
    assert {edge for edge in edges if "MODEL" in edge[0] + edge[2]} == {
        ("RUN_OUTPUT", run.run_id, "MODEL_OUTPUT", model_id),
        ("RUN_INPUT", user.run_id, "MODEL_INPUT", model_id),
    }


@pytest.mark.usefixtures("workspace")
def test_the_time_of_a_run_is_known_to_its_own_store_alone() -> None:
    lineage = paths.lineage_path("halves", None)
    with tracking.stage_run("halves", {}) as run:
        write_lineage(lineage, run_id=run.run_id)
        assert tracking.seconds_of([lineage]) == [None]
    ((began, ended),) = rows("select start_time, end_time from runs")
    other = paths.lineage_path("score", None)
    write_lineage(other, run_id="0" * 32)
    assert tracking.seconds_of([other, lineage]) == [None, (ended - began) / 1000]


@pytest.mark.parametrize("model_id", ["m-of-another-store", None])
@pytest.mark.usefixtures("workspace")
def test_a_model_of_another_store_is_tagged_as_unknown(model_id: str | None) -> None:
    lineage = paths.lineage_path("retrain", "none-1")
    write_lineage(lineage, model_id=model_id)
    with tracking.stage_run("evaluate", {}) as run:
        run.use_model(lineage)
    assert tags_of(run.run_id)["gdc.model"] == "unknown here"


@pytest.mark.usefixtures("workspace")
def test_the_alias_moves_and_a_model_is_registered_once() -> None:
    ids = []
    for cell in ("paper-1", "paper-2"):
        with tracking.stage_run("retrain", {}, cell=cell) as run:
            run.log_model(make_model(Path("data/models") / cell))
        ids.append(str(lineage_of("retrain", cell)["model_id"]))
    asked = [(ids[0], "champion", "passed"), (ids[1], None, "kept: it leaks"), (ids[0], None, "ok")]
    versions = [
        tracking.register(model, "gdc-curated", alias, tracking.VersionNote(gate, f"Gate {gate}."))
        for model, alias, gate in asked
    ]
    assert versions == ["1", "2", "1"]
    assert rows("select alias, version from registered_model_aliases") == [("champion", 1)]
    assert rows("select version, description from model_versions order by version") == [
        (1, "Gate ok."),
        (2, "Gate kept: it leaks."),
    ]
    tags = "select version, value from model_version_tags where key = 'gdc.gate' order by version"
    assert rows(tags) == [(1, "ok"), (2, "kept: it leaks")]


@pytest.mark.usefixtures("workspace")
def test_the_experiment_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDC_EXPERIMENT", "nightly")
    with tracking.parent_run("first", {}):
        pass
    with tracking.parent_run("first", {}):
        pass
    (location,) = rows("select artifact_location from experiments where name = 'nightly'")[0]
    assert location == (Path.cwd() / "mlartifacts").as_uri()


def test_a_server_that_does_not_answer_may_be_tried_again_and_its_password_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1/mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    refusal = pytest.raises(TransientError, match=r"http://127\.0\.0\.1:1/mlflow")
    with refusal as caught, tracking.parent_run("first", {}):
        pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("opened", [mlflow_store.require_answer, mlflow_store.experiment_id])
# Nobody listens there, which is not what is wrong with it.
@pytest.mark.parametrize("place", ["coop", "me:secret@127.0.0.1:1", ""])
def test_a_uri_that_mlflow_does_not_know_is_refused_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[], object], place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"carrier-pigeon://{place}")
    with pytest.raises(
        ConfigError, match=r"^MLFLOW_TRACKING_URI: .*http.*carrier-pigeon"
    ) as caught:
        opened()
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_a_plugin_adds_to_mlflow_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    known = utils._tracking_store_registry._registry
    monkeypatch.setitem(known, "pneumatic", lambda **_: SimpleNamespace())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "pneumatic://tube")
    mlflow_store.require_answer()


def test_an_unreachable_server_is_noticed_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    for uri in ("http://me:secret@127.0.0.1:1/mlflow", "postgresql://me:secret@127.0.0.1:1/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        refusal = pytest.raises(TransientError, match=r"^MLFLOW_TRACKING_URI: .*//127\.0\.0\.1:1/")
        with refusal as caught:
            mlflow_store.require_answer()
        assert "secret" not in str(caught.value)
    assert time.monotonic() - started < 60


def test_a_server_that_listens_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        mlflow_store.require_answer()


@pytest.mark.parametrize("opened", [mlflow_store.require_answer, mlflow_store.experiment_id])
@pytest.mark.parametrize("damage", [b"no database" * 100, b"SQLite format 3\0" + b"\1" * 5000])
@pytest.mark.usefixtures("workspace")
def test_a_file_that_is_no_database_is_refused_at_once(
    damage: bytes, opened: Callable[[], object]
) -> None:
    Path("mlflow.db").write_bytes(damage)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"^{Path.cwd()}/mlflow\.db: .*mv mlflow\.db mlflow"):
        opened()
    assert time.monotonic() - started < 30
    assert Path("mlflow.db").read_bytes() == damage


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [
        pytest.param("451aebb31d03", r"got older ones.*mlflow db upgrade sqlite:////", id="2019"),
        pytest.param("f00000000000", "got those of a newer one. Install that", id="the future"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_a_database_of_another_version_is_refused(revision: str, remedy: str) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("update alembic_version set version_num = ?", (revision,))
    refusal = pytest.raises(ConfigError, match=rf"^MLflow at sqlite:///{Path.cwd()}.*{remedy}")
    with refusal, tracking.parent_run("first", {}):
        pass
    # Before Prefect is started, too.
    with pytest.raises(ConfigError, match=remedy):
        mlflow_store.require_answer()


@pytest.mark.usefixtures("workspace")
def test_a_database_of_this_version_is_taken_and_the_secrets_of_its_url_are_not_logged() -> None:
    mlflow_store.require_answer()
    assert tracking.flatten({"a": {"url": "https://me:pw@h/x"}}) == {"a.url": "https://***@h/x"}


def test_a_database_without_its_driver_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me@127.0.0.1:1/db")
    refusal = pytest.raises(ConfigError, match=r"MLFLOW_TRACKING_URI: .*gendatacarto\[postgres\]")
    with refusal, tracking.parent_run("first", {}):
        pass


def test_importing_the_module_does_not_import_mlflow() -> None:
    program = "import sys, gdc.workspace.tracking; raise SystemExit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Rows of MLflow's tables that several runs write at the same moment."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from gdc.errors import ConfigError
from gdc.workspace import tracking

pytestmark = pytest.mark.slow

NUM_RUNS = 4


@pytest.fixture(autouse=True)
def _workspace(migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "GDC_EXPERIMENT", "GDC_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def rows(query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect("mlflow.db")) as database:
        return database.execute(query).fetchall()


@contextmanager
def insert_together(table: str) -> Iterator[None]:
    """Each thread that has seen no row in ``table`` inserts one only when all have looked."""
    all_have_looked = threading.Barrier(NUM_RUNS, timeout=120)
    waited = threading.local()

    def wait(session: Session, *_: object) -> None:
        inserts = any(entry.__tablename__ == table for entry in session.new)
        if inserts and not hasattr(waited, "once"):
            waited.once = True
            all_have_looked.wait()

    event.listen(Session, "before_flush", wait)
    try:
        yield
    finally:
        event.remove(Session, "before_flush", wait)


def run_together(work: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(NUM_RUNS) as threads:
        list(threads.map(work, range(NUM_RUNS)))


def test_runs_that_read_one_data_set_at_the_same_moment_all_have_it_as_input() -> None:
    pl.DataFrame({"sample_id": ["a", "b"]}).write_parquet("corpus.parquet")

    def train(seed: int) -> None:
        with tracking.stage_run("retrain", {}, cell=f"none-{seed}") as run:
            run.log_dataset("corpus", Path("corpus.parquet"), "training")

    with insert_together("datasets"):
        run_together(train)
    assert rows("select name from datasets") == [("corpus",)]
    inputs = rows(
        "select runs.name, status, datasets.name, input_tags.value from runs "
        "left join inputs on destination_id = run_uuid left join datasets on "
        "source_id = dataset_uuid left join input_tags using (input_uuid) order by runs.name"
    )
    assert inputs == [
        (f"retrain/none-{seed}", "FINISHED", "corpus", "training") for seed in range(NUM_RUNS)
    ]


def test_models_that_get_one_alias_at_the_same_moment_are_no_error() -> None:
    note = tracking.VersionNote("passed", "Gate passed.")
    ids = []
    for seed in range(NUM_RUNS):
        folder = Path(f"models/none-{seed}")
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        with tracking.stage_run("retrain", {}, cell=f"none-{seed}") as run:
            run.log_model(folder)
        ids.append(str(run.model_id))
        tracking.register(ids[-1], "curated", None, note)
    with insert_together("registered_model_aliases"):
        run_together(lambda seed: tracking.register(ids[seed], "curated", "champion", note))
    assert rows("select version from model_versions order by version") == [(1,), (2,), (3,), (4,)]
    assert rows("select alias from registered_model_aliases") == [("champion",)]


def test_a_write_that_the_database_refuses_each_time_is_an_error() -> None:
    pl.DataFrame({"sample_id": ["a"]}).write_parquet("corpus.parquet")
    with tracking.stage_run("ingest", {}):
        pass
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute(
            "create trigger refuse before insert on datasets "
            "begin select raise(abort, 'no more data sets'); end"
        )
    refusal = pytest.raises(ConfigError, match="no more data sets")
    with refusal, tracking.stage_run("train", {}) as run:
        run.log_dataset("corpus", Path("corpus.parquet"), "training")
    assert rows("select name, status from runs order by name") == [
        ("ingest", "FINISHED"), ("train", "FAILED"),
    ]  # fmt: skip

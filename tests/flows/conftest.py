"""Workspaces that flows run in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import MadeOnce, NewHome
from tests.flows.builders import ENVIRONMENT, commit_all, dvc, make_workspace, run_flow
from tests.flows.toy_pipeline import make_pipeline


@pytest.fixture(scope="session")
def own_prefect_home(prefect_home: NewHome) -> Iterator[None]:
    """Servers of Prefect that runs start keep nothing among what the user has."""
    home = str(prefect_home())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", home)
        patch.setitem(ENVIRONMENT, "PREFECT_HOME", home)
        yield


@pytest.fixture
def pipeline(
    tmp_path: Path,
    migrated_store: Path,
    own_prefect_home: None,  # noqa: ARG001 - for the run
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A toy workspace with every phase of the flow and the tables of MLflow, as current folder."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    make_pipeline(folder)
    shutil.copy(migrated_store, folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "GDC_EXPERIMENT", "GDC_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def first_run(made_once: MadeOnce, own_prefect_home: None) -> Path:  # noqa: ARG001 - for the run
    """A workspace after its first scheduled run, to be copied."""

    def run(shared: Path) -> None:
        folder = make_workspace(shared / "workspace")
        dvc(folder, "remote", "add", "--default", "storage", str(shared / "storage"))
        commit_all(folder)
        run_flow(folder, "--publish")

    return made_once("first-run", run) / "workspace"


@pytest.fixture
def folder(first_run: Path, tmp_path: Path) -> Path:
    """A copy of the workspace after its first scheduled run, to be changed."""
    return Path(shutil.copytree(first_run, tmp_path / "workspace"))

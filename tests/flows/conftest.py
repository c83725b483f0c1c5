"""Workspaces that flows run in."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from flows import curate
from tasks.fork_client import fork_server
from tests.flows.builders import commit_all, dvc, make_workspace, run_flow
from tests.flows.toy_pipeline import DVC_MODULES, make_pipeline


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy workspace with every phase of the flow, as the current folder."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    make_pipeline(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(curate, "fork_server", partial(fork_server, DVC_MODULES))
    for name in ("MLFLOW_TRACKING_URI", "GDC_EXPERIMENT", "GDC_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def first_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A workspace after its first scheduled run, to be copied.

    The run takes minutes, so all workers share one.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "first-run"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir()
            folder = make_workspace(shared / "workspace")
            dvc(folder, "remote", "add", "--default", "storage", str(shared / "storage"))
            commit_all(folder)
            run_flow(folder, "--publish")
            (shared / "done").touch()
    return shared / "workspace"


@pytest.fixture
def folder(first_run: Path, tmp_path: Path) -> Path:
    """A copy of the workspace after its first scheduled run, to be changed."""
    return Path(shutil.copytree(first_run, tmp_path / "workspace"))

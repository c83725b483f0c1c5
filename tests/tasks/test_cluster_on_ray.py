"""Cells on the workers of a local Ray cluster: what fails there, and what a worker is given."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from dvc.repo import Repo
from prefect import flow

from gdc.errors import ConfigError
from tasks import cluster
from tasks.cluster import clone_of, describe_workspace, joined, ray_workers
from tasks.graph import changed_targets, load_graph
from tasks.schedule import run_graph
from tasks.stages import StageResult, reproduce
from tests.tasks.builders import ignore, init_dvc

# In the package, as it goes to the workers; one of the cells fails there.
CELL = """
import sys
from pathlib import Path

name, source = sys.argv[1:]
if name == "bad":
    sys.exit((sys.stderr.write("error: there was a mistake\\n"), 2)[1])
Path(f"data/{name}").write_text(Path(source).read_text() + name)
"""
REQUIRE_ROOM = cluster._require_room
CELLS = ["cell@good", "cell@bad", "cell@other"]
GRAPH = {
    "stages": {
        "start": {
            "cmd": "python gdc/cell.py start source",
            "deps": ["source"],
            "outs": ["data/start"],
        },
        "cell": {
            "matrix": {"name": ["good", "bad", "other"]},
            "cmd": "python gdc/cell.py ${item.name} data/start",
            "deps": ["data/start"],
            "outs": ["data/${item.name}"],
        },
    }
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of one stage and three cells, and a remote, as the current folder."""
    folder = tmp_path / "workspace"
    for name in ("gdc", "data", "tasks"):
        (folder / name).mkdir(parents=True)
    (folder / "tasks/__init__.py").write_text("raise RuntimeError('not the tasks of gdc')")
    (folder / "gdc/cell.py").write_text(CELL)
    (folder / "dvc.yaml").write_text(json.dumps(GRAPH))
    (folder / "source").write_text("of the start, ")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GDC_WORKER_FOLDER", str(tmp_path / "workers"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    init_dvc(folder, no_scm=True)
    with Repo() as repo, repo.config.edit() as config:
        config["core"]["remote"] = "near"
        config["remote"]["near"] = {"url": str(tmp_path / "remote")}
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_cell_that_fails_on_a_worker_is_named_and_its_siblings_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce("start", None, ignore)
    rooms: list[tuple[Mapping[str, float], Mapping[str, int]]] = []
    monkeypatch.setattr(cluster, "_require_room", lambda *room: rooms.append(room))

    @flow
    def cells() -> list[StageResult]:
        graph = load_graph(Path())
        with joined("local", 1), ray_workers(graph, None) as workers:
            return list(run_graph(graph, workers, lambda target: target == "start"))

    by_target = {result.target: result for result in cells()}
    good, bad, other = (by_target[name] for name in CELLS)
    assert [good.outcome, bad.outcome, other.outcome] == ["executed", "failed", "executed"]
    assert str(bad.error) == "cell@bad: there was a mistake"
    for name in ("good", "other"):
        assert (workspace / "data" / name).read_text() == f"of the start, start{name}"
    assert changed_targets() == {"cell@bad"}
    assert_a_cell_without_room_is_refused(rooms)


def assert_a_cell_without_room_is_refused(
    rooms: list[tuple[Mapping[str, float], Mapping[str, int]]],
) -> None:
    """By what Ray said of this machine when it was asked for room for one processor."""
    ((resources, needs),) = rooms
    assert needs == {"num_cpus": 1, "num_gpus": 0}
    REQUIRE_ROOM(resources, needs)
    with pytest.raises(ConfigError, match=r"--ray local: expected 100000 CPU for a cell, got \d+ "):
        REQUIRE_ROOM(resources, {**needs, "num_cpus": 100_000})


@pytest.mark.slow
def test_two_cells_at_the_same_time_work_in_clones_of_their_own(workspace: Path) -> None:
    described = describe_workspace()
    with clone_of(described) as one:
        (one / "gdc/left.py").write_text("")
        with clone_of(described) as other:
            assert [folder.name for folder in (one, other)] == ["0", "1"]
            assert (other / "gdc/cell.py").read_text() == CELL
    with clone_of(described) as again:
        assert again == one
        # It is as the workspace is, whatever was left there.
        assert [path.name for path in (again / "gdc").iterdir()] == ["cell.py"]
    assert Path.cwd() == workspace

"""Cells on a Ray cluster, without one: their clones, and what becomes of each."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from dvc.config import Config
from dvc.repo import Repo
from prefect.settings import PREFECT_API_URL, temporary_settings
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

from gdc.errors import ConfigError, TransientError
from tasks import cluster
from tasks.cluster import (
    RayWorkers,
    Workspace,
    clone_of,
    describe_workspace,
    is_of_this_machine,
    joined,
    require_private,
    run_cell,
)
from tasks.graph import Graph
from tasks.stages import StageFailedError, StageResult, StageTransientError

SECRET = "hush"  # noqa: S105 - of nobody
OWN_REMOTE = f"""
['remote "storage"']
    url = https://example.org
    password = {SECRET}
"""
WORKSPACE = Workspace(
    name="test",
    files={"params.yaml": b"a: 1\n", ".dvc/config.local": OWN_REMOTE.encode()},
    remote="storage",
    url=f"https://user:{SECRET}@example.org",
    environment={"MLFLOW_TRACKING_URI": f"https://user:{SECRET}@example.org"},
)
CELLS = ("train@0", "train@1", "train@2", "train@3")
GRAPH = Graph({name: frozenset({"ingest"}) for name in CELLS})


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The commands of DVC that are asked for; none of them runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GDC_WORKER_FOLDER", str(tmp_path / "workers"))
    # A worker takes that of the workspace; here it is put back.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(cluster, "_dvc", lambda *arguments: asked.append(arguments))
    return asked


def test_a_workspace_without_a_default_remote_is_refused_before_anything_is_pushed(
    commands: list[Sequence[str]],
) -> None:
    with Repo.init(no_scm=True):
        pass
    for refused in (
        describe_workspace,
        lambda: joined("local", 1).__enter__(),
        lambda: RayWorkers(Runner([]), GRAPH, None).submit("train@0"),
    ):
        with pytest.raises(
            ConfigError, match=r"^--ray: expected a default DVC remote .*, got none"
        ):
            refused()
    assert commands == []


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost:5000", True),
        ("http://[::1]:5000", True),
        ("sqlite:////home/me/mlflow.db", True),
        ("http://10.0.0.1:5000", False),
        ("https://me:hush@mlflow.example.org", False),
    ],
)
def test_a_service_that_other_machines_cannot_reach_is_known(address: str, answer: bool) -> None:
    assert is_of_this_machine(address) == answer


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_services_of_this_machine_alone_are_refused_where_there_are_others(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    addresses = dict.fromkeys(("MLFLOW_TRACKING_URI", "PREFECT_API_URL"), "http://there:5000")
    addresses[name] = "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", addresses["MLFLOW_TRACKING_URI"])
    message = rf"^{name}: expected a server that all of one, other reach, got http://127\.0\.0\.1:5"
    with (
        temporary_settings({PREFECT_API_URL: addresses["PREFECT_API_URL"]}),
        pytest.raises(ConfigError, match=message),
    ):
        cluster._require_reached({"other", "one"})


def test_two_workers_have_clones_of_their_own_and_the_next_takes_one_of_them() -> None:
    with clone_of(WORKSPACE) as one, clone_of(WORKSPACE) as other:
        assert one != other
        assert (one / "params.yaml").read_bytes() == (other / "params.yaml").read_bytes()
    with clone_of(WORKSPACE) as again:
        assert again == one


def test_a_cell_that_fails_gives_its_clone_back_while_its_error_is_still_looked_at() -> None:
    with pytest.raises(StageFailedError) as kept, clone_of(WORKSPACE) as failed:
        raise StageFailedError("boom")
    with clone_of(WORKSPACE) as again:
        assert again == failed
    assert str(kept.value) == "boom"


def test_a_clone_holds_no_file_of_a_former_state() -> None:
    with clone_of(WORKSPACE) as folder:
        (folder / "gdc").mkdir()
        (folder / "gdc/former.py").touch()
        (folder / "dvc.lock").touch()
    with clone_of(WORKSPACE) as folder:
        assert sorted(path.name for path in folder.iterdir()) == [".dvc", "params.yaml"]


def test_a_clone_has_the_remote_of_the_workspace_and_needs_no_git() -> None:
    with clone_of(WORKSPACE):
        config = Config(".dvc")
    assert config["core"]["no_scm"] is True
    remote = config["remote"]["storage"]
    assert (remote["url"], remote["password"]) == (WORKSPACE.url, SECRET)


def test_passwords_are_neither_shown_nor_readable_by_others(tmp_path: Path) -> None:
    assert SECRET not in repr(WORKSPACE)
    with clone_of(WORKSPACE):
        assert stat.S_IMODE((tmp_path / "workers/gdc-test").stat().st_mode) == 0o700


@pytest.mark.parametrize("in_the_way", ["link", "file"])
def test_a_place_of_clones_that_somebody_else_prepared_is_refused(
    tmp_path: Path, in_the_way: str
) -> None:
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir(mode=0o755)
    place = tmp_path / "gdc-test"
    place.symlink_to(elsewhere) if in_the_way == "link" else place.write_text("")
    with pytest.raises(ConfigError, match=r"GDC_WORKER_FOLDER: expected a folder .*gdc-test of"):
        require_private(place)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_a_remote_that_does_not_answer_fails_the_cell_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: str) -> None:
        raise TransientError("dvc pull: no answer")

    monkeypatch.setattr(cluster, "_dvc", refuse)
    with pytest.raises(StageTransientError, match=r"^train@0: dvc pull: no answer$"):
        run_cell.fn("train@0", ["ingest"], WORKSPACE, None)


def test_a_remote_on_a_disk_that_a_worker_does_not_see_is_named(
    tmp_path: Path, commands: list[Sequence[str]]
) -> None:
    url = str(tmp_path / "of another machine")
    message = rf"^train@0: --ray: expected the DVC remote {url} on all machines .* they share\.$"
    with pytest.raises(StageFailedError, match=message):
        run_cell.fn("train@0", ["ingest"], replace(WORKSPACE, url=url), None)
    assert commands == []


@dataclass
class Ended:
    """A future of a cell that has ended."""

    value: object
    wrapped_future: int

    def result(self, *, raise_on_failure: bool) -> object:
        """What Prefect says of it; Ray raises where a worker died."""
        assert not raise_on_failure
        if isinstance(self.value, RayError):
            raise self.value
        return self.value


@dataclass
class Runner:
    """Runs no cell, and says what became of each."""

    ended: list[object]

    def submit(self, *_: object) -> Ended:
        return Ended(self.ended.pop(0), wrapped_future=len(self.ended))


def test_a_cell_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, commands: list[Sequence[str]]
) -> None:
    done = [StageResult(f"train@{seed}", "executed", 1.0) for seed in (0, 2)]
    unreached = RayTaskError("cell", "...", RuntimeError("Failed to reach API"))  # type: ignore[no-untyped-call]  # ray leaves it so
    runner = Runner([done[0], WorkerCrashedError(), done[1], unreached])
    taken: list[str] = []

    def reproduce(target: str, *_: object, options: Sequence[str]) -> None:
        taken.append(target)
        assert options == ("--pull",)
        if target == "train@2":
            raise StageFailedError("train@2: not in the remote")

    monkeypatch.setattr("ray.wait", lambda waiting, **_: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(cluster, "describe_workspace", lambda: WORKSPACE)
    monkeypatch.setattr(cluster, "reproduce", reproduce)
    workers = RayWorkers(runner, GRAPH, None)
    assert workers.wait() == []
    for target in GRAPH.upstream:
        workers.submit(target)
    results = [result for _ in GRAPH.upstream for result in workers.wait()]
    assert [result.outcome for result in results] == ["executed", "failed", "failed", "failed"]
    assert [result.target for result in results] == list(GRAPH.upstream)
    assert "train@1: its worker was lost: The worker died" in str(results[1].error)
    assert str(results[2].error) == "train@2: not in the remote"
    assert str(results[3].error) == (
        "train@3: its worker could not begin: RuntimeError('Failed to reach API')"
    )
    assert taken == ["train@0", "train@2"]
    # What all read goes to the remote once.
    assert commands == [("push", "ingest")]


@pytest.mark.parametrize(
    ("device", "given", "number"),
    [
        pytest.param("cpu", "4", 0, id="none for a model on processors"),
        pytest.param("cuda", "", 1, id="one"),
        pytest.param("cuda", "4", 4, id="as many as its launcher starts processes"),
    ],
)
def test_a_cell_takes_the_gpus_that_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, device: str, given: str, number: int
) -> None:
    monkeypatch.setenv("GDC_DEVICE", device)
    monkeypatch.setenv("GDC_WORKER_GPUS", given)
    assert cluster._num_gpus() == number


@pytest.mark.parametrize("given", ["0", "two", "-1"])
def test_a_malformed_number_of_gpus_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("GDC_DEVICE", "cuda")
    monkeypatch.setenv("GDC_WORKER_GPUS", given)
    with pytest.raises(ConfigError, match=f"GDC_WORKER_GPUS: .* got '{given}'"), joined("local", 1):
        pass

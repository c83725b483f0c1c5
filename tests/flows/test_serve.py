"""Schedules: a real server starts a real run, and what cannot work is said at once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import serve as serving
from flows.serve import deployment_name, next_date, require_plan, serve
from gdc.errors import ConfigError, GdcError, TransientError
from gdc.workspace import run_lock
from tests.builders import free_port
from tests.flows.programs import START_SECONDS, found, running, wait_for
from tests.flows.toy_pipeline import make_pipeline, whole_graph, write_graph

ROOT: Final = Path(__file__).parent.parent.parent


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of a workspace, as the current one."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- refusals


def test_a_schedule_that_is_no_cron_line_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--cron: expected minute, .* got 'at night'"):
        serve("at night")


def test_a_schedule_that_no_date_matches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--cron: .* some date matches, got '0 0 31 2 \*'"):
        serve("0 0 31 2 *")


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--timezone: expected .* got 'Mars/Olympus'"):
        serve(timezone="Mars/Olympus")


def test_a_schedule_is_read_in_its_time_zone() -> None:
    due = next_date("0 3 1 1 *", "Asia/Tokyo")
    assert (due.month, due.day, due.hour) == (1, 1, 3)
    assert due.utcoffset() == timedelta(hours=9)
    assert due > datetime.now(UTC)


def test_a_folder_that_is_no_workspace_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"params\.yaml: not found .* gdc init docs"):
        serve()


@pytest.mark.usefixtures("workspace")
def test_a_schedule_without_a_server_is_refused() -> None:
    refusal = pytest.raises(ConfigError, match=r"a Prefect server, got none.*prefect server start")
    with temporary_settings({PREFECT_API_URL: None}), refusal:
        serve()


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("http://127.0.0.1:9/api", TransientError, r":9/api, got .* for 0 s.*prefect server start"),
        ("ftp://127.0.0.1/api", ConfigError, "the API of a Prefect server, .* got ftp://"),
        ("127.0.0.1:4200", ConfigError, r"the API of a Prefect server, .* got 127\.0\.0\.1:4200"),
    ],
)
def test_a_server_that_never_answers_is_refused(
    address: str, error: type[GdcError], message: str
) -> None:
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(error, match=message):
        serve(server_seconds=0)


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(404, json={}), r"got http://.* \(HTTP 404\)"),
        (httpx.Response(200, text="<html>"), r"got http://.* \(an answer that is no JSON\)"),
    ],
)
def test_what_answers_but_is_no_prefect_server_is_refused_at_once(
    answer: httpx.Response, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda *_: answer)
    address = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9"})
    with address, pytest.raises(ConfigError, match=expected):
        serve(server_seconds=600)


@pytest.mark.usefixtures("workspace")
def test_a_server_that_is_still_starting_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["Connection refused", "HTTP 503", None])
    monkeypatch.setattr(serving, "_silence", lambda _: next(answers))
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.0)
    with temporary_settings({PREFECT_API_URL: "http://server:4200/api"}):
        serving.require_server(60)
    told = "waiting up to 60 s for a Prefect server at http://server:4200/api: Connection refused\n"
    assert capfd.readouterr().err == told
    assert next(answers, "all asked") == "all asked"


def test_folders_of_one_name_are_served_apart(tmp_path: Path) -> None:
    folders = tmp_path / "a/my data 日本", tmp_path / "b/my data 日本"
    one, other = map(deployment_name, folders)
    assert one != other
    assert one == deployment_name(folders[0])
    assert one.rpartition("-")[0] == other.rpartition("-")[0] == "my-data-"


# ---- a server that plans nothing


class _Planless:
    """The part of a server that ``require_plan`` asks; it holds a deployment and no run."""

    def __init__(self, *, paused: bool, active: bool, scheduler: bool) -> None:
        self.deployment = {
            "id": str(uuid4()), "name": "w-1", "flow_id": str(uuid4()), "paused": paused,
            "schedules": [{"schedule": {"cron": "* * * * *"}, "active": active}],
        }  # fmt: skip
        self.settings = {"server": {"services": {"scheduler": {"enabled": scheduler}}}}

    def answer(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.path.removeprefix("/api")
        if asked == "/csrf-token":  # as a server that wants none
            return httpx.Response(404, request=request)
        answer: Any = {"/admin/settings": self.settings, "/flow_runs/filter": []}
        return httpx.Response(200, json=answer.get(asked, self.deployment), request=request)


@pytest.mark.parametrize(
    ("states", "sqlalchemy", "message"),
    [
        ((True, True, True), "2.0.58", "is paused: prefect deployment resume curate/w-1"),
        ((False, False, True), "2.0.58", "schedule is inactive"),
        ((False, True, False), "2.0.58", "without its scheduler: start it without `--no-services`"),
        ((False, True, True), "2.1.9", r"SQLAlchemy 2\.1\.9 .* pip install 'sqlalchemy<2\.1'"),
        ((False, True, True), "2.0.58", "The log of the server says why"),
    ],
)
def test_a_server_that_plans_no_run_is_reported_with_its_cause(
    states: tuple[bool, bool, bool],
    sqlalchemy: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused, active, scheduler = states
    server = _Planless(paused=paused, active=active, scheduler=scheduler)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, r: server.answer(r))
    monkeypatch.setattr(serving, "version", lambda _: sqlalchemy)
    address = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    refusal = pytest.raises(TransientError, match=f"a run planned for 2030-.*got none.*{message}")
    with address, refusal:
        require_plan(uuid4(), datetime(2030, 1, 1, tzinfo=UTC), seconds=0)


# ---- a real server


def ended_run(address: str) -> str | None:
    """How the first run that has ended did so; None while there is none."""
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        states = [run.state for run in client.read_flow_runs() if run.auto_scheduled]
    return next((state.name for state in states if state is not None and state.is_final()), None)


def finished_run_of_the_pool(address: str) -> str | None:
    """How a run of the deployment of ``prefect.yaml`` ended; None while there is none."""
    named = DeploymentFilter(name=DeploymentFilterName(any_=["nightly"]))
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        states = [run.state for run in client.read_flow_runs(deployment_filter=named)]
    return next((state.name for state in states if state is not None and state.is_final()), None)


def run_by_a_work_pool(folder: Path, address: str, environment: Mapping[str, str]) -> None:
    """By the deployment of ``prefect.yaml``, once and at once."""
    prefect = [sys.executable, "-P", "-m", "prefect", "--no-prompt"]
    # As a shell sets it, for ``prefect deploy``.
    variables = {**environment, "PWD": str(folder)}
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="gdc", type="process"))
        subprocess.run([*prefect, "deploy", "--all"], cwd=folder, env=variables, check=True)
        deployment = client.read_deployment_by_name("curate/nightly")
        client.create_flow_run_from_deployment(deployment.id, parameters={"publish": False})
    worker = [*prefect, "worker", "start", "--pool", "gdc", "--run-once"]
    subprocess.run(worker, cwd=folder.parent, env=variables, check=True)


@pytest.mark.slow
def test_a_cron_and_a_work_pool_start_runs_that_end_well(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    make_pipeline(folder)
    shutil.copy(ROOT / "prefect.yaml", folder)
    write_graph(folder, whole_graph())
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    server_log, serve_log = tmp_path / "server.log", tmp_path / "serve.log"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": address,
        "MLFLOW_TRACKING_URI": "",
    }
    server = [sys.executable, "-m", "prefect", "server", "start"]
    server += ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-P", "-m", "gdc", "serve", "--cron", "* * * * *", "--no-publish"]
    with running(server, server_log, environment, tmp_path):
        # At the same time as its server, for which it waits.
        with running(command, serve_log, environment, folder) as served:
            wait_for(lambda: found("next run: ", serve_log), served, serve_log, server_log)
            state = wait_for(lambda: ended_run(address), served, serve_log, server_log)
            assert served.poll() is None
        # The run of the next minute may have begun.
        with FileLock(folder / run_lock.LOCK, timeout=START_SECONDS):
            pass
        run_by_a_work_pool(folder, address, environment)
        assert finished_run_of_the_pool(address) == "Completed"
    assert state == "Completed", serve_log.read_text()
    assert (folder / "reports/report.json").exists()
    assert "waiting up to 90 s for a Prefect server" in serve_log.read_text()
    assert served.returncode == 0

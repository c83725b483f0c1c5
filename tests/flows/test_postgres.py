"""Runs whose record MLflow and Prefect keep in PostgreSQL, as the servers of a team do."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from mlflow import MlflowClient  # noqa: TID251  # what its server holds
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.builders import free_port
from tests.flows.builders import ENVIRONMENT
from tests.flows.programs import running, wait_for
from tests.flows.toy_pipeline import PROGRAM, make_pipeline, phase_graph, write_graph

# It refuses to run as root.
OWNER = "postgres" if os.geteuid() == 0 else None


@dataclass(frozen=True)
class Services:
    """Addresses of an MLflow server and a Prefect server."""

    mlflow: str
    prefect: str


def program(name: str) -> str:
    """Where a program of PostgreSQL lies, on PATH or where Debian puts it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if path is None:
        pytest.skip(f"no {name} of PostgreSQL here: apt-get install postgresql")
    return path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """Host and port of a PostgreSQL with an empty database for each of the two servers."""
    initdb, server = program("initdb"), program("postgres")
    # Its owner can enter no folder of ours.
    folder = Path(tempfile.mkdtemp(prefix="gdc-postgres-"))
    if OWNER is not None:
        shutil.chown(folder, OWNER)
    data, port = folder / "data", free_port()
    options = ["--auth=trust", "--username=gdc", "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run([initdb, *options, "--pgdata", data], cwd=folder, user=OWNER, check=True)
    command = [server, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    try:
        log = tmp_path / "postgres.log"
        with running(command, log, os.environ, folder, user=OWNER) as process:
            wait_for(lambda: _created(port), process, log)
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder)


def _created(port: int) -> str | None:
    address = f"host=127.0.0.1 port={port} user=gdc"
    try:
        with psycopg.connect(f"{address} dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE mlflow")
            connection.execute("CREATE DATABASE prefect")
    except psycopg.OperationalError:
        return None
    with psycopg.connect(f"{address} dbname=prefect") as connection:
        connection.execute("CREATE EXTENSION pg_trgm")
    return "created"


@contextmanager
def services(database: str, folder: Path) -> Iterator[Services]:
    """Both servers over the databases, with commands as the guides show them."""
    ports = free_port(), free_port()
    found = Services(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/api")
    environment = {
        **ENVIRONMENT,
        "PREFECT_HOME": str(folder / "prefect"),
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://gdc@{database}/mlflow",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://gdc@{database}/prefect",
    }
    mlflow = ["mlflow", "server", "--workers", "1"]
    mlflow += ["--artifacts-destination", str(folder / "artifacts")]
    prefect = ["prefect", "server", "start", "--no-ui"]
    logs = folder / "mlflow.log", folder / "prefect.log"
    commands = [
        [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)]
        for command, port in zip((mlflow, prefect), ports, strict=True)
    ]
    with (
        running(commands[0], logs[0], environment, folder) as first,
        running(commands[1], logs[1], environment, folder) as second,
    ):
        wait_for(lambda: _answer(f"{found.mlflow}/health"), first, logs[0])
        wait_for(lambda: _answer(f"{found.prefect}/health"), second, logs[1])
        yield found


def _answer(address: str) -> str | None:
    try:
        return httpx.get(address).raise_for_status().text
    except httpx.HTTPError:
        return None


def flow_states(address: str) -> list[str]:
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        return [str(run.state_name) for run in client.read_flow_runs()]


@pytest.mark.slow
def test_a_run_is_recorded_by_servers_on_postgresql(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    make_pipeline(folder)
    write_graph(folder, phase_graph(chain=["ingest"]))
    with services(database, tmp_path) as found:
        known = {"MLFLOW_TRACKING_URI": found.mlflow, "PREFECT_API_URL": found.prefect}
        command, log = [sys.executable, "-P", "-c", PROGRAM], tmp_path / "run.log"
        with running(command, log, {**ENVIRONMENT, **known}, folder) as run:
            assert run.wait(timeout=600) == 0, log.read_text()
        assert "Error logging to API" not in log.read_text()
        runs = MlflowClient(found.mlflow).search_runs(["1"])
        states = flow_states(found.prefect)
    cells = ["arm/none", "arm/paper", "curate", "retrain/none-1", "retrain/paper-1"]
    assert sorted(run.info.run_name for run in runs) == cells
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert states == ["Completed"]
    assert list((tmp_path / "artifacts").rglob("config.json"))
    # Not in files of the servers' or of the workspace.
    assert not [*tmp_path.rglob("mlflow.db"), *tmp_path.rglob("prefect.db")]

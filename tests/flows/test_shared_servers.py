"""Two workspaces on one MLflow server and one Prefect server, both killed in the middle.

Both keep their records in PostgreSQL, as those of a team do, where that is installed. MLflow's
artifacts lie in a server with the interface of S3.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import NullPool, create_engine, text

from tests.builders import REPOSITORY, free_port
from tests.flows.builders import read_json
from tests.flows.postgres import databases
from tests.flows.programs import running
from tests.flows.s3 import BUCKET, Store, s3_server
from tests.flows.toy_pipeline import PHASE_STAGE, make_pipeline, phase_graph
from tests.tasks.builders import commit_all

# One after the other; each has a run in MLflow.
STAGES = ("ingest", "halves", "train")
LOGGING_STAGE = f"""{PHASE_STAGE}
if stage in {STAGES}:
    from gdc.workspace import tracking

    with tracking.stage_run(stage, {{}}) as run:
        run.log_metrics({{"length": len(text)}})
        if stage == "train":
            run.log_model(Path("model"))
"""
# Of artifacts in the bucket, and of MLflow's server.
PREFIX, ARTIFACTS = "mlflow", "/api/2.0/mlflow-artifacts/artifacts"
START_SECONDS = 300.0
RUN_SECONDS = 600.0
MOST_RUNS = 3


@dataclass(frozen=True)
class Stores:
    """Where the servers of MLflow and Prefect keep their records, as SQLAlchemy names it."""

    mlflow: str
    prefect: str
    artifacts: Store


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with databases(tmp_path / "postgres.log") as address, s3_server() as s3:
        if address is None:
            sqlite = (
                f"sqlite:///{tmp_path}/mlflow.db", f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
            )  # fmt: skip
            yield Stores(*sqlite, s3)
            return
        names = f"postgresql+psycopg://gdc@{address}", f"postgresql+asyncpg://gdc@{address}"
        yield Stores(f"{names[0]}/mlflow", f"{names[1]}/prefect", s3)
        # Not in files of the servers' or of the workspace.
        assert not [*tmp_path.rglob("mlflow.db"), *tmp_path.rglob("prefect.db")]


@pytest.mark.slow
def test_two_workspaces_lose_nothing_though_both_servers_are_killed(
    tmp_path: Path, stores: Stores
) -> None:
    folders = [make_workspace(tmp_path / name) for name in ("one", "other")]
    ports = free_port(), free_port()
    with ExitStack() as stack:
        with servers(tmp_path, stores, *ports) as environment:
            runs = [stack.enter_context(flow(folder, environment)) for folder in folders]
            while not all((folder / "lineage/ingest.json").exists() for folder in folders):
                assert all(run.poll() is None for run in runs), logs(tmp_path)
                time.sleep(0.1)
        assert not any((folder / "reports/report.json").exists() for folder in folders)
        with servers(tmp_path, stores, *ports):
            for folder, run in zip(folders, runs, strict=True):
                finish(folder, run, environment)
            states = flow_states(environment["PREFECT_API_URL"])
            logged = stores.artifacts.objects()
            assert_downloaded(f"{environment['MLFLOW_TRACKING_URI']}{ARTIFACTS}", logged)
    assert states.count("Completed") >= len(folders), states
    for folder in folders:
        made = {(folder / f"data/{name}").read_text() for name in STAGES}
        assert made == {(folder / "source.json").read_text()}
    assert_recorded_once(stores.mlflow, folders)
    assert len([key for key in logged if key.endswith("/config.json")]) >= len(folders)


def assert_downloaded(address: str, objects: Mapping[str, bytes]) -> None:
    """What lies in S3 comes from MLflow's server, which alone has the credentials."""
    with httpx.Client(timeout=60, trust_env=False) as client:
        for key, content in objects.items():
            path = key.removeprefix(f"{PREFIX}/")
            assert client.get(f"{address}/{path}").raise_for_status().content == content


def flow_states(address: str) -> list[str]:
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        return [str(run.state_name) for run in client.read_flow_runs()]


def assert_recorded_once(store: str, folders: list[Path]) -> None:
    """One finished run for each stage of each workspace, that of its files; none goes on."""
    with create_engine(store, poolclass=NullPool).connect() as database:
        rows = database.execute(text("select run_uuid, name, status from runs")).all()
    finished = {run_id: name for run_id, name, status in rows if status == "FINISHED"}
    count = Counter(finished.values())
    assert {name: count[name] for name in STAGES} == dict.fromkeys(STAGES, len(folders)), rows
    assert count["curate"] == len(folders)
    assert "RUNNING" not in {status for _, _, status in rows}
    origins = [
        (finished[read_json(folder / f"lineage/{name}.json")["run_id"]], name)
        for folder in folders
        for name in STAGES
    ]
    assert all(found == name for found, name in origins)


def make_workspace(folder: Path) -> Path:
    """The beginning of the toy pipeline; stages other than `manifest` log to MLflow."""
    folder.mkdir()
    make_pipeline(folder)
    stages = phase_graph()["stages"]
    graph = {name: stages[name] for name in ("manifest", *STAGES, "report")}
    graph["report"]["deps"] = ["report.json", "data/train"]
    (folder / "dvc.yaml").write_text(json.dumps({"stages": graph}))
    (folder / "phase.py").write_text(LOGGING_STAGE)
    commit_all(folder)
    return folder


@contextmanager
def servers(
    place: Path, stores: Stores, runs_port: int, flows_port: int
) -> Iterator[Mapping[str, str]]:
    """Both servers with what they knew before; in the end they are killed."""
    address = f"http://127.0.0.1:{flows_port}/api"
    store = f"http://127.0.0.1:{runs_port}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_HOME": str(place / "prefect"),
        "MLFLOW_BACKEND_STORE_URI": stores.mlflow,
        # Its half a dozen processes for jobs do nothing for what records runs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": stores.prefect,
    }
    python = [sys.executable, "-m"]
    of_runs = [*python, "mlflow", "server", "--workers", "1"]
    of_runs += ["--artifacts-destination", f"s3://{BUCKET}/{PREFIX}"]
    of_flows = [*python, "prefect", "server", "start", "--no-ui"]
    with ExitStack() as stack:
        for name, command, port in (
            ("mlflow", of_runs, runs_port), ("prefect", of_flows, flows_port)
        ):  # fmt: skip
            words = [*command, "--host", "127.0.0.1", "--port", str(port)]
            own = environment | (stores.artifacts.environment if name == "mlflow" else {})
            started = running(words, place / f"{name}.log", own, place)
            process = stack.enter_context(started)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
        for url in (f"{store}/health", f"{address}/health"):
            wait_for_answer(url, place)
        yield {**environment, "PREFECT_API_URL": address, "MLFLOW_TRACKING_URI": store}


def wait_for_answer(url: str, place: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                if client.get(url).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
    pytest.fail(logs(place))


@contextmanager
def flow(folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    # Not `gdc run`, which refuses the beginning of a pipeline.
    command = [sys.executable, "-P", "-c", "from flows import start; start.run()"]
    with running(command, folder.with_suffix(".log"), environment, folder) as process:
        yield process


def finish(folder: Path, run: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    """Wait for a run, and run again what did not come to its end."""
    for _ in range(MOST_RUNS):
        if run.wait(timeout=RUN_SECONDS) == 0:
            return
        with flow(folder, environment) as again:
            again.wait(timeout=RUN_SECONDS)
        run = again
    pytest.fail(logs(folder.parent))


def logs(place: Path) -> str:
    return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(place.glob("*.log")))

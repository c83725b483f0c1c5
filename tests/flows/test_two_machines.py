"""A Ray cluster of two machines, which share a network and no disk."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.builders import NewHome
from tests.flows.builders import ENVIRONMENT, digests, dvc, forget
from tests.flows.machines import Machine, two_machines
from tests.flows.programs import found, running, wait_for
from tests.flows.s3 import BUCKET

PYTHON = (sys.executable, "-P", "-m")
# Ports of the head, which nobody else's can be.
RAY, MLFLOW, PREFECT, S3 = 6379, 5000, 4200, 5001
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
MAKE_BUCKET = """
import sys
from urllib.request import Request, urlopen

urlopen(Request(sys.argv[1], method="PUT"), timeout=60)
"""
RUN_SECONDS = 600.0
# Each needs the one before it.
CELLS = ("retrain@none-1", "evaluate@none-1")


@dataclass(frozen=True)
class Cluster:
    """A head without processors, on whose disk the workspace lies, and a worker with one."""

    head: Machine
    worker: Machine
    disk: Path
    environment: Mapping[str, str]

    def url(self, port: int) -> str:
        """Of a server on the head, as both know it."""
        return f"http://{self.head.address}:{port}"

    def gdc(self, *words: str, **variables: str) -> tuple[int, str]:
        """What the program on the head ends with and says, in the workspace."""
        command = [*PYTHON, "gdc", *words, "--ray", f"{self.head.address}:{RAY}"]
        done = subprocess.run(
            self.head.command(*command, folder=self.disk / "workspace"),
            env={**self.environment, **variables},
            check=False,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def disk() -> Iterator[Path]:
    """Where the head keeps its files; under a short name, as Ray makes sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="gdc-two-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_cells_on_another_machine_make_the_bytes_of_a_run_on_this_one(
    disk: Path, first_run: Path, migrated_store: Path, prefect_home: NewHome, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(first_run, disk / "workspace"))
    shutil.copytree(prefect_home(), disk / "prefect")
    shutil.copy(migrated_store, disk)
    forget(folder, CELLS)
    with started_cluster(disk, tmp_path) as cluster:
        assert_a_trace_on_the_disk_of_one_machine_is_refused(cluster)
        name_remote(folder, cluster)
        code, said = cluster.gdc(
            "run",
            MLFLOW_TRACKING_URI=cluster.url(MLFLOW),
            PREFECT_API_URL=f"{cluster.url(PREFECT)}/api",
        )
        assert code == 0, said
        assert all(f"{cell}: executed" in said for cell in CELLS), said
        clones = cluster.worker.command("find", str(disk), "-name", "model.safetensors")
        there = subprocess.run(clones, check=True, capture_output=True, text=True).stdout
    assert digests(folder) == digests(first_run)
    # In a clone, and in that alone.
    assert there.count("/data/models/none-1/") == 1
    assert str(folder) not in there
    assert not [*disk.glob("gdc-*")]


def assert_a_trace_on_the_disk_of_one_machine_is_refused(cluster: Cluster) -> None:
    code, said = cluster.gdc("map", "data/trace/0", "--out", "mapped")
    trace = cluster.disk / "workspace/data/trace/0"
    expected = f"error: --ray: expected {trace} on all machines of the cluster, got none on "
    assert (code, f"{expected}{cluster.worker.name}." in said) == (2, True), said


def name_remote(folder: Path, cluster: Cluster) -> None:
    """An empty bucket takes the place of the folder that the first run pushed to."""
    bucket = [f"{cluster.url(S3)}/{BUCKET}"]
    command = cluster.head.command(sys.executable, "-c", MAKE_BUCKET, *bucket)
    subprocess.run(command, env=cluster.environment, check=True)
    dvc(folder, "remote", "modify", "storage", "url", f"s3://{BUCKET}/dvc")
    dvc(folder, "remote", "modify", "storage", "endpointurl", cluster.url(S3))


@contextmanager
def started_cluster(disk: Path, logs: Path) -> Iterator[Cluster]:
    """Both machines with Ray; the servers that a run on several machines needs are on the head."""
    environment = environment_of(disk)
    with two_machines(disk) as (head, worker), ExitStack() as stack:
        cluster = Cluster(head, worker, disk, environment)

        def start(name: str, machine: Machine, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
            command, log = machine.command(*PYTHON, *words), logs / f"{name}.log"
            return stack.enter_context(running(command, log, environment, disk)), log

        commands = {
            MLFLOW: mlflow_server(cluster),
            PREFECT: ["prefect", "server", "start", "--no-ui"],
            S3: ["moto.server"],
        }
        servers = {
            port: start(words[0], head, *words, "--host", head.address, "--port", str(port))
            for port, words in commands.items()
        }
        for name, machine, options in (
            ("head", head, ["--head", "--port", str(RAY), "--include-dashboard", "false"]),
            ("worker", worker, ["--address", f"{head.address}:{RAY}"]),
        ):
            process, log = start(name, machine, *ray_node(machine, disk), *options)
            wait_for(partial(found, "Ray runtime started", log), process, log)
        for port, (process, log) in servers.items():
            wait_for(partial(reached, cluster, port), process, log)
        yield cluster


def environment_of(disk: Path) -> dict[str, str]:
    """Of all programs on both machines: whatever they keep lies on the disk."""
    return {
        **ENVIRONMENT,
        **dict.fromkeys(("HOME", "TMPDIR"), str(disk)),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "10.0.0.1,10.0.0.2"),
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "PREFECT_HOME": str(disk / "prefect"),
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Its half a dozen processes for jobs do nothing for what records runs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def mlflow_server(cluster: Cluster) -> list[str]:
    names = ["--allowed-hosts", f"{cluster.head.address}:{MLFLOW}"]
    store = ["--backend-store-uri", f"sqlite:///{cluster.disk / 'mlflow.db'}"]
    artifacts = ["--artifacts-destination", str(cluster.disk / "artifacts")]
    return ["mlflow", "server", "--workers", "1", *names, *store, *artifacts]


def ray_node(machine: Machine, disk: Path) -> list[str]:
    """`ray start` until it is stopped; the head has no processors, so that cells go elsewhere."""
    num_cpus = "0" if machine.name == "gdc-head" else "1"
    place = ["--node-ip-address", machine.address, "--temp-dir", str(disk / "ray")]
    command = ["ray.scripts.scripts", "start", "--block", "--include-log-monitor", "false"]
    return [*command, "--num-cpus", num_cpus, *place]


def reached(cluster: Cluster, port: int) -> str | None:
    """Whether the worker reaches a server on the head."""
    words = [sys.executable, "-c", CONNECT, cluster.head.address, str(port)]
    done = subprocess.run(cluster.worker.command(*words), check=False, capture_output=True)
    return "reached" if done.returncode == 0 else None

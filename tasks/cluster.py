"""Cells on a Ray cluster: each worker has a clone of its own, and DVC's remote carries the files.

A worker takes what a cell reads from the remote, runs the very command that would run here, and
pushes the outputs with DVC's record of the run. The workspace that started it then finds that
record and takes the outputs from it, as of any run it has seen before.
"""

import os
import socket
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import Any, Final
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.repo import Repo
from filelock import FileLock, Timeout
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL

from gdc.environment import device
from gdc.errors import ConfigError, TransientError
from gdc.workspace import dvc, dvc_files, mlflow_store
from gdc.workspace.ray_cluster import LOCAL, connected, not_shared
from tasks.graph import Graph
from tasks.processes import WAIT_SECONDS
from tasks.stages import (
    StageFailedError,
    StageResult,
    StageTransientError,
    reproduce,
    result_of,
    stage_task,
)

# What makes a folder the workspace; the package where it lies in the workspace itself.
DECIDING: Final = (
    "params.yaml", "dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config", ".dvc/config.local",
)  # fmt: skip
PACKAGE: Final = "gdc"
# Of the programs that a worker starts.
HANDED_ON: Final = (
    "GDC_CHECKPOINT_SECONDS", "GDC_DEVICE", "GDC_EXPERIMENT", "GDC_LAUNCHER", "GDC_PARALLEL",
)  # fmt: skip


@dataclass(frozen=True)
class Workspace:
    """What a worker needs to make the workspace again, and where its data lie.

    What may hold a password is not shown.
    """

    name: str
    files: Mapping[str, bytes] = field(repr=False)
    remote: str
    url: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)


@contextmanager
def joined(address: str, num_threads: int) -> Iterator[None]:
    """Connect to the Ray cluster at ``address``; each cell takes so many of its processors.

    With ``GDC_DEVICE=cuda`` a cell also takes ``GDC_WORKER_GPUS`` of its GPUs, by default one.

    Raises:
        ConfigError: There is no default DVC remote, Ray is not installed or does not answer, its
            nodes cannot reach MLflow or Prefect, or the cluster that is started here has no room
            for a cell.
    """
    needs = {"num_cpus": num_threads, "num_gpus": _num_gpus()}
    default_remote()
    with connected(address):
        import ray  # noqa: PLC0415 - an extra
        from prefect_ray.context import remote_options  # noqa: PLC0415 - an extra

        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # ray leaves it so
        hosts = {node["NodeManagerHostname"] for node in nodes if node["Alive"]}
        if hosts != {socket.gethostname()}:
            _require_reached(hosts)
        if address == LOCAL:
            _require_room(ray.cluster_resources(), needs)  # type: ignore[no-untyped-call]  # ray
        with remote_options(**needs):
            yield


def _num_gpus() -> int:
    if not device().startswith("cuda"):
        return 0
    given = os.environ.get("GDC_WORKER_GPUS") or "1"
    if not given.isdecimal() or given == "0":
        raise ConfigError(f"GDC_WORKER_GPUS: expected GPUs of a cell, 1 or more, got {given!r}.")
    return int(given)


def _require_reached(hosts: Collection[str]) -> None:
    """Refuse services of this machine alone, to which cells on other machines cannot speak."""
    services = {
        "MLFLOW_TRACKING_URI": (mlflow_store.tracking_uri(), "mlflow server"),
        "PREFECT_API_URL": (PREFECT_API_URL.value() or "", "prefect server start"),
    }
    for name, (address, program) in services.items():
        if is_of_this_machine(address):
            raise ConfigError(
                f"{name}: expected a server that all of {', '.join(sorted(hosts))} reach, got "
                f"{address}. Start one that listens to them ({program} --host 0.0.0.0), and name "
                "it by an address that they know."
            )


def is_of_this_machine(address: str) -> bool:
    """Whether a service lies in a file, or its address means another machine on each machine."""
    host = urlsplit(address).hostname or "localhost"
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_room(resources: Mapping[str, float], needs: Mapping[str, int]) -> None:
    """Refuse what Ray would wait for without end; a cluster elsewhere may yet get other nodes."""
    for kind, name in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        if resources.get(kind, 0) < needs[name]:
            raise ConfigError(
                f"--ray {LOCAL}: expected {needs[name]} {kind} for a cell, got "
                f"{resources.get(kind, 0):g} in this machine. Name a cluster that has them, or "
                "change training.num_threads, GDC_DEVICE or GDC_WORKER_GPUS."
            )


class RayWorkers:
    """Runs targets on the workers of a Ray cluster; see ``ray_workers``."""

    def __init__(self, runner: Any, graph: Graph, parent_run_id: str | None) -> None:  # noqa: ANN401  # prefect_ray is an extra
        self._runner = runner
        self._graph = graph
        self._parent_run_id = parent_run_id
        self._running: dict[Any, tuple[str, Any]] = {}  # Ray's references, Prefect's futures
        self._in_remote: set[str] = set()

    def submit(self, target: str) -> None:
        """Push what a target reads, and run it where there is room.

        Raises:
            ConfigError: There is no default DVC remote.
            TransientError: The remote did not take the files.
        """
        workspace = describe_workspace()
        inputs = sorted(self._graph.upstream[target])
        if new := [name for name in inputs if name not in self._in_remote]:
            _dvc("push", *new)
            self._in_remote.update(new)
        parameters = {
            "target": target,
            "inputs": inputs,
            "workspace": workspace,
            "parent_run_id": self._parent_run_id,
        }
        future = self._runner.submit(run_cell, parameters)
        self._running[future.wrapped_future] = (target, future)

    def wait(self) -> list[StageResult]:
        """Results of those that have ended, with their outputs in place here."""
        import ray  # noqa: PLC0415 - an extra

        if not self._running:
            return []
        ended, _ = ray.wait(list(self._running), timeout=WAIT_SECONDS)
        return [self._taken(_result_of(*self._running.pop(reference))) for reference in ended]

    def _taken(self, result: StageResult) -> StageResult:
        """The result, with the outputs that the worker has pushed put in their place here."""
        if result.error is not None:
            return result
        try:
            reproduce(result.target, self._parent_run_id, _say, options=("--pull",))
        except StageFailedError as error:
            return replace(result, outcome="failed", error=error)
        self._in_remote.add(result.target)
        return result


@contextmanager
def ray_workers(graph: Graph, parent_run_id: str | None) -> Iterator[RayWorkers]:
    """Keep an executor on the Ray cluster that was joined."""
    from prefect_ray import RayTaskRunner  # noqa: PLC0415 - an extra

    with RayTaskRunner() as runner:
        yield RayWorkers(runner, graph, parent_run_id)


def default_remote() -> tuple[str, str]:
    """Name and URL of the DVC remote that carries the files.

    Raises:
        ConfigError: There is none.
    """
    with Repo() as repo:
        remote = repo.config["core"].get("remote")
        if remote is None:
            raise ConfigError(
                "--ray: expected a default DVC remote that all workers reach, got none. "
                "Add one: dvc remote add --default storage <path or URL>."
            )
        return remote, str(repo.config["remote"][remote]["url"])


def describe_workspace() -> Workspace:
    """The workspace in this folder.

    Raises:
        ConfigError: It has no default DVC remote.
    """
    remote, url = default_remote()
    package = [
        path for path in Path(PACKAGE).rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    paths = [*(Path(name) for name in DECIDING if Path(name).exists()), *package]
    handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return Workspace(
        name=sha256(f"{socket.gethostname()}:{Path.cwd()}".encode()).hexdigest()[:12],
        files={path.as_posix(): _content(path) for path in paths},
        remote=remote,
        url=url,
        environment={**handed_on, "MLFLOW_TRACKING_URI": mlflow_store.tracking_uri()},
    )


def _content(path: Path) -> bytes:
    # Stages that end at the same time write their record.
    return dvc_files.read_lock() if path == dvc_files.LOCK else path.read_bytes()


@stage_task("cell")
def run_cell(
    target: str, inputs: Sequence[str], workspace: Workspace, parent_run_id: str | None
) -> StageResult:
    started = time.monotonic()
    # DVC would ask for a cache that is up to date.
    if "://" not in workspace.url and not Path(workspace.url).is_dir():
        raise StageFailedError(f"{target}: {not_shared(f'the DVC remote {workspace.url}')}")
    os.environ.update(workspace.environment)
    try:
        with clone_of(workspace):
            # Whatever a cell that was killed in this clone has left gives way.
            _dvc("pull", "--force", *inputs)
            result = reproduce(target, parent_run_id, _say)
            _dvc("push", "--run-cache", target)
    except TransientError as error:
        # Of this cell alone: the others go on.
        raise StageTransientError(f"{target}: {error}") from None
    return StageResult(target, result.outcome, time.monotonic() - started)


@contextmanager
def clone_of(workspace: Workspace) -> Iterator[Path]:
    """Work in a clone that no other worker works in; its cache stays for the next cell.

    Clones lie below ``GDC_WORKER_FOLDER``, by default the folder for temporary files.
    """
    base = Path(os.environ.get("GDC_WORKER_FOLDER") or tempfile.gettempdir())
    place = base / f"gdc-{workspace.name}"
    base.mkdir(parents=True, exist_ok=True)
    require_private(place)
    for number in count():
        try:
            held = FileLock(place / f"{number}.lock").acquire(blocking=False)
        except Timeout:
            continue
        with held, chdir(_made(place / str(number), workspace)):
            yield Path.cwd()
        return


def require_private(folder: Path) -> None:
    """Make a folder that nobody else reads: DVC's configuration may hold a password.

    Raises:
        ConfigError: Somebody else has made one of this name, or a link to another folder.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"GDC_WORKER_FOLDER: expected a folder {folder} of this user, got a link or one of "
            "another user. Name a place that nobody else may write to."
        )
    folder.chmod(0o700)


def _made(folder: Path, workspace: Workspace) -> Path:
    """The clone in the state of the workspace."""
    folder.mkdir(exist_ok=True)
    rmtree(folder / PACKAGE, ignore_errors=True)
    for name in DECIDING:
        (folder / name).unlink(missing_ok=True)
    for name, content in workspace.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # As `dvc config` and `dvc remote modify` do, each of which would import DVC anew for seconds.
    with Config(str(folder / ".dvc")).edit("local") as local:
        local["core"]["no_scm"] = "true"
        # A path in the configuration is relative to it.
        local["remote"].setdefault(workspace.remote, {})["url"] = workspace.url
    return folder


def _result_of(target: str, future: Any) -> StageResult:  # noqa: ANN401  # prefect_ray is an extra
    from ray.exceptions import RayError, RayTaskError  # noqa: PLC0415 - an extra

    try:
        value = future.result(raise_on_failure=False)
    except RayTaskError as error:
        # Before the cell began: whatever it raises itself is its result. Ray's log has the rest.
        value = StageFailedError(f"{target}: its worker could not begin: {error.cause!r}")
    except RayError as error:
        # The worker itself was lost, and Ray has given up starting others.
        value = StageFailedError(f"{target}: its worker was lost: {error}")
    return result_of(target, value)


def _say(line: str) -> None:
    get_run_logger().info(line)


def _dvc(*arguments: str) -> None:
    done = dvc.run(*arguments)
    if done.returncode != 0:
        raise TransientError(f"dvc {' '.join(arguments)}: {done.stderr.strip()}")

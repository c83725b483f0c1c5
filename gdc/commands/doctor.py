"""This machine and this folder -> what would keep a run from its end, found in seconds."""

import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import psutil

from gdc.config import Params
from gdc.corpus.sources import require_usable
from gdc.environment import (
    checkpoint_seconds,
    device,
    launcher,
    parallel,
    require_address_space,
    require_whole_models,
    split_address,
    workers,
)
from gdc.errors import ConfigError, GdcError, TransientError, without_secrets
from gdc.workspace import mlflow_store, project
from gdc.workspace.progress import read_progress

GB: Final = 2**30
MIN_DISK: Final = 1 * GB
ENOUGH_DISK: Final = 5 * GB
ENOUGH_MEMORY: Final = 2 * GB
UI_PORT: Final = 5000
PACKAGES: Final = ("dvc", "mlflow", "polars", "prefect", "sqlalchemy", "torch", "transformers")
CPU_INFO: Final = Path("/proc/cpuinfo")
_ANSWER_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        check: Its name.
        level: ``warning``: a run works, but worse than it could.
        text: What was found, and what to do.
        exit_code: Of the command, if this is the worst that was found.
    """

    check: str
    level: Literal["ok", "warning", "failed"]
    text: str
    exit_code: int = 0


def examine() -> list[Finding]:
    """Run every check; none takes more than a second or two, and none changes anything."""
    return [_found(name, check) for name, check in CHECKS.items()]


def exit_code(findings: list[Finding]) -> int:
    """That of what must be mended, before that of what may work later."""
    codes = {finding.exit_code for finding in findings}
    return next((code for code in (2, 75) if code in codes), 0)


def _found(name: str, check: Callable[[], str]) -> Finding:
    try:
        text = check()
    except GdcError as error:
        return Finding(name, "failed", str(error), error.exit_code)
    except Warning as warning:
        return Finding(name, "warning", str(warning))
    return Finding(name, "ok", text)


def _params() -> Params:
    project.require_workspace()
    return project.load_params()


# ---- checks: a sentence; a GdcError where a run would fail, a UserWarning where it would be worse


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise ConfigError(
                f"{name}: expected it installed, got none. Install gdc again: pip install "
                "gendatacarto"
            ) from None
    if tuple(map(int, version("sqlalchemy").split(".")[:2])) >= (2, 1):
        raise UserWarning(
            f"sqlalchemy {version('sqlalchemy')}: under it the scheduler of Prefect 3.8 plans no "
            "run. For gdc serve: pip install 'sqlalchemy<2.1'"
        )
    return f"Python {platform.python_version()}, {', '.join(found)}"


def _workspace() -> str:
    project.require_workspace()
    run = read_progress()
    if run is not None and run.is_alive():
        raise UserWarning(f"process {run.process} runs here now (gdc status)")
    return str(Path.cwd())


def _parameters() -> str:
    params = _params()
    if params.train.self_influence:
        require_whole_models()
    return f"params.yaml is valid: {params.num_models} {params.model.kind} models to train"


def _source() -> str:
    params = _params()
    source = params.ingest.source
    require_usable(params.ingest, seed=params.seed)
    return f"{source.kind} {getattr(source, 'path', '')}".rstrip()


def _environment() -> str:
    checkpoint_seconds()
    parallel()
    words = launcher()
    if words and shutil.which(words[0]) is None:
        raise ConfigError(
            "GDC_LAUNCHER: expected a program such as 'torchrun --standalone --nproc-per-node 2', "
            f"got {words[0]!r}, which is not found. Install it, or unset it for one process."
        )
    if shutil.which("git") is None:
        raise UserWarning("git is not found: runs are not tagged with a commit, publish fails")
    return f"models run on {device()}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / GB:.1f} GB free here"
    if free < MIN_DISK:
        raise ConfigError(
            f"disk: expected at least {MIN_DISK / GB:.0f} GB free, got {free / GB:.1f} GB. Make "
            "room: dvc gc --workspace removes what no run here uses."
        )
    if free < ENOUGH_DISK:
        raise UserWarning(f"{text}; long runs fill more: dvc gc --workspace makes room")
    return text


def _memory() -> str:
    require_address_space()
    memory = psutil.virtual_memory()
    text = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
    if memory.available < ENOUGH_MEMORY:
        raise UserWarning(f"{text}; a run needs about {ENOUGH_MEMORY / GB:.0f} GB")
    return text


def _processors() -> str:
    params = _params()
    num_cores = os.cpu_count() or 1
    text = f"{num_cores} cores, {workers(params.training.num_threads)} models at a time"
    load = os.getloadavg()[0]
    if load > num_cores:
        raise UserWarning(f"{text}; other programs keep them busy (load {load:.1f})")
    return text


def _bfloat16() -> str:
    model = _params().model
    wanted, has_it = model.precision, _computes_bfloat16()
    if has_it is None:
        return f"{wanted}; whether bfloat16 would pay is not known here"
    if wanted == "bfloat16" and not has_it:
        raise UserWarning(
            "model.precision is bfloat16, which this processor only emulates, "
            "100 times slower: float32 pays"
        )
    # Measured: benchmarks/shapes.py.
    if has_it and model.kind == "lstm" and device() == "cpu":
        if wanted == "bfloat16":
            raise UserWarning(
                "model.precision is bfloat16, but a processor computes an LSTM in float32 and only "
                "its output in bfloat16: float32 pays"
            )
        return "float32; bfloat16 would not pay for an LSTM on a processor"
    if wanted == "float32" and has_it:
        return "float32; bfloat16 may pay (model.precision)"
    return wanted


def _computes_bfloat16() -> bool | None:
    if device().startswith("cuda"):
        return True
    if device() != "cpu" or not CPU_INFO.exists():
        return None
    flags = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def _services() -> str:
    mlflow_store.require_answer()
    store = os.environ.get("MLFLOW_TRACKING_URI") or mlflow_store.DATABASE
    told = [f"MLflow at {without_secrets(store)}"]
    if address := os.environ.get("PREFECT_API_URL"):
        parts = split_address("PREFECT_API_URL", address)
        try:
            place = (parts.hostname or "", parts.port or 80)
            socket.create_connection(place, _ANSWER_SECONDS).close()
        except OSError as error:
            raise TransientError(
                f"PREFECT_API_URL: expected a server at {address}, got none: "
                f"{error.strerror or error}. Start it (prefect server start), or unset it."
            ) from None
        told.append(f"Prefect at {without_secrets(address)}")
    return ", ".join(told)


def _ports() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
    with socket.socket() as taken:
        taken.settimeout(_ANSWER_SECONDS)
        if taken.connect_ex(("127.0.0.1", UI_PORT)) == 0:
            raise UserWarning(f"port {UI_PORT} is taken: gdc ui --port 5001")
    return f"port {UI_PORT} is free for gdc ui"


CHECKS: Final[dict[str, Callable[[], str]]] = {
    "versions": _versions,
    "folder": _workspace,
    "params": _parameters,
    "source": _source,
    "environment": _environment,
    "processors": _processors,
    "bfloat16": _bfloat16,
    "memory": _memory,
    "disk": _disk,
    "services": _services,
    "ports": _ports,
}


def lines(findings: list[Finding]) -> Iterator[str]:
    """Findings for a terminal, the worst last, where a reader looks first."""
    order = ("ok", "warning", "failed")
    for finding in sorted(findings, key=lambda found: order.index(found.level)):
        yield f"{finding.level:8} {finding.check:12} {finding.text}"

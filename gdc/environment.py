"""What the programs that we start find in their environment."""

import math
import os
import re
import resource
import shlex
import socket
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from gdc.errors import ConfigError

# Nothing that is started reports home, and MLflow says nothing but warnings.
QUIET: Final[Mapping[str, str]] = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# The MLflow run that those of stages belong to.
PARENT_VARIABLE: Final = "GDC_PARENT_RUN_ID"
# Where a stage that fails leaves its exit code, which DVC does not hand on.
EXIT_CODE_VARIABLE: Final = "GDC_EXIT_CODE_FILE"
# Keeps Python from importing from the current folder.
SAFE_PATH: Final = "PYTHONSAFEPATH"
SHARDED_INFLUENCE: Final = (
    "train.self_influence: expected GDC_PARALLEL=ddp, got fsdp. Set train.self_influence: false, "
    "and take the scores that need it out of score.enabled."
)
_ADDRESSES: Final = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")
_HUB_SECONDS: Final = 5.0
_TOO_LITTLE_ADDRESS_SPACE: Final = 3 * 2**30
_PARALLEL: Final = ("ddp", "fsdp")
_DEVICES: Final = ("cpu", "cuda", "mps", "xpu")


def device() -> str:
    """Where models run: ``GDC_DEVICE``, or the processor; of several processes each has its GPU.

    Whether it is there is not looked at.

    Raises:
        ConfigError: It is no name of a device.
    """
    name = os.environ.get("GDC_DEVICE", "cpu")
    if not re.fullmatch(rf"({'|'.join(_DEVICES)})(:\d+)?", name):
        raise ConfigError(
            f"GDC_DEVICE: expected one of {', '.join(_DEVICES)}, maybe with a number as in cuda:1, "
            f"got {name!r}. Name one of these, or unset it for cpu."
        )
    local_rank = os.environ.get("LOCAL_RANK")
    return f"{name}:{local_rank}" if name == "cuda" and local_rank else name


def launcher() -> list[str]:
    """The words of ``GDC_LAUNCHER``, which starts several processes for a model; none: it is unset.

    Raises:
        ConfigError: A quotation in it does not end.
    """
    text = os.environ.get("GDC_LAUNCHER", "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(
            "GDC_LAUNCHER: expected a program such as 'torchrun --standalone --nproc-per-node 2', "
            f"got {text!r} ({error}). Mend it, or unset it for one process."
        ) from None


def parallel() -> str:
    """What each of several processes holds: ``GDC_PARALLEL``, ``ddp`` (all) or ``fsdp`` (a part).

    Raises:
        ConfigError: It is neither.
    """
    kind = os.environ.get("GDC_PARALLEL", _PARALLEL[0])
    if kind not in _PARALLEL:
        raise ConfigError(
            f"GDC_PARALLEL: expected one of {', '.join(_PARALLEL)}, got {kind!r}. Name one of "
            f"these, or unset it for {_PARALLEL[0]}."
        )
    return kind


def workers(num_threads: int) -> int:
    """Processes that run side by side when each uses ``num_threads`` cores."""
    return max(1, (os.cpu_count() or 1) // num_threads)


def checkpoint_seconds() -> float:
    """How often a run that trains saves what it has: ``GDC_CHECKPOINT_SECONDS``, or 60.

    Raises:
        ConfigError: It is no number of at least 0.
    """
    given = os.environ.get("GDC_CHECKPOINT_SECONDS", "60")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ConfigError(
            f"GDC_CHECKPOINT_SECONDS: expected seconds, at least 0, got {given!r}. "
            "Set it to a number such as 60, or unset it."
        )
    return seconds


def require_address_space() -> None:
    """Refuse a limit on memory (``ulimit -v``) under which no model can be trained.

    Below it libraries abort the process somewhere, where nothing can be told any more.

    Raises:
        ConfigError: The limit is 3 GiB or less: on 2 cores training dies there, and runs at 4.
    """
    if not sys.platform.startswith("linux"):  # others do not heed it
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit <= _TOO_LITTLE_ADDRESS_SPACE:
        raise ConfigError(
            f"ulimit -v: expected a limit on memory of 4194304 KB or more, or none, got "
            f"{limit // 1024}. Raise it (ulimit -v unlimited), then run again."
        )


def require_sound() -> None:
    """Refuse what a stage, or a library in it, would refuse only after other stages.

    Raises:
        ConfigError: A variable of ours has a value that it cannot have.
    """
    checkpoint_seconds()
    device()
    launcher()
    parallel()
    require_addresses()


def require_addresses() -> None:
    """Refuse an address of a server that is none, before a library meets it.

    Raises:
        ConfigError: A variable holds one.
    """
    for name in _ADDRESSES:
        split_address(name, os.environ.get(name, ""))


def split_address(name: str, address: str) -> SplitResult:
    """Take an address apart that stands in the variable ``name``.

    Raises:
        ConfigError: It is none.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        # What it says may hold a part of the password.
        raise ConfigError(
            f"{name}: expected an address such as http://host:5000, got {address}. "
            "In a password / is written %2F, # %23 and @ %40."
        ) from None
    return parts


def knock(address: SplitResult, port: int, seconds: float) -> None:
    """Connect to a server, unless a proxy stands between, which may reach it where we do not.

    Raises:
        OSError: Nobody listens there; ``TimeoutError``: there was no answer.
    """
    host = address.hostname or ""
    if address.scheme not in getproxies() or proxy_bypass(host):
        socket.create_connection((host, port), seconds).close()


def is_only_in_cache(name: str) -> bool:
    """Whether a model, if no local folder, can only be in the Hub's local cache: we are cut off.

    The Hub's client tries for a minute before it says so. A Hub that is slow is not away.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - slow to import, only here needed

    if Path(name).is_dir() or constants.HF_HUB_OFFLINE or "all" in getproxies():
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        knock(address, address.port or (80 if address.scheme == "http" else 443), _HUB_SECONDS)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def child_environment() -> dict[str, str]:
    """The environment of what we start: this python first on the path, nothing reported home.

    A file of the user's in the current folder, such as a ``random.py``, is no module of it.
    """
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, **QUIET, "PATH": os.pathsep.join(path), SAFE_PATH: "1"}


def never_fail_to_print() -> None:
    """Write what the encoding of the output lacks as an escape, in place of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # What takes its place, as in a test, may have no encoding.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def require_whole_models() -> None:
    """Refuse, for ``train.self_influence``, processes that have a part of the model each.

    Raises:
        ConfigError: ``GDC_LAUNCHER`` is set, and ``GDC_PARALLEL`` to ``fsdp``.
    """
    if launcher() and parallel() == "fsdp":
        raise ConfigError(SHARDED_INFLUENCE)

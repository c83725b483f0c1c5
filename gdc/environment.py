"""What the programs that we start find in their environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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


def device() -> str:
    """Where models run: ``GDC_DEVICE``, or the processor; of several processes each has its GPU."""
    name = os.environ.get("GDC_DEVICE", "cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return f"{name}:{local_rank}" if name == "cuda" and local_rank else name


def child_environment() -> dict[str, str]:
    """The environment of what we start: this python first on the path, nothing reported home."""
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, **QUIET, "PATH": os.pathsep.join(path)}

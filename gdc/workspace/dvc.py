"""Arguments of DVC -> its command line, the environment it runs in, and what it says."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gdc.environment import PARENT_VARIABLE, SAFE_PATH, child_environment

_MODULE: Final = ["-m", "dvc"]


def command(*arguments: str) -> list[str]:
    """A DVC command line that waits for another process's lock; the flag stands before the verb."""
    return [sys.executable, *_MODULE, "--wait-for-lock", *arguments]


def is_command(words: Sequence[str]) -> bool:
    """Whether a command line is one that ``command`` makes."""
    return list(words[1:3]) == _MODULE


def environment(parent_run_id: str | None = None) -> dict[str, str]:
    """The environment of DVC and of its stages, whose MLflow runs get a parent run or none."""
    variables = child_environment() | {"PYTHONUNBUFFERED": "1"}
    if Path("gdc").is_dir():
        # A checkout of ours, whose code takes the place of what is installed.
        del variables[SAFE_PATH]
    # It would take the place of the parent.
    variables.pop("MLFLOW_RUN_ID", None)
    if parent_run_id is not None:
        variables[PARENT_VARIABLE] = parent_run_id
    return variables


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of DVC that starts no stage to its end; its output is captured."""
    return subprocess.run(  # noqa: S603  # our own python, no shell
        command(*arguments), env=environment(), capture_output=True, text=True, check=False
    )

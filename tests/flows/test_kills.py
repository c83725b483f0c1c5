"""A run of the pipeline that is killed in the middle."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import chdir, suppress
from pathlib import Path

import psutil
import pytest

from gdc.workspace import dvc_files
from tests.flows.builders import (
    digests,
    dvc,
    forget,
    start_flow,
)

pytestmark = pytest.mark.slow


def test_a_run_killed_in_its_trainings_and_ended_by_hand_makes_the_same_bytes(
    first_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "workspace"
    shutil.copytree(first_run, folder)
    # What lies between them is the same again, and is not run.
    forget(folder, ["train@0", "retrain@none-1"])
    process = start_flow(folder)
    wait_for_stage(process, "train")
    kill_tree(process)
    kill_leader_in_a_stage(folder)
    with chdir(folder):
        # DVC refuses a list of claims that a kill has cut off; a run mends it first.
        dvc_files.repair()
    dvc(folder, "repro")
    assert digests(folder) == digests(first_run)
    assert dvc(folder, "status").split() == ["manifest:", "always", "changed"]


def kill_leader_in_a_stage(folder: Path) -> None:
    """The flow's process alone dies, as by the kernel when memory is short."""
    process = start_flow(folder)
    started = wait_for_stage(process, "retrain")
    process.kill()
    # Stages and Prefect's temporary server end with it.
    assert any("-m uvicorn" in command for command in started.values())
    process.communicate()
    # The fork server may be in the middle of an import, which takes seconds on a busy machine.
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def wait_for_stage(process: subprocess.Popen[str], name: str) -> dict[psutil.Process, str]:
    """All processes below a run, once this stage is among them."""
    started: dict[psutil.Process, str] = {}
    # Under its own name: a fork of the process that has its imports.
    while not any(command.startswith(f"{name} ") for command in started.values()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
        started = commands_below(process.pid)
    return started


def commands_below(pid: int) -> dict[psutil.Process, str]:
    commands = {}
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            commands[child] = " ".join([child.name(), *child.cmdline()])
    return commands


def kill_tree(process: subprocess.Popen[str]) -> None:
    """As a power cut: the flow, DVC and the stages die without a word."""
    family = psutil.Process(process.pid).children(recursive=True)
    for pid in [process.pid, *(child.pid for child in family)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
